//! Each host by its own TLS settings, and none by another's.

use std::path::PathBuf;

use kiln_oci::registry::{Client, ClientCertificate, Config, Error, HostTls, Mirror};
use kiln_test_registry::{Authority, Fault, Registry};
use tempfile::TempDir;

use crate::{client, config, content, describe, fetch, reference, show};

/// Files of an authority: its certificate, and one for a client with its key.
struct Files {
    folder: TempDir,
}

impl Files {
    fn of(authority: &Authority) -> Files {
        let folder = tempfile::tempdir().unwrap();
        authority.write_pem(&folder.path().join("ca.crt"));
        authority.write_client(
            &folder.path().join("client.cert"),
            &folder.path().join("client.key"),
        );
        Files { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn trust(&self) -> HostTls {
        HostTls {
            ca: vec![self.path("ca.crt")],
            ..HostTls::default()
        }
    }

    fn with_client(&self, of: &Files) -> HostTls {
        HostTls {
            client: Some(ClientCertificate {
                cert: of.path("client.cert"),
                key: of.path("client.key"),
            }),
            ..self.trust()
        }
    }
}

/// A certificate of X.509 v1, as `openssl x509 -req` makes them.
const FIRST_VERSION: &str = "\
-----BEGIN CERTIFICATE-----
MIIBHTCBxQIUFg7wG9QOlcyi9wcyawR7TuINu/QwCgYIKoZIzj0EAwIwETEPMA0G
A1UEAwwGY2xpZW50MCAXDTI2MTEyMzA2MjUyMVoYDzIxMjYxMDMwMDYyNTIxWjAR
MQ8wDQYDVQQDDAZjbGllbnQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQ84kEP
ZCqqXpMRqSNr6eadipNhhXQ9I4PaNKlvunrdR1f8XdhWRnIEB2o5+o1KgjwJAtOA
3wb73cRhF/XnwsmlMAoGCCqGSM49BAMCA0cAMEQCIC23QsDayuVmfWlJms+WMNEB
+Hp2/NLtG5J+AosjMUYcAiAD9cQJul/JqlOeon12OjZKnN8Qybu/43We34gyCXBL
GQ==
-----END CERTIFICATE-----
";

/// Its key, which opens nothing.
const FIRST_VERSION_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3UPUaUV9BrsL/MWM
5ffLglSpy0oYI9TPgwG6aJDbXOWhRANCAAQ84kEPZCqqXpMRqSNr6eadipNhhXQ9
I4PaNKlvunrdR1f8XdhWRnIEB2o5+o1KgjwJAtOA3wb73cRhF/Xnwsml
-----END PRIVATE KEY-----
";

fn with_hosts<const N: usize>(hosts: [(String, HostTls); N]) -> Client {
    Client::new(Config {
        hosts: hosts.into(),
        ..config()
    })
}

#[tokio::test]
async fn an_authority_is_trusted_for_its_host_alone() {
    let (one, two) = (Authority::new(), Authority::new());
    let first = Registry::builder().tls(&one).start();
    let second = Registry::builder().tls(&two).start();
    let same = Registry::builder().tls(&one).start();
    let (of_one, of_two) = (Files::of(&one), Files::of(&two));
    let client = with_hosts([
        (first.host(), of_one.trust()),
        (second.host(), of_two.trust()),
    ]);
    for registry in [&first, &second] {
        registry.add_image("x", "latest", b"{}", &[]);
        client.resolve(&reference(registry, "x")).await.unwrap();
    }
    let error = client.resolve(&reference(&same, "x")).await.unwrap_err();
    assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
    assert!(same.log().is_empty());
}

#[tokio::test]
async fn a_client_certificate_opens_what_asks_for_it() {
    let authority = Authority::new();
    let registry = Registry::builder()
        .tls(&authority)
        .client_certificates(&authority)
        .start();
    registry.add_image("x", "latest", b"{}", &[]);
    let name = reference(&registry, "x");
    let (files, strangers) = (Files::of(&authority), Files::of(&Authority::new()));
    for tls in [files.trust(), files.with_client(&strangers)] {
        let refused = with_hosts([(registry.host(), tls)]);
        // Whether the alert or the closed connection comes first is the kernel's choice.
        refused.resolve(&name).await.unwrap_err();
    }
    assert!(registry.log().is_empty());
    let client = with_hosts([(registry.host(), files.with_client(&files))]);
    client.resolve(&name).await.unwrap();
}

#[tokio::test]
async fn whether_a_client_certificate_of_version_1_is_good_is_the_hosts_to_say() {
    let authority = Authority::new();
    let open = Registry::builder().tls(&authority).start();
    let closed = Registry::builder()
        .tls(&authority)
        .client_certificates(&authority)
        .start();
    let files = Files::of(&authority);
    std::fs::write(files.path("client.cert"), FIRST_VERSION).unwrap();
    for registry in [&open, &closed] {
        registry.add_image("x", "latest", b"{}", &[]);
    }
    let client = || with_hosts([&open, &closed].map(|at| (at.host(), files.with_client(&files))));
    // The key is that of another certificate.
    let error = client().resolve(&reference(&open, "x")).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{}", show(&error));
    std::fs::write(files.path("client.key"), FIRST_VERSION_KEY).unwrap();
    let client = client();
    client.resolve(&reference(&open, "x")).await.unwrap();
    let error = client.resolve(&reference(&closed, "x")).await.unwrap_err();
    assert!(!matches!(error, Error::Tls { .. }), "{}", show(&error));
    assert!(closed.log().is_empty());
}

#[tokio::test]
async fn certificates_are_found_where_docker_has_them() {
    let authority = Authority::new();
    let registry = Registry::builder()
        .tls(&authority)
        .client_certificates(&authority)
        .start();
    registry.add_image("x", "latest", b"{}", &[]);
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join(registry.host());
    std::fs::rename(Files::of(&authority).folder.keep(), own).unwrap();
    let client = Client::new(Config {
        certificate_folders: vec!["/nonexistent".into(), folder.path().into()],
        ..config()
    });
    client.resolve(&reference(&registry, "x")).await.unwrap();
}

#[tokio::test]
async fn a_host_that_is_not_verified_may_be_anybody() {
    let registry = Registry::builder().tls(&Authority::new()).start();
    let other = Registry::builder().tls(&Authority::new()).start();
    let bytes = content(100);
    registry.add_blob("x", &bytes);
    other.add_blob("x", &bytes);
    let tls = HostTls {
        skip_verify: true,
        ..HostTls::default()
    };
    let client = with_hosts([(registry.host(), tls)]);
    let name = reference(&registry, "x");
    fetch(&client, &name, &describe(&bytes)).await.unwrap();
    // What it redirects to is verified all the same.
    registry.inject(Fault::Redirect {
        path: "/blobs/".into(),
        to: other.url(),
    });
    let error = fetch(&client, &name, &describe(&bytes)).await.unwrap_err();
    assert!(matches!(error, Error::Certificate { .. }), "{error:?}");
    assert!(other.log().is_empty());
}

#[tokio::test]
async fn a_redirect_leads_to_the_other_hosts_own_settings() {
    let (one, two) = (Authority::new(), Authority::new());
    let registry = Registry::builder().tls(&one).start();
    let storage = Registry::builder()
        .tls(&two)
        .client_certificates(&two)
        .start();
    let bytes = content(100);
    storage.add_blob("x", &bytes);
    let (of_one, of_two) = (Files::of(&one), Files::of(&two));
    let client = with_hosts([
        (registry.host(), of_one.trust()),
        (storage.host(), of_two.with_client(&of_two)),
    ]);
    registry.inject(Fault::Redirect {
        path: "/blobs/".into(),
        to: storage.url(),
    });
    let got = fetch(&client, &reference(&registry, "x"), &describe(&bytes)).await;
    assert!(got.unwrap() == bytes);
}

#[tokio::test]
async fn a_mirror_has_settings_of_its_own() {
    let authority = Authority::new();
    let mirror = Registry::builder().tls(&authority).start();
    let origin = Registry::start();
    let digest = mirror.add_image("x", "latest", b"{}", &[]);
    let files = Files::of(&authority);
    let entry = format!("{}={}", origin.host(), mirror.url());
    let client = Client::new(Config {
        mirrors: vec![Mirror::parse(&entry).unwrap()],
        hosts: [(mirror.host(), files.trust())].into(),
        ..config()
    });
    let resolved = client.resolve(&reference(&origin, "x")).await.unwrap();
    assert_eq!(resolved.digest.to_string(), digest);
    assert!(origin.log().is_empty());
}

#[tokio::test]
async fn a_host_of_this_machine_can_be_held_to_tls() {
    let registry = Registry::start();
    registry.add_image("x", "latest", b"{}", &[]);
    let name = reference(&registry, "x");
    client().resolve(&name).await.unwrap();
    let tls = HostTls {
        required: true,
        ..HostTls::default()
    };
    let before = registry.log().len();
    let client = with_hosts([(registry.host(), tls)]);
    client.resolve(&name).await.unwrap_err();
    assert_eq!(registry.log().len(), before);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_fails_its_host_alone() {
    let tls = HostTls {
        ca: vec!["/nonexistent.pem".into()],
        ..HostTls::default()
    };
    let client = with_hosts([("127.0.0.1:1".into(), tls)]);
    let registry = Registry::start();
    registry.add_image("x", "latest", b"{}", &[]);
    client.resolve(&reference(&registry, "x")).await.unwrap();
    let other = kiln_oci::reference::Reference::parse("127.0.0.1:1/x").unwrap();
    let shown = show(&client.resolve(&other).await.unwrap_err());
    assert!(shown.contains("`/nonexistent.pem`"), "{shown}");
}
