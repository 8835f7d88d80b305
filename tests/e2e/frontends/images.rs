//! Front ends that are images, run in the sandbox.

use nix::sys::signal::Signal;

use super::HELLO;
use crate::support::Capability::{self, Busybox, Containers};
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Busybox];
    vec![
        case("an_image_named_by_the_file", NEEDS, named_by_the_file),
        case("an_image_named_by_the_caller", NEEDS, named_by_the_caller),
        case("an_image_reaches_nothing", NEEDS, reaches_nothing),
        case("an_image_that_hangs", NEEDS, hangs),
        case("an_image_that_is_interrupted", NEEDS, interrupted),
        case("an_image_that_takes_too_much", NEEDS, takes_too_much),
        case(
            "an_image_that_speaks_something_else",
            NEEDS,
            speaks_something_else,
        ),
        case("an_image_that_is_not_there", NEEDS, is_not_there),
        case("an_image_is_not_fetched_for_a_plan", &[], not_fetched),
    ]
}

/// Makes the image `demo/front`, whose program is a shell script that says `hello` first.
fn image(world: &World, script: &str) {
    world.base();
    world.write("front/script", format!("{HELLO}\n{script}\n"));
    world.write(
        "front/Dockerfile",
        "FROM demo/base\nCOPY script /script\nENTRYPOINT [\"sh\", \"/script\"]\n",
    );
    world
        .kiln(&["build", "-q", "-t", "demo/front:1", "front"])
        .ok();
}

/// A file whose second line becomes a file of the image.
const FILE: &str = "# syntax=demo/front:1\nhello from a file\n";

const COPIER: &str = r#"
read -r build
word=$(echo "$build" | sed -n 's/.*"content":"\([A-Za-z0-9+/=]*\)".*/\1/p' | base64 -d | sed -n 2p)
say '{"type":"plan","plan":"%0 = file scratch { mkfile /word data=\"'"$word"'\" }\nresult %0","display":{"%0":{"name":"word","line":2}}}'
"#;

fn named_by_the_file(world: &World) {
    image(world, COPIER);
    world.write("ctx/Dockerfile", FILE);
    let args = ["build", "-t", "app", "-o", "type=local,dest=out", "ctx"];
    let first = world.kiln(&args).ok();
    world.snapshot_of("first", &first.whole());
    assert_eq!(world.read("out/word"), "hello from a file");
    world.snapshot_of("second", &world.kiln(&args).ok().table());
    // A plan may ask for the front end, if it may ask at all.
    let planned = world.kiln(&["plan", "--resolve", "ctx"]).ok();
    world.snapshot_of("plan", &planned.whole());
}

fn named_by_the_caller(world: &World) {
    image(world, COPIER);
    world.write("app.conf", FILE);
    std::fs::create_dir_all(world.path("ctx")).unwrap();
    let args = [
        "build",
        "--frontend",
        "image:demo/front:1",
        "-f",
        "app.conf",
    ];
    let built = world.kiln(&args).args(&["-o", "out", "ctx"]).ok();
    assert_eq!(world.read("out/word"), "hello from a file");
    world.snapshot(&built.table());
    // A build argument goes before what the file says.
    world.write(
        "app.conf",
        "# syntax=docker/dockerfile:1\nhello once more\n",
    );
    let built = world.kiln(&["build", "--build-arg", "BUILDKIT_SYNTAX=demo/front:1"]);
    built.args(&["-f", "app.conf", "-o", "other", "ctx"]).ok();
    assert_eq!(world.read("other/word"), "hello once more");
}

fn reaches_nothing(world: &World) {
    image(
        world,
        r#"
log() { say '{"type":"log","message":"'"$*"'"}'; }
log network: $(ls /sys/class/net 2>/dev/null || sed -n 's/:.*//p' /proc/net/dev)
touch /x 2>/dev/null && log the root can be written
touch /tmp/x && log tmp can be written
log files: $(ulimit -n)
log variables: $(env | sed 's/=.*//' | sort)
log descriptors: $(ls /proc/self/fd | wc -l)
read -r build
say '{"type":"read","id":1,"path":"secret"}'
read -r answer
log $(echo "$answer" | sed 's/.*"code":"\([a-z-]*\)".*/\1/')
say '{"type":"plan","plan":"%0 = local context\nresult %0"}'
"#,
    );
    world.write("ctx/Dockerfile", FILE);
    std::os::unix::fs::symlink(world.path("home"), world.path("ctx/secret")).unwrap();
    let built = world.kiln(&["build", "-o", "type=cacheonly", "ctx"]).ok();
    let said: Vec<&str> = built
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("demo/front:1: "))
        .collect();
    world.snapshot(&format!("{}\n", said.join("\n")));
}

fn hangs(world: &World) {
    image(world, "sleep 1000 & sleep 1001");
    world.write("ctx/Dockerfile", FILE);
    let kiln = world.kiln(&["build", "--frontend-timeout", "1s", "ctx"]);
    world.snapshot(&kiln.exits(1).whole());
    assert_eq!(world.leftovers(), [""; 0]);
}

fn interrupted(world: &World) {
    image(world, "trap '' INT TERM; while :; do sleep 1003; done");
    world.write("ctx/Dockerfile", FILE);
    let running = world.kiln(&["build", "ctx"]).spawn();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !world
        .leftovers()
        .iter()
        .any(|line| line.contains("sleep 1003"))
    {
        assert!(std::time::Instant::now() < deadline, "it never runs");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().status.code(), Some(130));
    assert_eq!(world.leftovers(), [""; 0]);
}

fn takes_too_much(world: &World) {
    image(world, "head -c 100000000 /dev/zero > /tmp/x || exit 9");
    world.write("ctx/Dockerfile", FILE);
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    let end = ran.stderr.lines().find(|line| line.starts_with("error:"));
    // The limit on files ends it by a signal, or the size of its /tmp by an error.
    assert!(
        end.is_some_and(|line| line.contains("before it returned a plan")),
        "{}",
        ran.stderr
    );
}

fn speaks_something_else(world: &World) {
    world.base();
    let speak = |name: &str, command: &str| {
        world.write("front/Dockerfile", format!("FROM demo/base\n{command}\n"));
        world
            .kiln(&["build", "-q", "-t", "demo/front:1", "front"])
            .ok();
        world.write("ctx/Dockerfile", FILE);
        let ran = world.kiln(&["build", "ctx"]).exits(1);
        world.snapshot_of(name, &ran.whole());
    };
    speak(
        "grpc",
        r#"CMD printf 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'; sleep 1000"#,
    );
    speak("words", "CMD echo I am no front end");
    speak("nothing", "CMD exit 1");
    speak("no_program", "ENV A=b");
}

fn is_not_there(world: &World) {
    world.write("ctx/Dockerfile", FILE);
    let kiln = world.kiln(&["build", "--offline", "ctx"]);
    world.snapshot(&kiln.exits(1).whole());
}

fn not_fetched(world: &World) {
    world.write("ctx/Dockerfile", FILE);
    world.snapshot(&world.kiln(&["plan", "ctx"]).exits(2).whole());
}
