//! Images of podman and of all that share its storage (buildah, CRI-O), read as files.
//!
//! Whoever writes there replaces its lists as a whole, so that they can be read at any time; what is removed
//! meanwhile is missed when it is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_oci::digest::Sha256Digest;
use kiln_oci::document::{ImageConfig, MANIFEST_LIMIT_BYTES};
use kiln_oci::reference::Reference;
use serde::Deserialize;

use super::tarsplit::SplitLayer;
use super::{Asking, Engine, LayerSource, LocalImage, LocalLayers, documents};
use crate::error::Error;
use crate::source::blocking;

/// The lists of a storage with many thousands of images.
const LIST_LIMIT_BYTES: u64 = 256 << 20;
/// A storage's settings.
const SETTINGS_LIMIT_BYTES: u64 = 1 << 20;
/// An image has no more layers than this, however the list links them.
const MOST_LAYERS: usize = 10_000;
/// The drivers whose layers are read here.
const DRIVERS: [&str; 2] = ["overlay", "vfs"];

/// A storage of one driver.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Storage {
    root: PathBuf,
    driver: String,
}

#[derive(Deserialize)]
struct Image {
    id: String,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    layer: String,
    #[serde(rename = "big-data-names", default)]
    data: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Layer {
    id: String,
    #[serde(default)]
    parent: String,
    #[serde(rename = "diff-digest", default)]
    diff_digest: String,
    #[serde(rename = "diff-size", default)]
    diff_size: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Settings {
    #[serde(default)]
    storage: StorageSettings,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StorageSettings {
    driver: String,
    graphroot: String,
    rootless_storage_path: String,
}

/// Looks for an image.
pub(super) async fn find(asking: Asking<'_>) -> Result<Option<LocalImage>, Error> {
    let storages = here();
    if storages.is_empty() {
        return Ok(None);
    }
    let (reference, platform) = (asking.reference.clone(), asking.platform.clone());
    blocking(move || {
        let mut other_platform = None;
        for storage in &storages {
            match storage.find(&reference, &platform) {
                Ok(Some(image)) => return Ok(Some(image)),
                Ok(None) => {}
                Err(error @ Error::Platform { .. }) => other_platform = Some(error),
                Err(error) => return Err(error),
            }
        }
        other_platform.map_or(Ok(None), Err)
    })
    .await
}

/// Which of these layers are there, with the lengths of their archives.
pub(super) async fn known(
    diff_ids: &[Sha256Digest],
) -> Result<BTreeMap<Sha256Digest, Option<u64>>, Error> {
    let storages = here();
    let wanted: BTreeSet<Sha256Digest> = diff_ids.iter().copied().collect();
    blocking(move || {
        let mut known = BTreeMap::new();
        for layer in storages
            .first()
            .map(Storage::listed)
            .transpose()?
            .unwrap_or_default()
        {
            if let Ok(digest) = layer.diff_digest.parse()
                && wanted.contains(&digest)
            {
                known.insert(digest, layer.diff_size);
            }
        }
        Ok(known)
    })
    .await
}

/// The storages that this process may look into.
fn here() -> Vec<Storage> {
    let rootless = kiln_sandbox::userns::entered() || !rustix::process::geteuid().is_root();
    let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    storages(&get, rootless)
}

/// The storages of this user that are there, as containers-storage.conf(5) says where.
fn storages(get: &dyn Fn(&str) -> Option<String>, rootless: bool) -> Vec<Storage> {
    let settings = settings(get, rootless);
    let data = || {
        let data = get("XDG_DATA_HOME").map(PathBuf::from);
        data.or_else(|| get("HOME").map(|home| Path::new(&home).join(".local/share")))
    };
    let expand = |text: &str| {
        let home = get("HOME").unwrap_or_default();
        let user = get("USER").unwrap_or_default();
        text.replace("$HOME", &home).replace("$USER", &user)
    };
    let named = match (rootless, settings.rootless_storage_path.as_str()) {
        (true, path) if !path.is_empty() => path,
        _ => settings.graphroot.as_str(),
    };
    let root = match (named, rootless) {
        ("", false) => Some(PathBuf::from("/var/lib/containers/storage")),
        ("", true) => data().map(|data| data.join("containers/storage")),
        (path, _) => Some(PathBuf::from(expand(path))),
    };
    let Some(root) = root else {
        return Vec::new();
    };
    let driver = get("STORAGE_DRIVER").unwrap_or(settings.driver);
    let wanted = |name: &&str| driver.is_empty() || driver == *name;
    let storage = |driver: &str| Storage {
        root: root.clone(),
        driver: driver.to_owned(),
    };
    let there = |storage: &Storage| storage.images().join("images.json").exists();
    DRIVERS
        .iter()
        .copied()
        .filter(wanted)
        .map(storage)
        .filter(there)
        .collect()
}

/// What the settings say that count for this user; a file that cannot be used says nothing.
fn settings(get: &dyn Fn(&str) -> Option<String>, rootless: bool) -> StorageSettings {
    let own = get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| get("HOME").map(|home| Path::new(&home).join(".config")))
        .map(|config| config.join("containers/storage.conf"))
        .filter(|_| rootless);
    let system = [
        "/etc/containers/storage.conf",
        "/usr/share/containers/storage.conf",
    ];
    let is_own = |path: &Path| own.as_deref() == Some(path);
    let candidates = match get("CONTAINERS_STORAGE_CONF") {
        Some(path) => vec![PathBuf::from(path)],
        None => own
            .clone()
            .into_iter()
            .chain(system.map(PathBuf::from))
            .collect(),
    };
    for path in candidates {
        let Ok(Some(bytes)) = read(&path, SETTINGS_LIMIT_BYTES) else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut storage = toml::from_str::<Settings>(&text)
            .unwrap_or_default()
            .storage;
        if rootless && !is_own(&path) {
            // The system's place is root's, and a file that a variable names counts as the system's.
            storage.graphroot.clear();
        }
        return storage;
    }
    StorageSettings::default()
}

/// Reads a file; nothing if it is not there.
fn read(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        // Somebody else's storage is as good as none.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit_bytes {
        let long = io::Error::other(format!("it has more than {limit_bytes} bytes"));
        return Err(Error::io("read", path)(long));
    }
    Ok(Some(bytes))
}

impl Storage {
    fn images(&self) -> PathBuf {
        self.root.join(format!("{}-images", self.driver))
    }

