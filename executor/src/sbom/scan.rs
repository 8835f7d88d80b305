//! Finds the files of an image that list packages, and reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use kiln_tree::tar::{DirectoryFiles, FileSource};
use kiln_tree::{Found, Kind, Stop, TreePath, View};

use super::elf::Elf;
use super::os_release::{self, Distribution};
use super::package::{Flaw, Listed, Package};
use super::{apk, dart, dpkg, go, java, node, php, python, rpm, ruby, rust};
use crate::error::Error;

/// The most bytes of a database, of any other list, and of a copyright file.
const LARGEST_DATABASE: u64 = 512 << 20;
const LARGEST_LIST: u64 = 64 << 20;
const LARGEST_COPYRIGHT: u64 = 1 << 20;
/// The most bytes that are read in all; archives and programs are read in parts and do not count.
const MOST_BYTES: u64 = 4 << 30;
/// The most packages, and the most notes.
const MOST_PACKAGES: usize = 200_000;
const MOST_NOTES: usize = 1000;

/// What software is in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The distribution as it calls itself, such as `Debian GNU/Linux 12 (bookworm)`; empty if there is none.
    pub distribution: String,
    /// The packages, each once, sorted by their purls.
    pub packages: Vec<Package>,
    /// What could not be read, sorted by path.
    pub notes: Vec<Note>,
}

/// A file that should list packages and could not be read, or not as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The file, without a leading `/`.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What a file is, going by its path.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// A package manager's database, which layers carry on.
    Database(fn(&[u8], &Distribution) -> Listed),
    /// A file of dpkg's `status.d`.
    DpkgPart,
    /// Any other list.
    List(fn(&[u8]) -> Listed),
    Jar,
    Program,
}

/// Goes through what layers show, whose directories are `layers`, lowest first.
pub(crate) fn scan(view: &View, layers: &[OwnedFd], stop: &Stop) -> Result<Inventory, Error> {
    let mut scan = Scan {
        view,
        layers,
        distribution: Distribution::default(),
        packages: BTreeMap::new(),
        notes: Vec::new(),
        budget: MOST_BYTES,
    };
    scan.distribution = scan.distribution();
    for found in view.iter() {
        let Kind::File { size, .. } = found.kind() else {
            continue;
        };
        let path = &found.entry.path;
        let Some(role) = role(path, found.meta().mode, *size) else {
            continue;
        };
        if stop.is_set() {
            return Err(Error::Cancelled);
        }
        let shown = String::from_utf8_lossy(path.as_bytes()).into_owned();
        match scan.read(&found, role) {
            Ok(packages) => scan.take(packages, &shown),
            Err(flaw) => scan.note(&shown, flaw),
        }
    }
    scan.licenses_of_dpkg();
    scan.notes.sort();
    Ok(Inventory {
        distribution: scan.distribution.pretty_name,
        packages: scan.packages.into_values().collect(),
        notes: scan.notes,
    })
}

struct Scan<'a> {
    view: &'a View,
    layers: &'a [OwnedFd],
    distribution: Distribution,
    packages: BTreeMap<String, Package>,
    notes: Vec<Note>,
    /// How many bytes may still be read.
    budget: u64,
}

