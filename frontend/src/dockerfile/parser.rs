//! The parser's loop: line after line to instructions, then instructions to stages.

use arcstr::ArcStr;

use super::ast::{
    Arg, Comment, Directives, Dockerfile, From, Heredoc, Instruction, Kind, Onbuild, Stage, Word,
};
use super::instruction::{Builder, Descriptions, NAMES, Reported};
use super::json::{self, Form};
use super::lines::{LineCounter, Lines, Logical, Physical};
use super::lint::check;
use super::span::{LineRange, Span};
use super::split::{self, Split};
use super::{Parsed, directive, heredoc, suggest};
use crate::diagnostic::{Diagnostic, Severity};

/// Nobody writes more; spans would not hold much more.
const MAX_BYTES: usize = 64 << 20;

/// One instruction of the file, before it finds its stage.
enum Item {
    From(Instruction<From>),
    Other(Instruction),
    /// It was wrong, as reported.
    Broken {
        from: bool,
    },
}

/// What a text says beside its instructions.
struct Flat {
    directives: Directives,
    diagnostics: Vec<Diagnostic>,
}

struct Parser<'a> {
    text: &'a ArcStr,
    lines: Lines<'a>,
    counter: LineCounter<'a>,
    comments: Vec<Comment>,
    diagnostics: Vec<Diagnostic>,
    /// Whether an unknown instruction had a heredoc without end.
    looked_in_vain: bool,
}

/// An instruction's parts before it is built.
struct Draft {
    line: Logical,
    split: Split,
    heredocs: Vec<Heredoc>,
    comments: Box<[Comment]>,
    span: Span,
    lines: LineRange,
    escape: char,
}

pub(super) fn parse(text: &ArcStr) -> Parsed {
    let mut groups = Groups::new();
    let flat = flat(text, &mut |item, diagnostics| groups.add(item, diagnostics));
    let Groups {
        global_args,
        stages,
        empty,
        ..
    } = groups;
    let mut diagnostics = flat.diagnostics;
    let failed = diagnostics.iter().any(Diagnostic::is_error);
    if !failed && stages.is_empty() {
        let message = match empty {
            true => "file with no instructions",
            false => "dockerfile contains no stages to build",
        };
        diagnostics.push(Diagnostic::error("no-stages", Span::default(), message));
    }
    for arg in &global_args {
        check::arg_names(&arg.kind, &mut diagnostics);
    }
    check::stages(&stages, &mut diagnostics);
    diagnostics.sort_by_key(|diagnostic| diagnostic.span);
    Parsed {
        dockerfile: Dockerfile {
            directives: flat.directives,
            global_args,
            stages,
        },
        diagnostics,
    }
}

pub(super) fn trigger(text: &str) -> Result<Instruction, Vec<Diagnostic>> {
    let mut items = Vec::new();
    let flat = flat(&ArcStr::from(text), &mut |item, _| items.push(item));
    if flat.diagnostics.iter().any(Diagnostic::is_error) {
        return Err(flat.diagnostics);
    }
    let whole = Span::new(0, text.len().min(MAX_BYTES) as u32);
    let fail = |code, span, message| Err(vec![Diagnostic::error(code, span, message)]);
    let Ok([item]) = <[Item; 1]>::try_from(items) else {
        let message = "onbuild trigger should be a single expression".to_owned();
        return fail("trigger-count", whole, message);
    };
    match item {
        Item::Other(instruction) => match forbidden_trigger(instruction.kind.name()) {
            Some(message) => fail("forbidden-trigger", instruction.keyword.span, message),
            None => Ok(instruction),
        },
        Item::From(_) | Item::Broken { .. } => fail("forbidden-trigger", whole, refused("FROM")),
    }
}

fn refused(name: &str) -> String {
    format!("{name} isn't allowed as an ONBUILD trigger")
}

