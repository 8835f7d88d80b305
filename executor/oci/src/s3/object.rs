//! An object on its way: a cut line is taken up where it broke, as long as the same version is there.

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, IF_MATCH, RANGE};
use reqwest::{Response, StatusCode};
use rusty_s3::actions::{GetObject, S3Action as _};

use super::{S3, S3Error, SIGNED_FOR, etag};
use crate::registry::Cause;
use crate::registry::retry::Backoff;
use crate::registry::transport::Activity;

/// So many new bytes show that a line is worth another full round of tries.
const PROGRESS_BYTES: u64 = 1 << 20;

/// An object on its way.
#[derive(Debug)]
pub struct S3Object {
    s3: S3,
    key: String,
    attempt: String,
    response: Option<Response>,
    /// How much of what comes was received before a cut.
    skip_bytes: u64,
    /// Its ETag, to replace this very version; without one, a cut line is not taken up.
    pub etag: Option<String>,
    /// Its length, if the store says.
    size: Option<u64>,
    received: u64,
    /// Bytes that came since the tries were last counted from the start.
    fresh_bytes: u64,
    /// The store does no ranges, so that what came before a cut is read again and dropped.
    whole_only: bool,
    backoff: Backoff,
}

impl S3Object {
    pub(super) fn new(s3: &S3, key: &str, attempt: String, response: Response) -> S3Object {
        let headers = response.headers();
        let size = headers.get(CONTENT_LENGTH);
        S3Object {
            s3: s3.clone(),
            key: key.to_owned(),
            attempt,
            skip_bytes: 0,
            etag: etag(headers),
            size: size.and_then(|size| size.to_str().ok()?.parse().ok()),
            received: 0,
            fresh_bytes: 0,
            whole_only: false,
            backoff: Backoff::new(&s3.client.transport().config().retry),
            response: Some(response),
        }
    }

