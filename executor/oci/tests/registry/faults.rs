//! Every way in which a registry fails, one at a time: nothing lost, no hang, a clear error.

use std::time::Duration;

use kiln_oci::registry::Error;
use kiln_test_registry::{Auth, Fault, Registry};

use crate::{client, content, describe, fetch, reference, show};

const BLOBS: &str = "/blobs/";

/// Fetches a blob through faults and expects it whole.
async fn survive(registry: Registry, faults: Vec<Fault>, length: usize) -> Registry {
    let bytes = content(length);
    registry.add_blob("x", &bytes);
    for fault in faults {
        registry.inject(fault);
    }
    let got = fetch(&client(), &reference(&registry, "x"), &describe(&bytes))
        .await
        .unwrap();
    assert!(got == bytes, "{} of {} bytes came", got.len(), bytes.len());
    assert!(registry.pending_faults().is_empty());
    registry
}

fn cut(bytes: usize) -> Fault {
    Fault::CutAfter {
        path: BLOBS.into(),
        bytes,
    }
}

fn status(path: &str, status: u16, retry_after: Option<&str>) -> Fault {
    Fault::Status {
        path: path.into(),
        status,
        retry_after: retry_after.map(str::to_owned),
    }
}

fn ranges(registry: &Registry) -> Vec<Option<String>> {
    registry
        .log()
        .into_iter()
        .map(|request| request.range)
        .collect()
}

/// It takes connections and says nothing; how many it took.
#[tokio::test]
async fn a_page_for_browsers_is_no_registrys_answer() {
    let bytes = content(100);
    for path in ["/manifests/", "/blobs/", "/token"] {
        let registry = Registry::builder().auth(Auth::Token { user: None }).start();
        registry.add_image("x", "latest", b"{}", &[&bytes]);
        // A manifest is asked for twice: what it is, and all of it.
        for _ in 0..2 {
            registry.inject(Fault::Page { path: path.into() });
        }
        let name = reference(&registry, "x");
        let failed = match path {
            "/blobs/" => fetch(&client(), &name, &describe(&bytes)).await.err(),
            _ => client().resolve(&name).await.err(),
        };
        let error = failed.unwrap();
        assert!(matches!(error, Error::Page { .. }), "{path}: {error:?}");
    }
}

#[tokio::test]
async fn a_silent_registry_is_asked_twice() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let taken = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = std::sync::Arc::clone(&taken);
    let serving = tokio::spawn(async move {
        while let Ok((line, _)) = listener.accept().await {
            kept.lock().unwrap().push(line);
        }
    });
    let name = kiln_oci::reference::Reference::parse(&format!("{host}/x")).unwrap();
    let error = client().own_digest(&name).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }),
        "{}",
        show(&error)
    );
    assert_eq!(taken.lock().unwrap().len(), 2);
    serving.abort();
}

#[tokio::test]
async fn a_cut_transfer_goes_on_where_it_broke() {
    let registry = survive(Registry::start(), vec![cut(1000), cut(500)], 4000).await;
    let expected = [
        None,
        Some("bytes=1000-".to_owned()),
        Some("bytes=1500-".to_owned()),
    ];
    assert_eq!(ranges(&registry), expected);
}

#[tokio::test]
async fn without_ranges_what_is_known_is_read_again_and_dropped() {
    survive(
        Registry::builder().ignore_ranges().start(),
        vec![cut(1000), cut(500), cut(2500)],
        4000,
    )
    .await;
}

#[tokio::test]
async fn a_range_that_was_not_asked_for_is_not_taken() {
    for first in [0, 7, 1001, 9_999_999_999] {
        let lie = Fault::WrongRange {
            path: BLOBS.into(),
            first,
        };
        let registry = Registry::start();
        registry.add_blob("x", &content(4000));
        registry.inject(cut(1000));
        registry.inject(lie);
        let got = fetch(
            &client(),
            &reference(&registry, "x"),
            &describe(&content(4000)),
        )
        .await;
        match got {
            // All of it was asked for again.
            Ok(got) => assert!(got == content(4000) && first > 1000, "{first}"),
            // What it sent for an earlier part was not that part.
            Err(error) => assert!(first < 1000, "{first}: {}", show(&error)),
        }
        assert!(registry.pending_faults().is_empty());
    }
}

