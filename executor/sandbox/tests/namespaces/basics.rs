//! What a process gets and gives back.

use kiln_sandbox::{Error, Exit, spawn};
use libtest_mimic::Trial;

use crate::rootfs::{Rootfs, check, check_in, run};

pub(crate) fn trials() -> Vec<Trial> {
    let test = |name: &str, body: fn()| {
        Trial::test(format!("basics::{name}"), move || {
            body();
            Ok(())
        })
    };
    vec![
        test("exit_code", || exits("exit 7", Exit::Code(7))),
        test("signal", || exits("kill -9 $$", Exit::Signal(9))),
        test("output", || check("echo out; echo err >&2", "out\nerr")),
    ]
}

fn exits(script: &str, expected: Exit) {
    assert_eq!(run(Rootfs::new().sh(script)).unwrap().exit, expected);
}
