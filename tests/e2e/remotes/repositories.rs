//! ADD of git repositories.

use std::path::PathBuf;

use super::error_of;
use super::server::Server;
use crate::support::Capability::{Containers, Git};
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[crate::support::Capability] = &[Containers, Git];
    vec![
        case("branch_tag_and_commit", NEEDS, branch_tag_and_commit),
        case("moved_branch", NEEDS, moved_branch),
        case("force_pushed_branch", NEEDS, force_pushed),
        case("subdirectory", NEEDS, subdirectory),
        case("kept_git_directory", NEEDS, kept_git_directory),
        case("submodules", NEEDS, submodules),
        case("commit_times", NEEDS, commit_times),
        case("git_checksum", NEEDS, git_checksum),
        case("modes_and_links", NEEDS, modes_and_links),
        case("no_such_ref", NEEDS, no_such_ref),
        case("no_such_repository", NEEDS, no_such_repository),
        case("only_some_protocols", NEEDS, only_some_protocols),
        case("no_configuration_counts", NEEDS, no_configuration),
        case("no_git_here", &[Containers], no_git),
        case("offline_repository", NEEDS, offline),
        case("two_builds_at_once", NEEDS, two_builds),
        case("mirrors_are_counted_and_pruned", NEEDS, mirrors),
        case("git_plan_asks_nothing", NEEDS, plan),
        case("old_commit", NEEDS, old_commit),
        case("account_in_the_address", NEEDS, account),
        case("git_with_a_token", NEEDS, token),
        case("git_over_ssh", NEEDS, over_ssh),
    ]
}

/// Bare repositories behind a server, each with a working tree to commit in.
pub(super) struct Forge<'w> {
    world: &'w World,
    pub(super) server: Server,
}

impl<'w> Forge<'w> {
    pub(super) fn start(world: &'w World) -> Forge<'w> {
        let server = Server::start();
        std::fs::create_dir_all(world.path("forge")).unwrap();
        world.write("forge/config", "[safe]\n\tdirectory = *\n");
        server.serve_repositories(&world.path("forge"));
        Forge { world, server }
    }

    /// Makes a repository with one commit on `main` that has these files.
    pub(super) fn repository(&self, name: &str, files: &[(&str, &str)]) {
        let bare = self.bare(name);
        let (bare, tree) = (bare.to_str().unwrap(), format!("trees/{name}"));
        std::fs::create_dir_all(self.world.path(&tree)).unwrap();
        self.git(".", &["init", "-q", "--bare", "-b", "main", bare]);
        self.git(&tree, &["init", "-q", "-b", "main"]);
        self.git(&tree, &["remote", "add", "origin", bare]);
        self.commit(name, files);
    }

    pub(super) fn bare(&self, name: &str) -> PathBuf {
        self.world.path(&format!("forge/{name}.git"))
    }

    /// Commits these files and pushes the branch; returns the commit.
    pub(super) fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            self.world.write(&format!("trees/{name}/{path}"), text);
        }
        self.tree(name, &["add", "-A"]);
        self.tree(name, &["commit", "-q", "-m", "work"]);
        self.tree(name, &["push", "-q", "-f", "origin", "HEAD"]);
        self.head(name)
    }

    pub(super) fn head(&self, name: &str) -> String {
        self.tree(name, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Runs git in the working tree of a repository.
    pub(super) fn tree(&self, name: &str, arguments: &[&str]) -> String {
        self.git(&format!("trees/{name}"), arguments)
    }

    fn git(&self, directory: &str, arguments: &[&str]) -> String {
        let fixed = [
            "-c",
            "user.name=somebody",
            "-c",
            "user.email=somebody@example.org",
            "-c",
            "protocol.file.allow=always",
        ];
        self.world
            .program("git", &[&fixed[..], arguments].concat())
            .in_directory(directory)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_DATE", "1600000000 +0000")
            .env("GIT_COMMITTER_DATE", "1600000000 +0000")
            .ok()
            .stdout
    }

    /// The address of a repository.
    pub(super) fn url(&self, name: &str) -> String {
        self.server.url(&format!("/git/{name}.git"))
    }

    /// A Dockerfile with this instruction on the base; `GIT` is where the repositories are.
    pub(super) fn prepare(&self, instructions: &str) {
        self.world.base();
        let git = self.server.url("/git");
        self.world.write(
            "ctx/Dockerfile",
            format!("FROM demo/base\n{}\n", instructions.replace("GIT", &git)),
        );
    }

    /// Text without what differs from run to run.
    pub(super) fn masked(&self, text: &str) -> String {
        let text = text.replace(&self.server.host(), "127.0.0.1:_____");
        mask_commits(&text)
    }
}

/// Commits depend on nothing but what is in them, but nobody reads them in a snapshot.
fn mask_commits(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_hex) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !is_hex(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        out.push_str(before);
        let is_digit_before = before.ends_with(|c: char| c.is_alphanumeric());
        match word.len() {
            12 | 40 | 64 if !is_digit_before => out.push_str(&"#".repeat(word.len())),
            _ => out.push_str(word),
        }
        rest = after;
    }
    out + rest
}

