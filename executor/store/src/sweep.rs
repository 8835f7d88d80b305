//! Sweeping: what nobody needs goes, beside running builds of any process.
//!
//! Three steps, so that a kill in between leaves no row without its directory: rows go in one
//! transaction, which no lookup or commit overlaps; directories without rows are renamed to the
//! trash in a second one; then the trash is removed without holding anything.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::Transaction;

use crate::builds::forget_older;
use crate::cachemounts::CacheMountInfo;
use crate::compressed::AS_PULLED;
use crate::database::Abort;
use crate::images::{delete_image, is_leased};
use crate::leases::Leased;
use crate::process;
use crate::records::{RecordId, delete_record, layer_exists};
use crate::remotes::{self, RepositoryInfo};
use crate::store::{Store, millis, now};
use crate::usage::Counted;
use crate::{BlobDigest, Content, StoreError};

/// How many go in one transaction on a full disk.
const FEW: usize = 16;

/// What makes a row of `layer` one that nothing refers to; `?1` is the kind of its leases.
pub(crate) const UNNEEDED_LAYER: &str = "
    NOT EXISTS (SELECT 1 FROM record_layer r WHERE r.content = layer.content)
    AND NOT EXISTS (SELECT 1 FROM image_layer i WHERE i.content = layer.content)
    AND NOT EXISTS (SELECT 1 FROM pulled_layer p WHERE p.content = layer.content)
    AND NOT EXISTS (SELECT 1 FROM lease l WHERE l.kind = ?1 AND l.object = layer.content)
    AND NOT EXISTS (SELECT 1 FROM fold f WHERE f.content = layer.content)";

/// The same of `blob`.
pub(crate) const UNNEEDED_BLOB: &str = "
    NOT EXISTS (SELECT 1 FROM compressed c WHERE c.blob = blob.digest)
    AND NOT EXISTS (SELECT 1 FROM image_blob i WHERE i.blob = blob.digest)
    AND NOT EXISTS (SELECT 1 FROM lease l WHERE l.kind = ?1 AND l.object = blob.digest)";

/// What may go.
///
/// Named images and whatever is leased stay under every policy. Always gone: layers and blobs that
/// nothing refers to, and what processes that died left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The longest unused records, untagged images, pulls, archives, mirrors and cache mounts,
    /// until this many bytes are left.
    KeepBytes(u64),
    /// All of these that were not used for that long.
    KeepDuration(Duration),
    /// All of these.
    All,
    /// Untagged images only.
    UnusedOnly,
}

/// What went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepReport {
    /// Records dropped.
    pub records: u64,
    /// Untagged images removed.
    pub images: u64,
    /// References forgotten that were pulled.
    pub pulls: u64,
    /// Layers removed.
    pub layers: u64,
    /// Blobs removed.
    pub blobs: u64,
    /// Cache mounts removed.
    pub cache_mounts: u64,
    /// Mirrors of repositories removed.
    pub repositories: u64,
    /// Context directories, file hashes and what was learnt of URLs forgotten.
    pub contexts: u64,
    /// Builds forgotten, with what their steps wrote.
    pub builds: u64,
    /// Processes that died without cleaning up.
    pub dead_processes: u64,
    /// Directories and files that no row named.
    pub orphans: u64,
    /// Bytes of disk blocks freed, but for the database.
    pub bytes: u64,
}

/// Something that a policy may take away.
#[derive(Debug)]
enum Candidate {
    Record(RecordId),
    Image(i64),
    Pull(i64),
    Archive(BlobDigest),
    Mount(CacheMountInfo),
    Repository(RepositoryInfo),
}

impl Store {
    /// Removes what `policy` lets go, cache mounts among it.
    pub fn sweep(&self, policy: Policy) -> Result<SweepReport, StoreError> {
        let mounts = self.cache_mounts()?;
        self.sweep_with(policy, mounts)
    }

