//! What the flags of `kiln run` mean, without looking at anything but them and the environment.

use std::ffi::OsString;
use std::path::PathBuf;

use kiln::{Tmpfs, Volume};

use super::args::{RefusedArgs, RunArgs};
use crate::cli::spec;

/// A flag that cannot be used as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FlagError {
    pub(super) message: String,
    pub(super) hint: &'static str,
}

fn refuse<T>(message: String, hint: &'static str) -> Result<T, FlagError> {
    Err(FlagError { message, hint })
}

/// Refuses what `docker run` has and kiln has not.
pub(super) fn refuse_unsupported(args: &RefusedArgs) -> Result<(), FlagError> {
    const OWN_RIGHTS: &str = "every program has the rights of an ordinary RUN step";
    const RIGHTS: &str = "leave it out; docs/sandbox.md lists what programs have and see";
    let one = |flag: &str, given: Option<&String>| given.map(|value| format!("{flag} {value}"));
    let alone = |flag: &str, given: bool| given.then(|| flag.to_owned());
    let table = [
        (
            one("-p", args.publish.first()),
            "containers have no ports of their own",
            "the host's network is shared, so a server is reached on the port that it listens on; leave -p out",
        ),
        (
            alone("-d", args.detach),
            "there is no daemon that would look after the container",
            "let the shell keep it in the background, as in kiln run app &",
        ),
        (
            one("--restart", args.restart.as_ref()),
            "there is no daemon that would look after the container",
            "let a service manager or a loop of the shell start it again",
        ),
        (
            one("--name", args.name.as_ref()),
            "a container is gone when its program ends",
            "leave it out; --hostname sets the name that the program sees",
        ),
        (
            one("--label", args.label.first()),
            "a container is gone when its program ends",
            "leave it out; LABEL in a Dockerfile, or build's --label, is for images",
        ),
        (
            one("--mount", args.mount.first()),
            "what can be mounted has flags of its own",
            "-v for a host's directory or file, as in -v ./data:/data:ro, and --tmpfs for memory",
        ),
        (alone("--privileged", args.privileged), OWN_RIGHTS, RIGHTS),
        (one("--cap-add", args.cap_add.first()), OWN_RIGHTS, RIGHTS),
        (one("--cap-drop", args.cap_drop.first()), OWN_RIGHTS, RIGHTS),
        (
            one("--security-opt", args.security_opt.first()),
            OWN_RIGHTS,
            RIGHTS,
        ),
        (
            one("--device", args.device.first()),
            "programs see no devices of the host",
            RIGHTS,
        ),
        (
            one("--gpus", args.gpus.as_ref()),
            "programs see no devices of the host",
            RIGHTS,
        ),
    ];
    for (given, reason, hint) in table {
        if let Some(given) = given {
            return refuse(format!("`{given}` is not supported: {reason}"), hint);
        }
    }
    Ok(())
}

/// The image, and what is run instead of its command.
pub(super) fn image_and_command(args: &RunArgs) -> Result<(String, &[String]), FlagError> {
    match args.image_and_command.split_first() {
        Some((image, command)) if !image.starts_with('-') => Ok((image.clone(), command)),
        first => refuse(
            format!("there is no flag `{}`", first.map_or("", |(flag, _)| flag)),
            "`kiln run --help` lists those that there are",
        ),
    }
}

/// `NAME=VALUE`, or `NAME` with what the caller's environment has; nothing there removes it.
pub(super) fn variable(
    spec: &str,
    host: impl Fn(&str) -> Option<OsString>,
) -> Result<(String, Option<String>), FlagError> {
    let (name, value) = match spec.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => match host(spec).map(OsString::into_string) {
            None => (spec, None),
            Some(Ok(value)) => (spec, Some(value)),
            Some(Err(_)) => {
                return refuse(
                    format!("`-e {spec}`: the value in the environment is not UTF-8"),
                    "give the value, as in -e NAME=VALUE",
                );
            }
        },
    };
    if name.is_empty() {
        return refuse(format!("`-e {spec}` has no name"), "as in -e NAME=VALUE");
    }
    Ok((name.to_owned(), value))
}

