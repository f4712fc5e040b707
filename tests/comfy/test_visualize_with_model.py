"""Visualize with Your Model in a real ComfyUI, with tiny models of its own classes: what runs, what is kept, what is told."""

from __future__ import annotations

import io
import json
import random
import time
from pathlib import Path

import pytest
from bad_server import BadServer, Reply, event
from comfy_process import REPOSITORY, ComfyProcess, HttpError
from graph_links import link_faults, recorded_nodes
from graphs import api_prompt, ran
from PIL import Image

from weaver_core.errors import InputError
from weaver_core.plan import parse_markup
from weaver_core.request import Request
from weaver_core.story import Story
from weaver_core.visualizers.graph import ModelFacts, families
from weaver_core.visualizers.graph.detect import is_link
from weaver_core.visualizers.graph.nodes import NodeGraph, check_needs, fitted_graph
from weaver_core.visualizers.graph.shots import emit_pages, overridden, pages_to_draw

STAND_IN = Path(__file__).parent / "stand_in_pack"
NODE = "3"

ALONE = "# Robin\n" + "\n".join(
    f'Page {n}.\n<imagine id="p{n}" cast="Robin">Robin the fox {what}.</imagine>'
    for n, what in enumerate(("wakes", "runs", "sleeps"), 1)
)
PAIR = """# Two friends
Robin alone. <imagine id="p1" cast="Robin">A fox by the river.</imagine>
Mia alone. <imagine id="p2" cast="Mia">A cat on a roof.</imagine>
Both. <imagine id="p3" cast="Robin, Mia">A fox and a cat meet.</imagine>
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A ComfyUI with this pack and the stand-ins."""
    with ComfyProcess(tmp_path_factory.mktemp("families"), extra_packs=(STAND_IN,)) as process:
        yield process


def graph(kind: str, weights: str, markup: str, **inputs) -> dict:
    wanted = {
        "family": "auto",
        "seed": 1,
        "steps": 1,
        "cfg": 0,
        "sampler_name": "auto",
        "scheduler": "auto",
        "width": 256,
        "height": 256,
    }
    return {
        "1": {"class_type": "StandInModel", "inputs": {"kind": kind, "weights": weights}},
        "2": {"class_type": "StandInPlan", "inputs": {"markup": markup}},
        NODE: {"class_type": "WeaverVisualizeWithModel", "inputs": {
            "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "plan": ["2", 0], **wanted, **inputs,
        }},
        "4": {"class_type": "WeaverPreviewStory", "inputs": {"story": [NODE, 0]}},
        "5": {"class_type": "PreviewImage", "inputs": {"images": [NODE, 1]}},
        "6": {"class_type": "WeaverSplitPlan", "inputs": {"plan": [NODE, 2]}},
        "7": {"class_type": "PreviewAny", "inputs": {"source": ["6", 1]}},
    }  # fmt: skip


def inner(run) -> set[str]:
    """The nodes of the expansion that ran, by the names that families give them."""
    return {node.removeprefix(f"{NODE}.0.0.") for node in run.executed() if node.startswith(f"{NODE}.")}


def samplers(run) -> list[str]:
    """The pages that were drawn; one that was drawn again, by nodes in place of the one that keeps it, stands there twice."""
    return sorted(name.rpartition(".0.0.")[2].removesuffix(".sample") for name in inner(run) if name.endswith(".sample"))


def pictures(host, run) -> list[tuple[tuple[int, int], bytes]]:
    """Size and pixels of every page, as a core node shows them."""
    shown = [Image.open(io.BytesIO(host.view(item))).convert("RGB") for item in run.output("5")["images"]]
    return [(image.size, image.tobytes()) for image in shown]


def notes(run) -> str:
    return " ".join(
        note
        for kind, data in run.messages
        if kind == "executed" and data["output"]
        for note in data["output"].get("weaver_notes", ())
    )


def test_both_packs_are_loaded_without_trouble(host):
    assert host.trouble() == []
    assert {"StandInModel", "WeaverVisualizeWithModel"} <= set(host.get("/object_info"))


