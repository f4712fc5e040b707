"""python -m training.data_engine RECIPE.toml --out FOLDER: builds a data set, or goes on where it stopped."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.config import ConfigError, describe
from training.data_engine.backend import BackendConfig, StopBuild
from training.data_engine.outputs import write_output
from training.data_engine.recipe import BuildConfig, EmbedderConfig, load_recipe
from training.data_engine.report import write_report
from training.data_engine.runner import Build, start_over
from training.data_engine.sources import SourceConfig, list_source
from training.data_engine.stages import KINDS, stage_class
from weaver_core.errors import WeaverError


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 finished, 1 stopped (budget, back end; the same command goes on), 2 wrong recipe or data, 130 Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.out and not options.check:
        parser.error("--out FOLDER is missing: where shall the data set lie?")
    try:
        recipe = load_recipe(options.recipe, options.set)
        if options.check:
            for number, source in enumerate(recipe.sources):
                print(f"{source.kind} {source.path or 'of the recipe'}: {sum(1 for _ in list_source(source, number, recipe.folder)):,}")
            print(f"{len(recipe.stages)} stages: {', '.join(stage.kind for stage in recipe.stages)}; makes {recipe.output}")
            return 0
        if options.fresh:
            start_over(options.out)
        engine = None
        if options.ray:
            from training.data_engine.ray_runner import run_on_ray as engine
        build = Build(recipe, options.out, told=lambda sentence: print(sentence, file=sys.stderr), retry_failed=options.retry_failed)
        try:
            table = build.run(engine)
            path, number = write_output(build)
            page = write_report(build, table)
        finally:
            build.close()
    except StopBuild as error:
        print(error, file=sys.stderr)
        return 1
    except (ConfigError, WeaverError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished shards are kept, and the same command goes on", file=sys.stderr)
        return 130
    print(f"{number:,} records in {path}, report in {page}")
    if failed := sum(step["failed"] for step in table):
        print(f"{failed:,} records got no answer; --retry-failed asks for them again")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.data_engine", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description="Builds stories for a planner, or reference-guided sets for a visualizer.", epilog=_keys())
    parser.add_argument("recipe", type=Path, help="a TOML file; shipped ones lie in training/data_engine/recipes/")
    parser.add_argument("--out", type=Path, help="folder of the data set; its work/ keeps what is finished")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes a key of the recipe; may be repeated")
    parser.add_argument("--check", action="store_true", help="reads the recipe, counts what its sources hold, and leaves")
    parser.add_argument("--ray", action="store_true", help="shards go to Ray workers (needs the extra 'ray')")
    parser.add_argument("--retry-failed", action="store_true", help="makes shards again in which a record got no answer")
    parser.add_argument("--fresh", action="store_true", help="makes everything again; answers that were paid for are kept")
    return parser


def _keys() -> str:
    lines = ["keys of a recipe: name, output (\"stories\" or \"references\"), seed, and"]
    for name, cls in (("[[sources]]", SourceConfig), ("[backend]", BackendConfig), ("[embedder]", EmbedderConfig), ("[build]", BuildConfig)):
        lines += [name, *describe(cls)]
    for kind in KINDS:
        lines += [f'[[stages]] kind = "{kind}": {stage_class(kind).__doc__.splitlines()[0]}', *describe(stage_class(kind).Settings)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
