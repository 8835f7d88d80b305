//! Repositories behind a real ssh server on loopback, with its own host key and a real agent.

use super::error_of;
use super::repositories::Forge;
use crate::support::Capability::{self, Containers, Git, MountNamespace, OpenSsh, Root, Sshd};
use crate::support::{Agent, Case, SshServer, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Root, MountNamespace, Git, OpenSsh, Sshd];
    vec![
        case("added_over_real_ssh", NEEDS, added),
        case("context_over_real_ssh", NEEDS, context),
        case("hosts_that_nobody_knows", NEEDS, unknown_hosts),
    ]
}

fn url_of(server: &SshServer, forge: &Forge<'_>, name: &str) -> String {
    let bare = forge.bare(name);
    format!(
        "ssh://root@127.0.0.1:{}{}",
        server.address.port(),
        bare.display()
    )
}

fn know(world: &World, lines: &str) {
    world.write("../home/.ssh/known_hosts", lines);
}

fn added(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "over ssh\n"), ("sub/g", "g\n")]);
    let server = SshServer::start(world);
    know(world, &server.host_key);
    let url = url_of(&server, &forge, "app");
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
    let url = url_of(&server, &forge, "app");
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
    forge.prepare(&format!("ADD {} /src", url_of(&server, &forge, "app")));
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
