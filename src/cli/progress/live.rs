//! The live view: what runs now, drawn over itself; `draw` is a pure function of the board.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::{Alignment, pad_str, truncate_str};
use kiln::{Event, WaitsFor};

use super::board::{Board, Step, elapsed};
use super::say;
use super::table::{self, Ending, Paint};
use super::words;

/// Lines of output shown of each running step.
const OUTPUT_LINES: usize = 4;
const TICK: Duration = Duration::from_millis(80);

pub(super) struct Live {
    board: Board,
    paint: Paint,
    started: Instant,
    drawn_lines: usize,
    shown_notices: usize,
}

impl Live {
    pub(super) fn new() -> Live {
        let paint = Paint(super::colours(true));
        Live {
            board: Board::default(),
            paint,
            started: Instant::now(),
            drawn_lines: 0,
            shown_notices: 0,
        }
    }

    pub(super) fn on(&mut self, event: Event) {
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
fn draw(
    board: &Board,
    started: Instant,
    now: Instant,
    width: usize,
    height: usize,
    paint: Paint,
) -> Vec<String> {
    let stages = board.stage_width();
    let tally = board.tally();
    let done = tally.steps - tally.not_run;
    let took = words::duration(now.saturating_duration_since(started));
    let mut lines = vec![format!(
        "{} {done}/{} steps · {took}",
        paint.bold("building"),
        tally.steps
    )];
    for step in &board.steps {
        if let Some((what, pid)) = &step.waiting_for {
            let whom = pid.map(|pid| format!("pid {pid}"));
            let whom = match what {
                WaitsFor::SameStep => whom.unwrap_or_else(|| "another kiln".to_owned()),
                WaitsFor::CacheMount(id) => {
                    let whom = whom.map(|pid| format!(" ({pid})")).unwrap_or_default();
                    format!("the cache mount `{}`{whom}", words::visible(id))
                }
            };
            lines.push(row(step, stages, width, &format!("waits for {whom}")));
        } else if step.is_running() {
            lines.push(row(
                step,
                stages,
                width,
                &words::duration(elapsed(step, now)),
            ));
            lines.extend(transfers(step, stages, width));
            let skip = step.tail.len().saturating_sub(OUTPUT_LINES);
            for output in step.tail.iter().skip(skip) {
                let line = format!("{}  | {output}", " ".repeat(stages));
                lines.push(paint.dim(&truncate_str(&line, width, "..")));
            }
        }
    }
    for (what, since) in &board.exporting {
        let took = words::duration(now.saturating_duration_since(*since));
        lines.push(truncate_str(&format!("{what}  {took}"), width, "..").into_owned());
    }
    lines.truncate(height.saturating_sub(1).max(1));
    lines
}

/// `stage  INSTRUCTION ..    1.2 s`, the right part at the right edge.
fn row(step: &Step, stages: usize, width: usize, right: &str) -> String {
    let left = format!(
        "{}  {}",
        pad_str(&step.info.stage, stages, Alignment::Left, None),
        step.info.text
    );
    let room = width.saturating_sub(right.len() + 2);
    let left = truncate_str(&left, room, "..");
    format!("{}  {right}", pad_str(&left, room, Alignment::Left, None))
}

/// One bar for each transfer that goes on.
fn transfers(step: &Step, stages: usize, width: usize) -> Vec<String> {
    step.transfers
        .iter()
        .filter(|(_, transfer)| transfer.total_bytes != Some(transfer.done_bytes))
        .take(6)
        .map(|(what, transfer)| {
            let done = words::bytes(transfer.done_bytes);
            let figures = match transfer.total_bytes {
                Some(total) => format!(
                    "{} {done} / {}",
                    bar(transfer.done_bytes, total),
                    words::bytes(total)
                ),
                None => done,
            };
            let line = format!(
                "{}  {} {figures}",
                " ".repeat(stages),
                truncate_str(what, 20, "..")
            );
            truncate_str(&line, width, "..").into_owned()
        })
        .collect()
}

fn bar(done: u64, total: u64) -> String {
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
