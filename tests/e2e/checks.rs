//! Questions about a build that run nothing: `--check` and `--call`; and hints at missing files.

use serde_json::Value;

use crate::support::Capability::{self, Containers};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("check", &[], check),
        case("check_json", &[], check_json),
        case("check_sarif", &[], check_sarif),
        case("check_settings", &[], check_settings),
        case("many_findings", &[], many_findings),
        case("check_looks_at_bases", NEEDS, check_looks_at_bases),
        case("violations_fail_builds", NEEDS, violations_fail_builds),
        case("warnings_are_shown_once", NEEDS, warnings_are_shown_once),
        case("outline", &[], outline),
        case("targets", &[], targets),
        case("describe", &[], describe),
        case("context", &[], context),
        case("context_of_a_file", &[], context_of_a_file),
        case(
            "context_is_what_copy_takes",
            NEEDS,
            context_is_what_copy_takes,
        ),
        case("missing_files", NEEDS, missing_files),
        case("wrong_questions", &[], wrong_questions),
    ]
}

/// Findings of the file, of the words in it, of its variables and of its stages.
const DOUBTFUL: &str = "
    # check=experimental=InvalidDefinitionDescription
    ARG TAG
    FROM scratch as Base
    ENV OLD style
    copy $nope \\

      /x

    # says nothing
    FROM scratch AS last
    CMD run it
    COPY --from=base /x /x
    EXPOSE 80/TCP
    ";

fn check(world: &World) {
    world.dockerfile(DOUBTFUL);
    let checked = world.kiln(&["build", "--check", "ctx"]).exits(1);
    world.snapshot_of("doubtful", &checked.whole());
    world.dockerfile("FROM scratch AS Base\nCOPPY a b\nRUN <<E\n");
    let checked = world.kiln(&["build", "--check", "ctx"]).exits(2);
    world.snapshot_of("wrong", &checked.whole());
    world.dockerfile("FROM scratch\nCOPY a b\n");
    let checked = world.kiln(&["build", "--check", "ctx"]).ok();
    assert_eq!(checked.stdout, "Check complete, no warnings found.\n");
    assert_eq!(checked.stderr, "");
}

/// Nobody reads thousands: the first are shown with their lines, an error before any warning.
fn many_findings(world: &World) {
    let shown = |text: &str, what: &str| text.lines().filter(|line| line.starts_with(what)).count();
    let doubtful = format!("FROM scratch\n{}", "maintainer me\n".repeat(300));
    world.dockerfile(&doubtful);
    let checked = world.kiln(&["build", "--check", "ctx"]).exits(1).stdout;
    assert_eq!(shown(&checked, "warning["), 100, "{checked}");
    let more = "\nand 201 more; `kiln build --check --format sarif` lists all\n";
    assert!(checked.contains(more), "{checked}");
    assert!(
        checked.ends_with("301 warnings have been found!\n"),
        "{checked}"
    );
    let call = ["build", "--check", "--format", "json", "ctx"];
    let all = json(&world.kiln(&call).exits(1).stdout);
    assert_eq!(all["warnings"].as_array().unwrap().len(), 301);
    world.dockerfile(&format!("{doubtful}{}", "RUNN true\n".repeat(150)));
    let build = world.kiln(&["build", "ctx"]).exits(2).stderr;
    let counts = (shown(&build, "error["), shown(&build, "warning["));
    assert_eq!(counts, (100, 0), "{build}");
    world.dockerfile(&format!("{doubtful}RUNN true\n"));
    let checked = world.kiln(&["build", "--check", "ctx"]).exits(2).stdout;
    assert_eq!(shown(&checked, "error["), 1, "{checked}");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn check_json(world: &World) {
    world.dockerfile(DOUBTFUL);
    let call = ["build", "--call", "check,format=json", "ctx"];
    let result = world.kiln(&call).exits(1).stdout;
    world.snapshot(&result);
    let lint = ["build", "--call=lint", "--format", "json", "ctx"];
    assert_eq!(world.kiln(&lint).exits(1).stdout, result);
    let result = json(&result);
    let text = world.read("ctx/Dockerfile");
    assert_eq!(result["sources"][0]["data"], base64(&text));
    // What cannot be parsed is told as BuildKit tells it.
    world.dockerfile("FROM scratch\nMAINTAINER me\nBADCMD\n");
    let result = json(&world.kiln(&call).exits(2).stdout);
    let error = &result["buildError"];
    assert_eq!(
        error["message"],
        "dockerfile parse error on line 3: unknown instruction: BADCMD"
    );
    assert_eq!(error["location"]["ranges"][0]["start"]["line"], 3);
    assert_eq!(result["warnings"].as_array().unwrap().len(), 1);
}

/// Encodes as a test of an encoder should: by hand.
fn base64(text: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            out.push(match at <= chunk.len() {
                true => char::from(LETTERS[(bits >> (18 - 6 * at)) as usize & 63]),
                false => '=',
            });
        }
    }
    out
}

