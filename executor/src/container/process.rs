//! From an image's config and a request to one process, by docker's rules. Pure.

use kiln_ir::Config;

use super::request::{ContainerRequest, ProgramStdio};
use crate::error::Error;

/// What a program finds in `PATH` if neither image nor request says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a program is told about its terminal.
const TERM: &str = "xterm";

/// What runs, before the image's own files were asked for its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    /// Never empty.
    pub(super) args: Vec<String>,
    /// Without `HOME` if nobody set it.
    pub(super) env: Vec<(String, String)>,
    /// Absolute.
    pub(super) cwd: String,
    /// As written; empty is root.
    pub(super) user: String,
    pub(super) hostname: String,
}

/// Merges what the image says with what was asked for.
pub(super) fn process(config: &Config, request: &ContainerRequest) -> Result<Process, Error> {
    let hostname = match request.hostname.as_deref() {
        None => kiln_sandbox::DEFAULT_HOSTNAME,
        Some(name) if is_hostname(name) => name,
        Some(name) => {
            return Err(Error::Hostname {
                name: name.to_owned(),
            });
        }
    };
    Ok(Process {
        args: args(config, request)?,
        env: env(config, request, hostname),
        cwd: cwd(config, request)?,
        user: request.user.clone().unwrap_or_else(|| config.user.clone()),
        hostname: hostname.to_owned(),
    })
}

fn args(config: &Config, request: &ContainerRequest) -> Result<Vec<String>, Error> {
    let of_image = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let mut args = match request.entrypoint.as_deref() {
        None => of_image(&config.entrypoint),
        Some("") => Vec::new(),
        Some(program) => vec![program.to_owned()],
    };
    if !request.command.is_empty() {
        args.extend_from_slice(&request.command);
    } else if request.entrypoint.is_none() {
        args.extend(of_image(&config.cmd));
    }
    match args.is_empty() {
        true => Err(Error::NothingToRun {
            image: request.image.clone(),
        }),
        false => Ok(args),
    }
}

fn env(config: &Config, request: &ContainerRequest, hostname: &str) -> Vec<(String, String)> {
    let mut env = Vec::new();
    set(&mut env, "PATH", DEFAULT_PATH);
    set(&mut env, "HOSTNAME", hostname);
    if matches!(request.stdio, ProgramStdio::Terminal(_)) {
        set(&mut env, "TERM", TERM);
    }
    for variable in &config.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        set(&mut env, name, value);
    }
    for (name, value) in &request.env {
        match value {
            Some(value) => set(&mut env, name, value),
            None => env.retain(|(known, _)| known != name),
        }
    }
    env
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: &str) {
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => env.push((name.to_owned(), value.to_owned())),
    }
}

fn cwd(config: &Config, request: &ContainerRequest) -> Result<String, Error> {
    let cwd = match request.workdir.as_deref() {
        Some(asked) if !asked.starts_with('/') => {
            return Err(Error::Workdir {
                path: asked.to_owned(),
            });
        }
        Some(asked) => asked,
        None => &config.working_dir,
    };
    // An image's own is taken as relative to the root, where every path of a config begins.
    Ok(match cwd.strip_prefix('/') {
        Some(_) => cwd.to_owned(),
        None => format!("/{cwd}"),
    })
}

