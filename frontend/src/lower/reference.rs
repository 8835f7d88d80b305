//! Image references in their normalised form.

/// The registry of names that have none.
const DEFAULT_DOMAIN: &str = "docker.io";

/// Returns `registry/repository` with a tag or digest: `alpine` is
/// `docker.io/library/alpine:latest`.
///
/// The error says what is wrong with the name. Source: the distribution project's reference grammar.
pub fn normalize(name: &str) -> Result<String, String> {
    let invalid = || "invalid reference format".to_owned();
    if name.len() == 64 && is_hex(name) {
        return Err(format!(
            "invalid repository name ({name}), cannot specify 64-byte hexadecimal strings"
        ));
    }
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err(invalid());
    }
    let (domain, path) = split_domain(rest);
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (path.as_str(), None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(invalid());
    }
    if path.chars().any(char::is_uppercase) {
        return Err(format!(
            "invalid reference format: repository name ({path}) must be lowercase"
        ));
    }
    if !is_domain(domain) || !path.split('/').all(is_component) {
        return Err(invalid());
    }
    if domain.len() + path.len() + 1 > 255 {
        return Err("repository name must not be more than 255 characters".to_owned());
    }
    let tag = match (tag, digest) {
        (None, None) => ":latest".to_owned(),
        (None, Some(_)) => String::new(),
        (Some(tag), _) => format!(":{tag}"),
    };
    let digest = digest
        .map(|digest| format!("@{digest}"))
        .unwrap_or_default();
    Ok(format!("{domain}/{path}{tag}{digest}"))
}

/// Returns the name as people write it: without the default registry and without `:latest`.
///
/// A name that is no reference is returned as it is.
pub(super) fn familiar(name: &str) -> String {
    let Ok(full) = normalize(name) else {
        return name.to_owned();
    };
    let short = full.strip_prefix("docker.io/").unwrap_or(&full);
    let short = short.strip_prefix("library/").unwrap_or(short);
    short.strip_suffix(":latest").unwrap_or(short).to_owned()
}

fn split_domain(name: &str) -> (&str, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, path))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (first, path)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    match domain {
        "index.docker.io" | DEFAULT_DOMAIN if !path.contains('/') => {
            (DEFAULT_DOMAIN, format!("library/{path}"))
        }
        "index.docker.io" => (DEFAULT_DOMAIN, path.to_owned()),
        _ => (domain, path.to_owned()),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return !address.is_empty()
            && address
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b':');
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let edge = |byte: Option<u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if !edge(component.bytes().next()) || !edge(component.bytes().next_back()) {
        return false;
    }
    component
        .split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        .all(|joint| {
            matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag
            .bytes()
            .all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

/// Says whether text is `algorithm:hex` with a known algorithm.
pub(super) fn is_digest(digest: &str) -> bool {
    match digest.split_once(':') {
        Some(("sha256", hex)) => hex.len() == 64 && is_hex(hex),
        Some(("sha384", hex)) => hex.len() == 96 && is_hex(hex),
        Some(("sha512", hex)) => hex.len() == 128 && is_hex(hex),
        _ => false,
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::{familiar, normalize};

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(normalize(name).as_deref(), Ok(expected));
    }

    #[test]
    fn normal_forms() {
        check("alpine", "docker.io/library/alpine:latest");
        check("alpine:3.20", "docker.io/library/alpine:3.20");
        check("me/app", "docker.io/me/app:latest");
        check(
            "index.docker.io/library/alpine",
            "docker.io/library/alpine:latest",
        );
        check("docker.io/alpine", "docker.io/library/alpine:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/a/b:t", "localhost:5000/a/b:t");
        check("[::1]:5000/a", "[::1]:5000/a:latest");
        let digest = format!("a@sha256:{}", "0".repeat(64));
        check(&digest, &format!("docker.io/library/{digest}"));
        let both = format!("a:t@sha256:{}", "0".repeat(64));
        check(&both, &format!("docker.io/library/{both}"));
    }

    #[test]
    fn wrong_names() {
        for name in [
            "",
            ":",
            "a:",
            "a b",
            "Alpine",
            "-a",
            "a/",
            "a//b",
            "a@sha256:1",
            "x..y",
            "a:.t",
        ] {
            assert!(normalize(name).is_err(), "{name}");
        }
        assert!(normalize(&"a".repeat(64)).is_err());
        assert!(normalize(&"a/".repeat(200)).is_err());
    }

    #[test]
    fn familiar_forms() {
        assert_eq!(familiar("docker.io/library/alpine:latest"), "alpine");
        assert_eq!(familiar("me/app"), "me/app");
        assert_eq!(familiar("base"), "base");
    }
}
