//! What a front end says of files, drawn into the files that it was given or has read.

use std::collections::BTreeMap;

use kiln_frontend::diagnostic::{Diagnostic, Severity};
use kiln_frontend::dockerfile::Source;
use kiln_frontend::dockerfile::span::{LineIndex, Span};
use kiln_frontend::outside::{Note, Place};

use crate::{Error, Findings};

/// Names the diagnostics of all front ends from outside.
const CODE: &str = "frontend";

/// A file that is longer is nothing that diagnostics point into.
const TEXT_LIMIT_BYTES: usize = 1 << 20;
/// So much of what was read is remembered.
const KEPT_LIMIT_BYTES: usize = 64 << 20;

/// Diagnostics in the order in which they were said, and the texts that they may be about.
pub(super) struct Notes {
    /// The build file: its name and its text.
    file: Option<(String, String)>,
    /// Files that were read, by name.
    texts: BTreeMap<String, String>,
    kept_bytes: usize,
    said: Vec<Said>,
}

struct Said {
    severity: Severity,
    message: String,
    file: Option<String>,
    at: Place,
    help: Option<String>,
}

impl Notes {
    pub(super) fn new(file: Option<(String, String)>) -> Notes {
        Notes {
            file,
            texts: BTreeMap::new(),
            kept_bytes: 0,
            said: Vec::new(),
        }
    }

    /// The build file.
    pub(super) fn file(&self) -> Option<&(String, String)> {
        self.file.as_ref()
    }

    /// Remembers a file that was read, in case something is said of it.
    pub(super) fn read(&mut self, name: &str, bytes: &[u8]) {
        self.kept_bytes += bytes.len();
        if bytes.len() > TEXT_LIMIT_BYTES || self.kept_bytes > KEPT_LIMIT_BYTES {
            return;
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.texts.insert(name.to_owned(), text);
    }

    /// Takes in a diagnostic; a line of log is returned.
    pub(super) fn take(&mut self, note: Note) -> Option<String> {
        match note {
            Note::Log(line) => Some(line),
            Note::Diagnostic {
                severity,
                message,
                file,
                at,
                help,
            } => {
                self.said.push(Said {
                    severity,
                    message,
                    file,
                    at,
                    help,
                });
                None
            }
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.said
            .iter()
            .any(|said| said.severity == Severity::Error)
    }

    /// Everything that was said, as the error that there is nothing to build.
    pub(super) fn error(&self) -> Error {
        let mut groups = self.groups();
        match groups.len() {
            1 => Error::Dockerfile(Box::new(groups.remove(0))),
            _ => Error::Files(groups),
        }
    }

    /// Warnings about the build file, and lines for all others.
    pub(super) fn warnings(&self, shown_file: &str) -> (Findings, Vec<String>) {
        let empty = || Findings {
            file_name: shown_file.to_owned(),
            text: Source::new(),
            diagnostics: Vec::new(),
        };
        let mut main = None;
        let mut lines = Vec::new();
        for group in self.groups() {
            // Without a build file, the first that is spoken of is drawn as that would be.
            let is_main = match &self.file {
                Some((name, _)) => *name == group.file_name,
                None => main.is_none() && !group.text.is_empty(),
            };
            if is_main {
                main = Some(group);
                continue;
            }
            let index = LineIndex::new(&group.text);
            lines.extend(
                group
                    .diagnostics
                    .iter()
                    .map(|finding| match group.text.is_empty() {
                        true => finding.message.clone(),
                        false => format!(
                            "{}:{}: {}",
                            group.file_name,
                            index.line(finding.span.start),
                            finding.message
                        ),
                    }),
            );
        }
        (main.unwrap_or_else(empty), lines)
    }

    /// Diagnostics by file, the build file first and those without a place last.
    fn groups(&self) -> Vec<Findings> {
        let mut by_file: BTreeMap<(u8, String), Findings> = BTreeMap::new();
        for said in &self.said {
            let (rank, name, text) = self.find(said);
            let span = match rank {
                2 => Span::default(),
                _ => said.at.span(text),
            };
            let message = match (&said.file, rank) {
                (Some(file), 2) => format!("{file}: {}", said.message),
                _ => said.message.clone(),
            };
            let group = by_file
                .entry((rank, name.to_owned()))
                .or_insert_with(|| Findings {
                    file_name: name.to_owned(),
                    text: text.into(),
                    diagnostics: Vec::new(),
                });
            group.diagnostics.push(Diagnostic {
                severity: said.severity,
                code: CODE,
                message,
                span,
                labels: Vec::new(),
                help: said.help.clone(),
                url: None,
            });
        }
        let mut groups: Vec<Findings> = by_file.into_values().collect();
        for group in &mut groups {
            group.diagnostics.sort_by_key(|finding| finding.span);
        }
        groups
    }

    /// The file that something is about: 0 is the build file, 1 one that was read, 2 none.
    fn find<'a>(&'a self, said: &'a Said) -> (u8, &'a str, &'a str) {
        let nowhere = (2, "", "");
        if said.at.line == 0 {
            return nowhere;
        }
        match (&self.file, &said.file) {
            (Some((name, text)), None) => (0, name, text),
            (Some((name, text)), Some(file)) if file == name => (0, name, text),
            (_, Some(file)) => match self.texts.get(file) {
                Some(text) => (1, file, text),
                None => nowhere,
            },
            (None, None) => nowhere,
        }
    }
}
