//! The software in images of the store: read from what is attached to them, or from their layers.

use std::io::Read as _;
use std::time::SystemTime;

use kiln_ir::Platform;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Index, Manifest, annotation};
use kiln_store::{Content, Image, Lease, Store};
use kiln_tree::Stop;

use crate::attestation::{IN_TOTO, Predicate};
use crate::container;
use crate::error::Error;
use crate::executor::{Executor, host_platform};
use crate::export::{blob_digest, times};
use crate::images::{full_name, member_for, parse};
use crate::sbom::{Inventory, SPDX_PREDICATE, Subject, document, scan};
use crate::source::blocking;

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
    /// It was made just now.
    Scanned(Inventory),
}

impl Executor {
    /// Returns the SBOM of an image, for the host's platform or the only one where none is given: the one
    /// attached to it, unless `anew`, or one that is made of its layers. One that is not here is pulled.
    pub async fn sbom(
        &self,
        name: &str,
        platform: Option<&Platform>,
        anew: bool,
    ) -> Result<Sbom, Error> {
        let stored = blocking({
            let (executor, name, platform) = (self.clone(), name.to_owned(), platform.cloned());
            move || executor.stored_sbom(&name, platform.as_ref(), anew)
        });
        if let Some(stored) = stored.await? {
            return Ok(stored);
        }
        let lease = self.store().lease();
        let found = container::find(self, &lease, name, platform, None).await?;
        let (executor, name) = (self.clone(), name.to_owned());
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
            };
            Ok(Sbom {
                document: document(&subject, &inventory).to_string(),
                origin: SbomOrigin::Scanned(inventory),
            })
        })
        .await
    }

    /// The SBOM of an image of the store; none if it is not there.
    fn stored_sbom(
        &self,
        name: &str,
        platform: Option<&Platform>,
        anew: bool,
    ) -> Result<Option<Sbom>, Error> {
        let lease = self.store().lease();
        let Some(image) = self.stored_image(&lease, name)? else {
            return Ok(None);
        };
        let wanted = platform.cloned().unwrap_or_else(host_platform);
        let member = member_for(self.store(), &lease, image.clone(), &wanted, name)?;
        if !anew {
            let predicates = self.predicates_of(&image, &member)?;
            let attached = predicates
                .into_iter()
                .find(|one| one.kind == SPDX_PREDICATE);
            if let Some(attached) = attached {
                return Ok(Some(Sbom {
                    document: attached.json,
                    origin: SbomOrigin::Attached,
                }));
            }
        }
        self.scanned(&member, name).map(Some)
    }

    /// Returns what is said of an image of the store, by its platforms.
    pub fn image_predicates(&self, name: &str) -> Result<Vec<(String, Vec<Predicate>)>, Error> {
        let lease = self.store().lease();
        let image = self.find_image(&lease, name)?;
        let mut all = Vec::new();
        for member in &image.members {
            let found = self.store().resolve_image(&lease, &member.id.to_string())?;
            all.push((member.platform.clone(), self.predicates_of(&image, &found)?));
        }
        Ok(all)
    }

    /// What is said of a member of an index.
    fn predicates_of(&self, index: &Image, member: &Image) -> Result<Vec<Predicate>, Error> {
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
            if entry.annotations.get(annotation::REFERENCE_DIGEST) != Some(&about) {
                continue;
            }
            let Some(bytes) = self.beside(&lease, index, entry)? else {
                continue;
            };
            let Ok(manifest) = Manifest::from_slice(&bytes) else {
                continue;
            };
            for layer in manifest
                .layers
                .iter()
                .filter(|layer| layer.media_type == IN_TOTO)
            {
                let Some(bytes) = self.beside(&lease, index, layer)? else {
                    continue;
                };
                // What is no statement says nothing.
                said.extend(Predicate::of_statement(&bytes));
            }
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
        };
        Ok(Sbom {
            document: document(&subject, &inventory).to_string(),
            origin: SbomOrigin::Scanned(inventory),
        })
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
