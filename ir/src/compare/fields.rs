//! Fields of two ops or results, held against each other.
//!
//! Every field of the JSON form is walked, so a new one cannot be forgotten; only indices of inputs
//! are replaced by what they mean, since they change with what stands beside them.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::FieldChange;
use super::side::Side;
use crate::op::*;
use crate::{Input, Node, ResultEntry};

/// Lists whose differing parts are longer are compared place by place.
const MOST_ALIGNED: usize = 400;
/// The key of an object that stands for an input; no field is called so.
const REFERENCE: &str = "\0input";

pub(super) struct Fields<'a> {
    old: &'a Side<'a>,
    new: &'a Side<'a>,
    same_input: &'a dyn Fn(Option<Input>, Option<Input>) -> bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(
        old: &'a Side<'a>,
        new: &'a Side<'a>,
        same_input: &'a dyn Fn(Option<Input>, Option<Input>) -> bool,
    ) -> Fields<'a> {
        Fields {
            old,
            new,
            same_input,
        }
    }

    /// Tells what differs between two nodes of one kind.
    pub(super) fn node(&self, old: &Node, new: &Node, found: &mut Vec<FieldChange>) {
        self.compare("", &spelled(self.old, old), &spelled(self.new, new), found);
    }

    /// Tells what differs between two results.
    pub(super) fn result(
        &self,
        old: &ResultEntry,
        new: &ResultEntry,
        found: &mut Vec<FieldChange>,
    ) {
        let spell = |side: &Side<'_>, entry: &ResultEntry| {
            let attestations = entry
                .attestations
                .iter()
                .map(|(name, input)| (name.clone(), reference(side, Some(*input))));
            let mut value = json!({
                "output": reference(side, entry.output),
                "attestations": Value::Object(attestations.collect()),
                "metadata": entry.metadata,
                "config": Value::Null,
            });
            if let Some(config) = &entry.config {
                let mut flat = to_value(config);
                // How an image runs stands beside who made it: one list for people.
                if let Some(Value::Object(mut run)) = take(&mut flat, "config") {
                    if let Some(extra) = run.shift_remove("extra") {
                        run.insert("config-extra".to_owned(), extra);
                    }
                    if let Value::Object(flat) = &mut flat {
                        flat.extend(run);
                    }
                }
                value["config"] = flat;
            }
            value
        };
        self.compare("", &spell(self.old, old), &spell(self.new, new), found);
    }

    fn compare(&self, path: &str, old: &Value, new: &Value, found: &mut Vec<FieldChange>) {
        if old == new && !holds_reference(old) {
            return;
        }
        match (old, new) {
            (Value::Object(one), Value::Object(two)) => {
                if let (Some(old), Some(new)) = (input_of(one), input_of(two)) {
                    let old = old.map(|input| self.input(self.old, input));
                    let new = new.map(|input| self.input(self.new, input));
                    if !(self.same_input)(old, new) {
                        self.tell(
                            path,
                            Some(self.old.reference(old)),
                            Some(self.new.reference(new)),
                            found,
                        );
                    }
                    return;
                }
                let further = two.keys().filter(|key| !one.contains_key(*key));
                for key in one.keys().chain(further) {
                    let path = join(path, key);
                    match (one.get(key), two.get(key)) {
                        (Some(one), Some(two)) => self.compare(&path, one, two, found),
                        (one, two) => self.tell(&path, one.cloned(), two.cloned(), found),
                    }
                }
            }
            (Value::Array(one), Value::Array(two)) => self.lists(path, one, two, found),
            _ => self.tell(path, Some(old.clone()), Some(new.clone()), found),
        }
    }

    fn input(&self, side: &Side<'_>, (position, output): (usize, u32)) -> Input {
        Input {
            node: side.node_id(position),
            output,
        }
    }

    fn equal(&self, old: &Value, new: &Value) -> bool {
        let mut found = Vec::new();
        self.compare("", old, new, &mut found);
        found.is_empty()
    }

    fn lists(&self, path: &str, old: &[Value], new: &[Value], found: &mut Vec<FieldChange>) {
        let before = found.len();
        if let (Some(one), Some(two)) = (by_key(path, old), by_key(path, new)) {
            let mut told = BTreeSet::new();
            for (key, value) in &one {
                let path = element(path, key);
                told.insert(key);
                match two.iter().find(|(other, _)| other == key) {
                    Some((_, other)) => self.compare(&path, value, other, found),
                    None => self.tell(&path, Some((*value).clone()), None, found),
                }
            }
            for (key, value) in two.iter().filter(|(key, _)| !told.contains(key)) {
                self.tell(&element(path, key), None, Some((*value).clone()), found);
            }
            let order = |list: &[(String, &Value)]| -> Vec<String> {
                list.iter().map(|(key, _)| key.clone()).collect()
            };
            if found.len() == before && order(&one) != order(&two) {
                self.tell(
                    path,
                    Some(Value::Array(old.to_vec())),
                    Some(Value::Array(new.to_vec())),
                    found,
                );
            }
            return;
        }
        let texts = |list: &[Value]| list.iter().all(Value::is_string);
        if old.len() != new.len() && texts(old) && texts(new) {
            self.tell(
                path,
                Some(Value::Array(old.to_vec())),
                Some(Value::Array(new.to_vec())),
                found,
            );
            return;
        }
        for (one, two) in self.align(old, new) {
            match (one, two) {
                (Some(one), Some(two)) => {
                    self.compare(
                        &element(path, &two.to_string()),
                        &old[one],
                        &new[two],
                        found,
                    );
                }
                (Some(one), None) => {
                    let path = element(path, &one.to_string());
                    self.tell(&path, Some(old[one].clone()), None, found);
                }
                (None, Some(two)) => {
                    let path = element(path, &two.to_string());
                    self.tell(&path, None, Some(new[two].clone()), found);
                }
                (None, None) => {}
            }
        }
    }

    /// Says which elements are to be held against each other: equal ones in order, and between them
    /// what is of one kind.
    fn align(&self, old: &[Value], new: &[Value]) -> Vec<(Option<usize>, Option<usize>)> {
        if old.len() == new.len() {
            return (0..old.len()).map(|at| (Some(at), Some(at))).collect();
        }
        let start = old
            .iter()
            .zip(new)
            .take_while(|(one, two)| self.equal(one, two))
            .count();
        let end = old[start..]
            .iter()
            .rev()
            .zip(new[start..].iter().rev())
            .take_while(|(one, two)| self.equal(one, two))
            .count();
        let (one, two) = (&old[start..old.len() - end], &new[start..new.len() - end]);
        let mut common = Vec::new();
        if one.len() <= MOST_ALIGNED && two.len() <= MOST_ALIGNED {
            common = self.common(one, two);
        }
        common.push((one.len(), two.len()));
        let mut pairs: Vec<_> = (0..start).map(|at| (Some(at), Some(at))).collect();
        let (mut from_one, mut from_two) = (0, 0);
        for (to_one, to_two) in common {
            let mut rest: Vec<usize> = (from_two..to_two).collect();
            for (at, value) in one.iter().enumerate().take(to_one).skip(from_one) {
                let partner = rest
                    .iter()
                    .position(|&other| variant(value) == variant(&two[other]));
                let partner = partner.map(|place| rest.remove(place));
                pairs.push((Some(start + at), partner.map(|other| start + other)));
            }
            pairs.extend(rest.into_iter().map(|other| (None, Some(start + other))));
            if to_one < one.len() {
                pairs.push((Some(start + to_one), Some(start + to_two)));
            }
            (from_one, from_two) = (to_one + 1, to_two + 1);
        }
        let ends = (0..end).rev();
        pairs.extend(ends.map(|at| (Some(old.len() - 1 - at), Some(new.len() - 1 - at))));
        pairs
    }

    /// The longest run of equal elements in the same order.
    fn common(&self, old: &[Value], new: &[Value]) -> Vec<(usize, usize)> {
        let width = new.len() + 1;
        let mut longest = vec![0u32; (old.len() + 1) * width];
        let mut equal = vec![false; old.len() * new.len()];
        for one in (0..old.len()).rev() {
            for two in (0..new.len()).rev() {
                let is = self.equal(&old[one], &new[two]);
                equal[one * new.len() + two] = is;
                longest[one * width + two] = match is {
                    true => longest[(one + 1) * width + two + 1] + 1,
                    false => longest[(one + 1) * width + two].max(longest[one * width + two + 1]),
                };
            }
        }
        let (mut one, mut two, mut pairs) = (0, 0, Vec::new());
        while one < old.len() && two < new.len() {
            if equal[one * new.len() + two] {
                pairs.push((one, two));
                one += 1;
                two += 1;
            } else if longest[(one + 1) * width + two] >= longest[one * width + two + 1] {
                one += 1;
            } else {
                two += 1;
            }
        }
        pairs
    }

    fn tell(
        &self,
        path: &str,
        old: Option<Value>,
        new: Option<Value>,
        found: &mut Vec<FieldChange>,
    ) {
        found.push(FieldChange {
            field: path.to_owned(),
            old: old.map(|value| shown(self.old, value)),
            new: new.map(|value| shown(self.new, value)),
        });
    }
}

