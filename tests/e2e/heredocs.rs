//! RUN with heredocs in every form, and SHELL.

use crate::support::Capability::{self, Busybox, Containers};
use crate::support::{Case, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    const SEES: &[Capability] = &[Containers, Busybox];
    vec![
        case("the_whole_command", NEEDS, the_whole_command),
        case("delimiters", NEEDS, delimiters),
        case("scripts", SEES, scripts),
        case("input_of_a_command", NEEDS, input_of_a_command),
        case("numbers_of_descriptors", NEEDS, numbers_of_descriptors),
        case("several_in_one_line", NEEDS, several_in_one_line),
        case("with_flags", NEEDS, with_flags),
        case("text_that_is_no_heredoc", NEEDS, text_that_is_no_heredoc),
        case("in_triggers", NEEDS, in_triggers),
        case("shells", SEES, shells),
        case("shells_of_heredocs", SEES, shells_of_heredocs),
        case("failures", NEEDS, failures),
    ]
}

/// Builds, prints a file of the image and compares.
#[track_caller]
fn check(world: &World, dockerfile: &str, expected: &str) {
    world.base();
    world.dockerfile(dockerfile);
    world.build();
    assert_eq!(world.sh("app", "cat /out"), expected);
}

fn the_whole_command(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        ENV NAME=env
        ARG GIVEN=arg
        RUN <<EOF
        echo "$NAME $GIVEN" > /out
        # a comment of the shell
        for i in 1 \
            2; do
          echo "  $i" >> /out
        done

        cd /
        VALUE=kept
        echo "$VALUE \$VALUE" 'single $NAME' >> /out
        EOF
        RUN <<EOF
        EOF
        RUN <<EOF
            echo indented >> /out
        EOF
        "#,
        "env arg\n  1\n  2\nkept $VALUE single $NAME\nindented\n",
    );
}

fn delimiters(world: &World) {
    check(
        world,
        "FROM demo/base\n\
         ENV NAME=env\n\
         RUN <<'EOF'\n\
         echo \"quoted $NAME\" > /out\n\
         EOF\n\
         RUN <<\"END OF IT\"\n\
         echo blank >> /out\n\
         END OF IT\n\
         RUN <<-EOF\n\
         \techo tabs >> /out\n\
         \t\techo \"\tinner\" >> /out\n\
         \tEOF\n\
         RUN <<eof-1.2\n\
         echo EOF >> /out\n\
         eof-1.2\n",
        "quoted env\nblank\ntabs\n\tinner\nEOF\n",
    );
}

fn scripts(world: &World) {
    check(
        world,
        r##"
        FROM demo/base
        RUN mkdir /w && chmod 777 /w
        RUN <<EOF
        #!/bin/sh -e
        echo "$0 $#" > /w/out
        ls -l "$0" | cut -c1-10 >> /w/out
        EOF
        RUN <<PROGRAM
        #!/bin/awk -f
        BEGIN { print "awk $1" >> "/w/out" }
        PROGRAM
        RUN <<-TABS
        	#!/bin/sh
        	echo chomped >> /w/out
        	TABS
        USER 1000
        RUN <<EOF
        #!/bin/sh
        echo "user $(id -u)" >> /w/user
        touch /dev/pipes/x 2> /dev/null || echo read-only >> /w/user
        EOF
        RUN cat /w/user >> /w/mine; ls -d /dev/pipes 2> /dev/null | wc -l >> /w/mine
        USER 0
        RUN cat /w/out /w/mine > /out
        "##,
        "/dev/pipes/EOF 0\n-rwxr-xr-x\nawk $1\nchomped\nuser 1000\nread-only\n0\n",
    );
}

fn input_of_a_command(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        ENV NAME=env
        RUN cat <<EOF > /out
        expanded $NAME \$NAME $(echo command)
        EOF
        RUN cat <<'EOF' >> /out
        as it is $NAME \$NAME $(echo command)
        EOF
        RUN sh <<EOF
        echo "of the outer $NAME" >> /out
        EOF
        RUN cat >> /out <<EOF && echo after >> /out
        before
        EOF
        RUN grep -v drop <<EOF | sort -r >> /out
        a
        drop
        b
        EOF
        "#,
        "expanded env $NAME command\nas it is $NAME \\$NAME $(echo command)\nof the outer env\n\
         before\nafter\nb\na\n",
    );
}

