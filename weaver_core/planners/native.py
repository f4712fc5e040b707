"""The native planner: a Qwen2.5-VL that streams markup and hands its memory to the visualizer.

What it has read and written last stays in its key/value cache. Whatever it is asked next, the part that it already
knows is not read again: a dense prompt it has just written is a pure slice of the cache (paper section 2), an edited
plan costs the part from the edit on, and in the closed loop only the new picture is read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import InputError
from ..model.checkpoint import WeaverModel
from ..model.dpcw import DensePromptContext, slice_cache
from ..model.tokens import PlannerTokens, encode, image_ids, mrope_positions, prompt_ids
from ..model.vision import image_patches, merged_grid
from ..picturebook.wardrobe import Wardrobe
from ..pictures import image_key
from ..plan import parse_markup
from . import PlannerOptions
from .chapters import MIN_PAGES, Chapter, chapter_of, read_from
from .instruction import count_images
from .native_prompt import cannot_follow, names_of, prompt_for, shown_pictures

if TYPE_CHECKING:
    from ..plan import ImageSegment, Plan
    from ..request import Request
    from . import HistoryItem

LEAST_LIKELY = 0.05  # tokens below this share of the likeliest one are never drawn: a small model's tail is noise


@dataclass(slots=True)
class _Sequence:
    """Token ids with the pictures that stand at their image places, and the pictures' keys."""

    ids: list[int]
    pictures: list[Image.Image]
    keys: list[str]


