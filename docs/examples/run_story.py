"""Runs a graph in API form on a ComfyUI and saves the story's pictures here. Python's standard library only.

    python run_story.py "A story in three pictures about a blue bear in the snow" --out bear
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

GRAPH = Path(__file__).with_name("api_prompt_to_story.json")


def main() -> int:
    options = arguments()
    graph = json.loads(options.graph.read_text(encoding="utf-8"))
    if options.prompt:
        inputs_of(graph, "WeaverPlan")["prompt"] = options.prompt
    if options.seed is not None:
        for kind in ("WeaverPlan", "WeaverVisualizePlan"):
            inputs_of(graph, kind)["seed"] = options.seed
    try:
        run = ask(f"{options.server}/prompt", {"prompt": graph})
        outputs = wait_for(options.server, run["prompt_id"], options.timeout)
        files = saved(options.server, outputs, options.out)
    except (OSError, RuntimeError) as error:
        print(f"run_story: {error}", file=sys.stderr)
        return 1
    print("\n".join(map(str, files)))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs a graph in API form on a ComfyUI and saves the story's pictures.")
    parser.add_argument("prompt", nargs="?", help="what the story is about (default: as the graph says)")
    parser.add_argument("--seed", type=int, help="another seed, another story (default: as the graph says)")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of the ComfyUI (default: %(default)s)")
    parser.add_argument("--graph", type=Path, default=GRAPH, help="the graph in API form (default: the one beside this script)")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures (default: the current one)")
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS", help="how long to wait (default: %(default)s)")
    return parser.parse_args()


def inputs_of(graph: dict, kind: str) -> dict:
    """The inputs of the graph's first node of a kind. Ends the script when there is none."""
    found = next((node["inputs"] for node in graph.values() if node["class_type"] == kind), None)
    if found is None:
        raise SystemExit(f"run_story: the graph has no {kind} node, which prompt and seed are written into")
    return found


def wait_for(server: str, prompt_id: str, timeout: float) -> dict:
    """The outputs of a run by node id, once it has ended. RuntimeError when it failed or took too long."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        history = ask(f"{server}/history/{prompt_id}")
        if prompt_id in history:
            status = history[prompt_id]["status"]
            if status["status_str"] == "success":
                return history[prompt_id]["outputs"]
            said = [data.get("exception_message") or kind for kind, data in status["messages"] if kind.startswith("execution_")]
            raise RuntimeError(f"the run ended with {status['status_str']}: {said[-1] if said else 'ComfyUI said no more'}")
        time.sleep(0.5)
    raise RuntimeError(f"the run was not done after {timeout:g} s; it goes on in ComfyUI")


def saved(server: str, outputs: dict, folder: Path) -> list[Path]:
    """Fetches all pictures that lie in ComfyUI's output folder, and returns where they are now."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for output in outputs.values():
        for picture in output.get("images", []):
            if picture["type"] == "output":
                with urllib.request.urlopen(f"{server}/view?{urllib.parse.urlencode(picture)}") as answer:
                    files.append(folder / Path(picture["filename"]).name)
                    files[-1].write_bytes(answer.read())
    return files


def ask(url: str, data: dict | None = None) -> dict:
    """The JSON that a GET, or with data a POST, answers. RuntimeError with ComfyUI's own words when it says no."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"ComfyUI refused ({error.code}): {error.read().decode(errors='replace')[:2000]}") from None


if __name__ == "__main__":
    sys.exit(main())
