//! `kiln lock`.

use std::process::ExitCode;

use kiln::{LockChange, LockOptions, LockOutcome};

use super::args::LockArgs;
use super::build::source_request;
use super::host::{self, Needs};
use super::images::columns;
use super::progress::words_visible;
use super::{Done, Failure, print, report, trust};

/// So many digits of a commit or digest are shown.
const SHOWN_DIGITS: usize = 12;

pub(crate) fn lock(args: &LockArgs) -> Done {
    if args.source.engines.is_some() {
        report::usage(
            "`--engines` is not for `kiln lock`: what this host has is not what a name means elsewhere",
            Some("leave it out; registries are asked"),
        );
        return Err(Failure::Told(2));
    }
    let mut request = source_request(&args.source)?;
    // What is not there is made.
    request.lock.must_exist = false;
    request.lock.locked = false;
    let options = LockOptions {
        update: args.update.clone(),
        update_all: args.update_all,
        keep: args.keep,
        check: args.check || args.source.locked,
        secrets: trust::secrets(&args.secret, &args.ssh)?,
    };
    // A file has to be fetched for its checksum, and becomes a layer that the build finds.
    let kiln = host::open(Needs::Layers, &args.source)?;
    let outcome = host::runtime()?.block_on(kiln.lock(&request, &options))?;
    print(&words(&outcome, options.check))?;
    Ok(match options.check && !outcome.is_up_to_date {
        true => ExitCode::from(1),
        false => ExitCode::SUCCESS,
    })
}

fn words(outcome: &LockOutcome, check: bool) -> String {
    let rows: Vec<[String; 3]> = outcome.changes.iter().map(row).collect();
    let path = outcome.path.display();
    let entries = match outcome.entries {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    };
    let end = match (check, outcome.is_up_to_date) {
        (_, true) => format!("{path} is up to date: {entries}"),
        (true, false) => format!("{path} is not up to date, and was left as it is"),
        (false, false) => format!("{path} has {entries} now"),
    };
    format!("{}{}\n", columns(&rows), words_visible(&end))
}

fn row(change: &LockChange) -> [String; 3] {
    let (what, pin) = match (&change.from, &change.to) {
        (None, Some(to)) => ("added", short(to)),
        (Some(from), Some(to)) => ("moved", format!("{} -> {}", short(from), short(to))),
        (Some(_), None) => ("dropped", "no stage names it any more".to_owned()),
        (None, None) => ("lacks", "no pin yet".to_owned()),
    };
    [what.to_owned(), words_visible(&change.name), pin]
}

fn short(pin: &str) -> String {
    let (algorithm, digits) = match pin.split_once(':') {
        Some((algorithm, digits)) => (format!("{algorithm}:"), digits),
        None => (String::new(), pin),
    };
    let digits: String = digits.chars().take(SHOWN_DIGITS).collect();
    algorithm + &digits
}
