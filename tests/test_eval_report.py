"""The report: numbers against hand-computed ones, and nothing that anyone wrote is more than text."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest
from eval_records import EVIL, document, hostile_run, judged, picture, prompt, run
from PIL import Image

from weaver_core.errors import InputError
from weaver_core.evaluation.records import Block, InputBlock, JudgeRecord, MetricRecord
from weaver_core.evaluation.report import ReportInput, Verdict, write_report
from weaver_core.evaluation.report.charts import nice_ticks
from weaver_core.evaluation.report.page import report_of
from weaver_core.evaluation.report.tables import markdown
from weaver_core.evaluation.report.verdicts import verdicts_in
from weaver_core.evaluation.report.vote import read_votes, sign_test, write_vote
from weaver_core.evaluation.run_folder import Manifest, RunFolder


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data


# ---- numbers


def test_the_headline_is_the_mean_with_interval_n_and_coverage(tmp_path):
    """By hand: dimension means (8 + 6 + 4) / 3 = 6 each, so Overall 6.00 over 3 prompts."""
    (system,) = report_of([run(tmp_path)]).systems
    assert system.overall.complete.mean == 6.0 and system.overall.complete.n == 3 and system.overall.coverage == 1.0
    assert system.overall.complete.low < 6 < system.overall.complete.high
    page = (write_report([run(tmp_path)], tmp_path / "r").html).read_text(encoding="utf-8")
    assert '<p class="headline">6.00</p>' in page and "<dd>3 of 3</dd>" in page and "<dd>100.0 %</dd>" in page


def test_missing_outputs_are_zeros_in_one_number_and_absent_in_the_other(tmp_path):
    """By hand: 8 and 6 scored, c has no output: complete (8 + 6) / 2 = 7, missing = 0: 14 / 3 = 4.67."""
    given = run(tmp_path, scores={"a": (8,) * 5, "b": (6,) * 5})
    missing = tuple(judged("c", (None,) * 5, status="missing_output"))
    given = dataclasses.replace(given, prompts=(*given.prompts, prompt("c")), judge_records=(*given.judge_records, *missing))
    (system,) = report_of([given]).systems
    assert system.overall.complete.mean == 7.0 and round(system.overall.intent.mean, 2) == 4.67 and system.num_missing == 1


def test_missing_outputs_that_the_judge_has_not_seen_are_pointed_out(tmp_path):
    given = run(tmp_path)
    given = dataclasses.replace(given, prompts=(*given.prompts, prompt("d")))
    assert "1 missing outputs are not among its records yet" in write_report([given], tmp_path / "r").html.read_text(encoding="utf-8")


def test_published_scores_stand_greyed_and_apart(tmp_path):
    page = write_report([run(tmp_path)], tmp_path / "r").html.read_text(encoding="utf-8")
    row = re.search(r'<tr class="ghost"><th>Wan-Weaver</th>(.*?)</tr>', page, re.DOTALL)[1]
    assert re.findall(r">([0-9.]+)<", row) == ["8.43", "8.71", "8.33", "8.50", "8.13", "8.46"]
    assert "other prompts, other judge" in page and "WeaverBench-style" in page and "not the paper" in page


def test_opening_s_criteria_have_their_order_their_published_rows_and_their_own_arithmetic(tmp_path):
    from weaver_core.evaluation.opening_profile import CRITERIA

    records = [JudgeRecord(key=f"{p}{dim}", prompt_id=p, system="m", rep=0, dim=dim, score=7.0, status="ok") for p in "ab" for dim in CRITERIA]
    prompts = tuple(prompt(p, ref={"benchmark": "opening"}) for p in "ab")
    report = report_of([ReportInput(name="m", folder=tmp_path, prompts=prompts, documents=(document("a"),), judge_records=tuple(records))])
    assert report.dims == list(CRITERIA), "the criteria stand in the original's order"
    assert {row["name"]: row["overall"] for row in report.published}["Human"] == 8.57 and "OpenING" in report.about
    official = report.systems[0].official
    assert (official.overall, official.scored, official.missing) == (7.0, 2, 0) and "OpenING's own arithmetic: 7.00 over 2 of 2" in markdown(report)


def test_systems_are_compared_in_pairs_over_shared_prompts(tmp_path):
    """By hand: on a and b the gaps are -2 and -1, on e 0 - 4 (no output); c and d are not shared: -7 / 3 over 3."""
    ours = run(tmp_path, scores={"a": (8,) * 5, "b": (6,) * 5, "c": (1,) * 5, "e": (4,) * 5})
    other = run(tmp_path, name="other", scores={"a": (6,) * 5, "b": (5,) * 5, "d": (9,) * 5})
    missing = tuple(judged("e", (None,) * 5, status="missing_output", system="other"))
    other = dataclasses.replace(other, prompts=(*other.prompts, prompt("e")), judge_records=(*other.judge_records, *missing))
    report = report_of([ours, other])
    ((name, gap, p, p_holm, _),) = report.differences
    assert (name, round(gap.mean, 4), gap.n) == ("other", -2.3333, 3) and p == p_holm == pytest.approx(2 / 8), "all three signs alike: 2 of 8"
    assert "other − ours: -2.33" in markdown(report)


def test_p_values_of_several_comparisons_are_told_adjusted_too(tmp_path):
    """By hand: over six prompts gaps of one sign have p = 2 / 64 = 0.031, twice that of two comparisons = 0.0625; then 1."""
    ids = "abcdef"
    ours = run(tmp_path, scores={name: (5,) * 5 for name in ids})
    worse = run(tmp_path, name="worse", scores={name: (3,) * 5 for name in ids})
    same = run(tmp_path, name="same", scores={name: (5,) * 5 for name in ids})
    assert [p_holm for *_, p_holm, _ in report_of([ours, worse, same]).differences] == pytest.approx([4 / 64, 1.0])
    written = write_report([ours, worse, same], tmp_path / "r")
    page, text = written.html.read_text(encoding="utf-8"), markdown(report_of([ours, worse, same]))
    assert "p = 0.031, p (Holm) = 0.062" in page and "p = 0.031, p (Holm) = 0.062" in text


def test_a_metric_s_curve_is_its_mean_at_each_image(tmp_path):
    """By hand: image 1: (0.8 + 0.6) / 2 = 0.7, image 2: (0.5 + 0.3) / 2 = 0.4, image 3 only in one document: 0.2."""
    metrics = [
        MetricRecord(prompt_id="a", system="ours", metric="m", value=0.5, by_image=(0.8, 0.5, 0.2)),
        MetricRecord(prompt_id="b", system="ours", metric="m", value=0.4, by_image=(0.6, 0.3, None)),
        MetricRecord(prompt_id="c", system="ours", metric="m", value=None),
        MetricRecord(prompt_id="c", system="ours", metric="flat", value=1.0),
    ]
    report = report_of([run(tmp_path, metrics=metrics)])
    ((name, chart),) = report.curves
    points = chart["lines"][0]["points"]
    assert name == "m" and [(point["index"], round(point["value"].mean, 6), point["value"].n) for point in points] == [(1, 0.7, 2), (2, 0.4, 2), (3, 0.2, 1)]
    assert report.systems[0].metrics["m"].n == 2 and round(report.systems[0].metrics["m"].mean, 6) == 0.45


@pytest.mark.parametrize("low, high, ticks", [(0.61, 0.88, [0.6, 0.7, 0.8, 0.9]), (3, 3, [2.5, 2.75, 3, 3.25, 3.5]), (-2, 9, [-5, 0, 5, 10])])
def test_axes_have_round_numbers(low, high, ticks):
    assert nice_ticks(low, high) == ticks


def test_flags_are_counted_by_document(tmp_path):
    metrics = [
        MetricRecord(prompt_id="a", system="ours", metric="look", value=0.0, flags=("grid:0", "grid:2")),
        MetricRecord(prompt_id="b", system="ours", metric="look", value=0.0, flags=("blank:1", "grid:0")),
    ]
    assert report_of([run(tmp_path, metrics=metrics)]).systems[0].flags == [("grid", 2, ["a", "b"]), ("blank", 1, ["b"])]


def test_the_judge_s_noise_failures_and_halo_are_measured(tmp_path):
    """By hand: reps 8, 6 and 5, 5 on each dimension: variances 2 and 0, pooled SD 1; one of 21 asked scores unreadable."""
    given = run(tmp_path, scores={"a": (8,) * 5, "b": (5,) * 5})
    more = [*judged("a", (6,) * 5, rep=1), *judged("b", (5,) * 5, rep=1),
            JudgeRecord(key="x", prompt_id="a", system="ours", rep=2, dim="PA", score=None, status="refused"),
            JudgeRecord(key="y", prompt_id="a", system="ours", rep=2, dim="IC", score=None, status="na")]  # fmt: skip
    facts = report_of([dataclasses.replace(given, judge_records=(*given.judge_records, *more))]).systems[0].health
    assert facts.repetition_sd == pytest.approx(1.0) and facts.parse_rate == pytest.approx(20 / 21)
    assert facts.refusal_rate == pytest.approx(1 / 21) and facts.statuses == {"ok": 20, "refused": 1, "na": 1}


def test_dimensions_that_move_together_are_called_one_number(tmp_path):
    report = report_of([run(tmp_path)])
    assert report.systems[0].health.mean_r == pytest.approx(1.0)
    assert ("bad", "The dimensions move together (mean r 1.00): read them as about one number.") in report.systems[0].health_notes


def test_one_call_s_cost_counts_once(tmp_path):
    """Five records of one call share a key; tokens and price stand with the first."""
    first, *rest = (dataclasses.replace(record, key="call", images_sent=4) for record in judged("a", (7,) * 5))
    first = dataclasses.replace(first, usd=0.25, usage={"prompt_tokens": 900, "completion_tokens": 40, "strict": 1}, ms=2000.0)
    lone = JudgeRecord(key="other", prompt_id="b", system="ours", rep=0, dim="PA", score=5.0, status="ok", images_sent=1)
    given = dataclasses.replace(run(tmp_path), judge_records=(first, *rest, lone))
    cost = report_of([given]).systems[0].cost
    assert (cost.calls, cost.usd, cost.unpriced, cost.images_sent, cost.judge_s) == (2, 0.25, 1, 5, 2.0)
    assert cost.usage == {"prompt_tokens": 900, "completion_tokens": 40}


def test_the_best_and_the_worst_are_shown_with_their_dense_prompts(tmp_path):
    picture(tmp_path / "p.png")
    documents = [document(one, Block(type="text", text=f"Tale {one}"), Block(type="image", path="p.png", dense_prompt=f"dense {one}", seed=77))
                 for one in "abc"]  # fmt: skip
    given = run(tmp_path, documents=documents)
    (system,) = report_of([given], examples=1).systems
    assert [shown.prompt.id for shown in (*system.best, *system.worst)] == ["a", "c"]
    text = Elements(write_report([given], tmp_path / "r", examples=1).html.read_text(encoding="utf-8")).text
    assert "dense a" in text and "dense c" in text and "dense b" not in text and "seed 77" in text and "Tale a" in text


def test_two_systems_are_shown_side_by_side_where_they_differ_most(tmp_path):
    ours = run(tmp_path, scores={"a": (9,) * 5, "b": (5,) * 5, "c": (2,) * 5})
    other = run(tmp_path, name="other", scores={"a": (3,) * 5, "b": (5,) * 5, "c": (7,) * 5})
    pairs = report_of([ours, other], examples=1).pairs
    assert [(left.prompt.id, left.score, right.score) for left, right in pairs] == [("a", 9.0, 3.0), ("c", 2.0, 7.0)]


@pytest.mark.parametrize("change, what", [
    ({"manifest": {"step_hint": "can_be"}}, "another step hint: ours: none; other: can_be"),
    ({"prompts": (prompt("a"), prompt("b"), prompt("c", category="travel"))}, "other prompts"),
    ({"judge_records": tuple(judged("a", (5,) * 5, judge="another"))}, "another judge: ours: j; other: another"),
    ({"judge_records": tuple(judged("a", (5,) * 5, rubric={"sha256": "beef"}))}, "another rubric"),
])  # fmt: skip
def test_what_speaks_against_comparing_stands_in_a_red_banner(tmp_path, change, what):
    other = dataclasses.replace(run(tmp_path, name="other"), **change)
    page = write_report([run(tmp_path), other], tmp_path / "r").html.read_text(encoding="utf-8")
    assert what in re.search(r'<p class="warning" role="alert">(.*?)</p>', page, re.DOTALL)[1]


def test_equal_conditions_have_no_banner(tmp_path):
    page = write_report([run(tmp_path), run(tmp_path, name="other")], tmp_path / "r").html.read_text(encoding="utf-8")
    assert 'class="warning"' not in page


def test_verdicts_seeds_and_commands_are_told(tmp_path):
    given = run(tmp_path, manifest={"seed": 4711, "command": "weaver eval run --seed 4711", "backend": {"name": "library"}})
    files = write_report([given], tmp_path / "r", command="weaver eval report r", verdicts=[Verdict(name="shuffle", text="NC falls", passed=True)])
    text = Elements(files.html.read_text(encoding="utf-8")).text
    assert all(part in text for part in ("4711", "weaver eval run --seed 4711", "weaver eval report r", "shuffle", "NC falls"))
    assert all(part in files.markdown.read_text(encoding="utf-8") for part in ("weaver eval report r", "shuffle: NC falls"))


def test_a_run_without_any_score_is_a_report_too(tmp_path):
    bare = dataclasses.replace(run(tmp_path), judge_records=(), documents=())
    text = Elements(write_report([bare], tmp_path / "r").html.read_text(encoding="utf-8")).text
    assert "Nothing has been judged yet." in text and "no judge" in text and "noise" not in text


def test_documents_can_be_looked_at_before_anything_is_judged(tmp_path):
    text = Elements(write_report([dataclasses.replace(run(tmp_path), judge_records=())], tmp_path / "r", examples=2).html.read_text(encoding="utf-8")).text
    assert "The first" in text and "answer a" in text and "answer b" in text and "answer c" not in text


def test_a_real_run_folder_is_reported(tmp_path):
    from weaver_core.evaluation.backends import Answer, AnswerImage

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, format="PNG")
    manifest = Manifest(system="ours", backend={"name": "library"}, dataset={"name": "weaver-style"}, seed=5)
    folder = RunFolder.create(tmp_path / "run", [prompt("a"), prompt("b")], manifest, source=tmp_path)
    folder.keep("a", Answer(parts=("Once", AnswerImage(data=buffer.getvalue(), dense_prompt="a teal sea"))), 9)
    journal = folder.journal("judge.jsonl")
    for record in [*judged("a", (7,) * 5), *judged("b", (None,) * 5, status="missing_output")]:
        journal.append(record.to_json())
    journal.close()
    given = ReportInput.from_run(RunFolder.open(tmp_path / "run"))
    page = write_report([given], tmp_path / "r").html.read_text(encoding="utf-8")
    assert '<p class="headline">7.00</p>' in page and "a teal sea" in page and "data:image/jpeg;base64," in page
    (system,) = report_of([given]).systems
    assert system.overall.intent.mean == 3.5 and system.num_missing == 1


@pytest.mark.parametrize("names", [[], ["x"] * 2, [f"s{n}" for n in range(7)]])
def test_no_run_twice_the_same_name_and_too_many_are_refused(tmp_path, names):
    with pytest.raises(InputError):
        write_report([run(tmp_path, name=name) for name in names], tmp_path / "r")


def test_probes_and_battles_in_the_run_s_folder_are_told(tmp_path):
    """By hand: of four decided verdicts three are for the answer shown first; p is judged alike in both orders, q is not."""
    (tmp_path / "probe").mkdir()
    found = [{"name": "pixels", "kind": "metric", "cells": {"grid": {}}, "failures": ["grid: not_grid does not fall"], "untested": [], "passed": False},
             {"name": "judge m", "kind": "judge", "cells": {"grid": {}}, "failures": [], "untested": ["grid: IC"], "passed": True}]
    (tmp_path / "probe" / "probe.json").write_text(json.dumps(found), encoding="utf-8")
    common = {"status": "ok", "rationale": "", "answers": "", "judge": "j"}
    choices = [("p", "ab", "a"), ("p", "ba", "a"), ("q", "ab", "a"), ("q", "ba", "b")]
    (tmp_path / "pairwise-old.jsonl").write_text(
        "".join(json.dumps({"prompt_id": one, "order": order, "choice": choice} | common) + "\n" for one, order, choice in choices), encoding="utf-8"
    )
    (tmp_path / "pairwise-bad.jsonl").write_text('{"what": 1}\n', encoding="utf-8")
    verdicts = {verdict.name: verdict for verdict in verdicts_in(tmp_path)}
    assert list(verdicts) == ["probe of pixels", "probe of judge m", "pairwise-bad.jsonl", "position bias in pairwise-old"]
    assert [verdict.passed for verdict in verdicts.values()] == [False, True, None, False]
    assert "75% of 4 verdicts" in verdicts["position bias in pairwise-old"].text and "50% of the prompts" in verdicts["position bias in pairwise-old"].text
    page = write_report([run(tmp_path)], tmp_path / "r").html.read_text(encoding="utf-8")
    assert "grid: not_grid does not fall" in page and "not tested: grid: IC" in page


def test_a_calibration_on_one_pair_has_no_interval_and_is_told(tmp_path):
    (tmp_path / "calibration").mkdir()
    found = {"judge": "m", "accuracy": 0.5, "low": None, "high": None, "num_pairs": 1, "consistency": 0.0}
    (tmp_path / "calibration" / "calibration.json").write_text(json.dumps(found))
    (verdict,) = verdicts_in(tmp_path)
    assert verdict.name == "calibration of m" and "50% of 1 pairs" in verdict.text and not verdict.passed


def test_flags_stand_at_their_image_unless_they_count_something_else(tmp_path):
    picture(tmp_path / "p.png")
    documents = [document(one, Block(type="image", path="p.png"), Block(type="image", path="p.png")) for one in "abc"]
    metrics = [MetricRecord(prompt_id="a", system="ours", metric="m", value=0.0, flags=("grid:1", "leaked_tag:0", "missing_images:2", "no_image", "blank:9"))]
    shown = report_of([run(tmp_path, documents=documents, metrics=metrics)], examples=1).systems[0].best[0]
    assert [step["flags"] for step in shown.steps] == [[], ["grid"]]
    assert shown.flags == ["leaked_tag 0", "missing_images 2", "no_image", "blank 9"]


# ---- what anyone wrote is text


def assert_harmless(page, scripts=0):
    found = Elements(page)
    assert found.tags.count("script") == scripts and found.tags.count("style") == 1 and "iframe" not in found.tags
    assert not [(tag, name) for tag, name, _ in found.attributes if name.startswith("on") or name == "style"]
    assert not [value for _, name, value in found.attributes if name in ("src", "href") and not value.startswith(("data:image/jpeg;base64,", "#"))]
    assert "{{ 7*7 }}" in found.text, "templates in text are not evaluated"
    return found


def test_hostile_text_in_every_field_stays_text(tmp_path):
    other = dataclasses.replace(hostile_run(tmp_path), name="second " + EVIL)
    files = write_report([hostile_run(tmp_path), other], tmp_path / "r", title=EVIL, command=EVIL, verdicts=[Verdict(name=EVIL, text=EVIL)])
    found = assert_harmless(files.html.read_text(encoding="utf-8"))
    assert found.text.count(EVIL) > 40
    text = files.markdown.read_text(encoding="utf-8")
    plain = "".join(line for line in text.splitlines() if not line.startswith("    "))  # what is indented is code
    assert "<script" not in plain and "<img" not in plain and "&lt;script" in plain


def test_the_policy_allows_our_style_and_inlined_pictures_only(tmp_path):
    page = write_report([run(tmp_path)], tmp_path / "r").html.read_text(encoding="utf-8")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style and "http" not in style and "@import" not in style


@pytest.mark.parametrize("path", ["../secret.png", "sub/../../secret.png", "link.png", "{absolute}", "..\\secret.png", "file:///secret.png", ""])
def test_a_picture_outside_the_run_is_refused_and_said(tmp_path, path):
    picture(tmp_path / "secret.png", "lime", size=(50, 50))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    path = path.format(absolute=tmp_path / "secret.png")
    documents = [document(one, Block(type="image", path=path)) for one in "abc"]
    asked = (InputBlock(type="image", path=path),)
    given = run(folder, documents=documents, prompts=[prompt(one, input=asked) for one in "abc"])
    page = write_report([given], tmp_path / "r").html.read_text(encoding="utf-8")
    assert "<img" not in page and page.count('<div class="no-picture">') == 4 and str(tmp_path) not in Elements(page).text.replace(path, "")


def test_pictures_are_made_small_and_each_file_is_read_once(tmp_path):
    Image.effect_noise((1200, 900), 60).convert("RGB").save(tmp_path / "p.png")
    documents = [document(one, Block(type="image", path="p.png")) for one in "abc"]
    page = write_report([run(tmp_path, documents=documents)], tmp_path / "r").html.read_text(encoding="utf-8")
    sources = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(sources) == 2 and len(set(sources)) == 1
    assert Image.open(io.BytesIO(base64.b64decode(sources[0]))).size == (320, 240)


def test_markdown_cells_cannot_be_left(tmp_path):
    given = run(tmp_path, name="a|b\n# c `d` [e](http://f) <b>")
    table = [line for line in markdown(report_of([given])).splitlines() if "&#124;b" in line]
    assert table and all(re.sub(r"\\.", "", line).count("`") == 0 for line in table)
    assert "\n# c" not in markdown(report_of([given])) and "<b>" not in markdown(report_of([given]))


def test_the_csv_holds_the_numbers_and_no_formulas(tmp_path):
    given = run(tmp_path, name="=HYPERLINK(1)")
    files = write_report([given], tmp_path / "r")
    rows = list(csv.DictReader(io.StringIO(files.scores.read_text(encoding="utf-8"))))
    (overall,) = [row for row in rows if row["dimension"] == "Overall" and row["kind"] == "all" and row["treatment"] == "complete"]
    assert float(overall["mean"]) == 6.0 and overall["n"] == "3" and overall["system"] == "'=HYPERLINK(1)"
    documents = list(csv.DictReader(io.StringIO(files.documents.read_text(encoding="utf-8"))))
    assert [(row["prompt"], float(row["Overall"]), float(row["CC"])) for row in documents] == [("a", 8, 8), ("b", 6, 6), ("c", 4, 4)]


# ---- votes


def voters(tmp_path, n=6):
    picture(tmp_path / "p.png")
    scores = {chr(97 + i): (5,) * 5 for i in range(n)}
    blocks = (Block(type="text", text="Once"), Block(type="image", path="p.png", dense_prompt="secret dense prompt"))
    return [run(tmp_path, name=name, scores=scores, documents=[document(one, *blocks, system=name) for one in scores]) for name in ("ours-v7", "rival-x")]


def test_the_vote_page_is_blind(tmp_path):
    page, key = write_vote(*voters(tmp_path), tmp_path / "v", seed=1)
    text = page.read_text(encoding="utf-8")
    assert "ours-v7" not in text and "rival-x" not in text and "dense" not in text and "5.0" not in text
    lefts = {item["left"] for item in json.loads(key.read_text(encoding="utf-8"))["pairs"]}
    assert lefts == {"ours-v7", "rival-x"}, "sides are drawn anew for each pair"
    assert text.count("<article") == 6 and text.count("<img") == 12


def test_the_order_is_another_one_every_time_unless_a_seed_is_given(tmp_path):
    runs = voters(tmp_path, 20)
    keys = [write_vote(*runs, tmp_path / name, seed=seed)[1].read_text(encoding="utf-8") for name, seed in (("1", None), ("2", None), ("3", 4), ("4", 4))]
    assert keys[0] != keys[1] and keys[2] == keys[3]


def test_votes_are_unblinded_by_the_key(tmp_path):
    """By hand: 3 for ours, 1 for the rival, 1 equal, 1 open: share (3 + 0.5) / 5 = 0.7; sign test of 3:1 is 2 * (1 + 4) / 16 = 0.625."""
    _, key = write_vote(*voters(tmp_path), tmp_path / "v", seed=1)
    secret = json.loads(key.read_text(encoding="utf-8"))
    wanted = ["ours-v7", "ours-v7", "ours-v7", "rival-x", None]
    votes = {item["pair"]: "equal" if want is None else "left" if item["left"] == want else "right"
             for item, want in zip(secret["pairs"], wanted, strict=False)}  # fmt: skip
    path = tmp_path / "votes.json"
    path.write_text(json.dumps({"format": "weaver-votes", "version": 1, "vote": secret["vote"], "votes": votes}), encoding="utf-8")
    result = read_votes(path, key)
    assert result.wins == {"ours-v7": 3, "rival-x": 1} and (result.ties, result.open, result.share, result.p) == (1, 1, 0.7, 0.625)
    assert [(outcome.prompt_id, outcome.winner) for outcome in result.outcomes] == [
        (item["prompt"], want) for item, want in zip(secret["pairs"], wanted, strict=False)
    ]


@pytest.mark.parametrize("change", [
    {"vote": "another page"}, {"votes": {"99": "left"}}, {"votes": {"1": "ours-v7"}}, {"votes": ["left"]}, {"version": 2}, {"votes": {"1": ["left"]}},
])  # fmt: skip
def test_a_foreign_votes_file_is_refused(tmp_path, change):
    _, key = write_vote(*voters(tmp_path), tmp_path / "v", seed=1)
    good = {"format": "weaver-votes", "version": 1, "vote": json.loads(key.read_text(encoding="utf-8"))["vote"], "votes": {"1": "left"}}
    (tmp_path / "votes.json").write_text(json.dumps(good | change), encoding="utf-8")
    with pytest.raises(InputError):
        read_votes(tmp_path / "votes.json", key)


def test_only_prompts_that_both_answered_are_voted_on(tmp_path):
    ours, rival = voters(tmp_path)
    page, _ = write_vote(ours, dataclasses.replace(rival, documents=rival.documents[:2]), tmp_path / "v")
    assert page.read_text(encoding="utf-8").count("<article") == 2
    with pytest.raises(InputError, match="no prompt in common"):
        write_vote(ours, dataclasses.replace(rival, documents=()), tmp_path / "v")


def test_hostile_text_on_the_vote_page_stays_text(tmp_path):
    page, _ = write_vote(hostile_run(tmp_path), dataclasses.replace(hostile_run(tmp_path), name="b"), tmp_path / "v")
    text = page.read_text(encoding="utf-8")
    assert_harmless(text, scripts=1)
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)[1]
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in text


@pytest.mark.parametrize("a, b, p", [(0, 0, None), (1, 0, 1.0), (5, 0, 0.0625), (3, 3, 1.0), (10, 2, 0.03857421875)])
def test_the_sign_test_is_exact(a, b, p):
    assert sign_test(a, b) == sign_test(b, a) == p


# ---- speed and weight


@pytest.mark.clock
def test_512_prompts_of_4_images_are_reported_in_time(tmp_path):
    """CPU time, for the machine may be busy; two systems, five dimensions, three metrics with values for images."""
    for n in range(8):
        picture(tmp_path / f"{n}.png", (n * 30, 90, 120), size=(512, 512))
    prompts = tuple(prompt(f"p{n}", category=f"c{n % 14}") for n in range(512))

    def one(name, base):
        blocks = [Block(type=kind, text="words", path=f"{n % 8}.png") for n in range(4) for kind in ("text", "image")]
        return ReportInput(
            name=name, folder=tmp_path, prompts=prompts,
            documents=tuple(document(p.id, *blocks, system=name) for p in prompts),
            judge_records=tuple(record for n, p in enumerate(prompts) for record in judged(p.id, [(base + n * k) % 11 for k in (1, 2, 3, 5, 7)], system=name)),
            metric_records=tuple(MetricRecord(prompt_id=p.id, system=name, metric=m, value=n % 7 / 7, by_image=(0.9, 0.8, n % 5 / 5, 0.6), flags=("grid:1",) * (n % 50 == 0))
                                 for n, p in enumerate(prompts) for m in ("m1", "m2", "m3")),
        )  # fmt: skip

    runs = [one("ours", 5), one("other", 3)]
    started = time.process_time()
    files = write_report(runs, tmp_path / "r")
    taken_s = time.process_time() - started
    assert taken_s < 10, f"{taken_s:.1f} s"
    assert files.html.stat().st_size < 5_000_000


def test_importing_the_report_and_the_importers_loads_nothing_heavy():
    code = ("import weaver_core.evaluation.report, weaver_core.evaluation.report.vote, weaver_core.evaluation.opening_profile, "
            "weaver_core.evaluation.importers.isg, weaver_core.evaluation.importers.mmrb2, weaver_core.evaluation.importers.store, sys; "
            "print(' '.join({name.split('.')[0] for name in sys.modules}))")  # fmt: skip
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"torch", "transformers", "diffusers", "numpy", "scipy", "jinja2", "matplotlib"}
