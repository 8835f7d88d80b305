//! A scanned context, and parts of it.

use crate::context::memory::{HashMemory, Seen};
use crate::context::object::{self, Device, Node};
use crate::context::select::{Decision, Select};
use crate::digest::{FileDigest, TreeDigest};
use crate::path::{TreePath, is_within, split};

/// A scanned context or a selection of one: directories by index, the root first, each after the
/// one that holds it.
#[derive(Debug, Clone)]
pub struct ContextTree {
    pub(super) directories: Vec<Scanned>,
    pub(super) hashed: usize,
}

/// A directory of a context.
#[derive(Debug, Clone)]
pub(super) struct Scanned {
    pub(super) path: TreePath,
    /// Sorted by name.
    pub(super) items: Vec<Item>,
    pub(super) digest: TreeDigest,
    /// Whether it counts even if nothing in it does.
    pub(super) included: bool,
}

/// A name in a directory of a context.
#[derive(Debug, Clone)]
pub struct Item {
    /// One path component.
    pub name: Vec<u8>,
    /// The lower twelve mode bits; 0777 for a link.
    pub mode: u32,
    /// What it is.
    pub kind: ItemKind,
}

/// What an item is.
#[derive(Debug, Clone)]
pub enum ItemKind {
    /// A regular file.
    File {
        /// Length of its bytes.
        size: u64,
        /// Their digest.
        digest: FileDigest,
        /// What `stat` said when they had it: compare after copying.
        seen: Seen,
        /// Whether that is enough to know the digest again later.
        settled: bool,
        /// Whether the file has other names, in the context or outside of it.
        linked: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as bytes.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A device, also one that overlays mean a deletion by.
    Device(Device),
    /// A directory of the same tree, by index.
    Directory {
        /// The index; see [`ContextTree::directory_digest`].
        index: usize,
    },
}

impl ContextTree {
    /// The digest of all that the tree selects.
    pub fn digest(&self) -> TreeDigest {
        self.directories[0].digest
    }

    /// The digest of a directory that an item names.
    pub fn directory_digest(&self, index: usize) -> TreeDigest {
        self.directories[index].digest
    }

    /// How many files had to be read.
    pub fn hashed(&self) -> usize {
        self.hashed
    }

    /// Returns the item at `path`; `None` for the root, and where nothing is selected.
    ///
    /// Symbolic links on the way are not followed.
    pub fn get(&self, path: &[u8]) -> Option<&Item> {
        let (above, name) = split(path);
        let items = &self.directory(above)?.items;
        let index = items
            .binary_search_by(|item| item.name.as_slice().cmp(name))
            .ok()?;
        Some(&items[index])
    }

    /// The items of the directory `path`, sorted by name.
    pub fn list(&self, path: &[u8]) -> Option<&[Item]> {
        self.directory(path)
            .map(|directory| directory.items.as_slice())
    }

    fn directory(&self, path: &[u8]) -> Option<&Scanned> {
        let mut directory = &self.directories[0];
        for name in path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
        {
            let items = &directory.items;
            let index = items
                .binary_search_by(|item| item.name.as_slice().cmp(name))
                .ok()?;
            let ItemKind::Directory { index } = items[index].kind else {
                return None;
            };
            directory = &self.directories[index];
        }
        Some(directory)
    }

    /// The digest of what is at `path` alone, whatever lies beside and above it.
    ///
    /// That of the root is the digest of the tree.
    pub fn digest_at(&self, path: &[u8]) -> Option<TreeDigest> {
        if path.is_empty() {
            return Some(self.digest());
        }
        let item = self.get(path)?;
        let alone = [(item.name.as_slice(), self.node(item))];
        Some(object::digest(&object::encode(alone.into_iter())))
    }

    /// Every item with its path, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (TreePath, &Item)> {
        self.within(b"")
    }

    /// The item at `path`, unless that is the root, and every one below it, sorted by path.
    pub fn within(&self, path: &[u8]) -> impl Iterator<Item = (TreePath, &Item)> {
        let start: Vec<(&Scanned, usize, usize)> = if path.is_empty() {
            vec![(&self.directories[0], 0, self.directories[0].items.len())]
        } else {
            let (above, name) = split(path);
            let found = self.directory(above).and_then(|directory| {
                let items = &directory.items;
                let at = items
                    .binary_search_by(|item| item.name.as_slice().cmp(name))
                    .ok()?;
                Some((directory, at, at + 1))
            });
            found.into_iter().collect()
        };
        Within {
            tree: self,
            stack: start,
        }
    }

