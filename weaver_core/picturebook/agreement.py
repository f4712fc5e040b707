"""Does a written plan do what its request fixed, and do its texts and dense prompts agree? Pure Python, used for scores and tests."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .captions import parse_dense_prompt
from .grammar import DEFAULT_COUNT
from .world import PROPS


def plan_agreement(texts: Sequence[str], prompts: Sequence[str], known: dict, *, with_reference: bool = False) -> dict[str, bool]:
    """What of `StoryRecord.known` a plan keeps, from its page texts and dense prompts alone.

    count  as many pages as asked for (4 where the request leaves it open)
    hero   every page shows the first hero as fixed, the last page the second one too; one look of each through the story
    place  every page is at a place that was asked for, all of these occur, in the asked order
    prop   what was asked for occurs
    time   the first page is at the time asked for
    told   on every page the text names exactly the prop of its prompt

    With references the hero is right where the prompts say "the same hero" or "the first hero" and tell no identity.
    """
    pages = [parse_dense_prompt(prompt) for prompt in prompts]
    places = [page["place"] for page in pages]
    wanted = known["places"]
    order = [place for i, place in enumerate(places) if i == 0 or place != places[i - 1]]
    return {
        "count": len(prompts) == (known["num_images"] or DEFAULT_COUNT),
        "hero": bool(pages) and (_referenced(pages) if with_reference else _shows_heroes(pages, known["heroes"])),
        "place": bool(pages) and (order == wanted if wanted and len(pages) > 1 else not wanted or places == wanted[:1]),
        "prop": known["prop"] is None or known["prop"] in (page["prop"] for page in pages),
        "time": known["time"] is None or bool(pages) and pages[0]["time"] == known["time"],
        "told": all(_props(text) == ({page["prop"]} - {None}) for text, page in zip(texts, pages)) and len(texts) == len(prompts),
    }


def _props(text: str) -> set[str]:
    return set(re.findall(r"\b(" + "|".join(PROPS) + r")\b", text.lower()))


def _referenced(pages: list[dict]) -> bool:
    return all(page["roles"] and None not in page["roles"] for page in pages)


def _shows_heroes(pages: list[dict], heroes: list[dict]) -> bool:
    looks = [[(page[p + "species"], page[p + "colour"], page[p + "wearable"]) for p in ("", "second_") if page[p + "species"]] for page in pages]
    cast = looks[-1]
    if len(cast) != len(heroes) or any(look not in cast for page in looks for look in page):
        return False
    for order in (cast, cast[::-1]):
        fits = all(value in (None, told) for look, hero in zip(order, heroes)
                   for value, told in zip((hero["species"], hero["colour"], hero["wearable"]), look))
        if fits and all(order[0] in page for page in looks):
            return True
    return False
