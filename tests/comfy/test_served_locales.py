"""The node texts as a real ComfyUI gives them to its page."""

from __future__ import annotations

import json

import pytest
from comfy_process import REPOSITORY


@pytest.fixture(scope="module")
def served(comfy) -> dict:
    return comfy.get("/i18n")


@pytest.mark.parametrize("language", ["en", "zh", "ja", "fr", "de"])
def test_every_language_is_served(served, language):
    ours = json.loads((REPOSITORY / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert {node: served[language]["nodeDefs"].get(node) for node in ours} == ours


def test_english_is_what_the_nodes_say_to_the_page(served, object_info):
    for node, info in ((name, info) for name, info in object_info.items() if name.startswith("Weaver")):
        texts = served["en"]["nodeDefs"][node]
        inputs = {name: spec for group in ("required", "optional") for name, spec in info["input"].get(group, {}).items()}
        assert (texts["display_name"], texts["description"]) == (info["display_name"], info["description"])
        assert {name: text["tooltip"] for name, text in texts["inputs"].items()} == {
            name: spec[1]["tooltip"] for name, spec in inputs.items()
        }
        assert [text["name"] for text in texts["outputs"].values()] == info["output_name"]
        assert [text["tooltip"] for text in texts["outputs"].values()] == info["output_tooltips"]
