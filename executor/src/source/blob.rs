//! Single blobs of a registry, kept as they are.

use std::io::Write as _;

use futures_util::StreamExt as _;
use kiln_oci::document::Descriptor;
use kiln_oci::reference::Reference;
use kiln_store::{BlobDigest, Lease};

use crate::error::Error;
use crate::executor::Executor;

/// Brings a blob here unless it is here, and leases it; `moved` is told how many bytes came.
pub(crate) async fn bring_blob(
    executor: &Executor,
    lease: &Lease,
    reference: &Reference,
    blob: &Descriptor,
    moved: &(dyn Fn(u64) + Sync),
) -> Result<(), Error> {
    let store = executor.store();
    let digest = BlobDigest(*blob.digest.as_bytes());
    if store.lease_blob(lease, &digest)? {
        return Ok(());
    }
    let mut pieces = executor.registry()?.blob(reference, blob);
    let mut writer = store.write_blob(Some(digest))?;
    while let Some(piece) = pieces.next().await {
        writer
            .write_all(&piece?)
            .map_err(Error::io("write a blob into", store.root()))?;
        moved(writer.written());
    }
    writer.finish(lease)?;
    Ok(())
}
