"""The same clothes on every page: what the request says of a hero's clothes, else what his first page says, holds for all others.

The picture-book planner keeps two heroes apart, but not what they wear: left to itself, it gave both the same clothes on all pages in 2
of 9 stories, and in 10 of 27 where the request told them. So the loop keeps to them, as it keeps to the number of images. Pure Python.
"""

from __future__ import annotations

import re

from .captions import wearing
from .vocabulary import COLOUR_OF, SPECIES_OF, WEARABLE_OF, any_of
from .world import COLOURS, HEROES, WEARABLES

# As dense prompts say it: "a small red fox wearing a scarf", "a blue cat with glasses".
_HERO = re.compile(
    rf"\b(?P<colour>{any_of(COLOURS)}) (?P<species>{any_of(HEROES)})\b"
    rf"(?P<worn> (?:wearing|with) (?:an? )?(?P<wearable>{any_of(WEARABLES)})\b)?", re.IGNORECASE)
# As requests say it, in more words: "a red fox named Pip, who wears a blue scarf".
_TOLD = re.compile(
    rf"\b(?:(?P<colour>{any_of(COLOUR_OF)}) )?(?P<species>{any_of(SPECIES_OF)})\b(?: (?:named|called) \w+)?,? "
    rf"(?:who (?:wears|has)|that (?:wears|has)|wearing|with|in) "
    rf"(?:(?:an?|his|her|its|the) )?(?:(?:{any_of(COLOUR_OF)}|little|big|small) )*(?P<wearable>{any_of(WEARABLE_OF)})\b", re.IGNORECASE)


class Wardrobe:
    """What the heroes of one story wear. Empty where nothing is known yet."""

    def __init__(self, request: str, told: list[str] | tuple[str, ...] = ()):
        """request: the words of the user; told: dense prompts so far, of which later ones count more."""
        self._worn: dict[tuple[str | None, str], str | None] = {}
        for hero in _TOLD.finditer(request):
            colour = hero["colour"] and COLOUR_OF[hero["colour"].lower()]
            self._worn[colour, SPECIES_OF[hero["species"].lower()]] = WEARABLE_OF[hero["wearable"].lower()]
        for prompt in told:
            for hero in _HERO.finditer(prompt):
                self._worn[_name(hero)] = _wearable(hero)

    def keep(self, prompt: str) -> str:
        """A dense prompt with the clothes that are known in the place of others; those of a new hero are known from now on."""
        return _HERO.sub(self._dressed, prompt)

    def _dressed(self, hero: re.Match) -> str:
        name = _name(hero)
        if name not in self._worn:
            self._worn[name] = self._worn.get((None, name[1]), _wearable(hero))
        wearable = self._worn[name]
        if wearable == _wearable(hero):
            return hero[0]
        bare = hero[0].removesuffix(hero["worn"] or "")
        return bare if wearable is None else f"{bare} {wearing(wearable)}"


def _name(hero: re.Match) -> tuple[str, str]:
    return hero["colour"].lower(), hero["species"].lower()


def _wearable(hero: re.Match) -> str | None:
    return hero["wearable"] and hero["wearable"].lower()
