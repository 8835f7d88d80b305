//! Archives of images: saved, loaded, and read by other tools.

use std::io::Write as _;

use kiln_test_registry::Registry;
use serde_json::Value;

use crate::registries::server::hide_port;
use crate::support::{Capability::*, Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("there_and_back", &[Containers], there_and_back),
        case("several_in_one", &[Containers], several_in_one),
        case("through_pipes", &[Containers], through_pipes),
        case("several_platforms", &[Containers], several_platforms),
        case("skopeo_reads", &[Containers, Skopeo], skopeo_reads),
        case("skopeo_writes", &[Containers, Skopeo], skopeo_writes),
        case(
            "podman_reads_and_writes",
            &[Containers, Root],
            podman_reads_and_writes,
        )
        .lacks(no_podman()),
        case("what_is_refused", &[Containers], what_is_refused),
        case("interrupted_load", &[Containers], interrupted_load),
        case("list_of_both_kinds", &[Containers], list_of_both_kinds),
        case(
            "list_for_another_registry",
            &[Containers],
            list_for_another_registry,
        ),
        case("list_is_changed", &[Containers], list_is_changed),
        case(
            "lists_that_are_refused",
            &[Containers],
            lists_that_are_refused,
        ),
    ]
}

/// Builds an image that tells its name.
fn build(world: &World, name: &str) -> String {
    world.dockerfile(&format!(
        "FROM demo/base\nRUN echo {name} > /name\nCMD cat /name\n"
    ));
    let ran = world.kiln(&["build", "-t", name, "ctx"]).ok();
    ran.id().to_owned()
}

fn says(world: &World, image: &str) -> String {
    world.kiln(&["run", image]).ok().stdout
}

fn index(world: &World, layout: &str) -> Value {
    serde_json::from_str(&world.read(&format!("{layout}/index.json"))).unwrap()
}

fn there_and_back(world: &World) {
    world.base();
    let id = build(world, "app");
    for (format, file) in [
        ("docker-archive", "docker.tar"),
        ("oci-archive", "oci.tar"),
        ("oci-dir", "layout"),
    ] {
        world
            .kiln(&["save", "--format", format, "-o", file, "app"])
            .ok();
    }
    for file in ["docker.tar", "oci.tar", "layout"] {
        world.forget();
        let ran = world.kiln(&["load", "-i", file]).ok();
        assert_eq!(
            ran.whole(),
            format!("$ kiln load -i {file}\nLoaded image: app:latest\n")
        );
        let images = world.kiln(&["images", "-q", "--no-trunc"]).ok();
        assert_eq!(images.stdout.trim(), id);
        assert_eq!(says(world, "app"), "app\n");
    }
    // What was loaded is saved in the same bytes.
    world
        .kiln(&["save", "--format", "oci-dir", "-o", "again", "app"])
        .ok();
    assert_eq!(index(world, "again"), index(world, "layout"));
}

fn several_in_one(world: &World) {
    world.base();
    build(world, "one");
    build(world, "two");
    world.kiln(&["tag", "one", "other:3"]).ok();
    let id = world.inspect("two")["id"].as_str().unwrap().to_owned();
    for format in ["docker-archive", "oci-archive"] {
        world
            .kiln(&[
                "save", "--format", format, "-o", "x.tar", "one", "other:3", &id,
            ])
            .ok();
        let archive = std::fs::read(world.path("x.tar")).unwrap();
        world.forget();
        let ran = world.kiln(&["load"]).stdin(archive).ok();
        let expected =
            format!("Loaded image: one:latest\nLoaded image: other:3\nLoaded image ID: {id}\n");
        assert_eq!(ran.stdout, expected);
        assert_eq!(says(world, "other:3"), "one\n");
        assert_eq!(says(world, &id), "two\n");
        world.kiln(&["tag", &id, "two"]).ok();
    }
}

fn through_pipes(world: &World) {
    world.base();
    build(world, "app");
    let archive = world.kiln(&["save", "app"]).ok().stdout_bytes;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    world.forget();
    let packed = gzip.finish().unwrap();
    let ran = world.kiln(&["load", "-q"]).stdin(packed).ok();
    assert_eq!(ran.stdout, "Loaded image: app:latest\n");
    assert_eq!(world.kiln(&["save", "app"]).ok().stdout_bytes, archive);
}

