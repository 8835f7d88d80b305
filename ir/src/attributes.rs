//! Fields of ops as `key=value` attributes: one table for both ways, so that they cannot drift.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::op::*;
use crate::syntax::{Fault, Item, Kind, ParseProblem, quote, quote_path};
use crate::{Config, Healthcheck, History, ImageConfig, Platform};

/// Writes one line.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    text: String,
    /// What the node's inputs are called.
    names: Vec<String>,
    /// Indices of inputs in the order of their first use.
    used: Vec<usize>,
    is_used: Vec<bool>,
    /// The next item follows without a blank.
    glued: bool,
    list_inputs: bool,
    /// How many blocks are open.
    level: usize,
    /// The level at which each attribute has a line of its own.
    broken: Option<usize>,
}

impl Writer {
    pub(crate) fn new(names: Vec<String>) -> Self {
        let is_used = vec![false; names.len()];
        let (text, used) = (String::new(), Vec::new());
        Self {
            text,
            names,
            used,
            is_used,
            glued: true,
            list_inputs: false,
            level: 0,
            broken: None,
        }
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }

    pub(crate) fn into_names(self) -> Vec<String> {
        self.names
    }

    pub(crate) fn used(&self) -> &[usize] {
        &self.used
    }

    /// Makes [`Writer::write_inputs`] write something.
    pub(crate) fn list_all_inputs(&mut self) {
        self.list_inputs = true;
    }

    pub(crate) fn write_inputs(&mut self) {
        if self.list_inputs {
            let list = format!("inputs=[{}]", self.names.join(", "));
            self.word(&list);
        }
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.glued) {
            self.text.push(' ');
        }
    }

    /// Writes syntax as it is.
    pub(crate) fn word(&mut self, word: &str) {
        self.separate();
        self.text.push_str(word);
    }

    pub(crate) fn words(&mut self, words: &[&str]) {
        words.iter().for_each(|word| self.word(word));
    }

    /// Writes a text, in quotes if it has to be.
    pub(crate) fn string(&mut self, text: &str) {
        self.word(&quote(text));
    }

    pub(crate) fn strings(&mut self, texts: &[String]) {
        // Arguments and paths read best if all of a list is in quotes.
        self.word("[");
        for (index, text) in texts.iter().enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            self.glued = true;
            self.always_quoted(text);
        }
        self.text.push(']');
    }

    fn always_quoted(&mut self, text: &str) {
        let word = quote(text);
        match word.starts_with('"') {
            true => self.word(&word),
            false => self.word(&format!("\"{word}\"")),
        }
    }

    /// Begins a line of its own where attributes have them.
    fn begin_attribute(&mut self) {
        if self.broken == Some(self.level) {
            self.text.push('\n');
            self.text.push_str(&"  ".repeat(self.level));
            self.glued = true;
        }
    }

    pub(crate) fn attribute(&mut self, key: &str, write: impl FnOnce(&mut Self)) {
        self.begin_attribute();
        self.word(key);
        self.text.push('=');
        self.glued = true;
        write(self);
    }

    /// Writes the key of a map, to be followed by its value.
    pub(crate) fn string_key(&mut self, key: &str) {
        self.string(key);
        self.text.push('=');
        self.glued = true;
    }

    /// Writes an attribute unless it has its default.
    pub(crate) fn field<T: Value>(&mut self, key: &str, value: &T) {
        if !value.is_default() {
            value.write_field(key, self);
        }
    }

    pub(crate) fn block(&mut self, write: impl FnOnce(&mut Self)) {
        self.word("{");
        let start = self.text.len();
        self.level += 1;
        write(self);
        self.level -= 1;
        self.text
            .push_str(if self.text.len() == start { "}" } else { " }" });
    }

    /// Writes a block with a line for each attribute.
    pub(crate) fn broken_block(&mut self, write: impl FnOnce(&mut Self)) {
        self.word("{");
        self.level += 1;
        self.broken = Some(self.level);
        write(self);
        self.broken = None;
        self.level -= 1;
        self.text.push_str("\n}");
    }

    pub(crate) fn statements<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.block(|line| {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    line.text.push(';');
                }
                write(line, item);
            }
        });
    }

    /// Writes an input of the node, or `scratch`, with a path in it.
    pub(crate) fn tree(&mut self, input: Option<u32>, path: &str) {
        let name = match input {
            None => "scratch".to_owned(),
            Some(index) => {
                let index = index as usize;
                if !std::mem::replace(&mut self.is_used[index], true) {
                    self.used.push(index);
                }
                self.names[index].clone()
            }
        };
        self.named_tree(&name, path);
    }

    pub(crate) fn action_input(&mut self, input: ActionInput, path: &str) {
        match input {
            ActionInput::Scratch => self.tree(None, path),
            ActionInput::Input(index) => self.tree(Some(index), path),
            ActionInput::Action(number) => self.named_tree(&format!("@{number}"), path),
        }
    }

    fn named_tree(&mut self, name: &str, path: &str) {
        match path {
            "" => self.word(name),
            path => self.word(&format!("{name}:{}", quote_path(path))),
        }
    }
}

