//! ADD of files over http.

use super::error_of;
use super::server::{Page, Server};
use crate::support::Capability::Containers;
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[crate::support::Capability] = &[Containers];
    vec![
        case("file_has_its_name_mode_and_time", NEEDS, name_mode_and_time),
        case("unchanged_file_is_not_fetched_again", NEEDS, unchanged),
        case("changed_file_is_told", NEEDS, changed),
        case("file_with_a_checksum_is_not_asked_about", NEEDS, checksum),
        case("wrong_checksum", NEEDS, wrong_checksum),
        case("long_checksums", NEEDS, long_checksums),
        case("compressed_for_the_way", NEEDS, compressed),
        case("redirects", NEEDS, redirects),
        case("cut_connections_are_taken_up", NEEDS, cut),
        case("cut_without_ranges", NEEDS, cut_without_ranges),
        case("a_lie_about_the_length", NEEDS, lie),
        case("changed_while_it_was_fetched", NEEDS, changed_meanwhile),
        case("missing_file", NEEDS, missing),
        case("passing_failures", NEEDS, passing),
        case("archives_over_http", NEEDS, archives),
        case("offline_file", NEEDS, offline),
        case("http_plan_asks_nothing", NEEDS, plan),
        case("large_file", NEEDS, large),
        case("account_in_the_address_of_a_file", NEEDS, account),
        case("file_with_a_token", NEEDS, token),
        case("killed_while_fetching", NEEDS, killed),
        case("interrupted_while_fetching", NEEDS, interrupted),
    ]
}

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn digest(bytes: &[u8]) -> String {
    kiln_test_registry::digest_of(bytes)
}

fn masked(server: &Server, text: &str) -> String {
    text.replace(&server.host(), "127.0.0.1:_____")
}

/// A world whose Dockerfile has this instruction on the base; `URL` is the server's.
fn prepare(world: &World, server: &Server, instructions: &str) {
    world.base();
    let instructions = instructions.replace("URL", &format!("http://{}", server.host()));
    world.write(
        "ctx/Dockerfile",
        format!("FROM demo/base\n{instructions}\n"),
    );
}

fn name_mode_and_time(world: &World) {
    let server = Server::start();
    server.put("/a/tool.txt", Page::new("hello\n").last_modified(DATE));
    server.put("/", Page::new("index\n"));
    prepare(
        world,
        &server,
        "ADD URL/a/tool.txt?x=1 /plain/\n\
         ADD --chmod=755 --chown=7:8 URL/a/tool.txt /changed\n\
         ADD URL/ /unnamed/",
    );
    world.build();
    let script =
        "cd / && stat -c '%n %a %u:%g %Y' plain/tool.txt changed unnamed/* && cat plain/tool.txt";
    assert_eq!(
        world.sh("app", script),
        "plain/tool.txt 600 0:0 784111777\nchanged 755 7:8 784111777\n\
         unnamed/__unnamed__ 600 0:0 0\nhello\n"
    );
}

fn unchanged(world: &World) {
    let server = Server::start();
    server.put("/f", Page::new("one").etag("\"1\""));
    server.put("/g", Page::new("two").last_modified(DATE));
    prepare(world, &server, "ADD URL/f URL/g /d/");
    let first = world.build();
    world.snapshot_of("first", &masked(&server, &first.table()));
    assert_eq!(server.log().len(), 2);
    let second = world.build();
    assert_eq!(first.id(), second.id());
    let mut log = server.log();
    log.sort();
    assert_eq!(log, ["GET /f -> 304", "GET /g -> 304"]);
    world.snapshot_of("again", &masked(&server, &second.table()));
}

fn changed(world: &World) {
    let server = Server::start();
    server.put("/f", Page::new("one").etag("\"1\""));
    prepare(world, &server, "ADD URL/f /d/\nRUN cat /d/f > /copy");
    world.build();
    server.put("/f", Page::new("two").etag("\"2\""));
    let ran = world.build();
    world.snapshot_of("changed", &masked(&server, &ran.table()));
    assert_eq!(world.sh("app", "cat /copy"), "two");
    // Another version of the same bytes runs nothing.
    server.put("/f", Page::new("two").etag("\"3\""));
    let ran = world.build();
    world.snapshot_of("other_etag", &masked(&server, &ran.table()));
}

fn checksum(world: &World) {
    let server = Server::start();
    server.put("/f", Page::new("one").etag("\"1\""));
    let line = format!("ADD --checksum={} URL/f /d/", digest(b"one"));
    prepare(world, &server, &line);
    world.build();
    assert_eq!(server.log(), ["GET /f -> 200"]);
    world.build();
    assert!(server.log().is_empty());
}

