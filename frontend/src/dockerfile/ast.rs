//! The tree of a Dockerfile: what is written, typed, with spans; nothing expanded, nothing resolved.

use serde::Serialize;

use super::lint::CheckConfig;
pub use super::mount::{Mount, MountError, MountField, MountKey, MountKind, RunMount, Sharing};
use super::span::{LineRange, Span};

/// A text of the tree, shared with the source where it stands there as it is.
pub type Text = arcstr::Substr;

/// A whole Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dockerfile {
    /// The `# name=value` lines at the top.
    pub directives: Directives,
    /// The ARG instructions before the first FROM.
    pub global_args: Vec<Instruction<Arg>>,
    /// The stages in source order.
    pub stages: Vec<Stage>,
}

/// The `# name=value` lines at the top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Directives {
    /// The frontend that the file asks for, from `# syntax=`; also from the other forms that
    /// select one (`// syntax=`, a JSON object).
    pub syntax: Option<Word>,
    /// The escape character: a backslash or a backtick.
    pub escape: char,
    /// The lint settings from `# check=`.
    pub check: Option<Check>,
}

/// A `# check=` directive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it says.
    pub config: CheckConfig,
    /// Where it says so.
    pub span: Span,
}

/// FROM and everything up to the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// The instruction that opens the stage.
    pub from: Instruction<From>,
    /// The instructions after it.
    pub instructions: Vec<Instruction>,
    /// The text of the comment right above FROM, where it has the form `# <stage name> <text>`.
    pub description: Option<String>,
}

impl Stage {
    /// Returns the stage's name in lower case, as references look it up.
    pub fn name(&self) -> Option<String> {
        let name = self.from.kind.name.as_ref()?;
        Some(name.text.to_lowercase())
    }
}

/// One instruction: its kind with typed arguments, and how it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instruction<K = Kind> {
    /// What it is.
    pub kind: K,
    /// The instruction's name as written, such as `run`.
    pub keyword: Word,
    /// The whole instruction as one logical line: continuations joined, comments inside removed,
    /// keyword and flags included, heredoc bodies not.
    pub text: Text,
    /// Everything from the keyword to the end, heredoc bodies included.
    pub span: Span,
    /// The lines of `span`.
    pub lines: LineRange,
    /// The comment lines right above it (no empty line between), in order.
    pub comments: Box<[Comment]>,
}

/// One comment line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comment {
    /// The text after `#`, trimmed.
    pub text: Text,
    /// The comment from `#` to the end of its line.
    pub span: Span,
}

/// A piece of an instruction as written: quotes, escapes and variables are still in it.
///
/// `text` differs from the source where a continuation or a JSON escape lies inside.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Word {
    /// The text, continuations removed.
    pub text: Text,
    /// Where it is.
    pub span: Span,
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}@{:?}", self.text, self.span)
    }
}

/// A stage's instructions, one variant each; FROM is in [`Stage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// `ADD`
    Add(Box<Add>),
    /// `ARG`
    Arg(Arg),
    /// `CMD`
    Cmd(Command),
    /// `COPY`
    Copy(Box<Copy>),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `ENV`
    Env(Pairs),
    /// `EXPOSE`
    Expose(Expose),
    /// `HEALTHCHECK`
    Healthcheck(Box<Healthcheck>),
    /// `LABEL`
    Label(Pairs),
    /// `MAINTAINER`
    Maintainer(Word),
    /// `ONBUILD`
    Onbuild(Onbuild),
    /// `RUN`
    Run(Run),
    /// `SHELL`: the words of the shell, at least one
    Shell(Box<[Word]>),
    /// `STOPSIGNAL`
    Stopsignal(Word),
    /// `USER`
    User(Word),
    /// `VOLUME`
    Volume(Box<[Word]>),
    /// `WORKDIR`
    Workdir(Word),
}

