"""Intervals, tests and summaries against closed forms, other programs' values and simulations; comparisons and the gate."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from judge_server import make_run, prompt

from weaver_core.errors import InputError
from weaver_core.evaluation.compare import compare, gate, unlike
from weaver_core.evaluation.records import DIMENSIONS, JudgeRecord, MetricRecord, Want
from weaver_core.evaluation.run_folder import RunFolder
from weaver_core.evaluation.statistics import (
    OVERALL,
    bootstrap_weights,
    detectable_difference,
    holm,
    interval,
    mean_interval,
    paired_p,
    resampled_means,
    scores_of,
    summarize,
)


def record(name, dim, score, status="ok", rep=0, judge="eye", **more):
    return JudgeRecord(key=f"{name}/{dim}/{rep}", prompt_id=name, system="s", rep=rep, dim=dim, score=score, status=status, judge=judge, **more)


def records_of(scores, judge="eye"):
    """{prompt id: five scores} as records."""
    return [record(name, dim, float(score), judge=judge) for name, row in scores.items() for dim, score in zip(DIMENSIONS, row, strict=True)]


# ---- numbers


@pytest.mark.parametrize(("n", "draw"), [(8, "normal"), (40, "normal"), (60, "skewed")])
def test_the_interval_holds_the_truth_in_95_of_100_simulated_evaluations(n, draw):
    rng = np.random.default_rng(5)
    values = rng.normal(7.0, 2.0, (n, 2000)) if draw == "normal" else 10 - rng.exponential(2.0, (n, 2000))
    truth = 7.0 if draw == "normal" else 8.0
    means = resampled_means(values, bootstrap_weights(n, resamples=1000, seed=1))
    found = [interval(means[:, i], 0.0, n) for i in range(values.shape[1])]
    coverage = sum(one.low <= truth <= one.high for one in found) / len(found)
    assert 0.93 <= coverage <= 0.97


def test_the_interval_is_as_wide_as_the_closed_form():
    values = np.random.default_rng(0).normal(7, 2, 400)
    found = mean_interval(values, resamples=8_000)
    half = 1.966 * values.std(ddof=1) / 20
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.015)


def test_intervals_are_the_same_every_time_and_few_values_have_none():
    assert mean_interval([1, 2, 3, 4]) == mean_interval([1, 2, 3, 4])
    one = mean_interval([4.0, math.nan])
    assert (one.mean, one.n) == (4.0, 1) and math.isnan(one.low)
    assert mean_interval([]).n == 0 and math.isnan(mean_interval([]).mean)


def test_resampled_means_pass_over_what_is_missing():
    weights = np.array([[2, 1, 0], [0, 0, 3]], np.float32)
    means = resampled_means(np.array([[1.0, np.nan], [4.0, 5.0], [7.0, np.nan]]), weights)
    assert means[0].tolist() == [2.0, 5.0] and means[1, 0] == 7.0 and np.isnan(means[1, 1])


def test_the_permutation_test_is_exact_for_few_prompts():
    assert paired_p([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    assert paired_p([-1, 1]) == 1.0 and paired_p([3]) == 1.0 and paired_p([0, 0, 0]) == 1.0 and math.isnan(paired_p([math.nan]))


def test_drawn_signs_give_what_scipy_gives():
    from scipy.stats import permutation_test

    values = np.random.default_rng(0).normal(0.5, 2.0, 40)
    theirs = permutation_test((values, np.zeros(40)), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", vectorized=True,
                              n_resamples=9999, rng=1).pvalue  # fmt: skip
    assert paired_p(values) == pytest.approx(theirs, abs=0.015)


def test_the_permutation_test_is_wrong_as_often_as_it_says():
    rng = np.random.default_rng(3)
    found = [paired_p(rng.normal(0, 2, 12), resamples=499, seed=i) for i in range(200)]
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.085


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [  # statsmodels 0.15.0, multipletests(method="holm")
        ([0.01, 0.04, 0.03, 0.005, 0.2], [0.04, 0.09, 0.09, 0.025, 0.2]),
        ([0.5, 0.5, 0.001, 0.012, 0.012, 0.9], [1.0, 1.0, 0.006, 0.06, 0.06, 1.0]),
    ],
)
def test_holm_agrees_with_statsmodels(p, adjusted):
    assert holm(p) == pytest.approx(adjusted)
    with_gap = holm([*p[:2], math.nan, *p[2:]])
    assert math.isnan(with_gap[2]) and with_gap[3:] == pytest.approx(adjusted[2:])


@pytest.mark.parametrize(("sd", "found"), [(1.5, 0.19), (2.2, 0.27), (2.5, 0.31)])
def test_the_detectable_difference_of_512_prompts(sd, found):
    assert detectable_difference(sd, 512) == pytest.approx(found, abs=0.005)


def test_the_detectable_difference_is_detected_in_four_of_five_simulated_comparisons():
    rng = np.random.default_rng(2)
    gap = detectable_difference(2.0, 50)
    values = rng.normal(gap, 2.0, (2000, 50))
    t = values.mean(axis=1) / (values.std(axis=1, ddof=1) / math.sqrt(50))
    assert 0.76 <= np.mean(np.abs(t) > 2.0096) <= 0.84


# ---- summaries


def test_missing_answers_count_zero_and_failures_of_the_judge_do_not_count():
    records = [record("a", "PA", 8), record("b", "PA", 6), record("c", "PA", None, "missing_output"), record("d", "PA", None, "parse_error")]
    (line, overall) = summarize([prompt(name) for name in "abcd"], records).lines
    assert line.intent.mean == pytest.approx(14 / 3) and line.complete.mean == 7.0
    assert (line.intent.n, line.complete.n, line.coverage) == (3, 2, 0.75) and overall.intent.mean == line.intent.mean


def test_repetitions_are_averaged_before_prompts():
    records = [record("a", "PA", 2), record("a", "PA", 4, rep=1), record("b", "PA", 9), record("b", "PA", None, "timeout", rep=1)]
    assert scores_of(["a", "b"], records).complete.tolist() == [[3.0], [9.0]]


def test_what_does_not_apply_counts_nowhere_and_overall_is_the_plain_mean_of_the_dimensions():
    records = records_of({"a": (8, 8, 8, 2, 8), "b": (4, 4, 4, 4, 4)})
    records = [r for r in records if (r.prompt_id, r.dim) != ("b", "IC")] + [record("b", "IC", None, "na")]
    lines = {line.name: line for line in summarize([prompt("a"), prompt("b")], records).lines}
    assert lines["IC"].intent.mean == 2.0 and lines["IC"].coverage == 1.0
    assert lines[OVERALL].intent.mean == pytest.approx((6 + 6 + 6 + 2 + 6) / 5)


def test_macro_weighs_categories_alike():
    prompts = [prompt(name, category="big" if name != "d" else "small") for name in "abcd"]
    line = summarize(prompts, [record(name, "PA", score) for name, score in zip("abcd", (4, 4, 4, 8), strict=True)]).lines[0]
    assert (line.intent.mean, line.macro) == (5.0, 6.0)


def test_slices_are_by_category_language_and_number_of_images():
    prompts = [prompt("a", lang="en"), prompt("b", lang="zh", want=Want(images_min=1, images_max=7, explicit=False))]
    slices = summarize(prompts, [record("a", "PA", 8), record("b", "PA", 4)]).slices
    assert {kind: [(line.name, line.intent.mean) for line in lines] for kind, lines in slices.items()} == {
        "language": [("en", 8.0), ("zh", 4.0)], "images": [("2", 8.0), ("6-8", 4.0)]}  # fmt: skip


def test_dimensions_of_another_benchmark_are_summarised_too():
    assert [line.name for line in summarize([prompt("a")], [record("a", "Correctness", 5.0)]).lines] == ["Correctness", OVERALL]


def test_nothing_judged_is_said():
    with pytest.raises(InputError, match="nothing has been judged"):
        summarize([prompt("a")], [])


@pytest.mark.clock
def test_512_prompts_with_4_images_are_summarised_and_compared_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    prompts = [prompt(f"p{n}", category=f"c{n % 14}", lang="zh" if n % 7 == 0 else "en") for n in range(512)]
    runs = []
    for name, shift in (("a", 0.0), ("b", 0.4)):
        run = make_run(tmp_path / name, 1)
        (run.folder / "prompts.jsonl").write_text("".join(json.dumps(item.to_json()) + "\n" for item in prompts))
        scores = np.clip(rng.normal(7 + shift, 2, (512, 5)), 0, 10)
        lines = [r.to_json() for r in records_of({item.id: row for item, row in zip(prompts, scores, strict=True)})]
        (run.folder / "judge.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        metrics = [MetricRecord(prompt_id=item.id, system=name, metric="lift", value=float(rng.random()), by_image=(0.1,) * 4) for item in prompts]
        (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line.to_json()) + "\n" for line in metrics))
        runs.append(run.folder)
    started = time.process_time()
    a, b = (RunFolder.open(folder) for folder in runs)
    summary = summarize(list(a.prompts.values()), a.judge_records())
    found = compare(a, b)
    assert time.process_time() - started < 10
    assert len(summary.lines) == 6 and len(summary.slices["category"]) == 14
    line = found.line(OVERALL)
    assert line.difference.low > 0 and line.p_holm < 0.01 and line.difference.n == 512


# ---- two runs


def judged_run(folder, scores, *, judge="eye", settings=None, **manifest):
    run = make_run(folder, len(scores), system=folder.name, **manifest)
    run.note_judge(judge, settings or {"model": "eye", "mode": "split", "images": "long768"})
    journal = run.journal("judge.jsonl")
    for item in records_of(dict(zip(run.prompts, scores, strict=True)), judge):
        journal.append(item.to_json())
    journal.close()
    return run


def test_a_comparison_is_paired_and_counts_missing_answers(tmp_path):
    a = judged_run(tmp_path / "a", [(8,) * 5, (6,) * 5, (4,) * 5])
    b = judged_run(tmp_path / "b", [(9,) * 5, (7,) * 5, (5,) * 5])
    line = compare(a, b).line("PA")
    assert (line.a, line.b, line.difference.mean) == (6.0, 7.0, 1.0) and (line.difference.low, line.difference.high) == (1.0, 1.0)
    assert line.p == pytest.approx(2 / 8) and line.p_holm == 1.0
    journal = b.journal("judge.jsonl")
    journal.append(record("p2", "PA", None, "missing_output").to_json())
    journal.close()
    assert compare(a, b).line("PA").difference.mean == pytest.approx((1 + 1 - 4) / 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"model": "other", "mode": "split", "images": "long768"}}, "the judge differs"),
        ({"settings": {"model": "eye", "mode": "joint", "images": "long768"}}, "the judging mode differs"),
        ({"settings": {"model": "eye", "mode": "split", "images": "squash512"}}, "the image size"),
        ({"step_hint": "must_exact"}, "the step hint differs"),
        ({"judge": "eye t=1"}, "the judge differs"),
    ],
)
def test_runs_that_are_unlike_are_refused_unless_forced_and_then_marked(tmp_path, change, said):
    a, b = judged_run(tmp_path / "a", [(8,) * 5] * 2), judged_run(tmp_path / "b", [(9,) * 5] * 2, **change)
    with pytest.raises(InputError, match=said):
        compare(a, b)
    found = compare(a, b, force=True)
    assert any(said in sentence for sentence in found.unlike) and found.line("PA").difference.mean == 1.0
    assert unlike(a, a) == []


def test_other_prompts_and_rubrics_are_unlike(tmp_path):
    a, b = judged_run(tmp_path / "a", [(8,) * 5] * 2), judged_run(tmp_path / "b", [(8,) * 5] * 3)
    assert any("the prompts differ" in sentence for sentence in unlike(a, b))
    c = make_run(tmp_path / "c", 2)
    assert any("only one of the runs has been judged" in sentence for sentence in unlike(a, c))
    journal = c.journal("judge.jsonl")
    journal.append(record("p0", "PA", 5.0, rubric={"sha256": "abc"}).to_json())
    journal.close()
    assert any("the rubric differs" in sentence for sentence in unlike(a, c))


def test_the_gate_lets_small_drops_pass_and_names_large_ones(tmp_path):
    a = judged_run(tmp_path / "a", [(8, 8, 8, 8, 8), (6, 6, 6, 6, 6)])
    b = judged_run(tmp_path / "b", [(8, 8, 8, 7, 8), (6, 6, 6, 5, 6)])
    found = compare(a, b)
    assert gate(found, ["Overall"], 0.25) == []
    (sentence,) = gate(found, ["Overall", "IC"], 0.25)
    assert sentence.startswith("IC fell from 7 to 6: by 1, more than 0.25")
    with pytest.raises(InputError, match="there are: PA, NC, CC, IC, CP, Overall"):
        gate(found, ["XX"], 0.1)
    with pytest.raises(InputError, match="0 or more"):
        gate(found, ["IC"], math.nan)
