//! What a cache names and cannot give any more: which steps run for that, and what they say of it.

use kiln_test_registry::Registry;
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
