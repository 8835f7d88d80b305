//! ndb, rpm's own form (`Packages.db`): slots that tell where blobs are, little-endian.

use super::MOST;
use super::bytes::{le32, part};
use crate::sbom::package::Flaw;

pub(super) const MAGIC: &[u8] = b"RpmP";
const SLOT_MAGIC: &[u8] = b"Slot";
const BLOB_MAGIC: &[u8] = b"BlbS";
const PAGE: usize = 4096;
const SLOT: usize = 16;
const BLOCK: usize = 16;
/// What a blob begins with: magic, package, generation, length.
const BLOB_HEAD: usize = 16;

/// Returns the blobs that slots lead to.
pub(super) fn blobs(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Flaw> {
    let pages = le32(bytes, 12).ok_or("the header is cut off")? as usize;
    // The header takes the place of the first two slots.
    let slots = pages
        .checked_mul(PAGE)
        .and_then(|end| bytes.get(2 * SLOT..end))
        .ok_or("the slots are cut off")?;
    let mut blobs = Vec::new();
    for slot in slots.chunks_exact(SLOT) {
        let used = slot.starts_with(SLOT_MAGIC) && le32(slot, 4).is_some_and(|index| index != 0);
        if !used || blobs.len() == MOST {
            continue;
        }
        let blob = le32(slot, 8).and_then(|block| {
            let at = (block as usize).checked_mul(BLOCK)?;
            let head = part(bytes, at, BLOB_HEAD)?;
            let length = le32(head, 12)? as usize;
            let blob = part(bytes, at + BLOB_HEAD, length)?;
            head.starts_with(BLOB_MAGIC).then(|| blob.to_vec())
        });
        blobs.extend(blob);
    }
    Ok(blobs)
}