/// What a server compresses is the file that it was, cut lines or not.
fn compressed(world: &World) {
    use std::io::Write as _;
    let server = Server::start();
    let text: String = (0..20_000).map(|line| format!("{line}\n")).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let page = |body: &[u8]| Page {
        encoding: Some("gzip".to_owned()),
        ..Page::new(body).etag("\"1\"")
    };
    server.put(
        "/f",
        Page {
            cuts: vec![7_000],
            ..page(&gzip)
        },
    );
    let line = format!("ADD --checksum={} URL/f /d/", digest(text.as_bytes()));
    prepare(world, &server, &line);
    world.build();
    assert_eq!(world.sh("app", "tail -n 1 /d/f"), "19999\n");
    server.put("/cut", page(&gzip[..gzip.len() - 3]));
    prepare(world, &server, "ADD URL/cut /d/");
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    let error = error_of(&ran);
    assert!(
        error.contains("with `Content-Encoding: gzip` is damaged"),
        "{error}"
    );
}

fn wrong_checksum(world: &World) {
    let server = Server::start();
    server.put("/f", Page::new("one"));
    let line = format!("ADD --checksum={} URL/f /d/", digest(b"other"));
    prepare(world, &server, &line);
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    world.snapshot_of("wrong_checksum", &masked(&server, error_of(&ran)));
}

fn long_checksums(world: &World) {
    let server = Server::start();
    server.put("/f", Page::new("one"));
    let sum = |program: &str| {
        let ran = world.program(program, &["-"]).stdin("one").ok();
        ran.stdout.split(' ').next().unwrap().to_owned()
    };
    let lines = format!(
        "ADD --checksum=sha384:{} URL/f /a\nADD --checksum=sha512:{} URL/f /b",
        sum("sha384sum"),
        sum("sha512sum")
    );
    prepare(world, &server, &lines);
    world.build();
    assert_eq!(world.sh("app", "cat /a /b"), "oneone");
}

fn redirects(world: &World) {
    let server = Server::start();
    let redirect = |to: &str| Page {
        redirect: Some(to.to_owned()),
        ..Page::default()
    };
    server.put("/a", redirect("/b"));
    server.put("/b", redirect(&server.url("/c")));
    server.put("/c", Page::new("there"));
    server.put("/loop", redirect("/loop"));
    prepare(world, &server, "ADD URL/a /d/");
    world.build();
    assert_eq!(world.sh("app", "cat /d/a"), "there");
    prepare(world, &server, "ADD URL/loop /d/");
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    assert!(ran.stderr.contains("too many redirects"), "{}", ran.stderr);
}

fn cut(world: &World) {
    let server = Server::start();
    let body: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    server.put(
        "/f",
        Page {
            cuts: vec![1000, 300_000],
            ..Page::new(body.clone()).etag("\"1\"")
        },
    );
    let line = format!("ADD --checksum={} URL/f /d/", digest(&body));
    prepare(world, &server, &line);
    world.build();
    assert_eq!(
        server.log(),
        [
            "GET /f -> 200",
            "GET /f -> 206 from 1000",
            "GET /f -> 206 from 301000"
        ]
    );
}

fn cut_without_ranges(world: &World) {
    let server = Server::start();
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    server.put(
        "/f",
        Page {
            cuts: vec![70_001],
            whole_only: true,
            ..Page::new(body.clone())
        },
    );
    let line = format!("ADD --checksum={} URL/f /d/", digest(&body));
    prepare(world, &server, &line);
    world.build();
    assert_eq!(server.log(), ["GET /f -> 200", "GET /f -> 200"]);
}

fn lie(world: &World) {
    let server = Server::start();
    server.put(
        "/f",
        Page {
            says_length: Some(1000),
            ..Page::new("short")
        },
    );
    prepare(world, &server, "ADD URL/f /d/");
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    world.snapshot_of("a_lie_about_the_length", &masked(&server, error_of(&ran)));
}

fn changed_meanwhile(world: &World) {
    let server = Server::start();
    let first = Page {
        cuts: vec![4],
        whole_only: true,
        ..Page::new("first version")
    };
    server.put("/f", first);
    prepare(world, &server, "ADD URL/f /d/");
    let running = world.kiln(&["build", "ctx"]).spawn();
    // The second request is at least a third of a second away.
    wait_for_request(&server);
    server.put("/f", Page::new("other version"));
    let ran = running.wait();
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    let told = "it changed while it was fetched";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
}

fn missing(world: &World) {
    let server = Server::start();
    prepare(world, &server, "ADD URL/nothing /d/");
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    world.snapshot_of("missing_file", &masked(&server, error_of(&ran)));
}

fn passing(world: &World) {
    let server = Server::start();
    let page = Page {
        statuses: vec![503, 429],
        ..Page::new("here")
    };
    server.put("/f", page);
    prepare(world, &server, "ADD URL/f /d/");
    world.build();
    assert_eq!(
        server.log(),
        ["GET /f -> 429", "GET /f -> 503", "GET /f -> 200"]
    );
}

/// An archive of one file.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o640);
    header.set_mtime(1_000_000_000);
    header.set_cksum();
    builder
        .append_data(&mut header, "dir/inside", &b"packed"[..])
        .unwrap();
    builder.into_inner().unwrap()
}

