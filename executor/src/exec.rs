//! Running a step's process in a sandbox over a snapshot of its inputs.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_ir::{
    ExecOp, Mount, MountKind, NetworkMode, Platform, ResourceLimits, SecretOpt, SecurityMode,
};
use kiln_sandbox::{Exit, MountSource, Network, Privileges, Rlimit, RootFs, Spec, Stdio, User};
use kiln_solver::{Cancel, RunOutcome, StepFailure, StepSink, Stream};
use kiln_store::{Content, LayerDraft, Lease, Snapshot, Snapshotter, StoreError};
use kiln_tree::aged::{Age, age};
use kiln_tree::seal::SealError;
use kiln_tree::{Meta, OneId, OwnerDoubt, Stop, TreePath, View, resolve};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::OFlags;

use crate::cachemounts::CacheMounts;
use crate::error::{Error, words};
use crate::executor::Executor;
use crate::file::source::Source;
use crate::file::{FileError, accounts, changeset, copy_contents, open_layers};
use crate::hostfiles;
use crate::limits::{cgroup_of, out_of_memory};
use crate::secrets::Secrets;
use crate::source::blocking;
use crate::ssh::{Agents, Forwarding};
use crate::stack::to_solver;
use crate::users::Identity;
use crate::worker::{Handle, Tree, stop_of};

/// A step that is to run.
pub(crate) struct ExecRequest {
    pub(crate) op: ExecOp,
    /// What its programs are for; none is this host.
    pub(crate) platform: Option<Platform>,
    pub(crate) inputs: Vec<Handle>,
    pub(crate) limits: ResourceLimits,
    pub(crate) caches: CacheMounts,
    /// Shows other times of files than they have.
    pub(crate) aged: Option<Arc<Aged>>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) agents: Arc<Agents>,
    pub(crate) sink: StepSink,
    pub(crate) cancel: Cancel,
}

/// Steps see files that were made here as if they were older.
#[derive(Debug)]
pub(crate) struct Aged {
    by: Age,
    snapshotter: Box<dyn Snapshotter>,
}

impl Aged {
    pub(crate) fn new(executor: &Executor, by: Age) -> Result<Aged, Error> {
        let strategy = executor.snapshots()?.strategy;
        let snapshotter = executor.store().aged_snapshotter(strategy, by);
        Ok(Aged { by, snapshotter })
    }
}

/// Runs a step and seals what it wrote.
pub(crate) async fn exec(
    executor: &Executor,
    lease: &Lease,
    request: ExecRequest,
) -> Result<RunOutcome<Handle>, Error> {
    refuse_unsupported(&request.op)?;
    require(&request)?;
    let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)
        .map_err(|error| Error::io("make", "an event descriptor")(error.into()))?;
    let stop = std::sync::Arc::new(stop);
    let cancel = request.cancel.clone();
    let running = tokio::spawn(blocking({
        let (executor, lease, stop) = (executor.clone(), lease.clone(), stop.clone());
        move || run(&executor, &lease, request, stop.as_fd())
    }));
    tokio::pin!(running);
    let done = tokio::select! {
        done = &mut running => done,
        () = cancel.cancelled() => {
            // A write of 8 bytes to an event descriptor at 0 cannot fail.
            let _ = rustix::io::write(&*stop, &1_u64.to_ne_bytes());
            running.await
        }
    };
    match done {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// What a plan may ask for and no step gets yet.
fn refuse_unsupported(op: &ExecOp) -> Result<(), Error> {
    let refuse = |what, value: &str| {
        Err(Error::Unsupported {
            what,
            value: value.to_owned(),
        })
    };
    if let Some(device) = op.devices.iter().find(|device| !device.optional) {
        return refuse("a device in a step", &device.name);
    }
    match op.mounts.iter().find(|mount| !mount.result_id.is_empty()) {
        Some(mount) => refuse("a mount of a gateway's result", &mount.result_id),
        None => Ok(()),
    }
}

/// Errors with the first secret or agent that the step requires and nobody gave.
fn require(request: &ExecRequest) -> Result<(), Error> {
    let ExecRequest {
        op,
        secrets,
        agents,
        ..
    } = request;
    let has_secret = |id: &String| secrets.values.contains_key(id);
    let variables = op.secret_env.iter().filter(|secret| !secret.optional);
    let files = op.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Secret(secret) if !secret.optional => Some(&secret.id),
        _ => None,
    });
    let mut required = variables.map(|secret| &secret.id).chain(files);
    if let Some(id) = required.find(|id| !has_secret(id)) {
        return Err(Error::NoSecret { id: id.clone() });
    }
    let mut required = op.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Ssh(agent) if !agent.optional => Some(&agent.id),
        _ => None,
    });
    match required.find(|id| !agents.has(id)) {
        Some(id) => Err(Error::NoAgent { id: id.clone() }),
        None => Ok(()),
    }
}

