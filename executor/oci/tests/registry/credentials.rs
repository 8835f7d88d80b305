//! Docker's config.json and the helpers that it names.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use kiln_oci::registry::{Credentials as _, DockerConfig};

async fn look(path: &Path, host: &str) -> String {
    let config = DockerConfig::new(path).with_helper_timeout(Duration::from_millis(300));
    match config.credential(host).await {
        Ok(Some(credential)) => format!("{credential:?}"),
        Ok(None) => "none".to_owned(),
        Err(error) => error
            .to_string()
            .replace(&path.parent().unwrap().display().to_string(), "DIR"),
    }
}

/// Writes `config` as config.json and looks up each host.
async fn check(config: &str, expected: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config).unwrap();
    for (host, expected) in expected {
        assert_eq!(look(&path, host).await, *expected, "{host} in {config}");
    }
}

#[tokio::test]
async fn entries_are_found_by_host() {
    // YW5uOnNlOmNyZXQ= is ann:se:cret.
    let config = r#"{"auths": {
        "https://index.docker.io/v1/": {"auth": "YW5uOnNlOmNyZXQ="},
        "ghcr.io": {"username": "bob", "password": "p"},
        "https://old.example/v1/": {"auth": "YW5uOnNlOmNyZXQ="},
        "token.example": {"auth": "YW5uOg==", "identitytoken": "t"},
        "localhost:5000": {"registrytoken": "r"},
        "empty.example": {}
    }, "HttpHeaders": {"X": "y"}}"#;
    let expected = [
        ("docker.io", "Basic(ann, ..)"),
        ("ghcr.io", "Basic(bob, ..)"),
        ("old.example", "Basic(ann, ..)"),
        ("token.example", "IdentityToken(..)"),
        ("localhost:5000", "RegistryToken(..)"),
        ("localhost:5001", "none"),
        ("empty.example", "none"),
        ("example", "none"),
    ];
    check(config, &expected).await;
}

#[tokio::test]
async fn files_that_say_nothing_are_no_failure() {
    check("", &[("docker.io", "none")]).await;
    check("{}", &[("docker.io", "none")]).await;
    check(
        r#"{"auths":null,"credHelpers":null}"#,
        &[("docker.io", "none")],
    )
    .await;
    assert_eq!(
        look(Path::new("/nonexistent/config.json"), "docker.io").await,
        "none"
    );
}

#[tokio::test]
async fn malformed_files_are_named() {
    check(
        "{",
        &[("docker.io", "`DIR/config.json` is not a docker config file")],
    )
    .await;
    let malformed = "`DIR/config.json` has a malformed entry for `a`; log in again";
    check(
        r#"{"auths":{"a":{"auth":"!"}}}"#,
        &[("a", malformed), ("b", "none")],
    )
    .await;
    check(r#"{"auths":{"a":{"auth":"YW5u"}}}"#, &[("a", malformed)]).await;
}

#[tokio::test]
async fn helpers_that_are_not_there_are_named() {
    let missing = "cannot run the credential helper `docker-credential-kiln-none`; install it or remove it from \
                   docker's config.json";
    check(r#"{"credsStore":"kiln-none"}"#, &[("a", missing)]).await;
    check(
        r#"{"credHelpers":{"a":"kiln-none"}}"#,
        &[("a", missing), ("b", "none")],
    )
    .await;
    check(
        r#"{"credsStore":"../x"}"#,
        &[("a", "`../x` is not the name of a credential helper")],
    )
    .await;
}

/// The helper's directory is looked for in PATH, so this test runs itself with another one.
#[test]
fn helpers_are_asked() {
    const INNER: &str = "KILN_TEST_HELPERS";
    if let Some(folder) = std::env::var_os(INNER) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(ask_helpers(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\nread -r host || :\ncase $host in\n\
        ann.example) echo '{\"ServerURL\":\"\",\"Username\":\"ann\",\"Secret\":\"s\"}';;\n\
        token.example) echo '{\"Username\":\"<token>\",\"Secret\":\"s\"}';;\n\
        hang.example) exec sleep 60;;\n\
        bad.example) echo nonsense;;\n\
        locked.example) echo 'the store is locked'; exit 1;;\n\
        *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n";
    let helper = folder.path().join("docker-credential-kiln-test");
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let inner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "credentials::helpers_are_asked", "--nocapture"])
        .env("PATH", path)
        .env(INNER, folder.path())
        .output()
        .unwrap();
    assert!(
        inner.status.success(),
        "{}",
        String::from_utf8_lossy(&inner.stderr)
    );
}

async fn ask_helpers(folder: &Path) {
    let path = folder.join("config.json");
    // YTpi is a:b.
    let config =
        r#"{"credsStore":"kiln-test","auths":{"file.example":{"auth":"YTpi"},"ann.example":{}}}"#;
    std::fs::write(&path, config).unwrap();
    let program = "the credential helper `docker-credential-kiln-test`";
    for (host, expected) in [
        ("ann.example", "Basic(ann, ..)".to_owned()),
        ("token.example", "IdentityToken(..)".to_owned()),
        ("file.example", "Basic(a, ..)".to_owned()),
        ("docker.io", "none".to_owned()),
        ("hang.example", format!("{program} gave no answer for 0 s")),
        (
            "bad.example",
            format!("{program} failed: its answer is not JSON of a user name and a secret"),
        ),
        (
            "locked.example",
            format!("{program} failed: the store is locked"),
        ),
    ] {
        assert_eq!(look(&path, host).await, expected, "{host}");
    }
}
