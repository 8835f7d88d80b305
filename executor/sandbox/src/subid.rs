//! The ids that an ordinary user was given: subuid(5), subgid(5).

/// Returns the name that passwd(5) has for a user.
pub(crate) fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// Returns the first id and the number of ids of each range that belongs to a user, by name or
/// number; lines that say nothing are skipped, as newuidmap(1) skips them.
pub(crate) fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let mine = Some(owner) == name || owner.parse() == Ok(uid);
        (mine && count > 0 && u32::checked_add(first, count).is_some()).then_some((first, count))
    };
    text.lines().filter_map(line).collect()
}

/// Returns the first id of a range of `count` that is nobody's yet, as useradd(8) counts.
pub(crate) fn free(text: &str, count: u32) -> u32 {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':').skip(1);
            let first: u32 = fields.next()?.parse().ok()?;
            first.checked_add(fields.next()?.parse().ok()?)
        })
        .filter(|after| after.checked_add(count).is_some())
        .fold(100_000, u32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(u32, u32)]) {
        assert_eq!(ranges(text, Some("ann"), 1000), expected);
    }

    #[test]
    fn a_name_and_a_number_both_count() {
        check(
            "ann:100000:65536\nbob:200000:65536\n1000:300000:10\n",
            &[(100000, 65536), (300000, 10)],
        );
    }

    #[test]
    fn nonsense_is_skipped() {
        check(
            "ann\nann:x:1\nann:5:0\nann:4294967295:2\n:::\n#ann:1:1\n",
            &[],
        );
    }

    #[test]
    fn a_new_range_follows_all_others() {
        assert_eq!(free("", 65536), 100_000);
        assert_eq!(
            free("ann:100000:65536\nx\nbob:165536:65536\n", 65536),
            231_072
        );
        assert_eq!(free("ann:4294900000:60000\n", 65536), 100_000);
    }

    #[test]
    fn names_come_from_passwd() {
        let passwd = "root:x:0:0::/:/bin/sh\nbad\nann:x:1000:1000::/:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("ann"));
        assert_eq!(user_name(passwd, 1), None);
    }
}
