"""The nodes behind the book view on a small pair: what the page is told, what its changes do, and the closed loop."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from small_pair import FeatureTellingPlanner, ShapeVisualizer
from stub_host import load_pack, unload_pack

MARKUP = """# Robin's day
Robin wakes. <imagine cast="Robin">A fox wakes.</imagine><BOI>
He runs. <imagine cast="Robin">A fox runs.</imagine><BOI>
The moon is up. <imagine references="none">A moon.</imagine><BOI>
Good night.
"""
PROMPTS = ["A fox wakes.", "A fox runs.", "A moon."]


@pytest.fixture
def pack(tmp_path):
    (tmp_path / "output").mkdir()
    part = load_pack(tmp_path / "output")
    server = sys.modules["server"].PromptServer.instance
    yield SimpleNamespace(part=part, output=tmp_path / "output", errors=part("weaver_core.errors"), server=server)
    unload_pack()


@pytest.fixture
def visualizer():
    return ShapeVisualizer()


@pytest.fixture
def model(pack, visualizer):
    return pack.part("nodes.values").HostedModel(
        name="small", embedded=False, model=None, planner=FeatureTellingPlanner(MARKUP), visualizer=visualizer, patcher=object()
    )


def visualize(pack, model, changes=(), seed=3, markup=MARKUP, **more):
    (plan, *_) = pack.part("nodes.write_plan").WeaverWritePlan.execute(markup=markup).args
    more = {name: [value] for name, value in more.items()} | {"page_changes": [json.dumps(changes) if changes else ""]}
    return pack.part("nodes.visualize").WeaverVisualizePlan.execute([model], [plan], [seed], [0], [0.0], [0.0], **more)


def interleave(pack, model, changes=(), **more):
    more = {name: [value] for name, value in more.items()} | {"page_changes": [json.dumps(changes) if changes else ""]}
    node = pack.part("nodes.interleave").WeaverInterleave
    return node.execute([model], ["A fox's day."], [0], [3], [0.7], [0], [0.0], [0.0], **more)


def change(number: int, **fields) -> dict:
    return {"page": f"p{number}", "of": PROMPTS[number - 1], **fields}


def pixels(output) -> list[bytes]:
    return [output.args[0].images[f"p{number}"].read().tobytes() for number in (1, 2, 3)]


def drawn(visualizer) -> list[str]:
    """The prompts of what was drawn since the last look."""
    prompts = [shot.prompt for shot in visualizer.shots]
    visualizer.shots.clear()
    return prompts


def book(pack, output) -> dict:
    preview = pack.part("nodes.preview").WeaverPreviewStory
    (shown,) = preview.execute(output.args[0]).ui["weaver_story"]
    return shown


def messages(pack) -> list[dict]:
    assert {(event, sid) for event, _, sid in pack.server.sent} <= {("weaver.book", "the-page")}
    return [data for _, data, _ in pack.server.sent]


# ---- what a change does


@pytest.mark.parametrize("make", [visualize, interleave])
def test_a_rerolled_page_is_drawn_alone_and_comes_back_when_the_change_is_cleared(pack, model, visualizer, make):
    before = pixels(make(pack, model))
    drawn(visualizer)
    rolled = pixels(make(pack, model, [change(3, seed=77)]))
    assert drawn(visualizer) == ["A moon."] and rolled[:2] == before[:2] and rolled[2] != before[2]
    assert pixels(make(pack, model)) == before and pixels(make(pack, model, [change(3, seed=77)])) == rolled
    assert drawn(visualizer) == []


@pytest.mark.parametrize("make", [visualize, interleave])
def test_pages_that_were_drawn_from_a_changed_one_are_stale_until_they_are_redrawn(pack, model, visualizer, make):
    make(pack, model)
    drawn(visualizer)
    changes = [change(1, prompt="A fox yawns.")]
    shown = book(pack, make(pack, model, changes))
    assert drawn(visualizer) == ["A fox yawns."] and [page.get("stale") for page in shown["pages"][:3]] == [None, ["p1"], None]
    make(pack, model, changes, redraw_stale=True)
    assert drawn(visualizer) == ["A fox runs."]
    shown = book(pack, make(pack, model, changes))
    assert drawn(visualizer) == [] and not any(page["stale"] for page in shown["pages"])


def test_a_page_can_be_drawn_from_another(pack, model, visualizer):
    output = visualize(pack, model, [change(3, reference="p2")])
    assert [used.source for used in output.args[0].images["p3"].rendering.references] == ["p2"]


def test_a_locked_picture_stays_under_another_seed_of_the_story_and_after_a_restart(pack, model, visualizer):
    first = visualize(pack, model)
    kept = book(pack, first)["pages"][1]["picture"]["kept"]
    drawn(visualizer)
    locked = [change(2, locked=True, kept=kept)]
    again = visualize(pack, model, locked, seed=4)
    assert drawn(visualizer) == ["A fox wakes.", "A moon."]
    assert [old == new for old, new in zip(pixels(first), pixels(again), strict=True)] == [False, True, False]
    assert book(pack, again)["pages"][1]["locked"] is True
    visualize(pack, model, [change(2, seed=9)])
    assert pixels(visualize(pack, model, locked)) == pixels(first), "the picture of the lock counts, not the last one drawn"


def test_a_lock_in_the_plan_finds_the_picture_under_another_seed_and_only_for_its_own_dense_prompt(pack, model, visualizer):
    first = pixels(visualize(pack, model))
    drawn(visualizer)
    locked = MARKUP.replace("<imagine references", "<imagine locked references")
    again = pixels(visualize(pack, model, seed=4, markup=locked))
    assert drawn(visualizer) == PROMPTS[:2] and [old == new for old, new in zip(first, again, strict=True)] == [False, False, True]
    other = pixels(visualize(pack, model, seed=4, markup=locked.replace("A moon.", "A whale.")))
    assert drawn(visualizer) == ["A whale."] and other[2] != first[2]


def test_a_locked_picture_that_is_gone_is_drawn_anew_and_told(pack, model):
    output = visualize(pack, model, [change(2, locked=True, kept={"draft": "story-0000000000", "key": "0" * 32})])
    assert len(output.args[0].images) == 3 and any("no longer in weaver-drafts" in note for note in output.ui["weaver_notes"])


@pytest.mark.parametrize("draft", ["../outside", "/etc", "C:\\x", "a/b", "..", "a\x00b", "x" * 300])
def test_a_lock_never_leads_out_of_the_drafts(pack, model, draft):
    text = json.dumps([change(2, locked=True, kept={"draft": draft, "key": "0" * 32})])
    said = pack.part("nodes.page_changes").page_changes_are_usable(text)
    if said is True:  # then it is refused before anything is read
        with pytest.raises(pack.errors.InputError, match="no name of a draft"):
            visualize(pack, model, json.loads(text))


def test_what_is_changed_and_what_is_passed_over_is_told(pack, model):
    notes = visualize(pack, model, [change(1, seed=5), {"page": "p2", "of": "A dragon.", "seed": 1}]).ui["weaver_notes"]
    assert "changed in the book view: p1" in notes and any("p2" in note and "passed over" in note for note in notes)


def test_bad_changes_are_named_before_anything_runs(pack):
    for module, name in (("visualize", "WeaverVisualizePlan"), ("interleave", "WeaverInterleave")):
        node = getattr(pack.part(f"nodes.{module}"), name)
        assert node.validate_inputs(page_changes=["[]"]) is True and "not JSON" in node.validate_inputs(page_changes=["{"])


# ---- what the page is told


def test_the_book_has_everything_to_look_at_and_no_path_of_this_computer(pack, model):
    shown = book(pack, visualize(pack, model))
    assert [page["prompt"] for page in shown["pages"]] == [*PROMPTS, None] and shown["pages"][3]["texts"] == ["Good night."]
    second = shown["pages"][1]["picture"]
    assert second["references"] == [{"name": "p1", "picture": None}] and second["seed"].isdigit() and second["size"] == [32, 32]
    assert str(pack.output) not in json.dumps(shown)


def test_the_seeds_before_the_preview_are_told_but_not_those_beside_it(pack):
    prompt = {
        "1": {"inputs": {"seed": 7, "prompt": "x"}}, "2": {"inputs": {"plan": ["1", 0], "noise_seed": 8, "seed": ["9", 0]}},
        "3": {"inputs": {"story": ["2", 0], "other": ["2", 1]}}, "4": {"inputs": {"seed": 5}}, "9": {"inputs": {"seed": True}},
    }  # fmt: skip
    seeds_before = pack.part("nodes.seeds").seeds_before
    assert sorted(seeds_before(prompt, "3")) == [["1", "seed", 7], ["2", "noise_seed", 8]]
    prompt["1"]["inputs"]["seed"] = ["9", 0]
    prompt["9"] = {"inputs": {"value": 11, "steps": 3}}
    assert sorted(seeds_before(prompt, "3")) == [["2", "noise_seed", 8], ["9", "value", 11]], "that of a primitive"


def test_messages_name_run_node_and_workflow_and_end_with_the_whole_story(pack, model):
    output = visualize(pack, model)
    told = messages(pack)
    assert all((one["prompt_id"], one["node"], one["workflow"]) == ("run-1", "7", "the-workflow") for one in told)
    assert [one["fresh"] for one in told] == [True] + [False] * (len(told) - 1)
    pages = {}
    for one in told:
        pages |= one["pages"]
    final = book(pack, output)["pages"]
    assert [{name: pages[number][name] for name in final[number]} for number in range(4)] == final


def test_text_comes_before_pictures_and_messages_are_few_however_many_events_there_are(pack, model, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    live = pack.part("nodes.live_book")
    events = pack.part("weaver_core.events")
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: clock.now))
    listener = live.LiveBook(pack.part("nodes.visualize").WeaverVisualizePlan.hidden)
    for _ in range(1000):  # ten seconds of a fast planner
        clock.now += 0.01
        listener.hear(events.TextDelta(text="word ", kind="text", segment_id="t1"))
    listener.close()
    told = messages(pack)
    assert 40 <= len(told) <= 52 and told[-1]["pages"][0]["texts"] == [("word " * 1000).strip()]
    lengths = [len(one["pages"][0]["texts"][0]) for one in told]
    assert lengths == sorted(lengths) and told[3]["pages"][0]["now"] is True and told[-1]["pages"][0]["now"] is False


def test_of_a_planner_that_breaks_off_the_book_has_all_that_was_written(pack, model):
    class BreakingOff(FeatureTellingPlanner):
        def write(self, request, history, *, options, cancel):
            yield from ("# Robin's day\n", "Robin wakes ", "up and ", "looks out.")
            raise pack.errors.WeaverError("the planner is gone")

    model = replace(model, planner=BreakingOff())
    with pytest.raises(pack.errors.WeaverError, match="is gone"):
        pack.part("nodes.plan").WeaverPlan.execute([model], ["A fox's day."], [0], [3], [0.7])
    last = messages(pack)[-1]["pages"][0]
    assert last["texts"] == ["Robin wakes up and looks out."] and last["now"] is False


def test_a_page_that_cannot_be_told_does_not_stop_the_story(pack, model):
    def fail(*_):
        raise OSError("the page is gone")

    pack.server.send_sync = fail
    assert len(visualize(pack, model).args[0].images) == 3


# ---- the closed loop


def test_every_image_goes_back_to_the_planner_before_it_writes_on(pack, model):
    story, tensors, planned = interleave(pack, model).args
    histories = [history for history, _ in model.planner.calls]
    assert [sum(not isinstance(item, str) for item in history) for history in histories] == [0, 1, 2, 3]
    assert story.plan == planned.plan and [image.prompt for image in story.plan.images] == PROMPTS
    assert len(tensors) == 3 and tuple(tensors[0].shape) == (1, 32, 32, 3)
    assert all(one["seeds"] == [] for one in messages(pack))
    kinds = [[bool(page["picture"]) for page in one["pages"].values()] for one in messages(pack)]
    assert any(kinds) and story.plan.texts[-1].text == "Good night."


def test_a_woven_story_is_found_again_and_another_temperature_is_another_story(pack, model, visualizer):
    first = pixels(interleave(pack, model))
    calls, shots = len(model.planner.calls), len(visualizer.shots)
    assert pixels(interleave(pack, model)) == first
    assert (len(model.planner.calls), len(visualizer.shots)) == (calls, shots)
    assert len(list((pack.output / "weaver-drafts").iterdir())) == 1
    pack.part("nodes.interleave").WeaverInterleave.execute([model], ["A fox's day."], [0], [3], [0.2], [0], [0.0], [0.0])
    assert len(list((pack.output / "weaver-drafts").iterdir())) == 2


def test_another_style_is_another_story(pack, model):
    asked = pack.part("weaver_core.request").Request
    for number, style in enumerate(("watercolour", "ink", "ink"), start=1):
        interleave(pack, model, request=asked(prompt="A fox's day.", num_images=3, style=style))
        assert len(list((pack.output / "weaver-drafts").iterdir())) == min(number, 2)


def test_an_interrupted_loop_goes_on_where_it_was(pack, model, visualizer, monkeypatch):
    class Interrupted(BaseException):  # what ComfyUI raises
        pass

    host = pack.part("nodes.host")
    steps = []

    def stop():
        if host.interrupted():
            raise Interrupted

    monkeypatch.setattr(host, "interrupted", lambda: len(visualizer.shots) == 2 and (steps.append(1) or len(steps) > 3))
    monkeypatch.setattr(host, "stop_if_interrupted", stop)
    with pytest.raises(Interrupted):
        interleave(pack, model)
    (draft,) = (pack.output / "weaver-drafts").iterdir()
    assert [path.name.split("-")[0] for path in (draft / "images").iterdir()] == ["p1"]
    monkeypatch.setattr(host, "interrupted", lambda: False)
    drawn(visualizer)
    output = interleave(pack, model)
    assert drawn(visualizer) == PROMPTS[1:] and len(output.args[0].images) == 3


def test_an_image_that_fails_is_told_and_the_others_are_kept(pack, model, visualizer):
    visualizer.fails_on = "runs"
    with pytest.raises(pack.errors.WeaverError, match=r"1 of 3 images could not be drawn.*The other 2 are kept"):
        interleave(pack, model)
    visualizer.fails_on = ""
    drawn(visualizer)
    interleave(pack, model)
    assert drawn(visualizer) == ["A fox runs."]
