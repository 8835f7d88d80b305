//! What the command finds on this host: where the store is, and who it is allowed to be.

use std::path::PathBuf;
use std::sync::OnceLock;

use kiln::userns::{self, UserNsSupport};
use kiln::{Cancel, Engine, Kiln, Options, RegistryOverrides, Warn};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::{RegistryArgs, SourceArgs};
use super::progress::words_visible;
use super::{Failure, report, spec};

/// Where root keeps images.
const SYSTEM_ROOT: &str = "/var/lib/kiln";

/// What was said about registries on this command line.
static REGISTRIES: OnceLock<RegistryOverrides> = OnceLock::new();

/// Keeps what every command may be told about registries.
pub(crate) fn hear(said: RegistryArgs) {
    let overrides = RegistryOverrides {
        config: said.config,
        mirrors: said.mirror,
        plain_http: said.plain_http,
        authorities: said.tls_ca,
    };
    // Said once: the command line is parsed once.
    let _ = REGISTRIES.set(overrides);
}

/// What was said about registries.
pub(crate) fn registries() -> RegistryOverrides {
    REGISTRIES.get().cloned().unwrap_or_default()
}

/// What a command does to layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Only what the store says of itself.
    Records,
    /// Files of layers, and mounts.
    Layers,
}

/// Whom a command may ask for images.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asking {
    /// Registries are never asked.
    pub(crate) offline: bool,
    /// The engines of this host, as on the command line.
    pub(crate) engines: Option<String>,
}

impl From<bool> for Asking {
    fn from(offline: bool) -> Asking {
        Asking {
            offline,
            engines: None,
        }
    }
}

impl From<&SourceArgs> for Asking {
    fn from(args: &SourceArgs) -> Asking {
        Asking {
            offline: args.offline,
            engines: args.engines.clone(),
        }
    }
}

impl Asking {
    /// The engines, as the command line or else the environment has them.
    fn engines(&self) -> Result<Vec<Engine>, Failure> {
        if let Some(names) = &self.engines {
            return Ok(spec::engines("--engines", names)?);
        }
        match std::env::var(ENGINES)
            .ok()
            .filter(|names| !names.is_empty())
        {
            Some(names) => Ok(spec::engines(ENGINES, &names)?),
            None => Ok(Engine::ALL.to_vec()),
        }
    }
}

/// The variable that names engines.
const ENGINES: &str = "KILN_ENGINES";

/// Opens the store, entering a user namespace first if an ordinary user needs one.
///
/// Must be called before there are threads.
pub(crate) fn open(needs: Needs, asking: impl Into<Asking>) -> Result<Kiln, Failure> {
    let asking = asking.into();
    let mut options = Options {
        root: store_root()?,
        offline: asking.offline,
        registries: registries(),
        engines: asking.engines()?,
        warn: Warn::new(|line| report::warning(&words_visible(&line))),
        ..Options::default()
    };
    if userns::entered() {
        options.in_user_namespace = true;
        options.single_id = single_id();
    } else if needs == Needs::Layers {
        match userns::probe() {
            // Root of a namespace that somebody else made, as in a container.
            UserNsSupport::Root => {
                options.in_user_namespace = !userns::is_initial();
                options.single_id = single_id();
            }
            support => {
                // Only a refusal comes back.
                let error = userns::enter(&support);
                let cause = std::error::Error::source(&error)
                    .map(|cause| format!(": {cause}"))
                    .unwrap_or_default();
                report::usage(
                    &format!("{error}{cause}"),
                    Some("`kiln plan`, `images` and `inspect` work without one"),
                );
                return Err(Failure::Told(3));
            }
        }
    }
    let kiln = Kiln::open(options)?;
    if !asking.offline {
        for (host, origin) in kiln.registry_settings()?.unverified() {
            report::warning(&format!(
                "certificates of `{host}` are not verified, since {origin} says so"
            ));
        }
    }
    Ok(kiln)
}

/// Whether the namespace has one user only.
fn single_id() -> bool {
    userns::current_maps().is_ok_and(|(uids, _)| {
        uids.ranges
            .iter()
            .map(|range| u64::from(range.count))
            .sum::<u64>()
            <= 1
    })
}

