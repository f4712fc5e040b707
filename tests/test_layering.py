"""The arrows of the design: nodes -> weaver_core <- training, one door to ComfyUI, and nothing heavy before it is used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server", "execution", "node_helpers"}


def imports(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, anywhere in it (relative ones made absolute from the root)."""
    found = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                found |= {".".join((*base, *filter(None, [node.module])))} | (
                    {".".join((*base, alias.name)) for alias in node.names} if not node.module else set()
                )
            else:
                found.add(node.module)
    return found


def files(room: str) -> list[Path]:
    return sorted(path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)


def rooms(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", files("weaver_core"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_knows_neither_host_nor_nodes_nor_training(path):
    assert not rooms(path) & (HOST | {"nodes", "training", "tests"})
    absolute = [
        node.module or ""
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and not node.level
    ]
    assert not [name for name in absolute if name.split(".")[0] == "weaver_core"], "it is also loaded under the host's name"


@pytest.mark.parametrize("path", files("training"), ids=lambda path: str(path.relative_to(ROOT)))
def test_training_knows_neither_host_nor_nodes(path):
    assert not rooms(path) & (HOST | {"nodes", "tests"})


@pytest.mark.parametrize("path", files("nodes"), ids=lambda path: str(path.relative_to(ROOT)))
def test_nodes_know_the_host_through_one_door(path):
    # comfy_api is what a node is declared with; everything that does something goes through host.py.
    allowed = HOST if path.name == "host.py" else {"comfy_api"}
    assert not rooms(path) & (HOST - allowed)
    assert "training" not in rooms(path) and "weaver_core" in rooms(path) | {"weaver_core"}


def loaded_after(code: str, path: Path = ROOT) -> set[str]:
    """Top-level modules in a fresh Python after this code."""
    probe = f"{code}\nimport sys; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["weaver_core", "weaver_core.cli", "weaver_core.weave", "weaver_core.export.html"])
def test_importing_the_core_loads_nothing_heavy(module):
    heavy = {"torch", "transformers", "diffusers", "torchvision", "jinja2", "numpy", "tqdm"}
    assert not loaded_after(f"import {module}") & heavy


def test_the_pack_s_front_door_loads_nothing_at_all():
    assert imports(ROOT / "__init__.py") == {"nodes"}
    code = "import importlib.util as u; s = u.spec_from_file_location('pack', '__init__.py'); s.loader.exec_module(u.module_from_spec(s))"
    assert not loaded_after(f"import os; os.chdir({str(ROOT)!r})\n{code}") & {"nodes", "weaver_core", "torch"}


def test_no_pickle_and_no_evaluation_of_text():
    """Weights are safetensors and everything else is JSON; nothing that is read can become code."""
    for room in ("weaver_core", "nodes", "training"):
        for path in files(room):
            assert not rooms(path) & {"pickle", "marshal", "shelve", "dill"}, path
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec"), path
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    assert (node.value.id, node.attr) != ("torch", "load"), path


def test_the_wheel_holds_the_core_alone(tmp_path):
    """Built as pip builds it, from a copy without anything that is not in the repository's rooms."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["weaver_core*"]
    import shutil
    import zipfile

    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "LICENSE", "NOTICE", "README.md", "__init__.py"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    for room in ("weaver_core", "nodes", "training", "tests"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"weaver_core"}
    inside = {path.relative_to(ROOT).as_posix() for path in (ROOT / "weaver_core").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert inside <= set(names), sorted(inside - set(names))
