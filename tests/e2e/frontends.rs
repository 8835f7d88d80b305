//! Front ends from outside: programs and images that read build files, honest ones and others.

mod examples;
mod images;
mod lies;
mod programs;

use crate::support::{Case, Kiln, World};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = programs::cases();
    cases.extend(lies::cases());
    cases.extend(images::cases());
    cases.extend(examples::cases());
    cases
}

/// What every front end of these begins with: a line of its own for each message, as it is (`echo`
/// would read escapes), and the first of them.
const HELLO: &str = r#"say() { printf '%s\n' "$1"; }
say '{"type":"hello","version":"kiln.frontend/0"}'"#;

/// Writes a shell script as `front`, which says `hello` first.
fn front(world: &World, script: &str) {
    world.write_program("front", &format!("#!/bin/sh\n{HELLO}\n{script}\n"));
}

/// `kiln plan --frontend ./front ctx`
fn plan(world: &World) -> Kiln<'_> {
    std::fs::create_dir_all(world.path("ctx")).unwrap();
    world.kiln(&[
        "plan",
        "--platform",
        "linux/amd64",
        "--frontend",
        "./front",
        "ctx",
    ])
}
