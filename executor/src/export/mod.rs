//! Exporters: a result as an image in the store, an archive, a layout, a directory or a tar.

pub(crate) mod archive;
mod config;
mod directory;
mod files;
mod image;
mod index;
mod layers;
mod local;
pub(crate) mod output;
mod save;
pub(crate) mod times;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_ir::{History, ImageConfig, Platform};
use kiln_oci::document::Descriptor;
use kiln_oci::layout::{self, docker_archive, oci_layout};
pub use kiln_oci::media_type::Compression;
use kiln_oci::media_type::Flavor;
use kiln_oci::reference::Reference;
use kiln_store::{Content, DiffId, ImageId, Lease, Store};
use kiln_tree::Stop;
use kiln_tree::tar::MtimePolicy;
pub use times::rfc3339;

use image::Image;
pub(crate) use image::{blob_digest, describe};
pub(crate) use layers::{Hashing, LayerArchive, Packer, as_pulled};
use output::Output;
pub use save::{SaveFormat, SaveRequest};

use crate::attestation::Predicate;
use crate::error::Error;
use crate::executor::Executor;
use crate::sbom::{SPDX_PREDICATE, document};
use crate::sboms;
use crate::worker::{BuildWorker, Handle};

/// Where and how a result is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// Into kiln's own store.
    Image {
        /// Names beside those of the build; without any it is found by its id.
        names: Vec<String>,
    },
    /// An OCI image layout in a tar.
    OciArchive {
        /// Where.
        destination: Destination,
        /// Names beside those of the build.
        names: Vec<String>,
    },
    /// An OCI image layout in a directory; a layout that is there gets one image more.
    OciDirectory {
        /// The directory.
        destination: PathBuf,
        /// Names beside those of the build.
        names: Vec<String>,
    },
    /// What `docker load` reads.
    DockerArchive {
        /// Where.
        destination: Destination,
        /// Names beside those of the build.
        names: Vec<String>,
    },
    /// The files, into a directory.
    Local {
        /// The directory, made if it is not there; files in it are overwritten.
        destination: PathBuf,
        /// Whether each platform has a directory of its own; by default where there are several.
        platform_split: Option<bool>,
    },
    /// The files, as one tar.
    Tar {
        /// Where.
        destination: Destination,
        /// Whether each platform has a directory of its own; by default where there are several.
        platform_split: Option<bool>,
    },
    /// Nowhere: building was all.
    CacheOnly,
}

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, replaced as a whole when the export is done.
    File(PathBuf),
}

/// The files of a result, and how they run.
#[derive(Debug, Clone, Default)]
pub struct ResultToExport {
    /// What it is for, as a part of an index; none is an image by itself.
    pub platform: Option<Platform>,
    /// The files; none is an empty file system.
    pub handle: Option<Handle>,
    /// How it runs; none is an empty config for its platform, or for this host's.
    pub config: Option<ImageConfig>,
    /// What is said of it.
    pub predicates: Vec<Predicate>,
}

/// Results to export, with what is to be written about them.
#[derive(Debug, Clone)]
pub struct ImageToExport {
    /// One without a platform, or one for each platform, in the order of the index; never none.
    pub results: Vec<ResultToExport>,
    /// `SOURCE_DATE_EPOCH`: no time that is written is later than this.
    pub source_date_epoch: Option<i64>,
    /// With an epoch, all files of layers made here have that time.
    pub rewrite_timestamp: bool,
    /// The names of the build, for all images that are exported.
    pub tags: Vec<String>,
    /// How layers are compressed where they are.
    pub compression: Compression,
    /// Each image is scanned for the software in it, and what is found is said of it too.
    pub sbom: bool,
}

impl Default for ImageToExport {
    fn default() -> ImageToExport {
        ImageToExport {
            results: vec![ResultToExport::default()],
            source_date_epoch: None,
            rewrite_timestamp: true,
            tags: Vec::new(),
            compression: Compression::default(),
            sbom: false,
        }
    }
}

impl ImageToExport {
    /// Whether the results are written as the parts of an index.
    fn is_index(&self) -> bool {
        self.is_attested() || self.is_by_platform()
    }

    /// Whether each result is for a platform by name.
    fn is_by_platform(&self) -> bool {
        self.results.iter().any(|result| result.platform.is_some())
    }

    /// Whether anything is said of the results; what is said stands beside them in an index.
    fn is_attested(&self) -> bool {
        self.sbom
            || self
                .results
                .iter()
                .any(|result| !result.predicates.is_empty())
    }
}

