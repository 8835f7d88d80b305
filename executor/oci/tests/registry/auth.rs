//! Who may: passwords, tokens, and where proofs never go.

use std::sync::Arc;

use bytes::Bytes;
use kiln_oci::registry::{Client, Config, Credential, Fixed, PushOptions, Pushed};
use kiln_test_registry::{Auth, Fault, Registry};

use crate::{client, config, content, describe, fetch, reference, show};

fn with_credential(host: &str, credential: Credential) -> Client {
    let credentials = Fixed([(host.to_owned(), credential)].into());
    Client::new(Config {
        credentials: Arc::new(credentials),
        ..config()
    })
}

fn password(user: &str, password: &str) -> Credential {
    Credential::Basic {
        username: user.into(),
        password: password.into(),
    }
}

fn basic() -> Registry {
    Registry::builder()
        .auth(Auth::Basic {
            user: "ann".into(),
            password: "se:cret".into(),
        })
        .start()
}

fn tokens() -> Registry {
    Registry::builder()
        .auth(Auth::Token {
            user: Some(("ann".into(), "secret".into())),
        })
        .start()
}

#[tokio::test]
async fn a_password_is_sent_when_asked_for() {
    let registry = basic();
    registry.add_image("x", "latest", b"{}", &[]);
    let client = with_credential(&registry.host(), password("ann", "se:cret"));
    let name = reference(&registry, "x");
    client.resolve(&name).await.unwrap();
    client.resolve(&name).await.unwrap();
    let statuses: Vec<_> = registry
        .log()
        .iter()
        .map(|request| request.status)
        .collect();
    assert_eq!(statuses, [401, 200, 200]);
}

#[tokio::test]
async fn who_is_not_known_is_told_to_log_in() {
    let registry = basic();
    let name = reference(&registry, "x");
    let shown = show(&client().resolve(&name).await.unwrap_err());
    assert!(
        shown.contains("not authorised; log in with `kiln login HOST`"),
        "{shown}"
    );
    let wrong = with_credential(&registry.host(), password("ann", "wrong"));
    let shown = show(&wrong.manifest(&name).await.unwrap_err());
    assert!(
        shown.contains("stored credentials were refused: log in again with `kiln login HOST`"),
        "{shown}"
    );
    assert_eq!(registry.log().len(), 3);
}

#[tokio::test]
async fn a_token_server_that_is_down_is_named() {
    let registry = tokens();
    for _ in 0..4 {
        registry.inject(Fault::Drop {
            path: "/token".into(),
        });
    }
    let shown = client().resolve(&reference(&registry, "x")).await;
    let shown = show(&shown.unwrap_err());
    assert!(
        shown.starts_with("cannot get a token for `HOST/x:latest` at `HOST`: no answer"),
        "{shown}"
    );
}

