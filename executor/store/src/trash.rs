//! Removal in two steps: out of the way by one rename, then file by file.
//!
//! What is in `trash` belongs to nobody, so anybody may go on with removing it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;
use crate::store::Store;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// How often somebody else may take away a part of what we remove before it is left to them.
const MOST_MEETINGS: usize = 10_000;

impl Store {
    /// Renames `path` into the trash; `None` if it is not there.
    pub(crate) fn discard(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let to = self
            .path("trash")
            .join(format!("{}-{count}", self.process_id()?));
        match fs::rename(path, &to) {
            Ok(()) => Ok(Some(to)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("move to the trash", path)(error)),
        }
    }

    /// Removes `path` with all below it, by way of the trash.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match self.discard(path)? {
            Some(path) => self.burn(&path),
            None => Ok(()),
        }
    }

    /// Removes something in the trash for good, perhaps while others do the same.
    pub(crate) fn burn(&self, path: &Path) -> Result<(), StoreError> {
        let name = path
            .file_name()
            .expect("BUG: the trash has no nameless entries");
        let trash = self.path("trash");
        let dir = fs::File::open(&trash).map_err(StoreError::io("open", &trash))?;
        for _ in 0..MOST_MEETINGS {
            match kiln_tree::copy::remove_tree(&dir, name.as_encoded_bytes()) {
                Ok(()) => return Ok(()),
                // Somebody else removed a part of it under our hands; what is left gets less.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let (path, source) = (path.to_owned(), Box::new(source));
                    return Err(StoreError::Tree {
                        action: "remove",
                        path,
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}