def test_sdxl_draws_every_page_through_the_core_sampler_and_the_story_is_complete(host):
    run = ran(host, graph("sdxl", "sd_xl_base_1.0.safetensors", ALONE))
    assert samplers(run) == ["p1", "p2", "p3"]
    assert [size for size, _ in pictures(host, run)] == [(256, 256)] * 3
    assert len(set(pictures(host, run))) == 3
    (story,) = run.output("4")["weaver_story"]
    assert [page["id"] for page in story["pages"]] == ["p1", "p2", "p3"] and all(page["picture"] for page in story["pages"])
    assert run.output("7")["text"] == [f"Robin the fox {what}." for what in ("wakes", "runs", "sleeps")]


def test_an_unchanged_plan_runs_nothing(host):
    ran(host, graph("sdxl", "sd_xl_base_1.0.safetensors", ALONE))
    assert ran(host, graph("sdxl", "sd_xl_base_1.0.safetensors", ALONE)).executed() == set()


def test_one_changed_page_runs_that_page_and_a_page_changed_back_runs_none(host):
    before = pictures(host, ran(host, graph("sdxl", "sd_xl_base_1.0.safetensors", ALONE)))
    run = ran(host, graph("sdxl", "sd_xl_base_1.0.safetensors", ALONE.replace("runs", "swims")))
    assert inner(run) - {"negative", "p2.size"} == {"p2.prompt", "p2.sample", "p2.image", "p2.keep"}
    after = pictures(host, run)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert samplers(ran(host, graph("sdxl", "sd_xl_base_1.0.safetensors", ALONE))) == []


def test_pages_are_not_drawn_again_when_comfyui_has_forgotten_them(host):
    run = ran(host, graph("sdxl", "sd_xl_base_1.0.safetensors", ALONE))
    while NODE not in run.executed():  # a prompt that comes at once may be run before the memory is freed
        host.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.5)
        run = ran(host, graph("sdxl", "sd_xl_base_1.0.safetensors", ALONE))
    assert inner(run) == set() and len(pictures(host, run)) == 3


def test_two_nodes_that_draw_plans_of_one_request_do_not_mix(host):
    weights, seed = "sd_xl_base_1.0.safetensors", fresh()
    prompt, other = graph("sdxl", weights, ALONE, seed=seed), graph("sdxl", weights, ALONE.replace("runs", "swims"), seed=seed)
    prompt["12"] = other["2"]
    prompt["13"] = {**other[NODE], "inputs": {**other[NODE]["inputs"], "plan": ["12", 0]}}
    prompt["14"] = {"class_type": "WeaverPreviewStory", "inputs": {"story": ["13", 0]}}
    run = ran(host, prompt)
    shown = {node: [(page["prompt"], page["picture"]["kept"]) for page in run.output(node)["weaver_story"][0]["pages"]] for node in ("4", "14")}
    assert [page[0] for page in shown["4"]] == [f"Robin the fox {what}." for what in ("wakes", "runs", "sleeps")]
    assert [page[0] for page in shown["14"]] == [f"Robin the fox {what}." for what in ("wakes", "swims", "sleeps")]
    assert not {page[1]["draft"] for page in shown["4"]} & {page[1]["draft"] for page in shown["14"]}


def test_after_an_interrupt_only_what_is_missing_is_drawn(host):
    prompt = graph("flux2-klein", "flux-2-klein-4b-fp8.safetensors", PAIR, seed=fresh(), steps=60, check_images=False)  # long enough to be stopped

    def stop_on_page_two(kind, data):
        if kind == "executing" and str(data.get("node")).endswith(".p2.sample"):
            host.post("/interrupt", {})

    assert host.run(prompt, on_message=stop_on_page_two).ended == "execution_interrupted"
    host.post("/free", {"unload_models": True, "free_memory": True})
    assert samplers(ran(host, prompt)) == ["p2", "p3"]


