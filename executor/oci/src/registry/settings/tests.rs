//! The configuration file, variables and flags: what is read, what is refused, what goes over what.

use std::fs;

use super::*;

fn read(overrides: &Overrides, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let lookup = |name: &str| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.into())
    };
    Settings::from_lookup(overrides, lookup).map_err(|error| error.to_string())
}

fn variables(variables: &[(&str, &str)]) -> Settings {
    // An own file, so that none of this host's is read.
    let variables = [variables, &[("KILN_CONFIG", "/dev/null")]].concat();
    read(&Overrides::default(), &variables).unwrap()
}

fn parse(text: &str) -> Result<BTreeMap<String, HostSettings>, ConfigError> {
    file::parse(text, Path::new("/etc/x.toml"), Some(Path::new("/home/ann")))
}

#[test]
fn lists_of_the_environment_are_split_at_commas() {
    let settings = variables(&[
        (
            "KILN_REGISTRY_MIRROR",
            "docker.io=https://a.example, docker.io=http://b:5000/x,ghcr.io=https://c/",
        ),
        ("KILN_INSECURE_REGISTRIES", "reg:5000, other,"),
        ("SSL_CERT_FILE", "/ca.pem"),
    ]);
    let config = settings.config();
    let mirrors: Vec<_> = config
        .mirrors
        .iter()
        .map(|mirror| format!("{} {}", mirror.registry, mirror.url))
        .collect();
    assert_eq!(
        mirrors,
        [
            "docker.io https://a.example/",
            "docker.io http://b:5000/x",
            "ghcr.io https://c/"
        ]
    );
    assert_eq!(
        config.insecure.into_iter().collect::<Vec<_>>(),
        ["other", "reg:5000"]
    );
    assert_eq!(config.extra_roots, [PathBuf::from("/ca.pem")]);
}

#[test]
fn an_empty_environment_is_good() {
    let config = variables(&[]).config();
    assert!(
        config.mirrors.is_empty() && config.insecure.is_empty() && config.extra_roots.is_empty()
    );
}

fn refuse_variable(name: &str, value: &str, message: &str) {
    let error = read(
        &Overrides::default(),
        &[(name, value), ("KILN_CONFIG", "/dev/null")],
    )
    .unwrap_err();
    assert!(error.contains(message) && error.contains(name), "{error}");
}

#[test]
fn malformed_entries_of_the_environment_are_named() {
    let mirror = "KILN_REGISTRY_MIRROR";
    refuse_variable(mirror, "docker.io", "`docker.io`");
    refuse_variable(mirror, "docker.io=", "`docker.io=`");
    refuse_variable(mirror, "docker.io=ftp://x", "must begin with https://");
    refuse_variable(mirror, "=https://x", "not a host name");
    refuse_variable(mirror, "a=https://u:p@x", "must not hold a password");
    refuse_variable("KILN_INSECURE_REGISTRIES", "http://x", "`http://x`");
    refuse_variable("KILN_INSECURE_REGISTRIES", "a b", "`a b`");
}

#[test]
fn a_file_says_it_all() {
    let hosts = parse(
        "[registry.\"docker.io\"]\nmirrors = [\"https://a\", \"http://b:1/x\"]\n\
         [registry.\"r.example:5000\"]\nca = [\"ca.pem\", \"~/x.pem\", \"/y.pem\"]\n\
         cert = \"c.pem\"\nkey = \"k.pem\"\nplain-http = false\ninsecure-skip-verify = true\n",
    )
    .unwrap();
    let lines = |host: &str| hosts[host].lines().join("\n");
    assert_eq!(
        lines("docker.io"),
        "mirrors https://a/, http://b:1/x (/etc/x.toml:2)"
    );
    assert_eq!(
        lines("r.example:5000"),
        "plain-http false (/etc/x.toml:7)\n\
         ca /etc/ca.pem, /home/ann/x.pem, /y.pem (/etc/x.toml:4)\n\
         cert /etc/c.pem (/etc/x.toml:5)\n\
         insecure-skip-verify true (/etc/x.toml:8)"
    );
    let client = hosts["r.example:5000"].client.as_ref().unwrap();
    assert_eq!(client.value.key, PathBuf::from("/etc/k.pem"));
}

