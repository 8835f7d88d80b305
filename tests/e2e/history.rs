//! Builds that are remembered: why, in full and as JSON, what steps wrote, and what is forgotten.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::Capability::{self, Containers};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("why_step", NEEDS, why_step),
        case("why_cached", NEEDS, why_cached),
        case("why_another_build", NEEDS, why_another_build),
        case("why_failed", NEEDS, why_failed),
        case("why_json", NEEDS, why_json),
        case("explain", NEEDS, explain),
        case("explain_cached", NEEDS, explain_cached),
        case("list", NEEDS, list),
        case("show", NEEDS, show),
        case("show_json", NEEDS, show_json),
        case("ambiguous_id", NEEDS, ambiguous_id),
        case("logs", NEEDS, logs),
        case("flood", NEEDS, flood),
        case("interrupted", NEEDS, interrupted),
        case("forgotten", NEEDS, forgotten),
        case("arguments", NEEDS, arguments),
    ]
}

const LINEAR: &str = "
    FROM demo/base
    COPY src /src
    RUN cat /src/a > /out; echo from the step
    RUN echo done > /done
";

/// A world where `LINEAR` was built, and built again after four files changed.
fn rebuilt(world: &World) {
    first(world);
    world.write("ctx/src/a", "changed\n");
    world.write("ctx/src/c", "new\n");
    world.chmod("ctx/src/run", 0o755);
    world.remove("ctx/src/gone");
    world.build();
}

fn first(world: &World) {
    world.base();
    world.write("ctx/src/a", "first\n");
    world.write("ctx/src/gone", "second\n");
    world.write("ctx/src/run", "third\n");
    world.dockerfile(LINEAR);
    world.build();
}

/// Standard output with the digits of keys and digests masked.
fn masked(text: &str) -> String {
    let is_key = |word: &str| word.len() == 12 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let mut shown = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let is_id = word.len() == 13 && word.bytes().any(|b| b.is_ascii_digit());
        shown.push_str(match () {
            () if is_key(&word) => "[12 digits]",
            () if is_id => "[build]",
            () => &word,
        });
        word.clear();
        if c != '\0' {
            shown.push(c);
        }
    }
    shown
}

fn told(world: &World, arguments: &[&str]) -> String {
    masked(&world.kiln(arguments).ok().stdout)
}

fn document(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&world.kiln(arguments).ok().stdout).unwrap()
}

fn why_step(world: &World) {
    rebuilt(world);
    world.snapshot_of("stage", &told(world, &["why", "COPY"]));
    world.snapshot_of("text", &told(world, &["why", "cat"]));
    let by_number = told(world, &["why", "3"]);
    assert_eq!(by_number, told(world, &["why", "cat"]));
}

fn why_cached(world: &World) {
    first(world);
    let made_by = document(world, &["builds", "show", "--format", "json"])["id"].clone();
    world.build();
    let why = world.kiln(&["why"]).ok().stdout;
    let expected = format!(
        "every part of its key is as in build {}",
        made_by.as_str().unwrap()
    );
    assert!(why.contains(&expected), "{why}");
    world.snapshot(&masked(&why));
}

fn why_another_build(world: &World) {
    rebuilt(world);
    world.build();
    let before = document(world, &["why", "--build", "latest~1", "--format", "json"]);
    let id = before["id"].as_str().unwrap();
    let why = told(world, &["why", "--build", &id[..8]]);
    assert!(
        why.contains("src/a changed (6 -> 8 bytes), src/c added, src/gone removed and 1 more file"),
        "{why}"
    );
    let none = world.kiln(&["why", "--build", "latest~9"]).exits(2);
    assert!(
        none.stderr.contains("no build with the id `latest~9`"),
        "{}",
        none.stderr
    );
}

fn why_failed(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN echo before; exit 3\nRUN echo after\n");
    world.kiln(&["build", "ctx"]).exits(1);
    world.snapshot(&told(world, &["why"]));
    let shown = document(world, &["builds", "show", "--format", "json"]);
    assert_eq!(shown["outcome"], "failed");
    assert_eq!(shown["steps"][1]["status"], "failed");
    assert!(shown["steps"][1]["took_us"].as_u64() > Some(0));
    let log = world.kiln(&["builds", "logs", "latest", "2"]).ok().stdout;
    assert_eq!(log, "before\n");
}

