//! Opening kiln: a store on this host.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use kiln_executor::{Engine, Executor, ExecutorOptions, RegistryOverrides, Warn};

use crate::Error;

/// What kiln is told about the host.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The store's directory, made if it is not there.
    pub root: PathBuf,
    /// This process is root only within a user namespace that kiln made.
    pub in_user_namespace: bool,
    /// Only one id is mapped there.
    pub single_id: bool,
    /// Registries are never asked.
    pub offline: bool,
    /// What goes over all other settings of registries: configuration files and the environment.
    pub registries: RegistryOverrides,
    /// The engines of this host that are asked for images before registries are, in order.
    pub engines: Vec<Engine>,
    /// Told what is doubtful, once each; a build tells its own events instead.
    pub warn: Warn,
}

/// A store, and everything that can be done with it. Clones share it.
///
/// What concerns images and space is the executor's, which this dereferences to.
#[derive(Clone)]
pub struct Kiln {
    pub(crate) executor: Executor,
}

impl Kiln {
    /// Whether there is a store at `root`; opening one that is not there makes it.
    pub fn has_store(root: &Path) -> bool {
        Executor::has_store(root)
    }

    /// Opens the store.
    pub fn open(options: Options) -> Result<Kiln, Error> {
        let executor = Executor::open(ExecutorOptions {
            root: options.root,
            in_user_namespace: options.in_user_namespace,
            single_id: options.single_id,
            offline: options.offline,
            registries: options.registries,
            engines: options.engines,
            warn: options.warn,
        })?;
        Ok(Kiln { executor })
    }
}

impl Deref for Kiln {
    type Target = Executor;

    fn deref(&self) -> &Executor {
        &self.executor
    }
}
