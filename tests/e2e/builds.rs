//! Parallel stages, early cutoff, and what a build leaves cached.

use std::time::Duration;

use crate::support::Capability::{self, Containers};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("stages_run_in_parallel", NEEDS, stages_run_in_parallel),
        case(
            "one_job_runs_one_step_at_a_time",
            NEEDS,
            one_job_runs_one_step_at_a_time,
        ),
        case("unused_stages_do_not_run", NEEDS, unused_stages_do_not_run),
        case("target_stage", NEEDS, target_stage),
        case("equal_steps_run_once", NEEDS, equal_steps_run_once),
        case(
            "copied_file_does_not_cut_off",
            NEEDS,
            copied_file_does_not_cut_off,
        ),
        case("bound_file_cuts_off", NEEDS, bound_file_cuts_off),
        case("copies_are_other_files", NEEDS, copies_are_other_files),
        case("copy_from_cuts_off", NEEDS, copy_from_cuts_off),
        case("forced_step_cuts_off", NEEDS, forced_step_cuts_off),
        case(
            "copy_added_at_the_end_keeps_the_rest",
            NEEDS,
            copy_added_at_the_end_keeps_the_rest,
        ),
        case(
            "file_outside_every_copy_changes_nothing",
            NEEDS,
            file_outside_every_copy_changes_nothing,
        ),
        case(
            "shared_steps_between_dockerfiles",
            NEEDS,
            shared_steps_between_dockerfiles,
        ),
        case(
            "unchanged_rebuild_has_the_same_id",
            NEEDS,
            unchanged_rebuild_has_the_same_id,
        ),
        case(
            "epoch_makes_the_digest_a_function_of_content",
            NEEDS,
            epoch_makes_the_digest_a_function_of_content,
        ),
        case("cached_rebuild_is_quick", NEEDS, cached_rebuild_is_quick),
    ]
}

/// Each of two stages is done when the other has begun.
const MEETING: &str = r#"
    FROM demo/base AS one
    RUN --mount=type=cache,id=meet,target=/m touch /m/one; \
        for n in $(seq 3000); do if test -e /m/two; then exec touch /one; fi; sleep 0.01; done; exit 1
    FROM demo/base AS two
    RUN --mount=type=cache,id=meet,target=/m touch /m/two; \
        for n in $(seq 3000); do if test -e /m/one; then exec touch /two; fi; sleep 0.01; done; exit 1
    FROM scratch
    COPY --from=one /one /
    COPY --from=two /two /
"#;

const SLEEPERS: &str = r#"
    FROM demo/base AS one
    RUN sleep 1; echo 1 > /one
    FROM demo/base AS two
    RUN sleep 1; echo 2 > /two
    FROM scratch
    COPY --from=one /one /
    COPY --from=two /two /
"#;

fn stages_run_in_parallel(world: &World) {
    world.base();
    world.dockerfile(MEETING);
    world.build();
}

fn one_job_runs_one_step_at_a_time(world: &World) {
    world.base();
    world.dockerfile(SLEEPERS);
    let ran = world.kiln(&["build", "--jobs", "1", "ctx"]).ok();
    assert!(ran.took >= Duration::from_secs(2), "{:?}", ran.took);
}

fn unused_stages_do_not_run(world: &World) {
    world.base();
    world.dockerfile(
        "
        FROM demo/base AS broken
        RUN exit 9
        FROM demo/base
        RUN echo fine
        ",
    );
    world.snapshot(&world.build().table());
}

fn target_stage(world: &World) {
    world.base();
    world.dockerfile(
        "
        FROM demo/base AS wanted
        RUN echo wanted > /which
        FROM wanted
        RUN exit 9
        ",
    );
    world
        .kiln(&["build", "--target", "wanted", "-t", "app", "ctx"])
        .ok();
    assert_eq!(world.sh("app", "cat /which"), "wanted\n");
}

