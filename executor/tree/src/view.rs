//! What an ordered list of layers looks like when they lie on top of each other.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use crate::manifest::{Entry, Kind, Manifest, Meta};
use crate::path::{self, TreePath};

/// The merged view of layers, lowest first.
///
/// Single look-ups go through the manifests; the whole merged list is made only when something
/// walks it, and is then kept.
#[derive(Debug, Clone, Default)]
pub struct View {
    layers: Vec<Arc<Manifest>>,
    merged: OnceLock<Vec<At>>,
}

/// What a view shows at a path.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The index of the layer that it comes from, and in whose directory its bytes are.
    pub layer: usize,
    /// The layer's own entry, perhaps a hard link; never a whiteout.
    pub entry: &'a Entry,
    /// The entry that says what it is: the hard link's target, else the same.
    pub inode: &'a Entry,
}

/// The differences of two views as a layer.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The layer that turns the lower view into the upper one.
    pub manifest: Manifest,
    /// For each entry of the manifest, the layer of the upper view where it comes from, at the
    /// same path; `None` for a whiteout.
    pub origins: Vec<Option<usize>>,
}

/// An entry of a layer, by indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    layer: u32,
    entry: u32,
}

impl<'a> Found<'a> {
    /// What it is; never a hard link or a whiteout.
    pub fn kind(&self) -> &'a Kind {
        &self.inode.kind
    }

    /// Its attributes.
    pub fn meta(&self) -> &'a Meta {
        &self.inode.meta
    }

    /// Whether the two are equal but for times and for how they came about.
    pub fn same_content(&self, other: &Found<'_>) -> bool {
        self.kind().looks_like(other.kind()) && self.meta().same_but_time(other.meta())
    }
}

impl View {
    /// Returns the view of `layers`, lowest first.
    pub fn new(layers: Vec<Arc<Manifest>>) -> Self {
        Self {
            layers,
            merged: OnceLock::new(),
        }
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Arc<Manifest>] {
        &self.layers
    }

