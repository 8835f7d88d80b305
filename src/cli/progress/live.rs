//! The live view: what runs now, drawn over itself; `draw` is a pure function of the board.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::{Alignment, measure_text_width, pad_str};
use kiln::{Event, WaitsFor};

use super::board::{Board, Step, elapsed};
use super::say;
use super::table::{self, Ending, Paint};
use super::{transfers, words};

#[cfg(test)]
mod tests;

/// Lines of output shown of each running step.
const OUTPUT_LINES: usize = 4;
/// What stands at the right has so many columns at least.
const RIGHT_COLUMNS: usize = 24;
/// So many blobs on their way to registries are shown.
const SENDING_LINES: usize = 6;
const TICK: Duration = Duration::from_millis(80);

pub(super) struct Live {
    board: Board,
    paint: Paint,
    started: Instant,
    drawn_lines: usize,
    shown_notices: usize,
    /// Everything behind a reason is said, too.
    explain: bool,
}

impl Live {
    pub(super) fn new(explain: bool) -> Live {
        let paint = Paint(super::colours(true));
        Live {
            board: Board::default(),
            paint,
            started: Instant::now(),
            drawn_lines: 0,
            shown_notices: 0,
            explain,
        }
    }

    pub(super) fn on(&mut self, event: Event) {
        if let (
            true,
            Event::Explained {
                step,
                status,
                explanation,
            },
        ) = (self.explain, &event)
        {
            let lines = table::explain(&self.board, *step, status, explanation);
            self.board.notices.extend(lines);
        }
        self.board.on(&event, Instant::now());
    }

    pub(super) fn redraw(&mut self) {
        let (height, width) = console::Term::stderr().size();
        let now = Instant::now();
        let lines = draw(
            &self.board,
            self.started,
            now,
            usize::from(width),
            usize::from(height),
            self.paint,
        );
        let mut text = self.erase();
        text.push_str(&self.new_notices());
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn_lines = lines.len();
        say(&text);
    }

    /// What came up since the last time goes above the view and stays.
    fn new_notices(&mut self) -> String {
        let text = self.board.notices[self.shown_notices..]
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        self.shown_notices = self.board.notices.len();
        text
    }

    /// The escape sequences that take back what was drawn.
    fn erase(&mut self) -> String {
        let lines = std::mem::take(&mut self.drawn_lines);
        if lines == 0 {
            String::new()
        } else {
            format!("\r\x1b[{lines}A\x1b[0J")
        }
    }

    pub(super) fn discard(&mut self) {
        let text = self.erase();
        say(&text);
    }

    pub(super) fn finish(&mut self, ending: &Ending) {
        let mut text = self.erase();
        text.push_str(&self.new_notices());
        let (_, width) = console::Term::stderr().size();
        text.push_str(&table::draw(
            &self.board,
            ending,
            Some(usize::from(width)),
            self.paint,
        ));
        say(&text);
    }
}

/// Draws what runs now and how far the whole is, in at most `height - 1` lines of `width`.
///
/// Steps come before what they write: where there are more lines than room, fewer of each step's
/// output are shown, then fewer steps, with a line that says so.
fn draw(
    board: &Board,
    started: Instant,
    now: Instant,
    width: usize,
    height: usize,
    paint: Paint,
) -> Vec<String> {
    let stages = table::stage_column(board, Some(width));
    let room = height.saturating_sub(1).max(1);
    let mut lines = vec![head(
        board,
        now.saturating_duration_since(started),
        width,
        paint,
    )];
    let mut exporting: Vec<String> = board
        .exporting
        .iter()
        .map(|(what, since)| {
            let took = words::duration(now.saturating_duration_since(*since));
            beside(what, &took, width)
        })
        .collect();
    let sending = board.sending.iter();
    let sending = sending.filter(|(_, (_, state))| !transfers::is_done(state));
    exporting.extend(
        sending
            .take(SENDING_LINES)
            .map(|(digest, (size, state))| transfers::bar_of(digest, *size, state, width)),
    );
    let shown: Vec<&Step> = board
        .steps
        .iter()
        .filter(|step| step.waiting_for.is_some() || step.is_running() || step.is_coming())
        .collect();
    let left = room.saturating_sub(lines.len() + exporting.len());
    let fit = if shown.len() <= left {
        shown.len()
    } else {
        left.saturating_sub(1)
    };
    let below = left
        .saturating_sub(fit)
        .checked_div(fit)
        .unwrap_or(0)
        .min(OUTPUT_LINES);
    for step in &shown[..fit] {
        lines.extend(step_lines(step, now, stages, width, below, paint));
    }
    if fit < shown.len() {
        let more = format!("and {} more", shown.len() - fit);
        lines.push(words::cut(&more, width));
    }
    lines.extend(exporting);
    lines.truncate(room);
    lines
}

