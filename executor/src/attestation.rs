//! Attestations: what is said of an image, as the documents that carry it (docs/attestations.md).
//!
//! The store keeps predicates. A statement names the manifest that it is about, and a manifest depends on
//! how layers are packed, so statements are made wherever a manifest is.

use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{Descriptor, Manifest, annotation};
use kiln_oci::layout::Document;
use kiln_oci::media_type::Flavor;
use kiln_oci::platform::Platform;
use kiln_store::Attestation;
use serde_json::json;

use crate::sbom::{BESIDE, SPDX_PREDICATE};

/// The media type of statements, and of the artifact that one is as a referrer.
pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";

/// The media types of SBOMs that stand for themselves, in no statement, as oras, trivy and cosign attach them; and the
/// artifacts that such ones are as referrers.
const SPDX_DOCUMENTS: [&str; 3] = [
    "application/spdx+json",
    "text/spdx+json",
    "application/vnd.dev.cosign.artifact.sbom.v1+json",
];

/// Tells which kind of predicate a layer, or a referrer, holds.
pub(crate) const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// Tells referrers of the same kind apart: the name of a file.
pub(crate) const TITLE: &str = "org.opencontainers.image.title";

const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// Something that is said of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicate {
    /// What kind it is, a URI such as `https://slsa.dev/provenance/v1`.
    pub kind: String,
    /// The predicate as JSON.
    pub json: String,
    /// It is for images alone, and not written beside exported files.
    pub inline_only: bool,
}

/// Whether a layer, or a referrer of that type, may hold a predicate; of `wanted` alone, if that is given.
pub(crate) fn may_hold(media_type: &str, kind: Option<&String>, wanted: Option<&str>) -> bool {
    let kind = match media_type {
        IN_TOTO => kind.map(String::as_str),
        _ if SPDX_DOCUMENTS.contains(&media_type) => Some(SPDX_PREDICATE),
        _ => return false,
    };
    // What does not say its kind may be anything.
    match (wanted, kind) {
        (Some(wanted), Some(kind)) => wanted == kind,
        _ => true,
    }
}

impl Predicate {
    /// Reads a layer of something that is attached to a manifest; none if that says nothing about it.
    pub(crate) fn of_layer(
        media_type: &str,
        bytes: &[u8],
        about: Sha256Digest,
    ) -> Option<Predicate> {
        match media_type {
            IN_TOTO => Predicate::of_statement(bytes, about),
            _ => Predicate::of_spdx(bytes),
        }
    }

    /// An SPDX document by itself: what it is about is said by what it is attached to.
    fn of_spdx(bytes: &[u8]) -> Option<Predicate> {
        let document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let version = document["spdxVersion"].as_str()?;
        version.starts_with("SPDX-").then(|| Predicate {
            kind: SPDX_PREDICATE.to_owned(),
            json: document.to_string(),
            inline_only: false,
        })
    }

    /// Takes the predicate out of a statement of somebody else's; none if it is no statement, or not one
    /// about this manifest.
    fn of_statement(bytes: &[u8], about: Sha256Digest) -> Option<Predicate> {
        let statement: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let subjects = statement["subject"].as_array()?;
        let about = serde_json::Value::from(about.hex());
        if !subjects.iter().any(|one| one["digest"]["sha256"] == about) {
            return None;
        }
        Some(Predicate {
            kind: statement["predicateType"].as_str()?.to_owned(),
            json: statement.get("predicate")?.to_string(),
            inline_only: false,
        })
    }

    /// Whether kiln said it: what it says of an image is of its files and how they came about, so it holds
    /// however the layers are packed.
    pub(crate) fn is_own(&self) -> bool {
        let Ok(predicate) = serde_json::from_str::<serde_json::Value>(&self.json) else {
            return false;
        };
        let build = predicate["buildDefinition"]["buildType"].as_str();
        let tools = predicate["creationInfo"]["creators"].as_array();
        let mut tools = tools.into_iter().flatten().filter_map(|tool| tool.as_str());
        match self.kind.as_str() {
            SPDX_PREDICATE => tools.any(|tool| tool.starts_with("Tool: kiln-")),
            _ => build.is_some_and(|build| build.starts_with("urn:kiln:build:")),
        }
    }

    /// What an SBOM is of beside its image: `context`, or a stage; none of anything else.
    pub fn scan(&self) -> Option<String> {
        if self.kind != SPDX_PREDICATE {
            return None;
        }
        #[derive(serde::Deserialize)]
        struct Named {
            name: String,
        }
        let document: Named = serde_json::from_str(&self.json).ok()?;
        let scan = document.name.strip_prefix(BESIDE)?;
        // As stages may be called; it becomes the name of a file.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (scan.len() <= 128 && scan.bytes().all(plain)).then(|| scan.to_owned())
    }

