//! The image store: names, ids, history.

use crate::support::Capability::{self, Containers};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("listed", NEEDS, listed),
        case("listed_in_part", NEEDS, listed_in_part),
        case("removed_by_force", NEEDS, removed_by_force),
        case("inspect_several", NEEDS, inspect_several),
        case("tagged_and_removed", NEEDS, tagged_and_removed),
        case("a_name_moves", NEEDS, a_name_moves),
        case("removed_by_id", NEEDS, removed_by_id),
        case("removed_from_an_index", NEEDS, removed_from_an_index),
        case("nothing_of_that_name", NEEDS, nothing_of_that_name),
        case("history", NEEDS, history),
        case("inspect", NEEDS, inspect),
        case("imported", NEEDS, imported),
        case("import_of_nonsense", NEEDS, import_of_nonsense),
    ]
}

fn small(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN echo hello > /hello\nCMD [\"cat\", \"/hello\"]\n");
}

fn names(world: &World) -> Vec<String> {
    let listed = world.kiln(&["images"]).ok().stdout;
    listed
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

fn masked_ids(listed: &str) -> String {
    let mut lines = Vec::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let words = words.into_iter().map(|word| {
            if word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                "____________"
            } else {
                word
            }
        });
        lines.push(words.collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}

fn listed(world: &World) {
    small(world);
    world.snapshot_of(
        "empty_but_the_base",
        &masked_ids(&world.kiln(&["images"]).ok().stdout),
    );
    world.kiln(&["build", "ctx"]).ok();
    world.snapshot_of(
        "untagged",
        &masked_ids(&world.kiln(&["images"]).ok().stdout),
    );
    world
        .kiln(&[
            "build",
            "-t",
            "one:1",
            "-t",
            "two",
            "-t",
            "host.example:5000/a/b:c",
            "ctx",
        ])
        .ok();
    world.snapshot_of("tagged", &masked_ids(&world.kiln(&["images"]).ok().stdout));
    let json = world.kiln(&["images", "--json"]).ok().stdout;
    for line in json.lines() {
        let image: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(
            image["id"].as_str().unwrap().starts_with("sha256:"),
            "{image}"
        );
    }
}

fn listed_in_part(world: &World) {
    small(world);
    world.kiln(&["build", "ctx"]).ok();
    world.dockerfile("FROM demo/base\nLABEL team=blue\n");
    let tags = ["one:1", "one:2", "host.example:5000/a/one:1"];
    let tags: Vec<&str> = tags.iter().flat_map(|tag| ["-t", tag]).collect();
    world.kiln(&[&["build"], &tags[..], &["ctx"]].concat()).ok();
    let listed = |arguments: &[&str]| -> Vec<String> {
        let ran = world.kiln(&[&["images"], arguments].concat()).ok();
        let lines = ran.stdout.lines().skip(1);
        let first = lines.filter_map(|line| line.split_whitespace().next());
        first.map(str::to_owned).collect()
    };
    let check = |arguments: &[&str], expected: &[&str]| {
        assert_eq!(listed(arguments), expected, "{arguments:?}");
    };
    check(&["one"], &["one:1", "one:2"]);
    check(&["docker.io/library/one"], &["one:1", "one:2"]);
    check(&["one:2"], &["one:2"]);
    check(&["other"], &[]);
    check(&["--filter", "dangling=true"], &["<none>"]);
    check(&["-f", "dangling=false", "demo/*"], &["demo/base:latest"]);
    let all = ["one:1", "one:2", "host.example:5000/a/one:1"];
    for label in ["label=team", "label=team=blue"] {
        check(&["-f", label], &all);
    }
    check(&["-f", "label=team=red"], &[]);
    check(
        &["-f", "reference=*:1", "-f", "reference=*/a/*"],
        &[all[0], all[2]],
    );
    check(
        &["-f", "reference=*:1", "-f", "label=team", "host*/*/*"],
        &[],
    );
    let json = world.kiln(&["images", "--format", "json", "one"]).ok();
    let image: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(image["names"], serde_json::json!(["one:1", "one:2"]));
    assert_eq!(image["labels"]["team"], "blue");
    let mut text = String::new();
    for refused in [
        &["images", "--format", "{{.ID}}"][..],
        &["images", "--filter", "before=one"],
        &["images", "[a"],
    ] {
        text += &world.kiln(refused).exits(2).whole();
    }
    world.snapshot(&text);
}

fn removed_by_force(world: &World) {
    small(world);
    world.build();
    let gone = world.kiln(&["rmi", "-f", "nothing", "app"]).ok();
    assert!(
        gone.stderr.contains("no image `nothing` is here"),
        "{}",
        gone.whole()
    );
    assert_eq!(names(world), ["demo/base:latest"]);
    world.kiln(&["rmi", "nothing"]).exits(1);
}

fn inspect_several(world: &World) {
    small(world);
    world.build();
    let ran = world
        .kiln(&["inspect", "app", "nothing", "demo/base"])
        .exits(1);
    assert!(ran.stderr.contains("nothing"), "{}", ran.whole());
    let shown: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let expected = serde_json::json!([world.inspect("app"), world.inspect("demo/base")]);
    assert_eq!(shown, expected);
}

fn tagged_and_removed(world: &World) {
    small(world);
    world.build();
    world.kiln(&["tag", "app", "other:v1"]).ok();
    assert_eq!(names(world).len(), 3);
    assert_eq!(world.kiln(&["run", "other:v1"]).ok().stdout, "hello\n");
    world.kiln(&["rmi", "app"]).ok();
    assert_eq!(world.kiln(&["run", "other:v1"]).ok().stdout, "hello\n");
    world.kiln(&["rmi", "other:v1"]).ok();
    assert_eq!(names(world), ["demo/base:latest"]);
    world.kiln(&["run", "app", "true"]).exits(125);
}

fn a_name_moves(world: &World) {
    small(world);
    let first = world.build().id().to_owned();
    world.dockerfile("FROM demo/base\nCMD [\"echo\", \"second\"]\n");
    world.build();
    assert_eq!(world.kiln(&["run", "app"]).ok().stdout, "second\n");
    // The old image has no name left, and its id still works.
    assert_eq!(world.kiln(&["run", &first]).ok().stdout, "hello\n");
    assert!(names(world).contains(&"<none>".to_owned()));
    world.kiln(&["prune"]).ok();
    assert!(!names(world).contains(&"<none>".to_owned()));
    assert_eq!(world.kiln(&["run", "app"]).ok().stdout, "second\n");
}

fn removed_by_id(world: &World) {
    small(world);
    let id = world.kiln(&["build", "ctx"]).ok().id().to_owned();
    world.kiln(&["rmi", &id["sha256:".len()..][..10]]).ok();
    assert_eq!(names(world), ["demo/base:latest"]);
}

fn removed_from_an_index(world: &World) {
    world.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY . /$TARGETARCH/\n");
    let platforms = "--platform=linux/amd64,linux/arm64";
    world.kiln(&["build", "-t", "both", platforms, "ctx"]).ok();
    let part = world.inspect("both")["platforms"][1]["id"].clone();
    let part = part.as_str().unwrap();
    world.kiln(&["tag", part, "part"]).ok();
    let by_id = world.kiln(&["rmi", part]).exits(1);
    world.snapshot(&by_id.whole().replace(part, "[id]"));
    // Its last name goes, and it stays what it is a part of.
    let by_name = world.kiln(&["rmi", "part"]).ok();
    assert_eq!(by_name.stdout, "untagged part:latest\n");
    assert_eq!(names(world), ["both:latest"]);
    world
        .kiln(&["save", "--platform=linux/arm64", "-o", "x.tar", "both"])
        .ok();
}

fn nothing_of_that_name(world: &World) {
    small(world);
    let mut text = String::new();
    for arguments in [
        &["inspect", "nothing"][..],
        &["history", "nothing"],
        &["rmi", "nothing"],
        &["tag", "nothing", "x"],
        &["tag", "demo/base", "Not A Name"],
        &["tag", "demo/base", &format!("x@sha256:{}", "0".repeat(64))],
        &["tag", "demo/base", "scratch"],
        &["tag", "demo/base", "sha256:abc"],
    ] {
        let ran = world.kiln(arguments).run();
        assert_ne!(ran.status.code(), Some(0), "{arguments:?}");
        text += &ran.whole();
    }
    world.snapshot(&text);
}

fn history(world: &World) {
    small(world);
    world
        .kiln(&["build", "-t", "app", "ctx"])
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .ok();
    let shown = world.kiln(&["history", "app"]).ok().stdout;
    world.snapshot(&years(&shown));
}

/// Masks how long ago a fixed date is.
fn years(text: &str) -> String {
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split("  ").filter(|word| !word.is_empty()).collect();
            let words = words.into_iter().map(|word| {
                if word.trim().ends_with(" ago") || word.trim() == "just now" {
                    "[age]"
                } else {
                    word.trim()
                }
            });
            words.collect::<Vec<_>>().join(" | ") + "\n"
        })
        .collect()
}

