"""The seeds behind a node: what the page sets again, so that one page can change in a story that otherwise stays the same."""

from __future__ import annotations

_SEEDS = ("seed", "noise_seed")
_OF_PRIMITIVES = "value"  # where nodes that hold a number for others keep it


def seeds_before(prompt: dict, node_id: str | None) -> list[list]:
    """[node, input, seed] of a node and every node that it depends on: with these the same story comes again.

    Their widgets may show other seeds by then, because the page rolls them after every run.
    """
    found, waiting, seen = [], [node_id], set()

    def note(node: str, name: str, value: object) -> None:
        if isinstance(value, int) and not isinstance(value, bool):
            found.append([node, name, value])

    while waiting:
        current = waiting.pop()
        inputs = prompt.get(current, {}).get("inputs", {})
        if current in seen:
            continue
        seen.add(current)
        for name, value in inputs.items():
            if isinstance(value, list) and len(value) == 2:
                source = str(value[0])
                waiting.append(source)
                if name in _SEEDS and source not in seen:
                    note(source, _OF_PRIMITIVES, prompt.get(source, {}).get("inputs", {}).get(_OF_PRIMITIVES))
            elif name in _SEEDS:
                note(current, name, value)
    return found