fn why_json(world: &World) {
    rebuilt(world);
    let why = document(world, &["why", "COPY", "--format", "json"]);
    assert_eq!(why["version"], "kiln.build/0");
    assert_eq!(why["steps"].as_array().unwrap().len(), 1);
    let step = &why["steps"][0];
    assert_eq!(
        (&step["status"], &step["why"]),
        (&"ran".into(), &"changed".into())
    );
    assert_eq!(step["needs"], serde_json::json!([1]));
    let changes = step["causes"][0]["changes"].clone();
    let expected = serde_json::json!([
        { "path": "src/a", "what": { "content": { "old_size": 6, "new_size": 8 } } },
        { "path": "src/c", "what": "added" },
        { "path": "src/gone", "what": "removed" },
        { "path": "src/run", "what": { "mode": { "old": 0o644, "new": 0o755 } } },
    ]);
    assert_eq!(changes, expected);
    assert_eq!(step["compared_with"]["same_place"], true);
    let parts = step["parts"].as_array().unwrap();
    let differ: Vec<_> = parts.iter().filter(|part| part["same"] == false).collect();
    assert_eq!(differ.len(), 1, "{parts:?}");
    assert_eq!(differ[0]["part"], "files of context");
}

fn explain(world: &World) {
    first(world);
    world.write("ctx/src/a", "changed\n");
    let ran = world
        .kiln(&[
            "build",
            "--progress",
            "plain",
            "--explain",
            "-t",
            "app",
            "ctx",
        ])
        .ok();
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    world.snapshot(&masked(&ran.whole()));
}

fn explain_cached(world: &World) {
    first(world);
    let ran = world.kiln(&["build", "--explain", "-t", "app", "ctx"]).ok();
    world.snapshot(&masked(&ran.whole()));
    let quiet = world
        .kiln(&["build", "--explain", "-q", "-t", "app", "ctx"])
        .ok();
    assert_eq!(quiet.stderr, "");
}

fn list(world: &World) {
    first(world);
    world.build();
    let listed = world
        .kiln(&["builds", "ls", "--format", "json"])
        .ok()
        .stdout;
    let builds: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // The base was built, too.
    let cached: Vec<_> = builds
        .iter()
        .map(|build| build["cached_count"].as_u64())
        .collect();
    assert_eq!(cached[..2], [Some(4), Some(1)]);
    assert!(builds[1]["written_bytes"].as_u64() > Some(0));
    assert_eq!(builds[0]["written_bytes"], 0);
    let one = world.kiln(&["builds", "ls", "-n", "1"]).ok().stdout;
    assert_eq!(one.lines().count(), 2, "{one}");
    let header = "BUILD STARTED TOOK STEPS WRITTEN PULLED NAMES RESULT CONTEXT";
    let words: Vec<&str> = one.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(words.join(" "), header);
}

fn show(world: &World) {
    rebuilt(world);
    let shown = told(world, &["builds", "show"]);
    let rows: Vec<&str> = shown.lines().map(str::trim_end).collect();
    let begins = |start: &str| rows.iter().any(|row| row.starts_with(start));
    for start in [
        "build       [build]",
        "outcome     done",
        "steps       4 (1 cached)",
        "platform    linux/",
    ] {
        assert!(begins(start), "{start}\n{shown}");
    }
    for start in ["1  ", "2* ", "3* ", "4* "] {
        assert!(begins(start), "{start}\n{shown}");
    }
}

fn show_json(world: &World) {
    rebuilt(world);
    let shown = document(world, &["builds", "show", "latest", "--format", "json"]);
    assert_eq!(shown["critical_path"], serde_json::json!([2, 3, 4]));
    let steps = shown["steps"].as_array().unwrap();
    let mut before = 0;
    for step in &steps[1..] {
        let started = step["started_us"].as_u64().unwrap();
        assert!(started >= before, "{steps:?}");
        before = started + step["took_us"].as_u64().unwrap();
        assert!(step["written_bytes"].as_u64().is_some(), "{step}");
    }
    assert!(before <= shown["took_us"].as_u64().unwrap());
    assert_eq!(steps[0]["found_by"], "pin");
    assert_eq!(shown["exports"].as_array().unwrap().len(), 1);
}

fn ambiguous_id(world: &World) {
    first(world);
    let unknown = world.kiln(&["builds", "show", "!"]).exits(2);
    assert!(
        unknown.stderr.contains("no build with the id `!`"),
        "{}",
        unknown.stderr
    );
    let empty = world.kiln(&["builds", "show", ""]).exits(2);
    assert!(
        empty.stderr.contains("no build with the id"),
        "{}",
        empty.stderr
    );
}

