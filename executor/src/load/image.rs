//! One image out of what was handed in: its layers are unpacked, and it is made ready to be kept.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_ir::ImageConfig;
use kiln_oci::document::{self, Descriptor};
use kiln_store::{BlobDigest, Content, DiffId, ImageId, NewImage};
use kiln_tree::stop::Stoppable;
use sha2::{Digest as _, Sha256};

use super::bundle::Bundle;
use super::{LoadError, Step};
use crate::archive;
use crate::error::Error;
use crate::export::time_of;
use crate::images::platform_of;
use crate::unpack::{Of, unpack};

/// Layers that are unpacked at once.
const AT_ONCE: usize = 4;

/// An image that the store has all of, and does not know yet.
pub(super) struct Ready {
    pub(super) id: ImageId,
    /// Such as `linux/amd64`.
    pub(super) platform: kiln_ir::Platform,
    pub(super) new: NewImage,
    /// The archives that its layers were unpacked from.
    pub(super) archives: Vec<(DiffId, BlobDigest)>,
}

impl Ready {
    /// What keeps it.
    pub(super) fn steps(self) -> Vec<Step> {
        let archives = self.archives.into_iter();
        let archives = archives.map(|(diff_id, blob)| Step::Archive(diff_id, blob));
        archives.chain([Step::Image(self.new)]).collect()
    }
}

/// Unpacks the layers, which are blobs of the store, and makes the image of them ready.
pub(super) fn ready(
    bundle: &Bundle<'_>,
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: &[BlobDigest],
) -> Result<Ready, Error> {
    let store = bundle.store;
    let parsed = document::ImageConfig::from_slice(&config)
        .map_err(|source| bundle.refused(LoadError::Document { source }))?;
    let text = ImageConfig::from_json(&config).map_err(|error| {
        bundle.refused(LoadError::Config {
            source: error.into(),
        })
    })?;
    let diff_ids: Vec<DiffId> = parsed
        .rootfs
        .diff_ids
        .iter()
        .map(|digest| DiffId(*digest.as_bytes()))
        .collect();
    if diff_ids.len() != layers.len() {
        return Err(bundle.refused(LoadError::Layers {
            config: diff_ids.len(),
            listed: layers.len(),
        }));
    }
    let archives = unpack_all(bundle, &diff_ids, layers)?;
    let contents = Content::of_image(&diff_ids);
    let mut size_bytes = 0;
    for content in &contents {
        size_bytes += store.layer(content)?.map_or(0, |layer| layer.size_bytes);
    }
    let id = ImageId(Sha256::digest(&config).into());
    let new = NewImage {
        id,
        manifest,
        config,
        layers: contents,
        size_bytes,
        created: time_of(text.created.as_deref()),
    };
    Ok(Ready {
        id,
        platform: platform_of(&text),
        new,
        archives,
    })
}

/// Unpacks several layers at once, and returns what from; the first error ends it.
fn unpack_all(
    bundle: &Bundle<'_>,
    diff_ids: &[DiffId],
    layers: &[BlobDigest],
) -> Result<Vec<(DiffId, BlobDigest)>, Error> {
    let mut work: Vec<(DiffId, BlobDigest)> = Vec::new();
    for (diff_id, blob) in diff_ids.iter().zip(layers) {
        // A layer that is there twice is unpacked once, and both of its blobs are looked at.
        if !work.contains(&(*diff_id, *blob)) {
            work.push((*diff_id, *blob));
        }
    }
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(work.len()) {
            scope.spawn(|| {
                while failed().is_none()
                    && let Some((diff_id, blob)) = work.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(error) = one(bundle, *diff_id, *blob) {
                        failed().get_or_insert(error);
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(_) if bundle.stop.is_set() => Err(Error::Cancelled),
        Some(error) => Err(error),
        None => Ok(work),
    }
}

fn one(bundle: &Bundle<'_>, diff_id: DiffId, blob: BlobDigest) -> Result<(), Error> {
    let Bundle { store, lease, .. } = bundle;
    let of = Of {
        blob: blob.to_string(),
        reference: bundle.name.clone(),
    };
    let archive = Stoppable::new(store.open_blob(&blob)?, bundle.stop);
    let content = Content::DiffId(diff_id);
    if store.lease_layers(lease, &[content])?.is_empty() {
        // The files are here; whether these are their bytes has to be seen all the same.
        verify(archive, diff_id, &of)?;
    } else {
        unpack(store, lease, archive, Some(diff_id), &of)?;
    }
    Ok(())
}

fn verify(archive: impl Read + Send + 'static, expected: DiffId, of: &Of) -> Result<(), Error> {
    let refused = |reason: String| Error::Layer {
        blob: of.blob.clone(),
        reference: of.reference.clone(),
        reason,
    };
    let read = || -> io::Result<DiffId> {
        let mut reader = archive::decompress(archive)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(DiffId(hash.finalize().into())),
                count => hash.update(&buffer[..count]),
            }
        }
    };
    let found = read().map_err(|error| refused(error.to_string()))?;
    match found == expected {
        true => Ok(()),
        false => Err(refused(format!(
            "its content is {found}, and the image's config says {expected}"
        ))),
    }
}

/// The blobs of a manifest's layers.
pub(super) fn blobs(layers: &[Descriptor]) -> Vec<BlobDigest> {
    layers
        .iter()
        .map(|layer| BlobDigest(*layer.digest.as_bytes()))
        .collect()
}
