//! A root file system from a tar, as an image of one layer.

use std::io::Read;

use kiln_store::Content;
use kiln_tree::tar::{ApplyError, ApplyOptions, DirectoryFiles, WriteOptions, apply, write_layer};

use crate::archive;
use crate::error::Error;
use crate::executor::Executor;
use crate::export::{self, Hashing};

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
        let name = export::reference(reference)?;
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

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use kiln_ir::ImageConfig;

    use super::*;
    use crate::executor::tests::executor;

    fn root(paths: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for path in paths {
            let mut header = tar::Header::new_gnu();
            // The crate's own setter refuses what hostile archives have.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(5);
            header.set_mode(0o755);
            header.set_mtime(1_500_000_000);
            header.set_cksum();
            builder.append(&header, &b"hello"[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn import(
        executor: &Executor,
        archive: Vec<u8>,
        epoch: Option<i64>,
    ) -> Result<ImportedImage, Error> {
        executor.import(Cursor::new(archive), "root.tar", "base:1", epoch)
    }

    #[test]
    fn the_same_archive_is_the_same_image_however_it_is_compressed() {
        let (_directory, executor) = executor();
        let plain = root(&["bin/sh", "etc/passwd"]);
        let first = import(&executor, plain.clone(), None).unwrap();
        assert!(!first.same_as_before);
        assert_eq!(
            (first.name.as_str(), first.size_bytes, first.layers.len()),
            ("base:1", 10, 1)
        );
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&plain).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).unwrap();
        let packed = [
            gzip.finish().unwrap(),
            bzip2.finish().unwrap(),
            xz.finish().unwrap(),
            zstd::encode_all(&plain[..], 1).unwrap(),
        ];
        for archive in packed {
            let again = import(&executor, archive, None).unwrap();
            assert_eq!(
                again,
                ImportedImage {
                    same_as_before: true,
                    ..first.clone()
                }
            );
        }
        // And in another store, at another time.
        let (_directory, other) = self::executor();
        assert_eq!(import(&other, plain, None).unwrap(), first);
    }

    #[test]
    fn the_image_says_when_and_nothing_else() {
        let (_directory, executor) = executor();
        let imported = import(&executor, root(&["bin/sh"]), Some(1_000_000_000)).unwrap();
        let lease = executor.store().lease();
        let image = executor.find_image(&lease, "base:1").unwrap();
        assert_eq!(image.id.to_string(), imported.id);
        let config = ImageConfig::from_json(&image.config).unwrap();
        assert_eq!(config.created.as_deref(), Some("2001-09-09T01:46:40Z"));
        assert_eq!(config.config, kiln_ir::Config::default());
        assert_eq!(config.history.len(), 1);
        assert_eq!(config.os, "linux");
    }

    #[test]
    fn what_is_imported_can_be_exported() {
        use crate::context::Locals;
        use crate::export::{Destination, Export, ImageToExport, ResultToExport};
        use crate::source::Resolver;
        use crate::worker::{BuildWorker, Handle};
        let (directory, executor) = executor();
        let imported = import(&executor, root(&["bin/sh"]), None).unwrap();
        let lease = executor.store().lease();
        let image = executor.find_image(&lease, "base:1").unwrap();
        let result = ResultToExport {
            handle: Some(Handle::layers(image.layers)),
            config: Some(ImageConfig::from_json(&image.config).unwrap()),
            ..ResultToExport::default()
        };
        let given = ImageToExport {
            results: vec![result],
            ..ImageToExport::default()
        };
        let worker = BuildWorker::new(
            &executor,
            std::sync::Arc::new(Resolver::new(&executor)),
            Locals::default(),
        );
        let destination = Destination::File(directory.path().join("x.tar"));
        let exports = [Export::OciArchive {
            destination,
            options: crate::export::ImageOptions::default(),
        }];
        let exported = executor.export(&worker, &given, &exports, &|_| {}).unwrap();
        assert_eq!(exported.image_id, Some(imported.id));
    }

    fn check_refused(archive: Vec<u8>) {
        let (directory, executor) = executor();
        let error = import(&executor, archive, None).unwrap_err();
        assert_eq!(error.to_string(), "could not import `root.tar`");
        assert!(executor.images().unwrap().is_empty());
        assert!(!directory.path().join("escaped").exists());
    }

    #[test]
    fn hostile_archives_are_refused() {
        check_refused(root(&["../escaped"]));
        check_refused(root(&["store/../../escaped"]));
        check_refused(b"no archive at all, but text that goes on for a while".repeat(40));
        let mut cut = root(&["bin/sh", "bin/ls"]);
        cut.truncate(1200);
        check_refused(cut);
    }

    #[test]
    fn a_name_that_is_none_is_refused_first() {
        let (_directory, executor) = executor();
        let error = executor
            .import(Cursor::new(root(&["a"])), "root.tar", "Not A Name", None)
            .unwrap_err();
        assert!(matches!(error, Error::Reference(_)), "{error:?}");
    }
}
