//! `kiln plan --would-run`: what a build would do, compared with what it then does.

use std::collections::BTreeSet;

use kiln_test_registry::Registry;

use crate::registries::server::{add_image, base_layer, config_with, hide_port};
use crate::remotes::server::{Page, Server};
use crate::support::Capability::Containers;
use crate::support::{Capability, Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("nothing_after_a_build", NEEDS, nothing_after_a_build),
        case("json", NEEDS, json),
        case("never_built", NEEDS, never_built),
        case("each_change", NEEDS, each_change),
        case("same_bytes_in_between", NEEDS, same_bytes),
        case("changes_nothing", NEEDS, changes_nothing),
        case("fetched_things", NEEDS, fetched_things),
        case("with_a_lock", NEEDS, with_a_lock),
        case("real_failures", NEEDS, real_failures),
    ]
}

const DOCKERFILE: &str = r#"
    FROM demo/base AS count
    ARG NAME=big
    RUN --mount=type=bind,source=big,target=/big wc -l < /big > /count
    RUN sort /count > /sorted

    FROM demo/base
    ENV A=b
    COPY --chmod=755 *.sh /bin/
    RUN cat /bin/run.sh > /seen
    COPY --from=count /sorted /
"#;

fn prepare(world: &World) {
    world.base();
    world.write("ctx/big", "1\n2\n");
    world.write("ctx/run.sh", "#!/bin/sh\n");
    world.dockerfile(DOCKERFILE);
}

fn nothing_after_a_build(world: &World) {
    prepare(world);
    world.build();
    let seen = world.kiln(&["plan", "--would-run", "ctx"]).ok();
    world.snapshot(&seen.whole());
    // It is a plan still.
    let saved = seen.stdout;
    let built = world.kiln(&["build", "--plan", "-", "ctx"]).stdin(saved);
    assert!(built.ok().stderr.contains("6 cached"));
}

fn json(world: &World) {
    prepare(world);
    world.build();
    world.write("ctx/big", "1\n2\n3\n");
    let seen = world.kiln(&["plan", "--would-run", "--format", "json", "ctx"]);
    let mut document: serde_json::Value = serde_json::from_str(&seen.exits(1).stdout).unwrap();
    let plan = document["plan"].take();
    world.snapshot(&serde_json::to_string_pretty(&document).unwrap());
    let saved = plan.to_string();
    world
        .kiln(&["build", "--plan", "-", "ctx"])
        .stdin(saved)
        .ok();
    let dot = world.kiln(&["plan", "--would-run", "--format", "dot", "ctx"]);
    assert!(dot.exits(2).stderr.contains("text and json only"));
}

fn never_built(world: &World) {
    prepare(world);
    let seen = world
        .kiln(&["plan", "--would-run", "--names", "ctx"])
        .exits(1);
    world.snapshot(&seen.whole());
}

/// The names of ops by what would become of them.
fn foreseen(world: &World, flags: &[&str], fates: &[&str]) -> BTreeSet<String> {
    let seen = world
        .kiln(&["plan", "--would-run", "--format", "json", "ctx"])
        .args(flags)
        .run();
    assert!(
        matches!(seen.status.code(), Some(0 | 1)),
        "{}",
        seen.whole()
    );
    let document: serde_json::Value = serde_json::from_str(&seen.stdout).unwrap();
    let ops = document["ops"].as_array().unwrap().iter();
    let would_run = document["would_run"].as_bool().unwrap();
    assert_eq!(seen.status.code(), Some(i32::from(would_run)));
    let ops = ops.filter(|op| fates.contains(&op["fate"].as_str().unwrap()));
    ops.filter_map(|op| op["name"].as_str().map(str::to_owned))
        .collect()
}

/// What is foreseen happens: all that would run, and nothing but that and what may.
fn agrees(world: &World, flags: &[&str]) -> BTreeSet<String> {
    let sure = foreseen(world, flags, &["to run", "to fetch"]);
    let possible = foreseen(world, flags, &["to run", "to fetch", "may run"]);
    let built = world
        .kiln(&["build", "--progress", "plain", "ctx"])
        .args(flags)
        .ok();
    let ran = |name: &String| {
        let mut lines = built.stderr.lines();
        lines.any(|line| line.contains(name.as_str()) && line.contains("  ran "))
    };
    let all = foreseen(
        world,
        &[],
        &["local", "cached", "to fetch", "to run", "may run"],
    );
    let ran: BTreeSet<String> = all.into_iter().filter(ran).collect();
    assert!(sure.is_subset(&ran), "{sure:?} {ran:?}\n{}", built.stderr);
    assert!(
        ran.is_subset(&possible),
        "{possible:?} {ran:?}\n{}",
        built.stderr
    );
    // And then there is nothing to do.
    if !flags.iter().any(|flag| flag.starts_with("--no-cache")) {
        world.kiln(&["plan", "--would-run", "ctx"]).args(flags).ok();
    }
    sure
}

