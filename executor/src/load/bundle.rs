//! The files of an archive or a layout that somebody hands in, found by path and by digest.
//!
//! Each file of an archive becomes a blob of the store while the archive is read, whatever it is called:
//! no path of it is ever one of this host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::Descriptor;
use kiln_oci::layout::blob_path;
use kiln_store::{BlobDigest, Lease, Store};
use kiln_tree::Stop;
use kiln_tree::tar::{Entries, Head};
use tar::EntryType;

use super::LoadError;
use crate::archive;
use crate::error::Error;

/// No archive of images has more entries: a hundred images of a hundred layers have three for each.
const MOST_ENTRIES: usize = 100_000;
/// No path in an archive of images is longer.
const MOST_PATH_BYTES: usize = 4096;
/// Links that lead to links.
const MOST_LINKS: usize = 8;
/// Files are copied in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;

/// What was handed in.
pub(super) struct Bundle<'a> {
    pub(super) store: &'a Store,
    pub(super) lease: &'a Lease,
    pub(super) stop: &'a Stop,
    /// Its name, for messages.
    pub(super) name: String,
    files: Files,
}

enum Files {
    Archive {
        files: BTreeMap<String, Stored>,
        links: BTreeMap<String, String>,
    },
    Directory(PathBuf),
}

/// A file of an archive, as a blob of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) digest: BlobDigest,
    pub(super) size: u64,
}

impl<'a> Bundle<'a> {
    /// Takes a directory as it is.
    pub(super) fn directory(
        store: &'a Store,
        lease: &'a Lease,
        stop: &'a Stop,
        path: &Path,
    ) -> Bundle<'a> {
        Bundle {
            store,
            lease,
            stop,
            name: path.display().to_string(),
            files: Files::Directory(path.to_owned()),
        }
    }

    /// Reads an archive, perhaps compressed, to its end.
    pub(super) fn archive(
        store: &'a Store,
        lease: &'a Lease,
        stop: &'a Stop,
        input: impl Read + Send + 'static,
        name: &str,
    ) -> Result<Bundle<'a>, Error> {
        let mut bundle = Bundle {
            store,
            lease,
            stop,
            name: name.to_owned(),
            files: Files::Directory(PathBuf::new()),
        };
        let unreadable = |source| {
            let after = String::new();
            LoadError::Archive(kiln_tree::tar::ApplyError::Archive { after, source })
        };
        let input =
            archive::decompress(input).map_err(|error| bundle.refused(unreadable(error)))?;
        let mut entries = Entries::new(input);
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        let mut count = 0;
        loop {
            if stop.is_set() {
                return Err(Error::Cancelled);
            }
            let next = entries.next();
            let Some(head) = next.map_err(|error| bundle.refused(LoadError::Archive(error)))?
            else {
                break;
            };
            count += 1;
            if count > MOST_ENTRIES {
                return Err(bundle.refused(LoadError::TooMany {
                    limit: MOST_ENTRIES,
                }));
            }
            // What no document can name is passed over, such as `.` and what lies outside.
            let Some(path) = inside("", &head.path) else {
                continue;
            };
            match head.entry_type {
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    let stored = bundle.keep(&head, &mut entries)?;
                    links.remove(&path);
                    files.insert(path, stored);
                }
                EntryType::Link | EntryType::Symlink => {
                    let above = match head.entry_type {
                        EntryType::Symlink => path.rsplit_once('/').map_or("", |(above, _)| above),
                        _ => "",
                    };
                    if let Some(target) = inside(above, &head.link) {
                        files.remove(&path);
                        links.insert(path, target);
                    }
                }
                _ => {}
            }
        }
        bundle.files = Files::Archive { files, links };
        Ok(bundle)
    }

    /// An error of what was handed in.
    pub(super) fn refused(&self, source: LoadError) -> Error {
        Error::Load {
            name: self.name.clone(),
            source: Box::new(source),
        }
    }

    fn keep<R: Read>(&self, head: &Head, entries: &mut Entries<R>) -> Result<Stored, Error> {
        if head.entry_type == EntryType::GNUSparse {
            return Err(self.refused(LoadError::Sparse));
        }
        self.write(head.size, |buffer| {
            let read = entries.read(buffer);
            read.map_err(|error| self.refused(LoadError::Archive(error)))
        })
    }

    /// Makes a blob of what `read` gives until that is nothing.
    fn write(
        &self,
        expected_bytes: u64,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
    ) -> Result<Stored, Error> {
        let mut writer = self.store.write_blob(None)?;
        let most = usize::try_from(expected_bytes).unwrap_or(PIECE_BYTES);
        let mut buffer = vec![0; most.clamp(1, PIECE_BYTES)];
        loop {
            if self.stop.is_set() {
                return Err(Error::Cancelled);
            }
            let count = read(&mut buffer)?;
            if count == 0 {
                break;
            }
            writer
                .write_all(&buffer[..count])
                .map_err(Error::unwritten(self.store))?;
        }
        let size = writer.written();
        let digest = writer.finish(self.lease)?;
        Ok(Stored { digest, size })
    }

    /// Reads a small file; nothing if it is not there.
    pub(super) fn document(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
        let file = match &self.files {
            Files::Archive { .. } => match self.file(path) {
                Some(stored) => self.store.open_blob(&stored.digest)?,
                None => return Ok(None),
            },
            Files::Directory(directory) => match open_regular(&directory.join(path))? {
                Some(file) => file,
                None => return Ok(None),
            },
        };
        let mut bytes = Vec::new();
        file.take(limit_bytes + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", path))?;
        if bytes.len() as u64 > limit_bytes {
            return Err(self.refused(LoadError::TooLarge {
                path: path.chars().take(300).collect(),
                limit: limit_bytes,
            }));
        }
        Ok(Some(bytes))
    }

    /// A file of an archive, through the links that are in it; a directory has none.
    pub(super) fn file(&self, path: &str) -> Option<Stored> {
        let Files::Archive { files, links } = &self.files else {
            return None;
        };
        let mut path = inside("", path.as_bytes())?;
        for _ in 0..MOST_LINKS {
            if let Some(stored) = files.get(&path) {
                return Some(*stored);
            }
            path = links.get(&path)?.clone();
        }
        None
    }

    /// Reads a document of a layout, of the very digest that its descriptor says; nothing if it is
    /// not there.
    pub(super) fn blob_bytes(
        &self,
        blob: &Descriptor,
        limit_bytes: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(bytes) = self.document(&blob_path(&blob.digest), limit_bytes)? else {
            return Ok(None);
        };
        let found = Sha256Digest::of(&bytes);
        if found != blob.digest {
            return Err(self.damaged(blob, &found.to_string()));
        }
        match bytes.len() as u64 == blob.size {
            true => Ok(Some(bytes)),
            false => Err(self.damaged(blob, &format!("{} bytes", bytes.len()))),
        }
    }

    /// Sees to it that the store has a blob of a layout, of the very digest and size that its
    /// descriptor says; `false` if it is not there.
    pub(super) fn keep_blob(&self, blob: &Descriptor) -> Result<bool, Error> {
        let wanted = BlobDigest(*blob.digest.as_bytes());
        let size = match &self.files {
            Files::Archive { .. } => match self.file(&blob_path(&blob.digest)) {
                None => return Ok(false),
                Some(stored) if stored.digest != wanted => {
                    return Err(self.damaged(blob, &stored.digest.to_string()));
                }
                Some(stored) => stored.size,
            },
            Files::Directory(directory) => {
                let path = directory.join(blob_path(&blob.digest));
                let Some(file) = open_regular(&path)? else {
                    return Ok(false);
                };
                if self.store.lease_blob(self.lease, &wanted)? {
                    self.store.blob_size(&wanted)?.unwrap_or_default()
                } else {
                    self.copy(file, &path, blob)?
                }
            }
        };
        match size == blob.size {
            true => Ok(true),
            false => Err(self.damaged(blob, &format!("{size} bytes"))),
        }
    }

    fn copy(&self, file: File, path: &Path, blob: &Descriptor) -> Result<u64, Error> {
        // One byte more shows that it is another.
        let mut file = file.take(blob.size.saturating_add(1));
        let stored = self.write(blob.size, |buffer| {
            file.read(buffer).map_err(Error::io("read", path))
        })?;
        match stored.digest.0 == *blob.digest.as_bytes() {
            true => Ok(stored.size),
            false => Err(self.damaged(blob, &stored.digest.to_string())),
        }
    }

    fn damaged(&self, blob: &Descriptor, found: &str) -> Error {
        self.refused(LoadError::Damaged {
            path: blob_path(&blob.digest),
            found: found.to_owned(),
            size: blob.size,
        })
    }
}

