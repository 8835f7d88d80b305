//! Databases that rpm, Berkeley DB's `db_load` and a script made of the same two packages.

use super::*;

const FORMS: [(&str, &[u8]); 3] = [
    ("SQLite", include_bytes!("testdata/rpmdb.sqlite.zst")),
    ("Berkeley DB", include_bytes!("testdata/Packages.zst")),
    ("ndb", include_bytes!("testdata/Packages.db.zst")),
];

/// The databases, by the names of their forms.
pub(in crate::sbom) fn databases() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    FORMS
        .into_iter()
        .map(|(form, packed)| (form, zstd::decode_all(packed).unwrap()))
}

#[test]
fn all_forms() {
    let fedora = Distribution {
        id: "fedora".into(),
        version: "40".into(),
        ..Distribution::default()
    };
    for (form, bytes) in databases() {
        let mut found: Vec<(String, String)> = read(&bytes, &fedora)
            .unwrap()
            .into_iter()
            .map(|package| (package.purl.to_string(), package.license))
            .collect();
        found.sort();
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(purl, license)| (purl.as_str(), license.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    "pkg:rpm/fedora/hello@1.2.3-4?arch=noarch&distro=fedora-40&epoch=2&upstream=hello-1.2.3-4.src.rpm",
                    "MIT AND GPL-2.0-or-later"
                ),
                (
                    "pkg:rpm/fedora/world@1.2.3-4?arch=noarch&distro=fedora-40&upstream=world-1.2.3-4.src.rpm",
                    "Public Domain"
                ),
            ],
            "{form}"
        );
    }
}

#[test]
fn what_is_no_database() {
    let nowhere = Distribution::default();
    assert!(read(b"no database", &nowhere).is_err());
    assert!(read(b"SQLite format 3\0", &nowhere).is_err());
    assert!(read(b"RpmP", &nowhere).is_err());
    assert_eq!(read(b"", &nowhere), Ok(vec![]));
}
