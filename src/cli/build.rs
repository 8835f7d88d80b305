//! `kiln build`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use kiln::{
    Attestations, BuildRequest, Built, CachePlace, CacheTarget, Cancel, Delivery, Destination,
    DockerfileRequest, Error, Export, Frontends, GitInfo, Kiln, LockRequest, NoCache, ProxyEnv,
    ReadOnce, ResolveMode, SourceRequest, Warnings, check_writable, write_whole,
};

use super::args::{BuildArgs, Progress, SourceArgs};
use super::host::{self, Needs};
use super::progress::{Drawer, Ending};
use super::{Done, Failure, caches, call, output, print, report, spec, trust};

/// Asks for labels; `full` stands for true in older scripts.
const GIT_LABELS: &str = "BUILDX_GIT_LABELS";

/// What a build is asked for: the command line, and what this host's environment adds to it.
pub(crate) fn source_request(args: &SourceArgs) -> Result<SourceRequest, Failure> {
    let mut request = stated_request(args)?;
    if args.platform.is_empty() {
        let platform = std::env::var("DOCKER_DEFAULT_PLATFORM");
        request.platforms = spec::platforms(&[platform.unwrap_or_default()])?;
    }
    request.proxy = proxy();
    request.source_date_epoch = host::source_date_epoch()?;
    Ok(request)
}

/// What the command line says, which is the same on every host.
pub(crate) fn stated_request(args: &SourceArgs) -> Result<SourceRequest, Failure> {
    let (context, delivery) = context(args)?;
    let dockerfile = match args.file.as_deref() {
        None => None,
        Some(path) if path == Path::new(STDIN) => {
            if matches!(delivery, Some(Delivery::Stream(_))) {
                report::usage(
                    "the context and the Dockerfile cannot both come from standard input",
                    Some("a context that is an archive has its Dockerfile in it"),
                );
                return Err(Failure::Told(2));
            }
            Some(DockerfileRequest::Stream(ReadOnce::new(std::io::stdin())))
        }
        Some(path) => Some(match path.to_str() {
            Some(url) if is_http(url) => DockerfileRequest::Url(url.to_owned()),
            _ => DockerfileRequest::Path(path.to_owned()),
        }),
    };
    let no_cache = match (args.no_cache, args.no_cache_filter.is_empty()) {
        (true, _) => NoCache::All,
        (false, false) => NoCache::Stages(args.no_cache_filter.iter().cloned().collect()),
        (false, true) => NoCache::No,
    };
    let contexts = args.build_context.iter().map(|text| spec::context(text));
    Ok(SourceRequest {
        context,
        delivery,
        dockerfile,
        target: args.target.clone(),
        build_args: spec::build_args(&args.build_arg),
        contexts: contexts.collect::<Result<_, _>>()?,
        platforms: spec::platforms(&args.platform)?,
        labels: spec::labels(&args.label),
        network: args
            .network
            .as_deref()
            .map_or(Ok(Default::default()), spec::network)?,
        add_hosts: args
            .add_host
            .iter()
            .map(|text| spec::add_host(text))
            .collect::<Result<_, _>>()?,
        ulimits: args
            .ulimit
            .iter()
            .map(|text| spec::ulimit(text))
            .collect::<Result<_, _>>()?,
        limits: args.limits.limits()?,
        cgroup_parent: args.limits.cgroup_parent.clone().unwrap_or_default(),
        shm_size_bytes: args.shm_size.as_deref().map(spec::size_bytes).transpose()?,
        no_cache,
        resolve_mode: if args.pull {
            ResolveMode::Pull
        } else {
            ResolveMode::Default
        },
        lock: LockRequest {
            must_exist: args.lock_file.is_some(),
            file: args.lock_file.clone(),
            locked: args.locked,
        },
        frontends: frontends(args)?,
        ..SourceRequest::default()
    })
}

/// What a program that is a front end has of the caller's environment: where programs and files are,
/// and the language, so that it says the same everywhere.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "LC_ALL"];