/// Whatever must live as long as the process, and what is sealed afterwards.
#[derive(Default)]
struct Held {
    /// Output number, the snapshot, the layers below it.
    writable: Vec<(Option<u32>, Snapshot)>,
    views: Vec<Snapshot>,
    /// Sockets of agents, which lie in drafts.
    forwardings: Vec<Forwarding>,
    drafts: Vec<LayerDraft>,
    /// What mounts show of layers.
    seen: Vec<View>,
}

/// What all mounts of a step are made with.
struct Mounting<'a> {
    executor: &'a Executor,
    lease: &'a Lease,
    inputs: &'a [Handle],
    snapshotter: &'a dyn Snapshotter,
    aged: Option<&'a Aged>,
    caches: &'a CacheMounts,
    secrets: &'a Secrets,
    agents: &'a Agents,
    stop: Stop,
}

fn run(
    executor: &Executor,
    lease: &Lease,
    request: ExecRequest,
    stop: BorrowedFd<'_>,
) -> Result<RunOutcome<Handle>, Error> {
    let ExecRequest {
        op,
        platform,
        inputs,
        limits,
        caches,
        aged,
        secrets,
        agents,
        sink,
        cancel,
        ..
    } = request;
    let store = executor.store();
    let root_mount = op
        .mounts
        .iter()
        .find(|mount| mount.target == "/")
        .ok_or_else(|| Error::Mount {
            target: "/".to_owned(),
            reason: "the step has no root".to_owned(),
        })?;
    let base = layers_of(executor, lease, root_mount, &inputs)?;
    let identity = accounts(store, &base)?.resolve(&op.meta.user)?;
    if executor.options().single_id && (identity.uid, identity.gid) != (0, 0) {
        let user = op.meta.user.clone();
        return Err(Error::OneId { user });
    }
    let mut held = Held::default();
    if cancel.is_cancelled() {
        return Ok(RunOutcome::Cancelled);
    }
    let snapshotter = match &aged {
        Some(aged) => &*aged.snapshotter,
        None => executor.snapshotter()?,
    };
    let root = snapshotter.prepare(lease, &base, &stop_of(&cancel))?;
    make_cwd(&root, &op.meta.cwd)?;
    let root_fs = root_of(&root)?;
    let mut spec = Spec::new(root_fs, op.meta.args.iter().map(OsString::from));
    spec.root_readonly = root_mount.readonly;
    let mounting = Mounting {
        executor,
        lease,
        inputs: &inputs,
        snapshotter,
        aged: aged.as_deref(),
        caches: &caches,
        secrets: &secrets,
        agents: &agents,
        stop: stop_of(&cancel),
    };
    for mount in op.mounts.iter().filter(|mount| mount.target != "/") {
        if let Some(made) = mounting.make(mount, &mut held)? {
            spec.mounts.push(made);
        }
    }
    held.writable.insert(0, (root_mount.output, root));
    fill_spec(&mut spec, &op, identity)?;
    spec.cgroup = cgroup_of(&op.meta.cgroup_parent, &limits, None)?;
    set_secrets(&mut spec, &op, &secrets)?;
    spec.listen = executor.options().single_id;
    if let Some(platform) = &platform {
        executor.emulate(&mut spec, platform)?;
    }
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    spec.stdio = Stdio::Streams {
        stdin: None,
        stdout: Some(out_write),
        stderr: Some(err_write),
    };
    let mut process = match kiln_sandbox::spawn(spec) {
        Ok(process) => process,
        Err(error) if matches!(error.exit_code(), 126 | 127) => {
            return Ok(RunOutcome::Failed(StepFailure::Message(words(&error))));
        }
        Err(error) => return Err(error.into()),
    };
    let stubs: Vec<TreePath> = process
        .stubs()
        .iter()
        .filter_map(|stub| TreePath::normalise(stub.path.as_os_str().as_bytes()).ok())
        .collect();
    let stopped = watch(&mut process, &out_read, &err_read, stop, &sink)?;
    let exit = process.wait()?;
    let out_of_memory = out_of_memory(&process, exit, &limits);
    let heard = process.heard();
    drop(process);
    held.views.clear();
    held.forwardings.clear();
    held.drafts.clear();
    drop(caches);
    if stopped {
        return Ok(RunOutcome::Cancelled);
    }
    let is_success = match exit {
        Exit::Code(code) if op.meta.valid_exit_codes.is_empty() => code == 0,
        Exit::Code(code) => op.meta.valid_exit_codes.contains(&code),
        Exit::Signal(_) => false,
    };
    if !is_success {
        if let Some(message) = out_of_memory {
            return Ok(RunOutcome::Failed(StepFailure::Message(message)));
        }
        return Ok(RunOutcome::Failed(match exit {
            Exit::Code(code) => StepFailure::Exit(code),
            Exit::Signal(signal) => StepFailure::Signal(signal),
        }));
    }
    if let Some(refused) = heard.refused {
        return Err(Error::OneIdRefused { refused });
    }
    let one_id = executor.options().single_id.then(|| OneId {
        gave_owners: heard.gave_owners,
        set_attributes: heard.set_attributes,
        seen: std::mem::take(&mut held.seen),
    });
    seal(executor, lease, held.writable, stubs, one_id, &cancel)
}