class NativePlanner:
    """Writes plans with the planner of a native pair. See `planners.FeaturePlanner`.

    It reads the prompt, the pictures and who the cast is; `notes` say what else was asked and cannot be followed. A dense prompt is
    yielded when it is whole: until then its heroes may be dressed otherwise than on the pages before.
    """

    obeys_language = False

    def __init__(self, model: WeaverModel):
        self.model = model
        self.tokens = PlannerTokens.of(model.tokenizer)
        self._most = model.defaults.max_images  # that it has learned; longer stories come in chapters
        self.max_images = None if self._most >= MIN_PAGES else self._most
        self.notes: tuple[str, ...] = ()
        side = model.defaults.image_size
        self._side, self._grid = side, merged_grid(side, side, model.planner.config.vision_config)
        self._memory = _Memory(model, self.tokens, self._grid)

    def write(
        self, request: Request, history: tuple[HistoryItem, ...], *, options: PlannerOptions, cancel: Callable[[], bool]
    ) -> Iterator[str]:
        """Pieces of markup; ends with the story. See `planners.Planner.write`."""
        self.notes = tuple(cannot_follow(request))
        yield from names_of(request).streamed(self._write_chapters(request, history, options, cancel))

    def _write_chapters(self, request, history, options, cancel) -> Iterator[str]:
        generator = torch.Generator().manual_seed(options.seed % 2**63)
        index, total = count_images(history), None
        ended = index if options.continued else 0
        if options.num_images is not None:
            total = index + options.num_images
        while True:
            chapter = chapter_of(index, max(total or 0, index + 1), self._most, ended=ended)
            ends = total is None or chapter.stop >= total
            wanted = None if total is None else chapter.stop - index
            one = replace(options, num_images=wanted)
            text = yield from self._write_chapter(request, history, one, chapter, generator, cancel, ends=ends)
            if ends or text is None:
                return
            history, index = (*history, text), chapter.stop
            options = replace(options, max_tokens=max(1, options.max_tokens - len(encode(self.model.tokenizer, text))))

    def _write_chapter(
        self, request, history, options, chapter, generator, cancel, *, ends: bool
    ) -> Generator[str, None, str | None]:
        """Yields the pieces of one chapter and returns its text; None when it was stopped."""
        written = self._sequence(request, history, chapter, counted=options.num_images is not None)
        start = len(written.ids)
        text = _StreamedText(self.model.tokenizer)
        wardrobe = Wardrobe(prompt_for(request, None), _dense_prompts(history))
        pieces: list[str] = []
        held: list[str] | None = None  # pieces of a dense prompt, which is told when it is whole and its heroes are dressed
        num_images = begin = 0
        for _ in range(min(options.max_tokens, self._room(start))):
            if cancel():
                return None
            logits = self._memory.read(written)
            token = self._choose(logits, written.ids[start:], num_images, options, generator)
            if token == self.tokens.eos:
                break
            if token == self.tokens.end_imagine and held is not None:
                said = "".join(held)
                if (dressed := wardrobe.keep(said)) != said:
                    written.ids[begin:] = encode(self.model.tokenizer, dressed)
                pieces.append(dressed)
                yield dressed
                held = None
            written.ids.append(token)
            num_images += token == self.tokens.end_imagine
            for piece in text.add(token):
                if held is not None:
                    held.append(piece)
                    continue
                pieces.append(piece)
                yield piece
            if token == self.tokens.imagine:
                held, begin = [], len(written.ids)
            if not ends and num_images == options.num_images and token == self.tokens.begin_of_image:
                return "".join(pieces)
        yield from held or ()
        yield from text.rest()
        return None

    def context(
        self, plan: Plan, segment: ImageSegment, request: Request, *, history: tuple[HistoryItem, ...] = ()
    ) -> DensePromptContext:
        """The window of one image: a slice of the generation cache where the plan is as it was written."""
        index = [image.id for image in plan.images].index(segment.id)
        if not history:
            place = [part.id for part in plan.segments].index(segment.id)
            history = (replace(plan, segments=plan.segments[:place + 1]).to_bare_markup(),)
        chapter = chapter_of(index, max(len(plan.images), request.wanted_images or 0), self._most)
        sequence = self._sequence(request, history, chapter, counted=request.wanted_images is not None)
        self._room(len(sequence.ids))
        window = self.model.visualizer.window_rule.find(
            sequence.ids, begin=self.tokens.imagine, end=self.tokens.end_imagine, image=self.tokens.image_pad)[-1]
        self._memory.hold(sequence)
        return slice_cache(self._memory.cache, self._memory.positions_3T, window)

    def _sequence(self, request: Request, history: Sequence[HistoryItem], chapter: Chapter, *, counted: bool) -> _Sequence:
        """Everything the planner has before it: the request in its words, and what it reads of the story so far."""
        prompt = prompt_for(request, chapter if counted else None)
        pictures = [self._picture(picture.image) for picture in shown_pictures(request)]
        ids = prompt_ids(self.model.tokenizer, self.tokens, prompt, [self._grid] * len(pictures))
        names = names_of(request)
        for item in read_from(history, chapter.start):
            if isinstance(item, str):
                ids += encode(self.model.tokenizer, names.known(item))
            else:
                ids += image_ids(self.tokens, self._grid)
                pictures.append(self._picture(item))
        return _Sequence(ids, pictures, [image_key(picture) for picture in pictures])

    def _picture(self, image: Image.Image) -> Image.Image:
        return ImageOps.fit(image.convert("RGB"), (self._side, self._side), Image.Resampling.LANCZOS)

    def _room(self, length: int) -> int:
        """Tokens that may still follow. Raises InputError where there is no room at all."""
        most = self.model.planner.config.text_config.max_position_embeddings
        if length >= most:
            raise InputError(f"the planner would have to read {length:,} tokens, and it can hold {most:,}; "
                             "shorten the prompt or the plan, or split the story")
        return most - length

    def _choose(self, logits_V: Tensor, answer: list[int], num_images: int, options: PlannerOptions, generator) -> int:
        """The next token. Where a number of images is wanted, the story neither ends before nor goes on after it."""
        logits_V = logits_V.float().cpu().clone()
        t = self.tokens
        logits_V[[t.pad, t.user, t.bot, t.vision_start, t.vision_end, t.image_pad, t.video_pad]] = -torch.inf
        inside = answer.count(t.imagine) > answer.count(t.end_imagine)
        logits_V[[t.imagine, t.begin_of_image, t.eos] if inside else [t.end_imagine]] = -torch.inf
        if answer and answer[-1] == t.end_imagine:
            return t.begin_of_image
        if options.num_images is not None and not inside:
            if num_images >= options.num_images:
                return t.eos
            logits_V[t.eos] = -torch.inf
        if options.temperature == 0:
            return int(logits_V.argmax())
        probability_V = torch.softmax(logits_V / options.temperature, -1)
        probability_V[probability_V < LEAST_LIKELY * probability_V.max()] = 0
        return int(torch.multinomial(probability_V, 1, generator=generator))