/// `HOST:PATH[:ro|rw]`.
pub(super) fn volume(spec: &str) -> Result<Volume, FlagError> {
    let example = "as in -v \"$PWD:/src\" or -v ./data:/data:ro";
    let fields: Vec<&str> = spec.split(':').collect();
    let (host, target, options) = match fields.as_slice() {
        [target] if target.starts_with('/') => {
            return refuse(
                format!("`-v {spec}` names no host directory"),
                "the container's own directories are writable and gone at the end anyway; leave it out",
            );
        }
        [host, target] => (*host, *target, ""),
        [host, target, options] => (*host, *target, *options),
        _ => return refuse(format!("`-v {spec}` is not HOST:PATH[:ro]"), example),
    };
    if host.is_empty() || target.is_empty() {
        return refuse(format!("`-v {spec}` is not HOST:PATH[:ro]"), example);
    }
    let is_path = host.starts_with('/') || matches!(host.split('/').next(), Some("." | ".."));
    if !is_path {
        return refuse(
            format!("`-v {spec}`: named volumes are not supported, and `{host}` is no path"),
            "a path begins with `/`, `./` or `../`",
        );
    }
    let mut readonly = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => readonly = true,
            "rw" => readonly = false,
            // Nothing is labelled here, and what else is of other systems means nothing to docker either.
            "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            other => {
                return refuse(
                    format!("`-v {spec}`: the option `{other}` is not supported"),
                    "ro and rw are there",
                );
            }
        }
    }
    Ok(Volume {
        host: PathBuf::from(host),
        target: target.to_owned(),
        readonly,
    })
}

/// The variables of a file, as docker reads one: comments and empty lines say nothing, nor does a name alone
/// that the environment lacks.
pub(super) fn variables(
    text: &str,
    host: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<(String, Option<String>)>, FlagError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.contains(char::is_whitespace) {
            return refuse(
                format!("`{name}` is no name of a variable: it has a blank"),
                "one NAME=VALUE a line, without `export`, and without quotes that are not meant",
            );
        }
        let (name, value) = variable(line, &host)?;
        found.extend(value.map(|value| (name, Some(value))));
    }
    Ok(found)
}