impl Kind {
    /// Returns the heredocs below the instruction, also those of a trigger.
    pub fn heredocs(&self) -> &[Heredoc] {
        match self {
            Kind::Run(run) => &run.heredocs,
            Kind::Copy(copy) => &copy.transfer.heredocs,
            Kind::Add(add) => &add.transfer.heredocs,
            Kind::Onbuild(onbuild) => match &onbuild.instruction {
                Some(instruction) => instruction.kind.heredocs(),
                None => &[],
            },
            _ => &[],
        }
    }

    /// Returns the instruction's name in upper case.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Add(_) => "ADD",
            Kind::Arg(_) => "ARG",
            Kind::Cmd(_) => "CMD",
            Kind::Copy(_) => "COPY",
            Kind::Entrypoint(_) => "ENTRYPOINT",
            Kind::Env(_) => "ENV",
            Kind::Expose(_) => "EXPOSE",
            Kind::Healthcheck(_) => "HEALTHCHECK",
            Kind::Label(_) => "LABEL",
            Kind::Maintainer(_) => "MAINTAINER",
            Kind::Onbuild(_) => "ONBUILD",
            Kind::Run(_) => "RUN",
            Kind::Shell(_) => "SHELL",
            Kind::Stopsignal(_) => "STOPSIGNAL",
            Kind::User(_) => "USER",
            Kind::Volume(_) => "VOLUME",
            Kind::Workdir(_) => "WORKDIR",
        }
    }
}

/// `FROM [--platform=P] IMAGE [AS NAME]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct From {
    /// `--platform`, may hold global arguments.
    pub platform: Option<Word>,
    /// An image, an earlier stage, or `scratch`; may hold global arguments.
    pub image: Word,
    /// The stage's name as written; valid once in lower case.
    pub name: Option<Word>,
}

/// `ARG NAME[=DEFAULT]...`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arg {
    /// The declarations in order, at least one.
    pub declarations: Box<[ArgDeclaration]>,
}

/// One `NAME[=DEFAULT]` of an ARG.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArgDeclaration {
    /// The name; expanded like the default.
    pub name: Word,
    /// The default, unexpanded, quotes kept.
    pub default: Option<Word>,
    /// The text of the comment above the ARG that has the form `# <name> <text>`.
    pub description: Option<String>,
}

/// The body of CMD, ENTRYPOINT, RUN, and of a HEALTHCHECK's CMD; never expanded by the frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Command {
    /// Text for the shell, without flags, continuations joined; empty if there is no argument.
    Shell(Word),
    /// The decoded words of a JSON array; empty for `[]`.
    Exec(Box<[Word]>),
}

impl Command {
    /// Says whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        match self {
            Command::Shell(text) => text.text.is_empty(),
            Command::Exec(words) => words.is_empty(),
        }
    }
}

/// `RUN [--mount=..] [--network=..] [--security=..] [--device=..] COMMAND`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// What to run; for a heredoc alone, the text with the marker, such as `<<EOF`.
    pub command: Command,
    /// The heredocs whose markers stand in the command, in order.
    pub heredocs: Box<[Heredoc]>,
    /// `--mount`, in order; [`RunMount::evaluate`] gives the typed mount.
    pub mounts: Box<[RunMount]>,
    /// `--network`
    pub network: Option<RunNetwork>,
    /// `--security`
    pub security: Option<RunSecurity>,
    /// `--device`, in order.
    pub devices: Box<[RunDevice]>,
}

impl Run {
    /// Returns the heredoc that is the whole command, as in `RUN <<EOF`; its body is the script.
    pub fn sole_heredoc(&self) -> Option<&Heredoc> {
        let (Command::Shell(text), [heredoc]) = (&self.command, &*self.heredocs) else {
            return None;
        };
        (text.text.trim() == heredoc.marker.text).then_some(heredoc)
    }
}

/// `RUN --network=`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RunNetwork {
    /// The build's network.
    Default,
    /// Loopback only.
    None,
    /// The host's, if entitled.
    Host,
}

