//! Archives of all tools that write them, and of nobody that means well.

use std::io::{Cursor, Write as _};

use kiln_oci::digest::Sha256Digest;
use serde_json::{Value, json};
use tar::EntryType;

use super::*;
use crate::executor::tests::executor;
use crate::export::{Destination, SaveFormat, SaveRequest};

/// An archive as it is being put together.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Archive {
        Archive(tar::Builder::new(Vec::new()))
    }

    fn file(self, path: &str, bytes: &[u8]) -> Archive {
        self.entry(path, EntryType::Regular, "", bytes)
    }

    fn link(self, path: &str, target: &str) -> Archive {
        self.entry(path, EntryType::Symlink, target, b"")
    }

    fn entry(mut self, path: &str, kind: EntryType, link: &str, bytes: &[u8]) -> Archive {
        let mut header = tar::Header::new_gnu();
        // The crate's own setters refuse what hostile archives have.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    fn blob(self, bytes: &[u8]) -> Archive {
        let path = kiln_oci::layout::blob_path(&Sha256Digest::of(bytes));
        self.file(&path, bytes)
    }

    fn json(self, path: &str, value: &Value) -> Archive {
        self.file(path, value.to_string().as_bytes())
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn layer(name: &str) -> Vec<u8> {
    Archive::new().file(name, name.as_bytes()).bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(architecture: &str, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids = layers
        .iter()
        .map(|layer| Sha256Digest::of(layer).to_string());
    json!({
        "architecture": architecture, "os": "linux", "created": "2001-09-09T01:46:40Z",
        "rootfs": { "type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>() },
    })
    .to_string()
    .into_bytes()
}

fn describe(kind: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": Sha256Digest::of(bytes).to_string(), "size": bytes.len(),
    })
}

/// Config and manifest of an image with one layer, which is compressed.
fn image(architecture: &str, archive: &[u8]) -> [Vec<u8>; 3] {
    let packed = gzip(archive);
    let config = config(architecture, &[archive]);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("config.v1+json", &config),
        "layers": [describe("layer.v1.tar+gzip", &packed)],
    });
    [packed, config, manifest.to_string().into_bytes()]
}

fn named(mut descriptor: Value, key: &str, name: &str) -> Value {
    descriptor["annotations"] = json!({ key: name });
    descriptor
}

const FULL: &str = "io.containerd.image.name";
const SHORT: &str = "org.opencontainers.image.ref.name";

