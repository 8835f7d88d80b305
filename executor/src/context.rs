//! Build contexts: directories of the caller, scanned in place and copied from, never changed.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_ir::pattern::{PatternError, PatternList};
use kiln_store::Store;
use kiln_tree::context::{
    ContextTree, Decision, Device, HashMemory, ItemKind, ScanOptions, Seen, Select, scan,
};
use kiln_tree::{Entry, Kind, Manifest, Meta, Mtime, Stop, TreePath, View, handle};
use rustix::fs::OFlags;

use crate::error::Error;
use crate::file::source::{Item, Origin, Source};
use crate::file::{ChangeError, FileError, Writer};

/// A context as it was when this build looked at it, after its ignore rules.
#[derive(Debug)]
pub(crate) struct ScannedContext {
    /// Its files.
    pub(crate) tree: Arc<ContextTree>,
    root: Arc<OwnedFd>,
    /// Ends whatever takes long with it.
    stop: Stop,
}

impl ScannedContext {
    /// Scans a directory; hashes of files that did not change since the last time are remembered.
    pub(crate) fn scan(
        store: &Store,
        path: &Path,
        exclude: &[String],
        stop: &Stop,
    ) -> Result<ScannedContext, Error> {
        let (context, memory, name) = Self::scan_remembering(store, path, exclude, stop)?;
        if context.tree.hashed() > 0 {
            // What another Dockerfile sees of it stays remembered, too.
            store.put_hash_memory(&name, &context.tree.memory().with(&memory).encode())?;
        }
        Ok(context)
    }

    /// The same, leaving the store as it is.
    pub(crate) fn look(
        store: &Store,
        path: &Path,
        exclude: &[String],
        stop: &Stop,
    ) -> Result<ScannedContext, Error> {
        let (context, ..) = Self::scan_remembering(store, path, exclude, stop)?;
        Ok(context)
    }

    /// Scans a directory; returns what was remembered of it, too, and under which name.
    fn scan_remembering(
        store: &Store,
        path: &Path,
        exclude: &[String],
        stop: &Stop,
    ) -> Result<(ScannedContext, HashMemory, String), Error> {
        let canonical = path.canonicalize().map_err(|source| Error::Context {
            path: path.to_owned(),
            source,
        })?;
        let name = canonical.to_string_lossy().into_owned();
        let memory = store
            .hash_memory(&name)?
            .and_then(|bytes| HashMemory::decode(&bytes).ok())
            .unwrap_or_default();
        let context = Self::scan_knowing(path, exclude, &memory, stop)?;
        Ok((context, memory, name))
    }

    /// Scans a directory that is looked at only once.
    pub(crate) fn scan_once(
        path: &Path,
        exclude: &[String],
        stop: &Stop,
    ) -> Result<ScannedContext, Error> {
        Self::scan_knowing(path, exclude, &HashMemory::default(), stop)
    }

    fn scan_knowing(
        path: &Path,
        exclude: &[String],
        memory: &HashMemory,
        stop: &Stop,
    ) -> Result<ScannedContext, Error> {
        let root: OwnedFd = File::open(path)
            .map_err(|source| Error::Context {
                path: path.to_owned(),
                source,
            })?
            .into();
        let ignore = Ignore::new(exclude).map_err(|source| Error::Pattern {
            of: "the context's ignore rules",
            source,
        })?;
        let options = ScanOptions {
            stop: stop.clone(),
            ..ScanOptions::default()
        };
        let scanned = scan(root.as_fd(), &ignore, memory, &options);
        let tree = scanned.map_err(|source| Error::Scan {
            path: path.to_owned(),
            source,
        })?;
        Ok(ScannedContext {
            tree: Arc::new(tree),
            root: Arc::new(root),
            stop: stop.clone(),
        })
    }

    /// What ends work with it early.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// It as the one layer of a view, with the directory of that.
    pub(crate) fn as_layer(&self) -> Result<(View, OwnedFd), Error> {
        let is_whiteout = |item: &kiln_tree::context::Item| matches!(item.kind, ItemKind::Device(device) if device.is_whiteout());
        let items = self.tree.iter().filter(|(_, item)| !is_whiteout(item));
        let entries = items.map(|(path, item)| {
            let Item {
                path, kind, meta, ..
            } = Self::item(path, item);
            Entry::new(path, kind, meta)
        });
        let manifest = Manifest::new(entries.collect())
            .unwrap_or_else(|error| panic!("BUG: a scanned context is no layer: {error}"));
        let root = self.root.try_clone().map_err(|source| Error::Context {
            path: PathBuf::from("."),
            source,
        })?;
        Ok((View::new(vec![Arc::new(manifest)]), root))
    }

