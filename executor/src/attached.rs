//! What is attached to images in registries, read without their layers.
//!
//! In an index it stands beside the image, as BuildKit has it; elsewhere it refers to the image's manifest.
//! Every document is verified by the digest that leads to it, and what is about another manifest than the one
//! that it is attached to is left out.

use kiln_ir::{Platform, ResolveMode};
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Index, Manifest, Root, annotation};
use kiln_oci::media_type;
use kiln_oci::platform;
use kiln_oci::reference::Reference;
use kiln_oci::registry::{Client, Error as RegistryError};
use kiln_store::Image;

use crate::attestation::{PREDICATE_TYPE, Predicate, may_hold};
use crate::error::Error;
use crate::executor::Executor;
use crate::images::oci_platform;
use crate::source::{Place, Resolver};

/// The most bytes of a statement.
const MOST_BYTES: u64 = 64 << 20;
/// The most statements of one image, and the most manifests that are looked at for them.
const MOST_STATEMENTS: usize = 64;
/// The most names by digest of one image that are asked for.
const MOST_PLACES: usize = 4;
/// An index within an index is deep enough.
const INDEX_DEPTH: usize = 2;

/// What is attached to an image for one platform.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    /// Such as `linux/amd64`; empty where the image does not say without its config.
    pub(crate) platform: String,
    pub(crate) predicates: Vec<Predicate>,
}

/// A manifest with what stands beside it.
struct Member<'i> {
    platform: String,
    digest: Sha256Digest,
    beside: Vec<&'i Descriptor>,
}

impl Executor {
    /// Whether an image that is not in the store would be taken from another engine of this host.
    pub(crate) async fn is_with_engine(&self, reference: &Reference, platform: &Platform) -> bool {
        let resolver = Resolver::looking(self);
        let name = reference.to_string();
        let found = resolver.image(&name, platform, ResolveMode::Local).await;
        found.is_ok_and(|image| matches!(image.place, Place::Engine { .. }))
    }

    /// Reads what is attached to an image of a registry for a platform, of the kind `wanted` alone.
    pub(crate) async fn attached_to(
        &self,
        reference: &Reference,
        platform: &Platform,
        wanted: &str,
    ) -> Result<Attached, Error> {
        let asked = oci_platform(platform);
        let reader = Reader {
            client: self.registry()?,
            reference,
            wanted: Some(wanted),
        };
        let mut root = reader.client.manifest(reference).await?;
        let mut depth = 0;
        let member = loop {
            let index = match &root.root {
                Root::Index(index) => index,
                Root::Manifest(_) => {
                    // An image by itself says in its config what it is for.
                    let image = reader
                        .client
                        .image_of(reference, root.clone(), &asked)
                        .await?;
                    let found = image.config.platform();
                    if !asked.accepts(&found) {
                        return Err(Error::Platform {
                            reference: reference.familiar(),
                            found: found.to_string(),
                            wanted: platform.to_string(),
                        });
                    }
                    break Member {
                        platform: found.to_string(),
                        digest: root.digest,
                        beside: Vec::new(),
                    };
                }
            };
            let chosen = platform::select(index, &asked).filter(|_| depth < INDEX_DEPTH);
            let Some(chosen) = chosen else {
                return Err(RegistryError::NoPlatform {
                    image: reference.familiar(),
                    wanted: asked.to_string(),
                    available: platform::list(index),
                }
                .into());
            };
            if !media_type::is_index(&chosen.media_type) {
                break member(index, chosen);
            }
            depth += 1;
            let inner = reference.with_digest(chosen.digest);
            root = reader.client.manifest(&inner).await?;
        };
        reader.attached(&member).await
    }

    /// Reads all that is attached to an image of a registry, for each of its platforms.
    pub(crate) async fn attached_everywhere(
        &self,
        reference: &Reference,
    ) -> Result<Vec<Attached>, Error> {
        self.attached_at(reference, None, None).await
    }

    /// Reads what is attached to an image of the store at the registries that have what is here, `name`'s own first;
    /// `manifests` are those of its parts that are asked for. Nothing where no registry is known.
    pub(crate) async fn attached_to_stored(
        &self,
        name: &str,
        image: &Image,
        manifests: &[Sha256Digest],
        wanted: Option<&str>,
    ) -> Result<Vec<Attached>, Error> {
        if self.options().offline {
            return Ok(Vec::new());
        }
        for place in self.known_places(name, image)? {
            match self.attached_at(&place, wanted, Some(manifests)).await {
                Ok(found) if found.iter().all(|one| one.predicates.is_empty()) => {}
                // It was there once.
                Err(Error::Registry(error)) if error.is_not_found() => {}
                done => return done,
            }
        }
        Ok(Vec::new())
    }

