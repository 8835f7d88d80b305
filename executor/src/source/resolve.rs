//! From an image's name to what it is: the store first, then the registry.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use kiln_ir::{ImageConfig, Platform, ResolveMode};
use kiln_oci::document::{Descriptor, Manifest};
use kiln_oci::reference::Reference;
use kiln_oci::registry::{self, About, Attempt, Cause, Image};
use kiln_store::{BlobDigest, Content, DiffId, ImageId, Lease, Pulled};

use super::age::{ago, stated_time};
use crate::context::Locals;
use crate::engines::{Asking, LocalImage, LocalLayers};
use crate::error::{Error, words};
use crate::executor::Executor;
use crate::images::{member_for, oci_platform, platform_of};
use crate::source::fetch;
use crate::warning::Warn;

/// Names are long, and people know an image by the first digits of its digest.
const SHOWN_DIGITS: usize = 8;

/// An image that is known, though its layers may not be here.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Its config.
    pub config: ImageConfig,
    /// The digest of its manifest for the platform.
    pub manifest_digest: String,
    /// For people, such as `sha256:25109184, pulled 3 days ago`.
    pub label: String,
    /// Its diff ids, lowest first.
    pub(crate) diff_ids: Vec<DiffId>,
    /// What its manifest has them as, in their order; empty where that does not say so, or there is none.
    pub(crate) blobs: Vec<Descriptor>,
    /// Where its layers are.
    pub(crate) place: Place,
}

impl ResolvedImage {
    /// Whether the archive of a layer can be had from where the image is.
    pub(crate) fn can_bring(&self, layer: DiffId, offline: bool) -> bool {
        self.diff_ids.contains(&layer)
            && match self.place {
                Place::Store { .. } => false,
                Place::Registry(_) => !offline,
                Place::Layout(_) | Place::Engine { .. } => true,
            }
    }
}

/// Where the layers of an image are to be had.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In the store under these ids.
    Store {
        image: ImageId,
        layers: Vec<Content>,
    },
    /// In a registry.
    Registry(Reference),
    /// In an OCI layout directory.
    Layout(PathBuf),
    /// With another engine of this host; the registry of its name may have the blobs that its manifest names.
    Engine {
        layers: LocalLayers,
        name: Reference,
    },
}

/// Finds out what images are. Answers are remembered for one build, so that a tag that moves
/// meanwhile cannot split it.
pub struct Resolver {
    executor: Executor,
    lease: Lease,
    /// Whether the store remembers what registries say.
    keeps: bool,
    /// Whether layers may be taken while looking, where an engine does not tell about an image otherwise.
    takes_layers: bool,
    /// Whether what is here may be used, instead of what a registry would say.
    takes_local: bool,
    known: Mutex<Known>,
    warn: Warn,
    tell: Tell,
}

/// How long a registry is waited for where what is here can be taken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is wrong with a registry that was waited for in vain.
fn silent(reference: &Reference) -> Error {
    let attempt = Attempt {
        action: "resolve".into(),
        image: reference.familiar().into(),
        host: reference.domain().into(),
        about: About::default(),
        mirrors: None,
    };
    let source = Cause::Idle(PATIENCE);
    Error::Registry(registry::Error::Unreachable { attempt, source })
}

/// Told what takes long.
type Tell = Arc<dyn Fn(String) + Send + Sync>;

/// Answers by name, platform and how they are looked for. Each is found out once, and many at the same time.
type Known = BTreeMap<(String, String, ResolveMode), Arc<tokio::sync::OnceCell<ResolvedImage>>>;

impl Resolver {
    /// Begins with nothing known.
    pub fn new(executor: &Executor) -> Resolver {
        let lease = executor.store().lease();
        Resolver {
            executor: executor.clone(),
            lease,
            keeps: true,
            takes_layers: true,
            takes_local: true,
            known: Mutex::default(),
            warn: executor.options().warn.clone(),
            tell: Arc::new(|_| {}),
        }
    }

    /// Begins with nothing known, and leaves the store as it is.
    pub fn looking(executor: &Executor) -> Resolver {
        Resolver {
            keeps: false,
            takes_layers: false,
            ..Resolver::new(executor)
        }
    }

    /// Tells `tell` what takes long.
    #[must_use]
    pub fn telling(self, tell: impl Fn(String) + Send + Sync + 'static) -> Resolver {
        Resolver {
            tell: Arc::new(tell),
            ..self
        }
    }

    /// Takes no layers while looking.
    #[must_use]
    pub fn without_layers(self) -> Resolver {
        Resolver {
            takes_layers: false,
            ..self
        }
    }