    /// Returns what is at `path`.
    ///
    /// The root is found only where some layer lists it; it exists all the same.
    pub fn get(&self, path: &[u8]) -> Option<Found<'_>> {
        if let Some(merged) = self.merged.get() {
            return merged
                .binary_search_by(|at| path::compare(self.entry(*at).path.as_bytes(), path))
                .ok()
                .map(|index| self.found(merged[index]));
        }
        let mut passed = None;
        for (layer, manifest) in self.layers.iter().enumerate().rev() {
            match manifest.get(path) {
                Some(entry) => match entry.kind {
                    Kind::Whiteout => return passed,
                    Kind::Directory { passing: true, .. } => {
                        passed = Some(self.found_in(layer, entry));
                        // A directory above it may hide the lower layers all the same.
                        if hides(manifest, path) {
                            return passed;
                        }
                    }
                    Kind::Directory { .. } => return Some(self.found_in(layer, entry)),
                    _ => return passed.or_else(|| Some(self.found_in(layer, entry))),
                },
                None if hides(manifest, path) => return passed,
                None => {}
            }
        }
        passed
    }

    /// Returns the names in the directory `path`, sorted, or `None` where no directory is.
    pub fn list(&self, path: &[u8]) -> Option<Vec<(&[u8], Found<'_>)>> {
        if !path.is_empty() && !self.get(path)?.kind().is_directory() {
            return None;
        }
        let mut children = BTreeSet::new();
        for manifest in &self.layers {
            let mut rest = manifest.within(path);
            if rest
                .first()
                .is_some_and(|entry| entry.path.as_bytes() == path)
            {
                rest = &rest[1..];
            }
            while let Some(child) = rest.first() {
                children.insert(child.path.as_bytes());
                let prefix = child.path.as_bytes();
                rest = &rest[rest.partition_point(|entry| entry.path.starts_with(prefix))..];
            }
        }
        let visible = |child| self.get(child).map(|found| (path::split(child).1, found));
        Some(children.into_iter().filter_map(visible).collect())
    }

    /// Everything that the view shows, sorted by path.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Found<'_>> {
        self.merged().iter().map(|at| self.found(*at))
    }

    /// Everything at `path` and below it, sorted.
    pub fn within(&self, path: &[u8]) -> impl Iterator<Item = Found<'_>> {
        let merged = self.merged();
        let start = merged
            .partition_point(|at| path::compare(self.entry(*at).path.as_bytes(), path).is_lt());
        merged[start..]
            .iter()
            .map(|at| self.found(*at))
            .take_while(move |found| found.entry.path.starts_with(path))
    }

    /// The whole view as one layer.
    pub fn flatten(&self) -> Changes {
        diff(&View::default(), self)
    }

    /// The directories whose topmost layer only passes through them with other attributes than
    /// those that hold, so that stacked directories would show the wrong ones.
    pub fn masked_directories(&self) -> Vec<Found<'_>> {
        let passing = self.layers.iter().flat_map(|layer| {
            layer
                .entries()
                .iter()
                .filter(|entry| entry.kind.is_passing())
        });
        let paths: BTreeSet<&TreePath> = passing.map(|entry| &entry.path).collect();
        let masked = |path: &TreePath| {
            let found = self
                .get(path.as_bytes())
                .filter(|found| found.kind().is_directory())?;
            let top = self
                .layers
                .iter()
                .rev()
                .find_map(|layer| layer.get(path.as_bytes()))?;
            (!top.meta.same_but_time(found.meta())).then_some(found)
        };
        paths.into_iter().filter_map(masked).collect()
    }

    /// The highest layer for readers to whom each directory that a layer lists is one that it
    /// changes: those that it only passes through get the attributes that hold.
    ///
    /// Nothing where it says those itself.
    pub fn spelled_out(&self) -> Option<Manifest> {
        let top = self.layers.last()?;
        let holds = |entry: &Entry| {
            let passing = entry.kind.is_passing();
            let found = passing
                .then(|| self.get(entry.path.as_bytes()))
                .flatten()
                .filter(|found| found.kind().is_directory())?;
            (!entry.meta.same_but_time(found.meta())).then(|| found.meta().clone())
        };
        let masked: Vec<(usize, Meta)> = (0..)
            .zip(top.entries())
            .filter_map(|(index, entry)| Some((index, holds(entry)?)))
            .collect();
        if masked.is_empty() {
            return None;
        }
        let mut entries = top.entries().to_vec();
        for (index, meta) in masked {
            entries[index].meta = meta;
        }
        let spelled = Manifest::from_sorted(entries);
        Some(spelled.expect("BUG: other attributes of directories made a manifest unsound"))
    }

    fn entry(&self, at: At) -> &Entry {
        &self.layers[at.layer as usize].entries()[at.entry as usize]
    }

    fn found(&self, at: At) -> Found<'_> {
        self.found_in(at.layer as usize, self.entry(at))
    }

    fn found_in<'a>(&'a self, layer: usize, entry: &'a Entry) -> Found<'a> {
        Found {
            layer,
            entry,
            inode: self.layers[layer].resolve(entry),
        }
    }

    fn merged(&self) -> &[At] {
        self.merged.get_or_init(|| self.merge())
    }

    fn merge(&self) -> Vec<At> {
        // Highest layer first, so that the stable sort leaves the deciding entry in front; the
        // runs are sorted already, which the sort makes use of.
        let mut all: Vec<At> = Vec::new();
        for (layer, manifest) in self.layers.iter().enumerate().rev() {
            let at = |entry| At {
                layer: layer as u32,
                entry: entry as u32,
            };
            all.extend((0..manifest.entries().len()).map(at));
        }
        if self.layers.len() > 1 {
            all.sort_by(|a, b| self.entry(*a).path.cmp(&self.entry(*b).path));
        }
        let mut merged = Vec::with_capacity(all.len());
        // Directories above the current path, with the lowest layer that shows through them.
        let mut above: Vec<(&TreePath, u32)> = Vec::new();
        for group in all.chunk_by(|a, b| self.entry(*a).path == self.entry(*b).path) {
            let path = &self.entry(group[0]).path;
            while above
                .last()
                .is_some_and(|(dir, _)| !path.starts_with(dir.as_bytes()))
            {
                above.pop();
            }
            let floor = above.last().map_or(0, |(_, floor)| *floor);
            let (shown, floor) = self.settle(group, floor);
            merged.extend(shown);
            above.push((path, floor));
        }
        merged
    }

    /// Decides what a path shows of `group`, its entries from the highest layer down, and the
    /// lowest layer that shows through below it.
    fn settle(&self, group: &[At], floor: u32) -> (Option<At>, u32) {
        let mut directory: Option<At> = None;
        let mut settled = false;
        for &at in group.iter().take_while(|at| at.layer >= floor) {
            match self.entry(at).kind {
                Kind::Directory { opaque, passing } => {
                    if !settled {
                        directory = Some(at);
                    }
                    settled |= !passing;
                    if opaque {
                        return (directory, at.layer);
                    }
                }
                Kind::Whiteout => return (directory, at.layer),
                _ => return (directory.or(Some(at)), at.layer + 1),
            }
        }
        (directory, floor)
    }
}

/// Whether the layer hides what lower layers have at `path`, which it does not list itself.
fn hides(manifest: &Manifest, path: &[u8]) -> bool {
    if !manifest.has_opaque() {
        // Only the deepest listed directory above can be anything but one that is merged.
        return manifest
            .above(path)
            .is_some_and(|entry| !entry.kind.is_directory());
    }
    let ends = path
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at);
    let root = manifest
        .entries()
        .first()
        .filter(|entry| entry.path.is_root());
    if root.is_some_and(|root| matches!(root.kind, Kind::Directory { opaque: true, .. })) {
        return true;
    }
    for end in ends {
        match manifest.get(&path[..end]).map(|entry| &entry.kind) {
            // Parents are always listed, so nothing deeper is there either.
            None => return false,
            Some(Kind::Directory { opaque: false, .. }) => {}
            Some(_) => return true,
        }
    }
    false
}

