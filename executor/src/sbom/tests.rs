//! Hostile input to every parser, and documents as they are written.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Cursor, Write};

use proptest::prelude::*;
use serde_json::Value;

use super::elf::Elf;
use super::os_release::Distribution;
use super::package::{Listed, Package};
use super::scan::{Inventory, Note};
use super::spdx::{Subject, document};
use super::*;

/// All that reads a whole file.
fn lists() -> Vec<fn(&[u8]) -> Listed> {
    vec![
        |bytes| dpkg::read(bytes, &Distribution::default()),
        |bytes| apk::read(bytes, &Distribution::default()),
        |bytes| rpm::read(bytes, &Distribution::default()),
        rust::read_lock,
        node::read_installed,
        node::read_npm_lock,
        node::read_yarn_lock,
        node::read_pnpm_lock,
        python::read_metadata,
        python::read_lock,
        python::read_pipfile_lock,
        python::read_requirements,
        go::read_mod,
        ruby::read_lock,
        ruby::read_gemspec,
        php::read,
        dart::read,
        |bytes| java::read(&mut Cursor::new(bytes), "a-1.jar"),
        program,
        |bytes| {
            dpkg::read_copyright(bytes);
            Ok(Vec::new())
        },
    ]
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn program(bytes: &[u8]) -> Listed {
    let file = file(bytes);
    let Some(elf) = Elf::open(&file)? else {
        return Ok(Vec::new());
    };
    let mut packages = go::read_binary(&elf)?;
    packages.extend(rust::read_binary(&elf)?);
    Ok(packages)
}

/// A zip archive of stored members.
fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    for (name, content) in members {
        let offset = archive.len() as u32;
        let (name_length, length) = (name.len() as u16, content.len() as u32);
        archive.extend_from_slice(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        archive.extend_from_slice(&length.to_le_bytes());
        archive.extend_from_slice(&length.to_le_bytes());
        archive.extend_from_slice(&name_length.to_le_bytes());
        archive.extend_from_slice(&[0, 0]);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(content);
        directory.extend_from_slice(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend_from_slice(&length.to_le_bytes());
        directory.extend_from_slice(&length.to_le_bytes());
        directory.extend_from_slice(&name_length.to_le_bytes());
        directory.extend_from_slice(&[0; 12]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (at, length) = (archive.len() as u32, directory.len() as u32);
    archive.extend_from_slice(&directory);
    archive.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    archive.extend_from_slice(&(members.len() as u16).to_le_bytes());
    archive.extend_from_slice(&(members.len() as u16).to_le_bytes());
    archive.extend_from_slice(&length.to_le_bytes());
    archive.extend_from_slice(&at.to_le_bytes());
    archive.extend_from_slice(&[0, 0]);
    archive
}

/// A 64-bit ELF file with one section beside that of the names.
fn elf(name: &str, section: &[u8]) -> Vec<u8> {
    let names = format!("\0{name}\0");
    let (names_at, section_at) = (64, 64 + names.len() as u64);
    let table_at = section_at + section.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(40, 0);
    bytes.extend_from_slice(&table_at.to_le_bytes());
    bytes.resize(58, 0);
    for number in [64_u16, 2, 0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(names.as_bytes());
    bytes.extend_from_slice(section);
    let entries = [
        (0_u32, names_at, names.len() as u64),
        (1, section_at, section.len() as u64),
    ];
    for (name, offset, size) in entries {
        bytes.extend_from_slice(&name.to_le_bytes());
        bytes.extend_from_slice(&[0; 20]);
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&[0; 24]);
    }
    bytes
}

/// Build information as Go has written it since 1.18.
fn go_program() -> Vec<u8> {
    let mut section = b"\xff Go buildinf:\x08\x02".to_vec();
    section.resize(32, 0);
    let list = "path\tx.org/app\nmod\tx.org/app\tv1.0.0\t\ndep\tgolang.org/x/sys\tv0.15.0\th1:x\n";
    let list = [&[0x30; 16][..], list.as_bytes(), &[0x31; 16]].concat();
    section.push(8);
    section.extend_from_slice(b"go1.22.1");
    section.push((list.len() & 0x7f) as u8 | 0x80);
    section.push((list.len() >> 7) as u8);
    section.extend_from_slice(&list);
    elf(".go.buildinfo", &section)
}

fn auditable_program() -> Vec<u8> {
    let json = br#"{"packages":[{"name":"serde","version":"1.0.200","source":"crates.io"},
        {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"}]}"#;
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(json).unwrap();
    elf(".dep-v0", &packer.finish().unwrap())
}

fn jar() -> Vec<u8> {
    let inner = zip(&[(
        "META-INF/maven/org.x/inner/pom.properties",
        b"groupId=org.x\nartifactId=inner\nversion=2.0\n",
    )]);
    zip(&[
        (
            "META-INF/MANIFEST.MF",
            b"Manifest-Version: 1.0\r\nImplementation-Version: 9\r\nBundle-SymbolicName: org.y.app\r\n\r\n",
        ),
        ("BOOT-INF/lib/inner-2.0.jar", &inner),
    ])
}

fn purls(listed: Listed) -> Vec<String> {
    let packages = listed.unwrap();
    packages
        .iter()
        .map(|package| package.purl.to_string())
        .collect()
}

#[test]
fn programs() {
    assert_eq!(
        purls(program(&go_program())),
        [
            "pkg:golang/stdlib@1.22.1",
            "pkg:golang/x.org/app@v1.0.0",
            "pkg:golang/golang.org/x/sys@v0.15.0",
        ]
    );
    assert_eq!(
        purls(program(&auditable_program())),
        ["pkg:cargo/serde@1.0.200"]
    );
    assert_eq!(program(b"#!/bin/sh\n"), Ok(vec![]));
}

#[test]
fn jars() {
    let read = |bytes: &[u8], name| purls(java::read(&mut Cursor::new(bytes), name));
    assert_eq!(
        read(&jar(), "app-1.5.jar"),
        ["pkg:maven/org.x/inner@2.0", "pkg:maven/org.y/app@1.5"]
    );
    let plain = zip(&[("META-INF/MANIFEST.MF", b"Implementation-Version: 9\n")]);
    assert_eq!(read(&plain, "lib.jar"), ["pkg:maven/lib@9"]);
    assert!(java::read(&mut Cursor::new(b"no zip"), "x.jar").is_err());
}

/// What parsers are given that would be right but for what is done to it.
fn right_ones() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = rpm::tests::databases().map(|(_, bytes)| bytes).collect();
    all.extend([go_program(), auditable_program(), jar()]);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        for read in lists() {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn any_text(text in "[ -~\n\t]{0,600}") {
        for read in lists() {
            let _ = read(text.as_bytes());
        }
        let _ = license::expression(&text);
    }

    #[test]
    fn damaged(which in 0..6_usize, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut in any::<prop::sample::Index>()) {
        let mut bytes = right_ones().swap_remove(which);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            let _ = rpm::read(bytes, &Distribution::default());
            let _ = java::read(&mut Cursor::new(bytes), "x-1.jar");
            let _ = program(bytes);
        }
    }
}

fn inventory() -> Inventory {
    let package = |kind, name: &str, license: &str, layer| {
        let mut package = Package::new(Purl::new(kind, name, "1.0")).licensed(license);
        package.layer = layer;
        package.found_in.insert("var/lib/dpkg/status".to_owned());
        package.supplier = "Jo Doe <jo@example.org>".to_owned();
        package
    };
    Inventory {
        distribution: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        packages: vec![
            package("cargo", "b", "MIT", 1),
            package("deb", "a+", "see file", 0),
        ],
        notes: vec![Note {
            path: "var/lib/rpm/Packages".to_owned(),
            reason: "it is cut off".to_owned(),
        }],
    }
}

fn subject() -> Subject {
    Subject {
        name: "app".to_owned(),
        digest: format!("sha256:{}", "0".repeat(64)),
        layers: vec![
            format!("sha256:{}", "1".repeat(64)),
            format!("sha256:{}", "2".repeat(64)),
        ],
        created: "2024-01-01T00:00:00Z".to_owned(),
        ..Subject::default()
    }
}

#[test]
fn a_document() {
    insta::assert_snapshot!(
        "document",
        format!("{:#}", document(&subject(), &inventory()))
    );
}

#[test]
fn ids_are_unique_and_name_what_is_there() {
    let document = document(&subject(), &inventory());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = document["packages"].as_array().unwrap();
    let mut ids: BTreeSet<String> = packages.iter().map(|one| text(&one["SPDXID"])).collect();
    assert_eq!(ids.len(), packages.len());
    ids.insert("SPDXRef-DOCUMENT".to_owned());
    for relation in document["relationships"].as_array().unwrap() {
        assert!(ids.contains(&text(&relation["spdxElementId"])));
        assert!(ids.contains(&text(&relation["relatedSpdxElement"])));
    }
    let legal = |id: &String| {
        let rest = id.strip_prefix("SPDXRef-").unwrap();
        rest.chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
    };
    assert!(ids.iter().all(legal));
}
