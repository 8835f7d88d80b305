//! JSON as Go's `encoding/json` writes it, and reading with a limit.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::DocumentError;

/// Reads a document of at most `limit` bytes; serde_json bounds the depth.
pub(super) fn read<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    limit: u64,
) -> Result<T, DocumentError> {
    let size = bytes.len() as u64;
    if size > limit {
        return Err(DocumentError::TooLarge {
            what,
            bytes: size,
            limit,
        });
    }
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what, source })
}

/// Writes as `json.Marshal` does: no space.
pub(super) fn compact<T: Serialize>(value: &T) -> Vec<u8> {
    write(value, CompactFormatter)
}

/// Writes as `json.MarshalIndent` does with two spaces.
pub(super) fn indented<T: Serialize>(value: &T) -> Vec<u8> {
    write(value, PrettyFormatter::with_indent(b"  "))
}

fn write<T: Serialize, F: Formatter>(value: &T, inner: F) -> Vec<u8> {
    let mut out = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(
            &mut out,
            GoFormatter { inner },
        ))
        .expect("BUG: a document has a key that is not a string");
    out
}

/// Another formatter, with the characters escaped that Go escapes so that JSON may lie in HTML.
struct GoFormatter<F> {
    inner: F,
}

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut characters = special.chars();
            if let Some(character) = characters.next() {
                write!(writer, "\\u{:04x}", u32::from(character))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.inner.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.inner.begin_object_key(writer, first)
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object_key(writer)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: &str) {
        assert_eq!(String::from_utf8(compact(&input)).unwrap(), expected);
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        check("a && b", r#""a \u0026\u0026 b""#);
        check("<\"\\>", r#""\u003c\"\\\u003e""#);
        check("\u{2028}é\u{1}\n\u{7f}", "\"\\u2028é\\u0001\\n\u{7f}\"");
    }

    #[test]
    fn empty_containers_are_short_in_both_forms() {
        let value = serde_json::json!({"a": [], "b": {}, "c": [1, {"d": "&"}]});
        assert_eq!(
            compact(&value),
            br#"{"a":[],"b":{},"c":[1,{"d":"\u0026"}]}"#
        );
        let expected = "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n      \"d\": \"\\u0026\"\n    }\n  ]\n}";
        assert_eq!(String::from_utf8(indented(&value)).unwrap(), expected);
    }

    #[test]
    fn reading_is_bounded() {
        let error = read::<Vec<u8>>("manifest", b"[1,2,3]", 6).unwrap_err();
        assert_eq!(
            error.to_string(),
            "manifest has 7 bytes, more than the limit of 6"
        );
        let deep = "[".repeat(100_000);
        assert!(read::<serde_json::Value>("manifest", deep.as_bytes(), 1 << 20).is_err());
    }
}
