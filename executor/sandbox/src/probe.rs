//! What this host has for sandboxes.

use std::sync::OnceLock;

/// The kernel's `CGROUP2_SUPER_MAGIC`.
const CGROUP2: i64 = 0x6367_7270;

/// Whether `/sys/fs/cgroup` is the unified hierarchy.
pub(crate) fn cgroup2() -> bool {
    static CGROUP2_THERE: OnceLock<bool> = OnceLock::new();
    *CGROUP2_THERE.get_or_init(|| {
        rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|stat| stat.f_type == CGROUP2)
    })
}
