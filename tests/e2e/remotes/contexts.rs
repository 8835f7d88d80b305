//! Build contexts and named contexts from elsewhere.

use super::error_of;
use super::repositories::Forge;
use super::server::{Page, Server};
use crate::registries::server::gzip;
use crate::support::Capability::{Containers, Git};
use crate::support::{Case, Kiln, World, case};

pub(super) fn cases() -> Vec<Case> {
    const HERE: &[crate::support::Capability] = &[Containers];
    const NEEDS: &[crate::support::Capability] = &[Containers, Git];
    vec![
        case("git_context", NEEDS, git_context),
        case("git_context_edited", NEEDS, git_context_edited),
        case("git_context_with_git_directory", NEEDS, git_directory),
        case("git_context_with_a_time", NEEDS, git_time),
        case("git_context_that_leads_out", NEEDS, leads_out),
        case("git_context_without_dockerfile", NEEDS, without_dockerfile),
        case("archive_over_http", HERE, archive_over_http),
        case("dockerfile_over_http", HERE, dockerfile_over_http),
        case("archive_on_stdin", HERE, archive_on_stdin),
        case("compressed_archives_on_stdin", HERE, compressed),
        case("hostile_archive_on_stdin", HERE, hostile),
        case("dockerfile_on_stdin", HERE, dockerfile_on_stdin),
        case("dockerfile_from_elsewhere", HERE, dockerfile_from_elsewhere),
        case("nothing_on_stdin", HERE, nothing_on_stdin),
        case("plan_of_a_remote_context", NEEDS, plan),
        case("nothing_is_left_of_a_context", HERE, nothing_is_left),
        case("named_git_context", NEEDS, named_git),
        case("named_http_context", HERE, named_http),
        case("named_context_for_a_platform", HERE, named_for_platform),
        case("named_context_instead_of_a_stage", HERE, instead_of_a_stage),
        case("time_of_the_context", NEEDS, time_of_the_context),
        case("time_of_an_archive", HERE, time_of_an_archive),
        case("time_of_a_file_over_http", HERE, time_of_a_file),
        case("no_time_to_be_had", HERE, no_time),
    ]
}

const DOCKERFILE: &str = "FROM demo/base\nCOPY . /src\nRUN cat /src/f > /copy\n";

fn build<'w>(world: &'w World, arguments: &[&str]) -> Kiln<'w> {
    world.kiln(&["build", "-t", "app"]).args(arguments)
}

fn files(world: &World) -> String {
    world.sh("app", "cd /src && find . -type f | sort")
}

fn git_context(world: &World) {
    world.base();
    let forge = Forge::start(world);
    let nested = DOCKERFILE.replace("/copy", "/nested");
    forge.repository(
        "app",
        &[
            ("Dockerfile", DOCKERFILE),
            (".dockerignore", "ignored\n"),
            ("ignored", "x"),
            ("f", "top\n"),
            ("sub/Dockerfile", &nested),
            ("sub/f", "sub\n"),
            ("other/Other", DOCKERFILE),
        ],
    );
    let url = forge.url("app");
    let ran = build(world, &[&url]).ok();
    assert_eq!(
        files(world),
        "./.dockerignore\n./Dockerfile\n./f\n./other/Other\n./sub/Dockerfile\n./sub/f\n"
    );
    assert_eq!(world.sh("app", "cat /copy"), "top\n");
    let again = build(world, &[&format!("{url}#main")]).ok();
    assert_eq!(ran.id(), again.id());
    world.snapshot_of("again", &forge.masked(&again.table()));
    let builds = world.kiln(&["builds"]).ok().stdout;
    assert!(
        builds.contains(&url) && builds.contains("commit"),
        "{builds}"
    );
    build(world, &[&format!("{url}#main:sub")]).ok();
    assert_eq!(world.sh("app", "cat /nested"), "sub\n");
    build(world, &[&format!("{url}?subdir=sub&branch=main")]).ok();
    build(world, &["-f", "other/Other", &url]).ok();
}

fn git_context_edited(world: &World) {
    world.base();
    let forge = Forge::start(world);
    forge.repository(
        "app",
        &[("Dockerfile", DOCKERFILE), ("f", "one\n"), ("g", "same\n")],
    );
    let url = forge.url("app");
    build(world, &[&url]).ok();
    forge.commit("app", &[("f", "three\n")]);
    let ran = build(world, &[&url]).ok();
    world.snapshot_of("edited", &forge.masked(&ran.table()));
}