    /// Removes what `policy` lets go, but no cache mount: nothing can make those anew.
    pub fn sweep_keeping_mounts(&self, policy: Policy) -> Result<SweepReport, StoreError> {
        self.sweep_with(policy, Vec::new())
    }

    fn sweep_with(
        &self,
        policy: Policy,
        mut mounts: Vec<CacheMountInfo>,
    ) -> Result<SweepReport, StoreError> {
        let mut report = SweepReport::default();
        let at_once = match self.make_room()? {
            true => FEW,
            false => usize::MAX,
        };
        self.bury_the_dead(&mut report)?;
        let rule = rule(policy);
        let mut repositories = match policy {
            Policy::UnusedOnly => Vec::new(),
            _ => self.repositories()?,
        };
        let paths = mounts.iter().map(|mount| &mount.path);
        let paths = paths.chain(repositories.iter().map(|repository| &repository.path));
        let sized = Self::sizes(paths, policy)?;
        let bytes_of = |path: &Path| {
            let bytes = sized.iter().find(|(sized, _)| *sized == path);
            bytes.map_or(0, |(_, bytes)| *bytes)
        };
        let mut size = self.row_bytes()? + sized.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let mut discarded = 0;
        let mut mounts_to_go: Vec<CacheMountInfo> = Vec::new();
        let mut repositories_to_go: Vec<PathBuf> = Vec::new();
        loop {
            let mut taken = 0;
            self.database().write("sweep", |t| {
                forget_folds(t, policy)?;
                size = size.saturating_sub(Self::free(t, &mut report)?);
                for (used, candidate) in candidates(t, &mounts, &repositories, policy)? {
                    let goes = match policy {
                        Policy::KeepBytes(limit) => size > limit,
                        Policy::KeepDuration(age) => used < cutoff(age),
                        Policy::All | Policy::UnusedOnly => true,
                    };
                    if !goes || taken == at_once {
                        break;
                    }
                    taken += 1;
                    match candidate {
                        Candidate::Mount(mount) => {
                            size = size.saturating_sub(bytes_of(&mount.path));
                            mounts_to_go.push(mount);
                        }
                        Candidate::Repository(repository) => {
                            size = size.saturating_sub(bytes_of(&repository.path));
                            repositories_to_go.push(repository.path);
                        }
                        candidate => {
                            self.drop_candidate(t, &candidate, &rule, &mut report)?;
                            if matches!(policy, Policy::KeepBytes(_)) {
                                size = size.saturating_sub(Self::free(t, &mut report)?);
                            }
                        }
                    }
                }
                Self::free(t, &mut report)?;
                if let Policy::KeepDuration(age) = policy {
                    report.builds += forget_older(t, cutoff(age))? as u64;
                }
                if taken < at_once {
                    self.forget_contexts(t, policy, &mut report)?;
                }
                Ok(())
            })?;
            discarded += self
                .database()
                .write("sweep directories", |t| self.discard_rowless(t))?;
            if taken < at_once {
                break;
            }
            // On a full disk what went makes room for the log of the next.
            mounts.retain(|mount| !mounts_to_go.contains(mount));
            repositories.retain(|repository| !repositories_to_go.contains(&repository.path));
            self.burn_trash(&mut report)?;
            self.database().checkpoint()?;
        }
        report.orphans = discarded.saturating_sub(report.layers + report.blobs);
        for mount in &mounts_to_go {
            let mut counted = Counted::default();
            let bytes = counted.all(&mount.path).unwrap_or(0);
            if self.sweep_mount(mount)? {
                report.cache_mounts += 1;
                report.bytes += bytes;
            }
        }
        for path in &repositories_to_go {
            let bytes = Counted::default().all(path).unwrap_or(0);
            if self.sweep_repository(path)? {
                report.repositories += 1;
                report.bytes += bytes;
            }
        }
        self.burn_trash(&mut report)?;
        self.database().shrink()?;
        self.set_aside();
        Ok(report)
    }

