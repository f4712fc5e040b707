"""The planner's token layout: special tokens, the prompt around a request, and M-RoPE positions.

`<user>{request}{images}<bot>{markup}<eos>`, an image being `<|vision_start|>`, one `<|image_pad|>` per merged ViT patch,
`<|vision_end|>`. Training, planning and DPCW tuning all build their sequences here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PAD, EOS, USER, BOT = "<pad>", "<eos>", "<user>", "<bot>"
IMAGINE, END_IMAGINE, BEGIN_OF_IMAGE = "<imagine>", "</imagine>", "<BOI>"
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (PAD, EOS, USER, BOT, IMAGINE, END_IMAGINE, BEGIN_OF_IMAGE, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)


@dataclass(frozen=True, slots=True)
class PlannerTokens:
    """Ids of the special tokens in one tokenizer."""

    pad: int
    eos: int
    user: int
    bot: int
    imagine: int
    end_imagine: int
    begin_of_image: int
    vision_start: int
    vision_end: int
    image_pad: int
    video_pad: int

    @classmethod
    def of(cls, tokenizer) -> PlannerTokens:
        """Raises ValueError naming the special tokens that the tokenizer lacks."""
        ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
        missing = [token for token, i in zip(SPECIAL_TOKENS, ids) if i is None or i == tokenizer.unk_token_id]
        if missing:
            raise ValueError(f"the tokenizer lacks the special tokens {', '.join(missing)}; "
                             "take the tokenizer saved beside the planner, or add them and train the planner")
        return cls(*ids)


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def image_ids(tokens: PlannerTokens, grid: tuple[int, int]) -> list[int]:
    """An image in the sequence; `grid` = rows and columns of merged ViT patches."""
    return [tokens.vision_start, *[tokens.image_pad] * (grid[0] * grid[1]), tokens.vision_end]


def prompt_ids(tokenizer, tokens: PlannerTokens, request: str, grids: Sequence[tuple[int, int]] = ()) -> list[int]:
    """Everything before the planner's answer: request, then its images.

    Special tokens written inside the request are taken as plain text: nobody can close the user's turn from within it.
    A request all in capitals is read in lower case: a small vocabulary has no capitals of most words.
    """
    letters = [letter for letter in request if letter.isalpha()]
    if sum(letter.isupper() for letter in letters) > 0.6 * len(letters):
        request = request.lower()
    request_ids = tokenizer(request, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    images = [i for grid in grids for i in image_ids(tokens, grid)]
    return [tokens.user, *request_ids, *images, tokens.bot]


def mrope_positions(ids: Sequence[int], tokens: PlannerTokens, grids: Sequence[tuple[int, int]] = ()) -> Tensor:
    """Qwen2.5-VL's M-RoPE positions of a whole sequence with images, one after another.

    Text counts up on all three axes. An image's tokens share one time and carry their row and column; the text after
    it goes on at the largest number used plus one.
    Shapes   returns (3, len(ids)), long
    Raises   ValueError if the sequence holds other images than `grids` says
    """
    columns: list[Tensor] = []
    position, index, images = 0, 0, iter(grids)
    ids = list(ids)
    while index < len(ids):
        if ids[index] == tokens.image_pad:
            rows, width = next(images, (0, 0))
            count = rows * width
            if not count or ids[index:index + count] != [tokens.image_pad] * count:
                raise ValueError(f"the sequence has image tokens at {index} that no grid of {list(grids)} accounts for")
            y = torch.arange(rows).repeat_interleave(width)
            x = torch.arange(width).repeat(rows)
            columns.append(torch.stack([torch.zeros(count, dtype=torch.long), y, x]) + position)
            position += max(rows, width)
            index += count
            continue
        stop = index
        while stop < len(ids) and ids[stop] != tokens.image_pad:
            stop += 1
        columns.append(torch.arange(position, position + stop - index).expand(3, -1))
        position += stop - index
        index = stop
    if next(images, None) is not None:
        raise ValueError(f"{len(grids)} images were given, but the sequence holds fewer image places")
    return torch.cat(columns, 1) if columns else torch.zeros(3, 0, dtype=torch.long)
