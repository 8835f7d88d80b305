//! `RUN --mount` of files, caches and memory: every key, seen from inside the step.

use nix::sys::signal::Signal;

use crate::support::Capability::{self, Busybox, Containers, OrdinaryUser, Setpriv};
use crate::support::{Case, User, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    const SEES: &[Capability] = &[Containers, Busybox];
    const AS_USER: &[Capability] = &[OrdinaryUser, Setpriv, Busybox];
    vec![
        case("binds_of_every_source", NEEDS, binds_of_every_source),
        case("keys_and_their_aliases", NEEDS, keys_and_their_aliases),
        case("variables_in_mounts", NEEDS, variables_in_mounts),
        case("what_a_bind_may_write", NEEDS, what_a_bind_may_write),
        case("a_bind_of_nothing", NEEDS, a_bind_of_nothing),
        case("misplaced_mounts", NEEDS, misplaced_mounts),
        case("mounts_within_mounts", NEEDS, mounts_within_mounts),
        case("ids_of_caches", NEEDS, ids_of_caches),
        case("private_caches", NEEDS, private_caches),
        case("shared_caches", NEEDS, shared_caches),
        case("first_content_of_caches", SEES, first_content_of_caches),
        case("read_only_caches", NEEDS, read_only_caches),
        case(
            "a_locked_cache_of_another_process",
            NEEDS,
            a_locked_cache_of_another_process,
        ),
        case(
            "a_locked_cache_keeps_no_job",
            NEEDS,
            a_locked_cache_keeps_no_job,
        ),
        case(
            "who_waits_for_a_cache_can_be_interrupted",
            NEEDS,
            who_waits_for_a_cache_can_be_interrupted,
        ),
        case("sizes_of_tmpfs", SEES, sizes_of_tmpfs),
        case("devices", NEEDS, devices),
        case(
            "mounts_as_an_ordinary_user",
            AS_USER,
            mounts_as_an_ordinary_user,
        ),
    ]
}

/// Builds, runs a script in the image and compares what it prints.
#[track_caller]
fn check(world: &World, dockerfile: &str, script: &str, expected: &str) {
    world.base();
    world.dockerfile(dockerfile);
    world.build();
    assert_eq!(world.sh("app", script), expected);
}

fn files(world: &World) {
    world.write("ctx/file", "of the context\n");
    world.write("ctx/dir/inner", "inner\n");
    world.write("named/file", "of a named context\n");
}

fn binds_of_every_source(world: &World) {
    files(world);
    world.base();
    world.dockerfile(
        r#"
        FROM demo/base AS stage
        RUN mkdir /d && echo "of a stage" > /d/f
        FROM demo/base
        RUN --mount=type=bind,target=/m cat /m/file /m/dir/inner > /out
        RUN --mount=source=dir,target=/m ls /m >> /out
        RUN --mount=source=file,target=/m cat /m >> /out
        RUN --mount=from=stage,source=/d,target=/m cat /m/f >> /out
        RUN --mount=from=STAGE,source=/d/f,target=/m cat /m >> /out
        RUN --mount=from=stage,target=/m cat /m/d/f >> /out
        RUN --mount=from=demo/base,source=/etc/passwd,target=/m cmp /m /etc/passwd && echo same >> /out
        RUN --mount=from=directory,source=file,target=/m cat /m >> /out
        RUN --mount=from=image,target=/m test -x /m/bin/sh && echo image >> /out
        RUN --mount=target=/m --mount=from=stage,source=d,target=/n cat /m/file /n/f >> /out
        "#,
    );
    let contexts = [
        "--build-context=directory=named",
        "--build-context=image=docker-image://demo/base",
    ];
    let arguments = [&["build", "-t", "app"][..], &contexts, &["ctx"]].concat();
    world.kiln(&arguments).ok();
    assert_eq!(
        world.sh("app", "cat /out; ls -d /m /n 2> /dev/null | wc -l"),
        "of the context\ninner\ninner\nof the context\nof a stage\nof a stage\nof a stage\nsame\n\
         of a named context\nimage\nof the context\nof a stage\n0\n"
    );
}

fn keys_and_their_aliases(world: &World) {
    files(world);
    check(
        world,
        r#"
        FROM demo/base
        WORKDIR /work
        RUN --mount=TYPE=bind,SRC=file,DST=a --mount=type=bind,src=file,destination=sub/b \
            --mount=type=bind,"source=file","target=/c" \
            cat /work/a sub/b /c > /out; ls >> /out
        RUN ls -A /work >> /out
        "#,
        "cat /out",
        "of the context\nof the context\nof the context\na\nsub\n",
    );
}

