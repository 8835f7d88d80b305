//! The parser at its boundary: Dockerfiles in, trees and diagnostics out.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write;

use kiln_frontend::diagnostic::Diagnostic;
use kiln_frontend::dockerfile::ast::{Instruction, Kind};
use kiln_frontend::dockerfile::expand::Expander;
use kiln_frontend::dockerfile::span::{LineIndex, Span};
use kiln_frontend::dockerfile::{self, Parsed};
use proptest::prelude::*;

/// Each `cases/parse/*.Dockerfile` as its tree, an instruction a line, then what is wrong with it.
#[test]
#[expect(clippy::disallowed_methods, reason = "the cases are files")]
fn cases() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/parse");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() > 20, "the cases are gone: {names:?}");
    for name in names {
        let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
        let parsed = dockerfile::parse(&text);
        check_spans(&text, &parsed);
        let case = name.strip_suffix(".Dockerfile").unwrap();
        insta::assert_snapshot!(case, render(&text, &parsed));
    }
}

fn render(text: &str, parsed: &Parsed) -> String {
    let mut out = String::new();
    let dockerfile = &parsed.dockerfile;
    writeln!(out, "{:?}", dockerfile.directives).unwrap();
    for arg in &dockerfile.global_args {
        line(&mut out, arg);
    }
    for stage in &dockerfile.stages {
        writeln!(out, "stage {:?} {:?}", stage.name(), stage.description).unwrap();
        line(&mut out, &stage.from);
        for instruction in &stage.instructions {
            line(&mut out, instruction);
        }
    }
    for diagnostic in &parsed.diagnostics {
        describe(&mut out, text, diagnostic);
    }
    out
}

fn line<K: std::fmt::Debug>(out: &mut String, instruction: &Instruction<K>) {
    for comment in &instruction.comments {
        writeln!(out, "  # {}", comment.text).unwrap();
    }
    let Instruction {
        lines, text, kind, ..
    } = instruction;
    writeln!(out, "  {lines:?} {text:?}\n    {kind:?}").unwrap();
}

fn describe(out: &mut String, text: &str, diagnostic: &Diagnostic) {
    let index = LineIndex::new(text);
    let place = |span: Span| {
        let position = index.position(text, span.start);
        format!("{}:{} {:?}", position.line, position.column, span.of(text))
    };
    let Diagnostic {
        severity,
        code,
        message,
        ..
    } = diagnostic;
    let at = place(diagnostic.span);
    writeln!(out, "{severity:?} {code} at {at}\n  {message}").unwrap();
    for (span, label) in &diagnostic.labels {
        writeln!(out, "  {label} at {}", place(*span)).unwrap();
    }
    if let Some(help) = &diagnostic.help {
        writeln!(out, "  help: {help}").unwrap();
    }
}

/// Panics unless all spans lie in the text, on character boundaries.
fn check_spans(text: &str, parsed: &Parsed) {
    let check = |span: Span| {
        assert!(span.start <= span.end, "{span:?} runs backwards");
        assert!(
            text.get(span.start as usize..span.end as usize).is_some(),
            "{span:?} is not in the text"
        );
    };
    for diagnostic in &parsed.diagnostics {
        check(diagnostic.span);
        diagnostic.labels.iter().for_each(|(span, _)| check(*span));
    }
    // Whatever holds a span, in JSON it is an object with `start` and `end`.
    let json = serde_json::to_value(&parsed.dockerfile).unwrap();
    visit(&json, &check);
}

fn visit(value: &serde_json::Value, check: &dyn Fn(Span)) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let end = |name| fields.get(name).and_then(Value::as_u64);
            if let (Some(start), Some(end)) = (end("start"), end("end")) {
                check(Span {
                    start: start as u32,
                    end: end as u32,
                });
            }
            fields.values().for_each(|value| visit(value, check));
        }
        Value::Array(values) => values.iter().for_each(|value| visit(value, check)),
        _ => {}
    }
}

#[test]
fn bytes() {
    let (text, parsed) = dockerfile::parse_bytes(b"FROM a\nRUN \xff\nRUNN x\n");
    assert_eq!(text, "FROM a\nRUN \u{fffd}\nRUNN x\n");
    let codes: Vec<_> = parsed.diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, ["not-utf8", "unknown-instruction"]);
    assert_eq!(parsed.diagnostics[0].span.of(&text), "\u{fffd}");
    assert!(!dockerfile::parse_bytes(b"FROM a\n").1.has_errors());
}