fn equal_steps_run_once(world: &World) {
    world.base();
    world.dockerfile(
        "
        FROM demo/base AS one
        RUN cat /proc/sys/kernel/random/uuid > /id
        FROM demo/base AS two
        RUN cat /proc/sys/kernel/random/uuid > /id
        FROM scratch
        COPY --from=one /id /one
        COPY --from=two /id /two
        ",
    );
    world
        .kiln(&["build", "-o", "type=local,dest=out", "ctx"])
        .ok();
    assert_eq!(world.read("out/one"), world.read("out/two"));
}

fn statuses(table: &str) -> Vec<&str> {
    table
        .lines()
        .filter_map(|line| {
            ["  cached", "  ran ", "  failed", "  not run"]
                .into_iter()
                .find(|word| line.contains(word))
        })
        .map(str::trim)
        .collect()
}

/// Two counting steps over `file`, reached in the way that `reach` tells.
fn counting(reach: &str) -> String {
    format!(
        "
        FROM demo/base
        {reach}
        RUN sort /count > /sorted
        "
    )
}

/// Builds, adds text without a newline to `ctx/file`, and builds again.
fn edit_without_effect(world: &World, dockerfile: &str) -> String {
    world.base();
    world.dockerfile(dockerfile);
    world.write("ctx/file", "one\ntwo\n");
    world.build();
    world.write("ctx/file", "one\ntwo\nhalf a line");
    world.build().table()
}

fn copied_file_does_not_cut_off(world: &World) {
    let table = edit_without_effect(
        world,
        &counting("COPY file /file\n        RUN wc -l < /file > /count"),
    );
    assert_eq!(statuses(&table), ["cached", "ran", "ran", "ran"], "{table}");
    world.snapshot(&table);
}

fn bound_file_cuts_off(world: &World) {
    let bound = "RUN --mount=type=bind,source=file,target=/file wc -l < /file > /count";
    let table = edit_without_effect(world, &counting(bound));
    assert_eq!(statuses(&table), ["cached", "ran", "cached"], "{table}");
    world.snapshot(&table);
}

/// What lies over each other are files of their own, though the same was copied.
fn copies_are_other_files(world: &World) {
    world.base();
    world.dockerfile(
        r#"
        FROM demo/base AS made
        RUN mkdir /app && echo v1 > /app/conf
        FROM made
        COPY --from=made /app/conf /app/one
        COPY --from=made /app/conf /app/two
        COPY --link --from=made /app/conf /app/three
        RUN cp /app/one /app/conf && cp /app/two /app/one && cp /app/three /app/two
        RUN stat -c %h /app/three > /names
        "#,
    );
    world.build();
    assert_eq!(world.sh("app", "cat /app/conf /names"), "v1\n1\n");
}

fn copy_from_cuts_off(world: &World) {
    let table = edit_without_effect(
        world,
        "
        FROM demo/base AS count
        COPY file /file
        RUN wc -l < /file > /count

        FROM demo/base
        COPY --from=count /count /
        RUN sort /count > /sorted
        ",
    );
    assert_eq!(
        statuses(&table),
        ["cached", "ran", "ran", "cached", "cached"],
        "{table}"
    );
    world.snapshot(&table);
}

fn forced_step_cuts_off(world: &World) {
    world.base();
    world.dockerfile(
        "
        FROM demo/base AS made
        RUN echo same > /made
        FROM demo/base
        COPY --from=made /made /
        RUN cat /made
        ",
    );
    world.build();
    let ran = world
        .kiln(&["build", "--no-cache-filter", "made", "ctx"])
        .ok();
    world.snapshot(&ran.table());
}