fn frontends(args: &SourceArgs) -> Result<Frontends, Failure> {
    let patience = args.frontend_timeout.as_deref().map(spec::duration);
    let variable = |name: &str| Some((name.into(), std::env::var_os(name)?));
    Ok(Frontends {
        chosen: args.frontend.as_deref().map(spec::frontend).transpose()?,
        patience: patience.transpose()?,
        environment: ENVIRONMENT.into_iter().filter_map(variable).collect(),
        ..Frontends::default()
    })
}

/// The `--ssh` flags; a context over ssh that was named here is what the user's agent is for.
fn with_own_agent(args: &BuildArgs) -> Vec<String> {
    let over_ssh = args.source.context.as_deref().is_some_and(|text| {
        spec::is_remote(text) && (text.starts_with("ssh://") || !text.contains("://"))
    });
    let has_agent = std::env::var_os("SSH_AUTH_SOCK").is_some_and(|socket| !socket.is_empty());
    match args.trust.ssh.is_empty() && over_ssh && has_agent {
        true => vec!["default".to_owned()],
        false => args.trust.ssh.clone(),
    }
}

/// What standard input is called.
pub(crate) const STDIN: &str = "-";

/// The build context: a directory, or what brings one.
fn context(args: &SourceArgs) -> Result<(PathBuf, Option<Delivery>), Failure> {
    let Some(text) = args.context.as_deref() else {
        report::usage(
            "no build context was given",
            Some("`kiln build .` builds this directory"),
        );
        return Err(Failure::Told(2));
    };
    let delivery = match text {
        STDIN => Some(Delivery::Stream(ReadOnce::new(std::io::stdin()))),
        // A directory may be called anything.
        path if Path::new(path).is_dir() => None,
        url if spec::is_remote(url) => Some(Delivery::Url(url.to_owned())),
        _ => None,
    };
    Ok((PathBuf::from(text), delivery))
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The caller's proxies, which steps use too; they enter no key.
fn proxy() -> ProxyEnv {
    let get = |name: &str| {
        let value = std::env::var(name.to_uppercase()).or_else(|_| std::env::var(name));
        value.unwrap_or_default()
    };
    ProxyEnv {
        http: get("http_proxy"),
        https: get("https_proxy"),
        ftp: get("ftp_proxy"),
        no: get("no_proxy"),
        all: get("all_proxy"),
    }
}

pub(crate) fn build(args: &BuildArgs) -> Done {
    if let Some(flag) = args.not_yet.given() {
        report::usage(
            &format!("`{flag}` is not supported yet"),
            Some("`kiln build --help` lists what is"),
        );
        return Err(Failure::Told(2));
    }
    if let Some(call) = call::asked(args)? {
        return call::answer(call, args);
    }
    let request = request(args)?;
    let to_stdout = request
        .exports
        .iter()
        .filter(|export| writes_to_stdout(export))
        .count();
    if to_stdout > 1 {
        report::usage("only one output can go to standard output", None);
        return Err(Failure::Told(2));
    }
    check_files(args, &request)?;
    let kiln = host::open(Needs::Layers, &args.source)?;
    // For an ordinary user only the process within the namespace comes here.
    trust::warn_of_unset(&args.trust.secret);
    let built = run(Run {
        kiln: &kiln,
        request,
        progress: args.progress,
        quiet: args.quiet,
        explain: args.explain,
        cancel: Cancel::new(),
    })?;
    write_files(args, &built)?;
    let done = match (&built.exported.image_id, to_stdout) {
        (Some(id), 0) => print(&format!("{id}\n"))?,
        _ => ExitCode::SUCCESS,
    };
    // What a power cut may cost is settled after the result is delivered.
    host::settle_later(&kiln)?;
    match built.cache_failure {
        None => Ok(done),
        Some(error) => Err(Failure::Kiln(error)),
    }
}

/// How long work that goes on when a build is over may take to end.
const CLEARING: Duration = Duration::from_secs(5);

/// One build, and how it is shown.
pub(crate) struct Run<'a> {
    pub(crate) kiln: &'a Kiln,
    pub(crate) request: BuildRequest,
    pub(crate) progress: Progress,
    pub(crate) quiet: bool,
    pub(crate) explain: bool,
    pub(crate) cancel: Cancel,
}