fn layout(index: &[Value]) -> Archive {
    Archive::new()
        .json("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))
        .json(
            "index.json",
            &json!({ "schemaVersion": 2, "manifests": index }),
        )
}

async fn load(
    executor: &Executor,
    archive: Vec<u8>,
    platform: Option<&str>,
) -> Result<Vec<LoadedImage>, Error> {
    let source = LoadSource::Archive(Box::new(Cursor::new(archive)));
    let platform = platform.map(|text| text.parse().unwrap());
    executor.load(source, "x.tar", platform).await
}

fn show(loaded: &[LoadedImage]) -> Vec<String> {
    let show = |image: &LoadedImage| {
        format!(
            "{} {}{}",
            image.names.join("+"),
            image.platforms.join("+"),
            image
                .left_out
                .iter()
                .map(|out| format!(" -{out}"))
                .collect::<String>()
        )
    };
    loaded.iter().map(show).collect()
}

fn docker(tags: &[&str], config: &str, layers: &[&str]) -> Value {
    json!([{ "Config": config, "RepoTags": tags, "Layers": layers }])
}

#[tokio::test]
async fn what_docker_wrote_for_years_is_loaded() {
    let (_directory, executor) = executor();
    let (one, two) = (layer("one"), layer("two"));
    let config = config("amd64", &[&one, &two, &one]);
    // A layer that is there twice is a link, and what docker 1.10 read is still beside it.
    let archive = Archive::new()
        .entry("aaa/", EntryType::Directory, "", b"")
        .file("aaa/layer.tar", &one)
        .file("aaa/VERSION", b"1.0")
        .file("bbb/layer.tar", &two)
        .link("ccc/layer.tar", "../aaa/layer.tar")
        .file("config.json", &config)
        .json(
            "manifest.json",
            &docker(
                &["app:1", "ghcr.io/a/b:2"],
                "config.json",
                &["aaa/layer.tar", "bbb/layer.tar", "ccc/layer.tar"],
            ),
        )
        .json("repositories", &json!({}))
        .bytes();
    for archive in [
        archive.clone(),
        gzip(&archive),
        zstd::encode_all(&archive[..], 1).unwrap(),
    ] {
        let loaded = load(&executor, archive, None).await.unwrap();
        assert_eq!(show(&loaded), ["app:1+ghcr.io/a/b:2 linux/amd64"]);
        assert_eq!(loaded[0].id, Sha256Digest::of(&config).to_string());
    }
    let lease = executor.store().lease();
    let image = executor.find_image(&lease, "ghcr.io/a/b:2").unwrap();
    assert_eq!(image.layers.len(), 3);
    let view = executor.store().layers_view(&image.layers).unwrap();
    drop(view);
}

#[tokio::test]
async fn what_podman_writes_is_loaded() {
    let (_directory, executor) = executor();
    let one = layer("one");
    let config = config("amd64", &[&one]);
    let hex = Sha256Digest::of(&one).hex();
    let archive = Archive::new()
        .file(&format!("{hex}.tar"), &one)
        .link("x/layer.tar", &format!("../{hex}.tar"))
        .file("c.json", &config)
        .json(
            "manifest.json",
            &docker(
                &["localhost/app:latest"],
                "c.json",
                &[&format!("{hex}.tar")],
            ),
        )
        .bytes();
    let loaded = load(&executor, archive, None).await.unwrap();
    assert_eq!(show(&loaded), ["localhost/app:latest linux/amd64"]);
}

#[tokio::test]
async fn a_layouts_names_are_kept_and_its_digests_too() {
    let (directory, executor) = executor();
    let [packed, config, manifest] = image("amd64", &layer("one"));
    let root = describe("manifest.v1+json", &manifest);
    let digest = Sha256Digest::of(&manifest);
    let by_digest = format!("ghcr.io/a/b@{digest}");
    let lie = format!("ghcr.io/a/b@{}", Sha256Digest::of(b"other"));
    let archive = layout(&[
        named(root.clone(), FULL, "docker.io/library/app:1"),
        named(root.clone(), SHORT, "ghcr.io/a/b:2"),
        named(root.clone(), FULL, &by_digest),
        named(root.clone(), FULL, &lie),
        named(root, SHORT, "latest"),
    ])
    .blob(&packed)
    .blob(&config)
    .blob(&manifest)
    .bytes();
    let loaded = load(&executor, archive, None).await.unwrap();
    let shown = format!("app:1+ghcr.io/a/b:2+{by_digest} linux/amd64");
    assert_eq!(show(&loaded), [shown]);
    assert_eq!(
        saved_root(&directory, &executor, &by_digest).await,
        digest.to_string()
    );
    assert_eq!(
        saved_root(&directory, &executor, "app:1").await,
        Sha256Digest::of(&manifest).to_string()
    );
}

/// The digest that an image has in a layout that it is saved to.
async fn saved_root(directory: &tempfile::TempDir, executor: &Executor, name: &str) -> String {
    let path = directory.path().join("saved");
    let request = SaveRequest {
        images: vec![name.to_owned()],
        platform: None,
        format: SaveFormat::OciDirectory(path.clone()),
    };
    executor.save(request).await.unwrap();
    let index: Value =
        serde_json::from_slice(&std::fs::read(path.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// An index of two platforms with an attestation, and all its blobs.
fn index() -> (Vec<u8>, Vec<Vec<u8>>) {
    let [one, two] =
        [("amd64", "one"), ("arm64", "two")].map(|(arch, name)| image(arch, &layer(name)));
    let statement = br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#.to_vec();
    let attested = config("unknown", &[]);
    let mut layer = describe("x", &statement);
    layer["mediaType"] = "application/vnd.in-toto+json".into();
    let attestation = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("config.v1+json", &attested), "layers": [layer],
    })
    .to_string()
    .into_bytes();
    let entry = |manifest: &[u8], os: &str, architecture: &str| {
        let mut entry = describe("manifest.v1+json", manifest);
        entry["platform"] = json!({ "os": os, "architecture": architecture });
        entry
    };
    let mut attests = entry(&attestation, "unknown", "unknown");
    attests["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": Sha256Digest::of(&one[2]).to_string(),
    });
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&one[2], "linux", "amd64"), entry(&two[2], "linux", "arm64"), attests],
    })
    .to_string()
    .into_bytes();
    let blobs = one
        .into_iter()
        .chain(two)
        .chain([statement, attested, attestation]);
    (index, blobs.collect())
}