    /// Takes away the leases and the work of processes whose locks are free.
    fn bury_the_dead(&self, report: &mut SweepReport) -> Result<(), StoreError> {
        let procs = self.path("procs");
        // Work directories first: a process has its name before its work directory.
        let works = self.names_in(&self.path("work"))?;
        for dead in process::dead(&procs)? {
            self.database()
                .write("take leases of a dead process", |t| {
                    t.execute("DELETE FROM lease WHERE process = ?1", [&dead.id])?;
                    Ok(())
                })?;
            self.discard(&self.path("work").join(&dead.id))?;
            dead.bury()?;
            report.dead_processes += 1;
        }
        for work in works {
            if !procs.join(&work).exists() {
                self.discard(&self.path("work").join(&work))?;
            }
        }
        self.database().write("take leases of nobody", |t| {
            // Listed inside: whoever wrote a lease had its name before.
            let alive = self.names_in(&procs)?;
            let alive = serde_json::to_string(&alive).expect("BUG: strings are always JSON");
            t.execute(
                "DELETE FROM lease WHERE process NOT IN (SELECT value FROM json_each(?1))",
                [alive],
            )?;
            Ok(())
        })
    }

    fn drop_candidate(
        &self,
        t: &Transaction<'_>,
        candidate: &Candidate,
        rule: &str,
        report: &mut SweepReport,
    ) -> Result<(), Abort> {
        match candidate {
            Candidate::Record(id) => {
                delete_record(t, *id, rule)?;
                report.records += 1;
            }
            Candidate::Image(row) => {
                report.images += 1;
                for member in delete_image(t, *row)? {
                    if !is_leased(t, member)? {
                        delete_image(t, member)?;
                        report.images += 1;
                    }
                }
            }
            Candidate::Pull(id) => {
                t.prepare_cached("DELETE FROM pulled_layer WHERE pulled = ?1")?
                    .execute([id])?;
                t.prepare_cached("DELETE FROM pulled WHERE id = ?1")?
                    .execute([id])?;
                report.pulls += 1;
            }
            Candidate::Archive(blob) => {
                t.prepare_cached("DELETE FROM compressed WHERE blob = ?1")?
                    .execute([blob.0])?;
            }
            Candidate::Mount(_) | Candidate::Repository(_) => {}
        }
        Ok(())
    }

