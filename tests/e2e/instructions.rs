//! Instructions of the config where they meet files and processes.

use crate::support::Capability::{Busybox, Containers};
use crate::support::{Capability, Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const SEES: &[Capability] = &[Containers, Busybox];
    vec![
        case("volumes_keep_their_files", SEES, volumes_keep_their_files),
        case("directories_as_written", SEES, directories_as_written),
        case("names_that_are_nothing", SEES, names_that_are_nothing),
        case(
            "arguments_of_the_stages_below",
            SEES,
            arguments_of_the_stages_below,
        ),
        case("empty_commands", SEES, empty_commands),
        case("carriage_returns", SEES, carriage_returns),
    ]
}

#[track_caller]
fn check(world: &World, dockerfile: &str, script: &str, expected: &str) {
    world.base();
    world.write("ctx/f", "f\n");
    world.write("ctx/Dockerfile", dockerfile);
    world.kiln(&["build", "-t", "app", "ctx"]).ok();
    assert_eq!(world.sh("app", script), expected);
}

/// The texts of an image's history, newest last.
fn history(world: &World, image: &str) -> Vec<String> {
    let config = world.inspect(image);
    let lines = config["config"]["history"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |line: &serde_json::Value| line["created_by"].as_str().unwrap_or("").to_owned();
    lines.iter().map(text).collect()
}

fn volumes_keep_their_files(world: &World) {
    check(
        world,
        "FROM demo/base\n\
         RUN mkdir /data && echo before > /data/before\n\
         VOLUME /data\n\
         RUN echo run > /data/run\n\
         COPY f /data/copied\n",
        "cd /data && cat before run copied",
        "before\nrun\nf\n",
    );
}

fn directories_as_written(world: &World) {
    check(
        world,
        "FROM demo/base\n\
         WORKDIR /a/../w/\n\
         RUN pwd > pwd\n\
         COPY f sub/\n\
         WORKDIR sub\n\
         RUN pwd > pwd\n",
        "cat /w/pwd /w/sub/pwd /w/sub/f; pwd; test ! -e /a && echo gone",
        "/w\n/w/sub\nf\n/w/sub\ngone\n",
    );
    let told = history(world, "app");
    assert!(told.contains(&"WORKDIR /a/../w/".to_owned()), "{told:?}");
    assert!(told.contains(&"WORKDIR /w/sub".to_owned()), "{told:?}");
    check(world, "FROM demo/base\nWORKDIR /w/\n", "pwd", "/w\n");
    assert_eq!(
        world.inspect("app")["config"]["config"]["WorkingDir"],
        "/w/"
    );
}

fn names_that_are_nothing(world: &World) {
    check(
        world,
        "FROM demo/base\n\
         ENV $UNSET=x A=a\n\
         LABEL $UNSET=x\n\
         RUN echo $A > /a\n",
        "cat /a",
        "a\n",
    );
    assert_eq!(world.inspect("app")["config"]["config"]["Labels"][""], "x");
}

fn arguments_of_the_stages_below(world: &World) {
    check(
        world,
        "FROM demo/base AS base\n\
         ARG A=1\n\
         FROM base\n\
         ARG B=2\n\
         RUN echo $A $B > /both\n",
        "cat /both; echo [$A$B]",
        "1 2\n[]\n",
    );
    let told = history(world, "app");
    let run = "RUN |2 A=1 B=2 /bin/sh -c echo $A $B > /both # buildkit";
    assert!(told.contains(&run.to_owned()), "{told:?}");
}

fn empty_commands(world: &World) {
    check(world, "FROM demo/base\nRUN\nCMD\n", "echo ran", "ran\n");
    assert_eq!(
        world.inspect("app")["config"]["config"]["Cmd"],
        serde_json::json!(["/bin/sh", "-c", ""])
    );
}

fn carriage_returns(world: &World) {
    check(
        world,
        "\u{feff}FROM demo/base\r\nENV A=a \\\r\n  # more\r\n  B=b\r\nRUN echo \"$A$B\" \\\r\n  > /ab\r\nCOPY f /f\r\n",
        "cat /ab /f",
        "ab\nf\n",
    );
}
