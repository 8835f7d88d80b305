//! The value of `--chmod`: octal permission bits, or a symbolic mode.

/// A checked `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Permission bits, at most 0o7777.
    Bits(u32),
    /// A symbolic mode, such as `u=rwX,go=rX`.
    Symbolic(String),
}

/// Parses a mode; the error is a whole message.
pub(super) fn parse(text: &str) -> Result<Mode, String> {
    if text.starts_with(|letter: char| letter.is_ascii_digit() || letter == '-' || letter == '+')
        && text.bytes().skip(1).all(|byte| byte.is_ascii_digit())
    {
        let bits = u32::from_str_radix(text, 8).ok();
        return match bits.filter(|bits| *bits <= 0o7777 && !text.starts_with('+')) {
            Some(bits) => Ok(Mode::Bits(bits)),
            None => Err(format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            )),
        };
    }
    if !text.is_empty() && text.split(',').all(is_clause) {
        return Ok(Mode::Symbolic(text.to_owned()));
    }
    Err(format!(
        "invalid chmod parameter: '{text}'. it should be octal between 0 and 07777, or symbolic such as u=rwX,go=rX"
    ))
}

/// One clause of a symbolic mode: `[ugoa]*` and at least one `[-+=]` with its permissions.
fn is_clause(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if !actions.starts_with(['+', '-', '=']) {
        return false;
    }
    actions.split(['+', '-', '=']).skip(1).all(|permissions| {
        matches!(permissions, "u" | "g" | "o")
            || permissions
                .chars()
                .all(|letter| matches!(letter, 'r' | 'w' | 'x' | 'X' | 's' | 't'))
    })
}

#[cfg(test)]
mod tests {
    use super::{Mode, parse};

    #[test]
    fn modes() {
        assert_eq!(parse("755"), Ok(Mode::Bits(0o755)));
        assert_eq!(parse("0"), Ok(Mode::Bits(0)));
        assert_eq!(parse("07777"), Ok(Mode::Bits(0o7777)));
        for symbolic in ["u=rwX,go=rX", "+x", "a-w", "g=u", "u+x-w", "o="] {
            assert_eq!(parse(symbolic), Ok(Mode::Symbolic(symbolic.to_owned())));
        }
    }

    #[test]
    fn wrong_modes() {
        for bad in [
            "", "10000", "8", "+5", "-5", "u", "x=r", "u=q", "u=r,,o=w", "u=rw,",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