/// What the references of one statement mean.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    indices: BTreeMap<(String, u32), u32>,
    /// In order, with the place of the first use.
    pub(crate) list: Vec<(String, u32, Range<usize>)>,
}

impl Inputs {
    /// Adds a reference unless it is there; returns whether it was not.
    pub(crate) fn add(&mut self, label: &str, output: u32, span: &Range<usize>) -> bool {
        let index = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let key = (label.to_owned(), output);
        if self.indices.contains_key(&key) {
            return false;
        }
        self.indices.insert(key, index);
        self.list.push((label.to_owned(), output, span.clone()));
        true
    }

    pub(crate) fn get(&self, label: &str, output: u32) -> Option<u32> {
        self.indices.get(&(label.to_owned(), output)).copied()
    }

    fn index(&self, label: &str, output: u32, span: &Range<usize>) -> Result<u32, Fault> {
        self.get(label, output).ok_or_else(|| {
            let suffix = if output == 0 {
                String::new()
            } else {
                format!(".{output}")
            };
            Fault::new(
                span,
                ParseProblem::UnlistedInput {
                    reference: format!("%{label}{suffix}"),
                },
            )
        })
    }
}

/// Reads one statement: first the items in order, then attributes by name.
pub(crate) struct Reader<'a> {
    items: &'a [Item],
    taken: Vec<bool>,
    next: usize,
    inputs: &'a Inputs,
    /// The whole statement.
    span: Range<usize>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        items: &'a [Item],
        inputs: &'a Inputs,
        span: Range<usize>,
    ) -> Result<Self, Fault> {
        let mut keys = BTreeSet::new();
        for item in items {
            if let Kind::Attribute { key, .. } = &item.kind
                && !keys.insert(key)
            {
                return Err(Fault::new(
                    &item.span,
                    ParseProblem::Duplicate { key: key.clone() },
                ));
            }
        }
        Ok(Self {
            items,
            taken: vec![false; items.len()],
            next: 0,
            inputs,
            span,
        })
    }

    /// Returns the next item in order, if it is no attribute.
    pub(crate) fn peek(&self) -> Option<&'a Item> {
        self.items
            .get(self.next)
            .filter(|item| !matches!(item.kind, Kind::Attribute { .. }))
    }

    fn advance(&mut self) {
        self.taken[self.next] = true;
        self.next += 1;
    }

    pub(crate) fn expected(&self, what: &str) -> Fault {
        let (span, found) = match self.items.get(self.next) {
            Some(item) => (item.span.clone(), item.describe()),
            None => (self.span.end..self.span.end, "the end".to_owned()),
        };
        Fault::new(
            &span,
            ParseProblem::Expected {
                expected: what.to_owned(),
                found,
            },
        )
    }

    /// Takes the next item if `accept` makes something of it.
    pub(crate) fn accept<T>(&mut self, accept: impl FnOnce(&'a Item) -> Option<T>) -> Option<T> {
        let value = accept(self.peek()?)?;
        self.advance();
        Some(value)
    }

    pub(crate) fn string(&mut self, what: &str) -> Result<String, Fault> {
        self.accept(|item| match &item.kind {
            Kind::Word { text, .. } => Some(text.clone()),
            _ => None,
        })
        .ok_or_else(|| self.expected(what))
    }

    pub(crate) fn arrow(&mut self) -> Result<(), Fault> {
        self.accept(|item| matches!(item.kind, Kind::Arrow).then_some(()))
            .ok_or_else(|| self.expected("`->`"))
    }

    /// Takes the next item if it is an input or `scratch`, with its path.
    pub(crate) fn tree(&mut self) -> Result<Option<(Option<u32>, String)>, Fault> {
        let inputs = self.inputs;
        let tree = self.accept(|item| match &item.kind {
            Kind::Scratch { path } => Some(Ok((None, path.clone()))),
            Kind::Node {
                label,
                output,
                path,
            } => Some(
                inputs
                    .index(label, *output, &item.span)
                    .map(|index| (Some(index), path.clone())),
            ),
            _ => None,
        });
        tree.transpose()
    }

    pub(crate) fn action_input(&mut self) -> Result<Option<(ActionInput, String)>, Fault> {
        let inputs = self.inputs;
        self.accept(|item| action_input(item, inputs)).transpose()
    }

    pub(crate) fn list(&mut self, what: &str) -> Result<Vec<String>, Fault> {
        let inputs = self.inputs;
        let list =
            self.accept(|item| matches!(item.kind, Kind::List(_)).then(|| Vec::read(item, inputs)));
        list.unwrap_or_else(|| Err(self.expected(what)))
    }

    /// Takes the block that is no attribute's value, if there is one.
    pub(crate) fn block_item(&mut self) -> Option<&'a Item> {
        let index = self
            .items
            .iter()
            .position(|item| matches!(item.kind, Kind::Block(_)))?;
        self.taken[index] = true;
        Some(&self.items[index])
    }

    /// Takes the statements of that block.
    pub(crate) fn block(&mut self) -> Option<&'a [Vec<Item>]> {
        match &self.block_item()?.kind {
            Kind::Block(statements) => Some(statements),
            _ => None,
        }
    }

    pub(crate) fn inputs(&self) -> &'a Inputs {
        self.inputs
    }

    /// Takes an attribute's value.
    pub(crate) fn attribute(&mut self, name: &str) -> Option<&'a Item> {
        let index = self.items.iter().position(|item| match &item.kind {
            Kind::Attribute { key, .. } => key == name,
            _ => false,
        })?;
        self.taken[index] = true;
        match &self.items[index].kind {
            Kind::Attribute { value, .. } => Some(value),
            _ => None,
        }
    }

    fn flag(&mut self, name: &str) -> bool {
        let index = self
            .items
            .iter()
            .zip(&self.taken)
            .position(|(item, taken)| match &item.kind {
                Kind::Word {
                    text,
                    quoted: false,
                } => !taken && text == name,
                _ => false,
            });
        if let Some(index) = index {
            self.taken[index] = true;
        }
        index.is_some()
    }

    pub(crate) fn field<T: Value>(&mut self, key: &str, value: &mut T) -> Result<(), Fault> {
        if T::IS_FLAG {
            if self.flag(key) {
                *value = T::read_flag();
            }
        } else if let Some(item) = self.attribute(key) {
            *value = T::read(item, self.inputs)?;
        }
        Ok(())
    }

    /// Errors on what nobody took.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        let Some(index) = self.taken.iter().position(|taken| !taken) else {
            return Ok(());
        };
        let item = &self.items[index];
        Err(Fault::new(
            &item.span,
            match &item.kind {
                Kind::Attribute { key, .. }
                | Kind::Word {
                    text: key,
                    quoted: false,
                } => ParseProblem::UnknownAttribute { key: key.clone() },
                _ => ParseProblem::Expected {
                    expected: "an attribute or the end".to_owned(),
                    found: item.describe(),
                },
            },
        ))
    }
}

