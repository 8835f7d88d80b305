//! The small commands: records, space, completion, help, and the flags that touch files.

use crate::support::Capability::{self, Bash, Containers};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("help", &[], help),
        case("help_of_each_command", &[], help_of_each_command),
        case("unknown_flag", &[], unknown_flag),
        case("refused_flags", &[], refused_flags),
        case("bad_values", &[], bad_values),
        case(
            "standard_output_is_the_id",
            NEEDS,
            standard_output_is_the_id,
        ),
        case("iidfile_and_metadata", NEEDS, iidfile_and_metadata),
        case("files_are_checked_first", NEEDS, files_are_checked_first),
        case("files_behind_links", NEEDS, files_behind_links),
        case(
            "files_that_others_write_to",
            NEEDS,
            files_that_others_write_to,
        ),
        case("why", NEEDS, why),
        case("why_before_any_build", &[], why_before_any_build),
        case("builds", NEEDS, builds),
        case("du_adds_up", NEEDS, du_adds_up),
        case("prune", NEEDS, prune),
        case(
            "prune_spares_what_is_named",
            NEEDS,
            prune_spares_what_is_named,
        ),
        case("info", NEEDS, info),
        case("completion", &[Bash], completion),
        case("quiet_progress", NEEDS, quiet_progress),
        case("removed_before_it_settled", &[], removed_before_it_settled),
    ]
}

const COMMANDS: &[&str] = &[
    "build",
    "plan",
    "lock",
    "why",
    "reproduce",
    "diff",
    "run",
    "images",
    "tag",
    "rmi",
    "import",
    "inspect",
    "history",
    "save",
    "load",
    "manifest",
    "login",
    "logout",
    "builds",
    "du",
    "pull",
    "push",
    "sbom",
    "prune",
    "mounts",
    "info",
    "completion",
];

fn help(world: &World) {
    world.snapshot(&world.kiln(&["--help"]).ok().whole());
}

fn help_of_each_command(world: &World) {
    for &command in COMMANDS {
        world.snapshot_of(command, &world.kiln(&[command, "--help"]).ok().whole());
    }
}

fn unknown_flag(world: &World) {
    world.snapshot(&world.kiln(&["build", "--no-cash", "."]).exits(2).whole());
}

fn refused_flags(world: &World) {
    let mut text = String::new();
    for flags in [
        &["--builder", "other"][..],
        &["--cache-to", "type=gha"],
        &["--sbom=generator=docker/scanner"],
        &["-o", "type=nonsense"],
    ] {
        text += &world
            .kiln(&["build"])
            .args(flags)
            .args(&["."])
            .exits(2)
            .whole();
    }
    world.snapshot(&text);
}

fn bad_values(world: &World) {
    world.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let mut text = String::new();
    for flags in [
        &["--ulimit", "nofile"][..],
        &["--add-host", "nowhere"],
        &["--network", "wireless"],
        &["--platform", "plan9/vax/x/y"],
        &["--shm-size", "large"],
        &["-t", "Upper"],
        &["-o", "type=oci"],
        &["--build-context", "=x"],
        &["--target", "missing"],
        &["--jobs", "many"],
        &["--secret", "src=a"],
        &["--secret", "id=a,src=missing"],
        &["--secret", "id=a,kind=b"],
        &["--ssh", "default"],
        &["--ssh", "default=missing"],
        &["--allow", "everything"],
    ] {
        text += &world
            .kiln(&["build"])
            .args(flags)
            .args(&["ctx"])
            .exits(2)
            .whole();
    }
    world.snapshot(&text);
}

fn small(world: &World) {
    world.base();
    world.write("ctx/a", "a\n");
    world.dockerfile("FROM demo/base\nCOPY a /a\nRUN cat /a > /b\n");
}

fn standard_output_is_the_id(world: &World) {
    small(world);
    let quiet = world.kiln(&["build", "-q", "ctx"]).ok();
    assert_eq!(quiet.stderr, "");
    let id = quiet.stdout.strip_suffix('\n').unwrap();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let loud = world.kiln(&["build", "ctx"]).ok();
    assert_eq!(loud.stdout, quiet.stdout);
    // An id and the beginning of one are as good as a name.
    assert_eq!(world.sh(id, "cat /b"), "a\n");
    assert_eq!(world.sh(&id["sha256:".len()..][..12], "cat /b"), "a\n");
}