/// `RUN --security=`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RunSecurity {
    /// Confined, as always.
    Sandbox,
    /// With all capabilities, if entitled.
    Insecure,
}

/// `RUN --device=NAME[,required[=bool]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunDevice {
    /// The device's name, may hold variables.
    pub name: Word,
    /// Whether a missing device is an error.
    pub required: bool,
    /// The flag's value.
    pub span: Span,
}

/// What COPY and ADD share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// The sources that are paths, URLs or git references, in order.
    pub sources: Box<[Word]>,
    /// The sources that are written in the Dockerfile, in order.
    pub heredocs: Box<[Heredoc]>,
    /// The last argument.
    pub destination: Word,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--exclude`, in order.
    pub exclude: Box<[Word]>,
}

/// `COPY [--from=..] [--parents] SOURCE... DESTINATION`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copy {
    /// Sources, destination and shared flags.
    pub transfer: Transfer,
    /// `--from`: a stage index or name, a named context or an image; never a variable.
    pub from: Option<Word>,
    /// `--parents`
    pub parents: bool,
}

/// `ADD [--keep-git-dir] [--checksum=..] [--unpack] SOURCE... DESTINATION`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Add {
    /// Sources, destination and shared flags.
    pub transfer: Transfer,
    /// `--keep-git-dir[=bool]`
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, may hold variables.
    pub checksum: Option<Word>,
    /// `--unpack[=bool]`
    pub unpack: Option<bool>,
}

/// The pairs of ENV or LABEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pairs {
    /// The pairs in order, at least one.
    pub pairs: Box<[Pair]>,
    /// Whether it is the old form `ENV key value`.
    pub legacy: bool,
}

/// One `KEY=VALUE`, both unexpanded, quotes kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The key.
    pub key: Word,
    /// The value; may be empty.
    pub value: Word,
}

/// `EXPOSE PORT...`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expose {
    /// The ports, sorted by text; each may expand to several words.
    pub ports: Box<[Word]>,
}

/// `HEALTHCHECK NONE` or `HEALTHCHECK [OPTIONS] CMD COMMAND`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Healthcheck {
    /// Turns an inherited check off.
    None,
    /// A command that tells health by its exit code; `CMD` in exec form, `CMD-SHELL` otherwise.
    Cmd {
        /// What to run.
        command: Command,
        /// `--interval`
        interval: Option<GoDuration>,
        /// `--timeout`
        timeout: Option<GoDuration>,
        /// `--start-period`
        start_period: Option<GoDuration>,
        /// `--start-interval`
        start_interval: Option<GoDuration>,
        /// `--retries`, never negative.
        retries: Option<u32>,
    },
}

/// Nanoseconds, never negative: 0, or at least a millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GoDuration(pub i64);

/// `ONBUILD INSTRUCTION`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Onbuild {
    /// The trigger as the image config stores it: the text after ONBUILD, heredoc bodies appended.
    pub trigger: String,
    /// The same, parsed. None if it is wrong in a way that shows only when the trigger fires;
    /// there is a warning then.
    pub instruction: Option<Box<Instruction>>,
}

/// A document written in the Dockerfile: `<<NAME` with its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Heredoc {
    /// The marker as written, such as `3<<-"EOF"`.
    pub marker: Word,
    /// The delimiter without quotes; the file's name in COPY and ADD.
    pub name: String,
    /// The digits before `<<`, 0 if there are none.
    pub descriptor: u32,
    /// Whether variables in the body expand: the delimiter has no quotes.
    pub expand: bool,
    /// Whether leading tabs are meant to go: the marker has a dash.
    pub strip_tabs: bool,
    /// The body as written, every line with its line break, tabs kept.
    pub body: Text,
    /// Where the body is, its delimiter's line not included.
    pub body_span: Span,
}

impl Heredoc {
    /// Returns the body as its reader shall see it: leading tabs of each line gone if the marker
    /// has a dash.
    pub fn content(&self) -> String {
        if !self.strip_tabs {
            return self.body.to_string();
        }
        self.body
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}
