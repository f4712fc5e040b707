"""What this machine can run: facts, one section after the other, for `weaver doctor` and for whoever asks for help with it.

A section never fails: what cannot be found out is said in its place. `examine` gives facts that print as JSON, `report` the
same for people, in at most 100 columns.
"""

from __future__ import annotations

import os
import platform
import sys
import textwrap
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .card_table import ADVICE, CARD_SIZES, IMAGE_MODELS, PLANNERS, fit
from .comfyui_folder import PLACES, look_at
from .errors import InputError, WeaverError, first_line
from .memory import FORMATS, GIB, NATIVE, estimate_pipeline, estimate_planner, weights_by_part
from .visualizers.diffusers_families import FAMILIES
from .visualizers.diffusers_folder import MIN_DIFFUSERS

COLUMNS = 100
MIN_PYTHON = (3, 10)
# As in pyproject.toml, which ComfyUI's users have not installed by name: a test keeps the two the same.
REQUIRED = {"diffusers": "0.33", "jinja2": "3.1", "numpy": "1.25", "pillow": "10.1", "safetensors": "0.4", "torch": "2.5",
            "tqdm": "4.60", "transformers": "4.56"}  # fmt: skip
EXTRAS = {
    "bnb": ("models in 4 bits", {"bitsandbytes": "0.45", "accelerate": "1.0"}),
    "data": ("training data", {"av": "14.2", "py3langid": "0.3", "requests": "2.31", "scikit-learn": "1.3", "scipy": "1.10"}),
    "gguf": ("planners in .gguf files", {"gguf": "0.10"}),
    "http": ("planners on a server", {"requests": "2.31"}),
    "int8": ("image models in 8 bits", {"torchao": "0.18"}),
    "lora": ("models with a LoRA", {"peft": "0.17"}),
    "parquet": ("training records in parquet", {"pyarrow": "14"}),
    "ray": ("training data, many jobs", {"ray": "2.40"}),
    "export": ("PDF and CBZ books", {"typst": "0.15", "pypdf": "5"}),
    "eval": ("weaver eval", {"scipy": "1.10", "requests": "2.28"}),
}
EMOJI_FONTS = ("Noto Color Emoji", "Apple Color Emoji", "Segoe UI Emoji")


def examine(
    *, comfyui: str | Path | None = None, models: Iterable[str | Path] = (), estimate: Iterable[str | Path] = (),
    model: str | Path | None = None,
) -> dict:  # fmt: skip
    """Everything that can be found out, as JSON types.

    comfyui    a ComfyUI folder to look through, and `models`: further folders laid out like its models/
    estimate   model folders whose memory is told
    model      the native model that must run; None = the embedded one

    `problems` are sentences about what keeps that model from running; it can run when there are none.
    InputError when a folder that was named cannot be looked at.
    """
    machine, gpus = _machine(), _gpus()
    packages = _packages()
    native = _native(model)
    problems = [text for text in (machine["problem"], *packages["problems"], native["problem"]) if text]
    return {
        "ok": not problems,
        "problems": problems,
        "machine": machine,
        "gpus": gpus,
        "packages": packages["packages"],
        "extras": packages["extras"],
        "image_models": packages["image_models"],
        "export": _export(),
        "native_model": native,
        "comfyui": None if comfyui is None else _comfyui(comfyui, models),
        "estimates": [_estimated(folder) for folder in estimate],
        "cards": _cards(gpus["devices"]),
    }


def report(facts: dict) -> str:
    """The facts of `examine` for people."""
    lines = [*_told_machine(facts), *_told_packages(facts), *_told_export(facts["export"]), *_told_native(facts["native_model"])]
    if facts["comfyui"]:
        lines += _told_comfyui(facts["comfyui"])
    for estimate in facts["estimates"]:
        lines += _told_estimate(estimate)
    return "\n".join([*lines, *_told_cards(facts["cards"]), "", verdict(facts)]) + "\n"


def verdict(facts: dict) -> str:
    if facts["ok"]:
        folder = facts["native_model"]["folder"]
        which, option = ("The picture-book model", "") if folder is None else ("The model", f" --model {folder}")
        return f'{which} can run here: weaver story "A small orange fox finds a kite"{option}'
    return "\n".join(_wrapped(f"cannot run: {problem}", "") for problem in facts["problems"])