/// Seals every snapshot that has an output number.
fn seal(
    executor: &Executor,
    lease: &Lease,
    writable: Vec<(Option<u32>, Snapshot)>,
    stubs: Vec<TreePath>,
    one_id: Option<OneId>,
    cancel: &Cancel,
) -> Result<RunOutcome<Handle>, Error> {
    let store = executor.store();
    let mut outputs: Vec<Option<(Handle, Vec<kiln_solver::ContentId>)>> = Vec::new();
    for (index, (output, snapshot)) in writable.into_iter().enumerate() {
        let Some(output) = output else { continue };
        let mut options = store.seal_options();
        options.stop = stop_of(cancel);
        options.one_id.clone_from(&one_id);
        if index == 0 {
            options.stubs.clone_from(&stubs);
        }
        let mut layers = snapshot.layers().to_vec();
        let sealed = executor.snapshotter()?.seal(snapshot, options);
        let sealed = sealed.map_err(|error| match owner_doubt(&error) {
            Some(source) => Error::OneIdOwner { source },
            None => error.into(),
        })?;
        layers.push(sealed.commit(store, lease)?.content);
        let output = output as usize;
        if outputs.len() <= output {
            outputs.resize_with(output + 1, || None);
        }
        let content = to_solver(&layers);
        outputs[output] = Some((Handle::layers(layers), content));
    }
    Ok(RunOutcome::Done { outputs })
}

/// The file whose owner one id is too little to tell, if that is why sealing failed.
fn owner_doubt(error: &StoreError) -> Option<OwnerDoubt> {
    let StoreError::Tree { source, .. } = error else {
        return None;
    };
    match source.downcast_ref()? {
        SealError::Owner(doubt) => Some(doubt.clone()),
        _ => None,
    }
}

