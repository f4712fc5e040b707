"""The examples of docs/api.md, run as they stand there, against a real ComfyUI."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

from comfy_process import REPOSITORY

EXAMPLES = REPOSITORY / "docs" / "examples"
GRAPH = EXAMPLES / "api_prompt_to_story.json"
WAIT_S = 600


def shell_blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)


def run_shell(command: str, **variables) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=EXAMPLES, env=os.environ | variables, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_script(comfy, folder, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(EXAMPLES / "run_story.py"), *options, "--server", comfy.url, "--out", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)


def test_the_curl_commands_send_the_graph_and_fetch_a_page(comfy, tmp_path):
    send, history, view = (block for block in shell_blocks() if "curl" in block)
    prompt_id = json.loads(run_shell(send, COMFYUI=comfy.url))["prompt_id"]
    end = time.monotonic() + WAIT_S
    while (found := json.loads(run_shell(history, COMFYUI=comfy.url, PROMPT_ID=prompt_id))) == {} and time.monotonic() < end:
        time.sleep(0.5)
    assert found[prompt_id]["status"]["status_str"] == "success"
    save_node = next(node for node, body in json.loads(GRAPH.read_text()).items() if body["class_type"] == "WeaverSaveStory")
    pictures = found[prompt_id]["outputs"][save_node]["images"]
    assert len(pictures) == 2 and (comfy.output / pictures[0]["subfolder"]).parent.joinpath("story.html").is_file()
    page = tmp_path / "page.png"
    facts = {"COMFYUI": comfy.url, "FILENAME": pictures[0]["filename"], "SUBFOLDER": pictures[0]["subfolder"]}
    run_shell(view.replace("page.png", f'"{page}"'), **facts)
    assert page.read_bytes().startswith(b"\x89PNG")


def test_the_python_script_saves_as_many_pictures_as_it_was_asked_for(comfy, tmp_path):
    done = run_script(comfy, tmp_path, "A story in three pictures about a blue bear in the snow", "--seed", "5")
    assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("*.png"))
    assert len(files) == 3 and all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert sorted(done.stdout.split()) == sorted(map(str, files))


def test_the_python_script_says_in_a_line_what_comfyui_refused(comfy, tmp_path):
    done = run_script(comfy, tmp_path, "A fox", "--seed", "-1")
    assert done.returncode == 1 and "refused (400)" in done.stderr and "seed" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
