//! Docker engines that are not just a socket of one's own: a group's socket, TLS, ssh.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use kiln_test_registry::Authority;

use super::fake::{Fake, Reply};
use crate::support::Capability::{self, *};
use crate::support::{
    Case, Dockerd as DockerdProcess, Kiln, Ran, SshServer, UID, User, World, case, find_program,
};

pub(super) fn cases() -> Vec<Case> {
    const GROUP: &[Capability] = &[Root, OrdinaryUser, Setpriv, Busybox];
    const GROUP_IDS: &[Capability] =
        &[Root, MountNamespace, OrdinaryUser, Setpriv, Busybox, Uidmap];
    const GROUP_DOCKER: &[Capability] = &[
        Root,
        MountNamespace,
        OrdinaryUser,
        Setpriv,
        Busybox,
        Uidmap,
        Dockerd,
    ];
    const SSH: &[Capability] = &[Containers, Root, MountNamespace, OpenSsh, Sshd, Dockerd];
    const USERS_SSH: &[Capability] = &[
        Root,
        MountNamespace,
        OrdinaryUser,
        Setpriv,
        Busybox,
        Uidmap,
        OpenSsh,
        Sshd,
        Dockerd,
    ];
    let client = match find_program("docker") {
        Some(_) => None,
        None => Some("docker's own command".to_owned()),
    };
    vec![
        case("docker_of_a_group", GROUP_DOCKER, of_a_group),
        case("socket_of_a_group_with_one_id", GROUP, |world| {
            socket_of_a_group(world, User::new(world, "user"));
        }),
        case("socket_of_a_group_with_ids", GROUP_IDS, |world| {
            socket_of_a_group(world, User::with_ids(world, "user"));
        }),
        case("docker_over_tls", &[Containers, Root, Dockerd], over_tls),
        case(
            "docker_of_a_context",
            &[Containers, Root, Dockerd],
            of_a_context,
        ),
        case("tls_without_material", &[Containers], tls_without_material),
        case("docker_over_ssh", SSH, over_ssh).lacks(client.clone()),
        case("docker_over_ssh_of_a_user", USERS_SSH, over_ssh_of_a_user).lacks(client),
        case("ssh_that_fails", &[Containers], ssh_that_fails),
    ]
}

/// A group that is nobody's on any host that these tests run on.
const GROUP: u32 = 64300;

fn give_to_group(socket: &Path) {
    chown(socket, Some(0), Some(GROUP)).unwrap();
    std::fs::set_permissions(socket, PermissionsExt::from_mode(0o660)).unwrap();
}

