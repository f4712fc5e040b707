"""The story folder: what is finished is kept, whatever happens, and nothing in a stranger's folder is believed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from small_pair import FOX, ShapeVisualizer, TellingPlanner

from weaver_core.durable import Journal, write_whole
from weaver_core.errors import InputError, StoryError
from weaver_core.plan import parse_markup
from weaver_core.rendering import UsedReference, rendering_key
from weaver_core.request import ReferenceImage, RenderSettings, Request
from weaver_core.story import Story, StoryFolder, fresh_folder, slug
from weaver_core.weave import Finished, ImageReady, weave, weave_plan

ROOT = Path(__file__).resolve().parents[1]
REQUEST = Request(prompt="a fox", num_images=3, seed=7)


def robin():
    return ReferenceImage.read(Image.new("RGB", (40, 30), "orange"), "robin")[0]


def tell(folder, request=REQUEST, **kwargs):
    return list(weave(request, TellingPlanner(), kwargs.pop("visualizer", None) or ShapeVisualizer(), story=folder, **kwargs))


def made(path, request=REQUEST):
    with StoryFolder.create(path, request) as folder:
        tell(folder, request)
    return path


def pixels(path):
    with StoryFolder.open(path) as folder:
        return {segment_id: folder.image(segment_id).tobytes() for segment_id in folder.renderings}


def test_a_story_comes_back_as_it_was(tmp_path):
    request = replace(REQUEST, images=(robin(),), aspect="4:3", language="de")
    settings = RenderSettings(steps=2, guidance=3)
    with StoryFolder.create(tmp_path / "s", request, settings=settings, policy="user", made_with="small") as folder:
        tell(folder, request)
        plan, renderings = folder.plan, folder.renderings
    with StoryFolder.open(tmp_path / "s") as folder:
        assert (folder.plan, folder.renderings, folder.markup) == (plan, renderings, FOX)
        assert folder.request == request
        assert (folder.settings, folder.policy, folder.made_with) == (settings, "user", "small")
        assert folder.finished and folder.missing() == () and folder.warnings == []
        assert folder.path("p1").is_file() and folder.image("p1").size == (40, 30)


def test_a_finished_story_is_not_drawn_again(tmp_path):
    path = made(tmp_path / "s")
    visualizer = ShapeVisualizer()
    before = (path / "story.jsonl").read_bytes()
    with StoryFolder.open(path) as folder:
        ready = [e for e in tell(folder, visualizer=visualizer) if isinstance(e, ImageReady)]
    assert [event.cached for event in ready] == [True] * 3 and visualizer.shots == []
    assert (path / "story.jsonl").read_bytes() == before


def test_after_a_cut_at_any_byte_of_the_journal_the_story_comes_out_the_same(tmp_path):
    path = made(tmp_path / "whole")
    journal = (path / "story.jsonl").read_bytes()
    wanted = pixels(path)
    cuts = sorted({*range(0, len(journal), 37), *(i + d for i in range(len(journal)) if journal[i : i + 1] == b"\n" for d in (0, 1, 2))})
    for cut in cuts:
        copy = tmp_path / "cut"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(path, copy)
        (copy / "story.jsonl").write_bytes(journal[:cut])
        with StoryFolder.open(copy) as folder:
            kept = len(folder.renderings)
            assert kept == journal[: journal.rfind(b"\n", 0, cut) + 1].count(b'"type":"image"')
            ready = [e for e in tell(folder) if isinstance(e, ImageReady)]
            assert sum(event.cached for event in ready) == kept
        assert pixels(copy) == wanted
        with StoryFolder.open(copy) as folder:
            assert folder.finished and folder.warnings == []


def test_a_story_cut_before_its_plan_is_planned_again(tmp_path):
    path = made(tmp_path / "s")
    (path / "plan.json").unlink()
    (path / "story.jsonl").write_bytes(b"".join((path / "story.jsonl").read_bytes().splitlines(keepends=True)[:2]))
    with StoryFolder.open(path) as folder:
        assert folder.plan is None and folder.markup
        tell(folder)
        assert folder.markup == FOX and folder.finished


def test_damaged_lines_are_passed_over_and_their_images_drawn_again(tmp_path):
    path = made(tmp_path / "s")
    lines = (path / "story.jsonl").read_bytes().splitlines(keepends=True)
    spoiled = [line for line in lines]
    spoiled[[b'"segment":"p2"' in line for line in lines].index(True)] = b"\x00\x00\x00garbage\n"
    (path / "story.jsonl").write_bytes(b"".join(spoiled))
    wanted = pixels(made(tmp_path / "other"))
    with StoryFolder.open(path) as folder:
        assert sorted(folder.renderings) == ["p1", "p3"]
        assert "1 damaged" in folder.warnings[0]
        tell(folder)
    assert pixels(path) == wanted


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_an_image_that_is_not_what_was_drawn_is_drawn_again(tmp_path, damage):
    path = made(tmp_path / "s")
    with StoryFolder.open(path) as folder:
        file = folder.path("p2")
    wanted = pixels(path)
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:50])
    else:
        Image.new("RGB", (32, 32)).save(file)
    with StoryFolder.open(path) as folder:
        assert "p2" not in folder.renderings and "p2" in folder.warnings[0]
        tell(folder)
    assert pixels(path) == wanted


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from small_pair import ShapeVisualizer, TellingPlanner
from weaver_core.story import StoryFolder
from weaver_core.request import Request
from weaver_core.weave import weave
import os, time
class Slow(ShapeVisualizer):
    def render(self, shot, **kwargs):
        time.sleep(0.02)
        return super().render(shot, **kwargs)
path, request = sys.argv[1], Request(prompt="a fox", num_images=3, seed=7)
folder = StoryFolder.open(path) if os.path.exists(path + "/story.jsonl") else StoryFolder.create(path, request)
print("go", flush=True)
for event in weave(request, TellingPlanner(piece=1), Slow(), story=folder, settings=None):
    pass
print("done", flush=True)
"""


