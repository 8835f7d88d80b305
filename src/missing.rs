//! A file that a COPY does not find: whether an ignore file hides it, and what is there instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_executor::{Error as ExecutorError, FileError, PickError};
use kiln_ir::pattern::PatternList;
use kiln_ir::{ActionInput, FileActionKind, LocalSource, NodeId, Op, Plan, SourceOp};

use crate::call::near;
use crate::dockerfile::CONTEXT;
use crate::ignore::IgnoreFile;

/// The contexts of a build, to be looked at again once a file was not found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contexts {
    /// By the names that local sources have in the plan.
    pub(crate) directories: BTreeMap<String, PathBuf>,
    /// What to say of a file that the main one lacks, if that was brought here.
    pub(crate) brought: Option<String>,
    /// The rules of the main one.
    pub(crate) ignore: Option<IgnoreFile>,
    /// The lock.
    pub(crate) lock: PathBuf,
    /// What the lock pins, by the names of its entries.
    pub(crate) locked: BTreeMap<NodeId, String>,
}

impl Contexts {
    /// Says why a step did not find a file, or what pins a source that is not there as pinned.
    pub(crate) fn hint(&self, plan: &Plan, node: NodeId, error: &ExecutorError) -> Option<String> {
        if let Some(name) = self.locked.get(&node).filter(|_| error.is_other_source()) {
            let lock = self.lock.display();
            return Some(format!(
                "`{lock}` pins `{name}`; `kiln lock --update {name}` moves the pin to what is there now"
            ));
        }
        let ExecutorError::File(FileError::Pick(PickError::NotFound { path })) = error else {
            return None;
        };
        let source = local_source(plan, node, path)?;
        let directory = self.directories.get(&source.name)?;
        let path = path.trim_start_matches('/');
        let patterns = PatternList::new(&source.exclude).ok()?;
        let state = patterns.decide(path);
        if state.is_excluded() && directory.join(path).symlink_metadata().is_ok() {
            let rule = state
                .decided_by()
                .and_then(|index| self.rule(&source, index));
            return Some(match rule {
                Some(rule) => format!("{rule} leaves it out of the build context"),
                None => "the ignore file of its context leaves it out".to_owned(),
            });
        }
        let names: Vec<String> = near(directory, path)
            .into_iter()
            .filter(|name| !patterns.matches(name))
            .map(|name| format!("`{name}`"))
            .collect();
        if !names.is_empty() {
            return Some(format!("did you mean {}?", names.join(" or ")));
        }
        if let Some(words) = self.brought.as_ref().filter(|_| source.name == CONTEXT) {
            return Some(words.clone());
        }
        Some(format!(
            "sources are relative to the build context, `{}`",
            shown(directory)
        ))
    }

    fn rule(&self, source: &LocalSource, index: usize) -> Option<String> {
        let file = self.ignore.as_ref()?;
        let is_main = IgnoreFile::patterns(Some(file)) == source.exclude;
        let rule = is_main.then(|| file.rule(index))??;
        Some(rule.to_string())
    }
}

/// Finds the context that a step copies `path` from.
fn local_source(plan: &Plan, node: NodeId, path: &str) -> Option<LocalSource> {
    let node = plan.graph.node(node);
    let Op::File(file) = &node.op else {
        return None;
    };
    file.actions.iter().find_map(|action| {
        let FileActionKind::Copy(copy) = &action.kind else {
            return None;
        };
        let asked = copy.required_paths.iter().chain([&copy.src]);
        let mut asked = asked.map(|src| src.trim_start_matches('/'));
        if !asked.any(|src| src == path.trim_start_matches('/')) {
            return None;
        }
        let ActionInput::Input(index) = action.secondary else {
            return None;
        };
        let input = node.inputs.get(index as usize)?;
        match &plan.graph.node(input.node).op {
            Op::Source(SourceOp::Local(local)) => Some(local.clone()),
            _ => None,
        }
    })
}

fn shown(directory: &Path) -> String {
    let directory = directory
        .canonicalize()
        .unwrap_or_else(|_| directory.to_owned());
    directory.display().to_string()
}
