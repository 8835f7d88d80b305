//! What a caller trusts the steps of a build with: secrets and ssh agents by id.
//!
//! Nothing of it is kept: values are read when a step asks for them, and go to the step alone.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use crate::error::Error;

/// A larger secret is a mistake, as BuildKit has it.
const LIMIT_BYTES: u64 = 500 << 10;

/// Secrets and ssh agents by id.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// By id, as in `--secret id=ID`.
    pub values: BTreeMap<String, SecretSource>,
    /// By id, as in `--ssh ID`.
    pub agents: BTreeMap<String, AgentSource>,
}

/// Where a secret's value comes from.
#[derive(Clone)]
pub enum SecretSource {
    /// A file, read whenever a step needs it.
    File(PathBuf),
    /// The value itself.
    Value(Vec<u8>),
}

/// Where an ssh agent's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSource {
    /// The socket of an agent that runs already.
    Socket(PathBuf),
    /// Files of private keys, for which an agent is started when a step needs one.
    Keys(Vec<PathBuf>),
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::File(path) => f.debug_tuple("File").field(path).finish(),
            SecretSource::Value(_) => f.write_str("Value(..)"),
        }
    }
}

impl Secrets {
    /// Errors with the first file that cannot be what it should: better now than after an hour.
    pub fn check(&self) -> Result<(), Error> {
        for (id, source) in &self.values {
            let size_bytes = match source {
                SecretSource::Value(value) => value.len() as u64,
                SecretSource::File(path) => {
                    let found = std::fs::metadata(path);
                    let found = found.map_err(|source| secret_file(id, path, source))?;
                    if found.is_dir() {
                        let source = io::ErrorKind::IsADirectory.into();
                        return Err(secret_file(id, path, source));
                    }
                    found.len()
                }
            };
            if size_bytes > LIMIT_BYTES {
                return Err(Error::SecretTooBig { id: id.clone() });
            }
        }
        for (id, source) in &self.agents {
            crate::ssh::check(id, source)?;
        }
        Ok(())
    }

    /// Reads the value of a secret; none if none of that id was given.
    pub(crate) fn value(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = match self.values.get(id) {
            None => return Ok(None),
            Some(SecretSource::Value(value)) => return Ok(Some(value.clone())),
            Some(SecretSource::File(path)) => path,
        };
        let mut value = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LIMIT_BYTES + 1).read_to_end(&mut value))
            .map_err(|source| secret_file(id, path, source))?;
        if value.len() as u64 > LIMIT_BYTES {
            return Err(Error::SecretTooBig { id: id.to_owned() });
        }
        Ok(Some(value))
    }
}

fn secret_file(id: &str, path: &std::path::Path, source: io::Error) -> Error {
    Error::SecretFile {
        id: id.to_owned(),
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(source: SecretSource) -> Secrets {
        Secrets {
            values: BTreeMap::from([("key".to_owned(), source)]),
            agents: BTreeMap::new(),
        }
    }

    #[test]
    fn no_value_is_printed() {
        let shown = format!("{:?}", secrets(SecretSource::Value(b"hush".to_vec())));
        assert!(!shown.contains("hush") && shown.contains("key"), "{shown}");
    }

    #[test]
    fn a_file_is_read_when_it_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "one").unwrap();
        let secrets = secrets(SecretSource::File(path.clone()));
        secrets.check().unwrap();
        std::fs::write(&path, "two").unwrap();
        assert_eq!(secrets.value("key").unwrap(), Some(b"two".to_vec()));
        assert_eq!(secrets.value("other").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let check = |path: PathBuf, expected: &str| {
            let error = secrets(SecretSource::File(path)).check().unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        };
        let big = directory.path().join("big");
        std::fs::write(&big, vec![b'x'; LIMIT_BYTES as usize + 1]).unwrap();
        check(big, "the secret `key` has more than 500 KiB");
        check(directory.path().join("none"), "could not read the secret");
        check(directory.path().to_owned(), "could not read the secret");
    }
}
