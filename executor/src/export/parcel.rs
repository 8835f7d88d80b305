//! An image on its way into another engine of this host: only what that lacks is written.
//!
//! Layers made here go as plain archives, written while they are sent, since an engine unpacks them anyway.
//! One that was pulled goes as it came.

use std::io::{self, Write};

use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::Descriptor;
use kiln_oci::layout::{self, Document, LayoutFile};
use kiln_oci::media_type::{Compression, Flavor};
use kiln_oci::reference::Reference;
use kiln_store::{BlobDigest, Content, DiffId, Lease, Store};
use kiln_tree::Stop;
use kiln_tree::stop::Stoppable;
use kiln_tree::tar::MtimePolicy;
use tar::{EntryType, Header};

use super::image::{Image, describe};
use super::layers::{LayerArchive, as_pulled, hash};
use crate::engines::{Form, Has, Knows};
use crate::error::Error;

/// An image to be sent, and what of it the other side has.
pub(crate) struct Parcel<'a> {
    store: &'a Store,
    image: &'a Image,
    names: &'a [Reference],
    /// Of every file.
    mtime: i64,
    layers: Vec<Packed>,
}

struct Packed {
    blob: Descriptor,
    /// Where its bytes are; none if the other side has it.
    source: Option<Source>,
}

enum Source {
    Blob(BlobDigest),
    Archive(Box<LayerArchive>),
}

/// What a parcel is made of.
pub(super) struct Packing<'a> {
    pub(super) store: &'a Store,
    pub(super) lease: &'a Lease,
    pub(super) stop: &'a Stop,
    pub(super) image: &'a Image,
    /// The layers of the image.
    pub(super) stack: &'a [Content],
    pub(super) names: &'a [Reference],
    pub(super) mtime: i64,
    /// Brings the archive that a layer was pulled as here once more; `false` where nobody has it.
    pub(super) bring: &'a dyn Fn(DiffId) -> Result<bool, Error>,
}

impl<'a> Packing<'a> {
    /// The diff ids of the layers, lowest first.
    pub(super) fn diff_ids(&self) -> Vec<Sha256Digest> {
        let layers = self.image.layers().iter();
        layers
            .map(|layer| Sha256Digest::from_bytes(layer.diff_id.0))
            .collect()
    }

    /// Packs the image for somebody who knows so much of it.
    pub(super) fn pack(&self, knows: &Knows) -> Result<Parcel<'a>, Error> {
        let layers = (0..self.stack.len()).map(|index| self.layer(index, knows));
        Ok(Parcel {
            store: self.store,
            image: self.image,
            names: self.names,
            mtime: self.mtime,
            layers: layers.collect::<Result<_, Error>>()?,
        })
    }

    fn layer(&self, index: usize, knows: &Knows) -> Result<Packed, Error> {
        let layer = &self.image.layers()[index];
        let stack = &self.stack[..=index];
        let diff_id = Sha256Digest::from_bytes(layer.diff_id.0);
        let plain = |size| {
            let kind = Flavor::Oci.layer(Compression::None);
            Descriptor::new(kind, diff_id, size)
        };
        let pulled = as_pulled(self.store, self.lease, &layer.content)?.map(|(_, blob)| blob);
        let pulled_as = pulled.map(|blob| Sha256Digest::from_bytes(blob.digest.0));
        // A layer of an image keeps its times: they are in its diff id.
        let mtime = match layer.content {
            Content::DiffId(_) => MtimePolicy::Keep,
            Content::Layer(_) => self.image.mtime(),
        };
        let archive = || LayerArchive::of(self.store, stack, mtime);
        match (knows.has(index, &diff_id, pulled_as.as_ref()), pulled) {
            (Has::Plain(size), _) => {
                let size = match size {
                    Some(size) => size,
                    None => archive()?.length()?,
                };
                return Ok(Packed {
                    blob: plain(size),
                    source: None,
                });
            }
            (Has::AsPulled, Some(blob)) => {
                return Ok(Packed {
                    blob: describe(Flavor::Oci, blob),
                    source: None,
                });
            }
            (_, Some(blob)) => {
                return Ok(Packed {
                    blob: describe(Flavor::Oci, blob),
                    source: Some(Source::Blob(blob.digest)),
                });
            }
            (Has::AsPulled | Has::Nothing, None) => {}
        }
        let is_ours = match layer.content {
            Content::Layer(_) => true,
            // Packed by somebody else, it may be another archive from here.
            Content::DiffId(id) => hash(self.store, stack, mtime, self.stop)? == id,
        };
        if is_ours {
            let archive = archive()?;
            return Ok(Packed {
                blob: plain(archive.length()?),
                source: Some(Source::Archive(Box::new(archive))),
            });
        }
        let foreign = || Error::ForeignLayer {
            layer: layer.content,
        };
        if !(self.bring)(layer.diff_id)? {
            return Err(foreign());
        }
        let (_, blob) = as_pulled(self.store, self.lease, &layer.content)?.ok_or_else(foreign)?;
        Ok(Packed {
            blob: describe(Flavor::Oci, blob),
            source: Some(Source::Blob(blob.digest)),
        })
    }
}

