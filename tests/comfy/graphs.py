"""The workflow of the pack as an API prompt, and small changes of it."""

from __future__ import annotations

import json
from pathlib import Path

WORKFLOW = Path(__file__).resolve().parents[2] / "workflows" / "prompt_to_story.json"
PROBE_PACK = Path(__file__).parent / "probe_pack"
CONTROL = {"fixed", "increment", "decrement", "randomize"}  # the page's own companion of seed widgets


def api_prompt(workflow: dict, object_info: dict) -> dict:
    """What the page sends for this workflow: widget values by input name, links as [node, slot]."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] not in object_info:
            continue  # notes
        info = object_info[node["type"]]
        inputs = {socket["name"]: sources[socket["link"]] for socket in node["inputs"] if socket["link"] is not None}
        values = iter(node["widgets_values"])
        for group in ("required", "optional"):
            for name in info["input_order"].get(group, []):
                kind, options = (info["input"][group][name] + [{}])[:2]
                if not (isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")):
                    continue
                inputs.setdefault(name, next(values))  # a wire counts, where one is
                if options.get("control_after_generate"):
                    control = next(values)
                    assert control in CONTROL, f"{node['type']}.{name} is followed by {control!r}, not by a seed control"
        assert next(values, None) is None, f"{node['type']} has more widget values than the node has widgets"
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def load_workflow() -> dict:
    return json.loads(WORKFLOW.read_text(encoding="utf-8"))


def ran(comfy, prompt: dict, workflow: dict | None = None, **how):
    """The run of a prompt that has to succeed."""
    run = comfy.run(prompt, workflow, **how)
    assert run.ended == "execution_success", run.end
    return run


def memory_probe(after: list, *classes: str) -> dict:
    """A node of probe_pack that looks at the memory once what it is wired to has run."""
    return {"class_type": "MemoryProbe", "inputs": {"after": after, "classes": " ".join(classes)}}


def node_of(prompt: dict, kind: str) -> str:
    """The id of the one node of a class."""
    (node_id,) = [node_id for node_id, node in prompt.items() if node["class_type"] == kind]
    return node_id
