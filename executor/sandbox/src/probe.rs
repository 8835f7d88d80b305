//! What this host has for sandboxes.

use std::sync::OnceLock;

use crate::{own_binary, seccomp};

/// The kernel's `CGROUP2_SUPER_MAGIC`.
const CGROUP2: i64 = 0x6367_7270;

/// Whether `/sys/fs/cgroup` is the unified hierarchy.
pub(crate) fn cgroup2() -> bool {
    static CGROUP2_THERE: OnceLock<bool> = OnceLock::new();
    *CGROUP2_THERE.get_or_init(|| {
        rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|stat| stat.f_type == CGROUP2)
    })
}

/// Returns what this host has for sandboxes: a name and a value each, for people.
///
/// Whether overlayfs works is the store's to tell.
pub fn probe_report() -> Vec<(&'static str, String)> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut report = vec![("kernel", release)];
    let names = ["mnt", "pid", "ipc", "uts", "net", "user", "cgroup"];
    let (there, missing): (Vec<&str>, Vec<&str>) = names
        .into_iter()
        .partition(|name| std::path::Path::new("/proc/self/ns").join(name).exists());
    report.push(match missing.as_slice() {
        [] => ("namespaces", there.join(", ")),
        missing => (
            "namespaces",
            format!("{} (no {})", there.join(", "), missing.join(", ")),
        ),
    });
    report.push(("user namespace", user_namespace()));
    let seccomp = if seccomp::filter().is_some() {
        "yes"
    } else {
        "no: system calls are not filtered"
    };
    report.push(("seccomp", seccomp.to_owned()));
    report.push(("cgroup", cgroups().to_owned()));
    report.push(("limits", limits()));
    let binary = if own_binary::is_detached() {
        "re-executed from a read-only mount"
    } else {
        "re-executed from a sealed copy in memory"
    };
    report.push(("first process", binary.to_owned()));
    report
}

fn user_namespace() -> String {
    use crate::userns::{MapBy, UserNsSupport};
    let count = |map: &crate::userns::IdMap| {
        map.ranges
            .iter()
            .map(|range| u64::from(range.count))
            .sum::<u64>()
    };
    match crate::userns::probe() {
        UserNsSupport::Root if crate::userns::is_initial() => "not needed: root".to_owned(),
        UserNsSupport::Root => match (
            crate::userns::single_id_fix(),
            crate::userns::current_maps(),
        ) {
            (Some(why), _) => format!("inside one with one user only: {why}"),
            (None, Ok((uids, gids))) => {
                format!(
                    "inside one with {} users and {} groups",
                    count(&uids),
                    count(&gids)
                )
            }
            (None, Err(_)) => "inside one".to_owned(),
        },
        UserNsSupport::Mapped { uids, gids, by } => {
            let by = match by {
                MapBy::Helpers => "by newuidmap",
                MapBy::Caller => "by itself",
            };
            format!(
                "{} users and {} groups, mapped {by}",
                count(&uids),
                count(&gids)
            )
        }
        UserNsSupport::SingleId { why } => format!("one user only: {why}"),
        UserNsSupport::Refused { which, fix } => format!("refused by {which}; {fix}"),
    }
}

/// What steps can be limited in, found out by trying.
fn limits() -> String {
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for (what, found) in crate::cgroup::probe() {
        match found {
            Ok(()) => there.push(what),
            Err(error) => missing.push(error.to_string()),
        }
    }
    match missing.as_slice() {
        [] => there.join(", "),
        missing if there.is_empty() => format!("none: {}", missing.join("; ")),
        missing => format!("{} ({})", there.join(", "), missing.join("; ")),
    }
}

fn cgroups() -> &'static str {
    match (
        cgroup2(),
        std::path::Path::new("/sys/fs/cgroup").join("cpu").exists(),
    ) {
        (true, _) => "v2, shown read-only in sandboxes",
        (false, true) => "v1, not shown in sandboxes",
        (false, false) => "none",
    }
}
