"""The study of the paper's findings: arms that are trained once and resumed, intervals and verdicts, and a report from what is stored."""

import json
import math
import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from training import findings
from training.stages.planner import DataSettings, PlannerData
from training.studies import page
from training.studies.design import ARMS, FINDINGS, SPECIES, arms_of
from training.studies.numbers import Claim, Verdict, judge, paired_difference, roughness, student_interval
from training.studies.runner import Study
from weaver_core.evaluation.statistics import Interval

TRAINING = Path(findings.__file__).parent
TINY = ["data.tokenizer_stories=40", "data.batch_tokens=256", "checks.stories=2", "checks.questions=2", "checks.loss_records=2",
        "checks.max_new_tokens=3", "train.log_every=1"]
SCALE = 0.004


def command(folder: Path, *options: str) -> list[str]:
    changes = [part for change in TINY for part in ("--set", change)]
    return ["--only", "planner_ratio", "--scale", str(SCALE), "--seeds", "2", "--out", str(folder / "runs"), "--to", str(folder), *changes, *options]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the smallest study of one finding was run."""
    folder = tmp_path_factory.mktemp("findings")
    assert findings.main(command(folder)) == 0
    return folder


# ---- a whole small study


def test_a_study_trains_its_arms_and_writes_numbers_page_and_plot(finished):
    record = json.loads((finished / "findings.json").read_text(encoding="utf-8"))["planner_ratio"]
    assert record["seeds"] == [0, 1] and len(record["interval"]) == 2 and record["reproduced"] in (True, False)
    assert record["values"].keys() == {f"planner_ratio/{ratio}g1u" for ratio in (0, 1, 3, 5)}
    assert all(len(values) == 2 and all(map(math.isfinite, values)) for arm in record["values"].values() for values in arm.values())
    text = (finished / "FINDINGS.md").read_text(encoding="utf-8")
    assert "| 5g1u |" in text and "![Generation data for the planner](findings_plots/planner_ratio.svg)" in text
    assert ElementTree.parse(finished / "findings_plots" / "planner_ratio.svg").getroot().tag.endswith("svg")


def test_all_arms_start_from_one_base_and_take_equally_many_steps(finished):
    runs = finished / "runs"
    configs = [json.loads((runs / "planner_ratio" / f"{ratio}g1u" / f"seed-{seed}" / "config.json").read_text(encoding="utf-8"))
               for ratio in (0, 1, 3, 5) for seed in (0, 1)]
    assert {config["settings"]["init"] for config in configs} == {str(runs / "base" / "understanding" / "seed-0" / "export")}
    assert len({config["train"]["steps"] for config in configs}) == 1 and {config["train"]["seed"] for config in configs} == {0, 1}
    assert {config["settings"]["data"]["generation_ratio"] for config in configs} == {0.0, 1.0, 3.0, 5.0}


def test_a_finished_arm_is_never_trained_again(finished, monkeypatch):
    def refuse(arguments):
        raise AssertionError(f"trained again: {arguments}")

    monkeypatch.setattr("training.train.main", refuse)
    assert findings.main(command(finished)) == 0


def test_an_arm_whose_result_is_missing_goes_on_from_its_checkpoint(finished, monkeypatch):
    from training import train

    result = finished / "runs" / "planner_ratio" / "3g1u" / "seed-1.result.json"
    before = json.loads(result.read_text(encoding="utf-8"))
    result.unlink()
    trained, main = [], train.main
    monkeypatch.setattr(train, "main", lambda arguments: trained.append(arguments) or main(arguments))
    assert findings.main(command(finished)) == 0
    after = json.loads(result.read_text(encoding="utf-8"))
    assert [arguments[2] for arguments in trained] == [str(finished / "runs" / "planner_ratio" / "3g1u" / "seed-1")]
    assert after["numbers"] == before["numbers"] and after["curve"] == before["curve"]
    assert not list(result.parent.glob("*.old-*"))


def test_a_changed_config_sets_the_old_run_aside(tmp_path):
    arm, study = ARMS["planner_ratio/5g1u"], Study(out=tmp_path)
    study.folder(arm, 0).mkdir(parents=True)
    study._begin(arm, 0, "old")
    study._begin(arm, 0, "old")
    assert (tmp_path / "planner_ratio" / "5g1u" / "seed-0.old-1").is_dir()  # it had no key at first
    study.folder(arm, 0).mkdir()
    study._begin(arm, 0, "old")
    assert study.folder(arm, 0).is_dir()
    study._begin(arm, 0, "new")
    assert (tmp_path / "planner_ratio" / "5g1u" / "seed-0.old-2").is_dir() and not study.folder(arm, 0).exists()


def test_training_that_is_stopped_stops_the_study_with_its_exit_code(tmp_path, monkeypatch):
    monkeypatch.setattr("training.train.main", lambda arguments: 130)
    assert findings.main(command(tmp_path)) == 130
    assert not list(tmp_path.rglob("*.result.json"))


# ---- options


def test_a_dry_run_tells_arms_steps_and_minutes_and_trains_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.train.main", lambda arguments: pytest.fail("trained"))
    assert findings.main(["--dry-run", "--scale", "0.5", "--seeds", "4", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ARMS)
    steps = next(line.split()[2] for line in told.splitlines() if line.startswith("base/twin"))
    assert int(steps) == ARMS["base/twin"].steps / 2 and "minutes in all" in told and not list(tmp_path.iterdir())


def test_a_report_without_results_says_what_to_do(tmp_path, caplog):
    assert findings.main(["--report", "--out", str(tmp_path), "--to", str(tmp_path)]) == 2
    assert "run without --report first" in caplog.text


@pytest.mark.parametrize("option", [["--scale", "0"], ["--seeds", "0"], ["--only", "nothing"]])
def test_options_that_make_no_sense_are_refused(option):
    with pytest.raises(SystemExit):
        findings.main(option)


def test_a_change_reaches_every_arm_that_has_its_key_and_no_other():
    study = Study(out=Path("runs"), changes=("optimizer.lr=1e-5", "flow_weight=0.5", "flow.figure_weight=2.0", "stories.references=0.5",
                                             "data.aspects.4:3=1.0", "data.batch_tokens=64"))
    reached = {arm: [key.partition("=")[0] for key in study._changes(ARMS[arm], 0)] for arm in ARMS}
    for key, configs in (("optimizer.lr", {"planner", "visualizer", "dpcw", "joint"}), ("flow_weight", {"joint"}), ("stories.references", {"joint"}),
                         ("flow.figure_weight", {"visualizer", "dpcw", "joint"}), ("data.aspects.4:3", {"visualizer", "dpcw", "joint"}),
                         ("data.batch_tokens", {"planner"})):
        assert {ARMS[arm].config for arm, keys in reached.items() if key in keys} == configs, key
    study.check_changes(ARMS.values())


@pytest.mark.parametrize(("change", "key"), [("data.batch_tokns=64", "data.batch_tokns"), ("sample.count=2", "sample.count"), ("nonsense", "nonsense"),
                                             ("data.batch_tokens.more=1", "data.batch_tokens.more")])
def test_a_change_that_no_arm_has_a_key_for_is_refused(tmp_path, caplog, change, key):
    assert findings.main(["--only", "planner_ratio", "--dry-run", "--out", str(tmp_path), "--set", change]) == 2
    assert f"--set {change}: none of the 5 arms has the key {key};" in caplog.text


def test_configs_of_arms_are_called_by_their_stages():
    from training.config import load_config
    from training.studies.runner import CONFIGS

    assert {path.stem: load_config(path).stage for path in CONFIGS.glob("*.toml")} == {path.stem: path.stem for path in CONFIGS.glob("*.toml")}


def test_every_arm_comes_after_what_it_needs_and_bases_first():
    order = [arm.name for arm in arms_of(list(FINDINGS))]
    assert set(order) == set(ARMS) and all(order.index(need) < order.index(name) for name in order for need in ARMS[name].needs if need != name)
    assert [name for name in order if ARMS[name].is_base] == order[:3]


def test_every_config_of_an_arm_is_valid(tmp_path):
    study = Study(out=tmp_path)
    assert len({study.key(arm, seed) for arm in ARMS.values() if not arm.is_base for seed in (0, 1)}) == 2 * sum(not a.is_base for a in ARMS.values())


def test_a_study_that_is_moved_keeps_its_results():
    arm = ARMS["stories/joint"]
    assert Study(out=Path("here")).key(arm, 0) == Study(out=Path("runs/there")).key(arm, 0) != Study(out=Path("here"), scale=2.0).key(arm, 0)


# ---- statistics


def test_student_interval_by_hand():
    found = student_interval([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.30265, s = 1
    assert found.mean == 2 and found.n == 3
    assert found.high - 2 == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5) == 2 - found.low
    alone = student_interval([5.0])
    assert alone.mean == 5 and math.isnan(alone.low) and student_interval([2.0, 2.0]).low == 2
    for values in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="finite values"):
            student_interval(values)


def test_differences_are_paired_by_seed():
    found = paired_difference([1.1, 2.1, 3.1], [1.0, 2.0, 3.0])  # far apart between seeds, alike within
    assert found.mean == pytest.approx(0.1) and found.high - found.low < 1e-9
    with pytest.raises(ValueError, match="same seeds"):
        paired_difference([1.0], [1.0, 2.0])


def test_roughness_is_of_the_noise_and_not_of_the_fall():
    assert roughness([3.0, 2.0, 3.0, 2.0]) == pytest.approx(math.sqrt(1 / 2)) and roughness([1.0]) == 0
    falling = [1 - 0.01 * step for step in range(50)]
    assert roughness(falling) == pytest.approx(0.01 / math.sqrt(2)) and roughness([x + 0.2 * (-1) ** i for i, x in enumerate(falling)]) > 0.2


@pytest.mark.parametrize("interval, word", [((0.1, 0.3), "reproduced"), ((-0.1, 0.3), "undecided"), ((-0.3, -0.1), "contradicted")])
def test_a_claim_is_decided_by_its_whole_interval(interval, word):
    claim = Claim(text="", unit="", higher=("a", "x"), lower=("b", "x"))
    assert Verdict(claim=claim, interval=Interval(sum(interval) / 2, *interval, 3)).word == word
    assert Verdict(claim=Claim(text="", unit="", higher=("a", "x"), lower=("b", "x"), above=-0.5), interval=Interval(0, *interval, 3)).reproduced
    assert Verdict(claim=claim, interval=student_interval([0.2])).word == "undecided"  # one seed decides nothing


def test_a_claim_takes_the_higher_minus_the_lower():
    values = {"a": {"x": [3.0, 4.0, 5.0]}, "b": {"y": [1.0, 2.0, 3.1]}}
    assert judge(Claim(text="", unit="", higher=("a", "x"), lower=("b", "y")), values).interval.mean == pytest.approx(5.9 / 3)


# ---- the report


def stored(study: Study, seeds: int) -> None:
    """Results of all arms as a run would have left them, with numbers in the paper's direction."""
    better = {"stories/joint": {"final_loss": 0.4, "roughness": 0.05, "understanding_answers": 0.2, "story_read": 0.4},
              "planner_ratio/0g1u": {"image_start": 0.0}, "planner_ratio/1g1u": {"parses": 0.1}, "reference_data/t2i": {"identity_one": 0.1},
              "reference_data/t2i_si2i": {"identity_two": 0.2}, "stories/without_dpcw": {"own_prompt": 0.3, "repeats": 0.5}}
    usual = {"final_loss": 0.3, "roughness": 0.02, "understanding_answers": 0.5, "loss_story": 1.0, "loss_understanding": 0.4, "count": 0.5,
             "image_start": 1.0, "parses": 0.9, "story_read": 0.8, "own_prompt": 0.9, "repeats": 0.1, "true_own_prompt": 1.0, "true_repeats": 0.0,
             "t2i_error": 300.0, **{f"identity_{name}": 0.7 for name in ("1", "2", "3", "4", "one", "two")}}
    for arm in ARMS.values():
        for seed in range(1 if arm.is_base else seeds):
            noise = random.Random(f"{arm.name}/{seed}")
            numbers = {name: value + noise.uniform(-0.005, 0.005) for name, value in (usual | better.get(arm.name, {})).items()}
            result = {"arm": arm.name, "seed": seed, "key": study.key(arm, seed), "steps": 30, "seconds": 1.0, "numbers": numbers,
                      "curve": [[step, 1 / step + noise.uniform(0, 0.01)] for step in range(1, 31)] if arm.curve else []}
            path = study._path(arm, seed, ".result.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result), encoding="utf-8")


def test_the_report_is_written_from_stored_results_and_counts_whole_seeds_only(tmp_path, capsys):
    study = Study(out=tmp_path / "runs")
    stored(study, 3)
    study._path(ARMS["reference_data/t2i"], 2, ".result.json").unlink()
    assert findings.main(["--report", "--out", str(study.out), "--to", str(tmp_path)]) == 0
    records = json.loads((tmp_path / "findings.json").read_text(encoding="utf-8"))
    assert list(records) == list(FINDINGS) and all(record["reproduced"] for record in records.values())
    assert records["reference_data"]["seeds"] == [0, 1] and records["dpcw"]["seeds"] == [0, 1, 2]
    assert "dpcw: reproduced (3 seeds)" in capsys.readouterr().out
    text = (tmp_path / "FINDINGS.md").read_text(encoding="utf-8")
    for key, finding in FINDINGS.items():
        assert finding.title in text and all(claim.text in text for claim in finding.claims)
        ElementTree.parse(tmp_path / "findings_plots" / f"{key}.svg")


def test_what_does_not_hold_is_said_not_to_be_reproduced(tmp_path):
    study = Study(out=tmp_path / "runs")
    stored(study, 3)
    for seed in range(3):
        path = study._path(ARMS["stories/without_dpcw"], seed, ".result.json")
        result = json.loads(path.read_text(encoding="utf-8"))
        result["numbers"]["repeats"] = 0.0
        path.write_text(json.dumps(result), encoding="utf-8")
    page.write_report(study, ["dpcw"], 3, to=tmp_path)
    record = json.loads((tmp_path / "findings.json").read_text(encoding="utf-8"))["dpcw"]
    assert not record["reproduced"] and [claim["verdict"] for claim in record["claims"]] == ["reproduced", "contradicted"]
    told = (tmp_path / "FINDINGS.md").read_text(encoding="utf-8")
    assert "Not reproduced: here it is not so" in told and FINDINGS["dpcw"].claims[1].if_not in told


def test_without_results_the_page_is_written_anew_from_the_numbers(tmp_path):
    study = Study(out=tmp_path / "runs")
    stored(study, 2)
    page.write_report(study, list(FINDINGS), 2, to=tmp_path)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".md", ".json", ".svg") and "runs" not in path.parts}
    (tmp_path / "FINDINGS.md").unlink()
    page.write_report(Study(out=tmp_path / "elsewhere"), list(FINDINGS), 2, to=tmp_path)
    assert written == {path: path.read_bytes() for path in written}


