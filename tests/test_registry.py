"""What ComfyUI's registry demands of a pack, as far as it can be checked without it."""

from __future__ import annotations

import ast
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_MIB = 45
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def packed() -> list[Path]:
    """The files of the archive: what git knows or would take in, without what .comfyignore names."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    ignored = [*listed[:3], "--cached", "--others", "--ignored", "--exclude-from", ".comfyignore"]
    run = [subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout for command in (listed, ignored)]
    names, left_out = (set(filter(None, text.split("\0"))) for text in run)
    return sorted(REPOSITORY / name for name in names - left_out if (REPOSITORY / name).is_file())


def test_name_version_and_words(project):
    name = project["project"]["name"]
    assert len(name) < 100 and re.fullmatch(r"[A-Za-z]+([-_.]?[A-Za-z0-9]+)*", name) and "comfyui" not in name.lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["project"]["version"])
    assert 20 < len(project["project"]["description"]) < 200
    assert project["tool"]["comfy"]["PublisherId"] and project["tool"]["comfy"]["DisplayName"]


def test_the_host_that_is_needed_is_said_and_nothing_of_it_is_pinned(project):
    assert re.fullmatch(r">=\d+\.\d+\.\d+", project["tool"]["comfy"]["requires-comfyui"])
    assert project["project"]["requires-python"].startswith(">=")
    assert [wish for wish in project["project"]["dependencies"] if re.search(r"==|<|~=", wish)] == []


def test_no_system_and_no_accelerator_is_shut_out(project):
    classifiers = project["project"]["classifiers"]
    assert [line for line in classifiers if line.startswith("Operating System")] == ["Operating System :: OS Independent"]
    # Naming some would mean only those; the pack runs on whatever torch runs on, a CPU included.
    assert [line for line in classifiers if line.startswith(("Environment :: GPU", "Environment :: NPU"))] == []


def test_the_icon_is_square_small_and_packed(project, packed):
    icon = REPOSITORY / "docs" / "icon.png"
    assert icon in packed and icon.stat().st_size < 200_000
    width, height = Image.open(icon).size
    assert width == height <= 400
    address = project["tool"]["comfy"].get("Icon")
    assert address is None or (address.startswith("https://") and address.endswith("/docs/icon.png"))


def test_what_the_pack_needs_is_packed_and_what_only_we_need_is_not(packed):
    names = {path.relative_to(REPOSITORY).as_posix() for path in packed}
    tops = {name.split("/")[0] for name in names}
    assert {"__init__.py", "pyproject.toml", "LICENSE", "NOTICE", "README.md", "nodes", "weaver_core", "web", "workflows",
            "locales", "training", "docs"} <= tops  # fmt: skip
    assert not tops & {"tests", "runs", ".ci", ".venv", "Makefile"}
    weights = [path for path in packed if path.suffix == ".safetensors"]
    assert {path.parent.name for path in weights} >= {"planner", "visualizer", "vae"}


def test_the_archive_stays_small(packed, tmp_path):
    archive = tmp_path / "pack.tar"
    with tarfile.open(archive, "w") as tar:
        for path in packed:
            tar.add(path, path.relative_to(REPOSITORY).as_posix())
    assert 5 < archive.stat().st_size / 2**20 < MAX_MIB


def test_no_packed_code_evaluates_text_or_installs_packages(packed):
    sources = [path for path in packed if path.suffix == ".py"]
    assert len(sources) > 50
    assert [found for path in sources for found in forbidden(path)] == []


def forbidden(path: Path) -> list[str]:
    """Calls that the registry forbids: evaluation of text, and processes that run pip."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        words = {value.value for value in ast.walk(node) if isinstance(value, ast.Constant) and isinstance(value.value, str)}
        if called in FORBIDDEN_CALLS or (called.startswith("subprocess.") and words & {"pip", "uv", "conda"}):
            found.append(f"{path.relative_to(REPOSITORY)}:{node.lineno} {called}")
    return found


@pytest.mark.parametrize("source", ["eval('1')", "subprocess.run([sys.executable, '-m', 'pip', 'install', 'x'])", "os.system('ls')"])
def test_the_check_finds_what_is_forbidden(source, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "REPOSITORY", tmp_path)
    (tmp_path / "bad.py").write_text(source)
    assert forbidden(tmp_path / "bad.py")
