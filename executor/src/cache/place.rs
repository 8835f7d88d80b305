//! Where caches lie: how they are named, opened and read.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{
    CONFIG_LIMIT_BYTES, Descriptor, ImageConfig, MANIFEST_LIMIT_BYTES, Manifest, Root,
};
use kiln_oci::media_type;
use kiln_oci::reference::Reference;
use kiln_oci::registry::Client;
use kiln_oci::s3::{S3, S3Settings};
use kiln_store::{BlobDigest, BlobWriter, DiffId, Lease, Store};
use tokio::time::timeout;

use super::document::{Cache, CachedBlob, ImageBlobs, LIMIT_BYTES};
use super::error::{CacheError, DocumentError};
use super::layout;
use crate::error::Error;
use crate::executor::Executor;
use crate::source::{blocking, bring_blob_within};

/// The media type of a cache's document, as the config of a manifest.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.kiln.cache.config.v0+json";
/// The key of an image's config that holds the cache of its own layers.
pub(crate) const INLINE_KEY: &str = "kiln.cache.v0";
/// The annotation of the manifest of an image with a cache that says how its own layers are compressed.
pub(crate) const PACKED_KEY: &str = "kiln.cache.packed.v0";
/// How those of all versions begin.
pub(crate) const ANY_CONFIG_TYPE: &str = "application/vnd.kiln.cache.config.v";
/// The media type of BuildKit's documents.
const BUILDKIT_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// The key under which BuildKit keeps one in an image's config.
const BUILDKIT_KEY: &str = "moby.buildkit.cache.v0";
/// Versions of a document that are kept while a place is open.
const MOST_SEEN: usize = 3;
/// Manifests of an index that are looked into for caches of their own.
const MOST_MEMBERS: usize = 64;

/// Where a cache lies, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// In a registry: a cache, or an image with one in its config.
    Registry {
        /// Its reference.
        reference: String,
    },
    /// An OCI image layout in a directory.
    Local {
        /// The directory.
        directory: PathBuf,
        /// Its name there.
        tag: String,
        /// The digest of its manifest, if that very one is meant.
        digest: Option<String>,
    },
    /// Objects of a bucket.
    S3(Box<S3Place>),
}

/// A cache in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Place {
    /// The bucket, and who asks.
    pub settings: S3Settings,
    /// Before all names.
    pub prefix: String,
    /// Before the digests of blobs.
    pub blobs_prefix: String,
    /// Before the names of caches.
    pub manifests_prefix: String,
    /// The name of the cache.
    pub name: String,
}

impl S3Place {
    pub(super) fn blob(&self, digest: &Sha256Digest) -> String {
        format!("{}{}{digest}", self.prefix, self.blobs_prefix)
    }

    pub(super) fn manifest(&self) -> String {
        format!("{}{}{}", self.prefix, self.manifests_prefix, self.name)
    }
}

impl CachePlace {
    /// Errors where a cache would lie among other things, as far as a look into a directory tells.
    pub fn check(&self) -> Result<(), Error> {
        let CachePlace::Local { directory, .. } = self else {
            return Ok(());
        };
        match layout::check(directory) {
            Err(error @ Error::NotALayout { .. }) => Err(error),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for CachePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CachePlace::Registry { reference } => match Reference::parse(reference) {
                Ok(parsed) => f.write_str(&parsed.familiar()),
                Err(_) => f.write_str(reference),
            },
            CachePlace::Local { directory, tag, .. } if tag == DEFAULT_TAG => {
                directory.display().fmt(f)
            }
            CachePlace::Local { directory, tag, .. } => write!(f, "{}:{tag}", directory.display()),
            CachePlace::S3(place) => {
                write!(f, "s3://{}/{}", place.settings.bucket, place.manifest())
            }
        }
    }
}

/// The name of a cache in a directory that was given none.
pub const DEFAULT_TAG: &str = "latest";

/// A place that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(super) place: CachePlace,
    pub(super) way: Way,
    /// Versions that were read before, the latest last; copies of a place share them.
    pub(super) seen: Arc<Mutex<Vec<(String, Cache)>>>,
}

