//! Sparse files as GNU tar keeps them in PAX archives: only the bytes between the holes are in the body.
//!
//! There are three forms, after "Storing Sparse Files" in the manual of GNU tar: in 0.0 records that take
//! turns, in 0.1 a record with all of them, in 1.0 numbers at the beginning of the body.

use std::collections::VecDeque;

/// What the PAX records of one entry say of its holes.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    major: Vec<u8>,
    minor: Vec<u8>,
    size: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Offsets and lengths, in turns.
    numbers: Vec<u64>,
}

/// Where the bytes of a sparse file lie.
#[derive(Debug)]
pub(super) struct SparseMap {
    /// Offsets and lengths, ascending; those before the position are gone.
    pieces: VecDeque<(u64, u64)>,
    position: u64,
    size: u64,
}

/// What comes next of a sparse file.
pub(super) enum Next {
    End,
    /// So many bytes of nothing.
    Hole(u64),
    /// So many bytes of the body.
    Bytes(u64),
}

impl SparseRecords {
    /// Takes a record whose key begins with `GNU.sparse.`; tells whether it is well-formed.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> bool {
        match key {
            b"major" => self.major = value.to_vec(),
            b"minor" => self.minor = value.to_vec(),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => {
                self.size = number(value);
                return self.size.is_some();
            }
            b"map" => {
                let numbers: Option<Vec<u64>> =
                    value.split(|&byte| byte == b',').map(number).collect();
                self.numbers = numbers.unwrap_or_default();
                return !self.numbers.is_empty();
            }
            b"offset" | b"numbytes" => {
                let is_turn = self.numbers.len().is_multiple_of(2) == (key == b"offset");
                let number = number(value);
                self.numbers.extend(number);
                return is_turn && number.is_some();
            }
            // How many there are shows.
            b"numblocks" => {}
            _ => return false,
        }
        true
    }

    /// Whether the body begins with the map; nothing if the form is unknown.
    pub(super) fn in_body(&self) -> Option<bool> {
        match (&self.major[..], &self.minor[..]) {
            (b"1", b"0") => Some(true),
            (b"0", b"0" | b"1") | (b"", b"") => Some(false),
            _ => None,
        }
    }

    /// Takes the map that a body begins with; nothing if that is none, or goes on in the next block.
    pub(super) fn take_body(&mut self, blocks: &[u8]) -> Option<()> {
        let mut lines = blocks.split(|&byte| byte == b'\n').map(number);
        let count = usize::try_from(lines.next()??).ok()?.checked_mul(2)?;
        // What ends with the blocks may go on.
        let last = blocks.iter().filter(|byte| **byte == b'\n').count();
        if last <= count {
            return None;
        }
        self.numbers = lines.take(count).collect::<Option<Vec<u64>>>()?;
        Some(())
    }

    /// The map of a file whose body has `stored` bytes, beside a map in it; nothing if they contradict each other.
    pub(super) fn map(self, stored: u64) -> Option<SparseMap> {
        let size = self.size?;
        let (pairs, rest) = self.numbers.as_chunks::<2>();
        let mut end = 0u64;
        let mut sum = 0u64;
        for &[offset, length] in pairs {
            if offset < end {
                return None;
            }
            end = offset.checked_add(length)?;
            sum = sum.checked_add(length)?;
        }
        let fits = rest.is_empty() && end <= size && sum == stored;
        fits.then(|| SparseMap {
            pieces: pairs
                .iter()
                .map(|&[offset, length]| (offset, length))
                .collect(),
            position: 0,
            size,
        })
    }
}

impl SparseMap {
    /// The length of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn next(&mut self) -> Next {
        while let Some(&(offset, length)) = self.pieces.front() {
            if offset + length > self.position {
                break;
            }
            self.pieces.pop_front();
        }
        match self.pieces.front() {
            Some(&(offset, length)) if offset <= self.position => {
                Next::Bytes(offset + length - self.position)
            }
            Some(&(offset, _)) => Next::Hole(offset - self.position),
            None if self.position < self.size => Next::Hole(self.size - self.position),
            None => Next::End,
        }
    }

    /// Goes on by what was read.
    pub(super) fn advance(&mut self, by: u64) {
        self.position += by;
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
