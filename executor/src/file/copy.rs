//! Copying picked items into a layer, by the rules that `COPY` has always had.

use std::collections::{BTreeMap, BTreeSet};

use kiln_tree::path::is_within;
use kiln_tree::{Kind, Meta, Mtime, TreePath};

use super::FileError;
use super::changeset::{ChangeError, Changeset};
use super::chmod::{ModeError, SymbolicMode};
use super::pick::{Pick, Picked};
use super::source::{Item, Origin, Source};
use super::writer::{Listed, write_files};

fn is_link(kind: &Kind) -> bool {
    matches!(kind, Kind::Symlink { .. })
}

/// What a copy does to what it takes.
#[derive(Debug, Clone)]
pub(crate) struct Treatment {
    /// New owner; none keeps.
    pub(crate) owner: Option<(u32, u32)>,
    /// New permission bits; none keeps.
    pub(crate) mode: Option<ModeChange>,
    /// New modification time; none keeps.
    pub(crate) mtime: Option<Mtime>,
    /// What is in the way goes, whatever it is.
    pub(crate) replace: bool,
}

/// New permission bits.
#[derive(Debug, Clone)]
pub(crate) enum ModeChange {
    Exact(u32),
    Symbolic(SymbolicMode),
}

impl ModeChange {
    /// Reads the two forms that an action has.
    pub(crate) fn of(mode: Option<u32>, symbolic: &str) -> Result<Option<ModeChange>, ModeError> {
        match (mode, symbolic) {
            (_, symbolic) if !symbolic.is_empty() => {
                Ok(Some(ModeChange::Symbolic(SymbolicMode::parse(symbolic)?)))
            }
            (mode, _) => Ok(mode.map(|mode| ModeChange::Exact(mode & 0o7777))),
        }
    }
}

impl Treatment {
    /// Keeps everything as it is.
    pub(crate) const PLAIN: Treatment = Treatment {
        owner: None,
        mode: None,
        mtime: None,
        replace: false,
    };

    /// Attributes of an item at its destination.
    fn meta(&self, meta: &Meta, is_directory: bool, is_link: bool) -> Meta {
        let mut meta = meta.clone();
        if let Some((uid, gid)) = self.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        if !is_link {
            match &self.mode {
                Some(ModeChange::Exact(mode)) => meta.mode = *mode,
                Some(ModeChange::Symbolic(mode)) => meta.mode = mode.apply(meta.mode, is_directory),
                None => {}
            }
        }
        if let Some(mtime) = self.mtime {
            meta.mtime = mtime;
        }
        meta
    }

    /// Attributes of directories that are made only to copy into.
    pub(crate) fn parent_meta(&self, now: Mtime) -> Meta {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        Meta {
            mode: 0o755,
            uid,
            gid,
            mtime: self.mtime.unwrap_or(now),
            ..Meta::default()
        }
    }
}

/// What is made when all directories of a copy are there.
#[derive(Default)]
struct Rest<'i> {
    /// Files that are listed.
    files: Vec<Listed<'i>>,
    /// Further names of them, each with the first.
    links: BTreeMap<TreePath, TreePath>,
}

/// Where copies go, and what has been copied.
pub(crate) struct Copier<'c, 'l, S> {
    into: &'c mut Changeset<'l>,
    from: &'c S,
    treatment: Treatment,
    /// Attributes of directories made on the way.
    parents: Meta,
    /// First destination of each file of this pick, which may have several names.
    linked: BTreeMap<Origin, TreePath>,
    /// Where an archive is unpacked: the directories that it needs and does not hold itself.
    implied: Option<BTreeSet<TreePath>>,
}

impl<'c, 'l, S: Source + Sync> Copier<'c, 'l, S> {
    pub(crate) fn new(
        into: &'c mut Changeset<'l>,
        from: &'c S,
        treatment: Treatment,
        now: Mtime,
    ) -> Copier<'c, 'l, S> {
        let parents = treatment.parent_meta(now);
        Copier {
            into,
            from,
            treatment,
            parents,
            linked: BTreeMap::new(),
            implied: None,
        }
    }

    /// Copies as an archive is unpacked: what it holds replaces whatever is in the way and keeps its
    /// modes, and links to directories are followed where it names no directory itself.
    ///
    /// The owner of `treatment` is that of all that the archive holds; else `treatment` counts for the directory
    /// that is unpacked into alone.
    pub(crate) fn unpacking(
        into: &'c mut Changeset<'l>,
        from: &'c S,
        treatment: &Treatment,
        implied: BTreeSet<TreePath>,
        now: Mtime,
    ) -> Copier<'c, 'l, S> {
        let parents = treatment.parent_meta(now);
        let own = Treatment {
            replace: true,
            owner: treatment.owner,
            ..Treatment::PLAIN
        };
        Copier {
            parents,
            implied: Some(implied),
            ..Copier::new(into, from, own, now)
        }
    }

