//! Front ends that lie, flood, hang or die: each ends in an error that says so, and nothing is left.

use nix::sys::signal::Signal;

use super::{front, plan};
use crate::support::Capability::{self, Containers};
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("bad_json", &[], bad_json),
        case("no_hello", &[], no_hello),
        case("another_version", &[], another_version),
        case("cycle", &[], cycle),
        case("dangling_input", &[], dangling_input),
        case("json_plan_of_another_version", &[], json_plan),
        case("huge_output", &[], huge_output),
        case("hangs", &[], hangs),
        case("hangs_after_its_plan", &[], hangs_after_its_plan),
        case("interrupted", NEEDS, interrupted),
        case("files_above", &[], files_above),
        case("files_of_the_host", &[], files_of_the_host),
        case("links_that_leave", &[], links_that_leave),
        case("contexts_not_given", &[], contexts_not_given),
        case(
            "plan_of_a_context_not_given",
            &[],
            plan_of_a_context_not_given,
        ),
        case("exits_early", &[], exits_early),
        case("exits_late", &[], exits_late),
        case("garbage_after_the_plan", &[], garbage_after_the_plan),
        case("floods", &[], floods),
        case("does_not_listen", &[], does_not_listen),
        case("dies_by_a_signal", &[], dies_by_a_signal),
        case("closes_its_output", &[], closes_its_output),
        case("gives_no_reason", &[], gives_no_reason),
        case("runs_something_while_planning", &[], runs_something),
        case("is_not_there", &[], is_not_there),
    ]
}

/// Plans with a script as front end, and shows all that comes of it.
fn check(world: &World, script: &str, code: i32) {
    front(world, script);
    world.snapshot(&plan(world).exits(code).whole());
    assert_eq!(world.leftovers(), [""; 0]);
}

/// The same, where the front end waits for ever unless it is ended.
fn check_patience(world: &World, script: &str) {
    front(world, script);
    let planned = plan(world).args(&["--frontend-timeout", "1s"]);
    world.snapshot(&planned.exits(1).whole());
    assert_eq!(world.leftovers(), [""; 0]);
}

const PLAN: &str = r#"say '{"type":"plan","plan":"%0 = local context\nresult %0"}'"#;

fn bad_json(world: &World) {
    check(world, r#"say '{"type":"plan","plan":'"#, 1);
}

fn no_hello(world: &World) {
    world.write_program("front", "#!/bin/sh\necho Usage: front FILE\n");
    world.snapshot(&plan(world).exits(1).whole());
}

fn another_version(world: &World) {
    let script = "#!/bin/sh\necho '{\"type\":\"hello\",\"version\":\"kiln.frontend/99\"}'\n";
    world.write_program("front", script);
    world.snapshot(&plan(world).exits(1).whole());
}

fn cycle(world: &World) {
    check(
        world,
        r#"say '{"type":"plan","plan":"%a = merge %b\n%b = merge %a\nresult %a"}'"#,
        1,
    );
}

fn dangling_input(world: &World) {
    check(
        world,
        r#"say '{"type":"plan","plan":{"version":"kiln.plan/0","nodes":[{"op":{"merge":{}},"inputs":[{"node":7}]}],"results":{"":{"output":{"node":0}}}}}'"#,
        1,
    );
}

fn json_plan(world: &World) {
    check(
        world,
        r#"say '{"type":"plan","plan":{"version":"kiln.plan/99"}}'"#,
        1,
    );
}

fn huge_output(world: &World) {
    check(world, "tr '\\0' x < /dev/zero", 1);
}

fn hangs(world: &World) {
    check_patience(world, "echo working >&2; sleep 1000 & sleep 1001");
}

fn hangs_after_its_plan(world: &World) {
    check_patience(world, &format!("{PLAN}; sleep 1000"));
}

fn interrupted(world: &World) {
    front(
        world,
        "echo ready > ready; trap '' INT TERM; while :; do sleep 1000; done",
    );
    std::fs::create_dir_all(world.path("ctx")).unwrap();
    for command in ["build", "plan"] {
        let running = world
            .kiln(&[command, "--frontend", "./front", "ctx"])
            .spawn();
        wait_for(world, "ready");
        running.signal(Signal::SIGINT);
        assert_eq!(running.wait().status.code(), Some(130), "{command}");
        assert_eq!(world.leftovers(), [""; 0]);
        world.remove("ready");
    }
}

fn wait_for(world: &World, file: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !world.path(file).exists() {
        assert!(std::time::Instant::now() < deadline, "no `{file}` appears");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn files_above(world: &World) {
    check(
        world,
        r#"say '{"type":"read","id":1,"path":"a/../../front"}'"#,
        1,
    );
}

fn files_of_the_host(world: &World) {
    check(world, r#"say '{"type":"list","id":1,"path":"/etc"}'"#, 1);
}

/// A link of a context leads where it would in a container: the host's files are never seen.
fn links_that_leave(world: &World) {
    world.write("secret", "the host's\n");
    world.write("ctx/there", "of the context\n");
    let host = world.path("secret");
    for (link, target) in [
        ("absolute", host.to_str().unwrap()),
        ("above", "../../../../../../../../../../etc/passwd"),
        ("inside", "/there"),
    ] {
        std::os::unix::fs::symlink(target, world.path(&format!("ctx/{link}"))).unwrap();
    }
    let ask = |path: &str| {
        format!(
            "say '{{\"type\":\"read\",\"id\":1,\"path\":\"{path}\"}}'; read -r answer; echo \"$answer\" >&2"
        )
    };
    let (absolute, above, inside) = (ask("absolute"), ask("above"), ask("inside"));
    front(
        world,
        &format!("read -r build\n{absolute}\n{above}\n{inside}\nexit 1"),
    );
    let ran = plan(world).exits(1);
    world.snapshot(&ran.whole());
}

fn contexts_not_given(world: &World) {
    check(
        world,
        r#"say '{"type":"read","id":1,"source":"home","path":".ssh/id_ed25519"}'"#,
        1,
    );
}

fn plan_of_a_context_not_given(world: &World) {
    check(
        world,
        r#"say '{"type":"plan","plan":"%0 = local home\nresult %0"}'"#,
        1,
    );
}

fn exits_early(world: &World) {
    check(world, "echo 'Traceback: no luck' >&2; exit 3", 1);
}

fn exits_late(world: &World) {
    check(world, &format!("{PLAN}; echo oops >&2; exit 5"), 1);
}

fn garbage_after_the_plan(world: &World) {
    check(world, &format!("{PLAN}; echo 'a last word'"), 1);
}

fn floods(world: &World) {
    // Who reads its answers may ask often, but not for ever.
    let script = r#"{ yes '{"type":"list","id":1}' & } 2>/dev/null; exec cat > /dev/null"#;
    check(world, script, 1);
}

fn does_not_listen(world: &World) {
    check_patience(world, r#"exec yes '{"type":"list","id":1}'"#);
}

fn dies_by_a_signal(world: &World) {
    check(world, "kill -9 $$", 1);
}

fn closes_its_output(world: &World) {
    check_patience(world, "exec sleep 1000 >&-");
}

fn gives_no_reason(world: &World) {
    check(world, r#"say '{"type":"failed"}'"#, 1);
}

fn runs_something(world: &World) {
    check(
        world,
        r#"say '{"type":"solve","id":1,"plan":"%0 = local context\nresult %0"}'"#,
        1,
    );
}

fn is_not_there(world: &World) {
    world.snapshot(&plan(world).exits(1).whole());
}
