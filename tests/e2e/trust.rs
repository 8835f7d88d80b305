//! What steps are trusted with: secrets, ssh agents, the host's network, all privileges.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::Agent;
use crate::support::Capability::{self, Busybox, Containers, OpenSsh, OrdinaryUser, Root, Setpriv};
use crate::support::{Case, Ran, User, World, case};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    const SEES: &[Capability] = &[Containers, Busybox];
    const SSH: &[Capability] = &[Containers, Busybox, OpenSsh];
    const AS_USER: &[Capability] = &[OrdinaryUser, Setpriv, Busybox];
    vec![
        case("secrets_as_files", SEES, secrets_as_files),
        case("secrets_as_variables", NEEDS, secrets_as_variables),
        case("where_secrets_come_from", NEEDS, where_secrets_come_from),
        case("secrets_are_kept_nowhere", NEEDS, secrets_are_kept_nowhere),
        case("secrets_and_the_cache", NEEDS, secrets_and_the_cache),
        case("secrets_that_are_missing", NEEDS, secrets_that_are_missing),
        case("secrets_that_cannot_be", NEEDS, secrets_that_cannot_be),
        case("an_agent_by_its_socket", SSH, an_agent_by_its_socket),
        case("agents_of_keys", SSH, agents_of_keys),
        case("several_agents", SSH, several_agents),
        case("keys_of_agents", SSH, keys_of_agents),
        case("agents_that_are_missing", SSH, agents_that_are_missing),
        case("agents_of_killed_builds", SSH, agents_of_killed_builds),
        case(
            "insecure_steps",
            &[Containers, Busybox, Root],
            insecure_steps,
        ),
        case(
            "devices_that_steps_make",
            &[Containers, Busybox, Root],
            devices,
        ),
        case("networks_by_name", NEEDS, networks_by_name),
        case("entitlements_of_plans", NEEDS, entitlements_of_plans),
        case(
            "secrets_as_an_ordinary_user",
            AS_USER,
            secrets_as_an_ordinary_user,
        ),
        case(
            "agents_as_an_ordinary_user",
            &[OrdinaryUser, Setpriv, Busybox, OpenSsh],
            agents_as_an_ordinary_user,
        ),
    ]
}

/// Builds with further arguments, runs a script in the image and compares what it prints.
#[track_caller]
fn check(world: &World, arguments: &[&str], dockerfile: &str, script: &str, expected: &str) {
    world.base();
    world.dockerfile(dockerfile);
    build(world, arguments);
    assert_eq!(world.sh("app", script), expected);
}

fn build(world: &World, arguments: &[&str]) -> Ran {
    let arguments = [&["build", "-t", "app"][..], arguments, &["ctx"]].concat();
    world.kiln(&arguments).ok()
}

fn refused(world: &World, part: &str, arguments: &[&str], dockerfile: &str) {
    world.dockerfile(dockerfile);
    let arguments = [&["build"][..], arguments, &["ctx"]].concat();
    let ran = world.kiln(&arguments).run();
    assert!(matches!(ran.status.code(), Some(1 | 2)), "{}", ran.stderr);
    world.snapshot_of(part, &ran.whole());
}

const TOKEN: &str = "--secret=id=token,src=token";

fn secrets_as_files(world: &World) {
    world.write("token", "hush\n");
    let outputs = [
        "-o",
        "type=image,name=app",
        "-o",
        "type=oci,dest=layout,tar=false",
    ];
    check(
        world,
        &[&[TOKEN][..], &outputs].concat(),
        r#"
        FROM demo/base
        WORKDIR /w
        RUN --mount=type=secret,id=token stat -c '%n %a %u:%g %s' /run/secrets/token > /out
        RUN --mount=type=secret,source=token,required stat -c '%n' /run/secrets/token >> /out
        RUN --mount=type=secret,target=/etc/token stat -c '%n %s' /etc/token >> /out
        RUN --mount=type=secret,id=token,target=rel/t stat -c '%n %s' rel/t >> /out
        RUN --mount=type=secret,id=token,mode=0440,uid=1000,gid=2000 stat -c '%a %u:%g' /run/secrets/token >> /out
        RUN --mount=type=secret,id=token grep -c ' /run/secrets/token tmpfs ro' /proc/mounts >> /out
        RUN --mount=type=secret,id=token sh -c 'echo x > /run/secrets/token' 2> /dev/null || echo read-only >> /out
        USER 1000
        RUN --mount=type=secret,id=token cat /run/secrets/token 2> /dev/null || echo not for you > /tmp/out
        RUN --mount=type=secret,id=token,uid=1000 test "$(cat /run/secrets/token)" = hush && echo mine >> /tmp/out
        "#,
        "cat /out /tmp/out; ls -d /run/secrets /etc/token /w/rel 2> /dev/null | wc -l",
        "/run/secrets/token 400 0:0 5\n/run/secrets/token\n/etc/token 5\nrel/t 5\n440 1000:2000\n1\n\
         read-only\nnot for you\nmine\n0\n",
    );
    // Mount points leave no trace in any layer.
    for layer in world.layers_of_layout("layout") {
        assert!(
            !layer
                .iter()
                .any(|name| name.contains("secrets") || name.contains("token")),
            "{layer:?}"
        );
    }
}