    /// Returns the next piece, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, S3Error> {
        loop {
            if self.size == Some(self.received) {
                return Ok(None);
            }
            let Some(response) = &mut self.response else {
                let (response, skip_bytes) = self.take_up().await?;
                (self.response, self.skip_bytes) = (Some(response), skip_bytes);
                continue;
            };
            let cause = match self.s3.client.transport().chunk(response).await {
                Ok(Some(piece)) => match self.take(piece) {
                    Some(fresh) => return Ok(Some(fresh)),
                    None => continue,
                },
                Ok(None) if self.size.is_none() => return Ok(None),
                Ok(None) => Cause::Closed,
                Err(cause) => cause,
            };
            self.response = None;
            let delay = self.backoff.next(None).filter(|_| self.etag.is_some());
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => {
                    return Err(S3Error::Interrupted {
                        attempt: self.attempt.clone(),
                        attempts: self.backoff.tries(),
                        received: self.received,
                        size: self.size,
                        source: cause,
                    });
                }
            }
        }
    }

    /// Reads all of it.
    pub async fn bytes(mut self, limit: u64) -> Result<Bytes, S3Error> {
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if bytes.len() as u64 + piece.len() as u64 > limit {
                return Err(S3Error::TooLarge {
                    attempt: self.attempt,
                    limit,
                });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// What is new of a piece. Only that counts for another round of tries.
    fn take(&mut self, mut piece: Bytes) -> Option<Bytes> {
        let known = self.skip_bytes.min(piece.len() as u64);
        self.skip_bytes -= known;
        // At most the piece's length, so it fits.
        let fresh = piece.split_off(known as usize);
        self.received += fresh.len() as u64;
        self.fresh_bytes += fresh.len() as u64;
        if self.fresh_bytes >= PROGRESS_BYTES {
            self.fresh_bytes = 0;
            self.backoff.reset();
        }
        Some(fresh).filter(|fresh| !fresh.is_empty())
    }

    /// Asks for what is still missing; tells how much comes again before that.
    async fn take_up(&mut self) -> Result<(Response, u64), S3Error> {
        loop {
            let range = (self.received > 0 && !self.whole_only)
                .then(|| format!("bytes={}-", self.received));
            let (s3, key) = (&self.s3, &self.key);
            let make = |client: &reqwest::Client| {
                let action = GetObject::new(&s3.bucket, Some(&s3.credentials), key);
                let mut request = client.get(action.sign(SIGNED_FOR));
                if let Some(etag) = &self.etag {
                    request = request.header(IF_MATCH, etag);
                }
                match &range {
                    Some(range) => request.header(RANGE, range),
                    None => request,
                }
            };
            let response = s3.send(&self.attempt, key, &Activity::new(), make).await?;
            let begins_at = match response.status() {
                StatusCode::OK => Some(0),
                StatusCode::PARTIAL_CONTENT => first_byte(response.headers()),
                StatusCode::RANGE_NOT_SATISFIABLE => None,
                StatusCode::PRECONDITION_FAILED | StatusCode::NOT_FOUND => {
                    return Err(self.changed());
                }
                _ => return Err(s3.refusal(&self.attempt, response).await),
            };
            match begins_at.filter(|first| *first <= self.received) {
                // Not every store heeds the condition.
                Some(_) if etag(response.headers()) != self.etag => return Err(self.changed()),
                Some(first) => return Ok((response, self.received - first)),
                // Then all of it once more, and what is known is dropped.
                None if range.is_some() => self.whole_only = true,
                None => {
                    return Err(S3Error::Answer {
                        attempt: self.attempt.clone(),
                    });
                }
            }
        }
    }

    fn changed(&self) -> S3Error {
        S3Error::Changed {
            attempt: self.attempt.clone(),
        }
    }
}

/// Returns the first byte's position in `Content-Range: bytes 5-9/10`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    first.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::super::{PART_BYTES, S3Settings};
    use super::*;
    use crate::registry::{Client, Config, RetryPolicy};

    /// How a store serves one object.
    #[derive(Clone, Copy)]
    struct Store {
        /// Of each answer so many bytes come before the line is cut.
        cut: usize,
        ranges: bool,
        /// The ETag of each answer; the last one of all further ones.
        etags: &'static [&'static str],
    }

    fn content() -> Vec<u8> {
        (0..3_000_000_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect()
    }

    /// Answers until the process ends; tells what was asked for.
    fn serve(store: Store) -> (u16, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&log);
        std::thread::spawn(move || {
            let content = content();
            for (count, line) in listener.incoming().enumerate() {
                let mut line = line.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    line.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                let named = |name: &str| {
                    let value = head.lines().find_map(|line| line.strip_prefix(name));
                    value.map(|value| value.trim().to_owned())
                };
                let (range, condition) = (named("range:"), named("if-match:"));
                let words =
                    [&range, &condition].map(|word| word.as_deref().unwrap_or("-").to_owned());
                asked.lock().unwrap().push(words.join(" "));
                let etag = store.etags[count.min(store.etags.len() - 1)];
                let first: usize = range
                    .filter(|_| store.ranges)
                    .and_then(|range| {
                        range
                            .strip_prefix("bytes=")?
                            .strip_suffix('-')?
                            .parse()
                            .ok()
                    })
                    .unwrap_or_default();
                let rest = &content[first..];
                let status = match first {
                    0 => "200 OK".to_owned(),
                    _ => format!("206 Partial\r\nContent-Range: bytes {first}-2999999/3000000"),
                };
                let etag = match etag {
                    "" => String::new(),
                    etag => format!("ETag: {etag}\r\n"),
                };
                let length = rest.len();
                let _ = write!(
                    line,
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{etag}\r\n"
                );
                let _ = line.write_all(&rest[..length.min(store.cut)]);
            }
        });
        (port, log)
    }

    /// What is read, or why not, and what was asked for.
    async fn read(store: Store) -> (Result<Bytes, String>, Vec<String>) {
        let (port, log) = serve(store);
        let client = Client::new(Config {
            retry: RetryPolicy {
                attempts: 3,
                first_delay: Duration::from_millis(1),
                ..RetryPolicy::default()
            },
            ..Config::default()
        });
        let settings = S3Settings {
            bucket: "b".into(),
            region: "us-east-1".into(),
            endpoint_url: Some(format!("http://127.0.0.1:{port}")),
            use_path_style: true,
            access_key_id: "account".into(),
            secret_access_key: "hunter2".into(),
            session_token: None,
            part_bytes: PART_BYTES,
        };
        let s3 = S3::new(&client, &settings).unwrap();
        let object = s3.get("layer").await.unwrap().unwrap();
        let read = object.bytes(1 << 30).await;
        let asked = log.lock().unwrap().clone();
        (read.map_err(|error| error.to_string()), asked)
    }

    const GOOD: Store = Store {
        cut: 1_300_000,
        ranges: true,
        etags: &["\"one\""],
    };

    #[tokio::test]
    async fn a_cut_line_is_taken_up_where_it_broke() {
        let (read, asked) = read(GOOD).await;
        assert!(read.unwrap() == content());
        let expected = ["- -", "bytes=1300000- \"one\"", "bytes=2600000- \"one\""];
        assert_eq!(asked, expected);
    }

    #[tokio::test]
    async fn tries_are_renewed_by_new_ground_only() {
        // Four cuts, but never three without a further mebibyte.
        let (whole, asked) = read(Store {
            cut: 600_000,
            ..GOOD
        })
        .await;
        assert!(whole.unwrap() == content());
        assert_eq!(asked.len(), 5);
        // What comes again and again is no progress.
        let (cut, asked) = read(Store {
            ranges: false,
            ..GOOD
        })
        .await;
        assert_eq!(
            cut.unwrap_err(),
            "could not read `s3://b/layer`: the transfer stopped 3 times, at last after 1300000 of 3000000 bytes"
        );
        assert_eq!(asked.len(), 3);
    }

    #[tokio::test]
    async fn another_version_is_not_what_was_begun() {
        let check = async |etags: &'static [&'static str], expected: &str, count: usize| {
            let (cut, asked) = read(Store { etags, ..GOOD }).await;
            assert_eq!(
                cut.unwrap_err(),
                format!("could not read `s3://b/layer`: {expected}")
            );
            assert_eq!(asked.len(), count);
        };
        let replaced = "it was replaced or removed while it was read";
        check(&["\"one\"", "\"two\""], replaced, 2).await;
        let stopped = "the transfer stopped 1 times, at last after 1300000 of 3000000 bytes";
        check(&[""], stopped, 1).await;
    }
}
