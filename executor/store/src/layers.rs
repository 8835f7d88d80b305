//! Layers: a directory and its manifest under one content id.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use kiln_tree::{Manifest, View};
use rusqlite::OptionalExtension;

use crate::leases::Leased;
use crate::records::layer_exists;
use crate::store::{Store, make_directory, millis, now, time};
use crate::{Content, Lease, StoreError};

/// Entries of manifests that are kept in memory, over all layers.
const CACHED_ENTRIES: usize = 500_000;

/// A layer in the making: a directory that only this process knows.
///
/// Dropping it without committing it removes it.
#[derive(Debug)]
pub struct LayerDraft {
    store: Store,
    directory: PathBuf,
    fs: OwnedFd,
    committed: bool,
}

/// A layer that is in the store and leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerHandle {
    /// Its content id.
    pub content: Content,
    /// Whether the store had a layer of that content, which was taken instead of the new one.
    pub adopted: bool,
}

/// What the store knows about a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Its content id.
    pub content: Content,
    /// Bytes of all files, each hard link group counted once.
    pub size_bytes: u64,
    /// Entries of its manifest.
    pub files: u64,
    /// When it was committed.
    pub created: SystemTime,
    /// When it was last asked for.
    pub used: SystemTime,
}

/// Manifests in memory, forgotten all at once when they are too many.
#[derive(Debug, Default)]
pub(crate) struct ManifestCache {
    manifests: HashMap<Content, Arc<Manifest>>,
    entries: usize,
}

