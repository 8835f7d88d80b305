//! kiln.lock: made, used, moved, refused.

use kiln_test_registry::Registry;

use super::repositories::Forge;
use super::server::{Page, Server};
use crate::registries::server::{add_image, base_layer, config_with, hide_port};
use crate::support::Capability::{Containers, Git};
use crate::support::{Capability, Case, Ran, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("lock_of_all_kinds", &[Containers, Git], all_kinds),
        case("lock_makes_plans_exact", NEEDS, exact_plan),
        case("lock_of_triggers", NEEDS, triggers),
        case("locked_names_all_that_lacks", &[Containers, Git], lacks),
        case("lock_moves_one_image", NEEDS, moves),
        case("lock_drops_what_nobody_names", NEEDS, drops),
        case("lock_keeps_on_request", NEEDS, keeps),
        case("lock_that_cannot_be_read", NEEDS, unreadable),
        case("lock_of_something_gone", NEEDS, gone),
        case("lock_with_another_config", NEEDS, other_config),
        case("pull_beside_a_lock", NEEDS, pull),
        case("lock_beside_another_file", NEEDS, beside),
        case("lock_for_two_platforms", NEEDS, platforms),
        case("lock_of_the_store", NEEDS, of_the_store),
        case("lock_that_cannot_be_written", NEEDS, unwritable),
        case("lock_has_no_place", NEEDS, no_place),
        case("lock_is_checked_without_asking", NEEDS, checked),
        case("lock_of_times", &[Containers, Git], times),
        case("lock_in_a_repository", &[Containers, Git], in_a_repository),
        case("lock_answers_questions", NEEDS, questions),
    ]
}

/// A registry that holds the base as `base`, and as `tool`.
fn registry() -> Registry {
    let registry = Registry::start();
    for name in ["base", "tool"] {
        add_image(&registry, name, &[&base_layer()]);
    }
    registry
}

/// Lets a tag mean an image with another variable; returns its manifest.
fn retag(registry: &Registry, name: &str, variable: &str) -> String {
    let layer = base_layer();
    let config = config_with("amd64", &[&layer], &[variable]);
    registry.add_image(name, "latest", config.as_bytes(), &[&layer.bytes])
}

fn dockerfile(world: &World, registry: &Registry, text: &str) {
    world.dockerfile(&text.replace("HOST", &registry.host()));
}

fn requests(registry: &Registry, path: &str) -> usize {
    registry.count("GET", path) + registry.count("HEAD", path)
}

fn all_kinds(world: &World) {
    let (registry, forge) = (registry(), Forge::start(world));
    let server = &forge.server;
    server.put("/f", Page::new("one"));
    forge.repository("app", &[("file", "one")]);
    let text = "
        FROM HOST/base AS other
        ADD GIT#main /other/
        FROM HOST/tool
        ADD URL/f /f
        ADD GIT /src/
        RUN cat /f /src/file > /seen
    ";
    let text = text.replace("URL", &server.url(""));
    dockerfile(world, &registry, &text.replace("GIT", &forge.url("app")));
    let masked = |text: &str| {
        let text = hide_port(text, &registry.host());
        forge.masked(&text)
    };
    let made = world.kiln(&["lock", "ctx"]).ok();
    world.snapshot_of("made", &masked(&made.whole()));
    world.snapshot_of("file", &masked(&world.read("ctx/kiln.lock")));
    let lock = world.read("ctx/kiln.lock");
    let first = world.build();
    // Everything moves, and nothing of that is seen.
    server.put("/f", Page::new("two"));
    forge.commit("app", &[("file", "two")]);
    retag(&registry, "tool", "MOVED=yes");
    world.forget();
    server.put("/f", Page::new("one"));
    let again = world.kiln(&["build", "--locked", "-t", "app", "ctx"]).ok();
    assert_eq!(first.id().len(), again.id().len());
    assert_eq!(world.sh("app", "cat /seen; echo $MOVED"), "oneone\n");
    assert_eq!(
        requests(&registry, "/manifests/latest"),
        2,
        "{:?}",
        registry.log()
    );
    assert_eq!(world.read("ctx/kiln.lock"), lock);
    // What is locked stays, whatever it means by now; nobody is asked.
    let again = world.kiln(&["lock", "--offline", "ctx"]).ok();
    world.snapshot_of("again", &masked(&again.whole()));
    world.kiln(&["lock", "--check", "ctx"]).ok();
    assert_eq!(world.read("ctx/kiln.lock"), lock);
    let moved = world
        .kiln(&["lock", "--update", &forge.url("app"), "ctx"])
        .ok();
    world.snapshot_of("moved", &masked(&moved.whole()));
    server.put("/f", Page::new("three"));
    let moved = world.kiln(&["lock", "--update-all", "ctx"]).ok();
    world.snapshot_of("all_moved", &masked(&moved.whole()));
    world.build();
    assert_eq!(world.sh("app", "cat /seen; echo $MOVED"), "threetwoyes\n");
}

