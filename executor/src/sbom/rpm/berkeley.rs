//! Berkeley DB hashes (`Packages` of older distributions), of either byte order.

use std::cell::Cell;

use super::MOST;
use super::bytes::{be16, be32, le16, le32, part};
use crate::sbom::package::Flaw;

const MAGIC: u32 = 0x0006_1561;
const MAGIC_AT: usize = 12;
const PAGE_SIZE_AT: usize = 20;
const LAST_PAGE_AT: usize = 32;
const PAGE_HEAD: usize = 26;
const PAGE_KIND_AT: usize = 25;

const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH: u8 = 13;

const ITEM_HERE: u8 = 1;
const ITEM_ELSEWHERE: u8 = 3;

/// The most bytes of one package.
const LARGEST: usize = 64 << 20;

/// A database, with the byte order of the host that wrote it.
struct Database<'a> {
    bytes: &'a [u8],
    page_size: usize,
    is_big_endian: bool,
    /// How many bytes may still be followed: pages that lead to each other could go on for ever.
    budget: Cell<usize>,
}

/// Whether the bytes are a hash of Berkeley DB.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    le32(bytes, MAGIC_AT) == Some(MAGIC) || be32(bytes, MAGIC_AT) == Some(MAGIC)
}

/// Returns the values of all records.
pub(super) fn blobs(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Flaw> {
    let is_big_endian = be32(bytes, MAGIC_AT) == Some(MAGIC);
    let mut database = Database {
        bytes,
        page_size: 0,
        is_big_endian,
        budget: Cell::new(bytes.len().saturating_mul(2)),
    };
    let size = database.u32(bytes, PAGE_SIZE_AT).unwrap_or(0);
    if !size.is_power_of_two() || !(512..=65536).contains(&size) {
        return Err("its page size is none of Berkeley DB".into());
    }
    database.page_size = size as usize;
    let last = database.u32(bytes, LAST_PAGE_AT).unwrap_or(0) as usize;
    let pages = bytes.len() / database.page_size;
    let mut blobs = Vec::new();
    for number in 1..pages.min(last.saturating_add(1)) {
        let Some(page) = database.page(number) else {
            continue;
        };
        if !matches!(page[PAGE_KIND_AT], HASH | HASH_UNSORTED) {
            continue;
        }
        let count = usize::from(database.u16(page, 20).unwrap_or(0));
        // Keys and values alternate.
        for item in (1..count).step_by(2) {
            let Some(value) = database.value(page, item) else {
                continue;
            };
            if blobs.len() == MOST {
                return Err("it has more records than any database".into());
            }
            // A counter is among the records.
            if value.len() > 16 {
                blobs.push(value);
            }
        }
    }
    Ok(blobs)
}

impl<'a> Database<'a> {
    fn u16(&self, bytes: &[u8], at: usize) -> Option<u16> {
        match self.is_big_endian {
            true => be16(bytes, at),
            false => le16(bytes, at),
        }
    }

    fn u32(&self, bytes: &[u8], at: usize) -> Option<u32> {
        match self.is_big_endian {
            true => be32(bytes, at),
            false => le32(bytes, at),
        }
    }

    fn page(&self, number: usize) -> Option<&'a [u8]> {
        part(
            self.bytes,
            number.checked_mul(self.page_size)?,
            self.page_size,
        )
    }

    fn value(&self, page: &[u8], item: usize) -> Option<Vec<u8>> {
        let offset = |item: usize| Some(usize::from(self.u16(page, PAGE_HEAD + 2 * item)?));
        let at = offset(item)?;
        match *page.get(at)? {
            ITEM_HERE => page.get(at + 1..offset(item - 1)?).map(<[u8]>::to_vec),
            ITEM_ELSEWHERE => {
                let (first, length) = (self.u32(page, at + 4)?, self.u32(page, at + 8)? as usize);
                self.chain(first as usize, length)
            }
            _ => None,
        }
    }

    /// Puts together a value that has pages of its own.
    fn chain(&self, first: usize, length: usize) -> Option<Vec<u8>> {
        if length > LARGEST || length > self.bytes.len() {
            return None;
        }
        let mut value = Vec::with_capacity(length);
        let mut next = first;
        while next != 0 && value.len() < length {
            let page = self.page(next)?;
            if page[PAGE_KIND_AT] != OVERFLOW {
                return None;
            }
            let used = usize::from(self.u16(page, 22)?);
            next = self.u32(page, 16)? as usize;
            let data = match next {
                0 => part(page, PAGE_HEAD, used)?,
                _ => &page[PAGE_HEAD..],
            };
            self.budget.set(self.budget.get().checked_sub(data.len())?);
            value.extend_from_slice(data);
        }
        value.truncate(length);
        (value.len() == length).then_some(value)
    }
}
