//! Images into the other engines of this host, which get what they lack.

use super::fake::{Fake, Reply};
use crate::support::{
    APART, Capability::*, Case, Containerd as ContainerdProcess, Dockerd as DockerdProcess, Kiln,
    Ran, World, case, podman_settings,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "load_into_docker",
            &[Containers, Root, Dockerd],
            into_docker,
        ),
        case(
            "load_again_into_docker",
            &[Containers, Root, Dockerd],
            again_into_docker,
        ),
        case(
            "load_into_podman",
            &[Containers, MountNamespace, Podman],
            into_podman,
        ),
        case(
            "load_into_containerd",
            &[Containers, Root, Containerd],
            into_containerd,
        ),
        case(
            "load_into_the_first",
            &[Containers, MountNamespace, Dockerd, Podman],
            into_the_first,
        ),
        case("load_and_back", &[Containers, Root, Dockerd], and_back),
        case("load_into_nobody", &[Containers], into_nobody),
        case("load_refused", &[Containers], refused),
        case("load_cut", &[Containers], cut),
        case("load_of_several", &[Containers], of_several),
        case(
            "load_of_lost_layers",
            &[Containers, Root, Dockerd],
            of_lost_layers,
        ),
    ]
}

fn dockerfile(world: &World, last: &str) {
    world.write("ctx/a", "a\n");
    world.dockerfile(&format!(
        "FROM demo/base\nENV GREETING=hello\nCOPY a /a\nRUN ln /a /b\nRUN echo {last} > /last\n"
    ));
}

/// What podman mounts goes with the command that makes it do so.
fn build_apart<'w>(world: &'w World, output: &str) -> Kiln<'w> {
    let kiln = env!("CARGO_BIN_EXE_kiln");
    let build = [kiln, "build", "-t", "app:v1", "-t", "me/app", output, "ctx"];
    world
        .program("unshare", &[&APART[..], &build].concat())
        .env("SOURCE_DATE_EPOCH", "1700000000")
}

fn build<'w>(world: &'w World, output: &str) -> Kiln<'w> {
    world
        .kiln(&["build", "-t", "app:v1", "-t", "me/app", output, "ctx"])
        .env("SOURCE_DATE_EPOCH", "1700000000")
}

/// How many layers a build says that it sent.
fn sent(ran: &Ran) -> usize {
    ran.stderr.matches("sending layer ").count()
}

fn into_docker(world: &World) {
    world.base();
    let docker = DockerdProcess::start(&world.path("d"));
    let load = || build(world, "--load=docker").env("DOCKER_HOST", docker.host());
    dockerfile(world, "one");
    let first = load().ok();
    assert_eq!(sent(&first), 4, "{}", first.whole());
    let shown = docker.json("/images/app:v1/json");
    assert_eq!(shown["Id"].as_str().unwrap(), first.id());
    assert_eq!(docker.json("/images/me/app/json")["Id"], shown["Id"]);
    assert_eq!(shown["Config"]["Env"][1], "GREETING=hello");
    // Only the last layer is new, and then nothing is.
    dockerfile(world, "two");
    let second = load().ok();
    assert_eq!(sent(&second), 1, "{}", second.whole());
    assert_eq!(
        docker.json("/images/app:v1/json")["Id"].as_str().unwrap(),
        second.id()
    );
    let third = load().ok();
    assert_eq!(
        (sent(&third), third.id()),
        (0, second.id()),
        "{}",
        third.whole()
    );
    // What docker has is whole.
    assert_eq!(docker.ask("GET", "/images/app:v1/get", b"").status, 200);
    world.snapshot(&plain(&second));
}

