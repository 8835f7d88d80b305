//! A store in a directory of its own, and small things to put in.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use kiln_store::{
    BlobDigest, Content, DiffId, ImageId, Key, LayerHandle, Lease, NewImage, NewRecord, OpKey,
    Store, StoreOptions,
};
use kiln_tree::View;
use kiln_tree::seal::seal;
use tempfile::TempDir;

/// A store that is removed at the end of its test.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) lease: Lease,
    pub(crate) dir: TempDir,
}

pub(crate) fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    Fixture {
        lease: store.lease(),
        store,
        dir,
    }
}

/// A store whose overlays are marked as those in a user namespace are.
pub(crate) fn fixture_with_marks(overlay_xattrs: kiln_tree::OverlayXattrs) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        overlay_xattrs,
        ..StoreOptions::default()
    };
    let store = Store::open(&dir.path().join("store"), options).unwrap();
    Fixture {
        lease: store.lease(),
        store,
        dir,
    }
}

/// Opens the store as another process would.
pub(crate) fn open(dir: &TempDir) -> Store {
    Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap()
}

/// Whether the kernel lets us mount overlays; says so if not.
pub(crate) fn can_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: mounting needs root");
    }
    root
}

/// A small disk of its own, unmounted when dropped.
pub(crate) struct SmallDisk {
    dir: TempDir,
    _image: Option<tempfile::NamedTempFile>,
}

impl SmallDisk {
    /// In memory.
    pub(crate) fn tmpfs(size: &str) -> Option<SmallDisk> {
        SmallDisk::mount(&["-t", "tmpfs", "-o", &format!("size={size}")], None)
    }

    /// In a file.
    pub(crate) fn ext4(size: &str) -> Option<SmallDisk> {
        let image = tempfile::NamedTempFile::new().unwrap();
        let made = run("truncate", &["--size", size], image.path())
            && run("mkfs.ext4", &["-q"], image.path());
        if !made {
            eprintln!("skipped: cannot make an ext4 here");
            return None;
        }
        SmallDisk::mount(&["-t", "ext4", "-o", "loop"], Some(image))
    }

    fn mount(options: &[&str], image: Option<tempfile::NamedTempFile>) -> Option<SmallDisk> {
        if !can_mount() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let source = match &image {
            Some(image) => image.path().to_str().unwrap().to_owned(),
            None => "kiln-test".to_owned(),
        };
        if !run("mount", &[options, &[&source]].concat(), dir.path()) {
            eprintln!("skipped: cannot mount with {options:?} here");
            return None;
        }
        Some(SmallDisk { dir, _image: image })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Lets nobody write to it, or everybody again.
    pub(crate) fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        assert!(run("mount", &["-o", &options], self.path()));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &[], self.dir.path());
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let output = Command::new(program).args(arguments).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

/// Commits a layer of files.
pub(crate) fn layer(store: &Store, lease: &Lease, files: &[(&str, &str)]) -> LayerHandle {
    let draft = store.begin_layer().unwrap();
    for (name, text) in files {
        let path = draft.fs_path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let sealed = seal(draft.fs().as_fd(), &View::default(), &store.seal_options()).unwrap();
    let content = Content::Layer(sealed.manifest.id());
    store
        .commit_layer(lease, draft, &sealed.manifest, content)
        .unwrap()
}

/// Commits a layer of one file under a diff id.
pub(crate) fn diff_layer(store: &Store, lease: &Lease, diff_id: DiffId, text: &str) -> Content {
    let draft = store.begin_layer().unwrap();
    std::fs::write(draft.fs_path().join("file"), text).unwrap();
    let sealed = seal(draft.fs().as_fd(), &View::default(), &store.seal_options()).unwrap();
    store
        .commit_layer(lease, draft, &sealed.manifest, Content::DiffId(diff_id))
        .unwrap()
        .content
}

pub(crate) fn blob(store: &Store, lease: &Lease, bytes: &[u8]) -> BlobDigest {
    let mut writer = store.write_blob(None).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish(lease).unwrap()
}

pub(crate) fn key(number: u8) -> Key {
    Key([number; 32])
}

/// A record of one output.
pub(crate) fn record(keys: &[Key], layers: &[Content]) -> NewRecord {
    NewRecord {
        keys: keys.to_vec(),
        op: OpKey([1; 32]),
        slot: None,
        outputs: vec![Some(layers.to_vec())],
        parts: b"parts".to_vec(),
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
        duration: Duration::from_millis(1500),
    }
}

pub(crate) fn image(id: [u8; 32], layers: &[Content]) -> NewImage {
    NewImage {
        id: ImageId(id),
        manifest: b"manifest".to_vec(),
        config: b"config".to_vec(),
        layers: layers.to_vec(),
        size_bytes: 10,
        created: SystemTime::UNIX_EPOCH,
    }
}
