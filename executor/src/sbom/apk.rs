//! Alpine's database: `lib/apk/db/installed`, of apk 2 and 3.

use super::os_release::Distribution;
use super::package::{Listed, Package, clean};
use super::purl::Purl;

/// Reads the database: fields of one letter, a paragraph a package.
pub(super) fn read(bytes: &[u8], distribution: &Distribution) -> Listed {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    let mut malformed = false;
    for paragraph in text.split("\n\n") {
        let get = |key: &str| {
            let mut lines = paragraph.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            value.unwrap_or_default().trim()
        };
        if paragraph.trim().is_empty() {
            continue;
        }
        let (name, version) = (get("P"), get("V"));
        if name.is_empty() || version.is_empty() {
            malformed = true;
            continue;
        }
        let origin = match get("o") {
            origin if origin == name => "",
            origin => origin,
        };
        let purl = Purl::new("apk", name, version)
            .within(distribution.namespace("alpine"))
            .with("arch", get("A"))
            .with("distro", &distribution.qualifier())
            .with("upstream", origin);
        packages.push(Package {
            supplier: clean(get("m")),
            homepage: clean(get("U")),
            ..Package::new(purl).licensed(get("L"))
        });
    }
    match packages.is_empty() && malformed {
        true => Err("no paragraph has both a package and a version".into()),
        false => Ok(packages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed() {
        let text = "\
C:Q1abc=
P:musl
V:1.2.5-r0
A:x86_64
T:the musl c library
U:https://musl.libc.org/
L:MIT
o:musl
m:Timo <timo@alpinelinux.org>
F:lib
R:ld-musl-x86_64.so.1

P:busybox-binsh
V:1.36.1-r29
A:x86_64
L:GPL-2.0-only
o:busybox

";
        let alpine = Distribution {
            id: "alpine".into(),
            version: "3.20.3".into(),
            ..Distribution::default()
        };
        let packages = read(text.as_bytes(), &alpine).unwrap();
        let purls: Vec<String> = packages.iter().map(|one| one.purl.to_string()).collect();
        assert_eq!(
            purls,
            [
                "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.3",
                "pkg:apk/alpine/busybox-binsh@1.36.1-r29?arch=x86_64&distro=alpine-3.20.3&upstream=busybox",
            ]
        );
        assert_eq!(packages[1].license, "GPL-2.0-only");
        assert!(read(b"garbage", &alpine).is_err());
    }
}
