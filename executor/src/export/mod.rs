//! Exporters: a result as an image in the store, an archive, a layout, a directory or a tar.

pub(crate) mod annotations;
pub(crate) mod archive;
mod bases;
mod config;
pub(crate) mod directory;
mod files;
mod image;
mod index;
mod kinds;
mod layers;
mod local;
mod options;
pub(crate) mod output;
mod parcel;
mod save;
mod scans;
mod sent;
pub(crate) mod times;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_ir::{History, ImageConfig, NodeId, Platform};
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::Descriptor;
use kiln_oci::layout::{self, docker_archive, oci_layout};
pub use kiln_oci::media_type::{Compression, Flavor};
use kiln_oci::reference::Reference;
use kiln_store::{Content, DiffId, ImageId, Lease, Store};
use kiln_tree::Stop;
use kiln_tree::tar::MtimePolicy;
pub use times::rfc3339;

pub use annotations::{Annotation, AnnotationPlace};
use bases::BuildBases;
pub(crate) use bases::{Bases, NoBases};
use image::Image;
pub(crate) use image::{blob_digest, describe};
pub use kinds::{Destination, Export};
pub(crate) use layers::{
    Hashing, LayerArchive, Packer, SPELLED, as_pulled, describe as describe_layers,
};
use layers::{Layer, filed_tar};
pub use options::ImageOptions;
pub(crate) use output::Output;
pub use output::{behind_links, check_writable, write_whole};
use parcel::Packing;
pub(crate) use parcel::Parcel;
pub use save::{SaveFormat, SaveRequest};
pub use scans::ScanToExport;
pub use sent::Sent;

use crate::attestation::Predicate;
use crate::cache::{CacheContent, INLINE_KEY, inline_cache};
use crate::compress::LayerCompression;
use crate::engines::{Engine, Knows, Loader};
use crate::error::{Error, words};
use crate::executor::Executor;
use crate::push::Believes;
use crate::sbom::Inventory;
use crate::worker::{BuildWorker, Handle};

/// The files of a result, and how they run.
#[derive(Debug, Clone, Default)]
pub struct ResultToExport {
    /// What it is for, as a part of an index; none is an image by itself.
    pub platform: Option<Platform>,
    /// The files; none is an empty file system.
    pub handle: Option<Handle>,
    /// The node that it lies on, such as its base image.
    pub base: Option<NodeId>,
    /// How it runs; none is an empty config for its platform, or for this host's.
    pub config: Option<ImageConfig>,
    /// What is said of it.
    pub predicates: Vec<Predicate>,
    /// What is scanned for software beside it, where an SBOM is made.
    pub scans: Vec<ScanToExport>,
    /// What it consists of, for a cache in its config.
    pub inline_cache: Option<CacheContent>,
}

/// Results to export, with what is to be written about them.
#[derive(Debug, Clone)]
pub struct ImageToExport {
    /// One without a platform, or one for each platform, in the order of the index; never none.
    pub results: Vec<ResultToExport>,
    /// `SOURCE_DATE_EPOCH`: no time that is written is later than this.
    pub source_date_epoch: Option<i64>,
    /// The names of the build, for all images that are exported.
    pub tags: Vec<String>,
    /// Each image is scanned for the software in it, and what is found is said of it too.
    pub sbom: bool,
}

