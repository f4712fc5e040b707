"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import pytest
from hypothesis import settings

# `make stress` asks for the second one. Deadlines would only measure how busy the machine is.
settings.register_profile("usual", max_examples=150, deadline=None)
settings.register_profile("stress", max_examples=5_000, deadline=None)
settings.load_profile("usual")


# Folders whose tests race real processes; the marker `clock` is for single tests that measure time.
RACING = ("browser", "comfy")


def pytest_collection_modifyitems(items):
    """A busy machine can spoil what depends on real time. Such a test is tried once more, and the last lines of the run name it."""
    for item in items:
        if item.path.parent.name in RACING or item.get_closest_marker("clock"):
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=2))


@pytest.fixture(scope="module")
def pair_folder(tmp_path_factory):
    """The folder of a tiny native pair with random weights; its parent is the module's own."""
    from tiny_pair import tiny_pair

    folder = tmp_path_factory.mktemp("pair") / "model"
    tiny_pair().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """One running ComfyUI with this pack for the whole session; comfy_process.py says which."""
    from comfy_process import ComfyProcess

    with ComfyProcess(tmp_path_factory.mktemp("comfyui")) as process:
        yield process
