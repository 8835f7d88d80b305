//! What is remembered of a build: each step, what became of it and why.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use kiln_executor::{
    Build, Error as ExecutorError, FoundBuild, NewBuild, Past, PastBuild, StepLog, ago,
};
use kiln_ir::Plan;
use serde::{Deserialize, Serialize};

use crate::cache::RememberedCache;
use crate::explanation::Explanation;
use crate::log;
use crate::trace::{StepTrace, micros};
use crate::{Error, Kiln, StepIndex, StepInfo, StepStatus};

mod json;

/// Of so many builds those of the same file are looked for,
const LATEST_BUILDS: usize = 50;
/// and so many of them say what a step was: a later one may have had another target.
const PAST_BUILDS: usize = 3;

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
    /// What else there is to know of it.
    pub details: BuildDetails,
    /// Its steps in the order of the file.
    pub steps: Vec<StepRecord>,
}

/// What else is remembered of a build; all of it empty for builds of kiln versions that kept less.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildDetails {
    /// How it ended; none where that was not kept.
    pub outcome: Option<Outcome>,
    /// The version of kiln.
    pub kiln: String,
    /// What its steps are filed under in the store, with other builds of the same context and Dockerfile.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lineage: String,
    /// What it was for.
    pub platforms: Vec<String>,
    /// What was asked for beyond the context, as arguments of the command. No value of a secret, and
    /// no credential.
    pub arguments: Vec<String>,
    /// What was written when all steps were done.
    pub exports: Vec<ExportRecord>,
    /// What is needed to export its results later.
    #[serde(skip_serializing_if = "RememberedCache::is_empty")]
    pub cache: RememberedCache,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It has a result.
    Done,
    /// Something failed.
    Failed,
    /// It was stopped.
    Interrupted,
}

/// One thing that was written when all steps were done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRecord {
    /// What.
    pub what: String,
    /// When it began, since the build did.
    pub started_micros: u64,
    /// How long it took.
    pub took_micros: u64,
}

/// A step that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// When it began to run, since the build did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_micros: Option<u64>,
    /// What the files take that it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
    /// What was brought here for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled_bytes: Option<u64>,
    /// How much it printed; not all of that may be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// The steps that it reads from, by their indices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<usize>,
    /// Everything behind its reason.
    #[serde(default)]
    pub explanation: Explanation,
}

impl StepRecord {
    /// How long it ran, if it did.
    pub fn ran(&self) -> Option<Duration> {
        self.ran_micros.map(Duration::from_micros)
    }

    /// When it ended, since the build began; none if it did not run.
    pub fn ended_micros(&self) -> Option<u64> {
        Some(self.started_micros? + self.ran_micros?)
    }

    fn new(
        info: &StepInfo,
        ended: Option<&(StepStatus, String)>,
        trace: &StepTrace,
        needs: Vec<usize>,
    ) -> StepRecord {
        let here = match (trace.started, trace.ended) {
            (Some(started), Some(ended)) => Some(ended.saturating_sub(started)),
            _ => None,
        };
        let (status, ran) = match ended.map(|(status, _)| status) {
            Some(StepStatus::Cached) => ("cached", None),
            Some(StepStatus::Ran(time)) => ("ran", Some(*time)),
            Some(StepStatus::Failed) => ("failed", here),
            Some(StepStatus::Cancelled) => ("cancelled", here),
            Some(StepStatus::Skipped) | None => ("not run", None),
        };
        StepRecord {
            stage: info.stage.clone(),
            text: info.text.clone(),
            line: info.line,
            status: status.to_owned(),
            ran_micros: ran.map(micros),
            reason: ended.map(|(_, reason)| reason.clone()).unwrap_or_default(),
            started_micros: ran.and(trace.started).map(micros),
            written_bytes: None,
            pulled_bytes: Some(trace.pulled_bytes()).filter(|bytes| *bytes > 0),
            output_bytes: Some(trace.log.bytes).filter(|bytes| *bytes > 0),
            needs,
            explanation: trace.explanation.clone(),
        }
    }
}

