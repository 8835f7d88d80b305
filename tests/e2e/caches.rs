//! Caches that travel: two stores stand for two machines, which have nothing in common but a place.

mod at_once;
mod buckets;
mod by_reference;
mod images;
mod line;
mod lost;
mod places;
mod registries;
mod stopped;

use kiln_test_registry::Registry;

use crate::support::{Case, Kiln, Ran, World};

pub(crate) fn cases() -> Vec<Case> {
    [
        places::cases(),
        registries::cases(),
        images::cases(),
        buckets::cases(),
        by_reference::cases(),
        lost::cases(),
        stopped::cases(),
        at_once::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One of several machines: a store of its own.
#[derive(Clone, Copy)]
struct Machine<'w> {
    world: &'w World,
    name: &'static str,
}

impl<'w> Machine<'w> {
    /// A machine with the base, and nothing else.
    fn new(world: &'w World, name: &'static str) -> Machine<'w> {
        let machine = Machine { world, name };
        machine
            .kiln(&["import", "-", "demo/base"])
            .stdin(world.base_archive())
            .ok();
        machine
    }

    fn kiln(&self, arguments: &[&str]) -> Kiln<'w> {
        let store = self.world.path(&format!("machines/{}", self.name));
        std::fs::create_dir_all(store.parent().unwrap()).unwrap();
        self.world.kiln(arguments).env("KILN_ROOT", store)
    }

    /// Builds `ctx` as `app`.
    fn build(&self, arguments: &[&str]) -> Ran {
        self.kiln(&["build", "-t", "app", "--progress", "plain"])
            .args(arguments)
            .args(&["ctx"])
            .ok()
    }

    fn sh(&self, script: &str) -> String {
        self.kiln(&["run", "--entrypoint", "/bin/sh", "app", "-c", script])
            .ok()
            .stdout
    }
}

/// Builds `ctx` for these outputs, with the same times on each machine.
fn send(machine: &Machine<'_>, arguments: &[&str]) -> Ran {
    machine
        .kiln(&["build", "--progress", "plain"])
        .args(&["--build-arg=SOURCE_DATE_EPOCH=1700000000"])
        .args(arguments)
        .args(&["ctx"])
        .ok()
}

/// Two stages: what the first makes is copied into the second, on top of a step of its own. The tools are
/// of no use once the program is there.
fn dockerfile(world: &World) {
    world.write("ctx/source", "program");
    world.dockerfile(
        r#"
        FROM demo/base AS tools
        RUN mkdir -p /opt/tools && echo tools > /opt/tools/compiler && ln /opt/tools/compiler /opt/tools/cc
        COPY source /source
        RUN cp /source /program
        FROM demo/base
        RUN echo own > /own
        COPY --from=tools /program /bin/program
        "#,
    );
}

/// A context named like the one step that it has.
fn single(world: &World, name: &str) {
    let text = format!("FROM demo/base\nRUN echo {name} > /text\n");
    world.write(&format!("{name}/Dockerfile"), text);
}

/// How many steps of a build ran, as its last line says.
fn ran(build: &Ran) -> usize {
    let mut lines = build.stderr.lines().rev();
    let sum = lines.find(|line| line.contains("steps: ") || line.contains("step: "));
    let words: Vec<&str> = sum.unwrap_or_default().split([' ', ',']).collect();
    let count = words.windows(2).find(|pair| pair[1] == "ran");
    count.map_or(0, |pair| pair[0].parse().unwrap())
}

/// Nothing ran, and it came to the same image.
fn check_all_found(build: &Ran, id: &str) {
    assert_eq!((ran(build), build.id()), (0, id), "{}", build.stderr);
}

/// Whether some line of what a build told holds this.
fn says(build: &Ran, words: &str) -> bool {
    build.stderr.contains(words)
}

/// How many blobs were asked for that are no documents of a cache.
fn layers_asked(registry: &Registry, since: usize) -> usize {
    let log = registry.log();
    let blobs = log[since..]
        .iter()
        .filter(|request| request.method == "GET" && request.path.contains("/blobs/sha256:"));
    // The first is the document.
    blobs.count().saturating_sub(1)
}
