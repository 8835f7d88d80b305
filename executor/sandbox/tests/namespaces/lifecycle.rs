//! Starting, watching and ending processes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio as Process};

use kiln_sandbox::{Exit, Spec, Stdio, User, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::helper::helper;
use crate::rootfs::{Rootfs, check, run};

pub(crate) const TESTS: crate::Tests = &[
    ("kill", || {
        let mut running = spawn(sleeper(&Rootfs::new())).unwrap();
        assert_eq!(running.try_wait().unwrap(), None);
        running.kill().unwrap();
        assert_eq!(running.wait().unwrap(), Exit::Signal(9));
        assert_eq!(running.wait().unwrap(), Exit::Signal(9));
    }),
    ("signal_goes_to_the_process", || {
        let mut running = spawn(sleeper(&Rootfs::new())).unwrap();
        running.signal(15).unwrap();
        assert_eq!(running.wait().unwrap(), Exit::Signal(15));
        running.signal(15).unwrap();
    }),
    ("its_descriptor_tells_the_end", || {
        let mut running = spawn(sleeper(&Rootfs::new())).unwrap();
        assert!(!readable(running.as_fd(), 0));
        running.signal(9).unwrap();
        assert!(readable(running.as_fd(), 10));
        assert_eq!(running.try_wait().unwrap(), Some(Exit::Signal(9)));
    }),
    ("dropping_ends_everything", || {
        let running = spawn(sleeper(&Rootfs::new())).unwrap();
        let pid = rustix::process::Pid::from_raw(running.pid()).unwrap();
        rustix::process::test_kill_process(pid).unwrap();
        drop(running);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }),
    ("what_stays_behind_ends_with_the_process", || {
        let root = Rootfs::new();
        let mut running = spawn(root.sh("sleep 1000 & sleep 1000 & exit 4")).unwrap();
        assert_eq!(running.wait().unwrap(), Exit::Code(4));
    }),
    ("orphans_are_reaped", || {
        check(
            "pid=$(sh -c 'true & echo $!'); while test -e /proc/$pid; do :; done; echo gone",
            "gone",
        );
    }),
    ("a_killed_caller_takes_its_sandboxes_along", killed_caller),
    ("terminal", terminal),
    ("terminal_of_a_user", || {
        let root = Rootfs::new();
        let mut spec = root.sh(
            "echo x > /dev/tty; stat -c '%u %a' /dev/pts/0; test -c /dev/console && echo console",
        );
        spec.user = User {
            uid: 1000,
            gid: 1000,
            groups: vec![],
        };
        spec.stdio = Stdio::Terminal { rows: 24, cols: 80 };
        assert_eq!(converse(spec, |_, _| {}), "x\r\n1000 620\r\nconsole\r\n");
    }),
    ("fifty_at_once_from_eight_threads", || {
        let root = Rootfs::new();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let root = &root;
                scope.spawn(move || {
                    for n in 0..7 {
                        let code = thread * 7 + n;
                        let output = run(root.sh(&format!("echo {code}; exit {code}"))).unwrap();
                        assert_eq!(output.stdout.trim(), code.to_string());
                        assert_eq!(output.exit, Exit::Code(code));
                    }
                });
            }
        });
    }),
    ("the_thread_that_starts_may_end", || {
        let root = Rootfs::new();
        let spec = root.sh("read line; echo $line");
        let (stdin, mut write) = std::io::pipe().unwrap();
        let (mut read, stdout) = std::io::pipe().unwrap();
        let started = std::thread::spawn(move || {
            let stdio = Stdio::Streams {
                stdin: Some(stdin.into()),
                stdout: Some(stdout.into()),
                stderr: None,
            };
            spawn(Spec { stdio, ..spec }).unwrap()
        });
        let mut running = started.join().unwrap();
        write.write_all(b"still here\n").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still here\n");
        assert!(running.wait().unwrap().success());
    }),
];

fn sleeper(root: &Rootfs) -> Spec {
    // The root may go: the process holds on to it.
    let mut spec = root.sh("");
    spec.args = vec!["sleep".into(), "1000".into()];
    spec
}

fn readable(fd: std::os::fd::BorrowedFd<'_>, seconds: i64) -> bool {
    let timeout = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    poll(
        &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
        Some(&timeout),
    )
    .unwrap()
        == 1
}

fn killed_caller() {
    let root = Rootfs::new();
    let mut caller = Command::new(std::env::current_exe().unwrap())
        .args(helper("hang"))
        .arg(root.path())
        .stdin(Process::piped())
        .stdout(Process::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(caller.stdout.take().unwrap()).lines();
    let pid: i32 = lines.next().unwrap().unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let first = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    assert!(!readable(first.as_fd(), 0));
    caller.kill().unwrap();
    caller.wait().unwrap();
    // With the first process, the kernel ends every other of its namespace.
    assert!(readable(first.as_fd(), 10));
}

fn terminal() {
    let root = Rootfs::new();
    let mut spec = root.sh("tty; stty size; read answer; stty size; echo got $answer");
    spec.stdio = Stdio::Terminal { rows: 24, cols: 80 };
    let said = converse(spec, |running, master| {
        running.resize(50, 132).unwrap();
        master.write_all(b"hi\n").unwrap();
    });
    assert_eq!(said, "/dev/pts/0\r\n24 80\r\nhi\r\n50 132\r\ngot hi\r\n");
}

/// Runs a spec with a terminal: answers once it has said two lines, and returns all it said.
fn converse(spec: Spec, answer: impl FnOnce(&kiln_sandbox::Running, &mut File)) -> String {
    let mut running = spawn(spec).unwrap();
    let master: OwnedFd = running.terminal().unwrap().try_clone_to_owned().unwrap();
    let mut master = File::from(master);
    let mut said = Vec::new();
    let mut answer = Some(answer);
    let mut chunk = [0; 1024];
    // It ends with EIO, once nobody has the other side.
    while let Ok(length @ 1..) = master.read(&mut chunk) {
        said.extend_from_slice(&chunk[..length]);
        if said.iter().filter(|byte| **byte == b'\n').count() >= 2
            && let Some(answer) = answer.take()
        {
            answer(&running, &mut master);
        }
    }
    assert!(running.wait().unwrap().success());
    String::from_utf8(said).unwrap()
}
