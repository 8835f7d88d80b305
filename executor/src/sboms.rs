//! The software in images of the store: read from what is attached to them, or from their layers.

use std::io::Read as _;
use std::time::SystemTime;

use kiln_ir::Platform;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Index, Manifest, annotation};
use kiln_oci::reference::Reference;
use kiln_store::{Content, Image, Lease, Store};
use kiln_tree::Stop;

use crate::attached::Attached;
use crate::attestation::{Predicate, may_hold};
use crate::container;
use crate::error::{Error, words};
use crate::executor::{Executor, host_platform};
use crate::export::{blob_digest, times};
use crate::images::{full_name, image_for, member_for, parse};
use crate::sbom::{Inventory, SPDX_PREDICATE, Subject, document, scan};
use crate::source::blocking;
use crate::worker::{Handle, Tree};

/// The most bytes of a statement that was pulled.
const MOST_BYTES: u64 = 64 << 20;

/// What is known of the software in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// An SPDX document as JSON.
    pub document: String,
    /// Where it is from.
    pub origin: SbomOrigin,
}

/// Where an SBOM is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SbomOrigin {
    /// It is attached to the image.
    Attached,
    /// It is attached to the image in its registry, and nothing else of that was fetched.
    InRegistry {
        /// What the image is for, such as `linux/amd64`.
        platform: String,
    },
    /// It was made just now.
    Scanned(Inventory),
}

/// Which SBOM is wanted.
#[derive(Debug, Clone, Default)]
pub struct SbomRequest {
    /// The image's name or id.
    pub image: String,
    /// Of an image for several platforms; by default the host's, or the only one.
    pub platform: Option<Platform>,
    /// Made of the layers, whatever is attached.
    pub anew: bool,
    /// The attached one that is of this beside the image: `context`, or a stage.
    pub scan: Option<String>,
}

impl SbomRequest {
    /// The SBOM that is wanted of those attached; none if it can be made.
    fn choose(&self, attached: Vec<Predicate>, origin: SbomOrigin) -> Result<Option<Sbom>, Error> {
        let sboms: Vec<Predicate> = attached
            .into_iter()
            .filter(|one| one.kind == SPDX_PREDICATE)
            .collect();
        let scans: Vec<Option<String>> = sboms.iter().map(Predicate::scan).collect();
        let place = match &self.scan {
            _ if self.anew => None,
            None if sboms.is_empty() => None,
            // Somebody else may name even the image's own like one of something beside it.
            None => Some(scans.iter().position(Option::is_none).unwrap_or(0)),
            Some(scan) => {
                let place = scans.iter().position(|of| of.as_ref() == Some(scan));
                let lacks = || Error::NoScan {
                    image: self.image.clone(),
                    scan: scan.clone(),
                    there: scans.iter().flatten().cloned().collect(),
                };
                Some(place.ok_or_else(lacks)?)
            }
        };
        Ok(place.map(|place| Sbom {
            document: sboms[place].json.clone(),
            origin,
        }))
    }
}

/// What is said of an image, by its platforms.
type Said = Vec<(String, Vec<Predicate>)>;

/// What the store has for an SBOM.
enum Stored {
    Attached(Sbom),
    Bare(Box<Bare>),
}

/// An image, and its member that is meant, of which nothing here is what was asked for.
struct Bare {
    image: Image,
    member: Image,
    /// Why it cannot be made of the layers either.
    lacks: Option<Error>,
}

/// Whether a name begins with a registry's.
pub fn names_registry(name: &str) -> bool {
    let (host, _) = name.split_once('/').unwrap_or_default();
    host.contains(['.', ':']) || host == "localhost"
}

impl Executor {
    /// Returns the SBOM of an image: the one attached to it, here or in its registry, or one that is made of its
    /// layers, which are brought here for that.
    pub async fn sbom(&self, request: &SbomRequest) -> Result<Sbom, Error> {
        let lease = self.store().lease();
        let stored = blocking({
            let (executor, request, lease) = (self.clone(), request.clone(), lease.clone());
            move || executor.stored_sbom(&lease, &request)
        });
        match stored.await? {
            Some(Stored::Attached(sbom)) => return Ok(sbom),
            Some(Stored::Bare(bare)) => {
                let Bare {
                    image,
                    member,
                    lacks,
                } = *bare;
                if let Some(sbom) = self.sbom_of_stored(request, &image, &member).await? {
                    return Ok(sbom);
                }
                if let Some(lacks) = lacks {
                    return Err(lacks);
                }
                let (executor, name) = (self.clone(), request.image.clone());
                return blocking(move || executor.scanned(&member, &name)).await;
            }
            None => {}
        }
        let (name, platform) = (&request.image, request.platform.as_ref());
        if let Some(afar) = self.sbom_afar(request).await? {
            return Ok(afar);
        }
        let found =
            container::find(self, &lease, name, platform, container::Pulls::Silently).await?;
        let (executor, name) = (self.clone(), name.clone());
        blocking(move || {
            let inventory = inventory(executor.store(), &found.layers, &Stop::NEVER)?;
            let diff_ids = found.layers.iter().map(ToString::to_string);
            let created = found.config.created.as_deref().and_then(times::parse);
            let subject = Subject {
                name: full_name(&name).unwrap_or(name),
                digest: String::new(),
                layers: diff_ids.collect(),
                created: times::whole_seconds(
                    created.map_or(SystemTime::UNIX_EPOCH, times::to_clock),
                ),
                ..Subject::default()
            };
            Ok(Sbom {
                document: document(&subject, &inventory).to_string(),
                origin: SbomOrigin::Scanned(inventory),
            })
        })
        .await
    }

