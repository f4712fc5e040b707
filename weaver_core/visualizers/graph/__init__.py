"""Drawing with the models that ComfyUI has loaded: a family of models is a pure function that emits a graph of core nodes.

A family draws one shot by adding nodes to a graph; whoever runs ComfyUI hands that graph over as a node expansion. Nothing
here needs torch or ComfyUI, so every family can be looked at, and tested, without either.

    qwen.py    Qwen-Image-Edit 2509 and 2511, Qwen-Image-2.1
    flux.py    Flux.2 Klein (distilled, base, KV) and dev, Flux.1 Kontext
    plain.py   text-to-image without references: Qwen-Image, Flux.1, Z-Image, SD3, SDXL, SD 1.5, and what is unknown
    detect.py  which family a loaded model belongs to
    nodes.py   the graph, and what the core at hand must and may be told
    shots.py   from a plan to shots: references, sizes, seeds, prompts; which pages are there already
    attempts.py   a page that looks wrong, or that a critic does not like, is drawn again

The graphs and their numbers are those of ComfyUI's own templates (package comfyui-workflow-templates-json 0.1.123), unless a
comment says "our choice".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...errors import InputError
from .. import Capabilities

Link = list  # [node id, number of the output], as ComfyUI writes links


class GraphNode(Protocol):
    def out(self, index: int) -> Link: ...


class Graph(Protocol):
    """What families add nodes to: `nodes.NodeGraph`, or ComfyUI's own GraphBuilder.

    The same id again gives the node that is there: pages share the model's patches and their references' latents.
    """

    def node(self, class_type: str, id: str, **inputs) -> GraphNode: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a family samples.

    cfg        guidance by two passes; 1 = one pass without it
    shift      time shift of flow models; None = as the model says itself
    guidance   guidance that the model was distilled to follow in one pass; None = it has none
    sigmas     fixed noise levels, which then stand for steps and scheduler; "" = the scheduler's
    """

    steps: int
    cfg: float
    sampler: str = "euler"
    scheduler: str = "simple"
    shift: float | None = None
    guidance: float | None = None
    sigmas: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A core node class (or one choice of one of its inputs), and the first ComfyUI version that has it."""

    node: str
    since: str
    input: str = ""
    choice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReference:
    """One reference of a shot: a link to an IMAGE, a name unique in the graph, and whom it is there for (slots.py)."""

    name: str
    image: Link
    member: str = ""
    others: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    is_user: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphShot:
    """Everything a family is told about one image. The family can draw the size; ids of the shot's own nodes begin with `id`."""

    id: str
    prompt: str
    size: tuple[int, int]
    seed: int
    sampling: Sampling
    references: tuple[SlotReference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What can be known of a loaded model without touching its weights.

    kind     class name of the model inside MODEL, such as "Flux2"
    files    names of weights that it was loaded from, LoRAs included
    config   what ComfyUI found out about its architecture
    """

    kind: str = ""
    files: tuple[str, ...] = ()
    config: dict = field(default_factory=dict)

    def says(self, *words: str) -> bool:
        """Whether a file name holds one of these words (small letters; '-', '_', '.' and ' ' count as the same)."""
        names = " ".join(_plain(name) for name in self.files)
        return any(_plain(word) in names for word in words)


class GraphFamily(Protocol):
    """One family of models.

    name           what users choose it by
    title          how messages call it
    needs          what the core must have
    emit           adds the nodes that draw a shot, and returns the link to its IMAGE
    sampling       its defaults for a loaded model (Lightning and Turbo variants are told by file names)
    """

    name: str
    title: str
    capabilities: Capabilities
    needs: Sequence[Need]

    def sampling(self, facts: ModelFacts) -> Sampling: ...
    def emit(self, graph: Graph, model: Link, clip: Link, vae: Link, shot: GraphShot) -> Link: ...


def families() -> dict[str, GraphFamily]:
    """Every family by its name, in the order in which they are offered."""
    from .flux import Flux2Dev, Flux2Klein, FluxKontext
    from .plain import PLAIN_FAMILIES
    from .qwen import QwenImage21, QwenImageEdit2509, QwenImageEdit2511

    found = [
        QwenImage21(), QwenImageEdit2511(), QwenImageEdit2509(),
        Flux2Klein(), Flux2Klein(kind="base"), Flux2Klein(kind="kv"), Flux2Dev(), FluxKontext(),
        *PLAIN_FAMILIES,
    ]  # fmt: skip
    return {family.name: family for family in found}


def family_named(name: str) -> GraphFamily:
    """InputError names those there are."""
    known = families()
    if name not in known:
        raise InputError(f"there is no model family {name!r}; choose auto or one of {', '.join(known)}")
    return known[name]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_").replace(" ", "_")