fn each_change(world: &World) {
    prepare(world);
    agrees(world, &[]);
    let check = |what: &str, flags: &[&str], expected: usize| {
        let sure = agrees(world, flags);
        assert_eq!(sure.len(), expected, "{what}: {sure:?}");
    };
    check("nothing", &[], 0);
    world.write("ctx/big", "1\n2\n3\n");
    check("a mounted file", &[], 1);
    world.write("ctx/run.sh", "#!/bin/sh\n:\n");
    check("a copied file", &[], 1);
    world.write("ctx/other.sh", "");
    check("another file", &[], 1);
    world.write("ctx/unused", "");
    check("a file that nobody reads", &[], 0);
    check("an argument", &["--build-arg", "NAME=other"], 1);
    check("a stage", &["--no-cache-filter", "count"], 2);
    check("everything", &["--no-cache"], 5);
    world.kiln(&["rmi", "demo/base"]).run();
    world.base();
    check("the base again", &[], 0);
    world.kiln(&["prune"]).ok();
    check("everything was pruned", &[], 5);
}

fn same_bytes(world: &World) {
    prepare(world);
    world.build();
    // Other bytes, the same number of lines.
    world.write("ctx/big", "3\n4\n");
    let seen = world.kiln(&["plan", "--would-run", "ctx"]).exits(1);
    world.snapshot(&seen.whole());
    let built = world.build();
    assert!(built.stderr.contains("1 ran"), "{}", built.stderr);
}

fn changes_nothing(world: &World) {
    prepare(world);
    world.build();
    world.write("ctx/big", "1\n2\n3\n");
    world.write("ctx/new.sh", "x");
    let state = || {
        let part = |arguments: &[&str]| world.kiln(arguments).ok().stdout;
        let du = part(&["du"]);
        let counts = du.lines().map(|line| &line[..line.len().min(20)]);
        let counts: String = counts.collect();
        let files = world.program(
            "sh",
            &[
                "-c",
                "cd \"$KILN_ROOT\" && find blobs layers mounts -type f | sort",
            ],
        );
        [
            part(&["images", "--json"]),
            part(&["builds"]),
            counts,
            part(&["why"]),
            files.run().stdout,
        ]
    };
    let before = state();
    let first = world.kiln(&["plan", "--would-run", "ctx"]).exits(1);
    let again = world.kiln(&["plan", "--would-run", "ctx"]).exits(1);
    assert_eq!(first.stdout, again.stdout);
    let after = state();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
}

fn fetched_things(world: &World) {
    let (registry, server) = (Registry::start(), Server::start());
    add_image(&registry, "base", &[&base_layer()]);
    server.put("/f", Page::new("one").etag("\"1\""));
    let text = format!(
        "FROM {}/base\nADD {}/f /f\nRUN cat /f > /g\n",
        registry.host(),
        server.url("")
    );
    world.write("ctx/Dockerfile", text);
    let masked = |text: &str| hide_port(&hide_port(text, &registry.host()), &server.host());
    let seen = world.kiln(&["plan", "--would-run", "ctx"]).exits(1);
    world.snapshot_of("first", &masked(&seen.whole()));
    let blobs = registry.log();
    let blobs = blobs
        .iter()
        .filter(|request| request.path.contains("/blobs/"));
    // The config, and no layer.
    assert_eq!(blobs.count(), 1);
    let images = world.kiln(&["images", "--json"]).ok();
    assert_eq!(images.stdout, "");
    world.build();
    world.kiln(&["plan", "--would-run", "ctx"]).ok();
    server.put("/f", Page::new("two").etag("\"2\""));
    let seen = world.kiln(&["plan", "--would-run", "ctx"]).exits(1);
    world.snapshot_of("changed", &masked(&seen.whole()));
    // Nobody is asked, so that what was seen last counts.
    let log = server.log().len();
    world
        .kiln(&["plan", "--would-run", "--offline", "ctx"])
        .ok();
    assert_eq!(server.log().len(), 0, "{log}");
    let layer = base_layer();
    let config = config_with("amd64", &[&layer], &["A=b"]);
    registry.add_image("base", "latest", config.as_bytes(), &[&layer.bytes]);
    server.put("/f", Page::new("one").etag("\"1\""));
    let seen = world
        .kiln(&["plan", "--would-run", "--pull", "ctx"])
        .exits(1);
    world.snapshot_of("other_base", &masked(&seen.whole()));
}

fn with_a_lock(world: &World) {
    let registry = Registry::start();
    add_image(&registry, "base", &[&base_layer()]);
    world.write(
        "ctx/Dockerfile",
        format!("FROM {}/base\nRUN true\n", registry.host()),
    );
    world.kiln(&["lock", "ctx"]).ok();
    world.kiln(&["build", "--locked", "ctx"]).ok();
    let layer = base_layer();
    let config = config_with("amd64", &[&layer], &["A=b"]);
    registry.add_image("base", "latest", config.as_bytes(), &[&layer.bytes]);
    world.kiln(&["plan", "--would-run", "--locked", "ctx"]).ok();
    world.kiln(&["plan", "--would-run", "--pull", "ctx"]).ok();
    world.kiln(&["lock", "--update-all", "ctx"]).ok();
    world.kiln(&["plan", "--would-run", "ctx"]).exits(1);
}

fn real_failures(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nCOPY nothing /\n");
    let build = world.kiln(&["build", "ctx"]).exits(1);
    let seen = world.kiln(&["plan", "--would-run", "ctx"]).exits(1);
    let error = |text: &str| text[text.find("error:").unwrap()..].to_owned();
    assert_eq!(error(&seen.stderr), error(&build.stderr));
    world.dockerfile("FROM demo/absent\n");
    world
        .kiln(&["plan", "--would-run", "--offline", "ctx"])
        .exits(1);
}
