//! Cache mounts on their way from one host to another: what comes back, what is sent, who waits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln_test_registry::{Fault, Registry};
use nix::sys::signal::Signal;
use tokio::sync::Barrier;

use crate::interrupts::wait_until;
use crate::support::Capability::{self, Busybox, Containers, OrdinaryUser, Root, Setpriv};
use crate::support::{Case, Ran, User, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Busybox];
    vec![
        case("from_host_to_host", NEEDS, from_host_to_host),
        case("through_a_pipe", NEEDS, through_a_pipe),
        case("a_build_takes_and_leaves", NEEDS, a_build_takes_and_leaves),
        case(
            "a_cached_build_asks_nobody",
            NEEDS,
            a_cached_build_asks_nobody,
        ),
        case("several_steps_at_once", NEEDS, several_steps_at_once),
        case("what_cannot_be_had", NEEDS, what_cannot_be_had),
        case("jobs_that_export_at_once", NEEDS, jobs_that_export_at_once),
        case(
            "jobs_that_replace_every_name_at_once",
            NEEDS,
            jobs_that_replace_every_name_at_once,
        ),
        case("a_file_is_added_to", NEEDS, a_file_is_added_to),
        case("a_pack_that_was_begun", NEEDS, a_pack_that_was_begun),
        case("a_registry_that_fails", NEEDS, a_registry_that_fails),
        case("killed_while_it_imports", NEEDS, killed_while_it_imports),
        case("an_export_interrupted", NEEDS, |world| {
            export_stopped(world, Signal::SIGINT);
        }),
        case("an_export_killed", NEEDS, |world| {
            export_stopped(world, Signal::SIGKILL);
        }),
        case("listed_and_removed", NEEDS, listed_and_removed),
        case("something_else_is_there", NEEDS, something_else_is_there),
        case(
            "owners_without_ids",
            &[Root, OrdinaryUser, Setpriv, Busybox],
            owners_without_ids,
        ),
    ]
}

/// Fills the cache mount `go` with a file of each kind, or says what is in it.
const FILL: &str = "
    FROM demo/base
    RUN --mount=type=cache,id=go,target=/c mkdir -p /c/mod/deep && seq 1 40000 > /c/mod/large && \
        echo one > /c/mod/one && ln /c/mod/one /c/again && ln -s mod/one /c/soft && \
        chmod 444 /c/mod/one && chmod 555 /c/mod/deep && touch -d '2001-02-03 04:05:06' /c/mod/large
    ";
const LOOK: &str = "
    FROM demo/base
    RUN --mount=type=cache,id=go,target=/c cd /c && find . ! -name mod ! -name . | sort > /seen; \
        stat -c '%n %a %h' again mod/deep >> /seen; stat -c '%n %y' mod/large >> /seen; \
        md5sum mod/large old >> /seen; cat soft >> /seen; true
    ";

/// A second host with the same base: a store of its own.
fn other(world: &World, arguments: &[&str]) -> Ran {
    on(world, "other", arguments).ok()
}

fn on<'w>(world: &'w World, store: &str, arguments: &[&str]) -> crate::support::Kiln<'w> {
    world.kiln(arguments).env("KILN_ROOT", world.path(store))
}

fn base_on(world: &World, store: &str) {
    let import = on(world, store, &["import", "-", "demo/base"]);
    import.stdin(world.base_archive()).ok();
}

fn seen_by(world: &World, store: &str) -> String {
    world.dockerfile(LOOK);
    on(world, store, &["build", "--no-cache", "-t", "look", "ctx"]).ok();
    on(world, store, &["run", "look", "cat", "/seen"])
        .ok()
        .stdout
}

fn filled(world: &World) -> String {
    world.base();
    world.dockerfile(FILL);
    world.build();
    let store = world.store();
    seen_by(world, store.to_str().unwrap())
}

