//! Length-prefixed binary encoding, read strictly: what every format of this room is made of.
//!
//! Integers are big-endian and of fixed width; a byte string is a `u32` length and the bytes.

/// Bytes are not an encoding of the expected format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{format} is damaged at byte {offset}: {reason}")]
pub struct DecodeError {
    format: &'static str,
    offset: usize,
    reason: &'static str,
}

/// Appends encoded fields to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("BUG: a field of 4 GiB in a manifest"));
    }
}

/// Reads encoded fields off a slice; nothing is allocated before its length was checked.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    format: &'static str,
    all: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(format: &'static str, all: &'a [u8]) -> Self {
        Self {
            format,
            all,
            offset: 0,
        }
    }

    pub(crate) fn error(&self, reason: &'static str) -> DecodeError {
        DecodeError {
            format: self.format,
            offset: self.offset,
            reason,
        }
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.all[self.offset..];
        let taken = rest
            .get(..length)
            .ok_or_else(|| self.error("it ends early"))?;
        self.offset += length;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()? as usize;
        self.raw(length)
    }

    /// Reads a count of items that take at least `least_bytes` each.
    pub(crate) fn count(&mut self, least_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count.saturating_mul(least_bytes) > self.all.len() - self.offset {
            return Err(self.error("it counts more items than it has bytes for"));
        }
        Ok(count)
    }

    pub(crate) fn magic(&mut self, magic: &[u8]) -> Result<(), DecodeError> {
        if self.all.get(..magic.len()) != Some(magic) {
            return Err(self.error("it is another format or version"));
        }
        self.offset = magic.len();
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.offset != self.all.len() {
            return Err(self.error("bytes follow its end"));
        }
        Ok(())
    }
}
