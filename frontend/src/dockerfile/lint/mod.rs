//! The lint rules: their names and pages, and the settings that turn them off.
//!
//! The parser checks what the text alone can tell: StageNameCasing, FromAsCasing,
//! NoEmptyContinuation, ConsistentInstructionCasing, DuplicateStageName, ReservedStageName,
//! MaintainerDeprecated, MultipleInstructionsDisallowed, LegacyKeyValueFormat,
//! SecretsUsedInArgOrEnv, InvalidDefinitionDescription, and ExposeProtoCasing and
//! ExposeInvalidFormat for ports without variables. Lowering checks the others.

use std::collections::BTreeSet;

use serde::Serialize;

use super::ast::{Comment, Dockerfile, Instruction};
use super::span::Span;
use crate::diagnostic::Diagnostic;

pub use location::lines;

pub(super) mod check;
mod location;

/// The rules of `docker build --check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[expect(missing_docs, reason = "`description` says what each rule is about")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JSONArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    InvalidBaseImagePlatform,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

/// Which rules run, and whether their warnings fail the build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckConfig {
    /// The rules that are off.
    pub skip: RuleSet,
    /// The experimental rules that are on.
    pub experimental: RuleSet,
    /// Whether a warning fails the build.
    pub error: bool,
}

/// A set of rules by name; unknown names are kept, they match nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleSet {
    /// `all`
    pub all: bool,
    /// The names as written.
    pub names: BTreeSet<String>,
}

impl Rule {
    /// Returns the rule's name as settings and diagnostics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Rule::StageNameCasing => "StageNameCasing",
            Rule::FromAsCasing => "FromAsCasing",
            Rule::NoEmptyContinuation => "NoEmptyContinuation",
            Rule::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Rule::DuplicateStageName => "DuplicateStageName",
            Rule::ReservedStageName => "ReservedStageName",
            Rule::JSONArgsRecommended => "JSONArgsRecommended",
            Rule::MaintainerDeprecated => "MaintainerDeprecated",
            Rule::UndefinedArgInFrom => "UndefinedArgInFrom",
            Rule::WorkdirRelativePath => "WorkdirRelativePath",
            Rule::UndefinedVar => "UndefinedVar",
            Rule::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Rule::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Rule::RedundantTargetPlatform => "RedundantTargetPlatform",
            Rule::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Rule::InvalidDefaultArgInFrom => "InvalidDefaultArgInFrom",
            Rule::InvalidBaseImagePlatform => "InvalidBaseImagePlatform",
            Rule::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Rule::CopyIgnoredFile => "CopyIgnoredFile",
            Rule::InvalidDefinitionDescription => "InvalidDefinitionDescription",
            Rule::ExposeProtoCasing => "ExposeProtoCasing",
            Rule::ExposeInvalidFormat => "ExposeInvalidFormat",
        }
    }

    /// Returns the page that describes the rule, where it has one.
    pub fn url(self) -> Option<String> {
        if self == Rule::InvalidBaseImagePlatform {
            return None;
        }
        Some(format!(
            "https://docs.docker.com/go/dockerfile/rule/{}/",
            kebab(self.name())
        ))
    }
}

