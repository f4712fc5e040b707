"""The JSON files of a story folder. The folder may come from a stranger: nothing in them is believed unchecked."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

from .errors import InputError, PlanError, StoryError
from .pictures import image_key, read_picture
from .plan import CastMember, Plan, build_checked, check_keys, load_json
from .references import POLICIES
from .request import ReferenceImage, RenderSettings, Request
from .segments import kind_of

MODES = ("plan-first", "closed-loop")
MAX_FILE_BYTES = 256 * 2**20
_REFERENCE_FILE = re.compile(r"references/[A-Za-z0-9][A-Za-z0-9_-]{0,63}-[0-9a-f]{12}\.png\Z")


def read_inside(folder: Path, file: str) -> bytes:
    """The bytes of a file of the folder; StoryError when it is missing, too large, or leads elsewhere."""
    path = folder / file
    try:
        if not path.resolve().is_relative_to(folder.resolve()) or path.is_symlink():
            raise StoryError(f"{file} leads out of the story folder")
        if not path.is_file():
            raise StoryError(f"{file} is missing")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StoryError(f"{file} has {path.stat().st_size >> 20} MB; at most {MAX_FILE_BYTES >> 20} MB are read")
        return path.read_bytes()
    except OSError as error:
        raise StoryError(f"{file} cannot be read: {error.strerror or error}") from None


def read_json(folder: Path, file: str) -> object:
    try:
        return load_json(read_inside(folder, file).decode(), file)
    except UnicodeDecodeError:
        raise StoryError(f"{folder / file}: not text in UTF-8") from None
    except PlanError as error:
        raise StoryError(f"{folder}: {error}") from None



def read_plan(folder: Path) -> Plan:
    """The plan of a story folder; StoryError names the path of what is wrong in it."""
    try:
        return Plan.from_json(read_json(folder, "plan.json"))
    except PlanError as error:
        raise StoryError(f"{folder / 'plan.json'}: {error}") from None


def json_bytes(data: dict) -> bytes:
    return (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode()


_SETTINGS = ("steps", "guidance", "reference_guidance")
_NEWER_SETTINGS = ("check_images", "max_references", "max_reference_tokens")  # stories of earlier versions have none


def request_to_json(
    request: Request, files: dict[str, str], *, mode: str, settings: RenderSettings, policy: str, made_with: str
) -> dict:
    """`files` are where the request's pictures lie in the folder, by name."""
    return {
        "format": "weaver-request",
        "version": 1,
        "prompt": request.prompt,
        "num_images": request.num_images,
        "size": None if request.size is None else list(request.size),
        "aspect": request.aspect,
        "language": request.language,
        "style": request.style,
        "seed": request.seed,
        "cast": Plan(cast=request.cast).to_json()["cast"],
        "images": [{"name": p.name, "file": files[p.name], "key": p.key} for p in request.images],
        "mode": mode,
        "settings": asdict(settings),
        "policy": policy,
        "made_with": made_with,
    }


_REQUEST_KEYS = (
    "format", "version", "prompt", "num_images", "size", "aspect", "language", "seed", "cast", "images", "mode",
    "settings", "policy", "made_with",
)  # fmt: skip


def settings_from_json(data: object) -> dict:
    """How the story is woven: mode, settings, policy, made_with. Checks the form of the whole file."""
    try:
        check_keys("", data, required=_REQUEST_KEYS, optional=("style",))
        if data["format"] != "weaver-request" or data["version"] != 1:
            raise PlanError(f"format: expected weaver-request 1, got {data['format']!r} {data['version']!r}"[:200])
        settings = check_keys("settings", data["settings"], required=_SETTINGS, optional=_NEWER_SETTINGS)
        for key, known in (("mode", MODES), ("policy", POLICIES)):
            if data[key] not in known:
                raise PlanError(f"{key}: expected one of {', '.join(known)}, got {str(data[key])[:40]!r}")
        if not isinstance(data["made_with"], str):
            raise PlanError(f"made_with: expected text, got {kind_of(data['made_with'])}")
        return {
            "mode": data["mode"],
            "settings": RenderSettings(**settings),
            "policy": data["policy"],
            "made_with": data["made_with"],
        }
    except InputError as error:
        raise StoryError(f"request.json: {error}") from None


def request_from_json(folder: Path, data: dict) -> Request:
    try:
        if not isinstance(data["cast"], list) or not isinstance(data["images"], list):
            raise PlanError("cast, images: expected lists")
        cast = tuple(
            build_checked(CastMember, f"cast[{i}]", member, ("name",), ("kind", "look", "outfits", "references"))
            for i, member in enumerate(data["cast"])
        )
        images = tuple(_reference_from_json(folder, f"images[{i}]", item) for i, item in enumerate(data["images"]))
        size = tuple(data["size"]) if isinstance(data["size"], list) else data["size"]
        request, _ = Request(
            prompt=data["prompt"],
            images=images,
            num_images=data["num_images"],
            size=size,
            aspect=data["aspect"],
            language=data["language"],
            style=data.get("style", ""),
            cast=cast,
            seed=data["seed"],
        ).validated()
        return request
    except InputError as error:
        raise StoryError(f"request.json: {error}") from None


def _reference_from_json(folder: Path, path: str, data: object) -> ReferenceImage:
    check_keys(path, data, required=("name", "file", "key"))
    if not isinstance(data["file"], str) or not _REFERENCE_FILE.match(data["file"]):
        raise PlanError(f"{path}.file: {str(data['file'])[:80]!r} is no file of the references folder")
    if not isinstance(data["name"], str):
        raise PlanError(f"{path}.name: expected text, got {kind_of(data['name'])}")
    image, _ = read_picture(read_inside(folder, data["file"]), data["file"])
    key = image_key(image)
    if key != data["key"]:
        raise PlanError(f"{path}: {data['file']} is another picture than the one the story was begun with")
    return ReferenceImage(name=data["name"], image=image, key=key)
