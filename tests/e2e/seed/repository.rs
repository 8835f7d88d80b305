//! A directory over HTTP.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Serves the files below a directory on a free port of 127.0.0.1 until it is dropped.
pub(super) struct Repository {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Repository {
    pub(super) fn start(root: PathBuf) -> Repository {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let root = root.clone();
                // Who hangs up early is told nothing more.
                std::thread::spawn(move || drop(answer(stream, &root)));
            }
        });
        Repository { address, is_over }
    }

    pub(super) fn host(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut stream: TcpStream, root: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    let path = Path::new(path.trim_start_matches('/'));
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let found = is_plain
        .then(|| std::fs::read(root.join(path)).ok())
        .flatten();
    let (status, body) = match found {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    if request.starts_with("GET ") {
        stream.write_all(&body)?;
    }
    Ok(())
}
