//! A build that is stopped leaves nothing behind, and the next one goes on.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::Capability::{self, Containers};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("interrupt", NEEDS, |world| {
            stopped_by(world, Signal::SIGINT)
        }),
        case("terminate", NEEDS, |world| {
            stopped_by(world, Signal::SIGTERM)
        }),
        case(
            "a_step_that_ignores_signals",
            NEEDS,
            a_step_that_ignores_signals,
        ),
        case("interrupted_run", NEEDS, interrupted_run),
    ]
}

const STOPPABLE: &str = "
    FROM demo/base
    RUN echo before > /before
    RUN echo 'the step runs'; sleep 1000 & sleep 1000; echo after > /after
";

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never came to it: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a step runs a program whose arguments hold `needle`.
fn wait_for_process(world: &World, needle: &str) {
    wait_until(needle, || {
        world.leftovers().iter().any(|line| line.contains(needle))
    });
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn stopped_by(world: &World, signal: Signal) {
    world.base();
    world.dockerfile(STOPPABLE);
    let before = mounts().contains("kiln");
    let running = world.kiln(&["build", "-t", "app", "ctx"]).spawn();
    wait_for_process(world, "sleep 1000");
    let stopped = Instant::now();
    running.signal(signal);
    let ran = running.wait();
    assert!(
        stopped.elapsed() < Duration::from_secs(3),
        "{:?}",
        stopped.elapsed()
    );
    assert_eq!(world.leftovers(), [""; 0]);
    assert_eq!(mounts().contains("kiln"), before);
    world.snapshot_of("stopped", &ran.whole());
    // What was done is kept; what was stopped runs anew.
    world.dockerfile(&STOPPABLE.replace("sleep 1000 & sleep 1000; ", ""));
    world.snapshot_of("continued", &world.build().table());
    assert_eq!(world.kiln(&["images", "-q"]).ok().stdout.lines().count(), 2);
}

fn a_step_that_ignores_signals(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN trap '' INT TERM HUP; while true; do sleep 999; done\n");
    let running = world.kiln(&["build", "ctx"]).spawn();
    wait_for_process(world, "sleep 999");
    running.signal(Signal::SIGINT);
    assert_ne!(running.wait().status.code(), Some(0));
    assert_eq!(world.leftovers(), [""; 0]);
}

fn interrupted_run(world: &World) {
    world.base();
    std::fs::create_dir(world.path("shared")).unwrap();
    let volume = format!("{}:/shared", world.path("shared").display());
    let script = "trap 'exit 7' INT; touch /shared/ready; while true; do sleep 0.05; done";
    let running = world
        .kiln(&["run", "-v", &volume, "demo/base", "sh", "-c", script])
        .spawn();
    wait_until("the program runs", || world.path("shared/ready").exists());
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().status.code(), Some(7));
    assert_eq!(world.leftovers(), [""; 0]);
}
