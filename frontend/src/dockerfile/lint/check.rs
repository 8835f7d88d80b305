//! The rules that the parser itself checks, each a function from a piece of the tree to warnings.

use std::collections::HashMap;

use super::super::ast::{Arg, Comment, Expose, Instruction, Kind, Pairs, Stage, Word};
use super::super::span::Span;
use super::{Rule, RuleSet, port_warning};
use crate::diagnostic::Diagnostic;
use kiln_ir::image::is_secret_name;

/// How a keyword is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
    Mixed,
}

fn casing(word: &str) -> Casing {
    match () {
        () if word.bytes().all(|letter| letter.is_ascii_lowercase()) => Casing::Lower,
        () if word.bytes().all(|letter| letter.is_ascii_uppercase()) => Casing::Upper,
        () => Casing::Mixed,
    }
}

/// FromAsCasing; a FROM in mixed case is ConsistentInstructionCasing's business alone.
pub(in super::super) fn from_as(from: &Word, keyword: &Word) -> Option<Diagnostic> {
    let wanted = match casing(&from.text) {
        Casing::Mixed => return None,
        Casing::Lower => "as",
        Casing::Upper => "AS",
    };
    (keyword.text != wanted).then(|| {
        let message = format!(
            "'{}' and '{}' keywords' casing do not match",
            keyword.text, from.text
        );
        Diagnostic::lint(Rule::FromAsCasing, keyword.span, message)
            .with_label(from.span, "written otherwise here")
            .with_help(format!("write `{wanted}`"))
    })
}

/// NoEmptyContinuation
pub(in super::super) fn empty_continuation(span: Span) -> Diagnostic {
    Diagnostic::lint(Rule::NoEmptyContinuation, span, "Empty continuation line")
}

/// InvalidDefinitionDescription: the last comment above begins with none of the names that FROM or
/// ARG defines.
pub(in super::super) fn description(
    instruction: &str,
    names: &[&str],
    at: Span,
    comments: &[Comment],
) -> Option<Diagnostic> {
    let is_setting = |comment: &&Comment| {
        super::skipped_by(std::slice::from_ref(*comment)) != RuleSet::default()
    };
    let comment = comments.iter().rfind(|comment| !is_setting(comment))?;
    let begins = comment.text.split(' ').next().unwrap_or_default();
    if names.contains(&begins) {
        return None;
    }
    let example = match names {
        [] => return None,
        [name] => name,
        _ => "<arg_key>",
    };
    let message =
        format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    Some(
        Diagnostic::lint(Rule::InvalidDefinitionDescription, at, message)
            .with_label(comment.span, "this is taken for its description"),
    )
}

/// The rules about the stages and all they hold.
pub(in super::super) fn stages(stages: &[Stage], diagnostics: &mut Vec<Diagnostic>) {
    instruction_casing(stages, diagnostics);
    stage_names(stages, diagnostics);
    for stage in stages {
        used_once(stage, diagnostics);
        for instruction in &stage.instructions {
            body(instruction, diagnostics);
        }
    }
}

/// SecretsUsedInArgOrEnv, for an ARG.
pub(in super::super) fn arg_names(arg: &Arg, diagnostics: &mut Vec<Diagnostic>) {
    let names = arg.declarations.iter().map(|declaration| &declaration.name);
    diagnostics.extend(names.filter_map(|name| secret("ARG", name)));
}

/// ConsistentInstructionCasing
fn instruction_casing(stages: &[Stage], diagnostics: &mut Vec<Diagnostic>) {
    let keywords = || {
        stages.iter().flat_map(|stage| {
            let others = stage.instructions.iter().map(|other| &other.keyword);
            std::iter::once(&stage.from.keyword).chain(others)
        })
    };
    let (mut lower, mut upper) = (0, 0);
    for word in keywords() {
        match casing(&word.text) {
            Casing::Lower => lower += 1,
            Casing::Upper => upper += 1,
            Casing::Mixed => {}
        }
    }
    let (majority, name) = match lower > upper {
        true => (Casing::Lower, "lowercase"),
        false => (Casing::Upper, "uppercase"),
    };
    let odd = keywords().filter(|word| casing(&word.text) != majority);
    diagnostics.extend(odd.map(|word| {
        let message = format!(
            "Command '{}' should match the case of the command majority ({name})",
            word.text
        );
        let wanted = match majority {
            Casing::Lower => word.text.to_lowercase(),
            Casing::Upper | Casing::Mixed => word.text.to_uppercase(),
        };
        Diagnostic::lint(Rule::ConsistentInstructionCasing, word.span, message)
            .with_help(format!("write `{wanted}`"))
    }));
}

