//! The manifest of a layer: sorted, checked entries.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::aged::Age;
use crate::digest::LayerId;
use crate::manifest::encoding;
use crate::manifest::entry::{Entry, Kind, Meta};
use crate::path::{self, TreePath};
use crate::wire::DecodeError;

/// The entries of one layer, sorted by path.
///
/// Invariants: paths are unique; every entry's parents are there and are directories (only the
/// root's own entry may be missing); a hard link's target precedes it; see [`Kind`] for the rest.
#[derive(Debug, Clone, Default)]
pub struct Manifest {
    entries: Vec<Entry>,
    has_opaque: bool,
    id: OnceLock<LayerId>,
}

/// Entries do not make a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Two entries have the same path.
    #[error("layer lists `{0}` twice")]
    Duplicate(TreePath),
    /// Something lies below an entry that is no directory.
    #[error("layer lists `{0}` below something that is not a directory")]
    ParentNotDirectory(TreePath),
    /// A directory on the way to an entry is missing.
    #[error("layer lists `{0}` without the directories above it")]
    ParentMissing(TreePath),
    /// A hard link leads nowhere useful.
    #[error("hard link `{path}` to `{to}`: {reason}")]
    Hardlink {
        /// The link.
        path: TreePath,
        /// Its target.
        to: TreePath,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Some attribute of an entry is out of range.
    #[error("entry `{path}` {reason}")]
    Entry {
        /// The entry.
        path: TreePath,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Manifest {
    /// Makes a manifest of entries in any order.
    ///
    /// Missing parents are added as passing directories of mode 0755; hard link groups are turned
    /// so that the first path in order holds the file; attributes that an entry kind fixes
    /// (those of a whiteout, a link) are set. Everything else that is wrong is an error.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, ManifestError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        add_parents(&mut entries)?;
        turn_hardlinks(&mut entries)?;
        Self::from_sorted(entries)
    }

    /// Returns the layer with older files, which its id does not tell.
    #[must_use]
    pub fn aged(&self, by: Age) -> Manifest {
        let mut aged = self.clone();
        for entry in &mut aged.entries {
            if entry.kind != Kind::Whiteout {
                entry.meta.mtime = by.of(entry.meta.mtime);
            }
        }
        aged
    }

    /// Checks that the entries keep every invariant already.
    pub(crate) fn from_sorted(entries: Vec<Entry>) -> Result<Self, ManifestError> {
        check(&entries)?;
        let is_opaque = |entry: &Entry| matches!(entry.kind, Kind::Directory { opaque: true, .. });
        Ok(Self {
            has_opaque: entries.iter().any(is_opaque),
            entries,
            id: OnceLock::new(),
        })
    }

    /// Whether some directory hides what lower layers have in it.
    pub(crate) fn has_opaque(&self) -> bool {
        self.has_opaque
    }

    /// The deepest entry above `path`, which has none itself; the root's own is not looked at.
    pub(crate) fn above(&self, path: &[u8]) -> Option<&Entry> {
        let at = self.find(path).unwrap_or_else(|at| at);
        // Whatever is listed directly before is that entry, or is inside of it.
        let before = self.entries[..at].last()?.path.as_bytes();
        let same = path.iter().zip(before).take_while(|(a, b)| a == b).count();
        let is_end = |at: usize| before.get(at).is_none_or(|&byte| byte == b'/');
        let end = match path.get(same) {
            Some(b'/') if is_end(same) => same,
            _ => path[..same].iter().rposition(|&byte| byte == b'/')?,
        };
        self.get(&path[..end])
    }

    /// The entries, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the entry at exactly `path`.
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        self.find(path).ok().map(|index| &self.entries[index])
    }

    /// Returns the entry at `path`, if any, and all entries below it.
    pub fn within(&self, path: &[u8]) -> &[Entry] {
        let start = self.find(path).unwrap_or_else(|at| at);
        let rest = &self.entries[start..];
        &rest[..rest.partition_point(|entry| entry.path.starts_with(path))]
    }

    /// The passing directories with those above them, which an archive of the layer does not tell;
    /// nothing if there are none.
    pub fn passing(&self) -> Option<Manifest> {
        let is_passing = |entry: &&Entry| entry.kind.is_passing();
        let passing: Vec<&Entry> = self.entries.iter().filter(is_passing).collect();
        if passing.is_empty() {
            return None;
        }
        // In path order what lies in a directory follows it, so that the next passing one tells.
        let leads_on = |entry: &&Entry| {
            let next = passing.partition_point(|passing| passing.path < entry.path);
            let next = passing.get(next);
            next.is_some_and(|passing| passing.path.starts_with(entry.path.as_bytes()))
        };
        let kept = self
            .entries
            .iter()
            .filter(|entry| entry.kind.is_directory())
            .filter(leads_on)
            .cloned();
        let manifest = Manifest::from_sorted(kept.collect());
        Some(manifest.expect("BUG: the directories of a manifest are none"))
    }

    /// Follows a hard link to the entry that says what it is; any other entry is itself.
    pub fn resolve<'a>(&'a self, entry: &'a Entry) -> &'a Entry {
        match &entry.kind {
            Kind::Hardlink { to } => self
                .get(to.as_bytes())
                .expect("BUG: a checked hard link has its target"),
            _ => entry,
        }
    }

    /// The bytes of all files, each hard link group counted once.
    pub fn total_bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| match entry.kind {
                Kind::File { size, .. } => size,
                _ => 0,
            })
            .fold(0, u64::saturating_add)
    }

    /// The content id: all that the manifest says, but for modification times.
    pub fn id(&self) -> LayerId {
        *self.id.get_or_init(|| encoding::id(&self.entries))
    }

    /// Returns the bytes that [`Manifest::decode`] reads; docs/formats/layer-manifest.md.
    pub fn encode(&self) -> Vec<u8> {
        encoding::encode(&self.entries)
    }

    /// Reads an encoded manifest, strictly: only bytes that `encode` gives are accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        encoding::decode(bytes)
    }

    pub(crate) fn find(&self, path: &[u8]) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|entry| path::compare(entry.path.as_bytes(), path))
    }
}

impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for Manifest {}

fn add_parents(entries: &mut Vec<Entry>) -> Result<(), ManifestError> {
    let mut missing = Vec::new();
    let mut above: Vec<TreePath> = Vec::new();
    for entry in entries.iter() {
        while above
            .last()
            .is_some_and(|dir| !entry.path.starts_with(dir.as_bytes()))
        {
            above.pop();
        }
        let mut missed = Vec::new();
        let mut parent = entry.path.parent();
        while let Some(dir) = parent.filter(|dir| !dir.is_root() && above.last() != Some(dir)) {
            parent = dir.parent();
            missed.push(dir);
        }
        for dir in missed.into_iter().rev() {
            let kind = Kind::Directory {
                opaque: false,
                passing: true,
            };
            missing.push(Entry::new(dir.clone(), kind, Meta::new(0o755)));
            above.push(dir);
        }
        above.push(entry.path.clone());
    }
    if !missing.is_empty() {
        entries.append(&mut missing);
        entries.sort_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(())
}

fn turn_hardlinks(entries: &mut [Entry]) -> Result<(), ManifestError> {
    let find = |entries: &[Entry], path: &TreePath| {
        entries.binary_search_by(|entry| entry.path.cmp(path)).ok()
    };
    // Target index to the group's first index in order.
    let mut firsts: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let Kind::Hardlink { to } = &entry.kind else {
            continue;
        };
        let target = find(entries, to).ok_or_else(|| ManifestError::Hardlink {
            path: entry.path.clone(),
            to: to.clone(),
            reason: "the layer has no such path",
        })?;
        let first = firsts.entry(target).or_insert(target);
        *first = index.min(*first);
    }
    for (&target, &first) in &firsts {
        if first < target {
            entries[first].kind = entries[target].kind.clone();
            entries[first].meta = entries[target].meta.clone();
            entries[target].kind = Kind::Hardlink {
                to: entries[first].path.clone(),
            };
        }
    }
    for index in 0..entries.len() {
        let Kind::Hardlink { to } = &entries[index].kind else {
            continue;
        };
        let target = find(entries, to).expect("BUG: the target was found above");
        let first = firsts.get(&target).copied().unwrap_or(target);
        let to = entries[first].path.clone();
        entries[index].meta = entries[first].meta.clone();
        entries[index].kind = Kind::Hardlink { to };
    }
    Ok(())
}

