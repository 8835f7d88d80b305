//! What patterns mean, case by case: moby's patternmatcher and Go's `filepath.Match`.

#![allow(clippy::unwrap_used)]

use kiln_ir::pattern::{PatternList, PatternState, clean, has_wildcard, wildcard_match};
use proptest::prelude::*;

fn list(patterns: &[&str]) -> PatternList {
    PatternList::new(patterns).unwrap()
}

#[track_caller]
fn check(patterns: &[&str], path: &str, expected: bool) {
    assert_eq!(
        list(patterns).matches(path),
        expected,
        "{patterns:?} on {path:?}"
    );
}

/// Pattern, path, and whether one matches the other or a parent of it.
const MATCHES: &[(&str, &str, bool)] = &[
    ("**", "file", true),
    ("**", "file/", true),
    ("**/", "file", true),
    ("**/", "dir/file", true),
    ("**", "dir/file", true),
    ("**/**", "file", true),
    ("**/**", "dir/file", true),
    ("***", "dir/file", true),
    ("dir/**", "dir/file", true),
    ("dir/**", "dir/dir2/file", true),
    ("dir/**", "dir", false),
    ("dir/**", "dirx/file", false),
    ("**/dir", "dir/file", true),
    ("**/dir2/*", "dir/dir2/file", true),
    ("**/dir2/*", "dir/dir2/dir2/file", true),
    ("**/dir2/**", "dir/dir2/dir2/file", true),
    ("**file", "file", true),
    ("**file", "dir/file", true),
    ("**file", "dir/xfile", true),
    ("**/file", "dir/xfile", false),
    ("**/file", "file", true),
    ("**/file", "dir/dir/file", true),
    ("**/file*", "dir/dir/file", true),
    ("**/file*", "dir/dir/file.txt", true),
    ("**/file*txt", "dir/dir/file.txt", true),
    ("**/file*.txt", "dir/dir/file.txt", true),
    ("**/file*.txt*", "dir/dir/file.txt", true),
    ("**/**/*.txt", "dir/dir/file.txt", true),
    ("**/**/*.txt2", "dir/dir/file.txt", false),
    ("**/*.txt", "file.txt", true),
    ("**/*.txt", "dir/dir/file.txt", true),
    ("**/*.txt", "dir/.txt", true),
    ("a**/*.txt", "a/file.txt", true),
    ("a**/*.txt", "a/dir/file.txt", true),
    ("a**/*.txt", "a/dir/dir/file.txt", true),
    ("a/*.txt", "a/dir/file.txt", false),
    ("a/*.txt", "a/file.txt", true),
    ("a/*.txt**", "a/file.txt", true),
    ("a**", "abc/d", true),
    ("a/**/b", "a/b", true),
    ("a/**/b", "a/x/y/b", true),
    ("a/**/b", "a/xb", false),
    ("a[b-d]e", "ae", false),
    ("a[b-d]e", "ace", true),
    ("a[b-d]e", "aae", false),
    ("a[^b-d]e", "aze", true),
    ("a[^b-d]e", "ace", false),
    ("a[!b]e", "a!e", true),
    ("a[!b]e", "aze", false),
    (".*", ".foo", true),
    (".*", "foo", false),
    ("abc.def", "abcdef", false),
    ("abc.def", "abc.def", true),
    ("abc.def", "abcZdef", false),
    ("abc?def", "abcZdef", true),
    ("abc?def", "abcdef", false),
    ("abc?def", "abc/def", false),
    ("a\\*b", "a*b", true),
    ("a\\*b", "axb", false),
    ("a\\\\b", "a\\b", true),
    ("a\\", "a", false),
    ("**/foo/bar", "foo/bar", true),
    ("**/foo/bar", "dir/foo/bar", true),
    ("**/foo/bar", "dir/dir2/foo/bar", true),
    ("abc/**", "abc", false),
    ("abc/**", "abc/def", true),
    ("abc/**", "abc/def/ghi", true),
    ("**/.foo", ".foo", true),
    ("**/.foo", "bar.foo", false),
    ("a(b)c/def", "a(b)c/def", true),
    ("a(b)c/def", "a(b)c/xyz", false),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
    ("{a,b}", "a", false),
    ("{a,b}", "{a,b}", true),
    ("foo", "foo", true),
    ("foo", "dir/foo", false),
    ("foo", "foo/below/it", true),
    ("Foo", "foo", false),
    ("./foo/../bar/", "bar/x", true),
    ("/foo", "foo", false),
    (
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
        true,
    ),
    (
        "dist/*.whl",
        "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
        true,
    ),
    ("ü?", "üñ", true),
    ("[α-ω]", "λ", true),
    ("**/*.log", "a/b/c.log", true),
    ("**/*.log", "a/b/c.log/d", true),
    ("*", "a/b", true),
    ("*/*", "a", false),
    ("*/*/x", "a/b/x", true),
];

