//! What differs between two files whose bytes do: the line of a text, or what is inside an archive.
//!
//! Both are given whole, so they are small; whatever they claim to be, reading them is bounded.

use std::io::{self, Read};

use super::{LineDifference, MOST_INSIDE_BYTES};
use crate::archive::{decompress, first_block, is_tar};

/// Archives within archives are looked into so far.
const MOST_DEPTH: usize = 4;
/// Longer lines are cut; what differs in one stands at an offset anyhow.
const MOST_LINE_CHARS: usize = 200;

/// What a look inside found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Inside {
    /// From the outside in, such as `gzip`, `tar entry a/b`.
    pub(super) path: Vec<String>,
    /// What differs there, in words; empty where only the bytes do.
    pub(super) what: String,
    /// The first line that differs, of texts.
    pub(super) lines: Option<LineDifference>,
}

impl Inside {
    fn said(what: impl Into<String>) -> Inside {
        Inside {
            what: what.into(),
            ..Inside::default()
        }
    }

    fn within(mut self, part: impl Into<String>) -> Inside {
        self.path.insert(0, part.into());
        self
    }
}

/// The offset of the first byte that differs; none if the two are equal.
pub(super) fn offset(one: &[u8], two: &[u8]) -> Option<u64> {
    if one.len() == two.len() && one == two {
        return None;
    }
    let same = one.iter().zip(two).take_while(|(a, b)| a == b).count();
    Some(same as u64)
}

/// Looks into two files of one name that differ.
pub(super) fn look(name: &[u8], one: &[u8], two: &[u8]) -> Inside {
    look_at(name, one, two, 0)
}

fn look_at(name: &[u8], one: &[u8], two: &[u8], depth: usize) -> Inside {
    if depth < MOST_DEPTH {
        let readers = [gzip, other_compression, tar, ar, zip];
        if let Some(found) = readers.iter().find_map(|read| read(name, one, two, depth)) {
            return found;
        }
    }
    if name.ends_with(b".pyc")
        && let Some(found) = pyc(one, two)
    {
        return found;
    }
    Inside {
        lines: lines(one, two),
        ..Inside::default()
    }
}

/// The first line that two texts have differently; none if either is no text.
fn lines(one: &[u8], two: &[u8]) -> Option<LineDifference> {
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        (!text.contains('\0')).then(|| text.to_owned())
    };
    let (one, two) = (text(one)?, text(two)?);
    let (mut first, mut second) = (one.split('\n'), two.split('\n'));
    let mut number = 0;
    loop {
        number += 1;
        match (first.next(), second.next()) {
            (None, None) => return None,
            (a, b) if a == b => {}
            (a, b) => {
                let both = a
                    .unwrap_or_default()
                    .chars()
                    .zip(b.unwrap_or_default().chars());
                let same = both.take_while(|(a, b)| a == b).count();
                return Some(LineDifference {
                    number,
                    one: a.map(|line| around(line, same)),
                    two: b.map(|line| around(line, same)),
                });
            }
        }
    }
}

/// A line, of which one that is long has only what stands around the character `at`.
fn around(line: &str, at: usize) -> String {
    let start = at.saturating_sub(MOST_LINE_CHARS / 2);
    let mut chars = line.chars().skip(start);
    let mut shown = String::new();
    if start > 0 {
        shown.push('…');
    }
    shown.extend(chars.by_ref().take(MOST_LINE_CHARS));
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(two.try_into().ok()?))
}

/// Unpacks as much as may be held; none if it is damaged or holds more.
fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let reader = decompress(io::Cursor::new(bytes.to_vec())).ok()?;
    reader
        .take(MOST_INSIDE_BYTES + 1)
        .read_to_end(&mut out)
        .ok()?;
    (out.len() as u64 <= MOST_INSIDE_BYTES).then_some(out)
}

/// gzip (RFC 1952): what it holds, else the time in its header.
fn gzip(name: &[u8], one: &[u8], two: &[u8], depth: usize) -> Option<Inside> {
    let is = |bytes: &[u8]| bytes.starts_with(&[0x1f, 0x8b]);
    if !is(one) || !is(two) {
        return None;
    }
    let (first, second) = (unpack(one)?, unpack(two)?);
    if first != second {
        let name = name.strip_suffix(b".gz").unwrap_or(name);
        return Some(look_at(name, &first, &second, depth + 1).within("gzip"));
    }
    let (a, b) = (u32_at(one, 4)?, u32_at(two, 4)?);
    Some(Inside::said(match a == b {
        true => "gzip: what it holds is equal, and packed differently".to_owned(),
        false => format!("gzip: what it holds is equal; the time in its header is {a} and {b}"),
    }))
}

