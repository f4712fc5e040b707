"""On which line of a TOML file a key stands: `tomllib` gives values, and an error about a value should give its place."""

from __future__ import annotations

import tomllib


def key_lines(text: str) -> dict[str, int]:
    """{"train.steps": 4, "data.phases[1].until": 31, ...}: keys and table headers, counted from 1.

    `text` must be valid TOML. A statement is what `tomllib` accepts alone, so values of several lines need no parser here.
    """
    found: dict[str, int] = {}
    lines, prefix, counts, begin = text.splitlines(), "", {}, 0
    while begin < len(lines):
        line = lines[begin].strip()
        if line.startswith("["):
            path = next(iter(_leaves(tomllib.loads(line), tables=True)), "")
            path = _numbered(path, counts)
            if line.startswith("[["):
                counts[path] = counts.get(path, -1) + 1
                found.setdefault(path, begin + 1)
                path = f"{path}[{counts[path]}]"
            found.setdefault(path, begin + 1)
            prefix = f"{path}."
        stop = begin + 1
        if line and line[0] not in "[#":
            while stop < len(lines) and not _is_whole("\n".join(lines[begin:stop])):
                stop += 1
            for leaf in _leaves(tomllib.loads("\n".join(lines[begin:stop]))):
                found.setdefault(prefix + leaf, begin + 1)
        begin = stop
    return found


def _numbered(path: str, counts: dict[str, int]) -> str:
    """`a.b` inside the latest table of the array `a` is `a[1].b`."""
    done = ""
    *parents, last = path.split(".")
    for parent in parents:
        done += parent
        done += f"[{counts[done]}]." if done in counts else "."
    return done + last


def _leaves(table: dict, prefix: str = "", *, tables: bool = False):
    for key, value in table.items():
        if isinstance(value, list) and tables:
            value = value[0]
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.", tables=tables)
        elif not tables or isinstance(value, dict):
            yield f"{prefix}{key}"


def _is_whole(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True