/// Builds, and draws it.
pub(crate) fn run(run: Run<'_>) -> Result<Built, Failure> {
    let clock = Instant::now();
    let runtime = host::runtime()?;
    host::watch_signals(&runtime, run.cancel.clone());
    let drawer = Drawer::new(run.progress, run.quiet, run.explain);
    let built = runtime.block_on(run.kiln.build(run.request, drawer.sink(), run.cancel));
    let ending = Ending {
        took: clock.elapsed(),
        id: built
            .as_ref()
            .ok()
            .and_then(|built| built.exported.image_id.clone()),
        same_as_before: built
            .as_ref()
            .is_ok_and(|built| built.exported.same_as_before),
        failed: built.is_err(),
    };
    let reached_steps = !matches!(
        built,
        Err(Error::Dockerfile(_)
            | Error::Files(_)
            | Error::Frontend(_)
            | Error::Usage { .. }
            | Error::Plan { .. }
            | Error::Lock(_))
    );
    let warnings = match reached_steps {
        true => drawer.finish(&ending),
        false => drawer.discard(),
    };
    // Above the error of a build that failed: what is doubtful may well be why.
    warn(&warnings);
    // What was stopped still clears up behind itself; what hangs elsewhere is not waited for.
    runtime.shutdown_timeout(CLEARING);
    Ok(built?)
}

fn request(args: &BuildArgs) -> Result<BuildRequest, Failure> {
    // A plan may need no context at all.
    let context = args
        .source
        .context
        .clone()
        .or_else(|| args.plan.as_ref().map(|_| ".".to_owned()));
    let source = source_request(&SourceArgs {
        context,
        ..args.source.clone()
    })?;
    let plan = match args.plan.as_deref() {
        None => None,
        Some(file) => Some(read_plan(file)?),
    };
    let load = args.load.as_deref();
    let exports = output::outputs(&args.outputs, &args.annotations, args.push, load)?;
    let pushes = |export: &Export| matches!(export, Export::Registry { .. });
    if args.source.offline && exports.iter().any(pushes) {
        report::usage(
            "a push needs a registry, and `--offline` forbids asking one",
            Some("build without a push, and `kiln push` later"),
        );
        return Err(Failure::Told(2));
    }
    let (provenance, sbom) = (args.provenance.as_deref(), args.sbom.as_deref());
    let attestations =
        Attestations::of_flags(&args.attest, provenance, sbom).map_err(Error::from)?;
    let cache_from = args.cache_from.iter().map(|text| caches::source(text));
    let cache_from = cache_from.collect::<Result<Vec<_>, _>>()?;
    let (mut cache_to, mut inline_cache) = (Vec::new(), false);
    for text in &args.cache_to {
        match caches::target("--cache-to", text)? {
            caches::Target::Place(target) => cache_to.push(*target),
            caches::Target::Inline => inline_cache = true,
        }
    }
    let is_here = |target: &&CacheTarget| matches!(target.place, CachePlace::Local { .. });
    if let Some(target) = cache_to
        .iter()
        .find(|target| !is_here(target) && args.source.offline)
    {
        report::usage(
            &format!(
                "`--cache-to {}` is elsewhere, and `--offline` forbids asking there",
                target.place
            ),
            Some("build without it, and `kiln push --cache` later; type=local keeps a cache here"),
        );
        return Err(Failure::Told(2));
    }
    Ok(BuildRequest {
        source,
        plan,
        exports,
        cache_from,
        cache_to,
        inline_cache,
        tags: args.tags.clone(),
        secrets: trust::secrets(&args.trust.secret, &with_own_agent(args))?,
        allow: trust::allow(&args.trust.allow)?,
        jobs: args.jobs.map(|jobs| jobs.max(1)),
        keep_going: args.keep_going,
        mounts_from: args.travel.from()?,
        mounts_to: args.travel.to()?,
        attestations,
        git_info: git_info(),
        ..BuildRequest::default()
    })
}

