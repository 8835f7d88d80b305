//! The images of the store: listed, named, shown, removed.

use std::collections::BTreeMap;
use std::time::SystemTime;

use kiln_ir::{ImageConfig, Platform};
use kiln_oci::reference::Reference;
use kiln_store::{Image, ImageId, Lease, Member, NamedImage, Store, StoreError};

use crate::error::Error;
use crate::executor::{Executor, host_platform};
use crate::lists::ListError;
use crate::source::ago;

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// The digest of its config.
    pub id: String,
    /// Its names in their short form, sorted; empty if it is untagged. Those by digest are only among them where
    /// it has no other.
    pub names: Vec<String>,
    /// The digests that registries know it by, as `app@sha256:…`, sorted.
    pub digests: Vec<String>,
    /// What its layers hold.
    pub size_bytes: u64,
    /// What it is for, such as `linux/amd64`; several if it is an index.
    pub platforms: Vec<String>,
    /// Its labels; of an index, those of its first image that is here.
    pub labels: BTreeMap<String, String>,
    /// When the store got it, such as `3 days ago`.
    pub added: String,
    /// When its config says it was made.
    pub created: SystemTime,
}

/// All that is known of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDetails {
    /// The digest of its config, or of its index.
    pub id: String,
    /// Its names; those by digest only where it has no other.
    pub names: Vec<String>,
    /// The digests that registries know it by, as `app@sha256:…`.
    pub digests: Vec<String>,
    /// The manifests or indexes, as JSON, that registries took it as and that it does not have by this name, by
    /// such a digest.
    pub pushed: Vec<(String, String)>,
    /// The index as JSON, if it is for several platforms.
    pub index: Option<String>,
    /// What its layers hold.
    pub size_bytes: u64,
    /// The image for each of its platforms that is here, never none unless it is a list.
    pub platforms: Vec<PlatformDetails>,
}

/// All that is known of an image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformDetails {
    /// Such as `linux/amd64`.
    pub platform: String,
    /// The digest of its config.
    pub id: String,
    /// The manifest as JSON.
    pub manifest: String,
    /// The config as JSON.
    pub config: String,
    /// The config.
    pub parsed: ImageConfig,
    /// Content id and size of each layer, lowest first.
    pub layers: Vec<(String, u64)>,
    /// What its layers hold.
    pub size_bytes: u64,
}

impl Executor {
    /// Lists the images, the newest first.
    pub fn images(&self) -> Result<Vec<ImageSummary>, Error> {
        let images = self.store().images()?;
        Ok(images
            .iter()
            // What an image of several platforms is made of is seen as that one.
            .filter(|named| !named.is_member || !named.names.is_empty())
            .map(|named| ImageSummary {
                id: named.image.id.to_string(),
                names: shown_names(&named.names),
                digests: digests(&named.names).map(familiar).collect(),
                size_bytes: named.image.size_bytes,
                platforms: platforms(&named.image),
                labels: labels(&named.image, &images),
                added: ago(named.image.added),
                created: named.image.created,
            })
            .collect())
    }

    /// Finds an image by name, or by the beginning of its id.
    pub(crate) fn find_image(&self, lease: &Lease, name: &str) -> Result<Image, Error> {
        let found = self.stored_image(lease, name)?;
        found.ok_or_else(|| Error::NoSuchImage {
            name: name.to_owned(),
        })
    }

