//! What a copy takes from: layers over each other, or a build context.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};

use kiln_tree::resolve::follow;
use kiln_tree::{FsError, Kind, Meta, Mtime, TreePath, View, handle};
use rustix::fs::OFlags;

use super::FileError;
use super::changeset::ChangeError;
use super::writer::Writer;

/// Something in a source.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Where it is in the source.
    pub(crate) path: TreePath,
    /// What it is; never a hard link or a whiteout.
    pub(crate) kind: Kind,
    /// Its attributes.
    pub(crate) meta: Meta,
    /// Where its bytes are.
    pub(crate) origin: Origin,
}

/// Where the bytes of an item are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Origin {
    /// It has none.
    Nowhere,
    /// In a layer's directory; equal origins are names of one file.
    Layer { index: usize, path: TreePath },
    /// In the context's directory, at its own path; equal ones are names of one file.
    Context { device: u64, inode: u64 },
}

/// A tree that files are taken from.
pub(crate) trait Source {
    /// What is at exactly `path`; links are not followed.
    fn get(&self, path: &TreePath) -> Option<Item>;
    /// The names in a directory, sorted; empty where there is none.
    fn list(&self, path: &TreePath) -> Vec<Vec<u8>>;
    /// What is at `path` and below it, sorted, `path` itself first.
    fn within(&self, path: &TreePath) -> Vec<Item>;
    /// When an item was last changed.
    fn mtime(&self, item: &Item) -> Mtime {
        item.meta.mtime
    }
    /// Opens the bytes of a regular file.
    fn open(&self, item: &Item) -> Result<OwnedFd, FileError>;
    /// Writes a file of this tree to a layer, with new attributes.
    fn write(
        &self,
        item: &Item,
        to: &mut Writer<'_>,
        at: &TreePath,
        meta: &Meta,
    ) -> Result<(), FileError>;

    /// Follows the links in `path`.
    fn resolve(&self, path: &[u8], follow_last: bool) -> Result<TreePath, ChangeError> {
        let found = follow(path, follow_last, |at| match self.get(at)?.kind {
            Kind::Symlink { target } => Some(target),
            _ => None,
        });
        Ok(found?)
    }
}

/// Layers over each other with their directories, lowest first.
pub(crate) struct Layers {
    pub(crate) view: View,
    pub(crate) directories: Vec<OwnedFd>,
    /// Unchanged files may be links to the layers' own; not where somebody will write to them, and not in another
    /// layer: over each other both would show one file with two names.
    pub(crate) may_link: bool,
}

impl Layers {
    fn item(&self, found: kiln_tree::Found<'_>) -> Item {
        let origin = match found.kind() {
            Kind::File { .. } => Origin::Layer {
                index: found.layer,
                path: found.inode.path.clone(),
            },
            _ => Origin::Nowhere,
        };
        Item {
            path: found.entry.path.clone(),
            kind: match found.kind() {
                // How a directory treats what lies below it does not travel.
                Kind::Directory { .. } => Kind::DIRECTORY,
                kind => kind.clone(),
            },
            meta: found.meta().clone(),
            origin,
        }
    }

    /// Returns the bytes of a small file, links followed, or nothing where there is no file.
    pub(crate) fn read(&self, path: &[u8], limit_bytes: u64) -> Result<Option<Vec<u8>>, FileError> {
        let at = self.resolve(path, true)?;
        let Some(item) = self
            .get(&at)
            .filter(|item| matches!(item.kind, Kind::File { .. }))
        else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        File::from(self.open(&item)?)
            .take(limit_bytes)
            .read_to_end(&mut bytes)
            .map_err(|error| ChangeError::from(FsError::new("read", at.as_bytes(), error)))?;
        Ok(Some(bytes))
    }

    fn root(&self) -> Item {
        let meta = self
            .view
            .get(b"")
            .map_or_else(|| Meta::new(0o755), |found| found.meta().clone());
        Item {
            path: TreePath::ROOT,
            kind: Kind::DIRECTORY,
            meta,
            origin: Origin::Nowhere,
        }
    }
}

impl Source for Layers {
    fn get(&self, path: &TreePath) -> Option<Item> {
        if path.is_root() {
            return Some(self.root());
        }
        self.view.get(path.as_bytes()).map(|found| self.item(found))
    }

    fn list(&self, path: &TreePath) -> Vec<Vec<u8>> {
        let children = self.view.list(path.as_bytes()).unwrap_or_default();
        children
            .into_iter()
            .map(|(name, _)| name.to_vec())
            .collect()
    }

    fn within(&self, path: &TreePath) -> Vec<Item> {
        let mut items = Vec::new();
        if path.is_root() {
            items.push(self.root());
        }
        let below = self
            .view
            .within(path.as_bytes())
            .filter(|found| !found.entry.path.is_root());
        items.extend(below.map(|found| self.item(found)));
        items
    }

    fn write(
        &self,
        item: &Item,
        to: &mut Writer<'_>,
        at: &TreePath,
        meta: &Meta,
    ) -> Result<(), FileError> {
        let (Kind::File { size, .. }, Origin::Layer { index, path }) = (&item.kind, &item.origin)
        else {
            unreachable!("BUG: {:?} of a layer has no bytes", item.path);
        };
        let layer = (*index, self.directories[*index].as_fd());
        if !(*meta == item.meta && self.may_link && to.link(layer, path, at)?) {
            let file = self.open(item)?;
            to.copy(file.as_fd(), *size, at, meta)?;
        }
        Ok(())
    }

    fn open(&self, item: &Item) -> Result<OwnedFd, FileError> {
        let Origin::Layer { index, path } = &item.origin else {
            unreachable!("BUG: {:?} of a layer has no bytes", item.path);
        };
        let directory = &self.directories[*index];
        Ok(
            handle::open_beneath(directory, path.as_bytes(), OFlags::RDONLY)
                .map_err(ChangeError::from)?,
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A tree of items in memory, without bytes.
    #[derive(Debug, Default)]
    pub(crate) struct Items {
        items: BTreeMap<TreePath, Item>,
    }

    impl Items {
        pub(crate) fn new(items: impl IntoIterator<Item = Item>) -> Items {
            Items {
                items: items
                    .into_iter()
                    .map(|item| (item.path.clone(), item))
                    .collect(),
            }
        }
    }

    impl Source for Items {
        fn get(&self, path: &TreePath) -> Option<Item> {
            self.items.get(path).cloned()
        }

        fn list(&self, path: &TreePath) -> Vec<Vec<u8>> {
            let children = self
                .items
                .keys()
                .filter(|at| at.parent().as_ref() == Some(path));
            children.map(|at| at.name().to_vec()).collect()
        }

        fn within(&self, path: &TreePath) -> Vec<Item> {
            let below = self
                .items
                .values()
                .filter(|item| item.path.starts_with(path.as_bytes()));
            below.cloned().collect()
        }

        fn write(
            &self,
            _: &Item,
            _: &mut Writer<'_>,
            _: &TreePath,
            _: &Meta,
        ) -> Result<(), FileError> {
            unreachable!("BUG: these items have no bytes")
        }

        fn open(&self, _: &Item) -> Result<OwnedFd, FileError> {
            unreachable!("BUG: these items have no bytes")
        }
    }
}
