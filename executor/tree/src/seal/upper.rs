//! Reads a raw overlay upper directory.

use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use crate::handle;
use crate::manifest::{Entry, Kind, Manifest, Meta, Xattrs};
use crate::marks::{OverlayXattrs, is_content_xattr, make_whiteout};
use crate::owners::{self, Owner, Sight, doubts, note_made};
use crate::path::{self, TreePath};
use crate::seal::hashing::{Job, hash_files};
use crate::seal::options::{SealError, SealOptions, Sealed};
use crate::view::{Found, View};
use crate::walk::{Descend, Visit, walk};

/// Turns the upper directory of a finished step into a layer.
///
/// The overlay must be unmounted. What the step did not mean is left out of the manifest and
/// removed from the directory, so that it shows what the manifest says on whatever it is stacked:
///
/// - xattrs that are no content ([`is_content_xattr`]; these stay on disk), sockets, and whiteouts
///   and opaque marks over nothing;
/// - a file equal to the lower's in type, bytes, mode, owner, xattrs and time, unless it is one of
///   several hard links in the layer: the overlay copied it up for nothing. One that has a new time
///   was touched, and is kept;
/// - a directory equal to the lower's with nothing left inside. One with something inside is
///   listed as passing;
/// - the sandbox's stubs, where they are still empty.
///
/// A directory that was removed and made again is opaque in the overlay. Here, and on disk afterwards, it is
/// merged with the lower's, of which each entry that it lacks is deleted: so a layer depends on what there was before
/// and after the step alone, as where no overlay could tell more.
pub fn seal(
    upper: BorrowedFd<'_>,
    lower: &View,
    options: &SealOptions,
) -> Result<Sealed, SealError> {
    let mut reader = Reader {
        lower,
        options,
        stubs: options.stubs.iter().collect(),
        raws: Vec::new(),
        above: Vec::new(),
        inodes: HashMap::new(),
        unmark: Vec::new(),
        anew: Vec::new(),
        deleted: Vec::new(),
        sights: Vec::new(),
    };
    reader.read_root(upper)?;
    walk(upper, |visit| reader.read(visit))?;
    reader.delete_what_is_missing();
    reader.hash(upper)?;
    let unmark = std::mem::take(&mut reader.unmark);
    let deleted = std::mem::take(&mut reader.deleted);
    let sights = std::mem::take(&mut reader.sights);
    let (entries, dropped) = reader.decide();
    let manifest = Manifest::new(entries)?;
    if let Some(one_id) = &options.one_id {
        doubts(one_id, lower, &manifest, &sights)?;
        note_made(upper, &manifest, &sights)?;
    }
    clean(upper, &dropped, &unmark, options.marks)?;
    delete(upper, &deleted)?;
    Ok(Sealed { manifest, dropped })
}

/// Something in the upper directory, before it is known whether it counts.
struct Raw {
    path: TreePath,
    parent: usize,
    state: State,
    kind: Kind,
    meta: Meta,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It counts.
    Keep,
    /// It counts if something below it does; so do all stub directories.
    KeepIfFull,
    /// It never counts.
    Drop,
    /// A file whose bytes decide.
    KeepIfOther,
}

struct Above {
    path: TreePath,
    raw: usize,
    /// Whether the lower view has this directory.
    open: bool,
    /// Whether the step saw nothing of the lower view through it.
    anew: bool,
}

struct Reader<'a> {
    lower: &'a View,
    options: &'a SealOptions,
    stubs: HashSet<&'a TreePath>,
    raws: Vec<Raw>,
    above: Vec<Above>,
    /// Inodes with several names, to the first one's index.
    inodes: HashMap<(u64, u64), usize>,
    /// Directories with an opaque mark, which none keeps.
    unmark: Vec<TreePath>,
    /// Directories of the lower view that the step made anew.
    anew: Vec<usize>,
    /// Where a whiteout is to be made on disk.
    deleted: Vec<TreePath>,
    /// All that is there, where notes tell owners.
    sights: Vec<Sight>,
}