/// StageNameCasing, ReservedStageName, DuplicateStageName
fn stage_names(stages: &[Stage], diagnostics: &mut Vec<Diagnostic>) {
    let mut first: HashMap<String, Span> = HashMap::new();
    for stage in stages {
        let Some(word) = &stage.from.kind.name else {
            continue;
        };
        let name = word.text.to_lowercase();
        if name != word.text {
            let message = format!("Stage name '{}' should be lowercase", word.text);
            diagnostics.push(
                Diagnostic::lint(Rule::StageNameCasing, word.span, message)
                    .with_help(format!("write `{name}`; references find it in any case")),
            );
        }
        if matches!(name.as_str(), "context" | "scratch") {
            let message =
                format!("Stage name should not use the same name as reserved stage {name:?}");
            diagnostics.push(Diagnostic::lint(
                Rule::ReservedStageName,
                word.span,
                message,
            ));
        }
        match first.get(&name) {
            Some(earlier) => {
                let message =
                    format!("Duplicate stage name {name:?}, stage names should be unique");
                diagnostics.push(
                    Diagnostic::lint(Rule::DuplicateStageName, word.span, message)
                        .with_label(*earlier, "first used here"),
                );
            }
            None => {
                first.insert(name, word.span);
            }
        }
    }
}

/// MultipleInstructionsDisallowed: points at the one that has no effect.
fn used_once(stage: &Stage, diagnostics: &mut Vec<Diagnostic>) {
    let mut last: HashMap<&str, &Instruction> = HashMap::new();
    for instruction in &stage.instructions {
        let once = matches!(
            instruction.kind,
            Kind::Cmd(_) | Kind::Entrypoint(_) | Kind::Healthcheck(_)
        );
        if !once {
            continue;
        }
        if let Some(earlier) = last.insert(instruction.kind.name(), instruction) {
            let message = format!(
                "Multiple {} instructions should not be used in the same stage because only \
                 the last one will be used",
                instruction.kind.name()
            );
            diagnostics.push(
                Diagnostic::lint(Rule::MultipleInstructionsDisallowed, earlier.span, message)
                    .with_label(instruction.keyword.span, "replaced here"),
            );
        }
    }
}

fn body(instruction: &Instruction, diagnostics: &mut Vec<Diagnostic>) {
    match &instruction.kind {
        Kind::Maintainer(_) => diagnostics.push(Diagnostic::lint(
            Rule::MaintainerDeprecated,
            instruction.span,
            "Maintainer instruction is deprecated in favor of using label",
        )),
        Kind::Env(pairs) => {
            legacy("ENV", pairs, instruction, diagnostics);
            let names = pairs.pairs.iter().map(|pair| &pair.key);
            diagnostics.extend(names.filter_map(|name| secret("ENV", name)));
        }
        Kind::Label(pairs) => legacy("LABEL", pairs, instruction, diagnostics),
        Kind::Arg(arg) => arg_names(arg, diagnostics),
        Kind::Expose(expose) => ports(expose, diagnostics),
        _ => {}
    }
}

/// LegacyKeyValueFormat
fn legacy(name: &str, pairs: &Pairs, instruction: &Instruction, diagnostics: &mut Vec<Diagnostic>) {
    if pairs.legacy {
        let message = format!(
            "\"{name} key=value\" should be used instead of legacy \"{name} key value\" format"
        );
        let mut finding = Diagnostic::lint(Rule::LegacyKeyValueFormat, instruction.span, message);
        if let [pair] = &*pairs.pairs {
            finding = finding.with_help(format!("write `{name} {}=...`", pair.key.text));
        }
        diagnostics.push(finding);
    }
}

fn secret(instruction: &str, name: &Word) -> Option<Diagnostic> {
    is_secret_name(&name.text).then(|| {
        let message = format!(
            "Do not use ARG or ENV instructions for sensitive data ({instruction} {:?})",
            name.text
        );
        Diagnostic::lint(Rule::SecretsUsedInArgOrEnv, name.span, message)
    })
}

/// ExposeProtoCasing and ExposeInvalidFormat, for ports without variables.
fn ports(expose: &Expose, diagnostics: &mut Vec<Diagnostic>) {
    for port in &expose.ports {
        if !port.text.contains('$') {
            diagnostics.extend(
                port_warning(&port.text)
                    .into_iter()
                    .map(|(rule, message)| Diagnostic::lint(rule, port.span, message)),
            );
        }
    }
}
