"""OpenING's criteria as a judge of ours, its summary and its battles; arithmetic against numbers by hand."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opening_benchmark import benchmark_in, picture
from PIL import Image

from weaver_core.errors import InputError
from weaver_core.evaluation import opening_profile as profile
from weaver_core.evaluation.importers import opening
from weaver_core.evaluation.importers.store import store_run
from weaver_core.evaluation.judge import JudgeError, judge_run
from weaver_core.evaluation.judge.client import ChatClient
from weaver_core.evaluation.judge.prices import Price
from weaver_core.evaluation.records import Block, Document, JudgeRecord


@pytest.fixture
def benchmark(tmp_path):
    return benchmark_in(tmp_path)


# ---- OpenING: the judge's message


def pixels(part):
    return Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))))


def test_the_judge_sees_the_row_and_the_document_in_order(benchmark, tmp_path):
    prompts, _ = opening.read_prompts(benchmark, step_hint="must_exact")
    picture(tmp_path / "a.png", (255, 0, 0, 0), size=(300, 10), mode="RGBA")
    document = Document(prompt_id="0101007", system="ours", seed=0, blocks=(
        Block(type="text", text="They row."), Block(type="image", path="a.png"), Block(type="text", text="Home."),
    ))  # fmt: skip
    messages, count = profile.judge_messages(prompts[0], document, benchmark, tmp_path)
    content = messages[1]["content"]
    assert [part.get("text", "picture") for part in content] == [
        "INPUT: Tell it well.  A hen in a boat  <IMG_0></IMG_0>", "picture", "and a goat  <IMG_1></IMG_1>", "picture",
        "\nOUTPUT: They row. <IMG_2></IMG_2>", "picture", "Home.", profile.CLOSING,
    ]  # fmt: skip
    assert count == 3 and [message["role"] for message in messages] == ["system", "user"]
    shown = [pixels(part) for part in content if part["type"] == "image_url"]
    assert [(image.format, image.size) for image in shown] == [("JPEG", (512, 512))] * 3
    assert shown[2].getpixel((250, 250)) == (255, 255, 255), "a transparent picture is shown on white, not dropped"


def test_no_output_is_said_to_the_judge(benchmark):
    prompts, _ = opening.read_prompts(benchmark)
    messages, count = profile.judge_messages(prompts[1], None, benchmark, benchmark)
    assert [part["text"] for part in messages[1]["content"]] == ["INPUT:  How do I bake flat bread?", "\nOUTPUT: None", profile.CLOSING]
    assert count == 0


def test_the_criteria_stand_in_the_original_s_order_everywhere():
    names = ("Correctness", "Image-Text Coherency", "Multi-step Consistency", "Content Quality", "Human Preference Alignment",
             "Completeness", "Content Richness")  # fmt: skip
    assert profile.CRITERIA == names and list(profile.SCHEMA["properties"]) == list(names) and profile.SCHEMA["required"] == list(names)
    assert [profile.SYSTEM.index(f"\n{number}. {name}:") > 0 for number, name in enumerate(names, 1)] == [True] * 7


# ---- OpenING: answers and the summary


def answer(*scores):
    return {name: {"Score": score, "Justification": f"{name}!"} for name, score in zip(profile.CRITERIA, scores, strict=True)}


@pytest.mark.parametrize("shape", [
    lambda a: a,
    lambda a: {"scores": a},
    lambda a: json.dumps(a),
    lambda a: f"Sure:\n```json\n{json.dumps({'scores': a})}\n```",
], ids=["plain", "wrapped", "text", "fenced"])  # fmt: skip
def test_scores_are_read_from_every_shape(shape):
    scores, wrong = profile.read_scores(shape(answer(1, 2, 3, 4, 5, 6, 7)))
    assert [score for score, _ in scores.values()] == [1, 2, 3, 4, 5, 6, 7] and wrong == ""
    assert scores["Completeness"][1] == "Completeness!"


@pytest.mark.parametrize("bad", [None, 11, -1, 7.5, True, "8", [8]])
def test_what_is_no_whole_number_from_0_to_10_is_no_score(bad):
    scores, wrong = profile.read_scores(answer(1, 2, 3, bad, 5, 6, 7))
    assert scores["Content Quality"][0] is None and wrong == "no whole number from 0 to 10 for Content Quality"


@pytest.mark.parametrize("nothing", [False, None, "", "I cannot judge this.", "{broken", []])
def test_an_answer_without_an_object_has_no_scores(nothing):
    scores, wrong = profile.read_scores(nothing)
    assert {score for score, _ in scores.values()} == {None} and "no JSON object" in wrong


def records(system, prompt_id, scores, rep=0, status="ok"):
    return [
        JudgeRecord(key="", prompt_id=prompt_id, system=system, rep=rep, dim=name, score=score, status=status)
        for name, score in zip(profile.CRITERIA, scores, strict=True)
    ]  # fmt: skip


def test_the_summary_is_the_mean_of_rounded_means():
    """By hand: means 7.67 (23/3), 6.33 (19/3), 5.00, 4.67 (14/3), 8.33 (25/3), 9.00, 3.33 (10/3); their mean 44.33/7 = 6.3329."""
    given = [(8, 6, 5, 4, 8, 9, 3), (8, 6, 5, 5, 8, 9, 3), (7, 7, 5, 5, 9, 9, 4)]
    judged = [record for number, scores in enumerate(given) for record in records("m", f"p{number}", scores)]
    summary = profile.summarise(judged, ["p0", "p1", "p2"])
    assert list(summary.criteria.values()) == [7.67, 6.33, 5.0, 4.67, 8.33, 9.0, 3.33]
    assert summary.overall == 6.33 and summary.with_missing == 6.33


def test_rounding_comes_before_the_mean():
    """By hand: six criteria with mean 10/3 -> 3.33, one with 11/3 -> 3.67: (6 * 3.33 + 3.67) / 7 = 3.37857 -> 3.38; unrounded 71/21 = 3.38095.
    With eight outputs: six of 5/8 = 0.625 -> 0.62 (half to even), one of 1: (3.72 + 1) / 7 = 0.67; unrounded (3.75 + 1) / 7 = 0.68."""
    given = [(1, 1, 1, 1, 1, 1, 1)] * 5 + [(0, 0, 0, 0, 0, 0, 1)] * 3
    judged = [record for number, scores in enumerate(given) for record in records("m", f"p{number}", scores)]
    summary = profile.summarise(judged, [f"p{n}" for n in range(8)])
    assert summary.criteria["Correctness"] == 0.62 and summary.overall == 0.67


def test_missing_and_failed_outputs_are_visible_beside():
    """By hand: two of four outputs score 8 throughout: 8.00 there, 16/4 = 4.00 with the others as 0."""
    judged = records("m", "a", [8] * 7) + records("m", "b", [8] * 7) + records("m", "c", [8] * 6 + [None], status="ok")
    summary = profile.summarise(judged, ["a", "b", "c", "d"])
    assert (summary.overall, summary.with_missing) == (8.0, 4.0)
    assert (summary.expected, summary.scored, summary.failed, summary.missing) == (4, 2, 1, 1)


def test_an_output_judged_twice_counts_twice():
    judged = records("m", "a", [9] * 7) + records("m", "a", [9] * 7, rep=1) + records("m", "b", [3] * 7)
    assert profile.summarise(judged, ["a", "b"]).overall == 7.0


def test_systems_are_never_merged():
    with pytest.raises(InputError, match="several systems"):
        profile.summarise(records("m", "a", [9] * 7) + records("n", "a", [1] * 7), ["a"])


def test_nothing_scored_is_no_number():
    assert profile.summarise([], ["a"]).overall is None and profile.summarise([], ["a"]).with_missing == 0.0


def test_results_files_are_read_with_their_faults(tmp_path):
    path = tmp_path / "results.json"
    items = [
        {"data_id": "0101007", "model": {"id": "1", "name": "SEED-X"}, "score": answer(1, 2, 3, 4, 5, 6, 7)},
        {"data_id": "0101007", "model": {"id": "1", "name": "SEED-X"}, "score": {"scores": answer(3, 2, 3, 4, 5, 6, 7)}},
        {"data_id": "2001012", "model": {"name": "SEED-X"}, "score": False},
        {"data_id": "2001012", "model": {"id": "9"}, "score": answer(9, 9, 9, 9, 9, 9, 9)},
    ]
    path.write_text(json.dumps(items), encoding="utf-8")
    found = profile.read_results(path)
    assert list(found) == ["SEED-X", "9"]
    summary = profile.summarise(found["SEED-X"], ["0101007", "2001012"])
    assert summary.criteria["Correctness"] == 2.0 and (summary.scored, summary.failed) == (1, 1)
    assert {record.status for record in found["SEED-X"] if record.prompt_id == "2001012"} == {"error"}
    assert json.loads(path.read_text(encoding="utf-8")) == items, "the file is only read"
    path.write_text(json.dumps([items[0] | {"model": {}}]), encoding="utf-8")
    with pytest.raises(InputError, match="names no model"):
        profile.read_results(path)


@pytest.fixture
def server():
    """A server on the loopback that answers chat requests with `said`: (status, JSON body, seconds to wait)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, body, wait_s = self.server.said
            time.sleep(wait_s)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    loopback = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    loopback.asked = []
    threading.Thread(target=loopback.serve_forever, args=(0.02,), daemon=True).start()
    yield loopback
    loopback.shutdown()
    loopback.server_close()


