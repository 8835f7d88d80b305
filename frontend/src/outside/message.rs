//! The messages of the protocol: one JSON object a line, in both directions.
//!
//! What kiln sends is compact (no blank outside of strings), its fields stand in the order given here,
//! and bytes are always base64, so that programs without a JSON parser can find what they need.

use std::collections::{BTreeMap, BTreeSet};

use kiln_ir::{HostIp, NetworkMode, ProxyEnv, Ulimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnostic::Severity;
use crate::outside::Place;

/// The version of the protocol.
pub const VERSION: &str = "kiln.frontend/0";

/// The first message to a front end: what is to be built.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "build")]
pub struct Build {
    /// [`VERSION`].
    pub version: &'static str,
    /// The build file; none where the caller named none.
    pub file: Option<BuildFile>,
    /// The target; empty is the default one.
    pub target: String,
    /// Build arguments that have a value.
    pub args: BTreeMap<String, String>,
    /// What results are for; a plan has a result for each of several.
    pub platforms: Vec<String>,
    /// What the build runs on.
    pub build_platform: String,
    /// Labels; kiln puts them into every image config itself.
    pub labels: BTreeMap<String, String>,
    /// The steps that run whatever is cached; kiln sees to it itself.
    pub no_cache: NoCacheOf,
    /// Network of steps that name none.
    pub network: NetworkMode,
    /// Lines for `/etc/hosts` of steps.
    pub add_hosts: Vec<HostIp>,
    /// Limits of steps.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm` of steps.
    pub shm_size_bytes: Option<u64>,
    /// Where cgroups of steps are made.
    pub cgroup_parent: String,
    /// Proxies of steps.
    pub proxy: ProxyEnv,
    /// Seconds since 1970 for every time in the result.
    pub source_date_epoch: Option<i64>,
    /// The build context and the named ones.
    pub contexts: BTreeMap<String, ContextKind>,
    /// Whether images are only assumed, and nothing can be solved.
    pub assuming: bool,
}

/// The file that a front end is to read.
#[derive(Clone, Debug, Serialize)]
pub struct BuildFile {
    /// As diagnostics and source ranges show it.
    pub name: String,
    /// Its bytes in base64.
    pub content: String,
}

/// The steps that run whatever is cached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoCacheOf {
    /// None.
    None,
    /// All.
    All,
    /// Those of these stages.
    Stages(BTreeSet<String>),
}

/// What a context is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContextKind {
    /// A directory: the source `local NAME` of a plan, which `read` and `list` look into.
    Directory {
        /// The patterns of its ignore file, for `exclude` of that source.
        ignore: Vec<String>,
    },
    /// An image by reference.
    Image(String),
    /// An OCI layout: the source `oci-layout REFERENCE` of a plan.
    OciLayout(String),
    /// A git repository or a file over http.
    Url(String),
}

/// The answer to a request, with its id.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "answer")]
pub struct Answer {
    /// That of the request.
    pub id: u64,
    /// What it says.
    #[serde(flatten)]
    pub body: AnswerBody,
}

/// What an answer says.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum AnswerBody {
    /// A file.
    Content {
        /// In base64.
        content: String,
    },
    /// A directory.
    Entries {
        /// By name.
        entries: Vec<Entry>,
    },
    /// An image.
    Image {
        /// Complete, for the source of a plan.
        reference: String,
        /// Of its manifest for the platform; none if it is only assumed.
        digest: Option<String>,
        /// In the form that a plan's results have.
        config: Value,
    },
    /// A plan was carried out.
    Solved {
        /// The source that its result is for `read` and `list`.
        source: String,
    },
    /// There is no answer.
    Error {
        /// Why.
        error: Fault,
    },
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// For programs.
    pub code: FaultCode,
    /// For people.
    pub message: String,
}

/// What keeps kiln from answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultCode {
    /// Nothing is there.
    NotFound,
    /// It is no regular file, or no directory.
    WrongKind,
    /// It is more than a message can hold.
    TooBig,
    /// A name is not UTF-8.
    NotUtf8,
    /// An image cannot be had, or a name is none.
    Unavailable,
    /// It could not be read.
    Unreadable,
}

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is; links are not followed.
    pub kind: EntryKind,
    /// Of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

