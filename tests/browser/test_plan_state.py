"""The state of the plan editor by itself, in a real browser: plans and their changes, undo, what is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weaver_core.plan import Plan

MODULE = Path(__file__).resolve().parents[2] / "web" / "js" / "plan_state.js"
CASES = Path(__file__).with_name("plan_state_cases.js")
NAMES = re.findall(r"^export function (\w+)", CASES.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def page(chromium):
    """An empty page with the module as `state` and the cases as `cases`."""
    page = chromium.new_page()
    load = "async ([name, text]) => { window[name] = await import(URL.createObjectURL(new Blob([text], { type: 'text/javascript' }))) }"
    for name, path in (("state", MODULE), ("cases", CASES)):
        page.evaluate(load, [name, path.read_text(encoding="utf-8")])
    yield page
    page.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_state(page, name):
    page.evaluate("(name) => { window.cases[name](window.state) }", name)


KINDS = st.sampled_from(["text", "image"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.integers(0, 9), KINDS),
        st.tuples(st.just("without"), st.integers(0, 9)),
        st.tuples(st.just("moved"), st.integers(0, 9), st.integers(-2, 12)),
    ),
    max_size=12,
)
TAKE = """(steps) => {
  const { emptyPlan, withNew, without, moved, withFields, writeEdits, readEdits } = window.state
  let plan = emptyPlan()
  const fresh = []
  for (const [name, index, more] of steps) {
    const at = plan.segments[index % Math.max(1, plan.segments.length)]?.id
    if (name === 'new') {
      const before = plan
      const [changed, id] = withNew(plan, Math.min(index, plan.segments.length), more)
      plan = withFields(changed, id, more === 'text' ? { text: `${id} <b>` } : { prompt: `${id} <b>` })
      fresh.push([before.segments.map((segment) => segment.id), more, id])
    } else if (at && name === 'without') plan = without(plan, at)
    else if (at) plan = moved(plan, at, more)
  }
  return [JSON.stringify(readEdits(writeEdits(plan, null)).plan), fresh]
}"""


@settings(max_examples=40)
@given(steps=STEPS)
def test_whatever_is_done_the_library_reads_it_and_gives_the_same_ids(page, steps):
    text, fresh = page.evaluate(TAKE, [list(step) for step in steps])
    plan = Plan.from_json(json.loads(text))
    assert Plan.from_json(plan.to_json()) == plan
    for taken, kind, given_id in fresh:
        before = Plan.from_json({"format": "weaver-plan", "version": 1,
                                 "segments": [{"type": "text", "id": segment_id, "text": "x"} for segment_id in taken]})
        assert given_id == before.fresh_id({"text": "t", "image": "p"}[kind])