fn variables_in_mounts(world: &World) {
    files(world);
    check(
        world,
        r#"
        FROM demo/base
        ARG WHERE=/from/arg
        ENV WHAT=dir KIND=cache
        RUN --mount=type=bind,source=${WHAT}/inner,target=$WHERE cat /from/arg > /out
        RUN --mount=type=$KIND,id=$WHAT-id,target=$WHERE echo kept > $WHERE/f
        RUN --mount=type=cache,id=dir-id,target=/c cat /c/f >> /out
        "#,
        "cat /out",
        "inner\nkept\n",
    );
}

fn what_a_bind_may_write(world: &World) {
    files(world);
    check(
        world,
        r#"
        FROM demo/base AS stage
        RUN mkdir /d && echo stage > /d/f
        FROM demo/base
        RUN --mount=target=/m sh -c 'echo x > /m/file' 2> /dev/null || echo default >> /out
        RUN --mount=target=/m,ro sh -c 'echo x > /m/file' 2> /dev/null || echo ro >> /out
        RUN --mount=target=/m,readonly=true rm /m/file 2> /dev/null || echo readonly >> /out
        RUN --mount=target=/m,rw=false touch /m/new 2> /dev/null || echo rw=false >> /out
        RUN --mount=from=stage,source=/d,target=/m rm /m/f 2> /dev/null || echo stage >> /out
        RUN --mount=target=/m,rw echo written > /m/file && cat /m/file >> /out
        RUN --mount=target=/m,readwrite touch /m/dir/new && ls /m/dir >> /out
        RUN --mount=from=stage,source=/d,target=/m,rw echo written > /m/f && cat /m/f >> /out
        RUN --mount=from=stage,target=/m,readonly=false rm -r /m/d && test ! -e /m/d
        RUN --mount=source=file,target=/m,rw echo written > /m && cat /m >> /out
        RUN --mount=target=/m --mount=from=stage,source=/d,target=/n cat /m/file /n/f >> /out
        "#,
        "cat /out; ls -d /m 2> /dev/null | wc -l",
        "default\nro\nreadonly\nrw=false\nstage\nwritten\ninner\nnew\nwritten\nwritten\n\
         of the context\nstage\n0\n",
    );
    assert_eq!(world.read("ctx/file"), "of the context\n");
    assert!(!world.path("ctx/dir/new").exists());
}

fn a_bind_of_nothing(world: &World) {
    files(world);
    world.base();
    for (part, mount) in [
        ("context", "source=missing,target=/m"),
        ("image", "from=demo/base,source=/missing,target=/m"),
    ] {
        world.dockerfile(&format!("FROM demo/base\nRUN --mount={mount} true\n"));
        world.snapshot_of(part, &world.kiln(&["build", "ctx"]).exits(1).whole());
    }
}

fn misplaced_mounts(world: &World) {
    files(world);
    world.base();
    for (part, mounts) in [
        (
            "within",
            "--mount=target=/m --mount=type=tmpfs,target=/m/none",
        ),
        ("on_a_file", "--mount=source=dir,target=/etc/passwd"),
    ] {
        world.dockerfile(&format!("FROM demo/base\nRUN {mounts} true\n"));
        world.snapshot_of(part, &world.kiln(&["build", "ctx"]).exits(1).whole());
    }
}

fn mounts_within_mounts(world: &World) {
    files(world);
    check(
        world,
        r#"
        FROM demo/base
        RUN --mount=type=cache,target=/m/dir/cache --mount=target=/m,rw \
            --mount=type=tmpfs,target=/m/dir/cache/memory \
            touch /m/dir/cache/kept /m/dir/cache/memory/gone && cat /m/dir/inner > /out
        RUN --mount=type=cache,id=/m/dir/cache,target=/c ls /c /c/memory >> /out
        "#,
        "cat /out",
        "inner\n/c:\nkept\nmemory\n\n/c/memory:\n",
    );
    assert!(!world.path("ctx/dir/cache").exists());
}

fn ids_of_caches(world: &World) {
    world.base();
    world.dockerfile(
        r#"
        FROM demo/base
        WORKDIR /w
        RUN --mount=type=cache,target=/a echo a > /a/f
        RUN --mount=type=cache,target=a echo relative > a/f
        RUN --mount=type=cache,id=/a,target=/b cat /b/f > /out
        RUN --mount=type=cache,id=a,target=/b cat /b/f >> /out
        RUN --mount=type=cache,id=other,target=/a ls /a | wc -l >> /out
        "#,
    );
    world.build();
    assert_eq!(world.sh("app", "cat /out"), "a\nrelative\n0\n");
    // A namespace of its own, as several projects on one host have.
    world.dockerfile("FROM demo/base\nRUN --mount=type=cache,target=/a ls /a | wc -l > /n\n");
    let namespace = "BUILDKIT_CACHE_MOUNT_NS=project";
    world
        .kiln(&["build", "-t", "app", "--build-arg", namespace, "ctx"])
        .ok();
    assert_eq!(world.sh("app", "cat /n"), "0\n");
}