fn copy_added_at_the_end_keeps_the_rest(world: &World) {
    const BEFORE: &str = "
        FROM demo/base
        COPY a /a
        RUN cat /a > /b
        COPY dir/*.txt /texts/
        RUN ls /texts > /list
    ";
    world.base();
    world.write("ctx/a", "a\n");
    world.write("ctx/dir/x.txt", "x\n");
    world.write("ctx/late", "late\n");
    world.dockerfile(BEFORE);
    world.build();
    world.dockerfile(&format!("{BEFORE}    COPY late /late\n"));
    let table = world.build().table();
    assert_eq!(
        statuses(&table),
        ["cached", "cached", "cached", "cached", "cached", "ran"],
        "{table}"
    );
}

fn file_outside_every_copy_changes_nothing(world: &World) {
    world.base();
    world.write("ctx/a", "a\n");
    world.write("ctx/README", "one\n");
    world.dockerfile("FROM demo/base\nCOPY a /a\nRUN cat /a > /b\n");
    let before = world.build();
    world.write("ctx/README", "two\n");
    let after = world.build();
    assert_eq!(statuses(&after.table()), ["cached"; 3], "{}", after.stderr);
    assert_eq!(before.id(), after.id());
}

fn shared_steps_between_dockerfiles(world: &World) {
    world.base();
    world.write("ctx/a", "a\n");
    world.dockerfile("FROM demo/base\nCOPY a /a\nRUN cat /a > /b\n");
    world.build();
    world.write("other/a", "a\n");
    world.write(
        "other/Dockerfile",
        "FROM demo/base AS here\nCOPY a /a\nRUN cat /a > /b\nRUN true\n",
    );
    let table = world.kiln(&["build", "other"]).ok().table();
    assert_eq!(
        statuses(&table),
        ["cached", "cached", "cached", "ran"],
        "{table}"
    );
}

fn unchanged_rebuild_has_the_same_id(world: &World) {
    world.base();
    world.write("ctx/a", "a\n");
    world.dockerfile("FROM demo/base\nCOPY a /a\nRUN date > /when\nCMD [\"cat\", \"/when\"]\n");
    let first = world.kiln(&["build", "ctx"]).ok();
    let second = world.kiln(&["build", "ctx"]).ok();
    assert_eq!(first.stdout, second.stdout);
    assert!(
        second.stderr.contains("(same image as before)"),
        "{}",
        second.stderr
    );
}

fn epoch_makes_the_digest_a_function_of_content(world: &World) {
    world.write("ctx/a", "a\n");
    world.write("ctx/dir/b", "b\n");
    world.dockerfile(
        "
        FROM demo/base AS one
        RUN mkdir /made && echo one > /made/one && ln /made/one /made/also
        FROM demo/base
        COPY . /ctx
        COPY --from=one /made /made
        RUN rm /etc/group; touch /etc/passwd; mkdir -p /x/y
        ENV A=b
        ",
    );
    let build = |store: &str, jobs: &str, archive: &str| {
        let root = world.path(store);
        let import = world.kiln(&["import", "-", "demo/base"]);
        import
            .stdin(world.base_archive())
            .env("KILN_ROOT", &root)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .ok();
        let output = format!("type=oci,dest={archive}");
        world
            .kiln(&[
                "build",
                "--jobs",
                jobs,
                "-o",
                "type=image,name=app",
                "-o",
                &output,
                "ctx",
            ])
            .env("KILN_ROOT", &root)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .ok()
            .stdout
    };
    let first = build("store-1", "1", "first.tar");
    let second = build("store-2", "8", "second.tar");
    assert_eq!(first, second);
    let bytes = |name: &str| std::fs::read(world.path(name)).unwrap();
    assert!(
        bytes("first.tar") == bytes("second.tar"),
        "the archives differ"
    );
}

fn cached_rebuild_is_quick(world: &World) {
    world.base();
    let steps: String = (0..20).map(|n| format!("RUN echo {n} > /f{n}\n")).collect();
    for n in 0..200 {
        world.write(&format!("ctx/src/{n}"), format!("{n}\n"));
    }
    world.dockerfile(&format!("FROM demo/base\nCOPY src /src\n{steps}"));
    world.build();
    let quickest = (0..3).map(|_| world.build().took).min().unwrap();
    // A slow machine and an unoptimised build: the figure itself is the benchmark's.
    assert!(quickest < Duration::from_millis(500), "{quickest:?}");
}
