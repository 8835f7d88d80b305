//! Digests of what a step sees of a tree: of a context file by file, of layers by their manifests.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kiln_solver::{Selection, SelectionDigest, SelectionItem, TreeRef};
use kiln_tree::context::{ContextTree, Decision, ItemKind, Select};
use kiln_tree::{Kind, Meta, TreePath};

use crate::context::ScannedContext;
use crate::error::Error;
use crate::file::source::{Item, Layers, Origin, Source};
use crate::file::{FileError, Writer, items, picks};

/// What a selection takes of a context.
#[derive(Debug, Default)]
struct Chosen {
    /// With all below them; none lies in another.
    subtrees: BTreeSet<TreePath>,
    /// Alone.
    single: BTreeSet<TreePath>,
}

/// Whether `path` is one of these, none of which lies in another, or lies in one.
fn covers(outermost: &BTreeSet<TreePath>, path: &TreePath) -> bool {
    let before = outermost.range(..=path).next_back();
    before.is_some_and(|at| path.starts_with(at.as_bytes()))
}

/// Leaves out what lies in another.
fn outermost(paths: BTreeSet<TreePath>) -> BTreeSet<TreePath> {
    let mut kept = BTreeSet::new();
    for path in paths {
        if !covers(&kept, &path) {
            kept.insert(path);
        }
    }
    kept
}

impl Select for Chosen {
    fn decide(&self, path: &[u8], is_directory: bool) -> Decision {
        let Ok(path) = TreePath::new(path) else {
            return Decision::Exclude;
        };
        if covers(&self.subtrees, &path) || self.single.contains(&path) {
            return Decision::Include;
        }
        let leads_on = |set: &BTreeSet<TreePath>| {
            set.range(path.clone()..)
                .next()
                .is_some_and(|next| next.starts_with(path.as_bytes()))
        };
        if is_directory && (leads_on(&self.subtrees) || leads_on(&self.single)) {
            Decision::ExcludeButDescend
        } else {
            Decision::Exclude
        }
    }
}

/// A context that notes which links were asked for: where they lead decides what is taken, and
/// under which name, so they belong to a selection as much as what they lead to.
struct Noting<'c> {
    context: &'c ScannedContext,
    links: RefCell<BTreeSet<TreePath>>,
}

impl Source for Noting<'_> {
    fn get(&self, path: &TreePath) -> Option<Item> {
        let item = self.context.get(path)?;
        if matches!(item.kind, Kind::Symlink { .. }) {
            self.links.borrow_mut().insert(path.clone());
        }
        Some(item)
    }

    fn list(&self, path: &TreePath) -> Vec<Vec<u8>> {
        self.context.list(path)
    }

    fn within(&self, path: &TreePath) -> Vec<Item> {
        self.context.within(path)
    }

    fn open(&self, item: &Item) -> Result<OwnedFd, FileError> {
        self.context.open(item)
    }

    fn write(
        &self,
        item: &Item,
        to: &mut Writer<'_>,
        at: &TreePath,
        meta: &Meta,
    ) -> Result<(), FileError> {
        self.context.write(item, to, at, meta)
    }
}

/// Digests a selection of a context; the tree lists what was selected, so that a later build can
/// say what changed.
pub(crate) fn of_context(
    context: &ScannedContext,
    selection: &Selection,
) -> Result<(SelectionDigest, Arc<ContextTree>), Error> {
    let noting = Noting {
        context,
        links: RefCell::default(),
    };
    let mut chosen = Chosen::default();
    for item in &selection.items {
        match item {
            SelectionItem::Subtree(path) => {
                let at = noting
                    .resolve(path.as_bytes(), true)
                    .map_err(FileError::from)?;
                chosen.subtrees.insert(at);
            }
            SelectionItem::Users => {
                for path in ["etc/passwd", "etc/group"] {
                    chosen.subtrees.insert(
                        noting
                            .resolve(path.as_bytes(), true)
                            .map_err(FileError::from)?,
                    );
                }
            }
            SelectionItem::Copy(copy) => {
                for pick in picks(&noting, copy).map_err(FileError::from)? {
                    if copy.include_patterns.is_empty() && copy.exclude_patterns.is_empty() {
                        chosen.subtrees.insert(pick.at);
                    } else {
                        let kept = items(context, &pick, copy).map_err(FileError::from)?;
                        chosen
                            .single
                            .extend(kept.into_iter().map(|picked| picked.item.path));
                    }
                }
            }
        }
    }
    chosen.single.extend(noting.links.into_inner());
    chosen.subtrees = outermost(chosen.subtrees);
    let tree = if chosen.subtrees.contains(&TreePath::ROOT) {
        Arc::clone(&context.tree)
    } else {
        context.part(&chosen).tree
    };
    let (digest, files) = names_and_links(&tree)?;
    let plural = if files == 1 { "" } else { "s" };
    let summary = format!("{files} file{plural}, {} bytes", tree.total_bytes());
    Ok((
        SelectionDigest {
            digest,
            tree: Some(TreeRef(tree.digest().0)),
            summary,
        },
        tree,
    ))
}

