//! OCI layouts: manifests and indexes by digest, with what hangs on them.

use std::collections::BTreeMap;

use kiln_ir::Platform;
use kiln_oci::document::{
    CONFIG_LIMIT_BYTES, Descriptor, Index, MANIFEST_LIMIT_BYTES, Manifest, Root, annotation,
};
use kiln_oci::layout::read_index;
use kiln_oci::media_type;
use kiln_oci::reference::Reference;
use kiln_store::{BlobDigest, ImageId, Member, NewIndex};
use sha2::{Digest as _, Sha256};

use super::bundle::Bundle;
use super::image::{Ready, blobs, ready};
use super::{Found, LoadError, Step};
use crate::error::Error;
use crate::images::oci_platform;

/// No layout lists more.
const MOST_IMAGES: usize = 10_000;
/// An index within an index within an index is deep enough.
const INDEX_DEPTH_LIMIT: usize = 3;

/// Makes the images ready that `index.json` lists; of those for several platforms, with `wanted`, the one
/// for that.
pub(super) fn load(
    bundle: &Bundle<'_>,
    index: &[u8],
    wanted: Option<&Platform>,
) -> Result<Vec<Found>, Error> {
    let index = read_index(index).map_err(|source| bundle.refused(LoadError::Layout { source }))?;
    if index.manifests.len() > MOST_IMAGES {
        return Err(bundle.refused(LoadError::TooMany { limit: MOST_IMAGES }));
    }
    let mut roots: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
    for entry in index.manifests {
        if entry.is_attestation() {
            continue;
        }
        let name = name(&entry);
        match roots
            .iter_mut()
            .find(|(root, _)| root.digest == entry.digest)
        {
            Some((_, names)) => names.extend(name),
            None => roots.push((entry, name.into_iter().collect())),
        }
    }
    let mut found: Vec<Found> = Vec::new();
    let mut excluded = false;
    for (root, names) in roots {
        let bytes = bundle.blob_bytes(&root, MANIFEST_LIMIT_BYTES)?;
        let bytes = bytes.ok_or_else(|| missing(bundle, &root))?;
        let kept = match parse(bundle, &root, &bytes)? {
            Root::Manifest(manifest) => match image(bundle, &manifest, bytes)? {
                // What is no image may lie beside images, such as what refers to one.
                None => continue,
                Some(ready) => Found {
                    id: ready.id,
                    manifest: ready.new.manifest.clone(),
                    made_up: false,
                    platforms: vec![ready.platform.clone()],
                    names: Vec::new(),
                    left_out: Vec::new(),
                    steps: ready.steps(),
                },
            },
            Root::Index(index) => of_index(bundle, &index, &bytes, wanted)?,
        };
        // A layout that lists the platforms of one image itself is filtered like an index.
        if let Some(wanted) = wanted
            && !kept.platforms.iter().any(|has| fits(wanted, has))
        {
            excluded = true;
            continue;
        }
        found.push(Found { names, ..kept });
    }
    if found.is_empty()
        && excluded
        && let Some(wanted) = wanted
    {
        return Err(bundle.refused(LoadError::NoPlatform {
            wanted: wanted.to_string(),
        }));
    }
    Ok(found)
}

fn fits(wanted: &Platform, has: &Platform) -> bool {
    oci_platform(wanted).accepts(&oci_platform(has))
}

/// The name that an entry has, if it is more than a tag.
fn name(entry: &Descriptor) -> Option<Reference> {
    let given = |key| entry.annotations.get(key).map(String::as_str);
    let full = given(annotation::CONTAINERD_NAME).and_then(|name| Reference::parse(name).ok());
    full.or_else(|| {
        let name = given(annotation::REF_NAME)?;
        let is_name = name.contains(['/', ':']);
        is_name.then(|| Reference::parse(name).ok()).flatten()
    })
}

fn parse(bundle: &Bundle<'_>, descriptor: &Descriptor, bytes: &[u8]) -> Result<Root, Error> {
    Root::from_slice(&descriptor.media_type, bytes)
        .map_err(|source| bundle.refused(LoadError::Document { source }))
}

fn missing(bundle: &Bundle<'_>, blob: &Descriptor) -> Error {
    bundle.refused(LoadError::Missing {
        path: kiln_oci::layout::blob_path(&blob.digest),
    })
}

/// Makes the image of a manifest ready; nothing if it is of something else than an image.
fn image(bundle: &Bundle<'_>, manifest: &Manifest, bytes: Vec<u8>) -> Result<Option<Ready>, Error> {
    if !media_type::is_config(&manifest.config.media_type) {
        return Ok(None);
    }
    for layer in &manifest.layers {
        if !bundle.keep_blob(layer)? {
            return Err(missing(bundle, layer));
        }
    }
    let config = bundle.blob_bytes(&manifest.config, CONFIG_LIMIT_BYTES)?;
    let config = config.ok_or_else(|| missing(bundle, &manifest.config))?;
    ready(bundle, bytes, config, &blobs(&manifest.layers)).map(Some)
}

/// What an index leads to.
#[derive(Default)]
struct Members {
    ready: Vec<(Descriptor, Ready)>,
    /// Platforms whose content is not there, as in archives of one platform out of many.
    left_out: Vec<String>,
    /// What is no image but belongs to them: attestations.
    attached: Vec<(Descriptor, Vec<BlobDigest>)>,
    /// Documents and layers, and indexes within the index.
    manifests: Vec<BlobDigest>,
}