fn git_directory(world: &World) {
    world.base();
    let forge = Forge::start(world);
    forge.repository("app", &[("Dockerfile", DOCKERFILE), ("f", "one\n")]);
    let url = forge.url("app");
    build(world, &[&url]).ok();
    assert!(!files(world).contains(".git/"));
    let argument = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"];
    build(world, &argument).args(&[&url]).ok();
    assert!(files(world).contains("./.git/HEAD"));
}

fn git_time(world: &World) {
    world.base();
    let forge = Forge::start(world);
    forge.repository("app", &[("Dockerfile", DOCKERFILE), ("f", "one\n")]);
    build(world, &[&forge.url("app")])
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .ok();
    assert_eq!(world.sh("app", "stat -c %Y /src/f"), "1600000000\n");
}

fn leads_out(world: &World) {
    world.base();
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    world.write("secret", "FROM demo/base\nRUN echo out > /out\n");
    let tree = world.path("trees/app");
    std::os::unix::fs::symlink(world.path("secret"), tree.join("Dockerfile")).unwrap();
    forge.commit("app", &[]);
    let ran = build(world, &[&forge.url("app")]).exits(2);
    assert!(
        ran.stderr.contains("there is no Dockerfile"),
        "{}",
        ran.stderr
    );
    // A link within is followed.
    std::fs::remove_file(tree.join("Dockerfile")).unwrap();
    std::os::unix::fs::symlink("/sub/Real", tree.join("Dockerfile")).unwrap();
    forge.commit("app", &[("sub/Real", DOCKERFILE)]);
    build(world, &[&forge.url("app")]).ok();
}

fn without_dockerfile(world: &World) {
    let forge = Forge::start(world);
    forge.repository("app", &[("f", "one\n")]);
    let ran = build(world, &[&forge.url("app")]).exits(2);
    world.snapshot_of("without_dockerfile", &forge.masked(error_of(&ran)));
    let ran = build(world, &[&format!("{}#nothing", forge.url("app"))]).exits(1);
    world.snapshot_of("without_ref", &forge.masked(error_of(&ran)));
}

/// An archive of these files.
pub(super) fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        // The crate's own setter refuses what hostile archives have.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_500_000_000);
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn app() -> Vec<u8> {
    archive(&[
        ("Dockerfile", DOCKERFILE),
        ("f", "packed\n"),
        ("d/g", "g\n"),
    ])
}

fn archive_over_http(world: &World) {
    world.base();
    let server = Server::start();
    server.put("/app.tar.gz", Page::new(gzip(&app()).bytes).etag("\"1\""));
    let url = server.url("/app.tar.gz");
    let first = build(world, &[&url]).ok();
    assert_eq!(files(world), "./Dockerfile\n./d/g\n./f\n");
    server.log();
    let second = build(world, &[&url]).ok();
    assert_eq!(first.id(), second.id());
    assert!(
        second.stderr.contains("same image as before"),
        "{}",
        second.stderr
    );
    let log = server.log();
    assert!(log.iter().all(|line| line.ends_with("304")), "{log:?}");
    // A version without compression is known by its bytes, not by its name.
    server.put("/app.tar.gz", Page::new(app()).etag("\"2\""));
    build(world, &[&url]).ok();
}

fn dockerfile_over_http(world: &World) {
    world.base();
    let server = Server::start();
    server.put(
        "/Anything",
        Page::new("FROM demo/base\nRUN echo remote > /out\n"),
    );
    build(world, &[&server.url("/Anything")]).ok();
    assert_eq!(world.sh("app", "cat /out"), "remote\n");
}

fn archive_on_stdin(world: &World) {
    world.base();
    let first = build(world, &["-"]).stdin(app()).ok();
    assert_eq!(files(world), "./Dockerfile\n./d/g\n./f\n");
    assert_eq!(world.sh("app", "stat -c %Y /src/f"), "1500000000\n");
    let second = build(world, &["-"]).stdin(app()).ok();
    assert_eq!(first.id(), second.id());
    let changed = archive(&[("Dockerfile", DOCKERFILE), ("f", "other\n"), ("d/g", "g\n")]);
    let third = build(world, &["-"]).stdin(changed).ok();
    world.snapshot_of("changed", &third.table());
    let other = archive(&[("x/Other", DOCKERFILE), ("f", "x\n")]);
    build(world, &["-f", "x/Other", "-"]).stdin(other).ok();
}

fn compressed(world: &World) {
    world.base();
    build(world, &["-"]).stdin(gzip(&app()).bytes).ok();
    for program in ["bzip2", "xz"] {
        if crate::support::find_program(program).is_none() {
            eprintln!("no {program} here: left out");
            continue;
        }
        let packed = world
            .program(program, &["-c"])
            .stdin(app())
            .ok()
            .stdout_bytes;
        build(world, &["-"]).stdin(packed).ok();
    }
}

