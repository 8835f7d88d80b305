//! An ignore file, and on its last line a path: a plain matcher decides the same.
#![no_main]

#[path = "../../tests/oracle/ignore.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, path) = text.rsplit_once('\n').unwrap_or(("", text));
    oracle::check(file, path);
});
