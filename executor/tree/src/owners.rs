//! Owners where one id is mapped, so that the disk has none but ours.
//!
//! Whoever else's a file is, is noted in an attribute beside it. A note goes where its file goes: the
//! overlay copies it up, and a rename takes it along. After a step, [`doubts`] finds the files whose owner
//! would be another one than where all ids are mapped, or might be.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, XattrFlags};

use crate::digest::FileDigest;
use crate::handle::{self, FsError, FsResult};
use crate::manifest::{Kind, Manifest, Meta, Mtime};
use crate::path::TreePath;
use crate::view::{Found, View};

/// The attribute that has the owner, as `UID:GID`; what a step makes has none until it is sealed.
pub(crate) const NOTE: &str = "user.kiln.owner";

/// A user and a group.
pub type Owner = (u32, u32);

const ROOT: Owner = (0, 0);

/// Notes the owner of an open file or directory, which may have had another before.
pub(crate) fn note(file: impl AsFd, owner: Owner) -> FsResult<()> {
    let text = format!("{}:{}", owner.0, owner.1);
    rustix::fs::fsetxattr(file, NOTE, text.as_bytes(), XattrFlags::empty())
        .map_err(|source| FsError::new("note the owner of", b"", source))
}

/// Notes the owners of what a step made, in the directory of the layer that `manifest` lists.
pub(crate) fn note_made(
    root: BorrowedFd<'_>,
    manifest: &Manifest,
    sights: &[Sight],
) -> FsResult<()> {
    for sight in sights.iter().filter(|sight| sight.note.is_none()) {
        let path = sight.path.as_bytes();
        let Some(entry) = manifest.get(path) else {
            continue;
        };
        if can_be_noted(&entry.kind) {
            let file = handle::open_beneath(root, path, handle::READ)?;
            note(file, of(&entry.meta)).map_err(|error| error.at(path))?;
        }
    }
    Ok(())
}

/// Reads a note.
pub(crate) fn read(value: &[u8]) -> Option<Owner> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// What is known of a step that ran where one id is mapped; by default nothing.
#[derive(Debug, Clone)]
pub struct OneId {
    /// Whether it may have given files to root, which changes nothing on the disk.
    pub gave_owners: bool,
    /// Whether it may have set attributes, and with them notes.
    pub set_attributes: bool,
    /// What it could copy from, beside what the layers below show.
    pub seen: Vec<View>,
}

impl Default for OneId {
    fn default() -> Self {
        Self {
            gave_owners: true,
            set_attributes: true,
            seen: Vec::new(),
        }
    }
}

/// Something that a step touched.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) path: TreePath,
    pub(crate) note: Option<Owner>,
}

/// The owner of something of which only its note is known; links, devices and pipes can have none.
pub(crate) fn owner(
    note: Option<Owner>,
    file_type: FileType,
    below: Option<(&Kind, &Meta)>,
) -> Owner {
    match (note, file_type) {
        (Some(owner), _) => owner,
        (None, FileType::RegularFile | FileType::Directory) => ROOT,
        (None, _) => match below {
            Some((kind, meta)) if !can_be_noted(kind) => of(meta),
            _ => ROOT,
        },
    }
}

fn can_be_noted(kind: &Kind) -> bool {
    matches!(kind, Kind::File { .. } | Kind::Directory { .. })
}

fn of(meta: &Meta) -> Owner {
    (meta.uid, meta.gid)
}

/// A file whose owner cannot be told after a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", self.words(), and_more(*.more))]
pub struct OwnerDoubt {
    /// The file.
    pub path: TreePath,
    /// Whose it is, or that of which it may be.
    pub owner: Owner,
    /// What the step did.
    pub why: Why,
    /// How many others there are.
    pub more: usize,
}

/// What makes an owner doubtful.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It was changed in a step that gave files to root.
    Given,
    /// Another file is in its place.
    Replaced,
    /// It came there with its attributes, by a copy or a move.
    Carried,
    /// It holds what that other one holds.
    Copied(TreePath),
    /// It was made or moved into that directory, whose group is given to what is made there.
    Inherited(TreePath),
}

/// A path as people write it.
struct Rooted<'a>(&'a TreePath);

impl fmt::Display for Rooted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_root() {
            true => f.write_str("/"),
            false => write!(f, "/{}", String::from_utf8_lossy(self.0.as_bytes())),
        }
    }
}

fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        1 => ", and so with one more file".to_owned(),
        more => format!(", and so with {more} more files"),
    }
}

