//! Objects that are sent in parts: several at once, each sent again by itself when its line is lost.
//!
//! What is sent is not there before all of it is: an upload that fails is aborted, and so is one that
//! nobody waits for any more ([`S3::abandon`]). Parts of one that was killed are left to a rule of
//! the bucket.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use reqwest::Body;
use reqwest::header::CONTENT_LENGTH;
use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CompleteMultipartUploadResponse,
    CreateMultipartUpload, S3Action as _, UploadPart,
};

use super::{S3, S3Error, SIGNED_FOR, etag};
use crate::registry::BlobSource as _;
use crate::registry::transport::Activity;

/// The least that a part but the last may have.
pub const LEAST_PART_BYTES: u64 = 5 << 20;
/// The most that a part may have.
pub const MOST_PART_BYTES: u64 = 5 << 30;
/// How much a part has by default.
pub const PART_BYTES: u64 = 64 << 20;
/// The most parts of an object.
const MOST_PARTS: u64 = 10_000;
/// The largest object: 48.8 TiB in parts of 5 GiB, but stores take no more than this.
pub const MOST_OBJECT_BYTES: u64 = 5 << 40;
/// Parts that are sent at once.
const AT_ONCE: usize = 4;
/// How long giving an upload up may take.
const ABANDON: Duration = Duration::from_secs(5);

/// Is told how many bytes of an object were sent so far; fewer than before after a lost line.
pub type Moved = Arc<dyn Fn(u64) + Send + Sync>;

/// An upload that is not complete.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Open {
    key: String,
    upload: String,
}

/// How far each part of an object is.
struct Sent {
    parts: Vec<AtomicU64>,
    moved: Moved,
}

impl Sent {
    fn tell(&self, part: usize, bytes: u64) {
        self.parts[part].store(bytes, Ordering::Relaxed);
        let all = self.parts.iter().map(|part| part.load(Ordering::Relaxed));
        (self.moved)(all.sum());
    }
}

/// A part: its place in the object and in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    index: usize,
    offset: u64,
    length: u64,
}

/// The parts of an object, which are as long as asked for, or as long as they must be.
fn parts(size: u64, part_bytes: u64) -> Vec<Part> {
    let length = part_bytes
        .clamp(LEAST_PART_BYTES, MOST_PART_BYTES)
        .max(size.div_ceil(MOST_PARTS));
    let starts = (0..).map(|index| index * length);
    starts
        .take_while(|offset| *offset < size)
        .enumerate()
        .map(|(index, offset)| Part {
            index,
            offset,
            length: length.min(size - offset),
        })
        .collect()
}

impl S3 {
    /// Writes the file at `path`, of `size` bytes: at once, or in parts if it is larger than one.
    pub async fn put_file(
        &self,
        key: &str,
        path: PathBuf,
        size: u64,
        moved: Moved,
    ) -> Result<(), S3Error> {
        if size > MOST_OBJECT_BYTES {
            return Err(S3Error::TooLarge {
                attempt: self.attempt("write", key),
                limit: MOST_OBJECT_BYTES,
            });
        }
        let parts = parts(size, self.part_bytes);
        let sent = Sent {
            parts: parts.iter().map(|_| AtomicU64::new(0)).collect(),
            moved,
        };
        let sent = Arc::new(sent);
        if parts.len() <= 1 {
            return self.put_whole(key, path, size, &sent).await;
        }
        let open = self.begin(key).await?;
        match self.send_parts(&open, &path, &parts, &sent).await {
            Ok(()) => {
                self.forget(&open);
                Ok(())
            }
            Err(error) => {
                self.abort(&open).await;
                Err(error)
            }
        }
    }

