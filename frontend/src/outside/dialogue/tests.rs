//! Lines in, what was heard or what is wrong out.

use super::*;

const HELLO: &str = r#"{"type":"hello","version":"kiln.frontend/0"}"#;

/// What the last of some lines comes to, in words.
fn last(lines: &[&str]) -> String {
    let mut dialogue = Dialogue::new(["context".to_owned(), "assets".to_owned()]);
    let mut heard = String::new();
    for line in lines {
        heard = match dialogue.hear(line.as_bytes()) {
            Ok(heard) => format!("{heard:?}"),
            Err(violation) => return violation.to_string(),
        };
    }
    heard
}

fn check(line: &str, expected: &str) {
    assert_eq!(last(&[HELLO, line]), expected, "{line}");
}

#[test]
fn it_begins_with_hello() {
    assert_eq!(last(&[HELLO]), "Some(Hello)");
    assert_eq!(last(&["", " \t"]), "None");
    assert_eq!(
        last(&[r#"{"type":"log","message":"x"}"#]),
        "did not begin with a `hello` that names its version of the protocol"
    );
    assert_eq!(
        last(&[r#"{"type":"hello","version":"kiln.frontend/7"}"#]),
        "speaks `kiln.frontend/7`, and this kiln speaks `kiln.frontend/0`"
    );
    assert_eq!(
        last(&["PRI * HTTP/2.0\r"]),
        "speaks gRPC, as BuildKit's front ends do, and not kiln's protocol"
    );
    check(HELLO, "sent `hello` twice");
}

#[test]
fn requests() {
    check(
        r#"{"type":"read","id":7,"path":"./a//b/."}"#,
        r#"Some(Ask { id: 7, request: Read { source: "context", path: "a/b" } })"#,
    );
    check(
        r#"{"type":"list","id":0,"source":"assets"}"#,
        r#"Some(Ask { id: 0, request: List { source: "assets", path: "" } })"#,
    );
    check(
        r#"{"type":"resolve","id":1,"image":"alpine","platform":"linux/arm64"}"#,
        r#"Some(Ask { id: 1, request: Resolve { image: "alpine", platform: Some("linux/arm64") } })"#,
    );
    check(
        r#"{"type":"solve","id":1,"plan":"%0 = local context"}"#,
        r#"Some(Ask { id: 1, request: Solve { plan: Text("%0 = local context") } })"#,
    );
}

#[test]
fn what_lies_outside_is_not_asked_for() {
    let out = "and paths cannot lead out of their source";
    for path in ["..", "../x", "a/../../x", "a/.."] {
        check(
            &format!(r#"{{"type":"read","id":1,"path":"{path}"}}"#),
            &format!("asked for `{path}`, {out}"),
        );
    }
    check(
        r#"{"type":"list","id":1,"path":"/etc"}"#,
        "asked for `/etc`, and paths are relative to the root of their source",
    );
    check(
        r#"{"type":"read","id":1,"path":"a\u0000b"}"#,
        "asked for `a\0b`, and no file has such a name",
    );
    check(
        r#"{"type":"read","id":1,"source":"host","path":"a"}"#,
        "asked for files of `host`, which it was not given; it has `assets`, `context`",
    );
}

#[test]
fn notes() {
    check(r#"{"type":"log","message":"x"}"#, r#"Some(Note(Log("x")))"#);
    check(
        r#"{"type":"diagnostic","severity":"error","message":"m","at":{"line":3}}"#,
        r#"Some(Note(Diagnostic { severity: Error, message: "m", file: None, at: Place { line: 3, column: 0, end_line: 0, end_column: 0 }, help: None }))"#,
    );
}

#[test]
fn nothing_follows_the_end() {
    const END: &str = r#"{"type":"failed"}"#;
    assert_eq!(last(&[HELLO, END]), "Some(End(Failed))");
    assert_eq!(last(&[HELLO, END, "\r"]), "None");
    assert_eq!(last(&[HELLO, END, "x"]), "sent `x` after its last message");
    assert_eq!(
        last(&[HELLO, r#"{"type":"plan","plan":{"version":"x"}}"#, HELLO]),
        r#"sent `{"type":"hello","version":"kiln.frontend/0"}` after its last message"#
    );
}

#[test]
fn what_is_no_message() {
    for line in [
        "{",
        "[]",
        "7",
        "\u{1}",
        r#"{"type":"shout"}"#,
        r#"{"type":"log"}"#,
        r#"{"type":"log","message":"x","volume":11}"#,
        r#"{"type":"read","id":-1,"path":"x"}"#,
        r#"{"type":"failed","why":1}"#,
        r#"{"type":"diagnostic","severity":"fatal","message":"m"}"#,
    ] {
        let said = last(&[HELLO, line]);
        assert!(
            said.ends_with("as line 2, which is no message of the protocol"),
            "{line}: {said}"
        );
    }
    let deep = "[".repeat(100_000);
    assert!(last(&[HELLO, &deep]).contains("no message"));
}

#[test]
fn floods_end() {
    let mut dialogue = Dialogue::new(["context".to_owned()]);
    dialogue.hear(HELLO.as_bytes()).unwrap();
    let line = br#"{"type":"list","id":1}"#;
    let violation = (0..=REQUEST_LIMIT).find_map(|_| dialogue.hear(line).err());
    assert_eq!(
        violation.unwrap().to_string(),
        "sent more than 10000 requests"
    );
    let long = vec![b' '; MESSAGE_LIMIT_BYTES + 1];
    assert!(matches!(
        Dialogue::new([]).hear(&long),
        Err(Violation::TooLong { .. })
    ));
}