def test_killed_at_any_moment_the_story_goes_on_and_comes_out_the_same(tmp_path):
    wanted = pixels(made(tmp_path / "whole"))
    path = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED.format(tests=str(ROOT / "tests")), str(path)]
    kept, kills = [], 0
    for delay in (0.0, 0.01, 0.03, 0.05, 0.08, 0.02, 0.04):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "go\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read()
        process.wait()
        kills += "done" not in said
        with StoryFolder.open(path) as folder:  # the dead process holds no lock
            kept.append(len(folder.renderings))
            assert folder.warnings == []
    assert kills >= 3
    assert kept == sorted(kept), "finished images were lost"
    assert subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True).stdout == "go\ndone\n"
    assert pixels(path) == wanted


def test_a_full_disk_is_said_and_keeps_what_is_finished(tmp_path):
    """The limit on file sizes makes the kernel refuse the write, as a full disk does."""
    path = tmp_path / "s"
    folder = StoryFolder.create(path, REQUEST)
    visualizer = ShapeVisualizer()
    visualizer.capabilities = replace(visualizer.capabilities, sizes=(), default_size=(64, 64))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    events = weave(REQUEST, TellingPlanner(), visualizer, story=folder)
    try:
        for event in events:
            if isinstance(event, ImageReady) and event.segment_id == "p1":
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    except StoryError as error:
        message = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old_handler)
        folder.close()
    assert "the disk is full: p2-" in message and "weaver resume" in message
    assert [file.name for file in (path / "images").iterdir() if file.name.endswith(".tmp")] == []
    with StoryFolder.open(path) as folder:
        assert list(folder.renderings) == ["p1"]
        assert [e.missing for e in tell(folder, visualizer=visualizer) if isinstance(e, Finished)] == [()]