impl Default for ImageToExport {
    fn default() -> ImageToExport {
        ImageToExport {
            results: vec![ResultToExport::default()],
            source_date_epoch: None,
            tags: Vec::new(),
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
/// that of the first that others can read, or else of the first.
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
    /// What is said of it; `config.digest` where it is of one image, as BuildKit has it.
    pub annotations: BTreeMap<String, String>,
    /// What it is for, where it is of one image.
    pub platform: Option<Platform>,
}

/// How often somebody looks whether a transfer is to stop.
pub(crate) const GLANCE: Duration = Duration::from_millis(50);
/// Returns once work is to stop.
pub(crate) async fn stopped(stop: &Stop) {
    while !stop.is_set() {
        tokio::time::sleep(GLANCE).await;
    }
}

/// What comes of `work`, unless it is to stop before.
pub(crate) async fn unless_stopped<T>(
    stop: &Stop,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::select! {
        done = work => Ok(done),
        () = stopped(stop) => Err(Error::Cancelled),
    }
}

/// What [`ManifestDescriptor::annotations`] call the digest of the config.
const CONFIG_DIGEST: &str = "config.digest";

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
    executor: &'a Executor,
    store: &'a Store,
    worker: &'a BuildWorker,
    lease: &'a Lease,
    stop: &'a Stop,
    given: &'a ImageToExport,
    /// The layers of each result.
    layers: Vec<Vec<Content>>,
    /// Devices can be made in directories.
    devices: bool,
    /// What exports need blobs of layers with, each once.
    packs: Vec<(MtimePolicy, LayerCompression)>,
    /// No blob is needed here: images go to registries alone.
    only_sends: bool,
    /// What software is in what is scanned beside each result, once it was looked for.
    scanned: Option<Vec<Vec<Inventory>>>,
    /// The images that were put together, by what makes them differ.
    images: Vec<(MtimePolicy, Option<LayerCompression>, Rc<[Image]>)>,
    /// The manifest told of lists layers that nobody else has.
    is_own_manifest: bool,
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
        let mut packs = Vec::new();
        references(&given.tags)?;
        for export in exports {
            if let Export::OciDirectory { destination, .. } = export {
                directory::check(destination)?;
            }
            export.check()?;
            export.check_results(&given.results)?;
            export.check_names(&given.tags)?;
            export.check_attested(given.is_attested())?;
            let Some(options) = export.options() else {
                continue;
            };
            if export.has_blobs() {
                packs.push((options.mtime(given.source_date_epoch), options.packing()));
            }
        }
        let layers = given.results.iter().map(|result| match &result.handle {
            Some(handle) => handle.to_layers(executor, lease),
            None => Ok(Vec::new()),
        });
        let layers = layers.collect::<Result<_, Error>>()?;
        let options = executor.options();
        Ok(Run {
            executor,
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
            only_sends: exports.iter().all(Export::only_sends),
            scanned: None,
            images: Vec::new(),
            is_own_manifest: false,
            exported: Exported {
                is_index: given.is_index(),
                ..Exported::default()
            },
        })
    }

