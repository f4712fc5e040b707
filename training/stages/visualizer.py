"""Stages `visualizer` and `dpcw`: flow matching of the Twin DiT under a frozen planner and a frozen autoencoder (paper section 3).

`visualizer` climbs the curriculum text-to-image -> + one reference -> + two references on prompts that stand alone.
`dpcw` tunes the same network on windows cut out of whole stories, with earlier pages as references. Both are one trainer
with other shares of the data, said in the config's `[[data.phases]]`.

Axes: B shots, R references, C Y X latents, S sequences read by the planner, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.stages import step_rng
from weaver_core.model import flow
from weaver_core.model.checkpoint import load_autoencoder, load_planner, load_twin
from weaver_core.model.latents import num_latent_channels, to_latents, to_pixels
from weaver_core.model.dpcw import DensePromptContext, find_windows, gather_windows
from weaver_core.model.sampler import draw
from weaver_core.model.tokens import PlannerTokens, encode, mrope_positions, prompt_ids
from weaver_core.model.twin_dit import TwinDiT, Window
from weaver_core.model.vision import image_patches, merged_grid
from weaver_core.picturebook import compose, grammar, reader
from weaver_core.picturebook.captions import dense_prompt
from weaver_core.picturebook.shots import KINDS, ShotRecord, portrait, sample_shot, with_wrong_word

WORDS = ("species", "colour", "wearable", "prop", "place", "time", "position", "pose")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The twin; layers and head geometry come from the planner."""

    width: int = 384
    mlp_width: int = 1024
    patch: int = 2
    bridge: str = "linear"
    pooled_layers: tuple[int, ...] = (2, 5)
    prediction: str = "clean"
    compile: bool = True  # fuses elementwise work of the blocks; needs a C++ compiler, costs a minute at the start


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Shares of the data until a fraction of the run is done."""

    until: float
    t2i: float = 0.0
    si2i: float = 0.0
    mi2i: float = 0.0
    story: float = 0.0

    def shares(self) -> dict[str, float]:
        return {"t2i": self.t2i, "si2i": self.si2i, "mi2i": self.mi2i, "story": self.story}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    phases: tuple[Phase, ...]
    batch_size: int = 32
    image_size: int = 128
    drop_text: float = 0.1  # share of shots drawn without words: the text-free branch of guidance
    drop_references: float = 0.1  # share of shots whose references are hidden, each for itself

    def __post_init__(self):
        if not self.phases or self.phases[-1].until < 1:
            raise ValueError("data.phases must reach until = 1.0; add a last phase")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSettings:
    time_mean: float = 0.6  # of the logit of the noise time; above 0 = more weight on noisy images
    time_std: float = 1.0
    figure_weight: float = 3.0  # of latents under a hero or a prop: they are small and matter most


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    count: int = 24  # pictures of each kind that the oracle reader reads at every evaluation
    steps: int = 16
    text_guidance: float = 2.5
    reference_guidance: float = 1.5
    shift: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    planner: str  # folder with planner/ and tokenizer/
    autoencoder: str  # folder of the exported autoencoder
    init: str | None = None  # folder of an exported twin to start from
    data: DataSettings
    model: ModelSettings = field(default_factory=ModelSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    sample: SampleSettings = field(default_factory=SampleSettings)


def build(settings: Settings, *, seed: int, run_dir: Path, device) -> VisualizerStage:
    return VisualizerStage(settings, seed=seed, device=device)


class VisualizerStage:
    """Draws shots of the picture-book world and compares with the truth, in latents."""

    steps = 1  # of the whole run; the loop sets it before training, the phases need it

    def __init__(self, settings: Settings, *, seed: int, device):
        self.settings, self.seed, self.device = settings, seed, device
        self.planner, self.tokenizer = load_planner(Path(settings.planner), device=device, dtype=torch.float32)
        self.tokens = PlannerTokens.of(self.tokenizer)
        self.grid = merged_grid(settings.data.image_size, settings.data.image_size, self.planner.config.vision_config)
        self.autoencoder = load_autoencoder(Path(settings.autoencoder), device=device, dtype=torch.float32)
        for module in (self.planner, self.autoencoder):
            module.requires_grad_(False).eval()
        self.twin = (load_twin(Path(settings.init), device=device, dtype=torch.float32) if settings.init
                     else new_twin(settings.model, self.planner.config.text_config, num_latent_channels(self.autoencoder)))
        self.twin = nn.Module.to(self.twin, device=device, dtype=torch.float32)
        if settings.model.compile:
            for block in self.twin.blocks:
                block.compile()
                block.see_itself = torch.compile(block.see_itself)
        self.trainable = {"visualizer": self.twin}
        self.frozen = {"planner": self.planner, "autoencoder": self.autoencoder}

    # ---- data -------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> dict:
        rng = step_rng(self.seed, step, "visualizer")
        options = self.settings.data
        done = step / self.steps
        shares = next(p for p in options.phases if done < p.until or p is options.phases[-1]).shares()
        kind = rng.choices(list(shares), list(shares.values()))[0]
        if kind == "story":
            shots = self._story_shots(rng, options.batch_size)
        else:
            shots = [_Shot.alone(sample_shot(rng, kind), rng) for _ in range(options.batch_size)]
        return {"kind": kind} | self._pack(shots, rng, drop_text=options.drop_text, drop_references=options.drop_references)

    def _story_shots(self, rng, count: int) -> list[_Shot]:
        """Pages of whole stories; the first page, or the user's picture, is the reference of every later page."""
        shots: list[_Shot] = []
        while len(shots) < count:
            with_reference = rng.random() < 0.2
            story = grammar.sample_story(rng, with_reference=with_reference)
            pages = list(range(story.num_images))
            rng.shuffle(pages)
            heroes = tuple(portrait(rng, hero) for hero in story.characters) if with_reference else ()
            shown = heroes if rng.random() < 0.7 else ()  # a user's pictures go to the planner too, unless a plan is rendered without them
            for page in sorted(pages[:4])[:count - len(shots)]:
                # What the `auto` reference policy gives this page: the user's pictures, else the story's first image.
                references = heroes if with_reference else (story.scenes[0],) if page else ()
                shots.append(_Shot(scene=story.scenes[page], references=references, page=page,
                                   request=story.request, markup=story.markup, shown=shown))
        return shots

    def _pack(self, shots: list[_Shot], rng=None, *, drop_text: float = 0.0, drop_references: float = 0.0) -> dict:
        size = self.settings.data.image_size
        num_references = max(len(shot.references) for shot in shots)
        pixels = np.stack([compose.render_array(shot.scene, size) for shot in shots])
        batch = {"pixels_BHWC": pixels, "weight_BYX": self._weights([shot.scene for shot in shots])}
        if num_references:
            blank = np.full_like(pixels[0], 127)
            references = np.stack([np.stack([compose.render_array(s, size) for s in shot.references]
                                            + [blank] * (num_references - len(shot.references))) for shot in shots])
            kept = np.array([[slot < len(shot.references) for slot in range(num_references)] for shot in shots])
            if rng is not None:
                kept &= np.array([[rng.random() >= drop_references] for _ in shots])
            batch |= {"references_BRHWC": references, "kept_BR": kept}
        batch |= self._sequences(shots)
        batch["words_B"] = np.array([rng is None or rng.random() >= drop_text for _ in shots])
        return batch

    def _sequences(self, shots: list[_Shot]) -> dict:
        """Token ids of every sequence the planner has to read, right-padded, and where each shot's window lies in them."""
        rows: dict[tuple, int] = {}
        ids, windows, positions, pictures = [], [], [], []
        for shot in shots:
            key = (shot.request, shot.markup, shot.shown)
            if key not in rows:
                rows[key] = len(ids)
                grids = [self.grid] * len(shot.shown)
                ids.append(planner_ids(self.tokenizer, self.tokens, shot.request, shot.markup, grids))
                positions.append(mrope_positions(ids[-1], self.tokens, grids))
                pictures += [compose.render_array(scene, self.settings.data.image_size) for scene in shot.shown]
            found = find_windows(ids[rows[key]], self.tokens.imagine, self.tokens.end_imagine)
            windows.append((rows[key], found[shot.page].start, found[shot.page].stop))
        longest = max(map(len, ids))
        padded = np.full((len(ids), longest), self.tokens.pad, dtype=np.int64)
        positions_S3T = np.zeros((len(ids), 3, longest), dtype=np.int64)
        for row, places, sequence, position in zip(padded, positions_S3T, ids, positions):
            row[:len(sequence)] = sequence
            places[:, :len(sequence)] = position
        batch = {"ids_ST": padded, "positions_S3T": positions_S3T, "windows_B3": np.array(windows, dtype=np.int64)}
        if pictures:
            patches, patch_grids = image_patches(np.stack(pictures), self.planner.config.vision_config)
            batch |= {"pixel_values": patches, "image_grid_thw": patch_grids}
        return batch

    def _weights(self, scenes) -> np.ndarray:
        """Loss weights on the latent grid: figures and props count more. Mean 1 per picture."""
        size, stride = self.settings.data.image_size, 8
        weights = np.ones((len(scenes), size // stride, size // stride), dtype=np.float32)
        for row, scene in zip(weights, scenes):
            boxes = list(compose.hero_boxes(scene, size)) + ([compose.prop_box(scene, size)] if scene.prop else [])
            for x0, y0, x1, y1 in boxes:
                row[max(0, y0) // stride:-(-y1 // stride), max(0, x0) // stride:-(-x1 // stride)] = self.settings.flow.figure_weight
        return weights / weights.mean((1, 2), keepdims=True)

    # ---- loss -------------------------------------------------------------------------------------------------

    def loss(self, batch: dict, step: int) -> tuple[Tensor, dict]:
        options = self.settings.flow
        clean = self.encode_pixels(batch["pixels_BHWC"])
        time_B = flow.draw_times(clean.shape[0], mean=options.time_mean, std=options.time_std).to(clean.device)
        noise = torch.randn_like(clean)
        prediction = self.predict(batch, flow.add_noise(clean, noise, time_B), time_B)
        error = flow.squared_error(prediction, clean, noise, time_B, self.twin.config.prediction)
        loss = (error * batch["weight_BYX"][:, None]).mean()
        return loss, {f"loss_{batch['kind']}": loss.detach()}

    def predict(self, batch: dict, noisy: Tensor, time_B: Tensor) -> Tensor:
        window = self.twin.read_window(self.read(batch))
        window = without_words(self.twin, window, batch["words_B"])
        if "references_BRHWC" not in batch:
            return self.twin(noisy, time_B, self.twin.assemble(window))
        return self.twin(noisy, time_B, self.twin.assemble(window, self.encode_references(batch), batch["kept_BR"]))

    def encode_references(self, batch: dict):
        references = batch["references_BRHWC"]
        count, slots = references.shape[:2]
        cache = self.twin.encode_references(self.encode_pixels(references.flatten(0, 1)))
        rows = torch.arange(count * slots).view(count, slots)
        return [cache.rows(rows[:, slot]) for slot in range(slots)]

    @torch.no_grad()
    def encode_pixels(self, pixels_BHWC: Tensor) -> Tensor:
        pixels = pixels_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1
        return to_latents(self.autoencoder, pixels.contiguous(memory_format=torch.channels_last)).float()

    @torch.no_grad()
    def read(self, batch: dict) -> DensePromptContext:
        """The planner reads every sequence once; windows are cut out of its cache."""
        positions = batch["positions_S3T"].transpose(0, 1)
        pictures = {name: batch[name] for name in ("pixel_values", "image_grid_thw") if name in batch}
        # Padding lies on the right of a causal sequence: no real token sees it, so no padding mask is needed.
        cache = self.planner.model(input_ids=batch["ids_ST"], position_ids=positions, use_cache=True, **pictures).past_key_values
        windows = [(row, range(start, stop)) for row, start, stop in batch["windows_B3"].tolist()]
        return gather_windows(cache, positions, windows)

    # ---- looking ----------------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Held-out errors at time 0.9, wrong-word and wrong-reference gaps (x 1000), and what the oracle reader sees in samples."""
        with torch.autocast(self.device.type, torch.bfloat16), torch.compiler.set_stance("force_eager"):
            return self._gaps() | self._read_samples()

    def _gaps(self, count: int = 48) -> dict[str, float]:
        rng = step_rng(0, 0, "visualizer held out")
        numbers = {}
        for kind in KINDS:
            shots = [sample_shot(rng, kind, split="held_out") for _ in range(count)]
            base = self._error(shots)
            numbers[f"{kind}_error"] = base.mean().item()
            if kind == "t2i":
                for word in WORDS:
                    changed = [with_wrong_word(rng, shot.scene, word) for shot in shots]
                    has = torch.tensor([scene is not None for scene in changed])
                    wrong = [ShotRecord(kind=kind, scene=shot.scene, prompt=shot.prompt if scene is None else dense_prompt(scene, step_rng(0, i, "wording")))
                             for i, (shot, scene) in enumerate(zip(shots, changed))]
                    right = [ShotRecord(kind=kind, scene=shot.scene, prompt=dense_prompt(shot.scene, step_rng(0, i, "wording")))
                             for i, shot in enumerate(shots)]
                    numbers[f"gap_{word}"] = (self._error(wrong) - self._error(right))[has].mean().item()
            else:
                others = shots[1:] + shots[:1]
                wrong = [ShotRecord(kind=kind, scene=a.scene, prompt=a.prompt, references=b.references, first=a.first)
                         for a, b in zip(shots, others)]
                numbers[f"gap_{kind}_wrong_reference"] = (self._error(wrong) - base).mean().item()
                bare = [ShotRecord(kind=kind, scene=a.scene, prompt=a.prompt, first=a.first) for a in shots]
                numbers[f"gap_{kind}_no_reference"] = (self._error(bare) - base).mean().item()
                if kind == "mi2i":
                    swapped = [ShotRecord(kind=kind, scene=a.scene, prompt=a.prompt, references=a.references[::-1]) for a in shots]
                    numbers["gap_mi2i_swapped"] = (self._error(swapped) - base).mean().item()
        return numbers

    def _error(self, shots: list[ShotRecord], time: float = 0.9) -> Tensor:
        batch = self._on_device(self._pack([_Shot.alone(shot) for shot in shots]))
        clean = self.encode_pixels(batch["pixels_BHWC"])
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)).to(clean.device)
        time_B = torch.full((clean.shape[0],), time, device=clean.device)
        prediction = self.predict(batch, flow.add_noise(clean, noise, time_B), time_B)
        return ((prediction.float() - clean) ** 2 * batch["weight_BYX"][:, None]).mean((1, 2, 3)).cpu() * 1e3

    def _read_samples(self) -> dict[str, float]:
        rng = step_rng(0, 0, "visualizer samples")
        numbers = {}
        for kind in KINDS:
            shots = [sample_shot(rng, kind, split="held_out") for _ in range(self.settings.sample.count)]
            right = [reader.compare(reader.read(picture), shot.scene) for picture, shot in zip(self.sample(shots), shots)]
            for name in right[0]:
                numbers[f"read_{kind}_{name}"] = sum(r[name] for r in right) / len(right)
        return numbers

    def sample(self, shots: list[ShotRecord], seed: int = 0) -> list[np.ndarray]:
        """Pictures of shots, uint8 (H, W, 3), by the one sampler."""
        options = self.settings.sample
        batch = self._on_device(self._pack([_Shot.alone(shot) for shot in shots]))
        side = self.settings.data.image_size // 8
        noise = torch.randn(len(shots), self.twin.config.latent_channels, side, side, generator=torch.Generator().manual_seed(seed))
        references = self.encode_references(batch) if "references_BRHWC" in batch else []
        latents = draw(self.twin, self.read(batch), references, noise.to(self.device), steps=options.steps, shift=options.shift,
                       guidance=flow.Guidance(text=options.text_guidance, reference=options.reference_guidance))
        pixels = to_pixels(self.autoencoder, latents.contiguous(memory_format=torch.channels_last))
        return list(((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())

    def samples(self, folder: Path) -> None:
        """One sheet a kind: references, sample, truth."""
        from PIL import Image

        rng = step_rng(0, 1, "visualizer samples")
        with torch.autocast(self.device.type, torch.bfloat16), torch.compiler.set_stance("force_eager"):
            for kind in KINDS:
                shots = [sample_shot(rng, kind, split="held_out") for _ in range(12)]
                pictures = self.sample(shots, seed=1)
                size = self.settings.data.image_size
                rows = [np.concatenate([compose.render_array(shot.references[slot], size) for shot in shots], 1)
                        for slot in range(len(shots[0].references))]
                rows += [np.concatenate(pictures, 1), np.concatenate([compose.render_array(shot.scene, size) for shot in shots], 1)]
                Image.fromarray(np.concatenate(rows)).save(folder / f"{kind}.png")
                (folder / f"{kind}.txt").write_text("\n".join(shot.prompt for shot in shots), encoding="utf-8")

    def export(self, folder: Path) -> None:
        twin = TwinDiT.from_config(self.twin.config)
        twin.load_state_dict(self.twin.state_dict())
        nn.Module.to(twin, torch.bfloat16).save_pretrained(folder)

    def _on_device(self, batch: dict) -> dict:
        return {k: torch.from_numpy(v).to(self.device) for k, v in batch.items()}


@dataclass(slots=True)
class _Shot:
    """A scene with the planner sequence that its window is cut from; `request` None means a prompt that stands alone."""

    scene: object
    references: tuple
    page: int
    request: str | None
    markup: str
    shown: tuple = ()  # scenes whose pictures stand in the request

    @classmethod
    def alone(cls, record: ShotRecord, rng=None) -> _Shot:
        """A prompt outside any story: typed as a request of its own, or rendered from a plan that has only a title or less."""
        request = record.prompt if rng is None else rng.choice((record.prompt, record.prompt, "a story", None))
        return cls(scene=record.scene, references=record.references, page=0, request=request,
                   markup=f"<imagine>{record.prompt}</imagine>")


def planner_ids(tokenizer, tokens: PlannerTokens, request: str | None, markup: str, grids=()) -> list[int]:
    """What the planner has before it when an image is drawn: its prompt, if there was one, and what it wrote."""
    prompt = [tokens.bot] if request is None else prompt_ids(tokenizer, tokens, request, grids)
    return prompt + encode(tokenizer, markup)


def new_twin(settings: ModelSettings, planner, latent_channels: int) -> TwinDiT:
    """A fresh twin of a planner's language model; `planner` is its text config."""
    rope = planner.rope_parameters
    return TwinDiT(
        num_layers=planner.num_hidden_layers, num_heads=planner.num_attention_heads, num_kv_heads=planner.num_key_value_heads,
        head_dim=getattr(planner, "head_dim", None) or planner.hidden_size // planner.num_attention_heads,
        width=settings.width, mlp_width=settings.mlp_width, latent_channels=latent_channels, patch=settings.patch,
        planner_rope_theta=rope["rope_theta"], planner_mrope_sections=tuple(rope["mrope_section"]),
        bridge=settings.bridge, pooled_layers=settings.pooled_layers, prediction=settings.prediction)


def without_words(twin: TwinDiT, window: Window, keep_B: Tensor) -> Window:
    """Hide the window of some shots, as the text-free branch of guidance does."""
    pooled = window.pooled
    if pooled is not None:
        pooled = torch.where(keep_B[:, None], pooled, twin.pooled_window.nothing.to(pooled.dtype))
    return Window(window.keys, window.values, window.mask & keep_B[:, None], pooled, window.end)
