"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import pytest


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
