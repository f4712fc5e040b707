"""Train one stage: `python training/train.py CONFIG`. Run it again to continue; Ctrl-C saves first."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.config import OptimizerConfig, RunConfig, TrainConfig, describe, load_config  # noqa: E402
from training.stages import STAGES, build_stage, settings_of  # noqa: E402

log = logging.getLogger("training")


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 finished, 2 bad config or input, 130 stopped by a signal after saving."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        config = load_config(options.config, options.set)
        run_dir = options.run_dir or Path("runs") / config.name
        return 0 if train(config, run_dir, resume=options.resume, fresh=options.fresh) else 130
    except ValueError as error:
        log.error("error: %s", error)
        return 2


def train(config: RunConfig, run_dir: Path, *, resume: str = "auto", fresh: bool = False) -> bool:
    """Build the stage, continue or start its run, train; True if the run reached its last step."""
    import torch

    from training.loop import Trainer

    if fresh and run_dir.exists():
        moved = _move_aside(run_dir)
        log.info("the existing run was moved to %s", moved)
    run_dir.mkdir(parents=True, exist_ok=True)
    name = config.train.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.train.seed)
    stage = build_stage(config.stage, config.settings, seed=config.train.seed, run_dir=run_dir, device=device)
    stage.steps = config.train.steps
    trainer = Trainer(stage, config, run_dir, device)
    for part, module in {**stage.trainable, **stage.frozen}.items():
        kind = "trains" if part in stage.trainable else "frozen"
        log.info("%s %s: %.2fM parameters", kind, part, sum(p.numel() for p in module.parameters()) / 1e6)
    _report_changed_config(config, run_dir)
    log.info("%s in %s on %s: %s, %d steps in all", config.stage, run_dir, device, trainer.resume(resume),
             config.train.steps)
    return trainer.run()


def _report_changed_config(config: RunConfig, run_dir: Path) -> None:
    path = run_dir / "config.json"
    new = _flat(config.to_json())
    if path.exists():
        old = _flat(json.loads(path.read_text(encoding="utf-8")))
        for key in sorted(set(old) | set(new)):
            if old.get(key) != new.get(key):
                log.warning("changed since the last sitting: %s = %r (was %r)", key, new.get(key), old.get(key))
    path.write_text(json.dumps(config.to_json(), indent=1), encoding="utf-8")


def _flat(table: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _move_aside(run_dir: Path) -> Path:
    number = 1
    while (target := run_dir.with_name(f"{run_dir.name}.old-{number}")).exists():
        number += 1
    return run_dir.rename(target)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="training/train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_config_reference())
    parser.add_argument("config", type=Path, help="TOML file, such as training/configs/picturebook/autoencoder.toml")
    parser.add_argument("--run-dir", type=Path, help="folder of the run (default: runs/<name>)")
    parser.add_argument("--resume", default="auto", metavar="auto|STEP",
                        help="which checkpoint of the run to continue (default: the newest whole one)")
    parser.add_argument("--fresh", action="store_true", help="start again; an existing run folder is moved aside, not deleted")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change a key of the config, such as --set optimizer.lr=1e-4; may be repeated")
    return parser


def _config_reference() -> str:
    lines = ["config keys (name: type = default):", "  stage: " + " | ".join(STAGES), "  name: str"]
    lines += describe(TrainConfig, "train.") + describe(OptimizerConfig, "optimizer.")
    for stage in STAGES:
        try:
            lines += [f"stage {stage}:", *describe(settings_of(stage))]
        except ModuleNotFoundError as error:
            lines.append(f"stage {stage}: needs the module {error.name}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