/// zstd, xz and bzip2 have no times of their own.
fn other_compression(name: &[u8], one: &[u8], two: &[u8], depth: usize) -> Option<Inside> {
    let kinds: [(&[u8], &str); 3] = [
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
        (b"BZh", "bzip2"),
    ];
    let both = |magic: &[u8]| one.starts_with(magic) && two.starts_with(magic);
    let (_, kind) = kinds.into_iter().find(|(magic, _)| both(magic))?;
    let (first, second) = (unpack(one)?, unpack(two)?);
    Some(match first == second {
        true => Inside::said(format!(
            "{kind}: what it holds is equal, and packed differently"
        )),
        false => look_at(name, &first, &second, depth + 1).within(kind),
    })
}

/// tar: the first entry that differs, and in what.
fn tar(_: &[u8], one: &[u8], two: &[u8], depth: usize) -> Option<Inside> {
    let is = |mut bytes: &[u8]| first_block(&mut bytes).is_ok_and(|block| is_tar(&block));
    if !is(one) || !is(two) {
        return None;
    }
    let (mut first, mut second) = (tar::Archive::new(one), tar::Archive::new(two));
    let (mut first, mut second) = (first.entries().ok()?, second.entries().ok()?);
    loop {
        let (a, b) = (first.next(), second.next());
        let (mut a, mut b) = match (a, b) {
            (Some(Ok(a)), Some(Ok(b))) => (a, b),
            (Some(Ok(more)), None) | (None, Some(Ok(more))) => {
                let path = shown(&more.path_bytes());
                return Some(
                    Inside::said(format!("only one of them has the entry {path}")).within("tar"),
                );
            }
            _ => return None,
        };
        let (path, other) = (a.path_bytes().into_owned(), b.path_bytes().into_owned());
        if path != other {
            let (path, other) = (shown(&path), shown(&other));
            let what = format!("the entries come in another order: {path} and {other}");
            return Some(Inside::said(what).within("tar"));
        }
        let entry = format!("tar entry {}", shown(&path));
        let fields = |header: &tar::Header| {
            [
                ("mode", header.mode().ok().map(u64::from)),
                ("owner", header.uid().ok()),
                ("group", header.gid().ok()),
                ("time", header.mtime().ok()),
            ]
        };
        for ((what, a), (_, b)) in fields(a.header()).into_iter().zip(fields(b.header())) {
            if a != b {
                let number =
                    |value: Option<u64>| value.map_or("none".to_owned(), |n| n.to_string());
                let what = format!("its {what} is {} and {}", number(a), number(b));
                return Some(Inside::said(what).within(entry));
            }
        }
        let read = |entry: &mut dyn Read| {
            let mut bytes = Vec::new();
            entry.take(MOST_INSIDE_BYTES).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let (a, b) = (read(&mut a)?, read(&mut b)?);
        if a != b {
            return Some(look_at(&path, &a, &b, depth + 1).within(entry));
        }
    }
}

/// Unix archives, of static libraries and Debian packages: the first member that differs.
fn ar(_: &[u8], one: &[u8], two: &[u8], depth: usize) -> Option<Inside> {
    const MAGIC: &[u8] = b"!<arch>\n";
    if !one.starts_with(MAGIC) || !two.starts_with(MAGIC) {
        return None;
    }
    let mut at = MAGIC.len();
    loop {
        let (a, b) = (member(one, at)?, member(two, at)?);
        let name = format!("ar member {}", a.name);
        if a.name != b.name {
            let what = format!(
                "the members come in another order: {} and {}",
                a.name, b.name
            );
            return Some(Inside::said(what));
        }
        if a.time != b.time {
            let what = format!("its time is {} and {}", a.time, b.time);
            return Some(Inside::said(what).within(name));
        }
        if a.body != b.body {
            let file = a.name.trim_end_matches('/').as_bytes();
            return Some(look_at(file, a.body, b.body, depth + 1).within(name));
        }
        at = a.next;
    }
}

struct Member<'a> {
    name: String,
    time: String,
    body: &'a [u8],
    next: usize,
}

/// The member whose header of 60 bytes begins here.
fn member(bytes: &[u8], at: usize) -> Option<Member<'_>> {
    let header = bytes.get(at..at.checked_add(60)?)?;
    let field = |from: usize, to: usize| {
        let text = header.get(from..to).unwrap_or_default();
        String::from_utf8_lossy(text).trim().to_owned()
    };
    let size: usize = field(48, 58).parse().ok()?;
    let body = bytes.get(at + 60..(at + 60).checked_add(size)?)?;
    Some(Member {
        name: field(0, 16),
        time: field(16, 28),
        body,
        next: at + 60 + size + size % 2,
    })
}