    /// The layer that is copied into.
    pub(crate) fn changes(&mut self) -> &mut Changeset<'l> {
        self.into
    }

    /// Makes the directories that `dest` asks for and returns what it resolves to.
    pub(crate) fn open_destination(
        &mut self,
        dest: &str,
        create: bool,
    ) -> Result<TreePath, ChangeError> {
        let dest = if dest.is_empty() { "/" } else { dest };
        let is_directory = dest.ends_with('/') || dest.ends_with("/.") || dest == ".";
        let at = self.into.resolve(dest.as_bytes(), true)?;
        let needed = if is_directory {
            Some(at.clone())
        } else {
            at.parent()
        };
        if let Some(needed) = needed {
            if !create && self.into.get(&needed).is_none() {
                return Err(ChangeError::NotADirectory { path: needed });
            }
            self.into.make_directories(&needed, &self.parents)?;
        }
        Ok(at)
    }

    /// Copies the items of one pick to a destination that was opened.
    pub(crate) fn copy(
        &mut self,
        pick: &Pick,
        items: &[Picked],
        dest: &TreePath,
    ) -> Result<(), FileError> {
        let Some(first) = items.first() else {
            return Ok(());
        };
        let is_directory = first.below.is_empty() && first.item.kind.is_directory();
        let there = self.into.get(dest);
        let into_directory = match &there {
            None => false,
            Some(_) if is_directory => !pick.contents,
            Some(seen) => seen.kind.is_directory(),
        };
        let target = if into_directory && !pick.name.is_empty() {
            dest.join(&pick.name).map_err(ChangeError::from)?
        } else {
            dest.clone()
        };
        if is_directory && pick.contents && there.is_none() {
            self.into.make_directories(&target, &self.parents)?;
        }
        self.linked.clear();
        let mut rest = Rest::default();
        // Where an archive's directories that hold the current item have come to lie.
        let mut above: Vec<(&[u8], TreePath)> = Vec::new();
        for picked in items {
            self.into.stop().check().map_err(ChangeError::from)?;
            let at = match (picked.below.is_empty(), target.is_root()) {
                (true, _) => target.clone(),
                (false, true) => TreePath::new(picked.below.clone()).map_err(ChangeError::from)?,
                (false, false) => {
                    let path = [target.as_bytes(), b"/", &picked.below].concat();
                    TreePath::new(path).map_err(ChangeError::from)?
                }
            };
            match &self.implied {
                None => self.place(picked, at, &mut rest)?,
                Some(_) if picked.below.is_empty() => above.push((b"", at)),
                Some(implied) => {
                    while above
                        .last()
                        .is_some_and(|(dir, _)| !is_within(&picked.below, dir))
                    {
                        above.pop();
                    }
                    let name = picked.item.path.name();
                    let mut at = match above.last() {
                        Some((_, dir)) => dir.join(name).map_err(ChangeError::from)?,
                        None => at,
                    };
                    if implied.contains(&picked.item.path) {
                        if self.into.get(&at).is_some_and(|seen| is_link(&seen.kind)) {
                            at = self.into.resolve(at.as_bytes(), true)?;
                        }
                        let meta = Treatment::PLAIN.parent_meta(self.parents.mtime);
                        self.into.make_directories(&at, &meta)?;
                    } else {
                        self.place(picked, at.clone(), &mut rest)?;
                    }
                    if picked.item.kind.is_directory() {
                        above.push((&picked.below, at));
                    }
                }
            }
        }
        self.make(&mut rest)
    }

    /// Writes and links what was only listed so far.
    fn make(&mut self, rest: &mut Rest<'_>) -> Result<(), FileError> {
        write_files(self.into.disk(), self.from, &rest.files)?;
        rest.files.clear();
        for (at, first) in std::mem::take(&mut rest.links) {
            self.into.put_hardlink(&at, &first)?;
        }
        Ok(())
    }

    /// Where a file that has several names was put already, if it is still there.
    fn first_name(&self, item: &Item, meta: &Meta) -> Option<TreePath> {
        let first = self.linked.get(&item.origin)?;
        // A later pick may have put another file there.
        let seen = self.into.get(first)?;
        (seen.kind == item.kind && seen.meta == *meta).then(|| first.clone())
    }

    /// Lists an item at its destination, and makes it there unless it is one for the `rest`.
    fn place<'i>(
        &mut self,
        picked: &'i Picked,
        at: TreePath,
        rest: &mut Rest<'i>,
    ) -> Result<(), FileError> {
        let item = &picked.item;
        let is_directory = item.kind.is_directory();
        let is_link = is_link(&item.kind);
        let dated = Meta {
            mtime: self.from.mtime(item),
            ..item.meta.clone()
        };
        let meta = self.treatment.meta(&dated, is_directory, is_link);
        let there = self.into.get(&at);
        let in_the_way = self.treatment.replace
            && there
                .as_ref()
                .is_some_and(|seen| seen.kind.is_directory() != is_directory);
        // Links in an archive may lead two of its names to one place.
        if in_the_way || self.into.holds_file(&at) || rest.links.contains_key(&at) {
            self.make(rest)?;
        }
        if in_the_way {
            self.into.remove(&at)?;
        }
        match &item.kind {
            Kind::Directory { .. } => {
                match there.filter(|seen| picked.below.is_empty() && seen.kind.is_directory()) {
                    // The top of a copy that merges into a directory gives that one its time alone.
                    Some(seen) if !at.is_root() => {
                        let passing = self.into.is_passing(&at);
                        let mtime = meta.mtime;
                        let meta = Meta { mtime, ..seen.meta };
                        self.into.put_directory(&at, &meta, passing)?;
                    }
                    Some(_) => {}
                    None => self.into.put_directory(&at, &meta, false)?,
                }
            }
            Kind::File { .. } => match self.first_name(item, &meta).filter(|first| *first != at) {
                Some(first) => drop(rest.links.insert(at, first)),
                None => {
                    self.into.list_file(&at, &meta, item.kind.clone())?;
                    if item.origin != Origin::Nowhere {
                        self.linked.insert(item.origin.clone(), at.clone());
                    }
                    rest.files.push(Listed { item, at, meta });
                }
            },
            kind => self.into.put_special(&at, kind.clone(), &meta)?,
        }
        Ok(())
    }
}
