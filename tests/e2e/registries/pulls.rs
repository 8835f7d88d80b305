//! `kiln pull`: what comes, what is here already, and what an interruption leaves.

use std::io::Write as _;
use std::time::{Duration, Instant};

use kiln_test_registry::{Fault, Registry, digest_of};
use nix::sys::signal::Signal;

use super::archive::Archive;
use super::faults::add_index;
use super::server::{Packed, add_image, base_layer, config, hide_port, told, with_base};
use crate::support::{Capability::*, Case, Ran, World, base_archive, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("pull", &[Containers], pull),
        case("pull_a_platform", &[Containers], pull_a_platform),
        case("pull_several", &[Containers], pull_several),
        case("pull_all_tags", &[Containers], pull_all_tags),
        case("pull_goes_elsewhere", &[Containers], pull_goes_elsewhere),
        case("pull_all_platforms", &[Containers], pull_all_platforms),
        case(
            "pull_by_digest_and_saved",
            &[Containers],
            pull_by_digest_and_saved,
        ),
        case("pull_past_a_mirror", &[Containers], pull_past_a_mirror),
        case("pull_of_other_bytes", &[Containers], pull_of_other_bytes),
        case("pull_of_an_artifact", &[], pull_of_an_artifact),
        case("pull_interrupted", &[Containers], pull_interrupted),
        case("pull_killed", &[Containers], pull_killed),
        case("pull_of_two_at_once", &[Containers], pull_of_two_at_once),
        case(
            "pull_waits_for_another",
            &[Containers],
            pull_waits_for_another,
        ),
        case("pull_goes_on", &[Containers], pull_goes_on),
        case("push_interrupted", &[Containers], push_interrupted),
    ]
}

fn manifest(registry: &Registry, repository: &str, name: &str) -> (String, Vec<u8>) {
    let found = registry.manifest(repository, name);
    let (_, bytes) = found.unwrap_or_else(|| panic!("no {repository}:{name}"));
    (digest_of(&bytes), bytes)
}