# ---- sections


def _machine() -> dict:
    found = {
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
        "cpu_cores": os.cpu_count(), "memory": _main_memory(), "problem": "",
    }  # fmt: skip
    if sys.version_info[:2] < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        found["problem"] = f"this is Python {found['python']}; {wanted} or newer is needed"
    return found


def _main_memory() -> int | None:
    """Bytes; None where the system does not say it in the usual way."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _gpus() -> dict:
    """What torch can compute on. bf16 counts where it has units of its own."""
    try:
        import torch

        from .model.checkpoint import default_device, default_dtype, has_fast_bf16

        devices = [_cuda_device(number) for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
        device = default_device()
    except (ImportError, OSError, RuntimeError) as error:
        return {"torch": None, "why": first_line(error), "devices": [], "default": None}
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}" if torch.version.hip else "CPU"
    return {
        "torch": torch.__version__,
        "built_for": built_for,
        "devices": devices,
        "default": device.type,
        "default_dtype": str(default_dtype(device)).removeprefix("torch."),
        "cpu_bf16": has_fast_bf16(torch.device("cpu")),
    }


def _cuda_device(number: int) -> dict:
    import torch

    free = None
    facts = torch.cuda.get_device_properties(number)
    try:
        free = torch.cuda.mem_get_info(number)[0]
    except RuntimeError:
        pass  # a card so full that not even this can be asked
    with torch.cuda.device(number):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {"name": facts.name, "vram": facts.total_memory, "free": free, "bf16": bf16}


def _packages() -> dict:
    packages = {name: _version(name) for name in REQUIRED}
    problems = []
    for name, least in REQUIRED.items():
        if packages[name] is None:
            problems.append(f"{name} is missing: pip install {name}")
        elif _is_older(packages[name], least):
            problems.append(f"{name} is {packages[name]}; {least} or newer is needed: pip install --upgrade {name}")
    extras = {}
    for extra, (purpose, wanted) in EXTRAS.items():
        have = {name: _version(name) for name in wanted}
        lacking = [name for name, least in wanted.items() if have[name] is None or _is_older(have[name], least)]
        extras[extra] = {"for": purpose, "packages": have, "missing": lacking,
                         "install": f'pip install "wan-weaver[{extra}]"' if lacking else ""}  # fmt: skip
    newer = "" if packages["diffusers"] and not _is_older(packages["diffusers"], MIN_DIFFUSERS) else f"diffusers {MIN_DIFFUSERS}"
    image_models = {"missing": newer, "install": "pip install --upgrade diffusers" if newer else "", "classes": list(FAMILIES)}
    return {"packages": packages, "problems": problems, "extras": extras, "image_models": image_models}


def _export() -> dict:
    """Formats that can be written, and the scripts that there are fonts for."""
    found = {"formats": ["html", "epub", "md"], "fonts": {}}
    if _version("typst") is None or _version("pypdf") is None:
        return found
    try:
        from typst import Fonts

        from .export.typesetting import _EAST_ASIAN

        families = set(Fonts().families())
    except ImportError:
        return found
    scripts = {"Latin, Greek, Cyrillic": None, **_EAST_ASIAN, "emoji": EMOJI_FONTS}
    fonts = {script: names is None or not families.isdisjoint(names) for script, names in scripts.items()}
    return {"formats": ["html", "pdf", "epub", "cbz", "md"], "fonts": fonts}


def _native(folder: str | Path | None) -> dict:
    """Whether the native model loads, on the device that it would draw on."""
    found = {"folder": None if folder is None else str(folder), "problem": "", "fingerprint": None, "device": None, "weights": None}
    try:
        from .model.checkpoint import WeaverModel
        from .planner_arguments import silence_libraries

        silence_libraries()
        model = WeaverModel.from_pretrained(folder)
    except (WeaverError, ImportError, OSError, ValueError, RuntimeError) as error:
        which = "embedded" if folder is None else "native"
        return found | {"problem": f"the {which} model does not load: {first_line(error)}"}
    modules = (model.planner, model.visualizer, model.vae)
    weights = sum(weight.nbytes for module in modules for weight in module.parameters())
    return found | {"fingerprint": model.fingerprint, "device": str(model.device), "weights": weights}


def _comfyui(folder: str | Path, models: Iterable[str | Path]) -> dict:
    state = look_at(folder, models)
    return {
        "folder": str(state.folder),
        "version": state.version,
        "families": [
            {
                "name": family.name, "ready": family.is_ready, "found": list(family.found),
                "missing": [
                    {"kind": file.kind, "file": f"models/{PLACES[file.kind][0]}/{file.example}"} for file in family.missing
                ],
                "missing_nodes": [{"node": need.node, "since": need.since} for need in family.nodes],
            }
            for family in state.families
        ],
        "damaged": list(state.damaged),
        "notes": list(state.notes),
    }  # fmt: skip


def _estimated(folder: str | Path) -> dict:
    """Bytes of a model folder's weights in every format, and what it takes at work. InputError when there is no model in it."""
    parts = weights_by_part(folder)
    formats = [*([NATIVE] if all(part.stored is not None for part in parts.values()) else []), *FORMATS]
    return {
        "folder": str(folder),
        "parts": {name or "model": {format: part.bytes_as(format) for format in formats} for name, part in parts.items()},
        "at_work": {format: estimate for format in ("bfloat16", "nf4") if (estimate := _at_work(folder, parts, format))},
    }


