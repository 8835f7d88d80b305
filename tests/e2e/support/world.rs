//! The world of one case: a directory that holds its store, its home and its files.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use insta::Settings;
use tempfile::TempDir;

use super::kiln::{Kiln, Ran};
use super::leftovers::{leftovers, wait_for_porters, wait_for_settling};
use super::mask::MASKS;
use super::text::dedent;
use super::{base, capability};

/// Everything that a case may touch.
pub(crate) struct World {
    /// `room.case`: the first part of the names of its snapshots.
    name: String,
    directory: TempDir,
}

impl World {
    pub(super) fn new(room: &str, case: &str) -> World {
        let directory = tempfile::Builder::new()
            .prefix("kiln-e2e-")
            .tempdir()
            .unwrap();
        for part in ["home", "work", "tmp"] {
            std::fs::create_dir(directory.path().join(part)).unwrap();
        }
        World {
            name: format!("{room}.{case}"),
            directory,
        }
    }

    /// A path of the case: relative ones lie in its working directory.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("work").join(path)
    }

    /// Where its images, layers and records are.
    pub(crate) fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Writes a file of mode 0644, with its directories.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.write_mode(path, content, 0o644);
    }

    /// Writes a file with a mode, with its directories.
    pub(crate) fn write_mode(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        set_mode(&path, mode);
    }

    /// Writes a program.
    ///
    /// A process of its own does, so that no other case's child holds it open for writing when it runs.
    pub(crate) fn write_program(&self, path: &str, text: &str) {
        let script = "mkdir -p \"$(dirname \"$1\")\" && cat > \"$1\" && chmod 755 \"$1\"";
        let writer = self.program("sh", &["-c", script, "sh", path]);
        writer.stdin(text).ok();
    }

    /// Changes the mode of what is there.
    pub(crate) fn chmod(&self, path: &str, mode: u32) {
        set_mode(&self.path(path), mode);
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &str) {
        std::fs::remove_file(self.path(path)).unwrap();
    }

    /// Reads a file.
    pub(crate) fn read(&self, path: &str) -> String {
        let path = self.path(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes `ctx/Dockerfile`, without the indentation that its lines share.
    pub(crate) fn dockerfile(&self, text: &str) {
        self.write("ctx/Dockerfile", dedent(text));
    }

    /// Removes the store, once what settles in the background is done with it.
    pub(crate) fn forget(&self) {
        let store = self.store();
        wait_for_settling(self.directory.path());
        std::fs::remove_dir_all(&store)
            .unwrap_or_else(|error| panic!("{}: {error}", store.display()));
    }

    /// The command with arguments.
    pub(crate) fn kiln(&self, arguments: &[&str]) -> Kiln<'_> {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_kiln"));
        Kiln::new(
            self,
            program,
            arguments.iter().map(OsString::from).collect(),
        )
    }

    /// Another program in the same environment.
    pub(crate) fn program(&self, name: &str, arguments: &[&str]) -> Kiln<'_> {
        let program = capability::find_program(name).unwrap_or_else(|| panic!("no {name} here"));
        Kiln::new(
            self,
            program,
            arguments.iter().map(OsString::from).collect(),
        )
    }

    /// Unpacks the layout `layout:v1` with umoci and runs it with runc.
    pub(crate) fn run_by_runc(&self) -> Ran {
        self.program("umoci", &["unpack", "--image", "layout:v1", "bundle"])
            .ok();
        // No terminal here.
        let config = self.read("bundle/config.json");
        let config = config.replace("\"terminal\": true", "\"terminal\": false");
        self.write("bundle/config.json", config);
        let id = format!("kiln-e2e-{}", std::process::id());
        let state = self.path("runc-state");
        let root = ["--root", &state.to_string_lossy()];
        let run = ["run", "--bundle", "bundle", &id];
        self.program("runc", &[&root[..], &run[..]].concat()).ok()
    }

    /// `kiln build -t app ctx`, which must succeed.
    pub(crate) fn build(&self) -> Ran {
        self.kiln(&["build", "-t", "app", "ctx"]).ok()
    }

    /// Waits until a file is in some cache mount, and returns the directory of that.
    pub(crate) fn wait_in_caches(&self, file: &str) -> PathBuf {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mounts = std::fs::read_dir(self.store().join("mounts"));
            let mounts = mounts.into_iter().flatten().flatten();
            let found = mounts
                .map(|mount| mount.path())
                .find(|path| path.join(file).exists());
            if let Some(path) = found {
                return path;
            }
            assert!(Instant::now() < deadline, "no `{file}` appears in a cache");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Imports the base image as `demo/base`.
    pub(crate) fn base(&self) {
        self.import("demo/base", base::archive());
    }

    /// The archive of the base image.
    pub(crate) fn base_archive(&self) -> &'static [u8] {
        base::archive()
    }

    /// Imports an archive under a name.
    pub(crate) fn import(&self, name: &str, archive: &[u8]) {
        self.kiln(&["import", "-", name]).stdin(archive).ok();
    }

    /// Copies a program of this host into a directory, with the libraries that it needs, at their places.
    pub(crate) fn copy_program(&self, name: &str, directory: &str) {
        let program = capability::find_program(name).unwrap_or_else(|| panic!("no {name} here"));
        let ldd = std::process::Command::new("ldd")
            .arg(&program)
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&ldd.stdout).into_owned();
        let libraries = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
            .map(PathBuf::from);
        for file in libraries.chain([program]) {
            let to = format!("{directory}{}", file.display());
            self.write_mode(&to, std::fs::read(&file).unwrap(), 0o755);
        }
    }

    /// What a shell script prints in an image; the script must succeed.
    pub(crate) fn sh(&self, image: &str, script: &str) -> String {
        self.kiln(&["run", "--entrypoint", "/bin/sh", image, "-c", script])
            .ok()
            .stdout
    }

    /// The config of an image, as `kiln inspect` prints it.
    pub(crate) fn inspect(&self, image: &str) -> serde_json::Value {
        serde_json::from_str(&self.kiln(&["inspect", image]).ok().stdout).unwrap()
    }

    /// The names of the entries of each layer of an OCI layout, lowest layer first.
    pub(crate) fn layers_of_layout(&self, layout: &str) -> Vec<Vec<String>> {
        let blob = |digest: &serde_json::Value| {
            let digest = digest.as_str().unwrap().replace(':', "/");
            std::fs::read(self.path(layout).join("blobs").join(digest)).unwrap()
        };
        let document =
            |bytes: &[u8]| -> serde_json::Value { serde_json::from_slice(bytes).unwrap() };
        let index = document(&std::fs::read(self.path(layout).join("index.json")).unwrap());
        let manifest = document(&blob(&index["manifests"][0]["digest"]));
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| {
                let bytes = blob(&layer["digest"]);
                super::paths_in(flate2::read::MultiGzDecoder::new(&bytes[..]))
            })
            .collect()
    }

    /// Compares a text with the snapshot of this case.
    #[track_caller]
    pub(crate) fn snapshot(&self, text: &str) {
        self.compare(&self.name, text);
    }

    /// Compares a text with one of several snapshots of this case.
    #[track_caller]
    pub(crate) fn snapshot_of(&self, part: &str, text: &str) {
        self.compare(&format!("{}.{part}", self.name), text);
    }

    #[track_caller]
    fn compare(&self, name: &str, text: &str) {
        let mut settings = Settings::new();
        settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/snapshots"));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        for (pattern, replacement) in MASKS {
            settings.add_filter(pattern, *replacement);
        }
        settings.bind(|| insta::assert_snapshot!(name, text));
    }

    pub(super) fn environment(&self) -> Vec<(OsString, OsString)> {
        let place = |part: &str| self.directory.path().join(part).into_os_string();
        vec![
            (
                "PATH".into(),
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            ),
            ("HOME".into(), place("home")),
            ("DOCKER_CONFIG".into(), place("home")),
            ("KILN_ROOT".into(), place("store")),
            ("TMPDIR".into(), place("tmp")),
            // What engines of this host have is no business of a case.
            ("KILN_ENGINES".into(), "none".into()),
            ("NO_COLOR".into(), "1".into()),
            ("LANG".into(), "C".into()),
            ("TZ".into(), "UTC".into()),
        ]
    }

    /// Texts that name this world, and what stands for them in snapshots.
    pub(super) fn masks(&self) -> Vec<(String, String)> {
        let directory = self.directory.path().to_string_lossy().into_owned();
        vec![
            (format!("{directory}/work"), "[work]".to_owned()),
            (directory, "[world]".to_owned()),
        ]
    }

    /// Checks that nothing of the case is running or mounted.
    pub(super) fn finish(self) -> Result<(), String> {
        let mut left = leftovers(self.directory.path());
        if !wait_for_porters(self.directory.path()) {
            left.push("a process outside of a user namespace".to_owned());
        }
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("left behind:\n{}", left.join("\n")))
        }
    }

    /// What of this case runs or is mounted now.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        leftovers(self.directory.path())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("KILN_TEST_KEEP").is_some() {
            self.directory.disable_cleanup(true);
        } else {
            wait_for_settling(self.directory.path());
            open_up(self.directory.path());
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Lets directories be removed whose modes, kept from some image, forbid it.
fn open_up(directory: &Path) {
    let _ = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
