//! What the options and the build arguments that the language itself knows come to.

use std::collections::BTreeMap;

use kiln_ir::ProxyEnv;

use super::input::LowerInput;
use super::round::Step;
use crate::diagnostic::Diagnostic;
use crate::dockerfile::span::Span;

/// Build arguments that need no declaration, because the builder reads them.
const BUILT_IN: &[&str] = &[
    "BUILDKIT_ATTEST_PROVENANCE",
    "BUILDKIT_ATTEST_SBOM",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DISABLE_FILEOP",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SYNTAX",
    "SOURCE_DATE_EPOCH",
];

const PROXIES: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
];

/// The build argument that sets the one time of everything made.
pub(super) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The options of one lowering, settled.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// The build arguments that have a value.
    pub(super) build_args: BTreeMap<String, String>,
    /// Proxies for RUN, where any is set.
    pub(super) proxy: Option<ProxyEnv>,
    /// Host name of RUN.
    pub(super) hostname: String,
    /// What the ids of cache mounts begin with.
    pub(super) cache_mount_ns: String,
    /// Results are keyed by platform.
    pub(super) multi_platform: bool,
}

impl Settings {
    /// Settles the options; an error belongs to the whole build.
    pub(super) fn new(input: &LowerInput) -> Step<Settings> {
        let mut build_args: BTreeMap<String, String> = input
            .build_args
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
            .collect();
        if let Some(seconds) = input.source_date_epoch {
            build_args
                .entry(EPOCH.to_owned())
                .or_insert_with(|| seconds.to_string());
        }
        if let Some(value) = build_args.get("BUILDKIT_DISABLE_FILEOP")
            && boolean("BUILDKIT_DISABLE_FILEOP", value)?
        {
            return Err(invalid(
                "build argument `BUILDKIT_DISABLE_FILEOP` is not supported: files are always copied without a helper image",
            ));
        }
        // Whoever exports the image reads it.
        if let Some(value) = build_args.get("BUILDKIT_INLINE_CACHE") {
            boolean("BUILDKIT_INLINE_CACHE", value)?;
        }
        let multi_platform = match build_args.get("BUILDKIT_MULTI_PLATFORM") {
            Some(value) => boolean("BUILDKIT_MULTI_PLATFORM", value)?,
            None => input.multi_platform,
        };
        let or_option =
            |name: &str, option: &String| build_args.get(name).unwrap_or(option).clone();
        Ok(Settings {
            proxy: proxy(input, &build_args),
            hostname: or_option("BUILDKIT_SANDBOX_HOSTNAME", &input.hostname),
            cache_mount_ns: or_option("BUILDKIT_CACHE_MOUNT_NS", &input.cache_mount_ns),
            multi_platform,
            build_args,
        })
    }
}

/// Says whether a build argument has a meaning without being declared.
pub(super) fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name) || PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
}

fn proxy(input: &LowerInput, build_args: &BTreeMap<String, String>) -> Option<ProxyEnv> {
    let mut proxy = input.proxy.clone();
    for (name, value) in build_args {
        let field = match name.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxy.http,
            "https_proxy" => &mut proxy.https,
            "ftp_proxy" => &mut proxy.ftp,
            "no_proxy" => &mut proxy.no,
            "all_proxy" => &mut proxy.all,
            _ => continue,
        };
        field.clone_from(value);
    }
    (proxy != ProxyEnv::default()).then_some(proxy)
}

fn boolean(name: &str, value: &str) -> Step<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(invalid(&format!(
            "build argument `{name}` is `{value}`, but must be true or false"
        ))),
    }
}

fn invalid(message: &str) -> Box<Diagnostic> {
    let error = Diagnostic::error("invalid-build-arg", Span::default(), message);
    Box::new(error)
}
