//! Logging in: what a registry takes, and what it does not.

use kiln_oci::registry::{Credential, Error, LoggedIn};
use kiln_test_registry::{Auth, Fault, Registry};

use crate::{client, show};

fn password(password: &str) -> Credential {
    Credential::Basic {
        username: "ann".into(),
        password: password.into(),
    }
}

fn user() -> Option<(String, String)> {
    Some(("ann".into(), "secret".into()))
}

fn basic() -> Registry {
    let auth = Auth::Basic {
        user: "ann".into(),
        password: "secret".into(),
    };
    Registry::builder().auth(auth).start()
}

fn tokens() -> Registry {
    Registry::builder()
        .auth(Auth::Token { user: user() })
        .start()
}

async fn log_in(registry: &Registry, credential: Credential) -> Result<LoggedIn, Error> {
    client().log_in(&registry.host(), credential).await
}

#[tokio::test]
async fn a_good_password_is_taken() {
    for registry in [basic(), tokens()] {
        let new = log_in(&registry, password("secret")).await.unwrap();
        let expected = LoggedIn {
            credential: password("secret"),
            was_checked: true,
        };
        assert_eq!(new, expected);
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_with_the_registrys_words() {
    for (registry, words) in [
        (basic(), "(UNAUTHORIZED: test registry says UNAUTHORIZED)"),
        (tokens(), "(incorrect username or password)"),
    ] {
        let error = log_in(&registry, password("wrong")).await.unwrap_err();
        assert!(matches!(error, Error::Login { .. }), "{error:?}");
        let expected = format!(
            "cannot log in as `ann` at `HOST`: the registry refuses it {words}; \
             check the user name and the password"
        );
        assert_eq!(show(&error), expected);
    }
}

#[tokio::test]
async fn a_registry_for_everybody_checks_nothing() {
    let new = log_in(&Registry::start(), password("x")).await.unwrap();
    assert!(!new.was_checked);
}

#[tokio::test]
async fn a_refresh_token_takes_the_passwords_place() {
    let registry = Registry::builder()
        .auth(Auth::Token { user: user() })
        .refresh_tokens()
        .start();
    let new = log_in(&registry, password("secret")).await.unwrap();
    let token = Credential::IdentityToken("refresh-ann".into());
    assert_eq!(new.credential, token);
    let asked = registry.log();
    let asked = asked
        .iter()
        .find(|request| request.path.starts_with("/token"))
        .unwrap();
    assert!(asked.path.contains("offline_token=true") && asked.path.contains("client_id=kiln"));
    // And it is good for the next time.
    assert_eq!(
        log_in(&registry, token.clone()).await.unwrap().credential,
        token
    );
}

#[tokio::test]
async fn what_is_no_registry_is_named() {
    let registry = Registry::start();
    registry.inject(Fault::Status {
        path: "/v2/".into(),
        status: 404,
        retry_after: None,
    });
    let shown = show(&log_in(&registry, password("x")).await.unwrap_err());
    assert!(shown.contains("it has no `/v2/`"), "{shown}");
    let gone = Registry::start().host();
    let error = client().log_in(&gone, password("x")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_registry_that_stumbles_is_asked_again() {
    let registry = basic();
    for fault in [
        Fault::Drop {
            path: "/v2/".into(),
        },
        Fault::Status {
            path: "/v2/".into(),
            status: 503,
            retry_after: None,
        },
    ] {
        registry.inject(fault);
    }
    log_in(&registry, password("secret")).await.unwrap();
}
