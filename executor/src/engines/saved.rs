//! The archive that `docker save` writes, read as it comes: layers into the store, the config for the caller.
//!
//! Engines up to version 24 name layers `ID/layer.tar` after ids of their own, later ones
//! `blobs/sha256/DIGEST`. Either way the list of what is what comes last, so that nothing is believed of
//! a name: a layer is what it hashes to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use kiln_ir::Platform;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{CONFIG_LIMIT_BYTES, ImageConfig};
use kiln_store::{Content, DiffId, Lease};
use tar::EntryType;
use tokio::sync::mpsc;

use super::{Engine, diff_id, documents, keep_archive};
use crate::error::Error;
use crate::executor::Executor;
use crate::source::Pieces;
use crate::unpack::Of;

/// Documents of an archive: configs, manifests, what old versions need, and a name for each tag.
const MOST_DOCUMENTS: usize = 4096;
const MOST_DOCUMENT_BYTES: u64 = 64 << 20;
/// Entries of an archive.
const MOST_ENTRIES: usize = 100_000;
/// A layer is passed on in pieces of this size, of which so many wait.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 8;

/// What is wanted of an archive.
pub(super) struct Wanted {
    /// The image as the engine knows it: the digest of its config, or of its manifest.
    pub(super) id: Sha256Digest,
    pub(super) diff_ids: Arc<[DiffId]>,
    /// Those that are to be taken.
    pub(super) missing: Vec<Content>,
    /// For which the image is, if it is for several.
    pub(super) platform: Platform,
    pub(super) shown: String,
}

impl Wanted {
    fn refused(&self, reason: impl Into<String>) -> Error {
        Error::Engine {
            engine: Engine::Docker,
            attempt: format!("take `{}`", self.shown),
            reason: reason.into().chars().take(200).collect(),
        }
    }
}

/// Takes what is wanted into the store, leased, and returns the config; reads no further than it must.
pub(super) fn read(
    executor: &Executor,
    lease: &Lease,
    archive: impl Read,
    wanted: &Wanted,
) -> Result<Vec<u8>, Error> {
    let unreadable = |error: std::io::Error| wanted.refused(error.to_string());
    let mut archive = tar::Archive::new(archive);
    let mut missing: BTreeSet<DiffId> = BTreeSet::new();
    for content in &wanted.missing {
        if let Content::DiffId(id) = content {
            missing.insert(*id);
        }
    }
    let mut documents: BTreeMap<Sha256Digest, Vec<u8>> = BTreeMap::new();
    let mut document_bytes = 0;
    let entries = archive.entries().map_err(unreadable)?;
    for (count, entry) in entries.enumerate() {
        let mut entry = entry.map_err(unreadable)?;
        if count > MOST_ENTRIES {
            return Err(wanted.refused("its archive has too many entries"));
        }
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let named = named_digest(&path);
        if let Some(id) = named.map(|digest| diff_id(&digest))
            && wanted.diff_ids.contains(&id)
            && !missing.contains(&id)
        {
            continue;
        }
        let mut head = [0; 1];
        let is_document = entry.size() <= CONFIG_LIMIT_BYTES
            && entry.read(&mut head).map_err(unreadable)? == 1
            && head[0] == b'{';
        if is_document {
            let mut bytes = head.to_vec();
            entry.read_to_end(&mut bytes).map_err(unreadable)?;
            document_bytes += bytes.len() as u64;
            if documents.len() >= MOST_DOCUMENTS || document_bytes > MOST_DOCUMENT_BYTES {
                return Err(wanted.refused("its archive has too many documents"));
            }
            documents.insert(Sha256Digest::of(&bytes), bytes);
        } else if (path.ends_with("/layer.tar") || named.is_some()) && !missing.is_empty() {
            let begun = match entry.size() <= CONFIG_LIMIT_BYTES {
                true => &head[..],
                false => &[],
            };
            let layer = take(executor, lease, begun, &mut entry, &path, wanted)?;
            missing.remove(&layer);
        }
        if missing.is_empty()
            && let Some(config) = config(&documents, wanted)?
        {
            return Ok(config);
        }
    }
    match (missing.first(), config(&documents, wanted)?) {
        (None, Some(config)) => Ok(config),
        (Some(layer), _) => Err(wanted.refused(format!("its archive lacks the layer {layer}"))),
        (None, None) => {
            Err(wanted.refused(format!("its archive lacks what its id {} is of", wanted.id)))
        }
    }
}

/// The digest that a file is called after.
fn named_digest(path: &str) -> Option<Sha256Digest> {
    let hex = path.strip_prefix("blobs/sha256/")?;
    Sha256Digest::from_hex(hex).ok()
}

/// The config, if what leads to it has come.
fn config(
    documents: &BTreeMap<Sha256Digest, Vec<u8>>,
    wanted: &Wanted,
) -> Result<Option<Vec<u8>>, Error> {
    let lists = |config: &[u8]| {
        ImageConfig::from_slice(config).is_ok_and(|config| {
            let found = config.rootfs.diff_ids.iter().map(diff_id);
            found.eq(wanted.diff_ids.iter().copied())
        })
    };
    let Some(root) = documents.get(&wanted.id) else {
        return Ok(None);
    };
    if lists(root) {
        return Ok(Some(root.clone()));
    }
    // Engines with another store call an image after its manifest, or its index.
    let read = |digest: &Sha256Digest, _| Ok(documents.get(digest).cloned());
    let found = documents::follow(wanted.id, &wanted.platform, &wanted.shown, read)?;
    let config = found.map(|found| found.config);
    Ok(config.filter(|config| lists(config)))
}

/// Takes one layer while it comes; returns what it is.
fn take(
    executor: &Executor,
    lease: &Lease,
    begun: &[u8],
    entry: &mut impl Read,
    path: &str,
    wanted: &Wanted,
) -> Result<DiffId, Error> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let of = Of {
        blob: path.to_owned(),
        reference: wanted.shown.clone(),
    };
    let keeping = {
        let (executor, lease) = (executor.clone(), lease.clone());
        std::thread::spawn(move || keep_archive(&executor, &lease, Pieces::new(receiver), None, of))
    };
    let mut piece = begun.to_vec();
    let fed = loop {
        if !piece.is_empty() && sender.blocking_send(Ok(Bytes::from(piece))).is_err() {
            break Ok(());
        }
        piece = vec![0; PIECE_BYTES];
        match entry.read(&mut piece) {
            Ok(0) => break Ok(()),
            Ok(count) => piece.truncate(count),
            Err(error) => {
                let cut = std::io::Error::other("the transfer failed");
                let _ = sender.blocking_send(Err(cut));
                break Err(wanted.refused(error.to_string()));
            }
        }
    };
    drop(sender);
    let kept = match keeping.join() {
        Ok(kept) => kept,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    fed?;
    kept
}
