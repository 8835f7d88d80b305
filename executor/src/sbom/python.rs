//! Python: installed distributions, and the locks of poetry, uv, pipenv and pip.

use serde::Deserialize;
use serde_json::Value;

use super::package::{Listed, Package, clean};
use super::paragraphs::paragraphs;
use super::purl::Purl;

fn package(name: &str, version: &str) -> Option<Package> {
    if name.is_empty() || version.is_empty() {
        return None;
    }
    // PEP 503 also merges runs and dots; purl-spec wants lower case and dashes for underscores.
    let name = name.to_lowercase().replace('_', "-");
    Some(Package::new(Purl::new("pypi", &name, version)))
}

/// Reads the METADATA of a `.dist-info`, or the PKG-INFO of an `.egg-info`.
pub(super) fn read_metadata(bytes: &[u8]) -> Listed {
    let text = String::from_utf8_lossy(bytes);
    let Some(fields) = paragraphs(&text).next() else {
        return Err("it has no fields".into());
    };
    let Some(package) = package(fields.get("Name"), fields.get("Version")) else {
        return Err("it has no name or no version".into());
    };
    let classified = || {
        let mut classes = fields.all("Classifier");
        classes.find_map(|class| {
            let license = class.strip_prefix("License :: ")?;
            let name = license.rsplit(" :: ").next()?;
            (name != "OSI Approved").then_some(name)
        })
    };
    let license = match (fields.get("License-Expression"), fields.get("License")) {
        ("", "" | "UNKNOWN") => classified().unwrap_or_default(),
        // Some have the whole text there.
        ("", license) if license.contains('\n') => classified().unwrap_or_default(),
        ("", license) => license,
        (expression, _) => expression,
    };
    let author = match (fields.get("Author"), fields.get("Author-email")) {
        ("", email) => email,
        (author, _) => author,
    };
    Ok(vec![Package {
        supplier: clean(author),
        homepage: clean(fields.get("Home-page")),
        ..package.licensed(license)
    }])
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    #[serde(default)]
    version: String,
    source: Option<toml::Value>,
}

/// Reads `poetry.lock`, `uv.lock` or `pdm.lock`.
pub(super) fn read_lock(bytes: &[u8]) -> Listed {
    let lock: Lock = toml::from_str(&String::from_utf8_lossy(bytes))?;
    // The project itself, as uv lists it.
    let is_own = |source: &toml::Value| {
        ["virtual", "editable"]
            .iter()
            .any(|key| source.get(key).is_some())
    };
    let others = lock
        .package
        .iter()
        .filter(|one| !one.source.as_ref().is_some_and(is_own));
    Ok(others
        .filter_map(|one| package(&one.name, &one.version))
        .collect())
}

/// Reads `Pipfile.lock`.
pub(super) fn read_pipfile_lock(bytes: &[u8]) -> Listed {
    let json: Value = serde_json::from_slice(bytes)?;
    if !json["_meta"].is_object() && !json["default"].is_object() {
        return Err("it has no packages as a lock has them".into());
    }
    let mut packages = Vec::new();
    for group in ["default", "develop"] {
        for (name, entry) in json[group].as_object().into_iter().flatten() {
            let version = entry["version"].as_str().unwrap_or_default();
            packages.extend(package(name, version.trim_start_matches('=')));
        }
    }
    Ok(packages)
}

/// Reads the pins of `requirements.txt`; what is not pinned is none that is known to be there.
pub(super) fn read_requirements(bytes: &[u8]) -> Listed {
    let text = decoded(bytes).ok_or("its encoding is not UTF-8, nor what its first bytes say")?;
    let pin = |line: &str| {
        let line = line.split(" #").next()?.split(';').next()?;
        let line = line
            .split(" --hash")
            .next()?
            .trim()
            .trim_end_matches('\\')
            .trim();
        if line.starts_with(['#', '-']) {
            return None;
        }
        let (name, version) = line.split_once("==")?;
        // Extras are parts of the same package.
        let name = name.split('[').next()?.trim();
        let version = version.trim_start_matches('=').trim();
        let plain = !version.contains([',', '*', ' ']) && !name.contains(char::is_whitespace);
        plain.then(|| package(name, version)).flatten()
    };
    Ok(text.lines().filter_map(pin).collect())
}

/// The text of a file as pip reads it: UTF-8, or UTF-16 by its mark, as PowerShell redirects.
fn decoded(bytes: &[u8]) -> Option<String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let text: Result<String, _> = char::decode_utf16(units.iter().copied().map(unit)).collect();
        text.ok().filter(|_| rest.is_empty())
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => String::from_utf8(rest.to_vec()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(read: fn(&[u8]) -> Listed, text: &str, expected: &[(&str, &str)]) {
        let packages = read(text.as_bytes()).unwrap();
        let found: Vec<(String, &str)> = packages
            .iter()
            .map(|one| (one.purl.to_string(), one.license.as_str()))
            .collect();
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(purl, one)| (purl.as_str(), *one))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn metadata() {
        let text =
            "Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.2.0\nLicense: MIT\n\nName: no\n";
        check(read_metadata, text, &[("pkg:pypi/foo-bar@1.2.0", "MIT")]);
        let text = "Name: a\nVersion: 1\nLicense: UNKNOWN\nClassifier: License :: OSI Approved\nClassifier: License :: OSI Approved :: MIT License\n";
        check(read_metadata, text, &[("pkg:pypi/a@1", "MIT License")]);
        assert!(read_metadata(b"").is_err());
    }

    #[test]
    fn locks() {
        let text = "[[package]]\nname = \"a\"\nversion = \"1\"\n[[package]]\nname = \"own\"\nversion = \"0\"\nsource = { editable = \".\" }\n";
        check(read_lock, text, &[("pkg:pypi/a@1", "")]);
        let text = r#"{"default":{"a":{"version":"==1.0"}},"develop":{}}"#;
        check(read_pipfile_lock, text, &[("pkg:pypi/a@1.0", "")]);
        let text = "# c\n-r other.txt\nDjango==4.2.1 ; python_version > '3'\nx>=1\nuvicorn[standard]==0.2 \\\n    --hash=sha256:0\ny==1.*\n";
        let expected = [("pkg:pypi/django@4.2.1", ""), ("pkg:pypi/uvicorn@0.2", "")];
        check(read_requirements, text, &expected);
        check(read_requirements, "\u{feff}a==1\n", &[("pkg:pypi/a@1", "")]);
        let wide: Vec<u8> = "\u{feff}a==1\r\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(read_requirements(&wide).unwrap().len(), 1);
        for bytes in [&b"a==1 # \xe9\n"[..], b"\xff\xfea"] {
            assert!(read_requirements(bytes).is_err());
        }
        assert!(read_pipfile_lock(b"[]").is_err());
    }
}