/// What came of exporting.
///
/// Without an export that makes an image, nothing is known of one. With several, the manifest is
/// that of the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// The digest of the image's config, such as `sha256:…`; of its index, if it is for several
    /// platforms.
    pub image_id: Option<String>,
    /// Whether the image is an index.
    pub is_index: bool,
    /// The image's manifest or index.
    pub manifest: Option<ManifestDescriptor>,
    /// The full names that the image got, in order.
    pub names: Vec<String>,
    /// The store had this very image under the first name before, or at all if it has no name.
    pub same_as_before: bool,
    /// How long all of it took.
    pub took: Duration,
}

impl Exported {
    /// The digest of the image's manifest, such as `sha256:…`.
    pub fn manifest_digest(&self) -> Option<&str> {
        self.manifest
            .as_ref()
            .map(|manifest| manifest.digest.as_str())
    }
}

/// A manifest as an index would list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestDescriptor {
    /// OCI's or docker's.
    pub media_type: String,
    /// Such as `sha256:…`.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

impl Executor {
    /// Writes a result to all `exports`, in order; `progress` is told what is being written.
    ///
    /// Blocks. An export that fails leaves nothing half-written, and what was there before as it was.
    pub fn export(
        &self,
        worker: &BuildWorker,
        image: &ImageToExport,
        exports: &[Export],
        progress: &dyn Fn(String),
    ) -> Result<Exported, Error> {
        let started = Instant::now();
        let stop = worker.stop();
        let mut run = Run::new(self, worker, image, exports)?;
        for export in exports {
            run.export(export, progress).map_err(|error| match error {
                // Work that was given up ends in whatever error it was at.
                _ if stop.is_set() => Error::Cancelled,
                error => error,
            })?;
        }
        Ok(Exported {
            took: started.elapsed(),
            ..run.exported
        })
    }
}

/// One call of [`Executor::export`].
struct Run<'a> {
    store: &'a Store,
    worker: &'a BuildWorker,
    lease: &'a Lease,
    stop: &'a Stop,
    given: &'a ImageToExport,
    /// The layers of each result.
    layers: Vec<Vec<Content>>,
    /// Devices can be made in directories.
    devices: bool,
    /// Some export needs compressed layers.
    packs: bool,
    /// The image of each result, once one is needed.
    images: Vec<Image>,
    exported: Exported,
}

