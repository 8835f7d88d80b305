//! The images of the store: listed, named, shown, removed.

use std::time::SystemTime;

use kiln_ir::ImageConfig;
use kiln_oci::reference::Reference;
use kiln_store::{Image, Lease, StoreError};

use crate::error::Error;
use crate::executor::Executor;
use crate::source::ago;

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// The digest of its config.
    pub id: String,
    /// Its names in their short form, sorted; empty if it is untagged.
    pub names: Vec<String>,
    /// What its layers hold.
    pub size_bytes: u64,
    /// When the store got it, such as `3 days ago`.
    pub added: String,
    /// When its config says it was made.
    pub created: SystemTime,
}

/// All that is known of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDetails {
    /// The digest of its config.
    pub id: String,
    /// Its names.
    pub names: Vec<String>,
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
            .into_iter()
            .map(|named| ImageSummary {
                id: named.image.id.to_string(),
                names: named.names.iter().map(|name| familiar(name)).collect(),
                size_bytes: named.image.size_bytes,
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
            && let Some(image) = self.store().image_by_name(lease, &reference.to_string())?
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
        let by_name = Reference::parse(name).map(|reference| reference.to_string());
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
        let reference = Reference::parse(name)?;
        let lease = self.store().lease();
        let image = self.find_image(&lease, image)?;
        self.store().tag(&image.id, &reference.to_string())?;
        Ok(reference.familiar())
    }

    /// Takes a name away, and removes the image if it has none left; an id removes the image with
    /// all its names. Returns what was done, one line each.
    pub fn remove_image(&self, name: &str) -> Result<Vec<String>, Error> {
        let store = self.store();
        store.make_room()?;
        let lease = store.lease();
        let image = self.find_image(&lease, name)?;
        let named = store
            .images()?
            .into_iter()
            .find(|named| named.image.id == image.id);
        let names = named.map(|named| named.names).unwrap_or_default();
        let asked = Reference::parse(name)
            .map(|reference| reference.to_string())
            .unwrap_or_default();
        let mut done = Vec::new();
        if names.contains(&asked) && names.len() > 1 {
            store.untag(&asked)?;
            done.push(format!("untagged {}", familiar(&asked)));
            return Ok(done);
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
        let names = store
            .images()?
            .into_iter()
            .find(|named| named.image.id == image.id);
        let document = |what, source: Box<dyn std::error::Error + Send + Sync>| Error::Document {
            what,
            reference: name.to_owned(),
            source,
        };
        let text = |what, bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|error| document(what, error.into()))
        };
        let mut layers = Vec::new();
        for layer in &image.layers {
            let size = store.layer(layer)?.map_or(0, |info| info.size_bytes);
            layers.push((layer.to_string(), size));
        }
        Ok(ImageDetails {
            id: image.id.to_string(),
            names: names
                .map(|named| named.names.iter().map(|name| familiar(name)).collect())
                .unwrap_or_default(),
            parsed: ImageConfig::from_json(&image.config)
                .map_err(|error| document("config", error.into()))?,
            manifest: text("manifest", &image.manifest)?,
            config: text("config", &image.config)?,
            layers,
            size_bytes: image.size_bytes,
        })
    }
}

fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}
