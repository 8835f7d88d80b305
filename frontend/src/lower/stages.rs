//! The stages and how they refer to each other, for one target platform.

use std::collections::BTreeMap;

use kiln_ir::Platform;

use super::input::{LowerInput, NamedContext};
use super::reference;
use super::scope::Globals;
use super::stage::variable;
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast;
use crate::dockerfile::expand::{Environment, Expander, Expansion};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::span::Span;
use crate::dockerfile::suggest::closest;

/// The name of the empty base.
const SCRATCH: &str = "scratch";

/// All stages of a Dockerfile.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    /// In source order.
    pub(super) list: Vec<Stage<'a>>,
    /// By lower-case name; a later stage hides an earlier one.
    by_name: BTreeMap<String, usize>,
    contexts: Contexts<'a>,
    target: Platform,
}

/// One stage, its FROM expanded.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// As parsed.
    pub(super) ast: &'a ast::Stage,
    /// The name as written, or `stage-N`.
    pub(super) title: String,
    /// The base as written, arguments expanded.
    pub(super) base_name: String,
    /// What it starts from.
    pub(super) base: Base<'a>,
    /// What it runs on.
    pub(super) platform: Platform,
    /// Whether `--platform` says so.
    pub(super) platform_given: bool,
    /// A named context of the same name stands in its place.
    pub(super) replaced: bool,
}

/// Where files come from, by reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base<'a> {
    /// Nothing.
    Scratch,
    /// A stage, by index.
    Stage(usize),
    /// An image, normalised.
    Image(String),
    /// A named context.
    Context(&'a NamedContext),
}

impl<'a> Stages<'a> {
    /// Expands the FROM lines and looks up what they mean.
    ///
    /// Errors are appended to `diagnostics`; a stage with an error has an empty base.
    pub(super) fn new(
        input: &'a LowerInput,
        dockerfile: &'a ast::Dockerfile,
        globals: &Globals,
        target: &Platform,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Stages<'a> {
        let mut stages = Stages {
            list: Vec::with_capacity(dockerfile.stages.len()),
            by_name: BTreeMap::new(),
            contexts: Contexts::new(&input.contexts),
            target: target.clone(),
        };
        let expander = Expander::new(dockerfile.directives.escape);
        for (index, ast) in dockerfile.stages.iter().enumerate() {
            let mut reader = FromReader {
                from: &ast.from,
                globals,
                expander: &expander,
                text: &input.text,
                diagnostics,
            };
            let platform = reader.platform();
            let base_name = reader.base_name();
            let stage = stages.resolve(ast, index, platform, base_name, diagnostics);
            stages.list.push(stage);
            if let Some(name) = ast.name() {
                stages.by_name.insert(name, index);
            }
        }
        stages
    }

    fn resolve(
        &self,
        ast: &'a ast::Stage,
        index: usize,
        flag: Option<Platform>,
        base_name: Option<String>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Stage<'a> {
        let title = match &ast.from.kind.name {
            Some(name) => name.text.to_string(),
            None => format!("stage-{index}"),
        };
        let platform = flag.clone().unwrap_or_else(|| self.target.clone());
        let replacement = ast
            .from
            .kind
            .name
            .as_ref()
            .and_then(|name| self.contexts.find(&name.text, &platform));
        let base_name = base_name.unwrap_or_else(|| SCRATCH.to_owned());
        let mut stage = Stage {
            ast,
            title,
            base: Base::Scratch,
            platform,
            platform_given: flag.is_some(),
            replaced: replacement.is_some(),
            base_name,
        };
        if let Some(context) = replacement {
            stage.base = Base::Context(context);
            return stage;
        }
        // A stage is found by the name as it stands: `FROM Base` is an image, as stages are in
        // lower case.
        if let Some(base) = self.by_name.get(&stage.base_name) {
            stage.base = Base::Stage(*base);
            stage.platform = self.list[*base].platform.clone();
        } else if stage.base_name == SCRATCH {
            stage.platform = self.target.clone();
        } else {
            match self.image(&stage.base_name, &stage.platform) {
                Ok(base) => stage.base = base,
                Err(reason) => {
                    let message =
                        format!("failed to parse stage name {:?}: {reason}", stage.base_name);
                    let mut error =
                        Diagnostic::error("invalid-reference", ast.from.kind.image.span, message);
                    let names = self.by_name.keys().map(String::as_str);
                    if let Some(name) = closest(&stage.base_name.to_lowercase(), names)
                        .or_else(|| self.same_letters(&stage.base_name))
                    {
                        error = error.with_help(format!("did you mean `{name}`?"));
                    }
                    diagnostics.push(error);
                }
            }
        }
        if stage.platform.os != "linux" {
            let span = match &ast.from.kind.platform {
                Some(flag) => flag.span,
                None => ast.from.span,
            };
            let message = format!(
                "platform `{}` is not supported: only linux images can be built",
                stage.platform
            );
            diagnostics.push(Diagnostic::error("unsupported-platform", span, message));
        }
        stage
    }

