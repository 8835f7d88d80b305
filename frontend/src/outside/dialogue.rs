//! What may follow what, and how much of it.

use std::collections::BTreeSet;

use super::message::{Note, Request, Returned, Said, VERSION};
use super::violation::Violation;

/// A line of more bytes is no message; answers are no longer either.
pub const MESSAGE_LIMIT_BYTES: usize = 16 << 20;
/// Requests of one build; each costs a look at a file or at a registry.
pub const REQUEST_LIMIT: u64 = 10_000;
/// Diagnostics that anybody would read.
const DIAGNOSTIC_LIMIT: u64 = 1000;
/// Lines of a log.
const LOG_LIMIT: u64 = 10_000;
/// All messages of one build.
const TOTAL_LIMIT_BYTES: usize = 4 * MESSAGE_LIMIT_BYTES;
/// What an error shows of a line.
const EXCERPT_CHARACTERS: usize = 60;
/// What a client of HTTP/2 begins with.
const GRPC: &[u8] = b"PRI * HTTP/2.0";

/// What was heard in a line.
#[derive(Clone, Debug)]
pub enum Heard {
    /// The version is one that is spoken here.
    Hello,
    /// To be answered under its id.
    Ask {
        /// The id.
        id: u64,
        /// What is asked.
        request: Request,
    },
    /// To be told to people.
    Note(Note),
    /// The end; nothing may follow.
    End(Returned),
}

/// The state of one conversation.
#[derive(Debug)]
pub struct Dialogue {
    sources: BTreeSet<String>,
    lines: u64,
    bytes: usize,
    greeted: bool,
    ended: bool,
    requests: u64,
    diagnostics: u64,
    logs: u64,
}

impl Dialogue {
    /// Begins a conversation with a front end that is given `sources`.
    pub fn new(sources: impl IntoIterator<Item = String>) -> Dialogue {
        Dialogue {
            sources: sources.into_iter().collect(),
            lines: 0,
            bytes: 0,
            greeted: false,
            ended: false,
            requests: 0,
            diagnostics: 0,
            logs: 0,
        }
    }

    /// Lets it look into one source more.
    pub fn give(&mut self, source: &str) {
        self.sources.insert(source.to_owned());
    }

    /// Whether it has said which version it speaks.
    pub fn has_greeted(&self) -> bool {
        self.greeted
    }

    /// Whether it has sent its last message.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes in one line, without its end; none where it is blank.
    pub fn hear(&mut self, line: &[u8]) -> Result<Option<Heard>, Violation> {
        self.lines += 1;
        if line.len() > MESSAGE_LIMIT_BYTES {
            return Err(Violation::TooLong {
                limit: MESSAGE_LIMIT_BYTES,
            });
        }
        self.bytes = self.bytes.saturating_add(line.len() + 1);
        if self.bytes > TOTAL_LIMIT_BYTES {
            return Err(Violation::TooMany {
                what: "bytes",
                limit: TOTAL_LIMIT_BYTES as u64,
            });
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        if self.ended {
            return Err(Violation::AfterEnd {
                excerpt: excerpt(line),
            });
        }
        if !self.greeted && line.starts_with(GRPC) {
            return Err(Violation::Grpc);
        }
        let said = serde_json::from_slice(line).map_err(|source| Violation::NoMessage {
            number: self.lines,
            excerpt: excerpt(line),
            source,
        })?;
        match said {
            Said::Hello { .. } if self.greeted => Err(Violation::HelloAgain),
            Said::Hello { version } if version != VERSION => {
                Err(Violation::Version { found: version })
            }
            Said::Hello { .. } => {
                self.greeted = true;
                Ok(Some(Heard::Hello))
            }
            _ if !self.greeted => Err(Violation::NoHello),
            said => self.follow(said).map(Some),
        }
    }

    fn follow(&mut self, said: Said) -> Result<Heard, Violation> {
        match said {
            Said::Read { id, source, path } => {
                let source = self.source(source)?;
                let path = clean(&path)?;
                self.ask(id, Request::Read { source, path })
            }
            Said::List { id, source, path } => {
                let source = self.source(source)?;
                let path = clean(&path)?;
                self.ask(id, Request::List { source, path })
            }
            Said::Resolve {
                id,
                image,
                platform,
            } => self.ask(id, Request::Resolve { image, platform }),
            Said::Solve { id, plan } => self.ask(id, Request::Solve { plan }),
            Said::Diagnostic {
                severity,
                message,
                file,
                at,
                help,
            } => {
                count(&mut self.diagnostics, "diagnostics", DIAGNOSTIC_LIMIT)?;
                Ok(Heard::Note(Note::Diagnostic {
                    severity: severity.into(),
                    message,
                    file,
                    at,
                    help,
                }))
            }
            Said::Log { message } => {
                count(&mut self.logs, "lines of log", LOG_LIMIT)?;
                Ok(Heard::Note(Note::Log(message)))
            }
            Said::Plan {
                plan,
                display,
                unused_args,
            } => {
                self.ended = true;
                Ok(Heard::End(Returned::Plan {
                    plan,
                    display,
                    unused_args,
                }))
            }
            Said::Failed {} => {
                self.ended = true;
                Ok(Heard::End(Returned::Failed))
            }
            Said::Hello { .. } => unreachable!("BUG: a hello was taken before"),
        }
    }

    fn ask(&mut self, id: u64, request: Request) -> Result<Heard, Violation> {
        count(&mut self.requests, "requests", REQUEST_LIMIT)?;
        Ok(Heard::Ask { id, request })
    }

    fn source(&self, name: String) -> Result<String, Violation> {
        if self.sources.contains(&name) {
            return Ok(name);
        }
        let known: Vec<String> = self
            .sources
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        let known = match known.is_empty() {
            true => "none".to_owned(),
            false => known.join(", "),
        };
        Err(Violation::UnknownSource { name, known })
    }
}

fn count(counter: &mut u64, what: &'static str, limit: u64) -> Result<(), Violation> {
    *counter += 1;
    match *counter > limit {
        true => Err(Violation::TooMany { what, limit }),
        false => Ok(()),
    }
}

/// A path below a root, without empty parts and `.`.
fn clean(path: &str) -> Result<String, Violation> {
    let refuse = |reason| {
        Err(Violation::Path {
            path: path.to_owned(),
            reason,
        })
    };
    if path.starts_with('/') {
        return refuse("paths are relative to the root of their source");
    }
    if path.contains('\0') {
        return refuse("no file has such a name");
    }
    let parts = || path.split('/').filter(|part| !matches!(*part, "" | "."));
    if parts().any(|part| part == "..") {
        return refuse("paths cannot lead out of their source");
    }
    Ok(parts().collect::<Vec<_>>().join("/"))
}

/// The beginning of a line as an error shows it.
fn excerpt(line: &[u8]) -> String {
    let head = &line[..line.len().min(EXCERPT_CHARACTERS * 4)];
    let text = String::from_utf8_lossy(head);
    let shown: String = text
        .chars()
        .take(EXCERPT_CHARACTERS)
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    match shown.len() < text.len() || head.len() < line.len() {
        true => format!("{shown}…"),
        false => shown,
    }
}

#[cfg(test)]
mod tests;