fn of_index(
    bundle: &Bundle<'_>,
    index: &Index,
    bytes: &[u8],
    wanted: Option<&Platform>,
) -> Result<Found, Error> {
    let mut members = Members::default();
    collect(bundle, index, wanted, 0, &mut members)?;
    if members.ready.is_empty() {
        return Err(bundle.refused(LoadError::NoPlatform {
            wanted: wanted.map_or_else(|| "any platform".to_owned(), ToString::to_string),
        }));
    }
    let platforms = members.ready.iter();
    let platforms = platforms.map(|(_, ready)| ready.platform.clone()).collect();
    let found = |id: ImageId, manifest, left_out: Vec<String>, steps: Vec<Step>| Found {
        id,
        manifest,
        made_up: false,
        platforms,
        names: Vec::new(),
        left_out,
        steps,
    };
    let whole = members.left_out.is_empty();
    if members.ready.len() == 1
        && (!whole || wanted.is_some())
        && let Some((_, only)) = members.ready.pop()
    {
        let manifest = only.new.manifest.clone();
        return Ok(found(only.id, manifest, members.left_out, only.steps()));
    }
    // What is there is listed as it was; what is not there is not.
    let bytes = match whole {
        true => bytes.to_vec(),
        false => {
            let there = |entry: &Descriptor| {
                let digest = &entry.digest;
                members
                    .ready
                    .iter()
                    .any(|(entry, _)| entry.digest == *digest)
                    || members
                        .attached
                        .iter()
                        .any(|(kept, _)| kept.digest == *digest)
            };
            let manifests = index.manifests.iter().filter(|entry| there(entry));
            Index {
                manifests: manifests.cloned().collect(),
                ..index.clone()
            }
            .to_bytes()
        }
    };
    let id = ImageId(Sha256::digest(&bytes).into());
    let mut by_id: BTreeMap<ImageId, ()> = BTreeMap::new();
    let listed = members
        .ready
        .iter()
        .filter(|(_, ready)| by_id.insert(ready.id, ()).is_none())
        .map(|(entry, ready)| Member {
            platform: match &entry.platform {
                Some(platform) => platform.to_string(),
                None => ready.platform.to_string(),
            },
            id: ready.id,
            manifest: ready.new.manifest.clone(),
        })
        .collect();
    let new = NewIndex {
        id,
        index: bytes.clone(),
        members: listed,
    };
    let attached = members.attached.iter().flat_map(|(_, blobs)| blobs.clone());
    let attached: Vec<BlobDigest> = attached.chain(members.manifests.iter().copied()).collect();
    let ready = members.ready.into_iter();
    let mut steps: Vec<Step> = ready.flat_map(|(_, ready)| ready.steps()).collect();
    steps.extend([Step::Index(new), Step::Blobs(id, attached)]);
    Ok(found(id, bytes, members.left_out, steps))
}

fn collect(
    bundle: &Bundle<'_>,
    index: &Index,
    wanted: Option<&Platform>,
    depth: usize,
    members: &mut Members,
) -> Result<(), Error> {
    for entry in &index.manifests {
        let is_attestation = entry.is_attestation();
        let stated = entry.platform.as_ref();
        if let (Some(wanted), Some(stated)) = (wanted, stated)
            && !is_attestation
            && !oci_platform(wanted).accepts(stated)
        {
            continue;
        }
        let Some(bytes) = bundle.blob_bytes(entry, MANIFEST_LIMIT_BYTES)? else {
            if !is_attestation {
                let shown = stated.map_or_else(|| entry.digest.to_string(), ToString::to_string);
                members.left_out.push(shown);
            }
            continue;
        };
        match parse(bundle, entry, &bytes)? {
            Root::Index(_) if depth >= INDEX_DEPTH_LIMIT || is_attestation => {
                return Err(bundle.refused(LoadError::Deep));
            }
            Root::Index(inner) => {
                bundle.keep_blob(entry)?;
                members.manifests.push(BlobDigest(*entry.digest.as_bytes()));
                collect(bundle, &inner, wanted, depth + 1, members)?;
            }
            Root::Manifest(manifest) => {
                let is_image =
                    !is_attestation && media_type::is_config(&manifest.config.media_type);
                if is_image && is_there(bundle, &manifest)? {
                    if let Some(ready) = image(bundle, &manifest, bytes)?
                        && wanted.is_none_or(|wanted| fits(wanted, &ready.platform))
                    {
                        // The store may know the image by another manifest.
                        bundle.keep_blob(entry)?;
                        members.manifests.push(BlobDigest(*entry.digest.as_bytes()));
                        members.manifests.extend(blobs(&manifest.layers));
                        members.ready.push((entry.clone(), ready));
                    }
                } else if is_image {
                    let shown =
                        stated.map_or_else(|| entry.digest.to_string(), ToString::to_string);
                    members.left_out.push(shown);
                } else {
                    attach(bundle, entry, &manifest, members)?;
                }
            }
        }
    }
    Ok(())
}

/// Whether anything of an image but its manifest is there.
fn is_there(bundle: &Bundle<'_>, manifest: &Manifest) -> Result<bool, Error> {
    bundle.keep_blob(&manifest.config)
}

/// Keeps what is no image: its manifest and all that this lists, if all of it is there.
fn attach(
    bundle: &Bundle<'_>,
    entry: &Descriptor,
    manifest: &Manifest,
    members: &mut Members,
) -> Result<(), Error> {
    let mut digests = Vec::new();
    for blob in [entry, &manifest.config]
        .into_iter()
        .chain(&manifest.layers)
    {
        if !bundle.keep_blob(blob)? {
            return Ok(());
        }
        digests.push(BlobDigest(*blob.digest.as_bytes()));
    }
    members.attached.push((entry.clone(), digests));
    Ok(())
}
