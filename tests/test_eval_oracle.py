"""The picture-book split and its oracle: true stories score full marks, faults cost what they should, records are a judge's."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from weaver_core.evaluation.metrics.oracle import (OracleJudge, agreement, facts_shown, oracle_metrics, reader_likeness, reading_of,
                                                   told_facts)
from weaver_core.evaluation.picturebook_split import NUM_PROMPTS, draw_truth, prompts, write
from weaver_core.evaluation.records import DIMENSIONS, Document, InputBlock, JudgeRecord, Prompt, Want, content_hash, file_sha256, read_jsonl
from weaver_core.picturebook.captions import parse_dense_prompt
from weaver_core.picturebook.compose import render
from weaver_core.picturebook.grammar import sample_story
from weaver_core.picturebook.reader import ReadFigure, Reading
from weaver_core.picturebook.world import Scene

BY_ID = {prompt.id: prompt for prompt in prompts()}
THREE = next(p for p in prompts() if p.want.images_max == 3 and not p.ref["with_reference"] and len(p.ref["cast"]) == 1
             and len({str(parse_dense_prompt(d)) for d in p.ref["story"]["prompts"]}) == 3 and p.ref["known"]["places"])  # fmt: skip


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    return folder, draw_truth([THREE], folder)[0]


def _scores(document, folder, prompt=THREE):
    return {record.dim: record.score for record in OracleJudge().score(prompt, document, folder)}


def _read_of(scene: Scene) -> Reading:
    """What a perfect reader would see."""
    figures = tuple(ReadFigure(species=f.character.species, colour=f.character.colour, wearable=f.character.wearable, position=f.position,
                               pose=f.pose, box=(0, 0, 1, 1)) for f in scene.figures)  # fmt: skip
    return Reading(place=scene.place, time=scene.time, figures=figures, prop=scene.prop, margins={}, fit=0.0)


# ---- the split


def test_the_split_has_200_prompts_of_1_to_8_images_and_a_fifth_with_references():
    lengths = [len(prompt.ref["story"]["scenes"]) for prompt in prompts()]
    assert len(BY_ID) == len(prompts()) == NUM_PROMPTS == 200
    assert [lengths.count(n) for n in range(1, 9)] == [25] * 8
    assert sum(any(block.type == "image" for block in prompt.input) for prompt in prompts()) == 40


def test_the_split_is_the_same_every_time():
    from weaver_core.evaluation import picturebook_split

    before = content_hash(prompts())
    picturebook_split._made.cache_clear()
    prompts.cache_clear()
    assert content_hash(prompts()) == before


def test_what_is_written_reads_back_and_the_pictures_have_their_hashes(tmp_path):
    write(tmp_path)
    assert tuple(read_jsonl(tmp_path / "prompts.jsonl", Prompt)) == prompts()
    images = [block for prompt in prompts() for block in prompt.input if block.type == "image"]
    assert images and all(file_sha256(tmp_path / block.path) == block.sha256 for block in images)


def test_a_reference_shows_the_hero_that_the_request_does_not_name(tmp_path):
    write(tmp_path)
    prompt = next(p for p in prompts() if p.ref["with_reference"])
    picture = Image.open(tmp_path / next(block.path for block in prompt.input if block.type == "image"))
    hero, told = reading_of(picture).figures[0], prompt.ref["cast"][0]
    assert (hero.species, hero.colour, hero.wearable) == (told["species"], told["colour"], told["wearable"])
    assert told["species"] not in prompt.text.lower()


# ---- what texts and dense prompts say


def test_every_fact_of_1000_pages_agrees_with_its_scene():
    rng = random.Random(3)
    pages = 0
    while pages < 1000:
        story = sample_story(rng, split="held_out")
        for text, dense, scene in zip(story.texts, story.prompts, story.scenes):
            reading = _read_of(scene)
            assert all(facts_shown(told_facts(text), reading)), (text, scene)
            assert all(agreement(reading, parse_dense_prompt(dense)).values()), (dense, scene)
            pages += 1


def test_a_wrong_thing_a_wrong_pose_and_an_untold_thing_are_contradictions():
    scene = Scene.from_json(THREE.ref["story"]["scenes"][0])
    reading = replace(_read_of(scene), prop="kite")
    assert all(facts_shown(told_facts("The kite."), replace(reading, figures=())))
    assert not all(facts_shown(told_facts("The ball."), reading))
    assert not all(facts_shown(told_facts("Nothing."), reading))
    assert not all(facts_shown(told_facts("The kite. Robin sat down."), replace(reading, figures=())))


def test_names_and_water_tell_neither_weather_nor_pose():
    facts = told_facts("Sunny jumped over the little waves.")
    assert facts.times == () and facts.poses == ("jumping",)


# ---- scores


def test_a_true_story_scores_full_marks(truth):
    folder, document = truth
    assert _scores(document, folder) == dict.fromkeys(DIMENSIONS, 10.0)


def test_true_stories_with_references_and_with_two_heroes_score_full_marks(tmp_path):
    some = [next(p for p in prompts() if p.ref["with_reference"] and p.want.images_max == 2),
            next(p for p in prompts() if len(p.ref["cast"]) == 2 and p.want.images_max == 3)]  # fmt: skip
    for prompt, document in zip(some, draw_truth(some, tmp_path)):
        assert _scores(document, tmp_path, prompt) == dict.fromkeys(DIMENSIONS, 10.0)


def test_another_storys_document_scores_low_where_it_should(truth):
    folder, document = truth
    other = next(p for p in prompts() if p.want.images_max == 5 and not p.ref["with_reference"] and p.ref["known"]["places"]
                 and p.ref["cast"][0]["species"] != THREE.ref["cast"][0]["species"])  # fmt: skip
    scores = _scores(document, folder, other)
    assert scores["PA"] < 6 and scores["CP"] < 10
    assert scores["CC"] == scores["IC"] == scores["NC"] == 10  # it is a good story, only not the one that was asked for


def test_one_image_has_no_identity_to_compare(tmp_path):
    prompt = next(p for p in prompts() if p.want.images_max == 1)
    records = {r.dim: r for r in OracleJudge().score(prompt, draw_truth([prompt], tmp_path)[0], tmp_path)}
    assert (records["IC"].status, records["IC"].score) == ("na", None)
    assert records["PA"].score == 10


def test_noise_pictures_earn_nothing_but_their_number(truth, tmp_path):
    _, document = truth
    noise = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    blocks, number = [], 0
    for block in document.blocks:
        if block.type == "image":
            Image.fromarray(noise[number]).save(tmp_path / f"{number}.png")
            block, number = replace(block, path=f"{number}.png"), number + 1
        blocks.append(block)
    scores = _scores(replace(document, blocks=tuple(blocks)), tmp_path)
    assert scores["IC"] == scores["CC"] == 0 and scores["PA"] < 5


def test_the_same_page_told_twice_may_look_the_same(truth):
    folder, document = truth
    page = document.blocks[1:3]
    twice = replace(document, blocks=(*page, *page, *page))
    once_each = _scores(twice, folder)
    assert once_each["IC"] == 10
    others = iter(block.dense_prompt for block in document.images)
    copies = replace(twice, blocks=tuple(b if b.type == "text" else replace(b, dense_prompt=next(others)) for b in twice.blocks))
    assert _scores(copies, folder)["IC"] < 5


def test_records_are_a_judges_records_and_cost_nothing(truth):
    folder, document = truth
    records = OracleJudge().score(THREE, document, folder, dims=("PA", "CC"), rep=1)
    assert [r.dim for r in records] == ["PA", "CC"]
    assert all(r.judge == "oracle" and r.status == "ok" and r.usd == 0 and r.images_sent == 0 and r.rep == 1 for r in records)
    assert JudgeRecord.from_json(records[0].to_json()) == records[0]
    assert records[0].key != OracleJudge().score(THREE, document, folder, dims=("PA",), rep=2)[0].key
    assert records[0].key == OracleJudge().score(THREE, document, folder, dims=("PA",), rep=1)[0].key


def test_an_empty_answer_is_missing_and_another_benchmarks_prompt_is_not_judged(truth):
    folder, document = truth
    empty = Document(prompt_id=THREE.id, system="s", seed=0, blocks=())
    assert {r.status for r in OracleJudge().score(THREE, empty, folder)} == {"missing_output"}
    foreign = Prompt(id="x", v=1, category="c", lang="en", input=(InputBlock(type="text", text="Ramen."),),
                     want=Want(images_min=1, images_max=4, explicit=False))  # fmt: skip
    assert {r.status for r in OracleJudge().score(foreign, document, folder)} == {"na"}


def test_a_missing_picture_costs_completeness_and_does_not_raise(truth):
    folder, document = truth
    blocks = list(document.blocks)
    blocks[2] = replace(blocks[2], path="gen/gone.png")
    scores = _scores(replace(document, blocks=tuple(blocks)), folder)
    assert scores["CP"] < 10 and scores["PA"] < 10


def test_the_reader_finds_every_picture_its_own_dense_prompt(truth):
    folder, document = truth
    found = {r.metric: r.value for r in oracle_metrics()[0].measure({}, [document], folder)}
    assert found["oracle:recall"] == 1.0 and found["oracle:margin"] > 0
    scenes = [render(Scene.from_json(scene)) for scene in THREE.ref["story"]["scenes"]]
    assert np.diag(reader_likeness(scenes, THREE.ref["story"]["prompts"])).tolist() == [1.0, 1.0, 1.0]
