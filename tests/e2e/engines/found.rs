//! FROM an image that another engine of this host has.

use kiln_test_registry::{Fault, Registry};

use crate::registries::server::{Packed, add_image, base_layer, config_with, hide_port};
use crate::support::{
    APART, Capability::*, Case, Containerd as ContainerdProcess, Dockerd as DockerdProcess, Kiln,
    Ran, World, case, podman_settings,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("from_docker", &[Containers, Root, Dockerd], from_docker),
        case("docker_keys", &[Containers, Root, Dockerd], docker_keys),
        case(
            "docker_platform",
            &[Containers, Root, Dockerd],
            docker_platform,
        ),
        case(
            "from_podman",
            &[Containers, MountNamespace, Podman],
            from_podman,
        ),
        case(
            "podman_pulled",
            &[Containers, MountNamespace, Podman],
            podman_pulled,
        ),
        case(
            "podman_digest",
            &[Containers, MountNamespace, Podman],
            podman_digest,
        ),
        case(
            "from_containerd",
            &[Containers, Root, Containerd],
            from_containerd,
        ),
        case(
            "first_of_several",
            &[Containers, MountNamespace, Dockerd, Podman],
            first_of_several,
        ),
        case(
            "of_no_time",
            &[Containers, MountNamespace, Podman],
            of_no_time,
        ),
        case("switched_off", &[Containers], switched_off),
        case("pull_falls_back", &[Containers], pull_falls_back),
        case("pull_of_nothing", &[Containers], pull_of_nothing),
    ]
}

/// An archive for `docker load` of an image `app/base:1`, built with another store and taken away.
fn image(world: &World) -> Vec<u8> {
    image_of(world, "1700000000")
}

/// The same with another time in its config.
fn image_of(world: &World, epoch: &str) -> Vec<u8> {
    world.base();
    world.write("ctx/a", "from an engine\n");
    world.dockerfile(
        "FROM demo/base\nENV FROM=engine\nCOPY a /a\nRUN ln /a /b && rm /bin/vi || true\n",
    );
    world
        .kiln(&[
            "build",
            "-t",
            "app/base:1",
            "-o",
            "type=docker,dest=base.tar",
            "ctx",
        ])
        .env("SOURCE_DATE_EPOCH", epoch)
        .ok();
    world.forget();
    world.dockerfile("FROM app/base:1\nRUN cat /b > /c && echo $FROM >> /c\n");
    std::fs::read(world.path("base.tar")).unwrap()
}

fn build<'w>(world: &'w World, engines: &str) -> Kiln<'w> {
    world
        .kiln(&["build", "--offline", "-t", "app", "ctx"])
        .args(&["--engines", engines])
}

/// Lines of a build that say where images come from.
fn sources(ran: &Ran) -> String {
    let whole = ran.whole();
    let lines = whole
        .lines()
        .filter(|line| line.contains(" from ") && line.contains("sha256"));
    lines.map(|line| format!("{line}\n")).collect()
}

fn assert_built(world: &World) {
    assert_eq!(world.sh("app", "cat /c"), "from an engine\nengine\n");
}

fn from_docker(world: &World) {
    let archive = image(world);
    let docker = DockerdProcess::start(&world.path("d"));
    docker.load(&archive);
    let build = || build(world, "docker").env("DOCKER_HOST", docker.host());
    let ran = build().ok();
    assert_built(world);
    world.snapshot(&ran.whole().replace(&docker.host(), "[docker]"));
    // Nothing is taken twice, and the image can be sent on.
    let again = build().ok();
    assert!(!again.stderr.contains("taking"), "{}", again.whole());
    assert!(again.table().contains("cached"), "{}", again.table());
    build().args(&["-o", "type=oci,dest=out.tar"]).ok();
    // What docker has is not needed any more, but for the name.
    drop(docker);
    world.dockerfile("FROM app\nRUN cat /c\n");
    world
        .kiln(&["build", "-o", "type=oci,dest=more.tar", "ctx"])
        .ok();
}

/// An image is the same to the cache, wherever it comes from.
fn docker_keys(world: &World) {
    let registry = Registry::start();
    let base = base_layer();
    add_image(&registry, "base", &[&base]);
    let docker = DockerdProcess::start(&world.path("d"));
    docker.load(&docker_archive(&format!("{}/base", registry.host()), &base));
    world.dockerfile(&format!("FROM {}/base\nRUN echo > /one\n", registry.host()));
    let with = |engines: &str| {
        let kiln = world.kiln(&["build", "-t", "app", "ctx", "--engines", engines]);
        kiln.env("DOCKER_HOST", docker.host()).ok()
    };
    let first = with("docker");
    assert!(sources(&first).contains("from docker"), "{}", first.whole());
    assert!(registry.log().is_empty());
    let second = with("none");
    assert!(!registry.log().is_empty());
    assert!(second.table().contains("cached"), "{}", second.whole());
    assert_eq!(first.id(), second.id());
}

