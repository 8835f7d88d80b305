//! What changed between a remembered context and this one, by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::context::object::{Child, Directory, Node};
use crate::context::tree::ContextTree;
use crate::digest::TreeDigest;
use crate::path::TreePath;

/// A path of a context that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub path: TreePath,
    /// How.
    pub what: What,
}

/// How a path changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It was not there.
    Added,
    /// It was there under another name: a file or a directory with all in it.
    Renamed {
        /// The path that it had.
        from: TreePath,
    },
    /// It is not there any more; said once for a directory and all in it.
    Removed,
    /// A file has other bytes.
    Content {
        /// Bytes that it had.
        old_size: u64,
        /// Bytes that it has.
        new_size: u64,
    },
    /// Permission bits differ, and nothing else.
    Mode {
        /// Those that it had.
        old: u32,
        /// Those that it has.
        new: u32,
    },
    /// It is something else now: a file, a directory, a link, a pipe, another device.
    Type,
    /// A link points elsewhere.
    Target,
    /// Something in the directory changed, but what it was is forgotten.
    Forgotten,
}

/// Returns what changed from the tree named `old` to `new`, sorted by path, at most `most`.
///
/// `load` gives encoded directory objects by digest. Directories with equal digests are not looked
/// at; an object that is gone or damaged makes its directory [`What::Forgotten`].
pub fn changes(
    old: TreeDigest,
    new: &ContextTree,
    load: &mut dyn FnMut(TreeDigest) -> Option<Vec<u8>>,
    most: usize,
) -> Vec<Change> {
    let mut found = Found::default();
    let mut pending = vec![(TreePath::ROOT, old, 0)];
    while let Some((path, old, index)) = pending.pop() {
        if old == new.directories[index].digest {
            continue;
        }
        let object = load(old).and_then(|bytes| Directory::decode(&bytes).ok());
        let Some(object) = object else {
            found.push(path, What::Forgotten);
            continue;
        };
        compare(&path, &object, index, new, &mut found, &mut pending);
        // Breadth is bounded by one directory, so this stops soon after enough was found.
        if found.changes.len() >= most && pending.is_empty() {
            break;
        }
        if found.changes.len() > most.saturating_mul(2).saturating_add(1024) {
            break;
        }
    }
    let mut found = found.with_renames();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.truncate(most);
    found
}

/// What tells a file or directory apart whatever its name is: its mode, its size, its digest.
type Identity = (u32, Option<u64>, [u8; 32]);

#[derive(Default)]
struct Found {
    changes: Vec<Change>,
    /// By what it is, the changes that tell of something gone.
    gone: BTreeMap<Identity, Vec<usize>>,
    /// The changes that tell of something new, with what it is.
    new: Vec<(usize, Identity)>,
}

impl Found {
    fn push(&mut self, path: TreePath, what: What) {
        self.changes.push(Change { path, what });
    }

    /// Makes one change of what went from one name to another.
    fn with_renames(mut self) -> Vec<Change> {
        let mut old_names = BTreeSet::new();
        for (new, identity) in &self.new {
            let Some(old) = self.gone.get_mut(identity).and_then(Vec::pop) else {
                continue;
            };
            old_names.insert(old);
            let from = self.changes[old].path.clone();
            self.changes[*new].what = What::Renamed { from };
        }
        let kept = self.changes.into_iter().enumerate();
        kept.filter(|(index, _)| !old_names.contains(index))
            .map(|(_, change)| change)
            .collect()
    }
}

/// None of what is often there twice: empty files, links, pipes, devices.
fn identity(node: &Node) -> Option<Identity> {
    match node {
        Node::File { size: 0, .. }
        | Node::Symlink { .. }
        | Node::Fifo { .. }
        | Node::Device { .. } => None,
        Node::File { mode, size, digest } => Some((*mode, Some(*size), digest.0)),
        Node::Directory { mode, digest } => Some((*mode, None, digest.0)),
    }
}

fn compare(
    path: &TreePath,
    old: &Directory,
    index: usize,
    new: &ContextTree,
    found: &mut Found,
    pending: &mut Vec<(TreePath, TreeDigest, usize)>,
) {
    let mut before = old.children().iter().peekable();
    let mut after = new.directories[index].items.iter().peekable();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(before), Some(after)) => before.name.cmp(&after.name),
        };
        let gone = if order.is_le() { before.next() } else { None };
        let here = if order.is_ge() { after.next() } else { None };
        match (gone, here) {
            (Some(gone), None) => {
                if let Some(identity) = identity(&gone.node) {
                    let change = found.changes.len();
                    found.gone.entry(identity).or_default().push(change);
                }
                found.push(path.child(&gone.name), What::Removed);
            }
            (None, Some(here)) => {
                if let Some(identity) = identity(&new.node(here)) {
                    found.new.push((found.changes.len(), identity));
                }
                found.push(path.child(&here.name), What::Added);
            }
            (Some(gone), Some(here)) => {
                if let Some(what) = difference(gone, &new.node(here)) {
                    found.push(path.child(&gone.name), what);
                }
                if let (Node::Directory { digest, .. }, Node::Directory { .. }) =
                    (&gone.node, &new.node(here))
                    && let crate::context::ItemKind::Directory { index } = here.kind
                {
                    pending.push((path.child(&gone.name), *digest, index));
                }
            }
            (None, None) => unreachable!("BUG: one of the two is next"),
        }
    }
}

fn difference(old: &Child, new: &Node) -> Option<What> {
    let mode = |old: u32, new: u32| (old != new).then_some(What::Mode { old, new });
    match (&old.node, new) {
        (
            Node::File {
                mode: old_mode,
                size: old_size,
                digest: old,
            },
            Node::File {
                mode: new_mode,
                size: new_size,
                digest: new,
            },
        ) => match old == new {
            true => mode(*old_mode, *new_mode),
            false => Some(What::Content {
                old_size: *old_size,
                new_size: *new_size,
            }),
        },
        (Node::Directory { mode: old, .. }, Node::Directory { mode: new, .. }) => mode(*old, *new),
        (Node::Symlink { target: old }, Node::Symlink { target: new }) => {
            (old != new).then_some(What::Target)
        }
        (Node::Fifo { mode: old }, Node::Fifo { mode: new }) => mode(*old, *new),
        (
            Node::Device {
                mode: old_mode,
                device: old,
            },
            Node::Device {
                mode: new_mode,
                device: new,
            },
        ) if old == new => mode(*old_mode, *new_mode),
        _ => Some(What::Type),
    }
}
