//! Image references, as docker reads, completes and shortens them.
//!
//! The grammar is that of distribution's `reference` package:
//! `[domain[:port]/]path[:tag][@digest]`. A reference is always complete in here: `alpine` is
//! `docker.io/library/alpine:latest`. Ids of images are hex digits and look like names; telling
//! them apart is the caller's matter, who knows the ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{DigestError, Sha256Digest};

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const OFFICIAL: &str = "library/";

/// The longest `domain/path` that the grammar allows.
const NAME_LIMIT_BYTES: usize = 255;

/// A complete image reference: a registry, a repository, and a tag or a digest or both.
///
/// With both, the digest decides and the tag only tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Sha256Digest>,
}

/// Why a string is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is nothing.
    #[error("image reference is empty")]
    Empty,
    /// The repository has capitals, which no registry allows.
    #[error("image reference `{text}` has capitals in its repository name; write `{lower}`")]
    Uppercase {
        /// The whole text.
        text: String,
        /// The same with a lower-case repository.
        lower: String,
    },
    /// The registry's name is not a host with an optional port.
    #[error(
        "image reference `{text}` has the registry `{domain}`, which is not a host name with an optional port"
    )]
    Domain {
        /// The whole text.
        text: String,
        /// The part at fault.
        domain: String,
    },
    /// A part of the repository's path has a character or a separator where none may be.
    #[error(
        "image reference `{text}` has the invalid repository part `{component}`; parts are made of a-z and 0-9, with single `.`, one or two `_`, or any `-` between"
    )]
    Component {
        /// The whole text.
        text: String,
        /// The part at fault.
        component: String,
    },
    /// The tag is too long or has a character that no tag may have.
    #[error(
        "image reference `{text}` has the invalid tag `{tag}`; a tag is up to 128 of A-Z, a-z, 0-9, `_`, `.` and `-`, not beginning with `.` or `-`"
    )]
    Tag {
        /// The whole text.
        text: String,
        /// The tag.
        tag: String,
    },
    /// What follows `@` is not a digest that is read here.
    #[error("image reference `{text}` has an invalid digest")]
    Digest {
        /// The whole text.
        text: String,
        /// Why.
        #[source]
        source: DigestError,
    },
    /// The name is longer than registries allow.
    #[error("image reference has a name of {0} bytes; the limit is 255")]
    TooLong(usize),
}

impl Reference {
    /// Parses and completes a reference as the user wrote it.
    ///
    /// A name without tag and digest gets the tag `latest`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let shown = || text.chars().take(300).collect::<String>();
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|source| ReferenceError::Digest {
                    text: shown(),
                    source,
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag {
                text: shown(),
                tag: tag.chars().take(150).collect(),
            });
        }
        let (domain, path) = split_domain(name);
        if !is_domain(domain) {
            return Err(ReferenceError::Domain {
                text: shown(),
                domain: domain.chars().take(150).collect(),
            });
        }
        for component in path.split('/') {
            if is_component(component) {
                continue;
            }
            if is_component(&component.to_ascii_lowercase()) {
                let lower = text.replacen(path, &path.to_ascii_lowercase(), 1);
                return Err(ReferenceError::Uppercase {
                    text: shown(),
                    lower,
                });
            }
            let component = component.chars().take(150).collect();
            return Err(ReferenceError::Component {
                text: shown(),
                component,
            });
        }
        let domain = if domain == "index.docker.io" {
            DEFAULT_DOMAIN
        } else {
            domain
        };
        let repository = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{OFFICIAL}{path}")
        } else {
            path.to_owned()
        };
        let length = domain.len() + 1 + repository.len();
        if length > NAME_LIMIT_BYTES {
            return Err(ReferenceError::TooLong(length));
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            domain: domain.to_owned(),
            repository,
            tag,
            digest,
        })
    }

    /// Returns the registry as references name it: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the repository within the registry: `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag, if it has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest of the manifest, if the reference has it.
    pub fn digest(&self) -> Option<&Sha256Digest> {
        self.digest.as_ref()
    }

    /// Returns the host and port that serve the registry: `registry-1.docker.io` for `docker.io`.
    pub fn registry_host(&self) -> &str {
        registry_host(&self.domain)
    }

    /// Returns `domain/repository` without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.repository)
    }

    /// Returns what follows `/manifests/` when the registry is asked: the digest, or else the tag.
    pub fn identifier(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// Returns the short form that people use: `alpine:latest`, with the tag and digest it has.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        self.push_suffix(&mut text);
        text
    }

    /// Returns the short form of the name alone: `alpine`, `user/app`, `ghcr.io/x/y`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.repository.strip_prefix(OFFICIAL) {
            // Dropping the prefix of `library/a/b` would give another repository's name.
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// Returns the name that images are kept and found by: with a digest it has no tag, which would decide nothing.
    pub fn decisive(&self) -> String {
        match self.digest {
            Some(digest) => self.at(digest).to_string(),
            None => self.to_string(),
        }
    }

    /// Returns the same repository at this digest; the tag stays.
    #[must_use]
    pub fn with_digest(&self, digest: Sha256Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Returns the same repository at this digest alone, without a tag.
    #[must_use]
    pub fn at(&self, digest: Sha256Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Returns the same repository at this tag, without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag {
                text: self.name(),
                tag: tag.chars().take(150).collect(),
            });
        }
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

