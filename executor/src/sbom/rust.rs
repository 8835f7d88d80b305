//! Rust: `Cargo.lock`, and what cargo-auditable puts into binaries.

use std::io::Read;

use flate2::read::ZlibDecoder;
use serde::Deserialize;

use super::elf::Elf;
use super::package::{Listed, Package};
use super::purl::Purl;

const SECTION: &str = ".dep-v0";
/// The most bytes of a list of crates.
const LARGEST: u64 = 16 << 20;

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    source: Option<String>,
    /// Of cargo-auditable; `build` is not in the binary.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Audited {
    #[serde(default)]
    packages: Vec<Crate>,
}

/// Reads `Cargo.lock`; crates of the workspace itself have no source and are left out.
pub(super) fn read_lock(bytes: &[u8]) -> Listed {
    let lock: Lock = toml::from_str(&String::from_utf8_lossy(bytes))?;
    let locked = lock.package.iter().filter(|one| one.source.is_some());
    Ok(locked.map(package).collect())
}

/// Reads the crates of a binary; nothing if it does not tell.
pub(super) fn read_binary(elf: &Elf<'_>) -> Listed {
    let Some(section) = elf.section(SECTION) else {
        return Ok(Vec::new());
    };
    let mut json = Vec::new();
    let packed = elf.bytes(section)?;
    ZlibDecoder::new(&packed[..])
        .take(LARGEST)
        .read_to_end(&mut json)?;
    let audited: Audited = serde_json::from_slice(&json)?;
    let runs = |one: &&Crate| one.kind.as_deref() != Some("build");
    Ok(audited.packages.iter().filter(runs).map(package).collect())
}

fn package(one: &Crate) -> Package {
    let source = one.source.as_deref().unwrap_or_default();
    let vcs = if source.starts_with("git+") {
        source
    } else {
        ""
    };
    Package::new(Purl::new("cargo", &one.name, &one.version).with("vcs_url", vcs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock() {
        let text = r#"
version = 3

[[package]]
name = "app"
version = "0.1.0"
dependencies = ["serde"]

[[package]]
name = "serde"
version = "1.0.200"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "00"
"#;
        let packages = read_lock(text.as_bytes()).unwrap();
        assert_eq!(packages.len(), 1);
        assert_eq!(packages[0].purl.to_string(), "pkg:cargo/serde@1.0.200");
        assert!(read_lock(b"[[package]]\nname = 1").is_err());
    }
}
