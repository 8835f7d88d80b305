//! Repositories behind a real ssh server on loopback, with its own host key and a real agent.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error_of;
use super::repositories::Forge;
use crate::support::Capability::{self, Containers, Git, MountNamespace, OpenSsh, Root, Sshd};
use crate::support::{Agent, Case, World, case, find_program};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Root, MountNamespace, Git, OpenSsh, Sshd];
    vec![
        case("added_over_real_ssh", NEEDS, added),
        case("context_over_real_ssh", NEEDS, context),
        case("hosts_that_nobody_knows", NEEDS, unknown_hosts),
    ]
}

/// sshd, one process a connection; it ends when it is dropped.
struct SshServer {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    /// As `known_hosts` has it.
    host_key: String,
}

impl SshServer {
    /// Lets in who has the key `user`, which is made.
    fn start(world: &World) -> SshServer {
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

    fn url(&self, forge: &Forge<'_>, name: &str) -> String {
        let bare = forge.bare(name);
        format!(
            "ssh://root@127.0.0.1:{}{}",
            self.address.port(),
            bare.display()
        )
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

fn know(world: &World, lines: &str) {
    world.write("../home/.ssh/known_hosts", lines);
}

fn added(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "over ssh\n"), ("sub/g", "g\n")]);
    let server = SshServer::start(world);
    know(world, &server.host_key);
    let url = server.url(&forge, "app");
    forge.prepare(&format!("ADD {url} /src\nADD {url}#main:sub /sub"));
    let agent = Agent::start(world, "user");
    let ssh = format!("default={}", agent.socket());
    // Who shows no key is not let in, whatever agent the caller has.
    let refused = world
        .kiln(&["build", "ctx"])
        .env("SSH_AUTH_SOCK", agent.socket())
        .exits(1);
    let said = error_of(&refused);
    assert!(said.contains("Permission denied (publickey)"), "{said}");
    assert!(said.contains("hint: forward an agent"), "{said}");
    world
        .kiln(&["build", "-t", "app", "--ssh", &ssh, "ctx"])
        .ok();
    assert_eq!(world.sh("app", "cat /src/f /sub/g"), "over ssh\ng\n");
    // The caller's own agent, by name; a commit that is known is not asked for again.
    let again = world
        .kiln(&["build", "--ssh", "default", "ctx"])
        .env("SSH_AUTH_SOCK", agent.socket())
        .ok();
    assert!(!again.table().contains(" ran "), "{}", again.stderr);
}

fn context(world: &World) {
    world.base();
    let forge = Forge::start(world);
    let files = [
        ("Dockerfile", "FROM demo/base\nCOPY f /f\n"),
        ("f", "context over ssh\n"),
    ];
    forge.repository("app", &files);
    let server = SshServer::start(world);
    know(world, &server.host_key);
    let agent = Agent::start(world, "user");
    let url = server.url(&forge, "app");
    world
        .kiln(&["build", "-t", "app", &format!("{url}#main")])
        .env("SSH_AUTH_SOCK", agent.socket())
        .ok();
    assert_eq!(world.sh("app", "cat /f"), "context over ssh\n");
}

fn unknown_hosts(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "f\n")]);
    let server = SshServer::start(world);
    forge.prepare(&format!("ADD {} /src", server.url(&forge, "app")));
    let agent = Agent::start(world, "user");
    let ssh = format!("default={}", agent.socket());
    let refused = || {
        let ran = world.kiln(&["build", "--ssh", &ssh, "ctx"]).exits(1);
        let said = error_of(&ran).to_owned();
        assert!(said.contains("Host key verification failed"), "{said}");
        assert!(
            said.contains("hint: add the host's key to ~/.ssh/known_hosts"),
            "{said}"
        );
    };
    refused();
    // Another key than the one that is known.
    let keygen = ["-q", "-t", "ed25519", "-N", "", "-f", "other"];
    world.program("ssh-keygen", &keygen).ok();
    let key = world.read("other.pub");
    let host = server.host_key.split(' ').next().unwrap();
    know(world, &format!("{host} {key}"));
    refused();
    know(world, &server.host_key);
    world.kiln(&["build", "--ssh", &ssh, "ctx"]).ok();
}
