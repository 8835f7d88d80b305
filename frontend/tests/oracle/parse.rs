//! What holds of every text that is parsed.

use kiln_frontend::dockerfile::ast::{Dockerfile, Heredoc, Instruction, Kind};
use kiln_frontend::dockerfile::{self, Parsed};
use serde_json::Value;

/// Parses, and checks what came out.
pub(crate) fn check(text: &str) {
    let parsed = dockerfile::parse(text);
    assert_eq!(parsed, dockerfile::parse(text), "parsing is no function");
    check_places(text, &parsed);
    if !parsed.has_errors() {
        check_printed(&parsed.dockerfile);
    }
}

fn check_places(text: &str, parsed: &Parsed) {
    for finding in &parsed.diagnostics {
        let spans = finding.labels.iter().map(|(span, _)| span);
        for span in spans.chain([&finding.span]) {
            check_span(text, span.start as usize, span.end as usize);
        }
    }
    let lines = text.matches('\n').count() as u64 + 1;
    walk(
        text,
        lines,
        &serde_json::to_value(&parsed.dockerfile).unwrap(),
    );
}

fn check_span(text: &str, start: usize, end: usize) {
    assert!(start <= end && end <= text.len(), "{start}..{end}");
    assert!(
        text.is_char_boundary(start) && text.is_char_boundary(end),
        "{start}..{end} cuts a character"
    );
}

/// Checks every span and every range of lines of a tree, and that words stand where they say.
fn walk(text: &str, lines: u64, tree: &Value) {
    match tree {
        Value::Array(items) => items.iter().for_each(|item| walk(text, lines, item)),
        Value::Object(members) => {
            let number = |name: &str| members.get(name).and_then(Value::as_u64);
            if let (Some(start), Some(end)) = (number("start"), number("end")) {
                check_span(text, start as usize, end as usize);
            }
            if let (Some(first), Some(last)) = (number("first"), number("last")) {
                assert!(
                    1 <= first && first <= last && last <= lines,
                    "{first}-{last}"
                );
            }
            if let (2, Some(Value::String(word)), Some(span)) =
                (members.len(), members.get("text"), members.get("span"))
            {
                let place = |name: &str| span[name].as_u64().unwrap() as usize;
                let source = &text[place("start")..place("end")];
                // Quotes, escapes and continuations are resolved in some words.
                if !source.contains(['\n', '\r', '\\', '`', '"', '\'']) {
                    assert!(
                        source.contains(word.as_str()),
                        "{word:?} is no part of {source:?}"
                    );
                }
            }
            members.values().for_each(|value| walk(text, lines, value));
        }
        _ => {}
    }
}

/// A tree printed and parsed again is the same tree, places apart.
fn check_printed(dockerfile: &Dockerfile) {
    // Blanks between two escapes at the end of a file are dropped, and the first one stays in the
    // text: printed, it would continue the line.
    let escape = dockerfile.directives.escape;
    if texts(dockerfile).any(|text| text.ends_with(escape)) {
        return;
    }
    let printed = print(dockerfile);
    let again = dockerfile::parse(&printed);
    assert!(!again.has_errors(), "{printed:?}: {:?}", again.diagnostics);
    let trees = [dockerfile, &again.dockerfile].map(|tree| {
        let mut stages = serde_json::to_value((&tree.global_args, &tree.stages)).unwrap();
        forget_places(&mut stages);
        stages
    });
    assert_eq!(trees[0], trees[1], "{printed:?}");
}

fn texts(dockerfile: &Dockerfile) -> impl Iterator<Item = &str> {
    let args = dockerfile.global_args.iter().map(|arg| &arg.text);
    let stages = dockerfile.stages.iter().flat_map(|stage| {
        let instructions = stage.instructions.iter();
        std::iter::once(&stage.from.text).chain(instructions.map(|instruction| &instruction.text))
    });
    args.chain(stages).map(|text| text.as_str())
}

fn print(dockerfile: &Dockerfile) -> String {
    let mut out = String::new();
    if dockerfile.directives.escape != '\\' {
        out.push_str("# escape=`\n");
    }
    for arg in &dockerfile.global_args {
        line(&mut out, &arg.text, &[]);
    }
    for stage in &dockerfile.stages {
        line(&mut out, &stage.from.text, &[]);
        for instruction in &stage.instructions {
            line(&mut out, &instruction.text, heredocs(instruction));
        }
    }
    out
}

fn line(out: &mut String, text: &str, heredocs: &[Heredoc]) {
    out.push_str(text);
    out.push('\n');
    for heredoc in heredocs {
        out.push_str(&heredoc.body);
        out.push_str(&heredoc.name);
        out.push('\n');
    }
}

fn heredocs(instruction: &Instruction) -> &[Heredoc] {
    match &instruction.kind {
        Kind::Run(run) => &run.heredocs,
        Kind::Copy(copy) => &copy.transfer.heredocs,
        Kind::Add(add) => &add.transfer.heredocs,
        Kind::Onbuild(onbuild) => match &onbuild.instruction {
            Some(instruction) => heredocs(instruction),
            None => &[],
        },
        _ => &[],
    }
}

fn forget_places(tree: &mut Value) {
    match tree {
        Value::Array(items) => items.iter_mut().for_each(forget_places),
        Value::Object(members) => {
            for place in ["span", "lines", "body_span", "comments", "description"] {
                members.remove(place);
            }
            members.values_mut().for_each(forget_places);
        }
        _ => {}
    }
}
