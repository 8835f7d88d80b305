//! Which paths a copy takes: links, wildcards, and patterns of what to include and leave out.
//!
//! The digest that keys a copy and the copy itself both ask here, so that they cannot disagree.

use kiln_ir::pattern::{self, PatternError, PatternList, PatternState};
use kiln_solver::CopySelection;
use kiln_tree::TreePath;

use super::changeset::ChangeError;
use super::source::{Item, Source};

/// A copy cannot find what it is to take.
#[derive(Debug, thiserror::Error)]
pub enum PickError {
    /// Nothing is there.
    #[error("\"{path}\": not found")]
    NotFound {
        /// As written, from the root of the source.
        path: String,
    },
    /// A pattern is malformed.
    #[error("could not use a pattern of the copy")]
    Pattern(#[from] PatternError),
    /// A path cannot be followed.
    #[error("could not follow `{path}`")]
    Follow {
        /// As written.
        path: String,
        /// Why not.
        #[source]
        source: Box<ChangeError>,
    },
}

/// One thing that a copy takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pick {
    /// What it is called at the destination, if it becomes a member of a directory.
    pub(crate) name: Vec<u8>,
    /// Where it is, links followed.
    pub(crate) at: TreePath,
    /// Its contents are taken instead of itself.
    pub(crate) contents: bool,
}

/// An item of a pick, with its path below the pick; empty for the pick itself.
#[derive(Debug, Clone)]
pub(crate) struct Picked {
    pub(crate) item: Item,
    pub(crate) below: Vec<u8>,
}

/// Finds what a copy takes, in order.
pub(crate) fn picks(source: &impl Source, copy: &CopySelection) -> Result<Vec<Pick>, PickError> {
    let follow = |path: &[u8], last: bool| {
        source
            .resolve(path, last)
            .map_err(|error| PickError::Follow {
                path: String::from_utf8_lossy(path).into_owned(),
                source: Box::new(error),
            })
    };
    let not_found = || PickError::NotFound {
        path: format!("/{}", copy.src.trim_start_matches('/')),
    };
    let cleaned = pattern::clean(&format!("/{}", copy.src));
    let named: Vec<Vec<u8>> = if copy.allow_wildcard && pattern::has_wildcard(&cleaned) {
        let matches = wildcard(source, &cleaned, &follow)?;
        if matches.is_empty() && !copy.allow_empty_wildcard {
            return Err(not_found());
        }
        matches
    } else {
        let literal = if copy.allow_wildcard {
            unescape(&cleaned)
        } else {
            cleaned.clone()
        };
        vec![literal.into_bytes()]
    };
    let mut picks = Vec::new();
    for path in named {
        let at = follow(&path, copy.follow_symlink)?;
        let item = source.get(&at).ok_or_else(not_found)?;
        let name = path
            .rsplit(|&byte| byte == b'/')
            .next()
            .unwrap_or_default()
            .to_vec();
        let contents = copy.dir_copy_contents && item.kind.is_directory();
        picks.push(Pick { name, at, contents });
    }
    for required in &copy.required_paths {
        let path = pattern::clean(&format!("/{}", required));
        let found = if pattern::has_wildcard(&path) {
            !wildcard(source, &path, &follow)?.is_empty()
        } else {
            source.get(&follow(path.as_bytes(), false)?).is_some()
        };
        if !found {
            return Err(PickError::NotFound { path });
        }
    }
    Ok(picks)
}