fn from_host_to_host(world: &World) {
    let expected = filled(world);
    assert!(expected.contains("./mod/large"), "{expected}");
    let registry = Registry::start();
    let reference = format!("{}/team/cache:go", registry.host());
    base_on(world, "other");
    for place in [reference.as_str(), "./cache", "cache.tar"] {
        let told = world.kiln(&["mounts", "export", place]).ok().stdout;
        assert!(told.starts_with("exported go: 4 files, "), "{told}");
        let told = other(world, &["mounts", "import", place]).stdout;
        assert!(told.starts_with("imported go: 4 files, "), "{told}");
        assert_eq!(seen_by(world, "other"), expected);
        other(world, &["mounts", "rm", "go"]);
    }
    // What the registry lost is sent again.
    let (_, manifest) = registry.manifest("team/cache", "go").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        registry.forget_blob("team/cache", layer["digest"].as_str().unwrap());
    }
    let told = world.kiln(&["mounts", "export", &reference]).ok().stdout;
    assert!(!told.contains("nothing new"), "{told}");
    other(world, &["mounts", "import", &reference]);
    assert_eq!(seen_by(world, "other"), expected);
    // A second export of the same sends nothing and writes nothing.
    let sent = registry.log().len();
    let told = world
        .kiln(&["mounts", "export", "go", &reference])
        .ok()
        .stdout;
    assert!(told.ends_with(", nothing new\n"), "{told}");
    let log = registry.log().split_off(sent);
    let elsewhere = format!("{}/team/cache:other", registry.host());
    let told = world.kiln(&["mounts", "export", &elsewhere]).ok().stdout;
    assert!(told.ends_with(", nothing new\n"), "{told}");
    let asks = |method: &str| matches!(method, "GET" | "HEAD");
    assert!(log.iter().all(|request| asks(&request.method)), "{log:?}");
    // And after a small change as much as changed.
    world
        .dockerfile("FROM demo/base\nRUN --mount=type=cache,id=go,target=/c echo more > /c/more\n");
    world.build();
    let sent = registry.log().len();
    let told = world.kiln(&["mounts", "export", &reference]).ok().stdout;
    assert!(
        told.contains(" new, ") && told.ends_with(" there already\n"),
        "{told}"
    );
    let log = registry.log().split_off(sent);
    let uploads = log
        .iter()
        .filter(|request| request.method == "PUT" && request.path.contains("/uploads/"));
    // One pack, the tree and the config.
    assert_eq!(uploads.count(), 3, "{log:?}");
}

fn through_a_pipe(world: &World) {
    let expected = filled(world);
    base_on(world, "other");
    let script = "\"$0\" mounts export - | KILN_ROOT=$PWD/other \"$0\" mounts import -";
    let kiln = env!("CARGO_BIN_EXE_kiln");
    let ran = world.program("sh", &["-c", script, kiln]).ok();
    assert!(
        ran.stdout.starts_with("imported go: 4 files"),
        "{}",
        ran.whole()
    );
    assert!(
        ran.stderr.contains("exported go: 4 files"),
        "{}",
        ran.whole()
    );
    assert_eq!(seen_by(world, "other"), expected);
}

/// A step that counts how often it was run with this cache.
const COUNT: &str =
    "RUN --mount=type=cache,id=count,target=/c echo x >> /c/runs && wc -l < /c/runs > /runs";

fn travels(place: &str) -> [String; 2] {
    [
        format!("--mounts-from={place}"),
        format!("--mounts-to={place}"),
    ]
}

fn a_build_takes_and_leaves(world: &World) {
    let registry = Registry::start();
    let [from, to] = travels(&format!("{}/cache:ci", registry.host()));
    world.dockerfile(&format!("FROM demo/base\n{COUNT}\n"));
    // Each job begins with nothing but what the one before left.
    for job in ["1", "2", "3"] {
        base_on(world, job);
        let arguments = ["build", "--progress=plain", "-t", "app", &from, &to, "ctx"];
        let ran = on(world, job, &arguments).ok();
        let runs = on(world, job, &["run", "app", "cat", "/runs"]).ok().stdout;
        assert_eq!(runs.trim(), job, "{}", ran.stderr);
        let words = match job {
            "1" => "there are no cache mounts at ",
            _ => "the cache mount `count` comes from ",
        };
        assert!(ran.stderr.contains(words), "{}", ran.stderr);
        assert!(ran.stderr.contains("1 changed, "), "{}", ran.stderr);
        // Nothing of it stays beside the mount.
        let blobs = std::fs::read_dir(world.path(job).join("blobs/sha256")).unwrap();
        assert_eq!(blobs.count(), 0);
    }
    // What is here is not replaced.
    on(
        world,
        "1",
        &["build", "--no-cache", "-t", "app", &from, "ctx"],
    )
    .ok();
    let runs = on(world, "1", &["run", "app", "cat", "/runs"]).ok().stdout;
    assert_eq!(runs.trim(), "2");
}

