//! A small archive of packages that are made here, signed with a key that is made here, on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::remotes::server::{Page, Server};
use crate::support::{World, dedent};

/// The programs that dpkg starts, and those of the scripts that run before there is anything else.
const APPLETS: &[&str] = &[
    "cat",
    "chmod",
    "cmp",
    "cp",
    "diff",
    "find",
    "grep",
    "ls",
    "mkdir",
    "ln",
    "mv",
    "rm",
    "sed",
    "sh",
    "start-stop-daemon",
    "touch",
    "tr",
    "truncate",
];
const DPKG: &[&str] = &[
    "dpkg",
    "dpkg-deb",
    "dpkg-split",
    "dpkg-query",
    "dpkg-trigger",
    "tar",
];

/// How a release is made wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// It holds until yesterday.
    Expired,
    /// A character of what was signed is another one.
    Changed,
    /// It is signed by somebody else.
    OtherKey,
    /// It is not signed.
    Unsigned,
    /// The index is not the one that it names.
    Index,
}

pub(super) struct Archive<'w> {
    world: &'w World,
    pub(super) server: Server,
    /// Paragraphs of the index, by the name of the package.
    paragraphs: BTreeMap<String, String>,
}

impl<'w> Archive<'w> {
    /// Makes an archive with what every one has: a busybox, and a base around the host's dpkg.
    pub(super) fn new(world: &'w World) -> Archive<'w> {
        let mut archive = Archive {
            world,
            server: Server::start(),
            paragraphs: BTreeMap::new(),
        };
        let busybox = crate::support::find_program("busybox").unwrap();
        let copy = |to: &str| world.write_mode(to, std::fs::read(&busybox).unwrap(), 0o755);
        copy("busybox-static/bin/busybox");
        archive.package("busybox-static", "1", "Architecture: amd64");
        for program in DPKG {
            world.copy_program(program, "base");
        }
        let root = world.path("base");
        // The root is merged; what the host has in `/lib` is there by its link.
        for (from, to) in [
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
            ("bin", "usr/bin"),
        ] {
            merge(&root.join(from), &root.join(to));
        }
        copy("base/usr/bin/busybox");
        for applet in APPLETS {
            let link = root.join("usr/bin").join(applet);
            std::os::unix::fs::symlink("busybox", link).unwrap();
        }
        world.write_mode("base/usr/sbin/ldconfig", "#!/bin/sh\nexit 0\n", 0o755);
        for (file, line) in [
            ("passwd", "root:*:0:0:root:/root:/bin/sh\n"),
            ("group", "root:*:0:\n"),
        ] {
            world.write(&format!("base/usr/share/base-passwd/{file}.master"), line);
        }
        for directory in ["etc/dpkg/dpkg.cfg.d", "var/log", "tmp", "var/tmp", "root"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        archive.package("base", "1", "Architecture: amd64\nEssential: yes");
        archive
    }

    /// Makes a package of the directory of its name, to which more fields are given.
    pub(super) fn package(&mut self, name: &str, version: &str, fields: &str) {
        let fields = dedent(fields);
        let control = format!(
            "Package: {name}\nVersion: {version}\nMaintainer: nobody <nobody@example.org>\n\
             Description: made by a test\n{}\n",
            fields.trim()
        );
        self.world
            .write(&format!("{name}/DEBIAN/control"), &control);
        let file = format!("{name}_{version}.deb").replace(':', "");
        let arguments = ["--root-owner-group", "-Zxz", "-z1", "--build", name, &file];
        run(self.world, "dpkg-deb", &arguments, b"");
        let bytes = std::fs::read(self.world.path(&file)).unwrap();
        let digest = run(self.world, "sha256sum", &[&file], b"");
        let digest = digest.split(' ').next().unwrap();
        let paragraph = format!(
            "{control}Filename: pool/{file}\nSize: {}\nSHA256: {digest}\n",
            bytes.len()
        );
        self.server.put(&format!("/pool/{file}"), Page::new(bytes));
        self.paragraphs.insert(name.to_owned(), paragraph);
    }

    /// Signs what there is as the suite `test`, and writes the key to `ctx/archive.asc`.
    pub(super) fn publish(&self, fault: Fault) {
        let paragraphs: Vec<&str> = self.paragraphs.values().map(String::as_str).collect();
        let index = paragraphs.join("\n");
        self.world.write("Packages", &index);
        run(self.world, "sh", &["-c", "xz -kf Packages"], b"");
        let packed = std::fs::read(self.world.path("Packages.xz")).unwrap();
        let digest = run(self.world, "sha256sum", &["Packages.xz"], b"");
        let digest = digest.split(' ').next().unwrap();
        let until = match fault {
            Fault::Expired => "Valid-Until: Sat, 01 Jan 2000 00:00:00 UTC\n",
            _ => "",
        };
        let release = format!(
            "Suite: test\nCodename: test\nDate: Fri, 31 Dec 1999 00:00:00 UTC\n{until}\
             Architectures: all amd64\nComponents: main\nNo-Support-for-Architecture-all: Packages\n\
             SHA256:\n {digest} {} main/binary-amd64/Packages.xz\n",
            packed.len()
        );
        let signer = match fault {
            Fault::OtherKey => "other",
            _ => "archive",
        };
        let gpg = Gpg::new(self.world);
        self.world.write("ctx/archive.asc", gpg.make("archive"));
        gpg.make(signer);
        let signed = match fault {
            Fault::Unsigned => release.clone(),
            _ => gpg.sign(signer, &release),
        };
        let signed = match fault {
            Fault::Changed => signed.replacen("Codename: test", "Codename: best", 1),
            _ => signed,
        };
        let served = match fault {
            Fault::Index => [packed.as_slice(), b"\0\0\0\0"].concat(),
            _ => packed,
        };
        self.server.put("/dists/test/InRelease", Page::new(signed));
        self.server.put(
            "/dists/test/main/binary-amd64/Packages.xz",
            Page::new(served),
        );
    }

    /// Writes a description whose only source is this archive.
    pub(super) fn describe(&self, description: &str) {
        let url = self.server.url("/");
        let text = format!(
            "{}\n[[sources]]\nurl = \"{url}\"\nsuites = [\"test\"]\nkeys = [\"archive.asc\"]\n",
            dedent(description).trim()
        );
        self.world.write("ctx/debian.toml", text);
    }

    /// The packages that were fetched since the last time.
    pub(super) fn fetched(&self) -> Vec<String> {
        let log = self.server.log().into_iter();
        let mut names: Vec<String> = log
            .filter_map(|line| Some(line.split_once("/pool/")?.1.to_owned()))
            .map(|line| line.split(['_', ' ']).next().unwrap_or_default().to_owned())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Moves what is in one directory into another, and removes the first.
fn merge(from: &Path, to: &Path) {
    if !from.is_dir() {
        return;
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => merge(&path, &to),
            false => std::fs::rename(&path, &to).unwrap(),
        }
    }
    std::fs::remove_dir(from).unwrap();
}

/// gpg with a home of its own, whose agent ends with it.
struct Gpg<'w> {
    world: &'w World,
    home: PathBuf,
}

impl<'w> Gpg<'w> {
    fn new(world: &'w World) -> Gpg<'w> {
        // Sockets have short paths.
        let home = world.path("gpg");
        std::fs::create_dir_all(&home).unwrap();
        world.chmod("gpg", 0o700);
        Gpg { world, home }
    }

    fn run(&self, arguments: &[&str], stdin: &str) -> String {
        let home = self.home.display().to_string();
        let head = [
            "--homedir",
            &home,
            "--batch",
            "--yes",
            "--passphrase",
            "",
            "--quiet",
        ];
        run(
            self.world,
            "gpg",
            &[&head[..], arguments].concat(),
            stdin.as_bytes(),
        )
    }

    /// Makes a key unless it is there; returns its public half.
    fn make(&self, name: &str) -> String {
        let user = format!("{name} <{name}@example.org>");
        if !self.home.join(name).exists() {
            self.run(&["--quick-gen-key", &user, "ed25519", "sign", "never"], "");
            std::fs::write(self.home.join(name), "").unwrap();
        }
        self.run(&["--armor", "--export", &user], "")
    }

    fn sign(&self, name: &str, text: &str) -> String {
        let user = format!("{name} <{name}@example.org>");
        self.run(
            &["--local-user", &user, "--clearsign", "--output", "-"],
            text,
        )
    }
}

impl Drop for Gpg<'_> {
    fn drop(&mut self) {
        let home = self.home.display().to_string();
        let mut command = Command::new("gpgconf");
        command.args(["--homedir", &home, "--kill", "gpg-agent"]);
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Runs a program of the host, which must succeed, in the directory of the world.
fn run(world: &World, program: &str, arguments: &[&str], stdin: &[u8]) -> String {
    use std::io::Write;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(world.path("."))
        .env("LC_ALL", "C");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
