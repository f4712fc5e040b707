"""Which family a loaded model belongs to: by its class inside ComfyUI, and by file names where classes are shared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from . import GraphFamily, Link, ModelFacts, family_named

_WEIGHTS = re.compile(r"\.(safetensors|sft|gguf|ckpt|pt|pth|bin)\Z", re.IGNORECASE)
_PLAIN = {"BaseModel": "sd15", "SDXL": "sdxl", "SD3": "sd3", "Lumina2": "z-image", "Flux": "flux"}


def find_family(facts: ModelFacts, choice: str = "auto") -> tuple[GraphFamily, str]:
    """The family that was chosen, or that the model belongs to; and a sentence for the user, or ""."""
    if choice != "auto":
        return family_named(choice), ""
    if name := _family_name(facts):
        family = family_named(name)
        if name == "qwen-image-edit-2509" and not facts.says("2509"):
            one = replace(family.capabilities, max_references=1)  # it was trained on a single picture
            return replace(family, capabilities=one), (
                "the model's files say neither 2509 nor 2511, so it is taken for the first Qwen-Image-Edit: drawn as "
                f"{family.title}, with one reference for an image. If it is one of those two, choose that family"
            )
        return family, ""
    return family_named("text-to-image"), (
        f"no model family is known for this model ({facts.kind or 'unknown'}); it draws from words alone, without "
        "references. If it is one of the families offered, choose that one"
    )


def _family_name(facts: ModelFacts) -> str:
    kind = facts.kind
    if kind.startswith("QwenImage21") or facts.says("qwen_image_2.1"):
        return "qwen-image-2.1"
    if kind == "QwenImage":
        is_edit = facts.says("edit")
        if facts.config.get("default_ref_method") == "index_timestep_zero" or (is_edit and facts.says("2511")):
            return "qwen-image-edit-2511"
        return "qwen-image-edit-2509" if is_edit else "qwen-image"
    if kind == "Flux2":
        # Only dev has an input for distilled guidance; the kinds of Klein differ in nothing but their weights.
        if facts.config.get("guidance_embed", not facts.says("klein")):
            return "flux2-dev"
        if facts.says("_kv"):
            return "flux2-klein-kv"
        return "flux2-klein-base" if facts.says("base") else "flux2-klein"
    if kind == "Flux" and facts.says("kontext"):
        return "flux-kontext"
    return _PLAIN.get(kind, "")


# ---- what stands before a link


def files_before(nodes: Callable[[str], Mapping], link: Link) -> tuple[str, ...]:
    """Names of weights in the inputs of the nodes before a link: what a MODEL was loaded from, and its LoRAs.

    nodes   node id -> {"class_type", "inputs"}, as in an API prompt
    """
    found: dict[str, None] = {}
    for node in _before(nodes, link):
        for value in node["inputs"].values():
            if isinstance(value, str) and _WEIGHTS.search(value):
                found.setdefault(re.split(r"[/\\]", value)[-1])
    return tuple(found)


def digest_before(nodes: Callable[[str], Mapping], *links: Link, stamp: Callable[[str], str] = lambda name: "") -> str:
    """16 hex digits that change when a node before one of the links changes, or one of its inputs; never with node ids.

    stamp   name of a weights file, as loaders are given it -> a text that changes with the file
    """
    hashes: dict[str, str] = {}

    def digest(node_id: str) -> str:
        if node_id not in hashes:
            node = nodes(node_id)
            facts = {
                name: [digest(value[0]), value[1]] if is_link(value) else stamped(value)
                for name, value in sorted(node["inputs"].items())
            }
            text = json.dumps([node["class_type"], facts], default=str)
            hashes[node_id] = hashlib.sha256(text.encode()).hexdigest()
        return hashes[node_id]

    def stamped(value: object) -> object:
        is_file = isinstance(value, str) and _WEIGHTS.search(value)
        return [value, mark] if is_file and (mark := stamp(value)) else value

    parts = [[digest(link[0]), link[1]] for link in links]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def is_link(value: object) -> bool:
    """As ComfyUI tells links from values."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], (int, float))


def _before(nodes: Callable[[str], Mapping], link: Link) -> list[Mapping]:
    """The nodes before a link, nearest first."""
    seen: dict[str, Mapping] = {}
    waiting = [link[0]]
    while waiting:
        node_id = waiting.pop(0)
        if node_id not in seen:
            seen[node_id] = nodes(node_id)
            waiting += [value[0] for value in seen[node_id]["inputs"].values() if is_link(value)]
    return list(seen.values())
