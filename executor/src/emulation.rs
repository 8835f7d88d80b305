//! Which platforms' programs run here: the processor's own, those that the kernel knows how to run,
//! and those that an emulator of the host runs.
//!
//! Whether the kernel runs a platform's programs is found out by running one, a few bytes long, in a
//! sandbox: that answers for other processors that this one understands as well as for emulators that
//! the host has registered, and in the very namespaces that steps get. Where the kernel knows none, a
//! static `qemu-ARCH` is looked for, and registered in each sandbox for that sandbox alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kiln_ir::Platform;
use kiln_sandbox::{Emulator, Exit, RootFs, Spec};

use crate::error::Error;
use crate::executor::{Executor, host_platform};

mod machine;

use machine::Machine;

/// How programs of a platform run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Runs {
    /// The kernel knows how.
    Here,
    /// This emulator runs them.
    Through(PathBuf),
}

/// Why programs of a platform do not run here.
#[derive(Debug, Clone)]
pub(crate) struct Lack {
    reason: String,
    /// What changes that, if anything does.
    remedy: Option<&'static str>,
}

/// What was found out, by architecture.
pub(crate) type Known = Mutex<BTreeMap<String, Result<Runs, Lack>>>;

const INSTALL: &str = "install an emulator: Debian has it in the package `qemu-user-static`";
const REGISTER: &str = "Linux 6.7 lets it; before, the host's kernel has to be told, as Debian's packages \
                        `binfmt-support` and `qemu-user-static` do together";

impl Executor {
    /// Errors unless programs of a platform run here.
    pub fn check_runs(&self, platform: &Platform) -> Result<(), Error> {
        self.runs(platform).map(drop)
    }

    /// Finds out how programs of a platform run here; the first time takes some milliseconds.
    fn runs(&self, platform: &Platform) -> Result<Runs, Error> {
        let host = host_platform();
        if platform.os == host.os && platform.architecture == host.architecture {
            return Ok(Runs::Here);
        }
        let mut known = self
            .emulation()
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let found = known
            .entry(platform.architecture.clone())
            .or_insert_with(|| self.find_out(platform));
        found.clone().map_err(|lack| Error::Foreign {
            platform: platform.to_string(),
            host: host.to_string(),
            reason: lack.reason,
            remedy: lack.remedy,
        })
    }

    /// Readies a sandbox for programs of a platform.
    pub(crate) fn emulate(&self, spec: &mut Spec, platform: &Platform) -> Result<(), Error> {
        if let Runs::Through(path) = self.runs(platform)? {
            let Some(machine) = Machine::of(&platform.architecture) else {
                unreachable!("BUG: an emulator of an unknown processor: {platform}");
            };
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            spec.emulator = Some(emulator(&machine, file.into()));
        }
        Ok(())
    }

    /// Lists the platforms whose programs the kernel runs, and those that an emulator does, which is
    /// then named.
    pub fn platforms(&self) -> (Vec<Platform>, Vec<(Platform, PathBuf)>) {
        let host = host_platform();
        let (mut here, mut emulated) = (vec![host.clone()], Vec::new());
        let others = Machine::all().map(Platform::linux);
        for platform in others.filter(|platform| *platform != host) {
            match self.runs(&platform) {
                Ok(Runs::Here) => here.push(platform),
                Ok(Runs::Through(path)) => emulated.push((platform, path)),
                Err(_) => {}
            }
        }
        (here, emulated)
    }

    fn find_out(&self, platform: &Platform) -> Result<Runs, Lack> {
        let lack = |reason: String, remedy| Lack { reason, remedy };
        if platform.os != "linux" {
            let reason = "only linux programs do".to_owned();
            return Err(lack(reason, None));
        }
        let Some(machine) = Machine::of(&platform.architecture) else {
            let reason = "kiln knows no emulator of this processor".to_owned();
            return Err(lack(reason, None));
        };
        if self.runs_a_program(&machine, None).is_ok() {
            return Ok(Runs::Here);
        }
        let names = machine.emulator();
        let Some(path) = find_static(&names) else {
            let reason = format!(
                "the kernel has no emulator for them, and there is no `{}`",
                names[0]
            );
            return Err(lack(reason, Some(INSTALL)));
        };
        let file = File::open(&path)
            .map_err(|error| lack(format!("`{}`: {error}", path.display()), Some(INSTALL)))?;
        match self.runs_a_program(&machine, Some(emulator(&machine, file.into()))) {
            Ok(()) => Ok(Runs::Through(path)),
            Err(reason) => {
                let path = path.display();
                let reason = format!("no sandbox can have `{path}` for itself: {reason}");
                Err(lack(reason, Some(REGISTER)))
            }
        }
    }

    /// Runs the smallest program of a processor in a sandbox.
    fn runs_a_program(&self, machine: &Machine, emulator: Option<Emulator>) -> Result<(), String> {
        let draft = self
            .store()
            .begin_layer()
            .map_err(|error| error.to_string())?;
        let program = draft.fs_path().join("exit");
        std::fs::write(&program, machine.program())
            .and_then(|()| {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
            })
            .map_err(|error| error.to_string())?;
        let root = File::open(draft.fs_path()).map_err(|error| error.to_string())?;
        let mut spec = Spec::new(RootFs::Directory(root.into()), ["/exit"]);
        spec.emulator = emulator;
        let mut process = kiln_sandbox::spawn(spec).map_err(|error| crate::error::words(&error))?;
        match process.wait().map_err(|error| error.to_string())? {
            Exit::Code(0) => Ok(()),
            other => Err(format!("its program ended with {other:?}")),
        }
    }
}

fn emulator(machine: &Machine, interpreter: OwnedFd) -> Emulator {
    let (magic, mask) = machine.magic();
    Emulator {
        interpreter,
        name: format!("kiln-{}", machine.name()),
        magic,
        mask,
    }
}

/// Finds the first of these programs in `PATH` that is static: it has to run where there is no library for it.
fn find_static(names: &[String]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .collect();
    let mut candidates = names.iter().flat_map(|name| {
        directories
            .iter()
            .map(move |directory| directory.join(name))
    });
    candidates.find(|candidate| is_static(candidate))
}

/// Whether a file is a program of 64 bits that names no interpreter.
fn is_static(path: &Path) -> bool {
    const SMALL: u64 = 64 << 10;
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SMALL).read_to_end(&mut head));
    read.is_ok() && machine::names_no_interpreter(&head)
}
