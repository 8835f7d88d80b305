//! Attestations at registries: sent in indexes and as referrers, and read there.

use kiln_test_registry::{Auth, Fault, Registry, digest_of};
use serde_json::Value;

use super::{PROVENANCE, SPDX, build, check_spdx, json, layered, purls, said, spdx};
use crate::registries::server::DockerRegistry;
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("pushed_in_the_index", &[Containers], pushed_in_the_index),
        case(
            "pulled_with_the_index",
            &[Containers],
            pulled_with_the_index,
        ),
        case("pushed_as_referrers", &[Containers], pushed_as_referrers),
        case(
            "referrers_of_what_was_pulled",
            &[Containers],
            referrers_of_what_was_pulled,
        ),
        case("referrers_at_once", &[Containers], referrers_at_once),
        case("referrers_that_fail", &[Containers], referrers_that_fail),
        case("pushed_without", &[Containers], pushed_without),
        case("read_in_the_registry", &[Containers], read_in_the_registry),
        case(
            "read_as_others_attach",
            &[Containers],
            read_as_others_attach,
        ),
        case("referrers_that_lie", &[Containers], referrers_that_lie),
        case("packed_anew", &[Containers], packed_anew),
        case(
            "pulled_and_sent_apart",
            &[Containers],
            pulled_and_sent_apart,
        ),
        case("pushed_by_the_build", &[Containers], pushed_by_the_build),
        case(
            "docker_registry",
            &[Containers, DockerRegistry, Skopeo],
            docker_registry,
        ),
    ]
}

fn manifest(registry: &Registry, repository: &str, name: &str) -> (String, Value) {
    let (_, bytes) = registry
        .manifest(repository, name)
        .unwrap_or_else(|| panic!("no {repository}:{name}: {:?}", registry.log()));
    (digest_of(&bytes), serde_json::from_slice(&bytes).unwrap())
}

fn pushed_in_the_index(world: &World) {
    layered(world);
    build(world, &["--sbom", "--provenance"]);
    let registry = Registry::start();
    let name = format!("{}/app", registry.host());
    world.kiln(&["push", "app", &name]).ok();
    let (digest, index) = manifest(&registry, "app", "latest");
    let [image, beside] = &index["manifests"].as_array().unwrap()[..] else {
        panic!("{index:#}");
    };
    assert_eq!(
        beside["annotations"]["vnd.docker.reference.digest"],
        image["digest"]
    );
    let (_, attached) = manifest(&registry, "app", beside["digest"].as_str().unwrap());
    assert_eq!(attached["layers"].as_array().unwrap().len(), 2);
    // The same bytes again, from another store: nothing is sent.
    world.forget();
    build(world, &["--sbom", "--provenance"]);
    let again = world.kiln(&["push", "app", &name]).ok();
    assert_eq!(again.stdout, format!("{name}:latest@{digest}\n"));
    assert!(again.stderr.contains("up to date"), "{}", again.stderr);
}

fn pulled_with_the_index(world: &World) {
    layered(world);
    build(world, &["--sbom", "--provenance"]);
    let registry = Registry::start();
    let name = format!("{}/app", registry.host());
    world.kiln(&["push", "app", &name]).ok();
    let document = spdx(world, "app");
    world.forget();
    world.kiln(&["pull", "--all-platforms", &name]).ok();
    let ran = world.kiln(&["sbom", "--format", "spdx", &name]).ok();
    assert!(
        ran.stderr.contains("is attached to the image"),
        "{}",
        ran.stderr
    );
    assert_eq!(json(&ran.stdout), document);
    assert!(said(world, &name).get(PROVENANCE).is_some());
    // Without what is beside it, the layers are read: the same software.
    world.forget();
    let scanned = spdx(world, &name);
    check_spdx(&scanned);
    let purls = |document: &Value| -> Vec<Value> {
        let packages = document["packages"].as_array().unwrap().iter();
        packages.map(|one| one["externalRefs"].clone()).collect()
    };
    assert_eq!(purls(&scanned), purls(&document));
}

