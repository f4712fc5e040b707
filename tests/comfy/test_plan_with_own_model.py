"""Plan with a Server and Plan with a Local Model in a real ComfyUI: a loopback server, and tiny chat models in models/LLM."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
import urllib.request

import pytest
import tiny_chat_models
from bad_server import BadServer, Reply, event, pieces_of
from comfy_process import REPOSITORY, ComfyProcess, HttpError
from graphs import PROBE_PACK, api_prompt, memory_probe, ran
from PIL import Image

from weaver_core.plan import parse_markup

KEY = "weaver-test-key-1234567890"
KEY_LIKE = re.compile(r"key|secret|password|authorization|\btoken\b")
STORY = """# Pip at the beach
Pip, a red fox with a scarf, runs to the sea.
<imagine id="p1" cast="Pip">A red fox with a scarf stands on a beach by day. A ball lies beside it.</imagine>
In the evening Pip is tired and happy.
<imagine id="p2" cast="Pip">A red fox with a scarf sits on a beach at night.</imagine>
"""
CHAT_MODELS = ("Qwen3ForCausalLM", "Qwen3VLForConditionalGeneration")


@pytest.fixture(scope="module")
def server():
    """The server that the environment of ComfyUI has a key for."""
    server = BadServer()
    yield server
    server.close()


@pytest.fixture
def stranger():
    """A server that some workflow names."""
    server = BadServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def well_behaved(server):
    server.replies, server.models = [told(STORY)], ["fox-7b", "owl-3b"]
    server.asked.clear()
    server.keys.clear()
    server.hung_up.clear()


@pytest.fixture(scope="module")
def host(tmp_path_factory, server):
    """A ComfyUI with this pack, the probe, the key in its environment, and a chat model that sees nothing and has no sense."""
    process = ComfyProcess(tmp_path_factory.mktemp("planners"), extra_packs=(PROBE_PACK,))
    fox = tiny_chat_models.writing(process.folder / "models" / "LLM" / "tiny" / "fox-0.1M")
    tiny_chat_models.lora_for(fox, process.folder / "models" / "LLM" / "my-stories")
    tiny_chat_models.seeing("qwen3_vl", process.folder / "models" / "LLM" / "tiny" / "owl-vl")
    with pytest.MonkeyPatch.context() as environment:
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
            environment.delenv(name, raising=False)
        environment.setenv("WEAVER_API_KEY", KEY)
        environment.setenv("WEAVER_API_URL", server.url)
        process.start()
    try:
        yield process
    finally:
        process.stop()


def told(text: str, pause_s: float = 0.0, length: int = 12) -> Reply:
    """An answer in pieces, with a pause before each."""
    return Reply(*(part for piece in pieces_of(text, length) for part in (pause_s, event(piece))), event(None, "stop"))


ASKED = {"prompt": "A story about Pip the fox at the beach.", "num_images": 2, "language": "en", "seed": 7, "temperature": 0.7,
         "max_tokens": 4096}  # fmt: skip


def by_server(url: str, **inputs) -> dict:
    wanted = {"url": url, "model": "fox-7b", "form": "markup", **ASKED, **inputs}
    return {
        "1": {"class_type": "WeaverPlanWithServer", "inputs": wanted},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
    }


def by_local_model(**inputs) -> dict:
    wanted = {"model": "tiny/fox-0.1M", "weights": "as stored", "keep_loaded": False, **ASKED, **inputs}
    return {
        "1": {"class_type": "WeaverPlanWithLocalModel", "inputs": wanted},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
        "9": memory_probe(["1", 1], *CHAT_MODELS),
    }


def failure(host, prompt: dict) -> str:
    run = host.run(prompt)
    assert run.ended == "execution_error" and run.end["node_id"] == "1", (run.ended, run.end)
    return run.end["exception_message"]


def markup(run) -> str:
    return run.output("2")["text"][0]


def shown(run) -> list[str]:
    """The texts under node 1 while it ran."""
    return [text for data in run.binaries(3) if (text := text_under("1", data))]


def text_under(node: str, payload: bytes) -> str:
    """The text in a binary message for this node; "" in every other message."""
    head = len(node).to_bytes(4, "big") + node.encode()
    return payload[len(head):].decode(errors="replace") if payload.startswith(head) else ""


def test_both_nodes_are_there_and_the_log_tells_of_no_trouble(host):
    assert {"WeaverPlanWithServer", "WeaverPlanWithLocalModel"} <= set(host.get("/object_info"))
    assert host.trouble() == []


@pytest.mark.parametrize("node", ["WeaverPlanWithServer", "WeaverPlanWithLocalModel", "WeaverPlanWithClip", "WeaverCritic"])
def test_every_input_explains_itself_stands_in_the_help_page_and_none_is_for_a_key(host, node):
    info = host.get(f"/object_info/{node}")[node]
    inputs = {name: spec for group in ("required", "optional") for name, spec in info["input"].get(group, {}).items()}
    with urllib.request.urlopen(f"{host.url}/extensions/ComfyUI-Weaver/docs/{node}.md", timeout=10) as answer:
        page = answer.read().decode()
    assert page.startswith(f"# {info['display_name']}\n")
    assert all(spec[1].get("tooltip") for spec in inputs.values()) and all(info["output_tooltips"])
    assert [name for name in inputs if f"| {name} |" not in page] == []
    assert [name for name in inputs if KEY_LIKE.search(name)] == []


@pytest.mark.parametrize("name", ["plan_with_your_model", "plan_with_local_model", "plan_with_text_encoder"])
def test_the_templates_are_offered_and_lack_nothing_but_weights(host, name):
    assert name in host.get("/workflow_templates")["ComfyUI-Weaver"]
    workflow = json.loads((REPOSITORY / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    assert not KEY_LIKE.search(json.dumps([node["widgets_values"] for node in workflow["nodes"] if node["type"] != "MarkdownNote"]))
    with pytest.raises(HttpError) as caught:
        host.post("/prompt", {"prompt": api_prompt(workflow, host.get("/object_info")), "client_id": "template"})
    faults = {(found["class_type"], error["type"]) for found in caught.value.body["node_errors"].values() for error in found["errors"]}
    lacking = {(kind, "value_not_in_list") for kind in ("UNETLoader", "CLIPLoader", "VAELoader")}
    assert lacking <= faults <= lacking | {("WeaverPlanWithLocalModel", "value_not_in_list")}


def test_the_template_with_a_critic_runs_as_it_is_but_for_the_server(host, server):
    server.replies = [verdict(9)]
    workflow = json.loads((REPOSITORY / "workflows" / "judge_with_a_critic.json").read_text(encoding="utf-8"))
    prompt = api_prompt(workflow, host.get("/object_info"))
    critic, drawing = (next(id for id, node in prompt.items() if node["class_type"] == kind) for kind in ("WeaverCritic", "WeaverVisualizePlan"))
    prompt[critic]["inputs"] |= {"url": server.url, "server_model": "fox-7b"}
    prompt[drawing]["inputs"]["steps"] = 2
    notes = ran(host, prompt).output(drawing)["weaver_notes"]
    assert sum("the critic says 9 of 10" in note for note in notes) == 4


# ---- a server


def test_the_plan_of_the_server_is_shown_while_it_comes(host, server):
    server.replies = [told(STORY, pause_s=0.05)]
    run = ran(host, by_server(server.url))
    texts = shown(run)
    assert texts[0] == "waiting for fox-7b" and len(texts) >= 4
    lengths = [len(text) for text in texts[1:]]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]
    assert "picture 2: A red fox with a scarf sits" in texts[-1]
    plan, warnings = parse_markup(markup(run))
    assert warnings == [] and plan.title == "Pip at the beach" and len(plan.images) == 2


def test_the_server_is_asked_what_the_node_says_and_shown_the_pictures(host, server):
    Image.new("RGB", (40, 32), "orange").save(host.folder / "input" / "pip.png")
    prompt = by_server(server.url, images=["8", 0], seed=123, temperature=0.25, max_tokens=777, language="de")
    prompt["8"] = {"class_type": "LoadImage", "inputs": {"image": "pip.png"}}
    ran(host, prompt)
    (asked,) = server.asked
    assert (asked["model"], asked["seed"], asked["temperature"], asked["max_tokens"]) == ("fox-7b", 123, 0.25, 777)
    last = asked["messages"][-1]["content"]
    assert [part["type"] for part in last if part["type"] == "image_url"] == ["image_url"]
    assert "Pip the fox at the beach" in json.dumps(last)
    assert re.search(r"German|Deutsch|\bde\b", json.dumps(last)), last


def test_split_plan_and_the_embedded_visualizer_take_the_plan(host, server):
    prompt = by_server(server.url) | {
        "3": {"class_type": "WeaverSplitPlan", "inputs": {"plan": ["1", 0]}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}},
        "5": {"class_type": "WeaverLoadModel", "inputs": {"model": "picture-book (embedded)", "dtype": "auto", "device": "auto"}},
        "6": {"class_type": "WeaverVisualizePlan", "inputs": {
            "weaver_model": ["5", 0], "plan": ["1", 0], "seed": 1, "steps": 4, "guidance": 0, "reference_guidance": 0,
        }},
        "7": {"class_type": "PreviewImage", "inputs": {"images": ["6", 1]}},
    }  # fmt: skip
    run = ran(host, prompt)
    assert run.output("4")["text"] == [image.prompt for image in parse_markup(STORY)[0].images]
    pictures = [Image.open(io.BytesIO(host.view(item))).convert("RGB") for item in run.output("7")["images"]]
    assert [picture.size for picture in pictures] == [(128, 128)] * 2
    assert pictures[0].tobytes() != pictures[1].tobytes()


def test_missing_images_are_asked_for_and_a_note_says_so(host, server):
    server.replies = [told(STORY), told('Night.\n<imagine id="p3">A red fox sleeps.</imagine>\n')]
    run = ran(host, by_server(server.url, num_images=3))
    assert len(parse_markup(markup(run))[0].images) == 3 and len(server.asked) == 2
    assert any("2 of 3 images" in note for note in run.output("1")["weaver_notes"])


def test_an_interrupt_stops_between_two_pieces_and_hangs_up(host, server):
    server.replies = [told(STORY, pause_s=0.25)]

    def stop(kind, data):
        if kind == "binary" and "red fox" in text_under("1", data[4:]):
            host.post("/interrupt", {})

    run = host.run(by_server(server.url, seed=99), on_message=stop)
    assert run.ended == "execution_interrupted"
    assert "picture 2" not in "".join(shown(run)) and server.hung_up.wait(5), "the server would have gone on for seconds"
    server.replies = [told(STORY)]
    assert len(parse_markup(markup(ran(host, by_server(server.url, seed=99))))[0].images) == 2


def test_an_interrupt_before_the_first_token_stops_too(host, server):
    server.replies = [Reply(60.0, event(STORY))]

    def stop(kind, data):
        if kind == "binary" and b"waiting for" in data:
            host.post("/interrupt", {})

    began = time.monotonic()
    assert host.run(by_server(server.url, seed=98), on_message=stop).ended == "execution_interrupted"
    assert time.monotonic() - began < 40


def test_the_key_goes_to_its_server_and_to_no_other(host, server, stranger):
    stranger.replies = [told(STORY)]
    ran(host, by_server(server.url, seed=1))
    ran(host, by_server(stranger.url, seed=1))
    assert server.keys == [f"Bearer {KEY}"] and stranger.keys == [""]


def test_the_key_stands_in_no_workflow_history_message_or_log(host, server):
    workflow = {"nodes": [], "links": [], "version": 0.4}
    good = by_server(server.url, seed=2) | {
        "3": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "planned"}},
    }
    run = ran(host, good, workflow=workflow)
    server.replies = [Reply.error(401, f"the key {KEY} is not valid")]
    message = failure(host, by_server(server.url, seed=3))
    assert "does not accept the key" in message and "***" in message
    assert server.keys == [f"Bearer {KEY}"] * 2, "the key was never there, so it cannot leak"
    heard = [data if isinstance(data, bytes) else json.dumps(data).encode() for _, data in run.messages]
    places = [message.encode(), host.log_path.read_bytes(), json.dumps(host.get("/history")).encode(), *heard]
    places += [path.read_bytes() for path in host.folder.rglob("*") if path.is_file() and "custom_nodes" not in path.parts]
    assert len(places) > 10 and not [place[:200] for place in places if KEY.encode() in place]


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"url": "http://127.0.0.1:9/v1"}, "no server answers there; start it"),
        ({"url": "https://me:secret@example.org/v1"}, "holds a name or key before the '@'"),
        ({"url": "ftp://example.org"}, "no address of a server"),
        ({"model": " "}, "has no name"),
        ({"language": "not a language!"}, "language"),
    ],
)
def test_what_cannot_be_asked_ends_with_a_sentence(host, server, inputs, message):
    assert message in failure(host, by_server(**({"url": server.url} | inputs)))
    assert server.asked == []


def test_a_wrong_model_name_is_answered_with_those_that_the_server_has(host, server):
    server.replies = [Reply.error(404, "model not found")]
    assert "It has fox-7b, owl-3b" in failure(host, by_server(server.url, model="wolf"))


# ---- a model on this computer


def test_the_model_is_listed_under_its_path(host):
    spec = host.get("/object_info/WeaverPlanWithLocalModel")["WeaverPlanWithLocalModel"]["input"]["required"]["model"]
    assert (spec[1].get("options") or spec[0]) == ["my-stories", "tiny/fox-0.1M", "tiny/owl-vl"]


def test_a_lora_is_chosen_like_a_model_and_writes_otherwise_than_its_model(host):
    plain, tuned = (by_local_model(max_tokens=200, seed=5, model=name, weights=weights) for name, weights in
                    (("tiny/fox-0.1M", "as stored"), ("my-stories", "as stored")))  # fmt: skip
    first, other = ran(host, plain), ran(host, tuned)
    assert markup(first) != markup(other) and other.output("9")["alive"] == [0]
    plan, warnings = parse_markup(markup(other))
    assert warnings == [] and len(plan.images) == 2 and shown(other)[0] == "loading my-stories"
    packed = ran(host, by_local_model(max_tokens=200, seed=5, model="my-stories", weights="nf4"))
    assert markup(packed) not in (markup(first), markup(other)) and len(parse_markup(markup(packed))[0].images) == 2


@pytest.mark.parametrize("count", [1, 3])
def test_a_model_without_sense_writes_a_plan_of_exactly_that_many_images(host, count):
    prompt = by_local_model(num_images=count, max_tokens=80 + 80 * count) | {
        "3": {"class_type": "WeaverSplitPlan", "inputs": {"plan": ["1", 0]}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}},
    }
    run = ran(host, prompt)
    plan, warnings = parse_markup(markup(run))
    assert warnings == [] and len(plan.images) == count
    assert run.output("4")["text"] == [image.prompt for image in plan.images]
    assert shown(run)[0] == "loading tiny/fox-0.1M" and len(shown(run)) >= 2


def test_the_same_seed_writes_the_same_story_and_another_seed_another(host):
    first = markup(ran(host, by_local_model(max_tokens=200, seed=5)))
    host.post("/free", {"unload_models": True, "free_memory": True})
    assert markup(ran(host, by_local_model(max_tokens=200, seed=5))) == first
    assert markup(ran(host, by_local_model(max_tokens=200, seed=6))) != first


def probed(host, prompt: dict) -> dict:
    return ran(host, prompt).output("9")


LOOKED = {
    "8": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
    "9": memory_probe(["8", 0], *CHAT_MODELS),
}


def emptied(host) -> dict:
    """Nothing is on the device, and what was brought there before is forgotten; what is in memory now."""
    host.post("/free", {"unload_models": True, "free_memory": True})
    probed(host, LOOKED)  # ComfyUI frees when a run has ended, which may be this one
    return probed(host, LOOKED)


def test_the_model_leaves_memory_unless_it_is_kept(host):
    emptied(host)
    left, kept, left_again = (
        probed(host, by_local_model(max_tokens=120, num_images=1, seed=seed, keep_loaded=keep))
        for seed, keep in ((20, False), (21, True), (22, False))
    )
    assert [found["alive"] for found in (left, kept, left_again)] == [[0], [1], [0]]
    assert [found["hosted"].count("WeaverPlanner") for found in (left, kept, left_again)] == [0, 1, 0]
    assert [found["loads"] for found in (left, kept, left_again)] == [["WeaverPlanner"], ["WeaverPlanner"], []]


def test_comfyui_may_take_a_kept_model_off_its_device_and_brings_it_back(host):
    first = ran(host, by_local_model(max_tokens=120, num_images=1, seed=25, keep_loaded=True))
    away = emptied(host)
    assert away["alive"] == [1] and "WeaverPlanner" not in away["hosted"]
    again = ran(host, by_local_model(max_tokens=120, num_images=1, seed=25, keep_loaded=False))
    assert markup(again) == markup(first) and again.output("9")["loads"] == ["WeaverPlanner"]


def test_another_model_takes_the_place_of_the_kept_one(host):
    folder = host.folder / "models" / "LLM" / "owl"
    shutil.copytree(folder.parent / "tiny" / "fox-0.1M", folder)
    try:
        ran(host, by_local_model(max_tokens=120, num_images=1, seed=30, keep_loaded=True))
        assert probed(host, by_local_model(model="owl", max_tokens=120, num_images=1, seed=30, keep_loaded=True))["alive"] == [1]
    finally:
        shutil.rmtree(folder)
    assert probed(host, by_local_model(max_tokens=120, num_images=1, seed=31))["alive"] == [0]


NATIVE = {"5": {"class_type": "WeaverLoadModel", "inputs": {"model": "picture-book (embedded)", "dtype": "auto", "device": "auto"}}}


def drawn_by_the_pair(plan: dict, **inputs) -> dict:
    wanted = {"weaver_model": ["5", 0], "plan": ["1", 0], "seed": 5, "steps": 2, "guidance": 1.0, "reference_guidance": 1.0, **inputs}
    return plan | NATIVE | {
        "6": {"class_type": "WeaverVisualizePlan", "inputs": wanted},
        "9": memory_probe(["6", 0], *CHAT_MODELS),
    }  # fmt: skip


def test_a_story_swaps_models_once_from_planner_to_visualizer(host):
    emptied(host)
    found = probed(host, drawn_by_the_pair(by_local_model(max_tokens=260, num_images=3, seed=41)))
    assert found["loads"] == ["WeaverPlanner", "WeaverPair"] and found["alive"] == [0] and "WeaverPlanner" not in found["hosted"]


# ---- the critic


def by_hand() -> dict:
    return {"1": {"class_type": "WeaverWritePlan", "inputs": {"markup": STORY, "prompt": ""}}}


def verdict(score: int, fault: str = "", prompt: str = "") -> Reply:
    scores = dict.fromkeys(("people", "looks", "scene", "single", "clean"), score)
    return told(json.dumps({**scores, "faults": [fault] if fault else [], "prompt": prompt}))


CRITIC = {"model": "a server", "server_model": "fox-7b", "max_redraws": 1, "least_score": 6, "weights": "as stored", "keep_loaded": False}


def test_a_server_judges_what_visualize_plan_draws_and_has_it_drawn_again(host, server):
    server.replies = [verdict(3, "the ball is missing", "A red fox with a scarf stands beside a ball, at the beach by day."),
                      verdict(8), verdict(9)]  # fmt: skip
    judged = drawn_by_the_pair(by_hand(), seed=71, critic=["7", 0]) | {
        "7": {"class_type": "WeaverCritic", "inputs": {"url": server.url, **CRITIC}},
        "8": {"class_type": "WeaverSaveStory", "inputs": {"story": ["6", 0], "filename_prefix": "judged"}},
    }
    run = ran(host, judged)
    notes = [note for note in run.output("6")["weaver_notes"] if "critic" in note]
    assert notes == ["p1: the critic says 3 of 10 (people 3, looks 3, scene 3, single 3, clean 3): the ball is missing; it is drawn once more",
                     "p1: the critic says 8 of 10 (people 8, looks 8, scene 8, single 8, clean 8)",
                     "p2: the critic says 9 of 10 (people 9, looks 9, scene 9, single 9, clean 9)"]  # fmt: skip
    assert server.asked[0]["messages"][0]["content"][0]["type"] == "image_url" and server.keys[0] == f"Bearer {KEY}"
    page = next(host.output.glob("judged*/story.html")).read_text(encoding="utf-8")
    assert "Critic: 8 of 10" in page and "Critic: 9 of 10" in page


def test_a_model_on_this_computer_judges_beside_the_pair_and_leaves(host):
    judged = drawn_by_the_pair(by_hand(), seed=72, critic=["7", 0]) | {
        "7": {"class_type": "WeaverCritic", "inputs": {"url": "", **CRITIC, "model": "tiny/owl-vl"}},
    }
    run = ran(host, judged)
    notes = [note for note in run.output("6")["weaver_notes"] if "critic" in note]
    assert len(notes) == 2 and all("is no verdict; the picture is kept" in note for note in notes), notes
    found = run.output("9")
    assert set(found["loads"]) >= {"WeaverPlanner"} and found["alive"] == [0] and "WeaverPlanner" not in found["hosted"]


def test_a_critic_that_cannot_see_costs_a_note_and_no_page(host):
    judged = drawn_by_the_pair(by_hand(), seed=73, critic=["7", 0]) | {
        "7": {"class_type": "WeaverCritic", "inputs": {"url": "", **CRITIC, "model": "tiny/fox-0.1M"}},
    }
    (note,) = [note for note in ran(host, judged).output("6")["weaver_notes"] if "critic" in note]
    assert "cannot look at pictures; take a model that sees" in note and str(host.folder) not in note


def test_an_interrupt_stops_the_model_between_two_tokens_and_frees_it(host):
    def stop(kind, data):
        if kind == "binary" and (text := text_under("1", data[4:])) and not text.startswith("loading"):
            host.post("/interrupt", {})

    run = host.run(by_local_model(num_images=60, max_tokens=8000, seed=50), on_message=stop)
    assert run.ended == "execution_interrupted"
    assert probed(host, by_local_model(num_images=1, max_tokens=120, seed=51))["alive"] == [0]


def test_the_model_is_asked_again_when_its_files_have_changed(host):
    config = host.folder / "models" / "LLM" / "tiny" / "fox-0.1M" / "generation_config.json"
    prompt = by_local_model(num_images=1, max_tokens=120, seed=60)
    ran(host, prompt)
    assert "1" not in ran(host, prompt).executed()
    text = config.read_text()
    config.write_text(text + "\n")
    assert "1" in ran(host, prompt).executed()


def test_a_model_that_is_not_there_is_named_with_those_that_are(host):
    shutil.copytree(host.folder / "models" / "LLM" / "tiny" / "fox-0.1M", host.folder / "outside")
    try:
        message = failure(host, by_local_model(model="../../outside"))
    except HttpError as refused:  # newer hosts check the lists of such nodes before anything runs
        message = json.dumps(refused.body)
    assert "../../outside" in message and "tiny/fox-0.1M" in message and str(host.folder) not in message


def test_an_empty_prompt_is_refused_before_anything_runs(host, server):
    for prompt in (by_server(server.url, prompt=" \n"), by_local_model(prompt=" \n")):
        with pytest.raises(HttpError) as caught:
            host.post("/prompt", {"prompt": prompt, "client_id": "refused"})
        assert "the prompt is empty" in json.dumps(caught.value.body)