    /// The SBOM that is attached to an image in its registry; none if there is none.
    async fn sbom_afar(&self, request: &SbomRequest) -> Result<Option<Sbom>, Error> {
        let wanted = request.platform.clone().unwrap_or_else(host_platform);
        let reference = Reference::parse(&request.image).ok();
        let reference = reference.filter(|_| !request.anew && !self.options().offline);
        let attached = match &reference {
            // An image of another engine is the one that is meant, and engines keep no attestations.
            Some(reference) if !self.is_with_engine(reference, &wanted).await => {
                Some(self.attached_to(reference, &wanted, SPDX_PREDICATE).await?)
            }
            _ => None,
        };
        // What is beside an image cannot be made of it, so that nothing is attached is an error then.
        match attached {
            Some(Attached {
                platform,
                predicates,
            }) => request.choose(predicates, SbomOrigin::InRegistry { platform }),
            None => request.choose(Vec::new(), SbomOrigin::Attached),
        }
    }

    /// The SBOM that is attached to an image of the store in the registry that it is from; none also where that
    /// cannot be asked, since the layers are here.
    async fn sbom_of_stored(
        &self,
        request: &SbomRequest,
        image: &Image,
        member: &Image,
    ) -> Result<Option<Sbom>, Error> {
        if request.anew {
            return Ok(None);
        }
        let manifest = [Sha256Digest::of(&member.manifest)];
        let asked = self.attached_to_stored(&request.image, image, &manifest, Some(SPDX_PREDICATE));
        match asked.await {
            Ok(attached) => match attached.into_iter().next() {
                Some(Attached {
                    platform,
                    predicates,
                }) => request.choose(predicates, SbomOrigin::InRegistry { platform }),
                None => Ok(None),
            },
            Err(error) => {
                self.options().warn.tell(format!(
                    "its registry was not asked what is attached to the image: {}",
                    words(&error)
                ));
                Ok(None)
            }
        }
    }