#[tokio::test]
async fn progress_renews_the_tries() {
    let cuts = (0..6).map(|_| cut(1 << 20)).collect();
    survive(Registry::start(), cuts, 7 << 20).await;
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    survive(
        Registry::start(),
        vec![status(BLOBS, 500, None), status(BLOBS, 503, Some("0"))],
        10,
    )
    .await;
    survive(
        Registry::start(),
        vec![
            status(BLOBS, 429, Some("0")),
            Fault::Drop { path: BLOBS.into() },
        ],
        10,
    )
    .await;
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let begin = std::time::Instant::now();
    survive(Registry::start(), vec![status(BLOBS, 429, Some("1"))], 10).await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_stalled_line_is_given_up_and_taken_up() {
    survive(
        Registry::start(),
        vec![Fault::Stall {
            path: BLOBS.into(),
            bytes: 100,
        }],
        4000,
    )
    .await;
}

#[tokio::test]
async fn slow_bytes_are_no_failure() {
    let pause = Duration::from_millis(2);
    survive(
        Registry::start(),
        vec![Fault::Slow {
            path: BLOBS.into(),
            pause,
        }],
        300,
    )
    .await;
}

#[tokio::test]
async fn an_empty_blob_needs_no_request() {
    let registry = survive(Registry::start(), vec![], 0).await;
    assert!(registry.log().is_empty());
}

/// Fetches a blob through faults and expects this error.
async fn fail(faults: Vec<Fault>, expected: &str) -> Error {
    let registry = Registry::start();
    let bytes = content(100);
    registry.add_blob("x", &bytes);
    for fault in faults {
        registry.inject(fault);
    }
    let error = fetch(&client(), &reference(&registry, "x"), &describe(&bytes))
        .await
        .unwrap_err();
    let shown = show(&error);
    assert!(shown.contains(expected), "{shown}");
    error
}

#[tokio::test]
async fn tries_come_to_an_end() {
    let error = fail(
        (0..4).map(|_| cut(10)).collect(),
        "the transfer stopped 4 times, at last after 40 of 100 bytes",
    )
    .await;
    assert!(matches!(error, Error::Interrupted { .. }));
    fail(
        (0..4).map(|_| status(BLOBS, 500, None)).collect(),
        "the registry answered 500 (UNKNOWN: test registry says UNKNOWN) after 4 tries; try again later",
    )
    .await;
    fail(
        (0..4).map(|_| status(BLOBS, 429, Some("0"))).collect(),
        "too many requests (TOOMANYREQUESTS",
    )
    .await;
    fail(
        (0..4).map(|_| Fault::Drop { path: BLOBS.into() }).collect(),
        "no answer; check the host name",
    )
    .await;
}

#[tokio::test]
async fn a_long_retry_after_fails_at_once() {
    fail(
        vec![status(BLOBS, 429, Some("86400"))],
        "it asks to wait 86400 s; wait, log in for a higher limit, or set KILN_REGISTRY_MIRROR",
    )
    .await;
}

#[tokio::test]
async fn wrong_bytes_are_told_with_both_digests() {
    let error = fail(
        vec![Fault::WrongBytes { path: BLOBS.into() }],
        "content has digest `sha256:",
    )
    .await;
    let shown = show(&error);
    assert_eq!(shown.matches("sha256:").count(), 3, "{shown}");
}

#[tokio::test]
async fn a_blob_of_another_size_is_refused() {
    let registry = Registry::start();
    let bytes = content(100);
    registry.add_blob("x", &bytes);
    for (size, expected) in [(99, "has 100 bytes, not 99"), (101, "the transfer stopped")] {
        let mut descriptor = describe(&bytes);
        descriptor.size = size;
        let error = fetch(&client(), &reference(&registry, "x"), &descriptor)
            .await
            .unwrap_err();
        assert!(show(&error).contains(expected), "{}", show(&error));
    }
}

#[tokio::test]
async fn refusals_are_final_and_clear() {
    fail(
        vec![status(BLOBS, 404, None)],
        "not found (UNKNOWN: test registry says UNKNOWN); a manifest lists this blob, and the registry does not have it",
    )
    .await;
    fail(vec![status(BLOBS, 403, None)], "access denied (UNKNOWN").await;
    fail(vec![status(BLOBS, 418, None)], "the registry answered 418").await;
}

#[tokio::test]
async fn a_cut_or_wrong_manifest_is_noticed() {
    let registry = Registry::start();
    let digest = registry.add_image("x", "v1", br#"{"os":"linux"}"#, &[b"layer"]);
    let tagged = reference(&registry, "x:v1");
    registry.inject(Fault::CutAfter {
        path: "/manifests/".into(),
        bytes: 10,
    });
    assert_eq!(
        client().manifest(&tagged).await.unwrap().digest.to_string(),
        digest
    );
    registry.inject(Fault::WrongBytes {
        path: "/manifests/".into(),
    });
    let error = client().manifest(&tagged).await.unwrap_err();
    assert!(matches!(error, Error::Content { .. }), "{}", show(&error));
}

#[tokio::test]
async fn a_document_without_end_is_not_read_to_its_end() {
    let registry = Registry::start();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    registry.add_manifest("x", Some("v1"), media_type, &vec![b' '; 5 << 20]);
    let error = client()
        .manifest(&reference(&registry, "x:v1"))
        .await
        .unwrap_err();
    assert!(
        show(&error).contains("more than 4194304 bytes"),
        "{}",
        show(&error)
    );
    registry.add_manifest("x", Some("v2"), media_type, b"nonsense");
    let error = client()
        .manifest(&reference(&registry, "x:v2"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Document { .. }), "{}", show(&error));
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    let gone = Registry::start();
    let reference = reference(&gone, "x");
    drop(gone);
    let shown = show(&client().resolve(&reference).await.unwrap_err());
    assert!(
        shown.contains("cannot resolve `HOST/x:latest` at `HOST`: no answer"),
        "{shown}"
    );
    assert!(
        shown.contains("onnection refused") || shown.contains("closed"),
        "{shown}"
    );
}
