//! The signals that STOPSIGNAL knows.

/// Names without `SIG`; RTMIN and RTMAX have offsets, below.
const NAMES: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Says whether `signal` is a signal's number, or its name in any case with or without `SIG`.
pub(super) fn is_signal(signal: &str) -> bool {
    if let Ok(number) = signal.parse::<i64>() {
        return number != 0;
    }
    let upper = signal.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return offset.is_empty() || in_range(offset.strip_prefix('+'), 15);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return offset.is_empty() || in_range(offset.strip_prefix('-'), 14);
    }
    NAMES.contains(&name)
}

fn in_range(offset: Option<&str>, largest: u8) -> bool {
    let canonical = |text: &str| !text.starts_with('0') && !text.starts_with('+');
    offset.is_some_and(|text| {
        canonical(text)
            && text
                .parse::<u8>()
                .is_ok_and(|value| (1..=largest).contains(&value))
    })
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn knows_names_and_numbers() {
        for good in [
            "SIGTERM",
            "term",
            "9",
            "SIGRTMIN+3",
            "RTMAX-14",
            "sigusr1",
            "-1",
            "99999999999",
        ] {
            assert!(is_signal(good), "{good}");
        }
        for bad in [
            "",
            "0",
            "SIGFOO",
            "RTMIN+16",
            "RTMIN-1",
            "SIGSIGTERM",
            "TERM ",
        ] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
