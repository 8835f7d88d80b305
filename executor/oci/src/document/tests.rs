//! Documents read, and written as BuildKit does.

use super::*;
use crate::digest::Sha256Digest;
use crate::media_type::{self, Compression, Flavor};
use crate::platform::Platform;

/// What docker writes for an image of its classic builder, with keys that no specification has.
const DOCKER_CONFIG: &str = r#"{
    "architecture": "arm", "variant": "v7", "os": "linux", "os.version": "1", "os.features": ["f"],
    "config": {
        "Hostname": "", "User": "1:2", "AttachStdin": false, "ExposedPorts": {"80/tcp": {}},
        "Env": ["PATH=/bin", "A=<&>"], "Cmd": ["sh"], "Entrypoint": null, "Volumes": {"/v": {}},
        "WorkingDir": "/w", "Labels": {"b": "2", "a": "1"}, "StopSignal": "SIGUSR1", "ArgsEscaped": true,
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30000000000, "Retries": 3, "New": 1},
        "OnBuild": ["RUN x"], "StopTimeout": 10, "Shell": ["/bin/bash", "-c"]
    },
    "container": "0123", "docker_version": "20.10", "created": "2020-01-02T03:04:05.6Z", "author": "me",
    "history": [
        {"created": "2020-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file", "extra": [1]},
        {"created_by": "CMD [\"sh\"]", "comment": "c", "author": "a", "empty_layer": true}
    ],
    "rootfs": {"type": "layers", "diff_ids": ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
    "zeta": {"z": 1, "a": 2}
}"#;

#[test]
fn a_config_is_rewritten_with_all_it_had() {
    let config = ImageConfig::from_slice(DOCKER_CONFIG.as_bytes()).unwrap();
    let written = config.to_bytes();
    insta::assert_snapshot!(String::from_utf8(written.clone()).unwrap());
    assert_eq!(ImageConfig::from_slice(&written).unwrap(), config);
    assert_eq!(
        ImageConfig::from_slice(&written).unwrap().to_bytes(),
        written
    );
    assert_eq!(config.platform().to_string(), "linux(1)/arm/v7");
}

#[test]
fn null_and_absent_are_empty() {
    let nulls = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":null,"Labels":null,
        "Volumes":null,"ExposedPorts":null,"OnBuild":null,"Healthcheck":null,"Shell":null,"User":null},
        "rootfs":{"type":"layers","diff_ids":null},"history":null,"created":null,"author":null}"#;
    let absent = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}"#;
    let nulls = ImageConfig::from_slice(nulls.as_bytes()).unwrap();
    assert_eq!(nulls, ImageConfig::from_slice(absent.as_bytes()).unwrap());
    let expected = r#"{"architecture":"amd64","config":{},"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    assert_eq!(String::from_utf8(nulls.to_bytes()).unwrap(), expected);
}

fn manifest(flavor: Flavor) -> Manifest {
    let config = Descriptor::of(flavor.config(), b"{}");
    let mut manifest = Manifest::new(
        flavor,
        config,
        vec![Descriptor::of(flavor.layer(Compression::Gzip), b"x")],
    );
    manifest.annotations.insert("key".into(), "a<b".into());
    manifest
}

#[test]
fn a_manifest_is_written_as_buildkit_does() {
    insta::assert_snapshot!(String::from_utf8(manifest(Flavor::Oci).to_bytes()).unwrap());
}

#[test]
fn an_index_is_written_as_buildkit_does() {
    let manifest = manifest(Flavor::Oci).to_bytes();
    let mut image = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
    image.platform = Some(Platform::new("linux", "arm", "v7"));
    let mut attestation = Descriptor::of(media_type::OCI_MANIFEST, b"attestation");
    attestation.platform = Some(Platform::new("unknown", "unknown", ""));
    let kind = annotation::ATTESTATION_MANIFEST.to_owned();
    attestation
        .annotations
        .insert(annotation::REFERENCE_TYPE.into(), kind);
    attestation.annotations.insert(
        annotation::REFERENCE_DIGEST.into(),
        image.digest.to_string(),
    );
    let index = Index::new(Flavor::Oci, vec![image, attestation]);
    assert!(!index.manifests[0].is_attestation() && index.manifests[1].is_attestation());
    insta::assert_snapshot!(String::from_utf8(index.to_bytes()).unwrap());
}