fn id_of(bytes: &[u8]) -> String {
    let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

/// The line that standard output gets, without the id.
fn name_of(ran: &Ran) -> &str {
    ran.stdout.split(' ').next().unwrap()
}

fn pull(world: &World) {
    let registry = with_base();
    let host = registry.host();
    let name = format!("{host}/base");
    let first = world.kiln(&["pull", &name]).ok();
    let (_, bytes) = manifest(&registry, "base", "latest");
    let id = id_of(&bytes);
    assert_eq!(first.stdout, format!("{name}:latest {id}\n"));
    assert!(first.stderr.contains("1 fetched"), "{}", first.stderr);
    assert_eq!(world.inspect(&name)["id"], id.as_str());
    // It runs, and is built on, without anybody being asked.
    registry.clear_log();
    assert_eq!(world.sh(&name, "echo here"), "here\n");
    world.dockerfile(&format!("FROM {name}\nRUN echo > /one\n"));
    world.build();
    assert_eq!(registry.log(), []);
    // The manifest is all that is asked for to see that nothing changed.
    let second = world.kiln(&["pull", &name]).ok();
    assert_eq!(second.stdout, first.stdout);
    assert!(second.stderr.contains("is up to date"), "{}", second.stderr);
    assert_eq!(registry.log().len(), 1, "{:?}", registry.log());
    // The tag moves: only the new layer comes.
    let more = Archive::new().file("more", "more").layer();
    add_image(&registry, "base", &[&base_layer(), &more]);
    registry.clear_log();
    let third = world.kiln(&["pull", "-q", &name]).ok();
    assert_eq!(third.stderr, "");
    assert_eq!(
        third.stdout.trim(),
        world.inspect(&name)["id"].as_str().unwrap()
    );
    assert_eq!(registry.count("GET", &base_layer().digest()), 0);
    assert_eq!(world.sh(&name, "cat /more"), "more");
}

fn pull_a_platform(world: &World) {
    let registry = Registry::start();
    add_index(&registry, &[("s390x", ""), ("amd64", ""), ("arm64", "")]);
    let host = registry.host();
    let name = format!("{host}/base");
    world
        .kiln(&["pull", "--platform", "linux/arm64", &name])
        .ok();
    assert_eq!(world.inspect(&name)["platform"], "linux/arm64");
    let usual = world
        .kiln(&["pull", &name])
        .env("DOCKER_DEFAULT_PLATFORM", "linux/s390x");
    usual.ok();
    assert_eq!(world.inspect(&name)["platform"], "linux/s390x");
    let refused = world
        .kiln(&["pull", "--platform", "linux/mips", &name])
        .exits(1);
    world.snapshot_of("of_an_index", &told(&refused, &host));
    // One that is in no index is for what it says.
    add_image(&registry, "only", &[&base_layer()]);
    let only = format!("{host}/only");
    let refused = world
        .kiln(&["pull", "--platform", "linux/arm64", &only])
        .exits(1);
    world.snapshot_of("of_one", &told(&refused, &host));
}

fn pull_several(world: &World) {
    let registry = with_base();
    add_image(&registry, "other", &[&base_layer()]);
    let host = registry.host();
    let name = |image: &str| format!("{host}/{image}");
    let ran = world
        .kiln(&["pull", &name("base"), &name("nothing"), &name("other")])
        .exits(1);
    let names: Vec<&str> = ran
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(names, [name("base:latest"), name("other:latest")]);
    let words = hide_port(&ran.stderr, &host);
    assert!(
        words.contains("cannot fetch the manifest of `127.0.0.1:_____/nothing:latest`"),
        "{words}"
    );
}

fn pull_all_tags(world: &World) {
    let registry = with_base();
    let host = registry.host();
    let (_, image) = manifest(&registry, "base", "latest");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    registry.add_manifest("base", Some("2"), kind, &image);
    // What clients keep there is no image.
    let list = format!("sha256-{}", "a".repeat(64));
    registry.add_manifest("base", Some(&list), kind, b"{}");
    let name = format!("{host}/base");
    let pulled = world.kiln(&["pull", "--all-tags", &name]).ok();
    let names: Vec<&str> = pulled
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(names, [format!("{name}:2"), format!("{name}:latest")]);
    let tagged = world.kiln(&["pull", "-a", &format!("{name}:2")]).exits(1);
    world.snapshot(&told(&tagged, &host));
}

/// An archive keeps the digest that an image was pulled by, and the image has it again where it is loaded.
fn pull_by_digest_and_saved(world: &World) {
    let registry = with_base();
    let (digest, _) = manifest(&registry, "base", "latest");
    let name = format!("{}/base@{digest}", registry.host());
    for format in ["docker-archive", "oci-archive"] {
        world.kiln(&["pull", &name]).ok();
        let save = ["save", "--format", format, "-o", "base.tar", &name];
        world.kiln(&save).ok();
        world.forget();
        let loaded = world.kiln(&["load", "-i", "base.tar"]).ok();
        assert_eq!(loaded.stdout, format!("Loaded image: {name}\n"));
        registry.clear_log();
        assert_eq!(world.sh(&name, "echo here"), "here\n");
        world.dockerfile(&format!("FROM {name}\nRUN echo > /one\n"));
        world.build();
        assert_eq!(registry.log(), []);
        world.forget();
    }
}

/// What a mirror serves wrongly, or never to its end, comes from the next place; the last one's failure is told.
fn pull_past_a_mirror(world: &World) {
    let (origin, wrong, cutting) = (with_base(), with_base(), with_base());
    let layer = base_layer().digest();
    wrong.inject(Fault::WrongBytes {
        path: layer.clone(),
    });
    for bytes in [1000].into_iter().chain([0; 20]) {
        let path = layer.clone();
        cutting.inject(Fault::CutAfter { path, bytes });
    }
    let name = format!("{}/base", origin.host());
    let mirrors = [&wrong, &cutting].map(|it| format!("{}={}", origin.host(), it.url()));
    let line = ["--mirror", &mirrors[0], "--mirror", &mirrors[1], &name];
    let pulled = world.kiln(&[&["pull"], &line[..]].concat()).ok();
    let warned = format!("warning: the mirror `{}` is not asked again", wrong.host());
    assert_eq!(
        pulled.stderr.matches(&warned).count(),
        1,
        "{}",
        pulled.whole()
    );
    assert_eq!(world.sh(&name, "echo here"), "here\n");
    let asked = |of: &Registry| of.count("GET", &layer);
    assert_eq!((asked(&wrong), asked(&origin)), (1, 1));
    assert!(asked(&cutting) > 1, "{:?}", cutting.log());

    // A build goes the same way, and names the registry itself where that fails too.
    world.forget();
    for registry in [&wrong, &origin] {
        let path = layer.clone();
        registry.inject(Fault::WrongBytes { path });
    }
    world.dockerfile(&format!("FROM {name}\nRUN echo > /one\n"));
    let build = ["build", "--mirror", &mirrors[0], "ctx"];
    let failed = world.kiln(&build).exits(1);
    let at = format!("of `{name}:latest` at `{}`", origin.host());
    assert!(failed.stderr.contains(&at), "{}", failed.whole());
    wrong.inject(Fault::WrongBytes { path: layer });
    let built = world.kiln(&build).ok();
    assert_eq!(
        built.stderr.matches(&warned).count(),
        1,
        "{}",
        built.whole()
    );
}

/// What was pulled is pushed elsewhere byte for byte.
fn pull_goes_elsewhere(world: &World) {
    let (from, to) = (Registry::start(), Registry::start());
    let (layer, config) = (base_layer(), config("amd64", &[&base_layer()]));
    from.add_image("base", "odd", config.as_bytes(), &[&layer.bytes]);
    // Nobody would write it like this again.
    let (_, bytes) = manifest(&from, "base", "odd");
    let odd = format!(" \n{}\n\n", String::from_utf8(bytes).unwrap());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let digest = from.add_manifest("base", Some("1"), kind, odd.as_bytes());
    let name = format!("{}/base:1", from.host());
    world.kiln(&["pull", &name]).ok();
    let target = format!("{}/there:2", to.host());
    let ran = world.kiln(&["push", &name, &target]).ok();
    assert_eq!(ran.stdout, format!("{target}@{digest}\n"));
    assert_eq!(manifest(&to, "there", "2").1, odd.as_bytes());
    assert_eq!(to.blob("there", &layer.digest()).unwrap(), layer.bytes);
}

/// All of an index, and what is attested of it, goes from one registry to another.
fn pull_all_platforms(world: &World) {
    let (from, to) = (Registry::start(), Registry::start());
    add_index(&from, &[("amd64", ""), ("arm64", "")]);
    let (_, bytes) = manifest(&from, "base", "latest");
    let mut index: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let statement = br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#;
    let of = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let attested = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": from.add_blob("base", b"{}"),
            "size": 2,
        },
        "layers": [{
            "mediaType": "application/vnd.in-toto+json",
            "digest": from.add_blob("base", statement),
            "size": statement.len(),
        }],
    })
    .to_string();
    let digest = from.add_manifest("base", None, kind, attested.as_bytes());
    index["manifests"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!({
            "mediaType": kind,
            "digest": digest,
            "size": attested.len(),
            "platform": { "os": "unknown", "architecture": "unknown" },
            "annotations": {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": of,
            },
        }));
    let kind = "application/vnd.oci.image.index.v1+json";
    let root = from.add_manifest("base", Some("all"), kind, index.to_string().as_bytes());
    let name = format!("{}/base:all", from.host());
    let pulled = world.kiln(&["pull", "--all-platforms", &name]).ok();
    assert_eq!(pulled.stdout, format!("{name} {root}\n"));
    from.clear_log();
    let again = world.kiln(&["pull", "--all-platforms", &name]).ok();
    assert!(again.stderr.contains("up to date"), "{}", again.stderr);
    assert_eq!(from.log().len(), 1, "{:?}", from.log());
    let target = format!("{}/app:all", to.host());
    let pushed = world.kiln(&["push", &name, &target]).ok();
    assert_eq!(pushed.stdout, format!("{target}@{root}\n"));
    assert_eq!(manifest(&to, "app", "all").1, index.to_string().as_bytes());
    assert!(to.blob("app", &digest_of(statement)).is_some());
    // What nobody needs goes, and nothing else.
    world.kiln(&["prune"]).ok();
    let third = format!("{}/again:all", to.host());
    let pushed = world.kiln(&["push", &name, &third]).ok();
    assert_eq!(pushed.stdout, format!("{third}@{root}\n"));
    world.kiln(&["rmi", &name]).ok();
    world.kiln(&["prune", "--all"]).ok();
    let du = world.kiln(&["du"]).ok().stdout;
    let blobs = du.lines().find(|line| line.starts_with("blobs")).unwrap();
    assert_eq!(blobs.split_whitespace().nth(1), Some("0"), "{du}");
}