/// What old editors left in comments does no harm.
#[test]
fn bytes_of_comments() {
    let check = |bytes: &[u8], expected: &[&str]| {
        let (text, parsed) = dockerfile::parse_bytes(bytes);
        check_spans(&text, &parsed);
        let found = parsed.diagnostics.iter();
        let found: Vec<_> = found.map(|found| found.message.as_str()).collect();
        assert_eq!(found, expected, "{text:?}");
    };
    check(b"# Jos\xe9\nFROM a\n", &[]);
    check(b"FROM a\n  # \xe9\xff\nRUN a \\\n# \xe9\n b\n", &[]);
    check(
        b"FROM a\nRUN b # \xe9\n",
        &["the file is not UTF-8 at byte 15"],
    );
    check(b"# \xe9\nFROM \xe9\n", &["the file is not UTF-8 at byte 9"]);
    check(
        b"FROM a\nRUN <<E\n# \xe9\nE\n",
        &["the file is not UTF-8 at byte 17"],
    );
    check(
        b"FROM a\nONBUILD COPY <<E /b\n#\xe9\nE\n",
        &["the file is not UTF-8 at byte 28"],
    );
}

#[test]
fn triggers() {
    let check = |trigger: &str, expected: Result<&str, &str>| {
        let found = dockerfile::parse_trigger(trigger);
        let found = match &found {
            Ok(instruction) => Ok(instruction.kind.name()),
            Err(diagnostics) => Err(diagnostics[0].message.as_str()),
        };
        assert_eq!(found, expected, "{trigger:?}");
    };
    let one = "onbuild trigger should be a single expression";
    check("RUN make", Ok("RUN"));
    check("copy a b", Ok("COPY"));
    check("RUN <<E\nmake\nE", Ok("RUN"));
    check("RUN a\nRUN b", Err(one));
    check("", Err(one));
    check("USER", Err("USER requires exactly one argument"));
    check("FROM x", Err("FROM isn't allowed as an ONBUILD trigger"));
    check(
        "MAINTAINER x",
        Err("MAINTAINER isn't allowed as an ONBUILD trigger"),
    );
    check(
        "ONBUILD RUN x",
        Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
    );
    check("ELSE", Err("unknown instruction: ELSE"));
}

/// A trigger that was stored reads back as the instruction that was written.
#[test]
fn triggers_round_trip() {
    let text = "FROM a\nONBUILD RUN cat <<A - <<-'B'\n\t$x\nA\n\ty\n\tB\n";
    let parsed = dockerfile::parse(text);
    let Kind::Onbuild(onbuild) = &parsed.dockerfile.stages[0].instructions[0].kind else {
        panic!("BUG: no ONBUILD in {parsed:?}");
    };
    assert_eq!(onbuild.trigger, "RUN cat <<A - <<-'B'\n\t$x\nA\n\ty\nB");
    let bodies = |instruction: &Instruction| match &instruction.kind {
        Kind::Run(run) => run.heredocs.iter().map(|found| found.content()).collect(),
        _ => Vec::new(),
    };
    let again = dockerfile::parse_trigger("RUN cat <<A - <<-'B'\n\t$x\nA\n\ty\nB").unwrap();
    assert_eq!(bodies(&again), ["\t$x\n", "y\n"]);
    assert_eq!(
        bodies(&again),
        bodies(onbuild.instruction.as_ref().unwrap())
    );
}

#[test]
fn sole_heredoc() {
    let check = |command: &str, expected: Option<&str>| {
        let text = format!("FROM a\nRUN {command}\nbody\nE\n");
        let parsed = dockerfile::parse(&text);
        let found = match &parsed.dockerfile.stages[0].instructions[0].kind {
            Kind::Run(run) => run.sole_heredoc().map(|heredoc| heredoc.content()),
            _ => None,
        };
        assert_eq!(found.as_deref(), expected, "{command:?}");
    };
    check("<<E", Some("body\n"));
    check("<<'E'  ", Some("body\n"));
    check("--network=none <<-E", Some("body\n"));
    check("<<E cat", None);
    check("cat <<E", None);
}

