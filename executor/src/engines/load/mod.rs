//! Images into the other engines of this host, which are asked first what they have of them.

mod command;
mod docker;

use std::collections::{BTreeMap, BTreeSet};

use kiln_oci::caller::CommandLine;
use kiln_oci::daemon::Daemon;
use kiln_oci::digest::Sha256Digest;
use kiln_tree::Stop;
use tokio::runtime::Handle;

use super::containerd::Containerd;
use super::{Engine, storage};
use crate::error::{Error, words};
use crate::export::Parcel;

/// An engine that an image can be sent to.
pub(crate) enum Loader {
    Docker(Daemon),
    Podman(std::path::PathBuf),
    Containerd(Containerd, String),
}

/// The archive that an engine reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A layout with an entry for each name.
    Oci,
    /// A layout with one entry, which has the first name.
    OciOnce,
    /// The same with what `docker load` looks for.
    Docker,
}

/// What an engine has of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Knows {
    /// Nothing is known of it.
    #[default]
    Nothing,
    /// So many of the lowest layers.
    Lowest(usize),
    /// Layers by diff id, with the lengths of their archives.
    Layers(BTreeMap<Sha256Digest, Option<u64>>),
    /// Blobs.
    Blobs(BTreeSet<Sha256Digest>),
}

/// How an engine has a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Has {
    /// Not that anybody knew.
    Nothing,
    /// By its diff id; how long its archive is, if that is known.
    Plain(Option<u64>),
    /// As the blob that it was pulled as.
    AsPulled,
}

impl Knows {
    /// How the layer with this place in the image is there.
    pub(crate) fn has(
        &self,
        index: usize,
        diff_id: &Sha256Digest,
        pulled: Option<&Sha256Digest>,
    ) -> Has {
        match self {
            Self::Nothing => Has::Nothing,
            Self::Lowest(count) if index < *count => match pulled {
                // Its description then has the right length.
                Some(_) => Has::AsPulled,
                None => Has::Plain(None),
            },
            Self::Lowest(_) => Has::Nothing,
            Self::Layers(layers) => layers
                .get(diff_id)
                .map_or(Has::Nothing, |size| Has::Plain(*size)),
            Self::Blobs(blobs) => match pulled {
                Some(pulled) if blobs.contains(pulled) => Has::AsPulled,
                _ if blobs.contains(diff_id) => Has::Plain(None),
                _ => Has::Nothing,
            },
        }
    }
}

impl Loader {
    /// The engine that is named, or the first that runs here.
    pub(crate) async fn choose(engine: Option<Engine>) -> Result<Loader, Error> {
        let engines = match engine {
            Some(engine) => vec![engine],
            None => Engine::ALL.to_vec(),
        };
        let mut tried = Vec::new();
        for engine in engines {
            match Loader::of(engine).await {
                Ok(loader) => return Ok(loader),
                Err(reason) => tried.push(format!("{engine}: {reason}")),
            }
        }
        Err(Error::NoEngine { engine, tried })
    }

    /// The engine, or why it cannot be used.
    async fn of(engine: Engine) -> Result<Loader, String> {
        match engine {
            Engine::Docker => {
                let daemon = super::daemon().map_err(|error| words(&error))?;
                let sockets = kiln_oci::daemon::Places::from_env().sockets;
                let Some(daemon) = daemon else {
                    let sockets: Vec<String> = sockets
                        .iter()
                        .map(|path| path.display().to_string())
                        .collect();
                    return Err(format!("there is no {}", sockets.join(", no ")));
                };
                daemon.ping().await.map_err(|error| words(&error))?;
                Ok(Loader::Docker(daemon))
            }
            Engine::Podman => {
                let program = super::program("podman");
                let program = program.ok_or("there is no program `podman`")?;
                Ok(Loader::Podman(program))
            }
            Engine::Containerd => {
                let socket = Containerd::socket();
                let containerd = Containerd::find().await.ok_or_else(|| {
                    let socket = socket.display();
                    format!("nobody listens at {socket}, or there is no program `ctr`")
                })?;
                let namespace = Containerd::wanted_namespace();
                let namespace = namespace.unwrap_or_else(|| "default".to_owned());
                Ok(Loader::Containerd(containerd, namespace))
            }
        }
    }