    fn same_letters(&self, name: &str) -> Option<&str> {
        let (name, _) = self.by_name.get_key_value(&name.to_lowercase())?;
        Some(name)
    }

    /// Returns the image or named context that `name` means where no stage is meant.
    fn image(&self, name: &str, platform: &Platform) -> Result<Base<'a>, String> {
        if let Some(context) = self.contexts.find(name, platform) {
            return Ok(Base::Context(context));
        }
        reference::normalize(name).map(Base::Image)
    }

    /// Returns what `COPY --from` or `from=` of a mount means: a stage by number (COPY only) or
    /// name in any case, a named context, or an image. The error is a whole message.
    pub(super) fn lookup(&self, from: &str, by_number: bool) -> Result<Base<'a>, String> {
        if by_number && let Some(number) = number(from) {
            return match usize::try_from(number) {
                Ok(index) if index < self.list.len() => Ok(self.stage(index)),
                _ => Err(format!("invalid stage index {number}")),
            };
        }
        if let Some(index) = self.by_name.get(&from.to_lowercase()) {
            return Ok(self.stage(*index));
        }
        if from == SCRATCH {
            return Ok(Base::Scratch);
        }
        self.image(from, &self.target)
            .map_err(|reason| format!("failed to parse stage name {from:?}: {reason}"))
    }

    fn stage(&self, index: usize) -> Base<'a> {
        match &self.list[index] {
            stage if stage.replaced => stage.base.clone(),
            _ => Base::Stage(index),
        }
    }

    /// Returns the named context of this name.
    pub(super) fn context(&self, name: &str, platform: &Platform) -> Option<&'a NamedContext> {
        self.contexts.find(name, platform)
    }

    /// Returns the platform that everything is for, unless a stage says otherwise.
    pub(super) fn target_platform(&self) -> &Platform {
        &self.target
    }

    /// Returns the names of the stages that have one, in lower case.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Returns the stage to build: by name in any case, or the last one. None if there is none.
    pub(super) fn target(&self, name: Option<&str>) -> Option<usize> {
        match name {
            Some(name) => self.by_name.get(&name.to_lowercase()).copied(),
            None => self.list.len().checked_sub(1),
        }
    }
}

/// A decimal number with a sign, as Go's `Atoi` reads it.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// The named contexts by familiar name, each perhaps for one platform only.
#[derive(Debug)]
struct Contexts<'a> {
    by_name: BTreeMap<(String, String), &'a NamedContext>,
}

impl<'a> Contexts<'a> {
    fn new(contexts: &'a BTreeMap<String, NamedContext>) -> Self {
        let by_name = contexts
            .iter()
            .map(|(key, context)| {
                let (name, platform) = key.split_once("::").unwrap_or((key, ""));
                let platform = match Platform::parse(platform) {
                    Ok(platform) => platform.to_string(),
                    Err(_) => platform.to_owned(),
                };
                ((reference::familiar(name), platform), context)
            })
            .collect();
        Contexts { by_name }
    }

    fn find(&self, name: &str, platform: &Platform) -> Option<&'a NamedContext> {
        if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let name = reference::familiar(name);
        let any = (name.clone(), String::new());
        let exact = (name, platform.to_string());
        self.by_name
            .get(&exact)
            .or_else(|| self.by_name.get(&any))
            .copied()
    }
}

/// Expands the words of one FROM.
struct FromReader<'r> {
    from: &'r ast::Instruction<ast::From>,
    globals: &'r Globals,
    expander: &'r Expander,
    text: &'r str,
    diagnostics: &'r mut Vec<Diagnostic>,
}

