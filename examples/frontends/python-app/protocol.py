"""kiln's front end protocol (docs/frontends.md): lines of JSON over the standard streams."""

import base64
import json
import sys

VERSION = "kiln.frontend/0"


class Absent(Exception):
    """What was asked for is not there; says so in words."""


class Kiln:
    """The other side of the standard streams."""

    def __init__(self, read=sys.stdin, write=sys.stdout):
        self._read, self._write = read, write
        self._asked = 0
        self.build = json.loads(self._read.readline())
        self.say(type="hello", version=VERSION)

    def say(self, **message):
        """Sends a message."""
        self._write.write(json.dumps(message) + "\n")
        self._write.flush()

    def ask(self, **request):
        """Sends a request and waits for its answer."""
        self._asked += 1
        self.say(id=self._asked, **request)
        answer = json.loads(self._read.readline())
        if "error" in answer:
            raise Absent(answer["error"]["message"])
        return answer

    def file(self):
        """The build file's name and bytes; the name is None where the caller named no file."""
        file = self.build["file"]
        if file is None:
            return None, b""
        return file["name"], base64.b64decode(file["content"])

    def read(self, path, source="context"):
        """The bytes of a file of a context."""
        answer = self.ask(type="read", source=source, path=path)
        return base64.b64decode(answer["content"])

    def kind(self, path, source="context"):
        """What is at a path of a context: `file`, `directory`, `link`, `other` or None."""
        parent, _, name = path.rpartition("/")
        try:
            entries = self.ask(type="list", source=source, path=parent)["entries"]
        except Absent:
            return None
        return next((entry["kind"] for entry in entries if entry["name"] == name), None)

    def resolve(self, image, platform):
        """An image's complete reference, and its config."""
        answer = self.ask(type="resolve", image=image, platform=platform)
        return answer["reference"], answer["config"]

    def diagnostic(self, severity, message, at=None, file=None, help=None):
        """Says something about a file."""
        said = {"severity": severity, "message": message}
        if at:
            said["at"] = at
        if file:
            said["file"] = file
        if help:
            said["help"] = help
        self.say(type="diagnostic", **said)
