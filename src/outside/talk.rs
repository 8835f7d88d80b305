//! The conversation with the process of a front end: lines in, lines out, and an end to all waiting.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_executor::{Ended, Piped, Streams};
use kiln_frontend::outside::{
    Answer, AnswerBody, Build, Dialogue, Heard, MESSAGE_LIMIT_BYTES, Request, Returned, encode,
};
use kiln_solver::Cancel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::desk::Desk;
use super::failure::{FrontendFailure, FrontendProblem};
use crate::delivery::Tell;
use crate::lines::OutputLines;
use crate::{Error, Event};

/// Lines of its standard error that an error shows.
const TAIL_LINES: usize = 30;
/// Lines of it that people are told, and the length of each.
const TOLD_LINES: usize = 2000;
const TOLD_CHARACTERS: usize = 1000;
/// How long what it left in its standard error may take to be read, once it is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How to talk to a front end.
pub(super) struct Conversation<'a> {
    /// As people know it.
    pub(super) shown: &'a str,
    /// How long it may say nothing while nothing is asked.
    pub(super) patience: Duration,
    /// Ends it at once.
    pub(super) cancel: &'a Cancel,
    /// Tells what it says to people.
    pub(super) voice: Arc<Voice>,
}

/// Passes lines of a front end on to people, as many as anybody would read.
pub(super) struct Voice {
    tell: Option<Tell>,
    shown: String,
    left: AtomicUsize,
}

impl Voice {
    pub(super) fn new(tell: Option<Tell>, shown: &str) -> Voice {
        Voice {
            tell,
            shown: shown.to_owned(),
            left: AtomicUsize::new(TOLD_LINES),
        }
    }

    fn say(&self, line: &str) {
        let Some(tell) = &self.tell else { return };
        let left = self
            .left
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        let text = match left {
            Err(_) => return,
            Ok(1) => "more than this is not shown".to_owned(),
            Ok(_) => line.chars().take(TOLD_CHARACTERS).collect(),
        };
        tell(Event::Notice(format!("{}: {text}", self.shown)));
    }
}

impl Conversation<'_> {
    /// Talks until the front end has returned something and is gone, or until something goes wrong;
    /// then it is killed.
    pub(super) async fn hold(
        &self,
        mut piped: Piped,
        streams: Streams,
        build: &Build,
        desk: &mut Desk<'_>,
    ) -> Result<Returned, Error> {
        let Streams {
            stdin,
            stdout,
            stderr,
        } = streams;
        let clock = Clock::default();
        let ear = Ear::listen(stderr, clock.clone(), Arc::clone(&self.voice));
        let mouth = Mouth::open(stdin);
        let mut talk = Talk {
            conversation: self,
            clock,
            lines: Lines::of(stdout),
            exit: None,
        };
        let talked = talk.talk(&mut piped, mouth, build, desk).await;
        // Kills what is left of it, so that its streams end.
        drop(piped);
        let output = ear.last_words().await;
        match talked {
            Ok(returned) => Ok(returned),
            Err(Error::Frontend(failure)) => Err(Error::Frontend(Box::new(FrontendFailure {
                output,
                ..*failure
            }))),
            Err(error) => Err(error),
        }
    }

    fn failure(&self, problem: impl Into<FrontendProblem>) -> Error {
        FrontendFailure::error(self.shown, problem.into())
    }
}

/// A conversation that goes on.
struct Talk<'a> {
    conversation: &'a Conversation<'a>,
    clock: Clock,
    lines: Lines,
    exit: Option<Ended>,
}

