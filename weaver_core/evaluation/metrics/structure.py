"""What a document is made of: how many images were asked for and came, and what is wrong with its blocks. No pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ..records import Document, MetricRecord, Prompt
from ..run_folder import inside

# Tags of planners, chat templates and thinking that belong to no reader.
LEAKED_TAG = re.compile(
    r"</?(?:imagine|boi|eoi|bos|eos|img|image|cast|story|think|thinking|reasoning|begin|end|s|pad|unk)\b[^<>]{0,200}>"
    r"|<\|[a-z0-9_]{1,40}\|>|\[/?INST\]|<[/]?IMG_\d+>",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"""[.!?:;…。！？：；~♪)\]}"'”’»]\s*\Z""")
_TITLE = re.compile(r"\s*#|\A[^\n]{0,80}\Z")


class StructureMetric:
    """image_count, clean_blocks, finished, has_images, has_text; flags name the faults and the block ("leaked_tag:3")."""

    name = "structure"

    def measure(self, prompts: dict[str, Prompt], documents: Sequence[Document], folder: Path) -> list[MetricRecord]:
        return [record for document in documents for record in self._one(prompts[document.prompt_id], document, Path(folder))]

    def _one(self, prompt: Prompt, document: Document, folder: Path):
        faults = block_faults(document, folder)
        faulty = {fault.split(":")[1] for fault in faults}
        got, least, most = len(document.images), prompt.want.images_min, prompt.want.images_max
        wanted = min(max(got, least), most)
        count_flags = () if got == wanted else (f"{'missing' if got < wanted else 'extra'}_images:{abs(got - wanted)}",)
        values = {
            "image_count": (max(0.0, 1 - abs(got - wanted) / max(1, wanted)), count_flags),
            "clean_blocks": (1 - len(faulty) / len(document.blocks) if document.blocks else 0.0, tuple(faults)),
            "finished": (float(document.finish == "stop" and not document.error),
                         () if document.finish == "stop" else (f"finish_{document.finish}",)),
            "has_images": (float(got > 0), () if got or not least else ("no_image",)),
            "has_text": (float(any(block.text.strip() for block in document.texts)), ()),
        }  # fmt: skip
        for name, (value, flags) in values.items():
            yield MetricRecord(prompt_id=document.prompt_id, system=document.system, metric=name, value=value, flags=flags)


def block_faults(document: Document, folder: Path) -> list[str]:
    """Faults by block index: "empty:2", "leaked_tag:0", "cut_off:4" (its text ends within a sentence), "missing_file:1"."""
    faults = []
    for number, block in enumerate(document.blocks):
        if block.type == "image":
            if not _exists(folder, block.path):
                faults.append(f"missing_file:{number}")
            continue
        text = block.text.strip()
        if not text:
            faults.append(f"empty:{number}")
        if LEAKED_TAG.search(text):
            faults.append(f"leaked_tag:{number}")
        if text and is_cut_off(text, first=number == 0):
            faults.append(f"cut_off:{number}")
    return faults


def is_cut_off(text: str, *, first: bool = False) -> bool:
    """Whether a text ends within a sentence. Headings, short first lines and last lines of lists may end without a mark."""
    last = text.rstrip().rsplit("\n", 1)[-1]
    if last.lstrip().startswith(("#", "-", "*", "|", "•")) or re.match(r"\s*\d+[.)]", last):
        return False
    if first and _TITLE.fullmatch(text):
        return False
    plain = re.sub(r"[*_`\s]+\Z", "", last)
    return len(plain.split()) > 3 and not SENTENCE_END.search(plain) and plain[-1].isalnum() or plain.endswith((",", "-", "("))


def _exists(folder: Path, path: str) -> bool:
    try:
        return inside(folder, path).is_file()
    except InputError:
        return False
