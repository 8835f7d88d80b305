//! Docker's config.json and the helpers that it names.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use kiln_oci::registry::{Accounts, Credential, Credentials as _, DockerConfig, Kept};

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
        return runtime.block_on(async {
            ask_helpers(Path::new(&folder)).await;
            keep_with_helper(Path::new(&folder)).await;
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\nread -r host || :\ncase $host in\n\
        ann.example) echo '{\"ServerURL\":\"\",\"Username\":\"ann\",\"Secret\":\"s\"}';;\n\
        token.example) echo '{\"Username\":\"<token>\",\"Secret\":\"s\"}';;\n\
        hang.example) sleep 60 & echo $! > \"$0.child\"; wait;;\n\
        bad.example) echo nonsense;;\n\
        locked.example) echo 'the store is locked'; exit 1;;\n\
        *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n";
    for (name, script) in [("kiln-test", script), ("kiln-keeper", KEEPER)] {
        let helper = folder.path().join(format!("docker-credential-{name}"));
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
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
    // What it had started went with it.
    let child = folder.join("docker-credential-kiln-test.child");
    let child = std::fs::read_to_string(child).unwrap();
    let stat = Path::new("/proc").join(child.trim()).join("stat");
    let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while lives() {
        assert!(std::time::Instant::now() < deadline, "{child} lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Parts of a host come before the usual helper, and after one that is named for the host.
    for (keeper, expected) in [
        (r#""credsStore":"kiln-test""#, "Basic(a, ..)"),
        (
            r#""credHelpers":{"ann.example":"kiln-test"}"#,
            "Basic(ann, ..)",
        ),
    ] {
        let config = format!(r#"{{{keeper},"auths":{{"ann.example/team":{{"auth":"YTpi"}}}}}}"#);
        std::fs::write(&path, config).unwrap();
        assert_eq!(look(&path, "ann.example/team/app").await, expected);
        assert_eq!(look(&path, "ann.example/app").await, "Basic(ann, ..)");
    }
}

/// What a helper of this suite keeps, one file a host.
const KEEPER: &str = "#!/bin/sh\ndir=${0%/*}/kept\nmkdir -p \"$dir\"\ncase $1 in\n\
    store) cat > \"$dir/new\"; host=$(sed 's/.*\"ServerURL\":\"\\([^\"]*\\)\".*/\\1/' \"$dir/new\" | tr / _)\n\
    case $host in refuse*) echo 'the store is full'; exit 1;; esac; mv \"$dir/new\" \"$dir/$host\";;\n\
    get) read -r host || :; host=$(echo \"$host\" | tr / _)\n\
    test -e \"$dir/$host\" || { echo 'credentials not found in native keychain'; exit 1; }; cat \"$dir/$host\";;\n\
    erase) read -r host || :; host=$(echo \"$host\" | tr / _)\n\
    test -e \"$dir/$host\" || { echo 'credentials not found in native keychain'; exit 1; }; rm \"$dir/$host\";;\n\
    list) echo '{\"https://old.example/v1/\":\"ann\"}';;\nesac\n";

fn ann() -> Credential {
    Credential::Basic {
        username: "ann".into(),
        password: "se:cret".into(),
    }
}

#[tokio::test]
async fn a_login_is_kept_as_docker_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/config.json");
    let config = DockerConfig::new(&path);
    let kept = config.store("docker.io", &ann()).await.unwrap();
    assert_eq!(kept, Kept::File(path.clone()));
    let token = Credential::IdentityToken("t".into());
    config.store("ghcr.io", &token).await.unwrap();
    let expected = "{\n\t\"auths\": {\n\t\t\"https://index.docker.io/v1/\": {\n\t\t\t\
        \"auth\": \"YW5uOnNlOmNyZXQ=\"\n\t\t},\n\t\t\"ghcr.io\": {\n\t\t\t\"auth\": \"PHRva2VuPjo=\",\n\t\t\t\
        \"identitytoken\": \"t\"\n\t\t}\n\t}\n}";
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(config.credential("docker.io").await.unwrap(), Some(ann()));
    assert_eq!(config.credential("ghcr.io").await.unwrap(), Some(token));
    assert_eq!(config.erase("docker.io").await.unwrap(), Some(kept));
    assert_eq!(config.erase("docker.io").await.unwrap(), None);
    assert_eq!(config.credential("docker.io").await.unwrap(), None);
    assert!(std::fs::read_to_string(&path).unwrap().contains("ghcr.io"));
}

#[tokio::test]
async fn all_entries_of_a_host_are_forgotten_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let config =
        r#"{"a":1,"auths":{"r.io":{},"https://r.io/v1/":{},"r.io/team":{},"x.r.io":{}},"b":2}"#;
    std::fs::write(&path, config).unwrap();
    DockerConfig::new(&path).erase("r.io").await.unwrap();
    let left: String = std::fs::read_to_string(&path)
        .unwrap()
        .split_whitespace()
        .collect();
    let expected = r#"{"a":1,"auths":{"r.io/team":{},"x.r.io":{}},"b":2}"#;
    assert_eq!(left, expected);
}

#[tokio::test]
async fn a_namespaces_credentials_are_not_the_hosts() {
    // As podman keeps them.
    check(
        r#"{"auths":{"quay.io/team":{"auth":"YW5uOnNlOmNyZXQ="}}}"#,
        &[
            ("quay.io", "none"),
            ("quay.io/other/app", "none"),
            ("quay.io/team", "Basic(ann, ..)"),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_longest_entry_that_fits_counts() {
    // YTpi is a:b, Yzpk c:d, ZTpm e:f.
    let config = r#"{"auths": {
        "r.io": {"auth": "YTpi"}, "r.io/foo": {"auth": "Yzpk"}, "r.io/foo/bar/image": {"auth": "ZTpm"},
        "r.io/empty": {}, "r.io/wrong": {"auth": "!"},
        "docker.io/library": {"auth": "Yzpk"}, "https://index.docker.io/v1/": {"auth": "YTpi"},
        "localhost:5000/x": {"identitytoken": "t"}, "old.io/v1": {"auth": "YTpi"}
    }}"#;
    let expected = [
        ("r.io", "Basic(a, ..)"),
        ("r.io/other", "Basic(a, ..)"),
        ("r.io/foo", "Basic(c, ..)"),
        ("r.io/foo/bar", "Basic(c, ..)"),
        ("r.io/foo/bar/image", "Basic(e, ..)"),
        ("r.io/foo/bar/image2", "Basic(c, ..)"),
        ("r.io/foobar", "Basic(a, ..)"),
        ("r.io/empty/x", "Basic(a, ..)"),
        (
            "r.io/wrong/x",
            "`DIR/config.json` has a malformed entry for `r.io/wrong`; log in again",
        ),
        ("docker.io/library/alpine", "Basic(c, ..)"),
        ("docker.io/team/app", "Basic(a, ..)"),
        ("localhost:5000/x/y", "IdentityToken(..)"),
        ("localhost:5000/y", "none"),
        ("old.io/x", "Basic(a, ..)"),
    ];
    check(config, &expected).await;
}

#[tokio::test]
async fn a_part_of_a_registry_is_kept_and_forgotten_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let config = DockerConfig::new(&path);
    let file = Kept::File(path.clone());
    config.store("r.io", &ann()).await.unwrap();
    let token = Credential::IdentityToken("t".into());
    assert_eq!(config.store("r.io/team", &token).await.unwrap(), file);
    let at = async |place: &str| config.credential(place).await.unwrap();
    assert_eq!(at("r.io/team/app").await, Some(token.clone()));
    assert_eq!(at("r.io/app").await, Some(ann()));
    assert_eq!(config.erase("r.io/other").await.unwrap(), None);
    assert_eq!(config.erase("r.io").await.unwrap(), Some(file.clone()));
    assert_eq!(at("r.io/app").await, None);
    assert_eq!(at("r.io/team").await, Some(token));
    assert_eq!(config.erase("r.io/team").await.unwrap(), Some(file));
    assert_eq!(at("r.io/team").await, None);
    // A helper has no parts.
    for text in [r#"{"credsStore":"x"}"#, r#"{"credHelpers":{"r.io":"x"}}"#] {
        std::fs::write(&path, text).unwrap();
        let error = config.accepts("r.io/team").await.unwrap_err().to_string();
        assert!(
            error.contains("`docker-credential-x`") && error.contains("`r.io/team`"),
            "{error}"
        );
        assert!(config.store("r.io/team", &ann()).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[tokio::test]
async fn a_file_of_another_shape_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    for text in ["[]", r#"{"auths":[]}"#, "{"] {
        std::fs::write(&path, text).unwrap();
        DockerConfig::new(&path)
            .store("a", &ann())
            .await
            .unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[tokio::test]
async fn podmans_file_is_asked_after_dockers() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, host: &str, auth: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text =
            format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}},"both":{{"auth":"{auth}"}}}}}}"#);
        std::fs::write(path, text).unwrap();
    };
    // YTpi is a:b, and so on.
    write("docker/config.json", "docker.example", "YTpi");
    write("run/containers/auth.json", "run.example", "Yzpk");
    write("config/containers/auth.json", "config.example", "ZTpm");
    write("own.json", "own.example", "Zzpo");
    let accounts = |own: bool| {
        Accounts::from_lookup(|name| {
            let place = |part: &str| Some(folder.path().join(part).into_os_string());
            match name {
                "DOCKER_CONFIG" => place("docker"),
                "XDG_RUNTIME_DIR" => place("run"),
                "XDG_CONFIG_HOME" => place("config"),
                "REGISTRY_AUTH_FILE" if own => place("own.json"),
                _ => None,
            }
        })
    };
    let user = async |own: bool, host: &str| {
        let found = accounts(own).credential(host).await.unwrap();
        found.map(|credential| format!("{credential:?}"))
    };
    let basic = |user: &str| Some(format!("Basic({user}, ..)"));
    assert_eq!(user(false, "docker.example").await, basic("a"));
    assert_eq!(user(false, "both").await, basic("a"));
    assert_eq!(user(false, "run.example").await, basic("c"));
    assert_eq!(user(false, "config.example").await, basic("e"));
    assert_eq!(user(true, "run.example").await, None);
    assert_eq!(user(true, "own.example").await, basic("g"));
    // Files come before lengths.
    write("run/containers/auth.json", "both/team", "Yzpk");
    assert_eq!(user(false, "both/team/app").await, basic("a"));
    write("config/containers/auth.json", "run.example/team", "ZTpm");
    write("run/containers/auth.json", "run.example/a", "Yzpk");
    assert_eq!(user(false, "run.example/a/b").await, basic("c"));
    assert_eq!(user(false, "run.example/team/b").await, basic("e"));
    assert_eq!(user(false, "run.example").await, None);
    let elsewhere = accounts(false).elsewhere("run.example/team").await.unwrap();
    let file = folder.path().join("config/containers/auth.json");
    assert_eq!(elsewhere, Some(file));
    let above = accounts(false).elsewhere("run.example/team/b").await;
    assert_eq!(above.unwrap(), None);
    write("run/containers/auth.json", "run.example", "Yzpk");
    let elsewhere = accounts(false).elsewhere("run.example").await.unwrap();
    assert_eq!(
        elsewhere,
        Some(folder.path().join("run/containers/auth.json"))
    );
}

