//! Ignore files from their text to what they exclude, one line a case.

#![allow(missing_docs, clippy::unwrap_used)]

use kiln_frontend::dockerfile::ignorefile;
use kiln_ir::pattern::PatternList;

/// Checks what the lines exclude, and what they leave; words of paths stand between blanks.
#[track_caller]
fn check(lines: &str, excluded: &str, kept: &str) {
    let patterns = ignorefile::parse(lines);
    let list = PatternList::new(&patterns).unwrap();
    for path in excluded.split(' ').filter(|path| !path.is_empty()) {
        assert!(list.matches(path), "{lines:?} keeps {path}: {patterns:?}");
    }
    for path in kept.split(' ').filter(|path| !path.is_empty()) {
        assert!(
            !list.matches(path),
            "{lines:?} excludes {path}: {patterns:?}"
        );
    }
}

#[track_caller]
fn refused(lines: &str, expected: &str) {
    let error = PatternList::new(&ignorefile::parse(lines)).unwrap_err();
    assert_eq!(error.to_string(), expected, "{lines:?}");
}

#[test]
fn lines_that_say_nothing() {
    check("", "", "a .dockerignore Dockerfile");
    check("# a\n\n \n\t\n", "", "a #");
    check("#a\nb", "b", "a #a");
    check(" #a", "#a", "a");
    check("a # b", "", "a b");
}

#[test]
fn ends_of_lines_and_marks() {
    check("a\r\nb\r\n", "a b", "c");
    check("\u{feff}a\nb", "a b", "c");
    check("\u{feff}# a\nb", "b", "a");
    check("  a  \n\tb\t", "a b", "c");
    check("a", "a a/b", "b/a");
}

#[test]
fn paths_are_cleaned() {
    check("/a", "a a/b", "b/a");
    check("./a/", "a a/b", "b/a");
    check("a//b", "a/b", "a b");
    check("a/./c/../b", "a/b", "a/c");
    check("../a", "", "a b/a");
    check("/../a", "a", "b/a");
    check(".", "", "a a/b");
    check("/", "", "a a/b");
    check("a/..", "", "a a/b");
}

#[test]
fn patterns_begin_at_the_root() {
    check(
        "node_modules",
        "node_modules node_modules/a/b",
        "web/node_modules",
    );
    check(
        "**/node_modules",
        "node_modules web/node_modules/a",
        "modules",
    );
    check("*.log", "a.log", "logs/a.log a.logs");
    check("**/*.log", "a.log logs/a.log logs/x/a.log", "a.log.gz");
    check("*/*.log", "logs/a.log", "a.log logs/x/a.log");
    check("*", "a a/b .git/x", "");
    check("**", "a a/b .git/x", "");
    check("docs/*", "docs/a docs/a/b", "docs");
    check("docs/**", "docs/a docs/a/b", "docs");
    check("**/docs/**", "docs/a x/docs/a/b", "docs x/docs");
    check("?", "a a/b", "ab");
    check("[a-c]?", "ax b1/y", "dx a");
    check("[^a]x", "bx", "ax");
    check("{a,b}", "{a,b}", "a b");
    check("a\\*b", "a*b", "axb");
    check(".*", ".git/x .env", "a.env");
    check("Makefile", "Makefile", "makefile");
}

#[test]
fn the_last_match_wins() {
    check("*\n!a", "b b/a", "a a/b");
    check("!a\n*", "a b", "");
    check(
        "*.md\n!README*.md\nREADME-secret.md",
        "a.md README-secret.md",
        "README.md README-x.md",
    );
    check(
        "*.md\nREADME-secret.md\n!README*.md",
        "a.md",
        "README.md README-secret.md",
    );
    check("a\n!a/b\na/b/c", "a/x a/b/c a/b/c/d", "a/b a/b/x");
    check("a\n! /a/b/ ", "a/x", "a/b a/b/c");
    check("**\n!src/**/*.rs", "src/a.c src/x", "src/a.rs src/x/y.rs");
    check("a\n!a", "", "a a/b");
    check("!a", "", "a b");
}

#[test]
fn what_is_no_pattern() {
    refused(
        "!",
        "pattern `!` takes back nothing; write a path after the `!`",
    );
    refused("a\n[", "pattern `[` has a class that is not closed");
    refused(
        "a[]",
        "pattern `a[]` has a class that is empty or has an open range",
    );
    refused("a\\", "pattern `a\\` ends in a `\\` that escapes nothing");
}
