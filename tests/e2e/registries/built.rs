//! Builds that end in a registry: `--push`, `-o type=registry`, and what is left when that fails.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use kiln_test_registry::{Fault, Registry};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::pulls::wait_for;
use super::server::{DockerRegistry, Packed, add_image, base_layer, hide_port, with_base};
use crate::support::{Capability::*, Case, Ran, World, base_archive, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "build_push",
            &[Containers, DockerRegistry, Skopeo],
            build_push,
        ),
        case(
            "build_push_run_by_runc",
            &[Containers, Root, DockerRegistry, Skopeo, Umoci, Runc],
            build_push_run_by_runc,
        ),
        case(
            "build_push_documents",
            &[Containers, DockerRegistry, Skopeo],
            build_push_documents,
        ),
        case("build_push_same_digest", &[Containers], same_digest),
        case("build_push_of_an_index", &[Containers], of_an_index),
        case("build_push_by_digest", &[Containers], by_digest),
        case("build_push_mounts", &[Containers], mounts),
        case("build_push_two_registries", &[Containers], two_registries),
        case("build_push_from_afar", &[Containers], from_afar),
        case("build_push_the_bases_blobs", &[Containers], bases_blobs),
        case("build_push_two_bases", &[Containers], two_bases),
        case(
            "build_push_own_layers_pulled",
            &[Containers],
            own_layers_pulled,
        ),
        case(
            "push_packed_otherwise_once",
            &[Containers],
            packed_otherwise_once,
        ),
        case("build_push_bases_handed_in", &[Containers], handed_in),
        case(
            "bases_blobs_that_are_gone",
            &[Containers],
            bases_blobs_that_are_gone,
        ),
        case("build_push_fails", &[Containers], fails),
        case("build_push_interrupted", &[Containers], interrupted),
        case("build_push_refused", &[Containers], refused),
    ]
}

fn small(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN echo made > /made\nCMD [\"cat\", \"/made\"]\n");
}

fn build(world: &World, arguments: &[&str]) -> Ran {
    world
        .kiln(&["build", "--metadata-file", "meta.json"])
        .args(arguments)
        .args(&["ctx"])
        .ok()
}

/// What the last build said of its image.
fn metadata(world: &World) -> Value {
    serde_json::from_str(&world.read("meta.json")).unwrap()
}

fn skopeo_raw(world: &World, name: &str) -> Value {
    let name = format!("docker://{name}");
    let shown = world
        .program("skopeo", &["inspect", "--raw", "--tls-verify=false", &name])
        .ok();
    serde_json::from_str(&shown.stdout).unwrap()
}

fn digest_of_name(world: &World, name: &str) -> String {
    let name = format!("docker://{name}");
    let arguments = [
        "inspect",
        "--tls-verify=false",
        "--format",
        "{{.Digest}}",
        &name,
    ];
    let shown = world.program("skopeo", &arguments).ok();
    shown.stdout.trim().to_owned()
}