/// An op as its JSON form, without the level that says of which kind it is, and with what it reads
/// instead of indices.
fn spelled(side: &Side<'_>, node: &Node) -> Value {
    let index = |index: Option<u32>| {
        let input = index.and_then(|index| node.inputs.get(index as usize));
        reference(side, input.copied())
    };
    let mut value = match &node.op {
        Op::Source(source) => {
            let mut value = to_value(source);
            take(&mut value, node.op.kind()).unwrap_or(value)
        }
        op => {
            let mut value = to_value(op);
            take(&mut value, op.kind()).unwrap_or(value)
        }
    };
    match &node.op {
        Op::Source(_) => {}
        Op::Exec(op) => {
            for (mount, value) in op.mounts.iter().zip(elements(&mut value, "mounts")) {
                value["input"] = index(mount.input);
            }
            if let (Some(Value::Object(meta)), Value::Object(all)) =
                (take(&mut value, "meta"), &mut value)
            {
                let rest = std::mem::replace(all, meta);
                all.extend(rest);
            }
        }
        Op::File(op) => {
            let first = op
                .actions
                .first()
                .map_or(ActionInput::Scratch, |action| action.input);
            let tree = |number: usize, input: ActionInput| match input {
                ActionInput::Scratch => reference(side, None),
                ActionInput::Input(at) => index(Some(at)),
                ActionInput::Action(earlier) if earlier as usize + 1 == number => {
                    "the action before".into()
                }
                ActionInput::Action(earlier) => format!("action {earlier}").into(),
            };
            for (number, (action, value)) in op
                .actions
                .iter()
                .zip(elements(&mut value, "actions"))
                .enumerate()
            {
                spell_action(action, value, &|input| tree(number, input));
                let implied = crate::text::default_action_input(number, first);
                if action.input == implied {
                    take(value, "input");
                }
                // The number of an output moves with the actions before it.
                if number + 1 == op.actions.len() && action.output == Some(0) {
                    value["output"] = Value::Null;
                } else if action.output.is_none() {
                    value["output"] = "none".into();
                }
            }
            if let Value::Object(all) = &mut value {
                all.insert("tree".to_owned(), tree(0, first));
            }
        }
        Op::Merge(op) => {
            value["inputs"] = op.inputs.iter().map(|input| index(*input)).collect();
        }
        Op::Diff(op) => {
            value["lower"] = index(op.lower);
            value["upper"] = index(op.upper);
        }
        Op::Build(op) => {
            value["builder"] = index(op.builder);
            let inputs = op.inputs.iter();
            let inputs = inputs.map(|(name, input)| (name.clone(), index(Some(*input))));
            value["inputs"] = Value::Object(inputs.collect());
        }
        Op::Passthrough(op) => {
            value["outputs"] = op.outputs.iter().map(|input| index(Some(*input))).collect();
        }
    }
    if let Value::Object(all) = &mut value {
        all.insert("platform".to_owned(), to_value(&node.platform));
    }
    value
}