fn secrets_as_variables(world: &World) {
    world.write("token", "hush");
    check(
        world,
        &[TOKEN],
        r#"
        FROM demo/base
        ENV SET=before
        RUN --mount=type=secret,id=token,env=TOKEN test "$TOKEN" = hush && echo variable > /out; \
            ls -d /run/secrets 2> /dev/null | wc -l >> /out
        RUN --mount=type=secret,id=token,env=TOKEN,target=/t \
            test "$TOKEN" = hush && test "$(cat /t)" = hush && echo both >> /out
        RUN --mount=type=secret,id=token,env=SET test "$SET" = hush && echo over >> /out
        RUN --mount=type=secret,source=token,env=TOKEN,required=true test "$TOKEN" = hush && echo required >> /out
        RUN --mount=type=secret,id=none,env=TOKEN test -z "${TOKEN+set}" && echo optional >> /out
        RUN test -z "$TOKEN" && echo "$SET" >> /out
        "#,
        "cat /out; echo \"$TOKEN$SET\"",
        "variable\n0\nboth\nover\nrequired\noptional\nbefore\nbefore\n",
    );
}

fn where_secrets_come_from(world: &World) {
    world.base();
    world.write("a file, with a comma", "from a file");
    world.write("named", "by its id");
    world.dockerfile(
        r#"
        FROM demo/base
        RUN --mount=type=secret,id=a --mount=type=secret,id=b --mount=type=secret,id=VARIABLE \
            --mount=type=secret,id=named --mount=type=secret,id=c --mount=type=secret,id=empty \
            for f in a b VARIABLE named c empty; do \
                test -e /run/secrets/$f && wc -c < /run/secrets/$f; done > /out
        "#,
    );
    let ran = world
        .kiln(&["build", "-t", "app", "ctx"])
        .args(&["--secret", r#"id=a,"src=a file, with a comma""#])
        .args(&["--secret", "id=b,env=OTHER"])
        .args(&["--secret", "id=VARIABLE"])
        .args(&["--secret", "id=named"])
        .args(&["--secret", "type=env,id=c,src=OTHER"])
        .args(&["--secret", "id=empty,env=NOT_SET"])
        .env("VARIABLE", "1234567")
        .env("OTHER", "123")
        .ok();
    assert_eq!(world.sh("app", "cat /out"), "11\n3\n7\n9\n3\n0\n");
    let words =
        "warning: the variable `NOT_SET` of --secret is not set, so the secret `empty` is empty";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

/// The files below a directory that hold some bytes.
fn holding(directory: &Path, needle: &[u8], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            holding(&entry.path(), needle, found);
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            if bytes.windows(needle.len()).any(|window| window == needle) {
                found.push(entry.path().display().to_string());
            }
        }
    }
}

fn secrets_are_kept_nowhere(world: &World) {
    const VALUE: &str = "xyzzy-4711-plugh";
    world.base();
    world.dockerfile(
        r#"
        FROM demo/base
        RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=TOKEN \
            test "$(cat /run/secrets/file)" = "$TOKEN" && echo "${#TOKEN}" > /out
        RUN --mount=type=secret,id=variable,env=TOKEN : $TOKEN; exit 3
        "#,
    );
    world.write("file", VALUE);
    let run = |arguments: &[&str]| {
        let kiln = world.kiln(arguments).env("VALUE", VALUE);
        kiln.run().whole()
    };
    let secrets = [
        "--secret=id=file,src=file",
        "--secret=id=variable,env=VALUE",
    ];
    let mut told = run(&[&["build", "--progress=plain"][..], &secrets, &["ctx"]].concat());
    assert!(told.contains("exit code 3"), "{told}");
    told += &run(&["plan", "ctx"]);
    told += &run(&["plan", "--format", "json", "ctx"]);
    told += &run(&["why"]);
    told += &run(&["builds"]);
    assert!(!told.contains(VALUE), "{told}");
    let mut found = Vec::new();
    for directory in [world.store(), world.path("../tmp"), world.path("../home")] {
        holding(&directory, VALUE.as_bytes(), &mut found);
    }
    assert_eq!(found, [""; 0]);
}

fn secrets_and_the_cache(world: &World) {
    world.base();
    let step = |mount: &str| {
        world.dockerfile(&format!(
            "FROM demo/base\nRUN --mount=type=secret,{mount} date +%s%N > /made\n"
        ));
    };
    let ran = |told: &Ran| told.table().contains(" ran ");
    step("id=token,required");
    world.write("token", "one");
    assert!(ran(&build(world, &[TOKEN])));
    // Another value is no other step, and who has the result needs no secret.
    world.write("token", "two");
    assert!(!ran(&build(world, &[TOKEN])));
    assert!(!ran(&build(world, &[])));
    world.write("other", "one");
    step("id=other,target=/run/secrets/token,required");
    let told = build(world, &["--secret=id=other,src=other"]);
    assert!(ran(&told), "{}", told.table());
    step("id=other,target=/elsewhere,required");
    assert!(ran(&build(world, &["--secret=id=other,src=other"])));
}

fn secrets_that_are_missing(world: &World) {
    world.base();
    let step = |mount: &str| format!("FROM demo/base\nRUN --mount=type=secret,{mount} true\n");
    refused(world, "file", &[], &step("id=token,required"));
    refused(
        world,
        "variable",
        &[],
        &step("id=token,env=TOKEN,required=true"),
    );
    refused(
        world,
        "other",
        &["--secret=id=other,env=PATH"],
        &step("id=token,required"),
    );
    world.dockerfile("FROM demo/base\nRUN --mount=type=secret,id=token test ! -e /run/secrets\n");
    build(world, &[]);
}

fn secrets_that_cannot_be(world: &World) {
    world.base();
    let dockerfile = "FROM demo/base\nRUN --mount=type=secret,id=token,env=TOKEN true\n";
    refused(world, "no_file", &[TOKEN], dockerfile);
    world.write("token", vec![b'x'; (500 << 10) + 1]);
    refused(world, "too_big", &[TOKEN], dockerfile);
    world.write("token", "a\0b-hush");
    world.dockerfile(dockerfile);
    let ran = world.kiln(&["build", TOKEN, "ctx"]).exits(1);
    assert!(!ran.stderr.contains("hush"), "{}", ran.stderr);
    world.snapshot_of("zero_byte", &ran.whole());
}

/// An image with OpenSSH in it, and a key `key` that has no passphrase.
fn open_ssh(world: &World) {
    world.base();
    for program in ["ssh-add", "ssh-keygen"] {
        world.copy_program(program, "ssh/root");
    }
    world.write("ssh/Dockerfile", "FROM demo/base\nCOPY root /\n");
    world.kiln(&["build", "-q", "-t", "demo/ssh", "ssh"]).ok();
    new_key(world, "key");
    world.write("ctx/data", "to be signed\n");
}

fn new_key(world: &World, name: &str) {
    let comment = format!("{name}@test");
    let key = ["-q", "-t", "ed25519", "-N", "", "-C", &comment, "-f", name];
    world.program("ssh-keygen", &key).ok();
}

fn public(world: &World, name: &str) -> String {
    let text = world.read(&format!("{name}.pub"));
    text.split_whitespace().nth(1).unwrap().to_owned()
}

/// Builds where this is the caller's agent.
fn build_with(world: &World, agent: &Agent<'_>, arguments: &[&str]) -> Ran {
    let arguments = [&["build", "-t", "app"][..], arguments, &["ctx"]].concat();
    let kiln = world.kiln(&arguments);
    kiln.env("SSH_AUTH_SOCK", agent.socket()).ok()
}

/// Lists keys, has something signed, and tries all that a step may not do.
const USES_AGENT: &str = r#"
    FROM demo/ssh
    COPY data /data
    RUN --mount=type=ssh \
        echo $SSH_AUTH_SOCK > /out && stat -c '%a %u:%g %F' $SSH_AUTH_SOCK >> /out && \
        ssh-add -L > /keys && ssh-keygen -q -Y sign -f /keys -n test /data && \
        ssh-keygen -q -t ed25519 -N '' -f /mine && \
        { ssh-add -D || ssh-add -d /keys || ssh-add /mine || ssh-add -x; } > /dev/null 2>&1 < /dev/null || \
        echo refused >> /out
"#;

/// Checks what [`USES_AGENT`] left behind.
fn check_use(world: &World, key: &str) {
    assert_eq!(
        world.sh("app", "cat /out; ls -d /run/buildkit 2> /dev/null | wc -l"),
        "/run/buildkit/ssh_agent.0\n600 0:0 socket\nrefused\n0\n"
    );
    assert_eq!(
        world.sh("app", "cut -d' ' -f2 /keys"),
        public(world, key) + "\n"
    );
    world.write("data.sig", world.sh("app", "cat /data.sig"));
    let verify = ["-Y", "check-novalidate", "-n", "test", "-s", "data.sig"];
    let verified = world
        .program("ssh-keygen", &verify)
        .stdin("to be signed\n")
        .ok();
    assert!(
        verified.stdout.contains("Good \"test\" signature"),
        "{}",
        verified.stdout
    );
}

fn an_agent_by_its_socket(world: &World) {
    open_ssh(world);
    world.dockerfile(USES_AGENT);
    let agent = Agent::start(world, "key");
    build_with(world, &agent, &["--ssh", "default"]);
    check_use(world, "key");
    // The agent has its key still, and the step is known without it.
    let table = world.kiln(&["build", "-t", "app", "ctx"]).ok().table();
    assert!(!table.contains(" ran "), "{table}");
    let socket = format!("--ssh=default={}", agent.socket());
    build_with(world, &agent, &["--no-cache", "--network=none", &socket]);
    check_use(world, "key");
}

fn agents_of_keys(world: &World) {
    open_ssh(world);
    world.dockerfile(USES_AGENT);
    // A key that others can read is one all the same, as under BuildKit.
    world.chmod("key", 0o644);
    build(world, &["--ssh", "default=key"]);
    check_use(world, "key");
    new_key(world, "second");
    world.dockerfile("FROM demo/ssh\nRUN --mount=type=ssh,required ssh-add -L | wc -l > /n\n");
    build(world, &["--ssh", "default=key,second"]);
    assert_eq!(world.sh("app", "cat /n"), "2\n");
    let locked = ["-q", "-t", "ed25519", "-N", "passphrase", "-f", "locked"];
    world.program("ssh-keygen", &locked).ok();
    let step = "FROM demo/base\nRUN --mount=type=ssh true\n";
    refused(world, "locked", &["--ssh=default=locked"], step);
    world.write("none", "no key\n");
    let ran = world.kiln(&["build", "--ssh=default=none", "ctx"]).exits(1);
    let words = "because: `ssh-add` refuses the key `none`: ";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

fn several_agents(world: &World) {
    open_ssh(world);
    new_key(world, "second");
    world.dockerfile(
        r#"
        FROM demo/ssh
        ENV LIST="ssh-add -L"
        RUN --mount=type=ssh --mount=type=ssh,id=other \
            ls /run/buildkit > /out && echo $SSH_AUTH_SOCK >> /out && $LIST | cut -d' ' -f3 >> /out && \
            SSH_AUTH_SOCK=/run/buildkit/ssh_agent.1 $LIST | cut -d' ' -f3 >> /out
        ENV SSH_AUTH_SOCK=/from/env
        RUN --mount=type=ssh,id=other,target=/from/env $LIST | cut -d' ' -f3 >> /out
        "#,
    );
    build(world, &["--ssh", "default=key", "--ssh", "other=second"]);
    assert_eq!(
        world.sh("app", "cat /out"),
        "ssh_agent.0\nssh_agent.1\n/run/buildkit/ssh_agent.0\nkey@test\nsecond@test\nsecond@test\n"
    );
}

fn keys_of_agents(world: &World) {
    open_ssh(world);
    world.dockerfile(
        r#"
        FROM demo/ssh
        WORKDIR /w
        RUN --mount=type=ssh,target=sock,mode=0666 echo $SSH_AUTH_SOCK > /out && \
            stat -c '%a %u:%g' sock >> /out
        RUN --mount=type=ssh,uid=1000,gid=2000,mode=0640 stat -c '%a %u:%g' $SSH_AUTH_SOCK >> /out
        USER 1000
        RUN --mount=type=ssh ssh-add -l > /dev/null 2>&1 || echo not for you > /tmp/out
        RUN --mount=type=ssh,uid=1000 ssh-add -l > /dev/null && echo mine >> /tmp/out
        "#,
    );
    build(world, &["--ssh", "default=key"]);
    assert_eq!(
        world.sh("app", "cat /out /tmp/out"),
        "/w/sock\n666 0:0\n640 1000:2000\nnot for you\nmine\n"
    );
}

fn agents_that_are_missing(world: &World) {
    open_ssh(world);
    let step = "FROM demo/base\nRUN --mount=type=ssh,required true\n";
    refused(world, "required", &[], step);
    let other = "FROM demo/base\nRUN --mount=type=ssh,id=git,required true\n";
    refused(world, "other", &["--ssh=default=key"], other);
    world.dockerfile(
        "FROM demo/base\nRUN --mount=type=ssh echo $SSH_AUTH_SOCK > /out; test ! -e /run/buildkit\n",
    );
    build(world, &[]);
    assert_eq!(world.sh("app", "cat /out"), "/run/buildkit/ssh_agent.0\n");
    // A socket at which nobody answers.
    drop(std::os::unix::net::UnixListener::bind(world.path("dead")).unwrap());
    world.dockerfile(step);
    let ran = world.kiln(&["build", "--ssh=default=dead", "ctx"]).exits(1);
    world.snapshot_of("dead", &ran.whole());
}

fn agents_of_killed_builds(world: &World) {
    open_ssh(world);
    world.dockerfile(
        "FROM demo/ssh\nRUN --mount=type=ssh --mount=type=cache,target=/c ssh-add -L > /c/keys; sleep 60\n",
    );
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let build = world.kiln(&["build", "--ssh=default=key", "ctx"]).spawn();
        let keys = world.wait_in_caches("keys").join("keys");
        let agents = || {
            let left = world.leftovers();
            left.iter()
                .filter(|line| line.contains("ssh-agent"))
                .count()
        };
        assert!(agents() > 0);
        build.signal(signal);
        build.wait();
        std::fs::remove_file(keys).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while agents() > 0 {
            assert!(Instant::now() < deadline, "{:?}", world.leftovers());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const INSECURE: &str = r#"
    FROM demo/base
    RUN --security=insecure grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status > /out; \
        mkdir /m && mount -t tmpfs none /m && umount /m && rmdir /m && echo mounts >> /out; \
        mount | grep -c 'on /sys type sysfs (rw' >> /out; \
        test ! -c /proc/kcore && echo unmasked >> /out; mknod /node c 1 3 && echo x > /node && rm /node && echo nodes >> /out
    RUN --security=sandbox grep Seccomp: /proc/self/status | cut -f2 > /sandbox; \
        mount -t tmpfs none /etc 2> /dev/null || echo no mounts >> /sandbox
    RUN grep Seccomp: /proc/self/status | cut -f2 >> /sandbox
"#;

fn insecure_steps(world: &World) {
    world.base();
    refused(world, "refused", &[], INSECURE);
    refused(world, "other", &["--allow=network.host"], INSECURE);
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = |name: &str| own.lines().find(|line| line.starts_with(name)).unwrap();
    build(world, &["--allow", "security.insecure"]);
    assert_eq!(
        world.sh("app", "cat /out"),
        format!(
            "{}\n{}\nSeccomp:\t0\nmounts\n1\nunmasked\nnodes\n",
            own("CapEff:"),
            own("CapBnd:")
        )
    );
    assert_eq!(world.sh("app", "cat /sandbox"), "2\nno mounts\n2\n");
    // What is allowed is in no key, what is asked for is.
    let again = |dockerfile: &str| {
        world.dockerfile(dockerfile);
        build(world, &["--allow", "security.insecure,network.host"]).table()
    };
    assert!(!again(INSECURE).contains(" ran "));
    let step = "FROM demo/base\nRUN --security=insecure true\n";
    assert!(again(step).contains(" ran "));
    assert!(again(&step.replace("insecure", "sandbox")).contains(" ran "));
}

fn devices(world: &World) {
    let dockerfile = "FROM demo/base\nRUN mknod -m 666 /null c 1 3 && ! (echo x > /null) && echo x > /dev/null\n";
    let script = "stat -c '%F %t %T' /null";
    check(
        world,
        &[],
        dockerfile,
        script,
        "character special file 1 3\n",
    );
}

fn networks_by_name(world: &World) {
    world.base();
    let step = "FROM demo/base\nRUN echo first\nRUN --network=host wc -l < /proc/net/dev > /n\n";
    refused(world, "step", &[], step);
    // Who asks for it on the command line allows it thereby.
    build(world, &["--network=host"]);
    let own = std::fs::read_to_string("/proc/net/dev").unwrap();
    world.dockerfile(step);
    build(world, &["--allow", "network.host"]);
    assert_eq!(
        world.sh("app", "cat /n"),
        format!("{}\n", own.lines().count())
    );
    // The mode as it was asked for is in the key.
    for mode in ["default", "none", "host"] {
        world.dockerfile(&format!(
            "FROM demo/base\nRUN --network={mode} echo modes\n"
        ));
        let table = build(world, &["--allow", "network.host"]).table();
        assert!(table.contains(" ran "), "{table}");
    }
    world.dockerfile("FROM demo/base\nRUN echo modes\n");
    let ran = |arguments: &[&str]| build(world, arguments).table().contains(" ran ");
    assert!(!ran(&[]));
    assert!(!ran(&["--network=none"]));
    assert!(!ran(&["--network=host"]));
    // A step of its own mode keeps it.
    world.dockerfile("FROM demo/base\nRUN --network=none sed 1,2d /proc/net/dev | wc -l > /n\n");
    build(world, &["--network=host"]);
    assert_eq!(world.sh("app", "cat /n"), "1\n");
}

fn entitlements_of_plans(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nRUN --security=insecure true\n");
    world.write("plan", world.kiln(&["plan", "ctx"]).ok().stdout);
    let ran = world.kiln(&["build", "--plan", "plan", "ctx"]).exits(2);
    world.snapshot(&ran.whole());
    let allow = [
        "build",
        "--plan",
        "plan",
        "--allow",
        "security.insecure",
        "ctx",
    ];
    world.kiln(&allow).ok();
}

fn secrets_as_an_ordinary_user(world: &World) {
    world.write("token", "hush");
    world.dockerfile(
        r#"
        FROM demo/base
        RUN --mount=type=secret,id=token,mode=0440,uid=1000 --mount=type=secret,id=token,env=TOKEN \
            test "$(cat /run/secrets/token)" = "$TOKEN" && stat -c %a /run/secrets/token > /out
        RUN --security=insecure grep Seccomp: /proc/self/status >> /out; \
            mount -t tmpfs none /etc && echo mounts >> /out
        "#,
    );
    // With one id the step is listened to, which is a filter that refuses nothing.
    let users = [
        (User::new(world, "one"), 2),
        (User::with_ids(world, "many"), 0),
    ];
    for (user, filtered) in users {
        let ran = user.ok(
            "kiln import base.tar demo/base > /dev/null
             kiln build --quiet --secret id=token,src=token --allow security.insecure -t app ctx > /dev/null
             kiln run app cat /out",
        );
        assert!(
            ran.stdout
                .ends_with(&format!("440\nSeccomp:\t{filtered}\nmounts\n")),
            "{}",
            ran.whole()
        );
    }
}

fn agents_as_an_ordinary_user(world: &World) {
    open_ssh(world);
    world.chmod("key", 0o644);
    world.write("ctx/Dockerfile", "FROM demo/base\nCOPY root /\nRUN --mount=type=ssh,required,uid=5 ssh-add -L | wc -l > /n\n");
    std::fs::rename(world.path("ssh/root"), world.path("ctx/root")).unwrap();
    let user = User::new(world, "user");
    let ran = user.ok(
        "export TMPDIR=$HOME; kiln import base.tar demo/base > /dev/null
         kiln build --quiet --ssh default=key -t app ctx > /dev/null
         kiln run app cat /n
         eval $(ssh-agent) > /dev/null; ssh-add -q - < key
         kiln build --quiet --no-cache --ssh default -t app ctx > /dev/null; ssh-agent -k > /dev/null
         kiln run app cat /n",
    );
    assert!(ran.stdout.ends_with("1\n1\n"), "{}", ran.whole());
}
