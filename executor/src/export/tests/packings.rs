//! Layers packed in every way, those of base images too.

use std::io::Write;

use super::*;

/// The media types and the digests of layers of an OCI archive with these options, and what they hold.
fn exported(
    world: &World,
    image: &ImageToExport,
    packing: LayerCompression,
) -> Vec<(String, String, Vec<u8>)> {
    let out = world.path("x.tar");
    let exported = world.export(
        image,
        Export::OciArchive {
            destination: file(&out),
            options: ImageOptions {
                packing: Some(packing),
                ..ImageOptions::default()
            },
        },
    );
    let files = files(&fs::read(&out).unwrap());
    let blob = |digest: &str| {
        let hex = &digest["sha256:".len()..];
        files[&format!("blobs/sha256/{hex}")].clone()
    };
    let manifest = Manifest::from_slice(&blob(exported.manifest_digest().unwrap())).unwrap();
    let layer = |layer: &Descriptor| {
        let digest = layer.digest.to_string();
        let mut tar = Vec::new();
        crate::archive::decompress(std::io::Cursor::new(blob(&digest)))
            .unwrap()
            .read_to_end(&mut tar)
            .unwrap();
        (layer.media_type.clone(), digest, tar)
    };
    manifest.layers.iter().map(layer).collect()
}

#[test]
fn a_base_is_packed_anew_only_by_force() {
    let world = World::new();
    let (base, blob) = pulled(&world);
    let image = world.image(vec![base, world.keep(&archive(APP), false)]);
    let zstd = LayerCompression::from(Compression::Zstd);
    let kept = exported(&world, &image, zstd);
    assert_eq!(kept[0].0, Flavor::Oci.layer(Compression::Gzip));
    assert_eq!(kept[0].1, format!("sha256:{}", blob.hex()));
    assert_eq!(kept[1].0, Flavor::Oci.layer(Compression::Zstd));
    for compression in [Compression::Zstd, Compression::None] {
        let force = LayerCompression {
            force: true,
            ..compression.into()
        };
        let forced = exported(&world, &image, force);
        for layer in &forced {
            assert_eq!(layer.0, Flavor::Oci.layer(compression));
        }
        // The archive is the very one that was pulled, so that its diff id holds.
        assert!(forced[0].2 == foreign());
        // And it is made once: what it was made of may change, and nobody looks.
        let path = world.path("store/blobs/sha256").join(blob.hex());
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, [&bytes[..4], &vec![0; bytes.len() - 4]].concat()).unwrap();
        assert!(exported(&world, &image, force) == forced);
        fs::write(&path, bytes).unwrap();
    }
    let same = LayerCompression {
        force: true,
        level: Some(1),
        ..Compression::Gzip.into()
    };
    assert_eq!(exported(&world, &image, same)[0].1, kept[0].1);
}

#[test]
fn a_base_that_is_damaged_is_not_packed_anew() {
    let world = World::new();
    let (base, blob) = pulled(&world);
    let image = world.image(vec![base]);
    let path = world.path("store/blobs/sha256").join(blob.hex());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"another").unwrap();
    fs::write(&path, gzip.finish().unwrap()).unwrap();
    let options = ImageOptions {
        packing: Some(LayerCompression {
            force: true,
            ..Compression::Zstd.into()
        }),
        ..ImageOptions::default()
    };
    let destination = file(&world.path("x.tar"));
    let export = Export::OciArchive {
        destination,
        options,
    };
    let error = world.try_export(&image, &[export]).unwrap_err();
    assert!(matches!(error, Error::DamagedLayer { .. }), "{error:?}");
}

#[test]
fn levels_make_other_blobs_of_one_image() {
    let world = World::new();
    let text = format!("app/text: {}", "some words that repeat ".repeat(5000));
    let image = world.image(vec![world.keep(&archive(&["app/", &text]), false)]);
    let level = |level| {
        let packing = LayerCompression {
            level: Some(level),
            ..LayerCompression::default()
        };
        exported(&world, &image, packing).remove(0)
    };
    let (none, best) = (level(0), level(9));
    assert_ne!(none.1, best.1);
    assert!(none.2 == best.2);
    let options = ImageOptions {
        packing: Some(LayerCompression {
            level: Some(10),
            ..LayerCompression::default()
        }),
        ..ImageOptions::default()
    };
    let error = world
        .try_export(&image, &[Export::Image { options }])
        .unwrap_err();
    assert_eq!(error.to_string(), "gzip has no level 10");
    assert_eq!(error.hint().unwrap(), "it has levels 0 to 9");
}

#[test]
fn what_is_kept_packed_says_so() {
    let world = World::new();
    let image = world.image(vec![world.keep(&archive(APP), false)]);
    let options = ImageOptions {
        packing: Some(Compression::Zstd.into()),
        ..ImageOptions::default()
    };
    let kept = world.export(
        &image,
        Export::Image {
            options: options.clone(),
        },
    );
    let archive = world.export(
        &image,
        Export::OciArchive {
            destination: file(&world.path("x.tar")),
            options,
        },
    );
    assert_eq!(kept.manifest_digest(), archive.manifest_digest());
}