fn hostile(world: &World) {
    world.base();
    let up = archive(&[("Dockerfile", DOCKERFILE), ("../../escaped", "x")]);
    let ran = build(world, &["-"]).stdin(up).exits(1);
    world.snapshot_of("hostile", error_of(&ran));
    let mut cut = app();
    cut.truncate(700);
    build(world, &["-"]).stdin(cut).exits(1);
}

fn dockerfile_on_stdin(world: &World) {
    world.base();
    let text = "FROM demo/base\nRUN echo stdin > /out\n";
    build(world, &["-"]).stdin(text).ok();
    assert_eq!(world.sh("app", "cat /out"), "stdin\n");
    // Beside it there is an empty context.
    let ran = build(world, &["-"])
        .stdin("FROM demo/base\nCOPY f /\n")
        .exits(1);
    assert!(ran.stderr.contains("\"/f\": not found"), "{}", ran.stderr);
    let hint = "hint: there is no build context, but a Dockerfile alone";
    assert!(ran.stderr.contains(hint), "{}", ran.stderr);
    let ran = build(world, &["-f", "nowhere", "ctx"]).run();
    let told = "could not read the Dockerfile `nowhere`\n  because: No such file or directory";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
}

fn dockerfile_from_elsewhere(world: &World) {
    world.base();
    world.write("ctx/f", "local\n");
    world.write("ctx/.dockerignore", "ignored\n");
    world.write("ctx/ignored", "x");
    build(world, &["-f", "-", "ctx"]).stdin(DOCKERFILE).ok();
    assert_eq!(files(world), "./.dockerignore\n./f\n");
    let server = Server::start();
    server.put(
        "/Dockerfile",
        Page::new(DOCKERFILE.replace("/copy", "/remote")),
    );
    build(world, &["-f", &server.url("/Dockerfile"), "ctx"]).ok();
    assert_eq!(world.sh("app", "cat /remote"), "local\n");
    let ran = build(world, &["-f", "-", "-"]).stdin("x").exits(2);
    assert!(ran.stderr.contains("cannot both come"), "{}", ran.stderr);
    // A mistake is shown where it is.
    let ran = build(world, &["-f", "-", "ctx"])
        .stdin("FROM demo/base\nRUNN x\n")
        .exits(2);
    assert!(ran.stderr.contains("-:2:1"), "{}", ran.stderr);
}

fn nothing_on_stdin(world: &World) {
    let ran = build(world, &["-"]).exits(2);
    world.snapshot_of("nothing", error_of(&ran));
}

fn plan(world: &World) {
    world.base();
    let forge = Forge::start(world);
    forge.repository("app", &[("Dockerfile", DOCKERFILE), ("f", "one\n")]);
    let url = forge.url("app");
    let ran = world.kiln(&["plan", &url]).exits(2);
    assert!(ran.stderr.contains("--resolve"), "{}", ran.stderr);
    let ran = world.kiln(&["plan", "--resolve", &url]).ok();
    assert!(ran.stdout.contains("demo/base"), "{}", ran.stdout);
    let ran = world
        .kiln(&["plan", "-f", "-", "ctx"])
        .stdin("FROM scratch\n")
        .ok();
    assert!(ran.stdout.contains("result"), "{}", ran.stdout);
}

fn nothing_is_left(world: &World) {
    world.base();
    build(world, &["-"]).stdin(app()).ok();
    let work: Vec<_> = std::fs::read_dir(world.store().join("work"))
        .unwrap()
        .collect();
    assert!(work.is_empty(), "{work:?}");
    world.kiln(&["rmi", "app", "demo/base"]).ok();
    world.kiln(&["prune"]).ok();
    let layers: Vec<_> = std::fs::read_dir(world.store().join("layers"))
        .unwrap()
        .collect();
    assert!(layers.is_empty(), "{layers:?}");
}

fn named_git(world: &World) {
    let forge = Forge::start(world);
    forge.repository("lib", &[("l", "lib\n"), ("d/x", "deep\n")]);
    world.base();
    world.dockerfile(
        "
        FROM demo/base
        COPY --from=lib l /l
        RUN --mount=from=deep,target=/m cat /m/x > /x
        ",
    );
    let lib = format!("lib={}", forge.url("lib"));
    let deep = format!("deep={}#main:d", forge.url("lib"));
    build(
        world,
        &["--build-context", &lib, "--build-context", &deep, "ctx"],
    )
    .ok();
    assert_eq!(world.sh("app", "cat /l /x"), "lib\ndeep\n");
}

