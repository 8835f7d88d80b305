//! Patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` and `?`, neither of which matches a line break.

use super::ExpandErrorKind;

/// How many characters one pattern may be compared with; honest words need a few thousand.
const BUDGET: usize = 1 << 24;

/// A parsed pattern: what stands between its stars.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    parts: Vec<Vec<Letter>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    Plain(char),
    Any,
}

impl Letter {
    fn matches(self, letter: char) -> bool {
        match self {
            Letter::Plain(plain) => plain == letter,
            Letter::Any => letter != '\n',
        }
    }
}

impl Pattern {
    /// Parses a pattern: a backslash escapes a wildcard, a backslash, and what ends the pattern.
    pub(super) fn parse(text: &str) -> Result<Self, ExpandErrorKind> {
        let mut parts = vec![Vec::new()];
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            let letter = match letter {
                '*' => {
                    // Stars in a row are one.
                    if parts.len() == 1 || parts.last().is_some_and(|part| !part.is_empty()) {
                        parts.push(Vec::new());
                    }
                    continue;
                }
                '?' => Letter::Any,
                '\\' => match letters.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Letter::Plain(escaped),
                    other => {
                        return Err(ExpandErrorKind::InvalidPattern {
                            pattern: text.to_owned(),
                            escaped: other.map(String::from).unwrap_or_default(),
                        });
                    }
                },
                plain => Letter::Plain(plain),
            };
            if let Some(part) = parts.last_mut() {
                part.push(letter);
            }
        }
        Ok(Pattern { parts })
    }

    fn reversed(&self) -> Pattern {
        let parts = self.parts.iter().rev();
        Pattern {
            parts: parts
                .map(|part| part.iter().rev().copied().collect())
                .collect(),
        }
    }

    /// Removes the shortest or longest match at the start of `value`.
    pub(super) fn trim_prefix(
        &self,
        value: &str,
        longest: bool,
    ) -> Result<String, ExpandErrorKind> {
        let letters: Vec<char> = value.chars().collect();
        let mut search = Search::new(self, &letters);
        let end = search.end(0, longest)?.unwrap_or(0);
        Ok(letters[end..].iter().collect())
    }

    /// Removes the shortest or longest match at the end of `value`.
    pub(super) fn trim_suffix(
        &self,
        value: &str,
        longest: bool,
    ) -> Result<String, ExpandErrorKind> {
        let letters: Vec<char> = value.chars().rev().collect();
        let pattern = self.reversed();
        let mut search = Search::new(&pattern, &letters);
        let end = search.end(0, longest)?.unwrap_or(0);
        Ok(letters[end..].iter().rev().collect())
    }
}

/// Replaces the first longest match; the replacement is literal.
pub(super) fn replace_first(
    pattern: &Pattern,
    value: &str,
    replacement: &str,
) -> Result<String, ExpandErrorKind> {
    let letters: Vec<char> = value.chars().collect();
    let mut search = Search::new(pattern, &letters);
    let Some((start, end)) = search.first(0)? else {
        return Ok(value.to_owned());
    };
    let mut out: String = letters[..start].iter().collect();
    out.push_str(replacement);
    out.extend(&letters[end..]);
    Ok(out)
}

/// Replaces all matches; in the replacement `$0` is the match, `$$` a dollar, other names nothing.
pub(super) fn replace_all(
    pattern: &Pattern,
    value: &str,
    replacement: &str,
) -> Result<String, ExpandErrorKind> {
    let letters: Vec<char> = value.chars().collect();
    let mut search = Search::new(pattern, &letters);
    let mut out = String::new();
    let mut copied = 0;
    let mut from = 0;
    while from <= letters.len() {
        let Some((start, end)) = search.first(from)? else {
            break;
        };
        out.extend(&letters[copied..start]);
        // An empty match right after another match does not count.
        if end > copied || start == 0 {
            fill(&mut out, replacement, &letters[start..end]);
            search.spend(replacement.len())?;
        }
        copied = end;
        from = end.max(from + 1);
    }
    out.extend(&letters[copied..]);
    Ok(out)
}

/// Adds `template` with its references to the match resolved.
fn fill(out: &mut String, template: &str, matched: &[char]) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        match reference(after) {
            Some((name, after)) => {
                if name == "0" {
                    out.extend(matched);
                }
                rest = after;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
}

/// Reads `name` or `{name}`, and returns what is after it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (braced, text) = match text.strip_prefix('{') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let end = text
        .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    match braced {
        true => Some((name, rest.strip_prefix('}')?)),
        false => Some((name, rest)),
    }
}

/// One value being searched for one pattern, within the budget.
struct Search<'a> {
    pattern: &'a Pattern,
    letters: &'a [char],
    budget: usize,
}

impl<'a> Search<'a> {
    fn new(pattern: &'a Pattern, letters: &'a [char]) -> Self {
        Search {
            pattern,
            letters,
            budget: BUDGET,
        }
    }

    fn spend(&mut self, steps: usize) -> Result<(), ExpandErrorKind> {
        self.budget = self
            .budget
            .checked_sub(steps)
            .ok_or(ExpandErrorKind::TooLong(BUDGET))?;
        Ok(())
    }

    /// Returns the leftmost match at or after `from`, the longest there.
    fn first(&mut self, from: usize) -> Result<Option<(usize, usize)>, ExpandErrorKind> {
        for start in from..=self.letters.len() {
            if let Some(end) = self.end(start, true)? {
                return Ok(Some((start, end)));
            }
        }
        Ok(None)
    }

    /// Returns the end of the shortest or longest match that begins at `start`.
    ///
    /// A star cannot cross a line break, so the earliest place for each part but the last is as
    /// good as any later one.
    fn end(&mut self, start: usize, longest: bool) -> Result<Option<usize>, ExpandErrorKind> {
        let pattern = self.pattern;
        let Some((first, others)) = pattern.parts.split_first() else {
            return Ok(Some(start));
        };
        if !self.here(first, start)? {
            return Ok(None);
        }
        let mut at = start + first.len();
        for (index, part) in others.iter().enumerate() {
            let last = longest && index + 1 == others.len();
            match self.find(part, at, last)? {
                Some(place) => at = place + part.len(),
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn here(&mut self, part: &[Letter], at: usize) -> Result<bool, ExpandErrorKind> {
        self.spend(1)?;
        let Some(letters) = self.letters.get(at..at + part.len()) else {
            return Ok(false);
        };
        for (letter, found) in part.iter().zip(letters) {
            if !letter.matches(*found) {
                return Ok(false);
            }
            self.spend(1)?;
        }
        Ok(true)
    }

    /// Finds the first or last place of `part` that a star from `at` reaches.
    fn find(
        &mut self,
        part: &[Letter],
        at: usize,
        last: bool,
    ) -> Result<Option<usize>, ExpandErrorKind> {
        if last {
            let line = &self.letters[at..];
            let reach = line
                .iter()
                .position(|letter| *letter == '\n')
                .unwrap_or(line.len());
            self.spend(reach)?;
            for place in (at..=at + reach).rev() {
                if self.here(part, place)? {
                    return Ok(Some(place));
                }
            }
            return Ok(None);
        }
        for place in at..=self.letters.len() {
            if self.here(part, place)? {
                return Ok(Some(place));
            }
            if self.letters.get(place) == Some(&'\n') {
                break;
            }
        }
        Ok(None)
    }
}
