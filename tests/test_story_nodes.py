"""The nodes that write a plan by hand, take a story apart, open it, and change a page of it, on a small visualizer."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small_pair import ShapeVisualizer, TellingPlanner
from stub_host import REPOSITORY, load_pack, unload_pack

MARKUP = """# Robin's day
<cast name="Robin" look="an orange fox">
Robin wakes. <imagine cast="Robin">A fox wakes.</imagine>
He runs. <imagine cast="Robin" aspect="4:3">A fox runs.</imagine>
The moon is up. <imagine references="none">A moon.</imagine>
Good night.
"""
NODES = {
    "write_plan": "WeaverWritePlan", "pick_image": "WeaverPickImage", "story_parts": "WeaverStoryParts",
    "load_story": "WeaverLoadStory", "replace_image": "WeaverReplaceImage", "reroll_image": "WeaverRerollImage",
}  # fmt: skip
TEAL = torch.zeros(1, 24, 48, 3) + torch.tensor([0.0, 0.5, 0.5])


@pytest.fixture
def pack(tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    part = load_pack(output)

    def node(name):
        return getattr(part(f"nodes.{name}"), NODES[name])

    yield SimpleNamespace(part=part, node=node, output=output, errors=part("weaver_core.errors"))
    unload_pack()


@pytest.fixture
def visualizer():
    return ShapeVisualizer()


@pytest.fixture
def model(pack, visualizer):
    return pack.part("nodes.values").HostedModel(
        name="small", embedded=False, model=None, planner=TellingPlanner(), visualizer=visualizer, patcher=None
    )


@pytest.fixture
def story(pack, model, visualizer):
    """Three pages drawn by Visualize Plan; the second was drawn from the first."""
    plan = run(pack, "write_plan", markup=MARKUP)[0]
    drawn = pack.part("nodes.visualize").WeaverVisualizePlan.execute([model], [plan], [3], [0], [0.0], [0.0])
    visualizer.shots.clear()
    return drawn.args[0]


@pytest.fixture
def saved(pack, story) -> str:
    """The story written by Save Story's own means, as a folder of the output folder."""
    return save(pack, story, "weaver/story_00001_")


def save(pack, story, name: str) -> str:
    with pack.part("weaver_core.story").StoryFolder.create(pack.output / name, story.request, made_with="small") as folder:
        folder.set_plan(story.plan)
        for image_id, drawn in story.images.items():
            folder.keep(drawn.rendering, drawn.read())
        folder.finish()
    return name


def run(pack, name, **inputs):
    return pack.node(name).execute(**inputs).args


def notes(pack, name, **inputs) -> str:
    return "\n".join(pack.node(name).execute(**inputs).ui["weaver_notes"])


def pixels(story) -> dict[str, bytes]:
    return {image_id: drawn.read().tobytes() for image_id, drawn in story.images.items()}


# ---- every node


@pytest.mark.parametrize("name", NODES)
def test_the_schema_explains_itself(pack, name):
    schema = pack.node(name).GET_SCHEMA()
    assert schema.node_id == NODES[name] and schema.category == "Weaver" and schema.description and schema.search_aliases
    sockets = [*schema.inputs, *schema.outputs]
    assert all(socket.options.get("tooltip") for socket in sockets)
    assert len({socket.id for socket in schema.outputs}) == len(schema.outputs)


@pytest.mark.parametrize("name", NODES)
def test_the_help_page_names_every_input_and_output(pack, name):
    schema = pack.node(name).GET_SCHEMA()
    page = (REPOSITORY / "web" / "docs" / f"{NODES[name]}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {schema.display_name}\n") and "**Example.**" in page
    shown = [socket.id for socket in schema.inputs] + [socket.options["display_name"] for socket in schema.outputs]
    assert [word for word in shown if f"| {word}" not in page and f", {word}" not in page] == []


