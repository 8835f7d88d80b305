//! Lowering: a Dockerfile and the options of a build become a plan.
//!
//! Pure: the same [`LowerInput`] and [`Answers`] give the same [`Lowering`]. What lowering cannot
//! know, such as the config of a base image, it asks for; the caller answers and lowers again.
//!
//! A round goes: `assemble` parses and settles the options; `stages` expands every FROM and finds
//! what it means; `reach` finds what the target needs and what must be asked; `stage` walks the
//! instructions of each stage, in source order, with `run`, `mount`, `copy` and `config`; `round`
//! holds the plan in the making; `outline` collects what the build can be given, `scan` what an SBOM is
//! wanted of; `check` decides which warnings are wanted.
//!
//! ```
//! use kiln_frontend::lower::{Answers, LowerInput, Lowering, lower};
//! use kiln_ir::Platform;
//!
//! let host = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
//! let input = LowerInput {
//!     text: "FROM alpine\nRUN make\n".into(),
//!     platforms: vec![host],
//!     ..LowerInput::default()
//! };
//! let mut answers = Answers::default();
//! let lowered = loop {
//!     match lower(&input, &answers) {
//!         Lowering::Needs(questions) => answers.assume(questions),
//!         Lowering::Lowered(lowered) => break lowered,
//!         Lowering::Failed(diagnostics) => panic!("{diagnostics:?}"),
//!     }
//! };
//! assert!(lowered.plan.results[""].config.is_some());
//! ```

mod answer;
mod assemble;
mod check;
mod config;
mod copy;
mod dating;
mod epoch;
mod gotext;
mod input;
mod mode;
mod mount;
mod outcome;
mod outline;
mod path;
mod port;
mod reach;
mod reference;
mod remote;
mod round;
mod run;
mod scan;
mod scope;
mod settings;
mod signal;
mod stage;
mod stages;

pub use answer::{Answers, ImageAnswer, Question, TimeAnswer};
pub use assemble::{foreign_syntax, lower};
pub use input::{LowerInput, NamedContext, NoCache};
pub use outcome::{Lowered, Lowering, StageSummary};
pub use outline::{Outline, OutlineArg, OutlineMount};
pub use reference::normalize as normalize_reference;
pub use remote::{CONTEXT_FILE, RemoteContext, remote_context};
pub use scan::{Scan, Scanned};
