//! Node: installed `package.json` files, and the locks of npm, yarn and pnpm.

use serde_json::Value;

use super::package::{Flaw, Listed, Package, clean};
use super::purl::Purl;

fn package(name: &str, version: &str) -> Option<Package> {
    if name.is_empty() || version.is_empty() || name.contains(char::is_whitespace) {
        return None;
    }
    let (scope, name) = match name.strip_prefix('@').and_then(|rest| rest.split_once('/')) {
        Some((scope, name)) => (format!("@{scope}"), name),
        None => (String::new(), name),
    };
    // npm's names are in lower case today; old ones are not, and mean another package.
    Some(Package::new(Purl::new("npm", name, version).within(&scope)))
}

/// Reads the `package.json` of an installed package.
pub(super) fn read_installed(bytes: &[u8]) -> Listed {
    let json: Value = serde_json::from_slice(bytes)?;
    let text = |key: &str| json[key].as_str().unwrap_or_default();
    // Packages hold further files of that name, which say no more than how a directory is loaded.
    let Some(package) = package(text("name"), text("version")) else {
        return Ok(Vec::new());
    };
    let license = match &json["license"] {
        Value::String(license) => license.clone(),
        Value::Object(license) => license["type"].as_str().unwrap_or_default().to_owned(),
        _ => json["licenses"][0]["type"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    };
    let author = match &json["author"] {
        Value::String(author) => author.as_str(),
        author => author["name"].as_str().unwrap_or_default(),
    };
    Ok(vec![Package {
        supplier: clean(author),
        homepage: clean(text("homepage")),
        ..package.licensed(license)
    }])
}

/// Reads `package-lock.json` of any version, and npm's own `node_modules/.package-lock.json`.
pub(super) fn read_npm_lock(bytes: &[u8]) -> Listed {
    let json: Value = serde_json::from_slice(bytes)?;
    let mut packages = Vec::new();
    if let Some(listed) = json["packages"].as_object() {
        for (path, entry) in listed {
            // The empty path is the project, and links lead to others of it.
            let Some((_, name)) = path.rsplit_once("node_modules/") else {
                continue;
            };
            let name = entry["name"].as_str().unwrap_or(name);
            let version = entry["version"].as_str().unwrap_or_default();
            let license = entry["license"].as_str().unwrap_or_default();
            packages.extend(package(name, version).map(|package| package.licensed(license)));
        }
        return Ok(packages);
    }
    let is_lock = json.get("packages").is_none()
        && (json["lockfileVersion"].is_number() || json["dependencies"].is_object());
    if !is_lock {
        return Err("it has neither packages nor dependencies as a lock has them".into());
    }
    let mut open: Vec<&Value> = vec![&json["dependencies"]];
    while let Some(dependencies) = open.pop() {
        for (name, entry) in dependencies.as_object().into_iter().flatten() {
            packages.extend(package(name, entry["version"].as_str().unwrap_or_default()));
            open.push(&entry["dependencies"]);
        }
    }
    Ok(packages)
}

/// Reads `yarn.lock` of yarn 1 and of later ones.
pub(super) fn read_yarn_lock(bytes: &[u8]) -> Listed {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    let mut name = "";
    for (index, line) in text.lines().enumerate() {
        if line.starts_with([' ', '#']) || line.trim().is_empty() {
            if let Some(rest) = line.strip_prefix("  version") {
                let version = rest.trim_start_matches(':').trim().trim_matches('"');
                packages.extend(package(name, version));
                name = "";
            }
            continue;
        }
        let Some(keys) = line.trim_end().strip_suffix(':') else {
            return Err(Flaw(format!("line {} is none of a lock", index + 1)));
        };
        name = yarn_name(keys);
    }
    Ok(packages)
}

/// The package of `"a@^1.0.0, a@^1.1.0"` or of `"alias@npm:a@^1.0.0"`; empty if it is the project's own.
fn yarn_name(keys: &str) -> &str {
    let first = keys.split(", ").next().unwrap_or_default();
    let first = first.trim_matches('"');
    let Some((name, range)) = split_at_sign(first) else {
        return "";
    };
    if range.starts_with("workspace:") {
        return "";
    }
    let aliased = range.strip_prefix("npm:").and_then(split_at_sign);
    aliased.map_or(name, |(name, _)| name)
}

/// What stands before and after the first `@` that is not that of a scope.
fn split_at_sign(text: &str) -> Option<(&str, &str)> {
    let (end, _) = text.char_indices().skip(1).find(|(_, c)| *c == '@')?;
    Some((&text[..end], &text[end + 1..]))
}

/// Reads the keys of `packages` of `pnpm-lock.yaml`, of any version.
pub(super) fn read_pnpm_lock(bytes: &[u8]) -> Listed {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    let mut within = false;
    let mut is_lock = false;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if !line.starts_with(' ') {
            is_lock |= line.starts_with("lockfileVersion:");
            within = line.trim_end() == "packages:";
            continue;
        }
        let key = line
            .strip_prefix("  ")
            .filter(|key| within && !key.starts_with(' '));
        if let Some(key) = key.and_then(|key| key.trim_end().strip_suffix(':')) {
            let (name, version) = pnpm_key(key.trim_matches(['\'', '"']));
            packages.extend(package(name, version));
        }
    }
    match is_lock {
        true => Ok(packages),
        false => Err("it names no lockfileVersion".into()),
    }
}

