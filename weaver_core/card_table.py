"""What fits on a graphics card of a given size: for models that users know, from their numbers of weights.

The numbers are those of the models' published configs, counted on the meta device (a test counts them again). What comes out
is an estimate, never a measurement: cards are also used by the screen, and hosts move weights in ways of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from .memory import (
    DECODE_BYTES_PER_PIXEL,
    GIB,
    PLAN_TOKENS,
    Estimate,
    Weights,
    activation_bytes,
    drawing_bytes,
)

CARD_SIZES = (8, 12, 16, 24)  # GB
RESERVED = 1 * GIB  # screen, driver, fragments (our choice)
REFERENCES = 2  # a hero and a place
SIZE = (1024, 1024)
PROMPT_TOKENS = 1024  # a dense prompt and what its encoder sees of the references
AUTOENCODER = GIB // 4  # its weights: 84 to 340 million values in the families below
SHORT = {"bfloat16": "bf16", "fp8": "fp8", "q4": "Q4", "nf4": "NF4"}
ADVICE = {
    "bf16": "in 16 bits, as most models are published",
    "fp8": "the file whose name says fp8 (or int8); GGUF Q8 and --quantize int8 are as large",
    "Q4": "a GGUF file (Q4_K), through a GGUF loader node; Q5 and Q6 where there is room; --quantize nf4 is as large",
    "NF4": "--planner-4bit, or 4-bit in the planner node (bitsandbytes)",
    "offload": "larger than the card even in 4 bits: ComfyUI keeps weights in main memory, much slower",
    "-": "does not fit: a server (--planner-url), a smaller model, or the CPU",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPlanner:
    """A chat model. cache = key/value bytes per token in 16 bits; width = values per token."""

    title: str
    weights: Weights
    cache: int
    width: int
    formats: tuple[str, ...] = ("bfloat16", "nf4")
    otherwise: str = "-"

    def estimate(self, format: str) -> Estimate:
        return Estimate(
            weights=self.weights.bytes_as(format), cache=PLAN_TOKENS * self.cache,
            working=activation_bytes(PLAN_TOKENS, self.width),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownImageModel:
    """An image model in ComfyUI, where text encoder, model and autoencoder are on the card one after the other.

    families   names of graph families (visualizers/graph)
    encoder    the largest text encoder
    """

    title: str
    families: tuple[str, ...]
    weights: Weights
    encoder: Weights
    width: int
    references: int = REFERENCES
    size: tuple[int, int] = SIZE
    formats: tuple[str, ...] = ("bfloat16", "fp8", "q4")
    otherwise: str = "offload"

    def estimate(self, format: str) -> Estimate:
        """The highest of the three stages."""
        stages = (
            Estimate(weights=self.encoder.bytes_as(format), working=activation_bytes(PROMPT_TOKENS, self.width)),
            Estimate(weights=self.weights.bytes_as(format), working=drawing_bytes(self.size, self.width, self.references)),
            Estimate(weights=AUTOENCODER, working=self.size[0] * self.size[1] * DECODE_BYTES_PER_PIXEL),
        )
        return max(stages, key=lambda stage: stage.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a model goes onto a card: `how` is a key of ADVICE. The estimate is of the best format that fits, else of the last."""

    how: str
    estimate: Estimate

    @property
    def fits(self) -> bool:
        return self.how not in ("offload", "-")


def fit(model: KnownPlanner | KnownImageModel, vram: int) -> Fit:
    """The best format in which a model fits into so many bytes of a card."""
    for format in model.formats:
        estimate = model.estimate(format)
        if estimate.total <= vram - RESERVED:
            return Fit(how=SHORT[format], estimate=estimate)
    return Fit(how=model.otherwise, estimate=estimate)


def _values(num_values: int, num_linear: int) -> Weights:
    return Weights(num_values=num_values, num_linear=num_linear)


QWEN3_4B = _values(4_022_468_096, 3_633_315_840)
QWEN3_8B = _values(8_190_735_360, 6_945_767_424)
QWEN3_VL_4B = _values(4_437_815_808, 3_633_315_840)
QWEN3_VL_8B = _values(8_767_123_696, 6_945_767_424)
QWEN2_5_VL_7B = _values(8_292_166_656, 6_525_288_448)
MISTRAL_SMALL_3 = _values(23_572_403_200, 22_229_811_200)
T5_XXL = _values(4_762_310_656, 4_630_511_616)
CLIP_G = _values(694_659_840, 630_784_000)
QWEN_IMAGE = _values(20_430_401_088, 20_424_818_688)
QWEN_IMAGE_2_1 = _values(7_115_124_736, 7_115_112_448)
FLUX2_DEV = _values(32_223_281_152, 32_223_264_768)
KLEIN_4B = _values(3_875_544_576, 3_875_536_896)
KLEIN_9B = _values(9_078_581_248, 9_078_571_008)
FLUX_1 = _values(11_901_408_320, 11_898_322_944)
Z_IMAGE = _values(6_154_908_736, 6_153_863_168)
SDXL_UNET = _values(2_567_463_684, 2_232_647_680)

PLANNERS = (
    KnownPlanner(title="Qwen3-4B", weights=QWEN3_4B, cache=147_456, width=2560),
    KnownPlanner(title="Qwen3-VL-4B", weights=QWEN3_VL_4B, cache=147_456, width=2560),
    KnownPlanner(title="Qwen2.5-VL-7B", weights=QWEN2_5_VL_7B, cache=57_344, width=3584),
    KnownPlanner(title="Qwen3-8B", weights=QWEN3_8B, cache=147_456, width=4096),
    KnownPlanner(title="Qwen3-VL-8B", weights=QWEN3_VL_8B, cache=147_456, width=4096),
)

IMAGE_MODELS = (
    KnownImageModel(title="Flux.2 Klein 4B", families=("flux2-klein", "flux2-klein-base"), weights=KLEIN_4B, encoder=QWEN3_4B,
                    width=3072),
    KnownImageModel(title="Flux.2 Klein 9B", families=("flux2-klein", "flux2-klein-base", "flux2-klein-kv"), weights=KLEIN_9B,
                    encoder=QWEN3_8B, width=4096),
    KnownImageModel(title="Qwen-Image-2.1", families=("qwen-image-2.1",), weights=QWEN_IMAGE_2_1, encoder=QWEN3_VL_8B,
                    width=4096),
    KnownImageModel(title="Qwen-Image and -Edit", families=("qwen-image-edit-2511", "qwen-image-edit-2509", "qwen-image"),
                    weights=QWEN_IMAGE, encoder=QWEN2_5_VL_7B, width=3072),
    KnownImageModel(title="Flux.2 dev", families=("flux2-dev",), weights=FLUX2_DEV, encoder=MISTRAL_SMALL_3, width=6144),
    KnownImageModel(title="Flux.1, Kontext", families=("flux-kontext", "flux"), weights=FLUX_1, encoder=T5_XXL, width=3072,
                    references=1),
    KnownImageModel(title="Z-Image", families=("z-image",), weights=Z_IMAGE, encoder=QWEN3_4B, width=3840, references=0),
    KnownImageModel(title="SDXL", families=("sdxl",), weights=SDXL_UNET, encoder=CLIP_G, width=1280, references=0),
)  # fmt: skip
