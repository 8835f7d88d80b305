//! `kiln plan --check` and `--accept`: a plan held against the one that was kept.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kiln::{Error, Plan, PlanComparison, Planned, Snapshot, compare};

use super::args::{PlanArgs, PlanFormat};
use super::recorded::{self, Recorded};
use super::show::{complete, warn};
use crate::cli::build::stated_request;
use crate::cli::{Done, Failure, print, report};

/// A snapshot beside `Dockerfile` is called so; beside another file, it has that one's name in front.
const NAME: &str = "kiln.plan";
/// No snapshot is larger.
const LIMIT_BYTES: u64 = 256 << 20;

/// Compares the plan with its snapshot.
pub(super) fn check(args: &PlanArgs) -> Done {
    told_as(args.format)?;
    let path = place(args)?;
    let mut args = args.clone();
    let Some(kept) = read(&path)? else {
        let context = args.source.context.as_deref().unwrap_or(".");
        report::usage(
            &format!("there is no snapshot `{}`", path.display()),
            Some(&format!(
                "`kiln plan --accept {context}` writes it, with the flags of the build"
            )),
        );
        return Err(Failure::Told(2));
    };
    recorded::recall(&mut args, &kept.arguments)?;
    let planned = plan(&args)?;
    let comparison = compare(&kept.plan, &planned.plan);
    print(&show(&comparison, args.format))?;
    if comparison.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    report::note(&format!(
        "`{}` is not what would be built: {}; `kiln plan --accept` takes it over",
        path.display(),
        counted(&comparison),
    ));
    Ok(ExitCode::from(1))
}

/// Makes the plan the snapshot.
pub(super) fn accept(args: &PlanArgs) -> Done {
    told_as(args.format)?;
    let path = place(args)?;
    let mut args = args.clone();
    let kept = read(&path)?;
    if let Some(kept) = &kept {
        recorded::inherit(&mut args, &kept.arguments)?;
    }
    let planned = plan(&args)?;
    let snapshot = snapshot(&mut args, planned.plan);
    let empty = Plan::default();
    let old = kept.as_ref().map_or(&empty, |kept| &kept.plan);
    let comparison = compare(old, &snapshot.plan);
    let written = write(&path, &snapshot)?;
    let (verb, what) = match (&kept, written) {
        (None, _) => ("wrote", format!("{} ops", snapshot.plan.graph.len())),
        (Some(_), false) => ("kept", "nothing changed".to_owned()),
        (Some(kept), true) => ("wrote", changes(kept, &snapshot, &comparison)),
    };
    if kept.is_some() {
        print(&show(&comparison, args.format))?;
    }
    report::note(&format!("{verb} `{}`: {what}", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// Says what a new snapshot changes, in one line.
fn changes(old: &Snapshot, new: &Snapshot, comparison: &PlanComparison) -> String {
    let mut words = Vec::new();
    if !comparison.is_empty() {
        words.push(counted(comparison));
    }
    if old.arguments != new.arguments {
        words.push("other arguments".to_owned());
    }
    match words.as_slice() {
        [] => "only names of steps changed".to_owned(),
        words => words.join(", "),
    }
}

/// Returns a plan with its arguments; where no platform was named, with those that it is for.
pub(super) fn snapshot(args: &mut PlanArgs, plan: Plan) -> Snapshot {
    if args.source.platform.is_empty() {
        let configs = plan
            .results
            .values()
            .filter_map(|entry| entry.config.as_ref());
        args.source.platform = configs
            .filter(|config| !config.os.is_empty())
            .map(|config| match config.variant.as_str() {
                "" => format!("{}/{}", config.os, config.architecture),
                variant => format!("{}/{}/{variant}", config.os, config.architecture),
            })
            .collect();
    }
    let arguments: Recorded = recorded::record(args);
    Snapshot { arguments, plan }
}

/// Plans without looking around, whatever this host is.
pub(super) fn plan(args: &PlanArgs) -> Result<Planned, Failure> {
    let mut request = stated_request(&args.source)?;
    complete(args, &mut request)?;
    let planned = Planned::assuming(&request)?;
    warn(args, &planned);
    Ok(planned)
}

/// Refuses forms that only plans have.
fn told_as(format: PlanFormat) -> Result<(), Failure> {
    if matches!(format, PlanFormat::Text | PlanFormat::Json) {
        return Ok(());
    }
    report::usage(
        "what differs is told as text or as json only",
        Some("`kiln plan --format svg` shows the plan itself"),
    );
    Err(Failure::Told(2))
}

fn show(comparison: &PlanComparison, format: PlanFormat) -> String {
    match format {
        PlanFormat::Json => format!("{:#}\n", comparison.to_json()),
        _ => comparison.to_text(),
    }
}

/// How much differs.
pub(super) fn counted(comparison: &PlanComparison) -> String {
    let mut words = Vec::new();
    let mut count = |number: usize, one: &str, several: &str| match number {
        0 => {}
        1 => words.push(format!("1 {one}")),
        number => words.push(format!("{number} {several}")),
    };
    count(comparison.ops.len(), "op differs", "ops differ");
    count(comparison.results.len(), "result differs", "results differ");
    count(comparison.pins.len(), "pin differs", "pins differ");
    words.join(", ")
}

/// Where the snapshot is: as said, or beside the Dockerfile.
fn place(args: &PlanArgs) -> Result<PathBuf, Failure> {
    if let Some(path) = &args.output {
        return Ok(path.clone());
    }
    let source = &args.source;
    let context = source.context.as_deref().map(Path::new);
    match (source.file.as_deref(), context) {
        (None, Some(context)) if context.is_dir() => Ok(context.join(NAME)),
        (Some(file), _) if file.is_file() => {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            Ok(file.with_file_name(match name.as_ref() {
                "Dockerfile" | "dockerfile" => NAME.to_owned(),
                name => format!("{name}.{NAME}"),
            }))
        }
        (None, None) => {
            report::usage(
                "no build context was given",
                Some("`kiln plan --check .` checks this directory"),
            );
            Err(Failure::Told(2))
        }
        _ => {
            report::usage(
                "there is no place for a snapshot beside this Dockerfile",
                Some("name it with -o FILE"),
            );
            Err(Failure::Told(2))
        }
    }
}

/// Reads a snapshot; none if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Snapshot>, Failure> {
    let failed = |source| Error::File {
        attempt: "read the snapshot",
        path: path.to_owned(),
        source,
    };
    let text = match std::fs::metadata(path) {
        Ok(found) if found.len() > LIMIT_BYTES => {
            let too_large = format!("it has more than {LIMIT_BYTES} bytes");
            return Err(failed(std::io::Error::other(too_large)).into());
        }
        Ok(_) => std::fs::read_to_string(path).map_err(failed)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error).into()),
    };
    match Snapshot::parse(&text) {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(error) => {
            report::usage(
                &format!("`{}` is no snapshot: {error}", path.display()),
                Some("remove it, and write it anew with `kiln plan --accept`"),
            );
            Err(Failure::Told(2))
        }
    }
}

/// Writes a snapshot whole or not at all; returns whether there was anything to write.
pub(super) fn write(path: &Path, snapshot: &Snapshot) -> Result<bool, Failure> {
    let text = snapshot.to_text();
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    kiln::write_whole(path, text.as_bytes())?;
    Ok(true)
}
