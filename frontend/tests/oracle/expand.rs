//! What holds of every word that is expanded.

use std::collections::BTreeMap;

use kiln_frontend::dockerfile::expand::{Expander, Expansion};

/// The variables that words are expanded with.
pub(crate) fn environment() -> BTreeMap<String, String> {
    [
        ("a", "1"),
        ("b", "x y"),
        ("e", ""),
        ("d", "$a"),
        ("path", "/usr/local/bin"),
        ("v", "v1.2.3"),
        ("lines", "one\ntwo"),
        ("u", "äöü"),
        ("1", "first"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// Expands a word in every way, and checks what came out.
pub(crate) fn check(word: &str) {
    let environment = environment();
    for escape in ['\\', '`'] {
        let plain = Expander::new(escape);
        for flags in 0..16 {
            let expander = Expander {
                keep_quotes: flags & 1 != 0,
                keep_escapes: flags & 2 != 0,
                ignore_quotes: flags & 4 != 0,
                keep_unset: flags & 8 != 0,
                ..plain
            };
            let found = expander.expand(word, &environment);
            assert_eq!(found, expander.expand(word, &environment), "{word:?}");
            if let Ok(found) = &found {
                check_found(word, escape, expander, found);
            }
        }
        let text = |word: &str| plain.expand(word, &environment).map(|found| found.text);
        // Each character escaped means itself.
        let escaped: String = word.chars().flat_map(|letter| [escape, letter]).collect();
        assert_eq!(text(&escaped).as_deref(), Ok(word));
        if !word.contains('\'') {
            assert_eq!(text(&format!("'{word}'")).as_deref(), Ok(word));
        }
    }
}

fn check_found(word: &str, escape: char, expander: Expander, found: &Expansion) {
    for name in found.matched.iter().chain(&found.unmatched) {
        assert!(word.contains(name.as_str()), "{name:?} is not in {word:?}");
    }
    assert!(found.matched.is_disjoint(&found.unmatched));
    // Splitting only takes white space away.
    let words: String = found.words.concat();
    let is_kept = |letter: &char| !letter.is_whitespace();
    assert!(
        words
            .chars()
            .filter(is_kept)
            .eq(found.text.chars().filter(is_kept)),
        "{word:?} is {found:?}"
    );
    if !word.contains(['$', '\'', '"', escape]) {
        assert_eq!(found.text, word, "{expander:?}");
    }
}

/// A word that is built with its meaning, from bytes that choose its parts.
pub(crate) struct Known {
    /// What is written.
    pub(crate) word: String,
    /// What it expands to.
    pub(crate) value: String,
}

impl Known {
    /// Builds a word; equal bytes give equal words.
    pub(crate) fn new(bytes: &mut impl Iterator<Item = u8>) -> Known {
        let environment = environment();
        known(bytes, &environment, 4)
    }

    /// Expands it, and compares.
    pub(crate) fn check(&self) {
        let found = Expander::new('\\').expand(&self.word, &environment());
        let text = found.map(|found| found.text);
        assert_eq!(text.as_deref(), Ok(self.value.as_str()), "{:?}", self.word);
    }
}

fn known(
    bytes: &mut impl Iterator<Item = u8>,
    environment: &BTreeMap<String, String>,
    depth: usize,
) -> Known {
    let mut all = Known {
        word: String::new(),
        value: String::new(),
    };
    let parts = bytes.next().unwrap_or(0) % 4;
    for _ in 0..parts {
        let choice = bytes.next().unwrap_or(0);
        let name = ["a", "b", "e", "d", "path", "none", "u"][usize::from(choice) % 7];
        let value = environment.get(name);
        let (word, value) = match bytes.next().unwrap_or(0) % 9 {
            0 => (format!("${{{name}}}"), value.cloned().unwrap_or_default()),
            1 => (format!("'{name}$'"), format!("{name}$")),
            2 => ("\\$".to_owned(), "$".to_owned()),
            3 => (format!("\"${{{name}}} \\\"\""), {
                format!("{} \"", value.cloned().unwrap_or_default())
            }),
            choice @ 4..=7 if depth > 0 => {
                let inner = known(bytes, environment, depth - 1);
                let colon = choice & 1 != 0;
                let has = value.is_some_and(|value| !colon || !value.is_empty());
                let operator = if choice < 6 { '-' } else { '+' };
                let colon = if colon { ":" } else { "" };
                let meaning = match (operator, has) {
                    ('-', true) => value.cloned().unwrap_or_default(),
                    ('+', false) => String::new(),
                    _ => inner.value,
                };
                (
                    format!("${{{name}{colon}{operator}{}}}", inner.word),
                    meaning,
                )
            }
            _ => ("x/é".to_owned(), "x/é".to_owned()),
        };
        all.word.push_str(&word);
        all.value.push_str(&value);
    }
    all
}