/// Two images have a layer that was packed in two ways; what is not here is brought when it is wanted.
fn pull_of_other_bytes(world: &World) {
    let first = base_layer();
    let mut best = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    best.write_all(base_archive()).unwrap();
    let second = Packed {
        diff_id: first.diff_id.clone(),
        bytes: best.finish().unwrap(),
    };
    assert_ne!(first.bytes, second.bytes);
    let (from, to) = (Registry::start(), Registry::start());
    add_image(&from, "one", &[&first]);
    let more = Archive::new().file("more", "more").layer();
    let digest = add_image(&from, "two", &[&second, &more]);
    let name = |image: &str| format!("{}/{image}", from.host());
    world.kiln(&["pull", &name("one"), &name("two")]).ok();
    assert_eq!(from.count("GET", &second.digest()), 0, "its files are here");
    let target = format!("{}/two:1", to.host());
    let ran = world.kiln(&["push", &name("two"), &target]).ok();
    assert_eq!(ran.stdout, format!("{target}@{digest}\n"));
    assert_eq!(from.count("GET", &second.digest()), 1);
    // Once is enough.
    let third = format!("{}/three:1", to.host());
    world.kiln(&["push", &name("two"), &third]).ok();
    assert_eq!(from.count("GET", &second.digest()), 1);
}

