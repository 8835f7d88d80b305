//! Finds out why a step has to run, from the parts of its key and of an older one.

use std::collections::{BTreeMap, BTreeSet};

use crate::reason::field_words;
use crate::{
    Candidate, Cause, ComparedPart, ComparedRecord, Comparison, DefinitionKey, Facts, Nearest,
    OpKey, Origin, Part, PinnedSource, Reason, Slot, StepName, TreeRef, Worker,
};

/// A step as it is now, for [`explain`].
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// Its definition key.
    pub definition: DefinitionKey,
    /// Its op.
    pub op: OpKey,
    /// Where it stands.
    pub slot: Option<&'a Slot>,
    /// What its keys are made of.
    pub facts: &'a Facts,
    /// Indices of the inputs that ran in this build.
    pub ran_inputs: &'a [u32],
}

/// Tells why a step that was not found has to run.
///
/// Files are not named yet: [`name_files`] does that.
pub fn explain(now: Now<'_>, nearest: &Nearest) -> Reason {
    if let Some(lost) = &nearest.lost_elsewhere {
        // Its key is the same: only what its inputs left can be something else.
        let causes = compare(now.facts, &lost.was.facts, now.ran_inputs, true);
        return match causes.is_empty() {
            true => Reason::LostElsewhere {
                from: lost.from.clone(),
                own: lost.own,
            },
            false => Reason::Changed(causes),
        };
    }
    let candidate = choose(now, nearest);
    if let Some(tombstone) = &nearest.tombstone
        && (now.ran_inputs.is_empty() || candidate.is_none())
    {
        return Reason::Evicted {
            rule: tombstone.rule.clone(),
            when: tombstone.when.clone(),
        };
    }
    let Some(was) = candidate else {
        return match &nearest.slot_tombstone {
            Some(tombstone) => Reason::Forgotten {
                rule: tombstone.rule.clone(),
                when: tombstone.when.clone(),
            },
            None => Reason::New,
        };
    };
    let in_place = was.slot.as_ref() == now.slot;
    let causes = compare(now.facts, &was.facts, now.ran_inputs, in_place);
    match (causes.is_empty(), &nearest.tombstone) {
        (false, _) => Reason::Changed(causes),
        (true, Some(tombstone)) => Reason::Evicted {
            rule: tombstone.rule.clone(),
            when: tombstone.when.clone(),
        },
        (true, None) => Reason::ContentGone,
    }
}

/// The record to compare with: the one of the same place, unless the step was moved there.
pub(crate) fn choose<'a>(now: Now<'_>, nearest: &'a Nearest) -> Option<&'a Candidate> {
    let lineage = now.slot.map(|slot| &slot.lineage);
    let of_lineage = |candidate: &&Candidate| {
        lineage.is_none() || candidate.slot.as_ref().map(|slot| &slot.lineage) == lineage
    };
    let same_slot = nearest.same_slot.iter().filter(of_lineage);
    // Of equals the first is taken, which is the latest.
    let same_slot =
        same_slot.min_by_key(|candidate| (candidate.op != now.op, distance(now, candidate)));
    let same_op = nearest.same_op.as_ref().filter(of_lineage);
    match same_slot {
        Some(candidate) if candidate.op == now.op => Some(candidate),
        _ => same_op.or(same_slot),
    }
}

/// How many parts of two keys are not the same.
fn distance(now: Now<'_>, was: &Candidate) -> usize {
    let beyond = |parts: &[Part], others: &[Part]| {
        // What an input holds is known of some only once they ran.
        let compared = parts
            .iter()
            .filter(|part| !matches!(part, Part::Content { .. }));
        compared.filter(|part| !others.contains(part)).count()
    };
    beyond(&now.facts.parts, &was.facts.parts) + beyond(&was.facts.parts, &now.facts.parts)
}

