"""The config tables of the stages `visualizer` and `dpcw`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from training.stages.twin_lora import TwinLoraSettings
from weaver_core.model.checkpoint import default_folder
from weaver_core.picturebook.world import HEROES, size_of

PICTURE_BOOK = "picture-book"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The twin; layers and head geometry come from the planner."""

    width: int = 384
    mlp_width: int = 1024
    patch: int = 2
    bridge: str = "linear"
    pooled_layers: tuple[int, ...] = (2, 5)
    reference_slots: int = 4  # references that can be told apart; a twin to start from gets them if it has none
    window_margin: int = 0  # tokens around a dense prompt that its window takes in
    window_images: int = 0  # of so many last images before a dense prompt the window holds the ViT tokens
    window_history: bool = False  # no window: all that the planner has read and written so far; for ablations, also of an `init`
    prediction: str = "clean"
    compile: bool = True  # fuses elementwise work of the blocks; needs a C++ compiler, costs a minute at the start


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Shares of the data until a fraction of the run is done."""

    until: float
    image_size: int | None = None  # pixels a side of a square picture in this phase, for a resolution that grows; else data.image_size
    t2i: float = 0.0
    si2i: float = 0.0
    mi2i: float = 0.0
    story: float = 0.0

    def shares(self) -> dict[str, float]:
        return {"t2i": self.t2i, "si2i": self.si2i, "mi2i": self.mi2i, "story": self.story}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    phases: tuple[Phase, ...] = ()  # of the picture-book world; not used with a source
    source: str | None = None  # a folder of your own pictures with captions, in place of the picture-book world
    batch_size: int = 32
    image_size: int = 128  # pixels a side of a square picture; world.SIZES, or buckets of a source, have other aspect ratios beside it
    max_aspect: float = 2.0  # of a source: the longest side of a bucket over the shortest; 1 = squares only
    held_out: float = 0.1  # of a source: share of the pictures that are only measured with
    cache: str = "runs/latents"  # of a source: folder of latents, which several runs may share
    aspects: dict[str, float] = field(default_factory=lambda: {"1:1": 1.0})  # shares of the batches; a batch has one size
    same_aspect: float = 0.7  # share of the batches whose references have the target's aspect ratio for sure, like a story's pages
    species: tuple[str, ...] = ()  # of the picture-book world: draws these heroes only; a smaller world is learned sooner
    two_heroes: float = 0.0  # share of the text-to-image shots that are sure to hold two heroes, who must not be mixed up
    drop_text: float = 0.1  # share of shots drawn without words: the text-free branch of guidance
    drop_references: float = 0.1  # share of shots whose references are hidden, each for itself

    def __post_init__(self):
        if self.batch_size < 1 or not 0 <= self.held_out <= 0.5 or self.max_aspect < 1:
            raise ValueError(f"data.batch_size is {self.batch_size}, held_out {self.held_out}, max_aspect {self.max_aspect}; "
                             "they must be at least 1, in [0, 0.5] and at least 1")
        if self.source is not None:
            return
        if not self.phases or self.phases[-1].until < 1:
            raise ValueError("data.phases must reach until = 1.0; add a last phase")
        if not self.aspects or min(self.aspects.values()) <= 0:
            raise ValueError(f"data.aspects is {self.aspects}; give every aspect ratio a share above 0, and leave out what is not to be learned")
        if unknown := set(self.species) - set(HEROES):
            raise ValueError(f"data.species names {', '.join(sorted(unknown))}; the picture-book world has {', '.join(HEROES)}")
        for phase in self.phases:
            self.sizes(phase)

    def phase(self, done: float) -> Phase:
        """The phase of a fraction of the run."""
        return next(p for p in self.phases if done < p.until or p is self.phases[-1])

    def sizes(self, phase: Phase | None = None) -> dict[str, tuple[int, int]]:
        """(width, height) in pixels per aspect ratio that is trained, at the end or in a phase. Raises ValueError for an unknown one."""
        side = phase.image_size if phase is not None and phase.image_size is not None else self.image_size
        return {aspect: size_of(aspect, side) for aspect in self.aspects}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSettings:
    time_mean: float = 0.6  # of the logit of the noise time; above 0 = more weight on noisy images
    time_std: float = 1.0
    figure_weight: float = 3.0  # of latents under a hero or a prop: they are small and matter most


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    count: int = 24  # pictures of each kind that the oracle reader reads at every evaluation
    gaps: int = 48  # held-out shots of each kind whose errors, and wrong-word and wrong-reference gaps, are measured then
    steps: int = 16
    text_guidance: float = 2.5
    reference_guidance: float = 1.5
    shift: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    base: str | None = None  # folder of a whole pair, or "picture-book" for the shipped one; its parts serve where the next three name none
    planner: str | None = None  # folder with planner/ and tokenizer/
    autoencoder: str | None = None  # folder of the exported autoencoder
    init: str | None = None  # folder of an exported twin to start from
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    lora: TwinLoraSettings = field(default_factory=TwinLoraSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    sample: SampleSettings = field(default_factory=SampleSettings)

    def __post_init__(self):
        if self.base is not None:
            pair = default_folder() if self.base == PICTURE_BOOK else Path(self.base)
            for name, place in (("planner", pair), ("autoencoder", pair / "vae"), ("init", pair / "visualizer")):
                if getattr(self, name) is None:
                    object.__setattr__(self, name, str(place))
        for name in ("planner", "autoencoder"):
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing: the key {name} names an export folder of an earlier run; or give base, a whole pair")
        if self.lora.rank and self.init is None:
            raise ValueError("lora.rank is set, but a LoRA needs a trained twin to add to; give init, or base, or lora.rank = 0")
