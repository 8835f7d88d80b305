//! What is said of images beside them: provenance and SBOMs, made, kept, sent and shown.

mod afar;
mod commits;
mod databases;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_test_registry::digest_of;
use serde_json::Value;

use crate::support::{Capability::*, Case, Ran, World, case};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("software_of_layers", &[Containers], software_of_layers),
        case("read_by_skopeo", &[Containers, Skopeo], read_by_skopeo),
        case("little_provenance", &[Containers], little_provenance),
        case("all_provenance", &[Containers], all_provenance),
        case("the_same_again", &[Containers], the_same_again),
        case("asked_by_arguments", &[Containers], asked_by_arguments),
        case("not_without_asking", &[Containers], not_without_asking),
        case("what_there_is_not", &[], what_there_is_not),
        case("scans_of_stages", &[Containers], scans_of_stages),
        case("several_platforms", &[Containers], several_platforms),
        case("beside_files", &[Containers], beside_files),
        case("gone_with_the_image", &[Containers], gone_with_the_image),
        case("a_damaged_database", &[Containers], a_damaged_database),
        case("saved_and_loaded", &[Containers], saved_and_loaded),
        case("pruned", &[Containers], pruned),
    ];
    cases.extend(afar::cases());
    cases.extend(commits::cases());
    cases.extend(databases::cases());
    cases
}

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";

const OS_RELEASE: &str =
    "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
const LIBC: &str = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\nVersion: 2.36-9\n\n";
const CURL: &str = "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 7.88.1-10\nHomepage: https://curl.se/\n\n";
const LOCK: &str = "[[package]]\nname = \"serde\"\nversion = \"1.0.200\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n";

/// An image of three layers: a distribution, one package more, and a lock file.
fn layered(world: &World) {
    world.write("ctx/one/etc/os-release", OS_RELEASE);
    world.write("ctx/one/var/lib/dpkg/status", LIBC);
    world.write(
        "ctx/one/usr/share/doc/libc6/copyright",
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: LGPL-2.1+\n",
    );
    world.write("ctx/two/var/lib/dpkg/status", format!("{LIBC}{CURL}"));
    world.write("ctx/three/app/Cargo.lock", LOCK);
    world.dockerfile(
        "
        FROM scratch
        COPY one /
        COPY two /
        COPY three /
        ",
    );
}

