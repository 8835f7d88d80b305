//! Blobs on their way to or from a registry: a bar for each on a terminal, a line for each elsewhere.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln::{BlobState, TransferEvent, TransferObserver};

use super::live::{Ticker, bar, beside};
use super::{lock, say, words};
use crate::cli::args::Progress;
use crate::cli::report;

/// Digits of a digest that people see.
const SHOWN_DIGITS: usize = 12;

/// What is said of blobs that go one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    doing: &'static str,
    done: &'static str,
}

/// To a registry.
pub(crate) const PUSH: Way = Way {
    doing: "pushing",
    done: "sent",
};

/// From a registry.
pub(crate) const PULL: Way = Way {
    doing: "pulling",
    done: "fetched",
};

/// Cache mounts to wherever they are exported.
pub(crate) const EXPORT: Way = Way {
    doing: "exporting",
    done: "sent",
};

/// Cache mounts from there.
pub(crate) const IMPORT: Way = Way {
    doing: "importing",
    done: "fetched",
};

/// Shows a transfer while it goes on.
pub(crate) struct Transfers {
    inner: Arc<Mutex<Inner>>,
    ticker: Option<Ticker>,
}

struct Inner {
    board: Board,
    view: View,
    drawn_lines: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Quiet,
    Plain,
    Live,
}

/// What has happened so far.
#[derive(Debug)]
struct Board {
    way: Way,
    started: Instant,
    doing: Option<String>,
    /// Shown once the bars are gone.
    warnings: Vec<String>,
    /// In the order in which they were first heard of.
    blobs: Vec<Blob>,
}

#[derive(Debug)]
struct Blob {
    digest: String,
    size_bytes: u64,
    state: BlobState,
}

impl Transfers {
    /// Picks the view that was asked for, or the one that fits standard error.
    pub(crate) fn new(way: Way, progress: Progress, quiet: bool) -> Transfers {
        let view = match progress {
            _ if quiet => View::Quiet,
            Progress::Quiet => View::Quiet,
            Progress::Tty => View::Live,
            Progress::Auto if std::io::stderr().is_terminal() => View::Live,
            Progress::Auto | Progress::Plain => View::Plain,
        };
        let inner = Arc::new(Mutex::new(Inner {
            board: Board {
                way,
                started: Instant::now(),
                doing: None,
                warnings: Vec::new(),
                blobs: Vec::new(),
            },
            view,
            drawn_lines: 0,
        }));
        let ticker = (view == View::Live).then(|| {
            let inner = Arc::clone(&inner);
            Ticker::start(move || lock(&inner).redraw())
        });
        Transfers { inner, ticker }
    }

    /// Returns what is to be told of the transfer.
    pub(crate) fn observer(&self) -> TransferObserver {
        let inner = Arc::clone(&self.inner);
        TransferObserver::new(move |event| {
            let mut inner = lock(&inner);
            let line = inner.board.on(event);
            if let (View::Plain, Some(line)) = (inner.view, line) {
                say(&format!("{line}\n"));
            }
        })
    }

    /// Takes the bars away; of what was done, `summary` says the sum.
    pub(crate) fn finish(mut self, summary: bool) {
        self.ticker.take();
        let mut inner = lock(&self.inner);
        let mut text = inner.erase();
        if summary && inner.view != View::Quiet {
            text.push_str(&inner.board.summary(inner.board.started.elapsed()));
        }
        say(&text);
        for line in std::mem::take(&mut inner.board.warnings) {
            report::warning(&words::visible(&line));
        }
    }
}

impl Inner {
    fn redraw(&mut self) {
        let (height, width) = console::Term::stderr().size();
        let took = self.board.started.elapsed();
        let lines = self
            .board
            .draw(took, usize::from(width), usize::from(height));
        let mut text = self.erase();
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn_lines = lines.len();
        say(&text);
    }

    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn_lines) {
            0 => String::new(),
            lines => format!("\r\x1b[{lines}A\x1b[0J"),
        }
    }
}

