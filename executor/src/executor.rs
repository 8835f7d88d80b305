//! The executor: a store, and what this host allows.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use kiln_ir::Platform;
use kiln_oci::registry::{Client, Config, Overrides, Settings};
use kiln_store::{DiffId, Snapshotter, Store, StoreOptions, Strategy};
use kiln_tree::seal::IdMap;
use kiln_tree::{OverlayXattrs, Ownership};

use crate::caller::registry_settings;
use crate::challenges::StoredChallenges;
use crate::emulation;
use crate::engines::{Engine, Engines};
use crate::error::{Error, words};
use crate::warning::Warn;

/// How an executor is opened.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// The store's directory.
    pub root: PathBuf,
    /// This process is root only within a user namespace that kiln made.
    pub in_user_namespace: bool,
    /// Only one id is mapped there, so owners are kept in manifests alone.
    pub single_id: bool,
    /// Registries are never asked.
    pub offline: bool,
    /// What goes over all other settings of registries.
    pub registries: Overrides,
    /// The engines of this host that are asked for images before registries are, in order.
    pub engines: Vec<Engine>,
    /// Told what is doubtful, once each, where nobody else is.
    pub warn: Warn,
}

/// A store with a way to registries and into sandboxes. Clones share everything.
#[derive(Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    options: ExecutorOptions,
    settings: OnceLock<Settings>,
    registry: OnceLock<Client>,
    engines: Engines,
    snapshots: OnceLock<Found>,
    /// Layers that are being brought here.
    turns: Mutex<HashMap<DiffId, Weak<Turn>>>,
    emulation: emulation::Known,
}

/// Held by whoever brings a layer here.
type Turn = tokio::sync::Mutex<()>;

/// How snapshots are made on this host.
#[derive(Debug)]
pub struct Found {
    /// The strategy.
    pub strategy: Strategy,
    /// Why it is not an overlay, in words.
    pub reason: Option<String>,
    snapshotter: Box<dyn Snapshotter>,
}

impl Executor {
    /// Opens the store, making it if there is none.
    pub fn open(options: ExecutorOptions) -> Result<Executor, Error> {
        let ownership = match options.single_id {
            true => Ownership::Record,
            false => Ownership::Apply(IdMap::identity()),
        };
        let overlay_xattrs = match options.in_user_namespace {
            true => OverlayXattrs::User,
            false => OverlayXattrs::Trusted,
        };
        let store_options = StoreOptions {
            ownership,
            overlay_xattrs,
            ..StoreOptions::default()
        };
        let store = Store::open(&options.root, store_options)?;
        let inner = Inner {
            store,
            engines: Engines::new(options.engines.clone()),
            options,
            settings: OnceLock::new(),
            registry: OnceLock::new(),
            snapshots: OnceLock::new(),
            turns: Mutex::default(),
            emulation: emulation::Known::default(),
        };
        Ok(Executor {
            inner: Arc::new(inner),
        })
    }

    /// The store.
    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What it was opened with.
    pub fn options(&self) -> &ExecutorOptions {
        &self.inner.options
    }

    /// What is to be held while a layer is brought here.
    pub(crate) fn turn_of(&self, layer: DiffId) -> Arc<Turn> {
        let mut turns = self
            .inner
            .turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let there = turns.get(&layer).and_then(Weak::upgrade);
        there.unwrap_or_else(|| {
            let turn = Arc::new(Turn::default());
            turns.insert(layer, Arc::downgrade(&turn));
            turn
        })
    }

    /// The settings of registries, read when they are first needed.
    pub fn registry_settings(&self) -> Result<&Settings, Error> {
        if let Some(settings) = self.inner.settings.get() {
            return Ok(settings);
        }
        let settings = registry_settings(&self.inner.options.registries)?;
        Ok(self.inner.settings.get_or_init(|| settings))
    }

    /// The registry client; settings are read when it is first needed.
    pub(crate) fn registry(&self) -> Result<&Client, Error> {
        if let Some(client) = self.inner.registry.get() {
            return Ok(client);
        }
        let client = Client::new(Config {
            challenges: Arc::new(StoredChallenges {
                store: self.store().clone(),
            }),
            ..self.registry_settings()?.config()
        });
        Ok(self.inner.registry.get_or_init(|| client))
    }

    /// Tells what went wrong with registries without an error, each cause once.
    pub(crate) fn tell_doubts(&self, tell: impl Fn(String)) {
        self.inner.tell_doubts(tell);
    }

    /// The other engines of this host.
    pub(crate) fn engines(&self) -> &Engines {
        &self.inner.engines
    }

    /// Finds out how snapshots are made here.
    pub fn snapshots(&self) -> Result<&Found, Error> {
        if let Some(found) = self.inner.snapshots.get() {
            return Ok(found);
        }
        let probe = self.store().probe_snapshots()?;
        let found = Found {
            strategy: probe.strategy,
            reason: probe.reason.map(|error| words(&error)),
            snapshotter: self.store().snapshotter(probe.strategy),
        };
        Ok(self.inner.snapshots.get_or_init(|| found))
    }

    /// What was found out about platforms.
    pub(crate) fn emulation(&self) -> &emulation::Known {
        &self.inner.emulation
    }

    pub(crate) fn snapshotter(&self) -> Result<&dyn Snapshotter, Error> {
        Ok(&*self.snapshots()?.snapshotter)
    }
}

impl Inner {
    fn tell_doubts(&self, tell: impl Fn(String)) {
        let doubts = self.registry.get().map(Client::doubts).unwrap_or_default();
        for doubt in doubts {
            tell(doubt);
        }
    }
}

impl Drop for Inner {
    /// Tells what nobody asked for.
    fn drop(&mut self) {
        self.tell_doubts(|line| self.options.warn.tell(line));
    }
}

/// The platform that this program was built for, which is the only one whose steps can run.
pub fn host_platform() -> Platform {
    Platform::linux(std::env::consts::ARCH)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An executor with a new store, which goes with the directory.
    pub(crate) fn executor() -> (tempfile::TempDir, Executor) {
        let directory = tempfile::tempdir().unwrap();
        let options = ExecutorOptions {
            root: directory.path().join("store"),
            in_user_namespace: false,
            single_id: !rustix::process::geteuid().is_root(),
            offline: true,
            registries: Overrides::default(),
            engines: Vec::new(),
            warn: Warn::default(),
        };
        let executor = Executor::open(options).unwrap();
        (directory, executor)
    }
}
