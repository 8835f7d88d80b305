//! SOURCE_DATE_EPOCH: the one time that everything made here bears.

/// A number of seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(i64);

impl Epoch {
    /// Returns the epoch, if RFC 3339 can write it: years 0 to 9999.
    pub(super) fn new(seconds: i64) -> Option<Epoch> {
        (-62_167_219_200..=253_402_300_799)
            .contains(&seconds)
            .then_some(Epoch(seconds))
    }

    /// Returns seconds since 1970.
    pub(super) fn seconds(self) -> i64 {
        self.0
    }

    /// Returns nanoseconds since 1970, or none beyond what 64 bits hold (the year 2262).
    pub(super) fn nanoseconds(self) -> Option<i64> {
        self.0.checked_mul(1_000_000_000)
    }

    /// Writes it as RFC 3339 in UTC.
    pub(super) fn rfc3339(self) -> String {
        let days = self.0.div_euclid(86_400);
        let second = self.0.rem_euclid(86_400);
        let (year, month, day) = civil(days);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

/// Returns year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Counts in eras of 400 years that begin on 1 March, so that the leap day is a year's last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::Epoch;

    #[track_caller]
    fn check(seconds: i64, expected: &str) {
        assert_eq!(Epoch::new(seconds).unwrap().rfc3339(), expected);
    }

    #[test]
    fn dates() {
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_700_000_000, "2023-11-14T22:13:20Z");
        check(-1, "1969-12-31T23:59:59Z");
        check(253_402_300_799, "9999-12-31T23:59:59Z");
        assert_eq!(Epoch::new(i64::MAX), None);
    }
}
