//! Contexts from elsewhere, brought here before anything is lowered.
//!
//! What arrives is a layer of the store, found again by its commit or digest; from there on it is a
//! directory like any other, so that ignore rules, selections and reasons work as always.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_executor::{
    BuildWorker, Delivered, Executor, Locals, Resolver, Secrets, StreamContent, userns,
};
use kiln_frontend::lower::{CONTEXT_FILE, RemoteContext, TimeAnswer, remote_context};
use kiln_ir::{
    ActionInput, CopyAction, FileAction, FileActionKind, FileOp, GitSource, HttpSource, Input,
    Node, NodeId, Op, Pin, Plan, SourceOp,
};
use kiln_solver::{
    Cancel, Failure, Goal, Need, SolveError, SolveOptions, SolveRequest, Solver, Worker,
};

use crate::request::ReadOnce;
use crate::{Delivery, DockerfileRequest, Entitlement, Error, Event, SourceRequest};

/// A Dockerfile of more bytes is a mistake.
const DOCKERFILE_LIMIT_BYTES: u64 = 16 << 20;
/// What standard input is called.
const STREAM: &str = "-";
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Who is told what happens before there is a plan.
pub(crate) type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// Asks elsewhere for one build, with what it may prove itself with.
pub(crate) struct Asker {
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) secrets: Secrets,
    pub(crate) tell: Tell,
    /// Stops plans that are carried out for a front end.
    pub(crate) cancel: Cancel,
    /// What such plans may have.
    pub(crate) allow: BTreeSet<Entitlement>,
    /// Whether they may be carried out at all.
    pub(crate) may_run: bool,
    /// Held while one is carried out.
    pub(crate) solving: tokio::sync::Mutex<()>,
}

impl Asker {
    /// Asks for somebody who only wants to know.
    pub(crate) fn new(resolver: Arc<Resolver>, secrets: Secrets) -> Asker {
        Asker {
            resolver,
            secrets,
            tell: Arc::new(drop),
            cancel: Cancel::new(),
            allow: BTreeSet::new(),
            may_run: true,
            solving: tokio::sync::Mutex::new(()),
        }
    }

    /// Returns once the build is to stop, and nothing runs any more that has to end in order.
    pub(crate) async fn stopped(&self) {
        self.cancel.cancelled().await;
        drop(self.solving.lock().await);
    }

    fn worker(&self) -> BuildWorker {
        let resolver = Arc::clone(&self.resolver);
        let worker = BuildWorker::new(self.resolver.executor(), resolver, Locals::default());
        worker.with_secrets(self.secrets.clone())
    }
}

impl Asker {
    /// Finds out what a git or http source means.
    pub(crate) async fn pin(&self, source: &SourceOp) -> Result<Pin, Error> {
        let plan = source_plan(source.clone());
        let node = last(&plan).node;
        let plan = Arc::new(plan);
        let request = kiln_solver::SourceRequest { plan, node };
        Ok(self.worker().pin(request).await?.pin)
    }

    /// Pins the repositories and files over http of a plan.
    ///
    /// A file that must be fetched to be known is left out where layers cannot be made: by an
    /// ordinary user outside a namespace.
    pub(crate) async fn pin_remotes(&self, plan: &mut Plan) -> Result<(), Error> {
        let asked = Arc::new(plan.clone());
        let worker = self.worker();
        let mut pins = BTreeMap::new();
        let unpinned = |node: &NodeId| !asked.pins.contains_key(node);
        for node in asked.order().into_iter().filter(unpinned) {
            let is_known = match &plan.graph.node(node).op {
                Op::Source(SourceOp::Git(_)) => true,
                Op::Source(SourceOp::Http(source)) => {
                    source.checksum.is_some() || userns::is_root()
                }
                _ => false,
            };
            if is_known {
                let plan = Arc::clone(&asked);
                let pinned = worker
                    .pin(kiln_solver::SourceRequest { plan, node })
                    .await?;
                pins.insert(node, pinned.pin);
            }
        }
        plan.pins.extend(pins);
        Ok(())
    }
}

/// Where the context of a build is, once it is here.
pub(crate) struct Place {
    /// The directory.
    pub(crate) context: PathBuf,
    /// The context as people know it.
    pub(crate) shown: String,
    /// What builds of the same context have in common, whatever version of it they see.
    pub(crate) lineage: String,
    /// What was brought here; none for a directory of the caller.
    pub(crate) delivered: Option<Delivered>,
    /// A Dockerfile that is not looked for, with its name.
    pub(crate) dockerfile: Option<(String, Vec<u8>)>,
    /// Where it came from, if that was a URL.
    pub(crate) source: Option<SourceOp>,
    /// What it was there.
    pub(crate) pin: Option<Pin>,
}

