//! The protocol, and how its answers go wrong.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::form_urlencoded;

use crate::state::{Logged, State};
use crate::{Auth, Fault, Mounts, digest_of};

type Shared = Arc<Mutex<State>>;
type Body = BoxBody<Bytes, io::Error>;

pub(crate) async fn accept(
    listener: std::net::TcpListener,
    acceptor: Option<TlsAcceptor>,
    state: Shared,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match acceptor {
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        converse(stream, state).await;
                    }
                }
                None => converse(stream, state).await,
            }
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Shared) {
    let service = service_fn(move |request| respond(request, Arc::clone(&state)));
    // A client that goes away ends its connection, which is no failure of the server.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A request, read whole.
struct Asked {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
}

/// An answer before faults.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// The announced length of a HEAD's answer.
    length: Option<usize>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            length: None,
        }
    }

    fn refusal(status: u16, code: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": format!("test registry says {code}")}]});
        Self::new(status)
            .body(body.to_string())
            .header("content-type", "application/json")
    }

    fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

async fn respond(request: Request<Incoming>, state: Shared) -> Result<Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let full_path = parts
        .uri
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let query = pairs
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    let fault = state
        .lock()
        .unwrap()
        .fault(parts.method.as_str(), &full_path);
    let broken = || io::Error::other("dropped on purpose");
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let mut logged = Logged {
        method: parts.method.to_string(),
        path: full_path,
        authorization: header("authorization"),
        range: header("range"),
        user_agent: header("user-agent"),
        body: String::new(),
        status: 0,
    };
    if let Some(Fault::Drop { .. }) = fault {
        state.lock().unwrap().log.push(logged);
        return Err(broken());
    }
    let body = match read(body, &fault).await {
        Read::Whole(bytes) => bytes,
        Read::Part(bytes) => {
            let mut state = state.lock().unwrap();
            let keeps = state.settings.keep_cut_uploads && logged.method == "PUT";
            if keeps || logged.method == "PATCH" {
                state.keep_part(parts.uri.path(), &bytes);
            }
            state.log.push(logged);
            return Err(broken());
        }
    };
    let asked = Asked {
        method: logged.method.clone(),
        path: parts.uri.path().to_owned(),
        query,
        headers: parts.headers,
        body,
    };
    if asked.path == "/token" {
        logged.body = String::from_utf8_lossy(&asked.body).into_owned();
    }
    let answer = {
        let mut state = state.lock().unwrap();
        if let Some(Fault::ForgetTokens { .. }) = fault {
            state.tokens.clear();
        }
        if let Some(Fault::ForgetUploads { .. }) = fault {
            state.uploads.clear();
        }
        let answer = match &fault {
            Some(Fault::Status {
                status,
                retry_after,
                ..
            }) => {
                let answer = Answer::refusal(
                    *status,
                    if *status == 429 {
                        "TOOMANYREQUESTS"
                    } else {
                        "UNKNOWN"
                    },
                );
                match retry_after {
                    Some(value) => answer.header("retry-after", value),
                    None => answer,
                }
            }
            Some(Fault::Page { .. }) => Answer::new(200)
                .header("content-type", "text/html; charset=utf-8")
                .body("<!doctype html><title>Log in</title>"),
            Some(Fault::Redirect { to, .. }) => {
                Answer::new(307).header("location", format!("{to}{}", logged.path))
            }
            _ => state.answer(&asked),
        };
        logged.status = answer.status;
        state.log.push(logged);
        answer
    };
    Ok(spoil(answer, fault, asked.method == "HEAD"))
}

/// What came of a request's body.
enum Read {
    Whole(Bytes),
    /// And no more will.
    Part(Bytes),
}

/// Reads a request's body as well as the fault lets it.
async fn read(mut body: Incoming, fault: &Option<Fault>) -> Read {
    let most = match fault {
        Some(Fault::CutUpload { bytes, .. } | Fault::StallUpload { bytes, .. }) => Some(*bytes),
        _ => None,
    };
    let mut whole = Vec::new();
    while most.is_none_or(|most| whole.len() < most) {
        if let Some(Fault::SlowUpload { pause, .. }) = fault {
            tokio::time::sleep(*pause).await;
        }
        match body.frame().await {
            Some(Ok(frame)) => whole.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            // Who sends it has gone.
            Some(Err(_)) => return Read::Part(whole.into()),
            None if most.is_some() => break,
            None => {
                if let (Some(Fault::AlterUpload { .. }), Some(first)) = (fault, whole.first_mut()) {
                    *first ^= 1;
                }
                if let Some(Fault::TogetherUpload { barrier, .. }) = fault {
                    barrier.wait().await;
                }
                return Read::Whole(whole.into());
            }
        }
    }
    if let Some(Fault::StallUpload { .. }) = fault {
        std::future::pending::<()>().await;
    }
    whole.truncate(most.unwrap_or(usize::MAX));
    Read::Part(whole.into())
}

/// Turns an answer into what goes over the wire.
fn spoil(answer: Answer, fault: Option<Fault>, is_head: bool) -> Response<Body> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        let value = match (*name, &fault) {
            ("docker-content-digest", Some(Fault::WrongDigest { .. })) => {
                digest_of(b"something else")
            }
            ("content-range", Some(Fault::WrongRange { first, .. })) => {
                format!("bytes {first}-{}/{}", first + 1, first + 2)
            }
            _ => value.clone(),
        };
        response = response.header(*name, value);
    }
    let length = answer.length.unwrap_or(answer.body.len());
    response = response.header("content-length", length);
    let mut bytes = if is_head { Bytes::new() } else { answer.body };
    let body = match fault {
        Some(Fault::WrongBytes { .. }) if !bytes.is_empty() => {
            let mut wrong = bytes.to_vec();
            wrong[0] ^= 1;
            whole(wrong.into())
        }
        Some(Fault::CutAfter { bytes: count, .. }) => {
            bytes.truncate(count);
            let cut = async {
                // What was sent before must have left, or the client sees nothing of it.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::Error::other("cut on purpose"))
            };
            pieces(stream::iter([Ok(bytes)]).chain(stream::once(cut)))
        }
        Some(Fault::Stall { bytes: count, .. }) => {
            bytes.truncate(count);
            pieces(stream::iter([Ok(bytes)]).chain(stream::pending()))
        }
        Some(Fault::Slow { pause, .. }) => {
            let slow = stream::iter(0..bytes.len()).then(move |at| {
                let piece = bytes.slice(at..=at);
                async move {
                    tokio::time::sleep(pause).await;
                    Ok(piece)
                }
            });
            pieces(slow)
        }
        Some(Fault::Together { barrier, .. }) => pieces(stream::once(async move {
            barrier.wait().await;
            Ok(bytes)
        })),
        _ => whole(bytes),
    };
    response.body(body).unwrap()
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never: Infallible| match never {})
        .boxed()
}