fn referrers_that_fail(world: &World) {
    layered(world);
    build(world, &["--provenance"]);
    let registry = Registry::start();
    registry.inject(Fault::Status {
        path: "/referrers/".into(),
        status: 403,
        retry_after: None,
    });
    let name = format!("{}/app:1", registry.host());
    let ran = world
        .kiln(&["push", "--attestations", "referrers", "app", &name])
        .exits(1);
    for told in [
        format!("pushed {name}, but not what is attached to it"),
        format!("list the referrers of `{}/app@sha256:", registry.host()),
    ] {
        assert!(ran.stderr.contains(&told), "{told}: {}", ran.stderr);
    }
    assert!(registry.manifest("app", "1").is_some());
}

fn pushed_as_referrers(world: &World) {
    layered(world);
    build(world, &["--sbom", "--provenance"]);
    let token = Registry::builder().auth(Auth::Token { user: None });
    for (registry, has_api, questions) in [
        (Registry::builder().referrers().start(), true, 2),
        (token.referrers().start(), true, 3),
        (Registry::start(), false, 3),
    ] {
        let name = format!("{}/app", registry.host());
        let push = || {
            let ran = world.kiln(&["push", "--attestations", "referrers", "app", &name]);
            ran.ok()
        };
        push();
        let (digest, image) = manifest(&registry, "app", "latest");
        assert!(image.get("layers").is_some(), "{image:#}");
        let tag = digest.replace(':', "-");
        let asked = match has_api {
            true => {
                assert!(registry.manifest("app", &tag).is_none());
                registry.referrers("app", &digest)
            }
            false => manifest(&registry, "app", &tag).1,
        };
        let listed = asked["manifests"].as_array().unwrap();
        let mut kinds: Vec<&str> = listed
            .iter()
            .map(|entry| {
                assert_eq!(entry["artifactType"], "application/vnd.in-toto+json");
                let (_, referrer) = manifest(&registry, "app", entry["digest"].as_str().unwrap());
                assert_eq!(referrer["subject"]["digest"], digest);
                entry["annotations"]["in-toto.io/predicate-type"]
                    .as_str()
                    .unwrap()
            })
            .collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [PROVENANCE, SPDX]);
        // Once more changes nothing: the name and the list are asked for, which is a tag where there is no API.
        registry.clear_log();
        push();
        let log = registry.log();
        assert!(log.iter().all(|asked| asked.method != "PUT"), "{log:?}");
        assert_eq!(log.len(), questions, "{log:?}");
    }
}

/// What refers to an image that was pulled is asked for when it is wanted, by the manifest that is here.
fn referrers_of_what_was_pulled(world: &World) {
    layered(world);
    build(world, &["--sbom", "--provenance"]);
    let document = spdx(world, "app");
    for registry in [Registry::builder().referrers().start(), Registry::start()] {
        build(world, &["--sbom", "--provenance"]);
        let name = format!("{}/app", registry.host());
        let push = ["push", "--attestations", "referrers", "app", &name];
        world.kiln(&push).ok();
        world.forget();
        world.kiln(&["pull", &name]).ok();
        // The name may mean something else by now.
        registry.forget_tag("app", "latest");
        world.kiln(&["tag", &name, "mine"]).ok();
        for name in [&*name, "mine"] {
            let said = said(world, name);
            assert!(said.get(PROVENANCE).is_some(), "{said}");
            assert!(said.get(SPDX).is_some(), "{said}");
            let ran = world.kiln(&["sbom", "--format", "spdx", name]).ok();
            let told = "attached to the image for linux/amd64 in its registry";
            assert!(ran.stderr.contains(told), "{}", ran.stderr);
            assert_eq!(json(&ran.stdout), document);
        }
        drop(registry);
        let ran = world.kiln(&["sbom", "--format", "spdx", "mine"]).ok();
        assert!(
            ran.stderr.contains("its registry was not asked"),
            "{}",
            ran.stderr
        );
        assert_eq!(purls(&json(&ran.stdout)), purls(&document));
        world.forget();
        layered(world);
    }
}

