//! A real ssh server on loopback, with a host key of its own.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::capability::find_program;
use super::world::World;

/// sshd, one process a connection; it ends when it is dropped.
pub(crate) struct SshServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    ended: Arc<AtomicBool>,
    /// As `known_hosts` has it.
    pub(crate) host_key: String,
}

impl SshServer {
    /// Lets in who has the key `user`, which is made.
    pub(crate) fn start(world: &World) -> SshServer {
        for (file, comment) in [("host", "host@test"), ("user", "user@test")] {
            let keygen = ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file];
            world.program("ssh-keygen", &keygen).ok();
        }
        let path = |file: &str| world.path(file).display().to_string();
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             PermitUserRC no\nAcceptEnv none\n",
            path("host"),
            path("user.pub")
        );
        world.write("sshd_config", config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let is_ended = Arc::clone(&ended);
        let sshd = find_program("sshd").unwrap();
        let (config, log) = (world.path("sshd_config"), world.path("sshd.log"));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if is_ended.load(Ordering::SeqCst) {
                    return;
                }
                serve(&sshd, &config, &log, stream.into());
            }
        });
        let key = world.read("host.pub");
        let key: Vec<&str> = key.split(' ').take(2).collect();
        SshServer {
            address,
            ended,
            host_key: format!("[127.0.0.1]:{} {}\n", address.port(), key.join(" ")),
        }
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(self.address);
    }
}

/// As a super-server would: one connection is its input and output.
fn serve(sshd: &PathBuf, config: &PathBuf, log: &PathBuf, connection: OwnedFd) {
    // As root it wants a directory that its package makes only where it is started as a service.
    let script =
        "mount -t tmpfs none /run && mkdir /run/sshd && exec \"$0\" -i -e -f \"$1\" 2>> \"$2\"";
    let spawned = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(sshd)
        .args([config, log])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::from(connection.try_clone().unwrap()))
        .stdout(Stdio::from(connection))
        .stderr(Stdio::null())
        .spawn();
    let mut child = spawned.unwrap();
    std::thread::spawn(move || child.wait());
}
