//! The entries of an archive that nobody vouches for.
//!
//! Blocks and headers are the `tar` crate's; its entry iterator is not used, because it reads
//! extension headers of any size into memory and splits PAX records at newlines, which binary
//! attributes contain.

use std::io::{self, BufReader, Read};

use tar::{EntryType, Header};

use crate::manifest::{Mtime, Xattrs};
use crate::marks::is_content_xattr;
use crate::path;
use crate::tar::apply::ApplyError;
use crate::tar::sparse::{Next, SparseMap, SparseRecords};

const BLOCK: usize = 512;
/// The most that Go's reader takes, and so the most that anybody writes.
const MOST_EXTENSION_BYTES: u64 = 1 << 20;
const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";
const MALFORMED_SPARSE: &str = "the map of a sparse file is malformed";

/// The header of an entry with its extensions worked in; its body follows in [`Entries::read`].
#[derive(Debug)]
pub struct Head {
    /// The path as it is written, wherever that leads.
    pub path: Vec<u8>,
    /// What a link leads to, as it is written.
    pub link: Vec<u8>,
    /// What it is.
    pub entry_type: EntryType,
    /// The length of its body, with the holes of a sparse file.
    pub size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    pub(super) xattrs: Xattrs,
    pub(super) device: (u32, u32),
}

/// Goes through an archive entry by entry, with bounded memory whatever it says.
#[derive(Debug)]
pub struct Entries<R> {
    input: BufReader<R>,
    /// Bytes of the current body that are not read yet, and of its padding.
    body: u64,
    padding: u64,
    /// The holes of the current entry, if it has any.
    sparse: Option<SparseMap>,
    /// The last entry, for messages.
    after: String,
    ended: bool,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Mtime>,
    xattrs: Xattrs,
    sparse: Option<SparseRecords>,
    any: bool,
}

impl<R: Read> Entries<R> {
    /// Reads from the beginning of an archive that is not compressed.
    pub fn new(input: R) -> Self {
        let input = BufReader::with_capacity(128 << 10, input);
        Self {
            input,
            body: 0,
            padding: 0,
            sparse: None,
            after: String::new(),
            ended: false,
        }
    }

