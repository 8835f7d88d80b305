//! Members of zip archives, of which jars are made; as far as they are asked for.

use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

use super::package::Flaw;

/// The most bytes that are looked for the end record in: its own and a comment's.
const TAIL: u64 = 22 + 65_535;
const END_MAGIC: &[u8] = b"PK\x05\x06";
const ENTRY_MAGIC: &[u8] = b"PK\x01\x02";
const LOCAL_MAGIC: &[u8] = b"PK\x03\x04";
/// The most bytes of the directory.
const LARGEST_DIRECTORY: u64 = 64 << 20;

/// A member of an archive.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: String,
    method: u16,
    packed: u64,
    offset: u64,
}

/// Lists the members.
pub(super) fn members(archive: &mut (impl Read + Seek)) -> Result<Vec<Member>, Flaw> {
    let size = archive.seek(SeekFrom::End(0))?;
    let tail_at = size.saturating_sub(TAIL);
    archive.seek(SeekFrom::Start(tail_at))?;
    let mut tail = Vec::new();
    archive.by_ref().take(TAIL).read_to_end(&mut tail)?;
    let end = (0..tail.len().saturating_sub(21))
        .rev()
        .find(|&at| tail[at..].starts_with(END_MAGIC))
        .ok_or("not a zip archive")?;
    let (length, offset) = (le(&tail, end + 12, 4), le(&tail, end + 16, 4));
    if offset == 0xffff_ffff || length == 0xffff_ffff {
        return Err("a zip archive of more than 4 GiB".into());
    }
    if length > LARGEST_DIRECTORY || offset + length > size {
        return Err("a zip archive whose directory is cut off".into());
    }
    // What stands before the archive, such as a script that starts it, moves all offsets.
    let moved = (tail_at + end as u64).saturating_sub(offset + length);
    archive.seek(SeekFrom::Start(offset + moved))?;
    let mut directory = Vec::new();
    archive.by_ref().take(length).read_to_end(&mut directory)?;
    let mut members = Vec::new();
    let mut at = 0;
    while directory
        .get(at..)
        .is_some_and(|rest| rest.starts_with(ENTRY_MAGIC))
    {
        let field = |offset: usize, size: usize| le(&directory, at + offset, size);
        let (name, extra, comment) = (field(28, 2), field(30, 2), field(32, 2));
        let name_at = at + 46;
        let Some(text) = directory.get(name_at..name_at + name as usize) else {
            break;
        };
        members.push(Member {
            name: String::from_utf8_lossy(text).into_owned(),
            method: field(10, 2) as u16,
            packed: field(20, 4),
            offset: field(42, 4) + moved,
        });
        at = name_at + (name + extra + comment) as usize;
    }
    Ok(members)
}

/// Reads one member, of at most `limit` bytes.
pub(super) fn read(
    archive: &mut (impl Read + Seek),
    member: &Member,
    limit: u64,
) -> Result<Vec<u8>, Flaw> {
    archive.seek(SeekFrom::Start(member.offset))?;
    let mut head = [0; 30];
    archive.read_exact(&mut head)?;
    if !head.starts_with(LOCAL_MAGIC) {
        return Err("a member of the zip archive is not where it should be".into());
    }
    let skipped = le(&head, 26, 2) + le(&head, 28, 2);
    archive.seek(SeekFrom::Current(skipped as i64))?;
    let packed = archive.take(member.packed);
    let mut bytes = Vec::new();
    match member.method {
        0 => packed.take(limit + 1).read_to_end(&mut bytes)?,
        8 => DeflateDecoder::new(packed)
            .take(limit + 1)
            .read_to_end(&mut bytes)?,
        _ => {
            return Err(
                io::Error::other("a member of the zip archive is packed in another way").into(),
            );
        }
    };
    match bytes.len() as u64 > limit {
        true => Err("a member of the zip archive is larger than any that is read".into()),
        false => Ok(bytes),
    }
}

fn le(bytes: &[u8], at: usize, size: usize) -> u64 {
    let part = bytes.get(at..at + size).unwrap_or_default();
    part.iter()
        .rev()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
