//! What the flags of `kiln run` mean, without looking at anything but them and the environment.

use std::path::PathBuf;

use kiln::Volume;

use crate::cli::args::RunArgs;

/// A flag that cannot be used as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FlagError {
    pub(super) message: String,
    pub(super) hint: &'static str,
}

fn refuse<T>(message: String, hint: &'static str) -> Result<T, FlagError> {
    Err(FlagError { message, hint })
}

/// Refuses what `docker run` has and kiln cannot have.
pub(super) fn refuse_unsupported(args: &RunArgs) -> Result<(), FlagError> {
    if let Some(port) = args.publish.first() {
        return refuse(
            format!("`-p {port}` is not supported: containers have no ports of their own"),
            "the host's network is shared, so a server is reached on the port that it listens on; leave -p out",
        );
    }
    if args.detach {
        return refuse(
            "`-d` is not supported: there is no daemon that would look after the container"
                .to_owned(),
            "let the shell keep it in the background, as in kiln run app &",
        );
    }
    if let Some(name) = &args.name {
        return refuse(
            format!("`--name {name}` is not supported: a container is gone when its program ends"),
            "leave it out; --hostname sets the name that the program sees",
        );
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
    host: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<(String, Option<String>), FlagError> {
    let (name, value) = match spec.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => match host(spec).map(std::ffi::OsString::into_string) {
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
        check_volume(
            "/a:/b:z",
            Err("`-v /a:/b:z`: the option `z` is not supported"),
        );
    }

    fn check_refusal(flags: &[&str], expected: Option<&str>) {
        let words = ["kiln", "run"].iter().chain(flags).chain(&["app"]);
        let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{flags:?} is not run");
        };
        let found = refuse_unsupported(&args).err().map(|error| error.message);
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
        check(&["--nonsense", "app"], None);
    }

    #[test]
    fn what_needs_a_daemon_is_refused_by_name() {
        check_refusal(&["--rm", "-it"], None);
        check_refusal(&["-p", "80:80"], Some("`-p 80:80` is not supported"));
        check_refusal(&["-d"], Some("`-d` is not supported"));
        check_refusal(&["--name", "x"], Some("`--name x` is not supported"));
    }
}
