//! The builds that were run here, for `kiln builds` and `kiln why`.

use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Row, Transaction};

use crate::StoreError;
use crate::store::{Store, millis, time};

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Its id, chosen by the caller.
    pub id: String,
    /// When it began.
    pub started: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// The context as it was given.
    pub context: String,
    /// The Dockerfile as it was given.
    pub dockerfile: String,
    /// The target, or empty.
    pub target: String,
    /// The names that the result got.
    pub tags: Vec<String>,
    /// How it ended: an image id, or an error in one line.
    pub result: String,
    /// What became of each step and why, encoded by the caller.
    pub steps: Vec<u8>,
    /// What else there is to know of it, encoded by the caller.
    pub details: Vec<u8>,
}

/// A build that is to be remembered, with what is too much to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBuild {
    /// The build.
    pub build: Build,
    /// Its plan, encoded by the caller.
    pub plan: Vec<u8>,
    /// What its steps wrote.
    pub logs: Vec<StepLog>,
}

/// What a step wrote: the beginning and the end, if it was too much to keep all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepLog {
    /// The number of the step, as the caller counts them.
    pub step: u32,
    /// How much it was in all.
    pub bytes: u64,
    /// The beginning.
    pub head: Vec<u8>,
    /// The end, where that is not in the beginning.
    pub tail: Vec<u8>,
}

impl StepLog {
    /// How much of it was not kept.
    pub fn left_out_bytes(&self) -> u64 {
        let kept = (self.head.len() + self.tail.len()) as u64;
        self.bytes.saturating_sub(kept)
    }
}

/// What a prefix of an id finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundBuild {
    /// No build.
    None,
    /// One.
    One(Box<Build>),
    /// Several, whose ids these are; not all of them if there are many.
    Several(Vec<String>),
}

