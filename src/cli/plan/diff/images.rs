//! Two images of the store held against each other: configs, histories, layers and their files.

use std::fmt::Write as _;

use kiln::{LayerFiles, Plan, PlatformDetails, ResultEntry, compare};
use serde_json::{Value, json};

use super::done;
use crate::cli::host::{self, Needs};
use crate::cli::plan::args::{PlanDiffArgs, ReportFormat};
use crate::cli::progress::words_bytes;
use crate::cli::{Done, print, spec};

/// Of one layer, so many files are named.
const NAMED: usize = 10;

/// A layer of either image, with the instruction that made it.
struct Layer {
    content: String,
    size_bytes: u64,
    made_by: String,
}

/// Layers at the same height that are not the same.
struct Pair {
    number: usize,
    old: Option<Layer>,
    new: Option<Layer>,
    /// None where a layer's files are not here.
    files: Option<LayerFiles>,
}

pub(super) fn diff(args: &PlanDiffArgs, old: &str, new: &str) -> Done {
    let platforms = spec::platforms(&args.platform)?;
    let kiln = host::open(Needs::Records, true)?;
    let old = kiln.platform_details(old, platforms.first())?;
    let new = kiln.platform_details(new, platforms.first())?;
    let comparison = compare(&as_plan(&old), &as_plan(&new));
    let (mut one, mut two) = (layers(&old).into_iter(), layers(&new).into_iter());
    let (mut pairs, mut same) = (Vec::new(), 0);
    for number in 0.. {
        let (old, new) = match (one.next(), two.next()) {
            (None, None) => break,
            (Some(old), Some(new)) if old.content == new.content => {
                same += 1;
                continue;
            }
            pair => pair,
        };
        let files = match (&old, &new) {
            (Some(old), Some(new)) => kiln.layer_files(&old.content, &new.content)?,
            _ => None,
        };
        pairs.push(Pair {
            number,
            old,
            new,
            files,
        });
    }
    let equal = comparison.is_empty() && pairs.is_empty();
    match args.format {
        ReportFormat::Text if equal => {}
        ReportFormat::Text => {
            let mut text = comparison.to_text().replacen("~ result\n", "~ config\n", 1);
            let _ = writeln!(text, "layers: {same} the same, {} not", pairs.len());
            pairs.iter().for_each(|pair| write(&mut text, pair));
            print(&text)?;
        }
        ReportFormat::Json => {
            let mut document = comparison.to_json();
            document["equal"] = equal.into();
            document["layers"] = json!({
                "same": same,
                "differ": pairs.iter().map(as_json).collect::<Vec<_>>(),
            });
            print(&format!("{document:#}\n"))?;
        }
    }
    Ok(done(equal))
}

/// A plan that is nothing but the config, so that configs are compared in one way only.
fn as_plan(details: &PlatformDetails) -> Plan {
    let entry = ResultEntry {
        config: Some(details.parsed.clone()),
        ..ResultEntry::default()
    };
    let mut plan = Plan::default();
    plan.results.insert(String::new(), entry);
    plan
}

fn layers(details: &PlatformDetails) -> Vec<Layer> {
    let history = details.parsed.history.iter();
    let mut made_by = history
        .filter(|line| !line.empty_layer)
        .map(|line| line.created_by.clone());
    let layers = details.layers.iter();
    layers
        .map(|(content, size_bytes)| Layer {
            content: content.clone(),
            size_bytes: *size_bytes,
            made_by: made_by.next().unwrap_or_default(),
        })
        .collect()
}

fn write(text: &mut String, pair: &Pair) {
    let said = |layer: &Layer| {
        let made_by: String = layer
            .made_by
            .chars()
            .filter(|character| !character.is_control())
            .collect();
        format!("{} {made_by}", words_bytes(layer.size_bytes))
    };
    let (sign, words) = match (&pair.old, &pair.new) {
        (Some(old), Some(new)) if old.made_by == new.made_by => {
            let before = words_bytes(old.size_bytes);
            ('~', format!("{before} -> {}", said(new)))
        }
        (Some(old), Some(new)) => ('~', format!("{} -> {}", said(old), said(new))),
        (Some(old), None) => ('-', said(old)),
        (None, Some(new)) => ('+', said(new)),
        (None, None) => return,
    };
    let _ = writeln!(text, "{sign} layer {}: {words}", pair.number);
    let Some(files) = &pair.files else {
        if pair.old.is_some() && pair.new.is_some() {
            text.push_str("    files are not here: one of the layers was not unpacked\n");
        }
        return;
    };
    for (sign, paths) in [
        ('+', &files.added),
        ('-', &files.removed),
        ('~', &files.changed),
    ] {
        for path in paths.iter().take(NAMED) {
            let _ = writeln!(text, "    {sign} {path}");
        }
        if paths.len() > NAMED {
            let _ = writeln!(text, "    {sign} and {} more", paths.len() - NAMED);
        }
    }
}

fn as_json(pair: &Pair) -> Value {
    let layer = |layer: &Option<Layer>| {
        layer.as_ref().map(|layer| {
            json!({
                "content": layer.content,
                "size": layer.size_bytes,
                "created_by": layer.made_by,
            })
        })
    };
    let files = pair.files.as_ref().map(
        |files| json!({ "added": files.added, "removed": files.removed, "changed": files.changed }),
    );
    json!({
        "number": pair.number,
        "old": layer(&pair.old),
        "new": layer(&pair.new),
        "files": files,
    })
}
