//! Names, images, blobs and pushes where nothing goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kiln_oci::document::{Index, Root};
use kiln_oci::media_type::{Flavor, OCI_MANIFEST};
use kiln_oci::platform::Platform;
use kiln_oci::reference::Reference;
use kiln_oci::registry::{Error, PushOptions, Pushed};
use kiln_test_registry::{Fault, Registry};

use crate::{client, content, describe, fetch, reference, show};

#[tokio::test]
async fn a_name_is_resolved_without_fetching() {
    let registry = Registry::start();
    let digest = registry.add_image("x/y", "v1", b"{}", &[]);
    let resolved = client()
        .resolve(&reference(&registry, "x/y:v1"))
        .await
        .unwrap();
    assert_eq!(
        (resolved.digest.to_string(), resolved.media_type.as_str()),
        (digest, OCI_MANIFEST)
    );
    assert_eq!(registry.count("GET", "/manifests/"), 0);
    let agent = registry.log()[0].user_agent.clone().unwrap();
    assert!(agent.starts_with("kiln/"), "{agent}");
}

#[tokio::test]
async fn a_registry_without_digest_headers_is_asked_for_the_manifest() {
    let registry = Registry::builder().hide_digests().start();
    let digest = registry.add_image("x", "v1", b"{}", &[]);
    let resolved = client()
        .resolve(&reference(&registry, "x:v1"))
        .await
        .unwrap();
    assert_eq!(resolved.digest.to_string(), digest);
    assert_eq!(registry.count("GET", "/manifests/v1"), 1);
}