/// Writes a message to a front end as its line.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let mut line = match serde_json::to_vec(message) {
        Ok(line) => line,
        Err(error) => unreachable!("BUG: messages always serialize: {error}"),
    };
    line.push(b'\n');
    line
}

/// A message of a front end.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Said {
    /// The first.
    Hello {
        /// The version that it speaks.
        version: String,
    },
    /// Asks for the bytes of a file.
    Read {
        /// Repeated in the answer.
        id: u64,
        /// A context, or what a plan came to.
        #[serde(default = "main_context")]
        source: String,
        /// Below the root of the source.
        path: String,
    },
    /// Asks for what is in a directory.
    List {
        /// Repeated in the answer.
        id: u64,
        /// As for a file.
        #[serde(default = "main_context")]
        source: String,
        /// As for a file; empty is the root.
        #[serde(default)]
        path: String,
    },
    /// Asks for the config and the digest of an image.
    Resolve {
        /// Repeated in the answer.
        id: u64,
        /// The name.
        image: String,
        /// The first of the build's, if none is named.
        platform: Option<String>,
    },
    /// Asks for a plan to be carried out now.
    Solve {
        /// Repeated in the answer.
        id: u64,
        /// With one result.
        plan: PlanForm,
    },
    /// Says something about a file.
    Diagnostic {
        /// Errors leave nothing to build.
        severity: SeverityOf,
        /// One sentence.
        message: String,
        /// A file that it was given or has read; none is the build file.
        file: Option<String>,
        /// Where.
        #[serde(default)]
        at: Place,
        /// What to do about it.
        help: Option<String>,
    },
    /// A line for people who watch.
    Log {
        /// The line.
        message: String,
    },
    /// The end: what to build.
    Plan {
        /// The plan.
        plan: PlanForm,
        /// What people see of the nodes of a plan in text form, by label.
        #[serde(default)]
        display: BTreeMap<String, StepDisplay>,
        /// Build arguments that nothing takes.
        #[serde(default)]
        unused_args: BTreeSet<String>,
    },
    /// The end: there is nothing to build, and diagnostics said why.
    Failed {},
}

fn main_context() -> String {
    "context".to_owned()
}

/// A plan in one of its two forms.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum PlanForm {
    /// The text form.
    Text(String),
    /// The JSON form.
    Json(Value),
}

/// How much a diagnostic weighs.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeverityOf {
    /// The build goes on.
    Warning,
    /// It does not.
    Error,
}

impl From<SeverityOf> for Severity {
    fn from(severity: SeverityOf) -> Severity {
        match severity {
            SeverityOf::Warning => Severity::Warning,
            SeverityOf::Error => Severity::Error,
        }
    }
}

/// What people see of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepDisplay {
    /// What the step is called.
    pub name: String,
    /// Its stage.
    pub stage: String,
    /// Where the build file says so: the first line, from 1.
    pub line: u32,
    /// The last line; 0 is the first.
    pub end_line: u32,
}

/// Something to be answered; paths are clean, sources are known.
#[derive(Clone, Debug)]
pub enum Request {
    /// The bytes of a file.
    Read {
        /// Which source.
        source: String,
        /// Below its root, without `.` and `..`.
        path: String,
    },
    /// What is in a directory.
    List {
        /// Which source.
        source: String,
        /// Below its root; empty is the root.
        path: String,
    },
    /// An image.
    Resolve {
        /// The name.
        image: String,
        /// Of the build if it names none.
        platform: Option<String>,
    },
    /// A plan carried out.
    Solve {
        /// The plan.
        plan: PlanForm,
    },
}

/// Something said to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// About a file.
    Diagnostic {
        /// How much it weighs.
        severity: Severity,
        /// One sentence.
        message: String,
        /// Which file; none is the build file.
        file: Option<String>,
        /// Where in it.
        at: Place,
        /// What to do about it.
        help: Option<String>,
    },
    /// A line.
    Log(String),
}

/// What a front end ends with.
#[derive(Clone, Debug)]
pub enum Returned {
    /// A plan.
    Plan {
        /// The plan.
        plan: PlanForm,
        /// By label.
        display: BTreeMap<String, StepDisplay>,
        /// Build arguments that nothing takes.
        unused_args: BTreeSet<String>,
    },
    /// Nothing to build.
    Failed,
}
