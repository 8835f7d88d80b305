//! Archives of layers that were made before: once for each layer, tar options and compression.

use rusqlite::OptionalExtension;

use crate::leases::Leased;
use crate::store::{Store, now};
use crate::{BlobDigest, Content, DiffId, Lease, StoreError};

/// A compressed archive of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// The blob that holds it.
    pub blob: BlobDigest,
    /// Its length.
    pub size_bytes: u64,
    /// The digest of the archive before compression.
    pub diff_id: DiffId,
}

/// How the archive that a layer was unpacked from is filed. Another tool made it, so once it is gone
/// nothing here can make it again: it stays as long as an image has the layer.
pub const AS_PULLED: &str = "as pulled";

impl Store {
    /// Returns the blob of a layer made with these options, leased.
    ///
    /// `options` and `compression` say all that decides the bytes, the compressor's version too.
    pub fn compressed(
        &self,
        lease: &Lease,
        content: &Content,
        options: &str,
        compression: &str,
    ) -> Result<Option<Compressed>, StoreError> {
        let process = self.process_id()?;
        self.database().write("look up a compressed layer", |t| {
            let found = t
                .prepare_cached(
                    "SELECT c.blob, b.size_bytes, d.diff_id FROM compressed c
                     JOIN blob b ON b.digest = c.blob
                     JOIN diff_id d ON d.content = c.content AND d.options = c.options
                     WHERE c.content = ?1 AND c.options = ?2 AND c.compression = ?3",
                )?
                .query_row((content.to_bytes(), options, compression), |row| {
                    Ok(Compressed {
                        blob: BlobDigest(row.get(0)?),
                        size_bytes: row.get::<_, i64>(1)?.unsigned_abs(),
                        diff_id: DiffId(row.get(2)?),
                    })
                })
                .optional()?;
            if let Some(found) = &found {
                t.prepare_cached("UPDATE blob SET used = ?2 WHERE digest = ?1")?
                    .execute((found.blob.0, now()))?;
                lease.hold(t, process, Leased::Blob, &found.blob.0)?;
            }
            Ok(found)
        })
    }

    /// Files the blob of a layer, which the store has, and the archive's diff id.
    pub fn put_compressed(
        &self,
        content: &Content,
        options: &str,
        compression: &str,
        blob: &BlobDigest,
        diff_id: &DiffId,
    ) -> Result<(), StoreError> {
        self.database().write("file a compressed layer", |t| {
            let there = t
                .prepare_cached("SELECT 1 FROM blob WHERE digest = ?1")?
                .exists([blob.0])?;
            if !there {
                return Err(StoreError::NoSuchBlob(*blob).into());
            }
            t.prepare_cached(
                "INSERT OR REPLACE INTO compressed (content, options, compression, blob)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute((content.to_bytes(), options, compression, blob.0))?;
            Ok(insert_diff_id(t, content, options, diff_id)?)
        })
    }

    /// Returns the digest of a layer's archive made with these options.
    pub fn diff_id(&self, content: &Content, options: &str) -> Result<Option<DiffId>, StoreError> {
        self.database().read("look up a diff id", |c| {
            c.prepare_cached("SELECT diff_id FROM diff_id WHERE content = ?1 AND options = ?2")?
                .query_row((content.to_bytes(), options), |row| row.get(0).map(DiffId))
                .optional()
        })
    }

    /// Returns the options that gave a layer's archive this digest, if that was filed.
    pub fn archived_as(
        &self,
        content: &Content,
        diff_id: &DiffId,
    ) -> Result<Option<String>, StoreError> {
        self.database().read("look up an archive", |c| {
            c.prepare_cached(
                "SELECT options FROM diff_id WHERE content = ?1 AND diff_id = ?2
                 ORDER BY options LIMIT 1",
            )?
            .query_row((content.to_bytes(), diff_id.0), |row| row.get(0))
            .optional()
        })
    }

    /// Files the digest of a layer's archive made with these options.
    pub fn put_diff_id(
        &self,
        content: &Content,
        options: &str,
        diff_id: &DiffId,
    ) -> Result<(), StoreError> {
        self.database().write("file a diff id", |t| {
            Ok(insert_diff_id(t, content, options, diff_id)?)
        })
    }
}

fn insert_diff_id(
    t: &rusqlite::Transaction<'_>,
    content: &Content,
    options: &str,
    diff_id: &DiffId,
) -> rusqlite::Result<()> {
    t.prepare_cached(
        "INSERT OR REPLACE INTO diff_id (content, options, diff_id) VALUES (?1, ?2, ?3)",
    )?
    .execute((content.to_bytes(), options, diff_id.0))?;
    Ok(())
}