fn exact_plan(world: &World) {
    let registry = registry();
    retag(&registry, "base", "FROM_BASE=yes");
    dockerfile(
        world,
        &registry,
        "FROM HOST/base\nRUN true\nENV A=$FROM_BASE\n",
    );
    let plan = |world: &World| {
        world
            .kiln(&["plan", "ctx"])
            .env("KILN_ROOT", "/proc/version")
            .ok()
    };
    assert!(plan(world).stdout.contains("config=assumed"));
    world
        .kiln(&["lock", "--platform", "linux/amd64", "ctx"])
        .ok();
    let exact = plan(world).stdout;
    assert!(
        exact.contains("FROM_BASE=yes") && exact.contains("A=yes"),
        "{exact}"
    );
    assert!(exact.contains("\npin %0 = manifest sha256:"), "{exact}");
    assert!(!exact.contains("assumed"), "{exact}");
    let resolved = ["plan", "--resolve", "--platform", "linux/amd64", "ctx"];
    assert_eq!(world.kiln(&resolved).ok().stdout, exact);
    // The pin is used when the plan is built, too.
    retag(&registry, "base", "FROM_BASE=no");
    world.forget();
    let built = world
        .kiln(&["build", "--plan", "-"])
        .args(&["-t", "app"])
        .stdin(exact)
        .ok();
    assert_eq!(
        built.id(),
        world.kiln(&["build", "--locked", "ctx"]).ok().id()
    );
    assert_eq!(world.sh("app", "echo $A"), "yes\n");
    assert_eq!(requests(&registry, "/manifests/latest"), 1);
}

fn triggers(world: &World) {
    let registry = registry();
    let layer = base_layer();
    let mut config: serde_json::Value =
        serde_json::from_str(&config_with("amd64", &[&layer], &[])).unwrap();
    config["config"]["OnBuild"] = serde_json::json!([format!(
        "COPY --from={}/tool /etc/passwd /p",
        registry.host()
    )]);
    registry.add_image(
        "base",
        "latest",
        config.to_string().as_bytes(),
        &[&layer.bytes],
    );
    dockerfile(world, &registry, "FROM HOST/base\n");
    let made = world.kiln(&["lock", "ctx"]).ok();
    world.snapshot(&hide_port(&made.whole(), &registry.host()));
    world.kiln(&["build", "--locked", "ctx"]).ok();
}

