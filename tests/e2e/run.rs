//! Programs in images.

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

fn refused_flags(world: &World) {
    world.base();
    let mut text = String::new();
    for flags in [
        &["-p", "80:80"][..],
        &["-d"],
        &["--name", "x"],
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
