//! Many files hashed by a few threads.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::digest::FileDigest;
use crate::handle;
use crate::path::TreePath;
use crate::seal::options::SealError;
use crate::stop::Stop;

/// Below this many bytes a second thread costs more than it brings.
const ONE_THREAD_BYTES: u64 = 4 << 20;

/// A file to hash and the size that it must turn out to have.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) path: &'a TreePath,
    pub(crate) size: u64,
}

/// Returns the digests of `jobs`, in their order.
pub(crate) fn hash_files(
    root: BorrowedFd<'_>,
    jobs: &[Job<'_>],
    threads: usize,
    stop: &Stop,
) -> Result<Vec<FileDigest>, SealError> {
    let bytes: u64 = jobs.iter().map(|job| job.size).sum();
    let worth = if bytes < ONE_THREAD_BYTES && jobs.len() < 512 {
        1
    } else {
        threads.max(1)
    };
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, FileDigest)>, SealError> {
        let mut buffer = Vec::new();
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else {
                return Ok(done);
            };
            let digest = hash_one(root, job, &mut buffer, stop).inspect_err(|_| {
                next.store(jobs.len(), Ordering::Relaxed);
            })?;
            done.push((index, digest));
        }
    };
    let parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..worth).map(|_| scope.spawn(work)).collect();
        let mut parts = vec![work()];
        for other in others {
            parts.push(other.join().expect("BUG: a hashing thread panicked"));
        }
        parts
    });
    let mut digests = vec![FileDigest([0; 32]); jobs.len()];
    for part in parts {
        for (index, digest) in part? {
            digests[index] = digest;
        }
    }
    Ok(digests)
}

fn hash_one(
    root: BorrowedFd<'_>,
    job: &Job<'_>,
    buffer: &mut Vec<u8>,
    stop: &Stop,
) -> Result<FileDigest, SealError> {
    let path = job.path.as_bytes();
    let file = handle::open_beneath(root, path, handle::READ)?;
    let (digest, read) = handle::hash(file, buffer, stop).map_err(|error| error.at(path))?;
    if read != job.size {
        return Err(SealError::Changed(job.path.clone()));
    }
    Ok(digest)
}