    fn list<T: for<'a> Deserialize<'a>>(&self, path: &Path) -> Result<Vec<T>, Error> {
        let Some(bytes) = read(path, LIST_LIMIT_BYTES)? else {
            return Ok(Vec::new());
        };
        serde_json::from_slice(&bytes).map_err(|error| Error::Engine {
            engine: Engine::Podman,
            attempt: format!("read `{}`", path.display()),
            reason: error.to_string(),
        })
    }

    fn find(
        &self,
        reference: &Reference,
        platform: &kiln_ir::Platform,
    ) -> Result<Option<LocalImage>, Error> {
        let images: Vec<Image> = self.list(&self.images().join("images.json"))?;
        let mut other_platform = None;
        for image in candidates(&images, reference) {
            match self.image(image, reference, platform) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error @ Error::Platform { .. }) => other_platform = Some(error),
                Err(error) => return Err(error),
            }
        }
        other_platform.map_or(Ok(None), Err)
    }

    /// Reads what is known of an image; nothing if it is not all there.
    fn image(
        &self,
        image: &Image,
        reference: &Reference,
        platform: &kiln_ir::Platform,
    ) -> Result<Option<LocalImage>, Error> {
        let data = |key: &str, limit| {
            let is_name =
                !image.id.is_empty() && image.id.bytes().all(|b| b.is_ascii_alphanumeric());
            match is_name {
                true => read(&self.images().join(&image.id).join(file_name(key)), limit),
                false => Ok(None),
            }
        };
        let root = match reference.digest() {
            Some(digest) => *digest,
            None => {
                let Some(manifest) = data("manifest", MANIFEST_LIMIT_BYTES)? else {
                    return Ok(None);
                };
                Sha256Digest::of(&manifest)
            }
        };
        let by_digest = |digest: &Sha256Digest, limit| {
            let keys = [
                format!("manifest-{digest}"),
                digest.to_string(),
                "manifest".to_owned(),
            ];
            for key in keys {
                if let Some(bytes) = data(&key, limit)?
                    && Sha256Digest::of(&bytes) == *digest
                {
                    return Ok(Some(bytes));
                }
            }
            Ok(None)
        };
        let shown = reference.familiar();
        let Some(found) = documents::follow(root, platform, &shown, by_digest)? else {
            return Ok(None);
        };
        let Ok(config) = ImageConfig::from_slice(&found.config) else {
            return Ok(None);
        };
        let layers = self.layers(&image.layer)?;
        let listed: Vec<String> = config
            .rootfs
            .diff_ids
            .iter()
            .map(Sha256Digest::to_string)
            .collect();
        let are_these = layers.iter().map(|layer| &layer.diff_digest).eq(&listed);
        let layers: Vec<SplitLayer> = layers
            .iter()
            .filter_map(|layer| self.layer(layer))
            .collect();
        if !are_these || layers.len() != listed.len() {
            return Ok(None);
        }
        Ok(Some(LocalImage {
            engine: Engine::Podman,
            manifest: found.manifest_digest,
            config: found.config,
            added: fs::metadata(self.images().join(&image.id))
                .and_then(|kept| kept.modified())
                .ok(),
            layers: LocalLayers::Each(layers.into_iter().map(LayerSource::Split).collect()),
            blobs: found.manifest.layers,
        }))
    }

    /// All layers, in no order.
    fn listed(&self) -> Result<Vec<Layer>, Error> {
        let directory = self.root.join(format!("{}-layers", self.driver));
        let mut layers: Vec<Layer> = self.list(&directory.join("layers.json"))?;
        layers.extend(self.list(&directory.join("volatile-layers.json"))?);
        Ok(layers)
    }

    /// The layers below and with `top`, lowest first.
    fn layers(&self, top: &str) -> Result<Vec<Layer>, Error> {
        let listed = self.listed()?.into_iter();
        let mut by_id: BTreeMap<String, Layer> =
            listed.map(|layer| (layer.id.clone(), layer)).collect();
        let mut stack = Vec::new();
        let mut next = top.to_owned();
        while !next.is_empty() && stack.len() < MOST_LAYERS {
            // Each is taken once, so that a circle ends.
            let Some(layer) = by_id.remove(&next) else {
                return Ok(Vec::new());
            };
            next.clone_from(&layer.parent);
            stack.push(layer);
        }
        stack.reverse();
        Ok(stack)
    }

    fn layer(&self, layer: &Layer) -> Option<SplitLayer> {
        if layer.id.is_empty() || !layer.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let lines = format!("{}-layers/{}.tar-split.gz", self.driver, layer.id);
        let files = match self.driver.as_str() {
            "overlay" => format!("overlay/{}/diff", layer.id),
            driver => format!("{driver}/dir/{}", layer.id),
        };
        let split = SplitLayer {
            name: layer.diff_digest.clone(),
            lines: self.root.join(lines),
            files: self.root.join(files),
            size_bytes: layer.diff_size,
        };
        split.lines.exists().then_some(split)
    }
}