fn several_platforms(world: &World) {
    world.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY ${TARGETARCH} /which\n");
    for name in ["amd64", "arm64"] {
        world.write(&format!("ctx/{name}"), name);
    }
    let both = "linux/amd64,linux/arm64";
    world
        .kiln(&["build", "--platform", both, "-t", "app", "ctx"])
        .ok();
    world
        .kiln(&["save", "--format", "oci-archive", "-o", "both.tar", "app"])
        .ok();
    world
        .kiln(&["save", "--platform", "linux/arm64", "-o", "arm.tar", "app"])
        .ok();
    let platforms = || -> Vec<String> {
        let shown = world.kiln(&["images", "--json"]).ok().stdout;
        let image: Value = serde_json::from_str(shown.lines().next().unwrap()).unwrap();
        let platforms = image["platforms"].as_array().unwrap().iter();
        platforms
            .map(|platform| platform.as_str().unwrap().to_owned())
            .collect()
    };
    world.forget();
    world.kiln(&["load", "-i", "both.tar"]).ok();
    assert_eq!(platforms(), ["linux/amd64", "linux/arm64"]);
    world.forget();
    world
        .kiln(&["load", "-i", "both.tar", "--platform", "linux/arm64"])
        .ok();
    assert_eq!(platforms(), ["linux/arm64"]);
    world.forget();
    world.kiln(&["load", "-i", "arm.tar"]).ok();
    assert_eq!(platforms(), ["linux/arm64"]);
    let none = world.kiln(&["load", "-i", "arm.tar", "--platform", "linux/s390x"]);
    world.snapshot(&none.exits(1).whole());
}

const POLICY: &str = "--insecure-policy";

fn skopeo_reads(world: &World) {
    world.base();
    let id = build(world, "app");
    world.kiln(&["save", "-o", "docker.tar", "app"]).ok();
    world
        .kiln(&["save", "--format", "oci-archive", "-o", "oci.tar", "app"])
        .ok();
    for source in [
        "docker-archive:docker.tar",
        "docker-archive:docker.tar:docker.io/library/app:latest",
        "oci-archive:oci.tar",
        "oci-archive:docker.tar",
    ] {
        let shown = world
            .program("skopeo", &["inspect", "--config", "--raw", source])
            .ok();
        assert_eq!(
            kiln_test_registry::digest_of(&shown.stdout_bytes),
            id,
            "{source}"
        );
        world
            .program("skopeo", &[POLICY, "copy", source, "dir:copied"])
            .ok();
    }
}

fn skopeo_writes(world: &World) {
    world.base();
    let id = build(world, "app");
    world
        .kiln(&["save", "--format", "oci-dir", "-o", "layout", "app"])
        .ok();
    for (target, name) in [
        (
            "docker-archive:d.tar:example.org/team/app:2",
            "example.org/team/app:2",
        ),
        (
            "oci-archive:o.tar:example.org/team/app:3",
            "example.org/team/app:3",
        ),
    ] {
        let from = "oci:layout:latest";
        world
            .program("skopeo", &[POLICY, "copy", from, target])
            .ok();
        let file = target.split(':').nth(1).unwrap();
        world.forget();
        let ran = world.kiln(&["load", "-i", file]).ok();
        assert_eq!(ran.stdout, format!("Loaded image: {name}\n"));
        assert_eq!(says(world, name), "app\n");
        assert_eq!(world.inspect(name)["id"], id.as_str());
    }
}

fn no_podman() -> Option<String> {
    let found = crate::support::find_program("podman");
    let found = found.filter(|podman| {
        // In a directory of its own, since the one that it has may be somebody's.
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        // A podman that lists images may not be let unpack one.
        let archive = directory.path().join("empty.tar");
        std::fs::write(&archive, [0; 1024]).unwrap();
        let output = std::process::Command::new(podman)
            .arg("--root")
            .arg(&root)
            .arg("--runroot")
            .arg(directory.path().join("run"))
            .args(["--storage-driver", "vfs", "import"])
            .arg(&archive)
            .output();
        output.is_ok_and(|output| output.status.success())
    });
    match found {
        Some(_) => None,
        None => Some("podman, able to keep images here".to_owned()),
    }
}

