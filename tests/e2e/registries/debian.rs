//! A real registry: Debian's docker-registry, filled by skopeo.

use std::time::{Duration, Instant};

use kiln_test_registry::Registry;

use super::access::{PASSWORD, log_in};
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
        case("pushed", &[Containers, DockerRegistry, Skopeo], pushed),
        case(
            "pushed_and_run_by_runc",
            &[Containers, Root, DockerRegistry, Skopeo, Umoci, Runc],
            pushed_and_run_by_runc,
        ),
        case(
            "debian_knows_a_password",
            &[Containers, DockerRegistry],
            debian_knows_a_password,
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

fn build_to_push(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN echo by kiln > /made\nCMD [\"cat\", \"/made\"]\n");
    world.build();
}

fn pushed(world: &World) {
    build_to_push(world);
    let registry = DockerRegistry::start(world);
    let name = |repository: &str| format!("{}/{repository}", registry.host());
    let first = world.kiln(&["push", "app", &name("team/app:1")]).ok();
    let digest = first.stdout.trim().rsplit('@').next().unwrap().to_owned();
    assert!(first.stderr.contains("3 sent"), "{}", first.stderr);
    let inspected = world
        .program(
            "skopeo",
            &[
                "inspect",
                "--tls-verify=false",
                "--format={{.Digest}}",
                &format!("docker://{}", name("team/app:1")),
            ],
        )
        .ok();
    assert_eq!(inspected.stdout.trim(), digest);
    // Once is enough.
    let second = world.kiln(&["push", "app", &name("team/app:1")]).ok();
    assert!(second.stderr.contains("is up to date"), "{}", second.stderr);
    assert!(!second.stderr.contains("sent"), "{}", second.stderr);
    // Another repository shares what the first has.
    let third = world.kiln(&["push", "app", &name("other:1")]).ok();
    assert!(
        third.stderr.contains("3 taken from another repository"),
        "{}",
        third.stderr
    );
    assert!(third.stdout.ends_with(&format!("@{digest}\n")));
    // Several platforms.
    world.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY . /$TARGETARCH/\n");
    let platforms = "linux/amd64,linux/arm64";
    world
        .kiln(&["build", "-t", "both", "--platform", platforms, "ctx"])
        .ok();
    let both = world.kiln(&["push", "both", &name("both:1")]).ok();
    // And back, in another store.
    let id = world.inspect("app")["id"].clone();
    world.forget();
    let pulled = world.kiln(&["pull", &name("team/app:1")]).ok();
    assert_eq!(pulled.stdout.trim().rsplit(' ').next(), id.as_str());
    let ran = world.kiln(&["run", &name("other:1")]).ok();
    assert_eq!(ran.stdout, "by kiln\n");
    let all = world
        .kiln(&["pull", "--all-platforms", &name("both:1")])
        .ok();
    let index = both.stdout.trim().rsplit('@').next();
    assert_eq!(all.stdout.trim().rsplit(' ').next(), index);
    let again = world
        .kiln(&["push", &name("both:1"), &name("again:1")])
        .ok();
    assert_eq!(again.stdout.trim().rsplit('@').next(), index);
}

/// A password that the registry asked for once is shown at once from then on.
fn debian_knows_a_password(world: &World) {
    build_to_push(world);
    // Of the password that `log_in` is given.
    let line = "anna:$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n";
    let registry = DockerRegistry::with_password(world, line);
    log_in(world, registry.host(), PASSWORD);
    let name = format!("{}/app:1", registry.host());
    world.kiln(&["push", "app", &name]).ok();
    let again = world.kiln(&["push", "app", &name]).ok();
    assert!(again.stderr.contains("is up to date"), "{}", again.stderr);
    // Its log may come after its answers.
    let deadline = Instant::now() + Duration::from_secs(60);
    let statuses = loop {
        let log = world.read("registry.log");
        let statuses: Vec<String> = log
            .lines()
            .filter_map(|line| line.split_once("\"HEAD /v2/app/manifests/1 HTTP/1.1\" "))
            .map(|(_, rest)| rest.split(' ').next().unwrap_or_default().to_owned())
            .collect();
        if statuses.contains(&"200".to_owned()) {
            break statuses;
        }
        assert!(Instant::now() < deadline, "{log}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(statuses, ["401", "404", "200"]);
}

fn pushed_and_run_by_runc(world: &World) {
    build_to_push(world);
    let registry = DockerRegistry::start(world);
    let name = format!("{}/app:1", registry.host());
    world.kiln(&["push", "app", &name]).ok();
    let from = format!("docker://{name}");
    let copy = [
        "--insecure-policy",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        &from,
        "oci:layout:v1",
    ];
    world.program("skopeo", &copy).ok();
    let ran = world.run_by_runc();
    assert_eq!(world.read("bundle/rootfs/made"), "by kiln\n");
    assert_eq!(ran.stdout, "by kiln\n");
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