impl<'a> Run<'a> {
    /// Finds out all that can be refused before anything is written.
    fn new(
        executor: &'a Executor,
        worker: &'a BuildWorker,
        given: &'a ImageToExport,
        exports: &[Export],
    ) -> Result<Run<'a>, Error> {
        let lease = worker.lease();
        let mut packs = false;
        references(&given.tags)?;
        for export in exports {
            if let Export::OciDirectory { destination, .. } = export {
                directory::check(destination)?;
            }
            references(export.names())?;
            export.check_platforms(given.results.len())?;
            export.check_attested(given.is_attested())?;
            packs |= export.has_blobs();
        }
        let layers = given.results.iter().map(|result| match &result.handle {
            Some(handle) => handle.to_layers(executor, lease),
            None => Ok(Vec::new()),
        });
        let layers = layers.collect::<Result<_, Error>>()?;
        let options = executor.options();
        Ok(Run {
            store: executor.store(),
            worker,
            lease,
            stop: worker.stop(),
            given,
            layers,
            devices: rustix::process::geteuid().is_root()
                && !options.in_user_namespace
                && !options.single_id,
            packs,
            images: Vec::new(),
            exported: Exported {
                is_index: given.is_index(),
                ..Exported::default()
            },
        })
    }

    fn export(&mut self, export: &Export, progress: &dyn Fn(String)) -> Result<(), Error> {
        let names = self.names(export)?;
        let label = export.label(&names);
        if let Some(label) = &label {
            progress(format!("exporting to {label}"));
        }
        match export {
            Export::Image { .. } => {
                let (store, lease) = (self.store, self.lease);
                let kept = match (self.given.is_index(), self.images()?) {
                    (true, images) => index::keep(images, store, lease, &names)?,
                    (false, images) => images[0].keep(store, lease, &names)?,
                };
                self.exported.same_as_before = kept.same_as_before;
                self.made(kept.id.to_string(), &kept.manifest, &names);
            }
            Export::OciArchive { destination, .. } => {
                let mut output = Output::create(destination)?;
                let image = self.layout(&names)?;
                archive::write(
                    self.store,
                    &oci_layout(std::slice::from_ref(&image)),
                    self.archive_time(),
                    &mut output,
                    self.stop,
                )?;
                output.finish()?;
                self.made_layout(&image.root, &names);
            }
            Export::DockerArchive { destination, .. } => {
                let mut output = Output::create(destination)?;
                let image = self.images()?[0].docker(&names);
                archive::write(
                    self.store,
                    &docker_archive(std::slice::from_ref(&image)),
                    self.archive_time(),
                    &mut output,
                    self.stop,
                )?;
                output.finish()?;
                self.made_layout(&image.image.root, &names);
            }
            Export::OciDirectory { destination, .. } => {
                let image = self.layout(&names)?;
                directory::write(self.store, destination, &image, self.stop)?;
                self.made_layout(&image.root, &names);
            }
            Export::Local {
                destination,
                platform_split,
            } => {
                let rules = local::Rules {
                    mtime: self.given.source_date_epoch,
                    devices: self.devices,
                };
                let mut left_out = 0;
                let said: Vec<_> = match self.given.is_attested() {
                    true => self.images()?.iter().map(Image::files).collect(),
                    false => Vec::new(),
                };
                for (index, tree) in
                    files::trees(self.store, self.given, &self.layers, *platform_split)?
                        .into_iter()
                        .enumerate()
                {
                    let destination = match &tree.directory {
                        Some(directory) => destination.join(directory),
                        None => destination.clone(),
                    };
                    let files::Tree {
                        changes, layers, ..
                    } = &tree;
                    left_out += local::write(changes, layers, &destination, rules, self.stop)?;
                    for (name, text) in said.get(index).into_iter().flatten() {
                        local::write_beside(changes, &destination, name, text)?;
                    }
                }
                if left_out > 0 {
                    progress(format!(
                        "left out devices, which only root can make: {left_out}"
                    ));
                }
            }
            Export::Tar {
                destination,
                platform_split,
            } => {
                let trees = files::trees(self.store, self.given, &self.layers, *platform_split)?;
                let mut output = Output::create(destination)?;
                let mtime = self
                    .given
                    .source_date_epoch
                    .map_or(MtimePolicy::Keep, MtimePolicy::Fixed);
                files::write_tar(trees, mtime, &mut output, self.stop)?;
                output.finish()?;
            }
            Export::CacheOnly => {}
        }
        Ok(())
    }

    /// The image of each result, put together when they are first needed.
    fn images(&mut self) -> Result<&[Image], Error> {
        let mtime = match self.given.source_date_epoch {
            Some(epoch) if self.given.rewrite_timestamp => MtimePolicy::Fixed(epoch),
            _ => MtimePolicy::Keep,
        };
        for (result, layers) in self
            .given
            .results
            .iter()
            .zip(&self.layers)
            .skip(self.images.len())
        {
            let layers = match self.packs {
                true => Packer {
                    store: self.store,
                    lease: self.lease,
                    mtime,
                    compression: self.given.compression,
                    stop: self.stop,
                    bring: &|layer| self.worker.fetch_archive(layer),
                }
                .pack(layers)?,
                false => layers::describe(self.store, layers, mtime, self.stop)?,
            };
            let epoch = self.given.source_date_epoch;
            let contents: Vec<Content> = layers.iter().map(|layer| layer.content).collect();
            let mut image = Image::new(result, epoch, layers, mtime)?;
            image.predicates.clone_from(&result.predicates);
            if self.given.sbom {
                // A name would make another document of the same image.
                let name = image.id.to_string();
                let subject = image.subject(&name);
                let inventory = sboms::inventory(self.store, &contents, self.stop)?;
                image.predicates.push(Predicate {
                    kind: SPDX_PREDICATE.to_owned(),
                    json: document(&subject, &inventory).to_string(),
                    inline_only: false,
                });
            }
            self.images.push(image);
        }
        Ok(&self.images)
    }

    /// The image, or the index of all, as a layout has it.
    fn layout(&mut self, names: &[Reference]) -> Result<layout::Export, Error> {
        Ok(match (self.given.is_index(), self.images()?) {
            (true, images) => index::layout(images, names),
            (false, images) => images[0].layout(Flavor::Oci, names),
        })
    }

    fn made_layout(&mut self, root: &Descriptor, names: &[Reference]) {
        let id = match self.images.as_slice() {
            [image] if root.media_type != Flavor::Oci.index() => image.id.to_string(),
            _ => root.digest.to_string(),
        };
        self.made(id, root, names);
    }

    fn made(&mut self, id: String, manifest: &Descriptor, names: &[Reference]) {
        self.exported.image_id.get_or_insert(id);
        self.exported
            .manifest
            .get_or_insert_with(|| ManifestDescriptor {
                media_type: manifest.media_type.clone(),
                digest: manifest.digest.to_string(),
                size: manifest.size,
            });
        for name in names.iter().map(Reference::to_string) {
            if !self.exported.names.contains(&name) {
                self.exported.names.push(name);
            }
        }
    }

    /// The names of an export: the build's, then its own, each once.
    fn names(&self, export: &Export) -> Result<Vec<Reference>, Error> {
        if !export.makes_image() {
            return Ok(Vec::new());
        }
        let mut names = references(&self.given.tags)?;
        for name in references(export.names())? {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn archive_time(&self) -> i64 {
        self.given.source_date_epoch.unwrap_or(0)
    }
}

impl Executor {
    /// Keeps an imported root file system as an image of one layer; tells whether the store had it
    /// under that name before.
    pub(crate) fn keep_root(
        &self,
        lease: &Lease,
        layer: DiffId,
        name: &Reference,
        epoch: Option<i64>,
    ) -> Result<(ImageId, bool), Error> {
        // A clock would make another image of the same archive.
        let time = times::of_epoch(epoch.unwrap_or(0));
        let history = History {
            created: Some(time.to_string()),
            created_by: "import".to_owned(),
            comment: "kiln.import.v0".to_owned(),
            ..History::default()
        };
        let config = ImageConfig {
            created: Some(time.to_string()),
            history: vec![history],
            ..config::plain()
        };
        let given = ResultToExport {
            config: Some(config),
            ..ResultToExport::default()
        };
        let (stack, mtime) = ([Content::DiffId(layer)], MtimePolicy::Keep);
        let layers = layers::describe(self.store(), &stack, mtime, &Stop::NEVER)?;
        let image = Image::new(&given, epoch, layers, MtimePolicy::Keep)?;
        let kept = image.keep(self.store(), lease, std::slice::from_ref(name))?;
        Ok((image.id, kept.same_as_before))
    }
}

/// The time that an image document states; the epoch where it states none.
pub(crate) fn time_of(created: Option<&str>) -> std::time::SystemTime {
    let time = created.and_then(times::parse);
    time.map_or(std::time::SystemTime::UNIX_EPOCH, times::to_clock)
}

/// Reads a name that an image is to get.
pub(crate) fn reference(name: &str) -> Result<Reference, Error> {
    let reference = Reference::parse(name)?;
    match reference.digest() {
        Some(_) => Err(Error::NameWithDigest {
            name: name.to_owned(),
        }),
        None => Ok(reference),
    }
}

fn references(names: &[String]) -> Result<Vec<Reference>, Error> {
    names.iter().map(|name| reference(name)).collect()
}

impl Export {
    /// Checks what can be checked before there is anything to export: its names.
    pub fn check(&self) -> Result<(), Error> {
        references(self.names()).map(drop)
    }

    /// Checks that it can hold results for so many platforms.
    pub fn check_platforms(&self, count: usize) -> Result<(), Error> {
        match self {
            Export::DockerArchive { .. } if count > 1 => Err(Error::OnePlatform { count }),
            _ => Ok(()),
        }
    }

    /// Checks that it can hold what is said of results beside them.
    pub fn check_attested(&self, is_attested: bool) -> Result<(), Error> {
        match self {
            Export::DockerArchive { .. } if is_attested => Err(Error::NoAttestations {
                output: "a docker archive",
            }),
            Export::Tar { .. } if is_attested => Err(Error::NoAttestations { output: "a tar" }),
            Export::Local {
                platform_split: Some(false),
                ..
            } if is_attested => Err(Error::NoAttestations {
                output: "a directory of several platforms",
            }),
            _ => Ok(()),
        }
    }

    fn names(&self) -> &[String] {
        match self {
            Export::Image { names }
            | Export::OciArchive { names, .. }
            | Export::OciDirectory { names, .. }
            | Export::DockerArchive { names, .. } => names,
            Export::Local { .. } | Export::Tar { .. } | Export::CacheOnly => &[],
        }
    }

    fn makes_image(&self) -> bool {
        self.has_blobs() || matches!(self, Export::Image { .. })
    }

    fn has_blobs(&self) -> bool {
        matches!(
            self,
            Export::OciArchive { .. } | Export::OciDirectory { .. } | Export::DockerArchive { .. }
        )
    }

    /// What people are told of it; nothing of an export to nowhere.
    fn label(&self, names: &[Reference]) -> Option<String> {
        let named = match names.first() {
            Some(name) => format!(" {}", name.familiar()),
            None => String::new(),
        };
        Some(match self {
            Export::Image { .. } => format!("image{named}"),
            Export::OciArchive { destination, .. } => format!("oci archive {destination}"),
            Export::OciDirectory { destination, .. } => {
                format!("oci directory {}", destination.display())
            }
            Export::DockerArchive { destination, .. } => format!("docker archive {destination}"),
            Export::Local { destination, .. } => format!("directory {}", destination.display()),
            Export::Tar { destination, .. } => format!("tar {destination}"),
            Export::CacheOnly => return None,
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Stdout => f.write_str("standard output"),
            Destination::File(path) => path.display().fmt(f),
        }
    }
}
