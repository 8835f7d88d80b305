//! What patterns in ops mean: those of moby's patternmatcher, and Go's `filepath.Match`.
//!
//! A [`PatternList`] decides about paths as `.dockerignore` does: patterns match from the root of
//! the tree, `**` is any number of directories, a pattern that matches a directory covers what is
//! below it, the last match wins and `!` takes back. Classes are negated by `^` alone, braces are
//! literal, and case counts. Where moby's translation into regular expressions leaks (`\d` for a
//! digit, `^` as an anchor, `[*]` as a closure, newlines that `**` does not cross), the meaning
//! here is that of `filepath.Match`.

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A class is not closed, is empty or has an open range, or a backslash stands last.
    #[error("pattern `{pattern}` {problem}")]
    Syntax {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A `!` has nothing to take back.
    #[error("pattern `!` takes back nothing; write a path after the `!`")]
    BareNegation,
}

/// Patterns in order, compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatternList {
    patterns: Vec<Pattern>,
}

/// What is known of a directory: which pattern decided about it.
///
/// A path below it needs to be compared only with later patterns. The default is the root of a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PatternState {
    /// One more than the index of the last pattern that matches the path or a parent of it.
    decided: usize,
    excluded: bool,
}

impl PatternState {
    /// Returns whether the path that it was made for is excluded.
    pub fn is_excluded(self) -> bool {
        self.excluded
    }

    /// Returns the index of the pattern that decided, among those that the list was made of.
    pub fn decided_by(self) -> Option<usize> {
        self.decided.checked_sub(1)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// It takes back.
    negated: bool,
    matcher: Matcher,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Matcher {
    /// The pattern is empty. It stays in the list, so that an index is that of the pattern as given.
    Nothing,
    /// No wildcard.
    Exact(String),
    /// `prefix**`.
    Prefix(String),
    /// `**suffix`.
    Suffix(String),
    /// Anything else.
    Automaton(Automaton),
}

impl PatternList {
    /// Compiles patterns; blanks around them are dropped, empty ones match nothing, paths are cleaned.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let mut list = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                list.push(Pattern {
                    negated: false,
                    matcher: Matcher::Nothing,
                });
                continue;
            }
            let (negated, path) = match pattern.strip_prefix('!') {
                Some(path) => (true, path),
                None => (false, pattern),
            };
            if path.is_empty() {
                return Err(PatternError::BareNegation);
            }
            list.push(Pattern {
                negated,
                matcher: Matcher::compile(&clean(path))?,
            });
        }
        Ok(Self { patterns: list })
    }

    /// Returns whether no pattern can match anything.
    pub fn is_empty(&self) -> bool {
        let mut patterns = self.patterns.iter();
        patterns.all(|pattern| pattern.matcher == Matcher::Nothing)
    }

    /// Returns whether a pattern takes back.
    pub fn has_negations(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// Returns whether `path` is excluded: the last pattern that matches it or a parent takes nothing back.
    ///
    /// `path` is relative to the root, with `/` between parts and none at the ends. The root itself
    /// (`""` or `.`) is never excluded.
    pub fn matches(&self, path: &str) -> bool {
        self.decide(path).excluded
    }

    /// Decides about `path` from the root on; [`PatternList::matches`] says how it is written.
    pub fn decide(&self, path: &str) -> PatternState {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        let state = parents.fold(PatternState::default(), |state, parent| {
            self.enter(state, parent)
        });
        self.enter(state, path)
    }

    /// Decides about `path`, whose parent directory was decided as `parent`.
    pub fn enter(&self, parent: PatternState, path: &str) -> PatternState {
        if matches!(path, "" | ".") {
            return parent;
        }
        let later = self.patterns.iter().enumerate().skip(parent.decided).rev();
        for (index, pattern) in later {
            if pattern.matcher.matches(path) {
                return PatternState {
                    decided: index + 1,
                    excluded: !pattern.negated,
                };
            }
        }
        parent
    }

    /// Returns whether a `!` pattern can match something below `dir`, so that it has to be walked even
    /// if it is excluded.
    pub fn matches_below_possible(&self, dir: &str) -> bool {
        self.below_possible(PatternState::default(), dir)
    }

    /// As [`PatternList::matches_below_possible`], where only patterns after those that decided count.
    pub fn below_possible(&self, state: PatternState, dir: &str) -> bool {
        let later = &self.patterns[state.decided.min(self.patterns.len())..];
        later
            .iter()
            .any(|pattern| pattern.negated && pattern.matcher.possible_below(dir))
    }
}

