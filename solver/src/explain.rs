//! Why a step had to run, or why it did not although something above it did.

use serde::{Deserialize, Serialize};

use crate::{StepName, TreeRef};

/// Why a step ran again or did not. Its `Display` is what people read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No step like it was ever run here.
    New,
    /// It was told to run, as by `--no-cache`.
    Forced,
    /// It did not run: what is above it ran and wrote the same bytes as before.
    SameBytes,
    /// It did not run: it is defined otherwise than before, but reads the same bytes.
    SameInput,
    /// Its record was evicted.
    Evicted {
        /// By what, such as `prune`.
        rule: String,
        /// When, such as `3 minutes ago`.
        when: String,
    },
    /// Its record was there, and the layer that it names was not.
    ContentGone,
    /// What changed, the most telling first; never empty.
    Changed(Vec<Cause>),
}

/// One thing that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Files of a local source.
    Files {
        /// The source's name, such as `context`.
        source: String,
        /// The first few; empty if the worker can't tell.
        changes: Vec<FileChange>,
        /// How many there are beyond those.
        more: usize,
        /// Where the old files are listed.
        old: Option<TreeRef>,
        /// Where the new ones are.
        new: Option<TreeRef>,
    },
    /// A build argument; none is unset.
    BuildArg {
        /// Its name.
        name: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// An environment variable; none is unset.
    Env {
        /// Its name.
        name: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// A base image or another source has another identity.
    Source {
        /// What is asked for.
        reference: String,
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// Another base image or source than before.
    OtherSource {
        /// What was asked for.
        old: String,
        /// What is asked for.
        new: String,
    },
    /// The instruction itself.
    Instruction {
        /// The line that it is on now.
        line: Option<u32>,
        /// What it was.
        was: String,
    },
    /// One field of the op, where the instruction reads the same.
    Field {
        /// Its name.
        name: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
    },
    /// The platform.
    Platform {
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// Something else comes before it.
    Order {
        /// What it comes after now.
        now: StepName,
        /// What it came after.
        was: StepName,
    },
    /// A step that it reads from ran, and wrote other bytes.
    ParentRan {
        /// Which.
        parent: StepName,
    },
    /// A step that it reads from changed, and was found in the cache.
    ParentChanged {
        /// Which.
        parent: StepName,
    },
    /// kiln does this kind of step otherwise than when it was recorded.
    Revision {
        /// The kind of op.
        kind: String,
    },
}

/// One file that changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileChange {
    /// Relative to the source's root.
    pub path: String,
    /// How.
    pub what: FileChangeKind,
}

/// How a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its bytes.
    Content {
        /// Its size before, in bytes.
        old_size: u64,
        /// Its size now, in bytes.
        new_size: u64,
    },
    /// Its permission bits or its owner.
    Mode,
    /// It is another type of file.
    Type,
    /// What a link points to.
    Target,
}