fn archive_of_index(leave_out: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let (index, blobs) = index();
    let root = named(
        describe("index.v1+json", &index),
        FULL,
        "docker.io/library/app:1",
    );
    let mut archive = layout(&[root]).blob(&index);
    for (at, blob) in blobs.iter().enumerate() {
        if !leave_out.contains(&at) {
            archive = archive.blob(blob);
        }
    }
    (archive.bytes(), index)
}

#[tokio::test]
async fn an_index_stays_one_with_its_attestations() {
    let (directory, executor) = executor();
    let (archive, index) = archive_of_index(&[]);
    let loaded = load(&executor, archive, None).await.unwrap();
    assert_eq!(show(&loaded), ["app:1 linux/amd64+linux/arm64"]);
    assert_eq!(loaded[0].id, Sha256Digest::of(&index).to_string());
    assert_eq!(
        saved_root(&directory, &executor, "app:1").await,
        loaded[0].id
    );
    assert!(
        directory
            .path()
            .join("saved/blobs/sha256")
            .read_dir()
            .unwrap()
            .count()
            >= 10
    );
}

#[tokio::test]
async fn of_an_index_one_platform_can_be_chosen() {
    let (_directory, executor) = executor();
    let (archive, _) = archive_of_index(&[]);
    let loaded = load(&executor, archive.clone(), Some("linux/arm64"))
        .await
        .unwrap();
    assert_eq!(show(&loaded), ["app:1 linux/arm64"]);
    let error = load(&executor, archive, Some("linux/s390x"))
        .await
        .unwrap_err();
    check_words(&error, "it has no image for linux/s390x");
}

#[tokio::test]
async fn what_an_index_lists_and_lacks_is_told() {
    let (_directory, executor) = executor();
    // As docker saves one platform of an image that it knows several of.
    let (archive, _) = archive_of_index(&[3, 4, 5]);
    let loaded = load(&executor, archive, None).await.unwrap();
    assert_eq!(show(&loaded), ["app:1 linux/amd64 -linux/arm64"]);
}

#[tokio::test]
async fn what_refers_to_images_is_passed_over() {
    let (_directory, executor) = executor();
    let [packed, config, manifest] = image("amd64", &layer("one"));
    let artifact = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/x",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
                    "digest": Sha256Digest::of(b"{}").to_string() },
        "layers": [],
    })
    .to_string()
    .into_bytes();
    let archive = layout(&[
        describe("manifest.v1+json", &artifact),
        describe("manifest.v1+json", &manifest),
    ])
    .blob(&packed)
    .blob(&config)
    .blob(&manifest)
    .blob(&artifact)
    .blob(b"{}")
    .bytes();
    let loaded = load(&executor, archive, None).await.unwrap();
    assert_eq!(show(&loaded), [" linux/amd64"]);
}

