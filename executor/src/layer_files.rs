//! Which files two layers of the store have differently.

use kiln_store::{Content, StoreError};
use kiln_tree::manifest::{Entry, Manifest};

use crate::error::Error;
use crate::executor::Executor;

/// What one layer has otherwise than another, by paths in the order of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerFiles {
    /// Only the new one says something of these.
    pub added: Vec<String>,
    /// Only the old one says something of these.
    pub removed: Vec<String>,
    /// They are of another kind or content, mode or owner; times do not count.
    pub changed: Vec<String>,
}

impl Executor {
    /// Compares the files of two layers, as image details name them; none if one is not unpacked here.
    pub fn layer_files(&self, old: &str, new: &str) -> Result<Option<LayerFiles>, Error> {
        let manifest = |layer: &str| {
            let Ok(content) = layer.parse::<Content>() else {
                return Ok(None);
            };
            match self.store().layer_manifest(&content) {
                Ok(manifest) => Ok(Some(manifest)),
                Err(StoreError::NoSuchLayer(_)) => Ok(None),
                Err(error) => Err(Error::from(error)),
            }
        };
        match (manifest(old)?, manifest(new)?) {
            (Some(old), Some(new)) => Ok(Some(LayerFiles::of(&old, &new))),
            _ => Ok(None),
        }
    }
}

impl LayerFiles {
    fn of(old: &Manifest, new: &Manifest) -> LayerFiles {
        let mut files = LayerFiles::default();
        let said = |entry: &&Entry| !entry.kind.is_passing();
        let path = |entry: &Entry| entry.path.to_string();
        let mut before = old.entries().iter().filter(said).peekable();
        for entry in new.entries().iter().filter(said) {
            while let Some(gone) = before.next_if(|other| other.path < entry.path) {
                files.removed.push(path(gone));
            }
            match before.next_if(|other| other.path == entry.path) {
                None => files.added.push(path(entry)),
                Some(other) => {
                    let (one, two) = (old.resolve(other), new.resolve(entry));
                    if !one.kind.looks_like(&two.kind) || !one.meta.same_but_time(&two.meta) {
                        files.changed.push(path(entry));
                    }
                }
            }
        }
        files.removed.extend(before.map(path));
        files
    }
}
