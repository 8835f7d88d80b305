//! Stages by name and number, triggers, circles and platforms, one rule a test.

use std::collections::BTreeSet;

use kiln_frontend::lower::Scanned;
use kiln_ir::{Op, SourceOp};

use super::{Case, Outcome};

fn lower(text: &str, options: &str) -> Outcome {
    Case::new(text, options).lower().1
}

/// Checks the commands that a build runs, in the order in which they are needed.
#[track_caller]
fn check(text: &str, options: &str, expected: &str) {
    let lowered = lower(text, options).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    let plan = &lowered.plan;
    let runs: Vec<String> = plan
        .order()
        .into_iter()
        .filter_map(|id| match &plan.graph.node(id).op {
            Op::Exec(exec) => exec.meta.args.last().cloned(),
            _ => None,
        })
        .collect();
    assert_eq!(runs.join(" "), expected, "{text}\n{options}");
}

/// Checks the errors of a build: each message, with its help in brackets if that names stages.
#[track_caller]
fn refuse(text: &str, options: &str, expected: &[&str]) {
    let errors = lower(text, options).unwrap_err();
    let told: Vec<String> = errors
        .iter()
        .filter(|error| error.is_error())
        .map(|error| match &error.help {
            Some(help) if help.starts_with("the stages are") || help.contains("` needs ") => {
                format!("{} [{help}]", error.message)
            }
            _ => error.message.clone(),
        })
        .collect();
    assert_eq!(told, expected, "{text}\n{options}");
}

/// The images that a build needs, with their platforms.
fn images(text: &str, options: &str) -> BTreeSet<String> {
    let lowered = lower(text, options).unwrap();
    let graph = &lowered.plan.graph;
    let image = |id| match &graph.node(id).op {
        Op::Source(SourceOp::Image(image)) => {
            let name = image
                .reference
                .replace("docker.io/library/", "")
                .replace(":latest", "");
            Some(format!(
                "{name} {}",
                graph.node(id).platform.as_ref().unwrap()
            ))
        }
        _ => None,
    };
    graph.ids().filter_map(image).collect()
}

const TWO: &str = "FROM alpine AS One\nRUN one\nFROM alpine AS two\nRUN two\n";

#[test]
fn a_target_is_named_in_any_case() {
    check(TWO, "", "two");
    check(TWO, "target one", "one");
    check(TWO, "target ONE", "one");
    check(TWO, "target TWO", "two");
}

#[test]
fn an_unknown_target_lists_the_stages() {
    refuse(
        TWO,
        "target tow",
        &[
            "target stage \"tow\" could not be found (did you mean two?) [the stages are `one`, `two`]",
        ],
    );
    // A stage has no number here.
    refuse(
        TWO,
        "target 0",
        &["target stage \"0\" could not be found [the stages are `one`, `two`]"],
    );
    refuse(
        "FROM alpine\nRUN x",
        "target a",
        &["target stage \"a\" could not be found"],
    );
    let many: String = (0..30)
        .map(|stage| format!("FROM alpine AS s{stage:02}\n"))
        .collect();
    let errors = lower(&many, "target none").unwrap_err();
    let help = errors[0].help.as_deref().unwrap();
    assert!(help.ends_with("`s19` and 10 more"), "{help}");
}

#[test]
fn copy_takes_stages_by_number_and_name() {
    let copy = |from: &str| format!("{TWO}FROM alpine\nCOPY --from={from} /a /a\nRUN last");
    check(&copy("0"), "", "one last");
    check(&copy("1"), "", "two last");
    check(&copy("ONE"), "", "one last");
    check(&copy("+1"), "", "two last");
    refuse(&copy("9"), "", &["invalid stage index 9"]);
    refuse(&copy("-1"), "", &["invalid stage index -1"]);
    // Of a mount, a number is an image.
    let mount = format!("{TWO}FROM alpine\nRUN --mount=from=0,target=/m last");
    check(&mount, "", "last");
    assert!(images(&mount, "").contains("0 linux/amd64"));
}

#[test]
fn from_takes_stages_by_their_lower_case_name() {
    check(
        "FROM alpine AS base\nRUN one\nFROM base\nRUN two",
        "",
        "one two",
    );
    check(
        "FROM alpine AS Base\nRUN one\nFROM base\nRUN two",
        "",
        "one two",
    );
    // In other letters it is no stage, and no image either.
    let errors = lower("FROM alpine AS base\nFROM Base\nRUN two", "").unwrap_err();
    assert_eq!(errors.iter().filter(|error| error.is_error()).count(), 1);
    // One that is defined later is an image.
    let text = "FROM later\nRUN one\nFROM alpine AS later\nRUN two";
    check(text, "", "two");
    assert_eq!(images(&format!("{text}\nCOPY --from=0 /a /a"), "").len(), 2);
}