/// Where the list of referrers is a tag, those that several builders push at one moment are all in it.
fn referrers_at_once(world: &World) {
    world.dockerfile("FROM scratch\nCOPY . /\n");
    world.write("ctx/a", "a\n");
    let registry = Registry::start();
    let name = format!("{}/app", registry.host());
    let stores: Vec<_> = (0..4).map(|n| world.path(&format!("store-{n}"))).collect();
    // The same image, and each says another thing of it.
    for (number, store) in stores.iter().enumerate() {
        let provenance = format!("--provenance=builder-id=urn:test:{number}");
        let build = ["build", &provenance, "-t", "app", "ctx"];
        let build = world.kiln(&build).env("SOURCE_DATE_EPOCH", "1700000000");
        build.env("KILN_ROOT", store).ok();
    }
    let push = ["push", "--attestations", "referrers", "app", &name];
    let pushes: Vec<_> = stores
        .iter()
        .map(|store| world.kiln(&push).env("KILN_ROOT", store).spawn())
        .collect();
    for push in pushes {
        let ran = push.wait();
        assert!(ran.status.success(), "{}", ran.stderr);
    }
    let (digest, _) = manifest(&registry, "app", "latest");
    let (_, listed) = manifest(&registry, "app", &digest.replace(':', "-"));
    assert_eq!(listed["manifests"].as_array().unwrap().len(), stores.len());
}

fn pushed_without(world: &World) {
    layered(world);
    build(world, &["--sbom"]);
    let registry = Registry::start();
    let name = format!("{}/app", registry.host());
    world
        .kiln(&["push", "--attestations", "none", "app", &name])
        .ok();
    let (digest, image) = manifest(&registry, "app", "latest");
    assert!(image.get("layers").is_some(), "{image:#}");
    build(world, &[]);
    world.kiln(&["push", "app", &name]).ok();
    assert_eq!(manifest(&registry, "app", "latest").0, digest);
    // What was pulled may have left something behind.
    world.kiln(&["pull", &name]).ok();
    let ran = world.kiln(&["inspect", "--attestations", &name]).ok();
    let said = format!("nothing is attached to `{name}`, here or in a registry");
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
}

/// Checks that nothing of an image was fetched but what is said of it.
fn check_unpulled(world: &World, registry: &Registry, images: &[&Value]) {
    for image in images {
        let (_, image) = manifest(registry, "app", image.as_str().unwrap());
        for layer in image["layers"].as_array().unwrap() {
            let digest = layer["digest"].as_str().unwrap();
            let path = format!("/v2/app/blobs/{digest}");
            assert_eq!(registry.count("GET", &path), 0, "{:?}", registry.log());
        }
    }
    assert_eq!(world.kiln(&["images", "-q"]).ok().stdout, "");
}

fn read_in_the_registry(world: &World) {
    layered(world);
    let both = "linux/amd64,linux/arm64";
    build(world, &["--sbom", "--provenance", "--platform", both]);
    let platforms = ["linux/amd64", "linux/arm64"];
    let documents = platforms.map(|platform| {
        let line = ["sbom", "--platform", platform, "--format", "spdx", "app"];
        json(&world.kiln(&line).ok().stdout)
    });
    assert_ne!(documents[0], documents[1]);
    let shown = json(
        &world
            .kiln(&["inspect", "--attestations", "app"])
            .ok()
            .stdout,
    );
    let beside = (Registry::start(), "index");
    let listed = (Registry::builder().referrers().start(), "referrers");
    let tagged = (Registry::start(), "referrers");
    for (registry, form) in [&beside, &listed, &tagged] {
        let name = format!("{}/app", registry.host());
        let push = ["push", "--attestations", form, "app", &name];
        world.kiln(&push).ok();
    }
    for (registry, form) in [beside, listed, tagged] {
        let name = format!("{}/app", registry.host());
        world.forget();
        registry.clear_log();
        for (platform, document) in platforms.iter().zip(&documents) {
            let line = ["sbom", "--platform", platform, "--format", "spdx", &name];
            let ran = world.kiln(&line).ok();
            assert_eq!(json(&ran.stdout), *document, "{form} {platform}");
            let told = format!("attached to the image for {platform} in its registry");
            assert!(ran.stderr.contains(&told), "{}", ran.stderr);
        }
        let line = ["inspect", "--attestations", &name];
        let afar = json(&world.kiln(&line).ok().stdout);
        for platform in platforms {
            assert_eq!(afar[platform][SPDX], shown[platform][SPDX], "{form}");
            assert_eq!(afar[platform][PROVENANCE], shown[platform][PROVENANCE]);
        }
        let (_, index) = manifest(&registry, "app", "latest");
        let images = index["manifests"].as_array().unwrap().iter();
        let images = images.filter(|entry| entry["platform"]["os"] == "linux");
        let images: Vec<&Value> = images.map(|entry| &entry["digest"]).collect();
        assert_eq!(images.len(), 2);
        check_unpulled(world, &registry, &images);
        let none = ["sbom", "--platform", "linux/riscv64", &name];
        world.kiln(&none).exits(1);
        // The layers say the same.
        let anew = [
            "sbom",
            "--anew",
            "--platform",
            platforms[0],
            "--format",
            "spdx",
            &name,
        ];
        let ran = world.kiln(&anew).ok();
        assert_eq!(purls(&json(&ran.stdout)), purls(&documents[0]));
    }
}

