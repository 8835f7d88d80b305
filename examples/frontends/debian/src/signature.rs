//! Signatures of releases, verified by the programs that apt itself asks: `gpgv`, or `sqv`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What an `InRelease` file consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What is signed: lines without blanks at their ends, the last one without an end.
    pub text: String,
    /// Its signature, in armour.
    pub signature: String,
}

/// Why a release is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The file is not as it should be.
    #[error("its InRelease file is not signed: {0}")]
    Form(&'static str),
    /// A file of keys is none.
    #[error("`{name}` holds no OpenPGP keys")]
    NoKeys {
        /// The file.
        name: String,
    },
    /// There is nothing that could verify.
    #[error("neither `gpgv` nor `sqv` is here to verify its signature; install one of them")]
    NoVerifier,
    /// The verifier did not start, or a file for it could not be written.
    #[error("could not have `{program}` verify its signature")]
    Run {
        /// The verifier.
        program: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It has looked, and found fault.
    #[error("its signature is not valid for the keys of {keys}: {reason}")]
    Invalid {
        /// The files of keys.
        keys: String,
        /// What the verifier says.
        reason: String,
    },
}

/// A file of public keys.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// As it is called where somebody named it.
    pub name: String,
    bytes: Vec<u8>,
}

const MESSAGE: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const SIGNATURE_END: &str = "-----END PGP SIGNATURE-----";
const KEYS: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const KEYS_END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

impl Signed {
    /// Takes a clear-signed file apart; nothing may stand outside of what is signed.
    pub fn parse(file: &str) -> Result<Signed, SignatureError> {
        let wrong = |reason| Err(SignatureError::Form(reason));
        let mut lines = file.lines().map(str::trim_end);
        if lines.next() != Some(MESSAGE) {
            return wrong("it does not begin as a signed message does");
        }
        for line in lines.by_ref() {
            match line {
                "" => break,
                line if line.starts_with("Hash: ") => {}
                _ => return wrong("its head has something else than `Hash`"),
            }
        }
        let mut text = Vec::new();
        let mut found = false;
        for line in lines.by_ref() {
            match line.strip_prefix('-') {
                None => text.push(line),
                Some(_) if line == SIGNATURE => {
                    found = true;
                    break;
                }
                Some(rest) => match rest.strip_prefix(' ') {
                    Some(escaped) => text.push(escaped),
                    None => return wrong("a line within it begins with `-`"),
                },
            }
        }
        if !found {
            return wrong("it has no signature");
        }
        let mut signature = vec![SIGNATURE];
        for line in lines.by_ref() {
            signature.push(line);
            if line == SIGNATURE_END {
                break;
            }
        }
        if signature.last() != Some(&SIGNATURE_END) {
            return wrong("its signature has no end");
        }
        if lines.any(|line| !line.is_empty()) {
            return wrong("something follows the signature");
        }
        Ok(Signed {
            text: text.join("\n"),
            signature: signature.join("\n") + "\n",
        })
    }
}

impl Keyring {
    /// Takes a file of keys, in armour or without.
    pub fn new(name: &str, bytes: Vec<u8>) -> Result<Keyring, SignatureError> {
        let none = || SignatureError::NoKeys {
            name: name.to_owned(),
        };
        let bytes = match std::str::from_utf8(&bytes) {
            Ok(text) if text.contains(KEYS) => dearmour(text).ok_or_else(none)?,
            _ => bytes,
        };
        // The first packet is a public key, in the old form or in the new one.
        let is_key = bytes.first().is_some_and(|tag| match tag & 0xc0 {
            0x80 => (tag >> 2) & 0xf == 6,
            0xc0 => tag & 0x3f == 6,
            _ => false,
        });
        match is_key {
            true => Ok(Keyring {
                name: name.to_owned(),
                bytes,
            }),
            false => Err(none()),
        }
    }
}