#[derive(Debug, Clone)]
pub(super) enum Way {
    Registry(Client, Box<Reference>),
    Local,
    S3(Box<S3>),
}

/// What lies at a place.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) cache: Cache,
    /// What tells this version from others: an ETag, or the digest of a manifest.
    pub(super) version: Option<String>,
    /// It is in the config of an image, which is not replaced by a cache.
    pub(super) in_image: bool,
}

impl Home {
    /// Opens a place; nothing is asked yet.
    pub(crate) fn open(executor: &Executor, place: &CachePlace) -> Result<Home, Error> {
        let remote = !matches!(place, CachePlace::Local { .. });
        if remote && executor.options().offline {
            return Err(CacheError::Offline {
                place: place.to_string(),
            }
            .into());
        }
        let way = match place {
            CachePlace::Registry { reference } => Way::Registry(
                executor.registry()?.clone(),
                Box::new(Reference::parse(reference)?),
            ),
            CachePlace::Local { .. } => Way::Local,
            CachePlace::S3(s3) => {
                let s3 = S3::new(executor.registry()?, &s3.settings);
                Way::S3(Box::new(s3.map_err(CacheError::from)?))
            }
        };
        Ok(Home {
            place: place.clone(),
            way,
            seen: Arc::default(),
        })
    }

    /// Reads what lies under this name.
    pub(super) async fn read_name(&self) -> Result<Held, Error> {
        match (&self.way, &self.place) {
            (Way::Registry(client, reference), _) => self.read_registry(client, reference).await,
            (
                Way::Local,
                CachePlace::Local {
                    directory,
                    tag,
                    digest,
                },
            ) => {
                let (directory, tag, digest) = (directory.clone(), tag.clone(), digest.clone());
                let home = self.clone();
                crate::source::blocking(move || {
                    let found = layout::find(&directory, &tag, digest.as_deref())?;
                    let Some(entry) = found else {
                        return Err(home.missing().into());
                    };
                    let version = Some(entry.digest.to_string());
                    let damaged = || home.damaged(version.clone());
                    let bytes = layout::small(&directory, &entry, MANIFEST_LIMIT_BYTES)?;
                    let manifest = layout::manifest(&directory, &bytes.ok_or_else(damaged)?)?;
                    let config = home.config_of(&manifest)?;
                    let document = layout::small(&directory, config, LIMIT_BYTES)?;
                    Ok(Held {
                        cache: home.decoded(&document.ok_or_else(damaged)?, None)?,
                        version,
                        in_image: false,
                    })
                })
                .await
            }
            (Way::S3(s3), CachePlace::S3(place)) => {
                if self.has_seen() {
                    let version = self.version().await?;
                    if let Some(cache) = version.as_deref().and_then(|at| self.seen(at)) {
                        return Ok(Held {
                            cache,
                            version,
                            in_image: false,
                        });
                    }
                }
                let object = s3.get(&place.manifest()).await.map_err(CacheError::from)?;
                let object = object.ok_or_else(|| self.missing())?;
                let version = object.etag.clone();
                let bytes = object.bytes(LIMIT_BYTES).await.map_err(CacheError::from)?;
                let cache = self.decoded(&bytes, None)?;
                self.keep(version.as_deref(), &cache);
                Ok(Held {
                    cache,
                    version,
                    in_image: false,
                })
            }
            _ => unreachable!("BUG: a place is opened as another kind"),
        }
    }

    /// What tells what lies under this name from what lay there before; nothing if nothing is there.
    pub(super) async fn version(&self) -> Result<Option<String>, Error> {
        Ok(match (&self.way, &self.place) {
            (Way::Registry(client, reference), _) => {
                let digest = client.own_digest(reference).await?;
                digest.map(|digest| digest.to_string())
            }
            (Way::S3(s3), CachePlace::S3(place)) => {
                let found = s3.look(&place.manifest()).await;
                let found = found.map_err(CacheError::from)?;
                found.and_then(|found| found.etag)
            }
            _ => None,
        })
    }

