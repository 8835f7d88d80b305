//! Ruby: `Gemfile.lock`, and the specifications of installed gems.

use super::package::{Listed, Package, clean};
use super::purl::Purl;

/// Reads `Gemfile.lock`: what stands four blanks deep below `specs:`.
pub(super) fn read_lock(bytes: &[u8]) -> Listed {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    let mut within = false;
    let mut is_gem = false;
    let mut has_section = false;
    for line in text.lines() {
        if !line.starts_with(' ') {
            // PATH is the project itself.
            is_gem = matches!(line.trim(), "GEM" | "GIT" | "PLUGIN SOURCE");
            has_section |= is_gem || matches!(line.trim(), "PATH" | "PLATFORMS" | "DEPENDENCIES");
            within = false;
        } else if line.trim() == "specs:" {
            within = is_gem;
        } else if let Some(spec) = line.strip_prefix("    ").filter(|_| within)
            && !spec.starts_with(' ')
            && let Some((name, version)) = spec.split_once(" (")
        {
            let version = version.trim_end_matches(')');
            // A platform may follow.
            let (version, platform) = version.split_once('-').unwrap_or((version, ""));
            let purl = Purl::new("gem", name, version).with("platform", platform);
            packages.push(Package::new(purl));
        }
    }
    match has_section {
        true => Ok(packages),
        false => Err("it has none of the sections of one".into()),
    }
}

/// Reads an installed `.gemspec`, as RubyGems writes it.
pub(super) fn read_gemspec(bytes: &[u8]) -> Listed {
    let text = String::from_utf8_lossy(bytes);
    let value = |key: &str| {
        let mut lines = text.lines().map(str::trim);
        let value = lines.find_map(|line| {
            let rest = line.strip_prefix("s.")?.strip_prefix(key)?.trim_start();
            rest.strip_prefix('=')
        });
        let quoted = value.and_then(|value| value.split('"').nth(1));
        quoted.unwrap_or_default().to_owned()
    };
    let (name, version) = (value("name"), value("version"));
    if name.is_empty() || version.is_empty() {
        // One that computes them, as in a gem's own sources.
        return Ok(Vec::new());
    }
    let package = Package::new(Purl::new("gem", &name, &version));
    Ok(vec![Package {
        homepage: clean(&value("homepage")),
        supplier: clean(&value("authors")),
        ..package.licensed(value("licenses"))
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock() {
        let text = "GEM\n  remote: https://rubygems.org/\n  specs:\n    rack (2.2.8)\n      other (>= 1)\n    nokogiri (1.16.0-x86_64-linux)\n\nPATH\n  specs:\n    own (1)\n\nPLATFORMS\n  ruby\n";
        let packages = read_lock(text.as_bytes()).unwrap();
        let purls: Vec<String> = packages.iter().map(|one| one.purl.to_string()).collect();
        let expected = [
            "pkg:gem/rack@2.2.8",
            "pkg:gem/nokogiri@1.16.0?platform=x86_64-linux",
        ];
        assert_eq!(purls, expected);
        assert!(read_lock(b"<html>").is_err());
    }

    #[test]
    fn gemspec() {
        let text = "Gem::Specification.new do |s|\n  s.name = \"rake\".freeze\n  s.version = \"13.0.6\"\n  s.licenses = [\"MIT\".freeze]\n  s.homepage = \"https://x\".freeze\nend\n";
        let packages = read_gemspec(text.as_bytes()).unwrap();
        assert_eq!(packages[0].purl.to_string(), "pkg:gem/rake@13.0.6");
        assert_eq!(packages[0].license, "MIT");
        assert_eq!(read_gemspec(b"s.version = VERSION"), Ok(vec![]));
    }
}
