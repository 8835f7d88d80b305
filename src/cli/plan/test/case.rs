//! One case: what its file says, and what comes of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use kiln::expect::{self, Assertion};
use kiln::{Error, Plan, Planned, Snapshot, compare};
use serde::Deserialize;
use toml::Spanned;

use super::{Problem, ProblemKind};
use crate::cli::args::SourceArgs;
use crate::cli::build::stated_request;
use crate::cli::plan::args::PlanArgs;
use crate::cli::plan::snapshot;
use crate::cli::{Failure, report, spec};

/// What describes a case that is a directory.
const FILE: &str = "case.toml";
/// How the name of a case that is a file ends.
const SUFFIX: &str = ".case.toml";
/// The plan of a case that is a directory; one that is a file has its own name in front.
const PLAN: &str = "kiln.plan";
/// Directories are searched down to here.
const DEPTH: usize = 16;
/// No case is larger.
const LIMIT_BYTES: u64 = 1 << 20;

/// The file of a case, as docs/plan-tests.md describes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    dockerfile: Option<PathBuf>,
    context: Option<PathBuf>,
    target: Option<String>,
    platform: OneOrMore,
    build_platform: Option<String>,
    build_args: BTreeMap<String, String>,
    build_contexts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    network: Option<String>,
    lock_file: Option<PathBuf>,
    plan: Option<PathBuf>,
    error: Option<String>,
    assert: Vec<Spanned<String>>,
}

/// A text, or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> OneOrMore {
        OneOrMore::More(Vec::new())
    }
}

/// A case that was read.
pub(super) struct Case {
    args: PlanArgs,
    /// The plan that it must be.
    plan: Option<PathBuf>,
    /// Words of the error that it must be.
    error: Option<String>,
    assertions: Vec<Assertion>,
}