    /// The part of the tree that `select` includes, with the directories above it.
    pub fn select(&self, select: &dyn Select) -> ContextTree {
        let mut part = vec![Scanned {
            items: Vec::new(),
            ..self.directories[0].clone()
        }];
        let mut origins = vec![0];
        let mut next = 0;
        while next < part.len() {
            let origin = &self.directories[origins[next]];
            let mut items = Vec::new();
            for item in &origin.items {
                let path = origin.path.child(&item.name);
                let is_directory = matches!(item.kind, ItemKind::Directory { .. });
                let decision = select.decide(path.as_bytes(), is_directory);
                match (&item.kind, decision) {
                    (_, Decision::Exclude) => {}
                    (ItemKind::Directory { index }, decision) => {
                        let included = decision == Decision::Include;
                        let kind = ItemKind::Directory { index: part.len() };
                        items.push(Item {
                            name: item.name.clone(),
                            mode: item.mode,
                            kind,
                        });
                        let digest = TreeDigest([0; 32]);
                        part.push(Scanned {
                            path,
                            items: Vec::new(),
                            digest,
                            included,
                        });
                        origins.push(*index);
                    }
                    (_, Decision::Include) => items.push(item.clone()),
                    (_, Decision::ExcludeButDescend) => {}
                }
            }
            part[next].items = items;
            next += 1;
        }
        ContextTree::settle(part, 0)
    }

    /// The digests that may be remembered for the next scan.
    pub fn memory(&self) -> HashMemory {
        let items = self
            .directories
            .iter()
            .flat_map(|directory| &directory.items);
        HashMemory::new(items.filter_map(|item| match item.kind {
            ItemKind::File {
                digest,
                seen,
                settled: true,
                ..
            } => Some((seen, digest)),
            _ => None,
        }))
    }

    /// Every directory as an encoded object, those that are in others first.
    pub fn objects(&self) -> impl Iterator<Item = (TreeDigest, Vec<u8>)> {
        self.directories
            .iter()
            .rev()
            .map(|directory| (directory.digest, self.encode(directory)))
    }

    /// The size of all selected files.
    pub fn total_bytes(&self) -> u64 {
        let items = self
            .directories
            .iter()
            .flat_map(|directory| &directory.items);
        items.fold(0, |total, item| match item.kind {
            ItemKind::File { size, .. } => total.saturating_add(size),
            _ => total,
        })
    }

    pub(super) fn node(&self, item: &Item) -> Node {
        match &item.kind {
            ItemKind::File { size, digest, .. } => Node::File {
                mode: item.mode,
                size: *size,
                digest: *digest,
            },
            ItemKind::Symlink { target } => Node::Symlink {
                target: target.clone(),
            },
            ItemKind::Fifo => Node::Fifo { mode: item.mode },
            ItemKind::Device(device) => Node::Device {
                mode: item.mode,
                device: *device,
            },
            ItemKind::Directory { index } => Node::Directory {
                mode: item.mode,
                digest: self.directories[*index].digest,
            },
        }
    }

    pub(super) fn encode(&self, directory: &Scanned) -> Vec<u8> {
        let items = directory.items.iter();
        object::encode(items.map(|item| (item.name.as_slice(), self.node(item))))
    }

    /// Sorts and digests the directories of a tree, and leaves out those that nothing selects.
    ///
    /// Every directory's index must be greater than that of the one that holds it.
    pub(super) fn settle(directories: Vec<Scanned>, hashed: usize) -> ContextTree {
        let mut tree = ContextTree {
            directories,
            hashed,
        };
        for index in (0..tree.directories.len()).rev() {
            let mut items = std::mem::take(&mut tree.directories[index].items);
            items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            items.retain(|item| match item.kind {
                ItemKind::Directory { index } => {
                    let below = &tree.directories[index];
                    below.included || !below.items.is_empty()
                }
                _ => true,
            });
            tree.directories[index].items = items;
            let digest = object::digest(&tree.encode(&tree.directories[index]));
            tree.directories[index].digest = digest;
        }
        tree.prune()
    }

    /// Drops directories that no item names any more.
    fn prune(self) -> ContextTree {
        let mut kept = vec![false; self.directories.len()];
        kept[0] = true;
        for (index, directory) in self.directories.iter().enumerate() {
            if kept[index] {
                for item in &directory.items {
                    if let ItemKind::Directory { index } = item.kind {
                        kept[index] = true;
                    }
                }
            }
        }
        if kept.iter().all(|kept| *kept) {
            return self;
        }
        let places: Vec<usize> = kept
            .iter()
            .scan(0, |next, kept| {
                let place = *next;
                *next += usize::from(*kept);
                Some(place)
            })
            .collect();
        let directories = self
            .directories
            .into_iter()
            .zip(kept)
            .filter(|(_, kept)| *kept);
        let directories = directories.map(|(mut directory, _)| {
            for item in &mut directory.items {
                if let ItemKind::Directory { index } = &mut item.kind {
                    *index = places[*index];
                }
            }
            directory
        });
        ContextTree {
            directories: directories.collect(),
            hashed: self.hashed,
        }
    }
}

struct Within<'a> {
    tree: &'a ContextTree,
    /// Directories with the range of their items that is still to come.
    stack: Vec<(&'a Scanned, usize, usize)>,
}

impl<'a> Iterator for Within<'a> {
    type Item = (TreePath, &'a Item);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (directory, at, end) = self.stack.last_mut()?;
            if at == end {
                self.stack.pop();
                continue;
            }
            let item = &directory.items[*at];
            let path = directory.path.child(&item.name);
            debug_assert!(is_within(path.as_bytes(), directory.path.as_bytes()));
            *at += 1;
            if let ItemKind::Directory { index } = item.kind {
                let below = &self.tree.directories[index];
                self.stack.push((below, 0, below.items.len()));
            }
            return Some((path, item));
        }
    }
}
