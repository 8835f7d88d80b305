//! The table `Packages` of an SQLite file, read page by page (the SQLite file format, section 1.6).
//!
//! SQLite itself would run what a hostile schema says; this knows tables and nothing else. A log beside
//! the file is not looked at: rpm moves it into the file when it closes.

use std::collections::BTreeSet;

use super::MOST;
use super::bytes::{be16, be32, part};
use crate::sbom::package::Flaw;

pub(super) const MAGIC: &[u8] = b"SQLite format 3\0";

const INNER: u8 = 5;
const LEAF: u8 = 13;
/// What the first page has before its own head.
const FILE_HEAD: usize = 100;

struct File<'a> {
    bytes: &'a [u8],
    page_size: usize,
    /// What a page has for content.
    usable: usize,
}

enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    Other,
}

/// Returns the blobs of the table `Packages`.
pub(super) fn blobs(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Flaw> {
    let page_size = match be16(bytes, 16).ok_or("the header is cut off")? {
        1 => 65536,
        size => usize::from(size),
    };
    let reserved = usize::from(*bytes.get(20).ok_or("the header is cut off")?);
    if !page_size.is_power_of_two() || page_size < 512 || page_size - reserved < 480 {
        return Err("its page size is none of SQLite".into());
    }
    let file = File {
        bytes,
        page_size,
        usable: page_size - reserved,
    };
    let mut root = None;
    for row in file.rows(1)? {
        // type, name, tbl_name, rootpage, sql
        if let [
            Value::Bytes(b"table"),
            Value::Bytes(b"Packages"),
            _,
            Value::Number(page),
            ..,
        ] = columns(&row)[..]
        {
            root = usize::try_from(page).ok();
        }
    }
    let root = root.ok_or("it has no table `Packages`")?;
    let rows = file.rows(root)?;
    // hnum, blob
    let blob = |row: &Vec<u8>| match columns(row)[..] {
        [_, Value::Bytes(blob), ..] => Some(blob.to_vec()),
        _ => None,
    };
    Ok(rows.iter().filter_map(blob).collect())
}

impl File<'_> {
    fn page(&self, number: usize) -> Option<&[u8]> {
        let at = number.checked_sub(1)?.checked_mul(self.page_size)?;
        part(self.bytes, at, self.page_size)
    }

    /// The records of the table whose tree begins on page `root`.
    fn rows(&self, root: usize) -> Result<Vec<Vec<u8>>, Flaw> {
        let mut rows = Vec::new();
        let mut total = 0;
        let mut seen = BTreeSet::new();
        let mut open = vec![root];
        while let Some(number) = open.pop() {
            let page = self.page(number).ok_or("a page is missing")?;
            if !seen.insert(number) {
                return Err("its pages are tangled".into());
            }
            let head = if number == 1 { FILE_HEAD } else { 0 };
            let is_inner = match page[head] {
                INNER => true,
                LEAF => false,
                _ => return Err("a page is of no table".into()),
            };
            let cells = usize::from(be16(page, head + 3).unwrap_or(0));
            let pointers = head + if is_inner { 12 } else { 8 };
            if is_inner {
                open.extend(be32(page, head + 8).map(|page| page as usize));
            }
            for cell in (0..cells).rev() {
                let at = be16(page, pointers + 2 * cell).ok_or("a page is cut off")?;
                let at = usize::from(at);
                if is_inner {
                    open.extend(be32(page, at).map(|page| page as usize));
                    continue;
                }
                let row = self.payload(page, at).ok_or("a record is cut off")?;
                total += row.len();
                if rows.len() == MOST || total > 2 * self.bytes.len() {
                    return Err("its pages are tangled".into());
                }
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// The payload of a leaf's cell, with what overflows it.
    fn payload(&self, page: &[u8], at: usize) -> Option<Vec<u8>> {
        let (length, at) = varint(page, at)?;
        let (_, at) = varint(page, at)?;
        let length = usize::try_from(length).ok()?;
        let most = self.usable - 35;
        if length > self.bytes.len() {
            return None;
        }
        if length <= most {
            return part(page, at, length).map(<[u8]>::to_vec);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let wanted = least + (length - least) % (self.usable - 4);
        let local = if wanted <= most { wanted } else { least };
        let mut payload = Vec::with_capacity(length);
        payload.extend_from_slice(part(page, at, local)?);
        let mut next = be32(page, at + local)?;
        while payload.len() < length {
            let page = self.page(next as usize)?;
            next = be32(page, 0)?;
            let left = (length - payload.len()).min(self.usable - 4);
            payload.extend_from_slice(part(page, 4, left)?);
        }
        Some(payload)
    }
}

/// The columns of a record, as far as they are whole.
fn columns(record: &[u8]) -> Vec<Value<'_>> {
    let mut values = Vec::new();
    let Some((head, mut at)) = varint(record, 0) else {
        return values;
    };
    let Ok(head) = usize::try_from(head) else {
        return values;
    };
    let mut body = head;
    while at < head && values.len() < 16 {
        let Some((kind, next)) = varint(record, at) else {
            break;
        };
        at = next;
        let length = match kind {
            0 | 8 | 9 | 10 | 11 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            kind => usize::try_from((kind - 12) / 2).unwrap_or(usize::MAX),
        };
        let Some(bytes) = part(record, body, length) else {
            break;
        };
        body += length;
        values.push(match kind {
            1..=6 => Value::Number(number(bytes)),
            8 => Value::Number(0),
            9 => Value::Number(1),
            12.. => Value::Bytes(bytes),
            _ => Value::Other,
        });
    }
    values
}

fn number(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let start = if negative { -1_i64 } else { 0 };
    let add = |sum: i64, byte: &u8| (sum << 8) | i64::from(*byte);
    bytes.iter().fold(start, add)
}

/// Up to nine bytes, seven bits each but for the last.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for index in 0..9 {
        let byte = *bytes.get(at.checked_add(index)?)?;
        if index == 8 {
            return Some(((value << 8) | u64::from(byte), at + 9));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + index + 1));
        }
    }
    None
}