#[test]
fn one_pattern() {
    for &(pattern, path, expected) in MATCHES {
        // A trailing backslash is no pattern at all.
        if pattern == "a\\" {
            assert!(PatternList::new(&[pattern]).is_err());
            continue;
        }
        check(&[pattern], path.trim_end_matches('/'), expected);
    }
}

#[test]
fn last_match_wins() {
    check(&["*", "!README.md"], "README.md", false);
    check(&["!README.md", "*"], "README.md", true);
    check(&["*", "!docs", "docs/secret"], "docs/secret/key", true);
    check(&["*", "!docs", "docs/secret"], "docs/page", false);
    check(&["docs", "!docs/README.md"], "docs/README.md", false);
    check(&["docs", "!docs/README.md"], "docs/README.old", true);
    check(&["**", "!util/docker/web"], "util/docker/web/foo", false);
    check(
        &["**", "!util/docker/web", "util/docker/web/foo"],
        "util/docker/web/foo",
        true,
    );
    check(&["!**/*.go", "**"], "a.go", true);
    check(&["**", "!**/*.go"], "a/b.go", false);
    check(&["a", "!a/b/**", "a/b/c"], "a/b/c/d", true);
}

#[test]
fn root_is_never_excluded() {
    check(&["**"], "", false);
    check(&["."], ".", false);
}

#[test]
fn the_pattern_that_decides_is_counted_as_given() {
    let list = list(&["", "a", " ", "!a/b"]);
    assert_eq!(list.decide("a").decided_by(), Some(1));
    assert_eq!(list.decide("a/b").decided_by(), Some(3));
    assert_eq!(list.decide("b").decided_by(), None);
}

#[test]
fn blanks_and_empty_patterns_mean_nothing() {
    assert!(list(&["", "  "]).is_empty());
    check(&[" foo "], "foo", true);
    assert!(list(&["a", "!b"]).has_negations());
}

#[test]
fn bad_patterns_are_named() {
    for pattern in [
        "[", "[]", "[^]", "[a", "[a-]", "[-a]", "a\\", "[a-b-c]", "[]a]", "[^bc", "a[", "[\\",
        "x/[", "**/[a",
    ] {
        let error = PatternList::new(&[pattern]).unwrap_err().to_string();
        assert!(error.contains(&format!("`{pattern}`")), "{error}");
        assert!(wildcard_match(pattern, "x").is_err(), "{pattern}");
    }
    assert!(PatternList::new(&["!"]).is_err());
}

#[track_caller]
fn below(patterns: &[&str], directory: &str, expected: bool) {
    assert_eq!(
        list(patterns).matches_below_possible(directory),
        expected,
        "{patterns:?} below {directory:?}"
    );
}

#[test]
fn excluded_directories_are_left_alone_where_nothing_comes_back() {
    below(&["*"], "a", false);
    below(&["*", "!b"], "a", false);
    below(&["*", "!a/b"], "a", true);
    below(&["*", "!a/b"], "a/b", false);
    below(&["*", "!ab/c"], "a", false);
    below(&["*", "!a/**"], "a", true);
    below(&["*", "!a/**"], "a/x", true);
    below(&["*", "!a/**"], "b", false);
    below(&["*", "!**/x"], "a/b", true);
    below(&["*", "!*/x"], "a", true);
    below(&["*", "!*/x"], "a/b", false);
    below(&["*", "!a/*/*.c"], "a/b", true);
    below(&["*", "!a/*/*.c"], "a/b/c", false);
    below(&["!a/b", "*"], "a", true);
    let list = list(&["!a/b", "*"]);
    let state = list.enter(PatternState::default(), "a");
    assert!(state.is_excluded());
    assert!(!list.below_possible(state, "a"));
}

#[track_caller]
fn wildcard(pattern: &str, name: &str, expected: bool) {
    assert_eq!(
        wildcard_match(pattern, name),
        Ok(expected),
        "{pattern:?} on {name:?}"
    );
}