fn podman_reads_and_writes(world: &World) {
    world.base();
    let id = build(world, "app");
    let podman = |line: &[&str]| {
        let (root, run) = (world.path("podman"), world.path("podman-run"));
        let place = [
            "--root",
            root.to_str().unwrap(),
            "--runroot",
            run.to_str().unwrap(),
        ];
        let driver = ["--storage-driver", "vfs"];
        world
            .program("podman", &[&place[..], &driver, line].concat())
            .ok()
    };
    for format in ["docker-archive", "oci-archive"] {
        world
            .kiln(&["save", "--format", format, "-o", "x.tar", "app"])
            .ok();
        podman(&["load", "-i", "x.tar"]);
        let shown = podman(&["images", "-q", "--no-trunc"]);
        assert_eq!(shown.stdout.trim(), id);
        let name = podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        podman(&[
            "save",
            "--format",
            format,
            "-o",
            "y.tar",
            name.stdout.trim(),
        ]);
        podman(&["rmi", "-a", "-f"]);
        world.forget();
        let loaded = world.kiln(&["load", "-i", "y.tar"]).ok();
        let name = loaded.stdout.trim().strip_prefix("Loaded image: ").unwrap();
        assert_eq!(says(world, name), "app\n");
        world.kiln(&["tag", name, "app"]).ok();
        world.remove("x.tar");
        world.remove("y.tar");
    }
}

fn what_is_refused(world: &World) {
    let mut text = String::new();
    world.write(
        "text",
        "no archive, but text that goes on for a while\n".repeat(40),
    );
    world.write("root.tar", world.base_archive());
    std::fs::create_dir(world.path("empty")).unwrap();
    world.write("short", "FROM scratch\n");
    for name in ["text", "short", "root.tar", "empty", "nothing"] {
        text.push_str(&world.kiln(&["load", "-i", name]).exits(1).whole());
    }
    text.push_str(&world.kiln(&["save", "nobody"]).exits(1).whole());
    let directory = world.kiln(&["save", "--format", "oci-dir", "nobody"]);
    text.push_str(&directory.exits(2).whole());
    world.snapshot(&text);
    let images = world.kiln(&["images", "-q"]).ok();
    assert_eq!(images.stdout, "");
}

fn interrupted_load(world: &World) {
    // A pipe that nobody ever writes to.
    let pipe = world.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let running = world.kiln(&["load", "-i", "pipe"]).spawn();
    // Opening it for writing waits until it is opened for reading.
    let writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let catches = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        bits.is_some_and(|bits| bits & 1 << (libc_sigint() - 1) != 0)
    };
    while !catches() {
        assert!(std::time::Instant::now() < deadline, "no signal is caught");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.signal(nix::sys::signal::Signal::SIGINT);
    let ran = running.wait();
    assert_eq!(ran.status.code(), Some(130), "{}", ran.whole());
    drop(writer);
}

fn libc_sigint() -> u64 {
    nix::sys::signal::Signal::SIGINT as u64
}

/// Builds an image of one file for a platform.
fn build_for(world: &World, platform: &str, name: &str) {
    world.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n");
    world.write("ctx/file", format!("{platform}\n"));
    world
        .kiln(&["build", "--platform", platform, "-t", name, "ctx"])
        .ok();
}

/// Pushes an image of one file for a platform, and forgets it.
fn elsewhere(world: &World, registry: &Registry, platform: &str, name: &str) {
    let name = format!("{}/{name}", registry.host());
    build_for(world, platform, &name);
    world.kiln(&["push", &name]).ok();
    world.forget();
}