/// What buildx's variables say of telling commits; what is neither true nor false counts as not said.
fn git_info() -> GitInfo {
    let is = |name: &str, usual: bool| match std::env::var(name).as_deref() {
        Ok("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
        Ok("full") if name == GIT_LABELS => true,
        Ok("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
        _ => usual,
    };
    let usual = GitInfo::default();
    GitInfo {
        provenance: is("BUILDX_GIT_INFO", usual.provenance),
        labels: is(GIT_LABELS, usual.labels),
        compare: is("BUILDX_GIT_CHECK_DIRTY", usual.compare),
    }
}

fn read_plan(file: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().read_to_string(&mut text).map(drop),
        path => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|source| Error::File {
        attempt: "read the plan",
        path: file.into(),
        source,
    })?;
    Ok(text)
}

fn writes_to_stdout(export: &Export) -> bool {
    matches!(
        export,
        Export::Tar {
            destination: Destination::Stdout,
            ..
        } | Export::OciArchive {
            destination: Destination::Stdout,
            ..
        } | Export::DockerArchive {
            destination: Destination::Stdout,
            ..
        }
    )
}

fn warn(warnings: &Warnings) {
    if let Some(findings) = &warnings.findings {
        report::findings(findings);
    }
    for line in &warnings.notices {
        report::warning(line);
    }
    for name in &warnings.unused_build_args {
        report::warning(&format!("no ARG declares the build argument `{name}`"));
    }
}

fn write_files(args: &BuildArgs, built: &Built) -> Result<(), Failure> {
    let id = built.exported.image_id.as_deref();
    if let Some(path) = &args.iidfile {
        write_whole(path, id.unwrap_or_default().as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        let text = serde_json::to_string_pretty(&metadata(built)).unwrap_or_default();
        write_whole(path, format!("{text}\n").as_bytes())?;
    }
    Ok(())
}

/// Errors before anything is built or sent if what is to be told of it could not be written.
fn check_files(args: &BuildArgs, request: &BuildRequest) -> Result<(), Failure> {
    for path in args.iidfile.iter().chain(&args.metadata_file) {
        let mut directories = request.exports.iter().filter_map(|export| match export {
            Export::Local { destination, .. } | Export::OciDirectory { destination, .. } => {
                Some(destination)
            }
            _ => None,
        });
        // An output may make the directory.
        if !directories.any(|made| path.starts_with(made)) {
            check_writable(path)?;
        }
    }
    Ok(())
}

/// What a build made, under the names that buildx gives it.
fn metadata(built: &Built) -> serde_json::Map<String, serde_json::Value> {
    let exported = &built.exported;
    let mut metadata = serde_json::Map::new();
    // An index has no config.
    if let Some(id) = exported.image_id.as_ref().filter(|_| !exported.is_index) {
        let key = "containerimage.config.digest".to_owned();
        metadata.insert(key, id.as_str().into());
    }
    if let Some(manifest) = &exported.manifest {
        let key = "containerimage.digest".to_owned();
        metadata.insert(key, manifest.digest.as_str().into());
        let mut descriptor = serde_json::json!({
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": manifest.size,
        });
        if !manifest.annotations.is_empty() {
            descriptor["annotations"] = serde_json::json!(manifest.annotations);
        }
        if let Some(platform) = &manifest.platform {
            descriptor["platform"] = serde_json::json!({
                "architecture": platform.architecture,
                "os": platform.os,
            });
            if !platform.variant.is_empty() {
                descriptor["platform"]["variant"] = platform.variant.as_str().into();
            }
        }
        metadata.insert("containerimage.descriptor".to_owned(), descriptor);
    }
    if !exported.names.is_empty() {
        metadata.insert("image.name".to_owned(), exported.names.join(",").into());
    }
    metadata.insert("kiln.build.id".to_owned(), built.id.as_str().into());
    metadata
}