/// Whether the kernel and a hosts file take it.
fn is_hostname(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::super::request::Terminal;
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// `-` is unset.
    fn check_args(entrypoint: &str, cmd: &str, flag: &str, command: &str, expected: &str) {
        let list = |text: &str| (text != "-").then(|| words(text));
        let config = Config {
            entrypoint: list(entrypoint),
            cmd: list(cmd),
            ..Config::default()
        };
        let entrypoint_flag = (flag != "-").then(|| flag.to_owned());
        let request = ContainerRequest {
            image: "app".into(),
            entrypoint: entrypoint_flag,
            command: words(command),
            ..ContainerRequest::default()
        };
        let found = match process(&config, &request) {
            Ok(process) => process.args.join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{entrypoint} | {cmd} | {flag} | {command}");
    }

    #[test]
    fn arguments_follow_dockers_rules() {
        check_args("-", "sh -l", "-", "", "sh -l");
        check_args("-", "sh -l", "-", "ls /", "ls /");
        check_args("run", "serve", "-", "", "run serve");
        check_args("run", "serve", "-", "test -v", "run test -v");
        check_args("run", "serve", "sh", "", "sh");
        check_args("run", "serve", "sh", "-c ls", "sh -c ls");
        check_args("run", "serve", "", "ls", "ls");
        check_args("run", "-", "-", "", "run");
        check_args("-", "-", "sh", "", "sh");
    }

    #[test]
    fn an_image_without_a_program_needs_one() {
        let refusal = "image `app` names no program, and none was given";
        check_args("-", "-", "-", "", refusal);
        check_args("run", "serve", "", "", refusal);
    }

    fn check_env(
        image: &[&str],
        asked: &[(&str, Option<&str>)],
        terminal: bool,
        expected: &[&str],
    ) {
        let config = Config {
            cmd: Some(words("sh")),
            env: image.iter().map(|one| (*one).to_owned()).collect(),
            ..Config::default()
        };
        let stdio = match terminal {
            true => ProgramStdio::Terminal(Terminal { rows: 24, cols: 80 }),
            false => ProgramStdio::default(),
        };
        let own =
            |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
        let env = asked.iter().map(own).collect();
        let request = ContainerRequest {
            env,
            stdio,
            ..ContainerRequest::default()
        };
        let found: Vec<String> = process(&config, &request)
            .unwrap()
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn variables_of_the_request_go_over_those_of_the_image() {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        check_env(&[], &[], false, &[path, "HOSTNAME=kiln"]);
        check_env(&[], &[], true, &[path, "HOSTNAME=kiln", "TERM=xterm"]);
        check_env(
            &["PATH=/bin", "A=1"],
            &[],
            false,
            &["PATH=/bin", "HOSTNAME=kiln", "A=1"],
        );
        check_env(
            &["TERM=dumb"],
            &[],
            true,
            &[path, "HOSTNAME=kiln", "TERM=dumb"],
        );
        check_env(
            &["A=1"],
            &[("A", Some("2=3"))],
            false,
            &[path, "HOSTNAME=kiln", "A=2=3"],
        );
        check_env(&["A=1"], &[("A", None)], false, &[path, "HOSTNAME=kiln"]);
        check_env(
            &["A"],
            &[("B", Some(""))],
            false,
            &[path, "HOSTNAME=kiln", "A=", "B="],
        );
        check_env(
            &[],
            &[("A", Some("1")), ("A", Some("2"))],
            false,
            &[path, "HOSTNAME=kiln", "A=2"],
        );
    }

    fn check_cwd(image: &str, asked: Option<&str>, expected: &str) {
        let config = Config {
            cmd: Some(words("sh")),
            working_dir: image.to_owned(),
            ..Config::default()
        };
        let request = ContainerRequest {
            workdir: asked.map(str::to_owned),
            ..ContainerRequest::default()
        };
        let found = match process(&config, &request) {
            Ok(process) => process.cwd,
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn working_directories_are_absolute() {
        check_cwd("", None, "/");
        check_cwd("/srv", None, "/srv");
        check_cwd("srv", None, "/srv");
        check_cwd("/srv", Some("/tmp"), "/tmp");
        check_cwd(
            "/srv",
            Some("tmp"),
            "the working directory `tmp` is not an absolute path",
        );
    }

    #[test]
    fn the_request_decides_on_user_and_host_name() {
        let config = Config {
            cmd: Some(words("sh")),
            user: "www".into(),
            ..Config::default()
        };
        let with = |user: Option<&str>, hostname: Option<&str>| {
            let request = ContainerRequest {
                user: user.map(str::to_owned),
                hostname: hostname.map(str::to_owned),
                ..ContainerRequest::default()
            };
            process(&config, &request).map(|process| (process.user, process.hostname))
        };
        assert_eq!(with(None, None).unwrap(), ("www".into(), "kiln".into()));
        assert_eq!(
            with(Some("0:0"), Some("db")).unwrap(),
            ("0:0".into(), "db".into())
        );
        assert_eq!(with(Some(""), None).unwrap().0, "");
        for wrong in ["", "a b", "a\n127.0.0.1 evil", "-a", &"a".repeat(65)] {
            assert!(with(None, Some(wrong)).is_err(), "{wrong:?}");
        }
    }
}