impl Reader<'_> {
    fn read_root(&mut self, upper: BorrowedFd<'_>) -> Result<(), SealError> {
        let stat =
            rustix::fs::fstat(upper).map_err(|source| handle::FsError::new("stat", b"", source))?;
        let (xattrs, marks) = self.xattrs(upper, b"", &TreePath::ROOT)?;
        let below = self.lower.get(b"");
        let meta = self.meta(&TreePath::ROOT, &stat, xattrs, marks.owner, below);
        self.saw(&TreePath::ROOT, marks.owner);
        let plain = Meta::new(0o755);
        let expected = below.map_or(&plain, |found| found.meta());
        let same = !self.options.root || expected.same_but_time(&meta);
        let state = if same { State::Drop } else { State::Keep };
        self.raws.push(Raw {
            path: TreePath::ROOT,
            parent: 0,
            state,
            kind: Kind::DIRECTORY,
            meta,
        });
        self.above.push(Above {
            path: TreePath::ROOT,
            raw: 0,
            open: true,
            anew: false,
        });
        Ok(())
    }

    fn read(&mut self, visit: &Visit<'_>) -> Result<Descend, SealError> {
        let path = visit.path;
        while self
            .above
            .last()
            .is_some_and(|dir| !path.starts_with(dir.path.as_bytes()))
        {
            self.above.pop();
        }
        let (parent, open, anew) = self
            .above
            .last()
            .map_or((0, true, false), |dir| (dir.raw, dir.open, dir.anew));
        let lower = self.lower;
        let below = if open {
            lower.get(path.as_bytes())
        } else {
            None
        };
        let (content, marks) = self.xattrs(visit.dir, visit.name, path)?;
        let file_type = handle::file_type(visit.stat);
        if is_whiteout(visit.stat, &marks) {
            let state = if below.is_some() {
                State::Keep
            } else {
                State::Drop
            };
            let (kind, meta) = (Kind::Whiteout, Meta::default());
            self.raws.push(Raw {
                path: path.clone(),
                parent,
                state,
                kind,
                meta,
            });
            return Ok(Descend::Past);
        }
        let meta = self.meta(path, visit.stat, content, marks.owner, below);
        self.saw(path, marks.owner);
        if file_type == FileType::Directory {
            let merged = below.is_some_and(|found| found.kind().is_directory());
            let anew = anew || marks.opaque;
            if marks.opaque {
                self.unmark.push(path.clone());
            }
            if anew && merged {
                self.anew.push(self.raws.len());
            }
            let same = below.is_some_and(|found| found.meta().same_but_time(&meta));
            let implied = below.is_none() && self.options.implied.contains(path);
            let stub = below.is_none() && self.stubs.contains(path);
            let passing = (merged && same) || implied;
            let state = if (merged && same) || stub {
                State::KeepIfFull
            } else {
                State::Keep
            };
            let kind = Kind::Directory {
                opaque: false,
                passing,
            };
            self.above.push(Above {
                path: path.clone(),
                raw: self.raws.len(),
                open: merged,
                anew,
            });
            self.raws.push(Raw {
                path: path.clone(),
                parent,
                state,
                kind,
                meta,
            });
            return Ok(Descend::Into);
        }
        let Some(kind) = self.kind(visit, file_type)? else {
            // It goes, and so does what it took the place of.
            let (kind, state, meta) = match below {
                Some(_) => (Kind::Whiteout, State::Keep, Meta::default()),
                None => (Kind::Fifo, State::Drop, meta),
            };
            if below.is_some() {
                self.deleted.push(path.clone());
            }
            self.raws.push(Raw {
                path: path.clone(),
                parent,
                state,
                kind,
                meta,
            });
            return Ok(Descend::Past);
        };
        let stub = below.is_none() && self.stubs.contains(path) && visit.stat.st_size == 0;
        let alike = below.filter(|found| {
            found.meta().same_but_time(&meta) && found.meta().mtime.agrees(&meta.mtime)
        });
        let state = match (&kind, alike) {
            _ if stub => State::Drop,
            (Kind::File { size, .. }, Some(found)) => match found.kind() {
                Kind::File { size: old, .. } if old == size => State::KeepIfOther,
                _ => State::Keep,
            },
            (kind, Some(found)) if found.kind() == kind => State::Drop,
            _ => State::Keep,
        };
        self.push_file(visit, parent, state, kind, meta);
        Ok(Descend::Past)
    }

    /// Lists what the lower view has in directories that the step made anew and the upper directory lacks.
    fn delete_what_is_missing(&mut self) {
        let mut missing: Vec<(usize, TreePath)> = Vec::new();
        let seen: HashSet<&TreePath> = match self.anew.is_empty() {
            true => return,
            false => self.raws.iter().map(|raw| &raw.path).collect(),
        };
        for &parent in &self.anew {
            let below = self.lower.list(self.raws[parent].path.as_bytes());
            let below = below.into_iter().flatten();
            let paths = below.map(|(_, found)| &found.entry.path);
            let lacking = paths.filter(|path| !seen.contains(path));
            missing.extend(lacking.map(|path| (parent, path.clone())));
        }
        for (parent, path) in missing {
            self.deleted.push(path.clone());
            self.raws.push(Raw {
                path,
                parent,
                state: State::Keep,
                kind: Kind::Whiteout,
                meta: Meta::default(),
            });
        }
    }

    fn push_file(
        &mut self,
        visit: &Visit<'_>,
        parent: usize,
        state: State,
        kind: Kind,
        meta: Meta,
    ) {
        let index = self.raws.len();
        let mut raw = Raw {
            path: visit.path.clone(),
            parent,
            state,
            kind,
            meta,
        };
        if visit.stat.st_nlink > 1 {
            let inode = (visit.stat.st_dev, visit.stat.st_ino);
            match self.inodes.get(&inode) {
                Some(&first) => {
                    self.raws[first].state = State::Keep;
                    raw.state = State::Keep;
                    raw.kind = Kind::Hardlink {
                        to: self.raws[first].path.clone(),
                    };
                    raw.meta = self.raws[first].meta.clone();
                }
                None => {
                    self.inodes.insert(inode, index);
                }
            }
        }
        self.raws.push(raw);
    }

    /// What a file that is no directory is; `None` for a socket, which no layer can hold.
    fn kind(&self, visit: &Visit<'_>, file_type: FileType) -> Result<Option<Kind>, SealError> {
        let major = rustix::fs::major(visit.stat.st_rdev);
        let minor = rustix::fs::minor(visit.stat.st_rdev);
        Ok(match file_type {
            FileType::RegularFile => {
                let size = visit.stat.st_size as u64;
                let digest = match self.options.known.get(visit.path) {
                    Some(known) if known.size == size => known.digest,
                    _ => UNHASHED,
                };
                Some(Kind::File { size, digest })
            }
            FileType::Symlink => {
                let target = handle::read_link(visit.dir, visit.name)
                    .map_err(|error| error.at(visit.path.as_bytes()))?;
                Some(Kind::Symlink { target })
            }
            FileType::CharacterDevice => Some(Kind::CharDevice { major, minor }),
            FileType::BlockDevice => Some(Kind::BlockDevice { major, minor }),
            FileType::Fifo => Some(Kind::Fifo),
            _ => None,
        })
    }

    fn saw(&mut self, path: &TreePath, note: Option<Owner>) {
        if self.options.one_id.is_some() && !self.options.owners.contains_key(path) {
            let path = path.clone();
            self.sights.push(Sight { path, note });
        }
    }

    fn meta(
        &self,
        path: &TreePath,
        stat: &Stat,
        xattrs: Xattrs,
        note: Option<Owner>,
        below: Option<Found<'_>>,
    ) -> Meta {
        let ids = &self.options.ids;
        let (uid, gid) = match (self.options.owners.get(path), &self.options.one_id) {
            (Some(&owner), _) => owner,
            (None, Some(_)) => {
                let below = below.as_ref().map(|found| (found.kind(), found.meta()));
                owners::owner(note, handle::file_type(stat), below)
            }
            (None, None) => (ids.uid_inside(stat.st_uid), ids.gid_inside(stat.st_gid)),
        };
        // What a link's own mode bits are is up to the file system.
        let mode = match handle::file_type(stat) {
            FileType::Symlink => 0o777,
            _ => stat.st_mode & 0o7777,
        };
        Meta {
            mode,
            uid,
            gid,
            mtime: handle::mtime(stat),
            xattrs,
        }
    }

    fn xattrs(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &TreePath,
    ) -> Result<(Xattrs, Marks), SealError> {
        let mut all = handle::xattrs(dir, name).map_err(|error| error.at(path.as_bytes()))?;
        let mut marks = Marks::default();
        if self.options.one_id.is_some() {
            let note = all.get(owners::NOTE.as_bytes());
            marks.owner = note.and_then(|value| owners::read(value));
        }
        for (key, value) in &all {
            match self.options.marks.mark(key) {
                Some(b"opaque") => marks.opaque = value == b"y",
                Some(b"whiteout") => marks.whiteout = true,
                Some(b"redirect") => {
                    return Err(SealError::Mark {
                        path: path.clone(),
                        mark: "redirect",
                    });
                }
                Some(b"metacopy") => {
                    return Err(SealError::Mark {
                        path: path.clone(),
                        mark: "metacopy",
                    });
                }
                _ => {}
            }
        }
        all.retain(|key, _| is_content_xattr(key));
        Ok((all, marks))
    }

    fn hash(&mut self, upper: BorrowedFd<'_>) -> Result<(), SealError> {
        let open = |raw: &Raw| {
            raw.state != State::Drop
                && matches!(raw.kind, Kind::File { digest, .. } if digest == UNHASHED)
        };
        let wanted: Vec<usize> = (0..self.raws.len())
            .filter(|&index| open(&self.raws[index]))
            .collect();
        let jobs: Vec<Job<'_>> = wanted
            .iter()
            .map(|&index| {
                let raw = &self.raws[index];
                let Kind::File { size, .. } = raw.kind else {
                    unreachable!("BUG: only files")
                };
                Job {
                    path: &raw.path,
                    size,
                }
            })
            .collect();
        let digests = hash_files(upper, &jobs, self.options.threads, &self.options.stop)?;
        for (index, hashed) in wanted.into_iter().zip(digests) {
            if let Kind::File { digest, .. } = &mut self.raws[index].kind {
                *digest = hashed;
            }
        }
        Ok(())
    }

    fn decide(self) -> (Vec<Entry>, Vec<TreePath>) {
        let mut full = vec![false; self.raws.len()];
        let mut entries = Vec::new();
        let mut dropped = Vec::new();
        for (index, raw) in self.raws.into_iter().enumerate().rev() {
            let keep = match raw.state {
                State::Keep => true,
                State::Drop => false,
                State::KeepIfFull => full[index],
                State::KeepIfOther => {
                    self.lower
                        .get(raw.path.as_bytes())
                        .map(|found| found.kind())
                        != Some(&raw.kind)
                }
            };
            if keep {
                full[raw.parent] = true;
                entries.push(Entry::new(raw.path, raw.kind, raw.meta));
            } else if !raw.path.is_root() {
                dropped.push(raw.path);
            }
        }
        (entries, dropped)
    }
}

