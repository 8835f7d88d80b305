//! What changed between a remembered context and this one, by name.

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
    /// It is something else now: a file, a directory, a link, a pipe.
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
    let mut found = Vec::new();
    let mut pending = vec![(TreePath::ROOT, old, 0)];
    while let Some((path, old, index)) = pending.pop() {
        if old == new.directories[index].digest {
            continue;
        }
        let object = load(old).and_then(|bytes| Directory::decode(&bytes).ok());
        let Some(object) = object else {
            found.push(Change {
                path,
                what: What::Forgotten,
            });
            continue;
        };
        compare(&path, &object, index, new, &mut found, &mut pending);
        // Breadth is bounded by one directory, so this stops soon after enough was found.
        if found.len() >= most && pending.is_empty() {
            break;
        }
        if found.len() > most.saturating_mul(2).saturating_add(1024) {
            break;
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.truncate(most);
    found
}

fn compare(
    path: &TreePath,
    old: &Directory,
    index: usize,
    new: &ContextTree,
    found: &mut Vec<Change>,
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
        let mut push = |name: &[u8], what| {
            found.push(Change {
                path: path.child(name),
                what,
            })
        };
        match (gone, here) {
            (Some(gone), None) => push(&gone.name, What::Removed),
            (None, Some(here)) => push(&here.name, What::Added),
            (Some(gone), Some(here)) => {
                if let Some(what) = difference(gone, &new.node(here)) {
                    push(&gone.name, what);
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
        _ => Some(What::Type),
    }
}
