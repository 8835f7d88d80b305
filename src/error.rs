//! What can go wrong, with what a command needs to say about it.

use std::path::PathBuf;

use kiln_frontend::diagnostic::Diagnostic;
use kiln_frontend::dockerfile::Source;

use crate::{AttestError, LockError};

/// A Dockerfile (or another text) and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The file's name as people know it.
    pub file_name: String,
    /// Its text, which the spans point into.
    pub text: Source,
    /// Warnings and errors, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl Findings {
    /// Whether nothing is wrong but that base images cannot be had now.
    fn lacks_images_only(&self) -> bool {
        let mut errors = self.diagnostics.iter().filter(|finding| finding.is_error());
        errors.all(|error| error.code == "image-unavailable")
    }
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedStep {
    /// Its stage.
    pub stage: String,
    /// The instruction.
    pub text: String,
    /// File, first line and the lines of the instruction, where it is written somewhere.
    pub written: Option<(String, u32, Vec<String>)>,
    /// What happened, such as `exit code 2`.
    pub failure: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// The end of what it wrote.
    pub output: Vec<String>,
    /// A way out, where there is one to name.
    pub hint: Option<String>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Dockerfile is wrong.
    #[error("`{}` cannot be built", .0.file_name)]
    Dockerfile(Box<Findings>),
    /// Files are wrong, in the words of a front end from outside; never empty.
    #[error("{}", files_words(.0))]
    Files(Vec<Findings>),
    /// A front end from outside did not come to a plan.
    #[error(transparent)]
    Frontend(Box<crate::FrontendFailure>),
    /// The plan is wrong.
    #[error("the plan cannot be read: {message}")]
    Plan {
        /// What is wrong and where.
        message: String,
    },
    /// A lock is wrong, or says too little.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A request contradicts itself or names something that is not there.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// A way out.
        hint: Option<String>,
    },
    /// An attestation is asked for that there is not.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// A file that the caller named cannot be read or written.
    #[error("could not {attempt} `{}`", path.display())]
    File {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Steps failed; never empty.
    #[error("{}", failed_words(.0))]
    Steps(Vec<FailedStep>),
    /// Steps could not be tried, since the host lacks something; never empty.
    #[error("{}", failed_words(.0))]
    StepsLack(Vec<FailedStep>),
    /// The build was stopped by its caller.
    #[error("the build was cancelled")]
    Cancelled,
    /// The host lacks something, or the world refused something.
    #[error(transparent)]
    Executor(#[from] kiln_executor::Error),
    /// The cache's bookkeeping failed.
    #[error("the build could not go on")]
    Solver(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn files_words(files: &[Findings]) -> String {
    let names: Vec<String> = files
        .iter()
        .filter(|file| !file.text.is_empty())
        .map(|file| format!("`{}`", file.file_name))
        .collect();
    match names.is_empty() {
        true => "there is nothing to build".to_owned(),
        false => format!("{} cannot be built", names.join(" and ")),
    }
}

fn failed_words(steps: &[FailedStep]) -> String {
    match steps {
        [step] => format!("`{}` failed: {}", step.text, step.failure),
        steps => format!("{} steps failed", steps.len()),
    }
}

impl Error {
    /// Returns a way out, where there is one to name.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Usage { hint, .. } => hint.clone(),
            Error::Attest(error) => Some(error.hint.clone()),
            Error::Executor(error) => error.hint(),
            Error::Lock(error) => Some(error.hint()),
            Error::Frontend(failure) => failure.hint(),
            _ => None,
        }
    }

    /// The exit code that a command ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Dockerfile(findings) if findings.lacks_images_only() => 1,
            Error::Dockerfile(_)
            | Error::Files(_)
            | Error::Plan { .. }
            | Error::Usage { .. }
            | Error::Attest(_)
            | Error::Lock(_) => 2,
            Error::Frontend(_) | Error::File { .. } | Error::Steps(_) | Error::Solver(_) => 1,
            Error::StepsLack(_) => 3,
            Error::Cancelled => 130,
            Error::Executor(
                kiln_executor::Error::Reference(_)
                | kiln_executor::Error::RegistryName { .. }
                | kiln_executor::Error::NameWithDigest { .. }
                | kiln_executor::Error::ReservedName { .. }
                | kiln_executor::Error::OnePlatform { .. }
                | kiln_executor::Error::NoAttestations { .. }
                | kiln_executor::Error::OnePlatformToLoad { .. }
                | kiln_executor::Error::Limit { .. }
                | kiln_executor::Error::Mounts(kiln_executor::MountsError::Place { .. })
                | kiln_executor::Error::SecretFile { .. }
                | kiln_executor::Error::SecretTooBig { .. }
                | kiln_executor::Error::Agent { .. },
            ) => 2,
            Error::Executor(kiln_executor::Error::RegistryConfig(error)) if error.is_usage() => 2,
            Error::Executor(error) if error.is_environment() => 3,
            Error::Executor(_) => 1,
        }
    }
}
