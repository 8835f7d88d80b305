//! What -o writes, looked at by other tools.

use crate::support::Capability::{self, Busybox, Containers, Root, Runc, Skopeo, Umoci};
use crate::support::{Case, World, case, paths_in};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    const SKOPEO: &[Capability] = &[Containers, Skopeo];
    vec![
        case("oci_archive", SKOPEO, oci_archive),
        case("oci_directory", SKOPEO, oci_directory),
        case(
            "unpacked_by_umoci",
            &[Containers, Root, Busybox, Umoci],
            unpacked_by_umoci,
        ),
        case("run_by_runc", &[Containers, Root, Umoci, Runc], run_by_runc),
        case("docker_archive", SKOPEO, docker_archive),
        case("local", NEEDS, local),
        case("tar", NEEDS, tar),
        case("tar_on_standard_output", NEEDS, tar_on_standard_output),
        case("several", SKOPEO, several),
        case("cacheonly", NEEDS, cacheonly),
        case("twice_the_same_bytes", NEEDS, twice_the_same_bytes),
        case("unwritable", NEEDS, unwritable),
    ]
}

fn small(world: &World) {
    world.base();
    world.write("ctx/a", "a\n");
    world.dockerfile(
        r#"
        FROM demo/base
        ENV GREETING=hello
        COPY --chown=12:34 --chmod=644 a /a
        RUN ln /a /hard && ln -s a /soft && mkdir -m 1777 /sticky && echo "$GREETING" > /b
        WORKDIR /sticky
        CMD ["cat", "/a", "/b"]
        "#,
    );
}

fn export(world: &World, output: &str) -> crate::support::Ran {
    small(world);
    world
        .kiln(&["build", "-t", "app:v1", "-o", output, "ctx"])
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .ok()
}

fn skopeo(world: &World, image: &str) -> serde_json::Value {
    let shown = world
        .program("skopeo", &["inspect", "--config", image])
        .ok()
        .stdout;
    serde_json::from_str(&shown).unwrap()
}

fn oci_archive(world: &World) {
    let id = export(world, "type=oci,dest=app.tar").id().to_owned();
    let config = skopeo(world, "oci-archive:app.tar");
    assert_eq!(config["config"]["Cmd"][1], "/a");
    let raw = world
        .program("skopeo", &["inspect", "--raw", "oci-archive:app.tar"])
        .ok()
        .stdout;
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["config"]["digest"], id.as_str());
    // skopeo checks every digest on the way.
    world
        .program(
            "skopeo",
            &[
                "copy",
                "--insecure-policy",
                "oci-archive:app.tar",
                "dir:copied",
            ],
        )
        .ok();
}

fn oci_directory(world: &World) {
    export(world, "type=oci,dest=layout,tar=false");
    let shown = world
        .program("skopeo", &["inspect", "oci:layout:v1"])
        .ok()
        .stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["Layers"].as_array().unwrap().len(), 4);
    assert_eq!(shown["Created"], "2023-11-14T22:13:20Z");
}

const LOOK: &str = "cd $0 && stat -c '%n %F %u:%g %a %h' a b hard soft sticky tmp root && \
                    readlink soft && cat a b";

fn unpacked_by_umoci(world: &World) {
    small(world);
    let outputs = [
        "-o",
        "type=image,name=app:v1",
        "-o",
        "type=oci,name=app:v1,dest=layout,tar=false",
    ];
    world.kiln(&["build"]).args(&outputs).args(&["ctx"]).ok();
    world
        .program("umoci", &["unpack", "--image", "layout:v1", "bundle"])
        .ok();
    let theirs = world
        .program("sh", &["-c", LOOK, "bundle/rootfs"])
        .ok()
        .stdout;
    assert_eq!(theirs, world.sh("app:v1", &LOOK.replace("$0", "/")));
    assert!(
        theirs.contains("hard regular file 12:34 644 2\n"),
        "{theirs}"
    );
}

