//! Findings as a SARIF 2.1.0 log, which editors and code hosts read.

use kiln_frontend::diagnostic::{Diagnostic, Severity};
use kiln_frontend::dockerfile::lint::Rule;
use kiln_frontend::dockerfile::span::{LineIndex, Span};
use serde_json::{Value, json};

use crate::Findings;

/// Returns the log of one run over one file.
pub(super) fn log(findings: &Findings) -> Value {
    let codes = error_codes(findings);
    let mut rules: Vec<Value> = Rule::ALL.into_iter().map(rule).collect();
    rules.extend(codes.iter().map(|code| json!({ "id": code })));
    let file = File {
        text: &findings.text,
        index: LineIndex::new(&findings.text),
        uri: uri(&findings.file_name),
    };
    let results = findings.diagnostics.iter().map(|finding| {
        let own = Rule::ALL
            .iter()
            .position(|rule| rule.name() == finding.code);
        let place = own.or_else(|| {
            let code = codes.iter().position(|code| *code == finding.code)?;
            Some(Rule::ALL.len() + code)
        });
        file.result(finding, place.unwrap_or_default())
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "kiln",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "artifacts": [{
                "location": { "uri": file.uri },
                "sourceLanguage": "dockerfile",
            }],
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

/// Returns what the findings are called that belong to no rule, each once.
fn error_codes(findings: &Findings) -> Vec<&'static str> {
    let mut codes: Vec<&str> = findings
        .diagnostics
        .iter()
        .map(|finding| finding.code)
        .filter(|code| Rule::named(code).is_none())
        .collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

fn rule(rule: Rule) -> Value {
    let mut descriptor = json!({
        "id": rule.name(),
        "shortDescription": { "text": rule.description() },
        "defaultConfiguration": {
            "enabled": !rule.is_experimental(),
            "level": "warning",
        },
    });
    if let Some(url) = rule.url() {
        descriptor["helpUri"] = url.into();
    }
    descriptor
}

struct File<'f> {
    text: &'f str,
    index: LineIndex,
    uri: String,
}

impl File<'_> {
    fn result(&self, finding: &Diagnostic, rule_index: usize) -> Value {
        let message = match &finding.help {
            Some(help) => format!("{}\nhelp: {help}", finding.message),
            None => finding.message.clone(),
        };
        let level = match finding.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let mut result = json!({
            "ruleId": finding.code,
            "ruleIndex": rule_index,
            "level": level,
            "message": { "text": message },
            "locations": [{ "physicalLocation": self.place(finding.span) }],
        });
        if !finding.labels.is_empty() {
            let related = finding.labels.iter().enumerate().map(|(id, (span, text))| {
                json!({
                    "id": id,
                    "message": { "text": text },
                    "physicalLocation": self.place(*span),
                })
            });
            result["relatedLocations"] = related.collect::<Vec<_>>().into();
        }
        result
    }

    /// Lines and columns count from 1, columns in characters; the end is the place after the last.
    fn place(&self, span: Span) -> Value {
        let start = self.index.position(self.text, span.start);
        let end = self.index.position(self.text, span.end);
        json!({
            "artifactLocation": { "uri": self.uri, "index": 0 },
            "region": {
                "startLine": start.line,
                "startColumn": start.column,
                "endLine": end.line,
                "endColumn": end.column,
            },
        })
    }
}

/// Returns a path as a reference: relative as it is, absolute as a `file:` URI.
fn uri(path: &str) -> String {
    let scheme = if path.starts_with('/') { "file://" } else { "" };
    let mut uri = scheme.to_owned();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Findings {
        Findings {
            file_name: "dir with space/Dockerfile".to_owned(),
            text: text.into(),
            diagnostics: kiln_frontend::dockerfile::parse(text).diagnostics,
        }
    }

    /// What the schema of SARIF 2.1.0 says of an object: its members, those that must be there
    /// marked by `!`, each with what it is.
    fn check(value: &Value, shape: &str, path: &str) {
        let members: &[(&str, &str)] = match shape {
            "log" => &[("$schema", "uri"), ("version!", "2.1.0"), ("runs!", "[run")],
            "run" => &[
                ("tool!", "tool"),
                ("columnKind", "unicodeCodePoints"),
                ("artifacts", "[artifact"),
                ("results", "[result"),
            ],
            "tool" => &[("driver!", "driver")],
            "driver" => &[
                ("name!", "text"),
                ("semanticVersion", "text"),
                ("rules", "[rule"),
            ],
            "rule" => &[
                ("id!", "text"),
                ("shortDescription", "message"),
                ("helpUri", "uri"),
                ("defaultConfiguration", "configuration"),
            ],
            "configuration" => &[("enabled", "bool"), ("level", "level")],
            "artifact" => &[("location", "artifactLocation"), ("sourceLanguage", "text")],
            "artifactLocation" => &[("uri", "text"), ("index", "index")],
            "result" => &[
                ("ruleId", "text"),
                ("ruleIndex", "index"),
                ("level", "level"),
                ("message!", "message"),
                ("locations", "[location"),
                ("relatedLocations", "[location"),
            ],
            "message" => &[("text!", "text")],
            "location" => &[
                ("id", "index"),
                ("message", "message"),
                ("physicalLocation", "physical"),
            ],
            "physical" => &[
                ("artifactLocation!", "artifactLocation"),
                ("region", "region"),
            ],
            "region" => &[
                ("startLine", "count"),
                ("startColumn", "count"),
                ("endLine", "count"),
                ("endColumn", "count"),
            ],
            "text" => return assert!(value.as_str().is_some_and(|t| !t.is_empty()), "{path}"),
            "uri" => return assert!(value.as_str().unwrap().starts_with("https://"), "{path}"),
            "bool" => return assert!(value.is_boolean(), "{path}"),
            "index" => return assert!(value.is_u64(), "{path}"),
            "count" => return assert!(value.as_u64().unwrap() >= 1, "{path}"),
            "level" => {
                let levels = ["none", "note", "warning", "error"];
                return assert!(levels.contains(&value.as_str().unwrap()), "{path}");
            }
            constant => return assert_eq!(value, constant, "{path}"),
        };
        let object = value.as_object().unwrap();
        for (name, _) in members {
            if let Some(name) = name.strip_suffix('!') {
                assert!(object.contains_key(name), "{path} has no {name}");
            }
        }
        for (name, value) in object {
            let known = |(known, _): &&(&str, &str)| known.trim_end_matches('!') == name;
            let (_, shape) = members.iter().find(known).unwrap_or_else(|| {
                panic!("{path} has a {name}, which the schema does not have there")
            });
            match shape.strip_prefix('[') {
                Some(shape) => {
                    for (index, value) in value.as_array().unwrap().iter().enumerate() {
                        check(value, shape, &format!("{path}/{name}[{index}]"));
                    }
                }
                None => check(value, shape, &format!("{path}/{name}")),
            }
        }
    }

    #[test]
    fn logs_have_the_shape_of_the_schema() {
        for text in [
            "FROM a\n",
            "",
            "from a AS B\nENV k v\nEXPOSE 1/TCP\n",
            "FROM a\nCOPPY x\nRUN <<E\n",
            "FROM a AS x\nFROM b AS x\nCMD a\nCMD b\n",
        ] {
            let log = log(&findings(text));
            check(&log, "log", "");
            let rules = log["runs"][0]["tool"]["driver"]["rules"]
                .as_array()
                .unwrap();
            for result in log["runs"][0]["results"].as_array().unwrap() {
                let index = result["ruleIndex"].as_u64().unwrap() as usize;
                assert_eq!(rules[index]["id"], result["ruleId"]);
            }
        }
    }

    #[test]
    fn places_count_characters() {
        let log = log(&findings("FROM a\nENV é v \\\n  w\n"));
        let result = &log["runs"][0]["results"][0];
        assert_eq!(result["ruleId"], "LegacyKeyValueFormat");
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(
            place["artifactLocation"]["uri"],
            "dir%20with%20space/Dockerfile"
        );
        let expected = json!({"startLine": 2, "startColumn": 1, "endLine": 3, "endColumn": 4});
        assert_eq!(place["region"], expected);
    }

    #[test]
    fn paths_become_references() {
        assert_eq!(uri("a/b.c"), "a/b.c");
        assert_eq!(uri("/a b"), "file:///a%20b");
        assert_eq!(uri("é:?"), "%C3%A9%3A%3F");
    }
}
