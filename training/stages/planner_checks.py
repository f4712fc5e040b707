"""What a planner can do, measured on requests it has never seen: plans that parse, counts, heroes, places, agreement."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from weaver_core.model.tokens import PlannerTokens, mrope_positions
from weaver_core.picturebook.captions import parse_dense_prompt
from weaver_core.picturebook.grammar import StoryRecord
from weaver_core.picturebook.world import PLACES, PROPS

_PAGE = re.compile(r"(?P<text>[^<>\n]+) <imagine>(?P<prompt>[^<>\n]+)</imagine><BOI>(?:\n|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A sequence to continue: token ids, merged grids of its pictures, their ViT patches and unmerged grids."""

    ids: list[int]
    grids: tuple[tuple[int, int], ...] = ()
    patches_NP: np.ndarray | None = None
    patch_grids: np.ndarray | None = None


@torch.no_grad()
def continue_greedily(model, tokens: PlannerTokens, prompts: Sequence[Prompt], max_new: int) -> list[list[int]]:
    """The most likely continuation of every prompt, without the end-of-sequence token that closes it.

    Prompts of different length are padded on the left; positions are passed explicitly, so the padding shifts nothing.
    """
    device = next(model.parameters()).device
    longest = max(len(p.ids) for p in prompts)
    ids_BT = torch.full((len(prompts), longest), tokens.pad)
    mask_BT = torch.zeros(len(prompts), longest, dtype=torch.long)
    position_3BT = torch.zeros(3, len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids_BT[row, longest - len(prompt.ids):] = torch.tensor(prompt.ids)
        mask_BT[row, longest - len(prompt.ids):] = 1
        position_3BT[:, row, longest - len(prompt.ids):] = mrope_positions(prompt.ids, tokens, prompt.grids)
    pictures = {}
    if any(p.patches_NP is not None for p in prompts):
        pictures = {
            "pixel_values": torch.from_numpy(np.concatenate([p.patches_NP for p in prompts if p.patches_NP is not None])),
            "image_grid_thw": torch.from_numpy(np.concatenate([p.patch_grids for p in prompts if p.patch_grids is not None]))}
    pictures = {key: value.to(device) for key, value in pictures.items()}
    cache = DynamicCache(config=model.config)
    written: list[list[int]] = [[] for _ in prompts]
    open_rows = torch.ones(len(prompts), dtype=torch.bool, device=device)
    ids_BT, mask_BT, position_3BT = ids_BT.to(device), mask_BT.to(device), position_3BT.to(device)
    next_position_B = position_3BT.amax(dim=(0, 2)) + 1
    for _ in range(max_new):
        hidden = model.model(input_ids=ids_BT, attention_mask=mask_BT, position_ids=position_3BT, past_key_values=cache,
                             use_cache=True, **pictures).last_hidden_state[:, -1]
        chosen_B = model.lm_head(hidden).argmax(-1)
        open_rows &= chosen_B != tokens.eos
        if not open_rows.any():
            break
        for row in open_rows.nonzero().flatten().tolist():
            written[row].append(int(chosen_B[row]))
        ids_BT, pictures = chosen_B[:, None], {}
        mask_BT = torch.cat([mask_BT, torch.ones_like(ids_BT)], dim=1)
        position_3BT = next_position_B[None, :, None].expand(3, -1, 1)
        next_position_B = next_position_B + 1
    return written


def check_story(record: StoryRecord, markup: str) -> dict[str, bool]:
    """What is right about a written story; a check that the request leaves open is absent.

    parses: a title and whole pages, nothing else. count, hero, names, place: as asked for, on every page. same_hero: one identity
    through the story. agreement: no page's text names a thing or a place that its prompt lacks.
    """
    title, _, body = markup.partition("\n")
    body = body.removesuffix("\nThe end.")
    pages = list(_PAGE.finditer(body))
    checks = {"parses": bool(re.fullmatch(r"# [^<>]+", title)) and bool(pages)
              and "".join(page[0] for page in pages) == body}
    checks["count"] = len(pages) == record.num_images
    found = [parse_dense_prompt(page["prompt"]) for page in pages]
    if not record.with_reference:
        told = record.known["heroes"]
        if any(hero[key] for hero in told for key in ("species", "colour", "wearable")):
            checks["hero"] = bool(found) and all(_shows(told, page) for page in found)
        checks["same_hero"] = bool(found) and all(_identities([page]) <= _identities(found[-1:]) for page in found)
    else:
        checks["hidden"] = bool(found) and all(page["species"] is None and any(page["roles"]) for page in found)
    names = [hero["name"] for hero in record.known["heroes"] if hero["name"]]
    if names:
        checks["names"] = all(re.search(rf"\b{name}\b", markup) for name in names)
    if record.known["places"]:
        checks["place"] = bool(found) and {page["place"] for page in found} == set(record.known["places"])
    if record.known["prop"]:
        checks["prop"] = any(page["prop"] == record.known["prop"] for page in found)
    checks["agreement"] = bool(found) and all(_agrees(page["text"], prompt) for page, prompt in zip(pages, found))
    return checks


def _shows(told: list[dict], page: dict) -> bool:
    """Whether every figure of a page is one of the heroes as far as the request described them."""
    figures = [{key: page[prefix + key] for key in ("species", "colour", "wearable")}
               for prefix in ("", "second_")[:page["figures"]]]
    return bool(figures) and all(
        any(all(hero[key] in (None, figure[key]) for key in figure) for hero in told) for figure in figures)


def _identities(pages: list[dict]) -> set[tuple]:
    return {tuple(page[prefix + key] for key in ("species", "colour", "wearable"))
            for page in pages for prefix in ("", "second_")[:page["figures"]]}


def _agrees(text: str, prompt: dict) -> bool:
    words = set(re.findall(r"[a-z]+", text.lower()))
    props = {prop for prop in PROPS if prop in words}
    places = {place for place in PLACES if place in words}
    return props <= {prompt["prop"]} and places <= {prompt["place"]}


def rates(checks: Sequence[dict[str, bool]], prefix: str = "") -> dict[str, float]:
    """Share of right answers per check, over the records that have it."""
    names = dict.fromkeys(name for check in checks for name in check)
    return {prefix + name: float(np.mean([check[name] for check in checks if name in check])) for name in names}


def held_out_rng(name: str) -> random.Random:
    """The fixed requests of one kind of check: the same in every evaluation of every run."""
    return random.Random(f"planner check/{name}")
