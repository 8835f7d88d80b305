//! Changing a JSON file that other programs own: in one step, with all that they wrote in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use serde::Serialize as _;
use serde_json::{Map, Value};

use super::{CredentialsError, LIMIT_BYTES};

/// Lets `change` edit the object in `path`, which `false` of it leaves as it is.
///
/// The file is replaced by one of mode 0600, so that it is the old or the new one whatever happens;
/// a link stays a link. Keys keep their order.
pub(super) fn edit<T>(
    path: &Path,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<(bool, T), CredentialsError>,
) -> Result<T, CredentialsError> {
    let failed = |source| CredentialsError::Write {
        path: path.to_owned(),
        source,
    };
    let file = target(path).map_err(failed)?;
    let folder = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(folder).map_err(failed)?;
    // Where a directory cannot be locked, as on some network file systems, the last one wins.
    let lock = File::open(folder).map_err(failed)?;
    let _ = lock.lock();
    let mut root = match read(&file).map_err(failed)? {
        None => Map::new(),
        Some(bytes) => match serde_json::from_slice(&bytes) {
            Ok(Value::Object(root)) => root,
            Ok(_) => {
                return Err(CredentialsError::Shape {
                    path: path.to_owned(),
                    what: "it is no object",
                });
            }
            Err(source) => {
                return Err(CredentialsError::Parse {
                    path: path.to_owned(),
                    source,
                });
            }
        },
    };
    let (changed, result) = change(&mut root)?;
    if changed {
        replace(&file, folder, &root).map_err(failed)?;
    }
    Ok(result)
}

/// Where a link leads, even if nothing is there yet.
fn target(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(match fs::read_link(path) {
            Ok(target) => path.parent().unwrap_or(Path::new(".")).join(target),
            Err(_) => path.to_owned(),
        }),
        Err(error) => Err(error),
    }
}

/// Returns what is in the file, or nothing if it is empty or not there.
pub(super) fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    opened.take(LIMIT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "more than 1 MiB",
        ));
    }
    Ok(Some(bytes).filter(|bytes| !bytes.trim_ascii().is_empty()))
}

fn replace(file: &Path, folder: &Path, root: &Map<String, Value>) -> io::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // One name, since there is a lock: what a kill leaves behind is taken away by the next one.
    let new = folder.join(format!(".{name}.kiln"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write(&new, file, root).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn write(new: &Path, old: &Path, root: &Map<String, Value>) -> io::Result<()> {
    let mut bytes = Vec::new();
    // As docker indents it.
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    root.serialize(&mut serializer)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)?;
    file.write_all(&bytes)?;
    if let Ok(old) = fs::metadata(old)
        && file
            .metadata()
            .is_ok_and(|new| (new.uid(), new.gid()) != (old.uid(), old.gid()))
    {
        // Root who changes another's file leaves it to them; nobody else can.
        let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn set(path: &Path, key: &str) -> Result<(), CredentialsError> {
        edit(path, |root| {
            root.insert(key.to_owned(), Value::from(1));
            Ok((true, ()))
        })
    }

    #[test]
    fn what_others_wrote_stays_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, r#"{"z":{"y":[1,2.5,null]},"a":"\u00e9"}"#).unwrap();
        set(&path, "m").unwrap();
        let expected = "{\n\t\"z\": {\n\t\t\"y\": [\n\t\t\t1,\n\t\t\t2.5,\n\t\t\tnull\n\t\t]\n\t},\n\t\
                        \"a\": \"é\",\n\t\"m\": 1\n}";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, real) = (
            folder.path().join("config.json"),
            folder.path().join("real/x.json"),
        );
        std::os::unix::fs::symlink("real/x.json", &path).unwrap();
        set(&path, "a").unwrap();
        set(&path, "b").unwrap();
        assert!(
            fs::symlink_metadata(&path)
                .unwrap()
                .file_type()
                .is_symlink()
        );
        assert_eq!(
            fs::read_to_string(&real).unwrap(),
            "{\n\t\"a\": 1,\n\t\"b\": 1\n}"
        );
    }

    #[test]
    fn what_a_kill_left_behind_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".config.json.kiln"), "half").unwrap();
        set(&folder.path().join("config.json"), "a").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_understood_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        for text in ["{", "[]", "nonsense"] {
            fs::write(&path, text).unwrap();
            set(&path, "a").unwrap_err();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn of_many_at_once_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || set(path, &format!("key{number}")).unwrap());
            }
        });
        let root: Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(root.len(), 8);
    }
}
