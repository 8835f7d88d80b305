//! Where a file is cut, so that a changed part leaves the others as they were.

use std::sync::LazyLock;

/// A file up to this is one chunk.
const LEAST: usize = 64 << 10;
/// No chunk is longer.
pub(crate) const MOST: usize = 1 << 20;
/// A cut every 256 KiB beyond the least, on average.
const MASK: u64 = ((1 << 18) - 1) << 46;

/// Random numbers for the rolling sum, the same for ever.
static GEAR: LazyLock<[u64; 256]> = LazyLock::new(|| {
    let mut bytes = [0; 256 * 8];
    blake3::Hasher::new_derive_key("kiln 2026 cache mount chunks v0")
        .finalize_xof()
        .fill(&mut bytes);
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_be_bytes(words[at]))
});

/// Returns how long the chunk at the start of `bytes` is; `bytes` holds [`MOST`] bytes or the rest
/// of the file.
pub(crate) fn cut(bytes: &[u8]) -> usize {
    let end = bytes.len().min(MOST);
    if end <= LEAST {
        return end;
    }
    // What came more than 64 bytes ago has left the sum.
    let mut sum: u64 = 0;
    for (at, byte) in bytes[..end].iter().enumerate().skip(LEAST - 64) {
        sum = (sum << 1).wrapping_add(GEAR[usize::from(*byte)]);
        if at >= LEAST && sum & MASK == 0 {
            return at;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new()
            .update(&seed.to_be_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    fn cuts(mut bytes: &[u8]) -> Vec<blake3::Hash> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(cut(bytes));
            assert!(chunk.len() <= MOST && (chunk.len() >= LEAST || rest.is_empty()));
            found.push(blake3::hash(chunk));
            bytes = rest;
        }
        found
    }

    #[test]
    fn small_files_are_one_chunk() {
        for length in [1, 4096, LEAST] {
            assert_eq!(cuts(&noise(1, length)).len(), 1);
        }
        assert_eq!(cut(b""), 0);
    }

    #[test]
    fn bytes_put_in_front_change_the_first_chunks_alone() {
        let old = noise(2, 8 << 20);
        let new = [&noise(3, 1000)[..], &old].concat();
        let (old, new) = (cuts(&old), cuts(&new));
        let kept = new.iter().filter(|chunk| old.contains(chunk)).count();
        assert!(old.len() > 10, "{}", old.len());
        assert!(kept + 3 >= old.len(), "{kept} of {}", old.len());
    }

    #[test]
    fn monotonous_files_have_the_longest_chunks() {
        assert_eq!(cuts(&vec![0; 3 * MOST]).len(), 3);
    }
}
