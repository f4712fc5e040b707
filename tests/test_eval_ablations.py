"""Our own numbers: every switch takes away what its name says, results are complete, and a stopped measurement goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pair import tiny_pair

from weaver_core.errors import InputError
from weaver_core.evaluation import own_numbers
from weaver_core.evaluation.ablations import ABLATIONS, FULL, ablated
from weaver_core.evaluation.correlate import Correlation
from weaver_core.evaluation.run_folder import RunFolder
from weaver_core.plan import parse_markup
from weaver_core.planners.native import NativePlanner
from weaver_core.request import Request
from weaver_core.visualizers import Shot
from weaver_core.visualizers.native import NativeVisualizer

PLAN, _ = parse_markup("One. <imagine>a red fox</imagine> Two. <imagine>a blue cat in the snow</imagine>")
REQUEST = Request(prompt="a story")


class ShortPlanner(NativePlanner):
    """Random weights would write to the end of their memory; this one has its plan ready, and real features of it."""

    def write(self, request, history, *, options, cancel):
        yield PLAN.to_bare_markup()


@pytest.fixture(scope="module")
def pair():
    model = tiny_pair()
    return ShortPlanner(model), NativeVisualizer(model)


def drawn(pair, name, page=0):
    """One page under an ablation, as pixels."""
    backend = ablated(name, *pair, model="tiny")
    context = backend.planner.context(PLAN, PLAN.images[page], REQUEST)
    able, how = backend.visualizer.capabilities, ABLATIONS[name].settings
    shot = Shot(prompt="", size=able.default_size, seed=1, steps=2, guidance=how.guidance or 3.0, reference_guidance=1.0, context=context)
    return np.asarray(backend.visualizer.render(shot, on_step=lambda *_: None, cancel=lambda: False), np.int32)


def test_without_words_every_page_is_drawn_alike_and_otherwise_not(pair):
    assert (drawn(pair, "no words", 0) == drawn(pair, "no words", 1)).all()
    assert (drawn(pair, FULL, 0) != drawn(pair, FULL, 1)).any()


def test_the_other_window_is_the_neighbour_s(pair):
    backend = ablated("window of another page", *pair, model="tiny")
    for page, other in ((0, 1), (1, 0)):
        got, wanted = (planner.context(PLAN, PLAN.images[i], REQUEST) for planner, i in ((backend.planner, page), (pair[0], other)))
        assert torch.equal(got.positions, wanted.positions) and all(map(torch.equal, got.values, wanted.values))
    single, _ = parse_markup("One. <imagine>a red fox</imagine>")
    assert backend.planner.context(single, single.images[0], REQUEST) is not None


def test_the_pooled_window_is_away_only_while_that_ablation_draws(pair):
    before = drawn(pair, FULL)
    assert (drawn(pair, "no pooled window") != before).any() and (drawn(pair, FULL) == before).all()


def test_every_ablation_has_another_fingerprint_or_other_settings(pair):
    told = [json.dumps(ablated(name, *pair, model="tiny").settings(), sort_keys=True) for name in ABLATIONS]
    assert len(set(told)) == len(ABLATIONS)
    with pytest.raises(InputError, match="there is no ablation 'no heart'"):
        ablated("no heart", *pair, model="tiny")


def test_a_measurement_is_written_down_whole_and_is_not_done_twice(pair, tmp_path):
    names, seen = (own_numbers.TRUTH, FULL, "4 steps"), []

    def measure():
        return own_numbers.measure(*pair, tmp_path / "own", model="tiny", names=names, limit=2, on_progress=lambda what, *_: seen.append(what))

    known = Correlation(metric="image_count", dim="CP", n=9, pearson=0.9, pearson_interval=(0.5, 1.0), spearman=0.8, spearman_interval=(0.4, 0.9))
    runs = measure()
    assert {name: seen.count(name) for name in names} == dict.fromkeys(names, 2)
    page = own_numbers.write_results(own_numbers.results(runs, [known]), runs, tmp_path / "results").read_text()
    found = json.loads((tmp_path / "results" / "own.json").read_text())
    assert list(found["systems"]) == list(names) and list(found["differences"]) == [own_numbers.TRUTH, "4 steps"]
    truth = found["systems"][own_numbers.TRUTH]["scores"]
    assert truth["PA"]["mean"] == 10.0 and truth["Overall"]["mean"] > found["systems"][FULL]["scores"]["Overall"]["mean"]
    assert found["correlations"] and "| **full** |" in page and "| `image_count` | – | – | – | – | **+0.80** | 9 |" in page
    assert "(0.5 and more, sure not to be 0): `image_count` (CP +0.80)." in page
    assert all("detectable" in line for lines in found["differences"].values() for line in lines.values())
    seen.clear()
    again = measure()
    assert seen == [] and own_numbers.results(again)["systems"] == found["systems"]
    assert RunFolder.open(tmp_path / "own" / "4-steps").system == "4 steps"


def test_the_picture_has_a_row_for_each_system_that_it_shows(tmp_path):
    from weaver_core.evaluation.own_page import SHOWN, picture_of
    from weaver_core.evaluation.picturebook_split import prompts
    from weaver_core.evaluation.prompt_sets import load_prompts

    long = next(prompt.id for prompt in prompts() if prompt.want.images_max == 4 and prompt.want.explicit)
    chosen = load_prompts("picturebook", ids=[long])
    runs = {}
    for name in SHOWN[:2]:
        manifest = own_numbers.Manifest(system=name, backend={"name": "truth"}, dataset={})
        runs[name] = RunFolder.create(tmp_path / name, chosen.prompts, manifest, source=chosen.folder)
        own_numbers.generate(runs[name], own_numbers.TruthBackend())
    (tmp_path / "sheet.png").write_bytes(picture_of(runs))
    assert Image.open(tmp_path / "sheet.png").size[1] == 2 * 100