fn build(world: &World, arguments: &[&str]) -> Ran {
    world
        .kiln(&["build", "-t", "app"])
        .args(arguments)
        .args(&["ctx"])
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .ok()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn spdx(world: &World, image: &str) -> Value {
    json(&world.kiln(&["sbom", "--format", "spdx", image]).ok().stdout)
}

/// What is said of the host's platform, of each kind the first.
fn said(world: &World, image: &str) -> Value {
    let shown = json(
        &world
            .kiln(&["inspect", "--attestations", image])
            .ok()
            .stdout,
    );
    let platforms = shown.as_object().unwrap();
    assert_eq!(platforms.len(), 1, "{shown}");
    let kinds = platforms.values().next().unwrap().as_object().unwrap();
    kinds
        .iter()
        .map(|(kind, said)| (kind.clone(), said[0].clone()))
        .collect()
}

/// Checks what the schema of SPDX 2.3 requires of a document.
fn check_spdx(document: &Value) {
    let text = |value: &Value, key: &str| -> String {
        let text = value[key].as_str();
        text.unwrap_or_else(|| panic!("no `{key}` in {value}"))
            .to_owned()
    };
    assert_eq!(text(document, "spdxVersion"), "SPDX-2.3");
    assert_eq!(text(document, "dataLicense"), "CC0-1.0");
    assert_eq!(text(document, "SPDXID"), "SPDXRef-DOCUMENT");
    assert!(!text(document, "name").is_empty());
    let namespace = text(document, "documentNamespace");
    assert!(namespace.starts_with("urn:kiln:spdx:sha256:") && !namespace.contains('#'));
    assert!(text(&document["creationInfo"], "created").ends_with('Z'));
    assert!(
        !document["creationInfo"]["creators"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let mut ids = BTreeSet::from(["SPDXRef-DOCUMENT".to_owned()]);
    for package in document["packages"].as_array().unwrap() {
        assert!(!text(package, "name").is_empty());
        assert!(!text(package, "downloadLocation").is_empty());
        assert_eq!(package["filesAnalyzed"], false);
        assert!(ids.insert(text(package, "SPDXID")), "{package}");
        for checksum in package["checksums"].as_array().into_iter().flatten() {
            assert_eq!(text(checksum, "checksumValue").len(), 64);
        }
        for reference in package["externalRefs"].as_array().into_iter().flatten() {
            assert_eq!(text(reference, "referenceCategory"), "PACKAGE-MANAGER");
            assert!(text(reference, "referenceLocator").starts_with("pkg:"));
        }
    }
    let mut describes = 0;
    for relation in document["relationships"].as_array().unwrap() {
        assert!(ids.contains(&text(relation, "spdxElementId")), "{relation}");
        assert!(
            ids.contains(&text(relation, "relatedSpdxElement")),
            "{relation}"
        );
        describes += usize::from(relation["relationshipType"] == "DESCRIBES");
    }
    assert_eq!(describes, 1);
}

/// The place of the layer that contains a package.
fn layer_of(document: &Value, purl: &str) -> String {
    let packages = document["packages"].as_array().unwrap();
    let package = packages
        .iter()
        .find(|package| package["externalRefs"][0]["referenceLocator"] == purl)
        .unwrap_or_else(|| panic!("no {purl} in {document:#}"));
    let relations = document["relationships"].as_array().unwrap();
    let holder = relations
        .iter()
        .find(|relation| relation["relatedSpdxElement"] == package["SPDXID"])
        .unwrap();
    holder["spdxElementId"].as_str().unwrap().to_owned()
}

fn software_of_layers(world: &World) {
    layered(world);
    build(world, &["--sbom"]);
    world.snapshot(&world.kiln(&["sbom", "app"]).ok().whole());
    let document = spdx(world, "app");
    check_spdx(&document);
    for (purl, layer) in [
        (
            "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc",
            "SPDXRef-Layer-0",
        ),
        (
            "pkg:deb/debian/curl@7.88.1-10?arch=amd64&distro=debian-12",
            "SPDXRef-Layer-1",
        ),
        ("pkg:cargo/serde@1.0.200", "SPDXRef-Layer-2"),
    ] {
        assert_eq!(layer_of(&document, purl), layer, "{purl}");
    }
    // What is attached is what the layers say.
    let anew = world
        .kiln(&["sbom", "--anew", "-o", "anew.json", "app"])
        .ok();
    assert_eq!(anew.stdout, "");
    assert_eq!(json(&world.read("anew.json")), document);
    assert_eq!(said(world, "app")[SPDX], document);
}

/// A blob of a layout.
fn blob(world: &World, layout: &str, digest: &Value) -> Value {
    let digest = digest.as_str().unwrap().replace(':', "/");
    json(&world.read(&format!("{layout}/blobs/{digest}")))
}

fn read_by_skopeo(world: &World) {
    layered(world);
    let output = "type=oci,dest=layout,tar=false";
    let ran = build(world, &["--sbom", "--provenance", "-o", output]);
    let raw = world.program("skopeo", &["inspect", "--raw", "oci:layout:latest"]);
    let raw = raw.ok().stdout;
    assert_eq!(ran.id(), digest_of(raw.as_bytes()));
    let index = json(&raw);
    let manifests = index["manifests"].as_array().unwrap();
    let [image, beside] = &manifests[..] else {
        panic!("{index:#}");
    };
    assert_eq!(beside["platform"]["architecture"], "unknown");
    let annotations = &beside["annotations"];
    assert_eq!(
        annotations["vnd.docker.reference.type"],
        "attestation-manifest"
    );
    assert_eq!(annotations["vnd.docker.reference.digest"], image["digest"]);
    let manifest = blob(world, "layout", &beside["digest"]);
    let kinds: Vec<&Value> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| {
            assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
            let statement = blob(world, "layout", &layer["digest"]);
            assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
            let kind = &layer["annotations"]["in-toto.io/predicate-type"];
            assert_eq!(statement["predicateType"], *kind);
            let subject = statement["subject"][0]["digest"]["sha256"]
                .as_str()
                .unwrap();
            assert_eq!(image["digest"], format!("sha256:{subject}"));
            kind
        })
        .collect();
    assert_eq!(kinds, [PROVENANCE, SPDX]);
    // skopeo takes the image out of the index, and checks every digest on the way.
    let copy = [
        "copy",
        "--insecure-policy",
        "--all",
        "oci:layout:latest",
        "dir:copied",
    ];
    world.program("skopeo", &copy).ok();
}

/// A build with a secret, an argument, a label and a proxy.
fn private(world: &World, mode: &str) -> Value {
    world.base();
    world.write("token", "hunter2-is-secret");
    world.dockerfile(
        "
        FROM demo/base
        ARG LEVEL
        RUN --mount=type=secret,id=token,required=true test -s /run/secrets/token
        ARG HTTP_PROXY
        RUN : fetch https://me:pass-of-step@127.0.0.1/simple
        ",
    );
    let provenance = format!("--provenance={mode}");
    let arguments = [
        &provenance,
        "--secret",
        "id=token,src=token",
        "--build-arg",
        "LEVEL=eleven",
        "--build-arg",
        "HTTP_PROXY=http://me:pass-of-proxy@127.0.0.1:1",
        "--label",
        "key=value-of-label",
        "--label",
        "from=https://me:pass-of-label@127.0.0.1/app.git",
    ];
    build(world, &arguments);
    let predicate = said(world, "app")[PROVENANCE].clone();
    let data =
        &predicate["runDetails"]["metadata"]["buildkit_metadata"]["source"]["infos"][0]["data"];
    let file = STANDARD.decode(data.as_str().unwrap_or_default()).unwrap();
    let text = format!("{predicate}{}", String::from_utf8(file).unwrap());
    for never in ["hunter2", "pass-of-"] {
        assert!(!text.contains(never), "{predicate:#}");
    }
    assert_eq!(
        predicate["buildDefinition"]["buildType"],
        "urn:kiln:build:v0"
    );
    let dependency = &predicate["buildDefinition"]["resolvedDependencies"][0];
    let uri = dependency["uri"].as_str().unwrap();
    assert!(
        uri.starts_with("pkg:docker/demo/base@latest?platform=linux%2F"),
        "{uri}"
    );
    assert_eq!(dependency["digest"]["sha256"].as_str().unwrap().len(), 64);
    let metadata = &predicate["runDetails"]["metadata"];
    for time in ["startedOn", "finishedOn"] {
        assert_eq!(metadata[time], "2023-11-14T22:13:20Z");
    }
    predicate
}

fn little_provenance(world: &World) {
    let predicate = private(world, "true");
    let text = predicate.to_string();
    for private in ["eleven", "value-of-label", "token", "RUN"] {
        assert!(!text.contains(private), "{private}: {predicate:#}");
    }
    let metadata = &predicate["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_completeness"]["request"], false);
}

fn all_provenance(world: &World) {
    let predicate = private(world, "mode=max");
    let request = &predicate["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:LEVEL"], "eleven");
    assert_eq!(request["args"]["label:key"], "value-of-label");
    assert_eq!(request["secrets"], serde_json::json!([{ "id": "token" }]));
    assert_eq!(request["args"]["label:from"], "https://127.0.0.1/app.git");
    let plan = &predicate["buildDefinition"]["internalParameters"]["buildConfig"]["plan"];
    assert_eq!(plan["version"], "kiln.plan/0");
    assert!(
        plan.to_string()
            .contains(": fetch https://127.0.0.1/simple"),
        "{plan:#}"
    );
    let source = &predicate["runDetails"]["metadata"]["buildkit_metadata"]["source"];
    assert_eq!(source["infos"][0]["filename"], "Dockerfile");
    let step = &source["locations"]["step1"]["locations"][0]["ranges"][0];
    assert_eq!(step["start"]["line"], 3);
    // The plan builds without the Dockerfile.
    world.write("plan.json", plan.to_string());
    world.kiln(&["plan", "--plan", "plan.json"]).run();
}