fn fill_spec(spec: &mut Spec, op: &ExecOp, identity: Identity) -> Result<(), Error> {
    let meta = &op.meta;
    let pair = |variable: &String| {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        (OsString::from(name), OsString::from(value))
    };
    spec.env = meta.env.iter().map(pair).collect();
    if let Some(proxy) = &meta.proxy {
        let settings = [
            ("http_proxy", &proxy.http),
            ("https_proxy", &proxy.https),
            ("ftp_proxy", &proxy.ftp),
            ("no_proxy", &proxy.no),
            ("all_proxy", &proxy.all),
        ];
        for (name, value) in settings.into_iter().filter(|(_, value)| !value.is_empty()) {
            for name in [name.to_owned(), name.to_uppercase()] {
                if !spec.env.iter().any(|(known, _)| *known == *name) {
                    spec.env.push((name.into(), value.into()));
                }
            }
        }
    }
    if !spec.env.iter().any(|(name, _)| name == "HOME") {
        spec.env.push(("HOME".into(), identity.home.into()));
    }
    spec.cwd = PathBuf::from(if meta.cwd.is_empty() { "/" } else { &meta.cwd });
    spec.user = User {
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups,
    };
    let hostname = if meta.hostname.is_empty() {
        kiln_sandbox::DEFAULT_HOSTNAME
    } else {
        &meta.hostname
    };
    spec.hostname = Some(hostname.to_owned());
    spec.network = match op.network {
        NetworkMode::None => Network::None,
        NetworkMode::Default | NetworkMode::Host => Network::Host,
    };
    spec.privileges = match op.security {
        SecurityMode::Sandbox => Privileges::Default,
        SecurityMode::Insecure => Privileges::Insecure,
    };
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    for ulimit in &meta.ulimits {
        spec.rlimits.push(Rlimit {
            resource: ulimit.name.parse()?,
            soft: limit(ulimit.soft),
            hard: limit(ulimit.hard),
        });
    }
    spec.resolv_conf = Some(hostfiles::resolv_conf());
    spec.hosts = Some(hostfiles::hosts(hostname, &meta.extra_hosts));
    Ok(())
}

/// Sets the variables that are secrets, over those of the same name.
fn set_secrets(spec: &mut Spec, op: &ExecOp, secrets: &Secrets) -> Result<(), Error> {
    for secret in &op.secret_env {
        // A required one was asked for before.
        let Some(value) = secrets.value(&secret.id)? else {
            continue;
        };
        if value.contains(&0) {
            return Err(Error::SecretVariable {
                id: secret.id.clone(),
                name: secret.name.clone(),
            });
        }
        spec.env.retain(|(name, _)| *name != *secret.name);
        let value = OsString::from_vec(value);
        spec.env.push((OsString::from(&secret.name), value));
    }
    Ok(())
}

/// The layers that a mount shows.
pub(crate) fn layers_of(
    executor: &Executor,
    lease: &Lease,
    mount: &Mount,
    inputs: &[Handle],
) -> Result<Vec<Content>, Error> {
    match mount.input.map(|index| &inputs[index as usize]) {
        None => Ok(Vec::new()),
        Some(handle) => handle.to_layers(executor, lease),
    }
}

fn root_of(snapshot: &Snapshot) -> Result<RootFs, Error> {
    let root = duplicate(snapshot.root())?;
    Ok(if snapshot.is_mount() {
        RootFs::Detached(root)
    } else {
        RootFs::Directory(root)
    })
}

fn source_of(snapshot: &Snapshot) -> Result<MountSource, Error> {
    let fd = duplicate(snapshot.root())?;
    Ok(if snapshot.is_mount() {
        MountSource::Detached(fd)
    } else {
        MountSource::Bind { fd, subpath: None }
    })
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    fd.try_clone_to_owned()
        .map_err(Error::io("duplicate", "a descriptor"))
}

