"""The weaver-style prompt set is what its README says, frozen, and chosen from as asked; files of users are checked."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from weaver_core.errors import InputError
from weaver_core.evaluation import prompt_sets
from weaver_core.evaluation.prompt_sets import FOLDER, load_prompts
from weaver_core.evaluation.records import file_sha256
from weaver_core.evaluation.run_folder import prompts_hash

HAN = re.compile(r"[\u4e00-\u9fff]")
ENGLISH_NUMBERS = dict(enumerate("one|single two|both|pair three four five six seven eight nine ten eleven twelve".split(), 1))
CHINESE_NUMBERS = dict(enumerate("一 两|二 三 四 五 六 七 八 九 十 十一 十二".split(), 1))
CATEGORIES = {"recipe", "travel", "craft", "picture story", "science", "history", "fashion", "interior", "fitness",
              "pets and nature", "product post", "event recap", "children's learning", "character sheet"}


@pytest.fixture(scope="module")
def full():
    return load_prompts("weaver-style").prompts


@pytest.fixture(scope="module")
def lite():
    return load_prompts("weaver-style-lite").prompts


def wanted(prompt) -> str:
    middle = (prompt.want.images_min + prompt.want.images_max) // 2
    return str(middle) if middle <= 5 else "6-8" if middle <= 8 else "9-12" if middle <= 12 else "more"


def pictures(prompt) -> list:
    return [block for block in prompt.input if block.type == "image"]


def recurring(prompt) -> bool:
    return any(entity.recurs for entity in prompt.entities)


def one_line(prompt) -> str:
    return " ".join(prompt.text.split())


def marginals(prompts) -> dict[str, int]:
    """The rows of the README's table, counted."""
    images, inputs = Counter(map(wanted, prompts)), Counter(len(pictures(prompt)) for prompt in prompts)
    return {
        "all": len(prompts),
        **{f"{name} image{'' if name == '1' else 's'} wanted": images[name] for name in ("1", "2", "3", "4", "5", "6-8", "9-12")},
        "number said in the text": sum(prompt.want.explicit for prompt in prompts),
        "text only": inputs[0], "1 input picture": inputs[1], "2 input pictures": inputs[2], "3 input pictures": inputs[3],
        "English": sum(prompt.lang == "en" for prompt in prompts), "Chinese": sum(prompt.lang == "zh" for prompt in prompts),
        "with a recurring entity": sum(map(recurring, prompts)),
    }


AIMS = {"1 image wanted": 10, "2 images wanted": 15, "3 images wanted": 25, "4 images wanted": 22, "5 images wanted": 13,
        "6-8 images wanted": 12, "9-12 images wanted": 3, "number said in the text": 50, "text only": 60, "English": 85,
        "Chinese": 15, "with a recurring entity": 60}


# ---- the set

@pytest.mark.parametrize("row", AIMS)
def test_the_full_set_meets_its_marginals_within_one_and_a_half_points(full, row):
    assert 100 * marginals(full)[row] / 512 == pytest.approx(AIMS[row], abs=1.5)


def test_every_category_has_its_36_or_37_prompts(full):
    counts = Counter(prompt.category for prompt in full)
    assert len(full) == 512 and set(counts) == CATEGORIES and set(counts.values()) == {36, 37}


def test_every_prompt_has_the_agreed_form(full):
    for prompt in full:
        assert re.fullmatch(r"[a-z]+-\d{3}", prompt.id) and prompt.license == "CC0-1.0" and prompt.source == "wan-weaver"
        assert 2 <= len(prompt.checks) <= 5 and len(pictures(prompt)) <= 3
        assert 1 <= prompt.want.images_min <= prompt.want.images_max <= 12
        assert all(entity.name for entity in prompt.entities)
        assert len({check.q for check in prompt.checks}) == len(prompt.checks)
        assert all(check.q.endswith(("?", "？")) for check in prompt.checks)


def test_ids_and_texts_are_unique(full):
    assert len({prompt.id for prompt in full}) == len({one_line(prompt).casefold() for prompt in full}) == 512


