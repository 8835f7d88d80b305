//! What a running build holds on to, so that a sweep in any process leaves it alone.
//!
//! A lease is rows that name this process, so they count for as long as its lock is held and die
//! with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Transaction;

use crate::store::Store;
use crate::{BlobDigest, Content, StoreError};

/// What a lease can hold; the number is the one in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leased {
    Layer = 1,
    Blob = 2,
    Record = 3,
    Image = 4,
}

/// A scope, usually a build, that keeps layers, blobs, records and images from being swept.
///
/// Making one touches nothing. What is held is released together when the last clone is dropped,
/// or when the process ends, however it does.
#[derive(Debug, Clone)]
pub struct Lease {
    scope: Arc<Scope>,
}

#[derive(Debug)]
struct Scope {
    store: Store,
    number: i64,
    written: AtomicBool,
}

impl Store {
    /// Returns a lease that holds nothing yet.
    pub fn lease(&self) -> Lease {
        let number = i64::try_from(self.count()).expect("BUG: 2^63 leases in one process");
        let scope = Scope {
            store: self.clone(),
            number,
            written: AtomicBool::new(false),
        };
        Lease {
            scope: Arc::new(scope),
        }
    }

    /// Leases a layer; `false` if it is not there.
    pub fn lease_layer(&self, lease: &Lease, content: &Content) -> Result<bool, StoreError> {
        let content = content.to_bytes();
        self.lease_present(
            lease,
            Leased::Layer,
            &content,
            "SELECT 1 FROM layer WHERE content = ?1",
        )
    }

    /// Leases a blob; `false` if it is not there.
    pub fn lease_blob(&self, lease: &Lease, digest: &BlobDigest) -> Result<bool, StoreError> {
        self.lease_present(
            lease,
            Leased::Blob,
            &digest.0,
            "SELECT 1 FROM blob WHERE digest = ?1",
        )
    }

    fn lease_present(
        &self,
        lease: &Lease,
        kind: Leased,
        object: &[u8],
        sql: &str,
    ) -> Result<bool, StoreError> {
        let process = self.process_id()?;
        self.database().write("lease", |t| {
            let there = t.prepare_cached(sql)?.exists([object])?;
            if there {
                lease.hold(t, process, kind, object)?;
            }
            Ok(there)
        })
    }
}

impl Lease {
    /// The scope's number, if it may hold anything.
    pub(crate) fn written(&self) -> Option<i64> {
        let written = self.scope.written.load(Ordering::Relaxed);
        written.then_some(self.scope.number)
    }

    /// Holds `object` as a part of the caller's transaction, which has seen that it is there.
    pub(crate) fn hold(
        &self,
        t: &Transaction<'_>,
        process: &str,
        kind: Leased,
        object: &[u8],
    ) -> rusqlite::Result<()> {
        self.scope.written.store(true, Ordering::Relaxed);
        t.prepare_cached(
            "INSERT OR IGNORE INTO lease (kind, object, process, scope) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((kind as i64, object, process, self.scope.number))?;
        Ok(())
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if !*self.written.get_mut() {
            return;
        }
        let Ok(process) = self.store.process_id() else {
            return;
        };
        // If this fails, the lease lasts until the process ends, which is no harm.
        let _ = self.store.database().write("release a lease", |t| {
            t.prepare_cached("DELETE FROM lease WHERE process = ?1 AND scope = ?2")?
                .execute((process, self.number))?;
            Ok(())
        });
    }
}
