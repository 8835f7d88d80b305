//! Where the contents of two files part.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::os::fd::OwnedFd;

use kiln_tree::Stop;

use super::{ContentDifference, MOST_INSIDE_BYTES, inside};
use crate::error::Error;

const BUFFER_BYTES: usize = 256 << 10;

/// Compares two files; none if they are equal.
pub(super) fn compare(
    path: &[u8],
    one: OwnedFd,
    two: OwnedFd,
    stop: &Stop,
) -> Result<Option<ContentDifference>, Error> {
    let shown = String::from_utf8_lossy(path).into_owned();
    let unreadable = || Error::io("read a file of a layer,", shown.clone());
    let files = [File::from(one), File::from(two)];
    let length = |file: &File| file.metadata().map(|meta| meta.len());
    let (first, second) = (length(&files[0]), length(&files[1]));
    let longest = first.and_then(|first| Ok(first.max(second?)));
    if longest.map_err(unreadable())? <= MOST_INSIDE_BYTES {
        let read = |file: &File| {
            let mut bytes = Vec::new();
            file.take(MOST_INSIDE_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let one = read(&files[0]).map_err(unreadable())?;
        let two = read(&files[1]).map_err(unreadable())?;
        let Some(offset) = inside::offset(&one, &two) else {
            return Ok(None);
        };
        let found = inside::look(path, &one, &two);
        return Ok(Some(ContentDifference {
            offset,
            within: found.path,
            said: found.what,
            line: found.lines,
        }));
    }
    let [mut one, mut two] = files;
    one.rewind().map_err(unreadable())?;
    two.rewind().map_err(unreadable())?;
    let mut one = BufReader::with_capacity(BUFFER_BYTES, one);
    let mut two = BufReader::with_capacity(BUFFER_BYTES, two);
    let mut offset = 0;
    loop {
        if stop.is_set() {
            return Err(Error::Cancelled);
        }
        let a = one.fill_buf().map_err(unreadable())?;
        let b = two.fill_buf().map_err(unreadable())?;
        let count = a.len().min(b.len());
        let same = inside::offset(&a[..count], &b[..count]);
        let at = match (same, count) {
            (Some(same), _) => same,
            (None, 0) if a.len() == b.len() => return Ok(None),
            (None, 0) => 0,
            (None, _) => {
                one.consume(count);
                two.consume(count);
                offset += count as u64;
                continue;
            }
        };
        return Ok(Some(ContentDifference {
            offset: offset + at,
            ..ContentDifference::default()
        }));
    }
}
