"""What the nodes say in English: the texts of their schemas, in the form of ComfyUI's locale files.

`python tests/node_texts.py` writes locales/en again after the text of a node has changed; tests/test_locales.py tells when.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from stub_host import REPOSITORY, load_pack, unload_pack

ENGLISH = REPOSITORY / "locales" / "en" / "nodeDefs.json"


def english_texts() -> dict[str, dict]:
    """node id -> display_name, description, inputs (id -> name, tooltip) and outputs (number -> name, tooltip)."""
    with tempfile.TemporaryDirectory() as output:
        try:
            part = load_pack(Path(output))
            _stand_in_without_files()
            nodes = part("nodes")._NODES
            return dict(_texts(getattr(part(f"nodes{module}"), name).GET_SCHEMA()) for module, name in nodes)
        finally:
            unload_pack()


def _stand_in_without_files() -> None:
    """What the schemas ask of the host for the choices of their menus, which are no texts."""
    sys.modules["folder_paths"].get_folder_paths = lambda kind: []
    sys.modules["folder_paths"].get_filename_list = lambda kind: []
    sampler = SimpleNamespace(SAMPLERS=["euler"], SCHEDULERS=["simple"])
    sys.modules["comfy.samplers"] = sys.modules["comfy"].samplers = SimpleNamespace(KSampler=sampler)


def _texts(schema) -> tuple[str, dict]:
    inputs = {socket.id: _explained(socket, socket.id) for socket in schema.inputs}
    outputs = {str(number): _explained(socket, socket.id) for number, socket in enumerate(schema.outputs)}
    return schema.node_id, {
        "display_name": schema.display_name, "description": schema.description, "inputs": inputs, "outputs": outputs,
    }  # fmt: skip


def _explained(socket, name: str) -> dict:
    return {"name": socket.options.get("display_name") or name, "tooltip": socket.options["tooltip"]}


def as_json(texts: dict) -> str:
    return json.dumps(texts, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    ENGLISH.parent.mkdir(parents=True, exist_ok=True)
    ENGLISH.write_text(as_json(english_texts()), encoding="utf-8")
    print(f"{ENGLISH} is written")
