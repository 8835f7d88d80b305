//! The JSON form of a plan, for other programs; docs/formats/plan-json.md describes it.

mod sparse;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::link::{LinkError, NamedNode, link};
use crate::{
    Display, GraphError, ImageConfig, Input, NodeId, Op, Pin, Plan, PlanError, Platform,
    ProgressGroup, ResourceLimits, ResultEntry, SourceRange,
};

/// The version that a document names.
pub const VERSION: &str = "kiln.plan/0";

/// Why a document is no plan.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON, or not of this shape.
    #[error("the document is no `{VERSION}`")]
    Shape {
        /// What the parser says, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// The version is another one.
    #[error("plan version `{found}` is not `{VERSION}`, the only one known")]
    Version {
        /// The version found.
        found: String,
    },
    /// A node or its inputs are wrong.
    #[error("node {node} is not valid")]
    Node {
        /// Its position.
        node: usize,
        /// What is wrong.
        #[source]
        source: GraphError,
    },
    /// A result or a side table names a node that is not there.
    #[error("{place} names node {node}, but there are {count}")]
    NoSuchNode {
        /// Who names it.
        place: String,
        /// The position.
        node: u32,
        /// How many nodes there are.
        count: usize,
    },
    /// Two equal nodes are pinned to different identities.
    #[error("node {node} equals an earlier one that is pinned to `{pin}`")]
    PinConflict {
        /// Its position.
        node: usize,
        /// The earlier pin.
        pin: String,
    },
    /// Results and side tables don't fit the graph.
    #[error("the plan is not valid")]
    Plan {
        /// What is wrong.
        #[source]
        source: PlanError,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: String,
    #[serde(default)]
    nodes: Vec<DocumentNode>,
    #[serde(default)]
    results: BTreeMap<String, DocumentResult>,
    #[serde(default)]
    sources: Vec<DocumentSource>,
    #[serde(default)]
    foreign: BTreeMap<String, u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentNode {
    op: Op,
    #[serde(default)]
    inputs: Vec<DocumentInput>,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    pin: Option<Pin>,
    #[serde(default)]
    display: Option<DocumentDisplay>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentInput {
    /// Kept even where it is 0: a reference always names its node.
    node: Option<u32>,
    #[serde(default)]
    output: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentResult {
    #[serde(default)]
    output: Option<DocumentInput>,
    #[serde(default)]
    config: Option<ImageConfig>,
    #[serde(default)]
    attestations: BTreeMap<String, DocumentInput>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentSource {
    #[serde(default)]
    name: String,
    #[serde(default)]
    text: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DocumentDisplay {
    name: String,
    stage: String,
    ranges: Vec<DocumentRange>,
    progress_group: Option<ProgressGroup>,
    ignore_cache: bool,
    limits: ResourceLimits,
    include: BTreeSet<String>,
    description: BTreeMap<String, String>,
    export_cache: Option<bool>,
    caps: BTreeMap<String, bool>,
    worker_constraints: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DocumentRange {
    source: u32,
    start_line: u32,
    end_line: u32,
}

/// Writes a plan as a document, indented; equal plans give equal documents.
pub fn to_json(plan: &Plan) -> String {
    let order = plan.order();
    let numbers: BTreeMap<NodeId, u32> = (0..)
        .zip(&order)
        .map(|(number, &id)| (id, number))
        .collect();
    let input = |input: &Input| DocumentInput {
        node: Some(numbers[&input.node]),
        output: input.output,
    };
    let nodes = order.iter().map(|id| {
        let node = plan.graph.node(*id);
        DocumentNode {
            op: node.op.clone(),
            inputs: node.inputs.iter().map(input).collect(),
            platform: node.platform.clone(),
            pin: plan.pins.get(id).cloned(),
            display: plan.display.get(id).cloned().map(DocumentDisplay::from),
        }
    });
    let results = plan.results.iter().map(|(name, entry)| {
        let attestations = entry
            .attestations
            .iter()
            .map(|(predicate, of)| (predicate.clone(), input(of)));
        let result = DocumentResult {
            output: entry.output.as_ref().map(input),
            config: entry.config.clone(),
            attestations: attestations.collect(),
            metadata: entry.metadata.clone(),
        };
        (name.clone(), result)
    });
    let document = Document {
        version: VERSION.to_owned(),
        nodes: nodes.collect(),
        results: results.collect(),
        sources: plan
            .sources
            .iter()
            .cloned()
            .map(|(name, text)| DocumentSource { name, text })
            .collect(),
        foreign: plan
            .foreign
            .iter()
            .map(|(digest, id)| (digest.clone(), numbers[id]))
            .collect(),
    };
    let mut text = format!("{:#}", sparse::to_value(&document));
    text.push('\n');
    text
}

/// Writes a config as it stands in a document: a field with its default is absent.
pub fn config_to_value(config: &ImageConfig) -> serde_json::Value {
    sparse::to_value(config)
}

/// Reads a document; nodes may be named before they stand there.
pub fn from_json(text: &str) -> Result<Plan, JsonError> {
    // The version decides what the rest means, so a foreign one is named before a foreign shape is.
    #[derive(Deserialize)]
    struct Head {
        version: String,
    }
    let shape = |source| JsonError::Shape { source };
    let Head { version } = serde_json::from_str(text).map_err(shape)?;
    if version != VERSION {
        return Err(JsonError::Version { found: version });
    }
    let document: Document = serde_json::from_str(text).map_err(shape)?;
    let count = document.nodes.len();
    let (mut named, mut beside) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (position, node) in document.nodes.into_iter().enumerate() {
        let inputs = node
            .inputs
            .iter()
            .map(|input| (name_of(input.node), input.output))
            .collect();
        named.push(NamedNode {
            name: position.to_string(),
            op: node.op,
            inputs,
            platform: node.platform,
        });
        beside.push((node.pin, node.display));
    }
    let (graph, ids) = link(named).map_err(|LinkError { node, error, .. }| JsonError::Node {
        node,
        source: error,
    })?;
    let find = |node: Option<u32>, place: &dyn Fn() -> String| {
        ids.get(&name_of(node))
            .copied()
            .ok_or_else(|| JsonError::NoSuchNode {
                place: place(),
                node: node.unwrap_or_default(),
                count,
            })
    };
    let input = |input: DocumentInput, place: &dyn Fn() -> String| {
        Ok(Input {
            node: find(input.node, place)?,
            output: input.output,
        })
    };
    let mut plan = Plan {
        graph,
        ..Plan::default()
    };
    for (name, result) in document.results {
        let output = result
            .output
            .map(|output| input(output, &|| format!("result `{name}`")))
            .transpose()?;
        let mut attestations = BTreeMap::new();
        for (predicate, of) in result.attestations {
            let of = input(of, &|| {
                format!("attestation `{predicate}` of result `{name}`")
            })?;
            attestations.insert(predicate, of);
        }
        plan.results.insert(
            name,
            ResultEntry {
                output,
                config: result.config,
                attestations,
                metadata: result.metadata,
            },
        );
    }
    for (digest, node) in document.foreign {
        let node = find(Some(node), &|| format!("foreign digest `{digest}`"))?;
        plan.foreign.insert(digest, node);
    }
    for (position, (pin, display)) in beside.into_iter().enumerate() {
        let id = ids[&position.to_string()];
        if let Some(pin) = pin {
            let value = pin.clone();
            if let Some(earlier) = plan
                .pins
                .insert(id, pin)
                .filter(|earlier| *earlier != value)
            {
                return Err(JsonError::PinConflict {
                    node: position,
                    pin: earlier.value().to_owned(),
                });
            }
        }
        if let Some(display) = display {
            plan.annotate(id, display.into());
        }
    }
    plan.sources = document
        .sources
        .into_iter()
        .map(|source| (source.name, source.text))
        .collect();
    plan.validate()
        .map_err(|source| JsonError::Plan { source })?;
    Ok(plan)
}

/// Names no node where there is none.
fn name_of(node: Option<u32>) -> String {
    node.map(|node| node.to_string()).unwrap_or_default()
}

impl From<Display> for DocumentDisplay {
    fn from(display: Display) -> Self {
        let ranges = display.ranges.into_iter();
        Self {
            name: display.name,
            stage: display.stage,
            ranges: ranges
                .map(
                    |SourceRange {
                         source,
                         start_line,
                         end_line,
                     }| DocumentRange {
                        source,
                        start_line,
                        end_line,
                    },
                )
                .collect(),
            progress_group: display.progress_group,
            ignore_cache: display.ignore_cache,
            limits: display.limits,
            include: display.include,
            description: display.description,
            export_cache: display.export_cache,
            caps: display.caps,
            worker_constraints: display.worker_constraints,
        }
    }
}

impl From<DocumentDisplay> for Display {
    fn from(display: DocumentDisplay) -> Self {
        let ranges = display.ranges.into_iter();
        Self {
            name: display.name,
            stage: display.stage,
            ranges: ranges
                .map(
                    |DocumentRange {
                         source,
                         start_line,
                         end_line,
                     }| SourceRange {
                        source,
                        start_line,
                        end_line,
                    },
                )
                .collect(),
            progress_group: display.progress_group,
            ignore_cache: display.ignore_cache,
            limits: display.limits,
            include: display.include,
            description: display.description,
            export_cache: display.export_cache,
            caps: display.caps,
            worker_constraints: display.worker_constraints,
        }
    }
}