fn numbers_of_descriptors(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        RUN cat 3<<EOF <&3 > /out
        third
        EOF
        RUN cat 0<<EOF /dev/fd/4 4<<OTHER >> /out
        EOF
        fourth
        OTHER
        "#,
        "third\nfourth\n",
    );
}

fn several_in_one_line(world: &World) {
    check(
        world,
        "FROM demo/base\n\
         RUN cat <<ONE > /out; cat <<-TWO >> /out; cat <<'THREE' >> /out\n\
         one\n\
         ONE\n\
         \ttwo\n\
         \tTWO\n\
         $three\n\
         THREE\n\
         RUN <<ONE <<TWO\n\
         echo never > /out\n\
         ONE\n\
         echo never > /out\n\
         TWO\n",
        "one\ntwo\n$three\n",
    );
}

fn with_flags(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        WORKDIR /w
        RUN --mount=type=cache,target=/c --network=none <<EOF
        pwd > /c/f
        wc -l < /proc/net/dev >> /c/f
        EOF
        RUN --mount=type=cache,target=/c \
            --mount=type=tmpfs,target=/t \
            <<EOF
        cp /c/f /t/f
        cat /t/f > /out
        EOF
        "#,
        "/w\n3\n",
    );
}

fn text_that_is_no_heredoc(world: &World) {
    check(
        world,
        r#"
        FROM demo/base
        RUN echo "<<EOF" > /out && echo '<<EOF' >> /out && echo \<\<EOF >> /out
        RUN echo $((1 << 3)) >> /out
        RUN ["sh", "-c", "printf '%s\n' \"$0\" >> /out", "<<EOF"]
        "#,
        "<<EOF\n<<EOF\n<<EOF\n8\n<<EOF\n",
    );
}

fn in_triggers(world: &World) {
    world.base();
    world.write(
        "trigger/Dockerfile",
        "FROM demo/base\nONBUILD RUN <<EOF\necho \"body $NAME\" > /out\nEOF\n\
         ONBUILD RUN cat <<'EOF' >> /out\nraw $NAME\nEOF\n",
    );
    world
        .kiln(&["build", "-q", "-t", "demo/trigger", "trigger"])
        .ok();
    check(
        world,
        "FROM demo/trigger\nENV NAME=late\n",
        "body \nraw $NAME\n",
    );
}

fn shells(world: &World) {
    check(
        world,
        r#"
        FROM demo/base AS below
        RUN echo "$0" > /out
        SHELL ["/bin/sh", "-e", "-u", "-c"]
        RUN echo "$-" | grep -c e >> /out; echo "$-" | grep -c u >> /out
        SHELL ["/bin/busybox", "awk"]
        RUN BEGIN { print "awk" >> "/out" }
        SHELL ["sh", "-c", "echo \"before: $0\" >> /out"]
        RUN the rest
        RUN ["sh", "-c", "echo no shell >> /out"]
        FROM below
        RUN of the stage below
        SHELL ["/bin/sh", "-c"]
        RUN echo back >> /out
        "#,
        "/bin/sh\n1\n1\nawk\nbefore: the rest\nno shell\nbefore: of the stage below\nback\n",
    );
}

fn shells_of_heredocs(world: &World) {
    check(
        world,
        r##"
        FROM demo/base
        SHELL ["/bin/sh", "-e", "-c"]
        RUN <<EOF
        echo one > /out
        false || echo two >> /out
        EOF
        SHELL ["/bin/busybox", "awk"]
        RUN <<EOF
        BEGIN {
          print "awk" >> "/out"
        }
        EOF
        SHELL ["/bin/sh", "-x", "-c"]
        RUN <<EOF
        #!/bin/sh
        echo "$-" | grep -c x >> /out; true
        EOF
        "##,
        "one\ntwo\nawk\n0\n",
    );
}

fn failures(world: &World) {
    world.base();
    for (part, dockerfile) in [
        ("unterminated", "FROM demo/base\nRUN <<EOF\necho never\n"),
        (
            "stops_with_e",
            "FROM demo/base\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN <<EOF\necho before\nfalse\necho never\nEOF\n",
        ),
        (
            "no_interpreter",
            "FROM demo/base\nRUN <<EOF\n#!/no/such/program\necho never\nEOF\n",
        ),
    ] {
        world.write("ctx/Dockerfile", dockerfile);
        let ran = world.kiln(&["build", "ctx"]).run();
        assert!(matches!(ran.status.code(), Some(1 | 2)), "{}", ran.stderr);
        world.snapshot_of(part, &ran.whole());
    }
}
