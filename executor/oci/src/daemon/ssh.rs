//! An engine behind ssh: `docker system dial-stdio` over there, as docker's own command has it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use url::Url;

use super::dial::Dialled;
use crate::caller::{Caller, CallersProcess, CommandLine};

/// What ssh is given for its connection; who logs in by hand takes the rest of it.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// What it is given to end, once nobody speaks through it any more.
const GRACE: Duration = Duration::from_secs(2);
/// What it says that is told.
const WORDS_LIMIT_BYTES: usize = 4096;

/// Whom ssh connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// The engine's socket over there, if it is not where docker looks for it.
    socket: Option<String>,
}

/// How ssh ended, once it has, and what it said.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    line: String,
    status: watch::Receiver<Option<String>>,
    words: Arc<Mutex<Vec<u8>>>,
}

impl SshTarget {
    /// Reads `ssh://[USER@]HOST[:PORT][/SOCKET]`; errors with what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<SshTarget, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        if url.password().is_some() {
            return Err("plain-text password is not supported".to_owned());
        }
        let host = url.host_str().unwrap_or_default();
        // As a word of ssh's own it would be an option.
        if host.is_empty() || host.starts_with('-') {
            return Err("no host specified".to_owned());
        }
        if let Some(query) = url.query() {
            return Err(format!("extra query after the host: `{query}`"));
        }
        if let Some(fragment) = url.fragment() {
            return Err(format!("extra fragment after the host: `{fragment}`"));
        }
        let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(SshTarget {
            user: filled(url.username()),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port(),
            socket: filled(url.path()).filter(|path| path != "/"),
        })
    }

    fn line(&self) -> CommandLine {
        let mut words: Vec<String> = ["-o", "ConnectTimeout=30", "-T"]
            .map(str::to_owned)
            .to_vec();
        if let Some(user) = &self.user {
            words.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        words.extend(["--".to_owned(), self.host.clone(), "docker".to_owned()]);
        if let Some(socket) = &self.socket {
            // The shell over there reads these words.
            let address = format!("unix://{socket}").replace('\'', r"'\''");
            words.extend(["--host".to_owned(), format!("'{address}'")]);
        }
        words.extend(["system", "dial-stdio"].map(str::to_owned));
        CommandLine::new("ssh", words)
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.socket.as_deref().unwrap_or_default())
    }
}

/// Starts ssh, which is one connection.
pub(super) fn dial(target: &SshTarget, caller: &dyn Caller) -> io::Result<Dialled> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let stream = UnixStream::from_std(ours)?;
    let theirs = OwnedFd::from(theirs);
    let (stderr, to_stderr) = io::pipe()?;
    let stderr = Receiver::from_owned_fd(stderr.into())?;
    let line = target.line();
    let streams = [theirs.try_clone()?, theirs, to_stderr.into()];
    let process = caller.start(&line, streams).map_err(|error| {
        // An engine that was named is missed, whatever keeps it away.
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("cannot run `ssh`: {error}"),
        )
    })?;
    let words: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (tell, status) = watch::channel(None);
    tokio::spawn(attend(process, stderr, Arc::clone(&words), tell));
    let shown = line.arguments.iter().map(|word| word.to_string_lossy());
    let line = std::iter::once("ssh".into())
        .chain(shown)
        .collect::<Vec<_>>()
        .join(" ");
    Ok(Dialled {
        stream: Box::new(stream),
        ended: Some(Ended {
            line,
            status,
            words,
        }),
    })
}

/// Sees ssh to its end, which comes soon once nobody wants to know of it any more.
async fn attend(
    mut process: Box<dyn CallersProcess>,
    mut stderr: Receiver,
    words: Arc<Mutex<Vec<u8>>>,
    tell: watch::Sender<Option<String>>,
) {
    let reading = async {
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = stderr.read(&mut piece).await {
            let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
            let room = WORDS_LIMIT_BYTES.saturating_sub(words.len());
            words.extend_from_slice(&piece[..count.min(room)]);
        }
        // A master connection in the background keeps its end for ever.
        std::future::pending::<()>().await;
    };
    let ended = async {
        let status = process.ended().await;
        // What it said last is on its way.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let status: io::Result<ExitStatus> = status;
        let _ = tell.send(Some(match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }));
    };
    let unwanted = async {
        tell.closed().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = reading => {}
        () = ended => {}
        () = unwanted => {}
    }
}

impl Ended {
    /// What ended it, if it has ended, or does so within a moment.
    pub(super) async fn why(mut self) -> Option<String> {
        let ended = self.status.wait_for(Option::is_some);
        let status = tokio::time::timeout(GRACE, ended)
            .await
            .ok()?
            .ok()?
            .clone()?;
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let words = String::from_utf8_lossy(&words);
        let words: Vec<&str> = words
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        Some(format!(
            "`{}` has ended with {status}, make sure the URL is valid, and Docker 18.09 or later is installed on \
             the remote host: {}",
            self.line,
            words.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let target = SshTarget::parse(text).unwrap();
        assert_eq!(target.to_string(), text.trim_end_matches('/'));
        let words = target.line().arguments;
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            words.join(" "),
            format!("-o ConnectTimeout=30 -T {expected}")
        );
    }

    #[test]
    fn urls_are_arguments() {
        check("ssh://host", "-- host docker system dial-stdio");
        check(
            "ssh://me@host:22/",
            "-l me -p 22 -- host docker system dial-stdio",
        );
        check(
            "ssh://[::1]:2222",
            "-p 2222 -- ::1 docker system dial-stdio",
        );
        check(
            "ssh://host/run/user/1/docker.sock",
            "-- host docker --host 'unix:///run/user/1/docker.sock' system dial-stdio",
        );
    }

    #[test]
    fn urls_that_are_refused() {
        for (text, words) in [
            (
                "ssh://me:secret@host",
                "plain-text password is not supported",
            ),
            ("ssh://", "no host specified"),
            ("ssh://-oProxyCommand=x", "no host specified"),
            ("ssh://host?a=b", "extra query after the host: `a=b`"),
            ("ssh://host#c", "extra fragment after the host: `c`"),
        ] {
            let error = SshTarget::parse(text).unwrap_err();
            assert_eq!(error, words, "{text}");
        }
    }
}
