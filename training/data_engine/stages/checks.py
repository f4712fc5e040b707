"""Consistency of plans: the number of images, the heroes' names, the language, prompts that say something and say it once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from training.data_engine.record import Outcome, Record, Rejected
from training.data_engine.stages import Stage
from training.data_engine.stages.stories import read_plan
from weaver_core.image_count import asked_images
from weaver_core.plan import Plan

_WORD = re.compile(r"[^\W\d_]{2,}")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_EMPTY_WORDS = frozenset("a an the of with and in on at his her its their small big little large young old who is has wearing wears".split())
_LEAST_LETTERS = 60  # of a text whose language is looked at; shorter ones are guessed wrong too often (our choice)


class CheckPlan(Stage):
    """Plan -> the same plan, or the reason why it would teach something wrong."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        least_images: int = 1
        most_images: int = 32
        least_prompt_words: int = 6
        most_prompt_words: int = 150
        checks_language: bool = True  # needs py3langid

    def one(self, record: Record) -> Iterable[Outcome]:
        plan = read_plan(record.fields["plan"], 0)
        self._count(record, plan)
        self._prompts(plan)
        self._heroes(plan)
        if self.settings.checks_language:
            self._language(record, plan)
        return [record]

    def _count(self, record: Record, plan: Plan) -> None:
        count, wanted = len(plan.images), asked_images(record.fields.get("request", ""))
        if wanted is not None and wanted != count:
            raise Rejected("wrong number of images", f"the request asks for {wanted}, the plan has {count}")
        planned = record.fields.get("planned_images")
        if planned is not None and planned != count:
            raise Rejected("wrong number of images", f"{planned} were asked for, the plan has {count}")
        if not self.settings.least_images <= count <= self.settings.most_images:
            raise Rejected("wrong number of images", f"{count}; {self.settings.least_images} to {self.settings.most_images} are kept")
        if count > 1 and not plan.texts:
            raise Rejected("no text", f"{count} images and not a word of a story")

    def _prompts(self, plan: Plan) -> None:
        seen: dict[str, str] = {}
        for image in plan.images:
            words = len(image.prompt.split())
            if not self.settings.least_prompt_words <= words <= self.settings.most_prompt_words:
                raise Rejected("length of a dense prompt", f"{image.id} has {words} words; {self.settings.least_prompt_words} to "
                               f"{self.settings.most_prompt_words} are kept")
            key = " ".join(image.prompt.casefold().split())
            if key in seen:
                raise Rejected("repeated dense prompt", f"{image.id} says what {seen[key]} says")
            seen[key] = image.id

    def _heroes(self, plan: Plan) -> None:
        """Whom the plan names must be in its images, and the images' prompts must speak of whom they name."""
        members = {member.name: member for member in plan.cast}
        named = {name for image in plan.images for name in image.cast}
        if unknown := sorted(named - members.keys()):
            raise Rejected("hero not in the cast", f"{', '.join(unknown[:3])}: named by an image, and nobody says who that is")
        if unseen := sorted(members.keys() - named):
            raise Rejected("hero never shown", f"{', '.join(unseen[:3])}: in the cast, and in no image")
        for image in plan.images:
            said = _words(image.prompt)
            for name in image.cast:
                known = _words(f"{name} {members[name].look}") - _EMPTY_WORDS
                if members[name].look and not known & said:
                    raise Rejected("hero not in the prompt", f"{image.id} names {name}, and its dense prompt speaks neither of {name} "
                                   f"nor of \"{members[name].look[:80]}\"")

    def _language(self, record: Record, plan: Plan) -> None:
        wanted = _primary(record.fields.get("language", "en"))
        if _primary(plan.language) != wanted:
            raise Rejected("wrong language", f"the plan says {plan.language}, {wanted} was asked for")
        for what, text, language in (("the text", " ".join(segment.text for segment in plan.texts), wanted),
                                     ("the dense prompts", " ".join(image.prompt for image in plan.images), "en")):
            if (found := language_of(text)) is not None and found != language:
                raise Rejected("wrong language", f"{what} reads as {found}, {language} was expected")


def language_of(text: str) -> str | None:
    """The language of a text as a two-letter code; None where it is too short to say."""
    letters = len("".join(_WORD.findall(text)))
    if letters < (_LEAST_LETTERS // 4 if _CJK.search(text) else _LEAST_LETTERS):
        return None
    return _identifier().classify(text)[0]


@lru_cache(maxsize=1)
def _identifier():
    try:
        import py3langid
    except ImportError:
        from weaver_core.errors import InputError

        raise InputError('to look at languages needs py3langid: pip install "wan-weaver[data]"; or set checks_language = false') from None
    return py3langid


def _primary(language: str) -> str:
    return language.lower().split("-")[0]


def _words(text: str) -> set[str]:
    """Words, a plural's s taken away; for scripts without spaces, every character counts as one."""
    low = text.casefold()
    return {word.removesuffix("s") if len(word) > 3 else word for word in _WORD.findall(low)} | set(_CJK.findall(low))
