//! Durations as Go writes them: `1h30m`, `1.5s`, `250ms`.

use super::ast::GoDuration;

/// Docker refuses shorter ones, but 0.
const MINIMUM: i64 = 1_000_000;

/// Parses a duration of HEALTHCHECK; `option` is its name for the message.
pub(super) fn parse(text: &str, option: &str) -> Result<GoDuration, String> {
    let nanoseconds = nanoseconds(text)?;
    if nanoseconds != 0 && nanoseconds < MINIMUM {
        return Err(format!("Interval \"{option}\" cannot be less than 1ms"));
    }
    Ok(GoDuration(nanoseconds))
}

fn nanoseconds(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole = digits(rest);
        rest = &rest[whole.len()..];
        let fraction = match rest.strip_prefix('.') {
            Some(after) => {
                let fraction = digits(after);
                rest = &after[fraction.len()..];
                fraction
            }
            None => "",
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = rest
            .find(|letter: char| letter == '.' || letter.is_ascii_digit())
            .unwrap_or(rest.len());
        let (unit, after) = rest.split_at(end);
        rest = after;
        let scale = match unit {
            "" => return Err(format!("missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000_i128,
            _ => return Err(format!("unknown unit {unit:?} in duration {text:?}")),
        };
        total += number(whole).ok_or_else(invalid)? * scale;
        // More digits than this are below a nanosecond for every unit.
        let fraction = &fraction[..fraction.len().min(15)];
        let tens = 10_i128.pow(fraction.len() as u32);
        total += number(fraction).ok_or_else(invalid)? * scale / tens;
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
    }
    let total = total as i64;
    Ok(if negative { -total } else { total })
}

fn digits(text: &str) -> &str {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    &text[..end]
}

/// Parses digits; none are 0, too many are none.
fn number(digits: &str) -> Option<i128> {
    if digits.is_empty() {
        return Some(0);
    }
    digits.parse::<i64>().ok().map(i128::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<i64, &str>) {
        let found = parse(text, "interval").map(|duration| duration.0);
        assert_eq!(found, expected.map_err(str::to_owned), "{text:?}");
    }

    #[test]
    fn durations() {
        check("0", Ok(0));
        check("0s", Ok(0));
        check("-0s", Ok(0));
        check("+5s", Ok(5_000_000_000));
        check("30s", Ok(30_000_000_000));
        check("1m30s", Ok(90_000_000_000));
        check("1h", Ok(3_600_000_000_000));
        check("1.5s", Ok(1_500_000_000));
        check(".5s", Ok(500_000_000));
        check("1.s", Ok(1_000_000_000));
        check("1ms", Ok(1_000_000));
        check("1000us", Ok(1_000_000));
        check("1000\u{b5}s", Ok(1_000_000));
        check("1000000ns", Ok(1_000_000));
        check("0.0000000000000000000001h1ms", Ok(1_000_000));
    }

    #[test]
    fn refused() {
        check("", Err("invalid duration \"\""));
        check("-", Err("invalid duration \"-\""));
        check("5", Err("missing unit in duration \"5\""));
        check("5x", Err("unknown unit \"x\" in duration \"5x\""));
        check("s", Err("invalid duration \"s\""));
        check(".s", Err("invalid duration \".s\""));
        check("1ns", Err("Interval \"interval\" cannot be less than 1ms"));
        check("-5s", Err("Interval \"interval\" cannot be less than 1ms"));
        check("9999999999h", Err("invalid duration \"9999999999h\""));
        check(
            "99999999999999999999h",
            Err("invalid duration \"99999999999999999999h\""),
        );
    }
}
