//! Accounts and settings of registries: logging in and out, the configuration file, certificates.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use kiln_test_registry::{Auth, Authority, Registry};
use serde_json::Value;

use crate::registries::server::{add_image, base_layer, hide_port};
use crate::support::{Capability::*, Case, Ran, UID, User, World, case, on_a_terminal};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("login", &[Containers], login),
        case("login_with_tokens", &[], login_with_tokens),
        case("login_refused", &[], login_refused),
        case("login_on_a_terminal", &[Python], login_on_a_terminal),
        case("login_with_helper", &[Containers], login_with_helper),
        case("login_to_a_part", &[Containers], login_to_a_part),
        case(
            "login_to_a_part_with_skopeo",
            &[Containers, Skopeo],
            login_to_a_part_with_skopeo,
        ),
        case("helpers_that_fail", &[], helpers_that_fail),
        case("login_of_a_user", &[OrdinaryUser, Setpriv], login_of_a_user),
        case("login_without_a_place", &[], login_without_a_place),
        case(
            "docker_and_podman_see_it",
            &[Skopeo],
            docker_and_podman_see_it,
        ),
        case("config_file", &[Containers], config_file),
        case("config_file_is_wrong", &[], config_file_is_wrong),
        case("client_certificates", &[Containers], client_certificates),
        case("not_verified", &[Containers], not_verified),
        case(
            "flags_go_over_the_rest",
            &[Containers],
            flags_go_over_the_rest,
        ),
        case("info_tells", &[], info_tells),
    ]
}

const USER: &str = "anna";
const PASSWORD: &str = "correct horse";

fn private() -> Registry {
    let auth = Auth::Basic {
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
    };
    with_base(Registry::builder().auth(auth).start())
}

fn with_base(registry: Registry) -> Registry {
    add_image(&registry, "base", &[&base_layer()]);
    registry
}

fn log_in(world: &World, host: &str) -> Ran {
    let line = ["login", "-u", USER, "--password-stdin", host];
    world.kiln(&line).stdin(format!("{PASSWORD}\n")).run()
}

/// Builds from the registry's base, which asks it every time.
fn build(world: &World, host: &str, more: &[&str]) -> Ran {
    world.dockerfile(&format!("FROM {host}/base\nRUN echo > /one\n"));
    world
        .kiln(&[&["build", "--pull"], more, &["ctx"]].concat())
        .run()
}

fn succeeds(ran: &Ran) {
    assert!(ran.status.success(), "{}", ran.whole());
}

fn told(ran: &Ran, host: &str) -> String {
    hide_port(&ran.whole(), host)
}

fn config(world: &World) -> Value {
    serde_json::from_str(&world.read("../home/config.json")).unwrap()
}