/// Splits a name before each capital that starts a word: `JSONArgs` is `json-args`.
fn kebab(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let starts_word = at > 0
            && letter.is_ascii_uppercase()
            && (letters[at - 1].is_ascii_lowercase()
                || letters.get(at + 1).is_some_and(char::is_ascii_lowercase));
        if starts_word {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

impl Rule {
    /// All rules.
    pub const ALL: [Rule; 22] = [
        Rule::StageNameCasing,
        Rule::FromAsCasing,
        Rule::NoEmptyContinuation,
        Rule::ConsistentInstructionCasing,
        Rule::DuplicateStageName,
        Rule::ReservedStageName,
        Rule::JSONArgsRecommended,
        Rule::MaintainerDeprecated,
        Rule::UndefinedArgInFrom,
        Rule::WorkdirRelativePath,
        Rule::UndefinedVar,
        Rule::MultipleInstructionsDisallowed,
        Rule::LegacyKeyValueFormat,
        Rule::RedundantTargetPlatform,
        Rule::SecretsUsedInArgOrEnv,
        Rule::InvalidDefaultArgInFrom,
        Rule::InvalidBaseImagePlatform,
        Rule::FromPlatformFlagConstDisallowed,
        Rule::CopyIgnoredFile,
        Rule::InvalidDefinitionDescription,
        Rule::ExposeProtoCasing,
        Rule::ExposeInvalidFormat,
    ];

    /// Returns the rule of that name.
    pub fn named(name: &str) -> Option<Rule> {
        Rule::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// Returns what the rule is about, in one sentence.
    pub fn description(self) -> &'static str {
        match self {
            Rule::StageNameCasing => "Stage names should be lowercase",
            Rule::FromAsCasing => "The 'as' keyword should match the case of the 'from' keyword",
            Rule::NoEmptyContinuation => {
                "Empty continuation lines will become errors in a future release"
            }
            Rule::ConsistentInstructionCasing => {
                "All commands within the Dockerfile should use the same casing (either upper or lower)"
            }
            Rule::DuplicateStageName => "Stage names should be unique",
            Rule::ReservedStageName => "Reserved words should not be used as stage names",
            Rule::JSONArgsRecommended => {
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
            }
            Rule::MaintainerDeprecated => {
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
            }
            Rule::UndefinedArgInFrom => "FROM command must use declared ARGs",
            Rule::WorkdirRelativePath => {
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes"
            }
            Rule::UndefinedVar => "Variables should be defined before their use",
            Rule::MultipleInstructionsDisallowed => {
                "Multiple instructions of the same type should not be used in the same stage"
            }
            Rule::LegacyKeyValueFormat => {
                "Legacy key/value format with whitespace separator should not be used"
            }
            Rule::RedundantTargetPlatform => {
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
            }
            Rule::SecretsUsedInArgOrEnv => {
                "Sensitive data should not be used in the ARG or ENV commands"
            }
            Rule::InvalidDefaultArgInFrom => {
                "Default value for global ARG results in an empty or invalid base image name"
            }
            Rule::InvalidBaseImagePlatform => {
                "Base image platform does not match expected target platform"
            }
            Rule::FromPlatformFlagConstDisallowed => {
                "FROM --platform flag should not use a constant value"
            }
            Rule::CopyIgnoredFile => "Attempting to Copy file that is excluded by .dockerignore",
            Rule::InvalidDefinitionDescription => {
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment."
            }
            Rule::ExposeProtoCasing => "Protocol in EXPOSE instruction should be lowercase",
            Rule::ExposeInvalidFormat => {
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release"
            }
        }
    }

    /// Says whether the rule is off unless `experimental` turns it on.
    pub fn is_experimental(self) -> bool {
        self == Rule::InvalidDefinitionDescription
    }

    /// Says whether the rule is about an instruction's body, so that it does not apply to stages
    /// that the build does not reach.
    pub fn is_about_bodies(self) -> bool {
        !matches!(
            self,
            Rule::StageNameCasing
                | Rule::FromAsCasing
                | Rule::NoEmptyContinuation
                | Rule::ConsistentInstructionCasing
                | Rule::DuplicateStageName
                | Rule::ReservedStageName
                | Rule::MaintainerDeprecated
                | Rule::InvalidDefinitionDescription
        )
    }
}

impl RuleSet {
    /// Says whether the rule is in the set.
    pub fn contains(&self, rule: Rule) -> bool {
        self.all || self.names.contains(rule.name())
    }

    fn parse(text: &str) -> Self {
        let text = text.trim();
        if text == "all" {
            return RuleSet {
                all: true,
                names: BTreeSet::new(),
            };
        }
        let names = text.split(',').map(|name| name.trim().to_owned());
        RuleSet {
            all: false,
            names: names.filter(|name| !name.is_empty()).collect(),
        }
    }
}

impl CheckConfig {
    /// Parses `skip=A,B;error=true;experimental=all`, as in `# check=` and
    /// `BUILDKIT_DOCKERFILE_CHECK`.
    pub fn parse(text: &str) -> Result<Self, String> {
        CheckConfig::default().changed(text)
    }

    /// Returns the settings with those that `text` names in their place; the others stay.
    pub fn changed(&self, text: &str) -> Result<Self, String> {
        let mut config = self.clone();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for part in text.split(';') {
            let Some((name, value)) = part.split_once('=') else {
                return Err(format!("invalid check option {part:?}"));
            };
            match name.trim() {
                "skip" => config.skip = RuleSet::parse(value),
                "experimental" => config.experimental = RuleSet::parse(value),
                "error" => {
                    config.error = super::flags::parse_bool(value.trim())
                        .ok_or_else(|| format!("failed to parse check option {part:?}"))?;
                }
                name => return Err(format!("invalid check option {name:?}")),
            }
        }
        Ok(config)
    }

    /// Says whether warnings of the rule are wanted: `skip` does not concern experimental rules.
    pub fn allows(&self, rule: Rule) -> bool {
        match rule.is_experimental() {
            true => self.experimental.contains(rule),
            false => !self.skip.contains(rule),
        }
    }
}

/// Returns the rules that a comment above an instruction turns off for it: `# check=skip=A,B`.
pub fn skipped_by(comments: &[Comment]) -> RuleSet {
    let mut skipped = RuleSet::default();
    for comment in comments {
        let Some((name, value)) = comment.text.split_once('=') else {
            continue;
        };
        if !name.trim().eq_ignore_ascii_case("check") {
            continue;
        }
        if let Ok(config) = CheckConfig::parse(value) {
            skipped.all |= config.skip.all;
            skipped.names.extend(config.skip.names);
        }
    }
    skipped
}

/// Drops the warnings that `config` or a comment above their instruction turns off.
///
/// Errors and warnings that belong to no rule stay.
pub fn filter(
    diagnostics: Vec<Diagnostic>,
    config: &CheckConfig,
    dockerfile: &Dockerfile,
) -> Vec<Diagnostic> {
    let skips = local_skips(dockerfile);
    let wanted = |diagnostic: &Diagnostic| {
        let Some(rule) = Rule::named(diagnostic.code).filter(|_| !diagnostic.is_error()) else {
            return true;
        };
        let at = diagnostic.span.start;
        let before = skips.partition_point(|(span, _)| span.start <= at);
        let local = before.checked_sub(1).map(|index| &skips[index]);
        let skipped = local
            .is_some_and(|(span, rules)| at < span.end.max(span.start + 1) && rules.contains(rule));
        config.allows(rule) && !skipped
    };
    diagnostics.into_iter().filter(wanted).collect()
}

/// The instructions with skipping comments, in source order.
fn local_skips(dockerfile: &Dockerfile) -> Vec<(Span, RuleSet)> {
    fn skip<K>(instruction: &Instruction<K>) -> Option<(Span, RuleSet)> {
        let rules = skipped_by(&instruction.comments);
        (rules != RuleSet::default()).then_some((instruction.span, rules))
    }
    let args = dockerfile.global_args.iter().filter_map(skip);
    let stages = dockerfile.stages.iter().flat_map(|stage| {
        let others = stage.instructions.iter().filter_map(skip);
        skip(&stage.from).into_iter().chain(others)
    });
    args.chain(stages).collect()
}

/// Returns what ExposeProtoCasing and ExposeInvalidFormat say about one expanded port.
pub fn port_warning(port: &str) -> Vec<(Rule, String)> {
    let mut warnings = Vec::new();
    let (mapping, protocol) = port.split_once('/').unwrap_or((port, ""));
    if protocol.chars().any(char::is_uppercase) {
        let message =
            format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
        warnings.push((Rule::ExposeProtoCasing, message));
    }
    if mapping.contains(':') {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        );
        warnings.push((Rule::ExposeInvalidFormat, message));
    }
    warnings
}

#[cfg(test)]
mod tests;
