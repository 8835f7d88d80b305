//! One sync a build, after its result was delivered, instead of one a file.
//!
//! A killed process loses no page cache, so what it wrote is there. Losing power may lose anything
//! that was not synced, so rows carry the boot that wrote them until a `syncfs` that began later
//! is done, and rows of another boot are dropped when the store is opened.

use std::fs;

use rusqlite::{OptionalExtension, Transaction};

use crate::StoreError;
use crate::database::Abort;
use crate::store::Store;

/// Tables whose rows stand for files, which a loss of power can take from them.
const TABLES: [&str; 4] = ["layer", "blob", "record", "image"];

impl Store {
    /// Syncs the filesystem of the store, then marks what was complete before as durable.
    ///
    /// Takes as long as the disk does; call it once the result was delivered.
    pub fn mark_durable(&self) -> Result<(), StoreError> {
        let boot = &self.inner.boot;
        let complete = self
            .database()
            .snapshot("read what is not yet durable", |t| {
                let mut ids = [None; TABLES.len()];
                for (id, table) in ids.iter_mut().zip(TABLES) {
                    let sql = format!("SELECT max(id) FROM {table} WHERE boot = ?1");
                    *id = t
                        .prepare_cached(&sql)?
                        .query_row([boot], |row| row.get::<_, Option<i64>>(0))?;
                }
                Ok(ids)
            })?;
        if complete.iter().all(Option::is_none) {
            return Ok(());
        }
        let root = fs::File::open(self.root()).map_err(StoreError::io("open", self.root()))?;
        rustix::fs::syncfs(&root).map_err(StoreError::io("sync the filesystem of", self.root()))?;
        self.database().write("mark what is durable", |t| {
            for (id, table) in complete.iter().zip(TABLES) {
                let sql = format!("UPDATE {table} SET boot = NULL WHERE boot = ?1 AND id <= ?2");
                if let Some(id) = id {
                    t.prepare_cached(&sql)?.execute((boot, id))?;
                }
            }
            Ok(())
        })?;
        self.database().checkpoint()
    }

    /// Drops what another boot wrote and no sync covered.
    pub(crate) fn drop_unsynced(&self) -> Result<(), StoreError> {
        let boot = &self.inner.boot;
        let last = self.database().read("read the last boot", |c| {
            c.query_row("SELECT value FROM meta WHERE name = 'boot'", [], |row| {
                row.get(0)
            })
            .optional()
        })?;
        if last.as_ref() == Some(boot) {
            return Ok(());
        }
        self.database()
            .write("drop what a loss of power may have damaged", |t| {
                drop_other_boots(t, boot)?;
                // No process of another boot is alive, and its lock file says nothing across hosts'
                // restarts of container namespaces; the sweep finds it dead. Leases of the dead keep
                // nothing, so they stay until then.
                t.execute(
                    "INSERT OR REPLACE INTO meta (name, value) VALUES ('boot', ?1)",
                    [boot],
                )?;
                Ok(())
            })
    }
}

fn drop_other_boots(t: &Transaction<'_>, boot: &str) -> Result<(), Abort> {
    let now = crate::store::now();
    t.execute(
        "INSERT OR REPLACE INTO tombstone (key, op, lineage, slot, rule, time)
         SELECT k.key, r.op, r.lineage, r.slot, 'the machine stopped before it was on disk', ?2
         FROM record r JOIN record_key k ON k.record = r.id WHERE r.boot IS NOT NULL AND r.boot <> ?1",
        (boot, now),
    )?;
    for table in TABLES {
        t.execute(
            &format!("DELETE FROM {table} WHERE boot IS NOT NULL AND boot <> ?1"),
            [boot],
        )?;
    }
    for (table, owner, column) in [
        ("record_key", "record", "record"),
        ("record_layer", "record", "record"),
        ("image_layer", "image", "image"),
        ("name", "image", "image"),
    ] {
        t.execute(
            &format!("DELETE FROM {table} WHERE {column} NOT IN (SELECT id FROM {owner})"),
            [],
        )?;
    }
    t.execute(
        "DELETE FROM compressed WHERE blob NOT IN (SELECT digest FROM blob)",
        [],
    )?;
    t.execute(
        "DELETE FROM fold WHERE content NOT IN (SELECT content FROM layer)",
        [],
    )?;
    Ok(())
}

/// Returns what tells this start of the machine from every other.
pub(crate) fn boot_id() -> Result<String, StoreError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).map_err(StoreError::io("read", path))?;
    Ok(text.trim_end().to_owned())
}
