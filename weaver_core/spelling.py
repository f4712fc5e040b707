"""How single values are spelled in markup (entities, lists, sizes), and the printer of whole plans.

The parser (`markup.py`) reads what is printed here back as equal values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .segments import ILLEGAL, CastMember, ImageSegment, Segment, TextSegment

_ENTITY = re.compile(r"&(lt|gt|amp|quot|#[0-9]{1,7});")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}


# ---- reading


def decode(raw: str) -> str:
    if "&" not in raw:
        return raw
    return _ENTITY.sub(_decode_entity, raw)


def _decode_entity(found: re.Match[str]) -> str:
    name = found[1]
    if not name.startswith("#"):
        return _ENTITIES[name]
    code = int(name[1:])
    if code > 0x10FFFF or ILLEGAL.match(chr(code)):
        return found[0]
    return chr(code)


def read_names(raw: str, separator: str) -> tuple[str, ...]:
    names = (" ".join(decode(part).split()) for part in raw.split(separator))
    return tuple(dict.fromkeys(name for name in names if name))


def read_references(raw: str) -> str | tuple[str, ...]:
    word = raw.strip()
    if word == "auto":
        return "auto"
    return () if word in ("none", "") else read_names(raw, ",")


def read_size(raw: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*([0-9]{1,6})\s*[x×X*]\s*([0-9]{1,6})\s*", raw, re.ASCII)
    if not found:
        raise ValueError(f"size: expected width x height such as '1024x768', got {raw[:40]!r}")
    return int(found[1]), int(found[2])


def read_seed(raw: str) -> int | str:
    word = raw.strip()
    if word == "auto":
        return "auto"
    if not re.fullmatch(r"[0-9]{1,20}", word, re.ASCII):
        raise ValueError(f"seed: expected 'auto' or a whole number, got {raw[:40]!r}")
    return int(word)


def read_flag(raw: str) -> bool:
    word = raw.strip().lower()
    if word not in ("true", "false", "yes", "no", "locked", "1", "0", ""):
        raise ValueError(f"locked: expected true or false, got {raw[:40]!r}")
    return word not in ("false", "no", "0")


# ---- printing


def print_markup(title: str, language: str, cast: Iterable[CastMember], segments: Iterable[Segment]) -> str:
    """Markup that parses to exactly these. Image ids are always written, so that they survive editing."""
    lines = [f"# {_escape(title)}"] if title else []
    if language != "en":
        lines.append(f'<story language="{language}">')
    lines += [_cast_tag(member) for member in cast]
    segments = tuple(segments)
    num_texts, after_text = 0, False
    for index, segment in enumerate(segments):
        if isinstance(segment, ImageSegment):
            lines.append(f"{_imagine_tag(segment)}{_escape(segment.prompt)}</imagine>")
            after_text = False
            continue
        num_texts += 1
        text = _escape(segment.text)
        if index == 0 and text.startswith("#"):
            text = f"&#35;{text[1:]}"  # or it would be the title
        # The id that the parser gives by itself need not be written, but two texts in a row need the tag between.
        named = after_text or segment.id != f"t{num_texts}"
        lines.append(f'<text id="{segment.id}">{text}' if named else text)
        after_text = True
    return "".join(f"{line}\n" for line in lines)


def print_bare(title: str, segments: Iterable[Segment]) -> str:
    """The paper's form, as the native planner writes it: no ids, no attributes, <BOI> after every image."""
    out = f"# {_escape(title)}\n" if title else ""
    after_text = False
    for segment in segments:
        if isinstance(segment, TextSegment):
            out += ("" if not out or out.endswith("\n") else "\n") + _escape(segment.text)
            after_text = True
        else:
            out += (" " if after_text else "") + f"<imagine>{_escape(segment.prompt)}</imagine><BOI>\n"
            after_text = False
    return out.removesuffix("\n")


def _imagine_tag(segment: ImageSegment) -> str:
    attributes = [("id", segment.id)]
    if segment.cast:
        attributes.append(("cast", _join(segment.cast, ",")))
    if segment.aspect is not None:
        attributes.append(("aspect", segment.aspect))
    if segment.size is not None:
        attributes.append(("size", f"{segment.size[0]}x{segment.size[1]}"))
    if segment.seed != "auto":
        attributes.append(("seed", str(segment.seed)))
    if segment.references == ():
        attributes.append(("references", "none"))
    elif segment.references != "auto":
        attributes.append(("references", _join(segment.references, ",")))
    if segment.locked:
        attributes.append(("locked", "true"))
    return "<imagine" + "".join(f' {name}="{value}"' for name, value in attributes) + ">"


def _cast_tag(member: CastMember) -> str:
    attributes = [("name", _escape_value(member.name))]
    if member.kind != "character":
        attributes.append(("kind", member.kind))
    if member.look:
        attributes.append(("look", _escape_value(member.look)))
    if member.outfits:
        attributes.append(("outfits", _join(member.outfits, "|")))
    if member.references:
        attributes.append(("references", _join(member.references, ",")))
    return "<cast" + "".join(f' {name}="{value}"' for name, value in attributes) + ">"


def _join(names: tuple[str, ...], separator: str) -> str:
    parts = [_escape_value(name).replace(separator, f"&#{ord(separator)};") for name in names]
    if parts in (["auto"], ["none"]):
        parts[0] = f"&#{ord(parts[0][0])};{parts[0][1:]}"  # a name, not the word of the language
    return f"{separator} ".join(parts)


def _escape(text: str) -> str:
    """The text with entities where it would otherwise be read as a tag or as an entity."""
    text = re.sub(r"&(?=(?:lt|gt|amp|quot|#[0-9]{1,7});)", "&amp;", text)
    return re.sub(r"<(?=/?[A-Za-z]|\Z)", "&lt;", text)


def _escape_value(text: str) -> str:
    table = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
    return re.sub(r'[&<>"\n\r\t]', lambda found: table[found.group()], text)
