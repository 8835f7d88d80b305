"""The description of an application: what may stand in the file, and where it stands."""

import difflib
import re
import tomllib
from dataclasses import dataclass, field

# Everything that may be said: the key, its type, and an example.
TEXT, TEXTS, TABLE, PORTS = "a text", "a list of texts", "a table of texts", "a list of port numbers"
KEYS = {
    "name": (TEXT, '"hello"'),
    "python": (TEXT, '"3.12"'),
    "base": (TEXT, '"debian:12"'),
    "source": (TEXTS, '["hello"]'),
    "entry": (TEXTS, '["python3", "-m", "hello"]'),
    "user": (TEXT, '"10001"'),
    "dependencies": (TEXT, '"requirements.txt"'),
    "wheels": (TEXT, '"wheels"'),
    "packages": (TEXTS, '["libpq5"]'),
    "package-manager": (TEXT, '"apt" or "apk"'),
    "ports": (PORTS, "[8080]"),
    "env": (TABLE, '{ MODE = "production" }'),
    "labels": (TABLE, '{ "org.example.team" = "web" }'),
}
REQUIRED = ("name", "source", "entry")


class Wrong(Exception):
    """Something in the file cannot be."""

    def __init__(self, message, at=None, help=None):
        super().__init__(message)
        self.message, self.at, self.help = message, at, help


@dataclass
class Description:
    """An application."""

    name: str
    base: str
    source: list
    entry: list
    user: str = "10001:10001"
    dependencies: str = ""
    wheels: str = ""
    packages: list = field(default_factory=list)
    package_manager: str = "apt"
    ports: list = field(default_factory=list)
    env: dict = field(default_factory=dict)
    labels: dict = field(default_factory=dict)


class Places:
    """Where things stand in the text; tomllib does not tell."""

    def __init__(self, text):
        self._lines = text.split("\n")
        self._keys = {}
        table = ""
        for number, line in enumerate(self._lines, 1):
            if header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
                table = header[1] + "."
                self._keys.setdefault(header[1], (number, header.start(1), header.end(1)))
            elif key := re.match(r"\s*(?:\"([^\"]+)\"|([\w-]+))\s*=\s*", line):
                name = table + (key[1] or key[2])
                start = key.start(1) if key[1] else key.start(2)
                end = key.end(1) if key[1] else key.end(2)
                self._keys.setdefault(name, (number, start, end))

    def key(self, name):
        """The place of a key, such as `env.MODE`, or of the table that it is written in."""
        while name not in self._keys and "." in name:
            name = name.rpartition(".")[0]
        if name not in self._keys:
            return None
        line, start, end = self._keys[name]
        return {"line": line, "column": start + 1, "end_column": end + 1}

    def value(self, name, value):
        """The place of a text within the value of a key, on its line or below."""
        at = self.key(name)
        if at is None:
            return None
        first = at["line"]
        for number in range(first, len(self._lines) + 1):
            for quote in "\"'":
                start = self._lines[number - 1].find(f"{quote}{value}{quote}")
                if start >= 0:
                    return {"line": number, "column": start + 1, "end_column": start + len(value) + 3}
            if number > first and re.match(r"\s*[\w\"-]+\s*=|\s*\[[\w.-]+\]\s*$", self._lines[number - 1]):
                break
        return at


def parse(text):
    """Returns what the text says, where, and all that is wrong with it."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        message = re.sub(r" \(at .*\)$", "", str(error))
        at = {"line": int(place[1]), "column": int(place[2])} if place else {"line": text.count("\n") + 1}
        return None, None, [Wrong(f"this is no TOML: {message}", at)]
    places, wrong = Places(text), []
    for key, value in data.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            help = f"did you mean `{near[0]}`?" if near else "known are " + ", ".join(KEYS)
            wrong.append(Wrong(f"there is no key `{key}`", places.key(key), help))
        elif not fits(value, KEYS[key][0]):
            kind, example = KEYS[key]
            wrong.append(Wrong(f"`{key}` must be {kind}", places.key(key), f"as in {key} = {example}"))
    for key in REQUIRED:
        if key not in data:
            wrong.append(Wrong(f"`{key}` is missing", {"line": 1}, f"as in {key} = {KEYS[key][1]}"))
    if wrong:
        return None, places, wrong
    base = data.pop("base", None)
    if version := data.pop("python", None):
        if base is not None:
            wrong.append(Wrong("`python` and `base` are two answers to one question", places.key("base"), "leave one out"))
        if not re.fullmatch(r"\d+(\.\d+){0,2}", version):
            wrong.append(Wrong(f"`{version}` is no version of Python", places.value("python", version), 'as in python = "3.12"'))
        base = f"python:{version}-slim"
    elif base is None:
        wrong.append(Wrong("neither `python` nor `base` says what it runs on", {"line": 1}, 'as in python = "3.12"'))
    description = Description(base=base, **{key.replace("-", "_"): value for key, value in data.items()})
    wrong.extend(check(description, places))
    return description, places, wrong


def fits(value, kind):
    """Whether a value is of a kind."""
    texts = lambda values: all(isinstance(value, str) for value in values)
    return {
        TEXT: isinstance(value, str),
        TEXTS: isinstance(value, list) and texts(value),
        TABLE: isinstance(value, dict) and texts(value.values()),
        PORTS: isinstance(value, list) and all(type(port) is int and 0 < port < 65536 for port in value),
    }[kind]


def check(description, places):
    """What cannot be, although each key alone is right."""
    if not description.source:
        yield Wrong("an application without source does nothing", places.key("source"))
    if not description.entry:
        yield Wrong("`entry` names no program", places.key("entry"), "as in entry = " + KEYS["entry"][1])
    for key in ("source", "dependencies", "wheels"):
        value = getattr(description, key)
        for path in [value] if isinstance(value, str) else value:
            if path.startswith("/") or ".." in path.split("/"):
                yield Wrong(f"`{path}` does not lie in the build context", places.value(key, path))
    for package in description.packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.:_-]*", package):
            yield Wrong(f"`{package}` is no name of a package", places.value("packages", package))
    if description.package_manager not in ("apt", "apk"):
        yield Wrong(
            f"there is no package manager `{description.package_manager}`",
            places.value("package-manager", description.package_manager),
            "apt and apk are there",
        )
    if description.wheels and not description.dependencies:
        yield Wrong("`wheels` without `dependencies` is of no use", places.key("wheels"))
    if not re.fullmatch(r"\d+(:\d+)?|[a-z_][a-z0-9_-]*(:[a-z_][a-z0-9_-]*)?", description.user):
        yield Wrong(f"`{description.user}` is no user", places.value("user", description.user), 'as in user = "10001"')
    elif description.user.split(":")[0] in ("0", "root"):
        yield Wrong("the application would run as root", places.value("user", description.user), "leave `user` out for 10001")
    for name in description.env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield Wrong(f"`{name}` is no name of a variable", places.key(f"env.{name}"))
