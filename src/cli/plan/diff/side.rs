//! What is compared: where it is, and how it becomes a plan.

use std::path::{Path, PathBuf};

use kiln::{Error, GitError, Plan, PlanContext, Revision, Snapshot};

use crate::cli::args::SourceArgs;
use crate::cli::plan::args::{PlanArgs, PlanDiffArgs};
use crate::cli::plan::snapshot;
use crate::cli::{Failure, report};

const IMAGE: &str = "docker-image://";
/// How names of plans end: in text form, with or without a header, and in JSON form.
const PLANS: &[&str] = &["plan", "json"];
/// No plan is larger.
const LIMIT_BYTES: u64 = 256 << 20;

/// One of the two.
pub(super) enum Side {
    /// A build context.
    Directory(PathBuf),
    /// A Dockerfile in its own directory.
    Dockerfile(PathBuf),
    /// A plan that was written down.
    Plan(PathBuf),
    /// A directory or a Dockerfile of a commit.
    Commit { revision: Revision, path: String },
    /// An image of the store.
    Image(String),
}

impl Side {
    /// Finds what a word means: what is there comes before what git knows.
    pub(super) fn of(args: &PlanDiffArgs, word: &str) -> Result<Side, Failure> {
        if let Some(name) = word.strip_prefix(IMAGE) {
            return Ok(Side::Image(name.to_owned()));
        }
        let path = Path::new(word);
        if path.is_dir() {
            return Ok(Side::Directory(path.to_owned()));
        }
        if path.is_file() {
            let extension = path.extension().and_then(|extension| extension.to_str());
            let is_plan = extension.is_some_and(|extension| PLANS.contains(&extension));
            return Ok(match is_plan {
                true => Side::Plan(path.to_owned()),
                false => Side::Dockerfile(path.to_owned()),
            });
        }
        let here = Path::new(".");
        let git = |error: GitError| match error {
            GitError::Invalid { .. } => {
                report::usage(&format!("`{word}`: {error}"), None);
                Failure::Told(2)
            }
            error => Failure::Kiln(Error::Executor(error.into())),
        };
        if let Some((name, path)) = word.split_once(':')
            && let Some(revision) = Revision::find(here, name).map_err(git)?
        {
            let from_here = path == "." || path.starts_with("./") || path.starts_with("../");
            let path = match from_here {
                true => revision.from_here(Path::new(path)),
                false => revision.from_root(Path::new(path)),
            };
            let path = path.map_err(git)?;
            return Ok(Side::Commit { revision, path });
        }
        if let Some(revision) = Revision::find(here, word).map_err(git)? {
            let path = revision.from_here(&args.path).map_err(git)?;
            return Ok(Side::Commit { revision, path });
        }
        report::usage(
            &format!("`{word}` is no directory, no file, and no revision of a git repository here"),
            Some("an image is docker-image://NAME, a file of a revision REVISION:PATH"),
        );
        Err(Failure::Told(2))
    }

    /// The directory as it is now.
    pub(super) fn here(args: &PlanDiffArgs) -> Side {
        Side::Directory(args.path.clone())
    }

    pub(super) fn plan(self, args: &PlanDiffArgs) -> Result<Plan, Failure> {
        let plan = |context: &Path, dockerfile: Option<PathBuf>| {
            let source = SourceArgs {
                file: dockerfile,
                target: args.target.clone(),
                build_arg: args.build_arg.clone(),
                build_context: args.build_context.clone(),
                platform: args.platform.clone(),
                context: Some(context.to_string_lossy().into_owned()),
                ..SourceArgs::default()
            };
            let args = PlanArgs {
                source,
                ..PlanArgs::default()
            };
            Ok(snapshot::plan(&args)?.plan)
        };
        match self {
            Side::Directory(context) => {
                let dockerfile = args.file.as_ref().map(|file| context.join(file));
                plan(&context, dockerfile)
            }
            Side::Dockerfile(path) => {
                let context = match path.parent() {
                    Some(parent) if parent != Path::new("") => parent.to_owned(),
                    _ => PathBuf::from("."),
                };
                plan(&context, Some(path))
            }
            Side::Commit { revision, path } => {
                let taken = PlanContext::of(&revision, &path, args.file.as_deref())?;
                plan(taken.directory(), taken.dockerfile.clone())
            }
            Side::Plan(path) => read(&path),
            Side::Image(_) => unreachable!("BUG: an image is no plan"),
        }
    }
}

/// Reads a plan in any of its forms.
fn read(path: &Path) -> Result<Plan, Failure> {
    let failed = |source| Error::File {
        attempt: "read the plan",
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > LIMIT_BYTES {
        let message = format!("it has more than {LIMIT_BYTES} bytes");
        return Err(failed(std::io::Error::other(message)).into());
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    if let Ok(snapshot) = Snapshot::parse(&text) {
        return Ok(snapshot.plan);
    }
    kiln::read_plan(&text).map_err(Failure::Kiln)
}
