"""Judge Story: a story scored by a model that sees, behind an OpenAI-compatible server.

As with Plan with a Server, a workflow may come from a stranger and name any address: the key comes from the environment
of the ComfyUI process and goes only to the server that the environment names beside it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from ..weaver_core.planners.http_address import key_from_environment, server_address
from . import host
from .evaluate_story import story_run
from .schema import CATEGORY, STORY, checked, fitted
from .values import WovenStory

NODE = "Judge Story"
MODES = ("split", "joint")


class WeaverJudgeStory(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverJudgeStory",
            display_name=NODE,
            category=CATEGORY,
            description="Lets a vision model score a story from 0 to 10: prompt adherence, narrative coordination, content consistency, image "
            "consistency, completeness. A key never stands in the workflow: set WEAVER_API_KEY and WEAVER_API_URL, and start ComfyUI again.",
            search_aliases=["vlm judge", "score story", "rate story", "llm judge", "weaverbench", "critic"],
            inputs=[
                STORY.Input("story", tooltip="From Visualize Plan or Load Story. Its texts and images are sent to the server."),
                io.String.Input("url", default="http://localhost:11434/v1",
                                tooltip="The server's address. Ollama has port 11434, LM Studio 1234, vLLM 8000, llama.cpp 8080."),
                io.String.Input("model", default="qwen3-vl:8b", tooltip="The name by which the server knows the model. It must see images."),
                io.Combo.Input("mode", options=list(MODES), default="split",
                               tooltip="split: five questions, each with only what it needs; joint: one question, cheaper, but the scores "
                               "then run together."),
                fitted(io.Float.Input, "timeout_s", default=180.0, min=5.0, max=3600.0, step=1.0, advanced=True,
                       tooltip="Seconds that one answer may take."),
            ],
            outputs=[
                io.Float.Output("overall", display_name="overall", tooltip="The mean of the five scores, 0 to 10."),
                io.String.Output("text", display_name="text", tooltip="The scores with the judge's reasons, for people."),
                io.String.Output("numbers", display_name="numbers", tooltip="The same as JSON: values by name, and what failed."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, story, url: str, model: str, mode: str = "split", timeout_s: float = 180.0) -> io.NodeOutput:
        from ..weaver_core.evaluation.judge import VlmJudge
        from ..weaver_core.evaluation.judge.client import ChatClient
        from ..weaver_core.evaluation.records import DIMENSIONS
        from ..weaver_core.evaluation.stories import PROMPT_ID, judgement

        woven = checked(story, WovenStory, NODE, "Visualize Plan")
        if mode not in MODES:
            raise InputError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}")
        if not model.strip():
            raise InputError("the judge's model has no name; give the one that its server lists, such as qwen3-vl:8b")
        address = server_address(url)
        client = ChatClient(address, model.strip(), timeout_s=timeout_s, attempts=3, key=key_from_environment(address, bound=True))
        judge = VlmJudge(client, mode=mode)
        questions = [(dim,) for dim in DIMENSIONS] if mode == "split" else [DIMENSIONS]
        records, show = [], host.progress_bar(len(questions))
        with tempfile.TemporaryDirectory(prefix="weaver-judge-") as folder:
            run = story_run(Path(folder), woven, "story")
            for number, dims in enumerate(questions, 1):
                host.stop_if_interrupted()
                records += judge.score(run.prompts[PROMPT_ID], run.document(PROMPT_ID), run.folder, dims=dims)
                show(number)
        found = judgement(records)
        if found.values["Overall"] is None:
            raise InputError(f"{model} gave no score: {found.faults[0] if found.faults else 'nothing applies'}")
        return io.NodeOutput(found.values["Overall"], found.text, found.to_json(), ui={"text": [found.text], "weaver_notes": list(found.faults)})