async fn keep_with_helper(folder: &Path) {
    let path = folder.join("keeper.json");
    let text = r#"{"credHelpers":{"refuse.example":"kiln-keeper","kept.example":"kiln-keeper","old.example":"kiln-keeper"}}"#;
    std::fs::write(&path, text).unwrap();
    let config = DockerConfig::new(&path);
    let helper = Kept::Helper("docker-credential-kiln-keeper".into());
    for credential in [ann(), Credential::IdentityToken("t".into())] {
        let kept = config.store("kept.example", &credential).await.unwrap();
        assert_eq!(kept, helper);
        let found = config.credential("kept.example").await.unwrap();
        assert_eq!(found, Some(credential));
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("\"kept.example\": {}") && !text.contains("auth\""),
        "{text}"
    );
    assert_eq!(
        config.erase("kept.example").await.unwrap(),
        Some(helper.clone())
    );
    assert_eq!(config.credential("kept.example").await.unwrap(), None);
    assert_eq!(config.erase("kept.example").await.unwrap(), None);
    let error = config.store("refuse.example", &ann()).await.unwrap_err();
    assert!(
        error.to_string().ends_with("failed: the store is full"),
        "{error}"
    );
    // What a helper lists under an old name of the host goes too.
    let old = folder.join("kept/https:__old.example_v1_");
    std::fs::write(&old, "{}").unwrap();
    assert_eq!(config.erase("old.example").await.unwrap(), Some(helper));
    assert!(!old.exists());
}