def test_one_seed_gives_no_interval_and_no_reproduction(tmp_path):
    study = Study(out=tmp_path / "runs")
    stored(study, 1)
    page.write_report(study, list(FINDINGS), 1, to=tmp_path)
    records = json.loads((tmp_path / "findings.json").read_text(encoding="utf-8"))
    assert not any(record["reproduced"] for record in records.values()) and all(record["interval"] is None for record in records.values())


def test_results_of_another_scale_do_not_count(tmp_path):
    stored(Study(out=tmp_path / "runs"), 2)
    with pytest.raises(ValueError, match="no seed of any finding"):
        page.write_report(Study(out=tmp_path / "runs", scale=0.5), list(FINDINGS), 2, to=tmp_path)


# ---- what the study asks of a planner's stage


class _Vision:
    patch_size, spatial_merge_size, temporal_patch_size = 8, 2, 2


def test_a_planner_of_some_heroes_sees_no_others():
    from training.build_tokenizer import picturebook_texts, train_tokenizer

    data = PlannerData(DataSettings(species=SPECIES, image_size=64), train_tokenizer(picturebook_texts(40), 600), _Vision, seed=0)
    rng = random.Random(0)
    for split in ("train", "held_out"):
        stories = [data.sample_story(rng, split=split, two_heroes=i % 2 == 0) for i in range(10)]
        assert {character.species for story in stories for character in story.characters} <= set(SPECIES)
        scenes = [data.sample_understanding(rng, split=split)[0] for _ in range(10)]
        assert {figure.character.species for scene in scenes for figure in scene.figures} <= set(SPECIES)
    with pytest.raises(ValueError, match="data.species names dragon"):
        DataSettings(species=("dragon",))


