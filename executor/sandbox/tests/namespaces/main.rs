//! Real sandboxes on the kernel that runs the tests.
//!
//! The sandbox re-executes its caller's binary, so that this one has a `main` of its own. As a
//! `helper` it is also the process that is killed, chrooted, unprivileged or itself sandboxed.
#![allow(clippy::unwrap_used, unsafe_code)]

mod basics;
mod errors;
mod helper;
mod isolation;
mod lifecycle;
mod mounts;
mod nested;
mod rootfs;

use kiln_sandbox::userns::{UserNsSupport, probe};
use libtest_mimic::{Arguments, Trial};

fn main() {
    kiln_sandbox::init_if_requested();
    helper::run_if_requested();
    let lacking = match (probe(), rootfs::busybox()) {
        (_, None) => Some("no static busybox (Debian: busybox-static)"),
        (UserNsSupport::Root, Some(_)) => None,
        _ => Some("not root, with CAP_SYS_ADMIN"),
    };
    let suites = [
        ("basics", basics::TESTS),
        ("errors", errors::TESTS),
        ("isolation", isolation::TESTS),
        ("lifecycle", lifecycle::TESTS),
        ("mounts", mounts::TESTS),
        ("nested", nested::TESTS),
    ];
    let trials = suites.into_iter().flat_map(|(suite, tests)| {
        tests.iter().map(move |(name, body)| {
            Trial::ignorable_test(format!("{suite}::{name}"), move || match lacking {
                Some(reason) => Ok(libtest_mimic::Completion::ignored_with(reason)),
                None => {
                    body();
                    Ok(libtest_mimic::Completion::Completed)
                }
            })
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// A suite: names and bodies.
type Tests = &'static [(&'static str, fn())];
