"""Keep Page: puts one drawn page into its story's draft. Visualize with Your Model makes these nodes, users do not."""

from __future__ import annotations

import json
from dataclasses import replace

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from ..weaver_core.pictures import image_key
from ..weaver_core.rendering import Rendering
from ..weaver_core.story import StoryFolder
from ..weaver_core.visualizers.graph.attempts import Page, emit_again, judge, keep, page_of
from ..weaver_core.visualizers.graph.nodes import NodeGraph, fitted_graph
from ..weaver_core.visualizers.graph.shots import check_complete, rendering_of
from . import host
from .critic import CRITIC, critic_beside
from .drafts import draft_named, woven
from .live_book import LiveBook
from .pictures import reference_images, to_tensor
from .schema import CATEGORY, STORY, fitted
from .values import PagesSoFar

NODE = "Keep Page"


class WeaverKeepPage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverKeepPage",
            display_name=NODE,
            category=CATEGORY,
            description="Made by Visualize with Your Model for every page that it draws: keeps the page so that it need not be "
            "drawn again. There is no use in adding it by hand.",
            is_dev_only=True,  # hidden from the list of nodes
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.dynprompt, io.Hidden.extra_pnginfo],
            inputs=[
                io.Image.Input("image", tooltip="The page that was drawn."),
                io.String.Input("draft", default="", tooltip="Name of the story's folder in output/weaver-drafts."),
                io.String.Input("facts", default="", tooltip="What the page was drawn from, as JSON."),
                io.String.Input("notes", default="[]", tooltip="Sentences to show under the node, as a JSON list."),
                io.Boolean.Input("last", default=False, tooltip="Whether this page completes the story."),
                STORY.Input("after", optional=True, tooltip="From the node that keeps the page before this one."),
                io.String.Input("again", default="", optional=True,
                                tooltip="How the page is drawn again when it looks wrong, as JSON. Empty = it is kept as it is."),
                CRITIC.Input("critic", optional=True, tooltip="Who looks at the page."),
            ],
            outputs=[
                io.Image.Output("page", display_name="page", tooltip="The page as it was kept."),
                STORY.Output("story", display_name="story", tooltip="The story, once it is complete."),
                io.Image.Output("images", display_name="images", tooltip="Its images in order, once it is complete."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        # Such a node is only made for a page that is not kept. ComfyUI may remember it from before the draft was deleted.
        return float("nan")

    @classmethod
    def execute(
        cls, image, draft: str, facts: str, notes: str = "[]", last: bool = False, after=None, again: str = "", critic=None
    ) -> io.NodeOutput:
        (picture, *_), _ = reference_images([image], NODE, "page")
        so_far = after if isinstance(after, PagesSoFar) else PagesSoFar()
        with draft_named(draft) as story:
            rendering = replace(_rendering(facts, story), size=picture.image.size)
            if again:
                page = _page(again)
                drawn, shown, look = keep(page, rendering, picture.image, story)
                told = (*page.notes, *look.notes)
                if look.next is None and critic is not None and not so_far.critic_fails:
                    with critic_beside(critic, None) as who:  # after the page is kept: who cannot be asked costs no page
                        look = judge(page, drawn, shown, story, who, cancel=host.interrupted)
                    told += look.notes
                LiveBook(cls.hidden).hear_draft(story)
                if look.next:
                    return cls._drawn_again(replace(page, attempt=look.next, notes=told), rendering, story)
                so_far = PagesSoFar(notes=(*so_far.notes, *told), critic_fails=so_far.critic_fails or look.critic_fails)
            else:
                story.keep(replace(rendering, image_key=image_key(picture.image)), picture.image)
                LiveBook(cls.hidden).hear_draft(story)
            kept = to_tensor(story.image(rendering.segment_id))  # as it is in the file: later pages see the same whenever they are drawn
            if not last:
                return io.NodeOutput(kept, so_far, None)
            check_complete(story)
            story.finish()
            complete = woven(story)
            images = [to_tensor(story.image(image_id)) for image_id in complete.images]
        return io.NodeOutput(kept, complete, images, ui={"weaver_notes": [*json.loads(notes), *so_far.notes]})

    @classmethod
    def _drawn_again(cls, page: Page, rendering: Rendering, story: StoryFolder) -> io.NodeOutput:
        """In place of this node: the nodes of another drawing, and one that keeps it."""
        mine = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]
        graph = NodeGraph(host.graph_prefix())
        image = emit_again(graph, page, rendering, story.plan)
        kept = graph.node("WeaverKeepPage", f"{rendering.segment_id}.keep", **{**mine, "image": image, "again": page.to_text()})
        emitted = graph.finalize()
        expansion = fitted_graph(emitted, host.node_classes({node["class_type"] for node in emitted.values()}))
        return io.NodeOutput(kept.out(0), kept.out(1), kept.out(2), expand=expansion)


def _page(again: str) -> Page:
    """How the page is drawn again. The text may come from a stranger's workflow."""
    try:
        return page_of(again)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{NODE} cannot read how its page is drawn again; it is made by Visualize with Your Model, not by hand") from None


def _rendering(facts: str, story: StoryFolder) -> Rendering:
    """What the page was drawn from. The text may come from a stranger's workflow: it must name an image of the draft's plan."""
    try:
        rendering = rendering_of(facts, story)
        known = rendering.segment_id in {image.id for image in story.plan.images}
    except (ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise InputError(f"{NODE} got facts that it cannot use; it is made by Visualize with Your Model, not by hand")
    return rendering
