//! Lists of images for several platforms, put together by hand: members from the store and from
//! registries.
//!
//! A list is an index in the store, like an image that was built for several platforms. Of members that are
//! only in a registry it keeps manifest and config; their layers come when somebody needs them.

mod push;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use kiln_ir::ImageConfig;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{
    CONFIG_LIMIT_BYTES, Descriptor, Index, MANIFEST_LIMIT_BYTES, Manifest, Root,
};
use kiln_oci::media_type::{self, Flavor};
use kiln_oci::platform::Platform;
use kiln_oci::reference::Reference;
use kiln_oci::registry::PulledManifest;
use kiln_store::{BlobDigest, Image, ImageId, Lease, Member, NewIndex};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::executor::Executor;
use crate::export::reference;
use crate::images::{oci_platform, platform_of};

/// No list has more members.
const MOST_MEMBERS: usize = 1000;

/// A list that is to be made.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Its name.
    pub name: String,
    /// Images of the store, by name or id, or of registries.
    pub images: Vec<String>,
    /// Add to the list that has the name already.
    pub amend: bool,
    /// What the list says of itself.
    pub annotations: BTreeMap<String, String>,
}

/// What a list is to say of a member.
#[derive(Debug, Clone, Default)]
pub struct MemberChange {
    /// Its operating system.
    pub os: Option<String>,
    /// Its architecture.
    pub architecture: Option<String>,
    /// The variant of that.
    pub variant: Option<String>,
    /// Annotations beside those that it has.
    pub annotations: BTreeMap<String, String>,
}

/// Why a list cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The name is taken.
    #[error("`{name}` is {what} already")]
    Taken {
        /// The name.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// The image is for one platform.
    #[error("`{name}` is an image for one platform, and no list of several")]
    NoList {
        /// The name.
        name: String,
    },
    /// The list lacks the member.
    #[error("the list `{name}` has no member `{member}`; it has {available}")]
    NoMember {
        /// The list.
        name: String,
        /// As asked for.
        member: String,
        /// The members.
        available: String,
    },
    /// A member is needed whose layers are not here.
    #[error("the list `{name}` has its image for {platform} in a registry only")]
    Elsewhere {
        /// The list.
        name: String,
        /// The platform.
        platform: String,
    },
    /// Two images for one platform.
    #[error("`{image}` is for {platform}, for which the list has an image already")]
    SamePlatform {
        /// The second one.
        image: String,
        /// The platform.
        platform: String,
    },
    /// What is added is no image.
    #[error("`{image}` is no image: {what}")]
    NoImage {
        /// As asked for.
        image: String,
        /// What it is.
        what: String,
    },
    /// There are too many.
    #[error("a list has at most {MOST_MEMBERS} members")]
    TooMany,
}

impl ListError {
    /// A way out, where there is one to name.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            ListError::Taken {
                name,
                what: "a list",
            } => Some(format!(
                "--amend adds to it, `kiln manifest rm {name}` removes it"
            )),
            ListError::Taken { name, .. } => Some(format!(
                "choose another name, or take this one away: kiln rmi {name}"
            )),
            ListError::NoList { .. } => {
                Some("`kiln manifest create` makes one under another name".to_owned())
            }
            ListError::Elsewhere { .. } => Some(
                "push the list and `kiln pull` it, or pull the member by its own name".to_owned(),
            ),
            ListError::SamePlatform { .. } => {
                Some("make the list anew, with the images that are to be in it".to_owned())
            }
            _ => None,
        }
    }
}

/// A list as it is put together.
struct List {
    index: Index,
    members: Vec<Member>,
    /// What it needs beside its members, leased.
    attached: Vec<BlobDigest>,
}

