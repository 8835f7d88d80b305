//! Sections of ELF files, of which executables carry what they were built from.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::package::Flaw;

/// The most sections of a file that are looked at.
const MOST_SECTIONS: u64 = 10_000;
/// The most bytes of a section, and of the names of sections.
const LARGEST: u64 = 64 << 20;

/// An ELF file whose sections can be read.
pub(super) struct Elf<'a> {
    file: &'a File,
    is_wide: bool,
    is_big_endian: bool,
    sections: Vec<Section>,
}

/// Where a section is.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl<'a> Elf<'a> {
    /// Reads the list of sections; none if the file is not ELF or has none.
    pub(super) fn open(file: &'a File) -> Result<Option<Elf<'a>>, Flaw> {
        let mut head = [0; 64];
        let read = read_at(file, &mut head, 0)?;
        if read < 52 || !head.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        let mut elf = Elf {
            file,
            is_wide: head[4] == 2,
            is_big_endian: head[5] == 2,
            sections: Vec::new(),
        };
        let (table, size_at, count, names) = match elf.is_wide {
            true => (
                elf.word(&head, 40, 8),
                58,
                elf.word(&head, 60, 2),
                elf.word(&head, 62, 2),
            ),
            false => (
                elf.word(&head, 32, 4),
                46,
                elf.word(&head, 48, 2),
                elf.word(&head, 50, 2),
            ),
        };
        let size = elf.word(&head, size_at, 2);
        let least = if elf.is_wide { 64 } else { 40 };
        if table == 0 || count == 0 || count > MOST_SECTIONS || size < least {
            return Ok(None);
        }
        let bytes = elf.read(table, size * count)?;
        let mut found = Vec::new();
        for entry in bytes.chunks_exact(size as usize) {
            let name = elf.word(entry, 0, 4);
            let (address, offset, size) = match elf.is_wide {
                true => (
                    elf.word(entry, 16, 8),
                    elf.word(entry, 24, 8),
                    elf.word(entry, 32, 8),
                ),
                false => (
                    elf.word(entry, 12, 4),
                    elf.word(entry, 16, 4),
                    elf.word(entry, 20, 4),
                ),
            };
            let section = Section {
                name: String::new(),
                address,
                offset,
                size,
            };
            found.push((name, section));
        }
        let Some((_, texts)) = found.get(names as usize) else {
            return Ok(None);
        };
        let texts = elf.read(texts.offset, texts.size)?;
        for (name, section) in &mut found {
            let rest = texts.get(*name as usize..).unwrap_or_default();
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
            section.name = String::from_utf8_lossy(&rest[..end.min(64)]).into_owned();
        }
        elf.sections = found.into_iter().map(|(_, section)| section).collect();
        Ok(Some(elf))
    }

    /// The section of that name.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The bytes of a section.
    pub(super) fn bytes(&self, section: &Section) -> Result<Vec<u8>, Flaw> {
        self.read(section.offset, section.size)
    }

    /// At most `length` bytes that lie at a virtual address.
    pub(super) fn at_address(&self, address: u64, length: u64) -> Result<Vec<u8>, Flaw> {
        let within = |section: &&Section| {
            section.address != 0
                && address >= section.address
                && address - section.address < section.size
        };
        let section = self
            .sections
            .iter()
            .find(within)
            .ok_or("an address is in no section")?;
        let skipped = address - section.address;
        self.read(
            section.offset.saturating_add(skipped),
            length.min(section.size - skipped),
        )
    }

    /// The size of an address.
    pub(super) fn is_wide(&self) -> bool {
        self.is_wide
    }

    /// A number of up to eight bytes in the file's byte order.
    pub(super) fn word(&self, bytes: &[u8], at: usize, size: usize) -> u64 {
        let part = bytes.get(at..at + size).unwrap_or_default();
        let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        match self.is_big_endian {
            true => part.iter().fold(0, add),
            false => part.iter().rev().fold(0, add),
        }
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, Flaw> {
        if length > LARGEST {
            return Err("a section is larger than any that is read".into());
        }
        let size = self.file.metadata()?.len();
        if offset.saturating_add(length) > size {
            return Err("a section lies beyond the end".into());
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}
