//! Paths below a root, as bytes: relative, normalised, and ordered so that subtrees are contiguous.

use std::cmp::Ordering;
use std::fmt;

/// The kernel's PATH_MAX, which also bounds what a hostile archive can make of one entry.
const MOST_BYTES: usize = 4096;
/// The kernel's NAME_MAX.
const MOST_NAME_BYTES: usize = 255;

/// A relative, normalised path below some root; the empty path is the root itself.
///
/// Components are separated by one `/`, none is empty, `.` or `..`, there is no NUL, a
/// component has at most 255 bytes and the whole at most 4096. The order
/// compares component by component (`a` < `a/b` < `a-b`), so a directory is directly followed by
/// everything below it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Vec<u8>);

/// A path cannot name something below a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path `{path}` {reason}")]
pub struct PathError {
    path: String,
    reason: &'static str,
}

impl PathError {
    pub(crate) fn new(path: &[u8], reason: &'static str) -> Self {
        Self {
            path: display(path),
            reason,
        }
    }
}

impl TreePath {
    /// The root itself.
    pub const ROOT: TreePath = TreePath(Vec::new());

    /// Checks that `path` is relative and normalised already.
    pub fn new(path: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let path = path.into();
        match flaw(&path) {
            Some(reason) => Err(PathError::new(&path, reason)),
            None => Ok(Self(path)),
        }
    }

    /// Makes a tree path of a path as people and archives write it.
    ///
    /// Leading, trailing and doubled slashes and `.` components are dropped; `..` is refused, since
    /// what it means depends on links.
    pub fn normalise(path: &[u8]) -> Result<Self, PathError> {
        let mut out = Vec::with_capacity(path.len());
        for component in path.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(PathError::new(path, "contains `..`")),
                _ => {}
            }
            if !out.is_empty() {
                out.push(b'/');
            }
            out.extend_from_slice(component);
        }
        Self::new(out)
    }

    /// The same with `..` taken for the component before it, whatever that is; at the beginning it is refused,
    /// but after a leading slash.
    pub fn lexical(path: &[u8]) -> Result<Self, PathError> {
        let mut components: Vec<&[u8]> = Vec::new();
        for component in path.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." if components.pop().is_some() || path.starts_with(b"/") => {}
                b".." => return Err(PathError::new(path, "leads out with `..`")),
                _ => components.push(component),
            }
        }
        Self::new(components.join(&b'/'))
    }

    /// The path's bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this, or `None` for the root.
    pub fn parent(&self) -> Option<TreePath> {
        parent(&self.0).map(|parent| TreePath(parent.to_vec()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        split(&self.0).1
    }

    /// The components from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|&byte| byte == b'/')
            .filter(|component| !component.is_empty())
    }

    /// Returns the path of `name` in this directory; `name` must be one component.
    pub fn join(&self, name: &[u8]) -> Result<TreePath, PathError> {
        if name.contains(&b'/') || name.is_empty() {
            return Err(PathError::new(name, "is not one path component"));
        }
        if let Some(reason) = flaw(name) {
            return Err(PathError::new(name, reason));
        }
        Ok(self.child(name))
    }

    /// Whether this is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &[u8]) -> bool {
        is_within(&self.0, ancestor)
    }

    /// Joins a name that the kernel or a checked decoder gave.
    pub(crate) fn child(&self, name: &[u8]) -> TreePath {
        let mut path = Vec::with_capacity(self.0.len() + 1 + name.len());
        path.extend_from_slice(&self.0);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        TreePath(path)
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Compares two paths component by component, which sorts a subtree directly after its root.
pub fn compare(left: &[u8], right: &[u8]) -> Ordering {
    match left.iter().zip(right).position(|(a, b)| a != b) {
        None => left.len().cmp(&right.len()),
        Some(at) => rank(left[at]).cmp(&rank(right[at])),
    }
}

fn rank(byte: u8) -> u8 {
    // NUL cannot occur, so its place is free for the separator.
    if byte == b'/' { 0 } else { byte }
}

/// Whether `path` is `ancestor` or lies below it.
pub fn is_within(path: &[u8], ancestor: &[u8]) -> bool {
    ancestor.is_empty()
        || path
            .strip_prefix(ancestor)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Splits a path into its directory and its name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// The directory that holds `path`, or `None` for the root.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    (!path.is_empty()).then(|| split(path).0)
}

/// Shows a path or name in a message: escaped, and never longer than a few lines.
pub(crate) fn display(bytes: &[u8]) -> String {
    const MOST: usize = 512;
    if bytes.len() <= MOST {
        return bytes.escape_ascii().to_string();
    }
    format!(
        "{}... ({} bytes)",
        bytes[..MOST].escape_ascii(),
        bytes.len()
    )
}

fn flaw(path: &[u8]) -> Option<&'static str> {
    if path.is_empty() {
        return None;
    }
    if path.len() > MOST_BYTES {
        return Some("is longer than 4096 bytes");
    }
    if path.contains(&0) {
        return Some("contains a NUL byte");
    }
    path.split(|&byte| byte == b'/')
        .find_map(|component| match component {
            b"" => Some("has an empty component"),
            b"." => Some("contains `.`"),
            b".." => Some("contains `..`"),
            _ if component.len() > MOST_NAME_BYTES => Some("has a name longer than 255 bytes"),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Option<&str>) {
        let normalised = TreePath::normalise(input.as_bytes()).ok();
        assert_eq!(
            normalised.as_ref().map(TreePath::as_bytes),
            expected.map(str::as_bytes),
            "{input}"
        );
    }

    #[test]
    fn normalises() {
        check("/a//b/./c/", Some("a/b/c"));
        check(".", Some(""));
        check("./", Some(""));
        check("a/../b", None);
        check("..", None);
        check("a\0b", None);
        check("...", Some("..."));
    }

    #[test]
    fn lexical_paths_stay_within() {
        let check = |input: &str, expected: Option<&str>| {
            let path = TreePath::lexical(input.as_bytes()).ok();
            let found = path.as_ref().map(TreePath::as_bytes);
            assert_eq!(found, expected.map(str::as_bytes), "{input}");
        };
        check("a/../b", Some("b"));
        check("./a/b/../../c/.", Some("c"));
        check("a/..", Some(""));
        check("/../a", Some("a"));
        check("../a", None);
        check("a/../../b", None);
    }

    #[test]
    fn new_is_strict() {
        for path in ["/a", "a/", "a//b", ".", "a/./b", "..", "a\0"] {
            assert!(TreePath::new(path).is_err(), "{path}");
        }
    }

    #[test]
    fn subtrees_are_contiguous() {
        let mut paths: Vec<_> = ["a-b", "a/b", "a", "a/b/c", "b", "", "a.b", "a/a"]
            .map(|path| TreePath::new(path).unwrap())
            .to_vec();
        paths.sort();
        let sorted: Vec<_> = paths.iter().map(TreePath::to_string).collect();
        assert_eq!(
            sorted,
            ["/", "/a", "/a/a", "/a/b", "/a/b/c", "/a-b", "/a.b", "/b"]
        );
    }

    #[test]
    fn within() {
        assert!(is_within(b"a/b", b"a"));
        assert!(is_within(b"a", b"a"));
        assert!(is_within(b"a", b""));
        assert!(!is_within(b"ab", b"a"));
    }
}
