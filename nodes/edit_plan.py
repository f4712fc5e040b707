"""Edit Plan: the plan of another node, changed by hand in the node; or one written there from nothing.

The page keeps what was changed in the text widget `edits`, so it is saved with the workflow: the whole plan as it is after
the edits, and the key of the plan that came in when they were made. So a plan that comes in later and is another one can be
told apart, and never takes the edits away.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from comfy_api.latest import io

from ..weaver_core.errors import InputError, PlanError
from ..weaver_core.plan import Plan, check_keys, load_json
from ..weaver_core.request import Request
from ..weaver_core.segments import kind_of
from . import host
from .schema import CATEGORY, PLAN, checked, fitted
from .seeds import seeds_before
from .values import PlannedStory

NODE = "Edit Plan"
FORMAT = "weaver-plan-edits"
VERSION = 1
MAX_EDITS = 16 * 2**20  # characters: a hundred times a plan of 200 segments
_MAX_TITLE = 500  # characters of a title that stand for a prompt
_SAFE_INTEGER = 2**53 - 1  # JavaScript's: the page gets and gives larger seeds as text
_HOW_TO_GO_ON = "Choose 'Start over' in Edit Plan, or paste a plan as text into Write Plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What the user made of a plan.

    base   key of the plan that had come in then; None when there was none
    num_blank   cards that nothing was written on yet: they are not part of the plan
    """

    plan: Plan
    base: str | None
    num_blank: int


class WeaverEditPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverEditPlan",
            display_name=NODE,
            category=CATEGORY,
            description="A plan to be changed by hand, in the node: texts, dense prompts, order, cast, and aspect, seed and "
            "references of every image. After a change only the pages that need it are drawn again.",
            search_aliases=["plan editor", "edit story", "edit prompts", "storyboard", "reorder pages", "review plan"],
            is_output_node=True,  # so that the editor hears of its plan in every run, also when nothing had to be done
            hidden=[io.Hidden.unique_id],
            inputs=[
                PLAN.Input("plan", optional=True, tooltip="The plan to begin with. Without one, the story is written in this node."),
                io.String.Input("edits", default="", optional=True, socketless=True,
                                tooltip="What was changed, kept by the editor; empty = the plan goes on as it came in."),
                io.Boolean.Input("review_first", default=False, optional=True,
                                 tooltip="A plan that is new stops here, before anything is drawn, until you have accepted it "
                                 "in the editor."),
                fitted(io.String.Input, "prompt", default="", optional=True, advanced=True,
                       tooltip="What the story is about, when it is written in this node. Empty = its title. Drawn pages are kept "
                       "by it. A plan that comes in brings its own."),
            ],
            outputs=[
                PLAN.Output("edited_plan", display_name="plan", tooltip="The plan as it is now, for Visualize Plan, Visualize with "
                            "Your Model and Split Plan."),
                io.String.Output("markup", display_name="markup", tooltip="The plan as text, with an id for every segment."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, edits=None):
        try:
            read_edits(edits or "")
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, plan=None, edits: str = "", review_first: bool = False, prompt: str = "") -> io.NodeOutput:
        came_in = None if plan is None else checked(plan, PlannedStory, NODE, "Weaver Plan")
        key = None if came_in is None else plan_key(came_in.plan)
        mine = read_edits(edits)
        waits = review_first and came_in is not None and (mine is None or mine.base != key)
        shown = {
            "plan": None if came_in is None else _for_page(came_in.plan),
            "key": key,
            "pictures": [] if came_in is None else [picture.name for picture in came_in.request.images],
            "waits": waits,
            "notes": [],
            "seeds": seeds_before(cls.hidden.prompt or {}, cls.hidden.unique_id) if waits else [],
        }
        if waits:
            return io.NodeOutput(host.blocker(), host.blocker(), ui={"weaver_edit_plan": [shown]})
        story, shown["notes"] = _story(came_in, mine, prompt)
        return io.NodeOutput(story, story.plan.to_markup(), ui={"weaver_edit_plan": [shown]})