    /// The same directory, as far as `select` goes.
    pub(crate) fn part(&self, select: &dyn Select) -> ScannedContext {
        ScannedContext {
            tree: Arc::new(self.tree.select(select)),
            root: Arc::clone(&self.root),
            stop: self.stop.clone(),
        }
    }
}

/// Ignore rules as a scan asks for them.
struct Ignore {
    patterns: PatternList,
}

impl Ignore {
    fn new(exclude: &[String]) -> Result<Ignore, PatternError> {
        Ok(Ignore {
            patterns: PatternList::new(exclude)?,
        })
    }
}

impl Select for Ignore {
    fn decide(&self, path: &[u8], is_directory: bool) -> Decision {
        if self.patterns.is_empty() {
            return Decision::Include;
        }
        let path = String::from_utf8_lossy(path);
        if !self.patterns.matches(&path) {
            Decision::Include
        } else if is_directory && self.patterns.matches_below_possible(&path) {
            Decision::ExcludeButDescend
        } else {
            Decision::Exclude
        }
    }
}

impl ScannedContext {
    fn item(path: TreePath, item: &kiln_tree::context::Item) -> Item {
        let meta = |mode: u32, seen: Option<&Seen>| Meta {
            mode,
            mtime: seen.map(Seen::modified).unwrap_or_default(),
            ..Meta::default()
        };
        match &item.kind {
            ItemKind::File {
                size, digest, seen, ..
            } => Item {
                path,
                kind: Kind::File {
                    size: *size,
                    digest: *digest,
                },
                meta: meta(item.mode, Some(seen)),
                origin: Origin::Context {
                    device: seen.device,
                    inode: seen.inode,
                },
            },
            ItemKind::Symlink { target } => Item {
                path,
                kind: Kind::Symlink {
                    target: target.clone(),
                },
                meta: meta(0o777, None),
                origin: Origin::Nowhere,
            },
            ItemKind::Fifo => Item {
                path,
                kind: Kind::Fifo,
                meta: meta(item.mode, None),
                origin: Origin::Nowhere,
            },
            ItemKind::Device(device) => Item {
                path,
                kind: match *device {
                    Device {
                        is_block: true,
                        major,
                        minor,
                    } => Kind::BlockDevice { major, minor },
                    Device { major, minor, .. } => Kind::CharDevice { major, minor },
                },
                meta: meta(item.mode, None),
                origin: Origin::Nowhere,
            },
            ItemKind::Directory { .. } => Item {
                path,
                kind: Kind::DIRECTORY,
                meta: meta(item.mode, None),
                origin: Origin::Nowhere,
            },
        }
    }

    fn root_item() -> Item {
        let meta = Meta::new(0o755);
        Item {
            path: TreePath::ROOT,
            kind: Kind::DIRECTORY,
            meta,
            origin: Origin::Nowhere,
        }
    }
}

impl Source for ScannedContext {
    fn get(&self, path: &TreePath) -> Option<Item> {
        if path.is_root() {
            return Some(Self::root_item());
        }
        self.tree
            .get(path.as_bytes())
            .map(|item| Self::item(path.clone(), item))
    }

    fn list(&self, path: &TreePath) -> Vec<Vec<u8>> {
        let items = self.tree.list(path.as_bytes()).unwrap_or_default();
        items.iter().map(|item| item.name.clone()).collect()
    }

    fn within(&self, path: &TreePath) -> Vec<Item> {
        let root = path.is_root().then(Self::root_item);
        let below = self
            .tree
            .within(path.as_bytes())
            .map(|(path, item)| Self::item(path, item));
        root.into_iter().chain(below).collect()
    }

