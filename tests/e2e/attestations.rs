//! What is said of images beside them: provenance and SBOMs, made, kept, sent and shown.

use std::collections::BTreeSet;

use kiln_test_registry::{Registry, digest_of};
use serde_json::Value;

use crate::registries::server::DockerRegistry;
use crate::support::{Capability::*, Case, Ran, World, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
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
        case(
            "commit_of_the_context",
            &[Containers, Git],
            commit_of_the_context,
        ),
        case(
            "labels_of_the_commit",
            &[Containers, Git],
            labels_of_the_commit,
        ),
        case(
            "a_work_tree_that_runs_programs",
            &[Containers, Git],
            a_work_tree_that_runs_programs,
        ),
        case("beside_files", &[Containers], beside_files),
        case("gone_with_the_image", &[Containers], gone_with_the_image),
        case("a_damaged_database", &[Containers], a_damaged_database),
        case("pushed_in_the_index", &[Containers], pushed_in_the_index),
        case(
            "pulled_with_the_index",
            &[Containers],
            pulled_with_the_index,
        ),
        case("pushed_as_referrers", &[Containers], pushed_as_referrers),
        case("pushed_without", &[Containers], pushed_without),
        case("read_in_the_registry", &[Containers], read_in_the_registry),
        case("referrers_that_lie", &[Containers], referrers_that_lie),
        case(
            "docker_registry",
            &[Containers, DockerRegistry, Skopeo],
            docker_registry,
        ),
    ]
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
    ];
    build(world, &arguments);
    let predicate = said(world, "app")[PROVENANCE].clone();
    let text = predicate.to_string();
    for never in ["hunter2", "pass-of-proxy"] {
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
    let plan = &predicate["buildDefinition"]["internalParameters"]["buildConfig"]["plan"];
    assert_eq!(plan["version"], "kiln.plan/0");
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

/// Runs git in the repository that has the context in it.
fn git(world: &World, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
    world
        .program("git", &[&who[..], arguments].concat())
        .in_directory("tree")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .ok()
        .stdout
        .trim()
        .to_owned()
}

/// Makes a repository with a context in it, in the directory `app`; returns its commit.
fn repository(world: &World) -> String {
    world.write("tree/app/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    world.write("tree/.gitignore", "made\n");
    git(world, &["init", "-q"]);
    git(world, &["add", "-A"]);
    git(world, &["commit", "-q", "-m", "work"]);
    let remote = "https://me:hunter2@example.com/team/app.git?token=secret";
    git(world, &["remote", "add", "origin", remote]);
    git(world, &["rev-parse", "HEAD"])
}

/// Builds what is in the repository; returns what its provenance says of version control.
fn vcs_of(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Value {
    let line = ["build", "-q", "-t", "app", "tree/app"];
    let mut kiln = world.kiln(&line).args(arguments);
    for (name, value) in variables {
        kiln = kiln.env(name, value);
    }
    kiln.ok();
    let predicate = said(world, "app")[PROVENANCE].clone();
    let text = predicate.to_string();
    assert!(
        !text.contains("hunter2") && !text.contains("token"),
        "{text}"
    );
    predicate["runDetails"]["metadata"]["buildkit_metadata"]["vcs"].clone()
}

fn commit_of_the_context(world: &World) {
    let commit = repository(world);
    let provenance = ["--provenance"];
    // What git is told to ignore does not count.
    world.write("tree/made/x", "");
    let vcs = vcs_of(world, &provenance, &[]);
    let expected = serde_json::json!({
        "source": "https://example.com/team/app.git",
        "revision": commit,
        "localdir:context": "app",
        "localdir:dockerfile": "app",
    });
    assert_eq!(vcs, expected);
    world.write("tree/new", "");
    let dirty = format!("{commit}-dirty");
    assert_eq!(
        vcs_of(world, &["--provenance=mode=max"], &[])["revision"],
        dirty
    );
    let unchecked = [("BUILDX_GIT_CHECK_DIRTY", "0")];
    assert_eq!(vcs_of(world, &provenance, &unchecked)["revision"], commit);
    let off = [("BUILDX_GIT_INFO", "false")];
    assert_eq!(vcs_of(world, &provenance, &off), Value::Null);
    // A remote that is a path of this host is nobody's business, and no commit is none.
    git(world, &["remote", "set-url", "origin", "/srv/git/app"]);
    git(world, &["checkout", "-q", "--orphan", "empty"]);
    let vcs = vcs_of(world, &provenance, &[]);
    let expected = serde_json::json!({ "localdir:context": "app", "localdir:dockerfile": "app" });
    assert_eq!(vcs, expected);
}

fn labels_of_the_commit(world: &World) {
    let commit = repository(world);
    let labels = |arguments: &[&str], value: &str| {
        let line = ["build", "-q", "-t", "app", "tree/app"];
        let kiln = world.kiln(&line).args(arguments);
        kiln.env("BUILDX_GIT_LABELS", value).ok();
        world.inspect("app")["config"]["config"]["Labels"].clone()
    };
    let expected = serde_json::json!({
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.source": "https://example.com/team/app.git",
        "com.docker.image.source.entrypoint": "app/Dockerfile",
    });
    assert_eq!(labels(&[], "1"), expected);
    let own = ["--label", "org.opencontainers.image.revision=mine"];
    assert_eq!(
        labels(&own, "full")["org.opencontainers.image.revision"],
        "mine"
    );
    assert_eq!(labels(&[], "0"), Value::Null);
}

fn a_work_tree_that_runs_programs(world: &World) {
    let commit = repository(world);
    let pwned = world.path("pwned").display().to_string();
    let program = format!("touch {pwned}; cat");
    world.write("tree/.gitattributes", "* filter=x\n");
    world.write_mode(
        "tree/.git/hooks/post-index-change",
        format!("#!/bin/sh\ntouch {pwned}\n"),
        0o755,
    );
    let monitor = world.path("monitor").display().to_string();
    world.write_mode("monitor", format!("#!/bin/sh\ntouch {pwned}\n"), 0o755);
    for (key, value) in [
        ("filter.x.clean", program.as_str()),
        ("filter.x.smudge", &program),
        ("filter.x.process", &program),
        ("filter.x.required", "true"),
        ("core.fsmonitor", &monitor),
        ("core.pager", &monitor),
        ("core.sshCommand", &monitor),
        ("alias.status", &format!("!{monitor}")),
    ] {
        let line = ["config", "--file", ".git/config", key, value];
        git(world, &line);
    }
    // Of the same length as before, so that it must be read to be compared.
    world.write("tree/app/Dockerfile", "FROM scratch\nCOPY Dockerfile .\n");
    let vcs = vcs_of(world, &["--provenance"], &[]);
    assert_eq!(vcs["revision"], format!("{commit}-dirty"));
    assert!(!world.path("pwned").exists());
    // A filter that cannot be switched off is not asked.
    git(
        world,
        &[
            "config",
            "--file",
            ".git/config",
            "filter.a=b.clean",
            &program,
        ],
    );
    let vcs = vcs_of(world, &["--provenance"], &[]);
    assert_eq!(vcs["revision"], format!("{commit}-dirty"));
    assert!(!world.path("pwned").exists());
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
    build(world, &["--sbom"]);
    let document = spdx(world, "app");
    check_spdx(&document);
    let ran = world.kiln(&["sbom", "--anew", "app"]).ok();
    world.snapshot(&ran.whole());
    assert_eq!(document["annotations"].as_array().unwrap().len(), 4);
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

fn pushed_as_referrers(world: &World) {
    layered(world);
    build(world, &["--sbom", "--provenance"]);
    for (registry, has_api) in [
        (Registry::builder().referrers().start(), true),
        (Registry::start(), false),
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
        // Once more changes nothing.
        let before = registry.log().len();
        push();
        let log = registry.log();
        assert!(
            log[before..].iter().all(|asked| asked.method != "PUT"),
            "{log:?}"
        );
    }
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