#[test]
fn wildcards_are_those_of_filepath_match() {
    for (pattern, name, expected) in [
        ("abc", "abc", true),
        ("*", "abc", true),
        ("*c", "abc", true),
        ("a*", "a", true),
        ("a*", "abc", true),
        ("a*", "ab/c", false),
        ("a*/b", "abc/b", true),
        ("a*/b", "a/c/b", false),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^c]", "abc", false),
        ("ab[^b-d]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a?b", "a☺b", true),
        ("a[^a]b", "a☺b", true),
        ("a???b", "a☺b", false),
        ("[a-ζ]*", "α", true),
        ("*[a-ζ]", "A", false),
        ("a?b", "a/b", false),
        ("a*b", "a/b", false),
        ("[\\]a]", "]", true),
        ("[\\-]", "-", true),
        ("[x\\-]", "z", false),
        ("[\\-x]", "x", true),
        ("*x", "xxx", true),
        ("**", "a/b", false),
        ("**/x", "a/b/x", false),
        ("", "", true),
        ("", "a", false),
    ] {
        wildcard(pattern, name, expected);
    }
}

#[test]
fn wildcards_are_seen_unless_escaped() {
    assert!(
        has_wildcard("a*") && has_wildcard("a?b") && has_wildcard("[a]") && has_wildcard("\\\\*")
    );
    assert!(
        !has_wildcard("a\\*b") && !has_wildcard("a]b") && !has_wildcard("") && !has_wildcard("a\\")
    );
}

#[test]
fn clean_is_that_of_go() {
    for (path, expected) in [
        ("", "."),
        ("a//b/", "a/b"),
        ("./a/./b", "a/b"),
        ("a/../b", "b"),
        ("a/..", "."),
        ("../a/../..", "../.."),
        ("/", "/"),
        ("/..//a", "/a"),
        ("/a/../..", "/"),
        ("a/b/../../..", ".."),
    ] {
        assert_eq!(clean(path), expected, "{path:?}");
    }
}

/// The obvious backtracking matcher.
fn naive(pattern: &[char], path: &[char]) -> bool {
    let Some(&first) = pattern.first() else {
        return path.is_empty();
    };
    if pattern.starts_with(&['*', '*']) {
        let mut rest = &pattern[2..];
        rest = rest.strip_prefix(&['/']).unwrap_or(rest);
        return rest.is_empty()
            || naive(rest, path)
            || (0..path.len()).any(|at| path[at] == '/' && naive(rest, &path[at + 1..]));
    }
    match first {
        '*' => (0..=path.len())
            .take_while(|&at| !path[..at].contains(&'/'))
            .any(|at| naive(&pattern[1..], &path[at..])),
        '?' => path.first().is_some_and(|&c| c != '/') && naive(&pattern[1..], &path[1..]),
        c => path.first() == Some(&c) && naive(&pattern[1..], &path[1..]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_backtracking(pattern in "[ab*?/]{1,8}", path in "[ab]{1,2}(/[ab]{1,3}){0,3}") {
        let cleaned = clean(&pattern);
        // moby takes `**` in front of plain text for a suffix; the table covers that.
        prop_assume!(!cleaned.strip_prefix("**").is_some_and(|rest| !rest.contains(['*', '?']) && !rest.starts_with('/')));
        let characters: Vec<char> = cleaned.chars().collect();
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path.as_str()]);
        let expected = parents.into_iter().any(|path| naive(&characters, &path.chars().collect::<Vec<_>>()));
        prop_assert_eq!(list(&[&pattern]).matches(&path), expected, "{} on {}", cleaned, path);
    }

    #[test]
    fn walking_agrees_with_asking(patterns in proptest::collection::vec("!?[ab*/]{1,5}", 0..5), path in "[ab](/[ab]{1,2}){0,3}") {
        let patterns: Vec<String> = patterns.into_iter().filter(|pattern| pattern != "!").collect();
        let list = PatternList::new(&patterns).unwrap();
        let mut state = PatternState::default();
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let parent = state;
            state = list.enter(parent, &path[..at]);
            prop_assert_eq!(state.is_excluded(), list.matches(&path[..at]));
            if !state.is_excluded() && parent.is_excluded() {
                let above = path[..at].rfind('/').map_or("", |slash| &path[..slash]);
                prop_assert!(list.below_possible(parent, above), "{:?} below {}", patterns, above);
            }
        }
    }

    #[test]
    fn nothing_panics(pattern in "[\\[\\]^!*?/\\\\a\\-\\.]{0,12}|\\PC{0,6}", path in "\\PC{0,12}") {
        if let Ok(list) = PatternList::new(&[&pattern]) {
            list.matches(&path);
            list.matches_below_possible(&path);
        }
        let _ = wildcard_match(&pattern, &path);
        has_wildcard(&pattern);
    }
}

#[test]
fn hostile_patterns_take_no_longer() {
    let pattern = "a*".repeat(2000) + "b";
    check(&[&pattern], &"a".repeat(4000), false);
    let pattern = "**/*".repeat(500) + "b";
    check(&[&pattern], &"a/".repeat(1000), false);
}
