//! Which commit a local context is: in provenance and in labels.

use serde_json::Value;

use super::{PROVENANCE, said};
use crate::support::{Capability::*, Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "commit_of_the_context",
            &[Containers, Git],
            commit_of_the_context,
        ),
        case(
            "labels_of_the_commit",
            &[Containers, Git],
            labels_of_the_commit,
        ),
        case(
            "a_work_tree_that_runs_programs",
            &[Containers, Git],
            a_work_tree_that_runs_programs,
        ),
    ]
}

/// Runs git in the repository that has the context in it.
fn git(world: &World, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
    world
        .program("git", &[&who[..], arguments].concat())
        .in_directory("tree")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .ok()
        .stdout
        .trim()
        .to_owned()
}

/// Makes a repository with a context in it, in the directory `app`; returns its commit.
fn repository(world: &World) -> String {
    world.write("tree/app/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    world.write("tree/.gitignore", "made\n");
    git(world, &["init", "-q"]);
    git(world, &["add", "-A"]);
    git(world, &["commit", "-q", "-m", "work"]);
    let remote = "https://me:hunter2@example.com/team/app.git?token=secret";
    git(world, &["remote", "add", "origin", remote]);
    git(world, &["rev-parse", "HEAD"])
}

/// Builds what is in the repository; returns what its provenance says of version control.
fn vcs_of(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Value {
    let line = ["build", "-q", "-t", "app", "tree/app"];
    let mut kiln = world.kiln(&line).args(arguments);
    for (name, value) in variables {
        kiln = kiln.env(name, value);
    }
    kiln.ok();
    let predicate = said(world, "app")[PROVENANCE].clone();
    let text = predicate.to_string();
    assert!(
        !text.contains("hunter2") && !text.contains("token"),
        "{text}"
    );
    predicate["runDetails"]["metadata"]["buildkit_metadata"]["vcs"].clone()
}

fn commit_of_the_context(world: &World) {
    let commit = repository(world);
    let provenance = ["--provenance"];
    // What git is told to ignore does not count.
    world.write("tree/made/x", "");
    let vcs = vcs_of(world, &provenance, &[]);
    let expected = serde_json::json!({
        "source": "https://example.com/team/app.git",
        "revision": commit,
        "localdir:context": "app",
        "localdir:dockerfile": "app",
    });
    assert_eq!(vcs, expected);
    world.write("tree/new", "");
    let dirty = format!("{commit}-dirty");
    assert_eq!(
        vcs_of(world, &["--provenance=mode=max"], &[])["revision"],
        dirty
    );
    let unchecked = [("BUILDX_GIT_CHECK_DIRTY", "0")];
    assert_eq!(vcs_of(world, &provenance, &unchecked)["revision"], commit);
    let off = [("BUILDX_GIT_INFO", "false")];
    assert_eq!(vcs_of(world, &provenance, &off), Value::Null);
    // A remote that is a path of this host is nobody's business, and no commit is none.
    git(world, &["remote", "set-url", "origin", "/srv/git/app"]);
    git(world, &["checkout", "-q", "--orphan", "empty"]);
    let vcs = vcs_of(world, &provenance, &[]);
    let expected = serde_json::json!({ "localdir:context": "app", "localdir:dockerfile": "app" });
    assert_eq!(vcs, expected);
}

fn labels_of_the_commit(world: &World) {
    let commit = repository(world);
    let labels = |arguments: &[&str], value: &str| {
        let line = ["build", "-q", "-t", "app", "tree/app"];
        let kiln = world.kiln(&line).args(arguments);
        kiln.env("BUILDX_GIT_LABELS", value).ok();
        world.inspect("app")["config"]["config"]["Labels"].clone()
    };
    let expected = serde_json::json!({
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.source": "https://example.com/team/app.git",
        "com.docker.image.source.entrypoint": "app/Dockerfile",
    });
    assert_eq!(labels(&[], "1"), expected);
    let own = ["--label", "org.opencontainers.image.revision=mine"];
    assert_eq!(
        labels(&own, "full")["org.opencontainers.image.revision"],
        "mine"
    );
    assert_eq!(labels(&[], "0"), Value::Null);
}

fn a_work_tree_that_runs_programs(world: &World) {
    let commit = repository(world);
    let pwned = world.path("pwned").display().to_string();
    let program = format!("touch {pwned}; cat");
    world.write("tree/.gitattributes", "* filter=x\n");
    world.write_mode(
        "tree/.git/hooks/post-index-change",
        format!("#!/bin/sh\ntouch {pwned}\n"),
        0o755,
    );
    let monitor = world.path("monitor").display().to_string();
    world.write_mode("monitor", format!("#!/bin/sh\ntouch {pwned}\n"), 0o755);
    for (key, value) in [
        ("filter.x.clean", program.as_str()),
        ("filter.x.smudge", &program),
        ("filter.x.process", &program),
        ("filter.x.required", "true"),
        ("core.fsmonitor", &monitor),
        ("core.pager", &monitor),
        ("core.sshCommand", &monitor),
        ("alias.status", &format!("!{monitor}")),
    ] {
        let line = ["config", "--file", ".git/config", key, value];
        git(world, &line);
    }
    // Of the same length as before, so that it must be read to be compared.
    world.write("tree/app/Dockerfile", "FROM scratch\nCOPY Dockerfile .\n");
    let vcs = vcs_of(world, &["--provenance"], &[]);
    assert_eq!(vcs["revision"], format!("{commit}-dirty"));
    assert!(!world.path("pwned").exists());
    // A filter that cannot be switched off is not asked.
    git(
        world,
        &[
            "config",
            "--file",
            ".git/config",
            "filter.a=b.clean",
            &program,
        ],
    );
    let vcs = vcs_of(world, &["--provenance"], &[]);
    assert_eq!(vcs["revision"], format!("{commit}-dirty"));
    assert!(!world.path("pwned").exists());
}
