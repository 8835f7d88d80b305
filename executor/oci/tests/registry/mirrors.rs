//! Mirrors: asked first, never trusted, never needed.

use kiln_oci::registry::{Client, Config, Mirror};
use kiln_test_registry::{Auth, Fault, Registry};

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