fn check_sarif(world: &World) {
    world.dockerfile(DOUBTFUL);
    let ran = world.kiln(&["build", "--check", "--format=sarif", "ctx"]);
    let log = json(&ran.exits(1).stdout);
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 22);
    let results = run["results"].as_array().unwrap();
    let told: Vec<String> = results
        .iter()
        .map(|result| {
            let place = &result["locations"][0]["physicalLocation"];
            assert_eq!(place["artifactLocation"]["uri"], "Dockerfile");
            let region = &place["region"];
            format!(
                "{}:{}-{}:{} {}",
                region["startLine"],
                region["startColumn"],
                region["endLine"],
                region["endColumn"],
                result["ruleId"].as_str().unwrap()
            )
        })
        .collect();
    world.snapshot(&told.join("\n"));
}

fn check_settings(world: &World) {
    world.dockerfile(DOUBTFUL);
    let arg = "BUILDKIT_DOCKERFILE_CHECK";
    let with = |value: &str| {
        let arg = format!("{arg}={value}");
        let arguments = ["build", "--check", "--build-arg", &arg, "ctx"];
        world.kiln(&arguments).run()
    };
    // The file's `experimental` stays in force.
    let ran = with("skip=all");
    assert!(ran.stdout.contains("InvalidDefinitionDescription"));
    assert!(ran.stdout.contains("1 warning has been found!"));
    assert!(with("skip=all;experimental=none").status.success());
    assert_eq!(with("error=true").status.code(), Some(2));
    let call = ["build", "--call", "check,ignorestatus=true", "ctx"];
    world.kiln(&call).ok();
    // A target narrows what is checked.
    let base = world
        .kiln(&["build", "--check", "--target", "base", "ctx"])
        .exits(1);
    assert!(!base.stdout.contains("ExposeProtoCasing"));
    assert!(base.stdout.contains("LegacyKeyValueFormat"));
}

fn check_looks_at_bases(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nENV HERE=1\n");
    world.kiln(&["build", "-t", "demo/env", "ctx"]).ok();
    // What a base sets is known; of one that nobody can look at it is not asked.
    world.dockerfile("FROM demo/env\nCOPY $HERE $GONE /\nFROM nowhere.invalid/x\nCOPY $ANY /\n");
    let checked = world
        .kiln(&["build", "--check", "--offline", "ctx"])
        .exits(1);
    world.snapshot(&checked.whole());
}

fn violations_fail_builds(world: &World) {
    world.base();
    world.dockerfile("# check=error=true\nFROM demo/base\nCMD run it\n");
    world.snapshot(&world.kiln(&["build", "ctx"]).exits(2).whole());
    let allowed = ["build", "-q", "--build-arg"];
    world
        .kiln(&allowed)
        .args(&["BUILDKIT_DOCKERFILE_CHECK=error=false", "ctx"])
        .ok();
}

fn warnings_are_shown_once(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base AS a\nENV OLD style\nFROM a AS b\nCOPY --from=a /etc /x\n");
    let built = world.kiln(&["build", "ctx"]).ok();
    let told = built
        .stderr
        .matches("warning[LegacyKeyValueFormat]")
        .count();
    assert_eq!(told, 1, "{}", built.stderr);
}

const OUTLINED: &str = "
    ARG inherited=box
    ARG unused=abc
    # sfx is a suffix
    ARG sfx=\"usy${inherited}\"

    FROM b${sfx} AS first
    ARG FOO=123
    # BAR is a number
    ARG BAR=456
    RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true

    FROM alpine AS second
    ARG BAZ
    RUN --mount=type=secret,id=unused true

    FROM scratch AS third
    ARG ABC=a
    ARG TARGETARCH

    # target defines build target
    FROM third AS target
    ARG BAR
    COPY --from=first /etc/passwd /
    RUN --mount=type=secret,id=second${BAR},env=S \\
      --mount=type=cache,id=c,target=/c true

    FROM second
    ";

fn outline(world: &World) {
    world.dockerfile(OUTLINED);
    let arguments = ["--offline", "--target", "target", "--build-arg", "BAR=678"];
    let outline = |call: &str| {
        let ran = world.kiln(&["build", "--call", call]).args(&arguments);
        ran.args(&["ctx"]).ok().stdout
    };
    world.snapshot(&outline("outline"));
    world.snapshot_of("json", &without_sources(&outline("outline,format=json")));
    // The last stage has no name and takes nothing that is given.
    let last = world.kiln(&["build", "--call", "outline", "--offline", "ctx"]);
    world.snapshot_of("last", &last.ok().stdout);
}

/// The Dockerfile in base64 is no good reading.
fn without_sources(text: &str) -> String {
    let mut document = json(text);
    let sources = document["sources"].take();
    assert_eq!(sources.as_array().unwrap().len(), 1);
    serde_json::to_string_pretty(&document).unwrap()
}

