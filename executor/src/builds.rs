//! What is remembered of builds.

use std::time::{Duration, SystemTime};

use kiln_store::Build;

use crate::error::Error;
use crate::executor::Executor;
use crate::source::ago;

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedBuild {
    /// Its id, unique in the store.
    pub id: String,
    /// When it began.
    pub started: SystemTime,
    /// When it began, such as `3 minutes ago`.
    pub age: String,
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
    /// What became of each step, as its recorder encoded it.
    pub steps: Vec<u8>,
}

impl Executor {
    /// Remembers a build.
    pub fn record_build(&self, build: RecordedBuild) -> Result<(), Error> {
        Ok(self.store().put_build(&Build {
            id: build.id,
            started: build.started,
            duration: build.duration,
            context: build.context,
            dockerfile: build.dockerfile,
            target: build.target,
            tags: build.tags,
            result: build.result,
            steps: build.steps,
        })?)
    }

    /// Lists the latest builds, the latest first.
    pub fn builds(&self, limit: usize) -> Result<Vec<RecordedBuild>, Error> {
        let builds = self.store().builds(limit)?;
        Ok(builds
            .into_iter()
            .map(|build| RecordedBuild {
                age: ago(build.started),
                id: build.id,
                started: build.started,
                duration: build.duration,
                context: build.context,
                dockerfile: build.dockerfile,
                target: build.target,
                tags: build.tags,
                result: build.result,
                steps: build.steps,
            })
            .collect())
    }

    /// Tells whether a loss of power could take results of finished builds.
    pub fn has_volatile(&self) -> Result<bool, Error> {
        Ok(self.store().has_volatile()?)
    }

    /// Lets the results of finished builds outlive a loss of power.
    ///
    /// Waits for the disk, which may take a second: call it when nobody waits for you.
    pub fn make_durable(&self) -> Result<(), Error> {
        Ok(self.store().mark_durable()?)
    }
}
