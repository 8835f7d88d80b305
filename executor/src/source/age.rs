//! How long ago something was, for people.

use std::time::SystemTime;

/// `just now`, `3 minutes ago`, `2 days ago`.
pub fn ago(time: SystemTime) -> String {
    let seconds = SystemTime::now()
        .duration_since(time)
        .unwrap_or_default()
        .as_secs();
    let (count, unit) = match seconds {
        0..10 => return "just now".to_owned(),
        10..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// A time that is stated of an image; nothing if that is the beginning of time, as in reproducible ones.
pub(crate) fn stated_time(text: &str) -> Option<SystemTime> {
    let time: jiff::Timestamp = text.parse().ok()?;
    (time.as_second() > 0).then(|| SystemTime::from(time))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ages() {
        let check = |seconds: u64, expected: &str| {
            assert_eq!(
                ago(SystemTime::now() - Duration::from_secs(seconds)),
                expected
            );
        };
        check(1, "just now");
        check(61, "1 minute ago");
        check(7300, "2 hours ago");
        check(86_400 * 3 + 5, "3 days ago");
    }
}
