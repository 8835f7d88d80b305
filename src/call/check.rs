//! Checking a Dockerfile: every rule over every stage, and every error.

use kiln_frontend::diagnostic::Diagnostic;
use kiln_frontend::dockerfile::lint::{self, Rule};
use kiln_frontend::dockerfile::span::LineIndex;
use kiln_frontend::lower::Lowering;
use serde::Serialize;
use std::collections::BTreeSet;

use super::location::{Location, SourceInfo, pretty};
use super::look::{Looked, asker, assume, look};
use super::sarif;
use crate::delivery::Place;
use crate::dockerfile::{Loaded, load};
use crate::{Error, Findings, Kiln, SourceRequest};

/// What checking found.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Warnings and errors.
    pub findings: Findings,
    /// Base images that nobody could look at, with why; what depends on them was not checked.
    pub unseen: Vec<(String, String)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    warnings: Vec<Warning>,
    sources: Vec<SourceInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning {
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: String,
    location: Location,
}

#[derive(Serialize)]
struct BuildError {
    message: String,
    location: Location,
}

impl Checked {
    /// Returns the warnings of rules.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.findings
            .diagnostics
            .iter()
            .filter(|finding| !finding.is_error() && Rule::named(finding.code).is_some())
    }

    /// Returns what keeps the Dockerfile from being built.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        let findings = self.findings.diagnostics.iter();
        findings.filter(|finding| finding.is_error())
    }

    /// Returns the result of BuildKit's `frontend.lint`.
    pub fn json(&self) -> String {
        let text = &self.findings.text;
        let parsed = kiln_frontend::dockerfile::parse_source(text);
        let index = LineIndex::new(text);
        let lines = |finding: &Diagnostic| lint::lines(finding, &parsed.dockerfile, text, &index);
        let mut told = BTreeSet::new();
        let mut warnings = Vec::new();
        for finding in self.warnings() {
            let lines = lines(finding);
            let Some(rule) = Rule::named(finding.code) else {
                continue;
            };
            if told.insert((finding.message.as_str(), lines.first)) {
                warnings.push(Warning {
                    rule_name: rule.name(),
                    description: rule.description(),
                    url: rule.url(),
                    detail: finding.message.clone(),
                    location: Location::new(lines),
                });
            }
        }
        let build_error = self.errors().next().map(|error| {
            let lines = lines(error);
            // BuildKit says of what it cannot parse where it stopped.
            let prefix = match parsed.diagnostics.contains(error) {
                true => format!("dockerfile parse error on line {}: ", lines.first),
                false => String::new(),
            };
            BuildError {
                message: format!("{prefix}{}", error.message),
                location: Location::new(lines),
            }
        });
        pretty(&Results {
            warnings,
            sources: vec![SourceInfo::new(&self.findings)],
            build_error,
        })
    }

    /// Returns the findings as a SARIF 2.1.0 log.
    pub fn sarif(&self) -> String {
        pretty(&sarif::log(&self.findings))
    }

    /// Checks without asking anybody: what depends on base images is not checked.
    pub fn assuming(request: &SourceRequest) -> Result<Checked, Error> {
        match load_to_check(request, Place::local(request)?)? {
            Ok(loaded) => Ok(checked(assume(&loaded), loaded)),
            Err(findings) => Ok(unreadable(*findings)),
        }
    }
}

impl Kiln {
    /// Checks a Dockerfile with what store and registries say of its base images.
    ///
    /// Without a target all stages are checked. An image that cannot be looked at now is no error.
    pub async fn check(&self, request: &SourceRequest) -> Result<Checked, Error> {
        let asker = asker(self);
        let place = Place::arrive(request, &asker).await?;
        match load_to_check(request, place)? {
            Ok(loaded) => {
                let looked = look(&asker.resolver, &loaded, request.resolve_mode).await;
                Ok(checked(looked, loaded))
            }
            Err(findings) => Ok(unreadable(*findings)),
        }
    }
}

/// Reads what is to be checked; a file that cannot even be read as text is an answer of its own.
fn load_to_check(
    request: &SourceRequest,
    place: Place,
) -> Result<Result<Loaded, Box<Findings>>, Error> {
    match load(request, place) {
        Ok(mut loaded) => {
            loaded.input.every_stage = request.target.is_none();
            Ok(Ok(loaded))
        }
        Err(Error::Dockerfile(findings)) => Ok(Err(findings)),
        Err(error) => Err(error),
    }
}

fn unreadable(findings: Findings) -> Checked {
    Checked {
        findings,
        unseen: Vec::new(),
    }
}

fn checked(looked: Looked, loaded: Loaded) -> Checked {
    let diagnostics = match looked.lowering {
        Lowering::Lowered(lowered) => lowered.diagnostics,
        Lowering::Failed(diagnostics) => diagnostics,
        Lowering::Needs(_) => unreachable!("BUG: questions are answered before"),
    };
    Checked {
        findings: Findings {
            file_name: loaded.input.file_name,
            text: loaded.input.text,
            diagnostics,
        },
        unseen: looked.unseen,
    }
}
