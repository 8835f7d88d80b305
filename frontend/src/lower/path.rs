//! Paths inside a root, as text: joined, cleaned, and with the trailing slash where it matters.

/// Returns `path` as an absolute clean path, relative ones taken from `base`.
///
/// `.`, `..` and doubled slashes are gone, and so is a trailing slash.
pub(super) fn absolute(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let start = if path.starts_with('/') { "" } else { base };
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Returns a copy's destination: absolute and clean, but a trailing `/` or `/.` stays, since it
/// says that the destination is a directory.
pub(super) fn destination(working_dir: &str, path: &str) -> String {
    let written = if path.is_empty() || path == "." {
        "./"
    } else {
        path
    };
    let mut clean = absolute(working_dir, written);
    if written.ends_with('/') && !clean.ends_with('/') {
        clean.push('/');
    } else if written.ends_with("/.") {
        if clean != "/" {
            clean.push('/');
        }
        clean.push('.');
    }
    clean
}

/// Returns the last part of a path; `/` for the root.
pub(super) fn base_name(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    match path.rsplit('/').next() {
        None | Some("") => "/",
        Some(name) => name,
    }
}

/// Says whether a path is a pattern: an unescaped `*`, `?` or `[`.
pub(super) fn has_wildcards(path: &str) -> bool {
    let mut letters = path.bytes();
    while let Some(letter) = letters.next() {
        match letter {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                letters.next();
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{absolute, base_name, destination, has_wildcards};

    #[test]
    fn absolute_paths() {
        assert_eq!(absolute("/app", "src/../lib//x/"), "/app/lib/x");
        assert_eq!(absolute("/app", "/x/."), "/x");
        assert_eq!(absolute("/", "../.."), "/");
        assert_eq!(absolute("", "a"), "/a");
    }

    #[test]
    fn destinations() {
        assert_eq!(destination("/app", "bin/"), "/app/bin/");
        assert_eq!(destination("/app", "."), "/app/");
        assert_eq!(destination("/app", ""), "/app/");
        assert_eq!(destination("/", "."), "/");
        assert_eq!(destination("/", "/x/."), "/x/.");
        assert_eq!(destination("/app", "bin"), "/app/bin");
    }

    #[test]
    fn names_and_patterns() {
        assert_eq!(base_name("/run/x/"), "x");
        assert_eq!(base_name("/"), "/");
        assert!(has_wildcards("a*"));
        assert!(!has_wildcards("a\\*"));
        assert!(has_wildcards("a\\\\?"));
    }
}