impl Store {
    /// Remembers a build, and forgets the oldest beyond the number kept.
    pub fn put_build(&self, new: &NewBuild) -> Result<(), StoreError> {
        let build = &new.build;
        let tags = serde_json::to_string(&build.tags).expect("BUG: strings are always JSON");
        let duration = i64::try_from(build.duration.as_micros()).unwrap_or(i64::MAX);
        self.database().write("remember a build", |t| {
            t.execute(
                "INSERT OR REPLACE INTO build (id, started, duration, context, dockerfile, target,
                 tags, result, steps) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                (
                    &build.id,
                    millis(build.started),
                    duration,
                    &build.context,
                    &build.dockerfile,
                    &build.target,
                    tags,
                    &build.result,
                    &build.steps,
                ),
            )?;
            let seq = t.last_insert_rowid();
            t.prepare_cached("INSERT INTO build_detail (build, details, plan) VALUES (?1, ?2, ?3)")?
                .execute((seq, &build.details, &new.plan))?;
            let mut insert = t.prepare_cached(
                "INSERT INTO build_log (build, step, bytes, head, tail) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for log in &new.logs {
                let bytes = i64::try_from(log.bytes).unwrap_or(i64::MAX);
                insert.execute((seq, log.step, bytes, &log.head, &log.tail))?;
            }
            let forgotten = t.execute(
                "DELETE FROM build WHERE seq NOT IN (SELECT seq FROM build ORDER BY seq DESC LIMIT ?1)",
                [self.options().keep_builds],
            )?;
            if forgotten > 0 {
                forget_details(t)?;
            }
            Ok(())
        })
    }

    /// Returns when the latest `limit` builds began and their details, the latest first.
    pub fn build_details(&self, limit: usize) -> Result<Vec<(SystemTime, Vec<u8>)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database().read("list details of builds", |c| {
            c.prepare_cached(
                "SELECT b.started, d.details FROM build b JOIN build_detail d ON d.build = b.seq
                 ORDER BY b.seq DESC LIMIT ?1",
            )?
            .query_map([limit], |row| Ok((time(row.get(0)?), row.get(1)?)))?
            .collect()
        })
    }

    /// Returns the plan of a build, as it was encoded; none if the build is forgotten or had none.
    pub fn build_plan(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.database().read("read the plan of a build", |c| {
            c.prepare_cached(
                "SELECT d.plan FROM build_detail d JOIN build b ON b.seq = d.build WHERE b.id = ?1",
            )?
            .query_row([id], |row| row.get(0))
            .optional()
        })
    }

    /// Returns what the steps of a build wrote, in the order of the steps.
    pub fn build_logs(&self, id: &str) -> Result<Vec<StepLog>, StoreError> {
        self.database().read("read the output of a build", |c| {
            c.prepare_cached(
                "SELECT l.step, l.bytes, l.head, l.tail FROM build_log l
                 JOIN build b ON b.seq = l.build WHERE b.id = ?1 ORDER BY l.step",
            )?
            .query_map([id], |row| {
                Ok(StepLog {
                    step: row.get(0)?,
                    bytes: row.get::<_, i64>(1)?.unsigned_abs(),
                    head: row.get(2)?,
                    tail: row.get(3)?,
                })
            })?
            .collect()
        })
    }

    /// Forgets a build with all that is kept of it; tells whether it was there.
    pub fn forget_build(&self, id: &str) -> Result<bool, StoreError> {
        self.database().write("forget a build", |t| {
            let forgotten = t.execute("DELETE FROM build WHERE id = ?1", [id])?;
            forget_details(t)?;
            Ok(forgotten > 0)
        })
    }

    /// Lists the latest `limit` builds, the latest first.
    pub fn builds(&self, limit: usize) -> Result<Vec<Build>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database().read("list builds", |c| {
            c.prepare_cached(&select("ORDER BY b.seq DESC LIMIT ?1"))?
                .query_map([limit], build)?
                .collect()
        })
    }

    /// Finds the build whose id begins with `prefix`, or is all of it.
    pub fn build(&self, prefix: &str) -> Result<FoundBuild, StoreError> {
        /// So many are named where there are several.
        const NAMED: usize = 6;
        let mut found: Vec<Build> = self.database().read("look up a build", |c| {
            c.prepare_cached(&select(
                "WHERE substr(b.id, 1, length(?1)) = ?1 ORDER BY b.seq DESC LIMIT ?2",
            ))?
            .query_map((prefix, NAMED as i64), build)?
            .collect()
        })?;
        if let Some(whole) = found.iter().position(|build| build.id == prefix) {
            return Ok(FoundBuild::One(Box::new(found.swap_remove(whole))));
        }
        Ok(match found.len() {
            0 => FoundBuild::None,
            1 => FoundBuild::One(Box::new(found.swap_remove(0))),
            _ => FoundBuild::Several(found.into_iter().map(|build| build.id).collect()),
        })
    }
}

/// Removes what belongs to builds that are not there any more; returns how many had any.
pub(crate) fn forget_details(t: &Transaction<'_>) -> rusqlite::Result<usize> {
    t.execute(
        "DELETE FROM build_log WHERE build NOT IN (SELECT seq FROM build)",
        [],
    )?;
    t.execute(
        "DELETE FROM build_detail WHERE build NOT IN (SELECT seq FROM build)",
        [],
    )
}

/// Forgets the builds that began before a time; returns how many.
pub(crate) fn forget_older(t: &Transaction<'_>, before: i64) -> rusqlite::Result<usize> {
    let forgotten = t.execute("DELETE FROM build WHERE started < ?1", [before])?;
    forget_details(t)?;
    Ok(forgotten)
}

fn select(rest: &str) -> String {
    format!(
        "SELECT b.id, b.started, b.duration, b.context, b.dockerfile, b.target, b.tags, b.result,
         b.steps, coalesce(d.details, x'') FROM build b LEFT JOIN build_detail d ON d.build = b.seq {rest}"
    )
}

fn build(row: &Row<'_>) -> rusqlite::Result<Build> {
    let tags: String = row.get(6)?;
    Ok(Build {
        id: row.get(0)?,
        started: time(row.get(1)?),
        duration: Duration::from_micros(row.get::<_, i64>(2)?.unsigned_abs()),
        context: row.get(3)?,
        dockerfile: row.get(4)?,
        target: row.get(5)?,
        tags: serde_json::from_str(&tags).unwrap_or_default(),
        result: row.get(7)?,
        steps: row.get(8)?,
        details: row.get(9)?,
    })
}