impl Talk<'_> {
    async fn talk(
        &mut self,
        piped: &mut Piped,
        mouth: Mouth,
        build: &Build,
        desk: &mut Desk<'_>,
    ) -> Result<Returned, Error> {
        let this = self.conversation;
        let mut dialogue = Dialogue::new(desk.sources());
        let mut mouth = Some(mouth);
        let mut returned = None;
        self.send(mouth.as_mut(), encode(build)).await?;
        let silence = |returned: bool| match returned {
            false => FrontendProblem::Silent {
                patience: this.patience,
            },
            true => FrontendProblem::Lingers {
                patience: this.patience,
            },
        };
        loop {
            let next = self.next(piped).await;
            let next =
                next.map_err(|waited| this.ended_waiting(waited, || silence(returned.is_some())));
            let Some(line) = next? else { break };
            let heard = dialogue.hear(&line).map_err(|error| this.failure(error))?;
            match heard {
                None | Some(Heard::Hello) => {}
                Some(Heard::Note(note)) => {
                    if let Some(line) = desk.notes.take(note) {
                        this.voice.say(&line);
                    }
                }
                Some(Heard::Ask { id, request }) => {
                    // A plan that is carried out ends in order by itself.
                    let is_solving = matches!(request, Request::Solve { .. });
                    let body = tokio::select! {
                        biased;
                        () = this.cancel.cancelled(), if !is_solving => Err(Error::Cancelled),
                        body = desk.answer(request) => body,
                    }?;
                    if let AnswerBody::Solved { source } = &body {
                        dialogue.give(source);
                    }
                    self.clock.touch();
                    self.send(mouth.as_mut(), encode(&Answer { id, body }))
                        .await?;
                }
                Some(Heard::End(end)) => {
                    returned = Some(end);
                    // It is told that nothing more will come.
                    mouth.take();
                }
            }
        }
        let exit = self.wait_for_exit(piped).await.map_err(|waited| {
            let problem = || match returned {
                Some(_) => silence(true),
                None => FrontendProblem::Closed,
            };
            this.ended_waiting(waited, problem)
        })?;
        let silent = !dialogue.has_greeted();
        match (returned, exit) {
            (Some(Returned::Failed), _) => Ok(Returned::Failed),
            (Some(returned), Ended::Code(0)) => Ok(returned),
            (Some(_), exit) => Err(this.failure(FrontendProblem::Late { how: how(exit) })),
            (None, exit) => Err(this.failure(FrontendProblem::Early {
                how: how(exit),
                silent,
            })),
        }
    }

    /// The next line; none once all who could write one are gone.
    async fn next(&mut self, piped: &mut Piped) -> Result<Option<Vec<u8>>, Waited> {
        let Talk {
            conversation: this,
            clock,
            lines,
            exit,
        } = self;
        loop {
            tokio::select! {
                biased;
                () = this.cancel.cancelled() => return Err(Waited::Cancelled),
                line = lines.next() => {
                    clock.touch();
                    return line.map_err(Waited::Stream);
                }
                ended = piped.ended(), if exit.is_none() => {
                    *exit = Some(ended.map_err(|error| Waited::Executor(Box::new(error)))?);
                }
                () = clock.silent(this.patience) => return Err(Waited::TooLong),
            }
        }
    }

    async fn wait_for_exit(&mut self, piped: &mut Piped) -> Result<Ended, Waited> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let this = self.conversation;
        tokio::select! {
            biased;
            () = this.cancel.cancelled() => Err(Waited::Cancelled),
            ended = piped.ended() => ended.map_err(|error| Waited::Executor(Box::new(error))),
            () = self.clock.silent(this.patience) => Err(Waited::TooLong),
        }
    }

    async fn send(&mut self, mouth: Option<&mut Mouth>, line: Vec<u8>) -> Result<(), Error> {
        let this = self.conversation;
        let Some(mouth) = mouth else { return Ok(()) };
        let sent = tokio::select! {
            biased;
            () = this.cancel.cancelled() => Err(Waited::Cancelled),
            () = mouth.say(line) => Ok(()),
            () = self.clock.silent(this.patience) => Err(Waited::TooLong),
        };
        let patience = this.patience;
        sent.map_err(|waited| this.ended_waiting(waited, || FrontendProblem::Deaf { patience }))
    }
}