@pytest.mark.parametrize("name", ["pick_image", "story_parts", "replace_image", "reroll_image"])
def test_a_word_where_a_story_belongs_is_named(pack, model, name):
    more = {"replace_image": {"image": TEAL}, "reroll_image": {"weaver_model": model}}.get(name, {})
    with pytest.raises(pack.errors.InputError, match="got str where it needs the output of Visualize Plan"):
        run(pack, name, story="a story", **more)


@pytest.mark.parametrize("name", ["pick_image", "replace_image", "reroll_image"])
def test_a_page_that_the_story_does_not_have_is_refused_with_those_it_has(pack, story, model, name):
    more = {"replace_image": {"image": TEAL}, "reroll_image": {"weaver_model": model}}.get(name, {})
    with pytest.raises(pack.errors.InputError, match="no image 4: the story has 3 images; choose 1 to 3"):
        run(pack, name, story=story, page=4, **more)


# ---- Write Plan


def test_markup_becomes_a_plan_and_comes_back_with_ids(pack):
    planned, markup = run(pack, "write_plan", markup=MARKUP)
    assert [image.prompt for image in planned.plan.images] == ["A fox wakes.", "A fox runs.", "A moon."]
    assert planned.request.prompt == "Robin's day" and '<imagine id="p2"' in markup
    assert run(pack, "write_plan", markup=markup)[0].plan == planned.plan


def test_a_plan_in_json_is_read_as_well(pack):
    plan = run(pack, "write_plan", markup=MARKUP)[0].plan
    assert run(pack, "write_plan", markup="\n" + plan.dumps())[0].plan == plan


def test_what_is_odd_in_the_markup_is_told_with_its_place(pack):
    told = notes(pack, "write_plan", markup='One.\n<imagine colour="red">A fox.</imagine>')
    assert "line 2, column" in told and "'colour'" in told


def test_what_a_chat_model_says_around_the_story_is_left_out_and_told(pack):
    pasted = f"<think>hm</think>\nSure! Here is your story:\n```markdown\n{MARKUP}```\nLet me know if you want more!"
    assert run(pack, "write_plan", markup=pasted)[0].plan == run(pack, "write_plan", markup=MARKUP)[0].plan
    assert "left out" in notes(pack, "write_plan", markup=pasted) and notes(pack, "write_plan", markup=MARKUP) == ""


def test_the_prompt_can_be_said_apart_from_the_title(pack):
    assert run(pack, "write_plan", markup=MARKUP, prompt="a day of a fox")[0].request.prompt == "a day of a fox"


@pytest.mark.parametrize("markup", ["", " \n ", "x" * (4 * 2**20 + 1)], ids=["empty", "blank", "huge"])
def test_markup_that_cannot_be_a_story_is_refused_before_anything_runs(pack, markup):
    refusal = pack.node("write_plan").validate_inputs(markup=markup)
    assert "the markup" in refusal and len(refusal) < 200
    with pytest.raises(pack.errors.InputError, match="the markup"):
        run(pack, "write_plan", markup=markup)


def test_a_text_as_long_as_is_allowed_is_read(pack):
    assert len(run(pack, "write_plan", markup="Sure! A line.\n" * 290_000)[0].plan.texts) == 1


@pytest.mark.parametrize("markup", ['{"format": "weaver-plan"}', "{not json", "# Only a title"])
def test_what_is_no_plan_is_refused_with_a_sentence(pack, markup):
    with pytest.raises(pack.errors.InputError):
        run(pack, "write_plan", markup=markup)


def test_a_plan_without_images_is_told(pack):
    assert "no images" in notes(pack, "write_plan", markup="Only text.")


# ---- Pick Image


def test_a_page_comes_with_its_text_prompt_and_seed(pack, story):
    image, text, prompt, seed = run(pack, "pick_image", story=story, page=2)
    assert tuple(image.shape) == (1, 30, 40, 3) and (text, prompt) == ("He runs.", "A fox runs.")
    assert seed == story.images["p2"].rendering.seed


