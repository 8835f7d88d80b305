//! What an ordinary user has outside of kiln's user namespace: podman, and helpers that keep credentials.

use kiln_test_registry::{Auth, Registry};

use crate::registries::server::{add_image, base_layer};
use crate::support::Capability::{self, *};
use crate::support::{Case, PODMAN_OF_A_USER, Ran, UID, User, World, case};

pub(super) fn cases() -> Vec<Case> {
    const ONE: &[Capability] = &[Root, OrdinaryUser, Setpriv, Busybox];
    const IDS: &[Capability] = &[Root, MountNamespace, OrdinaryUser, Setpriv, Uidmap, Busybox];
    const PODMAN: &[Capability] = &[
        Root,
        MountNamespace,
        OrdinaryUser,
        Setpriv,
        Uidmap,
        Busybox,
        PodmanOfUser,
    ];
    vec![
        case("helpers_of_a_user_with_one_id", ONE, |world| {
            helpers(world, &User::new(world, "user"));
        }),
        case("helpers_of_a_user_with_ids", IDS, |world| {
            helpers(world, &User::with_ids(world, "user"));
        }),
        case("load_into_podman_of_a_user", PODMAN, into_podman),
    ]
}

/// Helpers run as the user, in the user's own namespace.
fn helpers(world: &World, user: &User<'_>) {
    let auth = Auth::Basic {
        user: "anna".to_owned(),
        password: "correct horse".to_owned(),
    };
    let registry = Registry::builder().auth(auth).start();
    add_image(&registry, "base", &[&base_layer()]);
    let helper = "#!/bin/sh\n\
         echo $(id -u) $(cat /proc/self/uid_map) ${KILN_USERNS-none} $1 $(cat) >> $HOME/asked\n\
         echo '{\"Username\":\"anna\",\"Secret\":\"correct horse\"}'\n";
    world.write_program("bin/docker-credential-noting", helper);
    world.write("docker/config.json", r#"{"credsStore":"noting"}"#);
    let host = registry.host();
    world.write(
        "ctx/Dockerfile",
        format!("FROM {host}/base\nRUN echo > /one\n"),
    );
    user.ok("export PATH=$PWD/bin:$PATH DOCKER_CONFIG=$PWD/docker; kiln build -t app ctx");
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let map: Vec<&str> = map.split_whitespace().collect();
    let expected = format!("{UID} {} none get {host}", map.join(" "));
    let asked = world.read("user/asked");
    assert!(asked.lines().count() > 0, "nobody asked");
    for line in asked.lines() {
        assert_eq!(line, expected);
    }
}

/// How many layers a build says that it sent.
fn sent(ran: &Ran) -> usize {
    ran.stderr.matches("sending layer ").count()
}

fn into_podman(world: &World) {
    let user = User::with_ids(world, "user");
    let file = |last: &str| {
        let text = format!(
            "FROM demo/base\nCOPY --chown=5:6 a /a\nRUN ln /a /b; chown 7:8 /a\nRUN echo {last} > /last\n"
        );
        world.write("ctx/Dockerfile", text);
    };
    let run = |script: &str| user.ok(&format!("{PODMAN_OF_A_USER}\n{script}"));
    let load = || run("kiln build -t app:v1 -t me/app --load=podman ctx");
    let id = |name: &str| {
        let inspect = format!("podman image inspect --format 'sha256:{{{{.Id}}}}' {name}");
        run(&inspect).stdout.trim().to_owned()
    };
    file("one");
    run("kiln import base.tar demo/base");
    let first = load();
    assert_eq!(sent(&first), 4, "{}", first.whole());
    assert_eq!(id("app:v1"), first.id());
    assert_eq!(id("me/app"), first.id());
    // Only what podman lacks goes there.
    file("two");
    let second = load();
    assert_eq!(sent(&second), 1, "{}", second.whole());
    assert_eq!(id("app:v1"), second.id());
    run("podman save --format oci-archive -o $HOME/whole.tar app:v1");
    // And what podman has is found from within the namespace.
    world.write(
        "ctx/Dockerfile",
        "FROM app:v1\nRUN test \"$(cat /last) $(stat -c %u:%g /a)\" = 'two 7:8'\n",
    );
    let found = run("KILN_ROOT=$HOME/other kiln build --offline --engines podman -t new ctx");
    assert!(found.stderr.contains("from podman"), "{}", found.whole());
}
