//! The command itself.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use kiln::{
    ContainerRequest, ExecutorError, Kiln, Platform, ProgramStdio, PullEvent, PullObserver,
    PullRequest, TransferObserver,
};
use tokio::runtime::Runtime;

use super::args::{Pull, RunArgs};
use super::attach::{Console, attach, failed};
use super::flags::{self, FlagError};
use super::host_terminal::{self, RawMode};
use super::signals::Signals;
use crate::cli::{report, spec};

/// The exit code of `kiln run` if it fails before the program does anything.
pub(crate) const FAILED: u8 = 125;

/// Runs a program in an image; returns the exit code for the shell.
///
/// That is the program's own, 128 and the signal that ended it, or kiln's: 125 where it failed
/// itself, 126 where the program cannot be executed, and 127 where there is none.
pub(crate) fn run(args: &RunArgs, kiln: &Kiln, runtime: &Runtime) -> u8 {
    let request = match request(args) {
        Ok(request) => request,
        Err(FlagError { message, hint }) => {
            report::usage(&message, Some(hint).filter(|hint| !hint.is_empty()));
            return FAILED;
        }
    };
    match start_and_attach(args, request, kiln, runtime) {
        Ok(code) => code,
        Err(error) => {
            report::error(&error);
            match &error {
                kiln::Error::Executor(error) => error.program_exit_code(),
                _ => FAILED,
            }
        }
    }
}

/// What is asked for, but for the streams.
fn request(args: &RunArgs) -> Result<ContainerRequest, FlagError> {
    let (image, command) = flags::image_and_command(args)?;
    flags::refuse_unsupported(&args.refused)?;
    if !args.rm {
        return Err(FlagError {
            message: "`--rm=false` is not supported: a container is gone when its program ends"
                .to_owned(),
            hint: "leave it out; what is to stay belongs into a volume",
        });
    }
    if args.tty && args.interactive && !io::stdin().is_terminal() {
        return Err(FlagError {
            message: "`-t` with `-i` needs a terminal as standard input".to_owned(),
            hint: "leave -t out to pass a pipe or a file on",
        });
    }
    let mut env = files_of_variables(&args.env_file)?;
    for one in &args.env {
        env.push(flags::variable(one, |name| std::env::var_os(name))?);
    }
    let network = spec::network(&args.network).map_err(|error| FlagError {
        message: format!("`--network {}`: {}", args.network, error.message),
        hint: "host and none are there",
    })?;
    let platform =
        spec::platform("--platform", args.platform.as_deref()).map_err(|error| FlagError {
            message: error.message,
            hint: "as in --platform linux/arm64",
        })?;
    let mut limits = args.limits.limits().map_err(|error| FlagError {
        message: error.message,
        hint: "as in -m 512m",
    })?;
    limits.cpu_quota = args.cpus.unwrap_or(limits.cpu_quota);
    Ok(ContainerRequest {
        image,
        platform,
        command: command.to_vec(),
        entrypoint: args.entrypoint.clone(),
        env,
        volumes: args
            .volume
            .iter()
            .map(|one| flags::volume(one))
            .collect::<Result<_, _>>()?,
        tmpfs: args
            .tmpfs
            .iter()
            .map(|one| flags::tmpfs(one))
            .collect::<Result<_, _>>()?,
        readonly: args.read_only,
        never_pull: args.pull == Pull::Never,
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        network,
        limits,
        processes: args.pids_limit,
        cgroup_parent: args.limits.cgroup_parent.clone().unwrap_or_default(),
        confined: false,
        hostname: args.hostname.clone(),
        stdio: ProgramStdio::default(),
        on_pull: Some(PullObserver::new(tell_pull)),
    })
}

/// The variables of files, those of a later file behind.
fn files_of_variables(files: &[PathBuf]) -> Result<Vec<(String, Option<String>)>, FlagError> {
    let mut env = Vec::new();
    for file in files {
        let wrong = |reason: String, hint| FlagError {
            message: format!("`--env-file {}`: {reason}", file.display()),
            hint,
        };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string(), ""))?;
        let found = flags::variables(&text, |name| std::env::var_os(name));
        env.extend(found.map_err(|error| wrong(error.message, error.hint))?);
    }
    Ok(env)
}