def test_the_last_page_has_the_text_behind_it_too(pack, story):
    assert run(pack, "pick_image", story=story, page=3)[1] == "The moon is up.\nGood night."


# ---- Story to Images and Text


def test_images_come_as_a_list_in_their_own_sizes_and_as_a_batch_in_one(pack, story):
    images, batch, texts, *_ = run(pack, "story_parts", story=story)
    assert [tuple(image.shape[1:3]) for image in images] == [(32, 32), (30, 40), (32, 32)]
    assert tuple(batch.shape) == (3, 32, 32, 3) and len(texts) == 3
    assert torch.equal(batch[0], images[0][0]) and torch.equal(batch[1][0], torch.ones(32, 3)), "white above the wide one"
    assert "1 of 3 images" in notes(pack, "story_parts", story=story)


def test_the_whole_text_has_the_title_and_no_prompts(pack, story):
    text, markup, plan = run(pack, "story_parts", story=story)[3:]
    assert text == "Robin's day\n\nRobin wakes.\n\nHe runs.\n\nThe moon is up.\n\nGood night."
    assert run(pack, "write_plan", markup=markup)[0].plan == story.plan == plan.plan


# ---- Load Story


def test_a_saved_story_comes_back_as_it_was(pack, story, saved):
    loaded, planned = run(pack, "load_story", story_folder=saved)
    assert (loaded.plan, loaded.request) == (story.plan, story.request) and pixels(loaded) == pixels(story)
    assert planned.plan == story.plan and notes(pack, "load_story", story_folder=saved) == ""


def test_stories_are_offered_newest_first_and_drafts_are_not(pack, story, saved):
    save(pack, story, "other")
    os.utime(pack.output / "other" / "story.jsonl", (1, 1))
    assert (pack.output / "weaver-drafts").is_dir()
    assert pack.node("load_story").GET_SCHEMA().inputs[0].options["options"] == [saved, "other"]


@pytest.mark.parametrize("name", [
    "../outside", "/outside", "weaver/../../outside", "..", ".", "", "C:\\outside", "C:outside", "weaver\\x", "a\x00b", "x" * 300,
    "weaver//story_00001_", "ä" * 200, "~", "link", "inside/link", "nothing", None, 7,
])  # fmt: skip
def test_a_name_that_leads_elsewhere_or_nowhere_is_refused(pack, story, saved, name):
    outside = save(pack, story, "../outside")
    (pack.output / "inside").mkdir()
    for link in ("link", "inside/link"):
        (pack.output / link).symlink_to(pack.output / outside, target_is_directory=True)
    with pytest.raises(pack.errors.InputError, match="story") as caught:
        run(pack, "load_story", story_folder=name)
    assert str(pack.output) not in str(caught.value) and len(str(caught.value)) < 300
    if isinstance(name, str):
        assert pack.node("load_story").validate_inputs(story_folder=name) == str(caught.value)
    assert "link" not in "".join(pack.part("nodes.load_story").story_names())


def test_a_page_that_was_exchanged_on_disk_is_left_out_and_named(pack, saved):
    next((pack.output / saved / "images").glob("p2-*")).write_bytes(b"another picture")
    loaded, _ = run(pack, "load_story", story_folder=saved)
    assert set(loaded.images) == {"p1", "p3"} and "p2 has no image" in notes(pack, "load_story", story_folder=saved)


@pytest.mark.parametrize("field, value", [("size", [float("nan"), 3]), ("size", [10**9, 3]), ("seed", -1), ("seed", 0.5)])
def test_numbers_that_no_image_has_do_not_get_in(pack, saved, field, value):
    journal = pack.output / saved / "story.jsonl"
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    next(record for record in records if record.get("segment") == "p3")[field] = value
    journal.write_text("".join(json.dumps(record) + "\n" for record in records))
    loaded, _ = run(pack, "load_story", story_folder=saved)
    assert set(loaded.images) == {"p1", "p2"}