fn logs(world: &World) {
    world.base();
    world.dockerfile(
        "FROM demo/base\nRUN echo one; echo two >&2; printf '\\033[31mred'\nRUN echo three\n",
    );
    world.build();
    let all = world.kiln(&["builds", "logs"]).ok();
    assert!(
        all.stdout
            .contains("==> 3 stage-0  RUN echo three\nthree\n"),
        "{}",
        all.stdout
    );
    let one = world.kiln(&["builds", "logs", "latest", "2"]).ok().stdout;
    // Two streams have no order between them.
    let mut lines: Vec<&str> = one.lines().collect();
    lines.sort_unstable();
    assert!(
        lines.contains(&"one") && one.contains("two") && one.contains("\u{1b}[31mred"),
        "{one}"
    );
    // A step that did not run wrote nothing in that build.
    world.build();
    assert_eq!(world.kiln(&["builds", "logs"]).ok().stdout, "");
    assert!(
        world
            .kiln(&["builds", "logs", "latest~1", "three"])
            .ok()
            .stdout
            == "three\n"
    );
}

fn flood(world: &World) {
    world.base();
    world.dockerfile(
        "FROM demo/base\nRUN n=0; while [ $n -lt 40000 ]; do n=$((n+1)); echo line $n; done\n",
    );
    world.kiln(&["build", "--progress", "quiet", "ctx"]).ok();
    let log = world.kiln(&["builds", "logs", "latest", "2"]).ok().stdout;
    assert!(log.len() < 140_000, "{}", log.len());
    assert!(log.starts_with("line 1\nline 2\n") && log.ends_with("\nline 40000\n"));
    let gap = log
        .lines()
        .find(|line| line.ends_with(" bytes left out]"))
        .unwrap();
    let left_out: usize = gap
        .trim_start_matches('[')
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let written: usize = (1..=40_000).map(|n| format!("line {n}\n").len()).sum();
    assert_eq!(log.len() - gap.len() - 1 + left_out, written);
    let du = world.kiln(&["du"]).ok().stdout;
    assert!(du.lines().any(|line| line.starts_with("builds ")), "{du}");
}

fn interrupted(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN --mount=type=cache,target=/c touch /c/here; sleep 600\n");
    let running = world.kiln(&["build", "ctx"]).spawn();
    world.wait_in_caches("here");
    running.signal(Signal::SIGINT);
    running.wait();
    let shown = document(world, &["builds", "show", "--format", "json"]);
    assert_eq!(shown["outcome"], "interrupted");
    assert_eq!(shown["steps"][1]["status"], "cancelled");
}

fn forgotten(world: &World) {
    rebuilt(world);
    let id = document(world, &["builds", "show", "--format", "json"])["id"].clone();
    let id = id.as_str().unwrap();
    let told = world.kiln(&["builds", "rm", id]).ok().stdout;
    assert_eq!(told, format!("forgot {id}\n"));
    world.kiln(&["builds", "show", id]).exits(2);
    let none = world.kiln(&["builds", "rm"]).exits(2);
    assert!(
        none.stderr.contains("no build was named"),
        "{}",
        none.stderr
    );
    world.kiln(&["prune", "--keep-duration", "0s"]).ok();
    let none = world.kiln(&["builds", "show"]).exits(2);
    assert!(
        none.stderr.contains("no build is remembered"),
        "{}",
        none.stderr
    );
}

fn arguments(world: &World) {
    world.base();
    world.write("token", "hunter2-of-the-build");
    world.dockerfile("FROM demo/base AS one\nARG LEVEL\nRUN --mount=type=secret,id=token test -s /run/secrets/token\n");
    let arguments = [
        "build",
        "--target=one",
        "--build-arg=LEVEL=2",
        "--build-arg=HTTPS_PROXY=http://me:hunter2@proxy",
        "--secret=id=token,src=token",
        "-o",
        "type=cacheonly",
        "ctx",
    ];
    world.kiln(&arguments).ok();
    let shown = world
        .kiln(&["builds", "show", "--format", "json"])
        .ok()
        .stdout;
    assert!(!shown.contains("hunter2"), "{shown}");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let expected = serde_json::json!([
        "--target=one",
        "--build-arg=HTTPS_PROXY",
        "--build-arg=LEVEL=2",
        "--secret=id=token",
        "--output=type=cacheonly",
    ]);
    assert_eq!(shown["arguments"], expected);
    assert_eq!(shown["target"], "one");
}
