//! Real engines for cases: each has a socket and directories of its own, and ends with its case.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::capability::find_program;
use super::user;

/// A loaded machine starts an engine slowly.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A docker engine.
pub(crate) struct Dockerd {
    process: Process,
    directory: PathBuf,
    /// Where it speaks TLS, if it does.
    tls_port: Option<u16>,
}

/// A containerd.
pub(crate) struct Containerd {
    process: Process,
    directory: PathBuf,
}

/// An answer of an engine.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A process with a mount namespace of its own, in which its mounts end with it.
///
/// In that of the tests, sandboxes of other cases would take copies of them.
struct Process {
    child: Child,
    directory: PathBuf,
}

impl Dockerd {
    /// Starts one that keeps everything below a directory.
    pub(crate) fn start(directory: &Path) -> Dockerd {
        Dockerd::try_start(directory).unwrap_or_else(|| {
            let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
            panic!("dockerd does not start: {log}")
        })
    }

    /// Starts one that also speaks TLS on a port, with the certificates and keys of a directory.
    pub(crate) fn start_with_tls(directory: &Path, material: &Path) -> Dockerd {
        // Somebody else may have taken the port before it does.
        let mut tries = (0..5).map(|_| {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            Dockerd::try_start_with(directory, Some((port, material)))
        });
        tries.find_map(|started| started).unwrap_or_else(|| {
            let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
            panic!("dockerd does not start: {log}")
        })
    }

    pub(super) fn try_start(directory: &Path) -> Option<Dockerd> {
        Dockerd::try_start_with(directory, None)
    }

    fn try_start_with(directory: &Path, tls: Option<(u16, &Path)>) -> Option<Dockerd> {
        let path = |name: &str| directory.join(name).display().to_string();
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("daemon.json"), "{}").unwrap();
        let mut command = apart("dockerd")?;
        command
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--data-root", &path("data")])
            .args(["--exec-root", &path("exec")])
            .args(["--config-file", &path("daemon.json")])
            .args(["--pidfile", &path("pid")])
            .args(["-H", &format!("unix://{}", path("docker.sock"))]);
        if let Some((port, material)) = tls {
            let file = |name: &str| material.join(name).display().to_string();
            command
                .args(["--tlsverify", "--tlscacert", &file("ca.pem")])
                .args(["--tlscert", &file("server.pem")])
                .args(["--tlskey", &file("server-key.pem")])
                .args(["-H", &format!("tcp://127.0.0.1:{port}")]);
        }
        let mut dockerd = Dockerd {
            process: Process::start(command, directory)?,
            directory: directory.to_owned(),
            tls_port: tls.map(|(port, _)| port),
        };
        let answers = || {
            let answer = try_ask(directory, "GET", "/_ping", b"");
            answer.is_some_and(|answer| answer.status == 200)
        };
        dockerd.process.wait_for(answers).then_some(dockerd)
    }

    /// What `DOCKER_HOST` is to be.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.directory.join("docker.sock").display())
    }

    /// The same for its port, where it speaks TLS.
    pub(crate) fn tls_host(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.tls_port.unwrap())
    }

    /// Asks it something.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        try_ask(&self.directory, method, path, body)
            .unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// Gives it an image of one layer, the archive.
    pub(crate) fn import(&self, name: &str, archive: &[u8]) {
        let path = format!("/images/create?fromSrc=-&repo={name}");
        assert_eq!(self.ask("POST", &path, archive).status, 200);
    }

    /// A document about an image.
    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.ask("GET", path, b"");
        let words = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 200, "{path}: {words}");
        serde_json::from_str(&words).unwrap()
    }

    /// Loads an archive.
    pub(crate) fn load(&self, archive: &[u8]) {
        let answer = self.ask("POST", "/images/load?quiet=1", archive);
        let words = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 200 && !words.contains("error"), "{words}");
    }
}

impl Containerd {
    /// Starts one that keeps everything below a directory.
    pub(crate) fn start(directory: &Path) -> Containerd {
        Containerd::try_start(directory).unwrap_or_else(|| {
            let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
            panic!("containerd does not start: {log}")
        })
    }

