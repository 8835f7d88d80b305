//! Whole builds through the command: each case has a store, a home and a context of its own.
//!
//! `KILN_TEST_REQUIRE=1` makes a case that cannot run here a failure; otherwise it is listed as
//! ignored, with what it lacks. `KILN_TEST_KEEP=1` leaves the directories of failed cases behind.
//! `INSTA_UPDATE=always` writes the snapshots, which are then to be read.

// A case that cannot go on fails, and one that leaves something out says so.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod accounts;
mod archives;
mod attestations;
mod builds;
mod caches;
mod checks;
mod commands;
mod debian;
mod engines;
mod exports;
mod failures;
mod foresight;
mod frontends;
mod heredocs;
mod history;
mod images;
mod instructions;
mod interrupts;
mod language;
mod limits;
mod mounts;
mod plans;
mod plantests;
mod platforms;
mod reasons;
mod registries;
mod remotes;
mod reports;
mod reproduce;
mod reproducible;
mod robustness;
mod run;
mod seed;
mod support;
mod travel;
mod trust;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use support::Case;

/// The name of a file of cases, and what lists them.
type Room = (&'static str, fn() -> Vec<Case>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Cases wait for disks, servers and clocks a third of their time.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(2 * processors);
    support::settle();
    let rooms: &[Room] = &[
        ("reasons", reasons::cases),
        ("history", history::cases),
        ("reports", reports::cases),
        ("builds", builds::cases),
        ("failures", failures::cases),
        ("interrupts", interrupts::cases),
        ("frontends", frontends::cases),
        ("language", language::cases),
        ("instructions", instructions::cases),
        ("heredocs", heredocs::cases),
        ("mounts", mounts::cases),
        ("travel", travel::cases),
        ("reproducible", reproducible::cases),
        ("limits", limits::cases),
        ("trust", trust::cases),
        ("plans", plans::cases),
        ("plantests", plantests::cases),
        ("platforms", platforms::cases),
        ("foresight", foresight::cases),
        ("debian", debian::cases),
        ("commands", commands::cases),
        ("checks", checks::cases),
        ("images", images::cases),
        ("exports", exports::cases),
        ("attestations", attestations::cases),
        ("reproduce", reproduce::cases),
        ("engines", engines::cases),
        ("run", run::cases),
        ("registries", registries::cases),
        ("accounts", accounts::cases),
        ("archives", archives::cases),
        ("caches", caches::cases),
        ("remotes", remotes::cases),
        ("seed", seed::cases),
        ("robustness", robustness::cases),
    ];
    let mut trials = Vec::new();
    for &(room, cases) in rooms {
        trials.extend(cases().into_iter().map(|case| case.into_trial(room)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