fn pieces(bytes: impl stream::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static) -> Body {
    http_body_util::BodyExt::boxed(StreamBody::new(bytes.map(|piece| piece.map(Frame::data))))
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Answer {
        if asked.path == "/token" {
            return self.token(asked);
        }
        let Some(rest) = asked.path.strip_prefix("/v2/") else {
            return Answer::refusal(404, "UNSUPPORTED");
        };
        if let Some(refusal) = self.refuse(asked, rest) {
            return refusal;
        }
        if self
            .settings
            .body_limit
            .is_some_and(|limit| asked.body.len() > limit)
        {
            return Answer::refusal(413, "SIZE_INVALID");
        }
        if rest.is_empty() {
            return Answer::new(200).body("{}");
        }
        if let Some((repository, upload)) = rest.split_once("/blobs/uploads/") {
            return self.upload(asked, repository, upload);
        }
        if let Some((repository, digest)) = rest.split_once("/blobs/") {
            return match self.blob(repository, digest) {
                Some(bytes) => self.content(asked, digest, "application/octet-stream", bytes),
                None => Answer::refusal(404, "BLOB_UNKNOWN"),
            };
        }
        if let Some((repository, subject)) = rest.split_once("/referrers/")
            && self.settings.referrers
        {
            return Answer::new(200)
                .body(self.referring(repository, subject).to_string())
                .header("content-type", "application/vnd.oci.image.index.v1+json");
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            let body = serde_json::json!({ "name": repository, "tags": self.tags(repository) });
            return Answer::new(200).body(body.to_string());
        }
        let Some((repository, name)) = rest.split_once("/manifests/") else {
            return Answer::refusal(404, "UNSUPPORTED");
        };
        if asked.method == "PUT" {
            let digest = digest_of(&asked.body);
            let media_type = asked.header("content-type").unwrap_or_default().to_owned();
            if let Some(missing) = self.missing(repository, &asked.body) {
                let code = format!("MANIFEST_BLOB_UNKNOWN {missing}");
                return Answer::refusal(404, &code);
            }
            for name in [name, &digest] {
                self.put_manifest(repository, name, &media_type, asked.body.clone());
            }
            let answer = Answer::new(201).header("docker-content-digest", digest);
            let document: serde_json::Value =
                serde_json::from_slice(&asked.body).unwrap_or_default();
            return match document["subject"]["digest"].as_str() {
                Some(subject) if self.settings.referrers => answer.header("oci-subject", subject),
                _ => answer,
            };
        }
        match self.manifest(repository, name) {
            Some((media_type, bytes)) => {
                self.content(asked, &digest_of(&bytes), &media_type, bytes)
            }
            None => Answer::refusal(404, "MANIFEST_UNKNOWN"),
        }
    }

    /// The list of what is about a manifest.
    pub(crate) fn referring(&self, repository: &str, subject: &str) -> serde_json::Value {
        let entries = self.referrers(repository, subject).into_iter();
        let entries = entries.map(|(digest, bytes)| {
            let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            serde_json::json!({
                "mediaType": document["mediaType"],
                "digest": digest,
                "size": bytes.len(),
                "artifactType": document["artifactType"],
                "annotations": document["annotations"],
            })
        });
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries.collect::<Vec<_>>(),
        })
    }

    /// What a manifest or index names that the repository has not.
    fn missing(&self, repository: &str, document: &[u8]) -> Option<String> {
        let document: serde_json::Value = serde_json::from_slice(document).unwrap_or_default();
        let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
        let digest =
            |descriptor: &serde_json::Value| Some(descriptor["digest"].as_str()?.to_owned());
        let blobs = list("layers")
            .into_iter()
            .chain([document["config"].clone()]);
        let mut blobs = blobs.filter_map(|blob| digest(&blob));
        let manifests = list("manifests");
        let mut manifests = manifests.iter().filter_map(digest);
        blobs
            .find(|blob| self.blob(repository, blob).is_none())
            .or_else(|| manifests.find(|name| self.manifest(repository, name).is_none()))
    }

    fn content(&self, asked: &Asked, digest: &str, media_type: &str, bytes: Bytes) -> Answer {
        let total = bytes.len();
        let range = asked
            .header("range")
            .filter(|_| !self.settings.ignore_ranges);
        let first = range.and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        let answer = match first {
            Some(first) if first >= total => return Answer::new(416),
            Some(first) => Answer::new(206)
                .header(
                    "content-range",
                    format!("bytes {first}-{}/{total}", total - 1),
                )
                .body(bytes.slice(first..)),
            None => Answer {
                length: Some(total),
                ..Answer::new(200).body(bytes)
            },
        };
        let answer = answer.header("content-type", media_type);
        if self.settings.hide_digests {
            answer
        } else {
            answer.header("docker-content-digest", digest)
        }
    }

    fn upload(&mut self, asked: &Asked, repository: &str, upload: &str) -> Answer {
        let elsewhere = self.settings.uploads_at.clone().unwrap_or_default();
        let place =
            |upload: &str| format!("{elsewhere}/v2/{repository}/blobs/uploads/{upload}?state=1");
        let told = self.settings.range.clone();
        let range = |held: usize| match &told {
            Some(range) => range.clone(),
            None => format!("0-{}", held.saturating_sub(1)),
        };
        if asked.method == "POST" {
            if let (Some(digest), Some(from)) = (asked.query("mount"), asked.query("from"))
                && match self.settings.mounts {
                    Mounts::Done => self.mount(from, repository, digest),
                    Mounts::Claimed => true,
                    Mounts::Refused => false,
                }
            {
                let location = format!("/v2/{repository}/blobs/{digest}");
                return Answer::new(201).header("location", location);
            }
            let upload = self.next().to_string();
            self.uploads.insert(upload.clone(), Vec::new());
            let answer = Answer::new(202)
                .header("location", place(&upload))
                .header("range", "0-0");
            return match self.settings.least_chunk {
                Some(bytes) => answer.header("oci-chunk-min-length", bytes.to_string()),
                None => answer,
            };
        }
        if asked.method == "PUT" && self.settings.chunked_only && !asked.body.is_empty() {
            return Answer::refusal(405, "UNSUPPORTED");
        }
        let held = self.uploads.remove(upload);
        let Some(mut held) = held.or_else(|| self.settings.any_upload.then(Vec::new)) else {
            return Answer::refusal(404, "BLOB_UPLOAD_UNKNOWN");
        };
        let answer = match asked.method.as_str() {
            "DELETE" => return Answer::new(204),
            "PATCH" | "PUT" => {
                let begins = asked
                    .header("content-range")
                    .and_then(|range| range.split('-').next()?.parse::<usize>().ok());
                let is_short = |least: usize| held.len() % least != 0;
                let after_a_short_one = self.settings.least_chunk.is_some_and(is_short);
                if begins.is_some_and(|begins| begins != held.len()) {
                    Answer::refusal(416, "RANGE_INVALID")
                } else if after_a_short_one && !asked.body.is_empty() {
                    Answer::refusal(400, "SIZE_INVALID")
                } else {
                    held.extend_from_slice(&asked.body);
                    Answer::new(202)
                }
            }
            _ => Answer::new(204),
        };
        if asked.method == "PUT" && answer.status == 202 {
            let digest = asked.query("digest").unwrap_or_default().to_owned();
            if digest_of(&held) != digest {
                return Answer::refusal(400, "DIGEST_INVALID");
            }
            self.put_blob(repository, &digest, held.into());
            return Answer::new(201).header("docker-content-digest", digest);
        }
        let answer = answer
            .header("location", place(upload))
            .header("range", range(held.len()));
        self.uploads.insert(upload.to_owned(), held);
        answer
    }

    /// Returns the refusal of a request that lacks proof.
    fn refuse(&self, asked: &Asked, rest: &str) -> Option<Answer> {
        let sent = asked.header("authorization").unwrap_or_default();
        let challenge = match &self.settings.auth {
            Auth::None => return None,
            Auth::Basic { user, password } => {
                if sent == basic(user, password) {
                    return None;
                }
                "Basic realm=\"test \\\"registry\\\"\"".to_owned()
            }
            Auth::Token { .. } => {
                let scope = wanted_scope(&asked.method, rest);
                let given = sent
                    .strip_prefix("Bearer ")
                    .and_then(|token| self.tokens.get(token));
                let covered = |scope: &str| {
                    given.is_some_and(|given| given.iter().any(|have| scope_covers(have, scope)))
                };
                let more = self.settings.more_scope.as_deref();
                if covered(&scope) && more.is_none_or(covered) {
                    return None;
                }
                let scope = [Some(scope.as_str()), more]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(" ");
                let scheme = if self.settings.authority.is_some() {
                    "https"
                } else {
                    "http"
                };
                let realm = format!("{scheme}://{}/token", self.address);
                format!("Bearer realm=\"{realm}\",service=\"test registry\",scope=\"{scope}\"")
            }
        };
        Some(Answer::refusal(401, "UNAUTHORIZED").header("www-authenticate", challenge))
    }

    /// The token server: GET with a password, or POST with a refresh token.
    fn token(&mut self, asked: &Asked) -> Answer {
        let Auth::Token { user } = self.settings.auth.clone() else {
            return Answer::refusal(404, "UNSUPPORTED");
        };
        let form: Vec<(String, String)> =
            form_urlencoded::parse(&asked.body).into_owned().collect();
        let field = |name: &str| {
            form.iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        };
        let (proof, scopes) = if asked.method == "POST" {
            let scopes = field("scope").unwrap_or_default();
            (
                field("refresh_token"),
                scopes.split(' ').map(str::to_owned).collect::<Vec<_>>(),
            )
        } else {
            let scopes = asked
                .query
                .iter()
                .filter(|(key, _)| key == "scope")
                .map(|(_, value)| value.clone());
            (
                asked.header("authorization").map(str::to_owned),
                scopes.collect(),
            )
        };
        let gives = self.settings.refresh_tokens && asked.query("offline_token") == Some("true");
        let mut refresh = None;
        if let Some((user, password)) = user {
            let own = format!("refresh-{user}");
            let good = proof.is_some_and(|proof| {
                proof == password || proof == basic(&user, &password) || proof == own
            });
            refresh = gives.then_some(own);
            if !good {
                return Answer::new(401).body(r#"{"details":"incorrect username or password"}"#);
            }
        }
        let token = format!("token-{}", self.next());
        self.tokens.insert(token.clone(), scopes);
        let seconds = self.settings.token_seconds.unwrap_or(300);
        let mut answer = serde_json::json!({"token": token, "expires_in": seconds});
        if let Some(refresh) = refresh {
            answer["refresh_token"] = refresh.into();
        }
        Answer::new(200).body(answer.to_string())
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn wanted_scope(method: &str, rest: &str) -> String {
    let repository = ["/blobs/", "/manifests/", "/referrers/", "/tags/"]
        .iter()
        .find_map(|part| Some(rest.split_once(part)?.0));
    let actions = if matches!(method, "GET" | "HEAD") {
        "pull"
    } else {
        "pull,push"
    };
    format!("repository:{}:{actions}", repository.unwrap_or_default())
}

fn scope_covers(have: &str, want: &str) -> bool {
    match (have.rsplit_once(':'), want.rsplit_once(':')) {
        (Some((thing, actions)), Some((wanted, needed))) => {
            thing == wanted
                && needed
                    .split(',')
                    .all(|need| actions.split(',').any(|action| action == need))
        }
        _ => false,
    }
}