class _Memory:
    """The planner's key/value cache and what it holds: reading a sequence computes only what is new in it."""

    def __init__(self, model: WeaverModel, tokens: PlannerTokens, grid: tuple[int, int]):
        self.model, self.tokens, self.grid = model, tokens, grid
        self.forward_tokens = 0  # read so far; a slice costs none
        self._clear()

    def _clear(self) -> None:
        from transformers import DynamicCache

        self.cache = DynamicCache(config=self.model.planner.config.get_text_config())
        self.positions_3T = torch.zeros(3, 0, dtype=torch.long)
        self._marks: list = []  # per token its id, or (for a picture's tokens) the picture's key
        self._last: Tensor | None = None

    def hold(self, sequence: _Sequence) -> None:
        """Make sure the cache begins with this sequence. More may stay behind it."""
        marks = self._marks_of(sequence)
        same = _common_length(marks, self._marks)
        if same < len(marks):
            self._extend(sequence, marks, same)

    @torch.no_grad()
    def read(self, sequence: _Sequence) -> Tensor:
        """Logits of the token that follows. Shape (vocabulary,)."""
        marks = self._marks_of(sequence)
        same = _common_length(marks, self._marks)
        if same < len(marks) or len(self._marks) > len(marks) or self._last is None:
            self._extend(sequence, marks, min(same, len(marks) - 1))
        return self.model.planner.lm_head(self._last)[0, -1]

    @torch.no_grad()
    def _extend(self, sequence: _Sequence, marks: list, keep: int) -> None:
        # A picture is read whole or not at all: its tokens look at each other in the ViT.
        while keep and sequence.ids[keep - 1] == self.tokens.image_pad and keep < len(marks) and marks[keep] == marks[keep - 1]:
            keep -= 1
        device = self.model.device
        self._cut(keep)
        grids = [self.grid] * len(sequence.pictures)
        positions_3T = mrope_positions(sequence.ids, self.tokens, grids)
        new_ids = sequence.ids[keep:]
        places = self.grid[0] * self.grid[1]
        unread = sum(token == self.tokens.image_pad for token in new_ids) // places
        pictures = {}
        if unread:
            pixels = np.stack([np.asarray(picture) for picture in sequence.pictures[-unread:]])
            patches_NP, patch_grids = image_patches(pixels, self.model.planner.config.vision_config)
            pictures = {"pixel_values": torch.from_numpy(patches_NP).to(device, self.model.planner.dtype),
                        "image_grid_thw": torch.from_numpy(patch_grids).to(device)}
        self._last = self.model.planner.model(
            input_ids=torch.tensor([new_ids], device=device), position_ids=positions_3T[:, None, keep:].to(device),
            past_key_values=self.cache, use_cache=True, **pictures).last_hidden_state
        self.forward_tokens += len(new_ids)
        self.positions_3T = positions_3T
        self._marks = marks

    def _cut(self, keep: int) -> None:
        if keep == 0:
            self._clear()
        elif keep < self.cache.get_seq_length():  # longer than the marks where a reading was broken off
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, :keep], layer.values[:, :, :keep]
            self._marks = self._marks[:keep]

    def _marks_of(self, sequence: _Sequence) -> list:
        if not sequence.pictures:
            return sequence.ids[:]
        places, marks, seen = self.grid[0] * self.grid[1], [], 0
        for token in sequence.ids:
            marks.append(token if token != self.tokens.image_pad else sequence.keys[seen // places])
            seen += token == self.tokens.image_pad
        return marks


class _StreamedText:
    """Tokens as text, piece by piece; a character whose bytes are not all there yet waits."""

    def __init__(self, tokenizer):
        self.tokenizer, self.pending = tokenizer, []

    def add(self, token: int) -> Iterator[str]:
        self.pending.append(token)
        text = self._decode()
        if not text.endswith("\ufffd"):
            self.pending.clear()
            yield text

    def rest(self) -> Iterator[str]:
        if self.pending:
            yield self._decode()

    def _decode(self) -> str:
        return self.tokenizer.decode(self.pending, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _dense_prompts(history: Sequence[HistoryItem]) -> list[str]:
    return [image.prompt for item in history if isinstance(item, str) for image in parse_markup(item)[0].images]


def _common_length(a: list, b: list) -> int:
    same = 0
    for x, y in zip(a, b):
        if x != y:
            break
        same += 1
    return same
