//! Why a step ran again: each cause, by really changing that thing.

use crate::support::Capability::{self, Containers, Python};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    const SQL: &[Capability] = &[Containers, Python];
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
        case("file_renamed", NEEDS, file_renamed),
        case("owner", NEEDS, owner),
        case("mount_option", NEEDS, mount_option),
        case("mount_added", NEEDS, mount_added),
        case("secret_id", NEEDS, secret_id),
        case("ulimit", NEEDS, ulimit),
        case("platform", NEEDS, platform),
        case("long_command", NEEDS, long_command),
        case("heredoc", NEEDS, heredoc),
        case("long_argument", NEEDS, long_argument),
        case("evicted_by_age", NEEDS, evicted_by_age),
        case("evicted_by_size", NEEDS, evicted_by_size),
        case("evicted_and_changed", NEEDS, evicted_and_changed),
        case("never_seen", NEEDS, never_seen),
        case("layer_lost", SQL, layer_lost),
        case("power_lost", SQL, power_lost),
        case("older_kiln", SQL, older_kiln),
        case("back_and_on", NEEDS, back_and_on),
        case("back_and_on_forgotten", SQL, back_and_on_forgotten),
        case("failed_in_between", NEEDS, failed_in_between),
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

fn file_renamed(world: &World) {
    check(world, LINEAR, |world| {
        std::fs::rename(world.path("ctx/src/b"), world.path("ctx/src/c")).unwrap();
    });
}

fn owner(world: &World) {
    let dockerfile = "
        FROM demo/base
        ARG OWNER=0
        COPY --chown=$OWNER src /src
    ";
    check_with(world, dockerfile, |_| {}, &["--build-arg", "OWNER=1000:50"]);
}

fn mount_option(world: &World) {
    let dockerfile = "
        FROM demo/base
        ARG FROM=src/a
        RUN --mount=type=bind,source=$FROM,target=/from cat /from
    ";
    check_with(world, dockerfile, |_| {}, &["--build-arg", "FROM=src/b"]);
}

fn mount_added(world: &World) {
    let with = |mount: &str| format!("FROM demo/base\nRUN {mount} echo hello > /out\n");
    check(world, &with(""), |world| {
        world.dockerfile(&with("--mount=type=tmpfs,target=/scratch"));
    });
}

fn secret_id(world: &World) {
    let with = |id: &str| {
        format!("FROM demo/base\nRUN --mount=type=secret,id={id} test ! -e /run/secrets/{id}\n")
    };
    check(world, &with("one"), |world| world.dockerfile(&with("two")));
}

fn ulimit(world: &World) {
    check_with(world, ORDER, |_| {}, &["--ulimit", "nofile=512:1024"]);
}

fn platform(world: &World) {
    let dockerfile = "FROM scratch\nCOPY src/a /a\nRUN [\"/a\"]\n";
    world.base();
    // A program that is itself a base: no shell, so that it runs on whatever is asked for.
    world.dockerfile(&dockerfile.replace("FROM scratch", "FROM demo/base"));
    world.write_mode("ctx/src/a", "#!/bin/sh\ntrue\n", 0o755);
    world.build();
    let variant = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64/v2",
        _ => "linux/arm64/v8.1",
    };
    let ran = world
        .kiln(&["build", "-t", "app", "--platform", variant, "ctx"])
        .ok();
    let architecture = variant.rsplit_once('/').unwrap().0;
    let table = ran.table().replace(variant, "linux/[variant]");
    world.snapshot(&table.replace(architecture, "linux/[architecture]"));
}

fn install(version: u32) -> String {
    format!(
        "FROM demo/base\nRUN echo one two three four five six seven eight version={version} nine ten eleven > /out\n"
    )
}

fn long_command(world: &World) {
    check(world, &install(1), |world| world.dockerfile(&install(2)));
}

fn heredoc(world: &World) {
    let with = |word: &str| {
        format!("FROM demo/base\nRUN <<END\necho one > /one\necho {word} > /two\nEND\n")
    };
    check(world, &with("two"), |world| world.dockerfile(&with("deux")));
}

fn long_argument(world: &World) {
    let dockerfile = "FROM demo/base\nARG FLAGS\nRUN echo $FLAGS > /flags\n";
    let flags = |level: &str| format!("FLAGS=-Wall -Wextra -pipe -fPIC {level} -g -fno-common");
    world.base();
    world.dockerfile(dockerfile);
    let build = |level: &str| {
        let argument = flags(level);
        let arguments = [
            "build",
            "-t",
            "app",
            "--build-arg",
            argument.as_str(),
            "ctx",
        ];
        world.kiln(&arguments).ok()
    };
    build("-O2");
    world.snapshot(&build("-O3").table());
}