impl Store {
    /// Starts a layer with an empty directory of mode 0755.
    pub fn begin_layer(&self) -> Result<LayerDraft, StoreError> {
        let directory = self.work_path("layer")?;
        make_directory(&directory)?;
        let fs = directory.join("fs");
        DirBuilder::new()
            .mode(0o755)
            .create(&fs)
            .map_err(StoreError::io("create", &fs))?;
        // The mode given to mkdir is cut by the umask.
        fs::set_permissions(&fs, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(StoreError::io("set the mode of", &fs))?;
        self.draft(directory)
    }

    /// Makes a draft of a directory in this process's work that has `fs` in it.
    pub(crate) fn draft(&self, directory: PathBuf) -> Result<LayerDraft, StoreError> {
        let fs = open_directory(&directory.join("fs"))?;
        Ok(LayerDraft {
            store: self.clone(),
            directory,
            fs,
            committed: false,
        })
    }

    /// Names a finished draft and leases it; if the store has that content, the draft is dropped
    /// and the older layer taken.
    ///
    /// A kill at any instant leaves the layer whole and known, or a directory that no row names,
    /// which the next commit of that content or the next sweep removes.
    pub fn commit_layer(
        &self,
        lease: &Lease,
        draft: LayerDraft,
        manifest: &Manifest,
        content: Content,
    ) -> Result<LayerHandle, StoreError> {
        self.commit_layer_of(lease, draft, manifest, content, SystemTime::now())
    }

    /// Like [`Store::commit_layer`], for a layer that was made elsewhere at that time.
    pub fn commit_layer_of(
        &self,
        lease: &Lease,
        mut draft: LayerDraft,
        manifest: &Manifest,
        content: Content,
        created: SystemTime,
    ) -> Result<LayerHandle, StoreError> {
        debug_assert!(
            !matches!(content, Content::Layer(id) if id != manifest.id()),
            "BUG: a layer was given the content id of another"
        );
        // Mostly the content is new, and the manifest is better written before others must wait.
        let path = draft.directory.join("manifest");
        fs::write(&path, manifest.encode()).map_err(StoreError::io("write", &path))?;
        let (process, time, bytes) = (self.process_id()?, now(), content.to_bytes());
        let created = millis(created).min(time);
        let size = i64::try_from(manifest.total_bytes()).unwrap_or(i64::MAX);
        let files = i64::try_from(manifest.entries().len()).unwrap_or(i64::MAX);
        let to = self.layer_path(&content);
        let mut in_the_way = None;
        // The rename is inside the transaction: sweeps look for directories without rows in one of
        // their own, so they never see this one between the two.
        let adopted = self.database().write("add a layer", |t| {
            let adopted = layer_exists(t, &content)?;
            if adopted {
                t.prepare_cached("UPDATE layer SET used = ?2 WHERE content = ?1")?
                    .execute((bytes, time))?;
            } else {
                // Left by a process that was killed between rename and commit, or by a boot whose
                // rows were dropped.
                in_the_way = self.discard(&to)?;
                fs::rename(&draft.directory, &to).map_err(StoreError::io("name the layer", &to))?;
                // Should the transaction fail from here on, what lies there is a directory without
                // a row, which may be another process's by the time that we could remove it.
                draft.committed = true;
                t.prepare_cached(
                    "INSERT INTO layer (content, size_bytes, files, created, used, boot)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute((bytes, size, files, created, time, &self.inner.boot))?;
            }
            lease.hold(t, process, Leased::Layer, &bytes)?;
            Ok(adopted)
        })?;
        if let Some(path) = in_the_way {
            self.burn(&path)?;
        }
        Ok(LayerHandle { content, adopted })
    }

    /// Returns what is known about a layer, or `None` if it is not there.
    pub fn layer(&self, content: &Content) -> Result<Option<LayerInfo>, StoreError> {
        self.database().read("look up a layer", |c| {
            c.prepare_cached(
                "SELECT size_bytes, files, created, used FROM layer WHERE content = ?1",
            )?
            .query_row([content.to_bytes()], |row| {
                Ok(LayerInfo {
                    content: *content,
                    size_bytes: row.get::<_, i64>(0)?.unsigned_abs(),
                    files: row.get::<_, i64>(1)?.unsigned_abs(),
                    created: time(row.get(2)?),
                    used: time(row.get(3)?),
                })
            })
            .optional()
        })
    }

    /// Leases those of `layers` that are there, and returns the others.
    pub fn lease_layers(
        &self,
        lease: &Lease,
        layers: &[Content],
    ) -> Result<Vec<Content>, StoreError> {
        let (process, time) = (self.process_id()?, now());
        self.database().write("lease layers", |t| {
            let mut missing = Vec::new();
            let mut used = t.prepare_cached("UPDATE layer SET used = ?2 WHERE content = ?1")?;
            for content in layers {
                if used.execute((content.to_bytes(), time))? == 0 {
                    missing.push(*content);
                } else {
                    lease.hold(t, process, Leased::Layer, &content.to_bytes())?;
                }
            }
            Ok(missing)
        })
    }

    /// Returns those that are not here, and holds none of the others.
    pub fn missing_layers(&self, layers: &[Content]) -> Result<Vec<Content>, StoreError> {
        self.database().snapshot("look for layers", |t| {
            let mut missing = Vec::new();
            for content in layers {
                if !layer_exists(t, content)? {
                    missing.push(*content);
                }
            }
            Ok(missing)
        })
    }

    /// Opens the directory of a leased layer for reading; nobody may write there.
    pub fn open_layer(&self, content: &Content) -> Result<OwnedFd, StoreError> {
        match open_directory(&self.layer_path(content).join("fs")) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::NoSuchLayer(*content))
            }
            other => other,
        }
    }

    /// Returns the manifest of a leased layer.
    pub fn layer_manifest(&self, content: &Content) -> Result<Arc<Manifest>, StoreError> {
        if let Some(manifest) = self.manifests().manifests.get(content) {
            return Ok(manifest.clone());
        }
        let path = self.layer_path(content).join("manifest");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::NoSuchLayer(*content));
            }
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        let manifest = Manifest::decode(&bytes).map_err(|source| StoreError::Tree {
            action: "read the manifest",
            path,
            source: Box::new(source),
        })?;
        let manifest = Arc::new(manifest);
        self.manifests().remember(*content, &manifest);
        Ok(manifest)
    }

    /// Returns the merged view of leased layers, lowest first.
    pub fn layers_view(&self, layers: &[Content]) -> Result<View, StoreError> {
        let manifests: Result<Vec<_>, _> = layers
            .iter()
            .map(|content| self.layer_manifest(content))
            .collect();
        manifests.map(View::new)
    }

    /// The path of the directory of a leased layer, for reading alone.
    pub fn layer_directory(&self, content: &Content) -> PathBuf {
        self.layer_path(content).join("fs")
    }

    pub(crate) fn layer_path(&self, content: &Content) -> PathBuf {
        self.path("layers").join(content.directory())
    }

    fn manifests(&self) -> std::sync::MutexGuard<'_, ManifestCache> {
        self.inner
            .manifests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl ManifestCache {
    fn remember(&mut self, content: Content, manifest: &Arc<Manifest>) {
        if self.entries + manifest.entries().len() > CACHED_ENTRIES {
            *self = Self::default();
        }
        self.entries += manifest.entries().len();
        self.manifests.insert(content, manifest.clone());
    }
}

impl LayerDraft {
    /// The directory to fill.
    pub fn fs(&self) -> BorrowedFd<'_> {
        self.fs.as_fd()
    }

    /// The path of that directory.
    pub fn fs_path(&self) -> PathBuf {
        self.directory.join("fs")
    }
}

impl Drop for LayerDraft {
    fn drop(&mut self) {
        if !self.committed {
            // What cannot be removed now is in the trash, for the next sweep.
            let _ = self.store.remove(&self.directory);
        }
    }
}

pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, StoreError> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = (rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW).bits();
    File::options()
        .read(true)
        .custom_flags(flags as i32)
        .open(path)
        .map(OwnedFd::from)
        .map_err(StoreError::io("open", path))
}
