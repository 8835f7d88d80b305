//! Which packages come in, and what is said where none do.
#![allow(clippy::unwrap_used)]

use kiln_debian::relation::Relation;
use kiln_debian::resolve::{Wishes, essential, resolve};
use kiln_debian::universe::Universe;

/// An index from lines such as `a 1 all | Depends: b, c | Essential: yes`.
fn index(lines: &str) -> String {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let paragraphs = lines.map(|line| {
        let (head, fields) = line.split_once(" | ").unwrap_or((line, ""));
        let mut head = head.split(' ');
        let (name, version) = (head.next().unwrap(), head.next().unwrap());
        let architecture = head.next().unwrap_or("amd64");
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n\
             Filename: pool/{name}_{version}.deb\nSHA256: {}\n{}\n\n",
            "0".repeat(64),
            fields.replace(" | ", "\n").replace(" OR ", " | "),
        )
    });
    paragraphs.collect()
}

struct Trial<'a> {
    index: &'a str,
    excluded: &'a [&'a str],
    recommends: bool,
}

fn of(index: &str) -> Trial<'_> {
    Trial {
        index,
        excluded: &[],
        recommends: false,
    }
}

impl Trial<'_> {
    /// The names that come in, or the error; a version is shown where there are several.
    fn find(&self, wishes: &[&str]) -> String {
        let index = index(self.index);
        let mut universe = Universe::new("amd64");
        universe.add(0, &index).unwrap();
        let base = essential(&universe, false);
        let base = Wishes {
            packages: base
                .iter()
                .map(|id| Relation::parse(universe.package(*id).name).unwrap())
                .collect(),
            ..Wishes::default()
        };
        let base = match resolve(&universe, &base) {
            Ok(base) => base,
            Err(error) => return error.to_string(),
        };
        let wishes = Wishes {
            base,
            packages: wishes
                .iter()
                .map(|wish| Relation::parse(wish).unwrap())
                .collect(),
            excluded: self.excluded.iter().copied().collect(),
            recommends: self.recommends,
        };
        match resolve(&universe, &wishes) {
            Err(error) => error.to_string(),
            Ok(found) => {
                let shown = found.iter().map(|id| {
                    let package = universe.package(*id);
                    match universe.versions(package.name).len() {
                        1 => package.name.to_owned(),
                        _ => format!("{}={}", package.name, package.version()),
                    }
                });
                shown.collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[track_caller]
    fn check(&self, wishes: &[&str], expected: &str) {
        assert_eq!(self.find(wishes), expected);
    }
}

#[test]
fn what_is_needed_comes_in() {
    let index = "
        a 1 | Depends: b (>= 1), c | Pre-Depends: d
        b 1 all
        c 1 | Depends: a
        d 1 | Depends: e
        e 1
        f 1";
    of(index).check(&["a"], "a b c d e");
    of(index).check(&["e"], "e");
    of(index).check(&["f", "e"], "e f");
    of(index).check(&[], "");
}

#[test]
fn the_newest_version_counts() {
    let index = "
        a 1.9
        a 1.10
        a 2 arm64
        b 1 | Depends: a (<< 1.10)";
    of(index).check(&["a"], "a=1.10");
    of(index).check(&["a (= 1.9)"], "a=1.9");
    of(index).check(&["b", "a (= 1.9)"], "a=1.9 b");
    of(index).check(
        &["b"],
        "`b` needs `a (<< 1.10)`, and there is only `a` 1.10 (amd64)",
    );
    of(index).check(
        &["a (= 3)"],
        "no source has `a (= 3)`; there is `a=1.10 (amd64)`, `a=1.9 (amd64)`",
    );
}

#[test]
fn the_first_alternative_is_preferred() {
    let index = "
        a 1 | Depends: x OR y
        b 1 | Depends: gone OR y
        x 1
        y 1
        z 1 | Depends: y";
    of(index).check(&["a"], "a x");
    of(index).check(&["b"], "b y");
    of(index).check(&["a", "y"], "a y");
    // Whatever leaves no choice goes first.
    of(index).check(&["a", "z"], "a y z");
}

#[test]
fn what_others_provide() {
    let index = "
        a 1 | Depends: mail
        b 1 | Depends: mail (>= 2)
        exim 1 | Provides: mail | Priority: standard
        dma 1 | Provides: mail (= 1), other | Priority: optional
        post 1 | Provides: mail (= 3) | Priority: optional
        real 1 | Depends: thing
        thing 1
        thing-ng 1 | Provides: thing";
    of(index).check(&["a"], "a exim");
    of(index).check(&["b"], "b post");
    of(index).check(&["a", "b"], "a b post");
    of(index).check(&["a", "dma"], "a dma");
    of(index).check(&["real"], "real thing");
    of(index).check(&["real", "thing-ng"], "real thing-ng");
    of(index).check(
        &["mail"],
        "`mail` is no package of its own; it is provided by `dma`, `exim`, `post`",
    );
}

#[test]
fn the_base_is_there_already() {
    let index = "
        libc 1
        sh 1 | Essential: yes | Pre-Depends: libc, awk
        mawk 1 | Provides: awk
        gawk 1 | Provides: awk
        a 1 | Depends: libc, awk";
    of(index).check(&["a"], "a");
    of(index).check(&["a", "mawk"], "a mawk");
}

#[test]
fn architectures() {
    let index = "
        a 1 | Depends: py:any
        b 1 | Depends: lib:any
        c 1 | Depends: lib:amd64
        d 1 | Depends: lib:i386
        py 1 | Multi-Arch: allowed
        lib 1 | Multi-Arch: same
        other 1 arm64";
    of(index).check(&["a"], "a py");
    of(index).check(&["c"], "c lib");
    of(index).check(
        &["b"],
        "`b` needs `lib:any`, and there is only `lib` 1 (amd64)",
    );
    of(index).check(
        &["d"],
        "`d` needs `lib:i386`, and there is only `lib` 1 (amd64)",
    );
    of(index).check(&["other"], "no source has a package `other`");
}

#[test]
fn conflicts_are_said() {
    let index = "
        a 1 | Conflicts: b
        b 1
        c 1 | Depends: b
        d 2 | Breaks: b (<< 2)
        e 1 | Depends: a OR x
        x 1
        f 1 | Depends: b, a
        self 1 | Provides: mta | Conflicts: mta
        other 1 | Provides: mta";
    of(index).check(
        &["a", "b"],
        "`a` cannot be beside `b` (1), as it conflicts with `b`",
    );
    of(index).check(
        &["a", "c"],
        "`c` needs `b`, and `a` cannot be beside `b` (1), as it conflicts with `b`",
    );
    of(index).check(
        &["b", "d"],
        "`d` cannot be beside `b` (1), as it conflicts with `b (<< 2)`",
    );
    // The second alternative, since the first cannot be.
    of(index).check(&["b", "e"], "b e x");
    of(index).check(
        &["f"],
        "`f` needs `a`, and `a` cannot be beside `b` (1), as it conflicts with `b`",
    );
    of(index).check(&["self"], "self");
    of(index).check(
        &["other", "self"],
        "`self` cannot be beside `other` (1), as it conflicts with `mta`",
    );
}

#[test]
fn choices_are_taken_back() {
    let index = "
        a 1 | Depends: x OR y
        x 1 | Depends: deep
        deep 1 | Depends: gone
        y 1 | Depends: p OR q
        p 1 | Depends: left, right
        left 1 | Conflicts: right
        right 1
        q 1
        z 1 | Depends: x OR p";
    of(index).check(&["a"], "a q y");
    of(index).check(
        &["z"],
        "`deep` (for `x`, for `z`) needs `gone`, and no source has `gone`",
    );
}

#[test]
fn what_is_excluded_stays_out() {
    let index = "
        a 1 | Depends: x OR y
        b 1 | Depends: x
        x 1
        y 1";
    let trial = Trial {
        excluded: &["x"],
        ..of(index)
    };
    trial.check(&["a"], "a y");
    trial.check(&["b"], "`b` needs `x`, and `x` is excluded");
}

#[test]
fn recommended_packages_come_if_they_can() {
    let index = "
        a 1 | Recommends: b, c, gone, d OR e
        b 1 | Depends: missing
        c 1 | Recommends: f
        d 1
        e 1
        f 1
        g 1 | Depends: a | Conflicts: c";
    of(index).check(&["a"], "a");
    let trial = Trial {
        recommends: true,
        ..of(index)
    };
    trial.check(&["a"], "a c d f");
    trial.check(&["a", "e"], "a c e f");
    trial.check(&["g"], "a d g");
}

#[test]
fn names_that_are_nearly_right() {
    let index = "
        redis-server 1
        redis-tools 1
        redict 1 all
        nginx 1";
    of(index).check(
        &["redis-sever"],
        "no source has a package `redis-sever`; there is `redis-server`",
    );
    of(index).check(
        &["redis"],
        "no source has a package `redis`; there is `redis-server`, `redis-tools`",
    );
    of(index).check(&["apache"], "no source has a package `apache`");
}

#[test]
fn an_index_that_lies() {
    let refused = |text: &str| {
        let mut universe = Universe::new("amd64");
        universe.add(0, text).unwrap_err().to_string()
    };
    let head = "Package: a\nVersion: 1\nArchitecture: all\n";
    let sum = format!("SHA256: {}\n", "a".repeat(64));
    let of_a = |field: &str| format!("package number 1 of the index has no valid `{field}` (`a`)");
    assert_eq!(refused(head), of_a("SHA256"));
    for name in ["/etc/x", "../x", "a//b", "a b", ""] {
        assert_eq!(
            refused(&format!("{head}{sum}Filename: {name}\n")),
            of_a("Filename")
        );
    }
    assert_eq!(
        refused(&format!("{head}{sum}Filename: x\nProvides: (\n")),
        "`Provides` of `a`: `(` is no relation between packages"
    );
    assert_eq!(
        refused("Package: a b\nArchitecture: all\n"),
        "package number 1 of the index has no valid `Package` (`a b`)"
    );
}
