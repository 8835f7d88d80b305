//! Sizes as people write them: `64m`, `1.5GiB`, `4096`.

/// Parses a size into bytes; units are powers of 1024, and their case does not matter.
pub(super) fn parse(text: &str) -> Option<u64> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let scale = match unit.as_str() {
        "" | "b" => 1_u64,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return None,
    };
    let bytes = number * scale as f64;
    (bytes <= i64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse(text), expected, "{text:?}");
    }

    #[test]
    fn sizes() {
        check("0", Some(0));
        check("4096", Some(4096));
        check("64m", Some(64 << 20));
        check("64M", Some(64 << 20));
        check("64MB", Some(64 << 20));
        check("64MiB", Some(64 << 20));
        check("1.5k", Some(1536));
        check("1 g", Some(1 << 30));
        check("2t", Some(2 << 40));
        check("1b", Some(1));
        check("", None);
        check("m", None);
        check("-1", None);
        check("1x", None);
        check("1..2", None);
        check("99999999999p", None);
    }
}