# ---- a second look


@pytest.fixture
def judge():
    server = BadServer()
    yield server
    server.close()


def fresh() -> int:
    """A seed that no run has had: nothing of its story is there yet, also when a test is tried once more."""
    return random.randrange(2**40)


def verdict(score: int, fault: str = "", prompt: str = "") -> Reply:
    scores = dict.fromkeys(("people", "looks", "scene", "single", "clean"), score)
    return Reply(event(json.dumps({**scores, "faults": [fault] if fault else [], "prompt": prompt})), event(None, "stop"))


def judged(server, markup: str, *, max_redraws: int = 1, **inputs) -> dict:
    critic = {"model": "a server", "url": server.url, "server_model": "owl", "max_redraws": max_redraws, "least_score": 6}
    prompt = graph("sdxl", "sd_xl_base_1.0.safetensors", markup, critic=["8", 0], check_images=False, **inputs)
    return prompt | {"8": {"class_type": "WeaverCritic", "inputs": critic | {"weights": "as stored", "keep_loaded": False}}}


def kept(run) -> dict:
    """Page id -> what the book view is told of its picture."""
    return {page["id"]: page["picture"] for page in run.output("4")["weaver_story"][0]["pages"]}


def test_a_critic_has_a_page_drawn_again_in_its_words_by_the_same_core_nodes(host, judge):
    judge.replies, seed = [verdict(3, "no tail", "Robin the fox with a tail wakes."), verdict(9), verdict(8), verdict(7)], fresh()
    run = ran(host, judged(judge, ALONE, seed=seed))
    assert samplers(run) == ["p1", "p1", "p2", "p3"]
    told = notes(run)
    assert "p1: the critic says 3 of 10" in told and "no tail; it is drawn once more" in told and "p1: the critic says 9 of 10" in told
    assert "p2: the critic says 8 of 10" in told and "p3: the critic says 7 of 10" in told
    asked = [request["messages"][0]["content"] for request in judge.asked]
    assert len(asked) == 4 and all(content[0]["type"] == "image_url" for content in asked)
    assert asked[0][0] != asked[1][0], "the second look is at another picture"
    assert len(set(pictures(host, run))) == 3
    assert ran(host, judged(judge, ALONE, seed=seed)).executed() <= {"8"} and len(judge.asked) == 4


def test_a_worse_redraw_never_replaces_the_picture_that_is_there(host, judge):
    seed = fresh()
    first = pictures(host, ran(host, graph("sdxl", "sd_xl_base_1.0.safetensors", ALONE, seed=seed)))
    judge.replies = [verdict(5), verdict(2), verdict(4), verdict(9), verdict(9)]
    run = ran(host, judged(judge, ALONE, seed=seed, max_redraws=2))
    assert pictures(host, run) == first, "pages that are kept are judged, and the best of three is the first"
    assert samplers(run) == ["p1", "p1"] and notes(run).count("it is drawn once more") == 2


def test_a_critic_that_fails_is_asked_once_and_costs_no_page(host, judge):
    judge.replies = [Reply.error(401, "no"), verdict(9), verdict(9)]
    run = ran(host, judged(judge, ALONE, seed=fresh()))
    assert notes(run).count("the critic cannot judge") == 1 and len(judge.asked) == 1 and len(pictures(host, run)) == 3


SAME = """# Twins
<imagine id="p1" cast="Robin">A fox wakes.</imagine>
<imagine id="p2" cast="Robin">A bear sleeps.</imagine>
"""


def test_a_page_that_looks_wrong_is_drawn_once_more_and_marked_when_that_does_not_help(host):
    """A VAE that draws nothing but grey: both drawings are blank."""
    run = ran(host, graph("sdxl", "grey.safetensors", SAME, family="sdxl", seed=fresh()))
    assert samplers(run) == ["p1", "p1", "p2", "p2"]
    assert "p1 looks blank; it is drawn once more" in notes(run) and "p2 looks blank in both drawings; it is kept and marked" in notes(run)
    assert {picture["fault"] for picture in kept(run).values()} == {"blank"}
    off = ran(host, graph("sdxl", "grey.safetensors", SAME, family="sdxl", seed=fresh(), check_images=False))
    assert samplers(off) == ["p1", "p2"] and "blank" not in notes(off)


