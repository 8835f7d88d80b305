//! Who may pull, and whom kiln trusts.

use kiln_test_registry::{Auth, Authority, Fault, Registry};

use super::archive::Archive;
use super::server::{add_image, assert_empty_store, base_layer, told};
use crate::support::{Capability::*, Case, Ran, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("basic_auth", &[Containers], basic_auth),
        case("token_auth", &[Containers], token_auth),
        case("anonymous_token", &[Containers], anonymous_token),
        case("broken_accounts", &[Containers], broken_accounts),
        case("token_expires", &[Containers], token_expires),
        case("tls", &[Containers], tls),
        case(
            "redirect_drops_credentials",
            &[Containers],
            redirect_drops_credentials,
        ),
        case("shared_layers", &[Containers], shared_layers),
    ]
}

pub(super) const USER: &str = "anna";
pub(super) const PASSWORD: &str = "correct horse";

fn basic() -> Auth {
    Auth::Basic {
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

fn with_base(auth: Auth) -> Registry {
    let registry = Registry::builder().auth(auth).start();
    add_image(&registry, "base", &[&base_layer()]);
    registry
}

/// Writes docker's config.json, as `docker login` does.
pub(super) fn log_in(world: &World, host: &str, password: &str) {
    let secret = encode(&format!("{USER}:{password}"));
    let config = serde_json::json!({ "auths": { host: { "auth": secret } } });
    world.write("../home/config.json", config.to_string());
}

fn encode(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text.as_bytes()
        .chunks(3)
        .flat_map(|chunk| {
            let bits = (0..3).fold(0u32, |bits, at| {
                bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
            });
            (0..4).map(move |at| match at <= chunk.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]),
                false => '=',
            })
        })
        .collect()
}

fn build(world: &World, host: &str) -> Ran {
    world.dockerfile(&format!("FROM {host}/base\nRUN echo > /one\n"));
    world.kiln(&["build", "-t", "app", "ctx"]).run()
}

fn refused_then_admitted(world: &World, auth: Auth) {
    let registry = with_base(auth);
    let host = registry.host();
    let check = |part: &str| {
        let ran = build(world, &host);
        assert!(!ran.status.success());
        let words = told(&ran, &host);
        assert!(
            !words.contains(PASSWORD) && !words.contains("wrong"),
            "{words}"
        );
        world.snapshot_of(part, &words);
        assert_empty_store(world);
    };
    check("nobody");
    log_in(world, &host, "wrong");
    check("wrong");
    log_in(world, &host, PASSWORD);
    let ran = build(world, &host);
    assert!(ran.status.success(), "{}", ran.stderr);
}

fn basic_auth(world: &World) {
    refused_then_admitted(world, basic());
}

fn token_auth(world: &World) {
    refused_then_admitted(
        world,
        Auth::Token {
            user: Some((USER.to_owned(), PASSWORD.to_owned())),
        },
    );
}

fn anonymous_token(world: &World) {
    let registry = with_base(Auth::Token { user: None });
    let ran = build(world, &registry.host());
    assert!(ran.status.success(), "{}", ran.stderr);
    assert!(registry.count("GET", "/token") > 0, "{:?}", registry.log());
}

