//! Registries for cases: Debian's, as a process, and images for the test's own.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use kiln_test_registry::{Registry, digest_of};

use crate::support::{Ran, World, base_archive, find_program};

/// `docker-registry` on a free port, ended when it is dropped.
pub(crate) struct DockerRegistry {
    process: Child,
    host: String,
}

impl DockerRegistry {
    pub(crate) fn start(world: &World) -> DockerRegistry {
        Self::start_with(world, "")
    }

    /// One that wants this line of a `htpasswd` to be kept to.
    pub(super) fn with_password(world: &World, line: &str) -> DockerRegistry {
        let file = world.path("htpasswd");
        world.write("htpasswd", line);
        let auth = format!(
            "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            file.display()
        );
        Self::start_with(world, &auth)
    }

    fn start_with(world: &World, auth: &str) -> DockerRegistry {
        let data = world.path("registry");
        world.write(
            "registry.yml",
            format!(
                "version: 0.1\nlog: {{level: info, formatter: json}}\nhttp: {{addr: '127.0.0.1:0'}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\n{auth}",
                data.display()
            ),
        );
        let log = File::create(world.path("registry.log")).unwrap();
        let mut process = Command::new(find_program("docker-registry").unwrap())
            .arg("serve")
            .arg(world.path("registry.yml"))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let host = loop {
            let log = world.read("registry.log");
            if let Some((_, rest)) = log.split_once("listening on ") {
                break rest.split('"').next().unwrap().to_owned();
            }
            assert!(
                process.try_wait().unwrap().is_none() && Instant::now() < deadline,
                "docker-registry does not listen: {log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        DockerRegistry { process, host }
    }

    /// Its name in references.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Puts an OCI archive of the world there, with skopeo.
    pub(super) fn push(&self, world: &World, archive: &str, name: &str, more: &[&str]) {
        let from = format!("oci-archive:{}", world.path(archive).display());
        let to = format!("docker://{}/{name}", self.host);
        let fixed = [
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
        ];
        world
            .program("skopeo", &[&fixed[..], more, &[&from, &to]].concat())
            .ok();
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An uncompressed layer that was packed: its diff id and its bytes.
pub(crate) struct Packed {
    pub(super) diff_id: String,
    pub(crate) bytes: Vec<u8>,
}

impl Packed {
    /// What the layer's blob is called.
    pub(crate) fn digest(&self) -> String {
        digest_of(&self.bytes)
    }
}

/// Packs an archive as a layer.
pub(crate) fn gzip(archive: &[u8]) -> Packed {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, archive).unwrap();
    Packed {
        diff_id: digest_of(archive),
        bytes: encoder.finish().unwrap(),
    }
}

/// The base that most cases begin with, as a layer.
pub(crate) fn base_layer() -> Packed {
    gzip(base_archive())
}

/// A config for these layers.
pub(super) fn config(architecture: &str, layers: &[&Packed]) -> String {
    config_with(architecture, layers, &[])
}

/// The same with further variables.
pub(crate) fn config_with(architecture: &str, layers: &[&Packed], variables: &[&str]) -> String {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let environment = [&["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], variables].concat();
    serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": environment, "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
}

/// Puts an image of these layers into a registry; returns the digest of its manifest.
pub(crate) fn add_image(registry: &Registry, name: &str, layers: &[&Packed]) -> String {
    let bytes: Vec<&[u8]> = layers.iter().map(|layer| &layer.bytes[..]).collect();
    registry.add_image(name, "latest", config("amd64", layers).as_bytes(), &bytes)
}

/// A registry that holds the base as `base`.
pub(super) fn with_base() -> Registry {
    let registry = Registry::start();
    add_image(&registry, "base", &[&base_layer()]);
    registry
}

/// Everything that a run wrote, with the registry's port masked.
pub(super) fn told(ran: &Ran, host: &str) -> String {
    hide_port(&ran.whole(), host)
}

/// The table of a build, with the registry's port masked.
pub(super) fn table(ran: &Ran, host: &str) -> String {
    hide_port(&ran.table(), host)
}

/// Ports have five digits nearly always, and columns keep their width then.
pub(crate) fn hide_port(text: &str, host: &str) -> String {
    text.replace(host, "127.0.0.1:_____")
}

/// Checks that the store holds nothing of a pull that failed.
pub(super) fn assert_empty_store(world: &World) {
    for part in ["layers", "blobs/sha256", "blobs/partial", "work", "trash"] {
        let left: Vec<_> = std::fs::read_dir(world.store().join(part))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "{part} holds {left:?}");
    }
    let du = world.kiln(&["du"]).ok().stdout;
    for kind in ["layers", "blobs"] {
        let line = du.lines().find(|line| line.starts_with(kind)).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some("0"), "{du}");
    }
}
