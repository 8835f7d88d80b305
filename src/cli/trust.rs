//! The small languages of `--secret`, `--ssh` and `--allow`: what the steps of a build are trusted with.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use kiln::{AgentSource, Entitlement, SecretSource, Secrets};

use super::report;
use super::spec::{Result, refuse, shown_but, split_csv};

/// Reads all `--secret` and `--ssh` flags; what they take from the environment is taken now.
pub(crate) fn secrets(secret: &[String], ssh: &[String]) -> Result<Secrets> {
    let mut secrets = Secrets::default();
    for spec in secret {
        let (id, place) = value(spec)?;
        let source = match place {
            Place::File(path) => SecretSource::File(path),
            // As under buildx, one that is not set is empty.
            Place::Variable(name) => {
                SecretSource::Value(std::env::var_os(name).unwrap_or_default().into_vec())
            }
        };
        // As in buildx, the last of several counts.
        secrets.values.insert(id, source);
    }
    for spec in ssh {
        let (id, source) = agent(spec)?;
        if secrets.agents.insert(id.clone(), source).is_some() {
            return refuse(
                format!("`--ssh {spec}`: an agent `{id}` was given before"),
                "give each agent an id of its own, and name it in the step: --mount=type=ssh,id=ID",
            );
        }
    }
    Ok(secrets)
}

/// Tells of secrets that are empty since their variable is not set.
pub(crate) fn warn_of_unset(secret: &[String]) {
    for spec in secret {
        if let Ok((id, Place::Variable(name))) = value(spec)
            && !is_set(&name)
        {
            report::warning(&format!(
                "the variable `{name}` of --secret is not set, so the secret `{id}` is empty"
            ));
        }
    }
}

/// Where a secret is to be read.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Variable(String),
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

const SECRET_HINT: &str = "as in --secret id=token,src=token.txt or --secret id=token,env=TOKEN";

/// `id=ID[,src=FILE|,env=NAME][,type=file|env]`; an id alone is a variable of that name, or a file.
fn value(spec: &str) -> Result<(String, Place)> {
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    // Whoever takes it for the place of the secret itself gives that with another key, or with none.
    let is_secret = |key: &str| !matches!(key, "id" | "source" | "src" | "env" | "type");
    let shown = shown_but(spec, is_secret);
    for field in split_csv(spec) {
        let Some((key, value)) = field.split_once('=') else {
            return refuse(
                format!("`--secret {shown}`: not all of its fields are KEY=VALUE"),
                SECRET_HINT,
            );
        };
        let place = match key.to_ascii_lowercase().as_str() {
            "id" => &mut id,
            "source" | "src" => &mut file,
            "env" => &mut variable,
            "type" if matches!(value, "file" | "env") => &mut kind,
            "type" => {
                return refuse(
                    format!("`--secret {shown}`: there is no secret type `{value}`"),
                    "file and env are there",
                );
            }
            _ => {
                return refuse(
                    format!("`--secret {shown}`: there is no key `{key}`"),
                    "id, src, env and type are there",
                );
            }
        };
        *place = Some(value.to_owned());
    }
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    let (file, variable) = (given(file), given(variable));
    let Some(id) = given(id) else {
        return refuse(format!("`--secret {shown}` has no id"), SECRET_HINT);
    };
    let (file, variable) = match (kind.as_deref(), file, variable) {
        (Some("env"), file, None) => (None, file),
        (_, file, variable) => (file, variable),
    };
    let place = match (file, variable) {
        (_, Some(name)) => Place::Variable(name),
        (Some(path), None) => Place::File(PathBuf::from(path)),
        (None, None) if kind.as_deref() == Some("env") => Place::Variable(id.clone()),
        (None, None) if kind.is_none() && is_set(&id) => Place::Variable(id.clone()),
        (None, None) => Place::File(PathBuf::from(&id)),
    };
    Ok((id, place))
}

