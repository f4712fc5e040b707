"""The nodes that say what is asked (request, cast, references) and those that take it, on a small pair."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from small_pair import FOX, ShapeVisualizer, TellingPlanner
from stub_host import REPOSITORY, load_pack, unload_pack

NODES = {
    "request": "WeaverRequest", "make_character": "WeaverMakeCharacter", "character_from_story": "WeaverCharacterFromStory",
    "save_cast": "WeaverSaveCast", "load_cast": "WeaverLoadCast", "references": "WeaverReferences",
}  # fmt: skip
ORANGE = torch.zeros(1, 24, 48, 3) + torch.tensor([1.0, 0.5, 0.0])
BLUE = torch.zeros(2, 32, 32, 3) + torch.tensor([0.0, 0.0, 1.0])
MARKUP = FOX.replace("<imagine>", '<imagine cast="Robin">').replace("<BOI>", "")


class AskedPlanner(TellingPlanner):
    """Keeps what it was asked; goes on with a story where it is given one."""

    def write(self, request, history, *, options, cancel):
        self.asked = request, options
        if options.continued:
            self.calls.append((history, options))
            yield "Then he ran. <imagine>A fox runs.</imagine><BOI>"
        else:
            yield from super().write(request, history, options=options, cancel=cancel)


@pytest.fixture
def pack(tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    part = load_pack(output)
    part("nodes.host").folder_paths.get_save_image_path = lambda prefix, folder: (_made(folder, prefix), prefix.split("/")[-1], 1, "", "")
    yield SimpleNamespace(part=part, output=output, errors=part("weaver_core.errors"), planner=AskedPlanner(), visualizer=ShapeVisualizer())
    unload_pack()


def _made(folder, prefix):
    from pathlib import Path

    parent = (Path(folder) / prefix).parent
    parent.mkdir(parents=True, exist_ok=True)
    return str(parent)


def node(pack, name):
    return getattr(pack.part(f"nodes.{name}"), NODES[name])


def model(pack):
    return pack.part("nodes.values").HostedModel(
        name="small", embedded=False, model=None, planner=pack.planner, visualizer=pack.visualizer, patcher="moved by ComfyUI"
    )


def make(pack, name="Robin", look="", outfits="", images=None, cast=None):
    output = node(pack, "make_character").execute([name], [look], [outfits], ["character"], images, None if cast is None else [cast])
    return output.args[0]


def ask(pack, prompt="a fox", num_images=3, language="en", aspect="as the planner likes", style="", **more):
    return node(pack, "request").execute([prompt], [num_images], [language], [aspect], [style], **more).args[0]


def plan(pack, prompt="typed", num_images=0, images=None, **more):
    done = pack.part("nodes.plan").WeaverPlan.execute([model(pack)], [prompt], [num_images], [5], [0.7], images, **more)
    return done.args[0], done.ui["weaver_notes"]


def draw(pack, planned, **more):
    done = pack.part("nodes.visualize").WeaverVisualizePlan.execute([model(pack)], [planned], [3], [0], [0.0], [0.0], **more)
    return done.args[0]


def write(pack, markup=MARKUP):
    return pack.part("nodes.write_plan").WeaverWritePlan.execute(markup=markup).args[0]


# ---- every node


@pytest.mark.parametrize("name", NODES)
def test_the_schema_explains_itself(pack, name):
    schema = node(pack, name).GET_SCHEMA()
    assert schema.node_id == NODES[name] and schema.category == "Weaver" and schema.description and schema.search_aliases
    sockets = [*schema.inputs, *schema.outputs]
    assert all(socket.options.get("tooltip") for socket in sockets)
    assert not {socket.id for socket in schema.outputs} & {socket.id for socket in schema.inputs}


@pytest.mark.parametrize("name", NODES)
def test_the_help_page_names_every_input_and_output(pack, name):
    schema = node(pack, name).GET_SCHEMA()
    page = (REPOSITORY / "web" / "docs" / f"{NODES[name]}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {schema.display_name}\n") and "**Example.**" in page
    shown = [socket.id for socket in schema.inputs] + [socket.options["display_name"] for socket in schema.outputs]
    assert [word for word in shown if f"| {word}" not in page] == []


@pytest.mark.parametrize("name", ["WeaverPlan", "WeaverPlanWithServer", "WeaverPlanWithLocalModel", "WeaverVisualizePlan"])
def test_new_inputs_are_on_the_help_pages_of_the_nodes_that_take_them(name):
    page = (REPOSITORY / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    words = ("reference_choice", "story_so_far", "check_images") if name == "WeaverVisualizePlan" else ("request", "story_so_far")
    assert [word for word in words if f"| {word} |" not in page] == []


@pytest.mark.parametrize("file", ["plan_with_server", "plan_with_local_model"])
def test_every_planner_takes_request_and_story_so_far_behind_its_widgets(pack, file):
    pack.part("nodes.host").planner_names = lambda: []
    part = pack.part(f"nodes.{file}")
    kind = next(value for name, value in vars(part).items() if name.startswith("WeaverPlanWith"))
    wires = [socket for socket in kind.GET_SCHEMA().inputs if socket.id in ("request", "story_so_far")]
    assert len(wires) == 2 and all(socket.options.get("optional") for socket in wires)


# ---- Weaver Request


def test_the_request_wins_over_what_is_typed_and_pictures_of_both_are_used(pack):
    request = ask(pack, "asked", 3, "de", "4:3", "ink", images=[BLUE])
    planned, _ = plan(pack, "typed", 7, [ORANGE], request=[request])
    asked, options = pack.planner.asked
    assert (asked.prompt, asked.language, asked.aspect, asked.style) == ("asked", "de", "4:3", "ink")
    assert options.num_images == 3 and asked.seed == 5 and len(asked.images) == 3
    assert len({picture.name for picture in asked.images}) == 3 and planned.request == asked


def test_without_a_request_the_typed_words_count(pack):
    plan(pack, "typed", 3)
    assert pack.planner.asked[0].prompt == "typed"


def test_an_empty_typed_prompt_is_no_fault_where_a_request_is_linked(pack):
    validate = pack.part("nodes.plan").WeaverPlan.validate_inputs
    assert "the prompt is empty" in validate(prompt=[" "]) and "the prompt is empty" in validate(prompt=" ", input_types=[{"plan": "X"}])
    for linked in ({"request": "WEAVER_REQUEST"}, [{"request": "WEAVER_REQUEST"}]):
        assert validate(prompt=[""], input_types=linked) is True
    assert "the prompt is empty" in node(pack, "request").validate_inputs(prompt=[""])


@pytest.mark.parametrize(("fields", "message"), [
    ({"aspect": "5:1"}, "aspect is '5:1'"), ({"language": "<script>"}, "language"), ({"style": "x" * 501}, "style: 501"),
    ({"prompt": " "}, "prompt is empty"),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused(pack, fields, message):
    with pytest.raises(pack.errors.InputError, match=message):
        ask(pack, **fields)


def test_something_else_in_the_request_socket_is_named(pack):
    with pytest.raises(pack.errors.InputError, match="needs the output of Weaver Request"):
        plan(pack, request=["words"])
    with pytest.raises(pack.errors.InputError, match="needs the output of Make Character"):
        ask(pack, cast=["words"])


# ---- cast


def test_a_made_character_reaches_planner_and_every_page(pack):
    cast = make(pack, "Robin", "an orange fox", "coat, hat,  coat", [BLUE, ORANGE])
    assert cast.members[0].outfits == ("coat", "hat") and [p.name for p in cast.pictures] == ["Robin-1", "Robin-2", "Robin-3"]
    planned, _ = plan(pack, request=[ask(pack, cast=[cast])])
    assert pack.planner.asked[0].cast == cast.members and planned.plan.cast == cast.members
    story = draw(pack, planned)
    keys = {picture.key for picture in cast.pictures}
    assert all(set(shot.reference_keys) <= keys and shot.reference_keys for shot in pack.visualizer.shots)
    assert len(story.images) == 3


def test_a_character_joins_those_before_it(pack):
    cast = make(pack, "Mia", cast=make(pack, "Robin", "old"))
    assert [member.name for member in make(pack, "Robin", "new", cast=cast).members] == ["Robin", "Mia"]
    with pytest.raises(pack.errors.InputError, match="name"):
        make(pack, " ")


def test_a_character_with_neither_look_nor_picture_is_told(pack):
    output = node(pack, "make_character").execute(["Robin"], [""], [""], ["character"])
    assert "neither a look nor a picture" in output.ui["weaver_notes"][0]


def from_story(pack, story, **inputs):
    return node(pack, "character_from_story").execute(story=story, **inputs).args[0]


def test_a_character_comes_out_of_a_story_with_the_page_that_shows_it(pack):
    cast = '<cast name="Robin" look="a fox">\n<cast name="Mia">'
    pages = 'A. <imagine cast="Mia">A cat.</imagine>\nB. <imagine cast="Robin">A fox.</imagine>'
    story = draw(pack, write(pack, f"# R\n{cast}\n{pages}"))
    cast = from_story(pack, story, character="robin")
    assert cast.members[0].look == "a fox" and cast.pictures[0].image.tobytes() == story.images["p2"].read().tobytes()
    chosen = from_story(pack, story, character="Robin", page=1, look="a  red fox")
    assert chosen.members[0].look == "a red fox" and chosen.pictures[0].image.tobytes() == story.images["p1"].read().tobytes()
    with pytest.raises(pack.errors.InputError, match="the story's cast is Robin, Mia; write the name"):
        from_story(pack, story)
    with pytest.raises(pack.errors.InputError, match="choose 1 to 2"):
        from_story(pack, story, character="Robin", page=3)


def test_where_the_plan_names_no_cast_the_text_says_which_page_shows_whom(pack):
    story = draw(pack, write(pack, "# R\nOnce. <imagine>A house.</imagine>\nPip came. <imagine>A fox.</imagine>"))
    assert from_story(pack, story, character="Pip").pictures[0].image.tobytes() == story.images["p2"].read().tobytes()
    with pytest.raises(pack.errors.InputError, match="the story names no cast"):
        from_story(pack, story)


def test_a_character_that_had_pictures_keeps_them(pack):
    cast = make(pack, images=[ORANGE])
    planned, _ = plan(pack, request=[ask(pack, cast=[cast])])
    assert from_story(pack, draw(pack, planned)).pictures == cast.pictures


def test_a_cast_is_saved_offered_and_loaded(pack):
    cast = make(pack, "Mia", cast=make(pack, images=[ORANGE]))
    done = node(pack, "save_cast").execute(cast, "weaver/casts/friends")
    name = done.args[0]
    assert name == "weaver/casts/friends_00001_" and len(done.ui["images"]) == 1
    assert node(pack, "load_cast").GET_SCHEMA().inputs[0].options["options"] == [name]
    loaded, names = node(pack, "load_cast").execute(name).args
    assert loaded == cast and names == "Robin\nMia"
    stamp = node(pack, "load_cast").fingerprint_inputs
    before = stamp(cast_folder=name)
    (pack.output / name / "cast.json").write_text("{}")
    assert stamp(cast_folder=name) not in ("", before) and stamp(cast_folder="nothing") == ""
    with pytest.raises(pack.errors.StoryError) as caught:
        node(pack, "load_cast").execute(name)
    assert name in str(caught.value) and str(pack.output) not in str(caught.value)


@pytest.mark.parametrize("name", ["../outside", "/etc", "..", "", "C:\\x", "weaver\\x", "a\x00b", "x" * 300, "link", "nothing", None, 7])
def test_names_of_casts_that_lead_elsewhere_are_refused(pack, name):
    node(pack, "save_cast").execute(make(pack), "../outside/robin")
    (pack.output / "link").symlink_to(pack.output.parent / "outside" / "robin_00001_", target_is_directory=True)
    with pytest.raises(pack.errors.InputError, match="cast") as caught:
        node(pack, "load_cast").execute(name)
    assert str(pack.output) not in str(caught.value) and len(str(caught.value)) < 300
    if isinstance(name, str):
        assert node(pack, "load_cast").validate_inputs(cast_folder=name) == str(caught.value)


# ---- references


def references(pack, policy="auto", pictures=0, tokens=0):
    return [node(pack, "references").execute(policy, pictures, tokens).args[0]]


@pytest.mark.parametrize(("policy", "pictures", "tokens", "counts"), [
    ("auto", 0, 0, [0, 1, 1]), ("none", 0, 0, [0, 0, 0]), ("previous", 1, 0, [0, 1, 1]), ("first", 0, 3, [0, 0, 0]), ("cast", 1, 4, [0, 1, 1]),
])  # fmt: skip
def test_policy_and_budget_decide_what_pages_are_drawn_from(pack, policy, pictures, tokens, counts):
    draw(pack, write(pack), reference_choice=references(pack, policy, pictures, tokens))
    assert [len(shot.references) for shot in pack.visualizer.shots] == counts


def test_another_policy_draws_only_the_pages_that_it_changes(pack):
    draw(pack, write(pack))
    pack.visualizer.shots.clear()
    draw(pack, write(pack), reference_choice=references(pack, "cast"))
    assert pack.visualizer.shots == [], "the same picture for the same hero"
    draw(pack, write(pack), reference_choice=references(pack, "previous"))
    assert [shot.prompt for shot in pack.visualizer.shots] == ["The fox walks along a river.", "The fox sleeps under a tree."]


def test_an_unknown_policy_is_refused(pack):
    with pytest.raises(pack.errors.InputError, match="policy is 'best'"):
        references(pack, "best")
    with pytest.raises(pack.errors.InputError, match="needs the output of References"):
        draw(pack, write(pack), reference_choice=["auto"])


def test_checks_can_be_switched_off_in_the_node(pack):
    from PIL import Image

    pack.visualizer.render = lambda shot, **_: pack.visualizer.shots.append(shot) or Image.new("RGB", shot.size, "white")
    story = draw(pack, write(pack), check_images=[False])
    assert len(pack.visualizer.shots) == 3 and story.images["p1"].rendering.fault == ""
    story = draw(pack, write(pack, MARKUP.replace("den", "house")))
    assert story.images["p1"].rendering.fault == "blank" and len(pack.visualizer.shots) == 5
    page = pack.part("nodes.book").book(story)["pages"][0]
    assert page["picture"]["fault"] == "blank"


# ---- going on with a story


def test_a_loaded_story_goes_on_and_its_pages_are_not_drawn_again(pack):
    story = draw(pack, write(pack))
    with pack.part("weaver_core.story").StoryFolder.create(pack.output / "books" / "robin", story.request) as folder:
        folder.set_plan(story.plan)
        for image_id, drawn in story.images.items():
            folder.keep(drawn.rendering, drawn.read())
        folder.finish()
    loaded, so_far = pack.part("nodes.load_story").WeaverLoadStory.execute("books/robin").args
    planned, _ = plan(pack, "Robin runs", 1, story_so_far=[so_far])
    assert [image.id for image in planned.plan.images] == ["p1", "p2", "p3", "p4"] and pack.planner.asked[1].num_images == 1
    pack.visualizer.shots.clear()
    done = pack.part("nodes.visualize").WeaverVisualizePlan.execute([model(pack)], [planned], [99], [0], [0.0], [0.0], story_so_far=[loaded])
    after = done.args[0]
    assert [shot.prompt for shot in pack.visualizer.shots] == ["A fox runs."] and len(done.args[1]) == 4
    assert {i: after.images[i].read().tobytes() for i in story.images} == {i: d.read().tobytes() for i, d in story.images.items()}


def test_the_hero_of_the_story_so_far_is_known_to_its_continuation(pack):
    cast = make(pack, images=[ORANGE])
    planned, _ = plan(pack, request=[ask(pack, cast=[cast])])
    again, _ = plan(pack, "more", 1, [BLUE], story_so_far=[planned])
    asked = pack.planner.asked[0]
    assert asked.cast == cast.members and [p.key for p in asked.images][0] == cast.pictures[0].key and len(asked.images) == 3
    assert again.plan.cast == cast.members and json.loads(again.plan.dumps())["cast"]
