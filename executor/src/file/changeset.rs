//! A layer in the making: what it changes over the layers below, and its files on disk.
//!
//! Nothing is mounted: what the result looks like is known from the manifests below and the entries
//! made so far, and files are written straight into the layer's directory. So nothing has to be read
//! back to seal it, and an unchanged file of another layer is a link.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_tree::resolve::{FollowError, follow};
use kiln_tree::{
    Entry, FileDigest, FsError, Kind, Manifest, ManifestError, Meta, OverlayXattrs, Ownership,
    Stop, TreePath, View, handle, marks,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::source::Layers;
use super::writer::{Disk, create};

/// A path cannot be changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Something that is no directory is in the way.
    #[error("`{path}` is not a directory")]
    NotADirectory {
        /// Where.
        path: TreePath,
    },
    /// A directory is in the way of a file.
    #[error("`{path}` is a directory, and a file cannot replace it")]
    IsADirectory {
        /// Where.
        path: TreePath,
    },
    /// A path leads nowhere.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// A path that no container can have.
    #[error("a path cannot be used")]
    Path(#[from] kiln_tree::PathError),
    /// The disk refused it.
    #[error("could not write the layer")]
    Fs(#[from] FsError),
    /// The entries contradict each other.
    #[error("the layer is inconsistent")]
    Manifest(#[from] ManifestError),
}

type Result<T> = std::result::Result<T, ChangeError>;

/// A layer in the making over a view.
pub(crate) struct Changeset<'a> {
    lower: &'a View,
    entries: BTreeMap<TreePath, Entry>,
    root: BorrowedFd<'a>,
    ownership: Ownership,
    marks: OverlayXattrs,
    threads: usize,
    stop: Stop,
    donor: Option<&'a Layers>,
    /// The directory that the last file was made in.
    parent: Option<(TreePath, OwnedFd)>,
    /// Directories with the times that they are to have in the end.
    directories: BTreeMap<TreePath, Meta>,
    /// The other names of each file that has several.
    names: BTreeMap<TreePath, BTreeSet<TreePath>>,
    /// Whether some directory of this layer hides what is below it.
    has_opaque: bool,
}

/// What is at a path.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) meta: Meta,
}

impl<'a> Changeset<'a> {
    /// Begins with nothing changed; `root` is the layer's empty directory.
    pub(crate) fn new(
        lower: &'a View,
        root: BorrowedFd<'a>,
        ownership: Ownership,
        marks: OverlayXattrs,
    ) -> Changeset<'a> {
        Changeset {
            lower,
            entries: BTreeMap::new(),
            root,
            ownership,
            marks,
            threads: 1,
            stop: Stop::NEVER,
            donor: None,
            parent: None,
            directories: BTreeMap::new(),
            names: BTreeMap::new(),
            has_opaque: false,
        }
    }

    /// Lets this many threads write files.
    pub(crate) fn with_threads(self, threads: usize) -> Changeset<'a> {
        Changeset { threads, ..self }
    }

    /// Gives up copying once `stop` says so.
    pub(crate) fn with_stop(self, stop: &Stop) -> Changeset<'a> {
        let stop = stop.clone();
        Changeset { stop, ..self }
    }

    /// What gives up copying.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Takes files that are the same in all from an earlier layer, by linking them.
    pub(crate) fn with_donor(self, donor: Option<&'a Layers>) -> Changeset<'a> {
        Changeset { donor, ..self }
    }

    /// What is at `path` now; links are not followed.
    pub(crate) fn get(&self, path: &TreePath) -> Option<Seen> {
        if path.is_root() {
            let meta = self
                .lower
                .get(b"")
                .map_or_else(|| Meta::new(0o755), |found| found.meta().clone());
            return Some(Seen {
                kind: Kind::DIRECTORY,
                meta,
            });
        }
        if let Some(entry) = self.entries.get(path) {
            return match &entry.kind {
                Kind::Whiteout => None,
                Kind::Directory { passing: true, .. } => {
                    Some(self.below(path).unwrap_or_else(|| seen(entry)))
                }
                Kind::Hardlink { to } => self.entries.get(to).map(seen),
                _ => Some(seen(entry)),
            };
        }
        self.below(path)
    }

    /// What the layers below show at `path`, unless this one hides it.
    fn below(&self, path: &TreePath) -> Option<Seen> {
        let mut above = path.parent();
        while let Some(at) = above {
            match self.entries.get(&at).map(|entry| &entry.kind) {
                None => {}
                Some(Kind::Directory { opaque: false, .. }) if self.has_opaque => {}
                // What is above a listed directory is listed too, and a directory.
                Some(Kind::Directory { opaque: false, .. }) => break,
                Some(_) => return None,
            }
            above = at.parent();
        }
        let found = self.lower.get(path.as_bytes())?;
        Some(Seen {
            kind: found.kind().clone(),
            meta: found.meta().clone(),
        })
    }

    /// The names in a directory.
    pub(crate) fn list(&self, path: &TreePath) -> Vec<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = match self.lower.list(path.as_bytes()) {
            Some(children) => children
                .into_iter()
                .map(|(name, _)| name.to_vec())
                .collect(),
            None => Vec::new(),
        };
        let own = self
            .entries
            .range(path.clone()..)
            .take_while(|(at, _)| at.starts_with(path.as_bytes()));
        names.extend(
            own.filter(|(at, _)| at.parent().as_ref() == Some(path))
                .map(|(at, _)| at.name().to_vec()),
        );
        names.sort();
        names.dedup();
        names.retain(|name| {
            path.join(name)
                .is_ok_and(|child| self.get(&child).is_some())
        });
        names
    }

    /// Follows the links in `path`, the last component's too if `follow_last`; `..` stops at the root.
    ///
    /// What does not exist stays as written.
    pub(crate) fn resolve(&self, path: &[u8], follow_last: bool) -> Result<TreePath> {
        let found = follow(path, follow_last, |at| match self.get(at)?.kind {
            Kind::Symlink { target } => Some(target),
            _ => None,
        });
        Ok(found?)
    }

    /// Says whether this layer lists something other than a directory here.
    pub(crate) fn holds_file(&self, path: &TreePath) -> bool {
        let entry = self.entries.get(path);
        entry.is_some_and(|entry| !matches!(entry.kind, Kind::Directory { .. } | Kind::Whiteout))
    }

    /// Says whether this layer lists a directory only for what is in it.
    pub(crate) fn is_passing(&self, path: &TreePath) -> bool {
        let entry = self.entries.get(path);
        entry.is_some_and(|entry| matches!(entry.kind, Kind::Directory { passing: true, .. }))
    }

    /// Makes the directory at a resolved `path` with the missing ones above it; those that are made
    /// get `meta`.
    ///
    /// They are listed as passing: on top of layers that have them, those keep their own attributes.
    pub(crate) fn make_directories(&mut self, path: &TreePath, meta: &Meta) -> Result<()> {
        let mut missing = Vec::new();
        let mut next = Some(path.clone());
        while let Some(at) = next.filter(|at| !at.is_root()) {
            match self.get(&at) {
                Some(seen) if seen.kind.is_directory() => break,
                Some(_) => return Err(ChangeError::NotADirectory { path: at }),
                None => next = at.parent(),
            }
            missing.push(at);
        }
        while let Some(at) = missing.pop() {
            self.put_directory(&at, meta, true)?;
        }
        Ok(())
    }

    /// Makes a directory, or gives one that is there new attributes.
    pub(crate) fn put_directory(
        &mut self,
        path: &TreePath,
        meta: &Meta,
        passing: bool,
    ) -> Result<()> {
        if path.is_root() {
            let entry = Entry::new(path.clone(), Kind::DIRECTORY, meta.clone());
            self.directories.insert(path.clone(), meta.clone());
            self.entries.insert(path.clone(), entry);
            return Ok(());
        }
        match self.get(path) {
            Some(seen) if seen.kind.is_directory() => {}
            Some(_) => return Err(ChangeError::NotADirectory { path: path.clone() }),
            None => {}
        }
        let opaque = match self.entries.get(path).map(|entry| &entry.kind) {
            // A directory where this layer removed something hides what was below.
            Some(Kind::Whiteout) => true,
            Some(Kind::Directory { opaque, .. }) => *opaque,
            _ => false,
        };
        let on_disk = matches!(
            self.entries.get(path).map(|entry| &entry.kind),
            Some(Kind::Directory { .. })
        );
        if !on_disk {
            let (parent, name) = self.parent_of(path)?;
            match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                Ok(()) => {}
                Err(error) => {
                    return Err(FsError::new("make directory", path.as_bytes(), error).into());
                }
            }
            if opaque {
                let made = handle::open_directory(self.parent_of(path)?.0, path.name())?;
                marks::make_opaque(&made, self.marks)?;
            }
        }
        self.has_opaque |= opaque;
        // An opaque directory is nobody's passing one.
        let kind = Kind::Directory {
            opaque,
            passing: passing && !opaque,
        };
        self.entries
            .insert(path.clone(), Entry::new(path.clone(), kind, meta.clone()));
        self.directories.insert(path.clone(), meta.clone());
        Ok(())
    }

    /// Makes a regular file of these bytes in place of whatever file, link or device is there.
    pub(crate) fn put_file(&mut self, path: &TreePath, meta: &Meta, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        let digest = FileDigest(*blake3::hash(bytes).as_bytes());
        self.list_file(path, meta, Kind::File { size, digest })?;
        let ownership = self.ownership.clone();
        let (parent, name) = self.parent_of(path)?;
        let mut file = File::from(create(parent, name, path)?);
        file.write_all(bytes)
            .map_err(|error| FsError::new("write", path.as_bytes(), error))?;
        set(&ownership, &file, path, meta, false)
    }

    /// Lists a regular file in place of whatever file, link or device is there, and makes the
    /// directories above it; somebody else writes it to [`Changeset::disk`].
    pub(crate) fn list_file(&mut self, path: &TreePath, meta: &Meta, kind: Kind) -> Result<()> {
        self.make_room(path)?;
        self.parent_of(path)?;
        self.entries
            .insert(path.clone(), Entry::new(path.clone(), kind, meta.clone()));
        Ok(())
    }

    /// Where listed files are written.
    pub(crate) fn disk(&self) -> Disk<'_> {
        Disk {
            root: self.root,
            ownership: &self.ownership,
            donor: self.donor,
            threads: self.threads,
            stop: &self.stop,
        }
    }

    /// Makes another name of a file that this layer has.
    pub(crate) fn put_hardlink(&mut self, path: &TreePath, to: &TreePath) -> Result<()> {
        self.make_room(path)?;
        let meta = self
            .entries
            .get(to)
            .map(|entry| entry.meta.clone())
            .unwrap_or_default();
        let from = handle::open_beneath(
            self.root,
            to.parent().unwrap_or(TreePath::ROOT).as_bytes(),
            OFlags::PATH | OFlags::DIRECTORY,
        )?;
        let (parent, name) = self.parent_of(path)?;
        rustix::fs::linkat(&from, to.name(), parent, name, AtFlags::empty())
            .map_err(|error| FsError::new("link", path.as_bytes(), error))?;
        let entry = Entry::new(path.clone(), Kind::Hardlink { to: to.clone() }, meta);
        self.entries.insert(path.clone(), entry);
        let names = self.names.entry(to.clone()).or_default();
        names.insert(path.clone());
        Ok(())
    }

    /// Takes a name from its file: where it was the first of several, the next one is it now.
    fn give_up_name(&mut self, path: &TreePath) {
        let Some(entry) = self.entries.remove(path) else {
            return;
        };
        if let Kind::Hardlink { to } = &entry.kind {
            if let Some(names) = self.names.get_mut(to) {
                names.remove(path);
            }
            return;
        }
        let mut names = self.names.remove(path).unwrap_or_default();
        let Some(first) = names.pop_first() else {
            return;
        };
        let Entry { kind, meta, .. } = entry;
        for name in &names {
            let kind = Kind::Hardlink { to: first.clone() };
            let entry = Entry::new(name.clone(), kind, meta.clone());
            self.entries.insert(name.clone(), entry);
        }
        let entry = Entry::new(first.clone(), kind, meta);
        self.entries.insert(first.clone(), entry);
        self.names.insert(first, names);
    }

    /// Makes a link, a device, a pipe, in place of whatever file, link or device is there.
    pub(crate) fn put_special(&mut self, path: &TreePath, kind: Kind, meta: &Meta) -> Result<()> {
        self.make_room(path)?;
        let ownership = self.ownership.clone();
        let (parent, name) = self.parent_of(path)?;
        let refused =
            |attempt, error| ChangeError::from(FsError::new(attempt, path.as_bytes(), error));
        let mode = Mode::from_raw_mode(0o600);
        let node = |file_type, device| rustix::fs::mknodat(parent, name, file_type, mode, device);
        match &kind {
            Kind::Symlink { target } => rustix::fs::symlinkat(&target[..], parent, name)
                .map_err(|error| refused("make link", error))?,
            Kind::Fifo => node(FileType::Fifo, 0).map_err(|error| refused("make pipe", error))?,
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                let is_char = matches!(kind, Kind::CharDevice { .. });
                let file_type = if is_char {
                    FileType::CharacterDevice
                } else {
                    FileType::BlockDevice
                };
                let device = rustix::fs::makedev(*major, *minor);
                match node(file_type, device) {
                    Ok(()) => {}
                    // Devices live in the manifest; on disk an ordinary user has a stand-in.
                    Err(rustix::io::Errno::PERM) => drop(create(parent, name, path)?),
                    Err(error) => return Err(refused("make device", error)),
                }
            }
            _ => unreachable!("BUG: {kind:?} is no special file"),
        }
        let is_link = matches!(kind, Kind::Symlink { .. });
        ownership
            .set_at(parent, name, meta, is_link)
            .map_err(|error| error.at(path.as_bytes()))?;
        self.entries
            .insert(path.clone(), Entry::new(path.clone(), kind, meta.clone()));
        Ok(())
    }

    /// Removes what is at `path` with all below it; nothing there is fine.
    pub(crate) fn remove(&mut self, path: &TreePath) -> Result<()> {
        if self.get(path).is_none() || path.is_root() {
            return Ok(());
        }
        let own: Vec<TreePath> = self
            .entries
            .range(path.clone()..)
            .take_while(|(at, _)| at.starts_with(path.as_bytes()))
            .map(|(at, _)| at.clone())
            .collect();
        if !own.is_empty() {
            self.parent = None;
            let (parent, name) = self.parent_of(path)?;
            kiln_tree::copy::remove_tree(parent, name)?;
            for at in own {
                self.give_up_name(&at);
                self.directories.remove(&at);
            }
        }
        if self.below(path).is_some() {
            // The whiteout needs its directory on disk.
            self.parent_of(path)?;
            self.entries
                .insert(path.clone(), Entry::whiteout(path.clone()));
        }
        Ok(())
    }

    /// Returns the bytes of a small file, or nothing where there is no file.
    pub(crate) fn read(
        &self,
        path: &[u8],
        layers: &[OwnedFd],
        limit_bytes: u64,
    ) -> Result<Option<Vec<u8>>> {
        let at = self.resolve(path, true)?;
        let Some((_, file)) = self.open(&at, layers)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        std::io::Read::take(File::from(file), limit_bytes)
            .read_to_end(&mut bytes)
            .map_err(|error| FsError::new("read", at.as_bytes(), error))?;
        Ok(Some(bytes))
    }

    /// Opens the file at a resolved path, or nothing where there is no file; `layers` are the directories of those
    /// below.
    pub(crate) fn open(
        &self,
        at: &TreePath,
        layers: &[OwnedFd],
    ) -> Result<Option<(Seen, OwnedFd)>> {
        let seen = self
            .get(at)
            .filter(|seen| matches!(seen.kind, Kind::File { .. }));
        let Some(seen) = seen else {
            return Ok(None);
        };
        let file = match (self.holds_file(at), self.lower.get(at.as_bytes())) {
            (true, _) => handle::open_beneath(self.root, at.as_bytes(), OFlags::RDONLY)?,
            (false, Some(found)) => {
                let path = found.inode.path.as_bytes();
                handle::open_beneath(&layers[found.layer], path, OFlags::RDONLY)?
            }
            (false, None) => return Ok(None),
        };
        Ok(Some((seen, file)))
    }

    /// Finishes the directory on disk and returns the manifest.
    pub(crate) fn finish(mut self) -> Result<Manifest> {
        let whiteouts: Vec<TreePath> = self
            .entries
            .values()
            .filter(|entry| matches!(entry.kind, Kind::Whiteout))
            .map(|entry| entry.path.clone())
            .collect();
        for path in whiteouts {
            let (parent, name) = self.parent_of(&path)?;
            marks::make_whiteout(parent, name)?;
        }
        // Deepest first: what is made inside a directory changes its time.
        for (path, meta) in self.directories.iter().rev() {
            let directory = handle::open_beneath(
                self.root,
                path.as_bytes(),
                OFlags::RDONLY | OFlags::DIRECTORY,
            )?;
            set(&self.ownership, &directory, path, meta, true)?;
        }
        Ok(Manifest::new(self.entries.into_values().collect())?)
    }

    /// Sees to it that a file can be made at `path`.
    fn make_room(&mut self, path: &TreePath) -> Result<()> {
        match self.get(path) {
            None => {}
            Some(seen) if seen.kind.is_directory() => {
                return Err(ChangeError::IsADirectory { path: path.clone() });
            }
            Some(_) => {
                let on_disk = self
                    .entries
                    .get(path)
                    .is_some_and(|entry| !matches!(entry.kind, Kind::Whiteout));
                if on_disk {
                    let (parent, name) = self.parent_of(path)?;
                    rustix::fs::unlinkat(parent, name, AtFlags::empty())
                        .map_err(|error| FsError::new("replace", path.as_bytes(), error))?;
                    self.give_up_name(path);
                }
            }
        }
        Ok(())
    }

    /// Opens the directory that holds `path` in this layer, making it there as a passing one.
    fn parent_of<'p>(&mut self, path: &'p TreePath) -> Result<(BorrowedFd<'_>, &'p [u8])> {
        let parent = path.parent().unwrap_or(TreePath::ROOT);
        let cached = self.parent.as_ref().is_some_and(|(at, _)| *at == parent);
        if !cached {
            self.pass_through(&parent)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let opened = handle::open_beneath(self.root, parent.as_bytes(), flags)?;
            self.parent = Some((parent, opened));
        }
        match &self.parent {
            Some((_, fd)) => Ok((fd.as_fd(), path.name())),
            None => unreachable!("BUG: the parent was just opened"),
        }
    }

    /// Makes directories of the layers below in this one too, with the attributes that they have.
    fn pass_through(&mut self, path: &TreePath) -> Result<()> {
        let is_listed = |at: &TreePath| {
            let entry = self.entries.get(at);
            entry.is_some_and(|entry| entry.kind.is_directory())
        };
        // What is above a listed directory is listed too.
        let mut missing: Vec<TreePath> =
            std::iter::successors(Some(path.clone()), TreePath::parent)
                .take_while(|at| !at.is_root() && !is_listed(at))
                .collect();
        while let Some(at) = missing.pop() {
            match self.get(&at) {
                Some(seen) if seen.kind.is_directory() => {
                    self.put_directory(&at, &seen.meta, true)?
                }
                Some(_) => return Err(ChangeError::NotADirectory { path: at }),
                None => self.put_directory(&at, &Meta::new(0o755), true)?,
            }
        }
        Ok(())
    }
}

