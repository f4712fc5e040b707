"""A cast that outlives its story: characters with their pictures, in memory and as a folder.

    robin/
      cast.json            names, looks, outfits, and which picture shows whom
      <name>-<hash>.png    the pictures

Pictures are written first and `cast.json` last, so a folder that has one is whole. A folder may come from a stranger:
every file in it is bounded, must lie inside, and is compared with its hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from .durable import write_error, write_whole
from .errors import InputError, PlanError, StoryError
from .pictures import encode_png, image_key, read_picture
from .plan import CastMember, Plan, build_checked, check_keys
from .request import MAX_CAST, MAX_REFERENCES, ReferenceImage, Request, reference_name
from .segments import kind_of
from .story_files import json_bytes, read_inside, read_json

FORMAT, VERSION = "weaver-cast", 1
CAST_FILE = "cast.json"
_PICTURE_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}-[0-9a-f]{12}\.png\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Characters and places, and the pictures that show them. Names of members and of pictures are unique.

    A member's `references` are names of `pictures`.
    """

    members: tuple[CastMember, ...] = ()
    pictures: tuple[ReferenceImage, ...] = ()

    def __post_init__(self):
        if len(self.members) > MAX_CAST or len(self.pictures) > MAX_REFERENCES:
            raise InputError(
                f"the cast has {len(self.members)} members with {len(self.pictures)} pictures; at most {MAX_CAST} and "
                f"{MAX_REFERENCES} can be used in one story"
            )
        for what, names in (("member", [m.name for m in self.members]), ("picture", [p.name for p in self.pictures])):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise InputError(f"the cast has two {what}s of the name {twice!r}; every {what} has a name of its own")

    @classmethod
    def of(cls, member: CastMember, pictures: Iterable[ReferenceImage] = ()) -> Cast:
        """One member with its pictures, which get names after it: Robin-1, Robin-2."""
        named = tuple(replace(picture, name=_picture_name(member.name, number)) for number, picture in enumerate(pictures, 1))
        return cls(members=(replace(member, references=tuple(picture.name for picture in named)),), pictures=named)

    def member(self, name: str) -> CastMember:
        """The member of this name; InputError names those there are."""
        for member in self.members:
            if member.name.casefold() == name.strip().casefold():
                return member
        known = ", ".join(member.name for member in self.members) or "nobody"
        raise InputError(f"the cast has no {name[:60]!r}; there is {known}")

    def pictures_of(self, member: CastMember) -> tuple[ReferenceImage, ...]:
        by_name = {picture.name: picture for picture in self.pictures}
        return tuple(by_name[name] for name in member.references if name in by_name)

    def joined(self, other: Cast) -> Cast:
        """Both casts as one; a member that both have is taken from the other one, in its old place."""
        others = {member.name: member for member in other.members}
        joined = Cast()
        for member in (*self.members, *other.members):
            if any(known.name == member.name for known in joined.members):
                continue
            source = other if member.name in others else self
            member = others.get(member.name, member)
            taken = {picture.name for picture in joined.pictures}
            pictures = ()
            for picture in source.pictures_of(member):
                pictures += (replace(picture, name=_fresh(picture.name, taken)),)
                taken.add(pictures[-1].name)
            member = replace(member, references=tuple(picture.name for picture in pictures))
            joined = Cast(members=(*joined.members, member), pictures=joined.pictures + pictures)
        return joined

    def into(self, request: Request) -> Request:
        """The request with this cast: its pictures come before the request's own."""
        whole = Cast.from_request(request).joined(self)
        bound = {name for member in request.cast for name in member.references}
        own = tuple(picture for picture in request.images if picture.name not in bound)
        return replace(request, cast=whole.members, images=whole.pictures + own)

    @classmethod
    def from_request(cls, request: Request) -> Cast:
        """The cast that a request has."""
        known = {picture.name for picture in request.images}
        members = tuple(
            replace(member, references=tuple(name for name in member.references if name in known)) for member in request.cast
        )
        bound = {name for member in members for name in member.references}
        return cls(members=members, pictures=tuple(picture for picture in request.images if picture.name in bound))


# ---- on disk


def save_cast(cast: Cast, folder: str | Path) -> Path:
    """Writes the cast into a folder of its own and returns its path. StoryError when something else is there."""
    folder = Path(folder)
    if not cast.members:
        raise InputError("the cast is empty, so there is nothing to save; make a character first")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StoryError(f"{folder} is not empty; choose another name for the cast")
    except OSError as error:
        raise write_error(error, folder, 0) from None
    files = {picture.name: f"{picture.name}-{picture.key[:12]}.png" for picture in cast.pictures}
    for picture in cast.pictures:
        write_whole(folder / files[picture.name], encode_png(picture.image))
    data = {
        "format": FORMAT,
        "version": VERSION,
        "cast": Plan(cast=cast.members).to_json()["cast"],
        "images": [{"name": picture.name, "file": files[picture.name], "key": picture.key} for picture in cast.pictures],
    }
    write_whole(folder / CAST_FILE, json_bytes(data))
    return folder


def load_cast(folder: str | Path) -> Cast:
    """The cast in a folder. StoryError when there is none, or it is damaged."""
    folder = Path(folder)
    if not (folder / CAST_FILE).is_file():
        raise StoryError(f"{folder} holds no cast (there is no {CAST_FILE} in it)")
    try:
        data = check_keys("", read_json(folder, CAST_FILE), required=("format", "version", "cast", "images"))
        if data["format"] != FORMAT or data["version"] != VERSION:
            got = f"{data['format']!r} {data['version']!r}"[:80]
            raise PlanError(f"format: expected {FORMAT} {VERSION}, got {got}")
        for key in ("cast", "images"):
            if not isinstance(data[key], list):
                raise PlanError(f"{key}: expected a list, got {kind_of(data[key])}")
        if len(data["images"]) > MAX_REFERENCES:
            raise PlanError(f"images: {len(data['images'])} pictures; at most {MAX_REFERENCES} can be used in one story")
        keys = ("kind", "look", "outfits", "references")
        members = [build_checked(CastMember, f"cast[{i}]", item, ("name",), keys) for i, item in enumerate(data["cast"])]
        pictures = [_read_picture(folder, f"images[{i}]", item) for i, item in enumerate(data["images"])]
        return Cast(members=tuple(members), pictures=tuple(pictures))
    except InputError as error:
        raise StoryError(f"{folder / CAST_FILE}: {error}") from None


def _read_picture(folder: Path, path: str, data: object) -> ReferenceImage:
    check_keys(path, data, required=("name", "file", "key"))
    if not isinstance(data["file"], str) or not _PICTURE_FILE.match(data["file"]):
        raise PlanError(f"{path}.file: {str(data['file'])[:80]!r} is no picture of a cast")
    if not isinstance(data["name"], str) or reference_name(data["name"]) != data["name"]:
        raise PlanError(f"{path}.name: {str(data['name'])[:80]!r} is no name of a picture")
    image, _ = read_picture(read_inside(folder, data["file"]), data["file"])
    if image_key(image) != data["key"]:
        raise PlanError(f"{path}: {data['file']} is another picture than the one that was saved")
    return ReferenceImage(name=data["name"], image=image, key=data["key"])


# ---- names of pictures


def _picture_name(member: str, number: int) -> str:
    return reference_name(f"{reference_name(member)[:40]}-{number}")


def _fresh(name: str, taken: set[str]) -> str:
    fresh, number = name, 2
    while fresh in taken:
        fresh, number = f"{name[:44]}-{number}", number + 1
    return fresh