/// Returns the layer that turns `lower` into `upper`.
///
/// Directories on the way to a change are listed as passing. Hard links are kept among the
/// entries that are listed.
///
/// What differs in its time alone is no difference: the times of two results that were made apart
/// say nothing.
pub fn diff(lower: &View, upper: &View) -> Changes {
    differences(lower, upper, Times::Ignored)
}

/// As [`diff`], for a tree that was made from the lower view with one name for each file: there a file with a
/// new time was touched, and one with several names got them, which an overlay shows as a change of each.
pub(crate) fn diff_dated(lower: &View, upper: &View) -> Changes {
    differences(lower, upper, Times::OfFiles)
}

/// Which times make a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Ignored,
    /// Those of all but directories, which have a new one whenever something in them changes.
    OfFiles,
}

fn differences(lower: &View, upper: &View, times: Times) -> Changes {
    let mut changes = DiffWriter::default();
    let mut old = lower.iter().peekable();
    let mut new = upper.iter().peekable();
    let mut removed: Option<&TreePath> = None;
    let named_twice: HashSet<&TreePath> = match times {
        Times::Ignored => HashSet::new(),
        Times::OfFiles => upper
            .iter()
            .filter(|found| matches!(found.entry.kind, Kind::Hardlink { .. }))
            .map(|found| &found.inode.path)
            .collect(),
    };
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => old.entry.path.cmp(&new.entry.path),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        match (before, after) {
            (Some(before), None) => {
                let path = &before.entry.path;
                if removed.is_some_and(|removed| path.starts_with(removed.as_bytes())) {
                    continue;
                }
                removed = Some(path);
                changes.remove(path);
            }
            (before, Some(after)) => {
                let known = before.filter(|before| {
                    same(lower, upper, before, &after)
                        && (times == Times::Ignored
                            || after.kind().is_directory()
                            || before.meta().mtime.agrees(&after.meta().mtime))
                        && !named_twice.contains(&after.inode.path)
                });
                // A file in place of a directory takes all that was in it along.
                if before.is_some() && !after.kind().is_directory() {
                    removed = Some(&after.entry.path);
                }
                changes.keep(after, known.is_none());
            }
            (None, None) => unreachable!("BUG: one of the two is next"),
        }
    }
    changes.finish()
}

fn same(lower: &View, upper: &View, before: &Found<'_>, after: &Found<'_>) -> bool {
    std::ptr::eq(before.inode, after.inode)
        || (Arc::ptr_eq(&lower.layers[before.layer], &upper.layers[after.layer])
            && before.inode.path == after.inode.path)
        || before.same_content(after)
}

#[derive(Default)]
struct DiffWriter<'a> {
    entries: Vec<(Entry, Option<usize>)>,
    /// Directories above the current path that are not listed yet.
    above: Vec<Found<'a>>,
    /// Hard link groups of the upper view to their first listed path.
    groups: HashMap<(usize, &'a TreePath), TreePath>,
}

impl<'a> DiffWriter<'a> {
    fn keep(&mut self, found: Found<'a>, changed: bool) {
        let path = &found.entry.path;
        if changed {
            self.pass_to(path);
            let entry = self.list(found);
            self.entries.push((entry, Some(found.layer)));
        } else if found.kind().is_directory() {
            self.leave(path);
            self.above.push(found);
        }
    }

    fn remove(&mut self, path: &TreePath) {
        self.pass_to(path);
        self.entries.push((Entry::whiteout(path.clone()), None));
    }

    /// Forgets the directories that `path` is not in.
    fn leave(&mut self, path: &TreePath) {
        while self
            .above
            .last()
            .is_some_and(|dir| !path.starts_with(dir.entry.path.as_bytes()))
        {
            self.above.pop();
        }
    }

    /// Lists the directories above `path` that were left out so far.
    fn pass_to(&mut self, path: &TreePath) {
        self.leave(path);
        for dir in self.above.drain(..) {
            if dir.entry.path.is_root() {
                continue;
            }
            let kind = Kind::Directory {
                opaque: false,
                passing: true,
            };
            let entry = Entry::new(dir.entry.path.clone(), kind, dir.meta().clone());
            self.entries.push((entry, Some(dir.layer)));
        }
    }

    fn list(&mut self, found: Found<'a>) -> Entry {
        let (path, meta) = (found.entry.path.clone(), found.meta().clone());
        if found.kind().is_directory() {
            return Entry::new(path, Kind::DIRECTORY, meta);
        }
        match self.groups.get(&(found.layer, &found.inode.path)) {
            Some(first) => Entry::new(path, Kind::Hardlink { to: first.clone() }, meta),
            None => {
                self.groups
                    .insert((found.layer, &found.inode.path), path.clone());
                Entry::new(path, found.kind().clone(), meta)
            }
        }
    }

    fn finish(self) -> Changes {
        let (entries, origins): (Vec<_>, Vec<_>) = self.entries.into_iter().unzip();
        let manifest = Manifest::from_sorted(entries)
            .expect("BUG: the differences of two checked views are a checked layer");
        Changes { manifest, origins }
    }
}