/// Waits for something that another process does.
pub(super) fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn stall(registry: &Registry, layer: &Packed) {
    registry.inject(Fault::Stall {
        path: layer.digest(),
        bytes: 10,
    });
}

fn pull_interrupted(world: &World) {
    let registry = with_base();
    let host = registry.host();
    let name = format!("{host}/base");
    stall(&registry, &base_layer());
    let running = world.kiln(&["pull", &name]).spawn();
    wait_for("the layer was never asked for", || {
        registry.count("GET", &base_layer().digest()) > 0
    });
    running.signal(Signal::SIGINT);
    let ran = running.wait();
    assert_eq!(ran.status.code(), Some(130), "{}", ran.stderr);
    world.snapshot(&told(&ran, &host));
    assert_eq!(world.leftovers(), [""; 0]);
    let ran = world.kiln(&["pull", &name]).ok();
    assert_eq!(name_of(&ran), format!("{name}:latest"));
    assert_eq!(world.sh(&name, "echo here"), "here\n");
}

/// Of a pull that was killed, whole layers are not fetched again.
fn pull_killed(world: &World) {
    let registry = Registry::start();
    let (base, more) = (base_layer(), Archive::new().file("more", "more").layer());
    add_image(&registry, "base", &[&base, &more]);
    let name = format!("{}/base", registry.host());
    stall(&registry, &more);
    let running = world.kiln(&["pull", &name]).spawn();
    let whole = format!("layers/{}", base.diff_id.replace(':', "-"));
    wait_for("the base never came", || {
        world.store().join(&whole).exists()
    });
    wait_for("the layer was never asked for", || {
        registry.count("GET", &more.digest()) > 0
    });
    // Its directory is there an instant before the store knows of it.
    wait_for("the store never knew the base", || {
        let usage = world.kiln(&["du"]).ok().stdout;
        let layers = usage.lines().find(|line| line.starts_with("layers"));
        layers.and_then(|line| line.split_whitespace().nth(1)) == Some("1")
    });
    running.signal(Signal::SIGKILL);
    running.wait();
    world.kiln(&["pull", &name]).ok();
    assert_eq!(
        registry.count("GET", &base.digest()),
        1,
        "{:?}",
        registry.log()
    );
    assert_eq!(world.sh(&name, "cat /more"), "more");
    // Nothing of the first stays once somebody cleans up.
    world.kiln(&["prune"]).ok();
    let work = std::fs::read_dir(world.store().join("work")).unwrap();
    assert_eq!(work.count(), 0);
}

