//! How every view ends: each step, what became of it and why, and one line for all.

use std::fmt::Write as _;
use std::time::Duration;

use console::{measure_text_width, pad_str};
use kiln::{Explanation, StepIndex, StepStatus};

use super::board::{Board, Step};
use super::words;

/// What the summary line says beyond the steps.
pub(crate) struct Ending {
    /// From the command's start.
    pub(crate) took: Duration,
    /// The image id, where there is one.
    pub(crate) id: Option<String>,
    /// The id is the one that the same build, or the same name, had before.
    pub(crate) same_as_before: bool,
    /// The build failed or was cancelled: there is no result.
    pub(crate) failed: bool,
}

/// Styles for a stream that shows colours, or none.
#[derive(Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    pub(super) fn dim(self, text: &str) -> String {
        if self.0 {
            format!("\x1b[2m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
    pub(super) fn green(self, text: &str) -> String {
        if self.0 {
            format!("\x1b[32m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
    pub(super) fn red(self, text: &str) -> String {
        if self.0 {
            format!("\x1b[31m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
    pub(super) fn bold(self, text: &str) -> String {
        if self.0 {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The column that says what became of a step.
const STATUS_WIDTH: usize = 12;

/// A reason that is cut to less says nothing.
const LEAST_REASON: usize = 8;

/// Between the parts of the last line.
const SEPARATOR: &str = " · ";

/// Longer instructions do not push the other columns away.
const TEXT_WIDTH: usize = 48;

/// The same where nothing is clipped.
const WHOLE_TEXT_WIDTH: usize = 72;

/// Draws the ending table; `width` clips each line, none clips nothing.
pub(super) fn draw(board: &Board, ending: &Ending, width: Option<usize>, paint: Paint) -> String {
    if ending.failed && board.steps.is_empty() {
        // What went wrong came before there was a plan.
        return String::new();
    }
    let rows: Vec<Row<'_>> = board.steps.iter().map(Row::of).collect();
    let widest = |text: for<'r> fn(&'r Row<'r>) -> &'r str| {
        let widths = rows.iter().map(|row| measure_text_width(text(row)));
        widths.max().unwrap_or(0)
    };
    let stages = stage_column(board, width);
    let (statuses, most) = match width {
        // What became of a step is never what is cut.
        Some(width) => {
            let statuses = widest(|row| &row.status).max(STATUS_WIDTH);
            let left = width.saturating_sub(stages + statuses + 4);
            (statuses, TEXT_WIDTH.min(left))
        }
        None => (STATUS_WIDTH, WHOLE_TEXT_WIDTH),
    };
    let texts = widest(|row| row.text).min(most);
    let mut out = String::new();
    for row in &rows {
        let pad = |text: &str, columns: usize| {
            let text = match width {
                Some(_) => words::cut(text, columns),
                None => text.to_owned(),
            };
            pad_str(&text, columns, console::Alignment::Left, None).into_owned()
        };
        let left = format!("{}  {}  ", pad(row.stage, stages), pad(row.text, texts));
        let room = width.map(|width| width.saturating_sub(stages + texts + statuses + 6));
        let reason = match room {
            Some(room) if room < LEAST_REASON => String::new(),
            Some(room) => words::cut(row.reason, room),
            None => row.reason.to_owned(),
        };
        let status = match reason.is_empty() {
            true => row.status.clone(),
            false => pad_str(&row.status, statuses, console::Alignment::Left, None).into_owned(),
        };
        let line = format!("{left}{}  {reason}", row.paint(paint, &status));
        let line = match width {
            Some(width) => words::cut(line.trim_end(), width),
            None => line,
        };
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let parts = summary(board, ending, paint);
    out.push_str(&wrapped(&parts, width.unwrap_or(usize::MAX)));
    out.push('\n');
    out
}

/// A step, what became of it, and below that everything behind its reason.
pub(super) fn explain(
    board: &Board,
    step: StepIndex,
    status: &StepStatus,
    explanation: &Explanation,
) -> Vec<String> {
    let Some(step) = board.steps.get(step) else {
        return Vec::new();
    };
    let mut lines = vec![format!(
        "{}  {}: {}",
        step.info.stage,
        step.info.text,
        status_words(status)
    )];
    let below = explanation.lines();
    lines.extend(
        below
            .iter()
            .map(|line| format!("    {}", words::visible(line))),
    );
    lines
}

/// The width of the first column: of the longest stage name, but in a view that clips no more than a
/// quarter of all.
pub(super) fn stage_column(board: &Board, width: Option<usize>) -> usize {
    let widest = board.stage_width();
    width.map_or(widest, |width| widest.min(width / 4))
}

/// A step as the table has it.
struct Row<'b> {
    stage: &'b str,
    text: &'b str,
    ended: Option<&'b StepStatus>,
    status: String,
    reason: &'b str,
}

impl<'b> Row<'b> {
    fn of(step: &'b Step) -> Row<'b> {
        let ended = step.ended.as_ref();
        Row {
            stage: &step.info.stage,
            text: &step.info.text,
            ended: ended.map(|(status, _)| status),
            status: ended.map_or("not run".to_owned(), |(status, _)| status_words(status)),
            reason: ended.map_or("", |(_, reason)| reason),
        }
    }

    fn paint(&self, paint: Paint, text: &str) -> String {
        match self.ended {
            Some(StepStatus::Ran(_)) => paint.green(text),
            Some(StepStatus::Failed) => paint.red(text),
            _ => paint.dim(text),
        }
    }
}

/// The parts, each with what stands before it, in as few lines as they fit in.
fn wrapped(parts: &[(&str, String)], width: usize) -> String {
    let mut text = String::new();
    let mut used = 0;
    for (separator, part) in parts {
        let length = measure_text_width(part);
        let apart = measure_text_width(separator);
        if text.is_empty() {
            used = length;
        } else if used + apart + length <= width {
            text.push_str(separator);
            used += apart + length;
        } else {
            text.push('\n');
            used = length;
        }
        text.push_str(&words::cut(part, width));
    }
    text
}

fn status_words(status: &StepStatus) -> String {
    match status {
        StepStatus::Cached => "cached".to_owned(),
        StepStatus::Ran(time) => format!("ran {}", words::duration(*time)),
        StepStatus::Failed => "failed".to_owned(),
        StepStatus::Cancelled => "cancelled".to_owned(),
        StepStatus::Skipped => "not run".to_owned(),
    }
}

/// The parts of the last line, each with what stands before it.
fn summary(board: &Board, ending: &Ending, paint: Paint) -> Vec<(&'static str, String)> {
    let tally = board.tally();
    let mut parts = Vec::new();
    if tally.cached > 0 || tally.ran + tally.failed == 0 {
        parts.push(format!("{} cached", tally.cached));
    }
    for (count, word) in [
        (tally.ran, "ran"),
        (tally.failed, "failed"),
        (tally.not_run, "not run"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    let steps = if tally.steps == 1 {
        "1 step".to_owned()
    } else {
        format!("{} steps", tally.steps)
    };
    let mut line = vec![
        ("", format!("{steps}: {}", parts.join(", "))),
        (SEPARATOR, words::duration(ending.took)),
    ];
    if let Some(id) = &ending.id {
        let digest = id.strip_prefix("sha256:").unwrap_or(id);
        let short: String = digest.chars().take(12).collect();
        line.push((SEPARATOR, paint.bold(&format!("sha256:{short}"))));
        if ending.same_as_before {
            line.push((" ", "(same image as before)".to_owned()));
        }
    }
    if ending.failed {
        line.push((SEPARATOR, paint.red("no image")));
    }
    line
}
