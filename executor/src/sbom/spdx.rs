//! An inventory as an SPDX 2.3 document.
//!
//! The image is a package that contains its layers, which contain the packages that they brought. All of
//! it is a function of the image: sorted, with the image's time, and with a namespace that is the digest
//! of the rest.

use kiln_oci::digest::Sha256Digest;
use serde_json::{Value, json};

use super::license;
use super::package::Package;
use super::scan::Inventory;

/// What a document says of who wrote it.
const TOOL: &str = concat!("Tool: kiln-", env!("CARGO_PKG_VERSION"));
const UNKNOWN: &str = "NOASSERTION";
/// The most files that a package names as its sources.
const MOST_SOURCES: usize = 20;

/// What a document is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    /// Its name.
    pub(crate) name: String,
    /// Its digest, such as `sha256:…`; what has none is no image yet.
    pub(crate) digest: String,
    /// The diff ids of its layers, lowest first.
    pub(crate) layers: Vec<String>,
    /// Its time, RFC 3339 in UTC and whole seconds.
    pub(crate) created: String,
    /// What it is.
    pub(crate) purpose: Purpose,
}

/// What a document is about, in SPDX's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What a container runs on.
    #[default]
    Container,
    /// What is built from.
    Source,
}

impl Purpose {
    /// Its name, and the id of the package that is all of it.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Purpose::Container => ("CONTAINER", "SPDXRef-Image"),
            Purpose::Source => ("SOURCE", "SPDXRef-Source"),
        }
    }
}

/// Writes the document.
pub(crate) fn document(subject: &Subject, inventory: &Inventory) -> Value {
    let (_, whole) = subject.purpose.words();
    let mut packages = vec![image(subject, inventory)];
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", whole)];
    for (index, diff_id) in subject.layers.iter().enumerate() {
        packages.push(json!({
            "name": diff_id,
            "SPDXID": layer_id(index),
            "versionInfo": diff_id,
            "supplier": UNKNOWN,
            "downloadLocation": UNKNOWN,
            "filesAnalyzed": false,
            "checksums": checksums(diff_id),
            "licenseConcluded": UNKNOWN,
            "licenseDeclared": UNKNOWN,
            "copyrightText": UNKNOWN,
            "primaryPackagePurpose": "ARCHIVE",
        }));
        relationships.push(relation(whole, "CONTAINS", &layer_id(index)));
    }
    for package in &inventory.packages {
        let id = package_id(package);
        let holder = match package.layer < subject.layers.len() {
            true => layer_id(package.layer),
            false => whole.to_owned(),
        };
        relationships.push(relation(&holder, "CONTAINS", &id));
        packages.push(package_json(package, &id));
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": "",
        "creationInfo": { "creators": [TOOL], "created": subject.created },
        "packages": packages,
        "relationships": relationships,
    });
    if !inventory.notes.is_empty() {
        let annotations = inventory.notes.iter().map(|note| {
            json!({
                "annotationDate": subject.created,
                "annotationType": "OTHER",
                "annotator": TOOL,
                "comment": format!("/{} was not read: {}", note.path, note.reason),
            })
        });
        document["annotations"] = annotations.collect();
    }
    let digest = Sha256Digest::of(document.to_string().as_bytes());
    document["documentNamespace"] = format!("urn:kiln:spdx:{digest}").into();
    document
}

fn image(subject: &Subject, inventory: &Inventory) -> Value {
    let (purpose, id) = subject.purpose.words();
    let mut image = json!({
        "name": subject.name,
        "SPDXID": id,
        "versionInfo": subject.digest,
        "supplier": UNKNOWN,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": purpose,
    });
    if !subject.digest.is_empty() {
        image["checksums"] = checksums(&subject.digest);
    }
    if !inventory.distribution.is_empty() {
        image["description"] = inventory.distribution.as_str().into();
    }
    image
}

fn package_json(package: &Package, id: &str) -> Value {
    let sources: Vec<String> = package
        .found_in
        .iter()
        .map(|path| format!("/{path}"))
        .collect();
    let mut source = sources[..sources.len().min(MOST_SOURCES)].join(", ");
    if sources.len() > MOST_SOURCES {
        source.push_str(&format!(" and {} more", sources.len() - MOST_SOURCES));
    }
    let declared = license::expression(&package.license);
    let mut json = json!({
        "name": package.purl.full_name(),
        "SPDXID": id,
        "versionInfo": package.purl.version,
        "supplier": supplier(&package.supplier),
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "sourceInfo": format!("found in {source}"),
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": declared.as_deref().unwrap_or(UNKNOWN),
        "copyrightText": UNKNOWN,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.purl.to_string(),
        }],
    });
    if declared.is_none() && !package.license.is_empty() {
        json["licenseComments"] = format!("declared as: {}", package.license).into();
    }
    if package.homepage.starts_with("http://") || package.homepage.starts_with("https://") {
        json["homepage"] = package.homepage.as_str().into();
    }
    json
}

/// `Name <mail>` as SPDX wants it.
fn supplier(written: &str) -> String {
    let plain = |text: &str| text.replace(['(', ')'], " ").trim().to_owned();
    match written.split_once('<') {
        _ if written.is_empty() => UNKNOWN.to_owned(),
        Some((name, mail)) => {
            let mail = mail.split('>').next().unwrap_or_default();
            format!("Person: {} ({})", plain(name), plain(mail))
        }
        None => format!("Organization: {}", plain(written)),
    }
}

fn checksums(digest: &str) -> Value {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    json!([{ "algorithm": "SHA256", "checksumValue": hex }])
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({
        "spdxElementId": from,
        "relationshipType": kind,
        "relatedSpdxElement": to,
    })
}

fn layer_id(index: usize) -> String {
    format!("SPDXRef-Layer-{index}")
}

/// An id of letters, digits, dots and dashes that no other package has.
fn package_id(package: &Package) -> String {
    let name: String = package
        .purl
        .name
        .chars()
        .take(64)
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let digest = Sha256Digest::of(package.purl.to_string().as_bytes()).hex();
    format!(
        "SPDXRef-Package-{}-{name}-{}",
        package.purl.kind,
        &digest[..16]
    )
}