#[tokio::test]
async fn an_anonymous_token_is_got_once_and_used_for_all() {
    let registry = Registry::builder().auth(Auth::Token { user: None }).start();
    let layer = content(1000);
    registry.add_image("x", "latest", br#"{"os":"linux"}"#, &[&layer]);
    let client = client();
    let name = reference(&registry, "x");
    let image = client
        .image(&name, &"linux/amd64".parse().unwrap())
        .await
        .unwrap();
    let transfers: Vec<_> = (0..8)
        .map(|_| {
            let (client, name, layer) = (client.clone(), name.clone(), image.layers[0].clone());
            tokio::spawn(async move { fetch(&client, &name, &layer).await })
        })
        .collect();
    for transfer in transfers {
        assert!(transfer.await.unwrap().unwrap() == layer);
    }
    assert_eq!(registry.count("GET", "/token"), 1);
    let token = registry
        .log()
        .into_iter()
        .find(|request| request.path.starts_with("/token"))
        .unwrap();
    assert!(
        token.path.contains("service=test+registry")
            && token.path.contains("scope=repository%3Ax%3Apull")
    );
}

#[tokio::test]
async fn a_token_that_ran_out_is_renewed() {
    let registry = Registry::builder().auth(Auth::Token { user: None }).start();
    registry.add_image("x", "latest", b"{}", &[]);
    let client = client();
    let name = reference(&registry, "x");
    client.resolve(&name).await.unwrap();
    registry.inject(Fault::ForgetTokens {
        path: "/manifests/".into(),
    });
    client.resolve(&name).await.unwrap();
    assert_eq!(registry.count("GET", "/token"), 2);
}

#[tokio::test]
async fn a_token_is_bought_with_a_password_or_a_refresh_token() {
    for (credential, method) in [
        (password("ann", "secret"), "GET"),
        (Credential::IdentityToken("secret".into()), "POST"),
    ] {
        let registry = tokens();
        registry.add_image("x", "latest", b"{}", &[]);
        let client = with_credential(&registry.host(), credential);
        client.resolve(&reference(&registry, "x")).await.unwrap();
        assert_eq!(registry.count(method, "/token"), 1);
        let bytes = content(100);
        let name = reference(&registry, "x");
        let source = Bytes::from(bytes.clone());
        let pushed = client
            .push_blob(&name, &describe(&bytes), &source, &PushOptions::default())
            .await
            .unwrap();
        assert_eq!(pushed, Pushed::Uploaded);
        // One more token, for the wider scope, serves the whole push.
        assert_eq!(registry.count(method, "/token"), 2);
    }
}

#[tokio::test]
async fn a_refresh_token_is_sent_as_a_form() {
    let registry = tokens();
    registry.add_image("x", "latest", b"{}", &[]);
    let client = with_credential(&registry.host(), Credential::IdentityToken("secret".into()));
    client.resolve(&reference(&registry, "x")).await.unwrap();
    let token = registry
        .log()
        .into_iter()
        .find(|request| request.path == "/token")
        .unwrap();
    let expected = "service=test+registry&client_id=kiln&grant_type=refresh_token&refresh_token=secret&\
                    scope=repository%3Ax%3Apull";
    assert_eq!(token.body, expected);
    assert_eq!(token.authorization, None);
}

#[tokio::test]
async fn a_token_server_that_refuses_ends_it() {
    let registry = tokens();
    let name = reference(&registry, "x");
    let shown = show(&client().resolve(&name).await.unwrap_err());
    assert!(
        shown.contains("incorrect username or password") && shown.contains("kiln login"),
        "{shown}"
    );
    let wrong = with_credential(&registry.host(), password("ann", "wrong"));
    let shown = show(&wrong.resolve(&name).await.unwrap_err());
    assert!(shown.contains("log in again"), "{shown}");
}

#[tokio::test]
async fn a_token_server_that_stumbles_is_asked_again() {
    let registry = Registry::builder().auth(Auth::Token { user: None }).start();
    registry.add_image("x", "latest", b"{}", &[]);
    registry.inject(Fault::Status {
        path: "/token".into(),
        status: 503,
        retry_after: Some("0".into()),
    });
    registry.inject(Fault::Drop {
        path: "/token".into(),
    });
    client().resolve(&reference(&registry, "x")).await.unwrap();
    assert_eq!(registry.count("GET", "/token"), 3);
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let registry = Registry::builder().auth(Auth::Token { user: None }).start();
    let client = with_credential(&registry.host(), Credential::RegistryToken("mine".into()));
    client
        .resolve(&reference(&registry, "x"))
        .await
        .unwrap_err();
    assert_eq!(
        registry.log()[1].authorization.as_deref(),
        Some("Bearer mine")
    );
    assert_eq!(registry.count("GET", "/token"), 0);
}

#[tokio::test]
async fn proofs_do_not_follow_a_redirect_to_another_host() {
    for registry in [
        basic(),
        Registry::builder().auth(Auth::Token { user: None }).start(),
    ] {
        let storage = Registry::start();
        let bytes = content(100);
        storage.add_blob("x", &bytes);
        registry.add_blob("x", &bytes);
        let client = with_credential(&registry.host(), password("ann", "se:cret"));
        let name = reference(&registry, "x");
        // Once directly, so that the proof is known and would be sent from the start.
        fetch(&client, &name, &describe(&bytes)).await.unwrap();
        registry.inject(Fault::Redirect {
            path: "/blobs/".into(),
            to: storage.url(),
        });
        fetch(&client, &name, &describe(&bytes)).await.unwrap();
        assert!(registry.log().last().unwrap().authorization.is_some());
        assert_eq!(storage.log().len(), 1);
        assert_eq!(storage.log()[0].authorization, None);
    }
}

#[tokio::test]
async fn a_challenge_of_a_redirects_target_is_not_answered() {
    for storage in [basic(), tokens()] {
        let registry = Registry::start();
        let client = with_credential(&registry.host(), password("ann", "se:cret"));
        registry.inject(Fault::Redirect {
            path: "/blobs/".into(),
            to: storage.url(),
        });
        let name = reference(&registry, "x");
        fetch(&client, &name, &describe(b"a")).await.unwrap_err();
        assert_eq!(storage.log().len(), 1);
        assert_eq!(storage.log()[0].authorization, None);
    }
}

#[tokio::test]
async fn one_registrys_credentials_are_not_anothers() {
    let (registry, other) = (basic(), basic());
    let client = with_credential(&other.host(), password("ann", "se:cret"));
    client
        .resolve(&reference(&registry, "x"))
        .await
        .unwrap_err();
    assert!(
        registry
            .log()
            .iter()
            .all(|request| request.authorization.is_none())
    );
}