/// Tells what differs between two steps, the most telling first.
///
/// `ran_inputs` are the indices of the inputs that ran in this build; `in_place` says that both are
/// the same step of the same Dockerfile, so that an input of another name was edited, not moved.
pub fn compare(now: &Facts, was: &Facts, ran_inputs: &[u32], in_place: bool) -> Vec<Cause> {
    let (now_parts, was_parts) = (Parts::of(now), Parts::of(was));
    let mut causes = Vec::new();
    let instruction = now.step.text != was.step.text
        && (now_parts.kind != was_parts.kind
            || now_parts.fields != was_parts.fields
            || now_parts.files != was_parts.files);
    if instruction {
        causes.push(Cause::Instruction {
            line: now.step.line,
            was: was.step.text.clone(),
            now: now.step.text.clone(),
        });
    } else {
        causes.extend(now_parts.changed_files(&was_parts));
    }
    // Where another kind of step stands now, its environment is no change but part of what it is.
    let same_kind = now_parts.kind.map(|(kind, _)| kind) == was_parts.kind.map(|(kind, _)| kind);
    if same_kind {
        causes.extend(now_parts.changed_env(&was_parts));
    }
    if !instruction {
        causes.extend(now_parts.changed_fields(&was_parts));
    }
    if let (Some(now), Some(was)) = (now_parts.source, was_parts.source)
        && now.1 != was.1
    {
        causes.push(source_cause(now.0, was.0));
    }
    if now_parts.platform != was_parts.platform {
        causes.push(Cause::Platform {
            old: was_parts.platform.unwrap_or("none").to_owned(),
            new: now_parts.platform.unwrap_or("none").to_owned(),
        });
    }
    let inputs = now_parts.changed_inputs(&was_parts, ran_inputs, in_place);
    let own = !causes.is_empty();
    causes.extend(
        inputs
            .into_iter()
            .filter(|input| !(own && input.same_content))
            .map(|input| input.cause),
    );
    if let (Some((kind, now)), Some((was_kind, was))) = (now_parts.kind, was_parts.kind)
        && kind == was_kind
        && now != was
    {
        causes.push(Cause::Revision {
            kind: kind.to_owned(),
            old: was,
            new: now,
        });
    }
    causes
}

/// Puts all parts of a step's key beside those of the record that its reason goes by.
pub fn lay_out(now: Now<'_>, nearest: &Nearest) -> Comparison {
    let lost = nearest.lost_elsewhere.as_ref().map(|lost| &lost.was);
    let Some(was) = lost.or_else(|| choose(now, nearest)) else {
        return Comparison::default();
    };
    let (now_values, was_values) = (values(now.facts), values(&was.facts));
    let gone = was_values
        .iter()
        .filter(|(what, _)| now_values.iter().all(|(here, _)| here != what));
    let names = now_values.iter().chain(gone).map(|(what, _)| what);
    let find = |values: &[(String, String)], what: &str| {
        let found = values.iter().rev().find(|(name, _)| name == what);
        found.map(|(_, value)| value.clone())
    };
    let mut seen = BTreeSet::new();
    let parts = names.filter(|what| seen.insert(*what)).filter_map(|what| {
        let (old, new) = (find(&was_values, what), find(&now_values, what));
        // What an input holds is known of some only once they ran; that is no difference.
        let is_content = what.starts_with("bytes of ");
        if is_content && (old.is_none() || new.is_none()) {
            return None;
        }
        Some(match old == new {
            true => ComparedPart {
                what: what.clone(),
                same: true,
                old: None,
                new: None,
            },
            false => ComparedPart {
                what: what.clone(),
                same: false,
                old,
                new,
            },
        })
    });
    Comparison {
        with: Some(ComparedRecord {
            step: was.facts.step.clone(),
            same_slot: was.slot.as_ref() == now.slot,
            created_unix_nanos: was.created_unix_nanos,
        }),
        parts: parts.collect(),
    }
}

/// The parts of a key by name, as people read them.
fn values(facts: &Facts) -> Vec<(String, String)> {
    let from = |from: &Origin| match from {
        Origin::Step(name) => name.to_string(),
        Origin::Source(source) => source.reference.clone(),
    };
    let origins: BTreeMap<u32, String> = facts
        .parts
        .iter()
        .filter_map(|part| match part {
            Part::Input {
                index,
                from: origin,
                ..
            } => Some((*index, from(origin))),
            _ => None,
        })
        .collect();
    let digest = |digest: &[u8; 32]| crate::content::Hex(&digest[..6]).to_string();
    let value = |part: &Part| match part {
        Part::Kind { kind, revision } => (
            "kind of step".to_owned(),
            format!("{kind}, revision {revision}"),
        ),
        Part::Platform(platform) => ("platform".to_owned(), platform.clone()),
        Part::Field { name, value } => (field_words(name).into_owned(), value.join(" ")),
        Part::Env {
            name,
            value,
            build_arg: true,
        } => (format!("build argument {name}"), value.clone()),
        Part::Env { name, value, .. } => (format!("ENV {name}"), value.clone()),
        Part::Source { source, .. } => (format!("source {}", source.reference), source.pin.clone()),
        Part::Input {
            index,
            output,
            definition,
            from: origin,
        } => {
            let pin = match origin {
                Origin::Source(source) => source.pin.clone(),
                Origin::Step(_) => digest(definition),
            };
            let output = match output {
                0 => String::new(),
                output => format!(", output {output}"),
            };
            (
                format!("input {index}"),
                format!("{} ({pin}{output})", from(origin)),
            )
        }
        Part::Files {
            source, selected, ..
        } => (format!("files of {source}"), digest(&selected.digest)),
        Part::Content {
            index,
            digest: held,
        } => {
            let of = origins.get(index).map_or("", String::as_str);
            (format!("bytes of {of} (input {index})"), digest(held))
        }
    };
    facts.parts.iter().map(value).collect()
}

