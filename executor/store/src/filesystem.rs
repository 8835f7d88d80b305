//! Which filesystems a store may lie on: only those of one host.

use std::path::Path;

use crate::StoreError;

/// Filesystems that several hosts may write to, or whose server we know nothing about, by the magic
/// number that statfs(2) gives.
const SHARED: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x517b, "SMB"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "kAFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x4750_4653, "GPFS"),
    (0xaad7_aaea, "PanFS"),
    (0x786f_4256, "VirtualBox shared folder"),
];

/// Returns the name of a filesystem that a store cannot be on.
pub(crate) fn shared(magic: u64) -> Option<&'static str> {
    SHARED
        .iter()
        .find(|(number, _)| *number == magic)
        .map(|(_, name)| *name)
}

/// Refuses `path` if its filesystem may be shared between hosts.
pub(crate) fn refuse_shared(path: &Path) -> Result<(), StoreError> {
    let stat =
        rustix::fs::statfs(path).map_err(StoreError::io("look at the filesystem of", path))?;
    // The field's type and sign differ between architectures; the magic numbers have 32 bits.
    match shared(stat.f_type as u64 & 0xffff_ffff) {
        Some(filesystem) => Err(StoreError::SharedFilesystem {
            path: path.to_owned(),
            filesystem,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_filesystems_are_known_by_name() {
        assert_eq!(shared(0x6969), Some("NFS"));
        assert_eq!(shared(0xff53_4d42), Some("CIFS"));
        assert_eq!(shared(0x6573_5546), Some("FUSE"));
    }

    #[test]
    fn local_filesystems_are_fine() {
        for magic in [0xef53, 0x0102_1994, 0x9123_683e, 0x5846_5342, 0x794c_7630] {
            assert_eq!(shared(magic), None);
        }
    }
}
