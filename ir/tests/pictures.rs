//! Pictures of plans: what they hold, and that any plan makes one.

#![allow(clippy::unwrap_used)]

mod plans;

use kiln_ir::build::{Builder, Tree, copy};
use kiln_ir::picture::{to_dot, to_mermaid, to_svg};
use kiln_ir::{Plan, Platform};
use proptest::prelude::*;

/// Five ops in two stages; the process of `count` is what takes longest.
fn small() -> Plan {
    let b = Builder::new();
    let base = b.image("docker.io/demo/base:latest", &Platform::linux("amd64"));
    let count = base
        .exec(["/bin/sh", "-c", "wc -l < /big > /count"])
        .bind(
            b.local("context").named("load build context").at("/big"),
            "/big",
        )
        .root()
        .named("RUN --mount=type=bind,source=big,target=/big wc -l < /big > /count")
        .in_stage("count");
    let app = base
        .named("FROM demo/base")
        .in_stage("count")
        .file([copy(count.at("/count"), "/")])
        .named("COPY --from=count /count /")
        .in_stage("app");
    b.result("", app, None);
    b.finish().unwrap()
}

/// `count` stages of a process and a copy each, which one last stage takes together.
fn many(count: usize) -> Plan {
    let b = Builder::new();
    let base = b.image("docker.io/demo/base:latest", &Platform::linux("amd64"));
    let stages: Vec<Tree<'_>> = (0..count)
        .map(|number| {
            let stage = format!("stage-{number}");
            base.exec(["make", &stage])
                .root()
                .named(format!("RUN make {stage}"))
                .in_stage(&stage)
                .file([copy(b.local("context").at("/conf"), "/etc/conf")])
                .named("COPY conf /etc/conf")
                .in_stage(&stage)
        })
        .collect();
    let all = stages.into_iter().fold(base, |all, stage| {
        all.file([copy(stage.at("/out"), "/")]).in_stage("all")
    });
    b.result("linux/amd64", all, None);
    b.finish().unwrap()
}

fn check(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "golden", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn dot() {
    check("plan_dot", &to_dot(&small()));
}

#[test]
fn mermaid() {
    check("plan_mermaid", &to_mermaid(&small()));
}

#[test]
fn svg() {
    check("plan_svg", &to_svg(&small()));
}

/// The upper left corners of an SVG's boxes.
fn corners(svg: &str) -> Vec<(usize, usize)> {
    let number = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    svg.lines()
        .filter_map(|line| line.split_once("<rect class=\"b "))
        .map(|(_, line)| (number(line, "x"), number(line, "y")))
        .collect()
}

#[test]
fn two_hundred_ops_fit_a_screen_or_two() {
    let plan = many(66);
    assert_eq!(plan.graph.len(), 2 + 66 * 3);
    let corners = corners(&to_svg(&plan));
    assert_eq!(corners.len(), plan.graph.len() + 1);
    let (width, height) = corners.iter().fold((0, 0), |(width, height), &(x, y)| {
        (width.max(x), height.max(y))
    });
    assert!(width < 5_000, "{width}");
    assert!(height < 9_000, "{height}");
}

#[test]
fn no_box_covers_another() {
    let mut seen = corners(&to_svg(&many(40)));
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_plan_has_its_pictures(plan in plans::plan()) {
        let ops = plan.order().len() + plan.results.len();
        prop_assert_eq!(corners(&to_svg(&plan)).len(), ops);
        prop_assert_eq!(to_dot(&plan).matches(", shape=").count() >= ops, true);
        prop_assert!(to_mermaid(&plan).starts_with("flowchart TB\n"));
    }
}
