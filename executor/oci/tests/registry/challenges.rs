//! What is remembered of registries: a request less when it is right, a request more when it is not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_oci::registry::{Asks, Challenges, Client, Config, Credential, Fixed};
use kiln_test_registry::{Auth, Fault, Registry};

use crate::{config, content, describe, fetch, reference, show};

/// What one process leaves to the next.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, Asks>>);

impl Challenges for Memory {
    fn recall(&self, place: &str) -> Option<Asks> {
        self.0.lock().unwrap().get(place).cloned()
    }

    fn remember(&self, place: &str, asks: Option<&Asks>) {
        let mut known = self.0.lock().unwrap();
        match asks {
            Some(asks) => known.insert(place.to_owned(), asks.clone()),
            None => known.remove(place),
        };
    }
}

impl Memory {
    fn of(registry: &Registry, asks: Asks) -> Arc<Memory> {
        let memory = Memory::default();
        memory.remember(&registry.url(), Some(&asks));
        Arc::new(memory)
    }
}

fn token(realm: &str) -> Asks {
    Asks::Token {
        realm: realm.to_owned(),
        service: Some("test registry".to_owned()),
    }
}

fn right(registry: &Registry) -> Asks {
    token(&format!("{}/token", registry.url()))
}

/// A client of a new process, which knows ann's password everywhere.
fn process(memory: &Arc<Memory>, hosts: &[&Registry], secret: &str) -> Client {
    let credential = Credential::Basic {
        username: "ann".into(),
        password: secret.into(),
    };
    let known = hosts
        .iter()
        .map(|registry| (registry.host(), credential.clone()));
    Client::new(Config {
        credentials: Arc::new(Fixed(known.collect())),
        challenges: Arc::clone(memory) as Arc<dyn Challenges>,
        ..config()
    })
}

fn with(auth: Auth) -> Registry {
    let registry = Registry::builder().auth(auth).start();
    registry.add_image("x", "latest", b"{}", &[]);
    registry
}

fn tokens() -> Registry {
    with(Auth::Token {
        user: Some(("ann".into(), "secret".into())),
    })
}

fn basic() -> Registry {
    with(Auth::Basic {
        user: "ann".into(),
        password: "secret".into(),
    })
}

/// The requests since the last look, such as `HEAD 401`.
fn asked(registry: &Registry) -> Vec<String> {
    let log = registry.log();
    registry.clear_log();
    log.iter()
        .map(|request| match request.path.starts_with("/token") {
            true => format!("token {}", request.status),
            false => format!("{} {}", request.method, request.status),
        })
        .collect()
}

async fn resolve(client: &Client, registry: &Registry) {
    client.resolve(&reference(registry, "x")).await.unwrap();
}

#[tokio::test]
async fn the_next_process_asks_once_less() {
    let open = with(Auth::Token { user: None });
    for (registry, first, next) in [
        (
            tokens(),
            &["HEAD 401", "token 200", "HEAD 200"][..],
            &["token 200", "HEAD 200"][..],
        ),
        (
            open,
            &["HEAD 401", "token 200", "HEAD 200"],
            &["token 200", "HEAD 200"],
        ),
        (basic(), &["HEAD 401", "HEAD 200"], &["HEAD 200"]),
        (with(Auth::None), &["HEAD 200"], &["HEAD 200"]),
    ] {
        let memory = Arc::default();
        resolve(&process(&memory, &[&registry], "secret"), &registry).await;
        assert_eq!(asked(&registry), first);
        resolve(&process(&memory, &[&registry], "secret"), &registry).await;
        assert_eq!(asked(&registry), next);
    }
}

#[tokio::test]
async fn what_is_remembered_is_no_secret() {
    for registry in [tokens(), basic()] {
        let memory: Arc<Memory> = Arc::default();
        resolve(&process(&memory, &[&registry], "secret"), &registry).await;
        let known = memory.0.lock().unwrap();
        let known = format!("{known:?}");
        assert!(known.contains(&registry.url()), "{known}");
        for secret in ["ann", "secret", "token-", "repository"] {
            assert!(!known.contains(secret), "{known}");
        }
    }
}

