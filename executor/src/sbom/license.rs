//! Licenses as makers write them, and as SPDX knows them.

/// Identifiers of the SPDX license list that packages state; another one is not asserted.
const KNOWN: &str = "\
    0BSD AFL-2.1 AFL-3.0 AGPL-3.0 AGPL-3.0-only AGPL-3.0-or-later Apache-1.0 Apache-1.1 \
    Apache-2.0 APSL-2.0 Artistic-1.0 Artistic-1.0-Perl Artistic-2.0 Beerware BlueOak-1.0.0 \
    BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause \
    BSD-4-Clause-UC BSD-Source-Code BSL-1.0 bzip2-1.0.6 CC-BY-3.0 CC-BY-4.0 CC-BY-SA-3.0 \
    CC-BY-SA-4.0 CC-PDDC CC0-1.0 CDDL-1.0 CDDL-1.1 CECILL-2.1 CPL-1.0 curl ECL-2.0 EFL-2.0 \
    EPL-1.0 EPL-2.0 EUPL-1.1 EUPL-1.2 FSFAP FSFUL FSFULLR FTL GFDL-1.1-or-later GFDL-1.2-only \
    GFDL-1.2-or-later GFDL-1.3-only GFDL-1.3-or-later GPL-1.0 GPL-1.0-only GPL-1.0-or-later \
    GPL-2.0 GPL-2.0-only GPL-2.0-or-later GPL-3.0 GPL-3.0-only GPL-3.0-or-later HPND \
    HPND-sell-variant ICU IJG ImageMagick Info-ZIP ISC JSON LGPL-2.0 LGPL-2.0-only \
    LGPL-2.0-or-later LGPL-2.1 LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0 LGPL-3.0-only \
    LGPL-3.0-or-later Libpng libpng-2.0 libtiff LPPL-1.3c MIT MIT-0 MIT-CMU MIT-Modern-Variant \
    MIT-open-group MPL-1.0 MPL-1.1 MPL-2.0 MPL-2.0-no-copyleft-exception MS-PL MulanPSL-2.0 \
    NAIST-2003 NCSA Net-SNMP NTP OFL-1.1 OLDAP-2.8 OpenSSL PHP-3.0 PHP-3.01 PostgreSQL PSF-2.0 \
    Python-2.0 Python-2.0.1 QPL-1.0 Ruby Sendmail SGI-B-2.0 SISSL Sleepycat SMLNJ SSPL-1.0 \
    SunPro TCL TCP-wrappers TU-Berlin-1.0 Unicode-3.0 Unicode-DFS-2016 Unlicense UPL-1.0 Vim W3C \
    WTFPL X11 Xnet XFree86-1.1 xinetd Zend-2.0 Zlib zlib-acknowledgement ZPL-2.0 ZPL-2.1";

const EXCEPTIONS: &str = "\
    Autoconf-exception-2.0 Autoconf-exception-3.0 Bison-exception-2.2 Classpath-exception-2.0 \
    Font-exception-2.0 GCC-exception-2.0 GCC-exception-3.1 Libtool-exception Linux-syscall-note \
    LLVM-exception OpenSSL-exception openvpn-openssl-exception u-boot-exception-2.0 \
    Swift-exception";

/// What people write for what SPDX calls otherwise; compared without case.
const OTHERWISE: &[(&str, &str)] = &[
    ("apache", "Apache-2.0"),
    ("apache 2", "Apache-2.0"),
    ("apache 2.0", "Apache-2.0"),
    ("apache license 2.0", "Apache-2.0"),
    ("apache license, version 2.0", "Apache-2.0"),
    ("apache software license", "Apache-2.0"),
    ("apache-2", "Apache-2.0"),
    ("artistic", "Artistic-1.0"),
    ("artistic-2", "Artistic-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause", "BSD-4-Clause"),
    ("boost", "BSL-1.0"),
    ("cc0", "CC0-1.0"),
    ("expat", "MIT"),
    ("mit license", "MIT"),
    ("the mit license", "MIT"),
    ("mpl-2", "MPL-2.0"),
    ("mozilla public license 2.0 (mpl 2.0)", "MPL-2.0"),
    ("psf", "PSF-2.0"),
    ("psfl", "PSF-2.0"),
    ("python software foundation license", "PSF-2.0"),
    ("the unlicense (unlicense)", "Unlicense"),
    ("isc license (iscl)", "ISC"),
    ("zlib/libpng license", "Zlib"),
];

/// How deep parentheses may be.
const DEEPEST: usize = 32;