impl OwnerDoubt {
    fn words(&self) -> String {
        let path = Rooted(&self.path);
        let (uid, gid) = self.owner;
        match &self.why {
            Why::Given => {
                format!("`{path}` belongs to {uid}:{gid}, and the step may have given it to root")
            }
            Why::Replaced => {
                format!("`{path}` belonged to {uid}:{gid}, and the step put another in its place")
            }
            Why::Carried => format!(
                "`{path}` was copied or moved with its attributes from a file of {uid}:{gid}"
            ),
            Why::Copied(from) => format!(
                "`{path}` is the same as `{}`, which belongs to {uid}:{gid}",
                Rooted(from)
            ),
            Why::Inherited(directory) => format!(
                "`{path}` is new in `{}`, which gives its group {gid} to what is made there",
                Rooted(directory)
            ),
        }
    }
}

/// Errors with the first touched file whose owner would not surely be what it is where all ids are mapped.
///
/// `manifest` is what the step made of `lower`.
pub(crate) fn doubts(
    one_id: &OneId,
    lower: &View,
    manifest: &Manifest,
    sights: &[Sight],
) -> Result<(), OwnerDoubt> {
    let mut others: Option<Others<'_>> = None;
    let mut first: Option<OwnerDoubt> = None;
    let mut more = 0;
    // A directory may be there only for what is in it.
    let is_file = |path: &TreePath| {
        let below = lower.get(path.as_bytes());
        below.is_none_or(|found| !found.kind().is_directory())
    };
    for sight in sights {
        let Some((owner, why)) = doubt(one_id, lower, manifest, sight, &mut others) else {
            continue;
        };
        more += 1;
        let tells_more = |first: &OwnerDoubt| !is_file(&first.path) && is_file(&sight.path);
        if first.as_ref().is_none_or(tells_more) {
            first = Some(OwnerDoubt {
                path: sight.path.clone(),
                owner,
                why,
                more: 0,
            });
        }
    }
    let Some(mut first) = first else {
        return Ok(());
    };
    first.more = more - 1;
    Err(first)
}

fn doubt<'a>(
    one_id: &'a OneId,
    lower: &'a View,
    manifest: &Manifest,
    sight: &Sight,
    others: &mut Option<Others<'a>>,
) -> Option<(Owner, Why)> {
    let path = sight.path.as_bytes();
    let below = lower.get(path);
    let was = below.map(|found| of(found.meta()));
    let was = was.filter(|owner| *owner != ROOT);
    let entry = manifest.get(path);
    if let Some(owner) = sight.note {
        return match (one_id.gave_owners, one_id.set_attributes) {
            // It was root's and is root's, whatever was done to it.
            _ if owner == ROOT => None,
            (true, _) => Some((owner, Why::Given)),
            (false, true) if was != Some(owner) => Some((owner, Why::Carried)),
            (false, _) => None,
        };
    }
    if let (Some(owner), Some(below)) = (was, below) {
        // Without a note it is another file; whoever gave it away may have given it to root.
        let is_roots = can_be_noted(below.kind());
        let is_untouched = !is_roots && entry.is_none();
        if one_id.gave_owners || !(is_roots || is_untouched) {
            return Some((owner, Why::Replaced));
        }
    }
    let entry = entry?;
    let is_new = match &entry.kind {
        Kind::Whiteout | Kind::Hardlink { .. } => return None,
        Kind::Directory { passing, .. } => !passing,
        _ => true,
    };
    if !is_new {
        return None;
    }
    let others = others.get_or_insert_with(|| Others::of(lower, &one_id.seen));
    if let Some(found) = others.like(&entry.kind, &entry.meta, one_id.gave_owners) {
        return Some((of(found.meta()), Why::Copied(found.entry.path.clone())));
    }
    let parent = sight.path.parent().filter(|_| below.is_none())?;
    let above = manifest.get(parent.as_bytes()).map(|entry| &entry.meta);
    let above = above.or_else(|| lower.get(parent.as_bytes()).map(|found| found.meta()))?;
    (above.mode & 0o2000 != 0 && above.gid != 0).then(|| (of(above), Why::Inherited(parent)))
}

/// What belongs to others than root, by what a copy of it has in common with it.
#[derive(Default)]
struct Others<'a> {
    files: HashMap<(u64, FileDigest), Vec<Found<'a>>>,
    links: HashMap<&'a [u8], Found<'a>>,
    /// Directories and empty files, which hold nothing: a copy that keeps owners keeps times, too.
    times: BTreeMap<(bool, Mtime), Found<'a>>,
    special: Vec<Found<'a>>,
}

