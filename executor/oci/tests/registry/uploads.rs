//! Every way in which an upload fails, one at a time: the right bytes arrive, or a clear error.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_oci::media_type::OCI_MANIFEST;
use kiln_oci::registry::{Client, Config, Credential, Error, Fixed, PushOptions, Pushed};
use kiln_test_registry::{Auth, Builder, Fault, Registry};

use crate::{client, config, content, describe, reference, show};

const LENGTH: usize = 100_000;

fn chunks() -> PushOptions {
    PushOptions {
        chunk_bytes: Some(40_000),
        ..PushOptions::default()
    }
}

async fn push_by(
    client: &Client,
    registry: &Registry,
    options: &PushOptions,
) -> Result<Pushed, Error> {
    let bytes = content(LENGTH);
    client
        .push_blob(
            &reference(registry, "x"),
            &describe(&bytes),
            &Bytes::from(bytes),
            options,
        )
        .await
}

/// Sends a blob through faults and expects it whole.
async fn survive(builder: Builder, faults: Vec<Fault>, options: &PushOptions) -> Registry {
    let registry = builder.start();
    for fault in faults {
        registry.inject(fault);
    }
    match push_by(&client(), &registry, options).await {
        Ok(pushed) => assert_eq!(pushed, Pushed::Uploaded),
        Err(error) => panic!("{}: {:?}", show(&error), registry.log()),
    }
    let bytes = content(LENGTH);
    let digest = describe(&bytes).digest.to_string();
    assert!(registry.blob("x", &digest).as_deref() == Some(&bytes));
    assert!(registry.pending_faults().is_empty());
    registry
}

fn path(part: &str) -> String {
    part.to_owned()
}

fn status(part: &str, status: u16, retry_after: Option<&str>) -> Fault {
    Fault::Status {
        path: path(part),
        status,
        retry_after: retry_after.map(str::to_owned),
    }
}

#[tokio::test]
async fn a_whole_upload_that_is_cut_is_sent_in_chunks() {
    let cut = Fault::CutUpload {
        path: path("digest="),
        bytes: 30_000,
    };
    let registry = survive(Registry::builder(), vec![cut], &PushOptions::default()).await;
    assert_eq!(registry.count("PATCH", "/blobs/uploads/"), 1);
}

#[tokio::test]
async fn what_a_registry_keeps_of_a_whole_upload_is_not_sent_again() {
    let cut = Fault::CutUpload {
        path: path("digest="),
        bytes: 30_000,
    };
    let builder = Registry::builder().keep_cut_uploads();
    let registry = survive(builder, vec![cut.clone()], &PushOptions::default()).await;
    assert_eq!(registry.count("POST", "/blobs/uploads/"), 1);
    // What it keeps may be wrong: then all is sent.
    let wrong = Fault::AlterUpload {
        path: path("uploads/1"),
    };
    let builder = Registry::builder().keep_cut_uploads();
    let registry = survive(builder, vec![cut, wrong], &PushOptions::default()).await;
    assert_eq!(registry.count("POST", "/blobs/uploads/"), 2);
}

#[tokio::test]
async fn a_registry_that_forgets_what_it_took_is_given_up() {
    let registry = Registry::start();
    // The second chunk of every upload breaks, and the upload with it.
    for upload in 1..40 {
        let path = format!("uploads/{upload}?");
        registry.inject(Fault::SlowUpload {
            path: path.clone(),
            pause: Duration::ZERO,
        });
        registry.inject(Fault::ForgetUploads { path });
    }
    let error = push_by(&client(), &registry, &chunks()).await.unwrap_err();
    let shown = show(&error);
    assert!(error.is_not_found(), "{shown}");
    assert!(shown.contains("of `HOST/x` at"), "{shown}");
    // Four tries; the first was renewed by the ground that it won.
    assert_eq!(registry.count("POST", "/blobs/uploads/"), 4);
}

#[tokio::test]
async fn an_upload_that_is_given_up_is_ended() {
    let registry = Registry::start();
    for _ in 0..40 {
        registry.inject(status("digest=", 500, None));
    }
    push_by(&client(), &registry, &chunks()).await.unwrap_err();
    assert_eq!(registry.open_uploads(), 0, "{:?}", registry.log());
    // So is one that another follows.
    let builder = Registry::builder().chunked_only();
    let registry = survive(builder, Vec::new(), &PushOptions::default()).await;
    assert_eq!(registry.open_uploads(), 0);
}

#[tokio::test]
async fn a_chunk_that_is_cut_goes_on_where_it_broke() {
    let cut = |bytes| Fault::CutUpload {
        path: path("uploads/1"),
        bytes,
    };
    let registry = survive(
        Registry::builder(),
        vec![cut(10_000), cut(5_000)],
        &chunks(),
    )
    .await;
    assert_eq!(registry.count("GET", "/blobs/uploads/1"), 2);
    assert_eq!(registry.count("POST", "/blobs/uploads/"), 1);
    // What was kept of the two is not sent again: 85000 bytes are three chunks.
    assert_eq!(registry.count("PATCH", "/blobs/uploads/1"), 5);
}

