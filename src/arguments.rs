//! What a build was asked for, as arguments of the command, without anything that is secret.

use kiln_executor::{Engine, Export};
use kiln_frontend::lower::NoCache;
use kiln_ir::{NetworkMode, ResolveMode};

use crate::{BuildRequest, ContextRequest, ProvenanceMode};

/// Build arguments whose values may hold credentials: those of proxies.
const PROXIES: [&str; 5] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
];

/// Lists what was asked for beyond the context and the Dockerfile.
///
/// Of secrets and ssh agents the ids are told, of addresses all but who asks there.
pub(crate) fn arguments(request: &BuildRequest) -> Vec<String> {
    let source = &request.source;
    let mut words = Vec::new();
    let mut say = |flag: &str, value: &str| match value {
        "" => words.push(flag.to_owned()),
        value => words.push(format!("{flag}={value}")),
    };
    if request.plan.is_some() {
        say("--plan", "");
    }
    if let Some(target) = &source.target {
        say("--target", target);
    }
    for (name, value) in &source.build_args {
        match value {
            Some(value) if !is_proxy(name) => {
                let value = without_any_credentials(value);
                say("--build-arg", &format!("{name}={value}"));
            }
            _ => say("--build-arg", name),
        }
    }
    for (name, context) in &source.contexts {
        let value = match context {
            ContextRequest::Directory(path) => path.display().to_string(),
            ContextRequest::Image(reference) => format!("docker-image://{reference}"),
            ContextRequest::Url(url) => without_credentials(url),
            ContextRequest::OciLayout { path, .. } => format!("oci-layout://{}", path.display()),
        };
        say("--build-context", &format!("{name}={value}"));
    }
    for platform in &source.platforms {
        say("--platform", &platform.to_string());
    }
    for (name, value) in &source.labels {
        say(
            "--label",
            &format!("{name}={}", without_any_credentials(value)),
        );
    }
    match source.network {
        NetworkMode::Default => {}
        NetworkMode::Host => say("--network", "host"),
        NetworkMode::None => say("--network", "none"),
    }
    for host in &source.add_hosts {
        say("--add-host", &host.host);
    }
    for limit in &source.ulimits {
        let value = format!("{}={}:{}", limit.name, limit.soft, limit.hard);
        say("--ulimit", &value);
    }
    if let Some(bytes) = source.shm_size_bytes {
        say("--shm-size", &bytes.to_string());
    }
    match &source.no_cache {
        NoCache::No => {}
        NoCache::All => say("--no-cache", ""),
        NoCache::Stages(stages) => stages
            .iter()
            .for_each(|stage| say("--no-cache-filter", stage)),
    }
    if source.resolve_mode == ResolveMode::Pull {
        say("--pull", "");
    }
    for id in request.secrets.values.keys() {
        say("--secret", &format!("id={id}"));
    }
    for id in request.secrets.agents.keys() {
        say("--ssh", id);
    }
    for entitlement in &request.allow {
        say("--allow", &entitlement.to_string());
    }
    if let Some(jobs) = request.jobs {
        say("--jobs", &jobs.to_string());
    }
    if request.keep_going {
        say("--keep-going", "");
    }
    for place in &request.mounts_from {
        say("--mounts-from", &place.to_string());
    }
    for place in &request.mounts_to {
        say("--mounts-to", &place.to_string());
    }
    match request
        .attestations
        .provenance
        .as_ref()
        .map(|asked| asked.mode)
    {
        None => {}
        Some(ProvenanceMode::Min) => say("--provenance", "mode=min"),
        Some(ProvenanceMode::Max) => say("--provenance", "mode=max"),
    }
    if request.attestations.sbom {
        say("--sbom", "true");
    }
    for source in &request.cache_from {
        say("--cache-from", &source.place.to_string());
    }
    for target in &request.cache_to {
        say("--cache-to", &target.place.to_string());
    }
    if request.inline_cache {
        say("--cache-to", "type=inline");
    }
    for export in &request.exports {
        if let Export::Engine { engine: None, .. } = export {
            say("--load", "");
            continue;
        }
        say("--output", &format!("type={}", kind(export)));
    }
    words
}

/// Whether a build argument may hold credentials.
pub(crate) fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name.to_lowercase().as_str())
}

fn kind(export: &Export) -> &'static str {
    match export {
        Export::Image { .. } => "image",
        Export::Registry { .. } => "registry",
        Export::OciArchive { .. } | Export::OciDirectory { .. } => "oci",
        Export::DockerArchive { .. } => "docker",
        Export::Local { .. } => "local",
        Export::Tar { .. } => "tar",
        Export::Engine { engine, .. } => engine.map_or("docker", Engine::name),
        Export::CacheOnly => "cacheonly",
    }
}

/// An address without the user and the password in it.
pub(crate) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.to_owned(),
    }
}

/// A text without the users and passwords of the addresses in it.
pub(crate) fn without_any_credentials(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(mark) = rest.find("://") {
        let (before, after) = rest.split_at(mark + 3);
        kept.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '\\'))
            .unwrap_or(after.len());
        let start = after[..end].rfind('@').map_or(0, |sign| sign + 1);
        rest = &after[start..];
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_any_text() {
        for (text, kept) in [
            ("curl https://me:pw@x.org/a", "curl https://x.org/a"),
            (
                "a ftp://me@x:21 'http://b@c' d@e",
                "a ftp://x:21 'http://c' d@e",
            ),
            (
                "https://x.org/a@b https://p@w@x",
                "https://x.org/a@b https://x",
            ),
            (
                "{\"a\":\"https://t@x\",\"b\":\"c@d\"}",
                "{\"a\":\"https://x\",\"b\":\"c@d\"}",
            ),
            ("git@x.org:a.git ://", "git@x.org:a.git ://"),
        ] {
            assert_eq!(without_any_credentials(text), kept);
        }
    }

    #[test]
    fn credentials_are_left_out() {
        let mut request = BuildRequest::default();
        let arg = |value: &str| Some(value.to_owned());
        let args = [
            ("HTTPS_PROXY", arg("http://me:secret@proxy")),
            ("INDEX", arg("https://me:secret@x.org/simple")),
            ("LEVEL", arg("2")),
            ("UNSET", None),
        ];
        request.source.build_args = args.map(|(name, value)| (name.to_owned(), value)).into();
        let url = ContextRequest::Url("https://me:token@x.org/a.git#main".to_owned());
        request.source.contexts.insert("a".to_owned(), url);
        assert_eq!(
            arguments(&request),
            [
                "--build-arg=HTTPS_PROXY",
                "--build-arg=INDEX=https://x.org/simple",
                "--build-arg=LEVEL=2",
                "--build-arg=UNSET",
                "--build-context=a=https://x.org/a.git#main",
            ]
        );
    }
}