/// Two steps that run at the same time: each tells the other, through a shared cache, that it is there.
fn meeting(sharing: &str, more: &str) -> String {
    let run = |me: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,id=meet,target=/meet \
                 --mount=type=cache,id=c,target=/c,sharing={sharing} \
             touch /meet/{me}; while ! test -e /meet/{other}; do sleep 0.01; done; {more}"
        )
    };
    format!(
        "
        FROM demo/base AS one
        {}
        FROM demo/base AS two
        {}
        FROM demo/base
        COPY --from=one /seen /one
        COPY --from=two /seen /two
        ",
        run("one", "two").replace("SELF", "one"),
        run("two", "one").replace("SELF", "two"),
    )
}

fn private_caches(world: &World) {
    check(
        world,
        &meeting("private", "touch /c/SELF; ls /c > /seen"),
        "cat /one /two",
        "one\ntwo\n",
    );
}

fn shared_caches(world: &World) {
    let more = "touch /c/SELF; while ! test -e /c/one || ! test -e /c/two; do sleep 0.01; done; ls /c > /seen";
    check(
        world,
        &meeting("shared", more),
        "cat /one /two",
        "one\ntwo\none\ntwo\n",
    );
}

fn first_content_of_caches(world: &World) {
    check(
        world,
        r#"
        FROM demo/base AS start
        RUN mkdir -p /d/sub && echo first > /d/sub/f && chmod 700 /d/sub
        FROM demo/base
        RUN --mount=type=cache,id=whole,target=/c,from=start cat /c/d/sub/f > /out
        RUN --mount=type=cache,id=part,target=/c,from=start,source=/d/sub cat /c/f >> /out; echo second > /c/f
        RUN --mount=type=cache,id=part,target=/c,from=start,source=/d/sub cat /c/f >> /out
        RUN --mount=type=cache,id=plain,target=/c stat -c '%a %u:%g' /c >> /out
        RUN --mount=type=cache,id=mode,target=/c,mode=1777 stat -c '%a %u:%g' /c >> /out
        RUN --mount=type=cache,id=owner,target=/c,uid=1000,gid=2000 stat -c '%a %u:%g' /c >> /out
        RUN --mount=type=cache,id=all,target=/c,mode=0750,uid=7,gid=8 stat -c '%a %u:%g' /c >> /out
        USER 1000
        RUN --mount=type=cache,id=owner,target=/c,uid=1000,gid=2000 touch /c/mine
        RUN --mount=from=start,target=/s cat /s/d/sub/f 2> /dev/null || true
        "#,
        "cat /out",
        "first\nfirst\nsecond\n755 0:0\n1777 0:0\n755 1000:2000\n750 7:8\n",
    );
    // What a cache began with is as it was.
    world.dockerfile(
        "
        FROM demo/base AS start
        RUN mkdir -p /d/sub && echo first > /d/sub/f && chmod 700 /d/sub
        ",
    );
    world.build();
    assert_eq!(world.sh("app", "cat /d/sub/f"), "first\n");
}

fn read_only_caches(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        RUN --mount=type=cache,target=/c echo kept > /c/f
        RUN --mount=type=cache,target=/c,ro touch /c/g 2> /dev/null || cat /c/f > /out
        "#,
        "cat /out",
        "kept\n",
    );
}

const LOCKED: &str = "RUN --mount=type=cache,id=c,target=/c,sharing=locked";

fn a_locked_cache_of_another_process(world: &World) {
    world.base();
    let wait = format!("{LOCKED} touch /c/here; while ! test -e /c/go; do sleep 0.01; done");
    world.write("ctx/Dockerfile", format!("FROM demo/base\n{wait}\n"));
    let first = world.kiln(&["build", "ctx"]).spawn();
    let pid = first.pid();
    let cache = world.wait_in_caches("here");
    world.write(
        "two/Dockerfile",
        format!(
            "FROM demo/base AS other\n\
             RUN --mount=type=cache,id=told,target=/told touch /told/other /other\n\
             FROM demo/base\n{LOCKED} rm /c/go\nCOPY --from=other /other /\n"
        ),
    );
    let second = world
        .kiln(&["build", "--progress", "plain", "--jobs", "1", "two"])
        .spawn();
    // The other stage runs although there is one job and the step before it waits.
    world.wait_in_caches("other");
    std::fs::write(cache.join("go"), "").unwrap();
    let (first, second) = (first.wait(), second.wait());
    for ran in [&first, &second] {
        assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
    }
    let words = format!("kiln with pid {pid} uses the cache mount `c`; waiting");
    assert!(second.stderr.contains(&words), "{}", second.stderr);
}

