//! rpm's database, in the three forms that images have: SQLite, ndb and Berkeley DB.

mod berkeley;
mod bytes;
mod header;
mod ndb;
mod sqlite;

use super::os_release::Distribution;
use super::package::{Listed, Package, clean};
use super::purl::Purl;
use header::Header;

/// The most packages of one database.
const MOST: usize = 100_000;

/// Reads a database, whichever form it has.
pub(super) fn read(bytes: &[u8], distribution: &Distribution) -> Listed {
    let blobs = if bytes.starts_with(sqlite::MAGIC) {
        sqlite::blobs(bytes)?
    } else if bytes.starts_with(ndb::MAGIC) {
        ndb::blobs(bytes)?
    } else if berkeley::is_one(bytes) {
        berkeley::blobs(bytes)?
    } else if bytes.is_empty() {
        Vec::new()
    } else {
        return Err("neither SQLite, ndb nor a Berkeley DB hash".into());
    };
    let mut packages = Vec::with_capacity(blobs.len());
    let mut malformed = 0_usize;
    for blob in &blobs {
        match Header::parse(blob) {
            // Keys that packages are checked with are listed as packages.
            Some(header) if header.name == "gpg-pubkey" => {}
            Some(header) if !header.name.is_empty() && !header.version.is_empty() => {
                packages.push(package(&header, distribution));
            }
            _ => malformed += 1,
        }
    }
    match packages.is_empty() && malformed > 0 {
        true => Err("no record of it is a package".into()),
        false => Ok(packages),
    }
}

fn package(header: &Header, distribution: &Distribution) -> Package {
    let version = match header.release.as_str() {
        "" => header.version.clone(),
        release => format!("{}-{release}", header.version),
    };
    let epoch = header.epoch.map(|epoch| epoch.to_string());
    let purl = Purl::new("rpm", &header.name, &version)
        .within(distribution.namespace("rpm"))
        .with("arch", &header.arch)
        .with("epoch", epoch.as_deref().unwrap_or_default())
        .with("distro", &distribution.qualifier())
        .with("upstream", &header.source);
    Package {
        supplier: clean(&header.vendor),
        homepage: clean(&header.url),
        ..Package::new(purl).licensed(&header.license)
    }
}

#[cfg(test)]
pub(super) mod tests;