fn seen(entry: &Entry) -> Seen {
    Seen {
        kind: entry.kind.clone(),
        meta: entry.meta.clone(),
    }
}

/// Gives an open file or directory its attributes, as far as the disk takes them.
pub(crate) fn set(
    ownership: &Ownership,
    file: impl AsFd,
    path: &TreePath,
    meta: &Meta,
    is_directory: bool,
) -> Result<()> {
    Ok(ownership
        .set(file, meta, is_directory)
        .map_err(|error| error.at(path.as_bytes()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does `change` to a layer over nothing; the result is one word a path: what it holds, or
    /// whose name it is, as the manifest and as the disk have it.
    fn check(change: impl Fn(&mut Changeset<'_>), expected: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let root: OwnedFd = File::open(directory.path()).unwrap().into();
        let lower = View::new(Vec::new());
        let mut changes =
            Changeset::new(&lower, root.as_fd(), Ownership::Record, OverlayXattrs::User);
        change(&mut changes);
        let manifest = changes.finish().unwrap();
        let mut found = Vec::new();
        for entry in manifest.entries() {
            let path = String::from_utf8_lossy(entry.path.as_bytes());
            let of = match &entry.kind {
                Kind::Hardlink { to } => to,
                _ => &entry.path,
            };
            let bytes = std::fs::read(directory.path().join(&*path)).unwrap();
            let Kind::File { digest, .. } = &manifest.get(of.as_bytes()).unwrap().kind else {
                panic!("{path} is {:?}", entry.kind)
            };
            assert_eq!(digest.0, *blake3::hash(&bytes).as_bytes(), "{path}");
            found.push(format!("{path}={}", String::from_utf8_lossy(&bytes)));
        }
        assert_eq!(found, expected);
    }

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn put(changes: &mut Changeset<'_>, at: &str, bytes: &str) {
        let content = bytes.as_bytes();
        changes
            .put_file(&path(at), &Meta::new(0o644), content)
            .unwrap();
    }

    fn link(changes: &mut Changeset<'_>, at: &str, to: &str) {
        changes.put_hardlink(&path(at), &path(to)).unwrap();
    }

    #[test]
    fn a_file_keeps_its_other_names_when_the_first_is_replaced() {
        let three = |changes: &mut Changeset<'_>| {
            put(changes, "a", "old");
            link(changes, "b", "a");
            link(changes, "c", "a");
        };
        check(
            |changes| {
                three(changes);
                put(changes, "a", "new");
            },
            &["a=new", "b=old", "c=old"],
        );
        check(
            |changes| {
                three(changes);
                put(changes, "b", "new");
                put(changes, "a", "newer");
            },
            &["a=newer", "b=new", "c=old"],
        );
        check(
            |changes| {
                three(changes);
                changes.remove(&path("a")).unwrap();
                changes.remove(&path("b")).unwrap();
            },
            &["c=old"],
        );
    }
}