impl BuildRecord {
    /// The steps that decided how long it took, first to last: from the one that ended last back to
    /// whichever of those that it reads from ended last.
    pub fn critical_path(&self) -> Vec<usize> {
        let mut ends: Vec<Option<u64>> = Vec::with_capacity(self.steps.len());
        // A cached step is as late as the latest that it needs.
        let mut latest: Vec<Option<usize>> = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let before = step.needs.iter().copied().filter(|need| *need < index);
            let before = before.max_by_key(|need| ends[*need]);
            ends.push(
                step.ended_micros()
                    .or_else(|| before.and_then(|need| ends[need])),
            );
            latest.push(before);
        }
        let last = (0..self.steps.len()).max_by_key(|index| ends[*index]);
        let mut path = Vec::new();
        let mut next = last.filter(|index| ends[*index].is_some());
        while let Some(index) = next {
            if self.steps[index].ran_micros.is_some() {
                path.push(index);
            }
            next = latest[index].filter(|need| ends[*need].is_some());
        }
        path.reverse();
        path
    }

    /// How many steps are cached, and how many there are.
    pub fn hits(&self) -> (usize, usize) {
        let cached = |step: &&StepRecord| step.status == "cached";
        (self.steps.iter().filter(cached).count(), self.steps.len())
    }

    /// The sum of something over all steps.
    pub fn total(&self, bytes: impl Fn(&StepRecord) -> Option<u64>) -> u64 {
        self.steps.iter().filter_map(bytes).sum()
    }

    /// How it ended, in one word.
    pub fn outcome(&self) -> &'static str {
        match self.details.outcome {
            Some(Outcome::Done) => "done",
            Some(Outcome::Failed) => "failed",
            Some(Outcome::Interrupted) => "interrupted",
            None if self.result.starts_with("sha256:") => "done",
            None => "",
        }
    }

    /// The indices of the steps that a word picks: a number from 1, a stage, or a part of the text.
    pub fn pick(&self, word: Option<&str>) -> Vec<usize> {
        let all = 0..self.steps.len();
        let Some(word) = word else {
            return all.collect();
        };
        if let Ok(number) = word.trim_start_matches('#').parse::<usize>()
            && (1..=self.steps.len()).contains(&number)
        {
            return vec![number - 1];
        }
        let picked = |index: &usize| {
            let step = &self.steps[*index];
            // The stage of a build for several platforms has the platform before its name.
            let name = step.stage.rsplit(' ').next();
            step.text.contains(word) || step.stage == word || name == Some(word)
        };
        all.filter(picked).collect()
    }
}

/// What a build leaves to be remembered.
pub(crate) struct Ended<'a> {
    pub(crate) build: BuildRecord,
    pub(crate) plan: &'a Plan,
    pub(crate) infos: &'a [StepInfo],
    pub(crate) needs: Vec<Vec<usize>>,
    pub(crate) endings: BTreeMap<StepIndex, (StepStatus, String)>,
    pub(crate) traces: BTreeMap<StepIndex, StepTrace>,
}

impl Kiln {
    /// Remembers a build, in one transaction that waits for no disk.
    pub(crate) fn remember(&self, ended: Ended<'_>) -> Result<(), ExecutorError> {
        let Ended {
            build,
            plan,
            infos,
            needs,
            endings,
            mut traces,
        } = ended;
        let mut steps = Vec::with_capacity(infos.len());
        let mut logs = Vec::with_capacity(infos.len());
        for (index, (info, needs)) in infos.iter().zip(needs).enumerate() {
            let mut trace = traces.remove(&index).unwrap_or_default();
            let mut step = StepRecord::new(info, endings.get(&index), &trace, needs);
            if let ("ran", Some(output)) = (step.status.as_str(), &trace.output) {
                step.written_bytes = self.executor.own_layer_bytes(output)?;
            }
            steps.push(step);
            logs.push(std::mem::take(&mut trace.log));
        }
        let logs = (0..).zip(log::kept(logs));
        let logs = logs.filter(|(_, (bytes, ..))| *bytes > 0);
        self.executor.record_build(&NewBuild {
            logs: logs
                .map(|(step, (bytes, head, tail))| StepLog {
                    step,
                    bytes,
                    head,
                    tail,
                })
                .collect(),
            plan: kiln_ir::json::to_json(plan).into_bytes(),
            build: Build {
                id: build.id,
                started: build.started,
                duration: build.duration,
                context: build.context,
                dockerfile: build.dockerfile,
                target: build.target,
                tags: build.tags,
                result: build.result,
                steps: serde_json::to_vec(&steps).expect("BUG: steps are always JSON"),
                details: serde_json::to_vec(&build.details).expect("BUG: details are always JSON"),
            },
        })
    }

    /// The last builds of a context and Dockerfile that came to a result, for reasons of the next.
    pub(crate) fn past(&self, lineage: &str) -> Past {
        let (executor, lineage) = (self.executor.clone(), lineage.to_owned());
        Past::new(move || {
            let builds = executor.recorded_details(LATEST_BUILDS).unwrap_or_default();
            let builds = builds.into_iter().filter_map(|(started, details)| {
                let details: BuildDetails = serde_json::from_slice(&details).ok()?;
                let definitions = details.cache.definitions();
                let is_past = details.lineage == lineage && !definitions.is_empty();
                is_past.then_some(PastBuild {
                    started,
                    definitions,
                })
            });
            builds.take(PAST_BUILDS).collect()
        })
    }

    /// Lists the latest builds, the latest first.
    pub fn builds(&self, limit: usize) -> Result<Vec<BuildRecord>, Error> {
        let builds = self.executor.recorded_builds(limit)?;
        Ok(builds.into_iter().map(recalled).collect())
    }