fn a_cached_build_asks_nobody(world: &World) {
    let registry = Registry::start();
    let [from, to] = travels(&format!("{}/cache:ci", registry.host()));
    world.base();
    world.dockerfile(&format!("FROM demo/base\n{COUNT}\nRUN echo more > /more\n"));
    let build = |more: &[&str]| {
        let arguments = [&["build", "-t", "app", &from, &to], more, &["ctx"]].concat();
        world.kiln(&arguments).ok()
    };
    build(&[]);
    let asked = registry.log().len();
    // Nothing runs that needs the mount, though it is gone.
    world.kiln(&["mounts", "rm", "--all"]).ok();
    build(&[]);
    world.dockerfile(&format!(
        "FROM demo/base\n{COUNT}\nRUN echo other > /more\n"
    ));
    build(&[]);
    assert_eq!(registry.log().len(), asked);
    assert_eq!(
        world.kiln(&["mounts", "ls", "--format=json"]).ok().stdout,
        ""
    );
    // Now it does.
    build(&["--no-cache"]);
    assert_eq!(world.sh("app", "cat /runs").trim(), "2");
}

fn several_steps_at_once(world: &World) {
    filled(world);
    let registry = Registry::start();
    let place = format!("{}/cache", registry.host());
    world.kiln(&["mounts", "export", &place]).ok();
    base_on(world, "other");
    // Both steps want it at the same time, and one brings it.
    world.dockerfile(
        "
        FROM demo/base AS one
        RUN --mount=type=cache,id=go,target=/c cat /c/soft > /one
        FROM demo/base AS two
        RUN --mount=type=cache,id=go,target=/c,sharing=locked --mount=type=cache,id=absent,target=/d \
            cat /c/soft > /two; ls /d >> /two
        FROM demo/base
        COPY --from=one /one /
        COPY --from=two /two /
        ",
    );
    let begun = registry.log().len();
    other(
        world,
        &["build", "-t", "app", "--mounts-from", &place, "ctx"],
    );
    let seen = on(world, "other", &["run", "app", "cat", "/one", "/two"]).ok();
    assert_eq!(seen.stdout, "one\none\n");
    let log = registry.log().split_off(begun);
    let manifests = log
        .iter()
        .filter(|request| request.method == "GET" && request.path.contains("/manifests/"));
    assert_eq!(manifests.count(), 1, "{log:?}");
}

fn what_cannot_be_had(world: &World) {
    world.base();
    world.dockerfile(&format!("FROM demo/base\n{COUNT}\n"));
    let nobody = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("{}/cache", gone.local_addr().unwrap())
    };
    let ran = world
        .kiln(&[
            "build",
            "--no-cache",
            "--mounts-from",
            &nobody,
            "--mounts-from=./nothing",
            "ctx",
        ])
        .ok();
    assert!(
        ran.stderr
            .contains("no cache mounts were taken from 127.0.0.1:"),
        "{}",
        ran.stderr
    );
    let ran = world
        .kiln(&["build", "--no-cache", "--mounts-to", &nobody, "ctx"])
        .run();
    assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
    for (part, arguments) in [
        ("nothing", &["mounts", "import", "./nothing"][..]),
        ("no_such_mount", &["mounts", "export", "other", "./cache"]),
        ("no_place", &["mounts", "export", "cache.tar.zst"]),
        ("stream", &["build", "--mounts-to=-", "ctx"]),
    ] {
        let ran = world.kiln(arguments).run();
        assert!(!ran.status.success());
        world.snapshot_of(part, &ran.whole());
    }
    world.kiln(&["mounts", "export", "./cache"]).ok();
    let ran = world
        .kiln(&["mounts", "import", "--id=other", "./cache"])
        .run();
    world.snapshot_of("not_exported", &ran.whole());
}

