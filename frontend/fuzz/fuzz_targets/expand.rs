//! Any word is expanded in every way; words that are built with their meaning come to it.
#![no_main]

#[path = "../../tests/oracle/expand.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    oracle::Known::new(&mut bytes.iter().copied()).check();
    if let Ok(word) = std::str::from_utf8(bytes) {
        oracle::check(word);
    }
});
