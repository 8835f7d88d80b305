//! `kiln sbom`, and `kiln inspect --attestations`.

use std::process::ExitCode;

use kiln::{Kiln, SbomOrigin, SbomRequest};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::args::{SbomArgs, SbomFormat};
use super::host::{self, Needs};
use super::images::{columns, each};
use super::{Done, Failure, print, report, spec};

pub(crate) fn sbom(args: &SbomArgs) -> Done {
    let request = SbomRequest {
        image: args.image.clone(),
        platform: spec::platform("--platform", args.platform.as_deref())?,
        anew: args.anew,
        scan: args.scan.clone(),
    };
    let kiln = host::open(Needs::Layers, false)?;
    let runtime = host::runtime()?;
    let found = runtime.block_on(kiln.sbom(&request))?;
    let document: Value = serde_json::from_str(&found.document).unwrap_or_default();
    match &found.origin {
        SbomOrigin::Attached => {
            report::note("this SBOM is attached to the image; --anew reads the layers instead");
        }
        SbomOrigin::InRegistry { platform } => report::note(&format!(
            "this SBOM is attached to the image for {platform} in its registry; --anew pulls that and reads the layers"
        )),
        SbomOrigin::Scanned(_) => {}
    }
    warn_of_notes(&document);
    let format = args.format.unwrap_or(match args.output {
        Some(_) => SbomFormat::Spdx,
        None => SbomFormat::Table,
    });
    let text = match format {
        SbomFormat::Spdx => format!("{document:#}\n"),
        SbomFormat::Table => table(&document),
    };
    let Some(path) = &args.output else {
        return print(&text);
    };
    kiln::write_whole(path, text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Tells what kiln said, when it made a document, that is left out of it.
fn warn_of_notes(document: &Value) {
    for annotation in document["annotations"].as_array().into_iter().flatten() {
        let text = |key: &str| annotation[key].as_str().unwrap_or_default();
        if text("annotator").starts_with("Tool: kiln-") {
            report::warning(text("comment"));
        }
    }
}

/// The packages of a document, whoever wrote it, as rows.
fn table(document: &Value) -> String {
    let mut rows: Vec<[String; 4]> = Vec::new();
    for package in document["packages"].as_array().into_iter().flatten() {
        let text = |key: &str| shown(package[key].as_str().unwrap_or_default());
        let references = package["externalRefs"].as_array();
        let mut references = references.into_iter().flatten();
        let purl =
            references.find_map(|one| one["referenceLocator"].as_str()?.strip_prefix("pkg:"));
        // The image and its layers are packages too.
        let Some(purl) = purl else { continue };
        let kind = purl.split('/').next().unwrap_or_default();
        let license = match text("licenseDeclared") {
            license if license == "NOASSERTION" || license == "NONE" => String::new(),
            license => license,
        };
        rows.push([text("name"), text("versionInfo"), shown(kind), license]);
    }
    rows.sort();
    rows.insert(0, ["NAME", "VERSION", "TYPE", "LICENSE"].map(str::to_owned));
    columns(&rows)
}

/// What a terminal may be given of a text of strangers.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(100).map(plain).collect()
}

pub(crate) fn attestations(images: &[String]) -> Done {
    let kiln = host::open(Needs::Records, false)?;
    let runtime = host::runtime()?;
    each(images, |image| attached(&kiln, &runtime, image))
}

fn attached(kiln: &Kiln, runtime: &Runtime, image: &str) -> Result<Value, Failure> {
    let mut platforms = serde_json::Map::new();
    for (platform, predicates) in runtime.block_on(kiln.image_predicates(image))? {
        let mut said = serde_json::Map::new();
        for predicate in predicates {
            let value: Value = serde_json::from_str(&predicate.json).unwrap_or_default();
            let same = said
                .entry(predicate.kind)
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(same) = same {
                same.push(value);
            }
        }
        if !said.is_empty() {
            platforms.insert(platform, said.into());
        }
    }
    if platforms.is_empty() {
        report::warning(&format!(
            "nothing is attached to `{image}`, here or in a registry that it is known to be in; `kiln build --provenance --sbom` attaches both"
        ));
    }
    Ok(Value::Object(platforms))
}
