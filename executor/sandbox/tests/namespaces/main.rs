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
use libtest_mimic::{Arguments, Completion, Trial};

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
    ];
    let trial = |name: String, body: Box<dyn FnOnce() -> Result<(), String> + Send>| {
        Trial::ignorable_test(name, move || match lacking {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => Ok(match body() {
                Ok(()) => Completion::Completed,
                Err(reason) => Completion::ignored_with(reason),
            }),
        })
    };
    let always = suites.into_iter().flat_map(|(suite, tests)| {
        let always = |body: &'static fn()| -> Box<dyn FnOnce() -> _ + Send> {
            Box::new(|| {
                body();
                Ok(())
            })
        };
        let tests = tests.iter();
        tests.map(move |(name, body)| trial(format!("{suite}::{name}"), always(body)))
    });
    let probed = nested::TESTS.iter();
    let probed = probed.map(|(name, body)| trial(format!("nested::{name}"), Box::new(body)));
    libtest_mimic::run(&Arguments::from_args(), always.chain(probed).collect()).exit();
}

/// A suite: names and bodies.
type Tests = &'static [(&'static str, fn())];

/// A suite whose bodies err with what this host lacks.
type ProbedTests = &'static [(&'static str, fn() -> Result<(), String>)];
