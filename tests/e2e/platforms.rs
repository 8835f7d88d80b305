//! Builds for other platforms and for several: indexes, cross-compiling stages, emulated steps.

mod programs;

use crate::support::Capability::{self, Containers, Emulator, OrdinaryUser, Setpriv, Skopeo};
use crate::support::{Case, Ran, World, case, find_program, paths_in};

use programs::Program;

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("cross_compiling", NEEDS, cross_compiling),
        case("shared", NEEDS, shared),
        case("one_foreign", NEEDS, one_foreign),
        case("index_of_one", NEEDS, index_of_one),
        case("names_of_an_index", NEEDS, names_of_an_index),
        case("pruned_as_one", NEEDS, pruned_as_one),
        case("an_index_as_base", NEEDS, an_index_as_base),
        case("base_of_another", NEEDS, base_of_another),
        case("layout", &[Containers, Skopeo], layout),
        case("directories", NEEDS, directories),
        case("one_in_an_archive", NEEDS, one_in_an_archive),
        case("foreign_step_refused", NEEDS, foreign_step_refused),
        case("foreign_program_refused", NEEDS, foreign_program_refused),
        case("plan_of_two", &[], plan_of_two),
        case("wrong_platforms", &[], wrong_platforms),
        case("emulated", &[Containers, Emulator], emulated),
        case(
            "cached_without_emulator",
            &[Containers, Emulator],
            cached_without_emulator,
        ),
        case(
            "registered_emulator",
            &[Containers, Emulator],
            registered_emulator,
        ),
        case(
            "emulated_for_a_user",
            &[Containers, Emulator, OrdinaryUser, Setpriv],
            emulated_for_a_user,
        ),
    ]
}

/// A platform of these tests that is not the host's.
fn foreign() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "linux/amd64",
        _ => "linux/arm64",
    }
}

fn host() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    }
}

const BOTH: &str = "linux/amd64,linux/arm64";

/// A Dockerfile whose only steps run on the host, whatever they are for.
fn cross(world: &World) {
    world.base();
    world.dockerfile(
        r#"
        FROM --platform=$BUILDPLATFORM demo/base AS build
        RUN echo common > /common
        ARG TARGETARCH
        RUN cat /common > /app && echo "for $TARGETARCH" >> /app
        FROM scratch
        COPY --from=build /app /app
        CMD ["/app"]
        "#,
    );
}

fn build_both(world: &World) -> Ran {
    world
        .kiln(&["build", "--platform", BOTH, "-t", "app:v1", "ctx"])
        .ok()
}

/// The table with the host's platform masked, so that every host has the same.
fn neutral(text: &str) -> String {
    let [host, foreign] = [host(), foreign()].map(|platform| platform.replace("linux/", ""));
    // Both names have five letters.
    text.replace(&host, "_host").replace(&foreign, "other")
}

fn cross_compiling(world: &World) {
    cross(world);
    let first = build_both(world);
    world.snapshot_of("first", &neutral(&first.table()));
    let again = build_both(world);
    world.snapshot_of("again", &neutral(&again.table()));
    assert_eq!(first.id(), again.id());
    let shown = world.inspect("app:v1");
    assert_eq!(shown["id"], first.id());
    let platforms = shown["platforms"].as_array().unwrap();
    let named: Vec<_> = platforms.iter().map(|one| &one["platform"]).collect();
    assert_eq!(named, ["linux/amd64", "linux/arm64"]);
    for one in platforms {
        let config = &one["config"];
        assert_eq!(
            format!("linux/{}", config["architecture"].as_str().unwrap()),
            one["platform"]
        );
        assert_eq!(config["os"], "linux");
    }
    let listed = shown["index"]["manifests"].as_array().unwrap();
    assert_eq!(listed[1]["platform"]["architecture"], "arm64");
    // The order in which platforms are given is nobody's business.
    let turned = world
        .kiln(&[
            "build",
            "--platform",
            "linux/arm64",
            "--platform",
            "linux/amd64",
            "ctx",
        ])
        .ok();
    assert_eq!(turned.id(), first.id());
}

