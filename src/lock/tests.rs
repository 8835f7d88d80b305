//! The file: its bytes, and what it refuses.

use std::path::Path;

use super::Lock;

const GOLDEN: &str = include_str!("golden.json");

fn read(text: &str) -> Result<Lock, String> {
    Lock::read(Path::new("kiln.lock"), text.as_bytes()).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    })
}

#[test]
fn the_golden_file_reads_and_prints_as_it_is() {
    let lock = read(GOLDEN).unwrap();
    assert_eq!(lock.print(), GOLDEN);
    assert_eq!(lock.images.len(), 2);
    assert_eq!(lock.git.len(), 2);
    assert_eq!((lock.http.len(), lock.times.len()), (1, 1));
}

#[test]
fn order_and_space_do_not_matter() {
    let value: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
    let mut members: Vec<_> = value.as_object().unwrap().iter().collect();
    members.reverse();
    let members: Vec<String> = members
        .into_iter()
        .map(|(key, value)| format!("\"{key}\":{value}"))
        .collect();
    let text = format!("{{{}}}", members.join(","));
    assert_eq!(read(&text).unwrap().print(), GOLDEN);
}

#[test]
fn least_lock() {
    let lock = read(r#"{"version":"kiln.lock/0"}"#).unwrap();
    assert_eq!(lock, Lock::default());
    assert_eq!(read(&lock.print()).unwrap(), lock);
}

#[test]
fn refused() {
    let check = |from: &str, to: &str, expected: &str| {
        assert!(GOLDEN.contains(from), "{from}");
        let error = read(&GOLDEN.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check("kiln.lock/0", "kiln.lock/1", "of the version `kiln.lock/1`");
    check("\"times\"", "\"dates\"", "unknown field `dates`");
    check("\"commit\"", "\"comit\"", "unknown field `comit`");
    check("\"manifest\"", "\"digest\"", "unknown field `digest`");
    check(
        "app.git?keep-git-dir=true#v1",
        "app.git#main",
        "#main` is there twice at line",
    );
    check(
        "linux/arm64\": {",
        "linux/amd64\": {",
        "`linux/amd64` is there twice",
    );
    check("sha256:11", "sha1:11", "which is no digest");
    check("\"commit\": \"33", "\"commit\": \"ZZ", "which is no commit");
    check(
        "    \"linux/amd64\"",
        "    \"a/b/c/d/e\"",
        "names the platform `a/b/c/d/e`",
    );
    assert!(read("[]").is_err() && read("").is_err());
    let deep = "[".repeat(100_000);
    assert!(read(&format!("{{\"version\":\"kiln.lock/0\",\"images\":{deep}")).is_err());
}
