//! Programs in images.

use kiln_test_registry::Registry;

use crate::support::Capability::{self, Busybox, Containers, Python};
use crate::support::{Case, World, case, on_a_terminal};

pub(crate) fn cases() -> Vec<Case> {
    const NEEDS: &[Capability] = &[Containers];
    const SEES: &[Capability] = &[Containers, Busybox];
    vec![
        case("exit_codes", NEEDS, exit_codes),
        case("output_and_errors_apart", NEEDS, output_and_errors_apart),
        case("entry_point_and_command", NEEDS, entry_point_and_command),
        case("environment", NEEDS, environment),
        case(
            "working_directory_and_user",
            SEES,
            working_directory_and_user,
        ),
        case("volumes", NEEDS, volumes),
        case("networks", SEES, networks),
        case("standard_input", NEEDS, standard_input),
        case("terminal", &[Containers, Busybox, Python], terminal),
        case("changes_are_gone", NEEDS, changes_are_gone),
        case("flags_as_elsewhere", SEES, flags_as_elsewhere),
        case("variables_of_files", NEEDS, variables_of_files),
        case("read_only_with_memory", SEES, read_only_with_memory),
        case("pulled_when_asked", NEEDS, pulled_when_asked),
        case("refused_flags", NEEDS, refused_flags),
        case("no_such_image", NEEDS, no_such_image),
        case("orphans_are_ended", NEEDS, orphans_are_ended),
    ]
}

fn exit_codes(world: &World) {
    world.base();
    let run = |script: &str| {
        world
            .kiln(&["run", "--rm", "demo/base", "sh", "-c", script])
            .run()
    };
    for code in [0, 1, 42, 255] {
        assert_eq!(run(&format!("exit {code}")).status.code(), Some(code));
    }
    assert_eq!(run("kill -9 $$").status.code(), Some(137));
    let missing = world.kiln(&["run", "demo/base", "/no/such"]).exits(127);
    let forbidden = world.kiln(&["run", "demo/base", "/etc/passwd"]).exits(126);
    world.snapshot(&(missing.whole() + &forbidden.whole()));
}

fn output_and_errors_apart(world: &World) {
    world.base();
    let ran = world
        .kiln(&["run", "demo/base", "sh", "-c", "echo out; echo err >&2"])
        .ok();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\n", "err\n")
    );
}

fn entry_point_and_command(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"command\"]\n");
    world.build();
    let run = |arguments: &[&str]| world.kiln(&["run"]).args(arguments).ok().stdout;
    assert_eq!(run(&["app"]), "entry command\n");
    assert_eq!(run(&["app", "given", "-x"]), "entry given -x\n");
    assert_eq!(run(&["--entrypoint", "printf", "app", "%s", "x"]), "x");
    world.kiln(&["run", "--entrypoint", "", "app"]).exits(125);
}

fn environment(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nENV A=image B=image\n");
    world.build();
    let ran = world
        .kiln(&[
            "run", "-e", "A=flag", "-e", "C", "-e", "D", "app", "sh", "-c",
        ])
        .args(&["echo $A $B $C [${D-unset}] ${KILN_ROOT-unset} $HOME"])
        .env("C", "passed on")
        .ok();
    assert_eq!(ran.stdout, "flag image passed on [unset] unset /root\n");
}

fn working_directory_and_user(world: &World) {
    world.base();
    let run = |arguments: &[&str]| world.kiln(&["run"]).args(arguments).ok().stdout;
    assert_eq!(
        run(&["-w", "/made/for/it", "demo/base", "pwd"]),
        "/made/for/it\n"
    );
    let ids = ["sh", "-c", "id -u; id -g"];
    assert_eq!(
        run(&[&["-u", "nobody", "demo/base"], &ids[..]].concat()),
        "65534\n65534\n"
    );
    assert_eq!(
        run(&[&["-u", "12:34", "demo/base"], &ids[..]].concat()),
        "12\n34\n"
    );
    world
        .kiln(&["run", "-u", "nosuchuser", "demo/base", "id"])
        .exits(125);
}

fn volumes(world: &World) {
    world.base();
    world.write("shared/in", "in\n");
    let volume = format!("{}:/v", world.path("shared").display());
    world
        .kiln(&[
            "run",
            "-v",
            &volume,
            "demo/base",
            "sh",
            "-c",
            "cat /v/in > /v/out",
        ])
        .ok();
    assert_eq!(world.read("shared/out"), "in\n");
    let read_only = format!("{volume}:ro");
    let script = "cat /v/in; echo x 2> /dev/null > /v/never || echo refused";
    let ran = world
        .kiln(&["run", "-v", &read_only, "demo/base", "sh", "-c", script])
        .ok();
    assert_eq!(ran.stdout, "in\nrefused\n");
    assert!(!world.path("shared/never").exists());
}