fn in_group(mut user: User<'_>) -> User<'_> {
    user.groups = format!("--groups={GROUP}");
    user
}

/// How many layers a build says that it sent.
fn sent(ran: &Ran) -> usize {
    ran.stderr.matches("sending layer ").count()
}

/// FROM and `--load`, by somebody whom only a group lets in.
fn of_a_group(world: &World) {
    let docker = DockerdProcess::start(&world.path("d"));
    docker.import("theirs", world.base_archive());
    give_to_group(&world.path("d/docker.sock"));
    std::fs::set_permissions(world.path("d"), PermissionsExt::from_mode(0o755)).unwrap();
    for (store, ids) in [("one", false), ("many", true)] {
        let user = match ids {
            true => User::with_ids(world, store),
            false => User::new(world, store),
        };
        world.write(
            "ctx/Dockerfile",
            format!("FROM theirs\nCOPY a /a\nRUN echo {store} > /one\n"),
        );
        let host = docker.host();
        let script = format!(
            "export DOCKER_HOST={host}; kiln build --offline --engines docker -t app:{store} --load=docker ctx"
        );
        // Nobody else gets in: then there is no engine.
        let refused = user.run(&script);
        assert_eq!(refused.status.code(), Some(3), "{}", refused.whole());
        let ran = in_group(user).ok(&script);
        assert!(sent(&ran) > 0, "{}", ran.whole());
        let shown = docker.json(&format!("/images/app:{store}/json"));
        assert_eq!(shown["Id"].as_str().unwrap(), ran.id());
    }
}

/// The same with a socket of this case's own.
fn socket_of_a_group(world: &World, user: User<'_>) {
    let socket = world.path("docker.sock");
    let fake = Fake::start(&socket, |line| match line {
        "GET /_ping" => Reply::Whole(b"OK".to_vec()),
        "GET /images/json?all=1" => Reply::Whole(b"[]".to_vec()),
        line if line.starts_with("POST") => {
            Reply::Whole(b"{\"error\":\"it was heard\"}\n".to_vec())
        }
        _ => Reply::Missing,
    });
    give_to_group(&socket);
    world.write("ctx/Dockerfile", "FROM demo/base\nCOPY a /a\n");
    let user = in_group(user);
    user.ok("kiln import base.tar demo/base");
    let script = format!(
        "export DOCKER_HOST={}; kiln build -t app --load=docker ctx",
        fake.host()
    );
    let ran = user.run(&script);
    assert!(ran.stderr.contains("it was heard"), "{}", ran.whole());
}

fn dockerfile(world: &World, last: &str) {
    world.dockerfile(&format!("FROM theirs\nRUN echo {last} > /last\n"));
}

/// An engine that speaks TLS with whoever shows a certificate, with an image in it.
fn with_tls(world: &World) -> (DockerdProcess, Authority) {
    let authority = Authority::new();
    std::fs::create_dir_all(world.path("tls")).unwrap();
    let path = |name: &str| world.path("tls").join(name);
    authority.write_pem(&path("ca.pem"));
    authority.write_server(&path("server.pem"), &path("server-key.pem"));
    authority.write_client(&path("cert.pem"), &path("key.pem"));
    let docker = DockerdProcess::start_with_tls(&world.path("d"), &world.path("tls"));
    docker.import("theirs", world.base_archive());
    (docker, authority)
}

fn build<'w>(world: &'w World, name: &str) -> Kiln<'w> {
    world.kiln(&[
        "build",
        "--offline",
        "--engines",
        "docker",
        "-t",
        name,
        "--load=docker",
        "ctx",
    ])
}

fn check_loaded(docker: &DockerdProcess, name: &str, ran: &Ran) {
    assert_eq!(sent(ran), 1, "{}", ran.whole());
    let shown = docker.json(&format!("/images/{name}/json"));
    assert_eq!(shown["Id"].as_str().unwrap(), ran.id());
}

fn over_tls(world: &World) {
    let (docker, _) = with_tls(world);
    let folder = world.path("tls");
    let secured = |name: &str| {
        build(world, name)
            .env("DOCKER_HOST", docker.tls_host())
            .env("DOCKER_CERT_PATH", &folder)
    };
    dockerfile(world, "one");
    let ran = secured("one").env("DOCKER_TLS_VERIFY", "1").ok();
    check_loaded(&docker, "one", &ran);
    dockerfile(world, "two");
    let ran = secured("two").env("DOCKER_TLS", "1").ok();
    check_loaded(&docker, "two", &ran);
    // It does not listen without TLS, nor to whoever shows no certificate.
    secured("three").exits(3);
    std::fs::create_dir(world.path("bare")).unwrap();
    std::fs::copy(folder.join("ca.pem"), world.path("bare/ca.pem")).unwrap();
    secured("three")
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", world.path("bare"))
        .exits(3);
    // Another authority's is nobody's.
    Authority::new().write_pem(&folder.join("ca.pem"));
    let stranger = secured("three").env("DOCKER_TLS_VERIFY", "1").exits(3);
    assert!(
        stranger.stderr.contains("invalid peer certificate"),
        "{}",
        stranger.whole()
    );
}

