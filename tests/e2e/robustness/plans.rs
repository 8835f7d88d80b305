//! Plans that no front end would write.

use crate::support::Capability::{self, Busybox, Containers};
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Busybox];
    vec![
        case("plans_that_are_refused", NEEDS, plans_that_are_refused),
        case(
            "plans_cannot_leave_the_root",
            NEEDS,
            plans_cannot_leave_the_root,
        ),
        case(
            "mounts_cannot_leave_the_root",
            NEEDS,
            mounts_cannot_leave_the_root,
        ),
    ]
}

const BASE: &str = "%0 = image docker.io/demo/base:latest linux/amd64\n%1 = local context\n";

fn plans_that_are_refused(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\n");
    let refused = [
        ("", "it has no result"),
        ("%0 = exec %0 [\"/bin/true\"]\nresult %0\n", "cycle"),
        (
            "%0 = exec %1 [\"/bin/true\"]\n%1 = exec %0 [\"/bin/true\"]\nresult %1\n",
            "cycle",
        ),
        ("result %7\n", "`7`"),
        (
            "%0 = image docker.io/demo/base:latest linux/amd64\nresult %0.4294967295\n",
            "4294967295",
        ),
        ("{\"version\": 18446744073709551616}", "kiln.plan/0"),
        ("\0\0\0\0", "line 1"),
    ];
    for (plan, words) in refused {
        let ran = world
            .kiln(&["build", "--plan", "-", "ctx"])
            .stdin(plan)
            .exits(2);
        assert!(ran.stderr.contains(words), "{plan:?} -> {}", ran.stderr);
    }
    for text in [
        "[".repeat(3_000_000),
        format!("{{\"a\":{}", "[".repeat(300_000)),
        "%0 = ".repeat(500_000),
    ] {
        let ran = world
            .kiln(&["build", "--plan", "-", "ctx"])
            .stdin(text)
            .exits(2);
        assert!(ran.stderr.len() < 10_000, "{}", ran.stderr.len());
    }
}

fn plans_cannot_leave_the_root(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\n");
    world.write("ctx/a", "inside\n");
    world.write("secret", "outside\n");
    std::os::unix::fs::symlink("/", world.path("ctx/root")).unwrap();
    std::os::unix::fs::symlink("../secret", world.path("ctx/up")).unwrap();
    let outside = world.path("");
    let outside = outside.to_str().unwrap();
    let built = |actions: &str| {
        let plan = format!(
            "{BASE}%2 = file %0 {{ symlink {outside} -> /esc }}\n%3 = file %2 {{ {actions} }}\nresult %3\n"
        );
        let ran = world
            .kiln(&["build", "-t", "app", "--plan", "-", "ctx"])
            .stdin(plan)
            .run();
        assert!(
            matches!(ran.status.code(), Some(0..=2)),
            "{actions}: {}",
            ran.whole()
        );
        ran.status.code() == Some(0)
    };
    // What is read comes from the context, or from nowhere.
    for source in [
        "/../secret",
        "/../../../../../../etc/shadow",
        "/up",
        "/root/etc/shadow",
    ] {
        if built(&format!("copy %1:{source} -> /x")) {
            let found = world.sh("app", "cat /x 2>&1; true");
            assert!(
                !found.contains("outside") && !found.contains("root:"),
                "{source}: {found}"
            );
        }
    }
    // What is written stays in the image, however the path gets there.
    for target in [
        "/../../../../../../../../tmp/kiln-e2e-escaped".to_owned(),
        "/esc/escaped".to_owned(),
        "/esc/deep/escaped".to_owned(),
        format!("{outside}/escaped"),
    ] {
        built(&format!("copy %1:/a -> {target} create-dest"));
        built(&format!("mkfile {target} mode=0644 \"x\""));
        built(&format!("mkdir {target} mode=0755 parents"));
        built(&format!("rm {target}"));
        assert!(!std::path::Path::new("/tmp/kiln-e2e-escaped").exists());
        assert!(
            !world.path("escaped").exists() && !world.path("deep").exists(),
            "{target}"
        );
    }
    built("rm /esc/secret");
    built("rm /esc/secret allow-wildcard");
    assert_eq!(world.read("secret"), "outside\n");
}

fn mounts_cannot_leave_the_root(world: &World) {
    world.base();
    world.write("secret", "outside\n");
    let outside = world.path("");
    let outside = outside.to_str().unwrap();
    world.dockerfile(&format!(
        "
        FROM demo/base
        RUN ln -s {outside} /esc && ln -s /esc/deep /deep && ln -s ../../../../../../.. /up
        RUN --mount=type=cache,target=/esc/cache echo x > /esc/cache/f
        RUN --mount=type=tmpfs,target=/deep/t echo x > /deep/t/f
        RUN --mount=type=cache,target=/up/{outside}/c true
        RUN --mount=type=bind,source=../../..,target=/b ! ls /b/secret
        RUN ! cat /esc/secret
        WORKDIR /esc/workdir
        RUN pwd > f
        "
    ));
    world.kiln(&["build", "ctx"]).run();
    let mut left: Vec<_> = std::fs::read_dir(outside)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["ctx", "secret"]);
}