impl Executor {
    /// Makes a list under a name; returns its id.
    pub async fn create_list(&self, request: &ListRequest) -> Result<String, Error> {
        let name = reference(&request.name)?;
        let lease = self.store().lease();
        let there = self.store().image_by_name(&lease, &name.to_string())?;
        let mut list = match there {
            Some(image) if request.amend => self.open_list(&lease, &image, &request.name)?,
            Some(image) => {
                return Err(Error::List(ListError::Taken {
                    name: name.familiar(),
                    what: match image.is_index() {
                        true => "a list",
                        false => "an image",
                    },
                }));
            }
            None => List {
                index: Index::new(Flavor::Oci, Vec::new()),
                members: Vec::new(),
                attached: Vec::new(),
            },
        };
        for image in &request.images {
            self.add(&lease, &mut list, image).await?;
        }
        list.index.annotations.extend(request.annotations.clone());
        self.keep_list(&lease, list, &name)
    }

    /// Changes what a list says of one of its members, given by digest, platform or image; returns the
    /// list's new id.
    pub fn annotate_list(
        &self,
        list: &str,
        member: &str,
        change: &MemberChange,
    ) -> Result<String, Error> {
        let name = reference(list)?;
        let lease = self.store().lease();
        let image = self.find_image(&lease, list)?;
        let mut opened = self.open_list(&lease, &image, list)?;
        let place = self.member_place(&lease, &opened, member)?;
        let Some(place) = place else {
            let entries = opened.index.manifests.iter();
            let shown = entries.map(|entry| match &entry.platform {
                Some(platform) => format!("{platform} ({})", entry.digest),
                None => entry.digest.to_string(),
            });
            return Err(Error::List(ListError::NoMember {
                name: list.to_owned(),
                member: member.to_owned(),
                available: shown.collect::<Vec<_>>().join(", "),
            }));
        };
        let entry = &mut opened.index.manifests[place];
        let before = entry.platform.clone();
        let mut platform = before.clone().unwrap_or_else(|| Platform::new("", "", ""));
        let set = |to: &mut String, from: &Option<String>| {
            if let Some(from) = from {
                to.clone_from(from);
            }
        };
        set(&mut platform.os, &change.os);
        set(&mut platform.architecture, &change.architecture);
        set(&mut platform.variant, &change.variant);
        entry.platform = Some(platform.clone());
        entry.annotations.extend(change.annotations.clone());
        let before = before.map(|before| before.to_string());
        for member in &mut opened.members {
            if Some(&member.platform) == before.as_ref() {
                member.platform = platform.to_string();
            }
        }
        self.keep_list(&lease, opened, &name)
    }

    /// The manifest or index of an image of the store or, if it is not there or `remote` is set, of a
    /// registry, as it is.
    pub async fn raw_manifest(&self, name: &str, remote: bool) -> Result<Vec<u8>, Error> {
        let lease = self.store().lease();
        if !remote && let Some(image) = self.stored_image(&lease, name)? {
            return Ok(image.manifest);
        }
        let reference = Reference::parse(name)?;
        if self.options().offline {
            return Err(Error::Offline {
                reference: reference.familiar(),
            });
        }
        let manifest = self.registry()?.manifest(&reference).await?;
        Ok(manifest.bytes.to_vec())
    }

    /// Errors unless a name is of a list.
    pub fn check_list(&self, name: &str) -> Result<(), Error> {
        let lease = self.store().lease();
        match self.find_image(&lease, name)?.is_index() {
            true => Ok(()),
            false => Err(Error::List(ListError::NoList {
                name: name.to_owned(),
            })),
        }
    }

    fn open_list(&self, lease: &Lease, image: &Image, name: &str) -> Result<List, Error> {
        if !image.is_index() {
            return Err(Error::List(ListError::NoList {
                name: name.to_owned(),
            }));
        }
        let index = Index::from_slice(&image.manifest).map_err(|source| Error::Document {
            what: "index",
            reference: name.to_owned(),
            source: Box::new(source),
        })?;
        let mut list = List {
            attached: Vec::new(),
            members: image.members.clone(),
            index,
        };
        for entry in list.index.manifests.clone() {
            self.hold(lease, &image.id, &entry, &mut list.attached)?;
        }
        Ok(list)
    }

