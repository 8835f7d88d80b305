//! What a build tells while it goes on.

use std::time::Duration;

use kiln_executor::BlobState;
use kiln_solver::WaitsFor;

use crate::{Explanation, Findings};

/// A step as people see it, by its index in [`Event::Planned`].
pub type StepIndex = usize;

/// One line of a Dockerfile that makes or brings a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInfo {
    /// The stage, by name or as `stage-N`.
    pub stage: String,
    /// The instruction, as in `RUN make`.
    pub text: String,
    /// The line it begins on, from 1; 0 where it is written nowhere.
    pub line: u32,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepStatus {
    /// Its result was there.
    Cached,
    /// It ran, or its bytes were brought here, and this long.
    Ran(Duration),
    /// It ran and failed.
    Failed,
    /// It was ended before it was done.
    Cancelled,
    /// Something that it needs failed.
    Skipped,
}

/// Which stream a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What is doubtful about a build that can be tried all the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Warnings {
    /// What is doubtful in its Dockerfile, if it has one.
    pub findings: Option<Findings>,
    /// What a front end from outside says beside that, a line each.
    pub notices: Vec<String>,
    /// Build arguments that nothing declares.
    pub unused_build_args: Vec<String>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What was asked for is understood; told once, before anything runs.
    Understood(Warnings),
    /// Something is doubtful that has no place in the Dockerfile.
    Warning(String),
    /// The plan is known; the steps stand in the order of the file.
    Planned {
        /// All of them.
        steps: Vec<StepInfo>,
    },
    /// A step has begun to run.
    Started {
        /// Which.
        step: StepIndex,
    },
    /// A step wrote something.
    Output {
        /// Which.
        step: StepIndex,
        /// Where to.
        stream: Stream,
        /// What; may end within a line or a character.
        bytes: Vec<u8>,
    },
    /// A step moves bytes.
    Progress {
        /// Which.
        step: StepIndex,
        /// What is moved, such as a layer's digest.
        what: String,
        /// Bytes so far.
        done_bytes: u64,
        /// Bytes in all, where known.
        total_bytes: Option<u64>,
    },
    /// A step waits for another process, or for another step of this one.
    Waiting {
        /// Which.
        step: StepIndex,
        /// What for.
        what: WaitsFor,
        /// The other process, where known.
        pid: Option<u32>,
    },
    /// Everything behind what became of a step; comes right before [`Event::Finished`].
    Explained {
        /// Which.
        step: StepIndex,
        /// How it ended.
        status: StepStatus,
        /// Why, with all that was looked at.
        explanation: Explanation,
    },
    /// A step is done.
    Finished {
        /// Which.
        step: StepIndex,
        /// How it ended.
        status: StepStatus,
        /// Why it ran or did not, in words; empty where there is nothing to say.
        reason: String,
    },
    /// Something worth a line, such as the age of a base image.
    Notice(String),
    /// An exporter has begun.
    Exporting(String),
    /// An exporter moves a blob to a registry.
    Sending {
        /// Its digest.
        digest: String,
        /// Its length in bytes.
        size_bytes: u64,
        /// How far it is.
        state: BlobState,
    },
    /// An exporter is done.
    Exported {
        /// As in [`Event::Exporting`].
        what: String,
        /// How long it took.
        took: Duration,
    },
}
