//! Paragraphs of `Key: value` lines, as in dpkg's status, Python's METADATA and jar manifests.

/// One paragraph: keys with their values, continuation lines joined by newlines.
#[derive(Debug, Default)]
pub(super) struct Paragraph<'a> {
    fields: Vec<(&'a str, String)>,
}

impl Paragraph<'_> {
    /// The first value of a key, whatever its case; empty where there is none.
    pub(super) fn get(&self, key: &str) -> &str {
        self.all(key).next().unwrap_or_default()
    }

    /// All values of a key.
    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.fields
            .iter()
            .filter(move |(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.as_str())
    }
}

/// Splits a text into paragraphs; lines that are neither a field nor go on with one are skipped.
pub(super) fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph<'_>> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut paragraph = Paragraph::default();
        for line in lines.by_ref() {
            if line.trim().is_empty() {
                match paragraph.fields.is_empty() {
                    true => continue,
                    false => return Some(paragraph),
                }
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = paragraph.fields.last_mut() {
                    value.push('\n');
                    value.push_str(line.trim());
                }
            } else if let Some((key, value)) = line.split_once(':') {
                paragraph.fields.push((key.trim(), value.trim().to_owned()));
            }
        }
        (!paragraph.fields.is_empty()).then_some(paragraph)
    })
}
