#!/usr/bin/env python3
"""Measures kiln beside buildah and beside the plainest tool for the heart of the same work.

    tools/bench.py [--runs N] [--without-buildah] [ROW...]      all rows, or the named ones
    tools/bench.py --list

Whole processes are timed, in turns, with a warm page cache; the table on standard output has the
median and the fastest run. Everything lies in one temporary directory, which is removed at the end
(TMPDIR says where), and the only network is loopback. Needs root. KILN names the binary to measure;
by default it is the release build of this checkout.
"""

import argparse
import ctypes
import datetime
import gzip
import hashlib
import io
import json
import os
import platform
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.realpath(__file__))
BASE = "localhost/bench-base"
MIB = 1 << 20
# Instructions of which each makes a layer of its own.
STEPS = 19


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def adopt_orphans():
    """Makes what a measured process leaves behind our child, so that the next turn can wait for it."""
    set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0)


class Bench:
    """One run of the benchmark: its directory, its engines, and what it measured."""

    def __init__(self, kiln, work, with_buildah):
        self.kiln_binary = kiln
        self.work = work
        self.with_buildah = with_buildah
        self.registry = None
        self.serial = 0
        self.made = {}
        self.devnull = os.open(os.devnull, os.O_RDWR)
        self.log = os.path.join(work, "log")
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KILN_", "SOURCE_DATE_EPOCH", "BUILDAH_", "STORAGE_"))
        }

    def path(self, *names):
        return os.path.join(self.work, *names)

    def fresh(self, name):
        self.serial += 1
        return self.path(f"{name}-{self.serial}")

    # Processes

    def run(self, command, environment=None):
        """Runs a command and returns its seconds, from spawn to exit."""
        log = os.open(self.log, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        actions = [
            (os.POSIX_SPAWN_DUP2, self.devnull, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        started = time.perf_counter()
        pid = os.posix_spawnp(
            command[0], command, {**self.environment, **(environment or {})}, file_actions=actions
        )
        _, status = os.waitpid(pid, 0)
        took = time.perf_counter() - started
        os.close(log)
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                sys.stderr.write(file.read())
            sys.exit(f"bench: `{' '.join(command)}` ended with {code}")
        return took

    def settle(self):
        """Waits for what processes have left running, such as kiln's sync of its store."""
        known = {self.registry} - {None}
        for _ in range(600):
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
                others = set(map(int, file.read().split())) - known
            for pid in others:
                os.waitpid(pid, os.WNOHANG)
            if not others:
                return
            time.sleep(0.05)

    # Engines

    def kiln(self, root, *arguments):
        return self.run([self.kiln_binary, *arguments], {"KILN_ROOT": root})

    def kiln_build(self, root, context, *arguments):
        return self.kiln(
            root, "build", "--progress=plain", "-o", "type=cacheonly", *arguments, context
        )

    def kiln_root(self):
        """A new store that has the base."""
        root = self.fresh("kiln")
        self.kiln(root, "import", self.base(), BASE)
        self.settle()
        return root

    def buildah(self, *arguments):
        return self.run(
            [
                "buildah",
                "--root", self.path("buildah", "root"),
                "--runroot", self.path("buildah", "run"),
                "--storage-driver", "overlay",
                *arguments,
            ]
        )  # fmt: skip

    def buildah_build(self, context, *arguments):
        self.buildah_base()
        return self.buildah(
            "bud", "--layers", "--isolation", "oci", "--runtime", "runc", "--network", "host",
            "--pull-never", "--quiet", "-t", "localhost/bench-result", *arguments, context,
        )  # fmt: skip

    def buildah_base(self):
        if "buildah" in self.made:
            return
        self.made["buildah"] = True
        os.makedirs(self.path("buildah"))
        self.buildah("from", "--name", "bench", "scratch")
        self.buildah("add", "bench", self.base(), "/")
        self.buildah("commit", "bench", BASE)
        self.buildah("rm", "bench")

    # Material

    def base(self):
        """The tar of a small root, such as distributions make it: a static busybox and its names."""
        path = self.path("base.tar")
        if "base" not in self.made:
            self.made["base"] = True
            busybox = shutil.which("busybox")
            names = subprocess.run(
                [busybox, "--list"], check=True, capture_output=True, text=True
            ).stdout.split()
            with tarfile.open(path, "w") as archive:
                for name in ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"]:
                    entry = tarfile.TarInfo(name)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(entry)
                for name, text in {
                    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
                    "etc/group": b"root:x:0:\n",
                    "etc/hosts": b"127.0.0.1 localhost\n",
                    "etc/resolv.conf": b"",
                }.items():
                    entry = tarfile.TarInfo(name)
                    entry.mode, entry.size = 0o644, len(text)
                    archive.addfile(entry, io.BytesIO(text))
                entry = tarfile.TarInfo("bin/busybox")
                entry.mode, entry.size = 0o755, os.stat(busybox).st_size
                with open(busybox, "rb") as file:
                    archive.addfile(entry, file)
                for name in names:
                    if name == "busybox":
                        continue
                    entry = tarfile.TarInfo(f"bin/{name}")
                    entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                    archive.addfile(entry)
        return path

    def context(self, name, dockerfile, files=0, file_bytes=0):
        """A context directory with that many files, the same ones every time."""
        context = self.path("contexts", name)
        write(os.path.join(context, "Dockerfile"), dockerfile)
        seed = random.Random(7)
        for index in range(files):
            at = os.path.join(context, f"d{index // 100:03}", f"f{index:05}.txt")
            os.makedirs(os.path.dirname(at), exist_ok=True)
            with open(at, "wb") as file:
                file.write(seed.randbytes(file_bytes // 2).hex().encode())
        # A hash is remembered only of files that have not changed for a moment.
        time.sleep(0.1)
        return context

    def give(self, context, tar):
        """Puts a tar into a context."""
        at = os.path.join(context, "layer.tar")
        if not os.path.exists(at):
            os.link(tar, at)

    def host_tar(self, size):
        """A tar of about that many bytes of this machine's /usr: real files, really compressible."""
        path = self.path(f"host-{size}.tar")
        if path in self.made:
            return path
        self.made[path] = True
        total = 0
        with tarfile.open(path, "w") as archive:
            for at, directories, names in os.walk("/usr"):
                directories.sort()
                for name in sorted(names):
                    file = os.path.join(at, name)
                    if os.path.islink(file) or not os.path.isfile(file):
                        continue
                    length = os.stat(file).st_size
                    if length > size // 20:
                        continue
                    archive.add(file, file.lstrip("/"), recursive=False)
                    total += length
                    if total > size:
                        return path
        return path

    def serve_registry(self):
        """Starts an empty registry on loopback, after the one before was ended; returns its host."""
        self.close()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            host = "127.0.0.1:%d" % probe.getsockname()[1]
        storage = self.fresh("registry")
        configuration = f"{storage}.yml"
        write(
            configuration,
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: "
            f"{{rootdirectory: {storage}}}}}\nhttp: {{addr: '{host}'}}\n",
        )
        actions = [(os.POSIX_SPAWN_DUP2, self.devnull, fd) for fd in (0, 1, 2)]
        self.registry = os.posix_spawnp(
            "docker-registry",
            ["docker-registry", "serve", configuration],
            self.environment,
            file_actions=actions,
        )
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{host}/v2/").close()
                break
            except OSError:
                time.sleep(0.05)
        return host

    def layout(self, layers):
        """An image layout whose layers are plain tars; returns its directory."""
        at = self.fresh("layout")
        os.makedirs(os.path.join(at, "blobs", "sha256"))

        def put(blob, kind):
            digest = hashlib.sha256(blob).hexdigest()
            with open(os.path.join(at, "blobs", "sha256", digest), "wb") as file:
                file.write(blob)
            return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(blob)}

        kind = "application/vnd.oci.image"
        descriptors = []
        for layer in layers:
            with open(layer, "rb") as file:
                descriptors.append(put(file.read(), f"{kind}.layer.v1.tar"))
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                platform.machine(), platform.machine()
            ),
            "os": "linux",
            "config": {"Env": ["PATH=/bin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in descriptors]},
            # buildah takes no layer for granted that the history does not list.
            "history": [{"created_by": "bench"} for _ in descriptors],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": put(json.dumps(config).encode(), f"{kind}.config.v1+json"),
            "layers": descriptors,
        }
        root = put(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
        root["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
        write(os.path.join(at, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}')
        write(os.path.join(at, "index.json"), json.dumps({"schemaVersion": 2, "manifests": [root]}))
        return at

    def skopeo(self, *arguments):
        return self.run(["skopeo", "--insecure-policy", *arguments])

    def serve_base(self):
        """Starts a registry that has an image of 170 MB; returns its name and the URLs of its layers."""
        host = self.serve_registry()
        # The large layer is put above a root with a shell, so that a step can run in it.
        layout = self.layout([self.base(), self.host_tar(170 * MIB)])
        image = f"{host}/base:latest"
        self.skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{image}")
        shutil.rmtree(layout)
        request = urllib.request.Request(f"http://{host}/v2/base/manifests/latest")
        request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
        with urllib.request.urlopen(request) as answer:
            layers = json.load(answer)["layers"]
        return image, [f"http://{host}/v2/base/blobs/{layer['digest']}" for layer in layers]

    def close(self):
        if self.registry is not None:
            os.kill(self.registry, signal.SIGTERM)
            os.waitpid(self.registry, 0)
            self.registry = None


class Row:
    """A line of the table: what is prepared once, and what each engine does in a turn."""

    name = title = plain_tool = ""
    target = None
    runs = 5
    buildah_runs = 2

    def prepare(self, bench):
        """Makes what all turns share."""

    def kiln(self, bench):
        """One timed turn; returns seconds."""
        raise NotImplementedError

    def buildah(self, bench):
        raise NotImplementedError

    def plain(self, bench):
        raise NotImplementedError


class Runs(Row):
    name, title = "runs", "30 tiny RUN steps in a row"
    plain_tool, target = "30 x unshare", 0.3
    turn = 0

    def prepare(self, bench):
        self.root = bench.kiln_root()
        self.plain_script = "\n".join(
            f"unshare --mount --pid --ipc --uts --fork true || exit # {index}" for index in range(30)
        )

    def context(self, bench):
        # Another environment each time, so that nothing is cached.
        self.turn += 1
        steps = "\n".join(f"RUN echo {index} > /file{index}" for index in range(30))
        return bench.context("runs", f"FROM {BASE}\nENV TURN={self.turn}\n{steps}\n")

    def kiln(self, bench):
        return bench.kiln_build(self.root, self.context(bench))

    def buildah(self, bench):
        return bench.buildah_build(self.context(bench))

    def plain(self, bench):
        return bench.run(["sh", "-c", self.plain_script])


class Unchanged(Row):
    name, title = "rebuild-200", "rebuild, nothing changed (20 steps, 200 files)"
    plain_tool, target = "stat them", 0.015
    runs = 21
    files, file_bytes = 200, 1000

    def prepare(self, bench):
        steps = "\n".join(f"RUN echo {index} > /file{index}" for index in range(STEPS))
        dockerfile = f"FROM {BASE}\nCOPY . /src\n{steps}\n"
        self.root = bench.kiln_root()
        self.at = bench.context(self.name, dockerfile, self.files, self.file_bytes)
        bench.kiln_build(self.root, self.at)
        if bench.with_buildah:
            bench.buildah_build(self.at)

    def kiln(self, bench):
        return bench.kiln_build(self.root, self.at)

    def buildah(self, bench):
        return bench.buildah_build(self.at)

    def plain(self, bench):
        return bench.run(["find", self.at, "-printf", "%s %T@\\n"])


class UnchangedLarge(Unchanged):
    name, title = "rebuild-20000", "the same, nothing changed, 20,000 files of context"
    target = 0.1
    runs = 11
    files, file_bytes = 20_000, 10_000


class OneChanged(Row):
    name, title = "one-of-20000", "one file of 20,000 changed, COPY of all"
    plain_tool, target = "stat them", 0.3
    turn = 0

    def prepare(self, bench):
        self.root = bench.kiln_root()
        self.at = bench.context("one", f"FROM {BASE}\nCOPY . /src\n", 20_000, 10_000)
        bench.kiln_build(self.root, self.at)
        if bench.with_buildah:
            bench.buildah_build(self.at)

    def change(self):
        self.turn += 1
        with open(os.path.join(self.at, "d100", "f10001.txt"), "a", encoding="ascii") as file:
            file.write(f"{self.turn}\n")
        time.sleep(0.1)

    def kiln(self, bench):
        self.change()
        return bench.kiln_build(self.root, self.at)

    def buildah(self, bench):
        self.change()
        return bench.buildah_build(self.at)

    def plain(self, bench):
        return bench.run(["find", self.at, "-printf", "%s %T@\\n"])


class CopyCold(Row):
    name, title = "copy-20000", "COPY of 20,000 files, 200 MB, cold"
    plain_tool, target = "cp -a", 1.5

    def prepare(self, bench):
        self.at = bench.context("copy", f"FROM {BASE}\nCOPY . /src\n", 20_000, 10_000)

    def kiln(self, bench):
        root = bench.kiln_root()
        os.sync()
        took = bench.kiln_build(root, self.at)
        bench.settle()
        shutil.rmtree(root)
        return took

    def buildah(self, bench):
        os.sync()
        return bench.buildah_build(self.at, "--no-cache")

    def plain(self, bench):
        to = bench.fresh("cp")
        os.sync()
        took = bench.run(["cp", "-a", self.at, to])
        shutil.rmtree(to)
        return took


class Stages(Row):
    name, title = "stages-8", "8 independent stages of `sleep 1`"
    plain_tool, target = "sleep 1", 1.06
    turn = 0

    def prepare(self, bench):
        self.root = bench.kiln_root()

    def context(self, bench):
        self.turn += 1
        stages = "".join(
            f"FROM {BASE} AS s{index}\nENV TURN={self.turn}\n"
            f"RUN sleep 1 && echo {index} > /out{index}\n"
            for index in range(8)
        )
        copies = "".join(f"COPY --from=s{index} /out{index} /\n" for index in range(8))
        return bench.context("stages", f"{stages}FROM {BASE}\n{copies}")

    def kiln(self, bench):
        return bench.kiln_build(self.root, self.context(bench))

    def buildah(self, bench):
        return bench.buildah_build(self.context(bench), "--jobs", "8")

    def plain(self, bench):
        return bench.run(["sleep", "1"])


class Archive(Row):
    name, title = "gzip-300", "300 MB layer to a gzip OCI archive, each engine's default level"
    plain_tool, target = "pigz -6", 1.5
    runs = 3

    def prepare(self, bench):
        self.tar = bench.host_tar(300 * MIB)
        self.at = bench.context("archive", "FROM scratch\nADD layer.tar /\n")
        bench.give(self.at, self.tar)
        if bench.with_buildah:
            bench.buildah_build(self.at)

    def kiln(self, bench):
        # Another store each time: a layer is compressed once in its life.
        root = bench.fresh("kiln")
        bench.kiln_build(root, self.at)
        bench.settle()
        os.sync()
        out = bench.path("out.tar")
        took = bench.kiln(root, "build", "--progress=plain", "-o", f"type=oci,dest={out}", self.at)
        bench.settle()
        os.remove(out)
        shutil.rmtree(root)
        return took

    def buildah(self, bench):
        out = bench.path("out-buildah.tar")
        took = bench.buildah("push", "--quiet", "localhost/bench-result", f"oci-archive:{out}")
        os.remove(out)
        return took

    def plain(self, bench):
        out = bench.path("out.gz")
        took = bench.run(["sh", "-c", f"pigz -6 <{self.tar} >{out}"])
        os.remove(out)
        return took


class Pull(Row):
    name, title = "pull-170", "pull and unpack a 170 MB base from a registry on loopback"
    plain_tool, target = "curl, gzip -d, tar", 1.2
    runs = 3

    def prepare(self, bench):
        self.image, self.blobs = bench.serve_base()
        # The step makes sure that the layers are really there.
        self.at = bench.context("pull", f"FROM {self.image}\nRUN true\n")

    def kiln(self, bench):
        root = bench.fresh("kiln")
        os.sync()
        took = bench.kiln_build(root, self.at)
        bench.settle()
        shutil.rmtree(root)
        return took

    def buildah(self, bench):
        bench.buildah_base()
        os.sync()
        took = bench.buildah("pull", "--quiet", "--tls-verify=false", self.image)
        bench.buildah("rmi", self.image)
        return took

    def plain(self, bench):
        to = bench.fresh("unpacked")
        os.mkdir(to)
        os.sync()
        script = "\n".join(
            f"curl -sS {blob} | gzip -d | tar -x -C {to} || exit" for blob in self.blobs
        )
        took = bench.run(["sh", "-c", script])
        shutil.rmtree(to)
        return took


class PullWhole(Row):
    name, title = "pull", "pull a 170 MB image"
    plain_tool = "skopeo copy to a layout, nothing unpacked"
    runs = 3
    buildah = Pull.buildah

    def prepare(self, bench):
        self.image, _ = bench.serve_base()

    def kiln(self, bench):
        root = bench.fresh("kiln")
        os.sync()
        took = bench.kiln(root, "pull", self.image)
        bench.settle()
        shutil.rmtree(root)
        return took

    def plain(self, bench):
        to = bench.fresh("layout")
        os.sync()
        took = bench.skopeo(
            "copy", "--src-tls-verify=false", f"docker://{self.image}", f"oci:{to}:latest"
        )
        shutil.rmtree(to)
        return took


class Push(Row):
    name, title = "push", "push an image of 170 MB whose layer was never compressed"
    plain_tool = "skopeo copy from a layout of plain tars"
    runs = 3

    def prepare(self, bench):
        self.tar = bench.host_tar(170 * MIB)
        self.at = bench.context("push", "FROM scratch\nADD layer.tar /\n")
        bench.give(self.at, self.tar)
        self.layout = bench.layout([self.tar])
        if bench.with_buildah:
            bench.buildah_build(self.at)

    def kiln(self, bench):
        # Another store each time: a layer is compressed once in its life.
        root = bench.fresh("kiln")
        bench.kiln(root, "build", "--progress=plain", "-t", "pushed", self.at)
        bench.settle()
        host = bench.serve_registry()
        os.sync()
        took = bench.kiln(root, "push", "pushed", f"{host}/pushed:latest")
        bench.settle()
        shutil.rmtree(root)
        return took

    def buildah(self, bench):
        host = bench.serve_registry()
        os.sync()
        return bench.buildah(
            "push", "--quiet", "--tls-verify=false", "localhost/bench-result",
            f"docker://{host}/pushed:latest",
        )  # fmt: skip

    def plain(self, bench):
        host = bench.serve_registry()
        os.sync()
        return bench.skopeo(
            "copy", "--dest-tls-verify=false", f"oci:{self.layout}:latest",
            f"docker://{host}/pushed:latest",
        )  # fmt: skip


class PushAgain(Push):
    name, title = "push-again", "push the same image again, nothing changed"
    runs = 7

    def prepare(self, bench):
        super().prepare(bench)
        self.root = bench.fresh("kiln")
        bench.kiln(self.root, "build", "--progress=plain", "-t", "pushed", self.at)
        self.host = bench.serve_registry()
        bench.kiln(self.root, "push", "pushed", f"{self.host}/kiln:latest")
        self.plain(bench)
        if bench.with_buildah:
            self.buildah(bench)

    def kiln(self, bench):
        return bench.kiln(self.root, "push", "pushed", f"{self.host}/kiln:latest")

    def buildah(self, bench):
        return bench.buildah(
            "push", "--quiet", "--tls-verify=false", "localhost/bench-result",
            f"docker://{self.host}/buildah:latest",
        )  # fmt: skip

    def plain(self, bench):
        return bench.skopeo(
            "copy", "--dest-tls-verify=false", f"oci:{self.layout}:latest",
            f"docker://{self.host}/skopeo:latest",
        )  # fmt: skip


class CacheImport(Row):
    name, title = "cache-import", "20 steps on a machine that has nothing, all cached in a registry"
    plain_tool = "skopeo copy of the image to a layout"
    runs = 5

    def prepare(self, bench):
        # The base is in the registry too, and of each engine the image and its cache.
        self.image, _ = bench.serve_base()
        host = self.image.split("/")[0]
        steps = "\n".join(f"RUN echo {index} > /file{index}" for index in range(STEPS))
        self.at = bench.context("cache", f"FROM {self.image}\n{steps}\n")
        self.cache, self.buildah_cache = f"{host}/cache", f"{host}/buildah-cache"
        root = bench.fresh("kiln")
        bench.kiln(
            root, "build", "--progress=plain", "-t", "cached", self.at,
            "--cache-to", f"type=registry,ref={self.cache},mode=max",
        )  # fmt: skip
        self.result = f"{host}/result:latest"
        bench.kiln(root, "push", "cached", self.result)
        bench.settle()
        shutil.rmtree(root)
        if bench.with_buildah:
            self.buildah_import(bench, "--cache-to", self.buildah_cache)

    def kiln(self, bench):
        root = bench.fresh("kiln")
        took = bench.kiln(
            root, "build", "--progress=plain", "-t", "cached", self.at,
            "--cache-from", f"type=registry,ref={self.cache}",
        )  # fmt: skip
        bench.settle()
        shutil.rmtree(root)
        return took

    def buildah_import(self, bench, *arguments):
        root = bench.fresh("buildah")
        took = bench.run(
            [
                "buildah", "--root", f"{root}/root", "--runroot", f"{root}/run",
                "--storage-driver", "overlay",
                "bud", "--layers", "--isolation", "oci", "--runtime", "runc", "--network", "host",
                "--tls-verify=false", "--quiet", "-t", "localhost/cached", *arguments, self.at,
            ]
        )  # fmt: skip
        subprocess.run(["umount", "--lazy", f"{root}/root/overlay"], check=False, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)
        return took

    def buildah(self, bench):
        return self.buildah_import(bench, "--cache-from", self.buildah_cache)

    def plain(self, bench):
        to = bench.fresh("layout")
        took = bench.skopeo(
            "copy", "--src-tls-verify=false", f"docker://{self.result}", f"oci:{to}:latest"
        )
        shutil.rmtree(to)
        return took


class ManyStages(Row):
    name, title = "stages-200", "200 stages, all cached"
    target = 0.04
    runs = 15
    buildah_runs = 0

    def prepare(self, bench):
        first = f"FROM {BASE} AS s0\nRUN echo 0 > /f0\n"
        rest = "".join(
            f"FROM {BASE} AS s{index}\nCOPY --from=s{index - 1} /f{index - 1} /f{index}\n"
            for index in range(1, 200)
        )
        self.root = bench.kiln_root()
        self.at = bench.context("many", first + rest)
        bench.kiln_build(self.root, self.at)

    def kiln(self, bench):
        return bench.kiln_build(self.root, self.at)


class Parse(Row):
    name, title = "parse", "parse a Dockerfile of 1 MiB, process included"
    plain_tool, target = "wc", 0.05
    runs = 15
    buildah_runs = 0

    def prepare(self, bench):
        # A question that lowers nothing: all of the file is parsed, and its stages are listed.
        lines = [f"FROM {BASE} AS all\n"]
        length = 0
        index = 0
        while length < MIB:
            lines.append(
                f"# comment {index}\nENV NAME{index}=\"a value {index}\" OTHER=$NAME{index}\n"
                f"RUN --mount=type=cache,target=/c{index} echo {index} && \\\n    true $OTHER\n"
                f"COPY --chown=1:1 src/{index} ./lib /dst/{index}/\n"
                f"RUN <<EOF\necho here {index}\nEOF\n"
            )
            length += len(lines[-1])
            index += 1
        self.root = bench.fresh("kiln")
        self.at = bench.context("parse", "".join(lines))

    def kiln(self, bench):
        return bench.kiln(self.root, "build", "--call", "targets", self.at)

    def plain(self, bench):
        return bench.run(["wc", os.path.join(self.at, "Dockerfile")])


ROWS = [
    Runs, Unchanged, UnchangedLarge, OneChanged, CopyCold, Stages, Archive, Pull, PullWhole, Push,
    PushAgain, CacheImport, ManyStages, Parse,
]  # fmt: skip


def measure(bench, row, runs):
    """Prepares a row and lets the engines take turns; returns the seconds of each."""
    say(f"{row.name}: {row.title}")
    row.prepare(bench)
    times = {"kiln": [], "buildah": [], "plain": []}
    for turn in range(runs or row.runs):
        bench.settle()
        times["kiln"].append(row.kiln(bench))
        bench.settle()
        if row.plain_tool:
            times["plain"].append(row.plain(bench))
        if bench.with_buildah and turn < min(row.buildah_runs, runs or row.buildah_runs):
            times["buildah"].append(row.buildah(bench))
    for engine, taken in times.items():
        if taken:
            say(f"  {engine:8}" + " ".join(f"{seconds:.3f}" for seconds in taken))
    return times


def cell(taken):
    if not taken:
        return ""
    digits = 3 if statistics.median(taken) < 0.2 else 2
    return f"{statistics.median(taken):.{digits}f} s ({min(taken):.{digits}f})"


def ratio(other, own):
    if not other:
        return ""
    return f"{statistics.median(other) / statistics.median(own):.2g} x"


def table(results):
    lines = [
        "| work | buildah | plain tool | kiln | faster than buildah | than the plain tool | to reach |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row, times in results:
        plain = cell(times["plain"])
        lines.append(
            f"| {row.title} | {cell(times['buildah'])} "
            f"| {f'{plain} {row.plain_tool}' if plain else ''} | {cell(times['kiln'])} "
            f"| {ratio(times['buildah'], times['kiln'])} | {ratio(times['plain'], times['kiln'])} "
            f"| {f'{row.target} s' if row.target else ''} |"
        )
    return "\n".join(lines)


def version(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return f"{command[0]} not here"
    first = (done.stdout + done.stderr).strip().splitlines() or [""]
    found = re.search(r"v?\d+(\.\d+)+\S*", first[0])
    return f"{os.path.basename(command[0])} {found.group() if found else first[0]}".rstrip(",")


def machine(work):
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", work], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"{len(os.sched_getaffinity(0))} cores, {memory:.1f} GiB of memory, "
        f"Linux {platform.release()}, {kind}; load average before {os.getloadavg()[0]:.1f}"
    )


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("rows", nargs="*", metavar="ROW")
    arguments.add_argument("--list", action="store_true", help="say which rows there are")
    arguments.add_argument("--runs", type=int, help="turns a row, instead of each row's own number")
    arguments.add_argument("--without-buildah", action="store_true")
    given = arguments.parse_args()
    rows = {row.name: row for row in ROWS}
    if given.list:
        for row in ROWS:
            print(f"{row.name:14} {row.title}")
        return
    unknown = [name for name in given.rows if name not in rows]
    if unknown:
        arguments.error(f"no row is called {unknown[0]}; --list says which there are")
    if os.getuid() != 0:
        sys.exit("bench: run as root: buildah and the mounts need it")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target"))
    kiln = os.path.realpath(os.environ.get("KILN", os.path.join(target, "release", "kiln")))
    if not os.access(kiln, os.X_OK):
        sys.exit(f"bench: {kiln} is not there; `cargo build --release --bin kiln` makes it")
    with_buildah = not given.without_buildah and shutil.which("buildah") is not None

    adopt_orphans()
    # Ending it early also removes what it made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    work = tempfile.mkdtemp(prefix="kiln-bench-")
    bench = Bench(kiln, work, with_buildah)
    conditions = machine(work)
    say(f"works in {work}, which is removed at the end")
    results = []
    try:
        for row in [rows[name] for name in given.rows] or ROWS:
            results.append((row, measure(bench, row(), given.runs)))
    finally:
        bench.settle()
        bench.close()
        # What buildah leaves mounted, the inner ones first.
        with open("/proc/self/mounts", encoding="utf-8") as file:
            mounts = [line.split()[1] for line in file]
        for at in sorted(mounts, key=len, reverse=True):
            if at.startswith(work + "/"):
                subprocess.run(["umount", "--lazy", at], check=False)
        shutil.rmtree(work, ignore_errors=True)
    command = " ".join(["tools/bench.py", *sys.argv[1:]])
    print(f"{datetime.date.today()}: `{command}`\n")
    print(f"{conditions}.")
    tools = [version(kiln, "--version")]
    if with_buildah:
        tools += [version("buildah", "--version"), version("runc", "--version")]
    tools += [version(tool, "--version") for tool in ("skopeo", "pigz", "curl")]
    print(", ".join(tools) + ". BuildKit is not measured here.\n")
    print("Median of several runs, and in brackets the fastest.\n")
    print(table(results))


if __name__ == "__main__":
    main()