def test_a_damaged_story_is_told_without_a_path_of_this_computer(pack, saved):
    (pack.output / saved / "plan.json").write_text("{}")
    with pytest.raises(pack.errors.StoryError) as caught:
        run(pack, "load_story", story_folder=saved)
    assert saved in str(caught.value) and str(pack.output) not in str(caught.value)


def test_a_story_that_has_changed_on_disk_is_loaded_again(pack, saved):
    stamp = pack.node("load_story").fingerprint_inputs
    before = stamp(story_folder=saved)
    assert before == stamp(story_folder=saved)
    with open(pack.output / saved / "story.jsonl", "a") as file:
        file.write('{"type": "finished"}\n')
    assert stamp(story_folder=saved) not in ("", before) and stamp(story_folder="nothing") == ""


def test_a_story_whose_text_is_not_finished_is_refused(pack, saved):
    (pack.output / saved / "plan.json").unlink()
    with pytest.raises(pack.errors.StoryError, match="weaver resume"):
        run(pack, "load_story", story_folder=saved)


# ---- Replace Image


def test_any_image_becomes_a_page_and_the_others_stay(pack, story):
    before = pixels(story)
    changed, stale = run(pack, "replace_image", story=story, image=TEAL, page=3)
    after = pixels(changed)
    assert changed.images["p3"].read().size == (48, 24) and changed.plan.segment("p3").locked and stale == ""
    assert {**after, "p3": b""} == {**before, "p3": b""} and pixels(story) == before


def test_pages_drawn_from_the_old_image_are_marked_as_stale(pack, story):
    assert run(pack, "replace_image", story=story, image=TEAL, page=1)[1] == "2"
    assert "p2 is stale: it was drawn from an earlier p1" in notes(pack, "replace_image", story=story, image=TEAL, page=1)


def test_the_mark_is_still_there_when_the_story_was_saved_and_loaded(pack, story):
    changed, _ = run(pack, "replace_image", story=story, image=TEAL, page=1)
    assert "p2 is stale" in notes(pack, "load_story", story_folder=save(pack, changed, "changed"))


def test_a_batch_is_too_much_for_one_page(pack, story):
    with pytest.raises(pack.errors.InputError, match="got 2 images for one page"):
        run(pack, "replace_image", story=story, image=TEAL.repeat(2, 1, 1, 1), page=1)


# ---- Re-roll Image

FIRST_WORDS = "A fox wakes.\nRobin: an orange fox"  # no reference shows Robin on the first page; on the second one does


def test_only_the_page_is_drawn_anew(pack, story, model, visualizer):
    before = pixels(story)
    changed, images = run(pack, "reroll_image", weaver_model=model, story=story, page=1, seed=99)
    after = pixels(changed)
    assert [(shot.prompt, shot.seed) for shot in visualizer.shots] == [(FIRST_WORDS, 99)]
    assert after["p1"] != before["p1"] and {**after, "p1": b""} == {**before, "p1": b""} and len(images) == 3
    assert changed.plan.segment("p1").seed == 99 and pixels(story) == before


def test_stale_pages_are_told_or_follow(pack, story, model, visualizer):
    told = notes(pack, "reroll_image", weaver_model=model, story=story, page=1, seed=99)
    assert "p2 was drawn from an earlier p1" in told
    changed, _ = run(pack, "reroll_image", weaver_model=model, story=story, page=1, seed=98, redraw_stale=True)
    assert [shot.prompt for shot in visualizer.shots] == [FIRST_WORDS, FIRST_WORDS, "A fox runs."]
    assert visualizer.shots[-1].references[0].tobytes() == changed.images["p1"].read().tobytes()


