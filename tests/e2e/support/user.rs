//! An ordinary user, whose kiln the tests run from root.

use super::kiln::Ran;
use super::world::World;

/// Nobody's id on any host that these tests run on.
pub(crate) const UID: &str = "64242";

/// What a script prints when that user runs it in the case's directory, with `$KILN` and a store.
pub(crate) struct User<'w> {
    world: &'w World,
    store: &'static str,
    /// A line of a shell that runs `"$@"` as somebody who runs things for the user.
    pub(crate) before: String,
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
        }
    }

    /// A user to whom /etc/subuid and /etc/subgid give ids, in a mount namespace of its own.
    pub(crate) fn with_ids(world: &'w World, store: &'static str) -> User<'w> {
        let etc = world.path("etc");
        let etc = etc.display();
        // A copy of the whole directory: the host's own files stay as they are.
        let inside = format!(
            "cp -a /etc {etc} && echo kilntest:x:{UID}:{UID}::/:/bin/sh >> {etc}/passwd && \
             echo kilntest:1000000:65536 > {etc}/subuid && cp {etc}/subuid {etc}/subgid && \
             mount --bind {etc} /etc && exec \"$@\""
        );
        let before = format!("exec unshare --mount sh -c '{inside}' sh \"$@\"");
        User {
            before,
            ..User::new(world, store)
        }
    }

    pub(crate) fn run(&self, script: &str) -> Ran {
        let home = self.world.path(self.store);
        let home = home.to_str().unwrap();
        let script = format!(
            "umask 022; kiln() {{ {} \"$@\"; }}; export HOME={home} KILN_ROOT={home}/store SOURCE_DATE_EPOCH=0\n{script}",
            env!("CARGO_BIN_EXE_kiln")
        );
        let user = [
            "setpriv",
            &format!("--reuid={UID}"),
            &format!("--regid={UID}"),
            "--clear-groups",
            "sh",
            "-c",
            &script,
        ];
        let arguments = [&["-c", &self.before, "sh"][..], &user].concat();
        self.world.program("sh", &arguments).run()
    }

    /// Runs a script that must succeed.
    pub(crate) fn ok(&self, script: &str) -> Ran {
        let ran = self.run(&format!("set -e\n{script}"));
        assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
        ran
    }
}
