"""The nodes that measure, judge and compare stories, on a small visualizer and a scripted judge."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from judge_server import JudgeServer, status
from small_pair import ShapeVisualizer, TellingPlanner
from stub_host import load_pack, unload_pack

MARKUP = """# Robin's day
<cast name="Robin" look="an orange fox">
Robin wakes. <imagine cast="Robin">A fox wakes.</imagine>
He runs. <imagine cast="Robin">A fox runs.</imagine>
"""
NODES = {"evaluate_story": "WeaverEvaluateStory", "judge_story": "WeaverJudgeStory", "compare_stories": "WeaverCompareStories"}
KEY = "the-secret-key"


@pytest.fixture
def pack(tmp_path, monkeypatch):
    for name in ("WEAVER_API_KEY", "WEAVER_API_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "WEAVER_JUDGE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    output = tmp_path / "output"
    output.mkdir()
    part = load_pack(output)
    place = (str(output / "weaver"), "compare", 1, "weaver", "weaver/compare")
    monkeypatch.setattr(sys.modules["folder_paths"], "get_save_image_path", lambda prefix, folder: place, raising=False)
    yield SimpleNamespace(part=part, node=lambda name: getattr(part(f"nodes.{name}"), NODES[name]), output=output, errors=part("weaver_core.errors"))
    unload_pack()


@pytest.fixture
def story_of(pack):
    """Weaves a story from markup with the small visualizer."""

    def make(markup=MARKUP, seed=3):
        core, values = pack.part("weaver_core.story"), pack.part("nodes.values")
        plan, _ = pack.part("weaver_core.plan").parse_markup(markup)
        request = pack.part("weaver_core.request").Request(prompt=plan.title, seed=seed)
        with core.StoryFolder.create(pack.output / f"drawn-{len(list(pack.output.iterdir()))}", request) as folder:
            for _ in pack.part("weaver_core.weave").weave_plan(plan, ShapeVisualizer(), planner=TellingPlanner(), story=folder):
                pass
            images = {name: values.DrawnImage(rendering=one, path=folder.path(name)) for name, one in folder.renderings.items()}
        return values.WovenStory(plan=plan, request=request, settings=folder.settings, made_with="small", images=images)

    return make


@pytest.fixture
def server():
    server = JudgeServer()
    yield server
    server.close()


@pytest.mark.parametrize("name", NODES)
def test_the_schema_explains_itself(pack, name):
    schema = pack.node(name).GET_SCHEMA()
    assert schema.node_id == NODES[name] and schema.category == "Weaver" and schema.description and schema.search_aliases
    assert all(socket.options.get("tooltip") for socket in [*schema.inputs, *schema.outputs])
    assert not any("key" in socket.id for socket in schema.inputs), "a workflow must have no place for a key"


@pytest.mark.parametrize("name", NODES)
def test_something_else_than_a_story_is_refused(pack, name):
    inputs = {"story_a": 1, "story_b": 2} if name == "compare_stories" else {"story": 1} | ({"url": "u", "model": "m"} if "judge" in name else {})
    with pytest.raises(pack.errors.InputError, match="needs the output of Visualize Plan"):
        pack.node(name).execute(**inputs)


def test_a_story_is_measured_and_its_faults_are_counted(pack, story_of):
    text, numbers, faults = pack.node("evaluate_story").execute(story=story_of()).args
    found = json.loads(numbers)
    assert found["values"]["image_count"] == found["values"]["finished"] == 1.0 and faults == len(found["faults"])
    assert all(name in text for name in found["values"]) and "builtin:lift" not in found["values"]
    cut = story_of(MARKUP.replace("He runs.", "He runs and runs and runs and then"))
    text, numbers, more = pack.node("evaluate_story").execute(story=cut).args
    assert more == faults + 1 and "cut off (part 4)" in text


def test_a_judge_s_scores_and_reasons_come_out(pack, story_of, server):
    done = pack.node("judge_story").execute(story=story_of(), url=server.url, model="eye-1")
    overall, text, numbers = done.args
    values = json.loads(numbers)["values"]
    assert list(values) == ["PA", "NC", "CC", "IC", "CP", "Overall"] and len(server.requests) == 5
    assert overall == values["Overall"] == pytest.approx(sum(values[dim] for dim in ("PA", "NC", "CC", "IC", "CP")) / 5)
    assert "PA (prompt adherence)" in text and "as seen" in text and done.ui["weaver_notes"] == []


def test_joint_mode_asks_once_and_a_failed_score_is_a_note(pack, story_of, server):
    server.answer = lambda body: json.dumps({dim: {"rationale": "r", "score": 8} for dim in ("PA", "NC", "CC", "IC")})
    done = pack.node("judge_story").execute(story=story_of(), url=server.url, model="eye-1", mode="joint")
    assert len(server.requests) == 1 and done.args[0] == 8.0 and [note[:3] for note in done.ui["weaver_notes"]] == ["CP:"]


def test_the_key_goes_only_to_the_server_that_the_environment_names(pack, story_of, server, monkeypatch):
    monkeypatch.setenv("WEAVER_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("WEAVER_JUDGE_API_KEY", KEY)
    story = story_of()
    pack.node("judge_story").execute(story=story, url=server.url, model="eye-1", mode="joint")
    assert not any("Authorization" in headers for headers in server.headers)
    monkeypatch.setenv("WEAVER_API_URL", server.url)
    pack.node("judge_story").execute(story=story, url=server.url, model="eye-1", mode="joint")
    assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"


def test_a_judge_that_cannot_be_used_says_why_and_not_the_key(pack, story_of, server, monkeypatch):
    monkeypatch.setenv("WEAVER_API_KEY", KEY)
    monkeypatch.setenv("WEAVER_API_URL", server.url)
    server.script = [status(401, f"bad key {KEY}")]
    with pytest.raises(pack.errors.WeaverError, match="WEAVER_API_KEY and WEAVER_API_URL") as caught:
        pack.node("judge_story").execute(story=story_of(), url=server.url, model="eye-1")
    assert KEY not in str(caught.value)
    server.answer = lambda body: "I have no opinion"
    with pytest.raises(pack.errors.InputError, match="eye-1 gave no score: PA: parse_error"):
        pack.node("judge_story").execute(story=story_of(), url=server.url, model="eye-1")


def test_two_stories_stand_side_by_side_on_one_page(pack, story_of):
    file, text = pack.node("compare_stories").execute(story_a=story_of(), story_b=story_of(seed=9), name_a="one", name_b="<b>two</b>").args
    page = (pack.output / file).read_text(encoding="utf-8")
    assert file == "weaver/compare_00001_/report.html" and page.count("data:image/") >= 4 and 'id="side-by-side"' in page
    assert "<b>two</b>" not in page and "Not comparable" not in page and "image\\_count" in text


def test_stories_of_other_requests_are_marked_and_equal_names_refused(pack, story_of):
    other = story_of(MARKUP.replace("Robin's day", "Robin's night"))
    file, _ = pack.node("compare_stories").execute(story_a=story_of(), story_b=other).args
    assert "Not comparable" in (pack.output / file).read_text(encoding="utf-8")
    with pytest.raises(pack.errors.InputError, match="tell the stories apart"):
        pack.node("compare_stories").execute(story_a=other, story_b=other, name_a="x", name_b=" x ")
