//! Front ends from outside: a program or an image reads the build file instead of the built-in one.
//!
//! `choice` finds out who is to read it, `talk` holds the conversation with its process, `desk` answers
//! what it asks, `solving` carries out plans that it asks about, `findings` gathers what it says of
//! files, `settling` makes what it returns a lowering like any other. The protocol is docs/frontends.md.

mod choice;
mod desk;
mod failure;
mod findings;
mod settling;
mod solving;
mod talk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_executor::{Error as ExecutorError, Piped, host_platform};
use kiln_frontend::lower::{Lowered, NamedContext, NoCache};
use kiln_frontend::outside::{Build, BuildFile, ContextKind, NoCacheOf, Returned, VERSION};
use kiln_ir::{Platform, ResolveMode};

use crate::delivery::{Asker, Place};
use crate::dockerfile::{CONTEXT, Source, named_contexts, says_no_such_image};
use crate::ignore::IgnoreFile;
use crate::lock::LockFile;
use crate::request::Frontend;
use crate::{Error, Event, SourceRequest};

pub(crate) use choice::{Chosen, choose};
pub use failure::{FrontendFailure, FrontendProblem};

use desk::Desk;
use findings::Notes;
use talk::{Conversation, Voice};

/// Reads a build file with a front end that is told nothing of images and runs nothing.
pub(crate) fn lower_assuming(
    request: &SourceRequest,
    place: Place,
    chosen: Chosen,
) -> Result<Source, Error> {
    if let Frontend::Image(image) = &chosen.frontend {
        return Err(Error::Usage {
            message: format!("the front end `{image}` is an image, and planning fetches none"),
            hint: Some("`kiln plan --resolve` fetches it".to_owned()),
        });
    }
    // A runtime of its own on a thread of its own, so that callers may have one or not.
    let talked = std::thread::scope(|scope| {
        let talking = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|source| Error::File {
                    attempt: "start",
                    path: "a runtime".into(),
                    source,
                })?;
            runtime.block_on(lower(request, place, chosen, None))
        });
        talking.join()
    });
    talked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reads a build file with a front end that may ask for images, and for plans to be carried out.
pub(crate) async fn lower_resolving(
    request: &SourceRequest,
    place: Place,
    chosen: Chosen,
    asker: &Asker,
) -> Result<Source, Error> {
    lower(request, place, chosen, Some(asker)).await
}

async fn lower(
    request: &SourceRequest,
    place: Place,
    chosen: Chosen,
    asker: Option<&Asker>,
) -> Result<Source, Error> {
    if request.lock.locked || request.lock.must_exist {
        return Err(Error::Usage {
            message: format!(
                "the front end `{}` goes by no lock: kiln.lock is for Dockerfiles",
                chosen.shown
            ),
            hint: Some("a plan of it can have pins of its own".to_owned()),
        });
    }
    let (locals, contexts) = named_contexts(request, &place)?;
    let file = chosen.file.as_ref();
    let ignore = match file {
        Some(file) => IgnoreFile::of(&place, &file.path)?,
        None => IgnoreFile::of(&place, std::path::Path::new(""))?,
    };
    // A plan that asks nobody is the same on every host.
    let builder = match (&request.build_platform, asker) {
        (Some(builder), _) => builder.clone(),
        (None, Some(_)) => host_platform(),
        (None, None) => LockFile::default().assumed().1,
    };
    let platforms = match request.platforms.as_slice() {
        [] => vec![builder.clone()],
        platforms => platforms.to_vec(),
    };
    let source_date_epoch = epoch(request)?;
    let build = build(
        request,
        &chosen,
        &contexts,
        ignore.as_ref(),
        (&platforms, &builder),
        source_date_epoch,
        asker.is_none(),
    );
    let lineage = match file {
        Some(file) => {
            let path = file.path.canonicalize().unwrap_or(file.path.clone());
            format!("{}\n{}\n{}", place.lineage, path.display(), chosen.shown)
        }
        None => format!("{}\n{}", place.lineage, chosen.shown),
    };
    let shown_file = file.map_or_else(|| chosen.shown.clone(), |file| file.name.clone());
    let notes = Notes::new(file.map(|file| (file.name.clone(), file.text.clone())));
    let mut desk = Desk::new(&place, &locals, asker, notes, platforms, lineage.clone())?
        .for_request(request, &chosen.shown);
    let (piped, streams) = match &chosen.frontend {
        Frontend::Program(program) => Piped::on_host(program, &request.frontends.environment)?,
        Frontend::Image(image) => {
            let mode = request.resolve_mode;
            match start_image(image, mode, asker).await {
                Err(Error::Executor(error)) if says_no_such_image(&error) => {
                    return Err(chosen.unavailable(error));
                }
                Err(Error::Executor(ExecutorError::NothingToRun { .. })) => {
                    let problem = FrontendProblem::NoProgram;
                    return Err(FrontendFailure::error(&chosen.shown, problem));
                }
                started => started?,
            }
        }
    };
    let conversation = Conversation {
        shown: &chosen.shown,
        patience: request.frontends.patience(),
        cancel: &request.frontends.cancel,
        voice: Arc::new(Voice::new(
            asker.map(|asker| Arc::clone(&asker.tell)),
            &chosen.shown,
        )),
    };
    let returned = conversation.hold(piped, streams, &build, &mut desk).await;
    let returned = match returned {
        Ok(returned) => returned,
        // What it said of files goes before how it went.
        Err(Error::Frontend(failure)) if desk.notes.has_errors() && failure.is_ending() => {
            Returned::Failed
        }
        Err(error) => return Err(error),
    };
    if desk.notes.has_errors() {
        return Err(desk.notes.error());
    }
    let Returned::Plan {
        plan,
        display,
        unused_args,
    } = returned
    else {
        return Err(FrontendFailure::error(
            &chosen.shown,
            FrontendProblem::NoReason,
        ));
    };
    let settled = desk.settle(plan, &display)?;
    let (findings, notices) = desk.notes.warnings(&shown_file);
    let unused_build_args: BTreeSet<String> = unused_args
        .into_iter()
        .filter(|name| request.build_args.contains_key(name))
        .collect();
    Ok(Source {
        lowered: Lowered {
            plan: settled.plan,
            diagnostics: findings.diagnostics.clone(),
            stages: Vec::new(),
            target: 0,
            outline: kiln_frontend::lower::Outline::default(),
            assumed: settled.assumed,
            scans: Vec::new(),
            remotes: Default::default(),
            unused_build_args: unused_build_args.into_iter().collect(),
            source_date_epoch,
        },
        findings,
        notices,
        declared_args: request.build_args.keys().cloned().collect(),
        locals,
        lineage,
        shown_file,
        place,
        ignore,
        lock: LockFile::default(),
    })
}

async fn start_image(
    image: &str,
    mode: ResolveMode,
    asker: Option<&Asker>,
) -> Result<(Piped, kiln_executor::Streams), Error> {
    let Some(asker) = asker else {
        unreachable!("BUG: an image is a front end only where images can be asked for");
    };
    let reference =
        kiln_frontend::lower::normalize_reference(image).map_err(|reason| Error::Usage {
            message: format!("the front end `{image}` is no image: {reason}"),
            hint: None,
        })?;
    let found = asker
        .resolver
        .image(&reference, &host_platform(), mode)
        .await?;
    (asker.tell)(Event::Notice(format!("front end {image}: {}", found.label)));
    Ok(Piped::in_image(asker.resolver.executor(), image, found).await?)
}

/// The first message.
fn build(
    request: &SourceRequest,
    chosen: &Chosen,
    contexts: &BTreeMap<String, NamedContext>,
    ignore: Option<&IgnoreFile>,
    (platforms, builder): (&[Platform], &Platform),
    source_date_epoch: Option<i64>,
    assuming: bool,
) -> Build {
    let mut kinds: BTreeMap<String, ContextKind> = contexts
        .iter()
        .map(|(name, context)| {
            let kind = match context {
                NamedContext::Local { ignore, .. } => ContextKind::Directory {
                    ignore: ignore.clone(),
                },
                NamedContext::Image(reference) => ContextKind::Image(reference.clone()),
                NamedContext::OciLayout(name) => ContextKind::OciLayout(name.clone()),
                NamedContext::Url(url) => ContextKind::Url(url.clone()),
            };
            (name.clone(), kind)
        })
        .collect();
    kinds.insert(
        CONTEXT.to_owned(),
        ContextKind::Directory {
            ignore: IgnoreFile::patterns(ignore),
        },
    );
    let given = request.build_args.iter();
    Build {
        version: VERSION,
        file: chosen.file.as_ref().map(|file| BuildFile {
            name: file.name.clone(),
            content: STANDARD.encode(&file.bytes),
        }),
        target: request.target.clone().unwrap_or_default(),
        args: given
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
            .collect(),
        platforms: platforms.iter().map(Platform::to_string).collect(),
        build_platform: builder.to_string(),
        labels: request.labels.clone(),
        no_cache: match &request.no_cache {
            NoCache::No => NoCacheOf::None,
            NoCache::All => NoCacheOf::All,
            NoCache::Stages(stages) => NoCacheOf::Stages(stages.clone()),
        },
        network: request.network,
        add_hosts: request.add_hosts.clone(),
        ulimits: request.ulimits.clone(),
        shm_size_bytes: request.shm_size_bytes,
        cgroup_parent: request.cgroup_parent.clone(),
        proxy: request.proxy.clone(),
        source_date_epoch,
        contexts: kinds,
        assuming,
    }
}

/// The one time of everything made; the build argument goes before the caller's setting.
fn epoch(request: &SourceRequest) -> Result<Option<i64>, Error> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    match request.build_args.get(NAME).and_then(Option::as_deref) {
        None => Ok(request.source_date_epoch),
        Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(seconds) if seconds >= 0 => Ok(Some(seconds)),
            _ => Err(Error::Usage {
                message: format!(
                    "the build argument `{NAME}` is `{text}`, which is no number of seconds since 1970"
                ),
                hint: None,
            }),
        },
    }
}
