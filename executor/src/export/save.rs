//! Images of the store as archives and layouts, several in one.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use kiln_ir::Platform;
use kiln_oci::document::{Index, Root};
use kiln_oci::layout::{DockerExport, Export, docker_archive, oci_layout};
use kiln_oci::reference::Reference;
use kiln_store::{Image, Lease};
use kiln_tree::Stop;

use super::output::Output;
use super::{Destination, archive, directory};
use crate::compress::LayerCompression;
use crate::error::Error;
use crate::executor::{Executor, host_platform};
use crate::images::{image_for, member_for};
use crate::packed::Packing;
use crate::source::stoppable;

/// What an archive of images is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaveFormat {
    /// What `docker load` reads, which readers of OCI layouts read too; each image is for one
    /// platform.
    DockerArchive(Destination),
    /// An OCI layout in a tar.
    OciArchive(Destination),
    /// An OCI layout in a directory, which may hold images already.
    OciDirectory(PathBuf),
}

/// Which images of the store are saved.
#[derive(Debug, Clone)]
pub struct SaveRequest {
    /// Their names or ids, never none.
    pub images: Vec<String>,
    /// Of images for several platforms only the one for this.
    pub platform: Option<Platform>,
    /// Where to, and how.
    pub format: SaveFormat,
}

impl Executor {
    /// Writes images of the store to an archive or a layout, with the names by which they were asked
    /// for; returns what is to be known of what was left out. What was pulled or loaded leaves in the bytes
    /// that it came in.
    pub async fn save(&self, request: SaveRequest) -> Result<Vec<String>, Error> {
        let executor = self.clone();
        let saved = stoppable(move |stop| {
            let warnings = Mutex::default();
            executor.save_now(&request, &warnings, stop)?;
            Ok(warnings
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner))
        });
        saved.await
    }

    fn save_now(
        &self,
        request: &SaveRequest,
        warnings: &Mutex<Vec<String>>,
        stop: &Stop,
    ) -> Result<(), Error> {
        let store = self.store();
        let lease = store.lease();
        let packing = Packing {
            executor: self,
            lease: &lease,
            packing: LayerCompression::default(),
            annotations: &[],
            stop,
            warn: &|line| {
                warnings
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line)
            },
        };
        let mut exports = Vec::new();
        for (image, names) in self.to_save(&lease, request)? {
            exports.push(Export {
                names,
                ..packing.pack(&image)?
            });
        }
        let (destination, files) = match &request.format {
            SaveFormat::OciDirectory(path) => {
                directory::check(path)?;
                for export in &exports {
                    directory::write(store, path, export, stop)?;
                }
                return Ok(());
            }
            SaveFormat::OciArchive(destination) => (destination, oci_layout(&exports)),
            SaveFormat::DockerArchive(destination) => {
                let images: Vec<DockerExport> =
                    exports.into_iter().map(docker).collect::<Result<_, _>>()?;
                (destination, docker_archive(&images))
            }
        };
        let mut output = Output::create(destination)?;
        archive::write(store, &files, 0, &mut output, stop)?;
        output.finish()
    }

    /// The images that are asked for, each once with all the names that were given.
    fn to_save(
        &self,
        lease: &Lease,
        request: &SaveRequest,
    ) -> Result<Vec<(Image, Vec<Reference>)>, Error> {
        let store = self.store();
        let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
        for asked in &request.images {
            let image = self.find_image(lease, asked)?;
            let mut name = None;
            if let Ok(reference) = Reference::parse(asked) {
                let named = store.image_by_name(lease, &reference.decisive())?;
                // What is asked for by its id has no name in the archive.
                name = named
                    .filter(|named| named.id == image.id)
                    .map(|_| reference);
            }
            let one = matches!(request.format, SaveFormat::DockerArchive(_));
            let image = match (&request.platform, one) {
                (Some(platform), _) => image_for(store, lease, image, platform, asked)?,
                (None, true) => member_for(store, lease, image, &host_platform(), asked)?,
                (None, false) => image,
            };
            // Names of one image that differ in its manifest are saved apart.
            match images.iter_mut().find(|(there, _)| *there == image) {
                Some((_, names)) => {
                    let new = name.filter(|name| !names.contains(name));
                    names.extend(new);
                }
                None => images.push((image, name.into_iter().collect())),
            }
        }
        Ok(images)
    }
}

/// An image for one platform as `docker load` reads it.
fn docker(image: Export) -> Result<DockerExport, Error> {
    let root = image
        .documents
        .iter()
        .find(|document| document.descriptor.digest == image.root.digest)
        .expect("BUG: an export lacks its root");
    let unusable = |source| Error::Document {
        what: "manifest",
        reference: image.root.digest.to_string(),
        source,
    };
    match Root::from_slice(&root.descriptor.media_type, &root.bytes) {
        Ok(Root::Manifest(manifest)) => Ok(DockerExport {
            config: manifest.config.digest,
            layers: manifest.layers.iter().map(|layer| layer.digest).collect(),
            image,
        }),
        Ok(Root::Index(Index { manifests, .. })) => Err(Error::OnePlatform {
            count: manifests.len(),
        }),
        Err(error) => Err(unusable(Box::new(error))),
    }
}