def _at_work(folder: str | Path, parts: dict, format: str) -> dict | None:
    """Of a chat model or a pipeline; None for what is neither (an encoder alone, our own folders)."""
    try:
        estimate = estimate_planner(folder, format=format) if "" in parts else estimate_pipeline(folder, format=format)
    except InputError:
        return None
    return {"bytes": estimate.total, "told": str(estimate)}


def _cards(devices: list[dict]) -> dict:
    cards = [{"title": f"{size} GB", "vram": size * GIB} for size in CARD_SIZES]
    if devices:
        cards.append({"title": "this card", "vram": devices[0]["vram"]})
    rows = []
    for kind, models in (("planner", PLANNERS), ("images", IMAGE_MODELS)):
        for model in models:
            fits = [fit(model, card["vram"]) for card in cards]
            rows.append({"kind": kind, "title": model.title, "families": list(getattr(model, "families", ())),
                         "cards": [{"how": item.how, "bytes": item.estimate.total} for item in fits]})  # fmt: skip
    return {"estimated": True, "cards": cards, "models": rows, "advice": ADVICE}


# ---- the same for people


def _told_machine(facts: dict) -> list[str]:
    machine, gpus = facts["machine"], facts["gpus"]
    memory = f", {_size(machine['memory'])} memory" if machine["memory"] else ""
    lines = ["Machine", _wrapped(f"Python {machine['python']}, {machine['system']}, {machine['cpu_cores']} CPU cores{memory}")]
    if gpus["torch"] is None:
        return [*lines, _wrapped(f"torch cannot be used: {gpus['why']}")]
    lines.append(_wrapped(f"torch {gpus['torch']} for {gpus['built_for']}; draws on {gpus['default']} in {gpus['default_dtype']}"))
    for device in gpus["devices"]:
        free = "unknown" if device["free"] is None else _size(device["free"])
        lines.append(_wrapped(f"{device['name']}: {_size(device['vram'])} VRAM, {free} free, bf16 {'yes' if device['bf16'] else 'no'}"))
    if gpus["default"] == "mps":
        lines.append(_wrapped("the GPU shares the main memory: count about two thirds of it as a card below"))
    if not gpus["devices"] and gpus["default"] == "cpu":
        lines.append(_wrapped("no GPU that torch can use: the picture-book model needs none; larger models do"))
    return lines


def _told_packages(facts: dict) -> list[str]:
    lines = ["", "Packages", _wrapped(", ".join(f"{name} {has or '(missing)'}" for name, has in facts["packages"].items()))]
    for extra in facts["extras"].values():
        state = f"needs {', '.join(extra['missing'])}: {extra['install']}" if extra["missing"] else "yes"
        lines.append(_wrapped(f"{extra['for']:<24} {state}"))
    own = facts["image_models"]
    state = f"needs {own['missing']}: {own['install']}" if own["missing"] else ", ".join(own["classes"])
    return [*lines, _wrapped(f"{'drawing (--visualizer)':<24} {state}", "  ", " " * 27)]


