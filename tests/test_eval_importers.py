"""Other benchmarks' layouts, on fixtures of our own with the quirks of the real ones."""

from __future__ import annotations

import json

import pytest
from opening_benchmark import benchmark_in, picture, row, write_output
from PIL import Image

from weaver_core.errors import InputError, StoryError
from weaver_core.evaluation.importers import isg, mmrb2, opening
from weaver_core.evaluation.importers.store import store_run
from weaver_core.evaluation.records import Block, Document, Prompt


@pytest.fixture
def benchmark(tmp_path):
    return benchmark_in(tmp_path)


# ---- OpenING: prompts


@pytest.mark.parametrize("given", ["copy/OpenING-Benchmark", "copy"])
def test_the_benchmark_s_folder_is_found_from_itself_and_from_above(benchmark, tmp_path, given):
    assert opening.find_root(tmp_path / given) == benchmark


def test_the_other_spelling_of_the_folder_is_found_too(benchmark, tmp_path):
    benchmark.rename(benchmark.parent / "OpenING-benchmark")
    assert opening.find_root(tmp_path / "copy").name == "OpenING-benchmark"


def test_a_folder_without_the_rows_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match="holds no test_data.jsonl"):
        opening.read_prompts(tmp_path)


def test_rows_become_prompts_without_marks_and_with_right_names(benchmark):
    prompts, notes = opening.read_prompts(benchmark)
    assert [prompt.id for prompt in prompts] == ["0101007", "2001012", "1602100"] and notes == []
    assert [prompt.category for prompt in prompts] == ["Storybook Creation", "Cooking Tasks", "Multimodal Time Series Forecasting"]
    assert [prompt.ref["subtask"] for prompt in prompts] == ["Story Writing", "Multimodal Recipe Generation", "Visual Traffic Forecasting"]
    first = prompts[0].input
    assert [(block.type, block.text or block.path) for block in first] == [
        ("text", "Tell it well. A hen in a boat"), ("image", "images/Story Writting/7-i-1.jpg"),
        ("text", "and a goat"), ("image", "images/Story Writting/7-i-2.jpg"),
    ]  # fmt: skip
    assert all(len(block.sha256) == 64 for block in first if block.type == "image")


def test_prompts_survive_their_own_file_format(benchmark):
    prompts, _ = opening.read_prompts(benchmark)
    assert [Prompt.from_json(json.loads(json.dumps(prompt.to_json()))) for prompt in prompts] == prompts


def test_both_names_of_topic_two_are_one_category(benchmark):
    item = row(2, 3, 1, [("<BEGIN> Tell her life", None)], [("So. <image>", "./images/x.jpg")])
    (benchmark / "test_data.jsonl").write_text(json.dumps(item), encoding="utf-8")
    assert opening.read_prompts(benchmark)[0][0].category == "Multimodal Report Generation"


def test_multi_keeps_rows_with_two_reference_images_or_more(benchmark):
    prompts, _ = opening.read_prompts(benchmark, subset="multi")
    assert [prompt.id for prompt in prompts] == ["0101007", "1602100"]


def test_the_step_hint_decides_what_is_told_and_what_is_wanted(benchmark):
    told = {hint: opening.read_prompts(benchmark, step_hint=hint)[0][0] for hint in opening.STEP_HINTS}
    assert told["none"].input[0].text == "Tell it well. A hen in a boat"
    assert "may have 3 steps" in told["can_be"].input[0].text and "exactly 3 steps" in told["must_exact"].input[0].text
    assert [(p.want.images_min, p.want.images_max, p.want.explicit) for p in told.values()] == [(1, 10, False), (1, 3, False), (3, 3, True)]
    assert all(p.input[-4:] == told["none"].input for p in told.values())


def test_missing_input_pictures_are_an_error_or_counted(benchmark):
    (benchmark / "images/Story Writting/7-i-2.jpg").unlink()
    with pytest.raises(InputError, match="no picture .*7-i-2.jpg"):
        opening.read_prompts(benchmark)
    prompts, notes = opening.read_prompts(benchmark, skip_missing=True)
    assert [prompt.id for prompt in prompts] == ["2001012", "1602100"] and notes[0].startswith("1 of 3 prompts are left out")


