//! The flags of an instruction: which there are, which were given.

use super::ast::Word;
use super::lines::Logical;
use super::span::Span;
use super::split::FlagText;
use super::suggest;
use crate::diagnostic::Diagnostic;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// A value.
    Value,
    /// A value, as often as wanted.
    Values,
}

/// A flag's name, and what it takes.
pub(super) type Known = (&'static str, Takes);

/// The flags that were given, checked.
#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<Given>,
    /// Which of the known flags were given, a bit each.
    seen: u32,
}

#[derive(Debug)]
struct Given {
    name: &'static str,
    /// Which of the texts it is.
    text: usize,
    value: Option<Word>,
}

impl Flags {
    /// Checks `texts` against what the instruction knows.
    pub(super) fn read(
        line: &Logical,
        texts: &[FlagText],
        known: &[Known],
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut flags = Flags::default();
        for (index, text) in texts.iter().enumerate() {
            match flags.one(line, text, known) {
                Ok((name, value)) => flags.given.push(Given {
                    name,
                    text: index,
                    value,
                }),
                Err((code, message)) => {
                    let span = text.span(line, 0..text.text.len());
                    diagnostics.push(Diagnostic::error(code, span, message));
                }
            }
        }
        flags
    }

    fn one(
        &mut self,
        line: &Logical,
        text: &FlagText,
        known: &[Known],
    ) -> Result<(&'static str, Option<Word>), (&'static str, String)> {
        let after = text.text.get(2..).unwrap_or("");
        let (name, value) = match after.split_once('=') {
            Some((name, _)) => {
                let start = 2 + name.len() + 1;
                (name, Some(text.word(line, start..text.text.len())))
            }
            None => (after, None),
        };
        let names = known.iter().map(|(name, _)| *name);
        let Some(index) = known.iter().position(|(known, _)| *known == name) else {
            let message = suggest::with_suggestion(format!("unknown flag: --{name}"), name, names);
            return Err(("unknown-flag", message));
        };
        let (known, takes) = known[index];
        if takes != Takes::Values && self.seen & (1 << index) != 0 {
            return Err((
                "duplicate-flag",
                format!("duplicate flag specified: --{name}"),
            ));
        }
        self.seen |= 1 << index;
        match (takes, &value) {
            (Takes::Bool, Some(value)) if value.text.is_empty() => Err((
                "missing-value",
                format!("missing a value on flag: --{name}"),
            )),
            (Takes::Bool, Some(value)) if boolean(&value.text).is_none() => Err((
                "invalid-flag",
                format!(
                    "expecting boolean value for flag --{name}, not: {}",
                    value.text
                ),
            )),
            (Takes::Value | Takes::Values, None) => Err((
                "missing-value",
                format!("missing a value on flag: --{name}"),
            )),
            _ => Ok((known, value)),
        }
    }

    /// Returns the value of a flag; an empty one is none.
    pub(super) fn value(&mut self, name: &str) -> Option<Word> {
        let mut given = self.given.iter_mut();
        let value = given.find(|given| given.name == name)?.value.take();
        value.filter(|value| !value.text.is_empty())
    }

    /// Returns the values of a flag.
    pub(super) fn values(&mut self, name: &str) -> Vec<Word> {
        self.numbered(name)
            .into_iter()
            .map(|(_, value)| value)
            .collect()
    }

    /// Returns the values of a flag, each with the index of its text.
    pub(super) fn numbered(&mut self, name: &str) -> Vec<(usize, Word)> {
        self.given
            .extract_if(.., |given| given.name == name)
            .filter_map(|given| Some((given.text, given.value?)))
            .collect()
    }

    /// Returns the setting of a flag that takes a boolean.
    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        let given = self.given.iter().find(|given| given.name == name)?;
        match &given.value {
            Some(value) => boolean(&value.text),
            None => Some(true),
        }
    }

    /// Returns where the first flag's value is, if a flag was given.
    pub(super) fn span(&self) -> Option<Span> {
        self.given
            .iter()
            .find_map(|given| Some(given.value.as_ref()?.span))
    }
}

fn boolean(text: &str) -> Option<bool> {
    match () {
        () if text.eq_ignore_ascii_case("true") => Some(true),
        () if text.eq_ignore_ascii_case("false") => Some(false),
        () => None,
    }
}

/// Reads a boolean as Go's `strconv.ParseBool` does.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
