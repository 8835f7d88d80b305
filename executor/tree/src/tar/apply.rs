//! An untrusted layer archive into a directory of its own.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tar::EntryType;

use crate::attributes::Ownership;
use crate::copy::{copy_bytes_unseen, remove_tree};
use crate::digest::FileDigest;
use crate::handle::{self, FsError, READ_BYTES};
use crate::manifest::{Entry, Kind, Manifest, ManifestError, Meta};
use crate::marks::{OverlayXattrs, make_opaque, make_whiteout};
use crate::materialised::make_node;
use crate::path::{self, PathError, TreePath};
use crate::resolve::{FollowError, follow};
use crate::sparse::SparseWriter;
use crate::stop::Stop;
use crate::tar::entries::{Entries, Head};
use crate::tar::{OPAQUE, WHITEOUT};

/// A small entry can name a path of 2048 new directories; this bounds what they all cost.
const MOST_NAME_BYTES: usize = 512 << 20;

/// Files of lower layers, for archives that hard-link to them.
pub trait LowerFiles: Sync {
    /// Opens the file at `path` in the lower layers with its entry, a file and no hard link.
    fn open(&self, path: &TreePath) -> io::Result<Option<(Entry, OwnedFd)>>;
}

/// How to apply an archive, and how much of it.
pub struct ApplyOptions<'a> {
    /// Owners.
    pub ownership: Ownership,
    /// Overlay marks.
    pub overlay: OverlayXattrs,
    /// Where hard links out of the layer lead; without it they are errors.
    pub lower: Option<&'a dyn LowerFiles>,
    /// The most bytes of files.
    pub max_bytes: u64,
    /// The most entries, made-up parent directories included.
    pub max_entries: usize,
    /// Whether an archive without its end mark is refused as truncated. Other tools take it, so
    /// what was verified by its digest is applied without.
    pub require_end: bool,
    /// Whether the archive is unpacked as people do it, and is no layer. Then an entry below a symbolic link of the
    /// archive lies where that leads, seen from where the archive is unpacked, `..` means the directory
    /// above, and names of deletions are refused.
    pub unpacks: bool,
    /// Passing directories, which archives cannot tell from others: those of the archive that are in
    /// there are passing too, with the attributes of there.
    pub passing: Option<&'a Manifest>,
}

impl ApplyOptions<'_> {
    /// Returns options with generous limits, without lower files.
    pub fn new(ownership: Ownership, overlay: OverlayXattrs) -> Self {
        Self {
            ownership,
            overlay,
            lower: None,
            max_bytes: 1 << 40,
            max_entries: 4_000_000,
            require_end: true,
            unpacks: false,
            passing: None,
        }
    }
}

/// What applying an archive gave.
#[derive(Debug)]
pub struct Applied {
    /// The layer.
    pub manifest: Manifest,
    /// The bytes of all files written.
    pub bytes: u64,
}