/// An SPDX document that is attached as it is, in no statement: as a referrer, and beside the image in its index.
fn read_as_others_attach(world: &World) {
    layered(world);
    build(world, &[]);
    let document = serde_json::json!({
        "spdxVersion": "SPDX-2.3",
        "name": "of-somebody-else",
        "packages": [{
            "name": "theirs", "versionInfo": "1.2",
            "externalRefs": [{ "referenceLocator": "pkg:generic/theirs@1.2" }],
        }],
    });
    let document = document.to_string();
    let types = ["application/spdx+json", "text/spdx+json"];
    let with_api = Registry::builder().referrers().start();
    let with_tags = Registry::start();
    for (registry, has_api) in [(&with_api, true), (&with_tags, false)] {
        let name = format!("{}/app", registry.host());
        world.kiln(&["push", "app", &name]).ok();
        let (digest, image) = manifest(registry, "app", "latest");
        let attached = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": types[0],
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": registry.add_blob("app", b"{}"),
                "size": 2,
            },
            "layers": [{
                "mediaType": types[usize::from(has_api)],
                "digest": registry.add_blob("app", document.as_bytes()),
                "size": document.len(),
            }],
            "subject": {
                "mediaType": MANIFEST, "digest": digest, "size": image.to_string().len(),
            },
        });
        let attached = attached.to_string();
        let referrer = registry.add_manifest("app", None, MANIFEST, attached.as_bytes());
        let entry = serde_json::json!({
            "mediaType": MANIFEST, "digest": referrer, "size": attached.len(),
            "artifactType": types[0],
        });
        let list = |entries: Value| {
            serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries })
                .to_string()
        };
        if !has_api {
            let tag = digest.replace(':', "-");
            let listed = list(serde_json::json!([&entry]));
            registry.add_manifest("app", Some(&tag), INDEX, listed.as_bytes());
        }
        // As BuildKit would put it beside the image.
        let mut beside = entry.clone();
        beside["platform"] = serde_json::json!({ "architecture": "unknown", "os": "unknown" });
        beside["annotations"] = serde_json::json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": digest,
        });
        let (kind, bytes) = registry.manifest("app", "latest").unwrap();
        let of_image = serde_json::json!({
            "mediaType": kind, "digest": digest, "size": bytes.len(),
            "platform": world.inspect("app")["platform"].as_str().map(|platform| {
                let (os, architecture) = platform.split_once('/').unwrap();
                serde_json::json!({ "os": os, "architecture": architecture })
            }),
        });
        let index = list(serde_json::json!([of_image, beside]));
        registry.add_manifest("app", Some("indexed"), INDEX, index.as_bytes());
        let indexed = format!("{name}:indexed");
        world.kiln(&["rmi", &name]).run();
        let pulled = ["pull", "--all-platforms", &indexed];
        for (shown, command) in [(&name, None), (&indexed, None), (&indexed, Some(pulled))] {
            if let Some(command) = command {
                world.kiln(&command).ok();
            }
            let ran = world.kiln(&["sbom", shown]).ok();
            assert!(
                ran.stderr.contains("attached to the image"),
                "{}",
                ran.whole()
            );
            assert!(ran.stdout.contains("theirs  1.2"), "{}", ran.whole());
        }
    }
}

