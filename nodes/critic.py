"""Critic: who looks at every image that is drawn, and how often one may be drawn again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from comfy_api.latest import io

from ..weaver_core.critic import BEST, LEAST, MAX_REDRAWS, Critic, is_done_with
from ..weaver_core.rendering import Rendering
from . import host
from .hosted_planner import WEIGHTS, HostedPlanner, hosted_planner, stamp_of
from .plan_with_clip import clip_planner
from .plan_with_server import server_planner
from .schema import CATEGORY, fitted

NODE = "Critic"
CRITIC = io.Custom("WEAVER_CRITIC")
SERVER = "a server"


@dataclass(frozen=True, eq=False, kw_only=True)
class CriticWish:
    """WEAVER_CRITIC: which model judges, and how strictly. `clip` comes first, then a server, then a model of models/LLM."""

    clip: object | None
    model: str
    url: str
    server_model: str
    weights: str
    keep_loaded: bool
    max_redraws: int
    least_score: int

    def is_done_with(self, rendering: Rendering) -> bool:
        return is_done_with(rendering, max_redraws=self.max_redraws, least=self.least_score)


class WeaverCritic(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverCritic",
            display_name=NODE,
            category=CATEGORY,
            description="A model that sees looks at every image that is drawn: number of characters, looks, scene, collage, "
            "stray letters. What it finds wrong is drawn again in its words, and the best picture is kept.",
            search_aliases=["judge", "quality check", "redraw", "vlm check", "image critic", "review"],
            inputs=[
                io.Combo.Input("model", options=[SERVER, *host.planner_names()],
                               tooltip="A server, or a model that sees under models/LLM."),
                io.String.Input("url", default="http://localhost:11434/v1", tooltip="The server's address, for a server only."),
                io.String.Input("server_model", default="qwen3-vl:8b", tooltip="The name by which the server knows the model. It must see."),
                io.Int.Input("max_redraws", default=1, min=0, max=MAX_REDRAWS,
                             tooltip="How often an image may be drawn again. 0 = only score the images."),
                fitted(io.Int.Input, "least_score", default=LEAST, min=0, max=BEST, advanced=True,
                       tooltip="An image with a lower score is drawn again. 10 = right in every way."),
                fitted(io.Combo.Input, "weights", options=list(WEIGHTS), default=WEIGHTS[0], advanced=True,
                       tooltip="nf4 loads a model of models/LLM in 4 bits: about a third of the memory. Needs bitsandbytes."),
                fitted(io.Boolean.Input, "keep_loaded", default=False, advanced=True,
                       tooltip="Keep a model of models/LLM in memory after the run, for the next one."),
                io.Clip.Input("clip", optional=True,
                              tooltip="Instead of the above: a text encoder that can write and see, such as qwen3vl_4b. Needs ComfyUI 0.26."),
            ],
            outputs=[CRITIC.Output("critic", display_name="critic", tooltip="For the critic input of Visualize Plan or Visualize with Your Model.")],
        )

    @classmethod
    def fingerprint_inputs(cls, model="", **others):
        """Changes when the files of the model change."""
        return stamp_of(model)

    @classmethod
    def execute(
        cls, model, url, server_model, max_redraws, least_score=LEAST, weights=WEIGHTS[0], keep_loaded=False, clip=None
    ) -> io.NodeOutput:
        wish = CriticWish(
            clip=clip, model=model, url=url, server_model=server_model, weights=weights, keep_loaded=keep_loaded,
            max_redraws=max_redraws, least_score=least_score,
        )  # fmt: skip
        return io.NodeOutput(wish)


@contextmanager
def critic_beside(wish: CriticWish | None, patcher) -> Iterator[Critic | None]:
    """The critic of a wish, for a node that draws with the model of `patcher` (None = it moves itself); None without a wish."""
    if wish is None:
        yield None
    elif wish.clip is not None:
        yield _CriticBeside(clip_planner(wish.clip), wish, patcher)
    elif wish.model == SERVER:
        yield Critic(server_planner(wish.url, wish.server_model), max_redraws=wish.max_redraws, least=wish.least_score)
    else:
        with hosted_planner(wish.model, wish.weights, keeps=wish.keep_loaded) as hosted:
            yield _CriticBeside(hosted.planner, wish, patcher, hosted)


class _CriticBeside(Critic):
    """A critic on the device where images are drawn: before it looks it comes there, and the model that draws comes back."""

    def __init__(self, planner, wish: CriticWish, patcher, hosted: HostedPlanner | None = None):
        super().__init__(planner, max_redraws=wish.max_redraws, least=wish.least_score)
        self._hosted, self._patcher = hosted, patcher

    def judge(self, image, segment, cast, *, cancel):
        if self._hosted is not None:
            self._hosted.load()
        try:
            return super().judge(image, segment, cast, cancel=cancel)
        finally:
            if self._patcher is not None:
                host.bring_to_device(self._patcher)
