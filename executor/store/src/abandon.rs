//! Giving up what was brought here for nothing.

use rusqlite::Transaction;

use crate::leases::Leased;
use crate::records::layer_exists;
use crate::store::Store;
use crate::sweep::{UNNEEDED_BLOB, UNNEEDED_LAYER, forget_archives};
use crate::{BlobDigest, Content, Lease, StoreError};

impl Store {
    /// Releases what `lease` holds, and removes the layers and blobs among it that nobody else needs: that no
    /// record, image, pull or other lease refers to.
    ///
    /// What cannot be removed now is left to the next sweep.
    pub fn abandon(&self, lease: &Lease) -> Result<(), StoreError> {
        let Some(number) = lease.written() else {
            return Ok(());
        };
        self.make_room()?;
        let process = self.process_id()?;
        let (layers, blobs) = self.database().write("give up a lease", |t| {
            let mut held = t.prepare_cached(
                "DELETE FROM lease WHERE process = ?1 AND scope = ?2 RETURNING kind, object",
            )?;
            let held: Vec<(i64, Vec<u8>)> = held
                .query_map((process, number), |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            let of = |kind: Leased| {
                held.iter()
                    .filter(move |(found, _)| *found == kind as i64)
                    .map(|(_, object)| object.as_slice())
            };
            let mut layers = Vec::new();
            for object in of(Leased::Layer) {
                if free(t, "layer", "content", UNNEEDED_LAYER, Leased::Layer, object)? {
                    forget_archives(t, object)?;
                    layers.extend(Content::from_bytes(object));
                }
            }
            // After them, since the archives that they were unpacked from are referred to by them.
            let mut blobs = Vec::new();
            for object in of(Leased::Blob) {
                if free(t, "blob", "digest", UNNEEDED_BLOB, Leased::Blob, object)? {
                    blobs.extend(<[u8; 32]>::try_from(object).map(BlobDigest));
                }
            }
            Ok((layers, blobs))
        })?;
        for blob in &blobs {
            self.remove_rowless_blob(blob)?;
        }
        for layer in &layers {
            self.remove_rowless_layer(layer)?;
        }
        Ok(())
    }

    /// Removes the directory of a layer that has no row, unless it has one again.
    fn remove_rowless_layer(&self, content: &Content) -> Result<(), StoreError> {
        let path = self.layer_path(content);
        let trash = self.database().write("delete a layer", |t| {
            Ok(match layer_exists(t, content)? {
                true => None,
                false => self.discard(&path)?,
            })
        })?;
        trash.map_or(Ok(()), |path| self.burn(&path))
    }
}

/// Deletes the row of a layer or blob that nobody needs; tells whether it did.
fn free(
    t: &Transaction<'_>,
    table: &str,
    column: &str,
    unneeded: &str,
    kind: Leased,
    object: &[u8],
) -> rusqlite::Result<bool> {
    let sql = format!("DELETE FROM {table} WHERE {column} = ?2 AND {unneeded}");
    let count = t.prepare_cached(&sql)?.execute((kind as i64, object))?;
    Ok(count > 0)
}