/// Deep nesting, long lines and many instructions stay within stack and time.
#[test]
fn hostile_sizes() {
    let parses = |text: String| {
        let parsed = dockerfile::parse(&text);
        check_spans(&text, &parsed);
    };
    let many = |piece: &str, bits: u32| piece.repeat(1 << bits);
    parses(format!("FROM a\nCMD {}", many("[", 20)));
    parses(format!("FROM a\n{}RUN x", many("ONBUILD ", 16)));
    parses(format!("FROM a\nRUN {}", many("<<a ", 16)));
    parses(format!("FROM a\nRUN {}", many("--mount=a ", 14)));
    parses(format!(
        "FROM a\nRUN {}",
        many("--mount=target=/a,id=$b ", 13)
    ));
    parses(format!("FROM a\nRUN --mount={} x", many(",", 16)));
    parses(format!("FROM a\nRUN {}", many("a \\\n", 17)));
    parses(format!("FROM a\nRUN a \\\n{}", many("\n#\n", 16)));
    parses(format!(
        "FROM a\n{}ARG {}",
        many("# x y\n", 13),
        many("x ", 13)
    ));
    parses(format!("FROM a\nENV {}", many("a=b ", 14)));
    parses(format!("FROM a\nRUN echo {} <<E", many("${a:-", 16)));
    parses(many("FROM a AS b\n", 13));
    parses(format!("FROM a\n{}", many("CMD x\n", 13)));
    parses(format!("FROM a\nRUN <<E\n{}E\n", many("body\n", 18)));
    parses(many("\\\n", 16));
    parses(many("#\n", 16));
    parses(many("FOO <<x\n", 15));
}

/// Text of pieces that mean something to a parser.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "FROM ",
        "RUN ",
        "COPY ",
        "ENV ",
        "ARG ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "CMD ",
        "LABEL ",
        "VOLUME ",
        "ADD ",
        "SHELL ",
        "EXPOSE ",
        "a",
        "é",
        "\u{feff}",
        "<<",
        "<<-",
        "E",
        "\n",
        "\r\n",
        "\\",
        "\\\n",
        "`",
        " ",
        "\t",
        "\u{a0}",
        "\"",
        "'",
        "$",
        "${",
        "}",
        "=",
        "--",
        "--mount=",
        "--from=",
        "type=secret,",
        "[",
        "]",
        ",",
        "#",
        "# escape=`\n",
        "# check=",
        ":",
        "/",
        "%",
        "*",
        "?",
        "\u{1f600}",
        "\0",
        "\u{b}",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

const SEEDS: [&str; 3] = [
    include_str!("cases/parse/heredocs.Dockerfile"),
    include_str!("cases/parse/run.Dockerfile"),
    include_str!("cases/parse/config.Dockerfile"),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        check_spans(&text, &dockerfile::parse(&text));
    }

    #[test]
    fn likely_text(text in pieces()) {
        check_spans(&text, &dockerfile::parse(&text));
        if let Ok(instruction) = dockerfile::parse_trigger(&text) {
            prop_assert!(instruction.span.end as usize <= text.len());
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (text, parsed) = dockerfile::parse_bytes(&bytes);
        check_spans(&text, &parsed);
    }

    #[test]
    fn mutated(
        seed in prop::sample::select(SEEDS.to_vec()),
        at in any::<prop::sample::Index>(),
        length in 0_usize..8,
        put in pieces(),
    ) {
        let starts: Vec<usize> = seed.char_indices().map(|(at, _)| at).collect();
        let from = at.index(starts.len());
        let to = (from + length).min(starts.len() - 1);
        let text = format!("{}{put}{}", &seed[..starts[from]], &seed[starts[to]..]);
        check_spans(&text, &dockerfile::parse(&text));
    }

    #[test]
    fn expansion_never_panics(word in pieces(), escape in prop::sample::select(vec!['\\', '`'])) {
        let environment = BTreeMap::from([("a".to_owned(), "aéa\n*".to_owned())]);
        let plain = Expander::new(escape);
        let _ = plain.expand(&word, &environment);
        let kept = Expander { keep_quotes: true, keep_escapes: true, keep_unset: true, ..plain };
        let _ = kept.expand(&word, &environment);
        let _ = kept.expand(&word, &());
    }

    #[test]
    fn ignore_files_never_panic(text in any::<String>()) {
        for pattern in dockerfile::ignorefile::parse(&text) {
            prop_assert!(!pattern.is_empty());
        }
    }
}