    /// The image in the store that a name, or the beginning of an id, stands for.
    ///
    /// A name goes before the id that it may look like, as in docker.
    pub(crate) fn stored_image(&self, lease: &Lease, name: &str) -> Result<Option<Image>, Error> {
        if let Ok(reference) = Reference::parse(name)
            && let Some(image) = self.store().image_by_name(lease, &reference.decisive())?
        {
            return Ok(Some(image));
        }
        match self.store().resolve_image(lease, name) {
            Ok(image) => Ok(Some(image)),
            Err(StoreError::NoSuchImage { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Executor::find_image`], for looking at what is known of it: nothing is leased.
    fn peek_image(&self, name: &str) -> Result<Image, Error> {
        let by_name = Reference::parse(name).map(|reference| reference.decisive());
        for name in by_name.iter().map(String::as_str).chain([name]) {
            match self.store().peek_image(name) {
                Err(StoreError::NoSuchImage { .. }) => {}
                found => return Ok(found?),
            }
        }
        Err(Error::NoSuchImage {
            name: name.to_owned(),
        })
    }

    /// Gives an image another name.
    pub fn tag_image(&self, image: &str, name: &str) -> Result<String, Error> {
        let reference = crate::export::reference(name)?;
        let lease = self.store().lease();
        let image = self.find_image(&lease, image)?;
        self.store()
            .tag(&image.id, &image.manifest, &reference.to_string())?;
        Ok(reference.familiar())
    }

    /// Takes a name away, and removes the image if it has none left and is part of no other; an id removes
    /// the image with all its names. Returns what was done, one line each.
    pub fn remove_image(&self, name: &str) -> Result<Vec<String>, Error> {
        let store = self.store();
        store.make_room()?;
        let lease = store.lease();
        let image = self.find_image(&lease, name)?;
        let images = store.images()?;
        let named = images.iter().find(|named| named.image.id == image.id);
        let is_member = named.is_some_and(|named| named.is_member);
        let names = named.map(|named| named.names.clone()).unwrap_or_default();
        let asked = Reference::parse(name)
            .map(|reference| reference.decisive())
            .unwrap_or_default();
        let mut done = Vec::new();
        // What registries call it goes with the last name of its own.
        let kept = match is_by_digest(&asked) {
            true => names.len(),
            false => names.iter().filter(|name| !is_by_digest(name)).count(),
        };
        if names.contains(&asked) && (kept > 1 || is_member) {
            store.untag(&asked)?;
            done.push(format!("untagged {}", familiar(&asked)));
            return Ok(done);
        }
        if is_member {
            return Err(Error::PartOfIndex {
                image: image.id.to_string(),
                of: indexes_of(&images, &image.id),
            });
        }
        drop(lease);
        store.remove_image(&image.id)?;
        done.extend(
            names
                .iter()
                .map(|name| format!("untagged {}", familiar(name))),
        );
        done.push(format!("removed {}", image.id));
        Ok(done)
    }

    /// Returns all that is known of an image.
    pub fn image_details(&self, name: &str) -> Result<ImageDetails, Error> {
        let store = self.store();
        let image = self.peek_image(name)?;
        let named = store
            .images()?
            .into_iter()
            .find(|named| named.image.id == image.id);
        let names = named.map(|named| named.names).unwrap_or_default();
        let mut pushed = Vec::new();
        for digest in digests(&names) {
            let other = store.peek_image(digest)?;
            if other.manifest != image.manifest {
                let manifest = text("manifest", &other.manifest, name)?;
                pushed.push((familiar(digest), manifest));
            }
        }
        let mut details = ImageDetails {
            id: image.id.to_string(),
            names: shown_names(&names),
            digests: digests(&names).map(familiar).collect(),
            pushed,
            index: None,
            size_bytes: image.size_bytes,
            platforms: Vec::with_capacity(image.members.len().max(1)),
        };
        if !image.is_index() {
            details
                .platforms
                .push(platform_details(store, &image, name)?);
            return Ok(details);
        }
        details.index = Some(text("index", &image.manifest, name)?);
        for member in &image.members {
            let image = store.peek_member(member)?;
            details
                .platforms
                .push(platform_details(store, &image, name)?);
        }
        Ok(details)
    }

    /// Returns what is known of an image for one platform, as `linux/arm64`; the host's, or the only
    /// one, where none is given.
    pub fn platform_details(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<PlatformDetails, Error> {
        let store = self.store();
        let image = self.peek_image(name)?;
        let wanted = platform.cloned().unwrap_or_else(host_platform);
        let image = match choose(&image, &wanted, name)? {
            Some(member) => store.peek_member(member)?,
            None => image,
        };
        let details = platform_details(store, &image, name)?;
        platform_of_programs(&details.parsed, name, platform)?;
        Ok(details)
    }
}

/// The names of all that an image is part of; the id of what has none.
fn indexes_of(images: &[NamedImage], member: &ImageId) -> Vec<String> {
    let is_part = |of: &&NamedImage| of.image.members.iter().any(|one| one.id == *member);
    images
        .iter()
        .filter(is_part)
        .flat_map(|of| match of.names.as_slice() {
            [] => vec![of.image.id.to_string()],
            names => names.iter().map(|name| familiar(name)).collect(),
        })
        .collect()
}

/// As [`member_for`], for a platform that was asked for: an image that is not for several has to be for it.
pub(crate) fn image_for(
    store: &Store,
    lease: &Lease,
    image: Image,
    platform: &Platform,
    name: &str,
) -> Result<Image, Error> {
    if !image.is_index() {
        platform_of_programs(&parse(&image, name)?, name, Some(platform))?;
    }
    member_for(store, lease, image, platform, name)
}

/// What an image's programs are for: the host, where it does not say. Errors if another platform is
/// wanted.
pub(crate) fn platform_of_programs(
    config: &ImageConfig,
    typed: &str,
    wanted: Option<&Platform>,
) -> Result<Platform, Error> {
    let host = host_platform();
    let mut found = platform_of(config);
    if found.os.is_empty() {
        found.os.clone_from(&host.os);
    }
    if found.architecture.is_empty() {
        found.architecture.clone_from(&host.architecture);
    }
    match wanted {
        Some(wanted) if !oci_platform(wanted).accepts(&oci_platform(&found)) => {
            Err(Error::Platform {
                reference: typed.to_owned(),
                found: found.to_string(),
                wanted: wanted.to_string(),
            })
        }
        _ => Ok(found),
    }
}

/// Returns the image of one for several platforms that fits `platform` best, leased; any other image
/// is returned as it is.
pub(crate) fn member_for(
    store: &Store,
    lease: &Lease,
    image: Image,
    platform: &Platform,
    name: &str,
) -> Result<Image, Error> {
    match choose(&image, platform, name)? {
        Some(member) => Ok(store.member(lease, member)?),
        None => Ok(image),
    }
}

/// Returns the member that fits `platform` best; none if the image has no members.
fn choose<'i>(
    image: &'i Image,
    platform: &Platform,
    name: &str,
) -> Result<Option<&'i Member>, Error> {
    if !image.is_index() {
        return Ok(None);
    }
    let wanted = oci_platform(platform);
    let rank = |member: &Member| {
        let candidate = kiln_oci::platform::Platform::parse(&member.platform).ok()?;
        wanted.rank(&candidate)
    };
    let ranked = image.members.iter();
    let best = ranked
        .filter_map(|member| Some((rank(member)?, member)))
        .min_by_key(|(rank, _)| *rank);
    match best {
        Some((_, member)) => Ok(Some(member)),
        None => {
            let listed = platforms(image);
            let accepts = |listed: &String| {
                let listed = kiln_oci::platform::Platform::parse(listed);
                listed.is_ok_and(|listed| wanted.accepts(&listed))
            };
            Err(match listed.iter().any(accepts) {
                true => Error::List(ListError::Elsewhere {
                    name: name.to_owned(),
                    platform: platform.to_string(),
                }),
                false => Error::Platform {
                    reference: name.to_owned(),
                    found: listed.join(", "),
                    wanted: platform.to_string(),
                },
            })
        }
    }
}

/// The same in the words of image documents.
pub(crate) fn oci_platform(platform: &Platform) -> kiln_oci::platform::Platform {
    kiln_oci::platform::Platform {
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        ..kiln_oci::platform::Platform::new(&platform.os, &platform.architecture, &platform.variant)
    }
}

/// What an image is for, as far as it says.
fn platforms(image: &Image) -> Vec<String> {
    if image.is_index() {
        // What is in a list may be in a registry only.
        let Ok(index) = kiln_oci::document::Index::from_slice(&image.manifest) else {
            let members = image.members.iter();
            return members.map(|member| member.platform.clone()).collect();
        };
        let images = index
            .manifests
            .iter()
            .filter(|entry| !entry.is_attestation());
        let platforms = images.filter_map(|entry| entry.platform.as_ref());
        return platforms.map(ToString::to_string).collect();
    }
    let config = ImageConfig::from_json(&image.config).unwrap_or_default();
    match config.architecture.is_empty() {
        true => Vec::new(),
        false => vec![platform_of(&config).to_string()],
    }
}

fn labels(image: &Image, images: &[NamedImage]) -> BTreeMap<String, String> {
    let part = image.members.first();
    let part = part.and_then(|part| images.iter().find(|named| named.image.id == part.id));
    let config = &part.map_or(image, |part| &part.image).config;
    ImageConfig::from_json(config)
        .unwrap_or_default()
        .config
        .labels
}

/// The platform that a config states.
pub(crate) fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        ..Platform::default()
    }
    .normalized()
}

pub(crate) fn parse(image: &Image, name: &str) -> Result<ImageConfig, Error> {
    ImageConfig::from_json(&image.config).map_err(|error| document("config", error.into(), name))
}

fn platform_details(store: &Store, image: &Image, name: &str) -> Result<PlatformDetails, Error> {
    let mut layers = Vec::new();
    for layer in &image.layers {
        let size = store.layer(layer)?.map_or(0, |info| info.size_bytes);
        layers.push((layer.to_string(), size));
    }
    let parsed = parse(image, name)?;
    Ok(PlatformDetails {
        platform: platform_of(&parsed).to_string(),
        id: image.id.to_string(),
        parsed,
        manifest: text("manifest", &image.manifest, name)?,
        config: text("config", &image.config, name)?,
        layers,
        size_bytes: image.size_bytes,
    })
}

fn text(what: &'static str, bytes: &[u8], name: &str) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|error| document(what, error.into(), name))
}

fn document(
    what: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
    name: &str,
) -> Error {
    Error::Document {
        what,
        reference: name.to_owned(),
        source,
    }
}

/// Completes the name of an image as people write it; none if it is no name.
pub fn full_name(name: &str) -> Option<String> {
    let reference = Reference::parse(name).ok()?;
    Some(reference.to_string())
}

/// The names that people know an image by: those by digest only where there is no other.
fn shown_names(names: &[String]) -> Vec<String> {
    let mut shown: Vec<&String> = names.iter().filter(|name| !is_by_digest(name)).collect();
    if shown.is_empty() {
        shown.extend(names);
    }
    shown.into_iter().map(|name| familiar(name)).collect()
}

fn digests(names: &[String]) -> impl Iterator<Item = &str> {
    names
        .iter()
        .map(String::as_str)
        .filter(|name| is_by_digest(name))
}

fn is_by_digest(name: &str) -> bool {
    name.contains('@')
}

fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}
