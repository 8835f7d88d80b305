//! Results that are exported again: named where they are, or taken from there, and neither brought here nor packed
//! without need.

use kiln_test_registry::Registry;

use super::{Machine, check_all_found, dockerfile, ran, says};
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("passed_on", &[Containers], passed_on),
        case("passed_on_far", &[Containers], passed_on_far),
        case("passed_on_lost", &[Containers], passed_on_lost),
        case("not_packed_again", &[Containers], not_packed_again),
        case("max_keeps_all", &[Containers], max_keeps_all),
    ]
}

/// A registry with the cache of a build.
fn filled(world: &World) -> (Registry, String) {
    dockerfile(world);
    let registry = Registry::start();
    let to = format!("type=registry,ref={}/app:cache,mode=max", registry.host());
    let first = Machine::new(world, "one").build(&["--cache-to", &to]);
    (registry, first.id().to_owned())
}

/// The layers that a cache names.
fn layers(registry: &Registry) -> Vec<String> {
    let (_, manifest) = registry.manifest("app", "cache").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let digests = layers.map(|layer| layer["digest"].as_str().unwrap().to_owned());
    digests.collect()
}

/// How many layers of the cache left the registry.
fn layers_asked(registry: &Registry, since: usize) -> usize {
    let layers = layers(registry);
    let log = registry.log();
    let gets = log[since..]
        .iter()
        .filter(|request| request.method == "GET");
    let of_layers = gets.filter(|request| layers.iter().any(|layer| request.path.contains(layer)));
    of_layers.count()
}

/// From one repository of a registry to another: no byte of a layer comes or goes.
fn passed_on(world: &World) {
    let (registry, id) = filled(world);
    let host = registry.host();
    let (from, other) = (format!("{host}/app:cache"), format!("{host}/other:cache"));
    let asked = registry.log().len();
    let two = Machine::new(world, "two")
        .kiln(&["build", "-o", "type=cacheonly", "--cache-from", &from])
        .args(&[
            "--cache-to",
            &format!("type=registry,ref={other},mode=max"),
            "ctx",
        ])
        .ok();
    assert_eq!(ran(&two), 0, "{}", two.stderr);
    assert!(says(&two, "cached 5 results"), "{}", two.stderr);
    assert_eq!(layers_asked(&registry, asked), 0, "{:?}", registry.log());
    let log = registry.log();
    let uploads = log[asked..]
        .iter()
        .filter(|request| request.method == "PUT");
    let blobs = uploads.filter(|request| request.path.contains("/blobs/"));
    // The document.
    assert_eq!(blobs.count(), 1, "{log:?}");
    let three = Machine::new(world, "three");
    check_all_found(&three.build(&["--cache-from", &other]), &id);
    // The steps that nothing but a file was taken from are there too.
    world.write("ctx/source", "other program");
    let changed = three.build(&["--cache-from", &other]);
    assert_eq!(ran(&changed), 3, "{}", changed.stderr);
}

/// To a place that cannot take it from where it is: what it lacks comes here and goes there, once.
fn passed_on_far(world: &World) {
    let (registry, id) = filled(world);
    let from = format!("{}/app:cache", registry.host());
    let (two, to) = (Machine::new(world, "two"), "type=local,dest=cache,mode=max");
    for (results, layers) in [("cached 5 results", 5), ("has all 5 results already", 0)] {
        let asked = registry.log().len();
        let build = two
            .kiln(&["build", "-o", "type=cacheonly", "--cache-from", &from])
            .args(&["--cache-to", to, "ctx"])
            .ok();
        assert!(says(&build, results), "{}", build.stderr);
        assert_eq!(layers_asked(&registry, asked), layers, "{}", build.stderr);
    }
    // And back, from a directory to another registry.
    let second = Registry::start();
    let other = format!("{}/app:cache", second.host());
    let to = format!("type=registry,ref={other},mode=max");
    let three = Machine::new(world, "three")
        .kiln(&[
            "build",
            "-o",
            "type=cacheonly",
            "--cache-from",
            "type=local,src=cache",
        ])
        .args(&["--cache-to", &to, "ctx"])
        .ok();
    assert!(says(&three, "cached 5 results"), "{}", three.stderr);
    let four = Machine::new(world, "four");
    check_all_found(&four.build(&["--cache-from", &other]), &id);
}

/// A layer that is named and can be had no more costs the results that need it, not the export.
fn passed_on_lost(world: &World) {
    let (registry, _) = filled(world);
    let from = format!("{}/app:cache", registry.host());
    registry.forget_blob("app", &layers(&registry)[0]);
    for to in [
        "type=local,dest=cache,mode=max",
        "type=registry,ref=REG/other:cache,mode=max",
    ] {
        let to = to.replace("REG", &registry.host());
        let build = Machine::new(world, "two")
            .kiln(&["build", "-o", "type=cacheonly", "--cache-from", &from])
            .args(&["--cache-to", &to, "ctx"])
            .ok();
        assert!(says(&build, "cached "), "{}", build.stderr);
        assert!(!says(&build, "cached 5 results"), "{}", build.stderr);
    }
}

/// The files of a machine's store that hold archives.
fn blobs(world: &World, machine: &str) -> usize {
    let blobs = world.path(&format!("machines/{machine}/blobs/sha256"));
    std::fs::read_dir(blobs).map_or(0, Iterator::count)
}

/// What was made here too, and is there already, is not packed to find that out.
fn not_packed_again(world: &World) {
    let (registry, _) = filled(world);
    let two = Machine::new(world, "two");
    let build = two.build(&[]);
    assert_eq!(ran(&build), 5, "{}", build.stderr);
    let before = blobs(world, "two");
    let asked = registry.log().len();
    let to = format!("type=registry,ref={}/app:cache,mode=max", registry.host());
    let build = two.build(&["--cache-to", &to]);
    assert_eq!((ran(&build), layers_asked(&registry, asked)), (0, 0));
    assert_eq!(blobs(world, "two"), before, "{}", build.stderr);
    // A layer that the registry lost is sent again.
    for layer in layers(&registry) {
        registry.forget_blob("app", &layer);
    }
    two.build(&["--no-cache", "--cache-to", &to]);
    let from = format!("{}/app:cache", registry.host());
    let three = Machine::new(world, "three").build(&["--cache-from", &from]);
    assert_eq!(ran(&three), 0, "{}", three.stderr);
}

/// What a machine took from a cache it passes on whole, though it needed but a part.
fn max_keeps_all(world: &World) {
    let (registry, id) = filled(world);
    let from = format!("{}/app:cache", registry.host());
    let two = Machine::new(world, "two");
    let to = "type=local,dest=cache,mode=max";
    let build = two.build(&["--cache-from", &from, "--cache-to", to]);
    assert!(says(&build, "cached 5 results"), "{}", build.stderr);
    let from = "type=local,src=cache";
    let three = Machine::new(world, "three");
    check_all_found(&three.build(&["--cache-from", from]), &id);
    world.write("ctx/source", "other program");
    let changed = three.build(&["--cache-from", from]);
    assert_eq!(ran(&changed), 3, "{}", changed.stderr);
}
