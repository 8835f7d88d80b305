//! The plan as text, JSON and dot, and builds of a plan.

use crate::support::Capability::{self, Containers};
use crate::support::{Case, World, case, dedent};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("text", &[], text),
        case("json", &[], json),
        case("dot", &[], dot),
        case("mermaid", &[], |world| {
            world.snapshot(&shown(world, "mermaid"))
        }),
        case("svg", &[], svg),
        case(
            "reads_nothing_of_the_store",
            &[],
            reads_nothing_of_the_store,
        ),
        case("resolved", NEEDS, resolved),
        case("round_trip_of_text", NEEDS, |world| {
            round_trip(world, "text")
        }),
        case("round_trip_of_json", NEEDS, |world| {
            round_trip(world, "json")
        }),
        case("merge", NEEDS, merge),
        case("diff", NEEDS, diff),
        case("merge_of_diffs", NEEDS, merge_of_diffs),
        case("unreadable_plan", &[], unreadable_plan),
    ]
}

const DOCKERFILE: &str = r#"
    FROM demo/base AS count
    ARG NAME=big
    RUN --mount=type=bind,source=big,target=/big wc -l < /big > /count

    FROM demo/base
    ENV A=b
    COPY --chmod=755 *.sh /bin/
    COPY --from=count /count /
    CMD ["cat", "/count"]
"#;

fn shown(world: &World, format: &str) -> String {
    world.write("ctx/big", "1\n2\n");
    world.write("ctx/run.sh", "#!/bin/sh\n");
    world.dockerfile(DOCKERFILE);
    let plan = world
        .kiln(&[
            "plan",
            "--platform",
            "linux/amd64",
            "--format",
            format,
            "ctx",
        ])
        .run();
    // The plan is data for other tools: nothing else is on standard output.
    assert_eq!(plan.stderr, "");
    plan.whole()
}

fn text(world: &World) {
    world.snapshot(&shown(world, "text"));
}

fn json(world: &World) {
    let shown = shown(world, "json");
    let (_, document) = shown.split_once('\n').unwrap();
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    world.snapshot(&serde_json::to_string_pretty(&document).unwrap());
}

fn dot(world: &World) {
    world.snapshot(&shown(world, "dot"));
}

fn svg(world: &World) {
    let shown = shown(world, "svg");
    let (_, document) = shown.split_once('\n').unwrap();
    assert!(document.starts_with("<svg xmlns="), "{document}");
    assert!(
        document.contains(">COPY --from=count /count /</title>"),
        "{document}"
    );
    assert!(document.ends_with("</svg>\n"), "{document}");
}

fn reads_nothing_of_the_store(world: &World) {
    let first = shown(world, "text");
    assert!(!world.store().exists());
    let again = world
        .kiln(&["plan", "--platform", "linux/amd64", "ctx"])
        .env("KILN_ROOT", "/dev/null/nothing")
        .env("SOURCE_DATE_EPOCH", "")
        .run();
    assert_eq!(
        first.split_once('\n').unwrap().1,
        again.whole().split_once('\n').unwrap().1
    );
}

fn resolved(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN env > /env\n");
    let plan = world.kiln(&["plan", "--resolve", "ctx"]).ok();
    assert!(!plan.stdout.contains("assumed"), "{}", plan.stdout);
    assert!(plan.stdout.contains("sha256:"), "{}", plan.stdout);
}

fn round_trip(world: &World, format: &str) {
    world.base();
    world.write("ctx/big", "1\n2\n");
    world.write("ctx/run.sh", "#!/bin/sh\n");
    world.dockerfile(DOCKERFILE);
    let epoch = |kiln: crate::support::Kiln<'_>| kiln.env("SOURCE_DATE_EPOCH", "1700000000").ok();
    let direct = epoch(world.kiln(&["build", "ctx"]));
    let plan = epoch(world.kiln(&["plan", "--resolve", "--format", format, "ctx"]));
    world.write("saved", &plan.stdout);
    let piped = world
        .kiln(&["build", "--plan", "-", "ctx"])
        .stdin(plan.stdout_bytes);
    let piped = epoch(piped);
    assert_eq!(direct.id(), piped.id());
    assert!(
        piped.stderr.contains("(same image as before)"),
        "{}",
        piped.stderr
    );
    let named = epoch(world.kiln(&["build", "--plan", "saved", "ctx"]));
    assert_eq!(direct.id(), named.id());
}

const TWO: &str = r#"%two = exec %base ["/bin/sh", "-c", "mkdir /d && echo two > /d/two && echo two > /both; rm /etc/group"]"#;

/// A plan whose `%one` and `%two` change the base, and whose result is what `last` makes of them.
fn built_by_hand(world: &World, last: &str) {
    world.base();
    let plan = dedent(&format!(
        r#"
        %base = image docker.io/demo/base:latest linux/{arch}
        %one = exec %base ["/bin/sh", "-c", "mkdir /d && echo one > /d/one && echo one > /both"]
        {two}
        {last}
        "#,
        two = if last.contains("%two") { TWO } else { "" },
        arch = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        },
    ));
    let outputs = ["-o", "type=local,dest=out", "-o", "type=image,name=app"];
    let kiln = world.kiln(&["build", "--plan", "-"]).args(&outputs);
    let ran = kiln.stdin(plan).ok();
    world.snapshot(&ran.table());
}

fn listing(world: &World) -> String {
    let script =
        "cd out && find . -path ./bin -prune -o -type f -print | sort; cat both 2> /dev/null; true";
    world.program("sh", &["-c", script]).ok().stdout
}

fn merge(world: &World) {
    built_by_hand(world, "%all = merge %one %two\n        result %all");
    assert_eq!(
        listing(world),
        "./both\n./d/one\n./d/two\n./etc/passwd\ntwo\n"
    );
}

fn diff(world: &World) {
    built_by_hand(world, "%only = diff %base -> %one\n        result %only");
    assert_eq!(listing(world), "./both\n./d/one\none\n");
}

fn merge_of_diffs(world: &World) {
    built_by_hand(
        world,
        "%first = diff %base -> %two\n        %second = diff %base -> %one\n        \
         %all = merge %base %first %second\n        result %all",
    );
    assert_eq!(
        listing(world),
        "./both\n./d/one\n./d/two\n./etc/passwd\none\n"
    );
}

fn unreadable_plan(world: &World) {
    let kiln = world.kiln(&["build", "--plan", "-"]);
    let ran = kiln.stdin("%0 = sorcery\nresult %1\n").exits(2);
    world.snapshot(&ran.whole());
}
