//! A socket in a step, and the threads that pass on what an agent may be asked there.
//!
//! A step may list keys and have something signed. Whatever else the protocol has (adding and
//! removing keys, locking the agent, extensions) is refused without asking the agent.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_ir::SecretOpt;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use super::{Agent, AgentError};

/// The longest message that OpenSSH's agent takes.
const LONGEST_MESSAGE: usize = 256 << 10;
/// A step that opens more connections at a time is refused.
const MOST_CONNECTIONS: usize = 64;

const PAUSE: Duration = Duration::from_millis(10);

// Numbers of draft-miller-ssh-agent.
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

const NAME: &str = "agent";

/// A socket behind which an agent answers, until this is dropped.
#[derive(Debug)]
pub(crate) struct Forwarding {
    stop: Arc<OwnedFd>,
    connections: Arc<Mutex<Connections>>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Connections {
    stopped: bool,
    /// Both sides of each connection that is open, and who serves it.
    open: Vec<(Vec<UnixStream>, JoinHandle<()>)>,
}

impl Forwarding {
    /// Makes a socket in `directory`, which is empty; returns it to be mounted.
    ///
    /// With `owned` off its owner is the caller, where no other can be.
    pub(crate) fn start(
        agent: Agent,
        directory: BorrowedFd<'_>,
        options: &SecretOpt,
        owned: bool,
    ) -> Result<(Forwarding, OwnedFd), AgentError> {
        let failed = |source: io::Error| AgentError::Socket(source);
        // A path as short as sockets want it, wherever the directory is.
        let path = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
        let listener = UnixListener::bind(path).map_err(failed)?;
        let socket = expose(directory, options, owned).map_err(|error| failed(error.into()))?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC);
        let stop = Arc::new(stop.map_err(|error| failed(error.into()))?);
        let connections = Arc::new(Mutex::new(Connections::default()));
        let accepting = std::thread::Builder::new()
            .name("ssh-forward".to_owned())
            .spawn({
                let (stop, connections) = (Arc::clone(&stop), Arc::clone(&connections));
                move || accept(&listener, &stop, &agent, &connections)
            });
        let forwarding = Forwarding {
            stop,
            connections,
            accepting: Some(accepting.map_err(failed)?),
        };
        Ok((forwarding, socket))
    }
}

/// Gives the socket its owner and mode, and opens it to be mounted.
fn expose(
    directory: BorrowedFd<'_>,
    options: &SecretOpt,
    owned: bool,
) -> rustix::io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(options.mode & 0o777);
    rustix::fs::chmodat(directory, NAME, mode, AtFlags::empty())?;
    if owned {
        let (uid, gid) = (Uid::from_raw(options.uid), Gid::from_raw(options.gid));
        rustix::fs::chownat(
            directory,
            NAME,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, NAME, flags, Mode::empty())
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        // A write of 8 bytes to an event descriptor at 0 cannot fail.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let open = {
            let mut connections = lock(&self.connections);
            connections.stopped = true;
            std::mem::take(&mut connections.open)
        };
        for (streams, serving) in open {
            for stream in streams {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            let _ = serving.join();
        }
    }
}

fn lock(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes connections until it is told to stop.
fn accept(
    listener: &UnixListener,
    stop: &OwnedFd,
    agent: &Agent,
    connections: &Arc<Mutex<Connections>>,
) {
    loop {
        let mut ready = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        if !ready[1].revents().is_empty() {
            return;
        }
        if ready[0].revents().is_empty() {
            continue;
        }
        let Ok((client, _)) = listener.accept() else {
            // There may be no descriptor left until some other connection ends.
            std::thread::sleep(PAUSE);
            continue;
        };
        let mut known = lock(connections);
        known.open.retain(|(_, serving)| !serving.is_finished());
        if known.stopped || known.open.len() >= MOST_CONNECTIONS {
            continue;
        }
        // A connection that cannot be served is closed; the step's ssh says that it was.
        if let Ok(connection) = serve(client, agent) {
            known.open.push(connection);
        }
    }
}

/// Serves a connection in a thread of its own.
fn serve(client: UnixStream, agent: &Agent) -> io::Result<(Vec<UnixStream>, JoinHandle<()>)> {
    let agent = agent.connect()?;
    let streams = vec![client.try_clone()?, agent.try_clone()?];
    let thread = std::thread::Builder::new().name("ssh-connection".to_owned());
    let serving = thread.spawn(move || {
        // Either side may go at any time.
        let _ = relay(&client, &agent);
        let _ = client.shutdown(std::net::Shutdown::Both);
    })?;
    Ok((streams, serving))
}

/// Passes requests on and answers back, until one side closes.
fn relay(mut client: impl Read + Write, mut agent: impl Read + Write) -> io::Result<()> {
    while let Some(request) = read_message(&mut client)? {
        let answer = match request.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                write_message(&mut agent, &request)?;
                read_message(&mut agent)?.ok_or(io::ErrorKind::UnexpectedEof)?
            }
            _ => vec![FAILURE],
        };
        write_message(&mut client, &answer)?;
    }
    Ok(())
}

