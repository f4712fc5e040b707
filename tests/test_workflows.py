"""The shipped workflows keep to the format of ComfyUI's page (tests/workflow_schema.json states it), and their wires fit.

Where WORKFLOW_SCHEMA names a file with the published JSON schema (docs.comfy.org/specs/workflow_json_0.4), it is asked as well.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

REPOSITORY = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((REPOSITORY / "workflows").glob("*.json"))
SCHEMA = json.loads((REPOSITORY / "tests" / "workflow_schema.json").read_text(encoding="utf-8"))


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def faults(workflow: dict, schema: dict = SCHEMA) -> list[str]:
    return [f"{error.json_path}: {error.message[:120]}" for error in Draft7Validator(schema).iter_errors(workflow)]


def test_our_statement_of_the_format_is_a_schema():
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_keeps_to_the_format(path):
    assert faults(read(path)) == []
    if published := os.environ.get("WORKFLOW_SCHEMA"):
        assert faults(read(path), read(Path(published))) == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_ids_are_unique_wires_have_two_ends_and_run_forward(path):
    workflow = read(path)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}
    assert len(nodes) == len(workflow["nodes"]) and len(links) == len(workflow["links"])
    assert sorted(node["order"] for node in nodes.values()) == list(range(len(nodes)))
    for _, source, slot, target, socket, kind in links.values():
        assert nodes[source]["order"] < nodes[target]["order"], "the page would run them the other way round"
        assert nodes[source]["outputs"][slot]["type"] == kind == nodes[target]["inputs"][socket]["type"]
    at_inputs = [i["link"] for node in nodes.values() for i in node["inputs"] if i["link"] is not None]
    at_outputs = [link for node in nodes.values() for o in node["outputs"] for link in o["links"] or ()]
    assert sorted(at_inputs) == sorted(at_outputs) == sorted(links)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_workflow_has_an_id_of_its_own_explains_itself_and_rolls_no_seed(path):
    workflow = read(path)
    assert [other.stem for other in WORKFLOWS if read(other)["id"] == workflow["id"]] == [path.stem]
    assert any(node["type"] == "MarkdownNote" and node["widgets_values"][0].strip() for node in workflow["nodes"])
    assert not {"randomize", "increment", "decrement"} & {str(value) for node in workflow["nodes"] for value in node["widgets_values"]}


@pytest.mark.parametrize("change", [
    lambda w: w.pop("nodes"), lambda w: w.update(version=1), lambda w: w["nodes"][0].pop("pos"), lambda w: w["nodes"][0].update(pos=[1]),
    lambda w: w["nodes"][0].update(id="1"), lambda w: w["nodes"][0].update(mode=9), lambda w: w["links"][0].pop(),
    lambda w: w["links"][0].__setitem__(5, 7), lambda w: w["nodes"][1]["inputs"][0].pop("link"), lambda w: w.update(prompt={}),
])  # fmt: skip
def test_a_workflow_that_breaks_the_format_is_found(change):
    workflow = copy.deepcopy(read(REPOSITORY / "workflows" / "prompt_to_story.json"))
    change(workflow)
    assert faults(workflow) != []
