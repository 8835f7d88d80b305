//! One SQLite connection a process, and the two kinds of transaction that it knows.
//!
//! Several processes write: a writer begins `IMMEDIATE`, so it waits for its turn before it has
//! read anything, and a read is one statement and never becomes a write. Nothing holds a
//! transaction while a step runs. Nothing here syncs; `durability` does, once a build.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{
    Connection, ErrorCode, FileControl, MAIN_DB, OpenFlags, Transaction, TransactionBehavior,
};

use crate::StoreError;
use crate::schema;

/// How long a writer waits for other processes; each holds its turn for milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pages of write-ahead log after which SQLite checkpoints by itself, with a sync: a backstop at
/// 64 MiB, since `durability` checkpoints at a better moment.
const AUTOCHECKPOINT_PAGES: i64 = 16_384;

#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    connection: Mutex<Connection>,
    is_read_only: bool,
}

/// Why a transaction was given up.
#[derive(Debug)]
pub(crate) enum Abort {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Abort {
    fn from(error: rusqlite::Error) -> Self {
        Abort::Sql(error)
    }
}

impl From<StoreError> for Abort {
    fn from(error: StoreError) -> Self {
        Abort::Store(error)
    }
}

impl Database {
    /// Opens the database of the store at `root`, making it if it is new.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let path = root.join("db.sqlite");
        let fail = |source| StoreError::database("open the store", &path, source);
        let opened = connect(&path).and_then(|connection| {
            let found = version(&connection)?;
            Ok((connection, found))
        });
        let (connection, found) = match opened {
            // Without its shared memory a log cannot be read, and here it cannot be made.
            Err(error) if cannot_open(&error) && is_on_read_only_disk(root) => {
                if log_bytes(&path) > 0 {
                    return Err(StoreError::ReadOnly {
                        path: root.to_owned(),
                    });
                }
                let connection = connect_immutable(&path).map_err(fail)?;
                let found = version(&connection).map_err(fail)?;
                (connection, found)
            }
            opened => opened.map_err(fail)?,
        };
        let is_read_only = connection.is_readonly(MAIN_DB).map_err(fail)?;
        let database = Self {
            path: path.clone(),
            connection: Mutex::new(connection),
            is_read_only,
        };
        match found {
            schema::VERSION => {}
            0 => database.create()?,
            1..schema::VERSION => database.upgrade()?,
            _ => {
                let (path, supported) = (root.to_owned(), schema::VERSION);
                return Err(StoreError::Newer {
                    path,
                    found,
                    supported,
                });
            }
        }
        Ok(database)
    }

    /// Whether it can only be read, as on a disk that is mounted so.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Runs `query`, which only reads and does so in one statement.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        query(&self.lock()).map_err(|source| StoreError::database(action, &self.path, source))
    }

    /// Runs `work` in a transaction that reads one state throughout and writes nothing.
    pub(crate) fn snapshot<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Abort>,
    ) -> Result<T, StoreError> {
        self.transact(action, TransactionBehavior::Deferred, work)
    }

    /// Runs `work` in a transaction that no other writer overlaps; an error undoes it.
    pub(crate) fn write<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Abort>,
    ) -> Result<T, StoreError> {
        self.transact(action, TransactionBehavior::Immediate, work)
    }

    /// How long the write-ahead log is.
    pub(crate) fn log_bytes(&self) -> u64 {
        log_bytes(&self.path)
    }

    /// Moves the write-ahead log into the database if that waits for nobody.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        let connection = self.lock();
        let checkpoint = || -> rusqlite::Result<()> {
            connection.busy_timeout(Duration::ZERO)?;
            let done = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            connection.busy_timeout(PATIENCE)?;
            done
        };
        checkpoint()
            .map_err(|source| StoreError::database("checkpoint changes", &self.path, source))
    }

    /// Gives pages that deleted rows left back to the disk.
    pub(crate) fn shrink(&self) -> Result<(), StoreError> {
        self.read("shrink the database", |c| {
            c.execute_batch("PRAGMA incremental_vacuum")
        })?;
        self.checkpoint()
    }

    /// Returns the lines of SQL that would make this database.
    #[cfg(test)]
    pub(crate) fn dump_schema(&self) -> Vec<String> {
        self.read("read the schema", |c| {
            let sql =
                "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'
                       ORDER BY rowid";
            c.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
        })
        .unwrap()
    }

    fn transact<T>(
        &self,
        action: &'static str,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Abort>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let run = || -> Result<T, Abort> {
            let transaction = connection.transaction_with_behavior(behavior)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|abort| match abort {
            Abort::Sql(source) => StoreError::database(action, &self.path, source),
            Abort::Store(error) => error,
        })
    }

    /// Two processes may get here at once; the second finds the tables there.
    fn create(&self) -> Result<(), StoreError> {
        self.read("turn on the write-ahead log", |c| {
            c.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
            c.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        })?;
        self.write("create the tables", |t| {
            let version: i64 = t.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if version == 0 {
                t.execute_batch(schema::SQL)?;
                t.pragma_update(None, "user_version", schema::VERSION)?;
            }
            Ok(())
        })
    }

    /// Two processes may get here at once, too.
    fn upgrade(&self) -> Result<(), StoreError> {
        self.write("upgrade the tables", |t| {
            for (from, sql) in schema::UPGRADES {
                let version: i64 = t.query_row("PRAGMA user_version", [], |row| row.get(0))?;
                if version == from {
                    t.execute_batch(sql)?;
                    t.pragma_update(None, "user_version", from + 1)?;
                }
            }
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic while it was held has rolled its transaction back.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection)?;
    Ok(connection)
}

/// Opens a database that nobody can write to, without locks and without a log.
fn connect_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn cannot_open(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::CannotOpen)
}

fn log_bytes(database: &Path) -> u64 {
    fs::metadata(database.with_extension("sqlite-wal")).map_or(0, |log| log.len())
}

fn is_on_read_only_disk(root: &Path) -> bool {
    rustix::fs::statvfs(root)
        .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.file_control(Some("main"), FileControl::PersistWal(&mut 1))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(&format!(
        "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT_PAGES};"
    ))
}