fn build_push(world: &World) {
    small(world);
    let registry = DockerRegistry::start(world);
    let host = registry.host();
    let (one, two) = (format!("{host}/team/app:1"), format!("{host}/other/app:2"));
    let ran = build(world, &["--push", "-t", &one, "-t", &two]);
    let pushed = metadata(world)["containerimage.digest"].clone();
    for name in [&one, &two] {
        assert_eq!(pushed, digest_of_name(world, name).as_str());
    }
    // In the order in which they were given.
    assert_eq!(metadata(world)["image.name"], format!("{one},{two}"));
    assert!(
        ran.stderr.contains("exporting to registry"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("  sent\n"), "{}", ran.stderr);
    // As with buildx, it is nowhere else.
    let images = world.kiln(&["images"]).ok().stdout;
    assert!(!images.contains("team/app"), "{images}");
    assert_eq!(world.kiln(&["run", &one]).ok().stdout, "made\n");
}

fn build_push_run_by_runc(world: &World) {
    small(world);
    let registry = DockerRegistry::start(world);
    let name = format!("{}/app:1", registry.host());
    let output = "type=registry,compression-level=9,force-compression=true";
    build(world, &["-o", output, "-t", &name]);
    let from = format!("docker://{name}");
    world
        .program(
            "skopeo",
            &[
                "copy",
                "--insecure-policy",
                "--src-tls-verify=false",
                &from,
                "oci:layout:v1",
            ],
        )
        .ok();
    assert_eq!(world.run_by_runc().stdout, "made\n");
}

fn build_push_documents(world: &World) {
    small(world);
    let registry = DockerRegistry::start(world);
    let name = format!("{}/app:1", registry.host());
    build(
        world,
        &[
            "--push",
            "-t",
            &name,
            "--annotation",
            "org.example.key=value",
        ],
    );
    let manifest = skopeo_raw(world, &name);
    assert_eq!(manifest["annotations"]["org.example.key"], "value");
    let output = format!("type=registry,name={name},oci-mediatypes=false");
    build(world, &["-o", &output]);
    let manifest = skopeo_raw(world, &name);
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    for layer in manifest["layers"].as_array().unwrap() {
        let gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        assert_eq!(layer["mediaType"], gzip);
    }
    let output = format!("type=image,push=true,name={name},compression=zstd");
    build(world, &["-o", &output]);
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    assert_eq!(skopeo_raw(world, &name)["layers"][1]["mediaType"], zstd);
}

/// One build has one manifest, wherever it goes and whenever.
fn same_digest(world: &World) {
    let registry = with_base();
    let host = registry.host();
    let digest = |registry: &Registry, name: &str| {
        let (_, bytes) = registry.manifest("app", name).unwrap();
        kiln_test_registry::digest_of(&bytes)
    };
    for (number, options) in [
        "",
        ",oci-mediatypes=false",
        ",compression=zstd,annotation.a=b",
    ]
    .into_iter()
    .enumerate()
    {
        world.dockerfile(&format!(
            "FROM {host}/base\nRUN echo {number} > /made\nCMD [\"cat\", \"/made\"]\n"
        ));
        let sent = format!("type=registry,name={host}/app:sent{number}{options}");
        build(world, &["-o", &sent]);
        let told = metadata(world)["containerimage.digest"].clone();
        assert_eq!(told, digest(&registry, &format!("sent{number}")).as_str());
        let archive = format!("type=oci,dest=app.tar{options}");
        build(world, &["-o", &archive]);
        assert_eq!(told, metadata(world)["containerimage.digest"]);
        build(world, &["-o", &format!("type=image,name=kept{options}")]);
        let later = format!("{host}/app:later{number}");
        world.kiln(&["push", "kept", &later]).ok();
        assert_eq!(told, digest(&registry, &format!("later{number}")).as_str());
        let both = format!("type=image,push=true,name={host}/app:both{number}{options}");
        build(world, &["-o", &both]);
        assert_eq!(told, metadata(world)["containerimage.digest"]);
        assert_eq!(told, digest(&registry, &format!("both{number}")).as_str());
    }
    let both = format!("{host}/app:both0");
    assert_eq!(world.kiln(&["run", &both]).ok().stdout, "0\n");
}

fn of_an_index(world: &World) {
    let registry = Registry::start();
    world.write("ctx/a", "a\n");
    world.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n");
    let name = format!("{}/app:1", registry.host());
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let annotations = [
        "--annotation",
        "index:org.example.of=index",
        "--annotation",
        "manifest[linux/arm64]:org.example.of=arm",
    ];
    let output = ["-t", &name, "-o", "type=registry,oci-mediatypes=true"];
    build(world, &[&platforms[..], &annotations, &output].concat());
    let (media_type, bytes) = registry.manifest("app", "1").unwrap();
    assert_eq!(media_type, "application/vnd.oci.image.index.v1+json");
    let index: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(index["annotations"]["org.example.of"], "index");
    let arm = index["manifests"][1]["digest"].as_str().unwrap();
    let (_, bytes) = registry.manifest("app", arm).unwrap();
    let manifest: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(manifest["annotations"]["org.example.of"], "arm");
}

fn by_digest(world: &World) {
    small(world);
    let registry = Registry::start();
    let output = format!(
        "type=image,push=true,push-by-digest=true,store=false,name={}/app",
        registry.host()
    );
    build(world, &["-o", &output]);
    let digest = metadata(world)["containerimage.digest"].clone();
    assert!(registry.manifest("app", digest.as_str().unwrap()).is_some());
    assert!(registry.manifest("app", "latest").is_none());
    let name = format!("{}/app@{}", registry.host(), digest.as_str().unwrap());
    assert_eq!(metadata(world)["image.name"], name);
    let tagged = format!(
        "type=registry,push-by-digest=true,name={}/app:1",
        registry.host()
    );
    let refused = world.kiln(&["build", "-o", &tagged, "ctx"]).exits(1);
    world.snapshot(&hide_port(&refused.whole(), &registry.host()));
}

fn mounts(world: &World) {
    let registry = with_base();
    let host = registry.host();
    world.dockerfile(&format!("FROM {host}/base\nRUN echo made > /made\n"));
    let name = format!("{host}/app:1");
    build(world, &["--push", "-t", &name]);
    let layer = base_layer().digest();
    assert_eq!(registry.count("POST", &format!("mount={layer}")), 1);
    // The new layer and the config.
    assert_eq!(
        registry.count("PUT", "/blobs/uploads/"),
        2,
        "{:?}",
        registry.log()
    );
    // Nothing changed, and one question says so.
    registry.clear_log();
    build(world, &["--push", "-t", &name]);
    assert_eq!(registry.log().len(), 1, "{:?}", registry.log());
}

fn two_registries(world: &World) {
    small(world);
    let mut registries = [Registry::start(), Registry::start()];
    // Names are sent in their order.
    registries.sort_by_key(Registry::host);
    let [one, two] = registries;
    let names = [
        format!("{}/app:1", one.host()),
        format!("{}/app:1", two.host()),
    ];
    build(world, &["--push", "-t", &names[0], "-t", &names[1]]);
    let manifest = |registry: &Registry| registry.manifest("app", "1").unwrap();
    assert_eq!(manifest(&one), manifest(&two));
    // Of a push that fails in part, that part is told.
    world.dockerfile("FROM demo/base\nLABEL other=1\n");
    for _ in 0..2 {
        two.inject(Fault::Status {
            path: "/manifests/1".to_owned(),
            status: 403,
            retry_after: None,
        });
    }
    let push = [
        "build", "-q", "--push", "-t", &names[0], "-t", &names[1], "ctx",
    ];
    let ran = world.kiln(&push).exits(1);
    let told = format!("error: did not push {}\n", names[1]);
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    let hint = format!("kept: `kiln push {}` sends it", names[1]);
    assert!(ran.stderr.contains(&hint), "{}", ran.stderr);
    assert_ne!(manifest(&one), manifest(&two));
}

/// A base goes from one registry to another without being unpacked here, and within one without coming here.
fn from_afar(world: &World) {
    let (one, two) = (with_base(), Registry::start());
    let host = one.host();
    world.dockerfile(&format!("FROM {host}/base\nLABEL a=b\n"));
    let name = format!("{host}/team/app:1");
    build(world, &["--push", "-t", &name]);
    let layer = base_layer().digest();
    assert_eq!(one.count("GET", &layer), 0, "{:?}", one.log());
    assert_eq!(one.count("POST", &format!("mount={layer}")), 1);
    let there = format!("{}/app:1", two.host());
    build(world, &["--push", "-t", &there]);
    assert_eq!(one.count("GET", &layer), 1, "{:?}", one.log());
    assert!(two.blob("app", &layer).is_some());
    let layers = std::fs::read_dir(world.store().join("layers")).unwrap();
    assert_eq!(layers.count(), 0);
    assert_eq!(one.manifest("team/app", "1"), two.manifest("app", "1"));
    let zstd = format!(
        "type=registry,name={}/app:2,compression=zstd,force-compression=true",
        two.host()
    );
    build(world, &["-o", &zstd]);
    let (_, bytes) = two.manifest("app", "2").unwrap();
    assert!(String::from_utf8(bytes).unwrap().contains("tar+zstd"));
    assert_eq!(
        world.kiln(&["run", &there, "echo", "ok"]).ok().stdout,
        "ok\n"
    );
}

/// A registry with one image as `base` and, packed by somebody else, as `other`.
fn packed_twice() -> Registry {
    let registry = with_base();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(base_archive()).unwrap();
    let again = Packed {
        diff_id: base_layer().diff_id,
        bytes: encoder.finish().unwrap(),
    };
    assert_ne!(again.digest(), base_layer().digest());
    add_image(&registry, "other", &[&again]);
    registry
}

/// What leaves is the same whatever the store had before.
fn bases_blobs(world: &World) {
    let registry = packed_twice();
    let host = registry.host();
    world.dockerfile(&format!("FROM {host}/base\nRUN echo made > /made\n"));
    let pushed = |name: &str| {
        let name = format!("{host}/team/{name}");
        build(
            world,
            &["--push", "--build-arg=SOURCE_DATE_EPOCH=0", "-t", &name],
        );
        metadata(world)["containerimage.digest"].clone()
    };
    let kept = || {
        let name = format!("{host}/team/kept");
        build(world, &["--build-arg=SOURCE_DATE_EPOCH=0", "-t", &name]);
        world.kiln(&["push", "-q", &name]).ok().stdout
    };
    let layout = || {
        let output = [
            "-o",
            "type=oci,dest=out.tar",
            "--build-arg=SOURCE_DATE_EPOCH=0",
        ];
        let ran = build(world, &output);
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
        metadata(world)["containerimage.digest"].clone()
    };
    let expected = pushed("first");
    let kept_expected = kept();
    for pulls in [&["other"][..], &["other", "base"], &["base", "other"]] {
        world.forget();
        for name in pulls {
            world.kiln(&["pull", &format!("{host}/{name}")]).ok();
        }
        assert_eq!(layout(), expected, "{pulls:?}");
        assert_eq!(pushed("again"), expected, "{pulls:?}");
        assert_eq!(kept(), kept_expected, "{pulls:?}");
    }
    // The other image keeps its own.
    world
        .kiln(&["push", &format!("{host}/other"), &format!("{host}/copy")])
        .ok();
    assert_eq!(
        registry.manifest("other", "latest"),
        registry.manifest("copy", "latest")
    );
}

/// The digests of the layers of an image there.
fn layers_of(registry: &Registry, repository: &str) -> Vec<String> {
    let (_, bytes) = registry.manifest(repository, "latest").unwrap();
    let manifest: Value = serde_json::from_slice(&bytes).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let digests = layers.iter().map(|layer| layer["digest"].as_str().unwrap());
    digests.map(str::to_owned).collect()
}

/// Of two bases that share layers the one counts that the result lies on.
fn two_bases(world: &World) {
    let registry = packed_twice();
    let host = registry.host();
    for (base, side) in [("base", "other"), ("other", "base")] {
        let from = format!("FROM {host}/{side} AS side\nFROM {host}/{base}\n");
        world.dockerfile(&format!("{from}COPY --from=side /bin/busybox /copied\n"));
        build(world, &["--push", "-t", &format!("{host}/team/{base}")]);
        let pushed = layers_of(&registry, &format!("team/{base}"));
        assert_eq!(pushed[..1], layers_of(&registry, base)[..]);
    }
}

/// What is built here is packed as always, though the very image was pulled in another packing.
fn own_layers_pulled(world: &World) {
    let registry = with_base();
    let host = registry.host();
    world.dockerfile(&format!("FROM {host}/base\nRUN echo made > /made\n"));
    let epoch = "--build-arg=SOURCE_DATE_EPOCH=0";
    let zstd = format!("type=registry,name={host}/zstd,compression=zstd");
    build(world, &[epoch, "-o", &zstd]);
    build(world, &[epoch, "--push", "-t", &format!("{host}/gzip")]);
    world.forget();
    world.kiln(&["pull", &format!("{host}/zstd")]).ok();
    let name = format!("{host}/kept");
    build(world, &[epoch, "-t", &name]);
    let ran = world.kiln(&["push", &name]).ok();
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert_eq!(layers_of(&registry, "kept"), layers_of(&registry, "gzip"));
    assert_ne!(layers_of(&registry, "zstd"), layers_of(&registry, "gzip"));
}

/// One push in another packing changes nothing of the next.
fn packed_otherwise_once(world: &World) {
    let registry = Registry::start();
    let host = registry.host();
    world.base();
    world.dockerfile("FROM demo/base\nRUN echo made > /made\n");
    build(world, &["-t", "app"]);
    let push = |tag: &str, flags: &[&str]| {
        let name = format!("{host}/{tag}");
        let arguments = [&["push"][..], flags, &["app", &name]].concat();
        world.kiln(&arguments).ok();
        layers_of(&registry, tag)
    };
    let expected = push("first", &[]);
    for compression in ["uncompressed", "zstd"] {
        let other = push("other", &["--compression", compression]);
        assert_ne!(other, expected);
        assert_eq!(push("again", &[]), expected, "{compression}");
        build(world, &["--push", "-t", &format!("{host}/built")]);
        assert_eq!(layers_of(&registry, "built"), expected, "{compression}");
    }
}

/// A base that is no registry's leaves in the same blobs, whatever was pulled before.
fn handed_in(world: &World) {
    let registry = packed_twice();
    let host = registry.host();
    world.kiln(&["pull", &format!("{host}/other")]).ok();
    let save = ["save", "--format=docker-archive", "-o", "saved.tar"];
    world.kiln(&save).args(&[&format!("{host}/other")]).ok();
    let hand_in = |kind: &str| match kind {
        "import" => world.import("demo/handed", world.base_archive()),
        _ => {
            world.kiln(&["load", "-i", "saved.tar"]).ok();
            world
                .kiln(&["tag", &format!("{host}/other"), "demo/handed"])
                .ok();
        }
    };
    world.dockerfile("FROM demo/handed\nRUN echo made > /made\n");
    for kind in ["import", "load"] {
        let mut expected = None;
        for pulled in ["", "base", "other"] {
            world.forget();
            if !pulled.is_empty() {
                let name = format!("{host}/{pulled}");
                world.kiln(&["pull", &name]).ok();
                world.kiln(&["tag", &name, "demo/kept"]).ok();
                world.kiln(&["rmi", &name]).ok();
            }
            hand_in(kind);
            build(world, &["--push", "-t", &format!("{host}/made")]);
            let made = layers_of(&registry, "made");
            let base = made[..1].to_vec();
            assert_eq!(
                *expected.get_or_insert_with(|| base.clone()),
                base,
                "{kind} {pulled}"
            );
        }
    }
}

fn bases_blobs_that_are_gone(world: &World) {
    let registry = packed_twice();
    let host = registry.host();
    world.dockerfile(&format!("FROM {host}/base\nRUN echo made > /made\n"));
    for name in ["other", "base"] {
        world.kiln(&["pull", &format!("{host}/{name}")]).ok();
    }
    let output = ["-o", "type=oci,dest=out.tar", "--offline"];
    let ran = build(world, &output);
    let layer = base_layer();
    let told = format!("warning: layer {} leaves as sha256:", layer.diff_id);
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    assert!(ran.stderr.contains("--offline forbids"), "{}", ran.stderr);
    world.kiln(&["load", "-i", "out.tar"]).ok();
}

/// What was built is not lost with the line to the registry.
fn fails(world: &World) {
    small(world);
    let host = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let name = format!("{host}/app:1");
    let ran = world
        .kiln(&[
            "build",
            "-q",
            "--push",
            "--iidfile",
            "id",
            "-t",
            &name,
            "ctx",
        ])
        .exits(1);
    world.snapshot(&hide_port(&ran.whole(), &host));
    assert!(!world.path("id").exists());
    assert_eq!(world.kiln(&["run", &name]).ok().stdout, "made\n");
    let registry = Registry::start();
    let later = format!("{}/app:1", registry.host());
    world.kiln(&["push", &name, &later]).ok();
    assert!(registry.manifest("app", "1").is_some());
}

fn refused(world: &World) {
    small(world);
    let mut text = String::new();
    for arguments in [
        &["--push"][..],
        &["--push", "--offline", "-t", "example.test/app"],
        &["-o", "type=registry,push=false"],
    ] {
        let ran = world
            .kiln(&["build", "-q"])
            .args(arguments)
            .args(&["ctx"])
            .run();
        text += &ran.whole();
    }
    world.snapshot(&text);
    // Nothing was built for it.
    let builds = world.kiln(&["builds", "ls"]).ok().stdout;
    assert!(!builds.contains("ctx"), "{builds}");
}

/// A signal while a blob is on its way ends it at once; the image is kept where it was to be kept.
fn interrupted(world: &World) {
    small(world);
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.host());
    for (output, is_kept) in [("type=registry", false), ("type=image,push=true", true)] {
        registry.inject(Fault::StallUpload {
            path: "digest=".to_owned(),
            bytes: 10,
        });
        let arguments = ["build", "-o", output, "-t", &name, "ctx"];
        let running = world.kiln(&arguments).spawn();
        wait_for("nothing was sent", || registry.pending_faults().is_empty());
        running.signal(Signal::SIGINT);
        let ran = running.wait();
        assert_eq!(ran.status.code(), Some(130), "{}", ran.whole());
        assert!(registry.manifest("app", "1").is_none());
        assert_eq!(world.leftovers(), [""; 0]);
        let inspected = world.kiln(&["inspect", &name]).run();
        assert_eq!(inspected.status.success(), is_kept, "{}", inspected.whole());
    }
    // What was kept goes, and what was built is not built again.
    world.kiln(&["push", &name]).ok();
    assert!(registry.manifest("app", "1").is_some());
    let again = build(world, &["--push", "-t", &name]);
    assert!(!again.stderr.contains("  ran"), "{}", again.stderr);
}
