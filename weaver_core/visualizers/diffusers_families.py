"""Which pipelines of diffusers can draw stories, and how each wants to be called: data and pure functions, without torch.

Sizes, reference budgets, steps and guidance are those of the same model's graph family (graph/), so that a story comes out
alike on both roads. What is called how was read in diffusers 0.42.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import InputError
from . import Capabilities, Shot
from .graph import GraphFamily, ModelFacts, Sampling, family_named
from .slots import Slot, side_by_side, with_slots

if TYPE_CHECKING:
    from PIL.Image import Image

REFERENCE_SIDE = 1024  # references have about so many pixels a side, squared: what all of these models were trained with
MIN_REFERENCE_SIDE, MAX_REFERENCE_ASPECT = 64, 8  # what Flux.2 demands; others want no more


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusersFamily:
    """One pipeline class.

    pipeline    its name in diffusers, which model_index.json says
    graph       configs of (pipeline, transformer) -> the graph family whose numbers it has
    spell       prompt and slots -> the prompt that names what is in which reference
    call        (shot, references, reference side, configs) -> the arguments that this class has and others have not
    without     a class that draws without references from the same parts, where this one cannot; "" = it can
    """

    pipeline: str
    graph: Callable[[Mapping, Mapping], str]
    spell: Callable[[str, Sequence[Slot]], str]
    call: Callable[[Shot, Sequence[Image], int, Mapping], dict]
    without: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How a loaded folder draws: its family, the graph family with the same numbers, and their sampling for its files."""

    family: DiffusersFamily
    graph: GraphFamily
    sampling: Sampling
    index: Mapping

    @property
    def title(self) -> str:
        return self.graph.title

    @property
    def capabilities(self) -> Capabilities:
        guidance = self.sampling.cfg if self.sampling.guidance is None else self.sampling.guidance
        return replace(self.graph.capabilities, steps=len(fixed_sigmas(self.index)) or self.sampling.steps, guidance=guidance)

    def arguments(self, shot: Shot, references: Sequence[Image], side: int) -> dict:
        """What the pipeline is called with, but for generator and callback. `references` and `shot.slots` go together."""
        width, height = shot.size
        common = {"prompt": self.family.spell(shot.prompt, shot.slots), "width": width, "height": height,
                  "num_inference_steps": shot.steps}  # fmt: skip
        return common | self.family.call(shot, references, side, self.index)


def drawing_of(index: Mapping, transformer: Mapping, files: Sequence[str]) -> Drawing:
    """How a pipeline draws. InputError for a class that is not offered.

    index, transformer   model_index.json, and the transformer's config.json
    files                names of the folder and of LoRAs, by which Lightning and Turbo variants are known
    """
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in FAMILIES:
        raise InputError(f"a {str(name)[:80]} cannot be used here; choose a model of one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    graph = family_named(family.graph(index, transformer))
    return Drawing(family=family, graph=graph, sampling=graph.sampling(ModelFacts(files=tuple(files))), index=index)


def fixed_sigmas(index: Mapping) -> list[float]:
    """The noise levels that a Turbo model was made for; none where the scheduler decides."""
    sigmas = index.get("sample_sigmas")
    return [float(sigma) for sigma in sigmas] if isinstance(sigmas, list) else []


def usable_reference(image: Image, side: int = REFERENCE_SIDE) -> Image:
    """A reference of at most side x side pixels, neither too small nor too long for any of the models."""
    from PIL import Image as Pillow

    width, height = image.size
    longest = MAX_REFERENCE_ASPECT * min(width, height)
    if max(width, height) > longest:
        sheet = Pillow.new("RGB", (max(width, -(-height // MAX_REFERENCE_ASPECT)), max(height, -(-width // MAX_REFERENCE_ASPECT))), "white")
        sheet.paste(image, ((sheet.width - width) // 2, (sheet.height - height) // 2))
        image, (width, height) = sheet, sheet.size
    scale = max(min(1.0, side / (width * height) ** 0.5), MIN_REFERENCE_SIDE / min(width, height))
    return image if scale == 1 else image.resize((round(width * scale), round(height * scale)), Pillow.Resampling.LANCZOS)


# ---- how each class is called


def _true_guidance(shot: Shot) -> dict:
    """Guidance by a second pass, which needs a negative prompt."""
    return {"true_cfg_scale": shot.guidance, **({"negative_prompt": " "} if shot.guidance > 1 else {})}


def _call_edit_plus(shot: Shot, references: Sequence[Image], side: int, index: Mapping) -> dict:
    """It brings references to a megapixel itself, whatever `side` is."""
    return {**_true_guidance(shot), **({"image": list(references)} if references else {})}


def _call_qwen_21(shot: Shot, references: Sequence[Image], side: int, index: Mapping) -> dict:
    found = {**_true_guidance(shot), "image": list(references) or None, "output_resolution": side}
    if len(fixed_sigmas(index)) not in (0, shot.steps):  # the user wants another number of steps than it was made for
        found["sigmas"] = [1 - step / shot.steps for step in range(shot.steps)]
    return found


def _call_flux2(shot: Shot, references: Sequence[Image], side: int, index: Mapping) -> dict:
    return {"guidance_scale": shot.guidance, "image": list(references) or None}


def _call_kontext(shot: Shot, references: Sequence[Image], side: int, index: Mapping) -> dict:
    width, height = shot.size
    snaps = side == REFERENCE_SIDE  # to one of the sizes that it was trained with, all of about a megapixel
    return {"guidance_scale": shot.guidance, "image": _stitched(references), "max_area": width * height, "_auto_resize": snaps}


def _stitched(references: Sequence[Image]) -> Image | None:
    """One picture out of all: side by side, as high as the first."""
    from PIL import Image as Pillow

    if len(references) < 2:
        return references[0] if references else None
    height = references[0].height
    row = [image.resize((max(1, round(image.width * height / image.height)), height), Pillow.Resampling.LANCZOS) for image in references]
    sheet = Pillow.new("RGB", (sum(image.width for image in row), height), "white")
    left = 0
    for image in row:
        sheet.paste(image, (left, 0))
        left += image.width
    return sheet


def _numbered(label: str) -> Callable[[str, Sequence[Slot]], str]:
    return lambda prompt, slots: with_slots(prompt, slots, label)


FAMILIES = {
    family.pipeline: family
    for family in (
        DiffusersFamily(
            pipeline="QwenImage21Pipeline", graph=lambda index, transformer: "qwen-image-2.1", spell=_numbered("<image{}>"),
            call=_call_qwen_21,
        ),
        DiffusersFamily(
            pipeline="QwenImageEditPlusPipeline", spell=_numbered("Picture {}"), call=_call_edit_plus, without="QwenImagePipeline",
            graph=lambda index, transformer: f"qwen-image-edit-{'2511' if transformer.get('zero_cond_t') else '2509'}",
        ),
        DiffusersFamily(
            pipeline="Flux2KleinPipeline", spell=_numbered("image {}"), call=_call_flux2,
            graph=lambda index, transformer: "flux2-klein" if index.get("is_distilled") else "flux2-klein-base",
        ),
        DiffusersFamily(
            pipeline="Flux2Pipeline", graph=lambda index, transformer: "flux2-dev", spell=_numbered("image {}"), call=_call_flux2,
        ),
        DiffusersFamily(
            pipeline="FluxKontextPipeline", graph=lambda index, transformer: "flux-kontext", spell=side_by_side, call=_call_kontext,
        ),
    )
}  # fmt: skip
