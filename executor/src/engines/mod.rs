//! Other engines of this host: the images that they have need no registry.
//!
//! What an engine says is as hostile as what a registry says. A layer is taken for what its archive hashes
//! to, and must be what the image's config lists; the config must be what the image's id, or its manifest,
//! says. Where nothing listens, or nothing is kept, looking costs a `stat`.

mod containerd;
mod docker;
mod documents;
mod keep;
mod load;
mod saved;
mod storage;
mod tarsplit;

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::future::join_all;
use kiln_ir::Platform;
use kiln_oci::daemon::{Daemon, Places};
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::Descriptor;
use kiln_oci::reference::Reference;
use kiln_store::{DiffId, Lease};

pub(crate) use self::docker::SavedImage;
use crate::caller::caller;
use crate::error::{Error, words};
use crate::executor::Executor;

pub(crate) use docker::bring;
pub(crate) use keep::keep_archive;
pub(crate) use load::{Form, Has, Knows, Loader};

/// An engine that keeps images on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// docker, by its socket.
    Docker,
    /// podman, buildah and whatever else shares their storage, by its files.
    Podman,
    /// containerd, by its command `ctr`.
    Containerd,
}

/// A name that is no engine's.
#[derive(Debug, thiserror::Error)]
#[error("there is no engine `{name}`")]
pub struct UnknownEngine {
    name: String,
}

impl Engine {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Engine; 3] = [Engine::Docker, Engine::Podman, Engine::Containerd];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Engine, UnknownEngine> {
        let engine = Engine::ALL.into_iter().find(|engine| engine.name() == name);
        engine.ok_or_else(|| UnknownEngine {
            name: name.chars().take(100).collect(),
        })
    }
}

/// The engines that are asked for images, in order.
#[derive(Debug, Default)]
pub(crate) struct Engines {
    order: Vec<Engine>,
    /// What is wrong with them is told once, and who did not answer is not asked again.
    troubles: Mutex<Troubles>,
}

#[derive(Debug, Default)]
struct Troubles {
    silent: BTreeSet<Engine>,
    told: BTreeSet<String>,
}

/// What is looked for, and for whom.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) executor: &'a Executor,
    pub(crate) lease: &'a Lease,
    pub(crate) reference: &'a Reference,
    pub(crate) platform: &'a Platform,
    /// Whether the store may change.
    pub(crate) keeps: bool,
    /// Whether layers may be taken while looking.
    pub(crate) takes_layers: bool,
    /// Told what takes long.
    pub(crate) tell: &'a (dyn Fn(String) + Send + Sync),
}

/// What all engines said.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) image: Option<LocalImage>,
    /// Somebody has it for another platform.
    pub(crate) other_platform: Option<Error>,
    /// What is wrong with engines that could not say.
    pub(crate) warnings: Vec<String>,
}

/// An image of an engine; its config is verified, its layers are when they are taken.
#[derive(Debug, Clone)]
pub(crate) struct LocalImage {
    pub(crate) engine: Engine,
    /// The digest of its manifest; of its config where the engine keeps none.
    pub(crate) manifest: Sha256Digest,
    /// The config's bytes.
    pub(crate) config: Vec<u8>,
    /// When the engine got it, or gave it its last name, as far as it says.
    pub(crate) added: Option<SystemTime>,
    pub(crate) layers: LocalLayers,
    /// What its manifest has its layers as, which the engine need not have; empty where it keeps none.
    pub(crate) blobs: Vec<Descriptor>,
}

/// How the layers of an image can be had.
#[derive(Debug, Clone)]
pub(crate) enum LocalLayers {
    /// All in one stream.
    Saved(Box<SavedImage>),
    /// Each by itself, lowest first.
    Each(Vec<LayerSource>),
}

/// A layer that an engine has.
#[derive(Debug, Clone)]
pub(crate) enum LayerSource {
    Split(tarsplit::SplitLayer),
    Blob(containerd::Blob),
}

