"""The families of models that ComfyUI draws with: the graphs they emit, their defaults, and how one is found."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from graph_links import link_faults, recorded_nodes
from PIL import Image

from weaver_core.errors import InputError
from weaver_core.plan import parse_markup
from weaver_core.rendering import Rendering, UsedReference
from weaver_core.request import ReferenceImage, Request
from weaver_core.segments import CastMember
from weaver_core.story import Story
from weaver_core.visualizers.graph import GraphShot, ModelFacts, Sampling, SlotReference, families, family_named
from weaver_core.visualizers.graph.attempts import Attempt, Page, emit_again, page_of
from weaver_core.visualizers.graph.detect import digest_before, files_before, find_family
from weaver_core.visualizers.graph.nodes import NodeGraph, check_needs, fitted_graph
from weaver_core.visualizers.graph.shots import (
    described, emit_pages, facts_of, overridden, pages_to_draw, rendering_of, visualizer_of,
)  # fmt: skip

FAMILIES = families()
WITH_REFERENCES = [name for name, family in FAMILIES.items() if family.capabilities.max_references]
MODEL, CLIP, VAE = ["1", 0], ["1", 1], ["1", 2]
KEEP = {  # as nodes/keep_page.py declares it
    "input": {"required": {"image": ["IMAGE"], "draft": ["STRING"], "facts": ["STRING"], "notes": ["STRING"], "last": ["BOOLEAN"]},
              "optional": {"after": ["WEAVER_STORY"], "again": ["STRING"], "critic": ["WEAVER_CRITIC"]}},
    "output": ["IMAGE", "WEAVER_STORY", "IMAGE"],
}  # fmt: skip
PAIR = """# Two friends
One. <imagine id="p1" cast="Robin">A fox by the river.</imagine>
Two. <imagine id="p2" cast="Mia" aspect="4:3">A cat on a roof.</imagine>
Three. <imagine id="p3" cast="Robin, Mia">They meet.</imagine>
Four. <imagine id="p4" cast="Robin">He goes home.</imagine>
"""


@pytest.fixture(scope="module")
def catalogue() -> dict:
    return recorded_nodes() | {"WeaverKeepPage": KEEP}


def emitted(name: str, *members: str, file: str = "", **shot) -> tuple[dict, list]:
    """(graph, link to the image) of one shot with a reference for each of these members."""
    family, graph = family_named(name), NodeGraph()
    references = tuple(
        SlotReference(name=f"page.{member}", image=[f"look-{member}", 0], member=member) for member in members
    )
    sampling = family.sampling(ModelFacts(files=(file,)))
    told = {
        "id": "p9",
        "prompt": "A fox.",
        "size": family.capabilities.fit_size(None, "4:3"),
        "seed": 5,
        "sampling": sampling,
    }
    link = family.emit(graph, MODEL, CLIP, VAE, GraphShot(**told | shot, references=references))
    return graph.finalize(), link


def the(graph: dict, kind: str) -> dict:
    """The inputs of the one node of a class."""
    (node,) = [node["inputs"] for node in graph.values() if node["class_type"] == kind]
    return node


def kinds(graph: dict) -> list[str]:
    return [node["class_type"] for node in graph.values()]


def before(graph: dict, link: list, key: str, kind: str) -> list[list]:
    """Walks back from a link along inputs `key` through nodes of one class: their other links, first node first."""
    passed = []
    while graph.get(link[0], {}).get("class_type") == kind:
        node = graph[link[0]]["inputs"]
        passed.insert(0, [value for name, value in node.items() if name != key][0])
        link = node[key]
    return [*passed, link]


def story_pages(name: str, markup: str = PAIR, *, story: Story | None = None, request: Request | None = None, **how):
    """(pages, notes) for a story in memory."""
    family = family_named(name)
    sampling = family.sampling(ModelFacts())
    plan, warnings = parse_markup(markup)
    assert warnings == []
    request = request or Request(prompt="a story")
    story = story or Story(request)
    story.set_plan(plan)
    return pages_to_draw(plan, request, story, family, sampling, visualizer_of(family, sampling, "w"), **how)


def drawn(story: Story, pages) -> None:
    """Keeps a picture for every page, as Keep Page does."""
    for number, page in enumerate(pages):
        rendering = rendering_of(facts_of(page.rendering), story)
        image = Image.new("RGB", (8, 8), (len(story.renderings), number, len(page.segment.prompt) % 256))
        story.keep(replace(rendering, image_key=image.tobytes().hex()[:32]), image)


def ids(pages) -> list[str]:
    return [page.segment.id for page in pages]


# ---- every family


@pytest.mark.parametrize("name", FAMILIES)
def test_a_story_s_graph_fits_the_core_s_nodes(name, catalogue):
    family = FAMILIES[name]
    pages, _ = story_pages(name)
    graph = NodeGraph("7.0.0.")
    last = emit_pages(
        graph,
        family,
        family.sampling(ModelFacts()),
        pages,
        model=MODEL,
        clip=CLIP,
        vae=VAE,
        file_of=lambda choice: "x.png [output]",
        keep_node="WeaverKeepPage",
        draft="d",
        notes=[],
    )
    fitted = fitted_graph(graph.finalize(), catalogue)
    assert link_faults(fitted, catalogue) == []
    assert last == ["7.0.0.p4.keep", 1] and kinds(fitted).count("WeaverKeepPage") == 4
    assert kinds(fitted).count("KSampler") + kinds(fitted).count("SamplerCustomAdvanced") == 4


def test_the_check_of_links_finds_faults(catalogue):
    graph, _ = emitted("sdxl")
    graph["p9.sample"]["inputs"] |= {"positive": ["p9.size", 0], "sampler_name": "nonsense"}
    del graph["p9.image"]["inputs"]["vae"]
    faults = " ".join(link_faults(graph, catalogue))
    assert all(word in faults for word in ("CONDITIONING and gets a LATENT", "nonsense", "lacks vae"))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("aspect", ["1:1", "4:3", "9:16", "5:1"])
def test_sizes_lie_on_the_family_s_grid(name, aspect):
    able = FAMILIES[name].capabilities
    width, height = able.fit_size(None, aspect)
    assert (width, height) in able.sizes if able.sizes else width % able.size_multiple == height % able.size_multiple == 0
    assert max(width, height) <= 2048


@pytest.mark.parametrize("name", WITH_REFERENCES)
def test_without_references_the_prompt_stands_alone(name):
    graph, _ = emitted(name)
    words = [node["inputs"].get("text") or node["inputs"].get("prompt") for node in graph.values()]
    assert [word for word in words if word] == ["A fox."]
    assert "VAEEncode" not in kinds(graph)


def test_seeds_steps_and_sizes_reach_the_sampler():
    graph, link = emitted("sdxl")
    assert link == ["p9.image", 0] and the(graph, "VAEDecode")["samples"] == ["p9.sample", 0]
    sampler = the(graph, "KSampler")
    assert (sampler["seed"], sampler["steps"], sampler["cfg"]) == (5, 25, 7.0)
    assert (sampler["sampler_name"], sampler["scheduler"], sampler["denoise"]) == ("dpmpp_2m", "karras", 1.0)
    assert the(graph, "EmptyLatentImage") == {"width": 1152, "height": 896, "batch_size": 1}


# ---- Qwen


@pytest.mark.parametrize("name", ["qwen-image-edit-2509", "qwen-image-edit-2511"])
def test_qwen_edit_sees_the_references_in_slot_order_on_both_sides(name):
    graph, _ = emitted(name, "Robin", "Mia")
    for sign, prompt in (
        ("prompt", "Picture 1 is Robin, Picture 2 is Mia. Draw a new picture in which Robin and Mia look"),
        ("negative", ""),
    ):
        node = graph[f"p9.{sign}"]["inputs"]
        assert node["prompt"].startswith(prompt) and (node["prompt"] == "") == (sign == "negative")
        assert (node["image1"], node["image2"], "image3" in node) == (["look-Robin", 0], ["look-Mia", 0], False)
        assert node["vae"] == VAE
    assert graph["p9.prompt"]["inputs"]["prompt"].endswith(": A fox.")


def test_qwen_edit_s_model_is_shifted_and_normed_and_the_latent_has_the_plan_s_size():
    graph, _ = emitted("qwen-image-edit-2509", "Robin")
    assert before(graph, the(graph, "KSampler")["model"], "model", "CFGNorm")[-1] == ["model.shift", 0]
    assert graph["model.shift"] == {"class_type": "ModelSamplingAuraFlow", "inputs": {"model": MODEL, "shift": 3.0}}
    assert the(graph, "EmptySD3LatentImage") == {"width": 1184, "height": 880, "batch_size": 1}


def test_qwen_edit_2511_puts_references_at_timestep_zero_on_both_sides():
    graph, _ = emitted("qwen-image-edit-2511", "Robin")
    for sign, socket in (("prompt", "positive"), ("negative", "negative")):
        assert the(graph, "KSampler")[socket] == [f"p9.{sign}-method", 0]
        assert graph[f"p9.{sign}-method"]["inputs"] == {
            "conditioning": [f"p9.{sign}", 0], "reference_latents_method": "index_timestep_zero",
        }  # fmt: skip
    assert graph["model.shift"]["inputs"]["shift"] == 3.1


def test_qwen_image_2_1_lays_the_first_reference_on_a_sheet_of_the_plan_s_size():
    graph, _ = emitted("qwen-image-2.1", "Robin", "Mia")
    node = the(graph, "TextEncodeQwenImage21")
    assert (
        node["prompt"].startswith("<image1> is Robin, <image2> is Mia.") and node["resolution"] == 0 and node["vae"] == VAE
    )
    assert (node["images.image_1"], node["images.image_2"]) == (["p9.sheet", 0], ["page.Mia.scaled", 0])
    sheet = the(graph, "ResizeAndPadImage")
    assert (sheet["image"], sheet["target_width"], sheet["target_height"]) == (["look-Robin", 0], 1184, 896)
    sampler = the(graph, "KSampler")
    assert [sampler[name] for name in ("positive", "negative", "latent_image")] == [
        ["p9.prompt", slot] for slot in (0, 1, 2)
    ]
    assert sampler["model"] == ["model.cache", 0]


def test_qwen_image_2_1_turbo_has_its_own_noise_levels():
    graph, _ = emitted("qwen-image-2.1", "Robin", file="qwen_image_2.1_turbo_int8_convrot.safetensors")
    sigmas = [float(sigma) for sigma in the(graph, "ManualSigmas")["sigmas"].split(",")]
    assert len(sigmas) == 9 and sigmas == sorted(sigmas, reverse=True) and sigmas[-1] == 0
    assert the(graph, "SamplerCustomAdvanced")["sigmas"] == ["sigmas", 0] and "KSampler" not in kinds(graph)


# ---- Flux


@pytest.mark.parametrize("name", ["flux2-klein", "flux2-klein-base", "flux2-klein-kv"])
def test_klein_chains_reference_latents_in_slot_order_on_both_sides(name):
    graph, _ = emitted(name, "Robin", "Mia")
    guider = the(graph, "CFGGuider")
    latents = [["page.Robin.latent", 0], ["page.Mia.latent", 0]]
    positive = before(graph, guider["positive"], "conditioning", "ReferenceLatent")
    negative = before(graph, guider["negative"], "conditioning", "ReferenceLatent")
    assert positive == [*latents, ["p9.prompt", 0]] and negative[:2] == latents
    assert graph["p9.prompt"]["inputs"]["text"].startswith("Image 1 is Robin, image 2 is Mia.")
    assert graph["page.Robin.latent"]["inputs"] == {"pixels": ["page.Robin.scaled", 0], "vae": VAE}
    assert graph["page.Robin.scaled"]["inputs"]["image"] == ["look-Robin", 0]
    assert the(graph, "Flux2Scheduler") == {"steps": 20 if "base" in name else 4, "width": 1184, "height": 880}


def test_klein_s_negative_is_words_only_where_guidance_is_true():
    distilled, _ = emitted("flux2-klein", "Robin")
    base, _ = emitted("flux2-klein-base", "Robin")
    assert (
        the(distilled, "ConditioningZeroOut")["conditioning"] == ["p9.prompt", 0]
        and the(distilled, "CFGGuider")["cfg"] == 1.0
    )
    assert base["negative"]["inputs"]["text"] == "" and the(base, "CFGGuider")["cfg"] == 5.0


def test_klein_kv_keeps_keys_and_the_others_do_not():
    graph, _ = emitted("flux2-klein-kv", "Robin")
    assert the(graph, "FluxKVCache")["model"] == MODEL and the(graph, "CFGGuider")["model"] == ["model.cache", 0]
    assert "FluxKVCache" not in kinds(emitted("flux2-klein", "Robin")[0])


def test_flux2_dev_is_guided_in_one_pass():
    graph, _ = emitted("flux2-dev", "Robin")
    chain = before(graph, the(graph, "BasicGuider")["conditioning"], "conditioning", "ReferenceLatent")
    assert chain == [["page.Robin.latent", 0], ["p9.guidance", 0]]
    assert the(graph, "FluxGuidance") == {"conditioning": ["p9.prompt", 0], "guidance": 4.0}


def test_kontext_puts_two_references_side_by_side_and_says_who_stands_where():
    graph, _ = emitted("flux-kontext", "Robin", "Mia")
    stitch = the(graph, "ImageStitch")
    assert (stitch["image1"], stitch["image2"], stitch["direction"]) == (["look-Robin", 0], ["look-Mia", 0], "right")
    assert the(graph, "FluxKontextImageScale")["image"] == ["p9.stitched", 0]
    assert graph["p9.prompt"]["inputs"]["text"].startswith(
        "On the left of the picture is Robin, on the right of the picture is Mia."
    )
    assert before(graph, the(graph, "FluxGuidance")["conditioning"], "conditioning", "ReferenceLatent") == [
        ["p9.reference-latent", 0], ["p9.prompt", 0],
    ]  # fmt: skip
    assert the(graph, "KSampler")["latent_image"] == ["p9.size", 0], (
        "the page has the plan's size, not that of the stitched sheet"
    )


# ---- defaults and detection


@pytest.mark.parametrize(
    "name, file, steps, cfg, shift",
    [
        ("qwen-image-edit-2509", "qwen_image_edit_2509_fp8_e4m3fn.safetensors", 20, 4.0, 3.0),
        ("qwen-image-edit-2509", "Qwen-Image-Edit-2509-Lightning-4steps-V1.0-bf16.safetensors", 4, 1.0, 3.0),
        ("qwen-image-edit-2509", "Qwen-Image-Edit-Lightning-8steps-V1.0.safetensors", 8, 1.0, 3.0),
        ("qwen-image-edit-2511", "qwen_image_edit_2511_fp8mixed.safetensors", 40, 4.0, 3.1),
        ("qwen-image-edit-2511", "Qwen-Image-Edit-2511-Lightning-4steps-V1.0-bf16.safetensors", 4, 1.0, 3.1),
        ("qwen-image-2.1", "qwen_image_2.1_int8_convrot.safetensors", 25, 1.0, None),
        ("qwen-image", "Qwen-Image-Lightning-8steps-V1.0.safetensors", 8, 1.0, 3.1),
        ("qwen-image", "Qwen-Image-2512-Lightning-4steps-V1.0-fp32.safetensors", 4, 1.0, 3.1),
        ("flux2-klein", "flux-2-klein-4b-fp8.safetensors", 4, 1.0, None),
        ("flux2-klein-base", "flux-2-klein-base-9b-fp8.safetensors", 20, 5.0, None),
        ("flux2-dev", "Flux2TurboComfyv2.safetensors", 8, 1.0, None),
        ("flux", "flux1-schnell.safetensors", 4, 1.0, None),
        ("z-image", "z_image_turbo_bf16.safetensors", 8, 1.0, 3.0),
        ("sdxl", "sdxl_lightning_8step.safetensors", 8, 1.0, None),
        ("sdxl", "sd_xl_turbo_1.0_fp16.safetensors", 4, 1.0, None),
    ],
)
def test_the_defaults_of_fast_variants_are_told_by_file_names(name, file, steps, cfg, shift):
    how = family_named(name).sampling(ModelFacts(files=(file,)))
    assert (how.steps, how.cfg, how.shift) == (steps, cfg, shift)


@pytest.mark.parametrize(
    "kind, files, config, name",
    [
        ("QwenImage", "qwen_image_edit_2511_fp8mixed.safetensors", {}, "qwen-image-edit-2511"),
        ("QwenImage", "Qwen-Image-Edit-Q4_K_M-2511.gguf", {}, "qwen-image-edit-2511"),
        ("QwenImage", "merged.safetensors", {"default_ref_method": "index_timestep_zero"}, "qwen-image-edit-2511"),
        ("QwenImage", "Qwen-Image-Edit-2509-Q4_K_M.gguf", {}, "qwen-image-edit-2509"),
        ("QwenImage", "qwen_image_fp8_e4m3fn.safetensors", {}, "qwen-image"),
        ("QwenImage21", "mine.safetensors", {}, "qwen-image-2.1"),
        ("Flux2", "flux-2-klein-4b-fp8.safetensors", {"guidance_embed": False}, "flux2-klein"),
        ("Flux2", "flux-2-klein-base-9b-fp8.safetensors", {"guidance_embed": False}, "flux2-klein-base"),
        ("Flux2", "flux-2-klein-9b-kv-fp8.safetensors", {"guidance_embed": False}, "flux2-klein-kv"),
        ("Flux2", "renamed.safetensors", {"guidance_embed": True}, "flux2-dev"),
        ("Flux2", "flux-2-klein-9b.safetensors", {}, "flux2-klein"),
        ("Flux", "flux1-dev-kontext_fp8_scaled.safetensors", {}, "flux-kontext"),
        ("Flux", "flux1-dev.safetensors", {}, "flux"),
        ("SDXL", "sd_xl_base_1.0.safetensors", {}, "sdxl"),
        ("BaseModel", "v1-5-pruned-emaonly.safetensors", {}, "sd15"),
        ("Lumina2", "z_image_turbo_bf16.safetensors", {}, "z-image"),
    ],
)
def test_the_family_is_told_from_the_model(kind, files, config, name):
    family, note = find_family(ModelFacts(kind=kind, files=(files,), config=config))
    assert (family.name, note) == (name, "")


def test_the_first_qwen_image_edit_takes_one_reference_and_says_as_what_it_is_drawn():
    facts = ModelFacts(kind="QwenImage", files=("qwen_image_edit_fp8_e4m3fn.safetensors",))
    family, note = find_family(facts)
    assert (family.name, family.capabilities.max_references) == ("qwen-image-edit-2509", 1)
    assert "drawn as Qwen-Image-Edit-2509, with one reference" in note and "choose that family" in note
    chosen, note = find_family(facts, "qwen-image-edit-2509")
    assert (chosen.capabilities.max_references, note) == (3, "")


def test_an_unknown_model_draws_from_words_and_says_so():
    family, note = find_family(ModelFacts(kind="HiDream"))
    assert family.name == "text-to-image" and "HiDream" in note and "without references" in note


def test_a_chosen_family_wins_and_an_unknown_one_is_named():
    assert find_family(ModelFacts(kind="SDXL"), "flux2-dev")[0].name == "flux2-dev"
    with pytest.raises(InputError, match="no model family 'dalle'; choose auto or one of qwen-image-2.1"):
        family_named("dalle")


def test_what_the_user_sets_wins_over_the_family():
    klein, dev, turbo = (
        family_named(name).sampling(ModelFacts(files=("turbo",))) for name in ("flux2-klein", "flux2-dev", "qwen-image-2.1")
    )
    assert overridden(klein) == klein
    assert overridden(klein, steps=9, cfg=2.0, sampler="heun", scheduler="beta") == replace(
        klein, steps=9, cfg=2.0, sampler="heun", scheduler="beta"
    )
    assert (overridden(dev, cfg=2.5).guidance, overridden(dev, cfg=2.5).cfg) == (2.5, 1.0)
    assert turbo.sigmas and overridden(turbo, steps=12).sigmas == ""


def test_how_it_is_drawn_is_told():
    base, dev = family_named("flux2-klein-base"), family_named("flux2-dev")
    assert described(base, base.sampling(ModelFacts())) == "drawn as Flux.2 Klein base: 20 steps, cfg 5, euler"
    assert described(dev, dev.sampling(ModelFacts())) == "drawn as Flux.2 dev: 20 steps, guidance 4, euler"


# ---- the core at hand


def test_a_missing_node_is_one_sentence_with_the_version_that_has_it(catalogue):
    old = {name: node for name, node in catalogue.items() if name != "FluxKVCache"}
    with pytest.raises(InputError) as caught:
        check_needs(family_named("flux2-klein-kv"), old, "0.3.75")
    assert str(caught.value) == (
        "Flux.2 Klein KV needs the node FluxKVCache, which ComfyUI has since version 0.17.0; this is 0.3.75: update ComfyUI, or "
        "choose another model family"
    )
    check_needs(family_named("flux2-klein"), old, "0.3.75")


def test_a_missing_choice_counts_as_missing(catalogue):
    node = json.loads(json.dumps(catalogue["FluxKontextMultiReferenceLatentMethod"]))
    node["input"]["required"]["reference_latents_method"] = [["offset", "index", "uxo/uno"]]
    with pytest.raises(
        InputError,
        match="'index_timestep_zero' of the node FluxKontextMultiReferenceLatentMethod.*0.5.0; this is an older one",
    ):
        check_needs(family_named("qwen-image-edit-2511"), catalogue | {"FluxKontextMultiReferenceLatentMethod": node}, "")


@pytest.mark.parametrize("name", FAMILIES)
def test_what_families_need_is_all_recorded(name, catalogue):
    check_needs(FAMILIES[name], catalogue, "newest")


def test_inputs_that_a_newer_core_requires_get_its_default_and_unknown_ones_go():
    catalogue = {
        "CFGNorm": {
            "input": {"required": {"model": ["MODEL"], "much": ["FLOAT", {"default": 0.5}], "way": [["a", "b"]]}},
            "output": ["MODEL"],
        }
    }
    graph = {"n": {"class_type": "CFGNorm", "inputs": {"model": MODEL, "strength": 1.0}}}
    assert fitted_graph(graph, catalogue)["n"]["inputs"] == {"model": MODEL, "much": 0.5, "way": "a"}
    catalogue["CFGNorm"]["input"]["required"]["mask"] = ["MASK"]
    with pytest.raises(InputError, match="node CFGNorm wants 'mask', which this version of the pack does not know"):
        fitted_graph(graph, catalogue)


def test_the_same_id_for_two_different_nodes_is_a_fault_of_ours():
    graph = NodeGraph()
    assert graph.node("VAEDecode", "x", samples=MODEL).out(0) == graph.node("VAEDecode", "x", samples=MODEL).out(0)
    with pytest.raises(ValueError, match="two different nodes are called x"):
        graph.node("VAEDecode", "x", samples=CLIP)


# ---- what stands before a link


LOADED = {
    "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "qwen/qwen_image_edit_2511_fp8mixed.safetensors", "weight_dtype": "default"}},
    "2": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "lora_name": "Lightning-4steps.safetensors", "strength_model": 1.0}},
}  # fmt: skip


def test_files_are_found_through_loras_by_their_bare_names():
    assert files_before(LOADED.__getitem__, ["2", 0]) == (
        "Lightning-4steps.safetensors",
        "qwen_image_edit_2511_fp8mixed.safetensors",
    )
    assert files_before(LOADED.__getitem__, ["1", 0]) == ("qwen_image_edit_2511_fp8mixed.safetensors",)


def test_the_digest_follows_inputs_and_not_node_ids():
    renamed = {
        "8": LOADED["1"],
        "9": {"class_type": "LoraLoaderModelOnly", "inputs": LOADED["2"]["inputs"] | {"model": ["8", 0]}},
    }
    weaker = LOADED | {"2": {"class_type": "LoraLoaderModelOnly", "inputs": LOADED["2"]["inputs"] | {"strength_model": 0.5}}}
    digest = digest_before(LOADED.__getitem__, ["2", 0])
    assert digest_before(renamed.__getitem__, ["9", 0]) == digest
    assert digest_before(weaker.__getitem__, ["2", 0]) != digest
    marks = [digest_before(LOADED.__getitem__, ["2", 0], stamp=lambda name, size=size: f"{name} {size}") for size in (1, 1, 2)]
    assert marks[0] == marks[1] != marks[2], "another file under the same name"
    assert digest_before(LOADED.__getitem__, ["2", 0], stamp=lambda name: "") == digest


# ---- from plan to pages


def test_references_are_first_appearances_in_cast_order_and_never_copies_of_copies():
    pages, notes = story_pages("flux2-klein")
    assert notes == []
    assert [[choice.source for choice in page.choices] for page in pages] == [[], [], ["p1", "p2"], ["p1"]]


def test_earlier_pages_feed_later_ones_as_links(catalogue):
    family = family_named("flux2-klein")
    pages, _ = story_pages("flux2-klein")
    graph = NodeGraph()
    emit_pages(
        graph,
        family,
        family.sampling(ModelFacts()),
        pages,
        model=MODEL,
        clip=CLIP,
        vae=VAE,
        file_of=str,
        keep_node="K",
        draft="d",
        notes=[],
    )
    nodes = graph.finalize()
    assert nodes["page.p1.scaled"]["inputs"]["image"] == ["p1.keep", 0] and "LoadImage" not in kinds(nodes)
    assert kinds(nodes).count("VAEEncode") == 2, "p1 is encoded once for p3 and p4"


def test_pages_that_are_there_are_loaded_and_not_drawn():
    story = Story(Request(prompt="a story"))
    drawn(story, story_pages("flux2-klein", story=story)[0])
    assert ids(story_pages("flux2-klein", story=story)[0]) == []
    pages, notes = story_pages("flux2-klein", PAIR.replace("They meet.", "They dance."), story=story)
    assert ids(pages) == ["p3"] and notes == []
    family, graph = family_named("flux2-klein"), NodeGraph()
    emit_pages(graph, family, family.sampling(ModelFacts()), pages, model=MODEL, clip=CLIP, vae=VAE,
               file_of=lambda choice: f"{choice.source}.png", keep_node="K", draft="d", notes=[])  # fmt: skip
    assert [node["inputs"]["image"] for node in graph.finalize().values() if node["class_type"] == "LoadImage"] == [
        "p1.png",
        "p2.png",
    ]


def test_pages_that_used_a_changed_page_stay_unless_they_are_to_follow():
    story = Story(Request(prompt="a story"))
    drawn(story, story_pages("flux2-klein", story=story)[0])
    changed = PAIR.replace("by the river", "in the snow")
    assert ids(story_pages("flux2-klein", changed, story=story, redraw_stale=True)[0]) == ["p1", "p3", "p4"]
    pages, notes = story_pages("flux2-klein", changed, story=story)
    assert ids(pages) == ["p1"]
    assert notes == [
        "p3 was drawn from an earlier p1; it is kept as it was",
        "p4 was drawn from an earlier p1; it is kept as it was",
    ]
    drawn(story, pages)
    assert ids(story_pages("flux2-klein", changed, story=story)[0]) == []
    assert ids(story_pages("flux2-klein", changed, story=story, redraw_stale=True)[0]) == ["p3", "p4"]


def test_a_page_that_is_changed_back_is_not_drawn_again():
    story = Story(Request(prompt="a story"))
    drawn(story, story_pages("sdxl", story=story)[0])
    drawn(story, story_pages("sdxl", PAIR.replace("on a roof", "in a tree"), story=story)[0])
    assert ids(story_pages("sdxl", story=story)[0]) == []


def test_pages_that_followed_a_change_come_back_with_it():
    story = Story(Request(prompt="a story"))
    drawn(story, story_pages("flux2-klein", story=story)[0])
    first = dict(story.renderings)
    drawn(story, story_pages("flux2-klein", PAIR.replace("by the river", "in the snow"), story=story, redraw_stale=True)[0])
    assert story.renderings["p3"] != first["p3"]
    assert story_pages("flux2-klein", story=story) == ([], []) and story.renderings == first


def test_a_locked_page_is_never_drawn_again():
    story = Story(Request(prompt="a story"))
    drawn(story, story_pages("sdxl", story=story)[0])
    locked = PAIR.replace('id="p2"', 'id="p2" locked="yes" seed="4711"')
    assert ids(story_pages("sdxl", locked, story=story)[0]) == []
    assert ids(story_pages("sdxl", locked.replace("on a roof", "in a tree"), story=story)[0]) == ["p2"], "a lock is one of its dense prompt"


def test_a_page_that_is_to_be_looked_at_is_no_known_reference_of_one_that_is_drawn():
    story = Story(Request(prompt="a story"))
    pages = story_pages("flux2-klein", story=story)[0]
    drawn(story, pages[:1])
    pages, _ = story_pages("flux2-klein", story=story, wants_look=lambda kept: kept.segment_id == "p1")
    assert [(page.segment.id, page.is_kept) for page in pages][:2] == [("p1", True), ("p2", False)]
    used = [used for page in pages[1:] for used in page.rendering.references if used.source == "p1"]
    assert used and not any(reference.key for reference in used), "the look may end with another picture"


def test_another_model_or_seed_draws_everything_again():
    story = Story(Request(prompt="a story"))
    drawn(story, story_pages("sdxl", story=story)[0])
    assert len(story_pages("sd15", story=story)[0]) == 4
    assert len(story_pages("sdxl", story=story, request=Request(prompt="a story", seed=1))[0]) == 4


def test_looks_are_said_where_no_reference_shows_them():
    plan = PAIR.replace("One.", '<cast name="Robin" look="a red fox with a blue scarf">\nOne.')
    words, _ = story_pages("sdxl", plan)
    seen, _ = story_pages("flux2-klein", plan)
    assert words[3].rendering.prompt == "He goes home.\nRobin: a red fox with a blue scarf"
    assert seen[3].rendering.prompt == "He goes home." and seen[0].rendering.prompt.endswith("blue scarf")


def test_the_user_s_picture_of_a_member_comes_first():
    picture, _ = ReferenceImage.read(Image.new("RGB", (16, 16), "red"), "robin")
    plan = PAIR.replace("One.", '<cast name="Robin" references="robin">\nOne.')
    pages, _ = story_pages("flux2-klein", plan, request=Request(prompt="a story", images=(picture,)))
    assert [[choice.source for choice in page.choices] for page in pages] == [["robin"], [], ["robin", "p2"], ["robin"]]
    assert pages[0].rendering.references == (UsedReference(source="robin", key=picture.key, whom="is Robin, for Robin"),)


def test_a_size_that_cannot_be_drawn_is_said_once():
    wide = PAIR.replace('aspect="4:3"', 'aspect="9:1"').replace('id="p4"', 'id="p4" aspect="9:1"')
    _, notes = story_pages("flux-kontext", wide)
    assert notes == ["9:1 cannot be drawn; the nearest that this model family can is 1568 x 672"]


def test_the_same_plan_gives_the_same_graph_and_a_changed_page_changes_only_its_own_nodes():
    def graph_of(markup):
        family, graph = family_named("qwen-image-edit-2509"), NodeGraph()
        emit_pages(graph, family, family.sampling(ModelFacts()), story_pages(family.name, markup)[0], model=MODEL, clip=CLIP, vae=VAE,
                   file_of=str, keep_node="K", draft="d", notes=[])  # fmt: skip
        return graph.finalize()

    one, other = graph_of(PAIR), graph_of(PAIR.replace("goes home", "stays"))
    assert graph_of(PAIR) == one and list(one) == list(other)
    assert {name.split(".")[0] for name in one if one[name] != other[name]} == {"p4"}


def test_families_load_nothing_heavy():
    code = (
        "import sys; from weaver_core.visualizers.graph import families; families(); import weaver_core.visualizers.graph.detect\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


# ---- drawing a page again


def a_page(**changes) -> Page:
    facts = dict(
        family="flux2-klein", sampling=Sampling(steps=4, cfg=1.0), links={"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]},
        references=(SlotReference(name="page.p1", image=["9", 0], member="Robin"),), checks=True,
        attempt=Attempt(wish=2, seed=7, prompt="A fox."), notes=("seen",),
    )  # fmt: skip
    return Page(**(facts | changes))


def test_what_a_keeping_node_is_told_survives_as_text():
    assert page_of(a_page().to_text()) == a_page()


@pytest.mark.parametrize("change", [
    {"family": "no-such"}, {"links": {"model": 1, "clip": ["1", 1], "vae": ["1", 2]}}, {"links": {}}, {"references": [{"image": 3}]},
    {"references": [{"name": "x", "image": "file"}]}, {"sampling": {"steps": 4}}, {"sampling": {"cfg": 1.0, "steps": 4, "shell": "x"}},
    {"attempt": {"wish": "many"}}, {"attempt": {"fault": "<b>"}}, {"attempt": {"prompt": 7}}, {"notes": 3},
])
def test_a_stranger_s_text_about_drawing_again_is_refused(change):
    with pytest.raises((ValueError, KeyError, TypeError, InputError)):
        page_of(json.dumps(json.loads(a_page().to_text()) | change))


def test_another_drawing_has_the_critic_s_words_and_the_same_references():
    plan, _ = parse_markup('# T\n<imagine id="p2" cast="Robin, Mia">A fox and a cat.</imagine>')
    plan = replace(plan, cast=(CastMember(name="Robin", look="red fox"), CastMember(name="Mia", look="black cat")))
    rendering = Rendering(
        segment_id="p2", key="0" * 32, image_key="", size=(512, 512), seed=1, visualizer="v", steps=4, guidance=1.0,
        reference_guidance=1.0, prompt="A fox and a cat.\nMia: black cat",
    )  # fmt: skip
    graph = NodeGraph()
    emit_again(graph, a_page(), rendering, plan)
    nodes = graph.finalize()
    texts = [node["inputs"]["text"] for node in nodes.values() if "text" in node["inputs"]]
    assert any("A fox." in text and "Mia: black cat" in text and "Robin: red fox" not in text for text in texts)
    assert ["9", 0] in [value for node in nodes.values() for value in node["inputs"].values()]
    assert 7 in [value for node in nodes.values() for value in node["inputs"].values()]