@pytest.mark.parametrize("starts_right", [True, False])
def test_image_start_counts_the_tokens_that_open_an_image_only(finished, starts_right, monkeypatch):
    from training.stages import planner

    folder = finished / "runs" / "base" / "understanding" / "seed-0" / "export"
    config = planner.Settings(model=planner.ModelSettings(compile=False), data=DataSettings(species=SPECIES, image_size=64),
                              checks=planner.CheckSettings(loss_records=3), init=str(folder))
    stage = planner.build(config, seed=0, run_dir=finished, device=torch.device("cpu"))

    def told(batch):
        labels = batch["labels"][:, 1:]
        labels = labels[labels != planner.IGNORED]
        return torch.zeros(len(labels)), torch.ones(len(labels)), (labels == stage.data.tokens.imagine) == starts_right

    monkeypatch.setattr(stage, "_cross_entropy", told)
    assert stage._losses()["image_start"] == float(starts_right)


# ---- what is committed


def test_the_committed_verdicts_follow_from_the_committed_values():
    path = TRAINING / "findings.json"
    if not path.exists():
        pytest.skip("the findings were not measured yet")
    records = json.loads(path.read_text(encoding="utf-8"))
    for key, record in records.items():
        verdicts = [judge(claim, record["values"]) for claim in FINDINGS[key].claims]
        assert record["reproduced"] == all(verdict.reproduced for verdict in verdicts), key
        assert [claim["verdict"] for claim in record["claims"]] == [verdict.word for verdict in verdicts]
    assert (TRAINING / "FINDINGS.md").read_text(encoding="utf-8") == page._page(records)
