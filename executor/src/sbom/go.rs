//! Go: what a binary says that it was built from, and `go.mod`.

use super::elf::Elf;
use super::package::{Flaw, Listed, Package};
use super::purl::Purl;

/// The section of build information (Go's debug/buildinfo).
const SECTION: &str = ".go.buildinfo";
const MAGIC: &[u8] = b"\xff Go buildinf:";
const HEAD: usize = 32;
/// The most bytes of build information.
const LARGEST: u64 = 4 << 20;
/// What stands around the list of modules.
const AROUND: usize = 16;

/// Reads the modules of a binary; nothing if it is none of Go.
pub(super) fn read_binary(elf: &Elf<'_>) -> Listed {
    let Some(section) = elf.section(SECTION) else {
        return Ok(Vec::new());
    };
    let bytes = elf.bytes(section)?;
    if !bytes.starts_with(MAGIC) || bytes.len() < HEAD {
        return Err("its build information has no magic number".into());
    }
    let (size, flags) = (bytes[14], bytes[15]);
    let (version, modules) = match flags & 2 {
        0 => {
            // Two addresses of Go strings, in the byte order of the flag.
            let size = usize::from(size);
            if (size == 8) != elf.is_wide() || !matches!(size, 4 | 8) {
                return Err("its build information has another pointer size than the file".into());
            }
            let text = |at: usize| -> Result<String, Flaw> {
                let header = elf.at_address(elf.word(&bytes, at, size), 2 * size as u64)?;
                let address = elf.word(&header, 0, size);
                let length = elf.word(&header, size, size).min(LARGEST);
                Ok(String::from_utf8_lossy(&elf.at_address(address, length)?).into_owned())
            };
            (text(16)?, modules(text(16 + size)?.as_bytes()))
        }
        _ => {
            let (version, rest) =
                counted(&bytes[HEAD..]).ok_or("its build information is cut off")?;
            let (list, _) = counted(rest).ok_or("its build information is cut off")?;
            (String::from_utf8_lossy(version).into_owned(), modules(list))
        }
    };
    Ok(packages(&version, &modules))
}

/// The text between the marks.
fn modules(bytes: &[u8]) -> String {
    let inner = match bytes.len() > 2 * AROUND && bytes[bytes.len() - AROUND - 1] == b'\n' {
        true => &bytes[AROUND..bytes.len() - AROUND],
        false => b"",
    };
    String::from_utf8_lossy(inner).into_owned()
}

/// Bytes after their length, a varint of the other byte order than SQLite's.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_u64;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let rest = &bytes[index + 1..];
            return rest.split_at_checked(usize::try_from(length).ok()?);
        }
    }
    None
}

fn packages(version: &str, modules: &str) -> Vec<Package> {
    let mut packages = Vec::new();
    let go = version.split_whitespace().next().unwrap_or_default();
    if let Some(version) = go.strip_prefix("go") {
        let purl = Purl::new("golang", "stdlib", version);
        packages.push(Package::new(purl).licensed("BSD-3-Clause"));
    }
    for line in modules.lines().take(100_000) {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["mod" | "dep", path, version, ..] => packages.extend(module(path, version)),
            // What the one before is replaced with.
            ["=>", path, version, ..] => {
                packages.pop();
                packages.extend(module(path, version));
            }
            _ => {}
        }
    }
    packages
}