/// `PATH[:size=SIZE,mode=MODE]`.
pub(super) fn tmpfs(spec: &str) -> Result<Tmpfs, FlagError> {
    let example = "as in --tmpfs /tmp or --tmpfs /run:size=64m,mode=755";
    let (target, options) = spec.split_once(':').unwrap_or((spec, ""));
    let mut tmpfs = Tmpfs {
        target: target.to_owned(),
        size_bytes: None,
        mode: 0o1777,
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let wrong = || FlagError {
            message: format!("`--tmpfs {spec}`: `{option}` cannot be had"),
            hint: example,
        };
        match option.split_once('=') {
            Some(("size", size)) => {
                tmpfs.size_bytes = Some(spec::size_bytes(size).map_err(|_| wrong())?);
            }
            Some(("mode", mode)) => {
                let mode = u32::from_str_radix(mode, 8).ok();
                tmpfs.mode = mode.filter(|mode| *mode <= 0o7777).ok_or_else(wrong)?;
            }
            // It is always so.
            None if matches!(option, "rw" | "nosuid" | "nodev" | "exec") => {}
            _ => return Err(wrong()),
        }
    }
    Ok(tmpfs)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn check_variable(spec: &str, expected: Option<(&str, Option<&str>)>) {
        let host = |name: &str| match name {
            "HOST" => Some("value".into()),
            "BAD" => Some(std::os::unix::ffi::OsStringExt::from_vec(vec![0xff])),
            _ => None,
        };
        let expected = expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!(variable(spec, host).ok(), expected, "{spec}");
    }

    #[test]
    fn variables() {
        check_variable("A=1", Some(("A", Some("1"))));
        check_variable("A=", Some(("A", Some(""))));
        check_variable("A=b=c", Some(("A", Some("b=c"))));
        check_variable("HOST", Some(("HOST", Some("value"))));
        check_variable("GONE", Some(("GONE", None)));
        check_variable("BAD", None);
        check_variable("=1", None);
        check_variable("", None);
    }

    fn check_volume(spec: &str, expected: Result<(&str, &str, bool), &str>) {
        let expected = expected.map(|(host, target, readonly)| Volume {
            host: host.into(),
            target: target.to_owned(),
            readonly,
        });
        let found = volume(spec);
        assert_eq!(
            found.as_ref().map_err(|error| error.message.as_str()),
            expected.as_ref().map_err(|error| *error)
        );
    }

    #[test]
    fn volumes() {
        check_volume("/a:/b", Ok(("/a", "/b", false)));
        check_volume("/a:/b:ro", Ok(("/a", "/b", true)));
        check_volume("/a:/b:rw", Ok(("/a", "/b", false)));
        check_volume("./a:/b", Ok(("./a", "/b", false)));
        check_volume("..:/b", Ok(("..", "/b", false)));
        check_volume(".:/b", Ok((".", "/b", false)));
        check_volume(
            "a:/b",
            Err("`-v a:/b`: named volumes are not supported, and `a` is no path"),
        );
        check_volume(
            ".a:/b",
            Err("`-v .a:/b`: named volumes are not supported, and `.a` is no path"),
        );
        check_volume("/a", Err("`-v /a` names no host directory"));
        check_volume(":/b", Err("`-v :/b` is not HOST:PATH[:ro]"));
        check_volume("/a:", Err("`-v /a:` is not HOST:PATH[:ro]"));
        check_volume("/a:/b:ro:x", Err("`-v /a:/b:ro:x` is not HOST:PATH[:ro]"));
        check_volume("/a:/b:ro,z", Ok(("/a", "/b", true)));
        check_volume("/a:/b:Z", Ok(("/a", "/b", false)));
        check_volume(
            "/a:/b:rslave",
            Err("`-v /a:/b:rslave`: the option `rslave` is not supported"),
        );
    }

    #[test]
    fn variables_of_files() {
        let host = |name: &str| (name == "HOST").then(|| "value".into());
        let check = |text: &str, expected: Option<&[(&str, &str)]>| {
            let found = super::variables(text, host).ok();
            let expected = expected.map(|expected| {
                let own =
                    |(name, value): &(&str, &str)| ((*name).to_owned(), Some((*value).to_owned()));
                expected.iter().map(own).collect::<Vec<_>>()
            });
            assert_eq!(found, expected, "{text:?}");
        };
        check("", Some(&[]));
        check(
            "# A=0\n\nA=1\r\n  B=\"x y\" # z\nHOST\nGONE\nC=\n",
            Some(&[
                ("A", "1"),
                ("B", "\"x y\" # z"),
                ("HOST", "value"),
                ("C", ""),
            ]),
        );
        check("export A=1", None);
        check("=1", None);
    }

    #[test]
    fn file_systems_in_memory() {
        let check = |spec: &str, expected: Option<(&str, Option<u64>, u32)>| {
            let expected = expected.map(|(target, size_bytes, mode)| Tmpfs {
                target: target.to_owned(),
                size_bytes,
                mode,
            });
            assert_eq!(tmpfs(spec).ok(), expected, "{spec}");
        };
        check("/tmp", Some(("/tmp", None, 0o1777)));
        check(
            "/run:rw,size=64k,mode=755",
            Some(("/run", Some(64 << 10), 0o755)),
        );
        check("/run:noexec", None);
        check("/run:size=x", None);
        check("/run:mode=9", None);
    }

    fn check_refusal(flags: &[&str], expected: Option<&str>) {
        let words = ["kiln", "run"].iter().chain(flags).chain(&["app"]);
        let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{flags:?} is not run");
        };
        let found = refuse_unsupported(&args.refused)
            .err()
            .map(|error| error.message);
        match (found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => assert!(found.starts_with(expected), "{found}"),
            (found, expected) => panic!("{flags:?}: {found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn from_the_image_on_nothing_is_a_flag() {
        let check = |words: &[&str], expected: Option<(&str, &[&str])>| {
            let words = ["kiln", "run"].iter().chain(words);
            let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else {
                panic!("not run");
            };
            let found = image_and_command(&args).ok();
            let found = found.map(|(image, command)| (image, command.to_vec()));
            let expected = expected.map(|(image, command)| {
                let command = command.iter().map(|word| (*word).to_owned()).collect();
                (image.to_owned(), command)
            });
            assert_eq!(found, expected);
        };
        check(&["-i", "app"], Some(("app", &[])));
        check(&["app", "-c", "x", "-i"], Some(("app", &["-c", "x", "-i"])));
        check(&["-m", "1g", "app", "-m", "x"], Some(("app", &["-m", "x"])));
        check(&["app", "--", "-m"], Some(("app", &["--", "-m"])));
        for (words, user) in [(&["-u0"][..], "0"), (&["-itu0", "-w/tmp"], "0")] {
            let words = [&["kiln", "run"], words, &["app", "-u1"]].concat();
            let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else {
                panic!("not run");
            };
            assert_eq!(args.user.as_deref(), Some(user));
            assert_eq!(args.image_and_command, ["app", "-u1"]);
        }
        assert!(Cli::try_parse_from(["kiln", "run", "--nonsense", "app"]).is_err());
    }

    #[test]
    fn what_needs_a_daemon_is_refused_by_name() {
        check_refusal(&["--rm", "-it", "--init"], None);
        check_refusal(&["--rm=true"], None);
        check_refusal(&["--privileged"], Some("`--privileged` is not supported"));
        check_refusal(&["--cap-drop=ALL"], Some("`--cap-drop ALL` is not"));
        check_refusal(&["--mount", "x"], Some("`--mount x` is not supported"));
        check_refusal(&["-p", "80:80"], Some("`-p 80:80` is not supported"));
        check_refusal(&["-d"], Some("`-d` is not supported"));
        check_refusal(&["--name", "x"], Some("`--name x` is not supported"));
    }
}
