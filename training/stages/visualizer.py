"""Stages `visualizer` and `dpcw`: flow matching of the Twin DiT under a frozen planner and a frozen autoencoder (paper section 3).

`visualizer` climbs the curriculum text-to-image -> + one reference -> + two references on prompts that stand alone.
`dpcw` tunes the same network on windows cut out of whole stories, with earlier pages as references. Both are one trainer
with other shares of the data, said in the config's `[[data.phases]]`. With `data.source` the data are a user's own pictures
(`own_pictures.py`); with `lora.rank` a LoRA learns in place of the whole twin.

Axes: B shots, R references, C Y X latents, S sequences read by the planner, T tokens.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.stages import step_rng
from training.stages.exported_pair import ExportedPair, sampling_of
from training.stages.twin_lora import FILE, add_twin_lora, save_twin_lora, trained_layers, without_lora
from training.stages.visualizer_settings import ModelSettings, Settings
from weaver_core.model import flow
from weaver_core.model.checkpoint import default_dtype, load_autoencoder, load_planner, load_twin
from weaver_core.model.latents import num_latent_channels, to_latents, to_pixels
from weaver_core.model.dpcw import DensePromptContext, gather_windows
from weaver_core.model.sampler import draw
from weaver_core.model.tokens import PlannerTokens, encode, mrope_positions, prompt_ids
from weaver_core.model.twin_dit import TwinDiT, Window
from weaver_core.model.vision import image_patches, merged_grid
from weaver_core.picturebook import compose, grammar, reader
from weaver_core.picturebook.captions import dense_prompt
from weaver_core.picturebook.shots import KINDS, ShotRecord, portrait, sample_shot, with_wrong_word

log = logging.getLogger("training")
WORDS = ("species", "colour", "wearable", "prop", "place", "time", "position", "pose")


def build(settings: Settings, *, seed: int, run_dir: Path, device) -> VisualizerStage:
    if settings.data.source is not None:
        from training.stages.own_pictures import OwnPicturesStage

        return OwnPicturesStage(settings, seed=seed, device=device)
    return VisualizerStage(settings, seed=seed, device=device)


def inspect(settings: Settings, config, problems):
    """See `training.stages`; in a file of its own, which needs this one."""
    from training.stages.visualizer_checks import inspect_visualizer

    return inspect_visualizer(settings, config, problems)


class VisualizerStage:
    """Draws shots of the picture-book world and compares with the truth, in latents."""

    num_batches = 1  # of the whole run; set before training, the phases need it

    def __init__(self, settings: Settings, *, seed: int, device, planner=None):
        """planner   a planner that is trained along, with its tokenizer; else the frozen one of `settings.planner`"""
        self.settings, self.seed, self.device = settings, seed, device
        self.sizes = {} if settings.data.source is not None else settings.data.sizes()
        self.planner, self.tokenizer = planner or load_planner(Path(settings.planner), device=device, dtype=default_dtype(device))
        self.tokens = PlannerTokens.of(self.tokenizer)
        side = planner_side(settings)
        self.grid = merged_grid(side, side, self.planner.config.vision_config)
        self.autoencoder = load_autoencoder(Path(settings.autoencoder), device=device, dtype=torch.float32)
        for module in (self.autoencoder,) if planner else (self.planner, self.autoencoder):
            module.requires_grad_(False).eval()
        if settings.init is None:
            self.twin = new_twin(settings.model, self.planner.config.text_config, num_latent_channels(self.autoencoder))
        else:
            self.twin = load_twin(Path(settings.init), device=device, dtype=torch.float32)
            if not settings.lora.rank:  # a LoRA must fit the twin as it is
                self.twin = with_slots(self.twin, settings.model.reference_slots)
                self.twin.register_to_config(window_history=settings.model.window_history)
        self.twin = nn.Module.to(self.twin, device=device, dtype=torch.float32)
        if settings.lora.rank:
            add_twin_lora(self.twin, settings.lora)
        if settings.model.compile:
            # A graph per number of tokens, reference rows and kind of mask, until they are dynamic: beyond torch's 8, but bounded.
            torch._dynamo.config.recompile_limit = 32
            for block in self.twin.blocks:
                block.compile()
                block.see_itself = torch.compile(block.see_itself)
            for layer in () if planner else self.planner.model.language_model.layers:
                layer.compile(dynamic=True)
        self.trainable = {"visualizer": self.twin}
        self.frozen = ({} if planner else {"planner": self.planner}) | {"autoencoder": self.autoencoder}

    # ---- data -------------------------------------------------------------------------------------------------

    def batch(self, index: int) -> dict:
        rng = step_rng(self.seed, index, "visualizer")
        options = self.settings.data
        done = index / self.num_batches
        shares = options.phase(done).shares()
        kind = rng.choices(list(shares), list(shares.values()))[0]
        if kind == "story":
            shots = self._story_shots(rng, options.batch_size)
        else:
            shots = [_Shot.alone(self.shot(rng, kind, figures=2 if rng.random() < options.two_heroes else None), rng)
                     for _ in range(options.batch_size)]
        target, seen = self.batch_sizes(done, index)
        return {"kind": kind} | self._pack(shots, rng, size=target, reference_size=seen,
                                           drop_text=options.drop_text, drop_references=options.drop_references)

    def shot(self, rng, kind: str, *, split: str = "train", figures: int | None = None) -> ShotRecord:
        """As `sample_shot`, in the part of the world that `data.species` names."""
        while True:
            record = sample_shot(rng, kind, split=split, figures=figures)
            if self.knows(figure.character for figure in record.scene.figures):
                return record

    def knows(self, characters) -> bool:
        """Whether the world of this run has all of some heroes."""
        species = self.settings.data.species
        return not species or all(character.species in species for character in characters)

    def batch_sizes(self, done: float, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(width, height) of a batch's pictures and of their references, after a fraction of the run."""
        sizes = self.settings.data.sizes(self.settings.data.phase(done))
        target, seen = self._aspects(index)
        return sizes[target], sizes[seen]

    def windows_of(self, ids: list[int]) -> list[list[int]]:
        """The window of every dense prompt in a sequence."""
        return self.twin.window_rule.find(ids, begin=self.tokens.imagine, end=self.tokens.end_imagine, image=self.tokens.image_pad)

    def _aspects(self, index: int) -> tuple[str, str]:
        """Aspect ratio of a batch's pictures, and of their references: a story's pages mostly agree, a user's picture need not."""
        rng = step_rng(self.seed, index, "visualizer aspects")  # of its own: the shares leave all other draws as they are
        names, shares = zip(*self.settings.data.aspects.items())
        target, other = rng.choices(names, shares, k=2)
        return target, target if rng.random() < self.settings.data.same_aspect else other

    def _story_shots(self, rng, count: int) -> list[_Shot]:
        """Pages of whole stories; the first page, or the user's picture, is the reference of every later page."""
        shots: list[_Shot] = []
        while len(shots) < count:
            with_reference = rng.random() < 0.2
            story = grammar.sample_story(rng, with_reference=with_reference)
            if not self.knows(story.characters):
                continue
            pages = list(range(story.num_images))
            rng.shuffle(pages)
            heroes = tuple(portrait(rng, hero) for hero in story.characters) if with_reference else ()
            shown = heroes if rng.random() < 0.7 else ()  # a user's pictures go to the planner too, unless a plan is rendered without them
            shots += shots_of_story(story, sorted(pages[:4])[:count - len(shots)], heroes, shown)
        return shots

    def _pack(self, shots: list[_Shot], rng=None, *, size: tuple[int, int], reference_size: tuple[int, int],
              drop_text: float = 0.0, drop_references: float = 0.0) -> dict:
        """What the network is given for some shots; sizes are (width, height) of all pictures and of all their references."""
        return self.pack_pictures(shots, rng, size=size, reference_size=reference_size, drop_references=drop_references) | \
            self._sequences(shots) | {"words_B": np.array([rng is None or rng.random() >= drop_text for _ in shots])}

    def pack_pictures(self, shots: list[_Shot], rng=None, *, size: tuple[int, int], reference_size: tuple[int, int],
                      drop_references: float = 0.0) -> dict:
        """The pictures of some shots, of their references, and weights of the loss."""
        num_references = max(len(shot.references) for shot in shots)
        pixels = np.stack([compose.render_array(shot.scene, size) for shot in shots])
        batch = {"pixels_BHWC": pixels, "weight_BYX": self._weights([shot.scene for shot in shots], size)}
        if num_references:
            blank = np.full((reference_size[1], reference_size[0], 3), 127, np.uint8)
            references = np.stack([np.stack([compose.render_array(s, reference_size) for s in shot.references]
                                            + [blank] * (num_references - len(shot.references))) for shot in shots])
            kept = np.array([[slot < len(shot.references) for slot in range(num_references)] for shot in shots])
            if rng is not None:
                kept &= np.array([[rng.random() >= drop_references] for _ in shots])
            batch |= {"references_BRHWC": references, "kept_BR": kept}
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
            windows.append((rows[key], self.windows_of(ids[rows[key]])[shot.page]))
        longest = max(map(len, ids))
        padded = np.full((len(ids), longest), self.tokens.pad, dtype=np.int64)
        positions_S3T = np.zeros((len(ids), 3, longest), dtype=np.int64)
        for row, places, sequence, position in zip(padded, positions_S3T, ids, positions):
            row[:len(sequence)] = sequence
            places[:, :len(sequence)] = position
        batch = {"ids_ST": padded, "positions_S3T": positions_S3T, **window_index(windows)}
        if pictures:
            patches, patch_grids = image_patches(np.stack(pictures), self.planner.config.vision_config)
            batch |= {"pixel_values": patches, "image_grid_thw": patch_grids}
        return batch

    def _weights(self, scenes, size: tuple[int, int]) -> np.ndarray:
        """Loss weights on the latent grid: figures and props count more. Mean 1 per picture."""
        stride = 8
        weights = np.ones((len(scenes), size[1] // stride, size[0] // stride), dtype=np.float32)
        for row, scene in zip(weights, scenes):
            boxes = list(compose.hero_boxes(scene, size)) + ([compose.prop_box(scene, size)] if scene.prop else [])
            for x0, y0, x1, y1 in boxes:
                row[max(0, y0) // stride:-(-y1 // stride), max(0, x0) // stride:-(-x1 // stride)] = self.settings.flow.figure_weight
        return weights / weights.mean((1, 2), keepdims=True)

    # ---- loss -------------------------------------------------------------------------------------------------

    def loss(self, batch: dict, context: DensePromptContext | None = None) -> tuple[Tensor, dict]:
        """Flow matching loss; `context` are the windows where the planner has read the batch already."""
        options = self.settings.flow
        clean = self.clean_latents(batch)
        time_B = flow.draw_times(clean.shape[0], mean=options.time_mean, std=options.time_std).to(clean.device)
        noise = torch.randn_like(clean)
        prediction = self.predict(batch, flow.add_noise(clean, noise, time_B), time_B, context)
        error = flow.squared_error(prediction, clean, noise, time_B, self.twin.config.prediction)
        loss = (error * batch["weight_BYX"][:, None]).mean()
        return loss, {f"loss_{batch['kind']}": loss.detach()}

    def predict(self, batch: dict, noisy: Tensor, time_B: Tensor, context: DensePromptContext | None = None) -> Tensor:
        window = self.twin.read_window(self.read(batch) if context is None else context)
        window = without_words(self.twin, window, batch["words_B"])
        if "kept_BR" not in batch:
            return self.twin(noisy, time_B, self.twin.assemble(window))
        return self.twin(noisy, time_B, self.twin.assemble(window, self.encode_references(batch), batch["kept_BR"]))

    def clean_latents(self, batch: dict) -> Tensor:
        return self.encode_pixels(batch["pixels_BHWC"])

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
        return gather_windows(cache, positions, batch["sequence_B"], batch["windows_BT"])

    # ---- looking ----------------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Held-out errors at time 0.9, wrong-word and wrong-reference gaps (x 1000), and what the oracle reader sees in samples."""
        with torch.autocast(self.device.type, torch.bfloat16), torch.compiler.set_stance("force_eager"):
            return self._gaps() | self._read_samples()

    def _gaps(self) -> dict[str, float]:
        count = self.settings.sample.gaps
        rng = step_rng(0, 0, "visualizer held out")
        numbers = {}
        for kind in KINDS:
            shots = [self.shot(rng, kind, split="held_out") for _ in range(count)]
            base = self._error(shots)
            numbers[f"{kind}_error"] = base.mean().item()
            if kind == "t2i":
                for word in WORDS:
                    changed = [with_wrong_word(rng, shot.scene, word) for shot in shots]
                    has = torch.tensor([scene is not None for scene in changed])
                    wrong = [ShotRecord(kind=kind, scene=shot.scene,
                                        prompt=shot.prompt if scene is None else dense_prompt(scene, step_rng(0, i, "wording")))
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
        size = next(iter(self.sizes.values()))
        batch = self._on_device(self._pack([_Shot.alone(shot) for shot in shots], size=size, reference_size=size))
        clean = self.encode_pixels(batch["pixels_BHWC"])
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)).to(clean.device)
        time_B = torch.full((clean.shape[0],), time, device=clean.device)
        prediction = self.predict(batch, flow.add_noise(clean, noise, time_B), time_B)
        return ((prediction.float() - clean) ** 2 * batch["weight_BYX"][:, None]).mean((1, 2, 3)).cpu() * 1e3

    def _read_samples(self) -> dict[str, float]:
        rng = step_rng(0, 0, "visualizer samples")
        numbers = {}
        for kind in KINDS:
            shots = [self.shot(rng, kind, split="held_out") for _ in range(self.settings.sample.count)]
            for suffix, size in self._suffixes():
                right = [reader.compare(reader.read(picture), shot.scene) for picture, shot in zip(self.sample(shots, size), shots)]
                for name in right[0]:
                    numbers[f"read_{kind}{suffix}_{name}"] = sum(r[name] for r in right) / len(right)
        return numbers

    def _suffixes(self) -> list[tuple[str, tuple[int, int]]]:
        """What names of numbers and sheets end in, per size: nothing for the first aspect ratio, `_4x3` for 4:3."""
        return [(f"_{aspect.replace(':', 'x')}" if number else "", size) for number, (aspect, size) in enumerate(self.sizes.items())]

    def sample(self, shots: list[ShotRecord], size: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
        """Pictures of shots, uint8 (H, W, 3), by the one sampler; references have the size (width, height) of the pictures."""
        options = self.settings.sample
        batch = self._on_device(self._pack([_Shot.alone(shot) for shot in shots], size=size, reference_size=size))
        noise = torch.randn(len(shots), self.twin.config.latent_channels, size[1] // 8, size[0] // 8,
                            generator=torch.Generator().manual_seed(seed))
        references = self.encode_references(batch) if "references_BRHWC" in batch else []
        latents = draw(self.twin, self.read(batch), references, noise.to(self.device), steps=options.steps, shift=options.shift,
                       guidance=flow.Guidance(text=options.text_guidance, reference=options.reference_guidance))
        pixels = to_pixels(self.autoencoder, latents.contiguous(memory_format=torch.channels_last))
        return list(((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())

    def samples(self, folder: Path) -> None:
        """One sheet a kind and size: references, what the export draws by the nodes' own classes, truth."""
        from PIL import Image

        rng, pair = step_rng(0, 1, "visualizer samples"), self.exported_pair()
        with torch.compiler.set_stance("force_eager"):
            for kind in KINDS:
                shots = [self.shot(rng, kind, split="held_out") for _ in range(6)]  # one after the other, as nodes draw
                for suffix, size in self._suffixes():
                    seen = [[compose.render_array(scene, size) for scene in shot.references] for shot in shots]
                    drawn = [np.array(pair.draw(shot.prompt, size=size, seed=number, references=tuple(map(Image.fromarray, references))))
                             for number, (shot, references) in enumerate(zip(shots, seen))]
                    rows = [np.concatenate(row, 1) for row in (*zip(*seen), drawn, [compose.render_array(shot.scene, size) for shot in shots])]
                    Image.fromarray(np.concatenate(rows)).save(folder / f"{kind}{suffix}.png")
                (folder / f"{kind}.txt").write_text("\n".join(shot.prompt for shot in shots), encoding="utf-8")

    def export(self, folder: Path) -> None:
        """The twin in bf16, or the file of its LoRA, opened again and compared before that is told."""
        if not self.settings.lora.rank:
            self.bare_twin(torch.bfloat16).save_pretrained(folder)
            return
        facts = {"stage": "visualizer", "base": ExportedPair.fingerprint_of(self.settings), "format": "pt"}
        report = save_twin_lora(self.twin, self.bare_twin(torch.float32), self.settings.lora, folder, facts)
        log.info("LoRA: %s. Use it: the node Load LoRA, after a copy of <run>/export/%s to ComfyUI's models/loras; or "
                 "weaver story \"...\" --lora <run>/export/%s", report, FILE, FILE)

    def bare_twin(self, dtype: torch.dtype) -> TwinDiT:
        """A copy of the twin in a number format, without compilation and, where a LoRA learns, without that."""
        twin = TwinDiT.from_config(self.twin.config)
        twin.load_state_dict(without_lora(self.twin.state_dict()))
        return nn.Module.to(twin, device=self.device, dtype=dtype).eval()

    def exported_pair(self) -> ExportedPair:
        """What the export would draw, by the classes of nodes and command line."""
        layers = trained_layers(self.twin, self.settings.lora) if self.settings.lora.rank else None
        twin = self.bare_twin(torch.float32 if layers else torch.bfloat16)  # without a LoRA, rounded as the export rounds
        return ExportedPair(self.settings, self.planner, self.tokenizer, twin, layers)

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
        """A shot outside any story."""
        return shot_of_prompt(record.prompt, rng, record.scene, record.references)


def planner_side(settings: Settings) -> int:
    """Pixels a side of a picture that the planner sees. With a source, `data.image_size` only says how many pixels a bucket has."""
    return settings.data.image_size if settings.data.source is None else sampling_of(settings).image_size


def shot_of_prompt(prompt: str, rng=None, scene=None, references: tuple = ()) -> _Shot:
    """A prompt outside any story: typed as a request of its own, or rendered from a plan that has only a title or less."""
    request = prompt if rng is None else rng.choice((prompt, prompt, "a story", None))
    return _Shot(scene=scene, references=references, page=0, request=request, markup=f"<imagine>{prompt}</imagine>")


def shots_of_story(story, pages, heroes: tuple, shown: tuple) -> list[_Shot]:
    """Some pages of a story with what the `auto` reference policy gives each: the user's pictures of the heroes, else the story's
    first image. `shown` are those pictures that the request shows to the planner."""
    return [_Shot(scene=story.scenes[page], references=heroes if story.with_reference else (story.scenes[0],) if page else (),
                  page=page, request=story.request, markup=story.markup, shown=shown) for page in pages]


def window_index(windows: list[tuple[int, list[int]]]) -> dict:
    """Which sequence each shot's window lies in, and its tokens there, right-padded with -1."""
    index_BT = np.full((len(windows), max(len(window) for _, window in windows)), -1, dtype=np.int64)
    for row, (_, window) in zip(index_BT, windows):
        row[:len(window)] = window
    return {"windows_BT": index_BT, "sequence_B": np.array([sequence for sequence, _ in windows], dtype=np.int64)}


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
        bridge=settings.bridge, pooled_layers=settings.pooled_layers, window_margin=settings.window_margin,
        window_images=settings.window_images, window_history=settings.window_history, reference_slots=settings.reference_slots,
        prediction=settings.prediction)


def with_slots(twin: TwinDiT, count: int) -> TwinDiT:
    """The twin with marks for so many reference slots: its own where it has them, fresh ones else."""
    if twin.slot_keys is not None or not count:
        return twin
    marked = TwinDiT.from_config(dict(twin.config) | {"reference_slots": count})
    marked.load_state_dict(twin.state_dict() | {"slot_keys": marked.slot_keys.detach()})
    return marked


def without_words(twin: TwinDiT, window: Window, keep_B: Tensor) -> Window:
    """Hide the window of some shots, as the text-free branch of guidance does."""
    pooled = window.pooled
    if pooled is not None:
        pooled = torch.where(keep_B[:, None], pooled, twin.pooled_window.nothing.to(pooled.dtype))
    return Window(window.keys, window.values, window.mask & keep_B[:, None], pooled, window.end)
