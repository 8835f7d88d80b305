//! dpkg's database: `var/lib/dpkg/status`, and `status.d/*` of images without dpkg itself.

use super::license;
use super::os_release::Distribution;
use super::package::{Listed, Package, clean};
use super::paragraphs::paragraphs;
use super::purl::Purl;

/// Reads a status file, or one of `status.d`.
pub(super) fn read(bytes: &[u8], distribution: &Distribution) -> Listed {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    let mut malformed = 0;
    for paragraph in paragraphs(&text) {
        // Removed packages stay listed while their configuration is there; status.d says nothing.
        let status = paragraph.get("Status");
        if !status.is_empty() && status.split_whitespace().next_back() != Some("installed") {
            continue;
        }
        let (name, version) = (paragraph.get("Package"), paragraph.get("Version"));
        if name.is_empty() || version.is_empty() {
            malformed += 1;
            continue;
        }
        let source = paragraph.get("Source");
        let (source, source_version) = match source.split_once(" (") {
            Some((source, version)) => (source, version.trim_end_matches(')')),
            None => (source, ""),
        };
        let upstream = match (source, source_version) {
            ("", _) => String::new(),
            (source, "") if source == name => String::new(),
            (source, "") => source.to_owned(),
            (source, version) => format!("{source}@{version}"),
        };
        let purl = Purl::new("deb", name, version)
            .within(distribution.namespace("debian"))
            .with("arch", paragraph.get("Architecture"))
            .with("distro", &distribution.qualifier())
            .with("upstream", &upstream);
        packages.push(Package {
            supplier: clean(paragraph.get("Maintainer")),
            homepage: clean(paragraph.get("Homepage")),
            ..Package::new(purl)
        });
    }
    match (packages.is_empty(), malformed) {
        (true, 1..) => Err("no paragraph has both a package and a version".into()),
        _ => Ok(packages),
    }
}

/// Where a package's license is written.
pub(super) fn copyright_path(package: &str) -> String {
    format!("usr/share/doc/{package}/copyright")
}

/// Reads the licenses of a machine-readable copyright file (DEP 5); empty where it is another one.
pub(super) fn read_copyright(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.lines().take(5).any(|line| {
        line.starts_with("Format:") && line.contains("copyright-format")
            || line.starts_with("Format-Specification:")
    }) {
        return String::new();
    }
    let mut licenses: Vec<String> = Vec::new();
    for paragraph in paragraphs(&text).skip(1) {
        // Paragraphs without files only hold the text of a license.
        if paragraph.get("Files").is_empty() {
            continue;
        }
        let short = paragraph.get("License").lines().next().unwrap_or_default();
        let expression = license::of_debian(short);
        if !expression.is_empty() && !licenses.contains(&expression) && licenses.len() < 100 {
            licenses.push(expression);
        }
    }
    licenses.sort();
    license::all_of(&licenses)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Package: libc6
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u4
Description: GNU C Library
 continued
 .
 more
Homepage: https://www.gnu.org/software/libc/libc.html

Package: removed
Status: deinstall ok config-files
Version: 1

Package: util-linux
Status: install ok installed
Architecture: amd64
Source: util-linux (2.38.1-5)
Version: 1:2.38.1-5+b1
";

    #[test]
    fn status() {
        let debian = Distribution {
            id: "debian".into(),
            version: "12".into(),
            ..Distribution::default()
        };
        let packages = read(STATUS.as_bytes(), &debian).unwrap();
        let purls: Vec<String> = packages.iter().map(|one| one.purl.to_string()).collect();
        assert_eq!(
            purls,
            [
                "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12&upstream=glibc",
                "pkg:deb/debian/util-linux@1:2.38.1-5%2Bb1?arch=amd64&distro=debian-12&upstream=util-linux%402.38.1-5",
            ]
        );
        assert_eq!(
            packages[0].homepage,
            "https://www.gnu.org/software/libc/libc.html"
        );
        assert!(read(b"Package: x\n", &debian).is_err());
        assert_eq!(read(b"", &debian), Ok(vec![]));
    }

    #[test]
    fn copyrights() {
        let text = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
License: Expat

Files: *
License: GPL-2+
 text

Files: debian/*
License: GPL-2+

Files: src/x
License: BSD-3-clause or Expat

License: GPL-2+
 text
";
        assert_eq!(
            read_copyright(text.as_bytes()),
            "(BSD-3-Clause OR MIT) AND GPL-2.0-or-later"
        );
        assert_eq!(read_copyright(b"This package was debianized by"), "");
    }
}
