//! Users and groups by name, as a root file system's `/etc/passwd` and `/etc/group` have them.

/// The two files; an absent one is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    /// The bytes of `/etc/passwd`.
    pub(crate) passwd: Vec<u8>,
    /// The bytes of `/etc/group`.
    pub(crate) group: Vec<u8>,
}

/// Who a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    /// The home directory; `/` where nothing names one.
    pub(crate) home: String,
}

/// A user or group that cannot be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// No such user.
    #[error("there is no user `{0}` in /etc/passwd")]
    User(String),
    /// No such group.
    #[error("there is no group `{0}` in /etc/group")]
    Group(String),
    /// A number that no user or group can have.
    #[error("the id `{0}` is too large: ids end at 4294967294")]
    TooLarge(String),
    /// Not a user.
    #[error("`{0}` is not a user: it must be NAME, UID, NAME:GROUP or UID:GID")]
    Malformed(String),
}

/// An id that is given as a number; none if it can only be a name.
fn number_of(text: &str) -> Result<Option<u32>, AccountError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        // The last one says "none" to the kernel.
        Ok(id) if id < u32::MAX => Ok(Some(id)),
        _ => Err(AccountError::TooLarge(text.to_owned())),
    }
}

impl Accounts {
    /// Finds the uid and the primary gid of a user by name.
    pub(crate) fn user_ids(&self, name: &str) -> Result<(u32, u32), AccountError> {
        let found = self.user(|fields| fields[0] == name);
        found
            .map(|(uid, gid, ..)| (uid, gid))
            .ok_or_else(|| AccountError::User(name.to_owned()))
    }

    /// Finds the gid of a group by name.
    pub(crate) fn gid(&self, name: &str) -> Result<u32, AccountError> {
        lines(&self.group, 3)
            .find(|fields| fields[0] == name)
            .and_then(|fields| fields[2].parse().ok())
            .ok_or_else(|| AccountError::Group(name.to_owned()))
    }

    /// Resolves `user[:group]`, each by name or number; empty is root.
    ///
    /// As runc does: a numeric user need not exist, and supplementary groups come only without an
    /// explicit group. As engines do on top, the primary group is one of them always: who gives it
    /// up does not get past a file that excludes it (CVE-2022-36109).
    pub(crate) fn resolve(&self, user: &str) -> Result<Identity, AccountError> {
        let (user, group) = match user.split_once(':') {
            Some((_, "")) => return Err(AccountError::Malformed(user.to_owned())),
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        let by_name = self.user(|fields| fields[0] == user);
        let number = match by_name {
            Some(_) => None,
            None => number_of(user)?,
        };
        let known = match (by_name, user) {
            (Some(known), _) => Some(known),
            (None, "") => self.user(|fields| fields[2] == "0"),
            (None, _) => number.and_then(|uid| self.user(|fields| fields[2].parse() == Ok(uid))),
        };
        let (uid, primary, name, home) = match (known, number, user) {
            (Some(known), ..) => known,
            (None, _, "") => (0, 0, "root".to_owned(), "/root".to_owned()),
            (None, Some(uid), _) => (uid, 0, String::new(), "/".to_owned()),
            (None, None, _) => return Err(AccountError::User(user.to_owned())),
        };
        let (gid, mut groups) = match group {
            Some(group) => match self.gid(group) {
                Ok(gid) => (gid, Vec::new()),
                Err(error) => (number_of(group)?.ok_or(error)?, Vec::new()),
            },
            None => (primary, self.groups_of(&name)),
        };
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        let home = if home.is_empty() {
            "/".to_owned()
        } else {
            home
        };
        Ok(Identity {
            uid,
            gid,
            groups,
            home,
        })
    }

    fn user(&self, matches: impl Fn(&[&str]) -> bool) -> Option<(u32, u32, String, String)> {
        let fields = lines(&self.passwd, 4).find(|fields| matches(fields))?;
        let uid = fields[2].parse().ok()?;
        let gid = fields[3].parse().ok()?;
        let home = fields.get(5).copied().unwrap_or_default();
        Some((uid, gid, fields[0].to_owned(), home.to_owned()))
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        if user.is_empty() {
            return Vec::new();
        }
        lines(&self.group, 4)
            .filter(|fields| fields[3].split(',').any(|member| member == user))
            .filter_map(|fields| fields[2].parse().ok())
            .collect()
    }
}

/// The lines that have at least `least` fields; others are skipped as the C library does.
fn lines(file: &[u8], least: usize) -> impl Iterator<Item = Vec<&str>> {
    file.split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(|line| line.trim())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(move |fields| fields.len() >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: b"root:x:0:0:root:/root:/bin/sh\n# no\nbroken\nredis:x:101:103:Redis:/var/lib/redis:/bin/false\n7:x:70:71::/seven:/bin/sh\n".to_vec(),
            group: b"root:x:0:\nwheel:x:10:root,redis\ntty:x:5:redis\nredis:x:103:\n".to_vec(),
        }
    }

    fn check(user: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let expected = Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        };
        assert_eq!(accounts().resolve(user), Ok(expected), "{user}");
    }

    #[test]
    fn users_resolve_as_in_other_engines() {
        check("", 0, 0, &[0, 10], "/root");
        check("redis", 101, 103, &[5, 10, 103], "/var/lib/redis");
        check("redis:tty", 101, 5, &[5], "/var/lib/redis");
        check("101", 101, 103, &[5, 10, 103], "/var/lib/redis");
        check("4000", 4000, 0, &[0], "/");
        check("4000:4001", 4000, 4001, &[4001], "/");
        check("7", 70, 71, &[71], "/seven");
        check(":wheel", 0, 10, &[10], "/root");
    }

    #[test]
    fn unknown_names_are_errors() {
        assert_eq!(
            accounts().resolve("nobody"),
            Err(AccountError::User("nobody".into()))
        );
        assert_eq!(
            accounts().resolve("redis:x"),
            Err(AccountError::Group("x".into()))
        );
        assert!(accounts().resolve("redis:").is_err());
        assert_eq!(Accounts::default().resolve("").unwrap().uid, 0);
    }
}
