//! `kiln push`.

use kiln::{Believes, Cancel, PushRequest, PushedName, TransferObserver};

use super::args::{Progress, PushArgs};
use super::host::{self, Needs};
use super::progress::{PUSH, Transfers};
use super::{Done, Failure, caches, output, print, report, spec};

pub(crate) fn push(args: &PushArgs) -> Done {
    if !args.cache.is_empty() {
        return push_cache(args);
    }
    let request = PushRequest {
        image: args.image.clone().unwrap_or_default(),
        targets: args.targets.clone(),
        all_tags: args.all_tags,
        platform: spec::platform("--platform", args.platform.as_deref())?,
        packing: output::packing(
            args.compression.into(),
            args.compression_level.as_deref(),
            args.force_compression,
        )?,
        annotations: output::annotations(&args.annotations)?,
        attestations: args.attestations.into(),
        believes: match args.verify {
            true => Believes::Nothing,
            false => Believes::Manifests,
        },
    };
    let kiln = host::open(Needs::Layers, false)?;
    let mut pushed = Vec::new();
    let done = shown(args.progress, args.quiet, async |observer| {
        kiln.push_image(&request, observer, &mut pushed).await
    });
    if !args.quiet {
        for name in pushed.iter().filter(|name| name.was_there) {
            report::note(&format!("{} is up to date", name.name));
        }
    }
    host::settle_later(&kiln)?;
    // What is through is there, whatever became of the rest.
    let printed = print(&pushed.iter().map(line).collect::<String>());
    done?;
    printed
}

/// The results of an earlier build, to where caches lie.
fn push_cache(args: &PushArgs) -> Done {
    let mut targets = Vec::new();
    for text in &args.cache {
        match caches::target("--cache", text)? {
            caches::Target::Place(target) => targets.push(*target),
            caches::Target::Inline => {
                report::usage(
                    "an image that is there cannot be given a cache",
                    Some("build it again with --cache-to type=inline: every step is cached"),
                );
                return Err(Failure::Told(2));
            }
        }
    }
    let kiln = host::open(Needs::Layers, false)?;
    let image = args.image.as_deref();
    let lines = shown_until(
        args.progress,
        args.quiet,
        async |observer, cancel| match kiln.push_cache(image, &targets, observer, cancel).await {
            Err(kiln::Error::Cancelled) => None,
            pushed => Some(pushed),
        },
    )?;
    host::settle_later(&kiln)?;
    print(
        &lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    )
}

/// Sends something, which is shown meanwhile and ends at a signal.
pub(crate) fn shown<T, E>(
    progress: Progress,
    quiet: bool,
    send: impl AsyncFnOnce(&TransferObserver) -> Result<T, E>,
) -> Result<T, Failure>
where
    Failure: From<E>,
{
    shown_until(progress, quiet, async |observer, cancel| {
        tokio::select! {
            sent = send(observer) => Some(sent),
            () = cancel.cancelled() => None,
        }
    })
}

/// The same for what has something to do when it is interrupted; it returns nothing then.
fn shown_until<T, E>(
    progress: Progress,
    quiet: bool,
    send: impl AsyncFnOnce(&TransferObserver, &Cancel) -> Option<Result<T, E>>,
) -> Result<T, Failure>
where
    Failure: From<E>,
{
    let runtime = host::runtime()?;
    let cancel = Cancel::new();
    host::watch_signals(&runtime, cancel.clone());
    let view = Transfers::new(PUSH, progress, quiet);
    let observer = view.observer();
    let sent = runtime.block_on(send(&observer, &cancel));
    view.finish(matches!(sent, Some(Ok(_))));
    match sent {
        Some(sent) => Ok(sent?),
        None => Err(interrupted("push")),
    }
}

/// `HOST/NAME:TAG@sha256:…`, which names the very image from now on.
pub(crate) fn line(pushed: &PushedName) -> String {
    match pushed.name.contains('@') {
        true => format!("{}\n", pushed.name),
        false => format!("{}@{}\n", pushed.name, pushed.digest),
    }
}

/// Says that a signal ended what was going on.
pub(crate) fn interrupted(what: &str) -> Failure {
    report::usage(
        &format!("the {what} was interrupted"),
        Some("what is through already is not moved again"),
    );
    Failure::Told(130)
}