fn check(entries: &[Entry]) -> Result<(), ManifestError> {
    let mut above: Vec<&Entry> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Some(before) = index.checked_sub(1).map(|before| &entries[before]) {
            match before.path.cmp(&entry.path) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    return Err(ManifestError::Duplicate(entry.path.clone()));
                }
                std::cmp::Ordering::Greater => return Err(flaw(entry, "is out of order")),
            }
        }
        while above
            .last()
            .is_some_and(|dir| !entry.path.starts_with(dir.path.as_bytes()))
        {
            above.pop();
        }
        let above_root = path::parent(entry.path.as_bytes()).is_some_and(|dir| !dir.is_empty());
        match above.last() {
            Some(parent) if !parent.kind.is_directory() => {
                return Err(ManifestError::ParentNotDirectory(entry.path.clone()));
            }
            Some(parent) if Some(parent.path.as_bytes()) == path::parent(entry.path.as_bytes()) => {
            }
            _ if above_root => return Err(ManifestError::ParentMissing(entry.path.clone())),
            _ => {}
        }
        check_entry(entries, entry)?;
        above.push(entry);
    }
    Ok(())
}

fn check_entry(entries: &[Entry], entry: &Entry) -> Result<(), ManifestError> {
    let meta = &entry.meta;
    if meta.mode & !0o7777 != 0 {
        return Err(flaw(entry, "has mode bits beyond 07777"));
    }
    if meta.mtime.nanos >= 1_000_000_000 {
        return Err(flaw(entry, "has a time of more than 999999999 nanoseconds"));
    }
    for (name, value) in &meta.xattrs {
        if name.is_empty() || name.len() > 255 || name.contains(&0) || value.len() > 65536 {
            return Err(flaw(
                entry,
                "has an extended attribute that no kernel would take",
            ));
        }
    }
    match &entry.kind {
        Kind::Directory {
            opaque: true,
            passing: true,
        } => Err(flaw(entry, "is both opaque and passed through")),
        Kind::Directory { .. } => Ok(()),
        _ if entry.path.is_root() => Err(flaw(entry, "is the root and not a directory")),
        Kind::Symlink { target } if target.is_empty() || target.contains(&0) => {
            Err(flaw(entry, "is a symbolic link to an impossible target"))
        }
        Kind::CharDevice { major: 0, minor: 0 } => Err(flaw(
            entry,
            "is the character device 0:0, which marks a deletion",
        )),
        Kind::Whiteout if *meta != Meta::default() => {
            Err(flaw(entry, "is a deletion with attributes"))
        }
        Kind::Hardlink { to } => check_hardlink(entries, entry, to),
        _ => Ok(()),
    }
}

fn check_hardlink(entries: &[Entry], entry: &Entry, to: &TreePath) -> Result<(), ManifestError> {
    let bad = |reason| {
        Err(ManifestError::Hardlink {
            path: entry.path.clone(),
            to: to.clone(),
            reason,
        })
    };
    let Ok(index) = entries.binary_search_by(|other| other.path.cmp(to)) else {
        return bad("the layer has no such path");
    };
    let target = &entries[index];
    if target.path >= entry.path {
        return bad("the first path of a group must hold the file");
    }
    match target.kind {
        Kind::Directory { .. } => bad("it is a directory"),
        Kind::Whiteout => bad("it is deleted"),
        Kind::Hardlink { .. } => bad("it is a hard link itself"),
        _ if target.meta != entry.meta => bad("their attributes differ"),
        _ => Ok(()),
    }
}

fn flaw(entry: &Entry, reason: &'static str) -> ManifestError {
    ManifestError::Entry {
        path: entry.path.clone(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &str, passing: bool) -> Entry {
        let kind = Kind::Directory {
            opaque: false,
            passing,
        };
        Entry::new(TreePath::new(path).unwrap(), kind, Meta::new(0o755))
    }

    #[test]
    fn passing_directories_come_with_those_above_them() {
        let all = [
            directory("a", true),
            directory("a/b", false),
            directory("a/b/c", true),
            directory("a-b", false),
            directory("d", false),
            directory("d/e", false),
        ];
        let manifest = Manifest::new(all.to_vec()).unwrap();
        let passing = manifest.passing().unwrap();
        let paths: Vec<String> = passing
            .entries()
            .iter()
            .map(|entry| entry.path.to_string())
            .collect();
        assert_eq!(paths, ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(Manifest::decode(&passing.encode()).unwrap(), passing);
        let none = Manifest::new(vec![directory("d", false)]).unwrap();
        assert!(none.passing().is_none());
    }
}
