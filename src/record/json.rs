//! A remembered build for other programs: docs/formats/build-json.md.

use std::time::SystemTime;

use kiln_solver::{Cause, Reason};
use serde_json::{Map, Value, json};

use super::{BuildRecord, StepRecord};
use crate::explanation::Explanation;

/// What [`BuildRecord::to_json`] writes.
const VERSION: &str = "kiln.build/0";

impl BuildRecord {
    /// The build with the steps of these indices, for other programs.
    pub fn to_json(&self, steps: &[usize]) -> Value {
        let (cached, all) = self.hits();
        let ids = |indices: &[usize]| -> Vec<usize> { indices.iter().map(|i| i + 1).collect() };
        let step = |&index: &usize| step(index, &self.steps[index]);
        let exports = self.details.exports.iter().map(|export| {
            json!({
                "what": export.what,
                "started_us": export.started_micros,
                "took_us": export.took_micros,
            })
        });
        json!({
            "version": VERSION,
            "id": self.id,
            "started_ms": millis(self.started),
            "took_us": u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            "outcome": self.outcome(),
            "result": self.result,
            "context": self.context,
            "dockerfile": self.dockerfile,
            "target": self.target,
            "platforms": self.details.platforms,
            "arguments": self.details.arguments,
            "names": self.tags,
            "kiln": self.details.kiln,
            "step_count": all,
            "cached_count": cached,
            "written_bytes": self.total(|step| step.written_bytes),
            "pulled_bytes": self.total(|step| step.pulled_bytes),
            "critical_path": ids(&self.critical_path()),
            "exports": exports.collect::<Vec<_>>(),
            "steps": steps.iter().map(step).collect::<Vec<_>>(),
        })
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn step(index: usize, step: &StepRecord) -> Value {
    let mut value = json!({
        "step": index + 1,
        "stage": step.stage,
        "text": step.text,
        "line": step.line,
        "status": step.status,
        "reason": step.reason,
        "started_us": step.started_micros,
        "took_us": step.ran_micros,
        "written_bytes": step.written_bytes,
        "pulled_bytes": step.pulled_bytes,
        "output_bytes": step.output_bytes,
        "needs": step.needs.iter().map(|need| need + 1).collect::<Vec<_>>(),
    });
    if let Value::Object(fields) = &mut value {
        explain(fields, &step.explanation);
    }
    value
}

fn explain(fields: &mut Map<String, Value>, explanation: &Explanation) {
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("found_by", json!(explanation.road));
    let (why, causes) = match &explanation.reason {
        None => (Value::Null, Vec::new()),
        Some(Reason::New) => ("new".into(), Vec::new()),
        Some(Reason::Forgotten { rule, when }) => ("forgotten".into(), vec![lost(rule, when)]),
        Some(Reason::Evicted { rule, when }) => ("evicted".into(), vec![lost(rule, when)]),
        Some(Reason::Forced { by }) => ("forced".into(), vec![json!({ "by": by })]),
        Some(Reason::SameBytes) => ("same-bytes".into(), Vec::new()),
        Some(Reason::SameInput) => ("same-input".into(), Vec::new()),
        Some(Reason::Imported { .. }) => ("imported".into(), Vec::new()),
        Some(Reason::ContentGone) => ("content-gone".into(), Vec::new()),
        Some(Reason::LostElsewhere { from, own }) => (
            "lost-elsewhere".into(),
            vec![json!({ "from": from, "own": own })],
        ),
        Some(Reason::Changed(causes)) => ("changed".into(), causes.iter().map(cause).collect()),
    };
    put("why", why);
    put("causes", causes.into());
    put(
        "compared_with",
        match explanation
            .comparison
            .as_ref()
            .and_then(|c| c.with.as_ref())
        {
            Some(with) => json!({
                "text": with.step.text,
                "line": with.step.line,
                "same_place": with.same_slot,
                "recorded_ms": with.created_unix_nanos / 1_000_000,
            }),
            None => Value::Null,
        },
    );
    let parts = explanation.comparison.iter().flat_map(|c| &c.parts);
    let parts = parts.map(|part| match part.same {
        true => json!({ "part": part.what, "same": true }),
        false => json!({ "part": part.what, "same": false, "old": part.old, "new": part.new }),
    });
    put("parts", parts.collect::<Vec<_>>().into());
    put(
        "recorded_ms",
        json!(explanation.record.map(|record| record.created_unix_millis)),
    );
}

fn lost(rule: &str, when: &str) -> Value {
    json!({ "rule": rule, "when": when })
}

/// One cause, flat, with what it says in words.
fn cause(cause: &Cause) -> Value {
    // An enum in serde's form is an object with one entry: its name.
    let Ok(Value::Object(named)) = serde_json::to_value(cause) else {
        return json!({ "words": cause.to_string() });
    };
    let mut flat = Map::new();
    for (kind, fields) in named {
        flat.insert("kind".to_owned(), kind.into());
        if let Value::Object(fields) = fields {
            flat.extend(fields);
        }
    }
    flat.insert("words".to_owned(), cause.to_string().into());
    Value::Object(flat)
}
