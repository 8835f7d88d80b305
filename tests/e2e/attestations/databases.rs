//! Databases as real package managers write them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{check_spdx, spdx};
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("of_rpm", &[Containers, Rpm], of_rpm),
        case(
            "of_rpm_in_berkeley_db",
            &[Containers, Rpm, BerkeleyDb, Python],
            of_rpm_in_berkeley_db,
        ),
        case("of_this_debian", &[Containers, Dpkg], of_this_debian),
    ]
}

/// Name, version and qualifiers of each package of a document.
fn packages(document: &Value) -> BTreeSet<(String, String, String)> {
    check_spdx(document);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = document["packages"].as_array().unwrap().iter();
    let packages = packages.filter(|one| one.get("externalRefs").is_some());
    packages
        .map(|one| {
            let purl = text(&one["externalRefs"][0]["referenceLocator"]);
            let qualifiers = purl.split_once('?').map_or("", |(_, rest)| rest);
            let name = text(&one["name"]);
            let name = name.rsplit('/').next().unwrap();
            (
                name.to_owned(),
                text(&one["versionInfo"]),
                qualifiers.to_owned(),
            )
        })
        .collect()
}

/// Builds three packages and lets rpm install them into a database in the directory `rpm`.
fn rpm_database(world: &World) {
    // A header of many pages, an epoch, and a license in several words.
    let long = "So it goes on and on. ".repeat(2000);
    for (name, fields, text) in [
        ("plain", "License: MIT", "Plain."),
        ("with-epoch", "Epoch: 2\nLicense: GPLv2+ and MIT", "Old."),
        (
            "long",
            "License: Apache-2.0\nURL: https://example.org/long",
            long.as_str(),
        ),
    ] {
        let spec = format!(
            "Name: {name}\nVersion: 1.2.3\nRelease: 4.fc40\nSummary: {name}\nBuildArch: noarch\n\
             {fields}\n%description\n{text}\n%files\n"
        );
        world.write(&format!("{name}.spec"), spec);
        let top = format!("_topdir {}", world.path("top").display());
        let file = format!("{name}.spec");
        let line = [
            "-bb",
            "--quiet",
            "--define",
            &top,
            "--define",
            "_rpmfilename %%{NAME}.rpm",
            &file,
        ];
        world.program("rpmbuild", &line).ok();
    }
    let database = world.path("rpm").display().to_string();
    let file = |name: &str| {
        world
            .path(&format!("top/RPMS/{name}.rpm"))
            .display()
            .to_string()
    };
    let (plain, epoch, long) = (file("plain"), file("with-epoch"), file("long"));
    let line = [
        "--dbpath",
        &database,
        "-i",
        "--justdb",
        "--nodeps",
        "--ignorearch",
        "--ignoreos",
        &plain,
        &epoch,
        &long,
    ];
    world.program("rpm", &line).ok();
    let listed = world.program("rpm", &["--dbpath", &database, "-qa"]).ok();
    assert_eq!(listed.stdout.lines().count(), 3, "{}", listed.stdout);
}

/// Scans an image with this file in rpm's directory, and checks what is found.
fn check_rpm(world: &World, file: &str) {
    let name = file.rsplit('/').next().unwrap();
    let bytes = std::fs::read(world.path(file)).unwrap();
    world.write(&format!("ctx/var/lib/rpm/{name}"), bytes);
    world.write("ctx/etc/os-release", "ID=fedora\nVERSION_ID=40\n");
    world.dockerfile("FROM scratch\nCOPY var /var\nCOPY etc /etc\n");
    world.kiln(&["build", "-q", "-t", "app", "ctx"]).ok();
    let document = spdx(world, "app");
    assert!(document.get("annotations").is_none(), "{document:#}");
    let expected = [
        ("long", "arch=noarch&distro=fedora-40"),
        ("plain", "arch=noarch&distro=fedora-40"),
        ("with-epoch", "arch=noarch&distro=fedora-40&epoch=2"),
    ];
    let expected = expected.map(|(name, qualifiers)| {
        (
            name.to_owned(),
            "1.2.3-4.fc40".to_owned(),
            qualifiers.to_owned(),
        )
    });
    assert_eq!(
        without_upstream(packages(&document)),
        BTreeSet::from(expected)
    );
    let licenses = world.kiln(&["sbom", "app"]).ok().stdout;
    assert!(licenses.contains("Apache-2.0"), "{licenses}");
}

/// The same without the source packages, whose names end in those of files.
fn without_upstream(
    packages: BTreeSet<(String, String, String)>,
) -> BTreeSet<(String, String, String)> {
    let plain = |qualifiers: String| {
        let kept = qualifiers
            .split('&')
            .filter(|one| !one.starts_with("upstream="));
        kept.collect::<Vec<_>>().join("&")
    };
    packages
        .into_iter()
        .map(|(name, version, qualifiers)| (name, version, plain(qualifiers)))
        .collect()
}

fn of_rpm(world: &World) {
    rpm_database(world);
    check_rpm(world, "rpm/rpmdb.sqlite");
}

/// Writes what rpm's database holds as Berkeley DB's own tool reads it.
const DUMP: &str = r#"
import sqlite3, struct
rows = list(sqlite3.connect("rpm/rpmdb.sqlite").execute("select hnum, blob from Packages"))
number = lambda value: struct.pack("<I", value)
pairs = [(number(0), number(max(row[0] for row in rows)))]
pairs += [(number(row[0]), row[1]) for row in rows]
print("VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize=4096\nHEADER=END")
for key, value in pairs:
    print(" " + key.hex() + "\n " + value.hex())
print("DATA=END")
"#;

fn of_rpm_in_berkeley_db(world: &World) {
    rpm_database(world);
    world.write("dump.py", DUMP);
    let dump = world.program("python3", &["dump.py"]).ok().stdout;
    world.write("dump", dump);
    std::fs::create_dir(world.path("old")).unwrap();
    world
        .program("db_load", &["-f", "dump", "old/Packages"])
        .ok();
    // rpm takes it for one of its own.
    let database = world.path("old").display().to_string();
    let line = [
        "--dbpath",
        &database,
        "--define",
        "_db_backend bdb_ro",
        "-qa",
    ];
    let listed = world.program("rpm", &line).ok().stdout;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    check_rpm(world, "old/Packages");
}

fn of_this_debian(world: &World) {
    let status = std::fs::read("/var/lib/dpkg/status").unwrap();
    world.write("ctx/var/lib/dpkg/status", &status);
    world.dockerfile("FROM scratch\nCOPY var /var\n");
    world.kiln(&["build", "-q", "-t", "app", "ctx"]).ok();
    let found: BTreeSet<String> = packages(&spdx(world, "app"))
        .into_iter()
        .map(|(name, version, qualifiers)| {
            let mut qualifiers = qualifiers.split('&');
            let architecture = qualifiers.find_map(|one| one.strip_prefix("arch="));
            format!("{name} {version} {}", architecture.unwrap())
        })
        .collect();
    let database = format!("--admindir={}", world.path("ctx/var/lib/dpkg").display());
    let format = "--showformat=${db:Status-Status} ${Package} ${Version} ${Architecture}\\n";
    let listed = world
        .program("dpkg-query", &[&database, "--show", format])
        .ok()
        .stdout;
    let installed = listed
        .lines()
        .filter_map(|line| line.strip_prefix("installed "));
    let installed: BTreeSet<String> = installed.map(str::to_owned).collect();
    assert!(installed.len() > 50, "{listed}");
    assert_eq!(found, installed);
}