fn referrers_that_lie(world: &World) {
    layered(world);
    build(world, &["--sbom"]);
    let registry = Registry::builder().referrers().start();
    let name = format!("{}/app", registry.host());
    let push = ["push", "--attestations", "referrers", "app", &name];
    world.kiln(&push).ok();
    let (digest, _) = manifest(&registry, "app", "latest");
    let listed = registry.referrers("app", &digest);
    let entry = listed["manifests"][0]["digest"].as_str().unwrap();
    let (_, referrer) = manifest(&registry, "app", entry);
    let statement = referrer["layers"][0]["digest"].as_str().unwrap();
    let text = String::from_utf8(registry.blob("app", statement).unwrap()).unwrap();
    // A statement about another manifest, attached to this one.
    let alone = format!("{}/alone", registry.host());
    world
        .kiln(&["push", "--attestations", "none", "app", &alone])
        .ok();
    let other = text.replace(&digest["sha256:".len()..], &"0".repeat(64));
    assert_ne!(other, text);
    registry.add_blob("alone", b"{}");
    let about_other = registry.add_blob("alone", other.as_bytes());
    let lying = referrer.to_string().replace(statement, &about_other);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    registry.add_manifest("alone", None, media_type, lying.as_bytes());
    let listed = registry.referrers("alone", &digest);
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 1);
    world.forget();
    let ran = world.kiln(&["sbom", "--format", "spdx", &alone]).ok();
    assert!(!ran.stderr.contains("attached"), "{}", ran.stderr);
    check_spdx(&json(&ran.stdout));
    registry.forget_blob("app", statement);
    // What is listed cannot be had: that is an error, and nothing else is shown for it.
    let ran = world.kiln(&["sbom", &name]).exits(1);
    assert!(ran.stderr.contains(statement), "{}", ran.stderr);
    let anew = world.kiln(&["sbom", "--anew", "--format", "spdx", &name]);
    check_spdx(&json(&anew.ok().stdout));
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Lets somebody else say something of the image in an index of one.
fn attest_beside(registry: &Registry, repository: &str, kind: &str) {
    let (_, mut index) = manifest(registry, repository, "latest");
    let of = index["manifests"][0]["digest"].as_str().unwrap();
    let of = of["sha256:".len()..].to_owned();
    let beside = index["manifests"][1]["digest"].as_str().unwrap();
    let (_, mut attached) = manifest(registry, repository, beside);
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": kind,
        "subject": [{ "name": "_", "digest": { "sha256": of } }],
        "predicate": {},
    });
    let statement = statement.to_string();
    let layer = serde_json::json!({
        "mediaType": "application/vnd.in-toto+json",
        "digest": registry.add_blob(repository, statement.as_bytes()),
        "size": statement.len(),
        "annotations": { "in-toto.io/predicate-type": kind },
    });
    attached["layers"].as_array_mut().unwrap().push(layer);
    let attached = attached.to_string();
    let digest = registry.add_manifest(repository, None, MANIFEST, attached.as_bytes());
    index["manifests"][1]["digest"] = digest.into();
    index["manifests"][1]["size"] = attached.len().into();
    let index = index.to_string();
    registry.add_manifest(repository, Some("latest"), INDEX, index.as_bytes());
}

/// The kinds of statements that stand beside the first image of an index, each checked to be about it.
fn kinds_beside(registry: &Registry, repository: &str) -> Vec<String> {
    let (_, index) = manifest(registry, repository, "latest");
    let [image, beside] = &index["manifests"].as_array().unwrap()[..] else {
        panic!("{index:#}");
    };
    let annotations = &beside["annotations"];
    assert_eq!(annotations["vnd.docker.reference.digest"], image["digest"]);
    let (_, attached) = manifest(registry, repository, beside["digest"].as_str().unwrap());
    let kind = |layer: &Value| {
        let digest = layer["digest"].as_str().unwrap();
        let statement = registry.blob(repository, digest).unwrap();
        let statement: Value = serde_json::from_slice(&statement).unwrap();
        let subject = statement["subject"][0]["digest"]["sha256"]
            .as_str()
            .unwrap();
        assert_eq!(image["digest"], format!("sha256:{subject}"));
        statement["predicateType"].as_str().unwrap().to_owned()
    };
    let layers = attached["layers"].as_array().unwrap();
    layers.iter().map(kind).collect()
}

