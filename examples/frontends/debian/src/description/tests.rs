//! Descriptions that are read, and what is said of those that are not.

use super::*;

#[track_caller]
fn read(text: &str) -> Description {
    Description::parse(text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// All problems as `the text that is meant: what is wrong (way out)`.
#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let problems = Description::parse(text).err().unwrap_or_default();
    let shown = problems.into_iter().map(|problem| {
        let meant = &text[problem.span];
        let help = problem
            .help
            .map(|help| format!(" ({help})"))
            .unwrap_or_default();
        format!("{meant}: {}{help}", problem.message)
    });
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

#[test]
fn the_archives_of_debian() {
    let show = |text: &str| {
        let sources = read(text).sources.into_iter();
        let shown = sources.map(|source| {
            let end = if source.expires { "" } else { " for ever" };
            format!(
                "{} {} {}{end}",
                source.url,
                source.suite,
                source.components.join(",")
            )
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(
        show("suite = 'trixie'"),
        [
            "http://deb.debian.org/debian trixie main",
            "http://deb.debian.org/debian trixie-updates main",
            "http://deb.debian.org/debian-security trixie-security main",
        ]
    );
    assert_eq!(
        show("suite = 'sid'"),
        ["http://deb.debian.org/debian sid main"]
    );
    assert_eq!(
        show("suite = 'bookworm'\nsnapshot = '20260711T000000Z'")[2],
        "http://snapshot.debian.org/archive/debian-security/20260711T000000Z bookworm-security main for ever"
    );
    assert_eq!(
        show(
            "suite = 'x'\n[[sources]]\nurl = 'https://a/b/'\ncomponents = ['main', 'contrib']\n\
             [[sources]]\nurl = 'http://c'\nsuites = ['y', 'z/updates']\ncheck-valid-until = false"
        ),
        [
            "https://a/b x main,contrib",
            "http://c y main for ever",
            "http://c z/updates main for ever",
        ]
    );
}

#[test]
fn a_whole_one() {
    let text = "
        suite = 'bookworm'
        packages = ['redis-server', 'tini=0.19.0-1', 'python3:any']
        exclude = ['adduser']
        base = 'required'
        recommends = true
        minimize = true
        [groups.web]
        gid = 900
        [users.app]
        uid = 1000
        groups = ['web']
        home = '/srv/app'
        [users.web]
        uid = 900
        shell = '/bin/sh'
        [directories.'/srv/data']
        mode = '2750'
        owner = 'app:web'
        [files.'/etc/motd']
        content = 'hi'
        [files.'/etc/app']
        from = 'conf/app'
        mode = '0600'
        owner = '1000'
        [symlinks]
        '/etc/localtime' = '/usr/share/zoneinfo/UTC'
        [image]
        entrypoint = ['redis-server']
        env = { TZ = 'UTC' }
        expose = ['6379', '53/udp']
        workdir = '/'
        stop-signal = 'SIGINT'";
    let description = read(text);
    insta::assert_debug_snapshot!(description);
}

#[test]
fn what_is_no_toml_or_no_key() {
    refused(
        "suite = ",
        &[": string values must be quoted, expected literal string"],
    );
    refused(
        "suite = 'x'\npackage = ['a']",
        &[
            "package: unknown field `package`, expected one of `suite`, `snapshot`, `sources`, `packages`, \
         `exclude`, `base`, `recommends`, `minimize`, `groups`, `users`, `directories`, `files`, \
         `symlinks`, `image`",
        ],
    );
    refused(
        "suite = 1",
        &["1: invalid type: integer `1`, expected a string"],
    );
}

#[test]
fn sources_that_are_none() {
    refused(
        "",
        &[": there is neither a `suite` nor one of `sources` (begin with `suite = \"bookworm\"`)"],
    );
    refused(
        "suite = '../x'",
        &["'../x': `../x` is no name of a suite or component"],
    );
    refused(
        "suite = 'x'\nsnapshot = 'yesterday'",
        &["'yesterday': `yesterday` is no time of a snapshot (write it as `20260711T000000Z`)"],
    );
    refused(
        "[[sources]]\nurl = 'ftp://x'\nkeys = ['../k']",
        &[
            "'ftp://x': `ftp://x` is no URL of an archive (it begins with `http://` or `https://`)",
            "'ftp://x': the source has no `suites`, and there is no `suite`",
            "'../k': `../k` is no path in the context (it is relative to the context and does not lead out of it)",
        ],
    );
}

#[test]
fn packages_that_are_none() {
    refused(
        "suite = 'x'\npackages = ['a b', 'a=', 'a (>= 1)', 'a=1_2']\nexclude = ['-']",
        &[
            "'a b': `a b` is no package (write `name` or `name=version`)",
            "'a=': `` is no version: it is empty",
            "'a (>= 1)': `a (>= 1)` is no package (write `name` or `name=version`)",
            "'a=1_2': `1_2` is no version: `_` does not occur in versions",
            "'-': `-` is no name of a package",
        ],
    );
}

#[test]
fn people_and_files_that_cannot_be() {
    let head = "suite = 'x'\n";
    refused(
        &format!("{head}[users.'a:b']\nuid = 1\nhome = 'x'"),
        &[
            "'a:b': `a:b` is no name of a user (names have lower-case letters, digits, `_` and `-`)",
            "'x': `x` is no absolute path",
        ],
    );
    refused(
        &format!(
            "{head}[files]\n'etc' = {{ content = '' }}\n'/a/../b' = {{ from = '/c', mode = '9', owner = ':' }}\n'/d' = {{}}"
        ),
        &[
            "'/a/../b': `/a/../b` is no path in an image (paths begin with `/` and have no `.`, `..` or empty part)",
            "'9': `9` are no permission bits (write them as `\"0644\"`)",
            "':': `:` is no owner (write `user` or `user:group`)",
            "'/c': `/c` is no path in the context (it is relative to the context and does not lead out of it)",
            "'/d': `/d` needs either `content` or `from`",
            "'etc': `etc` is no path in an image (paths begin with `/` and have no `.`, `..` or empty part)",
        ],
    );
    refused(
        &format!("{head}[symlinks]\n'/a' = ''\n[files.'/a']\ncontent = ''"),
        &[
            "'': a link cannot say this",
            "'/a': `/a` is a link and something else",
        ],
    );
    refused(
        &format!("{head}[image]\nexpose = ['0', '1/icmp', 'x']"),
        &[
            "'0': `0` is no port (write `\"6379\"` or `\"53/udp\"`)",
            "'1/icmp': `1/icmp` is no port (write `\"6379\"` or `\"53/udp\"`)",
            "'x': `x` is no port (write `\"6379\"` or `\"53/udp\"`)",
        ],
    );
}