def plan_key(plan: Plan) -> str:
    """16 hex digits: equal plans have equal keys."""
    return hashlib.sha256(json.dumps(plan.to_json(), ensure_ascii=True).encode()).hexdigest()[:16]


def read_edits(text: str) -> Edits | None:
    """What the editor has kept; None where nothing was edited. InputError names what is wrong and where."""
    if not isinstance(text, str):
        raise InputError(f"edits: expected the text that the editor keeps, got {kind_of(text)}. {_HOW_TO_GO_ON}")
    if not text.strip():
        return None
    if len(text) > MAX_EDITS:
        raise InputError(
            f"edits: {len(text) / 2**20:.1f} million characters; at most {MAX_EDITS >> 20} million are read. Split the story"
        )
    try:
        data = check_keys("edits", load_json(text, "edits"), required=("format", "version", "base", "plan"))
        if data["format"] != FORMAT:
            raise PlanError(f"edits.format: expected {FORMAT!r}, got {str(data['format'])[:40]!r}")
        if data["version"] != VERSION or isinstance(data["version"], bool):
            raise PlanError(
                f"edits.version: {str(data['version'])[:20]} was made by another version of this node; this one reads {VERSION}"
            )
        if data["base"] is not None and not isinstance(data["base"], str):
            raise PlanError(f"edits.base: expected the key of a plan or null, got {kind_of(data['base'])}")
        plan, num_blank = _from_page(data["plan"])
        return Edits(plan=Plan.from_json(plan), base=data["base"], num_blank=num_blank)
    except PlanError as error:
        raise InputError(f"the changes kept in {NODE} cannot be used: {error}. {_HOW_TO_GO_ON}") from None


def _story(came_in: PlannedStory | None, mine: Edits | None, prompt: str) -> tuple[PlannedStory, list[str]]:
    """What goes out, and sentences about it."""
    notes = []
    if mine is not None and mine.num_blank:
        notes.append(f"{mine.num_blank} empty card{'s are' if mine.num_blank > 1 else ' is'} left out")
    if came_in is None:
        if mine is None or not mine.plan.segments:
            raise InputError(f"{NODE} has no story yet; connect a plan, or write one in the editor: + text, + image")
        asked = prompt if prompt.strip() else mine.plan.title[:_MAX_TITLE] or "a story"
        request, changed = Request(prompt=asked, language=mine.plan.language).validated()
        return PlannedStory(plan=mine.plan, request=request), [*notes, *changed]
    if mine is None:
        return came_in, notes
    if not mine.plan.segments:
        raise InputError(f"every card in {NODE} is empty or deleted; write one, undo, or take the plan that came in")
    return PlannedStory(plan=mine.plan, request=came_in.request), notes


# ---- the plan as the page holds it: the library's JSON, with large seeds as text, and with cards that are still empty


def _for_page(plan: Plan) -> dict:
    data = plan.to_json()
    for segment in data["segments"]:
        if segment["type"] == "image" and segment["seed"] != "auto" and segment["seed"] > _SAFE_INTEGER:
            segment["seed"] = str(segment["seed"])
    return data


def _from_page(data: object) -> tuple[object, int]:
    """The plan for `Plan.from_json`, which tells what else is wrong with it; and how many cards are still empty."""
    if not isinstance(data, dict) or not isinstance(data.get("segments"), list):
        return data, 0
    segments = [segment for segment in data["segments"] if not _is_blank(segment, "text", "prompt")]
    changed = {"segments": [_with_seed(segment) for segment in segments]}
    if isinstance(data.get("cast"), list):
        changed["cast"] = [member for member in data["cast"] if not _is_blank(member, "name")]
    return {**data, **changed}, len(data["segments"]) - len(segments)


def _is_blank(part: object, *fields: str) -> bool:
    if not isinstance(part, dict):
        return False
    return any(isinstance(part.get(field), str) and not part[field].strip() for field in fields)


def _with_seed(segment: object) -> object:
    seed = segment.get("seed") if isinstance(segment, dict) else None
    if isinstance(seed, str) and seed.isascii() and seed.isdigit() and len(seed) <= 20:
        return {**segment, "seed": int(seed)}
    return segment