impl Scan<'_> {
    fn distribution(&mut self) -> Distribution {
        let paths: [&[u8]; 2] = [b"etc/os-release", b"usr/lib/os-release"];
        for path in paths {
            // The first is a link to the second on most.
            if let Some(found) = self.view.get(path)
                && matches!(found.kind(), Kind::File { .. })
                && let Ok(bytes) = self.bytes(found.layer, &found.entry.path, LARGEST_COPYRIGHT)
            {
                return os_release::read(&bytes);
            }
        }
        Distribution::default()
    }

    fn read(&mut self, found: &Found<'_>, role: Role) -> Listed {
        let (layer, path) = (found.layer, &found.entry.path);
        let mut packages = match role {
            Role::Database(read) => return self.database(layer, path, read),
            Role::DpkgPart => {
                dpkg::read(&self.bytes(layer, path, LARGEST_LIST)?, &self.distribution)?
            }
            Role::List(read) => read(&self.bytes(layer, path, LARGEST_LIST)?)?,
            Role::Jar => {
                let name = String::from_utf8_lossy(path.name());
                java::read(&mut self.open(layer, path)?, &name)?
            }
            Role::Program => {
                let file = self.open(layer, path)?;
                // What is no program is none that is malformed.
                let Ok(Some(elf)) = Elf::open(&file) else {
                    return Ok(Vec::new());
                };
                let mut packages = go::read_binary(&elf)?;
                packages.extend(rust::read_binary(&elf)?);
                packages
            }
        };
        for package in &mut packages {
            package.layer = layer;
        }
        Ok(packages)
    }

    /// Reads a database, and as it was in the layers below: a package is of the lowest layer from which
    /// on all have it.
    fn database(
        &mut self,
        top: usize,
        path: &TreePath,
        read: fn(&[u8], &Distribution) -> Listed,
    ) -> Listed {
        let bytes = self.bytes(top, path, LARGEST_DATABASE)?;
        let mut packages = read(&bytes, &self.distribution)?;
        for package in &mut packages {
            package.layer = top;
        }
        let mut left: Vec<&mut Package> = packages.iter_mut().collect();
        for layer in (0..top).rev() {
            if left.is_empty() {
                break;
            }
            let manifest = &self.view.layers()[layer];
            let has = manifest
                .get(path.as_bytes())
                .map(|entry| &manifest.resolve(entry).kind);
            match has {
                Some(Kind::File { .. }) => {}
                None => continue,
                Some(_) => break,
            }
            let before = self
                .bytes(layer, path, LARGEST_DATABASE)
                .and_then(|bytes| read(&bytes, &self.distribution));
            // One that cannot be read tells nothing of the ones below either.
            let Ok(before) = before else { break };
            let had: BTreeSet<_> = before.into_iter().map(|package| package.purl).collect();
            left.retain_mut(|package| {
                let stays = had.contains(&package.purl);
                if stays {
                    package.layer = layer;
                }
                stays
            });
        }
        Ok(packages)
    }

    fn take(&mut self, packages: Vec<Package>, path: &str) {
        for mut package in packages {
            if self.packages.len() == MOST_PACKAGES {
                self.note(path, "there are more packages than are listed".into());
                return;
            }
            package.found_in.insert(path.to_owned());
            let purl = package.purl.to_string();
            let known = self.packages.entry(purl).or_insert_with(|| package.clone());
            known.found_in.append(&mut package.found_in);
            known.layer = known.layer.min(package.layer);
            for (known, other) in [
                (&mut known.license, package.license),
                (&mut known.supplier, package.supplier),
                (&mut known.homepage, package.homepage),
            ] {
                if known.is_empty() {
                    *known = other;
                }
            }
        }
    }

    fn note(&mut self, path: &str, flaw: Flaw) {
        if self.notes.len() < MOST_NOTES {
            self.notes.push(Note {
                path: path.to_owned(),
                reason: super::package::clean(&flaw.0),
            });
        }
    }

    /// dpkg's database has no licenses; the packages' documentation may.
    fn licenses_of_dpkg(&mut self) {
        let mut packages = std::mem::take(&mut self.packages);
        for package in packages.values_mut() {
            if package.purl.kind != "deb" || !package.license.is_empty() {
                continue;
            }
            let path = dpkg::copyright_path(&package.purl.name);
            package.license = self.copyright(&path).unwrap_or_default();
        }
        self.packages = packages;
    }

    fn copyright(&mut self, path: &str) -> Option<String> {
        let directory = TreePath::new(path).ok()?.parent()?;
        let linked = match self
            .view
            .get(directory.as_bytes())
            .map(|found| found.kind())
        {
            // Packages of one source share their documentation.
            Some(Kind::Symlink { target }) if !target.contains(&b'/') => {
                let other = directory.parent()?.join(target).ok()?;
                other.join(b"copyright").ok()?
            }
            _ => TreePath::new(path).ok()?,
        };
        let found = self.view.get(linked.as_bytes())?;
        matches!(found.kind(), Kind::File { .. }).then_some(())?;
        let bytes = self
            .bytes(found.layer, &found.entry.path, LARGEST_COPYRIGHT)
            .ok()?;
        Some(dpkg::read_copyright(&bytes))
    }

    fn open(&self, layer: usize, path: &TreePath) -> Result<File, Flaw> {
        let directory = self.layers.get(layer).ok_or("its layer is not here")?;
        let file = DirectoryFiles(directory.as_fd()).open(0, path)?;
        Ok(File::from(file))
    }

    fn bytes(&mut self, layer: usize, path: &TreePath, limit: u64) -> Result<Vec<u8>, Flaw> {
        let file = self.open(layer, path)?;
        let limit = limit.min(self.budget);
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err("it is larger than any that is read".into());
        }
        self.budget -= bytes.len() as u64;
        Ok(bytes)
    }
}

