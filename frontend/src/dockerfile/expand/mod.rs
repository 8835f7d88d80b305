//! Word expansion: variables, quotes and escapes, over any environment.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use lexer::Lexer;

mod lexer;
mod pattern;

/// How deep substitutions may nest.
const MAX_DEPTH: usize = 100;

/// How much values may add to one word.
const MAX_BYTES: usize = 16 << 20;

/// Where variables come from.
pub trait Environment {
    /// Returns the variable's value, `None` if it is not set.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        BTreeMap::get(self, name).map(|value| Cow::Borrowed(value.as_str()))
    }
}

/// No variable is set.
impl Environment for () {
    fn get(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}

impl<E: Environment + ?Sized> Environment for &E {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        (**self).get(name)
    }
}

/// How words are read; [`Expander::new`] is right for instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expander {
    /// The escape character of the Dockerfile.
    pub escape: char,
    /// Quotes stay in the result.
    pub keep_quotes: bool,
    /// Escape characters stay in the result.
    pub keep_escapes: bool,
    /// Quotes are characters like any other, as in the bodies of heredocs.
    pub ignore_quotes: bool,
    /// References to unset variables stay in the result, as in the names of steps.
    pub keep_unset: bool,
}

/// What a word expands to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The word as one string.
    pub text: String,
    /// The word split at white space that was neither quoted nor escaped, after expansion.
    pub words: Vec<String>,
    /// The variables that were found.
    pub matched: BTreeSet<String>,
    /// The variables that were not set.
    pub unmatched: BTreeSet<String>,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("failed to process {word:?}: {kind}")]
pub struct ExpandError {
    /// The whole word.
    pub word: String,
    /// What is wrong with it.
    pub kind: ExpandErrorKind,
}

/// The ways in which a word can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
pub enum ExpandErrorKind {
    /// A quote has no end.
    #[error("unexpected end of statement while looking for matching {0}")]
    UnmatchedQuote(&'static str),
    /// `${}`, `${:x}`, `${{x}}`
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${x`, `${x/y`
    #[error("syntax error: missing '{0}'{1}")]
    Missing(char, &'static str),
    /// `${x~y}`
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// A pattern with an escape that means nothing.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// The character after the backslash; empty at the end of the pattern.
        escaped: String,
    },
    /// `${x?}` or `${x:?message}` refused.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message given, or what is wrong.
        message: String,
    },
    /// Substitutions nest too deep.
    #[error("substitutions nest deeper than {0} levels")]
    TooDeep(usize),
    /// The result is too long, or takes too many steps to find.
    #[error("expansion takes more than {0} bytes or steps")]
    TooLong(usize),
}

impl Expander {
    /// Returns an expander for the words of instructions.
    pub fn new(escape: char) -> Self {
        Expander {
            escape,
            keep_quotes: false,
            keep_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
        }
    }

    /// Returns the expander for the bodies of heredocs, where quotes mean nothing.
    pub fn heredoc() -> Self {
        Expander {
            ignore_quotes: true,
            ..Expander::new('\\')
        }
    }

    /// Expands `word`.
    ///
    /// Errors tell what is wrong with the word, or that `${x:?}` refused a value.
    pub fn expand(
        &self,
        word: &str,
        environment: &dyn Environment,
    ) -> Result<Expansion, ExpandError> {
        if self.is_plain(word) {
            return Ok(Expansion {
                text: word.to_owned(),
                words: vec![word.to_owned()],
                ..Expansion::default()
            });
        }
        Lexer::new(self, environment, word)
            .run()
            .map_err(|kind| ExpandError {
                word: word.to_owned(),
                kind,
            })
    }

    /// Expands `word` to one string.
    ///
    /// Errors are those of [`Expander::expand`].
    pub fn text<'a>(
        &self,
        word: &'a str,
        environment: &dyn Environment,
    ) -> Result<Cow<'a, str>, ExpandError> {
        if self.is_plain(word) {
            return Ok(Cow::Borrowed(word));
        }
        Ok(Cow::Owned(self.expand(word, environment)?.text))
    }

    /// Says whether `word` is one word without anything to expand, as most are.
    pub(super) fn is_plain(&self, word: &str) -> bool {
        let means_something =
            |letter: char| letter == self.escape || matches!(letter, '$' | '\'' | '"');
        !word.is_empty()
            && !word.contains(|letter: char| letter.is_whitespace() || means_something(letter))
    }
}

#[cfg(test)]
mod tests;