fn jobs_that_export_at_once(world: &World) {
    let registry = Registry::start();
    let reference = format!("{}/team/cache", registry.host());
    let jobs = ["a", "b", "c", "d"];
    for job in jobs {
        base_on(world, job);
        let step = format!("RUN --mount=type=cache,id={job},target=/c echo {job} > /c/f");
        world.dockerfile(&format!("FROM demo/base\n{step}\n"));
        on(world, job, &["build", "-q", "ctx"]).ok();
    }
    let running = jobs.map(|job| on(world, job, &["mounts", "export", &reference]).spawn());
    for job in running {
        let ran = job.wait();
        assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
    }
    let told = other(world, &["mounts", "import", &reference]).stdout;
    let ids: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split([' ', ':']).nth(1))
        .collect();
    assert_eq!(ids, jobs);
    // The same into one directory, which all of them find missing or just begun.
    for round in 0..10 {
        let place = format!("./cache-{round}");
        let running = jobs.map(|job| on(world, job, &["mounts", "export", &place]).spawn());
        for job in running {
            let ran = job.wait();
            assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
        }
        let told = other(world, &["mounts", "import", &place]).stdout;
        assert_eq!(told.lines().count(), jobs.len(), "{told}");
    }
}

/// Fills a cache mount of the id `job` in a store of its own.
fn job(world: &World, job: &str) {
    base_on(world, job);
    let step = format!("RUN --mount=type=cache,id={job},target=/c echo {job} > /c/f");
    world.dockerfile(&format!("FROM demo/base\n{step}\n"));
    on(world, job, &["build", "-q", "ctx"]).ok();
}

/// The ids that an import brings to a new host.
fn imported(world: &World, store: &str, place: &str) -> Vec<String> {
    let told = on(world, store, &["mounts", "import", "-q", place])
        .ok()
        .stdout;
    let ids = told
        .lines()
        .filter_map(|line| line.split([' ', ':']).nth(1));
    ids.map(str::to_owned).collect()
}

fn jobs_that_replace_every_name_at_once(world: &World) {
    let registry = Registry::start();
    let reference = format!("{}/team/cache:go", registry.host());
    for name in ["a", "b", "c"] {
        job(world, name);
    }
    on(world, "a", &["mounts", "export", &reference]).ok();
    for name in ["go-kiln-1", "go-kiln-2", "go"] {
        let barrier = Arc::new(Barrier::new(2));
        for _ in 0..2 {
            registry.inject(Fault::TogetherUpload {
                path: format!("/manifests/{name}"),
                barrier: Arc::clone(&barrier),
            });
        }
    }
    let running = ["b", "c"].map(|job| on(world, job, &["mounts", "export", &reference]).spawn());
    for job in running {
        let ran = job.wait();
        assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
    }
    assert!(registry.pending_faults().is_empty());
    assert_eq!(imported(world, "other", &reference), ["a", "b", "c"]);
}

fn a_file_is_added_to(world: &World) {
    for name in ["a", "b"] {
        job(world, name);
    }
    let inode = || std::fs::metadata(world.path("cache.tar")).unwrap();
    let inode = || std::os::unix::fs::MetadataExt::ino(&inode());
    // What somebody made to have the name.
    world.write("cache.tar", "");
    on(world, "a", &["mounts", "export", "cache.tar"]).ok();
    on(world, "b", &["mounts", "export", "cache.tar"]).ok();
    assert_eq!(imported(world, "other", "cache.tar"), ["a", "b"]);
    let before = inode();
    let told = on(world, "b", &["mounts", "export", "cache.tar"])
        .ok()
        .stdout;
    assert!(told.ends_with(", nothing new\n"), "{told}");
    assert_eq!(inode(), before);
    // All at once, with a new picture of each.
    for name in ["a", "b", "other"] {
        let step = format!("RUN --mount=type=cache,id=new-{name},target=/c seq 1 5000 > /c/f");
        world.dockerfile(&format!("FROM demo/base\n{step}\n"));
        if name == "other" {
            base_on(world, name);
        }
        on(world, name, &["build", "-q", "ctx"]).ok();
    }
    let running =
        ["a", "b", "other"].map(|job| on(world, job, &["mounts", "export", "cache.tar"]).spawn());
    for job in running {
        let ran = job.wait();
        assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
    }
    let all = imported(world, "third", "cache.tar");
    assert_eq!(all, ["a", "b", "new-a", "new-b", "new-other"]);
    // What is something else stays.
    world.write("else.tar", "no archive");
    let ran = on(world, "a", &["mounts", "export", "else.tar"]).run();
    assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
    assert_eq!(world.read("else.tar"), "no archive");
}