fn shared(world: &World) {
    world.write("ctx/a", "a\n");
    world.dockerfile("FROM scratch\nCOPY a /a\n");
    let ran = build_both(world);
    assert!(ran.table().contains("\n1 step: 1 ran"), "{}", ran.table());
    let shown = world.inspect("app:v1");
    let platforms = shown["platforms"].as_array().unwrap();
    assert_eq!(platforms[0]["layers"], platforms[1]["layers"]);
    assert_ne!(platforms[0]["id"], platforms[1]["id"]);
    world
        .kiln(&["build", "--platform", BOTH, "-o", "type=cacheonly", "ctx"])
        .ok();
}

fn one_foreign(world: &World) {
    cross(world);
    let ran = world
        .kiln(&["build", "--platform", foreign(), "-t", "app", "ctx"])
        .ok();
    world.snapshot(&neutral(&ran.table()));
    let shown = world.inspect("app");
    assert_eq!(shown["platform"], foreign());
    assert_eq!(shown["id"], ran.id());
    let images = world.kiln(&["images"]).ok().stdout;
    assert!(images.contains(foreign()), "{images}");
}

fn index_of_one(world: &World) {
    cross(world);
    let ran = world
        .kiln(&[
            "build",
            "-t",
            "app",
            "--build-arg",
            "BUILDKIT_MULTI_PLATFORM=1",
            "ctx",
        ])
        .ok();
    let shown = world.inspect("app");
    assert_eq!(shown["id"], ran.id());
    let platforms = shown["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 1);
    assert_eq!(platforms[0]["platform"], host());
    // It is told where the file says.
    world.write("metadata.json", "");
    world
        .kiln(&[
            "build",
            "--build-arg",
            "BUILDKIT_MULTI_PLATFORM=true",
            "--metadata-file",
            "metadata.json",
            "--iidfile",
            "id",
            "ctx",
        ])
        .ok();
    let metadata: serde_json::Value = serde_json::from_str(&world.read("metadata.json")).unwrap();
    assert_eq!(metadata["containerimage.digest"], ran.id());
    assert_eq!(
        metadata["containerimage.descriptor"]["mediaType"],
        "application/vnd.oci.image.index.v1+json"
    );
    assert!(metadata.get("containerimage.config.digest").is_none());
    assert_eq!(world.read("id"), ran.id());
}

fn names_of_an_index(world: &World) {
    cross(world);
    let built = build_both(world);
    world.kiln(&["tag", "app:v1", "app:v2"]).ok();
    let images = world.kiln(&["images"]).ok().stdout;
    let rows: Vec<&str> = images
        .lines()
        .filter(|line| line.contains("app:"))
        .collect();
    assert_eq!(rows.len(), 2, "{images}");
    assert!(rows[0].contains("linux/amd64, linux/arm64"), "{images}");
    // A part of it is found by id, and goes only with the whole.
    let part = world.inspect("app:v1")["platforms"][1]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(world.inspect(&part)["platform"], "linux/arm64");
    let refused = world.kiln(&["rmi", &part]).exits(1);
    assert!(refused.stderr.contains("is part of"), "{}", refused.stderr);
    let untagged = world.kiln(&["rmi", "app:v1"]).ok();
    assert_eq!(untagged.stdout, "untagged app:v1\n");
    let removed = world.kiln(&["rmi", built.id()]).ok();
    assert_eq!(
        removed.stdout,
        format!("untagged app:v2\nremoved {}\n", built.id())
    );
    world.kiln(&["inspect", &part]).exits(1);
    let history = world.kiln(&["history", "app:v1"]).run();
    assert!(!history.status.success());
}

fn pruned_as_one(world: &World) {
    cross(world);
    build_both(world);
    let run = |arguments: &[&str]| world.kiln(arguments).ok().stdout;
    run(&["prune"]);
    let history = run(&["history", "--platform", foreign(), "app:v1"]);
    assert!(history.contains("COPY /app /app"), "{history}");
    assert_eq!(
        world.inspect("app:v1")["platforms"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    // Built again under the same name, the old one is left without any.
    world.write("ctx/more", "more");
    let more = format!("{}COPY more /more\n", world.read("ctx/Dockerfile"));
    world.write("ctx/Dockerfile", more);
    build_both(world);
    let images = run(&["images"]);
    assert_eq!(images.matches("<none>").count(), 1, "{images}");
    run(&["prune"]);
    let images = run(&["images"]);
    assert_eq!(images.matches("<none>").count(), 0, "{images}");
    assert_eq!(
        world.inspect("app:v1")["platforms"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

fn an_index_as_base(world: &World) {
    cross(world);
    build_both(world);
    world.dockerfile("FROM app:v1\nCOPY Dockerfile /of\n");
    let arguments = ["build", "--offline", "--platform", BOTH, "-o", "out", "ctx"];
    world.kiln(&arguments).ok();
    for architecture in ["amd64", "arm64"] {
        let app = world.read(&format!("out/linux_{architecture}/app"));
        assert_eq!(app, format!("common\nfor {architecture}\n"));
        world.read(&format!("out/linux_{architecture}/of"));
    }
    let missing = ["build", "--offline", "--platform", "linux/s390x", "ctx"];
    let refused = world.kiln(&missing).exits(1);
    world.snapshot(&refused.whole());
}

fn base_of_another(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nCOPY Dockerfile /\n");
    let ran = world
        .kiln(&["build", "--offline", "--platform", "linux/s390x", "ctx"])
        .exits(1);
    world.snapshot(&ran.whole().replace(host(), "linux/_host"));
}

fn layout(world: &World) {
    cross(world);
    let output = "type=oci,dest=layout,tar=false";
    let built = world
        .kiln(&[
            "build",
            "--platform",
            BOTH,
            "-t",
            "app:v1",
            "-o",
            output,
            "ctx",
        ])
        .ok();
    let raw = world
        .program("skopeo", &["inspect", "--raw", "oci:layout:v1"])
        .ok();
    let index: serde_json::Value = serde_json::from_str(&raw.stdout).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    for architecture in ["amd64", "arm64"] {
        let shown = world
            .program(
                "skopeo",
                &[
                    "--override-arch",
                    architecture,
                    "inspect",
                    "--config",
                    "oci:layout:v1",
                ],
            )
            .ok();
        let config: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
        assert_eq!(config["architecture"], architecture);
    }
    // skopeo checks every digest on the way.
    let copy = [
        "--insecure-policy",
        "copy",
        "--all",
        "oci:layout:v1",
        "dir:copied",
    ];
    world.program("skopeo", &copy).ok();
    let archive = "type=oci,dest=app.tar";
    let again = world
        .kiln(&[
            "build",
            "--platform",
            BOTH,
            "-t",
            "app:v1",
            "-o",
            archive,
            "ctx",
        ])
        .ok();
    assert_eq!(again.id(), built.id());
    let copy = [
        "--insecure-policy",
        "copy",
        "--all",
        "oci-archive:app.tar",
        "dir:again",
    ];
    world.program("skopeo", &copy).ok();
    // And kiln reads what it wrote.
    world.dockerfile("FROM lay\n");
    let context = format!("lay=oci-layout://{}:v1", world.path("layout").display());
    let arguments = [
        "--build-context",
        &context,
        "--platform",
        foreign(),
        "-o",
        "out",
        "ctx",
    ];
    world.kiln(&["build"]).args(&arguments).ok();
    let architecture = foreign().replace("linux/", "");
    assert_eq!(
        world.read("out/app"),
        format!("common\nfor {architecture}\n")
    );
}

fn directories(world: &World) {
    cross(world);
    let build = |output: &str| world.kiln(&["build", "--platform", BOTH, "-o", output, "ctx"]);
    build("out").ok();
    assert_eq!(world.read("out/linux_arm64/app"), "common\nfor arm64\n");
    let tar = build("-").ok().stdout_bytes;
    assert_eq!(
        paths_in(&tar[..]),
        [
            "linux_amd64/",
            "linux_amd64/app",
            "linux_arm64/",
            "linux_arm64/app"
        ]
    );
    let clash = build("type=local,dest=flat,platform-split=false").exits(1);
    assert!(
        clash
            .stderr
            .contains("`/app` of linux/arm64 would be written over that of linux/amd64"),
        "{}",
        clash.stderr
    );
    assert!(!world.path("flat").exists());
    let one = ["build", "--platform", foreign(), "-o"];
    world.kiln(&one).args(&["one", "ctx"]).ok();
    assert!(world.path("one/app").exists());
}

fn one_in_an_archive(world: &World) {
    world.base();
    world.dockerfile("FROM --platform=$BUILDPLATFORM demo/base\nRUN touch /must-not-run\n");
    let ran = world
        .kiln(&[
            "build",
            "--platform",
            BOTH,
            "-o",
            "type=docker,dest=app.tar",
            "ctx",
        ])
        .exits(2);
    world.snapshot(&ran.whole());
}

fn foreign_step_refused(world: &World) {
    world.base();
    world.write("ctx/a", "a\n");
    world.dockerfile(
        r#"
        FROM --platform=$BUILDPLATFORM demo/base AS slow
        RUN sleep 60
        FROM scratch
        COPY --from=slow /etc /etc
        COPY a /a
        RUN ["/a"]
        "#,
    );
    // No program emulates this processor, so that every host refuses it.
    let ran = world
        .kiln(&["build", "--platform", "linux/sparc64", "-t", "app", "ctx"])
        .exits(3);
    world.snapshot(&ran.whole().replace(host(), "linux/_host"));
    assert!(ran.took.as_secs() < 30, "{:?}", ran.took);
}

fn foreign_program_refused(world: &World) {
    cross(world);
    world
        .kiln(&["build", "--platform", "linux/sparc64", "-t", "app", "ctx"])
        .ok();
    let ran = world.kiln(&["run", "app"]).exits(125);
    world.snapshot(&ran.whole().replace(host(), "linux/_host"));
    build_both(world);
    let other = world
        .kiln(&["run", "--platform", "linux/s390x", "app:v1"])
        .exits(125);
    assert!(
        other
            .stderr
            .contains("is for linux/amd64, linux/arm64, and linux/s390x is needed"),
        "{}",
        other.stderr
    );
    // On this host it is the image of this host; its program is no program, but it is tried.
    world.kiln(&["run", "app:v1"]).exits(126);
}

fn plan_of_two(world: &World) {
    world.write("ctx/a", "a\n");
    world.dockerfile("FROM alpine\nCOPY a /a\nFROM scratch\nCOPY --from=0 /a /a\n");
    let ran = world
        .kiln(&["plan", "--platform", "linux/riscv64,linux/arm", "ctx"])
        .ok();
    world.snapshot(&ran.stdout);
}

fn wrong_platforms(world: &World) {
    world.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let mut told = String::new();
    for platform in ["vax", "linux/amd64,", "linux/amd64/v1/x", "windows/amd64"] {
        let ran = world
            .kiln(&["plan", "--platform", platform, "ctx"])
            .exits(2);
        told.push_str(&ran.whole());
    }
    world.snapshot(&told);
}

/// A Dockerfile whose steps are programs of another processor, which start each other.
fn emulated_files(world: &World) {
    world.write_mode("ctx/exec", Program::exec().bytes(), 0o755);
    world.write_mode(
        "ctx/make",
        Program::make("/made", "by arm64\n").bytes(),
        0o755,
    );
    world.dockerfile(
        r#"
        FROM scratch
        COPY exec make /bin/
        RUN ["/bin/exec", "/bin/exec", "/bin/make"]
        CMD ["/bin/exec", "/bin/make"]
        "#,
    );
}

fn emulated(world: &World) {
    emulated_files(world);
    let before = registered(world);
    let build = || {
        world
            .kiln(&["build", "--platform", "linux/arm64", "-t", "app", "ctx"])
            .ok()
    };
    let first = build();
    assert!(first.stderr.contains("| by arm64"), "{}", first.stderr);
    world.snapshot(&build().table());
    world
        .kiln(&["build", "--platform", "linux/arm64", "-o", "out", "ctx"])
        .ok();
    assert_eq!(world.read("out/made"), "by arm64\n");
    assert_eq!(world.kiln(&["run", "app"]).ok().stdout, "by arm64\n");
    let info = world.kiln(&["info"]).ok().stdout;
    assert!(info.contains("linux/arm64"), "{info}");
    // Nothing of it is left to the host.
    assert_eq!(registered(world), before);
}

/// How a host registers an emulator of arm64 for good: flag `F` opens it once, for all roots.
const REGISTRATION: &str = r":kiln-test:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:QEMU:F";

fn registered_emulator(world: &World) {
    emulated_files(world);
    let before = registered(world);
    let qemu = find_program("qemu-aarch64-static").unwrap();
    let line = REGISTRATION.replace("QEMU", qemu.to_str().unwrap());
    // In a user namespace that has its own list; kiln itself finds no emulator.
    let script = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc &&
        printf %s \"$0\" > /proc/sys/fs/binfmt_misc/register && exec env PATH=/nowhere \"$@\"";
    let kiln = |arguments: &[&str]| {
        let own = [
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            &line,
        ];
        let kiln = [env!("CARGO_BIN_EXE_kiln")];
        world
            .program("unshare", &[&own[..], &kiln, arguments].concat())
            .ok()
    };
    let info = kiln(&["info"]).stdout;
    let mut lines = info.lines();
    let platforms = lines.find(|line| line.starts_with("platforms"));
    assert!(
        platforms.is_some_and(|line| line.contains("linux/arm64")),
        "{info}"
    );
    let ran = kiln(&["build", "--platform", "linux/arm64", "-o", "out", "ctx"]);
    assert!(ran.stderr.contains("| by arm64"), "{}", ran.stderr);
    assert_eq!(world.read("out/made"), "by arm64\n");
    assert_eq!(registered(world), before);
}

fn cached_without_emulator(world: &World) {
    emulated_files(world);
    let arguments = ["build", "--platform", "linux/arm64", "-t", "app", "ctx"];
    let built = world.kiln(&arguments).ok();
    // Emulators are looked for in `PATH`.
    let without = |arguments: &[&str]| world.kiln(arguments).env("PATH", "/nowhere");
    let again = without(&arguments).ok();
    assert_eq!(again.id(), built.id());
    let info = without(&["info"]).ok().stdout;
    let mut lines = info.lines();
    if lines.any(|line| line.starts_with("platforms") && line.contains("linux/arm64")) {
        return; // The kernel runs them itself.
    }
    // Only what the step sees has changed, so that its result might have been there.
    world.write_mode("ctx/make", Program::make("/made", "again\n").bytes(), 0o755);
    let changed = without(&arguments).exits(3);
    world.snapshot(&changed.whole());
    let forced = without(&[&arguments[..], &["--no-cache"]].concat()).exits(3);
    assert!(!forced.stderr.contains("COPY"), "{}", forced.stderr);
}

/// What the host's kernel has been told to run.
fn registered(world: &World) -> String {
    let list = "ls /proc/sys/fs/binfmt_misc; cat /proc/mounts | grep binfmt; exit 0";
    world.program("sh", &["-c", list]).ok().stdout
}

fn emulated_for_a_user(world: &World) {
    emulated_files(world);
    world.chmod(".", 0o777);
    let store = world.path("of-user");
    std::fs::create_dir(&store).unwrap();
    std::os::unix::fs::chown(&store, Some(65534), Some(65534)).unwrap();
    for above in [
        store.parent().unwrap(),
        store.parent().unwrap().parent().unwrap(),
    ] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let build = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        env!("CARGO_BIN_EXE_kiln"),
        "build",
        "--platform",
        "linux/arm64",
        "ctx",
    ];
    let ran = world
        .program("setpriv", &build)
        .env("KILN_ROOT", store.join("store"))
        .ok();
    assert!(ran.stderr.contains("| by arm64"), "{}", ran.stderr);
}