/// zip: the first entry of the central directory that differs (APPNOTE, 4.3.12).
fn zip(_: &[u8], one: &[u8], two: &[u8], _: usize) -> Option<Inside> {
    if !one.starts_with(b"PK\x03\x04") || !two.starts_with(b"PK\x03\x04") {
        return None;
    }
    let (first, second) = (entries(one)?, entries(two)?);
    for (a, b) in first.iter().zip(&second) {
        let entry = format!("zip entry {}", a.name);
        if a.name != b.name {
            let what = format!(
                "the entries come in another order: {} and {}",
                a.name, b.name
            );
            return Some(Inside::said(what));
        }
        if a.check != b.check {
            return Some(Inside::said("its content differs").within(entry));
        }
        if a.time != b.time {
            return Some(Inside::said("its time differs").within(entry));
        }
    }
    match first.len() == second.len() {
        true => Some(Inside::said(
            "zip: its entries are equal, and packed differently",
        )),
        false => Some(Inside::said("zip: one has more entries than the other")),
    }
}

struct ZipEntry {
    name: String,
    time: u32,
    check: (u32, u32),
}

fn entries(bytes: &[u8]) -> Option<Vec<ZipEntry>> {
    // The end record has a comment of at most 64 KiB behind it.
    let tail = bytes.len().saturating_sub(22 + 0xffff);
    let end = tail
        + bytes
            .get(tail..)?
            .windows(4)
            .rposition(|w| w == b"PK\x05\x06")?;
    let count = usize::from(u16_at(bytes, end + 10)?);
    let mut at = u32_at(bytes, end + 16)? as usize;
    let mut entries = Vec::new();
    for _ in 0..count {
        if bytes.get(at..at.checked_add(4)?)? != b"PK\x01\x02" {
            return None;
        }
        let length = |offset: usize| Some(usize::from(u16_at(bytes, at + offset)?));
        let (name, extra, comment) = (length(28)?, length(30)?, length(32)?);
        entries.push(ZipEntry {
            name: shown(bytes.get(at + 46..at + 46 + name)?),
            time: u32_at(bytes, at + 12)?,
            check: (u32_at(bytes, at + 16)?, u32_at(bytes, at + 24)?),
        });
        at = at + 46 + name + extra + comment;
    }
    Some(entries)
}

