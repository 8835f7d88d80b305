//! Dockerfile instructions, seen from inside the image that they make.

use std::io::Write;

use crate::support::Capability::{self, Busybox, Containers};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    const SEES: &[Capability] = &[Containers, Busybox];
    vec![
        case("run_heredocs", NEEDS, run_heredocs),
        case("copy_heredocs", NEEDS, copy_heredocs),
        case("copy_parents_and_exclude", NEEDS, copy_parents_and_exclude),
        case("copy_link", NEEDS, copy_link),
        case("copy_of_something_remote", &[], copy_of_something_remote),
        case("argument_scopes", NEEDS, argument_scopes),
        case("expansion", NEEDS, expansion),
        case(
            "copy_wildcards_and_directories",
            NEEDS,
            copy_wildcards_and_directories,
        ),
        case("copy_chown_and_chmod", SEES, copy_chown_and_chmod),
        case("dockerignore", NEEDS, dockerignore),
        case(
            "ignorefile_of_one_dockerfile",
            NEEDS,
            ignorefile_of_one_dockerfile,
        ),
        case(
            "add_unpacks_local_archives",
            NEEDS,
            add_unpacks_local_archives,
        ),
        case("copy_from_an_image", NEEDS, copy_from_an_image),
        case("onbuild", NEEDS, onbuild),
        case("shell", NEEDS, shell),
        case("user_and_workdir", SEES, user_and_workdir),
        case("config_of_the_image", NEEDS, config_of_the_image),
        case("cache_mounts_stay", NEEDS, cache_mounts_stay),
        case(
            "locked_cache_mounts_take_turns",
            NEEDS,
            locked_cache_mounts_take_turns,
        ),
        case("bind_mounts", NEEDS, bind_mounts),
        case("tmpfs_mounts", SEES, tmpfs_mounts),
        case("network_none", SEES, network_none),
        case("networks_of_one_run", SEES, networks_of_one_run),
        case("syntax_line", NEEDS, syntax_line),
        case("another_dockerfile", NEEDS, another_dockerfile),
        case("named_contexts", NEEDS, named_contexts),
        case(
            "run_true_on_scratch_seals_empty",
            SEES,
            run_true_on_scratch_seals_empty,
        ),
        case("deletions", NEEDS, deletions),
        case("several_errors_at_once", &[], several_errors_at_once),
        case("warnings", NEEDS, warnings),
        case(
            "warnings_of_a_failed_build",
            NEEDS,
            warnings_of_a_failed_build,
        ),
        case("no_dockerfile", &[], no_dockerfile),
        case(
            "undeclared_build_argument",
            NEEDS,
            undeclared_build_argument,
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

fn run_heredocs(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        ENV NAME=world
        RUN <<EOF
        echo "hello $NAME" > /one
        echo second >> /one
        EOF
        RUN <<A cat > /two && cat <<B > /three
        from a
        A
        from b
        B
        RUN <<-'EOF'
        	#!/bin/sh
        	echo "script $0 $#" | sed 's/ .*//' > /four
        	EOF
        "#,
        "cat /one /two /three /four",
        "hello world\nsecond\nfrom a\nfrom b\nscript\n",
    );
}

fn copy_heredocs(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        ENV NAME=world
        COPY --chmod=755 <<EOF <<'RAW' /etc/
        hello $NAME
        EOF
        hello $NAME
        RAW
        "#,
        "cat /etc/EOF /etc/RAW; test -x /etc/EOF && echo executable",
        "hello world\nhello $NAME\nexecutable\n",
    );
}

fn argument_scopes(world: &World) {
    world.base();
    world.dockerfile(
        r#"
        ARG BASE=demo/base
        ARG SHARED=global
        FROM $BASE AS one
        ARG SHARED
        ARG OWN=own
        RUN echo "$SHARED $OWN" > /one
        FROM $BASE
        ARG OWN
        ENV OWN=env
        RUN echo "[$SHARED] [$OWN] $TARGETARCH" > /two
        ARG TARGETOS
        RUN echo "$TARGETOS" > /three
        COPY --from=one /one /one
        "#,
    );
    world
        .kiln(&["build", "-t", "app", "--build-arg", "OWN=given", "ctx"])
        .ok();
    assert_eq!(
        world.sh("app", "cat /one /two /three; env | grep -c SHARED; true"),
        "global given\n[] [env] \nlinux\n0\n"
    );
}