fn targets(world: &World) {
    world.dockerfile(
        "
        # build defines stage for compiling the binary
        FROM --platform=$BUILDPLATFORM alpine AS build
        RUN true

        FROM busybox as Second

        FROM alpine

        # binary returns the compiled binary
        FROM second AS binary
        ",
    );
    let text = world.kiln(&["build", "--call=targets", "ctx"]).ok().stdout;
    world.snapshot(&text);
    let document = world.kiln(&["build", "--call=targets,format=json", "ctx"]);
    world.snapshot_of("json", &without_sources(&document.ok().stdout));
}

fn describe(world: &World) {
    let text = world.kiln(&["build", "--call=subrequests.describe", "."]);
    world.snapshot(&text.ok().stdout);
    let document = json(
        &world
            .kiln(&["build", "--call=describe,format=json"])
            .ok()
            .stdout,
    );
    let names: Vec<&str> = document
        .as_array()
        .unwrap()
        .iter()
        .map(|request| request["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"frontend.lint"), "{names:?}");
}

fn files_of_a_context(world: &World) {
    for (file, size) in [
        ("keep.txt", 5),
        ("drop.log", 7),
        ("sub/drop.log", 7),
        ("sub/keep.log", 11),
        ("secret/key", 13),
        ("secret/public/id", 17),
        ("deep/a/b/c", 1_500),
    ] {
        world.write(&format!("ctx/{file}"), "x".repeat(size));
    }
    std::fs::create_dir(world.path("ctx/empty")).unwrap();
    std::os::unix::fs::symlink("keep.txt", world.path("ctx/link")).unwrap();
    world.write(
        "ctx/.dockerignore",
        "# a comment\n**/*.log\n!sub/keep.log\n\nsecret\n!secret/public\ndeep/*/b\nDockerfile\n",
    );
    world.dockerfile("FROM scratch\nCOPY . /\n");
}

fn context(world: &World) {
    files_of_a_context(world);
    let listed = world.kiln(&["build", "--call=context", "ctx"]).ok();
    world.snapshot(&listed.whole());
    let listed = world.kiln(&["build", "--call=context,format=json", "ctx"]);
    world.snapshot_of("json", &listed.ok().whole());
    world.remove("ctx/.dockerignore");
    let listed = world.kiln(&["build", "--call=context", "ctx/sub"]).ok();
    world.snapshot_of("no_rules", &listed.whole());
    let nowhere = world.kiln(&["build", "--call=context", "nowhere"]);
    world.snapshot_of("nowhere", &nowhere.exits(2).whole());
}

fn context_of_a_file(world: &World) {
    files_of_a_context(world);
    let asked = world.kiln(&["build", "--call=context", "ctx"]).args(&[
        "keep.txt",
        "./drop.log",
        "/sub/keep.log",
        "secret",
        "secret/key",
        "secret/public/id",
        "deep/a/b/c",
        "ctx/sub/drop.log",
        "keep",
        "sub/kep.log",
        "Keep.TXT",
        "no/such",
        "new.log",
        "../outside",
    ]);
    world.snapshot(&asked.ok().whole());
    // Rules beside the Dockerfile go before those of the context.
    world.write("ctx/Dockerfile.dockerignore", "*\n!sub\n");
    let call = ["build", "--call=context,format=json", "ctx", "keep.txt"];
    world.snapshot_of("json", &world.kiln(&call).ok().whole());
}

fn context_is_what_copy_takes(world: &World) {
    world.base();
    files_of_a_context(world);
    world.dockerfile("FROM demo/base\nCOPY . /ctx\n");
    world.build();
    let copied = world.sh("app", "cd /ctx && find . -type f -o -type l | sort");
    let listing = world.kiln(&["build", "--call=context", "--format=json", "ctx"]);
    let listing = json(&listing.ok().stdout);
    let mut listed: Vec<String> = listing["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["kind"] != "directory")
        .map(|entry| format!("./{}\n", entry["path"].as_str().unwrap()))
        .collect();
    listed.sort();
    assert_eq!(copied, listed.concat());
}

fn missing_files(world: &World) {
    world.base();
    files_of_a_context(world);
    let mut text = String::new();
    for source in [
        "drop.log",
        "keep.tx",
        "Sub/keep.log",
        "secret/key",
        "nothing/like/it",
    ] {
        world.dockerfile(&format!("FROM demo/base\nCOPY {source} /\n"));
        let failed = world.kiln(&["build", "--progress=quiet", "ctx"]).exits(1);
        text += &failed.whole();
    }
    world.snapshot(&text);
}

fn wrong_questions(world: &World) {
    world.dockerfile("FROM scratch\nCOPY a /\n");
    let mut text = String::new();
    for arguments in [
        &["--call", "cheque"][..],
        &["--call", "convertllb"],
        &["--call", "check,format=xml"],
        &["--call", "check,now"],
        &["--call", "outline,format=sarif"],
        &["--format", "json"],
        &["--check", "--call", "outline"],
    ] {
        text += &world
            .kiln(&["build"])
            .args(arguments)
            .args(&["ctx"])
            .exits(2)
            .whole();
    }
    text += &world.kiln(&["build", "ctx", "more"]).exits(2).whole();
    text += &world
        .kiln(&["build", "--check", "ctx", "x"])
        .exits(2)
        .whole();
    world.snapshot(&text);
}
