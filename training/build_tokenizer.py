"""The picture-book planner's tokenizer: byte-level BPE trained on the story grammar's own texts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weaver_core.model.tokens import EOS, PAD, SPECIAL_TOKENS
from weaver_core.picturebook import grammar, world

# A word with the space before it, a run of other signs, a lone digit: as in GPT-2, but digits never merge, so that a count
# is one token wherever it stands.
_PIECES = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the planner's special tokens at ids 0 to 10; any text encodes and decodes exactly."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, clean_up_tokenization_spaces=False,
        additional_special_tokens=[token for token in SPECIAL_TOKENS if token not in (PAD, EOS)])


def picturebook_texts(stories: int, seed: int = 0) -> Iterator[str]:
    """Training-split texts, then every word of the world in each form, often enough to become one token each."""
    yield from grammar.tokenizer_texts(seed=seed, count=stories)
    words = (*world.HEROES, *world.COLOURS, *world.WEARABLES, *world.PROPS, *world.PLACES, *world.TIMES, *world.POSITIONS,
             *world.POSES, "one", "two", "three", "four", "five", "six", "seven", "eight", "picture", "pictures", "hero")
    rng = random.Random(seed)
    for _ in range(max(1, stories // 4)):
        for word in rng.sample(words, len(words)):
            # separate texts, because the form without a space before it occurs only where a text begins
            yield from (word, word.capitalize(), f" {word}", f" {word.capitalize()}")