/// Reads one message without its length; none at the end of the stream.
fn read_message(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 || length > LONGEST_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message)?;
    Ok(Some(message))
}

fn write_message(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    to.write_all(&framed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both directions of a connection in memory.
    struct Duplex {
        input: io::Cursor<Vec<u8>>,
        output: Vec<u8>,
    }

    impl Read for Duplex {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.input.read(buffer)
        }
    }

    impl Write for Duplex {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn framed(messages: &[&[u8]]) -> Duplex {
        let mut input = Vec::new();
        for message in messages {
            write_message(&mut input, message).unwrap();
        }
        Duplex {
            input: io::Cursor::new(input),
            output: Vec::new(),
        }
    }

    /// What the agent is asked and the client is answered, where the agent always answers `yes`.
    #[track_caller]
    fn check(asked: &[&[u8]], reaches: &[&[u8]], answered: &[&[u8]]) {
        let mut client = framed(asked);
        let mut agent = framed(&[b"yes", b"yes", b"yes"]);
        relay(&mut client, &mut agent).unwrap();
        assert_eq!(agent.output, framed(reaches).input.into_inner());
        assert_eq!(client.output, framed(answered).input.into_inner());
    }

    #[test]
    fn listing_and_signing_reach_the_agent() {
        let sign = [SIGN_REQUEST, 1, 2, 3];
        check(
            &[&[REQUEST_IDENTITIES], &sign],
            &[&[REQUEST_IDENTITIES], &sign],
            &[b"yes", b"yes"],
        );
    }

    #[test]
    fn nothing_else_does() {
        // Add, remove one, remove all, lock, add constrained, extension.
        for request in [17, 18, 19, 22, 25, 27] {
            check(&[&[request, 0]], &[], &[&[FAILURE]]);
        }
    }

    #[test]
    fn a_message_that_is_too_long_ends_the_connection() {
        let mut client = framed(&[]);
        client.input = io::Cursor::new(u32::MAX.to_be_bytes().to_vec());
        assert!(relay(&mut client, framed(&[])).is_err());
        assert!(client.output.is_empty());
    }

    #[test]
    fn an_agent_that_never_answers_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("upstream");
        let upstream = UnixListener::bind(&socket).unwrap();
        let place = directory.path().join("place");
        std::fs::create_dir(&place).unwrap();
        let agent = Agent {
            socket,
            _started: None,
        };
        let options = SecretOpt {
            mode: 0o640,
            ..SecretOpt::default()
        };
        let opened = std::fs::File::open(&place).unwrap();
        let (forwarding, _) = Forwarding::start(agent, opened.as_fd(), &options, false).unwrap();
        let made = std::fs::metadata(place.join(NAME)).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&made.permissions()) & 0o777,
            0o640
        );
        let mut client = UnixStream::connect(place.join(NAME)).unwrap();
        write_message(&mut client, &[REQUEST_IDENTITIES]).unwrap();
        let (mut asked, _) = upstream.accept().unwrap();
        let request = read_message(&mut asked).unwrap();
        assert_eq!(request.as_deref(), Some(&[REQUEST_IDENTITIES][..]));
        drop(forwarding);
        assert_eq!(read_message(&mut client).unwrap(), None);
        assert_eq!(read_message(&mut asked).unwrap(), None);
    }
}
