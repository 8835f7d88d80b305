//! The plan as text, JSON and dot, and builds of a plan.

use crate::support::Capability::{self, Containers, Strace};
use crate::support::{Case, World, case, dedent};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    vec![
        case("text", &[], text),
        case("json", &[], json),
        case("dot", &[], dot),
        case("mermaid", &[], |world| {
            world.snapshot(&shown(world, "mermaid"))
        }),
        case("svg", &[], svg),
        case("names", &[], names),
        case(
            "reads_nothing_of_the_store",
            &[],
            reads_nothing_of_the_store,
        ),
        case("same_on_every_host", &[], same_on_every_host),
        case("same_in_every_namespace", NEEDS, same_in_every_namespace),
        case("asks_the_system_for_nothing", &[Strace], asks_nothing),
        case("same_whatever_changes_nothing", &[], same_whatever),
        case("build_platform", &[], build_platform),
        case("resolved", NEEDS, resolved),
        case("round_trip_of_text", NEEDS, |world| {
            round_trip(world, "text")
        }),
        case("round_trip_of_json", NEEDS, |world| {
            round_trip(world, "json")
        }),
        case("merge", NEEDS, merge),
        case("diff", NEEDS, diff),
        case("merge_of_diffs", NEEDS, merge_of_diffs),
        case("unreadable_plan", &[], unreadable_plan),
    ]
}

const DOCKERFILE: &str = r#"
    FROM demo/base AS count
    ARG NAME=big
    RUN --mount=type=bind,source=big,target=/big wc -l < /big > /count

    FROM demo/base
    ENV A=b
    COPY --chmod=755 *.sh /bin/
    COPY --from=count /count /
    CMD ["cat", "/count"]
"#;

fn shown(world: &World, format: &str) -> String {
    world.write("ctx/big", "1\n2\n");
    world.write("ctx/run.sh", "#!/bin/sh\n");
    world.dockerfile(DOCKERFILE);
    let plan = world
        .kiln(&[
            "plan",
            "--platform",
            "linux/amd64",
            "--format",
            format,
            "ctx",
        ])
        .run();
    // The plan is data for other tools: nothing else is on standard output.
    assert_eq!(plan.stderr, "");
    plan.whole()
}

fn text(world: &World) {
    world.snapshot(&shown(world, "text"));
}

fn json(world: &World) {
    let shown = shown(world, "json");
    let (_, document) = shown.split_once('\n').unwrap();
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    world.snapshot(&serde_json::to_string_pretty(&document).unwrap());
}

fn dot(world: &World) {
    world.snapshot(&shown(world, "dot"));
}

fn svg(world: &World) {
    let shown = shown(world, "svg");
    let (_, document) = shown.split_once('\n').unwrap();
    assert!(document.starts_with("<svg xmlns="), "{document}");
    assert!(
        document.contains(">COPY --from=count /count /</title>"),
        "{document}"
    );
    assert!(document.ends_with("</svg>\n"), "{document}");
}

fn reads_nothing_of_the_store(world: &World) {
    let first = shown(world, "text");
    assert!(!world.store().exists());
    let again = world
        .kiln(&["plan", "--platform", "linux/amd64", "ctx"])
        .env("KILN_ROOT", "/dev/null/nothing")
        .env("SOURCE_DATE_EPOCH", "")
        .run();
    assert_eq!(
        first.split_once('\n').unwrap().1,
        again.whole().split_once('\n').unwrap().1
    );
}

fn names(world: &World) {
    shown(world, "text");
    let plan = world.kiln(&["plan", "--names", "ctx"]).ok();
    assert!(
        plan.stdout.contains("\n# [stage-1] COPY "),
        "{}",
        plan.stdout
    );
    let refused = world.kiln(&["plan", "--names", "--format", "dot", "ctx"]);
    world.snapshot(&refused.exits(2).whole());
}

/// A Dockerfile that looks at all that a host could say.
const CURIOUS: &str = r#"
    FROM --platform=$BUILDPLATFORM demo/base AS build
    ARG TARGETPLATFORM BUILDPLATFORM HTTP_PROXY
    RUN echo $BUILDPLATFORM $TARGETPLATFORM
    FROM demo/base
    COPY --from=build /etc /etc
    COPY . /src
"#;

fn curious(world: &World) -> Vec<u8> {
    world.dockerfile(CURIOUS);
    world.write("ctx/.dockerignore", "*.log\n");
    world.kiln(&["plan", "ctx"]).ok().stdout_bytes
}