/// The images that a reference may mean, the likeliest first.
fn candidates<'i>(images: &'i [Image], reference: &Reference) -> Vec<&'i Image> {
    if let Some(digest) = reference.digest() {
        let digest = digest.to_string();
        let key = format!("manifest-{digest}");
        let has = |image: &&Image| {
            let data = image.data.iter().flatten();
            image.digest.as_deref() == Some(&digest) || data.into_iter().any(|name| *name == key)
        };
        return images.iter().filter(has).collect();
    }
    let wanted = reference.to_string();
    let mut names = vec![wanted.clone()];
    // What podman builds without a registry in its name is local.
    if wanted.starts_with("docker.io/") {
        names.push(format!("localhost/{}", reference.familiar()));
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for name in &names {
        for image in images {
            if image.names.iter().flatten().any(|other| other == name) && seen.insert(&image.id) {
                found.push(image);
            }
        }
    }
    found
}

/// What the file of a key is called: letters, digits and dots stand for themselves.
fn file_name(key: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    match key.bytes().all(is_plain) {
        true => key.to_owned(),
        false => format!("={}", STANDARD.encode(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_files() {
        assert_eq!(file_name("manifest"), "manifest");
        assert_eq!(file_name("sha256:12"), "=c2hhMjU2OjEy");
    }

    fn check(variables: &[(&str, &str)], rootless: bool, expected: &[(&str, &str)]) {
        let get = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let found = storages(&get, rootless);
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|storage| (storage.root.to_str().unwrap(), storage.driver.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn settings_say_where_storages_are() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("home/.local/share/containers/storage");
        for driver in DRIVERS {
            let images = root.join(format!("{driver}-images"));
            std::fs::create_dir_all(&images).unwrap();
            std::fs::write(images.join("images.json"), "[]").unwrap();
        }
        let (home, root) = (folder.path().join("home"), root.to_str().unwrap());
        let home = home.to_str().unwrap();
        let conf = folder.path().join("storage.conf");
        let conf = conf.to_str().unwrap();
        let both = [(root, "overlay"), (root, "vfs")];
        let none = [("CONTAINERS_STORAGE_CONF", "/nothing/here"), ("HOME", home)];
        check(&none, true, &both);
        check(&[none[0], ("HOME", "/nothing")], true, &[]);
        check(
            &[none[0], ("STORAGE_DRIVER", "vfs"), none[1]],
            true,
            &both[1..],
        );
        let named = format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{root}\"\n");
        std::fs::write(conf, named).unwrap();
        check(&[("CONTAINERS_STORAGE_CONF", conf)], false, &both[..1]);
        check(
            &[("CONTAINERS_STORAGE_CONF", conf), ("HOME", "/nothing")],
            true,
            &[],
        );
        let rootless =
            "[storage]\nrootless_storage_path = \"$HOME/.local/share/containers/storage\"\n";
        std::fs::write(conf, rootless).unwrap();
        check(
            &[("CONTAINERS_STORAGE_CONF", conf), ("HOME", home)],
            true,
            &both,
        );
    }

    fn images() -> Vec<Image> {
        let digest = format!("sha256:{}", "1".repeat(64));
        serde_json::from_str(&format!(
            r#"[{{"id":"a","names":["localhost/app:latest","quay.io/me/app:1"],"layer":"x"}},
                {{"id":"b","names":["docker.io/library/app:latest"],"digest":"{digest}"}},
                {{"id":"c","names":null,"big-data-names":["manifest-{digest}"]}}]"#
        ))
        .unwrap()
    }

    fn check_candidates(reference: &str, expected: &[&str]) {
        let images = images();
        let found = candidates(&images, &Reference::parse(reference).unwrap());
        let found: Vec<&str> = found.iter().map(|image| image.id.as_str()).collect();
        assert_eq!(found, expected, "{reference}");
    }

    #[test]
    fn names_and_digests_are_found() {
        check_candidates("app", &["b", "a"]);
        check_candidates("quay.io/me/app:1", &["a"]);
        check_candidates("quay.io/me/app:2", &[]);
        check_candidates(&format!("any@sha256:{}", "1".repeat(64)), &["b", "c"]);
        check_candidates(&format!("app@sha256:{}", "2".repeat(64)), &[]);
    }
}
