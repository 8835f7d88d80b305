//! Several kiln processes on one store.

use crate::support::Capability::{self, Containers};
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("equal_steps_run_once", NEEDS, equal_steps_run_once),
        case(
            "different_builds_beside_prunes",
            NEEDS,
            different_builds_beside_prunes,
        ),
    ]
}

fn equal_steps_run_once(world: &World) {
    world.base();
    world.dockerfile(
        "
        FROM demo/base
        RUN --mount=type=cache,target=/c echo once >> /c/log; sleep 1; echo made > /made
        ",
    );
    let builds: Vec<_> = (0..2)
        .map(|_| world.kiln(&["build", "--progress", "plain", "ctx"]).spawn())
        .collect();
    let pids: Vec<_> = builds.iter().map(|build| build.pid()).collect();
    let done: Vec<_> = builds.into_iter().map(|build| build.wait()).collect();
    for build in &done {
        assert_eq!(build.status.code(), Some(0), "{}", build.stderr);
        assert_eq!(build.id(), done[0].id());
    }
    let waited = done.iter().enumerate().filter(|(index, build)| {
        let other = pids[1 - index];
        build
            .stderr
            .contains(&format!("kiln with pid {other} runs it; waiting"))
    });
    let words: Vec<_> = done.iter().map(|build| build.stderr.as_str()).collect();
    assert_eq!(waited.count(), 1, "{words:#?}");
    world.write(
        "two/Dockerfile",
        "FROM demo/base\nRUN --mount=type=cache,target=/c cp /c/log /log\n",
    );
    world.kiln(&["build", "-t", "log", "two"]).ok();
    assert_eq!(world.sh("log", "cat /log"), "once\n");
}

fn different_builds_beside_prunes(world: &World) {
    world.base();
    for name in ["one", "two", "three"] {
        let text = format!(
            "FROM demo/base AS a\nCOPY f /f\nRUN sleep 0.1; cat /f > /a\n\
             FROM demo/base AS b\nRUN sleep 0.05; echo {name} > /b\n\
             FROM demo/base\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN cat /a /b > /sum\n"
        );
        world.write(&format!("{name}/Dockerfile"), text);
    }
    for round in 0..3 {
        let builds = ["one", "two", "three"].map(|name| {
            world.write(&format!("{name}/f"), format!("{name} {round}\n"));
            (name, world.kiln(&["build", "-t", name, name]).spawn())
        });
        for arguments in [&["prune"][..], &["prune", "--all"], &["du"], &["images"]] {
            world.kiln(arguments).ok();
        }
        for (name, build) in builds {
            let done = build.wait();
            assert_eq!(done.status.code(), Some(0), "{}", done.stderr);
            assert_eq!(
                world.sh(name, "cat /sum"),
                format!("{name} {round}\n{name}\n")
            );
        }
    }
}