impl Board {
    /// Takes in one event; returns the line that the plain view says of it.
    fn on(&mut self, event: TransferEvent) -> Option<String> {
        let (digest, size_bytes, state) = match event {
            TransferEvent::Doing(what) => {
                self.doing = Some(words::visible(&what));
                return None;
            }
            TransferEvent::Waiting(what) => {
                let what = words::visible(&what);
                self.doing = Some(what.clone());
                return Some(what);
            }
            TransferEvent::Warning(line) => {
                self.warnings.push(line);
                return None;
            }
            TransferEvent::Blob {
                digest,
                size_bytes,
                state,
            } => (digest, size_bytes, state),
        };
        self.doing = None;
        let digest = words::visible(&digest);
        let blob = Blob {
            digest,
            size_bytes,
            state,
        };
        let line = is_done(&blob.state).then(|| self.line(&blob));
        match self
            .blobs
            .iter_mut()
            .find(|known| known.digest == blob.digest)
        {
            // A piece may be heard of after the end.
            Some(known) if is_done(&known.state) && !is_done(&blob.state) => None,
            Some(known) => {
                *known = blob;
                line
            }
            None => {
                self.blobs.push(blob);
                line
            }
        }
    }

    fn line(&self, blob: &Blob) -> String {
        line_of(self.way, &blob.digest, blob.size_bytes, &blob.state)
    }

    /// A head, then a line for each blob that is not done, in at most `height - 1` lines of `width`.
    fn draw(&self, took: Duration, width: usize, height: usize) -> Vec<String> {
        let room = height.saturating_sub(1).max(1);
        let done = self
            .blobs
            .iter()
            .filter(|blob| is_done(&blob.state))
            .count();
        let what = match &self.doing {
            Some(doing) => doing.clone(),
            None => format!("{} {done}/{} blobs", self.way.doing, self.blobs.len()),
        };
        let head = format!("{what} · {}", words::duration(took));
        let mut lines = vec![words::cut(&head, width)];
        let open: Vec<&Blob> = self
            .blobs
            .iter()
            .filter(|blob| !is_done(&blob.state))
            .collect();
        let left = room - lines.len();
        let fit = match open.len() <= left {
            true => open.len(),
            false => left.saturating_sub(1),
        };
        lines.extend(open[..fit].iter().map(|blob| self.bar(blob, width)));
        if fit < open.len() && left > 0 {
            lines.push(words::cut(&format!("and {} more", open.len() - fit), width));
        }
        lines
    }

    fn bar(&self, blob: &Blob, width: usize) -> String {
        bar_of(&blob.digest, blob.size_bytes, &blob.state, width)
    }

    /// `5 layers: 2 sent (1.2 MB), 1 taken from another repository, 2 are there · 0.31 s`.
    fn summary(&self, took: Duration) -> String {
        if self.blobs.is_empty() {
            return String::new();
        }
        let of = |wanted: &BlobState| {
            let found = self.blobs.iter().filter(|blob| blob.state == *wanted);
            found.fold((0, 0), |(count, bytes), blob| {
                (count + 1, bytes + blob.size_bytes)
            })
        };
        let (moved, bytes) = of(&BlobState::Moved);
        let (mounted, _) = of(&BlobState::Mounted);
        let (present, _) = of(&BlobState::Present);
        let mut parts = vec![format!(
            "{moved} {} ({})",
            self.way.done,
            words::bytes(bytes)
        )];
        if mounted > 0 {
            parts.push(format!("{mounted} taken from another repository"));
        }
        if present > 0 {
            parts.push(format!("{present} there already"));
        }
        let blobs = match self.blobs.len() {
            1 => "1 blob".to_owned(),
            count => format!("{count} blobs"),
        };
        format!(
            "{blobs}: {} · {}\n",
            parts.join(", "),
            words::duration(took)
        )
    }
}

