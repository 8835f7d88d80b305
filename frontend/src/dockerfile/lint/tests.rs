//! One Dockerfile a rule: what it warns of and what it lets pass.

use super::*;
use kiln_ir::image::is_secret_name;

fn names(text: &str, config: &str) -> String {
    let parsed = super::super::parse(text);
    let config = CheckConfig::parse(config).unwrap();
    let left = filter(parsed.diagnostics, &config, &parsed.dockerfile);
    left.iter()
        .map(|diagnostic| diagnostic.code)
        .collect::<Vec<_>>()
        .join(" ")
}

#[track_caller]
fn check(text: &str, config: &str, expected: &str) {
    assert_eq!(names(text, config), expected, "{text:?} with {config:?}");
}

#[test]
fn filters() {
    let legacy = "FROM a\nENV k v\n";
    check(legacy, "", "LegacyKeyValueFormat");
    check(legacy, "skip=LegacyKeyValueFormat", "");
    check(legacy, "skip=all", "");
    check(legacy, "skip=Other, LegacyKeyValueFormat", "");
    check(legacy, "skip=Other", "LegacyKeyValueFormat");
    check(legacy, "error=true", "LegacyKeyValueFormat");
    check("FROM a\nENVV k v\n", "skip=all", "unknown-instruction");
}

#[test]
fn skips_by_comment() {
    check(
        "FROM a\n# check=skip=LegacyKeyValueFormat\nENV k v\n",
        "",
        "",
    );
    check("FROM a\n# check=skip=all\nENV k v\n", "", "");
    check(
        "FROM a\n# check=skip=Other\nENV k v\n",
        "",
        "LegacyKeyValueFormat",
    );
    check(
        "FROM a\n# check=skip=LegacyKeyValueFormat\n\nENV k v\n",
        "",
        "LegacyKeyValueFormat",
    );
    check(
        "FROM a\n# check=skip=LegacyKeyValueFormat\nENV k v\nENV k v\n",
        "",
        "LegacyKeyValueFormat",
    );
}

#[test]
fn experimental() {
    let text = "# not a description\nFROM a AS b\n\n# other\nARG x\n";
    check(text, "", "");
    check(
        text,
        "experimental=all",
        "InvalidDefinitionDescription InvalidDefinitionDescription",
    );
    let one = "experimental=InvalidDefinitionDescription";
    check("# b the best\nFROM a AS b\n# x is x\nARG x\n", one, "");
    check("# separate\n#\nFROM a AS b\n", one, "");
    check("# separate\n\nFROM a AS b\n", one, "");
    check("# syntax=x\nFROM a AS b\n", one, "");
    check("FROM a\n# check=skip=UndefinedVar\nARG x\n", one, "");
}

#[test]
fn settings() {
    let fails = |text: &str, expected: &str| {
        assert_eq!(
            CheckConfig::parse(text),
            Err(expected.to_owned()),
            "{text:?}"
        );
    };
    fails("skip", "invalid check option \"skip\"");
    fails("skip=a;;", "invalid check option \"\"");
    fails("other=a", "invalid check option \"other\"");
    fails(
        "error=maybe",
        "failed to parse check option \"error=maybe\"",
    );
    let config = CheckConfig::parse(" skip = A , B ; error = 1 ; experimental = all ").unwrap();
    assert!(config.error && config.experimental.all);
    assert_eq!(config.skip.names.len(), 2);
}

#[test]
fn pages() {
    let page = |rule: Rule| rule.url().unwrap_or_default();
    assert!(page(Rule::StageNameCasing).ends_with("/rule/stage-name-casing/"));
    assert!(page(Rule::JSONArgsRecommended).ends_with("/rule/json-args-recommended/"));
    assert!(page(Rule::SecretsUsedInArgOrEnv).ends_with("/rule/secrets-used-in-arg-or-env/"));
    assert_eq!(Rule::InvalidBaseImagePlatform.url(), None);
    for rule in Rule::ALL {
        assert_eq!(Rule::named(rule.name()), Some(rule));
        assert!(!rule.description().is_empty());
    }
}

#[test]
fn secret_names() {
    let secret = |name| assert!(is_secret_name(name), "{name}");
    let plain = |name| assert!(!is_secret_name(name), "{name}");
    secret("TOKEN");
    secret("GITHUB_TOKEN");
    secret("api_key");
    secret("APIKEY");
    secret("DB_PASSWORD_DEV");
    plain("KEYBOARD");
    plain("PUBLIC_KEY");
    plain("PASSWORD_FILE");
    plain("TOKEN_VERSION");
    plain("MONKEY");
    plain("");
}

#[test]
fn ports() {
    let check = |port: &str, expected: &str| {
        let found = port_warning(port);
        let names: Vec<_> = found.iter().map(|(rule, _)| rule.name()).collect();
        assert_eq!(names.join(" "), expected, "{port}");
    };
    check("80", "");
    check("80/tcp", "");
    check("80-90/udp", "");
    check("80/TCP", "ExposeProtoCasing");
    check("80:80", "ExposeInvalidFormat");
    check(
        "127.0.0.1:80:80/Udp",
        "ExposeProtoCasing ExposeInvalidFormat",
    );
}
