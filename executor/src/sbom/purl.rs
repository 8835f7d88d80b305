//! Package URLs (purl-spec), which name a package across tools.

use std::collections::BTreeMap;
use std::fmt;

use kiln_oci::reference::Reference;

use super::package::clean;

/// A package by its ecosystem, name and version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Purl {
    /// Such as `deb`.
    pub kind: &'static str,
    /// A distribution, a scope, a group; empty where the ecosystem has none.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The version; empty where it is unknown.
    pub version: String,
    /// Such as `arch`, sorted as they are written.
    pub qualifiers: BTreeMap<&'static str, String>,
}

impl Purl {
    pub(super) fn new(kind: &'static str, name: &str, version: &str) -> Purl {
        Purl {
            kind,
            namespace: String::new(),
            name: clean(name),
            version: clean(version),
            qualifiers: BTreeMap::new(),
        }
    }

    pub(super) fn within(mut self, namespace: &str) -> Purl {
        self.namespace = clean(namespace);
        self
    }

    /// Adds a qualifier; an empty one is none.
    pub(super) fn with(mut self, key: &'static str, value: &str) -> Purl {
        if !value.trim().is_empty() {
            self.qualifiers.insert(key, clean(value));
        }
        self
    }

    /// The name as people of the ecosystem write it.
    pub fn full_name(&self) -> String {
        let between = match self.kind {
            _ if self.namespace.is_empty() => return self.name.clone(),
            "npm" | "golang" | "composer" => "/",
            "maven" => ":",
            // A distribution is no part of the name.
            _ => return self.name.clone(),
        };
        format!("{}{between}{}", self.namespace, self.name)
    }
}

impl fmt::Display for Purl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkg:{}/", self.kind)?;
        for part in self.namespace.split('/').filter(|part| !part.is_empty()) {
            write!(f, "{}/", Encoded(part))?;
        }
        write!(f, "{}", Encoded(&self.name))?;
        if !self.version.is_empty() {
            write!(f, "@{}", Encoded(&self.version))?;
        }
        for (index, (key, value)) in self.qualifiers.iter().enumerate() {
            let before = if index == 0 { '?' } else { '&' };
            write!(f, "{before}{key}={}", Encoded(value))?;
        }
        Ok(())
    }
}

/// Writes a part percent-encoded; the colon stays, as the specification demands.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                    write!(f, "{}", char::from(byte))?;
                }
                byte => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

/// The purl of an image, as BuildKit writes it: `pkg:docker/alpine@3.20?platform=linux%2Famd64`.
pub fn image_purl(kind: &'static str, reference: &str, platform: Option<&str>) -> String {
    let Ok(reference) = Reference::parse(reference) else {
        return Purl::new(kind, reference, "").to_string();
    };
    let familiar = reference.familiar_name();
    let (namespace, name) = familiar.rsplit_once('/').unwrap_or(("", &familiar));
    let digest = reference.digest().map(ToString::to_string);
    let version = match (reference.tag(), &digest) {
        (Some(tag), _) => tag,
        (None, Some(_)) => "",
        (None, None) => "latest",
    };
    Purl::new(kind, name, version)
        .within(namespace)
        .with("digest", digest.as_deref().unwrap_or_default())
        .with("platform", platform.unwrap_or_default())
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(purl: Purl, expected: &str) {
        assert_eq!(purl.to_string(), expected);
    }

    #[test]
    fn purls_of_the_specification() {
        check(
            Purl::new("deb", "curl", "7.50.3-1")
                .within("debian")
                .with("arch", "i386")
                .with("distro", "jessie"),
            "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie",
        );
        check(
            Purl::new("npm", "animation", "12.3.1").within("@angular"),
            "pkg:npm/%40angular/animation@12.3.1",
        );
        check(
            Purl::new("golang", "api", "244fd47e07d1").within("google.golang.org/genproto"),
            "pkg:golang/google.golang.org/genproto/api@244fd47e07d1",
        );
        check(
            Purl::new("deb", "attr", "1:2.4.47-2+b1").within("debian"),
            "pkg:deb/debian/attr@1:2.4.47-2%2Bb1",
        );
        check(Purl::new("gem", "a b/c", ""), "pkg:gem/a%20b%2Fc");
    }

    #[test]
    fn purls_of_images() {
        let check = |reference: &str, expected: &str| {
            assert_eq!(
                image_purl("docker", reference, Some("linux/amd64")),
                expected
            );
        };
        check(
            "alpine:3.20",
            "pkg:docker/alpine@3.20?platform=linux%2Famd64",
        );
        check(
            "docker.io/library/alpine",
            "pkg:docker/alpine@latest?platform=linux%2Famd64",
        );
        check(
            "ghcr.io/a/b:v1",
            "pkg:docker/ghcr.io/a/b@v1?platform=linux%2Famd64",
        );
        let digest = format!("sha256:{}", "ab".repeat(32));
        let encoded = digest.clone();
        check(
            &format!("alpine@{digest}"),
            &format!("pkg:docker/alpine?digest={encoded}&platform=linux%2Famd64"),
        );
    }
}
