//! An ordinary user, whose kiln the tests run from root.

use std::path::Path;
use std::process::{Command, Stdio};

use super::kiln::Ran;
use super::world::World;

/// Nobody's id on any host that these tests run on.
pub(crate) const UID: &str = "64242";

const NO_GROUPS: &str = "--clear-groups";

/// What a script prints when that user runs it in the case's directory, with `$KILN` and a store.
pub(crate) struct User<'w> {
    world: &'w World,
    store: &'static str,
    /// A line of a shell that runs `"$@"` as somebody who runs things for the user.
    pub(crate) before: String,
    /// What `setpriv` is told of groups beside the user's own.
    pub(crate) groups: String,
}

impl<'w> User<'w> {
    /// Makes the files that the user needs, and a home.
    pub(crate) fn new(world: &'w World, store: &'static str) -> User<'w> {
        // The case's directory is root's alone.
        let above = world.path("..");
        for directory in [above.as_path(), &world.path(".")] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(directory, mode).unwrap();
        }
        world.write("base.tar", world.base_archive());
        world.write("ctx/a", "a\n");
        world.write("ctx/d/x", "x\n");
        std::fs::create_dir_all(world.path(store)).unwrap();
        let id: u32 = UID.parse().unwrap();
        std::os::unix::fs::chown(world.path(store), Some(id), Some(id)).unwrap();
        User {
            world,
            store,
            before: "exec \"$@\"".to_owned(),
            groups: NO_GROUPS.to_owned(),
        }
    }

    /// A user to whom /etc/subuid and /etc/subgid give ids, in a mount namespace of its own.
    pub(crate) fn with_ids(world: &'w World, store: &'static str) -> User<'w> {
        User {
            before: giving_ids(&world.path("etc")),
            ..User::new(world, store)
        }
    }

    /// A user whose files are on an overlay, in a mount namespace of its own: no other overlay can have its
    /// upper directory there. What the user writes is in the directory `STORE-upper` afterwards.
    pub(crate) fn without_overlays(world: &'w World, store: &'static str) -> User<'w> {
        let user = User::new(world, store);
        let below = |end: &str| {
            let path = world.path(&format!("{store}-{end}"));
            std::fs::create_dir_all(&path).unwrap();
            let id: u32 = UID.parse().unwrap();
            std::os::unix::fs::chown(&path, Some(id), Some(id)).unwrap();
            path.display().to_string()
        };
        let (lower, upper, work) = (below("lower"), below("upper"), below("work"));
        let merged = world.path(store);
        let inside = format!(
            "mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {} && exec \"$@\"",
            merged.display()
        );
        let before = format!("exec unshare --mount sh -c '{inside}' sh \"$@\"");
        User { before, ..user }
    }

    pub(crate) fn run(&self, script: &str) -> Ran {
        let home = self.world.path(self.store);
        let home = home.to_str().unwrap();
        let script = format!(
            "umask 022; kiln() {{ {} \"$@\"; }}; export HOME={home} KILN_ROOT={home}/store SOURCE_DATE_EPOCH=0\n{script}",
            env!("CARGO_BIN_EXE_kiln")
        );
        let arguments = arguments(&self.before, &self.groups, &script);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.world.program("sh", &arguments).run()
    }

    /// Runs a script that must succeed.
    pub(crate) fn ok(&self, script: &str) -> Ran {
        let ran = self.run(&format!("set -e\n{script}"));
        assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
        ran
    }
}

/// A line of a shell that runs `"$@"` where the user has ids, in a mount namespace of its own.
///
/// A copy of all of /etc is made for it: the host's own files stay as they are.
fn giving_ids(etc: &Path) -> String {
    let etc = etc.display();
    let inside = format!(
        "test -e {etc} || cp -a /etc {etc} && echo kilntest:x:{UID}:{UID}::/:/bin/sh >> {etc}/passwd && \
         echo kilntest:1000000:65536 > {etc}/subuid && cp {etc}/subuid {etc}/subgid && \
         mount --bind {etc} /etc && exec \"$@\""
    );
    format!("exec unshare --mount sh -c '{inside}' sh \"$@\"")
}

/// The arguments of a shell that runs a script as the user.
fn arguments(before: &str, groups: &str, script: &str) -> Vec<String> {
    let user = [
        "-c",
        before,
        "sh",
        "setpriv",
        &format!("--reuid={UID}"),
        &format!("--regid={UID}"),
        groups,
        "sh",
        "-c",
        script,
    ];
    user.map(str::to_owned).to_vec()
}

/// Whether a script succeeds as the user with ids, whose home is below a directory.
pub(super) fn succeeds_with_ids(directory: &Path, script: &str) -> bool {
    let home = directory.join("home");
    let id: u32 = UID.parse().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory, mode).unwrap();
    std::fs::create_dir_all(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(id), Some(id)).unwrap();
    let script = format!("set -e; export HOME={}; cd\n{script}", home.display());
    let status = Command::new("sh")
        .args(arguments(
            &giving_ids(&directory.join("etc")),
            NO_GROUPS,
            &script,
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
