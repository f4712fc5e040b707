"""What the tests of this folder share: the running ComfyUI's node list, and the pack's workflow."""

from __future__ import annotations

import copy

import pytest
from graphs import api_prompt, load_workflow


@pytest.fixture(scope="session")
def object_info(comfy) -> dict:
    return comfy.get("/object_info")


@pytest.fixture(scope="session")
def workflow() -> dict:
    return load_workflow()


@pytest.fixture
def prompt(workflow, object_info) -> dict:
    """The workflow as an API prompt, a fresh copy for every test."""
    return copy.deepcopy(api_prompt(workflow, object_info))


@pytest.fixture(scope="session")
def first_run(comfy, workflow, object_info):
    """The workflow run once, as it is shipped."""
    run = comfy.run(api_prompt(workflow, object_info), workflow)
    assert run.ended == "execution_success", run.end
    return run