fn login(world: &World) {
    let registry = private();
    let host = registry.host();
    assert!(!build(world, &host, &[]).status.success());
    let others = "{\n  \"HttpHeaders\": {\"b\": \"1\", \"a\": \"2\"},\n  \"auths\": {\"other.example\": {\"auth\": \"YTpi\"}},\n  \"proxies\": {}\n}";
    world.write("../home/config.json", others);
    let ran = log_in(world, &host);
    assert!(!ran.whole().contains(PASSWORD));
    world.snapshot_of("in", &told(&ran, &host));
    world.snapshot_of(
        "file",
        &hide_port(&world.read("../home/config.json"), &host),
    );
    let mode = std::fs::metadata(world.path("../home/config.json")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    succeeds(&build(world, &host, &[]));

    // What is kept is good for another login.
    let again = world.kiln(&["login", &host]).ok();
    assert_eq!(again.stdout, "Login Succeeded\n");

    let url = format!("https://{host}/v2/");
    world.snapshot_of("out", &told(&world.kiln(&["logout", &url]).ok(), &host));
    let left: Value = serde_json::from_str(others).unwrap();
    assert_eq!(config(world), left);
    world.snapshot_of(
        "out_again",
        &told(&world.kiln(&["logout", &host]).ok(), &host),
    );
    assert!(!build(world, &host, &[]).status.success());
}

fn login_with_tokens(world: &World) {
    let auth = Auth::Token {
        user: Some((USER.to_owned(), PASSWORD.to_owned())),
    };
    let registry = Registry::builder().auth(auth).refresh_tokens().start();
    let host = registry.host();
    succeeds(&log_in(world, &host));
    let entry = &config(world)["auths"][&host];
    assert_eq!(entry["identitytoken"], "refresh-anna");
    let text = world.read("../home/config.json");
    assert!(!text.contains("Y29ycmVjdCBob3JzZQ"), "{text}");
    succeeds(&world.kiln(&["login", &host]).run());
}

fn login_refused(world: &World) {
    let registry = private();
    let host = registry.host();
    let check = |part: &str, line: &[&str], stdin: &str| {
        let line = [&["login"], line, &[&host]].concat();
        let ran = world.kiln(&line).stdin(stdin).run();
        assert!(!ran.status.success());
        world.snapshot_of(part, &told(&ran, &host));
        assert!(!world.path("../home/config.json").exists());
    };
    check("wrong", &["-u", USER, "-p", "wrong"], "");
    check("empty", &["-u", USER, "--password-stdin"], "\n");
    check("no_terminal", &[], "");
    check("no_name", &["--password-stdin"], "x");
    let nowhere = world
        .kiln(&["login", "-u", "a", "-p", "b", "No Host"])
        .run();
    world.snapshot_of("no_host", &nowhere.whole());
}

/// Types a name and a password, and prints what is shown; then interrupts at the password.
const TYPIST: &str = r#"
import termios

def talk(answers):
    terminal = Terminal()
    for question, answer in answers:
        terminal.until(question)
        # The question comes before the terminal is silent.
        end = time.monotonic() + 60
        silent = question.startswith(b"Password")
        while silent and termios.tcgetattr(terminal.fd)[3] & termios.ECHO and time.monotonic() < end:
            time.sleep(0.01)
        os.write(terminal.fd, answer)
    terminal.until(b"never said")
    print(terminal.exit_code(), terminal.seen.decode().replace("\r", ""))

talk([(b"Username: ", b"anna\n"), (b"Password: ", b"corrects\x08 horsx\x7fe\n")])
# The second time what is kept is wrong.
path = os.environ["DOCKER_CONFIG"] + "/config.json"
kept = open(path).read()
open(path, "w").write(kept.replace("YW5uYTpjb3JyZWN0IGhvcnNl", "YW5uYTp3cm9uZw=="))
talk([(b"Username (anna): ", b"\n"), (b"Password: ", b"half\x03")])
"#;

fn login_on_a_terminal(world: &World) {
    let registry = private();
    let host = registry.host();
    world.write("typist.py", on_a_terminal(TYPIST));
    let kiln = env!("CARGO_BIN_EXE_kiln");
    let ran = world
        .program("python3", &["typist.py", kiln, "login", &host])
        .ok();
    let above = world.store();
    let above = above.parent().unwrap().display().to_string();
    let shown = hide_port(&ran.stdout, &host).replace(&above, "[world]");
    world.snapshot(&shown);
    assert!(!ran.stdout.contains("horse") && !ran.stdout.contains("half"));
}

/// A credential helper that keeps what it is given in one file.
const HELPER: &str = "#!/bin/sh\nkept=${0%/*}/kept\ncase $1 in\nstore) cat > \"$kept\";;\n\
    get) cat \"$kept\" 2> /dev/null || { echo credentials not found in native keychain; exit 1; };;\n\
    erase) rm \"$kept\" 2> /dev/null || { echo credentials not found in native keychain; exit 1; };;\n\
    list) echo '{}';;\nesac\n";

fn path_with(world: &World) -> String {
    format!(
        "{}:/usr/sbin:/usr/bin:/sbin:/bin",
        world.path("bin").display()
    )
}

fn login_with_helper(world: &World) {
    let registry = private();
    let host = registry.host();
    world.write_mode("bin/docker-credential-box", HELPER, 0o755);
    world.write("../home/config.json", "{\"credsStore\": \"box\"}");
    let path = path_with(world);
    let line = ["login", "-u", USER, "--password-stdin", &host];
    let ran = world.kiln(&line).env("PATH", &path).stdin(PASSWORD).ok();
    // Nothing is kept as text, and so nobody is warned.
    assert_eq!(ran.whole().lines().last(), Some("Login Succeeded"));
    assert!(!ran.stderr.contains("encryption"), "{}", ran.stderr);
    assert_eq!(config(world)["auths"][&host], serde_json::json!({}));
    let kept: Value = serde_json::from_str(&world.read("bin/kept")).unwrap();
    assert_eq!(kept["ServerURL"], host.as_str());
    assert_eq!(kept["Username"], USER);
    world.dockerfile(&format!("FROM {host}/base\nRUN echo > /one\n"));
    world.kiln(&["build", "ctx"]).env("PATH", &path).ok();
    world.kiln(&["logout", &host]).env("PATH", &path).ok();
    assert!(!world.path("bin/kept").exists());
    assert_eq!(
        config(world),
        serde_json::json!({"credsStore": "box", "auths": {}})
    );
}

/// A registry with the same image in two places.
fn with_parts() -> Registry {
    let registry = private();
    add_image(&registry, "team/base", &[&base_layer()]);
    registry
}

/// Whether a build may begin with an image, by the accounts in a file of podman's if that is given.
fn may_pull(world: &World, name: &str, auth: Option<&str>) -> bool {
    world.dockerfile(&format!("FROM {name}\nRUN echo > /one\n"));
    let mut build = world.kiln(&["build", "--pull", "ctx"]);
    if let Some(file) = auth {
        build = build.env("REGISTRY_AUTH_FILE", world.path(file));
    }
    build.run().status.success()
}

fn login_to_a_part(world: &World) {
    let registry = with_parts();
    let host = registry.host();
    let (part, all) = (format!("{host}/team"), host.as_str());
    let ran = log_in(world, &part);
    world.snapshot_of("in", &told(&ran, &host));
    let entry = serde_json::json!({ &part: { "auth": "YW5uYTpjb3JyZWN0IGhvcnNl" } });
    assert_eq!(config(world)["auths"], entry);
    assert!(may_pull(world, &format!("{part}/base"), None));
    assert!(!may_pull(world, &format!("{all}/base"), None));
    let out = world.kiln(&["logout", all]).ok();
    assert_eq!(out.stdout, format!("Not logged in to {all}\n"));
    assert_eq!(config(world)["auths"], entry);
    let out = world.kiln(&["logout", &part]).ok();
    assert_eq!(
        out.stdout,
        format!("Removing login credentials for {part}\n")
    );
    assert!(!may_pull(world, &format!("{part}/base"), None));
    // A helper keeps no parts, which is said before anything is sent.
    world.write("../home/config.json", "{\"credsStore\": \"box\"}");
    registry.clear_log();
    let refused = log_in(world, &part);
    assert!(!refused.status.success());
    world.snapshot_of("helper", &told(&refused, &host));
    assert_eq!(registry.log(), []);
}

fn login_to_a_part_with_skopeo(world: &World) {
    let registry = with_parts();
    let host = registry.host();
    let part = format!("{host}/team");
    let line = [
        "login",
        "--tls-verify=false",
        "-u",
        USER,
        "-p",
        PASSWORD,
        &part,
    ];
    let auth = world.path("auth.json");
    let login = world.program("skopeo", &line);
    login.env("REGISTRY_AUTH_FILE", &auth).ok();
    let kept: Value = serde_json::from_str(&world.read("auth.json")).unwrap();
    assert!(kept["auths"][&part].is_object(), "{kept}");
    assert!(may_pull(world, &format!("{part}/base"), Some("auth.json")));
    assert!(!may_pull(world, &format!("{host}/base"), Some("auth.json")));
    let out = world
        .kiln(&["logout", &part])
        .env("REGISTRY_AUTH_FILE", &auth)
        .ok();
    assert!(
        out.stderr
            .contains(&format!("`podman logout {part}` removes it")),
        "{}",
        out.stderr
    );
    // And the other way around, from docker's file.
    succeeds(&log_in(world, &part));
    for (name, is_seen) in [
        (format!("{part}/base"), true),
        (format!("{host}/base"), false),
    ] {
        let name = format!("docker://{name}");
        let seen = world
            .program("skopeo", &["inspect", "--raw", "--tls-verify=false", &name])
            .run();
        assert_eq!(seen.status.success(), is_seen, "{}", seen.whole());
    }
}

fn helpers_that_fail(world: &World) {
    let registry = private();
    let host = registry.host();
    let path = path_with(world);
    let mut text = String::new();
    for (name, script) in [
        ("absent", None),
        ("nonsense", Some("#!/bin/sh\necho nonsense\n")),
        (
            "locked",
            Some("#!/bin/sh\necho 'the keychain is locked'\nexit 1\n"),
        ),
        ("silent", Some("#!/bin/sh\nexit 3\n")),
    ] {
        if let Some(script) = script {
            world.write_mode(&format!("bin/docker-credential-{name}"), script, 0o755);
        }
        world.write(
            "../home/config.json",
            format!("{{\"credsStore\": \"{name}\"}}"),
        );
        let ran = world.kiln(&["login", &host]).env("PATH", &path).run();
        assert!(!ran.status.success());
        text.push_str(&told(&ran, &host));
    }
    world.snapshot(&text);
    assert!(registry.log().is_empty());
}

fn login_of_a_user(world: &World) {
    let registry = private();
    let host = registry.host();
    let user = User::new(world, "own");
    user.ok(&format!(
        "unset DOCKER_CONFIG; echo '{PASSWORD}' | kiln login -u {USER} --password-stdin {host}"
    ));
    let kept = world.path("own/.docker/config.json");
    let uid: u32 = UID.parse().unwrap();
    let owner = || std::fs::metadata(&kept).unwrap().uid();
    assert_eq!(owner(), uid);
    // Nor does it become root's where root logs out for them.
    let folder = kept.parent().unwrap();
    world
        .kiln(&["logout", &host])
        .env("DOCKER_CONFIG", folder)
        .ok();
    assert_eq!(owner(), uid);
    let folder = std::fs::metadata(folder).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
}

fn login_without_a_place(world: &World) {
    let registry = private();
    let host = registry.host();
    let line = ["login", "-u", USER, "-p", PASSWORD, &host];
    let nowhere = world.kiln(&line).env("HOME", "").env("DOCKER_CONFIG", "");
    world.snapshot_of("no_home", &told(&nowhere.run(), &host));
    // A file in the way of the directory.
    world.write("file", "");
    let blocked = world.kiln(&line).env("DOCKER_CONFIG", world.path("file"));
    assert!(!blocked.run().status.success());
    assert_eq!(world.read("file"), "");
}

fn docker_and_podman_see_it(world: &World) {
    let registry = private();
    let host = registry.host();
    let name = format!("docker://{host}/base");
    let line = ["inspect", "--raw", "--tls-verify=false", &name];
    assert!(!world.program("skopeo", &line).run().status.success());
    succeeds(&log_in(world, &host));
    world.program("skopeo", &line).ok();
    world.kiln(&["logout", &host]).ok();

    // And the other way around, from the place that is podman's.
    let auth = world.path("run/containers/auth.json");
    std::fs::create_dir_all(auth.parent().unwrap()).unwrap();
    world
        .program(
            "skopeo",
            &[
                "login",
                "--tls-verify=false",
                "-u",
                USER,
                "-p",
                PASSWORD,
                &host,
            ],
        )
        .env("REGISTRY_AUTH_FILE", &auth)
        .ok();
    let login = world.kiln(&["login", &host]);
    let login = login.env("XDG_RUNTIME_DIR", world.path("run"));
    assert_eq!(login.ok().stdout, "Login Succeeded\n");
    let logout = world.kiln(&["logout", &host]);
    let logout = logout.env("REGISTRY_AUTH_FILE", &auth).ok();
    let words = told(&logout, &host).replace(&auth.display().to_string(), "AUTH");
    world.snapshot(&words);
}

fn config_file(world: &World) {
    let authority = Authority::new();
    let mirror = with_base(Registry::builder().tls(&authority).start());
    let origin = Registry::start();
    let host = origin.host();
    authority.write_pem(&world.path("../home/ca.pem"));
    let text = format!(
        "[registry.\"{host}\"]\nmirrors = [\"{}\"]\n\n[registry.\"{}\"]\nca = [\"~/ca.pem\"]\n",
        mirror.url(),
        mirror.host()
    );
    world.write("../home/.config/kiln/config.toml", &text);
    succeeds(&build(world, &host, &[]));
    assert!(!mirror.log().is_empty() && origin.log().is_empty());

    // Another place, and none.
    world.remove("../home/.config/kiln/config.toml");
    assert!(!build(world, &host, &[]).status.success());
    world.write("other.toml", text.replace("~/ca.pem", "../home/ca.pem"));
    world.dockerfile(&format!("FROM {host}/base\n"));
    let other = world.kiln(&["build", "--pull", "ctx"]);
    other.env("KILN_CONFIG", world.path("other.toml")).ok();
    succeeds(&build(world, &host, &["--config", "other.toml"]));

    // A mirror that is not to be trusted is left out.
    let strict = text.replace("ca = [\"~/ca.pem\"]", "");
    world.write("strict.toml", strict);
    let refused = build(world, &host, &["--config", "strict.toml"]);
    assert!(!refused.status.success());
}

fn config_file_is_wrong(world: &World) {
    world.dockerfile("FROM scratch\n");
    let mut text = String::new();
    for wrong in [
        "[registry.\"docker.io\"]\nmirror = [\"https://x\"]\n",
        "[registry.\"docker.io\"]\nmirrors = \"https://x\"\n",
        "[registry.\"r.example\"]\n  ca = [\"a\", 1]\n",
        "[registry.r]\nplain-http = true\ninsecure-skip-verify = true\n",
        "registry = [\n",
        "key = 1\n",
    ] {
        world.write("wrong.toml", wrong);
        let ran = world.kiln(&["build", "--config", "wrong.toml", "ctx"]);
        text.push_str(&ran.exits(3).whole());
    }
    let gone = world
        .kiln(&["build", "ctx"])
        .env("KILN_CONFIG", "gone.toml");
    text.push_str(&gone.exits(3).whole());
    for line in [
        &["--mirror", "docker.io"][..],
        &["--mirror", "docker.io=ftp://x"],
        &["--plain-http", "http://x"],
    ] {
        let line = [&["build"], line, &["ctx"]].concat();
        text.push_str(&world.kiln(&line).exits(2).whole());
    }
    world.snapshot(&text);
}

fn client_certificates(world: &World) {
    let authority = Authority::new();
    let registry = Registry::builder()
        .tls(&authority)
        .client_certificates(&authority)
        .start();
    let registry = with_base(registry);
    let host = registry.host();
    authority.write_pem(&world.path("ca.pem"));
    let trust = format!("[registry.\"{host}\"]\nca = [\"ca.pem\"]\n");
    world.write("config.toml", &trust);
    let without = build(world, &host, &["--config", "config.toml"]);
    assert!(!without.status.success());
    assert!(registry.log().is_empty());
    authority.write_client(&world.path("c.pem"), &world.path("k.pem"));
    world.write("config.toml", trust + "cert = \"c.pem\"\nkey = \"k.pem\"\n");
    succeeds(&build(world, &host, &["--config", "config.toml"]));

    // As podman and docker have them.
    let folder = format!("../home/.config/containers/certs.d/{host}");
    for (from, to) in [
        ("ca.pem", "ca.crt"),
        ("c.pem", "client.cert"),
        ("k.pem", "client.key"),
    ] {
        world.write(&format!("{folder}/{to}"), world.read(from));
    }
    succeeds(&build(world, &host, &[]));
}

fn not_verified(world: &World) {
    let registry = with_base(Registry::builder().tls(&Authority::new()).start());
    let host = registry.host();
    assert!(!build(world, &host, &[]).status.success());
    let text = format!("[registry.\"{host}\"]\ninsecure-skip-verify = true\n");
    world.write("config.toml", text);
    let ran = build(world, &host, &["--config", "config.toml"]);
    succeeds(&ran);
    let expected =
        "warning: certificates of `127.0.0.1:_____` are not verified, since config.toml:2 says so";
    let told = told(&ran, &host);
    assert!(told.contains(expected), "{told}");
}

fn flags_go_over_the_rest(world: &World) {
    let (good, origin) = (with_base(Registry::start()), Registry::start());
    let gone = Registry::start().url();
    let host = origin.host();
    let text = format!("[registry.\"{host}\"]\nmirrors = [\"{gone}\"]\nplain-http = false\n");
    world.write("../home/.config/kiln/config.toml", text);
    assert!(!build(world, &host, &[]).status.success());
    assert!(
        origin.log().is_empty(),
        "it is to be spoken to with TLS alone"
    );
    let mirror = format!("{host}={}", good.url());
    succeeds(&build(world, &host, &["--mirror", &mirror]));
    world.dockerfile(&format!("FROM {host}/base\n"));
    let variable = world.kiln(&["build", "--pull", "ctx"]);
    variable.env("KILN_REGISTRY_MIRROR", &mirror).ok();
    assert!(
        !build(world, &host, &["--plain-http", &host])
            .status
            .success()
    );
    assert!(!origin.log().is_empty());

    let authority = Authority::new();
    authority.write_pem(&world.path("ca.pem"));
    let tls = with_base(Registry::builder().tls(&authority).start());
    succeeds(&build(world, &tls.host(), &["--tls-ca", "ca.pem"]));
}

fn info_tells(world: &World) {
    world.write(
        "../home/.config/kiln/config.toml",
        "[registry.\"docker.io\"]\nmirrors = [\"https://mirror.example\"]\n\
         [registry.\"r.example:5000\"]\nca = [\"ca.pem\"]\ncert = \"c.pem\"\nkey = \"k.pem\"\n",
    );
    let shown = world
        .kiln(&["info", "--mirror", "ghcr.io=http://127.0.0.1:5000"])
        .env("KILN_INSECURE_REGISTRIES", "old.example")
        .env("SSL_CERT_FILE", "/company.pem")
        .run();
    let home = world.path("../home");
    let home = std::fs::canonicalize(home).unwrap();
    let lines = shown.stdout.lines().map(str::to_owned);
    let mine: Vec<String> = lines
        .skip_while(|line| !line.starts_with("configuration"))
        .map(|line| line.replace(&home.display().to_string(), "HOME"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    world.snapshot(&mine.join("\n"));
}
