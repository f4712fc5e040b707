"""What the native planner is told of a request: the prompt, who the heroes are, and how many images there shall be.

It was trained on requests of one or two sentences, so everything is said in their words ("Robin, the hero in the picture").
What it has no words for is told to the user instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..image_count import asked_images, recounted
from ..picturebook.names import Names
from ..picturebook.wordings import as_trained
from .chapters import Chapter

if TYPE_CHECKING:
    from ..request import ReferenceImage, Request
    from ..segments import CastMember

MAX_HEROES = 2


def prompt_for(request: Request, chapter: Chapter | None) -> str:
    """The request as one text. With a chapter, the number of images is that of the chapter."""
    prompt = names_of(request).told(as_trained(_with_heroes(request)))
    if chapter is None:
        return prompt
    told = chapter.told
    if asked_images(prompt) not in (None, told):
        prompt = recounted(prompt, told)
    return prompt if request.num_images is None else f"{prompt} Please make {told} picture{'s' * (told != 1)}."


def names_of(request: Request) -> Names:
    """The heroes' names, and those under which the planner is told of them."""
    return Names(_with_heroes(request), [member.name for member in _heroes(request)])


def shown_pictures(request: Request) -> list[ReferenceImage]:
    """The pictures that the planner sees: one of each hero, in the order in which they are named, then those of nobody."""
    by_name = {picture.name: picture for picture in request.images}
    bound = {name for member in request.cast for name in member.references}
    heroes = [_picture_of(member, by_name) for member in _heroes(request)]
    return [by_name[name] for name in heroes if name] + [picture for picture in request.images if picture.name not in bound]


def cannot_follow(request: Request) -> Iterator[str]:
    """Sentences about wishes that this planner is not told."""
    if request.language.lower().split("-")[0] != "en":
        yield (f"the planner of this model cannot be told to write in {request.language!r}; it writes in the language of its "
               "training (the picture-book model: English). Use a planner of your own for other languages")  # fmt: skip
    if request.style:
        yield "the planner of this model cannot be told a style; its visualizer draws in the style of its training"
    heroes = _heroes(request)
    if left := [member.name for member in request.cast if member not in heroes]:
        yield f"the planner of this model is told of {MAX_HEROES} heroes at most; it does not know {', '.join(left)}"
    if dressed := [member.name for member in heroes if member.outfits]:
        yield f"the planner of this model cannot be told outfits ({', '.join(dressed)}); say what is worn in the look"


def _heroes(request: Request) -> list[CastMember]:
    return [member for member in request.cast if member.kind == "character"][:MAX_HEROES]


def _picture_of(member: CastMember, known) -> str | None:
    return next((name for name in member.references if name in known), None)


def _with_heroes(request: Request) -> str:
    """The prompt, with who the heroes are where it names them, or behind it."""
    heroes, prompt = _heroes(request), request.prompt
    pictures = {picture.name for picture in request.images}
    if not heroes:
        return prompt
    if len(heroes) == MAX_HEROES and all(_picture_of(member, pictures) for member in heroes):
        return _joined(prompt, f"The heroes are {heroes[0].name} and {heroes[1].name}, the two heroes in the pictures.")
    for member in heroes:
        told = "the hero in the picture" if _picture_of(member, pictures) else member.look.rstrip(" .")
        name = re.search(rf"(?<!\w){re.escape(member.name)}(?!\w)", prompt, re.IGNORECASE)
        if name is None:
            prompt = _joined(prompt, f"The hero is {member.name}{', ' if told else ''}{told}.")
        elif told and told.casefold() not in prompt.casefold():
            behind = prompt[name.end():]
            prompt = prompt[:name.end()] + f", {told}" + (behind if re.match(r"\s*([,.;:!?]|$)", behind) else "," + behind)
    return prompt


def _joined(prompt: str, sentence: str) -> str:
    return f"{prompt}{'' if prompt[-1] in '.!?' else '.'} {sentence}"
