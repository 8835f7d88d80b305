//! Assertions held against a plan.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::assertion::{Assertion, Rule};
use super::scope;
use crate::describe::title;
use crate::image::is_secret_name;
use crate::op::*;
use crate::{Config, NodeId, PatternList, Plan};

/// Returns where an assertion does not hold.
pub(super) fn judge(plan: &Plan, assertion: &Assertion) -> Vec<Violation> {
    let mut findings = Findings {
        plan,
        assertion,
        violations: Vec::new(),
    };
    match scope::nodes(plan, &assertion.scope) {
        Ok(nodes) => findings.judge(&nodes),
        Err(message) => findings.tell(None, message),
    }
    findings.violations
}

struct Findings<'a> {
    plan: &'a Plan,
    assertion: &'a Assertion,
    violations: Vec<Violation>,
}

impl Findings<'_> {
    fn tell(&mut self, node: Option<NodeId>, message: String) {
        let range = node
            .and_then(|node| self.plan.display.get(&node))
            .and_then(|display| display.ranges.first());
        let place = range.and_then(|range| {
            let (file, _) = self.plan.sources.get(range.source as usize)?;
            Some((file.clone(), range.start_line))
        });
        self.violations.push(Violation {
            assertion: self.assertion.text.clone(),
            message,
            place,
        });
    }

    fn tell_of(&mut self, node: NodeId, message: &str) {
        let name = title(self.plan, node);
        self.tell(Some(node), format!("`{name}` {message}"));
    }

    fn judge(&mut self, nodes: &[NodeId]) {
        match &self.assertion.rule {
            Rule::BaseImagesPinned => self.each(nodes, |plan, node, op| match op {
                Op::Source(SourceOp::Image(ImageSource {
                    reference,
                    checksum: None,
                    ..
                }))
                | Op::Source(SourceOp::OciLayout(OciLayoutSource { reference, .. }))
                    if !reference.contains("@sha") && !plan.pins.contains_key(&node) =>
                {
                    Some("is not pinned to a digest".to_owned())
                }
                _ => None,
            }),
            Rule::ImagesFrom(patterns) => self.images_from(nodes, patterns),
            Rule::DownloadsVerified => self.each(nodes, |plan, node, op| {
                let verified = match op {
                    Op::Source(SourceOp::Http(http)) => http.checksum.is_some(),
                    Op::Source(SourceOp::Git(git)) => {
                        git.checksum.is_some() || is_commit(&git.reference)
                    }
                    _ => true,
                };
                (!verified && !plan.pins.contains_key(&node)).then(|| "has no checksum".to_owned())
            }),
            Rule::NoRootRuns => self.execs(nodes, |op| {
                is_root(&op.meta.user).then(|| "runs as root".to_owned())
            }),
            Rule::NoNetwork => self.execs(nodes, |op| {
                (op.network != NetworkMode::None).then(|| "may use the network".to_owned())
            }),
            Rule::NoPrivilegedRuns => self.execs(nodes, |op| {
                if op.security == SecurityMode::Insecure {
                    return Some("runs with all privileges".to_owned());
                }
                (op.network == NetworkMode::Host).then(|| "uses the host's network".to_owned())
            }),
            Rule::NoRuns => self.execs(nodes, |_| Some("runs a program".to_owned())),
            Rule::NeverRuns(text) => self.execs(nodes, |op| {
                let says = op.meta.args.iter().any(|argument| argument.contains(text));
                says.then(|| format!("says `{text}`"))
            }),
            Rule::NoWholeContext => self.whole_context(nodes),
            Rule::SecretsOnly(ids) => self.execs(nodes, |op| {
                let mounted = op.mounts.iter().filter_map(|mount| match &mount.kind {
                    MountKind::Secret(secret) | MountKind::Ssh(secret) => Some(&secret.id),
                    _ => None,
                });
                let given = op.secret_env.iter().map(|secret| &secret.id);
                let mut other = mounted.chain(given).filter(|id| !ids.contains(id));
                other.next().map(|id| format!("takes the secret `{id}`"))
            }),
            Rule::NoSecretsInEnvironment => self.secrets_in_environment(nodes),
            Rule::AtMostLayers(most) => self.layers(*most),
            Rule::Platforms(platforms) => {
                let expected: BTreeSet<&String> = platforms.iter().collect();
                let found = self.platforms();
                if expected != found.iter().collect() {
                    let found: Vec<String> = found.into_iter().collect();
                    self.tell(
                        None,
                        format!("the results are for `{}`", found.join("`, `")),
                    );
                }
            }
            _ => self.configs(),
        }
    }

    fn each(&mut self, nodes: &[NodeId], wrong: impl Fn(&Plan, NodeId, &Op) -> Option<String>) {
        for &node in nodes {
            if let Some(message) = wrong(self.plan, node, &self.plan.graph.node(node).op) {
                self.tell_of(node, &message);
            }
        }
    }

    fn execs(&mut self, nodes: &[NodeId], wrong: impl Fn(&ExecOp) -> Option<String>) {
        self.each(nodes, |_, _, op| match op {
            Op::Exec(op) => wrong(op),
            _ => None,
        });
    }

    fn images_from(&mut self, nodes: &[NodeId], patterns: &[String]) {
        let allowed = match PatternList::new(patterns) {
            Ok(allowed) => allowed,
            Err(error) => return self.tell(None, error.to_string()),
        };
        self.each(nodes, |_, _, op| match op {
            Op::Source(SourceOp::Image(image)) => {
                let reference = image.reference.as_str();
                let name = reference
                    .split_once('@')
                    .map_or(reference, |(name, _)| name);
                (!allowed.matches(name)).then(|| "is from elsewhere".to_owned())
            }
            _ => None,
        });
    }

    fn whole_context(&mut self, nodes: &[NodeId]) {
        self.each(nodes, |plan, node, op| {
            let inputs = &plan.graph.node(node).inputs;
            let is_local = |index: u32| {
                let input = inputs.get(index as usize)?;
                let op = &plan.graph.node(input.node).op;
                Some(matches!(op, Op::Source(SourceOp::Local(_))))
            };
            let Op::File(op) = op else { return None };
            let whole = op
                .actions
                .iter()
                .any(|action| match (&action.kind, action.secondary) {
                    (FileActionKind::Copy(copy), ActionInput::Input(index)) => {
                        let all = matches!(copy.src.as_str(), "" | "/" | "." | "/*" | "./");
                        all && copy.include_patterns.is_empty() && is_local(index) == Some(true)
                    }
                    _ => false,
                });
            whole.then(|| "copies the whole context".to_owned())
        });
    }

    fn secrets_in_environment(&mut self, nodes: &[NodeId]) {
        let secret = |env: &[String]| {
            env.iter().find_map(|variable| {
                let (name, value) = variable.split_once('=')?;
                (is_secret_name(name) && !value.is_empty()).then(|| name.to_owned())
            })
        };
        self.execs(nodes, |op| {
            secret(&op.meta.env).map(|name| format!("has `{name}` in its environment"))
        });
        for (result, config) in self.images() {
            if let Some(name) = secret(&config.env) {
                self.tell(None, format!("{result} has `{name}` in its environment"));
            }
        }
    }

    /// Layers that the build itself makes; how many a base has is not always known.
    fn layers(&mut self, most: usize) {
        for (name, entry) in &self.plan.results {
            let Some(output) = entry.output else { continue };
            let mut counted = BTreeMap::new();
            let mut open = vec![output.node];
            // Of a merge, all inputs are layers; of anything else, what it changes.
            while let Some(node) = open.pop() {
                if counted.contains_key(&node) {
                    continue;
                }
                let at = self.plan.graph.node(node);
                let makes = matches!(at.op, Op::Exec(_) | Op::File(_) | Op::Diff(_));
                counted.insert(node, usize::from(makes));
                match &at.op {
                    Op::Merge(_) => open.extend(at.inputs.iter().map(|input| input.node)),
                    _ => {
                        let outputs = self.plan.graph.outputs(node);
                        let below = outputs.iter().find_map(|&output| scope::below(at, output));
                        open.extend(below.map(|input| input.node));
                    }
                }
            }
            let count: usize = counted.values().sum();
            if count > most {
                let result = result_name(name);
                self.tell(None, format!("{result} adds {count} layers to its base"));
            }
        }
    }

    fn platforms(&self) -> BTreeSet<String> {
        let results = self.plan.results.iter();
        results
            .map(|(name, entry)| match &entry.config {
                Some(config) if !config.os.is_empty() => {
                    let variant = match config.variant.as_str() {
                        "" => String::new(),
                        variant => format!("/{variant}"),
                    };
                    format!("{}/{}{variant}", config.os, config.architecture)
                }
                _ => name.clone(),
            })
            .collect()
    }

    fn images(&self) -> Vec<(String, Config)> {
        let results = self.plan.results.iter();
        results
            .filter_map(|(name, entry)| {
                let config = entry.config.as_ref()?.config.clone();
                Some((result_name(name), config))
            })
            .collect()
    }

    /// What is asked of image configs.
    fn configs(&mut self) {
        let images = self.images();
        if images.is_empty() {
            return self.tell(None, "no result is an image".to_owned());
        }
        for (result, config) in images {
            if let Some(problem) = config_problem(&self.assertion.rule, &config) {
                self.tell(None, format!("{result} {problem}"));
            }
        }
    }
}

