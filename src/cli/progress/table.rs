//! How every view ends: each step, what became of it and why, and one line for all.

use std::fmt::Write as _;
use std::time::Duration;

use console::{measure_text_width, pad_str, truncate_str};
use kiln::StepStatus;

use super::board::Board;
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
    let stages = board.stage_width();
    let texts = board
        .steps
        .iter()
        .map(|step| measure_text_width(&step.info.text))
        .max()
        .unwrap_or(0)
        .min(if width.is_some() {
            TEXT_WIDTH
        } else {
            WHOLE_TEXT_WIDTH
        });
    let mut out = String::new();
    for step in &board.steps {
        let text = match width {
            Some(_) => truncate_str(&step.info.text, TEXT_WIDTH, ".."),
            None => step.info.text.as_str().into(),
        };
        let (status, reason) = match &step.ended {
            Some((status, reason)) => (status_words(status), reason.as_str()),
            None => ("not run".to_owned(), ""),
        };
        let painted = match step.ended.as_ref().map(|(status, _)| status) {
            Some(StepStatus::Ran(_)) => {
                paint.green(&pad_str(&status, 12, console::Alignment::Left, None))
            }
            Some(StepStatus::Failed) => {
                paint.red(&pad_str(&status, 12, console::Alignment::Left, None))
            }
            _ => paint.dim(&pad_str(&status, 12, console::Alignment::Left, None)),
        };
        let line = format!(
            "{}  {}  {}  {}",
            pad_str(&step.info.stage, stages, console::Alignment::Left, None),
            pad_str(&text, texts, console::Alignment::Left, None),
            painted,
            reason,
        );
        let line = line.trim_end();
        match width {
            Some(width) => {
                let _ = writeln!(out, "{}", truncate_str(line, width, ".."));
            }
            None => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    let _ = writeln!(out, "{}", summary(board, ending, paint));
    out
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

fn summary(board: &Board, ending: &Ending, paint: Paint) -> String {
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
    let mut line = format!(
        "{steps}: {} · {}",
        parts.join(", "),
        words::duration(ending.took)
    );
    if let Some(id) = &ending.id {
        let digest = id.strip_prefix("sha256:").unwrap_or(id);
        let short: String = digest.chars().take(12).collect();
        let _ = write!(line, " · {}", paint.bold(&format!("sha256:{short}")));
        if ending.same_as_before {
            line.push_str(" (same image as before)");
        }
    }
    if ending.failed {
        let _ = write!(line, " · {}", paint.red("no image"));
    }
    line
}
