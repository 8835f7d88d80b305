//! The rules of the house, checked: who may name whom, where `unsafe` stands, what files are called.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may name whom. A room that is not listed names no other room.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "kiln",
        &["kiln-ir", "kiln-frontend", "kiln-solver", "kiln-executor"],
    ),
    ("kiln-frontend", &["kiln-ir"]),
    ("kiln-solver", &["kiln-ir"]),
    (
        "kiln-executor",
        &[
            "kiln-ir",
            "kiln-solver",
            "kiln-tree",
            "kiln-store",
            "kiln-sandbox",
            "kiln-oci",
        ],
    ),
    ("kiln-store", &["kiln-tree"]),
];

const NO_NAMES: &[&str] = &[
    "util", "utils", "common", "helpers", "helper", "misc", "manager",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> cargo_metadata::Metadata {
    cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".into(), "--locked".into()])
        .exec()
        .unwrap()
}

/// Every file of the project that git would keep, as paths from the root.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name == ".git" || name == "target" || name.ends_with(".snap.new") {
                continue;
            }
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(root()).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<(PathBuf, String)> {
    files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = std::fs::read_to_string(root().join(&path)).unwrap();
            (path, text)
        })
        .collect()
}

#[test]
fn arrows_between_rooms() {
    let metadata = metadata();
    let rooms: BTreeSet<&str> = metadata
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let may = allowed.get(package.name.as_str()).copied().unwrap_or(&[]);
        for dependency in &package.dependencies {
            let names_a_room = rooms.contains(dependency.name.as_str());
            let is_for_tests = dependency.kind == cargo_metadata::DependencyKind::Development;
            if names_a_room && !is_for_tests && !may.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} names {}", package.name, dependency.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that the design does not have: {wrong:#?}"
    );
}

#[test]
fn the_library_builds_without_a_terminal() {
    let metadata = metadata();
    let kiln = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "kiln")
        .unwrap();
    for terminal in ["clap", "clap_complete", "annotate-snippets", "console"] {
        let dependency = kiln
            .dependencies
            .iter()
            .find(|dependency| dependency.name == terminal)
            .unwrap();
        assert!(
            dependency.optional,
            "{terminal} must stand behind the feature `cli`"
        );
    }
    for (path, text) in rust_files() {
        let in_library = path.starts_with("src") && !path.starts_with("src/cli");
        if in_library && path != Path::new("src/main.rs") {
            assert!(
                !text.contains("clap::"),
                "{} names the command line",
                path.display()
            );
        }
    }
}

#[test]
fn unsafe_stands_in_the_sandbox_only() {
    let word = ["un", "safe"].concat();
    for (path, text) in rust_files() {
        if path.starts_with("executor/sandbox") || path == Path::new("tests/tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = [" {", " fn", " impl"]
                .iter()
                .any(|after| code.contains(&format!("{word}{after}")));
            assert!(!opens, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn bincode_has_one_door() {
    let word = ["bin", "code::"].concat();
    for (path, text) in rust_files() {
        if path != Path::new("ir/src/encode.rs") {
            assert!(!text.contains(&word), "{} names bincode", path.display());
        }
    }
}

#[test]
fn only_the_command_prints() {
    for (path, text) in rust_files() {
        let may = path.starts_with("src/cli")
            || path == Path::new("src/main.rs")
            || path.components().any(|part| {
                matches!(
                    part.as_os_str().to_str(),
                    Some("tests" | "benches" | "examples")
                )
            });
        if may {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            let prints = ["println!", "eprintln!", "print!(", "eprint!("]
                .iter()
                .any(|name| code.starts_with(name));
            assert!(!prints, "{}:{} prints: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn files_are_named_for_what_they_hold() {
    for path in files() {
        for part in path.components() {
            let name = Path::new(part.as_os_str())
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned();
            assert!(
                !NO_NAMES.contains(&name.as_str()),
                "{} says nothing",
                path.display()
            );
        }
    }
}

#[test]
fn modules_begin_with_their_purpose() {
    for (path, text) in rust_files() {
        assert!(
            text.starts_with("//!") || text.starts_with("#![") || text.is_empty(),
            "{} does not say what it is for",
            path.display()
        );
    }
}

#[test]
fn every_direct_dependency_has_its_line() {
    let document = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let metadata = metadata();
    let rooms: BTreeSet<&str> = metadata
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut missing = BTreeSet::new();
    let mut named = BTreeSet::new();
    for package in &metadata.packages {
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if rooms.contains(name) {
                continue;
            }
            named.insert(name.to_owned());
            if !document.contains(&format!("| `{name}` |")) {
                missing.insert(name.to_owned());
            }
        }
    }
    assert!(
        missing.is_empty(),
        "docs/dependencies.md lacks a line for {missing:?}"
    );
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        let name = line.split('`').nth(1).unwrap();
        assert!(
            named.contains(name),
            "docs/dependencies.md has a line for {name}, which nothing uses"
        );
    }
}

#[test]
fn every_format_has_a_page_that_the_map_names() {
    let map = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    for path in files()
        .iter()
        .filter(|path| path.starts_with("docs/formats"))
    {
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(
            map.contains(&*name),
            "docs/ARCHITECTURE.md does not name {name}"
        );
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let documents = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "md"));
    for path in documents {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        for part in text.split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let file = root().join(path.parent().unwrap()).join(target);
            assert!(file.exists(), "{}: link to {target}", path.display());
        }
    }
}

#[test]
fn the_readme_is_short() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let lines = text.lines().count();
    assert!(lines < 120, "README.md has {lines} lines");
}
