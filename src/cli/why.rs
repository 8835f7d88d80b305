//! `kiln why`: why each step of a build ran, or did not.

use std::collections::BTreeMap;

use kiln::{BuildRecord, FoundBy, Kiln, StepRecord};

use super::args::{RecordFormat, WhyArgs};
use super::host::{self, Needs};
use super::progress::{words_duration, words_visible};
use super::{Done, Failure, print, report};

/// What `latest` is, for those who name no build.
pub(crate) const LATEST: &str = "latest";

pub(crate) fn why(args: &WhyArgs) -> Done {
    let kiln = host::open(Needs::Records, true)?;
    let build = kiln.recall(args.build.as_deref().unwrap_or(LATEST))?;
    let steps = picked(&build, args.step.as_deref())?;
    match args.format {
        RecordFormat::Json => json(&build, &steps),
        RecordFormat::Text => text(&kiln, &build, &steps, args.step.is_some()),
    }
}

/// The steps that a word picks; an error if there are none.
pub(crate) fn picked(build: &BuildRecord, word: Option<&str>) -> Result<Vec<usize>, Failure> {
    let steps = build.pick(word);
    if steps.is_empty() {
        let text = word.unwrap_or_default();
        report::usage(
            &format!("no step of the build holds `{text}`"),
            Some("`kiln why` shows them all"),
        );
        return Err(Failure::Told(2));
    }
    Ok(steps)
}

/// Prints a build with some of its steps for other programs.
pub(crate) fn json(build: &BuildRecord, steps: &[usize]) -> Done {
    let text = serde_json::to_string_pretty(&build.to_json(steps)).unwrap_or_default();
    print(&format!("{text}\n"))
}

fn text(kiln: &Kiln, build: &BuildRecord, steps: &[usize], in_full: bool) -> Done {
    let origins = kiln.origins(build)?;
    let mut text = format!(
        "build {} of {} ({}), {}: {}\n",
        build.id,
        words_visible(&build.context),
        words_visible(&build.dockerfile),
        build.age,
        ending(build)
    );
    for &index in steps {
        let step = &build.steps[index];
        let line = match step.line {
            0 => String::new(),
            line => format!("line {line}"),
        };
        let (stage, instruction) = (words_visible(&step.stage), words_visible(&step.text));
        text.push_str(&format!("\n{line}  {stage}  {instruction}\n"));
        text.push_str(&format!("  {}", status(step)));
        let because = because(step, index, &origins);
        if !because.is_empty() {
            text.push_str(&format!(": {}", words_visible(&because)));
        }
        text.push('\n');
        if in_full {
            for line in step.explanation.lines() {
                text.push_str(&format!("    {}\n", words_visible(&line)));
            }
        }
    }
    print(&text)
}

/// What became of a step, with how long it ran.
pub(crate) fn status(step: &StepRecord) -> String {
    match step.ran() {
        Some(time) => format!("{} {}", step.status, words_duration(time)),
        None => step.status.clone(),
    }
}

/// Why, in one line, whatever became of the step.
pub(crate) fn because(
    step: &StepRecord,
    index: usize,
    origins: &BTreeMap<usize, BuildRecord>,
) -> String {
    let as_in = match (origins.get(&index), step.explanation.record) {
        (Some(origin), _) => Some(format!("in build {}, {}", origin.id, origin.age)),
        (None, Some(record)) => Some(format!("recorded {}", record.age())),
        (None, None) => None,
    };
    let found = match (step.explanation.road, as_in) {
        (Some(FoundBy::Definition), Some(then)) => {
            format!("every part of its key is as {then}")
        }
        (Some(FoundBy::Content), Some(then)) => format!("its result is that {then}"),
        (Some(FoundBy::Covered), _) => "what is made of it was found".to_owned(),
        _ => String::new(),
    };
    match (step.status.as_str(), step.reason.as_str()) {
        ("cached", "") if found.is_empty() => "nothing that it depends on changed".to_owned(),
        ("cached", "") => found,
        ("cached", reason) if found.is_empty() => reason.to_owned(),
        ("cached", reason) => format!("{reason}; {found}"),
        ("not run", "") => "something that it needs failed, or the build was stopped".to_owned(),
        (_, reason) => reason.to_owned(),
    }
}

/// How a build ended: its image, or what went wrong.
pub(crate) fn ending(build: &BuildRecord) -> String {
    match build.result.strip_prefix("sha256:") {
        Some(digest) => format!("sha256:{}", digest.chars().take(12).collect::<String>()),
        None if build.result.is_empty() => "no image".to_owned(),
        None => words_visible(&build.result),
    }
}