    /// A version that was read before.
    fn seen(&self, version: &str) -> Option<Cache> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.iter().find(|(known, _)| known == version);
        known.map(|(_, cache)| cache.clone())
    }

    fn has_seen(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        !seen.is_empty()
    }

    /// Forgets all versions that were read.
    pub(super) fn forget(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clear();
    }

    /// Keeps a version that was read or written.
    pub(super) fn keep(&self, version: Option<&str>, cache: &Cache) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(version) = version else { return };
        if seen.iter().any(|(known, _)| known == version) {
            return;
        }
        if seen.len() == MOST_SEEN {
            seen.remove(0);
        }
        seen.push((version.to_owned(), cache.clone()));
    }

    /// Whether blobs of another place can be had here without their bytes.
    pub(super) fn is_beside(&self, other: &Home) -> bool {
        match (&self.way, &other.way) {
            (Way::Registry(_, one), Way::Registry(_, other)) => one.domain() == other.domain(),
            _ => false,
        }
    }

    async fn read_registry(&self, client: &Client, reference: &Reference) -> Result<Held, Error> {
        let root = match client.own_manifest(reference).await {
            Err(error) if error.is_not_found() => return Err(self.missing().into()),
            root => root?,
        };
        let version = Some(root.digest.to_string());
        let index = match root.root {
            Root::Manifest(manifest) => {
                let in_image = media_type::is_config(&manifest.config.media_type);
                let seen = version.as_deref().and_then(|at| self.seen(at));
                let cache = match seen {
                    Some(cache) => cache,
                    None => {
                        let read = self.of_manifest(client, reference, &manifest).await;
                        read.map_err(|error| match error {
                            Error::Cache(CacheError::Damaged { place, .. }) => {
                                let version = version.clone();
                                CacheError::Damaged { place, version }.into()
                            }
                            error => error,
                        })?
                    }
                };
                if !in_image {
                    self.keep(version.as_deref(), &cache);
                }
                return Ok(Held {
                    cache,
                    version,
                    in_image,
                });
            }
            Root::Index(index) => index,
        };
        if index
            .manifests
            .iter()
            .any(|entry| entry.media_type == BUILDKIT_TYPE)
        {
            return Err(self.foreign("a cache of BuildKit").into());
        }
        // An image for several platforms: each may have a cache of its own layers.
        let mut all = Cache::default();
        let mut last = None;
        let images = index
            .manifests
            .iter()
            .filter(|entry| !entry.is_attestation());
        for entry in images.take(MOST_MEMBERS) {
            let pinned = reference.with_digest(entry.digest);
            let Root::Manifest(manifest) = client.own_manifest(&pinned).await?.root else {
                continue;
            };
            match self.of_manifest(client, &pinned, &manifest).await {
                Ok(cache) => {
                    all.records.extend(cache.records);
                    all.layers.extend(cache.layers);
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if all.records.is_empty() => Err(error),
            _ => Ok(Held {
                cache: all.in_order(),
                version,
                in_image: true,
            }),
        }
    }

    /// The cache that a manifest of a registry leads to.
    async fn of_manifest(
        &self,
        client: &Client,
        reference: &Reference,
        manifest: &Manifest,
    ) -> Result<Cache, Error> {
        if !media_type::is_config(&manifest.config.media_type) {
            let config = self.config_of(manifest)?;
            let bytes = client.blob_bytes(reference, config, LIMIT_BYTES).await;
            return match bytes {
                Err(error) if error.is_not_found() => Err(self.damaged(None).into()),
                bytes => Ok(self.decoded(&bytes?, None)?),
            };
        }
        let bytes = client
            .blob_bytes(reference, &manifest.config, CONFIG_LIMIT_BYTES)
            .await?;
        Ok(self.inline(manifest, &bytes)?)
    }

    /// The descriptor of a cache's document.
    fn config_of<'a>(&self, manifest: &'a Manifest) -> Result<&'a Descriptor, CacheError> {
        match manifest.config.media_type.as_str() {
            CONFIG_TYPE => Ok(&manifest.config),
            BUILDKIT_TYPE => Err(self.foreign("a cache of BuildKit")),
            config if config.starts_with(ANY_CONFIG_TYPE) => Err(CacheError::Document {
                place: self.place.to_string(),
                source: DocumentError::Version {
                    found: config[ANY_CONFIG_TYPE.len()..]
                        .trim_end_matches("+json")
                        .chars()
                        .take(20)
                        .collect(),
                },
            }),
            config if media_type::is_config(config) => Err(self.foreign("an image")),
            _ => Err(self.foreign("something else")),
        }
    }

    /// The cache within the config of an image.
    fn inline(&self, manifest: &Manifest, config: &Bytes) -> Result<Cache, CacheError> {
        let unreadable = |source| CacheError::Document {
            place: self.place.to_string(),
            source,
        };
        let all: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(config).map_err(|error| unreadable(error.into()))?;
        let Some(document) = all.get(INLINE_KEY) else {
            return Err(match all.contains_key(BUILDKIT_KEY) {
                true => self.foreign("an image with a cache of BuildKit"),
                false => self.foreign("an image without a cache"),
            });
        };
        let document = serde_json::to_vec(document).map_err(|error| unreadable(error.into()))?;
        let parsed = ImageConfig::from_slice(config)
            .map_err(|_| self.foreign("an image with a malformed config"))?;
        let blobs = parsed
            .rootfs
            .diff_ids
            .iter()
            .zip(&manifest.layers)
            .filter_map(|(diff_id, layer)| {
                let compression = media_type::layer_compression(&layer.media_type)?;
                let diff_id = DiffId(*diff_id.as_bytes());
                Some((diff_id, (layer.digest, layer.size, compression)))
            })
            .collect();
        let packed = manifest.annotations.get(PACKED_KEY).cloned();
        self.decoded(&document, Some(&ImageBlobs { blobs, packed }))
    }

    fn decoded(&self, bytes: &[u8], image: Option<&ImageBlobs>) -> Result<Cache, CacheError> {
        Cache::decode(bytes, image).map_err(|source| CacheError::Document {
            place: self.place.to_string(),
            source,
        })
    }

    pub(super) fn missing(&self) -> CacheError {
        CacheError::Missing {
            place: self.place.to_string(),
            others: match &self.place {
                CachePlace::Local { directory, .. } => layout::tags(directory),
                CachePlace::Registry { .. } | CachePlace::S3(_) => String::new(),
            },
        }
    }

    fn damaged(&self, version: Option<String>) -> CacheError {
        CacheError::Damaged {
            place: self.place.to_string(),
            version,
        }
    }

    pub(super) fn foreign(&self, what: &'static str) -> CacheError {
        CacheError::Foreign {
            place: self.place.to_string(),
            what,
        }
    }

    /// Brings a blob here, checks it and leases it, unless the place says nothing for as long as `patience`.
    /// What a registry began to send is gone on with.
    pub(super) async fn bring(
        &self,
        executor: &Executor,
        lease: &Lease,
        blob: &CachedBlob,
        patience: Duration,
        moved: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        let store = executor.store();
        if let Way::Registry(_, reference) = &self.way {
            let kind = media_type::Flavor::Oci.layer(blob.compression);
            let descriptor = Descriptor::new(kind, blob.digest, blob.size);
            bring_blob_within(executor, lease, reference, &descriptor, patience, moved).await?;
            return self.remember(store, &blob.digest);
        }
        let writer = store.write_blob(Some(blob_digest(&blob.digest)))?;
        let writer = self.write(store, blob, writer, patience, moved).await?;
        let lease = lease.clone();
        blocking(move || Ok(writer.finish(&lease)?)).await.map(drop)
    }

    /// Writes a blob of a directory or a bucket, which is checked when the writer is finished.
    async fn write(
        &self,
        store: &Store,
        blob: &CachedBlob,
        mut writer: BlobWriter,
        patience: Duration,
        moved: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<BlobWriter, Error> {
        use std::io::Write as _;
        let keep = |piece: &[u8], writer: &mut BlobWriter| {
            // A place that sends more than it said is not asked to the end.
            let length = writer.written() + piece.len() as u64;
            if length > blob.size {
                return Err(self.wrong_length(blob, length));
            }
            writer.write_all(piece).map_err(Error::unwritten(store))?;
            moved(writer.written());
            Ok(())
        };
        match (&self.way, &self.place) {
            (Way::Local, CachePlace::Local { directory, .. }) => {
                let path = directory.join(kiln_oci::layout::blob_path(&blob.digest));
                let mut file = tokio::fs::File::open(&path)
                    .await
                    .map_err(CacheError::io("open", &path))?;
                let mut buffer = vec![0; 256 << 10];
                loop {
                    use tokio::io::AsyncReadExt as _;
                    let count = file
                        .read(&mut buffer)
                        .await
                        .map_err(CacheError::io("read", &path))?;
                    if count == 0 {
                        break;
                    }
                    keep(&buffer[..count], &mut writer)?;
                }
            }
            (Way::S3(s3), CachePlace::S3(place)) => {
                let key = place.blob(&blob.digest);
                let silent = |_| CacheError::Timeout {
                    place: self.place.to_string(),
                    seconds: patience.as_secs(),
                };
                let object = timeout(patience, s3.get(&key)).await.map_err(silent)?;
                let object = object.map_err(CacheError::from)?;
                let mut object = object.ok_or_else(|| {
                    Error::from(CacheError::Missing {
                        place: format!("s3://{}/{key}", place.settings.bucket),
                        others: String::new(),
                    })
                })?;
                loop {
                    let piece = timeout(patience, object.next()).await.map_err(silent)?;
                    match piece.map_err(CacheError::from)? {
                        Some(piece) => keep(&piece, &mut writer)?,
                        None => break,
                    }
                }
            }
            _ => unreachable!("BUG: a place is opened as another kind"),
        }
        match writer.written() == blob.size {
            true => Ok(writer),
            false => Err(self.wrong_length(blob, writer.written())),
        }
    }

    /// Gives up what was begun to be sent there, for somebody who stopped waiting.
    pub(super) async fn abandon(&self) {
        if let Way::S3(s3) = &self.way {
            s3.abandon().await;
        }
    }

    /// Whether a blob is there.
    pub(super) async fn has(&self, blob: &CachedBlob) -> Result<bool, Error> {
        Ok(match (&self.way, &self.place) {
            (Way::Registry(client, reference), _) => {
                client.has_blob(reference, &blob.digest).await?.is_some()
            }
            (Way::Local, CachePlace::Local { directory, .. }) => {
                layout::has(directory, &blob.digest, blob.size)
            }
            (Way::S3(s3), CachePlace::S3(place)) => {
                let found = s3.look(&place.blob(&blob.digest)).await;
                let found = found.map_err(CacheError::from)?;
                found.is_some_and(|found| found.size == blob.size)
            }
            _ => unreachable!("BUG: a place is opened as another kind"),
        })
    }

    /// Keeps where a blob is, for whoever sends it to another repository of the same registry.
    pub(super) fn remember(&self, store: &Store, blob: &Sha256Digest) -> Result<(), Error> {
        if let Way::Registry(_, reference) = &self.way {
            store.put_places(&reference.name(), &[blob_digest(blob)])?;
        }
        Ok(())
    }

    fn wrong_length(&self, blob: &CachedBlob, found: u64) -> Error {
        Error::Layer {
            blob: blob.digest.to_string(),
            reference: self.place.to_string(),
            reason: format!("it has {found} bytes, not {}", blob.size),
        }
    }
}

/// The store's word for a digest.
pub(super) fn blob_digest(digest: &Sha256Digest) -> BlobDigest {
    BlobDigest(*digest.as_bytes())
}