fn branch_tag_and_commit(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    forge.tree("app", &["tag", "light"]);
    let first = forge.head("app");
    forge.commit("app", &[("f", "two\n")]);
    forge.tree("app", &["tag", "-a", "-m", "v", "v1"]);
    forge.tree("app", &["checkout", "-q", "-b", "dev"]);
    forge.commit("app", &[("f", "three\n")]);
    forge.tree("app", &["push", "-q", "origin", "--tags"]);
    forge.prepare(&format!(
        "ADD GIT/app.git /default\n\
         ADD GIT/app.git#dev /branch\n\
         ADD GIT/app.git?branch=dev /branch-by-query\n\
         ADD GIT/app.git#refs/heads/dev /whole-name\n\
         ADD GIT/app.git#light /light\n\
         ADD GIT/app.git?tag=v1 /annotated\n\
         ADD GIT/app.git#{first} /commit"
    ));
    world.build();
    let script = "cd / && for d in default branch branch-by-query whole-name light annotated commit; do \
                  echo $d $(cat $d/f) $(ls -A $d); done";
    assert_eq!(
        world.sh("app", script),
        "default two f\nbranch three f\nbranch-by-query three f\nwhole-name three f\n\
         light one f\nannotated two f\ncommit one f\n"
    );
}

fn moved_branch(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n"), ("g", "same\n")]);
    forge.prepare("ADD GIT/app.git#main /src\nRUN cat /src/f > /copy");
    let first = world.build();
    world.snapshot_of("first", &forge.masked(&first.table()));
    forge.server.log();
    let again = world.build();
    assert_eq!(first.id(), again.id());
    // The listing alone: no pack.
    assert!(
        forge
            .server
            .log()
            .iter()
            .all(|line| !line.contains("POST") || line.contains("upload-pack")),
    );
    world.snapshot_of("again", &forge.masked(&again.table()));
    forge.commit("app", &[("f", "two\n")]);
    let moved = world.build();
    world.snapshot_of("moved", &forge.masked(&moved.table()));
    assert_eq!(world.sh("app", "cat /copy"), "two\n");
}

fn force_pushed(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    forge.commit("app", &[("f", "two\n")]);
    forge.prepare("ADD GIT/app.git#main /src");
    world.build();
    forge.tree("app", &["reset", "-q", "--hard", "HEAD~1"]);
    forge.commit("app", &[("f", "three\n")]);
    world.build();
    assert_eq!(world.sh("app", "cat /src/f"), "three\n");
}

fn subdirectory(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "top\n"), ("a/b/f", "deep\n")]);
    std::os::unix::fs::symlink("/etc", world.path("trees/app/out")).unwrap();
    forge.commit("app", &[]);
    forge.prepare("ADD GIT/app.git#main:a/b /deep\nADD GIT/app.git?subdir=a /a");
    world.build();
    assert_eq!(world.sh("app", "cat /deep/f /a/b/f"), "deep\ndeep\n");
    for wrong in ["f", "nothing", "out"] {
        forge.prepare(&format!("ADD GIT/app.git#main:{wrong} /x"));
        let ran = world.kiln(&["build", "ctx"]).exits(1);
        let told = format!("has no directory `{wrong}`");
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    }
}

fn kept_git_directory(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    forge.tree("app", &["tag", "-a", "-m", "v", "v1"]);
    forge.tree("app", &["push", "-q", "origin", "--tags"]);
    forge.prepare(
        "ADD --keep-git-dir=true GIT/app.git#v1 /src\nADD GIT/app.git?keep-git-dir=1 /main",
    );
    world.build();
    world.kiln(&["build", "-o", "out", "ctx"]).ok();
    let ask = |directory: &str, arguments: &[&str]| {
        world
            .program("git", &[&["-c", "safe.directory=*"], arguments].concat())
            .in_directory(directory)
            .ok()
            .stdout
    };
    assert_eq!(ask("out/src", &["describe"]).trim(), "v1");
    assert_eq!(ask("out/src", &["status", "--porcelain"]), "");
    assert_eq!(
        ask("out/main", &["rev-parse", "HEAD"]).trim(),
        forge.head("app")
    );
    assert_eq!(
        ask("out/src", &["remote", "get-url", "origin"]).trim(),
        forge.url("app")
    );
    // The history ends here, and nothing leads to the mirror.
    assert_eq!(ask("out/main", &["fsck", "--connectivity-only"]), "");
    let conflict = "ADD --keep-git-dir=false GIT/app.git?keep-git-dir=1 /x";
    forge.prepare(conflict);
    let ran = world.kiln(&["build", "ctx"]).exits(2);
    let told = "inconsistent keep-git-dir configuration";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
}

