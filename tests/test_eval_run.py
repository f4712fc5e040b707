"""Run folders and the back ends that fill them: our library, ComfyUI and OpenAI-compatible servers on the loopback, files."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from eval_systems import FlatVisualizer, flat_backend
from judge_server import answer, make_run, png, prompt
from small_pair import TellingPlanner

from weaver_core.errors import InputError, StoryError
from weaver_core.evaluation.backends import Answer, AnswerImage, BackendDown, ImportedDocuments, generate
from weaver_core.evaluation.backends.comfy import ComfyBackend, find_places, read_workflow
from weaver_core.evaluation.backends.library import LibraryBackend
from weaver_core.evaluation.backends.openai_api import OpenAIBackend
from weaver_core.evaluation.measure import measure_run
from weaver_core.evaluation.records import InputBlock, MetricRecord, Want, file_sha256
from weaver_core.evaluation.run_folder import Manifest, RunFolder, answer_hash, document_seed
from weaver_core.request import RenderSettings

TESTS = Path(__file__).resolve().parent
TWO_PAGES = "# Robin\nHe wakes. <imagine>A fox wakes.</imagine><BOI>\nHe runs. <imagine>A fox runs.</imagine><BOI>\n"
MANIFEST = Manifest(system="ours", backend={"name": "library"}, dataset={"name": "test"})


def new_run(folder, prompts, source=None, **manifest):
    import dataclasses

    return RunFolder.create(folder, prompts, dataclasses.replace(MANIFEST, **manifest), source=source or folder)


def said(document):
    """What a document says and shows; not how long it took."""
    return [(b.type, b.text, b.sha256, b.path, b.dense_prompt, b.seed, b.refs) for b in document.blocks], document.finish, document.error


# ---- the folder


def test_a_run_read_back_is_the_run_that_was_written(tmp_path):
    run = make_run(tmp_path / "run", 2, step_hint="can_be")
    again = RunFolder.open(run.folder)
    assert again.manifest == run.manifest and again.prompts == run.prompts and again.documents() == run.documents()
    assert again.manifest.step_hint == "can_be" and again.manifest.versions["python"]
    assert [again.image_path(block).is_file() for block in again.document("p1").images] == [True, True]


def test_input_images_are_copied_and_tell_by_hash_what_the_same_prompts_are(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_bytes(png("red"))
    runs = [new_run(tmp_path / f"run-{name}", [prompt("x", input=(InputBlock(type="image", path=f"{name}.png"),))], tmp_path / name) for name in "ab"]
    assert runs[0].manifest.dataset["prompts"] == runs[1].manifest.dataset["prompts"]
    (block,) = RunFolder.open(runs[0].folder).prompts["x"].input
    assert file_sha256(runs[0].folder / block.path) == block.sha256


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (InputBlock(type="image", path="../secret.png"), "leads out of"),
        (InputBlock(type="image", path="/etc/hostname"), "leads out of"),
        (InputBlock(type="image", path="nowhere.png"), "is missing"),
        (InputBlock(type="image", path="red.png", sha256="0" * 64), "another image"),
    ],
)
def test_input_images_that_cannot_be_trusted_are_refused(tmp_path, block, message):
    (tmp_path / "set").mkdir()
    (tmp_path / "secret.png").write_bytes(png("red"))
    (tmp_path / "set" / "red.png").write_bytes(png("red"))
    with pytest.raises(InputError, match=message):
        new_run(tmp_path / "run", [prompt("x", input=(block,))], tmp_path / "set")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_ids_that_are_no_file_names_stay_inside_and_apart(tmp_path):
    names = ["../../x", "a/b", "a-b", "A-B", "con\n", "ж" * 300]
    run = new_run(tmp_path / "run", [prompt(name) for name in names])
    folders = {run.answer_folder(name).resolve() for name in names}
    assert len(folders) == len(names) and {folder.parent for folder in folders} == {(run.folder / "gen").resolve()}
    assert len({str(folder).lower() for folder in folders}) == len(names)


def test_a_document_cannot_point_out_of_its_run(tmp_path):
    run = make_run(tmp_path / "run", 1)
    path = run.answer_folder("p0") / "document.json"
    data = json.loads(path.read_text())
    data["blocks"][1]["path"] = "../../etc/passwd"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="leads out of"):
        run.image_path(run.document("p0").images[0])


def test_a_folder_with_another_run_is_refused_with_what_differs(tmp_path):
    make_run(tmp_path / "run", 2)
    prompts = [prompt(f"p{number}", f"Tell story {number}.") for number in range(2)]
    same = Manifest(system="ours", backend={"name": "test"}, dataset={"name": "test"})
    assert len(RunFolder.create_or_open(tmp_path / "run", prompts, same, source=tmp_path).documents()) == 2
    with pytest.raises(InputError, match="with seed 0, now it is 7"):
        RunFolder.create_or_open(tmp_path / "run", prompts, Manifest(system="ours", backend={"name": "test"}, dataset={}, seed=7), source=tmp_path)
    with pytest.raises(InputError, match="over other prompts"):
        RunFolder.create_or_open(tmp_path / "run", prompts[:1], same, source=tmp_path)


@pytest.mark.parametrize("prompts", [[], [prompt("x"), prompt("x")]])
def test_no_prompts_and_ids_twice_are_refused(tmp_path, prompts):
    with pytest.raises(InputError):
        new_run(tmp_path / "run", prompts)


def test_seeds_are_a_hash_of_base_and_prompt():
    assert document_seed(7, "a") == document_seed(7, "a") < 2**53
    assert len({document_seed(base, name) for base in (7, 8) for name in "ab"}) == 4


def test_an_answer_that_is_replaced_leaves_no_old_images(tmp_path):
    run = make_run(tmp_path / "run", 1)
    before = answer_hash(run.document("p0"))
    run.keep("p0", answer(9, images=1), 0)
    assert len(list(run.answer_folder("p0").glob("*.png"))) == 1 and answer_hash(run.document("p0")) != before


def test_what_is_no_image_fails_the_document_and_its_texts_stay(tmp_path):
    run = new_run(tmp_path / "run", [prompt("x")])

    class Liar:
        def answer(self, prompt, folder, *, seed, work):
            return Answer(parts=("Here:", AnswerImage(data=b"<svg/>")))

    (document,) = generate(run, Liar())
    assert document.finish == "error" and "not a picture" in document.error and [block.text for block in document.blocks] == ["Here:"]


# ---- our library


def test_the_library_answers_with_texts_and_images_in_order(tmp_path):
    run = new_run(tmp_path / "run", [prompt("x", "A fox"), prompt("y", "A bear", want=Want(images_min=1, images_max=9, explicit=False))])
    x, y = generate(run, flat_backend())
    assert [block.type for block in x.blocks] == ["text", "text", "image", "text", "image"] and len(y.images) == 3
    assert x.images[0].dense_prompt == f"A fox, page 0, seed {document_seed(0, 'x')}" and x.finish == "stop"
    assert len({block.seed for block in x.images + y.images}) == 5 and x.fingerprint == "flat"
    assert not (run.answer_folder("x") / "work").exists()


@pytest.mark.parametrize("mode", ["plan-first", "closed-loop"])
def test_the_time_of_an_image_is_that_of_drawing_it(tmp_path, monkeypatch, mode):
    clock = [0.0]
    monkeypatch.setattr("weaver_core.evaluation.backends.library.monotonic", lambda: clock[0])

    class SlowPlanner(TellingPlanner):
        def write(self, request, history, **how):
            for piece in super().write(request, history, **how):
                clock[0] += 100
                yield piece

    class SlowVisualizer(FlatVisualizer):
        def render(self, shot, **how):
            clock[0] += 2
            return super().render(shot, **how)

    backend = LibraryBackend(SlowPlanner(TWO_PAGES), SlowVisualizer(), mode=mode, settings=RenderSettings(check_images=False))
    (document,) = generate(new_run(tmp_path / "run", [prompt("x", "A fox")]), backend)
    assert [block.ms for block in document.images] == [2000.0, 2000.0]


def test_a_planner_that_fails_and_an_image_that_fails_are_told_and_only_they_are_tried_again(tmp_path):
    run = new_run(tmp_path / "run", [prompt("x", "A fox"), prompt("y", "nothing"), prompt("z", "a broken bear")])
    x, y, z = generate(run, flat_backend())
    assert (x.finish, y.finish, z.finish) == ("stop", "error", "error")
    assert "nothing to say" in y.error and "2 images could not be drawn: p1 could not be drawn: RuntimeError: out of memory" in z.error
    tried = []
    generate(run, flat_backend(), on_progress=lambda document, done, total: tried.append(document.prompt_id))
    assert tried == []
    generate(run, flat_backend(), retry_failed=True, on_progress=lambda document, done, total: tried.append(document.prompt_id))
    assert tried == ["y", "z"]


def test_a_failed_answer_that_is_tried_again_goes_on_from_what_is_there(tmp_path):
    class WeakVisualizer(FlatVisualizer):
        is_weak = True

        def render(self, shot, **how):
            if self.is_weak and "runs" in shot.prompt:
                raise RuntimeError("out of memory")
            return super().render(shot, **how)

    planner, visualizer = TellingPlanner(TWO_PAGES), WeakVisualizer()
    backend = LibraryBackend(planner, visualizer, settings=RenderSettings(check_images=False))
    run = new_run(tmp_path / "run", [prompt("x", "A fox")])
    (document,) = generate(run, backend)
    assert document.finish == "error" and len(document.images) == 1
    visualizer.is_weak = False
    (document,) = generate(run, backend, retry_failed=True)
    assert document.finish == "stop" and len(document.images) == 2 and not (run.answer_folder("x") / "work").exists()
    assert (len(planner.calls), visualizer.drawn) == (1, 2), "the plan and the first image were kept"


def test_generation_that_is_killed_while_it_draws_ends_with_the_same_documents(tmp_path):
    prompts = [prompt(name, f"A {name}", want=Want(images_min=3, images_max=3, explicit=True)) for name in ("fox", "bear")]
    whole, killed = new_run(tmp_path / "whole", prompts), new_run(tmp_path / "killed", prompts)
    expected = generate(whole, flat_backend())
    codes = []
    environment = os.environ | {"WEAVER_TEST_KILL_AT": "3", "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    while len(codes) < 5 and 0 not in codes:
        codes.append(subprocess.run([sys.executable, "-m", "eval_systems", str(killed.folder)], env=environment, timeout=120).returncode)
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0], "every process draws two images that are kept"
    assert [said(document) for document in killed.documents()] == [said(document) for document in expected]


def test_a_folder_that_cannot_be_written_stops_everything(tmp_path, monkeypatch):
    run = new_run(tmp_path / "run", [prompt("x"), prompt("y")])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoryError, match="disk is full"):
        generate(run, flat_backend())
    assert run.documents() == []


# ---- servers


class Loopback:
    """An HTTP server; `handle(method, path, query, body)` returns (status, bytes or JSON)."""

    def __init__(self, handle):
        class Handler(BaseHTTPRequestHandler):
            def _do(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                code, data = handle(self.command, parts.path, parse_qs(parts.query), body)
                data = data if isinstance(data, bytes) else json.dumps(data).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _do

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def loopback():
    servers = []

    def start(handle):
        servers.append(Loopback(handle))
        return servers[-1].url

    yield start
    for server in servers:
        server.close()


WORKFLOW = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["4", 0]}, "_meta": {"title": "seed"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}, "_meta": {"title": "Weaver: prompt"}},
    "7": {"class_type": "PrimitiveInt", "inputs": {"value": 1}, "_meta": {"title": "num_images"}},
    "8": {"class_type": "LoadImage", "inputs": {"image": "x.png"}, "_meta": {"title": "image1"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}, "_meta": {"title": "Save"}},
}


CLASSES = {
    "Encode": {"input": {"required": {"prompt": ["STRING"]}, "optional": {"image1": ["IMAGE"], "image2": ["IMAGE"]}}},
    "EncodeMany": {"input": {"required": {"images": ["COMFY_AUTOGROW_V3", {"template": {"min": 0}}]}}},
    "VAEEncode": {"input": {"required": {"pixels": ["IMAGE"], "vae": ["VAE"]}}},
}


class FakeComfy:
    """Speaks as ComfyUI does; a prompt has ended after so many `looks` at /history. waiting, running: ids of prompts."""

    def __init__(self, outputs, status="success", *, looks=2, waiting=(), running=()):
        self.outputs, self.status, self.needed = outputs, status, looks
        self.queue = {"queue_pending": waiting, "queue_running": running}
        self.queued, self.uploads, self.looks, self.posted = [], [], 0, []

    def __call__(self, method, path, query, body):
        if path == "/upload/image":
            self.uploads.append(body)
            return 200, {"name": f"up{len(self.uploads)}.png", "subfolder": "", "type": "input"}
        if path == "/prompt":
            self.queued.append(json.loads(body)["prompt"])
            if self.queued[-1]["6"]["inputs"]["text"] == "refuse":
                return 400, {"error": {"message": "invalid"}, "node_errors": {"6": {"class_type": "CLIPTextEncode", "errors": [
                    {"message": "Value not in list", "details": "clip"}]}}}  # fmt: skip
            return 200, {"prompt_id": "abc", "number": 1, "node_errors": {}}
        if path == "/history/abc":
            self.looks += 1
            messages = [["execution_error", {"node_type": "KSampler", "exception_message": "out of memory"}]]
            done = {"outputs": self.outputs, "status": {"status_str": self.status, "completed": self.status == "success", "messages": messages}}
            return 200, {"abc": done} if self.looks >= self.needed else {}
        if path.startswith("/object_info/"):
            kind = path.removeprefix("/object_info/")
            return 200, {kind: CLASSES[kind]} if kind in CLASSES else {}
        if path in ("/queue", "/interrupt") and method == "POST":
            self.posted.append((path, json.loads(body)))
            return 200, b""
        if path == "/queue":
            return 200, {name: [[0, prompt_id, {}, {}, []] for prompt_id in ids] for name, ids in self.queue.items()}
        if path == "/view":
            return 200, png(query["filename"][0].split(".")[0])
        return 404, {}


def comfy(tmp_path, url, workflow=WORKFLOW, **how):
    (tmp_path / "wf.json").write_text(json.dumps(workflow))
    return ComfyBackend(url, tmp_path / "wf.json", poll_s=0.01, **how)


def file(name, kind="output"):
    return {"filename": f"{name}.png", "subfolder": "", "type": kind}


def test_a_workflow_gets_prompt_seed_number_and_pictures_and_its_outputs_are_collected_in_order(tmp_path, loopback):
    fake = FakeComfy({"12": {"images": [file("blue")]}, "9": {"text": ["one", "two"], "images": [file("red"), file("green")]},
                      "10": {"images": [file("yellow", "temp")]}})  # fmt: skip
    (tmp_path / "in.png").write_bytes(png("white"))
    item = prompt("x", input=(InputBlock(type="text", text="A fox"), InputBlock(type="image", path="in.png")))
    run = new_run(tmp_path / "run", [item], tmp_path)
    (document,) = generate(run, comfy(tmp_path, loopback(fake)))
    (graph,) = fake.queued
    assert [graph["6"]["inputs"]["text"], graph["3"]["inputs"]["seed"], graph["7"]["inputs"]["value"], graph["8"]["inputs"]["image"]] == [
        "A fox", document_seed(0, "x"), 2, "up1.png"]  # fmt: skip
    assert png("white") in fake.uploads[0]
    assert [block.text or block.sha256 for block in document.blocks] == [
        "one", sha(png("red")), "two", sha(png("green")), sha(png("blue"))]  # fmt: skip
    assert document.finish == "stop"


def sha(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_a_story_of_preview_story_keeps_its_texts_and_dense_prompts_in_place(tmp_path, loopback):
    story = {"title": "Pip", "language": "en", "pages": [{"id": "p1", "texts": ["One."], "prompt": "a fox", "picture": file("red", "temp")},
                                                         {"id": None, "texts": ["The end."], "prompt": None, "picture": None}]}  # fmt: skip
    fake = FakeComfy({"5": {"weaver_story": [story]}, "9": {"images": [file("red")]}})
    run = new_run(tmp_path / "run", [prompt("x")])
    (document,) = generate(run, comfy(tmp_path, loopback(fake)))
    assert [block.text or block.dense_prompt for block in document.blocks] == ["# Pip", "One.", "a fox", "The end."]


@pytest.mark.parametrize(
    ("outputs", "status", "text", "error"),
    [
        ({}, "error", "A fox", "the workflow failed in KSampler: out of memory"),
        ({}, "success", "A fox", "showed neither texts nor images"),
        ({}, "success", "refuse", "refuses the workflow: CLIPTextEncode (6): Value not in list clip"),
    ],
)
def test_a_workflow_that_fails_is_a_failed_document_with_the_reason(tmp_path, loopback, outputs, status, text, error):
    run = new_run(tmp_path / "run", [prompt("x", text)])
    (document,) = generate(run, comfy(tmp_path, loopback(FakeComfy(outputs, status))))
    assert document.finish == "error" and error in document.error


def test_no_comfyui_stops_the_stage_and_pictures_without_a_place_are_told(tmp_path, loopback):
    (tmp_path / "in.png").write_bytes(png("white"))
    run = new_run(tmp_path / "run", [prompt("x", input=(InputBlock(type="image", path="in.png"),) * 2)], tmp_path)
    (document,) = generate(run, comfy(tmp_path, loopback(FakeComfy({}))))
    assert "no place for picture 2" in document.error
    run = new_run(tmp_path / "other", [prompt("x")])
    with pytest.raises(BackendDown, match="is ComfyUI running there"):
        generate(run, comfy(tmp_path, "http://127.0.0.1:9"))
    assert run.documents() == []


def with_pictures(**classes):
    """The workflow with a second Load Image, and nodes that take both pictures."""
    second = {"class_type": "LoadImage", "inputs": {"image": "y.png"}, "_meta": {"title": "image2"}}
    takers = {kind: {"class_type": kind, "inputs": {name: [node, 0] for name, node in links.items()}} for kind, links in classes.items()}
    return WORKFLOW | {"10": second} | takers


@pytest.mark.parametrize("given", [0, 1, 2])
def test_pictures_that_a_prompt_does_not_give_are_taken_out_of_the_workflow(tmp_path, loopback, given):
    (tmp_path / "in.png").write_bytes(png("white"))
    blocks = (InputBlock(type="text", text="A fox"), *[InputBlock(type="image", path="in.png")] * given)
    fake = FakeComfy({"9": {"images": [file("red")]}})
    workflow = with_pictures(Encode={"image1": "8", "image2": "10"}, EncodeMany={"images.image_1": "8", "images.image_2": "10"})
    (document,) = generate(new_run(tmp_path / "run", [prompt("x", input=blocks)], tmp_path), comfy(tmp_path, loopback(fake), workflow))
    (graph,) = fake.queued
    assert document.finish == "stop" and len(fake.uploads) == given
    assert [name for name in ("8", "10") if name in graph] == ["8", "10"][:given]
    assert list(graph["Encode"]["inputs"]) == ["image1", "image2"][:given]
    assert list(graph["EncodeMany"]["inputs"]) == ["images.image_1", "images.image_2"][:given]


@pytest.mark.parametrize("taker", [{"VAEEncode": {"pixels": "10"}}, {"Unknown": {"image": "10"}}])
def test_a_workflow_that_needs_a_picture_fails_a_prompt_without_one(tmp_path, loopback, taker):
    fake = FakeComfy({"9": {"images": [file("red")]}})
    (document,) = generate(new_run(tmp_path / "run", [prompt("x")]), comfy(tmp_path, loopback(fake), with_pictures(**taker)))
    ((kind, links),) = taker.items()
    assert document.finish == "error" and not fake.queued
    assert f"gives 0 pictures, and the workflow cannot be without image2: {kind} ({kind}) needs it for '{next(iter(links))}'" in document.error


@pytest.mark.parametrize(
    ("running", "posted"),
    [
        (["abc"], [("/queue", {"delete": ["abc"]}), ("/interrupt", {"prompt_id": "abc"})]),
        (["somebody-elses"], [("/queue", {"delete": ["abc"]})]),
    ],
)
def test_a_prompt_that_takes_too_long_or_is_left_does_not_stay_with_comfyui(tmp_path, loopback, monkeypatch, running, posted):
    fake = FakeComfy({}, looks=10**9, running=running)
    backend = comfy(tmp_path, loopback(fake), timeout_s=0.1)
    (document,) = generate(new_run(tmp_path / "run", [prompt("x")]), backend)
    assert "did not finish within 0.1 s and was stopped" in document.error and fake.posted == posted

    def interrupted(_):
        raise KeyboardInterrupt

    fake.posted.clear()
    monkeypatch.setattr("weaver_core.evaluation.backends.comfy.time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupted))
    with pytest.raises(KeyboardInterrupt):
        generate(new_run(tmp_path / "other", [prompt("x")]), backend)
    assert fake.posted == posted


def test_the_time_in_comfyui_s_queue_does_not_count(tmp_path, loopback, monkeypatch):
    clock = [0.0]
    pause = SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda seconds: clock.__setitem__(0, clock[0] + 1))
    monkeypatch.setattr("weaver_core.evaluation.backends.comfy.time", pause)
    fake = FakeComfy({"9": {"images": [file("red")]}}, looks=20, waiting=["abc"])
    backend = comfy(tmp_path, loopback(fake), timeout_s=5)
    (document,) = generate(new_run(tmp_path / "run", [prompt("x")]), backend)
    assert document.finish == "stop" and fake.looks == 20 and not fake.posted
    fake.looks, fake.queue = 0, {"queue_pending": [], "queue_running": ["abc"]}
    (document,) = generate(new_run(tmp_path / "other", [prompt("x")]), backend)
    assert document.finish == "error" and fake.looks == 5


@pytest.mark.parametrize(
    ("workflow", "mapping", "message"),
    [
        ({"nodes": []}, {}, "editor's format"),
        ({"a": 1}, {}, "no workflow in API format"),
        ({"1": {"class_type": "X", "inputs": {}}}, {}, "does not say where the prompt goes"),
        (WORKFLOW, {"prompt": "99.text"}, "no such node and input"),
        (WORKFLOW, {"colour": "6.text"}, "is no placeholder"),
        ({"1": {"class_type": "X", "inputs": {"text": ["2", 0]}, "_meta": {"title": "prompt"}}}, {}, "has none of the inputs"),
    ],
)
def test_workflows_that_cannot_be_filled_are_refused(tmp_path, workflow, mapping, message):
    (tmp_path / "wf.json").write_text(json.dumps(workflow))
    with pytest.raises(InputError, match=message):
        find_places(read_workflow(tmp_path / "wf.json"), mapping)


class FakeOpenAI:
    def __init__(self, status=200):
        self.status, self.calls = status, []

    def __call__(self, method, path, query, body):
        self.calls.append((path, body))
        if path == "/v1/chat/completions":
            return 200, {"choices": [{"message": {"content": "# Fox\nOne. <imagine>a fox</imagine> Two. <imagine>a red fox</imagine> End."}}]}
        data = {"b64_json": base64.b64encode(png("red", (32, 32))).decode()}
        return self.status, {"data": [data]} if self.status == 200 else {"error": {"message": "no"}}


def test_a_chat_model_and_an_images_api_weave_a_document_with_edits_where_there_are_references(tmp_path, loopback, monkeypatch):
    monkeypatch.setenv("WEAVER_GENERATE_API_KEY", "sk-generate")
    fake = FakeOpenAI()
    (tmp_path / "in.png").write_bytes(png("white"))
    run = new_run(tmp_path / "run", [prompt("x"), prompt("y", input=(InputBlock(type="text", text="Tim"), InputBlock(type="image", path="in.png")))], tmp_path)
    backend = OpenAIBackend(loopback(fake), "chat-1", "image-1", size=(32, 32), backoff_s=0.01)
    x, y = generate(run, backend)
    assert [block.type for block in x.blocks] == ["text", "text", "image", "text", "image", "text"]
    assert [block.dense_prompt for block in x.images] == ["a fox", "a red fox"]
    first, later = [[path.removeprefix("/v1/") for path, _ in calls] for calls in (fake.calls[:3], fake.calls[3:])]
    assert first == ["chat/completions", "images/generations", "images/edits"], "the second image follows the first"
    assert later == ["chat/completions", "images/edits", "images/edits"], "both follow the given picture"
    assert b"Use exactly 2 images" in fake.calls[0][1] and b'"size": "32x32"' in fake.calls[1][1]
    assert "sk-generate" not in repr(backend.settings()) and not [p for p in run.folder.rglob("*") if p.is_file() and b"sk-generate" in p.read_bytes()]


def test_an_images_api_that_takes_no_key_stops_the_stage_and_the_story_goes_on_later(tmp_path, loopback):
    run = new_run(tmp_path / "run", [prompt("x")])
    fake = FakeOpenAI(status=401)
    backend = OpenAIBackend(loopback(fake), "chat-1", "image-1", size=(32, 32), backoff_s=0.01)
    with pytest.raises(BackendDown, match="401"):
        generate(run, backend)
    fake.status = 200
    (document,) = generate(run, backend)
    assert len(document.images) == 2
    assert [path for path, _ in fake.calls].count("/v1/chat/completions") == 1, "the plan was kept"


# ---- documents on disk


def test_documents_of_a_file_become_a_run_and_missing_ones_are_told(tmp_path):
    old = make_run(tmp_path / "old", 2)
    (old.folder / "documents.jsonl").write_text("".join(json.dumps(document.to_json()) + "\n" for document in old.documents()))
    run = new_run(tmp_path / "new", [prompt("p0"), prompt("p1"), prompt("p2")])
    documents = generate(run, ImportedDocuments(old.folder / "documents.jsonl"))
    assert [answer_hash(document) for document in documents[:2]] == [answer_hash(document) for document in old.documents()]
    assert documents[2].finish == "error" and "holds no answer to p2" in documents[2].error


# ---- measuring


class CountImages:
    name = "count"

    def __init__(self):
        self.measured = 0

    def measure(self, prompts, documents, folder):
        self.measured += 1
        return [MetricRecord(prompt_id=d.prompt_id, system=d.system, metric="count", value=float(len(d.images))) for d in documents]


def test_a_metric_is_measured_again_only_when_a_document_has_changed(tmp_path):
    run, metric = make_run(tmp_path / "run", 3), CountImages()
    assert [record.value for record in measure_run(run, [metric])] == [2, 2, 2]
    assert [record.value for record in measure_run(RunFolder.open(run.folder), [metric])] == [2, 2, 2] and metric.measured == 1
    run.keep("p1", answer(7, images=5), 0)
    assert {record.prompt_id: record.value for record in measure_run(run, [metric])} == {"p0": 2, "p1": 5, "p2": 2} and metric.measured == 2