    /// Finds a build: by the beginning of its id, `latest`, or `latest~2` for the one two before.
    pub fn recall(&self, id: &str) -> Result<BuildRecord, Error> {
        let unknown = || Error::Usage {
            message: format!("no build with the id `{id}` is remembered"),
            hint: Some("`kiln builds ls` lists those that are".to_owned()),
        };
        let before = match id.strip_prefix("latest") {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix('~').and_then(|count| count.parse().ok()),
            None => None,
        };
        if let Some(before) = before {
            let builds = self.executor.recorded_builds(before + 1)?;
            if builds.is_empty() {
                return Err(Error::Usage {
                    message: "no build is remembered in this store".to_owned(),
                    hint: Some("`kiln build .` makes the first".to_owned()),
                });
            }
            return builds
                .into_iter()
                .nth(before)
                .map(recalled)
                .ok_or_else(unknown);
        }
        match self.executor.recorded_build(id)? {
            FoundBuild::One(build) if !id.is_empty() => Ok(recalled(*build)),
            FoundBuild::Several(ids) if !id.is_empty() => Err(Error::Usage {
                message: format!("several builds have an id that begins with `{id}`"),
                hint: Some(format!("among them {}", ids.join(", "))),
            }),
            _ => Err(unknown()),
        }
    }

    /// What the steps of a build wrote, as far as it is kept, with the index of each step.
    pub fn logs(&self, build: &BuildRecord) -> Result<Vec<StepLog>, Error> {
        Ok(self.executor.recorded_logs(&build.id)?)
    }

    /// The plan of a build; none if it was not kept, or is of another version of kiln.
    pub fn plan_of(&self, build: &BuildRecord) -> Result<Option<Plan>, Error> {
        let kept = self.executor.recorded_plan(&build.id)?;
        let text = kept.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(text.and_then(|text| kiln_ir::json::from_json(&text).ok()))
    }

    /// Finds the builds whose runs left the records that `build` found, by the index of its step.
    pub fn origins(&self, build: &BuildRecord) -> Result<BTreeMap<usize, BuildRecord>, Error> {
        let id = |step: &StepRecord| step.explanation.record.map(|record| record.id);
        let cached = build.steps.iter().enumerate();
        let mut wanted: BTreeMap<i64, usize> = cached
            .filter(|(_, step)| step.status == "cached")
            .filter_map(|(index, step)| Some((id(step)?, index)))
            .collect();
        let mut origins = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(origins);
        }
        for origin in self.builds(usize::MAX)? {
            let ran = origin.steps.iter().filter(|step| step.status == "ran");
            let left: Vec<usize> = ran.filter_map(|step| wanted.remove(&id(step)?)).collect();
            origins.extend(left.into_iter().map(|index| (index, origin.clone())));
        }
        Ok(origins)
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
        // A build of another version is shown without what that kept otherwise.
        details: serde_json::from_slice(&build.details).unwrap_or_default(),
        steps: serde_json::from_slice(&build.steps).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a step began and ended, and what it had to wait for.
    type Ran<'a> = (Option<(u64, u64)>, &'a [usize]);

    fn build(steps: &[Ran<'_>]) -> BuildRecord {
        let step = |(ran, needs): &(Option<(u64, u64)>, &[usize])| StepRecord {
            status: if ran.is_some() { "ran" } else { "cached" }.to_owned(),
            started_micros: ran.map(|(start, _)| start),
            ran_micros: ran.map(|(_, took)| took),
            needs: needs.to_vec(),
            ..StepRecord::default()
        };
        BuildRecord {
            id: "abc".into(),
            age: String::new(),
            started: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            context: ".".into(),
            dockerfile: "Dockerfile".into(),
            target: String::new(),
            tags: Vec::new(),
            result: String::new(),
            details: BuildDetails::default(),
            steps: steps.iter().map(step).collect(),
        }
    }

    #[test]
    fn the_critical_path_goes_back_from_the_last_end() {
        let path = |steps: &[Ran<'_>]| build(steps).critical_path();
        assert!(path(&[]).is_empty());
        assert!(path(&[(None, &[]), (None, &[0])]).is_empty());
        // Two stages, the second of which took longer, and a step that needs both.
        let diamond: [Ran<'_>; 4] = [
            (None, &[]),
            (Some((0, 10)), &[0]),
            (Some((0, 30)), &[0]),
            (Some((30, 5)), &[1, 2]),
        ];
        assert_eq!(path(&diamond), [2, 3]);
        // What was cut off in between is not on it, but what is before that is.
        let cut: [Ran<'_>; 3] = [(Some((0, 10)), &[]), (None, &[0]), (Some((12, 1)), &[1])];
        assert_eq!(path(&cut), [0, 2]);
    }
}