fn iidfile_and_metadata(world: &World) {
    small(world);
    let files = ["--iidfile", "id", "--metadata-file", "meta.json"];
    let ran = world
        .kiln(&["build", "-t", "one", "-t", "two:v2"])
        .args(&files)
        .args(&["ctx"])
        .ok();
    assert_eq!(world.read("id"), ran.id());
    let metadata: serde_json::Value = serde_json::from_str(&world.read("meta.json")).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], ran.id());
    let mut metadata = metadata;
    // What differs from run to run, and from host to host.
    metadata["kiln.build.id"] = "[id]".into();
    metadata["containerimage.descriptor"]["platform"]["architecture"] = "[this]".into();
    world.snapshot(&format!("{metadata:#}\n"));
}

/// What cannot be written is told before anything runs.
fn files_are_checked_first(world: &World) {
    small(world);
    for flag in ["--iidfile", "--metadata-file"] {
        for path in ["missing/file", "ctx"] {
            let ran = world.kiln(&["build", "-t", "app", flag, path, "ctx"]);
            let text = ran.exits(1).whole();
            assert!(text.contains(&format!("`{path}`")), "{text}");
            assert!(!text.contains("FROM"), "{text}");
        }
    }
    world.kiln(&["run", "app"]).exits(125);
    // An output may make the directory, and a pipe may have no reader yet.
    let inside = ["-o", "out", "--metadata-file", "out/meta.json", "ctx"];
    world.kiln(&["build"]).args(&inside).ok();
    assert!(world.path("out/meta.json").exists());
}

/// A link is where to write, also if there is nothing yet.
fn files_behind_links(world: &World) {
    small(world);
    world.build();
    for (link, file) in [("id", "id.txt"), ("tar", "app.tar"), ("sbom", "sbom.json")] {
        std::os::unix::fs::symlink(file, world.path(link)).unwrap();
    }
    world.kiln(&["build", "--iidfile", "id", "ctx"]).ok();
    assert!(world.read("id.txt").starts_with("sha256:"));
    let (oci, tar) = ("type=oci,dest=tar", "type=tar,dest=tar");
    world.kiln(&["build", "-o", oci, "ctx"]).ok();
    let archive = std::fs::metadata(world.path("app.tar")).unwrap().len();
    world.kiln(&["build", "-o", tar, "ctx"]).ok();
    assert_ne!(
        std::fs::metadata(world.path("app.tar")).unwrap().len(),
        archive
    );
    world.kiln(&["save", "-o", "tar", "app"]).ok();
    world.kiln(&["load", "-i", "app.tar"]).ok();
    world.kiln(&["sbom", "-o", "sbom", "app"]).ok();
    for link in ["id", "tar", "sbom"] {
        assert!(world.path(link).is_symlink(), "{link}");
    }
}

/// Standard output has one end, whatever it is called.
fn files_that_others_write_to(world: &World) {
    small(world);
    world.build();
    let kiln = env!("CARGO_BIN_EXE_kiln");
    for save in [
        "save -o /dev/stdout app",
        "build -q -o type=tar,dest=/dev/fd/1 ctx",
    ] {
        let script = format!("{{ echo before; {kiln} {save}; echo after; }} > all");
        world.program("sh", &["-c", &script]).ok();
        let all = std::fs::read(world.path("all")).unwrap();
        assert!(
            all.starts_with(b"before\n") && all.ends_with(b"after\n"),
            "{save}"
        );
        assert!(all.len() > 10_000, "{save}");
    }
}

fn why(world: &World) {
    small(world);
    world.build();
    world.write("ctx/a", "changed\n");
    world.build();
    let all = world.kiln(&["why"]).ok().whole();
    world.snapshot_of("all", &without_build_id(&all));
    let one = world.kiln(&["why", "COPY"]).ok().whole();
    world.snapshot_of("one_step", &without_build_id(&one));
    world.snapshot_of(
        "no_such_step",
        &world.kiln(&["why", "nonsense"]).exits(2).whole(),
    );
}

fn without_build_id(text: &str) -> String {
    let words: Vec<&str> = text.splitn(3, "build ").collect();
    match words[..] {
        [before, rest] => format!("{before}build [id]{}", &rest[rest.find(' ').unwrap()..]),
        _ => panic!("no build in {text}"),
    }
}

fn why_before_any_build(world: &World) {
    world.snapshot(&world.kiln(&["why"]).run().whole());
}