# ---- references


def test_two_heroes_reach_the_third_page_in_two_slots(host):
    run = ran(host, graph("qwen-image", "qwen_image_edit_2509_fp8_e4m3fn.safetensors", PAIR))
    assert samplers(run) == ["p1", "p2", "p3"]
    assert {"model.shift", "model.norm", "p3.prompt", "p3.negative"} <= inner(run)
    assert len([name for name in inner(run) if name.startswith("model.")]) == 2, "the model is patched once for all pages"
    first, second, both = pictures(host, run)
    changed = pictures(
        host,
        ran(
            host,
            graph(
                "qwen-image",
                "qwen_image_edit_2509_fp8_e4m3fn.safetensors",
                PAIR.replace("on a roof", "in a tree"),
                redraw_stale=True,
            ),
        ),
    )
    assert changed[0] == first and changed[1] != second and changed[2] != both, (
        "Mia's first picture decides how page 3 shows her"
    )


def test_pages_that_used_a_changed_page_follow_only_when_wished(host):
    story = ("flux2-klein", "flux-2-klein-4b-fp8.safetensors")
    run = ran(host, graph(*story, PAIR))
    assert samplers(run) == ["p1", "p2", "p3"]
    assert {"p3.positive-reference-1", "p3.positive-reference-2", "p3.negative-reference-2", "page.p1.latent"} <= inner(run)
    changed = PAIR.replace("by the river", "in the snow")
    run = ran(host, graph(*story, changed))
    assert samplers(run) == ["p1"] and "p3 was drawn from an earlier p1" in notes(run)
    run = ran(host, graph(*story, changed, redraw_stale=True))
    assert samplers(run) == ["p3"] and {"page.p1.file", "page.p2.file"} <= inner(run)


def test_the_user_s_sheet_comes_before_the_first_appearance(host):
    Image.new("RGB", (64, 48), "orange").save(host.folder / "input" / "robin.png")
    prompt = graph(
        "flux2-klein", "flux-2-klein-4b-fp8.safetensors", PAIR, references=["8", 0], reference_names="Robin", seed=5
    )
    prompt["8"] = {"class_type": "LoadImage", "inputs": {"image": "robin.png"}}
    run = ran(host, prompt)
    assert {"picture.Robin.latent", "page.p2.latent"} <= inner(run) and "page.p1.latent" not in inner(run)
    before = pictures(host, run)
    Image.new("RGB", (64, 48), "blue").save(host.folder / "input" / "robin.png")
    after = pictures(host, ran(host, prompt))
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, False]


# ---- every family, drawn or, where the core is too old for it, checked against recorded node definitions

