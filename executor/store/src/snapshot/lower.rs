//! The layers below a snapshot: where they lie, and what they show.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_tree::aged::Age;
use kiln_tree::materialised::{Names, materialise};
use kiln_tree::{Manifest, Stop, View};

use crate::layers::open_directory;
use crate::snapshot::copy::{failed, mark};
use crate::snapshot::{WorkDirectory, fold};
use crate::store::Store;
use crate::{Content, Lease, StoreError};

/// Finds the layers below a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Lowers {
    pub(super) store: Store,
    aged: Option<Arc<Aged>>,
}

/// Layers with other times than they have.
#[derive(Debug)]
struct Aged {
    by: Age,
    /// Those that were asked for, each with the directory that its copy lies in.
    made: Mutex<HashMap<Content, Arc<WorkDirectory>>>,
}

/// The layers below one snapshot.
pub(super) struct Lower {
    /// Where they lie, lowest first.
    pub(super) directories: Vec<PathBuf>,
    /// What they show.
    pub(super) view: View,
}

impl Lowers {
    pub(super) fn new(store: &Store) -> Lowers {
        Lowers {
            store: store.clone(),
            aged: None,
        }
    }

    /// Those whose files seem older, but for what archives say of theirs.
    pub(super) fn aged(store: &Store, by: Age) -> Lowers {
        let made = Mutex::default();
        Lowers {
            aged: Some(Arc::new(Aged { by, made })),
            ..Lowers::new(store)
        }
    }

    pub(super) fn of(
        &self,
        lease: &Lease,
        layers: &[Content],
        stop: &Stop,
    ) -> Result<Lower, StoreError> {
        let folded = fold::fold(&self.store, lease, layers, stop)?;
        let mut manifests = Vec::with_capacity(folded.len());
        let mut directories = Vec::with_capacity(folded.len());
        for content in &folded {
            let manifest = self.store.layer_manifest(content)?;
            let (manifest, directory) = match (&self.aged, content) {
                (Some(aged), Content::Layer(_)) => {
                    let manifest = Arc::new(manifest.aged(aged.by));
                    let directory = aged.directory(&self.store, content, &manifest, stop)?;
                    (manifest, directory)
                }
                _ => (manifest, self.store.layer_directory(content)),
            };
            manifests.push(manifest);
            directories.push(directory);
        }
        Ok(Lower {
            directories,
            view: View::new(manifests),
        })
    }
}

impl Aged {
    /// Makes a copy of a layer as `manifest` has it, unless there is one.
    fn directory(
        &self,
        store: &Store,
        content: &Content,
        manifest: &Arc<Manifest>,
        stop: &Stop,
    ) -> Result<PathBuf, StoreError> {
        // Who wants the same waits for it.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = made.get(content) {
            return Ok(work.path().join("fs"));
        }
        let work = WorkDirectory::new(store)?;
        let path = work.make("fs")?;
        let into = open_directory(&path)?;
        let (view, options) = (View::new(vec![Arc::clone(manifest)]), store.options());
        let layer = [store.open_layer(content)?];
        let ownership = &options.ownership;
        materialise(&view, &layer, into.as_fd(), ownership, Names::Linked, stop)
            .map_err(failed("copy a layer to", &path))?;
        mark(into.as_fd(), manifest, options.overlay_xattrs)
            .map_err(failed("copy a layer to", &path))?;
        made.insert(*content, Arc::new(work));
        Ok(path)
    }
}
