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
        case("documents", SKOPEO, documents),
        case("docker_media_types", SKOPEO, docker_media_types),
        case(
            "compressed_for_umoci",
            &[Containers, Root, Busybox, Umoci],
            compressed_for_umoci,
        ),
        case("rewritten_times", NEEDS, rewritten_times),
        case("refused_options", NEEDS, refused_options),
        case("metadata_is_whole", NEEDS, metadata_is_whole),
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
    assert_eq!(world.run_by_runc().stdout, "a\nhello\n");
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

/// The documents of an image as skopeo hands them out.
fn raw(world: &World, image: &str) -> serde_json::Value {
    let shown = world.program("skopeo", &["inspect", "--raw", image]).ok();
    serde_json::from_str(&shown.stdout).unwrap()
}

fn documents(world: &World) {
    small(world);
    let options = [
        "--annotation",
        "org.opencontainers.image.source=https://example.org/app",
        "--annotation",
        "manifest-descriptor:org.example.of=flag",
        "-o",
        "type=oci,dest=layout,tar=false,annotation.org.example.Of=output,compression=zstd",
    ];
    world
        .kiln(&["build", "-t", "app:v1"])
        .args(&options)
        .args(&["ctx"])
        .ok();
    let manifest = raw(world, "oci:layout:v1");
    assert_eq!(
        manifest["annotations"],
        serde_json::json!({
            "org.example.Of": "output",
            "org.opencontainers.image.source": "https://example.org/app",
        })
    );
    for layer in manifest["layers"].as_array().unwrap() {
        let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
        // The base was imported, and came as no blob.
        assert_eq!(layer["mediaType"], zstd);
    }
    let index: serde_json::Value = serde_json::from_str(&world.read("layout/index.json")).unwrap();
    assert_eq!(
        index["manifests"][0]["annotations"]["org.example.of"],
        "flag"
    );
    let refused = world
        .kiln(&["build", "-q", "--annotation", "index:a=b", "ctx"])
        .exits(1);
    world.snapshot(&refused.whole());
}

fn docker_media_types(world: &World) {
    export(world, "type=oci,dest=app.tar,oci-mediatypes=false");
    let manifest = raw(world, "oci-archive:app.tar");
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    assert_eq!(manifest["mediaType"], docker);
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.docker.container.image.v1+json"
    );
    // skopeo makes an OCI image of it, and checks what it reads.
    world
        .program(
            "skopeo",
            &[
                "copy",
                "--insecure-policy",
                "--format=oci",
                "oci-archive:app.tar",
                "oci:copied:v1",
            ],
        )
        .ok();
}

fn compressed_for_umoci(world: &World) {
    let mut seen = Vec::new();
    // Debian's umoci knows no zstd.
    for how in [
        "compression=uncompressed,force-compression=true",
        "compression=gzip,compression-level=9",
    ] {
        let _ = std::fs::remove_dir_all(world.path("layout"));
        export(world, &format!("type=oci,dest=layout,tar=false,{how}"));
        let _ = std::fs::remove_dir_all(world.path("bundle"));
        world
            .program("umoci", &["unpack", "--image", "layout:v1", "bundle"])
            .ok();
        let look = world.program("sh", &["-c", LOOK, "bundle/rootfs"]).ok();
        seen.push(look.stdout);
    }
    assert_eq!(seen[0], seen[1]);
}

fn rewritten_times(world: &World) {
    small(world);
    world.dockerfile("FROM scratch\nCOPY a /a\n");
    let time = |output: &str| {
        let output = format!("type=oci,dest=layout,tar=false{output}");
        let _ = std::fs::remove_dir_all(world.path("layout"));
        world
            .kiln(&["build", "-o", &output, "ctx"])
            .env("SOURCE_DATE_EPOCH", "1000000000")
            .ok();
        let index: serde_json::Value =
            serde_json::from_str(&world.read("layout/index.json")).unwrap();
        let blob = |digest: &serde_json::Value| {
            let digest = digest.as_str().unwrap().replace(':', "/");
            std::fs::read(world.path("layout/blobs").join(digest)).unwrap()
        };
        let manifest = blob(&index["manifests"][0]["digest"]);
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let layer = blob(&manifest["layers"][0]["digest"]);
        let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(&layer[..]));
        let entry = archive.entries().unwrap().last().unwrap().unwrap();
        entry.header().mtime().unwrap()
    };
    assert_eq!(time(""), 1_000_000_000);
    assert_eq!(time(",rewrite-timestamp=true"), 1_000_000_000);
    assert!(time(",rewrite-timestamp=false") > 1_000_000_000);
}

fn refused_options(world: &World) {
    small(world);
    let mut text = String::new();
    for output in [
        "type=oci,dest=x.tar,compression=estargz",
        "type=oci,dest=x.tar,compression=zstd,compression-level=23",
        "type=oci,dest=x.tar,oci-mediatypes=perhaps",
        "type=oci,dest=x.tar,squash=true",
        "type=image,annotation-layer.a=b",
    ] {
        let ran = world.kiln(&["build", "-q", "-o", output, "ctx"]).exits(2);
        text += &ran.whole();
    }
    let nowhere = ["build", "-q", "--annotation", "a=b", "-o", "out", "ctx"];
    text += &world.kiln(&nowhere).exits(2).whole();
    assert!(!world.path("x.tar").exists());
    world.snapshot(&text);
}

fn metadata_is_whole(world: &World) {
    small(world);
    world.write("meta.json", "before");
    std::os::unix::fs::symlink("meta.json", world.path("link.json")).unwrap();
    let flags = ["--metadata-file", "link.json", "--iidfile", "id"];
    world.dockerfile("FROM demo/base\nRUN exit 3\n");
    world.kiln(&["build"]).args(&flags).args(&["ctx"]).exits(1);
    assert_eq!(world.read("meta.json"), "before");
    assert!(!world.path("id").exists());
    small(world);
    world.kiln(&["build"]).args(&flags).args(&["ctx"]).ok();
    let metadata: serde_json::Value = serde_json::from_str(&world.read("meta.json")).unwrap();
    assert_eq!(
        metadata["containerimage.descriptor"]["annotations"]["config.digest"],
        world.read("id").as_str()
    );
    let id = metadata["kiln.build.id"].as_str().unwrap();
    world.kiln(&["builds", "show", id]).ok();
}
