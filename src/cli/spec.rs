//! The small languages of flag values: `nofile=1024:2048`, `10GB`, `7d`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kiln::{ContextRequest, Engine, Frontend, HostIp, NetworkMode, Platform, Ulimit};

/// A flag value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpecError {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

pub(crate) type Result<T> = std::result::Result<T, SpecError>;

pub(crate) fn refuse<T>(message: impl Into<String>, hint: &str) -> Result<T> {
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    Err(SpecError {
        message: message.into(),
        hint,
    })
}

/// `NAME=VALUE`, or `NAME` with what the caller's environment has.
pub(crate) fn build_args(specs: &[String]) -> BTreeMap<String, Option<String>> {
    specs
        .iter()
        .map(|spec| match spec.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (spec.clone(), std::env::var(spec).ok()),
        })
        .collect()
}

/// `KEY=VALUE`; a key alone has an empty value.
pub(crate) fn labels(specs: &[String]) -> BTreeMap<String, String> {
    specs
        .iter()
        .map(|spec| spec.split_once('=').unwrap_or((spec, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// `NAME=DIR`, `NAME=docker-image://REF` or `NAME=oci-layout://DIR[:TAG|@DIGEST]`.
pub(crate) fn context(spec: &str) -> Result<(String, ContextRequest)> {
    let Some((name, value)) = spec.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return refuse(
            format!("`--build-context {spec}` is not NAME=VALUE"),
            "as in --build-context assets=../assets",
        );
    };
    let request = match value.split_once("://") {
        Some(("docker-image", reference)) => ContextRequest::Image(reference.to_owned()),
        Some(("oci-layout", place)) => oci_layout(place),
        _ if value.starts_with("target:") => {
            return refuse(
                format!("`--build-context {spec}`: other targets are contexts in bake files only"),
                "build the target first, and give its image or its files as the context",
            );
        }
        _ if is_remote(value) => ContextRequest::Url(value.to_owned()),
        None => ContextRequest::Directory(PathBuf::from(value)),
        Some((scheme, _)) => {
            return refuse(
                format!("`--build-context {spec}`: there are no contexts from `{scheme}://`"),
                "a directory, docker-image://REF, oci-layout://DIR, a git repository or a URL works",
            );
        }
    };
    Ok((name.to_owned(), request))
}

/// Whether a context is somewhere else: a git repository or a file over http.
pub(crate) fn is_remote(text: &str) -> bool {
    let schemes = ["http://", "https://", "git://", "ssh://"];
    let is_scp_like = |text: &str| {
        let account = text
            .split('/')
            .next()
            .and_then(|first| first.split_once(':'));
        account.is_some_and(|(account, _)| account.contains('@'))
    };
    schemes.iter().any(|scheme| text.starts_with(scheme))
        || text.starts_with("github.com/")
        || is_scp_like(text)
}

fn oci_layout(place: &str) -> ContextRequest {
    let (path, reference) = match place.rsplit_once('@') {
        Some((path, digest)) => (path, Some(digest.to_owned())),
        None => match place.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (place, None),
        },
    };
    ContextRequest::OciLayout {
        path: PathBuf::from(path),
        reference,
    }
}

/// `PROGRAM`, or `image:REF`; `exec:PROGRAM` says the first as build files do.
pub(crate) fn frontend(spec: &str) -> Result<Frontend> {
    let hint = "as in --frontend ./frontend.py or --frontend image:registry/name:tag";
    match (
        spec.strip_prefix("image:"),
        spec.strip_prefix("exec:").unwrap_or(spec),
    ) {
        (Some(""), _) | (_, "") => refuse(format!("`--frontend {spec}` names nothing"), hint),
        (Some(image), _) => Ok(Frontend::Image(image.to_owned())),
        (None, program) => Ok(Frontend::Program(PathBuf::from(program))),
    }
}

/// `OS/ARCH[/VARIANT]`, several with commas; `local` is this host's.
pub(crate) fn platforms(specs: &[String]) -> Result<Vec<Platform>> {
    platforms_of("--platform", specs, "linux/amd64,linux/arm64")
}

fn platforms_of(flag: &str, specs: &[String], example: &str) -> Result<Vec<Platform>> {
    let mut platforms = Vec::new();
    // An empty variable of the environment is as good as none.
    for spec in specs.iter().filter(|spec| !spec.is_empty()) {
        for text in spec.split(',').map(str::trim) {
            let platform = match text {
                "local" => kiln::host_platform(),
                text => Platform::parse(text).or_else(|error| {
                    refuse(
                        format!("`{flag} {spec}`: {error}"),
                        &format!("as in {flag} {example}"),
                    )
                })?,
            };
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
    }
    Ok(platforms)
}

/// One of [`platforms`], as the value of a flag.
pub(crate) fn platform(flag: &str, spec: Option<&str>) -> Result<Option<Platform>> {
    let Some(spec) = spec else { return Ok(None) };
    let example = "linux/arm64";
    match platforms_of(flag, &[spec.to_owned()], example)?.as_slice() {
        [] => Ok(None),
        [platform] => Ok(Some(platform.clone())),
        _ => refuse(
            format!("`{flag} {spec}`: several are given, and one is needed"),
            &format!("as in {flag} {example}"),
        ),
    }
}

/// `HOST:IP` or `HOST=IP`.
pub(crate) fn add_host(spec: &str) -> Result<HostIp> {
    let pair = spec.split_once('=').or_else(|| spec.split_once(':'));
    let address = pair.and_then(|(host, ip)| {
        let ip = ip.trim_start_matches('[').trim_end_matches(']');
        ip.parse::<std::net::IpAddr>()
            .ok()
            .filter(|_| !host.is_empty())
            .map(|ip| (host, ip))
    });
    match address {
        Some((host, ip)) => Ok(HostIp {
            host: host.to_owned(),
            ip: ip.to_string(),
        }),
        None => refuse(
            format!("`--add-host {spec}` is not HOST:IP"),
            "as in --add-host db:10.0.0.7",
        ),
    }
}

/// `NAME=SOFT[:HARD]`; -1 is unlimited.
pub(crate) fn ulimit(spec: &str) -> Result<Ulimit> {
    let parsed = spec.split_once('=').and_then(|(name, limits)| {
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let ulimit = Ulimit {
            name: name.to_lowercase(),
            soft: soft.parse().ok()?,
            hard: hard.parse().ok()?,
        };
        (!name.is_empty() && (ulimit.hard == -1 || ulimit.soft <= ulimit.hard)).then_some(ulimit)
    });
    parsed.map_or_else(
        || {
            refuse(
                format!("`--ulimit {spec}` is not NAME=SOFT[:HARD]"),
                "as in --ulimit nofile=1024:4096",
            )
        },
        Ok,
    )
}

/// The network of steps, or of a program.
pub(crate) fn network(mode: &str) -> Result<NetworkMode> {
    match mode {
        "default" | "sandbox" | "bridge" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => refuse(
            format!("there is no network `{other}`"),
            "default, none and host are there",
        ),
    }
}

/// A number of bytes: `512`, `64m`, `10GB`, `1.5GiB`; powers of 1024, as docker has them.
pub(crate) fn size_bytes(text: &str) -> Result<u64> {
    let lower = text.trim().to_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return refuse(format!("`{text}` is not a size"), "as in 64m or 10GB"),
    };
    match number.parse::<f64>() {
        Ok(number) if number >= 0.0 && number * (factor as f64) < 9e18 => {
            Ok((number * factor as f64) as u64)
        }
        _ => refuse(format!("`{text}` is not a size"), "as in 64m or 10GB"),
    }
}

/// A length of time: `90s`, `30m`, `24h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => {
            return refuse(
                format!("`{text}` is not a duration"),
                "as in 30m, 24h or 7d",
            );
        }
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
    {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => refuse(
            format!("`{text}` is not a duration"),
            "as in 30m, 24h or 7d",
        ),
    }
}

