//! Single blobs of a registry: brought here whole, and begun ones gone on with.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use futures_util::StreamExt as _;
use kiln_oci::digest::Verifier;
use kiln_oci::document::Descriptor;
use kiln_oci::reference::Reference;
use kiln_oci::registry::{self, Client};
use kiln_store::{BlobDigest, BlobWriter, Lease};
use kiln_tree::Stop;
use tokio::time::timeout;

use super::fetch::blocking;
use crate::cache::CacheError;
use crate::error::Error;
use crate::executor::Executor;
use crate::patience::arriving;

/// A shorter beginning of a blob is not worth keeping.
const LEAST_KEPT_BYTES: u64 = 1 << 20;

/// A blob that is written, perhaps with a beginning that was left by an earlier transfer.
pub(super) struct Begun {
    pub(super) writer: BlobWriter,
    /// The beginning, to be read once more.
    pub(super) head: Option<File>,
    /// What is left to check, once the rest has come.
    pub(super) seen: Verifier,
}

/// What a transfer of a blob began with.
pub(super) struct Tried<'a> {
    client: &'a Client,
    reference: &'a Reference,
    places: usize,
    went_on: bool,
}

impl<'a> Tried<'a> {
    pub(super) fn new(client: &'a Client, reference: &'a Reference, begun: &Begun) -> Tried<'a> {
        Tried {
            client,
            reference,
            places: client.places(reference),
            went_on: begun.head.is_some(),
        }
    }

    /// Whether what failed may go well from the beginning: the bytes were wrong, and it may be those that were here
    /// before, or a mirror's, which is not asked again.
    pub(super) fn allows_another(&self, error: &Error) -> bool {
        matches!(error, Error::Registry(registry::Error::Content { .. }))
            && (self.went_on || self.client.places(self.reference) < self.places)
    }
}

/// Begins to write a blob, or goes on where an earlier transfer stopped.
pub(super) async fn begin(
    executor: &Executor,
    blob: &Descriptor,
    go_on: bool,
) -> Result<Begun, Error> {
    let (executor, blob) = (executor.clone(), blob.clone());
    blocking(move || {
        let store = executor.store();
        let digest = BlobDigest(*blob.digest.as_bytes());
        let mut seen = Verifier::new(blob.digest, Some(blob.size));
        let left = match go_on {
            true => store.resume_blob(digest)?,
            false => None,
        };
        let Some(writer) = left.filter(|left| left.written() <= blob.size) else {
            return Ok(Begun {
                writer: store.write_blob(Some(digest))?,
                head: None,
                seen,
            });
        };
        let mut file = writer.reopen()?.take(writer.written());
        let mut piece = vec![0; 256 << 10];
        loop {
            let count = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read", store.root().join("work"))(error)),
            };
            if seen.update(&piece[..count]).is_err() {
                unreachable!("BUG: a beginning is longer than it was a moment ago");
            }
        }
        Ok(Begun {
            head: Some(writer.reopen()?),
            writer,
            seen,
        })
    })
    .await
}

/// Keeps what there is of a blob for another transfer, if it is worth that.
pub(super) fn keep_beginning(writer: BlobWriter) {
    if writer.written() >= LEAST_KEPT_BYTES {
        // A beginning that cannot be kept is fetched again.
        let _ = writer.keep_partial();
    }
}

/// Keeps what there is when it is dropped.
struct Keeping(Option<BlobWriter>);

impl Drop for Keeping {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take() {
            keep_beginning(writer);
        }
    }
}

/// Brings a blob here unless it is here, and leases it; `moved` is told how many bytes came.
pub(crate) async fn bring_blob(
    executor: &Executor,
    lease: &Lease,
    reference: &Reference,
    blob: &Descriptor,
    moved: &(dyn Fn(u64) + Sync),
) -> Result<(), Error> {
    bring_blob_within(executor, lease, reference, blob, Duration::MAX, moved).await
}

/// Like [`bring_blob`], unless nothing comes for as long as `patience`, whatever the client would still try.
pub(crate) async fn bring_blob_within(
    executor: &Executor,
    lease: &Lease,
    reference: &Reference,
    blob: &Descriptor,
    patience: Duration,
    moved: &(dyn Fn(u64) + Sync),
) -> Result<(), Error> {
    let store = executor.store();
    let digest = BlobDigest(*blob.digest.as_bytes());
    if store.lease_blob(lease, &digest)? {
        return Ok(());
    }
    let _arriving = arriving(store, &digest.0, &Stop::NEVER, |_| {}).await?;
    if store.lease_blob(lease, &digest)? {
        return Ok(());
    }
    let client = executor.registry()?;
    let mut begun = begin(executor, blob, true).await?;
    loop {
        let tried = Tried::new(client, reference, &begun);
        match bring(executor, lease, reference, blob, begun, patience, moved).await {
            Err(error) if tried.allows_another(&error) => {
                begun = begin(executor, blob, false).await?;
            }
            done => return done,
        }
    }
}

/// Brings a blob here from a repository that was seen to have it, unless it is here, and leases it.
pub(crate) async fn bring_from_anywhere(
    executor: &Executor,
    lease: &Lease,
    blob: &Descriptor,
) -> Result<(), Error> {
    let (store, digest) = (executor.store(), BlobDigest(*blob.digest.as_bytes()));
    if store.lease_blob(lease, &digest)? {
        return Ok(());
    }
    let nobody = |why| Error::BlobElsewhere {
        blob: blob.digest.to_string(),
        why,
    };
    if executor.options().offline {
        return Err(nobody("--offline forbids asking for it"));
    }
    let mut failure = nobody("no repository is known to have it");
    for place in store.places(&digest)? {
        let Ok(reference) = Reference::parse(&place) else {
            continue;
        };
        match bring_blob(executor, lease, &reference, blob, &|_| {}).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_outage() => failure = error,
            Err(error) => {
                store.forget_place(&place, &digest)?;
                failure = error;
            }
        }
    }
    Err(failure)
}

async fn bring(
    executor: &Executor,
    lease: &Lease,
    reference: &Reference,
    blob: &Descriptor,
    begun: Begun,
    patience: Duration,
    moved: &(dyn Fn(u64) + Sync),
) -> Result<(), Error> {
    let silent = |_| CacheError::Timeout {
        place: reference.familiar(),
        seconds: patience.as_secs(),
    };
    let store = executor.store();
    let mut pieces = executor
        .registry()?
        .rest_of_blob(reference, blob, begun.seen);
    let mut writer = Keeping(Some(begun.writer));
    while let Some(piece) = timeout(patience, pieces.next()).await.map_err(silent)? {
        let piece = piece.inspect_err(|error| {
            if let registry::Error::Content { .. } = error {
                writer.0 = None;
            }
        })?;
        let Some(out) = &mut writer.0 else { continue };
        if let Err(error) = out.write_all(&piece) {
            // What there is would keep a full disk full.
            writer.0 = None;
            return Err(Error::unwritten(store)(error));
        }
        moved(out.written());
    }
    if let Some(writer) = writer.0.take() {
        writer.finish(lease)?;
    }
    Ok(())
}