def test_no_two_prompts_share_a_run_of_six_words_or_eight_signs(full):
    owners: dict[tuple, str] = {}
    for prompt in full:
        words, run = (HAN.findall(prompt.text), 8) if prompt.lang == "zh" else (re.findall(r"\w+", prompt.text.lower()), 6)
        for start in range(len(words) - run + 1):
            key = tuple(words[start:start + run])
            assert owners.setdefault(key, prompt.id) == prompt.id, f"{prompt.id} repeats {owners[key]}: {key}"


def test_the_texts_are_in_their_language_and_of_many_lengths(full):
    for prompt in full:
        for text in (prompt.text, *(check.q for check in prompt.checks)):
            assert bool(HAN.search(text)) == (prompt.lang == "zh"), f"{prompt.id}: {text}"
    lengths = [len(one_line(prompt).split()) for prompt in full if prompt.lang == "en"]
    assert min(lengths) >= 5 and 90 < max(lengths) <= 125
    assert sum(length < 12 for length in lengths) > 25 and sum(length > 40 for length in lengths) > 25


def test_an_explicit_number_of_images_is_named_in_the_text(full):
    for prompt in full:
        if prompt.want.explicit:
            for number in {prompt.want.images_min, prompt.want.images_max}:
                words = rf"(?<!\d){number}(?!\d)|\b({ENGLISH_NUMBERS[number]})\b|{CHINESE_NUMBERS[number]}"
                assert re.search(words, one_line(prompt).lower()), f"{prompt.id} does not name {number}: {one_line(prompt)}"


def test_every_picture_is_small_used_and_the_one_that_the_prompts_name(full):
    named = {block.path: block.sha256 for prompt in full for block in pictures(prompt)}
    files = sorted((FOLDER / "images").iterdir())
    assert {f"images/{file.name}" for file in files} == set(named)
    assert sum(file.stat().st_size for file in files) < 2.5e6
    for file in files:
        assert file_sha256(file) == named[f"images/{file.name}"]
        with Image.open(file) as image:
            assert image.format == "PNG" and max(image.size) <= 256


def test_the_readme_tells_the_numbers_as_counted(full, lite):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    few = marginals(lite)
    for row, count in marginals(full).items():
        aim = AIMS.get(row, "")
        line = f"| {row} | {count} | {100 * count / 512:.1f} | {aim} | {few[row]} |".replace("|  |", "| |")
        assert line in text, line
    assert f"{sum(len(prompt.checks) for prompt in full):,} checks" in text
    assert f"{len(list((FOLDER / 'images').iterdir()))} input pictures" in text


# ---- frozen

def test_the_built_in_sets_have_their_frozen_hashes(full, lite):
    lines = (FOLDER / "weaver_style.sha256").read_text().split("\n")
    assert lines == [f"{prompts_hash(full)}  weaver-style", f"{prompts_hash(lite)}  weaver-style-lite", ""]


@pytest.mark.parametrize("name", ["weaver-style", "weaver-style-lite"])
def test_an_edited_built_in_set_is_refused(tmp_path, monkeypatch, name):
    shutil.copytree(FOLDER, tmp_path / "prompts")
    monkeypatch.setattr(prompt_sets, "FOLDER", tmp_path / "prompts")
    assert load_prompts(name).prompts
    lite = json.loads((FOLDER / "weaver_style_lite.json").read_text())
    path = tmp_path / "prompts" / "weaver_style.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line.replace("?", "??", 1) if f'"{lite[0]}"' in line else line for line in lines), encoding="utf-8")
    with pytest.raises(InputError, match="is not the published one"):
        load_prompts(name)


# ---- the lite split

def test_lite_has_48_prompts_three_or_four_of_every_category(lite):
    counts = Counter(prompt.category for prompt in lite)
    assert len(lite) == 48 and set(counts) == CATEGORIES and set(counts.values()) == {3, 4}


def test_lite_is_balanced_like_the_full_set(full, lite):
    counts = marginals(lite)
    for row, count in marginals(full).items():
        assert counts[row] == pytest.approx(count * 48 / 512, abs=1), row


# ---- choosing