/// The digest of a selected tree, and how many files it has.
///
/// Names of one file are copied as such, so which are counts as much as what the file holds. What is no
/// file but a mark is an error.
fn names_and_links(tree: &ContextTree) -> Result<([u8; 32], usize), Error> {
    let mut files = 0;
    let mut names: BTreeMap<(u64, u64), Vec<TreePath>> = BTreeMap::new();
    for (path, item) in tree.iter() {
        match &item.kind {
            ItemKind::Directory { .. } => continue,
            ItemKind::File {
                seen, linked: true, ..
            } => names
                .entry((seen.device, seen.inode))
                .or_default()
                .push(path),
            ItemKind::Device(device) if device.is_whiteout() => {
                return Err(Error::WhiteoutInContext { path });
            }
            _ => {}
        }
        files += 1;
    }
    let mut groups: Vec<Vec<TreePath>> = names.into_values().collect();
    groups.retain(|group| group.len() > 1);
    if groups.is_empty() {
        return Ok((tree.digest().0, files));
    }
    groups.sort();
    let mut hash = blake3::Hasher::new_derive_key("kiln selection v0");
    hash.update(&tree.digest().0);
    for group in groups {
        hash.update(&(group.len() as u64).to_be_bytes());
        for path in group {
            text(&mut hash, path.as_bytes());
        }
    }
    Ok((*hash.finalize().as_bytes(), files))
}

/// Digests a selection of layers.
pub(crate) fn of_layers(layers: &Layers, selection: &Selection) -> Result<SelectionDigest, Error> {
    let mut hash = blake3::Hasher::new_derive_key("kiln selection v0");
    let mut count = 0_usize;
    for (index, item) in selection.items.iter().enumerate() {
        hash.update(&(index as u64).to_be_bytes());
        match item {
            SelectionItem::Subtree(path) => {
                let at = layers
                    .resolve(path.as_bytes(), true)
                    .map_err(FileError::from)?;
                count += hash_all(&mut hash, &at, layers.within(&at).iter());
            }
            SelectionItem::Users => {
                for path in ["etc/passwd", "etc/group"] {
                    let at = layers
                        .resolve(path.as_bytes(), true)
                        .map_err(FileError::from)?;
                    count += hash_all(&mut hash, &at, layers.get(&at).iter());
                }
            }
            SelectionItem::Copy(copy) => {
                for pick in picks(layers, copy).map_err(FileError::from)? {
                    text(&mut hash, &pick.name);
                    let kept = items(layers, &pick, copy).map_err(FileError::from)?;
                    count += hash_all(&mut hash, &pick.at, kept.iter().map(|picked| &picked.item));
                }
            }
        }
    }
    let plural = if count == 1 { "" } else { "s" };
    Ok(SelectionDigest {
        digest: *hash.finalize().as_bytes(),
        tree: None,
        summary: format!("{count} path{plural}"),
    })
}

fn hash_all<'a>(
    hash: &mut blake3::Hasher,
    above: &TreePath,
    items: impl Iterator<Item = &'a Item>,
) -> usize {
    let mut count = 0_usize;
    let mut firsts: HashMap<&Origin, u64> = HashMap::new();
    for item in items {
        let below = item
            .path
            .as_bytes()
            .get(above.as_bytes().len()..)
            .unwrap_or_default();
        hash.update(&[1]);
        text(hash, below);
        hash_item(hash, item);
        if item.origin != Origin::Nowhere {
            match firsts.entry(&item.origin) {
                Entry::Vacant(entry) => drop(entry.insert(count as u64)),
                // Another name of a file.
                Entry::Occupied(entry) => {
                    hash.update(&[2]);
                    hash.update(&entry.get().to_be_bytes());
                }
            }
        }
        count += 1;
    }
    hash.update(&[0]);
    count
}

fn hash_item(hash: &mut blake3::Hasher, item: &Item) {
    let (tag, bytes): (u8, Vec<u8>) = match &item.kind {
        Kind::File { size, digest } => (1, [&size.to_be_bytes()[..], &digest.0].concat()),
        Kind::Directory { .. } => (2, Vec::new()),
        Kind::Symlink { target } => (3, target.clone()),
        Kind::CharDevice { major, minor } => {
            (4, [major.to_be_bytes(), minor.to_be_bytes()].concat())
        }
        Kind::BlockDevice { major, minor } => {
            (5, [major.to_be_bytes(), minor.to_be_bytes()].concat())
        }
        Kind::Fifo => (6, Vec::new()),
        Kind::Hardlink { .. } | Kind::Whiteout => unreachable!("BUG: a view shows {:?}", item.kind),
    };
    hash.update(&[tag]);
    text(hash, &bytes);
    for number in [item.meta.mode, item.meta.uid, item.meta.gid] {
        hash.update(&number.to_be_bytes());
    }
    hash.update(&(item.meta.xattrs.len() as u64).to_be_bytes());
    for (name, value) in &item.meta.xattrs {
        text(hash, name);
        text(hash, value);
    }
}