fn packed_anew(world: &World) {
    layered(world);
    let registry = Registry::start();
    let (name, other) = (
        format!("{}/app", registry.host()),
        format!("{}/other", registry.host()),
    );
    build(world, &["--sbom", "--provenance"]);
    world.kiln(&["push", "app", &name]).ok();
    let documents = (spdx(world, "app"), said(world, "app")[PROVENANCE].clone());
    let (_, index) = manifest(&registry, "app", "latest");
    let before = index["manifests"][0]["digest"].clone();
    let vex = "https://example.com/vex";
    attest_beside(&registry, "app", vex);
    // An image of the same layers, packed by another tool.
    build(world, &["--label", "other=yes"]);
    let line = ["push", "--compression", "zstd", "app", &other];
    world.kiln(&line).ok();
    world.forget();
    world.kiln(&["pull", &other]).ok();
    world.kiln(&["pull", "--all-platforms", &name]).ok();
    let (_, image) = manifest(&registry, "app", before.as_str().unwrap());
    for layer in image["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        let path = format!("/v2/app/blobs/{digest}");
        assert_eq!(registry.count("GET", &path), 0);
        registry.forget_blob("app", digest);
    }
    let elsewhere = Registry::start();
    let to = format!("{}/app", elsewhere.host());
    let ran = world.kiln(&["push", &name, &to]).ok();
    let told = format!("the attestation `{vex}` of the image for linux/");
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    let (_, index) = manifest(&elsewhere, "app", "latest");
    assert_ne!(index["manifests"][0]["digest"], before);
    assert_eq!(kinds_beside(&elsewhere, "app"), [PROVENANCE, SPDX]);
    world.forget();
    assert_eq!(spdx(world, &to), documents.0);
    assert_eq!(said(world, &to)[PROVENANCE], documents.1);
}

fn pulled_and_sent_apart(world: &World) {
    layered(world);
    build(world, &["--sbom", "--provenance"]);
    let registry = Registry::start();
    let name = format!("{}/app", registry.host());
    world.kiln(&["push", "app", &name]).ok();
    let (_, index) = manifest(&registry, "app", "latest");
    let image = index["manifests"][0]["digest"].as_str().unwrap();
    let document = spdx(world, "app");
    world.forget();
    world.kiln(&["pull", "--all-platforms", &name]).ok();
    for form in ["none", "referrers"] {
        let other = Registry::builder().referrers().start();
        let to = format!("{}/app", other.host());
        world
            .kiln(&["push", "--attestations", form, &name, &to])
            .ok();
        // The image has the very manifest that it had, and nothing stands beside it.
        assert_eq!(manifest(&other, "app", "latest").0, image, "{form}");
        let listed = other.referrers("app", image);
        let count = listed["manifests"].as_array().unwrap().len();
        assert_eq!(count, if form == "none" { 0 } else { 2 }, "{listed:#}");
        if form == "referrers" {
            let ran = world.kiln(&["sbom", "--format", "spdx", &to]).ok();
            assert!(ran.stderr.contains("in its registry"), "{}", ran.stderr);
            assert_eq!(json(&ran.stdout), document);
        }
    }
}

fn pushed_by_the_build(world: &World) {
    layered(world);
    let registry = Registry::start();
    let name = format!("{}/app", registry.host());
    let output = format!("type=registry,name={name},compression=zstd");
    for arguments in [
        &["build", "-q", "--push", "-t", &name][..],
        &["build", "-q", "-o", &output],
    ] {
        let both = ["--sbom", "--provenance", "ctx"];
        world.kiln(arguments).args(&both).ok();
        assert_eq!(kinds_beside(&registry, "app"), [PROVENANCE, SPDX]);
        let ran = world.kiln(&["sbom", "--format", "spdx", &name]).ok();
        check_spdx(&json(&ran.stdout));
    }
}

fn docker_registry(world: &World) {
    layered(world);
    build(world, &["--sbom", "--provenance"]);
    let registry = DockerRegistry::start(world);
    let raw = |name: &str| {
        let image = format!("docker://{}/{name}", registry.host());
        let ran = world.program(
            "skopeo",
            &["inspect", "--raw", "--tls-verify=false", &image],
        );
        ran.ok().stdout
    };
    let push = |name: &str, form: &str| {
        let name = format!("{}/{name}", registry.host());
        let ran = world.kiln(&["push", "--attestations", form, "app", &name]);
        ran.ok();
    };
    push("beside", "index");
    let index = json(&raw("beside"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    push("apart", "referrers");
    let image = raw("apart");
    let tag = digest_of(image.as_bytes()).replace(':', "-");
    let listed = json(&raw(&format!("apart:{tag}")));
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 2);
}