fn submodules(world: &World) {
    let forge = Forge::start(world);
    forge.repository("inner", &[("i", "inner\n")]);
    forge.repository("middle", &[("m", "middle\n")]);
    forge.repository("app", &[("f", "app\n")]);
    forge.tree(
        "middle",
        &["submodule", "add", "-q", &forge.url("inner"), "deep"],
    );
    forge.commit("middle", &[]);
    // A relative address.
    forge.world.write(
        "trees/app/.gitmodules",
        "[submodule \"mid\"]\n\tpath = mid\n\turl = ../middle.git\n",
    );
    let commit = forge.head("middle");
    let entry = format!("160000,{commit},mid");
    forge.tree("app", &["update-index", "--add", "--cacheinfo", &entry]);
    forge.tree("app", &["add", ".gitmodules"]);
    forge.tree("app", &["commit", "-q", "-m", "submodule"]);
    forge.tree("app", &["push", "-q", "origin", "HEAD"]);
    forge.prepare(
        "ADD GIT/app.git /all\nADD GIT/app.git?submodules=false /none\n\
         ADD --keep-git-dir GIT/app.git /kept",
    );
    world.build();
    let script = "cd / && find all none kept -type f -not -path '*/.git/*' | sort";
    assert_eq!(
        world.sh("app", script),
        "all/.gitmodules\nall/f\nall/mid/.gitmodules\nall/mid/deep/i\nall/mid/m\n\
         kept/.gitmodules\nkept/f\nkept/mid/.git\nkept/mid/.gitmodules\nkept/mid/deep/.git\n\
         kept/mid/deep/i\nkept/mid/m\nnone/.gitmodules\nnone/f\n"
    );
}

fn commit_times(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n"), ("d/g", "two\n")]);
    forge.repository("other", &[("f", "other\n")]);
    forge.prepare("ADD GIT/app.git?mtime=commit /commit\nADD GIT/other.git /checkout");
    world.build();
    let times = world.sh(
        "app",
        "stat -c %Y /commit/f /commit/d /commit/d/g /checkout/f",
    );
    let times: Vec<i64> = times.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(times[..3], [1_600_000_000; 3]);
    assert!(times[3] > 1_700_000_000, "{times:?}");
}

fn git_checksum(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    let head = forge.head("app");
    forge.prepare(&format!(
        "ADD --checksum={head} GIT/app.git#main /a\nADD GIT/app.git?checksum={} /b\n\
         ADD GIT/app.git?ref=main&checksum={head}&fetch-by-commit=1 /c",
        &head[..9]
    ));
    // An abbreviated hash alone is no reference, as with git itself.
    world.kiln(&["build", "ctx"]).exits(1);
    forge.prepare(&format!(
        "ADD --checksum={head} GIT/app.git#main /a\nADD GIT/app.git?checksum={head} /b\n\
         ADD GIT/app.git?ref=main&checksum={head}&fetch-by-commit=1 /c\n\
         ADD GIT/app.git?ref=main&checksum={} /d",
        &head[..9]
    ));
    world.build();
    assert_eq!(
        world.sh("app", "cat /a/f /b/f /c/f /d/f"),
        "one\none\none\none\n"
    );
    forge.prepare(&format!(
        "ADD --checksum={} GIT/app.git#main /a",
        "0".repeat(40)
    ));
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    world.snapshot_of("git_checksum", &forge.masked(error_of(&ran)));
}

fn modes_and_links(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("plain", "x\n")]);
    world.write_mode("trees/app/script", "#!/bin/sh\n", 0o755);
    std::os::unix::fs::symlink("plain", world.path("trees/app/link")).unwrap();
    forge.commit("app", &[("d/x", "y\n")]);
    forge.prepare("ADD GIT/app.git /src");
    world.build();
    assert_eq!(
        world.sh(
            "app",
            "cd /src && stat -c '%n %a %u:%g' plain script d d/x && readlink link"
        ),
        "plain 644 0:0\nscript 755 0:0\nd 755 0:0\nd/x 644 0:0\nplain\n"
    );
}