fn evicted_by_age(world: &World) {
    check(world, LINEAR, |world| {
        world.kiln(&["rmi", "app"]).ok();
        world.kiln(&["prune", "--keep-duration", "0s"]).ok();
    });
}

fn evicted_by_size(world: &World) {
    check(world, LINEAR, |world| {
        world.kiln(&["rmi", "app"]).ok();
        world.kiln(&["prune", "--keep-storage", "1kB"]).ok();
    });
}

fn evicted_and_changed(world: &World) {
    check(world, LINEAR, |world| {
        world.kiln(&["rmi", "app"]).ok();
        world.kiln(&["prune"]).ok();
        world.write("ctx/src/a", "changed\n");
    });
}

fn never_seen(world: &World) {
    world.base();
    world.write("ctx/src/a", "first\n");
    world.dockerfile(LINEAR);
    world.snapshot(&world.build().table());
}

/// Runs Python with the database of the store as `db`.
fn with_database(world: &World, program: &str) {
    let database = world.store().join("db.sqlite");
    let program = format!(
        "import sqlite3, json\ndb = sqlite3.connect({:?}, timeout=60)\n{program}\ndb.commit()\n",
        database.to_string_lossy()
    );
    world.program("python3", &["-c", &program]).ok();
}

fn layer_lost(world: &World) {
    check(world, LINEAR, |world| {
        // What is found of the last step is gone; what is below it is still there.
        let program = "
last = db.execute('SELECT outputs FROM record ORDER BY id DESC LIMIT 1').fetchone()[0]
db.execute('DELETE FROM layer WHERE content = ?', (last[-33:],))
";
        with_database(world, program);
    });
}

/// The rows look as they do after a restart that came before the disk had anything.
fn power_lost(world: &World) {
    check(world, LINEAR, |world| {
        let program = "
db.execute(\"UPDATE record SET boot = 'before'\")
db.execute(\"UPDATE layer SET boot = 'before' WHERE id > 1\")
db.execute(\"UPDATE meta SET value = 'before' WHERE name = 'boot'\")
";
        with_database(world, program);
    });
}

/// A store that was filled by a kiln which did RUN steps otherwise.
fn older_kiln(world: &World) {
    check(world, LINEAR, |world| {
        let program = "
for id, parts in db.execute('SELECT id, parts FROM record').fetchall():
    parts = json.loads(parts)
    for part in parts['facts']['parts']:
        if part.get('kind', {}).get('kind') == 'exec':
            part['kind']['revision'] -= 1
            db.execute('DELETE FROM record_key WHERE record = ?', (id,))
    db.execute('UPDATE record SET parts = ? WHERE id = ?', (json.dumps(parts).encode(), id))
";
        with_database(world, program);
    });
}

/// Two copies in a row, and what is made of them, so that a build that changes nothing looks up neither.
const TWO_COPIES: &str = "
    FROM demo/base
    COPY a /a
    COPY b /b
    RUN cat /a/one /b/one > /out
";

/// Writes what both copies take, and builds.
fn state(world: &World, a: &str, b: &str) -> String {
    world.write("ctx/a/one", a);
    world.write("ctx/b/one", b);
    world.build().table()
}

/// The last build is what a step is compared with, not the last that ran it.
fn back_and_on(world: &World) {
    world.base();
    world.dockerfile(TWO_COPIES);
    world.write("ctx/b/two", "same\n");
    state(world, "1\n", "1\n");
    world.write("ctx/b/two", "other\n");
    state(world, "2 2\n", "1\n");
    world.write("ctx/b/two", "same\n");
    let back = state(world, "1\n", "1\n");
    assert!(back.contains("4 cached"), "{back}");
    world.snapshot(&state(world, "1\n", "3 3\n"));
}

/// Where no build is remembered, it is the record that has most in common.
fn back_and_on_forgotten(world: &World) {
    world.base();
    world.dockerfile(TWO_COPIES);
    state(world, "1\n", "1\n");
    state(world, "2 2\n", "1\n");
    let program = "
db.execute('DELETE FROM build')
db.execute('DELETE FROM build_detail')
";
    with_database(world, program);
    world.snapshot(&state(world, "1\n", "3 3\n"));
}

/// What a build ran that failed is later than the last build that did not.
fn failed_in_between(world: &World) {
    world.base();
    world.dockerfile(&format!("{TWO_COPIES}    RUN test ! -e /a/bad\n"));
    state(world, "1\n", "1\n");
    world.write("ctx/a/bad", "");
    world.write("ctx/b/one", "2\n");
    world.kiln(&["build", "-t", "app", "ctx"]).exits(1);
    world.write("ctx/b/one", "3 3\n");
    let failed = world.kiln(&["build", "-t", "app", "ctx"]).exits(1);
    world.snapshot(&failed.table());
}
