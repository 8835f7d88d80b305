//! TLS: whom to trust, and when to do without.

use kiln_oci::reference::Reference;
use kiln_oci::registry::{Client, Config, Error};
use kiln_test_registry::{Authority, Fault, Registry};

use crate::{client, config, content, describe, fetch, reference, show};

/// Returns a client that trusts an authority through a file, as SSL_CERT_FILE names one.
fn trusting(authority: &Authority) -> (Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    authority.write_pem(&path);
    (
        Client::new(Config {
            extra_roots: vec![path],
            ..config()
        }),
        folder,
    )
}

#[tokio::test]
async fn a_registry_of_a_trusted_authority_is_spoken_to() {
    let authority = Authority::new();
    let registry = Registry::builder().tls(&authority).start();
    let digest = registry.add_image("x", "latest", b"{}", &[]);
    let (client, _folder) = trusting(&authority);
    assert_eq!(
        client
            .resolve(&reference(&registry, "x"))
            .await
            .unwrap()
            .digest
            .to_string(),
        digest
    );
    let port = registry.host().split(':').nth(1).unwrap().to_owned();
    let by_name = Reference::parse(&format!("localhost:{port}/x")).unwrap();
    assert_eq!(
        client.resolve(&by_name).await.unwrap().digest.to_string(),
        digest
    );
}

#[tokio::test]
async fn a_server_that_is_its_own_authority_is_trusted_if_its_very_certificate_is() {
    let here = Authority::of_itself(&["127.0.0.1"], false);
    let registry = Registry::builder().tls(&here).start();
    registry.add_image("x", "latest", b"{}", &[]);
    let (client, _folder) = trusting(&here);
    client.resolve(&reference(&registry, "x")).await.unwrap();

    let refused = async |server: &Authority, trusted: &Authority, why: &str| {
        let registry = Registry::builder().tls(server).start();
        let (client, _folder) = trusting(trusted);
        let error = client.resolve(&reference(&registry, "x")).await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
        assert!(show(&error).contains(why), "{}", show(&error));
        assert!(registry.log().is_empty());
    };
    let other = Authority::of_itself(&["127.0.0.1"], false);
    refused(&here, &other, "CaUsedAsEndEntity").await;
    let elsewhere = Authority::of_itself(&["registry.example"], false);
    refused(&elsewhere, &elsewhere, "not valid for name").await;
    let old = Authority::of_itself(&["127.0.0.1"], true);
    refused(&old, &old, "expired").await;
}

#[tokio::test]
async fn a_bad_certificate_is_never_answered_with_plain_http() {
    let registry = Registry::builder().tls(&Authority::new()).start();
    let (stranger, _folder) = trusting(&Authority::new());
    for client in [client(), stranger] {
        let error = client
            .resolve(&reference(&registry, "x"))
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::Certificate { .. }),
            "{}",
            show(&error)
        );
        assert!(show(&error).contains("SSL_CERT_FILE"), "{}", show(&error));
    }
    assert!(registry.log().is_empty());
}

#[tokio::test]
async fn a_loopback_registry_without_tls_is_found_out_once() {
    let registry = Registry::start();
    registry.add_image("x", "latest", b"{}", &[]);
    let client = client();
    for _ in 0..3 {
        client.resolve(&reference(&registry, "x")).await.unwrap();
    }
    assert_eq!(registry.log().len(), 3);
}

#[tokio::test]
async fn an_insecure_registry_is_spoken_to_without_tls() {
    let registry = Registry::start();
    registry.add_image("x", "latest", b"{}", &[]);
    let client = Client::new(Config {
        insecure: [registry.host()].into(),
        ..config()
    });
    client.resolve(&reference(&registry, "x")).await.unwrap();
}

#[tokio::test]
async fn a_redirect_never_leaves_tls() {
    let authority = Authority::new();
    let registry = Registry::builder().tls(&authority).start();
    let storage = Registry::start();
    let bytes = content(100);
    storage.add_blob("x", &bytes);
    let (client, _folder) = trusting(&authority);
    registry.inject(Fault::Redirect {
        path: "/blobs/".into(),
        to: storage.url(),
    });
    let error = fetch(&client, &reference(&registry, "x"), &describe(&bytes))
        .await
        .unwrap_err();
    assert!(
        show(&error).contains("redirected from https to plain http"),
        "{}",
        show(&error)
    );
    assert!(storage.log().is_empty());
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let registry = Registry::start();
    for _ in 0..30 {
        registry.inject(Fault::Redirect {
            path: "/blobs/".into(),
            to: registry.url(),
        });
    }
    let error = fetch(&client(), &reference(&registry, "x"), &describe(b"a"))
        .await
        .unwrap_err();
    assert!(
        show(&error).contains("too many redirects"),
        "{}",
        show(&error)
    );
}

#[test]
fn a_client_costs_nothing_until_it_is_used() {
    // A file that cannot be read would be an error if anything looked at it.
    Client::new(Config {
        extra_roots: vec!["/nonexistent.pem".into()],
        ..config()
    });
}

#[tokio::test]
async fn a_missing_authority_file_is_named() {
    let registry = Registry::start();
    let client = Client::new(Config {
        extra_roots: vec!["/nonexistent.pem".into()],
        ..config()
    });
    let shown = show(
        &client
            .resolve(&reference(&registry, "x"))
            .await
            .unwrap_err(),
    );
    assert!(
        shown.contains("cannot read the certificates in `/nonexistent.pem`"),
        "{shown}"
    );
}
