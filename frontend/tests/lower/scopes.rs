//! Arguments and environments, one rule a test: what the last RUN sees and what the history says.

use kiln_ir::{ExecOp, Op};

use super::{Case, Outcome};

const PATH: &str = "PATH=";

fn lower(text: &str, options: &str) -> Outcome {
    Case::new(text, options).lower().1
}

/// The last RUN of a Dockerfile.
fn last_run(text: &str, options: &str) -> ExecOp {
    let lowered = lower(text, options).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    let plan = &lowered.plan;
    let mut runs = plan
        .order()
        .into_iter()
        .filter_map(|id| match &plan.graph.node(id).op {
            Op::Exec(exec) => Some(exec.clone()),
            _ => None,
        });
    runs.next_back().unwrap()
}

/// Checks the environment of the last RUN, but for `PATH`.
#[track_caller]
fn check(text: &str, options: &str, expected: &str) {
    let env = last_run(text, options).meta.env;
    let shown: Vec<String> = env
        .into_iter()
        .filter(|pair| !pair.starts_with(PATH))
        .collect();
    assert_eq!(shown.join(" "), expected, "{text}\n{options}");
}

/// Checks the last line of the history.
#[track_caller]
fn check_history(text: &str, options: &str, expected: &str) {
    let lowered = lower(text, options).unwrap();
    let config = lowered
        .plan
        .results
        .values()
        .next()
        .unwrap()
        .config
        .clone()
        .unwrap();
    assert_eq!(
        config.history.last().unwrap().created_by,
        expected,
        "{text}\n{options}"
    );
}

/// Checks the one error of a build.
#[track_caller]
fn refuse(text: &str, options: &str, expected: &str) {
    let errors = lower(text, options).unwrap_err();
    let messages: Vec<&str> = errors
        .iter()
        .filter(|error| error.is_error())
        .map(|error| error.message.as_str())
        .collect();
    assert_eq!(messages, [expected], "{text}\n{options}");
}

#[test]
fn a_global_argument_is_for_from_until_a_stage_declares_it() {
    check("ARG A=1\nFROM alpine\nRUN x", "", "");
    check("ARG A=1\nFROM alpine\nARG A\nRUN x", "", "A=1");
    check("ARG A=1\nFROM alpine\nARG A=2\nRUN x", "", "A=2");
    check("ARG A=1\nFROM alpine\nARG A=$A\nRUN x", "", "A=");
    check("ARG A=1 B=${A}2\nFROM alpine\nARG B\nRUN x", "", "B=12");
    check("ARG A\nFROM alpine\nARG A\nRUN x", "", "");
}

#[test]
fn a_build_argument_goes_before_every_default() {
    let given = "build-arg A=given";
    check("FROM alpine\nARG A\nRUN x", given, "A=given");
    check("FROM alpine\nARG A=1\nRUN x", given, "A=given");
    check("ARG A=1\nFROM alpine\nARG A=2\nRUN x", given, "A=given");
    check("FROM alpine\nARG A=1\nRUN x", "build-arg A=", "A=");
    check("FROM alpine\nARG A=1\nRUN x", "build-arg A", "A=1");
    check("FROM alpine\nRUN x", given, "");
}

#[test]
fn a_global_argument_that_is_given_reaches_the_stage_that_declares_it() {
    let given = "build-arg TAG=3.20";
    check(
        "ARG TAG=1\nFROM alpine:$TAG\nARG TAG\nRUN x",
        given,
        "TAG=3.20",
    );
    check_history(
        "ARG TAG=1\nFROM alpine:$TAG\nARG TAG",
        given,
        "ARG TAG=3.20",
    );
}

#[test]
fn arguments_that_nobody_declares_are_told() {
    let unused = |text: &str, options: &str| lower(text, options).unwrap().unused_build_args;
    let given = "build-arg A=1\nbuild-arg B=2\nbuild-arg C";
    let none: [&str; 0] = [];
    assert_eq!(unused("FROM alpine\nRUN x", given), ["A", "B"]);
    assert_eq!(unused("ARG B\nFROM alpine\nRUN x", given), ["A"]);
    assert_eq!(
        unused("FROM alpine AS no\nARG A\nFROM alpine\nARG B", given),
        none
    );
    assert_eq!(unused("FROM alpine\nONBUILD ARG A\nARG B", given), none);
    // What the builder itself reads needs no declaration.
    for name in [
        "http_proxy",
        "ALL_PROXY",
        "TARGETARCH",
        "TARGETSTAGE",
        "SOURCE_DATE_EPOCH",
    ] {
        let given = format!("build-arg {name}=1");
        assert_eq!(unused("FROM alpine\nRUN x", &given), none, "{name}");
    }
}

#[test]
fn a_default_sees_what_was_declared_before_it() {
    check("FROM alpine\nARG A=1\nARG B=$A-2\nRUN x", "", "A=1 B=1-2");
    check("FROM alpine\nARG A=1 B=$A-2\nRUN x", "", "A=1 B=1-2");
    check("FROM alpine\nENV E=1\nARG B=$E-2\nRUN x", "", "E=1 B=1-2");
    check(
        "FROM alpine\nARG B=${A:-none}\nARG A=1\nRUN x",
        "",
        "B=none A=1",
    );
}

