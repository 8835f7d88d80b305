//! The command: arguments, progress, diagnostics, exit codes. Nothing else prints.

mod accounts;
mod archives;
mod args;
mod build;
mod builds;
mod caches;
mod call;
mod host;
mod images;
mod info;
mod limits;
mod listing;
mod lock;
mod manifest;
mod mounts;
mod output;
mod plan;
mod progress;
mod prompt;
mod pull;
mod push;
mod report;
mod reproduce;
mod run;
mod sbom;
mod space;
mod spec;
mod trust;
mod why;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use spec::SpecError;

/// Why a command has no result.
pub(crate) enum Failure {
    /// The library says so.
    Kiln(kiln::Error),
    /// A flag value cannot be read.
    Spec(SpecError),
    /// The message was drawn already.
    Told(u8),
}

impl From<kiln::Error> for Failure {
    fn from(error: kiln::Error) -> Failure {
        Failure::Kiln(error)
    }
}

impl From<kiln::ExecutorError> for Failure {
    fn from(error: kiln::ExecutorError) -> Failure {
        Failure::Kiln(error.into())
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Failure {
        Failure::Spec(error)
    }
}

/// The result of a command: what it exits with.
pub(crate) type Done = Result<ExitCode, Failure>;

/// Runs the command that the arguments say.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(refuse(&error)),
    };
    host::hear(cli.registries);
    let done = match cli.command {
        Command::Build(args) => build::build(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Lock(args) => lock::lock(&args),
        Command::Why(args) => why::why(&args),
        Command::Reproduce(args) => reproduce::reproduce(&args),
        Command::Diff(args) => reproduce::diff(&args),
        Command::Run(args) => run_program(&args),
        Command::Images(args) => listing::images(&args),
        Command::Pull(args) => pull::pull(&args),
        Command::Push(args) => push::push(&args),
        Command::Tag { image, name } => images::tag(&image, &name),
        Command::Rmi { images, force } => images::remove(&images, force),
        Command::Import { file, name } => images::import(&file, &name),
        Command::Inspect {
            images,
            attestations: false,
        } => images::inspect(&images),
        Command::Inspect { images, .. } => sbom::attestations(&images),
        Command::Sbom(args) => sbom::sbom(&args),
        Command::History {
            image,
            no_trunc,
            platform,
        } => images::history(&image, no_trunc, platform.as_deref()),
        Command::Save(args) => archives::save(&args),
        Command::Load(args) => archives::load(&args),
        Command::Manifest { command } => manifest::manifest(&command),
        Command::Login(args) => accounts::login(args),
        Command::Logout { registry } => accounts::logout(registry.as_deref()),
        Command::Builds { command } => builds::builds(command.as_ref()),
        Command::Du => space::du(),
        Command::Prune {
            all,
            keep_duration,
            keep_storage,
        } => space::prune(all, keep_duration.as_deref(), keep_storage.as_deref()),
        Command::Mounts { command } => mounts::mounts(&command),
        Command::Info => info::info(),
        Command::Settle => host::settle(),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kiln", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    };
    match done {
        Ok(code) => code,
        Err(failure) => ExitCode::from(tell(&failure)),
    }
}

/// Shows what is wrong with the arguments, or the help that was asked for.
fn refuse(error: &clap::Error) -> u8 {
    let _ = error.print();
    // Whoever runs a program tells kiln's refusals from the program's codes.
    let runs = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    match error.exit_code() {
        0 => 0,
        _ if runs => run::FAILED,
        _ => 2,
    }
}

/// `kiln run`, whose own failures have exit codes of their own, as in every engine.
fn run_program(args: &run::RunArgs) -> Done {
    let opened =
        host::open(host::Needs::Layers, false).and_then(|kiln| Ok((kiln, host::runtime()?)));
    match opened {
        Ok((kiln, runtime)) => Ok(ExitCode::from(run::run(args, &kiln, &runtime))),
        Err(failure) => {
            tell(&failure);
            Ok(ExitCode::from(run::FAILED))
        }
    }
}

/// Draws a failure and returns the exit code that goes with it.
pub(crate) fn tell(failure: &Failure) -> u8 {
    match failure {
        Failure::Kiln(error) => {
            report::error(error);
            error.exit_code()
        }
        Failure::Spec(error) => {
            report::usage(&error.message, error.hint.as_deref());
            2
        }
        Failure::Told(code) => *code,
    }
}

/// Writes to standard output; a reader that went away has seen enough.
pub(crate) fn print(text: &str) -> Done {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(source) => Err(Failure::Kiln(kiln::Error::File {
            attempt: "write to",
            path: "standard output".into(),
            source,
        })),
    }
}