/// Says what may not be expected of what was asked for.
fn tell_doubts(args: &RunArgs, request: &ContainerRequest) {
    if args.network == "bridge" {
        report::note("there is no bridge: `--network bridge` is the host's network");
    }
    for volume in &request.volumes {
        if !volume.host.exists() {
            let host = volume.host.display();
            report::note(&format!(
                "there is no {host}: it is made, as an empty directory"
            ));
        }
    }
}

/// Brings an image here, whatever its name means here already.
async fn bring(kiln: &Kiln, image: &str, platform: Option<&Platform>) -> Result<(), ExecutorError> {
    let request = PullRequest {
        image: image.to_owned(),
        platform: platform.cloned(),
        all_platforms: false,
    };
    let pulled = kiln
        .pull_image(&request, &TransferObserver::silent())
        .await?;
    if !pulled.was_there {
        report::note(&format!("pulled {}@{}", pulled.name, pulled.digest));
    }
    Ok(())
}

/// How long a program may take to begin after it was to be stopped.
const LAST_MOMENT: Duration = Duration::from_millis(200);

fn start_and_attach(
    args: &RunArgs,
    mut request: ContainerRequest,
    kiln: &Kiln,
    runtime: &Runtime,
) -> Result<u8, kiln::Error> {
    tell_doubts(args, &request);
    // Before the program is there, so that no signal falls between.
    let signals = Signals::catch(runtime).map_err(failed("catch", "signals"))?;
    let duplicate = |stream: &dyn AsFd| {
        stream
            .as_fd()
            .try_clone_to_owned()
            .map_err(failed("duplicate", "the standard streams"))
    };
    let keyboard = args
        .interactive
        .then(|| duplicate(&io::stdin()))
        .transpose()?;
    let screen = duplicate(&io::stdout())?;
    let mut console = None;
    if args.tty {
        request.stdio = ProgramStdio::Terminal(host_terminal::size());
        console = Some(Console {
            keyboard,
            screen,
            raw: None,
        });
    } else {
        let stderr = Some(duplicate(&io::stderr())?);
        request.stdio = ProgramStdio::Streams {
            stdin: keyboard,
            stdout: Some(screen),
            stderr,
        };
    }
    let starting = async {
        if args.pull == Pull::Always {
            bring(kiln, &request.image, request.platform.as_ref()).await?;
        }
        kiln.start(request).await
    };
    let started = runtime.block_on(async {
        let mut starting = std::pin::pin!(starting);
        let signal = tokio::select! {
            started = &mut starting => return started.map(Ok),
            signal = signals.interrupted() => signal,
        };
        // A program that runs already, though nobody was told yet, gets it.
        match tokio::time::timeout(LAST_MOMENT, starting).await {
            Ok(started) => {
                signals.give_back(signal);
                started.map(Ok)
            }
            Err(_) => Ok(Err(signal)),
        }
    })?;
    let mut program = match started {
        Ok(program) => program,
        Err(signal) => return Ok(shell_code(128 + signal.as_raw())),
    };
    if let Some(console) = &mut console {
        let raw = match &console.keyboard {
            Some(keyboard) => Some(RawMode::keys_and_output(keyboard)),
            None if console.screen.is_terminal() => Some(RawMode::output(&console.screen)),
            None => None,
        };
        console.raw = raw
            .transpose()
            .map_err(failed("set the mode of", "the terminal"))?;
        // It may have changed since it was asked for, before signals told so.
        program.resize(host_terminal::size())?;
    }
    Ok(shell_code(attach(
        &mut program,
        &signals,
        console.as_ref(),
    )?))
}

fn shell_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(FAILED)
}

/// Writes to standard error that an image is pulled.
fn tell_pull(event: PullEvent) {
    let text = match event {
        PullEvent::Asking { reference } => {
            format!("pulling {reference}, which is not in the store\n")
        }
        PullEvent::Done { label } => format!("pulled {label}\n"),
    };
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
