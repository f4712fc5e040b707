"""From a plan to the graph that draws it: which pages are missing, with which references, sizes, seeds and prompts.

Every page that is drawn goes through a node that keeps it in the story's folder (its class is named by the caller). What is
kept there is not drawn again, whatever ComfyUI has cached or forgotten; pages that are drawn refer to it as a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...errors import StoryError
from ...plan import ImageSegment, Plan, image_seed
from ...references import ReferenceChoice, choose_references
from ...rendering import Rendering, UsedReference, is_only_stale, rendering_key
from ...request import Request
from ...story import Story
from ..slots import slot_of, whom, with_looks
from . import Graph, GraphFamily, GraphShot, Link, Sampling, SlotReference
from .attempts import Attempt, Page


@dataclass(frozen=True, slots=True, kw_only=True)
class PageToDraw:
    """One image that has to be drawn. Keys of references that are drawn in the same run are not known yet, and empty.

    is_kept   it is there already, and has to be looked at once more
    """

    segment: ImageSegment
    choices: tuple[ReferenceChoice, ...]
    rendering: Rendering
    is_kept: bool = False


def overridden(
    sampling: Sampling, *, steps: int = 0, cfg: float = 0.0, sampler: str = "auto", scheduler: str = "auto"
) -> Sampling:
    """The family's sampling with what the user set; 0 and "auto" leave it as it is.

    `cfg` sets the distilled guidance of models that have one. Steps or a scheduler stand instead of fixed noise levels.
    """
    if steps or scheduler != "auto":
        sampling = replace(sampling, sigmas="")
    if cfg and sampling.guidance is not None:
        sampling = replace(sampling, guidance=cfg)
    elif cfg:
        sampling = replace(sampling, cfg=cfg)
    return replace(
        sampling,
        steps=steps or sampling.steps,
        sampler=sampling.sampler if sampler == "auto" else sampler,
        scheduler=sampling.scheduler if scheduler == "auto" else scheduler,
    )


def described(family: GraphFamily, sampling: Sampling) -> str:
    """How a family is going to draw, for the user, who chose little of it."""
    pace = f"{sampling.steps} steps" if sampling.steps != 1 else "1 step"
    guidance = f"cfg {sampling.cfg:g}" if sampling.guidance is None else f"guidance {sampling.guidance:g}"
    return f"drawn as {family.title}: {pace}, {guidance}, {sampling.sampler}"


def visualizer_of(family: GraphFamily, sampling: Sampling, weights: str) -> str:
    """The fingerprint of all that draws besides steps and guidance; `weights` = a digest of what models were loaded from."""
    how = replace(sampling, steps=0, cfg=0.0, guidance=None)
    facts = json.dumps([family.name, weights, str(how)])
    return f"comfyui-{family.name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def pages_to_draw(
    plan: Plan,
    request: Request,
    story: Story,
    family: GraphFamily,
    sampling: Sampling,
    visualizer: str,
    *,
    redraw_stale: bool = False,
    wants_look: Callable[[Rendering], bool] = lambda kept: False,
) -> tuple[list[PageToDraw], list[str]]:
    """The images that the story does not have as the plan wants them, in order; and sentences for the user.

    Pages that are there under their key (a page that was changed back, say) become the current ones of their segments.
    A page whose references are drawn anew is kept as it is, unless `redraw_stale`. Those come as well that are there under their
    key and `wants_look`: they may become others.
    """
    pages: list[PageToDraw] = []
    notes: list[str] = []
    pending: set[str] = set()
    looked_at: set[str] = set()
    for segment in plan.images:
        current = story.renderings.get(segment.id)
        if segment.locked and current and current.is_of(segment.prompt):
            continue
        choices, missed = choose_references(
            plan, segment, drawn=[image.id for image in plan.images],
            user_images=[picture.name for picture in request.images],
            budget=family.capabilities.max_references, policy=story.policy,
        )  # fmt: skip
        def from_known(unknown: set[str], segment=segment, choices=choices) -> PageToDraw:
            rendering = _rendering(plan, request, story, family, sampling, visualizer, segment, choices, unknown)
            return PageToDraw(segment=segment, choices=choices, rendering=rendering)

        page = from_known(pending)
        waits = any(choice.source in pending for choice in choices)
        known = None if waits else _known(story, current, page.rendering.key)
        if known:
            story.reuse(known, segment.id)
            if wants_look(known):
                pages.append(replace(page, is_kept=True))
                looked_at.add(segment.id)
        elif current and not redraw_stale and is_only_stale(current, page.rendering):
            notes.append(f"{segment.id} was drawn from an earlier {_changed(page, current)}; it is kept as it was")
        else:
            pages.append(from_known(pending | looked_at))
            pending.add(segment.id)
            notes += [*missed, *_size_notes(request, page, notes)]
    return pages, notes


def emit_pages(
    graph: Graph,
    family: GraphFamily,
    sampling: Sampling,
    pages: list[PageToDraw],
    *,
    model: Link,
    clip: Link,
    vae: Link,
    file_of: Callable[[ReferenceChoice], str],
    keep_node: str,
    draft: str,
    notes: list[str],
    checks: bool = False,
    critic: Link | None = None,
) -> Link:
    """Adds the nodes that draw the pages and keep them in the draft; returns the link to the last node that keeps.

    file_of     what LoadImage calls the picture of a reference that exists already
    keep_node   a node class (image, draft, facts, notes, last, after, again, critic) -> page, story, images
    checks      whether a page that looks wrong is drawn once more
    critic      the link to who looks at every page
    """
    drawn: dict[str, Link] = {}
    last: Link | None = None
    for page in pages:
        name = page.segment.id
        shot = GraphShot(
            id=name, prompt=page.rendering.prompt, size=page.rendering.size, seed=page.rendering.seed, sampling=sampling,
            references=tuple(_slot(graph, choice, drawn, file_of) for choice in page.choices),
        )  # fmt: skip
        if page.is_kept:
            file = file_of(ReferenceChoice(source=name, kind="image"))
            image = graph.node("LoadImage", f"page.{name}.file", image=file).out(0)
        else:
            image = family.emit(graph, model, clip, vae, shot)
        again = Page(
            family=family.name, sampling=sampling, links={"model": model, "clip": clip, "vae": vae},
            references=shot.references, checks=checks, attempt=Attempt(is_kept=page.is_kept),
        )  # fmt: skip
        kept = graph.node(
            keep_node, f"{name}.keep", image=image, draft=draft, facts=facts_of(page.rendering),
            notes=json.dumps(notes if page is pages[-1] else [], ensure_ascii=False), last=page is pages[-1], after=last,
            again=again.to_text() if checks or critic else None, critic=critic,
        )  # fmt: skip
        drawn[name], last = kept.out(0), kept.out(1)
    return last


# ---- what a keeping node is told


def facts_of(rendering: Rendering) -> str:
    """What a page is drawn from, as text that travels through the graph."""
    facts = {
        name: getattr(rendering, name)
        for name in ("segment_id", "size", "seed", "visualizer", "steps", "guidance", "prompt")
    }
    references = [[used.source, used.key, used.whom] for used in rendering.references]
    return json.dumps(facts | {"references": references}, ensure_ascii=False)


def rendering_of(facts: str, story: Story) -> Rendering:
    """The rendering behind `facts_of`, now that its references are drawn: their keys are those of the story's images."""
    known = json.loads(facts)
    references = tuple(
        UsedReference(source=source, key=key or story.renderings[source].image_key, whom=whom)
        for source, key, whom in known.pop("references")
    )
    return _keyed(references=references, **{**known, "size": tuple(known["size"])})


