//! What a process gets and gives back.

use std::os::fd::OwnedFd;

use kiln_sandbox::{Exit, Resource, Rlimit, Spec, Stdio, User, spawn};

use crate::rootfs::{Rootfs, check, check_in, run};

pub(crate) const TESTS: crate::Tests = &[
    ("exit_code", || exits("exit 7", Exit::Code(7))),
    ("signal", || exits("kill -9 $$", Exit::Signal(9))),
    ("output", || check("echo out; echo err >&2", "out\nerr")),
    ("environment_is_exactly_the_given", || {
        check_with(
            |spec| {
                spec.env.push(("A".into(), "b=c d".into()));
                spec.args = vec!["env".into()];
            },
            "",
            "PATH=/bin\nA=b=c d",
        );
    }),
    ("working_directory", || {
        check_with(|spec| spec.cwd = "/bin".into(), "pwd", "/bin")
    }),
    ("umask", || check("umask", "0022")),
    ("host_name", || {
        check("hostname", "kiln");
        check_with(
            |spec| spec.hostname = Some("other".into()),
            "hostname",
            "other",
        );
    }),
    ("user_and_groups", || {
        check_with(
            |spec| spec.user = user(),
            "id",
            "uid=1000 gid=100 groups=5,7",
        );
    }),
    ("root_has_no_other_groups", || check("id", "uid=0 gid=0")),
    ("limits", || {
        let limit = Rlimit {
            resource: Resource::Nofile,
            soft: 100,
            hard: 200,
        };
        check_with(
            move |spec| spec.rlimits.push(limit),
            "ulimit -Sn; ulimit -Hn",
            "100\n200",
        );
    }),
    ("path_lookup", || {
        check_with(
            |spec| spec.args = vec!["echo".into(), "hi".into()],
            "",
            "hi",
        );
    }),
    ("standard_input", standard_input),
    ("absent_streams_are_null", || {
        let script = "read line || readlink /proc/self/fd/0";
        check(script, "/dev/null");
    }),
    ("a_user_may_reopen_its_output", || {
        check_with(
            |spec| spec.user = user(),
            "echo a > /dev/stdout; echo b > /proc/self/fd/2",
            "a\nb",
        );
    }),
    ("its_process_is_the_second_and_leads_a_session", || {
        check(
            "echo $$; read a b c d e f rest < /proc/self/stat; echo $f",
            "2\n2",
        );
    }),
    ("signals_are_as_by_default", || {
        // Without a shell, which changes them.
        let mut spec = Rootfs::new().sh("");
        spec.args = vec!["cat".into(), "/proc/self/status".into()];
        let root = Rootfs::new();
        spec.root = root.root();
        let status = run(spec).unwrap().stdout;
        for line in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
            assert!(status.contains(line), "{status}");
        }
    }),
    ("long_arguments_and_environments", long_arguments),
    ("bytes_that_are_not_text", || {
        use std::os::unix::ffi::OsStringExt;
        let odd = std::ffi::OsString::from_vec(b"\xff\xfe".to_vec());
        let mut spec = Rootfs::new().sh("printf %s \"$0\" | wc -c");
        spec.args.push(odd);
        let root = Rootfs::new();
        spec.root = root.root();
        assert_eq!(run(spec).unwrap().stdout.trim(), "2");
    }),
];

fn user() -> User {
    User {
        uid: 1000,
        gid: 100,
        groups: vec![5, 7],
    }
}

fn exits(script: &str, expected: Exit) {
    assert_eq!(run(Rootfs::new().sh(script)).unwrap().exit, expected);
}

fn check_with(change: impl FnOnce(&mut Spec), script: &str, expected: &str) {
    check_in(&Rootfs::new(), change, script, expected);
}

fn standard_input() {
    let (read, mut write) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut write, b"hello\n").unwrap();
    drop(write);
    let stdin = Some(OwnedFd::from(read));
    check_with(
        |spec| {
            spec.stdio = Stdio::Streams {
                stdin,
                stdout: None,
                stderr: None,
            }
        },
        "cat",
        "hello",
    );
}

fn long_arguments() {
    let root = Rootfs::new();
    let mut spec = root.sh("echo ${#BIG} ${#0}");
    spec.args.push("x".repeat(100_000).into());
    spec.env.push(("BIG".into(), "y".repeat(120_000).into()));
    // Some variables more, so that the plan takes many packets.
    spec.env
        .extend((0..2000).map(|n| (format!("V{n}").into(), "z".repeat(50).into())));
    assert_eq!(run(spec).unwrap().stdout.trim(), "120000 100000");
    // The root goes after the process.
    let spec = root.sh("true");
    assert!(spawn(spec).unwrap().wait().unwrap().success());
}