/// Two processes that want the same layer at the same time fetch it once.
fn pull_of_two_at_once(world: &World) {
    let registry = with_base();
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(2));
    for _ in 0..2 {
        registry.inject(Fault::Together {
            path: "/manifests/latest".to_owned(),
            barrier: std::sync::Arc::clone(&barrier),
        });
    }
    let name = format!("{}/base", registry.host());
    let both = [(); 2].map(|()| world.kiln(&["pull", &name]).spawn());
    let lines = both.map(|running| {
        let ran = running.wait();
        assert!(ran.status.success(), "{}", ran.stderr);
        ran.stdout
    });
    assert_eq!(lines[0], lines[1]);
    assert_eq!(registry.count("GET", &base_layer().digest()), 1);
    assert_eq!(world.sh(&name, "echo here"), "here\n");
}

/// Who waits for another's transfer can be interrupted, and goes on alone once the other one is gone.
fn pull_waits_for_another(world: &World) {
    let registry = with_base();
    let name = format!("{}/base", registry.host());
    stall(&registry, &base_layer());
    let first = world.kiln(&["pull", &name]).spawn();
    let fetched = || registry.count("GET", &base_layer().digest());
    wait_for("the layer was never asked for", || fetched() > 0);
    let asked = || registry.count("GET", "/manifests/latest");
    let interrupted = world.kiln(&["pull", &name]).spawn();
    wait_for("the second never came", || asked() == 2);
    interrupted.signal(Signal::SIGINT);
    assert_eq!(interrupted.wait().status.code(), Some(130));
    let second = world.kiln(&["pull", &name]).spawn();
    world.dockerfile(&format!("FROM {name}\nRUN echo > /one\n"));
    let build = world.kiln(&["build", "ctx"]).spawn();
    wait_for("the others never came", || asked() == 4);
    assert_eq!(fetched(), 1);
    first.signal(Signal::SIGKILL);
    first.wait();
    let second = second.wait();
    assert!(second.status.success(), "{}", second.stderr);
    assert!(build.wait().status.success());
    assert_eq!(fetched(), 2);
    assert_eq!(world.sh(&name, "echo here"), "here\n");
}

/// Text of four million characters that does not pack well.
fn noise() -> String {
    let mut state = 1u64;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'0' + (state >> 33) as u8 % 64)
    };
    (0..4_000_000).map(next).collect()
}

/// The files in a directory of the store, at any depth, with their lengths.
fn files(world: &World, directory: &str) -> Vec<(std::path::PathBuf, u64)> {
    let mut found = Vec::new();
    let mut left = vec![world.store().join(directory)];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            // What goes meanwhile is not there.
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => left.push(entry.path()),
                Ok(meta) => found.push((entry.path(), meta.len())),
                Err(_) => {}
            }
        }
    }
    found
}