    /// Leases what an entry of a stored index needs beside its members.
    fn hold(
        &self,
        lease: &Lease,
        owner: &ImageId,
        entry: &Descriptor,
        held: &mut Vec<BlobDigest>,
    ) -> Result<(), Error> {
        let store = self.store();
        let Some(bytes) = self.attached_document(lease, owner, entry)? else {
            return Ok(());
        };
        held.push(BlobDigest(*entry.digest.as_bytes()));
        if let Ok(manifest) = Manifest::from_slice(&bytes) {
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                let digest = BlobDigest(*blob.digest.as_bytes());
                if store.attached_blob(lease, owner, &digest)?.is_some() {
                    held.push(digest);
                }
            }
        }
        Ok(())
    }

    /// The bytes of a document that an index keeps beside its members.
    fn attached_document(
        &self,
        lease: &Lease,
        owner: &ImageId,
        entry: &Descriptor,
    ) -> Result<Option<Vec<u8>>, Error> {
        let store = self.store();
        let digest = BlobDigest(*entry.digest.as_bytes());
        if store.attached_blob(lease, owner, &digest)?.is_none() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        store
            .open_blob(&digest)?
            .take(MANIFEST_LIMIT_BYTES)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read a blob of", store.root()))?;
        Ok(Some(bytes))
    }

    fn keep_list(&self, lease: &Lease, list: List, name: &Reference) -> Result<String, Error> {
        if list.index.manifests.len() > MOST_MEMBERS {
            return Err(Error::List(ListError::TooMany));
        }
        let index = list.index.to_bytes();
        let id = ImageId(Sha256::digest(&index).into());
        let store = self.store();
        let new = NewIndex {
            id,
            index,
            members: list.members,
        };
        store.put_index(lease, &new)?;
        store.attach_blobs(&id, &list.attached)?;
        store.tag(&id, &new.index, &name.to_string())?;
        Ok(id.to_string())
    }

    async fn add(&self, lease: &Lease, list: &mut List, name: &str) -> Result<(), Error> {
        if let Some(image) = self.stored_image(lease, name)? {
            return match image.is_index() {
                false => add_stored(list, &image, name),
                true => {
                    let other = self.open_list(lease, &image, name)?;
                    list.attached.extend(other.attached);
                    for entry in &other.index.manifests {
                        place(list, entry.clone(), name)?;
                    }
                    let fresh = other.members.into_iter();
                    for member in fresh {
                        if !list.members.contains(&member) {
                            list.members.push(member);
                        }
                    }
                    Ok(())
                }
            };
        }
        let reference = Reference::parse(name)?;
        if self.options().offline {
            return Err(Error::Offline {
                reference: reference.familiar(),
            });
        }
        let root = self.registry()?.manifest(&reference).await?;
        match &root.root {
            Root::Manifest(_) => {
                self.add_remote(lease, list, &reference, &root, None, name)
                    .await
            }
            Root::Index(index) => {
                for entry in &index.manifests {
                    let at = reference.with_digest(entry.digest);
                    let manifest = self.registry()?.manifest(&at).await?;
                    let entry = Some(entry);
                    self.add_remote(lease, list, &reference, &manifest, entry, name)
                        .await?;
                }
                Ok(())
            }
        }
    }

    /// Adds what only a registry has: manifest and config come here, and where its layers are is
    /// remembered.
    async fn add_remote(
        &self,
        lease: &Lease,
        list: &mut List,
        reference: &Reference,
        pulled: &PulledManifest,
        entry: Option<&Descriptor>,
        name: &str,
    ) -> Result<(), Error> {
        let Root::Manifest(manifest) = &pulled.root else {
            return Err(Error::List(ListError::NoImage {
                image: name.to_owned(),
                what: "an index lies within its index".to_owned(),
            }));
        };
        let client = self.registry()?;
        let config = client
            .blob_bytes(reference, &manifest.config, CONFIG_LIMIT_BYTES)
            .await?;
        let is_attestation = entry.is_some_and(Descriptor::is_attestation);
        let mut descriptor = match entry {
            Some(entry) => entry.clone(),
            None => pulled.descriptor(),
        };
        if !is_attestation && !media_type::is_config(&manifest.config.media_type) {
            return Err(Error::List(ListError::NoImage {
                image: name.to_owned(),
                what: format!("its config is `{}`", manifest.config.media_type),
            }));
        }
        if descriptor.platform.is_none()
            && let Ok(config) = ImageConfig::from_json(&config)
        {
            descriptor.platform = Some(oci_platform(&platform_of(&config)));
        }
        for bytes in [&pulled.bytes, &config] {
            let digest = BlobDigest(*Sha256Digest::of(bytes).as_bytes());
            if !self.store().lease_blob(lease, &digest)? {
                let mut writer = self.store().write_blob(Some(digest))?;
                writer
                    .write_all(bytes)
                    .map_err(Error::unwritten(self.store()))?;
                writer.finish(lease)?;
            }
            list.attached.push(digest);
        }
        let layers = manifest.layers.iter().chain([&manifest.config]);
        let layers: Vec<BlobDigest> = layers
            .map(|layer| BlobDigest(*layer.digest.as_bytes()))
            .collect();
        self.store().put_places(&reference.name(), &layers)?;
        place(list, descriptor, name)
    }

    /// Where a list has a member that is given by digest, platform or image.
    fn member_place(
        &self,
        lease: &Lease,
        list: &List,
        member: &str,
    ) -> Result<Option<usize>, Error> {
        let find = |is: &dyn Fn(&Descriptor) -> bool| list.index.manifests.iter().position(is);
        let digest = member.rsplit('@').next().unwrap_or(member);
        if let Ok(digest) = digest.parse::<Sha256Digest>()
            && let Some(place) = find(&|entry| entry.digest == digest)
        {
            return Ok(Some(place));
        }
        let by_platform = find(&|entry| {
            entry
                .platform
                .as_ref()
                .is_some_and(|platform| platform.to_string() == member)
        });
        if by_platform.is_some() {
            return Ok(by_platform);
        }
        let Some(image) = self.stored_image(lease, member)? else {
            return Ok(None);
        };
        let digest = Sha256Digest::of(&image.manifest);
        Ok(find(&|entry| entry.digest == digest))
    }
}