#[test]
fn the_last_of_equal_names_counts() {
    let text = "FROM alpine AS a\nRUN first\nFROM alpine AS a\nRUN second\nFROM alpine\n";
    check(
        &format!("{text}COPY --from=a /x /x\nRUN last"),
        "",
        "second last",
    );
    check(
        &format!("{text}COPY --from=0 /x /x\nRUN last"),
        "",
        "first last",
    );
    check(text, "target A", "second");
}

#[test]
fn stages_that_nothing_needs_are_left_out() {
    check(&format!("{TWO}FROM alpine\nRUN last"), "", "last");
    check(
        "FROM alpine AS a\nRUN a\nFROM a AS b\nRUN b\nFROM a\nRUN c",
        "",
        "a c",
    );
    check(
        "FROM alpine AS a\nRUN a\nFROM alpine\nRUN --mount=from=a,target=/m b",
        "",
        "a b",
    );
    // But what is wrong in them is told.
    refuse(
        "FROM alpine AS a\nCOPY --from=7 /x /x\nFROM alpine\nRUN x",
        "",
        &["invalid stage index 7"],
    );
}

#[test]
fn a_circle_is_told_as_a_whole() {
    refuse(
        "FROM alpine AS a\nCOPY --from=b /x /x\nFROM alpine AS b\nCOPY --from=a /x /x",
        "",
        &["circular dependency detected on stage: a [`a` needs `b`, which needs `a`]"],
    );
    refuse(
        "FROM alpine AS x\nRUN x\nFROM x AS a\nCOPY --from=c /x /x\nFROM a AS b\nFROM alpine AS c\nRUN --mount=from=b,target=/m y",
        "",
        &[
            "circular dependency detected on stage: a [`a` needs `c`, which needs `b`, which needs `a`]",
        ],
    );
    refuse(
        "FROM alpine AS base\nONBUILD COPY --from=child /x /x\nFROM base AS child",
        "",
        &[
            "circular dependency detected on stage: child [`child` needs an ONBUILD trigger of `base`, which needs `child`]",
        ],
    );
}

#[test]
fn a_stage_that_names_itself_or_a_later_one_is_told_where() {
    refuse(
        "FROM alpine AS a\nCOPY --from=a /x /x",
        "",
        &["cannot copy from stage \"a\", it needs to be defined before current stage \"a\""],
    );
    refuse(
        "FROM alpine AS a\nCOPY --from=b /x /x\nFROM alpine AS b\nFROM a",
        "",
        &["cannot copy from stage \"b\", it needs to be defined before current stage \"a\""],
    );
}

/// The options for a base image with triggers.
fn with_triggers(triggers: &[&str]) -> String {
    let triggers: Vec<String> = triggers.iter().map(|text| format!("{text:?}")).collect();
    format!(
        "image docker.io/library/base:latest {{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{\"OnBuild\":[{}]}}}}",
        triggers.join(",")
    )
}

#[test]
fn triggers_run_first_and_once() {
    let base = with_triggers(&["RUN one", "RUN two"]);
    check("FROM base\nRUN own", &base, "one two own");
    // They are gone then: a grandchild has none.
    check(
        "FROM base AS a\nRUN own\nFROM a\nRUN last",
        &base,
        "one two own last",
    );
    check(
        "FROM alpine AS a\nONBUILD RUN trigger\nRUN a\nFROM a AS b\nRUN b\nFROM b\nRUN c",
        "",
        "a trigger b c",
    );
    // Each child has its own.
    check(
        "FROM alpine AS a\nONBUILD ARG X=1\nONBUILD RUN trigger\nFROM a AS b\nRUN b\nFROM a\nCOPY --from=b /x /x\nRUN c",
        "",
        "trigger b c",
    );
}

#[test]
fn triggers_bring_what_they_need() {
    let base = with_triggers(&[
        "COPY --from=assets /a /a",
        "RUN --mount=from=tools,target=/t build",
    ]);
    assert_eq!(
        images("FROM base\nRUN own", &base),
        [
            "assets linux/amd64",
            "base linux/amd64",
            "tools linux/amd64"
        ]
        .map(str::to_owned)
        .into()
    );
    let of_stage = with_triggers(&["COPY --from=helper /a /a"]);
    check(
        "FROM alpine AS helper\nRUN help\nFROM base\nRUN own",
        &of_stage,
        "help own",
    );
}

