#!/usr/bin/env python3
"""A front end for kiln: from a short description of a Python application to its image.

    kiln build --frontend ./frontend.py -f app.toml -t hello .

README.md says what may stand in the description. Only the standard library is needed.
"""

import re
import sys

# Where this lies may be read-only, and is the user's own directory otherwise.
sys.dont_write_bytecode = True

import description
from plan import Plan
from protocol import Absent, Kiln

DEFAULT_FILE = "app.toml"
TARGETS = ("app", "dependencies")
# Where dependencies are, apart from those of the base image.
DEPENDENCIES = "/opt/dependencies"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What is downloaded goes to directories of its own: images of Debian empty the usual one each time.
APT = """set -e
apt="apt-get -o Dir::Cache=/tmp/apt/cache -o Dir::State::Lists=/tmp/apt/lists"
mkdir -p /tmp/apt/cache/archives/partial /tmp/apt/lists/partial
$apt update
DEBIAN_FRONTEND=noninteractive exec $apt install --yes --no-install-recommends "$@"
"""
APK = 'exec apk add --update-cache --cache-dir /tmp/apk "$@"'


def main():
    kiln = Kiln()
    file, content = kiln.file()
    if file is None:
        file = DEFAULT_FILE
        try:
            content = kiln.read(file)
        except Absent as absent:
            return give_up(kiln, [description.Wrong(str(absent), None, "name another file with -f")], None)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return give_up(kiln, [description.Wrong(f"the file is not UTF-8: {error.reason}")], file)
    app, places, wrong = description.parse(text)
    if not wrong:
        wrong = list(look(kiln, app, places))
    target = kiln.build["target"] or TARGETS[0]
    if target not in TARGETS:
        known = " and ".join(TARGETS)
        wrong.append(description.Wrong(f"there is no target `{target}`", None, f"{known} are there"))
    if wrong:
        return give_up(kiln, wrong, file)
    plan = Plan(file, text)
    platforms = kiln.build["platforms"]
    for platform in platforms:
        try:
            number, config = lower(kiln, plan, app, places, platform, target)
        except Absent as absent:
            at = places.value("base", app.base) or places.key("python")
            return give_up(kiln, [description.Wrong(str(absent), at)], file)
        plan.result(platform if len(platforms) > 1 else "", number, config)
    kiln.say(type="plan", plan=plan.document(), unused_args=sorted(kiln.build["args"]))
    return 0


def give_up(kiln, wrong, file):
    """Says what is wrong, and that there is nothing to build."""
    for problem in wrong:
        kiln.diagnostic("error", problem.message, problem.at, file if problem.at else None, problem.help)
    kiln.say(type="failed")
    return 0


def look(kiln, app, places):
    """What the description names must be in the context; what is doubtful is said."""
    for path in app.source:
        if path != "." and kiln.kind(path.strip("/")) is None:
            yield description.Wrong(f"there is no `{path}` in the build context", places.value("source", path))
    if app.wheels and kiln.kind(app.wheels) != "directory":
        yield description.Wrong(f"there is no directory `{app.wheels}` in the build context", places.key("wheels"))
    if app.dependencies:
        try:
            requirements = kiln.read(app.dependencies).decode(errors="replace")
        except Absent as absent:
            yield description.Wrong(str(absent), places.value("dependencies", app.dependencies))
            return
        for number, line in enumerate(requirements.splitlines(), 1):
            line = line.split("#")[0].strip()
            if re.match(r"[A-Za-z0-9]", line) and "==" not in line and " @ " not in line:
                message = f"`{line}` is not pinned, so that the same file may install something else tomorrow"
                kiln.diagnostic("warning", message, {"line": number}, app.dependencies, "as in NAME==1.2.3")
    tag = app.base.rpartition("/")[2].partition(":")[2]
    if tag in ("", "latest") and "@" not in app.base:
        at = places.value("base", app.base)
        kiln.diagnostic("warning", f"`{app.base}` moves with every release", at, None, "name a version")


