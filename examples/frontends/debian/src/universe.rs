//! All packages that there are: the `Packages` files of the sources, by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::control::paragraphs;
use crate::relation::{self, Group, Relation, RelationError};
use crate::version::Version;

/// Which package of a [`Universe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(usize);

/// One version of a package, as its source describes it.
#[derive(Clone, Debug, Default)]
pub struct Package<'a> {
    /// Its name.
    pub name: &'a str,
    version: &'a str,
    /// What it runs on, or `all`.
    pub architecture: &'a str,
    /// Nothing works without it.
    pub essential: bool,
    /// `required` to `extra`.
    pub priority: &'a str,
    /// `Multi-Arch`.
    pub multi_arch: &'a str,
    pre_depends: &'a str,
    depends: &'a str,
    recommends: &'a str,
    conflicts: &'a str,
    breaks: &'a str,
    provides: &'a str,
    /// Its file below the root of its source.
    pub filename: &'a str,
    /// Of its file.
    pub sha256: &'a str,
    /// Of its file, as it is written.
    pub size: &'a str,
    /// The number of the source that has it.
    pub source: usize,
}

/// What is wrong with an index.
#[derive(Debug, thiserror::Error)]
pub enum UniverseError {
    /// A paragraph without what every package has.
    #[error("package number {number} of the index has no valid `{field}`{name}")]
    Field {
        /// Counted from 1.
        number: usize,
        /// What is missing.
        field: &'static str,
        /// Whose, as far as it is known.
        name: String,
    },
    /// A field that nobody can read.
    #[error("`{field}` of `{name}`: {source}")]
    Relation {
        /// The field.
        field: &'static str,
        /// The package.
        name: String,
        /// What is wrong with it.
        source: RelationError,
    },
}

/// Packages by name, and what they provide.
#[derive(Debug, Default)]
pub struct Universe<'a> {
    packages: Vec<Package<'a>>,
    /// The newest version first; of equal ones, that of the first source.
    names: BTreeMap<&'a str, Vec<Id>>,
    providers: BTreeMap<&'a str, Vec<Id>>,
    architecture: &'a str,
}

impl<'a> Universe<'a> {
    /// Begins one for machines of an architecture, by Debian's name of it.
    pub fn new(architecture: &'a str) -> Self {
        Universe {
            architecture,
            ..Universe::default()
        }
    }

    /// Adds what an index of a source names; packages of other architectures are passed over.
    pub fn add(&mut self, source: usize, index: &'a str) -> Result<(), UniverseError> {
        for (at, paragraph) in paragraphs(index).enumerate() {
            let mut package = Package {
                source,
                ..Package::default()
            };
            for (field, value) in paragraph.fields() {
                match field {
                    "Package" => package.name = value,
                    "Version" => package.version = value,
                    "Architecture" => package.architecture = value,
                    "Essential" => package.essential = value == "yes",
                    "Priority" => package.priority = value,
                    "Multi-Arch" => package.multi_arch = value,
                    "Pre-Depends" => package.pre_depends = value,
                    "Depends" => package.depends = value,
                    "Recommends" => package.recommends = value,
                    "Conflicts" => package.conflicts = value,
                    "Breaks" => package.breaks = value,
                    "Provides" => package.provides = value,
                    "Filename" => package.filename = value,
                    "SHA256" => package.sha256 = value,
                    "Size" => package.size = value,
                    _ => {}
                }
            }
            if ![self.architecture, "all"].contains(&package.architecture) {
                continue;
            }
            self.insert(at + 1, package)?;
        }
        Ok(())
    }

