//! Layouts and docker archives, written and found again.

use super::*;
use crate::document::{ImageConfig, Manifest};
use crate::media_type::{Compression, OCI_MANIFEST};

fn document(media_type: &str, bytes: Vec<u8>) -> Document {
    Document {
        descriptor: Descriptor::of(media_type, &bytes),
        bytes: bytes.into(),
    }
}

fn image(names: &[&str]) -> DockerExport {
    let config = ImageConfig {
        os: "linux".into(),
        architecture: "amd64".into(),
        ..ImageConfig::default()
    };
    let config = document(Flavor::Oci.config(), config.to_bytes());
    let layer = Descriptor::of(Flavor::Oci.layer(Compression::Gzip), b"layer");
    let manifest = Manifest::new(
        Flavor::Oci,
        config.descriptor.clone(),
        vec![layer.clone(), layer.clone()],
    );
    let manifest = document(OCI_MANIFEST, manifest.to_bytes());
    DockerExport {
        config: config.descriptor.digest,
        layers: vec![layer.digest, layer.digest],
        image: Export {
            root: manifest.descriptor.clone(),
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            documents: vec![manifest, config],
            blobs: vec![layer.clone(), layer],
        },
    }
}

fn show(files: &[LayoutFile]) -> String {
    let line = |file: &LayoutFile| match &file.content {
        Content::Bytes(bytes) => format!("{}\n{}\n", file.path, String::from_utf8_lossy(bytes)),
        Content::Blob { digest, size } => format!("{}\nblob {digest} {size}\n", file.path),
    };
    files.iter().map(line).collect()
}

#[test]
fn a_layout_has_every_file_once() {
    insta::assert_snapshot!(show(&oci_layout(&[image(&[
        "alpine",
        "localhost:5000/x:v1"
    ])
    .image])));
}

#[test]
fn a_docker_archive_is_a_layout_with_a_manifest() {
    insta::assert_snapshot!(show(&docker_archive(&[image(&["alpine:3"])])));
}

fn find<'a>(files: &'a [LayoutFile], path: &str) -> &'a Bytes {
    match &files.iter().find(|file| file.path == path).unwrap().content {
        Content::Bytes(bytes) => bytes,
        Content::Blob { .. } => panic!("{path} is a blob"),
    }
}

#[test]
fn what_is_written_is_found_again() {
    let image = image(&["alpine", "localhost:5000/x:v1"]);
    let files = docker_archive(std::slice::from_ref(&image));
    check_version(find(&files, LAYOUT_FILE)).unwrap();
    let index = read_index(find(&files, INDEX_FILE)).unwrap();
    let host = Platform::host();
    let digest = image.image.root.digest;
    let selectors = [
        "alpine",
        "alpine:latest",
        "latest",
        "docker.io/library/alpine:latest",
        "v1",
        "localhost:5000/x:v1",
    ];
    for selector in selectors
        .map(Selector::Name)
        .into_iter()
        .chain([Selector::Only, Selector::Digest(digest)])
    {
        assert_eq!(
            select(&index, selector, &host).unwrap().digest,
            digest,
            "{selector:?}"
        );
    }
    let missing = select(&index, Selector::Name("debian"), &host)
        .unwrap_err()
        .to_string();
    assert_eq!(
        missing,
        "no image is named `debian`; there is `docker.io/library/alpine:latest`, `localhost:5000/x:v1`"
    );
    let images = read_docker_manifest(find(&files, DOCKER_MANIFEST_FILE)).unwrap();
    assert_eq!(images[0].config, blob_path(&image.config));
    for name in [
        None,
        Some("alpine"),
        Some("docker.io/library/alpine:latest"),
        Some("localhost:5000/x:v1"),
    ] {
        assert_eq!(select_docker(&images, name).unwrap(), &images[0]);
    }
    let missing = select_docker(&images, Some("debian"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        missing,
        "no image is named `debian`; there is `alpine:latest`, `localhost:5000/x:v1`"
    );
}

#[test]
fn several_images_want_a_name_or_a_platform() {
    let entry = |text: &str, platform: Option<&str>| {
        let mut entry = Descriptor::of(OCI_MANIFEST, text.as_bytes());
        entry.platform = platform.map(|platform| platform.parse().unwrap());
        entry
    };
    let amd64: Platform = "linux/amd64".parse().unwrap();
    let only = |entries: Vec<Descriptor>| {
        select(&Index::new(Flavor::Oci, entries), Selector::Only, &amd64)
    };
    assert!(matches!(only(vec![]), Err(LayoutError::Empty)));
    assert!(matches!(
        only(vec![entry("a", None), entry("b", None)]),
        Err(LayoutError::Ambiguous { .. })
    ));
    let two = vec![
        entry("a", Some("linux/arm64")),
        entry("b", Some("linux/amd64")),
    ];
    assert_eq!(only(two).unwrap().digest, Sha256Digest::of(b"b"));
    let same = vec![
        entry("a", Some("linux/amd64")),
        entry("b", Some("linux/amd64")),
    ];
    assert!(matches!(only(same), Err(LayoutError::Ambiguous { .. })));
    let attested = vec![entry("a", None), entry("b", Some("unknown/unknown"))];
    assert_eq!(only(attested).unwrap().digest, Sha256Digest::of(b"a"));
}

#[test]
fn hostile_archives_are_refused() {
    for path in ["/etc/passwd", "../x", "a/../../x", "a//b", "", "./a", "a\0"] {
        let bytes =
            serde_json::to_vec(&serde_json::json!([{"Config": "c", "Layers": [path]}])).unwrap();
        assert!(
            matches!(read_docker_manifest(&bytes), Err(LayoutError::Path(_))),
            "{path:?}"
        );
    }
    assert!(matches!(
        read_docker_manifest(b"{}"),
        Err(LayoutError::Document { .. })
    ));
    assert!(matches!(
        check_version(br#"{"imageLayoutVersion":"2.0.0"}"#),
        Err(LayoutError::Version)
    ));
    assert!(matches!(check_version(b""), Err(LayoutError::Version)));
    let old = br#"[{"Config":"a.json","RepoTags":null,"Layers":["b/layer.tar"]}]"#;
    let images = read_docker_manifest(old).unwrap();
    assert_eq!(
        select_docker(&images, None).unwrap().layers,
        ["b/layer.tar"]
    );
}
