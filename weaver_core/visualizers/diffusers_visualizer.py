"""A visualizer on this machine: pipelines of diffusers that take references, from a folder or the hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Cancelled, InputError, WeaverError
from ..model.checkpoint import default_device, default_dtype
from ..out_of_memory import give_back, is_out_of_memory
from . import Shot
from .diffusers_families import REFERENCE_SIDE, drawing_of, usable_reference
from .diffusers_folder import Lora, find_pipeline, fingerprint_of
from .diffusers_loading import (
    build_pipeline,
    check_choices,
    fitting_offload,
    next_offload,
    place,
    wanted_memory,
    without_references,
)

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from . import OnStep


class NoMemoryLeft(WeaverError, MemoryError):
    """A picture does not fit, although weights wait elsewhere."""


class DiffusersVisualizer:
    """Draws shots with a pipeline of diffusers (diffusers_families.py says which). See `visualizers.Visualizer`.

    source          a folder with model_index.json, or a name on the Hugging Face hub
    loras           files (a text may be FILE:STRENGTH), all of them at once
    quantization    None, "nf4" or "int8": the transformer and the large text encoders
    offload         "auto", "none", "model" or "group" (diffusers_loading.OFFLOADS)
    device, dtype   None = the best device there is, and what it is fast in
    reference_side  references are made about so many pixels a side; fewer take less memory. Qwen-Image-Edit has its own

    The folder is checked now; weights are loaded with the first shot, or by `load`. `unload` gives their memory back, and the
    next shot loads them again. Where memory runs out, weights wait in main memory from then on, and `notes` says so: sentences
    about the last picture for the user.

    Raises   InputError for a source that cannot draw, ImportError (a sentence) for a missing extra
    """

    def __init__(
        self,
        source: str | Path,
        *,
        loras: Sequence[str | Path | Lora] = (),
        quantization: str | None = None,
        offload: str = "auto",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        reference_side: int = REFERENCE_SIDE,
    ):
        check_choices(quantization, offload)
        self.source, self.quantization, self.reference_side = str(source), quantization, reference_side
        self.loras = tuple(lora if isinstance(lora, Lora) else Lora.read(str(lora)) for lora in loras)
        self.device = _device(device)
        self.dtype = dtype or default_dtype(self.device)
        self._folder = find_pipeline(source)
        files = [self._folder.name, *(lora.path.name for lora in self.loras)]
        self._drawing = drawing_of(self._folder.index, self._folder.transformer, files)
        self.title, self.capabilities = self._drawing.title, self._drawing.capabilities
        settings = [quantization, str(self.dtype), reference_side]
        self.fingerprint = f"diffusers-{self._drawing.graph.name}-{fingerprint_of(self._folder, self.loras, settings)}"
        self.offload = offload  # "auto" until the weights are loaded
        self.notes: list[str] = []
        self._pipeline = None
        self._is_placed = self._has_drawn = False

    def __repr__(self) -> str:
        return f"DiffusersVisualizer({self.source!r})"

    @property
    def is_loaded(self) -> bool:
        return self._pipeline is not None

    def needed_memory(self) -> int:
        """Bytes at the highest point of a drawing that it would like to have on its device (estimated, see memory.py)."""
        return wanted_memory(self._folder, self.offload, self.capabilities, self.quantization, self.dtype)

    def load(self) -> DiffusersVisualizer:
        """Loads the weights. InputError when the files do not fit together."""
        import torch

        # Hosts run in inference mode; weights that are made in it could not be moved outside of it.
        with torch.inference_mode(False), torch.no_grad():
            if self._pipeline is None:
                if self.offload == "auto":
                    self.offload = fitting_offload(self._folder, self.capabilities, self.quantization, self.device, self.dtype)
                self._pipeline = build_pipeline(
                    self._folder, self._drawing, self.loras, self.quantization, self.device, self.dtype)
            if not self._is_placed:
                place(self._pipeline, self.offload, self.device)
                self._is_placed = True
        return self

    def unload(self) -> None:
        """Gives the weights' memory back."""
        self._pipeline, self._is_placed = None, False
        give_back()

    def render(self, shot: Shot, *, on_step: OnStep, cancel: Callable[[], bool]) -> Image:
        """One image. Raises Cancelled at the step after `cancel()` turns true, NoMemoryLeft where nothing can be spared."""
        if self._has_drawn:
            self.notes.clear()  # what was said of an attempt that failed holds for the next one too
            self._has_drawn = False
        while True:
            try:
                image = self._draw(shot, on_step, cancel)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            else:
                self._has_drawn = True
                return image
            # Not before the error is gone: it holds what was computed so far.
            give_back()
            self._take_less(shot)

    def _take_less(self, shot: Shot) -> None:
        """After memory ran out: speed is given up. What else can be, references, is for the loop to say (painter.py)."""
        offload = next_offload(self.offload, self.quantization)
        if offload is None:
            saver = "a smaller model" if self.quantization == "nf4" else "quantization nf4"
            width, height = shot.size
            raise NoMemoryLeft(f"{self._folder.name} does not fit into the memory of {self.device} with {width} x {height} pixels and "
                               f"{len(shot.references)} references; take a smaller size, or {saver}")  # fmt: skip
        self.offload, self._is_placed = offload, False
        self.notes.append(f"the memory is full; weights wait in main memory from here on (offload {offload}), which is slower")

    def _draw(self, shot: Shot, on_step: OnStep, cancel: Callable[[], bool]) -> Image:
        import torch

        _check(cancel)
        self.load()
        _check(cancel)
        pipeline = self._pipeline if shot.references else without_references(self._pipeline, self._drawing)
        references = [usable_reference(image, self.reference_side) for image in shot.references]
        arguments = self._drawing.arguments(shot, references, self.reference_side)

        def step(pipe, index: int, timestep, tensors: dict) -> dict:
            _check(cancel)
            on_step(index + 1, pipe.num_timesteps, None)
            return tensors

        # A generator of the CPU's: a seed begins with the same noise on every device.
        generator = torch.Generator().manual_seed(shot.seed % 2**63)
        try:
            with torch.inference_mode(False), torch.no_grad():
                drawn = pipeline(**arguments, generator=generator, callback_on_step_end=step).images[0]
        finally:
            self._pipeline.maybe_free_model_hooks()  # an exception keeps the pipeline from doing it
        return drawn.convert("RGB")


def _device(choice) -> torch.device:
    import torch

    try:
        device = default_device() if choice is None else torch.device(choice)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {str(choice)[:40]!r} cannot be used here: {str(error).splitlines()[0]}. Try cpu") from None
    return device


def _check(cancel: Callable[[], bool]) -> None:
    if cancel():
        raise Cancelled()