    /// Asks no other engine of this host, and takes nothing else where a registry fails that is to be asked.
    #[must_use]
    pub fn without_engines(self) -> Resolver {
        Resolver {
            takes_local: false,
            ..self
        }
    }

    /// Tells `warn` what is doubtful about the answers, and nobody else.
    #[must_use]
    pub fn warning(self, warn: Warn) -> Resolver {
        Resolver { warn, ..self }
    }

    /// Who hears what is doubtful.
    pub(crate) fn warn(&self) -> &Warn {
        &self.warn
    }

    /// Whom it asks.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Finds out what `reference` is for a platform.
    pub async fn image(
        &self,
        reference: &str,
        platform: &Platform,
        mode: ResolveMode,
    ) -> Result<ResolvedImage, Error> {
        let key = (reference.to_owned(), platform.to_string(), mode);
        let answer = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(key).or_default())
        };
        let find = || self.find(reference, platform, mode);
        answer.get_or_try_init(find).await.cloned()
    }

    /// What is known already of `reference`, without asking anybody.
    pub(crate) fn known(
        &self,
        reference: &str,
        platform: &Platform,
        mode: ResolveMode,
    ) -> Option<ResolvedImage> {
        let key = (reference.to_owned(), platform.to_string(), mode);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&key)?.get().cloned()
    }

    async fn find(
        &self,
        text: &str,
        platform: &Platform,
        mode: ResolveMode,
    ) -> Result<ResolvedImage, Error> {
        let reference = Reference::parse(text)?;
        let name = reference.decisive();
        let may_ask = mode != ResolveMode::Local && !self.executor.options().offline;
        let mut other_platform = None;
        let asks_first = mode == ResolveMode::Pull && may_ask;
        if !asks_first
            && let Some(image) = self
                .here(&reference, &name, platform, &mut other_platform)
                .await?
        {
            return Ok(image);
        }
        if !may_ask {
            return Err(other_platform.unwrap_or(Error::Offline {
                reference: reference.familiar(),
            }));
        }
        let spare = asks_first && self.takes_local;
        let mut asking = std::pin::pin!(self.ask(&reference, &name, platform));
        let answer = match spare {
            true => tokio::time::timeout(PATIENCE, &mut asking).await.ok(),
            false => Some(asking.as_mut().await),
        };
        let is_silent = answer.is_none();
        let error = match answer {
            Some(Ok(image)) => return Ok(image),
            Some(Err(error)) => error,
            None => silent(&reference),
        };
        if spare && error.is_outage() {
            let here = self
                .here(&reference, &name, platform, &mut other_platform)
                .await;
            if let Ok(Some(image)) = here {
                let shown = reference.familiar();
                self.warn.tell(format!(
                    "`{shown}` is taken as it is here ({}): {}",
                    image.label,
                    words(&error)
                ));
                return Ok(image);
            }
        }
        // There is nothing but the registry.
        let error = match is_silent {
            true => match asking.await {
                Ok(image) => return Ok(image),
                Err(error) => error,
            },
            false => error,
        };
        // A local image of another platform is the better answer where no registry has one.
        Err(other_platform.unwrap_or(error))
    }

    /// Looks for an image in the store, and then with the other engines of this host.
    async fn here(
        &self,
        reference: &Reference,
        name: &str,
        platform: &Platform,
        other_platform: &mut Option<Error>,
    ) -> Result<Option<ResolvedImage>, Error> {
        if let Some(image) = self.in_store(reference, name, platform, other_platform)? {
            return Ok(Some(image));
        }
        if !self.takes_local {
            return Ok(None);
        }
        let answer = self
            .executor
            .engines()
            .find(Asking {
                executor: &self.executor,
                lease: &self.lease,
                reference,
                platform,
                keeps: self.keeps,
                takes_layers: self.takes_layers,
                tell: &*self.tell,
            })
            .await;
        for line in answer.warnings {
            self.warn.tell(line);
        }
        if let Some(error) = answer.other_platform {
            other_platform.get_or_insert(error);
        }
        answer
            .image
            .map(|image| with_engine(image, reference, platform))
            .transpose()
    }

    fn in_store(
        &self,
        reference: &Reference,
        name: &str,
        platform: &Platform,
        other_platform: &mut Option<Error>,
    ) -> Result<Option<ResolvedImage>, Error> {
        let store = self.executor.store();
        if let Some(image) = store.image_by_name(&self.lease, name)? {
            let shown = reference.familiar();
            let found = match member_for(store, &self.lease, image, platform, &shown) {
                Ok(image) => {
                    let config = config(&image.config, reference)?;
                    check_platform(&config, platform, reference).map(|()| (image, config))
                }
                Err(error) => Err(error),
            };
            match found {
                Err(error @ Error::Platform { .. }) => *other_platform = Some(error),
                Err(error) => return Err(error),
                Ok((image, config)) => {
                    let diff_ids = diff_ids(&image.config, &shown)?;
                    let digest = kiln_oci::digest::Sha256Digest::of(&image.manifest).to_string();
                    let label = format!(
                        "{}, added {}",
                        short(&image.id.to_string()),
                        ago(image.added)
                    );
                    let mut blobs = manifest(&image.manifest, reference)?.layers;
                    if blobs.len() != diff_ids.len() {
                        blobs.clear();
                    }
                    return Ok(Some(ResolvedImage {
                        config,
                        manifest_digest: digest,
                        label,
                        diff_ids,
                        blobs,
                        place: Place::Store {
                            image: image.id,
                            layers: image.layers,
                        },
                    }));
                }
            }
        }
        let Some(pulled) = store.pulled(&self.lease, name, &platform.to_string())? else {
            return Ok(None);
        };
        let manifest = manifest(&pulled.manifest, reference)?;
        let digest = pulled.manifest_digest.to_string();
        let label = format!("{}, pulled {}", short(&digest), ago(pulled.pulled_at));
        Ok(Some(ResolvedImage {
            config: config(&pulled.config, reference)?,
            manifest_digest: digest,
            label,
            diff_ids: pulled.diff_ids,
            blobs: manifest.layers,
            place: Place::Registry(reference.clone()),
        }))
    }

    async fn ask(
        &self,
        reference: &Reference,
        name: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage, Error> {
        let wanted = oci_platform(platform);
        let image = self.executor.registry()?.image(reference, &wanted).await;
        self.executor.tell_doubts(|line| self.warn.tell(line));
        let image = image?;
        // One that is in no index is taken as it is, and who builds on it is warned.
        let found = resolved(reference, &image)?;
        if self.keeps {
            remember(&self.executor, name, platform, &image, &found.diff_ids)?;
        }
        Ok(found)
    }

    /// Finds an image in one of the OCI layout directories that a build was given.
    ///
    /// `reference` is the layout's name, with `:TAG` or `@DIGEST` unless it holds one image only.
    pub fn layout(
        &self,
        locals: &Locals,
        reference: &str,
        platform: &Platform,
    ) -> Result<ResolvedImage, Error> {
        let (directory, selector) = locals.layout(reference)?;
        super::layout::resolve(directory, selector, platform)
    }
}

