//! Archives written byte by byte, since no decent tool writes the hostile ones.

use std::io::Write;

use tar::{Builder, EntryType, Header};

use super::server::{Packed, gzip};

/// A tar in the making.
pub(crate) struct Archive {
    builder: Builder<Vec<u8>>,
}

impl Archive {
    pub(crate) fn new() -> Archive {
        Archive {
            builder: Builder::new(Vec::new()),
        }
    }

    /// Adds a file; its name is written as it is.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        self.entry(EntryType::Regular, name, "", text, (0, 0))
    }

    /// Adds a directory.
    pub(super) fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", "", (0, 0))
    }

    /// Adds a symbolic link.
    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, "", (0, 0))
    }

    /// Adds a hard link.
    pub(super) fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, "", (0, 0))
    }

    /// Adds a device.
    pub(super) fn device(self, kind: EntryType, name: &str, major: u32, minor: u32) -> Self {
        self.entry(kind, name, "", "", (major, minor))
    }

    /// Gives the next entry an attribute.
    pub(super) fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.builder.append_pax_extensions([(key, value)]).unwrap();
        self
    }

    fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        target: &str,
        text: &str,
        device: (u32, u32),
    ) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(text.len() as u64);
        if kind.is_character_special() || kind.is_block_special() {
            header.set_device_major(device.0).unwrap();
            header.set_device_minor(device.1).unwrap();
        }
        // `set_path` refuses what these tests are about.
        let bytes = header.as_mut_bytes();
        (&mut bytes[..100]).write_all(name.as_bytes()).unwrap();
        (&mut bytes[157..257]).write_all(target.as_bytes()).unwrap();
        header.set_cksum();
        self.builder.append(&header, text.as_bytes()).unwrap();
        self
    }

    /// Packs it as a layer.
    pub(crate) fn layer(self) -> Packed {
        gzip(&self.builder.into_inner().unwrap())
    }
}
