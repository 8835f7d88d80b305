//! COPY and ADD.

use kiln_ir::{
    ActionInput, CopyAction, FileAction, FileActionKind, FileOp, HttpSource, Input, MergeOp, Op,
    Owner, UserRef,
};

use super::mode::{self, Mode};
use super::path;
use super::reference::is_digest;
use super::remote::{self, Remote};
use super::round::{CONTEXT, Inputs, Label, Step, output};
use super::stage::{Source, StageLowering, error};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Add, Copy, Heredoc, Instruction, Transfer, Word};
use crate::dockerfile::expand::Expander;
use crate::dockerfile::lint::Rule;
use crate::dockerfile::span::Span;

/// What COPY and ADD do not share.
struct Flavor<'a> {
    keyword: &'static str,
    source: Source<'a>,
    parents: bool,
    add: Option<AddFlags>,
}

/// What only ADD has, expanded.
struct AddFlags {
    unpack: Option<bool>,
    keep_git_dir: Option<bool>,
    checksum: String,
}

/// The flags and paths of one instruction, expanded.
struct Expanded {
    chown: String,
    chmod: String,
    mode: Option<Mode>,
    exclude: Vec<String>,
    /// With where each is written.
    sources: Vec<(String, Span)>,
    /// File names and contents.
    documents: Vec<(String, String)>,
    /// As written, for the history.
    destination: String,
    /// Absolute.
    target: String,
}

/// A chain of actions in the making, each on the tree that the one before it made.
struct Chain {
    inputs: Inputs,
    actions: Vec<FileAction>,
    tree: ActionInput,
    /// What every copy has.
    common: CopyAction,
}

impl Chain {
    fn copy(&mut self, from: Option<Input>, action: CopyAction) {
        let secondary = match from {
            Some(from) => ActionInput::Input(self.inputs.index(from)),
            None => ActionInput::Scratch,
        };
        let number = u32::try_from(self.actions.len()).unwrap_or(u32::MAX);
        self.actions.push(FileAction {
            input: self.tree,
            secondary,
            output: None,
            kind: FileActionKind::Copy(action),
        });
        self.tree = ActionInput::Action(number);
    }

    /// A copy of one file or tree, taken as it is.
    fn plain(&mut self, from: Input, src: &str) {
        let action = CopyAction {
            src: src.to_owned(),
            ..self.common.clone()
        };
        self.copy(Some(from), action);
    }
}