fn no_such_ref(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    forge.prepare("ADD GIT/app.git#nothing /x");
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    world.snapshot_of("no_such_ref", &forge.masked(error_of(&ran)));
}

fn no_such_repository(world: &World) {
    let forge = Forge::start(world);
    forge.prepare("ADD GIT/nothing.git /x");
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    world.snapshot_of("no_such_repository", &forge.masked(error_of(&ran)));
}

fn only_some_protocols(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    let address = |url: &str| format!("%git = git x/y.git url=\"{url}\"\nresult %git\n");
    let bare = forge.bare("app");
    for url in [
        format!("file://{}", bare.display()),
        bare.display().to_string(),
        "ext::sh -c touch% /tmp/x".to_owned(),
        "--upload-pack=touch".to_owned(),
    ] {
        world.write("plan", address(&url));
        let ran = world.kiln(&["build", "--plan", "plan", "ctx"]).run();
        assert_ne!(ran.status.code(), Some(0), "{url}");
        assert!(
            ran.stderr.contains("not allowed") || ran.stderr.contains("is no address"),
            "{url}: {}",
            ran.stderr
        );
    }
}

fn no_configuration(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    forge.prepare("ADD GIT/app.git /src");
    let trap =
        "[core]\n\thooksPath = /nowhere\n[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = http://\n";
    std::fs::write(world.path("../home/.gitconfig"), trap).unwrap();
    world
        .kiln(&["build", "ctx"])
        .env("GIT_DIR", "/nowhere")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "url.http://127.0.0.1:1/.insteadOf")
        .env("GIT_CONFIG_VALUE_0", "http://")
        .ok();
}

fn no_git(world: &World) {
    let server = Server::start();
    world.base();
    world.write(
        "ctx/Dockerfile",
        format!("FROM demo/base\nADD {} /x\n", server.url("/git/app.git")),
    );
    let ran = world
        .kiln(&["build", "ctx"])
        .env("PATH", world.path("empty"))
        .exits(3);
    let text = error_of(&ran).replace(&server.host(), "127.0.0.1:_____");
    world.snapshot_of("no_git_here", &text);
}

fn offline(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    forge.prepare("ADD GIT/app.git#main /src");
    let ran = world.kiln(&["build", "--offline", "ctx"]).exits(1);
    assert!(ran.stderr.contains("--offline forbids"), "{}", ran.stderr);
    let built = world.build();
    forge.server.log();
    let ran = world.kiln(&["build", "--offline", "ctx"]).ok();
    assert_eq!(ran.id(), built.id());
    assert!(forge.server.log().is_empty());
}

fn two_builds(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n"), ("a/f", "a\n"), ("b/f", "b\n")]);
    forge.prepare("ADD GIT/app.git#main:a /src");
    let dockerfile = world.read("ctx/Dockerfile").replace("main:a", "main:b");
    world.write("ctx/Other", dockerfile);
    let one = world.kiln(&["build", "-t", "one", "ctx"]).spawn();
    let two = world
        .kiln(&["build", "-t", "two", "-f", "ctx/Other", "ctx"])
        .spawn();
    for running in [one, two] {
        let ran = running.wait();
        assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
    }
    assert_eq!(world.sh("one", "cat /src/f"), "a\n");
    assert_eq!(world.sh("two", "cat /src/f"), "b\n");
}

