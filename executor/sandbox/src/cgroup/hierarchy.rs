//! Which cgroup hierarchies are mounted, and where in them this process is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// The highest cgroup that is seen here.
    pub(crate) root: PathBuf,
    /// The cgroup of this process; none where it is not below the root.
    pub(crate) own: Option<PathBuf>,
    /// Whether it is the one of version 2.
    pub(crate) unified: bool,
    /// Those that it has; of version 2 those that its root may pass on.
    pub(crate) controllers: Vec<String>,
}

/// All that are mounted, those of version 1 first.
pub(crate) type Hierarchies = Vec<Hierarchy>;

/// Finds the hierarchies of this process, once: it may move itself into a cgroup below its own.
pub(crate) fn here() -> &'static Hierarchies {
    static HERE: OnceLock<Hierarchies> = OnceLock::new();
    HERE.get_or_init(|| {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let controllers = |root: &Path| {
            std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        };
        parse(
            &read("/proc/self/mountinfo"),
            &read("/proc/self/cgroup"),
            controllers,
        )
    })
}

/// Reads what proc(5) calls mountinfo and cgroup; `controllers` reads those of the root of version 2.
pub(crate) fn parse(
    mountinfo: &str,
    membership: &str,
    controllers: impl Fn(&Path) -> String,
) -> Hierarchies {
    // Controllers (none for version 2) and path.
    let memberships: BTreeMap<&str, &str> = membership
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .collect();
    let mut found: Hierarchies = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let fields: Vec<&str> = before.split(' ').collect();
        let after: Vec<&str> = after.split(' ').collect();
        let (Some(shown), Some(at), [fs, _, options, ..]) =
            (fields.get(3), fields.get(4), after.as_slice())
        else {
            continue;
        };
        let root = PathBuf::from(unescape(at));
        let names: Vec<&str> = options.split(',').collect();
        let entry = match *fs {
            "cgroup2" => memberships.get_key_value(""),
            "cgroup" => memberships.iter().find(|(known, _)| {
                !known.is_empty() && known.split(',').all(|name| names.contains(&name))
            }),
            _ => continue,
        };
        let own = entry.and_then(|(_, path)| below(path, &unescape(shown), &root));
        let hierarchy = match *fs {
            "cgroup2" => Hierarchy {
                controllers: words(&controllers(&root)),
                root,
                own,
                unified: true,
            },
            _ => Hierarchy {
                controllers: entry
                    .map(|(known, _)| known.split(',').map(str::to_owned).collect())
                    .unwrap_or_default(),
                root,
                own,
                unified: false,
            },
        };
        let is_known = found.iter().any(|other| {
            other.unified == hierarchy.unified && other.controllers == hierarchy.controllers
        });
        let is_named = hierarchy
            .controllers
            .iter()
            .any(|name| name.starts_with("name="));
        let limits_something = hierarchy.unified || !hierarchy.controllers.is_empty();
        if limits_something && !is_known && !is_named {
            found.push(hierarchy);
        }
    }
    found.sort_by_key(|hierarchy| hierarchy.unified);
    found
}

/// Where a cgroup is seen whose hierarchy shows `shown` as its root.
fn below(path: &str, shown: &str, root: &Path) -> Option<PathBuf> {
    let rest = Path::new(path).strip_prefix(shown).ok()?;
    // A cgroup outside of this process's cgroup namespace is told with `..`.
    let is_outside = rest
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    // Without the slash that joining nothing leaves behind.
    (!is_outside).then(|| root.join(rest).components().collect())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Spaces and their like are octal in mountinfo.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &str, membership: &str, expected: &[&str]) {
        let found = parse(mountinfo, membership, |_| {
            "cpuset cpu memory pids\n".to_owned()
        });
        let found: Vec<String> = found
            .iter()
            .map(|one| {
                let own = one
                    .own
                    .as_ref()
                    .map_or("-".to_owned(), |own| own.display().to_string());
                let version = if one.unified { 2 } else { 1 };
                format!(
                    "v{version} {} {} {own}",
                    one.root.display(),
                    one.controllers.join(",")
                )
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_unified_hierarchy() {
        check(
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/user.slice/user-1000.slice/session-2.scope\n",
            &[
                "v2 /sys/fs/cgroup cpuset,cpu,memory,pids /sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope",
            ],
        );
    }

    #[test]
    fn many_hierarchies() {
        check(
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n",
            &[
                "v1 /sys/fs/cgroup/cpu,cpuacct cpu,cpuacct /sys/fs/cgroup/cpu,cpuacct",
                "v1 /sys/fs/cgroup/memory memory /sys/fs/cgroup/memory/a/b",
                "v2 /sys/fs/cgroup/unified cpuset,cpu,memory,pids /sys/fs/cgroup/unified",
            ],
        );
    }

    #[test]
    fn within_a_container() {
        check(
            "35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
             36 31 0:33 /docker/ab /my\\040pids rw - cgroup cgroup rw,pids\n",
            "4:memory:/docker/ab\n5:pids:/docker/ab/x\n",
            &[
                "v1 /sys/fs/cgroup/memory memory /sys/fs/cgroup/memory",
                "v1 /my pids pids /my pids/x",
            ],
        );
    }

    #[test]
    fn cgroups_that_are_not_seen() {
        let mount = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let expected = "v2 /sys/fs/cgroup cpuset,cpu,memory,pids -";
        check(mount, "0::/../../outer\n", &[expected]);
        check(mount, "", &[expected]);
        check("garbage\n1 - cgroup2\n", "", &[]);
    }
}