    /// The names by digest that registries know the manifest of an image by.
    fn known_places(&self, name: &str, image: &Image) -> Result<Vec<Reference>, Error> {
        let store = self.store();
        let images = store.images()?;
        let named = images.iter().find(|named| named.image.id == image.id);
        let mut places = Vec::new();
        for known in named.iter().flat_map(|named| &named.names) {
            let place = Reference::parse(known).ok();
            let place = place.filter(|place| place.digest().is_some());
            if let Some(place) = place
                && store.peek_image(known)?.manifest == image.manifest
            {
                places.push(place);
            }
        }
        let own = Reference::parse(name).map(|name| name.name());
        places.sort_by_key(|place| own.as_ref() != Ok(&place.name()));
        places.truncate(MOST_PLACES);
        Ok(places)
    }

    async fn attached_at(
        &self,
        reference: &Reference,
        wanted: Option<&str>,
        only: Option<&[Sha256Digest]>,
    ) -> Result<Vec<Attached>, Error> {
        let reader = Reader {
            client: self.registry()?,
            reference,
            wanted,
        };
        let root = reader.client.manifest(reference).await?;
        let members = match &root.root {
            Root::Index(index) => {
                let images = index.manifests.iter().filter(|entry| {
                    !entry.is_attestation() && media_type::is_manifest(&entry.media_type)
                });
                images.map(|entry| member(index, entry)).collect()
            }
            Root::Manifest(manifest) => {
                let limit = kiln_oci::document::CONFIG_LIMIT_BYTES;
                let config = reader.client.blob_bytes(reference, &manifest.config, limit);
                let config = kiln_oci::document::ImageConfig::from_slice(&config.await?);
                vec![Member {
                    platform: config.map_or(String::new(), |config| config.platform().to_string()),
                    digest: root.digest,
                    beside: Vec::new(),
                }]
            }
        };
        let members = members
            .iter()
            .filter(|member| only.is_none_or(|only| only.contains(&member.digest)));
        let mut all = Vec::new();
        for member in members {
            all.push(reader.attached(member).await?);
        }
        Ok(all)
    }
}

/// An entry of an index with what stands beside it there.
fn member<'i>(index: &'i Index, entry: &Descriptor) -> Member<'i> {
    let about = entry.digest.to_string();
    let beside = index.manifests.iter().filter(|other| {
        other.is_attestation()
            && other.annotations.get(annotation::REFERENCE_DIGEST) == Some(&about)
    });
    Member {
        platform: match &entry.platform {
            Some(platform) => platform.to_string(),
            None => String::new(),
        },
        digest: entry.digest,
        beside: beside.take(MOST_STATEMENTS).collect(),
    }
}

/// One reading of what is attached to images of a repository.
struct Reader<'a> {
    client: &'a Client,
    reference: &'a Reference,
    /// The only kind of predicate that counts.
    wanted: Option<&'a str>,
}

impl Reader<'_> {
    async fn attached(&self, member: &Member<'_>) -> Result<Attached, Error> {
        let mut predicates = Vec::new();
        for entry in &member.beside {
            self.read(entry, None, member.digest, &mut predicates)
                .await?;
        }
        let is_wanted = |one: &Predicate| self.wanted.is_none_or(|kind| one.kind == kind);
        // What is in the index is not asked for again.
        if !predicates.iter().any(is_wanted) {
            let listed = self.client.referrers(self.reference, member.digest).await?;
            let statements = listed
                .iter()
                .filter(|entry| self.may_be_wanted(&entry.artifact_type, entry));
            for entry in statements.take(MOST_STATEMENTS) {
                self.read(entry, Some(member.digest), member.digest, &mut predicates)
                    .await?;
            }
        }
        predicates.retain(is_wanted);
        Ok(Attached {
            platform: member.platform.clone(),
            predicates,
        })
    }

    /// Whether a layer or a referrer of a type may hold what is wanted.
    fn may_be_wanted(&self, media_type: &str, entry: &Descriptor) -> bool {
        may_hold(
            media_type,
            entry.annotations.get(PREDICATE_TYPE),
            self.wanted,
        )
    }

    /// Reads the statements and SPDX documents of one manifest; one that says what it refers to must say `subject`.
    async fn read(
        &self,
        entry: &Descriptor,
        subject: Option<Sha256Digest>,
        about: Sha256Digest,
        predicates: &mut Vec<Predicate>,
    ) -> Result<(), Error> {
        let place = self.reference.with_digest(entry.digest);
        let Root::Manifest(manifest) = self.client.manifest(&place).await?.root else {
            return Ok(());
        };
        let Manifest {
            subject: referred,
            layers,
            ..
        } = &manifest;
        if subject.is_some() && subject != referred.as_ref().map(|referred| referred.digest) {
            return Ok(());
        }
        let statements = layers
            .iter()
            .filter(|layer| self.may_be_wanted(&layer.media_type, layer));
        for layer in statements {
            if predicates.len() == MOST_STATEMENTS {
                break;
            }
            let bytes = self
                .client
                .blob_bytes(self.reference, layer, MOST_BYTES)
                .await?;
            // What is no statement says nothing, and neither does one of something else.
            predicates.extend(Predicate::of_layer(&layer.media_type, &bytes, about));
        }
        Ok(())
    }
}