/// Asks the worker which files changed, for every cause that says that some did.
///
/// A cause stays as it is where the worker can't tell any more.
pub async fn name_files<W: Worker>(worker: &W, reason: Reason) -> Reason {
    let Reason::Changed(mut causes) = reason else {
        return reason;
    };
    for cause in &mut causes {
        if let Cause::Files {
            changes,
            more,
            old: Some(old),
            new: Some(new),
            ..
        } = cause
            && let Ok(Some(diff)) = worker.diff_trees(*old, *new, MOST_FILES).await
        {
            *changes = diff.changes;
            *more = diff.more;
        }
    }
    Reason::Changed(causes)
}

/// So many changed files are asked for.
const MOST_FILES: usize = 16;

/// Parts by what they are about.
#[derive(Default)]
struct Parts<'a> {
    kind: Option<(&'a str, u32)>,
    platform: Option<&'a str>,
    fields: BTreeMap<&'a str, &'a [String]>,
    /// Value, and whether it is a build argument. Of several of one name the last counts.
    env: BTreeMap<&'a str, (&'a str, bool)>,
    source: Option<(&'a PinnedSource, &'a [u8; 32])>,
    inputs: BTreeMap<u32, (u32, &'a [u8; 32], &'a Origin)>,
    files: BTreeMap<u32, FilesPart<'a>>,
    contents: BTreeMap<u32, &'a [u8; 32]>,
}

#[derive(Clone, Copy)]
struct FilesPart<'a> {
    source: &'a str,
    digest: &'a [u8; 32],
    tree: Option<TreeRef>,
}

impl PartialEq for FilesPart<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

struct InputCause {
    cause: Cause,
    /// What is seen of the input is what was seen then.
    same_content: bool,
}

impl<'a> Parts<'a> {
    fn of(facts: &'a Facts) -> Self {
        let mut parts = Parts::default();
        for part in &facts.parts {
            match part {
                Part::Kind { kind, revision } => parts.kind = Some((kind, *revision)),
                Part::Platform(platform) => parts.platform = Some(platform),
                Part::Field { name, value } => {
                    parts.fields.insert(name, value);
                }
                Part::Env {
                    name,
                    value,
                    build_arg,
                } => {
                    parts.env.insert(name, (value, *build_arg));
                }
                Part::Source { source, identity } => parts.source = Some((source, identity)),
                Part::Input {
                    index,
                    output,
                    definition,
                    from,
                } => {
                    parts.inputs.insert(*index, (*output, definition, from));
                }
                Part::Files {
                    index,
                    source,
                    selected,
                } => {
                    let files = FilesPart {
                        source,
                        digest: &selected.digest,
                        tree: selected.tree,
                    };
                    parts.files.insert(*index, files);
                }
                Part::Content { index, digest } => {
                    parts.contents.insert(*index, digest);
                }
            }
        }
        parts
    }

    fn changed_files(&self, was: &Parts<'_>) -> Vec<Cause> {
        let changed = self.files.iter().filter_map(|(index, now)| {
            let was = was.files.get(index)?;
            (was != now).then(|| Cause::Files {
                source: now.source.to_owned(),
                changes: Vec::new(),
                more: 0,
                old: was.tree,
                new: now.tree,
            })
        });
        changed.collect()
    }

