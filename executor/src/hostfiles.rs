//! `/etc/resolv.conf` and `/etc/hosts` as steps and programs see them.

use kiln_ir::HostIp;

/// The host's own resolver settings; none where it has none.
pub(crate) fn resolv_conf() -> Vec<u8> {
    std::fs::read("/etc/resolv.conf").unwrap_or_default()
}

/// A hosts file with loopback, the container's name, and what was added.
pub(crate) fn hosts(hostname: &str, extra: &[HostIp]) -> Vec<u8> {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for HostIp { host, ip } in extra {
        text.push_str(&format!("{ip}\t{host}\n"));
    }
    text.into_bytes()
}