def chat(text, **more):
    return {"choices": [{"message": {"content": text} | more, "finish_reason": "stop"}], "usage": {"prompt_tokens": 90}}


def opening_judge(server, **more):
    client = ChatClient(f"http://127.0.0.1:{server.server_port}", "m", temperature=None, attempts=1, timeout_s=0.5)
    return profile.OpeningJudge(client, **more)


@pytest.fixture
def run(benchmark, tmp_path):
    """A run with one answer to three prompts."""
    prompts, _ = opening.read_prompts(benchmark)
    document = Document(prompt_id="2001012", system="ours", seed=0, blocks=(Block(type="text", text="Knead."),))
    return store_run(tmp_path / "run", prompts, [document], system="ours", dataset="opening/all", prompt_folder=benchmark,
                     document_folder=benchmark)  # fmt: skip


def test_the_profile_judges_a_run_like_any_judge(run, server):
    server.said = (200, chat(json.dumps(answer(8, 8, 8, 8, 8, 8, None))), 0)
    judge = opening_judge(server, price=Price(input_per_million=1e6))
    scored = judge_run(run, judge, dims=profile.CRITERIA)
    assert len(server.asked) == 1 and "temperature" not in server.asked[0]
    assert server.asked[0]["response_format"]["json_schema"]["schema"] == profile.SCHEMA
    assert server.asked[0]["messages"][1]["content"][1]["text"] == "\nOUTPUT: Knead."
    assert Counter(record.status for record in scored) == {"missing_output": 14, "ok": 6, "parse_error": 1}
    assert [record.usd for record in scored if record.usd is not None] == [90.0], "a call's cost stands once"
    assert run.manifest.judges["m joint t=default squash512 opening@" + profile.RUBRIC_SHA256[:8]]["images"] == "squash512"
    summary = profile.summarise(scored, list(run.prompts))
    assert (summary.scored, summary.failed, summary.missing) == (0, 1, 2)
    assert judge_run(run, judge, dims=profile.CRITERIA) == scored and len(server.asked) == 1


