"""The Qwen-Image families that take references."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import Capabilities
from . import Graph, GraphShot, Link, ModelFacts, Need, Sampling, parts

LIGHTNING = ("lightning", "4steps", "8steps")


@dataclass(frozen=True, slots=True)
class QwenImageEdit2509:
    """Up to three references; the VLM sees them at 384² and the model at one megapixel (the encoder node does both).

    At the first step of a flow model the latent has no weight, so an empty one of the plan's size decides size alone.
    """

    name: str = "qwen-image-edit-2509"
    title: str = "Qwen-Image-Edit-2509"
    capabilities: Capabilities = Capabilities(
        max_references=3, default_size=(1024, 1024), size_multiple=16, min_side=256, max_side=2048, edits=True,
        steps=20, guidance=4.0,
    )  # fmt: skip
    needs: tuple[Need, ...] = (
        Need(node="TextEncodeQwenImageEditPlus", since="0.3.60"),
        Need(node="CFGNorm", since="0.3.45"),
    )
    steps: int = 20
    shift: float = 3.0
    method: str = ""  # how the model tells references apart; "" = as its weights say

    def sampling(self, facts: ModelFacts) -> Sampling:
        if facts.says(*LIGHTNING):
            return Sampling(steps=8 if facts.says("8steps") else 4, cfg=1.0, shift=self.shift)
        return Sampling(steps=self.steps, cfg=4.0, shift=self.shift)

    def emit(self, graph: Graph, model: Link, clip: Link, vae: Link, shot: GraphShot) -> Link:
        shifted = graph.node("ModelSamplingAuraFlow", "model.shift", model=model, shift=shot.sampling.shift).out(0)
        normed = graph.node("CFGNorm", "model.norm", model=shifted, strength=1.0, pre_cfg=False).out(0)
        positive, negative = self._conditionings(graph, clip, vae, shot)
        latent = parts.empty_latent(graph, shot, "EmptySD3LatentImage")
        samples = parts.ksampler(graph, shot, model=normed, positive=positive, negative=negative, latent=latent)
        return parts.picture(graph, shot, vae, samples)

    def _conditionings(self, graph: Graph, clip: Link, vae: Link, shot: GraphShot) -> tuple[Link, Link]:
        if not shot.references:
            # The edit node's template speaks of "the input image"; without one, the text-to-image template is the right one.
            positive = parts.text(graph, clip, shot, shot.prompt)
            return positive, parts.no_text(graph, clip, shot, positive)
        pictures = {f"image{number}": reference.image for number, reference in enumerate(shot.references, 1)}
        prompts = {"prompt": parts.with_slots(shot, "Picture {}"), "negative": ""}  # the node writes "Picture 1:" itself
        found = []
        for sign, prompt in prompts.items():
            conditioning = graph.node(
                "TextEncodeQwenImageEditPlus", f"{shot.id}.{sign}", clip=clip, prompt=prompt, vae=vae, **pictures
            ).out(0)
            if self.method:
                conditioning = graph.node(
                    "FluxKontextMultiReferenceLatentMethod", f"{shot.id}.{sign}-method", conditioning=conditioning,
                    reference_latents_method=self.method,
                ).out(0)  # fmt: skip
            found.append(conditioning)
        return found[0], found[1]


@dataclass(frozen=True, slots=True)
class QwenImageEdit2511(QwenImageEdit2509):
    """As 2509, with references at timestep zero."""

    name: str = "qwen-image-edit-2511"
    title: str = "Qwen-Image-Edit-2511"
    capabilities: Capabilities = replace(QwenImageEdit2509().capabilities, steps=40)
    needs: tuple[Need, ...] = (
        *QwenImageEdit2509().needs,
        Need(node="FluxKontextMultiReferenceLatentMethod", since="0.5.0", input="reference_latents_method",
             choice="index_timestep_zero"),
    )  # fmt: skip
    steps: int = 40
    shift: float = 3.1
    method: str = "index_timestep_zero"


@dataclass(frozen=True, slots=True)
class QwenImage21:
    """Text-to-image and edit in one, up to ten references; text and references are computed once and kept over the steps.

    With references the encoder node sizes the latent like the first of them, and another size shifts the picture: so the
    first one is laid on a sheet of the plan's size. The Turbo model has fixed noise levels.
    """

    name: str = "qwen-image-2.1"
    title: str = "Qwen-Image-2.1"
    capabilities: Capabilities = Capabilities(
        max_references=10, default_size=(1024, 1024), size_multiple=32, min_side=256, max_side=2048, edits=True,
        steps=25, guidance=1.0,
    )  # fmt: skip
    needs: tuple[Need, ...] = (
        Need(node="TextEncodeQwenImage21", since="0.37.0"),
        Need(node="QwenImage21Cache", since="0.37.0"),
        Need(node="ManualSigmas", since="0.7.0"),
    )
    turbo_sigmas: str = "1.0, 0.978453, 0.95418, 0.926626, 0.89508, 0.845148, 0.704534, 0.414568, 0"

    def sampling(self, facts: ModelFacts) -> Sampling:
        if facts.says("turbo"):
            return Sampling(steps=8, cfg=1.0, sigmas=self.turbo_sigmas)
        return Sampling(steps=25, cfg=1.0)

    def emit(self, graph: Graph, model: Link, clip: Link, vae: Link, shot: GraphShot) -> Link:
        cached = graph.node("QwenImage21Cache", "model.cache", model=model, device="auto", dtype="default").out(0)
        pictures = {
            f"images.image_{number}": self._image(graph, shot, number) for number in range(1, len(shot.references) + 1)
        }
        encoded = graph.node(
            "TextEncodeQwenImage21", f"{shot.id}.prompt", clip=clip, vae=vae if pictures else None,
            prompt=parts.with_slots(shot, "<image{}>"), negative_prompt="", resolution=0 if pictures else 1024, **pictures,
        )  # fmt: skip
        positive, negative = encoded.out(0), encoded.out(1)
        latent = encoded.out(2) if pictures else parts.empty_latent(graph, shot, "EmptyLatentImage")
        if shot.sampling.sigmas:
            guider = graph.node(
                "CFGGuider", f"{shot.id}.guider", model=cached, positive=positive, negative=negative, cfg=shot.sampling.cfg
            ).out(0)
            sigmas = graph.node("ManualSigmas", "sigmas", sigmas=shot.sampling.sigmas).out(0)
            samples = parts.advanced_sampler(graph, shot, guider=guider, sigmas=sigmas, latent=latent)
        else:
            samples = parts.ksampler(graph, shot, model=cached, positive=positive, negative=negative, latent=latent)
        return parts.picture(graph, shot, vae, samples)

    def _image(self, graph: Graph, shot: GraphShot, number: int) -> Link:
        reference = shot.references[number - 1]
        if number > 1:
            return parts.scaled_to_megapixel(graph, reference)
        width, height = shot.size
        return graph.node(
            "ResizeAndPadImage", f"{shot.id}.sheet", image=reference.image, target_width=width, target_height=height,
            padding_color="white", interpolation="lanczos",
        ).out(0)  # fmt: skip
