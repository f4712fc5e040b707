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


def pytest_terminal_summary(terminalreporter):
    """Which families of image models were drawn, and which could only be checked on paper, whoever reads the last lines."""
    told = sorted(
        value for report in terminalreporter.getreports("passed") for name, value in report.user_properties if name == "family"
    )
    if told:
        terminalreporter.section("families of image models")
    by_how = {how: [line.rpartition(": ")[2] for line in told if line.startswith(how)] for how in dict.fromkeys(line.rpartition(": ")[0] for line in told)}
    for how, names in by_how.items():
        terminalreporter.write_line(f"{how}: {', '.join(names)}")