@pytest.mark.parametrize("said, status, reason", [
    ((500, {}, 0), "error", "500"),
    ((200, chat("late"), 1.0), "timeout", ""),
    ((200, chat("", refusal="I will not"), 0), "refused", "I will not"),
    ((200, chat("Fine work!"), 0), "parse_error", "the answer holds no JSON object"),
], ids=["error", "timeout", "refused", "no object"])  # fmt: skip
def test_what_goes_wrong_becomes_a_status(run, server, said, status, reason):
    server.said = said
    records = opening_judge(server).score(run.prompts["2001012"], run.document("2001012"), run.folder)
    assert {(record.status, record.score) for record in records} == {(status, None)}
    assert all(reason in record.rationale for record in records)


def test_a_judge_that_cannot_be_used_stops_the_stage(run, server):
    server.said = (402, {}, 0)
    with pytest.raises(JudgeError, match="no credit"):
        opening_judge(server).score(run.prompts["2001012"], run.document("2001012"), run.folder)


# ---- OpenING: battles


def test_win_rates_by_hand():
    """x against y: wins 2, loses 1, ties leaning to x 1, to y 2; so x: FDT 3/6, without ties 2/3, tie 0 2/6, tie half 3.5/6."""
    winners = ["A", "A", "B", "Tie(A)", "Tie(B)", "Tie(B)"]
    battles = [profile.Battle(f"p{n}", "x", "y", winner) for n, winner in enumerate(winners)]
    rates = profile.win_rates(battles)
    x, y = rates["x"], rates["y"]
    assert (x.battles, x.ties) == (6, 3)
    assert [x.fdt, x.without_ties, x.ties_zero, x.ties_half] == pytest.approx([3 / 6, 2 / 3, 2 / 6, 3.5 / 6])
    assert [y.fdt, y.without_ties, y.ties_zero, y.ties_half] == pytest.approx([3 / 6, 1 / 3, 1 / 6, 2.5 / 6])


def test_a_system_s_place_in_the_pair_does_not_matter():
    battles = [profile.Battle("p", "x", "y", "A"), profile.Battle("p", "y", "x", "B"), profile.Battle("q", "y", "z", "Tie(A)")]
    rates = profile.win_rates(battles)
    assert rates["x"].fdt == 1.0 and rates["y"].fdt == pytest.approx(1 / 3) and rates["z"].without_ties is None
    assert list(profile.win_rates(battles, opponent="x")) == ["y"]


def test_the_same_pair_twice_counts_with_its_last_winner():
    rates = profile.win_rates([profile.Battle("p", "x", "y", "A"), profile.Battle("p", "x", "y", "B")])
    assert rates["y"].fdt == 1.0 and rates["y"].battles == 1


def test_battle_files_are_read(tmp_path):
    path = tmp_path / "battles.json"
    item = {"data_id": "0101007", "model_A": {"id": "3", "name": "gill"}, "model_B": {"id": "1", "name": "SEED-X"}, "winner": "Tie(B)"}
    path.write_text(json.dumps([item]), encoding="utf-8")
    assert profile.read_battles(path) == [profile.Battle("0101007", "gill", "SEED-X", "Tie(B)")]
    path.write_text(json.dumps([item | {"winner": "both"}]), encoding="utf-8")
    with pytest.raises(InputError, match="the winner is one of"):
        profile.read_battles(path)
