"""A planner behind a function that takes one text and gives one back: no roles, no streaming, no say in the tokens.

ComfyUI's own text encoders are such. The conversation goes in as one text, the plan comes out at the end, and what is no plan
is taken away from it; images that are missing are asked for once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from ..errors import WeaverError
from .instruction import VERSION, build_messages, count_images, missing_images_message
from .stream_cleaning import ImageGate, StreamCleaner

if TYPE_CHECKING:
    from ..request import Request
    from . import HistoryItem, PlannerOptions

    WriteText = Callable[[str, list[Image.Image], PlannerOptions], str]
    """The answer to a text and some pictures, which are all of one size."""

PICTURE_SIDE = 768  # pixels; pictures are shown on squares of this side (our choice)
_SPEAKERS = {"system": "Instruction", "user": "Request", "assistant": "Answer"}


class OneTextPlanner:
    """Writes plans with `write_text`. See `planners.SeeingPlanner`; `name` is for messages.

    `notes` are sentences about the last `write` for the user.
    """

    max_images = None

    def __init__(self, write_text: WriteText, name: str, *, instruction: str = VERSION):
        self._write_text, self.name, self.instruction = write_text, name, instruction
        self.notes: list[str] = []

    def write(
        self, request: Request, history: tuple[HistoryItem, ...], *, options: PlannerOptions, cancel: Callable[[], bool]
    ) -> Iterator[str]:
        """The plan in one piece, or in two where images were missing. See `planners.Planner.write`."""
        self.notes.clear()
        pictures = [picture.image for picture in request.images] + [item for item in history if not isinstance(item, str)]
        messages = build_messages(request, history, options, version=self.instruction, picture_part=None)
        gate = ImageGate(options.num_images)
        text = self._clean(messages, pictures, options, gate, continued=bool(history))
        yield text
        missing = 0 if options.num_images is None else options.num_images - gate.num_images - gate.inside
        if gate.inside:
            yield "</imagine>\n"
            gate.num_images, gate.inside = gate.num_images + 1, False
        if gate.cut:
            self.notes.append(f"the planner went on after {gate.num_images} images; the rest is left out")
        if missing <= 0 or cancel():
            return
        self.notes.append(f"the planner wrote {gate.num_images} of {options.num_images} images; it was asked for the rest")
        more = [{"role": "assistant", "content": text.strip()},
                missing_images_message(missing, count_images(history) + gate.num_images)]  # fmt: skip
        yield "\n" + self._clean(messages + more, pictures, options, gate, continued=True)
        if gate.inside:
            yield "</imagine>"

    def answer(
        self,
        question: str,
        images: Sequence[Image.Image],
        *,
        options: PlannerOptions,
        cancel: Callable[[], bool],
        schema: dict | None = None,
    ) -> str:
        """See `planners.SeeingPlanner`. The schema is not forced."""
        cleaner = StreamCleaner()
        text = cleaner.feed(self._write_text(question, _of_one_size(images), options))
        return text + cleaner.close() + cleaner.refusal

    def _clean(self, messages: list[dict], pictures: list, options: PlannerOptions, gate: ImageGate, *, continued: bool) -> str:
        """What of the answer is plan. WeaverError for a refusal, or nothing."""
        cleaner = StreamCleaner(continued=continued)
        text = cleaner.feed(self._write_text(as_one_text(messages), _of_one_size(pictures), options)) + cleaner.close()
        if cleaner.refusal and options.num_images != 0:
            raise WeaverError(f"{self.name} refused: \"{cleaner.refusal[:300]}\" Say it in other words, or take another model")
        if not text.strip() and not cleaner.refusal and not continued:
            thought = "thought and wrote no plan; allow more than" if cleaner.has_thought else "wrote no plan within"
            raise WeaverError(f"{self.name} {thought} {options.max_tokens} tokens; try another seed or another model")
        return gate.feed(text + cleaner.refusal) + gate.close()


def as_one_text(messages: Sequence[dict]) -> str:
    """A conversation of plain texts as one, every turn under the name of who speaks; it ends where the answer belongs."""
    turns = [f"### {_SPEAKERS[message['role']]}\n{message['content']}" for message in messages]
    return "\n\n".join([*turns, "Write the answer to the last request, and nothing else.\n### Answer\n"])


def _of_one_size(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Whole pictures on grey squares; a single one keeps its shape."""
    if len(pictures) == 1:
        picture = pictures[0].convert("RGB")
        picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        return [picture]
    return [ImageOps.pad(picture.convert("RGB"), (PICTURE_SIDE, PICTURE_SIDE), color=(127, 127, 127)) for picture in pictures]
