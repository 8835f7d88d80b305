//! Layers that want to write outside their root, brought in by a pull.

use std::os::unix::fs::MetadataExt;

use kiln_test_registry::Registry;
use tar::EntryType;

use super::archive::Archive;
use super::server::{Packed, add_image, assert_empty_store, base_layer, hide_port};
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("absolute_path", &[Containers], absolute_path),
        case("parent_path", &[Containers], parent_path),
        case("parent_path_in_pax", &[Containers], parent_path_in_pax),
        case("through_symlink", &[Containers], through_symlink),
        case(
            "through_relative_symlink",
            &[Containers],
            through_relative_symlink,
        ),
        case(
            "through_symlink_below",
            &[Containers],
            through_symlink_below,
        ),
        case("symlink_as_root", &[Containers], symlink_as_root),
        case("hardlink_outside", &[Containers], hardlink_outside),
        case("hardlink_to_parent", &[Containers], hardlink_to_parent),
        case(
            "hardlink_through_symlink",
            &[Containers],
            hardlink_through_symlink,
        ),
        case("devices", &[Containers], devices),
        case("whiteout_device", &[Root], whiteout_device),
        case("overlay_attributes", &[Containers], overlay_attributes),
        case("whiteouts_of_dots", &[Containers], whiteouts_of_dots),
        case("whiteout_outside", &[Containers], whiteout_outside),
        case(
            "whiteout_as_directory",
            &[Containers],
            whiteout_as_directory,
        ),
    ]
}

/// What the host must keep as it is.
const SECRET: &str = "nobody's business\n";

/// A file of the host beside which hostile layers try to write.
struct Outside<'w> {
    world: &'w World,
}

impl<'w> Outside<'w> {
    fn new(world: &'w World) -> Outside<'w> {
        world.write("outside/secret", SECRET);
        Outside { world }
    }

    /// The absolute path of something there.
    fn path(&self, name: &str) -> String {
        self.world.path("outside").join(name).display().to_string()
    }

    /// The same from however deep below the root.
    fn relative(&self, name: &str) -> String {
        format!("{}{}", "../".repeat(12), &self.path(name)[1..])
    }

    fn assert_untouched(&self) {
        let directory = self.world.path("outside");
        let names: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        let metadata = std::fs::metadata(directory.join("secret")).unwrap();
        assert_eq!((metadata.nlink(), metadata.mode() & 0o777), (1, 0o644));
        assert_eq!(self.world.read("outside/secret"), SECRET);
    }
}

/// Builds on a base with this layer on top.
fn build(world: &World, layers: &[&Packed], dockerfile: &str) -> Result<String, String> {
    let registry = Registry::start();
    let base = base_layer();
    let all: Vec<&Packed> = [&base].into_iter().chain(layers.iter().copied()).collect();
    add_image(&registry, "base", &all);
    let host = registry.host();
    world.dockerfile(&dockerfile.replace("BASE", &format!("{host}/base")));
    let ran = world.kiln(&["build", "-t", "app", "ctx"]).run();
    let words = hide_port(&ran.whole(), &host);
    if ran.status.success() {
        Ok(words)
    } else {
        Err(words)
    }
}

const RUN: &str = "FROM BASE\nRUN echo > /one\n";

/// The layer is refused: nothing is kept of it, and a good image is built afterwards.
fn refused(world: &World, layer: &Packed) {
    let words = build(world, &[layer], RUN).unwrap_err();
    world.snapshot(&words);
    // The base's own layer may have arrived before, so that only this one tells.
    world.forget();
    let words = build_alone(world, layer);
    assert!(words.contains("could not unpack layer"), "{words}");
    assert_empty_store(world);
    build(world, &[], RUN).unwrap();
}

/// The image of one hostile layer alone, which must be refused.
fn build_alone(world: &World, layer: &Packed) -> String {
    let registry = Registry::start();
    add_image(&registry, "base", &[layer]);
    world.dockerfile(&RUN.replace("BASE", &format!("{}/base", registry.host())));
    let ran = world.kiln(&["build", "-t", "app", "ctx"]).exits(1);
    ran.whole()
}

/// The layer is taken as something harmless: what a script prints in the image tells.
fn harmless(world: &World, layers: &[&Packed], script: &str, expected: &str) {
    build(world, layers, RUN).unwrap_or_else(|words| panic!("{words}"));
    assert_eq!(world.sh("app", script), expected);
    build(world, &[], RUN).unwrap();
}

fn absolute_path(world: &World) {
    let outside = Outside::new(world);
    let target = outside.path("evil");
    let layer = Archive::new().file(&target, "evil").layer();
    // As in every tool, the root is the image's.
    harmless(world, &[&layer], &format!("cat {target}"), "evil");
    outside.assert_untouched();
}

fn parent_path(world: &World) {
    let outside = Outside::new(world);
    refused(
        world,
        &Archive::new()
            .file(&outside.relative("evil"), "evil")
            .layer(),
    );
    outside.assert_untouched();
}

fn parent_path_in_pax(world: &World) {
    let outside = Outside::new(world);
    let name = format!("a/b/{}", outside.relative("evil"));
    let layer = Archive::new()
        .pax("path", name.as_bytes())
        .file("innocent", "evil")
        .layer();
    refused(world, &layer);
    outside.assert_untouched();
}

fn through_symlink(world: &World) {
    let outside = Outside::new(world);
    let layer = Archive::new()
        .symlink("out", &outside.path(""))
        .file("out/evil", "evil")
        .layer();
    settled(world, &[&layer], &outside);
}

fn through_relative_symlink(world: &World) {
    let outside = Outside::new(world);
    let layer = Archive::new()
        .symlink("out", outside.relative("").trim_end_matches('/'))
        .file("out/evil", "evil")
        .file("out/secret", "evil")
        .layer();
    settled(world, &[&layer], &outside);
}

fn through_symlink_below(world: &World) {
    let outside = Outside::new(world);
    let below = Archive::new().symlink("out", &outside.path("")).layer();
    let above = Archive::new().file("out/evil", "evil").layer();
    settled(world, &[&below, &above], &outside);
}

fn symlink_as_root(world: &World) {
    let outside = Outside::new(world);
    let layer = Archive::new()
        .symlink("./", &outside.path(""))
        .file("evil", "evil")
        .layer();
    settled(world, &[&layer], &outside);
}

/// Refused or made harmless, either is right; the host is untouched, also by the steps.
fn settled(world: &World, layers: &[&Packed], outside: &Outside<'_>) {
    let dockerfile =
        "FROM BASE\nRUN echo evil > /out/more; true\nRUN chmod 777 /out/secret; true\n";
    let words = build(world, layers, dockerfile).unwrap_or_else(|words| words);
    world.snapshot(&words);
    outside.assert_untouched();
    build(world, &[], RUN).unwrap();
}

fn hardlink_outside(world: &World) {
    let outside = Outside::new(world);
    refused(
        world,
        &Archive::new()
            .hardlink("stolen", &outside.path("secret"))
            .layer(),
    );
    outside.assert_untouched();
}

fn hardlink_to_parent(world: &World) {
    let outside = Outside::new(world);
    refused(
        world,
        &Archive::new()
            .hardlink("stolen", &outside.relative("secret"))
            .layer(),
    );
    outside.assert_untouched();
}

fn hardlink_through_symlink(world: &World) {
    let outside = Outside::new(world);
    let layer = Archive::new()
        .symlink("out", &outside.path(""))
        .hardlink("stolen", "out/secret")
        .layer();
    refused(world, &layer);
    outside.assert_untouched();
}

fn devices(world: &World) {
    let (major, minor) = disk();
    let layer = Archive::new()
        .device(EntryType::Char, "mem", 1, 1)
        .device(EntryType::Char, "zero", 1, 5)
        .device(EntryType::Block, "disk", major, minor)
        .layer();
    let dockerfile = "FROM BASE\nRUN mkdir /new; mknod /new/zero c 1 5; \
                      for d in mem zero disk new/zero; do \
                      if head -c 1 /$d > /dev/null 2>&1; then echo $d opens; fi; done > /opened; \
                      rm -r /new; head -c 1 /dev/zero > /dev/null\n";
    match build(world, &[&layer], dockerfile) {
        // They may be there; they lead nowhere.
        Ok(_) => assert_eq!(
            world.sh("app", "cat /opened; head -c 1 /zero || echo refused"),
            "refused\n"
        ),
        // An ordinary user cannot have them.
        Err(words) => assert!(words.contains("device"), "{words}"),
    }
}

/// The first disk of this host.
fn disk() -> (u32, u32) {
    let partitions = std::fs::read_to_string("/proc/partitions").unwrap_or_default();
    let numbers = partitions.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    });
    numbers.unwrap_or((8, 0))
}

