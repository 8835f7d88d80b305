//! A comparison as text: an op a paragraph, a field a line.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Comparison, FieldChange, OpAround, OpChange, OpName, ResultChange};
use crate::Pin;

/// A name that is longer is cut.
const NAME_LIMIT: usize = 80;
/// Of two long texts, so much of what they have in common is shown on either side.
const CONTEXT: usize = 16;
/// Of ops that one reads, or that read it, so many are named.
const NEIGHBOURS: usize = 6;
/// A text that is longer is shown by the part that differs.
const LONG: usize = 60;
/// Of what differs in one text, so much is shown.
const PART_LIMIT: usize = 200;
/// Of texts of several lines, so many lines that differ are shown.
const LINES: usize = 12;

pub(super) fn write(comparison: &Comparison) -> String {
    let mut text = String::new();
    for change in &comparison.ops {
        match change {
            OpChange::Added(around) => write_around(&mut text, '+', around),
            OpChange::Removed(around) => write_around(&mut text, '-', around),
            OpChange::Changed { new, fields, .. } => {
                let _ = writeln!(text, "~ {}", called(new));
                write_fields(&mut text, fields);
            }
        }
    }
    for change in &comparison.results {
        let called = |name: &str| match name {
            "" => "result".to_owned(),
            name => format!("result {}", one_line(name)),
        };
        match change {
            ResultChange::Added { name } => {
                let _ = writeln!(text, "+ {}", called(name));
            }
            ResultChange::Removed { name } => {
                let _ = writeln!(text, "- {}", called(name));
            }
            ResultChange::Changed { name, fields } => {
                let _ = writeln!(text, "~ {}", called(name));
                write_fields(&mut text, fields);
            }
        }
    }
    if !comparison.pins.is_empty() {
        text.push_str("pins\n");
    }
    for change in &comparison.pins {
        let (sign, pins) = match (&change.old, &change.new) {
            (None, Some(new)) => ('+', pin(new)),
            (Some(old), None) => ('-', pin(old)),
            (Some(old), Some(new)) => ('~', format!("{} -> {}", pin(old), one_line(new.value()))),
            (None, None) => continue,
        };
        let _ = writeln!(text, "    {sign} {}: {pins}", called(&change.op));
    }
    text
}

fn pin(pin: &Pin) -> String {
    format!("{} {}", pin.kind(), one_line(pin.value()))
}

fn write_around(text: &mut String, sign: char, around: &OpAround) {
    let _ = writeln!(text, "{sign} {}", called(&around.op));
    let list = |ops: &[OpName]| ops.iter().map(called).collect::<Vec<_>>();
    let results = around.results.iter().map(|name| match name.as_str() {
        "" => "the result".to_owned(),
        name => format!("result {}", one_line(name)),
    });
    let read_by = list(&around.read_by).into_iter().chain(results).collect();
    for (words, mut ops) in [("reads", list(&around.reads)), ("read by", read_by)] {
        let count: usize = ops.len();
        if count > NEIGHBOURS {
            ops.truncate(NEIGHBOURS);
            ops.push(format!("and {} more", count - NEIGHBOURS));
        }
        if count > 0 {
            let _ = writeln!(text, "    {words} {}", ops.join(", "));
        }
    }
}

fn called(op: &OpName) -> String {
    let stage = match op.stage.as_str() {
        "" => String::new(),
        stage => format!("[{}] ", one_line(stage)),
    };
    format!("%{} {stage}{}", op.number, clipped(&one_line(&op.name)))
}

fn clipped(name: &str) -> String {
    match name.char_indices().nth(NAME_LIMIT) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|character| match character.is_control() {
            true => ' ',
            false => character,
        })
        .collect()
}

fn write_fields(text: &mut String, fields: &[FieldChange]) {
    for change in fields {
        let field = one_line(&change.field);
        if let (Some(Value::String(old)), Some(Value::String(new))) = (&change.old, &change.new)
            && (old.contains('\n') || new.contains('\n'))
        {
            let _ = writeln!(text, "    {field}:");
            write_lines(text, old, new);
            continue;
        }
        let (old, new) = shortened(&value(&change.old), &value(&change.new));
        let _ = writeln!(text, "    {field}: {old} -> {new}");
    }
}

fn value(value: &Option<Value>) -> String {
    match value {
        None | Some(Value::Null) => "(none)".to_owned(),
        Some(value) => match spoken(value) {
            // What an op reads is no text.
            Value::String(text) if !value.is_string() => one_line(&text),
            value => one_line(&value.to_string()),
        },
    }
}

/// A value with texts for what stands for ops.
fn spoken(value: &Value) -> Value {
    match value {
        Value::Object(object) => match operation(object) {
            Some(words) => words.into(),
            None => {
                let parts = object.iter();
                let parts = parts.map(|(key, value)| (key.clone(), spoken(value)));
                Value::Object(parts.collect())
            }
        },
        Value::Array(list) => list.iter().map(spoken).collect(),
        value => value.clone(),
    }
}

fn operation(object: &Map<String, Value>) -> Option<String> {
    let (number, output) = (object.get("op")?.as_u64()?, object.get("output")?.as_u64()?);
    let name = object.get("name")?.as_str()?;
    let output = match output {
        0 => String::new(),
        output => format!(".{output}"),
    };
    Some(format!("%{number}{output} {}", clipped(&one_line(name))))
}

/// Leaves out of two long texts what they have in common far from where they differ.
fn shortened(old: &str, new: &str) -> (String, String) {
    let (one, two): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    if one.len() <= LONG && two.len() <= LONG {
        return (old.to_owned(), new.to_owned());
    }
    let start = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
    let end = one[start..]
        .iter()
        .rev()
        .zip(two[start..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (from, keep) = (start.saturating_sub(CONTEXT), end.saturating_sub(CONTEXT));
    let cut = |text: &[char]| {
        let to = text.len() - keep;
        let mut part: String = text[from..to].iter().take(PART_LIMIT).collect();
        if from > 0 {
            part.insert(0, '…');
        }
        if to < text.len() || to - from > PART_LIMIT {
            part.push('…');
        }
        part
    };
    (cut(&one), cut(&two))
}

/// Writes the lines of two texts that differ.
fn write_lines(text: &mut String, old: &str, new: &str) {
    let (one, two): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
    let end = one[start..]
        .iter()
        .rev()
        .zip(two[start..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let parts = [
        ('-', &one[start..one.len() - end]),
        ('+', &two[start..two.len() - end]),
    ];
    if parts.iter().all(|(_, lines)| lines.is_empty()) {
        text.push_str("      only the end of the last line differs\n");
    }
    for (sign, lines) in parts {
        for line in lines.iter().take(LINES) {
            let line: String = one_line(line).chars().take(PART_LIMIT).collect();
            let _ = writeln!(text, "      {sign} {line}");
        }
        if lines.len() > LINES {
            let _ = writeln!(text, "      {sign} and {} more lines", lines.len() - LINES);
        }
    }
}