    /// Gives up all uploads that were begun and are not complete, for somebody who stopped waiting for them.
    pub async fn abandon(&self) {
        let open: Vec<Open> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.iter().cloned().collect()
        };
        let aborted = open.iter().map(|open| self.abort(open));
        let aborted = stream::iter(aborted)
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<()>>();
        // What is not aborted in time is left to a rule of the bucket.
        let _ = tokio::time::timeout(ABANDON, aborted).await;
    }

    async fn put_whole(
        &self,
        key: &str,
        path: PathBuf,
        size: u64,
        sent: &Arc<Sent>,
    ) -> Result<(), S3Error> {
        let attempt = self.attempt("write", key);
        let activity = Activity::new();
        let whole = Part {
            index: 0,
            offset: 0,
            length: size,
        };
        let response = self
            .send(&attempt, key, &activity, |client| {
                client
                    .put(self.signed_put(key))
                    .header(CONTENT_LENGTH, size)
                    .body(body(&path, whole, sent, &activity))
            })
            .await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refusal(&attempt, response).await),
        }
    }

    async fn begin(&self, key: &str) -> Result<Open, S3Error> {
        let attempt = self.attempt("begin to write", key);
        let response = self
            .send(&attempt, key, &Activity::new(), |client| {
                let action = CreateMultipartUpload::new(&self.bucket, Some(&self.credentials), key);
                client
                    .post(action.sign(SIGNED_FOR))
                    .header(CONTENT_LENGTH, 0)
            })
            .await?;
        if !response.status().is_success() {
            return Err(self.refusal(&attempt, response).await);
        }
        let text = self.text(&attempt, response).await?;
        let Ok(begun) = CreateMultipartUpload::parse_response(&text) else {
            return Err(S3Error::Answer { attempt });
        };
        let open = Open {
            key: key.to_owned(),
            upload: begun.upload_id().to_owned(),
        };
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(open.clone());
        Ok(open)
    }

    async fn send_parts(
        &self,
        open: &Open,
        path: &PathBuf,
        parts: &[Part],
        sent: &Arc<Sent>,
    ) -> Result<(), S3Error> {
        let sending = parts
            .iter()
            .map(|part| self.send_part(open, path, *part, sent));
        let etags: Vec<String> = stream::iter(sending)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let Open { key, upload } = open;
        let attempt = self.attempt("complete", key);
        let make = || {
            let etags = etags.iter().map(String::as_str);
            let credentials = Some(&self.credentials);
            CompleteMultipartUpload::new(&self.bucket, credentials, key, upload, etags)
        };
        let document = make().body();
        let response = self
            .send(&attempt, key, &Activity::new(), |client| {
                client.post(make().sign(SIGNED_FOR)).body(document.clone())
            })
            .await?;
        if response.status().is_success() {
            // A store may find out what is wrong only after it said that all is well.
            let text = self.text(&attempt, response).await?;
            return match CompleteMultipartUploadResponse::parse(&text) {
                Ok(_) => Ok(()),
                Err(_) => Err(S3Error::Answer { attempt }),
            };
        }
        let refused = self.refusal(&attempt, response).await;
        // It was complete, and only the answer was lost.
        let size: u64 = parts.iter().map(|part| part.length).sum();
        match self.look(key).await {
            Ok(Some(found)) if found.size == size => Ok(()),
            _ => Err(refused),
        }
    }

    async fn send_part(
        &self,
        open: &Open,
        path: &PathBuf,
        part: Part,
        sent: &Arc<Sent>,
    ) -> Result<String, S3Error> {
        let Open { key, upload } = open;
        // There are at most ten thousand.
        let number = u16::try_from(part.index + 1).unwrap_or(u16::MAX);
        let attempt = self.attempt(&format!("write part {number} of"), key);
        let activity = Activity::new();
        let response = self
            .send(&attempt, key, &activity, |client| {
                let credentials = Some(&self.credentials);
                let action = UploadPart::new(&self.bucket, credentials, key, number, upload);
                client
                    .put(action.sign(SIGNED_FOR))
                    .header(CONTENT_LENGTH, part.length)
                    .body(body(path, part, sent, &activity))
            })
            .await?;
        match response.status().is_success() {
            true => etag(response.headers()).ok_or(S3Error::Answer { attempt }),
            false => Err(self.refusal(&attempt, response).await),
        }
    }

    async fn abort(&self, open: &Open) {
        self.forget(open);
        let Open { key, upload } = open;
        let attempt = self.attempt("give up writing", key);
        // Whatever it comes to: there was another error, or an end, before.
        let _ = self
            .send(&attempt, key, &Activity::new(), |client| {
                let credentials = Some(&self.credentials);
                let action = AbortMultipartUpload::new(&self.bucket, credentials, key, upload);
                client.delete(action.sign(SIGNED_FOR))
            })
            .await;
    }

    fn forget(&self, open: &Open) {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(open);
    }

    async fn text(&self, attempt: &str, response: reqwest::Response) -> Result<String, S3Error> {
        let bytes = self.words(attempt, response).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A part of a file as the body of a request.
fn body(path: &PathBuf, part: Part, sent: &Arc<Sent>, activity: &Activity) -> Body {
    let (sent, activity) = (Arc::clone(sent), activity.clone());
    let content = path.read_from(part.offset);
    let step = move |(mut done, mut content): (u64, BoxStream<'static, io::Result<Bytes>>)| {
        let (sent, activity) = (Arc::clone(&sent), activity.clone());
        async move {
            if done == part.length {
                return Ok(None);
            }
            let Some(piece) = content.next().await else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            };
            let mut piece = piece?;
            let left = part.length - done;
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            done += piece.len() as u64;
            activity.touch();
            sent.tell(part.index, done);
            Ok(Some((piece, (done, content))))
        }
    };
    Body::wrap_stream(stream::try_unfold((0, content), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(size: u64, part_bytes: u64, count: usize, last: u64) {
        let parts = parts(size, part_bytes);
        assert_eq!(parts.len(), count, "{size} in parts of {part_bytes}");
        assert_eq!(parts.iter().map(|part| part.length).sum::<u64>(), size);
        assert_eq!(parts.last().map_or(0, |part| part.length), last);
        for pair in parts.windows(2) {
            assert_eq!(pair[0].offset + pair[0].length, pair[1].offset);
            assert!(pair[0].length >= LEAST_PART_BYTES);
        }
    }

    #[test]
    fn objects_have_parts_that_stores_take() {
        const MIB: u64 = 1 << 20;
        check(0, PART_BYTES, 0, 0);
        check(1, PART_BYTES, 1, 1);
        check(PART_BYTES, PART_BYTES, 1, PART_BYTES);
        check(PART_BYTES + 1, PART_BYTES, 2, 1);
        check(6 << 30, PART_BYTES, 96, PART_BYTES);
        // No smaller and no more than are allowed.
        check(12 * MIB, 1, 3, 2 * MIB);
        assert!(parts(5 << 40, PART_BYTES).len() as u64 <= MOST_PARTS);
        assert_eq!(parts(12 << 30, u64::MAX).len(), 3);
    }
}