    /// The scan keeps the times of files only; those of what is rarer are asked for when needed.
    fn mtime(&self, item: &Item) -> Mtime {
        if matches!(item.kind, Kind::File { .. }) {
            return item.meta.mtime;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let stat = handle::open_beneath(&*self.root, item.path.as_bytes(), flags)
            .and_then(|opened| Seen::of(&opened));
        // What is gone meanwhile has no bytes that could be wrong.
        stat.map_or_else(|_| item.meta.mtime, |seen| seen.modified())
    }

    fn write(
        &self,
        item: &Item,
        to: &mut Writer<'_>,
        at: &TreePath,
        meta: &Meta,
    ) -> Result<(), FileError> {
        let changed = || FileError::ContextChanged {
            path: item.path.clone(),
        };
        let known = self.tree.get(item.path.as_bytes()).ok_or_else(changed)?;
        let ItemKind::File { size, seen, .. } = &known.kind else {
            unreachable!("BUG: {:?} of a context has no bytes", item.path);
        };
        let file = self.open(item)?;
        to.copy(file.as_fd(), *size, at, meta)
            .map_err(|error| match error {
                // A file that shrank ends early; whoever changed it will be told so.
                ChangeError::Fs(_) if Seen::of(&file).is_ok_and(|now| now != *seen) => changed(),
                error => error.into(),
            })?;
        // Also tells whether what was opened is what was scanned.
        if Seen::of(&file).map_err(ChangeError::from)? != *seen {
            return Err(changed());
        }
        Ok(())
    }

    fn open(&self, item: &Item) -> Result<OwnedFd, FileError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        handle::open_beneath(&*self.root, item.path.as_bytes(), flags).map_err(|_| {
            FileError::ContextChanged {
                path: item.path.clone(),
            }
        })
    }
}

/// What an OCI layout is called in errors.
pub(crate) const LAYOUT: &str = "OCI layout";

/// Where the named contexts of a build lie on this host.
#[derive(Debug, Clone, Default)]
pub struct Locals {
    /// Directories by the names that local sources have in the plan.
    pub directories: std::collections::BTreeMap<String, PathBuf>,
    /// OCI layout directories by the names that oci-layout sources have in the plan.
    pub layouts: std::collections::BTreeMap<String, PathBuf>,
}

impl Locals {
    /// Finds the OCI layout that `reference` is about, and the tag or digest that it names in it.
    ///
    /// Forms are `NAME`, `NAME:TAG` and `NAME@DIGEST`, also with both. A name may hold colons
    /// itself, as in `alpine:3`; the longest one that was given counts.
    pub(crate) fn layout<'a>(&self, reference: &'a str) -> Result<(&Path, Option<&'a str>), Error> {
        let fits = |name: &str| {
            let rest = reference.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with([':', '@'])).then_some(rest)
        };
        let given = self.layouts.iter();
        let found = given
            .filter_map(|(name, path)| Some((name.len(), path, fits(name)?)))
            .max_by_key(|(length, ..)| *length);
        let Some((_, path, rest)) = found else {
            let name = reference.split([':', '@']).next().unwrap_or_default();
            return Err(Error::UnknownLocal {
                kind: LAYOUT,
                name: name.to_owned(),
            });
        };
        let selector = match rest.split_once('@') {
            Some((_, digest)) => Some(digest),
            None => rest.strip_prefix(':'),
        };
        Ok((path, selector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_by_name() {
        let names = ["base", "alpine:3", "alpine"];
        let locals = Locals {
            layouts: names
                .map(|name| (name.to_owned(), PathBuf::from(format!("/{name}"))))
                .into(),
            ..Locals::default()
        };
        let check = |reference: &str, expected: Option<(&str, Option<&str>)>| {
            let found = locals.layout(reference).ok();
            let expected = expected.map(|(path, selector)| (Path::new(path), selector));
            assert_eq!(found, expected, "{reference}");
        };
        check("base", Some(("/base", None)));
        check("base:v1", Some(("/base", Some("v1"))));
        check("base@sha256:00", Some(("/base", Some("sha256:00"))));
        check("base:v1@sha256:00", Some(("/base", Some("sha256:00"))));
        check("alpine:3", Some(("/alpine:3", None)));
        check("alpine:3:v1", Some(("/alpine:3", Some("v1"))));
        check("alpine:3@sha256:00", Some(("/alpine:3", Some("sha256:00"))));
        check("alpine:3.18", Some(("/alpine", Some("3.18"))));
        check("basement", None);
    }
}