fn mirrors(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    forge.prepare("ADD GIT/app.git#main /src");
    world.build();
    let count = || {
        let du = world.kiln(&["du"]).ok().stdout;
        let line = du.lines().find(|line| line.starts_with("repositories"));
        line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(count(), "1");
    let pruned = world.kiln(&["prune"]).ok();
    assert!(pruned.stdout.contains("repositories"), "{}", pruned.stdout);
    assert_eq!(count(), "0");
    // And nothing else is needed of it.
    world.build();
}

fn plan(world: &World) {
    let forge = Forge::start(world);
    forge.prepare("ADD GIT/app.git#main /src");
    world.kiln(&["plan", "ctx"]).ok();
    assert!(forge.server.log().is_empty());
    forge.repository("app", &[("f", "one\n")]);
    let ran = world.kiln(&["plan", "--resolve", "ctx"]).ok();
    let pin = format!("= commit {}", forge.head("app"));
    assert!(ran.stdout.contains(&pin), "{}", ran.stdout);
}

fn old_commit(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    let old = forge.head("app");
    forge.commit("app", &[("f", "two\n")]);
    // The old way of talking, in which only what is listed can be asked for.
    world.write(
        "forge/config",
        "[safe]\n\tdirectory = *\n[protocol]\n\tversion = 0\n[uploadpack]\n\tadvertise = false\n",
    );
    forge.prepare(&format!(
        "ADD GIT/app.git#main /new\nADD GIT/app.git#{old} /old"
    ));
    world.build();
    assert_eq!(world.sh("app", "cat /new/f /old/f"), "two\none\n");
    forge.prepare(&format!("ADD GIT/app.git#{} /x", "1".repeat(40)));
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    world.snapshot_of("old_commit", &forge.masked(error_of(&ran)));
}

fn account(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    // me:secret
    forge.server.require("Basic bWU6c2VjcmV0");
    let git = forge
        .server
        .url("/git")
        .replace("http://", "http://me:secret@");
    forge.prepare(&format!("ADD {git}/app.git /src"));
    world.build();
    assert_eq!(world.sh("app", "cat /src/f"), "one\n");
    let git = git.replace("secret", "hidden");
    forge.prepare(&format!("ADD {git}/app.git /src"));
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    let why = ran.stderr.split("failed:").nth(1).unwrap();
    let why = why.lines().next().unwrap();
    assert!(
        why.contains("Authentication failed") && !why.contains("hidden"),
        "{why}"
    );
}

fn token(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    // x-access-token:secret
    forge.server.require("basic eC1hY2Nlc3MtdG9rZW46c2VjcmV0");
    forge.prepare("ADD GIT/app.git /src");
    world.write("token", "secret\n");
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    assert!(ran.stderr.contains("GIT_AUTH_TOKEN"), "{}", ran.stderr);
    let build = |secret: &str| world.kiln(&["build", "--secret", secret, "ctx"]);
    build("id=GIT_AUTH_TOKEN,src=token").ok();
    world.kiln(&["prune"]).ok();
    let host = forge.server.host();
    build(&format!("id=GIT_AUTH_TOKEN.{host},src=token")).ok();
    world.kiln(&["prune"]).ok();
    build("id=GIT_AUTH_TOKEN.example.org,src=token").exits(1);
    world.write("header", "basic eC1hY2Nlc3MtdG9rZW46c2VjcmV0");
    build("id=GIT_AUTH_HEADER,src=header").ok();
    // The context itself, too; and nothing of it stays.
    world.base();
    forge.commit("app", &[("Dockerfile", "FROM demo/base\n")]);
    let url = forge.url("app");
    world
        .kiln(&["build", "--secret", "id=GIT_AUTH_TOKEN,src=token", &url])
        .ok();
    let found = world
        .program("grep", &["-rIl", "eC1hY2Nlc3M", "../store"])
        .run();
    assert_eq!(found.stdout, "");
}

/// A stand-in for ssh that runs what it is asked to on this host, and notes what it was given.
const SSH: &str = "#!/bin/sh
echo \"agent=$SSH_AUTH_SOCK $*\" >> LOG
for last; do :; done
exec sh -c \"$last\"
";

fn over_ssh(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    let log = world.path("ssh.log");
    let script = SSH.replace("LOG", log.to_str().unwrap());
    world.write_mode("bin/ssh", script, 0o755);
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", world.path("bin").display());
    let bare = forge.bare("app");
    let socket = world.path("agent.sock");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let ssh = format!("default={}", socket.display());
    forge.prepare(&format!("ADD git@example.org:{} /src", bare.display()));
    // Without --ssh no agent is there to prove anything, whatever the user has.
    let build = |arguments: &[&str]| {
        let kiln = world.kiln(&["build", "-t", "app"]).args(arguments);
        kiln.env("PATH", &path)
            .env("SSH_AUTH_SOCK", "/nowhere")
            .ok();
        let said = world.read("ssh.log");
        world.remove("ssh.log");
        said
    };
    let said = build(&["ctx"]);
    assert!(said.starts_with("agent= "), "{said}");
    for option in ["-F /dev/null", "BatchMode=yes", "StrictHostKeyChecking=yes"] {
        assert!(said.contains(option), "{said}");
    }
    let said = build(&["--ssh", &ssh, "ctx"]);
    assert!(
        said.starts_with(&format!("agent={} ", socket.display())),
        "{said}"
    );
    assert_eq!(world.sh("app", "cat /src/f"), "one\n");
    let port = format!("ADD ssh://git@example.org:2222{} /src", bare.display());
    forge.prepare(&port);
    assert!(build(&["ctx"]).contains("-p 2222"));
}