/// Finds the cases of a directory, by name.
pub(super) fn find(directory: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut found = Vec::new();
    let mut open = vec![(directory.to_owned(), 0)];
    while let Some((at, depth)) = open.pop() {
        let failed = |source| Error::File {
            attempt: "read the directory",
            path: at.clone(),
            source,
        };
        for entry in std::fs::read_dir(&at).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, name) = (
                entry.path(),
                entry.file_name().to_string_lossy().into_owned(),
            );
            // Links are not followed: none leads around in a circle.
            if entry.file_type().map_err(failed)?.is_dir() {
                if depth < DEPTH && !name.starts_with('.') {
                    open.push((path, depth + 1));
                }
            } else if name == FILE {
                found.push((name_of(directory, &at), path));
            } else if let Some(stem) = name.strip_suffix(SUFFIX) {
                found.push((name_of(directory, &at.join(stem)), path));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn name_of(directory: &Path, case: &Path) -> String {
    let inside = case.strip_prefix(directory).unwrap_or(case);
    let parts = inside.components().map(Component::as_os_str);
    let name: Vec<_> = parts.map(|part| part.to_string_lossy()).collect();
    match name.as_slice() {
        [] => {
            let own = directory.file_name().unwrap_or(directory.as_os_str());
            own.to_string_lossy().into_owned()
        }
        name => name.join("/"),
    }
}

impl Case {
    pub(super) fn read(file: &Path) -> Result<Case, String> {
        let shown = file.display();
        let failed = |error: io::Error| format!("could not read `{shown}`: {error}");
        if std::fs::metadata(file).map_err(failed)?.len() > LIMIT_BYTES {
            return Err(format!("`{shown}` has more than {LIMIT_BYTES} bytes"));
        }
        let text = std::fs::read_to_string(file).map_err(failed)?;
        let written: Written = toml::from_str(&text).map_err(|error| {
            let said = error.message();
            match error.span() {
                Some(span) => format!("{}: {said}", place(file, &text, span.start)),
                None => format!("{shown}: {said}"),
            }
        })?;
        let mut assertions = Vec::new();
        for assertion in &written.assert {
            let parsed = Assertion::parse(assertion.as_ref());
            let at = assertion.span().start;
            assertions
                .push(parsed.map_err(|error| format!("{}: {error}", place(file, &text, at)))?);
        }
        let directory = file.parent().unwrap_or(Path::new("."));
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.strip_suffix(SUFFIX).unwrap_or_default();
        let beside = |own: &str| match stem {
            "" => directory.join(own),
            stem => directory.join(format!("{stem}.{own}")),
        };
        let plan = match &written.plan {
            Some(plan) => Some(directory.join(plan)),
            None => {
                let plan = beside(PLAN);
                let says_nothing_else = written.assert.is_empty() && written.error.is_none();
                (plan.exists() || says_nothing_else).then_some(plan)
            }
        };
        let dockerfile = match &written.dockerfile {
            Some(dockerfile) => Some(directory.join(dockerfile)),
            None if stem.is_empty() => None,
            None => Some(beside("Dockerfile")),
        };
        Ok(Case {
            args: written.args(directory, dockerfile),
            plan: plan.filter(|_| written.error.is_none()),
            error: written.error,
            assertions,
        })
    }

    /// Plans, and says what was written and what is not as it should be.
    pub(super) fn run(self, accept: bool) -> (Option<String>, Vec<Problem>) {
        let problem = |kind, message| (None, vec![Problem { kind, message }]);
        let planned = match (self.planned(), &self.error) {
            (Ok(planned), None) => planned,
            (Ok(_), Some(words)) => {
                let message =
                    format!("there is a plan, but an error that says `{words}` was expected");
                return problem(ProblemKind::Error, message);
            }
            (Err(error), Some(words)) if error.contains(words) => return (None, Vec::new()),
            (Err(error), Some(words)) => {
                let message = format!("an error that says `{words}` was expected:\n{error}");
                return problem(ProblemKind::Error, message);
            }
            (Err(error), None) => return problem(ProblemKind::Error, error),
        };
        let mut problems = Vec::new();
        for violation in expect::judge(&planned.plan, &self.assertions) {
            problems.push(Problem {
                kind: ProblemKind::Assertion,
                message: violation.to_string(),
            });
        }
        let mut accepted = None;
        if let Some(path) = &self.plan {
            match self.kept(path, planned.plan, accept) {
                Ok(written) => accepted = written.then(|| path.display().to_string()),
                Err(problem) => problems.insert(0, problem),
            }
        }
        (accepted, problems)
    }

    fn planned(&self) -> Result<Planned, String> {
        let told = |failure: Failure| match failure {
            Failure::Kiln(error) => report::text(&error),
            Failure::Spec(error) => error.message,
            Failure::Told(_) => "the case cannot be planned".to_owned(),
        };
        let request = stated_request(&self.args.source).and_then(|mut request| {
            let platform = self.args.build_platform.as_deref();
            request.build_platform = spec::platform("--build-platform", platform)?;
            Ok(request)
        });
        let planned = request.and_then(|request| Ok(Planned::assuming(&request)?));
        planned.map_err(|failure| told(failure).trim_end().to_owned())
    }

    /// Holds the plan against the one that was kept; returns whether it was written.
    fn kept(&self, path: &Path, plan: Plan, accept: bool) -> Result<bool, Problem> {
        let failed = |message: String| Problem {
            kind: ProblemKind::Plan,
            message,
        };
        let shown = path.display();
        if accept {
            let snapshot = snapshot::snapshot(&mut self.args.clone(), plan);
            return snapshot::write(path, &snapshot)
                .map_err(|_| failed(format!("could not write `{shown}`")));
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(failed(format!(
                    "there is no plan `{shown}` to compare with; `kiln plan test --accept` writes it"
                )));
            }
            Err(error) => return Err(failed(format!("could not read `{shown}`: {error}"))),
        };
        let kept = Snapshot::parse(&text)
            .map_err(|error| failed(format!("`{shown}` is no snapshot: {error}")))?;
        let comparison = compare(&kept.plan, &plan);
        match comparison.is_empty() {
            true => Ok(false),
            false => Err(failed(format!(
                "the plan is not `{shown}`: {}\n{}",
                snapshot::counted(&comparison),
                comparison.to_text().trim_end()
            ))),
        }
    }
}

impl Written {
    fn args(&self, directory: &Path, dockerfile: Option<PathBuf>) -> PlanArgs {
        let pairs = |map: &BTreeMap<String, String>| -> Vec<String> {
            map.iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect()
        };
        let context = self
            .context
            .as_ref()
            .map_or(directory.to_owned(), |path| directory.join(path));
        let contexts = self.build_contexts.iter().map(|(name, value)| {
            let elsewhere = value.contains("://") || spec::is_remote(value);
            match elsewhere {
                true => format!("{name}={value}"),
                false => format!("{name}={}", directory.join(value).display()),
            }
        });
        let source = SourceArgs {
            file: dockerfile,
            target: self.target.clone(),
            build_arg: pairs(&self.build_args),
            build_context: contexts.collect(),
            platform: match &self.platform {
                OneOrMore::One(platform) => vec![platform.clone()],
                OneOrMore::More(platforms) => platforms.clone(),
            },
            label: pairs(&self.labels),
            network: self.network.clone(),
            lock_file: self.lock_file.as_ref().map(|path| directory.join(path)),
            context: Some(context.to_string_lossy().into_owned()),
            ..SourceArgs::default()
        };
        PlanArgs {
            source,
            build_platform: self.build_platform.clone(),
            ..PlanArgs::default()
        }
    }
}

/// Where in the case something is, as compilers say it.
fn place(file: &Path, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!("{}:{line}:{column}", file.display())
}
