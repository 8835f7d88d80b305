//! A root file system from a tar, as an image of one layer.

use std::io::Read;

use kiln_oci::reference::Reference;
use kiln_store::Content;
use kiln_tree::tar::{ApplyError, ApplyOptions, DirectoryFiles, WriteOptions, apply, write_layer};

use crate::archive;
use crate::error::Error;
use crate::executor::Executor;
use crate::export::Hashing;

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedImage {
    /// The digest of its config, such as `sha256:…`.
    pub id: String,
    /// The diff ids of its layers, lowest first.
    pub layers: Vec<String>,
    /// Its name in the short form.
    pub name: String,
    /// What its files hold.
    pub size_bytes: u64,
    /// The store had this very image under this name before.
    pub same_as_before: bool,
}

impl Executor {
    /// Keeps the root file system that `archive` is as an image of one layer, named `reference`.
    ///
    /// The archive may be compressed by gzip, zstd, bzip2 or xz, and is treated as hostile;
    /// `shown_name` is its name in errors. The same archive and epoch give the same image.
    pub fn import(
        &self,
        archive: impl Read + Send + 'static,
        shown_name: &str,
        reference: &str,
        epoch: Option<i64>,
    ) -> Result<ImportedImage, Error> {
        let refused = |source| Error::Import {
            name: shown_name.to_owned(),
            source,
        };
        let name = Reference::parse(reference)?;
        let store = self.store();
        let lease = store.lease();
        let reader = archive::decompress(archive).map_err(|source| {
            refused(ApplyError::Archive {
                after: String::new(),
                source,
            })
        })?;
        let draft = store.begin_layer()?;
        let options = store.options();
        let limits = ApplyOptions::new(options.ownership.clone(), options.overlay_xattrs);
        let applied = apply(reader, draft.fs(), &limits).map_err(refused)?;
        // The layer is known by the archive that kiln itself writes, which it can always make again.
        let mut hash = Hashing::new();
        write_layer(
            &applied.manifest,
            &DirectoryFiles(draft.fs()),
            &WriteOptions::default(),
            &mut hash,
        )?;
        let diff_id = hash.finish();
        store.commit_layer(&lease, draft, &applied.manifest, Content::DiffId(diff_id))?;
        let (id, same_as_before) = self.keep_root(&lease, diff_id, &name, epoch)?;
        Ok(ImportedImage {
            id: id.to_string(),
            layers: vec![diff_id.to_string()],
            name: name.familiar(),
            size_bytes: applied.manifest.total_bytes(),
            same_as_before,
        })
    }
}
