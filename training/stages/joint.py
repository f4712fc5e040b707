"""Stage `joint`: planner and visualizer learn together on the same interleaved stories: the baseline that the paper argues against.

A batch holds whole stories (request, text, dense prompts, and in a share of them the drawn pictures after their `<BOI>`) and questions
about pictures. The planner reads each sequence once. Its scores give the cross entropy of the answers; its keys and values, cut by
the windows and *not* detached, are what the visualizer draws some of the stories' pages under. One loss, one backward pass:

    cross entropy + flow_weight * flow matching

Everything else is the two decoupled stages' own: rows and cross entropy of `planner`, shots and flow matching of `visualizer`.

Source   paper sections 1, 3 and 5.1: "training both jointly makes the losses fight"; the weight of the sum is our choice

Axes: B shots, S sequences read by the planner, T tokens.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from training.estimate import Inspection
from training.stages import planner, step_rng, visualizer, visualizer_settings
from training.stages.exported_pair import ExportedPair
from training.stages.planner import PlannerStage
from training.stages.visualizer import VisualizerStage, shots_of_story, window_index
from training.stages.visualizer_checks import inspect_visualizer
from training.stages.visualizer_settings import Phase
from weaver_core.model.checkpoint import default_dtype
from weaver_core.model.dpcw import gather_windows
from weaver_core.picturebook.shots import portrait

PAGES = 4  # of one story that are drawn in a step; more of the same story would say little new


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings(visualizer_settings.DataSettings):
    phases: tuple[Phase, ...] = (Phase(until=1.0, story=1.0),)  # whole stories only; their sizes may grow


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(visualizer_settings.Settings):
    """Keys of the visualizer's stage, where `planner` is the one to start from, and below `stories` those of the planner's."""

    data: DataSettings = field(default_factory=DataSettings)
    stories: planner.DataSettings = field(default_factory=lambda: planner.DataSettings(bare_captions=0.0))  # batch_tokens is not used
    checks: planner.CheckSettings = field(default_factory=planner.CheckSettings)
    flow_weight: float = 1.0  # of the flow matching loss beside the cross entropy

    def __post_init__(self):
        visualizer_settings.Settings.__post_init__(self)
        if self.lora.rank:
            raise ValueError("lora.rank is set, but the joint stage trains both networks whole; leave it 0")
        if self.data.source is not None or self.stories.source is not None:
            raise ValueError("data.source and stories.source are for decoupled stages; the joint stage trains on the picture-book stories")
        if any(phase.t2i or phase.si2i or phase.mi2i for phase in self.data.phases):
            raise ValueError("data.phases of the joint stage hold stories only: give story = 1.0 and no other share")
        if self.stories.fact_noise or self.stories.bare_captions:
            raise ValueError("stories.fact_noise and stories.bare_captions must be 0: pages are drawn under what the planner reads")
        if self.flow_weight <= 0:
            raise ValueError(f"flow_weight is {self.flow_weight}; it must be above 0")

    def of_planner(self) -> planner.Settings:
        return planner.Settings(model=planner.ModelSettings(compile=self.model.compile), data=self.stories, checks=self.checks,
                                init=self.planner)


def build(settings: Settings, *, seed: int, run_dir: Path, device) -> JointStage:
    return JointStage(settings, planner.build(settings.of_planner(), seed=seed, run_dir=run_dir, device=device), seed=seed, device=device)


def inspect(settings: Settings, config, problems) -> Inspection:
    """The visualizer's inspection with the planner's in place of a frozen planner's."""
    if config.train.activation_checkpointing:
        problems.add("train.activation_checkpointing", "train.activation_checkpointing = true, but the joint stage draws under the planner's keys and "
                     "values, which a planner that computes its blocks again does not keep; set it to false, or lower data.batch_size")
    found = inspect_visualizer(settings, config, problems)
    if not (Path(settings.planner) / "planner" / "config.json").is_file():  # told already
        return found
    read = planner.inspect(settings.of_planner(), config, problems, data="stories")
    found.parts = [*read.parts, *(part for part in found.parts if part.name != "planner")]
    found.activations += read.activations
    return found


class JointStage:
    """Two stages over one planner; both networks are trained."""

    num_batches = 1

    def __init__(self, settings: Settings, planner_stage: PlannerStage, *, seed: int, device):
        self.settings, self.seed = settings, seed
        self.planner = planner_stage
        self.visualizer = _DrawnAlong(settings, seed=seed, device=device, planner=(planner_stage.model, planner_stage.tokenizer))
        self.trainable = self.planner.trainable | self.visualizer.trainable
        self.frozen = self.visualizer.frozen

    def batch(self, index: int) -> dict:
        rng = step_rng(self.seed, index, "joint")
        options, data = self.settings.data, self.planner.data
        rows, shots, windows = [], [], []
        while len(shots) < options.batch_size:
            story, shown = data.story(rng)
            if not self.visualizer.knows(story.characters):
                continue
            if rng.random() < 1 / self.settings.stories.generation_ratio:
                rows.append(data.understanding_row(rng))
            row = data.row_of_story(story, shown, rng)
            heroes = tuple(shown or (portrait(rng, hero) for hero in story.characters)) if story.with_reference else ()
            pages = rng.sample(range(story.num_images), min(PAGES, story.num_images, options.batch_size - len(shots)))
            found = self.visualizer.windows_of(row.ids)
            windows += [(len(rows), found[page]) for page in pages]
            shots += shots_of_story(story, pages, heroes, tuple(shown))
            rows.append(row)
        target, seen = self.visualizer.batch_sizes(index / self.num_batches, index)
        pictures = self.visualizer.pack_pictures(shots, rng, size=target, reference_size=seen, drop_references=options.drop_references)
        words = torch.tensor([rng.random() >= options.drop_text for _ in shots])
        return {"kind": "story", **data.collate(rows), **pictures, **window_index(windows), "words_B": words}

    def weight(self, batch: dict) -> float:
        """Of the cross entropy; every batch holds equally many pictures, so that flow matching needs none."""
        return self.planner.weight(batch)

    def loss(self, batch: dict) -> tuple[Tensor, dict]:
        read = self.planner.read(batch, use_cache=True)
        windows = gather_windows(read.past_key_values, batch["position_ids"], batch["sequence_B"], batch["windows_BT"])
        cross_entropy, told = self.planner.weighted_loss(read.last_hidden_state, batch)
        flow_loss, drawn = self.visualizer.loss(batch, windows)
        return cross_entropy + self.settings.flow_weight * flow_loss, told | drawn

    def evaluate(self) -> dict[str, float]:
        """What both decoupled stages measure, in their words."""
        return self.planner.evaluate() | self.visualizer.evaluate()

    def samples(self, folder: Path) -> None:
        self.planner.samples(folder)
        self.visualizer.samples(folder)

    def export(self, folder: Path) -> None:
        """`planner` and `tokenizer` beside `visualizer`: `assemble.py` takes the folder as planner, and the last as visualizer."""
        self.planner.export(folder)
        self.visualizer.export(folder / "visualizer")


class _DrawnAlong(VisualizerStage):
    """The visualizer's stage over a planner that learns too: samples show the planner as its export rounds it."""

    def exported_pair(self) -> ExportedPair:
        dtype = default_dtype(torch.device(self.device))
        bare = type(self.planner)._from_config(copy.deepcopy(self.planner.config))
        bare.load_state_dict(self.planner.state_dict())
        bare = nn.Module.to(bare, device=self.device, dtype=torch.bfloat16).to(dtype).eval()
        return ExportedPair(self.settings, bare, self.tokenizer, self.bare_twin(torch.bfloat16), None)