/// Returns the host and port that serve a registry of this name.
pub fn registry_host(domain: &str) -> &str {
    if domain == DEFAULT_DOMAIN {
        "registry-1.docker.io"
    } else {
        domain
    }
}

/// Splits `name` as docker does: the first part is a registry only if it looks like a host.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn is_domain(domain: &str) -> bool {
    let port_is_good = |port: &str| {
        !port.is_empty()
            && port.bytes().all(|digit| digit.is_ascii_digit())
            && port.parse::<u16>().is_ok()
    };
    if let Some(address) = domain.strip_prefix('[') {
        let Some((address, port)) = address.split_once(']') else {
            return false;
        };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(port_is_good));
    }
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let label_is_good = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label_is_good) && port.is_none_or(port_is_good)
}

/// `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-')
    })
}

/// `[\w][\w.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|&byte| word(byte))
        && bytes
            .iter()
            .all(|&byte| word(byte) || matches!(byte, b'.' | b'-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// `#` stands for a digest.
    fn check(input: &str, full: &str, familiar: &str) {
        let reference = Reference::parse(&input.replace('#', D)).unwrap();
        assert_eq!(reference.to_string().replace(D, "#"), full, "{input}");
        assert_eq!(reference.familiar().replace(D, "#"), familiar, "{input}");
        assert_eq!(
            Reference::parse(&reference.to_string()).as_ref(),
            Ok(&reference),
            "{input}"
        );
        assert_eq!(
            Reference::parse(&reference.familiar()).as_ref(),
            Ok(&reference),
            "{input}"
        );
    }

    #[test]
    fn names_are_completed_and_shortened() {
        check("alpine", "docker.io/library/alpine:latest", "alpine:latest");
        check(
            "alpine:3.20",
            "docker.io/library/alpine:3.20",
            "alpine:3.20",
        );
        check(
            "library/alpine",
            "docker.io/library/alpine:latest",
            "alpine:latest",
        );
        check(
            "docker.io/alpine",
            "docker.io/library/alpine:latest",
            "alpine:latest",
        );
        check(
            "index.docker.io/alpine",
            "docker.io/library/alpine:latest",
            "alpine:latest",
        );
        check("user/app", "docker.io/user/app:latest", "user/app:latest");
        check(
            "docker.io/library/a/b",
            "docker.io/library/a/b:latest",
            "library/a/b:latest",
        );
        check("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1");
        check(
            "a__b.c-d---e",
            "docker.io/library/a__b.c-d---e:latest",
            "a__b.c-d---e:latest",
        );
    }

    #[test]
    fn the_first_part_is_a_registry_if_it_looks_like_a_host() {
        check("localhost/x", "localhost/x:latest", "localhost/x:latest");
        check(
            "localhost:5000/x",
            "localhost:5000/x:latest",
            "localhost:5000/x:latest",
        );
        check(
            "127.0.0.1:5000/x:y",
            "127.0.0.1:5000/x:y",
            "127.0.0.1:5000/x:y",
        );
        check("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest");
        check("host:5000/x", "host:5000/x:latest", "host:5000/x:latest");
        check("UPPER/x", "UPPER/x:latest", "UPPER/x:latest");
        check("host/x", "docker.io/host/x:latest", "host/x:latest");
        check(
            "localhost",
            "docker.io/library/localhost:latest",
            "localhost:latest",
        );
        check(
            "localhost:5000",
            "docker.io/library/localhost:5000",
            "localhost:5000",
        );
    }

    #[test]
    fn digests_stand_beside_or_instead_of_tags() {
        check("alpine@#", "docker.io/library/alpine@#", "alpine@#");
        check("alpine:3@#", "docker.io/library/alpine:3@#", "alpine:3@#");
        check(
            "localhost:5000/x@#",
            "localhost:5000/x@#",
            "localhost:5000/x@#",
        );
    }

    fn refuse(input: &str, message: &str) {
        let error = Reference::parse(input).unwrap_err().to_string();
        assert!(error.contains(message), "{input}: {error}");
    }

    #[test]
    fn what_is_no_reference_is_refused_with_a_reason() {
        refuse("", "empty");
        refuse(
            "Alpine",
            "has capitals in its repository name; write `alpine`",
        );
        refuse("docker.io/User/App:V1", "write `docker.io/user/app:V1`");
        refuse("alpine:", "invalid tag ``");
        refuse("alpine:.x", "invalid tag `.x`");
        refuse(&format!("alpine:{}", "x".repeat(129)), "invalid tag");
        refuse("a//b", "invalid repository part ``");
        refuse("/a", "invalid repository part ``");
        refuse("a/", "invalid repository part ``");
        refuse("a..b", "invalid repository part `a..b`");
        refuse("a___b", "invalid repository part `a___b`");
        refuse("-a", "invalid repository part `-a`");
        refuse("a b", "invalid repository part `a b`");
        refuse("a@sha256:00", "invalid digest");
        refuse("a@sha512:00", "invalid digest");
        refuse("a@", "invalid digest");
        refuse("ho_st.com/x", "registry `ho_st.com`");
        refuse("host:99999/x", "registry `host:99999`");
        refuse("host:/x", "registry `host:`");
        refuse("http://host/x", "registry `http:`");
        refuse("[::g]/x", "registry `[::g]`");
        refuse(&"a/".repeat(200), "");
        refuse(&format!("x.io/{}", "a".repeat(300)), "305");
        refuse("é", "invalid repository part");
    }

    #[test]
    fn parts_are_told() {
        let reference: Reference = "alpine".parse().unwrap();
        assert_eq!(reference.registry_host(), "registry-1.docker.io");
        assert_eq!(reference.identifier(), "latest");
        let pinned = reference.with_digest(D.parse().unwrap());
        assert_eq!(pinned.identifier(), D);
        assert_eq!(pinned.tag(), Some("latest"));
        assert_eq!(
            pinned.with_tag("v2").unwrap().to_string(),
            "docker.io/library/alpine:v2"
        );
        assert!(pinned.with_tag("no/tag").is_err());
        assert_eq!(reference.decisive(), "docker.io/library/alpine:latest");
        assert_eq!(pinned.decisive(), format!("docker.io/library/alpine@{D}"));
    }
}