/// Reads what an action reads, if that is what the item is.
pub(crate) fn action_input(
    item: &Item,
    inputs: &Inputs,
) -> Option<Result<(ActionInput, String), Fault>> {
    match &item.kind {
        Kind::Scratch { path } => Some(Ok((ActionInput::Scratch, path.clone()))),
        Kind::Action { number, path } => Some(Ok((ActionInput::Action(*number), path.clone()))),
        Kind::Node {
            label,
            output,
            path,
        } => {
            let index = inputs.index(label, *output, &item.span);
            Some(index.map(|index| (ActionInput::Input(index), path.clone())))
        }
        _ => None,
    }
}

/// What an attribute's value can be.
pub(crate) trait Value: Sized {
    /// It is there or not, without a value.
    const IS_FLAG: bool = false;
    /// It is written in braces.
    const IS_BLOCK: bool = false;

    fn is_default(&self) -> bool;
    fn write(&self, line: &mut Writer);
    fn read(item: &Item, inputs: &Inputs) -> Result<Self, Fault>;

    fn write_field(&self, key: &str, line: &mut Writer) {
        line.attribute(key, |line| self.write(line));
    }

    fn read_flag() -> Self {
        unreachable!("BUG: only a flag is read as one")
    }

    /// Writes an element of a list.
    fn write_element(&self, line: &mut Writer) {
        self.write(line);
    }
}

