//! What became of the cases, in the manner of `cargo test`, and as JSON.

use std::fmt::Write as _;

use serde_json::json;

use super::Suite;

/// The version that a JSON summary names.
const VERSION: &str = "kiln.plan-test/0";

pub(super) fn write(suite: &Suite) -> String {
    let mut text = match suite.ran.len() {
        1 => "running 1 case\n".to_owned(),
        count => format!("running {count} cases\n"),
    };
    for ran in &suite.ran {
        let outcome = match (&ran.accepted, ran.problems.is_empty()) {
            (_, false) => "FAILED",
            (Some(_), true) => "accepted",
            (None, true) => "ok",
        };
        let _ = writeln!(text, "case {} ... {outcome}", ran.name);
    }
    let failed: Vec<_> = suite
        .ran
        .iter()
        .filter(|ran| !ran.problems.is_empty())
        .collect();
    if !failed.is_empty() {
        text.push_str("\nfailures:\n");
    }
    for ran in &failed {
        let _ = writeln!(text, "\n---- {} ----", ran.name);
        for problem in &ran.problems {
            let _ = writeln!(text, "{}", problem.message);
        }
    }
    if !failed.is_empty() {
        text.push_str("\nfailures:\n");
    }
    for ran in &failed {
        let _ = writeln!(text, "    {}", ran.name);
    }
    let accepted = suite
        .ran
        .iter()
        .filter(|ran| ran.accepted.is_some())
        .count();
    let accepted = match accepted {
        0 => String::new(),
        count => format!("{count} accepted; "),
    };
    let _ = writeln!(
        text,
        "\nresult: {}. {} passed; {} failed; {accepted}{} filtered out; finished in {:.2}s",
        if failed.is_empty() { "ok" } else { "FAILED" },
        suite.ran.len() - failed.len(),
        failed.len(),
        suite.filtered_out,
        suite.took.as_secs_f64(),
    );
    text
}

pub(super) fn write_json(suite: &Suite) -> String {
    let cases = suite.ran.iter().map(|ran| {
        let problems = ran
            .problems
            .iter()
            .map(|problem| json!({ "kind": problem.kind.word(), "message": problem.message }));
        json!({
            "name": ran.name,
            "file": ran.file.display().to_string(),
            "passed": ran.problems.is_empty(),
            "accepted": ran.accepted,
            "seconds": ran.took.as_secs_f64(),
            "problems": problems.collect::<Vec<_>>(),
        })
    });
    let document = json!({
        "version": VERSION,
        "passed": suite.ran.len() - suite.failed(),
        "failed": suite.failed(),
        "filtered_out": suite.filtered_out,
        "seconds": suite.took.as_secs_f64(),
        "cases": cases.collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}
