"""Words for pictures: what one shows, and what is to be said where references go along."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from training.data_engine.questions import one_line, question
from training.data_engine.record import Outcome, Record, Rejected, seed_of
from training.data_engine.stages import Stage

_ROOM = 1.5  # answers may be longer than was asked for by so much, for models do not count


class Caption(Stage):
    """Picture -> the same with a dense prompt of what it shows; one that it brought along stays."""

    asks = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        most_words: int = 70
        least_words: int = 4

    def one(self, record: Record) -> Iterable[Outcome]:
        if record.fields.get("caption"):
            return [record]
        text = question("caption", most_words=self.settings.most_words)
        answer = self.tools.writer.answer(text, [self.tools.store.get(record.fields["picture"])],
                                          seed=seed_of(self.tools.recipe.seed, "caption", record.fields["picture"]))
        caption = one_line(answer, most_words=int(_ROOM * self.settings.most_words))
        if len(caption.split()) < self.settings.least_words:
            raise Rejected("short caption", caption)
        return [record.with_fields(caption=caption)]


class Instruct(Stage):
    """Row with references -> the same with a text that leaves to the references what they show. Others keep their caption."""

    asks = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        most_words: int = 60

    def one(self, record: Record) -> Iterable[Outcome]:
        references = record.fields["references"]
        if not references:
            return [record]
        names = ", ".join(f"picture {i + 1}" for i in range(len(references)))
        text = question("instruct", count=len(references), names=names, caption=record.fields["text"], most_words=self.settings.most_words)
        pictures = [self.tools.store.get(key) for key in (*references, record.fields["picture"])]
        answer = self.tools.writer.answer(text, pictures, seed=seed_of(self.tools.recipe.seed, "instruct", record.id))
        return [record.with_fields(text=one_line(answer, most_words=int(_ROOM * self.settings.most_words)))]
