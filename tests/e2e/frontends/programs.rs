//! Front ends that are programs of this host.

use super::{HELLO, front, plan};
use crate::support::Capability::{self, Containers, Python};
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Python];
    vec![
        case("built_twice", NEEDS, built_twice),
        case("planned", &[Python], planned),
        case("no_cache", NEEDS, no_cache),
        case("a_step_that_fails", NEEDS, a_step_that_fails),
        case("a_question_that_fails", NEEDS, a_question_that_fails),
        case("privileges_of_a_question", NEEDS, privileges_of_a_question),
        case("places_in_files", &[], places_in_files),
        case("the_first_message", &[Python], the_first_message),
        case("a_program_named_by_the_file", &[], named_by_the_file),
        case("a_program_of_a_file_from_elsewhere", NEEDS, from_elsewhere),
        case("questions_are_for_dockerfiles", &[], questions),
        case("several_platforms", &[Python], several_platforms),
        case("locks_are_for_dockerfiles", &[], locks),
    ]
}

const GREETER: &str = include_str!("greeter.py");

fn greeter(world: &World, file: &str) {
    world.write_program("front", GREETER);
    world.write("ctx/words/a", "");
    world.write("ctx/app.conf", file);
}

fn build<'w>(world: &'w World, more: &[&str]) -> crate::support::Kiln<'w> {
    let fixed = ["build", "--frontend", "./front", "-f", "ctx/app.conf"];
    world.kiln(&fixed).args(more).args(&["-t", "app", "ctx"])
}

fn built_twice(world: &World) {
    world.base();
    greeter(
        world,
        "# a comment\nword hello\ncount ls /src/words | wc -l > /count; echo counting\nold x\n",
    );
    let first = build(world, &["--label", "a=b", "--build-arg", "NOBODY=x"]).ok();
    world.snapshot_of("first", &without_talk(&first.whole()));
    assert_eq!(world.sh("app", "cat /greeting"), "hello1\n");
    let config = world.inspect("app");
    assert_eq!(config["config"]["config"]["Labels"]["a"], "b", "{config}");
    // The front end runs again, and nothing else.
    let second = build(world, &["--label", "a=b"]).ok();
    world.snapshot_of("second", &without_talk(&second.whole()));
    assert_eq!(first.id(), second.id());
    // What it counts is a part of the question's step, and so of the answer.
    world.write("ctx/words/b", "");
    let third = build(world, &[]).ok();
    world.snapshot_of("third", &third.table());
    let why = world.kiln(&["why"]).ok().stdout;
    let (_, steps) = why.split_once("\n\n").unwrap();
    world.snapshot_of("why", steps);
}

/// Leaves out what a front end says by itself: nobody knows which of its two streams is read first.
fn without_talk(whole: &str) -> String {
    let mut lines: Vec<&str> = whole.lines().collect();
    for said in ["./front: words: a", "./front: resolving"] {
        let at = lines.iter().position(|line| *line == said);
        lines.remove(at.unwrap_or_else(|| panic!("no `{said}` in {whole}")));
    }
    lines.join("\n")
}

fn planned(world: &World) {
    greeter(world, "word hello\n");
    let args = ["plan", "--platform", "linux/amd64", "--frontend", "./front"];
    let planned = world.kiln(&args).args(&["-f", "ctx/app.conf", "ctx"]).ok();
    world.snapshot(&planned.whole());
    assert!(!world.store().exists(), "planning makes no store");
}

fn no_cache(world: &World) {
    world.base();
    greeter(world, "word hello\n");
    build(world, &[]).ok();
    let forced = build(world, &["--no-cache"]).ok();
    world.snapshot_of("all", &forced.table());
    let forced = build(world, &["--no-cache-filter", "app"]).ok();
    world.snapshot_of("stage", &forced.table());
    let other = build(world, &["--no-cache-filter", "other"]).ok();
    world.snapshot_of("other", &other.table());
}

fn a_step_that_fails(world: &World) {
    world.base();
    greeter(world, "# it cannot work\nword x; echo a reason; exit 4\n");
    world.snapshot(&build(world, &["--progress", "quiet"]).exits(1).whole());
}

fn a_question_that_fails(world: &World) {
    world.base();
    greeter(world, "word x\ncount echo a reason; exit 4\n");
    world.snapshot(&build(world, &["--progress", "quiet"]).exits(1).whole());
}

fn privileges_of_a_question(world: &World) {
    front(
        world,
        r#"say '{"type":"solve","id":1,"plan":"%0 = exec scratch [\"true\"] security=insecure\nresult %0"}'"#,
    );
    std::fs::create_dir_all(world.path("ctx")).unwrap();
    let kiln = world.kiln(&["build", "--frontend", "./front", "ctx"]);
    world.snapshot(&kiln.exits(2).whole());
}