/// Why nobody waits any longer.
enum Waited {
    Cancelled,
    TooLong,
    Stream(io::Error),
    Executor(Box<kiln_executor::Error>),
}

impl Conversation<'_> {
    fn ended_waiting(&self, waited: Waited, too_long: impl FnOnce() -> FrontendProblem) -> Error {
        match waited {
            Waited::Cancelled => Error::Cancelled,
            Waited::TooLong => self.failure(too_long()),
            Waited::Stream(error) => self.failure(FrontendProblem::Stream(error)),
            Waited::Executor(error) => (*error).into(),
        }
    }
}

fn how(exit: Ended) -> String {
    match exit {
        Ended::Code(code) => format!("exit code {code}"),
        Ended::Signal(signal) => format!("signal {signal}"),
    }
}

/// When something was last heard or said.
#[derive(Clone)]
struct Clock(Arc<Mutex<Instant>>);

impl Default for Clock {
    fn default() -> Clock {
        Clock(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Clock {
    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns once nothing was heard for so long.
    async fn silent(&self, patience: Duration) {
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match patience.checked_sub(last.elapsed()) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return,
            }
        }
    }
}

/// What it writes, line by line.
struct Lines {
    from: Receiver,
    buffer: Vec<u8>,
    /// So much of the buffer has no line end.
    looked_at: usize,
}

impl Lines {
    fn of(from: Receiver) -> Lines {
        Lines {
            from,
            buffer: Vec::new(),
            looked_at: 0,
        }
    }

    /// The next line without its end, also if the last one has none; one that is too long is cut.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let end = self.buffer[self.looked_at..]
                .iter()
                .position(|&byte| byte == b'\n');
            if let Some(end) = end {
                let rest = self.buffer.split_off(self.looked_at + end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.looked_at = 0;
                return Ok(Some(line));
            }
            self.looked_at = self.buffer.len();
            if self.buffer.len() > MESSAGE_LIMIT_BYTES {
                self.looked_at = 0;
                return Ok(Some(std::mem::take(&mut self.buffer)));
            }
            self.buffer.reserve(16 << 10);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                self.looked_at = 0;
                let line = std::mem::take(&mut self.buffer);
                return Ok((!line.is_empty()).then_some(line));
            }
        }
    }
}

/// What it reads, written by a task, so that neither side has to wait for the other to speak.
struct Mouth {
    lines: mpsc::Sender<Vec<u8>>,
}

impl Mouth {
    fn open(mut stdin: Sender) -> Mouth {
        let (lines, mut queue) = mpsc::channel::<Vec<u8>>(1);
        tokio::spawn(async move {
            while let Some(line) = queue.recv().await {
                // One that does not listen any more may still have something to say.
                if stdin.write_all(&line).await.is_err() {
                    return;
                }
            }
        });
        Mouth { lines }
    }

    async fn say(&mut self, line: Vec<u8>) {
        let _ = self.lines.send(line).await;
    }
}

/// Its standard error, told line by line.
struct Ear {
    task: JoinHandle<()>,
    tail: Arc<Mutex<VecDeque<String>>>,
}

impl Ear {
    fn listen(mut stderr: Receiver, clock: Clock, voice: Arc<Voice>) -> Ear {
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&tail);
        let each = move |line: &[u8]| {
            let line = String::from_utf8_lossy(line).into_owned();
            voice.say(&line);
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == TAIL_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        };
        let task = tokio::spawn(async move {
            let mut lines = OutputLines::default();
            let mut piece = vec![0; 16 << 10];
            while let Ok(count @ 1..) = stderr.read(&mut piece).await {
                clock.touch();
                lines.push(&piece[..count], &each);
            }
            lines.finish(&each);
        });
        Ear { task, tail }
    }

    /// The end of what it said, once it is gone.
    async fn last_words(self) -> Vec<String> {
        let mut task = self.task;
        if tokio::time::timeout(LAST_WORDS, &mut task).await.is_err() {
            task.abort();
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter().cloned().collect()
    }
}
