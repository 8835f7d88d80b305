//! A real registry: Debian's docker-registry, filled by skopeo.

use kiln_test_registry::Registry;

use super::server::{DockerRegistry, add_image, base_layer, hide_port, table, told, with_base};
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "pulled_once",
            &[Containers, DockerRegistry, Skopeo],
            pulled_once,
        ),
        case(
            "zstd_layers",
            &[Containers, DockerRegistry, Skopeo],
            zstd_layers,
        ),
        case(
            "docker_io_mirror",
            &[Containers, DockerRegistry, Skopeo],
            docker_io_mirror,
        ),
        case("no_request_twice", &[Containers], no_request_twice),
        case("pull_asks", &[Containers], pull_asks),
        case("offline", &[Containers], offline),
        case("no_such_image", &[Containers], no_such_image),
        case("nobody_listens", &[Containers], nobody_listens),
    ]
}

/// Builds an image on the base and writes it to `image.tar`; its `/made` says `by kiln`.
fn archive(world: &World) {
    world.base();
    world.dockerfile(
        r#"
        FROM demo/base
        RUN echo by kiln > /made
        ENV MADE=yes
        "#,
    );
    world
        .kiln(&["build", "-o", "type=oci,dest=image.tar", "ctx"])
        .ok();
    // What follows begins with nothing.
    std::fs::rename(world.store(), world.store().with_extension("first")).unwrap();
}

fn pulled_once(world: &World) {
    archive(world);
    let registry = DockerRegistry::start(world);
    registry.push(world, "image.tar", "team/base:1", &[]);
    let host = registry.host().to_owned();
    world.dockerfile(&format!(
        r#"
        FROM {host}/team/base:1
        RUN test "$MADE" = yes && cat /made > /seen
        "#
    ));
    let first = world.build();
    world.snapshot_of("first", &table(&first, &host));
    assert_eq!(world.sh("app", "cat /seen"), "by kiln\n");
    drop(registry);
    // Nobody listens there now, and nobody has to.
    let second = world.build();
    world.snapshot_of("second", &table(&second, &host));
    assert_eq!(first.id(), second.id());
}

fn zstd_layers(world: &World) {
    archive(world);
    let registry = DockerRegistry::start(world);
    // Through a directory, since skopeo recompresses only what is not compressed yet.
    let plain = format!("dir:{}", world.path("plain").display());
    let from = format!("oci-archive:{}", world.path("image.tar").display());
    let to = format!("docker://{}/base", registry.host());
    let skopeo = ["--insecure-policy", "copy", "--quiet"];
    let unpack = ["--dest-decompress", &from, &plain];
    let pack = [
        "--format",
        "oci",
        "--dest-compress-format",
        "zstd",
        "--dest-tls-verify=false",
        &plain,
        &to,
    ];
    world
        .program("skopeo", &[&skopeo[..], &unpack].concat())
        .ok();
    world.program("skopeo", &[&skopeo[..], &pack].concat()).ok();
    let manifest = world
        .program("skopeo", &["inspect", "--raw", "--tls-verify=false", &to])
        .ok()
        .stdout;
    assert_eq!(manifest.matches("tar+zstd").count(), 2, "{manifest}");
    world.dockerfile(&format!(
        "FROM {}/base\nRUN cat /made > /seen\n",
        registry.host()
    ));
    world.build();
    assert_eq!(world.sh("app", "cat /seen"), "by kiln\n");
}

fn docker_io_mirror(world: &World) {
    archive(world);
    let registry = DockerRegistry::start(world);
    registry.push(world, "image.tar", "library/box:latest", &[]);
    registry.push(world, "image.tar", "team/box:2", &[]);
    world.dockerfile(
        r#"
        FROM box AS one
        RUN cat /made > /one
        FROM docker.io/team/box:2
        COPY --from=one /one /two
        "#,
    );
    let mirror = format!("docker.io=http://{}", registry.host());
    let build = world
        .kiln(&["build", "-t", "app", "ctx"])
        .env("KILN_REGISTRY_MIRROR", &mirror)
        .ok();
    world.snapshot(&build.table());
    assert_eq!(world.sh("app", "cat /two"), "by kiln\n");
}

fn no_request_twice(world: &World) {
    let registry = with_base();
    world.dockerfile(&format!("FROM {}/base\nRUN echo > /one\n", registry.host()));
    world.build();
    let asked = registry.log().len();
    assert_eq!(
        registry.count("GET", "/manifests/"),
        1,
        "{:?}",
        registry.log()
    );
    assert_eq!(registry.count("GET", "/blobs/"), 2, "{:?}", registry.log());
    world.build();
    world.write("ctx/file", "new");
    world.dockerfile(&format!(
        "FROM {0}/base\nRUN echo > /two\nFROM {0}/base\nCOPY file /\n",
        registry.host()
    ));
    world.build();
    assert_eq!(registry.log().len(), asked, "{:?}", registry.log());
}

fn pull_asks(world: &World) {
    let registry = with_base();
    let host = registry.host();
    world.dockerfile(&format!("FROM {host}/base\nRUN ls / > /listing\n"));
    world.build();
    // The tag moves.
    let more = super::archive::Archive::new().file("more", "more").layer();
    add_image(&registry, "base", &[&base_layer(), &more]);
    let asked = registry.log().len();
    let same = world.build();
    assert_eq!(registry.log().len(), asked);
    world.snapshot_of("without", &table(&same, &host));
    let pulled = world.kiln(&["build", "--pull", "-t", "app", "ctx"]).ok();
    world.snapshot_of("with", &table(&pulled, &host));
    assert_eq!(
        world.sh("app", "grep more /listing; cat /more"),
        "more\nmore"
    );
    // Only the new layer was fetched.
    assert_eq!(registry.count("GET", &base_layer().digest()), 1);
    let again = world.kiln(&["build", "--pull", "-t", "app", "ctx"]).ok();
    world.snapshot_of("again", &table(&again, &host));
}

fn offline(world: &World) {
    let registry = with_base();
    let host = registry.host();
    world.dockerfile(&format!("FROM {host}/base\nRUN echo > /one\n"));
    let refused = world
        .kiln(&["build", "--offline", "-t", "app", "ctx"])
        .run();
    world.snapshot(&told(&refused, &host));
    assert_eq!(registry.log().len(), 0);
    world.build();
    let asked = registry.log().len();
    world.kiln(&["build", "--offline", "ctx"]).ok();
    world.kiln(&["build", "--offline", "--pull", "ctx"]).run();
    assert_eq!(registry.log().len(), asked);
}

fn no_such_image(world: &World) {
    let registry = Registry::start();
    let host = registry.host();
    world.dockerfile(&format!("FROM {host}/nobody/knows:this\n"));
    let refused = world.kiln(&["build", "ctx"]).run();
    world.snapshot(&told(&refused, &host));
}

fn nobody_listens(world: &World) {
    let host = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    world.dockerfile(&format!("FROM {host}/base\n"));
    let refused = world.kiln(&["build", "ctx"]).run();
    world.snapshot(&hide_port(&refused.whole(), &host));
}