fn text(hash: &mut blake3::Hasher, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use kiln_solver::CopySelection;

    use super::*;
    use crate::executor::tests::executor;

    /// Whether copies of these sources see the same in a context before and after a change.
    fn same(sources: &[&str], before: impl Fn(&Path), change: impl Fn(&Path)) -> bool {
        let (directory, executor) = executor();
        let path = directory.path().join("context");
        fs::create_dir(&path).unwrap();
        before(&path);
        let copy = |src: &&str| {
            SelectionItem::Copy(CopySelection {
                src: (*src).to_owned(),
                allow_wildcard: true,
                follow_symlink: true,
                dir_copy_contents: true,
                ..CopySelection::default()
            })
        };
        let selection = Selection {
            items: sources.iter().map(copy).collect(),
        };
        let digest = || {
            let context =
                ScannedContext::scan(executor.store(), &path, &[], &kiln_tree::Stop::NEVER)
                    .unwrap();
            of_context(&context, &selection).unwrap().0.digest
        };
        let first = digest();
        change(&path);
        first == digest()
    }

    fn two_directories(path: &Path) {
        for name in ["a", "b"] {
            fs::create_dir(path.join(name)).unwrap();
            fs::write(path.join(name).join("file"), name).unwrap();
        }
        symlink("a", path.join("link")).unwrap();
    }

    fn point_to_b(path: &Path) {
        fs::remove_file(path.join("link")).unwrap();
        symlink("b", path.join("link")).unwrap();
    }

    #[test]
    fn where_a_link_leads_counts_even_if_all_it_may_lead_to_is_taken() {
        assert!(!same(&["a", "b", "link"], two_directories, point_to_b));
        assert!(!same(&["a", "b", "link/file"], two_directories, point_to_b));
        assert!(same(&["a", "b"], two_directories, point_to_b));
    }

    #[test]
    fn which_names_are_of_one_file_counts() {
        let one = |path: &Path| {
            two_directories(path);
            fs::hard_link(path.join("a/file"), path.join("a/more")).unwrap();
        };
        let apart = |path: &Path| {
            fs::remove_file(path.join("a/more")).unwrap();
            fs::copy(path.join("a/file"), path.join("a/more")).unwrap();
        };
        assert!(!same(&["a"], one, apart));
        assert!(same(&["b"], one, apart));
        // Names that are not taken are nobody's business.
        assert!(same(&["a/file"], one, apart));
    }

    /// The digest of what one selection takes of a context, and of the same tree as a layer.
    fn digests(item: SelectionItem) -> String {
        use std::os::unix::fs::PermissionsExt;
        let (directory, executor) = executor();
        let path = directory.path().join("context");
        fs::create_dir(&path).unwrap();
        two_directories(&path);
        fs::create_dir(path.join("etc")).unwrap();
        fs::write(path.join("etc/passwd"), "root:x:0:0::/:\n").unwrap();
        fs::hard_link(path.join("b/file"), path.join("b/more")).unwrap();
        for (name, mode) in [
            ("a", 0o755),
            ("b", 0o755),
            ("etc", 0o755),
            ("a/file", 0o644),
        ] {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(path.join(name), mode).unwrap();
        }
        for name in ["b/file", "etc/passwd"] {
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let store = executor.store();
        let context = ScannedContext::scan(store, &path, &[], &kiln_tree::Stop::NEVER).unwrap();
        let layers = crate::file::copy_whole(store, &store.lease(), &context).unwrap();
        let layers = crate::file::open_layers(store, &layers).unwrap();
        let selection = Selection { items: vec![item] };
        let hex = |digest: [u8; 32]| blake3::Hash::from(digest).to_hex();
        format!(
            "context {}\nlayers  {}\n",
            hex(of_context(&context, &selection).unwrap().0.digest),
            hex(of_layers(&layers, &selection).unwrap().digest)
        )
    }

    #[test]
    fn digests_of_selections_are_what_they_were() {
        let copy = CopySelection {
            src: "[ab]".to_owned(),
            allow_wildcard: true,
            follow_symlink: true,
            dir_copy_contents: true,
            exclude_patterns: vec!["more".to_owned()],
            ..CopySelection::default()
        };
        insta::assert_snapshot!("subtree", digests(SelectionItem::Subtree("/".to_owned())));
        insta::assert_snapshot!("copy", digests(SelectionItem::Copy(copy)));
        insta::assert_snapshot!("users", digests(SelectionItem::Users));
    }

    #[test]
    fn the_name_of_a_link_that_a_pattern_finds_counts() {
        let rename = |path: &Path| fs::rename(path.join("link"), path.join("lint")).unwrap();
        assert!(!same(&["l*"], two_directories, rename));
        assert!(same(&["a"], two_directories, rename));
    }
}