fn check(served: &str, document: &str, expected: &str) {
    let digest = Sha256Digest::of(b"");
    let document = document.replace(
        '#',
        &format!(r#"{{"mediaType":"x","digest":"{digest}","size":0}}"#),
    );
    let actual = match Root::from_slice(served, document.as_bytes()) {
        Ok(root @ Root::Manifest(_)) => format!("manifest {}", root.media_type()),
        Ok(root @ Root::Index(_)) => format!("index {}", root.media_type()),
        Err(error) => error.to_string(),
    };
    assert!(actual.contains(expected), "{served} {document}: {actual}");
}

#[test]
fn a_root_is_what_it_says_and_was_served_as() {
    use media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
    let stated =
        |kind: &str, rest: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{kind}",{rest}}}"#);
    let (single, list) = (r#""config":#,"layers":[#]"#, r#""manifests":[#]"#);
    check(
        DOCKER_MANIFEST,
        &stated(DOCKER_MANIFEST, single),
        "manifest application/vnd.docker",
    );
    check(
        "application/json",
        &stated(DOCKER_INDEX, list),
        "index application/vnd.docker",
    );
    check(
        &format!("{OCI_INDEX}; charset=utf-8"),
        &stated(OCI_INDEX, list),
        "index application/vnd.oci",
    );
    check(
        OCI_MANIFEST,
        &format!(r#"{{"schemaVersion":2,{single}}}"#),
        "manifest application/vnd.oci",
    );
    check(
        "",
        &format!(r#"{{"schemaVersion":2,{list}}}"#),
        "index application/vnd.oci",
    );
    check(
        "",
        &format!(r#"{{"schemaVersion":2,{single}}}"#),
        "manifest application/vnd.oci",
    );
    check(OCI_MANIFEST, &stated(OCI_INDEX, list), "was served as");
    check(
        OCI_MANIFEST,
        &stated(OCI_MANIFEST, &format!("{single},{list}")),
        "ambiguous",
    );
    check(
        "",
        &format!(r#"{{"schemaVersion":2,"layers":[],{list}}}"#),
        "ambiguous",
    );
    check(
        "",
        r#"{"schemaVersion":1,"fsLayers":[]}"#,
        "schema 1 images",
    );
    check(
        "text/html",
        r#"{"schemaVersion":2}"#,
        "`text/html` is not a manifest",
    );
    check(
        "",
        &stated("application/x", single),
        "`application/x` is not a manifest",
    );
    check("text/html", "<html>", "manifest cannot be read");
    check(
        OCI_MANIFEST,
        r#"{"schemaVersion":2,"config":{"digest":"sha256:xx","size":1}}"#,
        "cannot be read",
    );
    check(
        OCI_MANIFEST,
        r#"{"schemaVersion":2,"config":{"size":-1}}"#,
        "cannot be read",
    );
}

#[test]
fn reading_is_bounded() {
    let large = vec![b' '; MANIFEST_LIMIT_BYTES as usize + 1];
    assert!(matches!(
        Root::from_slice("", &large),
        Err(DocumentError::TooLarge { .. })
    ));
    let large = vec![b' '; CONFIG_LIMIT_BYTES as usize + 1];
    assert!(matches!(
        ImageConfig::from_slice(&large),
        Err(DocumentError::TooLarge { .. })
    ));
}

#[test]
fn what_is_no_image_says_what_it_is() {
    use crate::media_type::{DOCKER_CONFIG, OCI_CONFIG, OCI_EMPTY, OCI_LAYER, OCI_LAYER_GZIP};
    let check = |artifact_type: &str, config: &str, layers: &[&str], expected: Option<&str>| {
        let part = |kind: &&str| Descriptor::of(*kind, b"");
        let layers = layers.iter().map(part).collect();
        let mut manifest = Manifest::new(Flavor::Oci, part(&config), layers);
        manifest.artifact_type = artifact_type.to_owned();
        assert_eq!(manifest.artifact(), expected);
    };
    let chart = "application/vnd.cncf.helm.config.v1+json";
    let content = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    check("", chart, &[content], Some(chart));
    check("a/b", OCI_EMPTY, &[OCI_LAYER], Some("a/b"));
    check("", OCI_CONFIG, &[], None);
    check("", DOCKER_CONFIG, &[content], None);
    // Configs of old tools have any type.
    check("", "application/octet-stream", &[OCI_LAYER_GZIP], None);
}
