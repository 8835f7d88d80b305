//! Caches in the configs of images.

use kiln_test_registry::Registry;

use super::{Machine, check_all_found, dockerfile, layers_asked, ran, says, send};
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("cache_in_an_image", &[Containers], cache_in_an_image),
        case("cache_in_an_image_sent", &[Containers], only_sent),
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

/// What the registry has of an image that is only sent does not come here, and the cache in it is passed on.
fn only_sent(world: &World) {
    dockerfile(world);
    let registry = Registry::start();
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    let inline = ["--cache-to", "type=inline", "--push", "-t"];
    let sent = |machine, tag: &str, more: &[&str]| {
        let asked = registry.log().len();
        let build = send(&machine, &[&inline[..], &[&*name(tag)], more].concat());
        (ran(&build), layers_asked(&registry, asked))
    };
    let machine = |name| Machine::new(world, name);
    assert_eq!(sent(machine("one"), "1", &[]).0, 5);
    let manifest = |tag| String::from_utf8(registry.manifest("app", tag).unwrap().1).unwrap();
    let first = manifest("1");
    for (tag, from) in [("2", name("1")), ("3", name("2"))] {
        // The first stage is in no image, and not needed.
        assert_eq!(sent(machine(tag), tag, &["--cache-from", &from]), (0, 0));
        assert_eq!(manifest(tag), first);
    }
    // So it is with an image that was kept, and packed later.
    let four = machine("four");
    let from = ["--cache-from", &*name("1"), "--cache-to", "type=inline"];
    send(&four, &[&from[..], &["-t", &*name("4")]].concat());
    four.kiln(&["push", &name("4")]).ok();
    assert_eq!(manifest("4"), first);
    // A layer that is packed in another way comes, and the image is the same.
    let zstd = format!("type=registry,name={},compression=zstd", name("5"));
    send(&machine("five"), &[&from[..], &["-o", &*zstd]].concat());
    assert_ne!(manifest("5"), first);
    let (ran, layers) = sent(machine("six"), "6", &["--cache-from", &name("5")]);
    assert_eq!((ran, layers), (0, 2));
    assert_eq!(manifest("6"), first);
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