fn a_pack_that_was_begun(world: &World) {
    world.base();
    world.dockerfile(
        "FROM demo/base\n\
         RUN --mount=type=cache,id=go,target=/c dd if=/dev/urandom of=/c/f bs=1M count=3 2> /dev/null\n",
    );
    world.build();
    let registry = Registry::start();
    let reference = format!("{}/team/cache:go", registry.host());
    let told = world
        .kiln(&["mounts", "export", "--progress=plain", &reference])
        .ok();
    assert!(told.stderr.contains(" sent"), "{}", told.stderr);
    let (_, manifest) = registry.manifest("team/cache", "go").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let pack = manifest["layers"][1]["digest"].as_str().unwrap().to_owned();
    let path = format!("/blobs/{pack}");
    registry.inject(Fault::CutAfter {
        path: path.clone(),
        bytes: 2 << 20,
    });
    registry.inject(Fault::Status {
        path: path.clone(),
        status: 404,
        retry_after: None,
    });
    let ran = on(world, "other", &["mounts", "import", &reference]).run();
    assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
    assert!(registry.pending_faults().is_empty());
    let before = registry.log().len();
    let told = on(
        world,
        "other",
        &["mounts", "import", "--progress=plain", &reference],
    )
    .ok();
    assert!(told.stderr.contains(" fetched"), "{}", told.stderr);
    let log = registry.log().split_off(before);
    let asked = log.iter().filter(|request| request.path.ends_with(&path));
    let ranges: Vec<_> = asked.map(|request| request.range.clone()).collect();
    assert_eq!(ranges, [Some(format!("bytes={}-", 2 << 20))], "{log:?}");
    // Nothing of it is left when the mount is whole.
    let hex = pack.trim_start_matches("sha256:");
    assert!(!world.path("other/blobs/sha256").join(hex).exists());
}

fn a_registry_that_fails(world: &World) {
    let expected = filled(world);
    let registry = Registry::start();
    let reference = format!("{}/team/cache", registry.host());
    let path = |path: &str| path.to_owned();
    registry.inject(Fault::Status {
        path: path("/uploads/"),
        status: 500,
        retry_after: None,
    });
    registry.inject(Fault::Drop {
        path: path("/uploads/"),
    });
    world.kiln(&["mounts", "export", &reference]).ok();
    registry.inject(Fault::CutAfter {
        path: path("/blobs/"),
        bytes: 100,
    });
    registry.inject(Fault::Status {
        path: path("/manifests/"),
        status: 429,
        retry_after: Some(path("0")),
    });
    base_on(world, "other");
    other(world, &["mounts", "import", &reference]);
    assert_eq!(seen_by(world, "other"), expected);
    // What lies is refused, and what is here stays.
    world.dockerfile(
        "FROM demo/base\nRUN --mount=type=cache,id=go,target=/c seq 1 90000 > /c/new\n",
    );
    world.build();
    world.kiln(&["mounts", "export", &reference]).ok();
    registry.inject(Fault::WrongBytes {
        path: path("/blobs/"),
    });
    let ran = on(world, "other", &["mounts", "import", &reference]).run();
    assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
    assert_eq!(seen_by(world, "other"), expected);
}

