//! A build that is stopped leaves nothing behind, and the next one goes on.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::Capability::{self, Containers, Git};
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
        case("interrupted_copy", NEEDS, interrupted_copy),
        case("interrupted_export", NEEDS, interrupted_export),
        case("interrupted_git", &[Containers, Git], interrupted_git),
    ]
}

const STOPPABLE: &str = "
    FROM demo/base
    RUN echo before > /before
    RUN echo 'the step runs'; sleep 1000 & sleep 1000; echo after > /after
";

pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
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

/// Whether a layer that is being made has a file.
fn is_copying(world: &World) -> bool {
    let list = |path: &std::path::Path| {
        let list = std::fs::read_dir(path).into_iter().flatten().flatten();
        list.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let drafts = list(&world.store().join("work"));
    let mut drafts = drafts.iter().flat_map(|process| list(process));
    drafts.any(|draft| !list(&draft.join("fs/many/0")).is_empty())
}

fn interrupted_copy(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nCOPY many /many\n");
    for directory in 0..60 {
        let path = world.path(&format!("ctx/many/{directory}"));
        std::fs::create_dir_all(&path).unwrap();
        for file in 0..100 {
            std::fs::write(path.join(file.to_string()), "x").unwrap();
        }
    }
    let running = world.kiln(&["build", "-t", "app", "ctx"]).spawn();
    wait_until("files are copied", || is_copying(world));
    let stopped = Instant::now();
    running.signal(Signal::SIGINT);
    let ran = running.wait();
    assert_eq!(ran.status.code(), Some(130), "{}", ran.whole());
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    // Nothing of the layer is left, and it can be made.
    assert_eq!(
        std::fs::read_dir(world.store().join("work"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(
        std::fs::read_dir(world.store().join("trash"))
            .unwrap()
            .count(),
        0
    );
    world.build();
    assert_eq!(world.sh("app", "ls /many | wc -l").trim(), "60");
}

fn interrupted_export(world: &World) {
    use std::io::Read;
    const LENGTH: u64 = 512 << 20;
    world.base();
    world.dockerfile("FROM demo/base\nCOPY big /big\n");
    // A hole takes no time to copy, and as long as any bytes to write to an archive.
    let big = std::fs::File::create(world.path("ctx/big")).unwrap();
    big.set_len(LENGTH).unwrap();
    let pipe = world.path("out.tar");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let destination = format!("type=tar,dest={}", pipe.display());
    let running = world.kiln(&["build", "-o", &destination, "ctx"]).spawn();
    let mut archive = std::fs::File::open(&pipe).unwrap();
    // The archive is begun, and cannot go on before it is read.
    archive.read_exact(&mut [0; 512]).unwrap();
    running.signal(Signal::SIGINT);
    let rest = std::io::copy(&mut archive, &mut std::io::sink()).unwrap();
    let ran = running.wait();
    assert_eq!(ran.status.code(), Some(130), "{}", ran.whole());
    assert!(rest < LENGTH, "{rest} bytes were written");
}

fn interrupted_git(world: &World) {
    world.base();
    // Whoever asks waits for an answer for ever.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://{}/app.git", listener.local_addr().unwrap());
    let commit = "0123456789012345678901234567890123456789";
    world.dockerfile(&format!("FROM demo/base\nADD {url} /src\n"));
    world.write(
        "pinned/Dockerfile",
        format!("FROM demo/base\nADD {url}#{commit} /src\n"),
    );
    // Asking for the commit, fetching it, and a context.
    for (context, doing) in [
        ("ctx", "ls-remote"),
        ("pinned", "fetch"),
        (&*url, "ls-remote"),
    ] {
        let running = world.kiln(&["build", context]).spawn();
        wait_for_process(world, doing);
        running.signal(Signal::SIGINT);
        let ran = running.wait();
        assert_eq!(ran.status.code(), Some(130), "{}", ran.whole());
        // A program that was killed is gone a moment later.
        wait_until("git is gone", || world.leftovers().is_empty());
    }
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
