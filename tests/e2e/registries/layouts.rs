//! OCI layout directories as sources.

use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("layout_as_base", &[Containers], layout_as_base),
        case("layout_by_tag", &[Containers], layout_by_tag),
        case("layout_in_a_plan", &[Containers], layout_in_a_plan),
        case("layout_by_skopeo", &[Containers, Skopeo], layout_by_skopeo),
        case("layout_altered", &[Containers], layout_altered),
        case("layout_missing", &[Containers], layout_missing),
    ]
}

/// Writes an image to the layout `layout` under a tag; its `/made` holds the tag.
fn layout(world: &World, tag: &str) {
    world.base();
    world.dockerfile(&format!(
        "FROM demo/base\nRUN echo {tag} > /made\nENV MADE={tag}\nONBUILD RUN cp /made /trigger\n"
    ));
    let output = format!("type=oci,dest=layout,tar=false,name=made:{tag}");
    world.kiln(&["build", "-o", &output, "ctx"]).ok();
}

fn layout_as_base(world: &World) {
    layout(world, "v1");
    world.forget();
    world.dockerfile(
        r#"
        FROM base AS first
        RUN test "$MADE" = v1
        FROM scratch
        COPY --from=base /made /
        COPY --from=first /trigger /
        "#,
    );
    let arguments = [
        "build",
        "--build-context",
        "base=oci-layout://layout",
        "ctx",
    ];
    let local = ["-o", "type=local,dest=out"];
    let first = world.kiln(&arguments).args(&local).ok();
    world.snapshot_of("first", &first.table());
    assert_eq!(world.read("out/made"), "v1\n");
    assert_eq!(world.read("out/trigger"), "v1\n");
    let second = world.kiln(&arguments).ok();
    world.snapshot_of("second", &second.table());
}

fn layout_by_tag(world: &World) {
    layout(world, "v1");
    layout(world, "v2");
    world.forget();
    world.dockerfile("FROM alpine:3\nRUN cat /made\n");
    let build = |context: &str| {
        let context = format!("alpine:3=oci-layout://{context}");
        world.kiln(&["build", "-t", "app", "--build-context", &context, "ctx"])
    };
    for tag in ["v1", "v2"] {
        build(&format!("layout:{tag}")).ok();
        assert_eq!(world.sh("app", "cat /made"), format!("{tag}\n"));
    }
    world.snapshot_of("none", &build("layout").run().whole());
    world.snapshot_of("wrong", &build("layout:v3").run().whole());
}

fn layout_in_a_plan(world: &World) {
    layout(world, "v1");
    world.forget();
    world.write(
        "plan",
        "%0 = oci-layout made:v1 linux/amd64\n\
         %1 = exec %0 [\"/bin/sh\", \"-c\", \"cat /made > /seen\"] cwd=/\n\
         result %1 { cmd=[\"cat\", \"/seen\"] }\n",
    );
    let build = |more: &[&str]| {
        world
            .kiln(&["build", "--plan", "plan", "-t", "app"])
            .args(more)
            .run()
    };
    let ran = build(&["--build-context", "made=oci-layout://layout"]);
    world.snapshot(&ran.table());
    assert_eq!(world.kiln(&["run", "app"]).ok().stdout, "v1\n");
    world.snapshot_of("not_given", &build(&[]).whole());
}

fn layout_by_skopeo(world: &World) {
    layout(world, "v1");
    let from = format!("oci:{}:v1", world.path("layout").display());
    let to = format!("oci:{}:again", world.path("copied").display());
    world
        .program(
            "skopeo",
            &["--insecure-policy", "copy", "--quiet", &from, &to],
        )
        .ok();
    world.forget();
    world.dockerfile("FROM base\nRUN cat /made > /seen\n");
    world
        .kiln(&[
            "build",
            "-t",
            "app",
            "--build-context",
            "base=oci-layout://copied:again",
            "ctx",
        ])
        .ok();
    assert_eq!(world.sh("app", "cat /seen"), "v1\n");
}

fn layout_altered(world: &World) {
    layout(world, "v1");
    world.forget();
    let blobs = world.path("layout/blobs/sha256");
    let entries = std::fs::read_dir(blobs).unwrap();
    let largest = entries
        .map(|entry| entry.unwrap())
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    world.dockerfile("FROM base\nRUN cat /made\n");
    let ran = world
        .kiln(&[
            "build",
            "--build-context",
            "base=oci-layout://layout",
            "ctx",
        ])
        .exits(1);
    world.snapshot(&ran.whole());
}

fn layout_missing(world: &World) {
    world.dockerfile("FROM base\nRUN cat /made\n");
    std::fs::create_dir(world.path("empty")).unwrap();
    for (part, place) in [("gone", "gone"), ("empty", "empty")] {
        let context = format!("base=oci-layout://{place}");
        let ran = world
            .kiln(&["build", "--build-context", &context, "ctx"])
            .run();
        world.snapshot_of(part, &ran.whole());
    }
}
