//! The front ends of `examples/frontends`: what they plan is committed beside them, and what they build works.

use std::path::{Path, PathBuf};

use crate::support::Capability::{self, Busybox, Containers, Pip, Python};
use crate::support::{Case, Kiln, World, case};

pub(super) fn cases() -> Vec<Case> {
    const PYTHON: &[Capability] = &[Containers, Python, Pip];
    const SHELL: &[Capability] = &[Containers, Busybox];
    vec![
        case("python_app_plans", &[Python, Pip], |world| {
            plans(world, "python-app", "frontend.py", "app.toml");
        }),
        case("python_app_built", PYTHON, python_app_built),
        case("static_site_plans", &[], |world| {
            plans(world, "static-site", "frontend.sh", "site.conf");
        }),
        case("static_site_built", SHELL, static_site_built),
        case("static_site_as_an_image", SHELL, static_site_as_an_image),
    ]
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/frontends")
        .join(name)
}

/// Compares the plans, or the diagnostics, of all cases of an example with what is committed there.
///
/// A case is a directory with the build file and what it names; `arguments` has flags, one a line.
fn plans(world: &World, name: &str, frontend: &str, file: &str) {
    let example = example(name);
    let tests = example.join("tests");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&tests)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    for directory in cases {
        let arguments = std::fs::read_to_string(directory.join("arguments")).unwrap_or_default();
        let arguments: Vec<&str> = arguments.lines().collect();
        let frontend = example.join(frontend);
        let build_file = directory.join(file);
        let fixed = [
            "plan",
            "--names",
            "--frontend",
            frontend.to_str().unwrap(),
            "-f",
            build_file.to_str().unwrap(),
        ];
        let planned = world.kiln(&fixed).args(&arguments);
        let planned = planned.args(&[directory.to_str().unwrap()]).run();
        let mut text = planned.stderr.clone() + &planned.stdout;
        if planned.status.code() != Some(0) {
            text.push_str(&format!("--- {}\n", planned.status));
        }
        let mut settings = insta::Settings::new();
        settings.set_snapshot_path(&tests);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let case = directory.file_name().unwrap().to_str().unwrap();
        settings.bind(|| insta::assert_snapshot!(case, text));
    }
}

fn build<'w>(world: &'w World, frontend: &Path, file: &str, context: &str) -> Kiln<'w> {
    world.kiln(&[
        "build",
        "--frontend",
        frontend.to_str().unwrap(),
        "-f",
        file,
        "-t",
        "app",
        context,
    ])
}

/// Writes a root file system with this host's Python and its pip.
const ROOT: &str = r#"
set -e
copy() { [ -e "root$1" ] || { mkdir -p "root$(dirname "$1")"; cp -L "$1" "root$1"; }; }
python=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')
stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["stdlib"])')
pip=$(python3 -c 'import pip; print(pip.__path__[0])')
mkdir -p root/etc root/tmp root/root "root$stdlib" "root$pip"
echo 'root:x:0:0:root:/root:/bin/sh' > root/etc/passwd
tar -C "$stdlib" --exclude=test --exclude=tests --exclude=__pycache__ --exclude=site-packages \
    --exclude=idlelib --exclude=lib2to3 --exclude='config-*' -c . | tar -C "root$stdlib" -x
