//! What usually makes a file differ from one build to the next, and what to do about it.

use kiln_executor::{Difference, FileDifference};

/// A usual reason, with its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Culprit {
    /// What it is.
    pub what: &'static str,
    /// What to do.
    pub way_out: &'static str,
}

const fn culprit_of(what: &'static str, way_out: &'static str) -> Culprit {
    Culprit { what, way_out }
}

/// Beginnings and ends of paths that are known, the first that fits counts.
const PATHS: &[(&str, &str, Culprit)] = &[
    (
        "/var/cache/ldconfig/aux-cache",
        "",
        culprit_of(
            "ldconfig's cache has inode numbers and times",
            "`rm -f /var/cache/ldconfig/aux-cache` at the end of the same RUN",
        ),
    ),
    (
        "/var/cache/apt/",
        "",
        culprit_of(
            "apt's cache is written anew by each apt-get",
            "`rm -rf /var/cache/apt/*` at the end of the same RUN, or --mount=type=cache,target=/var/cache/apt",
        ),
    ),
    (
        "/var/lib/apt/lists/",
        "",
        culprit_of(
            "apt's lists are those of the moment",
            "`rm -rf /var/lib/apt/lists/*` at the end of the same RUN, and packages from a snapshot of the archive",
        ),
    ),
    (
        "/var/log/",
        "",
        culprit_of(
            "a log file has times in it",
            "remove it at the end of the same RUN, or keep logs out with --mount=type=tmpfs,target=/var/log",
        ),
    ),
    (
        "/var/cache/fontconfig/",
        "",
        culprit_of(
            "the cache of fonts has times in it",
            "remove it at the end of the same RUN",
        ),
    ),
    (
        "/var/cache/debconf/",
        "",
        culprit_of(
            "debconf keeps the order in which packages were set up",
            "`rm -f /var/cache/debconf/*-old` at the end of the same RUN",
        ),
    ),
    (
        "/etc/machine-id",
        "",
        culprit_of(
            "a machine id is drawn by chance",
            "empty the file (`: > /etc/machine-id`): it is filled when the image boots",
        ),
    ),
    (
        "/var/lib/dbus/machine-id",
        "",
        culprit_of(
            "a machine id is drawn by chance",
            "remove the file: it is made when the image boots",
        ),
    ),
    (
        "/etc/ssh/ssh_host_",
        "",
        culprit_of(
            "a host key is drawn by chance, and everybody who has the image has it",
            "remove it in the same RUN, and make it when the container starts",
        ),
    ),
    (
        "/etc/shadow",
        "",
        culprit_of(
            "the shadow file has the day of each password",
            "`chage -d 0 USER` (or useradd with SOURCE_DATE_EPOCH in its environment, shadow 4.14 and newer)",
        ),
    ),
    (
        "/root/.cache/",
        "",
        culprit_of(
            "a tool's cache",
            "keep it out with --mount=type=cache,target=/root/.cache",
        ),
    ),
    (
        "/root/.npm/",
        "",
        culprit_of(
            "npm's cache and logs",
            "keep them out with --mount=type=cache,target=/root/.npm",
        ),
    ),
    (
        "/tmp/",
        "",
        culprit_of(
            "what a tool left in /tmp, often by a name drawn by chance",
            "remove it in the same RUN, or --mount=type=tmpfs,target=/tmp",
        ),
    ),
    (
        "",
        ".pyc",
        culprit_of(
            "compiled Python has the time of its source",
            "ENV PYTHONDONTWRITEBYTECODE=1, or compile with `--invalidation-mode unchecked-hash`",
        ),
    ),
    (
        "",
        ".a",
        culprit_of(
            "a static library has times and owners of its members",
            "`ar D` (or ARFLAGS=rcD)",
        ),
    ),
    (
        "",
        ".jar",
        culprit_of(
            "a zip archive has the times of its files",
            "set project.build.outputTimestamp (Maven), or preserveFileTimestamps = false (Gradle)",
        ),
    ),
];

/// Marks of a time of day.
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

const TIME: Culprit = culprit_of(
    "a time of the clock",
    "use SOURCE_DATE_EPOCH for it: `ARG SOURCE_DATE_EPOCH`, and `date -u -d @$SOURCE_DATE_EPOCH`",
);
const MTIME: Culprit = culprit_of(
    "a file's time of change",
    "set SOURCE_DATE_EPOCH, which is the time of all new files then",
);
const GZIP: Culprit = culprit_of("gzip writes the time into its header", "`gzip -n`");
const TAR: Culprit = culprit_of(
    "a tar archive has times, owners and an order",
    "`tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner`",
);
const ZIP: Culprit = culprit_of(
    "a zip archive has the times of its files",
    "`touch -d @$SOURCE_DATE_EPOCH` the files, and `zip -X` with sorted names",
);

