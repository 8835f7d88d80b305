//! Why a step ran again or did not, as data and as people read it.

mod words;

pub(crate) use words::field_words;

use serde::{Deserialize, Serialize};

use crate::{StepName, TreeRef};

/// Why a step ran again or did not. Its `Display` is what people read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No step like it was ever run here.
    New,
    /// No record of it is left: the last one of its place was evicted, and it is not as it was then.
    Forgotten {
        /// By what, such as `prune`.
        rule: String,
        /// When, such as `3 minutes ago`.
        when: String,
    },
    /// It was told to run.
    Forced {
        /// By what, such as `--no-cache`.
        by: String,
    },
    /// It did not run: what is above it ran and wrote the same bytes as before.
    SameBytes,
    /// It did not run: it is defined otherwise than before, but reads the same bytes.
    SameInput,
    /// It did not run: another machine left its result there.
    Imported {
        /// Where, as it was named: such as `registry.example/app:cache`.
        from: String,
    },
    /// Its record was evicted.
    Evicted {
        /// By what, such as `prune`.
        rule: String,
        /// When, such as `3 minutes ago`.
        when: String,
    },
    /// Its record was there, and the layer that it names was not.
    ContentGone,
    /// Another machine left its result there, and layers of that cannot be had any more.
    LostElsewhere {
        /// Where, as it was named: such as `registry.example/app:cache`.
        from: String,
        /// A layer that the step wrote is among them; else only layers that it stands on.
        own: bool,
    },
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
        #[serde(skip)]
        old: Option<TreeRef>,
        /// Where the new ones are.
        #[serde(skip)]
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
        /// An image or oci-layout source.
        base: bool,
        /// The digest or commit that it was.
        old: String,
        /// The digest or commit that it is.
        new: String,
    },
    /// Another base image or source than before.
    OtherSource {
        /// An image or oci-layout source.
        base: bool,
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
        /// What it is.
        now: String,
    },
    /// One option of a mount, where the instruction reads the same.
    Mount {
        /// Where it is mounted.
        target: String,
        /// The option, such as `id`.
        option: String,
        /// What it was.
        old: Option<String>,
        /// What it is.
        new: Option<String>,
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
    /// A step that it reads from ran, and what it left, with all that lies below, is something else now.
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
        /// The revision that it was recorded with.
        old: u32,
        /// The revision of this version.
        new: u32,
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It had another name, and is otherwise as it was.
    Renamed {
        /// The path that it had.
        from: String,
    },
    /// Its bytes.
    Content {
        /// Its size before, in bytes.
        old_size: u64,
        /// Its size now, in bytes.
        new_size: u64,
    },
    /// Its permission bits.
    Mode {
        /// Those that it had.
        old: u32,
        /// Those that it has.
        new: u32,
    },
    /// It is another type of file.
    Type,
    /// What a link points to.
    Target,
}

/// What a reason goes by: every part of the step's key beside that of an older record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The record; none if there is none to compare with.
    pub with: Option<ComparedRecord>,
    /// In the order of the key.
    pub parts: Vec<ComparedPart>,
}

/// The record that a step was compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedRecord {
    /// What it was called.
    pub step: StepName,
    /// Whether it stood at the same place of the same Dockerfile.
    pub same_slot: bool,
    /// When it was filed, in nanoseconds since the epoch.
    pub created_unix_nanos: i64,
}

/// One part of two keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedPart {
    /// What it is, such as `command`.
    pub what: String,
    /// Whether both have the same; then the values are left out.
    pub same: bool,
    /// What it was; none where there was none.
    pub old: Option<String>,
    /// What it is; none where there is none.
    pub new: Option<String>,
}
