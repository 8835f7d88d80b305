//! Any bytes are parsed: no panic, places within the text, and a tree that can be printed.
#![no_main]

#[path = "../../tests/oracle/parse.rs"]
mod oracle;

use kiln_frontend::dockerfile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (text, parsed) = dockerfile::parse_bytes(bytes);
    // In a comment it does no harm.
    if std::str::from_utf8(bytes).is_err() && !bytes.contains(&b'#') {
        assert!(parsed.has_errors());
    }
    let _ = dockerfile::parse_trigger(&text);
    oracle::check(&text);
});
