//! Control files: paragraphs of fields (deb822(5)).

/// A paragraph: lines without a blank one between them.
#[derive(Clone, Copy, Debug)]
pub struct Paragraph<'a>(&'a str);

/// Splits a text into its paragraphs.
pub fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let end = rest.find("\n\n").map_or(rest.len(), |end| end + 1);
        let (paragraph, after) = rest.split_at(end);
        rest = after;
        Some(Paragraph(paragraph))
    })
}

impl<'a> Paragraph<'a> {
    /// The fields in order, each with its value as it stands: lines that continue it included.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                if rest.is_empty() {
                    return None;
                }
                let mut end = line_end(rest, 0);
                while rest[end..].starts_with([' ', '\t']) {
                    end = line_end(rest, end);
                }
                let (field, after) = rest.split_at(end);
                rest = after;
                if let Some((name, value)) = field.split_once(':')
                    && !field.starts_with('#')
                {
                    return Some((name, value.trim()));
                }
            }
        })
    }

    /// A field by its name, in any case.
    pub fn field(self, name: &str) -> Option<&'a str> {
        let mut fields = self.fields();
        fields.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
    }
}

/// Where the line ends that begins at `from`, with its end.
fn line_end(text: &str, from: usize) -> usize {
    let found = text.as_bytes()[from..].iter().position(|c| *c == b'\n');
    found.map_or(text.len(), |end| from + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Vec<(&str, &str)>> {
        paragraphs(text)
            .map(|paragraph| paragraph.fields().collect())
            .collect()
    }

    #[test]
    fn fields_and_paragraphs() {
        let text = "\n\nPackage: a\nVersion:1\n\n\n# said\nPackage: b\nDescription: short\n long\n .\n end\n";
        let expected = vec![
            vec![("Package", "a"), ("Version", "1")],
            vec![("Package", "b"), ("Description", "short\n long\n .\n end")],
        ];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn what_is_not_quite_one() {
        assert_eq!(read(""), Vec::<Vec<_>>::new());
        assert_eq!(read("no field\nA: 1"), vec![vec![("A", "1")]]);
        assert_eq!(
            read(" begins oddly: 1\n"),
            vec![vec![(" begins oddly", "1")]]
        );
    }

    #[test]
    fn names_have_no_case() {
        let paragraph = paragraphs("MD5sum: 1\nSHA256:\n a\n b\n").next().unwrap();
        assert_eq!(paragraph.field("md5SUM"), Some("1"));
        assert_eq!(paragraph.field("sha256"), Some("a\n b"));
        assert_eq!(paragraph.field("sha1"), None);
    }
}