fn the_same_again(world: &World) {
    layered(world);
    let first = build(world, &["--sbom", "--provenance=mode=max"])
        .id()
        .to_owned();
    assert_eq!(
        build(world, &["--sbom", "--provenance=mode=max"]).id(),
        first
    );
    world.forget();
    assert_eq!(
        build(world, &["--sbom", "--provenance=mode=max"]).id(),
        first
    );
    // What is said of it never changes the image.
    let member = world.inspect("app")["platforms"][0]["id"].clone();
    assert_eq!(build(world, &[]).id(), member);
}

fn asked_by_arguments(world: &World) {
    layered(world);
    build(world, &["--build-arg", "BUILDKIT_ATTEST_SBOM=true"]);
    assert!(said(world, "app").get(SPDX).is_some());
    build(
        world,
        &["--build-arg", "BUILDKIT_ATTEST_PROVENANCE=mode=max"],
    );
    let predicate = &said(world, "app")[PROVENANCE];
    let internal = &predicate["buildDefinition"]["internalParameters"];
    assert!(internal.get("buildConfig").is_some(), "{predicate:#}");
}

fn not_without_asking(world: &World) {
    layered(world);
    let off = ["--provenance=false", "--attest", "type=sbom,disabled=true"];
    let id = build(world, &off).id().to_owned();
    assert_eq!(build(world, &[]).id(), id);
    let shown = world.inspect("app");
    assert!(shown.get("index").is_none(), "{shown:#}");
    let ran = world.kiln(&["inspect", "--attestations", "app"]).ok();
    assert_eq!(ran.stdout, "{}\n");
    assert!(
        ran.stderr.contains("nothing is attached to `app`"),
        "{}",
        ran.stderr
    );
    check_spdx(&spdx(world, "app"));
}

