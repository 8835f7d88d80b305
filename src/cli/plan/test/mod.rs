//! `kiln plan test`: the cases of a directory, each a Dockerfile with what its plan must be.

mod case;
mod junit;
mod summary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::args::{PlanTestArgs, ReportFormat};
use crate::cli::{Done, Failure, print, report};
use case::Case;

/// A case that ran.
pub(super) struct Ran {
    pub(super) name: String,
    /// The file that describes it.
    pub(super) file: PathBuf,
    pub(super) took: Duration,
    /// What was written, with `--accept`.
    pub(super) accepted: Option<String>,
    /// Empty if it passed.
    pub(super) problems: Vec<Problem>,
}

/// Something that is not as a case says.
pub(super) struct Problem {
    pub(super) kind: ProblemKind,
    /// Several lines, without the last line's end.
    pub(super) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProblemKind {
    /// The case cannot be read, or its Dockerfile cannot be planned.
    Error,
    /// The plan is another one.
    Plan,
    /// An assertion does not hold.
    Assertion,
}

impl ProblemKind {
    pub(super) fn word(self) -> &'static str {
        match self {
            ProblemKind::Error => "error",
            ProblemKind::Plan => "plan",
            ProblemKind::Assertion => "assertion",
        }
    }
}

/// All cases that ran, and how many did not.
pub(super) struct Suite {
    pub(super) directory: PathBuf,
    pub(super) ran: Vec<Ran>,
    pub(super) filtered_out: usize,
    pub(super) took: Duration,
}

impl Suite {
    pub(super) fn failed(&self) -> usize {
        self.ran
            .iter()
            .filter(|ran| !ran.problems.is_empty())
            .count()
    }
}

pub(super) fn test(args: &PlanTestArgs) -> Done {
    let started = Instant::now();
    let files = case::find(&args.directory)?;
    if files.is_empty() {
        report::usage(
            &format!("there are no cases in `{}`", args.directory.display()),
            Some("a case is a directory with a case.toml, or a file NAME.case.toml"),
        );
        return Err(Failure::Told(2));
    }
    let all = files.len();
    let wanted = |name: &str| {
        args.filter
            .as_deref()
            .is_none_or(|part| name.contains(part))
    };
    let files: Vec<_> = files.into_iter().filter(|(name, _)| wanted(name)).collect();
    let suite = Suite {
        directory: args.directory.clone(),
        filtered_out: all - files.len(),
        ran: run(&files, args.accept),
        took: started.elapsed(),
    };
    if let Some(path) = &args.junit {
        write(path, &junit::write(&suite))?;
    }
    print(&match args.format {
        ReportFormat::Text => summary::write(&suite),
        ReportFormat::Json => summary::write_json(&suite),
    })?;
    match suite.failed() {
        0 => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::from(1)),
    }
}

/// Runs cases, on every core, and returns them in their order.
fn run(files: &[(String, PathBuf)], accept: bool) -> Vec<Ran> {
    let next = AtomicUsize::new(0);
    let ran = Mutex::new(Vec::with_capacity(files.len()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(files.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((name, file)) = files.get(index) else {
                        break;
                    };
                    let done = run_one(name, file, accept);
                    let mut ran = ran.lock().unwrap_or_else(PoisonError::into_inner);
                    ran.push((index, done));
                }
            });
        }
    });
    let mut ran = ran.into_inner().unwrap_or_else(PoisonError::into_inner);
    ran.sort_by_key(|(index, _)| *index);
    ran.into_iter().map(|(_, ran)| ran).collect()
}

fn run_one(name: &str, file: &Path, accept: bool) -> Ran {
    let started = Instant::now();
    let (accepted, problems) = match Case::read(file) {
        Ok(case) => case.run(accept),
        Err(message) => (
            None,
            vec![Problem {
                kind: ProblemKind::Error,
                message,
            }],
        ),
    };
    Ran {
        name: name.to_owned(),
        file: file.to_owned(),
        took: started.elapsed(),
        accepted,
        problems,
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    Ok(kiln::write_whole(path, text.as_bytes())?)
}
