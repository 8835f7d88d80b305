//! Builders that export to one place at the same moment: all that they made is found afterwards.

use std::sync::Arc;

use kiln_test_registry::{Fault, Registry};
use tokio::sync::Barrier;

use super::buckets::{Store, known};
use super::{Machine, ran, says, single};
use crate::registries::server::DockerRegistry;
use crate::support::{Capability::*, Case, Kiln, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "at_once_registry",
            &[Containers, DockerRegistry],
            docker_registry,
        ),
        case("at_once_bucket", &[Containers, Seaweed], bucket),
        case("at_once_held_up", &[Containers], held_up),
        case("at_once_lost_names", &[Containers], lost_names),
        case("no_copies", &[Containers], no_copies),
        case("removed_cache", &[Containers], removed_cache),
    ]
}

/// The config of an image without layers.
const IMAGE: &[u8] =
    br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
/// How often all builders export.
const ROUNDS: usize = 3;

/// Lets several machines export results of their own at one time, again and again, and one find them all.
fn check<'w>(
    world: &'w World,
    to: &str,
    from: &str,
    kiln: impl Fn(Machine<'w>, &[&str]) -> Kiln<'w>,
) {
    let machines = ["a", "b", "c", "d", "e"].map(|name| Machine::new(world, name));
    let mut names = Vec::new();
    for round in 0..ROUNDS {
        let builds = machines.map(|machine| {
            let name = format!("{}{round}", machine.name);
            single(world, &name);
            let arguments = ["build", "-o", "type=cacheonly", "--cache-to", to, &name];
            let build = kiln(machine, &arguments).spawn();
            names.push(name);
            build
        });
        for build in builds {
            let build = build.wait();
            assert!(build.status.success(), "{}", build.whole());
        }
    }
    let other = Machine::new(world, "other");
    for name in names {
        let arguments = ["build", "-o", "type=cacheonly", "--cache-from", from, &name];
        let found = kiln(other, &arguments).ok();
        assert_eq!(ran(&found), 0, "{name}: {}", found.stderr);
    }
}

fn docker_registry(world: &World) {
    let registry = DockerRegistry::start(world);
    let from = format!("{}/app:cache", registry.host());
    let to = format!("type=registry,ref={from},mode=max");
    check(world, &to, &from, |machine, arguments| {
        machine.kiln(arguments)
    });
}

fn bucket(world: &World) {
    let store = Store::start(world);
    check(world, &store.place(",mode=max"), &store.place(""), known);
}

/// Exports the results of one step from a machine of its own.
fn export<'w>(world: &'w World, registry: &Registry, name: &'static str) -> Kiln<'w> {
    let machine = Machine::new(world, name);
    single(world, name);
    let to = format!("type=registry,ref={}/app:cache", registry.host());
    machine
        .kiln(&["build", "-o", "type=cacheonly", "--cache-to"])
        .args(&[&to, name])
}

/// Whether a machine that has nothing finds all of these.
fn check_found(world: &World, registry: &Registry, names: &[&str]) {
    let other = Machine::new(world, "other");
    let from = format!("{}/app:cache", registry.host());
    for name in names {
        let found = other
            .kiln(&["build", "-o", "type=cacheonly", "--cache-from"])
            .args(&[&from, name])
            .ok();
        assert_eq!(ran(&found), 0, "{name}: {}", found.stderr);
    }
}

/// Two builders that replace every name at the very same moment, neither knowing of the other.
fn held_up(world: &World) {
    let registry = Registry::start();
    export(world, &registry, "before").ok();
    for name in ["cache-kiln-1", "cache-kiln-2", "cache"] {
        let barrier = Arc::new(Barrier::new(2));
        for _ in 0..2 {
            registry.inject(Fault::TogetherUpload {
                path: format!("/manifests/{name}"),
                barrier: Arc::clone(&barrier),
            });
        }
    }
    let builds = ["one", "two"].map(|name| export(world, &registry, name).spawn());
    for build in builds {
        let build = build.wait();
        assert!(build.status.success(), "{}", build.whole());
    }
    assert!(registry.pending_faults().is_empty());
    check_found(world, &registry, &["before", "one", "two"]);
}

/// Whoever is held up for long and replaces some names by what lay there before.
fn lost_names(world: &World) {
    let registry = Registry::start();
    export(world, &registry, "one").ok();
    let (kind, old) = registry.manifest("app", "cache").unwrap();
    export(world, &registry, "two").ok();
    let (_, new) = registry.manifest("app", "cache").unwrap();
    for lost in [
        &["cache"][..],
        &["cache-kiln-1", "cache-kiln-2"],
        &["cache", "cache-kiln-1"],
    ] {
        for name in ["cache", "cache-kiln-1", "cache-kiln-2"] {
            let says = if lost.contains(&name) { &old } else { &new };
            registry.add_manifest("app", Some(name), &kind, says);
        }
        check_found(world, &registry, &["one", "two"]);
    }
    // The next export brings it back under all names.
    export(world, &registry, "three").ok();
    let now = registry.manifest("app", "cache").unwrap();
    for copy in ["cache-kiln-1", "cache-kiln-2"] {
        assert_eq!(registry.manifest("app", copy).unwrap(), now);
    }
    check_found(world, &registry, &["one", "two", "three"]);
}

/// A registry that takes no other tags, and one where something else has them.
fn no_copies(world: &World) {
    let registry = Registry::start();
    for copy in ["cache-kiln-1", "cache-kiln-2"] {
        registry.inject(Fault::Status {
            path: format!("/manifests/{copy}"),
            status: 403,
            retry_after: None,
        });
    }
    let one = export(world, &registry, "one").ok();
    assert!(says(&one, "it takes no copies"), "{}", one.stderr);
    registry.add_image("app", "image", IMAGE, &[]);
    let (kind, image) = registry.manifest("app", "image").unwrap();
    registry.add_manifest("app", Some("cache-kiln-1"), &kind, &image);
    export(world, &registry, "two").ok();
    assert_eq!(
        registry.manifest("app", "cache-kiln-1").unwrap(),
        (kind, image)
    );
    check_found(world, &registry, &["one", "two"]);
}

/// Whoever removes a cache has removed it, whatever its copies say.
fn removed_cache(world: &World) {
    let registry = Registry::start();
    export(world, &registry, "one").ok();
    registry.forget_tag("app", "cache");
    let other = Machine::new(world, "other");
    let from = format!("{}/app:cache", registry.host());
    let missing = other.kiln(&["build", "--cache-from", &from, "one"]).ok();
    assert!(says(&missing, "there is no cache at"), "{}", missing.stderr);
    let two = export(world, &registry, "two").ok();
    assert!(says(&two, "which has 1 now"), "{}", two.stderr);
}
