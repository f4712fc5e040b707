"""What the nodes share that plan with a model of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

from ..weaver_core.planners import Planner, PlannerOptions
from ..weaver_core.request import Request
from . import host
from .live_book import LiveBook
from .plan import plan_output, read_request, read_story_so_far, write_shown
from .schema import single
from .values import PlannedStory


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What stands in `own_planner_inputs`, checked. `notes` are for the user; `before` is a story that is to go on."""

    request: Request
    options: PlannerOptions
    notes: list[str]
    before: PlannedStory | None


def read_asked(
    node: str, *, prompt, num_images, language, seed, temperature, max_tokens, images=None, request=None, story_so_far=None
) -> Asked:
    """The values of a node that takes lists. InputError for bad ones."""
    before = read_story_so_far(node, story_so_far)
    asked, notes = read_request(node, prompt, num_images, seed, images, language, given=request, before=before)
    options = PlannerOptions(
        max_tokens=single(max_tokens, "max_tokens", node),
        temperature=single(temperature, "temperature", node),
        seed=asked.seed,
    )
    return Asked(request=asked, options=options, notes=notes, before=before)


def plan_asked(asked: Asked, planner: Planner, progress: host.ProgressText, hidden) -> io.NodeOutput:
    """Lets the planner write, shown as it comes."""
    plan = write_shown(planner, asked.request, asked.options, asked.notes, progress, LiveBook(hidden), asked.before)
    return plan_output(plan, asked.request, asked.notes)
