//! Image layers into the store: decompressed, checked against their diff id, applied.

use std::io::{self, Read};

use kiln_store::{Content, DiffId, Lease, Store, StoreError};
use kiln_tree::tar::{ApplyError, ApplyOptions, apply};
use sha2::{Digest, Sha256};

use crate::archive;
use crate::error::Error;

/// Passes bytes on and hashes them.
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Hashing<R> {
        Hashing {
            inner,
            hash: Sha256::new(),
        }
    }

    /// Reads on to the end: what follows the end of an archive belongs to it too.
    pub(crate) fn finish(mut self) -> io::Result<[u8; 32]> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hash.finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Whether something failed for want of space.
pub(crate) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        })
}

/// The error of a layer that did not fit onto the disk of the store.
pub(crate) fn unpacked_on_full(store: &Store) -> Error {
    Error::Store(StoreError::Full {
        action: "unpack a layer into",
        path: store.root().to_owned(),
    })
}

/// Who a layer belongs to, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Of {
    pub(crate) blob: String,
    pub(crate) reference: String,
}

/// Unpacks a layer from its (perhaps compressed) archive and keeps it under its diff id.
///
/// `expected` is checked; without it the layer is kept under whatever its archive hashes to.
pub(crate) fn unpack(
    store: &Store,
    lease: &Lease,
    archive: impl Read + Send + 'static,
    expected: Option<DiffId>,
    of: &Of,
) -> Result<DiffId, Error> {
    let refused = |source| match is_full(&source) {
        true => unpacked_on_full(store),
        false => Error::Unpack {
            blob: of.blob.clone(),
            reference: of.reference.clone(),
            source,
        },
    };
    let unreadable = |source| {
        refused(ApplyError::Archive {
            after: String::new(),
            source,
        })
    };
    let draft = store.begin_layer()?;
    let options = store.options();
    // The archive's end is told by its digest; some writers leave out the empty blocks.
    let limits = ApplyOptions {
        require_end: expected.is_none(),
        ..ApplyOptions::new(options.ownership.clone(), options.overlay_xattrs)
    };
    let inner = archive::decompress(archive).map_err(unreadable)?;
    let mut reader = Hashing::new(inner);
    let applied = apply(&mut reader, draft.fs(), &limits).map_err(refused)?;
    let found = DiffId(reader.finish().map_err(unreadable)?);
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(Error::Layer {
            blob: of.blob.clone(),
            reference: of.reference.clone(),
            reason: format!("its content is {found}, and the image's config says {expected}"),
        });
    }
    store.commit_layer(lease, draft, &applied.manifest, Content::DiffId(found))?;
    Ok(found)
}
