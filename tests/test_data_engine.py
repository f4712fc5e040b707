"""The data engine: three kinds of stories and reference-guided sets, from sources to what the trainers read."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import tiny_chat_models
from judge_server import JudgeServer, status
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from safetensors.torch import load_file, save_file

from training.config import ConfigError
from training.data_engine.__main__ import main
from training.data_engine.backend import BackendConfig
from training.data_engine.recipe import load_recipe
from training.data_engine.runner import steps_of
from training.data_engine.stages import Tools, groups
from training.data_engine.stages.pictures import sharpness, text_share
from training.data_engine.weights import weights_of
from training.picture_records import read_picture_folder
from training.records import read_records
from weaver_core.picturebook.captions import dense_prompt
from weaver_core.picturebook.compose import render
from weaver_core.picturebook.world import Character, Figure, Scene
from weaver_core.planners import http_exchange

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "training" / "data_engine" / "recipes").glob("*.toml"))
HEROES = (Character(species="fox", colour="orange", wearable="scarf"), Character(species="frog", colour="green", wearable="crown"))


def scene(hero: Character, index: int, place: str = "meadow") -> Scene:
    figure = Figure(character=hero, position=("left", "centre", "right")[index % 3], pose=("standing", "waving", "jumping", "sitting")[index % 4])
    return Scene(place=place, time="day", figures=(figure,), prop=("ball", "kite", "cake", "book", "star")[index % 5], seed=index)


def plan(hero: str, count: int, *, cast=True, same=False) -> str:
    lines = [f"# The day of {hero}", f'<cast name="{hero}" look="a small orange fox with a scarf">']
    for number in range(1, count + 1):
        text = f"A small fox plays with thing number {1 if same else number} on a wide green meadow, soft light."
        lines += [f"On this morning {hero} walks over the meadow and meets friend number {number}, and they laugh together.",
                  f'<imagine id="p{number}"{f" cast={chr(34)}{hero}{chr(34)}" if cast else ""}>{text}</imagine>']
    return "\n".join(lines)


class Model(JudgeServer):
    """Answers what the engine asks, by what is asked; `odd` = answers (text -> text) that go wrong on purpose."""

    def __init__(self):
        super().__init__()
        self.odd = lambda asked, answer: answer

    def answer(self, body):
        content = body["messages"][-1]["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        asked = next(part["text"] for part in parts if part["type"] == "text")
        return self.odd(asked, self._good(asked))

    def _good(self, asked: str) -> str:
        if "made up" in asked or "making up what people type" in asked:
            return "1. A fox who finds a kite, in two pictures\n2) \"The fox and the sea\"\n- A story about a fox in 3 images"
        if count := re.search(r"Images: exactly (\d+)", asked):
            return plan("Robin", int(count[1]))
        if "Describe this picture" in asked:
            return "A small orange fox with a scarf plays on a wide green meadow in soft light."
        if "pictures that belong together" in asked:
            number = int(re.search(r"Here are (\d+)", asked)[1])
            return re.sub(r'id="p(\d+)"', lambda found: f'id="p{found[1]}" references="picture-{number + 1 - int(found[1])}"', plan("Robin", number))
        if "draft of an illustrated story" in asked:
            return asked[asked.index("# The"):asked.index("Make it better")].replace("walks over", "runs happily over")
        if "had asked for" in asked or "Write what this user types" in asked:
            return "Tell me about my fox and its friends"
        if "is to be painted by a model" in asked:
            return "The fox plays with a ball on the meadow in soft light."
        raise AssertionError(f"nobody expected to be asked: {asked[:200]}")


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(http_exchange, "FIRST_PAUSE_S", 0.01)
    for name in ("WEAVER_API_KEY", "WEAVER_API_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    server = Model()
    yield server
    server.close()


@pytest.fixture(scope="session")
def subjects(tmp_path_factory):
    """Two folders of one hero each, with captions beside them, and pictures that nobody should learn from."""
    folder = tmp_path_factory.mktemp("subjects")
    for number, hero in enumerate(HEROES):
        for index in range(4):
            path = folder / hero.species / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            shown = scene(hero, index, ("meadow", "beach")[number])
            render(shown, 128).save(path)
            path.with_suffix(".txt").write_text(dense_prompt(shown))
    good = render(scene(HEROES[0], 0), 128)
    good.resize((126, 126)).save(folder / "fox" / "9-copy.png")
    good.filter(ImageFilter.GaussianBlur(9)).save(folder / "fox" / "9-blurred.png")
    Image.new("RGB", (128, 128), "white").save(folder / "fox" / "9-blank.png")
    good.resize((40, 40)).save(folder / "fox" / "9-small.png")
    good.resize((400, 100)).save(folder / "fox" / "9-long.png")
    grid = Image.new("RGB", (256, 256))
    for index, (place, hour) in enumerate((("snow", "day"), ("town", "night"), ("forest", "night"), ("desert", "day"))):
        panel = Scene(place=place, time=hour, figures=(Figure(character=HEROES[index % 2]),), seed=index)
        grid.paste(render(panel, 128), (index % 2 * 128, index // 2 * 128))
    grid.save(folder / "fox" / "9-grid.png")
    page_of_text().save(folder / "fox" / "9-text.png")
    (folder / "fox" / "9-broken.png").write_bytes(b"\x89PNG no picture")
    return folder


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """Two clips in one file: the fox on the meadow, then the frog on the beach; every pose is held for a second."""
    path = tmp_path_factory.mktemp("videos") / "two.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 128, "yuv420p", 2_000_000
        for number, hero in enumerate(HEROES):
            for index in range(4):
                pixels = np.asarray(render(scene(hero, index, ("meadow", "beach")[number]), 128))
                for _ in range(4):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    (path.parent / "broken.mp4").write_bytes(b"no video at all" * 20)
    return path.parent


def page_of_text() -> Image.Image:
    page = Image.new("RGB", (400, 400), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for line in range(18):
        draw.text((10, 8 + 21 * line), "Once upon a time there was a small fox who", fill="black", font=font)
    return page


def recipe(tmp_path, output: str, sources: str, stages: str, model=None, backend: str = "") -> Path:
    server = f'[backend]\nkind = "server"\nurl = "{model.url}"\nmodel = "m"\nworkers = 3\n{backend}\n' if model else ""
    parted = (stage.partition(":") for stage in stages.split("|"))
    kinds = "".join(f'[[stages]]\nkind = "{kind}"\n{settings}\n' for kind, _, settings in parted)
    path = tmp_path / "recipe.toml"
    path.write_text(f'name = "t"\noutput = "{output}"\n{server}[build]\nshard_size = 3\n{sources}\n{kinds}', encoding="utf-8")
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def reasons(out: Path) -> dict[str, str]:
    return {Path(line["id"]).name: line["reason"] for line in lines(out / "dropped.jsonl")}


TOPICS = '[[sources]]\nkind = "topics"\nitems = ["a lost kite", "the sea"]'
SMALL = "check_picture:least_side = 64"


# ---- stories


def test_topics_become_requests_and_plans_that_the_trainer_reads(tmp_path, model, capsys):
    path = recipe(tmp_path, "stories", TOPICS, "write_requests:per_topic = 2|write_plan|check_plan", model)
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    records = read_records(tmp_path / "out" / "stories.jsonl")
    assert [record.request for record in records] == ["A fox who finds a kite, in two pictures", "The fox and the sea"] * 2
    assert len(records[0].plan.images) == 2 and records[0].plan.cast[0].name == "Robin"
    assert set(reasons(tmp_path / "out").values()) == {"not asked for"}
    report = (tmp_path / "out" / "report.html").read_text()
    assert "write_requests" in report and "not asked for" in report and "A fox who finds a kite" in report


def test_a_second_build_asks_nothing_and_a_fresh_one_pays_nothing(tmp_path, model):
    path = recipe(tmp_path, "stories", TOPICS, "write_requests|write_plan|check_plan", model)
    out = tmp_path / "out"
    assert main([str(path), "--out", str(out)]) == 0
    first, asked = (out / "stories.jsonl").read_bytes(), len(model.requests)
    assert asked == 2 + 6
    for extra in ([], ["--fresh"], ["--set", "backend.workers=1", "--fresh"]):
        assert main([str(path), "--out", str(out), *extra]) == 0
        assert (out / "stories.jsonl").read_bytes() == first and len(model.requests) == asked


def test_the_budget_stops_the_build_and_more_of_it_goes_on(tmp_path, model, capsys):
    path = recipe(tmp_path, "stories", TOPICS, "write_requests|write_plan|check_plan", model, "max_requests = 4")
    out = tmp_path / "out"
    assert main([str(path), "--out", str(out)]) == 1
    assert "budget of 4 requests" in capsys.readouterr().err and len(model.requests) == 4 and not (out / "stories.jsonl").exists()
    assert main([str(path), "--out", str(out)]) == 1 and len(model.requests) == 4, "the budget is that of all sittings"
    assert main([str(path), "--out", str(out), "--set", "backend.max_requests=8"]) == 0
    assert len(model.requests) == 8 and len(read_records(out / "stories.jsonl")) == 6


def test_a_plan_may_hold_what_unicode_calls_a_line_end(tmp_path, model):
    model.odd = lambda asked, text: text.replace("and they laugh", "and\u2028they laugh") if "Images: exactly" in asked else text
    source = '[[sources]]\nkind = "requests"\nitems = ["The fox and the sea"]'
    assert main([str(recipe(tmp_path, "stories", source, "write_plan|check_plan", model)), "--out", str(tmp_path / "out")]) == 0
    (record,) = read_records(tmp_path / "out" / "stories.jsonl")
    assert "\u2028" in record.plan.texts[0].text


BAD_ANSWERS = {
    "wrong number of images": lambda text: text,  # three, where the recipe keeps two at most
    "hero not in the cast": lambda text: text.replace('cast="Robin"', 'cast="Maja"', 1),
    "hero never shown": lambda text: re.sub(r' cast="Robin"', "", text),
    "hero not in the prompt": lambda text: re.sub("A small fox plays", "Somebody plays", text),
    "repeated dense prompt": lambda text: plan("Robin", text.count("<imagine"), same=True),
    "length of a dense prompt": lambda text: re.sub(">A small fox plays.*?<", ">A fox<", text),
    "wrong language": lambda text: re.sub("On this morning .*", "An diesem Morgen geht der kleine Fuchs über die Wiese und trifft Freunde.", text),
    "bad markup": lambda text: text.replace("</imagine>", "<imagine> <imagine", 1),
}


@pytest.mark.parametrize("reason", BAD_ANSWERS)
def test_plans_that_would_teach_something_wrong_are_dead_letters(tmp_path, model, reason):
    model.odd = lambda asked, text: BAD_ANSWERS[reason](text) if "Images: exactly" in asked else text
    source = '[[sources]]\nkind = "requests"\nitems = ["The fox and the sea"]'
    stage = "check_plan:most_images = 2" if reason == "wrong number of images" else "check_plan"
    stages = f"write_plan:least_images = 3\nmost_images = 3|{stage}"
    assert main([str(recipe(tmp_path, "stories", source, stages, model)), "--out", str(tmp_path / "out")]) == 0
    found = lines(tmp_path / "out" / "dropped.jsonl")
    assert [line["reason"] for line in found] == [reason] and found[0]["fields"]["request"], found
    assert not (tmp_path / "out" / "stories.jsonl").read_bytes()


def test_a_server_that_fails_gives_dead_letters_that_can_be_asked_again(tmp_path, model, capsys):
    path = recipe(tmp_path, "stories", TOPICS, "write_requests|write_plan|check_plan", model, "attempts = 1\nstop_after_failures = 5")
    model.script = [status(503, {"error": {"message": "busy"}})]
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    assert "--retry-failed" in capsys.readouterr().out
    assert [(line["reason"], line["failed"]) for line in lines(tmp_path / "out" / "dropped.jsonl")] == [("no answer", True)]
    assert main([str(path), "--out", str(tmp_path / "out"), "--retry-failed"]) == 0
    assert len(read_records(tmp_path / "out" / "stories.jsonl")) == 6 and not lines(tmp_path / "out" / "dropped.jsonl")


def test_a_server_that_always_fails_ends_the_build(tmp_path, model, capsys):
    path = recipe(tmp_path, "stories", TOPICS, "write_requests|write_plan", model, "attempts = 1\nstop_after_failures = 2")
    model.script = [status(503, {"error": {"message": "busy"}})] * 50
    assert main([str(path), "--out", str(tmp_path / "out")]) == 1
    assert "busy" in capsys.readouterr().err


def test_a_gallery_becomes_stories_with_the_users_pictures(tmp_path, model, subjects):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"'
    stages = f"{SMALL}|drop_copies|collect:least = 2\nmost = 2|ask_about:says_count = 0.0|write_plan|check_plan"
    path = recipe(tmp_path, "stories", source, stages, model)
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    records = read_records(tmp_path / "out" / "stories.jsonl")
    assert len(records) == 2 and all(len(record.images) == 2 and record.plan for record in records)
    assert [path.name for path in records[0].images] == ["picture-1.png", "picture-2.png"]
    shown = next(body for body in model.requests if "what this user types" in str(body))
    assert sum(part["type"] == "image_url" for part in shown["messages"][-1]["content"]) == 2


def test_a_story_that_gets_other_pictures_has_them_in_its_folder(tmp_path, model, subjects):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"'
    path = recipe(tmp_path, "stories", source, f"{SMALL}|collect:least = 2\nmost = 2|ask_about:says_count = 0.0|write_plan", model)
    out, seen = tmp_path / "out", set()
    for seed in range(3):
        assert main([str(path), "--out", str(out), "--set", f"seed={seed}"]) == 0
        made = lines(out / "work" / "04-write_plan" / "00000.jsonl")
        chosen = [[(out / "work" / "pictures" / key[:2] / f"{key}.png").read_bytes() for key in record["images"]] for record in made]
        assert [[(out / name).read_bytes() for name in line["images"]] for line in lines(out / "stories.jsonl")] == chosen
        seen.add(str(chosen))
    assert len(seen) > 1, "another seed chooses other pictures"


def test_pictures_that_no_collection_takes_are_told(tmp_path, model, subjects):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"'
    path = recipe(tmp_path, "stories", source, f"{SMALL}|drop_copies|collect:least = 2\nmost = 2|ask_about:says_count = 0.0|write_plan", model)
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    found = [line for line in lines(tmp_path / "out" / "dropped.jsonl") if line["step"].endswith("collect")]
    assert [line["reason"] for line in found] == ["not chosen"] * 4
    assert {line["detail"] for line in found} == {"2 of 4 pictures in 0-fox are in its 1 collections", "2 of 4 pictures in 0-frog are in its 1 collections"}


LANGUAGES = 'languages = ["en", "de", "zh"]'


def in_three_languages(tmp_path, model, subjects, stage: str) -> Path:
    """A recipe whose stage asks once for each language."""
    if stage == "write_requests":
        return recipe(tmp_path, "stories", TOPICS, f"write_requests:{LANGUAGES}|write_plan", model, "attempts = 1")
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects / "frog"}"\ngroups = false'
    before = f'{SMALL}|embed|cluster:method = "kmeans"\nclusters = 1|caption|collect:least = 3\nmost = 3'
    after = {"ask_about": "write_plan", "weave": "request_for"}[stage]
    return recipe(tmp_path, "stories", source, f"{before}|{stage}:{LANGUAGES}|{after}", model, "attempts = 1")


def languages(out: Path, stage: str) -> list[str]:
    """Of all that a stage handed on, in order; ids are told apart."""
    (folder,) = (out / "work").glob(f"*-{stage}")
    made = [line for path in sorted(folder.glob("?????.jsonl")) for line in lines(path)]
    assert len({line["id"] for line in made}) == len(made)
    return list(dict.fromkeys(line["language"] for line in made))


@pytest.mark.parametrize("stage", ["ask_about", "weave"])
def test_a_language_that_is_refused_takes_no_other_along(tmp_path, model, subjects, stage):
    model.odd = lambda asked, text: " " if 'code "de"' in asked else text
    assert main([str(in_three_languages(tmp_path, model, subjects, stage)), "--out", str(tmp_path / "out")]) == 0
    assert languages(tmp_path / "out", stage) == ["en", "zh"]
    found = [line for line in lines(tmp_path / "out" / "dropped.jsonl") if line["step"].endswith(stage)]
    assert [(line["id"].rpartition("/")[2], line["failed"]) for line in found] == [("de", False)]


@pytest.mark.parametrize("stage", ["write_requests", "ask_about", "weave"])
def test_a_language_without_an_answer_is_asked_again_alone_and_nothing_comes_twice(tmp_path, model, subjects, stage):
    path, out, answer, broken = in_three_languages(tmp_path, model, subjects, stage), tmp_path / "out", model.answer, [True]
    is_german = lambda body: 'code "de"' in str(body["messages"]) and broken[0]  # noqa: E731
    model.answer = lambda body: status(503, {"error": {"message": "busy"}}) if is_german(body) else answer(body)
    assert main([str(path), "--out", str(out)]) == 0
    assert languages(out, stage) == ["en", "zh"]
    dead = [line for line in lines(out / "dropped.jsonl") if line["failed"]]
    assert {line["id"].rpartition("/")[2] for line in dead} == {"de"}
    first, broken[0] = len(model.requests), False
    assert main([str(path), "--out", str(out), "--retry-failed"]) == 0
    assert languages(out, stage) == ["en", "de", "zh"] and not [line for line in lines(out / "dropped.jsonl") if line["failed"]]
    assert not any('code "en"' in str(body) or 'code "zh"' in str(body) for body in model.requests[first:]), "an answer was paid for twice"


def test_clusters_are_woven_into_refined_stories_with_drawn_pages(tmp_path, model, subjects):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"\ngroups = false'
    stages = (f"{SMALL}|drop_copies|embed|cluster:least_size = 3|caption|collect:least = 3\nmost = 3|weave|refine|request_for:says_count = 1.0"
              "|check_plan")
    out = tmp_path / "out"
    model.odd = lambda asked, text: "Tell me about my fox, in 3 pictures" if "had asked for" in asked else text
    assert main([str(recipe(tmp_path, "stories", source, stages, model)), "--out", str(out)]) == 0
    records = read_records(out / "stories.jsonl")
    assert len(records) == 2 and all(len(record.drawn) == 3 for record in records)
    assert "runs happily" in records[0].plan.texts[0].text and records[0].plan.images[0].references == "auto"
    collected = [line for path in sorted((out / "work" / "06-collect").glob("0*.jsonl")) if "dropped" not in path.name for line in lines(path)]
    woven = lines(out / "stories.jsonl")[0]
    order = [next(key for key in collected[0]["pictures"] if Image.open(out / "work" / "pictures" / key[:2] / f"{key}.png").tobytes()
                  == Image.open(out / name).tobytes()) for name in woven["drawn"]]
    assert order == collected[0]["pictures"][::-1], "the plan named the pictures backwards"
    assert all(len({"meadow" in str(value) for value in line["captions"]}) == 1 for line in collected)


def test_a_refinement_that_breaks_the_plan_is_not_taken(tmp_path, model, subjects):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects / "frog"}"\ngroups = false'
    stages = (f"{SMALL}|embed|cluster:method = \"kmeans\"\nclusters = 1|caption|collect:least = 3\nmost = 3|weave|refine"
              "|request_for:says_count = 0.0|check_plan")
    model.odd = lambda asked, text: "I would not change a thing." if "draft of" in asked else text
    assert main([str(recipe(tmp_path, "stories", source, stages, model)), "--out", str(tmp_path / "out")]) == 0
    (story,) = lines(tmp_path / "out" / "stories.jsonl")
    assert "walks over" in story["plan"] and len(story["drawn"]) == 3


def test_a_local_model_writes_and_answers_without_pictures(tmp_path):
    base = tiny_chat_models.writing(tmp_path / "base")
    backend = f'[backend]\nkind = "local"\nmodel = "{base}"\ndevice = "cpu"\nmax_tokens = 120\n'
    source = backend + '[[sources]]\nkind = "requests"\nitems = ["A fox"]'
    path = recipe(tmp_path, "stories", source, "write_plan:least_images = 1\nmost_images = 1\nmost_warnings = 9")
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    (record,) = read_records(tmp_path / "out" / "stories.jsonl")  # a model of random weights: the grammar makes a plan of it
    assert len(record.plan.images) == 1
    writer = Tools(load_recipe(path), tmp_path / "out" / "work").writer
    assert isinstance(writer.answer("Describe a fox", seed=1), str) and writer.ledger.totals()["requests"] == 2


def shaken(folder: Path) -> None:
    """Other weights under the same name."""
    (path,) = folder.glob("*.safetensors")
    save_file({name: value + 0.25 for name, value in load_file(path).items()}, path, metadata={"format": "pt"})


def test_a_local_model_that_was_trained_anew_is_asked_anew(tmp_path):
    base = tiny_chat_models.writing(tmp_path / "base")
    backend = f'[backend]\nkind = "local"\nmodel = "{base}"\ndevice = "cpu"\nmax_tokens = 40\n'
    source = backend + '[[sources]]\nkind = "requests"\nitems = ["A fox"]'
    path = recipe(tmp_path, "stories", source, "write_plan:least_images = 1\nmost_images = 1\nmost_warnings = 9")
    tools = load_recipe(path)
    keys = [step.key for step in steps_of(tools)]
    writer = Tools(tools, tmp_path).writer
    assert writer.answer("Describe a fox", seed=1) == Tools(tools, tmp_path).writer.answer("Describe a fox", seed=1)
    assert writer.ledger.totals()["requests"] == 1
    shaken(base)
    Tools(tools, tmp_path).writer.answer("Describe a fox", seed=1)
    assert writer.ledger.totals()["requests"] == 2
    assert [one == other for one, other in zip(keys, [step.key for step in steps_of(tools)])] == [True, False]


def test_the_weights_of_embedders_and_of_the_shipped_pair_are_in_the_keys_and_a_servers_name_is_all_there_is(tmp_path, pair_folder):
    embedder = tmp_path / "embedder"
    shutil.copytree(pair_folder / "vae", embedder)  # weights are weights
    source = f'[embedder]\nfolder = "{embedder}"\n[backend]\nkind = "picturebook"\nmodel = "{pair_folder}"\n{TOPICS}'
    made = load_recipe(recipe(tmp_path, "stories", source, "embed|write_plan"))
    before = [step.key for step in steps_of(made)]
    shaken(embedder)
    assert [one == step.key for one, step in zip(before, steps_of(made))] == [True, False, True]
    assert made.backend.weights == weights_of(pair_folder / "planner") != BackendConfig(kind="picturebook").weights != ""
    assert BackendConfig(kind="server", url="http://x", model=str(pair_folder)).weights == "" == BackendConfig(kind="local", model="hub/name").weights


# ---- reference-guided sets


def test_folders_become_rows_and_every_bad_picture_has_its_reason(tmp_path, subjects):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"'
    out = tmp_path / "out"
    assert main([str(recipe(tmp_path, "references", source, f"{SMALL}|drop_copies|pair")), "--out", str(out)]) == 0
    rows = lines(out / "metadata.jsonl")
    assert sorted(len(row["references"]) for row in rows).count(0) == 8 and {1, 2, 3} >= {len(row["references"]) for row in rows} - {0} >= {1, 2}
    for row in rows:
        assert row.keys() == {"file_name", "prompt", "references"} and row["file_name"] not in row["references"]
        for name in (row["file_name"], *row["references"]):
            Image.open(out / name).verify()
    species = {row["file_name"]: "frog" if "frog" in row["prompt"] else "fox" for row in rows}
    assert all(species[name] == species[row["file_name"]] for row in rows for name in row["references"]), "references show another hero"
    assert reasons(out) == {"9-copy.png": "copy", "9-blurred.png": "blurred", "9-blank.png": "blank", "9-small.png": "too small",
                            "9-long.png": "too long", "9-grid.png": "collage", "9-text.png": "full of text", "9-broken.png": "unreadable"}
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg") > 12 and "full of text" in page


def test_the_trainer_reads_the_rows_that_are_made(tmp_path, subjects):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"'
    out = tmp_path / "out"
    assert main([str(recipe(tmp_path, "references", source, f"{SMALL}|drop_copies|pair")), "--out", str(out)]) == 0
    rows, records = lines(out / "metadata.jsonl"), read_picture_folder(out)
    assert [(record.path, record.prompt) for record in records] == [(out / row["file_name"], row["prompt"]) for row in rows]
    assert [len(record.references) for record in records] == [len(row["references"]) for row in rows]


def test_a_set_that_was_made_is_a_source_with_its_prompts(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for index, key in enumerate(("prompt", "text")):
        render(scene(HEROES[index], index), 128).save(folder / f"{index}.png")
        with open(folder / "metadata.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"file_name": f"{index}.png", key: f"a hero, {key}"}) + "\n")
    out = tmp_path / "out"
    source = f'[[sources]]\nkind = "folder"\npath = "{folder}"'
    assert main([str(recipe(tmp_path, "references", source, f"{SMALL}|pair")), "--out", str(out)]) == 0
    assert {row["prompt"] for row in lines(out / "metadata.jsonl")} == {"a hero, prompt", "a hero, text"}


def test_pictures_of_the_users_own_in_the_folder_stay(tmp_path, subjects):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"'
    path, out = recipe(tmp_path, "references", source, f"{SMALL}|drop_copies|pair"), tmp_path / "out"
    assert main([str(path), "--out", str(out)]) == 0
    first = set(os.listdir(out / "images"))
    Image.new("RGB", (64, 64), "red").save(out / "images" / "mine.png")
    with open(out / "metadata.jsonl", "a", encoding="utf-8") as file:
        file.write('{"file_name": "images/mine.png", "prompt": "a red field"}\n')
    smaller = f'[[sources]]\nkind = "folder"\npath = "{subjects / "frog"}"'
    assert main([str(recipe(tmp_path, "references", smaller, f"{SMALL}|drop_copies|pair")), "--out", str(out)]) == 0
    last = set(os.listdir(out / "images"))
    assert "mine.png" in last and last - {"mine.png"} == {Path(row["file_name"]).name for row in lines(out / "metadata.jsonl")} < first


def test_a_kill_between_list_and_removal_leaves_no_picture_behind(tmp_path, subjects, monkeypatch):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"'
    out = tmp_path / "out"
    assert main([str(recipe(tmp_path, "references", source, f"{SMALL}|drop_copies|pair")), "--out", str(out)]) == 0
    smaller = recipe(tmp_path, "references", f'[[sources]]\nkind = "folder"\npath = "{subjects / "frog"}"', f"{SMALL}|drop_copies|pair")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr("training.data_engine.outputs._remove", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        main([str(smaller), "--out", str(out)])
    assert main([str(smaller), "--out", str(out)]) == 0
    assert {f"images/{name}" for name in os.listdir(out / "images")} == {row["file_name"] for row in lines(out / "metadata.jsonl")}


@pytest.mark.parametrize("name", ["images/holiday.png", "metadata.jsonl", "stories.jsonl"])
def test_a_folder_with_a_set_that_no_build_made_is_refused(tmp_path, subjects, capsys, name):
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes(b"the user's own")
    path = recipe(tmp_path, "references", f'[[sources]]\nkind = "folder"\npath = "{subjects}"', f"{SMALL}|pair")
    for extra in ([], ["--fresh"]):
        assert main([str(path), "--out", str(out), *extra]) == 2
        assert f"holds {Path(name).parts[0]} and no work/journal.jsonl" in (told := capsys.readouterr().err) and "choose another folder" in told
    assert (out / name).read_bytes() == b"the user's own" and not (out / "work").exists()


def test_a_file_name_that_is_no_utf8_is_a_name_like_others(tmp_path):
    folder = tmp_path / "gallery" / "fox"
    folder.mkdir(parents=True)
    for index in range(2):
        name = folder / os.fsdecode(b"f\xfcchs-%d.png" % index)
        render(scene(HEROES[0], index), 128).save(name)
        name.with_suffix(".txt").write_text("A small orange fox")
    Image.new("RGB", (128, 128), "white").save(folder / os.fsdecode(b"wei\xdf.png"))
    source = f'[[sources]]\nkind = "folder"\npath = "{folder.parent}"'
    out = tmp_path / "out"
    assert main([str(recipe(tmp_path, "references", source, f"{SMALL}|pair")), "--out", str(out)]) == 0
    assert len(lines(out / "metadata.jsonl")) == 4 and list(reasons(out)) == [os.fsdecode(b"wei\xdf.png")]


def test_a_video_becomes_clips_of_one_hero_each(tmp_path, model, video):
    source = f'[[sources]]\nkind = "video"\npath = "{video}"\nevery_s = 0.5'
    out = tmp_path / "out"
    stages = f"{SMALL}|embed|drop_copies|check_group:least_alike = 0.3|caption|pair:several = 1|instruct"
    assert main([str(recipe(tmp_path, "references", source, stages, model)), "--out", str(out)]) == 0
    found = [line["reason"] for line in lines(out / "dropped.jsonl")]
    assert found.count("copy") == 8 and found.count("unreadable") == 1, "every pose was sampled twice"
    rows = lines(out / "metadata.jsonl")
    assert len(rows) >= 16 and {row["prompt"] for row in rows if row["references"]} == {"The fox plays with a ball on the meadow in soft light."}
    assert json.loads((out / "report.json").read_text())["groups"] == {"4": 2}

    def is_beach(name: str) -> bool:  # sand below, not grass
        red, green, _ = np.asarray(Image.open(out / name).convert("RGB"), float)[-20:].mean((0, 1))
        return bool(red > green)

    assert {is_beach(row["file_name"]) for row in rows} == {True, False}
    assert all(is_beach(name) == is_beach(row["file_name"]) for row in rows for name in row["references"])


# ---- resuming, and Ray


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*"))
            if path.is_file() and path.suffix in (".jsonl", ".png") and path.name != "journal.jsonl"}


def test_a_build_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path, subjects):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"'
    path = recipe(tmp_path, "references", source, f"{SMALL}|drop_copies|pair")
    assert main([str(path), "--out", str(tmp_path / "whole")]) == 0
    command = [sys.executable, "-m", "training.data_engine", str(path), "--out", str(tmp_path / "killed")]
    journal, seen, kills = tmp_path / "killed" / "work" / "journal.jsonl", 0, 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:  # killed as soon as another shard or two are finished
            if journal.exists() and journal.read_bytes().count(b"\n") > seen + 1:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.001)
        process.wait()
        seen = journal.read_bytes().count(b"\n")
    assert kills >= 2
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300).returncode == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_what_needs_all_pictures_is_not_made_again_after_a_longer_result(tmp_path, subjects, monkeypatch):
    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"'
    path = recipe(tmp_path, "references", source, f"{SMALL}|drop_copies|pair")
    command, small = [str(path), "--out", str(tmp_path / "out")], ["--set", "build.shard_size=1"]
    assert main(command + small) == main(command) == 0
    once = contents(tmp_path / "out")

    def again(*_):
        raise AssertionError("copies were looked for again")

    monkeypatch.setattr(groups.DropCopies, "whole", again)
    assert main(command) == 0 and contents(tmp_path / "out") == once


def test_ray_makes_the_same_bytes(tmp_path, subjects):
    import ray

    source = f'[[sources]]\nkind = "folder"\npath = "{subjects}"'
    path = recipe(tmp_path, "references", source, f"{SMALL}|drop_copies|pair")
    assert main([str(path), "--out", str(tmp_path / "here")]) == 0
    try:
        assert main([str(path), "--out", str(tmp_path / "ray"), "--ray", "--set", "build.ray_workers=2"]) == 0
    finally:
        ray.shutdown()
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


# ---- recipes and filters


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path):
    load_recipe(path)


def test_errors_of_a_recipe_name_file_line_and_the_nearest_key(tmp_path):
    path = recipe(tmp_path, "stories", TOPICS, "write_requests:per_topik = 3|writ_plan|write_plan")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    text = str(caught.value)
    where = {number: line for number, line in enumerate(path.read_text().splitlines(), 1)}
    number = next(number for number, line in where.items() if "per_topik" in line)
    assert f"recipe.toml:{number}: unknown key stages[0].per_topik; did you mean stages[0].per_topic?" in text
    assert "did you mean 'write_plan'" in text
    path.write_text('name = "t"\noutput = "stories"\nsources = [{kind = "topics", items = ["a"]}]\nstages = ["write_plan"]\n')
    with pytest.raises(ConfigError, match="recipe.toml:4: expected a table with kind, got 'write_plan'"):
        load_recipe(path)
    with pytest.raises(ConfigError, match="asks a model"):
        load_recipe(recipe(tmp_path, "stories", TOPICS, "write_requests|write_plan"))


def test_a_check_needs_no_folder_and_a_build_does(tmp_path, capsys):
    (tmp_path / "topics.jsonl").write_text('{"topic": "the sea"}\n\n{"topic": "a lost\u2028kite"}\n', encoding="utf-8")
    source = '[[sources]]\nkind = "topics"\npath = "topics.jsonl"\n[backend]\nkind = "local"\nmodel = "m"'
    path = recipe(tmp_path, "stories", source, "write_requests|write_plan")
    assert main([str(path), "--check"]) == 0
    assert "topics topics.jsonl: 2" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(path)])
    assert "--out FOLDER is missing" in capsys.readouterr().err
    (tmp_path / "topics.jsonl").write_text('# sources\n\n{"topic": "the sea"}\n{"name": "?"}\n')
    assert main([str(path), "--check"]) == 2
    assert "topics.jsonl:4: expected an object" in capsys.readouterr().err


def test_pages_of_text_and_blurred_pictures_are_told_from_good_ones():
    places = ("town", "castle", "forest", "snow", "room", "beach")
    scenes = [render(scene(HEROES[index % 2], index, place), 256) for index, place in enumerate(places)]
    assert text_share(page_of_text()) > 0.4 and max(map(text_share, scenes)) < 0.1
    assert min(map(sharpness, scenes)) > 20 > max(sharpness(image.filter(ImageFilter.GaussianBlur(16))) for image in scenes)


def test_the_folder_is_used_by_one_build_at_a_time(tmp_path, subjects, capsys):
    from training.data_engine.runner import Build

    path = recipe(tmp_path, "references", f'[[sources]]\nkind = "folder"\npath = "{subjects}"', f"{SMALL}|pair")
    build = Build(load_recipe(path), tmp_path / "out")
    try:
        assert main([str(path), "--out", str(tmp_path / "out")]) == 2
        assert "in use by another program" in capsys.readouterr().err
    finally:
        build.close()
    assert os.listdir(tmp_path / "out") == ["work"]
