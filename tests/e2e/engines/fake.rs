//! A docker engine that says what a case wants it to say.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What it answers, and how that ends.
pub(super) enum Reply {
    /// A document or an archive.
    Whole(Vec<u8>),
    /// The same, cut after so many bytes.
    Cut(Vec<u8>, usize),
    /// Nothing, and the line stays open.
    Silence,
    /// These bytes again and again.
    Flood(Vec<u8>),
    /// There is no such thing.
    Missing,
    /// What the engine at this socket says.
    Ask(PathBuf),
}

/// The engine; its socket goes with the case.
pub(super) struct Fake {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Listens; `answer` is given method and path.
    pub(super) fn start(
        socket: &Path,
        answer: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Fake {
        let listener = UnixListener::bind(socket).unwrap();
        let answer = Arc::new(answer);
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        // It ends with the process, which ends with the last case.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { break };
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &*answer, &log));
            }
        });
        Fake {
            socket: socket.to_owned(),
            asked,
        }
    }

    /// Passes everything on to another engine, but for what `answer` answers.
    pub(super) fn between(
        socket: &Path,
        other: &Path,
        answer: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static,
    ) -> Fake {
        let other = other.to_owned();
        Fake::start(socket, move |line| {
            answer(line).unwrap_or(Reply::Ask(other.clone()))
        })
    }

    /// What `DOCKER_HOST` is to be.
    pub(super) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// What it was asked.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Reads a body that comes in chunks, to its end.
fn drain(stream: &mut UnixStream) {
    let mut end: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while !end.ends_with(b"\r\n0\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => end.extend_from_slice(&buffer[..count]),
            _ => return,
        }
        end.drain(..end.len().saturating_sub(16));
    }
}

fn serve(mut stream: UnixStream, answer: &dyn Fn(&str) -> Reply, log: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line: Vec<&str> = head.split(' ').take(2).collect();
    let line = line.join(" ");
    log.lock().unwrap().push(line.clone());
    let answer = answer(&line);
    if line.starts_with("POST ") && !matches!(answer, Reply::Ask(_)) {
        drain(&mut stream);
    }
    let write = |stream: &mut UnixStream, length: Option<usize>, body: &[u8]| {
        let length = length.map_or(String::new(), |length| {
            format!("content-length: {length}\r\n")
        });
        let head = format!("HTTP/1.1 200 OK\r\n{length}connection: close\r\n\r\n");
        // Whoever asks may have gone.
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(body);
    };
    match answer {
        Reply::Whole(body) => write(&mut stream, Some(body.len()), &body),
        Reply::Cut(body, at) => write(&mut stream, Some(body.len()), &body[..at]),
        Reply::Missing => {
            let _ = stream.write_all(
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
        Reply::Ask(socket) => {
            let Ok(mut other) = UnixStream::connect(socket) else {
                return;
            };
            // One question a line, so that the next one comes here too.
            let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            let _ = other.write_all(head.as_bytes());
            let (mut from, mut to) = (stream.try_clone().unwrap(), other.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let _ = std::io::copy(&mut other, &mut stream);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        Reply::Silence => {
            // Until the other side hangs up.
            let _ = stream.read(&mut byte);
        }
        Reply::Flood(body) => {
            write(&mut stream, None, b"");
            while stream.write_all(&body).is_ok() {}
        }
    }
}
