//! How a front end from outside fails.

use std::fmt;
use std::time::Duration;

use kiln_frontend::outside::{VERSION, Violation};

use crate::Error;

/// A front end that did not come to a plan.
#[derive(Debug)]
pub struct FrontendFailure {
    /// As people know it.
    pub frontend: String,
    /// What went wrong.
    pub problem: FrontendProblem,
    /// The end of what it wrote to its standard error.
    pub output: Vec<String>,
}

impl fmt::Display for FrontendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the front end `{}` {}", self.frontend, self.problem)
    }
}

impl std::error::Error for FrontendFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The problem itself is in the sentence.
        self.problem.source()
    }
}

/// What went wrong, as the rest of a sentence that begins with the front end.
#[derive(Debug, thiserror::Error)]
pub enum FrontendProblem {
    /// It does not keep to the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// It ended before its last message.
    #[error("ended with {how} before it returned a plan")]
    Early {
        /// Such as `exit code 1`.
        how: String,
        /// Before it said anything at all.
        silent: bool,
    },
    /// It closed its standard output, and runs on.
    #[error("closed its standard output before it returned a plan")]
    Closed,
    /// It returned a plan and then failed.
    #[error("returned a plan and ended with {how}")]
    Late {
        /// Such as `exit code 1`.
        how: String,
    },
    /// Nothing was heard of it, and nothing was to be waited for.
    #[error("said nothing for {} s", patience.as_secs_f64())]
    Silent {
        /// How long that is allowed.
        patience: Duration,
    },
    /// It does not end.
    #[error("returned a plan and did not end within {} s", patience.as_secs_f64())]
    Lingers {
        /// How long that is allowed.
        patience: Duration,
    },
    /// It does not read what it is sent.
    #[error("did not read what it was sent for {} s", patience.as_secs_f64())]
    Deaf {
        /// How long that is allowed.
        patience: Duration,
    },
    /// It asked for something to run where nothing runs.
    #[error("asked for a plan to be carried out, and planning runs nothing")]
    Runs,
    /// An image says nothing of what runs in it.
    #[error("is an image without a program: it has no entry point and no command")]
    NoProgram,
    /// It gave up without an error.
    #[error("found nothing to build, and gave no reason")]
    NoReason,
    /// What it returned is no plan.
    #[error("returned a plan that cannot be used: {reason}")]
    Plan {
        /// What is wrong with it.
        reason: String,
    },
    /// A plan to be carried out is none.
    #[error("asked for a plan to be carried out that cannot be used: {reason}")]
    SubPlan {
        /// What is wrong with it.
        reason: String,
    },
    /// Its streams failed.
    #[error("cannot be talked to")]
    Stream(#[source] std::io::Error),
}

impl FrontendFailure {
    pub(super) fn error(frontend: &str, problem: FrontendProblem) -> Error {
        Error::Frontend(Box::new(FrontendFailure {
            frontend: frontend.to_owned(),
            problem,
            output: Vec::new(),
        }))
    }

    /// Whether it only ended, so that what it said before counts.
    pub(super) fn is_ending(&self) -> bool {
        matches!(
            self.problem,
            FrontendProblem::Early { .. } | FrontendProblem::Late { .. }
        )
    }

    /// A way out, where there is one to name.
    pub fn hint(&self) -> Option<String> {
        Some(match &self.problem {
            FrontendProblem::Violation(Violation::Grpc) => {
                "front ends of BuildKit do not run here; `docker/dockerfile` is built in".to_owned()
            }
            FrontendProblem::Violation(
                Violation::NoHello | Violation::NoMessage { number: 1, .. },
            )
            | FrontendProblem::Early { silent: true, .. } => format!(
                "a front end speaks `{VERSION}` on its standard output (docs/frontends.md); those of BuildKit do not"
            ),
            FrontendProblem::Silent { .. }
            | FrontendProblem::Lingers { .. }
            | FrontendProblem::Deaf { .. } => "--frontend-timeout gives it longer".to_owned(),
            FrontendProblem::Runs => "`kiln plan --resolve` lets it run".to_owned(),
            _ => return None,
        })
    }
}
