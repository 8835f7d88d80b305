//! A web server in the test's own process: pages with validators and faults, and git repositories
//! through `git http-backend`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A page and how it is served.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
    /// The value of `Content-Encoding`.
    pub(crate) encoding: Option<String>,
    /// Answers with a redirect to this place instead.
    pub(crate) redirect: Option<String>,
    /// The connection is cut after so many bytes, so many times.
    pub(crate) cuts: Vec<usize>,
    /// The length that is announced, instead of the right one.
    pub(crate) says_length: Option<usize>,
    /// After so many bytes nothing more comes, and the connection stays.
    pub(crate) stall: Option<usize>,
    /// Ranges are not served.
    pub(crate) whole_only: bool,
    /// Answered with this status, so many times.
    pub(crate) statuses: Vec<u16>,
    /// The value that `Authorization` must have.
    pub(crate) authorization: Option<String>,
}

impl Page {
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Page {
        Page {
            body: body.into(),
            ..Page::default()
        }
    }

    pub(crate) fn etag(self, etag: &str) -> Page {
        Page {
            etag: Some(etag.to_owned()),
            ..self
        }
    }

    pub(crate) fn last_modified(self, date: &str) -> Page {
        Page {
            last_modified: Some(date.to_owned()),
            ..self
        }
    }
}

#[derive(Default)]
struct State {
    pages: BTreeMap<String, Page>,
    log: Vec<String>,
    repositories: Option<PathBuf>,
    /// The value that `Authorization` must have for repositories.
    authorization: Option<String>,
    ended: bool,
}

/// The server; it ends when it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(crate) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if lock(&served).ended {
                    return;
                }
                let state = Arc::clone(&served);
                std::thread::spawn(move || drop(serve(&state, stream.unwrap())));
            }
        });
        Server { address, state }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// The address of a page.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn put(&self, path: &str, page: Page) {
        lock(&self.state).pages.insert(path.to_owned(), page);
    }

    /// Serves the bare repositories of a directory below `/git/`.
    pub(crate) fn serve_repositories(&self, directory: &Path) {
        lock(&self.state).repositories = Some(directory.to_owned());
    }

    /// Lets only those see repositories who send this `Authorization`.
    pub(crate) fn require(&self, authorization: &str) {
        lock(&self.state).authorization = Some(authorization.to_owned());
    }

    /// What was asked for and answered since the last time.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock(&self.state).ended = true;
        let _ = TcpStream::connect(self.address);
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    if headers.contains_key("expect") {
        let _ = (&mut &*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let mut body = Vec::new();
    if headers.contains_key("transfer-encoding") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut piece = vec![0; size + 2];
            reader.read_exact(&mut piece).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&piece[..size]);
        }
    } else if let Some(length) = headers.get("content-length") {
        body.resize(length.parse().ok()?, 0);
        reader.read_exact(&mut body).ok()?;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
    })
}

fn serve(state: &Mutex<State>, stream: TcpStream) -> std::io::Result<()> {
    let Some(request) = read_request(&stream) else {
        return Ok(());
    };
    let mut answer = Vec::new();
    let note = if request.path.starts_with("/git/") {
        repository(state, &request, &mut answer)
    } else {
        page(state, &request, &mut answer)
    };
    (&stream).write_all(&answer)?;
    let line = format!("{} {} -> {note}", request.method, request.path);
    lock(state).log.push(line);
    if note.ends_with("stalled") {
        // Until the other side gives up.
        let _ = (&stream).read(&mut [0]);
    }
    stream.shutdown(std::net::Shutdown::Both)
}

fn head(answer: &mut Vec<u8>, status: u16, headers: &[(&str, &str)]) {
    let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    answer.extend_from_slice(text.as_bytes());
}

