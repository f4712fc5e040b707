"""The same stages at scale: Ray Data hands shards to workers, on one computer or on a cluster with a shared disk.

A row of the dataset is a shard, so what is journaled, resumed and written is the same, byte for byte. Every worker opens its models
once and keeps them for all its shards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from training.data_engine.backend import StopBuild
from training.data_engine.recipe import Recipe
from training.data_engine.runner import run_shard, steps_of
from training.data_engine.stages import Tools
from weaver_core.errors import InputError, WeaverError

ROOT = Path(__file__).resolve().parents[2]


class ShardMaker:
    """A worker."""

    def __init__(self, recipe: Recipe, work: str):
        self.recipe, self.work = recipe, Path(work)
        self.tools = Tools(recipe, self.work)

    def __call__(self, row: dict) -> dict:
        """{"job": JSON} -> {"entry": JSON, "error": sentence}. Errors for the user travel as sentences, the rest is raised."""
        try:
            return {"entry": json.dumps(run_shard(self.recipe, self.work, json.loads(row["job"]), self.tools)), "error": ""}
        except WeaverError as error:
            return {"entry": "", "error": str(error)}


def run_on_ray(recipe: Recipe, work: Path, jobs: list[dict], tools: Tools) -> Iterator[dict]:
    """An engine for `Build.run`. StopBuild when a worker had to stop; the shards that were finished count."""
    if not jobs:
        return
    ray = _started(recipe)
    cls = next(step.cls for step in steps_of(recipe) if step.name == jobs[0]["step"])
    needs_gpu = cls.embeds or (cls.asks and recipe.backend.kind != "server")
    most = recipe.build.ray_workers or int(ray.cluster_resources().get("CPU", 1))
    rows = ray.data.from_items([{"job": json.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
    made = rows.map(ShardMaker, fn_constructor_args=(recipe, str(Path(work).resolve())), concurrency=min(most, len(jobs)),
                    num_gpus=recipe.build.ray_gpus if needs_gpu and recipe.build.ray_gpus else None)
    stopped = ""
    for row in made.iter_rows():
        if row["error"]:
            stopped = stopped or row["error"]
        else:
            yield json.loads(row["entry"])
    if stopped:
        raise StopBuild(stopped)


def _started(recipe: Recipe):
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a build tells nobody that it runs
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError('--ray needs Ray: pip install "wan-weaver[ray]"; without it the same stages run in this process') from None
    if not ray.is_initialized():
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        local = {} if recipe.build.ray_address else {"include_dashboard": False, "num_cpus": recipe.build.ray_workers or None}
        ray.init(address=recipe.build.ray_address or None, log_to_driver=False, logging_level="ERROR",
                 runtime_env={"env_vars": {"PYTHONPATH": paths}}, **local)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray
