//! From a request to a plan: reading the files, lowering, answering what lowering asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_executor::{
    Error as ExecutorError, Locals, ResolvedImage, Resolver, host_platform, words,
};
use kiln_frontend::dockerfile::Parsed;
use kiln_frontend::dockerfile::ast::{Dockerfile, Kind};
use kiln_frontend::lower::{
    Answers, ImageAnswer, LowerInput, Lowered, Lowering, NamedContext, Question, TimeAnswer,
    foreign_syntax, lower,
};
use kiln_ir::{Platform, ResolveMode};
use tokio::task::JoinSet;

use crate::delivery::{Asker, Place};
use crate::ignore::IgnoreFile;
use crate::lock::{LockFile, lock_command};
use crate::outside::{self, choose};
use crate::{ContextRequest, DockerfileRequest, Error, Findings, LockError, SourceRequest};

/// A Dockerfile of more bytes is a mistake.
const LIMIT_BYTES: u64 = 16 << 20;
/// The name that local sources of the main context have in plans.
pub(crate) const CONTEXT: &str = "context";
const DEFAULT_NAME: &str = "Dockerfile";
/// What the system calls a file that is not there (ENOENT).
const NOT_THERE: i32 = 2;

/// A Dockerfile that was lowered, and where its sources lie.
pub(crate) struct Source {
    pub(crate) lowered: Lowered,
    pub(crate) findings: Findings,
    /// What a front end from outside says beside that, a line each.
    pub(crate) notices: Vec<String>,
    pub(crate) locals: Locals,
    /// What builds of the same thing have in common.
    pub(crate) lineage: String,
    /// The names that ARG declares anywhere in the file.
    pub(crate) declared_args: BTreeSet<String>,
    /// The Dockerfile as people know it.
    pub(crate) shown_file: String,
    /// Where the context is; what was brought here is kept with it.
    pub(crate) place: Place,
    /// Where the context's ignore rules are written.
    pub(crate) ignore: Option<IgnoreFile>,
    /// What fixes images, commits and files.
    pub(crate) lock: LockFile,
}

/// What has been read before lowering begins.
pub(crate) struct Loaded {
    pub(crate) input: LowerInput,
    pub(crate) locals: Locals,
    lineage: String,
    declared_args: BTreeSet<String>,
    shown_file: String,
    pub(crate) place: Place,
    ignore: Option<IgnoreFile>,
    pub(crate) lock: LockFile,
    /// What the text of `input` is parsed to.
    pub(crate) parsed: Parsed,
}

/// Lowers with every base image that no lock knows taken to have an empty config: nothing is asked.
///
/// Nothing that only this host is or has finds its way into the plan.
pub(crate) fn lower_assuming(request: &SourceRequest) -> Result<Source, Error> {
    let place = Place::local(request)?;
    if let Some(chosen) = choose(request, &place)? {
        return outside::lower_assuming(request, place, chosen);
    }
    let loaded = load_on(request, place, LockFile::assumed)?;
    let mut answers = Answers::default();
    let mut missing = BTreeSet::new();
    loop {
        let questions = match lower(&loaded.input, &answers) {
            Lowering::Needs(questions) => questions,
            done => return finish(done, loaded, missing, request),
        };
        for question in questions {
            match (loaded.lock.image(&question), &question) {
                (Some(image), _) => answers.image(question, image),
                (None, Question::SourceTime { url }) => {
                    let time = loaded.lock.time(url.as_deref());
                    missing.extend(missing_time(url.as_deref()).filter(|_| time.is_none()));
                    answers.time(question, time.unwrap_or(TimeAnswer::Assumed));
                }
                (None, _) => {
                    missing.extend(missing_image(&question));
                    answers.image(question, ImageAnswer::Assumed);
                }
            }
        }
    }
}

/// The name under which an image that is not locked is told; an image in a layout is none.
fn missing_image(question: &Question) -> Option<String> {
    match question {
        Question::ImageConfig {
            reference,
            platform,
        } => Some(format!("{reference} {platform}")),
        Question::LayoutConfig { .. } | Question::SourceTime { .. } => None,
    }
}

/// The same of a time; the context has its own.
fn missing_time(url: Option<&str>) -> Option<String> {
    url.map(|url| format!("time of {url}"))
}

/// Lowers with what store and registries say of base images; all that is asked at once is found
/// out at the same time.
pub(crate) async fn lower_resolving(
    request: &SourceRequest,
    asker: &Asker,
) -> Result<Source, Error> {
    let resolver = &asker.resolver;
    let place = Place::arrive(request, asker).await?;
    if let Some(chosen) = choose(request, &place)? {
        return outside::lower_resolving(request, place, chosen, asker).await;
    }
    let loaded = load(request, place)?;
    let locals = Arc::new(loaded.locals.clone());
    let mut answers = Answers::default();
    let mut missing = BTreeSet::new();
    let only = request.lock.locked;
    loop {
        let questions = match lower(&loaded.input, &answers) {
            Lowering::Needs(questions) => questions,
            done => {
                return finish(done, loaded, missing, request);
            }
        };
        let mut images = Vec::new();
        for question in questions {
            if let Some(image) = loaded.lock.image(&question) {
                answers.image(question, image);
            } else if let Question::SourceTime { url } = &question {
                let url = url.as_deref();
                let lacks = missing_time(url).filter(|_| only);
                let answer = match (loaded.lock.time(url), &lacks) {
                    (Some(time), _) => time,
                    (None, Some(_)) => TimeAnswer::Assumed,
                    (None, None) => loaded.place.time_of(url, asker).await?,
                };
                if answer == TimeAnswer::Assumed {
                    missing.extend(lacks);
                }
                answers.time(question, answer);
            } else if let Some(name) = missing_image(&question).filter(|_| only) {
                // All that lacks is told at once.
                missing.insert(name);
                answers.image(question, ImageAnswer::Assumed);
            } else {
                images.push(question);
            }
        }
        let mode = request.resolve_mode;
        for (question, found) in answer(images, resolver, &locals, mode).await {
            let answer = match found {
                Ok(image) => ImageAnswer::Resolved {
                    config: Box::new(image.config),
                    digest: image.manifest_digest,
                },
                Err(error) => refused_image(error)?,
            };
            answers.image(question, answer);
        }
    }
}

/// Asks for all images at the same time; the answers come in the order of the questions, so that of
/// two errors always the same one is told.
pub(crate) async fn answer(
    questions: Vec<Question>,
    resolver: &Arc<Resolver>,
    locals: &Arc<Locals>,
    mode: ResolveMode,
) -> Vec<(Question, Result<ResolvedImage, ExecutorError>)> {
    let mut asking = JoinSet::new();
    for (index, question) in questions.into_iter().enumerate() {
        let (resolver, locals) = (Arc::clone(resolver), Arc::clone(locals));
        asking.spawn(async move {
            let found = ask(&resolver, &locals, &question, mode).await;
            (index, question, found)
        });
    }
    let mut answered = BTreeMap::new();
    while let Some(done) = asking.join_next().await {
        match done {
            Ok((index, question, found)) => answered.insert(index, (question, found)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
    }
    answered.into_values().collect()
}

async fn ask(
    resolver: &Resolver,
    locals: &Locals,
    question: &Question,
    mode: ResolveMode,
) -> Result<ResolvedImage, ExecutorError> {
    match question {
        Question::ImageConfig {
            reference,
            platform,
        } => resolver.image(reference, platform, mode).await,
        Question::LayoutConfig {
            reference,
            platform,
        } => resolver.layout(locals, reference, platform),
        Question::SourceTime { .. } => unreachable!("BUG: a time is no image"),
    }
}

/// The answer that there is no such image; any other error is one of the whole build.
pub(crate) fn refused_image(error: ExecutorError) -> Result<ImageAnswer, Error> {
    match says_no_such_image(&error) {
        true => Ok(ImageAnswer::Unavailable {
            reason: words(&error),
            help: error.hint(),
        }),
        false => Err(error.into()),
    }
}

/// Whether the instruction that names the image is at fault, not the host or the network.
pub(crate) fn says_no_such_image(error: &ExecutorError) -> bool {
    matches!(
        error,
        ExecutorError::Registry(_)
            | ExecutorError::Offline { .. }
            | ExecutorError::Reference(_)
            | ExecutorError::Platform { .. }
            | ExecutorError::Document { .. }
    )
}

/// Pins what was lowered by its lock; `missing` are images that it lacks.
fn finish(
    lowering: Lowering,
    loaded: Loaded,
    missing: BTreeSet<String>,
    request: &SourceRequest,
) -> Result<Source, Error> {
    let Loaded {
        input,
        locals,
        lineage,
        declared_args,
        shown_file,
        place,
        ignore,
        lock,
        parsed: _,
    } = loaded;
    let findings = |diagnostics| Findings {
        file_name: input.file_name.clone(),
        text: input.text.clone(),
        diagnostics,
    };
    match lowering {
        Lowering::Lowered(mut lowered) => {
            lock.pin(&mut lowered.plan);
            lock.require(&lowered.plan, missing, request)?;
            let findings = findings(lowered.diagnostics.clone());
            Ok(Source {
                lowered: *lowered,
                findings,
                notices: Vec::new(),
                locals,
                lineage,
                declared_args,
                shown_file,
                place,
                ignore,
                lock,
            })
        }
        Lowering::Failed(diagnostics) => Err(Error::Dockerfile(Box::new(findings(diagnostics)))),
        Lowering::Needs(_) => unreachable!("BUG: questions are answered before"),
    }
}

/// Reads what a build on this host needs; errors for a file that is for another front end.
pub(crate) fn load(request: &SourceRequest, place: Place) -> Result<Loaded, Error> {
    load_on(request, place, |_| (host_platform(), host_platform()))
}

/// Reads what a build needs; `default` gives what it is for, and what builds it, unless the request
/// says so.
fn load_on(
    request: &SourceRequest,
    place: Place,
    default: impl Fn(&LockFile) -> (Platform, Platform),
) -> Result<Loaded, Error> {
    if let Some(frontend) = &request.frontends.chosen {
        return Err(Error::Usage {
            message: format!(
                "this is answered for Dockerfiles only, and the front end is `{frontend}`"
            ),
            hint: Some("`kiln plan --frontend` shows what it makes of the file".to_owned()),
        });
    }
    let written = find_dockerfile(request, &place)?;
    let Written { path, bytes } = &written;
    let (text, parsed) = kiln_frontend::dockerfile::parse_bytes(bytes);
    if let Some(finding) = foreign_syntax(&text, &request.build_args) {
        return Err(Error::Dockerfile(Box::new(Findings {
            file_name: shown_name(path, &place.context),
            text,
            diagnostics: vec![finding],
        })));
    }
    let mut codes = parsed.diagnostics.iter().map(|finding| finding.code);
    if codes.any(|code| code == "not-utf8") {
        return Err(Error::Dockerfile(Box::new(Findings {
            file_name: shown_name(path, &place.context),
            text,
            diagnostics: parsed.diagnostics,
        })));
    }
    let declared_args = declared_args(&parsed.dockerfile);
    let (locals, contexts) = named_contexts(request, &place)?;
    let shown_file = shown_name(path, &place.context);
    let file = path.canonicalize().unwrap_or_else(|_| path.clone());
    let lineage = format!("{}\n{}", place.lineage, file.display());
    let ignore = IgnoreFile::of(&place, path)?;
    let lock = LockFile::find(request, &place, path)?;
    if let (Some(path), None, true) = (&request.lock.file, &lock.lock, request.lock.must_exist) {
        return Err(LockError::Absent {
            path: path.clone(),
            command: lock_command(request, false),
        }
        .into());
    }
    let (target, builder) = match &request.build_platform {
        Some(builder) => (builder.clone(), builder.clone()),
        None => default(&lock),
    };
    let input = LowerInput {
        text,
        file_name: shown_file.clone(),
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        labels: request.labels.clone(),
        platforms: match request.platforms.as_slice() {
            [] => vec![target],
            platforms => platforms.to_vec(),
        },
        build_platform: builder,
        no_cache: request.no_cache.clone(),
        network: request.network,
        add_hosts: request.add_hosts.clone(),
        ulimits: request.ulimits.clone(),
        limits: request.limits.clone(),
        cgroup_parent: request.cgroup_parent.clone(),
        shm_size_bytes: request.shm_size_bytes,
        contexts,
        ignore: IgnoreFile::patterns(ignore.as_ref()),
        proxy: request.proxy.clone(),
        source_date_epoch: request.source_date_epoch,
        resolve_mode: request.resolve_mode,
        ..LowerInput::default()
    };
    Ok(Loaded {
        input,
        locals,
        lineage,
        declared_args,
        shown_file,
        place,
        ignore,
        lock,
        parsed,
    })
}

/// The contexts of a build by name, where they lie, and what they are.
///
/// The main one lies there too, but is not named.
pub(crate) fn named_contexts(
    request: &SourceRequest,
    place: &Place,
) -> Result<(Locals, BTreeMap<String, NamedContext>), Error> {
    let mut locals = Locals::default();
    locals
        .directories
        .insert(CONTEXT.to_owned(), place.context.clone());
    let mut contexts = BTreeMap::new();
    for (name, context) in &request.contexts {
        let named = match context {
            ContextRequest::Directory(directory) => {
                locals.directories.insert(name.clone(), directory.clone());
                NamedContext::Local {
                    source: name.clone(),
                    ignore: IgnoreFile::patterns(IgnoreFile::find(directory, None)?.as_ref()),
                }
            }
            ContextRequest::Image(reference) => NamedContext::Image(reference.clone()),
            ContextRequest::Url(url) => NamedContext::Url(url.clone()),
            ContextRequest::OciLayout { path, reference } => {
                locals.layouts.insert(name.clone(), path.clone());
                NamedContext::OciLayout(match reference {
                    None => name.clone(),
                    Some(digest) if digest.contains(':') => format!("{name}@{digest}"),
                    Some(tag) => format!("{name}:{tag}"),
                })
            }
        };
        contexts.insert(name.clone(), named);
    }
    Ok((locals, contexts))
}

/// A Dockerfile that was read.
pub(crate) struct Written {
    /// Where: a path of the caller, one within a context that was brought here, or a name.
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// `-f` is relative to the working directory, or to a context that was brought here; without it,
/// the context has the file.
pub(crate) fn find_dockerfile(request: &SourceRequest, place: &Place) -> Result<Written, Error> {
    if let Some((name, bytes)) = &place.dockerfile {
        return Ok(Written {
            path: PathBuf::from(name),
            bytes: bytes.clone(),
        });
    }
    let absent = |path: &Path| Error::File {
        attempt: "read the Dockerfile",
        path: path.to_owned(),
        // As the system says it elsewhere.
        source: io::Error::from_raw_os_error(NOT_THERE),
    };
    let (path, bytes) = match (&request.dockerfile, &place.delivered) {
        (Some(DockerfileRequest::Path(path)), None) => (path.clone(), read(path)?),
        (Some(DockerfileRequest::Path(path)), Some(_)) => (path.clone(), place.read(path)?),
        (_, None) => {
            let path = default_dockerfile(&place.context)?;
            let bytes = read(&path)?;
            (path, bytes)
        }
        (_, Some(_)) => {
            let lower = DEFAULT_NAME.to_lowercase();
            let mut found = None;
            for name in [DEFAULT_NAME, &lower] {
                if found.is_none() {
                    let path = PathBuf::from(name);
                    found = place.read(&path)?.map(|bytes| (path, Some(bytes)));
                }
            }
            found.ok_or_else(|| no_dockerfile(&place.shown))?
        }
    };
    match bytes {
        Some(bytes) => Ok(Written { path, bytes }),
        None => Err(absent(&path)),
    }
}

fn default_dockerfile(context: &Path) -> Result<PathBuf, Error> {
    if !context.is_dir() {
        return Err(Error::Usage {
            message: format!(
                "the build context `{}` is not a directory",
                context.display()
            ),
            hint: Some(
                "give the directory that holds the Dockerfile, as in `kiln build .`".to_owned(),
            ),
        });
    }
    let named = context.join(DEFAULT_NAME);
    let lower = context.join(DEFAULT_NAME.to_lowercase());
    if !named.exists() && lower.exists() {
        return Ok(lower);
    }
    if !named.exists() {
        return Err(no_dockerfile(&context.display().to_string()));
    }
    Ok(named)
}

fn no_dockerfile(context: &str) -> Error {
    Error::Usage {
        message: format!("there is no Dockerfile in `{context}`"),
        hint: Some("name another file with -f".to_owned()),
    }
}

/// Reads a small file; none if it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let failed = |attempt| {
        let path = path.to_owned();
        move |source| Error::File {
            attempt,
            path,
            source,
        }
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed("open")(error)),
    };
    let mut bytes = Vec::new();
    file.take(LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("read"))?;
    if bytes.len() as u64 > LIMIT_BYTES {
        let source = io::Error::other(format!("it has more than {LIMIT_BYTES} bytes"));
        return Err(failed("read")(source));
    }
    Ok(Some(bytes))
}

/// The file as people know it: without the context's own path in front.
pub(crate) fn shown_name(path: &Path, context: &Path) -> String {
    path.strip_prefix(context)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// The names that ARG declares, so that a change of one is told as such and not as one of ENV.
fn declared_args(dockerfile: &Dockerfile) -> BTreeSet<String> {
    let global = dockerfile
        .global_args
        .iter()
        .flat_map(|arg| &arg.kind.declarations);
    let instructions = dockerfile
        .stages
        .iter()
        .flat_map(|stage| &stage.instructions);
    let local = instructions.flat_map(|instruction| match &instruction.kind {
        Kind::Arg(arg) => arg.declarations.as_ref(),
        _ => &[],
    });
    global
        .chain(local)
        .map(|declaration| declaration.name.text.to_string())
        .collect()
}