#[tokio::test]
async fn an_image_is_chosen_from_an_index_by_platform() {
    let registry = Registry::start();
    let mut index = Index::new(Flavor::Oci, Vec::new());
    for architecture in ["amd64", "arm64"] {
        let config = format!(r#"{{"architecture":"{architecture}","os":"linux"}}"#);
        registry.add_image(
            "x",
            architecture,
            config.as_bytes(),
            &[architecture.as_bytes()],
        );
        let (_, bytes) = registry.manifest("x", architecture).unwrap();
        let mut entry = describe(&bytes);
        entry.media_type = OCI_MANIFEST.to_owned();
        entry.platform = Some(Platform::new("linux", architecture, ""));
        index.manifests.push(entry);
    }
    let bytes = index.to_bytes();
    let digest = registry.add_manifest("x", Some("latest"), Flavor::Oci.index(), &bytes);
    let name = reference(&registry, "x");
    let wanted = "linux/arm64".parse().unwrap();
    let image = client().image(&name, &wanted).await.unwrap();
    assert_eq!(image.root.digest.to_string(), digest);
    assert_eq!(image.root.bytes, bytes);
    assert!(
        matches!(image.root.root, Root::Index(_))
            && matches!(image.manifest.root, Root::Manifest(_))
    );
    assert_eq!(image.config.architecture, "arm64");
    assert_eq!(
        fetch(&client(), &name, &image.layers[0]).await.unwrap(),
        b"arm64"
    );
    let shown = show(
        &client()
            .image(&name, &"windows/amd64".parse().unwrap())
            .await
            .unwrap_err(),
    );
    let expected = "has no image for platform `windows/amd64`; it has linux/amd64, linux/arm64";
    assert!(shown.contains(expected), "{shown}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let registry = Registry::start();
    let error = client()
        .resolve(&reference(&registry, "none"))
        .await
        .unwrap_err();
    assert!(error.is_not_found());
    let error = client()
        .manifest(&reference(&registry, "none"))
        .await
        .unwrap_err();
    let expected = "cannot fetch the manifest of `HOST/none:latest` at `HOST`: not found \
                    (MANIFEST_UNKNOWN: test registry says MANIFEST_UNKNOWN); check the name and the tag";
    assert_eq!(show(&error), expected);
}

#[tokio::test]
async fn several_blobs_come_at_once() {
    let registry = Registry::start();
    let client = client();
    let name = reference(&registry, "x");
    let blobs: Vec<Vec<u8>> = (1..9).map(|count| content(count * 10_000)).collect();
    let transfers = blobs.iter().map(|blob| {
        registry.add_blob("x", blob);
        let (client, name, descriptor) = (client.clone(), name.clone(), describe(blob));
        tokio::spawn(async move { fetch(&client, &name, &descriptor).await })
    });
    let transfers: Vec<_> = transfers.collect();
    for (transfer, blob) in transfers.into_iter().zip(&blobs) {
        assert!(transfer.await.unwrap().unwrap() == *blob);
    }
}

#[tokio::test]
async fn a_blob_may_lie_at_another_host() {
    let (registry, storage) = (Registry::start(), Registry::start());
    let bytes = content(5000);
    storage.add_blob("x", &bytes);
    let cut = || Fault::CutAfter {
        path: "/blobs/".into(),
        bytes: 1000,
    };
    storage.inject(cut());
    for _ in 0..2 {
        registry.inject(Fault::Redirect {
            path: "/blobs/".into(),
            to: storage.url(),
        });
    }
    let got = fetch(&client(), &reference(&registry, "x"), &describe(&bytes))
        .await
        .unwrap();
    assert!(got == bytes);
    assert_eq!(storage.log()[1].range.as_deref(), Some("bytes=1000-"));
}

fn source(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Pushes a blob of 100000 bytes and checks that the registry has it.
async fn push(registry: &Registry, options: &PushOptions) -> Result<Pushed, Error> {
    let bytes = content(100_000);
    let descriptor = describe(&bytes);
    let pushed = client()
        .push_blob(
            &reference(registry, "x"),
            &descriptor,
            &source(&bytes),
            options,
        )
        .await?;
    assert!(registry.blob("x", &descriptor.digest.to_string()).unwrap() == bytes);
    Ok(pushed)
}

#[tokio::test]
async fn a_blob_is_sent_once() {
    let registry = Registry::start();
    assert_eq!(
        push(&registry, &PushOptions::default()).await.unwrap(),
        Pushed::Uploaded
    );
    assert_eq!(
        push(&registry, &PushOptions::default()).await.unwrap(),
        Pushed::Present
    );
    assert_eq!(registry.count("PUT", "/blobs/uploads/"), 1);
}

#[tokio::test]
async fn a_blob_is_sent_in_chunks_if_wanted() {
    let registry = Registry::start();
    let sent = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&sent);
    let options = PushOptions {
        chunk_bytes: Some(40_000),
        progress: Some(Arc::new(move |bytes| seen.store(bytes, Ordering::Relaxed))),
        ..PushOptions::default()
    };
    assert_eq!(push(&registry, &options).await.unwrap(), Pushed::Uploaded);
    assert_eq!(registry.count("PATCH", "/blobs/uploads/"), 3);
    assert_eq!(sent.load(Ordering::Relaxed), 100_000);
}

#[tokio::test]
async fn a_lost_upload_goes_on_in_chunks() {
    for method_part in ["digest=", "uploads/1", "uploads/"] {
        let registry = Registry::start();
        registry.inject(Fault::Drop {
            path: method_part.into(),
        });
        assert_eq!(
            push(&registry, &PushOptions::default()).await.unwrap(),
            Pushed::Uploaded,
            "{method_part}"
        );
        assert!(registry.pending_faults().is_empty());
    }
    let registry = Registry::start();
    registry.inject(Fault::Status {
        path: "uploads/1".into(),
        status: 502,
        retry_after: None,
    });
    let options = PushOptions {
        chunk_bytes: Some(40_000),
        ..PushOptions::default()
    };
    assert_eq!(push(&registry, &options).await.unwrap(), Pushed::Uploaded);
    assert_eq!(registry.count("GET", "/blobs/uploads/1"), 1);
}

#[tokio::test]
async fn a_failing_upload_comes_to_an_end() {
    let registry = Registry::start();
    for _ in 0..40 {
        registry.inject(Fault::Status {
            path: "uploads/".into(),
            status: 500,
            retry_after: None,
        });
    }
    let shown = show(&push(&registry, &PushOptions::default()).await.unwrap_err());
    assert!(
        shown.contains("cannot push blob sha256:") && shown.contains("answered 500"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_blob_of_another_repository_is_mounted() {
    let registry = Registry::start();
    let bytes = content(100_000);
    registry.add_blob("base", &bytes);
    let elsewhere = Reference::parse("example.com/other").unwrap();
    let options = PushOptions {
        mount_from: vec![elsewhere, reference(&registry, "base")],
        ..PushOptions::default()
    };
    assert_eq!(push(&registry, &options).await.unwrap(), Pushed::Mounted);
    assert_eq!(registry.count("PUT", "/"), 0);
    let registry = Registry::builder().refuse_mounts().start();
    registry.add_blob("base", &bytes);
    let options = PushOptions {
        mount_from: vec![reference(&registry, "base")],
        ..PushOptions::default()
    };
    assert_eq!(push(&registry, &options).await.unwrap(), Pushed::Uploaded);
    // What it opened instead is used.
    assert_eq!(registry.count("POST", "/blobs/uploads/"), 1);
}

#[tokio::test]
async fn content_that_does_not_fit_its_descriptor_is_not_pushed() {
    let registry = Registry::start();
    let (bytes, name) = (content(1000), reference(&registry, "x"));
    let mut longer = describe(&bytes);
    longer.size = 2000;
    let error = client()
        .push_blob(&name, &longer, &source(&bytes), &PushOptions::default())
        .await
        .unwrap_err();
    assert!(
        show(&error).contains("shorter than its descriptor says"),
        "{}",
        show(&error)
    );
    let missing = std::path::PathBuf::from("/nonexistent/blob");
    let error = client()
        .push_blob(&name, &longer, &missing, &PushOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{}", show(&error));
}

#[tokio::test]
async fn a_file_is_pushed_and_a_manifest_put() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blob");
    let bytes = content(700_000);
    std::fs::write(&path, &bytes).unwrap();
    let (name, descriptor) = (reference(&registry, "x:v2"), describe(&bytes));
    client()
        .push_blob(&name, &descriptor, &path, &PushOptions::default())
        .await
        .unwrap();
    assert!(registry.blob("x", &descriptor.digest.to_string()).unwrap() == bytes);
    let manifest = Bytes::from_static(b"{\"schemaVersion\":2}");
    let digest = client()
        .push_manifest(&name, OCI_MANIFEST, manifest.clone())
        .await
        .unwrap()
        .digest;
    assert_eq!(
        registry.manifest("x", "v2"),
        Some((OCI_MANIFEST.to_owned(), manifest.to_vec()))
    );
    assert!(registry.manifest("x", &digest.to_string()).is_some());
    let other = name.with_digest(descriptor.digest);
    assert!(
        client()
            .push_manifest(&other, OCI_MANIFEST, manifest)
            .await
            .is_err()
    );
}