/// Says why an instruction of that name cannot follow ONBUILD.
fn forbidden_trigger(name: &str) -> Option<String> {
    match name {
        "ONBUILD" => Some("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        "FROM" | "MAINTAINER" => Some(refused(name)),
        _ => None,
    }
}

/// Reads all instructions in a row, and hands each on.
fn flat(text: &ArcStr, each: &mut dyn FnMut(Item, &mut Vec<Diagnostic>)) -> Flat {
    let mut reader = directive::Reader::new();
    if text.len() > MAX_BYTES {
        let message = format!("the file is larger than {MAX_BYTES} bytes");
        return Flat {
            directives: reader.directives,
            diagnostics: vec![Diagnostic::error("too-large", Span::default(), message)],
        };
    }
    let start = if text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    };
    let mut parser = Parser {
        text,
        lines: Lines::new(text, start),
        counter: LineCounter::new(text),
        comments: Vec::new(),
        diagnostics: Vec::new(),
        looked_in_vain: false,
    };
    while let Some(line) = parser.lines.next() {
        let is_directive = reader.line(line, &mut parser.diagnostics);
        if line.is_comment() {
            parser.comment(line, is_directive);
        } else if line.is_blank() {
            parser.comments.clear();
        } else {
            let item = parser.instruction(line, reader.directives.escape);
            each(item, &mut parser.diagnostics);
        }
    }
    reader.directives.syntax = directive::syntax(text, start);
    Flat {
        directives: reader.directives,
        diagnostics: parser.diagnostics,
    }
}

impl<'a> Parser<'a> {
    /// Keeps a comment for the instruction below; an empty one separates.
    fn comment(&mut self, line: Physical<'_>, is_directive: bool) {
        let comment = line.text.trim();
        let text = comment.trim_start_matches('#').trim();
        if is_directive || text.is_empty() {
            self.comments.clear();
            return;
        }
        let start = line.start + (line.text.len() - line.text.trim_start().len());
        self.comments.push(Comment {
            text: self
                .text
                .substr_from(comment.strip_prefix('#').unwrap_or(comment).trim()),
            span: Span::new(start as u32, (start + comment.len()) as u32),
        });
    }

    /// Reads the instruction that `first` begins.
    fn instruction(&mut self, first: Physical<'a>, escape: char) -> Item {
        let line = Logical::read(first, &mut self.lines, escape).share(self.text);
        let comments = self.comments.drain(..).collect();
        if let Some(span) = line.empty_line {
            self.diagnostics.push(check::empty_continuation(span));
        }
        if line.text.trim().is_empty() {
            let message = "a continuation without an instruction";
            let error = Diagnostic::error("unknown-instruction", first.span(), message);
            self.diagnostics.push(error);
            return Item::Broken { from: false };
        }
        let split = split::split(&line, 0..line.text.len());
        let name = instruction_name(&split.keyword.text);
        let Some(name) = name else {
            return self.unknown(&line, &split);
        };
        let heredocs = match self.heredocs(&line, &split, name) {
            Ok(heredocs) => heredocs,
            Err(Reported) => return Item::Broken { from: false },
        };
        let end = match heredocs.is_empty() {
            true => line.end,
            false => self.text[..self.lines.offset()]
                .trim_end_matches(['\r', '\n'])
                .len(),
        };
        let known = self.diagnostics.len();
        let span = Span::new(split.keyword.span.start, end as u32);
        let draft = Draft {
            span,
            lines: self.counter.lines(span),
            line,
            split,
            heredocs,
            comments,
            escape,
        };
        let item = self.item(name, draft);
        if self.diagnostics[known..].iter().any(Diagnostic::is_error) {
            return Item::Broken {
                from: name == "FROM",
            };
        }
        item
    }

    /// Reports an unknown instruction. Heredocs below it are most likely its own.
    fn unknown(&mut self, line: &Logical, split: &Split) -> Item {
        let error = unknown_instruction(&split.keyword);
        self.diagnostics.push(error);
        let here = self.lines.offset();
        // Looking for an end that is not there reads the whole file: once is enough.
        if !self.looked_in_vain && heredoc::read(line, &mut self.lines, self.text).is_err() {
            self.lines = Lines::new(self.text, here);
            self.looked_in_vain = true;
        }
        Item::Broken {
            from: closest_name(&split.keyword.text) == Some("FROM"),
        }
    }

    fn heredocs(
        &mut self,
        line: &Logical,
        split: &Split,
        name: &str,
    ) -> Result<Vec<Heredoc>, Reported> {
        if !takes_heredocs(line, split, name) {
            return Ok(Vec::new());
        }
        heredoc::read(line, &mut self.lines, self.text).map_err(|marker| {
            let error =
                Diagnostic::error("unterminated-heredoc", marker.span, "unterminated heredoc");
            self.diagnostics.push(error);
            Reported
        })
    }

