"""Character from Story: whom a story shows becomes a character of its own, with a drawn page as its picture."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..weaver_core.cast import Cast
from ..weaver_core.errors import InputError
from ..weaver_core.plan import CastMember
from ..weaver_core.request import ReferenceImage
from .make_character import appended, read_member
from .pick_image import MAX_PAGE, drawn_image
from .schema import CAST, CATEGORY, STORY, checked, fitted
from .split_plan import page_texts
from .values import WovenStory

NODE = "Character from Story"


class WeaverCharacterFromStory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverCharacterFromStory",
            display_name=NODE,
            category=CATEGORY,
            description="Takes a character out of a story, so that other stories can tell of it: its look, and its own pictures "
            "or a page that shows it.",
            search_aliases=["extract character", "reuse hero", "character sheet", "same hero again", "cast"],
            inputs=[
                STORY.Input("story", tooltip="From Visualize Plan, Interleave or Load Story."),
                io.String.Input("character", default="",
                                tooltip="The character's name. Empty = the only one of the story's cast."),
                io.Int.Input("page", default=0, min=0, max=MAX_PAGE,
                             tooltip="The page that shows it best, counted from 1. 0 = its own pictures, else the first page with it."),
                io.String.Input("look", multiline=True, default="",
                                tooltip="What it looks like, in a sentence. Empty = as the story's cast says."),
                CAST.Input("cast", optional=True, tooltip="Others that come before it; a member of the same name is replaced."),
            ],
            outputs=[CAST.Output("cast_out", display_name="cast", tooltip="For Weaver Request and Save Cast.")],
        )

    @classmethod
    def execute(cls, story, character: str = "", page: int = 0, look: str = "", cast=None) -> io.NodeOutput:
        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        member = _member(woven, character)
        if look.strip():
            member = replace(member, look=" ".join(look.split()))
        own = Cast.from_request(woven.request).pictures_of(member) if page == 0 else ()
        pictures = own or (_page_picture(woven, page or _first_page(woven, member.name)),)
        made = Cast.of(member, pictures)
        return io.NodeOutput(appended([] if cast is None else [cast], made, NODE))


def _member(woven: WovenStory, name: str) -> CastMember:
    """The member of the story's cast, or a new one of this name. InputError when it is not clear who is meant."""
    cast = woven.plan.cast
    if name.strip():
        known = (member for member in cast if member.name.casefold() == " ".join(name.split()).casefold())
        return next(known, None) or read_member(name, "")
    characters = [member for member in cast if member.kind == "character"]
    if len(characters) == 1:
        return characters[0]
    there = f"the story's cast is {', '.join(member.name for member in characters)}" if characters else "the story names no cast"
    raise InputError(f"character is empty, and {there}; write the name of the one that you mean")


def _first_page(woven: WovenStory, name: str) -> int:
    """The first page that shows somebody: by its cast, else by its text, else the first page."""
    images, texts = woven.plan.images, page_texts(woven.plan)
    drawn = [number for number, image in enumerate(images, 1) if image.id in woven.images]
    by_cast = (number for number in drawn if name in images[number - 1].cast)
    by_text = (number for number in drawn if name.casefold() in texts[number - 1].casefold())
    return next(by_cast, None) or next(by_text, None) or next(iter(drawn), 1)


def _page_picture(woven: WovenStory, page: int) -> ReferenceImage:
    return ReferenceImage.read(drawn_image(woven, page).read(), f"page-{page}")[0]
