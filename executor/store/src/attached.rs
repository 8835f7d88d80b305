//! Blobs that an image needs beside its layers: documents and attestations of an index, and the very
//! archives that it was pulled as.

use rusqlite::OptionalExtension;

use crate::images::image_row;
use crate::leases::Leased;
use crate::store::Store;
use crate::{BlobDigest, ImageId, Lease, StoreError};

impl Store {
    /// Keeps blobs for as long as the store has an image; both must be there.
    pub fn attach_blobs(&self, image: &ImageId, blobs: &[BlobDigest]) -> Result<(), StoreError> {
        self.database().write("keep blobs of an image", |t| {
            let row = image_row(t, image)?.ok_or_else(|| StoreError::NoSuchImage {
                name: image.to_string(),
            })?;
            for blob in blobs {
                let there = t
                    .prepare_cached("SELECT 1 FROM blob WHERE digest = ?1")?
                    .exists([blob.0])?;
                if !there {
                    return Err(StoreError::NoSuchBlob(*blob).into());
                }
                t.prepare_cached("INSERT OR IGNORE INTO image_blob (image, blob) VALUES (?1, ?2)")?
                    .execute((row, blob.0))?;
            }
            Ok(())
        })
    }

    /// Leases a blob that was attached to an image and returns its length; `None` if it was not, or is
    /// gone.
    pub fn attached_blob(
        &self,
        lease: &Lease,
        image: &ImageId,
        blob: &BlobDigest,
    ) -> Result<Option<u64>, StoreError> {
        let process = self.process_id()?;
        self.database().write("look up a blob of an image", |t| {
            let size: Option<i64> = t
                .prepare_cached(
                    "SELECT b.size_bytes FROM image_blob a JOIN blob b ON b.digest = a.blob
                     WHERE a.image = (SELECT id FROM image WHERE digest = ?1) AND a.blob = ?2",
                )?
                .query_row((image.0, blob.0), |row| row.get(0))
                .optional()?;
            if size.is_some() {
                lease.hold(t, process, Leased::Blob, &blob.0)?;
            }
            Ok(size.map(i64::unsigned_abs))
        })
    }
}