/// Opens a regular file; nothing if there is none.
pub(crate) fn open_regular(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Ok(file) => match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Some(file)),
            Ok(_) => Ok(None),
            Err(error) => Err(Error::io("open", path)(error)),
        },
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

/// A path of the archive, from the directory `above`; nothing if it leads out of it.
pub(crate) fn inside(above: &str, path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    if path.len() > MOST_PATH_BYTES {
        return None;
    }
    let mut parts: Vec<&str> = above.split('/').filter(|part| !part.is_empty()).collect();
    if path.starts_with('/') {
        parts.clear();
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/")).filter(|path| !path.is_empty() && path.len() <= MOST_PATH_BYTES)
}

#[cfg(test)]
mod tests {
    use super::inside;

    fn check(above: &str, path: &str, expected: Option<&str>) {
        assert_eq!(
            inside(above, path.as_bytes()).as_deref(),
            expected,
            "{above} {path}"
        );
    }

    #[test]
    fn no_path_leads_out() {
        check("", "a/b", Some("a/b"));
        check("", "./a//b/", Some("a/b"));
        check("", "/a", Some("a"));
        check("a", "../b/layer.tar", Some("b/layer.tar"));
        check("a/b", "c", Some("a/b/c"));
        check("a", "/c", Some("c"));
        check("", "..", None);
        check("", "../a", None);
        check("a", "../../b", None);
        check("", ".", None);
        check("", "", None);
    }
}
