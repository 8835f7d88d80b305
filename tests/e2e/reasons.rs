//! Why a step ran again: each cause, by really changing that thing.

use crate::support::Capability::Containers;
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[crate::support::Capability] = &[Containers];
    vec![
        case("rebuild_screen", NEEDS, rebuild_screen),
        case("file_content", NEEDS, file_content),
        case("file_mode", NEEDS, file_mode),
        case("file_added", NEEDS, file_added),
        case("file_removed", NEEDS, file_removed),
        case("file_became_link", NEEDS, file_became_link),
        case("many_files", NEEDS, many_files),
        case("ignorefile", NEEDS, ignorefile),
        case("build_argument", NEEDS, build_argument),
        case("env", NEEDS, env),
        case("workdir", NEEDS, workdir),
        case("user", NEEDS, user),
        case("base_digest", NEEDS, base_digest),
        case("base_name", NEEDS, base_name),
        case("instruction_text", NEEDS, instruction_text),
        case("copy_flags", NEEDS, copy_flags),
        case("instruction_order", NEEDS, instruction_order),
        case("instruction_added", NEEDS, instruction_added),
        case("instruction_removed", NEEDS, instruction_removed),
        case("no_cache", NEEDS, no_cache),
        case("no_cache_filter", NEEDS, no_cache_filter),
        case("evicted", NEEDS, evicted),
        case("network", NEEDS, network),
        case("line_moved", NEEDS, line_moved),
        case("comment", NEEDS, comment),
        case(
            "dockerfile_in_a_bind_mount",
            NEEDS,
            dockerfile_in_a_bind_mount,
        ),
        case("stage_renamed", NEEDS, stage_renamed),
        case("touched_only", NEEDS, touched_only),
        case("config_only", NEEDS, config_only),
    ]
}

