"""References: which pictures a page is drawn from, and how many, for Visualize Plan."""

from __future__ import annotations

from comfy_api.latest import io

from ..weaver_core.errors import InputError
from ..weaver_core.references import POLICIES
from .schema import CATEGORY, REFERENCES, fitted
from .values import ReferenceChoosing

NODE = "References"
MAX_PICTURES = 64
MAX_TOKENS = 2**20


class WeaverReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return fitted(
            io.Schema,
            node_id="WeaverReferences",
            display_name=NODE,
            category=CATEGORY,
            description="Chooses what every page is drawn from: the cast, the first page, the page before, or nothing; and how "
            "many pictures at most. Pages for which the plan names references keep those.",
            search_aliases=["reference policy", "reference budget", "consistency", "consistent character", "memory budget"],
            inputs=[
                io.Combo.Input("policy", options=list(POLICIES), default="auto",
                               tooltip="; ".join(f"{name}: {what}" for name, what in POLICIES.items())),
                io.Int.Input("max_pictures", default=0, min=0, max=MAX_PICTURES,
                             tooltip="Pictures per page at most. 0 = as many as the model takes."),
                io.Int.Input("max_tokens", default=0, min=0, max=MAX_TOKENS,
                             tooltip="Tokens that the pictures of a page may have together, for large models with little memory. "
                             "0 = no such limit."),
            ],
            outputs=[REFERENCES.Output("references", display_name="references", tooltip="For Visualize Plan.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, policy: str, max_pictures: int = 0, max_tokens: int = 0) -> io.NodeOutput:
        if policy not in POLICIES:
            raise InputError(f"policy is {str(policy)[:40]!r}; it must be one of {', '.join(POLICIES)}")
        return io.NodeOutput(
            ReferenceChoosing(policy=policy, max_references=max_pictures or None, max_reference_tokens=max_tokens or None)
        )
