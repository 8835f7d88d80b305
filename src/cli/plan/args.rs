//! What can be said after `kiln plan`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::args::SourceArgs;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// One op a line; `kiln build --plan` reads it
    #[default]
    Text,
    /// The documented interchange form
    Json,
    /// For graphviz
    Dot,
    /// A flowchart that forges show in Markdown
    Mermaid,
    /// A picture for a browser, stages in frames and the critical path marked
    Svg,
}

#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "\
A plan is a function of the Dockerfile, its ignore file, its lock and what is said here: it is
the same on every machine, and nothing is asked. The build is taken to run on linux/amd64, and
to be for it, unless --build-platform and --platform say otherwise, or the lock was made for
others only; this host's proxies, SOURCE_DATE_EPOCH and DOCKER_DEFAULT_PLATFORM do not count.
Only --resolve looks around, and takes all of these as `kiln build` does. Comments, white space,
names of stages and paths of this host are not in the text.

Images that were not looked at are said to have `config=assumed`: what their config would add to
the result and to the steps (environment, directory, user, triggers) is not in the plan. `kiln
lock` makes a lock, with which it is.

--would-run asks the cache with the very keys of a build, and writes text (with comments, a plan
still) or json. An op that needs one that would run, and has run with other inputs before, `may
run`: whether its inputs come out the same is known only then.

A snapshot is a plan that is kept under version control: `--accept` writes it, `--check` says
what differs. A directory that is called like a subcommand is written ./test.

Examples:
  kiln plan .                                    what a build would do
  kiln plan --accept --build-arg VERSION=2 .     keep it as kiln.plan, with the arguments
  kiln plan --check .                            is it still so? for a CI
  kiln plan diff HEAD                            what is changed here, and what would run again
  kiln plan test tests/plans                     all cases of a directory

Exit codes: 0 done, and with --would-run nothing would run; 1 something would, or it cannot be
told, the plans differ (--check, diff) or a case failed (test); 2 usage or Dockerfile error;
3 the environment lacks something.")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct PlanArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PlanCommand>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// How to write it
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: PlanFormat,
    /// With the text: the names of steps and stages, as comments
    #[arg(long)]
    pub(crate) names: bool,
    /// What the build is taken to run on, which is $BUILDPLATFORM [default: linux/amd64; with
    /// --resolve this host's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) build_platform: Option<String>,
    /// Ask store and registry for base images instead of assuming empty configs
    #[arg(long)]
    pub(crate) resolve: bool,
    /// Say of each op whether it is cached, or would run and why; exit with 1 if anything would.
    /// Asks as --resolve does, and leaves the store as it is
    #[arg(long)]
    pub(crate) would_run: bool,
    /// Let the file name a program of this host as its front end: frontend.exec
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// Compare with the snapshot, made with the same flags unless they are given: exit code 1 if
    /// the plans differ
    #[arg(long, conflicts_with_all = ["resolve", "would_run"])]
    pub(crate) check: bool,
    /// Write the snapshot, with the flags that it was made with unless they are given anew
    #[arg(long, conflicts_with_all = ["resolve", "would_run", "check"])]
    pub(crate) accept: bool,
    /// The snapshot [default: kiln.plan beside the Dockerfile; NAME.kiln.plan beside one called NAME]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum PlanCommand {
    /// Say what differs between two plans, and what would run again
    Diff(Box<PlanDiffArgs>),
    /// Run test cases: Dockerfiles with the plans they must have, and what must hold of these
    Test(PlanTestArgs),
}

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A case is a directory with a case.toml, or a file NAME.case.toml: a Dockerfile, its arguments,
the plan that it must have, and assertions such as `no-root-runs in final`. docs/plan-tests.md
describes it. Nothing is run and nobody is asked.

Examples:
  kiln plan test tests/plans                     run all cases below that directory
  kiln plan test tests/plans web                 those whose names hold `web`
  kiln plan test tests/plans --accept            take the plans as they are now
  kiln plan test tests/plans --junit out.xml     for a CI

Exit codes: 0 all passed, 1 a case failed, 2 usage.")]
pub(crate) struct PlanTestArgs {
    /// Where the cases are
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Only cases whose names hold this
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Write the plans of the cases as they are now
    #[arg(long)]
    pub(crate) accept: bool,
    /// Write a JUnit XML report to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// How to write what became of the cases
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: ReportFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people
    Text,
    /// For other programs
    Json,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = "\
OLD and NEW are each one of
  DIR                  a build context with its Dockerfile
  FILE                 a Dockerfile in its context; or a plan, FILE.plan or FILE.json
  REVISION             the directory after `--` as a git revision of this repository has it
  REVISION:PATH        a directory or Dockerfile of that revision, from the repository's root
                       (REVISION:./PATH from here)
  docker-image://NAME  an image of the store, as the other one: configs, layers and their files
Without NEW it is the directory after `--` as it is now. Flags count for both. Nothing is run,
nobody is asked, and files of contexts are not compared: what is said to run again does so even
with the same files.

Examples:
  kiln plan diff HEAD                            what is changed here, and would run again
  kiln plan diff main HEAD -- services/web       two revisions of one directory
  kiln plan diff old.Dockerfile Dockerfile
  kiln plan diff kiln.plan .                     a kept plan and what would be built now
  kiln plan diff docker-image://app:1 docker-image://app:2

Exit codes: 0 they are equal, 1 they differ, 2 usage or Dockerfile error.")]
pub(crate) struct PlanDiffArgs {
    /// What was
    #[arg(value_name = "OLD")]
    pub(crate) old: String,
    /// What is
    #[arg(value_name = "NEW")]
    pub(crate) new: Option<String>,
    /// The directory that revisions are of
    #[arg(last = true, value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
    /// The Dockerfile within each directory [default: Dockerfile]
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Plan this stage instead of the last
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set a build argument
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_arg: Vec<String>,
    /// Another context, by name
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Platforms of the image; of two images, the one to compare
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Vec<String>,
    /// How to write what differs
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: ReportFormat,
}
