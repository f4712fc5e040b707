"""Textual-proxy stories: requests (from topics, around pictures, for finished stories), plans, and their refinement."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from training.data_engine.questions import count_wish, lines_of, one_line, question
from training.data_engine.record import Dropped, Outcome, Record, Rejected, seed_of
from training.data_engine.stages import Stage
from weaver_core.errors import InputError
from weaver_core.plan import Plan, parse_markup
from weaver_core.request import ReferenceImage, Request

_PICTURE = re.compile(r"picture-([1-9][0-9]?)\Z")
MOST_REQUEST_WORDS = 120


def _seed(stage: Stage, record: Record) -> int:
    return seed_of(stage.tools.recipe.seed, type(stage).__name__, record.id)


def _drawn_count(stage: Stage, record: Record, least: int, most: int, share: float) -> int | None:
    """How many images a request shall ask for; None (of `1 - share`) = it says no number."""
    rng = random.Random(_seed(stage, record))
    return rng.randint(least, most) if rng.random() < share else None


def read_plan(markup: str, most_warnings: int) -> Plan:
    """The plan in an answer. Rejected when it is no good markup."""
    plan, warnings = parse_markup(markup)
    if len(warnings) > most_warnings:
        raise Rejected("bad markup", "; ".join(map(str, warnings[:3])))
    if not plan.images:
        raise Rejected("no image", f"{len(plan.texts)} texts and no <imagine>")
    return plan


def checked_request(prompt: str, images: Sequence[ReferenceImage], language: str) -> Request:
    """A request that is safe to ask with. Rejected says what is wrong with it."""
    try:
        return Request(prompt=prompt, images=tuple(images), language=language).validated()[0]
    except InputError as error:
        raise Rejected("unusable request", str(error)) from None


class WriteRequests(Stage):
    """Topic -> requests that people might type."""

    version = 2
    asks = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        per_topic: int = 8
        languages: tuple[str, ...] = ("en",)
        most_images: int = 6

    def one(self, record: Record) -> Iterator[Outcome]:
        for language in self.settings.languages:
            yield from self.safe(record.child(language), lambda: self._requests(record, language))

    def _requests(self, record: Record, language: str) -> Iterator[Outcome]:
        text = question("requests", topic=record.fields["topic"], count=self.settings.per_topic, language=language,
                        most_images=self.settings.most_images)
        lines, seen = lines_of(self.tools.writer.answer(text, seed=seed_of(_seed(self, record), language))), set()
        if not lines:
            yield Dropped(record=record, reason="empty answer", detail=f"no requests in {language}")
        for number, line in enumerate(lines):
            made = record.child(f"{language}-{number}", request=line, language=language)
            if number >= self.settings.per_topic:
                yield Dropped(record=made, reason="not asked for", detail=f"more than {self.settings.per_topic} requests")
            elif line.casefold() in seen:
                yield Dropped(record=made, reason="repeated request")
            elif len(line.split()) > MOST_REQUEST_WORDS:
                yield Dropped(record=made, reason="wordy answer", detail=f"{len(line.split())} words in a request")
            else:
                seen.add(line.casefold())
                yield made


class AskAbout(Stage):
    """Pictures of a gallery -> a request around them, which they go along with."""

    version = 2
    asks = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        languages: tuple[str, ...] = ("en",)
        least_images: int = 2
        most_images: int = 5
        says_count: float = 0.5  # share of requests that say how many images are wanted

    def one(self, record: Record) -> Iterator[Outcome]:
        for language in self.settings.languages:
            yield from self.safe(record.child(language), lambda: self._request(record, language))

    def _request(self, record: Record, language: str) -> Iterator[Outcome]:
        wanted, pictures = self.settings, record.fields["pictures"]
        names = ", ".join(f"picture-{i + 1}" for i in range(len(pictures)))
        count = _drawn_count(self, record.child(language), wanted.least_images, wanted.most_images, wanted.says_count)
        text = question("ask_about", count=len(pictures), names=names, language=language, count_wish=count_wish(count))
        answer = self.tools.writer.answer(text, [self.tools.store.get(key) for key in pictures], seed=_seed(self, record))
        request = one_line(answer, most_words=MOST_REQUEST_WORDS)
        yield record.child(language, request=request, language=language, images=pictures).without("pictures", "captions")


class WritePlan(Stage):
    """Request -> plan, written as the planner of nodes and command line writes it."""

    asks = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        least_images: int = 2
        most_images: int = 6
        most_warnings: int = 0  # of the markup parser; an answer with more is dropped

    def one(self, record: Record) -> Iterable[Outcome]:
        images = [ReferenceImage.read(self.tools.store.get(key), name=f"picture-{i}")[0]
                  for i, key in enumerate(record.fields.get("images", ()), 1)]
        request = checked_request(record.fields["request"], images, record.fields.get("language", "en"))
        count = request.wanted_images or random.Random(_seed(self, record)).randint(self.settings.least_images, self.settings.most_images)
        markup = self.tools.writer.plan(request, num_images=count, seed=_seed(self, record))
        plan = read_plan(markup, self.settings.most_warnings)
        return [record.with_fields(plan=plan.to_markup(), planned_images=count)]


class Weave(Stage):
    """A collection of pictures that belong together -> a story with each of them in its place."""

    version = 2
    asks = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        languages: tuple[str, ...] = ("en",)
        leave_out: int = 1  # pictures that may stay away
        shows_pictures: bool = True  # False = the model reads their captions only
        most_warnings: int = 0

    def one(self, record: Record) -> Iterator[Outcome]:
        pictures, captions = record.fields["pictures"], record.fields.get("captions", [])
        if len(captions) != len(pictures) or not all(captions):
            raise Rejected("no caption", "every picture needs a caption; put a stage of kind 'caption' before 'collect'")
        for language in self.settings.languages:
            yield from self.safe(record.child(language), lambda: self._story(record, language))

    def _story(self, record: Record, language: str) -> Iterator[Outcome]:
        pictures = record.fields["pictures"]
        told = "\n".join(f"picture-{i}: {caption}" for i, caption in enumerate(record.fields["captions"], 1))
        shown = [self.tools.store.get(key) for key in pictures] if self.settings.shows_pictures else []
        text = question("weave", count=len(pictures), captions=told, leave_out=self.settings.leave_out, language=language)
        plan = read_plan(self.tools.writer.answer(text, shown, seed=_seed(self, record)), self.settings.most_warnings)
        plan, drawn = self._placed(plan, pictures)
        yield record.child(language, plan=plan.to_markup(), drawn=drawn, language=language).without("pictures", "captions")

    def _placed(self, plan: Plan, pictures: list[str]) -> tuple[Plan, list[str]]:
        """The plan without the names of pictures, and the pictures in its order."""
        drawn = []
        for segment in plan.images:
            named = [_PICTURE.match(name) for name in segment.references] if segment.references != "auto" else []
            if len(named) != 1 or not named[0] or int(named[0][1]) > len(pictures):
                raise Rejected("picture not placed", f"{segment.id} names {segment.references!r}; one of {len(pictures)} pictures was asked for")
            drawn.append(pictures[int(named[0][1]) - 1])
        if len(set(drawn)) < len(drawn):
            raise Rejected("picture placed twice", f"{len(drawn)} places, {len(set(drawn))} pictures")
        if len(drawn) < len(pictures) - self.settings.leave_out:
            raise Rejected("pictures left out", f"{len(drawn)} of {len(pictures)} pictures have a place")
        bare = [replace(segment, references="auto") if segment in plan.images else segment for segment in plan.segments]
        return replace(plan, segments=tuple(bare)), drawn


class Refine(Stage):
    """Story -> the same story, better told. A draft whose refinement is no good stays as it is, with `refined` false."""

    asks = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        rounds: int = 1

    def one(self, record: Record) -> Iterable[Outcome]:
        for number in range(self.settings.rounds):
            draft = read_plan(record.fields["plan"], 0)
            answer = self.tools.writer.answer(question("refine", plan=draft.to_markup()), seed=seed_of(_seed(self, record), number))
            plan, warnings = parse_markup(answer)
            fits = not warnings and [image.id for image in plan.images] == [image.id for image in draft.images] and plan.texts
            record = record.with_fields(refined=bool(fits))
            if not fits:
                break
            record = record.with_fields(plan=replace(plan, language=draft.language).to_markup())
        return [record]


class RequestFor(Stage):
    """Finished story -> the request that it answers."""

    asks = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        says_count: float = 0.5  # share of requests that say how many images are wanted

    def one(self, record: Record) -> Iterable[Outcome]:
        plan = read_plan(record.fields["plan"], 0)
        count = len(plan.images) if _drawn_count(self, record, 1, 1, self.settings.says_count) else None
        text = question("request_for", plan=plan.to_markup(), language=record.fields["language"], count_wish=count_wish(count))
        request = one_line(self.tools.writer.answer(text, seed=_seed(self, record)), most_words=MOST_REQUEST_WORDS)
        checked_request(request, (), record.fields["language"])
        return [record.with_fields(request=request)]