fn run_by_runc(world: &World) {
    export(world, "type=oci,dest=layout,tar=false");
    world
        .program("umoci", &["unpack", "--image", "layout:v1", "bundle"])
        .ok();
    // No terminal here.
    let config = world.read("bundle/config.json");
    world.write(
        "bundle/config.json",
        config.replace("\"terminal\": true", "\"terminal\": false"),
    );
    let id = format!("kiln-e2e-{}", std::process::id());
    let state = world.path("runc-state");
    let state = state.to_string_lossy();
    let ran = world
        .program(
            "runc",
            &["--root", &state, "run", "--bundle", "bundle", &id],
        )
        .ok();
    assert_eq!(ran.stdout, "a\nhello\n");
}

fn docker_archive(world: &World) {
    let id = export(world, "type=docker,dest=app.tar").id().to_owned();
    let shown = world
        .program(
            "skopeo",
            &[
                "inspect",
                "--config",
                "docker-archive:app.tar:docker.io/library/app:v1",
            ],
        )
        .ok()
        .stdout;
    assert!(shown.contains("/a"), "{shown}");
    assert!(id.starts_with("sha256:"));
    world
        .program(
            "skopeo",
            &[
                "copy",
                "--insecure-policy",
                "docker-archive:app.tar",
                "dir:copied",
            ],
        )
        .ok();
}

fn local(world: &World) {
    small(world);
    world.dockerfile("FROM scratch\nCOPY a /dir/a\nCOPY --chmod=755 a /x\n");
    world.kiln(&["build", "-o", "out", "ctx"]).ok();
    assert_eq!(world.read("out/dir/a"), "a\n");
    let listing = world
        .program(
            "sh",
            &["-c", "cd out && find . -type f | sort && stat -c %a x"],
        )
        .ok();
    assert_eq!(listing.stdout, "./dir/a\n./x\n755\n");
}

fn tar(world: &World) {
    small(world);
    world.dockerfile("FROM scratch\nCOPY a /dir/a\nCOPY a /b\n");
    world
        .kiln(&["build", "-o", "type=tar,dest=files.tar", "ctx"])
        .ok();
    let bytes = std::fs::read(world.path("files.tar")).unwrap();
    assert_eq!(paths_in(&bytes[..]), ["b", "dir/", "dir/a"]);
}

fn tar_on_standard_output(world: &World) {
    small(world);
    world.dockerfile("FROM scratch\nCOPY a /b\n");
    let ran = world.kiln(&["build", "-o", "-", "ctx"]).ok();
    assert_eq!(paths_in(&ran.stdout_bytes[..]), ["b"]);
}

fn several(world: &World) {
    small(world);
    let outputs = [
        "-o",
        "type=image,name=kept",
        "-o",
        "type=oci,dest=a.tar",
        "-o",
        "type=local,dest=out",
    ];
    let ran = world.kiln(&["build"]).args(&outputs).args(&["ctx"]).ok();
    assert_eq!(world.kiln(&["run", "kept"]).ok().stdout, "a\nhello\n");
    assert_eq!(world.read("out/b"), "hello\n");
    skopeo(world, "oci-archive:a.tar");
    world.snapshot(&ran.whole());
}

fn cacheonly(world: &World) {
    small(world);
    let ran = world.kiln(&["build", "-o", "type=cacheonly", "ctx"]).ok();
    assert_eq!(ran.stdout, "");
    assert_eq!(world.kiln(&["images", "-q"]).ok().stdout.lines().count(), 1);
    world.snapshot(&world.build().table());
}

fn twice_the_same_bytes(world: &World) {
    export(world, "type=oci,dest=first.tar");
    export(world, "type=oci,dest=second.tar");
    let bytes = |name: &str| std::fs::read(world.path(name)).unwrap();
    assert!(bytes("first.tar") == bytes("second.tar"));
}

fn unwritable(world: &World) {
    small(world);
    let mut text = String::new();
    for output in ["type=oci,dest=no/such/directory/x.tar", "type=tar,dest=ctx"] {
        let ran = world.kiln(&["build", "-q", "-o", output, "ctx"]).exits(1);
        text += &ran.whole();
    }
    world.snapshot(&text);
}