/// What makes a file differ, as far as it is a usual thing; `names` are host names that builds had.
pub fn culprit(file: &FileDifference, names: &[&str]) -> Option<Culprit> {
    if file.path.contains("/__pycache__/") {
        return PATHS
            .iter()
            .find(|(_, end, _)| *end == ".pyc")
            .map(|(.., found)| *found);
    }
    let by_path = PATHS
        .iter()
        .find(|(start, end, _)| file.path.starts_with(start) && file.path.ends_with(end));
    if let Some((.., found)) = by_path {
        return Some(*found);
    }
    file.differences
        .iter()
        .find_map(|difference| of_difference(difference, names))
}

fn of_difference(difference: &Difference, names: &[&str]) -> Option<Culprit> {
    let content = match difference {
        Difference::Mtime { .. } => return Some(MTIME),
        Difference::Content(content) => content,
        _ => return None,
    };
    let within = |word: &str| {
        content.within.iter().any(|part| part.starts_with(word)) || content.said.starts_with(word)
    };
    if content.said.starts_with("gzip:") {
        return Some(GZIP);
    }
    if let Some(line) = &content.line {
        let lines = || line.one.iter().chain(&line.two);
        if names
            .iter()
            .any(|name| lines().any(|line| line.contains(name)))
        {
            return Some(culprit_of(
                "the host name",
                "leave it out: it is another one for each builder",
            ));
        }
        if lines().any(|line| has_time(line)) {
            return Some(TIME);
        }
        if lines().any(|line| has_uuid(line)) {
            return Some(culprit_of(
                "a number drawn by chance",
                "draw it when the container starts, or derive it from what is built",
            ));
        }
    }
    match () {
        () if within("tar") => Some(TAR),
        () if within("zip") => Some(ZIP),
        () => None,
    }
}

/// Whether a line has what looks like a time: `12:34:56`, `2026-11-22`, a day with a month, or seconds since 1970.
fn has_time(line: &str) -> bool {
    let bytes = line.as_bytes();
    let fits = |pattern: &[u8]| {
        bytes.windows(pattern.len()).any(|window| {
            window
                .iter()
                .zip(pattern)
                .all(|(byte, wanted)| match wanted {
                    b'0' => byte.is_ascii_digit(),
                    wanted => byte == wanted,
                })
        })
    };
    let words = |marks: &[&str]| {
        line.split(|c: char| !c.is_ascii_alphabetic())
            .any(|word| marks.contains(&word))
    };
    let seconds = line
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| matches!(digits.len(), 10 | 13 | 19))
        .any(|digits| digits.starts_with(['1', '2']));
    fits(b"00:00:00") || fits(b"0000-00-00") || seconds || words(&WEEKDAYS) && words(&MONTHS)
}

/// Whether a line has 32 hex digits in the groups of a UUID, or without.
fn has_uuid(line: &str) -> bool {
    let groups = [8, 4, 4, 4, 12];
    let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    line.split(|c: char| !c.is_ascii_hexdigit() && c != '-')
        .any(|word| {
            let parts: Vec<&str> = word.split('-').collect();
            parts.iter().map(|part| part.len()).eq(groups) || word.len() == 32 && is_hex(word)
        })
}

#[cfg(test)]
mod tests {
    use kiln_executor::{ContentDifference, LineDifference};

    use super::*;

    fn check(path: &str, one: &str, two: &str, expected: Option<&str>) {
        let line = LineDifference {
            number: 1,
            one: Some(one.to_owned()),
            two: Some(two.to_owned()),
        };
        let file = FileDifference {
            path: path.to_owned(),
            differences: vec![Difference::Content(ContentDifference {
                line: Some(line),
                ..ContentDifference::default()
            })],
        };
        let found = culprit(&file, &["elsewhere"]).map(|culprit| culprit.what);
        assert_eq!(found, expected, "{path}: {one} | {two}");
    }

    #[test]
    fn paths_say_most() {
        let log = Some("a log file has times in it");
        check("/var/log/dpkg.log", "a", "b", log);
        let python = Some("compiled Python has the time of its source");
        check("/app/__pycache__/x.cpython-313.pyc", "a", "b", python);
        check("/app/x.pyc", "a", "b", python);
        check("/app/x", "a", "b", None);
    }

    #[test]
    fn lines_have_times_names_and_chance() {
        let time = Some("a time of the clock");
        check("/x", "at 12:34:56", "at 12:34:57", time);
        check("/x", "2026-11-22", "2026-11-23", time);
        check("/x", "Sun Nov 22", "Mon Nov 23", time);
        check("/x", "built=1700000000", "built=1700000009", time);
        check("/x", "May be", "it may", None);
        check("/x", "v1.2.3", "v1.2.4", None);
        check("/x", "on builder", "on elsewhere", Some("the host name"));
        let chance = Some("a number drawn by chance");
        let uuid = "6d2e0b1c-9a56-4d0e-8d5b-0d4f6a1b2c3d";
        check("/x", uuid, "", chance);
    }
}