    fn insert(&mut self, number: usize, package: Package<'a>) -> Result<(), UniverseError> {
        let missing = |field| {
            let name = match package.name {
                "" => String::new(),
                name => format!(" (`{name}`)"),
            };
            Err(UniverseError::Field {
                number,
                field,
                name,
            })
        };
        if !relation::is_name(package.name) {
            return missing("Package");
        }
        if Version::parse(package.version).is_err() {
            return missing("Version");
        }
        let is_digest = package.sha256.len() == 64;
        if !is_digest || !package.sha256.bytes().all(|c| c.is_ascii_hexdigit()) {
            return missing("SHA256");
        }
        let is_below = package
            .filename
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".."));
        if !is_below
            || package
                .filename
                .contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return missing("Filename");
        }
        let id = Id(self.packages.len());
        for provided in read(&package, "Provides", package.provides)?
            .iter()
            .flatten()
        {
            self.providers.entry(provided.name).or_default().push(id);
        }
        let versions = self.names.entry(package.name).or_default();
        let at = versions.partition_point(|known| {
            self.packages[known.0].version() >= Version::of(package.version)
        });
        versions.insert(at, id);
        self.packages.push(package);
        Ok(())
    }

    /// How many packages there are.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// The package of an id.
    pub fn package(&self, id: Id) -> &Package<'a> {
        &self.packages[id.0]
    }

    /// All versions of a package, the newest first.
    pub fn versions(&self, name: &str) -> &[Id] {
        self.names.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The packages that provide something, in the order of the indexes.
    pub fn providers(&self, name: &str) -> &[Id] {
        self.providers
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.names.keys().copied()
    }

    /// Whether installing a package makes a relation hold.
    pub fn satisfies(&self, id: Id, relation: &Relation<'_>) -> bool {
        let package = self.package(id);
        let is_its_architecture = match relation.architecture {
            None => true,
            Some("any") => package.multi_arch == "allowed",
            Some(name) => name == self.architecture,
        };
        if !is_its_architecture {
            return false;
        }
        if package.name == relation.name {
            return relation.admits(package.version());
        }
        package.provides().iter().flatten().any(|provided| {
            provided.name == relation.name
                && match provided.versions {
                    Some((_, version)) => relation.admits(version),
                    None => relation.versions.is_none(),
                }
        })
    }

    /// Names like one that is not there, the likeliest first.
    pub fn names_like(&self, wrong: &str) -> Vec<&'a str> {
        let limit = (wrong.len() / 3).clamp(1, 3);
        let mut near: Vec<(usize, &str)> = self
            .names
            .keys()
            .filter(|name| name.len().abs_diff(wrong.len()) <= limit)
            .map(|name| (distance(wrong.as_bytes(), name.as_bytes()), *name))
            .filter(|(distance, _)| *distance <= limit)
            .collect();
        near.sort_unstable();
        let names = self.names.keys().copied();
        let begins = names.filter(|name| wrong.len() > 2 && name.starts_with(wrong));
        let mut found: Vec<&str> = near.into_iter().map(|(_, name)| name).collect();
        found.extend(begins.take(3));
        let mut seen = BTreeSet::new();
        found.retain(|name| seen.insert(*name));
        found.truncate(3);
        found
    }
}

impl<'a> Package<'a> {
    /// Its version.
    pub fn version(&self) -> Version<'a> {
        Version::of(self.version)
    }

    /// What has to be configured before it is unpacked.
    pub fn pre_depends(&self) -> Result<Vec<Group<'a>>, UniverseError> {
        read(self, "Pre-Depends", self.pre_depends)
    }

    /// What has to be configured before it is.
    pub fn depends(&self) -> Result<Vec<Group<'a>>, UniverseError> {
        read(self, "Depends", self.depends)
    }

    /// What most want with it.
    pub fn recommends(&self) -> Result<Vec<Group<'a>>, UniverseError> {
        read(self, "Recommends", self.recommends)
    }

    /// What can't be there beside it.
    pub fn conflicts(&self) -> Result<Vec<Group<'a>>, UniverseError> {
        let mut groups = read(self, "Conflicts", self.conflicts)?;
        groups.extend(read(self, "Breaks", self.breaks)?);
        Ok(groups)
    }

    /// What else it is; [`Universe::add`] has seen that it can be read.
    fn provides(&self) -> Vec<Group<'a>> {
        match self.provides {
            "" => Vec::new(),
            provides => relation::parse_field(provides).unwrap_or_default(),
        }
    }
}

fn read<'a>(
    package: &Package<'_>,
    field: &'static str,
    text: &'a str,
) -> Result<Vec<Group<'a>>, UniverseError> {
    relation::parse_field(text).map_err(|source| UniverseError::Relation {
        field,
        name: package.name.to_owned(),
        source,
    })
}

/// How many letters have to be put in, left out or changed.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, letter) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (other, other_letter) in right.iter().enumerate() {
            let changed = diagonal + usize::from(letter != other_letter);
            diagonal = row[other + 1];
            row[other + 1] = changed.min(row[other] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
