//! What has happened so far in a build: the state that every view draws.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use kiln::{BlobState, Event, OutputLines, StepIndex, StepInfo, StepStatus, WaitsFor};

use super::{transfers, words};

/// So many lines of output are kept of each step.
const TAIL_LINES: usize = 200;

/// One transfer within a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer {
    pub(super) done_bytes: u64,
    pub(super) total_bytes: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Step {
    pub(super) info: StepInfo,
    pub(super) started: Option<Instant>,
    /// It does not run: its layers come from a cache elsewhere.
    pub(super) is_brought: bool,
    pub(super) ended: Option<(StepStatus, String)>,
    pub(super) waiting_for: Option<(WaitsFor, Option<u32>)>,
    pub(super) transfers: BTreeMap<String, Transfer>,
    pub(super) tail: VecDeque<String>,
    end: OutputLines,
}

impl Step {
    pub(super) fn is_running(&self) -> bool {
        self.started.is_some() && self.ended.is_none()
    }

    fn has_failed(&self) -> bool {
        matches!(self.ended, Some((StepStatus::Failed, _)))
    }

    /// Whether anything of it is on its way from a cache elsewhere.
    pub(super) fn is_coming(&self) -> bool {
        let mut transfers = self.transfers.values();
        self.is_brought && transfers.any(|moved| moved.total_bytes != Some(moved.done_bytes))
    }

    fn keep(&mut self, lines: &[String]) {
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            if self.tail.len() == TAIL_LINES {
                self.tail.pop_front();
            }
            self.tail.push_back(line.clone());
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) steps: Vec<Step>,
    pub(super) notices: Vec<String>,
    pub(super) exporting: Vec<(String, Instant)>,
    /// Blobs on their way to registries, by digest.
    pub(super) sending: BTreeMap<String, (u64, BlobState)>,
}

impl Board {
    /// Takes in one event; returns the lines of output that it completed.
    pub(super) fn on(&mut self, event: &Event, now: Instant) -> Vec<String> {
        match event {
            Event::Planned { steps } => {
                self.steps = steps
                    .iter()
                    .map(|info| Step {
                        info: StepInfo {
                            stage: words::visible(&info.stage),
                            text: words::visible(&info.text),
                            ..info.clone()
                        },
                        started: None,
                        is_brought: false,
                        ended: None,
                        waiting_for: None,
                        transfers: BTreeMap::new(),
                        tail: VecDeque::new(),
                        end: OutputLines::default(),
                    })
                    .collect();
            }
            Event::Started { step } => {
                if let Some(step) = self.steps.get_mut(*step) {
                    step.started = Some(now);
                    step.waiting_for = None;
                    // What could not be had elsewhere is made here.
                    if std::mem::take(&mut step.is_brought) {
                        step.transfers.clear();
                    }
                }
            }
            Event::Output { step, bytes, .. } => return self.output(*step, bytes),
            Event::Progress {
                step,
                what,
                done_bytes,
                total_bytes,
            } => {
                // What was on its way when the step failed is of no use.
                let step = self.steps.get_mut(*step);
                if let Some(step) = step.filter(|step| !step.has_failed()) {
                    // What is brought from a cache elsewhere, of a step that is known to be cached.
                    if !step.is_running() {
                        step.started.get_or_insert(now);
                        step.is_brought = true;
                    }
                    let transfer = Transfer {
                        done_bytes: *done_bytes,
                        total_bytes: *total_bytes,
                    };
                    step.transfers.insert(words::visible(what), transfer);
                }
            }
            Event::Waiting { step, what, pid } => {
                if let Some(step) = self.steps.get_mut(*step) {
                    step.waiting_for = Some((what.clone(), *pid));
                }
            }
            Event::Finished {
                step,
                status,
                reason,
            } => {
                let rest = self.flush(*step);
                if let Some(step) = self.steps.get_mut(*step) {
                    step.ended = Some((status.clone(), words::visible(reason)));
                    step.waiting_for = None;
                }
                return rest;
            }
            // Warned of below the last picture.
            Event::Understood(_) | Event::Warning(_) => {}
            Event::Explained { .. } => {}
            Event::Notice(text) => self.notices.push(words::visible(text)),
            Event::Sending {
                digest,
                size_bytes,
                state,
            } => {
                let blob = (*size_bytes, state.clone());
                // A piece may be heard of after the end.
                let known = self.sending.get(digest);
                if !known.is_some_and(|(_, known)| transfers::is_done(known)) {
                    self.sending.insert(words::visible(digest), blob);
                }
            }
            Event::Exporting(what) => {
                self.exporting.push((words::visible(what), now));
                // The same blobs may go to one place more.
                self.sending.clear();
            }
            Event::Exported { what, .. } => {
                let what = words::visible(what);
                self.exporting.retain(|(name, _)| *name != what);
            }
        }
        Vec::new()
    }

    fn output(&mut self, index: StepIndex, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(step) = self.steps.get_mut(index) {
            step.end.push(bytes, |line| lines.push(readable(line)));
            step.keep(&lines);
        }
        lines
    }

    fn flush(&mut self, index: StepIndex) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(step) = self.steps.get_mut(index) {
            step.end.finish(|line| lines.push(readable(line)));
            step.keep(&lines);
        }
        lines
    }

    /// How many steps are cached, ran, failed, or never came to it.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally {
            steps: self.steps.len(),
            ..Tally::default()
        };
        for step in &self.steps {
            match &step.ended {
                Some((StepStatus::Cached, _)) => tally.cached += 1,
                Some((StepStatus::Ran(_), _)) => tally.ran += 1,
                Some((StepStatus::Failed, _)) => tally.failed += 1,
                Some((StepStatus::Cancelled | StepStatus::Skipped, _)) | None => tally.not_run += 1,
            }
        }
        tally
    }

    /// The widest stage name.
    pub(super) fn stage_width(&self) -> usize {
        self.steps
            .iter()
            .map(|step| console::measure_text_width(&step.info.stage))
            .max()
            .unwrap_or(0)
    }
}

/// Steps by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) steps: usize,
    pub(super) cached: usize,
    pub(super) ran: usize,
    pub(super) failed: usize,
    pub(super) not_run: usize,
}

fn readable(line: &[u8]) -> String {
    words::plain(&String::from_utf8_lossy(line))
}

/// How long a step that runs has been running.
pub(super) fn elapsed(step: &Step, now: Instant) -> Duration {
    step.started.map_or(Duration::ZERO, |started| {
        now.saturating_duration_since(started)
    })
}
