//! What can go wrong with a registry, each with a way out.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use super::credentials::CredentialsError;
use crate::digest::VerifyError;
use crate::document::DocumentError;

/// What was being done when something went wrong, for which image and at which host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The deed: `resolve`, `fetch the manifest of`, `fetch blob sha256:.. of`, `push ..`.
    pub action: Box<str>,
    /// The image, in its short form.
    pub image: Box<str>,
    /// The host and port that was asked; a mirror's if it was one.
    pub host: Box<str>,
    /// What it is about.
    pub about: About,
    /// The mirrors that were asked before.
    pub mirrors: Option<Box<InVain>>,
}

/// Mirrors that were asked in vain, each with why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InVain(pub String);

/// What an attempt is about: what helps where it fails depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum About {
    /// Something that people have named.
    #[default]
    Name,
    /// A blob that a manifest of the registry lists.
    ListedBlob,
    /// Something that is sent.
    Sending,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {} `{}` at `{}`",
            self.action, self.image, self.host
        )?;
        match &self.mirrors {
            Some(mirrors) => write!(f, ", after its mirrors {}", mirrors.0),
            None => Ok(()),
        }
    }
}

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry wants to know who asks, or does not believe it.
    #[error("{attempt}: not authorised{}; {}", detail(.message), login(.had_credentials, &.attempt.host))]
    Unauthorized {
        /// What was attempted.
        attempt: Attempt,
        /// Whether credentials were sent.
        had_credentials: bool,
        /// The registry's words, if any.
        message: String,
    },
    /// The registry does not know an account, or not by this password.
    #[error("{attempt}: the registry refuses it{}; check the user name and the password", detail(.message))]
    Login {
        /// What was attempted.
        attempt: Attempt,
        /// The registry's words, if any.
        message: String,
    },
    /// The registry knows who asks and refuses.
    #[error("{attempt}: access denied{}; check the name and that the account may use this repository", detail(.message))]
    Denied {
        /// What was attempted.
        attempt: Attempt,
        /// The registry's words, if any.
        message: String,
    },
    /// There is no such repository, tag, manifest or blob.
    #[error("{attempt}: not found{}; {}", detail(.message), lacking(.attempt))]
    NotFound {
        /// What was attempted.
        attempt: Attempt,
        /// The registry's words, if any.
        message: String,
    },
    /// The registry asks for patience, for longer than kiln waits.
    #[error("{attempt}: too many requests{}{}; {}", detail(.message), asked(.retry_after), patience(.attempt))]
    RateLimited {
        /// What was attempted.
        attempt: Attempt,
        /// How long it asks to wait, if it says so.
        retry_after: Option<Duration>,
        /// The registry's words, if any.
        message: String,
    },
    /// The registry answered with a status that has no meaning here, or kept failing.
    #[error("{attempt}: the registry answered {status}{}{}{}", detail(.message), after(*.tries), way_out(*.status))]
    Status {
        /// What was attempted.
        attempt: Attempt,
        /// The HTTP status.
        status: u16,
        /// How long it asks to wait, if it says so.
        retry_after: Option<Duration>,
        /// How often it was asked.
        tries: u32,
        /// The registry's words, if any.
        message: String,
    },
    /// No connection could be made, or it was lost before an answer.
    #[error("{attempt}: no answer; check the host name, the network and HTTPS_PROXY")]
    Unreachable {
        /// What was attempted.
        attempt: Attempt,
        /// How the last try ended.
        #[source]
        source: Cause,
    },
    /// A page for browsers came instead of an answer, as from a network that wants a log-in first.
    #[error(
        "{attempt}: a page for browsers (HTML) answers, and no registry; check the host name and HTTPS_PROXY, and whether the network wants a log-in first"
    )]
    Page {
        /// What was attempted.
        attempt: Attempt,
    },
    /// The host speaks TLS with a certificate that is not trusted.
    #[error(
        "{attempt}: its certificate is not trusted; put its authority into the system store or name its file with SSL_CERT_FILE or `ca` in kiln's config.toml"
    )]
    Certificate {
        /// What was attempted.
        attempt: Attempt,
        /// What the certificate lacks.
        #[source]
        source: Cause,
    },
    /// The host wants to see a client's certificate, and another one than it was shown.
    #[error(
        "{attempt}: it asks for a client certificate{}; name one with `cert` and `key` in kiln's config.toml",
        if *.had_certificate { ", and refuses the one that it was shown" } else { "" }
    )]
    ClientCertificate {
        /// What was attempted.
        attempt: Attempt,
        /// Whether it was shown one.
        had_certificate: bool,
        /// The host's words.
        #[source]
        source: Cause,
    },
    /// The transfer stopped again and again before its end.
    #[error(
        "{attempt}: the transfer stopped {attempts} times, at last after {received} of {size} bytes"
    )]
    Interrupted {
        /// What was attempted.
        attempt: Attempt,
        /// How often it was tried.
        attempts: u32,
        /// How many bytes came.
        received: u64,
        /// How many there are.
        size: u64,
        /// How the last try ended.
        #[source]
        source: Cause,
    },
    /// The registry served other bytes than it was asked for.
    #[error("{attempt}: the registry, or a proxy before it, served wrong content")]
    Content {
        /// What was attempted.
        attempt: Attempt,
        /// Expected and actual digest or size.
        #[source]
        source: Box<VerifyError>,
    },
    /// The document is malformed, hostile or too large.
    #[error("{attempt}: the document is not usable")]
    Document {
        /// What was attempted.
        attempt: Attempt,
        /// Why.
        #[source]
        source: Box<DocumentError>,
    },
    /// The registry breaks its own protocol.
    #[error("{attempt}: the answer breaks the registry protocol: {what}")]
    Protocol {
        /// What was attempted.
        attempt: Attempt,
        /// How.
        what: String,
    },
    /// The image exists, but not for the wanted platform.
    #[error("`{image}` has no image for platform `{wanted}`; it has {available}")]
    NoPlatform {
        /// The image, in its short form.
        image: String,
        /// The wanted platform.
        wanted: String,
        /// What there is, or `none`.
        available: String,
    },
    /// The name is of something else than an image, such as a chart or a signature.
    #[error("`{image}` is no image but an artifact of type `{media_type}`")]
    Artifact {
        /// The name, in its short form.
        image: String,
        /// What it is.
        media_type: String,
    },
    /// The credentials for the host could not be read.
    #[error("{attempt}: cannot read the credentials for it")]
    Credentials {
        /// What was attempted.
        attempt: Attempt,
        /// Why.
        #[source]
        source: Box<CredentialsError>,
    },
    /// The content to push could not be read.
    #[error("{attempt}: cannot read the content to send")]
    Source {
        /// What was attempted.
        attempt: Attempt,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The TLS client could not be made.
    #[error("cannot set up TLS: {what}")]
    Tls {
        /// What failed.
        what: String,
        /// Why, where the TLS library tells.
        #[source]
        source: Option<rustls::Error>,
    },
    /// The HTTP client could not be made, as of a malformed proxy variable.
    #[error("cannot set up the HTTP client; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")]
    Http {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

/// How an exchange with a host ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The connection could not be made or broke.
    #[error(transparent)]
    Http(reqwest::Error),
    /// Nothing came or went for so long.
    #[error("nothing was heard for {} s", .0.as_secs_f32())]
    Idle(Duration),
    /// The host sent kiln somewhere where it does not go.
    #[error("{0}")]
    Redirect(&'static str),
    /// The host closed the connection before everything was sent.
    #[error("the connection was closed early")]
    Closed,
}

fn detail(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}

fn login(had_credentials: &bool, host: &str) -> String {
    if *had_credentials {
        format!("the stored credentials were refused: log in again with `kiln login {host}`")
    } else {
        format!("log in with `kiln login {host}` and check the name")
    }
}

fn lacking(attempt: &Attempt) -> &'static str {
    match attempt.about {
        About::ListedBlob => {
            "a manifest lists this blob, and the registry does not have it: `kiln push --verify` sends it again from where an image is, and another export what a cache or cache mounts lack"
        }
        About::Name | About::Sending => "check the name and the tag",
    }
}

fn asked(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(time) if time.as_secs() > 0 => format!("; it asks to wait {} s", time.as_secs()),
        _ => String::new(),
    }
}