#[tokio::test]
async fn in_one_process_another_scope_needs_no_refusal() {
    let registry = tokens();
    let memory = Arc::default();
    let client = process(&memory, &[&registry], "secret");
    resolve(&client, &registry).await;
    asked(&registry);
    let name = reference(&registry, "x");
    client.has_manifest(&name).await.unwrap();
    assert_eq!(asked(&registry), ["token 200", "HEAD 200"]);
}

#[tokio::test]
async fn a_token_server_that_moved_costs_a_retry() {
    // The old one still gives tokens, which the registry does not know.
    let (registry, old) = (tokens(), tokens());
    let memory = Memory::of(&registry, right(&old));
    resolve(&process(&memory, &[&registry], "secret"), &registry).await;
    assert_eq!(asked(&old), ["token 200"]);
    assert_eq!(asked(&registry), ["HEAD 401", "token 200", "HEAD 200"]);
    assert_eq!(memory.recall(&registry.url()), Some(right(&registry)));
    resolve(&process(&memory, &[&registry], "secret"), &registry).await;
    assert_eq!(asked(&old), [""; 0]);
    assert_eq!(asked(&registry), ["token 200", "HEAD 200"]);
}

#[tokio::test]
async fn a_token_server_that_is_gone_costs_a_try() {
    for asks in [token("http://127.0.0.1:1/token"), token("nonsense:")] {
        let registry = tokens();
        let memory = Memory::of(&registry, asks);
        resolve(&process(&memory, &[&registry], "secret"), &registry).await;
        assert_eq!(asked(&registry), ["HEAD 401", "token 200", "HEAD 200"]);
        assert_eq!(memory.recall(&registry.url()), Some(right(&registry)));
    }
}

#[tokio::test]
async fn a_token_server_that_stumbles_is_not_waited_for() {
    let registry = tokens();
    let memory = Memory::of(&registry, right(&registry));
    registry.inject(Fault::Status {
        path: "/token".into(),
        status: 503,
        retry_after: Some("60".into()),
    });
    resolve(&process(&memory, &[&registry], "secret"), &registry).await;
    let log = ["token 503", "HEAD 401", "token 200", "HEAD 200"];
    assert_eq!(asked(&registry), log);
}

#[tokio::test]
async fn a_registry_that_changed_its_ways_is_learnt_anew() {
    let (wants_tokens, wants_passwords) = (tokens(), basic());
    let memory = Memory::of(&wants_tokens, Asks::Password);
    resolve(&process(&memory, &[&wants_tokens], "secret"), &wants_tokens).await;
    assert_eq!(asked(&wants_tokens), ["HEAD 401", "token 200", "HEAD 200"]);
    assert_eq!(
        memory.recall(&wants_tokens.url()),
        Some(right(&wants_tokens))
    );
    let memory = Memory::of(&wants_passwords, right(&wants_passwords));
    resolve(
        &process(&memory, &[&wants_passwords], "secret"),
        &wants_passwords,
    )
    .await;
    assert_eq!(
        asked(&wants_passwords),
        ["token 404", "HEAD 401", "HEAD 200"]
    );
    assert_eq!(memory.recall(&wants_passwords.url()), Some(Asks::Password));
}

#[tokio::test]
async fn a_registry_that_became_open_is_not_asked_for_tokens_again() {
    let registry = with(Auth::None);
    let memory = Memory::of(&registry, token("http://127.0.0.1:1/token"));
    resolve(&process(&memory, &[&registry], "secret"), &registry).await;
    assert_eq!(memory.recall(&registry.url()), None);
    assert_eq!(asked(&registry), ["HEAD 200"]);
}