/// Python's compiled files begin with a version, flags, and the time of their source (PEP 552).
fn pyc(one: &[u8], two: &[u8]) -> Option<Inside> {
    let (a, b) = (u32_at(one, 8)?, u32_at(two, 8)?);
    let by_time = u32_at(one, 4)? == 0 && u32_at(two, 4)? == 0;
    if !by_time || a == b {
        return Some(Inside::said("pyc: the compiled code differs"));
    }
    let rest = match one.get(12..) == two.get(12..) {
        true => "the code is equal",
        false => "the code differs too",
    };
    Some(Inside::said(format!(
        "pyc: the time of its source is {a} and {b}; {rest}"
    )))
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check(name: &str, one: &[u8], two: &[u8], expected: &str) {
        let Inside { path, what, lines } = look(name.as_bytes(), one, two);
        let mut words = path;
        if !what.is_empty() {
            words.push(what);
        }
        if let Some(lines) = lines {
            let line = |line: Option<String>| line.unwrap_or_else(|| "nothing".to_owned());
            let (one, two) = (line(lines.one), line(lines.two));
            words.push(format!("line {}: {one} | {two}", lines.number));
        }
        assert_eq!(words.join(", "), expected);
    }

    fn gz(time: u32, bytes: &[u8]) -> Vec<u8> {
        let builder = flate2::GzBuilder::new().mtime(time);
        let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn archive(entries: &[(&str, u64, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, time, bytes) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_mtime(*time);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn texts_differ_in_a_line() {
        check("x", b"a\nb\nc\n", b"a\nB\nc\n", "line 2: b | B");
        check("x", b"a\n", b"a\nb", "line 2:  | b");
        check("x", b"a", b"a\n", "line 2: nothing | ");
        // Of long lines the part that differs.
        let long = |middle: &str| format!("{}{middle}{}", "ä".repeat(500), "b".repeat(500));
        let shown = |middle: &str| format!("…{}{middle}{}…", "ä".repeat(100), "b".repeat(99));
        check(
            "x",
            long("1").as_bytes(),
            long("2").as_bytes(),
            &format!("line 1: {} | {}", shown("1"), shown("2")),
        );
        let start = "a".repeat(200);
        let longer = format!("{start}b");
        check(
            "x",
            start.as_bytes(),
            longer.as_bytes(),
            &format!("line 1: …{0} | …{0}b", "a".repeat(100)),
        );
        let ends = format!("c{start}");
        check(
            "x",
            b"c",
            ends.as_bytes(),
            &format!("line 1: c | c{}…", "a".repeat(199)),
        );
        check("x", b"a\0b", b"a\0c", "");
        check("x", b"\xff", b"a", "");
    }

    #[test]
    fn archives_are_looked_into() {
        let said = "gzip: what it holds is equal; the time in its header is 1 and 2";
        check("x.gz", &gz(1, b"a"), &gz(2, b"a"), said);
        check("x.gz", &gz(1, b"a"), &gz(2, b"b"), "gzip, line 1: a | b");
        let one = archive(&[("a", 1, b"x"), ("b", 5, b"y")]);
        check(
            "x.tar.gz",
            &gz(0, &one),
            &gz(0, &archive(&[("a", 1, b"x"), ("b", 6, b"y")])),
            "gzip, tar entry b, its time is 5 and 6",
        );
        check(
            "x.tar",
            &one,
            &archive(&[("b", 5, b"y"), ("a", 1, b"x")]),
            "tar, the entries come in another order: a and b",
        );
        check(
            "x.tar",
            &one,
            &archive(&[("a", 1, b"z"), ("b", 5, b"y")]),
            "tar entry a, line 1: x | z",
        );
        check(
            "x.tar",
            &one,
            &archive(&[("a", 1, b"x")]),
            "tar, only one of them has the entry b",
        );
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        check("x", &zstd(b"a"), &zstd(b"b"), "zstd, line 1: a | b");
    }

    #[test]
    fn libraries_have_members() {
        let ar = |time: &str, body: &str| {
            let size = body.len();
            format!(
                "!<arch>\n{:<16}{time:<12}0     0     100644  {size:<10}`\n{body}",
                "a.o/"
            )
            .into_bytes()
        };
        check(
            "l.a",
            &ar("1", "xx"),
            &ar("2", "xx"),
            "ar member a.o/, its time is 1 and 2",
        );
        check(
            "l.a",
            &ar("1", "xx"),
            &ar("1", "yy"),
            "ar member a.o/, line 1: xx | yy",
        );
    }

    #[test]
    fn zips_have_entries() {
        let zip = |time: u16, check: u32| {
            let mut bytes = b"PK\x03\x04".to_vec();
            let start = bytes.len() as u32;
            bytes.extend_from_slice(b"PK\x01\x02");
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(&time.to_le_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes.extend_from_slice(&check.to_le_bytes());
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(&1_u16.to_le_bytes());
            bytes.extend_from_slice(&[0; 16]);
            bytes.push(b'a');
            let length = bytes.len() as u32 - start;
            bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes.extend_from_slice(&[0; 2]);
            bytes
        };
        check(
            "x.jar",
            &zip(1, 7),
            &zip(2, 7),
            "zip entry a, its time differs",
        );
        check(
            "x.jar",
            &zip(1, 7),
            &zip(1, 8),
            "zip entry a, its content differs",
        );
    }

    #[test]
    fn compiled_python_has_the_time_of_its_source() {
        let pyc = |time: u32, code: &str| {
            let mut bytes = vec![0xa7, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0];
            bytes.extend_from_slice(&time.to_le_bytes());
            bytes.extend_from_slice(&[9, 0, 0, 0]);
            bytes.extend_from_slice(code.as_bytes());
            bytes
        };
        check(
            "a.pyc",
            &pyc(1, "x"),
            &pyc(2, "x"),
            "pyc: the time of its source is 1 and 2; the code is equal",
        );
        check(
            "a.pyc",
            &pyc(1, "x"),
            &pyc(1, "y"),
            "pyc: the compiled code differs",
        );
    }

    #[test]
    fn what_only_looks_like_an_archive_is_bytes() {
        for bytes in [
            &b"\x1f\x8b"[..],
            b"PK\x03\x04PK\x05\x06",
            b"!<arch>\n",
            b"!<arch>\nxx",
            b"BZh9",
            b"",
        ] {
            let mut other = bytes.to_vec();
            other.push(0xff);
            look(b"x.pyc", bytes, &other);
            look(b"x.pyc", &other, bytes);
        }
        // Levels of packing end.
        let (mut one, mut two) = (b"a".to_vec(), b"b".to_vec());
        for _ in 0..10 {
            (one, two) = (gz(0, &one), gz(0, &two));
        }
        assert_eq!(look(b"x", &one, &two).path.len(), MOST_DEPTH);
    }
}