def _told_export(export: dict) -> list[str]:
    lines = ["", "Books", _wrapped(f"formats: {', '.join(export['formats'])}")]
    if export["fonts"]:
        lines.append(_wrapped(f"fonts for PDF and CBZ: {', '.join(script for script, has in export['fonts'].items() if has)}"))
    if missing := [script for script, has in export["fonts"].items() if not has]:
        lines.append(_wrapped(f"no font for {', '.join(missing)}: install Noto (on Debian: apt-get install fonts-noto-cjk "
                              "fonts-noto-color-emoji), or name a folder with --fonts"))  # fmt: skip
    return lines


def _told_native(native: dict) -> list[str]:
    title = ["", "Picture-book model" if native["folder"] is None else f"Model {native['folder']}"]
    if native["problem"]:
        return [*title, _wrapped(native["problem"])]
    return [*title, _wrapped(f"loads on {native['device']}: {native['fingerprint']}, {_size(native['weights'])} of weights")]


def _told_comfyui(comfyui: dict) -> list[str]:
    lines = ["", f"ComfyUI {comfyui['version'] or '(version unknown)'} in {comfyui['folder']}"]
    for family in comfyui["families"]:
        missing = [item["file"].removeprefix("models/") for item in family["missing"]]
        nodes = [_newer_core(family["missing_nodes"])] if family["missing_nodes"] else []
        parts = [f"has {', '.join(family['found'][:4])}"] if family["found"] else []
        parts += [f"missing {', '.join(missing + nodes)}"] if missing or nodes else []
        lines.append(_wrapped(f"{'ready' if family['ready'] else '':<6} {family['name']:<21} {'; '.join(parts)}", "  ", " " * 31))
    lines.append(_wrapped("folders are those below models/; files are known by their names, and another precision of the same "
                          "model will do"))  # fmt: skip
    return [*lines, *map(_wrapped, comfyui["damaged"]), *map(_wrapped, comfyui["notes"])]


def _newer_core(missing: list[dict]) -> str:
    """The version that has all of the missing nodes, and their names."""
    since = max((item["since"] for item in missing), key=lambda text: [int(part) for part in text.split(".")])
    return f"ComfyUI {since} or newer (for {', '.join(item['node'] for item in missing)})"


def _told_estimate(estimate: dict) -> list[str]:
    formats = [format for format in next(iter(estimate["parts"].values())) if format != "float16"]  # as large as bfloat16
    rows = [["weights", *formats]]
    rows += [[name, *(_size(sizes[format]) for format in formats)] for name, sizes in estimate["parts"].items()]
    told = [_wrapped(f"{format}: {work['told']}") for format, work in estimate["at_work"].items()]
    return ["", f"Memory of {estimate['folder']}", *(_row(row, 20, 12) for row in rows), *told]


def _told_cards(cards: dict) -> list[str]:
    lines = ["", "What fits on a card (estimated, not measured; GB at the highest point; 1024 x 1024 with references)"]
    lines.append(_row(["", *(card["title"] for card in cards["cards"])], 27, 14))
    for kind in ("planner", "images"):
        lines.append(f"  {kind}")
        for model in cards["models"]:
            if model["kind"] == kind:
                cells = [f"{cell['how']:<7} {cell['bytes'] / GIB:>4.1f}" for cell in model["cards"]]
                lines.append(_row([f" {model['title']}", *cells], 27, 14))
    return [*lines, *(_wrapped(f"{how:<8} {what}", "  ", " " * 11) for how, what in cards["advice"].items())]


# ---- small parts


def _row(cells: list[str], first: int, other: int) -> str:
    return ("  " + f"{cells[0]:<{first}}" + "".join(f"{cell:<{other}}" for cell in cells[1:])).rstrip()


def _wrapped(text: str, indent: str = "  ", further: str | None = None) -> str:
    """Lines of at most 100 columns; only what cannot be broken (a path) may be longer."""
    return textwrap.fill(text, COLUMNS, initial_indent=indent, subsequent_indent=f"{indent}  " if further is None else further,
                         break_long_words=False, break_on_hyphens=False, drop_whitespace=True)  # fmt: skip


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GB" if size >= GIB else f"{size / 2**20:.1f} MB"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _is_older(has: str, least: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(has) < Version(least)
    except InvalidVersion:
        return False  # a build of somebody's own, who knows
