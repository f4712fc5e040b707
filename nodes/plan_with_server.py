"""Plan with a Server: a story planned by a model behind an OpenAI-compatible server.

A workflow may come from a stranger and name any address. The key of the user is therefore in no input; it comes from the
environment of the ComfyUI process, and goes only to the server that the environment names beside it.
"""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.planners.http import FORMS, HttpPlanner
from ..weaver_core.planners.http_address import key_from_environment, server_address
from . import host
from .own_planner import plan_asked, read_asked
from .plan import own_planner_inputs, plan_outputs, typed_prompt_is_usable
from .schema import CATEGORY, fitted, single

NODE = "Plan with a Server"


class WeaverPlanWithServer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverPlanWithServer",
            display_name=NODE,
            category=CATEGORY,
            description="Writes a story with a model behind an OpenAI-compatible server: Ollama, LM Studio, vLLM, llama.cpp, or a "
            "hosted one. A key never stands in the workflow: set WEAVER_API_KEY and WEAVER_API_URL, and start ComfyUI again.",
            search_aliases=["ollama", "openai", "lm studio", "vllm", "llama.cpp", "llm", "vlm", "story planner", "write story"],
            is_input_list=True,  # pictures of different sizes come as a list
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                io.String.Input("url", default="http://localhost:11434/v1",
                                tooltip="The server's address. Ollama has port 11434, LM Studio 1234, vLLM 8000, llama.cpp 8080."),
                io.String.Input("model", default="qwen3-vl:8b", tooltip="The name by which the server knows the model."),
                *own_planner_inputs(),
                fitted(io.Combo.Input, "form", options=list(FORMS), default="markup", advanced=True,
                       tooltip="markup is shown while it is written. json asks for JSON under a schema: small models hold to it more "
                       "surely, and it is shown at the end."),
            ],
            outputs=plan_outputs(),
        )

    @classmethod
    def validate_inputs(cls, prompt=None, input_types=None):
        return typed_prompt_is_usable(prompt, input_types)

    @classmethod
    def execute(cls, url, model, form, **inputs) -> io.NodeOutput:
        asked = read_asked(NODE, **inputs)
        planner = server_planner(single(url, "url", NODE), single(model, "model", NODE), form=single(form, "form", NODE))
        progress = host.ProgressText(cls.hidden.unique_id)
        progress.show(f"waiting for {planner.model}", at_once=True)
        return plan_asked(asked, planner, progress, cls.hidden)


def server_planner(url: str, model: str, **how) -> HttpPlanner:
    """The planner at an address; it gets the key only if the environment has one for just this address."""
    address = server_address(url)
    return HttpPlanner(address, model, api_key=key_from_environment(address, bound=True), **how)