fn store_root() -> Result<PathBuf, Failure> {
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map_err(|source| {
            Failure::Kiln(kiln::Error::File {
                attempt: "find",
                path,
                source,
            })
        })
    };
    let named = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(root) = named("KILN_ROOT") {
        return absolute(root);
    }
    // Root within kiln's own namespace is an ordinary user outside.
    let is_root = userns::is_root() && !userns::entered();
    if is_root {
        return Ok(PathBuf::from(SYSTEM_ROOT));
    }
    let data =
        named("XDG_DATA_HOME").or_else(|| named("HOME").map(|home| home.join(".local/share")));
    match data {
        Some(data) => absolute(data.join("kiln")),
        None => {
            report::usage(
                "there is no place for the store: neither HOME nor XDG_DATA_HOME is set",
                Some("set KILN_ROOT"),
            );
            Err(Failure::Told(3))
        }
    }
}

/// Makes the runtime of commands that wait for several things at once.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| {
            Failure::Kiln(kiln::Error::File {
                attempt: "start",
                path: "the runtime".into(),
                source,
            })
        })
}

/// Signals that were asked for, before anything runs that they are to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Must be called within a runtime; none where signals cannot be had.
    fn take() -> Option<Signals> {
        Some(Signals {
            interrupt: signal(SignalKind::interrupt()).ok()?,
            terminate: signal(SignalKind::terminate()).ok()?,
        })
    }

    /// The first signal stops what runs in order; the second ends the process at once.
    async fn watch(mut self, cancel: Cancel) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                // The steps' sandboxes notice that this process is gone and end themselves.
                std::process::exit(130);
            }
            cancel.cancel();
        }
    }
}

/// Lets signals stop what runs, from now on.
pub(crate) fn watch_signals(runtime: &Runtime, cancel: Cancel) {
    let _within = runtime.enter();
    if let Some(signals) = Signals::take() {
        runtime.spawn(signals.watch(cancel));
    }
}

/// Lets signals stop what has no runtime of its own.
pub(crate) fn stop_on_signals(cancel: Cancel) -> Result<(), Failure> {
    let failed = |source| {
        Failure::Kiln(kiln::Error::File {
            attempt: "start",
            path: "the runtime".into(),
            source,
        })
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let signals = {
        let _within = runtime.enter();
        Signals::take()
    };
    let Some(signals) = signals else {
        return Ok(());
    };
    std::thread::Builder::new()
        .spawn(move || runtime.block_on(signals.watch(cancel)))
        .map(drop)
        .map_err(failed)
}

/// The environment variable `SOURCE_DATE_EPOCH`.
pub(crate) fn source_date_epoch() -> Result<Option<i64>, Failure> {
    let Some(text) = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    match text.parse() {
        Ok(epoch) if epoch >= 0 => Ok(Some(epoch)),
        _ => {
            report::usage(
                &format!("SOURCE_DATE_EPOCH is `{text}`, which is no number of seconds since 1970"),
                Some("as in SOURCE_DATE_EPOCH=0"),
            );
            Err(Failure::Told(2))
        }
    }
}

/// Lets what was built outlive a loss of power, without keeping the caller waiting for the disk: a
/// process of its own waits, and ends within a second or so.
pub(crate) fn settle_later(kiln: &Kiln) -> Result<(), Failure> {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    if !kiln.wants_settling()? {
        return Ok(());
    }
    let spawned = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .arg("settle")
            .env("KILN_ROOT", &kiln.options().root)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
    });
    match spawned {
        Ok(_) => Ok(()),
        // No process to be had: then the caller waits after all.
        Err(_) => Ok(kiln.make_durable()?),
    }
}

/// The process that waits. A store that was removed before it began is not made again.
pub(crate) fn settle() -> super::Done {
    if !Kiln::has_store(&store_root()?) {
        return Ok(std::process::ExitCode::SUCCESS);
    }
    open(Needs::Records, true)?.make_durable()?;
    Ok(std::process::ExitCode::SUCCESS)
}
