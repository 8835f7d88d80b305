//! `kiln pull`.

use std::process::ExitCode;

use kiln::{Cancel, Kiln, PullRequest, PulledImage};
use tokio::runtime::Runtime;

use super::args::PullArgs;
use super::host::{self, Needs};
use super::progress::{PULL, Transfers};
use super::push::interrupted;
use super::{Done, Failure, print, report, spec};

pub(crate) fn pull(args: &PullArgs) -> Done {
    let usual = std::env::var("DOCKER_DEFAULT_PLATFORM").ok();
    let platform = match args.all_platforms {
        true => None,
        false => spec::platform("--platform", args.platform.as_deref().or(usual.as_deref()))?,
    };
    let kiln = host::open(Needs::Layers, false)?;
    let runtime = host::runtime()?;
    let cancel = Cancel::new();
    host::watch_signals(&runtime, cancel.clone());
    let mut code = ExitCode::SUCCESS;
    let mut names = args.images.clone();
    if args.all_tags {
        names.clear();
        for repository in &args.images {
            match all_tags(&kiln, &runtime, &cancel, repository) {
                Ok(tags) => names.extend(tags),
                Err(failure) => code = ExitCode::from(super::tell(&failure)),
            }
        }
    }
    for image in names {
        let request = PullRequest {
            image,
            platform: platform.clone(),
            all_platforms: args.all_platforms,
        };
        // One that cannot be had does not keep the others.
        match one(args, &kiln, &runtime, &cancel, &request) {
            Ok(pulled) => {
                if pulled.was_there && !args.quiet {
                    report::note(&format!("{} is up to date", pulled.name));
                }
                print(&match args.quiet {
                    true => format!("{}\n", pulled.id),
                    false => format!("{} {}\n", pulled.name, pulled.id),
                })?;
            }
            Err(failure) => {
                code = ExitCode::from(super::tell(&failure));
                if cancel.is_cancelled() {
                    break;
                }
            }
        }
    }
    host::settle_later(&kiln)?;
    Ok(code)
}

fn all_tags(
    kiln: &Kiln,
    runtime: &Runtime,
    cancel: &Cancel,
    repository: &str,
) -> Result<Vec<String>, Failure> {
    let names = runtime.block_on(async {
        tokio::select! {
            names = kiln.names_in_registry(repository) => Some(names),
            () = cancel.cancelled() => None,
        }
    });
    match names {
        Some(names) => Ok(names?),
        None => Err(interrupted("pull")),
    }
}

fn one(
    args: &PullArgs,
    kiln: &Kiln,
    runtime: &Runtime,
    cancel: &Cancel,
    request: &PullRequest,
) -> Result<PulledImage, Failure> {
    let view = Transfers::new(PULL, args.progress, args.quiet);
    let observer = view.observer();
    let pulled = runtime.block_on(async {
        tokio::select! {
            pulled = kiln.pull_image(request, &observer) => Some(pulled),
            () = cancel.cancelled() => None,
        }
    });
    view.finish(matches!(&pulled, Some(Ok(pulled)) if !pulled.was_there));
    match pulled {
        Some(pulled) => Ok(pulled?),
        None => Err(interrupted("pull")),
    }
}