@pytest.mark.parametrize("change, message", [
    ({"total_uid": "0101008"}, "disagrees with topic 1, subtask 1, number 7"),
    ({"total_uid": "../../x"}, "seven digits"),
    ({"conversations": []}, "expected two objects"),
    ({"data_id": None}, "must be numbers"),
    ({"conversations": [{"input": [{"text": 5, "image": None}]}, {"output": []}]}, r"input\[0\]: text must be a text"),
])  # fmt: skip
def test_a_row_of_another_form_is_refused_with_its_line(benchmark, change, message):
    item = row(1, 1, 7, [("<BEGIN> x", None)], []) | change
    (benchmark / "test_data.jsonl").write_text("\n" + json.dumps(item) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        opening.read_prompts(benchmark)
    assert "test_data.jsonl:2" in str(error.value)


@pytest.mark.parametrize("path", ["../../../secret.jpg", "/etc/hostname", "images/../../secret.jpg", "..\\secret.jpg", "C:/x.jpg", "a\x00b"])
def test_a_row_s_picture_never_lies_outside_the_benchmark(benchmark, path):
    picture(benchmark.parent.parent / "secret.jpg")
    item = row(1, 1, 7, [("<BEGIN> x <image>", path)], [])
    (benchmark / "test_data.jsonl").write_text(json.dumps(item), encoding="utf-8")
    for skip in (False, True):
        with pytest.raises(InputError, match="leads out of"):
            opening.read_prompts(benchmark, skip_missing=skip)


def test_a_link_out_of_the_benchmark_is_refused(benchmark):
    secret = picture(benchmark.parent.parent / "secret.jpg")
    (benchmark / "images" / "link.jpg").symlink_to(secret)
    item = row(1, 1, 7, [("<BEGIN> x <image>", "images/link.jpg")], [])
    (benchmark / "test_data.jsonl").write_text(json.dumps(item), encoding="utf-8")
    with pytest.raises(InputError, match="leads out of"):
        opening.read_prompts(benchmark)


# ---- OpenING: outputs


def rows_of(benchmark):
    return [json.loads(line) for line in (benchmark / "test_data.jsonl").read_text(encoding="utf-8-sig").splitlines()]


def test_outputs_with_every_quirk_become_documents(benchmark, tmp_path):
    folder = tmp_path / "gen_outputs" / "Show-o_output"
    prompts, _ = opening.read_prompts(benchmark)
    first, second, _ = rows_of(benchmark)
    write_output(folder, first, [("One", "0101007-o-0.jpg"), ("Two", None), ("", "./Show-o_output/0101007-o-2.jpg")], uid=False)
    write_output(folder, second, [("Only words <image>", None)], ending=".jsonl", indent=None)
    picture(folder / "0101007-o-0.jpg", size=(64, 48))
    picture(folder / "0101007-o-2.jpg", "blue")
    documents, notes = opening.read_outputs(folder, prompts)
    assert [(document.prompt_id, document.system, document.error) for document in documents] == [("0101007", "Show-o", ""), ("2001012", "Show-o", "")]
    assert [(b.type, b.text or b.path) for b in documents[0].blocks] == [
        ("text", "One"), ("image", "0101007-o-0.jpg"), ("text", "Two"), ("image", "0101007-o-2.jpg"),
    ]  # fmt: skip
    assert (documents[0].images[0].width, documents[0].images[0].height) == (64, 48)
    assert documents[1].blocks == (Block(type="text", text="Only words"),)
    assert notes == [f"1 prompts have no output in {folder}; they count as missing, not as absent"]


def test_named_pictures_that_are_not_there_are_told_in_the_document(benchmark, tmp_path):
    prompts, _ = opening.read_prompts(benchmark)
    write_output(tmp_path / "M_output", rows_of(benchmark)[0], [("One", "0101007-o-0.jpg")])
    document = opening.read_outputs(tmp_path / "M_output", prompts)[0][0]
    assert document.finish == "error" and document.error == "pictures are named and not there: 0101007-o-0.jpg"
    assert [block.text for block in document.blocks] == ["One"]


def test_an_empty_output_is_a_document_that_says_so(benchmark, tmp_path):
    prompts, _ = opening.read_prompts(benchmark)
    write_output(tmp_path / "M_output", rows_of(benchmark)[0], [])
    document = opening.read_outputs(tmp_path / "M_output", prompts)[0][0]
    assert (document.blocks, document.finish, document.error) == ((), "error", "the output is empty")


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/hostname", "M_output/../../secret.jpg", "..\\x.jpg", "..", "a:b.jpg"])
def test_an_output_s_picture_never_lies_outside_its_folder(benchmark, tmp_path, path):
    prompts, _ = opening.read_prompts(benchmark)
    picture(tmp_path / "secret.jpg")
    write_output(tmp_path / "M_output", rows_of(benchmark)[0], [("One", path)])
    with pytest.raises(InputError, match="leads out of"):
        opening.read_outputs(tmp_path / "M_output", prompts)


def test_an_output_under_another_row_s_name_is_refused(benchmark, tmp_path):
    prompts, _ = opening.read_prompts(benchmark)
    name = write_output(tmp_path / "M_output", rows_of(benchmark)[0], [("One", None)])
    (tmp_path / "M_output" / f"{name}.json").rename(tmp_path / "M_output" / "2001012.json")
    with pytest.raises(InputError, match="holds the row 0101007, not 2001012"):
        opening.read_outputs(tmp_path / "M_output", prompts)


def test_the_reference_answers_are_a_system_of_their_own(benchmark):
    prompts, _ = opening.read_prompts(benchmark)
    documents = opening.read_reference(benchmark, prompts)
    assert [document.system for document in documents] == ["Human"] * 3
    assert [block.path for block in documents[0].images] == [f"images/Story Writting/7-o-{k}.jpg" for k in (1, 2, 3)]
    assert documents[1].error.startswith("pictures are named and not there")


def test_export_and_import_give_the_same_document(benchmark, tmp_path):
    prompts, _ = opening.read_prompts(benchmark)
    picture(tmp_path / "gen" / "a.png", "green", mode="RGBA", size=(33, 55))
    picture(tmp_path / "gen" / "b.jpg", "blue")
    document = Document(prompt_id="0101007", system="ours", seed=3, blocks=(
        Block(type="text", text="Up."), Block(type="text", text="And away."), Block(type="image", path="gen/a.png"),
        Block(type="image", path="gen/b.jpg"), Block(type="text", text="End."),
    ))  # fmt: skip
    folder, notes = opening.export_outputs(prompts, [document], tmp_path, tmp_path / "out", model="ours v1")
    assert folder == tmp_path / "out" / "gen_outputs" / "ours v1_output"
    written = json.loads((folder / "0101007.json").read_text(encoding="utf-8"))
    assert list(written) == list(rows_of(benchmark)[0]) and written["conversations"][0] == rows_of(benchmark)[0]["conversations"][0]
    assert written["conversations"][1]["output"] == [
        {"text": "Up.", "image": None}, {"text": "And away.", "image": "0101007-o-1.jpg"},
        {"text": "", "image": "0101007-o-2.jpg"}, {"text": "End.", "image": None},
    ]  # fmt: skip
    assert Image.open(folder / "0101007-o-1.jpg").format == "JPEG"
    assert (folder / "0101007-o-2.jpg").read_bytes() == (tmp_path / "gen" / "b.jpg").read_bytes()
    assert notes == ["2 of 3 prompts have no document and no file: 2001012, 1602100"]
    (back,), _ = opening.read_outputs(folder, prompts)
    assert back.system == "ours v1" and [(b.type, b.text) for b in back.blocks] == [(b.type, b.text) for b in document.blocks]


def test_a_model_s_name_is_never_a_path(benchmark, tmp_path):
    prompts, _ = opening.read_prompts(benchmark)
    document = Document(prompt_id="0101007", system="../up", seed=0, blocks=(Block(type="text", text="x"),))
    with pytest.raises(InputError, match="cannot be a file name"):
        opening.export_outputs(prompts, [document], tmp_path, tmp_path / "out")


def test_imported_outputs_become_a_run_with_their_gaps(benchmark, tmp_path):
    prompts, _ = opening.read_prompts(benchmark, step_hint="can_be")
    folder = tmp_path / "M_output"
    write_output(folder, rows_of(benchmark)[0], [("One", "0101007-o-0.jpg")])
    picture(folder / "0101007-o-0.jpg", "blue")
    documents, _ = opening.read_outputs(folder, prompts)
    run = store_run(tmp_path / "run", prompts, documents, system="M", dataset="opening/all", prompt_folder=benchmark,
                    document_folder=folder, step_hint="can_be")  # fmt: skip
    assert len(run.prompts) == 3 and run.manifest.step_hint == "can_be"
    (stored,) = run.documents()
    assert stored.texts[0].text == "One" and run.image_path(stored.images[0]).read_bytes() == (folder / "0101007-o-0.jpg").read_bytes()
    with pytest.raises((InputError, StoryError), match="holds a run already"):
        store_run(tmp_path / "run", prompts, documents, system="M", dataset="x", prompt_folder=benchmark, document_folder=folder)


# ---- ISG-Bench


@pytest.fixture
def isg_root(tmp_path):
    root = tmp_path / "ISG_eval"
    for name in ("0000_q1", "0000_g1", "0000_g2"):
        picture(root / "images" / f"{name}.png")
    rows = [
        {"id": "0000", "Category": "Prediction",
         "Query": [{"type": "text", "content": "Two pictures, please"}, {"type": "image", "content": "images/0000_q1.png", "caption": "a"}],
         "Golden": [{"type": "text", "content": "So"}, {"type": "image", "content": "images/0000_g1.png"},
                    {"type": "image", "content": "images/0000_g2.png"}],
         "predict": {"image_qa": {"questions": [{"image": "<gen_img2>", "Question": "Are there hands?", "id": 0, "Preliminary": []}]}}},
        {"id": "0001", "Category": "VQA", "Query": [{"type": "text", "content": "Why?"}], "Golden": [{"type": "text", "content": "So"}],
         "predict": {"image_qa": [{"image": "<query_img1>", "Question": "no image of the answer", "id": 0, "Preliminary": []}]}},
    ]  # fmt: skip
    (root / "ISG-Bench.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")
    return root


def test_isg_rows_become_prompts(isg_root):
    first, second = isg.read_prompts(isg_root)
    assert [(block.type, block.text or block.path) for block in first.input] == [("text", "Two pictures, please"), ("image", "images/0000_q1.png")]
    assert first.ref["structure"] == ["text", "image", "image"] and (first.want.images_min, first.want.images_max) == (2, 2)
    assert [(check.q, check.scope, check.need) for check in first.checks] == [("Image 2: Are there hands?", "images", "yes")]
    assert second.category == "VQA" and second.checks == () and second.want.images_max == 0


def test_isg_structure_is_the_exact_sequence(isg_root):
    first, _ = isg.read_prompts(isg_root)

    def answered(*kinds):
        return Document(prompt_id="0000", system="s", seed=0, blocks=tuple(Block(type=kind) for kind in kinds))

    assert isg.structure_matches(first, answered("text", "image", "image"))
    assert not isg.structure_matches(first, answered("image", "text", "image"))
    assert not isg.structure_matches(first, answered("text", "image"))


def test_isg_submission_holds_what_the_readme_and_the_code_want(isg_root, tmp_path):
    prompts = isg.read_prompts(isg_root)
    picture(tmp_path / "gen" / "a.jpg")
    document = Document(prompt_id="0000", system="ours", seed=0, blocks=(Block(type="text", text="So"), Block(type="image", path="gen/a.jpg")))
    path, notes = isg.export_submission(prompts, [document], tmp_path, isg_root)
    (line,) = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    assert list(line) == ["id", "Category", "Query", "Golden", "output"] and path == isg_root / "ours.jsonl"
    assert line["output"] == [{"type": "text", "content": "So"}, {"type": "image", "content": "ours/0000_1.png"}]
    assert Image.open(isg_root / "ours/0000_1.png").format == "PNG"
    assert notes == ["give its evaluator --end 1, or it leaves out the last row", "1 of 2 prompts have no document and no line"]


@pytest.mark.parametrize("key", ["Query", "Golden"])
def test_isg_pictures_never_lie_outside(isg_root, key):
    item = {"id": "x", "Category": "c", "Query": [], "Golden": [], "predict": {}} | {key: [{"type": "image", "content": "../../x.png"}]}
    (isg_root / "ISG-Bench.jsonl").write_text(json.dumps(item), encoding="utf-8")
    with pytest.raises(InputError, match="leads out of"):
        isg.read_prompts(isg_root)


# ---- MMRB2


def pair(**change):
    return {
        "id": "k1", "prompt_source": "isg", "prompt_content": [["text", "Show two hens"], ["image", "input_images/q.jpg"]],
        "response_a": {"model_name": "M1", "response_content": [["text", "Here"], ["image", "images/a.jpg"]]},
        "response_b": {"model_name": "M2", "response_content": [["text", "No"]]}, "chosen": "A",
    } | change  # fmt: skip


def write_pairs(folder, *pairs):
    picture(folder / "input_images" / "q.jpg")
    picture(folder / "images" / "a.jpg")
    (folder / "interleaved.json").write_text(json.dumps({"pairs": pairs}), encoding="utf-8")
    return folder / "interleaved.json"


def test_preference_pairs_are_read_in_both_spellings(tmp_path):
    readme = pair(pair_id="k2", human_preference="b")
    for old in ("id", "chosen"):
        del readme[old]
    readme["response_a"] = {"model": "M1", "response_content": [["image", "images/a.jpg"]]}
    first, second = mmrb2.read_pairs(write_pairs(tmp_path, pair(), readme))
    assert (first.prompt.id, first.a.system, first.b.system, first.chosen) == ("k1", "M1", "M2", "A")
    assert (second.prompt.id, second.a.system, second.chosen) == ("k2", "M1", "B")
    assert [block.type for block in first.prompt.input] == ["text", "image"] and first.a.images[0].path == "images/a.jpg"
    assert first.prompt.license == "CC-BY-NC-4.0"


def test_a_bare_list_of_pairs_with_numbers_as_ids_is_read(tmp_path):
    path = write_pairs(tmp_path, pair())
    path.write_text(json.dumps([pair(id=7, chosen="response_b")]))
    (only,) = mmrb2.read_pairs(path)
    assert (only.prompt.id, only.chosen) == ("7", "B")


@pytest.mark.parametrize("change, message", [
    ({"chosen": "tie"}, "the choice is A or B"),
    ({"response_a": None}, "response_a: expected dict"),
    ({"prompt_content": "Draw."}, "prompt_content: expected list"),
    ({"id": ""}, "has neither 'id' nor 'pair_id'"),
    ({"response_b": {"model_name": "M", "response_content": [["video", "x"]]}}, 'expected ."text" or "image"'),
    ({"prompt_content": [["image", "../../q.jpg"]]}, "leads out of"),
    ({"prompt_content": [["image", "input_images/none.jpg"]]}, "there is no picture"),
])  # fmt: skip
def test_a_pair_of_another_form_is_refused_with_its_place(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        mmrb2.read_pairs(write_pairs(tmp_path, pair(**change)))
    assert "interleaved.json: pairs[0]" in str(error.value)


def test_answers_without_prompts_say_to_build_the_benchmark_first(tmp_path):
    item = pair()
    del item["prompt_content"]
    with pytest.raises(InputError, match="run the benchmark's build first"):
        mmrb2.read_pairs(write_pairs(tmp_path, item))