/// Finds the paths that match, component by component, sorted.
fn wildcard(
    source: &impl Source,
    path: &str,
    follow: &impl Fn(&[u8], bool) -> Result<TreePath, PickError>,
) -> Result<Vec<Vec<u8>>, PickError> {
    let (literal, patterns) = split_wildcard(path);
    let found = matching(follow(&literal, true)?, &patterns, |at| source.list(at))?;
    let written = |below: &Vec<Vec<u8>>| {
        let mut path = literal.clone();
        for name in below {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    };
    Ok(found.iter().map(|(_, below)| written(below)).collect())
}

/// Parts a clean pattern at its first component with a wildcard.
pub(super) fn split_wildcard(path: &str) -> (Vec<u8>, Vec<&str>) {
    let components = path.split('/').filter(|component| !component.is_empty());
    let (mut literal, mut patterns) = (Vec::new(), Vec::new());
    for component in components {
        if patterns.is_empty() && !pattern::has_wildcard(component) {
            literal.push(b'/');
            literal.extend_from_slice(unescape(component).as_bytes());
        } else {
            patterns.push(component);
        }
    }
    (literal, patterns)
}

/// A path with the names that lead to it.
type Found = (TreePath, Vec<Vec<u8>>);

/// Finds what is below `start` by one pattern for each level, sorted.
///
/// No link on the way is followed, as in BuildKit: links in circles have no end of paths.
pub(super) fn matching(
    start: TreePath,
    patterns: &[&str],
    list: impl Fn(&TreePath) -> Vec<Vec<u8>>,
) -> Result<Vec<Found>, PickError> {
    let mut found: Vec<Found> = vec![(start, Vec::new())];
    for component in patterns {
        let mut next = Vec::new();
        for (above, names) in found {
            for name in list(&above) {
                if !pattern::wildcard_match(component, &String::from_utf8_lossy(&name))? {
                    continue;
                }
                // What no kernel could open is not there.
                if let Ok(at) = above.join(&name) {
                    next.push((at, [&names[..], &[name]].concat()));
                }
            }
        }
        found = next;
    }
    Ok(found)
}

/// Removes the backslashes that keep a wildcard literal.
fn unescape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

/// The items of a pick that the patterns leave, parents before what is in them.
///
/// A directory that no include pattern names comes only with something below it that one does.
pub(crate) fn items(
    source: &impl Source,
    pick: &Pick,
    copy: &CopySelection,
) -> Result<Vec<Picked>, PickError> {
    let below = |item: &Item| -> Vec<u8> {
        let path = item.path.as_bytes();
        match pick.at.as_bytes().len() {
            0 => path.to_vec(),
            length if path.len() > length => path[length + 1..].to_vec(),
            _ => Vec::new(),
        }
    };
    let all = source.within(&pick.at).into_iter().map(|item| Picked {
        below: below(&item),
        item,
    });
    if copy.include_patterns.is_empty() && copy.exclude_patterns.is_empty() {
        return Ok(all.collect());
    }
    let include = PatternList::new(&copy.include_patterns)?;
    let exclude = PatternList::new(&copy.exclude_patterns)?;
    let mut kept: Vec<Picked> = Vec::new();
    // Directories above the current item: path, what the patterns said, whether it is kept already.
    let mut above: Vec<(Picked, PatternState, PatternState, bool)> = Vec::new();
    for picked in all {
        while above
            .last()
            .is_some_and(|(directory, ..)| !inside(&picked.below, &directory.below))
        {
            above.pop();
        }
        let (outer_in, outer_out) = above
            .last()
            .map_or_else(Default::default, |(_, inside, outside, _)| {
                (*inside, *outside)
            });
        let named = match (picked.below.is_empty(), pick.contents) {
            (true, true) => String::new(),
            (true, false) => String::from_utf8_lossy(&pick.name).into_owned(),
            (false, _) => String::from_utf8_lossy(&picked.below).into_owned(),
        };
        let is_root = named.is_empty();
        let into = if is_root {
            outer_in
        } else {
            include.enter(outer_in, &named)
        };
        let out = if is_root {
            outer_out
        } else {
            exclude.enter(outer_out, &named)
        };
        let wanted = is_root || ((include.is_empty() || into.is_excluded()) && !out.is_excluded());
        if wanted {
            for (directory, _, _, is_kept) in &mut above {
                if !*is_kept {
                    *is_kept = true;
                    kept.push(directory.clone());
                }
            }
            kept.push(picked.clone());
        }
        if picked.item.kind.is_directory() {
            above.push((picked, into, out, wanted));
        }
    }
    Ok(kept)
}

fn inside(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || path
            .strip_prefix(directory)
            .is_some_and(|rest| rest.first() == Some(&b'/'))
}

#[cfg(test)]
mod tests {
    use kiln_tree::{FileDigest, Kind, Meta};

    use super::*;
    use crate::file::source::Origin;
    use crate::file::source::tests::Items;

    /// `name/` is a directory, `name -> target` a link, anything else a file.
    fn tree(paths: &[&str]) -> Items {
        let item = |line: &&str| {
            let (path, kind) = match line.split_once(" -> ") {
                Some((path, target)) => (
                    path,
                    Kind::Symlink {
                        target: target.into(),
                    },
                ),
                None if line.ends_with('/') => (line.trim_end_matches('/'), Kind::DIRECTORY),
                None => (
                    *line,
                    Kind::File {
                        size: 0,
                        digest: FileDigest([0; 32]),
                    },
                ),
            };
            Item {
                path: TreePath::new(path).unwrap(),
                kind,
                meta: Meta::new(0o644),
                origin: Origin::Nowhere,
            }
        };
        Items::new(
            [""].iter()
                .map(|_| Item {
                    path: TreePath::ROOT,
                    kind: Kind::DIRECTORY,
                    meta: Meta::new(0o755),
                    origin: Origin::Nowhere,
                })
                .chain(paths.iter().map(item)),
        )
    }

    fn check(paths: &[&str], copy: CopySelection, expected: &[&str]) {
        let tree = tree(paths);
        let picks = match picks(&tree, &copy) {
            Ok(picks) => picks,
            Err(error) => return assert_eq!([error.to_string().as_str()], expected),
        };
        let mut got = Vec::new();
        for pick in &picks {
            for picked in items(&tree, pick, &copy).unwrap() {
                got.push(format!(
                    "{}:{}",
                    String::from_utf8_lossy(&pick.name),
                    String::from_utf8_lossy(&picked.below)
                ));
            }
        }
        assert_eq!(got, expected);
    }

    fn copy(src: &str) -> CopySelection {
        CopySelection {
            src: src.into(),
            allow_wildcard: true,
            follow_symlink: true,
            dir_copy_contents: true,
            ..CopySelection::default()
        }
    }

    const TREE: &[&str] = &[
        "a/",
        "a/x.go",
        "a/y.txt",
        "b.go",
        "c.txt",
        "d -> a",
        "e -> c.txt",
    ];

    #[test]
    fn names_and_links() {
        check(TREE, copy("b.go"), &["b.go:"]);
        check(TREE, copy("/a"), &["a:", "a:x.go", "a:y.txt"]);
        check(TREE, copy("d"), &["d:", "d:x.go", "d:y.txt"]);
        check(TREE, copy("d/x.go"), &["x.go:"]);
        check(TREE, copy("e"), &["e:"]);
        check(TREE, copy("../../b.go"), &["b.go:"]);
        check(TREE, copy("nothing"), &["\"/nothing\": not found"]);
    }

    #[test]
    fn wildcards() {
        check(TREE, copy("*.go"), &["b.go:"]);
        check(TREE, copy("*/x.go"), &["x.go:"]);
        check(TREE, copy("d/*.go"), &["x.go:"]);
        check(TREE, copy("d*"), &["d:", "d:x.go", "d:y.txt"]);
        check(TREE, copy("*.rs"), &["\"/*.rs\": not found"]);
        let empty = CopySelection {
            allow_empty_wildcard: true,
            ..copy("*.rs")
        };
        check(TREE, empty, &[]);
        check(&["[x]"], copy("\\[x]"), &["[x]:"]);
    }

    #[test]
    fn links_in_circles_end() {
        let circle = [
            "a/",
            "a/1 -> .",
            "a/2 -> .",
            "a/3 -> ..",
            "a/4 -> ../a",
            "a/x",
        ];
        let deep = format!("a{}/x", "/*".repeat(40));
        check(&circle, copy(&deep), &[&format!("\"/{deep}\": not found")]);
        check(&circle, copy("a/*/x"), &["\"/a/*/x\": not found"]);
        check(&circle, copy("a/1/2/3/a/[x]"), &["x:"]);
    }

    #[test]
    fn patterns() {
        let exclude = |src: &str, pattern: &str| CopySelection {
            exclude_patterns: vec![pattern.into()],
            ..copy(src)
        };
        check(TREE, exclude("a", "*.txt"), &["a:", "a:x.go"]);
        check(TREE, exclude("*.*", "*.txt"), &["b.go:"]);
        let include = CopySelection {
            include_patterns: vec!["a/*.go".into()],
            ..copy("/")
        };
        check(TREE, include, &[":", ":a", ":a/x.go"]);
    }
}
