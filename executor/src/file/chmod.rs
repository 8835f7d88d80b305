//! Symbolic permission bits, as `chmod` and `COPY --chmod` take them: `u=rwX,go=rX`.

/// Text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a mode: it must be octal (0644) or symbolic (u=rwX,go=rX)")]
pub struct ModeError(String);

/// A parsed symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SymbolicMode {
    clauses: Vec<Clause>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    /// Which of the user, group and other bits: a mask of 0o7777 bits.
    who: u32,
    actions: Vec<(char, Permissions)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Permissions {
    /// `rwx` as bits 4, 2 and 1.
    bits: u32,
    /// `X`: execution where the file is a directory or anybody may execute it already.
    execute_if_any: bool,
    set_id: bool,
    sticky: bool,
    /// Copied from the user, group or other bits.
    from: Option<char>,
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o1007;

impl SymbolicMode {
    /// Parses a comma-separated list of clauses.
    pub(crate) fn parse(text: &str) -> Result<SymbolicMode, ModeError> {
        let refuse = || ModeError(text.to_owned());
        let clauses = text
            .split(',')
            .map(|clause| parse_clause(clause).ok_or_else(refuse));
        Ok(SymbolicMode {
            clauses: clauses.collect::<Result<_, _>>()?,
        })
    }

    /// Returns the bits that a file with `mode` gets.
    pub(crate) fn apply(&self, mut mode: u32, is_directory: bool) -> u32 {
        for clause in &self.clauses {
            for (operator, permissions) in &clause.actions {
                let bits = permissions.expand(mode, is_directory) & clause.who;
                // A directory's set-id bits are only changed when they are named.
                let clear = if is_directory {
                    clause.who & 0o1777
                } else {
                    clause.who
                };
                mode = match operator {
                    '+' => mode | bits,
                    '-' => mode & !bits,
                    _ => (mode & !clear) | bits,
                };
            }
        }
        mode & 0o7777
    }
}

impl Permissions {
    fn expand(self, mode: u32, is_directory: bool) -> u32 {
        let mut bits = self.bits;
        if self.execute_if_any && (is_directory || mode & 0o111 != 0) {
            bits |= 1;
        }
        match self.from {
            Some('u') => bits |= mode >> 6 & 7,
            Some('g') => bits |= mode >> 3 & 7,
            Some(_) => bits |= mode & 7,
            None => {}
        }
        let mut all = bits << 6 | bits << 3 | bits;
        if self.set_id {
            all |= 0o6000;
        }
        if self.sticky {
            all |= 0o1000;
        }
        all
    }
}

fn parse_clause(text: &str) -> Option<Clause> {
    let operators = ['+', '-', '='];
    let start = text.find(operators)?;
    let who = text[..start].chars().try_fold(0, |who, c| {
        Some(
            who | match c {
                'u' => USER,
                'g' => GROUP,
                'o' => OTHER,
                'a' => USER | GROUP | OTHER,
                _ => return None,
            },
        )
    })?;
    let who = if who == 0 { USER | GROUP | OTHER } else { who };
    let mut actions = Vec::new();
    let mut rest = &text[start..];
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(operators).map_or(rest.len(), |at| at + 1);
        actions.push((operator, parse_permissions(&rest[1..end])?));
        rest = &rest[end..];
    }
    Some(Clause { who, actions })
}

fn parse_permissions(text: &str) -> Option<Permissions> {
    let mut permissions = Permissions::default();
    for c in text.chars() {
        match c {
            'r' => permissions.bits |= 4,
            'w' => permissions.bits |= 2,
            'x' => permissions.bits |= 1,
            'X' => permissions.execute_if_any = true,
            's' => permissions.set_id = true,
            't' => permissions.sticky = true,
            'u' | 'g' | 'o' if text.len() == 1 => permissions.from = Some(c),
            _ => return None,
        }
    }
    Some(permissions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mode: &str, before: u32, is_directory: bool, after: u32) {
        let got = SymbolicMode::parse(mode)
            .unwrap()
            .apply(before, is_directory);
        assert_eq!(got, after, "{mode} on {before:o} is {got:o}, not {after:o}");
    }

    #[test]
    fn clauses() {
        check("u=rwX,go=rX", 0o600, false, 0o644);
        check("u=rwX,go=rX", 0o700, false, 0o755);
        check("u=rwX,go=rX", 0o700, true, 0o755);
        check("+x", 0o644, false, 0o755);
        check("a-w", 0o666, false, 0o444);
        check("u+s", 0o755, false, 0o4755);
        check("g-s,o=", 0o2755, false, 0o750);
        check("g=u", 0o740, false, 0o770);
        check("u=rw+x-r", 0o000, false, 0o300);
        check("+t", 0o777, true, 0o1777);
        check("u=rwx", 0o6700, true, 0o6700);
    }

    #[test]
    fn what_is_no_mode() {
        for text in ["", "z+r", "u", "u+q", "u=rug", ",", "u+r,"] {
            assert!(SymbolicMode::parse(text).is_err(), "{text}");
        }
    }
}
