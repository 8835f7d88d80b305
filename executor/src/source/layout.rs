//! Images in OCI layout directories.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use kiln_ir::Platform;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{CONFIG_LIMIT_BYTES, Descriptor, MANIFEST_LIMIT_BYTES, Root};
use kiln_oci::layout::{LayoutError, Selector, check_version, read_index, select};
use kiln_oci::reference::Reference;

use super::fetch::blob_path;
use super::resolve::{Place, ResolvedImage, config, diff_ids, mismatch, short};
use crate::error::Error;

/// An index within an index within an index is deep enough.
const INDEX_DEPTH_LIMIT: usize = 3;

/// Finds an image in a layout by tag or digest, or the only one.
pub(super) fn resolve(
    directory: &Path,
    reference: Option<&str>,
    platform: &Platform,
) -> Result<ResolvedImage, Error> {
    let refused = |source: LayoutError| Error::Layout {
        path: directory.to_owned(),
        source,
    };
    check_version(&read(&directory.join("oci-layout"), MANIFEST_LIMIT_BYTES)?).map_err(refused)?;
    let index =
        read_index(&read(&directory.join("index.json"), MANIFEST_LIMIT_BYTES)?).map_err(refused)?;
    let name = match Reference::parse("layout") {
        Ok(name) => name,
        Err(error) => unreachable!("BUG: a plain name is no reference: {error}"),
    };
    let document = |what, source: Box<dyn std::error::Error + Send + Sync>| Error::Document {
        what,
        reference: directory.display().to_string(),
        source,
    };
    let wanted = kiln_oci::platform::Platform::parse(&platform.to_string())
        .map_err(|error| document("platform", error.into()))?;
    let selector = match reference {
        None => Selector::Only,
        Some(text) => match text.parse::<Sha256Digest>() {
            Ok(digest) => Selector::Digest(digest),
            Err(_) => Selector::Name(text),
        },
    };
    let mut chosen = select(&index, selector, &wanted).map_err(refused)?;
    let mut depth = 0;
    let (digest, manifest) = loop {
        let bytes = read_blob(directory, &chosen, MANIFEST_LIMIT_BYTES)?;
        match Root::from_slice(&chosen.media_type, &bytes)
            .map_err(|error| document("manifest", error.into()))?
        {
            Root::Manifest(manifest) => break (chosen.digest, manifest),
            Root::Index(index) => {
                let next = kiln_oci::platform::select(&index, &wanted)
                    .filter(|_| depth < INDEX_DEPTH_LIMIT);
                chosen = next.cloned().ok_or_else(|| Error::Platform {
                    reference: directory.display().to_string(),
                    found: kiln_oci::platform::list(&index),
                    wanted: wanted.to_string(),
                })?;
                depth += 1;
            }
        }
    };
    let bytes = read_blob(directory, &manifest.config, CONFIG_LIMIT_BYTES)?;
    let config = config(&bytes, &name)?;
    let diff_ids = diff_ids(&bytes, &name.familiar())?;
    if diff_ids.len() != manifest.layers.len() {
        return Err(mismatch(&name, diff_ids.len(), manifest.layers.len()));
    }
    Ok(ResolvedImage {
        config,
        label: format!("{}, in {}", short(&digest.to_string()), directory.display()),
        manifest_digest: digest.to_string(),
        diff_ids,
        blobs: manifest.layers,
        place: Place::Layout(directory.to_owned()),
    })
}

fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit_bytes {
        let source = std::io::Error::other(format!("it has more than {limit_bytes} bytes"));
        return Err(Error::io("read", path)(source));
    }
    Ok(bytes)
}

fn read_blob(directory: &Path, blob: &Descriptor, limit_bytes: u64) -> Result<Vec<u8>, Error> {
    let path = blob_path(directory, blob);
    let bytes = read(&path, limit_bytes)?;
    let found = Sha256Digest::of(&bytes);
    if found != blob.digest {
        return Err(Error::Layer {
            blob: blob.digest.to_string(),
            reference: directory.display().to_string(),
            reason: format!("its bytes are {found}"),
        });
    }
    Ok(bytes)
}