#[test]
fn an_argument_has_no_effect_above_its_declaration() {
    check(
        "FROM alpine\nENV E=${A:-unset}\nARG A=1\nENV F=$A\nRUN x",
        "build-arg A=2",
        "E=unset F=2 A=2",
    );
}

#[test]
fn a_stage_has_the_arguments_and_the_environment_of_its_base() {
    let text = "FROM alpine AS base\nARG A=1\nENV E=2\nFROM base\nRUN x";
    check(text, "", "E=2 A=1");
    check_history(text, "", "RUN |1 A=1 /bin/sh -c x # buildkit");
    check("FROM alpine AS base\nARG A=1\nFROM alpine\nRUN x", "", "");
}

#[test]
fn of_one_name_the_environment_hides_the_argument_set_before_it() {
    check("FROM alpine\nARG A=1\nENV A=2\nRUN x", "", "A=2");
    check(
        "FROM alpine\nARG A=1\nENV A=2\nRUN x",
        "build-arg A=3",
        "A=2",
    );
    check("FROM alpine\nARG A=1\nENV A=${A}2\nRUN x", "", "A=12");
    check(
        "FROM alpine\nARG A=1\nENV A=${A:-d}\nRUN x",
        "build-arg A=3",
        "A=3",
    );
    check("FROM alpine\nENV A=2\nARG A\nRUN x", "", "A=2");
}

#[test]
fn arguments_are_never_saved_in_the_image() {
    let lowered = lower("FROM alpine\nARG A=1\nENV E=$A\nRUN x", "").unwrap();
    let config = lowered.plan.results[""].config.clone().unwrap();
    let env: Vec<&String> = config
        .config
        .env
        .iter()
        .filter(|pair| !pair.starts_with(PATH))
        .collect();
    assert_eq!(env, ["E=1"]);
}

#[test]
fn history_lists_the_arguments_of_the_stage() {
    let check = |arguments: &str, options: &str, expected: &str| {
        let text = format!("FROM alpine\n{arguments}\nRUN x");
        check_history(
            &text,
            options,
            &format!("RUN {expected}/bin/sh -c x # buildkit"),
        );
    };
    check("WORKDIR /", "", "");
    check("ARG B=2 A=1", "", "|2 B=2 A=1 ");
    check("ARG A\nARG B=\"b c\"", "", "|2 A= B=b c ");
    check("ARG A=1\nARG B=2\nARG A=3", "", "|2 A=3 B=2 ");
    check("ARG A=1\nENV A=2", "", "|1 A=2 ");
    check("ARG A=1", "build-arg A=2", "|1 A=2 ");
    check(
        "ARG TARGETARCH",
        "platform linux/arm64",
        "|1 TARGETARCH=arm64 ",
    );
}

#[test]
fn platform_arguments_are_there_for_from_and_by_declaration() {
    check("FROM alpine\nRUN x", "", "");
    let names = "TARGETPLATFORM TARGETOS TARGETOSVERSION TARGETARCH TARGETVARIANT \
                 BUILDPLATFORM BUILDOS BUILDOSVERSION BUILDARCH BUILDVARIANT";
    check(
        &format!("FROM alpine\nARG {names}\nRUN x"),
        "platform linux/arm/v6",
        "TARGETPLATFORM=linux/arm/v6 TARGETOS=linux TARGETOSVERSION= TARGETARCH=arm \
         TARGETVARIANT=v6 BUILDPLATFORM=linux/amd64 BUILDOS=linux BUILDOSVERSION= \
         BUILDARCH=amd64 BUILDVARIANT=",
    );
    check(
        "FROM --platform=$BUILDPLATFORM alpine:$TARGETARCH\nARG TARGETARCH\nRUN x",
        "platform linux/arm64",
        "TARGETARCH=arm64",
    );
    check(
        "FROM alpine\nARG TARGETARCH=mine\nRUN x",
        "",
        "TARGETARCH=mine",
    );
}

#[test]
fn a_platform_argument_that_is_given_goes_before_the_platform() {
    for name in [
        "TARGETPLATFORM",
        "TARGETARCH",
        "BUILDOS",
        "BUILDVARIANT",
        "TARGETSTAGE",
    ] {
        let text = format!("FROM alpine\nARG {name}\nRUN x");
        check(
            &text,
            &format!("build-arg {name}=mine"),
            &format!("{name}=mine"),
        );
    }
}

#[test]
fn the_target_stage_is_told_by_name() {
    let check = |text: &str, options: &str, expected: &str| {
        check(text, options, &format!("TARGETSTAGE={expected}"));
    };
    let run = "ARG TARGETSTAGE\nRUN x";
    check(&format!("FROM alpine\n{run}"), "", "default");
    check(&format!("FROM alpine AS One\n{run}"), "", "one");
    check(
        &format!("FROM alpine AS a\n{run}\nFROM a AS b\nRUN y"),
        "",
        "b",
    );
    check(
        &format!("FROM alpine AS a\n{run}\nFROM a AS b"),
        "target A",
        "A",
    );
}

