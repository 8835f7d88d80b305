//! Engines that lie, hang, cut and flood: a registry is asked instead, or the build fails, and nothing is
//! kept of what they say.

use kiln_test_registry::{Registry, digest_of};
use serde_json::json;

use super::fake::{Fake, Reply};
use crate::registries::server::{Packed, add_image, base_layer, config_with, hide_port};
use crate::support::{Capability::Containers, Case, Ran, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[crate::support::Capability] = &[Containers];
    vec![
        case("honest", NEEDS, honest),
        case("other_config", NEEDS, other_config),
        case("other_layer", NEEDS, other_layer),
        case("no_layer", NEEDS, no_layer),
        case("cut", NEEDS, cut),
        case("hangs", NEEDS, hangs),
        case("floods", NEEDS, floods),
        case("no_archive", NEEDS, no_archive),
        case("no_document", NEEDS, no_document),
        case("nobody_listens", NEEDS, nobody_listens),
        case("told_everywhere", NEEDS, told_everywhere),
        case("told_of_front_ends", NEEDS, told_of_front_ends),
        case("digests_are_not_believed", NEEDS, digests_are_not_believed),
    ]
}

/// An image as an engine tells of it.
struct Image {
    inspected: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

fn plain(layer: &Packed) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut gzip = flate2::read::GzDecoder::new(&layer.bytes[..]);
    std::io::Read::read_to_end(&mut gzip, &mut plain).unwrap();
    plain
}

fn image() -> Image {
    let layer = base_layer();
    let plain = plain(&layer);
    let config = config_with("amd64", &[&layer], &[]).into_bytes();
    let inspected = json!({
        "Id": digest_of(&config), "Architecture": "amd64", "Os": "linux", "Size": plain.len(),
        "RootFS": { "Type": "layers", "Layers": [digest_of(&plain)] },
    });
    Image {
        inspected: inspected.to_string().into_bytes(),
        config,
        layer: plain,
    }
}

/// What `docker save` writes: layers after ids of their own, then the config after its digest.
fn saved(layers: &[&[u8]], config: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        archive.append_data(&mut header, path, bytes).unwrap();
    };
    for (index, layer) in layers.iter().enumerate() {
        add(&format!("{index:064}/layer.tar"), layer);
        add(&format!("{index:064}/VERSION"), b"1.0");
    }
    add(
        &format!("{}.json", &digest_of(config)["sha256:".len()..]),
        config,
    );
    add("manifest.json", b"[]");
    archive.into_inner().unwrap()
}

/// Builds with an engine that answers so, and with a registry that has the image too.
fn build(world: &World, registry: Option<&Registry>, fake: &Fake) -> Ran {
    let name = registry.map_or("127.0.0.1:1".to_owned(), Registry::host);
    world.dockerfile(&format!("FROM {name}/base\nRUN echo > /one\n"));
    let kiln = world.kiln(&["build", "-t", "app", "--engines", "docker", "ctx"]);
    let kiln = match registry {
        Some(_) => kiln,
        None => kiln.args(&["--offline"]),
    };
    kiln.env("DOCKER_HOST", fake.host()).run()
}

/// An engine whose archive is this.
fn engine(
    world: &World,
    inspected: Vec<u8>,
    archive: impl Fn() -> Reply + Send + Sync + 'static,
) -> Fake {
    Fake::start(&world.path("docker.sock"), move |line| {
        match line.ends_with("/get") {
            true => archive(),
            false if line.ends_with("/json") => Reply::Whole(inspected.clone()),
            false => Reply::Missing,
        }
    })
}

/// The registry's image is used, and why is told.
fn check(world: &World, fake: &Fake) {
    let registry = Registry::start();
    add_image(&registry, "base", &[&base_layer()]);
    let ran = build(world, Some(&registry), fake);
    let told = hide_port(&ran.whole(), &registry.host()).replace(&fake.host(), "[docker]");
    assert_eq!(ran.status.code(), Some(0), "{told}");
    let told: String = told
        .lines()
        .filter(|line| line.contains("docker") || line.contains("asked for"))
        .map(|line| format!("{line}\n"))
        .collect();
    world.snapshot(&told);
}

fn honest(world: &World) {
    let image = image();
    let archive = saved(&[&image.layer], &image.config);
    let fake = engine(world, image.inspected, move || {
        Reply::Whole(archive.clone())
    });
    let ran = build(world, None, &fake);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
    assert_eq!(fake.asked().len(), 2, "{:?}", fake.asked());
}

/// Its config is not what its id is of.
fn other_config(world: &World) {
    let image = image();
    let config = String::from_utf8(image.config)
        .unwrap()
        .replace("/bin/sh", "/bin/su");
    let archive = saved(&[&image.layer], config.as_bytes());
    let fake = engine(world, image.inspected, move || {
        Reply::Whole(archive.clone())
    });
    check(world, &fake);
}

/// Its layer is not what its config lists.
fn other_layer(world: &World) {
    let mut image = image();
    let other = saved(&[], b"{}");
    image.layer = other;
    let archive = saved(&[&image.layer], &image.config);
    let fake = engine(world, image.inspected, move || {
        Reply::Whole(archive.clone())
    });
    check(world, &fake);
}