impl FromReader<'_> {
    fn base_name(&mut self) -> Option<String> {
        let word = &self.from.kind.image;
        let expansion = self.expand(word)?;
        if expansion.text.is_empty() {
            let message = format!("base name ({}) should not be blank", word.text);
            let mut error = Diagnostic::error("blank-base-name", word.span, message);
            if let Some(name) = self.suggestion(&expansion) {
                error = error.with_help(format!("did you mean `${name}`?"));
            }
            self.diagnostics.push(error);
            return None;
        }
        Some(expansion.text)
    }

    fn platform(&mut self) -> Option<Platform> {
        let word = self.from.kind.platform.as_ref()?;
        let expansion = self.expand(word)?;
        self.lint_platform(word, &expansion);
        let message = if expansion.text.is_empty() {
            format!("empty platform value from expression {}", word.text)
        } else {
            match Platform::parse(&expansion.text) {
                Ok(platform) => return Some(platform),
                Err(error) => format!("failed to parse platform {}: {error}", word.text),
            }
        };
        let mut error = Diagnostic::error("invalid-platform", word.span, message);
        if let Some(name) = self.suggestion(&expansion) {
            error = error.with_help(format!("did you mean `${name}`?"));
        }
        self.diagnostics.push(error);
        None
    }

    fn expand(&mut self, word: &ast::Word) -> Option<Expansion> {
        let expansion = match self.expander.expand(&word.text, self.globals) {
            Ok(expansion) => expansion,
            Err(error) => {
                let error = Diagnostic::error("expansion", word.span, error.to_string());
                self.diagnostics.push(error);
                return None;
            }
        };
        for name in &expansion.unmatched {
            if self.globals.declares(name) {
                continue;
            }
            let mut message = format!("FROM argument '{name}' is not declared");
            if let Some(near) = closest(name, self.globals.names()) {
                message.push_str(&format!(" (did you mean {near}?)"));
            }
            let span = variable(self.text, word.span, name);
            self.lint(Rule::UndefinedArgInFrom, span, message);
        }
        Some(expansion)
    }

    fn lint_platform(&mut self, word: &ast::Word, expansion: &Expansion) {
        let target = self.globals.get("TARGETPLATFORM").unwrap_or_default();
        if expansion.unmatched.is_empty()
            && expansion.matched.iter().eq(["TARGETPLATFORM"])
            && expansion.text == target
        {
            let message = format!(
                "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                word.text
            );
            self.lint(Rule::RedundantTargetPlatform, word.span, message);
        }
        if !expansion.matched.is_empty() || !expansion.unmatched.is_empty() {
            return;
        }
        let Ok(platform) = Platform::parse(&expansion.text) else {
            return;
        };
        let stage = self.from.kind.name.as_ref().map_or("", |name| &name.text);
        if !stage.contains(&platform.os) && !stage.contains(&platform.architecture) {
            let message = format!(
                "FROM --platform flag should not use constant value {:?}",
                expansion.text
            );
            self.lint(Rule::FromPlatformFlagConstDisallowed, word.span, message);
        }
    }

    fn suggestion(&self, expansion: &Expansion) -> Option<&str> {
        expansion
            .unmatched
            .iter()
            .find_map(|name| closest(name, self.globals.names()))
    }

    fn lint(&mut self, rule: Rule, span: Span, message: String) {
        self.diagnostics.push(Diagnostic::lint(rule, span, message));
    }
}

/// Warns of bases that are no image name without build arguments.
pub(super) fn lint_default_bases(
    dockerfile: &ast::Dockerfile,
    defaults: &Globals,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let expander = Expander::new(dockerfile.directives.escape);
    for stage in &dockerfile.stages {
        let word = &stage.from.kind.image;
        let Ok(expansion) = expander.expand(&word.text, defaults) else {
            continue;
        };
        let constant = expansion.matched.is_empty() && expansion.unmatched.is_empty();
        if !constant && reference::normalize(&expansion.text).is_err() {
            let message = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                word.text
            );
            diagnostics.push(Diagnostic::lint(
                Rule::InvalidDefaultArgInFrom,
                word.span,
                message,
            ));
        }
    }
}