    fn changed_env(&self, was: &Parts<'_>) -> Vec<Cause> {
        let mut args = Vec::new();
        let mut env = Vec::new();
        for (name, old, new) in changes(&was.env, &self.env) {
            let name = name.to_string();
            let is_arg =
                old.or(new).is_some_and(|(_, arg)| *arg) || new.is_some_and(|(_, arg)| *arg);
            let value = |side: Option<&(&str, bool)>| side.map(|(value, _)| (*value).to_owned());
            let (old, new) = (value(old), value(new));
            if old == new {
                continue;
            }
            if is_arg {
                args.push(Cause::BuildArg { name, old, new });
            } else {
                env.push(Cause::Env { name, old, new });
            }
        }
        args.extend(env);
        args
    }

    fn changed_fields(&self, was: &Parts<'_>) -> Vec<Cause> {
        let changed = changes(&was.fields, &self.fields).map(|(name, old, new)| {
            let old = old.map(|value| value.join(" "));
            let new = new.map(|value| value.join(" "));
            match self.mount(name).or_else(|| was.mount(name)) {
                Some((target, option)) => Cause::Mount {
                    target,
                    option: option.to_owned(),
                    old,
                    new,
                },
                None => Cause::Field {
                    name: (*name).to_owned(),
                    old,
                    new,
                },
            }
        });
        changed.collect()
    }

    /// The target of the mount that a field belongs to, and the option that it is.
    fn mount(&self, field: &str) -> Option<(String, &'static str)> {
        let (mount, option) = field.split_once("].")?;
        mount.strip_prefix("mounts[")?;
        let option = match option {
            "input" => "from",
            "selector" => "source",
            "output" => "output",
            "readonly" => "read-only",
            "kind" => "type",
            "size_bytes" => "size",
            "id" => "id",
            "owner" => "owner and mode",
            "optional" => "optional",
            _ => return None,
        };
        let target = self.fields.get(format!("{mount}].target").as_str())?;
        Some((target.join(""), option))
    }

    fn changed_inputs(
        &self,
        was: &Parts<'_>,
        ran_inputs: &[u32],
        in_place: bool,
    ) -> Vec<InputCause> {
        let mut causes = Vec::new();
        for (index, &(output, definition, from)) in &self.inputs {
            let Some(&(was_output, was_definition, was_from)) = was.inputs.get(index) else {
                continue;
            };
            let ran = ran_inputs.contains(index);
            let same_definition = (output, definition) == (was_output, was_definition);
            let contents = (self.contents.get(index), was.contents.get(index));
            let same_content = matches!(contents, (Some(now), Some(was)) if now == was);
            let other_content = matches!(contents, (Some(now), Some(was)) if now != was);
            // What ran, and left what it had left before, is no cause.
            if same_definition && !other_content && (!ran || same_content) {
                continue;
            }
            let cause = match (from, was_from) {
                (Origin::Source(now), Origin::Source(was)) => source_cause(now, was),
                (Origin::Step(now), Origin::Step(was))
                    if now.text == was.text || (in_place && ran) =>
                {
                    if ran {
                        Cause::ParentRan {
                            parent: now.clone(),
                        }
                    } else {
                        Cause::ParentChanged {
                            parent: now.clone(),
                        }
                    }
                }
                _ => Cause::Order {
                    now: origin_name(from),
                    was: origin_name(was_from),
                },
            };
            causes.push(InputCause {
                cause,
                same_content,
            });
        }
        causes
    }
}

/// The entries that two maps do not share, by key: old value and new one.
fn changes<'m, K: Ord, V: PartialEq>(
    old: &'m BTreeMap<K, V>,
    new: &'m BTreeMap<K, V>,
) -> impl Iterator<Item = (&'m K, Option<&'m V>, Option<&'m V>)> {
    let gone = old.keys().filter(|key| !new.contains_key(key));
    new.keys()
        .chain(gone)
        .map(|key| (key, old.get(key), new.get(key)))
        .filter(|(_, old, new)| old != new)
}

fn source_cause(now: &PinnedSource, was: &PinnedSource) -> Cause {
    if now.reference == was.reference {
        Cause::Source {
            reference: now.reference.clone(),
            base: now.base,
            old: was.pin.clone(),
            new: now.pin.clone(),
        }
    } else {
        Cause::OtherSource {
            base: now.base,
            old: was.reference.clone(),
            new: now.reference.clone(),
        }
    }
}

fn origin_name(origin: &Origin) -> StepName {
    match origin {
        Origin::Step(name) => name.clone(),
        Origin::Source(source) => StepName {
            text: source.reference.clone(),
            line: None,
        },
    }
}