fn no_layer(world: &World) {
    let image = image();
    let archive = saved(&[], &image.config);
    let fake = engine(world, image.inspected, move || {
        Reply::Whole(archive.clone())
    });
    check(world, &fake);
}

fn cut(world: &World) {
    let image = image();
    let archive = saved(&[&image.layer], &image.config);
    let fake = engine(world, image.inspected, move || {
        Reply::Cut(archive.clone(), archive.len() / 2)
    });
    check(world, &fake);
}

fn hangs(world: &World) {
    let fake = Fake::start(&world.path("docker.sock"), |_| Reply::Silence);
    check(world, &fake);
}

/// Its answer does not end.
fn floods(world: &World) {
    let fake = Fake::start(&world.path("docker.sock"), |_| {
        Reply::Flood(vec![b' '; 1 << 20])
    });
    check(world, &fake);
}

fn no_archive(world: &World) {
    let image = image();
    let fake = engine(world, image.inspected, || Reply::Whole(vec![b'x'; 4096]));
    check(world, &fake);
}

fn no_document(world: &World) {
    let fake = engine(world, b"[1, 2".to_vec(), || Reply::Missing);
    check(world, &fake);
}

/// A socket that nobody listens at is no engine, and nothing to talk about.
fn nobody_listens(world: &World) {
    let socket = world.path("docker.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let registry = Registry::start();
    add_image(&registry, "base", &[&base_layer()]);
    world.dockerfile(&format!("FROM {}/base\nRUN echo > /one\n", registry.host()));
    let ran = world
        .kiln(&["build", "-t", "app", "--engines", "docker", "ctx"])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .ok();
    assert!(!ran.stderr.contains("docker"), "{}", ran.whole());
}

/// Whatever asks for images says what is wrong with an engine, once.
fn told_everywhere(world: &World) {
    let registry = Registry::start();
    add_image(&registry, "base", &[&base_layer()]);
    add_image(&registry, "other", &[&base_layer()]);
    let host = registry.host();
    world.dockerfile(&format!(
        "FROM {host}/base AS a\nFROM {host}/other\nCOPY --from=a /bin/sh /sh\n"
    ));
    let fake = Fake::start(&world.path("docker.sock"), |_| {
        Reply::Whole(b"[1, 2".to_vec())
    });
    let base = format!("{host}/base");
    let lines: [&[&str]; 7] = [
        &["run", "--entrypoint", "/bin/true", &base],
        &["build", "--check", "ctx"],
        &["build", "--call=outline", "ctx"],
        &["plan", "--resolve", "ctx"],
        &["plan", "--would-run", "ctx"],
        &["build", "ctx"],
        &["build", "-q", "ctx"],
    ];
    for (index, line) in lines.iter().enumerate() {
        let ran = world
            .kiln(line)
            .env("KILN_ENGINES", "docker")
            .env("KILN_ROOT", world.path(&format!("store{index}")))
            .env("DOCKER_HOST", fake.host())
            .run();
        told_once(&ran);
    }
    // Above the error of what fails, too.
    world.dockerfile("FROM 127.0.0.1:1/none\n");
    let ran = world
        .kiln(&["build", "--offline", "--engines", "docker", "ctx"])
        .env("DOCKER_HOST", fake.host())
        .exits(1);
    told_once(&ran);
}

/// Checks that a run says that docker was not used, and nothing of it twice.
#[track_caller]
fn told_once(ran: &Ran) {
    let lines = ran.stderr.lines();
    let told = lines.filter(|line| line.starts_with("warning: docker was not used"));
    let told: Vec<&str> = told.collect();
    let each: std::collections::BTreeSet<&str> = told.iter().copied().collect();
    assert!(
        !told.is_empty() && each.len() == told.len(),
        "{}",
        ran.whole()
    );
}

fn told_of_front_ends(world: &World) {
    let registry = Registry::start();
    add_image(&registry, "base", &[&base_layer()]);
    let fake = Fake::start(&world.path("docker.sock"), |_| {
        Reply::Whole(b"[1, 2".to_vec())
    });
    let script = format!(
        "#!/bin/sh\nread -r build\nprintf '%s\\n' '{{\"type\":\"hello\",\"version\":\"kiln.frontend/0\"}}'\n         printf '%s\\n' '{{\"type\":\"resolve\",\"id\":7,\"image\":\"{}/base\",\"platform\":\"linux/amd64\"}}'\n         read -r answer\nexit 1\n",
        registry.host()
    );
    world.write_program("front", &script);
    world.write("ctx/file", "");
    let ran = world
        .kiln(&["build", "--frontend", "./front", "-f", "ctx/file", "ctx"])
        .env("KILN_ENGINES", "docker")
        .env("DOCKER_HOST", fake.host())
        .run();
    told_once(&ran);
}

/// An engine keeps no manifests, so that it is not asked about one.
fn digests_are_not_believed(world: &World) {
    let image = image();
    let archive = saved(&[&image.layer], &image.config);
    let fake = engine(world, image.inspected, move || {
        Reply::Whole(archive.clone())
    });
    world.dockerfile(&format!("FROM base@sha256:{}\n", "1".repeat(64)));
    world
        .kiln(&["build", "--offline", "--engines", "docker", "ctx"])
        .env("DOCKER_HOST", fake.host())
        .exits(1);
    assert!(fake.asked().is_empty(), "{:?}", fake.asked());
}
