//! Java: what jars say of themselves and of the jars within them.

use std::io::{Cursor, Read, Seek};

use super::package::{Flaw, Listed, Package, clean};
use super::paragraphs::paragraphs;
use super::purl::Purl;
use super::zip;

const MANIFEST: &str = "META-INF/MANIFEST.MF";
const PROPERTIES: &str = "/pom.properties";
/// The most bytes of a text within a jar.
const LARGEST_TEXT: u64 = 1 << 20;
/// The most bytes of a jar within a jar.
const LARGEST_JAR: u64 = 256 << 20;
/// How deep jars are looked for in jars: a war in an ear has jars.
const DEEPEST: usize = 3;
/// The most bytes that are unpacked for one file.
const MOST_BYTES: u64 = 1 << 30;
/// The most packages of one file.
const MOST: usize = 10_000;

/// Reads a jar, war or ear, whose file name tells what it does not say itself.
pub(super) fn read(archive: &mut (impl Read + Seek), file_name: &str) -> Listed {
    let mut walk = Walk {
        packages: Vec::new(),
        budget: MOST_BYTES,
    };
    jar(archive, file_name, 0, &mut walk)?;
    Ok(walk.packages)
}

/// What is found in a file and in the jars within it.
struct Walk {
    packages: Vec<Package>,
    /// How many bytes may still be unpacked.
    budget: u64,
}

impl Walk {
    fn read(
        &mut self,
        archive: &mut (impl Read + Seek),
        member: &zip::Member,
        limit: u64,
    ) -> Result<Vec<u8>, Flaw> {
        let bytes = zip::read(archive, member, limit.min(self.budget))?;
        self.budget -= bytes.len() as u64;
        Ok(bytes)
    }
}

fn jar(
    archive: &mut (impl Read + Seek),
    file_name: &str,
    depth: usize,
    walk: &mut Walk,
) -> Result<(), Flaw> {
    let members = zip::members(archive)?;
    let mut manifest = Vec::new();
    let mut coordinates = Vec::new();
    for member in &members {
        if walk.packages.len() + coordinates.len() > MOST {
            return Err("it has more packages than are read".into());
        }
        if member.name == MANIFEST {
            manifest = walk.read(archive, member, LARGEST_TEXT).unwrap_or_default();
        } else if member.name.starts_with("META-INF/maven/") && member.name.ends_with(PROPERTIES) {
            let text = walk.read(archive, member, LARGEST_TEXT).unwrap_or_default();
            coordinates.extend(of_properties(&text));
        } else if depth < DEEPEST && is_jar(&member.name) {
            // One that cannot be read does not keep the others.
            if let Ok(inner) = walk.read(archive, member, LARGEST_JAR) {
                let name = member.name.rsplit('/').next().unwrap_or_default();
                let _ = jar_within(inner, name, depth + 1, walk);
            }
        }
    }
    let text = String::from_utf8_lossy(&manifest);
    let main = paragraphs(&text).next().unwrap_or_default();
    let license = match main.get("Bundle-License") {
        // A link says which one to people only.
        license if license.contains("://") => "",
        license => license.split(',').next().unwrap_or_default(),
    };
    match &mut coordinates[..] {
        [] => walk.packages.extend(of_manifest(&main, file_name, license)),
        [one] if one.license.is_empty() => one.license = clean(license),
        // A jar of several has the properties of all that was put into it.
        _ => {}
    }
    walk.packages.append(&mut coordinates);
    Ok(())
}

// Not generic, so that jars within jars are no endless type.
fn jar_within(bytes: Vec<u8>, name: &str, depth: usize, walk: &mut Walk) -> Result<(), Flaw> {
    jar(&mut Cursor::new(bytes), name, depth, walk)
}

/// Whether a file of that name is a jar.
pub(super) fn is_jar(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    matches!(extension, Some("jar" | "war" | "ear" | "hpi" | "jpi"))
}

fn of_properties(bytes: &[u8]) -> Option<Package> {
    let text = String::from_utf8_lossy(bytes);
    let get = |key: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then_some(value.trim())
        });
        value.filter(|value| !value.is_empty() && !value.contains("${"))
    };
    let (group, artifact, version) = (get("groupId")?, get("artifactId")?, get("version")?);
    Some(Package::new(
        Purl::new("maven", artifact, version).within(group),
    ))
}

/// A jar without Maven's properties: by its manifest and its name.
fn of_manifest(
    main: &super::paragraphs::Paragraph<'_>,
    file_name: &str,
    license: &str,
) -> Option<Package> {
    let stem = file_name
        .rsplit_once('.')
        .map_or(file_name, |(stem, _)| stem);
    // The version begins with the first number after a dash.
    let split = stem
        .match_indices('-')
        .find(|(at, _)| stem[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    let (name, in_name) = match split {
        Some((at, _)) => (&stem[..at], &stem[at + 1..]),
        None => (stem, ""),
    };
    let first = |keys: &[&'static str]| {
        let mut values = keys.iter().map(|key| main.get(key));
        values.find(|value| !value.is_empty()).unwrap_or_default()
    };
    let version = match in_name {
        "" => first(&[
            "Implementation-Version",
            "Bundle-Version",
            "Specification-Version",
        ]),
        version => version,
    };
    if name.is_empty() || version.is_empty() {
        return None;
    }
    let group = first(&[
        "Implementation-Vendor-Id",
        "Automatic-Module-Name",
        "Bundle-SymbolicName",
    ]);
    // Of a symbolic name, what stands before the artifact is the group.
    let group = group.split(';').next().unwrap_or_default();
    let group = group.strip_suffix(&format!(".{name}")).unwrap_or(group);
    let package = Package::new(Purl::new("maven", name, version).within(group));
    Some(Package {
        supplier: clean(first(&["Implementation-Vendor", "Bundle-Vendor"])),
        ..package.licensed(license)
    })
}