/// What a registry said of an image, checked.
pub(crate) fn resolved(reference: &Reference, image: &Image) -> Result<ResolvedImage, Error> {
    let config = config(&image.config_bytes, reference)?;
    let diff_ids = diff_ids(&image.config_bytes, &reference.familiar())?;
    if diff_ids.len() != image.layers.len() {
        return Err(mismatch(reference, diff_ids.len(), image.layers.len()));
    }
    let digest = image.manifest.digest.to_string();
    Ok(ResolvedImage {
        config,
        label: format!("{}, asked for just now", short(&digest)),
        manifest_digest: digest,
        diff_ids,
        blobs: image.layers.clone(),
        place: Place::Registry(reference.clone()),
    })
}

/// Lets the store remember what a registry said `name` is, so that nobody has to ask again.
pub(crate) fn remember(
    executor: &Executor,
    name: &str,
    platform: &Platform,
    image: &Image,
    diff_ids: &[DiffId],
) -> Result<(), Error> {
    executor.store().put_pulled(&Pulled {
        reference: name.to_owned(),
        platform: platform.to_string(),
        manifest_digest: BlobDigest(fetch::bytes_of(&image.manifest.digest)),
        manifest: image.manifest.bytes.to_vec(),
        config: image.config_bytes.to_vec(),
        diff_ids: diff_ids.to_vec(),
        pulled_at: SystemTime::now(),
    })?;
    Ok(())
}