impl Matcher {
    fn compile(pattern: &str) -> Result<Self, PatternError> {
        let automaton = Automaton::compile(pattern)?;
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        // moby decides by these forms before it looks at directories: `**foo` also matches `a/xfoo`.
        Ok(if plain(pattern) {
            Self::Exact(pattern.to_owned())
        } else if let Some(suffix) = pattern.strip_prefix("**").filter(|suffix| plain(suffix)) {
            Self::Suffix(suffix.to_owned())
        } else if let Some(prefix) = pattern.strip_suffix("**").filter(|prefix| plain(prefix)) {
            Self::Prefix(prefix.to_owned())
        } else {
            Self::Automaton(automaton)
        })
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Exact(text) => path == text,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => {
                path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path)
            }
            Self::Automaton(automaton) => automaton.matches(path),
        }
    }

    fn possible_below(&self, dir: &str) -> bool {
        if matches!(dir, "" | ".") {
            return true;
        }
        let below = |text: &str| {
            text.strip_prefix(dir)
                .is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
        };
        match self {
            Self::Nothing => false,
            Self::Exact(text) => below(text),
            Self::Prefix(prefix) => below(prefix) || format!("{dir}/").starts_with(prefix.as_str()),
            Self::Suffix(_) => true,
            Self::Automaton(automaton) => automaton.possible_below(dir),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: a character within a name.
    Any,
    /// `[…]`.
    Class(Class),
    /// `*`: any characters within a name.
    Star,
    /// `**`, before something: nothing, or …
    Dirs,
    /// … anything up to and including a `/`.
    InDirs,
    /// `**` at the end: anything.
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn contains(&self, character: char) -> bool {
        self.ranges
            .iter()
            .any(|&(low, high)| low <= character && character <= high)
            != self.negated
    }
}

/// A nondeterministic automaton, run on all its states at once: linear in the path, whatever the pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Automaton {
    tokens: Vec<Token>,
    /// The characters that a match begins with.
    prefix: String,
    /// The characters that a match ends in.
    suffix: String,
}

impl Automaton {
    fn compile(pattern: &str) -> Result<Self, PatternError> {
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("**") {
                rest = after.strip_prefix('/').unwrap_or(after);
                match rest {
                    "" => tokens.push(Token::Rest),
                    _ => tokens.extend([Token::Dirs, Token::InDirs]),
                }
                continue;
            }
            let (token, after) = next_token(rest, first, pattern)?;
            tokens.push(token);
            rest = after;
        }
        let literal = |token: &Token| match token {
            Token::Char(character) => Some(*character),
            _ => None,
        };
        let prefix = tokens.iter().map_while(literal).collect();
        let mut suffix: Vec<char> = tokens.iter().rev().map_while(literal).collect();
        suffix.reverse();
        Ok(Self {
            prefix,
            suffix: suffix.into_iter().collect(),
            tokens,
        })
    }

    fn matches(&self, path: &str) -> bool {
        if !path.starts_with(self.prefix.as_str()) || !path.ends_with(self.suffix.as_str()) {
            return false;
        }
        self.run(path.chars(), |states| states.has(self.tokens.len()))
    }

    fn possible_below(&self, dir: &str) -> bool {
        // What is alive before the end can still consume a name; the end itself would be `dir/`.
        self.run(dir.chars().chain(['/']), |states| {
            (0..self.tokens.len()).any(|state| states.has(state))
        })
    }

    fn run(&self, input: impl Iterator<Item = char>, accept: impl Fn(&States<'_>) -> bool) -> bool {
        let words = self.tokens.len() / 64 + 1;
        let (mut small, mut large) = ([0; 8], Vec::new());
        let space = match words * 2 <= small.len() {
            true => &mut small[..words * 2],
            false => {
                large.resize(words * 2, 0);
                &mut large[..]
            }
        };
        let (now, next) = space.split_at_mut(words);
        let (mut now, mut next) = (States(now), States(next));
        self.reach(&mut now, 0);
        for character in input {
            next.0.fill(0);
            for word in 0..words {
                let mut bits = now.0[word];
                while bits != 0 {
                    let state = word * 64 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    self.step(state, character, &mut next);
                }
            }
            if next.0.iter().all(|&word| word == 0) {
                return false;
            }
            std::mem::swap(&mut now, &mut next);
        }
        accept(&now)
    }

    fn step(&self, state: usize, character: char, next: &mut States<'_>) {
        match self.tokens.get(state) {
            None => {}
            Some(Token::Char(expected)) if *expected == character => self.reach(next, state + 1),
            Some(Token::Any) if character != '/' => self.reach(next, state + 1),
            Some(Token::Class(class)) if class.contains(character) => self.reach(next, state + 1),
            Some(Token::Star) if character != '/' => self.reach(next, state),
            Some(Token::Rest) => self.reach(next, state),
            Some(Token::InDirs) => {
                self.reach(next, state);
                if character == '/' {
                    self.reach(next, state + 1);
                }
            }
            Some(_) => {}
        }
    }

    /// Marks `state` and those that it reaches without a character.
    fn reach(&self, states: &mut States<'_>, mut state: usize) {
        while !states.has(state) {
            states.add(state);
            match self.tokens.get(state) {
                Some(Token::Star | Token::Rest) => state += 1,
                Some(Token::Dirs) => {
                    states.add(state + 1);
                    state += 2;
                }
                _ => return,
            }
        }
    }
}

