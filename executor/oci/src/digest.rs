//! sha256 digests as OCI writes them, and the hashing and checking of streams.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The sha256 of some bytes, written `sha256:` and 64 lower-case hex digits.
///
/// OCI's grammar knows other algorithms; no registry serves them in practice, so they are refused
/// when parsed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256Digest([u8; 32]);

/// Why a string is not a sha256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The algorithm before the colon is missing or is not sha256.
    #[error("digest `{0}` does not begin with `sha256:`")]
    Algorithm(String),
    /// What follows the colon is not 64 lower-case hex digits.
    #[error("digest `{0}` does not have 64 lower-case hex digits after `sha256:`")]
    Hex(String),
}

/// The bytes that were read are not the ones that their name promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The content hashes to another digest.
    #[error("content has digest `{actual}`, not `{expected}`")]
    Digest {
        /// The digest that was asked for.
        expected: Sha256Digest,
        /// The digest of what came.
        actual: Sha256Digest,
    },
    /// The content is longer or shorter than announced; `actual` may stop one chunk too far.
    #[error("content has {actual} bytes, not {expected}")]
    Size {
        /// The announced number of bytes.
        expected: u64,
        /// The number of bytes seen.
        actual: u64,
    },
}

impl Sha256Digest {
    /// Wraps a finished hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Hashes bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the raw hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the 64 hex digits without the algorithm, as file names under `blobs/sha256` have them.
    pub fn hex(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        hex
    }

    /// Parses 64 lower-case hex digits without the algorithm.
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        let mut bytes = [0; 32];
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(DigestError::Hex(clip(hex)));
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (nibble(pair[0]), nibble(pair[1])) else {
                return Err(DigestError::Hex(clip(hex)));
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Keeps a hostile value from filling a message.
fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text
            .strip_prefix("sha256:")
            .ok_or_else(|| DigestError::Algorithm(clip(text)))?;
        Self::from_hex(hex).map_err(|_| DigestError::Hex(clip(text)))
    }
}

impl Serialize for Sha256Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A hash in the making; also a [`Write`] that keeps nothing.
#[derive(Clone, Default)]
pub struct Sha256Hasher {
    state: Sha256,
    bytes: u64,
}

impl Sha256Hasher {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Returns how many bytes it took so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the digest of everything it took.
    pub fn finish(self) -> Sha256Digest {
        Sha256Digest(self.state.finalize().into())
    }
}

impl fmt::Debug for Sha256Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sha256Hasher")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Write for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks chunks as they pass against a digest and, if known, a size.
#[derive(Debug, Clone)]
pub struct Verifier {
    hasher: Sha256Hasher,
    expected: Sha256Digest,
    size: Option<u64>,
}

impl Verifier {
    /// Starts a check of content that must have this digest and, if given, this many bytes.
    pub fn new(expected: Sha256Digest, size: Option<u64>) -> Self {
        Self {
            hasher: Sha256Hasher::new(),
            expected,
            size,
        }
    }

    /// Takes the next bytes; errors as soon as they are more than announced.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), VerifyError> {
        let actual = self.hasher.bytes() + bytes.len() as u64;
        match self.size {
            Some(expected) if actual > expected => Err(VerifyError::Size { expected, actual }),
            _ => {
                self.hasher.update(bytes);
                Ok(())
            }
        }
    }

    /// Returns how many bytes it took so far.
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Errors unless everything that it took is what was expected.
    pub fn finish(self) -> Result<(), VerifyError> {
        let seen = self.hasher.bytes();
        if let Some(expected) = self.size.filter(|&size| size != seen) {
            return Err(VerifyError::Size {
                expected,
                actual: seen,
            });
        }
        let actual = self.hasher.finish();
        if actual == self.expected {
            Ok(())
        } else {
            Err(VerifyError::Digest {
                expected: self.expected,
                actual,
            })
        }
    }
}

/// A reader that ends with an error of kind `InvalidData` (its inner error a [`VerifyError`]) unless
/// the whole content is what was expected.
///
/// Bytes are handed out before they are verified: only the final `Ok(0)` proves them.
#[derive(Debug)]
pub struct VerifyingReader<R> {
    inner: R,
    verifier: Option<Verifier>,
}

impl<R: Read> VerifyingReader<R> {
    /// Wraps a reader of content that must have this digest and, if given, this many bytes.
    pub fn new(inner: R, expected: Sha256Digest, size: Option<u64>) -> Self {
        Self {
            inner,
            verifier: Some(Verifier::new(expected, size)),
        }
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let invalid = |cause| io::Error::new(io::ErrorKind::InvalidData, cause);
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if count > 0 {
            if let Some(verifier) = &mut self.verifier {
                verifier.update(&buffer[..count]).map_err(invalid)?;
            }
        } else if let Some(verifier) = self.verifier.take() {
            verifier.finish().map_err(invalid)?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn display_and_parse_round_trip() {
        let digest = Sha256Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(digest));
        assert_eq!(
            serde_json::to_string(&digest).unwrap(),
            format!("\"{EMPTY}\"")
        );
        assert_eq!(
            serde_json::from_str::<Sha256Digest>(&format!("\"{EMPTY}\"")).unwrap(),
            digest
        );
    }

    #[test]
    fn what_is_no_sha256_is_refused() {
        let upper = EMPTY.replace('e', "E");
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:00",
            "md5:00",
            &EMPTY[7..],
            &upper,
            &format!("{EMPTY}0"),
        ] {
            assert!(text.parse::<Sha256Digest>().is_err(), "{text}");
        }
        assert!(
            format!("sha256:{}", "é".repeat(32))
                .parse::<Sha256Digest>()
                .is_err()
        );
    }

    fn read(content: &[u8], expected: Sha256Digest, size: Option<u64>) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        match VerifyingReader::new(content, expected, size).read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_verifying_reader_ends_well_only_on_the_right_bytes() {
        let digest = Sha256Digest::of(b"abc");
        assert_eq!(read(b"abc", digest, Some(3)), Ok(b"abc".to_vec()));
        assert_eq!(read(b"abc", digest, None), Ok(b"abc".to_vec()));
        assert!(
            read(b"abd", digest, Some(3))
                .unwrap_err()
                .contains(&digest.to_string())
        );
        assert_eq!(
            read(b"ab", digest, Some(3)),
            Err("content has 2 bytes, not 3".into())
        );
        assert_eq!(
            read(b"abcd", digest, Some(3)),
            Err("content has 4 bytes, not 3".into())
        );
    }
}