/// `ID[=SOCKET|KEY[,KEY]]`; an id alone is the agent that `SSH_AUTH_SOCK` names.
fn agent(spec: &str) -> Result<(String, AgentSource)> {
    let (id, paths) = spec.split_once('=').unwrap_or((spec, ""));
    let id = if id.is_empty() { "default" } else { id };
    let paths: Vec<PathBuf> = paths
        .split(',')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect();
    if paths.is_empty() {
        return match std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()) {
            Some(path) => Ok((id.to_owned(), AgentSource::Socket(path.into()))),
            None => refuse(
                format!("`--ssh {spec}`: no agent runs here, since SSH_AUTH_SOCK is not set"),
                &format!(
                    "start one with eval \"$(ssh-agent)\", or give a key: --ssh {id}=$HOME/.ssh/id_ed25519"
                ),
            ),
        };
    }
    let is_socket =
        |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let sockets = paths.iter().filter(|path| is_socket(path)).count();
    match (sockets, paths.as_slice()) {
        (0, _) => Ok((id.to_owned(), AgentSource::Keys(paths))),
        (1, [socket]) => Ok((id.to_owned(), AgentSource::Socket(socket.clone()))),
        _ => refuse(
            format!("`--ssh {spec}`: a socket stands alone"),
            "give one socket, or files of keys",
        ),
    }
}

/// Entitlements, one or several with commas.
pub(crate) fn allow(specs: &[String]) -> Result<BTreeSet<Entitlement>> {
    let known = [
        Entitlement::NetworkHost,
        Entitlement::SecurityInsecure,
        Entitlement::FrontendExec,
    ];
    let by_name: BTreeMap<String, Entitlement> = known
        .into_iter()
        .map(|entitlement| (entitlement.to_string(), entitlement))
        .collect();
    specs
        .iter()
        .flat_map(|spec| spec.split(','))
        .filter(|name| !name.is_empty())
        .map(|name| match by_name.get(name) {
            Some(entitlement) => Ok(*entitlement),
            None => refuse(
                format!("`--allow {name}`: there is no entitlement `{name}`"),
                "network.host, security.insecure and frontend.exec are there",
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: &str, id: &str, place: Place) {
        assert_eq!(value(spec).unwrap(), (id.to_owned(), place), "{spec}");
    }

    #[test]
    fn secrets_from_files() {
        let file = |path: &str| Place::File(path.into());
        check("id=a,src=b", "a", file("b"));
        check("ID=a,type=file,source=b", "a", file("b"));
        check("\"src=b,c\",id=a", "a", file("b,c"));
        check(
            "id=no-such-variable",
            "no-such-variable",
            file("no-such-variable"),
        );
        check("id=PATH,type=file", "PATH", file("PATH"));
    }

    #[test]
    fn secrets_from_variables() {
        let variable = |name: &str| Place::Variable(name.to_owned());
        check("id=a,env=B", "a", variable("B"));
        check("id=a,type=env,src=B", "a", variable("B"));
        check("id=PATH", "PATH", variable("PATH"));
        check("id=B,type=env", "B", variable("B"));
        check("id=a,src=b,env=B", "a", variable("B"));
    }

    #[test]
    fn what_is_no_secret() {
        for spec in ["", "a", "src=b", "id=", "id=a,type=x", "id=a,mode=1"] {
            assert!(value(spec).is_err(), "{spec}");
        }
    }

    #[test]
    fn agents() {
        let keys = |paths: &[&str]| AgentSource::Keys(paths.iter().map(PathBuf::from).collect());
        assert_eq!(agent("default=k").unwrap().1, keys(&["k"]));
        assert_eq!(agent("a=k,l").unwrap(), ("a".into(), keys(&["k", "l"])));
        assert_eq!(agent("=k").unwrap().0, "default");
        let twice = ["a=k".to_owned(), "a=l".to_owned()];
        assert!(secrets(&[], &twice).is_err());
    }

    #[test]
    fn a_socket_stands_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let path = path.display();
        assert!(matches!(
            agent(&format!("a={path}")).unwrap().1,
            AgentSource::Socket(_)
        ));
        assert!(agent(&format!("a={path},key")).is_err());
    }

    #[test]
    fn entitlements() {
        let given = ["network.host,security.insecure".to_owned()];
        assert_eq!(allow(&given).unwrap().len(), 2);
        assert!(allow(&["device".to_owned()]).is_err());
    }
}