#[tokio::test]
async fn a_registry_that_stops_reading_is_left() {
    for (part, options) in [("digest=", PushOptions::default()), ("uploads/1", chunks())] {
        let stall = Fault::StallUpload {
            path: path(part),
            bytes: 10,
        };
        survive(Registry::builder(), vec![stall], &options).await;
    }
}

#[tokio::test]
async fn a_slow_registry_is_waited_for() {
    let slow = Fault::SlowUpload {
        path: path("digest="),
        pause: Duration::from_millis(20),
    };
    let registry = survive(Registry::builder(), vec![slow], &PushOptions::default()).await;
    assert_eq!(registry.count("PUT", "/blobs/uploads/"), 1);
}

#[tokio::test]
async fn a_forgotten_upload_begins_anew() {
    let forget = Fault::ForgetUploads {
        path: path("uploads/1"),
    };
    let registry = survive(Registry::builder(), vec![forget], &chunks()).await;
    assert_eq!(registry.count("POST", "/blobs/uploads/"), 2);
}

#[tokio::test]
async fn an_answer_that_is_lost_at_the_end_costs_nothing() {
    // The blob is there: what was lost is the word for it.
    let cut = Fault::Status {
        path: path("digest="),
        status: 404,
        retry_after: None,
    };
    let registry = Registry::start();
    let bytes = content(LENGTH);
    registry.inject(status("/blobs/sha256", 404, None));
    registry.inject(cut);
    registry.add_blob("x", &bytes);
    push_by(&client(), &registry, &PushOptions::default())
        .await
        .unwrap();
    assert_eq!(registry.count("PATCH", "/"), 0, "{:?}", registry.log());
}

#[tokio::test]
async fn bytes_that_change_on_their_way_are_sent_again() {
    let alter = Fault::AlterUpload {
        path: path("digest="),
    };
    survive(Registry::builder(), vec![alter], &PushOptions::default()).await;
    // For ever, it is an error in the registry's words.
    let registry = Registry::start();
    for _ in 0..20 {
        registry.inject(Fault::AlterUpload {
            path: path("uploads/"),
        });
    }
    let error = push_by(&client(), &registry, &PushOptions::default()).await;
    let shown = show(&error.unwrap_err());
    assert!(shown.contains("DIGEST_INVALID"), "{shown}");
}

#[tokio::test]
async fn a_registry_may_take_chunks_only() {
    let registry = survive(
        Registry::builder().chunked_only(),
        Vec::new(),
        &PushOptions::default(),
    )
    .await;
    assert_eq!(registry.count("PATCH", "/blobs/uploads/"), 1);
}

#[tokio::test]
async fn a_registry_may_want_large_chunks() {
    let options = PushOptions {
        chunk_bytes: Some(7_000),
        ..PushOptions::default()
    };
    let builder = Registry::builder().least_chunk(45_000);
    let registry = survive(builder, Vec::new(), &options).await;
    assert_eq!(registry.count("PATCH", "/blobs/uploads/"), 3);
}

#[tokio::test]
async fn what_a_registry_says_that_it_holds_is_not_believed() {
    for range in [
        "0-0",
        "0-39999",
        "0-99999999999",
        "5-3",
        "nonsense",
        "0-18446744073709551615",
    ] {
        survive(
            Registry::builder().lying_range(range),
            Vec::new(),
            &chunks(),
        )
        .await;
    }
    // Where it is all that there is to go by, the upload begins anew or fails; it does not hang.
    for range in ["0-99999999999", "0-18446744073709551615", "0-50000"] {
        let registry = Registry::builder().lying_range(range).start();
        registry.inject(status("uploads/1", 502, None));
        match push_by(&client(), &registry, &chunks()).await {
            Ok(_) => assert!(
                registry
                    .blob("x", &describe(&content(LENGTH)).digest.to_string())
                    .is_some()
            ),
            Err(error) => assert!(
                show(&error).contains("cannot push blob"),
                "{}",
                show(&error)
            ),
        }
    }
}

#[tokio::test]
async fn an_upload_may_lie_at_another_host_which_gets_no_password() {
    let storage = Registry::builder().any_upload().start();
    let (username, password) = ("anna".to_owned(), "secret".to_owned());
    let registry = Registry::builder()
        .auth(Auth::Basic {
            user: username.clone(),
            password: password.clone(),
        })
        .uploads_at(&storage.url())
        .start();
    let known = Credential::Basic { username, password };
    let client = Client::new(Config {
        credentials: std::sync::Arc::new(Fixed([(registry.host(), known)].into())),
        ..config()
    });
    push_by(&client, &registry, &PushOptions::default())
        .await
        .unwrap();
    let log = storage.log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(
        (log[0].method.as_str(), &log[0].authorization),
        ("PUT", &None)
    );
    assert!(
        registry
            .log()
            .iter()
            .any(|request| request.authorization.is_some())
    );
}

