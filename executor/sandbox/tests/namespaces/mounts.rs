//! Mounts and the points that they need, in friendly and hostile images.

use std::os::unix::fs::symlink;

use kiln_sandbox::{Mount, MountSource, RootFs, Spec};

use crate::rootfs::{Rootfs, check_in, open, run};

pub(crate) const TESTS: crate::Tests = &[
    ("a_directory_and_a_file", || {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("f"), "content").unwrap();
        let dir = bind("/work", outer.path(), false);
        let file = bind("/one", &outer.path().join("f"), false);
        check(
            |spec| spec.mounts = vec![dir, file],
            "cat /work/f /one; echo; echo new > /work/g",
            "contentcontent",
        );
        assert_eq!(
            std::fs::read_to_string(outer.path().join("g")).unwrap(),
            "new\n"
        );
    }),
    ("read_only", || {
        let outer = tempfile::tempdir().unwrap();
        let dir = bind("/work", outer.path(), true);
        check(
            |spec| spec.mounts = vec![dir],
            "touch /work/f 2>/dev/null || echo refused",
            "refused",
        );
    }),
    ("a_subpath", || {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outer.path().join("a/b")).unwrap();
        symlink("/a/b", outer.path().join("link")).unwrap();
        let source = MountSource::Bind {
            fd: open(outer.path()),
            subpath: Some("link".into()),
        };
        let mount = Mount {
            target: "/work".into(),
            source,
            readonly: false,
        };
        check(|spec| spec.mounts = vec![mount], "touch /work/here", "");
        assert!(outer.path().join("a/b/here").exists());
    }),
    ("memory", || {
        let source = MountSource::Tmpfs {
            size_bytes: Some(1 << 20),
            mode: 0o700,
        };
        let mount = Mount {
            target: "/tmp".into(),
            source,
            readonly: false,
        };
        check(
            |spec| spec.mounts = vec![mount],
            "echo x > /tmp/x; stat -c %a /tmp; cat /tmp/x",
            "700\nx",
        );
    }),
    ("a_file_with_given_bytes", || {
        let source = MountSource::File {
            bytes: b"secret".to_vec(),
            mode: 0o400,
            uid: 7,
            gid: 8,
        };
        let mount = Mount {
            target: "/run/secrets/s".into(),
            source,
            readonly: true,
        };
        check(
            |spec| spec.mounts = vec![mount],
            "stat -c '%a %u %g' /run/secrets/s; cat /run/secrets/s",
            "400 7 8\nsecret",
        );
    }),
    ("name_resolution", || {
        let script =
            "cat /etc/resolv.conf /etc/hosts; ( echo x > /etc/hosts ) 2>/dev/null || echo refused";
        check(
            |spec| {
                spec.resolv_conf = Some(b"nameserver 1\n".to_vec());
                spec.hosts = Some(b"1 one\n".to_vec());
            },
            script,
            "nameserver 1\n1 one\nrefused",
        );
    }),
    ("a_read_only_root", || {
        let script = "touch /x 2>/dev/null || echo refused; echo > /dev/shm/ok && echo fine";
        check(|spec| spec.root_readonly = true, script, "refused\nfine");
    }),
    ("later_mounts_cover_earlier_ones", || {
        let a = Mount {
            target: "/a".into(),
            source: MountSource::Tmpfs {
                size_bytes: None,
                mode: 0o755,
            },
            readonly: false,
        };
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("f"), "below").unwrap();
        check(
            |spec| spec.mounts = vec![a, bind("/a/b", outer.path(), false)],
            "cat /a/b/f",
            "below",
        );
    }),
    ("what_was_made_is_told", || {
        let outer = tempfile::tempdir().unwrap();
        let root = Rootfs::new();
        let mut spec = root.sh("true");
        spec.hosts = Some(b"".to_vec());
        // Inside another mount: not the root's.
        spec.mounts = vec![
            bind("/src/app", outer.path(), false),
            bind("/src/app/sub/x", outer.path(), false),
        ];
        let stubs = run(spec).unwrap().stubs;
        let expected = [
            "/proc",
            "/sys",
            "/dev",
            "/etc",
            "/etc/hosts",
            "/src",
            "/src/app",
        ];
        let expected = expected.map(|path| (path.to_owned(), path != "/etc/hosts"));
        assert_eq!(stubs, expected);
        // What is there is not made again.
        let mut spec = root.sh("true");
        spec.hosts = Some(b"".to_vec());
        assert_eq!(run(spec).unwrap().stubs, []);
    }),
    ("links_lead_nowhere_but_inside", || {
        let outside = tempfile::tempdir().unwrap();
        let root = Rootfs::new();
        let up = format!("/../../../../../..{}", outside.path().display());
        symlink(&up, root.path().join("etc")).unwrap();
        let mut spec = root.sh("cat /etc/hosts");
        spec.hosts = Some(b"inside".to_vec());
        let output = run(spec).unwrap();
        assert_eq!(output.stdout, "inside", "{output:?}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        let last = output.stubs.last().unwrap();
        assert_eq!(last.0, format!("{}/hosts", outside.path().display()));
        assert!(root.path().join(last.0.trim_start_matches('/')).exists());
    }),
    ("a_dangling_link_is_followed_inside", || {
        let root = Rootfs::new();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        symlink(
            "../run/systemd/stub.conf",
            root.path().join("etc/resolv.conf"),
        )
        .unwrap();
        let mut spec = root.sh("cat /etc/resolv.conf");
        spec.resolv_conf = Some(b"inside".to_vec());
        let output = run(spec).unwrap();
        assert_eq!(output.stdout, "inside", "{output:?}");
        assert_eq!(output.stubs.last().unwrap().0, "/run/systemd/stub.conf");
    }),
    ("links_in_place_of_proc_and_dev", || {
        let root = Rootfs::new();
        let outside = tempfile::tempdir().unwrap();
        symlink("/elsewhere/proc", root.path().join("proc")).unwrap();
        symlink(outside.path(), root.path().join("dev")).unwrap();
        check_in(
            &root,
            |_| {},
            "test -c /dev/null && readlink /proc; cat /proc/timer_list | wc -c",
            "/elsewhere/proc\n0",
        );
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }),
    ("dots_in_targets", || {
        let outer = tempfile::tempdir().unwrap();
        let root = Rootfs::new();
        check_in(
            &root,
            |spec| spec.mounts = vec![bind("/../../a/./b/../c/", outer.path(), false)],
            "ls -d /a/c",
            "/a/c",
        );
    }),
    ("a_detached_root", || {
        use rustix::mount::{OpenTreeFlags, open_tree};
        let root = Rootfs::new();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let detached = open_tree(rustix::fs::CWD, root.path(), flags).unwrap();
        check_in(
            &root,
            |spec| spec.root = RootFs::Detached(detached),
            "ls -d /bin",
            "/bin",
        );
    }),
    ("nothing_propagates_to_the_host", || {
        let root = Rootfs::new();
        let script = "mkdir -p /m && mount -t tmpfs x /m && touch /m/f && echo mounted";
        check_in(
            &root,
            |spec| spec.privileges = kiln_sandbox::Privileges::Insecure,
            script,
            "mounted",
        );
        assert_eq!(std::fs::read_dir(root.path().join("m")).unwrap().count(), 0);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(root.path().to_str().unwrap()));
    }),
    ("many_descriptors", || {
        let outer = tempfile::tempdir().unwrap();
        let mounts = (0..300)
            .map(|n| bind(&format!("/m/{n}"), outer.path(), true))
            .collect();
        check(|spec| spec.mounts = mounts, "ls /m | wc -l", "300");
    }),
];

fn bind(target: &str, source: &std::path::Path, readonly: bool) -> Mount {
    let source = MountSource::Bind {
        fd: open(source),
        subpath: None,
    };
    Mount {
        target: target.into(),
        source,
        readonly,
    }
}

fn check(change: impl FnOnce(&mut Spec), script: &str, expected: &str) {
    check_in(&Rootfs::new(), change, script, expected);
}
