//! Archives that kiln wrote, read with the plainest reader.

use std::io::Read;

/// The paths of an archive's entries, in order.
pub(crate) fn paths_in(archive: impl Read) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}
