//! What SOURCE_DATE_EPOCH says: a number, or whose time it is.

use kiln_ir::Platform;

use super::answer::{Answers, Question, TimeAnswer};
use super::epoch::Epoch;
use super::input::{LowerInput, NamedContext};
use super::remote;
use super::settings::EPOCH;
use super::stages::Stages;
use crate::dockerfile::ast::{Dockerfile, Kind};

/// The value that stands for the build context.
const CONTEXT: &str = "context";
/// The base of a stage that holds what is added to it and nothing else.
const SCRATCH: &str = "scratch";

/// The one time of everything made, as far as it is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dated {
    /// It is known; or there is none.
    At(Option<Epoch>),
    /// This must be answered first.
    Ask(Question),
}

/// Reads the value; the error is a whole message.
///
/// Beside a number it may be `context`, a named context, or a stage that is nothing but one ADD of
/// something remote.
pub(super) fn read(
    value: &str,
    input: &LowerInput,
    dockerfile: &Dockerfile,
    stages: &Stages<'_>,
    platform: &Platform,
    answers: &Answers,
) -> Result<Dated, String> {
    if value.is_empty() {
        return Ok(Dated::At(None));
    }
    let invalid = |reason: &str| format!("invalid {EPOCH} `{value}`: {reason}");
    if let Ok(seconds) = value.parse() {
        return match Epoch::new(seconds) {
            Some(epoch) => Ok(Dated::At(Some(epoch))),
            None => Err(invalid(
                "no date of the years 0 to 9999 is so far from 1970",
            )),
        };
    }
    if !input.contexts.is_empty() && value != CONTEXT {
        match stages.context(value, platform) {
            Some(NamedContext::Url(url)) => return ask(Some(url.clone()), answers, invalid),
            Some(_) => {
                return Err(invalid(
                    "only contexts from git repositories and over http have a time",
                ));
            }
            None => {}
        }
    }
    if value == CONTEXT {
        return ask(None, answers, invalid);
    }
    match added_by(value, dockerfile) {
        Some(url) => ask(Some(url), answers, invalid),
        None => Err(invalid(
            "it is neither a number of seconds since 1970 nor `context`, nor the name of a remote context or of a stage that is nothing but one ADD of something remote",
        )),
    }
}

fn ask(
    url: Option<String>,
    answers: &Answers,
    invalid: impl Fn(&str) -> String,
) -> Result<Dated, String> {
    let question = Question::SourceTime { url };
    match answers.time_of(&question) {
        None => Ok(Dated::Ask(question)),
        Some(TimeAnswer::Assumed) => Ok(Dated::At(None)),
        Some(TimeAnswer::Unknown { reason }) => Err(invalid(reason)),
        Some(TimeAnswer::Known(seconds)) => match Epoch::new(*seconds) {
            Some(epoch) => Ok(Dated::At(Some(epoch))),
            None => Err(invalid("its time is not between the years 0 and 9999")),
        },
    }
}

/// Returns what a stage adds to nothing, if it does only that.
fn added_by(name: &str, dockerfile: &Dockerfile) -> Option<String> {
    let name = name.to_lowercase();
    let mut stages = dockerfile.stages.iter().rev();
    let stage = stages.find(|stage| stage.name().as_deref() == Some(name.as_str()))?;
    if stage.from.kind.image.text != SCRATCH {
        return None;
    }
    let [instruction] = &stage.instructions[..] else {
        return None;
    };
    let Kind::Add(add) = &instruction.kind else {
        return None;
    };
    match &add.transfer.sources[..] {
        [source] if matches!(remote::classify(&source.text), Ok(Some(_))) => {
            Some(source.text.to_string())
        }
        _ => None,
    }
}
