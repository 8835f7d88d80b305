//! The questions that can be asked, as a list.

use serde::Serialize;

use super::location::pretty;

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Subrequest {
    /// What it is called; `frontend.` in front is left out where people write it.
    pub name: &'static str,
    /// Of the answer's form.
    pub version: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// What is asked.
    pub description: &'static str,
    opts: &'static [Named],
    inputs: Option<&'static [Named]>,
    metadata: &'static [Named],
    refs: Option<&'static [Named]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

const fn named(name: &'static str) -> Named {
    Named {
        name,
        description: "",
    }
}

const JSON: Named = named("result.json");
const TEXT: Named = named("result.txt");
const STATUS: Named = named("result.statuscode");
const TARGET: Named = Named {
    name: "target",
    description: "Target build stage",
};

const fn request(
    name: &'static str,
    description: &'static str,
    opts: &'static [Named],
    metadata: &'static [Named],
) -> Subrequest {
    Subrequest {
        name,
        version: "1.0.0",
        kind: "rpc",
        description,
        opts,
        inputs: None,
        metadata,
        refs: None,
    }
}

const REQUESTS: [Subrequest; 5] = [
    request(
        "frontend.outline",
        "List all parameters current build target supports",
        &[TARGET],
        &[JSON, TEXT],
    ),
    request(
        "frontend.targets",
        "List all targets current build supports",
        &[],
        &[JSON, TEXT],
    ),
    request(
        "frontend.lint",
        "Lint a Dockerfile",
        &[],
        &[JSON, TEXT, STATUS],
    ),
    request(
        "frontend.context",
        "List what the build sees of its context, and why",
        &[],
        &[JSON, TEXT],
    ),
    request(
        "frontend.subrequests.describe",
        "List available subrequest types",
        &[],
        &[JSON, TEXT],
    ),
];

/// Returns the questions that can be asked.
pub fn subrequests() -> &'static [Subrequest] {
    &REQUESTS
}

/// Returns the result of BuildKit's `frontend.subrequests.describe`.
pub fn subrequests_json() -> String {
    pretty(&REQUESTS)
}