    fn export(&mut self, export: &Export, progress: &dyn Fn(String)) -> Result<(), Error> {
        let names = self.names(export)?;
        let rewrites = export
            .options()
            .and_then(|options| options.rewrite_timestamp);
        if (rewrites, self.given.source_date_epoch) == (Some(true), None) {
            progress("rewrite-timestamp does nothing without SOURCE_DATE_EPOCH".to_owned());
        }
        let label = export.label(&names);
        if let Some(label) = &label {
            progress(format!("exporting to {label}"));
        }
        match export {
            Export::Image { options } => {
                let packed = options.is_packed();
                let images = self.images(options, packed)?;
                let kept = self.keep(&images, options, &names)?;
                self.exported.same_as_before = kept.same_as_before;
                self.made(kept.id.to_string(), &kept.manifest, &kept.names, !packed);
            }
            Export::Registry {
                options,
                by_digest,
                keep,
            } => self.send(options, &names, *by_digest, *keep)?,
            Export::OciArchive {
                destination,
                options,
            } => {
                let mut output = Output::create(destination)?;
                let image = self.layout(options, &names)?;
                archive::write(
                    self.store,
                    &oci_layout(std::slice::from_ref(&image)),
                    self.archive_time(),
                    &mut output,
                    self.stop,
                )?;
                output.finish()?;
                self.made_layout(&image, options, &names)?;
            }
            Export::DockerArchive {
                destination,
                options,
            } => {
                let mut output = Output::create(destination)?;
                let options = &options.for_docker();
                let image = self.images(options, true)?[0].docker(options, &names);
                archive::write(
                    self.store,
                    &docker_archive(std::slice::from_ref(&image)),
                    self.archive_time(),
                    &mut output,
                    self.stop,
                )?;
                output.finish()?;
                self.made_layout(&image.image, options, &names)?;
            }
            Export::OciDirectory {
                destination,
                options,
            } => {
                let image = self.layout(options, &names)?;
                directory::write(self.store, destination, &image, self.stop)?;
                self.made_layout(&image, options, &names)?;
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
                    true => {
                        let images = self.images(&ImageOptions::default(), false)?;
                        images.iter().map(Image::files).collect()
                    }
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
            Export::Engine { engine, options } => self.load(*engine, options, &names, progress)?,
            Export::CacheOnly => {}
        }
        Ok(())
    }

    /// Sends the image to another engine of this host.
    fn load(
        &mut self,
        engine: Option<Engine>,
        options: &ImageOptions,
        names: &[Reference],
        progress: &dyn Fn(String),
    ) -> Result<(), Error> {
        let runtime = tokio::runtime::Handle::current();
        let loader = runtime.block_on(unless_stopped(self.stop, Loader::choose(engine)))??;
        progress(format!("loading into {}", loader.engine()));
        let images = self.images(options, false)?;
        let worker = self.worker;
        let packing = Packing {
            store: self.store,
            lease: self.lease,
            stop: self.stop,
            image: &images[0],
            stack: &self.layers[0],
            names,
            mtime: self.archive_time(),
            bring: &|layer| worker.fetch_archive(layer),
        };
        let diff_ids = packing.diff_ids();
        let familiar: Vec<String> = names.iter().map(Reference::familiar).collect();
        let knows = loader.knows(&diff_ids, &familiar);
        let knows = runtime.block_on(unless_stopped(self.stop, knows))?;
        let parcel = packing.pack(&knows)?;
        match loader.send(&parcel, &runtime, self.stop, progress) {
            Err(error) if parcel.is_partial() && !self.stop.is_set() => {
                // It may have lost meanwhile what it had, or keep it in another way than it says.
                progress(format!("sending all layers: {}", words(&error)));
                let parcel = packing.pack(&Knows::Nothing)?;
                loader.send(&parcel, &runtime, self.stop, progress)?;
            }
            sent => sent?,
        }
        let root = parcel.root();
        self.made(parcel.id(), &root, names, true);
        Ok(())
    }

    /// The image of each result, put together when they are first needed; with blobs if they are to be `packed`,
    /// or if another export has them packed.
    fn images(&mut self, options: &ImageOptions, packed: bool) -> Result<Rc<[Image]>, Error> {
        let mtime = options.mtime(self.given.source_date_epoch);
        let packing = match packed {
            true => Some(options.packing()),
            false => {
                let same = self.packs.iter().find(|(other, _)| *other == mtime);
                same.map(|(_, packing)| *packing)
            }
        };
        let known = self
            .images
            .iter()
            .find(|(other_mtime, other, _)| (*other_mtime, *other) == (mtime, packing));
        if let Some((_, _, images)) = known {
            return Ok(Rc::clone(images));
        }
        self.scan()?;
        let mut images = Vec::with_capacity(self.given.results.len());
        for (index, (result, layers)) in self.given.results.iter().zip(&self.layers).enumerate() {
            let bases = BuildBases {
                worker: self.worker,
                image: result.base,
                leaves: self.only_sends,
            };
            let layers = match packing {
                Some(packing) => Packer {
                    store: self.store,
                    lease: self.lease,
                    mtime,
                    packing,
                    stop: self.stop,
                    bases: &bases,
                }
                .pack(layers)?,
                None => self.described(result.base, layers, mtime)?,
            };
            let epoch = self.given.source_date_epoch;
            let mut result = result.clone();
            if let Some(config) = &mut result.config {
                // That of a base is not that of what was built on it.
                config.extra.remove(INLINE_KEY);
            }
            if let Some(content) = &mut result.inline_cache {
                if options.rewrite_timestamp == Some(false) {
                    content.epoch = None;
                }
                let left = |layer: &Content| match packing {
                    Some(packing) => bases.left(layer, &filed_tar(mtime), &packing.filed_as()),
                    None => Ok(None),
                };
                let (store, elsewhere) = (self.store, self.worker.elsewhere().map(Arc::as_ref));
                let cache = inline_cache(store, self.lease, content, elsewhere, &left, self.stop)?;
                let config = result.config.get_or_insert_with(|| match &result.platform {
                    Some(platform) => config::plain_for(platform),
                    None => config::plain(),
                });
                config.extra.insert(INLINE_KEY.to_owned(), cache);
            }
            let contents: Vec<Content> = layers.iter().map(|layer| layer.content).collect();
            let mut image = Image::new(&result, epoch, layers, mtime)?;
            image.predicates.clone_from(&result.predicates);
            if result.inline_cache.is_some() {
                image.packed_as = packing.map(|packing| packing.filed_as().into_owned());
            }
            if self.given.sbom {
                let sboms = self.sboms(index, &image, &contents)?;
                image.predicates.extend(sboms);
            }
            images.push(image);
        }
        let images: Rc<[Image]> = images.into();
        self.images.push((mtime, packing, Rc::clone(&images)));
        Ok(images)
    }

    /// The layers of an image that nothing is packed for.
    fn described(
        &self,
        base: Option<NodeId>,
        layers: &[Content],
        mtime: MtimePolicy,
    ) -> Result<Vec<Layer>, Error> {
        let mut described = layers::describe(self.store, layers, mtime, self.stop)?;
        for (index, layer) in described.iter_mut().enumerate() {
            layer.named = self.worker.named_blob(base, &layers[..=index]);
            if let Some(named) = &layer.named
                && self.store.blob_size(&blob_digest(&named.digest))?.is_none()
            {
                // So that whoever sends the image one day finds it.
                self.worker.note_place(named)?;
            }
        }
        Ok(described)
    }

    /// Keeps an image in the store under these names, and those that its options add.
    fn keep(
        &self,
        images: &[Image],
        options: &ImageOptions,
        names: &[Reference],
    ) -> Result<Kept, Error> {
        let (store, lease) = (self.store, self.lease);
        let kept = match self.given.is_index() {
            true => index::keep(images, store, lease, options)?,
            false => images[0].keep(store, lease, options)?,
        };
        let digest = kept.manifest.digest.to_string();
        let names = options.all_names(names, &digest)?;
        let same_as_before = image::name(store, lease, &kept, &names)?;
        Ok(Kept {
            id: kept.id,
            manifest: kept.manifest,
            names,
            same_as_before,
        })
    }

    /// The image, or the index of all, as a layout has it.
    fn layout(
        &mut self,
        options: &ImageOptions,
        names: &[Reference],
    ) -> Result<layout::Export, Error> {
        let images = self.images(options, true)?;
        let mut layout = match self.given.is_index() {
            true => index::layout(&images, options),
            false => images[0].layout(options),
        };
        let digest = layout.root.digest.to_string();
        layout.names = options.all_names(names, &digest)?;
        Ok(layout)
    }

    /// Sends an image to the registries of its names. One that could not be sent is kept, so that it can be sent
    /// again without being built again.
    fn send(
        &mut self,
        options: &ImageOptions,
        names: &[Reference],
        by_digest: bool,
        keep: bool,
    ) -> Result<(), Error> {
        let image = self.layout(options, names)?;
        let mut id = self.id(&image, options)?;
        if keep {
            let images = self.images(options, options.is_packed())?;
            let kept = self.keep(&images, options, names)?;
            self.exported.same_as_before = kept.same_as_before;
            id = kept.id;
        }
        let targets: Vec<Reference> = names
            .iter()
            .map(|name| match by_digest {
                true => name.at(image.root.digest),
                false => name.clone(),
            })
            .collect();
        let mut sent = Vec::new();
        let transfers = self.worker.transfers();
        let sending =
            self.executor
                .send(&image, &targets, Believes::Manifests, transfers, &mut sent);
        let sending = unless_stopped(self.stop, sending);
        let done = tokio::runtime::Handle::current().block_on(sending)?;
        // It may be here from another output, or from an earlier build.
        self.executor.keep_digests(&id, &image, &sent)?;
        match done {
            Ok(()) => {}
            Err(source) => {
                let is_kept = keep || self.keep_instead(options, names).is_ok();
                let sent: Vec<&str> = sent.iter().map(|sent| sent.name.as_str()).collect();
                let failed = names.iter().zip(&targets);
                let failed = failed.filter(|(_, target)| !sent.contains(&&*target.familiar()));
                let names = failed.map(|(name, _)| name.familiar());
                return Err(Error::NotSent {
                    names: names.collect(),
                    is_kept,
                    source: Box::new(source),
                });
            }
        }
        self.made_layout(&image, options, &targets)
    }

    /// Keeps what was to be only sent.
    fn keep_instead(&mut self, options: &ImageOptions, names: &[Reference]) -> Result<(), Error> {
        for layers in &self.layers {
            self.worker.fetch_afar(layers)?;
        }
        // Put together anew, from what is here now.
        self.images.clear();
        let images = self.images(options, options.is_packed())?;
        self.keep(&images, options, names).map(drop)
    }

    fn made_layout(
        &mut self,
        made: &layout::Export,
        options: &ImageOptions,
        names: &[Reference],
    ) -> Result<(), Error> {
        let id = self.id(made, options)?;
        let names = options.all_names(names, &made.root.digest.to_string())?;
        self.made(id.to_string(), &made.root, &names, false);
        Ok(())
    }

    fn id(&mut self, made: &layout::Export, options: &ImageOptions) -> Result<ImageId, Error> {
        Ok(match self.given.is_index() {
            true => ImageId(*made.root.digest.as_bytes()),
            false => self.images(options, true)?[0].id,
        })
    }

    /// Notes what an export made; `is_own` says that nobody else has the blobs of its manifest.
    fn made(&mut self, id: String, manifest: &Descriptor, names: &[Reference], is_own: bool) {
        let mut annotations = manifest.annotations.clone();
        if !self.given.is_index() {
            annotations.insert(CONFIG_DIGEST.to_owned(), id.clone());
        }
        if self.exported.manifest.is_none() || (self.is_own_manifest && !is_own) {
            self.is_own_manifest = is_own;
            self.exported.image_id = Some(id);
            self.exported.manifest = Some(ManifestDescriptor {
                media_type: manifest.media_type.clone(),
                digest: manifest.digest.to_string(),
                size: manifest.size,
                annotations,
                platform: match self.given.is_index() {
                    true => None,
                    false => annotations::platform_of_result(&self.given.results[0]),
                },
            });
        }
        for name in names.iter().map(Reference::to_string) {
            if !self.exported.names.contains(&name) {
                self.exported.names.push(name);
            }
        }
    }

    /// The names of an export: the build's, then its own, each once.
    fn names(&self, export: &Export) -> Result<Vec<Reference>, Error> {
        if export.options().is_none() {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        let own = references(export.names())?;
        for name in references(&self.given.tags)?.into_iter().chain(own) {
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
        let mut layers = layers::describe(self.store(), &stack, mtime, &Stop::NEVER)?;
        for layer in &mut layers {
            // Whatever the store has it as: an archive that was handed in is nobody's blob.
            let digest = Sha256Digest::from_bytes(layer.diff_id.0);
            let size = LayerArchive::of(self.store(), &stack, mtime)?.length()?;
            let kind = Flavor::default().layer(Compression::None);
            layer.named = Some(Descriptor::new(kind, digest, size));
        }
        let image = Image::new(&given, epoch, layers, MtimePolicy::Keep)?;
        let kept = image.keep(self.store(), lease, &ImageOptions::default())?;
        let names = std::slice::from_ref(name);
        let same = image::name(self.store(), lease, &kept, names)?;
        Ok((image.id, same))
    }
}

/// The time that an image document states; the epoch where it states none.
pub(crate) fn time_of(created: Option<&str>) -> std::time::SystemTime {
    let time = created.and_then(times::parse);
    time.map_or(std::time::SystemTime::UNIX_EPOCH, times::to_clock)
}

/// An image that the store keeps, with its names.
struct Kept {
    id: ImageId,
    manifest: Descriptor,
    names: Vec<Reference>,
    same_as_before: bool,
}

/// Reads a name that an image is to get.
pub(crate) fn reference(name: &str) -> Result<Reference, Error> {
    let reference = Reference::parse(name)?;
    if reference.digest().is_some() {
        return Err(Error::NameWithDigest {
            name: name.to_owned(),
        });
    }
    // Neither could be asked for: one is no image, the other the beginning of an id.
    match reference.familiar_name().as_str() {
        "scratch" | "sha256" => Err(Error::ReservedName {
            name: name.to_owned(),
        }),
        _ => Ok(reference),
    }
}

fn references(names: &[String]) -> Result<Vec<Reference>, Error> {
    names.iter().map(|name| reference(name)).collect()
}
