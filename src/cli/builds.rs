//! `kiln builds`: the builds that are remembered, and all that is known of one.

use std::io::{IsTerminal, Write};
use std::path::Path;

use kiln::{BuildRecord, Kiln, StepLog};

use super::args::{BuildsCommand, RecordFormat};
use super::host::{self, Needs};
use super::images::columns;
use super::progress::{words_bytes, words_duration, words_plain, words_visible};
use super::why::{because, ending, json, picked, status};
use super::{Done, Failure, print, report};

/// Builds that are listed.
const LISTED: usize = 50;

/// Longer instructions are cut in tables.
const TEXT_WIDTH: usize = 60;
/// The same of reasons.
const WHY_WIDTH: usize = 110;

pub(crate) fn builds(command: Option<&BuildsCommand>) -> Done {
    let kiln = host::open(Needs::Records, true)?;
    match command {
        None => ls(&kiln, LISTED, RecordFormat::Text),
        Some(BuildsCommand::Ls { limit, format }) => ls(&kiln, *limit, *format),
        Some(BuildsCommand::Show { id, format }) => show(&kiln, &kiln.recall(id)?, *format),
        Some(BuildsCommand::Logs { id, step, format }) => {
            logs(&kiln, &kiln.recall(id)?, step.as_deref(), *format)
        }
        Some(BuildsCommand::Report { id, output }) => {
            report_page(&kiln, &kiln.recall(id)?, output.as_deref())
        }
        Some(BuildsCommand::Rm { ids, all }) => rm(&kiln, ids, *all),
    }
}

