//! One record of comma-separated values, as flags hold it: a field may be quoted as a whole.

use std::borrow::Cow;
use std::ops::Range;

use super::ast::Text;

/// One field, decoded, with its place; quotes included in the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) place: Range<usize>,
}

impl Field<'_> {
    /// Returns a part of the field as a text, shared with `record` where that has it as it is.
    pub(super) fn share(&self, part: &str, record: &Text) -> Text {
        match self.text {
            Cow::Borrowed(_) => record.substr_from(part),
            Cow::Owned(_) => Text::from(part),
        }
    }
}

/// Splits `text` into fields.
pub(super) fn fields(text: &str) -> Result<Vec<Field<'_>>, &'static str> {
    if text.is_empty() {
        return Err("no fields");
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let (field, end) = match text[at..].strip_prefix('"') {
            Some(rest) => {
                let (field, length) = quoted(rest)?;
                (Cow::Owned(field), at + 1 + length)
            }
            None => {
                let field = text[at..].split(',').next().unwrap_or("");
                if field.contains('"') {
                    return Err("bare \" in non-quoted field");
                }
                (Cow::Borrowed(field), at + field.len())
            }
        };
        fields.push(Field {
            text: field,
            place: at..end,
        });
        match text[end..].chars().next() {
            None => return Ok(fields),
            Some(',') => at = end + 1,
            Some(_) => return Err("extraneous or missing \" in quoted-field"),
        }
    }
}

/// Decodes what follows an opening quote, and returns the length with the closing one.
fn quoted(text: &str) -> Result<(String, usize), &'static str> {
    let mut out = String::new();
    let mut rest = text;
    loop {
        let Some(quote) = rest.find('"') else {
            return Err("extraneous or missing \" in quoted-field");
        };
        out.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                out.push('"');
                rest = after;
            }
            None => return Ok((out, text.len() - rest.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[&str], &'static str>) {
        let found = fields(text);
        let texts = found.map(|found| {
            found
                .into_iter()
                .map(|field| field.text.into_owned())
                .collect::<Vec<_>>()
        });
        let expected = expected.map(|all| all.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(texts, expected, "{text:?}");
    }

    #[test]
    fn records() {
        check("a", Ok(&["a"]));
        check("a,b=c", Ok(&["a", "b=c"]));
        check("a,", Ok(&["a", ""]));
        check(",", Ok(&["", ""]));
        check("\"a,b\",c", Ok(&["a,b", "c"]));
        check("\"a\"\"b\"", Ok(&["a\"b"]));
        check("\"\"", Ok(&[""]));
        check(" a , b ", Ok(&[" a ", " b "]));
        check("é,\"ü\"", Ok(&["é", "ü"]));
    }

    #[test]
    fn broken_quotes() {
        check("", Err("no fields"));
        check("a\"b", Err("bare \" in non-quoted field"));
        check("a,\"b", Err("extraneous or missing \" in quoted-field"));
        check("\"a\"b", Err("extraneous or missing \" in quoted-field"));
    }
}