fn what_there_is_not(world: &World) {
    world.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let mut text = String::new();
    for flags in [
        &["--provenance=mode=most"][..],
        &["--provenance=version=v0.2"],
        &["--sbom=generator=docker/scanner"],
        &["--attest", "type=vex"],
        &["--attest", "mode=max"],
        &["--attest", "type=sbom", "--sbom"],
        &["--build-arg", "BUILDKIT_ATTEST_SBOM=generator=x"],
        &["--sbom", "-o", "type=tar,dest=x.tar"],
        &["--sbom", "-o", "type=docker,dest=x.tar"],
    ] {
        let ran = world.kiln(&["build", "-q"]).args(flags).args(&["ctx"]);
        text += &ran.exits(2).whole();
    }
    world.snapshot(&text);
}

/// An image whose Dockerfile asks for SBOMs of its context and of one of its stages.
fn with_scans(world: &World) {
    layered(world);
    world.write(
        "ctx/go.mod",
        "module x.org/app\nrequire x.org/seen v1.0.0\n",
    );
    world.write(
        "ctx/hidden/go.mod",
        "module y.org/app\nrequire x.org/hidden v1.0.0\n",
    );
    world.write("ctx/.dockerignore", "hidden\n");
    world.dockerfile(
        "
        ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
        ARG BUILDKIT_SBOM_SCAN_STAGE=build
        FROM scratch AS base
        COPY one /
        FROM base AS build
        COPY three /
        FROM scratch
        COPY --from=build /etc/os-release /etc/os-release
        COPY two /
        ",
    );
}