fn a_locked_cache_keeps_no_job(world: &World) {
    world.base();
    // With two jobs: one step has the cache until the step without it has run.
    world.dockerfile(&format!(
        "
        FROM demo/base AS one
        {LOCKED} --mount=type=cache,id=told,target=/told while ! test -e /told/done; do sleep 0.01; done; touch /one
        FROM demo/base AS two
        {LOCKED} touch /two
        FROM demo/base AS three
        RUN --mount=type=cache,id=told,target=/told touch /told/done /three
        FROM demo/base
        COPY --from=one /one /
        COPY --from=two /two /
        COPY --from=three /three /
        "
    ));
    world
        .kiln(&["build", "--jobs", "2", "-t", "app", "ctx"])
        .ok();
    assert_eq!(world.sh("app", "ls /one /two /three | wc -l"), "3\n");
}

fn who_waits_for_a_cache_can_be_interrupted(world: &World) {
    world.base();
    let wait = format!("{LOCKED} touch /c/here; while ! test -e /c/go; do sleep 0.01; done");
    world.write("ctx/Dockerfile", format!("FROM demo/base\n{wait}\n"));
    let first = world.kiln(&["build", "ctx"]).spawn();
    let cache = world.wait_in_caches("here");
    world.write(
        "two/Dockerfile",
        format!(
            "FROM demo/base AS other\n\
             RUN --mount=type=cache,id=told,target=/told touch /told/other /other\n\
             FROM demo/base\n{LOCKED} rm /c/go\nCOPY --from=other /other /\n"
        ),
    );
    let second = world.kiln(&["build", "--jobs", "1", "two"]).spawn();
    world.wait_in_caches("other");
    second.signal(Signal::SIGINT);
    let second = second.wait();
    assert_eq!(second.status.code(), Some(130), "{}", second.stderr);
    std::fs::write(cache.join("go"), "").unwrap();
    assert_eq!(first.wait().status.code(), Some(0));
}

fn sizes_of_tmpfs(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        ENV SIZE=2m
        RUN --mount=type=tmpfs,target=/t,size=64k df -k /t | awk 'END { print $(NF-4) }' > /out
        RUN --mount=type=tmpfs,target=/t,size=$SIZE df -k /t | awk 'END { print $(NF-4) }' >> /out
        RUN --mount=type=tmpfs,target=/t stat -c %a /t >> /out; grep -c ' /t tmpfs ' /proc/mounts >> /out
        RUN --mount=type=tmpfs,target=/t,ro touch /t/f 2> /dev/null || echo ro >> /out
        "#,
        "cat /out; ls -d /t 2> /dev/null | wc -l",
        "64\n2048\n1777\n1\nro\n0\n",
    );
}

fn devices(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN --device=vendor.example/gpu=0,required=false true\n");
    world.build();
    world.dockerfile("FROM demo/base\nRUN --device=vendor.example/gpu=0,required true\n");
    world.snapshot(&world.kiln(&["build", "ctx"]).exits(2).whole());
}

fn mounts_as_an_ordinary_user(world: &World) {
    files(world);
    world.dockerfile(
        r#"
        FROM demo/base AS stage
        RUN mkdir /d && echo stage > /d/f
        FROM demo/base
        RUN --mount=target=/m --mount=from=stage,source=/d,target=/n cat /m/file /n/f > /out
        RUN --mount=target=/m,rw --mount=from=stage,source=/d,target=/n,rw \
            echo x > /m/file && rm /n/f && cat /m/file >> /out
        RUN --mount=type=cache,target=/c,sharing=locked,mode=0700 stat -c %a /c >> /out; echo kept > /c/f
        RUN --mount=type=cache,target=/c,sharing=private cat /c/f >> /out
        RUN --mount=type=cache,id=first,target=/c,from=stage,source=/d cat /c/f >> /out
        RUN --mount=type=tmpfs,target=/t,size=64k df -k /t | awk 'END { print $(NF-4) }' >> /out
        "#,
    );
    let user = User::new(world, "user");
    let ran = user.ok(
        "kiln import base.tar demo/base; kiln build --quiet -t app ctx > /dev/null; kiln run app cat /out",
    );
    let out = "of the context\nstage\nx\n700\nkept\nstage\n64\n";
    assert!(ran.stdout.ends_with(out), "{}", ran.whole());
}
