"""When a device is full in the middle of the work, less is asked of it once, and a warning says so."""

from __future__ import annotations

import pytest
import tiny_chat_models
import torch
from small_pair import FOX, ShapeVisualizer
from PIL import Image
from tiny_pair import tiny_pair

from weaver_core.errors import WeaverError
from weaver_core.out_of_memory import Frugal, is_out_of_memory
from weaver_core.plan import parse_markup
from weaver_core.planners import PlannerOptions
from weaver_core.planners.native import NativePlanner
from weaver_core.planners.transformers_planner import TransformersPlanner
from weaver_core.request import ReferenceImage, RenderSettings, Request
from weaver_core.story import Story
from weaver_core.visualizers.native import NativeVisualizer
from weaver_core.weave import Finished, ImageReady, Warning, weave_plan, write_plan

PLAN, _ = parse_markup(FOX)
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"


class SmallCard(ShapeVisualizer):
    """Has room for so many references; `room_when_saving` once it was told to save memory."""

    def __init__(self, room: int, **how):
        super().__init__(**how)
        self.room = room

    def render(self, shot, **how):
        if len(shot.references) > self.room:
            raise torch.OutOfMemoryError(FULL)
        return super().render(shot, **how)


class FrugalCard(SmallCard):
    def save_memory(self) -> str:
        if self.room >= 0:
            return ""
        self.room = 0
        return "weights wait in main memory now"


def pictures(count: int) -> tuple[ReferenceImage, ...]:
    return tuple(ReferenceImage.read(Image.new("RGB", (8, 8), (40 * i, 0, 0)), f"r{i}")[0] for i in range(count))


def run(visualizer, count: int):
    request = Request(prompt="a fox", images=pictures(count))
    return list(weave_plan(PLAN, visualizer, request=request, story=Story(request), settings=RenderSettings(check_images=False)))


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(FULL), torch.cuda.OutOfMemoryError(FULL), MemoryError(),
                                   RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])  # fmt: skip
def test_a_full_memory_is_known_by_what_libraries_raise(error):
    assert is_out_of_memory(error) and not is_out_of_memory(RuntimeError("shapes")) and not is_out_of_memory(ValueError(FULL))


def test_fewer_references_are_taken_from_then_on_and_said_once():
    visualizer = SmallCard(2, max_references=4)
    events = run(visualizer, 4)
    assert [len(shot.references) for shot in visualizer.shots] == [2, 2, 2] and not of(events, Finished)[0].missing
    (warning,) = [event.message for event in of(events, Warning)]
    assert "memory is full; from here on an image is drawn from at most 2 references instead of 4" in warning
    assert [[used.source for used in event.rendering.references] for event in of(events, ImageReady)] == [["r0", "r1"]] * 3


def test_it_falls_back_once_per_image_and_then_the_image_has_failed():
    events = run(SmallCard(-1, max_references=2), 2)
    assert of(events, Finished)[0].missing == ("p1", "p2", "p3")
    assert sum("memory is full" in event.message for event in of(events, Warning)) == 1
    assert sum("could not be drawn: OutOfMemoryError" in event.message for event in of(events, Warning)) == 3


def test_a_visualizer_that_can_save_memory_is_asked_to():
    visualizer = FrugalCard(-1, max_references=0)
    assert isinstance(visualizer, Frugal) and not isinstance(ShapeVisualizer(), Frugal)
    events = run(visualizer, 0)
    assert not of(events, Finished)[0].missing
    assert [event.message for event in of(events, Warning)] == ["p1: the memory is full; weights wait in main memory now"]


def test_the_native_visualizer_draws_on_with_fewer_references():
    """The real networks: memory that is full once, while three references are looked at."""
    model = tiny_pair()
    visualizer, filled = NativeVisualizer(model), []

    def fill(module, inputs):
        if not filled:
            filled.append(len(visualizer._references))
            raise torch.OutOfMemoryError(FULL)

    handle = model.visualizer.register_forward_pre_hook(fill)
    try:
        request = Request(prompt="a fox", images=pictures(3))
        events = list(weave_plan(PLAN, visualizer, planner=NativePlanner(model), request=request, story=Story(request),
                                 settings=RenderSettings(steps=1, check_images=False)))  # fmt: skip
    finally:
        handle.remove()
    assert filled == [3] and not of(events, Finished)[0].missing
    assert [len(event.rendering.references) for event in of(events, ImageReady)] == [1, 1, 1]
    assert visualizer.save_memory() == "references that were encoded for other pages are given up"
    assert visualizer.save_memory() == ""


# ---- planners


@pytest.fixture
def planner(tmp_path):
    return TransformersPlanner(tiny_chat_models.writing(tmp_path), device="cpu")


REQUEST, OPTIONS = Request(prompt="A fox's day.", num_images=1), PlannerOptions(num_images=1, max_tokens=90, seed=5)


def fill_after(planner, num_tokens: int):
    """The memory is full once, when so many tokens have been written."""
    left = [num_tokens]

    def fill(module, inputs):
        left[0] -= 1
        if left[0] == -1:
            raise torch.OutOfMemoryError(FULL)

    return planner.model.model.embed_tokens.register_forward_pre_hook(fill)


def test_a_planner_that_does_not_fit_goes_on_on_the_cpu_and_writes_the_same(planner):
    expected = "".join(planner.write(REQUEST, (), options=OPTIONS, cancel=lambda: False))
    with fill_after(planner, 0):
        events = list(write_plan(REQUEST, planner, options=OPTIONS))
    assert any("memory is full" in event.message and "CPU" in event.message for event in of(events, Warning))
    assert "".join(planner.write(REQUEST, (), options=OPTIONS, cancel=lambda: False)) == expected and not planner.notes


def test_a_planner_that_runs_out_in_the_middle_says_what_helps(planner):
    with fill_after(planner, 5), pytest.raises(WeaverError, match="memory is full after 5 tokens.*4 bits"):
        "".join(planner.write(REQUEST, (), options=OPTIONS, cancel=lambda: False))


def test_a_planner_that_cannot_be_brought_to_its_device_stays_on_the_cpu(planner, monkeypatch):
    real, tried = torch.nn.Module.to, []

    def full_once(module, *args, **how):
        tried.append(args)
        if len(tried) == 1:
            raise torch.OutOfMemoryError(FULL)
        return real(module, *args, **how)

    monkeypatch.setattr(torch.nn.Module, "to", full_once)
    text = "".join(planner.write(REQUEST, (), options=OPTIONS, cancel=lambda: False))
    assert text and "memory is full" in planner.notes[0] and len(tried) == 2
