//! Any text is lowered: a valid plan with places within the text, or errors.
#![no_main]

#[path = "../../tests/oracle/lower.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| oracle::check(text));