impl Place {
    /// The place of a request that needs nothing brought, or an error that says what does.
    pub(crate) fn local(request: &SourceRequest) -> Result<Place, Error> {
        let needs_asking = |what: &str| Error::Usage {
            message: format!("nothing can be said of {what} without asking for it"),
            hint: Some("`kiln plan --resolve` asks".to_owned()),
        };
        match &request.delivery {
            None => {}
            Some(Delivery::Url(url)) => return Err(needs_asking(&format!("the context `{url}`"))),
            Some(Delivery::Stream(_)) => return Err(needs_asking("a context on standard input")),
        }
        let dockerfile = match &request.dockerfile {
            None | Some(DockerfileRequest::Path(_)) => None,
            Some(DockerfileRequest::Stream(stream)) => {
                Some((STREAM.to_owned(), read_stream(stream)?))
            }
            Some(DockerfileRequest::Url(url)) => {
                return Err(needs_asking(&format!("the Dockerfile `{url}`")));
            }
        };
        let canonical = request.context.canonicalize();
        let canonical = canonical.unwrap_or_else(|_| request.context.clone());
        Ok(Place {
            context: request.context.clone(),
            shown: request.context.display().to_string(),
            lineage: canonical.display().to_string(),
            delivered: None,
            dockerfile,
            source: None,
            pin: None,
        })
    }

    /// Brings here what a request needs.
    pub(crate) async fn arrive(request: &SourceRequest, asker: &Asker) -> Result<Place, Error> {
        let executor = asker.resolver.executor().clone();
        let mut place = match &request.delivery {
            None => Place::local(&SourceRequest {
                dockerfile: None,
                ..request.clone()
            })?,
            Some(Delivery::Url(url)) => from_url(request, url, asker).await?,
            Some(Delivery::Stream(stream)) => from_stream(&executor, stream).await?,
        };
        match &request.dockerfile {
            None | Some(DockerfileRequest::Path(_)) => {}
            Some(DockerfileRequest::Stream(stream)) => {
                place.dockerfile = Some((STREAM.to_owned(), read_stream(stream)?));
            }
            Some(DockerfileRequest::Url(url)) => {
                let source = http(url);
                let file = bring(asker, &source_plan(SourceOp::Http(source))).await?;
                let bytes = file.delivered.read(CONTEXT_FILE, DOCKERFILE_LIMIT_BYTES)?;
                place.dockerfile = Some((url.clone(), bytes.unwrap_or_default()));
            }
        }
        Ok(place)
    }

    /// What to say of a file that it lacks, if it was brought here: nobody knows the directory that it is in.
    pub(crate) fn lacks(&self) -> Option<String> {
        let delivered = self.delivered.as_ref()?;
        Some(match delivered.is_empty() {
            true => "there is no build context, but a Dockerfile alone; \
                     `kiln build -f - DIRECTORY` reads it and has one"
                .to_owned(),
            false => format!(
                "sources are relative to the build context, `{}`",
                self.shown
            ),
        })
    }

    /// Finds out when a source was last changed: one at a URL, or the context.
    pub(crate) async fn time_of(
        &self,
        url: Option<&str>,
        asker: &Asker,
    ) -> Result<TimeAnswer, Error> {
        let unknown = |reason: &str| TimeAnswer::Unknown {
            reason: reason.to_owned(),
        };
        let source = match url {
            None => self.source.clone(),
            Some(url) => match remote_context(url) {
                Ok(Some(RemoteContext::Git(source))) => Some(SourceOp::Git(*source)),
                Ok(Some(RemoteContext::Http(url))) => Some(SourceOp::Http(http(&url))),
                Ok(None) => None,
                Err(message) => return Ok(unknown(&message)),
            },
        };
        let seconds = match (source, &self.delivered) {
            (Some(source), _) => asker.worker().source_time(&source).await?,
            (None, Some(delivered)) => delivered.newest(),
            (None, None) => return Ok(unknown("a directory has no time of its own")),
        };
        Ok(match seconds {
            Some(seconds) => TimeAnswer::Known(seconds),
            None => unknown("nobody says when it was last changed"),
        })
    }