fn manifest(registry: &Registry, repository: &str, name: &str) -> Value {
    let (_, bytes) = registry.manifest(repository, name).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// Checks that a repository has an index of these platforms, with all that it leads to.
fn check_list(registry: &Registry, repository: &str, tag: &str, platforms: &[&str]) {
    let index = manifest(registry, repository, tag);
    let entries = index["manifests"].as_array().unwrap();
    let mut found = Vec::new();
    for entry in entries {
        let platform = &entry["platform"];
        let part = |key: &str| platform[key].as_str().unwrap_or_default().to_owned();
        found.push(format!("{}/{}", part("os"), part("architecture")));
        let manifest = manifest(registry, repository, entry["digest"].as_str().unwrap());
        let layers = manifest["layers"].as_array().unwrap().iter();
        for blob in layers.chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            assert!(
                registry.blob(repository, digest).is_some(),
                "{digest} is not there"
            );
        }
    }
    assert_eq!(found, platforms);
}

fn list_of_both_kinds(world: &World) {
    let registry = Registry::start();
    let host = registry.host();
    elsewhere(world, &registry, "linux/arm64", "app:arm");
    build_for(world, "linux/amd64", "here");
    let (name, arm) = (format!("{host}/app:1"), format!("{host}/app:arm"));
    let before = registry.log().len();
    let made = world
        .kiln(&["manifest", "create", &name, "here", &arm])
        .ok();
    let asked = &registry.log()[before..];
    let layers = asked
        .iter()
        .filter(|request| request.path.contains("/blobs/"));
    assert_eq!(layers.count(), 1, "only a config is needed: {asked:?}");
    let images = world.kiln(&["images", "--json"]).ok().stdout;
    assert!(
        images.contains("linux/arm64") && images.contains(made.id()),
        "{images}"
    );

    let absent = world.kiln(&["history", "--platform", "linux/arm64", &name]);
    let words = absent.run().stderr;
    let expected = "has its image for linux/arm64 in a registry only";
    assert!(words.contains(expected), "{words}");

    let before = registry.log().len();
    let pushed = world.kiln(&["manifest", "push", &name]).ok();
    assert!(
        pushed.stdout.starts_with(&format!("{name}@sha256:")),
        "{}",
        pushed.stdout
    );
    check_list(&registry, "app", "1", &["linux/amd64", "linux/arm64"]);
    // What is in the repository already is neither fetched nor sent.
    let got = registry.log()[before..].to_vec();
    let fetched = got
        .iter()
        .filter(|r| r.method == "GET" && r.path.contains("/blobs/"));
    assert_eq!(fetched.count(), 0, "{got:?}");
    // Twice is as good as once.
    let again = world.kiln(&["manifest", "push", &name]).ok();
    assert_eq!(again.stdout, pushed.stdout);

    let shown = world
        .kiln(&["manifest", "inspect", "--remote", &name])
        .ok()
        .stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown, manifest(&registry, "app", "1"));
    let raw = world
        .kiln(&["manifest", "inspect", "--remote", "--raw", &name])
        .ok();
    assert_eq!(raw.stdout_bytes, registry.manifest("app", "1").unwrap().1);
    world.kiln(&["manifest", "rm", &name]).ok();
    let gone = world.kiln(&["manifest", "inspect", &name]).ok().stdout;
    assert_eq!(serde_json::from_str::<Value>(&gone).unwrap(), shown);
    // The image that was a member stays.
    world.kiln(&["inspect", "here"]).ok();
}

