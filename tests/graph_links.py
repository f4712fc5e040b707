"""Checks an emitted graph against what node classes declare, as ComfyUI checks a prompt that a user sends."""

from __future__ import annotations

import json
from pathlib import Path

from weaver_core.visualizers.graph.detect import is_link
from weaver_core.visualizers.graph.nodes import DYNAMIC, choices_of

RECORDED = Path(__file__).parent / "core_nodes.json"
OUTSIDE = {"1": ["MODEL", "CLIP", "VAE"]}
NUMBERS = {"INT": int, "FLOAT": (int, float), "BOOLEAN": bool, "STRING": str}


def recorded_nodes() -> dict:
    """The core nodes that families use, as recent versions of ComfyUI declare them."""
    return json.loads(RECORDED.read_text(encoding="utf-8"))["nodes"]


def link_faults(graph: dict, catalogue: dict, outside: dict[str, list[str]] = OUTSIDE) -> list[str]:
    """What is wrong with a graph: unknown classes and inputs, inputs that are missing, links and values of the wrong type."""
    faults = []
    for node_id, node in graph.items():
        name = node["class_type"]
        if name not in catalogue:
            faults.append(f"{node_id}: no class {name}")
            continue
        groups = catalogue[name]["input"]
        required = groups.get("required", {})
        known = {**required, **groups.get("optional", {})}
        for key in required:
            if key not in node["inputs"] and required[key][0] not in DYNAMIC:
                faults.append(f"{node_id}: {name} lacks {key}")
        for key, value in node["inputs"].items():
            spec = known.get(key) or known.get(key.split(".")[0])
            if spec is None or ("." in key and spec[0] not in DYNAMIC):
                faults.append(f"{node_id}: {name} has no input {key}")
            elif "." in key:
                faults += _dotted_fault(node_id, key, value, spec)
            elif is_link(value):
                faults += _link_fault(graph, catalogue, outside, node_id, key, value, spec[0])
            elif choices := choices_of(spec):
                faults += [] if value in choices else [f"{node_id}: {key} is {value!r}, not one of {choices[:8]}"]
            elif spec[0] not in NUMBERS or not isinstance(value, NUMBERS[spec[0]]):
                faults.append(f"{node_id}: {key} is {value!r}, not {spec[0]}")
    return faults


def _dotted_fault(node_id, key, value, spec) -> list[str]:
    names = spec[1]["template"]["names"]
    return [] if key.split(".", 1)[1] in names and is_link(value) else [f"{node_id}: {key} is none of {names}"]


def _link_fault(graph, catalogue, outside, node_id, key, link, wanted) -> list[str]:
    source, slot = link
    if source in outside:
        types = outside[source]
    elif source in graph:
        types = catalogue[graph[source]["class_type"]]["output"]
    else:
        return [f"{node_id}: {key} comes from {source}, which is not there"]
    if slot >= len(types):
        return [f"{node_id}: {key} comes from output {slot} of {source}, which has {len(types)}"]
    return [] if types[slot] == wanted else [f"{node_id}: {key} is a {wanted} and gets a {types[slot]}"]