#[test]
fn proxies_are_no_arguments() {
    for name in ["http_proxy", "HTTP_PROXY"] {
        let given = format!("build-arg {name}=http://p");
        let text = "FROM alpine\nRUN x";
        check(text, &given, "");
        check_history(text, &given, "RUN /bin/sh -c x # buildkit");
        assert_eq!(last_run(text, &given).meta.proxy.unwrap().http, "http://p");
        // One that is declared is an argument like any other.
        check(
            &format!("FROM alpine\nARG {name}\nRUN x"),
            &given,
            &format!("{name}=http://p"),
        );
    }
    let all = "build-arg HTTPS_PROXY=1\nbuild-arg ftp_proxy=2\nbuild-arg no_proxy=3\nbuild-arg ALL_PROXY=4";
    let proxy = last_run("FROM alpine\nRUN x", all).meta.proxy.unwrap();
    assert_eq!(
        [proxy.https, proxy.ftp, proxy.no, proxy.all],
        ["1", "2", "3", "4"]
    );
    let both = "proxy-http http://host\nbuild-arg http_proxy=http://given";
    assert_eq!(
        last_run("FROM alpine\nRUN x", both)
            .meta
            .proxy
            .unwrap()
            .http,
        "http://given"
    );
    assert!(last_run("FROM alpine\nRUN x", "").meta.proxy.is_none());
}

#[test]
fn arguments_that_steer_the_builder_are_no_variables() {
    for name in ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"] {
        let text = format!("FROM alpine\nARG {name}=true\nRUN x");
        check(&text, "", "");
    }
}

#[test]
fn environments_merge_in_place() {
    let base = "image docker.io/library/alpine:latest \
                {\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"A=0\",\"PATH=/bin\",\"B=0\"]}}";
    check("FROM alpine\nENV B=1 C=2 A=$B\nRUN x", base, "A=0 B=1 C=2");
    check("FROM alpine\nENV A=1\nENV A=2 B=$A\nRUN x", base, "A=2 B=1");
    check(
        "FROM alpine\nENV A=\"b c\" D='$A' E=\"$A\"\nRUN x",
        "",
        "A=b c D=$A E=",
    );
    check("FROM alpine\nENV A b  c\nRUN x", "", "A=b  c");
}

#[test]
fn arguments_of_the_builder_act() {
    let run =
        |argument: &str| last_run("FROM alpine\nRUN --mount=type=cache,target=/c x", argument);
    assert_eq!(
        run("build-arg BUILDKIT_SANDBOX_HOSTNAME=box").meta.hostname,
        "box"
    );
    let cache = &run("build-arg BUILDKIT_CACHE_MOUNT_NS=ns").mounts[1];
    assert!(format!("{cache:?}").contains("ns//c"), "{cache:?}");
    let keys = |argument: &str| -> Vec<String> {
        let lowered = lower("FROM alpine\nRUN x", argument).unwrap();
        lowered.plan.results.keys().cloned().collect()
    };
    assert_eq!(keys("build-arg BUILDKIT_MULTI_PLATFORM=1"), ["linux/amd64"]);
    assert_eq!(keys("build-arg BUILDKIT_MULTI_PLATFORM=false"), [""]);
    for accepted in [
        "BUILDKIT_SYNTAX=docker/dockerfile:1.7-labs",
        "BUILDKIT_SYNTAX=docker.io/docker/dockerfile-upstream:master@sha256:0",
        "BUILDKIT_SYNTAX=",
        "BUILDKIT_DISABLE_FILEOP=0",
        "BUILDKIT_INLINE_CACHE=0",
        "BUILDKIT_INLINE_CACHE=1",
        "BUILDKIT_ATTEST_SBOM=true",
        "BUILDKIT_ATTEST_PROVENANCE=mode=max",
        "BUILDKIT_DOCKERFILE_CHECK=skip=all",
    ] {
        let lowered = lower("FROM alpine\nRUN x", &format!("build-arg {accepted}")).unwrap();
        assert!(lowered.unused_build_args.is_empty(), "{accepted}");
    }
}

#[test]
fn arguments_of_the_builder_that_cannot_act_are_refused() {
    let refuse = |argument: &str, expected: &str| {
        super::scopes::refuse(
            "FROM alpine\nRUN x",
            &format!("build-arg {argument}"),
            expected,
        );
    };
    refuse(
        "BUILDKIT_SYNTAX=me/mine:1",
        "the file is for the front end `me/mine:1`, and is no Dockerfile",
    );
    refuse(
        "BUILDKIT_MULTI_PLATFORM=maybe",
        "build argument `BUILDKIT_MULTI_PLATFORM` is `maybe`, but must be true or false",
    );
    refuse(
        "BUILDKIT_DISABLE_FILEOP=1",
        "build argument `BUILDKIT_DISABLE_FILEOP` is not supported: files are always copied without a helper image",
    );
    refuse(
        "BUILDKIT_INLINE_CACHE=maybe",
        "build argument `BUILDKIT_INLINE_CACHE` is `maybe`, but must be true or false",
    );
}
