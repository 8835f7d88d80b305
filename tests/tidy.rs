//! The rules of the house, checked: who may name whom, where `unsafe` stands, what files are called,
//! and whether documents say what is there.
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
    // Front ends from outside make plans; all else comes to them over the protocol.
    ("kiln-debian", &["kiln-ir"]),
];

const NO_NAMES: &[&str] = &["util", "utils", "common", "helpers", "misc", "manager"];

/// Rooms that touch nothing: their clippy.toml bans what would.
const PURE: &[&str] = &["ir", "frontend", "solver"];

/// A file of more lines holds two ideas. Tables and suites come close.
const MOST_LINES: usize = 1000;

/// Where the project's own paths begin.
const FOLDERS: &[&str] = &[
    "docs/",
    "examples/",
    "executor/",
    "frontend/",
    "ir/",
    "solver/",
    "src/",
    "tests/",
    "tools/",
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

/// The files with one of these endings, with what they hold.
fn texts(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    files()
        .into_iter()
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|extension| extensions.contains(&extension))
        })
        .map(|path| {
            let text = std::fs::read_to_string(root().join(&path)).unwrap();
            (path, text)
        })
        .collect()
}

fn rust_files() -> Vec<(PathBuf, String)> {
    texts(&["rs"])
}

/// Asserts that a list of findings is empty, and shows all of it otherwise.
#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Each line with its place, as `path:number`.
fn lines<'a>(path: &Path, text: &'a str) -> impl Iterator<Item = (String, &'a str)> {
    let path = path.display().to_string();
    text.lines()
        .enumerate()
        .map(move |(index, line)| (format!("{path}:{}", index + 1), line))
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
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        if path.starts_with("executor/sandbox") {
            continue;
        }
        for (place, line) in lines(&path, &text) {
            let code = line.split("//").next().unwrap_or_default();
            let opens = [" {", " fn", " impl", " extern", "("]
                .iter()
                .any(|after| code.contains(&format!("{word}{after}")));
            if opens || code.contains(&format!("allow({word}_code")) {
                found.push(format!("{place}: {line}"));
            }
        }
    }
    none("only the sandbox may", &found);
}

#[test]
fn pure_rooms_ban_the_world() {
    for room in PURE {
        let path = root().join(room).join("clippy.toml");
        let bans = std::fs::read_to_string(&path).unwrap();
        for name in [
            "std::fs",
            "std::env",
            "std::process",
            "std::net",
            "std::thread",
            "std::time",
        ] {
            assert!(
                bans.contains(&format!("path = \"{name}::")),
                "{room}/clippy.toml bans nothing of {name}"
            );
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
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        let is_trial = path.components().any(|part| {
            let name = part.as_os_str().to_str();
            matches!(name, Some("tests" | "tests.rs" | "examples"))
        });
        if is_trial || path.starts_with("src/cli") || path == Path::new("src/main.rs") {
            continue;
        }
        for (place, line) in lines(&path, &text) {
            let code = line.trim_start();
            let prints = ["println!", "eprintln!", "print!(", "eprint!("]
                .iter()
                .any(|name| code.starts_with(name));
            if prints {
                found.push(format!("{place}: {line}"));
            }
        }
    }
    none("only the command prints", &found);
}

#[test]
fn tests_run_or_say_why_not() {
    let marks = ["#[ig", "#[should_"].map(|begin| begin.to_owned());
    let marks = [format!("{}nore", marks[0]), format!("{}panic", marks[1])];
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        for (place, line) in lines(&path, &text) {
            if marks.iter().any(|mark| line.trim_start().starts_with(mark)) {
                found.push(format!("{place}: {line}"));
            }
        }
    }
    none("a case is skipped at run time and says so", &found);
}

#[test]
fn files_hold_one_idea() {
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        let count = text.lines().count();
        if count > MOST_LINES {
            found.push(format!("{} has {count} lines", path.display()));
        }
    }
    none("longer than a table may be", &found);
}

/// The project speaks of itself: of no tracker, no machine, no unwritten plan.
#[test]
fn texts_speak_of_the_project_alone() {
    let marks: Vec<String> = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("../sha", "red"),
        ("desi", "gn.md"),
        ("/work/", "main"),
        ("/tmp/", "k/"),
        ("issues/", "2"),
        ("see iss", "ue"),
        ("iss", "ue #"),
    ]
    .iter()
    .map(|(begin, end)| format!("{begin}{end}"))
    .collect();
    let mut found = Vec::new();
    for (path, text) in texts(&["rs", "md", "toml", "sh", "plan"]) {
        for (place, line) in lines(&path, &text) {
            if let Some(mark) = marks.iter().find(|mark| line.contains(mark.as_str())) {
                found.push(format!("{place} says {mark}"));
            }
        }
    }
    none("these belong elsewhere", &found);
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
fn scripts_parse() {
    let mut found = Vec::new();
    let is_script = |path: &PathBuf| {
        std::fs::read(root().join(path)).is_ok_and(|bytes| bytes.starts_with(b"#!/bin/sh"))
    };
    for path in files().into_iter().filter(is_script) {
        let checked = std::process::Command::new("sh")
            .arg("-n")
            .arg(root().join(&path))
            .output()
            .unwrap();
        if !checked.status.success() {
            found.push(String::from_utf8_lossy(&checked.stderr).into_owned());
        }
    }
    none("scripts that no shell reads", &found);
}

