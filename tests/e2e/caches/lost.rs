//! What a cache names and cannot give any more: which steps run for that, and what they say of it.

use kiln_test_registry::{Fault, Registry};
use serde_json::Value;

use super::Machine;
use crate::support::{Capability::*, Case, Ran, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("reasons_of_lost", &[Containers], reasons_of_lost),
        case(
            "reasons_of_lost_again",
            &[Containers],
            reasons_of_lost_again,
        ),
        case("reasons_below_lost", &[Containers], reasons_below_lost),
        case("damaged_and_made_anew", &[Containers], made_anew),
        case("layers_that_do_not_come", &[Containers], silent),
    ]
}

/// The blob of the layer that a step wrote.
fn blob_of(registry: &Registry, step: &str) -> String {
    let (_, manifest) = registry.manifest("app", "cache").unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let document = registry.blob("app", config).unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    let mut records = document["records"].as_array().unwrap().iter();
    let record = records.find(|record| record["parts"]["facts"]["step"]["text"] == step);
    let layers = record.unwrap()["outputs"][0].as_array().unwrap();
    let top = usize::try_from(layers.last().unwrap().as_u64().unwrap()).unwrap();
    let digest = &document["layers"][top]["blob"]["digest"];
    digest.as_str().unwrap().to_owned()
}

/// Fills a cache, and lets it lose the layer of a step.
fn without(one: Machine<'_>, registry: &Registry, step: &str) {
    let place = format!("type=registry,ref={}/app:cache,mode=max", registry.host());
    one.build(&["--cache-to", &place]);
    registry.forget_blob("app", &blob_of(registry, step));
}

/// The table of a build with the cache; a port has its own name there.
fn table(machine: Machine<'_>, registry: &Registry) -> String {
    let place = format!("{}/app:cache", registry.host());
    let build: Ran = machine.build(&["--cache-from", &place]);
    build.table().replace(&registry.host(), "HOST")
}

/// What the step leaves is something else each time, so that all above it differs.
fn reasons_of_lost(world: &World) {
    world.dockerfile(
        "
        FROM demo/base
        RUN echo first > /first
        RUN cat /proc/sys/kernel/random/uuid > /second
        RUN wc -c < /second > /third
        ",
    );
    let registry = Registry::start();
    let step = "RUN cat /proc/sys/kernel/random/uuid > /second";
    without(Machine::new(world, "one"), &registry, step);
    world.snapshot(&table(Machine::new(world, "two"), &registry));
}

/// A machine that built something older compares nothing with that.
fn reasons_of_lost_again(world: &World) {
    world.write("ctx/a", "older");
    world.dockerfile(
        "
        FROM demo/base
        COPY a /a
        RUN echo second > /second
        RUN echo third > /third
        ",
    );
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    two.build(&[]);
    world.write("ctx/a", "newer");
    let registry = Registry::start();
    without(one, &registry, "COPY a /a");
    world.snapshot_of("table", &table(two, &registry));
    let why = two.kiln(&["why"]).ok().whole();
    world.snapshot_of("why", &why.replace(&registry.host(), "HOST"));
}

/// The layer on top is lost: what is below it comes from the cache.
fn reasons_below_lost(world: &World) {
    world.dockerfile(
        "
        FROM demo/base
        RUN echo first > /first
        RUN echo second > /second
        ",
    );
    let registry = Registry::start();
    let one = Machine::new(world, "one");
    without(one, &registry, "RUN echo second > /second");
    world.snapshot(&table(Machine::new(world, "two"), &registry));
}

/// A cache whose document is gone fails no export for good.
fn made_anew(world: &World) {
    world.dockerfile("FROM demo/base\nRUN echo first > /first\n");
    let registry = Registry::start();
    let reference = format!("type=registry,ref={}/app:cache", registry.host());
    let directory = world.path("cache");
    let (to, from) = (
        format!("type=local,dest={}", directory.display()),
        format!("type=local,src={}", directory.display()),
    );
    let one = Machine::new(world, "one");
    let export = |place: &str| one.build(&["--cache-to", place]).stderr;
    let document = |manifest: &[u8]| {
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        manifest["config"]["digest"].as_str().unwrap().to_owned()
    };
    export(&reference);
    let (_, manifest) = registry.manifest("app", "cache").unwrap();
    registry.forget_blob("app", &document(&manifest));
    export(&to);
    let index: Value = serde_json::from_str(&world.read("cache/index.json")).unwrap();
    let blob = |digest: &str| format!("cache/blobs/{}", digest.replace(':', "/"));
    let manifest = world.read(&blob(index["manifests"][0]["digest"].as_str().unwrap()));
    std::fs::remove_file(world.path(&blob(&document(manifest.as_bytes())))).unwrap();
    for (to, from, machine) in [(&reference, &reference, "two"), (&to, &from, "three")] {
        let other = Machine::new(world, machine);
        let told = other.build(&["--no-cache", "--cache-from", from]).stderr;
        assert!(told.contains("is damaged: its document is gone"), "{told}");
        let told = export(to);
        let anew = "what lay there was damaged, and is replaced";
        assert!(told.contains(anew), "{told}");
        assert!(!export(to).contains(anew));
        other.kiln(&["prune", "--all"]).ok();
        let told = other.build(&["--cache-from", from]).stderr;
        assert!(told.contains("2 cached"), "{told}");
    }
}

/// Layers that never come cost as long as the cache may say nothing, once.
fn silent(world: &World) {
    let steps = ["RUN echo first > /first", "RUN echo second > /second"];
    world.dockerfile(&format!("FROM demo/base\n{}\n{}\n", steps[0], steps[1]));
    let registry = Registry::start();
    let place = format!("type=registry,ref={}/app:cache", registry.host());
    Machine::new(world, "one").build(&["--cache-to", &format!("{place},mode=max")]);
    for step in steps {
        for _ in 0..5 {
            registry.inject(Fault::Stall {
                path: blob_of(&registry, step),
                bytes: 0,
            });
        }
    }
    let ran = Machine::new(world, "two").build(&["--cache-from", &format!("{place},timeout=1s")]);
    assert!(ran.took.as_secs() < 15, "{:?}", ran.took);
    let told = "did not answer within 1 seconds";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 ran"), "{}", ran.stderr);
}
