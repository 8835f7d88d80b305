//! SLSA provenance v1 of a build, with the fields that BuildKit's has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_executor::{Predicate, host_platform, rfc3339};
use kiln_frontend::lower::NoCache;
use kiln_ir::{MountKind, NetworkMode, NodeId, Op, Pin, Plan, SourceOp};
use serde_json::{Map, Value, json};

use super::source::{dependencies, digest, uri};
use super::{Provenance, ProvenanceMode};
use crate::BuildRequest;
use crate::arguments::{is_proxy, without_any_credentials, without_credentials};

/// The type of the predicate.
pub(crate) const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// What kind of build this is, and so how the parameters are to be read: docs/attestations.md.
const BUILD_TYPE: &str = "urn:kiln:build:v0";

/// Who builds, where the caller names nobody.
const BUILDER: &str = "urn:kiln:builder";

/// A build that has its results, as far as provenance tells of it.
pub(crate) struct Story<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) plan: &'a Plan,
    /// The identities that sources turned out to have.
    pub(crate) pins: BTreeMap<NodeId, Pin>,
    /// Where the context came from, and what it was there; none for a directory of the caller.
    pub(crate) context: Option<&'a (SourceOp, Option<Pin>)>,
    /// What version control says of it.
    pub(crate) vcs: &'a BTreeMap<String, String>,
    /// The Dockerfile as people know it.
    pub(crate) file: &'a str,
    pub(crate) id: &'a str,
    pub(crate) started: SystemTime,
    pub(crate) finished: SystemTime,
}

/// Writes the predicate.
pub(crate) fn predicate(story: &Story<'_>, asked: &Provenance) -> Predicate {
    let is_max = asked.mode == ProvenanceMode::Max;
    let (dependencies, complete) = dependencies(story.plan, &story.pins);
    let request = request(story, is_max);
    let mut internal = json!({ "builderPlatform": host_platform().to_string() });
    if is_max {
        internal["buildConfig"] = json!({ "plan": plan(story.plan) });
    }
    let builder = match asked.builder_id.as_str() {
        "" => BUILDER,
        id => id,
    };
    let predicate = json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "configSource": config_source(story),
                "request": request.value,
            },
            "internalParameters": internal,
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": {
                "id": builder,
                "version": { "kiln": env!("CARGO_PKG_VERSION") },
            },
            "metadata": metadata(story, asked, complete, request.complete),
        },
    });
    Predicate {
        kind: PROVENANCE.to_owned(),
        json: predicate.to_string(),
        inline_only: asked.inline_only,
    }
}

fn metadata(
    story: &Story<'_>,
    asked: &Provenance,
    complete: bool,
    request_complete: bool,
) -> Value {
    let epoch = story.request.source.source_date_epoch;
    let time = |clock: SystemTime| rfc3339(clock, epoch);
    // With an epoch nothing tells two builds of the same apart.
    let invocation = match epoch {
        Some(_) => format!("{}", story.plan.digest()),
        None => story.id.to_owned(),
    };
    let mut metadata = json!({
        "invocationId": invocation,
        "startedOn": time(story.started),
        "finishedOn": time(story.finished),
        "buildkit_completeness": {
            "request": request_complete,
            "resolvedDependencies": complete,
        },
    });
    if complete && !reaches_a_network(story.plan) {
        metadata["buildkit_hermetic"] = true.into();
    }
    if asked.reproducible {
        metadata["buildkit_reproducible"] = true.into();
    }
    let mut more = Map::new();
    if !story.vcs.is_empty() {
        more.insert("vcs".to_owned(), json!(story.vcs));
    }
    if asked.mode == ProvenanceMode::Max {
        more.insert("source".to_owned(), written(story.plan));
    }
    if !more.is_empty() {
        metadata["buildkit_metadata"] = more.into();
    }
    metadata
}

/// Whether a step may have asked somebody of whom nothing is known here.
fn reaches_a_network(plan: &Plan) -> bool {
    plan.order()
        .into_iter()
        .any(|id| match &plan.graph.node(id).op {
            Op::Exec(exec) => exec.network != NetworkMode::None,
            _ => false,
        })
}

fn config_source(story: &Story<'_>) -> Value {
    let mut config = Map::new();
    if let Some((source, pin)) = story.context {
        config.insert("uri".to_owned(), uri(source).into());
        if let Some(pin) = pin {
            let (algorithm, digits) = digest(pin);
            let digest = BTreeMap::from([(algorithm, digits)]);
            config.insert("digest".to_owned(), json!(digest));
        }
    }
    // A path of this host is nobody's business.
    let path = match story.file.starts_with('/') {
        true => story.file.rsplit('/').next().unwrap_or_default().to_owned(),
        false => without_credentials(story.file),
    };
    config.insert("path".to_owned(), path.into());
    config.into()
}

/// What was asked for, and whether all of it is told.
struct Asked {
    value: Value,
    complete: bool,
}

