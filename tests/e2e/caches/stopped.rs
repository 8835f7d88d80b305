//! Transfers to and from caches that are stopped in the middle, and what is seen of them.

use kiln_test_registry::{Fault, Registry};
use nix::sys::signal::Signal;

use super::{Machine, check_all_found, dockerfile, ran, single};
use crate::interrupts::wait_until;
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("import_interrupted", &[Containers], import_interrupted),
        case("export_interrupted", &[Containers], |world| {
            export_stopped(world, Signal::SIGINT);
        }),
        case("export_killed", &[Containers], |world| {
            export_stopped(world, Signal::SIGKILL);
        }),
        case("transfers_are_told", &[Containers], transfers_are_told),
    ]
}

fn place(registry: &Registry) -> String {
    format!("type=registry,ref={}/app:cache", registry.host())
}

fn import_interrupted(world: &World) {
    dockerfile(world);
    let registry = Registry::start();
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    let first = one.build(&["--cache-to", &place(&registry)]);
    let (_, manifest) = registry.manifest("app", "cache").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    // Whichever comes first.
    for layer in manifest["layers"].as_array().unwrap() {
        registry.inject(Fault::Stall {
            path: layer["digest"].as_str().unwrap().to_owned(),
            bytes: 10,
        });
    }
    let faults = registry.pending_faults().len();
    let from = place(&registry);
    let build = two
        .kiln(&["build", "-t", "app", "--cache-from", &from, "ctx"])
        .spawn();
    wait_until("no layer was asked for", || {
        registry.pending_faults().len() < faults
    });
    build.signal(Signal::SIGINT);
    let ended = build.wait();
    assert_eq!(ended.status.code(), Some(130), "{}", ended.whole());
    let other = Registry::start();
    one.build(&["--cache-to", &place(&other)]);
    check_all_found(&two.build(&["--cache-from", &place(&other)]), first.id());
}

/// Stops an export while a layer is on its way, and while its document is about to be put under each of its
/// names: what lay there is whole.
fn export_stopped(world: &World, signal: Signal) {
    let registry = Registry::start();
    let to = place(&registry);
    let one = Machine::new(world, "one");
    single(world, "old");
    one.kiln(&["build", "--cache-to", &to, "old"]).ok();
    single(world, "new");
    let paths = [
        "/blobs/uploads/",
        "/manifests/cache-kiln-1",
        "/manifests/cache-kiln-2",
        "/manifests/cache",
    ];
    for (round, path) in paths.into_iter().enumerate() {
        registry.inject(Fault::StallUpload {
            path: path.to_owned(),
            bytes: 1,
        });
        let build = one.kiln(&["build", "--cache-to", &to, "new"]).spawn();
        wait_until("nothing was sent", || registry.pending_faults().is_empty());
        build.signal(signal);
        let ended = build.wait();
        assert!(!ended.status.success(), "{}", ended.whole());
        let other = Machine::new(world, ["a", "b", "c", "d"][round]);
        let found = other.kiln(&["build", "--cache-from", &to, "old"]).ok();
        assert_eq!(ran(&found), 0, "{path}: {}", found.stderr);
    }
    one.kiln(&["build", "--cache-to", &to, "new"]).ok();
    let other = Machine::new(world, "other");
    for name in ["old", "new"] {
        let found = other.kiln(&["build", "--cache-from", &to, name]).ok();
        assert_eq!(ran(&found), 0, "{}", found.stderr);
    }
}

/// A line for each layer that came or went, as of those that are pulled and pushed.
fn transfers_are_told(world: &World) {
    dockerfile(world);
    let registry = Registry::start();
    let to = format!("{},mode=max", place(&registry));
    let count = |text: &str, end: &str| {
        let lines = text.lines().filter(|line| line.ends_with(end));
        lines.count()
    };
    let one = Machine::new(world, "one").build(&["--cache-to", &to]);
    assert_eq!(count(&one.stderr, "  sent"), 5, "{}", one.stderr);
    let two = Machine::new(world, "two").build(&["--cache-from", &place(&registry)]);
    assert_eq!(count(&two.stderr, "  fetched"), 2, "{}", two.stderr);
}
