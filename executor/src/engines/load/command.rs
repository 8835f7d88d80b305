//! Into an engine by its own command, which reads an archive from its standard input.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_oci::digest::Sha256Digest;
use kiln_tree::Stop;

use super::Form;
use crate::engines::Engine;
use crate::error::{Error, LOAD};
use crate::export::Parcel;

/// What a command says about its failure.
const WORDS_LIMIT_BYTES: u64 = 64 << 10;

fn failed(engine: Engine, reason: impl Into<String>) -> Error {
    Error::Engine {
        engine,
        attempt: LOAD.to_owned(),
        reason: reason.into(),
    }
}

/// Sends an image.
pub(super) fn send(
    mut command: Command,
    engine: Engine,
    form: Form,
    parcel: &Parcel<'_>,
    stop: &Stop,
    told: &dyn Fn(&Sha256Digest, u64),
) -> Result<(), Error> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(engine, error.to_string()))?;
    let (Some(mut stdin), Some(stderr)) = (child.stdin.take(), child.stderr.take()) else {
        unreachable!("BUG: the command has no pipes");
    };
    let reading = std::thread::spawn(move || {
        let (mut words, mut stderr) = (Vec::new(), stderr);
        let mut first = Read::by_ref(&mut stderr).take(WORDS_LIMIT_BYTES);
        // What cannot be read is not told.
        let _ = first.read_to_end(&mut words);
        let _ = io::copy(&mut stderr, &mut io::sink());
        words
    });
    let written = parcel.write(form, &mut stdin, stop, told);
    let written = written.and_then(|()| stdin.flush().map_err(Error::io("send", "an image")));
    // It sees an archive that ends too soon, if it was cut, and leaves nothing of it.
    drop(stdin);
    let status = child
        .wait()
        .map_err(|error| failed(engine, error.to_string()))?;
    let words = match reading.join() {
        Ok(words) => words,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    match (status.success(), written) {
        _ if stop.is_set() => Err(Error::Cancelled),
        (true, Ok(())) => Ok(()),
        (true, Err(error)) => Err(error),
        // A broken pipe is its doing, and it says why.
        (false, Ok(()) | Err(Error::Io { .. })) => Err(failed(engine, reason(&words))),
        (false, Err(error)) => Err(error),
    }
}

/// The line that says most: podman tries every format, and the archive has one.
fn reason(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let mut lines = words.lines().rev().filter(|line| !line.trim().is_empty());
    let of_format = words.lines().find(|line| line.contains("oci-archive: "));
    let line = of_format.or_else(|| lines.next());
    let line = line.unwrap_or("it failed without a word").trim();
    line.trim_start_matches("* ").chars().take(500).collect()
}

/// Gives an image that podman has its names but for the first, which came with it.
pub(super) fn name_with_podman(program: &Path, parcel: &Parcel<'_>) -> Result<(), Error> {
    let [_, more @ ..] = parcel.names() else {
        return Ok(());
    };
    if more.is_empty() {
        return Ok(());
    }
    let id = parcel.id();
    let id = id.strip_prefix("sha256:").unwrap_or(&id);
    let output = Command::new(program)
        .args(["tag", id])
        .args(more.iter().map(ToString::to_string))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(Engine::Podman, error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(Engine::Podman, reason(&output.stderr))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_most() {
        let check = |words: &str, expected: &str| assert_eq!(reason(words.as_bytes()), expected);
        check("", "it failed without a word");
        check("doing\nctr: no such thing\n\n", "ctr: no such thing");
        let podman = "Error: payload does not match\n * oci-archive: unexpected EOF\n * dir: no\n";
        check(podman, "oci-archive: unexpected EOF");
    }
}
