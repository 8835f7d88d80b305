//! A package's header: an index of tags and their data, big-endian (rpm's "header image").

use super::bytes::{be32, part};

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const VENDOR: u32 = 1011;
const LICENSE: u32 = 1014;
const URL: u32 = 1020;
const ARCH: u32 = 1022;
const SOURCE: u32 = 1044;

const INT32: u32 = 4;
const STRING: u32 = 6;
const STRINGS: u32 = 8;
const TRANSLATED: u32 = 9;

/// The most tags of a header, as rpm has it.
const MOST_TAGS: u32 = 0xffff;

/// What is taken of a header.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) release: String,
    pub(super) epoch: Option<u32>,
    pub(super) vendor: String,
    pub(super) license: String,
    pub(super) url: String,
    pub(super) arch: String,
    pub(super) source: String,
}

impl Header {
    /// Reads a header; none if it is not one.
    pub(super) fn parse(blob: &[u8]) -> Option<Header> {
        let (tags, length) = (be32(blob, 0)?, be32(blob, 4)?);
        if tags == 0 || tags > MOST_TAGS {
            return None;
        }
        let index = part(blob, 8, tags as usize * 16)?;
        let data = part(blob, 8 + index.len(), length as usize)?;
        let mut header = Header::default();
        for entry in index.chunks_exact(16) {
            let (tag, kind, offset) = (be32(entry, 0)?, be32(entry, 4)?, be32(entry, 8)? as usize);
            let text = || {
                let rest = data.get(offset..).unwrap_or_default();
                let end = rest.iter().position(|byte| *byte == 0)?;
                matches!(kind, STRING | STRINGS | TRANSLATED)
                    .then(|| String::from_utf8_lossy(&rest[..end]).into_owned())
            };
            let field = match tag {
                NAME => &mut header.name,
                VERSION => &mut header.version,
                RELEASE => &mut header.release,
                VENDOR => &mut header.vendor,
                LICENSE => &mut header.license,
                URL => &mut header.url,
                ARCH => &mut header.arch,
                SOURCE => &mut header.source,
                EPOCH => {
                    header.epoch = (kind == INT32).then(|| be32(data, offset)).flatten();
                    continue;
                }
                _ => continue,
            };
            *field = text().unwrap_or_default();
        }
        Some(header)
    }
}
