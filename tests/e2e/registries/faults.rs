//! Registries and networks that fail, and images that are not what they say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_test_registry::{Fault, Registry, digest_of};
use nix::sys::signal::Signal;

use super::archive::Archive;
use super::server::{
    Packed, add_image, assert_empty_store, base_layer, config, hide_port, told, with_base,
};
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("throttled", &[Containers], throttled),
        case("server_errors", &[Containers], server_errors),
        case("server_is_down", &[Containers], server_is_down),
        case("dropped_connection", &[Containers], dropped_connection),
        case("transfer_resumed", &[Containers], transfer_resumed),
        case("transfer_begun_again", &[Containers], transfer_begun_again),
        case("truncated_blob", &[Containers], truncated_blob),
        case(
            "shorter_than_promised",
            &[Containers],
            shorter_than_promised,
        ),
        case("altered_blob", &[Containers], altered_blob),
        case("wrong_diff_id", &[Containers], wrong_diff_id),
        case("altered_config", &[Containers], altered_config),
        case("altered_manifest", &[Containers], altered_manifest),
        case("index", &[Containers], index),
        case("index_of_others", &[Containers], index_of_others),
        case("image_of_others", &[Containers], image_of_others),
        case("layers_at_once", &[Containers], layers_at_once),
        case("interrupted", &[Containers], interrupted),
    ]
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn dockerfile(world: &World, registry: &Registry) {
    world.dockerfile(&format!("FROM {}/base\nRUN echo > /one\n", registry.host()));
}

/// Builds, with every fault met on the way.
fn succeeds(world: &World, registry: &Registry) {
    dockerfile(world, registry);
    world.build();
    assert!(
        registry.pending_faults().is_empty(),
        "{:?}",
        registry.pending_faults()
    );
}

/// Does not build, says why, and keeps nothing; then does, since nothing was broken for good.
fn fails(world: &World, registry: &Registry) {
    dockerfile(world, registry);
    let ran = world.kiln(&["build", "-t", "app", "ctx"]).run();
    assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
    world.snapshot(&told(&ran, &registry.host()));
    assert_empty_store(world);
}

fn status(path: &str, status: u16, retry_after: Option<&str>) -> Fault {
    Fault::Status {
        path: path.to_owned(),
        status,
        retry_after: retry_after.map(str::to_owned),
    }
}

fn throttled(world: &World) {
    let registry = with_base();
    registry.inject(status("/manifests/", 429, Some("1")));
    registry.inject(status("/blobs/", 429, Some("1")));
    let started = Instant::now();
    succeeds(world, &registry);
    assert!(
        started.elapsed() >= Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

fn server_errors(world: &World) {
    let registry = with_base();
    for path in ["/manifests/", "/blobs/", "/blobs/"] {
        registry.inject(status(path, 500, None));
        registry.inject(status(path, 503, None));
    }
    succeeds(world, &registry);
}

fn server_is_down(world: &World) {
    let registry = with_base();
    for _ in 0..20 {
        registry.inject(status("/manifests/", 502, Some("0")));
    }
    fails(world, &registry);
}

fn dropped_connection(world: &World) {
    let registry = with_base();
    for path in ["/manifests/", "/blobs/"] {
        registry.inject(Fault::Drop {
            path: path.to_owned(),
        });
    }
    succeeds(world, &registry);
}

fn transfer_resumed(world: &World) {
    let registry = with_base();
    let layer = base_layer();
    for bytes in [1000, 10_000] {
        registry.inject(Fault::CutAfter {
            path: layer.digest(),
            bytes,
        });
    }
    succeeds(world, &registry);
    let ranges: Vec<Option<String>> = registry
        .log()
        .into_iter()
        .filter(|request| request.path.contains(&layer.digest()))
        .map(|request| request.range)
        .collect();
    // Each goes on where the one before was cut.
    let expected = [
        None,
        Some("bytes=1000-".to_owned()),
        Some("bytes=11000-".to_owned()),
    ];
    assert_eq!(ranges, expected);
}

fn transfer_begun_again(world: &World) {
    let registry = Registry::builder().ignore_ranges().start();
    let layer = base_layer();
    add_image(&registry, "base", &[&layer]);
    registry.inject(Fault::CutAfter {
        path: layer.digest(),
        bytes: 1000,
    });
    succeeds(world, &registry);
}

fn truncated_blob(world: &World) {
    let registry = with_base();
    // Cut again and again at the same place: no progress.
    let layer = base_layer();
    registry.inject(Fault::CutAfter {
        path: layer.digest(),
        bytes: 1000,
    });
    for _ in 0..20 {
        registry.inject(Fault::CutAfter {
            path: layer.digest(),
            bytes: 0,
        });
    }
    fails(world, &registry);
}

/// Adds an image whose manifest describes its one layer otherwise.
fn described(registry: &Registry, layer: &Packed, config: &str, digest: &str, size: usize) {
    registry.add_blob("base", &layer.bytes);
    registry.add_blob("base", config.as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config.as_bytes()),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": digest,
            "size": size,
        }],
    });
    registry.add_manifest(
        "base",
        Some("latest"),
        MANIFEST,
        manifest.to_string().as_bytes(),
    );
}

fn shorter_than_promised(world: &World) {
    let registry = Registry::start();
    let layer = small();
    let size = layer.bytes.len() + 10;
    described(
        &registry,
        &layer,
        &config("amd64", &[&layer]),
        &layer.digest(),
        size,
    );
    fails(world, &registry);
}

fn altered_blob(world: &World) {
    let registry = Registry::start();
    let layer = base_layer();
    add_image(&registry, "base", &[&layer]);
    for _ in 0..20 {
        registry.inject(Fault::WrongBytes {
            path: layer.digest(),
        });
    }
    fails(world, &registry);
}

