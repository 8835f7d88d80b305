//! Packed things: indexes, and single files of packages.

use std::io::{self, Read};

use crate::release::Packing;

/// No index of an archive is nearly as large.
const INDEX_LIMIT_BYTES: u64 = 1 << 30;
/// No program that is looked for is.
const FILE_LIMIT_BYTES: u64 = 64 << 20;
/// What a package begins with, and what each of its members does.
const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;

/// Why a package cannot be taken apart.
#[derive(Debug, thiserror::Error)]
pub enum PackedError {
    /// It is no archive of the kind that packages are.
    #[error("it is no Debian package")]
    Form,
    /// Its files are packed in a way that is not known here.
    #[error("its files are packed as `{0}`, which is not known here")]
    Packing(String),
    /// A file that it should have.
    #[error("there is no file `{0}` in it")]
    Missing(String),
    /// Its bytes are not what they should be.
    #[error("it cannot be unpacked")]
    Read(#[from] io::Error),
    /// It is larger than anything of its kind.
    #[error("it has more than {0} bytes")]
    Size(u64),
}

/// Unpacks an index.
pub fn index(bytes: &[u8], packing: Packing) -> Result<String, PackedError> {
    let mut text = String::new();
    let mut reader = unpack(bytes, packing).take(INDEX_LIMIT_BYTES);
    reader.read_to_string(&mut text)?;
    match reader.limit() {
        0 => Err(PackedError::Size(INDEX_LIMIT_BYTES)),
        _ => Ok(text),
    }
}

fn unpack<'a>(bytes: &'a [u8], packing: Packing) -> Box<dyn Read + 'a> {
    match packing {
        Packing::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(bytes)),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Packing::Plain => Box::new(bytes),
    }
}

/// Returns the bytes of a regular file of a package, whose path ends so.
pub fn file(package: &[u8], path: &str) -> Result<Vec<u8>, PackedError> {
    let (name, data) = data_member(package).ok_or(PackedError::Form)?;
    let packing = match name {
        "data.tar.xz" => Packing::Xz,
        "data.tar.gz" => Packing::Gzip,
        "data.tar" => Packing::Plain,
        other => return Err(PackedError::Packing(other.to_owned())),
    };
    let mut archive = tar::Archive::new(unpack(data, packing));
    let end = format!("/{path}");
    for entry in archive.entries()? {
        let entry = entry?;
        let is_it =
            entry.header().entry_type().is_file() && entry.path_bytes().ends_with(end.as_bytes());
        if !is_it {
            continue;
        }
        let mut bytes = Vec::new();
        let mut reader = entry.take(FILE_LIMIT_BYTES);
        reader.read_to_end(&mut bytes)?;
        return match reader.limit() {
            0 => Err(PackedError::Size(FILE_LIMIT_BYTES)),
            _ => Ok(bytes),
        };
    }
    Err(PackedError::Missing(path.to_owned()))
}

/// The member that holds the files, and its name (deb(5)).
fn data_member(package: &[u8]) -> Option<(&str, &[u8])> {
    let mut rest = package.strip_prefix(MAGIC)?;
    loop {
        let (header, after) = rest.split_at_checked(HEADER_BYTES)?;
        let header = std::str::from_utf8(header).ok()?;
        let name = header.get(..16)?.trim_end().trim_end_matches('/');
        let size: usize = header.get(48..58)?.trim_end().parse().ok()?;
        let (data, after) = after.split_at_checked(size)?;
        if name.starts_with("data.tar") {
            return Some((name, data));
        }
        // Members begin at even places.
        rest = after.get(size % 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, data) in members {
            let size = data.len();
            bytes.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644).bytes(),
            );
            bytes.extend(*data);
            bytes.extend(std::iter::repeat_n(b'\n', size % 2));
        }
        bytes
    }

    fn data() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o755);
        builder
            .append_data(&mut header, "./usr/bin/tool", &b"abc"[..])
            .unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn files_of_packages() {
        let bytes = package(&[
            ("debian-binary", b"2.0"),
            ("control.tar", b"x"),
            ("data.tar", &data()),
        ]);
        assert_eq!(file(&bytes, "bin/tool").unwrap(), b"abc");
        let error = file(&bytes, "bin/other").unwrap_err();
        assert_eq!(error.to_string(), "there is no file `bin/other` in it");
        let mut packed = Vec::new();
        liblzma::read::XzEncoder::new(&data()[..], 6)
            .read_to_end(&mut packed)
            .unwrap();
        assert_eq!(
            file(&package(&[("data.tar.xz", &packed)]), "bin/tool").unwrap(),
            b"abc"
        );
        let error = file(&package(&[("data.tar.xz", &packed[..20])]), "bin/tool").unwrap_err();
        assert_eq!(error.to_string(), "it cannot be unpacked");
        let error = file(&package(&[("data.tar.zst", b"")]), "bin/tool").unwrap_err();
        assert_eq!(
            error.to_string(),
            "its files are packed as `data.tar.zst`, which is not known here"
        );
    }

    #[test]
    fn what_is_no_package() {
        let whole = package(&[("debian-binary", b"2.0"), ("data.tar", &data())]);
        for length in [0, 5, 8, 40, 68, 71, 80, whole.len() - 1] {
            let error = file(&whole[..length], "bin/tool").unwrap_err();
            assert_eq!(error.to_string(), "it is no Debian package", "{length}");
        }
        let wrong = package(&[("debian-binary", b"2.0")]);
        assert!(matches!(file(&wrong, "x"), Err(PackedError::Form)));
    }

    #[test]
    fn indexes() {
        let mut packed = Vec::new();
        liblzma::read::XzEncoder::new(&b"A: 1\n"[..], 6)
            .read_to_end(&mut packed)
            .unwrap();
        assert_eq!(index(&packed, Packing::Xz).unwrap(), "A: 1\n");
        assert_eq!(index(b"A: 1\n", Packing::Plain).unwrap(), "A: 1\n");
        assert!(index(b"A: 1\n", Packing::Gzip).is_err());
        assert!(index(b"\xff", Packing::Plain).is_err());
    }
}