#[tokio::test]
async fn a_registry_that_asks_for_patience_gets_it() {
    let faults = vec![
        status("uploads/", 429, Some("1")),
        status("uploads/1", 429, Some("Sun, 06 Nov 1994 08:49:37 GMT")),
        status("uploads/1", 503, Some("0")),
    ];
    let begun = Instant::now();
    survive(Registry::builder(), faults, &chunks()).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // Longer than anybody waits.
    let registry = Registry::start();
    registry.inject(status("uploads/1", 429, Some("86400")));
    let error = push_by(&client(), &registry, &chunks()).await.unwrap_err();
    assert!(
        matches!(error, Error::RateLimited { .. }),
        "{}",
        show(&error)
    );
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    for code in [500, 502, 503, 504, 408] {
        let faults = vec![
            status("/blobs/sha256", code, None),
            status("/blobs/uploads/", code, None),
            status("digest=", code, None),
        ];
        survive(Registry::builder(), faults, &PushOptions::default()).await;
    }
}

#[tokio::test]
async fn a_token_for_several_scopes_is_asked_for() {
    let registry = Registry::builder()
        .auth(Auth::Token { user: None })
        .more_scope("repository:shared/base:pull")
        .start();
    push_by(&client(), &registry, &PushOptions::default())
        .await
        .unwrap();
    let asked = registry.log();
    let token = asked
        .iter()
        .find(|request| request.path.starts_with("/token"))
        .unwrap();
    assert!(
        token.path.contains("scope=repository%3Ax%3Apull%2Cpush")
            && token
                .path
                .contains("scope=repository%3Ashared%2Fbase%3Apull"),
        "{}",
        token.path
    );
    // A token that is good no more is replaced in the middle of an upload.
    registry.inject(Fault::ForgetTokens {
        path: path("digest="),
    });
    registry.forget_blob("x", &describe(&content(LENGTH)).digest.to_string());
    push_by(&client(), &registry, &PushOptions::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_registry_that_keeps_another_manifest_is_caught() {
    let registry = Registry::start();
    registry.inject(Fault::WrongDigest {
        path: path("/manifests/"),
    });
    let name = reference(&registry, "x:v1");
    let manifest = Bytes::from_static(b"{\"schemaVersion\":2}");
    let error = client()
        .push_manifest(&name, OCI_MANIFEST, manifest.clone())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Content { .. }), "{}", show(&error));
    let digest = client()
        .push_manifest(&name, OCI_MANIFEST, manifest)
        .await
        .unwrap()
        .digest;
    assert_eq!(client().has_manifest(&name).await.unwrap(), Some(digest));
    let none = reference(&registry, "x:v2");
    assert_eq!(client().has_manifest(&none).await.unwrap(), None);
}

#[tokio::test]
async fn a_registry_that_keeps_another_blob_is_caught() {
    let registry = Registry::start();
    registry.inject(Fault::WrongDigest {
        path: path("digest="),
    });
    let options = PushOptions::default();
    let error = push_by(&client(), &registry, &options).await.unwrap_err();
    assert!(matches!(error, Error::Content { .. }), "{}", show(&error));
}

/// Sends through faults that stay, and returns what is said.
async fn fails(faults: Vec<Fault>) -> String {
    let registry = Registry::start();
    for fault in faults {
        registry.inject(fault);
    }
    let options = PushOptions::default();
    let error = push_by(&client(), &registry, &options).await.unwrap_err();
    show(&error)
}

#[tokio::test]
async fn a_host_that_says_yes_to_everything_is_no_registry() {
    for part in ["/blobs/sha256", "digest="] {
        let shown = fails(vec![status(part, 200, None)]).await;
        assert!(shown.contains("this is no registry"), "{shown}");
    }
    let registry = Registry::start();
    registry.inject(status("/manifests/", 200, None));
    let reference = reference(&registry, "x:1");
    let bytes = Bytes::from_static(b"{}");
    let pushed = client()
        .push_manifest(&reference, OCI_MANIFEST, bytes)
        .await;
    let shown = show(&pushed.unwrap_err());
    assert!(shown.contains("this is no registry"), "{shown}");
}

#[tokio::test]
async fn what_is_refused_for_good_says_what_helps() {
    let shown = fails(vec![status("/blobs/", 429, Some("86400"))]).await;
    assert!(
        shown.contains(" of `HOST/x` at `HOST`: too many requests")
            && shown.ends_with("it asks to wait 86400 s; wait, or log in for a higher limit"),
        "{shown}"
    );
    let shown = fails((0..20).map(|_| status("uploads/", 413, None)).collect()).await;
    assert!(
        shown.contains("answered 413 (UNKNOWN: test registry says UNKNOWN)")
            && shown.contains("limits how much a request may hold"),
        "{shown}"
    );
}