def test_a_journal_that_cannot_grow_stays_whole(tmp_path):
    journal = Journal(tmp_path / "j", create=True)
    journal.append({"type": "a"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30, hard))
        with pytest.raises(StoryError, match="the disk is full"):
            journal.append({"type": "b", "text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old_handler)
    journal.append({"type": "c"})
    journal.close()
    assert [record["type"] for record in Journal(tmp_path / "j", create=False).records] == ["a", "c"]


def test_a_whole_file_is_replaced_at_once_and_leaves_nothing_else(tmp_path):
    write_whole(tmp_path / "f", b"old")
    write_whole(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new" and os.listdir(tmp_path) == ["f"]
    with pytest.raises(StoryError, match="cannot be written"):
        write_whole(tmp_path / "nowhere" / "f", b"x")


def test_two_programs_cannot_hold_one_story(tmp_path):
    with StoryFolder.create(tmp_path / "s", REQUEST):
        with pytest.raises(StoryError, match="in use by another program"):
            StoryFolder.open(tmp_path / "s")
    StoryFolder.open(tmp_path / "s").close()


def test_a_story_that_is_being_written_can_be_looked_at_and_not_changed(tmp_path):
    with StoryFolder.create(tmp_path / "s", REQUEST) as folder:
        events = weave(REQUEST, TellingPlanner(), ShapeVisualizer(), story=folder)
        next(event for event in events if isinstance(event, ImageReady))
        before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
        copy = StoryFolder.open(tmp_path / "s", read_only=True)
        assert list(copy.renderings) == ["p1"] and copy.image("p1").size == (32, 32)
        with pytest.raises(StoryError, match="for looking only"):
            tell(copy)
        with pytest.raises(StoryError, match="for looking only"):
            copy.set_plan(parse_markup("Another.")[0])
        copy.close()
        assert {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()} == before
        assert len([event for event in events if isinstance(event, ImageReady)]) == 2


def test_an_interrupted_journal_entry_leaves_no_half_line(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j", create=True)
    journal.append({"type": "a"})

    def interrupted(descriptor):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append({"type": "b"})
    journal.append({"type": "c"})
    journal.close()
    assert (tmp_path / "j").read_text() == '{"type":"a"}\n{"type":"c"}\n'


def test_a_folder_that_holds_something_is_not_taken(tmp_path):
    path = made(tmp_path / "s")
    with pytest.raises(StoryError, match="holds a story already; go on with it by 'weaver resume'"):
        StoryFolder.create(path, REQUEST)
    for name in ("plan.json", "request.json", "images"):
        foreign = tmp_path / f"foreign-{name}"
        foreign.mkdir()
        (foreign / name).write_text("mine")
        with pytest.raises(StoryError, match=f"holds {name} of something else"):
            StoryFolder.create(foreign, REQUEST)
        assert (foreign / name).read_text() == "mine"


def test_a_crash_while_the_folder_was_made_is_no_obstacle(tmp_path):
    request = replace(REQUEST, images=(robin(),))
    path = made(tmp_path / "s", request)
    for file in path.glob("images/*"):
        file.unlink()
    (path / "plan.json").unlink()
    (path / "story.jsonl").unlink()
    StoryFolder.create(path, request).close()


def test_what_is_no_story_is_refused(tmp_path):
    with pytest.raises(StoryError, match="is no folder"):
        StoryFolder.open(tmp_path / "nothing")
    with pytest.raises(StoryError, match="holds no story"):
        StoryFolder.open(tmp_path)


# ---- a stranger's folder


def changed(path, file, change):
    data = json.loads((path / file).read_text())
    change(data)
    (path / file).write_text(json.dumps(data))


def journal_entry(path, **changes):
    """The journal with its last image entry changed."""
    lines = [json.loads(line) for line in (path / "story.jsonl").read_text().splitlines()]
    entry = [line for line in lines if line["type"] == "image"][-1]
    entry.update(changes)
    (path / "story.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    "file", ["../secret.png", "/etc/passwd", "images/../../secret.png", "images/x.png", "C:\\x.png", "images/p3-\x00.png", 7]
)
def test_an_image_entry_never_leads_out_of_the_folder(tmp_path, file):
    path = made(tmp_path / "s")
    Image.new("RGB", (32, 32)).save(tmp_path / "secret.png")
    journal_entry(path, file=file)
    with StoryFolder.open(path) as folder:
        assert "p3" not in folder.renderings and folder.warnings
    tell_again = StoryFolder.open(path)
    tell(tell_again)
    tell_again.close()
    assert sorted(os.listdir(tmp_path)) == ["s", "secret.png"]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    path = made(tmp_path / "s")
    with StoryFolder.open(path) as folder:
        file = folder.path("p3")
    (tmp_path / "secret.png").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(tmp_path / "secret.png")
    with StoryFolder.open(path) as folder:
        assert "leads out of the story folder" in folder.warnings[0]
    (path / "plan.json").unlink()
    (path / "plan.json").symlink_to("/etc/passwd")
    with pytest.raises(StoryError, match="leads out"):
        StoryFolder.open(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"segment": "../p3"}, "no segment id"),
        ({"key": "x"}, "a hash is not one"),
        ({"size": "big"}, "expected two numbers"),
        ({"seed": "1"}, "image.seed: expected a number"),
        ({"references": [{"source": "p1"}]}, "image.references.key: missing"),
        ({"surprise": 1}, "image.surprise: unknown key"),
        ({"type": "virus"}, "unknown type 'virus'"),
    ],
)
def test_entries_that_cannot_be_are_passed_over(tmp_path, changes, said):
    path = made(tmp_path / "s")
    journal_entry(path, **changes)
    with StoryFolder.open(path) as folder:
        assert said in folder.warnings[0] and "p3" not in folder.renderings


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("plan.json", lambda data: data.update(version=99), "plan.json: version"),
        ("plan.json", lambda data: data["segments"][0].update(id="../../x"), r"segments\[0\].id"),
        ("request.json", lambda data: data.update(mode="sideways"), "mode: expected one of"),
        ("request.json", lambda data: data["settings"].update(steps=10**9), "steps is 1000000000"),
        ("request.json", lambda data: data.update(prmpt="x"), "prmpt: unknown key; did you mean 'prompt'"),
    ],
)
def test_files_that_cannot_be_are_refused_with_their_path(tmp_path, file, change, said):
    path = made(tmp_path / "s")
    changed(path, file, change)
    with pytest.raises(StoryError, match=said):
        StoryFolder.open(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(prompt=""), "the prompt is empty"),
        (lambda data: data.update(num_images=500), "number of images"),
        (lambda data: data.update(seed="x"), "seed: expected"),
        (lambda data: data["images"][0].update(file="../robin.png"), "is no file of the references folder"),
        (lambda data: data["images"][0].update(key="0" * 32), "is another picture"),
        (lambda data: data["cast"].append({"name": 3}), r"cast\[0\].name: expected text"),
    ],
)
def test_a_request_that_cannot_be_is_refused_when_it_is_needed(tmp_path, change, said):
    path = made(tmp_path / "s", replace(REQUEST, images=(robin(),)))
    changed(path, "request.json", change)
    with StoryFolder.open(path) as folder:  # the pictures that are there can still be looked at
        assert folder.image("p1")
        with pytest.raises(StoryError, match=said):
            folder.request