FOUR = PAIR + 'Robin goes home. <imagine id="p4" cast="Robin">A fox in his den.</imagine>\n'
KINDS = {  # family -> the stand-in's kind, the file it is told by, and its title
    "qwen-image-2.1": ("qwen-image", "qwen_image_2.1_int8_convrot.safetensors", "Qwen-Image-2.1"),
    "qwen-image-edit-2511": ("qwen-image", "qwen_image_edit_2511_fp8mixed.safetensors", "Qwen-Image-Edit-2511"),
    "qwen-image-edit-2509": ("qwen-image", "qwen_image_edit_2509_fp8_e4m3fn.safetensors", "Qwen-Image-Edit-2509"),
    "flux2-klein": ("flux2-klein", "flux-2-klein-4b-fp8.safetensors", "Flux.2 Klein"),
    "flux2-klein-base": ("flux2-klein", "flux-2-klein-base-4b.safetensors", "Flux.2 Klein base"),
    "flux2-klein-kv": ("flux2-klein", "flux-2-klein-9b-kv-fp8.safetensors", "Flux.2 Klein KV"),
    "flux2-dev": ("flux2-dev", "flux2_dev_fp8mixed.safetensors", "Flux.2 dev"),
    "flux-kontext": ("flux", "flux1-dev-kontext_fp8_scaled.safetensors", "Flux.1 Kontext"),
    "qwen-image": ("qwen-image", "qwen_image_fp8_e4m3fn.safetensors", "Qwen-Image"),
    "flux": ("flux", "flux1-dev.safetensors", "Flux.1"),
    "z-image": ("z-image", "z_image_turbo_bf16.safetensors", "Z-Image"),
    "sd3": ("sd3", "sd3.5_medium.safetensors", "Stable Diffusion 3"),
    "sdxl": ("sdxl", "sd_xl_base_1.0.safetensors", "SDXL"),
    "sd15": ("sd15", "v1-5-pruned-emaonly.safetensors", "Stable Diffusion 1.5"),
    "text-to-image": ("sdxl-refiner", "unknown.safetensors", "Text-to-image"),
}
# Reference latents of pages 1 to 4 on the positive and on the negative side: Kontext sees both heroes in one picture.
BOTH_SIDES = {"positive": [0, 0, 2, 1], "negative": [0, 0, 2, 1]}
REFERENCES = {
    "qwen-image-edit-2511": BOTH_SIDES, "qwen-image-edit-2509": BOTH_SIDES,
    "flux2-klein": BOTH_SIDES, "flux2-klein-base": BOTH_SIDES, "flux2-klein-kv": BOTH_SIDES,
    "flux2-dev": {"positive": [0, 0, 2, 1]},
    "flux-kontext": {"positive": [0, 0, 1, 1], "negative": [0, 0, 0, 0]},
}  # fmt: skip

FORGET = {  # what conditionings were seen so far
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
    "8": {"class_type": "StandInConditionings", "inputs": {"after": ["1", 0]}},
}


def test_every_family_has_a_stand_in():
    assert list(KINDS) == list(families())


def nodes_of(name: str, sampling, markup: str) -> dict:
    """The expansion for a story of which nothing is drawn yet."""
    plan, _ = parse_markup(markup)
    request, family, graph = Request(prompt="a story", size=(256, 256)), families()[name], NodeGraph()
    story = Story(request)
    story.set_plan(plan)
    pages, _ = pages_to_draw(plan, request, story, family, sampling, "any")
    emit_pages(graph, family, sampling, pages, model=["1", 0], clip=["1", 1], vae=["1", 2], file_of=str,
               keep_node="WeaverKeepPage", draft="d", notes=[])  # fmt: skip
    return graph.finalize()