fn purls(document: &Value) -> Vec<&str> {
    let packages = document["packages"].as_array().unwrap().iter();
    let references = packages.flat_map(|one| one["externalRefs"].as_array());
    let references = references.flatten();
    references
        .map(|one| one["referenceLocator"].as_str().unwrap())
        .collect()
}

fn scan(world: &World, name: &str) -> Value {
    let line = ["sbom", "--scan", name, "--format", "spdx", "app"];
    let document = json(&world.kiln(&line).ok().stdout);
    check_spdx(&document);
    assert_eq!(document["name"], format!("sbom-{name}"));
    document
}

fn scans_of_stages(world: &World) {
    with_scans(world);
    // It means nothing to a build without an SBOM, and nothing to the image.
    let plain = build(world, &[]);
    build(world, &["--sbom"]);
    assert_eq!(world.inspect("app")["platforms"][0]["id"], plain.id());
    assert_eq!(purls(&spdx(world, "app")).len(), 2);
    let libc = "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc";
    let crates = "pkg:cargo/serde@1.0.200";
    assert_eq!(purls(&scan(world, "build")), [crates, libc]);
    let context = scan(world, "context");
    assert_eq!(purls(&context), [crates, "pkg:golang/x.org/seen@v1.0.0"]);
    assert_eq!(context["packages"][0]["primaryPackagePurpose"], "SOURCE");
    let refused = world.kiln(&["sbom", "--scan", "base", "app"]).exits(1);
    world.snapshot(&refused.whole());
    // The image's own comes first, for those who take the first.
    let ran = build(world, &["--sbom", "-o", "type=oci,dest=layout,tar=false"]);
    let index = blob(world, "layout", &Value::from(ran.id()));
    let manifest = blob(world, "layout", &index["manifests"][1]["digest"]);
    let names: Vec<Value> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| blob(world, "layout", &layer["digest"])["predicate"]["name"].clone())
        .collect();
    assert_eq!(names[0], plain.id());
    assert_eq!(names[1..], ["sbom-build", "sbom-context"]);
    build(world, &["--sbom", "-o", "out"]);
    for file in [
        "sbom.spdx.json",
        "sbom-build.spdx.json",
        "sbom-context.spdx.json",
    ] {
        check_spdx(&json(&world.read(&format!("out/{file}")))["predicate"]);
    }
    // The caller goes before the file.
    for name in [
        "BUILDKIT_SBOM_SCAN_STAGE=false",
        "BUILDKIT_SBOM_SCAN_CONTEXT=0",
    ] {
        build(world, &["--sbom", "--build-arg", name]);
        let shown = world
            .kiln(&["inspect", "--attestations", "app"])
            .ok()
            .stdout;
        let shown = json(&shown);
        let platform = shown.as_object().unwrap().values().next().unwrap();
        assert_eq!(platform[SPDX].as_array().unwrap().len(), 2, "{name}");
    }
}

fn several_platforms(world: &World) {
    layered(world);
    let platforms = "linux/amd64,linux/arm64";
    build(world, &["--sbom", "--provenance", "--platform", platforms]);
    let shown = json(
        &world
            .kiln(&["inspect", "--attestations", "app"])
            .ok()
            .stdout,
    );
    for platform in ["linux/amd64", "linux/arm64"] {
        assert!(shown[platform].get(PROVENANCE).is_some(), "{platform}");
        let ran = world.kiln(&["sbom", "--platform", platform, "--format", "spdx", "app"]);
        assert_eq!(json(&ran.ok().stdout), shown[platform][SPDX][0]);
    }
}

fn beside_files(world: &World) {
    layered(world);
    build(
        world,
        &["--sbom", "--provenance=inline-only=true", "-o", "out"],
    );
    let statement = json(&world.read("out/sbom.spdx.json"));
    assert_eq!(statement["predicateType"], SPDX);
    check_spdx(&statement["predicate"]);
    assert!(!world.path("out/provenance.json").exists());
    build(world, &["--provenance", "-o", "out"]);
    assert_eq!(
        json(&world.read("out/provenance.json"))["predicateType"],
        PROVENANCE
    );
    // A file of the result is never replaced.
    world.dockerfile("FROM scratch\nCOPY one/etc/os-release /provenance.json\n");
    let refused = world
        .kiln(&["build", "--provenance", "-o", "other", "ctx"])
        .exits(1);
    assert!(
        refused.stderr.contains("the result has such a file"),
        "{}",
        refused.stderr
    );
}

