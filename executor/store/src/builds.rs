//! The builds that were run here, for `kiln builds` and `kiln why`.

use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Row};

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
}

impl Store {
    /// Remembers a build, and forgets the oldest beyond the number kept.
    pub fn put_build(&self, build: &Build) -> Result<(), StoreError> {
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
            t.execute(
                "DELETE FROM build WHERE seq NOT IN (SELECT seq FROM build ORDER BY seq DESC LIMIT ?1)",
                [self.options().keep_builds],
            )?;
            Ok(())
        })
    }

    /// Lists the latest `limit` builds, the latest first.
    pub fn builds(&self, limit: usize) -> Result<Vec<Build>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database().read("list builds", |c| {
            c.prepare_cached(&select("ORDER BY seq DESC LIMIT ?1"))?
                .query_map([limit], build)?
                .collect()
        })
    }

    /// Returns the build whose id begins with `prefix`; the latest, if there are several.
    pub fn build(&self, prefix: &str) -> Result<Option<Build>, StoreError> {
        self.database().read("look up a build", |c| {
            c.prepare_cached(&select(
                "WHERE substr(id, 1, length(?1)) = ?1 ORDER BY seq DESC LIMIT 1",
            ))?
            .query_row([prefix], build)
            .optional()
        })
    }
}

fn select(rest: &str) -> String {
    format!(
        "SELECT id, started, duration, context, dockerfile, target, tags, result, steps
         FROM build {rest}"
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
    })
}