impl LayerSource {
    /// What it is called in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Split(layer) => layer.name.clone(),
            Self::Blob(blob) => blob.digest.to_string(),
        }
    }

    /// How long its archive is, as far as the engine says.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        match self {
            Self::Split(layer) => layer.size_bytes,
            Self::Blob(blob) => Some(blob.size),
        }
    }

    /// Opens its archive, perhaps compressed; what it holds is for the reader to check.
    pub(crate) fn open(&self) -> Result<Box<dyn Read + Send>, Error> {
        Ok(match self {
            Self::Split(layer) => Box::new(layer.open()?),
            Self::Blob(blob) => Box::new(blob.open()?),
        })
    }
}

impl Engines {
    /// Asks these, in this order.
    pub(crate) fn new(order: Vec<Engine>) -> Engines {
        Engines {
            order,
            troubles: Mutex::default(),
        }
    }

    /// Looks for an image everywhere at the same time; the first engine of the order that has it counts.
    pub(crate) async fn find(&self, asking: Asking<'_>) -> Answer {
        let silent = self.lock().silent.clone();
        let asked = self.order.iter().filter(|engine| !silent.contains(engine));
        let answers = asked.map(|engine| async move { (*engine, ask(*engine, asking).await) });
        let mut answer = Answer::default();
        for (engine, found) in join_all(answers).await {
            match found {
                Ok(None) => {}
                Ok(Some(image)) => {
                    answer.image.get_or_insert(image);
                }
                Err(error @ Error::Platform { .. }) => {
                    answer.other_platform.get_or_insert(error);
                }
                Err(error) => answer.warnings.extend(self.trouble(engine, &error)),
            }
        }
        answer
    }

    /// What is to be told of an engine that failed; nothing if it was told before, or is just not there.
    fn trouble(&self, engine: Engine, error: &Error) -> Option<String> {
        let mut troubles = self.lock();
        match error {
            Error::Daemon(error) if error.is_absent() => return None,
            Error::Daemon(kiln_oci::daemon::DaemonError::Silent { .. })
            | Error::EngineSilent { .. } => {
                troubles.silent.insert(engine);
            }
            _ => {}
        }
        let words = format!("{engine} was not used: {}", words(error));
        troubles.told.insert(words.clone()).then_some(words)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(engine: Engine, asking: Asking<'_>) -> Result<Option<LocalImage>, Error> {
    match engine {
        Engine::Docker => match daemon()? {
            Some(daemon) => docker::find(&daemon, asking).await,
            None => Ok(None),
        },
        Engine::Podman => storage::find(asking).await,
        Engine::Containerd => containerd::find(asking).await,
    }
}

/// The docker engine of this host; none where no socket is in sight.
pub(crate) fn daemon() -> Result<Option<Daemon>, Error> {
    match Places::from_env().find()? {
        Some(address) => Ok(Some(Daemon::new(&address, caller())?)),
        None => Ok(None),
    }
}

/// Where a program is.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let programs = places.map(|place| place.join(name));
    programs.into_iter().find(|program| program.is_file())
}

fn diff_id(digest: &Sha256Digest) -> DiffId {
    DiffId(*digest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_have_names() {
        for engine in Engine::ALL {
            assert_eq!(engine.to_string().parse::<Engine>().unwrap(), engine);
        }
        let error = "rkt".parse::<Engine>().unwrap_err();
        assert_eq!(error.to_string(), "there is no engine `rkt`");
    }

    #[test]
    fn trouble_is_told_once_and_silence_ends_asking() {
        let engines = Engines::new(Engine::ALL.to_vec());
        let error = Error::EngineSilent {
            engine: Engine::Containerd,
            seconds: 2,
        };
        assert!(engines.trouble(Engine::Containerd, &error).is_some());
        assert!(engines.trouble(Engine::Containerd, &error).is_none());
        assert!(engines.lock().silent.contains(&Engine::Containerd));
    }
}