tar -C "$pip" --exclude=__pycache__ -c . | tar -C "root$pip" -x
copy "$python"
mkdir -p root/usr/bin root/bin
[ -e root/usr/bin/python3 ] || ln -s "$python" root/usr/bin/python3
for file in "$python" "$stdlib"/lib-dynload/*.so; do ldd "$file" 2>/dev/null || true; done |
    grep -o '/[^ )]*' | sort -u | while read -r library; do copy "$library"; done
tar -C root --numeric-owner --owner=0 --group=0 -c .
"#;

/// Writes a wheel of a package `greet` with a program of that name.
const WHEEL: &str = r#"
import zipfile
info = "greet-1.0.dist-info/"
files = {
    "greet/__init__.py": "def main():\n    print(word())\n\ndef word():\n    return 'hello'\n",
    info + "METADATA": "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n",
    info + "WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    info + "entry_points.txt": "[console_scripts]\ngreet = greet:main\n",
}
files[info + "RECORD"] = "".join(f"{name},,\n" for name in [*files, info + "RECORD"])
with zipfile.ZipFile("ctx/wheels/greet-1.0-py3-none-any.whl", "w") as wheel:
    for name, text in files.items():
        wheel.writestr(zipfile.ZipInfo(name), text)
"#;

fn python_app_built(world: &World) {
    let root = world.program("sh", &["-c", ROOT]).ok();
    world.import("demo/python", &root.stdout_bytes);
    world.write("ctx/wheels/about", "wheels of this application\n");
    world.program("python3", &["-c", WHEEL]).ok();
    world.write("ctx/requirements.txt", "greet==1.0\n");
    world.write(
        "ctx/hello/__main__.py",
        "import greet, os\nprint(greet.word(), os.environ['MODE'], os.getuid(), os.getcwd())\n",
    );
    world.write(
        "ctx/app.toml",
        "name = \"hello\"\nbase = \"demo/python:latest\"\nsource = [\"hello\"]\n\
         entry = [\"python3\", \"-m\", \"hello\"]\ndependencies = \"requirements.txt\"\n\
         wheels = \"wheels\"\nenv = { MODE = \"test\" }\n",
    );
    let frontend = example("python-app").join("frontend.py");
    let build = || build(world, &frontend, "ctx/app.toml", "ctx");
    let first = build().ok();
    world.snapshot_of("first", &first.table());
    let run = |arguments: &[&str]| world.kiln(&["run"]).args(arguments).ok().stdout;
    assert_eq!(run(&["app"]), "hello test 10001 /app\n");
    assert_eq!(run(&["--entrypoint", "greet", "app"]), "hello\n");
    world.snapshot_of("again", &build().ok().table());
    // Another source leaves the dependencies as they are.
    world.write("ctx/hello/__main__.py", "print('another')\n");
    world.snapshot_of("source", &build().ok().table());
    assert_eq!(run(&["app"]), "another\n");
    // The same dependencies in other words leave the same files.
    world.write("ctx/requirements.txt", "# one\ngreet==1.0\n");
    world.snapshot_of("words", &build().ok().table());
}

fn site(world: &World, first: &str) {
    world.write("ctx/public/index.html", "<h1>hello</h1>\n");
    world.write("ctx/public/404.html", "nothing\n");
    world.write(
        "ctx/site.conf",
        format!("{first}\nfrom demo/base\npublic public\nport 8081\nnot-found 404.html\n"),
    );
}

/// What a server of the image answers, asked from beside it.
fn served(world: &World) -> String {
    let script = "httpd -p 127.0.0.1:8081 -h /srv -c /etc/httpd.conf; id -u; \
                  wget -q -O - http://127.0.0.1:8081/ 2>&1; wget -q -O - http://127.0.0.1:8081/x 2>&1; true";
    let run = ["run", "--network", "none", "app", "sh", "-c", script];
    world.kiln(&run).ok().stdout
}

fn static_site_built(world: &World) {
    world.base();
    site(world, "# a site");
    let frontend = example("static-site").join("frontend.sh");
    let build = || build(world, &frontend, "ctx/site.conf", "ctx");
    world.snapshot_of("first", &build().ok().table());
    assert_eq!(
        served(world),
        "65534\n<h1>hello</h1>\nwget: server returned error: HTTP/1.1 404 Not Found\n"
    );
    let config = world.inspect("app")["config"]["config"].clone();
    world.snapshot_of("config", &serde_json::to_string_pretty(&config).unwrap());
    world.snapshot_of("again", &build().ok().table());
    // A site that is made.
    world.write(
        "ctx/site.conf",
        "from demo/base\nmake demo/base mkdir dist && sed 's/hello/made/' public/index.html > dist/index.html\npublic dist\nport 8081\n",
    );
    world.snapshot_of("made", &build().ok().table());
    assert!(served(world).contains("<h1>made</h1>"));
}

fn static_site_as_an_image(world: &World) {
    world.base();
    let script = std::fs::read_to_string(example("static-site").join("frontend.sh")).unwrap();
    world.write_program("front/frontend.sh", &script);
    world.write(
        "front/Dockerfile",
        "FROM demo/base\nCOPY frontend.sh /\nENTRYPOINT [\"sh\", \"/frontend.sh\"]\n",
    );
    let front = ["build", "-q", "-t", "demo/static-site:1", "front"];
    world.kiln(&front).ok();
    site(world, "# syntax=demo/static-site:1");
    let built = world.kiln(&["build", "-f", "ctx/site.conf", "-t", "app", "ctx"]);
    world.snapshot(&built.ok().table());
    assert!(served(world).contains("<h1>hello</h1>"));
}