/// Where rpm keeps its database.
const RPM: [&str; 3] = ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];

/// Tells what a file is by its path; none of the many that list nothing.
fn role(path: &TreePath, mode: u32, size: u64) -> Option<Role> {
    let whole = std::str::from_utf8(path.as_bytes()).ok()?;
    let (directory, name) = whole.rsplit_once('/').unwrap_or(("", whole));
    let by_path = match (directory, name) {
        ("var/lib/dpkg", "status") => Some(Role::Database(dpkg::read)),
        ("var/lib/dpkg/status.d", name) if !name.ends_with(".md5sums") => Some(Role::DpkgPart),
        ("lib/apk/db" | "usr/lib/apk/db", "installed") => Some(Role::Database(apk::read)),
        (directory, "rpmdb.sqlite" | "Packages.db" | "Packages") if RPM.contains(&directory) => {
            Some(Role::Database(rpm::read))
        }
        _ => None,
    };
    let list: fn(&[u8]) -> Listed = match name {
        _ if by_path.is_some() => return by_path,
        "Cargo.lock" => rust::read_lock,
        "package.json" if is_installed(directory) => node::read_installed,
        "package-lock.json" | "npm-shrinkwrap.json" => node::read_npm_lock,
        "yarn.lock" => node::read_yarn_lock,
        "pnpm-lock.yaml" => node::read_pnpm_lock,
        "METADATA" if directory.ends_with(".dist-info") => python::read_metadata,
        "PKG-INFO" if directory.ends_with(".egg-info") => python::read_metadata,
        "poetry.lock" | "uv.lock" | "pdm.lock" => python::read_lock,
        "Pipfile.lock" => python::read_pipfile_lock,
        "requirements.txt" => python::read_requirements,
        "go.mod" => go::read_mod,
        "Gemfile.lock" => ruby::read_lock,
        "composer.lock" => php::read,
        "installed.json" if directory.ends_with("vendor/composer") => php::read,
        "pubspec.lock" => dart::read,
        name if name.ends_with(".egg-info") => python::read_metadata,
        name if name.ends_with(".gemspec") && directory.ends_with("specifications") => {
            ruby::read_gemspec
        }
        name if java::is_jar(name) => return Some(Role::Jar),
        _ if mode & 0o111 != 0 && size > 1024 => return Some(Role::Program),
        _ => return None,
    };
    Some(Role::List(list))
}

/// Whether a directory is that of a package in `node_modules`, and not one within it.
fn is_installed(directory: &str) -> bool {
    let Some((_, name)) = directory.rsplit_once("node_modules/") else {
        return false;
    };
    match name.strip_prefix('@') {
        Some(scoped) => scoped.matches('/').count() == 1,
        None => !name.contains('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        let is = |path: &str, mode| role(&TreePath::new(path).unwrap(), mode, 5000);
        let list = |path: &str| matches!(is(path, 0o644), Some(Role::List(_)));
        assert!(matches!(
            is("var/lib/dpkg/status", 0o644),
            Some(Role::Database(_))
        ));
        assert!(matches!(
            is("usr/lib/sysimage/rpm/rpmdb.sqlite", 0o644),
            Some(Role::Database(_))
        ));
        assert!(matches!(
            is("var/lib/dpkg/status.d/base", 0o644),
            Some(Role::DpkgPart)
        ));
        assert!(is("var/lib/dpkg/status.d/base.md5sums", 0o644).is_none());
        assert!(matches!(is("opt/app.jar", 0o644), Some(Role::Jar)));
        assert!(matches!(is("usr/bin/app", 0o755), Some(Role::Program)));
        assert!(is("usr/share/x", 0o644).is_none());
        assert!(list("app/node_modules/a/package.json"));
        assert!(list("app/node_modules/@s/a/package.json"));
        assert!(list("app/node_modules/a/node_modules/b/package.json"));
        assert!(!list("app/node_modules/a/test/package.json"));
        assert!(!list("app/package.json"));
        assert!(list("usr/lib/python3/dist-packages/a-1.dist-info/METADATA"));
        assert!(!list("usr/share/METADATA"));
    }
}
