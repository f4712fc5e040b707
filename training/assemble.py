"""Put exported components together into one model folder: `python training/assemble.py --planner ... --visualizer ... --out DIR`.

The result is what `WeaverModel.from_pretrained`, `weaver --model` and the Load Weaver Model node read. It is loaded once
before it replaces anything, so a folder that does not fit never takes the place of one that does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from weaver_core.errors import WeaverError  # noqa: E402
from weaver_core.segments import check_size  # noqa: E402
from weaver_core.spelling import read_size  # noqa: E402


def assemble(planner: Path, visualizer: Path, vae: Path, out: Path, sampling: dict | None = None) -> int:
    """Build `out` from a planner export (with planner/ and tokenizer/), a twin and an autoencoder; returns its bytes.

    Other files in `out`, such as a model card, stay. Raises CheckpointError where the parts do not fit each other.
    """
    import torch

    from weaver_core.model.checkpoint import (SamplingDefaults, WeaverModel, load_autoencoder, load_planner, load_twin,
                                              write_index)

    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        staging = Path(name)
        for source, part in ((planner / "planner", "planner"), (planner / "tokenizer", "tokenizer"), (visualizer, "visualizer"), (vae, "vae")):
            if not source.is_dir():
                raise WeaverError(f"{source} is missing; give the export folder of a finished (or evaluated) run")
            shutil.copytree(source, staging / part)
        where = {"device": torch.device("cpu"), "dtype": torch.float32}
        language, tokenizer = load_planner(staging, **where)
        write_index(staging, language, tokenizer, load_twin(staging / "visualizer", **where), load_autoencoder(staging / "vae", **where),
                    SamplingDefaults(**(sampling or {})))
        WeaverModel.from_pretrained(staging, **where)
        out.mkdir(exist_ok=True)
        for item in staging.iterdir():
            old = out / item.name
            if old.is_dir():
                shutil.rmtree(old)
            os.replace(item, old)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planner", type=Path, required=True, help="export folder of the planner stage")
    parser.add_argument("--visualizer", type=Path, required=True, help="export folder of the visualizer or dpcw stage")
    parser.add_argument("--vae", type=Path, required=True, help="export folder of the autoencoder stage")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--size", action="append", default=[], metavar="WxH",
                        help="a size that the visualizer learned, the default first; may be repeated (default: 128x128)")
    parser.add_argument("--sampling", action="append", default=[], metavar="KEY=NUMBER",
                        help="a sampling default, such as steps=16 or text_guidance=2.5; may be repeated")
    options = parser.parse_args()
    try:
        sampling = {"sizes": [check_size("--size", read_size(size)) for size in options.size]} if options.size else {}
        for item in options.sampling:
            key, _, value = item.partition("=")
            sampling[key] = float(value) if "." in value else int(value)
        size = assemble(options.planner, options.visualizer, options.vae, options.out, sampling)
    except (WeaverError, TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
