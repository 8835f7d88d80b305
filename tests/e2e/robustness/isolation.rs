//! What a step can reach, and kiln in a sandbox of its own.

use crate::support::Capability::{self, Busybox, Containers, Root};
use crate::support::{Case, World, case};

pub(super) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Busybox];
    vec![
        case("a_step_cannot_reach_out", NEEDS, a_step_cannot_reach_out),
        case(
            "devices_of_the_host_stay_closed",
            &[Root, Busybox],
            devices_of_the_host_stay_closed,
        ),
        case("kiln_in_its_own_sandbox", NEEDS, kiln_in_its_own_sandbox),
    ]
}

/// Each line runs in a step and must succeed.
const ATTEMPTS: &str = r#"
    FROM demo/base
    RUN ! (: > /proc/1/exe) && ! (: >> /proc/1/exe) && ! cat /proc/1/exe && ! cat /proc/1/environ
    RUN ! ls /proc/1/root/ && ! readlink /proc/1/cwd && ! cat /proc/1/maps
    RUN for fd in /proc/1/fd/*; do ! (: > $fd) || exit 1; done
    RUN cd /proc/self/fd && set -- * && echo "$@" && [ "$*" = "0 1 2 3" ] || [ "$*" = "0 1 2" ]
    RUN [ "$(readlink /proc/self/fd/0)" = /dev/null ]
    RUN case "$(readlink /proc/self/fd/1) $(readlink /proc/self/fd/2)" in pipe:*\ pipe:*) ;; *) exit 1;; esac
    RUN mkdir /m && ! mount -t tmpfs x /m && ! mount -o bind /bin /m && ! mount -o remount,rw /proc/sys && ! umount /proc
    RUN ! (echo 1 > /proc/sys/kernel/panic) && ! (echo x > /proc/sys/kernel/hostname) && ! (echo h > /proc/sysrq-trigger)
    RUN [ ! -e /proc/kcore ] || [ -z "$(head -c 1 /proc/kcore | od)" ]
    RUN [ -z "$(cat /proc/keys)" ] && [ -z "$(cat /proc/timer_list)" ] && [ -z "$(ls /sys/firmware)" ]
    RUN ! mkdir /sys/fs/cgroup/kiln && ! mkdir /sys/kiln
    RUN ! dmesg && ! chroot /proc/1/root true && ! nsenter -t 1 -m true
    RUN kill -9 1; ps | grep -q kiln-sandbox-init
    RUN [ "$(ls /proc | grep -c '^[0-9][0-9]*$')" -lt 8 ]
    RUN ls / | tr '\n' ' ' | grep -qx 'bin dev etc m proc root sys tmp usr var '
    RUN [ ! -e WORLD ]
    "#;

fn a_step_cannot_reach_out(world: &World) {
    world.base();
    let here = world.path(".");
    world.dockerfile(&ATTEMPTS.replace("WORLD", here.to_str().unwrap()));
    world.build();
}

fn devices_of_the_host_stay_closed(world: &World) {
    world.base();
    // Any node may be made, as in other engines, and goes into the layer; only /dev's own open.
    world.dockerfile(
        "
        FROM demo/base
        RUN mknod /disk b 7 0 && mknod /null c 1 3 && mknod /dev/disk b 7 0
        RUN ! head -c 1 /disk && ! head -c 1 /null && echo > /dev/null && head -c 1 /dev/zero
        RUN --mount=type=cache,target=/c mknod /c/null c 1 3; ! (echo > /c/null)
        RUN --mount=type=tmpfs,target=/t mknod /t/null c 1 3; ! (echo > /t/null)
        RUN mknod /dev/again c 1 3; ! (echo > /dev/again)
        ",
    );
    world.build();
}

fn kiln_in_its_own_sandbox(world: &World) {
    world.base();
    world.write("in/base.tar", world.base_archive());
    world.write("in/ctx/a", "a\n");
    world.write(
        "in/ctx/Dockerfile",
        "FROM demo/base AS one\nCOPY a /w/a\nRUN --mount=type=cache,target=/c wc -c < /w/a > /w/n; rm /bin/yes\n\
         FROM demo/base\nCOPY --from=one /w /w\nRUN mv /w/n /n; echo x >> /w/a; mkdir /etc/new\n",
    );
    world.write(
        "in/inner.sh",
        "set -e\nexport KILN_ROOT=/store SOURCE_DATE_EPOCH=0\nkiln info >&2\nkiln import /in/base.tar demo/base >&2\n\
         id=$(kiln build --quiet /in/ctx)\nkiln run $id cat /n >&2\nkiln inspect $id\n",
    );
    let inner = world.path("in");
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_kiln"));
    let mut volumes = vec![
        format!("{}:/in:ro", inner.display()),
        format!("{}:/bin/kiln:ro", program.display()),
    ];
    // What the program loads.
    for libraries in ["/lib", "/lib64", "/usr/lib"] {
        if std::path::Path::new(libraries).exists() {
            volumes.push(format!("{libraries}:{libraries}:ro"));
        }
    }
    let mut arguments = vec!["run"];
    for volume in &volumes {
        arguments.extend(["-v", volume]);
    }
    arguments.extend(["demo/base", "sh", "/in/inner.sh"]);
    let nested = world.kiln(&arguments).ok();
    assert!(
        nested.stderr.contains("snapshots       copy")
            || nested.stderr.contains("snapshots       overlay")
    );
    let context = inner.join("ctx");
    let outer = world.kiln(&["build", "--quiet", context.to_str().unwrap()]);
    let outer = outer.env("SOURCE_DATE_EPOCH", "0").ok();
    let read = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    assert_eq!(
        read(&nested.stdout)["layers"],
        world.inspect(outer.id())["layers"]
    );
    assert_eq!(read(&nested.stdout)["id"], outer.id());
}