/// The bytes of all blocks of keys.
fn dearmour(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while lines.by_ref().any(|line| line == KEYS) {
        let block = lines.by_ref().take_while(|line| *line != KEYS_END);
        // Before the blank line stand `Comment` and the like; `=` begins a checksum.
        let block: Vec<&str> = block.skip_while(|line| !line.is_empty()).collect();
        let data: String = block
            .into_iter()
            .filter(|line| !line.starts_with('='))
            .collect();
        bytes.extend(STANDARD.decode(data).ok()?);
    }
    Some(bytes)
}

/// Verifies that one of the keys has signed the text.
pub fn verify(signed: &Signed, keys: &[Keyring]) -> Result<(), SignatureError> {
    let Some((program, verifier)) = verifier() else {
        return Err(SignatureError::NoVerifier);
    };
    let run = |source| SignatureError::Run {
        program: program.display().to_string(),
        source,
    };
    let directory = tempfile::tempdir().map_err(run)?;
    let place = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).map(|()| path)
    };
    let text = place("Release", signed.text.as_bytes()).map_err(run)?;
    let signature = place("Release.gpg", signed.signature.as_bytes()).map_err(run)?;
    let mut command = Command::new(&program);
    for (number, keyring) in keys.iter().enumerate() {
        let path = place(&format!("keys-{number}.gpg"), &keyring.bytes).map_err(run)?;
        command.arg("--keyring").arg(path);
    }
    if verifier == Verifier::Gpgv {
        command
            .args(["--status-fd", "1", "--homedir"])
            .arg(directory.path());
    }
    command.arg(signature).arg(text);
    command.stdin(Stdio::null()).env("LC_ALL", "C");
    let output = command.output().map_err(run)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let reason = match verifier {
        Verifier::Gpgv => judge(&said),
        Verifier::Sqv if output.status.success() => None,
        Verifier::Sqv => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().rfind(|line| !line.trim().is_empty());
            Some(line.unwrap_or("no good signature").trim().to_owned())
        }
    };
    match reason {
        None => Ok(()),
        Some(reason) => {
            let names: Vec<String> = keys.iter().map(|keys| format!("`{}`", keys.name)).collect();
            Err(SignatureError::Invalid {
                keys: names.join(", "),
                reason,
            })
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verifier {
    Gpgv,
    Sqv,
}

fn verifier() -> Option<(PathBuf, Verifier)> {
    let find = |name: &str| {
        let path = std::env::var_os("PATH")?;
        let mut places = std::env::split_paths(&path).map(|place| place.join(name));
        places.find(|file: &PathBuf| Path::is_file(file))
    };
    let gpgv = find("gpgv").map(|path| (path, Verifier::Gpgv));
    gpgv.or_else(|| find("sqv").map(|path| (path, Verifier::Sqv)))
}

/// Reads what gpgv says in lines for programs: one good signature is needed, and no bad one.
///
/// Its exit code says less: a release has several signatures, of keys that are not all here.
fn judge(status: &str) -> Option<String> {
    let mut good = false;
    let mut valid = false;
    let mut unknown = Vec::new();
    for line in status.lines() {
        let Some(line) = line.strip_prefix("[GNUPG:] ") else {
            continue;
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let who = || words.get(1).copied().unwrap_or_default();
        match words.first().copied().unwrap_or_default() {
            "GOODSIG" => good = true,
            "VALIDSIG" => {
                // 1 to 3 are MD5, SHA-1 and RIPEMD-160, which can be forged.
                if good && matches!(words.get(8).copied(), Some("1" | "2" | "3") | None) {
                    return Some("it is made with a digest that can be forged".to_owned());
                }
                valid |= good;
                good = false;
            }
            "BADSIG" => return Some(format!("what key {} signed is not this", who())),
            "EXPKEYSIG" => unknown.push(format!("key {} has expired", who())),
            "EXPSIG" => unknown.push(format!("the signature of key {} has expired", who())),
            "REVKEYSIG" => unknown.push(format!("key {} is revoked", who())),
            "NO_PUBKEY" => unknown.push(format!("key {} is not among them", who())),
            _ => {}
        }
    }
    match (valid, unknown.is_empty()) {
        (true, _) => None,
        (false, true) => Some("there is no signature in it".to_owned()),
        (false, false) => Some(unknown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> String {
        format!("{MESSAGE}\nHash: SHA512\n\n{body}\n{SIGNATURE}\n\nabc\n{SIGNATURE_END}\n")
    }

    #[test]
    fn signed_messages_are_taken_apart() {
        let signed = Signed::parse(&message("A: 1  \n- -dash\n b")).unwrap();
        assert_eq!(signed.text, "A: 1\n-dash\n b");
        assert_eq!(
            signed.signature,
            format!("{SIGNATURE}\n\nabc\n{SIGNATURE_END}\n")
        );
        let signed = Signed::parse(&message("A: 1").replace('\n', "\r\n")).unwrap();
        assert_eq!(signed.text, "A: 1");
    }

    #[test]
    fn nothing_may_hide_beside_what_is_signed() {
        let check = |file: &str, expected: &str| {
            let error = Signed::parse(file).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("its InRelease file is not signed: {expected}")
            );
        };
        check("A: 1\n", "it does not begin as a signed message does");
        check(
            &format!("A: 1\n{}", message("B: 1")),
            "it does not begin as a signed message does",
        );
        check(
            &format!("{}A: 1\n", message("B: 1")),
            "something follows the signature",
        );
        check(&message("-dash"), "a line within it begins with `-`");
        check(
            &message("B: 1").replace("Hash: SHA512", "A: 1"),
            "its head has something else than `Hash`",
        );
        check(&format!("{MESSAGE}\n\nA: 1\n"), "it has no signature");
        check(
            &format!("{MESSAGE}\n\nA: 1\n{SIGNATURE}\nabc"),
            "its signature has no end",
        );
    }

    #[test]
    fn keys_in_armour_and_without() {
        let bare = Keyring::new("a.gpg", vec![0x99, 1, 2]).unwrap();
        let armoured = format!("note\n{KEYS}\nComment: x\n\nmQEC\n=abcd\n{KEYS_END}\n");
        assert_eq!(
            Keyring::new("a.asc", armoured.into_bytes()).unwrap().bytes,
            bare.bytes
        );
        for wrong in ["", "text", &format!("{KEYS}\n\n!!\n{KEYS_END}\n")] {
            let error = Keyring::new("x", wrong.as_bytes().to_vec()).unwrap_err();
            assert_eq!(error.to_string(), "`x` holds no OpenPGP keys");
        }
    }

    #[test]
    fn what_gpgv_says() {
        let check = |status: &str, expected: Option<&str>| {
            let lines: Vec<String> = status
                .split(';')
                .map(|line| format!("[GNUPG:] {line}"))
                .collect();
            assert_eq!(judge(&lines.join("\n")).as_deref(), expected, "{status}");
        };
        let valid = "VALIDSIG F 2026-01-01 1 0 4 0 1 10 01 F";
        check(&format!("NO_PUBKEY B;GOODSIG A x;{valid}"), None);
        check(&format!("EXPKEYSIG A x;{valid}"), Some("key A has expired"));
        check(&format!("REVKEYSIG A x;{valid}"), Some("key A is revoked"));
        check("NO_PUBKEY B", Some("key B is not among them"));
        check("BADSIG A x", Some("what key A signed is not this"));
        check(
            &format!("GOODSIG A x;{valid};BADSIG B y"),
            Some("what key B signed is not this"),
        );
        check("NODATA 1", Some("there is no signature in it"));
        check("GOODSIG A x", Some("there is no signature in it"));
        let weak = valid.replace(" 10 01", " 2 01");
        check(
            &format!("GOODSIG A x;{weak}"),
            Some("it is made with a digest that can be forged"),
        );
    }
}
