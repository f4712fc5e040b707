"""What can be said about the nodes without starting ComfyUI: who imports what, and that pages and workflows fit."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
NODE_FILES = sorted((REPOSITORY / "nodes").glob("*.py"))
HOST_MODULES = {"comfy", "comfy_execution", "comfy_extras", "folder_paths", "server", "execution", "nodes", "node_helpers"}


def imports_of(path: Path) -> list[tuple[str, int]]:
    """(module, level) of every import of a file, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level))
    return found


def node_ids() -> dict[str, str]:
    """node id -> the file that defines it."""
    ids = {}
    for path in NODE_FILES:
        for node_id in re.findall(r'node_id="(\w+)"', path.read_text(encoding="utf-8")):
            ids[node_id] = path.name
    return ids


@pytest.mark.parametrize("path", [*NODE_FILES, REPOSITORY / "__init__.py"], ids=lambda path: path.name)
def test_only_the_host_file_knows_comfyui(path):
    known = {module.split(".")[0] for module, level in imports_of(path) if level == 0}
    assert path.name == "host.py" or not known & HOST_MODULES
    assert "weaver_core" not in known, "inside ComfyUI the library is only there relative to the pack"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "weaver_core").rglob("*.py")), ids=lambda path: path.stem)
def test_the_library_does_not_know_comfyui(path):
    known = {module.split(".")[0] for module, level in imports_of(path) if level == 0}
    assert not known & (HOST_MODULES | {"comfy_api", "weaver_core", "training"})


def test_importing_the_pack_imports_nothing_heavy():
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('pack', r'{REPOSITORY / '__init__.py'}', submodule_search_locations=[r'{REPOSITORY}'])\n"
        "module = importlib.util.module_from_spec(spec); sys.modules['pack'] = module; spec.loader.exec_module(module)\n"
        "assert module.WEB_DIRECTORY == './web' and not hasattr(module, 'NODE_CLASS_MAPPINGS')\n"
        "print([name for name in ('torch', 'transformers', 'diffusers', 'PIL', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_node_has_a_help_page_and_every_page_a_node():
    assert {path.stem for path in (REPOSITORY / "web" / "docs").glob("*.md")} == set(node_ids())


@pytest.mark.parametrize("path", sorted((REPOSITORY / "workflows").glob("*.json")), ids=lambda path: path.stem)
def test_workflows_use_our_nodes_and_every_wire_has_two_ends(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    ours = {node["type"] for node in nodes.values() if node["type"].startswith("Weaver")}
    assert ours and ours <= set(node_ids())
    assert workflow["last_node_id"] >= max(nodes) and workflow["last_link_id"] >= max(link[0] for link in workflow["links"])
    for link, source, slot, target, socket, kind in workflow["links"]:
        assert link in nodes[source]["outputs"][slot]["links"] and nodes[source]["outputs"][slot]["type"] == kind
        assert nodes[target]["inputs"][socket]["link"] == link and nodes[target]["inputs"][socket]["type"] == kind


@pytest.mark.parametrize("path", sorted((REPOSITORY / "web").rglob("*.js")), ids=lambda path: path.name)
def test_the_page_never_parses_text_as_markup(path):
    source = path.read_text(encoding="utf-8")
    found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source)
    assert found == []