    /// Deletes layers and blobs that nothing refers to; returns their bytes as their rows tell.
    fn free(t: &Transaction<'_>, report: &mut SweepReport) -> Result<u64, Abort> {
        let mut bytes = 0;
        let sql = format!("DELETE FROM layer WHERE {UNNEEDED_LAYER} RETURNING content, size_bytes");
        let layers: Vec<(Vec<u8>, i64)> = t
            .prepare_cached(&sql)?
            .query_map([Leased::Layer as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (content, size) in layers {
            bytes += size.unsigned_abs();
            report.layers += 1;
            forget_archives(t, &content)?;
        }
        let sql = format!("DELETE FROM blob WHERE {UNNEEDED_BLOB} RETURNING size_bytes");
        let blobs: Vec<i64> = t
            .prepare_cached(&sql)?
            .query_map([Leased::Blob as i64], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for size in blobs {
            bytes += size.unsigned_abs();
            report.blobs += 1;
        }
        Ok(bytes)
    }

    /// Forgets what is remembered about contexts, and partial blobs.
    fn forget_contexts(
        &self,
        t: &Transaction<'_>,
        policy: Policy,
        report: &mut SweepReport,
    ) -> Result<(), Abort> {
        let before = match policy {
            Policy::All => i64::MAX,
            Policy::KeepDuration(age) => cutoff(age),
            Policy::KeepBytes(_) | Policy::UnusedOnly => return Ok(()),
        };
        report.contexts += t.execute("DELETE FROM tree WHERE used < ?1", [before])? as u64;
        for directory in ["contexts", remotes::FACTS, "blobs/partial"] {
            let directory = self.path(directory);
            for name in self.remotes_in(&directory)? {
                let path = directory.join(&name);
                // A name with a dot is about to be replaced; one so old was left by a kill.
                let before = match name.contains('.') {
                    true => before.min(cutoff(Duration::from_secs(3600))),
                    false => before,
                };
                let used = std::fs::metadata(&path).and_then(|meta| meta.modified());
                if used.is_ok_and(|used| millis(used) < before) && self.discard(&path)?.is_some() {
                    report.contexts += 1;
                }
            }
        }
        Ok(())
    }

    /// Moves directories and files to the trash that no row names; returns how many.
    fn discard_rowless(&self, t: &Transaction<'_>) -> Result<u64, Abort> {
        let mut discarded = 0;
        let layers = self.path("layers");
        for name in self.names_in(&layers)? {
            let content = name.replacen('-', ":", 1).parse::<Content>();
            let known = match &content {
                Ok(content) => layer_exists(t, content)?,
                Err(_) => false,
            };
            discarded += u64::from(!known && self.discard(&layers.join(&name))?.is_some());
        }
        let blobs = self.path("blobs/sha256");
        for name in self.names_in(&blobs)? {
            let digest = format!("sha256:{name}").parse::<BlobDigest>();
            let known = match &digest {
                Ok(digest) => t
                    .prepare_cached("SELECT 1 FROM blob WHERE digest = ?1")?
                    .exists([digest.0])?,
                Err(_) => false,
            };
            discarded += u64::from(!known && self.discard(&blobs.join(&name))?.is_some());
        }
        Ok(discarded)
    }

    fn burn_trash(&self, report: &mut SweepReport) -> Result<(), StoreError> {
        let trash = self.path("trash");
        let mut counted = Counted::default();
        for name in self.names_in(&trash)? {
            let path = trash.join(name);
            // Another sweep may be removing the same; then what it frees is in its report.
            report.bytes += counted.freed(&path).unwrap_or(0);
            self.burn(&path)?;
        }
        Ok(())
    }

    /// The bytes of layers and blobs as their rows tell.
    fn row_bytes(&self) -> Result<u64, StoreError> {
        let bytes: i64 = self.database().read("add up sizes", |c| {
            c.query_row(
                "SELECT (SELECT coalesce(sum(size_bytes), 0) FROM layer)
                 + (SELECT coalesce(sum(size_bytes), 0) FROM blob)",
                [],
                |row| row.get(0),
            )
        })?;
        Ok(bytes.unsigned_abs())
    }

    /// What these directories take, where a policy goes by it.
    fn sizes<'p>(
        paths: impl Iterator<Item = &'p PathBuf>,
        policy: Policy,
    ) -> Result<Vec<(PathBuf, u64)>, StoreError> {
        if !matches!(policy, Policy::KeepBytes(_)) {
            return Ok(Vec::new());
        }
        let mut counted = Counted::default();
        paths
            .map(|path| Ok((path.clone(), counted.all(path)?)))
            .collect()
    }
}

/// Forgets which blobs hold the archives of a layer that is gone.
pub(crate) fn forget_archives(t: &Transaction<'_>, content: &[u8]) -> rusqlite::Result<()> {
    t.prepare_cached("DELETE FROM compressed WHERE content = ?1")?
        .execute([content])?;
    t.prepare_cached("DELETE FROM diff_id WHERE content = ?1")?
        .execute([content])?;
    Ok(())
}

/// Lets layers that were folded of others go; they are made again when needed.
fn forget_folds(t: &Transaction<'_>, policy: Policy) -> rusqlite::Result<()> {
    let before = match policy {
        Policy::UnusedOnly => return Ok(()),
        Policy::KeepDuration(age) => cutoff(age),
        Policy::KeepBytes(_) | Policy::All => i64::MAX,
    };
    t.execute(
        "DELETE FROM fold WHERE content IN (SELECT content FROM layer WHERE used < ?1)
         AND content NOT IN (SELECT object FROM lease WHERE kind = ?2)",
        (before, Leased::Layer as i64),
    )?;
    Ok(())
}

/// Returns what may go with when it was last used, the longest unused first.
fn candidates(
    t: &Transaction<'_>,
    mounts: &[CacheMountInfo],
    repositories: &[RepositoryInfo],
    policy: Policy,
) -> rusqlite::Result<Vec<(i64, Candidate)>> {
    let mut found = Vec::new();
    // What an image of several platforms is made of goes with it.
    let images = "SELECT used, id FROM image WHERE id NOT IN (SELECT image FROM name)
                  AND id NOT IN (SELECT member FROM image_member)
                  AND digest NOT IN (SELECT object FROM lease WHERE kind = ?1)";
    let mut query = t.prepare_cached(images)?;
    let mut rows = query.query([Leased::Image as i64])?;
    while let Some(row) = rows.next()? {
        found.push((row.get(0)?, Candidate::Image(row.get(1)?)));
    }
    if policy != Policy::UnusedOnly {
        let mut leased = std::collections::HashSet::new();
        let mut query = t.prepare_cached("SELECT object FROM lease WHERE kind = ?1")?;
        let mut rows = query.query([Leased::Record as i64])?;
        while let Some(row) = rows.next()? {
            leased.insert(i64::from_be_bytes(row.get(0)?));
        }
        let mut query = t.prepare_cached("SELECT used, id FROM record")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(1)?;
            if !leased.contains(&id) {
                found.push((row.get(0)?, Candidate::Record(RecordId(id))));
            }
        }
        let mut query = t.prepare_cached("SELECT used, id FROM pulled")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            found.push((row.get(0)?, Candidate::Pull(row.get(1)?)));
        }
        let archives = "SELECT used, digest FROM blob WHERE digest IN (SELECT blob FROM compressed)
                        AND digest NOT IN (SELECT object FROM lease WHERE kind = ?1)
                        AND digest NOT IN (SELECT c.blob FROM compressed c
                            JOIN image_layer i ON i.content = c.content
                            WHERE c.compression = ?2)";
        let mut query = t.prepare_cached(archives)?;
        let mut rows = query.query((Leased::Blob as i64, AS_PULLED))?;
        while let Some(row) = rows.next()? {
            found.push((row.get(0)?, Candidate::Archive(BlobDigest(row.get(1)?))));
        }
        let mounts = mounts
            .iter()
            .map(|mount| (millis(mount.used), Candidate::Mount(mount.clone())));
        found.extend(mounts);
        let repositories = repositories
            .iter()
            .cloned()
            .map(|repository| (millis(repository.used), Candidate::Repository(repository)));
        found.extend(repositories);
    }
    found.sort_by_key(|(used, _)| *used);
    Ok(found)
}

fn cutoff(age: Duration) -> i64 {
    SystemTime::now()
        .checked_sub(age)
        .map_or(0, millis)
        .min(now())
}

/// What tombstones say.
fn rule(policy: Policy) -> String {
    match policy {
        Policy::KeepBytes(bytes) => {
            // As it may have been said: in the largest unit that it is a whole number of.
            let units = [
                (1 << 40, "TB"),
                (1 << 30, "GB"),
                (1 << 20, "MB"),
                (1 << 10, "kB"),
            ];
            let fits = |unit: &&(u64, &str)| bytes > 0 && bytes.is_multiple_of(unit.0);
            let (count, unit) = match units.iter().find(fits) {
                Some((unit, name)) => (bytes / unit, *name),
                None => (bytes, "B"),
            };
            format!("prune --keep-storage {count}{unit}")
        }
        Policy::KeepDuration(age) => format!("prune --keep-duration {}s", age.as_secs()),
        Policy::All | Policy::UnusedOnly => "prune".to_owned(),
    }
}