fn lacks(world: &World) {
    let (registry, forge) = (registry(), Forge::start(world));
    forge.repository("app", &[("file", "one")]);
    let text = "
        ARG TAG=latest NOTE
        FROM HOST/base:$TAG AS build
        ADD GIT#main /src/
        ADD URL /f
        FROM HOST/tool
        COPY --from=build /src /src
        COPY --from=build /f /f
    ";
    let url = forge.server.url("/f");
    let text = text.replace("GIT", &forge.url("app")).replace("URL", &url);
    dockerfile(world, &registry, &text);
    let masked = |ran: &Ran| forge.masked(&hide_port(&ran.whole(), &registry.host()));
    let refused = world.kiln(&["build", "--locked", "ctx"]).exits(2);
    world.snapshot_of("no_lock", &masked(&refused));
    forge.server.put("/f", Page::new("x"));
    world.kiln(&["lock", "ctx"]).ok();
    let note = ["--build-arg", "NOTE=it's", "--build-arg", "TAG=1"];
    let more = [&note[..], &["--locked", "--platform", "linux/amd64", "ctx"]].concat();
    let refused = world.kiln(&["build"]).args(&more).exits(2);
    world.snapshot_of("other", &masked(&refused));
    // A plan asks nobody anyway, but may be asked to be exact.
    let refused = world.kiln(&["plan"]).args(&more).exits(2);
    world.snapshot_of("plan", &masked(&refused));
    // What lacks is resolved where nobody forbids it.
    add_image(&registry, "base", &[&base_layer()]);
    world.kiln(&["build", "ctx"]).ok();
}