fn module(path: &str, version: &str) -> Option<Package> {
    if path.is_empty() || path.starts_with('.') || path.starts_with('/') {
        return None;
    }
    // purl-spec wants them in lower case.
    let path = path.to_lowercase();
    let (namespace, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let version = match version {
        "(devel)" => "",
        version => version,
    };
    Some(Package::new(
        Purl::new("golang", name, version).within(namespace),
    ))
}

/// Reads `go.mod`, whose requirements are versions that are at least used, as its replacements have them.
pub(super) fn read_mod(bytes: &[u8]) -> Listed {
    let text = String::from_utf8_lossy(bytes);
    let mut required: Vec<(String, String)> = Vec::new();
    let mut replaced: Vec<Replacement> = Vec::new();
    let mut has_module = false;
    let mut block = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().map(unquoted).collect();
        let (verb, words) = match &words[..] {
            [] => continue,
            [")"] => {
                block.clear();
                continue;
            }
            [verb, "("] if block.is_empty() => {
                (*verb).clone_into(&mut block);
                continue;
            }
            [verb, words @ ..] if block.is_empty() => (*verb, words),
            words => (block.as_str(), words),
        };
        match (verb, words) {
            ("module", _) => has_module = true,
            ("require", [path, version]) => {
                required.push(((*path).to_owned(), (*version).to_owned()));
            }
            ("replace", words) => replaced.extend(Replacement::read(words)),
            _ => {}
        }
    }
    if !has_module {
        return Err("it names no module".into());
    }
    let used = required.into_iter().map(|required| {
        let applies = |one: &&Replacement| one.is_of(&required.0, &required.1);
        // One for a version goes before one for all of them.
        let by_version = replaced.iter().filter(|one| one.version.is_some());
        let by_name = replaced.iter().filter(|one| one.version.is_none());
        match by_version.chain(by_name).find(applies) {
            Some(one) => one.with.clone(),
            None => required,
        }
    });
    Ok(used
        .filter_map(|(path, version)| module(&path, &version))
        .collect())
}

/// A line `old [version] => new [version]`.
struct Replacement {
    path: String,
    version: Option<String>,
    /// The module and its version; a directory, which has none, is none that [`module`] takes.
    with: (String, String),
}

impl Replacement {
    fn read(words: &[&str]) -> Option<Replacement> {
        let arrow = words.iter().position(|word| *word == "=>")?;
        let (path, version) = match &words[..arrow] {
            [path] => (path, None),
            [path, version] => (path, Some((*version).to_owned())),
            _ => return None,
        };
        let (with, of) = match &words[arrow + 1..] {
            [with] => (with, ""),
            [with, version] => (with, *version),
            _ => return None,
        };
        Some(Replacement {
            path: (*path).to_owned(),
            version,
            with: ((*with).to_owned(), of.to_owned()),
        })
    }

    fn is_of(&self, path: &str, version: &str) -> bool {
        self.path == path && self.version.as_deref().is_none_or(|one| one == version)
    }
}

fn unquoted(word: &str) -> &str {
    word.trim_matches(['"', '`'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_mod() {
        let text = "\
module example.org/app

go 1.22

require github.com/BurntSushi/toml v1.3.2
require (
\tgolang.org/x/sys v0.15.0 // indirect
)
require (
\t\"example.org/x\" v1.0.0
\texample.org/y v1.0.0
\texample.org/z v1.0.0
)
replace (
\texample.org/x v1.0.0 => ../x
\texample.org/y v1.0.1 => example.org/not v1.0.0
\texample.org/y => example.org/fork v1.0.2
)
replace example.org/z v1.0.0 => example.org/z v1.1.0
";
        let packages = read_mod(text.as_bytes()).unwrap();
        let purls: Vec<String> = packages.iter().map(|one| one.purl.to_string()).collect();
        assert_eq!(
            purls,
            [
                "pkg:golang/github.com/burntsushi/toml@v1.3.2",
                "pkg:golang/golang.org/x/sys@v0.15.0",
                "pkg:golang/example.org/fork@v1.0.2",
                "pkg:golang/example.org/z@v1.1.0",
            ]
        );
        assert!(read_mod(b"a page for browsers").is_err());
    }

    #[test]
    fn build_information() {
        let info = "path\texample.org/app\nmod\texample.org/app\t(devel)\t\n\
                    dep\tgithub.com/a/b\tv1.0.0\th1:x\ndep\tc.org/d\tv2.0.0\n=>\tc.org/e\tv2.0.1\t\n";
        let purls: Vec<String> = packages("go1.22.1 X:boringcrypto", info)
            .iter()
            .map(|one| one.purl.to_string())
            .collect();
        assert_eq!(
            purls,
            [
                "pkg:golang/stdlib@1.22.1",
                "pkg:golang/example.org/app",
                "pkg:golang/github.com/a/b@v1.0.0",
                "pkg:golang/c.org/e@v2.0.1",
            ]
        );
    }
}