#[tokio::test]
async fn what_is_saved_can_be_loaded_elsewhere() {
    let (directory, executor) = executor();
    let (archive, _) = archive_of_index(&[]);
    load(&executor, archive, None).await.unwrap();
    let (docker, oci) = (
        directory.path().join("d.tar"),
        directory.path().join("o.tar"),
    );
    for (format, path, expected) in [
        (
            SaveFormat::DockerArchive(Destination::File(docker.clone())),
            docker,
            1,
        ),
        (
            SaveFormat::OciArchive(Destination::File(oci.clone())),
            oci,
            2,
        ),
    ] {
        let platform = (expected == 1).then(|| "linux/amd64".parse().unwrap());
        let request = SaveRequest {
            images: vec!["app:1".to_owned(), "app:1".to_owned()],
            platform,
            format,
        };
        executor.save(request).await.unwrap();
        let (_directory, other) = self::executor();
        let loaded = load(&other, std::fs::read(path).unwrap(), None)
            .await
            .unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].platforms.len(), expected);
        assert_eq!(loaded[0].names[0], "app:1");
    }
}

#[tokio::test]
async fn a_directory_is_loaded_like_an_archive() {
    let (directory, executor) = executor();
    let (archive, _) = archive_of_index(&[]);
    let path = directory.path().join("layout");
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let file = path.join(entry.path().unwrap());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::io::copy(&mut entry, &mut std::fs::File::create(file).unwrap()).unwrap();
    }
    let name = path.to_str().unwrap();
    let loaded = executor
        .load(LoadSource::Directory, name, None)
        .await
        .unwrap();
    assert_eq!(show(&loaded), ["app:1 linux/amd64+linux/arm64"]);
    let (_directory, other) = self::executor();
    let config = &index().1[1];
    let config = path.join(kiln_oci::layout::blob_path(&Sha256Digest::of(config)));
    std::fs::write(config, "{}").unwrap();
    let error = other
        .load(LoadSource::Directory, name, None)
        .await
        .unwrap_err();
    check_words(&error, "is damaged");
}

fn check_words(error: &Error, expected: &str) {
    let words = crate::error::words(error);
    assert!(words.contains(expected), "{words}");
}

async fn refuse(archive: Vec<u8>, expected: &str) {
    let (directory, executor) = executor();
    let error = load(&executor, archive, None).await.unwrap_err();
    check_words(&error, expected);
    assert!(executor.images().unwrap().is_empty());
    assert!(!directory.path().join("escaped").exists());
    assert_eq!(held(&directory), [""; 0], "{expected}");
}

/// What the store holds on its disk, by the beginnings of its names.
fn held(directory: &tempfile::TempDir) -> Vec<String> {
    let mut held = Vec::new();
    for part in ["layers", "blobs/sha256", "blobs/partial", "trash"] {
        let entries = std::fs::read_dir(directory.path().join("store").join(part));
        for entry in entries.into_iter().flatten() {
            held.push(format!("{part}/{}", entry.unwrap().file_name().display()));
        }
    }
    held
}

#[tokio::test]
async fn of_several_images_none_is_kept_if_one_is_refused() {
    let (one, two) = (layer("one"), layer("two"));
    let (good, other) = (config("amd64", &[&one]), config("arm64", &[&two]));
    let list = |second: &str| {
        json!([
            { "Config": "a", "RepoTags": ["a:1"], "Layers": ["l"] },
            { "Config": "b", "RepoTags": ["b:1"], "Layers": [second] },
        ])
    };
    let archive = |second: &str| {
        Archive::new()
            .file("a", &good)
            .file("b", &other)
            .file("l", &one)
            .file("m", &two)
            .json("manifest.json", &list(second))
            .bytes()
    };
    refuse(archive("l"), "the image's config says").await;
    // What is here already is not taken along.
    let (directory, executor) = executor();
    load(
        &executor,
        docker_archive(&good, &["l"]).file("l", &one).bytes(),
        None,
    )
    .await
    .unwrap();
    let before = held(&directory);
    load(&executor, archive("l"), None).await.unwrap_err();
    assert_eq!(held(&directory), before);
    let images = executor.images().unwrap();
    assert_eq!(images.len(), 1);
    // And nothing but images stays of what is good: a layer and its archive each.
    load(&executor, archive("m"), None).await.unwrap();
    assert_eq!(held(&directory).len(), 4, "{:?}", held(&directory));
    // Of those that are not asked for, nothing.
    let (directory, executor) = self::executor();
    let loaded = load(&executor, archive("m"), Some("linux/arm64")).await;
    assert_eq!(show(&loaded.unwrap()), ["b:1 linux/arm64"]);
    assert_eq!(executor.images().unwrap().len(), 1);
    assert_eq!(held(&directory).len(), 2, "{:?}", held(&directory));
}

