//! How long to wait before another try.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime};

use super::config::RetryPolicy;

/// The tries of one request.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        Self {
            policy: policy.clone(),
            tries: 0,
        }
    }

    /// Counts a failed try, and returns how long to wait for the next; `None` if it was the last.
    ///
    /// `asked` is the registry's `Retry-After`, which is obeyed up to the policy's limit and never
    /// undercut.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.tries += 1;
        if self.tries >= self.policy.attempts
            || asked.is_some_and(|asked| asked > self.policy.max_retry_after)
        {
            return None;
        }
        let doubled = self
            .policy
            .first_delay
            .saturating_mul(1 << (self.tries - 1).min(16));
        let chosen = doubled.min(self.policy.max_delay);
        Some(
            shorten(chosen, RandomState::new().hash_one(self.tries)).max(asked.unwrap_or_default()),
        )
    }

    /// Forgets the tries so far, since one of them brought something.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    /// Returns how many tries failed.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }
}

/// Takes up to a quarter off, so that clients that failed together do not come back together.
fn shorten(delay: Duration, random: u64) -> Duration {
    delay - delay.mul_f64((random % 1024) as f64 / 4096.0)
}

/// Parses `Retry-After`: seconds, or an HTTP date (RFC 9110, section 10.2.3).
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(parse_http_date(value)?);
    Some(at.duration_since(now).unwrap_or_default())
}

/// Parses `Sun, 06 Nov 1994 08:49:37 GMT` to seconds since 1970; the two obsolete forms are not sent
/// by any registry.
pub(crate) fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let mut word = || words.next();
    let day: u64 = word()?.parse().ok()?;
    let name = word()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year: u64 = word()?.parse().ok()?;
    let mut clock = word()?.split(':').map(|part| part.parse::<u64>().ok());
    let mut part = || clock.next().flatten();
    let (hour, minute, second) = (part()?, part()?, part()?);
    if word()? != "GMT" || !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970, by years that begin in March (so that the leap day is the last one).
    let (years, months) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: 4,
            ..RetryPolicy::default()
        }
    }

    #[test]
    fn waits_double_and_end() {
        let policy = policy();
        let mut backoff = Backoff::new(&policy);
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(None)).collect();
        assert_eq!(waits.len(), 3);
        for (wait, longest) in waits.iter().zip([500, 1000, 2000]) {
            let longest = Duration::from_millis(longest);
            assert!(*wait <= longest && *wait > longest * 7 / 10, "{wait:?}");
        }
    }

    #[test]
    fn what_the_registry_asks_is_obeyed_within_limits() {
        let policy = policy();
        let mut backoff = Backoff::new(&policy);
        let asked = Duration::from_secs(7);
        assert_eq!(backoff.next(Some(asked)), Some(asked));
        assert_eq!(backoff.next(Some(Duration::from_secs(121))), None);
    }

    fn check(value: &str, expected: Option<u64>) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(
            parse_retry_after(value, now),
            expected.map(Duration::from_secs),
            "{value}"
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        check("3", Some(3));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(7));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check(
            "Tue, 29 Feb 2000 00:00:00 GMT",
            Some(951_782_400 - 784_111_770),
        );
        for bad in [
            "",
            "-1",
            "soon",
            "Sun, 06 Nov 1994",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "x, 99 Nov 1994 0:0:0 GMT",
        ] {
            check(bad, None);
        }
    }
}
