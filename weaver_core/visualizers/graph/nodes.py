"""The graph that families add nodes to, and how it is fitted to the core that is going to run it.

A catalogue is what ComfyUI tells about its node classes under /object_info: {class: {"input": {"required": {name: [type,
options]}, "optional": ...}, "output": [types]}}. Nodes of an expansion are neither validated nor given defaults by ComfyUI,
so both happen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...errors import InputError
from . import GraphFamily, Link, Need

DYNAMIC = ("COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3")  # inputs that are set under dotted names: images.image_1


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    class_type: str
    inputs: dict

    def out(self, index: int) -> Link:
        return [self.id, index]


class NodeGraph:
    """Nodes by id, in the order in which they were added."""

    def __init__(self, prefix: str = ""):
        self._prefix = prefix
        self._nodes: dict[str, Node] = {}

    def node(self, class_type: str, id: str, **inputs) -> Node:
        """A new node, or the one that has this id already; ValueError when that one is another."""
        node = Node(self._prefix + id, class_type, {name: value for name, value in inputs.items() if value is not None})
        known = self._nodes.setdefault(node.id, node)
        if known != node:
            raise ValueError(f"two different nodes are called {node.id}: {known} and {node}")
        return known

    def finalize(self) -> dict[str, dict]:
        """As an API prompt."""
        return {node.id: {"class_type": node.class_type, "inputs": dict(node.inputs)} for node in self._nodes.values()}


# ---- the core at hand


def check_needs(family: GraphFamily, catalogue: Mapping[str, dict], version: str) -> None:
    """InputError in one sentence when the core lacks what the family needs."""
    for need in family.needs:
        if not _has(need, catalogue):
            what = f"the node {need.node}" if not need.choice else f"{need.choice!r} of the node {need.node}"
            raise InputError(
                f"{family.title} needs {what}, which ComfyUI has since version {need.since}; this is "
                f"{version or 'an older one'}: update ComfyUI, or choose another model family"
            )


def fitted_graph(graph: Mapping[str, dict], catalogue: Mapping[str, dict]) -> dict[str, dict]:
    """The graph with what this core's nodes want besides: defaults for required inputs that were not set.

    Inputs that a class does not have in this version are left out. InputError when a class is unknown, or wants an input
    for which it gives no default.
    """
    fitted = {}
    for node_id, node in graph.items():
        name = node["class_type"]
        if name not in catalogue:
            raise InputError(f"this ComfyUI has no node {name}; update ComfyUI, or choose another model family")
        groups = catalogue[name]["input"]
        required, known = groups.get("required", {}), {**groups.get("required", {}), **groups.get("optional", {})}
        inputs = {key: value for key, value in node["inputs"].items() if key.split(".")[0] in known}
        for key, spec in required.items():
            if key in inputs or any(given.startswith(f"{key}.") for given in inputs) or spec[0] in DYNAMIC:
                continue
            inputs[key] = _default(name, key, spec)
        fitted[node_id] = {"class_type": name, "inputs": inputs}
    return fitted


def choices_of(spec: Iterable) -> list | None:
    """The choices of a combo input, in both of the spellings that ComfyUI has had; None when it is none."""
    kind, options = (list(spec) + [{}])[:2]
    if isinstance(kind, (list, tuple)):
        return list(kind)
    return list(options.get("options", ())) if kind == "COMBO" else None


def _has(need: Need, catalogue: Mapping[str, dict]) -> bool:
    if need.node not in catalogue:
        return False
    if not need.choice:
        return True
    groups = catalogue[need.node]["input"]
    spec = {**groups.get("required", {}), **groups.get("optional", {})}.get(need.input, ())
    return need.choice in (choices_of(spec) or ())


def _default(name: str, key: str, spec: Iterable):
    options = (list(spec) + [{}])[1]
    if "default" in options:
        return options["default"]
    if choices := choices_of(spec):
        return choices[0]
    raise InputError(
        f"this ComfyUI's node {name} wants {key!r}, which this version of the pack does not know; update the pack"
    )
