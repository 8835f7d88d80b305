//! The plain view: a line for what happens when it happens, nothing ever clipped.

use std::time::Instant;

use kiln::{BlobState, Event, StepStatus, WaitsFor};

use super::board::Board;
use super::say;
use super::table::{self, Ending, Paint};
use super::{PULL, PUSH, transfers, words};

pub(super) struct Plain {
    board: Board,
    paint: Paint,
    /// Everything behind a reason is said, too.
    explain: bool,
}

impl Plain {
    pub(super) fn new(colours: bool, explain: bool) -> Plain {
        Plain {
            board: Board::default(),
            paint: Paint(colours),
            explain,
        }
    }

    pub(super) fn on(&mut self, event: Event) {
        let lines = self.board.on(&event, Instant::now());
        let step = match &event {
            Event::Started { step }
            | Event::Output { step, .. }
            | Event::Progress { step, .. }
            | Event::Waiting { step, .. }
            | Event::Finished { step, .. } => *step,
            Event::Explained {
                step,
                status,
                explanation,
            } => {
                if self.explain {
                    let lines = table::explain(&self.board, *step, status, explanation);
                    lines.iter().for_each(|line| say(&format!("{line}\n")));
                }
                return;
            }
            Event::Notice(text) => return say(&format!("{}\n", words::visible(text))),
            Event::Sending {
                digest,
                size_bytes,
                state,
            } => {
                if transfers::is_done(state) {
                    let digest = words::visible(digest);
                    let line = transfers::line_of(PUSH, &digest, *size_bytes, state);
                    say(&format!("{line}\n"));
                }
                return;
            }
            Event::Exported { what, took } => {
                let what = words::visible(what);
                return say(&format!("{what} · {}\n", words::duration(*took)));
            }
            Event::Understood(_)
            | Event::Warning(_)
            | Event::Planned { .. }
            | Event::Exporting(_) => return,
        };
        let Some(known) = self.board.steps.get(step) else {
            return;
        };
        let stage = console::pad_str(
            &known.info.stage,
            self.board.stage_width(),
            console::Alignment::Left,
            None,
        )
        .into_owned();
        let bar = self.paint.dim("|");
        let output: String = lines
            .iter()
            .map(|line| format!("{stage}  {bar} {line}\n"))
            .collect();
        if !output.is_empty() {
            say(&output);
        }
        match event {
            Event::Started { .. } => say(&format!("{stage}  {} ...\n", known.info.text)),
            Event::Waiting { what, pid, .. } => {
                let whom = |unknown: &str| {
                    pid.map_or(unknown.to_owned(), |pid| format!("kiln with pid {pid}"))
                };
                let why = match &what {
                    WaitsFor::SameStep => format!("{} runs it", whom("another kiln")),
                    WaitsFor::EqualStep => "another step does the same".to_owned(),
                    WaitsFor::CacheMount(id) => {
                        let whom = whom("another step");
                        format!("{whom} uses the cache mount `{}`", words::visible(id))
                    }
                    WaitsFor::MountFrom(id, place) => format!(
                        "the cache mount `{}` comes from {}",
                        words::visible(id),
                        words::visible(place)
                    ),
                };
                let end = match &what {
                    WaitsFor::MountFrom(..) => "",
                    _ => "; waiting",
                };
                say(&format!("{stage}  {}: {why}{end}\n", known.info.text));
            }
            Event::Progress {
                what,
                done_bytes,
                total_bytes: Some(total),
                ..
            } if known.is_brought && done_bytes == total => {
                let digest = words::visible(&what);
                let line = transfers::line_of(PULL, &digest, total, &BlobState::Moved);
                say(&format!("{stage}  {line}\n"));
            }
            Event::Finished {
                status: StepStatus::Failed,
                ..
            } => {
                say(&format!(
                    "{stage}  {} {}\n",
                    known.info.text,
                    self.paint.red("failed")
                ));
            }
            _ => {}
        }
    }

    pub(super) fn finish(&mut self, ending: &Ending) {
        say(&table::draw(&self.board, ending, None, self.paint));
    }
}
