//! Drawing a build: a live view for terminals, a plain one for everything else.
//!
//! Both follow one [`Board`], which holds what has happened so far, and both end with the same
//! [`table`] of all steps, what became of each and why.

mod board;
mod live;
mod plain;
mod table;
mod transfers;
mod words;

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex};

use kiln::{Event, Warnings};

use super::args::Progress;

pub(crate) use table::Ending;
pub(crate) use transfers::{EXPORT, IMPORT, PULL, PUSH, Transfers};
pub(crate) use words::{
    bytes as words_bytes, duration as words_duration, plain as words_plain,
    visible as words_visible,
};

/// Where events go while a build runs.
pub(crate) struct Drawer {
    inner: Arc<Mutex<Inner>>,
    /// What is said when the view has ended: it must not be drawn over.
    warnings: Arc<Mutex<Warnings>>,
    ticker: Option<live::Ticker>,
}

enum Inner {
    Quiet,
    Plain(plain::Plain),
    Live(live::Live),
}

impl Drawer {
    /// Picks the view that was asked for, or the one that fits standard error.
    pub(crate) fn new(progress: Progress, quiet: bool, explain: bool) -> Drawer {
        let terminal = std::io::stderr().is_terminal();
        let inner = match progress {
            _ if quiet => Inner::Quiet,
            Progress::Quiet => Inner::Quiet,
            Progress::Tty => Inner::Live(live::Live::new(explain)),
            Progress::Auto if terminal => Inner::Live(live::Live::new(explain)),
            Progress::Auto | Progress::Plain => {
                Inner::Plain(plain::Plain::new(colours(terminal), explain))
            }
        };
        let is_live = matches!(inner, Inner::Live(_));
        let inner = Arc::new(Mutex::new(inner));
        let ticker = is_live.then(|| {
            let inner = Arc::clone(&inner);
            live::Ticker::start(move || {
                if let Inner::Live(live) = &mut *lock(&inner) {
                    live.redraw();
                }
            })
        });
        Drawer {
            inner,
            warnings: Arc::default(),
            ticker,
        }
    }

    /// Returns the sink for the library's events.
    pub(crate) fn sink(&self) -> impl Fn(Event) + Send + Sync + 'static {
        let inner = Arc::clone(&self.inner);
        let warnings = Arc::clone(&self.warnings);
        move |event| match (event, &mut *lock(&inner)) {
            (Event::Understood(mut told), _) => {
                let mut warnings = lock(&warnings);
                let earlier = std::mem::take(&mut warnings.notices);
                told.notices.splice(0..0, earlier);
                *warnings = told;
            }
            (Event::Warning(line), _) => lock(&warnings).notices.push(words_visible(&line)),
            (_, Inner::Quiet) => {}
            (event, Inner::Plain(plain)) => plain.on(event),
            (event, Inner::Live(live)) => live.on(event),
        }
    }

    /// Takes back what was drawn: there was nothing to build.
    pub(crate) fn discard(mut self) -> Warnings {
        self.ticker.take();
        if let Inner::Live(live) = &mut *lock(&self.inner) {
            live.discard();
        }
        std::mem::take(&mut *lock(&self.warnings))
    }

    /// Draws the end: all steps and the summary line. Returns what is to be warned of below it.
    pub(crate) fn finish(mut self, ending: &Ending) -> Warnings {
        self.ticker.take();
        match &mut *lock(&self.inner) {
            Inner::Quiet => {}
            Inner::Plain(plain) => plain.finish(ending),
            Inner::Live(live) => live.finish(ending),
        }
        std::mem::take(&mut *lock(&self.warnings))
    }
}

fn lock<T>(inner: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A view that panicked half-way still holds only text: drawing on is better than losing the end.
    inner
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Says whether to colour what goes to a stream that is (or is not) a terminal.
pub(crate) fn colours(terminal: bool) -> bool {
    let asked_not = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    terminal && !asked_not
}

/// Writes text to standard error; a reader that went away is no reason to stop a build.
fn say(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
