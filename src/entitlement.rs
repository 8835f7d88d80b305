//! What steps may have only if the caller allows it: the host's network by name, all privileges.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kiln_frontend::diagnostic::Diagnostic;
use kiln_frontend::dockerfile::span::Span;
use kiln_ir::{NetworkMode, NodeId, Op, Plan, SecurityMode};

use crate::{Error, Findings};

/// A right that a build has only if it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entitlement {
    /// The host's network, asked for by name.
    NetworkHost,
    /// All privileges.
    SecurityInsecure,
    /// That the build file names a program of this host as its front end.
    FrontendExec,
}

impl fmt::Display for Entitlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Entitlement::NetworkHost => "network.host",
            Entitlement::SecurityInsecure => "security.insecure",
            Entitlement::FrontendExec => "frontend.exec",
        })
    }
}

/// What of a plan needs an entitlement, in the order of the Dockerfile where there is one.
fn needs(plan: &Plan) -> Vec<(NodeId, Entitlement)> {
    let mut needs = Vec::new();
    for id in plan.graph.topological() {
        let Op::Exec(exec) = &plan.graph.node(id).op else {
            continue;
        };
        if exec.network == NetworkMode::Host {
            needs.push((id, Entitlement::NetworkHost));
        }
        if exec.security == SecurityMode::Insecure {
            needs.push((id, Entitlement::SecurityInsecure));
        }
    }
    let line = |id: &NodeId| {
        let range = plan.display.get(id).and_then(|shown| shown.ranges.first());
        range.map(|range| (range.source, range.start_line))
    };
    needs.sort_by_key(|(id, entitlement)| (line(id), *entitlement));
    needs
}

/// Errors if a plan needs what is not allowed; names each entitlement once, at its first step.
pub(crate) fn check(plan: &Plan, allowed: &BTreeSet<Entitlement>) -> Result<(), Error> {
    let mut refused: BTreeMap<Entitlement, NodeId> = BTreeMap::new();
    for (id, entitlement) in needs(plan) {
        if !allowed.contains(&entitlement) {
            refused.entry(entitlement).or_insert(id);
        }
    }
    let Some((&first, _)) = refused.first_key_value() else {
        return Ok(());
    };
    let message = |entitlement| match entitlement {
        Entitlement::NetworkHost => {
            "this step asks for the host's network by name, and `network.host` is not allowed"
        }
        Entitlement::SecurityInsecure => {
            "this step asks for all privileges, and `security.insecure` is not allowed"
        }
        Entitlement::FrontendExec => unreachable!("BUG: no step asks for a front end"),
    };
    let help = |entitlement| format!("if you trust this file, build with --allow {entitlement}");
    let placed = refused.iter().filter_map(|(&entitlement, id)| {
        let (source, span) = place(plan, *id)?;
        let diagnostic = Diagnostic::error("not-allowed", span, message(entitlement));
        Some((source, diagnostic.with_help(help(entitlement))))
    });
    let mut placed: Vec<(usize, Diagnostic)> = placed.collect();
    placed.sort_by_key(|(source, diagnostic)| (*source, diagnostic.span.start));
    match placed.first() {
        Some(&(source, _)) => {
            let (file_name, text) = plan.sources[source].clone();
            placed.retain(|(of, _)| *of == source);
            Err(Error::Dockerfile(Box::new(Findings {
                file_name,
                text: text.into(),
                diagnostics: placed.into_iter().map(|(_, finding)| finding).collect(),
            })))
        }
        None => Err(Error::Usage {
            message: message(first).replace("this step", "a step of the plan"),
            hint: Some(help(first)),
        }),
    }
}

/// Where a step is written: the source's index, and the bytes of its lines.
fn place(plan: &Plan, node: NodeId) -> Option<(usize, Span)> {
    let range = plan.display.get(&node)?.ranges.first()?;
    let source = range.source as usize;
    let (_, text) = plan.sources.get(source)?;
    let first = range.start_line.max(1) as usize - 1;
    let last = range.end_line.max(range.start_line).max(1) as usize;
    let mut starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
    let start = starts.nth(first)?;
    let length: usize = text[start..]
        .split_inclusive('\n')
        .take(last - first)
        .map(str::len)
        .sum();
    let end = start + text[start..start + length].trim_end().len();
    let offset = |at: usize| u32::try_from(at).ok();
    Some((source, Span::new(offset(start)?, offset(end)?)))
}