fn ls(kiln: &Kiln, limit: usize, format: RecordFormat) -> Done {
    let builds = kiln.builds(limit)?;
    if format == RecordFormat::Json {
        // One a line, without the steps.
        let lines = builds.iter().map(|build| {
            let line = serde_json::to_string(&build.to_json(&[])).unwrap_or_default();
            format!("{line}\n")
        });
        return print(&lines.collect::<String>());
    }
    let header = [
        "BUILD", "STARTED", "TOOK", "STEPS", "WRITTEN", "PULLED", "NAMES", "RESULT", "CONTEXT",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for build in builds {
        let (cached, steps) = build.hits();
        rows.push([
            build.id.clone(),
            build.age.clone(),
            words_duration(build.duration),
            format!("{steps} ({cached} cached)"),
            words_bytes(build.total(|step| step.written_bytes)),
            words_bytes(build.total(|step| step.pulled_bytes)),
            build.tags.join(", "),
            ending(&build),
            words_visible(&build.context),
        ]);
    }
    print(&columns(&rows))
}

fn show(kiln: &Kiln, build: &BuildRecord, format: RecordFormat) -> Done {
    if format == RecordFormat::Json {
        let all: Vec<usize> = (0..build.steps.len()).collect();
        return json(build, &all);
    }
    let (cached, steps) = build.hits();
    let bytes = format!(
        "{} written, {} pulled",
        words_bytes(build.total(|step| step.written_bytes)),
        words_bytes(build.total(|step| step.pulled_bytes))
    );
    let facts = [
        ("build", build.id.clone()),
        ("started", build.age.clone()),
        ("took", words_duration(build.duration)),
        ("outcome", build.outcome().to_owned()),
        ("result", ending(build)),
        ("context", words_visible(&build.context)),
        ("dockerfile", words_visible(&build.dockerfile)),
        ("target", words_visible(&build.target)),
        ("platform", build.details.platforms.join(", ")),
        ("names", build.tags.join(", ")),
        (
            "arguments",
            words_visible(&build.details.arguments.join(" ")),
        ),
        ("steps", format!("{steps} ({cached} cached)")),
        ("bytes", bytes),
    ];
    let facts = facts.iter().filter(|(_, value)| !value.is_empty());
    let mut text: String = facts
        .map(|(name, value)| format!("{name:<11} {value}\n"))
        .collect();
    if !build.steps.is_empty() {
        text.push('\n');
        text.push_str(&steps_table(kiln, build)?);
    }
    for export in &build.details.exports {
        let took = std::time::Duration::from_micros(export.took_micros);
        text.push_str(&format!(
            "{} · {}\n",
            words_visible(&export.what),
            words_duration(took)
        ));
    }
    print(&text)
}

/// The steps, each with when it began and what it moved; `*` marks the critical path.
fn steps_table(kiln: &Kiln, build: &BuildRecord) -> Result<String, Failure> {
    let critical = build.critical_path();
    let origins = kiln.origins(build)?;
    let header = [
        "STEP",
        "STAGE",
        "INSTRUCTION",
        "STATUS",
        "AT",
        "WRITTEN",
        "PULLED",
        "WHY",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for (index, step) in build.steps.iter().enumerate() {
        let mark = if critical.contains(&index) { "*" } else { "" };
        let micros = |micros: Option<u64>| {
            micros.map_or(String::new(), |micros| {
                words_duration(std::time::Duration::from_micros(micros))
            })
        };
        let bytes = |bytes: Option<u64>| bytes.map_or(String::new(), words_bytes);
        let instruction = cut(&words_visible(&step.text), TEXT_WIDTH);
        let why = words_visible(&because(step, index, &origins));
        rows.push([
            format!("{}{mark}", index + 1),
            words_visible(&step.stage),
            instruction,
            status(step),
            micros(step.started_micros),
            bytes(step.written_bytes),
            bytes(step.pulled_bytes),
            cut(&why, WHY_WIDTH),
        ]);
    }
    Ok(columns(&rows))
}

fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}

fn logs(kiln: &Kiln, build: &BuildRecord, step: Option<&str>, format: RecordFormat) -> Done {
    let steps = picked(build, step)?;
    let logs = kiln.logs(build)?;
    let logs: Vec<&StepLog> = logs
        .iter()
        .filter(|log| steps.contains(&(log.step as usize)))
        .collect();
    if format == RecordFormat::Json {
        let lines = logs.iter().map(|log| {
            let line = serde_json::json!({
                "step": log.step + 1,
                "bytes": log.bytes,
                "left_out_bytes": log.left_out_bytes(),
                "head": String::from_utf8_lossy(&log.head),
                "tail": String::from_utf8_lossy(&log.tail),
            });
            format!("{line}\n")
        });
        return print(&lines.collect::<String>());
    }
    let mut out = Vec::new();
    for log in &logs {
        if steps.len() > 1 {
            let about = match build.steps.get(log.step as usize) {
                Some(step) => format!("{}  {}", step.stage, step.text),
                None => String::new(),
            };
            let about = words_visible(&about);
            out.extend(format!("==> {} {about}\n", log.step + 1).into_bytes());
        }
        out.extend_from_slice(&log.head);
        if log.left_out_bytes() > 0 {
            end_line(&mut out);
            out.extend(format!("[{} bytes left out]\n", log.left_out_bytes()).into_bytes());
        }
        out.extend_from_slice(&log.tail);
        end_line(&mut out);
    }
    let mut stdout = std::io::stdout().lock();
    // What a step wrote may do anything to a terminal; whoever reads it elsewhere gets its bytes.
    let written = match stdout.is_terminal() {
        true => {
            let text = String::from_utf8_lossy(&out);
            let lines = text.lines().map(|line| format!("{}\n", words_plain(line)));
            stdout.write_all(lines.collect::<String>().as_bytes())
        }
        false => stdout.write_all(&out),
    };
    // A reader that went away has seen enough.
    drop(written.and_then(|()| stdout.flush()));
    Ok(std::process::ExitCode::SUCCESS)
}

fn end_line(out: &mut Vec<u8>) {
    if out.last().is_some_and(|last| *last != b'\n') {
        out.push(b'\n');
    }
}

/// Writes the page of a build to a file, or to standard output for `-`.
fn report_page(kiln: &Kiln, build: &BuildRecord, output: Option<&Path>) -> Done {
    let page = kiln.report(build)?;
    let path = match output {
        Some(path) if path == Path::new("-") => return print(&page),
        Some(path) => path.to_owned(),
        None => format!("kiln-build-{}.html", build.id).into(),
    };
    kiln::write_whole(&path, page.as_bytes())?;
    print(&format!("{}\n", path.display()))
}

fn rm(kiln: &Kiln, ids: &[String], all: bool) -> Done {
    if ids.is_empty() && !all {
        report::usage(
            "no build was named",
            Some("`kiln builds rm --all` forgets them all"),
        );
        return Err(Failure::Told(2));
    }
    let found: Vec<BuildRecord> = match all {
        true => kiln.builds(usize::MAX)?,
        false => ids
            .iter()
            .map(|id| kiln.recall(id))
            .collect::<Result<_, _>>()?,
    };
    let mut text = String::new();
    for build in found {
        if kiln.forget_build(&build.id)? {
            text.push_str(&format!("forgot {}\n", build.id));
        }
    }
    print(&text)
}