const TWO_STAGES: &str = "
    FROM demo/base AS base

    FROM base AS count
    RUN --mount=type=bind,target=/src wc -l < /src/big > /count
    RUN sort /count > /sorted

    FROM base AS app
    COPY --from=count /sorted /
    CMD [\"cat\", \"/sorted\"]
";

fn lines(count: usize) -> String {
    (1..=count).map(|n| format!("line {n}\n")).collect()
}

fn rebuild_screen(world: &World) {
    world.base();
    world.dockerfile(TWO_STAGES);
    world.write("ctx/big", lines(500));
    world.snapshot_of("first", &world.build().table());
    let before = world.build();
    world.snapshot_of("unchanged", &before.table());
    world.write("ctx/big", lines(500) + "end");
    let after = world.build();
    // The screen itself, whole: what a user sees after one edit.
    world.snapshot_of("edited", &after.whole());
    assert_eq!(before.id(), after.id());
}

const LINEAR: &str = "
    FROM demo/base
    COPY src /src
    RUN cat /src/a > /out
    RUN echo done > /done
";

/// Builds twice, with `change` in between, and compares the second table with the snapshot.
fn check(world: &World, dockerfile: &str, change: impl FnOnce(&World)) {
    check_with(world, dockerfile, change, &[]);
}

fn check_with(world: &World, dockerfile: &str, change: impl FnOnce(&World), arguments: &[&str]) {
    world.base();
    world.write("ctx/src/a", "first\n");
    world.write("ctx/src/b", "second\n");
    world.dockerfile(dockerfile);
    world.build();
    change(world);
    let ran = world
        .kiln(&["build", "-t", "app"])
        .args(arguments)
        .args(&["ctx"])
        .ok();
    assert!(!ran.stderr.contains("cache miss"), "{}", ran.stderr);
    world.snapshot(&ran.table());
}

fn file_content(world: &World) {
    check(world, LINEAR, |world| world.write("ctx/src/a", "changed\n"));
}

fn file_mode(world: &World) {
    check(world, LINEAR, |world| world.chmod("ctx/src/a", 0o755));
}

fn file_added(world: &World) {
    check(world, LINEAR, |world| world.write("ctx/src/c", "new\n"));
}

fn file_removed(world: &World) {
    check(world, LINEAR, |world| world.remove("ctx/src/b"));
}

fn file_became_link(world: &World) {
    check(world, LINEAR, |world| {
        world.remove("ctx/src/b");
        std::os::unix::fs::symlink("a", world.path("ctx/src/b")).unwrap();
    });
}

fn many_files(world: &World) {
    check(world, LINEAR, |world| {
        for n in 0..12 {
            world.write(&format!("ctx/src/more/{n}"), "new\n");
        }
    });
}

fn ignorefile(world: &World) {
    check(world, LINEAR, |world| {
        world.write("ctx/.dockerignore", "src/b\n")
    });
}

const ARGUMENT: &str = "
    FROM demo/base
    RUN echo before > /before
    ARG GREETING=hello
    RUN echo $GREETING > /greeting
";

fn build_argument(world: &World) {
    check_with(
        world,
        ARGUMENT,
        |_| {},
        &["--build-arg", "GREETING=good day"],
    );
}

fn env(world: &World) {
    let with = |name: &str| format!("FROM demo/base\nENV NAME={name}\nRUN echo hello > /out\n");
    check(world, &with("world"), |world| {
        world.dockerfile(&with("moon"))
    });
}

fn workdir(world: &World) {
    let with = |path: &str| format!("FROM demo/base\nWORKDIR {path}\nRUN pwd > /out\n");
    check(world, &with("/tmp"), |world| {
        world.dockerfile(&with("/var"))
    });
}

fn user(world: &World) {
    let with = |user: &str| format!("FROM demo/base\nUSER {user}\nRUN id\n");
    check(world, &with("0"), |world| world.dockerfile(&with("nobody")));
}

fn base_digest(world: &World) {
    check(world, LINEAR, |world| {
        world.write(
            "other/Dockerfile",
            "FROM demo/base\nRUN echo another > /another\n",
        );
        world
            .kiln(&["build", "-q", "-t", "demo/base", "other"])
            .ok();
    });
}

fn base_name(world: &World) {
    check(world, LINEAR, |world| {
        world.kiln(&["tag", "demo/base", "demo/other"]).ok();
        world.dockerfile(&LINEAR.replace("demo/base", "demo/other"));
    });
}

fn instruction_text(world: &World) {
    check(world, LINEAR, |world| {
        world.dockerfile(&LINEAR.replace("cat /src/a", "cat /src/b"));
    });
}

fn copy_flags(world: &World) {
    check(world, LINEAR, |world| {
        world.dockerfile(&LINEAR.replace("COPY src", "COPY --chmod=0700 src"));
    });
}

const ORDER: &str = "
    FROM demo/base
    RUN echo one > /one
    RUN echo two > /two
";

fn instruction_order(world: &World) {
    check(world, ORDER, |world| {
        world.dockerfile("FROM demo/base\nRUN echo two > /two\nRUN echo one > /one\n");
    });
}

fn instruction_added(world: &World) {
    check(world, ORDER, |world| {
        world.dockerfile(
            "FROM demo/base\nRUN echo one > /one\nRUN echo half > /half\nRUN echo two > /two\n",
        );
    });
}

fn instruction_removed(world: &World) {
    check(world, ORDER, |world| {
        world.dockerfile("FROM demo/base\nRUN echo two > /two\n");
    });
}

fn no_cache(world: &World) {
    check_with(world, LINEAR, |_| {}, &["--no-cache"]);
}

fn no_cache_filter(world: &World) {
    world.write("ctx/big", lines(5));
    check_with(world, TWO_STAGES, |_| {}, &["--no-cache-filter", "count"]);
}

fn evicted(world: &World) {
    check(world, LINEAR, |world| {
        world.kiln(&["rmi", "app"]).ok();
        world.kiln(&["prune"]).ok();
    });
}

fn network(world: &World) {
    check_with(world, ORDER, |_| {}, &["--network", "none"]);
}

fn line_moved(world: &World) {
    check(world, LINEAR, |world| {
        world.dockerfile(
            &LINEAR
                .replace("COPY", "\n\n\n    COPY")
                .replace("RUN cat", "RUN   cat"),
        );
    });
}

fn comment(world: &World) {
    check(world, LINEAR, |world| {
        world.dockerfile(&LINEAR.replace("    RUN cat", "    # why\n    RUN cat"));
    });
}

fn stage_renamed(world: &World) {
    world.write("ctx/big", lines(5));
    // The whole context would have the Dockerfile in it, which does change.
    let stages = TWO_STAGES.replace("type=bind,", "type=bind,source=big,");
    let stages = stages.replace("/src/big", "/src");
    check(world, &stages, |world| {
        let renamed = stages
            .replace("AS count", "AS tally")
            .replace("--from=count", "--from=tally");
        world.dockerfile(&renamed);
    });
}

fn dockerfile_in_a_bind_mount(world: &World) {
    world.write("ctx/big", lines(5));
    check(world, TWO_STAGES, |world| {
        world.dockerfile(
            &TWO_STAGES
                .replace("AS count", "AS tally")
                .replace("=count", "=tally"),
        );
    });
}

fn touched_only(world: &World) {
    check(world, LINEAR, |world| {
        let file = std::fs::File::options()
            .append(true)
            .open(world.path("ctx/src/a"))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    });
}

fn config_only(world: &World) {
    check(world, LINEAR, |world| {
        world.dockerfile(&format!("{LINEAR}    LABEL a=b\n    CMD [\"true\"]\n"));
    });
}
