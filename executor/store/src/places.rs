//! Which repositories were seen to have a blob: where one that went can be had again, and whom a
//! registry can be told to take it from.

use crate::store::{Store, now};
use crate::{BlobDigest, StoreError};

/// So many repositories are remembered of each blob.
const PLACES_OF_A_BLOB: i64 = 8;
/// So many rows there are at most, but for those of one call.
const ROWS: i64 = 50_000;

impl Store {
    /// Remembers that a repository, such as `docker.io/library/alpine`, has these blobs, which need not
    /// be here.
    pub fn put_places(&self, repository: &str, blobs: &[BlobDigest]) -> Result<(), StoreError> {
        if blobs.is_empty() {
            return Ok(());
        }
        let time = now();
        self.database().write("remember where blobs are", |t| {
            for blob in blobs {
                t.prepare_cached(
                    "INSERT OR REPLACE INTO blob_place (blob, repository, seen) VALUES (?1, ?2, ?3)",
                )?
                .execute((blob.0, repository, time))?;
                t.prepare_cached(
                    "DELETE FROM blob_place WHERE blob = ?1 AND repository NOT IN
                     (SELECT repository FROM blob_place WHERE blob = ?1
                      ORDER BY seen DESC, repository = ?2 DESC, repository LIMIT ?3)",
                )?
                .execute((blob.0, repository, PLACES_OF_A_BLOB))?;
            }
            let rows: i64 =
                t.query_row("SELECT count(*) FROM blob_place", [], |row| row.get(0))?;
            let more = rows - ROWS;
            if more > 0 {
                t.execute(
                    "DELETE FROM blob_place WHERE (blob, repository) IN
                     (SELECT blob, repository FROM blob_place WHERE seen < ?1
                      ORDER BY seen LIMIT ?2)",
                    (time, more),
                )?;
            }
            Ok(())
        })
    }

    /// Returns the repositories that were seen to have a blob, the last one first.
    pub fn places(&self, blob: &BlobDigest) -> Result<Vec<String>, StoreError> {
        self.database().read("look up where a blob is", |c| {
            c.prepare_cached(
                "SELECT repository FROM blob_place WHERE blob = ?1 ORDER BY seen DESC, repository",
            )?
            .query_map([blob.0], |row| row.get(0))?
            .collect()
        })
    }

    /// Forgets that a repository has a blob: it was not there.
    pub fn forget_place(&self, repository: &str, blob: &BlobDigest) -> Result<(), StoreError> {
        self.database().write("forget where a blob was", |t| {
            t.execute(
                "DELETE FROM blob_place WHERE blob = ?1 AND repository = ?2",
                (blob.0, repository),
            )?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreOptions;

    #[test]
    fn the_latest_places_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), StoreOptions::default()).unwrap();
        let (one, two) = (BlobDigest([1; 32]), BlobDigest([2; 32]));
        for number in 0..20 {
            store.put_places(&format!("r/{number:02}"), &[one]).unwrap();
        }
        store.put_places("r/00", &[one, two]).unwrap();
        let places = store.places(&one).unwrap();
        assert_eq!(places.len(), 8);
        assert!(places.contains(&"r/00".to_owned()), "{places:?}");
        assert_eq!(store.places(&two).unwrap(), ["r/00"]);
        store.forget_place("r/00", &two).unwrap();
        assert!(store.places(&two).unwrap().is_empty());
    }
}
