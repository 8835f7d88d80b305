//! A layer as an archive, the same bytes for the same manifest and options.

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::manifest::Manifest;
use crate::path::TreePath;

/// Which modification times an archive has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MtimePolicy {
    /// Those of the manifest.
    #[default]
    Keep,
    /// Those of the manifest, but none after this epoch.
    Clamp(i64),
    /// This epoch.
    Fixed(i64),
}

/// How to write an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Which times.
    pub mtime: MtimePolicy,
}

/// Where the bytes of a manifest's files are.
pub trait FileSource {
    /// Opens the file of entry number `index`, at `path`, for reading.
    fn open(&self, index: usize, path: &TreePath) -> io::Result<OwnedFd>;
}

/// The files of a layer's own directory.
#[derive(Debug)]
pub struct DirectoryFiles<'a>(pub BorrowedFd<'a>);

/// The files of [`Changes`](crate::Changes), each in the directory of its layer.
#[derive(Debug)]
pub struct LayersFiles<'a> {
    /// The directories of the upper view's layers, lowest first.
    pub layers: &'a [OwnedFd],
    /// The changes' origins.
    pub origins: &'a [Option<usize>],
}

/// A layer cannot be written as an archive.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file of the layer cannot be read.
    #[error("could not read `{path}` of the layer")]
    Read {
        /// The file.
        path: TreePath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file on disk has another size than the manifest says.
    #[error("`{path}` of the layer has {actual} bytes on disk and {expected} in the manifest")]
    Size {
        /// The file.
        path: TreePath,
        /// Bytes in the manifest.
        expected: u64,
        /// Bytes on disk, counted up to one more than expected.
        actual: u64,
    },
    /// The output takes no more.
    #[error("could not write the archive")]
    Write(#[source] io::Error),
}

/// Writes `manifest` as an OCI layer archive.
///
/// The bytes are a function of the manifest and the options alone.
pub fn write_layer(
    manifest: &Manifest,
    files: &dyn FileSource,
    options: &WriteOptions,
    out: &mut impl Write,
) -> Result<(), WriteError> {
    let _ = (manifest, files, options, out);
    unimplemented!()
}

impl FileSource for DirectoryFiles<'_> {
    fn open(&self, _: usize, path: &TreePath) -> io::Result<OwnedFd> {
        let _ = path;
        unimplemented!()
    }
}

impl FileSource for LayersFiles<'_> {
    fn open(&self, index: usize, path: &TreePath) -> io::Result<OwnedFd> {
        let _ = (index, path);
        unimplemented!()
    }
}
