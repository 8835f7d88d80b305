//! What can be said to `kiln run`.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::cli::limits::{self, LimitArgs};

#[derive(Debug, Args)]
#[command(override_usage = "kiln run [OPTIONS] <IMAGE> [COMMAND]...")]
#[command(after_help = "\
The container is removed when the program ends. With the host's network (the default) a server
listens on the host's ports directly, so there is nothing to publish.

Examples:
  kiln run -it alpine sh
  kiln run -v \"$PWD:/src\" -w /src app make test
  kiln run --network none app ./offline-check")]
pub(crate) struct RunArgs {
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable; without a value it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set environment variables that a file has, NAME=VALUE or NAME in each line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Mount a host directory or file; the host's path begins with /, ./ or ../, and a directory is
    /// made there if there is nothing
    #[arg(short, long, value_name = "HOST:PATH[:ro]")]
    pub(crate) volume: Vec<String>,
    /// Mount an empty file system in memory; options are size=SIZE and mode=MODE
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// Let nothing be written but volumes and what is in memory
    #[arg(long)]
    pub(crate) read_only: bool,
    /// User, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// Run this instead of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Network: host or none
    #[arg(long, value_name = "MODE", default_value = "host")]
    pub(crate) network: String,
    /// When to ask the registry for the image: missing (from the store), always or never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value = "missing",
        hide_possible_values = true
    )]
    pub(crate) pull: Pull,
    /// Platform of the image, another than this host's if there is an emulator
    #[arg(long, value_name = "OS/ARCH", env = "DOCKER_DEFAULT_PLATFORM")]
    pub(crate) platform: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Limit the processor time to so many processors, such as 1.5
    #[arg(long, value_name = "N", value_parser = limits::processors,
          conflicts_with_all = ["cpu_period", "cpu_quota"])]
    pub(crate) cpus: Option<i64>,
    /// Limit the number of processes and threads
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pids_limit: Option<u64>,
    /// Host name in the container
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Accepted for habit: it is always so
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
          default_missing_value = "true", action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true)]
    pub(crate) rm: bool,
    /// Accepted for habit: it is always so
    #[arg(long)]
    pub(crate) init: bool,
    #[command(flatten)]
    pub(crate) refused: RefusedArgs,
    // One list, since from the image on nothing is a flag of kiln.
    /// Name or id of the image, then a program and arguments instead of the image's command
    #[arg(
        required = true,
        trailing_var_arg = true,
        action = ArgAction::Append,
        value_name = "IMAGE"
    )]
    pub(crate) image_and_command: Vec<String>,
}

/// When a registry is asked for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// Where it is not here
    Missing,
    /// Before every run
    Always,
    /// Not at all
    Never,
}

/// What `docker run` has and kiln has not: known, so that it is refused by name.
#[derive(Debug, Args)]
pub(crate) struct RefusedArgs {
    #[arg(short = 'p', long, hide = true, value_name = "X")]
    pub(crate) publish: Vec<String>,
    #[arg(short = 'd', long, hide = true)]
    pub(crate) detach: bool,
    #[arg(long, hide = true, value_name = "X")]
    pub(crate) name: Option<String>,
    #[arg(long, hide = true, value_name = "X")]
    pub(crate) mount: Vec<String>,
    #[arg(short = 'l', long, hide = true, value_name = "X")]
    pub(crate) label: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) privileged: bool,
    #[arg(long, hide = true, value_name = "X")]
    pub(crate) cap_add: Vec<String>,
    #[arg(long, hide = true, value_name = "X")]
    pub(crate) cap_drop: Vec<String>,
    #[arg(long, hide = true, value_name = "X")]
    pub(crate) security_opt: Vec<String>,
    #[arg(long, hide = true, value_name = "X")]
    pub(crate) device: Vec<String>,
    #[arg(long, hide = true, value_name = "X")]
    pub(crate) gpus: Option<String>,
    #[arg(long, hide = true, value_name = "X")]
    pub(crate) restart: Option<String>,
}
