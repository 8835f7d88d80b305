//! Bytes by their sha256, which is known to be right before they have a name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rusqlite::OptionalExtension;
use sha2::{Digest, Sha256};

use crate::leases::Leased;
use crate::store::{Store, now};
use crate::{BlobDigest, Lease, StoreError};

/// A blob being written; dropping it without finishing it discards it.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    expected: Option<BlobDigest>,
    file: File,
    path: PathBuf,
    hash: Sha256,
    written: u64,
    named: bool,
}

impl Store {
    /// Starts a blob; with `expected`, one of another digest will be refused.
    pub fn write_blob(&self, expected: Option<BlobDigest>) -> Result<BlobWriter, StoreError> {
        let path = self.work_path("blob")?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        Ok(self.writer(expected, file, path))
    }

    /// Goes on with a blob that [`BlobWriter::keep_partial`] left, reading again what is there.
    ///
    /// `None` if there is nothing to go on with. At most one process gets it.
    pub fn resume_blob(&self, expected: BlobDigest) -> Result<Option<BlobWriter>, StoreError> {
        let from = self.partial_path(&expected);
        let path = self.work_path("blob")?;
        match fs::rename(&from, &path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("resume", &from)(error)),
        }
        let open = OpenOptions::new().read(true).write(true).open(&path);
        let file = open.map_err(StoreError::io("open", &path))?;
        let mut writer = self.writer(Some(expected), file, path);
        writer.read_again()?;
        Ok(Some(writer))
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &BlobDigest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::NoSuchBlob(*digest))
            }
            Err(error) => Err(StoreError::io("open", &path)(error)),
        }
    }

    /// Returns the length of a blob, or `None` if it is not there.
    pub fn blob_size(&self, digest: &BlobDigest) -> Result<Option<u64>, StoreError> {
        self.database().read("look up a blob", |c| {
            c.prepare_cached("SELECT size_bytes FROM blob WHERE digest = ?1")?
                .query_row([digest.0], |row| row.get::<_, i64>(0))
                .optional()
                .map(|size| size.map(i64::unsigned_abs))
        })
    }

    /// Removes a blob unless somebody has leased it; tells whether it is gone.
    pub fn delete_blob(&self, digest: &BlobDigest) -> Result<bool, StoreError> {
        let gone = self.database().write("delete a blob", |t| {
            let leased = t
                .prepare_cached("SELECT 1 FROM lease WHERE kind = ?1 AND object = ?2")?
                .exists((Leased::Blob as i64, digest.0))?;
            if !leased {
                t.prepare_cached("DELETE FROM compressed WHERE blob = ?1")?
                    .execute([digest.0])?;
                t.prepare_cached("DELETE FROM blob WHERE digest = ?1")?
                    .execute([digest.0])?;
            }
            Ok(!leased)
        })?;
        if gone {
            self.remove_rowless_blob(digest)?;
        }
        Ok(gone)
    }

    /// Removes the file of a blob that has no row, unless it has one again.
    pub(crate) fn remove_rowless_blob(&self, digest: &BlobDigest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        let trash = self.database().write("delete a blob", |t| {
            let there = t
                .prepare_cached("SELECT 1 FROM blob WHERE digest = ?1")?
                .exists([digest.0])?;
            Ok(if there { None } else { self.discard(&path)? })
        })?;
        trash.map_or(Ok(()), |path| self.burn(&path))
    }

    /// The path of a leased blob, for reading alone.
    pub fn blob_file(&self, digest: &BlobDigest) -> PathBuf {
        self.blob_path(digest)
    }

    pub(crate) fn blob_path(&self, digest: &BlobDigest) -> PathBuf {
        self.path("blobs/sha256").join(digest.hex())
    }

    fn partial_path(&self, digest: &BlobDigest) -> PathBuf {
        self.path("blobs/partial").join(digest.hex())
    }

    fn writer(&self, expected: Option<BlobDigest>, file: File, path: PathBuf) -> BlobWriter {
        let (store, hash) = (self.clone(), Sha256::new());
        BlobWriter {
            store,
            expected,
            file,
            path,
            hash,
            written: 0,
            named: false,
        }
    }
}

impl BlobWriter {
    /// How many bytes there are so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Opens what there is so far, to be read from its beginning.
    pub fn reopen(&self) -> Result<File, StoreError> {
        File::open(&self.path).map_err(StoreError::io("open", &self.path))
    }

    /// Checks the digest and gives the blob its name, leased.
    ///
    /// If the store has the blob already, that one stays.
    pub fn finish(mut self, lease: &Lease) -> Result<BlobDigest, StoreError> {
        let found = BlobDigest(std::mem::take(&mut self.hash).finalize().into());
        if let Some(expected) = self.expected.filter(|expected| *expected != found) {
            return Err(StoreError::BlobDigest { expected, found });
        }
        let (store, time) = (self.store.clone(), now());
        let (process, path) = (store.process_id()?, store.blob_path(&found));
        let size = i64::try_from(self.written).expect("BUG: a file of 2^63 bytes");
        // The name appears inside the transaction, so that a sweep never sees it without its row;
        // a kill in between leaves a file without a row, which the sweep removes.
        store.database().write("add a blob", |t| {
            let there = t
                .prepare_cached("SELECT 1 FROM blob WHERE digest = ?1")?
                .exists([found.0])?;
            if there {
                t.prepare_cached("UPDATE blob SET used = ?2 WHERE digest = ?1")?
                    .execute((found.0, time))?;
            } else {
                fs::rename(&self.path, &path).map_err(StoreError::io("name the blob", &path))?;
                self.named = true;
                t.prepare_cached(
                    "INSERT INTO blob (digest, size_bytes, created, used, boot)
                     VALUES (?1, ?2, ?3, ?3, ?4)",
                )?
                .execute((found.0, size, time, &store.inner.boot))?;
            }
            lease.hold(t, process, Leased::Blob, &found.0)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// Leaves what there is for [`Store::resume_blob`]; without an expected digest, discards it.
    pub fn keep_partial(mut self) -> Result<(), StoreError> {
        if let Some(expected) = self.expected {
            let to = self.store.partial_path(&expected);
            fs::rename(&self.path, &to).map_err(StoreError::io("keep the partial blob", &to))?;
            self.named = true;
        }
        Ok(())
    }

    fn read_again(&mut self) -> Result<(), StoreError> {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.hash.update(&buffer[..count]);
                    self.written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io("read", &self.path)(error)),
            }
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.path);
        }
    }
}