fn page(state: &Mutex<State>, request: &Request, answer: &mut Vec<u8>) -> String {
    let mut state = lock(state);
    let Some(page) = state.pages.get_mut(&request.path) else {
        head(answer, 404, &[("Content-Length", "0")]);
        return "404".to_owned();
    };
    if let Some(status) = page.statuses.pop() {
        head(
            answer,
            status,
            &[("Content-Length", "0"), ("Retry-After", "0")],
        );
        return status.to_string();
    }
    if page.authorization.is_some()
        && request.header("authorization") != page.authorization.as_deref()
    {
        head(answer, 401, &[("Content-Length", "0")]);
        return "401".to_owned();
    }
    if let Some(to) = &page.redirect {
        head(answer, 302, &[("Location", to), ("Content-Length", "0")]);
        return "302".to_owned();
    }
    let same_etag = page.etag.is_some() && request.header("if-none-match") == page.etag.as_deref();
    let same_date = request.header("if-none-match").is_none()
        && page.last_modified.is_some()
        && request.header("if-modified-since") == page.last_modified.as_deref();
    if same_etag || same_date {
        head(answer, 304, &[]);
        return "304".to_owned();
    }
    let total = page.body.len();
    let mut first = 0;
    let fits = request
        .header("if-range")
        .is_none_or(|value| Some(value) == page.etag.as_deref().or(page.last_modified.as_deref()));
    if let Some(range) = request.header("range")
        && !page.whole_only
        && fits
    {
        first = range
            .trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .unwrap();
    }
    let length = page.says_length.unwrap_or(total - first).to_string();
    let range = format!("bytes {first}-{}/{total}", total - 1);
    let mut headers = vec![("Content-Length", length.as_str())];
    if let Some(etag) = &page.etag {
        headers.push(("ETag", etag));
    }
    if let Some(date) = &page.last_modified {
        headers.push(("Last-Modified", date));
    }
    if let Some(encoding) = &page.encoding {
        headers.push(("Content-Encoding", encoding));
    }
    let status = if first > 0 { 206 } else { 200 };
    if first > 0 {
        headers.push(("Content-Range", &range));
    }
    head(answer, status, &headers);
    let mut end = total;
    if !page.cuts.is_empty() {
        end = (first + page.cuts.remove(0)).min(total);
    }
    if let Some(stall) = page.stall {
        answer.extend_from_slice(&page.body[..stall]);
        return format!("{status} stalled");
    }
    answer.extend_from_slice(&page.body[first..end]);
    match first {
        0 => status.to_string(),
        first => format!("{status} from {first}"),
    }
}

fn repository(state: &Mutex<State>, request: &Request, answer: &mut Vec<u8>) -> String {
    let (root, wanted) = {
        let state = lock(state);
        (state.repositories.clone(), state.authorization.clone())
    };
    let Some(root) = root else {
        head(answer, 404, &[("Content-Length", "0")]);
        return "404".to_owned();
    };
    if wanted.is_some() && request.header("authorization") != wanted.as_deref() {
        let challenge = [
            ("WWW-Authenticate", "Basic realm=x"),
            ("Content-Length", "0"),
        ];
        head(answer, 401, &challenge);
        return "401".to_owned();
    }
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", root.join("config"))
        .env("GIT_PROJECT_ROOT", &root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", request.path.trim_start_matches("/git"))
        .env("QUERY_STRING", &request.query)
        .env("REQUEST_METHOD", &request.method)
        .env("CONTENT_TYPE", request.header("content-type").unwrap_or(""))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env(
            "HTTP_CONTENT_ENCODING",
            request.header("content-encoding").unwrap_or(""),
        )
        .env("GIT_PROTOCOL", request.header("git-protocol").unwrap_or(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = backend.stdin.take().unwrap();
    let body = request.body.clone();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&body)));
    let mut output = Vec::new();
    backend
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut output)
        .unwrap();
    backend.wait().unwrap();
    writer.join().unwrap();
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or(output.len());
    let text = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut status = 200;
    let mut headers: Vec<(&str, &str)> = Vec::new();
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(':') {
            match name {
                "Status" => status = value.trim().split(' ').next().unwrap().parse().unwrap(),
                name => headers.push((name, value.trim())),
            }
        }
    }
    let body = output.get(end + 4..).unwrap_or_default();
    let length = body.len().to_string();
    headers.push(("Content-Length", &length));
    head(answer, status, &headers);
    answer.extend_from_slice(body);
    status.to_string()
}
