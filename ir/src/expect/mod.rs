//! What must hold of a plan, said in words: `no-root-runs in final`, `base-images-pinned`.
//!
//! For tests of Dockerfiles and of front ends; docs/plan-tests.md is the vocabulary. An assertion is
//! a name, its arguments, and for some the steps that it is about.
//!
//! ```
//! use kiln_ir::build::Builder;
//! use kiln_ir::{Config, ImageConfig, Platform, expect};
//!
//! let builder = Builder::new();
//! let base = builder.image("docker.io/library/alpine:3.20", &Platform::linux("amd64"));
//! let made = base.exec(["make", "-C", "/app"]).user("app").root();
//! let config = Config { user: "app".to_owned(), ..Config::default() };
//! builder.result("", made, Some(ImageConfig { config, ..ImageConfig::default() }));
//! let plan = builder.finish()?;
//!
//! expect::hold(&plan, &["no-root-runs", "image-user-not-root", "at-most-layers 1"])?;
//!
//! let unmet = expect::hold(&plan, &["base-images-pinned"]).unwrap_err();
//! assert_eq!(unmet.to_string(), "\
//! `base-images-pinned` does not hold: \
//! `image docker.io/library/alpine:3.20 linux/amd64` is not pinned to a digest");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod assertion;
mod judge;
mod scope;

use std::fmt;

use crate::Plan;
pub use assertion::{Assertion, AssertionError, NAMES};

/// An assertion that does not hold, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The assertion as it was written.
    pub assertion: String,
    /// What is otherwise.
    pub message: String,
    /// File and first line of the step that it is about, where it is written somewhere.
    pub place: Option<(String, u32)>,
}

/// Why [`hold`] says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// What is asserted cannot be understood.
    #[error("{0}")]
    Assertion(#[from] AssertionError),
    /// The plan is otherwise; never empty.
    #[error("{}", .0.iter().map(Violation::to_string).collect::<Vec<_>>().join("\n"))]
    Violations(Vec<Violation>),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` does not hold: {}", self.assertion, self.message)?;
        match &self.place {
            Some((file, line)) => write!(f, " ({file}:{line})"),
            None => Ok(()),
        }
    }
}

/// Returns what of the assertions does not hold of a valid plan, in their order and that of its ops.
pub fn judge(plan: &Plan, assertions: &[Assertion]) -> Vec<Violation> {
    assertions
        .iter()
        .flat_map(|assertion| judge::judge(plan, assertion))
        .collect()
}

/// Checks that assertions hold of a valid plan: [`judge()`] for tests.
pub fn hold(plan: &Plan, assertions: &[&str]) -> Result<(), Unmet> {
    let assertions = assertions.iter().map(|text| Assertion::parse(text));
    let violations = judge(plan, &assertions.collect::<Result<Vec<_>, _>>()?);
    match violations.is_empty() {
        true => Ok(()),
        false => Err(Unmet::Violations(violations)),
    }
}