/// Returns a license as an SPDX expression; nothing if it is none, and names what SPDX does not.
pub(super) fn expression(written: &str) -> Option<String> {
    if let Some(known) = otherwise(written) {
        return Some(known.to_owned());
    }
    // Cargo's older form for a choice.
    let spaced = match written.contains('/') && !written.contains(' ') {
        true => written.replace('/', " OR "),
        false => written.to_owned(),
    };
    let spaced = spaced.replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    if tokens.is_empty() || tokens.len() > 500 {
        return None;
    }
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
    };
    let text = parser.any(0)?;
    (parser.at == tokens.len()).then_some(text)
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    at: usize,
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let is = self
            .tokens
            .get(self.at)
            .is_some_and(|token| token.eq_ignore_ascii_case(word));
        self.at += usize::from(is);
        is
    }

    fn any(&mut self, depth: usize) -> Option<String> {
        let mut text = self.all(depth)?;
        while self.take("OR") {
            text = format!("{text} OR {}", self.all(depth)?);
        }
        Some(text)
    }

    fn all(&mut self, depth: usize) -> Option<String> {
        let mut text = self.one(depth)?;
        while self.take("AND") {
            text = format!("{text} AND {}", self.one(depth)?);
        }
        Some(text)
    }

    fn one(&mut self, depth: usize) -> Option<String> {
        if self.take("(") {
            if depth == DEEPEST {
                return None;
            }
            let inner = self.any(depth + 1)?;
            return self.take(")").then(|| format!("({inner})"));
        }
        let license = identifier(self.tokens.get(self.at)?)?;
        self.at += 1;
        if !self.take("WITH") {
            return Some(license);
        }
        let written = self.tokens.get(self.at)?;
        let exception = EXCEPTIONS
            .split_whitespace()
            .find(|known| known.eq_ignore_ascii_case(written))?;
        self.at += 1;
        Some(format!("{license} WITH {exception}"))
    }
}

fn identifier(token: &str) -> Option<String> {
    let mut known = KNOWN.split_whitespace();
    known
        .find(|known| known.eq_ignore_ascii_case(token))
        .map(str::to_owned)
        .or_else(|| otherwise(token).map(str::to_owned))
        .or_else(|| gnu(token))
}

fn otherwise(written: &str) -> Option<&'static str> {
    let written = written.trim();
    OTHERWISE
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(written))
        .map(|(_, known)| *known)
}

/// `GPL-2+`, `LGPL-2.1`, `GPLv3+` and the like, as distributions write them.
fn gnu(token: &str) -> Option<String> {
    let upper = token.to_ascii_uppercase();
    let family = ["LGPL", "AGPL", "GFDL", "GPL"]
        .into_iter()
        .find(|family| upper.starts_with(family))?;
    let rest = upper[family.len()..]
        .trim_start_matches('-')
        .trim_start_matches('V');
    let (number, later) = match rest.strip_suffix('+') {
        Some(number) => (number, "or-later"),
        None => (rest, "only"),
    };
    let number = match number.split_once('.') {
        Some(_) => number.to_owned(),
        None => format!("{number}.0"),
    };
    let id = format!("{family}-{number}-{later}");
    KNOWN
        .split_whitespace()
        .any(|known| known == id)
        .then_some(id)
}

/// A license's short name in Debian's copyright files as an expression; empty where it is none.
pub(super) fn of_debian(short: &str) -> String {
    let spaced = short.replace(',', " ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    // `GPL-2+ with OpenSSL exception` names no exception of SPDX.
    expression(&words.join(" ")).unwrap_or_default()
}

/// Several licenses that hold at once.
pub(super) fn all_of(licenses: &[String]) -> String {
    let one = |license: &String| match license.contains(" OR ") && licenses.len() > 1 {
        true => format!("({license})"),
        false => license.clone(),
    };
    licenses.iter().map(one).collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: Option<&str>) {
        assert_eq!(expression(written).as_deref(), expected, "{written}");
    }

    #[test]
    fn expressions() {
        check("mit", Some("MIT"));
        check("MIT/Apache-2.0", Some("MIT OR Apache-2.0"));
        check(
            "(MIT OR Apache-2.0) AND Zlib",
            Some("(MIT OR Apache-2.0) AND Zlib"),
        );
        check("GPL-2+", Some("GPL-2.0-or-later"));
        check("LGPL-2.1", Some("LGPL-2.1"));
        check("GPLv3+", Some("GPL-3.0-or-later"));
        check(
            "Apache-2.0 WITH LLVM-exception",
            Some("Apache-2.0 WITH LLVM-exception"),
        );
        check("GPL-2.0-only WITH my-exception", None);
        check("Apache License, Version 2.0", Some("Apache-2.0"));
        check("proprietary", None);
        check("MIT OR", None);
        check("MIT MIT", None);
        check("(MIT", None);
        check("", None);
        check(&"(".repeat(400), None);
    }
}