fn word(item: &Item) -> Result<&str, Fault> {
    match &item.kind {
        Kind::Word { text, .. } => Ok(text),
        Kind::Scratch { path } if path.is_empty() => Ok("scratch"),
        _ => {
            let problem = ParseProblem::Expected {
                expected: "a text".to_owned(),
                found: item.describe(),
            };
            Err(Fault::new(&item.span, problem))
        }
    }
}

impl Value for String {
    fn is_default(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, line: &mut Writer) {
        line.string(self);
    }

    fn write_element(&self, line: &mut Writer) {
        line.always_quoted(self);
    }

    fn read(item: &Item, _: &Inputs) -> Result<Self, Fault> {
        word(item).map(str::to_owned)
    }
}

impl Value for bool {
    const IS_FLAG: bool = true;

    fn is_default(&self) -> bool {
        !self
    }

    fn write(&self, _: &mut Writer) {}

    fn write_field(&self, key: &str, line: &mut Writer) {
        line.begin_attribute();
        line.word(key);
    }

    fn read(item: &Item, _: &Inputs) -> Result<Self, Fault> {
        let problem = ParseProblem::Expected {
            expected: "a flag without a value".to_owned(),
            found: item.describe(),
        };
        Err(Fault::new(&item.span, problem))
    }

    fn read_flag() -> Self {
        true
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            fn is_default(&self) -> bool {
                *self == 0
            }

            fn write(&self, line: &mut Writer) {
                line.word(&self.to_string());
            }

            fn read(item: &Item, _: &Inputs) -> Result<Self, Fault> {
                let text = word(item)?;
                text.parse().map_err(|_| {
                    let expected = concat!("number (", stringify!($number), ")");
                    Fault::new(&item.span, ParseProblem::Value { value: text.to_owned(), expected })
                })
            }
        }
    )*};
}

numbers!(i32, i64, u32, u64);

/// Permission bits.
struct Octal(u32);

impl Value for Octal {
    fn is_default(&self) -> bool {
        self.0 == 0
    }

    fn write(&self, line: &mut Writer) {
        line.word(&format!("{:04o}", self.0));
    }

    fn read(item: &Item, _: &Inputs) -> Result<Self, Fault> {
        let text = word(item)?;
        let octal = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if octal => Ok(Self(mode)),
            _ => {
                let expected = "octal number";
                Err(Fault::new(
                    &item.span,
                    ParseProblem::Value {
                        value: text.to_owned(),
                        expected,
                    },
                ))
            }
        }
    }
}

/// Numbers that are written in octal.
trait Mode: Sized {
    type Written: Value;
    fn to_written(&self) -> Self::Written;
    fn from_written(written: Self::Written) -> Self;
}

impl Mode for u32 {
    type Written = Octal;

    fn to_written(&self) -> Octal {
        Octal(*self)
    }

    fn from_written(written: Octal) -> Self {
        written.0
    }
}

impl Mode for Option<u32> {
    type Written = Option<Octal>;

    fn to_written(&self) -> Option<Octal> {
        self.map(Octal)
    }

    fn from_written(written: Option<Octal>) -> Self {
        written.map(|octal| octal.0)
    }
}