/// `NAME,..`, or `none`; `from` is where it was said.
pub(crate) fn engines(from: &str, text: &str) -> Result<Vec<Engine>> {
    let mut engines = Vec::new();
    if text == "none" {
        return Ok(engines);
    }
    for name in text.split(',') {
        let Ok(engine) = name.trim().parse() else {
            return refuse(
                format!("`{from}={text}`: there is no engine `{name}`"),
                "docker, podman and containerd are there, or none",
            );
        };
        if !engines.contains(&engine) {
            engines.push(engine);
        }
    }
    Ok(engines)
}

/// Splits at commas outside double quotes, which are removed, as CSV has it.
pub(crate) fn split_csv(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields
                .last_mut()
                .into_iter()
                .for_each(|field| field.push(c)),
        }
    }
    fields
}

/// A value as errors may show it: no field that is a secret has its value, nor what follows one without a key.
pub(crate) fn shown(spec: &str) -> String {
    shown_but(spec, |key| {
        ["secret", "token", "password"]
            .iter()
            .any(|word| key.contains(word))
    })
}

/// Like [`shown`], with keys that are secrets where `is_secret` says so of their small letters.
pub(crate) fn shown_but(spec: &str, is_secret: impl Fn(&str) -> bool) -> String {
    let mut hides = false;
    let (mut parts, mut any) = (Vec::new(), false);
    for field in split_csv(spec) {
        let key = field.split_once('=').map(|(key, _)| key);
        // A comma in a secret begins a field without a key; where that is a secret by itself, so is `is_secret("")`.
        hides = key.map_or(hides || is_secret(""), |key| {
            is_secret(&key.trim().to_lowercase())
        });
        any |= hides;
        parts.push(match (hides, key) {
            (false, _) => field,
            (true, Some(key)) => format!("{key}=***"),
            (true, None) => "***".to_owned(),
        });
    }
    match any {
        true => parts.join(","),
        false => spec.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown("type=s3,\"a=b,c\""), "type=s3,\"a=b,c\"");
        assert_eq!(
            shown("type=s3,Secret_Access_Key=ab,cd=,session_token=ef,mode=max"),
            "type=s3,Secret_Access_Key=***,cd=,session_token=***,mode=max"
        );
        assert_eq!(
            shown("secret_access_key=ab,cd,x=1"),
            "secret_access_key=***,***,x=1"
        );
    }

    #[test]
    fn many_platforms() {
        let check = |specs: &[&str], expected: &[&str]| {
            let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
            let found = platforms(&specs).unwrap();
            let found: Vec<String> = found.iter().map(Platform::to_string).collect();
            assert_eq!(found, expected, "{specs:?}");
        };
        check(&[""], &[]);
        check(
            &["linux/amd64,linux/arm64"],
            &["linux/amd64", "linux/arm64"],
        );
        check(
            &["linux/arm64/v8", "linux/aarch64, linux/arm"],
            &["linux/arm64", "linux/arm/v7"],
        );
        check(&["local"], &[&kiln::host_platform().to_string()]);
        for wrong in ["linux/amd64,", "vax", "a/b/c/d", "linux/am d64"] {
            assert!(platforms(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(size_bytes("64m"), Ok(64 << 20));
        assert_eq!(size_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(size_bytes("512"), Ok(512));
        assert!(size_bytes("lots").is_err());
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        assert!(duration("7").is_err() && duration("").is_err() && duration("é").is_err());
    }

    #[test]
    fn hosts_and_limits() {
        assert_eq!(add_host("db:10.0.0.7").unwrap().ip, "10.0.0.7");
        assert_eq!(add_host("db=[::1]").unwrap().ip, "::1");
        assert!(add_host("db").is_err() && add_host("db:name").is_err());
        assert_eq!(ulimit("nofile=5:9").unwrap().hard, 9);
        assert!(ulimit("nofile=9:5").is_err() && ulimit("nofile").is_err());
    }

    #[test]
    fn engine_lists() {
        let read = |text: &str| engines("--engines", text);
        assert_eq!(read("none"), Ok(Vec::new()));
        let two = vec![Engine::Podman, Engine::Docker];
        assert_eq!(read("podman, docker,podman"), Ok(two));
        assert!(read("").is_err() && read("none,docker").is_err());
    }

    #[test]
    fn frontends() {
        let program = |path: &str| Ok(Frontend::Program(path.into()));
        assert_eq!(frontend("./x"), program("./x"));
        assert_eq!(frontend("exec:x"), program("x"));
        let image = Frontend::Image("me/app:1".to_owned());
        assert_eq!(frontend("image:me/app:1"), Ok(image));
        assert!(frontend("").is_err() && frontend("image:").is_err() && frontend("exec:").is_err());
    }

    #[test]
    fn contexts() {
        let check = |spec: &str, expected| assert_eq!(context(spec).unwrap().1, expected, "{spec}");
        check("a=../a", ContextRequest::Directory("../a".into()));
        check(
            "a=docker-image://alpine:3",
            ContextRequest::Image("alpine:3".into()),
        );
        let layout = |path: &str, reference: Option<&str>| ContextRequest::OciLayout {
            path: path.into(),
            reference: reference.map(str::to_owned),
        };
        check("a=oci-layout:///x/y:v1", layout("/x/y", Some("v1")));
        check("a=oci-layout://x", layout("x", None));
        for url in [
            "https://x/y.tar",
            "git@x.org:me/a.git#v1",
            "github.com/me/a",
        ] {
            check(&format!("a={url}"), ContextRequest::Url(url.to_owned()));
        }
        check("a=dir:x@y", ContextRequest::Directory("dir:x@y".into()));
        assert!(context("x").is_err() && context("a=ftp://x").is_err());
        assert!(context("a=target:b").is_err());
    }
}