    /// What the store keeps about the image at one place of an index.
    pub(crate) fn of_member(kept: &[Attestation], place: usize) -> Vec<Predicate> {
        let about = kept
            .iter()
            .filter(|attestation| attestation.member == place);
        about
            .map(|attestation| Predicate {
                kind: attestation.predicate_type.clone(),
                json: String::from_utf8_lossy(&attestation.predicate).into_owned(),
                inline_only: false,
            })
            .collect()
    }
}

/// A manifest of attestations with all that it leads to.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    /// The manifest, as an index lists it.
    pub(crate) descriptor: Descriptor,
    /// The manifest, its config and the statements.
    pub(crate) documents: Vec<Document>,
}

/// Writes the statement of one predicate about a manifest.
fn statement(subject: &Descriptor, predicate: &Predicate) -> Document {
    // The subject has no name: the same image has the same attestations under every one.
    let subject = json!([{ "name": "_", "digest": { "sha256": subject.digest.hex() } }]);
    let kind = json!(predicate.kind);
    let text = format!(
        r#"{{"_type":"{STATEMENT}","predicateType":{kind},"subject":{subject},"predicate":{}}}"#,
        predicate.json
    );
    let mut descriptor = Descriptor::of(IN_TOTO, text.as_bytes());
    let annotations = &mut descriptor.annotations;
    annotations.insert(PREDICATE_TYPE.to_owned(), predicate.kind.clone());
    Document {
        descriptor,
        bytes: text.into(),
    }
}

/// Returns the names and contents of the files that say beside exported files what is said of the image
/// with that id, as BuildKit calls them.
pub(crate) fn files(id: &[u8; 32], predicates: &[Predicate]) -> Vec<(String, String)> {
    let subject = Descriptor::new(Flavor::Oci.config(), Sha256Digest::from_bytes(*id), 0);
    let outside = predicates.iter().filter(|predicate| !predicate.inline_only);
    outside
        .map(|predicate| {
            let name = match (predicate.kind.as_str(), predicate.scan()) {
                (SPDX_PREDICATE, None) => "sbom.spdx.json".to_owned(),
                (SPDX_PREDICATE, Some(scan)) => format!("{BESIDE}{scan}.spdx.json"),
                _ => "provenance.json".to_owned(),
            };
            let bytes = statement(&subject, predicate).bytes;
            (name, String::from_utf8_lossy(&bytes).into_owned())
        })
        .collect()
}

