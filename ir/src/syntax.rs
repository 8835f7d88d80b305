//! The syntax of the text form below its meaning: words, references, lists, blocks, and errors.

use std::ops::Range;

use crate::{GraphError, PlanError};

/// How deeply lists and blocks may nest.
const DEPTH_LIMIT: usize = 16;

/// The most bytes that a text may take.
pub(crate) const TEXT_LIMIT: usize = 256 << 20;

/// Where and why a text is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct ParseError {
    /// The bytes at fault.
    pub span: Range<usize>,
    /// The line where they begin, from 1.
    pub line: usize,
    /// The character in that line, from 1.
    pub column: usize,
    /// What is wrong.
    #[source]
    pub problem: Box<ParseProblem>,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseProblem {
    /// A character begins nothing.
    #[error("unexpected `{}`; write texts with such characters in double quotes", .found.escape_debug())]
    Character {
        /// The character.
        found: char,
    },
    /// A quoted text does not end.
    #[error("text in double quotes does not end in its line")]
    UnclosedString,
    /// A backslash in a quoted text escapes nothing known.
    #[error("unknown escape `\\{}`; known are \\\" \\\\ \\n \\r \\t and \\u{{hex}}", .found.escape_debug())]
    Escape {
        /// What follows the backslash.
        found: char,
    },
    /// A list or block does not end.
    #[error("`{open}` is not closed")]
    Unclosed {
        /// The bracket.
        open: char,
    },
    /// Lists and blocks nest too deeply.
    #[error("lists and blocks nest deeper than {DEPTH_LIMIT}")]
    Depth,
    /// The text is too large.
    #[error("a text of {bytes} bytes is larger than the limit of {TEXT_LIMIT}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Something else should stand there.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What should.
        expected: String,
        /// What does.
        found: String,
    },
    /// A word is none of those that may stand there.
    #[error("`{word}` is no {what}; known are {known}")]
    UnknownWord {
        /// What the word should be.
        what: &'static str,
        /// The word.
        word: String,
        /// The words that it may be.
        known: String,
    },
    /// An attribute or flag is not one of this op.
    #[error("unknown `{key}`")]
    UnknownAttribute {
        /// The attribute.
        key: String,
    },
    /// An attribute is given twice.
    #[error("`{key}` is given twice")]
    Duplicate {
        /// The attribute.
        key: String,
    },
    /// A value is not of the attribute's type.
    #[error("`{value}` is no {expected}")]
    Value {
        /// The value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A reference is not in the node's own list of inputs.
    #[error("`{reference}` is not in the node's `inputs`")]
    UnlistedInput {
        /// The reference.
        reference: String,
    },
    /// Nodes do not make a graph.
    #[error(transparent)]
    Graph(GraphError),
    /// What stands beside the graph does not fit it.
    #[error(transparent)]
    Plan(PlanError),
}

/// A problem with its place in bytes; line and column are found when it leaves the parser.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) span: Range<usize>,
    pub(crate) problem: Box<ParseProblem>,
}

impl Fault {
    pub(crate) fn new(span: &Range<usize>, problem: ParseProblem) -> Self {
        Self {
            span: span.clone(),
            problem: Box::new(problem),
        }
    }

    pub(crate) fn locate(self, text: &str) -> ParseError {
        let before = &text[..self.span.start.min(text.len())];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        ParseError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span: self.span,
            problem: self.problem,
        }
    }
}

/// A part of a statement.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) span: Range<usize>,
    pub(crate) kind: Kind,
}

/// What a part is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Bare or in quotes.
    Word { text: String, quoted: bool },
    /// `scratch` or `scratch:path`.
    Scratch { path: String },
    /// `%label`, `%label.output`, and either with `:path`.
    Node {
        label: String,
        output: u32,
        path: String,
    },
    /// `@number`, perhaps with `:path`.
    Action { number: u32, path: String },
    /// `->`.
    Arrow,
    /// `=` by itself.
    Equals,
    /// `[a, b]`.
    List(Vec<Item>),
    /// `{ a; b }`.
    Block(Vec<Vec<Item>>),
    /// `key=value`.
    Attribute { key: String, value: Box<Item> },
}

impl Item {
    /// Names it for an error.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Word { text, .. } => format!("`{text}`"),
            Kind::Scratch { .. } => "`scratch`".to_owned(),
            Kind::Node { label, .. } => format!("`%{label}`"),
            Kind::Action { number, .. } => format!("`@{number}`"),
            Kind::Arrow => "`->`".to_owned(),
            Kind::Equals => "`=`".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Block(_) => "a block".to_owned(),
            Kind::Attribute { key, .. } => format!("`{key}=`"),
        }
    }
}

