#!/usr/bin/env python3
"""A front end that asks everything that can be asked. Its file's lines are `KEY VALUE`."""
import base64, json, sys

def say(**message):
    print(json.dumps(message), flush=True)

def ask(**message):
    say(id=7, **message)
    answer = json.loads(sys.stdin.readline())
    assert answer["type"] == "answer" and answer["id"] == 7, answer
    return answer

build = json.loads(sys.stdin.readline())
say(type="hello", version="kiln.frontend/0")
file = build["file"]
text = base64.b64decode(file["content"]).decode()
lines = dict(line.split(" ", 1) for line in text.splitlines() if not line.startswith("#"))
number = {line.split(" ")[0]: at for at, line in enumerate(text.splitlines(), 1)}
names = [entry["name"] for entry in ask(type="list", path="words")["entries"]]
say(type="log", message="words: " + " ".join(names))
print("resolving", file=sys.stderr)
image = ask(type="resolve", image="demo/base", platform=build["platforms"][0])
assert image["reference"] == "docker.io/demo/base:latest", image
word = lines["word"]
if lines.get("count") and not build["assuming"]:
    steps = {
        "version": "kiln.plan/0",
        "nodes": [
            {"op": {"source": {"image": {"reference": image["reference"]}}}, "platform": {"os": "linux", "architecture": build["platforms"][0].split("/")[1]}},
            {"op": {"source": {"local": {"name": "context"}}}},
            {"op": {"exec": {"meta": {"args": ["sh", "-c", lines["count"]]}, "mounts": [
                {"target": "/", "input": 0, "output": 0},
                {"target": "/src", "input": 1, "readonly": True}]}},
             "platform": {"os": "linux", "architecture": build["platforms"][0].split("/")[1]},
             "inputs": [{"node": 0}, {"node": 1}]},
        ],
        "results": {"": {"output": {"node": 2}}},
    }
    source = ask(type="solve", plan=steps)["source"]
    answer = ask(type="read", source=source, path="count")
    word = word + base64.b64decode(answer["content"]).decode().strip()
    assert ask(type="read", source=source, path="nothing")["error"]["code"] == "not-found"
results, nodes = {}, []
for platform in build["platforms"]:
    system, architecture = platform.split("/")[:2]
    kind = {"os": system, "architecture": architecture}
    first = len(nodes)
    nodes += [
        {"op": {"source": {"image": {"reference": image["reference"]}}}, "platform": kind,
         "display": {"name": "base demo/base", "ranges": [{"source": 0, "start_line": 1, "end_line": 1}]}},
        {"op": {"exec": {"meta": {"args": ["sh", "-c", f"echo {word} > /greeting"]},
                         "mounts": [{"target": "/", "input": 0, "output": 0}]}},
         "platform": kind, "inputs": [{"node": first}],
         "display": {"name": f"greet {word}", "stage": "app",
                     "ranges": [{"source": 0, "start_line": number["word"], "end_line": number["word"]}]}},
    ]
    config = dict(image["config"], config={"cmd": ["cat", "/greeting"]})
    name = platform if len(build["platforms"]) > 1 else ""
    results[name] = {"output": {"node": first + 1}, "config": config}
if "old" in lines:
    say(type="diagnostic", severity="warning", message="`old` does nothing",
        at={"line": number["old"], "column": 1, "end_column": 4}, help="leave it out")
say(type="plan", unused_args=["NOBODY"], plan={
    "version": "kiln.plan/0", "nodes": nodes, "results": results,
    "sources": [{"name": file["name"], "text": text}]})
