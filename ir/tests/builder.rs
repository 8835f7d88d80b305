//! The builder: what it makes as text, and what it refuses.

#![allow(clippy::unwrap_used)]

use kiln_ir::build::{BuildError, Builder, copy, copy_with, mkdir, mkfile, rm, symlink};
use kiln_ir::{CopyAction, Mount, MountKind, NetworkMode, Pin, Platform, parse};

fn amd64() -> Platform {
    Platform::linux("amd64")
}

/// The text form of what `make` builds; it reads back to the same plan.
fn check(make: impl Fn(&Builder), expected: &str) {
    let builder = Builder::new();
    make(&builder);
    let plan = builder.finish().unwrap();
    assert_eq!(plan.to_string(), expected);
    assert_eq!(parse(expected).unwrap(), plan);
}

fn refused(make: impl Fn(&Builder)) -> String {
    let builder = Builder::new();
    make(&builder);
    let error = builder.finish().unwrap_err();
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn files() {
    check(
        |b| {
            let base = b.image("docker.io/demo/base:latest", &amd64());
            let made = base.file([
                mkdir("/srv/app").mode(0o700).parents().owner("app"),
                mkfile("/etc/motd", "hello\n").owner(10).group("staff"),
                symlink("/etc/issue", "motd").owner(1),
                rm("/tmp/x"),
                copy(b.local("context").at("/src"), "/srv/app/"),
            ]);
            b.result("", made, None);
        },
        "%0 = image docker.io/demo/base:latest linux/amd64\n\
         %1 = local context\n\
         %2 = file %0 { mkdir /srv/app mode=0700 parents user=%0:app; \
         mkfile /etc/motd mode=0644 data=\"hello\\n\" user=10 group=%0:staff; \
         symlink /etc/issue -> motd user=1; rm /tmp/x; \
         copy %1:/src -> /srv/app/ create-dest }\n\
         result %2\n",
    );
}

#[test]
fn a_whole_copy() {
    check(
        |b| {
            let options = CopyAction {
                dest: "/bin/".into(),
                mode: Some(0o755),
                allow_wildcard: true,
                ..CopyAction::default()
            };
            let made = b
                .scratch()
                .file([copy_with(b.local("context").at("/*.sh"), options)]);
            b.result("", made, None);
        },
        "%0 = local context\n\
         %1 = file scratch { copy %0:/*.sh -> /bin/ mode=0755 wildcard }\n\
         result %1\n",
    );
}

#[test]
fn a_process() {
    check(
        |b| {
            let base = b.image("docker.io/demo/base:latest", &amd64());
            let made = base
                .exec(["make", "-j2"])
                .cwd("/src")
                .env("A", "b c")
                .user("app")
                .network(NetworkMode::None)
                .platform(&amd64())
                .bind(b.local("context"), "/src")
                .bind_writable(b.scratch(), "/out")
                .tmpfs("/tmp")
                .secret("token", "/run/secrets/token")
                .mount(
                    Mount {
                        kind: MountKind::Ssh(Default::default()),
                        ..Mount::default()
                    },
                    None,
                    "/ssh",
                )
                .change(|op| op.meta.hostname = "builder".into())
                .outputs();
            b.result("out", made.mount(1), None);
            b.result("root", made.root(), None);
        },
        "%0 = image docker.io/demo/base:latest linux/amd64\n\
         %1 = local context\n\
         %2 = exec %0 [\"make\", \"-j2\"] platform=linux/amd64 cwd=/src user=app env=[\"A=b c\"] \
         hostname=builder network=none { bind %1 -> /src ro; bind scratch -> /out out=1; \
         tmpfs -> /tmp; secret -> /run/secrets/token id=token mode=0400; ssh -> /ssh }\n\
         result out %2.1\n\
         result root %2\n",
    );
}

#[test]
fn merge_diff_and_pins() {
    check(
        |b| {
            let base = b.image("docker.io/demo/base:latest", &amd64());
            b.pin(base, Pin::Manifest(format!("sha256:{}", "a".repeat(64))));
            let changed = base.exec(["true"]).root();
            let diff = b.diff(base, changed);
            let file = b.http("https://example.org/a");
            b.result("", b.merge([base, diff, b.scratch(), file]), None);
        },
        &format!(
            "%0 = image docker.io/demo/base:latest linux/amd64\n\
             %1 = exec %0 [\"true\"] cwd=/\n\
             %2 = diff %0 -> %1\n\
             %3 = http https://example.org/a\n\
             %4 = merge %0 %2 scratch %3\n\
             result %4\n\
             pin %0 = manifest sha256:{}\n",
            "a".repeat(64)
        ),
    );
}

#[test]
fn equal_nodes_are_one_and_unneeded_ones_are_left_out() {
    check(
        |b| {
            let make = || {
                b.image("docker.io/demo/base:latest", &amd64())
                    .exec(["true"])
                    .root()
            };
            make().exec(["unneeded"]).root();
            b.result("a", make(), None);
            b.result("b", make(), None);
        },
        "%0 = image docker.io/demo/base:latest linux/amd64\n\
         %1 = exec %0 [\"true\"] cwd=/\n\
         result a %1\n\
         result b %1\n",
    );
}

#[test]
fn the_first_error_is_told_with_its_op() {
    let message = refused(|b| {
        let base = b.image("docker.io/demo/base:latest", &amd64());
        let made = base.exec(["true"]).tmpfs("relative").root();
        b.result("", made.exec(["after"]).root(), None);
    });
    insta::assert_snapshot!(message, @"the exec op number 2 is not valid: mount target `relative` is not an absolute path");
}

#[test]
fn settings_that_an_action_does_not_have() {
    let message = refused(|b| {
        b.result("", b.scratch().file([mkdir("/a"), rm("/b").mode(0)]), None);
    });
    insta::assert_snapshot!(message, @"the file op number 1 sets the mode of its action 1, a rm, which has none");
}

#[test]
fn trees_of_another_builder() {
    let other = Builder::new();
    let message =
        refused(|b| b.result("", b.merge([b.local("context"), other.local("src")]), None));
    insta::assert_snapshot!(message, @"the merge op number 2 reads a tree of another builder");
}

#[test]
fn results() {
    assert_eq!(refused(|_| ()), BuildError::NoResult.to_string());
    let message = refused(|b| {
        b.result("a", b.scratch(), None);
        b.result("a", b.scratch(), None);
    });
    assert_eq!(message, "there are two results named `a`");
}