fn spell_action(action: &FileAction, value: &mut Value, tree: &dyn Fn(ActionInput) -> Value) {
    value["input"] = tree(action.input);
    value["secondary"] = match action.kind {
        FileActionKind::Copy(_) => tree(action.secondary),
        _ => Value::Null,
    };
    let Some(owner) = action.kind.owner() else {
        return;
    };
    let parts = [("user", &owner.user), ("group", &owner.group)];
    for (key, part) in parts {
        if let Some(UserRef::Name { name, input }) = part {
            value["kind"][action.kind.name()]["owner"][key] =
                json!({ "name": name, "input": tree(*input) });
        }
    }
}

fn to_value(value: &impl Serialize) -> Value {
    match serde_json::to_value(value) {
        Ok(value) => value,
        Err(error) => panic!("BUG: a part of a plan has no JSON form: {error}"),
    }
}

fn take(value: &mut Value, key: &str) -> Option<Value> {
    value.as_object_mut()?.shift_remove(key)
}

fn elements<'v>(value: &'v mut Value, key: &str) -> impl Iterator<Item = &'v mut Value> {
    let list = value.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// Stands for an input, by its node's position.
fn reference(side: &Side<'_>, input: Option<Input>) -> Value {
    let input = input.map(|input| json!([side.position(input.node), input.output]));
    let mut object = Map::new();
    object.insert(REFERENCE.to_owned(), json!([input]));
    Value::Object(object)
}

