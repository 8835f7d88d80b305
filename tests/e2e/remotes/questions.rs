//! Questions about builds whose context is elsewhere: the answers are those about a directory.

use super::contexts::archive;
use super::repositories::Forge;
use super::server::{Page, Server};
use crate::registries::server::gzip;
use crate::support::Capability::{self, Containers, Git};
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const HERE: &[Capability] = &[Containers];
    const NEEDS: &[Capability] = &[Containers, Git];
    vec![
        case("questions_about_git", NEEDS, git),
        case("questions_about_an_archive", HERE, over_http),
        case("questions_about_standard_input", HERE, on_stdin),
    ]
}

const FILES: [(&str, &str); 4] = [
    (
        "Dockerfile",
        "# base is what both have\nFROM scratch AS base\n# VERSION of all\nARG VERSION=1\nCOPY f /f\n\
         FROM base AS Final\nRUN --mount=type=secret,id=token [\"/x\"]\nMAINTAINER me\n",
    ),
    (".dockerignore", "ignored\n"),
    ("ignored", "x"),
    ("f", "f\n"),
];

/// Every question, as text and as JSON, to be answered about `context` as about a directory.
fn check(world: &World, context: &str) {
    for (path, text) in FILES {
        world.write(&format!("local/{path}"), text);
    }
    let ask = |context: &str, call: &str| {
        let ran = world.kiln(&["build", "--call", call, context]).run();
        let errors = ran.stderr.lines().filter(|line| line.starts_with("error"));
        let answer = ran.stdout.lines();
        let answer = answer.filter(|line| !line.contains("\"directory\": "));
        let answer: Vec<String> = answer.map(str::to_owned).collect();
        (ran.status.code(), answer, errors.count())
    };
    for method in ["outline", "targets", "lint", "check", "context"] {
        for format in ["text", "json"] {
            let call = format!("{method},format={format}");
            let there = ask(context, &call);
            // Sizes and names are those of the files; only where they lie differs.
            assert_eq!(there, ask("local", &call), "{call}");
            assert!(!there.1.is_empty(), "{call}");
        }
    }
    let checked = world.kiln(&["build", "--check", context]).exits(1).stdout;
    for rule in ["StageNameCasing", "MaintainerDeprecated"] {
        assert!(checked.contains(rule), "{checked}");
    }
    let outline = world
        .kiln(&["build", "--call", "outline", context])
        .ok()
        .stdout;
    assert!(outline.contains("token"), "{outline}");
    // Nothing was built.
    assert_eq!(world.kiln(&["images", "-q"]).ok().stdout, "");
}

fn git(world: &World) {
    let forge = Forge::start(world);
    let nested = FILES.map(|(path, text)| (format!("sub/{path}"), text));
    let nested = nested.each_ref().map(|(path, text)| (path.as_str(), *text));
    forge.repository("app", &nested);
    check(world, &format!("{}#main:sub", forge.url("app")));
}

fn over_http(world: &World) {
    let server = Server::start();
    let packed = gzip(&archive(&FILES)).bytes;
    server.put("/app.tar.gz", Page::new(packed).etag("\"1\""));
    check(world, &server.url("/app.tar.gz"));
}

fn on_stdin(world: &World) {
    let ran = world
        .kiln(&["build", "--call", "targets", "-"])
        .stdin(archive(&FILES))
        .ok();
    assert!(ran.stdout.contains("base"), "{}", ran.stdout);
}
