//! The protocol of front ends from outside, as far as it is needed here: one JSON object a line.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_ir::Plan;
use serde::Deserialize;
use serde_json::{Value, json};

/// The version that is spoken here.
const VERSION: &str = "kiln.frontend/0";

/// What is to be built; fields that matter elsewhere are left out.
#[derive(Clone, Debug, Deserialize)]
pub struct Build {
    version: String,
    /// The build file.
    pub file: Option<BuildFile>,
    /// Which part of it; empty is the default.
    pub target: String,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// What it is for.
    pub platforms: Vec<String>,
    /// For every time in the result.
    pub source_date_epoch: Option<i64>,
    /// The build context and others.
    pub contexts: BTreeMap<String, Value>,
    /// Nothing can be solved.
    pub assuming: bool,
}

/// The file that describes the image.
#[derive(Clone, Debug, Deserialize)]
pub struct BuildFile {
    /// Its bytes in base64.
    content: String,
}

/// What kiln answers to a request.
#[derive(Clone, Debug, Deserialize)]
struct Answer {
    content: Option<String>,
    source: Option<String>,
    error: Option<Fault>,
}

/// Why there is no answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Fault {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Why the conversation ended.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// kiln is gone, or was never there.
    #[error("kiln has hung up; this program speaks with `kiln build --frontend`, not with people")]
    Gone,
    /// The streams do not work.
    #[error("could not speak with kiln")]
    Stream(#[from] io::Error),
    /// It is not understood.
    #[error("kiln said what is no message of `{VERSION}`")]
    Message(#[source] serde_json::Error),
    /// It is another kiln.
    #[error("kiln speaks `{0}`, and this front end speaks `{VERSION}`")]
    Version(String),
}

impl BuildFile {
    /// Its text.
    pub fn text(&self) -> Option<String> {
        String::from_utf8(STANDARD.decode(&self.content).ok()?).ok()
    }
}

/// One end of a conversation with kiln.
#[derive(Debug)]
pub struct Talk<R, W> {
    from: R,
    to: W,
    asked: u64,
}

impl<R: BufRead, W: Write> Talk<R, W> {
    /// Hears what is to be built, and answers that it is understood.
    pub fn begin(from: R, to: W) -> Result<(Self, Build), ProtocolError> {
        let mut talk = Talk { from, to, asked: 0 };
        let build: Build = talk.hear()?;
        if build.version != VERSION {
            return Err(ProtocolError::Version(build.version));
        }
        talk.say(&json!({"type": "hello", "version": VERSION}))?;
        Ok((talk, build))
    }

    fn hear<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T, ProtocolError> {
        let mut line = String::new();
        match self.from.read_line(&mut line)? {
            0 => Err(ProtocolError::Gone),
            _ => serde_json::from_str(&line).map_err(ProtocolError::Message),
        }
    }

    fn say(&mut self, message: &Value) -> Result<(), ProtocolError> {
        let mut line = message.to_string();
        line.push('\n');
        self.to.write_all(line.as_bytes())?;
        Ok(self.to.flush()?)
    }

    fn ask(&mut self, mut request: Value) -> Result<Answer, ProtocolError> {
        self.asked += 1;
        request["id"] = self.asked.into();
        self.say(&request)?;
        self.hear()
    }

    /// Reads a file of a context, or of what a plan came to.
    pub fn read(
        &mut self,
        source: &str,
        path: &str,
    ) -> Result<Result<Vec<u8>, Fault>, ProtocolError> {
        let request = json!({"type": "read", "source": source, "path": path});
        let answer = self.ask(request)?;
        let content = answer
            .content
            .and_then(|content| STANDARD.decode(content).ok());
        Ok(content.ok_or_else(|| fault(answer.error)))
    }

    /// Carries out a plan; returns the source that its result is.
    pub fn solve(&mut self, plan: &Plan) -> Result<Result<String, Fault>, ProtocolError> {
        let plan = form(plan)?;
        let answer = self.ask(json!({"type": "solve", "plan": plan}))?;
        Ok(answer.source.ok_or_else(|| fault(answer.error)))
    }

    /// Says something to people.
    pub fn log(&mut self, message: &str) -> Result<(), ProtocolError> {
        self.say(&json!({"type": "log", "message": message}))
    }

    /// Says what is wrong, and where in the build file; lines and columns count from 1.
    pub fn diagnostic(
        &mut self,
        message: &str,
        place: Option<[usize; 4]>,
        help: Option<&str>,
    ) -> Result<(), ProtocolError> {
        let mut said = json!({"type": "diagnostic", "severity": "error", "message": message});
        if let Some([line, column, end_line, end_column]) = place {
            said["at"] = json!({
                "line": line, "column": column, "end_line": end_line, "end_column": end_column
            });
        }
        if let Some(help) = help {
            said["help"] = help.into();
        }
        self.say(&said)
    }

    /// Ends with a plan.
    pub fn plan(mut self, plan: &Plan, unused: &BTreeSet<&str>) -> Result<(), ProtocolError> {
        let plan = form(plan)?;
        self.say(&json!({"type": "plan", "plan": plan, "unused_args": unused}))
    }

    /// Ends without one.
    pub fn fail(mut self) -> Result<(), ProtocolError> {
        self.say(&json!({"type": "failed"}))
    }
}

fn form(plan: &Plan) -> Result<Value, ProtocolError> {
    serde_json::from_str(&kiln_ir::json::to_json(plan)).map_err(ProtocolError::Message)
}

fn fault(error: Option<Fault>) -> Fault {
    error.unwrap_or_else(|| Fault {
        code: "unreadable".to_owned(),
        message: "kiln gave no answer that is one".to_owned(),
    })
}