fn gone_with_the_image(world: &World) {
    layered(world);
    build(world, &["--sbom"]);
    world.kiln(&["tag", "app", "kept"]).ok();
    world.kiln(&["rmi", "app"]).ok();
    assert!(said(world, "kept").get(SPDX).is_some());
    world.kiln(&["rmi", "kept"]).ok();
    assert_eq!(world.kiln(&["images", "-q"]).ok().stdout, "");
    world.kiln(&["inspect", "--attestations", "kept"]).exits(1);
    // The same image without anything said of it is not the one that was.
    build(world, &[]);
    assert_eq!(
        world
            .kiln(&["inspect", "--attestations", "app"])
            .ok()
            .stdout,
        "{}\n"
    );
}

fn a_damaged_database(world: &World) {
    layered(world);
    world.write("ctx/two/var/lib/dpkg/status", "Package: nonsense\n");
    world.write("ctx/three/app/Cargo.lock", "not a lock");
    world.write("ctx/three/app/package-lock.json", "{");
    world.write("ctx/three/var/lib/rpm/rpmdb.sqlite", "SQLite format 3\0");
    world.write("ctx/three/app/yarn.lock", "# yarn lockfile v1\n\n{broken\n");
    let ran = build(world, &["--sbom"]);
    assert_eq!(ran.stderr.matches("the SBOM leaves `/").count(), 5);
    let document = spdx(world, "app");
    check_spdx(&document);
    let ran = world.kiln(&["sbom", "--anew", "app"]).ok();
    world.snapshot(&ran.whole());
    assert_eq!(document["annotations"].as_array().unwrap().len(), 5);
    let ran = world.kiln(&["sbom", "app"]).ok();
    assert_eq!(ran.stderr.matches(" was not read: ").count(), 5);
}

fn saved_and_loaded(world: &World) {
    layered(world);
    build(world, &["--sbom", "--provenance"]);
    let before = said(world, "app");
    for (format, file) in [("oci-dir", "saved"), ("oci-archive", "saved.tar")] {
        let line = ["save", "--format", format, "-o", file, "app"];
        let ran = world.kiln(&line).ok();
        assert_eq!(ran.stderr, "");
    }
    // It has no place for them, and the image is the same.
    let line = [
        "save",
        "--format",
        "docker-archive",
        "-o",
        "docker.tar",
        "app",
    ];
    world.kiln(&line).ok();
    let id = world.inspect("app")["platforms"][0]["id"].clone();
    for file in ["saved", "saved.tar"] {
        world.forget();
        world.kiln(&["load", "-i", file]).ok();
        assert_eq!(said(world, "app"), before, "{file}");
        assert_eq!(world.inspect("app")["platforms"][0]["id"], id);
    }
    world.forget();
    world.kiln(&["load", "-i", "docker.tar"]).ok();
    assert_eq!(world.inspect("app")["id"], id);
}

fn pruned(world: &World) {
    layered(world);
    build(world, &["--sbom", "--provenance"]);
    let before = said(world, "app");
    let prune = ["prune", "--all"];
    world.kiln(&prune).ok();
    assert_eq!(said(world, "app"), before);
    world.kiln(&["rmi", "app"]).ok();
    world.kiln(&prune).ok();
    assert_eq!(world.kiln(&["images", "-q"]).ok().stdout, "");
    // Nothing is left that a new build would find.
    build(world, &[]);
    let ran = world.kiln(&["inspect", "--attestations", "app"]).ok();
    assert_eq!(ran.stdout, "{}\n");
}
