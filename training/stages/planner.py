"""Stage `planner`: a small Qwen2.5-VL learns to plan picture books from textual-proxy stories, and to see.

Generation records (stories whose images are dense prompts, paper section 4) and understanding records (a picture, a question,
an answer) come in the paper's ratio of 5 to 1. Some stories have reference pictures in the request, some have the drawn
pictures fed back after each `<BOI>` as in the closed loop, and some records are a bare dense prompt. Loss on the answer only.

Axes: B batch, T tokens, N ViT patches of all pictures, P values of one patch.
"""

from __future__ import annotations

import copy
import os
import random
import re
import shutil
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from training.build_tokenizer import picturebook_texts, train_tokenizer
from training.estimate import Inspection, Part, score_activations, transformer_activations
from training.packing import IGNORED
from training.records import check_held_out
from training.stages import step_rng
from training.stages.planner_checks import Prompt, check_story, continue_greedily, held_out_rng, rates
from training.stages.sequence_loss import answer_loss
from weaver_core.model.tokens import PlannerTokens, encode, image_ids, mrope_positions, prompt_ids
from weaver_core.model.vision import image_patches, merged_grid
from weaver_core.picturebook import captions, compose, grammar, splits, world

_WORLD_WORDS = "|".join((*world.HEROES, *world.COLOURS, *world.WEARABLES, *world.PROPS, *world.PLACES, *world.TIMES))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    vocab_size: int = 1536
    hidden_size: int = 256
    layers: int = 6
    heads: int = 4  # of size hidden_size / heads
    kv_heads: int = 2
    intermediate_size: int = 768
    vision_depth: int = 3
    vision_hidden: int = 96
    vision_heads: int = 3
    compile: bool = True  # fuses elementwise work; needs a C++ compiler, costs a minute at the start

    def __post_init__(self):
        if self.hidden_size % self.heads:
            raise ValueError(f"model.hidden_size is {self.hidden_size}; it must be a multiple of model.heads, {self.heads}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    source: str | None = None  # records of your own (.jsonl file, or a folder of them) in place of the picture-book grammar
    packing: bool = True  # of those records: sequences behind one another in one row, kept apart by the mask; else padded rows
    held_out: float = 0.05  # share of those records that are only measured with
    batch_tokens: int = 3072  # tokens of a step: about so many of the grammar, padding among them; at most so many of records
    generation_ratio: float = 5.0  # generation records for one understanding record; the paper's 5g1u
    bare_captions: float = 0.15  # share of the generation records that are a dense prompt alone
    references: float = 0.15  # share of the stories about heroes in reference pictures
    reference_pictures: float = 0.7  # share of those whose pictures are in the prompt
    short_stories: float = 0.0  # share of the stories of one to three pages, most of one: more requests to read per token
    fact_weight: float = 1.0  # of the loss on tokens that the request or the page decides: world words, names, page openings
    two_heroes: float = 0.2  # share of the stories about two heroes
    fact_noise: float = 0.0  # share of those words that the planner reads wrongly in its own answer, to make it look into the request
    closed_loop: float = 0.1  # share of the stories of at most four pages whose pictures are fed back
    species: tuple[str, ...] = ()  # of the grammar: stories and pictures of these heroes only; a smaller world is learned sooner
    image_size: int = 128
    tokenizer_stories: int = 6000

    def __post_init__(self):
        check_held_out(self.held_out)
        if unknown := set(self.species) - set(world.HEROES):
            raise ValueError(f"data.species names {', '.join(sorted(unknown))}; the picture-book world has {', '.join(world.HEROES)}")
        if self.fact_noise and self.fact_weight <= 1:
            raise ValueError(f"data.fact_noise is {self.fact_noise}, but only words that weigh more are misread, and data.fact_weight is "
                             f"{self.fact_weight}; raise it above 1 (4.0, say), else data.fact_noise must be 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    stories: int = 64  # generated per evaluation, in held-out phrasings
    questions: int = 96
    loss_records: int = 64
    max_new_tokens: int = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    checks: CheckSettings = field(default_factory=CheckSettings)
    init: str | None = None  # folder with `planner` and `tokenizer` to start from


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One training sequence; labels and weights of the loss are not shifted."""

    ids: list[int]
    labels: list[int]
    weights: list[float]
    grids: tuple[tuple[int, int], ...] = ()
    pixels_HWC: tuple[np.ndarray, ...] = ()


def begin(settings: Settings, run_dir: Path) -> None:
    """See `training.stages`: the tokenizer of a new run, which all processes build from."""
    if not settings.init:
        _run_tokenizer(settings, run_dir)


def build(settings: Settings, *, seed: int, run_dir: Path, device) -> PlannerStage:
    """Raises   ValueError if the folder to start from is no planner"""
    if settings.init:
        folder = Path(settings.init)
        if not (folder / "planner" / "config.json").is_file():
            raise ValueError(f"init = {folder}: no planner/config.json there; give an export folder of a planner run")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder / "planner", dtype=torch.float32, attn_implementation="eager")
    else:
        tokenizer = _run_tokenizer(settings, run_dir)
        config = planner_config(settings.model, tokenizer, settings.data.image_size)
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="eager")
    return PlannerStage(settings, model.to(device), tokenizer, seed=seed, device=device)


def inspect(settings: Settings, config, problems, *, data: str = "data") -> Inspection:
    """The planner counted on the meta device, and a user's records, read by the tokenizer of `init`.

    data   how the config calls the table of `settings.data`
    """
    found = Inspection()
    shape = None
    if not settings.init:
        places = len(PlannerTokens.__dataclass_fields__)
        shape = _config(settings.model, PlannerTokens(*range(places)), settings.model.vocab_size, settings.data.image_size)
    elif not (Path(settings.init) / "planner" / "config.json").is_file():
        problems.add("init", f"init = {settings.init!r}: no planner/config.json there; give an export folder of a planner run")
    else:
        shape = Qwen2_5_VLConfig.from_pretrained(Path(settings.init) / "planner")
    fits = shape is not None and check_image_size(f"{data}.image_size", settings.data.image_size, shape.vision_config, problems)
    if settings.data.source and not settings.init:
        problems.add("data.source", "data.source needs init: a tokenizer made of the picture-book grammar has no words for other stories")
    elif settings.data.source and fits:
        from training.stages.planner_records import RecordData

        tokenizer = PreTrainedTokenizerFast.from_pretrained(Path(settings.init) / "tokenizer")
        try:
            found.notes = RecordData(settings.data, tokenizer, shape.vision_config, config.train.seed).table()
        except ValueError as error:
            problems.add("data.source", f"data.source = {settings.data.source!r}:\n{error}")
    if shape is not None:
        with torch.device("meta"):
            count = sum(p.numel() for p in Qwen2_5_VLForConditionalGeneration._from_config(shape).parameters())
        words, tokens = shape.get_text_config(), settings.data.batch_tokens
        found.parts = [Part(name="planner", num_values=count, num_trained=count, bytes=4 * count)]
        found.batch = f"about {tokens:,} tokens"
        found.activations = score_activations(tokens, words.vocab_size) + transformer_activations(
            tokens, words.hidden_size, words.num_hidden_layers, checkpointed=config.train.activation_checkpointing)
    return found


def check_image_size(key: str, side: int, vision_config, problems) -> bool:
    """Whether pictures of this side fit the grid of a planner's ViT; else that is a problem."""
    unit = vision_config.patch_size * vision_config.spatial_merge_size
    if side >= unit and side % unit == 0:
        return True
    problems.add(key, f"{key} is {side}, but the planner sees pictures in squares of {unit} pixels; set it to a multiple of {unit}, "
                 f"such as {max(1, round(side / unit)) * unit}")
    return False


def _run_tokenizer(settings: Settings, run_dir: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a run is trained once: a grammar that changes between two sittings must not renumber the words."""
    folder, staging = run_dir / "tokenizer", run_dir / "tokenizer.tmp"
    if not (folder / "tokenizer.json").is_file():
        texts = picturebook_texts(settings.data.tokenizer_stories)
        train_tokenizer(texts, settings.model.vocab_size).save_pretrained(staging)
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while it wrote
        os.replace(staging, folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def planner_config(shape: ModelSettings, tokenizer, image_size: int) -> Qwen2_5_VLConfig:
    return _config(shape, PlannerTokens.of(tokenizer), len(tokenizer), image_size)


def _config(shape: ModelSettings, tokens: PlannerTokens, vocab_size: int, image_size: int) -> Qwen2_5_VLConfig:
    head_size = shape.hidden_size // shape.heads
    return Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
            max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokens.eos,
            pad_token_id=tokens.pad,
            rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                 # time, y and x share of the rotated pairs: 2 : 3 : 3 as in Qwen2.5-VL
                                 mrope_section=[head_size // 8, head_size * 3 // 16, head_size * 3 // 16])),
        vision_config=dict(
            depth=shape.vision_depth, hidden_size=shape.vision_hidden, intermediate_size=shape.vision_hidden * 8 // 3,
            num_heads=shape.vision_heads, out_hidden_size=shape.hidden_size, patch_size=8, spatial_merge_size=2,
            temporal_patch_size=2,
            # one window holds the whole picture: small pictures gain nothing from windows
            window_size=image_size, fullatt_block_indexes=list(range(shape.vision_depth))),
        image_token_id=tokens.image_pad, video_token_id=tokens.video_pad, vision_start_token_id=tokens.vision_start,
        vision_end_token_id=tokens.vision_end, tie_word_embeddings=True)


class PlannerStage:
    def __init__(self, settings: Settings, model, tokenizer, *, seed: int, device):
        self.settings, self.model, self.tokenizer, self.seed, self.device = settings, model, tokenizer, seed, device
        self.trainable = {"planner": model}
        self.written: list[tuple] = []  # by the last evaluation: record, markup, checks
        self.answered: list[tuple] = []  # question, truth, answer
        self.frozen = {}  # the visualizer is not even loaded: nothing of it is needed here
        if settings.data.source:
            from training.stages.planner_records import RecordData as Data
        else:
            Data = PlannerData
        self.data = Data(settings.data, tokenizer, model.config.vision_config, seed)
        self.layers = model.model.language_model.layers
        if settings.model.compile:
            for layer in self.layers:
                layer.compile(dynamic=True)

    def batch(self, index: int) -> dict:
        return self.data.batch(index)

    def names(self, index: int) -> list[str]:
        """Where the records of a batch stand; stories of the grammar have no place of their own."""
        return self.data.names(index) if self.settings.data.source else []

    def weight(self, batch: dict) -> float:
        """What the loss is a mean over: answer tokens, facts counted by their weight."""
        return _answer_weights(batch).sum().item()

    def loss(self, batch: dict) -> tuple[torch.Tensor, dict]:
        return self.weighted_loss(self.read(batch).last_hidden_state, batch)

    def read(self, batch: dict, *, use_cache: bool = False):
        """The language model's output for a batch, with its keys and values where they are wanted."""
        pictures = {key: batch[key] for key in ("pixel_values", "image_grid_thw") if key in batch}
        # Padding lies on the right of a causal sequence: no real token sees it, so no padding mask is needed.
        return self.model.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=use_cache, **pictures)

    def weighted_loss(self, hidden_BTD: torch.Tensor, batch: dict) -> tuple[torch.Tensor, dict]:
        loss_K, weight_K, right_K = self._of_answers(hidden_BTD, batch)
        facts_K = weight_K > 1
        return (loss_K * weight_K).sum() / weight_K.sum() * batch.get("loss_factor", 1.0), {
            "cross_entropy": loss_K.detach().mean(), "accuracy": right_K.float().mean(),
            "accuracy_facts": right_K[facts_K].float().mean() if facts_K.any() else 1.0, "tokens": batch["input_ids"].numel()}

    def _cross_entropy(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self._of_answers(self.read(batch).last_hidden_state, batch)

    def _of_answers(self, hidden_BTD: torch.Tensor, batch: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, weight and whether the likeliest token is right, for each of the K answer tokens."""
        loss_K, right_K = answer_loss(self.model.lm_head, hidden_BTD, batch["labels"], excluded_BTE=batch.get("excluded"))
        return loss_K, _answer_weights(batch), right_K

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        with torch.compiler.set_stance("force_eager"):
            if self.settings.data.source:
                return self._record_losses()
            story_rates, self.written = self._stories()
            question_rates, self.answered = self._questions()
            return self._losses() | story_rates | question_rates

    def _record_losses(self) -> dict[str, float]:
        numbers = {}
        for kind in ("generation", "understanding"):
            rows = [self.data.record_row(record) for record in self.data.held_out if record.kind == kind]
            losses = [self._cross_entropy(_on(self.data.collate([row]), self.device))[0]
                      for row in rows[:self.settings.checks.loss_records]]
            if losses:
                numbers[f"loss_{kind}"] = torch.cat(losses).mean().item()
        return numbers

    def _losses(self) -> dict[str, float]:
        """Cross entropy of held-out stories and understanding records, and `image_start`: how often the likeliest token is
        `<imagine>` where a story opens an image (paper section 5, the accuracy of the image-start token)."""
        numbers = {}
        rng = held_out_rng("loss")
        for name, make in (("story", lambda: self.data.story_row(rng, split="held_out")),
                           ("understanding", lambda: self.data.understanding_row(rng, split="held_out"))):
            rows = sorted((make() for _ in range(self.settings.checks.loss_records)), key=lambda row: len(row.ids))
            batches = [self.data.collate(rows[start:start + 16]) for start in range(0, len(rows), 16)]
            losses, starts = [], []
            for batch in batches:
                loss_K, _, right_K = self._cross_entropy(_on(batch, self.device))
                labels_BT = batch["labels"][:, 1:]
                losses.append(loss_K.mean().item())
                starts.append(right_K.cpu()[labels_BT[labels_BT != IGNORED] == self.data.tokens.imagine])
            numbers[f"loss_{name}"] = float(np.mean(losses))
            if name == "story":
                numbers["image_start"] = torch.cat(starts).float().mean().item()
        return numbers

    def _stories(self) -> tuple[dict[str, float], list[tuple]]:
        """Rates of the checks over held-out requests, every count from 1 to 8 equally often; and what was written."""
        rng = held_out_rng("stories")
        count = self.settings.checks.stories
        records = [self.data.sample_story(rng, split="held_out", num_images=1 + i % 8, with_reference=i % 8 == i // 8 % 8)
                   for i in range(count)]
        # Only a told count can be right: where the request leaves it open, four are expected.
        prompts = [self.data.prompt(record, rng, pictures=record.with_reference) for record in records]
        written = [self.tokenizer.decode(ids) for ids in self._continue(prompts, self.settings.checks.max_new_tokens)]
        checks = [check_story(record, markup) for record, markup in zip(records, written)]
        return rates(checks), list(zip(records, written, checks))

    def _questions(self) -> tuple[dict[str, float], list[tuple]]:
        rng = held_out_rng("questions")
        asked = [self.data.sample_understanding(rng, split="held_out") for _ in range(self.settings.checks.questions)]
        prompts = [self.data.picture_prompt(question, [scene]) for scene, question, _ in asked]
        answers = [self.tokenizer.decode(ids) for ids in self._continue(prompts, 64)]
        right = {"answers": [], "descriptions": []}
        for (_, _, truth), answer in zip(asked, answers):
            if len(truth.split()) > 6:
                right["descriptions"].append(captions.parse_dense_prompt(answer) == captions.parse_dense_prompt(truth))
            else:
                right["answers"].append(answer == truth)
        numbers = {f"understanding_{name}": float(np.mean(values)) for name, values in right.items() if values}
        return numbers, [(question, truth, answer) for (_, question, truth), answer in zip(asked, answers)]

    def _continue(self, prompts: list[Prompt], max_new: int) -> list[list[int]]:
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            return continue_greedily(self.model, self.data.tokens, prompts, max_new)

    def samples(self, folder: Path) -> None:
        """What the last evaluation wrote and answered, and what was wrong with it; of a user's records, plans for held-out requests."""
        if self.settings.data.source:
            return self._record_samples(folder)
        with open(folder / "stories.txt", "w", encoding="utf-8") as file:
            for record, markup, checks in self.written:
                wrong = [name for name, right in checks.items() if not right]
                file.write(f"[{record.num_images}] {record.request}\n{markup}\n-> wrong: {', '.join(wrong) or 'nothing'}\n\n")
        with open(folder / "questions.txt", "w", encoding="utf-8") as file:
            for question, truth, answer in self.answered:
                file.write(f"{'right' if truth == answer else 'WRONG'}  {question}  {truth}  {answer}\n")

    def _record_samples(self, folder: Path) -> None:
        records = [record for record in self.data.held_out or self.data.records if record.plan is not None][:self.settings.checks.stories]
        if not records:
            return
        with torch.compiler.set_stance("force_eager"):
            written = self._continue([self.data.record_prompt(record) for record in records], self.settings.checks.max_new_tokens)
        for number, (record, ids) in enumerate(zip(records, written), 1):
            text = f"<!-- {record.where}: {record.request} -->\n{self.tokenizer.decode(ids)}\n"
            (folder / f"plan_{number}.md").write_text(text, encoding="utf-8")

    def export(self, folder: Path) -> None:
        model = Qwen2_5_VLForConditionalGeneration._from_config(copy.deepcopy(self.model.config))
        model.load_state_dict(self.model.state_dict())
        model = model.to(torch.bfloat16)
        model.config.dtype = torch.bfloat16
        tokens = self.data.tokens
        model.generation_config = GenerationConfig(eos_token_id=tokens.eos, pad_token_id=tokens.pad, do_sample=False)
        model.save_pretrained(folder / "planner")
        self.tokenizer.save_pretrained(folder / "tokenizer")


class PlannerData:
    """Training rows out of the story grammar, in batches of about equal numbers of tokens."""

    POOL_STEPS = 8  # rows of so many steps are drawn together and sorted by length, so that little is padding

    def __init__(self, settings: DataSettings, tokenizer, vision_config, seed: int):
        self.settings, self.tokenizer, self.vision_config, self.seed = settings, tokenizer, vision_config, seed
        self.tokens = PlannerTokens.of(tokenizer)
        self.grid = merged_grid(settings.image_size, settings.image_size, vision_config)
        self._pool = lru_cache(maxsize=2)(self._draw_pool)
        self._kinds, self._words = {}, {}  # of tokens that are a whole word of the world
        for kind in (world.HEROES, world.COLOURS, world.WEARABLES, world.PROPS, world.PLACES, world.TIMES):
            for word in kind:
                ids = encode(tokenizer, f" {word}")
                if len(ids) == 1:
                    self._kinds[ids[0]], self._words[ids[0]] = kind, word
        self._unseen_VE = self._unseen_species(len(tokenizer)) if settings.source is None else torch.full((len(tokenizer), 0), -1)

    def batch(self, index: int) -> dict:
        number, place = divmod(index, self.POOL_STEPS)
        return self.collate(self._pool(number)[place])

    def _draw_pool(self, number: int) -> list[list[Row]]:
        rng = step_rng(self.seed, number, "planner")
        rows, total = [], 0
        while total < self.POOL_STEPS * self.settings.batch_tokens:
            rows.append(self.row(rng))
            total += len(rows[-1].ids)
        rows.sort(key=lambda row: len(row.ids))
        batches, seen = [[] for _ in range(self.POOL_STEPS)], 0
        for row in rows:
            batches[min(self.POOL_STEPS - 1, seen * self.POOL_STEPS // total)].append(row)
            seen += len(row.ids)
        batches = [batch or rows[-1:] for batch in batches]
        rng.shuffle(batches)
        return batches

    def row(self, rng: random.Random) -> Row:
        if rng.random() >= self.settings.generation_ratio / (self.settings.generation_ratio + 1):
            return self.understanding_row(rng)
        if rng.random() < self.settings.bare_captions:
            return self.caption_row(rng)
        return self.story_row(rng)

    def story_row(self, rng: random.Random, *, split: str = "train") -> Row:
        return self.row_of_story(*self.story(rng, split=split), rng)

    def story(self, rng: random.Random, *, split: str = "train") -> tuple[grammar.StoryRecord, list]:
        """A story, and the scenes of the reference pictures that its request shows to the planner."""
        with_reference = rng.random() < self.settings.references
        pages = rng.choices((1, 2, 3), (6, 1, 1))[0] if split == "train" and rng.random() < self.settings.short_stories else None
        record = self.sample_story(rng, split=split, with_reference=with_reference, num_images=pages,
                                   two_heroes=rng.random() < self.settings.two_heroes)
        if with_reference and rng.random() < self.settings.reference_pictures:
            return record, self.portraits(record, rng)
        return record, []

    def sample_story(self, rng: random.Random, **wishes) -> grammar.StoryRecord:
        """As `grammar.sample_story`, in the part of the world that `data.species` names."""
        return self._known(lambda: grammar.sample_story(rng, **wishes), lambda story: story.characters)

    def sample_understanding(self, rng: random.Random, *, split: str = "train") -> tuple:
        """As `grammar.sample_understanding`, in the part of the world that `data.species` names."""
        return self._known(lambda: grammar.sample_understanding(rng, split=split), lambda drawn: _heroes_of(drawn[0]))

    def _known(self, draw, characters_of):
        species = self.settings.species
        while True:
            drawn = draw()
            if not species or all(character.species in species for character in characters_of(drawn)):
                return drawn

    def row_of_story(self, record: grammar.StoryRecord, prompt_scenes: list, rng: random.Random) -> Row:
        head = prompt_ids(self.tokenizer, self.tokens, record.request, [self.grid] * len(prompt_scenes))
        answer = encode(self.tokenizer, record.markup) + [self.tokens.eos]
        labels, scenes, weights = list(answer), list(prompt_scenes), self._story_weights(record)
        if record.num_images <= 4 and rng.random() < self.settings.closed_loop:
            answer, labels, weights = self._feed_back(answer, weights)
            scenes += record.scenes
        if self.settings.fact_noise:
            answer = self._misread(answer, weights, rng)
        return self._row(head + answer, [IGNORED] * len(head) + labels, scenes, [1.0] * len(head) + weights)

    def understanding_row(self, rng: random.Random, *, split: str = "train") -> Row:
        scene, question, answer = self.sample_understanding(rng, split=split)
        head = prompt_ids(self.tokenizer, self.tokens, question, [self.grid])
        ids = encode(self.tokenizer, answer) + [self.tokens.eos]
        return self._row(head + ids, [IGNORED] * len(head) + ids, [scene])

    def caption_row(self, rng: random.Random) -> Row:
        hide = "identity" if rng.random() < 0.4 else "none"
        scene = self._known(lambda: splits.sample_scene(rng, split="train"), _heroes_of)
        text = captions.dense_prompt(scene, rng, hide=hide)
        ids = [self.tokens.imagine, *encode(self.tokenizer, text), self.tokens.end_imagine, self.tokens.begin_of_image,
               self.tokens.eos]
        return self._row(ids, ids, [])

    def prompt(self, record: grammar.StoryRecord, rng: random.Random, *, pictures: bool) -> Prompt:
        return self.picture_prompt(record.request, self.portraits(record, rng) if pictures else [])

    def picture_prompt(self, text: str, scenes) -> Prompt:
        return self.prompt_of(text, [compose.render_array(scene, self.settings.image_size) for scene in scenes])

    def prompt_of(self, text: str, pixels_HWC: list[np.ndarray]) -> Prompt:
        grids = (self.grid,) * len(pixels_HWC)
        ids = prompt_ids(self.tokenizer, self.tokens, text, grids)
        if not pixels_HWC:
            return Prompt(ids=ids)
        patches, patch_grids = image_patches(np.stack(pixels_HWC), self.vision_config)
        return Prompt(ids=ids, grids=grids, patches_NP=patches, patch_grids=patch_grids)

    def portraits(self, record: grammar.StoryRecord, rng: random.Random) -> list:
        """A picture of each hero alone, somewhere else: what a user would bring as references."""
        return [splits.sample_scene(rng, split="any", figures=1, character=character) for character in record.characters]

    def _story_weights(self, record: grammar.StoryRecord) -> list[float]:
        """Loss weights of the markup's tokens and the end. Most tokens are free choices of wording, about which there is
        nothing to learn; the few that the request decides are what a planner is for."""
        names = "|".join(record.cast)
        facts = [match.span() for match in re.finditer(rf"\b(?:{_WORLD_WORDS}|{names})\b|(?<=<BOI>\n)\w+", record.markup)]
        offsets = self.tokenizer(record.markup, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        weights, place = [], 0
        for start, stop in offsets:
            while place < len(facts) and facts[place][1] <= start:
                place += 1
            inside = place < len(facts) and facts[place][0] < stop
            weights.append(self.settings.fact_weight if inside else 1.0)
        return [*weights, self.settings.fact_weight]

    def _misread(self, answer: list[int], weights: list[float], rng: random.Random) -> list[int]:
        """The answer as input, some words of the world replaced by others of their kind; labels stay (word dropout,
        arXiv 1511.06349). Else a planner trusts what it wrote last more than what it was asked. Held-out pairs stay unseen.
        """
        read = list(answer)
        colour = None
        for place, token in enumerate(answer):
            kind = self._kinds.get(token)
            if kind is None:
                continue
            if weights[place] > 1 and rng.random() < self.settings.fact_noise:
                species = next((t for t in answer[place + 1:place + 3] if self._kinds.get(t) is world.HEROES), None)
                read[place] = rng.choice([t for t, k in self._kinds.items() if k is kind and not self._held_out(
                    *((colour, t) if kind is world.HEROES else (t, species)))])
            colour = read[place] if kind is world.COLOURS else None
        return read

    def _unseen_species(self, vocabulary: int) -> torch.Tensor:
        """Per colour word, the species words that never follow it in training; else -1."""
        pairs = splits.load_splits()["species_colour"]
        unseen: dict[int, list[int]] = {}
        for species, colour in sorted(pairs):
            for spell in (str.lower, str.capitalize):
                words = [encode(self.tokenizer, f" {spell(word)}") for word in (colour, species)]
                if all(len(word) == 1 for word in words):
                    unseen.setdefault(words[0][0], []).append(words[1][0])
        unseen_VE = torch.full((vocabulary, max(map(len, unseen.values()), default=0)), -1)
        for colour, species in unseen.items():
            unseen_VE[colour, :len(species)] = torch.tensor(species)
        return unseen_VE

    def _excluded(self, labels_BT: torch.Tensor) -> torch.Tensor:
        """Where a species follows a colour, the species that are held out with this colour: that none of them ever stands
        there is how the split was made, not how the world is, and must not be learned. Shape (B, T, E), -1 is none."""
        excluded_BTE = self._unseen_VE[torch.roll(labels_BT, 1, dims=1).clamp(min=0)]
        return excluded_BTE.masked_fill(excluded_BTE == labels_BT[..., None], -1)

    def _held_out(self, colour: int | None, species: int | None) -> bool:
        return (self._words.get(species), self._words.get(colour)) in splits.load_splits()["species_colour"]

    def _feed_back(self, answer: list[int], weights: list[float]) -> tuple[list[int], list[int], list[float]]:
        """Answer, labels and weights with a picture after every `<BOI>`; it is given, not written: no loss on it."""
        picture = image_ids(self.tokens, self.grid)
        ids, labels, spread = [], [], []
        for token, weight in zip(answer, weights, strict=True):
            given = picture if token == self.tokens.begin_of_image else []
            ids += [token, *given]
            labels += [token, *[IGNORED] * len(given)]
            spread += [weight, *[1.0] * len(given)]
        return ids, labels, spread

    def _row(self, ids: list[int], labels: list[int], scenes, weights: list[float] | None = None) -> Row:
        pixels = tuple(compose.render_array(scene, self.settings.image_size) for scene in scenes)
        return Row(ids=ids, labels=labels, weights=weights or [1.0] * len(ids), grids=(self.grid,) * len(scenes), pixels_HWC=pixels)

    def collate(self, rows: list[Row]) -> dict:
        longest = max(len(row.ids) for row in rows)
        ids_BT = torch.full((len(rows), longest), self.tokens.pad)
        labels_BT = torch.full((len(rows), longest), IGNORED)
        weights_BT = torch.ones(len(rows), longest)
        position_3BT = torch.zeros(3, len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            length = len(row.ids)
            ids_BT[i, :length] = torch.tensor(row.ids)
            labels_BT[i, :length] = torch.tensor(row.labels)
            weights_BT[i, :length] = torch.tensor(row.weights)
            position_3BT[:, i, :length] = mrope_positions(row.ids, self.tokens, row.grids)
        batch = {"input_ids": ids_BT, "labels": labels_BT, "weights": weights_BT, "position_ids": position_3BT,
                 "excluded": self._excluded(labels_BT)}
        pixels = [picture for row in rows for picture in row.pixels_HWC]
        if pixels:
            patches, grids = image_patches(np.stack(pixels), self.vision_config)
            batch |= {"pixel_values": torch.from_numpy(patches), "image_grid_thw": torch.from_numpy(grids)}
        return batch


def _answer_weights(batch: dict) -> torch.Tensor:
    """Weights (K,) of the tokens with a loss."""
    return batch["weights"][:, 1:][batch["labels"][:, 1:] != IGNORED]


def _heroes_of(scene: world.Scene) -> list[world.Character]:
    return [figure.character for figure in scene.figures]


def _on(batch: dict, device) -> dict:
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
