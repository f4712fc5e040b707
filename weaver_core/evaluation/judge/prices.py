"""What a judge's tokens cost. Prices come from the user's file; none are built in, for they change.

    {"some-model": {"input_per_million": 2.5, "output_per_million": 10.0, "image_tokens": 765}}
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError

if TYPE_CHECKING:
    from .evidence import Message

ANSWER_TOKENS = 150  # a rationale of a few sentences and a number, per dimension (our choice, for estimates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per million tokens, and how many tokens an image counts (765: a 768 px square at GPT-4o, tiled)."""

    input_per_million: float = 0.0
    output_per_million: float = 0.0
    image_tokens: int = 765

    def of_usage(self, usage: dict) -> float:
        """What a reply cost by the server's own count."""
        return (usage.get("prompt_tokens", 0) * self.input_per_million + usage.get("completion_tokens", 0) * self.output_per_million) / 1e6

    def of_message(self, message: Message, max_tokens: int | None) -> tuple[int, int, float]:
        """Tokens in, tokens out and USD of a call that has not been made; with `max_tokens`: at most."""
        texts = [message.system, *(part for part in message.parts if isinstance(part, str))]
        tokens_in = sum(map(text_tokens, texts)) + self.image_tokens * len(message.images)
        num_dims = max(1, len(message.schema["properties"]) if "score" not in message.schema["properties"] else 1)
        tokens_out = max_tokens or ANSWER_TOKENS * num_dims
        return tokens_in, tokens_out, (tokens_in * self.input_per_million + tokens_out * self.output_per_million) / 1e6


def text_tokens(text: str) -> int:
    """About how many tokens a text is: four letters each, and one for every character outside ASCII."""
    wide = sum(character > "\x7f" for character in text)
    return math.ceil((len(text) - wide) / 4) + wide


def read_price(path: str | Path, model: str) -> Price:
    """The price of a model in the user's file. InputError when it is not there or makes no sense."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a file of prices: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get(model), dict):
        known = ", ".join(map(str, data)) if isinstance(data, dict) else ""
        raise InputError(f"{path} has no price of {model!r}; it has {known or 'none'}")
    price = data[model]
    unknown = set(price) - {"input_per_million", "output_per_million", "image_tokens"}
    if unknown:
        raise InputError(f"{path}: {model}: unknown key {sorted(unknown)[0]!r}")
    for key, value in price.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise InputError(f"{path}: {model}.{key} is {value!r}; a number of 0 or more was expected")
    if not {"input_per_million", "output_per_million"} <= set(price):
        raise InputError(f"{path}: {model} needs input_per_million and output_per_million")
    return Price(**price)