# ---- small parts


def _rendering(plan, request, story, family, sampling, visualizer, segment, choices, pending) -> Rendering:
    size, aspect = request.size_and_aspect(segment)
    return _keyed(
        segment_id=segment.id,
        prompt=with_looks(plan, segment, map(slot_of, choices)),
        size=family.capabilities.fit_size(size, aspect),
        seed=image_seed(request.seed, segment.id) if segment.seed == "auto" else segment.seed,
        visualizer=visualizer,
        steps=sampling.steps,
        guidance=float(sampling.cfg if sampling.guidance is None else sampling.guidance),
        references=tuple(
            UsedReference(source=choice.source, key=_key(request, story, choice, pending), whom=whom(slot_of(choice))) for choice in choices
        ),
    )


def _keyed(*, segment_id: str, references: tuple[UsedReference, ...], **facts) -> Rendering:
    facts["reference_guidance"] = 1.0
    key = rendering_key(references=references, **facts)
    return Rendering(segment_id=segment_id, key=key, image_key="", references=references, **facts)


def _key(request: Request, story: Story, choice: ReferenceChoice, pending: set[str]) -> str:
    if choice.kind == "user":
        return next(picture.key for picture in request.images if picture.name == choice.source)
    if choice.source in pending or choice.source not in story.renderings:
        return ""
    return story.renderings[choice.source].image_key


def _known(story: Story, current: Rendering | None, key: str) -> Rendering | None:
    return current if current and current.key == key else story.find(key)


def _slot(
    graph: Graph, choice: ReferenceChoice, drawn: dict[str, Link], file_of: Callable[[ReferenceChoice], str]
) -> SlotReference:
    """A dot cannot stand in a segment's id, so names of files and names of pages never meet."""
    name, is_user = f"{'picture' if choice.kind == 'user' else 'page'}.{choice.source}", choice.kind == "user"
    image = None if is_user else drawn.get(choice.source)
    if image is None:
        image = graph.node("LoadImage", f"{name}.file", image=file_of(choice)).out(0)
    slot = slot_of(choice)
    return SlotReference(name=name, image=image, member=slot.member, others=slot.others, beside=slot.beside, is_user=is_user)


def _changed(page: PageToDraw, current: Rendering) -> str:
    """The references that are not what the current image was drawn from."""
    return " and ".join(used.source for used in page.rendering.references if used not in current.references)


def _size_notes(request: Request, page: PageToDraw, said: list[str]) -> list[str]:
    """Where the wanted size or shape cannot be drawn; once per wish, not once per page."""
    segment, drawn = page.segment, page.rendering.size
    size, aspect = request.size_and_aspect(segment)
    across, down = size or (int(number) for number in (aspect or f"{drawn[0]}:{drawn[1]}").split(":"))
    if size in (None, drawn) and 0.9 <= (drawn[0] / drawn[1]) / (across / down) <= 1.1:
        return []
    wish = f"{size[0]} x {size[1]}" if size else aspect
    note = f"{wish} cannot be drawn; the nearest that this model family can is {drawn[0]} x {drawn[1]}"
    return [] if note in said else [note]


def check_complete(story: Story) -> None:
    """StoryError when a page is missing after all."""
    if missing := story.missing():
        raise StoryError(f"{', '.join(missing)} could not be kept; run again to draw what is missing")
