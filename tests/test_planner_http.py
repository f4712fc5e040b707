"""The HTTP planner against a server that behaves, and misbehaves, as real ones do: every time a plan or a clear error."""

from __future__ import annotations

import gc
import json
import logging
import pickle
import time
import traceback

import pytest
from bad_server import PLAN, BadServer, Reply, event, gzipped, pieces_of, stream_of
from PIL import Image

from weaver_core.errors import InputError, WeaverError
from weaver_core.plan import parse_markup
from weaver_core.planners import Planner, PlannerOptions, http_exchange
from weaver_core.planners.http import HttpPlanner, Timeouts, key_from_environment, server_address
from weaver_core.request import ReferenceImage, Request
from weaver_core.weave import PlanReady, write_plan

KEY = "weaver-test-key-1234567890"
REQUEST = Request(prompt="A fox's day.", num_images=2)


@pytest.fixture
def server():
    server = BadServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(http_exchange, "FIRST_PAUSE_S", 0.01)
    for name in ("WEAVER_API_KEY", "WEAVER_API_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def planner_of(server, **how) -> HttpPlanner:
    timeouts = Timeouts(connect_s=2, first_token_s=how.pop("first", 20), between_tokens_s=how.pop("between", 20))
    return HttpPlanner(server.url, "fox-7b", api_key=KEY, timeouts=timeouts, **how)


def write(planner, *, request=REQUEST, history=(), num_images=2, cancel=lambda: False, **options) -> str:
    options = PlannerOptions(num_images=num_images, seed=7, **options)
    return "".join(planner.write(request, history, options=options, cancel=cancel))


def expect_error(planner, **how) -> str:
    with pytest.raises(WeaverError) as caught:
        write(planner, **how)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown and caught.value.__cause__ is None
    return str(caught.value)


def test_it_is_a_planner_and_the_plan_streams(server):
    server.replies = [Reply(*(part for piece in pieces_of(PLAN, 40) for part in (event(piece), 0.05)), event(None, "stop"))]
    planner = planner_of(server)
    assert isinstance(planner, Planner)
    pieces = planner.write(REQUEST, (), options=PlannerOptions(num_images=2), cancel=lambda: False)
    assert next(pieces) and not server.hung_up.is_set()
    pieces.close()
    assert server.hung_up.wait(2), "the server was not told that nobody listens any more"


def test_the_loop_makes_a_plan_of_it(server):
    events = list(write_plan(REQUEST, planner_of(server)))
    plan = next(event.plan for event in events if isinstance(event, PlanReady))
    assert len(plan.images) == 2 and plan.cast[0].name == "Robin" and plan.title == "Robin's day"


PLANS = {
    "in one piece": Reply.plan(),
    "chunked": Reply(*(event(piece) for piece in pieces_of(PLAN)), b"data: [DONE]\n\n", chunked=True),
    "without [DONE]": Reply(stream_of(PLAN, done=False)),
    "without finish_reason": Reply(stream_of(PLAN, finish=None)),
    "with neither": Reply(stream_of(PLAN, finish=None, done=False)),
    "with CRLF": Reply(stream_of(PLAN).replace(b"\n", b"\r\n")),
    "with lone CR": Reply(stream_of(PLAN).replace(b"\n", b"\r")),
    "with comments": Reply(b": keep-alive\n\n",
                           b": ping\n\n".join(stream_of(PLAN).split(b"\n\n")[i] + b"\n\n" for i in range(len(pieces_of(PLAN)))),
                           event(None, "stop")),
    "without a space after data:": Reply(stream_of(PLAN).replace(b"data: ", b"data:")),
    "byte by byte": Reply(*(bytes([byte]) for byte in stream_of(PLAN)), chunked=True),
    "dripping": Reply(*(part for piece in pieces_of(PLAN, 60) for part in (0.03, event(piece))), event(None, "stop")),
    "gzipped": Reply(gzipped(stream_of(PLAN)), Content_Encoding="gzip"),
    "gzipped and chunked": Reply(*(gzipped(stream_of(PLAN))[i : i + 50] for i in range(0, len(gzipped(stream_of(PLAN))), 50)),
                                 chunked=True, Content_Encoding="gzip"),
    "events sent twice": Reply(*(2 * (f"id: {i}\n".encode() + event(piece)) for i, piece in enumerate(pieces_of(PLAN))),
                               2 * event(None, "stop"), 2 * b"data: [DONE]\n\n"),
    "not streamed": Reply(json.dumps({"choices": [{"message": {"content": PLAN}, "finish_reason": "stop"}]}, indent=1).encode(),
                          kind="application/json"),
    "content in parts": Reply(json.dumps({"choices": [{"message": {"content": [{"type": "text", "text": PLAN}]}}]}).encode(),
                              kind="application/json"),
    "with usage and empty chunks": Reply(event(None), event(""), b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n', stream_of(PLAN)),
    "no content type": Reply.plan(kind=""),
    "thinking in tags": Reply.plan("<think>\nA fox. <imagine>no</imagine>\n</think>\n\n" + PLAN),
    "thinking without the first tag": Reply.plan("Okay, the user wants a fox.\n# Draft\n</think>\n\n" + PLAN),
    "thinking in a field": Reply(b'data: {"choices": [{"delta": {"reasoning_content": "hm"}}]}\n\n', stream_of(PLAN)),
    "in a fence": Reply.plan(f"```markdown\n{PLAN}```\nThis story has two images."),
    "with a greeting and a farewell": Reply.plan(f"Sure! Here is your story:\n\n{PLAN}\nLet me know if you want changes!"),
    "with control tokens": Reply.plan(f"{PLAN}<|im_end|>"),
    "one image too many": Reply.plan(f"{PLAN}<imagine>A third one.</imagine>\nAnd so on."),
}  # fmt: skip


@pytest.mark.parametrize("reply", PLANS.values(), ids=PLANS)
def test_a_plan_comes_out(server, reply):
    server.replies = [reply]
    planner = planner_of(server)
    text = write(planner)
    assert text.strip() == PLAN.strip()
    assert len(server.asked) == 1
    assert bool(planner.notes) == (reply in (PLANS["one image too many"], PLANS["with neither"])), planner.notes


def test_bytes_that_are_no_text_cost_one_character(server):
    server.replies = [Reply(stream_of(PLAN).replace(b"peeks", b"pe\xffeks"))]
    plan, warnings = parse_markup(write(planner_of(server)))
    assert len(plan.images) == 2 and not warnings


RETRIES = {
    "429": Reply.error(429, "slow down", Retry_After="0"),
    "429 with a date": Reply.error(429, "slow down", Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "500": Reply.error(500, "oops"),
    "503 with a page": Reply(b"<html>busy</html>", status=503, kind="text/html"),
    "cut before the first token": Reply(b": wait\n\n", cut=True),
    "cut before the headers": Reply(status=0),
    "empty": Reply(b"data: [DONE]\n\n"),
    "nothing at all": Reply(b""),
    "an error in the stream": Reply(b'data: {"error": {"message": "overloaded", "code": 503}}\n\n'),
    "wrong JSON": Reply(b'data: {"choices": [{"del\n\n'),
    "JSON of another kind": Reply(b'data: [1, 2]\n\n'),
    "damaged gzip": Reply(gzipped(stream_of(PLAN))[:20] + b"xxxxxxxxxxxxxxxxxxxxxxxxxxx", Content_Encoding="gzip"),
}  # fmt: skip


@pytest.mark.parametrize("reply", RETRIES.values(), ids=RETRIES)
def test_what_fails_before_the_first_token_is_tried_again(server, reply):
    server.replies = [reply, reply, Reply.plan()]
    assert write(planner_of(server)).strip() == PLAN.strip()
    assert len(server.asked) == 3


@pytest.mark.parametrize("reply", RETRIES.values(), ids=RETRIES)
def test_what_fails_every_time_is_an_error(server, reply):
    server.replies = [reply]
    assert "(2 times)" in expect_error(planner_of(server, attempts=2))
    assert len(server.asked) == 2


HANGS = {
    "before the headers": Reply(5, status=0),
    "before the first token": Reply(event(None), 5),
    "with keep-alive comments only": Reply(*[b": ping\n\n", 0.05] * 100),
}  # fmt: skip


@pytest.mark.clock
@pytest.mark.parametrize("reply", HANGS.values(), ids=HANGS)
def test_a_server_that_hangs_is_not_waited_for_longer_than_said(server, reply):
    server.replies = [reply]
    begun = time.monotonic()
    assert "first token for 0.4 s" in expect_error(planner_of(server, attempts=1, first=0.4))
    assert time.monotonic() - begun < 3


@pytest.mark.clock
@pytest.mark.parametrize("reply", HANGS.values(), ids=HANGS)
def test_a_server_that_hangs_can_be_left_at_once(server, reply):
    server.replies = [reply]
    begun = time.monotonic()
    assert write(planner_of(server), cancel=lambda: time.monotonic() - begun > 0.3) == ""
    assert time.monotonic() - begun < 2


ERRORS = {
    "401 with the key in it": (Reply.error(401, f"Incorrect API key provided: {KEY}"), "does not accept the key.*WEAVER_API_KEY.*\\*\\*\\*"),
    "404": (Reply.error(404, "model 'fox-7b' not found"), "knows no model 'fox-7b'.*It has fox-7b, owl-3b"),
    "a redirect": (Reply(status=308, Location="https://elsewhere.example/v1"), "moved to https://elsewhere.example/v1"),
    "400": (Reply.error(400, "this model's maximum context length is 4096 tokens"), "maximum context length"),
    "no credit": (Reply.error(429, "You exceeded your quota", code="insufficient_quota"), "no credit left"),
    "a long wait": (Reply.error(429, "later", Retry_After="3600"), "asks to wait 3600 s"),
    "a page": (Reply(b"<!DOCTYPE html>\n<html><body>Log in</body></html>", kind="text/html"), "web page.*/v1"),
    "a refusal": (Reply.plan("I'm sorry, but I can't help with that."), 'refused: "I\'m sorry, but I can\'t help with that."'),
    "a refusal in a field": (Reply(b'data: {"choices": [{"delta": {"refusal": "I cannot."}}]}\n\n'), 'refused: "I cannot."'),
    "a filter": (Reply(event(None, "content_filter")), "content filter"),
    "thoughts alone": (Reply.plan("<think>hm, a fox"), "thought and wrote no plan within 4096 tokens; switch its thinking off"),
    "a huge line": (Reply(b"data: " + b"x" * (3 * 2**20)), "line has more than"),
}  # fmt: skip


@pytest.mark.parametrize(("reply", "message"), ERRORS.values(), ids=ERRORS)
def test_an_error_says_what_to_do(server, reply, message):
    import re

    server.replies = [reply]
    assert re.search(message, shown := expect_error(planner_of(server, attempts=1))), shown


THOUGHT = b'data: {"choices": [{"delta": {"reasoning_content": "hm"}}]}\n\n'
USED_UP = {
    "unseen": ((), "used all 90 tokens, perhaps for thinking that it does not show, and wrote no"),
    "in a field": ((THOUGHT,), "used all 90 tokens for thinking and wrote no"),
    "in a tag": ((event("<think>hm"),), "used all 90 tokens for thinking and wrote no"),
}


@pytest.mark.parametrize(("events", "said"), USED_UP.values(), ids=USED_UP)
def test_an_answer_that_the_limit_of_tokens_emptied_is_not_paid_for_twice(server, events, said):
    server.replies = [Reply(*events, event(None, "length"))]
    planner = planner_of(server)
    assert f"fox-7b {said} plan; switch its thinking off, or allow more tokens" in expect_error(planner, max_tokens=90)
    with pytest.raises(WeaverError, match=f"fox-7b {said} answer; switch its thinking off"):
        planner.answer("How many?", (), options=PlannerOptions(max_tokens=90), cancel=lambda: False)
    assert len(server.asked) == 2


def test_where_nobody_listens_the_error_says_how_to_start_a_server():
    planner = HttpPlanner("http://127.0.0.1:9/v1", "fox-7b")
    assert "ollama serve" in expect_error(planner)


# ---- the number of images


def test_missing_images_are_asked_for_once(server):
    one = PLAN.split("In the evening")[0]
    server.replies = [Reply.plan(one), Reply.plan("In the evening.\n<imagine id=\"p2\">The fox sleeps.</imagine>\n")]
    planner = planner_of(server)
    plan, warnings = parse_markup(write(planner))
    assert [image.id for image in plan.images] == ["p1", "p2"] and not warnings
    assert "1 of 2 images" in planner.notes[0]
    first, second = (asked["messages"] for asked in server.asked)
    assert second[: len(first)] == first and second[-2] == {"role": "assistant", "content": one.strip()}


def test_images_that_stay_missing_end_in_the_loop_s_warning(server):
    server.replies = [Reply.plan(PLAN.split("In the evening")[0]), Reply.plan("The end.")]
    events = list(write_plan(REQUEST, planner_of(server)))
    assert any("2 images were asked for, the plan has 1" in getattr(event, "message", "") for event in events)
    assert len(server.asked) == 2


def test_an_answer_that_reached_its_length_inside_of_an_image_is_closed_and_completed(server):
    cut = PLAN[: PLAN.index("sleeps")].replace("</imagine>\nIn the evening he is tired.", "</imagine>")
    server.replies = [Reply(stream_of(cut, finish="length"))]
    planner = planner_of(server)
    plan, warnings = parse_markup(write(planner))
    assert len(plan.images) == 2 and not warnings and planner.notes


def test_a_cut_in_the_middle_is_gone_on_from(server):
    half = stream_of(PLAN.split("In the evening")[0], finish=None, done=False)
    server.replies = [Reply(half, cut=True), Reply.plan("<imagine id=\"p2\">The fox sleeps.</imagine>")]
    plan, warnings = parse_markup(write(planner_of(server)))
    assert len(plan.images) == 2 and not warnings


def test_a_cut_behind_the_last_image_is_told(server):
    server.replies = [Reply(stream_of(PLAN.replace("Good night.", "Good"), finish=None, done=False), cut=True)]
    planner = planner_of(server)
    plan, _ = parse_markup(write(planner))
    assert len(plan.images) == 2 and len(server.asked) == 1
    assert planner.notes == ["the answer broke off after the last image; the end of the story may be missing"]


def test_a_cut_behind_the_images_that_were_asked_for_again_is_told(server):
    cut = stream_of("<imagine id=\"p2\">The fox sleeps.</imagine>\nGood", finish=None, done=False)
    server.replies = [Reply.plan(PLAN.split("In the evening")[0]), Reply(cut, cut=True)]
    planner = planner_of(server)
    assert len(parse_markup(write(planner))[0].images) == 2
    assert "broke off after the last image" in planner.notes[-1]


def test_a_server_that_is_cut_again_and_again_is_an_error(server):
    server.replies = [Reply(stream_of(PLAN.split("In the evening")[0], finish=None, done=False), cut=True), Reply(status=0)]
    assert "connection" in expect_error(planner_of(server, attempts=1))


def test_a_pause_between_tokens_is_not_waited_for_longer_than_said(server):
    server.replies = [Reply(event("# T\nOnce"), 5)]
    assert "another token for 0.3 s" in expect_error(planner_of(server, attempts=1, between=0.3), num_images=None)


# ---- what servers do not know


@pytest.mark.parametrize(("said", "name", "instead"), [
    ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens", "max_completion_tokens"),
    ("'temperature' does not support 0.7", "temperature", None),
    ("unknown field seed", "seed", None),
])  # fmt: skip
def test_a_parameter_that_the_server_does_not_take_is_left_out(server, said, name, instead):
    server.replies = [Reply.error(400, said), Reply.plan()]
    assert write(planner_of(server)).strip() == PLAN.strip()
    assert name in server.asked[0] and name not in server.asked[1]
    assert instead is None or instead in server.asked[1]


def test_a_model_that_cannot_see_gets_the_names_of_the_pictures(server):
    picture, _ = ReferenceImage.read(Image.new("RGB", (40, 30), "red"), "robin")
    server.replies = [Reply.error(500, "image input is not supported - hint: you may need to provide the mmproj"), Reply.plan()]
    planner = planner_of(server)
    write(planner, request=Request(prompt="A fox's day.", images=(picture,)))
    before, after = (asked["messages"][-1]["content"] for asked in server.asked)
    assert before[0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert isinstance(after, str) and "robin" in after and "cannot look at pictures" in planner.notes[0]


def test_a_template_without_a_system_role_gets_it_with_the_request(server):
    server.replies = [Reply.error(400, "System role not supported"), Reply.plan()]
    write(planner_of(server))
    assert server.asked[1]["messages"][0]["role"] == "user"
    assert server.asked[1]["messages"][0]["content"].startswith(server.asked[0]["messages"][0]["content"])


# ---- JSON


ANSWER = {"title": "Robin", "language": "en", "cast": [{"name": "Robin", "look": "a fox", "references": []}], "ending": "Good night.",
          "pages": [{"text": f"Page {i}.", "cast": ["Robin"], "aspect": "4:3", "image": f"A fox < {i}."} for i in (1, 2)]}


def test_a_plan_under_a_schema_becomes_markup(server):
    server.replies = [Reply.plan(json.dumps(ANSWER))]
    plan, warnings = parse_markup(write(planner_of(server, form="json")))
    assert not warnings and plan.title == "Robin" and [image.prompt for image in plan.images] == ["A fox < 1.", "A fox < 2."]
    schema = server.asked[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["pages"]["minItems"] == schema["properties"]["pages"]["maxItems"] == 2


@pytest.mark.parametrize("reply", [Reply.error(400, "response_format is not supported"), Reply.plan('{"title": "Rob'), Reply.plan("[]")],
                         ids=["refused", "torn", "another kind"])
def test_where_json_does_not_work_markup_is_asked_for(server, reply):
    server.replies = [reply, Reply.plan()]
    planner = planner_of(server, form="json")
    assert write(planner).strip() == PLAN.strip()
    assert "response_format" not in server.asked[1] and "asked for markup" in planner.notes[0]


# ---- the key


def test_the_key_goes_to_the_server_and_shows_nowhere(server, caplog):
    caplog.set_level(logging.DEBUG)
    server.replies = [Reply.error(400, f"bad request by {KEY} Bearer {KEY} with sk-abcdefghijklmnop")]
    planner = planner_of(server)
    message = expect_error(planner)
    assert server.keys[0] == f"Bearer {KEY}" and "sk-abc" not in message
    for shown in (message, repr(planner), repr(vars(planner)), str(planner.notes), caplog.text):
        assert KEY not in shown
    with pytest.raises(TypeError):
        pickle.dumps(planner)


def test_no_error_keeps_the_request_with_its_key(server):
    server.replies = [Reply(b": wait\n\n", cut=True)]
    try:
        write(planner_of(server, attempts=1))
    except WeaverError as error:
        seen, todo = set(), [error]
        while todo:
            one = todo.pop()
            seen.add(id(one))
            assert not hasattr(one, "request")
            todo += [e for e in (one.__cause__, one.__context__) if e is not None and id(e) not in seen]
    gc.collect()


def test_a_netrc_file_does_not_replace_the_key(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    write(planner_of(server))
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(("url", "environment", "key"), [
    ("http://localhost:11434/v1", {"OPENAI_API_KEY": "o"}, ""),
    ("https://api.openai.com/v1", {"OPENAI_API_KEY": "o"}, "o"),
    ("https://api.openai.com/v1", {"OPENAI_API_KEY": "o", "WEAVER_API_KEY": "w"}, "w"),
    ("https://mine.example/v1", {"OPENAI_API_KEY": "o", "OPENAI_BASE_URL": "https://mine.example/v1"}, "o"),
    ("https://mine.example/v1", {"WEAVER_API_KEY": "w"}, "w"),
    ("https://other.example/v1", {"WEAVER_API_KEY": "w", "WEAVER_API_URL": "https://mine.example/v1"}, ""),
])  # fmt: skip
def test_a_key_goes_only_where_it_belongs(url, environment, key):
    assert key_from_environment(url, environment) == key


def test_a_program_that_reads_addresses_from_strangers_files_can_bind_the_key():
    assert key_from_environment("https://stranger.example/v1", {"WEAVER_API_KEY": "w"}, bound=True) == ""


def test_a_key_for_https_does_not_travel_in_the_clear():
    hosted = {"WEAVER_API_KEY": "w", "WEAVER_API_URL": "https://models.example/v1", "OPENAI_API_KEY": "o"}
    assert key_from_environment("https://models.example/v1", hosted, bound=True) == "w"
    assert key_from_environment("http://models.example/v1", hosted, bound=True) == ""
    assert key_from_environment("http://api.openai.com/v1", hosted, bound=True) == ""
    assert key_from_environment("https://api.openai.com/v1", hosted, bound=True) == "o"


@pytest.mark.parametrize(("given", "address"), [
    ("http://localhost:11434", "http://localhost:11434/v1"),
    ("localhost:1234/v1/", "http://localhost:1234/v1"),
    ("https://x.example/api/v3/chat/completions", "https://x.example/api/v3"),
])  # fmt: skip
def test_addresses_are_taken_as_people_write_them(given, address):
    assert server_address(given) == address


@pytest.mark.parametrize("given", ["", "ftp://x/v1", "http://", "http://u:secret@x/v1", "http://x/v1?key=secret", "http://x:port/v1"])
def test_what_is_no_address_is_refused_without_being_repeated_where_it_may_hold_a_key(given):
    with pytest.raises(InputError) as caught:
        server_address(given)
    assert "secret" not in str(caught.value)


# ---- the closed loop


def test_history_goes_along_as_turns_with_pictures(server):
    server.replies = [Reply.plan("At night.\n<imagine>The fox sleeps.</imagine>")]
    history = ("# T\nOne.\n<imagine>A fox.</imagine><BOI>", Image.new("RGB", (32, 32), "red"))
    write(planner_of(server), history=history, num_images=1)
    *_, request, told, picture = server.asked[0]["messages"]
    assert "exactly 2" in request["content"]
    assert told == {"role": "assistant", "content": "# T\nOne.\n<imagine>A fox.</imagine>"}
    assert picture["content"][0]["type"] == "image_url" and "still to come: 1" in picture["content"][1]["text"]


def test_a_story_that_has_ended_may_have_nothing_to_add(server):
    server.replies = [Reply(event(None, "stop"))]
    assert write(planner_of(server), history=("# T\n<imagine>A fox.</imagine>",), num_images=0) == ""
    assert len(server.asked) == 1
