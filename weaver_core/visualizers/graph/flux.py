"""The Flux families that take references."""

from __future__ import annotations

from dataclasses import dataclass

from .. import Capabilities
from ..slots import side_by_side
from . import Graph, GraphShot, Link, ModelFacts, Need, Sampling, parts

FLUX2_NEEDS = (
    Need(node="EmptyFlux2LatentImage", since="0.3.72"),
    Need(node="Flux2Scheduler", since="0.3.72"),
    Need(node="ReferenceLatent", since="0.3.42"),
)


def _flux2_latents(graph: Graph, vae: Link, shot: GraphShot) -> list[Link]:
    """Every reference as a latent of about a megapixel; computed once for all pages that use it."""
    latents = []
    for reference in shot.references:
        pixels = parts.scaled_to_megapixel(graph, reference)
        latents.append(graph.node("VAEEncode", f"{reference.name}.latent", pixels=pixels, vae=vae).out(0))
    return latents


def _flux2_picture(graph: Graph, vae: Link, shot: GraphShot, guider: Link) -> Link:
    width, height = shot.size
    sigmas = graph.node("Flux2Scheduler", f"{shot.id}.sigmas", steps=shot.sampling.steps, width=width, height=height).out(0)
    latent = parts.empty_latent(graph, shot, "EmptyFlux2LatentImage")
    samples = parts.advanced_sampler(graph, shot, guider=guider, sigmas=sigmas, latent=latent)
    return parts.picture(graph, shot, vae, samples)


@dataclass(frozen=True, slots=True)
class Flux2Klein:
    """Flux.2 Klein. kind: "distilled" (4 steps), "base" (true guidance), "kv" (distilled; references' keys are kept)."""

    kind: str = "distilled"
    capabilities: Capabilities = Capabilities(
        max_references=4, default_size=(1024, 1024), size_multiple=16, min_side=256, max_side=2048, edits=True,
        steps=4, guidance=1.0,
    )  # fmt: skip

    @property
    def name(self) -> str:
        return "flux2-klein" if self.kind == "distilled" else f"flux2-klein-{self.kind}"

    @property
    def title(self) -> str:
        return {"distilled": "Flux.2 Klein", "base": "Flux.2 Klein base", "kv": "Flux.2 Klein KV"}[self.kind]

    @property
    def needs(self) -> tuple[Need, ...]:
        return FLUX2_NEEDS + ((Need(node="FluxKVCache", since="0.17.0"),) if self.kind == "kv" else ())

    def sampling(self, facts: ModelFacts) -> Sampling:
        return Sampling(steps=20, cfg=5.0) if self.kind == "base" else Sampling(steps=4, cfg=1.0)

    def emit(self, graph: Graph, model: Link, clip: Link, vae: Link, shot: GraphShot) -> Link:
        if self.kind == "kv":
            model = graph.node("FluxKVCache", "model.cache", model=model).out(0)
        positive = parts.text(graph, clip, shot, parts.with_slots(shot, "image {}"))
        negative = parts.no_text(graph, clip, shot, positive)
        latents = _flux2_latents(graph, vae, shot)
        guider = graph.node(
            "CFGGuider", f"{shot.id}.guider", model=model, cfg=shot.sampling.cfg,
            positive=parts.with_reference_latents(graph, positive, shot, latents, "positive"),
            negative=parts.with_reference_latents(graph, negative, shot, latents, "negative"),
        ).out(0)  # fmt: skip
        return _flux2_picture(graph, vae, shot, guider)


@dataclass(frozen=True, slots=True)
class Flux2Dev:
    """Flux.2 dev: guidance distilled into the model, one pass; 8 steps with a Turbo LoRA."""

    name: str = "flux2-dev"
    title: str = "Flux.2 dev"
    capabilities: Capabilities = Capabilities(
        max_references=6, default_size=(1024, 1024), size_multiple=16, min_side=256, max_side=2048, edits=True,
        steps=20, guidance=4.0,
    )  # fmt: skip
    needs: tuple[Need, ...] = FLUX2_NEEDS

    def sampling(self, facts: ModelFacts) -> Sampling:
        return Sampling(steps=8 if facts.says("turbo") else 20, cfg=1.0, guidance=4.0)

    def emit(self, graph: Graph, model: Link, clip: Link, vae: Link, shot: GraphShot) -> Link:
        words = parts.text(graph, clip, shot, parts.with_slots(shot, "image {}"))
        guided = parts.guided(graph, shot, words)
        seen = parts.with_reference_latents(graph, guided, shot, _flux2_latents(graph, vae, shot), "positive")
        guider = graph.node("BasicGuider", f"{shot.id}.guider", model=model, conditioning=seen).out(0)
        return _flux2_picture(graph, vae, shot, guider)


@dataclass(frozen=True, slots=True)
class FluxKontext:
    """Flux.1 Kontext: knows one picture, so two references are put side by side; draws one of 17 sizes."""

    name: str = "flux-kontext"
    title: str = "Flux.1 Kontext"
    capabilities: Capabilities = Capabilities(
        max_references=2, default_size=(1024, 1024), edits=True, steps=20, guidance=2.5,
        sizes=(
            (672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104),
            (1024, 1024),
            (1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688), (1568, 672),
        ),
    )  # fmt: skip
    needs: tuple[Need, ...] = (
        Need(node="FluxKontextImageScale", since="0.3.42"),
        Need(node="ImageStitch", since="0.3.42"),
        Need(node="ReferenceLatent", since="0.3.42"),
    )

    def sampling(self, facts: ModelFacts) -> Sampling:
        return Sampling(steps=20, cfg=1.0, guidance=2.5)

    def emit(self, graph: Graph, model: Link, clip: Link, vae: Link, shot: GraphShot) -> Link:
        words = parts.text(graph, clip, shot, side_by_side(shot.prompt, shot.references))
        positive = words
        if shot.references:
            scaled = graph.node("FluxKontextImageScale", f"{shot.id}.scaled", image=self._stitched(graph, shot)).out(0)
            latent = graph.node("VAEEncode", f"{shot.id}.reference-latent", pixels=scaled, vae=vae).out(0)
            positive = parts.with_reference_latents(graph, positive, shot, [latent], "positive")
        samples = parts.ksampler(
            graph, shot, model=model, positive=parts.guided(graph, shot, positive),
            negative=parts.no_text(graph, clip, shot, words),
            latent=parts.empty_latent(graph, shot, "EmptySD3LatentImage"),
        )  # fmt: skip
        return parts.picture(graph, shot, vae, samples)

    def _stitched(self, graph: Graph, shot: GraphShot) -> Link:
        left, *right = [reference.image for reference in shot.references]
        if not right:
            return left
        return graph.node(
            "ImageStitch", f"{shot.id}.stitched", image1=left, image2=right[0], direction="right", match_image_size=True,
            spacing_width=0, spacing_color="white",
        ).out(0)  # fmt: skip