/// What everybody may pull needs no account; what nobody can tell is said, and nothing is sent without it.
fn broken_accounts(world: &World) {
    let open = with_base(Auth::Token { user: None });
    let closed = with_base(basic());
    let malformed = format!(r#"{{"auths":{{"{}":{{"auth":"!!"}}}}}}"#, open.host());
    for (config, cause) in [
        ("{", "config.json` is not a docker config file"),
        (&malformed, "has a malformed entry for"),
        (
            r#"{"credsStore":"desktop"}"#,
            "cannot run the credential helper `docker-credential-desktop`",
        ),
    ] {
        world.write("../home/config.json", config);
        let ran = build(world, &open.host());
        assert!(ran.status.success(), "{}", ran.stderr);
        assert_eq!(ran.stderr.matches(cause).count(), 1, "{}", ran.stderr);
        let name = format!("{}/base", open.host());
        let ran = world.kiln(&["pull", &name]).ok();
        assert_eq!(ran.stderr.matches(cause).count(), 1, "{}", ran.stderr);
        // Nothing is sent, and nothing is had from who wants a password.
        open.clear_log();
        let name = format!("{}/app:1", open.host());
        let ran = world.kiln(&["push", "app", &name]).exits(1);
        assert!(ran.stderr.contains(cause), "{}", ran.stderr);
        assert_eq!(open.count("PUT", "/"), 0, "{:?}", open.log());
        if !config.contains("auths") {
            let ran = build(world, &closed.host());
            assert!(!ran.status.success());
            assert!(ran.stderr.contains(cause), "{}", ran.stderr);
        }
        assert_eq!(world.read("../home/config.json"), config);
        world.forget();
    }
    // A broken file is left to whoever broke it.
    world.write("../home/config.json", "{");
    let host = closed.host();
    let login = ["login", "-u", USER, "-p", PASSWORD, &host];
    for line in [&login[..], &["logout", &host]] {
        let ran = world.kiln(line).exits(3);
        assert!(ran.stderr.contains("config.json"), "{}", ran.stderr);
        assert_eq!(world.read("../home/config.json"), "{");
    }
}

fn token_expires(world: &World) {
    let registry = with_base(Auth::Token { user: None });
    registry.inject(Fault::ForgetTokens {
        path: "/blobs/".to_owned(),
    });
    let ran = build(world, &registry.host());
    assert!(ran.status.success(), "{}", ran.stderr);
    assert!(registry.pending_faults().is_empty());
}

fn tls(world: &World) {
    let authority = Authority::new();
    let registry = Registry::builder().tls(&authority).start();
    add_image(&registry, "base", &[&base_layer()]);
    let host = registry.host();
    let refused = build(world, &host);
    assert!(!refused.status.success());
    world.snapshot(&told(&refused, &host));
    assert_eq!(registry.log(), [], "nothing is said to who is not trusted");
    assert_empty_store(world);

    // Another authority does not help.
    Authority::new().write_pem(&world.path("other.pem"));
    let other = world
        .kiln(&["build", "ctx"])
        .env("SSL_CERT_FILE", world.path("other.pem"))
        .run();
    assert!(!other.status.success());
    assert_eq!(registry.log(), []);

    authority.write_pem(&world.path("authority.pem"));
    world
        .kiln(&["build", "-t", "app", "ctx"])
        .env("SSL_CERT_FILE", world.path("authority.pem"))
        .ok();
    assert!(!registry.log().is_empty());
}

fn shared_layers(world: &World) {
    let registry = Registry::start();
    let (base, more) = (base_layer(), Archive::new().file("more", "more").layer());
    add_image(&registry, "one", &[&base]);
    add_image(&registry, "two", &[&base, &more]);
    let host = registry.host();
    world.dockerfile(&format!(
        "FROM {host}/one AS one\nRUN echo one > /one\n\
         FROM {host}/two\nCOPY --from=one /one /\nRUN cat /one /more > /all\n"
    ));
    world.build();
    assert_eq!(world.sh("app", "cat /all"), "one\nmore");
    assert_eq!(
        registry.count("GET", &base.digest()),
        1,
        "{:?}",
        registry.log()
    );
}

fn redirect_drops_credentials(world: &World) {
    let registry = with_base(basic());
    let storage = Registry::start();
    let layer = base_layer();
    storage.add_blob("base", &layer.bytes);
    log_in(world, &registry.host(), PASSWORD);
    registry.inject(Fault::Redirect {
        path: layer.digest(),
        to: storage.url(),
    });
    let ran = build(world, &registry.host());
    assert!(ran.status.success(), "{}", ran.stderr);
    let asked = storage.log();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].authorization, None);
    let held = registry.log();
    assert!(held.iter().any(|request| request.authorization.is_some()));
}