fn list_for_another_registry(world: &World) {
    let (from, to) = (Registry::start(), Registry::start());
    elsewhere(world, &from, "linux/arm64", "one/app:1");
    elsewhere(world, &from, "linux/amd64", "two/app:1");
    let members = ["one", "two"].map(|part| format!("{}/{part}/app:1", from.host()));
    world
        .kiln(&["manifest", "create", "all", &members[0], &members[1]])
        .ok();
    // To another repository of the same registry: nothing passes through here.
    let before = from.log().len();
    let same = format!("{}/all:2", from.host());
    world.kiln(&["manifest", "push", "all", &same]).ok();
    check_list(&from, "all", "2", &["linux/arm64", "linux/amd64"]);
    let got = from.log()[before..].to_vec();
    let fetched = got
        .iter()
        .filter(|r| r.method == "GET" && r.path.contains("/blobs/"));
    assert_eq!(fetched.count(), 0, "{got:?}");
    // To another registry: through here, as they are.
    let other = format!("{}/all:3", to.host());
    world.kiln(&["manifest", "push", "all", &other]).ok();
    check_list(&to, "all", "3", &["linux/arm64", "linux/amd64"]);
    assert_eq!(manifest(&to, "all", "3"), manifest(&from, "all", "2"));
    // As an image that the store is to have all of, it is the same.
    let whole = format!("{}/whole:1", to.host());
    world.kiln(&["push", "all", &whole]).ok();
    assert_eq!(manifest(&to, "whole", "1"), manifest(&to, "all", "3"));
    // And as an archive.
    world
        .kiln(&["save", "--format", "oci-dir", "-o", "layout", "all"])
        .ok();
    let root = index(world, "layout")["manifests"][0]["digest"].clone();
    let (_, bytes) = to.manifest("all", "3").unwrap();
    assert_eq!(root, kiln_test_registry::digest_of(&bytes));
}

fn list_is_changed(world: &World) {
    build_for(world, "linux/amd64", "one");
    build_for(world, "linux/arm64", "two");
    world
        .kiln(&["manifest", "create", "all", "one", "--annotation", "a=b"])
        .ok();
    world
        .kiln(&["manifest", "create", "--amend", "all", "two"])
        .ok();
    let annotate = [
        "manifest",
        "annotate",
        "all",
        "linux/arm64",
        "--variant",
        "v8",
    ];
    let line = [&annotate[..], &["--annotation", "c=d"]].concat();
    world.kiln(&line).ok();
    let shown = world.kiln(&["manifest", "inspect", "all"]).ok();
    // What was built here has other digests at a registry.
    assert!(shown.stderr.contains("are packed when they are pushed"));
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["annotations"], serde_json::json!({ "a": "b" }));
    let entries = shown["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["annotations"], serde_json::json!({ "c": "d" }));
    assert_eq!(entries[1]["platform"]["variant"], "v8");
    // Both ways to a registry send the same.
    let (one, two) = (Registry::start(), Registry::start());
    for (line, registry) in [
        (&["push", "all"][..], &one),
        (&["manifest", "push", "all"], &two),
    ] {
        let target = format!("{}/all:1", registry.host());
        world.kiln(&[line, &[&target]].concat()).ok();
    }
    assert_eq!(one.manifest("all", "1"), two.manifest("all", "1"));
    // It is an image like any other.
    let history = world
        .kiln(&["history", "--platform", "linux/amd64", "all"])
        .ok();
    assert!(history.stdout.contains("COPY"), "{}", history.stdout);
    world
        .kiln(&["save", "--format", "oci-archive", "-o", "all.tar", "all"])
        .ok();
    world.forget();
    let loaded = world.kiln(&["load", "-i", "all.tar"]).ok();
    assert_eq!(loaded.stdout, "Loaded image: all:latest\n");
}

fn lists_that_are_refused(world: &World) {
    let registry = Registry::start();
    let host = registry.host();
    build_for(world, "linux/amd64", "one");
    world.kiln(&["tag", "one", "same"]).ok();
    world.kiln(&["manifest", "create", "all", "one"]).ok();
    let absent = format!("{host}/absent:1");
    let mut text = String::new();
    for line in [
        &["create", "all", "one"][..],
        &["create", "one", "same"],
        &["create", "--amend", "one", "same"],
        &["create", "new", &absent],
        &["create", "new", "one", "--annotation", "novalue"],
        &["annotate", "all", "linux/s390x", "--os", "linux"],
        &["annotate", "one", "linux/amd64", "--os", "linux"],
        &["push", "one"],
        &["rm", "one"],
        &["rm", "nobody"],
    ] {
        let ran = world.kiln(&[&["manifest"], line].concat()).run();
        assert!(!ran.status.success(), "{}", ran.whole());
        text.push_str(&hide_port(&ran.whole(), &host));
    }
    let digest = |text: &str| -> String {
        let mut parts = text.split("sha256:");
        let mut shown = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            shown.push_str("sha256:_");
            shown.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
        }
        shown
    };
    world.snapshot(&digest(&text));
}