fn input_of(object: &Map<String, Value>) -> Option<Option<(usize, u32)>> {
    let [input] = object.get(REFERENCE)?.as_array()?.as_slice() else {
        return None;
    };
    let Some([position, output]) = input.as_array().map(Vec::as_slice) else {
        return Some(None);
    };
    let position = usize::try_from(position.as_u64()?).ok()?;
    Some(Some((position, u32::try_from(output.as_u64()?).ok()?)))
}

fn holds_reference(value: &Value) -> bool {
    match value {
        Value::Object(object) => input_of(object).is_some() || object.values().any(holds_reference),
        Value::Array(list) => list.iter().any(holds_reference),
        _ => false,
    }
}

/// A value as people see it: numbers of ops for what stands for them, and nothing that says nothing.
fn shown(side: &Side<'_>, value: Value) -> Value {
    match value {
        Value::Object(object) => match input_of(&object) {
            Some(input) => side.reference(input.map(|(position, output)| Input {
                node: side.node_id(position),
                output,
            })),
            None => {
                let parts = object.into_iter().filter(|(_, value)| !is_scratch(value));
                let parts = parts.map(|(key, value)| (key, shown(side, value)));
                Value::Object(parts.filter(|(_, value)| !says_nothing(value)).collect())
            }
        },
        Value::Array(list) => list.into_iter().map(|value| shown(side, value)).collect(),
        value => value,
    }
}

fn is_scratch(value: &Value) -> bool {
    value.as_object().and_then(input_of) == Some(None)
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

/// What tells elements of a list apart that are not known by their place; none where two are called
/// the same.
fn by_key<'v>(path: &str, list: &'v [Value]) -> Option<Vec<(String, &'v Value)>> {
    let field = path.rsplit('.').next().unwrap_or(path);
    let key = |value: &'v Value| -> Option<String> {
        match field {
            "env" => value
                .as_str()?
                .split_once('=')
                .map(|(name, _)| name.to_owned()),
            "mounts" => value.get("target")?.as_str().map(str::to_owned),
            "extra_hosts" => value.get("host")?.as_str().map(str::to_owned),
            "ulimits" | "secret_env" | "devices" => value.get("name")?.as_str().map(str::to_owned),
            _ => None,
        }
    };
    let keyed: Option<Vec<(String, &Value)>> = list
        .iter()
        .map(|value| Some((key(value)?, value)))
        .collect();
    let mut seen = BTreeSet::new();
    keyed.filter(|keyed| keyed.iter().all(|(key, _)| seen.insert(key.clone())))
}

/// Of what kind an element of a list is, as far as it matters for comparing it with another.
fn variant(value: &Value) -> Option<&str> {
    let kind = value.get("kind")?;
    match kind {
        Value::String(word) => Some(word),
        Value::Object(object) => object.keys().next().map(String::as_str),
        _ => None,
    }
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

fn element(path: &str, key: &str) -> String {
    match path.rsplit('.').next() {
        Some("env") => format!("{path}.{key}"),
        _ => format!("{path}[{key}]"),
    }
}
