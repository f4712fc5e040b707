"""The critic: whatever a model answers becomes a verdict or none, and what it dislikes is drawn again, never for worse."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import tiny_chat_models
from bad_server import BadServer, Reply, event
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_pair import FOX, FeatureTellingPlanner, ShapeVisualizer, TellingPlanner

from weaver_core.cli import main
from weaver_core.critic import ASPECTS, Critic, Verdict, question, read_verdict, verdict_from_json, verdict_to_json
from weaver_core.errors import Cancelled, InputError
from weaver_core.export.html import write_html
from weaver_core.plan import CastMember, parse_markup
from weaver_core.planners import SeeingPlanner, http_exchange
from weaver_core.planners.http import HttpPlanner, Timeouts
from weaver_core.planners.transformers_planner import TransformersPlanner
from weaver_core.request import RenderSettings, Request
from weaver_core.story import Story, StoryFolder
from weaver_core.weave import Finished, ImageJudged, ImageReady, Warning, weave, weave_plan

PLAN, _ = parse_markup(FOX)
REQUEST = Request(prompt="a fox", num_images=3, seed=7)
AS_DRAWN = RenderSettings(check_images=False)  # what the small visualizer draws may look like a fault


def answer(score: int, fault: str = "", prompt: str = "", **scores: int) -> str:
    return json.dumps({**dict.fromkeys(ASPECTS, score), **scores, "faults": [fault] if fault else [], "prompt": prompt})


def told(text: str) -> Reply:
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    return Reply(json.dumps(body).encode(), kind="application/json")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(http_exchange, "FIRST_PAUSE_S", 0.01)
    server = BadServer()
    yield server
    server.close()


def critic_at(server, **how) -> Critic:
    return Critic(HttpPlanner(server.url, "fox-7b", api_key="", timeouts=Timeouts(first_token_s=20), attempts=2), **how)


def drawn(critic, story=None, plan=PLAN, visualizer=None, planner=None, **how):
    visualizer = visualizer or ShapeVisualizer()
    story = story if story is not None else Story(REQUEST)
    return list(weave_plan(plan, visualizer, planner=planner, request=None if story.request else REQUEST, story=story,
                           settings=AS_DRAWN, critic=critic, **how))  # fmt: skip


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


# ---- verdicts


@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "Sure! {} I hope this helps.", "The fox {{is}} there.\n{}",
                                    '<b>{{"looks"</b> {}', '{{"a": 1}} {}'])  # fmt: skip
def test_a_verdict_is_found_whatever_stands_around_it(around):
    verdict = read_verdict(around.format(answer(9, "the scarf is red", "A fox with a blue scarf.", looks=3)))
    assert verdict.scores == {**dict.fromkeys(ASPECTS, 9), "looks": 3} and verdict.score == 3
    assert verdict.faults == ("the scarf is red",) and verdict.prompt == "A fox with a blue scarf."
    assert str(verdict) == "3 of 10 (looks 3): the scarf is red"


@pytest.mark.parametrize(("given", "score"), [(7, 7), (7.6, 8), ("7", 7), ("7/10", 7), (-3, 0), (99, 10), (10**400, 10)])
def test_scores_are_read_as_models_write_them(given, score):
    assert read_verdict(json.dumps({"looks": given})).scores == {"looks": score}
    assert read_verdict(json.dumps({"scores": {"looks": given}})).scores == {"looks": score}


@pytest.mark.parametrize("text", ["", "yes", "{}", "[1]", '{"looks": null}', '{"looks": true}', '{"looks": NaN}', '{"looks": "good"}',
                                  '{"looks": [1]}', "{" * 5000, '{"a":' * 5000, '{"scores": 5}', '{"looks": Infinity}'])  # fmt: skip
def test_what_is_no_verdict_is_none(text):
    assert read_verdict(text) is None


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from([*ASPECTS, "scores", "faults", "prompt"]) | st.text(), inner)).map(json.dumps))  # fmt: skip
def test_every_text_is_read_and_a_verdict_survives_the_journal(text):
    verdict = read_verdict(text)
    if verdict is not None:
        assert verdict_from_json(json.loads(json.dumps(verdict_to_json(verdict)))) == verdict


def test_what_a_model_rewords_holds_no_markup_and_has_an_end():
    verdict = read_verdict(answer(1, "x" * 999, 'A fox.</imagine><imagine id="p9">' + " A bear." * 999))
    assert "<" not in verdict.prompt and len(verdict.prompt) <= 4000 and len(verdict.faults[0]) <= 200


def test_the_question_names_the_prompt_the_looks_of_those_in_it_and_every_aspect():
    segment = replace(PLAN.images[0], cast=("Robin",))
    asked = question(segment, (CastMember(name="Robin", look="a small orange fox"), CastMember(name="Mia", look="a bear")))
    assert segment.prompt in asked and "Robin: a small orange fox" in asked and "a bear" not in asked
    assert all(f"- {name}:" in asked for name in ASPECTS)


def test_a_planner_that_cannot_look_is_refused():
    with pytest.raises(InputError, match="model that can look at a picture"):
        Critic(TellingPlanner())


# ---- in the loop, judged over HTTP


def test_a_good_image_is_left_as_it_is(server):
    server.replies = [told(answer(9))]
    events, plain = drawn(critic_at(server)), drawn(None)
    assert [event.image.tobytes() for event in of(events, ImageReady)] == [event.image.tobytes() for event in of(plain, ImageReady)]
    assert [(event.segment_id, event.redraws) for event in of(events, ImageJudged)] == [("p1", False), ("p2", False), ("p3", False)]
    asked = server.asked[0]
    assert asked["response_format"]["json_schema"]["schema"]["required"] == [*ASPECTS, "faults", "prompt"]
    picture, words = asked["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/") and PLAN.images[0].prompt in words["text"]
    assert of(events, ImageReady)[0].rendering.verdict == read_verdict(answer(9))


def test_what_it_dislikes_is_drawn_again_in_its_words_and_the_best_is_kept(server):
    server.replies = [told(answer(8)), told(answer(2, "two foxes", "One orange fox walks.")), told(answer(5, "no river")),
                      told(answer(4)), told(answer(8))]  # fmt: skip
    visualizer = ShapeVisualizer()
    events = drawn(critic_at(server, max_redraws=2), visualizer=visualizer)
    judged = [(event.segment_id, event.attempt, event.verdict.score, event.redraws) for event in of(events, ImageJudged)]
    assert judged == [("p1", 1, 8, False), ("p2", 1, 2, True), ("p2", 2, 5, True), ("p2", 3, 4, False), ("p3", 1, 8, False)]
    shots = [shot for shot in visualizer.shots if shot.prompt in (PLAN.images[1].prompt, "One orange fox walks.")]
    assert [shot.prompt for shot in shots] == [PLAN.images[1].prompt, "One orange fox walks.", PLAN.images[1].prompt]
    assert len({shot.seed for shot in shots}) == 3
    ready = of(events, ImageReady)[1]
    assert ready.image.tobytes() == of(events, ImageJudged)[2].image.tobytes()
    kept = ready.rendering
    assert (kept.verdict.score, kept.drawn_prompt, kept.drawn_seed) == (5, "One orange fox walks.", shots[1].seed)
    assert (kept.prompt, kept.seed) == (PLAN.images[1].prompt, shots[0].seed)


def test_a_worse_redraw_does_not_replace_the_first(server):
    server.replies = [told(answer(9)), told(answer(5)), told(answer(4)), told(answer(9))]
    events, plain = drawn(critic_at(server)), drawn(None)
    assert of(events, ImageReady)[1].image.tobytes() == of(plain, ImageReady)[1].image.tobytes()
    assert of(events, ImageReady)[1].rendering.drawn_seed is None


def test_the_features_are_those_of_the_new_words(server):
    server.replies = [told(answer(1, prompt="A cat."))] + [told(answer(9))]
    visualizer = ShapeVisualizer(needs_context=True)
    drawn(critic_at(server), visualizer=visualizer, planner=FeatureTellingPlanner())
    assert visualizer.shots[1].context[0] == ["A", "cat"]


def test_in_the_closed_loop_the_words_of_the_history_are_the_new_ones_too(server):
    server.replies = [told(answer(1, prompt="A cat.")), told(answer(9))]
    visualizer, seen = ShapeVisualizer(needs_context=True), []

    class Planner(FeatureTellingPlanner):
        def context(self, plan, segment, request, *, history=()):
            seen.append(history)
            return super().context(plan, segment, request, history=history)

    *_, last = weave(REQUEST, Planner(), visualizer, mode="closed-loop", settings=AS_DRAWN, critic=critic_at(server))
    assert isinstance(last, Finished) and not last.missing
    assert "<imagine>A cat.</imagine>" in seen[1][0] and "<imagine>A cat.</imagine>" not in seen[2][0]


def test_scores_and_reasons_are_in_journal_and_page_and_nothing_is_drawn_or_judged_twice(server, tmp_path):
    server.replies = [told(answer(3, "a <b>second</b> fox", "One fox.")), told(answer(7, "the <i>hat</i> & scarf"))]
    with StoryFolder.create(tmp_path / "s", REQUEST) as folder:
        drawn(critic_at(server), folder)
        page = write_html(folder, tmp_path / "story.html").read_text()
    assert "Critic: 7 of 10" in page and "hat &amp; scarf" in page and "looks 7" in page and "<i>hat" not in page
    num_asked = len(server.asked)
    with StoryFolder.open(tmp_path / "s") as folder:
        kept = folder.renderings["p1"]
        assert (kept.verdict.score, kept.drawn_prompt) == (7, "One fox.") and not folder.warnings
        for critic, settings in ((critic_at(server), AS_DRAWN), (None, RenderSettings()), (None, AS_DRAWN)):
            events = list(weave_plan(folder.plan, ShapeVisualizer(), story=folder, settings=settings, critic=critic))
            assert all(event.cached for event in of(events, ImageReady)) and len(server.asked) == num_asked


def test_images_that_were_drawn_without_it_are_judged_when_it_comes(server, tmp_path):
    with StoryFolder.create(tmp_path / "s", REQUEST) as folder:
        drawn(None, folder)
        server.replies = [told(answer(9)), told(answer(2)), told(answer(8))]
        events = drawn(critic_at(server), folder)
    assert [(event.segment_id, event.cached) for event in of(events, ImageReady)] == [("p1", True), ("p2", False), ("p3", True)]
    with StoryFolder.open(tmp_path / "s") as folder:
        assert [folder.renderings[name].verdict.score for name in ("p1", "p2", "p3")] == [9, 8, 8] and not folder.warnings


def test_a_reworded_image_whose_reference_changes_is_stale_and_kept(server):
    server.replies = [told(answer(9)), told(answer(3, prompt="One fox.")), told(answer(7)), told(answer(9))]
    story = Story(REQUEST)
    drawn(critic_at(server), story)
    first, second = PLAN.images[0], story.renderings["p2"]
    edited = replace(PLAN, segments=tuple(replace(first, seed=99) if s.id == "p1" else s for s in PLAN.segments))
    drawn(None, story, edited)
    assert story.renderings["p2"] == second and "p2" in [mark.segment_id for mark in story.stale()]


@pytest.mark.parametrize("reply", [told("I like it."), Reply(b"<html>", kind="text/html"), Reply.error(401, "no key"),
                                   Reply.error(400, "this model does not support image input")],
                         ids=["no verdict", "a page", "no key", "no eyes"])  # fmt: skip
def test_a_critic_that_cannot_judge_costs_a_warning_and_no_image(server, reply):
    server.replies = [reply]
    events, plain = drawn(critic_at(server)), drawn(None)
    assert [event.image.tobytes() for event in of(events, ImageReady)] == [event.image.tobytes() for event in of(plain, ImageReady)]
    messages = [event.message for event in of(events, Warning) if "critic" in event.message]
    assert messages and not of(events, ImageJudged)
    if "cannot judge" in messages[0]:
        assert len(messages) == 1, "it was asked again after it had failed"


def test_a_critic_that_thinks_until_its_tokens_are_used_up_says_so(server):
    server.replies = [Reply(event("<think>The fox "), event(None, "length"))]
    (message,) = [event.message for event in of(drawn(critic_at(server)), Warning) if "critic" in event.message]
    assert "used all 2048 tokens for thinking and wrote no answer; switch its thinking off" in message
    assert [asked["max_tokens"] for asked in server.asked] == [2048]


def test_a_redraw_that_fails_leaves_the_first_drawing(server):
    server.replies = [told(answer(2, prompt="a broken one"))]
    events = drawn(critic_at(server), visualizer=ShapeVisualizer(fails_on="broken"))
    assert len(of(events, ImageReady)) == 3 and not of(events, Finished)[0].missing
    assert "could not be drawn once more" in of(events, Warning)[0].message


def test_cancelling_while_it_judges_stops(server):
    server.replies = [Reply(30.0, b"")]
    asked = []
    with pytest.raises(Cancelled):
        drawn(critic_at(server), cancel=lambda: bool(server.asked and (asked.append(1) or len(asked) > 3)))
    assert server.hung_up.wait(5)


def test_a_page_that_is_being_judged_is_there_already(server, tmp_path):
    server.replies = [Reply(30.0, b"")]
    asked = []
    with StoryFolder.create(tmp_path / "s", REQUEST) as folder, pytest.raises(Cancelled):
        drawn(critic_at(server), folder, cancel=lambda: bool(server.asked and (asked.append(1) or len(asked) > 3)))
    visualizer = ShapeVisualizer()
    with StoryFolder.open(tmp_path / "s") as folder:
        assert list(folder.renderings) == ["p1"] and folder.renderings["p1"].verdict is None
        server.replies = [told(answer(9))]
        drawn(critic_at(server), folder, visualizer=visualizer)
        assert len(visualizer.shots) == 2 and [folder.renderings[name].verdict.score for name in ("p1", "p2", "p3")] == [9, 9, 9]


def test_a_critic_that_may_ask_for_more_goes_on_from_its_verdicts(server, tmp_path):
    server.replies = [told(answer(8)), told(answer(2, prompt="One fox.")), told(answer(8))]
    with StoryFolder.create(tmp_path / "s", REQUEST) as folder:
        drawn(critic_at(server, max_redraws=0), folder)
    server.replies, server.asked[:] = [told(answer(3)), told(answer(1))], []
    with StoryFolder.open(tmp_path / "s") as folder:
        events = drawn(critic_at(server, max_redraws=2), folder)
        judged = [(event.segment_id, event.attempt, event.verdict.score, event.redraws) for event in of(events, ImageJudged)]
        assert judged == [("p2", 2, 3, True), ("p2", 3, 1, False)] and len(server.asked) == 2
        assert (folder.renderings["p2"].verdict.score, folder.renderings["p2"].wishes, folder.renderings["p2"].drawn_prompt) == (3, 2, "One fox.")
    with StoryFolder.open(tmp_path / "s") as folder:
        assert not of(drawn(critic_at(server, max_redraws=2), folder), ImageJudged) and not folder.warnings
        asked = [event.segment_id for event in of(drawn(critic_at(server, max_redraws=2, least=9), folder), ImageJudged)]
        assert asked == ["p1", "p1", "p3", "p3"], "those that are no longer good enough are drawn again"


# ---- on the command line


def test_the_command_line_tells_what_the_critic_says(server, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("WEAVER_API_KEY", raising=False)
    server.replies = [Reply.plan(), told(answer(3, "no scarf", "A small orange fox with a scarf stands in the forest.")), told(answer(8)),
                      told(answer(9))]  # fmt: skip
    code = main(["story", "A fox", "--images", "2", "--seed", "7", "--steps", "2", "--no-check-images", "--out", str(tmp_path / "s"),
                 "--planner-url", server.url, "--planner-model", "fox-7b", "--critic"])  # fmt: skip
    told_to_user = capsys.readouterr().err
    assert code == 0, told_to_user
    assert "p1: the critic says 3 of 10 (people 3, looks 3, scene 3, single 3, clean 3): no scarf; it is drawn once more" in told_to_user
    assert "p1: the critic says 8 of 10" in told_to_user and "p2: the critic says 9 of 10" in told_to_user
    assert "Critic: 8 of 10" in (tmp_path / "s" / "story.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("arguments", "message"), [
    (["story", "A fox", "--critic"], "the picture-book planner only writes stories; name one with --planner"),
    (["story", "A fox", "--critic", "99", "--planner-url", "http://localhost:9", "--planner-model", "m"], "can be drawn 0 to 8 more times"),
    (["render", "PLAN", "--planner-url", "http://localhost:9", "--planner-model", "m"], "add --critic"),
    (["story", "A fox", "--planner-4bit"], "name it with --planner"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_named(arguments, message, tmp_path, capsys):
    plan = tmp_path / "plan.md"
    plan.write_text(FOX)
    assert main([str(plan) if word == "PLAN" else word for word in arguments]) == 1
    assert message in capsys.readouterr().err


# ---- judged by a model on this computer


def test_a_real_model_that_sees_is_asked_with_the_picture(tmp_path):
    planner = TransformersPlanner(tiny_chat_models.seeing("qwen3_vl", tmp_path), device="cpu")
    assert isinstance(planner, SeeingPlanner)
    critic = Critic(planner)
    events = drawn(critic, plan=replace(PLAN, segments=PLAN.segments[:2]))
    assert len(of(events, ImageReady)) == 1 and "is no verdict" in of(events, Warning)[0].message  # it has no sense
    options = {"options": planner_options(), "cancel": lambda: False}
    red, blue = (planner.answer("What is it?", (Image.new("RGB", (48, 40), colour),), **options) for colour in ("red", "blue"))
    assert red and red == planner.answer("What is it?", (Image.new("RGB", (48, 40), "red"),), **options)
    inputs = [planner._loaded.read([{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (48, 40), colour)}]}])
              for colour in ("red", "blue")]  # fmt: skip
    assert (inputs[0]["pixel_values"] != inputs[1]["pixel_values"]).any()


def planner_options():
    from weaver_core.planners import PlannerOptions

    return PlannerOptions(max_tokens=12, temperature=0)


def test_a_model_that_only_reads_says_that_it_cannot_look(tmp_path):
    critic = Critic(TransformersPlanner(tiny_chat_models.writing(tmp_path), device="cpu"))
    events = drawn(critic)
    assert len(of(events, ImageReady)) == 3
    (warning,) = [event.message for event in of(events, Warning)]
    assert "cannot look at pictures; take a model that sees" in warning


def test_verdicts_compare_by_their_worst_score_first():
    even, odd = (Verdict(scores=dict(zip(ASPECTS, scores, strict=True))) for scores in ([6] * 5, [10, 10, 10, 10, 5]))
    assert even.rank > odd.rank
