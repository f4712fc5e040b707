"""Train one stage: `python training/train.py CONFIG`. Run it again to continue; Ctrl-C saves first."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.heap import bound_memory  # noqa: E402

bound_memory()  # before torch is imported, which reads it once

from training.config import OptimizerConfig, RunConfig, TrainConfig, describe, read_config  # noqa: E402
from training.stages import STAGES, build_stage, settings_of, stage_module  # noqa: E402
from weaver_core.errors import WeaverError  # noqa: E402

log = logging.getLogger("training")


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 finished, 1 stopped by numbers that are none or by a full disk, 2 bad config or input, 130 stopped by a signal."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        from training.check import check, tell

        config, problems = read_config(options.config, options.set)
        run_dir = options.run_dir or Path("runs") / config.name
        found, needed = check(config, problems, run_dir, fresh=options.fresh)
        problems.raise_if_any()
        if options.check:
            print("\n".join([f"{options.config}: nothing wrong found", *tell(config, found, needed)]))
            return 0
        finished = train(config, run_dir, resume=options.resume, fresh=options.fresh, cache_only=options.cache_only,
                         notes=found.notes, activations=found.activations)
        return 0 if finished else 130
    except (FloatingPointError, OSError) as error:
        log.error("error: %s", error)
        return 1
    except (ValueError, ImportError, WeaverError) as error:
        log.error("error: %s", error)
        return 2


def train(config: RunConfig, run_dir: Path, *, resume: str = "auto", fresh: bool = False, cache_only: bool = False,
          notes: Sequence[str] = (), activations: int = 0) -> bool:
    """Build the stage, continue or start its run, train; True if the run reached its last step.

    notes, activations   what `check` found, to be told by the first process
    """
    import torch

    from training.distributed import World, local_device
    from training.loop import Trainer
    from training.memory_savers import checkpoint_activations

    device = local_device(config.train.device)
    world = World(device)
    if world.is_first:
        if fresh and run_dir.exists():
            log.info("the existing run was moved to %s", _move_aside(run_dir))
        run_dir.mkdir(parents=True, exist_ok=True)
        if hasattr(stage_module(config.stage), "begin"):
            stage_module(config.stage).begin(config.settings, run_dir)
    else:
        log.setLevel(logging.WARNING)
    for note in notes:
        log.info("%s", note)
    world.wait()
    torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.train.seed)
    stage = build_stage(config.stage, config.settings, seed=config.train.seed, run_dir=run_dir, device=device)
    stage.num_batches = config.train.steps * config.train.accumulate
    if cache_only or hasattr(stage, "prepare"):
        _prepare(stage, config, world)
    if cache_only:
        world.close()
        return True
    if config.train.activation_checkpointing:
        for part, module in stage.trainable.items():
            checkpoint_activations(part, module)
    trainer = Trainer(stage, config, run_dir, device, world)
    log.info("%s", trainer.engine)
    _report(stage, config, activations)
    if world.is_first:
        _report_changed_config(config, run_dir)
    log.info("%s in %s on %s: %s, %d steps in all", config.stage, run_dir, device, trainer.resume(resume),
             config.train.steps)
    finished = trainer.run()
    world.close()
    return finished


def _prepare(stage, config: RunConfig, world) -> None:
    """Let the stage fill its caches: `prepare()` tells of them a line at a time."""
    prepare = getattr(stage, "prepare", None)
    if prepare is None:
        log.info("the stage %s has nothing to cache: its batches are made as they are needed", config.stage)
        return
    if world.is_first:
        for line in prepare():
            log.info("%s", line)
    world.wait()


def _report(stage, config: RunConfig, activations: int) -> None:
    from training.estimate import Inspection, estimate, parts_of

    parts = parts_of(stage)
    for part in parts:
        log.info("%s", part)
    log.info("needs %s", estimate(Inspection(parts=parts, activations=activations), config))


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
    parser.add_argument("--check", action="store_true",
                        help="look at config, data, memory and disk, tell everything that is wrong, and train nothing")
    parser.add_argument("--cache-only", action="store_true", help="fill the stage's caches and leave")
    parser.add_argument("--resume", nargs="?", const="newest", default="auto", type=_step, metavar="STEP",
                        help="go on from this checkpoint of the run, or from the newest whole one, and start nothing new "
                             "(default: go on where there is one, else start)")
    parser.add_argument("--fresh", action="store_true", help="start again; an existing run folder is moved aside, not deleted")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change a key of the config, such as --set optimizer.lr=1e-4; may be repeated")
    return parser


def _step(value: str) -> str:
    if not (value.isdigit() or value in ("auto", "newest")):
        raise argparse.ArgumentTypeError(f"{value!r} is no step; give a number such as 500, or nothing for the newest checkpoint")
    return value


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
