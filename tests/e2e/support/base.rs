//! The root file system that most cases begin with: the one that `examples/base.sh` writes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The tar of the base, made once per run.
pub(crate) fn archive() -> &'static [u8] {
    &made().0
}

/// Whether it is one static busybox.
pub(super) fn has_busybox() -> bool {
    made().1.contains("busybox") && !made().1.contains("no static busybox")
}

fn made() -> &'static (Vec<u8>, String) {
    static MADE: OnceLock<(Vec<u8>, String)> = OnceLock::new();
    MADE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/base.sh");
        let output = Command::new("sh")
            .arg(&script)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "examples/base.sh: {words}");
        (output.stdout, words)
    })
}