/// An archive as `docker save` wrote it for years.
fn docker_archive(name: &str, layer: &Packed) -> Vec<u8> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::read::GzDecoder::new(&layer.bytes[..]),
        &mut plain,
    )
    .unwrap();
    let config = config_with("amd64", &[layer], &[]);
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": [format!("{name}:latest")], "Layers": ["layer.tar"],
    }]);
    let mut archive = tar::Builder::new(Vec::new());
    let files: [(&str, &[u8]); 3] = [
        ("config.json", config.as_bytes()),
        ("layer.tar", &plain),
        ("manifest.json", &manifest.to_string().into_bytes()),
    ];
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        archive.append_data(&mut header, path, bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

fn docker_platform(world: &World) {
    let archive = image(world);
    let docker = DockerdProcess::start(&world.path("d"));
    docker.load(&archive);
    let ran = build(world, "docker")
        .args(&["--platform", "linux/s390x"])
        .env("DOCKER_HOST", docker.host())
        .exits(1);
    world.snapshot(&ran.whole());
}

fn podman(world: &World, arguments: &[&str], stdin: Vec<u8>) -> Ran {
    let settings = podman_settings(&world.path("p"));
    world
        .program("unshare", &[&APART[..], &["podman"], arguments].concat())
        .env("CONTAINERS_STORAGE_CONF", settings)
        .stdin(stdin)
        .ok()
}

fn from_podman(world: &World) {
    let archive = image(world);
    podman(world, &["load"], archive);
    // It has a name of its own for what has no registry in its name.
    podman(
        world,
        &["tag", "app/base:1", "localhost/other:1"],
        Vec::new(),
    );
    let build = || {
        let settings = podman_settings(&world.path("p"));
        build(world, "podman").env("CONTAINERS_STORAGE_CONF", settings)
    };
    let ran = build().ok();
    assert_built(world);
    world.snapshot(&sources(&ran));
    build().args(&["-o", "type=oci,dest=out.tar"]).ok();
    world.dockerfile("FROM other:1\nRUN cat /b > /c && echo $FROM >> /c\n");
    let other = build().ok();
    assert_eq!(ran.id(), other.id());
    // A file of a layer that was changed makes no image.
    world.forget();
    let layers = world.path("p/graph/overlay");
    for layer in std::fs::read_dir(layers).unwrap().flatten() {
        let file = layer.path().join("diff/a");
        if file.exists() {
            std::fs::write(file, "from an enginE\n").unwrap();
        }
    }
    let damaged = build().exits(1);
    assert!(damaged.stderr.contains("is damaged"), "{}", damaged.whole());
}

/// A base that podman pulled leaves in the blobs that its registry has, and those are not sent again.
fn podman_pulled(world: &World) {
    let registry = Registry::start();
    add_image(&registry, "base", &[&base_layer()]);
    let host = registry.host();
    world.write("auth.json", "{}");
    let auth = world.path("auth.json").display().to_string();
    let pull = ["pull", "--tls-verify=false", "--authfile", &auth];
    podman(
        world,
        &[&pull[..], &[&format!("{host}/base")]].concat(),
        Vec::new(),
    );
    let settings = podman_settings(&world.path("p"));
    world.dockerfile(&format!("FROM {host}/base\nRUN echo made > /made\n"));
    let name = format!("{host}/team/app");
    let build = |engines: &str, output: &[&str]| {
        world
            .kiln(&["build", "--build-arg=SOURCE_DATE_EPOCH=0", "ctx"])
            .args(&["--engines", engines, "-t", &name])
            .args(output)
            .env("CONTAINERS_STORAGE_CONF", &settings)
            .ok()
    };
    let blob = base_layer().digest();
    let expected = |output: &[&str]| {
        build("none", output);
        world.forget();
        registry.clear_log();
        let ran = build("podman", output);
        assert!(ran.stderr.contains("from podman"), "{}", ran.stderr);
        ran
    };
    let pushed = || registry.manifest("team/app", "latest");
    // Pushed at once, the blob stays where it is.
    build("none", &["--push"]);
    let first = pushed();
    let ran = expected(&["--push"]);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    assert_eq!(pushed(), first);
    assert_eq!(registry.count("GET", &blob), 0, "{:?}", registry.log());
    // Kept, it is brought when it is to leave.
    let ran = expected(&[]);
    assert_eq!(registry.log().len(), 0, "{}", ran.whole());
    world.kiln(&["push", "-q", &name]).ok();
    assert_eq!(pushed(), first);
    expected(&["-o", "type=oci,dest=out.tar"]);
    assert_eq!(registry.count("GET", &blob), 1, "{:?}", registry.log());
    // What its registry has no more leaves as it is here, and that is said.
    registry.forget_blob("base", &blob);
    world.forget();
    let ran = build("podman", &["-o", "type=oci,dest=out.tar"]);
    assert!(
        ran.stderr.contains("and not as its image names it"),
        "{}",
        ran.stderr
    );
}

/// A digest stands for what podman has only if it is one of what podman has.
fn podman_digest(world: &World) {
    let archive = image(world);
    podman(world, &["load"], archive);
    let shown = podman(world, &["image", "inspect", "app/base:1"], Vec::new()).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let digest = shown[0]["Digest"].as_str().unwrap();
    let build = |digest: &str| {
        world.dockerfile(&format!(
            "FROM app/base@{digest}\nRUN cat /b > /c && echo $FROM >> /c\n"
        ));
        let settings = podman_settings(&world.path("p"));
        build(world, "podman").env("CONTAINERS_STORAGE_CONF", settings)
    };
    build(digest).ok();
    assert_built(world);
    let id = shown[0]["Id"].as_str().unwrap();
    build(&format!("sha256:{id}")).exits(1);
}

fn from_containerd(world: &World) {
    let archive = image(world);
    std::fs::write(world.path("base.tar"), archive).unwrap();
    let containerd = ContainerdProcess::start(&world.path("c"));
    let file = world.path("base.tar").display().to_string();
    let import = ["-n", "k8s.io", "images", "import", "--no-unpack", &file];
    containerd.ctr(&import).expect("the import failed");
    let build = || build(world, "containerd").env("CONTAINERD_ADDRESS", containerd.address());
    let ran = build().ok();
    assert_built(world);
    world.snapshot(&sources(&ran));
    build().args(&["-o", "type=oci,dest=out.tar"]).ok();
    build()
        .env("CONTAINERD_NAMESPACE", "default")
        .args(&["--no-cache"])
        .exits(1);
}

fn first_of_several(world: &World) {
    let archive = image(world);
    podman(world, &["load"], archive.clone());
    let docker = DockerdProcess::start(&world.path("d"));
    docker.load(&archive);
    let settings = podman_settings(&world.path("p"));
    let build = |engines: &str| {
        build(world, engines)
            .env("DOCKER_HOST", docker.host())
            .env("CONTAINERS_STORAGE_CONF", &settings)
            .ok()
    };
    assert!(sources(&build("docker,podman")).contains("from docker"));
    assert!(sources(&build("podman,docker")).contains("from podman"));
}

/// Of an image that says no time of its own, the engine says since when it has it.
fn of_no_time(world: &World) {
    let archive = image_of(world, "0");
    podman(world, &["load"], archive);
    let settings = podman_settings(&world.path("p"));
    let ran = build(world, "podman").env("CONTAINERS_STORAGE_CONF", settings);
    let shown = sources(&ran.ok());
    assert!(shown.contains("from podman, added "), "{shown}");
}

fn switched_off(world: &World) {
    world.dockerfile("FROM app/base:1\n");
    world.snapshot_of("none", &build(world, "none").exits(1).whole());
    world.snapshot_of("unknown", &build(world, "docker,rkt").exits(2).whole());
    let variable = world
        .kiln(&["build", "--offline", "ctx"])
        .env("KILN_ENGINES", "lxd");
    world.snapshot_of("variable", &variable.exits(2).whole());
}

/// A registry that is to be asked and fails is told, and what is here is taken.
fn pull_falls_back(world: &World) {
    let registry = Registry::start();
    add_image(&registry, "base", &[&base_layer()]);
    world.dockerfile(&format!("FROM {}/base\nRUN echo > /one\n", registry.host()));
    world.build();
    for _ in 0..20 {
        registry.inject(Fault::Status {
            path: "/manifests/".to_owned(),
            status: 503,
            retry_after: Some("0".to_owned()),
        });
    }
    let ran = world.kiln(&["build", "--pull", "-t", "app", "ctx"]).ok();
    world.snapshot(&hide_port(&ran.whole(), &registry.host()));
}

/// Nothing here, or a registry that knows better, is no case for what is here.
fn pull_of_nothing(world: &World) {
    let registry = Registry::start();
    world.dockerfile(&format!("FROM {}/none\nRUN echo > /one\n", registry.host()));
    let ran = world
        .kiln(&["build", "--pull", "-t", "app", "ctx"])
        .exits(1);
    assert!(ran.stderr.contains("not found"), "{}", ran.whole());
}
