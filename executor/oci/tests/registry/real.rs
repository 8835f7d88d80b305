//! The same client against the registry that Debian packages as `docker-registry`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use kiln_oci::document::{Descriptor, ImageConfig, Manifest};
use kiln_oci::media_type::{Compression, Flavor};
use kiln_oci::reference::Reference;
use kiln_oci::registry::{Client, Config, PushOptions, Pushed, RetryPolicy};

use crate::{content, describe, fetch};

const PROGRAM: &str = "/usr/bin/docker-registry";

/// Ends the program, whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it on a free port, which its log tells.
fn start(folder: &Path) -> (Running, String) {
    let config = folder.join("config.yml");
    let root = folder.join("data");
    let text = format!(
        "version: 0.1\nlog: {{level: info, formatter: json}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
         http: {{addr: '127.0.0.1:0'}}\n",
        root.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(PROGRAM)
        .arg("serve")
        .arg(&config)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let running = Running(child);
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "docker-registry ended early: {seen}"
        );
        if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            // The log is read on, or the program would stand still when the pipe is full.
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return (running, format!("127.0.0.1:{port}"));
        }
        seen.push_str(&line);
    }
}

#[tokio::test]
async fn an_image_goes_there_and_back() {
    if !Path::new(PROGRAM).exists() {
        // Said on the output, since libtest knows no skipped tests.
        std::io::Write::write_all(
            &mut std::io::stderr(),
            b"skipped: there is no /usr/bin/docker-registry\n",
        )
        .unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_running, host) = start(folder.path());
    let client = Client::new(Config {
        system_roots: false,
        retry: RetryPolicy {
            attempts: 3,
            ..RetryPolicy::default()
        },
        ..Config::default()
    });
    let name = Reference::parse(&format!("{host}/kiln/test:v1")).unwrap();
    assert!(client.resolve(&name).await.unwrap_err().is_not_found());

    let config = ImageConfig {
        os: "linux".into(),
        architecture: "amd64".into(),
        ..ImageConfig::default()
    };
    let config = Bytes::from(config.to_bytes());
    let config_descriptor = Descriptor::of(Flavor::Oci.config(), &config);
    let layers = [content(3 << 20), content(100_000)];
    let whole = PushOptions::default();
    let chunked = PushOptions {
        chunk_bytes: Some(1 << 20),
        ..PushOptions::default()
    };
    client
        .push_blob(&name, &config_descriptor, &config, &whole)
        .await
        .unwrap();
    let mut descriptors = Vec::new();
    for (layer, options) in layers.iter().zip([&chunked, &whole]) {
        let descriptor = Descriptor {
            media_type: Flavor::Oci.layer(Compression::Gzip).into(),
            ..describe(layer)
        };
        let source = Bytes::from(layer.clone());
        assert_eq!(
            client
                .push_blob(&name, &descriptor, &source, options)
                .await
                .unwrap(),
            Pushed::Uploaded
        );
        assert_eq!(
            client
                .push_blob(&name, &descriptor, &source, options)
                .await
                .unwrap(),
            Pushed::Present
        );
        descriptors.push(descriptor);
    }
    let manifest =
        Bytes::from(Manifest::new(Flavor::Oci, config_descriptor, descriptors.clone()).to_bytes());
    let digest = client
        .push_manifest(&name, Flavor::Oci.manifest(), manifest.clone())
        .await
        .unwrap()
        .digest;

    let resolved = client.resolve(&name).await.unwrap();
    assert_eq!(
        (resolved.digest, resolved.size),
        (digest, manifest.len() as u64)
    );
    let image = client
        .image(&name.with_digest(digest), &"linux/amd64".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(
        (&image.manifest.bytes, &image.config_bytes),
        (&manifest, &config)
    );
    for (layer, descriptor) in layers.iter().zip(&image.layers) {
        assert!(fetch(&client, &name, descriptor).await.unwrap() == *layer);
    }

    let other = Reference::parse(&format!("{host}/kiln/other")).unwrap();
    let options = PushOptions {
        mount_from: vec![name],
        ..PushOptions::default()
    };
    let source = Bytes::from(layers[0].clone());
    assert_eq!(
        client
            .push_blob(&other, &descriptors[0], &source, &options)
            .await
            .unwrap(),
        Pushed::Mounted
    );
    assert!(fetch(&client, &other, &descriptors[0]).await.unwrap() == layers[0]);
}