fn with_engine(
    image: LocalImage,
    reference: &Reference,
    platform: &Platform,
) -> Result<ResolvedImage, Error> {
    let id = kiln_oci::digest::Sha256Digest::of(&image.config).to_string();
    let config = config(&image.config, reference)?;
    check_platform(&config, platform, reference)?;
    let made = config.created.as_deref().and_then(stated_time);
    let age = match (made, image.added) {
        (Some(made), _) => format!(", made {}", ago(made)),
        (None, Some(added)) => format!(", added {}", ago(added)),
        (None, None) => String::new(),
    };
    let diff_ids = diff_ids(&image.config, &reference.familiar())?;
    let mut blobs = image.blobs;
    if blobs.len() != diff_ids.len() {
        blobs.clear();
    }
    Ok(ResolvedImage {
        label: format!("{} from {}{age}", short(&id), image.engine),
        diff_ids,
        config,
        manifest_digest: image.manifest.to_string(),
        blobs,
        place: Place::Engine {
            layers: image.layers,
            name: reference.clone(),
        },
    })
}

pub(super) fn mismatch(reference: &Reference, diff_ids: usize, layers: usize) -> Error {
    let reason = format!("its config lists {diff_ids} layers and its manifest {layers}");
    Error::Document {
        what: "manifest",
        reference: reference.familiar(),
        source: reason.into(),
    }
}

/// The digest as people see it.
pub(super) fn short(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    format!(
        "sha256:{}",
        hex.chars().take(SHOWN_DIGITS).collect::<String>()
    )
}

pub(super) fn config(bytes: &[u8], reference: &Reference) -> Result<ImageConfig, Error> {
    ImageConfig::from_json(bytes).map_err(|source| Error::Document {
        what: "config",
        reference: reference.familiar(),
        source: source.into(),
    })
}

pub(super) fn manifest(bytes: &[u8], reference: &Reference) -> Result<Manifest, Error> {
    Manifest::from_slice(bytes).map_err(|source| Error::Document {
        what: "manifest",
        reference: reference.familiar(),
        source: source.into(),
    })
}

/// The diff ids that a config lists.
pub(crate) fn diff_ids(config: &[u8], shown: &str) -> Result<Vec<DiffId>, Error> {
    let document = |source: Box<dyn std::error::Error + Send + Sync>| Error::Document {
        what: "config",
        reference: shown.to_owned(),
        source,
    };
    let config = kiln_oci::document::ImageConfig::from_slice(config)
        .map_err(|error| document(error.into()))?;
    Ok(config
        .rootfs
        .diff_ids
        .iter()
        .map(|digest| DiffId(fetch::bytes_of(digest)))
        .collect())
}

pub(crate) fn check_platform(
    config: &ImageConfig,
    wanted: &Platform,
    reference: &Reference,
) -> Result<(), Error> {
    let found = platform_of(config);
    // A config that names no platform fits every one, as other engines have it.
    let fits = config.architecture.is_empty()
        || (found.os == wanted.os
            && found.architecture == wanted.architecture
            && (found.variant.is_empty()
                || wanted.variant.is_empty()
                || oci_platform(wanted).accepts(&oci_platform(&found))));
    if fits {
        return Ok(());
    }
    Err(Error::Platform {
        reference: reference.familiar(),
        found: found.to_string(),
        wanted: wanted.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::executor::ExecutorOptions;

    /// Says of every image that it is not there, but only once it was asked for two.
    fn serve(listener: TcpListener) {
        let mut waiting: Vec<TcpStream> = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let count = stream.read(&mut head).unwrap_or(0);
            // A TLS hello is left without an answer: this server does not speak it.
            if !head[..count].starts_with(b"GET") && !head[..count].starts_with(b"HEAD") {
                continue;
            }
            waiting.push(stream);
            if waiting.len() >= 2 {
                for mut stream in waiting.drain(..) {
                    let answer =
                        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    let _ = stream.write_all(answer.as_bytes());
                }
            }
        }
    }

    #[test]
    fn images_are_asked_for_at_the_same_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(listener));
        let directory = tempfile::tempdir().unwrap();
        let executor = Executor::open(ExecutorOptions {
            root: directory.path().join("store"),
            in_user_namespace: false,
            single_id: !rustix::process::geteuid().is_root(),
            offline: false,
            registries: Default::default(),
            engines: Vec::new(),
            warn: Warn::default(),
        })
        .unwrap();
        let resolver = Resolver::new(&executor);
        let platform = Platform::linux("amd64");
        let names = [format!("{address}/one"), format!("{address}/two")];
        let asking = names
            .iter()
            .map(|name| resolver.image(name, &platform, ResolveMode::Default));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let answers = runtime.block_on(async {
            let asking = futures_util::future::join_all(asking);
            tokio::time::timeout(std::time::Duration::from_secs(20), asking).await
        });
        let answers = answers.expect("the second image was not asked for before the first came");
        assert!(answers.iter().all(Result::is_err));
    }
}
