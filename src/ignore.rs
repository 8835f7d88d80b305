//! The ignore file of a context, with where each of its patterns is written.

use std::path::{Path, PathBuf};

use kiln_frontend::dockerfile::ignorefile;
use serde::Serialize;

use crate::Error;
use crate::delivery::Place;
use crate::dockerfile::{read, shown_name};

/// What it is called in the root of a context; beside a Dockerfile, the end of its name.
const NAME: &str = ".dockerignore";

/// The file that says what of a context does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IgnoreFile {
    /// As people know it.
    pub(crate) name: String,
    /// Line numbers and patterns, in order.
    rules: Vec<(usize, String)>,
}

/// A line of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IgnoreRule {
    /// The file as people know it.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// The pattern, cleaned; begins with `!` where it takes back.
    pub pattern: String,
}

impl IgnoreFile {
    /// Finds the rules for a directory of the caller: those beside the Dockerfile go before those in
    /// its root.
    pub(crate) fn find(
        context: &Path,
        dockerfile: Option<&Path>,
    ) -> Result<Option<IgnoreFile>, Error> {
        let own = dockerfile.map(beside);
        for path in own.into_iter().chain([context.join(NAME)]) {
            if let Some(bytes) = read(&path)? {
                let name = shown_name(&path, context);
                return Ok(Some(IgnoreFile::parse(name, &bytes)));
            }
        }
        Ok(None)
    }

    /// Finds the rules for the context of a build, wherever it came from.
    pub(crate) fn of(place: &Place, dockerfile: &Path) -> Result<Option<IgnoreFile>, Error> {
        if place.delivered.is_none() {
            return IgnoreFile::find(&place.context, Some(dockerfile));
        }
        // A Dockerfile from elsewhere has nothing beside it.
        let own = place.dockerfile.is_none().then(|| beside(dockerfile));
        for path in own.into_iter().chain([PathBuf::from(NAME)]) {
            if let Some(bytes) = place.read(&path)? {
                let name = path.display().to_string();
                return Ok(Some(IgnoreFile::parse(name, &bytes)));
            }
        }
        Ok(None)
    }

    fn parse(name: String, bytes: &[u8]) -> IgnoreFile {
        IgnoreFile {
            name,
            rules: ignorefile::parse_numbered(&String::from_utf8_lossy(bytes)),
        }
    }

    /// Returns the patterns in order.
    pub(crate) fn patterns(file: Option<&IgnoreFile>) -> Vec<String> {
        let rules = file.map_or(&[][..], |file| &file.rules);
        rules.iter().map(|(_, pattern)| pattern.clone()).collect()
    }

    /// Returns the pattern of that index with its place.
    pub(crate) fn rule(&self, index: usize) -> Option<IgnoreRule> {
        let (line, pattern) = self.rules.get(index)?;
        Some(IgnoreRule {
            file: self.name.clone(),
            line: *line,
            pattern: pattern.clone(),
        })
    }
}

impl std::fmt::Display for IgnoreRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "line {} of `{}` (`{}`)",
            self.line, self.file, self.pattern
        )
    }
}

fn beside(dockerfile: &Path) -> PathBuf {
    let mut name = dockerfile.as_os_str().to_owned();
    name.push(NAME);
    name.into()
}
