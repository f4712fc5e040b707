"""The smallest planner and visualizer: pages of one colour each. With WEAVER_TEST_KILL_AT=n the process dies at its n-th drawing."""

from __future__ import annotations

import hashlib
import os
import signal
import sys

from PIL import Image

from weaver_core.evaluation.backends import generate
from weaver_core.evaluation.backends.library import LibraryBackend
from weaver_core.evaluation.run_folder import RunFolder
from weaver_core.request import RenderSettings
from weaver_core.visualizers import Capabilities


class FlatPlanner:
    max_images = None

    def write(self, request, history, *, options, cancel):
        if "nothing" in request.prompt:
            raise ValueError("the planner has nothing to say")
        yield f"# {request.prompt}\n"
        for number in range(options.num_images or 3):
            yield f"Page {number}. <imagine>{request.prompt}, page {number}, seed {options.seed}</imagine>\n"


class FlatVisualizer:
    capabilities = Capabilities(max_references=1, default_size=(32, 32), sizes=((32, 32),), min_side=32)
    fingerprint = "flat"

    def __init__(self):
        self.drawn = 0

    def render(self, shot, *, on_step, cancel):
        self.drawn += 1
        if self.drawn == int(os.environ.get("WEAVER_TEST_KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
        if "broken" in shot.prompt:
            raise RuntimeError("out of memory")
        digest = hashlib.sha256(f"{shot.prompt}/{shot.seed}/{shot.reference_keys}".encode()).digest()
        return Image.new("RGB", shot.size, tuple(digest[:3]))


def flat_backend(**how):
    how.setdefault("settings", RenderSettings(check_images=False))  # pages of one colour do look blank
    return LibraryBackend(FlatPlanner(), FlatVisualizer(), model="flat", **how)


if __name__ == "__main__":
    generate(RunFolder.open(sys.argv[1]), flat_backend())