    /// Reads a file of a context that was brought here; `None` if it is not there.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        match &self.delivered {
            Some(delivered) => Ok(delivered.read(&path.to_string_lossy(), DOCKERFILE_LIMIT_BYTES)?),
            None => unreachable!("BUG: a directory of the caller is not brought here"),
        }
    }
}

async fn from_url(request: &SourceRequest, url: &str, asker: &Asker) -> Result<Place, Error> {
    let remote = remote_context(url).map_err(|message| Error::Usage {
        message: format!("the context `{url}` cannot be used: {message}"),
        hint: Some("as in https://example.org/app.git#main:subdirectory".to_owned()),
    })?;
    let (source, pin, delivered, shown, dockerfile) = match remote {
        Some(RemoteContext::Git(source)) => {
            let source = SourceOp::Git(with_options(*source, request)?);
            let brought = bring(asker, &source_plan(source.clone())).await?;
            // The label says how the commit was found out, too.
            let commit = brought.label.split(',').next().unwrap_or_default();
            let shown = format!("{url} ({commit})");
            (source, brought.pin, brought.delivered, shown, None)
        }
        Some(RemoteContext::Http(_)) => {
            let source = SourceOp::Http(http(url));
            let Brought {
                delivered: file,
                label,
                pin,
            } = bring(asker, &source_plan(source.clone())).await?;
            let digest = label.split(',').next().unwrap_or_default();
            let shown = format!("{url} ({digest})");
            if file.is_archive(CONTEXT_FILE)? {
                let unpacked = bring(asker, &unpacking_plan(http(url))).await?;
                (source, pin, unpacked.delivered, shown, None)
            } else {
                let bytes = file.read(CONTEXT_FILE, DOCKERFILE_LIMIT_BYTES)?;
                let bytes = bytes.unwrap_or_default();
                let dockerfile = (CONTEXT_FILE.to_owned(), bytes);
                (source, pin, file, shown, Some(dockerfile))
            }
        }
        None => {
            return Err(Error::Usage {
                message: format!("the context `{url}` is neither a git repository nor http"),
                hint: Some("give a directory, a URL or -".to_owned()),
            });
        }
    };
    Ok(Place {
        context: delivered.directory().to_owned(),
        shown,
        // Another branch of a repository is another version of the same context.
        lineage: url.split(['#', '?']).next().unwrap_or_default().to_owned(),
        delivered: Some(delivered),
        dockerfile,
        source: Some(source),
        pin,
    })
}

