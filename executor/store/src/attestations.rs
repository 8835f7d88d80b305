//! What is said of the images of an index: predicates, kept beside it and gone with it.

use crate::store::Store;
use crate::{ImageId, StoreError};

/// Something that is said of an image of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// The place in the index of the image that it is about, from 0.
    pub member: usize,
    /// What kind of predicate it is, a URI.
    pub predicate_type: String,
    /// The predicate as JSON, opaque here.
    pub predicate: Vec<u8>,
}

impl Store {
    /// Keeps what is said of the images of a leased index, in place of what was kept before.
    ///
    /// Errors if there is no such index.
    pub fn put_attestations(
        &self,
        index: &ImageId,
        attestations: &[Attestation],
    ) -> Result<(), StoreError> {
        self.database().write("keep attestations", |t| {
            let row =
                crate::images::image_row(t, index)?.ok_or_else(|| StoreError::NoSuchImage {
                    name: index.to_string(),
                })?;
            t.execute("DELETE FROM attestation WHERE image = ?1", [row])?;
            let mut insert = t.prepare_cached(
                "INSERT INTO attestation (image, place, member, predicate_type, predicate)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for (place, attestation) in (0_i64..).zip(attestations) {
                insert.execute((
                    row,
                    place,
                    i64::try_from(attestation.member).unwrap_or(i64::MAX),
                    &attestation.predicate_type,
                    &attestation.predicate,
                ))?;
            }
            Ok(())
        })
    }

    /// Returns what is said of the images of an index, in the order that it was kept in; nothing of what is
    /// no index here.
    pub fn attestations(&self, index: &ImageId) -> Result<Vec<Attestation>, StoreError> {
        self.database().read("look up attestations", |c| {
            c.prepare_cached(
                "SELECT a.member, a.predicate_type, a.predicate FROM attestation a
                 JOIN image i ON i.id = a.image WHERE i.digest = ?1 ORDER BY a.place",
            )?
            .query_map([index.0], |row| {
                let member: i64 = row.get(0)?;
                Ok(Attestation {
                    member: usize::try_from(member).unwrap_or(usize::MAX),
                    predicate_type: row.get(1)?,
                    predicate: row.get(2)?,
                })
            })?
            .collect()
        })
    }
}
