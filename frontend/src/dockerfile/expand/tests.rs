//! One line a case: what a word expands to where `a=1`, `b="x y"`, `e=""`, and so on.

use std::collections::BTreeMap;

use super::*;

fn environment() -> BTreeMap<String, String> {
    [
        ("a", "1"),
        ("b", "x y"),
        ("e", ""),
        ("d", "$a"),
        ("path", "/usr/local/bin"),
        ("file", "archive.tar.gz"),
        ("v", "v1.2.3"),
        ("stars", "a*b*c"),
        ("lines", "one\ntwo"),
        ("under_score", "u"),
        ("é", "accent"),
        ("1", "first"),
        ("12", "twelfth"),
        ("@", "all"),
        ("-", "dash"),
        ("q", "it's"),
        ("aaa", "aaa"),
        ("uni", "äöü"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

fn expand(expander: Expander, word: &str) -> Result<Expansion, String> {
    expander
        .expand(word, &environment())
        .map_err(|error| error.kind.to_string())
}

#[track_caller]
fn check(word: &str, expected: &str) {
    let found = expand(Expander::new('\\'), word).map(|found| found.text);
    assert_eq!(found.as_deref(), Ok(expected), "{word:?}");
}

#[track_caller]
fn fails(word: &str, expected: &str) {
    let found = expand(Expander::new('\\'), word).map(|found| found.text);
    assert_eq!(found, Err(expected.to_owned()), "{word:?}");
}

#[track_caller]
fn words(word: &str, expected: &[&str]) {
    let found = expand(Expander::new('\\'), word).unwrap();
    assert_eq!(found.words, expected, "{word:?}");
}

#[track_caller]
fn with(expander: Expander, word: &str, expected: &str) {
    let found = expand(expander, word).map(|found| found.text);
    assert_eq!(found.as_deref(), Ok(expected), "{word:?}");
}

#[test]
fn plain() {
    check("", "");
    check("hello", "hello");
    check("hello world", "hello world");
    check("  a  ", "  a  ");
    check("é", "é");
    check("a=b", "a=b");
    check("{}", "{}");
    check("#", "#");
}

#[test]
fn names() {
    check("$a", "1");
    check("${a}", "1");
    check("$a$a", "11");
    check("x${a}y", "x1y");
    check("$a.b", "1.b");
    check("$a-b", "1-b");
    check("$a/b", "1/b");
    check("$under_score", "u");
    check("$ab", "");
    check("$none", "");
    check("${none}", "");
    check("$e", "");
    check("$b", "x y");
    check("$d", "$a");
    check("$é", "accent");
    check("${é}", "accent");
    check("$A", "");
}

#[test]
fn positions_and_specials() {
    check("$1", "first");
    check("$1a", "firsta");
    check("$12", "twelfth");
    check("${1}", "first");
    check("${12}", "twelfth");
    check("$@", "all");
    check("${@}", "all");
    check("$-", "dash");
    check("$*", "");
    check("$#", "");
    check("$?", "");
    check("$!", "");
    check("$$", "");
    check("$$a", "a");
    check("$0", "");
}

#[test]
fn lone_dollars() {
    check("$", "$");
    check("a$", "a$");
    check("$ a", "$ a");
    check("$.", "$.");
    check("$/", "$/");
    check("$=", "$=");
    check("$\"a\"", "$a");
    check("$}", "$}");
}

#[test]
fn escapes() {
    check("\\$a", "$a");
    check("\\\\$a", "\\1");
    check("\\a", "a");
    check("\\\"", "\"");
    check("\\'", "'");
    check("\\ ", " ");
    check("a\\", "a");
    check("\\\\", "\\");
    check("\\\\\\\\", "\\\\");
    check("$a\\b", "1b");
    check("\\${a}", "${a}");
}

#[test]
fn single_quotes() {
    check("'a'", "a");
    check("'$a'", "$a");
    check("'\\$a'", "\\$a");
    check("'a\"b'", "a\"b");
    check("''", "");
    check("a'b'c", "abc");
    check("'a'$a'b'", "a1b");
    check("'a b'", "a b");
    fails(
        "'a",
        "unexpected end of statement while looking for matching single-quote",
    );
    fails(
        "it's",
        "unexpected end of statement while looking for matching single-quote",
    );
}

#[test]
fn double_quotes() {
    check("\"a\"", "a");
    check("\"$a\"", "1");
    check("\"${a}b\"", "1b");
    check("\"\\$a\"", "$a");
    check("\"\\\"\"", "\"");
    check("\"\\\\\"", "\\");
    check("\"\\a\"", "\\a");
    check("\"\\n\"", "\\n");
    check("\"it's\"", "it's");
    check("\"\"", "");
    check("\"'$a'\"", "'1'");
    check("\"a\"'b'", "ab");
    fails(
        "\"a",
        "unexpected end of statement while looking for matching double-quote",
    );
    fails(
        "\"a\\",
        "unexpected end of statement while looking for matching double-quote",
    );
}

#[test]
fn defaults() {
    check("${a:-x}", "1");
    check("${a-x}", "1");
    check("${e:-x}", "x");
    check("${e-x}", "");
    check("${none:-x}", "x");
    check("${none-x}", "x");
    check("${none:-}", "");
    check("${none:-$a}", "1");
    check("${none:-${a}}", "1");
    check("${none:-${none:-deep}}", "deep");
    check("${none:-'$a'}", "$a");
    check("${none:-\"$a b\"}", "1 b");
    check("${none:-\\}}", "}");
    check("${none:-x y}", "x y");
    check("${none:--}", "-");
    check("${none:-:}", ":");
    check("${none:-a/b#c%d}", "a/b#c%d");
    check("\"${none:-a}\"", "a");
}

#[test]
fn alternatives() {
    check("${a:+x}", "x");
    check("${a+x}", "x");
    check("${e:+x}", "");
    check("${e+x}", "x");
    check("${none:+x}", "");
    check("${none+x}", "");
    check("${a:+$b}", "x y");
    check("${a:+${none:-z}}", "z");
}

#[test]
fn requirements() {
    check("${a:?x}", "1");
    check("${a?x}", "1");
    check("${e?x}", "");
    fails("${none?}", "none: is not allowed to be unset");
    fails("${none:?}", "none: is not allowed to be unset");
    fails("${e:?}", "e: is not allowed to be empty");
    fails("${none?give me one}", "none: give me one");
    fails("${e:?$a}", "e: 1");
}

#[test]
fn prefixes() {
    check("${path#/}", "usr/local/bin");
    check("${path#*/}", "usr/local/bin");
    check("${path##*/}", "bin");
    check("${path#/usr}", "/local/bin");
    check("${path#usr}", "/usr/local/bin");
    check("${file#*.}", "tar.gz");
    check("${file##*.}", "gz");
    check("${v#v}", "1.2.3");
    check("${v#?}", "1.2.3");
    check("${v#*}", "v1.2.3");
    check("${v##*}", "");
    check("${e#x}", "");
    check("${none#x}", "");
    check("${v#$none}", "v1.2.3");
    check("${v#${none:-v}}", "1.2.3");
    check("${stars#a\\*}", "b*c");
    check("${stars#*\\*}", "b*c");
    check("${stars##*\\*}", "c");
    check("${uni#?}", "öü");
    check("${lines#*o}", "ne\ntwo");
    check("${lines##*o}", "ne\ntwo");
    check("${lines##*}", "\ntwo");
    check("${v#\\\\}", "v1.2.3");
    check("${path##/*/*/}", "bin");
    check("${aaa#a*a}", "a");
    check("${aaa##a*a}", "");
}

#[test]
fn suffixes() {
    check("${path%/*}", "/usr/local");
    check("${path%%/*}", "");
    check("${file%.*}", "archive.tar");
    check("${file%%.*}", "archive");
    check("${file%.gz}", "archive.tar");
    check("${file%zip}", "archive.tar.gz");
    check("${v%.?}", "v1.2");
    check("${v%*}", "v1.2.3");
    check("${v%%*}", "");
    check("${stars%\\*c}", "a*b");
    check("${uni%?}", "äö");
    check("${none%x}", "");
}

#[test]
fn replacements() {
    check("${path/usr/opt}", "/opt/local/bin");
    check("${path/\\//-}", "-usr/local/bin");
    check("${path//\\//-}", "-usr-local-bin");
    check("${path/none/x}", "/usr/local/bin");
    check("${v/./-}", "v1-2.3");
    check("${v//./-}", "v1-2-3");
    check("${v/*/x}", "x");
    check("${v//*/x}", "x");
    check("${v/?/x}", "x1.2.3");
    check("${v//?/x}", "xxxxxx");
    check("${aaa/a/}", "aa");
    check("${aaa//a/}", "");
    check("${aaa//a/bb}", "bbbbbb");
    check("${file/.*./-}", "archive-gz");
    check("${v/v/$a}", "11.2.3");
    check("${v/${none:-v}/w}", "w1.2.3");
    check("${e/x/y}", "");
    check("${e//x/y}", "");
    check("${none/x/y}", "");
    check("${aaa/\\}/x}", "aaa");
    check("${lines//*/x}", "x\nx");
    check("${a//1/'$0$0'}", "11");
    check("${a//1/'$$'}", "$");
    check("${a//1/'[$name]'}", "[]");
    check("${a//1/'[${0}]'}", "[1]");
    check("${a//1/'$ '}", "$ ");
    check("${a/1/'$0'}", "$0");
    check("${stars//\\*/+}", "a+b+c");
    check("${aaa//x/y}", "aaa");
}

#[test]
fn wrong_substitutions() {
    fails("${}", "syntax error: bad substitution");
    fails("${:-x}", "syntax error: bad substitution");
    fails("${:}", "syntax error: bad substitution");
    fails("${{a}}", "syntax error: bad substitution");
    fails("${", "syntax error: missing '}'");
    fails("${a", "syntax error: missing '}'");
    fails("${a:", "syntax error: missing '}'");
    fails("${a:-", "syntax error: missing '}'");
    fails("${a:-x", "syntax error: missing '}'");
    fails("${a:-\"x", "syntax error: missing '}'");
    fails("${a:-${b}", "syntax error: missing '}'");
    fails("${a#x", "syntax error: missing '}'");
    fails("${a/x", "syntax error: missing '/' in ${}");
    fails("${a/x}", "syntax error: missing '/' in ${}");
    fails("${a/x/y", "syntax error: missing '}'");
    fails("${a:#x}", "unsupported modifier (:#) in substitution");
    fails("${a:%x}", "unsupported modifier (:%) in substitution");
    fails("${a:x}", "unsupported modifier (:x) in substitution");
    fails("${a~x}", "unsupported modifier (~) in substitution");
    fails("${a b}", "unsupported modifier ( ) in substitution");
    fails("${ a}", "unsupported modifier ( ) in substitution");
    fails("${a.b}", "unsupported modifier (.) in substitution");
    fails(
        "${a#\\x}",
        "invalid pattern (\\x) in substitution: invalid escape '\\x'",
    );
    fails(
        "${a/\\x/y}",
        "invalid pattern (\\x) in substitution: invalid escape '\\x'",
    );
}

#[test]
fn whole_message() {
    let error = Expander::new('\\').expand("a ${}", &()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to process \"a ${}\": syntax error: bad substitution"
    );
}

#[test]
fn splits_words() {
    words("", &[]);
    words("  ", &[]);
    words("a", &["a"]);
    words("a b", &["a", "b"]);
    words(" a  b ", &["a", "b"]);
    words("a\tb", &["a", "b"]);
    words("'a b'", &["a b"]);
    words("\"a b\" c", &["a b", "c"]);
    words("a\\ b", &["a b"]);
    words("$b", &["x", "y"]);
    words("\"$b\"", &["x y"]);
    words("a$b", &["ax", "y"]);
    words("${none:-p q}", &["p", "q"]);
    words("$none", &[]);
    words("''", &[]);
    words("a '' b", &["a", "b"]);
    words("$e a", &["a"]);
}

#[test]
fn backtick_escape() {
    let expander = Expander::new('`');
    with(expander, "`$a", "$a");
    with(expander, "C:\\x", "C:\\x");
    with(expander, "C:\\$a", "C:\\1");
    with(expander, "\"`$a`\"`x\"", "$a\"`x");
    with(expander, "``", "`");
    with(expander, "${none:-`}}", "}");
}

#[test]
fn kept_unset() {
    let expander = Expander {
        keep_unset: true,
        ..Expander::new('\\')
    };
    with(expander, "$none", "$none");
    with(expander, "${none}", "${none}");
    with(expander, "${none:-x}", "${none:-x}");
    with(expander, "${none?x}", "${none?x}");
    with(expander, "${none:~x}", "${none:~x}");
    with(expander, "${none##x}", "${none##x}");
    with(expander, "${none/x/y}", "${none/x/y}");
    with(expander, "${none//x/y}", "${none//x/y}");
    with(expander, "${none:-$a}", "${none:-1}");
    with(expander, "$a ${e:-x}", "1 x");
}

#[test]
fn kept_quotes_and_escapes() {
    let quotes = Expander {
        keep_quotes: true,
        ..Expander::new('\\')
    };
    with(quotes, "'a' \"$a\"", "'a' \"1\"");
    let both = Expander {
        keep_quotes: true,
        keep_escapes: true,
        ..Expander::new('\\')
    };
    with(both, "a\\ 'b\\c' \"\\$\"", "a\\ 'b\\c' \"\\$\"");
}

#[test]
fn heredoc_bodies() {
    let heredoc = Expander::heredoc();
    with(heredoc, "it's $a\n\"$a\"\n", "it's 1\n\"1\"\n");
    with(heredoc, "\\$a \\n\n", "$a n\n");
    with(heredoc, "${none:-'x'}", "'x'");
}

#[test]
fn reports_names() {
    let found = expand(Expander::new('\\'), "$a ${b} $none ${nope:-$e} '$quoted'").unwrap();
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names(&found.matched), "a b e");
    assert_eq!(names(&found.unmatched), "none nope");
}

#[test]
fn bounded_depth() {
    let deep = format!("{}x{}", "${n:-".repeat(100), "}".repeat(100));
    check(&deep, "x");
    let deeper = format!("{}x{}", "${n:-".repeat(100_000), "}".repeat(100_000));
    fails(&deeper, "substitutions nest deeper than 100 levels");
}

#[test]
fn bounded_length() {
    let mut environment = BTreeMap::new();
    environment.insert("x".to_owned(), "x".repeat(1 << 20));
    let expander = Expander::new('\\');
    let long = expander.expand(&"$x".repeat(17), &environment).unwrap_err();
    assert!(
        matches!(long.kind, ExpandErrorKind::TooLong(_)),
        "{:?}",
        long.kind
    );
    let pattern = format!("${{x#{}b}}", "a?".repeat(8));
    let found = expander.expand(&pattern, &environment).unwrap();
    assert_eq!(found.text.len(), 1 << 20);
    let slow = format!("${{x//{}b/}}", "x".repeat(100));
    let error = expander.expand(&slow, &environment).unwrap_err();
    assert!(
        matches!(error.kind, ExpandErrorKind::TooLong(_)),
        "{:?}",
        error.kind
    );
}
