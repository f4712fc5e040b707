"""Pieces of graph that several families have in common. Ids of a shot's own nodes begin with the shot's id."""

from __future__ import annotations

from collections.abc import Sequence

from .. import slots
from . import Graph, GraphShot, Link, SlotReference


def text(graph: Graph, clip: Link, shot: GraphShot, prompt: str) -> Link:
    return graph.node("CLIPTextEncode", f"{shot.id}.prompt", clip=clip, text=prompt).out(0)


def no_text(graph: Graph, clip: Link, shot: GraphShot, positive: Link) -> Link:
    """The negative: an empty prompt, one for all shots. Where cfg is 1 nobody looks at it: zeros need no text encoder."""
    if shot.sampling.cfg == 1:
        return graph.node("ConditioningZeroOut", f"{shot.id}.negative", conditioning=positive).out(0)
    return graph.node("CLIPTextEncode", "negative", clip=clip, text="").out(0)


def guided(graph: Graph, shot: GraphShot, conditioning: Link) -> Link:
    """With the strength of distilled guidance."""
    strength = shot.sampling.guidance
    return graph.node("FluxGuidance", f"{shot.id}.guidance", conditioning=conditioning, guidance=strength).out(0)


def ksampler(graph: Graph, shot: GraphShot, *, model: Link, positive: Link, negative: Link, latent: Link) -> Link:
    how = shot.sampling
    return graph.node(
        "KSampler", f"{shot.id}.sample", model=model, positive=positive, negative=negative, latent_image=latent,
        seed=shot.seed, steps=how.steps, cfg=how.cfg, sampler_name=how.sampler, scheduler=how.scheduler, denoise=1.0,
    ).out(0)  # fmt: skip


def advanced_sampler(graph: Graph, shot: GraphShot, *, guider: Link, sigmas: Link, latent: Link) -> Link:
    noise = graph.node("RandomNoise", f"{shot.id}.noise", noise_seed=shot.seed).out(0)
    sampler = graph.node("KSamplerSelect", "sampler", sampler_name=shot.sampling.sampler).out(0)
    return graph.node(
        "SamplerCustomAdvanced", f"{shot.id}.sample", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas,
        latent_image=latent,
    ).out(0)  # fmt: skip


def picture(graph: Graph, shot: GraphShot, vae: Link, samples: Link) -> Link:
    return graph.node("VAEDecode", f"{shot.id}.image", samples=samples, vae=vae).out(0)


def empty_latent(graph: Graph, shot: GraphShot, node: str) -> Link:
    width, height = shot.size
    return graph.node(node, f"{shot.id}.size", width=width, height=height, batch_size=1).out(0)


def scaled_to_megapixel(graph: Graph, reference: SlotReference) -> Link:
    return graph.node(
        "ImageScaleToTotalPixels", f"{reference.name}.scaled", image=reference.image, upscale_method="lanczos",
        megapixels=1.0, resolution_steps=1,
    ).out(0)  # fmt: skip


def with_reference_latents(graph: Graph, conditioning: Link, shot: GraphShot, latents: Sequence[Link], sign: str) -> Link:
    """The conditioning with reference latents in slot order; `sign` tells positive and negative apart in ids."""
    for number, latent in enumerate(latents, 1):
        conditioning = graph.node(
            "ReferenceLatent", f"{shot.id}.{sign}-reference-{number}", conditioning=conditioning, latent=latent
        ).out(0)
    return conditioning


# ---- words


def with_slots(shot: GraphShot, label: str) -> str:
    """The shot's prompt behind a sentence that says what is in which reference slot (slots.py)."""
    return slots.with_slots(shot.prompt, shot.references, label)