impl<'a> StageLowering<'_, 'a> {
    /// COPY
    pub(super) fn copy(&mut self, instruction: &Instruction, copy: &Copy) -> Step {
        let source = match &copy.from {
            Some(from) => self.source(&from.text, true, "copy", from.span)?,
            None => self.build_context(),
        };
        let flavor = Flavor {
            keyword: "COPY",
            source,
            parents: copy.parents,
            add: None,
        };
        self.transfer(instruction, &copy.transfer, flavor)
    }

    /// ADD
    pub(super) fn add(&mut self, instruction: &Instruction, add: &Add) -> Step {
        let checksum = match &add.checksum {
            Some(word) => self.expand(word)?,
            None => String::new(),
        };
        if let Some(word) = &add.checksum
            && !checksum.is_empty()
        {
            let sources = &add.transfer.sources;
            if sources.len() != 1 {
                let message = "checksum can't be specified for multiple sources";
                return Err(error("invalid-checksum", word.span, message));
            }
            let source = self.expand(&sources[0])?;
            if matches!(remote::classify(&source), Ok(None)) {
                let message = "checksum requires HTTP(S) or Git sources";
                return Err(error("invalid-checksum", word.span, message));
            }
        }
        let flavor = Flavor {
            keyword: "ADD",
            source: self.build_context(),
            parents: false,
            add: Some(AddFlags {
                unpack: add.unpack,
                keep_git_dir: add.keep_git_dir,
                checksum,
            }),
        };
        self.transfer(instruction, &add.transfer, flavor)
    }

    fn build_context(&self) -> Source<'a> {
        Source::Local(CONTEXT, &self.round.input.ignore)
    }

    fn transfer(
        &mut self,
        instruction: &Instruction,
        transfer: &Transfer,
        flavor: Flavor<'a>,
    ) -> Step {
        let words = self.expand_transfer(transfer)?;
        let label = self.label(instruction, instruction.span);
        // The merge of --link would keep the modes that --chmod changes, so these exclude each other.
        let link = transfer.link && words.chmod.is_empty();
        let mut chain = self.chain(&words, link);
        for (source, span) in &words.sources {
            self.copy_source(&mut chain, &flavor, source, *span, &label)?;
        }
        for (name, content) in &words.documents {
            let file = path::absolute("/", name);
            let data = content.clone().into_bytes();
            let document = self.inline_document(&file, 0o644, data, instruction.span)?;
            chain.plain(document, &file);
        }
        self.lint_ignored(&flavor, &words);
        let made = self.finish(chain, &label)?;
        self.state.fs = match self.state.fs {
            Some(below) if link => {
                let op = Op::Merge(MergeOp {
                    inputs: vec![Some(0), Some(1)],
                });
                let label = Label {
                    name: format!("LINK {}", label.name),
                    ..label
                };
                let node = self.round.add(op, vec![below, made], None, &label)?;
                Some(output(node))
            }
            _ => Some(made),
        };
        let created_by = created_by(&flavor, &words);
        self.history(created_by, false, instruction.span)
    }

    fn expand_transfer(&mut self, transfer: &Transfer) -> Step<Expanded> {
        let chown = self.expand_flag(&transfer.chown)?;
        let chmod = self.expand_flag(&transfer.chmod)?;
        let mode = match &transfer.chmod {
            Some(word) if !chmod.is_empty() => Some(
                mode::parse(&chmod)
                    .map_err(|message| error("invalid-chmod", word.span, message))?,
            ),
            _ => None,
        };
        let mut exclude = Vec::with_capacity(transfer.exclude.len());
        for word in &transfer.exclude {
            exclude.push(self.expand(word)?);
        }
        let mut sources = Vec::with_capacity(transfer.sources.len());
        for word in &transfer.sources {
            sources.push((self.expand(word)?, word.span));
        }
        let mut documents = Vec::with_capacity(transfer.heredocs.len());
        for heredoc in &transfer.heredocs {
            documents.push((heredoc.name.clone(), self.document(heredoc)?));
        }
        let destination = self.expand(&transfer.destination)?;
        Ok(Expanded {
            chown,
            chmod,
            mode,
            exclude,
            sources,
            documents,
            target: path::destination(&self.state.image.config.working_dir, &destination),
            destination,
        })
    }

    fn expand_flag(&mut self, word: &Option<Word>) -> Step<String> {
        match word {
            Some(word) => self.expand(word),
            None => Ok(String::new()),
        }
    }

    fn document(&mut self, heredoc: &Heredoc) -> Step<String> {
        let content = heredoc.content();
        if !heredoc.expand {
            return Ok(content);
        }
        let expansion = self.expansion(&Expander::heredoc(), &content, heredoc.body_span)?;
        Ok(expansion.text)
    }

    /// Begins the actions of a copy into the stage, or of a --link copy into an empty tree.
    fn chain(&self, words: &Expanded, link: bool) -> Chain {
        let mut inputs = Inputs::default();
        let stage = self.state.fs;
        let tree = match stage {
            Some(fs) if !link => ActionInput::Input(inputs.index(fs)),
            _ => ActionInput::Scratch,
        };
        // Names of owners are looked up in the stage; only they make a --link copy depend on it.
        let users = match stage {
            Some(fs) if has_names(&words.chown) => ActionInput::Input(inputs.index(fs)),
            _ => tree,
        };
        let (mode, mode_str) = match &words.mode {
            Some(Mode::Bits(bits)) => (Some(*bits), String::new()),
            Some(Mode::Symbolic(text)) => (None, text.clone()),
            None => (None, String::new()),
        };
        Chain {
            inputs,
            actions: Vec::new(),
            tree,
            common: CopyAction {
                dest: words.target.clone(),
                owner: owner(&words.chown, users),
                mode,
                mode_str,
                create_dest_path: true,
                exclude_patterns: words.exclude.clone(),
                ..CopyAction::default()
            },
        }
    }

    fn copy_source(
        &mut self,
        chain: &mut Chain,
        flavor: &Flavor<'a>,
        source: &str,
        span: Span,
        label: &Label,
    ) -> Step {
        let remote =
            remote::classify(source).map_err(|message| error("invalid-source", span, message))?;
        match (remote, &flavor.add) {
            (None, _) => self.copy_files(chain, flavor, source, span),
            (Some(Remote::Git(_)), None) => Err(error(
                "invalid-source",
                span,
                "source can't be a git ref for COPY",
            )),
            (Some(Remote::Http { .. }), None) => Err(error(
                "invalid-source",
                span,
                "source can't be a URL for COPY",
            )),
            (Some(Remote::Git(git)), Some(flags)) => {
                let source = git
                    .source(flags.keep_git_dir, &flags.checksum)
                    .map_err(|message| error("invalid-source", span, message))?;
                let tree = self.round.git(source, label)?;
                chain.plain(tree, "/");
                Ok(())
            }
            (Some(Remote::Http { url, file_name }), Some(flags)) => {
                if !flags.checksum.is_empty() && !is_digest(&flags.checksum) {
                    let message = format!("invalid checksum digest format {:?}", flags.checksum);
                    return Err(error("invalid-checksum", span, message));
                }
                let source = HttpSource {
                    url,
                    checksum: (!flags.checksum.is_empty()).then(|| flags.checksum.clone()),
                    filename: Some(file_name.clone()),
                    ..HttpSource::default()
                };
                let file = self.round.http(source, label)?;
                let action = CopyAction {
                    src: path::absolute("/", &file_name),
                    attempt_unpack: flags.unpack.unwrap_or(false),
                    ..chain.common.clone()
                };
                chain.copy(Some(file), action);
                Ok(())
            }
        }
    }

    /// Adds the copy of one local path or pattern.
    fn copy_files(
        &mut self,
        chain: &mut Chain,
        flavor: &Flavor<'a>,
        source: &str,
        span: Span,
    ) -> Step {
        let mut src = path::absolute("/", source);
        let mut include_patterns = Vec::new();
        let mut required_paths = Vec::new();
        let read = src.clone();
        if flavor.parents {
            // What stands before `/./` is where the kept parents begin.
            let (base, kept) = source.split_once("/./").unwrap_or(("/", source));
            src = path::absolute("/", base);
            let kept = path::absolute("/", kept);
            if !path::has_wildcards(base) && !path::has_wildcards(&kept) {
                required_paths.push(path::absolute(&src, kept.trim_start_matches('/')));
            }
            include_patterns.push(kept.trim_start_matches('/').to_owned());
        }
        let from = self.input(&flavor.source, Self::include(&read), span)?;
        let action = CopyAction {
            src,
            follow_symlink: true,
            dir_copy_contents: true,
            attempt_unpack: match &flavor.add {
                Some(flags) => flags.unpack.unwrap_or(true),
                None => false,
            },
            allow_wildcard: true,
            allow_empty_wildcard: true,
            include_patterns,
            required_paths,
            ..chain.common.clone()
        };
        chain.copy(from, action);
        Ok(())
    }

    fn finish(&mut self, mut chain: Chain, label: &Label) -> Step<Input> {
        match chain.actions.last_mut() {
            Some(last) => last.output = Some(0),
            None => {
                let message = "a copy needs at least one source";
                return Err(error("no-source", label.span, message));
            }
        }
        let op = Op::File(FileOp {
            actions: chain.actions,
        });
        let node = self.round.add(op, chain.inputs.into_list(), None, label)?;
        Ok(output(node))
    }

    /// Warns of sources that the ignore file leaves out, as far as it can be told without files.
    fn lint_ignored(&mut self, flavor: &Flavor<'a>, words: &Expanded) {
        let Source::Local(CONTEXT, patterns) = flavor.source else {
            return;
        };
        // With a `!` in it, the list may still bring back what is below.
        if self.round.ignore.is_empty() || self.round.ignore.has_negations() {
            return;
        }
        let everything = |pattern: &String| matches!(pattern.as_str(), "*" | "**" | "**/*");
        for (source, span) in &words.sources {
            if !matches!(remote::classify(source), Ok(None)) {
                continue;
            }
            let path = path::absolute("/", source);
            let path = path.trim_start_matches('/');
            let ignored = match path {
                "" => patterns.iter().rposition(everything),
                path => self.round.ignore.decide(path).decided_by(),
            };
            if let Some(pattern) = ignored.and_then(|index| patterns.get(index)) {
                let verb = if flavor.add.is_some() { "Add" } else { "Copy" };
                let shown = if path.is_empty() { "." } else { path };
                let message = format!(
                    "Attempting to {verb} file {shown:?} that is excluded by .dockerignore"
                );
                let help = format!(
                    "the line `{pattern}` of the ignore file excludes it; \
                     `kiln build --call context` shows what is left"
                );
                self.report(
                    Diagnostic::lint(Rule::CopyIgnoredFile, *span, message).with_help(help),
                );
            }
        }
    }
}