/// Returns whether a character may stand in a word without quotes.
fn is_bare(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_-./:+*?~!@".contains(character)
}

fn is_label(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

/// Writes a text as a word, in quotes if it has to be.
pub(crate) fn quote(text: &str) -> String {
    let word = !text.starts_with('@') && !text.starts_with("scratch:") && text != "scratch";
    if word { quote_path(text) } else { quoted(text) }
}

/// Writes the path of a reference, after its colon; nothing but characters can make it need quotes.
pub(crate) fn quote_path(text: &str) -> String {
    match !text.is_empty() && text.chars().all(is_bare) {
        true => text.to_owned(),
        false => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Invisible and direction-changing characters would let a plan read as another one.
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => {
                out.extend(character.escape_unicode());
            }
            character if character.is_control() => out.extend(character.escape_unicode()),
            character => out.push(character),
        }
    }
    out.push('"');
    out
}

/// Reads a text into statements, which end with their lines.
pub(crate) fn statements(text: &str) -> Result<Vec<Vec<Item>>, Fault> {
    if text.len() > TEXT_LIMIT {
        return Err(Fault::new(
            &(0..0),
            ParseProblem::TooLarge { bytes: text.len() },
        ));
    }
    let mut lexer = Lexer {
        text,
        at: 0,
        depth: 0,
    };
    let mut statements = Vec::new();
    while lexer.peek().is_some() {
        let statement = lexer.statement()?;
        if !statement.is_empty() {
            statements.push(statement);
        }
        match lexer.peek() {
            None => break,
            Some('\n') => lexer.at += 1,
            Some(found) => return Err(lexer.unexpected(found)),
        }
    }
    Ok(statements)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// How many brackets are open; a line's end counts only outside of them.
    depth: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn unexpected(&self, found: char) -> Fault {
        Fault::new(
            &(self.at..self.at + found.len_utf8()),
            ParseProblem::Character { found },
        )
    }

    fn skip_blank(&mut self) {
        while let Some(character) = self.peek() {
            match character {
                ' ' | '\t' | '\r' => self.at += 1,
                '\n' if self.depth > 0 => self.at += 1,
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    /// Reads items up to something that is none.
    fn statement(&mut self) -> Result<Vec<Item>, Fault> {
        let mut items = Vec::new();
        loop {
            self.skip_blank();
            match self.peek() {
                None | Some('\n' | ';' | '}' | ']' | ',') => return Ok(items),
                Some(_) => items.push(self.item()?),
            }
        }
    }

    fn item(&mut self) -> Result<Item, Fault> {
        let start = self.at;
        let mut kind = self.kind()?;
        if let Kind::Word { text, .. } = &mut kind
            && self.rest().starts_with('=')
        {
            self.at += 1;
            let key = std::mem::take(text);
            kind = Kind::Attribute {
                key,
                value: Box::new(self.value()?),
            };
        }
        Ok(Item {
            span: start..self.at,
            kind,
        })
    }

    /// Reads an item that is no attribute, at once.
    fn value(&mut self) -> Result<Item, Fault> {
        let start = self.at;
        match self.kind()? {
            Kind::Equals => Err(self.unexpected_at(start, '=')),
            kind => Ok(Item {
                span: start..self.at,
                kind,
            }),
        }
    }

    fn unexpected_at(&self, at: usize, found: char) -> Fault {
        Fault::new(
            &(at..at + found.len_utf8()),
            ParseProblem::Character { found },
        )
    }

    fn kind(&mut self) -> Result<Kind, Fault> {
        let start = self.at;
        let Some(first) = self.peek() else {
            let problem = ParseProblem::Expected {
                expected: "a value".into(),
                found: "the end of the text".into(),
            };
            return Err(Fault::new(&(start..start), problem));
        };
        if self.rest().starts_with("->") {
            self.at += 2;
            return Ok(Kind::Arrow);
        }
        match first {
            '"' => Ok(Kind::Word {
                text: self.string()?,
                quoted: true,
            }),
            '=' => {
                self.at += 1;
                Ok(Kind::Equals)
            }
            '[' => self.nested(first, Self::list),
            '{' => self.nested(first, Self::block),
            '%' => {
                self.at += 1;
                let label = self.take_while(is_label);
                if label.is_empty() {
                    return Err(self.unexpected_at(start, first));
                }
                let mut output = 0;
                if self.rest().starts_with('.') {
                    self.at += 1;
                    output = self.number("output number")?;
                }
                Ok(Kind::Node {
                    label,
                    output,
                    path: self.path()?,
                })
            }
            '@' => {
                self.at += 1;
                Ok(Kind::Action {
                    number: self.number("number of an action")?,
                    path: self.path()?,
                })
            }
            first if is_bare(first) => {
                let text = self.take_while(is_bare);
                Ok(match text.strip_prefix("scratch") {
                    Some("") => Kind::Scratch {
                        path: String::new(),
                    },
                    Some(":") if self.rest().starts_with('"') => Kind::Scratch {
                        path: self.string()?,
                    },
                    Some(rest) if rest.starts_with(':') => Kind::Scratch {
                        path: rest[1..].to_owned(),
                    },
                    _ => Kind::Word {
                        text,
                        quoted: false,
                    },
                })
            }
            found => Err(self.unexpected_at(start, found)),
        }
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> String {
        let rest = self.rest();
        let end = rest
            .find(|character| !accept(character))
            .unwrap_or(rest.len());
        let taken = rest[..end].to_owned();
        self.at += end;
        taken
    }

    fn number(&mut self, expected: &'static str) -> Result<u32, Fault> {
        let start = self.at;
        let digits = self.take_while(|character| character.is_ascii_digit());
        let value = digits.parse();
        value.map_err(|_| {
            Fault::new(
                &(start..self.at),
                ParseProblem::Value {
                    value: digits,
                    expected,
                },
            )
        })
    }

    /// Reads `:path` if there is one.
    fn path(&mut self) -> Result<String, Fault> {
        if !self.rest().starts_with(':') {
            return Ok(String::new());
        }
        self.at += 1;
        match self.peek() {
            Some('"') => self.string(),
            _ => Ok(self.take_while(is_bare)),
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(character) = self.peek().filter(|&character| character != '\n') else {
                return Err(Fault::new(&(start..self.at), ParseProblem::UnclosedString));
            };
            let at = self.at;
            self.at += character.len_utf8();
            match character {
                '"' => return Ok(text),
                '\\' => text.push(self.escape(at)?),
                character => text.push(character),
            }
        }
    }

    fn escape(&mut self, start: usize) -> Result<char, Fault> {
        let found = self.peek().unwrap_or('\n');
        let fault = |end| Fault::new(&(start..end), ParseProblem::Escape { found });
        if !matches!(found, '"' | '\\' | 'n' | 'r' | 't' | 'u') {
            return Err(fault(self.at));
        }
        self.at += 1;
        Ok(match found {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let digits = self
                    .rest()
                    .strip_prefix('{')
                    .and_then(|rest| rest.split_once('}'))
                    .map(|(hex, _)| hex);
                let digits = digits.filter(|hex| hex.len() <= 6).unwrap_or_default();
                let value = u32::from_str_radix(digits, 16)
                    .ok()
                    .and_then(char::from_u32);
                let length = digits.len() + 2;
                let value = value.ok_or_else(|| fault(self.at))?;
                self.at += length;
                value
            }
            literal => literal,
        })
    }

    fn nested(
        &mut self,
        open: char,
        read: impl FnOnce(&mut Self) -> Result<Kind, Fault>,
    ) -> Result<Kind, Fault> {
        let span = self.at..self.at + 1;
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return Err(Fault::new(&span, ParseProblem::Depth));
        }
        let kind = read(self)?;
        let close = if open == '[' { ']' } else { '}' };
        match self.peek() {
            Some(found) if found == close => self.at += 1,
            Some(found) => return Err(self.unexpected(found)),
            None => return Err(Fault::new(&span, ParseProblem::Unclosed { open })),
        }
        self.depth -= 1;
        Ok(kind)
    }

    fn list(&mut self) -> Result<Kind, Fault> {
        let mut items = Vec::new();
        loop {
            self.skip_blank();
            if matches!(self.peek(), None | Some(']')) {
                return Ok(Kind::List(items));
            }
            items.push(self.value()?);
            self.skip_blank();
            match self.peek() {
                Some(',') => self.at += 1,
                _ => return Ok(Kind::List(items)),
            }
        }
    }

    fn block(&mut self) -> Result<Kind, Fault> {
        let mut statements = Vec::new();
        loop {
            let statement = self.statement()?;
            if !statement.is_empty() {
                statements.push(statement);
            }
            match self.peek() {
                Some(';') => self.at += 1,
                _ => return Ok(Kind::Block(statements)),
            }
        }
    }
}
