"""A plan as models write it under a JSON schema, where a server can force one: flat, and without anything to count.

This is not the plan's own JSON (plan.py), which holds ids, seeds and locks that no model should have to write.
"""

from __future__ import annotations

import json
from dataclasses import replace

from ..plan import CastMember, ImageSegment, Plan, TextSegment
from ..segments import ILLEGAL, KINDS

ASPECTS = ("1:1", "4:3", "3:4", "16:9", "9:16")


def answer_schema(num_images: int | None) -> dict:
    """JSON schema of the answer, strict (every key required, no others), with exactly `num_images` pages."""
    text = {"type": "string"}
    names = {"type": "array", "items": text}
    pages = {"type": "array", "items": _object(text=text, cast=names, aspect={"type": "string", "enum": list(ASPECTS)}, image=text)}
    if num_images is not None:
        pages |= {"minItems": num_images, "maxItems": num_images}
    cast = {"type": "array", "items": _object(name=text, kind={"type": "string", "enum": list(KINDS)}, look=text, references=names)}
    return _object(title=text, language=text, cast=cast, pages=pages, ending=text)


def _object(**properties: dict) -> dict:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def answer_of_plan(plan: Plan) -> dict:
    """The answer that a plan would have been; for examples. Seeds, sizes and ids are lost."""
    pages, texts = [], []
    for segment in plan.segments:
        if isinstance(segment, TextSegment):
            texts.append(segment.text)
            continue
        pages.append({"text": "\n".join(texts), "cast": list(segment.cast), "aspect": segment.aspect or "4:3",
                      "image": segment.prompt})  # fmt: skip
        texts = []
    cast = [{"name": member.name, "kind": member.kind, "look": member.look, "references": list(member.references)}
            for member in plan.cast]  # fmt: skip
    return {"title": plan.title, "language": plan.language, "cast": cast, "pages": pages, "ending": "\n".join(texts)}


def markup_of_answer(text: str, *, continued: bool = False, with_aspect: bool = True) -> str:
    """The answer as markup; ValueError when it is no such JSON. Fields that are missing or of another kind are left out.

    continued     it goes on from a history: no title and cast, and ids are the parser's to give
    with_aspect   False where the request sets one for all images
    """
    try:
        answer = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the answer is not JSON: {error}") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("pages"), list):
        raise ValueError("the answer has no list of pages")
    segments: list = []
    for page in answer["pages"]:
        page = page if isinstance(page, dict) else {}
        _add_text(segments, page.get("text"))
        image = {"id": f"p{1 + sum(isinstance(segment, ImageSegment) for segment in segments)}", "prompt": _text(page.get("image"))}
        image["cast"] = _names(page.get("cast"))
        if with_aspect and page.get("aspect") in ASPECTS:
            image["aspect"] = page["aspect"]
        try:
            segments.append(ImageSegment(**image))
        except ValueError:
            continue  # a page without a description has no image
    _add_text(segments, answer.get("ending"))
    if not segments:
        raise ValueError("the answer has no page with text or image")
    if continued:
        bare = Plan(segments=tuple(segments)).to_markup()
        for segment in segments:
            bare = bare.replace(f'<imagine id="{segment.id}"', "<imagine", 1)
        return bare
    plan = Plan(title=_text(answer.get("title")), cast=_cast(answer.get("cast")), segments=tuple(segments))
    try:
        plan = replace(plan, language=answer.get("language"))
    except ValueError:
        pass  # no language code: the request's own counts
    return plan.to_markup()


def _text(value: object) -> str:
    return ILLEGAL.sub(" ", value).strip() if isinstance(value, str) else ""


def _add_text(segments: list, value: object) -> None:
    if text := _text(value):
        number = 1 + sum(isinstance(segment, TextSegment) for segment in segments)
        segments.append(TextSegment(id=f"t{number}", text=text))


def _cast(value: object) -> tuple[CastMember, ...]:
    members: dict[str, CastMember] = {}
    for item in value if isinstance(value, list) else ():
        item = item if isinstance(item, dict) else {}
        try:
            kind = item.get("kind") if item.get("kind") in KINDS else "character"
            member = CastMember(name=_text(item.get("name")), kind=kind, look=_text(item.get("look")),
                                references=_names(item.get("references")))  # fmt: skip
        except ValueError:
            continue  # a member without a name
        members.setdefault(member.name, member)
    return tuple(members.values())


def _names(value: object) -> tuple[str, ...]:
    names = [" ".join(_text(name).split()) for name in value] if isinstance(value, list) else []
    return tuple(dict.fromkeys(name for name in names if name and len(name) <= 200))
