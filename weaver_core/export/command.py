"""`weaver export`: a story folder as files for readers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..errors import InputError
from ..story import StoryFolder
from . import FORMATS, export_story

HELP = "write a story as a file to read, print or send"


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weaver export` to its parser, which has --quiet and --json already."""
    kinds = "; ".join(f"{item.name}: {item.description}" for item in FORMATS.values())
    parser.add_argument("story", metavar="STORY", help="the story folder")
    parser.add_argument("--format", metavar="NAMES", action="append", type=_formats_argument,
                        help=f"one or more of {', '.join(FORMATS)}, or all (default: by the ending of --out, else html). "
                        f"{kinds}")
    parser.add_argument("--out", metavar="FILE",
                        help="the file to write; with several formats each gets its own ending (default: story.* in the "
                        "folder)")
    parser.add_argument("--fonts", metavar="DIR", help="a folder with fonts for pdf and cbz, looked at before the system's")


def run_export(options: argparse.Namespace) -> int:
    """Writes the files and prints their paths; the exit code says when images are missing in them."""
    from ..cli import INCOMPLETE, OK

    formats = list(dict.fromkeys(name for names in options.format or () for name in names))
    with StoryFolder.open(options.story, read_only=True) as story:
        out = Path(options.out) if options.out else story.folder / "story"
        formats = formats or [_by_ending(out) if options.out else "html"]
        missing, files = story.missing(), {}
        for name in formats:
            files[name] = str(export_story(story, _path(out, name, formats), name, fonts=options.fonts))
            if not options.json:
                print(files[name], flush=True)
    if options.json:
        print(json.dumps({"files": files, "missing": list(missing)}))
    elif missing and not options.quiet:
        print(
            f"{len(missing)} of {len(story.plan.images)} images are missing ({', '.join(missing)}); their dense prompts "
            f"stand in their places. 'weaver resume {story.folder}' draws them",
            file=sys.stderr,
        )
    return INCOMPLETE if missing else OK


def _formats_argument(text: str) -> list[str]:
    names = [name.strip().lower() for name in text.split(",")]
    if names == ["all"]:
        return list(FORMATS)
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name[:40]!r} is no format; choose from {', '.join(FORMATS)}, all")
    return names


def _by_ending(out: Path) -> str:
    for item in FORMATS.values():
        if out.suffix.lower() == item.ending:
            return item.name
    endings = ", ".join(item.ending for item in FORMATS.values())
    raise InputError(f"{out} does not say which format; give --format, or end the name in one of {endings}")


def _path(out: Path, name: str, formats: list[str]) -> Path:
    """Where a format goes: the file as it was named, or with the format's ending in place of another format's."""
    ending = FORMATS[name].ending
    if out.suffix.lower() == ending or (len(formats) == 1 and out.suffix):
        return out
    known = {item.ending for item in FORMATS.values()}
    return out.with_suffix(ending) if out.suffix.lower() in known else out.with_name(out.name + ending)