fn killed_while_it_imports(world: &World) {
    let expected = filled(world);
    world.kiln(&["mounts", "export", "cache.tar"]).ok();
    base_on(world, "other");
    let step = "RUN --mount=type=cache,id=go,target=/c seq 1 5000 > /c/old";
    let old = |world: &World| {
        world.dockerfile(&format!("FROM demo/base\n{step}\n"));
        other(world, &["mounts", "rm", "--all"]);
        other(world, &["build", "--no-cache", "-q", "ctx"]);
    };
    old(world);
    let before = seen_by(world, "other");
    for pause in [0, 5, 10, 20, 40, 60, 80, 120] {
        let running = on(world, "other", &["mounts", "import", "cache.tar"]).spawn();
        std::thread::sleep(Duration::from_millis(pause));
        running.signal(Signal::SIGKILL);
        running.wait();
        let now = seen_by(world, "other");
        assert!(now == before || now == expected, "{now}");
        if now == expected {
            old(world);
        }
    }
    other(world, &["mounts", "import", "cache.tar"]);
    assert_eq!(seen_by(world, "other"), expected);
    other(world, &["prune"]);
    let work = std::fs::read_dir(world.path("other/work")).unwrap();
    assert_eq!(work.count(), 0);
}

/// Stops an export while a pack is on its way, and while each of its names is about to be put: what lay
/// there is whole, and the next export takes it up.
fn export_stopped(world: &World, signal: Signal) {
    world.base();
    let write = |name: &str| {
        world.dockerfile(&format!(
            "FROM demo/base\n\
             RUN --mount=type=cache,id=go,target=/c seq 1 90000 | sed s/^/{name}/ > /c/{name}\n"
        ));
        world.build();
    };
    let mine = world.store();
    let mine = mine.to_str().unwrap();
    let registry = Registry::start();
    let reference = format!("{}/team/cache:go", registry.host());
    let places = [reference.as_str(), "./cache", "cache.tar"];
    write("0");
    for place in places {
        world.kiln(&["mounts", "export", place]).ok();
    }
    let mut old = seen_by(world, mine);
    base_on(world, "other");
    let there = |place: &str| {
        other(world, &["mounts", "import", place]);
        let seen = seen_by(world, "other");
        other(world, &["mounts", "rm", "--all"]);
        seen
    };
    let paths = [
        "/blobs/uploads/",
        "/manifests/go-kiln-1",
        "/manifests/go-kiln-2",
        "/manifests/go",
    ];
    for (path, name) in paths.into_iter().zip(["1", "2", "3", "4"]) {
        write(name);
        let new = seen_by(world, mine);
        registry.inject(Fault::StallUpload {
            path: path.to_owned(),
            bytes: 1,
        });
        let export = world.kiln(&["mounts", "export", &reference]).spawn();
        wait_until("nothing was sent", || registry.pending_faults().is_empty());
        export.signal(signal);
        let ended = export.wait();
        assert!(!ended.status.success(), "{}", ended.whole());
        let seen = there(&reference);
        assert!(seen == old || seen == new, "{path}: {seen}");
        old = seen;
    }
    let new = seen_by(world, mine);
    for place in &places[1..] {
        let old = there(place);
        for pause in [0, 5, 10, 20, 40] {
            let export = world.kiln(&["mounts", "export", place]).spawn();
            std::thread::sleep(Duration::from_millis(pause));
            export.signal(signal);
            export.wait();
            let seen = there(place);
            assert!(seen == old || seen == new, "{place}: {seen}");
        }
    }
    for place in places {
        world.kiln(&["mounts", "export", place]).ok();
        assert_eq!(there(place), new);
    }
}

