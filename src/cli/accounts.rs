//! `kiln login`, `kiln logout`.

use std::io::{self, Read as _};
use std::process::ExitCode;

use kiln::{Accounts, Credential, Error, Kept, LoggedOut};
use tokio::runtime::Runtime;

use super::args::LoginArgs;
use super::{Done, Failure, host, print, prompt, report};

/// No password is longer.
const PASSWORD_LIMIT_BYTES: u64 = 64 << 10;

pub(crate) fn login(args: LoginArgs) -> Done {
    let registry = Accounts::registry(args.registry.as_deref())?;
    let accounts = open()?;
    let runtime = host::runtime()?;
    let asks = args.username.is_none() && args.password.is_none();
    let mut account = args.username;
    if asks && let Some(stored) = runtime.block_on(accounts.stored(&registry))? {
        if let Credential::Basic { username, .. } = &stored {
            account = Some(username.clone());
        }
        report::note("Authenticating with existing credentials...");
        match runtime.block_on(accounts.check(&registry, stored)) {
            Ok(()) => return print("Login Succeeded\n"),
            Err(error) if prompt::is_possible() => report::warning(&report::text(&error.into())),
            Err(error) => return Err(error.into()),
        }
    }
    let username = match account {
        Some(username) if !asks => username,
        usual => ask_name(usual)?,
    };
    let password = match (args.password, args.password_stdin) {
        (Some(password), _) => {
            report::warning(
                "other users of this host see --password, and the shell keeps it; \
                 use --password-stdin",
            );
            password
        }
        (None, true) => read_password()?,
        (None, false) => ask_password()?,
    };
    if username.is_empty() {
        return refuse("there is no user name", None);
    }
    if password.is_empty() {
        return refuse("there is no password", None);
    }
    keep(
        &accounts,
        &runtime,
        &registry,
        Credential::Basic { username, password },
    )
}

fn keep(accounts: &Accounts, runtime: &Runtime, registry: &str, credential: Credential) -> Done {
    let new = runtime.block_on(accounts.log_in(registry, credential))?;
    if !new.was_checked {
        report::warning(&format!(
            "`{registry}` asks nobody for a password, so this one was not checked"
        ));
    }
    if let Kept::File(path) = &new.kept {
        report::warning(&format!(
            "the password is kept without encryption in `{}`; a credential helper keeps it better \
             (`credsStore` in that file)",
            path.display()
        ));
    }
    print("Login Succeeded\n")
}

pub(crate) fn logout(registry: Option<&str>) -> Done {
    let registry = Accounts::registry(registry)?;
    let accounts = open()?;
    let runtime = host::runtime()?;
    match runtime.block_on(accounts.log_out(&registry))? {
        LoggedOut::Forgotten(_) => print(&format!("Removing login credentials for {registry}\n")),
        LoggedOut::Unknown => print(&format!("Not logged in to {registry}\n")),
        LoggedOut::Elsewhere(path) => {
            report::warning(&format!(
                "`{}` has an account of `{registry}`, which kiln uses and leaves as it is; \
                 `podman logout {registry}` removes it",
                path.display()
            ));
            print(&format!("Not logged in to {registry}\n"))
        }
    }
}

fn open() -> Result<Accounts, Failure> {
    let accounts = Accounts::open(&host::registries())?;
    for (name, origin) in accounts.settings().unverified() {
        report::warning(&format!(
            "certificates of `{name}` are not verified, since {origin} says so"
        ));
    }
    Ok(accounts)
}

fn ask_name(usual: Option<String>) -> Result<String, Failure> {
    must_ask("the user name")?;
    let question = match &usual {
        Some(usual) => format!("Username ({usual}): "),
        None => "Username: ".to_owned(),
    };
    let name = prompt::line(&question).map_err(asking)?;
    Ok(match usual {
        Some(usual) if name.is_empty() => usual,
        _ => name,
    })
}

fn ask_password() -> Result<String, Failure> {
    must_ask("the password")?;
    prompt::hidden("Password: ").map_err(asking)
}

/// Reads all of standard input; a line end after it is not part of the password.
fn read_password() -> Result<String, Failure> {
    let mut password = String::new();
    let mut stdin = io::stdin().lock().take(PASSWORD_LIMIT_BYTES);
    stdin.read_to_string(&mut password).map_err(asking)?;
    let password = password.strip_suffix('\n').unwrap_or(&password);
    Ok(password.strip_suffix('\r').unwrap_or(password).to_owned())
}

fn must_ask(what: &str) -> Result<(), Failure> {
    if prompt::is_possible() {
        return Ok(());
    }
    let message = format!("could not ask for {what}: standard input is no terminal");
    report::usage(&message, Some("give --username and --password-stdin"));
    Err(Failure::Told(2))
}

fn asking(source: io::Error) -> Failure {
    if source.kind() == io::ErrorKind::Interrupted {
        return Failure::Told(130);
    }
    Failure::Kiln(Error::File {
        attempt: "read from",
        path: "standard input".into(),
        source,
    })
}

fn refuse(message: &str, hint: Option<&str>) -> Result<ExitCode, Failure> {
    report::usage(message, hint);
    Err(Failure::Told(2))
}