fn networks(world: &World) {
    world.base();
    let count = |mode: &str| {
        let run = [
            "run",
            "--network",
            mode,
            "demo/base",
            "wc",
            "-l",
            "/proc/net/dev",
        ];
        world.kiln(&run).ok().stdout
    };
    assert!(count("none").starts_with("3 "), "{}", count("none"));
    let host = std::fs::read_to_string("/proc/net/dev")
        .unwrap()
        .lines()
        .count();
    assert!(
        count("host").starts_with(&format!("{host} ")),
        "{}",
        count("host")
    );
}

fn standard_input(world: &World) {
    world.base();
    let with = world
        .kiln(&["run", "-i", "demo/base", "sort"])
        .stdin("b\na\n")
        .ok();
    assert_eq!(with.stdout, "a\nb\n");
    // Without -i there is nothing to read.
    let without = world
        .kiln(&["run", "demo/base", "sort"])
        .stdin("b\na\n")
        .ok();
    assert_eq!(without.stdout, "");
    let script = world
        .kiln(&["run", "-i", "demo/base", "sh"])
        .stdin("echo $((6 * 7))\nexit 3\n")
        .exits(3);
    assert_eq!(script.stdout, "42\n");
}

/// Runs a command on a pseudo-terminal of 30 by 100, makes that 40 by 120, types and prints.
const RESIZED: &str = r#"
import fcntl, signal, struct, termios

terminal = Terminal()

def size(rows, cols):
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

def until(needle):
    if not terminal.until(needle):
        sys.exit("ended before %r: %r" % (needle, terminal.seen))

size(30, 100)
until(b"ready")
size(40, 120)
os.kill(terminal.pid, signal.SIGWINCH)
until(b"resized 40 120")
os.write(terminal.fd, b"typed\n")
until(b"got typed")
os.write(terminal.fd, b"\x03")
until(b"interrupted")
print("exit", terminal.exit_code())
"#;

fn terminal(world: &World) {
    world.base();
    world.write("terminal.py", on_a_terminal(RESIZED));
    let script = "trap 'echo interrupted; exit 9' INT; \
                  trap 'echo resized $(stty size)' WINCH; \
                  test -t 0 && test -t 1 && echo ready; \
                  until read line; do :; done; echo got $line; \
                  while true; do sleep 0.1; done";
    let kiln = env!("CARGO_BIN_EXE_kiln");
    let ran = world
        .program(
            "python3",
            &[
                "terminal.py",
                kiln,
                "run",
                "-it",
                "demo/base",
                "sh",
                "-c",
                script,
            ],
        )
        .ok();
    assert_eq!(ran.stdout, "exit 9\n");
    // The program has its terminal also where kiln has none.
    let none = world.kiln(&[
        "run",
        "-t",
        "demo/base",
        "sh",
        "-c",
        "test -t 1 && echo one",
    ]);
    assert_eq!(none.ok().stdout, "one\r\n");
}

fn changes_are_gone(world: &World) {
    world.base();
    world
        .kiln(&[
            "run",
            "demo/base",
            "sh",
            "-c",
            "echo x > /new; rm /etc/passwd",
        ])
        .ok();
    assert_eq!(
        world.sh(
            "demo/base",
            "ls /new 2> /dev/null; test -e /etc/passwd && echo there"
        ),
        "there\n"
    );
}

/// Values stand beside their letters, letters beside each other, and habits do no harm.
fn flags_as_elsewhere(world: &World) {
    world.base();
    let run = |arguments: &[&str]| world.kiln(&["run"]).args(arguments).ok();
    let uid = run(&[
        "-iu12",
        "-w/tmp",
        "-m50m",
        "demo/base",
        "sh",
        "-c",
        "id -u; pwd",
    ]);
    assert_eq!(uid.stdout, "12\n/tmp\n");
    assert_eq!(
        run(&["-eX=2", "demo/base", "sh", "-c", "echo $X"]).stdout,
        "2\n"
    );
    let volume = format!("-v{}:/v:Z", world.path("made/for/it").display());
    let made = run(&["--rm=true", "--init", &volume, "demo/base", "touch", "/v/x"]);
    assert!(made.stderr.contains("it is made, as an empty directory"));
    assert!(world.path("made/for/it/x").exists());
    assert_eq!(run(&[&volume, "demo/base", "true"]).stderr, "");
    let bridge = run(&["--network=bridge", "demo/base", "true"]);
    assert_eq!(
        bridge.stderr,
        "there is no bridge: `--network bridge` is the host's network\n"
    );
    let large = ["run", "-u", "99999999999", "demo/base", "true"];
    let large = world.kiln(&large).exits(125).stderr;
    assert!(large.contains("`99999999999` is too large"), "{large}");
}

