//! `kiln why` and `kiln builds`: what became of earlier builds, and why.

use kiln::{BuildRecord, StepRecord};

use super::args::WhyArgs;
use super::host::{self, Needs};
use super::progress::words_duration;
use super::{Done, Failure, print, report};

/// Builds that are listed.
const LISTED: usize = 50;

pub(crate) fn why(args: &WhyArgs) -> Done {
    let kiln = host::open(Needs::Records, true)?;
    let build = kiln.why(args.build.as_deref())?;
    let wanted = |step: &&StepRecord| match &args.step {
        None => true,
        Some(text) => {
            // The stage of a build for several platforms has the platform before its name.
            let name = step.stage.rsplit(' ').next();
            step.text.contains(text.as_str()) || step.stage == *text || name == Some(text)
        }
    };
    let steps: Vec<&StepRecord> = build.steps.iter().filter(wanted).collect();
    if steps.is_empty() {
        let text = args.step.as_deref().unwrap_or_default();
        report::usage(
            &format!("no step of the build holds `{text}`"),
            Some("`kiln why` shows them all"),
        );
        return Err(Failure::Told(2));
    }
    let mut text = format!(
        "build {} of {} ({}), {}: {}\n",
        build.id,
        build.context,
        build.dockerfile,
        build.age,
        ending(&build)
    );
    for step in steps {
        let line = if step.line > 0 {
            format!("line {}", step.line)
        } else {
            String::new()
        };
        let status = match step.ran() {
            Some(time) => format!("ran {}", words_duration(time)),
            None => step.status.clone(),
        };
        text.push_str(&format!("\n{}  {}  {}\n", line, step.stage, step.text));
        let because = match (step.status.as_str(), step.reason.as_str()) {
            ("cached", "") => "nothing that it depends on changed".to_owned(),
            ("not run", "") => {
                "something that it needs failed, or the build was stopped".to_owned()
            }
            (_, "") => String::new(),
            (_, reason) => reason.to_owned(),
        };
        text.push_str(&format!("  {status}"));
        if !because.is_empty() {
            text.push_str(&format!(": {because}"));
        }
        text.push('\n');
    }
    print(&text)
}

fn ending(build: &BuildRecord) -> String {
    match build.result.strip_prefix("sha256:") {
        Some(digest) => format!("sha256:{}", digest.chars().take(12).collect::<String>()),
        None if build.result.is_empty() => "no image".to_owned(),
        None => build.result.clone(),
    }
}

pub(crate) fn builds() -> Done {
    let kiln = host::open(Needs::Records, true)?;
    let mut rows = vec![
        [
            "BUILD", "STARTED", "TOOK", "STEPS", "NAMES", "RESULT", "CONTEXT",
        ]
        .map(str::to_owned),
    ];
    for build in kiln.builds(LISTED)? {
        let cached = build
            .steps
            .iter()
            .filter(|step| step.status == "cached")
            .count();
        rows.push([
            build.id.clone(),
            build.age.clone(),
            words_duration(build.duration),
            format!("{} ({cached} cached)", build.steps.len()),
            build.tags.join(", "),
            ending(&build),
            build.context.clone(),
        ]);
    }
    print(&super::images::columns(&rows))
}