/// The lines of a build about exports, without times.
fn plain(ran: &Ran) -> String {
    let whole = ran.whole();
    let lines = whole.lines().filter(|line| {
        ["load", "sending", "docker", "podman"]
            .iter()
            .any(|word| line.contains(word))
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// As buildx has it.
fn again_into_docker(world: &World) {
    world.base();
    dockerfile(world, "one");
    let docker = DockerdProcess::start(&world.path("d"));
    let typed = world
        .kiln(&["build", "-o", "type=docker,name=other", "ctx"])
        .env("DOCKER_HOST", docker.host())
        .ok();
    let shown = docker.json("/images/other/json");
    assert_eq!(shown["Id"].as_str().unwrap(), typed.id());
    let nameless = world
        .kiln(&["build", "--load", "--label", "x=y", "ctx"])
        .env("DOCKER_HOST", docker.host())
        .ok();
    let shown = docker.json(&format!("/images/{}/json", nameless.id()));
    assert_eq!(shown["RepoTags"].as_array().unwrap().len(), 0);
}

fn podman(world: &World, arguments: &[&str]) -> Ran {
    let settings = podman_settings(&world.path("p"));
    world
        .program("unshare", &[&APART[..], &["podman"], arguments].concat())
        .env("CONTAINERS_STORAGE_CONF", settings)
        .ok()
}

fn into_podman(world: &World) {
    world.base();
    let settings = podman_settings(&world.path("p"));
    let load = || build_apart(world, "--load=podman").env("CONTAINERS_STORAGE_CONF", &settings);
    dockerfile(world, "one");
    let first = load().ok();
    assert_eq!(sent(&first), 4, "{}", first.whole());
    let id = |name: &str| {
        let format = ["image", "inspect", "--format", "sha256:{{.Id}}", name];
        podman(world, &format).stdout.trim().to_owned()
    };
    assert_eq!(id("app:v1"), first.id());
    assert_eq!(id("me/app"), first.id());
    dockerfile(world, "two");
    let second = load().ok();
    assert_eq!(sent(&second), 1, "{}", second.whole());
    assert_eq!(id("app:v1"), second.id());
    podman(
        world,
        &[
            "save",
            "--format",
            "oci-archive",
            "-o",
            "whole.tar",
            "app:v1",
        ],
    );
}

fn into_containerd(world: &World) {
    world.base();
    let containerd = ContainerdProcess::start(&world.path("c"));
    let load = || build(world, "--load=containerd").env("CONTAINERD_ADDRESS", containerd.address());
    dockerfile(world, "one");
    let first = load().ok();
    assert_eq!(sent(&first), 4, "{}", first.whole());
    dockerfile(world, "two");
    let second = load().ok();
    // It may sweep what the old image had while the new one takes its names; then it is sent all.
    let swept = second.stderr.contains("sending all layers");
    assert!(swept || sent(&second) == 1, "{}", second.whole());
    let checked = containerd.ctr(&["images", "check"]).unwrap();
    for name in ["docker.io/library/app:v1", "docker.io/me/app:latest"] {
        let line = checked.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains("complete ("), "{checked}");
    }
    let config = containerd.ctr(&["content", "get", second.id()]).unwrap();
    assert!(config.contains("GREETING=hello"), "{config}");
}

fn into_the_first(world: &World) {
    world.base();
    dockerfile(world, "one");
    let settings = podman_settings(&world.path("p"));
    let load = |host: &str| {
        build_apart(world, "--load")
            .env("CONTAINERS_STORAGE_CONF", &settings)
            .env("DOCKER_HOST", host)
            .ok()
    };
    let nobody = format!("unix://{}", world.path("none.sock").display());
    assert!(load(&nobody).stderr.contains("loading into podman"));
    let docker = DockerdProcess::start(&world.path("d"));
    assert!(load(&docker.host()).stderr.contains("loading into docker"));
}

/// What another engine has packed goes on as it is.
fn and_back(world: &World) {
    let docker = DockerdProcess::start(&world.path("d"));
    docker.import("foreign", world.base_archive());
    world.dockerfile("FROM foreign\nRUN echo > /one\n");
    let load = || {
        world
            .kiln(&["build", "-t", "app", "--engines", "docker", "--load", "ctx"])
            .env("DOCKER_HOST", docker.host())
    };
    let first = load().ok();
    assert_eq!(sent(&first), 1, "{}", first.whole());
    let removed = docker.ask("DELETE", "/images/app?force=1", b"");
    assert_eq!(removed.status, 200);
    let removed = docker.ask("DELETE", "/images/foreign?force=1", b"");
    assert_eq!(removed.status, 200);
    // Nothing of it is there any more, but for what was taken.
    world.dockerfile(&format!("FROM {}\n", "foreign"));
    load().args(&["--offline"]).exits(1);
}

fn into_nobody(world: &World) {
    world.base();
    dockerfile(world, "one");
    let missing = |name: &str| format!("{}", world.path(name).display());
    let load = |flag: &str| {
        build(world, flag)
            .env("PATH", "/nothing")
            .env("DOCKER_HOST", format!("unix://{}", missing("d.sock")))
            .env("CONTAINERD_ADDRESS", missing("c.sock"))
            .exits(3)
    };
    let whole = load("--load").whole();
    world.snapshot(&whole[whole.find("error:").unwrap()..]);
    let ran = load("--load=containerd");
    assert!(
        ran.stderr.contains("there is no containerd"),
        "{}",
        ran.whole()
    );
    build(world, "--load=rkt").exits(2);
}

/// A docker engine that takes an archive and says this.
fn engine(world: &World, words: &'static str) -> Fake {
    Fake::start(&world.path("docker.sock"), move |line| match line {
        "GET /_ping" => Reply::Whole(b"OK".to_vec()),
        "GET /images/json?all=1" => Reply::Whole(b"[]".to_vec()),
        line if line.starts_with("POST") => Reply::Whole(words.as_bytes().to_vec()),
        _ => Reply::Missing,
    })
}

fn refused(world: &World) {
    world.base();
    dockerfile(world, "one");
    let fake = engine(world, "{\"error\":\"no space left on device\"}\n");
    let ran = build(world, "--load")
        .env("DOCKER_HOST", fake.host())
        .exits(1);
    let whole = ran.whole();
    world.snapshot(&whole[whole.find("error:").unwrap()..]);
    // It must have the image in the end, whatever it says.
    std::fs::remove_file(world.path("docker.sock")).unwrap();
    let fake = engine(world, "{\"stream\":\"Loaded image: app:v1\"}\n");
    build(world, "--load")
        .env("DOCKER_HOST", fake.host())
        .exits(1);
}

/// It goes away in the middle.
fn cut(world: &World) {
    world.base();
    dockerfile(world, "one");
    let fake = Fake::start(&world.path("docker.sock"), |line| match line {
        "GET /_ping" => Reply::Whole(b"OK".to_vec()),
        "GET /images/json?all=1" => Reply::Whole(b"[]".to_vec()),
        line if line.starts_with("POST") => Reply::Cut(b"{\"stream\":\"a\"}\n".to_vec(), 3),
        _ => Reply::Missing,
    });
    let ran = build(world, "--load")
        .env("DOCKER_HOST", fake.host())
        .exits(1);
    assert!(ran.stderr.contains("docker"), "{}", ran.whole());
}

fn of_several(world: &World) {
    world.base();
    world.dockerfile("FROM scratch\nCOPY a /a\n");
    world.write("ctx/a", "a\n");
    let ran = build(world, "--load")
        .args(&["--platform", "linux/amd64,linux/arm64"])
        .exits(2);
    world.snapshot(&ran.whole());
}

/// An engine that says that it has what it has lost is sent everything.
fn of_lost_layers(world: &World) {
    world.base();
    dockerfile(world, "one");
    let docker = DockerdProcess::start(&world.path("d"));
    let id = build(world, "--load")
        .env("DOCKER_HOST", docker.host())
        .ok()
        .id()
        .to_owned();
    let inspected = docker.ask("GET", "/images/app:v1/json", b"").body;
    drop(docker);
    // Another engine, asked through somebody who takes it for the first.
    let docker = DockerdProcess::start(&world.path("e"));
    let socket = world.path("e/docker.sock");
    let fake = Fake::between(&world.path("docker.sock"), &socket, move |line| {
        let asks = line.starts_with("GET /images/app:v1/json");
        asks.then(|| Reply::Whole(inspected.clone()))
    });
    let ran = build(world, "--load").env("DOCKER_HOST", fake.host()).ok();
    assert!(ran.stderr.contains("sending all layers"), "{}", ran.whole());
    assert_eq!(
        docker.json("/images/app:v1/json")["Id"].as_str().unwrap(),
        id
    );
}
