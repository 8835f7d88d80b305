//! Docker archives: `manifest.json`, and configs and layers wherever that says.

use std::io::Read as _;

use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{CONFIG_LIMIT_BYTES, Descriptor, Manifest};
use kiln_oci::layout::{DockerImage, read_docker_manifest};
use kiln_oci::media_type::{Compression, Flavor};
use kiln_oci::reference::Reference;
use kiln_store::{ImageId, StoreError};

use super::bundle::{Bundle, Stored};
use super::image::{blobs, ready};
use super::{Found, LoadError};
use crate::error::Error;

/// Makes the images ready that `manifest.json` lists.
pub(super) fn load(bundle: &Bundle<'_>, manifest: &[u8]) -> Result<Vec<Found>, Error> {
    let images = read_docker_manifest(manifest)
        .map_err(|source| bundle.refused(LoadError::Layout { source }))?;
    images.iter().map(|image| one(bundle, image)).collect()
}

fn one(bundle: &Bundle<'_>, image: &DockerImage) -> Result<Found, Error> {
    let missing = |path: &str| {
        bundle.refused(LoadError::Missing {
            path: path.to_owned(),
        })
    };
    let config = bundle.document(&image.config, CONFIG_LIMIT_BYTES)?;
    let config = config.ok_or_else(|| missing(&image.config))?;
    let flavor = Flavor::Oci;
    let mut layers = Vec::with_capacity(image.layers.len());
    for path in &image.layers {
        let stored = bundle.file(path).ok_or_else(|| missing(path))?;
        let digest = Sha256Digest::from_bytes(stored.digest.0);
        let kind = flavor.layer(compression(bundle, stored)?);
        layers.push(Descriptor::new(kind, digest, stored.size));
    }
    let blobs = blobs(&layers);
    let config_descriptor = Descriptor::of(flavor.config(), &config);
    let id = ImageId(*config_descriptor.digest.as_bytes());
    // What is here already goes on as what it is here.
    let manifest = match bundle.store.peek_image(&id.to_string()) {
        Ok(known) => known.manifest,
        Err(StoreError::NoSuchImage { .. }) => {
            Manifest::new(flavor, config_descriptor, layers).to_bytes()
        }
        Err(error) => return Err(error.into()),
    };
    let ready = ready(bundle, manifest, config, &blobs)?;
    let tags = image.repo_tags.iter().flatten();
    Ok(Found {
        id: ready.id,
        manifest: ready.new.manifest.clone(),
        made_up: true,
        platforms: vec![ready.platform.clone()],
        names: tags.filter_map(|tag| Reference::parse(tag).ok()).collect(),
        left_out: Vec::new(),
        steps: ready.steps(),
    })
}

/// What a layer is compressed with, by its first bytes.
fn compression(bundle: &Bundle<'_>, stored: Stored) -> Result<Compression, Error> {
    let mut head = Vec::new();
    bundle
        .store
        .open_blob(&stored.digest)?
        .take(4)
        .read_to_end(&mut head)
        .map_err(Error::io("read a blob of", bundle.store.root()))?;
    match head[..] {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd] => Ok(Compression::Zstd),
        [b'B', b'Z', b'h', _] | [0xfd, b'7', b'z', b'X'] => {
            Err(bundle.refused(LoadError::Compression {
                layer: stored.digest.to_string(),
            }))
        }
        _ => Ok(Compression::None),
    }
}
