//! Layers on top of others, layers that others packed, and exports that are given up.

use super::*;
use crate::source::{Place, ResolvedImage, fetch_archive};

/// How an archive of a layout's highest layer dresses `etc/`: mode and owner.
fn etc_of_top(world: &World, image: &ImageToExport) -> (u32, u64) {
    let out = world.path("x.tar");
    let export = Export::OciArchive {
        destination: file(&out),
        options: ImageOptions::default(),
    };
    let exported = world.export(image, export);
    let files = files(&fs::read(&out).unwrap());
    let blob = |digest: &str| &files[&format!("blobs/sha256/{}", &digest["sha256:".len()..])];
    let manifest = Manifest::from_slice(blob(exported.manifest_digest().unwrap())).unwrap();
    let top = blob(&manifest.layers.last().unwrap().digest.to_string());
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(&top[..]));
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let etc = entries
        .find(|entry| *entry.path_bytes() == *b"etc/")
        .unwrap();
    (etc.header().mode().unwrap(), etc.header().uid().unwrap())
}

#[test]
fn directories_that_a_layer_passes_through_stay_as_they_are() {
    let world = World::new();
    let (store, lease) = (world.executor.store(), world.worker.lease());
    let base = world.keep(&archive(&["etc/", "etc/a: 1"]), false);
    // As `COPY --link` makes it: it knows nothing of what it will lie on.
    let link = world.keep(&archive(&["etc/b: 2"]), false);
    for epoch in [None, Some(1_000_000_000)] {
        let image = |layers: &[Content]| ImageToExport {
            source_date_epoch: epoch,
            ..world.image(layers.to_vec())
        };
        let stacked = image(&[base, link]);
        assert_eq!(etc_of_top(&world, &stacked), (0o750, 1000));
        assert_eq!(etc_of_top(&world, &image(&[link])), (0o755, 0));
        assert_eq!(etc_of_top(&world, &stacked), (0o750, 1000));

        // The store says the same image, with sizes that are those of the archives.
        world.export(
            &stacked,
            Export::Image {
                options: ImageOptions::default(),
            },
        );
        let image = store.resolve_image(lease, "kiln.test/app:1").unwrap();
        let manifest = Manifest::from_slice(&image.manifest).unwrap();
        let mtime = epoch.map_or(MtimePolicy::Keep, MtimePolicy::Fixed);
        let of_image = layers::describe(store, &[base, link], mtime, &Stop::NEVER).unwrap();
        for (index, (descriptor, layer)) in manifest.layers.iter().zip(&of_image).enumerate() {
            assert_eq!(descriptor.digest.to_string(), layer.diff_id.to_string());
            let stack = &[base, link][..=index];
            let archive = LayerArchive::of(store, stack, mtime).unwrap();
            let mut bytes = Vec::new();
            archive.write(store, &mut bytes).unwrap();
            assert_eq!(descriptor.size, bytes.len() as u64);
            crate::combine::clone_layer(store, lease, stack, layer.diff_id).unwrap();
        }
        // As the base of another build it goes out as it did here.
        let again = of_image.iter().map(|layer| Content::DiffId(layer.diff_id));
        let again = world.image(again.collect());
        assert_eq!(etc_of_top(&world, &again), (0o750, 1000));
    }
}

/// Images that name no blobs, as those of engines.
struct Unnamed<'a>(&'a dyn Fn(DiffId) -> Result<bool, Error>);

impl Bases for Unnamed<'_> {
    fn blob(&self, _: &[Content]) -> Option<Descriptor> {
        None
    }

    fn has_archive(&self, _: &Descriptor) -> Result<bool, Error> {
        panic!("nothing is named")
    }

    fn leave(&self, _: &Descriptor) -> Result<bool, Error> {
        panic!("nothing is named")
    }

    fn bring(&self, _: &Descriptor) -> Result<(), Error> {
        panic!("nothing is named")
    }

    fn bring_archive(&self, layer: DiffId) -> Result<bool, Error> {
        self.0(layer)
    }

    fn warn(&self, line: String) {
        panic!("{line}")
    }
}

#[test]
fn a_foreign_layer_is_brought_again_from_where_its_image_is() {
    use std::io::Write;
    let world = World::new();
    let (store, lease) = (world.executor.store(), world.worker.lease());
    let layer = world.keep(&foreign(), true);
    let Content::DiffId(diff_id) = layer else {
        panic!("it was kept as pulled")
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&foreign()).unwrap();
    let blob = gzip.finish().unwrap();
    let descriptor = Descriptor::of(Flavor::Oci.layer(Compression::Gzip), &blob);
    let directory = world.path("layout");
    fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    let path = directory.join("blobs/sha256").join(descriptor.digest.hex());
    fs::write(path, &blob).unwrap();
    let image = ResolvedImage {
        config: ImageConfig::default(),
        manifest_digest: String::new(),
        label: String::new(),
        diff_ids: vec![diff_id],
        blobs: vec![descriptor.clone()],
        place: Place::Layout(directory),
    };
    assert!(image.can_bring(diff_id, true));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pack = |bring: &dyn Fn(DiffId) -> Result<bool, Error>| {
        let bases = Unnamed(bring);
        let packer = Packer {
            store,
            lease,
            mtime: MtimePolicy::Keep,
            packing: Compression::Zstd.into(),
            stop: &Stop::NEVER,
            bases: &bases,
        };
        packer.pack(&[layer])
    };
    let refused = pack(&|_| Ok(false)).unwrap_err();
    assert!(matches!(refused, Error::ForeignLayer { .. }), "{refused:?}");
    let bring = |layer| {
        let bring = fetch_archive(&world.executor, lease, &image, layer, &Stop::NEVER);
        runtime.block_on(bring)
    };
    // It goes out as it came, twice with one transfer.
    for bring in [&bring as &dyn Fn(DiffId) -> _, &|_| panic!("it is here")] {
        let packed = pack(bring).unwrap();
        let found = packed[0].blob.unwrap();
        assert_eq!(found.digest.0, *descriptor.digest.as_bytes());
        assert_eq!(found.compression, Compression::Gzip);
    }
}

#[test]
fn an_export_that_is_cancelled_leaves_nothing() {
    let world = World::new();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let cancel = kiln_solver::Cancel::new();
    cancel.cancel();
    let resolver = Arc::new(Resolver::new(&world.executor));
    let worker =
        BuildWorker::new(&world.executor, resolver, Locals::default()).with_cancel(&cancel);
    let (out, layout, tree) = (
        world.path("x.tar"),
        world.path("layout"),
        world.path("tree"),
    );
    fs::write(&out, "old").unwrap();
    let options = ImageOptions::default();
    for export in [
        Export::OciArchive {
            destination: file(&out),
            options: options.clone(),
        },
        Export::DockerArchive {
            destination: file(&out),
            options: options.clone(),
        },
        Export::OciDirectory {
            destination: layout.clone(),
            options: options.clone(),
        },
        Export::Tar {
            destination: file(&out),
            platform_split: None,
        },
        Export::Local {
            destination: tree.clone(),
            platform_split: None,
        },
        Export::Image { options },
    ] {
        let done = world.executor.export(&worker, &image, &[export], &drop);
        assert!(matches!(done, Err(Error::Cancelled)), "{done:?}");
    }
    assert_eq!(fs::read(&out).unwrap(), b"old");
    assert!(!layout.exists());
    assert_eq!(fs::read_dir(tree).unwrap().count(), 0);
    let blobs = fs::read_dir(world.path("store/blobs/sha256")).unwrap();
    assert_eq!(blobs.count(), 0);
}