fn docker_archive(config: &[u8], layers: &[&str]) -> Archive {
    Archive::new()
        .file("c", config)
        .json("manifest.json", &docker(&["app:1"], "c", layers))
}

#[tokio::test]
async fn hostile_archives_are_refused() {
    let one = layer("one");
    let good = config("amd64", &[&one]);
    refuse(
        b"no archive at all, but text that goes on for a while".repeat(40),
        "cannot be read",
    )
    .await;
    refuse(
        layer("bin/sh"),
        "neither a docker archive nor an OCI layout",
    )
    .await;
    refuse(
        Archive::new().json("repositories", &json!({})).bytes(),
        "before 1.10",
    )
    .await;
    let mut cut = docker_archive(&good, &["l"]).file("l", &one).bytes();
    cut.truncate(1200);
    refuse(cut, "cannot be read").await;
    refuse(docker_archive(&good, &["l"]).bytes(), "`l` is not in it").await;
    refuse(
        docker_archive(&good, &["../l"]).bytes(),
        "leads out of the archive",
    )
    .await;
    refuse(
        docker_archive(&good, &["l"])
            .link("l", "../../../etc/passwd")
            .bytes(),
        "`l` is not in it",
    )
    .await;
    refuse(
        docker_archive(&good, &["l"])
            .link("l", "m")
            .link("m", "l")
            .bytes(),
        "`l` is not in it",
    )
    .await;
    refuse(
        docker_archive(&good, &["l"])
            .file("l", &layer("other"))
            .bytes(),
        "the image's config says",
    )
    .await;
    refuse(
        docker_archive(&good, &["l", "l"]).file("l", &one).bytes(),
        "has 1 layers, and 2 are listed",
    )
    .await;
    refuse(docker_archive(b"[]", &[]).bytes(), "cannot be used").await;
    let escaping = Archive::new().file("../escaped", b"x").bytes();
    let config = config("amd64", &[&escaping]);
    refuse(
        docker_archive(&config, &["l"]).file("l", &escaping).bytes(),
        "could not unpack",
    )
    .await;
}

#[tokio::test]
async fn a_layout_with_other_bytes_is_refused() {
    let [packed, config, manifest] = image("amd64", &layer("one"));
    let root = describe("manifest.v1+json", &manifest);
    let path = |bytes: &[u8]| kiln_oci::layout::blob_path(&Sha256Digest::of(bytes));
    let begin = || layout(std::slice::from_ref(&root));
    let wrong = gzip(&layer("two"));
    let archive = begin()
        .blob(&config)
        .blob(&manifest)
        .file(&path(&packed), &wrong);
    refuse(archive.bytes(), "is damaged").await;
    let archive = begin()
        .blob(&config)
        .blob(&packed)
        .file(&path(&manifest), b"{}");
    refuse(archive.bytes(), "is damaged").await;
    refuse(
        begin().blob(&config).blob(&manifest).bytes(),
        "is not in it",
    )
    .await;
    let mut larger = root.clone();
    larger["size"] = 7.into();
    let archive = layout(&[larger])
        .blob(&packed)
        .blob(&config)
        .blob(&manifest);
    refuse(archive.bytes(), "is damaged").await;
}
