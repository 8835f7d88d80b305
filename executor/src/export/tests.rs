//! Exports of small images, looked at with kiln's own eyes and those of skopeo and umoci where they are.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use kiln_oci::document::{Index, Manifest, annotation};
use kiln_store::{AS_PULLED, BlobDigest};
use kiln_tree::tar::{ApplyOptions, apply};

use super::*;
use crate::context::Locals;
use crate::executor::ExecutorOptions;
use crate::source::Resolver;
use crate::warning::Warn;

mod directories;
mod documents;
mod packings;
mod platforms;
mod stacks;

/// A store with a build that is about to export.
struct World {
    directory: tempfile::TempDir,
    executor: Executor,
    worker: BuildWorker,
    said: Mutex<Vec<String>>,
}

impl World {
    fn new() -> World {
        World::with(!rustix::process::geteuid().is_root())
    }

    fn with(single_id: bool) -> World {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let options = ExecutorOptions {
            root,
            in_user_namespace: false,
            single_id,
            offline: true,
            registries: Default::default(),
            engines: Vec::new(),
            warn: Warn::default(),
        };
        let executor = Executor::open(options).unwrap();
        let worker = BuildWorker::new(
            &executor,
            Arc::new(Resolver::new(&executor)),
            Locals::default(),
        );
        World {
            directory,
            executor,
            worker,
            said: Mutex::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Keeps an archive as a layer; under its diff id if it stands for a pulled one.
    fn keep(&self, archive: &[u8], pulled: bool) -> Content {
        let store = self.executor.store();
        let draft = store.begin_layer().unwrap();
        let options = store.options();
        let limits = ApplyOptions::new(options.ownership.clone(), options.overlay_xattrs);
        let applied = apply(archive, draft.fs(), &limits).unwrap();
        let content = match pulled {
            true => Content::DiffId(DiffId(sha2::Sha256::digest(archive).into())),
            false => Content::Layer(applied.manifest.id()),
        };
        store
            .commit_layer(self.worker.lease(), draft, &applied.manifest, content)
            .unwrap();
        content
    }

    fn image(&self, layers: Vec<Content>) -> ImageToExport {
        let history = |text: &str, empty_layer| History {
            created_by: text.to_owned(),
            empty_layer,
            ..History::default()
        };
        let config = ImageConfig {
            history: vec![history("COPY", false), history("CMD", true)],
            ..config::plain()
        };
        let result = ResultToExport {
            handle: Some(Handle::layers(layers)),
            config: Some(config),
            ..ResultToExport::default()
        };
        ImageToExport {
            results: vec![result],
            tags: vec!["kiln.test/app:1".to_owned()],
            ..ImageToExport::default()
        }
    }

    fn try_export(&self, image: &ImageToExport, exports: &[Export]) -> Result<Exported, Error> {
        let said = |line| self.said.lock().unwrap().push(line);
        self.executor.export(&self.worker, image, exports, &said)
    }

    fn export(&self, image: &ImageToExport, export: Export) -> Exported {
        self.try_export(image, &[export]).unwrap()
    }
}

use sha2::Digest as _;

/// Writes an archive: `path/` is a directory, `path -> target` a link, `path = other` a hard link,
/// and `path: text` a file; all of them of user 1000.
fn archive(lines: &[&str]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_mtime(1_500_000_000);
    archive_with(lines, header)
}

fn archive_with(lines: &[&str], header: tar::Header) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for line in lines {
        let mut header = header.clone();
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mode(0o644);
        let mut link = |path: &str, target: &str, entry_type| {
            let mut header = header.clone();
            header.set_entry_type(entry_type);
            header.set_size(0);
            builder.append_link(&mut header, path, target).unwrap();
        };
        if let Some((path, target)) = line.split_once(" -> ") {
            link(path, target, EntryType::Symlink);
        } else if let Some((path, target)) = line.split_once(" = ") {
            link(path, target, EntryType::Link);
        } else if let Some((path, text)) = line.split_once(": ") {
            header.set_size(text.len() as u64);
            if path.ends_with(".sh") {
                header.set_mode(0o4755);
            }
            builder
                .append_data(&mut header, path, text.as_bytes())
                .unwrap();
        } else {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o750);
            header.set_size(0);
            builder.append_data(&mut header, line, &b""[..]).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

use tar::EntryType;

const APP: &[&str] = &[
    "app/",
    "app/one: first",
    "app/two = app/one",
    "app/run.sh: echo hello",
    "app/link -> one",
];

/// The files of an archive by name.
fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(path, bytes);
    }
    files
}

/// Runs a tool that knows images; tells so if it is not there.
#[allow(clippy::print_stderr)]
fn tool(name: &str, arguments: &[&OsStr]) -> Option<String> {
    let Ok(output) = Command::new(name).args(arguments).output() else {
        eprintln!("{name} is not here to look at what was written");
        return None;
    };
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

fn transport(name: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(format!("{name}:"));
    text.push(path);
    text
}

fn file(path: &Path) -> Destination {
    Destination::File(path.to_owned())
}

#[test]
fn an_image_stays_the_same_until_something_changes() {
    let world = World::new();
    let layer = world.keep(&archive(APP), false);
    let image = world.image(vec![layer]);
    let first = world.export(
        &image,
        Export::Image {
            options: ImageOptions::default(),
        },
    );
    assert!(!first.same_as_before);
    assert_eq!(first.names, ["kiln.test/app:1"]);
    let second = world.export(
        &image,
        Export::Image {
            options: ImageOptions::default(),
        },
    );
    assert!(second.same_as_before);
    assert_eq!(
        (&first.image_id, &first.manifest),
        (&second.image_id, &second.manifest)
    );

    // Another name for the same image: that name is new.
    let other = world.export(
        &image,
        Export::Image {
            options: ImageOptions::named(&["two"]),
        },
    );
    assert!(other.same_as_before);
    assert_eq!(
        other.names,
        ["kiln.test/app:1", "docker.io/library/two:latest"]
    );
    let renamed = ImageToExport {
        tags: vec!["three".to_owned()],
        ..image.clone()
    };
    assert!(
        !world
            .export(
                &renamed,
                Export::Image {
                    options: ImageOptions::default()
                }
            )
            .same_as_before
    );
    let nameless = ImageToExport {
        tags: vec![],
        ..image.clone()
    };
    assert!(
        world
            .export(
                &nameless,
                Export::Image {
                    options: ImageOptions::default()
                }
            )
            .same_as_before
    );

    let more = world.keep(&archive(&["app/three: third"]), false);
    let changed = world.export(
        &world.image(vec![layer, more]),
        Export::Image {
            options: ImageOptions::default(),
        },
    );
    assert!(!changed.same_as_before);
    assert_ne!(changed.image_id, first.image_id);
    assert_eq!(
        world.said.lock().unwrap()[0],
        "exporting to image kiln.test/app:1"
    );
}

#[test]
fn the_stored_image_says_what_it_is() {
    let world = World::new();
    let layers = vec![
        world.keep(&archive(APP), false),
        world.keep(&archive(&["etc/x: 1"]), false),
    ];
    let exported = world.export(
        &world.image(layers.clone()),
        Export::Image {
            options: ImageOptions::default(),
        },
    );
    let store = world.executor.store();
    let image = store
        .resolve_image(world.worker.lease(), "kiln.test/app:1")
        .unwrap();
    assert_eq!(Some(image.id.to_string()), exported.image_id);
    assert_eq!(image.layers, layers);
    assert_eq!(image.size_bytes, 5 + 10 + 1);
    let config = ImageConfig::from_json(&image.config).unwrap();
    let comments: Vec<&str> = config
        .history
        .iter()
        .map(|entry| &entry.comment[..])
        .collect();
    assert_eq!(comments, ["", "", "kiln.exporter.image.v0"]);
    let created = times::parse(config.created.as_deref().unwrap()).unwrap();
    assert_eq!(times::to_clock(created), image.created);
    // The manifest lists the archives as they are before compression.
    let manifest = Manifest::from_slice(&image.manifest).unwrap();
    let mtime = MtimePolicy::Keep;
    for (descriptor, layer) in manifest.layers.iter().zip(&layers) {
        let diff_id = store.diff_id(layer, "tar v0").unwrap().unwrap();
        assert_eq!(descriptor.digest.to_string(), diff_id.to_string());
        assert_eq!(
            descriptor.size,
            LayerArchive::of(store, std::slice::from_ref(layer), mtime)
                .unwrap()
                .length()
                .unwrap()
        );
        assert_eq!(
            descriptor.media_type,
            "application/vnd.oci.image.layer.v1.tar"
        );
    }
}

#[test]
fn the_length_of_an_archive_is_known_without_reading_files() {
    let world = World::new();
    let long = format!("{}/{}: text", "d".repeat(90), "f".repeat(90));
    for lines in [APP, &[long.as_str(), "empty: ", "big: 0123456789"], &[]] {
        let layer = world.keep(&archive(lines), false);
        let result = ResultToExport {
            handle: Some(Handle::layers(vec![layer])),
            ..ResultToExport::default()
        };
        let image = ImageToExport {
            results: vec![result],
            ..ImageToExport::default()
        };
        let out = world.path("x.tar");
        world.export(
            &image,
            Export::Tar {
                destination: file(&out),
                platform_split: None,
            },
        );
        let (store, mtime) = (world.executor.store(), MtimePolicy::Keep);
        let archive = LayerArchive::of(store, &[layer], mtime).unwrap();
        let length = archive.length().unwrap();
        assert_eq!(fs::metadata(out).unwrap().len(), length, "{lines:?}");
    }
}

#[test]
fn an_oci_archive_is_one() {
    let world = World::new();
    let image = world.image(vec![
        world.keep(&archive(APP), false),
        world.keep(&archive(&["etc/x: 1"]), false),
    ]);
    let out = world.path("x.tar");
    let export = Export::OciArchive {
        destination: file(&out),
        options: ImageOptions::named(&["two"]),
    };
    let exported = world.export(&image, export.clone());
    let bytes = fs::read(&out).unwrap();
    let files = files(&bytes);
    let index = Index::from_slice(&files["index.json"]).unwrap();
    assert_eq!(index.manifests.len(), 2);
    assert_eq!(
        index.manifests[0].annotations[annotation::CONTAINERD_NAME],
        "kiln.test/app:1"
    );
    assert_eq!(index.manifests[0].annotations[annotation::REF_NAME], "1");
    let digest = index.manifests[0].digest;
    assert_eq!(
        exported.manifest_digest(),
        Some(digest.to_string().as_str())
    );
    let manifest = Manifest::from_slice(&files[&format!("blobs/sha256/{}", digest.hex())]).unwrap();
    assert_eq!(exported.image_id, Some(manifest.config.digest.to_string()));
    assert!(
        manifest
            .layers
            .iter()
            .all(|layer| layer.media_type.ends_with("tar+gzip"))
    );

    // Once more, now with blobs that are there; and a store that has them says the same image.
    world.export(&image, export);
    assert!(fs::read(&out).unwrap() == bytes);
    let stored = world.export(
        &image,
        Export::Image {
            options: ImageOptions::default(),
        },
    );
    assert_eq!(stored.image_id, exported.image_id);

    let source = transport("oci-archive", &out);
    let mut tagged = source.clone();
    tagged.push(":1");
    if let Some(text) = tool(
        "skopeo",
        &[OsStr::new("inspect"), OsStr::new("--config"), &tagged],
    ) {
        assert!(text.contains(r#""created_by": "COPY""#), "{text}");
    }
    let copy = transport("docker-archive", &world.path("copy.tar"));
    tool(
        "skopeo",
        &[
            "--insecure-policy".as_ref(),
            "copy".as_ref(),
            &tagged,
            &copy,
        ],
    );
}

#[test]
fn umoci_unpacks_a_layout() {
    let world = World::new();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let layout = world.path("layout");
    world.export(
        &image,
        Export::OciDirectory {
            destination: layout.clone(),
            options: ImageOptions::default(),
        },
    );
    let (mut name, bundle) = (layout.into_os_string(), world.path("bundle"));
    name.push(":1");
    let arguments = ["raw", "unpack", "--rootless", "--image"].map(OsStr::new);
    if tool(
        "umoci",
        &[&arguments[..], &[&name, bundle.as_os_str()]].concat(),
    )
    .is_some()
    {
        assert_eq!(fs::read(bundle.join("app/one")).unwrap(), b"first");
        let inodes =
            ["app/one", "app/two"].map(|path| fs::metadata(bundle.join(path)).unwrap().ino());
        assert_eq!(inodes[0], inodes[1]);
    }
}

#[test]
fn a_docker_archive_is_one() {
    let world = World::new();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let out = world.path("x.tar");
    let exported = world.export(
        &image,
        Export::DockerArchive {
            destination: file(&out),
            options: ImageOptions::default(),
        },
    );
    let files = files(&fs::read(&out).unwrap());
    let manifest = kiln_oci::layout::read_docker_manifest(&files["manifest.json"]).unwrap();
    assert_eq!(
        manifest[0].repo_tags.as_deref(),
        Some(&["kiln.test/app:1".to_owned()][..])
    );
    let digest = exported.manifest.as_ref().unwrap();
    assert_eq!(
        digest.media_type,
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    let source = transport("docker-archive", &out);
    if let Some(text) = tool(
        "skopeo",
        &[
            "inspect".as_ref(),
            "--format".as_ref(),
            "{{.Layers}}".as_ref(),
            &source,
        ],
    ) {
        assert!(text.starts_with("[sha256:"), "{text}");
    }
}

#[test]
fn an_epoch_makes_archives_equal_wherever_they_are_built() {
    let build = |name: &str, mtime: u64| {
        let world = World::new();
        let mut header = tar::Header::new_ustar();
        header.set_mtime(mtime);
        let layer = world.keep(&archive_with(&["app/", name], header), false);
        let image = ImageToExport {
            source_date_epoch: Some(1_000_000_000),
            ..world.image(vec![layer])
        };
        let out = world.path("x.tar");
        world.export(
            &image,
            Export::OciArchive {
                destination: file(&out),
                options: ImageOptions::default(),
            },
        );
        fs::read(&out).unwrap()
    };
    let first = build("app/x: 1", 5);
    assert!(first == build("app/x: 1", 6));
    assert!(first != build("app/x: 2", 5));
    let mut archive = tar::Archive::new(&first[..]);
    for entry in archive.entries().unwrap() {
        assert_eq!(entry.unwrap().header().mtime().unwrap(), 1_000_000_000);
    }
}

#[test]
fn times_are_kept_if_they_are_not_to_be_rewritten() {
    let world = World::new();
    let layer = world.keep(&archive(APP), false);
    let image = world.image(vec![layer]);
    let plain = world.export(
        &image,
        Export::Image {
            options: ImageOptions::default(),
        },
    );
    let epoch = ImageToExport {
        source_date_epoch: Some(2_000_000_000),
        ..image.clone()
    };
    let rewritten = world.export(
        &epoch,
        Export::Image {
            options: ImageOptions::default(),
        },
    );
    let options = ImageOptions {
        rewrite_timestamp: Some(false),
        ..ImageOptions::default()
    };
    let kept = world.export(&epoch, Export::Image { options });
    let diff_ids = |exported: &Exported| {
        let image = world
            .executor
            .find_image(world.worker.lease(), exported.image_id.as_ref().unwrap())
            .unwrap();
        serde_json::from_slice::<serde_json::Value>(&image.config).unwrap()["rootfs"].clone()
    };
    assert_eq!(diff_ids(&plain), diff_ids(&kept));
    assert_ne!(diff_ids(&plain), diff_ids(&rewritten));
}

#[test]
fn zstd_is_zstd() {
    let world = World::new();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let out = world.path("x.tar");
    let exported = world.export(
        &image,
        Export::OciArchive {
            destination: file(&out),
            options: ImageOptions {
                packing: Some(Compression::Zstd.into()),
                ..ImageOptions::default()
            },
        },
    );
    let hex = &exported.manifest_digest().unwrap()["sha256:".len()..];
    let files = files(&fs::read(&out).unwrap());
    let manifest = Manifest::from_slice(&files[&format!("blobs/sha256/{hex}")]).unwrap();
    assert_eq!(
        manifest.layers[0].media_type,
        "application/vnd.oci.image.layer.v1.tar+zstd"
    );
    let blob = &files[&format!("blobs/sha256/{}", manifest.layers[0].digest.hex())];
    let tar = zstd::decode_all(&blob[..]).unwrap();
    assert_eq!(self::files(&tar)["app/one"], b"first");
}

/// An archive as another tool writes it: with GNU headers.
fn foreign() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(1_500_000_000);
    archive_with(APP, header)
}

/// Keeps a layer as if it had been pulled as gzip.
fn pulled(world: &World) -> (Content, BlobDigest) {
    let (store, lease) = (world.executor.store(), world.worker.lease());
    let layer = world.keep(&foreign(), true);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&foreign()).unwrap();
    let mut writer = store.write_blob(None).unwrap();
    writer.write_all(&gzip.finish().unwrap()).unwrap();
    let digest = writer.finish(lease).unwrap();
    let Content::DiffId(diff_id) = layer else {
        panic!("it was kept as pulled")
    };
    store
        .put_compressed(&layer, "", AS_PULLED, &digest, &diff_id)
        .unwrap();
    (layer, digest)
}

#[test]
fn a_pulled_layer_goes_out_as_it_came() {
    let world = World::new();
    let (store, lease) = (world.executor.store(), world.worker.lease());
    let (layer, digest) = pulled(&world);
    let blob = fs::read(store.blob_file(&digest)).unwrap();
    let out = world.path("x.tar");
    world.export(
        &world.image(vec![layer]),
        Export::OciArchive {
            destination: file(&out),
            options: ImageOptions::default(),
        },
    );
    assert!(files(&fs::read(&out).unwrap())[&format!("blobs/sha256/{}", digest.hex())] == blob);
    // The store's own manifest names that blob too.
    world.export(
        &world.image(vec![layer]),
        Export::Image {
            options: ImageOptions::default(),
        },
    );
    let image = store.resolve_image(lease, "kiln.test/app:1").unwrap();
    let manifest = Manifest::from_slice(&image.manifest).unwrap();
    assert_eq!(BlobDigest(*manifest.layers[0].digest.as_bytes()), digest);
}

#[test]
fn a_foreign_layer_without_its_archive_is_refused() {
    let world = World::new();
    let layer = world.keep(&foreign(), true);
    let image = world.image(vec![layer]);
    // In the store its files are all that is needed.
    world.export(
        &image,
        Export::Image {
            options: ImageOptions::default(),
        },
    );
    let out = world.path("x.tar");
    fs::write(&out, "old").unwrap();
    let export = Export::OciArchive {
        destination: file(&out),
        options: ImageOptions::default(),
    };
    let error = world.try_export(&image, &[export]).unwrap_err();
    assert!(
        matches!(&error, Error::ForeignLayer { layer: named } if *named == layer),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("without --offline"));
    assert_eq!(fs::read(&out).unwrap(), b"old");
}

#[test]
fn an_image_with_an_epoch_is_a_base_like_any_other() {
    let world = World::new();
    let (store, lease) = (world.executor.store(), world.worker.lease());
    let layer = world.keep(&archive(&["app/", "app/x: 1", "app/y = app/x"]), false);
    for epoch in [None, Some(1_000_000_000)] {
        let image = ImageToExport {
            source_date_epoch: epoch,
            ..world.image(vec![layer])
        };
        world.export(
            &image,
            Export::Image {
                options: ImageOptions::default(),
            },
        );
        let mtime = epoch.map_or(MtimePolicy::Keep, MtimePolicy::Fixed);
        let of_image = layers::describe(store, &[layer], mtime, &Stop::NEVER).unwrap();
        let diff_id = of_image[0].diff_id;
        crate::combine::clone_layer(store, lease, &[layer], diff_id).unwrap();
        // Whatever is built on it can be exported, with the base's layer as the base has it.
        let out = world.path("x.tar");
        let export = Export::OciArchive {
            destination: file(&out),
            options: ImageOptions::default(),
        };
        world.export(&world.image(vec![Content::DiffId(diff_id)]), export);
    }
}

#[test]
fn an_export_that_fails_leaves_nothing() {
    let world = World::new();
    let layer = world.keep(&archive(APP), false);
    let file_of_layer = world
        .path("store/layers")
        .join(layer.to_string().replace(':', "-"))
        .join("fs/app/one");
    fs::write(&file_of_layer, "grown").unwrap();
    fs::write(&file_of_layer, "grown too far").unwrap();
    let empty = world.path("out");
    fs::create_dir(&empty).unwrap();
    let out = file(&empty.join("x.tar"));
    for export in [
        Export::OciArchive {
            destination: out.clone(),
            options: ImageOptions::default(),
        },
        Export::DockerArchive {
            destination: out.clone(),
            options: ImageOptions::default(),
        },
        Export::Tar {
            destination: out.clone(),
            platform_split: None,
        },
    ] {
        let error = world
            .try_export(&world.image(vec![layer]), &[export])
            .unwrap_err();
        assert!(matches!(error, Error::WriteLayer(_)), "{error:?}");
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    }
    assert_eq!(
        fs::read_dir(world.path("store/blobs/sha256"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_full_disk_is_named() {
    let world = World::new();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let full = file(Path::new("/dev/full"));
    for export in [
        Export::OciArchive {
            destination: full.clone(),
            options: ImageOptions::default(),
        },
        Export::DockerArchive {
            destination: full.clone(),
            options: ImageOptions::default(),
        },
        Export::Tar {
            destination: full.clone(),
            platform_split: None,
        },
    ] {
        let error = world.try_export(&image, &[export]).unwrap_err();
        assert_eq!(error.to_string(), "could not write `/dev/full`");
    }
}

#[test]
fn bad_names_are_refused_before_anything_is_written() {
    let world = World::new();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let out = world.path("out");
    let exports = [
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
        Export::Image {
            options: ImageOptions::named(&["Not A Name"]),
        },
    ];
    assert!(matches!(
        world.try_export(&image, &exports).unwrap_err(),
        Error::Reference(_)
    ));
    let digest = format!("app@sha256:{}", "a".repeat(64));
    let exports = [
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
        Export::Image {
            options: ImageOptions::named(&[&digest]),
        },
    ];
    assert!(matches!(
        world.try_export(&image, &exports).unwrap_err(),
        Error::NameWithDigest { .. }
    ));
    assert!(!out.exists());
}

#[test]
fn owners_that_only_the_manifest_has_are_exported() {
    let world = World::with(true);
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let tar = world.path("x.tar");
    world.export(
        &image,
        Export::Tar {
            destination: file(&tar),
            platform_split: None,
        },
    );
    let bytes = fs::read(tar).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    for entry in archive.entries().unwrap() {
        assert_eq!(entry.unwrap().header().uid().unwrap(), 1000);
    }
}

#[test]
fn several_exports_and_none() {
    let world = World::new();
    let layout = world.path("layout");
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let exports = [
        Export::Image {
            options: ImageOptions::default(),
        },
        Export::OciDirectory {
            destination: layout.clone(),
            options: ImageOptions::named(&["two"]),
        },
        Export::CacheOnly,
    ];
    let exported = world.try_export(&image, &exports).unwrap();
    assert_eq!(
        exported.names,
        ["kiln.test/app:1", "docker.io/library/two:latest"]
    );
    assert_eq!(world.said.lock().unwrap().len(), 2);
    let nothing = world.export(&ImageToExport::default(), Export::CacheOnly);
    assert_eq!((nothing.image_id, nothing.manifest), (None, None));
}

#[test]
fn scratch_is_an_image_too() {
    let world = World::new();
    let image = ImageToExport {
        tags: vec!["empty".to_owned()],
        ..ImageToExport::default()
    };
    let out = world.path("x.tar");
    world.export(
        &image,
        Export::OciArchive {
            destination: file(&out),
            options: ImageOptions::default(),
        },
    );
    tool(
        "skopeo",
        &["inspect".as_ref(), &transport("oci-archive", &out)],
    );
    let config = config::plain();
    assert_eq!(
        (config.os.as_str(), config.architecture.is_empty()),
        ("linux", false)
    );
}

#[test]
fn exported_bytes_are_those_of_the_format() {
    // See docs/formats/image-export.md; the platform is fixed, so that every host agrees.
    let world = World::new();
    let mut image = world.image(vec![
        world.keep(&archive(APP), false),
        world.keep(&archive(&["app/.wh.two: "]), false),
    ]);
    let config = image.results[0].config.as_mut().unwrap();
    (config.architecture, config.variant) = ("amd64".to_owned(), String::new());
    image.source_date_epoch = Some(1_000_000_000);
    let out = world.path("x.tar");
    world.export(
        &image,
        Export::DockerArchive {
            destination: file(&out),
            options: ImageOptions::default(),
        },
    );
    let mut text = String::new();
    for (path, bytes) in files(&fs::read(&out).unwrap()) {
        text.push_str(&format!("{path} {}\n", bytes.len()));
        if let Ok(json) = String::from_utf8(bytes) {
            text.push_str(&json);
            text.push('\n');
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_a_directory_holds_gives_way_whatever_it_is() {
    let world = World::new();
    let out = world.path("out");
    fs::create_dir_all(out.join("app/one/deep")).unwrap();
    fs::write(out.join("app/one/deep/file"), "old").unwrap();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    world.export(
        &image,
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
    );
    assert_eq!(fs::read(out.join("app/one")).unwrap(), b"first");
    fs::set_permissions(out.join("app"), fs::Permissions::from_mode(0o555)).unwrap();
    world.export(
        &image,
        Export::Local {
            destination: out.clone(),
            platform_split: None,
        },
    );
    assert_eq!(
        fs::metadata(out.join("app")).unwrap().permissions().mode() & 0o777,
        0o750
    );
}