impl<T: Value> Value for Option<T> {
    fn is_default(&self) -> bool {
        self.is_none()
    }

    fn write(&self, line: &mut Writer) {
        if let Some(value) = self {
            value.write(line);
        }
    }

    fn read(item: &Item, inputs: &Inputs) -> Result<Self, Fault> {
        T::read(item, inputs).map(Some)
    }
}

impl<T: Value> Value for Vec<T> {
    fn is_default(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, line: &mut Writer) {
        let indent = line
            .broken
            .filter(|_| T::IS_BLOCK)
            .map(|level| "  ".repeat(level));
        line.word("[");
        for (index, value) in self.iter().enumerate() {
            match &indent {
                Some(indent) => line.text.push_str(&format!("\n{indent}  ")),
                None if index > 0 => line.text.push_str(", "),
                None => {}
            }
            line.glued = true;
            value.write_element(line);
            if indent.is_some() {
                line.text.push(',');
            }
        }
        if let Some(indent) = indent {
            line.text.push_str(&format!("\n{indent}"));
        }
        line.text.push(']');
    }

    fn read(item: &Item, inputs: &Inputs) -> Result<Self, Fault> {
        match &item.kind {
            Kind::List(items) => items.iter().map(|item| T::read(item, inputs)).collect(),
            _ => {
                let problem = ParseProblem::Expected {
                    expected: "a list".to_owned(),
                    found: item.describe(),
                };
                Err(Fault::new(&item.span, problem))
            }
        }
    }
}

/// Returns what is in a block that has no more than one statement.
pub(crate) fn record(item: &Item) -> Result<&[Item], Fault> {
    match &item.kind {
        Kind::Block(statements) => match statements.as_slice() {
            [] => Ok(&[]),
            [statement] => Ok(statement),
            _ => Err(Fault::new(
                &item.span,
                unexpected("attributes without `;`", item),
            )),
        },
        _ => Err(Fault::new(&item.span, unexpected("a block", item))),
    }
}

fn unexpected(expected: &str, item: &Item) -> ParseProblem {
    ParseProblem::Expected {
        expected: expected.to_owned(),
        found: item.describe(),
    }
}

/// Returns keys and values of a block that has nothing else, each key once.
pub(crate) fn entries(item: &Item) -> Result<Vec<(&str, &Item)>, Fault> {
    let mut seen = BTreeSet::new();
    let entries = record(item)?.iter().map(|item| match &item.kind {
        Kind::Attribute { key, .. } if !seen.insert(key) => Err(Fault::new(
            &item.span,
            ParseProblem::Duplicate { key: key.clone() },
        )),
        Kind::Attribute { key, value } => Ok((key.as_str(), &**value)),
        _ => Err(Fault::new(&item.span, unexpected("`key=value`", item))),
    });
    entries.collect()
}

impl Value for BTreeMap<String, String> {
    fn is_default(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, line: &mut Writer) {
        line.block(|line| {
            for (key, value) in self {
                line.string_key(key);
                line.string(value);
            }
        });
    }

    fn read(item: &Item, _: &Inputs) -> Result<Self, Fault> {
        let entries = entries(item)?.into_iter();
        entries
            .map(|(key, value)| Ok((key.to_owned(), word(value)?.to_owned())))
            .collect()
    }
}

/// A struct whose fields are attributes.
pub(crate) trait Attributes: Sized {
    fn write(&self, line: &mut Writer);
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault>;
}

impl<T: Attributes + Default + PartialEq> Value for T {
    const IS_BLOCK: bool = true;

    fn is_default(&self) -> bool {
        *self == T::default()
    }

    fn write(&self, line: &mut Writer) {
        line.block(|line| Attributes::write(self, line));
    }

