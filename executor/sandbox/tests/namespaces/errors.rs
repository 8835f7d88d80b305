//! What cannot be started, and how that is told.

use std::os::unix::fs::{PermissionsExt, symlink};

use kiln_sandbox::{Error, Mount, MountSource, Phase, Spec};

use crate::rootfs::{Rootfs, open, run};

pub(crate) const TESTS: crate::Tests = &[
    ("a_missing_program", || {
        let code = fails(
            |spec, _| spec.args = vec!["nothing".into()],
            "the program `nothing` was not found in the image's `PATH`",
        );
        assert_eq!(code, 127);
        let code = fails(
            |spec, _| spec.args = vec!["/no/thing".into()],
            "the program `/no/thing` was not found in the image",
        );
        assert_eq!(code, 127);
    }),
    ("a_program_that_is_not_executable", || {
        let code = fails(
            |spec, root| {
                std::fs::write(root.path().join("bin/data"), "x").unwrap();
                spec.args = vec!["data".into()];
            },
            "the program `data` can't be executed: Permission denied (os error 13)",
        );
        assert_eq!(code, 126);
    }),
    ("a_directory_is_not_a_program", || {
        fails(
            |spec, _| spec.args = vec!["/bin".into()],
            "the program `/bin` can't be executed: Permission denied (os error 13)",
        );
    }),
    ("a_missing_interpreter", || {
        let code = fails(
            |spec, root| {
                let script = root.path().join("bin/script");
                std::fs::write(&script, "#!/usr/bin/python\n").unwrap();
                std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
                spec.args = vec!["script".into()];
            },
            "the program `script` needs an interpreter or loader that is not in the image",
        );
        assert_eq!(code, 127);
    }),
    ("a_missing_working_directory", || {
        fails(
            |spec, _| spec.cwd = "/nowhere".into(),
            "can't enter the working directory `/nowhere`: No such file or directory (os error 2)",
        );
    }),
    ("no_arguments", || {
        fails(
            |spec, _| spec.args.clear(),
            "the sandbox can't have no program in `args`",
        );
    }),
    ("a_relative_target", || {
        fails(
            |spec, _| spec.mounts.push(tmpfs("work")),
            "the sandbox can't have the path `work`",
        );
        fails(
            |spec, _| spec.mounts.push(tmpfs("//.")),
            "the sandbox can't have a mount on `//.`",
        );
    }),
    ("a_loop_of_links", || {
        fails(
            |spec, root| {
                symlink("b", root.path().join("a")).unwrap();
                symlink("a", root.path().join("b")).unwrap();
                spec.mounts.push(tmpfs("/a/c"));
            },
            "can't make the mount point in the sandbox (`/a/c`): Too many levels of symbolic links (os error 40)",
        );
    }),
    ("a_file_in_the_way", || {
        fails(
            |spec, _| spec.mounts.push(tmpfs("/bin/busybox/x")),
            "can't make the mount point in the sandbox (`/bin/busybox/x`): Not a directory (os error 20)",
        );
    }),
    ("a_subpath_that_leads_out", || {
        fails(
            |spec, root| {
                symlink("/etc/passwd", root.path().join("out")).unwrap();
                let source = MountSource::Bind {
                    fd: open(root.path()),
                    subpath: Some("out".into()),
                };
                spec.mounts.push(Mount {
                    target: "/x".into(),
                    source,
                    readonly: true,
                });
            },
            "can't take what is to be mounted on `/x`: No such file or directory (os error 2)",
        );
    }),
    ("an_id_that_would_leave_it_root", || {
        let expected = "the sandbox can't have the user or group `4294967295`";
        fails(|spec, _| spec.user.uid = u32::MAX, expected);
        fails(|spec, _| spec.user.gid = u32::MAX, expected);
        fails(|spec, _| spec.user.groups.push(u32::MAX), expected);
    }),
    ("a_limit_that_is_none", || {
        let root = Rootfs::new();
        let mut spec = root.sh("true");
        let resource = kiln_sandbox::Resource::Nofile;
        spec.rlimits.push(kiln_sandbox::Rlimit {
            resource,
            soft: 2,
            hard: 1,
        });
        let error = run(spec).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Setup {
                    phase: Phase::Rlimit,
                    ..
                }
            ),
            "{error:?}"
        );
    }),
];

fn tmpfs(target: &str) -> Mount {
    let source = MountSource::Tmpfs {
        size_bytes: None,
        mode: 0o755,
    };
    Mount {
        target: target.into(),
        source,
        readonly: false,
    }
}

fn fails(change: impl FnOnce(&mut Spec, &Rootfs), expected: &str) -> i32 {
    let root = Rootfs::new();
    let mut spec = root.sh("true");
    change(&mut spec, &root);
    let error = run(spec).unwrap_err();
    let mut text = error.to_string();
    if let Some(cause) = std::error::Error::source(&error) {
        text = format!("{text}: {cause}");
    }
    assert_eq!(text, expected);
    error.exit_code()
}