    fn item(&mut self, name: &'static str, mut draft: Draft) -> Item {
        match name {
            "FROM" => match self.build(&mut draft).from() {
                Ok(kind) => Item::From(Self::finished(draft, kind)),
                Err(Reported) => Item::Broken { from: true },
            },
            _ => {
                let kind = match name {
                    "ONBUILD" => self.onbuild(&mut draft).map(Kind::Onbuild),
                    _ => self.build(&mut draft).kind(name),
                };
                match kind {
                    Ok(kind) => Item::Other(Self::finished(draft, kind)),
                    Err(Reported) => Item::Broken { from: false },
                }
            }
        }
    }

    fn build<'b>(&'b mut self, draft: &'b mut Draft) -> Builder<'b> {
        Builder {
            line: &draft.line,
            split: &draft.split,
            heredocs: &mut draft.heredocs,
            comments: &draft.comments,
            escape: draft.escape,
            diagnostics: &mut self.diagnostics,
        }
    }

    fn finished<K>(draft: Draft, kind: K) -> Instruction<K> {
        Instruction {
            kind,
            keyword: draft.split.keyword,
            text: draft.line.text.substr_using(str::trim),
            span: draft.span,
            lines: draft.lines,
            comments: draft.comments,
        }
    }

    fn onbuild(&mut self, draft: &mut Draft) -> Result<Onbuild, Reported> {
        self.build(draft).flags(&[]);
        let (line, outer) = (&draft.line, &draft.split);
        if outer.rest.is_empty() {
            let message = "ONBUILD requires at least one argument";
            let error = Diagnostic::error("argument-count", outer.keyword.span, message)
                .with_help("as in `ONBUILD COPY . /src`");
            self.diagnostics.push(error);
            return Err(Reported);
        }
        let split = split::split(line, outer.rest.clone());
        let upper = split.keyword.text.to_ascii_uppercase();
        if let Some(message) = forbidden_trigger(&upper) {
            let error = Diagnostic::error("forbidden-trigger", split.keyword.span, message);
            self.diagnostics.push(error);
            return Err(Reported);
        }
        let keyword_end = line.text.len() - line.text.trim_start().len() + outer.keyword.text.len();
        let mut trigger = line.text[keyword_end..].trim_start().to_owned();
        for heredoc in &draft.heredocs {
            trigger.push('\n');
            trigger.push_str(&heredoc.body);
            trigger.push_str(&heredoc.name);
        }
        let mut findings = Vec::new();
        let kind = match instruction_name(&split.keyword.text) {
            Some(name) => Builder {
                line,
                split: &split,
                heredocs: &mut draft.heredocs,
                comments: &[],
                escape: draft.escape,
                diagnostics: &mut findings,
            }
            .kind(name)
            .ok(),
            None => {
                findings.push(unknown_instruction(&split.keyword));
                None
            }
        };
        let kind = kind.filter(|_| !findings.iter().any(Diagnostic::is_error));
        self.diagnostics.extend(findings.into_iter().map(delayed));
        let span = Span::new(split.keyword.span.start, draft.span.end);
        let lines = self.counter.lines(span);
        let instruction = kind.map(|kind| {
            Box::new(Instruction {
                kind,
                text: line.text.substr(outer.rest.clone()),
                span,
                lines,
                keyword: split.keyword,
                comments: Box::default(),
            })
        });
        Ok(Onbuild {
            trigger,
            instruction,
        })
    }
}

/// Makes an error of a trigger a warning, unless the text itself cannot be read: a trigger is
/// stored as it is, and fails only in the builds that use the image.
fn delayed(mut diagnostic: Diagnostic) -> Diagnostic {
    let unreadable = ["json-not-strings", "missing-equals", "missing-pair"];
    if diagnostic.is_error() && !unreadable.contains(&diagnostic.code) {
        diagnostic.severity = Severity::Warning;
        diagnostic.help = Some("this trigger will fail in builds from this image".to_owned());
    }
    diagnostic
}

fn instruction_name(keyword: &str) -> Option<&'static str> {
    let mut names = NAMES.into_iter();
    names.find(|name| name.eq_ignore_ascii_case(keyword))
}

fn closest_name(keyword: &str) -> Option<&'static str> {
    suggest::closest(&keyword.to_uppercase(), NAMES)
}

