//! Mirrors: asked first, never trusted, never needed.

use kiln_oci::registry::{Client, Config, Mirror};
use kiln_test_registry::{Auth, Authority, Fault, Registry};

use crate::{config, content, describe, fetch, reference, show};

/// Returns a client that has `mirror` for `origin`.
fn client(origin: &Registry, mirror: &str) -> Client {
    let mirror = Mirror::parse(&format!("{}={mirror}", origin.host())).unwrap();
    Client::new(Config {
        mirrors: vec![mirror],
        ..config()
    })
}

#[tokio::test]
async fn what_a_mirror_has_comes_from_it() {
    let (origin, mirror) = (Registry::start(), Registry::start());
    let digest = mirror.add_image("x", "latest", br#"{"os":"linux"}"#, &[b"layer"]);
    let client = client(&origin, &mirror.url());
    let name = reference(&origin, "x");
    assert_eq!(
        client.resolve(&name).await.unwrap().digest.to_string(),
        digest
    );
    let image = client
        .image(&name, &"linux/amd64".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(
        fetch(&client, &name, &image.layers[0]).await.unwrap(),
        b"layer"
    );
    assert!(origin.log().is_empty());
}

#[tokio::test]
async fn the_path_of_a_mirror_stands_before_the_names_of_repositories() {
    let (origin, mirror) = (Registry::start(), Registry::start());
    let config = br#"{"os":"linux"}"#;
    let digest = mirror.add_image("proxies/hub/x", "latest", config, &[b"layer"]);
    for path in ["/proxies/hub", "/proxies/hub/"] {
        let client = client(&origin, &format!("{}{path}", mirror.url()));
        let name = reference(&origin, "x");
        let resolved = client.resolve(&name).await.unwrap();
        assert_eq!(resolved.digest.to_string(), digest);
        let platform = "linux/amd64".parse().unwrap();
        let image = client.image(&name, &platform).await.unwrap();
        let layer = fetch(&client, &name, &image.layers[0]).await.unwrap();
        assert_eq!(layer, b"layer");
    }
    assert!(origin.log().is_empty());
}

#[test]
fn the_path_of_a_mirror_is_a_name_of_repositories() {
    let check = |url: &str, expected: &str| {
        let error = Mirror::parse(&format!("docker.io={url}")).unwrap_err();
        assert!(error.contains(expected), "{url}: {error}");
    };
    check("https://h/v2/hub", "leave out `/v2`");
    check("https://h/v2/", "leave out `/v2`");
    for bad in [
        "https://h/Hub",
        "https://h/a//b",
        "https://h/a?ns=docker.io",
        "https://h/a:1",
    ] {
        check(bad, "must be a repository's name");
    }
}

#[tokio::test]
async fn what_a_mirror_lacks_or_fails_at_comes_from_the_origin() {
    let origin = Registry::start();
    let layer = content(100);
    let digest = origin.add_image("x", "latest", br#"{"os":"linux"}"#, &[&layer]);
    let name = reference(&origin, "x");
    let gone = Registry::start().url();
    let closed = Registry::builder()
        .auth(Auth::Basic {
            user: "a".into(),
            password: "b".into(),
        })
        .start();
    let (empty, failing) = (Registry::start(), Registry::start());
    for _ in 0..100 {
        failing.inject(Fault::Status {
            path: "/v2/".into(),
            status: 500,
            retry_after: None,
        });
    }
    for mirror in [gone, closed.url(), empty.url(), failing.url()] {
        let client = client(&origin, &mirror);
        assert_eq!(
            client.resolve(&name).await.unwrap().digest.to_string(),
            digest
        );
        let image = client
            .image(&name, &"linux/amd64".parse().unwrap())
            .await
            .unwrap();
        assert!(fetch(&client, &name, &image.layers[0]).await.unwrap() == layer);
    }
}

#[tokio::test]
async fn a_transfer_goes_on_at_the_origin_where_the_mirror_stopped() {
    let (origin, mirror) = (Registry::start(), Registry::start());
    let bytes = content(4000);
    origin.add_blob("x", &bytes);
    mirror.add_blob("x", &bytes);
    for _ in 0..4 {
        mirror.inject(Fault::CutAfter {
            path: "/blobs/".into(),
            bytes: 100,
        });
    }
    let got = fetch(
        &client(&origin, &mirror.url()),
        &reference(&origin, "x"),
        &describe(&bytes),
    )
    .await
    .unwrap();
    assert!(got == bytes);
    assert_eq!(origin.log()[0].range.as_deref(), Some("bytes=400-"));
}

#[tokio::test]
async fn a_mirror_with_wrong_content_is_left_out() {
    let (origin, mirror) = (Registry::start(), Registry::start());
    let bytes = content(4000);
    origin.add_blob("x", &bytes);
    mirror.add_blob("x", &bytes);
    let wrong = || {
        mirror.inject(Fault::WrongBytes {
            path: "/blobs/".into(),
        })
    };
    let name = reference(&origin, "x");
    wrong();
    let streaming = client(&origin, &mirror.url());
    let error = fetch(&streaming, &name, &describe(&bytes))
        .await
        .unwrap_err();
    assert!(show(&error).contains("wrong content"), "{}", show(&error));
    assert!(fetch(&streaming, &name, &describe(&bytes)).await.unwrap() == bytes);
    assert_eq!((origin.log().len(), mirror.log().len()), (1, 1));
    let doubts = streaming.doubts();
    let said = format!("the mirror `{}` is not asked again", mirror.host());
    assert!(
        doubts.len() == 1 && doubts[0].starts_with(&said),
        "{doubts:?}"
    );
    wrong();
    let whole = client(&origin, &mirror.url());
    assert!(
        whole
            .blob_bytes(&name, &describe(&bytes), 10_000)
            .await
            .unwrap()
            == bytes
    );
    let error = whole
        .blob_bytes(&name, &describe(&bytes), 10)
        .await
        .unwrap_err();
    assert!(
        show(&error).contains("more than the limit of 10"),
        "{}",
        show(&error)
    );
}

#[tokio::test]
async fn a_mirror_that_fails_is_told_once_and_one_that_lacks_an_image_is_not() {
    let origin = Registry::start();
    origin.add_image("x", "latest", br#"{"os":"linux"}"#, &[b"layer"]);
    let strange = Registry::builder().tls(&Authority::new()).start();
    let (empty, refusing) = (Registry::start(), Registry::start());
    for _ in 0..100 {
        refusing.inject(Fault::Status {
            path: "/v2/".into(),
            status: 400,
            retry_after: None,
        });
    }
    let name = reference(&origin, "x");
    let check = async |mirror: &Registry, expected: &str| {
        let client = client(&origin, &mirror.url());
        client.resolve(&name).await.unwrap();
        let platform = "linux/amd64".parse().unwrap();
        let image = client.image(&name, &platform).await.unwrap();
        fetch(&client, &name, &image.layers[0]).await.unwrap();
        let doubts = client.doubts();
        match expected {
            "" => assert!(doubts.is_empty(), "{doubts:?}"),
            _ => {
                let said = format!(
                    "the mirror `{}` of `{}` fails",
                    mirror.host(),
                    origin.host()
                );
                assert!(doubts.len() == 1, "{doubts:?}");
                assert!(doubts[0].starts_with(&said), "{doubts:?}");
                assert!(doubts[0].contains(expected), "{doubts:?}");
            }
        }
    };
    check(
        &strange,
        "its certificate is not trusted: invalid peer certificate",
    )
    .await;
    check(&refusing, "the registry answered 400").await;
    check(&empty, "").await;
}

#[tokio::test]
async fn where_all_places_fail_each_mirror_is_named_with_why() {
    let (origin, empty) = (Registry::start(), Registry::start());
    let strange = Registry::builder().tls(&Authority::new()).start();
    let mirrors = [&empty, &strange]
        .map(|mirror| Mirror::parse(&format!("{}={}", origin.host(), mirror.url())).unwrap());
    let client = Client::new(Config {
        mirrors: mirrors.into(),
        ..config()
    });
    let name = reference(&origin, "x");
    let blob = fetch(&client, &name, &describe(b"a")).await.unwrap_err();
    for error in [client.manifest(&name).await.unwrap_err(), blob] {
        assert!(error.is_not_found(), "{error:?}");
        let said = format!(
            "at `{}`, after its mirrors `{}` (not found",
            origin.host(),
            empty.host()
        );
        assert!(error.to_string().contains(&said), "{error}");
        let other = format!(", `{}` (its certificate is not trusted: ", strange.host());
        assert!(error.to_string().contains(&other), "{error}");
    }
}

#[tokio::test]
async fn with_mirrors_the_origins_error_is_told() {
    let (origin, mirror) = (Registry::start(), Registry::start());
    let error = client(&origin, &mirror.url())
        .resolve(&reference(&origin, "x"))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("at `{}`", origin.host())),
        "{error}"
    );
    assert_eq!((origin.log().len(), mirror.log().len()), (1, 1));
}

#[tokio::test]
async fn nothing_is_pushed_to_a_mirror() {
    let (origin, mirror) = (Registry::start(), Registry::start());
    let client = client(&origin, &mirror.url());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    client
        .push_manifest(&reference(&origin, "x"), kind, "{}".into())
        .await
        .unwrap();
    client
        .has_blob(&reference(&origin, "x"), &describe(b"").digest)
        .await
        .unwrap();
    assert!(mirror.log().is_empty());
}
