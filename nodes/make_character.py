"""Make Character: a character (or place) with its look and pictures, for any number of stories."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.cast import Cast
from ..weaver_core.errors import InputError
from ..weaver_core.plan import CastMember
from ..weaver_core.segments import KINDS
from .pictures import reference_images
from .schema import CAST, CATEGORY, checked, fitted, single

NODE = "Make Character"


class WeaverMakeCharacter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverMakeCharacter",
            display_name=NODE,
            category=CATEGORY,
            description="A character of yours: name, look and pictures. The story knows it by name, and every page is drawn from "
            "its pictures.",
            search_aliases=["character sheet", "own character", "hero", "consistent character", "cast", "character reference"],
            is_input_list=True,  # pictures of different sizes come as a list
            inputs=[
                io.String.Input("name", default="Robin", tooltip="What the story calls the character."),
                io.String.Input("look", multiline=True, default="",
                                tooltip="What it looks like, in a sentence: a small orange fox with a blue scarf. Pictures say more."),
                io.String.Input("outfits", default="", tooltip="What it may wear, with commas: raincoat, pyjamas. Empty = as in the look."),
                fitted(io.Combo.Input, "kind", options=list(KINDS), default=KINDS[0], advanced=True,
                       tooltip="A place can be kept the same over pages, too."),
                io.Image.Input("images", optional=True,
                               tooltip="Pictures of it, the best one first: an IMAGE, a batch, or a list."),
                CAST.Input("cast", optional=True,
                           tooltip="Others that come before it; a member of the same name is replaced."),
            ],
            outputs=[CAST.Output("cast_out", display_name="cast", tooltip="For Weaver Request and Save Cast.")],
        )

    @classmethod
    def execute(cls, name, look, outfits, kind, images=None, cast=None) -> io.NodeOutput:
        pictures, notes = reference_images(images, NODE, "picture")
        member = read_member(
            single(name, "name", NODE), single(look, "look", NODE), single(outfits, "outfits", NODE), single(kind, "kind", NODE)
        )
        made = Cast.of(member, pictures)
        if not pictures and not member.look:
            notes.append(f"{member.name} has neither a look nor a picture, so only its name is known")
        return io.NodeOutput(appended(cast, made, NODE), ui={"weaver_notes": notes})


def read_member(name: str, look: str, outfits: str = "", kind: str = KINDS[0]) -> CastMember:
    """A member of the cast from what was typed. InputError begins with the name of the input."""
    worn = tuple(dict.fromkeys(" ".join(outfit.split()) for outfit in outfits.split(",") if outfit.strip()))
    try:
        return CastMember(name=name, kind=kind, look=" ".join(look.split()), outfits=worn)
    except ValueError as error:
        raise InputError(str(error)) from None


def appended(cast: list | None, more: Cast, node: str) -> Cast:
    """The cast in a node's optional input, with another one behind it."""
    before = single(cast or [], "cast", node)
    return more if before is None else checked(before, Cast, node, NODE).joined(more)
