//! Builds that are killed or stopped at random instants.

use std::path::Path;
use std::time::{Duration, Instant};

use kiln_test_registry::Registry;
use nix::sys::signal::Signal;

use crate::support::Capability::{self, Containers};
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("killed_at_any_instant", NEEDS, killed_at_any_instant),
        case("interrupted_at_any_instant", NEEDS, |world| {
            stopped_at_any_instant(world, Signal::SIGINT);
        }),
        case("terminated_at_any_instant", NEEDS, |world| {
            stopped_at_any_instant(world, Signal::SIGTERM);
        }),
        case("load_killed_at_any_instant", NEEDS, load_killed),
        case("save_killed_at_any_instant", NEEDS, save_killed),
        case("login_killed_at_any_instant", &[], login_killed),
    ]
}

const DOCKERFILE: &str = "
    FROM demo/base AS count
    WORKDIR /w
    COPY src /w/src
    RUN --mount=type=cache,target=/c sort src/a > sorted; cp sorted /c/last; sleep 0.05
    RUN wc -l < sorted > lines; mkdir -p deep/er; cp sorted deep/er/copy
    FROM demo/base AS other
    RUN sleep 0.05; seq 1000 > /numbers
    RUN rm -rf /var; ln -s numbers /link; chmod 600 /numbers
    FROM demo/base
    COPY --from=count /w /w
    COPY --from=other /numbers /link /
    RUN cat /w/lines /numbers > /sum
    ";

/// How often: a hundred times with `KILN_TEST_LONG`, else so often that nobody waits for it.
fn rounds(short: usize) -> usize {
    match std::env::var_os("KILN_TEST_LONG") {
        Some(_) => 100,
        None => short,
    }
}

/// A generator of numbers below 1, whose seed is left in the file `seed`.
struct Random(u64);

impl Random {
    fn new(world: &World) -> Random {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let seed: u64 = since.subsec_nanos().into();
        world.write("seed", format!("{seed}\n"));
        Random(seed)
    }