    /// What the store has for an SBOM of an image; none if the image is not there.
    fn stored_sbom(&self, lease: &Lease, request: &SbomRequest) -> Result<Option<Stored>, Error> {
        let name = &request.image;
        let Some(image) = self.stored_image(lease, name)? else {
            return Ok(None);
        };
        let store = self.store();
        let member = match &request.platform {
            Some(wanted) => image_for(store, lease, image.clone(), wanted, name)?,
            None => member_for(store, lease, image.clone(), &host_platform(), name)?,
        };
        let attached = self.predicates_of(&image, &member)?;
        let lacks = match request.choose(attached, SbomOrigin::Attached) {
            Ok(Some(sbom)) => return Ok(Some(Stored::Attached(sbom))),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        Ok(Some(Stored::Bare(Box::new(Bare {
            image,
            member,
            lacks,
        }))))
    }

    /// Returns what is said of an image, by its platforms: of one of the store what is known here or else at the
    /// registry that it is from, of another one, whose name begins with a registry's, what is attached to it there.
    pub async fn image_predicates(&self, name: &str) -> Result<Said, Error> {
        let stored = blocking({
            let (executor, name) = (self.clone(), name.to_owned());
            move || executor.stored_predicates(&name)
        });
        let pairs = |attached: Vec<Attached>| {
            let pairs = attached.into_iter();
            pairs.map(|one| (one.platform, one.predicates)).collect()
        };
        let error = match stored.await {
            Err(error @ Error::NoSuchImage { .. }) => error,
            Err(error) => return Err(error),
            Ok((image, said)) => {
                if said.iter().any(|(_, predicates)| !predicates.is_empty()) {
                    return Ok(said);
                }
                let mut manifests: Vec<Sha256Digest> = image
                    .members
                    .iter()
                    .map(|member| Sha256Digest::of(&member.manifest))
                    .collect();
                if !image.is_index() {
                    manifests.push(Sha256Digest::of(&image.manifest));
                }
                let asked = self.attached_to_stored(name, &image, &manifests, None);
                return Ok(pairs(asked.await?));
            }
        };
        // A name that was mistyped is not told to a registry that it does not name.
        if !names_registry(name) || self.options().offline {
            return Err(error);
        }
        let reference = Reference::parse(name)?;
        Ok(pairs(self.attached_everywhere(&reference).await?))
    }

    fn stored_predicates(&self, name: &str) -> Result<(Image, Said), Error> {
        let lease = self.store().lease();
        let image = self.find_image(&lease, name)?;
        let mut all = Vec::new();
        for member in &image.members {
            let found = self.store().member(&lease, member)?;
            all.push((member.platform.clone(), self.predicates_of(&image, &found)?));
        }
        Ok((image, all))
    }

    /// What is said of a member of an index.
    pub(crate) fn predicates_of(
        &self,
        index: &Image,
        member: &Image,
    ) -> Result<Vec<Predicate>, Error> {
        let kept = self.store().attestations(&index.id)?;
        let place = index.members.iter().position(|one| one.id == member.id);
        match place {
            Some(place) if !kept.is_empty() => Ok(Predicate::of_member(&kept, place)),
            _ => self.pulled_predicates(index, member),
        }
    }

    /// What was pulled beside an image.
    fn pulled_predicates(&self, index: &Image, member: &Image) -> Result<Vec<Predicate>, Error> {
        let lease = self.store().lease();
        let Ok(listed) = Index::from_slice(&index.manifest) else {
            return Ok(Vec::new());
        };
        let about = Sha256Digest::of(&member.manifest).to_string();
        let mut said = Vec::new();
        for entry in &listed.manifests {
            if entry.annotations.get(annotation::REFERENCE_DIGEST) == Some(&about) {
                said.extend(self.predicates_beside(&lease, index, entry)?);
            }
        }
        Ok(said)
    }

    /// What the manifest of attestations says that an entry of a pulled index names.
    pub(crate) fn predicates_beside(
        &self,
        lease: &Lease,
        index: &Image,
        entry: &Descriptor,
    ) -> Result<Vec<Predicate>, Error> {
        let about = entry.annotations.get(annotation::REFERENCE_DIGEST);
        let about = about.and_then(|about| about.parse::<Sha256Digest>().ok());
        let (Some(about), Some(bytes)) = (about, self.beside(lease, index, entry)?) else {
            return Ok(Vec::new());
        };
        let Ok(manifest) = Manifest::from_slice(&bytes) else {
            return Ok(Vec::new());
        };
        let mut said = Vec::new();
        let layers = manifest.layers.iter();
        let said_by = |layer: &&Descriptor| may_hold(&layer.media_type, None, None);
        for layer in layers.filter(said_by) {
            let Some(bytes) = self.beside(lease, index, layer)? else {
                continue;
            };
            // What is no statement says nothing.
            said.extend(Predicate::of_layer(&layer.media_type, &bytes, about));
        }
        Ok(said)
    }

    /// A blob that an image was pulled with.
    fn beside(
        &self,
        lease: &Lease,
        image: &Image,
        blob: &Descriptor,
    ) -> Result<Option<Vec<u8>>, Error> {
        let digest = blob_digest(&blob.digest);
        match self.store().attached_blob(lease, &image.id, &digest)? {
            Some(size) if size <= MOST_BYTES => {}
            _ => return Ok(None),
        }
        let mut bytes = Vec::new();
        let file = self.store().open_blob(&digest)?;
        file.take(MOST_BYTES)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", self.store().root().join("blobs")))?;
        Ok((Sha256Digest::of(&bytes) == blob.digest).then_some(bytes))
    }

    fn scanned(&self, image: &Image, name: &str) -> Result<Sbom, Error> {
        let config = parse(image, name)?;
        let inventory = inventory(self.store(), &image.layers, &Stop::NEVER)?;
        let created = config.created.as_deref().and_then(times::parse);
        let subject = Subject {
            name: image.id.to_string(),
            digest: image.id.to_string(),
            layers: diff_ids(&image.config),
            created: times::whole_seconds(created.map_or(image.created, times::to_clock)),
            ..Subject::default()
        };
        Ok(Sbom {
            document: document(&subject, &inventory).to_string(),
            origin: SbomOrigin::Scanned(inventory),
        })
    }
}

/// Reads what software is in what was built.
pub(crate) fn inventory_of(
    store: &Store,
    handle: &Handle,
    stop: &Stop,
) -> Result<Inventory, Error> {
    match &handle.0 {
        Tree::Layers(layers) => inventory(store, layers, stop),
        Tree::Context(context) => {
            let (view, root) = context.as_layer()?;
            scan(&view, &[root], stop)
        }
    }
}

/// Reads what software leased layers hold.
pub(crate) fn inventory(
    store: &Store,
    layers: &[Content],
    stop: &Stop,
) -> Result<Inventory, Error> {
    let opened: Result<Vec<_>, _> = layers.iter().map(|layer| store.open_layer(layer)).collect();
    scan(&store.layers_view(layers)?, &opened?, stop)
}

/// The diff ids that a config states.
fn diff_ids(config: &[u8]) -> Vec<String> {
    let config: serde_json::Value = serde_json::from_slice(config).unwrap_or_default();
    let diff_ids = config["rootfs"]["diff_ids"].as_array();
    let texts = diff_ids.into_iter().flatten().filter_map(|id| id.as_str());
    texts.map(str::to_owned).collect()
}