#[test]
fn triggers_see_the_child() {
    let base = with_triggers(&["ARG WHO", "RUN hello"]);
    check("FROM base", &format!("{base}\nbuild-arg WHO=me"), "hello");
    let config = |text: &str, options: &str| {
        let lowered = lower(text, options).unwrap();
        lowered.plan.results[""].config.clone().unwrap().config
    };
    let entry = with_triggers(&["USER app", "WORKDIR /app", "ENTRYPOINT [\"run\"]"]);
    let config = config("FROM base\nUSER root", &entry);
    assert_eq!(
        (config.user.as_str(), config.working_dir.as_str()),
        ("root", "/app")
    );
    assert_eq!(config.on_build, [] as [&str; 0]);
}

#[test]
fn what_is_no_trigger_is_refused() {
    refuse(
        "FROM alpine\nONBUILD ONBUILD RUN x",
        "",
        &["Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"],
    );
    refuse(
        "FROM alpine\nONBUILD FROM x",
        "",
        &["FROM isn't allowed as an ONBUILD trigger"],
    );
    refuse(
        "FROM alpine\nONBUILD MAINTAINER me",
        "",
        &["MAINTAINER isn't allowed as an ONBUILD trigger"],
    );
    refuse(
        "FROM base\nRUN x",
        &with_triggers(&["ONBUILD RUN x"]),
        &[
            "invalid ONBUILD trigger `ONBUILD RUN x`: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ],
    );
}

#[test]
fn platforms_are_in_their_one_spelling() {
    let check = |written: &str, expected: &str| {
        let text = format!("FROM --platform={written} alpine AS {written}\nRUN x")
            .replace(&format!("AS {written}"), "AS linux");
        assert_eq!(
            images(&text, ""),
            BTreeSet::from([format!("alpine {expected}")]),
            "{written}"
        );
    };
    check("linux/amd64", "linux/amd64");
    check("linux/x86_64", "linux/amd64");
    check("linux/amd64/v1", "linux/amd64");
    check("linux/amd64/v3", "linux/amd64/v3");
    check("linux/aarch64", "linux/arm64");
    check("linux/arm64/v8", "linux/arm64");
    check("linux/arm64/v9", "linux/arm64/v9");
    check("linux/arm", "linux/arm/v7");
    check("linux/arm/6", "linux/arm/v6");
    check("linux/armhf", "linux/arm/v7");
    check("linux/armel", "linux/arm/v6");
    check("linux/i386", "linux/386");
    check("arm64", "linux/arm64");
    check("Linux/AMD64", "linux/amd64");
}

#[test]
fn a_base_of_another_platform_is_warned_of() {
    let warnings = |base: &str, platform: &str| -> Vec<String> {
        let options = format!(
            "platform {platform}\nimage docker.io/library/base:latest {{{base}\"os\":\"linux\"}}"
        );
        let lowered = lower("FROM base\nRUN x", &options).unwrap();
        lowered
            .diagnostics
            .iter()
            .map(|found| found.message.clone())
            .collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(
        warnings("\"architecture\":\"amd64\",", "linux/arm64"),
        [
            "Base image base was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build"
        ]
    );
    assert_eq!(
        warnings("\"architecture\":\"aarch64\",", "linux/arm64"),
        none
    );
    assert_eq!(
        warnings(
            "\"architecture\":\"arm\",\"variant\":\"v6\",",
            "linux/arm/v7"
        ),
        none
    );
}

#[test]
fn several_platforms_share_what_is_the_same() {
    let text = "FROM --platform=$BUILDPLATFORM golang AS build\nRUN fetch\nARG TARGETARCH\nRUN compile\nFROM alpine\nCOPY --from=build /x /x\nRUN own";
    let both = "platform linux/amd64\nplatform linux/arm64";
    let lowered = lower(text, both).unwrap();
    let keys: Vec<&String> = lowered.plan.results.keys().collect();
    assert_eq!(keys, ["linux/amd64", "linux/arm64"]);
    check(text, both, "fetch compile own compile own");
    let titles: BTreeSet<&str> = lowered
        .plan
        .display
        .values()
        .map(|display| display.stage.as_str())
        .filter(|stage| !stage.is_empty())
        .collect();
    assert_eq!(
        titles.into_iter().collect::<Vec<_>>(),
        [
            "linux/amd64 build",
            "linux/amd64 stage-1",
            "linux/amd64->arm64 build",
            "linux/arm64 stage-1"
        ]
    );
    // Each platform once, whatever the order.
    let turned = lower(
        text,
        "platform linux/arm64\nplatform linux/amd64\nplatform linux/arm64",
    );
    assert_eq!(turned.unwrap().plan.digest(), lowered.plan.digest());
}

/// Checks what is scanned beside the result, as `NAME` or, of another than the only one, `RESULT NAME`.
#[track_caller]
fn check_scans(text: &str, options: &str, expected: &str) {
    let lowered = lower(text, options).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    let scans: Vec<String> = lowered
        .scans
        .iter()
        .map(|scan| format!("{} {}", scan.result, scan.name).trim().to_owned())
        .collect();
    assert_eq!(scans.join(", "), expected, "{text}\n{options}");
    for scan in &lowered.scans {
        if let Scanned::Stage(Some(output)) = scan.what {
            assert!(lowered.plan.order().contains(&output.node), "{text}");
        }
    }
}

const THREE: &str = "FROM scratch AS base\nCOPY a /\nFROM scratch AS Build\nCOPY b /\n\
                     FROM scratch\nCOPY --from=base / /\nCOPY --from=build / /\n";

#[test]
fn stages_that_are_scanned() {
    let with = |line: &str| format!("{line}\n{THREE}");
    check_scans(THREE, "", "");
    check_scans(
        &with("ARG BUILDKIT_SBOM_SCAN_STAGE=true"),
        "",
        "base, build",
    );
    check_scans(&with("ARG BUILDKIT_SBOM_SCAN_STAGE=0"), "", "");
    check_scans(
        &with("ARG BUILDKIT_SBOM_SCAN_STAGE=build,other"),
        "",
        "build",
    );
    check_scans(&with("ARG BUILDKIT_SBOM_SCAN_STAGE=BUILD"), "", "build");
    // The result is scanned anyway.
    check_scans(
        &with("ARG BUILDKIT_SBOM_SCAN_STAGE=true"),
        "target base",
        "",
    );
}

#[test]
fn scans_by_build_argument() {
    let given = "build-arg BUILDKIT_SBOM_SCAN_STAGE=base";
    // Nothing declares it.
    let lowered = lower(THREE, given).unwrap();
    assert!(lowered.scans.is_empty());
    assert_eq!(lowered.unused_build_args, ["BUILDKIT_SBOM_SCAN_STAGE"]);
    let declared = format!("ARG BUILDKIT_SBOM_SCAN_STAGE\n{THREE}");
    check_scans(&declared, given, "base");
    let on = format!("ARG BUILDKIT_SBOM_SCAN_STAGE=true\n{THREE}");
    check_scans(&on, "build-arg BUILDKIT_SBOM_SCAN_STAGE=false", "");
}

#[test]
fn scans_of_one_stage() {
    let own = "FROM scratch AS base\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY a /\n\
               FROM scratch AS build\nCOPY --from=base / /\nFROM scratch\nCOPY --from=build / /\n";
    check_scans(own, "", "base");
    // A stage has the arguments of the one that it is built on.
    check_scans(
        &own.replace("FROM scratch AS build", "FROM base AS build"),
        "",
        "base, build",
    );
    // What says no to itself is left out.
    let but = format!("ARG BUILDKIT_SBOM_SCAN_STAGE=true\n{own}");
    let but = but.replace(
        "AS build\n",
        "AS build\nARG BUILDKIT_SBOM_SCAN_STAGE=false\n",
    );
    check_scans(&but, "", "base");
    // A stage that is not built is not scanned.
    check_scans(&but, "target base", "");
}

#[test]
fn scans_of_the_context() {
    let on = format!("ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n{THREE}");
    check_scans(&on, "", "context");
    let both = "platform linux/amd64\nplatform linux/arm64";
    check_scans(&on, both, "linux/amd64 context, linux/arm64 context");
    check_scans(
        "FROM scratch\nARG BUILDKIT_SBOM_SCAN_CONTEXT=1\n",
        "",
        "context",
    );
    let other =
        "FROM scratch AS a\nARG BUILDKIT_SBOM_SCAN_CONTEXT=1\nFROM scratch\nCOPY --from=a / /\n";
    check_scans(other, "", "");
}