/// An archive was refused, or could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is not a readable archive.
    #[error("could not read the archive{}", behind(after))]
    Archive {
        /// The last whole entry; empty before the first.
        after: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An entry has a path that is refused.
    #[error("the archive has an entry that is refused")]
    Path(#[from] PathError),
    /// An entry is refused.
    #[error("archive entry `{path}` {reason}")]
    Refused {
        /// The entry.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The archive is larger than allowed.
    #[error("the archive has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A file of a lower layer cannot be read.
    #[error("could not read `{path}` of a lower layer, which the archive links to")]
    Lower {
        /// The file.
        path: TreePath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The directory takes no more.
    #[error("could not write the layer")]
    Fs(#[from] FsError),
    /// The entries contradict each other.
    #[error("the archive is inconsistent")]
    Manifest(#[from] ManifestError),
}

fn behind(after: &str) -> String {
    match after {
        "" => String::new(),
        after => format!(" after entry `{after}`"),
    }
}

/// Applies an untrusted layer archive to the empty directory `into`.
///
/// Deletions go on disk as overlay whiteouts and opaque marks, and as the image specification
/// says they never touch what the archive itself has, in any order. A later entry of the same path
/// replaces the earlier one. Owners, devices and xattrs that the disk does not take are in the
/// manifest alone. Nothing outside `into` is touched, whatever the archive says; what is refused
/// is refused by name. All of `archive` is read, beyond its end mark too.
pub fn apply(
    archive: impl Read,
    into: BorrowedFd<'_>,
    options: &ApplyOptions<'_>,
) -> Result<Applied, ApplyError> {
    let mut entries = Entries::new(archive);
    let mut layer = Layer {
        into,
        options,
        nodes: BTreeMap::new(),
        inodes: Vec::new(),
        parent: None,
        buffer: vec![0; READ_BYTES],
        bytes: 0,
        count: 0,
        name_bytes: 0,
    };
    while let Some(head) = entries.next()? {
        layer.entry(head, &mut entries)?;
    }
    if options.require_end && !entries.ended() {
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the archive has no end mark");
        return Err(entries.error(source));
    }
    entries.drain(options.max_bytes)?;
    layer.finish()
}

/// What the layer has at a path.
enum Node {
    Directory {
        meta: Meta,
        opaque: bool,
        passing: bool,
    },
    /// An index into the inodes: several paths may share one.
    Inode(usize),
    Whiteout,
}

struct Layer<'a> {
    into: BorrowedFd<'a>,
    options: &'a ApplyOptions<'a>,
    nodes: BTreeMap<TreePath, Node>,
    inodes: Vec<(Kind, Meta)>,
    /// The last entry's directory.
    parent: Option<(TreePath, OwnedFd)>,
    buffer: Vec<u8>,
    bytes: u64,
    count: usize,
    name_bytes: usize,
}

impl Layer<'_> {
    fn entry<R: Read>(&mut self, head: Head, body: &mut Entries<R>) -> Result<(), ApplyError> {
        let path = self.place(&head.path)?;
        let xattrs = head
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len() + 64);
        self.charge(path.as_bytes().len() + head.link.len() + xattrs.sum::<usize>())?;
        let above = path.parent().unwrap_or_default();
        if above
            .components()
            .any(|component| component.starts_with(WHITEOUT))
        {
            return Err(refused(&path, "lies below a deletion"));
        }
        if let Some(deleted) = path.name().strip_prefix(WHITEOUT) {
            if self.options.unpacks {
                return Err(refused(&path, "has a name that means a deletion in images"));
            }
            return self.delete(&path, &above, deleted);
        }
        if path.is_root() && head.entry_type != EntryType::Directory {
            return Err(refused(&path, "is the root and not a directory"));
        }
        let meta = Meta {
            mode: head.mode,
            uid: head.uid,
            gid: head.gid,
            mtime: head.mtime,
            xattrs: head.xattrs,
        };
        match head.entry_type {
            EntryType::Directory => self.directory(&path, meta),
            EntryType::Regular => self.file(&path, meta, head.size, body),
            EntryType::Symlink => self.symlink(&path, meta, head.link),
            EntryType::Link => self.link(&path, meta, &head.link),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.special(&path, meta, head.entry_type, head.device)
            }
            EntryType::GNUSparse => Err(refused(
                &path,
                "is a sparse file: write the archive without --sparse",
            )),
            _ => Err(refused(&path, "has an unknown type")),
        }
    }

    /// Where an entry with this path lies.
    fn place(&self, written: &[u8]) -> Result<TreePath, ApplyError> {
        if !self.options.unpacks {
            return Ok(TreePath::normalise(written)?);
        }
        let path = TreePath::lexical(written)?;
        let found = follow(path.as_bytes(), false, |at| {
            self.link_at(at).map(<[u8]>::to_vec)
        });
        match found {
            Ok(found) => Ok(TreePath::new(found.as_bytes())?),
            Err(FollowError::Path(error)) => Err(error.into()),
            Err(FollowError::Links { .. }) => {
                Err(refused(&path, "lies below too many symbolic links"))
            }
        }
    }

    /// Where the symbolic link leads that the archive has at a path, if it is one.
    fn link_at(&self, path: &TreePath) -> Option<&[u8]> {
        let Some(&Node::Inode(inode)) = self.nodes.get(path) else {
            return None;
        };
        match &self.inodes[inode].0 {
            Kind::Symlink { target } => Some(target),
            _ => None,
        }
    }

    /// Counts an entry against what the archive may cost.
    fn charge(&mut self, name_bytes: usize) -> Result<(), ApplyError> {
        self.count += 1;
        self.name_bytes += name_bytes;
        if self.count > self.options.max_entries {
            let limit = self.options.max_entries as u64;
            return Err(ApplyError::TooLarge {
                what: "entries",
                limit,
            });
        }
        if self.name_bytes > MOST_NAME_BYTES {
            let limit = MOST_NAME_BYTES as u64;
            return Err(ApplyError::TooLarge {
                what: "bytes of names and attributes",
                limit,
            });
        }
        Ok(())
    }

    fn delete(&mut self, path: &TreePath, above: &TreePath, name: &[u8]) -> Result<(), ApplyError> {
        if path.name() == OPAQUE {
            self.open_parent(above)?;
            match self.nodes.get_mut(above) {
                Some(Node::Directory {
                    opaque, passing, ..
                }) => {
                    *opaque = true;
                    *passing = false;
                }
                None if above.is_root() => {
                    let meta = Meta::new(0o755);
                    let node = Node::Directory {
                        meta,
                        opaque: true,
                        passing: false,
                    };
                    self.nodes.insert(TreePath::ROOT, node);
                }
                _ => return Err(refused(path, "marks something that is not a directory")),
            }
            return Ok(());
        }
        // What aufs keeps for itself is in old layers, and means nothing.
        if name.starts_with(WHITEOUT) {
            return Ok(());
        }
        let deleted = above
            .join(name)
            .map_err(|_| refused(path, "deletes no name"))?;
        self.open_parent(above)?;
        match self.nodes.get_mut(&deleted) {
            Some(Node::Directory {
                opaque, passing, ..
            }) => {
                *opaque = true;
                *passing = false;
            }
            Some(_) => {}
            None => {
                self.nodes.insert(deleted, Node::Whiteout);
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &TreePath, meta: Meta) -> Result<(), ApplyError> {
        let opaque = match self.nodes.get(path) {
            Some(Node::Directory { opaque, .. }) => *opaque,
            Some(Node::Whiteout) => true,
            _ => false,
        };
        if !path.is_root() && !matches!(self.nodes.get(path), Some(Node::Directory { .. })) {
            self.vacate(path)?;
            self.make_directory(path)?;
        }
        self.nodes.insert(
            path.clone(),
            Node::Directory {
                meta,
                opaque,
                passing: false,
            },
        );
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        path: &TreePath,
        meta: Meta,
        size: u64,
        body: &mut Entries<R>,
    ) -> Result<(), ApplyError> {
        if size > self.options.max_bytes.saturating_sub(self.bytes) {
            let limit = self.options.max_bytes;
            return Err(ApplyError::TooLarge {
                what: "bytes of files",
                limit,
            });
        }
        self.vacate(path)?;
        let file = self.create(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut out = SparseWriter::new(&file);
        let mut filled = 0;
        loop {
            let length = body.read(&mut self.buffer[filled..])?;
            filled += length;
            if length == 0 || filled == self.buffer.len() {
                hasher.update(&self.buffer[..filled]);
                out.write(&self.buffer[..filled])
                    .map_err(|error| error.at(path.as_bytes()))?;
                filled = 0;
            }
            if length == 0 {
                break;
            }
        }
        out.finish().map_err(|error| error.at(path.as_bytes()))?;
        self.bytes += size;
        self.set(&file, path, &meta, false)?;
        let digest = FileDigest(*hasher.finalize().as_bytes());
        self.add_inode(path, Kind::File { size, digest }, meta);
        Ok(())
    }

    fn symlink(
        &mut self,
        path: &TreePath,
        mut meta: Meta,
        target: Vec<u8>,
    ) -> Result<(), ApplyError> {
        if target.is_empty() || target.contains(&0) {
            return Err(refused(path, "is a symbolic link to an impossible target"));
        }
        meta.mode = 0o777;
        self.vacate(path)?;
        let dir = self.parent_fd(path)?;
        rustix::fs::symlinkat(&target[..], dir, path.name())
            .map_err(|source| FsError::new("make symbolic link", path.as_bytes(), source))?;
        self.set_at(path, &meta, true)?;
        self.add_inode(path, Kind::Symlink { target }, meta);
        Ok(())
    }

    fn link(&mut self, path: &TreePath, meta: Meta, to: &[u8]) -> Result<(), ApplyError> {
        let to = self.place(to)?;
        if to == *path {
            return Err(refused(path, "is a hard link to itself"));
        }
        match self.nodes.get(&to) {
            Some(&Node::Inode(inode)) => {
                self.vacate(path)?;
                // What was vacated may have held the target.
                if !self.nodes.contains_key(&to) {
                    return Err(refused(
                        path,
                        "is a hard link to something that it replaces",
                    ));
                }
                let (above, name) = path::split(to.as_bytes());
                let from = handle::open_beneath(self.into, above, handle::READ_DIRECTORY)?;
                let dir = self.parent_fd(path)?;
                rustix::fs::linkat(from, name, dir, path.name(), AtFlags::empty())
                    .map_err(|source| FsError::new("make hard link", path.as_bytes(), source))?;
                self.nodes.insert(path.clone(), Node::Inode(inode));
                Ok(())
            }
            Some(_) => Err(refused(
                path,
                "is a hard link to something that is not a file",
            )),
            None => self.copy_up(path, meta, &to),
        }
    }

    /// Copies the file of a lower layer that an entry is a hard link to; it is no link any more.
    fn copy_up(&mut self, path: &TreePath, meta: Meta, to: &TreePath) -> Result<(), ApplyError> {
        let failed = |source| ApplyError::Lower {
            path: to.clone(),
            source,
        };
        let lower = self
            .options
            .lower
            .map(|lower| lower.open(to))
            .transpose()
            .map_err(failed)?;
        let Some((entry, from)) = lower.flatten() else {
            return Err(refused(
                path,
                "is a hard link to something that the layer does not have",
            ));
        };
        let Kind::File { size, digest } = entry.kind else {
            return Err(refused(
                path,
                "is a hard link to something that is not a file",
            ));
        };
        self.vacate(path)?;
        let file = self.create(path)?;
        copy_bytes_unseen(from, &file, size, &Stop::NEVER)
            .map_err(|error| error.at(path.as_bytes()))?;
        let meta = Meta {
            mtime: meta.mtime,
            ..entry.meta
        };
        self.set(&file, path, &meta, false)?;
        self.bytes += size;
        self.add_inode(path, Kind::File { size, digest }, meta);
        Ok(())
    }

    fn special(
        &mut self,
        path: &TreePath,
        meta: Meta,
        entry_type: EntryType,
        (major, minor): (u32, u32),
    ) -> Result<(), ApplyError> {
        let (kind, file_type) = match entry_type {
            EntryType::Char if (major, minor) == (0, 0) => {
                return Err(refused(
                    path,
                    "is the character device 0:0, which would be a deletion",
                ));
            }
            EntryType::Char => (Kind::CharDevice { major, minor }, FileType::CharacterDevice),
            EntryType::Block => (Kind::BlockDevice { major, minor }, FileType::BlockDevice),
            _ => (Kind::Fifo, FileType::Fifo),
        };
        // The kernel keeps twelve and twenty bits; more would come back as another device.
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(refused(path, "has a device number that no kernel has"));
        }
        self.vacate(path)?;
        make_node(self.parent_fd(path)?, path.name(), file_type, major, minor)
            .map_err(|error| error.at(path.as_bytes()))?;
        self.set_at(path, &meta, false)?;
        self.add_inode(path, kind, meta);
        Ok(())
    }

    fn add_inode(&mut self, path: &TreePath, kind: Kind, meta: Meta) {
        self.nodes
            .insert(path.clone(), Node::Inode(self.inodes.len()));
        self.inodes.push((kind, meta));
    }

    /// Makes sure that the entry's directory is there and nothing is in the entry's place.
    fn vacate(&mut self, path: &TreePath) -> Result<(), ApplyError> {
        let above = path.parent().unwrap_or_default();
        self.open_parent(&above)?;
        match self.nodes.get(path) {
            None | Some(Node::Whiteout) => return Ok(()),
            Some(Node::Inode(_)) => {
                self.nodes.remove(path);
            }
            Some(Node::Directory { .. }) => {
                let within = self.nodes.range(path.clone()..).map(|(below, _)| below);
                let gone: Vec<TreePath> = within
                    .take_while(|below| below.starts_with(path.as_bytes()))
                    .cloned()
                    .collect();
                for below in gone {
                    self.nodes.remove(&below);
                }
            }
        }
        remove_tree(self.parent_fd(path)?, path.name())
            .map_err(|error| error.at(path.as_bytes()))?;
        Ok(())
    }

    /// Opens the directory `above`, making it and those above it where the archive left them out.
    fn open_parent(&mut self, above: &TreePath) -> Result<(), ApplyError> {
        if self.parent.as_ref().is_some_and(|(open, _)| open == above) {
            return Ok(());
        }
        let mut missing = Vec::new();
        let mut next = Some(above.clone());
        while let Some(dir) = next.filter(|dir| !dir.is_root()) {
            match self.nodes.get(&dir) {
                Some(Node::Directory { .. }) => break,
                Some(Node::Inode(_)) => {
                    return Err(refused(
                        &dir,
                        "is not a directory, but another entry lies below it",
                    ));
                }
                Some(Node::Whiteout) | None => {}
            }
            next = dir.parent();
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            let opaque = matches!(self.nodes.get(&dir), Some(Node::Whiteout));
            self.charge(dir.as_bytes().len())?;
            let above = dir.parent().unwrap_or_default();
            self.reopen(&above)?;
            self.make_directory(&dir)?;
            let node = Node::Directory {
                meta: Meta::new(0o755),
                opaque,
                passing: !opaque,
            };
            self.nodes.insert(dir, node);
        }
        self.reopen(above)?;
        Ok(())
    }

    fn reopen(&mut self, above: &TreePath) -> Result<(), ApplyError> {
        if self.parent.as_ref().is_none_or(|(open, _)| open != above) {
            let dir = handle::open_beneath(self.into, above.as_bytes(), handle::READ_DIRECTORY)?;
            self.parent = Some((above.clone(), dir));
        }
        Ok(())
    }

    fn parent_fd(&mut self, path: &TreePath) -> Result<BorrowedFd<'_>, ApplyError> {
        self.reopen(&path.parent().unwrap_or_default())?;
        Ok(self
            .parent
            .as_ref()
            .map(|(_, dir)| dir.as_fd())
            .expect("BUG: it was just opened"))
    }

    fn make_directory(&mut self, path: &TreePath) -> Result<(), ApplyError> {
        let dir = self.parent_fd(path)?;
        rustix::fs::mkdirat(dir, path.name(), Mode::from_raw_mode(0o700))
            .map_err(|source| FsError::new("make directory", path.as_bytes(), source).into())
    }

    fn create(&mut self, path: &TreePath) -> Result<OwnedFd, ApplyError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = self.parent_fd(path)?;
        rustix::fs::openat(dir, path.name(), flags, Mode::from_raw_mode(0o600))
            .map_err(|source| FsError::new("create", path.as_bytes(), source).into())
    }

    fn set(
        &self,
        file: impl AsFd,
        path: &TreePath,
        meta: &Meta,
        is_directory: bool,
    ) -> Result<(), ApplyError> {
        let set = self.options.ownership.set(file, meta, is_directory);
        set.map_err(|error| error.at(path.as_bytes()).into())
    }

    fn set_at(&mut self, path: &TreePath, meta: &Meta, is_link: bool) -> Result<(), ApplyError> {
        let options = self.options;
        let set = options
            .ownership
            .set_at(self.parent_fd(path)?, path.name(), meta, is_link);
        set.map_err(|error| error.at(path.as_bytes()).into())
    }

    /// Puts marks and the attributes of directories on disk, deepest first, and makes the manifest.
    fn finish(mut self) -> Result<Applied, ApplyError> {
        let mut nodes = std::mem::take(&mut self.nodes);
        let told = self.options.passing.map_or(&[][..], Manifest::entries);
        for entry in told.iter().filter(|entry| entry.kind.is_passing()) {
            if let Some(Node::Directory {
                meta,
                opaque: false,
                passing,
            }) = nodes.get_mut(&entry.path)
            {
                (*meta, *passing) = (entry.meta.clone(), true);
            }
        }
        for (path, node) in nodes.iter().rev() {
            match node {
                Node::Inode(_) => {}
                Node::Whiteout => {
                    let dir = self.parent_fd(path)?;
                    make_whiteout(dir, path.name()).map_err(|error| error.at(path.as_bytes()))?;
                }
                Node::Directory { meta, opaque, .. } => {
                    let dir =
                        handle::open_beneath(self.into, path.as_bytes(), handle::READ_DIRECTORY)?;
                    if *opaque {
                        make_opaque(&dir, self.options.overlay)
                            .map_err(|error| error.at(path.as_bytes()))?;
                    }
                    self.set(&dir, path, meta, true)?;
                }
            }
        }
        let mut firsts: Vec<Option<TreePath>> = vec![None; self.inodes.len()];
        let mut entries = Vec::with_capacity(nodes.len());
        for (path, node) in nodes {
            let (kind, meta) = match node {
                Node::Whiteout => (Kind::Whiteout, Meta::default()),
                Node::Directory {
                    meta,
                    opaque,
                    passing,
                } => (Kind::Directory { opaque, passing }, meta),
                Node::Inode(inode) => {
                    let (kind, meta) = self.inodes[inode].clone();
                    match &firsts[inode] {
                        Some(first) => (Kind::Hardlink { to: first.clone() }, meta),
                        None => {
                            firsts[inode] = Some(path.clone());
                            (kind, meta)
                        }
                    }
                }
            };
            entries.push(Entry::new(path, kind, meta));
        }
        Ok(Applied {
            manifest: Manifest::new(entries)?,
            bytes: self.bytes,
        })
    }
}

fn refused(path: &TreePath, reason: &'static str) -> ApplyError {
    ApplyError::Refused {
        path: path.to_string(),
        reason,
    }
}
