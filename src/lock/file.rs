//! The lock as a file: where it is, how it is read and written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use kiln_ir::{ImageConfig, Pin, Platform};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Lock, LockError, LockedImage};
use crate::delivery::Place;
use crate::dockerfile::read;
use crate::{Error, SourceRequest};

/// The version that a file names.
const VERSION: &str = "kiln.lock/0";
/// What it is called beside a file that is called Dockerfile; beside others, the end of its name.
const NAME: &str = "kiln.lock";

/// A lock and where it lies.
#[derive(Debug, Clone, Default)]
pub(crate) struct LockFile {
    /// Where; none where there is no place for one.
    pub(crate) path: Option<PathBuf>,
    /// As people know it.
    pub(crate) shown: PathBuf,
    /// What it says; none if it is not there.
    pub(crate) lock: Option<Lock>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "version")]
    _version: String,
    #[serde(default, deserialize_with = "unique")]
    images: BTreeMap<String, Platforms>,
    #[serde(default, deserialize_with = "unique")]
    git: BTreeMap<String, Commit<String>>,
    #[serde(default, deserialize_with = "unique")]
    http: BTreeMap<String, Body<String>>,
    #[serde(default, deserialize_with = "unique")]
    times: BTreeMap<String, i64>,
    #[serde(default)]
    platforms: BTreeSet<String>,
    #[serde(default)]
    builders: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Platforms(#[serde(deserialize_with = "unique")] BTreeMap<String, Image>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    manifest: String,
    #[serde(default)]
    config: ImageConfig,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Commit<T> {
    commit: T,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<T> {
    checksum: T,
}

/// Reads a map in which no key is there twice: two branches that were merged may both have added it.
fn unique<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Unique<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, V>()? {
                if map.contains_key(&key) {
                    return Err(A::Error::custom(format!("`{key}` is there twice")));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(Unique(PhantomData))
}

impl LockFile {
    /// Finds the lock of a build: the file that was named, or the one beside the Dockerfile.
    pub(crate) fn find(
        request: &SourceRequest,
        place: &Place,
        dockerfile: &Path,
    ) -> Result<LockFile, Error> {
        if let Some(path) = &request.lock.file {
            return LockFile::at(path, path.clone());
        }
        // What was read from a stream or a URL has nothing beside it.
        if place.dockerfile.is_some() {
            return Ok(LockFile::default());
        }
        let path = beside(dockerfile);
        match place.delivered {
            None => LockFile::at(&path, path.clone()),
            Some(_) => Ok(LockFile {
                path: None,
                shown: path.clone(),
                lock: match place.read(&path)? {
                    Some(bytes) => Some(Lock::read(&path, &bytes)?),
                    None => None,
                },
            }),
        }
    }

    fn at(path: &Path, shown: PathBuf) -> Result<LockFile, Error> {
        let lock = match read(path)? {
            Some(bytes) => Some(Lock::read(path, &bytes)?),
            None => None,
        };
        Ok(LockFile {
            path: Some(path.to_owned()),
            shown,
            lock,
        })
    }
}

/// Beside `Dockerfile` it is `kiln.lock`, beside `app.Dockerfile` it is `app.Dockerfile.kiln.lock`,
/// so that two Dockerfiles of a directory have a lock each.
fn beside(dockerfile: &Path) -> PathBuf {
    let name = dockerfile.file_name().unwrap_or_default();
    if name.eq_ignore_ascii_case("Dockerfile") {
        return dockerfile.with_file_name(NAME);
    }
    let mut name = name.to_owned();
    name.push(".");
    name.push(NAME);
    dockerfile.with_file_name(name)
}

impl Lock {
    /// Reads a lock.
    pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Lock, Error> {
        // The version decides what the rest means, so a foreign one is named before a foreign shape is.
        #[derive(Deserialize)]
        struct Head {
            version: String,
        }
        let malformed = |source| LockError::Malformed {
            path: path.to_owned(),
            source,
        };
        let Head { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != VERSION {
            let (path, found) = (path.to_owned(), version);
            let known = VERSION;
            return Err(LockError::Version { path, found, known }.into());
        }
        let document: Document = serde_json::from_slice(bytes).map_err(malformed)?;
        let images = document.images.into_iter().map(|(name, platforms)| {
            let platforms = platforms.0.into_iter().map(|(platform, image)| {
                let Image { manifest, config } = image;
                (platform, LockedImage { manifest, config })
            });
            (name, platforms.collect())
        });
        let git = document.git.into_iter();
        let http = document.http.into_iter();
        let lock = Lock {
            platforms: document.platforms,
            builders: document.builders,
            images: images.collect(),
            git: git.map(|(name, entry)| (name, entry.commit)).collect(),
            http: http.map(|(name, entry)| (name, entry.checksum)).collect(),
            times: document.times,
        };
        lock.check(path)?;
        Ok(lock)
    }

    /// Checks that all pins are digests and commits.
    fn check(&self, path: &Path) -> Result<(), LockError> {
        let images = self.images.iter().flat_map(|(name, platforms)| {
            let images = platforms.values();
            images.map(move |image| (name, Pin::Manifest(image.manifest.clone())))
        });
        let git = self.git.iter();
        let git = git.map(|(name, commit)| (name, Pin::Commit(commit.clone())));
        let http = self.http.iter();
        let http = http.map(|(name, digest)| (name, Pin::Checksum(digest.clone())));
        for (name, pin) in images.chain(git).chain(http) {
            if !pin.is_well_formed() {
                return Err(LockError::Value {
                    path: path.to_owned(),
                    name: name.clone(),
                    value: pin.value().to_owned(),
                    what: match pin {
                        Pin::Commit(_) => "commit",
                        Pin::Manifest(_) | Pin::Checksum(_) => "digest",
                    },
                });
            }
        }
        let images = self.images.values().flat_map(BTreeMap::keys);
        for name in images.chain(&self.platforms).chain(&self.builders) {
            if Platform::parse(name).is_err() {
                return Err(LockError::Platform {
                    path: path.to_owned(),
                    name: name.clone(),
                });
            }
        }
        Ok(())
    }

    /// Writes it, in one order whatever it was made of.
    pub(crate) fn print(&self) -> String {
        #[derive(Serialize)]
        struct Printed<'a> {
            version: &'a str,
            platforms: &'a BTreeSet<String>,
            builders: &'a BTreeSet<String>,
            images: BTreeMap<&'a str, BTreeMap<&'a str, PrintedImage<'a>>>,
            git: BTreeMap<&'a str, Commit<&'a str>>,
            http: BTreeMap<&'a str, Body<&'a str>>,
            times: &'a BTreeMap<String, i64>,
        }
        #[derive(Serialize)]
        struct PrintedImage<'a> {
            manifest: &'a str,
            config: Value,
        }
        let images = self.images.iter().map(|(name, platforms)| {
            let platforms = platforms.iter().map(|(platform, image)| {
                let image = PrintedImage {
                    manifest: &image.manifest,
                    config: kiln_ir::json::config_to_value(&image.config),
                };
                (platform.as_str(), image)
            });
            (name.as_str(), platforms.collect())
        });
        fn commit<'a>((name, commit): (&'a String, &'a String)) -> (&'a str, Commit<&'a str>) {
            (name, Commit { commit })
        }
        fn body<'a>((name, checksum): (&'a String, &'a String)) -> (&'a str, Body<&'a str>) {
            (name, Body { checksum })
        }
        let printed = Printed {
            version: VERSION,
            platforms: &self.platforms,
            builders: &self.builders,
            images: images.collect(),
            git: self.git.iter().map(commit).collect(),
            http: self.http.iter().map(body).collect(),
            times: &self.times,
        };
        let text = serde_json::to_string_pretty(&printed);
        text.expect("BUG: strings and numbers are always JSON") + "\n"
    }

    /// Writes the file in one step: whoever reads it finds the old text or the new one, and so does
    /// whoever comes after a crash.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        // A link stays one.
        let path = kiln_executor::behind_links(path).unwrap_or_else(|_| path.to_owned());
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.tmp", std::process::id()));
        let draft = PathBuf::from(draft);
        let written = write_new(&draft, self.print().as_bytes())
            .and_then(|()| std::fs::rename(&draft, &path));
        written.map_err(|source| {
            let _ = std::fs::remove_file(&draft);
            Error::File {
                attempt: "write",
                path,
                source,
            }
        })
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