#[test]
fn the_hub_has_one_name() {
    let hosts = parse("[registry.\"index.docker.io\"]\nmirrors = []\n").unwrap();
    assert_eq!(hosts.keys().collect::<Vec<_>>(), ["docker.io"]);
    let twice = "[registry.\"index.docker.io\"]\n[registry.\"docker.io\"]\n";
    let error = parse(twice).unwrap_err().to_string();
    assert!(error.contains("the same registry"), "{error}");
}

fn refuse(text: &str, place: &str, message: &str) {
    let error = parse(text).unwrap_err().to_string();
    let expected =
        format!("could not use the configuration file `/etc/x.toml`, {place}: {message}");
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn what_is_not_known_is_named_with_its_place() {
    refuse(
        "[registry.x]\nmirror = []\n",
        "line 2, column 1",
        "there is no key `mirror`; did you mean `mirrors`?",
    );
    refuse(
        "[registry.x]\nplain_http = true",
        "line 2, column 1",
        "there is no key `plain_http`; did you mean `plain-http`?",
    );
    refuse(
        "[registry.x]\nwhatever = 1",
        "line 2, column 1",
        "there is no key `whatever`; what is known here is `mirrors`, ",
    );
    refuse(
        "[registries.x]\n",
        "line 1, column 2",
        "there is no key `registries`; did you mean `registry`?",
    );
    refuse(
        "\"é\" = 1",
        "line 1, column 1",
        "there is no key `é`; what is known here is `registry`",
    );
}

#[test]
fn what_is_of_another_type_is_named_with_its_place() {
    refuse(
        "[registry.x]\nmirrors = \"https://x\"\n",
        "line 2, column 11",
        "`mirrors` must be a list of strings, and is a string",
    );
    refuse(
        "[registry.x]\nmirrors = [\"https://x\",\n  1]\n",
        "line 3, column 3",
        "`mirrors` must be a list of strings, and is a number",
    );
    refuse(
        "[registry.x]\nplain-http = \"yes\"",
        "line 2, column 14",
        "`plain-http` must be true or false, and is a string",
    );
    refuse(
        "registry = 1",
        "line 1, column 12",
        "`registry` must be a table, and is a number",
    );
    refuse(
        "[registry]\nx = []",
        "line 2, column 5",
        "`x` must be a table, and is a list",
    );
    refuse(
        "[registry.x]\ncert = \"\"\nkey = \"k\"",
        "line 2, column 8",
        "`cert` names no file",
    );
}

#[test]
fn what_means_nothing_is_refused() {
    refuse(
        "[registry.x]\nmirrors = [\"x\"]",
        "line 2, column 12",
        "`x` is no mirror: ",
    );
    refuse(
        "[registry.\"http://x\"]\n",
        "line 1, column 11",
        "`http://x` is not a `host` or `host:port`",
    );
    refuse(
        "[registry.x]\ncert = \"c\"",
        "line 2, column 1",
        "`cert` needs a `key` beside it",
    );
    refuse(
        "[registry.x]\nkey = \"c\"",
        "line 2, column 1",
        "`key` needs a `cert` beside it",
    );
    refuse(
        "[registry.x]\nplain-http = true\nca = [\"c\"]",
        "line 3, column 1",
        "`ca` means nothing beside `plain-http = true`",
    );
    refuse("[registry.x\n", "line 1, column 12", "");
    refuse("a = 1\na = 2", "line 2, column 1", "");
}

#[test]
fn the_users_file_goes_over_the_hosts_key_by_key() {
    let over = |first: &str, second: &str| {
        let mut hosts = parse(first).unwrap();
        for (host, said) in parse(second).unwrap() {
            hosts.entry(host).or_default().take(said);
        }
        hosts["x"].lines().join("; ")
    };
    let shown = over(
        "[registry.x]\nmirrors = [\"https://a\"]\nca = [\"/ca\"]\n",
        "[registry.x]\nmirrors = []\n",
    );
    assert_eq!(
        shown,
        "mirrors none (/etc/x.toml:2); ca /ca (/etc/x.toml:3)"
    );
}

#[test]
fn flags_go_over_variables_and_those_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    fs::write(
        &path,
        "[registry.a]\nmirrors = [\"https://file\"]\n[registry.b]\nmirrors = [\"https://file\"]\n\
         plain-http = false\n[registry.c]\nmirrors = [\"https://file\"]\n",
    )
    .unwrap();
    let variables = [
        ("KILN_CONFIG", "/nonexistent"),
        (
            "KILN_REGISTRY_MIRROR",
            "a=https://variable,b=https://variable",
        ),
        ("SSL_CERT_FILE", "/one"),
    ];
    let overrides = Overrides {
        config: Some(path.clone()),
        mirrors: vec!["a=https://flag".to_owned()],
        plain_http: vec!["b".to_owned()],
        authorities: vec!["/two".into()],
    };
    let settings = read(&overrides, &variables).unwrap();
    let lines: Vec<_> = settings
        .lines()
        .into_iter()
        .map(|(name, line)| format!("{name}: {line}"))
        .collect();
    let expected = [
        "configuration: FILE",
        "credentials: none: neither DOCKER_CONFIG nor HOME is set",
        "authority: /one (SSL_CERT_FILE)",
        "authority: /two (--tls-ca)",
        "registry a: mirrors https://flag/ (--mirror)",
        "registry b: mirrors https://variable/ (KILN_REGISTRY_MIRROR)",
        "registry b: plain-http true (--plain-http)",
        "registry c: mirrors https://file/ (FILE:7)",
    ];
    let shown = lines
        .join("\n")
        .replace(&path.display().to_string(), "FILE");
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let error = read(&Overrides::default(), &[("KILN_CONFIG", "/nonexistent")]).unwrap_err();
    assert!(error.contains("`/nonexistent`"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let settings = read(&Overrides::default(), &[("HOME", home)]).unwrap();
    assert!(settings.files.iter().all(|file| !file.starts_with(home)));
}

#[test]
fn the_users_own_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    for (variable, place) in [("HOME", ".config/kiln"), ("XDG_CONFIG_HOME", "kiln")] {
        let place = folder.path().join(place);
        fs::create_dir_all(&place).unwrap();
        fs::write(
            place.join("config.toml"),
            "[registry.\"own.example\"]\nplain-http = true\n",
        )
        .unwrap();
        let settings = read(&Overrides::default(), &[(variable, home)]).unwrap();
        assert_eq!(settings.files.last(), Some(&place.join("config.toml")));
        assert!(settings.config().insecure.contains("own.example"));
    }
}

/// docs/configuration.md
const PAGE: &str = include_str!("../../../../../docs/configuration.md");

#[test]
fn the_page_has_each_key_and_its_example_is_good() {
    let examples: Vec<_> = PAGE.split("```toml\n").skip(1).collect();
    assert_eq!(examples.len(), 1);
    let example = examples[0].split("```").next().unwrap();
    let hosts = parse(example).unwrap();
    assert_eq!(hosts.len(), 4);
    let said: Vec<_> = hosts.values().flat_map(HostSettings::lines).collect();
    for key in file::KEYS {
        assert!(PAGE.contains(&format!("`{key}`")), "{key} has no row");
        let shown = key == "key" || said.iter().any(|line| line.starts_with(key));
        assert!(shown && example.contains(key), "{key} is in no example");
    }
}