    /// Which it is.
    pub(crate) fn engine(&self) -> Engine {
        match self {
            Self::Docker(_) => Engine::Docker,
            Self::Podman(_) => Engine::Podman,
            Self::Containerd(..) => Engine::Containerd,
        }
    }

    /// Finds out what it has of an image with these layers, under these names; one that does not say is
    /// sent everything.
    pub(crate) async fn knows(&self, diff_ids: &[Sha256Digest], names: &[String]) -> Knows {
        let known = match self {
            Self::Docker(daemon) => docker::known(daemon, diff_ids, names)
                .await
                .map(Knows::Lowest),
            Self::Podman(_) => storage::known(diff_ids).await.map(Knows::Layers),
            Self::Containerd(containerd, namespace) => {
                containerd.blobs(namespace).await.map(Knows::Blobs)
            }
        };
        known.unwrap_or_default()
    }

    /// Sends an image; blocks, on a thread of a runtime.
    ///
    /// An engine takes an archive as a whole, so that nothing is left of one that was not sent to its end.
    pub(crate) fn send(
        &self,
        parcel: &Parcel<'_>,
        runtime: &Handle,
        stop: &Stop,
        progress: &dyn Fn(String),
    ) -> Result<(), Error> {
        let told = |digest: &Sha256Digest, bytes: u64| {
            let short: String = digest.hex().chars().take(12).collect();
            progress(format!("sending layer sha256:{short} ({bytes} bytes)"));
        };
        let (sent, all) = parcel.count();
        let left = all - sent;
        if left > 0 {
            let layers = if left == 1 { "layer" } else { "layers" };
            progress(format!(
                "{} has {left} {layers} of {all} already",
                self.engine()
            ));
        }
        match self {
            Self::Docker(daemon) => docker::send(daemon, parcel, runtime, stop, &told, progress),
            Self::Podman(program) => {
                let line = CommandLine::new(program, ["load", "--quiet"]);
                let how = (Engine::Podman, Form::OciOnce);
                command::send(line, how, parcel, runtime, stop, &told)?;
                command::name_with_podman(program, parcel, runtime, stop)
            }
            Self::Containerd(containerd, namespace) => {
                let mut arguments = vec!["images", "import", "--all-platforms"];
                if parcel.names().is_empty() {
                    // Without a name it would get one of the day.
                    arguments.extend(["--digests", "--base-name", "kiln"]);
                }
                arguments.push("-");
                let line = containerd.line(namespace, &arguments);
                let how = (Engine::Containerd, Form::Oci);
                command::send(line, how, parcel, runtime, stop, &told)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_have_layers_in_their_own_ways() {
        let digest = |byte: u8| Sha256Digest::from_bytes([byte; 32]);
        let (layer, pulled) = (digest(1), digest(2));
        let check = |knows: Knows, pulled: Option<&Sha256Digest>, expected: Has| {
            assert_eq!(knows.has(1, &layer, pulled), expected, "{knows:?}");
        };
        check(Knows::Nothing, Some(&pulled), Has::Nothing);
        check(Knows::Lowest(1), Some(&pulled), Has::Nothing);
        check(Knows::Lowest(2), Some(&pulled), Has::AsPulled);
        check(Knows::Lowest(2), None, Has::Plain(None));
        let layers = BTreeMap::from([(layer, Some(7))]);
        check(Knows::Layers(layers), Some(&pulled), Has::Plain(Some(7)));
        check(Knows::Layers(BTreeMap::new()), Some(&pulled), Has::Nothing);
        let blobs = BTreeSet::from([layer]);
        check(Knows::Blobs(blobs.clone()), Some(&pulled), Has::Plain(None));
        check(
            Knows::Blobs(BTreeSet::from([pulled])),
            Some(&pulled),
            Has::AsPulled,
        );
        check(Knows::Blobs(BTreeSet::from([pulled])), None, Has::Nothing);
    }
}