#[test]
fn modules_begin_with_their_purpose() {
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        if !text.starts_with("//!") && !text.starts_with("#![") {
            found.push(path.display().to_string());
        }
    }
    none("these do not say what they are for", &found);
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
            let begins = format!("| `{name}` |");
            if !document.lines().any(|line| line.starts_with(&begins)) {
                missing.insert(name.to_owned());
            }
        }
    }
    assert!(
        missing.is_empty(),
        "docs/dependencies.md lacks a line for {missing:?}"
    );
    let mut before = "";
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        let name = line.split('`').nth(1).unwrap();
        assert!(before < name, "`{name}` stands after `{before}`");
        before = name;
        let cells = line.matches(" | ").count() + 1;
        assert!(cells == 5, "the line of `{name}` has {cells} cells");
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

/// Each line of the language's table says what holds, and names a case that its file has.
#[test]
fn the_language_is_shown_by_tests() {
    let path = Path::new("docs/dockerfile.md");
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let rows = lines(path, &text).filter(|(_, line)| line.starts_with("| "));
    let mut found = Vec::new();
    for (place, row) in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, state, shown] = cells[..] else {
            found.push(format!("{place}: {} cells", cells.len()));
            continue;
        };
        if matches!(state, "state" | "---") {
            continue;
        }
        if !matches!(state, "works" | "refused") && !state.starts_with("differs: ") {
            found.push(format!("{place}: {state}"));
        }
        let links: Vec<&str> = shown.split(", ").collect();
        for link in links {
            let shows = link
                .strip_prefix('[')
                .and_then(|link| link.strip_suffix(')')?.split_once("](../"))
                .is_some_and(|(name, file)| {
                    let file = root().join(file);
                    let is_case = file.file_stem().is_some_and(|stem| stem == name);
                    let text = std::fs::read_to_string(&file).unwrap_or_default();
                    file.is_file() && (is_case || text.contains(name))
                });
            if !shows {
                found.push(format!("{place}: {link}"));
            }
        }
    }
    none("these are not shown", &found);
}

/// A digest's context string names its format, so that no two formats can be taken for each other.
#[test]
fn every_hashed_format_is_written_down() {
    let pages: String = texts(&["md"])
        .into_iter()
        .filter(|(path, _)| path.starts_with("docs/formats"))
        .map(|(_, text)| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        if path.starts_with("tests") {
            continue;
        }
        for (place, line) in lines(&path, &text) {
            for quoted in line.split('"').skip(1).step_by(2) {
                let version = quoted.rsplit(" v").next().unwrap_or_default();
                let is_context = quoted.starts_with("kiln ")
                    && !version.is_empty()
                    && version.chars().all(|c| c.is_ascii_digit());
                if is_context && !pages.contains(&format!("`{quoted}`")) {
                    found.push(format!("{place}: {quoted}"));
                }
            }
        }
    }
    none("no page of docs/formats names these", &found);
}

#[test]
fn the_table_of_keys_is_one() {
    let rows = |path: &str, mark: &str| {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        let rows: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix(mark))
            .skip_while(|line| !line.starts_with("| what | definition key"))
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.replace('*', ""))
            .collect();
        assert!(rows.len() > 2, "{path} has no table of keys");
        rows
    };
    assert_eq!(
        rows("solver/src/keywriter.rs", "//! "),
        rows("docs/formats/cache-key.md", "")
    );
}

/// What a document or a comment calls by its path must be there; a bare file name must be somewhere.
#[test]
fn paths_in_documents_exist() {
    let files: Vec<String> = files()
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let is_there = |named: &str| {
        let named = named.trim_end_matches('/');
        let below = format!("{named}/");
        let end = format!("/{named}");
        let is_root_path = FOLDERS.iter().any(|folder| named.starts_with(folder));
        files.iter().any(|file| {
            file == named
                || file.starts_with(&below)
                || (!is_root_path && (file.ends_with(&end) || file.contains(&format!("{end}/"))))
        })
    };
    let mut found = Vec::new();
    for (path, text) in texts(&["md"]) {
        for (place, line) in lines(&path, &text) {
            for quoted in line.split('`').skip(1).step_by(2) {
                let is_path = FOLDERS.iter().any(|folder| quoted.starts_with(folder))
                    || quoted.ends_with(".rs");
                if is_path && !quoted.contains([' ', '*', ':']) && !is_there(quoted) {
                    found.push(format!("{place}: `{quoted}`"));
                }
                let (file, rest) = quoted.split_once(".rs:").unwrap_or((quoted, ""));
                if rest.starts_with(|c: char| c.is_ascii_digit()) {
                    found.push(format!("{place}: a line of `{file}.rs`, which will move"));
                }
            }
        }
    }
    for (path, text) in texts(&["rs", "md"]) {
        let is_code = path.extension().is_some_and(|extension| extension == "rs");
        for (place, line) in lines(&path, &text) {
            if is_code && !line.trim_start().starts_with("//") {
                continue;
            }
            for part in line.split("docs/").skip(1) {
                let name: String = part
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || "-_/.".contains(*c))
                    .collect();
                let named = format!("docs/{}", name.trim_end_matches('.'));
                // Other projects have documents too.
                let is_ours = line.contains("docs/formats/") || named.matches('/').count() == 1;
                if is_ours && named.ends_with(".md") && !is_there(&named) {
                    found.push(format!("{place}: {named}"));
                }
            }
        }
    }
    none("these are not there", &found);
}

#[test]
fn the_glossary_is_sorted_and_says_each_word_once() {
    let text = std::fs::read_to_string(root().join("docs/glossary.md")).unwrap();
    let words: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .skip(1)
        .filter(|word| !word.starts_with("---"))
        .collect();
    let mut sorted = words.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(words, sorted);
}

#[test]
fn the_readme_is_short() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let lines = text.lines().count();
    assert!(lines < 120, "README.md has {lines} lines");
}