/// Makes the working directory in the root, as every engine does.
pub(crate) fn make_cwd(root: &Snapshot, cwd: &str) -> Result<(), Error> {
    if matches!(cwd, "" | "/") {
        return Ok(());
    }
    resolve::make_directories(root.root(), cwd.as_bytes(), &Meta::new(0o755), &mut |_| ())
        .map_err(|error| Error::File(FileError::Change(error.into())))?;
    Ok(())
}

/// Copies what is at `selector` of a source into a directory; a file is put in it by its name.
///
/// Returns the name of that file.
pub(crate) fn fill<S: Source + Sync>(
    executor: &Executor,
    source: &S,
    selector: &str,
    directory: BorrowedFd<'_>,
    stop: &Stop,
) -> Result<Option<Vec<u8>>, Error> {
    let empty = View::new(Vec::new());
    let mut changes = changeset(executor.store(), &empty, directory, stop);
    let file = copy_contents(source, selector, &mut changes)?;
    changes.finish().map_err(FileError::from)?;
    Ok(file)
}

impl Mounting<'_> {
    /// Makes what is mounted; none for an optional secret or agent that nobody gave.
    fn make(&self, mount: &Mount, held: &mut Held) -> Result<Option<kiln_sandbox::Mount>, Error> {
        let mut readonly = mount.readonly;
        let source = match &mount.kind {
            MountKind::Tmpfs { size_bytes } => MountSource::Tmpfs {
                size_bytes: (*size_bytes > 0).then_some(*size_bytes),
                mode: 0o1777,
            },
            MountKind::Secret(secret) => {
                readonly = true;
                match self.secret(secret)? {
                    Some(source) => source,
                    None => return Ok(None),
                }
            }
            MountKind::Ssh(options) => match self.agent(options, held)? {
                Some(source) => source,
                None => return Ok(None),
            },
            MountKind::Cache { id, .. } => {
                let Some(directory) = self.caches.directory(id) else {
                    unreachable!("BUG: the cache mount `{id}` was not taken");
                };
                let fd = duplicate(directory)?;
                MountSource::Bind { fd, subpath: None }
            }
            MountKind::Bind => self.bind(mount, held)?,
        };
        Ok(Some(kiln_sandbox::Mount {
            target: PathBuf::from(&mount.target),
            source,
            readonly,
        }))
    }

    fn bind(&self, mount: &Mount, held: &mut Held) -> Result<MountSource, Error> {
        let Mounting {
            executor,
            lease,
            inputs,
            snapshotter,
            aged,
            ref stop,
            ..
        } = *self;
        let store = executor.store();
        let whole = matches!(mount.selector.as_str(), "" | "/" | ".");
        let input = mount.input.map(|index| &inputs[index as usize]);
        if mount.output.is_some() || (whole && !matches!(input, Some(Handle(Tree::Context(_))))) {
            let layers = layers_of(executor, lease, mount, inputs)?;
            if !whole {
                return Err(Error::Unsupported {
                    what: "a mount of a part of an input with an output",
                    value: mount.target.clone(),
                });
            }
            if mount.readonly {
                let view = snapshotter.view(lease, &layers, stop)?;
                held.seen.push(view.lower().clone());
                let source = source_of(&view)?;
                held.views.push(view);
                return Ok(source);
            }
            let snapshot = snapshotter.prepare(lease, &layers, stop)?;
            held.seen.push(snapshot.lower().clone());
            let source = source_of(&snapshot)?;
            held.writable.push((mount.output, snapshot));
            return Ok(source);
        }
        // A part of a tree, or a context: a directory of its own, of links where nobody can write.
        let draft = store.begin_layer()?;
        let file = match input {
            Some(Handle(Tree::Context(context))) => {
                fill(executor, &**context, &mount.selector, draft.fs(), stop)?
            }
            Some(Handle(Tree::Layers(layers))) => {
                let mut source = open_layers(store, layers)?;
                source.may_link = mount.readonly && aged.is_none();
                held.seen.push(store.layers_view(layers)?);
                fill(executor, &source, &mount.selector, draft.fs(), stop)?
            }
            None => None,
        };
        if let Some(aged) = aged {
            age(draft.fs(), aged.by, stop).map_err(|error| FileError::Change(error.into()))?;
        }
        let fd = match &file {
            Some(name) => kiln_tree::handle::open_beneath(draft.fs(), name, OFlags::PATH)
                .map_err(|error| FileError::Change(error.into()))?,
            None => duplicate(draft.fs())?,
        };
        held.drafts.push(draft);
        Ok(MountSource::Bind { fd, subpath: None })
    }

    fn secret(&self, secret: &SecretOpt) -> Result<Option<MountSource>, Error> {
        let Some(bytes) = self.secrets.value(&secret.id)? else {
            return Ok(None);
        };
        // Where one id is mapped, every step is root, and nobody else is there to own a file.
        let (uid, gid) = match self.executor.options().single_id {
            true => (0, 0),
            false => (secret.uid, secret.gid),
        };
        Ok(Some(MountSource::File {
            bytes,
            mode: secret.mode,
            uid,
            gid,
        }))
    }

    fn agent(&self, options: &SecretOpt, held: &mut Held) -> Result<Option<MountSource>, Error> {
        let Some(agent) = self.agents.agent(&options.id)? else {
            return Ok(None);
        };
        let draft = self.executor.store().begin_layer()?;
        let owned = !self.executor.options().single_id;
        let (forwarding, fd) =
            Forwarding::start(agent, draft.fs(), options, owned).map_err(|source| {
                Error::Agent {
                    id: options.id.clone(),
                    source,
                }
            })?;
        held.forwardings.push(forwarding);
        held.drafts.push(draft);
        Ok(Some(MountSource::Bind { fd, subpath: None }))
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Error::io("make", "a pipe")(error.into()))
}