fn wrong_diff_id(world: &World) {
    let registry = Registry::start();
    let layer = small();
    let other = Packed {
        diff_id: digest_of(b"something else"),
        bytes: layer.bytes,
    };
    add_image(&registry, "base", &[&other]);
    fails(world, &registry);
}

fn altered_config(world: &World) {
    let registry = Registry::start();
    let layer = small();
    add_image(&registry, "base", &[&layer]);
    let path = digest_of(config("amd64", &[&layer]).as_bytes());
    for _ in 0..20 {
        registry.inject(Fault::WrongBytes { path: path.clone() });
    }
    fails(world, &registry);
}

fn altered_manifest(world: &World) {
    let registry = Registry::start();
    let digest = add_image(&registry, "base", &[&small()]);
    for _ in 0..20 {
        registry.inject(Fault::WrongBytes {
            path: "/manifests/".to_owned(),
        });
    }
    world.dockerfile(&format!("FROM {}/base@{digest}\n", registry.host()));
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    world.snapshot(&told(&ran, &registry.host()));
    assert_empty_store(world);
}

fn small() -> Packed {
    Archive::new().file("small", "small").layer()
}

/// Adds an index `base` of images that differ in their architecture and in `/arch`.
pub(super) fn add_index(registry: &Registry, architectures: &[(&str, &str)]) {
    let manifests: Vec<serde_json::Value> = architectures
        .iter()
        .map(|(architecture, variant)| {
            let layer = base_layer();
            let note = Archive::new().file("arch", architecture).layer();
            let config = config(architecture, &[&layer, &note]);
            let digest = registry.add_image(
                "base",
                architecture,
                config.as_bytes(),
                &[&layer.bytes, &note.bytes],
            );
            let size = registry.manifest("base", &digest).unwrap().1.len();
            let mut platform = serde_json::json!({ "os": "linux", "architecture": architecture });
            if !variant.is_empty() {
                platform["variant"] = (*variant).into();
            }
            serde_json::json!({
                "mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform
            })
        })
        .collect();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests
    });
    registry.add_manifest("base", Some("latest"), INDEX, index.to_string().as_bytes());
}

/// The host's architecture in an image's words.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn index(world: &World) {
    let registry = Registry::start();
    add_index(
        &registry,
        &[("s390x", ""), (host_architecture(), ""), ("riscv64", "")],
    );
    succeeds(world, &registry);
    assert_eq!(world.sh("app", "cat /arch"), host_architecture());
    // Nothing of the others was fetched: one index, one manifest, one config, two layers.
    assert_eq!(
        registry.count("GET", "/manifests/"),
        2,
        "{:?}",
        registry.log()
    );
    assert_eq!(registry.count("GET", "/blobs/"), 3, "{:?}", registry.log());
}

fn index_of_others(world: &World) {
    let registry = Registry::start();
    add_index(&registry, &[("s390x", ""), ("arm", "v7")]);
    fails(world, &registry);
}

fn image_of_others(world: &World) {
    let registry = Registry::start();
    let layer = small();
    registry.add_image(
        "base",
        "latest",
        config("s390x", &[&layer]).as_bytes(),
        &[&layer.bytes],
    );
    // It is in no index, so it is taken as it is, as in every other builder.
    world.dockerfile(&format!("FROM {}/base\nWORKDIR /app\n", registry.host()));
    let ran = world.kiln(&["build", "-t", "app", "ctx"]).ok();
    world.snapshot(&told(&ran, &registry.host()));
    assert_eq!(
        world.inspect("app")["platform"],
        format!("linux/{}", host_architecture())
    );
}

fn layers_at_once(world: &World) {
    let registry = Registry::start();
    let layers: Vec<Packed> = (0..4)
        .map(|number| {
            Archive::new()
                .file(&format!("layer{number}"), &format!("{number}"))
                .layer()
        })
        .collect();
    let base = base_layer();
    let all: Vec<&Packed> = [&base].into_iter().chain(&layers).collect();
    add_image(&registry, "base", &all);
    // No layer gets a byte before all of them were asked for.
    let barrier = Arc::new(tokio::sync::Barrier::new(layers.len()));
    for layer in &layers {
        registry.inject(Fault::Together {
            path: layer.digest(),
            barrier: Arc::clone(&barrier),
        });
    }
    dockerfile(world, &registry);
    world.build();
    assert!(registry.pending_faults().is_empty());
    assert_eq!(
        world.sh("app", "cat /layer0 /layer1 /layer2 /layer3"),
        "0123"
    );
}

fn interrupted(world: &World) {
    let registry = with_base();
    let layer = base_layer();
    registry.inject(Fault::Stall {
        path: layer.digest(),
        bytes: 5000,
    });
    dockerfile(world, &registry);
    let running = world.kiln(&["build", "-t", "app", "ctx"]).spawn();
    let deadline = Instant::now() + Duration::from_secs(30);
    while registry.count("GET", &layer.digest()) == 0 {
        assert!(Instant::now() < deadline, "the layer was never asked for");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pressed = Instant::now();
    running.signal(Signal::SIGINT);
    let ran = running.wait();
    assert!(!ran.status.success());
    assert!(
        pressed.elapsed() < Duration::from_secs(10),
        "{:?}",
        pressed.elapsed()
    );
    world.snapshot(&hide_port(&ran.whole(), &registry.host()));
    assert_eq!(world.leftovers(), [""; 0]);
    assert_empty_store(world);
    // The next build begins again and ends.
    world.build();
}