fn moves(world: &World) {
    let registry = registry();
    dockerfile(
        world,
        &registry,
        "FROM HOST/base AS a\nFROM HOST/tool\nCOPY --from=a /etc/passwd /p\n",
    );
    world.kiln(&["lock", "ctx"]).ok();
    let old = world.read("ctx/kiln.lock");
    retag(&registry, "base", "A=b");
    retag(&registry, "tool", "A=b");
    let host = registry.host();
    let moved = world
        .kiln(&["lock", "--update", &format!("{host}/base"), "ctx"])
        .ok();
    world.snapshot_of("moved", &hide_port(&moved.whole(), &host));
    let new = world.read("ctx/kiln.lock");
    let lines = |text: &str| {
        text.lines()
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let added: Vec<String> = lines(&new).difference(&lines(&old)).cloned().collect();
    assert_eq!(added.len(), 3, "{added:?}");
    let unknown = world.kiln(&["lock", "--update", "alpine", "ctx"]).exits(2);
    world.snapshot_of("unknown", &hide_port(&unknown.whole(), &host));
    assert_eq!(world.read("ctx/kiln.lock"), new);
}

fn drops(world: &World) {
    let registry = registry();
    dockerfile(world, &registry, "FROM HOST/base AS a\nFROM HOST/tool\n");
    world.kiln(&["lock", "ctx"]).ok();
    dockerfile(world, &registry, "FROM HOST/tool\n");
    let check = world.kiln(&["lock", "--check", "ctx"]).exits(1);
    world.snapshot_of("check", &hide_port(&check.whole(), &registry.host()));
    // A stage less is no reason to refuse a build.
    world.kiln(&["build", "--locked", "ctx"]).ok();
    let made = world.kiln(&["lock", "ctx"]).ok();
    world.snapshot_of("dropped", &hide_port(&made.whole(), &registry.host()));
    assert!(!world.read("ctx/kiln.lock").contains("/base"));
}

fn keeps(world: &World) {
    let registry = registry();
    dockerfile(world, &registry, "ARG BASE=base\nFROM HOST/$BASE\n");
    world.kiln(&["lock", "ctx"]).ok();
    let tool = ["--build-arg", "BASE=tool", "ctx"];
    world.kiln(&["lock", "--keep"]).args(&tool).ok();
    world.kiln(&["build", "--locked"]).args(&tool).ok();
    world.kiln(&["build", "--locked", "ctx"]).ok();
}

fn unreadable(world: &World) {
    let registry = registry();
    dockerfile(world, &registry, "FROM HOST/base\n");
    let digest = "sha256:0123";
    for (name, text) in [
        ("malformed", "{\n  \"version\": \"kiln.lock/0\",\n<<<<<<< HEAD\n".to_owned()),
        ("newer", "{ \"version\": \"kiln.lock/7\", \"more\": {} }".to_owned()),
        ("unknown", "{ \"version\": \"kiln.lock/0\",\n \"more\": {} }".to_owned()),
        ("twice", "{ \"version\": \"kiln.lock/0\", \"git\": {\n \"a\": { \"commit\": \"b\" },\n \"a\": { \"commit\": \"c\" } } }".to_owned()),
        ("digest", format!("{{ \"version\": \"kiln.lock/0\", \"http\": {{ \"http://x/\": {{ \"checksum\": \"{digest}\" }} }} }}")),
        ("platform", "{ \"version\": \"kiln.lock/0\", \"platforms\": [\"a/b/c/d/e\"] }".to_owned()),
        ("empty", String::new()),
    ] {
        world.write("ctx/kiln.lock", &text);
        let refused = world.kiln(&["build", "ctx"]).exits(2);
        world.snapshot_of(name, &refused.whole());
        // Nothing is lost: it takes a decision to make another one.
        for command in ["plan", "lock"] {
            world.kiln(&[command, "ctx"]).exits(2);
            assert_eq!(world.read("ctx/kiln.lock"), text);
        }
    }
}

fn gone(world: &World) {
    let (registry, server) = (registry(), Server::start());
    server.put("/f", Page::new("one"));
    let text = format!("FROM HOST/base\nADD {}/f /f\n", server.url(""));
    dockerfile(world, &registry, &text);
    world.kiln(&["lock", "ctx"]).ok();
    let lock = world.read("ctx/kiln.lock");
    let masked = |ran: &Ran| {
        let text = hide_port(&ran.whole(), &registry.host());
        hide_port(&text[text.find("error:").unwrap()..], &server.host())
    };
    // Another file by now.
    server.put("/f", Page::new("two"));
    world.forget();
    world.snapshot_of("file", &masked(&world.kiln(&["build", "ctx"]).exits(1)));
    // No such image any more.
    server.put("/f", Page::new("one"));
    let digest = lock.split("\"manifest\": \"").nth(1).unwrap()[..71].to_owned();
    let other = format!("sha256:{}", "0".repeat(64));
    world.write("ctx/kiln.lock", lock.replace(&digest, &other));
    world.snapshot_of("image", &masked(&world.kiln(&["build", "ctx"]).exits(1)));
}

fn other_config(world: &World) {
    let registry = registry();
    dockerfile(world, &registry, "FROM HOST/base\nRUN true\n");
    world.kiln(&["lock", "ctx"]).ok();
    let lock = world.read("ctx/kiln.lock");
    world.write(
        "ctx/kiln.lock",
        lock.replace("/usr/sbin:", "/evil:/usr/sbin:"),
    );
    let refused = world.kiln(&["build", "ctx"]).exits(1);
    let told = hide_port(&refused.whole(), &registry.host());
    world.snapshot(&told[told.find("error:").unwrap()..]);
}

fn pull(world: &World) {
    let registry = registry();
    dockerfile(world, &registry, "FROM HOST/base\nRUN true\n");
    world.kiln(&["lock", "ctx"]).ok();
    let pin = retag(&registry, "base", "A=b");
    let built = world.kiln(&["build", "--pull", "-t", "app", "ctx"]).ok();
    assert_eq!(
        built.stderr.matches("`--pull` asks about nothing").count(),
        1,
        "{}",
        built.stderr
    );
    assert!(built.stderr.contains("`ctx/kiln.lock`"), "{}", built.stderr);
    assert_eq!(world.sh("app", "echo $A"), "\n");
    let plan = world.kiln(&["plan", "--pull", "--resolve", "ctx"]).ok();
    assert!(
        plan.stderr.contains("`--pull` asks about nothing"),
        "{}",
        plan.stderr
    );
    assert!(!plan.stdout.contains(&pin), "{}", plan.stdout);
    assert_eq!(requests(&registry, "/manifests/latest"), 1);
}

fn beside(world: &World) {
    let registry = registry();
    dockerfile(world, &registry, "FROM HOST/base\n");
    world.write(
        "ctx/dev.Dockerfile",
        format!("FROM {}/tool\n", registry.host()),
    );
    let dev = ["-f", "ctx/dev.Dockerfile", "ctx"];
    world.kiln(&["lock", "ctx"]).ok();
    world.kiln(&["lock"]).args(&dev).ok();
    assert!(world.read("ctx/kiln.lock").contains("/base:latest"));
    assert!(
        world
            .read("ctx/dev.Dockerfile.kiln.lock")
            .contains("/tool:latest")
    );
    world.kiln(&["build", "--locked"]).args(&dev).ok();
    world.kiln(&["build", "--locked", "ctx"]).ok();
    let absent = ["build", "--lock-file", "locks/all", "ctx"];
    let refused = world.kiln(&absent).exits(2);
    world.snapshot(&refused.whole());
    std::fs::create_dir(world.path("locks")).unwrap();
    world
        .kiln(&["lock", "--lock-file", "locks/all", "ctx"])
        .ok();
    world.kiln(&absent).args(&["--locked"]).ok();
    world.kiln(&["build", "--plan", "x", "--locked"]).exits(2);
}

fn platforms(world: &World) {
    let registry = registry();
    let text = "FROM --platform=$BUILDPLATFORM HOST/tool AS b\nRUN true\nFROM HOST/base\nCOPY --from=b /etc/passwd /p\n";
    dockerfile(world, &registry, text);
    // Images without an index are taken for every platform.
    let made = world
        .kiln(&["lock", "--platform", "linux/amd64,linux/arm64", "ctx"])
        .ok();
    let names: Vec<&str> = made
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    assert!(
        names.contains(&"linux/arm64") && names.contains(&"linux/amd64"),
        "{}",
        made.stdout
    );
    for platform in ["linux/amd64", "linux/arm64"] {
        let plan = world.kiln(&["plan", "--platform", platform, "ctx"]).ok();
        assert!(!plan.stdout.contains("assumed"), "{}", plan.stdout);
    }
    let lock = world.read("ctx/kiln.lock");
    world.kiln(&["lock", "ctx"]).ok();
    assert_eq!(world.read("ctx/kiln.lock"), lock);
    let less = world
        .kiln(&["lock", "--platform", "linux/amd64", "ctx"])
        .ok();
    assert!(less.stdout.contains("dropped"), "{}", less.stdout);
    let more = world
        .kiln(&["lock", "--keep", "--platform", "linux/arm64", "ctx"])
        .ok();
    assert!(more.stdout.contains("added"), "{}", more.stdout);
    assert_eq!(world.read("ctx/kiln.lock"), lock);
}

fn of_the_store(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN true\n");
    world.kiln(&["lock", "--offline", "ctx"]).ok();
    world.kiln(&["build", "--locked", "ctx"]).ok();
    // Another image by the same name: the locked one is nowhere.
    world.write("other/Dockerfile", "FROM demo/base\nENV A=b\n");
    world.kiln(&["build", "-t", "demo/base", "other"]).ok();
    let refused = world.kiln(&["build", "--offline", "ctx"]).exits(1);
    let told = refused.whole();
    world.snapshot(&told[told.find("error:").unwrap()..]);
    world
        .kiln(&["lock", "--offline", "--update", "demo/base", "ctx"])
        .ok();
    world.kiln(&["build", "--locked", "--offline", "ctx"]).ok();
}

fn unwritable(world: &World) {
    let registry = registry();
    dockerfile(world, &registry, "FROM HOST/base\n");
    std::fs::create_dir(world.path("ctx/kiln.lock")).unwrap();
    let refused = world.kiln(&["lock", "ctx"]).exits(1);
    world.snapshot(&refused.whole());
    std::fs::remove_dir(world.path("ctx/kiln.lock")).unwrap();
    // A link stays one.
    world.write("elsewhere", "{ \"version\": \"kiln.lock/0\" }");
    std::os::unix::fs::symlink("../elsewhere", world.path("ctx/kiln.lock")).unwrap();
    world.kiln(&["lock", "ctx"]).ok();
    assert!(world.read("elsewhere").contains("/base:latest"));
    assert!(world.path("ctx/kiln.lock").is_symlink());
    let files: Vec<_> = std::fs::read_dir(world.path(".")).unwrap().collect();
    assert_eq!(files.len(), 2, "{files:?}");
}

fn no_place(world: &World) {
    let piped = world
        .kiln(&["lock", "-f", "-", "."])
        .stdin("FROM scratch\n");
    world.snapshot_of("stdin", &piped.exits(2).whole());
    let url = world.kiln(&["lock", "https://example.org/app.git"]);
    world.snapshot_of("url", &url.exits(2).whole());
}

fn checked(world: &World) {
    let (registry, server) = (registry(), Server::start());
    server.put("/f", Page::new("one"));
    let text = format!("FROM HOST/base\nADD {}/f /f\n", server.url(""));
    dockerfile(world, &registry, &text);
    let masked = |ran: &Ran| hide_port(&hide_port(&ran.whole(), &registry.host()), &server.host());
    let lacks = world.kiln(&["lock", "--check", "ctx"]).exits(1);
    world.snapshot(&masked(&lacks));
    world.kiln(&["lock", "--locked", "ctx"]).exits(1);
    assert!(registry.log().is_empty() && server.log().is_empty());
    assert!(!world.path("ctx/kiln.lock").exists());
    world.kiln(&["lock", "ctx"]).ok();
    world.kiln(&["lock", "--check", "ctx"]).ok();
}

fn times(world: &World) {
    let (registry, forge) = (registry(), Forge::start(world));
    forge.repository("app", &[("file", "one")]);
    let text = format!(
        "FROM scratch AS src\nADD {} /\nFROM HOST/base\nCOPY --from=src / /\n",
        forge.url("app")
    );
    dockerfile(world, &registry, &text);
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=src", "ctx"];
    world.kiln(&["build", "--locked"]).args(&epoch).exits(2);
    world.kiln(&["lock"]).args(&epoch).ok();
    assert!(
        world.read("ctx/kiln.lock").contains(": 1600000000"),
        "{}",
        world.read("ctx/kiln.lock")
    );
    let plan = world
        .kiln(&["plan"])
        .args(&epoch)
        .env("KILN_ROOT", "/proc/version")
        .ok();
    assert!(
        plan.stdout.contains("created=2020-09-13T12:26:40Z"),
        "{}",
        plan.stdout
    );
    world.kiln(&["build", "--locked"]).args(&epoch).ok();
}

fn in_a_repository(world: &World) {
    let (registry, forge) = (registry(), Forge::start(world));
    dockerfile(world, &registry, "FROM HOST/base\nRUN echo $A > /a\n");
    world.kiln(&["lock", "ctx"]).ok();
    let files = [
        ("Dockerfile", world.read("ctx/Dockerfile")),
        ("kiln.lock", world.read("ctx/kiln.lock")),
    ];
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    forge.repository("app", &files);
    retag(&registry, "base", "A=moved");
    let url = forge.url("app");
    world.kiln(&["build", "--locked", "-t", "app", &url]).ok();
    assert_eq!(world.sh("app", "cat /a"), "\n");
    forge.commit(
        "app",
        &[("Dockerfile", &format!("FROM {}/tool\n", registry.host()))],
    );
    let refused = world.kiln(&["build", "--locked", &url]).exits(2);
    assert!(
        refused
            .stderr
            .contains("the lock `kiln.lock` lacks one thing"),
        "{}",
        refused.stderr
    );
}

fn questions(world: &World) {
    let registry = registry();
    dockerfile(world, &registry, "FROM HOST/base\n");
    let check = || {
        world
            .kiln(&["build", "--check", "--offline", "ctx"])
            .ok()
            .stderr
    };
    assert!(check().contains("cannot be looked at"));
    world.kiln(&["lock", "ctx"]).ok();
    world.forget();
    assert_eq!(check(), "");
}
