"""A plan in kiln's JSON form (docs/formats/plan-json.md), node by node."""


class Plan:
    """Nodes that refer to earlier ones by their number."""

    def __init__(self, file, text):
        self._nodes = []
        self._results = {}
        self._sources = [{"name": file, "text": text}]

    def node(self, op, inputs=(), platform=None, name="", stage="", line=0):
        """Adds a node; `name`, `stage` and `line` are what people see of it."""
        node = {"op": op}
        if inputs:
            node["inputs"] = [{"node": number} for number in inputs]
        if platform:
            system, architecture, *variant = platform.split("/")
            node["platform"] = {"os": system, "architecture": architecture}
            if variant:
                node["platform"]["variant"] = variant[0]
        display = {"name": name, "stage": stage} if name else {}
        if line:
            display["ranges"] = [{"source": 0, "start_line": line, "end_line": line}]
        if display:
            node["display"] = display
        self._nodes.append(node)
        return len(self._nodes) - 1

    def image(self, reference, platform, **seen):
        """An image, whose tag is pinned by kiln."""
        return self.node({"source": {"image": {"reference": reference}}}, platform=platform, **seen)

    def context(self, ignore):
        """The build context without what its ignore file leaves out."""
        local = {"name": "context"}
        if ignore:
            local["exclude"] = ignore
        return self.node({"source": {"local": local}})

    def copy(self, onto, copies, **seen):
        """One layer over `onto`: copies are (from, source, destination)."""
        trees = [onto] if onto is not None else []
        actions = []
        for number, source, destination in copies:
            if number not in trees:
                trees.append(number)
            before = {"action": len(actions) - 1} if actions else ({"input": 0} if onto is not None else "scratch")
            kind = {
                "src": source,
                "dest": destination,
                "follow_symlink": True,
                "dir_copy_contents": True,
                "create_dest_path": True,
            }
            action = {"input": before, "secondary": {"input": trees.index(number)}, "kind": {"copy": kind}}
            actions.append(action)
        actions[-1]["output"] = 0
        return self.node({"file": {"actions": actions}}, trees, **seen)

    def run(self, root, args, mounts, build, platform, writes="/", network="", **seen):
        """A program over `root`, which yields what it leaves at `writes`."""
        whole = {"target": "/", "input": 0, "readonly": True}
        if writes == "/":
            whole = {"target": "/", "input": 0, "output": 0}
        trees, all_mounts = [root], [whole]
        if writes != "/":
            all_mounts.append({"target": writes, "output": 0})
        for mount in mounts:
            mount = dict(mount)
            if "input" in mount:
                if mount["input"] not in trees:
                    trees.append(mount["input"])
                mount["input"] = trees.index(mount["input"])
            all_mounts.append(mount)
        meta = {"args": args, "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "cwd": "/"}
        proxy = {name: value for name, value in build["proxy"].items() if value}
        for name, value in (("proxy", proxy), ("extra_hosts", build["add_hosts"]), ("ulimits", build["ulimits"])):
            if value:
                meta[name] = value
        if build["shm_size_bytes"]:
            all_mounts.append({"target": "/dev/shm", "kind": {"tmpfs": {"size_bytes": build["shm_size_bytes"]}}})
        op = {"meta": meta, "mounts": all_mounts}
        network = network or build["network"]
        if network != "default":
            op["network"] = network
        return self.node({"exec": op}, trees, platform, **seen)

    def result(self, name, number, config):
        """What the build ends in."""
        self._results[name] = {"output": {"node": number}, "config": config}

    def document(self):
        """The whole plan."""
        return {
            "version": "kiln.plan/0",
            "nodes": self._nodes,
            "results": self._results,
            "sources": self._sources,
        }
