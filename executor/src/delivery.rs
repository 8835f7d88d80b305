//! Contexts that were brought here: a layer of the store, read as a directory.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use kiln_store::{Content, Lease, Store};
use kiln_tree::tar::{ApplyError, ApplyOptions, apply};
use kiln_tree::{Kind, Manifest};

use crate::archive;
use crate::error::Error;
use crate::executor::Executor;
use crate::file::source::{Item, Layers, Source};
use crate::file::{ChangeError, FileError, open_layers};
use crate::peek::Peek;
use crate::worker::{BuildWorker, Handle};

/// A context that lies in the store, for as long as this is kept.
pub struct Delivered {
    directory: PathBuf,
    layers: Layers,
    store: Store,
    layer: Content,
    lease: Lease,
}

/// What a stream turned out to be.
pub enum StreamContent {
    /// An archive, unpacked.
    Archive(Delivered),
    /// Something else, from its first byte on.
    Other(Box<dyn Read + Send>),
}

impl Delivered {
    fn new(store: &Store, lease: Lease, layer: Content) -> Result<Delivered, Error> {
        Ok(Delivered {
            directory: store.layer_directory(&layer),
            layers: open_layers(store, &[layer])?,
            store: store.clone(),
            layer,
            lease,
        })
    }

    /// The directory; nobody may write there.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads a file of at most `limit` bytes, as a container with this root would find it; none if
    /// there is no such file.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some((item, opened)) = self.open(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let shown = || Path::new(path).to_owned();
        std::fs::File::from(opened)
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io("read", shown())(error))?;
        drop(item);
        if bytes.len() as u64 > limit {
            let source = io::Error::other(format!("it has more than {limit} bytes"));
            return Err(Error::io("read", shown())(source));
        }
        Ok(Some(bytes))
    }

    /// Looks into it.
    pub fn peek(&self) -> Result<Peek, Error> {
        Peek::layers(open_layers(&self.store, &[self.layer])?, &self.lease)
    }

    /// Whether a file is an archive that can be unpacked.
    pub fn is_archive(&self, path: &str) -> Result<bool, Error> {
        Ok(match self.open(path)? {
            Some((_, opened)) => archive::tar_reader(opened.into()).is_some(),
            None => false,
        })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.layers.list(&kiln_tree::TreePath::ROOT).is_empty()
    }

    /// The latest time of a file, in seconds since 1970.
    pub fn newest(&self) -> Option<i64> {
        let items = self.layers.within(&kiln_tree::TreePath::ROOT);
        let times = items.iter().filter(|item| !item.kind.is_passing());
        times.map(|item| item.meta.mtime.seconds).max()
    }

    fn open(&self, path: &str) -> Result<Option<(Item, std::os::fd::OwnedFd)>, Error> {
        let at = match self.layers.resolve(path.as_bytes(), true) {
            Err(ChangeError::NotADirectory { .. }) => return Ok(None),
            at => at.map_err(FileError::from)?,
        };
        let item = self.layers.get(&at);
        match item.filter(|item| matches!(item.kind, Kind::File { .. })) {
            Some(item) => {
                let opened = self.layers.open(&item)?;
                Ok(Some((item, opened)))
            }
            None => Ok(None),
        }
    }
}

impl Executor {
    /// Makes a result that is one layer, as git sources and unpacked archives are, a context.
    pub fn delivered(&self, worker: &BuildWorker, handle: &Handle) -> Result<Delivered, Error> {
        let layers = handle.to_layers(self, worker.lease())?;
        match layers[..] {
            [layer] => Delivered::new(self.store(), worker.lease().clone(), layer),
            _ => unreachable!("BUG: a context is {} layers", layers.len()),
        }
    }

    /// Unpacks a stream if it is an archive, perhaps compressed; it is treated as hostile.
    pub fn deliver_stream(
        &self,
        stream: impl Read + Send + 'static,
        shown_name: &str,
    ) -> Result<StreamContent, Error> {
        let refused = |source| Error::ContextArchive {
            name: shown_name.to_owned(),
            source,
        };
        let unreadable = |source| {
            refused(ApplyError::Archive {
                after: String::new(),
                source,
            })
        };
        let mut reader = archive::decompress(stream).map_err(unreadable)?;
        let head = archive::first_block(&mut reader).map_err(unreadable)?;
        let is_archive = archive::is_tar(&head);
        let whole = Cursor::new(head).chain(reader);
        if !is_archive {
            return Ok(StreamContent::Other(Box::new(whole)));
        }
        let store = self.store();
        let draft = store.begin_layer()?;
        let options = store.options();
        let limits = ApplyOptions {
            unpacks: true,
            ..ApplyOptions::new(options.ownership.clone(), options.overlay_xattrs)
        };
        let applied = apply(whole, draft.fs(), &limits).map_err(refused)?;
        let (lease, layer) = (store.lease(), Content::Layer(applied.manifest.id()));
        store.commit_layer(&lease, draft, &applied.manifest, layer)?;
        Ok(StreamContent::Archive(Delivered::new(store, lease, layer)?))
    }

    /// A context with nothing in it.
    pub fn deliver_nothing(&self) -> Result<Delivered, Error> {
        let store = self.store();
        let nothing = Manifest::new(Vec::new())
            .map_err(ChangeError::from)
            .map_err(FileError::from)?;
        let (lease, layer) = (store.lease(), Content::Layer(nothing.id()));
        store.commit_layer(&lease, store.begin_layer()?, &nothing, layer)?;
        Delivered::new(store, lease, layer)
    }
}