/// Adds an image of the store.
fn add_stored(list: &mut List, image: &Image, name: &str) -> Result<(), Error> {
    let unusable =
        |what: &'static str, source: Box<dyn std::error::Error + Send + Sync>| Error::Document {
            what,
            reference: name.to_owned(),
            source,
        };
    let config =
        ImageConfig::from_json(&image.config).map_err(|error| unusable("config", error.into()))?;
    let manifest = Manifest::from_slice(&image.manifest)
        .map_err(|error| unusable("manifest", error.into()))?;
    let kind = match manifest.media_type.as_str() {
        "" => media_type::OCI_MANIFEST,
        kind => kind,
    };
    let mut descriptor = Descriptor::of(kind, &image.manifest);
    descriptor.platform = Some(oci_platform(&platform_of(&config)));
    let platform = descriptor.platform.as_ref().map(ToString::to_string);
    place(list, descriptor, name)?;
    let member = Member {
        platform: platform.unwrap_or_else(|| platform_of(&config).to_string()),
        id: image.id,
        manifest: image.manifest.clone(),
    };
    if !list.members.contains(&member) {
        list.members.push(member);
    }
    Ok(())
}

/// Puts an entry into a list; what is there already stays.
fn place(list: &mut List, entry: Descriptor, name: &str) -> Result<(), Error> {
    let entries = &mut list.index.manifests;
    if entries.iter().any(|there| there.digest == entry.digest) {
        return Ok(());
    }
    if !entry.is_attestation()
        && let Some(platform) = &entry.platform
        && entries
            .iter()
            .any(|there| there.platform.as_ref() == Some(platform))
    {
        return Err(Error::List(ListError::SamePlatform {
            image: name.to_owned(),
            platform: platform.to_string(),
        }));
    }
    entries.push(entry);
    Ok(())
}