fn whiteout_device(world: &World) {
    let layer = Archive::new().device(EntryType::Char, "etc", 0, 0).layer();
    refused(world, &layer);
}

fn overlay_attributes(world: &World) {
    let mut archive = Archive::new();
    for (key, value) in [
        ("SCHILY.xattr.trusted.overlay.opaque", &b"y"[..]),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
    ] {
        archive = archive.pax(key, value).directory("bin/");
    }
    for (key, value) in [
        ("SCHILY.xattr.trusted.overlay.redirect", &b"/bin"[..]),
        ("SCHILY.xattr.user.overlay.redirect", b"/bin"),
    ] {
        archive = archive.pax(key, value).directory("empty/");
    }
    for (key, value) in [
        ("SCHILY.xattr.trusted.overlay.metacopy", &b""[..]),
        ("SCHILY.xattr.user.overlay.metacopy", b""),
        ("SCHILY.xattr.trusted.overlay.whiteout", b"y"),
        ("SCHILY.xattr.user.overlay.whiteout", b"y"),
    ] {
        archive = archive.pax(key, value).file("empty.txt", "");
    }
    let layer = archive.layer();
    // Nothing of the base's is hidden, nothing appears where nothing was put.
    let script = "test -e /bin/sh && ls /empty && wc -c < /empty.txt";
    harmless(world, &[&layer], script, "0\n");
}

fn whiteouts_of_dots(world: &World) {
    let outside = Outside::new(world);
    let layer = Archive::new()
        .file("a/.wh...", "")
        .file("a/.wh..", "")
        .file("a/.wh.", "")
        .layer();
    settled(world, &[&layer], &outside);
}

fn whiteout_outside(world: &World) {
    let outside = Outside::new(world);
    refused(
        world,
        &Archive::new()
            .file(&outside.relative(".wh.secret"), "")
            .layer(),
    );
    outside.assert_untouched();
}

fn whiteout_as_directory(world: &World) {
    let outside = Outside::new(world);
    let layer = Archive::new()
        .symlink("out", &outside.path(""))
        .file("out/.wh.secret", "")
        .directory(".wh.b/")
        .file(".wh.b/c", "c")
        .layer();
    settled(world, &[&layer], &outside);
}
