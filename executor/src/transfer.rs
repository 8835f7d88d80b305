//! What is told while blobs are on their way to or from a registry.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kiln_oci::document::Descriptor;
use kiln_solver::StepSink;

/// How long a place may say nothing before that is told.
const SILENCE: Duration = Duration::from_secs(5);

/// One thing that happened in a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferEvent {
    /// Something without a length begins, such as `packing layers`.
    Doing(String),
    /// Something that was asked for does not come, such as `no result from registry.example after 5 seconds`.
    Waiting(String),
    /// Something that whoever asked for the transfer should know.
    Warning(String),
    /// How far a blob is.
    Blob {
        /// Its digest, such as `sha256:…`.
        digest: String,
        /// Its length in bytes.
        size_bytes: u64,
        /// How far.
        state: BlobState,
    },
}

/// How far a blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobState {
    /// Its turn comes.
    Waiting,
    /// So many bytes were moved; fewer than before after a lost line.
    Moving(u64),
    /// It is where it should be, without being moved.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// All of it was moved.
    Moved,
}

/// Takes the events of a transfer, from several threads.
#[derive(Clone)]
pub struct TransferObserver(Arc<dyn Fn(TransferEvent) + Send + Sync>);

impl TransferObserver {
    /// Makes one of a function.
    pub fn new(observe: impl Fn(TransferEvent) + Send + Sync + 'static) -> TransferObserver {
        TransferObserver(Arc::new(observe))
    }

    /// One that nobody listens to.
    pub fn silent() -> TransferObserver {
        TransferObserver::new(drop)
    }

    /// One that tells a step of a build how far its blobs are.
    pub(crate) fn of_step(sink: &StepSink) -> TransferObserver {
        let sink = sink.clone();
        TransferObserver::new(move |event| {
            if let TransferEvent::Blob {
                digest,
                size_bytes,
                state: BlobState::Moving(bytes),
            } = event
            {
                sink.progress(digest, bytes, Some(size_bytes));
            }
        })
    }

    pub(crate) fn tell(&self, event: TransferEvent) {
        (self.0)(event);
    }

    /// Awaits the first result of a place, and says so when it lets itself be waited for: it may be silent, or
    /// have asked for patience.
    pub(crate) async fn awaiting<T>(&self, place: &str, answer: impl Future<Output = T>) -> T {
        let mut answer = std::pin::pin!(answer);
        if let Ok(answer) = tokio::time::timeout(SILENCE, &mut answer).await {
            return answer;
        }
        let seconds = SILENCE.as_secs();
        self.tell(TransferEvent::Waiting(format!(
            "no result from `{place}` after {seconds} seconds; waiting"
        )));
        answer.await
    }

    /// Tells how far a blob is.
    pub(crate) fn blob(&self, blob: &Descriptor, state: BlobState) {
        self.tell(TransferEvent::Blob {
            digest: blob.digest.to_string(),
            size_bytes: blob.size,
            state,
        });
    }
}

impl fmt::Debug for TransferObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransferObserver")
    }
}