def test_shards_partition_the_set_and_do_not_depend_on_what_else_is_chosen(full):
    shards = [load_prompts("weaver-style", shard=f"{k}/5").prompts for k in range(1, 6)]
    assert sorted(prompt.id for shard in shards for prompt in shard) == sorted(prompt.id for prompt in full)
    assert all(len(shard) > 60 for shard in shards)
    some = load_prompts("weaver-style", shard="2/5", category="travel").prompts
    assert some == tuple(prompt for prompt in shards[1] if prompt.category == "travel")


def test_ids_category_and_limit_choose_in_the_order_of_the_set():
    ids = ["travel-003", "recipe-002", "recipe-001"]
    assert [prompt.id for prompt in load_prompts("weaver-style", ids=ids).prompts] == ["recipe-001", "recipe-002", "travel-003"]
    assert [prompt.id for prompt in load_prompts("weaver-style", ids=ids, category="recipe", limit=1).prompts] == ["recipe-001"]


def test_the_hash_is_that_of_the_chosen_prompts(full):
    assert load_prompts("weaver-style", limit=3).sha256 == prompts_hash(full[:3]) != load_prompts("weaver-style", limit=4).sha256


@pytest.mark.parametrize("wrong, message", [
    ({"ids": ["recipe-999"]}, "has no 'recipe-999'"), ({"category": "poetry"}, "there are character sheet, children's"),
    ({"shard": "0/4"}, "expected k/n"), ({"shard": "5/4"}, "expected k/n"), ({"shard": "a"}, "expected k/n"),
    ({"limit": 0}, "expected at least 1"),
])
def test_wrong_choices_are_explained(wrong, message):
    with pytest.raises(InputError, match=message):
        load_prompts("weaver-style-lite", **wrong)


def test_picturebook_is_the_split_with_its_reference_pictures_drawn():
    found = load_prompts("picturebook")
    assert len(found.prompts) == 200 and found.sha256 == prompts_hash(found.prompts)
    images = [block for prompt in found.prompts for block in pictures(prompt)]
    assert images and all(file_sha256(found.folder / block.path) == block.sha256 for block in images)


# ---- a user's file

@pytest.fixture
def own(tmp_path, full):
    """A function that writes two prompts, the second changed as told, beside a picture; returns the file."""
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")

    def write(**changes):
        first = replace(full[0], id="a", input=(replace(full[1].input[0], path="red.png", sha256=""), full[0].input[0]))
        second = replace(full[0], id="b").to_json() | changes
        path = tmp_path / "mine.jsonl"
        path.write_text(json.dumps(first.to_json()) + "\n" + json.dumps(second) + "\n", encoding="utf-8")
        return path

    return write


def test_a_file_of_the_user_s_is_a_set_and_its_pictures_are_hashed(own, tmp_path):
    found = load_prompts(own())
    assert (found.name, found.folder, [prompt.id for prompt in found.prompts]) == ("mine", tmp_path, ["a", "b"])
    assert found.prompts[0].input[0].sha256 == file_sha256(tmp_path / "red.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "red.png")
    assert load_prompts(own()).sha256 != found.sha256


@pytest.mark.parametrize("changes, message", [
    ({"id": "a"}, "occurs twice"),
    ({"v": 2}, "reads version 1"),
    ({"input": []}, "the input is empty"),
    ({"input": [{"type": "video", "text": "x"}]}, "an input is"),
    ({"input": [{"type": "image", "path": "../red.png"}]}, "leads out of"),
    ({"input": [{"type": "image", "path": "blue.png"}]}, "blue.png is missing"),
    ({"input": [{"type": "image", "path": "red.png", "sha256": "0" * 64}]}, "another image than the one"),
    ({"want": {"images_min": 3, "images_max": 2, "explicit": True}}, "wants 3 to 2 images"),
    ({"checks": [{"q": "Is it?", "scope": "sound", "need": "yes"}]}, "a check's scope"),
    ({"category": ""}, "category is ''"),
    ({"colour": "red"}, "unknown key 'colour'"),
])
def test_a_prompt_that_cannot_be_used_is_named_with_the_reason(own, changes, message):
    with pytest.raises(InputError, match=message):
        load_prompts(own(**changes))


def test_a_set_that_is_not_there_names_the_built_in_ones(tmp_path):
    with pytest.raises(InputError, match="built in are weaver-style, weaver-style-lite, picturebook"):
        load_prompts(tmp_path / "none.jsonl")