@pytest.mark.parametrize("name", KINDS)
def test_every_family_draws_a_story_or_says_what_it_lacks(host, record_property, name):
    kind, weights, title = KINDS[name]
    family, info = families()[name], host.get("/object_info")
    version = host.get("/system_stats")["system"].get("comfyui_version", "")
    sampling = overridden(family.sampling(ModelFacts(files=(weights,))), steps=1)
    nodes = nodes_of(name, sampling, FOUR)
    prompt = graph(kind, weights, FOUR, seed=3)
    prompt["8"] = {"class_type": "StandInConditionings", "inputs": {"after": [NODE, 0]}}
    try:
        check_needs(family, info, version)
    except InputError as lack:
        run = host.run(prompt)
        assert run.ended == "execution_error" and str(lack) in run.end["exception_message"]
        assert "since version" in str(lack) and version in str(lack)
        catalogue = recorded_nodes() | {"WeaverKeepPage": info["WeaverKeepPage"]}
        assert link_faults(fitted_graph(nodes, catalogue), catalogue) == []
        record_property("family", f"link-checked against recorded nodes, because ComfyUI {version} is too old: {name}")
        return

    ran(host, FORGET)
    run = ran(host, prompt)
    record_property("family", f"drawn by ComfyUI {version}: {name}")
    # Two nodes of the same inputs are run once; one without a wire, such as an empty latent, may be known from the test before.
    wired = {str(facts) for facts in nodes.values() if any(map(is_link, facts["inputs"].values()))}
    assert inner(run) <= set(nodes) and wired <= {str(nodes[name]) for name in inner(run)}, "it ran other nodes than were emitted"
    assert f"drawn as {title}: 1 step" in notes(run)
    first = pictures(host, run)
    assert len(set(first)) == 4 and [size for size, _ in first] == [family.capabilities.fit_size((256, 256), None)] * 4
    told = run.output("8")["seen"]
    for sign in ("positive", "negative"):
        shown = [conditioning["references"] for conditioning in told if conditioning["sign"] == sign]
        assert [len(references) for references in shown] == REFERENCES.get(name, {}).get(sign, [0] * len(shown)), sign
        if len(shown) == 4 and len(shown[2]) == 2:
            assert shown[2][0] != shown[2][1] and shown[3] == [shown[2][0]], "page 4 has Robin's first picture, not a copy of a copy"

    assert host.run(prompt).executed() == {"8"}, "an unchanged story was drawn again"
    prompt["2"]["inputs"]["markup"] = FOUR.replace("in his den", "under a tree")
    again = ran(host, prompt)
    assert samplers(again) == ["p4"]
    assert {node for node in inner(again) if node.startswith(("p1.", "p2.", "p3."))} == set()
    assert [a == b for a, b in zip(first, pictures(host, again), strict=True)] == [True, True, True, False]


def test_2511_puts_references_at_timestep_zero_and_flux_is_told_its_guidance(host):
    for name, key, value in (("qwen-image-edit-2511", "method", "index_timestep_zero"), ("flux2-dev", "guidance", 4.0)):
        kind, weights, _ = KINDS[name]
        prompt = graph(kind, weights, FOUR, seed=4)
        prompt["8"] = {"class_type": "StandInConditionings", "inputs": {"after": [NODE, 0]}}
        ran(host, FORGET)
        run = host.run(prompt)
        if run.ended == "execution_error" and "since version" in run.end["exception_message"]:
            continue
        assert {told[key] for told in run.output("8")["seen"] if told["references"]} == {value}


def test_a_word_where_the_model_belongs_is_named(host):
    run = host.run(graph("sdxl", "tiny.safetensors", ALONE, model="something"))
    assert run.ended == "execution_error"
    assert "got no MODEL; connect the loader" in run.end["exception_message"]


def test_a_name_of_a_draft_that_leads_elsewhere_is_refused(host):
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": "WeaverKeepPage", "inputs": {"image": ["1", 0], "draft": "../x", "facts": "{}", "notes": "[]", "last": True}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }  # fmt: skip
    run = host.run(prompt)
    assert run.ended == "execution_error" and "no name of a draft" in run.end["exception_message"]


WEIGHT_LOADERS = {"UNETLoader", "LoraLoaderModelOnly", "CLIPLoader", "DualCLIPLoader", "VAELoader", "CheckpointLoaderSimple"}
TEMPLATES = [
    path for path in sorted((REPOSITORY / "workflows").glob("story_*.json"))
    if {node["type"] for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]} & WEIGHT_LOADERS
]  # fmt: skip


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_the_templates_lack_nothing_but_the_weights_themselves(host, path):
    workflow, info = json.loads(path.read_text(encoding="utf-8")), host.get("/object_info")
    assert all(node["type"] in info or node["type"] == "MarkdownNote" for node in workflow["nodes"])
    with pytest.raises(HttpError) as caught:
        host.post("/prompt", {"prompt": api_prompt(workflow, info), "client_id": "template"})
    faults = {
        (found["class_type"], error["type"])
        for found in caught.value.body["node_errors"].values()
        for error in found["errors"]
    }
    assert faults and {kind for kind, _ in faults} <= WEIGHT_LOADERS and {fault for _, fault in faults} == {"value_not_in_list"}