fn builds(world: &World) {
    small(world);
    world.build();
    world.build();
    world.dockerfile("FROM demo/base\nRUN exit 1\n");
    world.kiln(&["build", "ctx"]).exits(1);
    let listed = world.kiln(&["builds", "ls"]).ok().stdout;
    let masked: Vec<String> = listed
        .lines()
        .enumerate()
        .map(|(row, line)| match (row, line.split_once(' ')) {
            (1.., Some((id, rest))) => format!("{} {rest}", "_".repeat(id.len())),
            _ => line.to_owned(),
        })
        .collect();
    world.snapshot(&masked.join("\n"));
}

/// What the store's files take up, as `du` counts: each file once.
fn real_bytes(world: &World) -> u64 {
    let ran = world
        .program("du", &["-s", "-B1", &world.store().to_string_lossy()])
        .ok();
    let (bytes, _) = ran.stdout.split_once('\t').unwrap();
    bytes.parse().unwrap()
}

fn told_bytes(world: &World) -> f64 {
    let du = world.kiln(&["du"]).ok().stdout;
    let total = du
        .lines()
        .rev()
        .find(|line| line.starts_with("total"))
        .unwrap();
    let words: Vec<&str> = total.split_whitespace().collect();
    let factor = match words[words.len() - 1] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        unit => panic!("{unit}"),
    };
    words[words.len() - 2].parse::<f64>().unwrap() * factor
}

fn du_adds_up(world: &World) {
    small(world);
    world.write("ctx/a", vec![b'x'; 3_000_000]);
    world.build();
    let (told, real) = (told_bytes(world), real_bytes(world) as f64);
    assert!(
        (told - real).abs() / real < 0.05,
        "told {told}, there are {real}"
    );
    world.kiln(&["rmi", "app"]).ok();
    world.kiln(&["prune", "--all"]).ok();
    let (told, real) = (told_bytes(world), real_bytes(world) as f64);
    assert!(
        (told - real).abs() / real < 0.05,
        "told {told}, there are {real}"
    );
    assert!(real < 4e6, "{real} after a prune: the base alone has 2 MB");
}

fn prune(world: &World) {
    small(world);
    world.build();
    world.kiln(&["rmi", "app"]).ok();
    let ran = world.kiln(&["prune"]).ok();
    // How much the disk has back depends on its blocks.
    let whole = ran.whole();
    let freed = whole.lines().map(|line| match line.strip_prefix("freed ") {
        Some(_) => "freed [size]",
        None => line,
    });
    world.snapshot(&freed.collect::<Vec<_>>().join("\n"));
    world.snapshot_of("again", &world.kiln(&["prune"]).ok().whole());
    world.snapshot_of("rebuilt", &world.build().table());
}

fn prune_spares_what_is_named(world: &World) {
    small(world);
    let id = world.build().id().to_owned();
    world.kiln(&["build", "-q", "--target", "0", "ctx"]).run();
    world.kiln(&["prune", "--all"]).ok();
    assert_eq!(world.sh("app", "cat /b"), "a\n");
    assert_eq!(world.build().id(), id);
}

fn info(world: &World) {
    let shown = world.kiln(&["info"]).ok().stdout;
    // What is found differs from host to host; what is looked at does not.
    let names: Vec<&str> = shown
        .lines()
        .map(|line| line.split("  ").next().unwrap_or_default())
        .collect();
    world.snapshot(&names.join("\n"));
}

fn completion(world: &World) {
    let script = world.kiln(&["completion", "bash"]).ok().stdout;
    world.write("kiln.bash", &script);
    let ask = "source ./kiln.bash; COMP_WORDS=(kiln build --no-c); COMP_CWORD=2; \
               _kiln kiln --no-c build; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let answer = world.program("bash", &["-c", ask]).ok().stdout;
    assert_eq!(answer, "--no-cache\n--no-cache-filter\n");
    for shell in ["zsh", "fish"] {
        assert!(
            world
                .kiln(&["completion", shell])
                .ok()
                .stdout
                .contains("kiln")
        );
    }
}

fn quiet_progress(world: &World) {
    small(world);
    let ran = world.kiln(&["build", "--progress", "quiet", "ctx"]).ok();
    assert_eq!(ran.stderr, "");
}

/// What settles a store in the background makes none where it was removed meanwhile.
fn removed_before_it_settled(world: &World) {
    let gone = world.path("gone");
    world.kiln(&["settle"]).env("KILN_ROOT", &gone).ok();
    assert!(!gone.exists());
}
