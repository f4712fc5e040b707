"""Write Plan: a plan from markup that was typed by hand or pasted from anywhere; no model is needed."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from ..weaver_core.plan import Plan, parse_markup
from ..weaver_core.planners.stream_cleaning import StreamCleaner
from ..weaver_core.request import Request
from .schema import CATEGORY, PLAN, fitted
from .values import PlannedStory

NODE = "Write Plan"
MAX_MARKUP = 4 * 2**20  # characters: a hundred times the longest picture book
MAX_NOTES = 50
_PIECE = 4096
_MAX_TITLE = 500  # characters of a title that stand for a prompt
DEFAULT_MARKUP = """# Pip at the beach
<cast name="Pip" look="a small red fox with a scarf">
Pip the fox runs down to the beach.
<imagine cast="Pip">A small red fox with a scarf runs on the left, at the beach by day.</imagine>
There he finds a ball.
<imagine cast="Pip">A small red fox with a scarf stands beside a ball, at the beach by day.</imagine>
"""


class WeaverWritePlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverWritePlan",
            display_name=NODE,
            category=CATEGORY,
            description="Your own story as a plan: text, with <imagine>...</imagine> around the dense prompt of each "
            "image. Typed by hand, or pasted from any chat model.",
            search_aliases=["markup to plan", "own story", "text to plan", "paste story", "edit plan", "plan json"],
            inputs=[
                io.String.Input("markup", multiline=True, default=DEFAULT_MARKUP,
                                tooltip="A '# title', text, and <imagine>dense prompt</imagine> where images belong. "
                                "A plan in JSON can be read as well."),
                io.String.Input("prompt", default="", optional=True,
                                tooltip="What the story is about, in words as you would ask for it. Empty = its title. "
                                "Drawn pages are kept by it."),
            ],
            outputs=[
                PLAN.Output("plan", display_name="plan", tooltip="The plan, for Visualize Plan and Split Plan."),
                io.String.Output("plan_markup", display_name="markup",
                                 tooltip="The plan as it was understood, with an id for every segment."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, markup=None):
        # Only typed markup comes here, so that the message is there before anything runs; a linked one is checked in execute.
        if isinstance(markup, str):
            try:
                _check(markup)
            except InputError as error:
                return str(error)
        return True

    @classmethod
    def execute(cls, markup: str, prompt: str = "") -> io.NodeOutput:
        _check(markup)
        plan, notes = _read(markup)
        if not plan.segments:
            raise InputError(
                "the markup holds no story, only a title or tags; write some text, and <imagine>...</imagine> for images"
            )
        if not plan.images:
            notes.append("the plan has no images; write <imagine>what the image shows</imagine> where one belongs")
        asked = prompt if prompt.strip() else plan.title[:_MAX_TITLE] or "a story"
        request, changed = Request(prompt=asked, language=plan.language).validated()
        notes += changed
        return io.NodeOutput(PlannedStory(plan=plan, request=request), plan.to_markup(), ui={"weaver_notes": notes})


def _check(markup: str) -> None:
    if not markup.strip():
        raise InputError("the markup is empty; write a story, with <imagine>...</imagine> where images belong")
    if len(markup) > MAX_MARKUP:
        raise InputError(
            f"the markup has {len(markup) / 2**20:.1f} million characters; at most {MAX_MARKUP >> 20} million are read. "
            "Split the story"
        )


def _read(text: str) -> tuple[Plan, list[str]]:
    """The plan in markup or JSON, and sentences about what was odd. PlanError for JSON that is no plan."""
    if text.lstrip().startswith("{"):
        return Plan.loads(text), []
    notes = []
    cleaned = _cleaned(text)
    if cleaned.strip() and cleaned.strip() != text.strip():
        text = cleaned
        notes.append("what a chat model says around a story (greetings, thoughts, code fences) is left out; "
                     "lines are counted without it")  # fmt: skip
    plan, warnings = parse_markup(text)
    notes += map(str, warnings[:MAX_NOTES])
    if len(warnings) > MAX_NOTES:
        notes.append(f"and {len(warnings) - MAX_NOTES} more")
    return plan, notes


def _cleaned(answer: str) -> str:
    """The story in a chat model's answer."""
    cleaner = StreamCleaner(continued=True)
    pieces = [cleaner.feed(answer[start : start + _PIECE]) for start in range(0, len(answer), _PIECE)]
    return "".join(pieces) + cleaner.close()