impl Parcel<'_> {
    /// The image's id.
    pub(crate) fn id(&self) -> String {
        self.image.id.to_string()
    }

    /// The names that the image is to get.
    pub(crate) fn names(&self) -> &[Reference] {
        self.names
    }

    /// The image's manifest, as it is sent.
    pub(crate) fn root(&self) -> Descriptor {
        self.export().root
    }

    /// Whether something is left out.
    pub(crate) fn is_partial(&self) -> bool {
        self.layers.iter().any(|layer| layer.source.is_none())
    }

    /// How many layers go, and how many there are.
    pub(crate) fn count(&self) -> (usize, usize) {
        let sent = self.layers.iter().filter(|layer| layer.source.is_some());
        (sent.count(), self.layers.len())
    }

    /// Writes it as an archive; `told` is given each layer that is begun, and its bytes.
    ///
    /// Errors once `stop` says so.
    pub(crate) fn write(
        &self,
        form: Form,
        out: &mut impl Write,
        stop: &Stop,
        told: &dyn Fn(&Sha256Digest, u64),
    ) -> Result<(), Error> {
        let out = &mut Stoppable::new(out, stop);
        let gone = |error: io::Error| Error::io("send", "an image")(error);
        for file in self.files(form) {
            match &file.content {
                layout::Content::Bytes(bytes) => {
                    out.write_all(&self.header(&file.path, bytes.len() as u64))
                        .and_then(|()| out.write_all(bytes))
                        .and_then(|()| pad(out, bytes.len() as u64))
                        .map_err(gone)?;
                }
                layout::Content::Blob { digest, size } => {
                    let layer = self
                        .layers
                        .iter()
                        .find(|layer| layer.blob.digest == *digest);
                    let Some(source) = layer.and_then(|layer| layer.source.as_ref()) else {
                        continue;
                    };
                    told(digest, *size);
                    out.write_all(&self.header(&file.path, *size))
                        .map_err(gone)?;
                    let mut counted = Counted { out, count: 0 };
                    match source {
                        Source::Blob(blob) => {
                            let mut blob = self.store.open_blob(blob)?;
                            io::copy(&mut blob, &mut counted).map_err(gone)?;
                        }
                        Source::Archive(archive) => archive.write(self.store, &mut counted)?,
                    }
                    if counted.count != *size {
                        let words = format!("layer {digest} has become another one");
                        return Err(gone(io::Error::other(words)));
                    }
                    pad(out, *size).map_err(gone)?;
                }
            }
        }
        out.write_all(&[0; 2 * BLOCK])
            .and_then(|()| out.flush())
            .map_err(gone)
    }

    fn files(&self, form: Form) -> Vec<LayoutFile> {
        let mut export = self.export();
        match form {
            Form::Oci => layout::oci_layout(&[export]),
            Form::OciOnce => {
                export.names.truncate(1);
                layout::oci_layout(&[export])
            }
            Form::Docker => layout::docker_archive(&[layout::DockerExport {
                config: Sha256Digest::of(self.image.config()),
                layers: export.blobs.iter().map(|blob| blob.digest).collect(),
                image: export,
            }]),
        }
    }

    fn export(&self) -> layout::Export {
        let config = Descriptor::of(Flavor::Oci.config(), self.image.config());
        let blobs: Vec<Descriptor> = self.layers.iter().map(|layer| layer.blob.clone()).collect();
        let manifest =
            kiln_oci::document::Manifest::new(Flavor::Oci, config.clone(), blobs.clone())
                .to_bytes();
        let mut root = Descriptor::of(Flavor::Oci.manifest(), &manifest);
        let documents = vec![
            Document {
                descriptor: root.clone(),
                bytes: manifest.into(),
            },
            Document {
                descriptor: config,
                bytes: self.image.config().to_vec().into(),
            },
        ];
        root.platform = Some(self.image.platform().clone());
        layout::Export {
            root,
            names: self.names.to_vec(),
            documents,
            blobs,
        }
    }

    fn header(&self, path: &str, size: u64) -> [u8; BLOCK] {
        let mut header = Header::new_ustar();
        let fits = header.set_path(path);
        debug_assert!(fits.is_ok(), "BUG: a layout has the long path {path}");
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        header.set_mtime(u64::try_from(self.mtime).unwrap_or(0));
        header.set_cksum();
        *header.as_bytes()
    }
}

const BLOCK: usize = 512;

fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    let block = BLOCK as u64;
    out.write_all(&[0; BLOCK][..(size.next_multiple_of(block) - size) as usize])
}

struct Counted<'w, W> {
    out: &'w mut W,
    count: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