fn same_on_every_host(world: &World) {
    let expected = curious(world);
    let text = String::from_utf8(expected.clone()).unwrap();
    world.snapshot(&text);
    let check = |kiln: crate::support::Kiln<'_>| {
        assert_eq!(String::from_utf8(kiln.ok().stdout_bytes).unwrap(), text);
    };
    // A context elsewhere, by a path from elsewhere, and by a link.
    world.write("far/away/Dockerfile", world.read("ctx/Dockerfile"));
    world.write("far/away/.dockerignore", "*.log\n");
    let absolute = world.path("far/away").display().to_string();
    check(world.kiln(&["plan", &absolute]).in_directory("ctx"));
    check(world.kiln(&["plan", "."]).in_directory("ctx"));
    check(
        world
            .kiln(&["plan", "-f", "../far/away/Dockerfile", "."])
            .in_directory("ctx"),
    );
    std::os::unix::fs::symlink(&absolute, world.path("link")).unwrap();
    check(world.kiln(&["plan", "link"]));
    // An environment that says otherwise, and one that says nothing at all.
    let mut other = world.kiln(&["plan", "ctx"]);
    for (name, value) in [
        ("SOURCE_DATE_EPOCH", "1"),
        ("DOCKER_DEFAULT_PLATFORM", "linux/s390x"),
        ("http_proxy", "http://proxy.example:3128"),
        ("HTTPS_PROXY", "http://proxy.example:3128"),
        ("KILN_REGISTRY_MIRROR", "nonsense"),
        ("HOSTNAME", "elsewhere"),
        ("BUILDPLATFORM", "linux/s390x"),
        ("LANG", "de_DE.UTF-8"),
        ("TZ", "Asia/Tokyo"),
        ("KILN_ROOT", "/proc/version"),
        ("HOME", "/nonexistent"),
    ] {
        other = other.env(name, value);
    }
    check(other);
    let kiln = env!("CARGO_BIN_EXE_kiln");
    check(world.program("env", &["-i", kiln, "plan", "ctx"]));
    // A host of another time and another day.
    check(world.program("sh", &["-c", "umask 077; exec \"$0\" plan ctx", kiln]));
    let touch = ["-t", "197001020304", "ctx/Dockerfile", "ctx/.dockerignore"];
    world.program("touch", &touch).ok();
    check(world.kiln(&["plan", "ctx"]));
}

fn same_in_every_namespace(world: &World) {
    let expected = curious(world);
    // No network, another host name, nothing in /proc of this process.
    let script = "hostname elsewhere && exec \"$0\" plan ctx";
    let unshare = [
        "--net",
        "--uts",
        "sh",
        "-c",
        script,
        env!("CARGO_BIN_EXE_kiln"),
    ];
    let user: &[&str] = match nix::unistd::geteuid().is_root() {
        true => &[],
        false => &["--user", "--map-root-user"],
    };
    let ran = world.program("unshare", &[user, &unshare].concat()).ok();
    assert_eq!(ran.stdout_bytes, expected);
}

fn asks_nothing(world: &World) {
    let expected = curious(world);
    let calls =
        "trace=%network,execve,open,openat,openat2,creat,mkdir,mkdirat,unlink,uname,fork,vfork";
    let strace = ["-f", "-qq", "-o", "trace", "-e", calls];
    let command = [env!("CARGO_BIN_EXE_kiln"), "plan", "ctx"];
    let ran = world.program("strace", &[&strace[..], &command].concat());
    assert_eq!(ran.ok().stdout_bytes, expected);
    let trace = world.read("trace");
    let is_system = |line: &str| {
        let loader = [
            "\"/etc/ld.so",
            "\"/lib",
            "\"/usr/lib",
            "\"/proc/self/",
            "\"/sys/fs/cgroup",
            "\"/dev/null",
        ];
        loader.iter().any(|path| line.contains(path))
    };
    let own = [
        "\"ctx/Dockerfile\"",
        "\"ctx/Dockerfile.dockerignore\"",
        "\"ctx/.dockerignore\"",
        "\"ctx/kiln.lock\"",
    ];
    let strange: Vec<&str> = trace
        .lines()
        .filter(|line| {
            !line.contains(" execve(") && !line.contains("--- ") && !line.contains("+++ ")
        })
        .filter(|line| !is_system(line) && !own.iter().any(|path| line.contains(path)))
        .collect();
    assert!(strange.is_empty(), "{}", strange.join("\n"));
    assert_eq!(trace.matches(" execve(").count(), 1, "{trace}");
    for write in ["O_WRONLY", "O_RDWR", "O_CREAT"] {
        assert!(!trace.contains(write), "{trace}");
    }
}

