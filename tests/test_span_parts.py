"""Parts of the spans of an attempt, each on a small case: calls, scores, times, tokens, answers."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

from firsthand.message import Message, Reasoning, Text, ToolCall, assistant, system, user
from firsthand.model import Usage
from firsthand.system.trace_context import TraceParent
from firsthand.telemetry import genai
from firsthand.telemetry.trace_spans import (
    Span,
    SpanEvent,
    _call,
    _evaluations,
    _generation,
    _id_of,
    _ns,
    _number,
    _plain,
    _tool,
    _when_ns,
    parent_of,
    spans_of,
)
from firsthand.trace import Call, Event, Failure, Node, Score, Trace


def attempt(**changes: Any) -> Trace:
    twice = (ToolCall("c1", "sum", {"a": 1}), ToolCall("c2", "sum", {"a": 2}), ToolCall("c3", "sum", {"a": 2}))
    nodes = (
        Node(None, system("Be brief")), Node(0, user("What?")), Node(1, Message("assistant", (Text("so"), *twice))),
        Node(1, assistant("Or so")),
    )  # fmt: skip
    when = changes.pop("started_at", "")
    return Trace("t1", "b", "k", {"name": "ada", "model": "m1"}, 2, 5, when, 8.0, nodes=nodes, place="p1", **changes)


# -- spans --


def test_each_kind_of_call_is_a_span_of_its_own() -> None:
    trace, root = attempt(), parent_of("p1", "run")

    def span(kind: Any, agent: Any = None, content: bool = False, **more: Any) -> Span:
        call = Call("0:4", kind, 1, 2.5, 0.25, "r", **{"usage": Usage(3, 1, 2), **more})
        return _call(trace if agent is None else replace(trace, agent=agent), "run", call, 10**10, content)

    place, begin, end = parent_of("p1", "run", "0:4"), 12_500_000_000, 12_750_000_000
    tokens = {
        "gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 2, "gen_ai.usage.cache_read.input_tokens": 1,
    }  # fmt: skip
    own = {"firsthand.effect": "0:4", "firsthand.replayed": False}

    def made(
        name: str, kind: Any, operation: str, *, model: str | None = "m1", error: str | None = None, **more: Any
    ) -> Span:
        said = {"gen_ai.operation.name": operation, "gen_ai.provider.name": "firsthand"}
        said |= {} if model is None else {"gen_ai.request.model": model}
        attributes = {**said, **{key.replace("__", "."): value for key, value in more.items()}, **own}
        return Span(name, root.trace_id, place.span_id, root.span_id, begin, end, kind, attributes, (), error)

    used = {key.replace(".", "__"): value for key, value in tokens.items()}
    assert span("score") == made("score m1", "client", "score", **used)
    assert span("guard") == made("guard m1", "client", "guard", **used)
    judge = made("guard judge", "client", "guard", model="judge", **used)
    assert span("guard", detail={"model": "judge"}) == judge
    assert span("generate") == made("chat m1", "client", "chat", **used)
    local = {"name": "ada", "model": "m2", "fingerprint": "local:x"}
    assert span("generate", local) == made("chat m2", "internal", "chat", model="m2", **used)
    assert span("score", {"name": "ada", "fingerprint": "xlocal:"}).kind == "client"
    tool = {"gen_ai__tool__name": "f", "gen_ai__tool__type": "function"}
    failed = made("execute_tool f", "internal", "execute_tool", model=None, error="", **tool, error__type="tool_error")
    assert span("tool", detail={"name": "f"}, error="it broke") == failed
    assert span("tool", content=True, detail={"name": "f"}, error="it broke").error == "it broke"
    assert span("score", error="late").attributes["error.type"] == "_OTHER"
    memory = span("memory", detail={"operation": "search"}, replayed=True)
    assert memory == Span(
        "memory search", root.trace_id, place.span_id, root.span_id, begin, end, "internal",
        {"gen_ai.operation.name": "memory_search", **own, "firsthand.replayed": True},
    )  # fmt: skip


def test_a_generation_tells_what_it_asked_and_what_came_back() -> None:
    trace = attempt()
    base = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "firsthand", "gen_ai.request.model": "m1"}
    base |= genai.usage(Usage(3, 1, 2))
    call = Call("0:0", "generate", 1, 0.0, 0.0, "r", usage=Usage(3, 1, 2), nodes=(2, 3))
    assert _generation(trace, call, "m1", False) == ("chat m1", base)
    detail = {"finish_reasons": ["tool_calls", "stop"], "sampling": {"max_tokens": 9}}
    several = Call("0:0", "generate", 1, 0.0, 0.0, "r", usage=Usage(3, 1, 2), nodes=(2, 3), detail=detail)
    told = {
        **base, "gen_ai.request.max_tokens": 9, "gen_ai.request.choice.count": 2, "gen_ai.response.model": "m1",
        "gen_ai.response.finish_reasons": ["tool_calls", "stop"],
    }  # fmt: skip
    assert _generation(trace, several, "m1", False) == ("chat m1", told)
    name, shown = _generation(trace, several, "m1", True)
    asked = json.loads(str(shown.pop("gen_ai.input.messages")))
    answered = json.loads(str(shown.pop("gen_ai.output.messages")))
    assert (name, shown) == ("chat m1", told)
    assert [(each["role"], each["parts"][0]["content"]) for each in asked] == [
        ("system", "Be brief"),
        ("user", "What?"),
    ]
    assert [(each["parts"][0]["content"], each["finish_reason"]) for each in answered] == [
        ("so", "tool_call"), ("Or so", "stop"),
    ]  # fmt: skip
    plain = Call("0:0", "generate", None, 0.0, 0.0, "r", nodes=(3,), detail={"prompt": "Once", "sampling": {"seed": 4}})
    name, shown = _generation(trace, plain, "m1", True)
    assert (name, shown["gen_ai.operation.name"], shown["gen_ai.request.seed"]) == (
        "text_completion m1",
        "text_completion",
        4,
    )
    assert json.loads(str(shown["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "Once"}]}
    ]
    blank = Call("0:0", "generate", 1, 0.0, 0.0, "r", detail={"prompt": ""})
    name, told = _generation(trace, blank, "m1", True)
    assert name == "text_completion m1" and json.loads(str(told["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": ""}]}
    ], "an empty prompt is a prompt, and not the conversation"
    assert shown["gen_ai.output.messages"] == "[]" and "gen_ai.response.model" not in shown
    assert "gen_ai.request.choice.count" not in shown


def test_what_a_file_says_in_numbers_is_told_in_the_type_of_the_conventions() -> None:
    odd = replace(
        attempt(scores=(Score("exact", 1), Score("right", True))), agent={"name": "ada", "model": 7, "fingerprint": 5}
    )
    calls = (
        Call("0:0", "generate", 1, 0.0, 0.0, "r", nodes=(2, 9),
             detail={"prompt": 12, "finish_reasons": [None, 2], "sampling": "odd"}),
        Call("0:1", "guard", 1, 0.0, 0.0, "r", detail={"model": 3}),
        Call("0:2", "memory", 1, 0.0, 0.0, "r", detail={"operation": 4}),
        Call("0:3", "tool", 1, 0.0, 0.0, "r", detail={"name": 9}), Call("0:4", "score", 1, 0.0, 0.0, "r"),
    )  # fmt: skip
    agent, *spans = spans_of(replace(odd, calls=calls), content=True)
    assert [each.name for each in spans] == ["text_completion 7", "guard 3", "memory 4", "execute_tool 9", "score 7"]
    assert {each.kind for each in spans if each.name[:4] not in ("memo", "exec")} == {"client"}
    models = [each.attributes.get("gen_ai.request.model") for each in (agent, *spans)]
    assert repr(models) == repr(["7", "7", "3", None, None, "7"])
    assert repr(spans[0].attributes["gen_ai.response.finish_reasons"]) == repr(["None", "2"])
    assert json.loads(str(spans[0].attributes["gen_ai.input.messages"]))[0]["parts"] == [
        {"type": "text", "content": "12"}
    ]
    assert [each["finish_reason"] for each in json.loads(str(spans[0].attributes["gen_ai.output.messages"]))] == [
        "None"
    ]
    assert "gen_ai.request.choice.count" not in spans[0].attributes, "settings that are no object are not told"
    values = [event.attributes["gen_ai.evaluation.score.value"] for event in agent.events]
    assert repr(values) == "[1.0, 1.0]"


def test_a_tool_call_has_the_id_of_the_first_like_it_in_the_message_it_was_made_from() -> None:
    trace = attempt()

    def call(at: int | None, **detail: Any) -> Call:
        return Call("0:1", "tool", at, 0.0, 0.0, "r", detail=detail)

    assert _id_of(trace, call(2, name="sum", arguments={"a": 2})) == "c2"
    assert _id_of(trace, call(2, name="sum", arguments={"a": 1})) == "c1"
    for at, name, arguments in (
        (3, "sum", {"a": 2}), (2, "sub", {"a": 2}), (2, "sum", {"a": 3}), (None, "sum", {"a": 2}), (-2, "sum", {"a": 2}),
        (4, "sum", {"a": 2}),
    ):  # fmt: skip
        assert _id_of(trace, call(at, name=name, arguments=arguments)) is None
    base = {"gen_ai.operation.name": "execute_tool", "gen_ai.provider.name": "firsthand", "gen_ai.tool.name": "sum"}
    base |= {"gen_ai.tool.type": "function", "gen_ai.tool.call.id": "c1"}
    given = call(2, name="sum", arguments={"a": 1}, result="é")
    assert _tool(trace, given, False) == ("execute_tool sum", base)
    content = {"gen_ai.tool.call.arguments": '{"a": 1}', "gen_ai.tool.call.result": '"é"'}
    assert _tool(trace, given, True) == ("execute_tool sum", base | content)


def test_scores_events_and_times_are_told_in_otlp_s_units() -> None:
    scores = (Score("exact", 1), Score("\ud800", 0.25), Score("judge", 0.5, failure="gone"))
    assert _evaluations(attempt(scores=scores), 77) == [
        SpanEvent("gen_ai.evaluation.result", 77, {"gen_ai.evaluation.name": name, **more})
        for name, more in (
            ("exact", {"gen_ai.evaluation.score.value": 1.0}), ("?", {"gen_ai.evaluation.score.value": 0.25}),
            ("judge", {"error.type": "scorer_failed"}),
        )
    ]  # fmt: skip
    assert _plain(Event("e", 0.0, {"a": 1, "b": "x", "c": 0.5, "d": False, "e": None, "f": [1], "a b": 1})) == {
        "firsthand.a": 1, "firsthand.c": 0.5, "firsthand.d": False,
    }  # fmt: skip
    for text, ns in (
        ("1970-01-01T00:00:01.5+00:00", 1_500_000_000), ("1970-01-01T01:00:00+01:00", 0), ("1969-12-31T23:00:00+00:00", 0),
        ("1970-01-01T00:00:02Z", 2_000_000_000), ("", 0), ("soon", 0), ("2065-01-24T05:20:01+00:00", 3 * 10**18),
    ):  # fmt: skip
        assert _when_ns(text) == ns, text
    assert [_ns(each) for each in (0.25, -1.0, float("nan"), float("inf"), 3e9, 3e9 + 1)] == [
        250_000_000, 0, 0, 3 * 10**18, 3 * 10**18, 3 * 10**18,
    ]  # fmt: skip
    digest = hashlib.sha256(b"firsthand\x1fr\x1f\xc3\xa9\xed\xa0\x80").digest()
    assert _number(8, "r", "é\ud800") == int.from_bytes(digest[:8], "big")
    assert _number(16, "r", "é\ud800") == int.from_bytes(digest[:16], "big") and _number(0, "r") == 1
    assert parent_of("p", "r", "0:1") == TraceParent(_number(16, "r", "p"), _number(8, "r", "p", "0:1"))
    assert parent_of("p", "r") == TraceParent(_number(16, "r", "p"), _number(8, "r", "p", ""))


def test_tokens_and_answers_are_told_under_the_names_of_the_conventions() -> None:
    tokens = {
        "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 4, "gen_ai.usage.cache_read.input_tokens": 3,
    }  # fmt: skip
    assert genai.usage(Usage(10, 3, 4)) == tokens
    written = {"gen_ai.usage.cache_creation.input_tokens": 2}
    assert genai.usage(Usage(10, 3, 4, 0.0, 2)) == tokens | written
    assert genai.usage(Usage(10, 3, 4, 0.5, 2)) == tokens | written | {"firsthand.usage.cost_usd": 0.5}
    for cost in (0.5, 0.00012345, 12.3456789):
        assert genai.usage(Usage(10, 3, 4, cost)) == tokens | {"firsthand.usage.cost_usd": cost}
    limits = {"seed": -(2**63), "max_tokens": 2**63, "top_k": -1, "temperature": -1e300, "top_p": 0.0}
    assert genai.request(limits) == {"gen_ai.request.top_k": -1, "gen_ai.request.top_p": 0.0}
    whole = {"max_tokens": 9.0, "temperature": 1, "top_p": 2, "top_k": 3.0, "frequency_penalty": 4, "presence_penalty": -5,
             "seed": 6.0}  # fmt: skip
    typed = [("max_tokens", 9), ("temperature", 1.0), ("top_p", 2.0), ("top_k", 3), ("frequency_penalty", 4.0),
             ("presence_penalty", -5.0), ("seed", 6)]  # fmt: skip
    told = {f"gen_ai.request.{name}": value for name, value in typed}
    assert repr(genai.request(whole)) == repr(told), "whole numbers and decimals as the conventions have them"
    for number in (2**63 - 1, 1 - 2**63):
        assert genai.request({"seed": number}) == {"gen_ai.request.seed": number}
    assert (
        genai.request({"seed": math.nan, "top_p": math.inf, "temperature": False, "grammar": None, "stop": None}) == {}
    )
    thought = Message("assistant", (Reasoning("hm", {}), Text("é")))
    found = genai.answers([(thought, "tool_calls"), (assistant("b"), "length")])
    assert list(found) == ["gen_ai.output.messages"] and "é" in str(found["gen_ai.output.messages"])
    assert json.loads(str(found["gen_ai.output.messages"])) == [
        {"role": "assistant", "finish_reason": "tool_call",
         "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "é"}]},
        {"role": "assistant", "finish_reason": "length", "parts": [{"type": "text", "content": "b"}]},
    ]  # fmt: skip


def test_an_attempt_without_calls_is_one_span_that_ends_with_its_scores() -> None:
    trace = attempt(answer="4", started_at="1970-01-01T00:00:10+00:00", scores=(Score("s", 0.5),), stop_reason="done")
    (agent,) = spans_of(trace)
    assert (agent.name, agent.parent_id, agent.start_ns, agent.end_ns) == ("invoke_agent ada", None, 10**10, 18 * 10**9)
    assert (agent.trace_id, agent.span_id) == (_number(16, "", "p1"), _number(8, "", "p1", "")) and agent.error is None
    assert [(event.name, event.at_ns) for event in agent.events] == [("gen_ai.evaluation.result", 18 * 10**9)]
    assert {key: value for key, value in agent.attributes.items() if key.startswith("firsthand.")} == {
        "firsthand.benchmark": "b", "firsthand.task": "k", "firsthand.epoch": 2, "firsthand.seed": 5,
        "firsthand.stop_reason": "done",
    }  # fmt: skip
    (full,) = spans_of(trace, "r", content=True)
    assert full.attributes["firsthand.run"] == "r" and full.attributes["gen_ai.input.messages"] == "[]"
    assert json.loads(str(full.attributes["gen_ai.output.messages"])) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "4"}], "finish_reason": "stop"}
    ]


def test_the_words_of_a_protected_task_stand_in_no_span() -> None:
    words = "what is the one answer to it all"
    calls = (
        Call("0:0", "tool", 2, 0.0, 0.0, "r", detail={"name": "sum", "arguments": {"a": 1}, "result": words}, error=words),
        Call("0:1", "tool", 2, 0.0, 0.0, "r", detail={"name": words}),
        Call("0:2", "memory", 2, 0.0, 0.0, "r", detail={"operation": words}),
        Call("0:3", "guard", 2, 0.0, 0.0, "r", detail={"model": words}),
        Call("0:4", "generate", 2, 0.0, 0.0, "r", nodes=(2,),
             detail={"finish_reasons": ["stop", words], "sampling": {"stop": [words, "#"], "seed": 4}, "prompt": words}),
    )  # fmt: skip
    shown = attempt(calls=calls, error=Failure("ModelError", "What?"), answer=words)
    kept = replace(
        shown, events=(Event("protected", 0.0, {"why": "a test set"}), Event("x", 1.0, {"n": 3, "t": words}))
    )
    held = "[withheld: 32 characters]"
    for content in (False, True):
        found = spans_of(kept, "r", content=content)
        assert words not in repr(found) and "What?" not in repr(found)
        assert [span.name for span in found] == [
            "invoke_agent ada", "execute_tool sum", f"execute_tool {held}", f"memory {held}", f"guard {held}",
            "text_completion m1",
        ]  # fmt: skip
        assert found == spans_of(kept, "r")
        assert "gen_ai.tool.call.id" not in found[1].attributes and found[1].error == "" == found[0].error
        assert found[1].attributes["error.type"] == "tool_error" and found[0].attributes["error.type"] == "ModelError"
        asked = found[5].attributes
        assert asked["gen_ai.response.finish_reasons"] == ["[withheld: 4 characters]", held]
        assert (
            asked["gen_ai.request.stop_sequences"] == [held, "[withheld: 1 characters]"]
            and asked["gen_ai.request.seed"] == 4
        )
        assert [(event.name, event.attributes) for event in found[0].events] == [
            ("protected", {}), ("x", {"firsthand.n": 3}),
        ]  # fmt: skip
    full = spans_of(shown, "r", content=True)
    assert full[1].attributes["gen_ai.tool.call.id"] == "c1" and full[1].error == words and full[0].error == "What?"
    assert full[2].name == f"execute_tool {words}" and words in repr(full[0].attributes["gen_ai.output.messages"])


def test_an_empty_result_or_argument_of_a_tool_is_told_and_a_missing_one_is_not() -> None:
    trace = attempt()

    def content(**detail: Any) -> dict[str, Any]:
        call = Call("0:1", "tool", 2, 0.0, 0.0, "r", detail={"name": "f", **detail})
        told, plain = _tool(trace, call, True)[1], _tool(trace, call, False)[1]
        assert not {"gen_ai.tool.call.arguments", "gen_ai.tool.call.result"} & plain.keys()
        return {key.removeprefix("gen_ai.tool.call."): value for key, value in told.items() if key not in plain}

    for value, text in (("", '""'), (0, "0"), (False, "false"), ([], "[]"), ({}, "{}"), ("a\n", '"a\\n"')):
        assert content(result=value) == {"result": text} and content(arguments=value) == {"arguments": text}
        assert content(arguments=value, result=value) == {"arguments": text, "result": text}
    assert content() == {} == content(arguments=None, result=None)
    spans = spans_of(
        attempt(calls=(Call("0:0", "tool", 2, 0.0, 0.0, "r", detail={"name": "f", "result": ""}),)), content=True
    )
    assert spans[1].attributes["gen_ai.tool.call.result"] == '""'
