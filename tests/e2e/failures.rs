//! Steps that fail, and how that is told.

use crate::support::Capability::{self, Containers};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("exit_code", NEEDS, exit_code),
        case("many_lines_of_output", NEEDS, many_lines_of_output),
        case("killed_by_a_signal", NEEDS, killed_by_a_signal),
        case("no_such_program", NEEDS, no_such_program),
        case("heredoc", NEEDS, heredoc),
        case("copy_of_nothing", NEEDS, copy_of_nothing),
        case("copy_from_of_nothing", NEEDS, copy_from_of_nothing),
        case("quiet_still_tells_why", NEEDS, quiet_still_tells_why),
        case("other_stages_are_stopped", NEEDS, other_stages_are_stopped),
        case("keep_going", NEEDS, keep_going),
        case(
            "nothing_of_a_failed_step_is_cached",
            NEEDS,
            nothing_of_a_failed_step_is_cached,
        ),
    ]
}

fn check(world: &World, dockerfile: &str) {
    world.base();
    world.write("ctx/a", "a\n");
    world.dockerfile(dockerfile);
    world.snapshot(&world.kiln(&["build", "-t", "app", "ctx"]).exits(1).whole());
    assert_eq!(world.kiln(&["images", "-q", "app"]).run().stdout, "");
}

fn exit_code(world: &World) {
    check(
        world,
        "
        FROM demo/base
        RUN echo fine
        RUN echo 'about to fail'; \\
            echo 'to stderr' >&2; \\
            exit 42
        RUN echo never
        ",
    );
}

fn many_lines_of_output(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN seq 1 1000; exit 3\n");
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    // The plain view clips nothing; the error repeats the end.
    for line in ["| 1\n", "| 500\n", "| 1000\n"] {
        assert!(ran.stderr.contains(line), "{line:?} in {}", ran.stderr);
    }
    let (_, error) = ran
        .whole()
        .rsplit_once("no image\n")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    world.snapshot(&error);
}

fn killed_by_a_signal(world: &World) {
    check(world, "FROM demo/base\nRUN kill -9 $$\n");
}

fn no_such_program(world: &World) {
    check(world, "FROM demo/base\nRUN [\"/no/such/program\", \"x\"]\n");
}

fn heredoc(world: &World) {
    check(
        world,
        "
        FROM demo/base
        RUN <<EOF
        set -e
        echo before
        false
        echo after
        EOF
        ",
    );
}

fn copy_of_nothing(world: &World) {
    check(world, "FROM demo/base\nCOPY missing.txt /\n");
}

fn copy_from_of_nothing(world: &World) {
    check(
        world,
        "FROM demo/base AS x\nRUN true\nFROM demo/base\nCOPY --from=x /nothing /\n",
    );
}

fn quiet_still_tells_why(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN echo output; exit 5\n");
    world.snapshot(&world.kiln(&["build", "-q", "ctx"]).exits(1).whole());
}

const TWO: &str = "
    FROM demo/base AS fails
    RUN exit 1

    FROM demo/base AS slow
    RUN sleep 60; echo slow > /slow
    RUN sort /slow > /sorted

    FROM demo/base
    COPY --from=fails /etc/passwd /a
    COPY --from=slow /sorted /b
";

fn other_stages_are_stopped(world: &World) {
    world.base();
    world.dockerfile(TWO);
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    assert!(ran.took.as_secs() < 30, "{:?}", ran.took);
    world.snapshot(&ran.table());
}

fn keep_going(world: &World) {
    world.base();
    world.dockerfile(&TWO.replace("sleep 60", "sleep 0.2"));
    let ran = world.kiln(&["build", "--keep-going", "ctx"]).exits(1);
    world.snapshot(&ran.table());
    // What was finished is cached.
    let again = world.kiln(&["build", "--target", "slow", "ctx"]).ok();
    world.snapshot_of("again", &again.table());
}

fn nothing_of_a_failed_step_is_cached(world: &World) {
    world.base();
    world.write("ctx/code", "1");
    world.dockerfile("FROM demo/base\nRUN --mount=type=bind,target=/src exit $(cat /src/code)\n");
    world.kiln(&["build", "ctx"]).exits(1);
    world.kiln(&["build", "ctx"]).exits(1);
    world.write("ctx/code", "0");
    world.snapshot(&world.kiln(&["build", "ctx"]).ok().table());
}