    fn read(item: &Item, inputs: &Inputs) -> Result<Self, Fault> {
        let mut reader = Reader::new(record(item)?, inputs, item.span.clone())?;
        let mut value = T::default();
        Attributes::read(&mut value, &mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// Declares which field is which attribute; `octal` after one writes it so.
macro_rules! attributes {
    ($($type:ident { $($field:ident $(. $part:ident)* $key:literal $($octal:ident)?),* $(,)? })*) => {$(
        impl Attributes for $type {
            #[allow(unused_variables)]
            fn write(&self, line: &mut Writer) {
                $(attributes!(@write line, self.$field $(.$part)*, $key $(, $octal)?);)*
            }

            #[allow(unused_variables)]
            fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
                $(attributes!(@read reader, self.$field $(.$part)*, $key $(, $octal)?);)*
                Ok(())
            }
        }
    )*};
    (@write $line:ident, $field:expr, $key:literal) => { $line.field($key, &$field) };
    (@write $line:ident, $field:expr, $key:literal, octal) => { $line.field($key, &$field.to_written()) };
    (@read $reader:ident, $field:expr, $key:literal) => { $reader.field($key, &mut $field)? };
    (@read $reader:ident, $field:expr, $key:literal, octal) => {
        let mut written = $field.to_written();
        $reader.field($key, &mut written)?;
        $field = Mode::from_written(written);
    };
}

/// Declares the words of an enum; the first is the default.
macro_rules! words {
    ($($type:ident $what:literal { $($variant:ident $word:literal),* $(,)? })*) => {$(
        impl Value for $type {
            fn is_default(&self) -> bool {
                *self == Self::default()
            }

            fn write(&self, line: &mut Writer) {
                line.word(match self {
                    $(Self::$variant => $word,)*
                });
            }

            fn read(item: &Item, _: &Inputs) -> Result<Self, Fault> {
                match word(item)? {
                    $($word => Ok(Self::$variant),)*
                    other => Err(Fault::new(&item.span, ParseProblem::UnknownWord {
                        what: $what,
                        word: other.to_owned(),
                        known: [$($word),*].map(|word| format!("`{word}`")).join(", "),
                    })),
                }
            }
        }
    )*};
}

words! {
    ResolveMode "resolve mode" { Default "default", Pull "pull", Local "local" }
    RecordType "record type" { Regular "regular", Internal "internal", Frontend "frontend" }
    Differ "differ" { Default "default", None "none", Metadata "metadata" }
    CacheSharing "sharing mode" { Shared "shared", Private "private", Locked "locked" }
    ContentCache "content cache mode" { Default "default", On "on", Off "off" }
    NetworkMode "network mode" { Default "default", Host "host", None "none" }
    SecurityMode "security mode" { Sandbox "sandbox", Insecure "insecure" }
}

attributes! {
    ImageSource {
        resolve_mode "resolve", record_type "record", layer_limit "layers", checksum "checksum", attrs "attrs",
    }
    LocalSource {
        exclude "exclude", follow_paths "follow", session "session", unique "unique",
        shared_key_hint "shared-key-hint", differ "differ", metadata_transfer "metadata-transfer",
        metadata_transfer_exclude "metadata-transfer-exclude", attrs "attrs",
    }
    GitSource {
        reference "ref", subdir "subdir", full_url "url", keep_git_dir "keep-git-dir",
        skip_submodules "skip-submodules", checksum "checksum", mtime_from_commit "mtime-from-commit",
        fetch_by_commit "fetch-by-commit", auth_token_secret "auth-token-secret",
        auth_header_secret "auth-header-secret", known_ssh_hosts "known-ssh-hosts",
        mount_ssh_sock "mount-ssh-sock", attrs "attrs",
    }
    HttpSource {
        checksum "checksum", filename "filename", perm "mode" octal, uid "uid", gid "gid",
        auth_header_secret "auth-header-secret", headers "headers", attrs "attrs",
    }
    OciLayoutSource { session "session", store "store", layer_limit "layers", attrs "attrs" }
    BlobSource {
        oci_layout "oci-layout", session "session", store "store", filename "filename", perm "mode" octal,
        uid "uid", gid "gid", attrs "attrs",
    }
    ExecOp { network "network", security "security", secret_env "secret-env", devices "devices" }
    Meta {
        cwd "cwd", user "user", env "env", proxy "proxy", extra_hosts "hosts", hostname "hostname",
        ulimits "ulimits", cgroup_parent "cgroup-parent",
        remove_mount_stubs_recursive "remove-mount-stubs-recursive", valid_exit_codes "valid-exit-codes",
    }
    ProxyEnv { http "http", https "https", ftp "ftp", no "no", all "all" }
    HostIp { host "host", ip "ip" }
    Ulimit { name "name", soft "soft", hard "hard" }
    SecretEnv { id "id", name "name", optional "optional" }
    Device { name "name", optional "optional" }
    Mount { readonly "ro", output "out", content_cache "content-cache", result_id "result-id" }
    SecretOpt { id "id", uid "uid", gid "gid", mode "mode" octal, optional "optional" }
    CopyAction {
        mode "mode" octal, mode_str "chmod", follow_symlink "follow-symlink",
        dir_copy_contents "dir-contents", attempt_unpack "unpack", create_dest_path "create-dest",
        allow_wildcard "wildcard", allow_empty_wildcard "empty-wildcard", timestamp "timestamp",
        include_patterns "include", exclude_patterns "exclude",
        always_replace_existing_dest_paths "replace", required_paths "required",
    }
    MkdirAction { mode "mode" octal, make_parents "parents", timestamp "timestamp" }
    RmAction { allow_not_found "allow-missing", allow_wildcard "wildcard" }
    SymlinkAction { timestamp "timestamp" }
    PassthroughOp { id "id" }
    Platform {
        os "os", architecture "architecture", variant "variant", os_version "os-version",
        os_features "os-features",
    }
    ImageConfig {
        history "history", created "created", author "author", architecture "architecture", os "os",
        os_version "os-version", os_features "os-features", variant "variant", extra "extra",
    }
    Config {
        entrypoint "entrypoint", cmd "cmd", env "env", working_dir "cwd", user "user",
        exposed_ports "expose", volumes "volumes", labels "labels", stop_signal "stop-signal",
        shell "shell", healthcheck "healthcheck", on_build "on-build", args_escaped "args-escaped",
        extra "config-extra",
    }
    Healthcheck {
        test "test", interval_ns "interval-ns", timeout_ns "timeout-ns", start_period_ns "start-period-ns",
        start_interval_ns "start-interval-ns", retries "retries",
    }
    History {
        created_by "created-by", created "created", author "author", comment "comment",
        empty_layer "empty-layer",
    }
}

impl Attributes for MkfileAction {
    fn write(&self, line: &mut Writer) {
        line.field("mode", &self.mode.to_written());
        if !self.data.is_empty() {
            write_bytes(line, "data", &self.data);
        }
        line.field("timestamp", &self.timestamp);
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let mut mode = self.mode.to_written();
        reader.field("mode", &mut mode)?;
        self.mode = Mode::from_written(mode);
        self.data = read_bytes(reader, "data")?.unwrap_or_default();
        reader.field("timestamp", &mut self.timestamp)
    }
}

impl Attributes for BuildOp {
    fn write(&self, line: &mut Writer) {
        if let Some(definition) = &self.definition {
            write_bytes(line, "definition", definition);
        }
        line.field("attrs", &self.attrs);
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Fault> {
        self.definition = read_bytes(reader, "definition")?;
        reader.field("attrs", &mut self.attrs)
    }
}

/// Writes bytes as text where they are, else in base64.
fn write_bytes(line: &mut Writer, key: &str, bytes: &[u8]) {
    line.attribute(key, |line| match std::str::from_utf8(bytes) {
        Ok(text) => line.always_quoted(text),
        Err(_) => line.block(|line| line.field("base64", &crate::bytes::to_base64(bytes))),
    });
}

fn read_bytes(reader: &mut Reader<'_>, key: &str) -> Result<Option<Vec<u8>>, Fault> {
    let Some(item) = reader.attribute(key) else {
        return Ok(None);
    };
    if let Kind::Word { text, .. } = &item.kind {
        return Ok(Some(text.clone().into_bytes()));
    }
    let (mut coded, inputs) = (String::new(), reader.inputs());
    let mut record = Reader::new(record(item)?, inputs, item.span.clone())?;
    record.field("base64", &mut coded)?;
    record.finish()?;
    let bytes = crate::bytes::from_base64(&coded);
    let fault = || {
        Fault::new(
            &item.span,
            ParseProblem::Value {
                value: coded.clone(),
                expected: "base64",
            },
        )
    };
    bytes.ok_or_else(fault).map(Some)
}
