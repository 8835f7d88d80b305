//! PHP: `composer.lock`, and composer's list of what is installed.

use serde_json::Value;

use super::package::{Listed, Package, clean};
use super::purl::Purl;

/// Reads `composer.lock`, or `vendor/composer/installed.json` of any version.
pub(super) fn read(bytes: &[u8]) -> Listed {
    let json: Value = serde_json::from_slice(bytes)?;
    let lists = [&json, &json["packages"], &json["packages-dev"]];
    if lists.iter().all(|list| !list.is_array()) {
        return Err("it has no list of packages".into());
    }
    let mut packages = Vec::new();
    for entry in lists.into_iter().filter_map(Value::as_array).flatten() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let (name, version) = (text("name").to_lowercase(), text("version"));
        if name.is_empty() || version.is_empty() {
            continue;
        }
        let (vendor, name) = name.split_once('/').unwrap_or(("", &name));
        let licenses = entry["license"].as_array().into_iter().flatten();
        let licenses: Vec<&str> = licenses.filter_map(Value::as_str).collect();
        let package = Package::new(Purl::new("composer", name, version).within(vendor));
        packages.push(Package {
            homepage: clean(text("homepage")),
            // Composer's lists are choices.
            ..package.licensed(licenses.join(" OR "))
        });
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let text = r#"{"packages":[{"name":"Symfony/console","version":"v6.4.0","license":["MIT"]}],"packages-dev":[]}"#;
        let packages = read(text.as_bytes()).unwrap();
        assert_eq!(
            packages[0].purl.to_string(),
            "pkg:composer/symfony/console@v6.4.0"
        );
        let text = r#"[{"name":"a/b","version":"1"}]"#;
        assert_eq!(read(text.as_bytes()).unwrap().len(), 1);
        assert!(read(b"nope").is_err());
        assert!(read(b"{}").is_err());
    }
}
