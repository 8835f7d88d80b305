//! The files of results, for directories and tars: one tree, or a directory for each platform.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use kiln_store::{Content, Store};
use kiln_tree::stop::Stoppable;
use kiln_tree::tar::{FileSource, LayersFiles, MtimePolicy, WriteError, WriteOptions, write_layer};
use kiln_tree::{Changes, Entry, Kind, Manifest, ManifestError, Meta, PathError, Stop, TreePath};

use super::ImageToExport;
use super::config;
use super::output::Output;
use crate::error::Error;
use crate::images::platform_of;

/// The merged file system of one result.
pub(super) struct Tree {
    /// The directory that it is written to; none is the top.
    pub(super) directory: Option<String>,
    /// All of it as one layer.
    pub(super) changes: Changes,
    /// The directories that its files are in.
    pub(super) layers: Vec<OwnedFd>,
}

/// Merges the layers of each result.
///
/// Errors if two results would write the same file.
pub(super) fn trees(
    store: &Store,
    given: &ImageToExport,
    layers: &[Vec<Content>],
    split: Option<bool>,
) -> Result<Vec<Tree>, Error> {
    let split = split.unwrap_or(given.is_by_platform());
    let mut trees = Vec::with_capacity(layers.len());
    for (result, layers) in given.results.iter().zip(layers) {
        let platform = match (&result.platform, &result.config) {
            (Some(platform), _) => platform.format_all(),
            (None, Some(config)) => platform_of(config).format_all(),
            (None, None) => platform_of(&config::plain()).format_all(),
        };
        let opened: Result<Vec<OwnedFd>, _> =
            layers.iter().map(|layer| store.open_layer(layer)).collect();
        trees.push(Tree {
            directory: split.then(|| platform.replace('/', "_")),
            changes: store.layers_view(layers)?.flatten(),
            layers: opened?,
        });
        if !split && given.results.len() > 1 {
            check(given, &trees)?;
        }
    }
    Ok(trees)
}

/// Errors if the last tree has a path that is in one before, unless both are directories.
fn check(given: &ImageToExport, trees: &[Tree]) -> Result<(), Error> {
    let Some((last, before)) = trees.split_last() else {
        return Ok(());
    };
    for entry in last.changes.manifest.entries() {
        for (index, other) in before.iter().enumerate() {
            let there = other.changes.manifest.get(entry.path.as_bytes());
            let clash =
                there.is_some_and(|there| !there.kind.is_directory() || !entry.kind.is_directory());
            if clash {
                let platform = |index: usize| {
                    let platform = given.results[index].platform.as_ref();
                    platform.map(ToString::to_string).unwrap_or_default()
                };
                return Err(Error::PlatformClash {
                    path: entry.path.clone(),
                    first: platform(index),
                    second: platform(before.len()),
                });
            }
        }
    }
    Ok(())
}

/// Writes all trees as one archive.
pub(super) fn write_tar(
    trees: Vec<Tree>,
    mtime: MtimePolicy,
    output: &mut Output,
    stop: &Stop,
) -> Result<(), Error> {
    let options = WriteOptions {
        mtime,
        ..WriteOptions::default()
    };
    let path = output.path().to_owned();
    let mut out = Stoppable::new(output, stop);
    let written = match trees.as_slice() {
        [
            Tree {
                directory: None,
                changes,
                layers,
            },
        ] => {
            let files = LayersFiles {
                layers,
                origins: &changes.origins,
            };
            write_layer(&changes.manifest, &files, &options, &mut out)
        }
        trees => {
            let (manifest, files) = joined(trees)
                .map_err(|error| Error::io("write", &path)(io::Error::other(error)))?;
            write_layer(&manifest, &files, &options, &mut out)
        }
    };
    written.map_err(|error| match error {
        WriteError::Write(source) => Error::io("write", &path)(source),
        error => error.into(),
    })
}

/// Puts the trees side by side.
fn joined(trees: &[Tree]) -> Result<(Manifest, Joined<'_>), JoinError> {
    let mut entries: BTreeMap<TreePath, Entry> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (number, tree) in trees.iter().enumerate() {
        let top = tree.directory.as_deref().unwrap_or_default();
        let below = |path: &TreePath| {
            TreePath::normalise(&[top.as_bytes(), b"/", path.as_bytes()].concat())
        };
        if !top.is_empty() {
            let path = below(&TreePath::ROOT)?;
            entries.insert(
                path.clone(),
                Entry::new(path, Kind::DIRECTORY, Meta::new(0o755)),
            );
        }
        for (index, entry) in tree.changes.manifest.entries().iter().enumerate() {
            if entry.path.is_root() {
                continue;
            }
            let path = below(&entry.path)?;
            let kind = match &entry.kind {
                Kind::Hardlink { to } => Kind::Hardlink { to: below(to)? },
                kind => kind.clone(),
            };
            places.insert(path.clone(), (number, index));
            let moved = Entry::new(path.clone(), kind, entry.meta.clone());
            // Of a directory that is in several trees, the first counts.
            entries.entry(path).or_insert(moved);
        }
    }
    let manifest = Manifest::new(entries.into_values().collect())?;
    Ok((manifest, Joined { trees, places }))
}

/// Why trees cannot be put side by side: a path has become too long.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// The files of trees side by side: of each, the tree and its entry there.
struct Joined<'a> {
    trees: &'a [Tree],
    places: BTreeMap<TreePath, (usize, usize)>,
}

impl FileSource for Joined<'_> {
    fn open(&self, _: usize, path: &TreePath) -> io::Result<OwnedFd> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no platform has the file");
        let (tree, index) = *self.places.get(path).ok_or_else(missing)?;
        let Tree {
            changes, layers, ..
        } = &self.trees[tree];
        let files = LayersFiles {
            layers,
            origins: &changes.origins,
        };
        files.open(index, &changes.manifest.entries()[index].path)
    }
}