/// Makes the manifest of all that is said of one manifest, as BuildKit puts it beside that in an index.
pub(crate) fn beside(subject: &Descriptor, predicates: &[Predicate]) -> Attached {
    let statements: Vec<Document> = predicates
        .iter()
        .map(|predicate| statement(subject, predicate))
        .collect();
    let layers: Vec<Descriptor> = statements
        .iter()
        .map(|statement| statement.descriptor.clone())
        .collect();
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| layer.digest.to_string())
        .collect();
    let config = json!({
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string();
    let config_descriptor = Descriptor::of(Flavor::Oci.config(), config.as_bytes());
    let manifest = Manifest::new(Flavor::Oci, config_descriptor.clone(), layers);
    let mut attached = attached(&manifest, config_descriptor, config, statements);
    let descriptor = &mut attached.descriptor;
    descriptor.platform = Some(Platform::new("unknown", "unknown", ""));
    for (key, value) in [
        (annotation::REFERENCE_DIGEST, subject.digest.to_string()),
        (
            annotation::REFERENCE_TYPE,
            annotation::ATTESTATION_MANIFEST.to_owned(),
        ),
    ] {
        descriptor.annotations.insert(key.to_owned(), value);
    }
    attached
}

/// Makes a manifest for each thing that is said of one manifest, which refers to that (OCI's `subject`).
pub(crate) fn referring(subject: &Descriptor, predicates: &[Predicate]) -> Vec<Attached> {
    let one = |predicate: &Predicate| {
        let statement = statement(subject, predicate);
        let empty = "{}".to_owned();
        let config = Descriptor::of(EMPTY, empty.as_bytes());
        let layers = vec![statement.descriptor.clone()];
        let mut manifest = Manifest::new(Flavor::Oci, config.clone(), layers);
        manifest.artifact_type = IN_TOTO.to_owned();
        let Descriptor {
            media_type,
            digest,
            size,
            ..
        } = subject;
        let subject = Descriptor::new(media_type.clone(), *digest, *size);
        manifest.subject = Some(Box::new(subject));
        // Registries copy these into their lists of referrers.
        let annotations = &mut manifest.annotations;
        annotations.insert(PREDICATE_TYPE.to_owned(), predicate.kind.clone());
        if let Some(scan) = predicate.scan() {
            annotations.insert(TITLE.to_owned(), format!("{BESIDE}{scan}.spdx.json"));
        }
        let mut attached = attached(&manifest, config, empty, vec![statement]);
        attached.descriptor.artifact_type = IN_TOTO.to_owned();
        attached.descriptor.annotations = manifest.annotations;
        attached
    };
    predicates.iter().map(one).collect()
}

/// The media type of `{}`, the config of what has none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

fn attached(
    manifest: &Manifest,
    config_descriptor: Descriptor,
    config: String,
    statements: Vec<Document>,
) -> Attached {
    let bytes = manifest.to_bytes();
    let descriptor = Descriptor::of(Flavor::Oci.manifest(), &bytes);
    let mut documents = vec![
        Document {
            descriptor: descriptor.clone(),
            bytes: bytes.into(),
        },
        Document {
            descriptor: config_descriptor,
            bytes: config.into(),
        },
    ];
    documents.extend(statements);
    Attached {
        descriptor,
        documents,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predicates() -> Vec<Predicate> {
        let predicate = |kind: &str, json: &str| Predicate {
            kind: kind.to_owned(),
            json: json.to_owned(),
            inline_only: false,
        };
        vec![
            predicate("https://slsa.dev/provenance/v1", r#"{"a":1}"#),
            predicate("https://spdx.dev/Document", r#"{"b":2}"#),
        ]
    }

    #[test]
    fn statements_of_others() {
        let (one, other) = (Sha256Digest::of(b"one"), Sha256Digest::of(b"other"));
        let subject = Descriptor::new(Flavor::Oci.manifest(), one, 3);
        let bytes = statement(&subject, &predicates()[0]).bytes;
        let read = Predicate::of_statement(&bytes, one);
        assert_eq!(read.as_ref(), predicates().first());
        assert_eq!(Predicate::of_statement(&bytes, other), None);
        assert_eq!(Predicate::of_statement(b"{}", one), None);
        assert_eq!(Predicate::of_statement(b"not JSON", one), None);
    }

    #[test]
    fn what_kiln_says_itself() {
        let check = |kind: &str, json: &str, expected: bool| {
            let predicate = Predicate {
                kind: kind.to_owned(),
                json: json.to_owned(),
                inline_only: false,
            };
            assert_eq!(predicate.is_own(), expected, "{json}");
        };
        let slsa = "https://slsa.dev/provenance/v1";
        let own = r#"{"buildDefinition":{"buildType":"urn:kiln:build:v0"}}"#;
        check(slsa, own, true);
        check(
            slsa,
            r#"{"buildDefinition":{"buildType":"https://x"}}"#,
            false,
        );
        let spdx = r#"{"creationInfo":{"creators":["Organization: x","Tool: kiln-0.1.0"]}}"#;
        check(SPDX_PREDICATE, spdx, true);
        check(
            SPDX_PREDICATE,
            r#"{"creationInfo":{"creators":["Tool: syft-1"]}}"#,
            false,
        );
        check(SPDX_PREDICATE, "{}", false);
        check("https://example.com/vex", "not JSON", false);
    }

    #[test]
    fn what_an_sbom_is_of() {
        let check = |kind: &str, name: &str, expected: Option<&str>| {
            let json = serde_json::json!({ "spdxVersion": "SPDX-2.3", "name": name });
            let predicate = Predicate {
                kind: kind.to_owned(),
                json: json.to_string(),
                inline_only: false,
            };
            assert_eq!(predicate.scan().as_deref(), expected, "{name}");
        };
        check(SPDX_PREDICATE, "sbom-context", Some("context"));
        check(SPDX_PREDICATE, "sbom-build_2.0", Some("build_2.0"));
        check(SPDX_PREDICATE, "sbom", None);
        check(SPDX_PREDICATE, "sbom-../../etc/passwd", None);
        check("https://slsa.dev/provenance/v1", "sbom-context", None);
        assert_eq!(predicates()[1].scan(), None);
    }

    fn text(document: &Document) -> &str {
        std::str::from_utf8(&document.bytes).unwrap()
    }

    #[test]
    fn beside_an_image() {
        let subject = Descriptor::of(Flavor::Oci.manifest(), b"an image");
        let attached = beside(&subject, &predicates());
        let of = &attached.descriptor.annotations[annotation::REFERENCE_DIGEST];
        assert_eq!(*of, subject.digest.to_string());
        assert!(attached.descriptor.is_attestation());
        let documents: Vec<&str> = attached.documents.iter().map(text).collect();
        insta::assert_snapshot!("beside", documents.join("\n---\n"));
    }

    #[test]
    fn referring_to_an_image() {
        let subject = Descriptor::of(Flavor::Oci.manifest(), b"an image");
        let attached = referring(&subject, &predicates());
        assert_eq!(attached.len(), 2);
        let documents: Vec<&str> = attached[1].documents.iter().map(text).collect();
        insta::assert_snapshot!("referring", documents.join("\n---\n"));
    }
}