/// A layer that was begun is gone on with, unless its beginning has become another one.
fn pull_goes_on(world: &World) {
    let layer = Archive::new().file("noise", &noise()).layer();
    let half = layer.bytes.len() / 2;
    assert!(half > 1 << 20);
    for damaged in [false, true] {
        let registry = Registry::start();
        add_image(&registry, "base", &[&layer]);
        registry.inject(Fault::Stall {
            path: layer.digest(),
            bytes: half,
        });
        let name = format!("{}/base", registry.host());
        let running = world.kiln(&["pull", &name]).spawn();
        let came = || {
            files(world, "work")
                .iter()
                .any(|(_, bytes)| *bytes == half as u64)
        };
        wait_for("the half never came", came);
        running.signal(Signal::SIGINT);
        assert_eq!(running.wait().status.code(), Some(130));
        let kept = files(world, "blobs/partial");
        assert_eq!(
            kept.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(),
            [half as u64]
        );
        if damaged {
            let mut bytes = std::fs::read(&kept[0].0).unwrap();
            bytes[half - 1] ^= 1;
            std::fs::write(&kept[0].0, bytes).unwrap();
        }
        world.kiln(&["pull", &name]).ok();
        let asked: Vec<Option<String>> = registry
            .log()
            .into_iter()
            .filter(|request| request.path.contains(&layer.digest()))
            .map(|request| request.range)
            .collect();
        let rest = Some(format!("bytes={half}-"));
        match damaged {
            false => assert_eq!(asked, [None, rest]),
            true => assert_eq!(asked, [None, rest, None]),
        }
        assert!(files(world, "blobs/partial").is_empty());
        let blob = format!("blobs/sha256/{}", &layer.digest()["sha256:".len()..]);
        assert!(std::fs::read(world.store().join(blob)).unwrap() == layer.bytes);
        world.forget();
    }
}

fn pull_of_an_artifact(world: &World) {
    let registry = Registry::start();
    let part = |kind: &str, bytes: &[u8]| {
        let digest = registry.add_blob("chart", bytes);
        serde_json::json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let chart = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": part("application/vnd.cncf.helm.config.v1+json", b"{\"name\":\"chart\"}"),
        "layers": [part("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart")],
    });
    registry.add_manifest("chart", Some("1"), kind, chart.to_string().as_bytes());
    let name = format!("{}/chart:1", registry.host());
    let ran = world.kiln(&["pull", "-q", &name]).exits(1);
    let words = hide_port(&ran.stderr, &registry.host());
    assert!(
        words.contains(
            "`127.0.0.1:_____/chart:1` is no image but an artifact of type \
             `application/vnd.cncf.helm.config.v1+json`"
        ),
        "{words}"
    );
}

/// A push that was interrupted leaves no name, and what came through stays.
fn push_interrupted(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN echo made > /made\n");
    world.build();
    let registry = Registry::start();
    let host = registry.host();
    let name = format!("{host}/app:1");
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        registry.inject(Fault::StallUpload {
            path: "digest=".to_owned(),
            bytes: 10,
        });
        let running = world.kiln(&["push", "app", &name]).spawn();
        wait_for("nothing was sent", || registry.pending_faults().is_empty());
        running.signal(signal);
        let ran = running.wait();
        assert!(!ran.status.success());
        assert!(registry.manifest("app", "1").is_none());
        assert_eq!(world.leftovers(), [""; 0]);
        if signal == Signal::SIGINT {
            assert_eq!(ran.status.code(), Some(130), "{}", ran.stderr);
            let words = hide_port(&ran.stderr, &host);
            assert!(words.contains("the push was interrupted"), "{words}");
        }
    }
    world.kiln(&["push", "app", &name]).ok();
    let (_, bytes) = manifest(&registry, "app", "1");
    assert_eq!(id_of(&bytes), world.inspect("app")["id"].as_str().unwrap());
}