fn listed_and_removed(world: &World) {
    world.base();
    world.dockerfile(
        "
        FROM demo/base
        RUN --mount=type=cache,id=free,target=/f,sharing=private --mount=type=cache,target=/c,sharing=locked \
            touch /c/here; while ! test -e /c/go; do sleep 0.01; done
        ",
    );
    let build = world.kiln(&["build", "ctx"]).spawn();
    let pid = build.pid().to_string();
    let cache = world.wait_in_caches("here");
    let listed = world.kiln(&["mounts", "ls"]).ok().stdout;
    assert!(listed.contains(&format!("locked   pid {pid}")), "{listed}");
    let ran = world.kiln(&["mounts", "rm", "/c"]).run();
    assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
    let words = format!("error: the cache mount `/c` is in use by kiln with pid {pid}\n");
    assert!(ran.stderr.starts_with(&words), "{}", ran.stderr);
    let export = world.kiln(&["mounts", "export", "./cache"]).spawn();
    std::fs::write(cache.join("go"), "").unwrap();
    assert_eq!(build.wait().status.code(), Some(0));
    // It waited, so that it has what the step left.
    assert_eq!(export.wait().stdout.lines().count(), 2);
    let json = world
        .kiln(&["mounts", "ls", "--format", "json"])
        .ok()
        .stdout;
    let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let mounts: Vec<_> = json.lines().map(of).collect();
    assert_eq!(mounts[0]["id"], "/c");
    assert_eq!(
        (&mounts[0]["files"], &mounts[0]["sharing"]),
        (&2.into(), &"locked".into())
    );
    assert_eq!(
        (&mounts[1]["id"], &mounts[1]["sharing"]),
        (&"free".into(), &"private".into())
    );
    assert_eq!(mounts[1]["in_use"], false);
    let told = world.kiln(&["mounts", "rm", "--all"]).ok().stdout;
    assert_eq!(told, "removed /c\nremoved free\n");
    let ran = world.kiln(&["mounts", "rm", "/c"]).run();
    world.snapshot_of("gone", &ran.whole());
    let left = std::fs::read_dir(world.store().join("mounts")).unwrap();
    assert_eq!(left.count(), 0);
}

fn something_else_is_there(world: &World) {
    filled(world);
    let registry = Registry::start();
    let config = registry.add_blob("app", b"{}");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2
        },
        "layers": [],
    });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let digest =
        registry.add_manifest("app", Some("latest"), kind, manifest.to_string().as_bytes());
    let reference = format!("{}/app", registry.host());
    for command in ["import", "export"] {
        let ran = world.kiln(&["mounts", command, &reference]).run();
        assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
        assert!(
            ran.stderr.contains("holds an image, not cache mounts"),
            "{}",
            ran.stderr
        );
    }
    let (_, kept) = registry.manifest("app", "latest").unwrap();
    assert_eq!(kiln_test_registry::digest_of(&kept), digest);
    // The results of steps are another cache.
    let cache = format!("type=registry,ref={}/steps", registry.host());
    world
        .kiln(&["build", "-q", "--cache-to", &cache, "ctx"])
        .ok();
    let reference = format!("{}/steps", registry.host());
    let ran = world.kiln(&["mounts", "import", &reference]).exits(1);
    assert!(
        ran.stderr
            .contains("holds a cache of steps, not cache mounts"),
        "{}",
        ran.stderr
    );
}

fn owners_without_ids(world: &World) {
    let user = User::new(world, "user");
    world.base();
    world.dockerfile(
        "
        FROM demo/base
        RUN --mount=type=cache,id=c,target=/c echo a > /c/a && mkdir /c/d && echo b > /c/d/b && \
            chown 5:6 /c/a && chown -R 33:34 /c/d && chmod 4555 /c/a && chmod 500 /c/d
        ",
    );
    world.build();
    world.kiln(&["mounts", "export", "there.tar"]).ok();
    world.write(
        "back/Dockerfile",
        "FROM demo/base\nRUN --mount=type=cache,id=c,target=/c cat /c/a /c/d/b && echo new > /c/new\n",
    );
    user.ok(
        "kiln import base.tar demo/base; kiln mounts import there.tar; kiln build back; kiln mounts ls;
         kiln mounts export $HOME/back.tar",
    );
    let listing = "FROM demo/base\nRUN --mount=type=cache,id=c,target=/c cd /c; stat -c '%n %a %u:%g' a d d/b new > /seen\n";
    world.write("ctx/Dockerfile", listing);
    world.kiln(&["mounts", "import", "user/back.tar"]).ok();
    world.build();
    assert_eq!(
        world.sh("app", "cat /seen"),
        "a 4555 5:6\nd 500 33:34\nd/b 644 33:34\nnew 644 0:0\n"
    );
    assert!(!Path::new("/c").exists());
}