fn expansion(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        ENV A=alpha EMPTY="" FILE=archive.tar.gz
        ENV R="${A}-${NONE:-none}-${EMPTY:-dflt}-${EMPTY-kept}-${A:+set}-${FILE%%.*}-${FILE#*.}-${A/a/o}-${A//a/o}-\$A"
        "#,
        "echo \"$R\"",
        "alpha-none-dflt--set-archive-tar.gz-olpha-olpho-$A\n",
    );
}

fn copy_wildcards_and_directories(world: &World) {
    for file in [
        "a.txt",
        "b.txt",
        "c.md",
        "dir/x",
        "dir/sub/y",
        "d1/f",
        "d2/f",
    ] {
        world.write(&format!("ctx/{file}"), format!("{file}\n"));
    }
    check(
        world,
        r#"
        FROM demo/base
        WORKDIR /w
        COPY *.txt texts/
        COPY dir .
        COPY dir /named
        COPY ["c.md", "a.txt", "/both/"]
        COPY d?/f /last
        COPY --parents dir/*/y /parents/
        "#,
        "cd /w && find . -type f | sort; cd / && find named both parents -type f | sort; cat /last",
        "./sub/y\n./texts/a.txt\n./texts/b.txt\n./x\nboth/a.txt\nboth/c.md\nnamed/sub/y\nnamed/x\nparents/dir/sub/y\nd2/f\n",
    );
}

fn copy_chown_and_chmod(world: &World) {
    world.write_mode("ctx/f", "f\n", 0o600);
    world.write_mode("ctx/d/g", "g\n", 0o640);
    check(
        world,
        "
        FROM demo/base
        COPY f /plain
        COPY --chown=nobody f /user
        COPY --chown=1000:2000 --chmod=u=rwX,go=rX d /numbers
        COPY --chmod=4711 f /bits
        ",
        "stat -c '%n %u:%g %a' /plain /user /numbers /numbers/g /bits",
        "/plain 0:0 600\n/user 65534:65534 600\n/numbers 1000:2000 755\n/numbers/g 1000:2000 644\n/bits 0:0 4711\n",
    );
}

const LISTING: &str = "
    FROM demo/base
    COPY . /ctx
";

fn files_of_a_context(world: &World) {
    for file in [
        "keep",
        "drop.log",
        "sub/drop.log",
        "sub/keep.log",
        "secret/key",
        "deep/a/b/c",
    ] {
        world.write(&format!("ctx/{file}"), "x");
    }
}

fn dockerignore(world: &World) {
    files_of_a_context(world);
    world.write(
        "ctx/.dockerignore",
        "# a comment\n**/*.log\n!sub/keep.log\nsecret\ndeep/*/b\nDockerfile\n.dockerignore\n",
    );
    check(
        world,
        LISTING,
        "cd /ctx && find . -type f | sort; find . -type d | sort",
        "./keep\n./sub/keep.log\n.\n./deep\n./deep/a\n./sub\n",
    );
}

fn ignorefile_of_one_dockerfile(world: &World) {
    files_of_a_context(world);
    world.write("ctx/.dockerignore", "keep\n");
    world.write("ctx/Dockerfile.dockerignore", "*\n!keep\n");
    check(
        world,
        LISTING,
        "cd /ctx && find . -type f | sort",
        "./keep\n",
    );
}

fn tar_gz(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    let plain = archive.into_inner().unwrap();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&plain).unwrap();
    zipped.finish().unwrap()
}

fn add_unpacks_local_archives(world: &World) {
    world.write(
        "ctx/files.tar.gz",
        tar_gz(&[("in/one", "one\n"), ("two", "two\n")]),
    );
    world.write("ctx/plain", "plain\n");
    check(
        world,
        "
        FROM demo/base
        ADD files.tar.gz plain /unpacked/
        ADD --unpack=false files.tar.gz /kept/
        COPY files.tar.gz /copied/
        ",
        "cd /unpacked && find . -type f | sort; cat in/one two plain; ls /kept /copied",
        "./in/one\n./plain\n./two\none\ntwo\nplain\n/copied:\nfiles.tar.gz\n\n/kept:\nfiles.tar.gz\n",
    );
}

fn copy_from_an_image(world: &World) {
    check(
        world,
        "
        FROM scratch AS files
        COPY --from=demo/base /etc/passwd /p
        FROM demo/base
        COPY --from=0 /p /by-number
        COPY --from=files /p /by-name
        ",
        "cmp /etc/passwd /by-number && cmp /etc/passwd /by-name && echo same",
        "same\n",
    );
}

fn onbuild(world: &World) {
    world.base();
    world.write("ctx/a", "a\n");
    world.write(
        "ctx/Dockerfile",
        "FROM demo/base\nONBUILD COPY a /from-onbuild\nONBUILD RUN cp /from-onbuild /copied\n",
    );
    world.kiln(&["build", "-t", "demo/trigger", "ctx"]).ok();
    world.dockerfile("FROM demo/trigger\nRUN echo after > /after\n");
    let ran = world.build();
    world.snapshot(&ran.table());
    assert_eq!(world.sh("app", "cat /copied /after"), "a\nafter\n");
    // Triggers are used up by the first child.
    assert!(
        !world
            .inspect("app")
            .to_string()
            .contains("from-onbuild /copied\"")
    );
}

fn shell(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        SHELL ["/bin/sh", "-e", "-x", "-c"]
        RUN echo "$-" > /flags
        CMD echo hi
        "#,
        "grep -c x /flags",
        "1\n",
    );
    let config = world.inspect("app").to_string();
    assert!(
        config.contains(r#"["/bin/sh","-e","-x","-c","echo hi"]"#),
        "{config}"
    );
}

fn user_and_workdir(world: &World) {
    check(
        world,
        "
        FROM demo/base
        WORKDIR /made/here
        WORKDIR deeper
        RUN chmod 777 . && pwd > pwd
        USER nobody
        RUN id -u > id; stat -c %u id > owner
        USER 1234:5678
        RUN id -u > /made/here/deeper/n; id -g >> /made/here/deeper/n
        ",
        "cat pwd id owner n; id -u; pwd",
        "/made/here/deeper\n65534\n65534\n1234\n5678\n1234\n/made/here/deeper\n",
    );
}

fn config_of_the_image(world: &World) {
    world.base();
    world.dockerfile(
        r#"
        FROM demo/base
        MAINTAINER somebody
        ENV A=1 B="two words"
        LABEL one=1 two="2 2"
        EXPOSE 80 443/udp
        VOLUME /data
        WORKDIR /w
        USER nobody
        STOPSIGNAL SIGQUIT
        HEALTHCHECK --interval=30s --retries=3 CMD true
        ENTRYPOINT ["/bin/echo"]
        CMD ["hello"]
        "#,
    );
    let arguments = ["build", "-t", "app", "--label", "from=command", "ctx"];
    world
        .kiln(&arguments)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .ok();
    let config = &world.inspect("app")["config"];
    world.snapshot(&serde_json::to_string_pretty(config).unwrap());
}

fn cache_mounts_stay(world: &World) {
    world.base();
    let build = |text: &str| {
        let run = "RUN --mount=type=cache,target=/cache echo";
        world.dockerfile(&format!(
            "FROM demo/base\n{run} {text} >> /cache/log; cp /cache/log /log\n"
        ));
        world.build();
        world.sh("app", "cat /log; ls /cache 2>&1 | wc -l")
    };
    build("one");
    // The mount point is not part of the image, nor is what is in it.
    assert_eq!(build("two"), "one\ntwo\n1\n");
    assert_eq!(build("three"), "one\ntwo\nthree\n1\n");
}

fn locked_cache_mounts_take_turns(world: &World) {
    world.base();
    // Each would fail if it met the other's directory.
    let run = "RUN --mount=type=cache,id=c,sharing=locked,target=/c mkdir /c/busy && sleep 0.2 && rmdir /c/busy";
    world.dockerfile(&format!(
        "
        FROM demo/base AS one
        {run} && echo one > /one
        FROM demo/base AS two
        {run} && echo two > /two
        FROM demo/base
        COPY --from=one /one /
        COPY --from=two /two /
        "
    ));
    world.build();
}

fn bind_mounts(world: &World) {
    world.write("ctx/file", "of the context\n");
    world.write("ctx/dir/inner", "inner\n");
    check(
        world,
        r#"
        FROM demo/base AS other
        RUN echo other > /other
        FROM demo/base
        RUN --mount=type=bind,source=file,target=/one \
            --mount=source=dir,target=/two \
            --mount=from=other,source=/other,target=/three \
            cat /one /two/inner /three > /out
        RUN --mount=target=/ctx sh -c 'echo x > /ctx/file' 2> /dev/null || echo read-only >> /out
        RUN --mount=target=/ctx,rw sh -c 'echo x > /ctx/file && cat /ctx/file' >> /out
        RUN --mount=target=/ctx cat /ctx/file >> /out
        "#,
        "cat /out; ls -d /one /two /three /ctx 2> /dev/null | wc -l",
        "of the context\ninner\nother\nread-only\nx\nof the context\n0\n",
    );
    assert_eq!(world.read("ctx/file"), "of the context\n");
}

fn tmpfs_mounts(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        RUN --mount=type=tmpfs,target=/t,size=1m \
            echo gone > /t/file; grep ' /t ' /proc/mounts | cut -d' ' -f3 > /kind; \
            dd if=/dev/zero of=/t/big bs=1k count=2000 2> /dev/null || echo full >> /kind
        "#,
        "cat /kind; ls /t 2> /dev/null | wc -l",
        "tmpfs\nfull\n0\n",
    );
}

fn network_none(world: &World) {
    world.base();
    world.dockerfile(
        "FROM demo/base\nRUN cut -d: -f1 /proc/net/dev | sed 1,2d | tr -d ' ' > /net\n",
    );
    world
        .kiln(&["build", "--network", "none", "-t", "app", "ctx"])
        .ok();
    assert_eq!(world.sh("app", "cat /net"), "lo\n");
}

fn networks_of_one_run(world: &World) {
    world.base();
    let own = std::fs::read_to_string("/proc/net/dev")
        .unwrap()
        .lines()
        .count();
    world.dockerfile(
        "
        FROM demo/base
        RUN --network=none wc -l < /proc/net/dev > /none
        RUN --network=default wc -l < /proc/net/dev > /default
        ",
    );
    world.build();
    assert_eq!(world.sh("app", "cat /none /default"), format!("3\n{own}\n"));
}

fn syntax_line(world: &World) {
    check(
        world,
        "# syntax=docker/dockerfile:1.7-labs\n# escape=`\nFROM demo/base\nRUN echo one `\n  two > /out\n",
        "cat /out",
        "one two\n",
    );
}

fn another_dockerfile(world: &World) {
    world.base();
    world.write("elsewhere/My.Dockerfile", "FROM demo/base\nCOPY a /a\n");
    world.write("ctx/a", "a\n");
    world
        .kiln(&["build", "-t", "app", "-f", "elsewhere/My.Dockerfile", "ctx"])
        .ok();
    assert_eq!(world.sh("app", "cat /a"), "a\n");
}

fn named_contexts(world: &World) {
    world.base();
    world.write("assets/logo", "logo\n");
    world.dockerfile("FROM start\nCOPY --from=assets logo /logo\n");
    let contexts = [
        "--build-context",
        "assets=assets",
        "--build-context",
        "start=docker-image://demo/base",
    ];
    world
        .kiln(&["build", "-t", "app"])
        .args(&contexts)
        .args(&["ctx"])
        .ok();
    assert_eq!(world.sh("app", "cat /logo"), "logo\n");
}

fn run_true_on_scratch_seals_empty(world: &World) {
    world.base();
    world.dockerfile(
        r#"
        FROM scratch
        COPY --from=demo/base /bin/busybox /busybox
        RUN ["/busybox", "true"]
        "#,
    );
    world
        .kiln(&[
            "build",
            "-o",
            "type=image,name=app",
            "-o",
            "type=oci,dest=layout,tar=false",
            "ctx",
        ])
        .ok();
    let layers = world.layers_of_layout("layout");
    assert_eq!(layers.len(), 2);
    assert_eq!(layers[0], ["busybox"]);
    assert_eq!(layers[1], [""; 0]);
}

fn deletions(world: &World) {
    world.base();
    world.dockerfile(
        "
        FROM demo/base
        RUN mkdir -p /d/sub && touch /d/a /d/sub/b /gone
        RUN rm -r /d /gone && mkdir /d && touch /d/new
        ",
    );
    world
        .kiln(&[
            "build",
            "-o",
            "type=image,name=app",
            "-o",
            "type=oci,dest=layout,tar=false",
            "ctx",
        ])
        .ok();
    assert_eq!(
        world.sh("app", "ls /d; test -e /gone || echo gone"),
        "new\ngone\n"
    );
    let layers = world.layers_of_layout("layout");
    assert_eq!(
        layers[2],
        ["d/", "d/.wh.a", "d/new", "d/.wh.sub", ".wh.gone"]
    );
}

fn refused(world: &World, part: &str, dockerfile: &str) {
    world.dockerfile(dockerfile);
    let ran = world.kiln(&["build", "ctx"]).run();
    assert!(matches!(ran.status.code(), Some(1 | 2)), "{}", ran.stderr);
    world.snapshot_of(part, &ran.whole());
}

fn copy_parents_and_exclude(world: &World) {
    world.base();
    for path in ["a/b/c.txt", "a/b/d.md", "a/x.txt", "top.txt", "top.md"] {
        world.write(&format!("ctx/{path}"), path);
    }
    world.dockerfile(
        "
        FROM demo/base
        COPY --parents a/b/c.txt top.txt /whole/
        COPY --parents a/./b/c.txt /pivot/
        COPY --parents ./a/**/*.txt /wild/
        COPY --exclude=*.md --exclude=a/b . /some/
        COPY --parents --exclude=**/*.txt a /rest/
        COPY --chmod=u=rwX,go=rX a /modes/
        COPY --chmod=go-r top.txt /modes/
        ",
    );
    world.build();
    let script = "cd / && find whole pivot wild some rest -type f | sort && stat -c '%n %a' modes/b modes/x.txt modes/top.txt";
    assert_eq!(
        world.sh("app", script),
        "pivot/b/c.txt\nrest/a/b/d.md\nsome/Dockerfile\nsome/a/x.txt\nsome/top.txt\n\
         whole/a/b/c.txt\nwhole/top.txt\nwild/a/b/c.txt\nwild/a/x.txt\n\
         modes/b 755\nmodes/x.txt 644\nmodes/top.txt 600\n"
    );
    world.dockerfile("FROM demo/base\nCOPY --parents a/./nothing /x/\n");
    let ran = world.kiln(&["build", "ctx"]).exits(1);
    assert!(
        ran.stderr.contains("nothing\": not found"),
        "{}",
        ran.stderr
    );
}

fn copy_link(world: &World) {
    world.base();
    world.write("ctx/f", "one");
    world.dockerfile(
        "
        FROM demo/base AS app
        RUN mkdir /real && ln -s /real /link && echo first > /first
        COPY --link f /link/
        ADD --link f /added/
        ",
    );
    world.build();
    // The layer of its own puts a directory where the link was.
    let script = "ls -d /link/f /added/f && test ! -e /real/f && test ! -L /link && cat /first";
    assert_eq!(world.sh("app", script), "/added/f\n/link/f\nfirst\n");
    // What comes before it changes, and the copies are as they were.
    let changed = world
        .read("ctx/Dockerfile")
        .replace("echo first", "echo other");
    world.write("ctx/Dockerfile", changed);
    let ran = world.build();
    let table = ran.table();
    let cached = |line: &&str| line.contains("--link") && line.contains("cached");
    assert_eq!(table.lines().filter(cached).count(), 2, "{table}");
    assert_eq!(world.sh("app", "cat /first /link/f"), "other\none");
}

fn copy_of_something_remote(world: &World) {
    refused(
        world,
        "remote",
        "
        FROM scratch
        COPY https://example.com/file.txt /file
        COPY https://github.com/moby/buildkit.git#v0.10 /src
        ADD --checksum=sha256:00 https://example.com/file.txt /file
        ADD --checksum=abc local.txt /file
        ",
    );
}

fn several_errors_at_once(world: &World) {
    refused(
        world,
        "all",
        "
        FROM demo/base AS one
        RUNN echo hello
        COPY --chwon=1 a /b
        COPY only-one
        ENV
        FROM one AS one AS two
        EXPOSE 99999
        WORKDIR
        ",
    );
}

fn warnings(world: &World) {
    world.base();
    world.dockerfile("from demo/base as Base\nRUN true\nCMD echo hi\nMAINTAINER me\n");
    let ran = world.kiln(&["build", "-q", "ctx"]).ok();
    world.snapshot(&ran.whole());
}

fn warnings_of_a_failed_build(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base AS Base\nARG VERSION\nRUN exit 3\n");
    let build = |progress: &str| {
        world
            .kiln(&[
                "build",
                "--progress",
                progress,
                "--build-arg",
                "VERSOIN=2",
                "ctx",
            ])
            .exits(1)
    };
    world.snapshot(&build("quiet").whole());
    for progress in ["plain", "tty"] {
        let told = build(progress).stderr;
        for warning in ["warning[StageNameCasing]", "build argument `VERSOIN`"] {
            let times = told.matches(warning).count();
            assert_eq!(times, 1, "{progress}: {warning}: {told}");
        }
    }
}

fn no_dockerfile(world: &World) {
    world.write("ctx/a", "a\n");
    world.snapshot_of("file", &world.kiln(&["build", "ctx"]).exits(2).whole());
    world.snapshot_of(
        "directory",
        &world.kiln(&["build", "nowhere"]).exits(2).whole(),
    );
}

fn undeclared_build_argument(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nARG VERSION\n");
    let ran = world
        .kiln(&["build", "-q", "--build-arg", "VERSOIN=2", "ctx"])
        .ok();
    world.snapshot(&ran.whole());
}
