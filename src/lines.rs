//! Output that comes in pieces, cut into lines.

/// A line that is longer is handed on in pieces of this size.
const LONGEST_BYTES: usize = 16 << 10;

/// The end of a stream of output: what came after the last line end.
///
/// Holds at most `LONGEST_BYTES`, whatever a step writes, and looks at each byte once.
#[derive(Debug, Clone, Default)]
pub struct OutputLines {
    partial: Vec<u8>,
}

impl OutputLines {
    /// Takes in a piece, and hands on each line that it completes, without its end.
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            self.hold_back(line, &mut each);
            each(&self.partial);
            self.partial.clear();
            rest = after;
        }
        self.hold_back(rest, &mut each);
    }

    /// Hands on what is left, if anything is.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            each(&self.partial);
            self.partial.clear();
        }
    }

    /// What came after the last line end.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    fn hold_back(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&[u8])) {
        while self.partial.len() + bytes.len() > LONGEST_BYTES {
            let (fits, after) = bytes.split_at(LONGEST_BYTES - self.partial.len());
            self.partial.extend_from_slice(fits);
            each(&self.partial);
            self.partial.clear();
            bytes = after;
        }
        self.partial.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]], expected: &[&str], partial: &str) {
        let mut lines = OutputLines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece, |line| {
                found.push(String::from_utf8_lossy(line).into_owned());
            });
        }
        assert_eq!(found, expected);
        assert_eq!(String::from_utf8_lossy(lines.partial()), partial);
        lines.finish(|line| found.push(String::from_utf8_lossy(line).into_owned()));
        assert_eq!(
            found.len(),
            expected.len() + usize::from(!partial.is_empty())
        );
        assert!(lines.partial().is_empty());
    }

    #[test]
    fn pieces_become_lines() {
        check(&[b"a\nb", b"c\n\nd"], &["a", "bc", ""], "d");
        check(&[b"", b"\n"], &[""], "");
        check(&[], &[], "");
    }

    #[test]
    fn a_line_without_end_is_held_in_bounds() {
        let mut lines = OutputLines::default();
        let mut sizes = Vec::new();
        for _ in 0..10 {
            lines.push(&[b'x'; 5000], |line| sizes.push(line.len()));
            assert!(lines.partial().len() <= LONGEST_BYTES);
        }
        lines.push(b"\n", |line| sizes.push(line.len()));
        assert_eq!(sizes, [16384, 16384, 16384, 848]);
        lines.push(&[b'y'; 40_000], |line| sizes.push(line.len()));
        assert_eq!(sizes[4..], [16384, 16384]);
    }
}
