//! What a step writes, kept in bounds: its beginning and its end.

use std::collections::VecDeque;

/// At most so much is kept of the beginning of what a step writes.
const HEAD_BYTES: usize = 32 << 10;
/// At most so much of the end.
const TAIL_BYTES: usize = 96 << 10;
/// At most so much is kept of all steps of a build.
const BUILD_BYTES: usize = 8 << 20;
/// But so much of each, however many there are.
const LEAST_BYTES: usize = 4 << 10;

/// What a step wrote so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    /// All that it wrote, in bytes.
    pub(crate) bytes: u64,
    head: Vec<u8>,
    tail: VecDeque<u8>,
}

impl Log {
    /// Takes in a piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        let fits = piece.len().min(HEAD_BYTES - self.head.len());
        let (head, rest) = piece.split_at(fits);
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(TAIL_BYTES)..];
        let over = (self.tail.len() + rest.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..over);
        self.tail.extend(rest);
    }

    /// The beginning and the end in at most so many bytes, as whole lines where something is left out.
    fn within(self, most: usize) -> (Vec<u8>, Vec<u8>) {
        let Log {
            mut head,
            tail,
            bytes,
        } = self;
        let mut tail = Vec::from(tail);
        if head.len() + tail.len() > most {
            // All of it may be in the head.
            let mut all = std::mem::take(&mut head);
            let begin = (most / 4).min(all.len());
            let rest = all.split_off(begin);
            head = all;
            let mut end = rest;
            end.extend_from_slice(&tail);
            let keep = (most - head.len()).min(end.len());
            tail = end.split_off(end.len() - keep);
        }
        let is_cut = ((head.len() + tail.len()) as u64) < bytes;
        if is_cut {
            if let Some(end) = head.iter().rposition(|&byte| byte == b'\n') {
                head.truncate(end + 1);
            }
            if let Some(start) = tail.iter().position(|&byte| byte == b'\n') {
                tail.drain(..=start);
            }
        }
        (head, tail)
    }
}

/// What is kept of the logs of a build's steps: bytes in all, beginning and end of each.
pub(crate) fn kept(logs: Vec<Log>) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
    let writers = logs.iter().filter(|log| log.bytes > 0).count().max(1);
    let most = (BUILD_BYTES / writers).clamp(LEAST_BYTES, HEAD_BYTES + TAIL_BYTES);
    let kept = logs.into_iter().map(|log| {
        let bytes = log.bytes;
        let (head, tail) = log.within(most);
        (bytes, head, tail)
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(pieces: impl IntoIterator<Item = Vec<u8>>) -> Log {
        let mut log = Log::default();
        pieces.into_iter().for_each(|piece| log.push(&piece));
        log
    }

    fn line(number: usize) -> Vec<u8> {
        format!("line {number}\n").into_bytes()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        let [(bytes, head, tail)] = &kept(vec![log([line(1), line(2)])])[..] else {
            panic!("one log");
        };
        assert_eq!(*bytes, 14);
        assert_eq!((&head[..], &tail[..]), (&b"line 1\nline 2\n"[..], &b""[..]));
    }

    #[test]
    fn of_a_flood_whole_lines_of_both_ends_are_kept() {
        let flood = log((0..100_000).map(line));
        let written = flood.bytes;
        let (bytes, head, tail) = kept(vec![flood]).remove(0);
        assert_eq!(bytes, written);
        assert!(head.len() <= HEAD_BYTES && tail.len() <= TAIL_BYTES);
        assert!(head.starts_with(b"line 0\n") && head.ends_with(b"\n"));
        assert!(tail.starts_with(b"line ") && tail.ends_with(b"line 99999\n"));
    }

    #[test]
    fn a_line_without_end_stays_in_bounds() {
        let (bytes, head, tail) = kept(vec![log([vec![b'x'; 1 << 20]])]).remove(0);
        assert_eq!(bytes, 1 << 20);
        assert_eq!((head.len(), tail.len()), (HEAD_BYTES, TAIL_BYTES));
    }

    #[test]
    fn many_steps_share_what_a_build_may_keep() {
        let logs = (0..500).map(|_| log((0..20_000).map(line))).collect();
        let kept = kept(logs);
        let all: usize = kept
            .iter()
            .map(|(_, head, tail)| head.len() + tail.len())
            .sum();
        assert!(all <= BUILD_BYTES, "{all}");
        for (_, head, tail) in kept {
            assert!(head.starts_with(b"line 0\n") && tail.ends_with(b"line 19999\n"));
        }
    }
}
