//! What is remembered of a build: each step, what became of it and why.

use std::time::{Duration, SystemTime};

use kiln_executor::{Build, Error as ExecutorError, ago};
use serde::{Deserialize, Serialize};

use crate::{Error, Kiln, StepInfo, StepStatus};

/// A build that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecord {
    /// Its id.
    pub id: String,
    /// When it began, such as `3 minutes ago`.
    pub age: String,
    /// When it began.
    pub started: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// The context.
    pub context: String,
    /// The Dockerfile.
    pub dockerfile: String,
    /// The target, or empty.
    pub target: String,
    /// The names that the image got.
    pub tags: Vec<String>,
    /// An image id, or how the build failed.
    pub result: String,
    /// Its steps in the order of the file.
    pub steps: Vec<StepRecord>,
}

/// A step that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its stage.
    pub stage: String,
    /// The instruction.
    pub text: String,
    /// The line it begins on; 0 where there is none.
    pub line: u32,
    /// `cached`, `ran`, `failed`, `cancelled` or `not run`.
    pub status: String,
    /// How long it ran.
    pub ran_micros: Option<u64>,
    /// Why, in words; empty where there is nothing to say.
    pub reason: String,
}

impl StepRecord {
    pub(crate) fn new(info: &StepInfo, ended: Option<&(StepStatus, String)>) -> StepRecord {
        let (status, ran) = match ended.map(|(status, _)| status) {
            Some(StepStatus::Cached) => ("cached", None),
            Some(StepStatus::Ran(time)) => ("ran", Some(*time)),
            Some(StepStatus::Failed) => ("failed", None),
            Some(StepStatus::Cancelled) => ("cancelled", None),
            Some(StepStatus::Skipped) | None => ("not run", None),
        };
        StepRecord {
            stage: info.stage.clone(),
            text: info.text.clone(),
            line: info.line,
            status: status.to_owned(),
            ran_micros: ran.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            reason: ended.map(|(_, reason)| reason.clone()).unwrap_or_default(),
        }
    }

    /// How long it ran, if it did.
    pub fn ran(&self) -> Option<Duration> {
        self.ran_micros.map(Duration::from_micros)
    }
}

impl Kiln {
    pub(crate) fn remember(&self, build: BuildRecord) -> Result<(), ExecutorError> {
        let steps = serde_json::to_vec(&build.steps).expect("BUG: steps are always JSON");
        self.executor.record_build(&Build {
            id: build.id,
            started: build.started,
            duration: build.duration,
            context: build.context,
            dockerfile: build.dockerfile,
            target: build.target,
            tags: build.tags,
            result: build.result,
            steps,
        })
    }

    /// Lists the latest builds, the latest first.
    pub fn builds(&self, limit: usize) -> Result<Vec<BuildRecord>, Error> {
        let builds = self.executor.builds(limit)?;
        Ok(builds.into_iter().map(recalled).collect())
    }

    /// Returns why each step of a build ran or did not: of the one whose id begins so, else of the
    /// last.
    pub fn why(&self, id: Option<&str>) -> Result<BuildRecord, Error> {
        // Every id begins with nothing.
        let found = self.executor.build_by_id(id.unwrap_or_default())?;
        let found = found.map(recalled);
        found.ok_or_else(|| Error::Usage {
            message: match id {
                Some(id) => format!("no build with the id `{id}` is remembered"),
                None => "no build is remembered in this store".to_owned(),
            },
            hint: Some(match id {
                Some(_) => "`kiln builds ls` lists those that are".to_owned(),
                None => "`kiln build .` makes the first".to_owned(),
            }),
        })
    }
}

fn recalled(build: Build) -> BuildRecord {
    BuildRecord {
        id: build.id,
        age: ago(build.started),
        started: build.started,
        duration: build.duration,
        context: build.context,
        dockerfile: build.dockerfile,
        target: build.target,
        tags: build.tags,
        result: build.result,
        // A build of another version is shown without its steps.
        steps: serde_json::from_slice(&build.steps).unwrap_or_default(),
    }
}
