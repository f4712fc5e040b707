"""Weaver Request: what is asked for, said once, for every node that plans."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.cast import Cast
from ..weaver_core.errors import InputError
from ..weaver_core.request import MAX_IMAGES, Request
from .pictures import reference_images
from .plan import DEFAULT_PROMPT, typed_prompt_is_usable
from .schema import CAST, CATEGORY, REQUEST, checked, fitted, single

NODE = "Weaver Request"
FREE = "as the planner likes"
ASPECTS = (FREE, "1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16")


class WeaverRequest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverRequest",
            display_name=NODE,
            category=CATEGORY,
            description="What the story shall be: prompt, number of images, language, shape and style of the images, cast and "
            "pictures. For Weaver Plan and the other nodes that plan.",
            search_aliases=["story request", "story settings", "prompt", "style", "aspect ratio", "story language"],
            is_input_list=True,  # pictures of different sizes come as a list
            inputs=[
                io.String.Input("prompt", multiline=True, default=DEFAULT_PROMPT,
                                tooltip="What the story is about: who, where, what happens."),
                io.Int.Input("num_images", default=0, min=0, max=MAX_IMAGES,
                             tooltip="How many images the story has. 0 = as the prompt says, else as the planner likes."),
                io.String.Input("language", default="en", tooltip="Language of title and page texts, such as en, de or zh."),
                io.Combo.Input("aspect", options=list(ASPECTS), default=FREE,
                               tooltip="Width to height of all images. The visualizer takes the nearest that it can draw."),
                io.String.Input("style", default="",
                                tooltip="How all images shall look, such as: watercolour, soft light. Empty = as the planner likes."),
                CAST.Input("cast", optional=True,
                           tooltip="Characters of yours, from Make Character, Load Cast or Character from Story."),
                io.Image.Input("images", optional=True,
                               tooltip="Other pictures that the story is about: an IMAGE, a batch, or a list."),
            ],
            outputs=[
                REQUEST.Output("request", display_name="request", tooltip="For the request input of the nodes that plan."),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt=None):
        return typed_prompt_is_usable(prompt)

    @classmethod
    def execute(cls, prompt, num_images, language, aspect, style, cast=None, images=None) -> io.NodeOutput:
        shape = single(aspect, "aspect", NODE)
        if shape not in ASPECTS:
            raise InputError(f"aspect is {str(shape)[:40]!r}; it must be one of {', '.join(ASPECTS)}")
        pictures, notes = reference_images(images, NODE, "picture")
        request = Request(
            prompt=single(prompt, "prompt", NODE),
            images=pictures,
            num_images=single(num_images, "num_images", NODE) or None,
            aspect=None if shape == FREE else shape,
            language=single(language, "language", NODE),
            style=single(style, "style", NODE),
        )
        if cast:
            request = checked(single(cast, "cast", NODE), Cast, NODE, "Make Character").into(request)
        request, changed = request.validated()
        return io.NodeOutput(request, ui={"weaver_notes": [*notes, *changed]})
