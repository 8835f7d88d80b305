//! When each step of a build began and ended, what it moved, and what it wrote.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kiln_solver::{Content, Outputs};

use crate::explanation::Explanation;
use crate::log::Log;
use crate::{ExportRecord, StepIndex};

/// What is remembered of the steps while they go on; times are since the build began.
#[derive(Debug)]
pub(crate) struct Trace {
    clock: Instant,
    steps: BTreeMap<StepIndex, StepTrace>,
    exports: Vec<ExportRecord>,
}

/// The same of one step.
#[derive(Debug, Default)]
pub(crate) struct StepTrace {
    pub(crate) started: Option<Duration>,
    pub(crate) ended: Option<Duration>,
    /// By what is moved, the most that was seen of it.
    pulled: BTreeMap<String, u64>,
    pub(crate) log: Log,
    pub(crate) explanation: Explanation,
    /// What it made or would have made.
    pub(crate) output: Option<Content>,
}

impl StepTrace {
    /// The bytes that were brought here for it.
    pub(crate) fn pulled_bytes(&self) -> u64 {
        self.pulled.values().sum()
    }
}

impl Trace {
    pub(crate) fn new(clock: Instant) -> Trace {
        Trace {
            clock,
            steps: BTreeMap::new(),
            exports: Vec::new(),
        }
    }

    pub(crate) fn step(&mut self, step: StepIndex) -> &mut StepTrace {
        self.steps.entry(step).or_default()
    }

    pub(crate) fn started(&mut self, step: StepIndex) {
        let now = self.clock.elapsed();
        // A step of several parts began with the first.
        self.step(step).started.get_or_insert(now);
    }

    pub(crate) fn ended(&mut self, step: StepIndex) {
        let now = self.clock.elapsed();
        self.step(step).ended = Some(now);
    }

    pub(crate) fn moved(&mut self, step: StepIndex, what: &str, bytes: u64) {
        let pulled = &mut self.step(step).pulled;
        match pulled.get_mut(what) {
            Some(most) => *most = bytes.max(*most),
            None => drop(pulled.insert(what.to_owned(), bytes)),
        }
    }

    pub(crate) fn recorded(&mut self, step: StepIndex, outputs: Outputs<Content>) {
        self.step(step).output = outputs.into_iter().flatten().next();
    }

    pub(crate) fn exporting(&mut self, what: &str) {
        let started = self.clock.elapsed();
        self.exports.push(ExportRecord {
            what: what.to_owned(),
            started_micros: micros(started),
            took_micros: 0,
        });
    }

    pub(crate) fn exported(&mut self, what: &str) {
        let now = micros(self.clock.elapsed());
        let mut exports = self.exports.iter_mut().rev();
        if let Some(export) = exports.find(|export| export.what == what) {
            export.took_micros = now.saturating_sub(export.started_micros);
        }
    }

    /// All of it, when nothing happens any more.
    pub(crate) fn take(&mut self) -> (BTreeMap<StepIndex, StepTrace>, Vec<ExportRecord>) {
        (
            std::mem::take(&mut self.steps),
            std::mem::take(&mut self.exports),
        )
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
