"""Controlled damage and what it must do; calibration and correlation against closed forms."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from weaver_core.errors import InputError
from weaver_core.evaluation.calibrate import calibrate
from weaver_core.evaluation.correlate import correlate, pearson, ranks, spearman
from weaver_core.evaluation.degrade import BEGGING, DAMAGES, collage, degrade, recoloured
from weaver_core.evaluation.importers.mmrb2 import PreferencePair
from weaver_core.evaluation.metrics import default_metrics
from weaver_core.evaluation.metrics.oracle import OracleJudge, oracle_metrics
from weaver_core.evaluation.metrics.structure import StructureMetric
from weaver_core.evaluation.picturebook_split import draw_truth, prompts
from weaver_core.evaluation.probe import paired_drop, probe
from weaver_core.evaluation.records import DIMENSIONS, Block, Document, JudgeRecord, file_sha256, read_jsonl

SOME = [p for p in prompts() if p.want.explicit and p.want.images_max in (2, 3)][:10]
BY_ID = {prompt.id: prompt for prompt in SOME}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, draw_truth(SOME, folder)


@pytest.fixture(scope="module")
def probed(run, tmp_path_factory):
    folder, documents = run
    out = tmp_path_factory.mktemp("probe")
    scorers = [OracleJudge(), *default_metrics(), *oracle_metrics()]
    return out, {verdict.name: verdict for verdict in probe(BY_ID, documents, folder, scorers, out)}


class LengthJudge:
    """A tiny bad judge: full marks to who asks for them, else points for the number of words."""

    name = "length"

    def score(self, prompt, document, folder, *, dims=DIMENSIONS, rep=0):
        text = " ".join(block.text for block in document.texts)
        points = 10.0 if "10/10" in text else min(10.0, len(text.split()) / 20)
        return [JudgeRecord(key=dim, prompt_id=document.prompt_id, system=document.system, rep=rep, dim=dim, score=points, status="ok") for dim in dims]


# ---- damage


def _damaged(run, tmp_path, damage, index=0, **how):
    folder, documents = run
    return degrade(documents[index], damage, BY_ID[documents[index].prompt_id], documents, folder, tmp_path, **how)


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_the_same_every_time_and_its_files_are_there(run, tmp_path, damage):
    one, two = _damaged(run, tmp_path / "a", damage), _damaged(run, tmp_path / "b", damage)
    assert one == two and one.blocks != run[1][0].blocks
    assert all(file_sha256(tmp_path / "a" / block.path) == block.sha256 for block in one.images)


def test_dropping_takes_the_last_image_only(run, tmp_path):
    damaged, whole = _damaged(run, tmp_path, "drop_last_image"), run[1][0]
    assert len(damaged.images) == len(whole.images) - 1 and damaged.texts == whole.texts


def test_shuffled_images_leave_their_places_and_dense_prompts_stay(run, tmp_path):
    damaged, whole = _damaged(run, tmp_path, "shuffle_images"), run[1][0]
    assert [b.dense_prompt for b in damaged.images] == [b.dense_prompt for b in whole.images]
    pixels = lambda folder, d: [Image.open(folder / b.path).convert("RGB").tobytes() for b in d.images]  # noqa: E731
    before, after = pixels(run[0], whole), pixels(tmp_path, damaged)
    assert sorted(before) == sorted(after) and all(a != b for a, b in zip(before, after))


def test_begging_adds_one_sentence_to_one_text(run, tmp_path):
    damaged, whole = _damaged(run, tmp_path, "beg_for_score"), run[1][0]
    changed = [(a.text, b.text) for a, b in zip(whole.texts, damaged.texts) if a != b]
    assert [(before + " " + BEGGING) for before, _ in changed] == [after for _, after in changed] and len(changed) == 1


def test_a_contradiction_exchanges_one_word(run, tmp_path):
    damaged, whole = _damaged(run, tmp_path, "contradict_fact"), run[1][0]
    changed = [(a.text.split(), b.text.split()) for a, b in zip(whole.texts, damaged.texts) if a != b]
    assert len(changed) == 1 and len(changed[0][0]) == len(changed[0][1])
    assert len({(a, b) for a, b in zip(*changed[0]) if a != b}) == 1


def test_what_needs_two_images_or_facts_does_not_apply_without_them(tmp_path):
    prompt = next(p for p in prompts() if p.want.images_max == 1)
    document = draw_truth([prompt], tmp_path)[0]
    for damage in ("shuffle_images", "recolour_hero", "repeat_first_image", "foreign_image"):
        assert degrade(document, damage, prompt, [document], tmp_path, tmp_path / "out") is None
    plain = Document(prompt_id=prompt.id, system="s", seed=0, blocks=(replace(document.blocks[1], text="Nothing to say."),))
    assert degrade(plain, "contradict_fact", prompt, [], tmp_path, tmp_path / "out") is None


def test_recolouring_changes_strong_colours_inside_the_box_only():
    picture = Image.new("RGB", (40, 40), (220, 30, 30))
    picture.paste((128, 128, 128), (0, 0, 40, 10))
    after = np.asarray(recoloured(picture, (0, 0, 20, 40)))
    assert after[5, 5].tolist() == [128, 128, 128] and after[30, 30].tolist() == [220, 30, 30]
    assert after[30, 5].argmax() != 0


def test_a_collage_keeps_the_size_and_shows_four_panels():
    page = collage([Image.new("RGB", (64, 48), colour) for colour in ("red", "lime", "blue")])
    corners = [page.getpixel(spot) for spot in ((5, 5), (58, 5), (5, 42), (58, 42))]
    assert page.size == (64, 48) and corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 0)]


def test_an_unknown_damage_is_refused_with_those_that_are_known(run, tmp_path):
    with pytest.raises(InputError, match="'melt'; it must be one of drop_last_image"):
        _damaged(run, tmp_path, "melt")


# ---- probe


def test_the_oracle_meets_every_expectation(probed):
    verdict = probed[1]["oracle"]
    assert verdict.passed, verdict.failures
    assert verdict.untested == () and set(verdict.cells) == set(DAMAGES)


def test_the_judge_free_metrics_meet_theirs(probed):
    assert {name: verdict.failures for name, verdict in probed[1].items() if verdict.failures} == {}


def test_copies_raise_every_likeness_and_only_diversity_tells(probed):
    row = probed[1]["consistency (builtin)"].cells["repeat_first_image"]
    assert row["builtin:self"].high < 0 and row["builtin:lift"].high < 0 < row["builtin:diversity"].low


def test_what_was_found_is_written_down(probed):
    out, verdicts = probed
    written = json.loads((out / "probe.json").read_text())
    assert [one["name"] for one in written] == list(verdicts) and written[0]["passed"]
    assert "| recolour_hero |" in (out / "probe.md").read_text()
    assert len(read_jsonl(out / "grid.jsonl", Document)) == len(SOME)


def test_a_judge_that_can_be_begged_and_sees_no_pictures_fails_by_name(run, tmp_path):
    verdict, = probe(BY_ID, run[1], run[0], [LengthJudge()], tmp_path)
    assert "beg_for_score: PA rises" in verdict.failures and "recolour_hero: IC does not fall" in verdict.failures
    assert not verdict.passed and "Failed: " in (tmp_path / "probe.md").read_text()


def test_nothing_to_damage_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no documents"):
        probe(BY_ID, [], tmp_path, [OracleJudge()], tmp_path)


def test_paired_drops_use_only_what_both_sides_have():
    before, after = {("a", "PA"): 8.0, ("b", "PA"): 6.0, ("c", "PA"): 1.0}, {("a", "PA"): 5.0, ("b", "PA"): 5.0, ("a", "IC"): 9.0}
    cell = paired_drop(before, after, "PA")
    assert (cell.mean, cell.n) == (2.0, 2) and cell.low == 1.0 and cell.high == 3.0
    assert paired_drop(before, after, "IC") is None


# ---- calibrate


def _pairs(chosen="ABAB"):
    def answer(model, text):
        return Document(prompt_id="p", system=model, seed=0, blocks=(Block(type="text", text=text),))

    return [PreferencePair(SOME[0], answer("x", "good" if c == "A" else "bad"), answer("y", "good" if c == "B" else "bad"), c) for c in chosen]


def test_a_good_judge_is_right_in_both_orders():
    result = calibrate(_pairs(), lambda _, first, second: "first" if "good" in first.blocks[0].text else "second")
    assert (result.accuracy, result.consistency, result.first_share, result.warning) == (1.0, 1.0, 0.5, None)


def test_a_judge_that_always_says_first_is_at_chance_and_warned_of():
    result = calibrate(_pairs(), lambda *_: "first")
    assert (result.accuracy, result.consistency, result.position_bias) == (0.5, 0.0, 0.5)
    assert "below 60%" in result.warning and result.lines()[-1].startswith("Warning")


def test_ties_count_half_and_silence_nothing():
    assert calibrate(_pairs(), lambda *_: "tie").accuracy == 0.5 and calibrate(_pairs(), lambda *_: "tie").first_share is None
    silent = calibrate(_pairs(), lambda *_: None)
    assert (silent.accuracy, silent.consistency, silent.unanswered) == (0.0, 0.0, 1.0)


def test_without_pairs_there_is_nothing_to_calibrate_with():
    with pytest.raises(InputError, match="no pairs"):
        calibrate([], lambda *_: "tie")


# ---- correlate


def test_correlations_are_those_of_scipy():
    from scipy import stats

    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 50).astype(float)
    y = x + rng.normal(0, 2, 50)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert ranks(np.array([3.0, 1.0, 3.0])).tolist() == [2.5, 1.0, 2.5]
    assert pearson(x, np.ones(50)) is None


def test_good_and_damaged_documents_give_the_correlations_that_must_be(run, tmp_path):
    found = correlate(BY_ID, run[1], run[0], [StructureMetric(), *oracle_metrics()], OracleJudge(), tmp_path,
                      damages=("drop_last_image", "shuffle_images", "truncate_text"), samples=100)  # fmt: skip
    by = {(one.metric, one.dim): one for one in found}
    assert by["oracle:recall", "NC"].spearman > 0.4 and by["oracle:recall", "NC"].spearman_interval[0] > 0
    assert by["image_count", "CP"].pearson > 0.5
    assert by["finished", "PA"].pearson is None and by["image_count", "CP"].n == 4 * len(SOME)
    assert "| oracle:recall |" in (tmp_path / "correlations.md").read_text()
