//! `kiln save`, `kiln load`.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use kiln::{Cancel, Destination, Error, LoadSource, LoadedImage, SaveFormat, SaveRequest};

use super::args::{LoadArgs, SaveArgs, SavedAs};
use super::host::{self, Needs};
use super::{Done, Failure, print, push, report, spec};

pub(crate) fn save(args: &SaveArgs) -> Done {
    let platform = spec::platform("--platform", args.platform.as_deref())?;
    let refuse = |message: &str, hint: &str| {
        report::usage(message, Some(hint));
        Err(Failure::Told(2))
    };
    let destination = match args.output.as_deref() {
        Some(path) if path != Path::new("-") => Destination::File(path.to_owned()),
        _ if args.format == SavedAs::OciDir => {
            return refuse(
                "a directory cannot be standard output",
                "give one with -o DIR",
            );
        }
        _ if io::stdout().is_terminal() => {
            return refuse(
                "an archive is not for a terminal",
                "give a file with -o, or redirect standard output",
            );
        }
        _ => Destination::Stdout,
    };
    let format = match (args.format, destination) {
        (SavedAs::DockerArchive, destination) => SaveFormat::DockerArchive(destination),
        (SavedAs::OciDir, Destination::File(path)) => SaveFormat::OciDirectory(path),
        (_, destination) => SaveFormat::OciArchive(destination),
    };
    let request = SaveRequest {
        images: args.images.clone(),
        platform,
        format,
    };
    let kiln = host::open(Needs::Layers, false)?;
    let runtime = host::runtime()?;
    let cancel = Cancel::new();
    host::watch_signals(&runtime, cancel.clone());
    let saved = runtime.block_on(async {
        tokio::select! {
            saved = kiln.save(request) => Some(saved),
            () = cancel.cancelled() => None,
        }
    });
    let warnings = match saved {
        Some(saved) => saved?,
        None => return Err(push::interrupted("save")),
    };
    for warning in &warnings {
        report::warning(warning);
    }
    host::settle_later(&kiln)?;
    Ok(std::process::ExitCode::SUCCESS)
}

pub(crate) fn load(args: &LoadArgs) -> Done {
    let platform = spec::platform("--platform", args.platform.as_deref())?;
    let input = args.input.as_deref().filter(|path| *path != Path::new("-"));
    if input.is_none() && io::stdin().is_terminal() {
        report::usage(
            "there is no archive to load: standard input is a terminal",
            Some("give a file or a directory with -i, or redirect standard input"),
        );
        return Err(Failure::Told(2));
    }
    let kiln = host::open(Needs::Layers, true)?;
    // After that, since an ordinary user's process begins anew there, and a pipe opens once.
    let source = match input {
        None => LoadSource::Archive(Box::new(io::stdin())),
        Some(path) if path.is_dir() => LoadSource::Directory,
        Some(path) => {
            let file = File::open(path).map_err(|source| Error::File {
                attempt: "open",
                path: path.to_owned(),
                source,
            })?;
            LoadSource::Archive(Box::new(file))
        }
    };
    let name = input.map_or_else(
        || "standard input".to_owned(),
        |path| path.display().to_string(),
    );
    let runtime = host::runtime()?;
    let cancel = Cancel::new();
    host::watch_signals(&runtime, cancel.clone());
    let loaded = runtime.block_on(async {
        tokio::select! {
            loaded = kiln.load(source, &name, platform) => Some(loaded),
            () = cancel.cancelled() => None,
        }
    });
    let Some(loaded) = loaded else {
        // What reads from a pipe may never hear of it.
        runtime.shutdown_background();
        return Err(push::interrupted("load"));
    };
    let loaded = loaded?;
    if !args.quiet {
        for image in loaded.iter().filter(|image| !image.left_out.is_empty()) {
            report::note(&format!(
                "{} is loaded for {} only: there is no content for {}",
                image.names.first().unwrap_or(&image.id),
                image.platforms.join(", "),
                image.left_out.join(", ")
            ));
        }
    }
    host::settle_later(&kiln)?;
    print(&loaded.iter().map(lines).collect::<String>())
}

/// What docker prints, a line a name.
fn lines(image: &LoadedImage) -> String {
    match image.names.is_empty() {
        true => format!("Loaded image ID: {}\n", image.id),
        false => image
            .names
            .iter()
            .map(|name| format!("Loaded image: {name}\n"))
            .collect(),
    }
}