impl<'a> Others<'a> {
    fn of(lower: &'a View, seen: &'a [View]) -> Others<'a> {
        let mut others = Others::default();
        let all = std::iter::once(lower).chain(seen).flat_map(View::iter);
        for found in all.filter(|found| of(found.meta()) != ROOT) {
            match found.kind() {
                Kind::File { size: 0, .. } => {
                    others
                        .times
                        .entry((false, found.meta().mtime))
                        .or_insert(found);
                }
                Kind::File { size, digest } => {
                    let alike = others.files.entry((*size, *digest)).or_default();
                    alike.push(found);
                }
                Kind::Directory { .. } => {
                    others
                        .times
                        .entry((true, found.meta().mtime))
                        .or_insert(found);
                }
                Kind::Symlink { target } => {
                    others.links.entry(target).or_insert(found);
                }
                _ => others.special.push(found),
            }
        }
        others
    }

    /// Finds what something new may be a copy of that keeps the owner.
    ///
    /// Whoever keeps owners gives the copy away, or keeps the time with the owner where none needs to be given.
    fn like(&self, kind: &Kind, meta: &Meta, gave_owners: bool) -> Option<Found<'a>> {
        match kind {
            Kind::File { size: 0, .. } => self.at(false, &meta.mtime),
            Kind::File { size, digest } => {
                let mut alike = self.files.get(&(*size, *digest))?.iter();
                let is_kept = |found: &&Found<'_>| found.meta().mtime.agrees(&meta.mtime);
                alike.find(|found| gave_owners || is_kept(found)).copied()
            }
            Kind::Directory { .. } => self.at(true, &meta.mtime),
            Kind::Symlink { target } => self.links.get(&target[..]).copied(),
            kind => self
                .special
                .iter()
                .find(|found| found.kind() == kind)
                .copied(),
        }
    }

    fn at(&self, is_directory: bool, time: &Mtime) -> Option<Found<'a>> {
        let at = |nanos| {
            let seconds = time.seconds;
            (is_directory, Mtime { seconds, nanos })
        };
        let mut second = self.times.range(at(0)..=at(u32::MAX));
        let (_, found) = second.find(|((_, other), _)| other.agrees(time))?;
        Some(*found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::manifest::Entry;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn entry(at: &str, kind: Kind, owner: Owner, seconds: i64) -> Entry {
        let meta = Meta {
            uid: owner.0,
            gid: owner.1,
            mtime: Mtime { seconds, nanos: 5 },
            ..Meta::new(0o644)
        };
        Entry::new(path(at), kind, meta)
    }

    fn file(text: &str) -> Kind {
        Kind::File {
            size: text.len() as u64,
            digest: FileDigest::of(text.as_bytes()),
        }
    }

    fn link(target: &str) -> Kind {
        Kind::Symlink {
            target: target.as_bytes().to_vec(),
        }
    }

    /// What is below: files of 5:6, and of root.
    fn lower() -> View {
        let mut shared = entry("shared", Kind::DIRECTORY, (0, 50), 4);
        shared.meta.mode = 0o2775;
        let entries = vec![
            entry("dir", Kind::DIRECTORY, (5, 6), 1),
            entry("dir/file", file("theirs"), (5, 6), 2),
            entry("dir/none", file(""), (5, 6), 3),
            entry("dir/link", link("somewhere"), (5, 6), 3),
            entry("dir/pipe", Kind::Fifo, (5, 6), 3),
            entry("ours", file("ours"), ROOT, 3),
            shared,
        ];
        View::new(vec![Arc::new(Manifest::new(entries).unwrap())])
    }

    const QUIET: (bool, bool) = (false, false);
    const GAVE: (bool, bool) = (true, false);
    const SET: (bool, bool) = (false, true);

    /// Judges one touched thing; `made` is what the layer lists, if it lists it.
    fn check(
        (gave_owners, set_attributes): (bool, bool),
        at: &str,
        note: Option<Owner>,
        made: Option<Entry>,
        expected: Option<(Owner, Why)>,
    ) {
        let one_id = OneId {
            gave_owners,
            set_attributes,
            seen: Vec::new(),
        };
        let mut entries: Vec<Entry> = made.into_iter().collect();
        let mut above = path(at).parent();
        while let Some(directory) = above.filter(|directory| !directory.is_root()) {
            let kind = Kind::Directory {
                opaque: false,
                passing: true,
            };
            let lower = lower();
            let meta = lower
                .get(directory.as_bytes())
                .map(|found| found.meta().clone());
            let meta = meta.unwrap_or_else(|| Meta::new(0o755));
            entries.push(Entry::new(directory.clone(), kind, meta));
            above = directory.parent();
        }
        let manifest = Manifest::new(entries).unwrap();
        let sight = Sight {
            path: path(at),
            note,
        };
        let found = doubts(&one_id, &lower(), &manifest, &[sight]).err();
        let found = found.map(|doubt| (doubt.owner, doubt.why));
        assert_eq!(found, expected, "{at}");
    }

    #[test]
    fn what_is_changed_in_place_or_moved_stays_whose_it_was() {
        let theirs = Some((5, 6));
        let new = |at| Some(entry(at, file("new"), (5, 6), 9));
        check(QUIET, "dir/file", theirs, new("dir/file"), None);
        check(QUIET, "moved", theirs, new("moved"), None);
        check(QUIET, "ours", theirs, new("ours"), None);
        check(SET, "dir/file", theirs, new("dir/file"), None);
    }

    #[test]
    fn what_a_step_may_have_given_to_root_is_doubtful() {
        let given = || Some(((5, 6), Why::Given));
        check(GAVE, "dir/file", Some((5, 6)), None, given());
        check(GAVE, "dir", Some((5, 6)), None, given());
        let moved = entry("moved", file("new"), (5, 6), 9);
        check(GAVE, "moved", Some((5, 6)), Some(moved), given());
        check(GAVE, "dir/link", None, None, Some(((5, 6), Why::Replaced)));
    }

    #[test]
    fn a_note_may_be_a_copy_of_one() {
        let copy = entry("copy", file("new"), (5, 6), 9);
        check(
            SET,
            "copy",
            Some((5, 6)),
            Some(copy),
            Some(((5, 6), Why::Carried)),
        );
    }

    #[test]
    fn a_new_file_in_an_old_ones_place_is_roots_unless_it_was_given_away() {
        let new = || Some(entry("dir/file", file("new"), ROOT, 9));
        check(QUIET, "dir/file", None, new(), None);
        check(GAVE, "dir/file", None, new(), Some(((5, 6), Why::Replaced)));
        let link = entry("dir/link", link("else"), (5, 6), 9);
        check(
            QUIET,
            "dir/link",
            None,
            Some(link),
            Some(((5, 6), Why::Replaced)),
        );
        check(QUIET, "dir/link", None, None, None);
    }

    #[test]
    fn copies_are_known_by_what_they_hold() {
        let copied = |of| Some(((5, 6), Why::Copied(path(of))));
        let at = |kind, seconds| Some(entry("new", kind, ROOT, seconds));
        let theirs = |seconds| at(file("theirs"), seconds);
        check(QUIET, "new", None, theirs(2), copied("dir/file"));
        check(GAVE, "new", None, theirs(9), copied("dir/file"));
        check(QUIET, "new", None, theirs(9), None);
        check(QUIET, "new", None, at(file("ours"), 9), None);
        check(QUIET, "new", None, at(file(""), 3), copied("dir/none"));
        check(QUIET, "new", None, at(file(""), 9), None);
        check(QUIET, "new", None, at(Kind::DIRECTORY, 1), copied("dir"));
        check(QUIET, "new", None, at(Kind::DIRECTORY, 9), None);
        check(
            QUIET,
            "new",
            None,
            at(link("somewhere"), 9),
            copied("dir/link"),
        );
        check(QUIET, "new", None, at(link("else"), 9), None);
        check(QUIET, "new", None, at(Kind::Fifo, 9), copied("dir/pipe"));
    }

    #[test]
    fn what_was_roots_before_is_roots() {
        let made = || Some(entry("new", file("theirs"), ROOT, 9));
        check(GAVE, "new", Some(ROOT), made(), None);
        check(SET, "new", Some(ROOT), made(), None);
        let over = entry("dir/file", file("ours"), ROOT, 9);
        check(GAVE, "dir/file", Some(ROOT), Some(over), None);
    }

    #[test]
    fn directories_that_give_their_group() {
        let new = Some(entry("shared/new", file("new"), ROOT, 9));
        let why = Why::Inherited(path("shared"));
        check(QUIET, "shared/new", None, new, Some(((0, 50), why)));
        let new = Some(entry("dir/new", file("new"), ROOT, 9));
        check(QUIET, "dir/new", None, new, None);
    }

    #[test]
    fn words() {
        let say = |why, more| {
            let doubt = OwnerDoubt {
                path: path("a/b"),
                owner: (5, 6),
                why,
                more,
            };
            doubt.to_string()
        };
        assert_eq!(
            say(Why::Copied(path("c")), 0),
            "`/a/b` is the same as `/c`, which belongs to 5:6"
        );
        assert_eq!(
            say(Why::Given, 2),
            "`/a/b` belongs to 5:6, and the step may have given it to root, and so with 2 more files"
        );
    }

    #[test]
    fn notes() {
        assert_eq!(read(b"5:6"), Some((5, 6)));
        for bad in ["", "5", "5:", "a:b", "-1:3", "4294967296:0"] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }
}
