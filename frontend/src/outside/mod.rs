//! Front ends from outside: who is to read a file, and the protocol that they speak.
//!
//! docs/frontends.md is the protocol for those who write front ends. Here it is data: `syntax` finds
//! whom a file asks for, `message` is what goes over the wire, `dialogue` says what may follow what,
//! `place` turns lines and columns into spans. Whoever runs a front end owns its process and its pipes,
//! and answers its requests.

mod dialogue;
mod message;
mod place;
mod syntax;
mod violation;

pub use dialogue::{Dialogue, Heard, MESSAGE_LIMIT_BYTES, REQUEST_LIMIT};
pub use message::{
    Answer, AnswerBody, Build, BuildFile, ContextKind, Entry, EntryKind, Fault, FaultCode,
    NoCacheOf, Note, PlanForm, Request, Returned, Said, StepDisplay, VERSION, encode,
};
pub use place::Place;
pub use syntax::{Asked, Reader, asked};
pub use violation::Violation;