fn patience(attempt: &Attempt) -> &'static str {
    match attempt.about {
        About::Sending => "wait, or log in for a higher limit",
        About::Name | About::ListedBlob => {
            "wait, log in for a higher limit, or set KILN_REGISTRY_MIRROR"
        }
    }
}

fn after(tries: u32) -> String {
    match tries {
        0 | 1 => String::new(),
        tries => format!(" after {tries} tries"),
    }
}

fn way_out(status: u16) -> &'static str {
    match status {
        413 => {
            "; the registry, or a proxy before it, limits how much a request may hold, and whoever runs it can raise that"
        }
        500.. => "; try again later, or ask whoever runs the registry",
        _ => "",
    }
}

impl Error {
    /// The same after so many tries.
    pub(super) fn after(mut self, count: u32) -> Error {
        if let Error::Status { tries, .. } = &mut self {
            *tries = count;
        }
        self
    }

    /// What was attempted, where that is part of it.
    pub(super) fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match self {
            Self::Unauthorized { attempt, .. }
            | Self::Login { attempt, .. }
            | Self::Denied { attempt, .. }
            | Self::NotFound { attempt, .. }
            | Self::RateLimited { attempt, .. }
            | Self::Status { attempt, .. }
            | Self::Unreachable { attempt, .. }
            | Self::Page { attempt }
            | Self::Certificate { attempt, .. }
            | Self::ClientCertificate { attempt, .. }
            | Self::Interrupted { attempt, .. }
            | Self::Content { attempt, .. }
            | Self::Document { attempt, .. }
            | Self::Protocol { attempt, .. }
            | Self::Credentials { attempt, .. }
            | Self::Source { attempt, .. } => Some(attempt),
            Self::NoPlatform { .. }
            | Self::Artifact { .. }
            | Self::Tls { .. }
            | Self::Http { .. } => None,
        }
    }

    /// What went wrong and its deepest cause, without what was attempted and what would help.
    pub(super) fn brief(mut self) -> String {
        let attempt = self.attempt_mut().map(|attempt| format!("{attempt}: "));
        let words = self.to_string();
        let words = words
            .strip_prefix(&attempt.unwrap_or_default())
            .unwrap_or(&words);
        let mut brief = words.split("; ").next().unwrap_or_default().to_owned();
        let mut deepest = self.source();
        while let Some(below) = deepest.and_then(|cause| cause.source()) {
            deepest = Some(below);
        }
        if let Some(cause) = deepest {
            brief = format!("{brief}: {cause}");
        }
        brief
    }

    /// How long the registry asks to wait before another try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Status { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }

    /// Tells whether a manifest was refused since the registry lacks something that it names.
    pub fn lacks_content(&self) -> bool {
        let message = match self {
            Self::NotFound { message, .. } | Self::Status { message, .. } => message,
            _ => return false,
        };
        // The codes of the specification, and what older registries say of children of an index.
        ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"]
            .iter()
            .any(|code| message.starts_with(code))
    }

    /// Tells whether the registry said that what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
