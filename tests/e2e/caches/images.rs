//! Caches in the configs of images.

use kiln_test_registry::Registry;

use super::{Machine, check_all_found, dockerfile, ran, says};
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("cache_in_an_image", &[Containers], cache_in_an_image),
        case("cache_of_a_base", &[Containers], cache_of_a_base),
    ]
}

fn cache_in_an_image(world: &World) {
    dockerfile(world);
    let registry = Registry::start();
    let (one, two) = (Machine::new(world, "one"), Machine::new(world, "two"));
    let plain = one.build(&[]);
    let name = format!("{}/app:1", registry.host());
    let argument = one.build(&["--build-arg", "BUILDKIT_INLINE_CACHE=1", "-t", &name]);
    let flag = one.build(&["--cache-to", "type=inline"]);
    // The image is another one only where that is asked for.
    assert_ne!(plain.id(), argument.id());
    assert_eq!(argument.id(), flag.id());
    assert_eq!(one.build(&[]).id(), plain.id());
    one.kiln(&["push", &name]).ok();
    let second = two.build(&["--cache-from", &name, "--cache-to", "type=inline"]);
    check_all_found(&second, argument.id());
    assert!(says(&second, &format!("from {name}")), "{}", second.stderr);
    // It holds what the image consists of: the first stage is not in it.
    world.write("ctx/source", "other program");
    let changed = two.build(&["--cache-from", &name]);
    assert_eq!(ran(&changed), 4, "{}", changed.stderr);
}

fn cache_of_a_base(world: &World) {
    dockerfile(world);
    let registry = Registry::start();
    let one = Machine::new(world, "one");
    let name = format!("{}/app:1", registry.host());
    one.build(&["--cache-to", "type=inline", "-t", &name]);
    one.kiln(&["push", &name]).ok();
    // What is built on it says nothing of it.
    world.write("on/Dockerfile", format!("FROM {name}\nRUN echo on > /on\n"));
    one.kiln(&["build", "-t", "on", "on"]).ok();
    let config = one.kiln(&["inspect", "on"]).ok().stdout;
    assert!(!config.contains("kiln.cache"), "{config}");
    let config = one.kiln(&["inspect", &name]).ok().stdout;
    assert!(config.contains("kiln.cache.v0"), "{config}");
}