    pub(super) fn try_start(directory: &Path) -> Option<Containerd> {
        let path = |name: &str| directory.join(name).display().to_string();
        std::fs::create_dir_all(directory).unwrap();
        let settings = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{}\"\n",
            path("data"),
            path("state"),
            path("containerd.sock")
        );
        std::fs::write(directory.join("config.toml"), settings).unwrap();
        let mut command = apart("containerd")?;
        command.args(["--config", &path("config.toml")]);
        let mut containerd = Containerd {
            process: Process::start(command, directory)?,
            directory: directory.to_owned(),
        };
        let answers = || ctr(directory, &["version"]).is_some();
        containerd.process.wait_for(answers).then_some(containerd)
    }

    /// What `CONTAINERD_ADDRESS` is to be.
    pub(crate) fn address(&self) -> String {
        self.directory.join("containerd.sock").display().to_string()
    }

    /// What `ctr` prints, if it succeeds.
    pub(crate) fn ctr(&self, arguments: &[&str]) -> Option<String> {
        ctr(&self.directory, arguments)
    }
}

fn try_ask(directory: &Path, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
    let mut stream = UnixStream::connect(directory.join("docker.sock")).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: docker\r\ncontent-type: application/x-tar\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        body: answer.split_off(end + 4),
    })
}

/// Words before a command that let it have a mount namespace of its own.
pub(crate) const APART: [&str; 3] = ["--mount", "--propagation", "private"];

/// A program that gets a mount namespace of its own.
fn apart(program: &str) -> Option<Command> {
    let mut command = Command::new(find_program("unshare")?);
    command.args(APART).arg(find_program(program)?);
    Some(command)
}

fn ctr(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(find_program("ctr")?)
        .arg("--address")
        .arg(directory.join("containerd.sock"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(words)
}

impl Process {
    fn start(mut command: Command, directory: &Path) -> Option<Process> {
        let log = File::create(directory.join("log")).ok()?;
        let child = command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", directory)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().ok()?)
            .stderr(log)
            .spawn()
            .ok()?;
        Some(Process {
            child,
            directory: directory.to_owned(),
        })
    }

    /// Waits until it is ready; tells whether it ever was.
    fn wait_for(&mut self, ready: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + START_PATIENCE;
        while !ready() {
            if self.child.try_wait().unwrap().is_some() || Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Of its children, those that it did not wait for.
        for pid in naming(&self.directory) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// The processes whose arguments name a directory.
fn naming(directory: &Path) -> Vec<Pid> {
    let needle = directory.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        let is_engine = arguments.starts_with("containerd") || arguments.contains("/containerd\0");
        if is_engine && arguments.contains(&needle) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

/// Whether an engine starts here, tried once.
pub(super) fn starts(engine: &str) -> bool {
    let directory = tempfile::Builder::new()
        .prefix("kiln-e2e-")
        .tempdir()
        .unwrap();
    let path = directory.path();
    match engine {
        "dockerd" => Dockerd::try_start(path).is_some(),
        "containerd" => find_program("ctr").is_some() && Containerd::try_start(path).is_some(),
        "podman" => {
            let settings = podman_settings(path);
            let listed = apart("podman").map(|mut podman| {
                podman
                    .args(["images", "-q"])
                    .env("CONTAINERS_STORAGE_CONF", settings)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
            });
            matches!(listed, Some(Ok(status)) if status.success())
        }
        "podman of a user" => {
            find_program("podman").is_some()
                && user::succeeds_with_ids(path, &format!("{PODMAN_OF_A_USER}podman images -q"))
        }
        other => panic!("no engine {other}"),
    }
}

/// Lines of a shell that give an ordinary user's podman a storage in `$HOME`, and end what it leaves running.
pub(crate) const PODMAN_OF_A_USER: &str = r#"
    export XDG_RUNTIME_DIR=$HOME/run TMPDIR=$HOME CONTAINERS_STORAGE_CONF=$HOME/storage.conf
    mkdir -p -m 700 $XDG_RUNTIME_DIR
    printf '[storage]\ndriver = "vfs"\nrootless_storage_path = "%s"\nrunroot = "%s"\n' \
        $HOME/graph $HOME/run/containers > $HOME/storage.conf
    end() {
        pause=$(cat $XDG_RUNTIME_DIR/libpod/tmp/pause.pid 2> /dev/null) || return 0
        kill -9 $pause 2> /dev/null || return 0
        while test -e /proc/$pause; do sleep 0.01; done
    }
    trap end EXIT
"#;

/// Settings of a podman that keeps everything below a directory: their file.
pub(crate) fn podman_settings(directory: &Path) -> PathBuf {
    let path = |name: &str| directory.join(name).display().to_string();
    std::fs::create_dir_all(directory).unwrap();
    let settings = format!(
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
        path("graph"),
        path("run")
    );
    let file = directory.join("storage.conf");
    std::fs::write(&file, settings).unwrap();
    file
}
