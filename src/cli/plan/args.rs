//! What can be said after `kiln plan`.

use clap::{Args, ValueEnum};

use crate::cli::args::SourceArgs;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// One op a line; `kiln build --plan` reads it
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

#[derive(Debug, Args)]
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

Exit codes: 0 done, and with --would-run nothing would run; 1 something would, or it cannot be told;
2 usage or Dockerfile error; 3 the environment lacks something.")]
pub(crate) struct PlanArgs {
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
}
