//! Builds that are made twice, and images that are compared.

use std::time::{Duration, SystemTime};

use crate::support::Capability::{self, Busybox, Containers};
use crate::support::{Case, Ran, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers, Busybox];
    vec![
        case("the_same", NEEDS, the_same),
        case("culprits", NEEDS, culprits),
        case("as_json", NEEDS, as_json),
        case("several_platforms", &[Containers], several_platforms),
        case("times_of_files", NEEDS, times_of_files),
        case("cold_caches", NEEDS, cold_caches),
        case("a_step_that_fails", NEEDS, a_step_that_fails),
        case("not_from_standard_input", &[], not_from_standard_input),
        case("two_images", NEEDS, two_images),
    ]
}

fn reproduce(world: &World, more: &[&str]) -> Ran {
    world
        .kiln(&["reproduce", "-q"])
        .args(more)
        .args(&["ctx"])
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .run()
}

/// What differs from run to run: times, digests, chance.
fn masked(ran: &Ran) -> String {
    let mut text = String::new();
    for line in ran.whole().lines() {
        let line = match line.trim_start() {
            marked if marked.starts_with(['-', '+']) && !marked.starts_with("---") => {
                let indent = line.len() - marked.len();
                format!("{}{} [a line]", " ".repeat(indent), &marked[..1])
            }
            _ => line
                .split(' ')
                .map(|word| match word.parse::<u64>() {
                    Ok(1_000_000_000..) => "[time]",
                    _ => word,
                })
                .collect::<Vec<_>>()
                .join(" "),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn the_same(world: &World) {
    world.base();
    world.write("ctx/a", "a\n");
    world.dockerfile(
        r#"
        FROM demo/base AS one
        RUN mkdir -p /out && cat /etc/hostname 2>/dev/null | wc -c > /out/one; nproc > /dev/null
        FROM demo/base
        COPY a /a
        COPY --from=one /out /out
        RUN tar -cf - a | gzip -n > /a.tar.gz && rm /a.tar.gz && touch -d @1 /b
        CMD ["cat", "/a"]
        "#,
    );
    let ran = reproduce(world, &["-t", "kept"]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
    // It is what a build sends elsewhere, whoever makes it.
    world
        .kiln(&["build", "-q", "--metadata-file", "meta.json"])
        .args(&["-o", "type=oci,dest=x.tar", "ctx"])
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .ok();
    let metadata: serde_json::Value = serde_json::from_str(&world.read("meta.json")).unwrap();
    assert_eq!(metadata["containerimage.digest"], ran.id());
    assert_eq!(world.kiln(&["run", "kept"]).ok().stdout, "a\n");
}

fn culprits(world: &World) {
    world.base();
    world.dockerfile(
        r#"
        FROM demo/base
        RUN mkdir -p /var/log /tmp
        RUN date +%s > /stamp
        RUN hostname > /etc/built-on && cat /proc/sys/kernel/random/uuid > /id
        RUN date +%s > /var/log/setup.log
        RUN date +%s > /t && gzip /t && tar -C / -cf /all.tar stamp && chmod 600 /stamp
        ENV FIXED=yes
        "#,
    );
    let ran = reproduce(world, &[]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
    world.snapshot(&masked(&ran));
}

/// Steps see other times of what was made here, in whatever way they come to it.
fn times_of_files(world: &World) {
    world.base();
    world.write("ctx/a", "a\n");
    world.write("ctx/dir/b", "b\n");
    world.dockerfile(
        r#"
        FROM demo/base AS one
        RUN mkdir /dir && echo x > /dir/made && echo y > /gone
        RUN rm /gone
        FROM demo/base
        RUN stat -c %Y /bin/sh > /of-the-base
        COPY a /a
        RUN stat -c %Y /a > /of-the-context
        COPY --from=one /dir /dir
        RUN stat -c %Y /dir/made > /of-a-step
        RUN --mount=target=/m stat -c %Y /m/a > /of-a-context-mount
        RUN --mount=source=dir,target=/m stat -c %Y /m/b > /of-a-part-of-a-context
        RUN --mount=from=one,target=/m stat -c %Y /m/dir/made > /of-a-stage; test ! -e /m/gone
        RUN --mount=from=one,source=/dir/made,target=/m stat -c %Y /m > /of-a-file-of-a-stage
        RUN --mount=from=one,source=/dir,target=/m stat -c %Y /m > /of-a-directory-of-a-stage
        RUN tar -cf /a.tar a
        "#,
    );
    let ran = reproduce(world, &[]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.whole());
    world.snapshot(&masked(&ran));
    // Those that are fixed are the same, however young the epoch is.
    world.dockerfile(
        r#"
        FROM demo/base
        ARG SOURCE_DATE_EPOCH
        COPY <<EOF /here
        text
        EOF
        RUN tar -cf /here.tar here
        RUN mkdir /site && touch -d @$SOURCE_DATE_EPOCH /site/index && touch -d @5 /site/old
        RUN cd /site && tar -cf /site.tar index old
        RUN test /site/index -nt /site/old
        "#,
    );
    let minutes_ago = SystemTime::now() - Duration::from_secs(600);
    let epoch = minutes_ago.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    world
        .kiln(&["reproduce", "-q", "ctx"])
        .env("SOURCE_DATE_EPOCH", epoch.as_secs().to_string())
        .ok();
}

fn as_json(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN date +%s > /stamp\n");
    let ran = reproduce(world, &["--format", "json"]);
    assert_eq!(ran.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["same"], false);
    let layer = &found["images"][0]["layers"][0];
    assert_eq!(layer["step"]["line"], 2);
    assert_eq!(layer["step"]["text"], "RUN date +%s > /stamp");
    let file = &layer["files"][0];
    assert_eq!(file["path"], "/stamp");
    assert_eq!(file["culprit"]["what"], "a time of the clock");
    assert_eq!(file["differences"][0]["line"]["number"], 1);
    // The config says nothing of it.
    assert_eq!(found["images"][0]["config"], serde_json::json!([]));
    world.dockerfile("FROM demo/base\nRUN echo > /stamp\n");
    let same = reproduce(world, &["--format", "json"]);
    assert_eq!(same.status.code(), Some(0));
    let found: serde_json::Value = serde_json::from_str(&same.stdout).unwrap();
    assert_eq!(found["same"], true);
}

fn several_platforms(world: &World) {
    world.write("ctx/a", "a\n");
    world.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n");
    let ran = reproduce(world, &["--platform", "linux/amd64,linux/arm64"]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
}

fn cold_caches(world: &World) {
    world.base();
    // Whoever finds something in the cache takes it.
    world.dockerfile(
        r#"
        FROM demo/base
        RUN --mount=type=cache,target=/cache \
            test -e /cache/n || echo 1 > /cache/n; cp /cache/n /n; echo 2 > /cache/n
        "#,
    );
    world.build();
    assert_eq!(world.sh("app", "cat /n"), "1\n");
    let ran = reproduce(world, &[]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.whole());
    let mounts = world.kiln(&["du"]).ok().stdout;
    let line = mounts.lines().find(|line| line.starts_with("cache mounts"));
    assert_eq!(
        line.and_then(|line| line.split_whitespace().nth(2)),
        Some("1"),
        "{mounts}"
    );
}

fn a_step_that_fails(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN exit 3\n");
    let ran = reproduce(world, &[]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("exit code 3"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    assert!(!ran.stderr.contains("came to its end"), "{}", ran.stderr);
    // That only one of them fails says what it depends on.
    world.dockerfile("FROM demo/base\nRUN test \"$(hostname)\" != kiln\n");
    let ran = reproduce(world, &[]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(
        ran.stderr.contains("the first build came to its end"),
        "{}",
        ran.stderr
    );
}

fn not_from_standard_input(world: &World) {
    let ran = world.kiln(&["reproduce", "-"]).exits(2);
    world.snapshot(&ran.whole());
}

fn two_images(world: &World) {
    world.base();
    world.write("ctx/text", "one\ntwo\nthree\n");
    world.write("ctx/only", "x");
    world.dockerfile("FROM demo/base\nENV A=1\nCOPY text only /\n");
    let build = |name: &str| {
        world
            .kiln(&["build", "-q", "-t", name, "ctx"])
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .ok();
    };
    build("one");
    world.write_mode("ctx/text", "one\n2\nthree\n", 0o755);
    world.dockerfile("FROM demo/base\nENV A=2\nCOPY text /\n");
    build("two");
    let same = world.kiln(&["diff", "one", "one"]).ok();
    assert_eq!(same.stdout.lines().count(), 1);
    world.snapshot(&world.kiln(&["diff", "one", "two"]).exits(1).whole());
    world.snapshot_of(
        "nobody",
        &world.kiln(&["diff", "one", "nobody"]).exits(1).whole(),
    );
}
