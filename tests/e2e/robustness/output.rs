//! Steps that write more, or other things, than a view can show.

use std::time::Duration;

use crate::support::Capability::{self, Busybox, Containers};
use crate::support::{Case, Ran, World, case};

/// What kiln may have in memory, whatever a step writes.
const MOST_BYTES: u64 = 300 << 20;

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Busybox];
    vec![
        case("a_flood_of_lines", NEEDS, |world| {
            flood(
                world,
                "yes 0123456789012345678901234567890123456789 | head -c SIZE",
            )
        }),
        case("a_line_without_end", NEEDS, |world| {
            flood(world, "head -c SIZE /dev/zero | tr '\\0' x")
        }),
        case("output_cannot_draw", NEEDS, output_cannot_draw),
    ]
}

fn flood(world: &World, script: &str) {
    world.base();
    let megabytes = if std::env::var_os("KILN_TEST_LONG").is_some() {
        200
    } else {
        20
    };
    let script = script.replace("SIZE", &format!("{megabytes}000000"));
    world.dockerfile(&format!("FROM demo/base\nRUN {script}; false\n"));
    for progress in ["plain", "tty", "quiet"] {
        let (ran, most_bytes) = measured(world, &["build", "--progress", progress, "ctx"]);
        assert_eq!(ran.status.code(), Some(1));
        assert!(
            most_bytes < MOST_BYTES,
            "{progress}: {most_bytes} bytes in memory"
        );
        // What a failure repeats is the end only.
        let end = ran.stderr.split("the end of its output:").nth(1).unwrap();
        assert!(end.len() < 1_000_000 && end.len() > 1_000, "{}", end.len());
        if progress == "plain" {
            assert!(
                ran.stderr.len() > megabytes * 1_000_000,
                "nothing is clipped in the plain view"
            );
        }
    }
}

/// Runs the command; returns the most memory that it had.
fn measured(world: &World, arguments: &[&str]) -> (Ran, u64) {
    let running = world.kiln(arguments).spawn();
    let status = format!("/proc/{}/status", running.pid());
    let watcher = std::thread::spawn(move || {
        let mut most = 0;
        while let Ok(text) = std::fs::read_to_string(&status) {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let Some(line) = line else { break };
            let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            most = most.max(kilobytes << 10);
            std::thread::sleep(Duration::from_millis(5));
        }
        most
    });
    let ran = running.wait();
    (ran, watcher.join().unwrap())
}

fn output_cannot_draw(world: &World) {
    world.base();
    world.dockerfile(
        r"
        FROM demo/base
        RUN printf 'a\033[2J\033[31mred\033]0;title\007\b\n\377\376\0 bytes\n\033[10A'; head -c 3000 /dev/urandom; echo; printf '\033[5Aend'; exit 3
        ",
    );
    for progress in ["plain", "quiet"] {
        let ran = world
            .kiln(&["build", "--progress", progress, "ctx"])
            .exits(1);
        let strange = ran.stderr.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(strange, None, "{progress}: {:?}", ran.stderr);
        assert!(ran.stderr.contains("| end"), "{}", ran.stderr);
    }
}
