//! What two layers have differently, file by file.

use std::os::fd::{AsFd, OwnedFd};

use kiln_store::{Content, DiffId, Store};
use kiln_tree::tar::{DirectoryFiles, FileSource};
use kiln_tree::{Entry, Kind, Stop};

use super::{Difference, FileDifference, content};
use crate::error::Error;
use crate::export::LayerArchive;

/// So many files of a layer are named.
const MOST_FILES: usize = 1000;
/// Of so many it is said what is in them.
const MOST_CONTENTS: usize = 200;

/// A layer of an image.
pub(super) struct Side {
    /// It, on those below it.
    pub(super) stack: Vec<Content>,
    pub(super) diff_id: DiffId,
}

/// The same, opened.
struct Opened {
    archive: LayerArchive,
    directory: OwnedFd,
}

impl Side {
    fn open(&self, store: &Store) -> Result<Opened, Error> {
        let archive = LayerArchive::with_diff_id(store, &self.stack, &self.diff_id)?;
        let content = self.stack.last().expect("BUG: a side has a layer");
        Ok(Opened {
            archive,
            directory: store.open_layer(content)?,
        })
    }
}

impl Opened {
    fn entries(&self) -> &[Entry] {
        self.archive.manifest().entries()
    }

    fn open(&self, index: usize) -> Result<OwnedFd, Error> {
        let path = &self.entries()[index].path;
        let files = DirectoryFiles(self.directory.as_fd());
        let opened = files.open(index, path);
        opened.map_err(Error::io("open a file of a layer,", path.to_string()))
    }
}

/// Compares two layers; where one image has no such layer, all files of the other are its own. Returns how many
/// more differ, too.
pub(super) fn compare(
    store: &Store,
    one: Option<Side>,
    two: Option<Side>,
    stop: &Stop,
) -> Result<(Vec<FileDifference>, usize), Error> {
    let open = |side: Option<Side>| side.map(|side| side.open(store)).transpose();
    let (one, two) = (open(one)?, open(two)?);
    let entries = |side: &Option<Opened>| -> Vec<Entry> {
        side.as_ref()
            .map(|side| side.entries().to_vec())
            .unwrap_or_default()
    };
    let (first, second) = (entries(&one), entries(&two));
    // Times are in archives only where nothing else took their place.
    let times = [&one, &two]
        .iter()
        .all(|side| side.as_ref().is_some_and(|side| side.archive.keeps_times()));
    let mut found = Vec::new();
    let (mut more, mut contents) = (0, 0);
    let (mut at, mut other) = (0, 0);
    loop {
        if stop.is_set() {
            return Err(Error::Cancelled);
        }
        let (path, differences) = match (first.get(at), second.get(other)) {
            (None, None) => return Ok((found, more)),
            (Some(a), b) if b.is_none_or(|b| a.path < b.path) => {
                at += 1;
                (&a.path, vec![Difference::OnlyInFirst])
            }
            (a, Some(b)) if a.is_none_or(|a| b.path < a.path) => {
                other += 1;
                (&b.path, vec![Difference::OnlyInSecond])
            }
            (Some(a), Some(b)) => {
                (at, other) = (at + 1, other + 1);
                let mut differences = attributes(a, b, times);
                if let (Some(one), Some(two)) = (&one, &two)
                    && holds_other(a, b)
                    && contents < MOST_CONTENTS
                    && found.len() < MOST_FILES
                {
                    contents += 1;
                    let files = (one.open(at - 1)?, two.open(other - 1)?);
                    let found = content::compare(a.path.as_bytes(), files.0, files.1, stop)?;
                    differences.extend(found.map(Difference::Content));
                } else if holds_other(a, b) {
                    differences.push(Difference::Content(Default::default()));
                }
                (&a.path, differences)
            }
            _ => unreachable!("BUG: one of the entries comes first"),
        };
        match differences.is_empty() {
            true => {}
            false if found.len() < MOST_FILES => found.push(FileDifference {
                path: path.to_string(),
                differences,
            }),
            false => more += 1,
        }
    }
}

fn holds_other(one: &Entry, two: &Entry) -> bool {
    match (&one.kind, &two.kind) {
        (Kind::File { digest: one, .. }, Kind::File { digest: two, .. }) => one != two,
        _ => false,
    }
}

/// All but what a file holds.
fn attributes(one: &Entry, two: &Entry, times: bool) -> Vec<Difference> {
    let mut found = Vec::new();
    let (a, b) = (&one.meta, &two.meta);
    let (kind, other) = (name(&one.kind), name(&two.kind));
    if kind != other {
        found.push(Difference::Type {
            one: kind,
            two: other,
        });
    } else if let (Some(one), Some(two)) = (target(&one.kind), target(&two.kind))
        && one != two
    {
        found.push(Difference::Target { one, two });
    }
    if a.mode != b.mode {
        let octal = |mode: u32| format!("{mode:04o}");
        found.push(Difference::Mode {
            one: octal(a.mode),
            two: octal(b.mode),
        });
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        let owner = |uid: u32, gid: u32| format!("{uid}:{gid}");
        found.push(Difference::Owner {
            one: owner(a.uid, a.gid),
            two: owner(b.uid, b.gid),
        });
    }
    if let (Kind::File { size: one, .. }, Kind::File { size: two, .. }) = (&one.kind, &two.kind)
        && one != two
    {
        found.push(Difference::Size {
            one: *one,
            two: *two,
        });
    }
    if times && a.mtime.seconds != b.mtime.seconds {
        found.push(Difference::Mtime {
            one: a.mtime.seconds,
            two: b.mtime.seconds,
        });
    }
    let names = a.xattrs.keys().chain(b.xattrs.keys());
    let mut names: Vec<&Vec<u8>> = names
        .filter(|name| a.xattrs.get(*name) != b.xattrs.get(*name))
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        found.push(Difference::Attribute {
            name: String::from_utf8_lossy(name).into_owned(),
        });
    }
    found
}

fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "file",
        Kind::Directory { opaque: true, .. } => "directory that hides those below",
        Kind::Directory { .. } => "directory",
        Kind::Symlink { .. } => "symbolic link",
        Kind::CharDevice { .. } => "character device",
        Kind::BlockDevice { .. } => "block device",
        Kind::Fifo => "named pipe",
        Kind::Hardlink { .. } => "hard link",
        Kind::Whiteout => "deletion",
    }
}

fn target(kind: &Kind) -> Option<String> {
    Some(match kind {
        Kind::Symlink { target } => String::from_utf8_lossy(target).into_owned(),
        Kind::Hardlink { to } => to.to_string(),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            format!("{major}:{minor}")
        }
        _ => return None,
    })
}
