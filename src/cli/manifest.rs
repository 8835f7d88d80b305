//! `kiln manifest`: images for several platforms, put together by hand.

use std::collections::BTreeMap;
use std::process::ExitCode;

use kiln::{Kiln, ListRequest, MemberChange};

use super::args::ManifestCommand;
use super::host::{self, Needs};
use super::{Done, images, print, push, report, spec};

pub(crate) fn manifest(command: &ManifestCommand) -> Done {
    match command {
        ManifestCommand::Create {
            name,
            images,
            amend,
            annotation,
        } => {
            let request = ListRequest {
                name: name.clone(),
                images: images.clone(),
                amend: *amend,
                annotations: annotations(annotation)?,
            };
            let kiln = host::open(Needs::Records, false)?;
            let id = host::runtime()?.block_on(kiln.create_list(&request))?;
            host::settle_later(&kiln)?;
            print(&format!("{id}\n"))
        }
        ManifestCommand::Annotate {
            name,
            member,
            os,
            arch,
            variant,
            annotation,
        } => {
            let change = MemberChange {
                os: os.clone(),
                architecture: arch.clone(),
                variant: variant.clone(),
                annotations: annotations(annotation)?,
            };
            let kiln = host::open(Needs::Records, true)?;
            print(&format!("{}\n", kiln.annotate_list(name, member, &change)?))
        }
        ManifestCommand::Inspect { name, raw, remote } => {
            let kiln = host::open(Needs::Records, false)?;
            let bytes = host::runtime()?.block_on(kiln.raw_manifest(name, *remote))?;
            let text = String::from_utf8_lossy(&bytes);
            let printed = match serde_json::from_slice::<serde_json::Value>(&bytes) {
                Ok(document) if !raw => print(&format!("{document:#}\n")),
                _ => print(&text),
            };
            printed?;
            if !remote && is_unknown_list(&kiln, name) {
                report::note(
                    "images that were built here are packed when they are pushed: their digests, and the list's, are others then",
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        ManifestCommand::Push {
            name,
            destination,
            compression,
            progress,
            quiet,
        } => {
            let kiln = host::open(Needs::Layers, false)?;
            let (destination, compression) = (destination.as_deref(), (*compression).into());
            let pushed = push::shown(*progress, *quiet, async |observer| {
                kiln.push_list(name, destination, compression, observer)
                    .await
            })?;
            host::settle_later(&kiln)?;
            print(&pushed.iter().map(push::line).collect::<String>())
        }
        ManifestCommand::Rm { names } => {
            let kiln = host::open(Needs::Records, true)?;
            for name in names {
                kiln.check_list(name)?;
            }
            images::remove(names, false)
        }
    }
}

/// Whether a name is of a list here that no registry has as it is.
fn is_unknown_list(kiln: &Kiln, name: &str) -> bool {
    let Ok(details) = kiln.image_details(name) else {
        return false;
    };
    let known = |digest: &String| digest.ends_with(&details.id);
    details.index.is_some() && !details.digests.iter().any(known)
}

/// Reads `KEY=VALUE`s.
fn annotations(given: &[String]) -> Result<BTreeMap<String, String>, spec::SpecError> {
    given
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(spec::SpecError {
                message: format!("--annotation is `{text}`, which is not KEY=VALUE"),
                hint: None,
            }),
        })
        .collect()
}