/// A set of states, one bit each; one more than there are tokens.
struct States<'a>(&'a mut [u64]);

impl States<'_> {
    fn has(&self, state: usize) -> bool {
        self.0[state / 64] & 1 << (state % 64) != 0
    }

    fn add(&mut self, state: usize) {
        self.0[state / 64] |= 1 << (state % 64);
    }
}

/// Reads one token that is not `**`; `first` is the first character of `rest`.
fn next_token<'a>(
    rest: &'a str,
    first: char,
    pattern: &str,
) -> Result<(Token, &'a str), PatternError> {
    let after = &rest[first.len_utf8()..];
    Ok(match first {
        '*' => (Token::Star, after),
        '?' => (Token::Any, after),
        '[' => {
            let (class, after) = parse_class(after, pattern)?;
            (Token::Class(class), after)
        }
        '\\' => {
            let escaped = after
                .chars()
                .next()
                .ok_or_else(|| syntax(pattern, "ends in a `\\` that escapes nothing"))?;
            (Token::Char(escaped), &after[escaped.len_utf8()..])
        }
        character => (Token::Char(character), after),
    })
}

fn syntax(pattern: &str, problem: &'static str) -> PatternError {
    PatternError::Syntax {
        pattern: pattern.to_owned(),
        problem,
    }
}

/// Parses a class after its `[`.
fn parse_class<'a>(mut rest: &'a str, pattern: &str) -> Result<(Class, &'a str), PatternError> {
    let negated = rest.starts_with('^');
    rest = &rest[usize::from(negated)..];
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty()
            && let Some(after) = rest.strip_prefix(']')
        {
            return Ok((Class { negated, ranges }, after));
        }
        let (low, after) = class_character(rest, pattern)?;
        let (high, after) = match after.strip_prefix('-') {
            Some(after) => class_character(after, pattern)?,
            None => (low, after),
        };
        ranges.push((low, high));
        rest = after;
    }
}

fn class_character<'a>(rest: &'a str, pattern: &str) -> Result<(char, &'a str), PatternError> {
    const OPEN: &str = "has a class that is not closed";
    let mut characters = rest.chars();
    let character = match characters.next() {
        None => return Err(syntax(pattern, OPEN)),
        Some('-' | ']') => {
            return Err(syntax(
                pattern,
                "has a class that is empty or has an open range",
            ));
        }
        Some('\\') => characters.next().ok_or_else(|| syntax(pattern, OPEN))?,
        Some(character) => character,
    };
    match characters.as_str() {
        "" => Err(syntax(pattern, OPEN)),
        rest => Ok((character, rest)),
    }
}

/// Returns whether `name` matches `pattern` by the rules of Go's `filepath.Match`, as wildcards in COPY do.
///
/// `*` and `?` stay within a name, `**` is no more than `*`.
pub fn wildcard_match(pattern: &str, name: &str) -> Result<bool, PatternError> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let (token, after) = next_token(rest, first, pattern)?;
        tokens.push(token);
        rest = after;
    }
    let automaton = Automaton {
        tokens,
        prefix: String::new(),
        suffix: String::new(),
    };
    Ok(automaton.matches(name))
}

/// Returns whether `text` has a wildcard that no backslash escapes.
pub fn has_wildcard(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

/// Returns the shortest equal path, as Go's `path.Clean` does: no `.`, no `//`, no `..` but in front.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}