fn variables_of_files(world: &World) {
    world.base();
    world.write("one.env", "# none\nA=1\nB=2 # not a comment\nHERE\nGONE\n");
    world.write("two.env", "A=3\nexport C=4\n");
    let file = |name: &str| format!("--env-file={}", world.path(name).display());
    let script = "echo $A $B $HERE ${GONE-unset}";
    let ran = world
        .kiln(&["run", &file("one.env"), "-eA=0", "demo/base", "sh", "-c"])
        .args(&[script])
        .env("HERE", "passed on")
        .ok();
    assert_eq!(ran.stdout, "0 2 # not a comment passed on unset\n");
    for name in ["two.env", "no.env"] {
        world
            .kiln(&["run", &file(name), "demo/base", "true"])
            .exits(125);
    }
}

fn read_only_with_memory(world: &World) {
    world.base();
    let script = "touch /x 2> /dev/null || echo refused; touch /mem/x /v/x && stat -c %a /mem";
    let volume = format!("-v{}:/v", world.path(".").display());
    let ran = world
        .kiln(&[
            "run",
            "--read-only",
            "--tmpfs=/mem:size=1m,mode=700",
            &volume,
        ])
        .args(&["demo/base", "sh", "-c", script])
        .ok();
    assert_eq!(ran.stdout, "refused\n700\n");
    assert!(world.path("x").exists());
    let twice = ["run", "--tmpfs=/v", &volume, "demo/base", "true"];
    world.kiln(&twice).exits(125);
}

fn pulled_when_asked(world: &World) {
    world.base();
    world.dockerfile("FROM demo/base\nCMD [\"echo\", \"one\"]\n");
    world.build();
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.host());
    world.kiln(&["run", "--pull=never", &name]).exits(125);
    assert_eq!(registry.log().len(), 0);
    world.kiln(&["tag", "app", &name]).ok();
    world.dockerfile("FROM demo/base\nCMD [\"echo\", \"two\"]\n");
    world.build();
    world.kiln(&["push", "app", &name]).ok();
    let asked = registry.log().len();
    let run = |when: &str| world.kiln(&["run", when, &name]).ok().stdout;
    assert_eq!(run("--pull=never"), "one\n");
    assert_eq!(run("--pull=missing"), "one\n");
    assert_eq!(registry.log().len(), asked);
    assert_eq!(run("--pull=always"), "two\n");
    assert_eq!(run("--pull=never"), "two\n");
}

fn refused_flags(world: &World) {
    world.base();
    let mut text = String::new();
    for flags in [
        &["-p", "80:80"][..],
        &["-d"],
        &["--name", "x"],
        &["--rm=false"],
        &["--privileged"],
        &["--cap-add=SYS_ADMIN"],
        &["--device", "/dev/fuse"],
        &["--mount", "type=bind,src=/a,dst=/b"],
        &["-l", "a=b"],
        &["--restart=always"],
        &["--tmpfs=/a:noexec"],
        &["--network", "bridge7"],
        &["-v", "relative"],
        &["-w", "relative"],
        &["--nonsense"],
    ] {
        let ran = world
            .kiln(&["run"])
            .args(flags)
            .args(&["demo/base", "true"])
            .exits(125);
        text += &ran.whole();
    }
    world.snapshot(&text);
}

fn no_such_image(world: &World) {
    let ran = world
        .kiln(&["run", "127.0.0.1:1/nothing", "true"])
        .exits(125);
    world.snapshot(&ran.whole());
}

fn orphans_are_ended(world: &World) {
    world.base();
    world
        .kiln(&[
            "run",
            "demo/base",
            "sh",
            "-c",
            "sleep 1000 > /dev/null 2>&1 & exit 0",
        ])
        .ok();
    assert_eq!(world.leftovers(), [""; 0]);
}