    fn next(&mut self) -> f64 {
        // Knuth's constants; the high bits are the random ones.
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn source(world: &World, round: usize) {
    world.write("ctx/src/a", format!("b\na\n{round}\n"));
    world.write("ctx/src/sub/b", "same\n");
}

/// `kiln build`, with everything in the result a function of the sources.
const BUILD: [&str; 3] = ["build", "--quiet", "ctx"];

/// What an image is: its id, and the content of its layers.
fn image(world: &World, store: &Path) -> serde_json::Value {
    let kiln = |arguments: &[&str]| {
        let kiln = world.kiln(arguments).env("KILN_ROOT", store);
        kiln.env("SOURCE_DATE_EPOCH", "1000000000").ok()
    };
    let id = kiln(&BUILD).id().to_owned();
    let mut found: serde_json::Value =
        serde_json::from_str(&kiln(&["inspect", &id]).stdout).unwrap();
    found.as_object_mut().unwrap().remove("names");
    found
}

/// How long a build of changed sources takes here.
fn duration(world: &World) -> Duration {
    source(world, usize::MAX);
    world.kiln(&BUILD).ok();
    source(world, usize::MAX - 1);
    world.kiln(&BUILD).ok().took
}

fn killed_at_any_instant(world: &World) {
    world.base();
    world.dockerfile(DOCKERFILE);
    // How long a build takes at the most, as far as is known: machines are busier at some times.
    let mut whole = duration(world).mul_f64(1.1);
    let mut random = Random::new(world);
    let mut unfinished = 0;
    for round in 0..rounds(20) {
        // Every third build finds what the one before it left.
        if round % 3 != 2 {
            source(world, round);
        }
        let arguments: &[&str] = match round % 4 {
            0 => &["build", "--quiet", "--no-cache", "ctx"],
            _ => &BUILD,
        };
        let running = world
            .kiln(arguments)
            .env("SOURCE_DATE_EPOCH", "1000000000")
            .spawn();
        std::thread::sleep(whole.mul_f64(random.next()));
        running.signal(Signal::SIGKILL);
        let ran = running.wait();
        match ran.status.code() {
            None => {
                unfinished += 1;
                whole = whole.mul_f64(1.05);
            }
            Some(code) => {
                assert_eq!(code, 0, "{}", ran.stderr);
                whole = whole.mul_f64(0.8);
            }
        }
    }
    assert!(
        unfinished > rounds(20) / 3,
        "only {unfinished} builds were killed in time"
    );
    the_store_is_whole(world);
}

/// A build gives what it gives in a store that was never interrupted, and nothing is left behind.
fn the_store_is_whole(world: &World) {
    source(world, 0);
    let fresh = world.path("fresh");
    let after = image(world, &world.store());
    let base = world
        .kiln(&["import", "-", "demo/base"])
        .env("KILN_ROOT", &fresh);
    base.stdin(crate::support::base_archive()).ok();
    assert_eq!(after, image(world, &fresh));
    nothing_is_left(world);
}

/// Nothing of the killed builds runs, is mounted or lies about, and the sums are right.
fn nothing_is_left(world: &World) {
    let patience = Instant::now() + Duration::from_secs(10);
    while !world.leftovers().is_empty() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(world.leftovers(), Vec::<String>::new());
    world.kiln(&["prune"]).ok();
    for directory in ["work", "trash"] {
        let left: Vec<_> = std::fs::read_dir(world.store().join(directory))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
    let told = world.kiln(&["du"]).ok().stdout;
    let total = told.lines().last().unwrap();
    let total_bytes = size(total.trim_start_matches("total").trim());
    let real = world
        .program(
            "du",
            &["-s", "--block-size=1", world.store().to_str().unwrap()],
        )
        .ok();
    let real_bytes: f64 = real.stdout.split('\t').next().unwrap().parse().unwrap();
    let slack_bytes = 100_000.0 + real_bytes * 0.02;
    assert!(
        (total_bytes - real_bytes).abs() < slack_bytes,
        "du says {real_bytes}, kiln:\n{told}"
    );
}

/// Reads `2.7 MB`.
fn size(text: &str) -> f64 {
    let (number, unit) = text.split_once(' ').unwrap();
    let power = ["B", "kB", "MB", "GB"]
        .iter()
        .position(|known| *known == unit)
        .unwrap();
    number.parse::<f64>().unwrap() * 1000_f64.powi(i32::try_from(power).unwrap())
}

fn stopped_at_any_instant(world: &World, signal: Signal) {
    world.base();
    world.dockerfile(DOCKERFILE);
    let whole = duration(world).mul_f64(1.1);
    let mut random = Random::new(world);
    for round in 0..rounds(8) {
        source(world, round);
        let running = world
            .kiln(&BUILD)
            .env("SOURCE_DATE_EPOCH", "1000000000")
            .spawn();
        std::thread::sleep(whole.mul_f64(random.next()));
        running.signal(signal);
        let ran = running.wait();
        // Before it has begun to listen, a signal simply ends it.
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&ran.status);
        let ended_well =
            matches!(ran.status.code(), Some(0 | 130)) || by_signal == Some(signal as i32);
        assert!(ended_well, "{:?}\n{}", ran.status, ran.stderr);
        // What it started is gone before it is.
        assert_eq!(world.leftovers(), Vec::<String>::new());
        let work = std::fs::read_dir(world.store().join("work"))
            .unwrap()
            .count();
        assert!(
            work == 0 || by_signal.is_some(),
            "{work} directories of a build that was stopped"
        );
    }
    the_store_is_whole(world);
}

/// Builds `app` and saves it; returns the archive.
fn saved(world: &World) -> Vec<u8> {
    world.base();
    world.dockerfile("FROM demo/base\nRUN seq 20000 > /one\nRUN seq 30000 > /two\n");
    world.kiln(&["build", "-q", "-t", "app", "ctx"]).ok();
    world.kiln(&["save", "-o", "app.tar", "app"]).ok();
    std::fs::read(world.path("app.tar")).unwrap()
}

/// Kills a command at instants within the time that it takes.
fn kill_often(world: &World, arguments: &[&str], stdin: &str, mut check: impl FnMut()) {
    let run = || world.kiln(arguments).stdin(stdin);
    let whole = run().ok().took.mul_f64(1.1);
    let mut random = Random::new(world);
    for _ in 0..rounds(10) {
        let running = run().spawn();
        std::thread::sleep(whole.mul_f64(random.next()));
        running.signal(Signal::SIGKILL);
        let ran = running.wait();
        assert!(
            matches!(ran.status.code(), None | Some(0)),
            "{}",
            ran.whole()
        );
        check();
    }
    run().ok();
}

fn load_killed(world: &World) {
    saved(world);
    world.forget();
    let remove = || {
        let images = world.kiln(&["images", "-q"]).ok().stdout;
        if images.trim().is_empty() {
            return;
        }
        // What has its name is whole.
        if world.kiln(&["inspect", "app"]).run().status.success() {
            let ran = world.kiln(&["run", "app", "tail", "-n", "1", "/two"]).ok();
            assert_eq!(ran.stdout, "30000\n");
            world.kiln(&["rmi", "app"]).ok();
        }
    };
    kill_often(world, &["load", "-i", "app.tar"], "", remove);
    let ran = world.kiln(&["run", "app", "tail", "-n", "1", "/one"]).ok();
    assert_eq!(ran.stdout, "20000\n");
    nothing_is_left(world);
    // Three layers with their archives, and nothing of those that were killed.
    for (part, count) in [("layers", 3), ("blobs/sha256", 3)] {
        let there = std::fs::read_dir(world.store().join(part)).unwrap();
        assert_eq!(there.count(), count, "{part}");
    }
}

fn save_killed(world: &World) {
    let archive = saved(world);
    let file = world.path("out.tar");
    let whole = || match std::fs::read(&file) {
        Ok(bytes) => {
            assert!(bytes == archive, "an archive is half-written");
            std::fs::remove_file(&file).unwrap();
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    };
    kill_often(world, &["save", "-o", "out.tar", "app"], "", whole);
    assert!(std::fs::read(&file).unwrap() == archive);
    // A directory that was left unfinished is gone on with, and an index lists what is there.
    let layout = world.path("layout");
    let whole = || {
        let Ok(index) = std::fs::read(layout.join("index.json")) else {
            return;
        };
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        let blob = layout.join("blobs").join(digest.replace(':', "/"));
        assert!(blob.is_file(), "{index}");
        std::fs::remove_dir_all(&layout).unwrap();
    };
    let line = ["save", "--format", "oci-dir", "-o", "layout", "app"];
    kill_often(world, &line, "", whole);
    world.forget();
    world.kiln(&["load", "-i", "layout"]).ok();
    nothing_is_left(world);
}

fn login_killed(world: &World) {
    let registry = Registry::start();
    let host = registry.host();
    let others =
        "{\n\t\"auths\": {\n\t\t\"other.example\": {\n\t\t\t\"auth\": \"YTpi\"\n\t\t}\n\t}\n}";
    world.write("../home/config.json", others);
    let login = ["login", "-u", "anna", "--password-stdin", &host];
    let check = || {
        let config: serde_json::Value =
            serde_json::from_str(&world.read("../home/config.json")).unwrap();
        assert_eq!(config["auths"]["other.example"]["auth"], "YTpi");
        let entry = &config["auths"][&host]["auth"];
        assert!(entry.is_null() || *entry == "YW5uYTpzZWNyZXQ=", "{config}");
        world.write("../home/config.json", others);
    };
    kill_often(world, &login, "secret\n", check);
    let config = world.read("../home/config.json");
    assert!(
        config.contains("YW5uYTpzZWNyZXQ=") && config.contains("YTpi"),
        "{config}"
    );
    let left: Vec<_> = std::fs::read_dir(world.path("../home"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().contains("config.json"))
        .collect();
    assert_eq!(left, ["config.json"]);
}