#[tokio::test]
async fn a_refusal_of_what_nobody_asked_for_is_not_the_last_word() {
    for status in [400, 403] {
        let registry = tokens();
        let memory = Memory::of(&registry, right(&registry));
        registry.inject(Fault::Status {
            path: "/manifests/".into(),
            status,
            retry_after: None,
        });
        resolve(&process(&memory, &[&registry], "secret"), &registry).await;
        let refused = format!("HEAD {status}");
        let log = ["token 200", &refused, "HEAD 401", "token 200", "HEAD 200"];
        assert_eq!(asked(&registry), log);
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_asked_for_twice() {
    let registry = tokens();
    let memory = Memory::of(&registry, right(&registry));
    let client = process(&memory, &[&registry], "secret");
    let name = reference(&registry, "y");
    assert!(client.resolve(&name).await.unwrap_err().is_not_found());
    assert_eq!(asked(&registry), ["token 200", "HEAD 404"]);
}

#[tokio::test]
async fn a_wrong_password_is_shown_once() {
    for (registry, log) in [
        (tokens(), &["token 401", "HEAD 401"][..]),
        (basic(), &["HEAD 401"]),
    ] {
        let memory = Arc::default();
        resolve(&process(&memory, &[&registry], "secret"), &registry).await;
        asked(&registry);
        let client = process(&memory, &[&registry], "wrong");
        let error = client.resolve(&reference(&registry, "x")).await;
        let shown = show(&error.unwrap_err());
        assert!(shown.contains("log in again"), "{shown}");
        assert_eq!(asked(&registry), log);
    }
}

#[tokio::test]
async fn what_is_known_of_one_registry_goes_for_no_other() {
    let (one, other) = (tokens(), tokens());
    let memory = Arc::default();
    resolve(&process(&memory, &[&one], "secret"), &one).await;
    asked(&one);
    resolve(&process(&memory, &[&one, &other], "secret"), &other).await;
    assert_eq!(asked(&one), [""; 0]);
    assert_eq!(asked(&other), ["HEAD 401", "token 200", "HEAD 200"]);
}

#[tokio::test]
async fn nothing_goes_along_to_where_a_redirect_leads() {
    let (registry, storage) = (basic(), Registry::start());
    let bytes = content(100);
    storage.add_blob("x", &bytes);
    let memory = Memory::of(&registry, Asks::Password);
    registry.inject(Fault::Redirect {
        path: "/blobs/".into(),
        to: storage.url(),
    });
    let client = process(&memory, &[&registry], "secret");
    let name = reference(&registry, "x");
    fetch(&client, &name, &describe(&bytes)).await.unwrap();
    assert!(registry.log()[0].authorization.is_some());
    assert_eq!(storage.log()[0].authorization, None);
}

#[tokio::test]
async fn a_login_trusts_no_memory() {
    let registry = with(Auth::None);
    let memory = Memory::of(&registry, Asks::Password);
    let client = process(&memory, &[], "secret");
    let credential = Credential::Basic {
        username: "ann".into(),
        password: "x".into(),
    };
    let new = client.log_in(&registry.host(), credential).await.unwrap();
    assert!(!new.was_checked);
}

#[tokio::test]
async fn a_token_whose_time_is_over_is_got_anew() {
    for (memory, renewed) in [
        (false, &["HEAD 401", "token 200", "HEAD 200"][..]),
        (true, &["token 200", "HEAD 200"]),
    ] {
        let registry = Registry::builder()
            .auth(Auth::Token { user: None })
            .token_seconds(1)
            .start();
        registry.add_image("x", "latest", b"{}", &[]);
        let known: Arc<Memory> = Arc::default();
        let client = match memory {
            true => process(&known, &[], ""),
            false => Client::new(config()),
        };
        resolve(&client, &registry).await;
        asked(&registry);
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            resolve(&client, &registry).await;
            let log = asked(&registry);
            if log != ["HEAD 200"] {
                assert_eq!(log, renewed);
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(Instant::now() < deadline, "the token never ran out");
    }
}
