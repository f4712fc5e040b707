"""A cast that outlives its story: made, joined, saved, opened again, and known to request, plan and pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image
from small_pair import ShapeVisualizer, TellingPlanner

from weaver_core.cast import Cast, load_cast, save_cast
from weaver_core.cli import main
from weaver_core.errors import InputError, StoryError
from weaver_core.plan import CastMember
from weaver_core.planners import PlannerOptions
from weaver_core.planners.instruction import build_messages
from weaver_core.request import ReferenceImage, RenderSettings, Request
from weaver_core.story import StoryFolder
from weaver_core.weave import PlanReady, weave


def picture(colour="orange", name="photo"):
    return ReferenceImage.read(Image.new("RGB", (40, 30), colour), name)[0]


def robin(**more):
    return Cast.of(CastMember(name="Robin", look="an orange fox", outfits=("coat",), **more), [picture(), picture("red")])


def mia():
    return Cast.of(CastMember(name="Mia the Cat"), [picture("blue")])


def test_pictures_are_named_after_whom_they_show():
    assert [p.name for p in robin().pictures] == ["Robin-1", "Robin-2"] and robin().members[0].references == ("Robin-1", "Robin-2")
    assert mia().members[0].references == ("Mia-the-Cat-1",)
    assert Cast.of(CastMember(name="罗宾"), [picture()]).members[0].references == ("image-1",)


def test_joined_casts_keep_order_and_every_picture_stays_with_its_member():
    both = robin().joined(mia())
    assert [member.name for member in both.members] == ["Robin", "Mia the Cat"] and len(both.pictures) == 3
    other = Cast.of(CastMember(name="Robin", look="a green frog"), [picture("green")])
    again = both.joined(other)
    assert [member.look for member in again.members] == ["a green frog", ""]
    assert [p.key for p in again.pictures_of(again.member("robin"))] == [picture("green").key]
    two = Cast.of(CastMember(name="罗宾"), [picture()]).joined(Cast.of(CastMember(name="米娅"), [picture("blue")]))
    assert [p.key for p in two.pictures_of(two.member("米娅"))] == [picture("blue").key], "two pictures of one name are kept apart"

    one = Cast(members=(CastMember(name="Robin", references=("p",)),), pictures=(picture(name="p"),))
    names = CastMember(name="Mia", references=("p", "p-2")), (picture("blue", name="p"), picture("red", name="p-2"))
    apart = one.joined(Cast(members=names[:1], pictures=names[1]))
    assert [p.key for p in apart.pictures_of(apart.member("Mia"))] == [picture("blue").key, picture("red").key]


def test_a_name_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(InputError, match="no 'Bo'; there is Robin"):
        robin().member("Bo")
    with pytest.raises(InputError, match="two members of the name 'Robin'"):
        Cast(members=robin().members * 2)
    with pytest.raises(InputError, match="17 pictures; at most"):
        Cast.of(CastMember(name="Robin"), [picture()] * 17)


# ---- on disk


def test_a_saved_cast_comes_back_as_it_was(tmp_path):
    both = robin().joined(mia())
    save_cast(both, tmp_path / "c")
    assert load_cast(tmp_path / "c") == both
    with pytest.raises(StoryError, match="is not empty"):
        save_cast(mia(), tmp_path / "c")
    with pytest.raises(InputError, match="the cast is empty"):
        save_cast(Cast(), tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_cast_whose_saving_broke_off_is_none(tmp_path, monkeypatch):
    import weaver_core.cast as module

    whole = module.write_whole
    monkeypatch.setattr(module, "write_whole", lambda path, data: whole(path, data) if path.suffix == ".png" else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_cast(robin(), tmp_path / "c")
    with pytest.raises(StoryError, match="holds no cast"):
        load_cast(tmp_path / "c")


@pytest.mark.parametrize(("change", "message"), [
    ({"format": "weaver-plan"}, "expected weaver-cast 1"), ({"version": 9}, "expected weaver-cast 1"), ({"more": 1}, "unknown key"),
    ({"cast": {}}, "expected a list"), ({"images": [{"name": "Robin-1", "file": "../out.png", "key": "0"}]}, "no picture of a cast"),
    ({"images": [{"name": "Robin-1", "file": "/etc/passwd", "key": "0"}]}, "no picture of a cast"),
    ({"images": [{"name": "../x", "file": "x-000000000000.png", "key": "0"}]}, "no name of a picture"),
    ({"images": [{"name": "p1", "file": "x-000000000000.png", "key": "0"}]}, "no name of a picture"),
    ({"cast": [{"name": "A"}, {"name": "A"}]}, "two members"), ({"cast": [{"name": ""}]}, "cast[0].name"),
    ({"images": [{}] * 17}, "17 pictures"),
])  # fmt: skip
def test_a_cast_from_a_stranger_is_checked(tmp_path, change, message):
    save_cast(robin(), tmp_path / "c")
    data = json.loads((tmp_path / "c" / "cast.json").read_text())
    (tmp_path / "c" / "cast.json").write_text(json.dumps(data | change))
    with pytest.raises(StoryError) as caught:
        load_cast(tmp_path / "c")
    assert message in str(caught.value)


def test_an_exchanged_or_linked_picture_is_refused(tmp_path):
    folder = save_cast(robin(), tmp_path / "c")
    file = sorted(folder.glob("*.png"))[0]
    Image.new("RGB", (9, 9), "black").save(file)
    with pytest.raises(StoryError, match="another picture"):
        load_cast(folder)
    file.unlink()
    file.symlink_to("/etc/hostname")
    with pytest.raises(StoryError, match="leads out"):
        load_cast(folder)


# ---- in a story


def test_a_cast_reaches_request_plan_and_every_picture():
    request = robin().into(Request(prompt="a fox", num_images=3, images=(picture("grey", "sea"),)))
    assert [p.name for p in request.images] == ["Robin-1", "Robin-2", "sea"]
    visualizer = ShapeVisualizer(max_references=1)
    events = list(weave(request, TellingPlanner(), visualizer))
    plan = next(event.plan for event in events if isinstance(event, PlanReady))
    assert plan.cast[0].name == "Robin" and plan.cast[0].outfits == ("coat",)
    assert [shot.reference_keys for shot in visualizer.shots] == [(picture().key,)] * 3


def test_a_planner_of_one_s_own_is_told_language_style_shape_and_cast():
    request = robin().into(Request(prompt="a fox", language="de", style="watercolour, soft light", aspect="4:3"))
    asked = build_messages(request, (), PlannerOptions(num_images=3), picture_part=None)[-1]["content"]
    assert "Language of title and text: de." in asked and "watercolour, soft light" in asked and "4:3" in asked
    assert "- Robin: an orange fox (may wear: coat) (picture: Robin-1, Robin-2)" in asked
    plain = build_messages(Request(prompt="a fox"), (), PlannerOptions(num_images=3), picture_part=None)[-1]["content"]
    assert "Style" not in plain and "Known already" not in plain


def test_style_cast_and_budget_are_kept_in_the_story_folder(tmp_path):
    request, _ = robin().into(Request(prompt="a fox", style="  ink \n wash ")).validated()
    settings = RenderSettings(check_images=False, max_references=2, max_reference_tokens=99)
    with StoryFolder.create(tmp_path / "s", request, settings=settings, policy="cast"):
        pass
    with StoryFolder.open(tmp_path / "s") as folder:
        assert folder.request == request and request.style == "ink wash" and (folder.settings, folder.policy) == (settings, "cast")
    data = json.loads((tmp_path / "s" / "request.json").read_text())
    del data["style"]
    data["settings"] = {name: None for name in ("steps", "guidance", "reference_guidance")}
    (tmp_path / "s" / "request.json").write_text(json.dumps(data))
    with StoryFolder.open(tmp_path / "s") as folder:
        assert folder.request == replace(request, style="") and folder.settings == RenderSettings(), "a story of an earlier version"


@pytest.mark.parametrize(("fields", "message"), [
    ({"style": "x" * 501}, "style: 501 characters"), ({"style": 7}, "style: expected text"),
    ({"cast": robin().members * 2}, "has Robin twice"), ({"cast": tuple(CastMember(name=str(n)) for n in range(17))}, "17 members"),
])  # fmt: skip
def test_requests_with_too_much_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Request(prompt="a fox", **fields).validated()


@pytest.mark.parametrize("settings", [{"check_images": 1}, {"max_references": -1}, {"max_reference_tokens": "9"}, {"max_references": True}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(InputError, match="must be"):
        RenderSettings(**settings)


def test_a_planner_that_cannot_be_told_a_language_gets_no_tag_of_it():
    class Mute(TellingPlanner):
        obeys_language = False

    def language(planner):
        events = weave(Request(prompt="a fox", language="de", num_images=3), planner, ShapeVisualizer())
        return next(event.plan.language for event in events if isinstance(event, PlanReady))

    assert language(TellingPlanner()) == "de" and language(Mute()) == "en"


def test_the_command_line_takes_a_saved_cast(tmp_path, capsys, monkeypatch):
    import weaver_core.cli as cli

    folder = save_cast(robin(), tmp_path / "robin")
    visualizer = ShapeVisualizer()
    monkeypatch.setattr(cli, "_load_pair", lambda *_: (TellingPlanner(), visualizer))
    out = tmp_path / "story"
    assert main(["story", "a fox", "--cast", str(folder), "--images", "3", "--style", "ink", "--no-check-images",
                 "--max-references", "1", "--out", str(out), "--quiet"]) == 0  # fmt: skip
    with StoryFolder.open(out) as story:
        assert story.request.style == "ink" and story.request.cast == robin().members
        assert not story.settings.check_images and story.settings.max_references == 1
    assert all(shot.reference_keys == (picture().key,) for shot in visualizer.shots)
    assert main(["story", "a fox", "--cast", str(tmp_path), "--out", str(tmp_path / "x")]) == 1
    assert "holds no cast" in capsys.readouterr().err