fn unknown_instruction(keyword: &Word) -> Diagnostic {
    let mut message = format!("unknown instruction: {}", keyword.text);
    if let Some(close) = closest_name(&keyword.text) {
        let is_lower = keyword.text.to_lowercase() == keyword.text;
        let close = match is_lower {
            true => close.to_lowercase(),
            false => close.to_owned(),
        };
        message.push_str(&format!(" (did you mean {close}?)"));
    }
    Diagnostic::error("unknown-instruction", keyword.span, message)
}

/// Says whether heredocs may follow: in RUN, COPY and ADD, unless in JSON form.
fn takes_heredocs(line: &Logical, split: &Split, name: &str) -> bool {
    match name {
        "RUN" | "COPY" | "ADD" => {
            line.text.contains("<<")
                && !matches!(json::form(line, split.rest.clone()), Form::Strings(_))
        }
        "ONBUILD" if !split.rest.is_empty() => {
            let inner = split::split(line, split.rest.clone());
            instruction_name(&inner.keyword.text)
                .is_some_and(|name| name != "ONBUILD" && takes_heredocs(line, &inner, name))
        }
        _ => false,
    }
}

/// Where an instruction goes.
enum Place {
    /// No FROM yet.
    Top,
    /// Into the last stage.
    Stage,
    /// Nowhere: its FROM is broken, or it was reported.
    Nowhere,
}

/// The instructions as they find their stages.
struct Groups {
    global_args: Vec<Instruction<Arg>>,
    stages: Vec<Stage>,
    place: Place,
    /// There was no instruction at all.
    empty: bool,
}

impl Groups {
    fn new() -> Self {
        Groups {
            global_args: Vec::new(),
            stages: Vec::new(),
            place: Place::Top,
            empty: true,
        }
    }

    fn add(&mut self, item: Item, diagnostics: &mut Vec<Diagnostic>) {
        self.empty = false;
        match (item, &self.place) {
            (Item::From(from), _) => {
                self.stages.push(stage(from, diagnostics));
                self.place = Place::Stage;
            }
            (Item::Broken { from: true }, _) => self.place = Place::Nowhere,
            (Item::Broken { from: false }, _) | (Item::Other(_), Place::Nowhere) => {}
            (Item::Other(instruction), Place::Stage) => {
                if let Kind::Arg(arg) = &instruction.kind {
                    arg_description(arg, &instruction.comments, diagnostics);
                }
                if let Some(stage) = self.stages.last_mut() {
                    stage.instructions.push(instruction);
                }
            }
            (Item::Other(instruction), Place::Top) => match global(instruction) {
                Ok(arg) => {
                    arg_description(&arg.kind, &arg.comments, diagnostics);
                    self.global_args.push(arg);
                }
                Err(instruction) => {
                    let message = "no build stage in current context";
                    diagnostics.push(
                        Diagnostic::error("no-stage", instruction.keyword.span, message)
                            .with_help("only ARG may stand before the first FROM"),
                    );
                    self.place = Place::Nowhere;
                }
            },
        }
    }
}

/// Narrows an ARG; gives anything else back.
fn global(instruction: Instruction) -> Result<Instruction<Arg>, Box<Instruction>> {
    match instruction.kind {
        Kind::Arg(kind) => Ok(Instruction {
            kind,
            keyword: instruction.keyword,
            text: instruction.text,
            span: instruction.span,
            lines: instruction.lines,
            comments: instruction.comments,
        }),
        _ => Err(Box::new(instruction)),
    }
}

fn stage(from: Instruction<From>, diagnostics: &mut Vec<Diagnostic>) -> Stage {
    let mut description = None;
    if let Some(name) = &from.kind.name {
        let lower = name.text.to_lowercase();
        description = Descriptions::new(&from.comments).get(&lower);
        let warning = check::description("FROM", &[&lower], name.span, &from.comments);
        diagnostics.extend(warning);
    }
    Stage {
        from,
        instructions: Vec::new(),
        description,
    }
}

fn arg_description(arg: &Arg, comments: &[Comment], diagnostics: &mut Vec<Diagnostic>) {
    // Most arguments have no comment.
    let (Some(first), false) = (arg.declarations.first(), comments.is_empty()) else {
        return;
    };
    let names = arg.declarations.iter().map(|one| one.name.text.as_str());
    let names: Vec<&str> = names.collect();
    let warning = check::description("ARG", &names, first.name.span, comments);
    diagnostics.extend(warning);
}