fn same_whatever(world: &World) {
    let plain = "
        FROM demo/base AS count
        ARG NAME=big
        RUN --mount=type=bind,from=demo/base,target=/base wc -l < /big > /count
        FROM demo/base AS final
        COPY --from=count /count /
        CMD [\"cat\", \"/count\"]
    ";
    let other = "
        # syntax=docker/dockerfile:1
        # What it is for.

        FROM   demo/base   as   zahl
        # An argument.
        arg NAME=big
        # A step.
        RUN   --mount=type=bind,from=demo/base,target=/base   wc -l < /big > /count

        FROM demo/base AS ende
        COPY    --from=zahl    /count    /
        CMD   [ \"cat\",\"/count\" ]
    ";
    world.dockerfile(plain);
    let plan = world.kiln(&["plan", "ctx"]).ok().stdout;
    world.dockerfile(other);
    assert_eq!(world.kiln(&["plan", "ctx"]).ok().stdout, plan);
    world.write(
        "ctx/Containerfile",
        crate::support::dedent(other).replace('\n', "\r\n"),
    );
    let named = world.kiln(&["plan", "-f", "ctx/Containerfile", "ctx"]).ok();
    assert_eq!(named.stdout, plan);
}

fn build_platform(world: &World) {
    world.dockerfile(CURIOUS);
    let plan = |flags: &[&str]| world.kiln(&["plan", "ctx"]).args(flags).ok().stdout;
    let cross = plan(&["--platform", "linux/arm64"]);
    assert!(
        cross.contains("image docker.io/demo/base:latest linux/amd64"),
        "{cross}"
    );
    assert!(
        cross.contains("image docker.io/demo/base:latest linux/arm64"),
        "{cross}"
    );
    let native = plan(&["--build-platform", "linux/arm64"]);
    assert!(!native.contains("linux/amd64"), "{native}");
    let both = ["plan", "--build-platform", "linux/arm64,linux/amd64", "ctx"];
    world.snapshot(&world.kiln(&both).exits(2).whole());
}

fn resolved(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN env > /env\n");
    let plan = world.kiln(&["plan", "--resolve", "ctx"]).ok();
    assert!(!plan.stdout.contains("assumed"), "{}", plan.stdout);
    assert!(plan.stdout.contains("sha256:"), "{}", plan.stdout);
}

fn round_trip(world: &World, format: &str) {
    world.base();
    world.write("ctx/big", "1\n2\n");
    world.write("ctx/run.sh", "#!/bin/sh\n");
    world.dockerfile(DOCKERFILE);
    let epoch = |kiln: crate::support::Kiln<'_>| kiln.env("SOURCE_DATE_EPOCH", "1700000000").ok();
    let direct = epoch(world.kiln(&["build", "ctx"]));
    let plan = epoch(world.kiln(&["plan", "--resolve", "--format", format, "ctx"]));
    world.write("saved", &plan.stdout);
    let piped = world
        .kiln(&["build", "--plan", "-", "ctx"])
        .stdin(plan.stdout_bytes);
    let piped = epoch(piped);
    assert_eq!(direct.id(), piped.id());
    assert!(
        piped.stderr.contains("(same image as before)"),
        "{}",
        piped.stderr
    );
    let named = epoch(world.kiln(&["build", "--plan", "saved", "ctx"]));
    assert_eq!(direct.id(), named.id());
}

const TWO: &str = r#"%two = exec %base ["/bin/sh", "-c", "mkdir /d && echo two > /d/two && echo two > /both; rm /etc/group"]"#;

/// A plan whose `%one` and `%two` change the base, and whose result is what `last` makes of them.
fn built_by_hand(world: &World, last: &str) {
    world.base();
    let plan = dedent(&format!(
        r#"
        %base = image docker.io/demo/base:latest linux/{arch}
        %one = exec %base ["/bin/sh", "-c", "mkdir /d && echo one > /d/one && echo one > /both"]
        {two}
        {last}
        "#,
        two = if last.contains("%two") { TWO } else { "" },
        arch = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        },
    ));
    let outputs = ["-o", "type=local,dest=out", "-o", "type=image,name=app"];
    let kiln = world.kiln(&["build", "--plan", "-"]).args(&outputs);
    let ran = kiln.stdin(plan).ok();
    world.snapshot(&ran.table());
}

fn listing(world: &World) -> String {
    let script =
        "cd out && find . -path ./bin -prune -o -type f -print | sort; cat both 2> /dev/null; true";
    world.program("sh", &["-c", script]).ok().stdout
}

fn merge(world: &World) {
    built_by_hand(world, "%all = merge %one %two\n        result %all");
    assert_eq!(
        listing(world),
        "./both\n./d/one\n./d/two\n./etc/passwd\ntwo\n"
    );
}

fn diff(world: &World) {
    built_by_hand(world, "%only = diff %base -> %one\n        result %only");
    assert_eq!(listing(world), "./both\n./d/one\none\n");
}

fn merge_of_diffs(world: &World) {
    built_by_hand(
        world,
        "%first = diff %base -> %two\n        %second = diff %base -> %one\n        \
         %all = merge %base %first %second\n        result %all",
    );
    assert_eq!(
        listing(world),
        "./both\n./d/one\n./d/two\n./etc/passwd\none\n"
    );
}

fn unreadable_plan(world: &World) {
    let kiln = world.kiln(&["build", "--plan", "-"]);
    let ran = kiln.stdin("%0 = sorcery\nresult %1\n").exits(2);
    world.snapshot(&ran.whole());
}
