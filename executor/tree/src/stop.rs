//! Long work on files that can be told to end early.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::handle::{FsError, FsResult};

/// How many bytes are copied between two questions whether to go on; some hundredths of a second
/// on a slow disk.
pub const PIECE_BYTES: u64 = 8 << 20;

/// Asked between pieces of long work whether to give it up. Clones ask the same.
#[derive(Clone, Default)]
pub struct Stop(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Stop {
    /// Nobody stops the work.
    pub const NEVER: Stop = Stop(None);

    /// The work is given up once `asked` says so.
    pub fn when(asked: impl Fn() -> bool + Send + Sync + 'static) -> Stop {
        Stop(Some(Arc::new(asked)))
    }

    /// Whether to give up.
    pub fn is_set(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| asked())
    }

    /// Errors once the work is to be given up; who set it knows why.
    pub fn check(&self) -> FsResult<()> {
        self.check_io()
            .map_err(|error| FsError::new("go on with", b"", error))
    }

    /// The same for whoever speaks of reading and writing alone.
    pub fn check_io(&self) -> io::Result<()> {
        match self.is_set() {
            true => Err(io::Error::other("the work was stopped")),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_set()).finish()
    }
}

/// Passes bytes on until the work is given up.
#[derive(Debug)]
pub struct Stoppable<T> {
    inner: T,
    stop: Stop,
}

impl<T> Stoppable<T> {
    /// Lets `stop` end what is read from or written to `inner`.
    pub fn new(inner: T, stop: &Stop) -> Self {
        Stoppable {
            inner,
            stop: stop.clone(),
        }
    }
}

impl<T: Read> Read for Stoppable<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.check_io()?;
        self.inner.read(buffer)
    }
}

impl<T: Write> Write for Stoppable<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check_io()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