    /// Whether the archive had its end mark.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn error(&self, source: io::Error) -> ApplyError {
        ApplyError::Archive {
            after: self.after.clone(),
            source,
        }
    }

    fn invalid(&self, reason: &'static str) -> ApplyError {
        self.error(io::Error::new(io::ErrorKind::InvalidData, reason))
    }

    /// Reads some of the current entry's body; zero at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ApplyError> {
        let Some(sparse) = &mut self.sparse else {
            return self.read_stored(buffer);
        };
        let within =
            |length: u64| usize::try_from(length).map_or(buffer.len(), |l| l.min(buffer.len()));
        let length = match sparse.next() {
            Next::End => 0,
            Next::Hole(length) => {
                let length = within(length);
                buffer[..length].fill(0);
                length
            }
            Next::Bytes(length) => {
                let length = within(length);
                self.read_stored(&mut buffer[..length])?
            }
        };
        if let Some(sparse) = &mut self.sparse {
            sparse.advance(length as u64);
        }
        Ok(length)
    }

    /// Reads some of what the archive has of the current entry; zero at its end.
    fn read_stored(&mut self, buffer: &mut [u8]) -> Result<usize, ApplyError> {
        let most = usize::try_from(self.body).map_or(buffer.len(), |body| body.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        loop {
            match self.input.read(&mut buffer[..most]) {
                Ok(0) => return Err(self.invalid("the archive ends within a file")),
                Ok(length) => {
                    self.body -= length as u64;
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
    }

    /// Goes to the next entry, past what is left of the current one.
    #[allow(clippy::should_implement_trait)] // it borrows, and fails
    pub fn next(&mut self) -> Result<Option<Head>, ApplyError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                if extensions.any {
                    return Err(self.invalid("an extension header extends nothing"));
                }
                return Ok(None);
            };
            let size = self.number(&header.as_old().size)?;
            let size = u64::try_from(size).map_err(|_| self.invalid("a size is negative"))?;
            match header.entry_type() {
                EntryType::XGlobalHeader => self.begin(size)?,
                EntryType::XHeader => {
                    let records = self.extension(size)?;
                    self.pax(&records, &mut extensions)?;
                }
                EntryType::GNULongName => {
                    let name = self.extension(size)?;
                    extensions.path.get_or_insert_with(|| until_nul(&name));
                    extensions.any = true;
                }
                EntryType::GNULongLink => {
                    let name = self.extension(size)?;
                    extensions.link.get_or_insert_with(|| until_nul(&name));
                    extensions.any = true;
                }
                entry_type => {
                    let mut sparse = extensions.sparse.take();
                    if let Some(name) = sparse.as_mut().and_then(|sparse| sparse.name.take()) {
                        extensions.path = Some(name);
                    }
                    let mut head = self.head(&header, entry_type, size, extensions)?;
                    self.after = path::display(&head.path);
                    self.begin(head.size)?;
                    if let Some(sparse) = sparse.filter(|_| head.entry_type == EntryType::Regular) {
                        self.expand(&mut head, sparse)?;
                    }
                    return Ok(Some(head));
                }
            }
        }
    }

    /// Reads the rest of the input, whatever it is, so that whoever digests it sees all of it.
    pub(super) fn drain(&mut self, most: u64) -> Result<(), ApplyError> {
        let drained = io::copy(&mut (&mut self.input).take(most), &mut io::sink());
        if drained.map_err(|error| self.error(error))? == most {
            return Err(self.invalid("too much follows the end of the archive"));
        }
        Ok(())
    }

    /// Lets the current entry be read with its holes.
    fn expand(&mut self, head: &mut Head, mut records: SparseRecords) -> Result<(), ApplyError> {
        match records.in_body() {
            Some(false) => {}
            Some(true) => {
                let mut blocks = Vec::new();
                while records.take_body(&blocks).is_none() {
                    let have = blocks.len();
                    blocks.resize(have + BLOCK, 0);
                    let mut filled = have;
                    while filled < blocks.len() {
                        let length = self.read_stored(&mut blocks[filled..])?;
                        if length == 0 || have as u64 > MOST_EXTENSION_BYTES {
                            return Err(self.invalid(MALFORMED_SPARSE));
                        }
                        filled += length;
                    }
                }
            }
            None => {
                return Err(self.invalid("a sparse file is of an unknown form"));
            }
        }
        let map = records.map(self.body);
        let map = map.ok_or_else(|| self.invalid(MALFORMED_SPARSE))?;
        head.size = map.size();
        self.sparse = Some(map);
        Ok(())
    }

    fn begin(&mut self, size: u64) -> Result<(), ApplyError> {
        self.sparse = None;
        self.body = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(())
    }

    fn skip(&mut self) -> Result<(), ApplyError> {
        let left = self.body.saturating_add(self.padding);
        (self.body, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.input).take(left), &mut io::sink());
        if skipped.map_err(|error| self.error(error))? != left {
            return Err(self.invalid("the archive ends within an entry"));
        }
        Ok(())
    }

    fn header(&mut self) -> Result<Option<Header>, ApplyError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut have = 0;
        while have < BLOCK {
            match self.input.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) if self.after.is_empty() => {
                    return Err(self.invalid("this is no tar archive"));
                }
                Ok(0) => return Err(self.invalid("the archive ends within a header")),
                Ok(length) => have += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        if block.iter().all(|&byte| byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let unsigned = |sum: i64, byte: &u8| sum + i64::from(*byte);
        let signed = |sum: i64, byte: &u8| sum + i64::from(*byte as i8);
        let others = || block[..148].iter().chain(&block[156..]);
        let spaces = 8 * i64::from(b' ');
        let sums = (
            others().fold(spaces, unsigned),
            others().fold(spaces, signed),
        );
        let told = self.number(&header.as_old().cksum).ok();
        if told != Some(sums.0) && told != Some(sums.1) {
            return Err(self.invalid(
                "a header has the wrong checksum: this is not a tar archive, or it is damaged",
            ));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ApplyError> {
        if size > MOST_EXTENSION_BYTES {
            return Err(ApplyError::TooLarge {
                what: "bytes in an extension header",
                limit: MOST_EXTENSION_BYTES,
            });
        }
        self.begin(size)?;
        let mut bytes = vec![0; size as usize];
        let mut have = 0;
        while have < bytes.len() {
            have += self.read(&mut bytes[have..])?;
        }
        Ok(bytes)
    }

    /// Reads a number field: octal digits, or base 256 where the first bit is set.
    fn number(&self, field: &[u8]) -> Result<i64, ApplyError> {
        if field[0] & 0x80 != 0 {
            let negative = field[0] & 0x40 != 0;
            let first = if negative {
                i128::from(field[0] as i8)
            } else {
                i128::from(field[0] & 0x7f)
            };
            let value = field[1..].iter().try_fold(first, |value, &byte| {
                value.checked_mul(256).map(|value| value + i128::from(byte))
            });
            let value = value.and_then(|value| i64::try_from(value).ok());
            return value.ok_or_else(|| self.invalid("a number is too large"));
        }
        let digits = field.iter().skip_while(|byte| **byte == b' ');
        digits
            .take_while(|byte| !matches!(**byte, 0 | b' '))
            .try_fold(0, |value: i64, byte| match byte {
                b'0'..=b'7' => value
                    .checked_mul(8)
                    .map(|value| value + i64::from(byte - b'0'))
                    .ok_or_else(|| self.invalid("a number is too large")),
                _ => Err(self.invalid("a number is not octal")),
            })
    }

    fn id(&self, field: &[u8]) -> Result<u32, ApplyError> {
        u32::try_from(self.number(field)?).map_err(|_| self.invalid("an owner is out of range"))
    }

    fn head(
        &self,
        header: &Header,
        entry_type: EntryType,
        size: u64,
        extensions: Extensions,
    ) -> Result<Head, ApplyError> {
        let old = header.as_old();
        let path = extensions
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        // Archives from before 1988 know a directory by its slash.
        let entry_type = match entry_type {
            EntryType::Regular if path.ends_with(b"/") => EntryType::Directory,
            EntryType::Continuous => EntryType::Regular,
            other => other,
        };
        let size = match entry_type {
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo => 0,
            _ => extensions.size.unwrap_or(size),
        };
        let device = match (entry_type, header.as_ustar(), header.as_gnu()) {
            (EntryType::Char | EntryType::Block, Some(ustar), _) => {
                (self.id(&ustar.dev_major)?, self.id(&ustar.dev_minor)?)
            }
            (EntryType::Char | EntryType::Block, _, Some(gnu)) => {
                (self.id(&gnu.dev_major)?, self.id(&gnu.dev_minor)?)
            }
            _ => (0, 0),
        };
        let mtime = match extensions.mtime {
            Some(mtime) => mtime,
            None => Mtime {
                seconds: self.number(&old.mtime)?,
                nanos: 0,
            },
        };
        Ok(Head {
            path,
            link: extensions.link.unwrap_or_else(|| until_nul(&old.linkname)),
            entry_type,
            size,
            mode: (self.number(&old.mode)? & 0o7777) as u32,
            uid: extensions.uid.map_or_else(|| self.id(&old.uid), Ok)?,
            gid: extensions.gid.map_or_else(|| self.id(&old.gid), Ok)?,
            mtime,
            xattrs: extensions.xattrs,
            device,
        })
    }

    fn pax(&self, mut records: &[u8], into: &mut Extensions) -> Result<(), ApplyError> {
        into.any = true;
        // Some writers pad the records with NULs.
        while records.first().is_some_and(|byte| *byte != 0) {
            let (key, value, rest) =
                record(records).ok_or_else(|| self.invalid("a PAX record is malformed"))?;
            records = rest;
            let number = || -> Result<u64, ApplyError> {
                let text = std::str::from_utf8(value).ok();
                text.and_then(|text| text.parse().ok())
                    .ok_or_else(|| self.invalid("a PAX number is malformed"))
            };
            let id =
                || u32::try_from(number()?).map_err(|_| self.invalid("an owner is out of range"));
            match key {
                // An empty value takes an earlier record back.
                b"path" => into.path = (!value.is_empty()).then(|| value.to_vec()),
                b"linkpath" => into.link = (!value.is_empty()).then(|| value.to_vec()),
                b"size" => into.size = Some(number()?),
                b"uid" => into.uid = Some(id()?),
                b"gid" => into.gid = Some(id()?),
                b"mtime" => {
                    let mtime = pax_time(value);
                    into.mtime =
                        Some(mtime.ok_or_else(|| self.invalid("a PAX time is malformed"))?);
                }
                _ if key.starts_with(SPARSE) => {
                    let sparse = into.sparse.get_or_insert_default();
                    if !sparse.take(&key[SPARSE.len()..], value) {
                        return Err(self.invalid(MALFORMED_SPARSE));
                    }
                }
                _ => {
                    if let Some(name) = key
                        .strip_prefix(XATTR)
                        .filter(|name| is_content_xattr(name))
                    {
                        into.xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
        }
        Ok(())
    }
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default()
        .to_vec()
}

/// Splits `LENGTH KEY=VALUE\n` off; the length counts itself and the newline.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let pair = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    Some((&pair[..equals], &pair[equals + 1..], &records[length..]))
}

/// Reads decimal seconds since the epoch; digits beyond nanoseconds are cut off.
fn pax_time(text: &[u8]) -> Option<Mtime> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: u32 = format!("{:0<9}", &part[..part.len().min(9)]).parse().ok()?;
    Some(match (negative, nanos) {
        (false, _) => Mtime { seconds, nanos },
        (true, 0) => Mtime {
            seconds: -seconds,
            nanos,
        },
        (true, _) => Mtime {
            seconds: -seconds - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(i64, u32)>) {
        let mtime = expected.map(|(seconds, nanos)| Mtime { seconds, nanos });
        assert_eq!(pax_time(text.as_bytes()), mtime, "{text}");
    }

    #[test]
    fn times() {
        check("1", Some((1, 0)));
        check("1.5", Some((1, 500_000_000)));
        check("1.0000000019", Some((1, 1)));
        check("-1.5", Some((-2, 500_000_000)));
        check("-1", Some((-1, 0)));
        check("", None);
        check("1e3", None);
        check("+1", None);
        check("99999999999999999999", None);
    }

    #[test]
    fn records_may_hold_newlines() {
        let (key, value, rest) = record(b"8 a=b\nc\n7 d=e\n").unwrap_or_default();
        assert_eq!(
            (key, value, rest),
            (b"a".as_slice(), b"b\nc".as_slice(), b"7 d=e\n".as_slice())
        );
        for bad in [
            "8 a=b\n",
            "1 a",
            "99999999999999999999999 a=b\n",
            "6 ab\n\n",
            "x a=b\n",
        ] {
            assert!(record(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
