//! What a consumer sees of an input, and its digest.

use kiln_ir::CopyAction;
use serde::{Deserialize, Serialize};

/// The part of a tree that a consumer reads; sorted, each item once.
///
/// The digest of a selection covers, for every path that it names, the path relative to the item,
/// type, permission bits, owner (0:0 in a local source), link target and bytes, after the source's
/// ignore rules; no mtimes. A path that is not there is an error of the consumer, not of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selection {
    /// What is read, sorted.
    pub items: Vec<SelectionItem>,
}

/// One thing that a consumer reads of a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelectionItem {
    /// A path with all that is below it, as a mount shows it; `/` is the whole tree.
    Subtree(String),
    /// What a copy takes.
    Copy(CopySelection),
    /// `/etc/passwd` and `/etc/group`, for owners given by name; their absence is part of the digest.
    Users,
}

/// What a copy takes, in the words of [`kiln_ir::CopyAction`].
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct CopySelection {
    /// Path in the tree, perhaps with wildcards.
    pub src: String,
    /// `src` is a pattern.
    pub allow_wildcard: bool,
    /// A pattern may match nothing.
    pub allow_empty_wildcard: bool,
    /// A link as the source is followed.
    pub follow_symlink: bool,
    /// Of a directory, what is in it is copied.
    pub dir_copy_contents: bool,
    /// Only paths that match.
    pub include_patterns: Vec<String>,
    /// No paths that match.
    pub exclude_patterns: Vec<String>,
    /// Paths that must be there.
    pub required_paths: Vec<String>,
}

impl From<&CopyAction> for CopySelection {
    fn from(copy: &CopyAction) -> Self {
        CopySelection {
            src: copy.src.clone(),
            allow_wildcard: copy.allow_wildcard,
            allow_empty_wildcard: copy.allow_empty_wildcard,
            follow_symlink: copy.follow_symlink,
            dir_copy_contents: copy.dir_copy_contents,
            include_patterns: copy.include_patterns.clone(),
            exclude_patterns: copy.exclude_patterns.clone(),
            required_paths: copy.required_paths.clone(),
        }
    }
}

/// The digest of a [`Selection`] of one tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SelectionDigest {
    /// BLAKE3 over what was selected; all that a key takes.
    pub digest: [u8; 32],
    /// Where the selected files are listed, so that a later build can name those that changed.
    pub tree: Option<TreeRef>,
    /// For people, such as `200 files, 1.2 MB`; may be empty.
    pub summary: String,
}

/// A tree of directory digests that the worker keeps; only [`crate::Worker::diff_trees`] reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TreeRef(pub [u8; 32]);

impl Selection {
    /// The whole tree.
    pub fn all() -> Self {
        Selection {
            items: vec![SelectionItem::Subtree("/".to_owned())],
        }
    }

    /// Whether it is the whole tree.
    pub fn is_all(&self) -> bool {
        self.items
            .iter()
            .any(|item| matches!(item, SelectionItem::Subtree(path) if path == "/"))
    }

    pub(crate) fn from_items(mut items: Vec<SelectionItem>) -> Self {
        items.sort();
        items.dedup();
        Selection { items }
    }
}