fn request(story: &Story<'_>, is_max: bool) -> Asked {
    let source = &story.request.source;
    let mut complete = true;
    let mut args: BTreeMap<String, String> = BTreeMap::new();
    if let Some(target) = &source.target {
        args.insert("target".to_owned(), target.clone());
    }
    match &source.no_cache {
        NoCache::No => {}
        NoCache::All => drop(args.insert("no-cache".to_owned(), String::new())),
        NoCache::Stages(stages) => {
            let stages: Vec<&str> = stages.iter().map(String::as_str).collect();
            args.insert("no-cache".to_owned(), stages.join(","));
        }
    }
    match source.network {
        NetworkMode::Default => {}
        NetworkMode::Host => drop(args.insert("force-network-mode".to_owned(), "host".to_owned())),
        NetworkMode::None => drop(args.insert("force-network-mode".to_owned(), "none".to_owned())),
    }
    for (name, value) in &source.build_args {
        let Some(value) = value else { continue };
        // A proxy's address may have a password in it.
        match is_max && !is_proxy(name) {
            true => {
                let value = without_any_credentials(value);
                args.insert(format!("build-arg:{name}"), value);
            }
            false => complete = false,
        }
    }
    for (name, value) in &source.labels {
        match is_max {
            true => {
                let value = without_any_credentials(value);
                args.insert(format!("label:{name}"), value);
            }
            false => complete = false,
        }
    }
    let frontend = match &source.frontends.chosen {
        _ if story.request.plan.is_some() => "plan.v0".to_owned(),
        Some(chosen) => chosen.to_string(),
        None => "dockerfile.v0".to_owned(),
    };
    let mut value = json!({ "frontend": frontend });
    if !args.is_empty() {
        value["args"] = json!(args);
    }
    let used = Used::of(story.plan);
    for (key, ids) in [("secrets", &used.secrets), ("ssh", &used.agents)] {
        if ids.is_empty() {
            continue;
        }
        match is_max {
            true => {
                value[key] = ids
                    .iter()
                    .map(|(id, optional)| match optional {
                        true => json!({ "id": id, "optional": true }),
                        false => json!({ "id": id }),
                    })
                    .collect();
            }
            false => complete = false,
        }
    }
    if !used.locals.is_empty() {
        let locals = used.locals.iter().map(|name| json!({ "name": name }));
        value["locals"] = locals.collect();
    }
    Asked { value, complete }
}

/// What a plan takes of its caller.
#[derive(Default)]
struct Used {
    /// Ids of secrets, and whether all steps do without.
    secrets: BTreeMap<String, bool>,
    agents: BTreeMap<String, bool>,
    locals: BTreeSet<String>,
}

impl Used {
    fn of(plan: &Plan) -> Used {
        let mut used = Used::default();
        let take = |ids: &mut BTreeMap<String, bool>, id: &str, optional: bool| {
            *ids.entry(id.to_owned()).or_insert(true) &= optional;
        };
        for node in plan.order() {
            match &plan.graph.node(node).op {
                Op::Source(SourceOp::Local(local)) => drop(used.locals.insert(local.name.clone())),
                Op::Source(SourceOp::Git(git)) => {
                    let ids = [&git.auth_token_secret, &git.auth_header_secret];
                    for id in ids.into_iter().flatten() {
                        take(&mut used.secrets, id, true);
                    }
                    if let Some(id) = &git.mount_ssh_sock {
                        take(&mut used.agents, id, true);
                    }
                }
                Op::Source(SourceOp::Http(http)) => {
                    if let Some(id) = &http.auth_header_secret {
                        take(&mut used.secrets, id, true);
                    }
                }
                Op::Exec(exec) => {
                    for secret in &exec.secret_env {
                        take(&mut used.secrets, &secret.id, secret.optional);
                    }
                    for mount in &exec.mounts {
                        match &mount.kind {
                            MountKind::Secret(secret) => {
                                take(&mut used.secrets, &secret.id, secret.optional);
                            }
                            MountKind::Ssh(agent) => {
                                take(&mut used.agents, &agent.id, agent.optional);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        used
    }
}

/// The plan in its JSON form, without what stands elsewhere in the predicate and what is private.
fn plan(plan: &Plan) -> Value {
    let mut value: Value = serde_json::from_str(&kiln_ir::json::to_json(plan)).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("sources");
    }
    let nodes = value["nodes"].as_array_mut();
    for node in nodes.into_iter().flatten() {
        if let Some(node) = node.as_object_mut() {
            node.remove("display");
        }
        // Proxies and headers may have passwords in them.
        for (fields, private) in [("/op/exec/meta", "proxy"), ("/op/source/http", "headers")] {
            if let Some(Value::Object(fields)) = node.pointer_mut(fields) {
                fields.remove(private);
            }
        }
        if let Some(Value::Array(env)) = node.pointer_mut("/op/exec/meta/env") {
            let name = |value: &Value| value.as_str()?.split('=').next().map(str::to_owned);
            env.retain(|value| !name(value).is_some_and(|name| is_proxy(&name)));
        }
    }
    leave_credentials_out(&mut value);
    value
}

/// Takes the users and passwords out of the addresses in all texts.
fn leave_credentials_out(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_any_credentials(text),
        Value::Array(values) => values.iter_mut().for_each(leave_credentials_out),
        Value::Object(fields) => fields.values_mut().for_each(leave_credentials_out),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Which lines steps are written on, and the files that they are in; steps by their places in the plan.
fn written(plan: &Plan) -> Value {
    let mut locations = Map::new();
    for (number, id) in plan.order().into_iter().enumerate() {
        let ranges = plan
            .display
            .get(&id)
            .map(|display| display.ranges.as_slice());
        let places = ranges.into_iter().flatten().map(|range| {
            let mut place = json!({
                "ranges": [{
                    "start": { "line": range.start_line },
                    "end": { "line": range.end_line },
                }],
            });
            if range.source > 0 {
                place["sourceIndex"] = range.source.into();
            }
            place
        });
        let places: Vec<Value> = places.collect();
        if !places.is_empty() {
            locations.insert(format!("step{number}"), json!({ "locations": places }));
        }
    }
    let infos = plan.sources.iter().map(|(name, text)| {
        let name = match name.starts_with('/') {
            true => name.rsplit('/').next().unwrap_or_default(),
            false => name,
        };
        json!({
            "filename": name,
            "language": "Dockerfile",
            "data": STANDARD.encode(without_any_credentials(text)),
        })
    });
    let infos: Vec<Value> = infos.collect();
    json!({ "locations": locations, "infos": infos })
}
