"""Text-to-image without references: the hero is only as much the same as the words say.

So every prompt says the look of whom it shows (shots.py), and a fixed seed per page keeps what can be kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import Capabilities
from . import Graph, GraphShot, Link, ModelFacts, Need, Sampling, parts


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainTextToImage:
    """CLIPTextEncode and KSampler.

    latent     the node that makes an empty latent of its kind
    variants   (words, sampling): the first whose word stands in a file name counts, else `usual`
    """

    name: str
    title: str
    usual: Sampling
    variants: tuple[tuple[tuple[str, ...], Sampling], ...] = ()
    latent: str = "EmptyLatentImage"
    side: int = 1024
    size_multiple: int = 16
    needs: tuple[Need, ...] = ()
    capabilities: Capabilities = field(init=False)

    def __post_init__(self):
        able = Capabilities(
            max_references=0, default_size=(self.side, self.side), size_multiple=self.size_multiple, min_side=256,
            max_side=min(2 * self.side, 2048), steps=self.usual.steps, guidance=self.usual.cfg,
        )  # fmt: skip
        object.__setattr__(self, "capabilities", able)

    def sampling(self, facts: ModelFacts) -> Sampling:
        return next((how for words, how in self.variants if facts.says(*words)), self.usual)

    def emit(self, graph: Graph, model: Link, clip: Link, vae: Link, shot: GraphShot) -> Link:
        how = shot.sampling
        if how.shift is not None:
            model = graph.node("ModelSamplingAuraFlow", "model.shift", model=model, shift=how.shift).out(0)
        positive = parts.text(graph, clip, shot, shot.prompt)
        negative = parts.no_text(graph, clip, shot, positive)
        if how.guidance is not None:
            positive = parts.guided(graph, shot, positive)
        latent = parts.empty_latent(graph, shot, self.latent)
        samples = parts.ksampler(graph, shot, model=model, positive=positive, negative=negative, latent=latent)
        return parts.picture(graph, shot, vae, samples)


PLAIN_FAMILIES = (
    PlainTextToImage(
        name="qwen-image", title="Qwen-Image", latent="EmptySD3LatentImage", side=1328,
        usual=Sampling(steps=20, cfg=4.0, shift=3.1),
        variants=(
            (("4steps",), Sampling(steps=4, cfg=1.0, shift=3.1)),
            (("lightning", "8steps"), Sampling(steps=8, cfg=1.0, shift=3.1)),
            (("2512",), Sampling(steps=50, cfg=4.0, shift=3.1)),
        ),
    ),
    PlainTextToImage(
        name="flux", title="Flux.1", latent="EmptySD3LatentImage",
        usual=Sampling(steps=20, cfg=1.0, guidance=3.5),
        variants=((("schnell",), Sampling(steps=4, cfg=1.0)),),
    ),
    PlainTextToImage(
        name="z-image", title="Z-Image", latent="EmptySD3LatentImage",
        usual=Sampling(steps=25, cfg=4.0, sampler="res_multistep", shift=3.0),
        variants=((("turbo",), Sampling(steps=8, cfg=1.0, sampler="res_multistep", shift=3.0)),),
    ),
    PlainTextToImage(
        name="sd3", title="Stable Diffusion 3", latent="EmptySD3LatentImage",
        usual=Sampling(steps=20, cfg=4.0, scheduler="sgm_uniform"),
        variants=((("turbo",), Sampling(steps=4, cfg=1.0, scheduler="sgm_uniform")),),
    ),
    PlainTextToImage(
        name="sdxl", title="SDXL", size_multiple=64,
        usual=Sampling(steps=25, cfg=7.0, sampler="dpmpp_2m", scheduler="karras"),
        variants=(
            # Few-step models as their makers describe them: the number of steps stands in the file's name.
            (("8step",), Sampling(steps=8, cfg=1.0, scheduler="sgm_uniform")),
            (("lightning", "4step", "hyper"), Sampling(steps=4, cfg=1.0, scheduler="sgm_uniform")),
            (("turbo",), Sampling(steps=4, cfg=1.0, sampler="euler_ancestral", scheduler="normal")),
            (("lcm",), Sampling(steps=8, cfg=1.0, sampler="lcm", scheduler="sgm_uniform")),
        ),
    ),
    PlainTextToImage(
        name="sd15", title="Stable Diffusion 1.5", side=512, size_multiple=64,
        usual=Sampling(steps=20, cfg=8.0, scheduler="normal"),
        variants=((("lcm",), Sampling(steps=8, cfg=1.0, sampler="lcm", scheduler="sgm_uniform")),),
    ),
    PlainTextToImage(name="text-to-image", title="Text-to-image", usual=Sampling(steps=20, cfg=4.0)),
)  # fmt: skip