fn created_by(flavor: &Flavor<'_>, words: &Expanded) -> String {
    let mut parts = vec![flavor.keyword.to_owned()];
    if flavor.parents {
        parts.push("--parents".to_owned());
    }
    if !words.chown.is_empty() {
        parts.push(format!("--chown={}", words.chown));
    }
    if !words.chmod.is_empty() {
        parts.push(format!("--chmod={}", words.chmod));
    }
    parts.extend(words.sources.iter().map(|(source, _)| source.clone()));
    parts.extend(words.documents.iter().map(|(name, _)| format!("<<{name}")));
    parts.push(words.destination.clone());
    parts.push("# buildkit".to_owned());
    parts.join(" ")
}

/// Reads `user[:group]`; names are looked up in `tree`. Nothing written is no owner.
///
/// A user by number without a group has the group of the same number.
pub(super) fn owner(text: &str, tree: ActionInput) -> Option<Owner> {
    if text.is_empty() {
        return None;
    }
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let part = |name: &str| match name.parse() {
        _ if name.is_empty() => None,
        Ok(id) => Some(UserRef::Id(id)),
        Err(_) => Some(UserRef::Name {
            name: name.to_owned(),
            input: tree,
        }),
    };
    let user = part(user);
    let group = part(group).or(match user {
        Some(UserRef::Id(id)) => Some(UserRef::Id(id)),
        _ => None,
    });
    Some(Owner { user, group })
}

fn has_names(chown: &str) -> bool {
    chown
        .split(':')
        .any(|part| !part.is_empty() && part.parse::<u32>().is_err())
}