/// Passes output on until the process is gone; tells whether it was stopped before.
fn watch(
    process: &mut kiln_sandbox::Running,
    out: &OwnedFd,
    err: &OwnedFd,
    stop: BorrowedFd<'_>,
    sink: &StepSink,
) -> Result<bool, Error> {
    let mut buffer = vec![0; 64 << 10];
    let mut open = [(out, Stream::Stdout, true), (err, Stream::Stderr, true)];
    let mut stopped = false;
    loop {
        let done = process.try_wait()?.is_some();
        let mut watched = Vec::new();
        if !done {
            watched.push(PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN));
            if !stopped {
                watched.push(PollFd::from_borrowed_fd(stop, PollFlags::IN));
            }
        }
        for (fd, _, is_open) in &open {
            if *is_open {
                watched.push(PollFd::new(*fd, PollFlags::IN));
            }
        }
        // What the process left in its pipes is read to the end; all writers are gone with it.
        let pause = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let ready = rustix::event::poll(&mut watched, if done { Some(&pause) } else { None });
        match ready {
            Ok(0) if done => return Ok(stopped),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::io("wait for", "the step")(error.into())),
        }
        drop(watched);
        if !stopped && readable(stop) {
            stopped = true;
            process.kill().map_err(Error::io("stop", "the step"))?;
        }
        for (fd, stream, is_open) in &mut open {
            if !*is_open || !readable(fd.as_fd()) {
                continue;
            }
            match rustix::io::read(*fd, &mut buffer) {
                Ok(0) => *is_open = false,
                Ok(count) => sink.output(*stream, buffer[..count].to_vec()),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(Error::io("read", "the step's output")(error.into())),
            }
        }
        if done && open.iter().all(|(.., is_open)| !is_open) {
            return Ok(stopped);
        }
    }
}

fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut watched = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let pause = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(rustix::event::poll(&mut watched, Some(&pause)), Ok(count) if count > 0)
}
