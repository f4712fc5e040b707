"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import pytest
from hypothesis import settings

# `make stress` asks for the second one. Deadlines would only measure how busy the machine is.
settings.register_profile("usual", max_examples=150, deadline=None)
settings.register_profile("stress", max_examples=5_000, deadline=None)
settings.load_profile("usual")


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """One running ComfyUI with this pack for the whole session; comfy_process.py says which."""
    from comfy_process import ComfyProcess

    process = ComfyProcess(tmp_path_factory.mktemp("comfyui"))
    process.start()
    try:
        yield process
    finally:
        process.stop()
