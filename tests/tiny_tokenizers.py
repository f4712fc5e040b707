"""Tokenizers of the kinds that chat models have, made from a few words: byte-level BPE, and pieces with byte fallback."""

from __future__ import annotations

CHAT_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'image' \
%}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SPECIAL = ["<|im_end|>", "<|endoftext|>", "<|im_start|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
           "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>"]  # fmt: skip
# Pairs that make tokens which cross the borders of markup.
MERGES = [("<", "i"), ("<", "/"), ("i", "m"), ("a", "g"), (".", "<"), ("Ġ", "Ġ"), ("\"", ">"), (">", "Ċ"), ("Ċ", "Ċ"),
          ("e", ">"), ("Ġ", "a"), (".", "Ċ")]  # fmt: skip


def byte_level():
    """256 bytes, 12 merges, and Qwen's special tokens, the first of which is 268."""
    from transformers import Qwen2Tokenizer

    from weaver_core.planners.plan_grammar import _byte_level_alphabet

    vocabulary = {character: id for id, character in enumerate(_byte_level_alphabet().values())}
    for left, right in MERGES:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=MERGES, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def byte_fallback():
    """Pieces with the SentencePiece space mark, bytes where there is no piece, tags as single pieces."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(0x20, 0x7F)), "\u2581",
              "\u2581a", "\u2581fox", "小", "狐", "狸", "\u3000", "é", "\n\n", ".\n", "<imagine>", "</imagine>", "e>", "\">\n<",
              "\u2581\u2581\u2581\u2581", "cast", "=\"", "n</", "\u2581id=\"p", ".</imagine>\n\n<imagine", "a,b"]  # fmt: skip
    backend = Tokenizer(models.BPE(vocab={piece: id for id, piece in enumerate(pieces)}, merges=[], byte_fallback=True,
                                   unk_token="<unk>"))  # fmt: skip
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                         decoders.Strip(" ", 1, 0)])  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
