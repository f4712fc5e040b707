"""Chat models of models/LLM in ComfyUI's care: it makes room for them, may take them off the device, and brings them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..weaver_core.errors import InputError
from ..weaver_core.memory import estimate_planner
from ..weaver_core.planners.transformers_planner import TransformersPlanner
from . import host

NO_MODEL = "(none in models/LLM)"
WEIGHTS = ("as stored", "nf4")

_kept: dict[tuple, HostedPlanner] = {}  # at most one: what "keep loaded" keeps


class HostedPlanner:
    """A chat model and what ComfyUI's memory management moves. `load` before each use: it may have left the device."""

    def __init__(self, name: str, weights: str):
        import torch

        self.device = host.device_for("auto")
        (self._path, lora), self._is_nf4 = host.planner_and_lora(name), weights == "nf4"
        # 4-bit weights are packed on the device that they are for; others wait in main memory until they are called.
        self.planner = TransformersPlanner(
            self._path,
            device=self.device if self._is_nf4 else host.offload_device_for(self.device),
            dtype=host.dtype_for("auto", self.device, torch.float32),
            quantization="nf4" if self._is_nf4 else None,
            lora=lora,
            name=name,
        )
        self._weights, self._working = self._memory()
        self._patcher = None

    def load(self) -> None:
        import torch

        if self._patcher is None:
            if self._is_nf4:
                host.make_room(self._weights + self._working, self.device)
            self._patcher = host.patcher_of({"planner": self.planner.model}, self.device, "WeaverPlanner")
        # ComfyUI runs nodes in inference mode; weights moved in it could not be used on the thread that generates.
        with torch.inference_mode(False):
            host.bring_to_device(self._patcher, self._working)

    def unload(self) -> None:
        """Leaves ComfyUI's care and memory."""
        self._patcher = None
        self.planner.unload()
        host.give_back_memory()

    def _memory(self) -> tuple[int, int]:
        """Bytes of its weights, and of its work; 0 where the folder does not tell."""
        try:
            estimate = estimate_planner(self._path, format="nf4" if self._is_nf4 else "bfloat16")
        except InputError:
            return 0, 0
        return estimate.weights, estimate.cache + estimate.working


@contextmanager
def hosted_planner(name: str, weights: str, *, keeps: bool) -> Iterator[HostedPlanner]:
    """The model behind a name: the kept one if it is this, else a new one, which takes the place of the kept one.

    keeps   it stays when the `with` ends; otherwise nothing of it does
    """
    key = (name, weights, stamp(name))
    hosted = _kept.pop(key, None)
    for other in _kept.values():
        other.unload()
    _kept.clear()
    hosted = hosted or HostedPlanner(name, weights)
    try:
        yield hosted
    finally:
        if keeps:
            _kept[key] = hosted
        else:
            hosted.unload()


def stamp(name: str) -> str:
    """Changes when a file of the model, or of its LoRA, does. InputError for a name that is not offered."""
    files = []
    for path in filter(None, host.planner_and_lora(name)):
        files += sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return host.stamp(files)


def stamp_of(name: str) -> str:
    """The same for a name that a node was given; "" for one that is not offered (`hosted_planner` says what is wrong)."""
    try:
        return stamp(name)
    except InputError:
        return ""
