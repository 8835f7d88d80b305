//! What is remembered about build contexts: directory objects by digest, and hashes of files.

use std::fs;
use std::io;
use std::path::PathBuf;

use rusqlite::OptionalExtension;

use crate::StoreError;
use crate::store::{Store, now, write_atomically};

impl Store {
    /// Keeps objects under digests that the caller computed; those that are there stay.
    pub fn put_trees(&self, objects: &[([u8; 32], &[u8])]) -> Result<(), StoreError> {
        if objects.is_empty() {
            return Ok(());
        }
        let time = now();
        self.database().write("keep context directories", |t| {
            let mut put = t.prepare_cached(
                "INSERT INTO tree (digest, bytes, used) VALUES (?1, ?2, ?3)
                 ON CONFLICT (digest) DO UPDATE SET used = excluded.used",
            )?;
            for (digest, bytes) in objects {
                put.execute((digest, bytes, time))?;
            }
            Ok(())
        })
    }

    /// Returns an object kept by [`Store::put_trees`], unless it was swept.
    pub fn get_tree(&self, digest: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError> {
        self.database().read("read a context directory", |c| {
            c.prepare_cached("SELECT bytes FROM tree WHERE digest = ?1")?
                .query_row([digest], |row| row.get(0))
                .optional()
        })
    }

    /// Tells whether an object is there.
    pub fn has_tree(&self, digest: &[u8; 32]) -> Result<bool, StoreError> {
        self.database().read("look up a context directory", |c| {
            c.prepare_cached("SELECT 1 FROM tree WHERE digest = ?1")?
                .exists([digest])
        })
    }

    /// Replaces the remembered file hashes of the context that `context` names.
    pub fn put_hash_memory(&self, context: &str, memory: &[u8]) -> Result<(), StoreError> {
        let mut bytes = blake3::hash(memory).as_bytes().to_vec();
        bytes.extend_from_slice(memory);
        write_atomically(&self.memory_path(context), &bytes)
    }

    /// Returns the remembered file hashes of a context; `None` too if losing power damaged them.
    pub fn hash_memory(&self, context: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.memory_path(context);
        let mut bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        let whole = bytes
            .split_first_chunk::<32>()
            .is_some_and(|(digest, memory)| blake3::hash(memory).as_bytes() == digest);
        Ok(whole.then(|| bytes.split_off(32)))
    }

    fn memory_path(&self, context: &str) -> PathBuf {
        self.path("contexts")
            .join(blake3::hash(context.as_bytes()).to_hex().as_str())
    }
}
