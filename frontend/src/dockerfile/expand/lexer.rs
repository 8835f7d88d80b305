//! One pass over a word: quotes, escapes, and substitutions within each other.

use super::pattern::{self, Pattern};
use super::{Environment, ExpandErrorKind, Expander, Expansion, MAX_BYTES, MAX_DEPTH};

type Result<T> = std::result::Result<T, ExpandErrorKind>;

/// Where in the word we are, and what was found so far.
pub(super) struct Lexer<'a> {
    expander: &'a Expander,
    environment: &'a dyn Environment,
    rest: &'a str,
    keep_escapes: bool,
    depth: usize,
    /// How many bytes of values and replacements were put in.
    inserted: usize,
    found: Expansion,
}

/// The result so far, as one string and split into words.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Output {
    fn push_literal(&mut self, letter: char) {
        self.text.push(letter);
        self.word.push(letter);
    }

    fn push_quoted(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    /// Adds what is split at its white space.
    fn push_plain(&mut self, text: &str) {
        self.text.push_str(text);
        for (index, part) in text.split(char::is_whitespace).enumerate() {
            if index > 0 && !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
            self.word.push_str(part);
        }
    }
}

impl<'a> Lexer<'a> {
    pub(super) fn new(
        expander: &'a Expander,
        environment: &'a dyn Environment,
        word: &'a str,
    ) -> Self {
        Lexer {
            expander,
            environment,
            rest: word,
            keep_escapes: expander.keep_escapes,
            depth: 0,
            inserted: 0,
            found: Expansion::default(),
        }
    }

    pub(super) fn run(mut self) -> Result<Expansion> {
        let mut output = self.until(None)?;
        if !output.word.is_empty() {
            output.words.push(output.word);
        }
        Ok(Expansion {
            text: output.text,
            words: output.words,
            ..self.found
        })
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.rest = &self.rest[letter.len_utf8()..];
        Some(letter)
    }

    fn eat(&mut self, letter: char) -> bool {
        let eaten = self.peek() == Some(letter);
        if eaten {
            self.next();
        }
        eaten
    }

