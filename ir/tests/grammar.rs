//! The grammar in docs/formats/plan-text.md: its examples are plans, and its words are what is read.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../docs/formats/plan-text.md");
/// Has every field of every op.
const GOLDEN: &str = include_str!("golden/every_field.plan");

/// The pins that it does not have.
const PINS: &str = "\
%0 = git example.org/a.git
%1 = http https://example.org/a
%2 = merge %0 %1
result %2
pin %0 = commit 0000000000000000000000000000000000000000
pin %1 = checksum sha256:0000000000000000000000000000000000000000000000000000000000000000
";

/// The indented lines below a heading, until the next one.
fn block(heading: &str) -> Vec<&'static str> {
    let lines = PAGE.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.strip_prefix("    ")).collect()
}

/// Each production with its right side.
fn productions() -> Vec<(&'static str, String)> {
    let mut productions: Vec<(&str, String)> = Vec::new();
    for line in block("## Grammar") {
        match line.split_once('=').filter(|_| !line.starts_with(' ')) {
            Some((name, right)) => productions.push((name.trim(), right.to_owned())),
            None => productions.last_mut().unwrap().1.push_str(line),
        }
    }
    productions
}

/// What stands in double quotes, and what does not.
fn split(right: &str) -> (Vec<String>, String) {
    let parts: Vec<&str> = right.split('"').collect();
    let quoted = parts.iter().skip(1).step_by(2);
    let rest: Vec<&str> = parts.iter().step_by(2).copied().collect();
    (
        quoted.map(|word| (*word).to_owned()).collect(),
        rest.join(" "),
    )
}

#[test]
fn the_example_is_a_plan() {
    let example: Vec<&str> = PAGE
        .lines()
        .take_while(|line| *line != "## Grammar")
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    let text = example.join("\n").replace('…', &"0".repeat(64)) + "\n";
    let plan = kiln_ir::parse(&text).unwrap();
    assert_eq!(plan.to_string(), text);
}

#[test]
fn every_name_has_a_production() {
    let productions = productions();
    let names: BTreeSet<&str> = productions.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), productions.len());
    let mut used = BTreeSet::from(["plan".to_owned()]);
    for (name, right) in &productions {
        let (_, rest) = split(right);
        // `? … ?` is a sequence in words, as in ISO 14977.
        let rest = rest.split('?').step_by(2).collect::<Vec<_>>().join(" ");
        let words = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        for word in words.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase())) {
            assert!(
                names.contains(word),
                "{name} names `{word}`, which is no production"
            );
            used.insert(word.to_owned());
        }
    }
    let unused: Vec<&&str> = names.iter().filter(|name| !used.contains(**name)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn every_word_is_read() {
    for (name, right) in productions() {
        for word in split(&right).0 {
            let is_word =
                word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            let is_there = [GOLDEN, PINS]
                .concat()
                .split(|c: char| c.is_whitespace() || "{}[];:".contains(c))
                .any(|found| found == word);
            assert!(!is_word || is_there, "{name}: no line has `{word}`");
        }
    }
    assert!(kiln_ir::parse(GOLDEN).is_ok() && kiln_ir::parse(PINS).is_ok());
}

#[test]
fn what_the_page_refuses_is_refused() {
    for text in [
        "%0 = local a\n%0 = local b\n",
        "%0 = merge %0\nresult %0\n",
        "%0 = sorcery\n",
        "%0 = local a b\n",
        "%0 = local \"a\n",
        "%0 = local a name=b\n",
        "%0 = local a exclude=[x] exclude=[y]\n",
        "result %1\n",
        "%0 = local @a\n",
        "%0 = local a\npin %0 = manifest sha256:00\n",
    ] {
        assert!(kiln_ir::parse(text).is_err(), "{text}");
    }
}
