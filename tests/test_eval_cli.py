"""`weaver eval ...` from the outside: arguments, exit codes, what is printed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from judge_server import JudgeServer, answer, make_run, status

from weaver_core.errors import WeaverError
from weaver_core.evaluation import cli
from weaver_core.evaluation.backends import Answer
from weaver_core.evaluation.judge import spent_usd
from weaver_core.evaluation.pairwise import verdicts_usd
from weaver_core.evaluation.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("run", "generate", "judge", "metrics", "report", "compare", "pairwise", "gate", "vote", "calibrate", "probe", "correlate", "import", "export",
            "ablate")  # fmt: skip


def parser():
    whole = argparse.ArgumentParser(prog="weaver")
    cli.add_eval_parser(whole.add_subparsers(required=True))
    return whole


@pytest.fixture
def weaver(capsys, monkeypatch, tmp_path):
    """Runs a command as weaver_core.cli does; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    for name in ("WEAVER_JUDGE_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        options = parser().parse_args(["eval", *map(str, arguments)])
        try:
            code = options.run(options)
        except WeaverError as error:
            print(f"weaver: {error}", file=sys.stderr)
            code = cli.ERROR
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def server():
    server = JudgeServer()
    yield server
    server.close()


def judge(server):
    return "--judge-url", server.url, "--judge-model", "eye-1"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["eval", command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and f"example:\n  weaver eval {command} " in out


def test_the_command_line_imports_nothing_heavy():
    script = "import sys, weaver_core.evaluation.cli; print([m for m in ('torch', 'numpy', 'scipy', 'requests', 'tqdm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [["eval"], ["eval", "judge"], ["eval", "run", "--out", "x", "--limit", "0"], ["eval", "run", "--out", "x", "--shard", "3/2"],
     ["eval", "run", "--out", "x", "--set", "prompt"], ["eval", "judge", "--out", "x", "--dims", "PA,XX"], ["eval", "judge", "--out", "x", "--reps", "-1"],
     ["eval", "judge", "--out", "x", "--temperature", "hot"], ["eval", "gate", "--baseline", "a", "--candidate", "b"]],
)  # fmt: skip
def test_wrong_usage_is_refused_by_the_parser(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(arguments)
    assert stop.value.code == cli.USAGE


# ---- one run


def test_a_run_is_judged_and_its_scores_are_printed(weaver, server, tmp_path):
    make_run(tmp_path / "r", 3)
    code, out, err = weaver("judge", "--out", "r", *judge(server))
    assert code == cli.OK and out.startswith("ours: 3 prompts, 0 without an answer; judge: eye-1 split t=0 long768 weaver-style-1@")
    assert "WeaverBench-style: own prompts" in out
    assert [line.split()[0] for line in out.splitlines()[3:]] == ["PA", "NC", "CC", "IC", "CP", "Overall"]
    code, again, _ = weaver("judge", "--out", "r", *judge(server), "--json")
    assert code == cli.OK and [line["name"] for line in json.loads(again)["lines"]][-1] == "Overall" and len(server.requests) == 15


def test_a_dry_run_sends_nothing(weaver, server, tmp_path):
    make_run(tmp_path / "r", 2)
    Path("prices.json").write_text('{"eye-1": {"input_per_million": 1, "output_per_million": 2}}')
    code, out, _ = weaver("judge", "--out", "r", *judge(server), "--dry-run", "--prices", "prices.json", "--mode", "joint")
    assert code == cli.OK and out.startswith("2 documents, 2 calls, 4 images") and "USD" in out and server.requests == []


def test_failed_scores_give_exit_code_3_until_they_are_tried_again(weaver, server, tmp_path):
    make_run(tmp_path / "r", 1)
    server.script = ["I have no opinion"]
    code, _, err = weaver("judge", "--out", "r", *judge(server), "--dims", "PA")
    assert code == cli.INCOMPLETE and "--retry failed tries them again" in err
    assert weaver("judge", "--out", "r", *judge(server), "--dims", "PA")[0] == cli.INCOMPLETE and len(server.requests) == 1
    assert weaver("judge", "--out", "r", *judge(server), "--dims", "PA", "--retry", "failed")[0] == cli.OK and len(server.requests) == 2


def test_the_money_limit_stops_with_exit_code_3_and_what_is_judged_is_kept(weaver, server, tmp_path):
    make_run(tmp_path / "r", 3)
    Path("prices.json").write_text('{"eye-1": {"input_per_million": 10, "output_per_million": 10}}')
    limit = ("--prices", "prices.json", "--max-usd", "0.035", "--workers", "1", "--max-tokens", "500", "--dims", "PA")
    code, _, err = weaver("judge", "--out", "r", *judge(server), *limit)
    assert code == cli.INCOMPLETE and "more than --max-usd 0.035" in err and "has cost 0.0" in err
    assert len(RunFolder.open("r").all_judge_records()) == len(server.requests) == 1


def test_the_opening_rubric_asks_for_its_seven_criteria(weaver, server, tmp_path):
    make_run(tmp_path / "r", 1)
    names = ("Correctness", "Image-Text Coherency", "Multi-step Consistency", "Content Quality", "Human Preference Alignment", "Completeness",
             "Content Richness")  # fmt: skip
    server.answer = lambda body: json.dumps({name: {"Score": 7, "Justification": "ok"} for name in names})
    code, out, _ = weaver("judge", "--out", "r", *judge(server), "--rubric", "opening")
    assert code == cli.OK and {record.dim for record in RunFolder.open("r").judge_records()} == set(names) and "Overall" in out


def test_metrics_and_report_of_a_run_need_no_judge(weaver, tmp_path):
    make_run(tmp_path / "r", 2)
    code, out, _ = weaver("metrics", "--out", "r")
    assert code == cli.OK and "image_count" in out
    code, out, _ = weaver("report", "--out", "r")
    assert code == cli.OK and Path(out.strip()).name == "report.html" and Path(out.strip()).is_file()


def test_documents_of_a_file_are_generated_measured_judged_and_reported_in_one_go(weaver, server, tmp_path):
    old = make_run(tmp_path / "old", 2)
    Path("documents.jsonl").write_text("")
    (old.folder / "documents.jsonl").write_text("".join(json.dumps(document.to_json()) + "\n" for document in old.documents()))
    arguments = ("run", "--out", "r", "--dataset", "old/prompts.jsonl", "--backend", "imported", "--documents", "old/documents.jsonl")
    code, out, err = weaver(*arguments, *judge(server), "--system", "theirs")
    assert code == cli.OK and out.splitlines()[-1].endswith("report.html") and out.startswith("theirs: 2 prompts")
    asked = len(server.requests)
    assert asked == 10 and weaver(*arguments, *judge(server), "--system", "theirs")[0] == cli.OK and len(server.requests) == asked
    code, _, err = weaver(*arguments, "--seed", "9", "--system", "theirs")
    assert code == cli.ERROR and "holds a run with seed 0, now it is 9" in err


def test_answers_that_fail_give_exit_code_3(weaver, tmp_path):
    old = make_run(tmp_path / "old", 2)
    (old.folder / "documents.jsonl").write_text(json.dumps(old.document("p0").to_json()) + "\n")
    code, out, err = weaver("generate", "--out", "r", "--dataset", "old/prompts.jsonl", "--backend", "imported", "--documents", "old/documents.jsonl")
    assert code == cli.INCOMPLETE and "2 of 2 prompts answered, 1 failed" in out and "holds no answer to p1" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["judge", "--out", "nowhere", "--judge-url", "http://h", "--judge-model", "m"], "holds no run"),
        (["judge", "--out", "r"], "give a judge: --judge-url and --judge-model"),
        (["judge", "--out", "r", "--judge-url", "http://h"], "needs both --judge-url and --judge-model"),
        (["judge", "--out", "r", "--judge-url", "ftp://h", "--judge-model", "m"], "is no address of a server"),
        (["judge", "--out", "r", "--judge-url", "http://h", "--judge-model", "m", "--max-usd", "1"], "needs the price of m; give a file with --prices"),
        (["judge", "--out", "r", "--judge-url", "http://h", "--judge-model", "m", "--ids", "zz"], "has no prompt 'zz'"),
        (["run", "--out", "new", "--judge-url", "http://me:secret@h", "--judge-model", "m"], "holds a name, password or query"),
        (["generate", "--out", "r", "--backend", "comfy"], "--backend comfy needs --workflow"),
        (["generate", "--out", "r", "--backend", "openai", "--api-url", "http://h"], "--backend openai needs --chat-model"),
        (["report", "--out", "nowhere"], "holds no run"),
        (["compare", "r", "r2"], "have no scores of the same prompts"),
        (["import", "--format", "opening", "--out", "x"], "needs --root"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(weaver, tmp_path, arguments, said):
    make_run(tmp_path / "r", 1)
    make_run(tmp_path / "r2", 1)
    code, out, err = weaver(*arguments)
    assert code == cli.ERROR and said in err and err.count("\n") == 1 and "secret" not in err and not Path("new").exists()


def test_a_judge_that_refuses_the_key_is_one_line(weaver, server, tmp_path):
    make_run(tmp_path / "r", 3)
    server.script = [status(401, {"error": {"message": "bad key"}})] * 9
    code, _, err = weaver("judge", "--out", "r", *judge(server))
    assert code == cli.ERROR and "does not accept the key; set WEAVER_JUDGE_API_KEY" in err


# ---- two runs


def test_compare_pairwise_and_gate_speak_of_the_same_two_runs(weaver, server, tmp_path):
    make_run(tmp_path / "a", 4, system="a")
    worse = make_run(tmp_path / "b", 4, system="b")
    for number in range(4):
        worse.keep(f"p{number}", answer(number, images=1) if number else Answer(finish="error", error="x"), 0)

    def score(body):
        text = json.dumps(body["messages"])
        if "ANSWER A" in text:
            return json.dumps({"rationale": "", "winner": "A" if text.count("of answer A]") > text.count("of answer B]") else "B"})
        return json.dumps({"rationale": "", "score": 8 if text.count("image/jpeg") > 1 or "has 2 images" in text else 5})

    server.answer = score
    for run in "ab":
        assert weaver("judge", "--out", run, *judge(server))[0] == cli.OK
    code, out, _ = weaver("compare", "a", "b", "--json")
    lines = {line["name"]: line for line in json.loads(out)["judged"]}
    assert code == cli.OK and lines["PA"]["a"] == 8 and lines["PA"]["b"] == pytest.approx(15 / 4) and lines["IC"]["difference"]["n"] == 1
    assert "b against a (judged, missing answers as 0)" in weaver("compare", "a", "b")[1]
    code, out, _ = weaver("gate", "--baseline", "a", "--candidate", "b", "--max-drop", "0.5", "--on", "Overall,PA")
    assert code == cli.GATE_FAILED and out.count("not passed:") == 2
    code, out, _ = weaver("gate", "--baseline", "b", "--candidate", "a", "--max-drop", "0.5")
    assert code == cli.OK and out.startswith("passed: Overall +")
    code, out, _ = weaver("pairwise", "a", "b", *judge(server), "--json")
    assert code == cli.OK and (json.loads(out)["losses"], json.loads(out)["consistent"]) == (4, 1.0)


def test_a_comparison_pays_for_itself_and_not_for_the_judging_of_a_run(weaver, server, tmp_path):
    for number, name in enumerate("ab", 1):
        make_run(tmp_path / name, 1, images=number, system=name)
    Path("prices.json").write_text('{"eye-1": {"input_per_million": 10, "output_per_million": 10}}')
    limit = "--prices", "prices.json", "--max-usd"
    assert weaver("judge", "--out", "b", *judge(server), *limit, 9)[0] == cli.OK
    assert spent_usd(RunFolder.open("b").all_judge_records()) == pytest.approx(5 * 0.011)
    server.script = ["no idea", '{"winner": "A"}', '{"winner": "A"}']
    assert weaver("pairwise", "a", "b", *judge(server), *limit, 0.065)[0] == cli.INCOMPLETE
    assert verdicts_usd(Path("b/pairwise-a.jsonl")) == pytest.approx(2 * 0.011)
    code, _, err = weaver("pairwise", "a", "b", *judge(server), *limit, 0.065, "--retry", "failed")
    assert code == cli.ERROR and "0.0220 USD are spent" in err
    assert weaver("pairwise", "a", "b", *judge(server), *limit, 0.09, "--retry", "failed")[0] == cli.OK
    assert verdicts_usd(Path("b/pairwise-a.jsonl")) == pytest.approx(3 * 0.011), "the failed one was paid for too"
    assert weaver("pairwise", "a", "b", *judge(server), *limit, 0.09, "--to", "again.jsonl")[0] == cli.OK
    assert verdicts_usd(Path("again.jsonl")) == 0, "replies of the cache cost nothing"


def test_runs_that_cannot_be_compared_are_refused_and_marked_when_forced(weaver, server, tmp_path):
    make_run(tmp_path / "a", 2, system="a")
    make_run(tmp_path / "b", 2, system="b")
    assert weaver("judge", "--out", "a", *judge(server))[0] == weaver("judge", "--out", "b", *judge(server), "--mode", "joint")[0] == cli.OK
    code, _, err = weaver("compare", "a", "b")
    assert code == cli.ERROR and "the judging mode differs: split against joint" in err and "--force" in err
    assert weaver("gate", "--baseline", "a", "--candidate", "b", "--max-drop", "1")[0] == cli.ERROR
    code, out, _ = weaver("compare", "a", "b", "--force")
    assert code == cli.OK and out.startswith("NOT COMPARABLE (forced): the judging mode differs")


def test_people_can_choose_between_two_runs_and_their_votes_are_counted(weaver, tmp_path):
    make_run(tmp_path / "a", 2, system="a")
    make_run(tmp_path / "b", 2, system="b")
    code, out, err = weaver("vote", "a", "b", "--to", "vote")
    key = json.loads(Path("vote/vote-key.json").read_text())
    assert code == cli.OK and Path(out.strip()).is_file() and "keep vote/vote-key.json to yourself" in err
    votes = {pair["pair"]: "left" if pair["left"] == "b" else "right" for pair in key["pairs"]}
    Path("votes.json").write_text(json.dumps({"format": "weaver-votes", "version": 1, "vote": key["vote"], "votes": votes}))
    code, out, _ = weaver("vote", "a", "b", "--to", "vote", "--votes", "votes.json")
    assert code == cli.OK and out.startswith("a 0, b 2, equal 0, not voted 0")


# ---- other benchmarks


def test_only_prompts_of_a_benchmark_are_exported_in_its_layout(weaver, tmp_path):
    make_run(tmp_path / "r", 2)
    code, _, err = weaver("export", "--format", "isg", "--out", "r", "--to", "exported")
    assert code == cli.ERROR and "does not come from ISG-Bench" in err


def test_opening_goes_in_and_comes_out_again(weaver, tmp_path):
    images = tmp_path / "bench" / "images" / "x"
    images.mkdir(parents=True)
    outputs = tmp_path / "M_output"
    outputs.mkdir()
    for path in (images / "1-o-1.jpg", outputs / "0101001-o-0.jpg"):
        Image.new("RGB", (32, 32), "red").save(path)
    steps = [{"input": [{"text": "<BEGIN> Draw a fox.", "image": None}]}, {"output": [{"text": "A fox. <image>", "image": "./images/x/1-o-1.jpg"}]}]
    row = {"total_uid": "0101001", "meta_task_id": "1", "meta_task_name": "m", "subtask_id": "1", "subtask_name": "s", "data_id": "1", "conversations": steps}
    (tmp_path / "bench" / "test_data.jsonl").write_text(json.dumps(row) + "\n")
    answered = row | {"conversations": [steps[0], {"output": [{"text": "Here.", "image": "0101001-o-0.jpg"}]}]}
    (outputs / "0101001.json").write_text(json.dumps(answered))
    code, out, err = weaver("import", "--format", "opening", "--root", "bench", "--outputs", "M_output", "--system", "M", "--out", "r")
    assert code == cli.OK and out.startswith("1 of 1 prompts have an answer"), err
    code, out, err = weaver("export", "--format", "opening", "--out", "r", "--to", "exported")
    assert code == cli.OK and json.loads((Path(out.strip()) / "0101001.json").read_text())["conversations"][1]["output"][0]["text"] == "Here."


def test_a_judge_is_calibrated_on_pairs_in_both_orders(weaver, server, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    pairs = [{"id": str(n), "prompt_content": [["text", "Draw red."]], "response_a": {"model_name": "x", "response_content": [["image", "red.png"]]},
              "response_b": {"model_name": "y", "response_content": [["text", "no"]]}, "chosen": "A"} for n in range(3)]  # fmt: skip
    Path("pairs.json").write_text(json.dumps({"pairs": pairs}))
    server.answer = lambda body: '{"rationale": "", "winner": "A"}'
    code, out, err = weaver("calibrate", "--pairs", "pairs.json", *judge(server), "--json")
    found = json.loads(out)
    assert code == cli.OK and (found["accuracy"], found["consistency"], found["first_share"], found["num_pairs"]) == (0.5, 0.0, 1.0, 3)
    assert found["warning"] and len(server.requests) == 2, "equal questions are asked once"


def test_metrics_are_probed_with_damaged_documents(weaver, tmp_path):
    make_run(tmp_path / "r", 4, images=3)
    code, out, err = weaver("probe", "--out", "r", "--limit", "3")
    assert code in (cli.OK, cli.GATE_FAILED) and "# Probe" in out and (tmp_path / "r" / "probe" / "probe.json").is_file(), err


def test_documents_with_prompts_are_imported_as_a_run(weaver, tmp_path):
    old = make_run(tmp_path / "old", 2)
    (old.folder / "documents.jsonl").write_text("".join(json.dumps(document.to_json()) + "\n" for document in old.documents()))
    code, out, _ = weaver("import", "--format", "documents", "--root", "old/prompts.jsonl", "--outputs", "old/documents.jsonl", "--out", "r")
    assert code == cli.OK and out.startswith("2 of 2 prompts have an answer") and RunFolder.open("r").system == "documents"


