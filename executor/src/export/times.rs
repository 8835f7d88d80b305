//! Times as image documents have them: RFC 3339 in UTC, as Go writes them.

use std::time::SystemTime;

use jiff::Timestamp;

/// Reads a time of an image document; nothing if it is none.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The second `epoch`; one beyond the year 9999 counts as the last that can be written.
pub(super) fn of_epoch(epoch: i64) -> Timestamp {
    let end = if epoch < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_second(epoch).unwrap_or(end)
}

/// The time of a clock; one that cannot be written counts as the epoch.
pub(super) fn of_clock(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The clock's word for a time.
pub(crate) fn to_clock(time: Timestamp) -> SystemTime {
    SystemTime::from(time)
}

/// The epoch, or else a time of the clock in whole seconds.
pub fn rfc3339(time: SystemTime, epoch: Option<i64>) -> String {
    match epoch {
        Some(epoch) => of_epoch(epoch).to_string(),
        None => whole_seconds(time),
    }
}

/// A time as SPDX has it: without fractions of a second.
pub(crate) fn whole_seconds(time: SystemTime) -> String {
    of_epoch(of_clock(time).as_second()).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(nanos: u64, expected: &str) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        assert_eq!(of_clock(time).to_string(), expected);
        assert_eq!(parse(expected).map(to_clock), Some(time));
    }

    #[test]
    fn times_are_written_as_go_does() {
        check(0, "1970-01-01T00:00:00Z");
        check(1_700_000_000_000_000_000, "2023-11-14T22:13:20Z");
        check(1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z");
        check(1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001Z");
        check(951_782_400_000_000_000, "2000-02-29T00:00:00Z");
    }

    #[test]
    fn other_zones_and_nonsense() {
        assert_eq!(
            parse("1970-01-01T02:00:00+02:00"),
            Some(Timestamp::UNIX_EPOCH)
        );
        assert_eq!(parse("yesterday"), None);
        assert_eq!(of_epoch(i64::MAX), Timestamp::MAX);
    }
}