    /// Reads up to `stop` and over it, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<Output> {
        let mut output = Output::default();
        if stop.is_none() {
            output.text.reserve(self.rest.len());
        }
        while let Some(letter) = self.peek() {
            if Some(letter) == stop {
                self.next();
                return Ok(output);
            }
            match letter {
                '$' => {
                    let value = self.dollar()?;
                    output.push_plain(&value);
                }
                '\'' if !self.expander.ignore_quotes => {
                    let text = self.single_quoted()?;
                    output.push_quoted(text);
                }
                '"' if !self.expander.ignore_quotes => {
                    let text = self.double_quoted()?;
                    output.push_quoted(&text);
                }
                _ if letter == self.expander.escape => {
                    self.next();
                    if self.keep_escapes {
                        output.push_literal(letter);
                    }
                    if let Some(escaped) = self.next() {
                        output.push_literal(escaped);
                    }
                }
                _ => output.push_plain(self.plain(stop)),
            }
        }
        match stop {
            None => Ok(output),
            Some('/') => Err(ExpandErrorKind::Missing('/', " in ${}")),
            Some(stop) => Err(ExpandErrorKind::Missing(stop, "")),
        }
    }

    /// Reads up to whatever means something, or to `stop`.
    fn plain(&mut self, stop: Option<char>) -> &'a str {
        let Expander {
            escape,
            ignore_quotes,
            ..
        } = *self.expander;
        let (plain, rest) = self.rest.split_at(
            self.rest
                .find(|letter| match letter {
                    '$' => true,
                    '\'' | '"' if !ignore_quotes => true,
                    _ => letter == escape || Some(letter) == stop,
                })
                .unwrap_or(self.rest.len()),
        );
        self.rest = rest;
        plain
    }

    /// Reads up to `stop` with escapes kept or not; whatever breaks at the end of the word is a
    /// missing `stop`.
    fn nested(&mut self, stop: char, keep_escapes: bool) -> Result<String> {
        let outer = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        let output = self.until(Some(stop));
        self.keep_escapes = outer;
        match output {
            Ok(output) => Ok(output.text),
            Err(ExpandErrorKind::TooDeep(depth)) => Err(ExpandErrorKind::TooDeep(depth)),
            Err(_) if self.rest.is_empty() && stop == '/' => {
                Err(ExpandErrorKind::Missing('/', " in ${}"))
            }
            Err(_) if self.rest.is_empty() => Err(ExpandErrorKind::Missing(stop, "")),
            Err(error) => Err(error),
        }
    }

    fn single_quoted(&mut self) -> Result<&'a str> {
        let start = self.rest;
        let Some(length) = start[1..].find('\'') else {
            self.rest = "";
            return Err(ExpandErrorKind::UnmatchedQuote("single-quote"));
        };
        self.rest = &start[length + 2..];
        Ok(match self.expander.keep_quotes {
            true => &start[..length + 2],
            false => &start[1..length + 1],
        })
    }

    fn double_quoted(&mut self) -> Result<String> {
        let mut text = String::new();
        self.next();
        if self.expander.keep_quotes {
            text.push('"');
        }
        while let Some(letter) = self.peek() {
            match letter {
                '"' => {
                    self.next();
                    if self.expander.keep_quotes {
                        text.push('"');
                    }
                    return Ok(text);
                }
                '$' => text.push_str(&self.dollar()?),
                _ if letter == self.expander.escape => {
                    self.next();
                    if self.keep_escapes {
                        text.push(letter);
                    }
                    match self.peek() {
                        None => {}
                        Some(escaped) if matches!(escaped, '"' | '$') || escaped == letter => {
                            self.next();
                            text.push(escaped);
                        }
                        // Before anything else an escape is a character like any other.
                        Some(_) => text.push(letter),
                    }
                }
                _ => {
                    self.next();
                    text.push(letter);
                }
            }
        }
        Err(ExpandErrorKind::UnmatchedQuote("double-quote"))
    }

    /// Reads a `$` and what belongs to it.
    fn dollar(&mut self) -> Result<String> {
        self.next();
        if self.peek() == Some('{') {
            if self.depth == MAX_DEPTH {
                return Err(ExpandErrorKind::TooDeep(MAX_DEPTH));
            }
            self.depth += 1;
            let value = self.braced();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.get(name)? {
            None if self.expander.keep_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    fn braced(&mut self) -> Result<String> {
        self.next();
        match self.peek() {
            None => return Err(ExpandErrorKind::Missing('}', "")),
            Some('{' | '}' | ':') => return Err(ExpandErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let Some(operator) = self.next() else {
            return Err(ExpandErrorKind::Missing('}', ""));
        };
        match operator {
            '}' => match self.get(name)? {
                None if self.expander.keep_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            ':' => {
                let operator = self.next().ok_or(ExpandErrorKind::Missing('}', ""))?;
                self.conditional(name, operator, true)
            }
            '+' | '-' | '?' => self.conditional(name, operator, false),
            '#' | '%' => self.trimmed(name, operator),
            '/' => self.replaced(name),
            other => Err(ExpandErrorKind::UnsupportedModifier(other.to_string())),
        }
    }

    /// `${name-word}` and its like; with a colon, an empty variable is as good as none.
    fn conditional(&mut self, name: &str, operator: char, colon: bool) -> Result<String> {
        let word = self.nested('}', false)?;
        let value = self.get(name)?;
        let modifier = match colon {
            true => format!(":{operator}"),
            false => operator.to_string(),
        };
        if self.expander.keep_unset && value.is_none() {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let wrong = match &value {
            None => Some("is not allowed to be unset"),
            Some(value) if colon && value.is_empty() => Some("is not allowed to be empty"),
            Some(_) => None,
        };
        match (operator, wrong) {
            ('-', Some(_)) | ('+', None) => Ok(word),
            ('+', Some(_)) => Ok(String::new()),
            ('?', Some(wrong)) => Err(ExpandErrorKind::Required {
                name: name.to_owned(),
                message: if word.is_empty() {
                    wrong.to_owned()
                } else {
                    word
                },
            }),
            ('-' | '?', None) => Ok(value.unwrap_or_default()),
            _ => Err(ExpandErrorKind::UnsupportedModifier(modifier)),
        }
    }

    /// `${name#pattern}`, `##`, `%`, `%%`.
    fn trimmed(&mut self, name: &str, operator: char) -> Result<String> {
        let word = self.nested('}', true)?;
        let value = self.get(name)?;
        if self.expander.keep_unset && value.is_none() {
            return Ok(format!("${{{name}{operator}{word}}}"));
        }
        let value = value.unwrap_or_default();
        let (longest, word) = match word.strip_prefix(operator) {
            Some(word) => (true, word),
            None => (false, word.as_str()),
        };
        let pattern = Pattern::parse(word)?;
        match operator {
            '#' => pattern.trim_prefix(&value, longest),
            _ => pattern.trim_suffix(&value, longest),
        }
    }

    /// `${name/pattern/replacement}`, `${name//pattern/replacement}`.
    fn replaced(&mut self, name: &str) -> Result<String> {
        let all = self.eat('/');
        let word = self.nested('/', true)?;
        let replacement = self.nested('}', true)?;
        let value = self.get(name)?;
        if self.expander.keep_unset && value.is_none() {
            let slashes = if all { "//" } else { "/" };
            return Ok(format!("${{{name}{slashes}{word}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let pattern = Pattern::parse(&word)?;
        let replaced = match all {
            true => pattern::replace_all(&pattern, &value, &replacement)?,
            false => pattern::replace_first(&pattern, &value, &replacement)?,
        };
        self.count(replaced.len())?;
        Ok(replaced)
    }

    /// Reads a name: digits, one special character, or letters, digits and underscores.
    fn name(&mut self) -> &'a str {
        let rest = self.rest;
        let length = match self.peek() {
            Some(first) if first.is_ascii_digit() => rest
                .find(|letter: char| !letter.is_ascii_digit())
                .unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest
                .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .unwrap_or(rest.len()),
        };
        self.rest = &rest[length..];
        &rest[..length]
    }

    fn get(&mut self, name: &str) -> Result<Option<String>> {
        let value = self.environment.get(name).map(|value| value.into_owned());
        let seen = match value {
            Some(_) => &mut self.found.matched,
            None => &mut self.found.unmatched,
        };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        self.count(value.as_ref().map_or(0, String::len))?;
        Ok(value)
    }

    fn count(&mut self, bytes: usize) -> Result<()> {
        self.inserted += bytes;
        if self.inserted > MAX_BYTES {
            return Err(ExpandErrorKind::TooLong(MAX_BYTES));
        }
        Ok(())
    }
}
