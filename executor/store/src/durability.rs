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

/// Whoever opens the store first reads the whole write-ahead log; builds that find all of their
/// steps cached add to it too, by what is remembered of them.
const LONG_LOG_BYTES: u64 = 1 << 20;

/// Tables whose rows stand for files, which a loss of power can take from them.
const TABLES: [&str; 4] = ["layer", "blob", "record", "image"];

impl Store {
    /// Syncs the filesystem of the store, marks what was complete before as durable, and moves the
    /// write-ahead log into the database.
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
            return self.database().checkpoint();
        }
        let root = fs::File::open(self.root()).map_err(StoreError::io("open", self.root()))?;
        rustix::fs::syncfs(&root).map_err(StoreError::io("sync the filesystem of", self.root()))?;
        // Whoever removes the store meanwhile finds nothing new in it.
        if !Store::is_at(self.root()) {
            return Ok(());
        }
        self.database().write("mark what is durable", |t| {
            for (id, table) in complete.iter().zip(TABLES) {
                let sql = format!("UPDATE {table} SET boot = NULL WHERE boot = ?1 AND id <= ?2");
                if let Some(id) = id {
                    t.prepare_cached(&sql)?.execute((boot, id))?;
                }
            }
            Ok(())
        })?;
        self.set_aside();
        self.database().checkpoint()
    }

    /// Tells whether there is reason to call [`Store::mark_durable`]: a loss of power could take
    /// something that this boot wrote, or the log has grown so long that opening the store slows.
    pub fn wants_settling(&self) -> Result<bool, StoreError> {
        if self.database().log_bytes() > LONG_LOG_BYTES {
            return Ok(true);
        }
        let boot = &self.inner.boot;
        self.database()
            .read("look for what is not yet durable", |c| {
                for table in TABLES {
                    let sql = format!("SELECT 1 FROM {table} WHERE boot = ?1 LIMIT 1");
                    if c.prepare_cached(&sql)?.exists([boot])? {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
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
    // An image of several platforms is whole or not there.
    t.execute(
        "DELETE FROM image WHERE id IN (SELECT image FROM image_member
         WHERE member NOT IN (SELECT id FROM image))",
        [],
    )?;
    for (table, owner, column) in [
        ("record_key", "record", "record"),
        ("record_layer", "record", "record"),
        ("image_layer", "image", "image"),
        ("image_member", "image", "image"),
        ("image_blob", "image", "image"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Content, DiffId, ImageId, Key, NewImage, NewRecord, OpKey, StoreOptions};
    use std::io::Write;
    use std::time::{Duration, SystemTime};

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap()
    }

    /// Files one of everything under `number`.
    fn fill(store: &Store, number: u8) {
        let lease = store.lease();
        let mut writer = store.write_blob(None).unwrap();
        writer.write_all(&[number]).unwrap();
        let blob = writer.finish(&lease).unwrap();
        let content = Content::DiffId(DiffId([number; 32]));
        let draft = store.begin_layer().unwrap();
        store
            .commit_layer(&lease, draft, &kiln_tree::Manifest::default(), content)
            .unwrap();
        store
            .put_compressed(&content, "", "gzip", &blob, &DiffId([number; 32]))
            .unwrap();
        let record = NewRecord {
            keys: vec![Key([number; 32])],
            op: OpKey([0; 32]),
            slot: None,
            outputs: vec![Some(vec![content])],
            parts: vec![],
            created: SystemTime::now(),
            duration: Duration::ZERO,
        };
        store.file_record(&lease, &record).unwrap();
        let image = NewImage {
            id: ImageId([number; 32]),
            manifest: vec![],
            config: vec![],
            layers: vec![content],
            size_bytes: 0,
            created: SystemTime::now(),
        };
        store.put_image(&lease, &image).unwrap();
        store
            .tag(&image.id, b"manifest", &format!("name{number}"))
            .unwrap();
    }

    /// Makes it look as if the machine had been started again since.
    fn reboot(store: &Store) {
        store
            .database()
            .write("pretend", |t| {
                for table in TABLES {
                    let sql = format!("UPDATE {table} SET boot = 'old' WHERE boot IS NOT NULL");
                    t.execute(&sql, [])?;
                }
                t.execute("UPDATE meta SET value = 'old' WHERE name = 'boot'", [])?;
                Ok(())
            })
            .unwrap();
    }

    /// Whether layer, record, image by name and archive of `number` are there.
    fn there(store: &Store, number: u8) -> [bool; 4] {
        let lease = store.lease();
        let content = Content::DiffId(DiffId([number; 32]));
        [
            store.layer(&content).unwrap().is_some(),
            store.find(&lease, &[Key([number; 32])]).unwrap()[0].is_some(),
            store
                .image_by_name(&lease, &format!("name{number}"))
                .unwrap()
                .is_some(),
            store
                .compressed(&lease, &content, "", "gzip")
                .unwrap()
                .is_some(),
        ]
    }

    #[test]
    fn another_boot_drops_what_no_sync_covered() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        fill(&store, 1);
        store.mark_durable().unwrap();
        fill(&store, 2);
        reboot(&store);
        drop(store);
        let store = open(&dir);
        assert_eq!(there(&store, 1), [true; 4]);
        assert_eq!(there(&store, 2), [false; 4]);
        let mark = store
            .tombstones(&[Key([2; 32])])
            .unwrap()
            .remove(0)
            .unwrap();
        assert_eq!(mark.rule, "the machine stopped before it was on disk");
        // Its directory is there and may be damaged; nobody gets it.
        fill(&store, 2);
        assert_eq!(there(&store, 2), [true; 4]);
    }

    #[test]
    fn the_same_boot_keeps_everything() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        fill(&store, 1);
        drop(store);
        assert_eq!(there(&open(&dir), 1), [true; 4]);
    }

    #[test]
    fn a_store_that_is_being_removed_gets_nothing_new() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        fill(&store, 1);
        let names = || -> Vec<_> {
            let listed = fs::read_dir(store.root()).unwrap();
            listed.map(|item| item.unwrap().file_name()).collect()
        };
        let before = names();
        for name in ["version", "reserve"] {
            fs::remove_file(store.root().join(name)).unwrap();
        }
        store.mark_durable().unwrap();
        assert_eq!(names().len() + 2, before.len(), "{:?}", names());
    }

    #[test]
    fn what_came_after_a_sync_began_is_not_marked_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        fill(&store, 1);
        let count = || -> i64 {
            let sql = "SELECT count(*) FROM layer WHERE boot IS NULL";
            store
                .database()
                .read("count", |c| c.query_row(sql, [], |row| row.get(0)))
                .unwrap()
        };
        assert_eq!(count(), 0);
        store.mark_durable().unwrap();
        assert_eq!(count(), 1);
        fill(&store, 2);
        assert_eq!(count(), 1);
        store.mark_durable().unwrap();
        store.mark_durable().unwrap();
        assert_eq!(count(), 2);
    }
}