async fn from_stream(executor: &Executor, stream: &ReadOnce) -> Result<Place, Error> {
    let reader = stream.take()?;
    let executor = executor.clone();
    let unpacked = move || -> Result<_, Error> {
        Ok(match executor.deliver_stream(reader, STREAM)? {
            StreamContent::Archive(delivered) => (delivered, None),
            StreamContent::Other(mut rest) => {
                let bytes = read_limited(&mut rest)?;
                if bytes.is_empty() {
                    return Err(Error::Usage {
                        message: "there is nothing on standard input".to_owned(),
                        hint: Some(
                            "`-` reads the build context from there: a tar archive or a Dockerfile"
                                .to_owned(),
                        ),
                    });
                }
                (
                    executor.deliver_nothing()?,
                    Some((STREAM.to_owned(), bytes)),
                )
            }
        })
    };
    let (delivered, dockerfile) = match tokio::task::spawn_blocking(unpacked).await {
        Ok(unpacked) => unpacked?,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    Ok(Place {
        context: delivered.directory().to_owned(),
        shown: STREAM.to_owned(),
        lineage: STREAM.to_owned(),
        delivered: Some(delivered),
        dockerfile,
        source: None,
        pin: None,
    })
}

/// The source with what build arguments say of a context.
fn with_options(source: GitSource, request: &SourceRequest) -> Result<GitSource, Error> {
    let given = |name: &str| request.build_args.get(name).and_then(Option::as_deref);
    let keep = match given(KEEP_GIT_DIR) {
        None | Some("") => source.keep_git_dir,
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => source.keep_git_dir,
        Some(value) => {
            return Err(Error::Usage {
                message: format!(
                    "build argument `{KEEP_GIT_DIR}` is `{value}`, but must be true or false"
                ),
                hint: None,
            });
        }
    };
    let has_epoch =
        request.source_date_epoch.is_some() || given(EPOCH).is_some_and(|value| !value.is_empty());
    Ok(GitSource {
        keep_git_dir: keep,
        mtime_from_commit: source.mtime_from_commit || has_epoch,
        ..source
    })
}

fn http(url: &str) -> HttpSource {
    HttpSource {
        url: url.to_owned(),
        filename: Some(CONTEXT_FILE.to_owned()),
        ..HttpSource::default()
    }
}

/// A plan with a source alone.
fn source_plan(source: SourceOp) -> Plan {
    let mut plan = Plan::default();
    add(&mut plan, Op::Source(source), Vec::new());
    plan
}

/// A plan that unpacks the archive at an address.
fn unpacking_plan(source: HttpSource) -> Plan {
    let mut plan = source_plan(SourceOp::Http(source));
    let file = last(&plan);
    let unpack = CopyAction {
        src: format!("/{CONTEXT_FILE}"),
        dest: "/".to_owned(),
        attempt_unpack: true,
        create_dest_path: true,
        ..CopyAction::default()
    };
    let op = Op::File(FileOp {
        actions: vec![FileAction {
            input: ActionInput::Scratch,
            secondary: ActionInput::Input(0),
            output: Some(0),
            kind: FileActionKind::Copy(unpack),
        }],
    });
    add(&mut plan, op, vec![file]);
    plan
}

fn add(plan: &mut Plan, op: Op, inputs: Vec<Input>) {
    let node = Node {
        op,
        inputs,
        platform: None,
    };
    if let Err(error) = plan.graph.add(node) {
        unreachable!("BUG: a plan of a context is refused: {error}");
    }
}

/// The output of the last node of a plan.
fn last(plan: &Plan) -> Input {
    match plan.order().last() {
        Some(node) => Input {
            node: *node,
            output: 0,
        },
        None => unreachable!("BUG: a plan of a context has a node"),
    }
}

/// What a plan brought here.
struct Brought {
    delivered: Delivered,
    /// What its source is, for people.
    label: String,
    pin: Option<Pin>,
}

/// Makes what a plan ends with, or finds it; says what its source was pinned to, in words.
async fn bring(asker: &Asker, plan: &Plan) -> Result<Brought, Error> {
    let executor = asker.resolver.executor();
    let worker = Arc::new(asker.worker());
    let known = Arc::new(Mutex::new((String::new(), None)));
    let pinned = Arc::clone(&known);
    let events = move |event: kiln_solver::Event| {
        if let kiln_solver::Event::Pinned { label, pin, .. } = event {
            *pinned.lock().unwrap_or_else(PoisonError::into_inner) = (label, Some(pin));
        }
    };
    let request = SolveRequest {
        plan: Arc::new(plan.clone()),
        goals: vec![Goal {
            input: last(plan),
            need: Need::Present,
        }],
        notes: BTreeMap::new(),
        options: SolveOptions::for_cores(1),
    };
    let solved = Solver::new()
        .solve(
            Arc::clone(&worker),
            request,
            Arc::new(events),
            Cancel::new(),
        )
        .await;
    let mut solved = match solved {
        Ok(solved) => solved,
        Err(SolveError::Cancelled { .. }) => return Err(Error::Cancelled),
        Err(SolveError::Failed { mut failures, .. }) => {
            return Err(match failures.pop() {
                Some((_, Failure::Worker(error))) => error.into(),
                Some((_, Failure::Step(failure))) => Error::Solver(Box::new(failure)),
                None => Error::Cancelled,
            });
        }
        Err(error) => return Err(Error::Solver(Box::new(error))),
    };
    let handle = solved.goals.pop().and_then(|goal| goal.handle);
    let Some(handle) = handle else {
        unreachable!("BUG: a goal that was to be present is not");
    };
    let delivered = executor.delivered(&worker, &handle)?;
    let (label, pin) = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Brought {
        delivered,
        label,
        pin,
    })
}

fn read_stream(stream: &ReadOnce) -> Result<Vec<u8>, Error> {
    read_limited(&mut stream.take()?)
}

fn read_limited(reader: &mut impl Read) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File {
        attempt: "read the Dockerfile from",
        path: STREAM.into(),
        source,
    };
    let mut bytes = Vec::new();
    reader
        .take(DOCKERFILE_LIMIT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > DOCKERFILE_LIMIT_BYTES {
        let words = format!("it has more than {DOCKERFILE_LIMIT_BYTES} bytes");
        return Err(failed(std::io::Error::other(words)));
    }
    Ok(bytes)
}