/// `building 3/7 steps · 1.2 s`.
fn head(board: &Board, took: Duration, width: usize, paint: Paint) -> String {
    const WORD: &str = "building";
    let tally = board.tally();
    let done = tally.steps - tally.not_run;
    let rest = format!(" {done}/{} steps · {}", tally.steps, words::duration(took));
    let rest = words::cut(&rest, width.saturating_sub(WORD.len()));
    format!("{}{rest}", paint.bold(&words::cut(WORD, width)))
}

/// A step, what it moves, and the last lines that it wrote, in at most `most + 1` lines.
fn step_lines(
    step: &Step,
    now: Instant,
    stages: usize,
    width: usize,
    most: usize,
    paint: Paint,
) -> Vec<String> {
    let left = |stage: &str| {
        let stage = words::cut(stage, stages);
        pad_str(&stage, stages, Alignment::Left, None).into_owned()
    };
    let right = match &step.waiting_for {
        Some((what, pid)) => format!("waits for {}", whom(what, *pid)),
        None => words::duration(elapsed(step, now)),
    };
    let right = words::cut(&right, (width / 2).max(RIGHT_COLUMNS));
    let text = format!("{}  {}", left(&step.info.stage), step.info.text);
    let mut lines = vec![beside(&text, &right, width)];
    if step.waiting_for.is_some() {
        return lines;
    }
    let mut below = transfers(step, width.saturating_sub(stages + 2));
    below.truncate(most);
    let skip = step.tail.len().saturating_sub(most - below.len());
    below.extend(step.tail.iter().skip(skip).map(|line| format!("| {line}")));
    lines.extend(below.iter().map(|line| {
        let line = format!("{}  {line}", left(""));
        paint.dim(&words::cut(&line, width))
    }));
    lines
}

fn whom(what: &WaitsFor, pid: Option<u32>) -> String {
    let pid = pid.map(|pid| format!("pid {pid}"));
    match (what, pid) {
        (WaitsFor::SameStep, pid) => pid.unwrap_or_else(|| "another kiln".to_owned()),
        (WaitsFor::EqualStep, _) => "another step that does the same".to_owned(),
        (WaitsFor::CacheMount(id), pid) => {
            let pid = pid.map(|pid| format!(" ({pid})")).unwrap_or_default();
            format!("the cache mount `{}`{pid}", words::visible(id))
        }
        (WaitsFor::MountFrom(id, place), _) => format!(
            "the cache mount `{}` from {}",
            words::visible(id),
            words::visible(place)
        ),
    }
}

/// One text at the left edge and one at the right, which is cut last.
pub(super) fn beside(left: &str, right: &str, width: usize) -> String {
    let room = width.saturating_sub(measure_text_width(right) + 2);
    let left = words::cut(left, room);
    let line = format!("{}  {right}", pad_str(&left, room, Alignment::Left, None));
    words::cut(&line, width)
}

/// One bar for each transfer that goes on; where bars do not fit, figures alone.
fn transfers(step: &Step, width: usize) -> Vec<String> {
    step.transfers
        .iter()
        .filter(|(_, transfer)| transfer.total_bytes != Some(transfer.done_bytes))
        .map(|(what, transfer)| {
            let done = words::bytes(transfer.done_bytes);
            let Some(total) = transfer.total_bytes else {
                return format!("{} {done}", words::cut(what, 20));
            };
            let figures = format!("{done} / {}", words::bytes(total));
            let bar = bar(transfer.done_bytes, total);
            let whole = format!("{} {bar} {figures}", words::cut(what, 20));
            match measure_text_width(&whole) <= width {
                true => whole,
                false => format!("{} {figures}", words::cut(what, 12)),
            }
        })
        .collect()
}

/// A bar of as many cells as are done.
pub(super) fn bar(done: u64, total: u64) -> String {
    const CELLS: u64 = 20;
    // Nothing to do is done.
    let full = (done.min(total) * CELLS)
        .checked_div(total)
        .unwrap_or(CELLS) as usize;
    format!(
        "[{}{}]",
        "=".repeat(full),
        " ".repeat(CELLS as usize - full)
    )
}

/// Redraws at intervals until it is dropped.
pub(super) struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn start(mut tick: impl FnMut() + Send + 'static) -> Ticker {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            loop {
                std::thread::park_timeout(TICK);
                if seen.load(Ordering::Acquire) {
                    return;
                }
                tick();
            }
        });
        Ticker {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
