//! Dart: `pubspec.lock`.

use super::package::{Listed, Package};
use super::purl::Purl;

/// Reads the packages of `pubspec.lock`: two blanks deep, their versions four.
pub(super) fn read(bytes: &[u8]) -> Listed {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    let mut within = false;
    let mut is_lock = false;
    let mut name = "";
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        match (depth, line.trim().split_once(':')) {
            (0, Some((key, _))) => {
                within = key == "packages";
                is_lock |= within;
            }
            (2, Some((key, _))) if within => name = key.trim_matches('"'),
            (4, Some(("version", version))) if within && !name.is_empty() => {
                let version = version.trim().trim_matches('"');
                packages.push(Package::new(Purl::new("pub", name, version)));
                name = "";
            }
            _ => {}
        }
    }
    match is_lock {
        true => Ok(packages),
        false => Err("it has no packages, as a lock has them".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock() {
        let text = "packages:\n  async:\n    dependency: transitive\n    description:\n      name: async\n    version: \"2.11.0\"\nsdks:\n  dart: \">=3\"\n";
        let packages = read(text.as_bytes()).unwrap();
        assert_eq!(packages[0].purl.to_string(), "pkg:pub/async@2.11.0");
        assert_eq!(packages.len(), 1);
        assert!(read(b"nope").is_err());
    }
}
