//! Limits of steps and programs, each by a cgroup of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::Capability::{self, Busybox, Cgroups, Containers, OrdinaryUser, Setpriv};
use crate::support::{Case, World, case, cgroup_roots};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Busybox, Cgroups];
    vec![
        case("memory", NEEDS, memory),
        case("processors", NEEDS, processors),
        case("programs", NEEDS, programs),
        case("limits_are_in_no_key", NEEDS, limits_are_in_no_key),
        case("cgroups_of_killed_builds", NEEDS, cgroups_of_killed_builds),
        case("limits_that_mean_nothing", &[], limits_that_mean_nothing),
        case(
            "limits_that_cannot_be_had",
            &[Containers, OrdinaryUser, Setpriv],
            limits_that_cannot_be_had,
        ),
    ]
}

/// A parent cgroup that no other case has; it is not there yet.
fn parent(world: &World) -> String {
    let place = world.path(".").parent().unwrap().to_owned();
    let name = place.file_name().unwrap().to_string_lossy().into_owned();
    format!("/{name}")
}

/// What is at a cgroup in all hierarchies.
fn seen(parent: &str) -> Vec<PathBuf> {
    let roots = cgroup_roots().into_iter();
    let places = roots.map(|root| root.join(parent.trim_start_matches('/')));
    places.filter(|place| place.exists()).collect()
}

/// The cgroups of kiln below a cgroup.
fn below(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("kiln-")
        })
        .collect()
}

fn memory(world: &World) {
    world.base();
    let parent = parent(world);
    // One buffer of twice what there is.
    world.dockerfile("FROM demo/base\nRUN dd if=/dev/zero of=/dev/null bs=64M count=1\n");
    let arguments = ["build", "-m", "32m", "--cgroup-parent", &parent, "ctx"];
    let ran = world.kiln(&arguments).exits(1);
    world.snapshot(&ran.whole().replace(&parent, "/_parent"));
    assert_eq!(seen(&parent), Vec::<PathBuf>::new());
    let more = [
        "build",
        "-m",
        "512m",
        "--memory-swap=-1",
        "--cgroup-parent",
        &parent,
        "ctx",
    ];
    world.kiln(&more).ok();
    assert_eq!(seen(&parent), Vec::<PathBuf>::new());
}

fn processors(world: &World) {
    world.base();
    let parent = parent(world);
    world.dockerfile("FROM demo/base\nRUN grep Cpus_allowed_list /proc/self/status\n");
    let arguments = [
        "build",
        "--cpuset-cpus",
        "0",
        "--cpuset-mems",
        "0",
        "--cpu-shares",
        "512",
        "--cpu-period",
        "50000",
        "--cpu-quota",
        "25000",
        "--cgroup-parent",
        &parent,
        "ctx",
    ];
    let ran = world.kiln(&arguments).ok();
    let allowed = ran
        .stderr
        .lines()
        .find(|line| line.contains("| Cpus_allowed_list"));
    assert!(
        allowed.is_some_and(|line| line.split_whitespace().last() == Some("0")),
        "{}",
        ran.stderr
    );
    assert_eq!(seen(&parent), Vec::<PathBuf>::new());
}

fn programs(world: &World) {
    world.base();
    let parent = parent(world);
    let run = |flags: &[&str], script: &str| {
        let common = ["run", "--cgroup-parent", &parent];
        let program = ["--entrypoint", "/bin/sh", "demo/base", "-c", script];
        world.kiln(&[&common, flags, &program].concat()).run()
    };
    let eats = "dd if=/dev/zero of=/dev/null bs=64M count=1";
    assert_eq!(run(&["-m", "32m"], eats).status.code(), Some(137));
    assert_eq!(
        run(&["-m", "512m", "--cpus", "0.5"], eats).status.code(),
        Some(0)
    );
    let forks = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 100 & done; echo all";
    assert_eq!(run(&["--pids-limit", "6"], forks).stdout, "");
    assert_eq!(run(&["--pids-limit", "100"], forks).stdout, "all\n");
    assert_eq!(seen(&parent), Vec::<PathBuf>::new());
}

fn limits_are_in_no_key(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN date +%N > /when\n");
    let first = world.kiln(&["build", "ctx"]).ok();
    let parent = parent(world);
    let limited = world
        .kiln(&["build", "-m", "512m", "--cgroup-parent", &parent, "ctx"])
        .ok();
    assert_eq!(first.id(), limited.id());
    assert!(limited.table().contains("cached"), "{}", limited.stderr);
}

fn cgroups_of_killed_builds(world: &World) {
    world.base();
    let parent = parent(world);
    world.dockerfile(
        "FROM demo/base\nRUN --mount=type=cache,target=/c touch /c/runs; exec sleep 1000\n",
    );
    let arguments = ["build", "-m", "512m", "--cgroup-parent", &parent, "ctx"];
    let running = world.kiln(&arguments).spawn();
    world.wait_in_caches("runs");
    let left: Vec<PathBuf> = seen(&parent)
        .iter()
        .flat_map(|place| below(place))
        .collect();
    assert!(!left.is_empty(), "{parent}");
    running.signal(Signal::SIGKILL);
    running.wait();
    // What ran in them ends by itself.
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_busy = |place: &PathBuf| {
        std::fs::read_to_string(place.join("cgroup.procs")).is_ok_and(|text| !text.is_empty())
    };
    while left.iter().any(is_busy) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Another kiln's is no business of the next one.
    let other = left[0].with_file_name("others");
    std::fs::create_dir(&other).unwrap();
    world.dockerfile("FROM demo/base\nRUN true\n");
    world.kiln(&arguments).ok();
    let after: Vec<PathBuf> = seen(&parent)
        .iter()
        .flat_map(|place| below(place))
        .collect();
    let kept = other.exists();
    // The killed one could not take its parents away.
    let _ = std::fs::remove_dir(&other);
    for place in seen(&parent) {
        let _ = std::fs::remove_dir(place);
    }
    assert_eq!(after, Vec::<PathBuf>::new());
    assert!(kept);
}

fn limits_that_mean_nothing(world: &World) {
    world.write("ctx/Dockerfile", "FROM scratch\nRUN [\"/x\"]\n");
    let refused = |flags: &[&str]| {
        let arguments = [&["build"], flags, &["ctx"]].concat();
        world.kiln(&arguments).exits(2).whole()
    };
    let all = [
        refused(&["-m", "much"]),
        refused(&["-m", "4k"]),
        refused(&["--memory-swap", "1g"]),
        refused(&["-m", "1g", "--memory-swap", "512m"]),
        refused(&["--cpu-period", "1"]),
        refused(&["--cpu-quota", "-5"]),
        refused(&["--cpuset-cpus", "3-1"]),
    ];
    world.snapshot(&all.join("\n"));
}

fn limits_that_cannot_be_had(world: &World) {
    world.chmod(".", 0o777);
    for above in [world.path(".."), world.path(".")] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    world.dockerfile("FROM scratch\nCOPY Dockerfile /\nRUN [\"/x\"]\n");
    let parent = parent(world);
    let build = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        env!("CARGO_BIN_EXE_kiln"),
        "build",
        "-m",
        "64m",
        "--cgroup-parent",
        &parent,
        "ctx",
    ];
    let store = world.path("of-user");
    let ran = world
        .program("setpriv", &build)
        .env("KILN_ROOT", &store)
        .exits(3);
    assert!(
        ran.stderr
            .starts_with("error: memory can't be limited here: "),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("\nhint: "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("COPY"), "{}", ran.stderr);
}