fn named_http(world: &World) {
    let server = Server::start();
    server.put("/some/file.txt", Page::new("content\n"));
    world.base();
    world.dockerfile("FROM demo/base\nCOPY --from=remote context /file\n");
    let remote = format!("remote={}", server.url("/some/file.txt"));
    build(world, &["--build-context", &remote, "ctx"]).ok();
    assert_eq!(world.sh("app", "cat /file"), "content\n");
}

fn named_for_platform(world: &World) {
    world.base();
    world.write("here/f", "here\n");
    world.write("there/f", "there\n");
    world.dockerfile("FROM demo/base\nCOPY --from=files f /f\n");
    let arguments = [
        "--build-context",
        "files=there",
        "--build-context",
        "files::linux/amd64=here",
        "ctx",
    ];
    build(world, &arguments).ok();
    let expected = match std::env::consts::ARCH {
        "x86_64" => "here\n",
        _ => "there\n",
    };
    assert_eq!(world.sh("app", "cat /f"), expected);
}

fn instead_of_a_stage(world: &World) {
    world.base();
    world.write("assets/f", "given\n");
    world.dockerfile(
        "
        FROM demo/base AS assets
        RUN false
        FROM demo/base
        COPY --from=assets f /f
        ",
    );
    build(world, &["--build-context", "assets=assets", "ctx"]).ok();
    assert_eq!(world.sh("app", "cat /f"), "given\n");
}

fn created(world: &World) -> String {
    let image = world.inspect("app");
    image["config"]["created"].as_str().unwrap().to_owned()
}

fn time_of_the_context(world: &World) {
    world.base();
    let forge = Forge::start(world);
    let dockerfile = format!("ARG SOURCE_DATE_EPOCH=context\n{DOCKERFILE}");
    forge.repository("app", &[("Dockerfile", &dockerfile), ("f", "one\n")]);
    build(world, &[&forge.url("app")]).ok();
    assert_eq!(created(world), "2020-09-13T12:26:40Z");
    // The time of a repository that is given by another name, and of one that a stage is.
    let lib = format!("lib={}", forge.url("app"));
    world.dockerfile("FROM demo/base\nCOPY --from=lib f /f\n");
    let named = [
        "--build-context",
        &lib,
        "--build-arg",
        "SOURCE_DATE_EPOCH=lib",
        "ctx",
    ];
    build(world, &named).ok();
    assert_eq!(created(world), "2020-09-13T12:26:40Z");
    let text = format!(
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {} /\nFROM demo/base\nCOPY --from=src f /f\n",
        forge.url("app")
    );
    world.write("ctx/Dockerfile", text);
    build(world, &["ctx"]).ok();
    assert_eq!(created(world), "2020-09-13T12:26:40Z");
    // A number goes before what the file says.
    build(world, &["ctx"])
        .env("SOURCE_DATE_EPOCH", "1000000000")
        .ok();
    assert_eq!(created(world), "2001-09-09T01:46:40Z");
}

fn time_of_an_archive(world: &World) {
    world.base();
    let dockerfile = format!("ARG SOURCE_DATE_EPOCH=context\n{DOCKERFILE}");
    let packed = archive(&[("Dockerfile", &dockerfile), ("f", "one\n")]);
    build(world, &["-"]).stdin(packed).ok();
    assert_eq!(created(world), "2017-07-14T02:40:00Z");
}

fn time_of_a_file(world: &World) {
    world.base();
    let server = Server::start();
    let page = Page::new("one\n").last_modified("Sun, 06 Nov 1994 08:49:37 GMT");
    server.put("/f", page);
    let text = format!(
        "FROM scratch AS src\nADD {} /\nFROM demo/base\nCOPY --from=src f /f\n",
        server.url("/f")
    );
    world.write("ctx/Dockerfile", text);
    build(world, &["--build-arg", "SOURCE_DATE_EPOCH=src", "ctx"]).ok();
    assert_eq!(created(world), "1994-11-06T08:49:37Z");
}

fn no_time(world: &World) {
    world.base();
    let server = Server::start();
    server.put("/f", Page::new("one\n"));
    world.dockerfile("FROM demo/base\n");
    let mut text = String::new();
    let remote = format!("remote={}", server.url("/f"));
    for value in ["context", "remote", "nobody", "12x", "99999999999999"] {
        let argument = format!("SOURCE_DATE_EPOCH={value}");
        let arguments = ["--build-context", &remote, "--build-arg", &argument, "ctx"];
        let ran = build(world, &arguments).exits(2);
        text += &error_of(&ran).replace(&server.host(), "127.0.0.1:_____");
    }
    world.snapshot_of("no_time", &text);
}
