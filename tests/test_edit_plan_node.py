"""Edit Plan without a page: what goes out for a plan that came in and what the editor has kept, and what is refused."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from stub_host import REPOSITORY, load_pack, unload_pack

MARKUP = """# Robin's day
<cast name="Robin" look="an orange fox">
Robin wakes. <imagine cast="Robin">A fox wakes.</imagine>
He runs. <imagine cast="Robin" aspect="4:3" seed="18446744073709551615">A fox runs.</imagine>
"""
STOP = object()


@pytest.fixture
def pack(tmp_path, monkeypatch):
    part = load_pack(tmp_path)
    utils = ModuleType("comfy_execution.graph_utils")
    utils.ExecutionBlocker = lambda message: STOP if message is None else message
    monkeypatch.setitem(sys.modules, "comfy_execution", ModuleType("comfy_execution"))
    monkeypatch.setitem(sys.modules, "comfy_execution.graph_utils", utils)
    module = part("nodes.edit_plan")
    yield SimpleNamespace(
        part=part, module=module, node=module.WeaverEditPlan, plans=part("weaver_core.plan"), errors=part("weaver_core.errors")
    )
    unload_pack()


@pytest.fixture
def came_in(pack):
    """What Write Plan gives for MARKUP."""
    return pack.part("nodes.write_plan").WeaverWritePlan.execute(markup=MARKUP, prompt="Robin, a fox").args[0]


def run(pack, **inputs):
    """The outputs, and what the page is told."""
    output = pack.node.execute(**inputs)
    (shown,) = output.ui["weaver_edit_plan"]
    json.dumps(shown)
    return output.args, shown


def edits(pack, shown: dict, change=lambda plan: None, **fields) -> str:
    """What the page keeps after a change of the plan that it was shown."""
    plan = json.loads(json.dumps(shown["plan"]))
    change(plan)
    return json.dumps({"format": "weaver-plan-edits", "version": 1, "base": shown["key"], "plan": plan} | fields)


def set_prompt(index: int, prompt: str):
    def change(plan):
        plan["segments"][index]["prompt"] = prompt

    return change


def test_a_plan_that_nobody_has_edited_goes_on_as_it_came_in(pack, came_in):
    (story, markup), shown = run(pack, plan=came_in)
    assert story is came_in and markup == came_in.plan.to_markup() and not shown["waits"] and shown["notes"] == []


def test_an_edit_changes_its_segment_and_nothing_else(pack, came_in):
    _, shown = run(pack, plan=came_in)
    (story, _), _ = run(pack, plan=came_in, edits=edits(pack, shown, set_prompt(1, "A fox yawns.")))
    assert story.request is came_in.request and story.plan.segment("p1").prompt == "A fox yawns."
    others = [segment for segment in story.plan.segments if segment.id != "p1"]
    assert others == [segment for segment in came_in.plan.segments if segment.id != "p1"]


def test_the_largest_seed_survives_the_page_as_javascript_holds_it(pack, came_in):
    _, shown = run(pack, plan=came_in)
    assert shown["plan"]["segments"][3]["seed"] == "18446744073709551615"
    (story, _), _ = run(pack, plan=came_in, edits=edits(pack, shown))
    assert story.plan == came_in.plan


def test_edits_win_over_another_plan_that_comes_in_later(pack, came_in):
    _, shown = run(pack, plan=came_in)
    mine = edits(pack, shown, set_prompt(1, "A fox yawns."))
    other = pack.part("nodes.write_plan").WeaverWritePlan.execute(markup="A cat. <imagine>A cat.</imagine>").args[0]
    (story, _), later = run(pack, plan=other, edits=mine)
    assert story.plan.segment("p1").prompt == "A fox yawns." and story.request is other.request
    assert later["key"] != shown["key"] and later["plan"]["segments"][1]["prompt"] == "A cat."


def test_with_review_first_nothing_goes_on_until_this_very_plan_was_accepted(pack, came_in):
    args, shown = run(pack, plan=came_in, review_first=True)
    assert args == (STOP, STOP) and shown["waits"] and shown["plan"]["title"] == "Robin's day" and shown["seeds"] == []
    accepted = edits(pack, shown)
    (story, _), _ = run(pack, plan=came_in, review_first=True, edits=accepted)
    assert story.plan == came_in.plan
    args, _ = run(pack, plan=came_in, review_first=True, edits=edits(pack, shown, base="0" * 16))
    assert args == (STOP, STOP)


def test_a_story_written_in_the_node_needs_no_plan(pack):
    plan = {"format": "weaver-plan", "version": 1, "title": "Mia", "segments": [{"type": "image", "id": "p1", "prompt": "A cat."}]}
    mine = json.dumps({"format": "weaver-plan-edits", "version": 1, "base": None, "plan": plan})
    (story, _), shown = run(pack, edits=mine, review_first=True)
    assert story.request.prompt == "Mia" and len(story.plan.images) == 1 and shown["plan"] is None
    assert run(pack, edits=mine, prompt="a cat called Mia")[0][0].request.prompt == "a cat called Mia"


def test_cards_that_are_still_empty_are_no_part_of_the_plan(pack, came_in):
    def change(plan):
        plan["segments"][1]["prompt"] = " \n"
        plan["segments"].append({"type": "text", "id": "t9", "text": ""})
        plan["cast"].append({"name": "", "kind": "character", "look": "", "outfits": [], "references": []})

    _, shown = run(pack, plan=came_in)
    (story, _), later = run(pack, plan=came_in, edits=edits(pack, shown, change))
    assert [segment.id for segment in story.plan.segments] == ["t1", "t2", "p2"] and len(story.plan.cast) == 1
    assert later["notes"] == ["2 empty cards are left out"]


def test_without_any_story_it_says_what_to_do(pack, came_in):
    with pytest.raises(pack.errors.InputError, match="connect a plan, or write one"):
        run(pack)
    _, shown = run(pack, plan=came_in)
    with pytest.raises(pack.errors.InputError, match="every card in Edit Plan is empty or deleted"):
        run(pack, plan=came_in, edits=edits(pack, shown, lambda plan: plan["segments"].clear()))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda _: "{not json", "not JSON at line 1"),
        (lambda _: "[1, 2]", "expected an object, got a list"),
        (lambda _: "5", "expected an object, got number"),
        (lambda data: json.dumps(data | {"version": 2}), "another version"),
        (lambda data: json.dumps(data | {"format": "x"}), "expected 'weaver-plan-edits'"),
        (lambda data: json.dumps(data | {"bse": 1}), "edits.bse: unknown key; did you mean 'base'"),
        (lambda data: json.dumps(data | {"base": 5}), "edits.base"),
        (lambda data: json.dumps(data | {"plan": None}), "top level: expected an object"),
        (lambda data: json.dumps(data).replace('"aspect": "4:3"', '"aspect": "wide"'), r"segments\[3\].aspect"),
        (lambda data: json.dumps(data).replace('"id": "p2"', '"id": "p1"'), "is used by"),
        (lambda data: json.dumps(data).replace('"18446744073709551615"', '"18446744073709551616"'), "seed"),
        (lambda data: json.dumps(data).replace('"id": "p1"', '"id": "../p1"'), "no segment id"),
        (lambda data: "[" * 100_000, "nested too deeply"),
        (lambda data: " " * (16 * 2**20) + "xx", "million characters"),
    ],
)
def test_what_the_editor_did_not_write_is_refused_before_anything_runs(pack, came_in, spoil, message):
    _, shown = run(pack, plan=came_in)
    text = spoil(json.loads(edits(pack, shown)))
    with pytest.raises(pack.errors.InputError, match=message) as caught:
        run(pack, plan=came_in, edits=text)
    assert pack.node.validate_inputs(edits=text) == str(caught.value)


def test_a_word_where_a_plan_belongs_is_named(pack):
    with pytest.raises(pack.errors.InputError, match="got str where it needs the output of Weaver Plan"):
        run(pack, plan="something")


def test_schema_and_help_page_explain_themselves(pack):
    schema = pack.node.GET_SCHEMA()
    page = (REPOSITORY / "web" / "docs" / "WeaverEditPlan.md").read_text(encoding="utf-8")
    sockets = [*schema.inputs, *schema.outputs]
    assert all(socket.options.get("tooltip") for socket in sockets) and len({socket.id for socket in sockets}) == len(sockets)
    assert page.startswith(f"# {schema.display_name}\n") and "**Example.**" in page
    shown = [socket.id for socket in schema.inputs] + [socket.options["display_name"] for socket in schema.outputs]
    assert [word for word in shown if f"| {word}" not in page] == []