def lower(kiln, plan, app, places, platform, target):
    """The nodes for one platform: what changes least comes first."""
    build = kiln.build

    def seen(key, name, stage):
        at = places.key(key)
        return {"name": name, "stage": stage, "line": at["line"] if at else 0}

    reference, config = kiln.resolve(app.base, platform)
    base = plan.image(reference, platform, **seen("base" if places.key("base") else "python", f"base {app.base}", "base"))
    context = plan.context(build["contexts"]["context"]["directory"]["ignore"])
    history = config.setdefault("history", [])
    root = base
    if app.packages:
        name = "packages " + " ".join(app.packages)
        root = install(plan, app, base, build, platform, seen("packages", name, "base"))
        history.append({"created_by": name})
    dependencies = None
    if app.dependencies:
        name = f"dependencies {app.dependencies}"
        dependencies = pip(plan, app, root, context, build, platform, seen("dependencies", name, "dependencies"))
    if target == "dependencies":
        if dependencies is None:
            raise Absent("the target `dependencies` is empty, since the description names none")
        return dependencies, None
    if dependencies is not None:
        # A layer of its own, which stays when only the application changes.
        name = f"install {app.dependencies}"
        shown = {"name": name, "stage": "app", "line": places.key("dependencies")["line"]}
        root = plan.copy(root, [(dependencies, "/", DEPENDENCIES)], **shown)
        history.append({"created_by": name})
    copies = []
    for path in app.source:
        path = path.strip("/")
        copies.append((context, "/", "/app") if path == "." else (context, f"/{path}", f"/app/{path}"))
    name = "source " + " ".join(app.source)
    root = plan.copy(root, copies, **seen("source", name, "app"))
    history.append({"created_by": name})
    return root, run_config(app, config)


def install(plan, app, base, build, platform, seen):
    """Packages of the distribution; what is downloaded is kept for the next time, and not in the image."""
    apt = app.package_manager == "apt"
    # Packages of one platform are of no use to another.
    place = platform.replace("/", "-")
    paths = ["/tmp/apt/cache", "/tmp/apt/lists"] if apt else ["/tmp/apk"]
    mounts = [cache(path, f"python-app-{path[5:].replace('/', '-')}-{place}", "locked") for path in paths]
    script = APT if apt else APK
    return plan.run(base, ["/bin/sh", "-c", script, "install", *app.packages], mounts, build, platform, **seen)


def pip(plan, app, root, context, build, platform, seen):
    """The dependencies alone, in a tree of their own: only the file that lists them is seen."""
    mounts = [
        {"target": "/tmp", "kind": {"tmpfs": {"size_bytes": 0}}},
        {"target": "/tmp/requirements.txt", "input": context, "selector": f"/{app.dependencies}", "readonly": True},
    ]
    args = ["python3", "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile"]
    network = ""
    if app.wheels:
        mounts.append({"target": "/tmp/wheels", "input": context, "selector": f"/{app.wheels}", "readonly": True})
        args += ["--no-index", "--find-links", "/tmp/wheels"]
        network = "none"
    else:
        mounts.append(cache("/tmp/pip", "python-app-pip", None))
        args += ["--cache-dir", "/tmp/pip"]
    args += ["--root-user-action", "ignore", "--target", DEPENDENCIES, "--requirement", "/tmp/requirements.txt"]
    return plan.run(root, args, mounts, build, platform, DEPENDENCIES, network, **seen)


def cache(target, id, sharing):
    """A directory that outlives the step."""
    kind = {"id": id, "sharing": sharing or "shared"}
    return {"target": target, "kind": {"cache": kind}}


def run_config(app, config):
    """How the image runs, over what the base says."""
    run = config.setdefault("config", {})
    env = dict(variable.partition("=")[::2] for variable in run.get("env", []))
    env.setdefault("PATH", PATH)
    if app.dependencies:
        env["PATH"] = f"{DEPENDENCIES}/bin:{env['PATH']}"
        env["PYTHONPATH"] = DEPENDENCIES
    env.update(app.env)
    run["env"] = [f"{name}={value}" for name, value in env.items()]
    run["entrypoint"] = app.entry
    run.pop("cmd", None)
    run["user"] = app.user
    run["working_dir"] = "/app"
    if app.ports:
        run["exposed_ports"] = sorted(f"{port}/tcp" for port in app.ports)
    run["labels"] = {**run.get("labels", {}), "org.opencontainers.image.title": app.name, **app.labels}
    return config


if __name__ == "__main__":
    sys.exit(main())