/// What became of a blob.
pub(super) fn line_of(way: Way, digest: &str, size_bytes: u64, state: &BlobState) -> String {
    let what = match state {
        BlobState::Waiting => "waits",
        BlobState::Moving(_) => way.doing,
        BlobState::Present => "is there",
        BlobState::Mounted => "taken from another repository",
        BlobState::Moved => way.done,
    };
    let size = words::bytes(size_bytes);
    format!("{}  {size:>9}  {what}", short(digest))
}

/// How far a blob is.
pub(super) fn bar_of(digest: &str, size_bytes: u64, state: &BlobState, width: usize) -> String {
    let total = words::bytes(size_bytes);
    let digest = short(digest);
    let BlobState::Moving(moved) = *state else {
        return beside(&digest, &format!("waits, {total}"), width);
    };
    let figures = format!("{} / {total}", words::bytes(moved));
    let whole = format!("{digest} {}", bar(moved, size_bytes));
    match whole.len() + 2 + figures.len() <= width {
        true => beside(&whole, &figures, width),
        false => beside(&digest, &figures, width),
    }
}

/// Whether nothing more is to come of a blob.
pub(super) fn is_done(state: &BlobState) -> bool {
    !matches!(state, BlobState::Waiting | BlobState::Moving(_))
}

fn short(digest: &str) -> String {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.chars().take(SHOWN_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(events: &[(u8, u64, BlobState)]) -> (Board, Vec<String>) {
        let mut board = Board {
            way: PUSH,
            started: Instant::now(),
            doing: None,
            warnings: Vec::new(),
            blobs: Vec::new(),
        };
        let lines = events.iter().filter_map(|(number, size_bytes, state)| {
            board.on(TransferEvent::Blob {
                digest: format!("sha256:{}", format!("{number:02x}").repeat(32)),
                size_bytes: *size_bytes,
                state: state.clone(),
            })
        });
        let lines = lines.collect();
        (board, lines)
    }

    const EVENTS: [(u8, u64, BlobState); 6] = [
        (0xaa, 2_000_000, BlobState::Waiting),
        (0xbb, 1_000, BlobState::Waiting),
        (0xcc, 30_000_000, BlobState::Waiting),
        (0xaa, 2_000_000, BlobState::Moving(1_000_000)),
        (0xbb, 1_000, BlobState::Present),
        (0xbb, 1_000, BlobState::Moving(1)),
    ];

    #[test]
    fn a_bar_for_each_that_is_not_done() {
        let (board, lines) = board(&EVENTS);
        assert_eq!(lines, ["bbbbbbbbbbbb     1.0 kB  is there"]);
        let took = Duration::from_millis(1200);
        assert_eq!(
            board.draw(took, 60, 10),
            [
                "pushing 1/3 blobs · 1.20 s",
                "aaaaaaaaaaaa [==========          ]          1.0 MB / 2.0 MB",
                "cccccccccccc                                  waits, 30.0 MB",
            ]
        );
        assert_eq!(
            board.draw(took, 34, 10)[1],
            "aaaaaaaaaaaa       1.0 MB / 2.0 MB"
        );
        assert_eq!(
            board.draw(took, 60, 3),
            ["pushing 1/3 blobs · 1.20 s", "and 2 more"]
        );
        assert_eq!(board.draw(took, 60, 1).len(), 1);
    }

    #[test]
    fn the_sum_at_the_end() {
        let (board, _) = board(&[
            (1, 1_000_000, BlobState::Moved),
            (2, 500_000, BlobState::Moved),
            (3, 7, BlobState::Mounted),
            (4, 7, BlobState::Present),
        ]);
        assert_eq!(
            board.summary(Duration::from_millis(310)),
            "4 blobs: 2 sent (1.5 MB), 1 taken from another repository, 1 there already · 0.31 s\n"
        );
    }
}
