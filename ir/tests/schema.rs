//! What is written in JSON is what docs/formats/plan.schema.json says, and the schema says nothing more.

#![allow(clippy::unwrap_used)]

mod plans;

use std::collections::BTreeSet;

use kiln_ir::json::to_json;
use proptest::prelude::*;
use serde_json::{Map, Value};

const SCHEMA: &str = include_str!("../../docs/formats/plan.schema.json");
const GOLDEN: &str = include_str!("golden/plan_json.snap");
/// What the command printed.
const PRINTED: &str = include_str!("../../tests/e2e/snapshots/plans.json.snap");

/// A validator of as much of JSON Schema as the schema uses; any other keyword is a failure.
struct Schema {
    root: Value,
}

impl Schema {
    fn new() -> Schema {
        Schema {
            root: serde_json::from_str(SCHEMA).unwrap(),
        }
    }

    /// Says where `value` is not as it should be; `seen` takes the names of properties that were there.
    fn check(&self, value: &Value, seen: &mut BTreeSet<String>) -> Result<(), String> {
        self.against(&self.root, "", value, "$", seen)
    }

    fn against(
        &self,
        schema: &Value,
        name: &str,
        value: &Value,
        place: &str,
        seen: &mut BTreeSet<String>,
    ) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{place}: {what}: {value}"));
        for (keyword, rule) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "$schema" | "$id" | "title" | "description" | "$defs" => {}
                // Looked at with `properties`.
                "additionalProperties" if schema.get("properties").is_some() => {}
                "$ref" => {
                    let target = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    let definition = &self.root["$defs"][target];
                    assert!(definition.is_object(), "no definition `{target}`");
                    self.against(definition, target, value, place, seen)?;
                }
                "type" if !is_of_type(rule, value) => return wrong("another type"),
                "type" => {}
                "const" if rule != value => return wrong("another constant"),
                "const" => {}
                "enum" if !rule.as_array().unwrap().contains(value) => {
                    return wrong("no such word");
                }
                "enum" => {}
                "minimum" | "maximum" => {
                    let (Some(number), Some(limit)) = (value.as_i64(), rule.as_i64()) else {
                        continue;
                    };
                    if (keyword == "minimum" && number < limit)
                        || (keyword == "maximum" && number > limit)
                    {
                        return wrong("out of range");
                    }
                }
                "required" => {
                    for key in rule.as_array().unwrap() {
                        if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                            return wrong("a property is missing");
                        }
                    }
                }
                "properties" => {
                    let rules = rule.as_object().unwrap();
                    self.properties(schema, rules, name, value, place, seen)?;
                }
                "additionalProperties" => {
                    for (key, value) in value.as_object().into_iter().flatten() {
                        self.against(rule, "", value, &format!("{place}.{key}"), seen)?;
                    }
                }
                "items" => {
                    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                        self.against(rule, "", value, &format!("{place}[{index}]"), seen)?;
                    }
                }
                "oneOf" => {
                    let mut found = Vec::new();
                    let mut reasons = Vec::new();
                    for rule in rule.as_array().unwrap() {
                        let mut inner = BTreeSet::new();
                        match self.against(rule, name, value, place, &mut inner) {
                            Ok(()) => found.push(inner),
                            Err(reason) => reasons.push(reason),
                        }
                    }
                    match found.pop() {
                        Some(inner) if found.is_empty() => seen.extend(inner),
                        Some(_) => return wrong("several alternatives"),
                        None => return Err(reasons.join("; ")),
                    }
                }
                other => panic!("the keyword `{other}` is not looked at"),
            }
        }
        Ok(())
    }

    fn properties(
        &self,
        schema: &Value,
        rules: &Map<String, Value>,
        name: &str,
        value: &Value,
        place: &str,
        seen: &mut BTreeSet<String>,
    ) -> Result<(), String> {
        assert_eq!(schema["additionalProperties"], false, "{name} is open");
        for (key, value) in value.as_object().into_iter().flatten() {
            let place = format!("{place}.{key}");
            let Some(rule) = rules.get(key) else {
                return Err(format!("{place}: no such property"));
            };
            seen.insert(format!("{name}.{key}"));
            self.against(rule, "", value, &place, seen)?;
        }
        Ok(())
    }

    /// The properties of all definitions.
    fn all(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let definitions = self.root["$defs"].as_object().unwrap();
        let definitions = definitions
            .iter()
            .map(|(name, schema)| (name.as_str(), schema));
        for (name, schema) in definitions.chain([("", &self.root)]) {
            let alternatives = schema["oneOf"].as_array().into_iter().flatten();
            for schema in alternatives.chain([schema]) {
                let properties = schema["properties"].as_object().into_iter().flatten();
                all.extend(properties.map(|(key, _)| format!("{name}.{key}")));
            }
        }
        all
    }
}

fn is_of_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("the type `{other}` is not known"),
    };
    match rule {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    }
}

fn document(snapshot: &str) -> Value {
    serde_json::from_str(snapshot.splitn(3, "---\n").nth(2).unwrap()).unwrap()
}

#[test]
fn what_the_command_prints_is_valid() {
    let schema = Schema::new();
    assert_eq!(
        schema.check(&document(PRINTED), &mut BTreeSet::new()),
        Ok(())
    );
}

#[test]
fn every_field_is_in_the_schema_and_nothing_else_is() {
    let schema = Schema::new();
    let mut seen = BTreeSet::new();
    assert_eq!(schema.check(&document(GOLDEN), &mut seen), Ok(()));
    // The golden file has every field of every op, but no display data and only one kind of pin.
    let unseen: Vec<String> = schema.all().difference(&seen).cloned().collect();
    insta::assert_snapshot!(unseen.join("\n"));
}

#[test]
fn what_is_no_plan_is_not_valid() {
    let schema = Schema::new();
    let check = |from: &str, to: &str| {
        let text = document(GOLDEN).to_string();
        assert!(text.contains(from), "{from}");
        let value = serde_json::from_str(&text.replacen(from, to, 1)).unwrap();
        let found = schema.check(&value, &mut BTreeSet::new());
        assert!(found.is_err(), "{from} -> {to}");
        assert!(
            kiln_ir::json::from_json(&value.to_string()).is_err(),
            "{from} -> {to}"
        );
    };
    check("\"kiln.plan/0\"", "\"kiln.plan/1\"");
    check("\"reference\"", "\"ref\"");
    check("\"layer_limit\":3", "\"layer_limit\":-3");
    check("\"layer_limit\":3", "\"layer_limit\":\"3\"");
    check("\"resolve_mode\":\"pull\"", "\"resolve_mode\":\"push\"");
    check("\"image\":{", "\"picture\":{");
    check(
        "\"attrs\":{\"image.new\":\"x\"}",
        "\"attrs\":{\"image.new\":1}",
    );
    check("\"args\":[\"/bin/sh\"", "\"args\":[7");
    check("\"kind\":{\"mkdir\"", "\"sort\":{\"mkdir\"");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_is_valid(plan in plans::plan()) {
        let document = serde_json::from_str(&to_json(&plan)).unwrap();
        let found = Schema::new().check(&document, &mut BTreeSet::new());
        prop_assert_eq!(found, Ok(()));
    }
}