def test_a_story_of_a_newer_version_is_not_touched(tmp_path):
    path = made(tmp_path / "s")
    before = (path / "story.jsonl").read_text().replace('"version":1', '"version":2')
    (path / "story.jsonl").write_text(before)
    with pytest.raises(StoryError, match="version 2 of the story format"):
        StoryFolder.open(path)
    assert (path / "story.jsonl").read_text() == before


# ---- stale images


def test_a_new_first_image_makes_exactly_its_users_stale():
    markup = (
        '<imagine id="a" cast="Robin">one</imagine><imagine id="b" cast="Robin">two</imagine>'
        '<imagine id="c" cast="Mia">three</imagine><imagine id="d" references="b">four</imagine>'
    )
    plan, _ = parse_markup(markup)
    story, visualizer = Story(REQUEST), ShapeVisualizer()
    list(weave_plan(plan, visualizer, story=story))
    assert story.stale() == ()
    rerolled = plan.replace_segment(replace(plan.segment("a"), seed=99))
    ready = [e for e in weave_plan(rerolled, visualizer, story=story) if isinstance(e, ImageReady)]
    assert [event.cached for event in ready] == [False, True, True, True]
    assert [(s.segment_id, s.changed, s.through) for s in story.stale()] == [("b", ("a",), ()), ("d", (), ("b",))]
    events = list(weave_plan(rerolled, visualizer, story=story, redraw_stale=True))
    assert [event.cached for event in events if isinstance(event, ImageReady)] == [True, False, True, False]
    assert story.stale() == ()


def test_going_back_to_an_earlier_seed_draws_nothing(tmp_path):
    path = made(tmp_path / "s")
    wanted = pixels(path)
    with StoryFolder.open(path) as folder:
        plan, visualizer = folder.plan, ShapeVisualizer()
        rerolled = plan.replace_segment(replace(plan.segment("p3"), seed=5))
        list(weave_plan(rerolled, visualizer, story=folder))
        assert len(visualizer.shots) == 1
        list(weave_plan(plan, visualizer, story=folder))
        assert len(visualizer.shots) == 1
    assert pixels(path) == wanted


def test_every_part_of_a_key_changes_it():
    used, other_used = UsedReference(source="p1", key="k"), UsedReference(source="p1", key="k", whom="is Robin")
    facts = dict(prompt="a", references=[used], size=(1, 2), seed=3, visualizer="v", steps=4, guidance=5, reference_guidance=6)
    keys = {rendering_key(**facts)}
    for name, other in dict(prompt="b", references=[], size=(2, 1), seed=4, visualizer="w", steps=5, guidance=6, reference_guidance=5).items():
        keys.add(rendering_key(**{**facts, name: other}))
    keys.add(rendering_key(**{**facts, "references": [other_used]}))
    assert len(keys) == 10
    assert rendering_key(**facts) == rendering_key(**{**facts, "guidance": 5.0})


# ---- names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A Fox's Day!", "a-fox-s-day"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "story"),
        ("狐狸", "story"),
        ("CON", "story-con"),
        ("x" * 300, "x" * 48),
        ("a\x00b\nc", "a-b-c"),
    ],
)
def test_folder_names_are_plain(text, name):
    assert slug(text) == name


def test_fresh_folders_do_not_collide(tmp_path):
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox-2").mkdir()
    assert fresh_folder(tmp_path, "fox") == tmp_path / "fox-3"


def test_modes_and_policies_are_checked():
    with pytest.raises(InputError, match="mode is 'both'"):
        Story(mode="both")
    with pytest.raises(InputError, match="reference policy is 'x'"):
        Story(policy="x")