fn inspect(world: &World) {
    small(world);
    world
        .kiln(&["build", "-t", "app", "ctx"])
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .ok();
    let shown = world.inspect("app");
    let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
    world.snapshot(&format!("{keys:?}"));
    assert_eq!(shown["config"]["config"]["Cmd"][0], "cat");
}

fn imported(world: &World) {
    world.base();
    let first = world.kiln(&["images", "-q"]).ok().stdout;
    // The same archive gives the same image.
    world.base();
    assert_eq!(world.kiln(&["images", "-q"]).ok().stdout, first);
    world.write("base.tar", world.base_archive());
    let ran = world.kiln(&["import", "base.tar", "second:tag"]).ok();
    world.snapshot(&ran.whole());
    assert_eq!(world.sh("second:tag", "echo runs"), "runs\n");
}

fn import_of_nonsense(world: &World) {
    world.write("nonsense", "this is not an archive\n".repeat(100));
    let mut text = world.kiln(&["import", "nonsense", "x"]).exits(1).whole();
    text += &world.kiln(&["import", "missing", "x"]).exits(1).whole();
    let half = &world.base_archive()[..500_000];
    text += &world
        .kiln(&["import", "-", "x"])
        .stdin(half)
        .exits(1)
        .whole();
    world.snapshot(&text);
    assert_eq!(world.kiln(&["images", "-q"]).ok().stdout, "");
}