fn of_a_context(world: &World) {
    let (docker, _) = with_tls(world);
    let id = kiln_test_registry::digest_of(b"far");
    let id = id.trim_start_matches("sha256:");
    world.write(
        &format!("../home/contexts/meta/{id}/meta.json"),
        format!(
            r#"{{"Name":"far","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"{}","SkipTLSVerify":false}}}}}}"#,
            docker.tls_host()
        ),
    );
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let material = std::fs::read(world.path("tls").join(name)).unwrap();
        world.write(
            &format!("../home/contexts/tls/{id}/docker/{name}"),
            material,
        );
    }
    dockerfile(world, "one");
    let ran = build(world, "one").env("DOCKER_CONTEXT", "far").ok();
    check_loaded(&docker, "one", &ran);
}

fn tls_without_material(world: &World) {
    world.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let ran = build(world, "app")
        .env("DOCKER_HOST", "tcp://127.0.0.1:1")
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", world.path("none"))
        .exits(3);
    world.snapshot(&ran.whole());
}

/// An ssh in `PATH` that knows the server and has the key; ssh itself looks into the home of the password file.
fn with_ssh(world: &World) -> SshServer {
    let server = SshServer::start(world);
    world.write("known_hosts", &server.host_key);
    let path = |name: &str| world.path(name).display().to_string();
    let ssh = find_program("ssh").unwrap();
    let script = format!(
        "#!/bin/sh\nid -u >> {noted}\ncp {key} $TMPDIR/key.$$ && chmod 600 $TMPDIR/key.$$\n\
         exec {ssh} -F none -o UserKnownHostsFile={known} -o IdentityFile=$TMPDIR/key.$$ -o IdentitiesOnly=yes \"$@\"\n",
        noted = path("noted"),
        key = path("user"),
        ssh = ssh.display(),
        known = path("known_hosts"),
    );
    world.write_program("bin/ssh", &script);
    world.write_mode("noted", "", 0o666);
    world.chmod("user", 0o644);
    server
}

fn over_ssh(world: &World) {
    let docker = DockerdProcess::start(&world.path("d"));
    docker.import("theirs", world.base_archive());
    let server = with_ssh(world);
    let socket = world.path("d/docker.sock");
    let far = |name: &str, place: &str| {
        build(world, name)
            .env(
                "PATH",
                format!(
                    "{}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    world.path("bin").display()
                ),
            )
            .env(
                "DOCKER_HOST",
                format!("ssh://root@{}{place}", server.address),
            )
    };
    dockerfile(world, "one");
    let ran = far("one", &socket.display().to_string()).ok();
    check_loaded(&docker, "one", &ran);
    // One connection does for many questions.
    let connections = world.read("noted").lines().count();
    assert!(connections <= 6, "{connections} connections");
    let refused = far("two", "/no/docker.sock").exits(3);
    assert!(refused.stderr.contains("docker"), "{}", refused.whole());
}

fn over_ssh_of_a_user(world: &World) {
    let docker = DockerdProcess::start(&world.path("d"));
    docker.import("theirs", world.base_archive());
    let server = with_ssh(world);
    let user = User::with_ids(world, "mine");
    world.write("ctx/Dockerfile", "FROM theirs\nCOPY a /a\n");
    let socket = world.path("d/docker.sock");
    let ran = user.ok(&format!(
        "export PATH=$PWD/bin:$PATH TMPDIR=$HOME DOCKER_HOST=ssh://root@{}{}
         kiln build --offline --engines docker -t app --load=docker ctx",
        server.address,
        socket.display()
    ));
    check_loaded(&docker, "app", &ran);
    for uid in world.read("noted").lines() {
        assert_eq!(uid, UID);
    }
}

fn ssh_that_fails(world: &World) {
    world.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let script =
        "#!/bin/sh\necho 'ssh: connect to host far port 22: Connection refused' >&2; exit 255\n";
    world.write_program("bin/ssh", script);
    let far = |host: &str| {
        build(world, "app")
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", world.path("bin").display()),
            )
            .env("DOCKER_HOST", host)
            .exits(3)
    };
    world.snapshot_of("refused", &far("ssh://me@far").whole());
    world.snapshot_of("password", &far("ssh://me:secret@far").whole());
}
