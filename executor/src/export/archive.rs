//! The files of a layout as a tar: the same bytes for the same image.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use kiln_oci::layout::{Content, LayoutFile};
use kiln_store::Store;
use kiln_tree::Stop;
use kiln_tree::stop::PIECE_BYTES;
use tar::{EntryType, Header};

use super::image::blob_digest;
use super::output::Output;
use crate::error::Error;

const BLOCK: u64 = 512;

/// Writes files, sorted by path, with the directories above them.
pub(crate) fn write(
    store: &Store,
    files: &[LayoutFile],
    mtime: i64,
    output: &mut Output,
    stop: &Stop,
) -> Result<(), Error> {
    let mut directories = BTreeSet::new();
    for file in files {
        for (at, _) in file.path.match_indices('/') {
            if directories.insert(&file.path[..=at]) {
                header(output, &file.path[..=at], EntryType::Directory, 0, mtime)?;
            }
        }
        match &file.content {
            Content::Bytes(bytes) => {
                header(
                    output,
                    &file.path,
                    EntryType::Regular,
                    bytes.len() as u64,
                    mtime,
                )?;
                put(output, bytes)?;
                pad(output, bytes.len() as u64)?;
            }
            Content::Blob { digest, size } => {
                header(output, &file.path, EntryType::Regular, *size, mtime)?;
                let blob = store.open_blob(&blob_digest(digest))?;
                let path = output.path().to_owned();
                let mut left = *size;
                while left > 0 {
                    if stop.is_set() {
                        return Err(Error::Cancelled);
                    }
                    // Copied within the kernel, where it can.
                    let mut piece = (&blob).take(left.min(PIECE_BYTES));
                    let copied =
                        io::copy(&mut piece, output.file()).map_err(Error::io("write", &path))?;
                    if copied == 0 {
                        return Err(Error::io("copy a blob of the store to", path)(
                            io::ErrorKind::UnexpectedEof.into(),
                        ));
                    }
                    left -= copied;
                }
                pad(output, *size)?;
            }
        }
    }
    put(output, &[0; 2 * BLOCK as usize])
}

fn header(
    output: &mut Output,
    path: &str,
    entry_type: EntryType,
    size: u64,
    mtime: i64,
) -> Result<(), Error> {
    let mut header = Header::new_ustar();
    let fits = header.set_path(path);
    debug_assert!(fits.is_ok(), "BUG: a layout has the long path {path}");
    header.set_entry_type(entry_type);
    header.set_mode(if entry_type == EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_size(size);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header.set_cksum();
    put(output, header.as_bytes())
}

fn pad(output: &mut Output, size: u64) -> Result<(), Error> {
    put(
        output,
        &[0; BLOCK as usize][..(size.next_multiple_of(BLOCK) - size) as usize],
    )
}

fn put(output: &mut Output, bytes: &[u8]) -> Result<(), Error> {
    output
        .write_all(bytes)
        .map_err(|source| Error::io("write", output.path())(source))
}
