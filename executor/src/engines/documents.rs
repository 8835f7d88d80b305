//! From a digest to a config, by documents whose digests are checked on the way.

use kiln_ir::Platform;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{CONFIG_LIMIT_BYTES, MANIFEST_LIMIT_BYTES, Manifest, Root};

use crate::error::Error;
use crate::images::oci_platform;

/// An index within an index within an index is deep enough.
const INDEX_DEPTH_LIMIT: usize = 3;

/// An image of one platform.
pub(super) struct Documents {
    pub(super) manifest_digest: Sha256Digest,
    pub(super) manifest: Manifest,
    pub(super) config: Vec<u8>,
}

/// Follows `root` to the image for a platform; none if some document is missing, or is not what its digest
/// says.
///
/// `read` returns the bytes that something keeps under a digest, at most so many.
pub(super) fn follow(
    root: Sha256Digest,
    platform: &Platform,
    shown: &str,
    read: impl Fn(&Sha256Digest, u64) -> Result<Option<Vec<u8>>, Error>,
) -> Result<Option<Documents>, Error> {
    let wanted = oci_platform(platform);
    let document = |what, source: kiln_oci::document::DocumentError| Error::Document {
        what,
        reference: shown.to_owned(),
        source: source.into(),
    };
    let verified = |digest: &Sha256Digest, limit| {
        let bytes = read(digest, limit)?;
        Ok::<_, Error>(bytes.filter(|bytes| Sha256Digest::of(bytes) == *digest))
    };
    let mut digest = root;
    for _ in 0..=INDEX_DEPTH_LIMIT {
        let Some(bytes) = verified(&digest, MANIFEST_LIMIT_BYTES)? else {
            return Ok(None);
        };
        match Root::from_slice("", &bytes).map_err(|error| document("manifest", error))? {
            Root::Manifest(manifest) => {
                let config = verified(&manifest.config.digest, CONFIG_LIMIT_BYTES)?;
                return Ok(config.map(|config| Documents {
                    manifest_digest: digest,
                    manifest,
                    config,
                }));
            }
            Root::Index(index) => match kiln_oci::platform::select(&index, &wanted) {
                Some(chosen) => digest = chosen.digest,
                None => {
                    return Err(Error::Platform {
                        reference: shown.to_owned(),
                        found: kiln_oci::platform::list(&index),
                        wanted: wanted.to_string(),
                    });
                }
            },
        }
    }
    Ok(None)
}