/// Name and version of `name@1.0.0(peer@2.0.0)`, or as it was before, `/name/1.0.0_peer@2.0.0`.
fn pnpm_key(key: &str) -> (&str, &str) {
    let key = key.trim_start_matches('/');
    let scope = match key.starts_with('@') {
        true => key.find('/').map_or(0, |slash| slash + 1),
        false => 0,
    };
    match key[scope..].find(['@', '/']) {
        Some(end) => {
            let (name, version) = (&key[..scope + end], &key[scope + end + 1..]);
            (name, version.split(['(', '_']).next().unwrap_or_default())
        }
        None => (key, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(read: fn(&[u8]) -> Listed, text: &str, expected: &[&str]) {
        let packages = read(text.as_bytes()).unwrap();
        let purls: Vec<String> = packages.iter().map(|one| one.purl.to_string()).collect();
        assert_eq!(purls, expected);
    }

    #[test]
    fn installed() {
        let text =
            r#"{"name":"@babel/core","version":"7.24.0","license":"MIT","author":{"name":"B"}}"#;
        check(read_installed, text, &["pkg:npm/%40babel/core@7.24.0"]);
        check(read_installed, r#"{"type":"module"}"#, &[]);
        assert!(read_installed(b"{").is_err());
    }

    #[test]
    fn npm_locks() {
        let text = r#"{"lockfileVersion":3,"packages":{"":{"name":"app","version":"1.0.0"},
            "node_modules/a":{"version":"1.2.3","license":"ISC"},
            "node_modules/a/node_modules/@s/b":{"version":"2.0.0"}}}"#;
        check(
            read_npm_lock,
            text,
            &["pkg:npm/a@1.2.3", "pkg:npm/%40s/b@2.0.0"],
        );
        let text = r#"{"lockfileVersion":1,"dependencies":{"a":{"version":"1.2.3",
            "dependencies":{"b":{"version":"0.1.0"}}}}}"#;
        check(read_npm_lock, text, &["pkg:npm/a@1.2.3", "pkg:npm/b@0.1.0"]);
        check(read_npm_lock, r#"{"lockfileVersion":1}"#, &[]);
        for text in ["[]", r#"{"packages":[]}"#, r#"{"name":"a"}"#] {
            assert!(read_npm_lock(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn yarn_locks() {
        let text = "# yarn lockfile v1\n\n\"@babel/core@^7.0.0\", \"@babel/core@^7.1.0\":\n  version \"7.24.0\"\n\nleft-pad@^1.0.0:\n  version \"1.3.0\"\n";
        let expected = ["pkg:npm/%40babel/core@7.24.0", "pkg:npm/left-pad@1.3.0"];
        check(read_yarn_lock, text, &expected);
        let text = "__metadata:\n  version: 8\n\n\"app@workspace:.\":\n  version: 0.0.0-use.local\n\n\"left-pad@npm:^1.0.0\":\n  version: 1.3.0\n  resolution: \"left-pad@npm:1.3.0\"\n";
        check(read_yarn_lock, text, &["pkg:npm/left-pad@1.3.0"]);
        let text =
            "\"alias@npm:@s/real@^1\":\n  version: 1.2.0\n  resolution: \"@s/real@npm:1.2.0\"\n";
        check(read_yarn_lock, text, &["pkg:npm/%40s/real@1.2.0"]);
        let flaw = read_yarn_lock(b"# yarn lockfile v1\n\n{broken\n").unwrap_err();
        assert_eq!(flaw.0, "line 3 is none of a lock");
    }

    #[test]
    fn pnpm_locks() {
        let text = "lockfileVersion: '9.0'\npackages:\n\n  '@s/b@2.0.0':\n    resolution: {integrity: x}\n\n  a@1.0.0(b@2.0.0):\n    resolution: {integrity: y}\n\nsnapshots:\n\n  c@1.0.0:\n";
        check(
            read_pnpm_lock,
            text,
            &["pkg:npm/%40s/b@2.0.0", "pkg:npm/a@1.0.0"],
        );
        let text = "lockfileVersion: 5.4\npackages:\n\n  /a/1.0.0:\n    dev: false\n  /@s/b/2.0.0_a@1.0.0:\n    dev: true\n";
        check(
            read_pnpm_lock,
            text,
            &["pkg:npm/a@1.0.0", "pkg:npm/%40s/b@2.0.0"],
        );
        assert!(read_pnpm_lock(b"packages:\n").is_err());
    }
}