/// Stands for a digest that is still to be computed; no bytes are known to hash to it.
const UNHASHED: crate::digest::FileDigest = crate::digest::FileDigest([0; 32]);

#[derive(Debug, Default)]
struct Marks {
    opaque: bool,
    whiteout: bool,
    /// The owner that a note tells.
    owner: Option<Owner>,
}

fn is_whiteout(stat: &Stat, marks: &Marks) -> bool {
    match handle::file_type(stat) {
        FileType::CharacterDevice => stat.st_rdev == 0,
        FileType::RegularFile => marks.whiteout && stat.st_size == 0,
        _ => false,
    }
}

/// Removes what was dropped, deepest first, and opaque marks.
fn clean(
    upper: BorrowedFd<'_>,
    dropped: &[TreePath],
    unmark: &[TreePath],
    marks: OverlayXattrs,
) -> Result<(), SealError> {
    let mut parent: Option<(&[u8], std::os::fd::OwnedFd)> = None;
    for path in dropped {
        let (dir, name) = path::split(path.as_bytes());
        if parent.as_ref().is_none_or(|(open, _)| *open != dir) {
            parent = Some((
                dir,
                handle::open_beneath(upper, dir, handle::READ_DIRECTORY)?,
            ));
        }
        let Some((_, handle)) = &parent else { continue };
        let stat = handle::stat(handle, name).map_err(|error| error.at(path.as_bytes()))?;
        let flags = match stat.as_ref().map(handle::file_type) {
            None => continue,
            Some(FileType::Directory) => AtFlags::REMOVEDIR,
            Some(_) => AtFlags::empty(),
        };
        rustix::fs::unlinkat(handle, name, flags)
            .map_err(|source| handle::FsError::new("remove", path.as_bytes(), source))?;
    }
    for path in unmark {
        match handle::open_beneath(upper, path.as_bytes(), handle::READ_DIRECTORY) {
            Ok(dir) => handle::remove_xattr(dir, b"", marks.opaque())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes whiteouts, also in place of sockets.
fn delete(upper: BorrowedFd<'_>, deleted: &[TreePath]) -> Result<(), SealError> {
    for path in deleted {
        let (dir, name) = path::split(path.as_bytes());
        let dir = handle::open_beneath(upper, dir, handle::READ_DIRECTORY)?;
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(source) => {
                return Err(handle::FsError::new("remove", path.as_bytes(), source).into());
            }
        }
        make_whiteout(&dir, name).map_err(|error| error.at(path.as_bytes()))?;
    }
    Ok(())
}