fn places_in_files(world: &World) {
    world.write("ctx/app.conf", "name = \"é\"\n\nuser = nobody\n");
    world.write("ctx/list.txt", "one\ntwo\n");
    front(
        world,
        r#"
read -r build
say '{"type":"read","id":1,"path":"list.txt"}'
read -r answer
say '{"type":"diagnostic","severity":"error","message":"there is no user `nobody`","at":{"line":3,"column":8,"end_column":14},"help":"add one"}'
say '{"type":"diagnostic","severity":"warning","message":"a name has an accent","at":{"line":1,"column":9}}'
say '{"type":"diagnostic","severity":"error","message":"`two` is not known","file":"list.txt","at":{"line":2}}'
say '{"type":"diagnostic","severity":"error","message":"a file that was never read","file":"other.txt","at":{"line":2}}'
say '{"type":"diagnostic","severity":"error","message":"and nothing fits together"}'
say '{"type":"failed"}'
exit 1
"#,
    );
    let planned = plan(world).args(&["-f", "ctx/app.conf"]).exits(2);
    world.snapshot(&planned.whole());
}

fn the_first_message(world: &World) {
    world.write("ctx/.dockerignore", "# not these\n*.log\n!keep.log\n");
    world.write("assets/x", "");
    world.write("ctx/app.conf", "content");
    front(world, "read -r build; echo \"$build\" > build; exit 1");
    let args = [
        "-f",
        "ctx/app.conf",
        "--target",
        "t",
        "--build-arg",
        "A=1",
        "--build-arg",
        "UNSET",
        "--label",
        "l=m",
        "--network",
        "none",
        "--add-host",
        "db:10.0.0.7",
        "--ulimit",
        "nofile=5:9",
        "--shm-size",
        "1m",
        "--no-cache-filter",
        "s",
        "--build-context",
        "assets=assets",
        "--build-context",
        "tools=docker-image://alpine:3",
        "--platform",
        "linux/amd64,linux/arm64",
    ];
    let planned = plan(world).args(&args).env("SOURCE_DATE_EPOCH", "17");
    planned.env("SECRET", "s").exits(1);
    let line = world.read("build");
    assert_eq!(line.trim_end().lines().count(), 1);
    let message: serde_json::Value = serde_json::from_str(&line).unwrap();
    let mut message = message;
    message["build_platform"] = "linux/host".into();
    world.snapshot(&serde_json::to_string_pretty(&message).unwrap());
    // What the caller has set is nothing to a front end.
    front(world, "env > env; exit 1");
    plan(world).env("SECRET", "s").exits(1);
    let seen = world.read("env");
    assert!(seen.contains("PATH=") && !seen.contains("SECRET"), "{seen}");
}

fn named_by_the_file(world: &World) {
    world.write_program(
        "ctx/sub/front",
        &format!(
            "#!/bin/sh\n{HELLO}\nsay '{{\"type\":\"plan\",\"plan\":\"%0 = local context\\nresult %0\"}}'\n"
        ),
    );
    world.write("ctx/sub/app.conf", "# syntax=exec:./front\nname = x\n");
    let kiln = || world.kiln(&["plan", "-f", "ctx/sub/app.conf", "ctx"]);
    world.snapshot_of("refused", &kiln().exits(2).whole());
    world.snapshot_of(
        "allowed",
        &kiln().args(&["--allow", "frontend.exec"]).ok().whole(),
    );
    world.write("ctx/sub/app.conf", "# syntax=exec:\n");
    world.snapshot_of("no_name", &kiln().exits(2).whole());
    world.write("ctx/sub/app.conf", "FROM scratch\n");
    let by_argument = kiln().args(&["--build-arg", "BUILDKIT_SYNTAX=exec:./front"]);
    world.snapshot_of("by_argument", &by_argument.exits(2).whole());
}

fn from_elsewhere(world: &World) {
    world.write("ctx/Dockerfile", "# syntax=exec:./front\n");
    world.write_program("ctx/front", &format!("#!/bin/sh\n{HELLO}\ntouch ran\n"));
    let tar = world
        .program("tar", &["-C", "ctx", "-c", "."])
        .ok()
        .stdout_bytes;
    let kiln = world
        .kiln(&["build", "--allow", "frontend.exec", "-"])
        .stdin(tar);
    world.snapshot(&kiln.exits(2).whole());
    assert!(!world.path("ran").exists());
}

fn questions(world: &World) {
    let asked = ["build", "--check", "--frontend", "./front", "ctx"];
    world.snapshot_of("flag", &world.kiln(&asked).exits(2).whole());
    world.dockerfile("# syntax=me/app:1\nname = x\n");
    let asked = ["build", "--call", "targets", "ctx"];
    world.snapshot_of("file", &world.kiln(&asked).exits(2).whole());
}

fn locks(world: &World) {
    front(world, "");
    let kiln = plan(world).args(&["--locked"]);
    world.snapshot_of("locked", &kiln.exits(2).whole());
    let kiln = world.kiln(&["lock", "--frontend", "./front", "ctx"]);
    world.snapshot_of("lock", &kiln.exits(2).whole());
}

fn several_platforms(world: &World) {
    greeter(world, "word hello\n");
    let args = [
        "plan",
        "--platform",
        "linux/amd64,linux/arm64",
        "--frontend",
        "./front",
    ];
    let planned = world.kiln(&args).args(&["-f", "ctx/app.conf", "ctx"]).ok();
    world.snapshot(&planned.whole());
}