def test_after_a_replaced_image_the_stale_pages_can_follow_alone(pack, story, model, visualizer):
    replaced, _ = run(pack, "replace_image", story=story, image=TEAL, page=1)
    changed, _ = run(pack, "reroll_image", weaver_model=model, story=replaced, page=0, redraw_stale=True)
    assert [shot.prompt for shot in visualizer.shots] == ["A fox runs."]
    assert changed.images["p1"] == replaced.images["p1"] and changed.plan == replaced.plan


def test_the_same_re_roll_draws_nothing_even_when_all_is_forgotten(pack, story, model, visualizer):
    first, _ = run(pack, "reroll_image", weaver_model=model, story=story, page=2, seed=99)
    again, _ = run(pack, "reroll_image", weaver_model=model, story=story, page=2, seed=99)
    assert len(visualizer.shots) == 1 and again.images == first.images


def test_without_anything_to_draw_it_says_so(pack, story, model, visualizer):
    with pytest.raises(pack.errors.InputError, match="page is 0 and redraw_stale is off"):
        run(pack, "reroll_image", weaver_model=model, story=story, page=0)
    assert "nothing was drawn" in notes(pack, "reroll_image", weaver_model=model, story=story, page=0, redraw_stale=True)
    assert visualizer.shots == []


def test_a_replaced_page_is_locked(pack, story, model):
    replaced, _ = run(pack, "replace_image", story=story, image=TEAL, page=1)
    with pytest.raises(pack.errors.InputError, match="p1 is locked"):
        run(pack, "reroll_image", weaver_model=model, story=replaced, page=1, seed=5)


def test_a_page_that_fails_is_an_error_and_the_story_stays(pack, story, model, visualizer):
    before, visualizer.fails_on = pixels(story), "runs"
    with pytest.raises(pack.errors.WeaverError, match="p2 could not be drawn.*out of paint"):
        run(pack, "reroll_image", weaver_model=model, story=story, page=2, seed=5)
    assert pixels(story) == before


def test_another_model_than_the_storys_is_told(pack, story, model, visualizer):
    visualizer.fingerprint = "shapes-2"
    assert "was drawn with small, not with small as it is now" in notes(
        pack, "reroll_image", weaver_model=model, story=story, page=3, seed=5
    )


def test_the_policy_of_a_story_stays_with_it(pack, story, model):
    alone = replace(story, policy="none")
    changed, _ = run(pack, "reroll_image", weaver_model=model, story=alone, page=2, seed=99)
    assert changed.policy == "none" and changed.images["p2"].rendering.references == ()
    assert run(pack, "reroll_image", weaver_model=model, story=story, page=2, seed=99)[0].images["p2"].rendering.references
    with pack.part("weaver_core.story").StoryFolder.create(pack.output / "alone", alone.request, policy="none") as folder:
        folder.set_plan(alone.plan)
    assert run(pack, "load_story", story_folder="alone")[0].policy == "none"


def test_the_seed_of_a_page_is_that_of_the_drawing_that_was_kept(pack, story):
    drawn = story.images["p2"]
    again = replace(drawn, rendering=replace(drawn.rendering, drawn_seed=4711))
    assert run(pack, "pick_image", story=replace(story, images=story.images | {"p2": again}), page=2)[3] == 4711


def test_a_loaded_story_is_changed_in_drafts_not_in_its_folder(pack, saved, model):
    files = {path: path.stat().st_mtime_ns for path in (pack.output / saved).rglob("*")}
    loaded, _ = run(pack, "load_story", story_folder=saved)
    changed, _ = run(pack, "reroll_image", weaver_model=model, story=loaded, page=3, seed=99)
    assert {path: path.stat().st_mtime_ns for path in (pack.output / saved).rglob("*")} == files
    assert pack.output / "weaver-drafts" in changed.images["p3"].path.parents


def test_a_page_whose_file_is_gone_is_named(pack, story, model):
    shutil.rmtree(pack.output / "weaver-drafts")
    with pytest.raises(pack.errors.StoryError, match="no longer"):
        run(pack, "reroll_image", weaver_model=model, story=story, page=3, seed=5)