fn archives(world: &World) {
    let server = Server::start();
    let packed = crate::registries::server::gzip(&archive()).bytes;
    server.put("/a.tar.gz", Page::new(packed.clone()));
    world.write("ctx/local.tar.gz", &packed);
    prepare(
        world,
        &server,
        "ADD URL/a.tar.gz /as-it-is/\n\
         ADD --unpack URL/a.tar.gz /unpacked/\n\
         ADD local.tar.gz /local/\n\
         ADD --unpack=false local.tar.gz /kept/\n\
         ADD --unpack=true local.tar.gz /asked/",
    );
    world.build();
    assert_eq!(
        world.sh(
            "app",
            "cd / && find as-it-is unpacked local kept asked -type f | sort"
        ),
        "as-it-is/a.tar.gz\nasked/dir/inside\nkept/local.tar.gz\nlocal/dir/inside\n\
         unpacked/dir/inside\n"
    );
}

fn offline(world: &World) {
    let server = Server::start();
    server.put("/f", Page::new("one").etag("\"1\""));
    prepare(world, &server, "ADD URL/f /d/");
    let ran = world.kiln(&["build", "--offline", "ctx"]).exits(1);
    assert!(ran.stderr.contains("--offline forbids"), "{}", ran.stderr);
    let built = world.build();
    server.log();
    let ran = world.kiln(&["build", "--offline", "ctx"]).ok();
    assert_eq!(ran.id(), built.id());
    assert!(server.log().is_empty());
}

fn plan(world: &World) {
    let server = Server::start();
    server.put("/f", Page::new("one"));
    prepare(world, &server, "ADD URL/f /d/");
    world.kiln(&["plan", "ctx"]).ok();
    assert!(server.log().is_empty());
    let line = format!("ADD --checksum={} URL/f /d/", digest(b"one"));
    prepare(world, &server, &line);
    let ran = world.kiln(&["plan", "--resolve", "ctx"]).ok();
    let pin = format!("= checksum {}", digest(b"one"));
    assert!(ran.stdout.contains(&pin), "{}", ran.stdout);
}

fn large(world: &World) {
    let server = Server::start();
    let body = vec![b'x'; 48 << 20];
    server.put("/f", Page::new(body));
    prepare(world, &server, "ADD URL/f /d/");
    world.build();
    assert_eq!(
        world.sh("app", "wc -c < /d/f").trim(),
        (48 << 20).to_string()
    );
}

fn account(world: &World) {
    let server = Server::start();
    let page = Page {
        // me:secret
        authorization: Some("Basic bWU6c2VjcmV0".to_owned()),
        ..Page::new("for me")
    };
    server.put("/f", page);
    let address = format!("http://me:secret@{}/f", server.host());
    prepare(world, &server, &format!("ADD {address} /d/"));
    world.build();
    assert_eq!(world.sh("app", "cat /d/f"), "for me");
    prepare(world, &server, "ADD URL/f /d/");
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    assert!(ran.stderr.contains("401 Unauthorized"), "{}", ran.stderr);
}

fn token(world: &World) {
    let server = Server::start();
    let page = Page {
        authorization: Some("Bearer secret".to_owned()),
        ..Page::new("for me")
    };
    server.put("/f", page);
    prepare(world, &server, "ADD URL/f /d/");
    world.write("token", "secret\n");
    world.write("header", "Bearer secret");
    let build = |secret: &str| world.kiln(&["build", "-t", "app", "--secret", secret, "ctx"]);
    let host = server.host();
    build(&format!("id=HTTP_AUTH_TOKEN_{host},src=token")).ok();
    build(&format!("id=HTTP_AUTH_HEADER_{host},src=header")).ok();
    // A secret of another host's is not sent.
    build("id=HTTP_AUTH_TOKEN_example.org,src=token").exits(1);
}

fn wait_for_request(server: &Server) {
    while server.log().is_empty() {
        std::thread::yield_now();
    }
}

fn stalled() -> Page {
    Page {
        stall: Some(300_000),
        ..Page::new(vec![7; 400_000])
    }
}

fn killed(world: &World) {
    let server = Server::start();
    server.put("/f", stalled());
    prepare(world, &server, "ADD URL/f /d/");
    let running = world.kiln(&["build", "ctx"]).spawn();
    wait_for_request(&server);
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    world.kiln(&["prune"]).ok();
    for part in ["work", "trash", "procs"] {
        let left: Vec<_> = std::fs::read_dir(world.store().join(part))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{part}: {left:?}");
    }
    server.put("/f", Page::new(vec![7; 400_000]));
    world.build();
}

fn interrupted(world: &World) {
    let server = Server::start();
    server.put("/f", stalled());
    prepare(world, &server, "ADD URL/f /d/");
    let running = world.kiln(&["build", "ctx"]).spawn();
    wait_for_request(&server);
    running.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(running.wait().status.code(), Some(130));
    let work: Vec<_> = std::fs::read_dir(world.store().join("work"))
        .unwrap()
        .collect();
    assert!(work.is_empty(), "{work:?}");
}