fn config_problem(rule: &Rule, config: &Config) -> Option<String> {
    let value = |found: Option<&str>, key: &str, expected: &Option<String>| match (found, expected)
    {
        (None, _) => Some(format!("has no `{key}`")),
        (Some(found), Some(expected)) if found != expected => {
            Some(format!("has `{key}` as `{found}`"))
        }
        _ => None,
    };
    match rule {
        Rule::ImageUserNotRoot => is_root(&config.user).then(|| "runs as root".to_owned()),
        Rule::ImageUser(user) => (config.user != *user).then(|| match config.user.as_str() {
            "" => "names no user".to_owned(),
            user => format!("runs as `{user}`"),
        }),
        Rule::CommandSet => {
            let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
            (empty(&config.cmd) && empty(&config.entrypoint))
                .then(|| "has neither a command nor an entry point".to_owned())
        }
        Rule::HealthcheckSet => {
            let check = config.healthcheck.as_ref();
            let none = check.is_none_or(|check| {
                check.test.is_empty() || check.test.first().is_some_and(|word| word == "NONE")
            });
            none.then(|| "has no health check".to_owned())
        }
        Rule::Label(key, expected) => value(
            config.labels.get(key).map(String::as_str),
            &format!("label {key}"),
            expected,
        ),
        Rule::Env(name, expected) => {
            let set = config.env.iter().rev().find_map(|variable| {
                let (key, value) = variable.split_once('=')?;
                (key == name).then_some(value)
            });
            value(set, name, expected)
        }
        Rule::Exposes(port) => {
            (!config.exposed_ports.contains(port)).then(|| format!("does not expose `{port}`"))
        }
        _ => None,
    }
}

fn result_name(name: &str) -> String {
    match name {
        "" => "the image".to_owned(),
        name => format!("the image for `{name}`"),
    }
}

/// Whether `user[:group]` is root, as it is where nobody is named.
fn is_root(user: &str) -> bool {
    let user = user.split_once(':').map_or(user, |(user, _)| user);
    user.is_empty() || user == "root" || user.bytes().all(|digit| digit == b'0')
}

fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}
