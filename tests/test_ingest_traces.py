"""Spans of a trace as a record, as a tree, as a row of a list and as a task, each as a whole value; and what is stored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import otlp_requests as otlp
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.ingest.as_trace import question_of, trace_of
from firsthand.ingest.dialects.span_facts import SpanFacts
from firsthand.ingest.incoming_span import MOST_NS, IncomingSpan, SpanKind, StoredSpan
from firsthand.ingest.otlp_json import decode_json
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.span_tree import AGAIN, BACKWARDS, LOOP, NO_PARENT, UNFINISHED, arranged
from firsthand.ingest.task_rows import task_row, write_tasks
from firsthand.ingest.trace_evaluation import BACK_S, Evaluation, is_sampled, score_name
from firsthand.ingest.trace_store import MAX_COPIES, PACKED_BYTES, ReadySpan, SpanPreparer, TraceStore, unpacked
from firsthand.ingest.trace_summary import TraceSummary
from firsthand.message import Message, Text, ToolCall, ToolResult
from firsthand.model import Usage
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Trace

SECOND, START = otlp.SECOND, otlp.START
TRACE = "a" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    yield made
    made.close()


def stored(
    number: int, what: SpanKind, parent: int = 0, begins_s: float = 0, took_s: float = 1, *, error: str | None = None,
    usage: Usage | None = None, model: str = "", label: str = "", service: str = "", name: str = "", **attributes: Any,
) -> StoredSpan:  # fmt: skip
    begun = START + int(begins_s * SECOND)
    span = IncomingSpan(
        TRACE, f"{number:016x}", f"{parent:016x}" if parent else "", name or f"n{number}", begun,
        begun + int(took_s * SECOND),
        {key.replace("__", "."): value for key, value in attributes.items()},
        resource={"service.name": service} if service else {}, error=error,
    )  # fmt: skip
    return StoredSpan(100 - number, span, what, label, model, usage or Usage())


def messages(*given: Any) -> str:
    return json.dumps([{"role": role, "content": content} for role, content in given])


BEFORE = [("system", "be"), ("user", "hello"), ("assistant", "hi"), ("user", "why?")]
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "c", "function": {"name": "calc", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c", "name": "calc", "content": "2"}
G = {"gen_ai__operation__name": "chat"}


@pytest.mark.parametrize(
    ("reasons", "kept"),
    [
        (["stop", "length", "stop"], ["stop", "length"]),
        (["length"], ["length", "length"]),
        (["stop", "max-tokens"], ["stop", "length"]),
        (["tool_calls", "Refusal"], ["tool_calls", "content_filter"]),
        (["unheard of", "stop", "stop"], ["stop", "stop"]),
        ([], None),
        ({"a": 1}, None),
    ],
)
def test_why_each_answer_of_a_generation_ended_is_kept(reasons: Any, kept: list[str] | None) -> None:
    said = messages(("assistant", "42"), ("assistant", "4"))
    span = stored(1, "generate", gen_ai__response__finish_reasons=reasons, gen_ai__output__messages=said, **G)
    (call,) = trace_of(TRACE, [span]).calls
    assert (len(call.nodes), call.detail.get("finish_reasons")) == (2, kept)


@pytest.mark.parametrize(
    ("answers", "kept"), [("42 4 42", ["length", "tool_calls"]), ("1 2 3", ["length", "tool_calls", "stop"])]
)
def test_equal_answers_have_one_reason_and_one_without_a_reason_is_whole(answers: str, kept: list[str]) -> None:
    said = messages(*(("assistant", each) for each in answers.split()))
    reasons = ["length", "tool_calls"]
    span = stored(1, "generate", gen_ai__response__finish_reasons=reasons, gen_ai__output__messages=said, **G)
    (call,) = trace_of(TRACE, [span]).calls
    assert (len(call.nodes), call.detail["finish_reasons"]) == (len(kept), kept)


def whole() -> list[StoredSpan]:
    """A question that is answered with a tool, as spans in the order of their arrival: the root comes last."""
    asked, again = messages(*BEFORE), json.dumps([*json.loads(messages(*BEFORE)), CALL, RESULT])
    return [
        stored(4, "generate", 1, 4, 2, error="cut", usage=Usage(9, 0, 2, 0.25), model="m2",
               gen_ai__input__messages=again,
               gen_ai__output__messages=messages(("assistant", "42"), ("assistant", "42")), **G),
        stored(2, "generate", 1, 1, 2, usage=Usage(5, 1, 7, 0.5), model="m1",
               gen_ai__input__messages=asked, gen_ai__output__messages=json.dumps([CALL]), **G),
        stored(3, "tool", 1, 3, 0.5, label="calc", gen_ai__tool__call__arguments='{"x": 1}',
               gen_ai__tool__call__result="2", **G),
        stored(7, "generate", 2, 1.5, 1, model="m1", gen_ai__input__messages=asked, **G),
        stored(5, "retrieve", 1, 6, 1, name="find", error="gone", openinference__span__kind="RETRIEVER", input__value="q",
               output__value="docs"),
        stored(6, "guard", 1, 7, 1, error=""),
        stored(1, "chain", 0, 0, 10, service="shop", openinference__span__kind="CHAIN", input__value="why?",
               output__value="42", session__id="s1"),
    ]  # fmt: skip


def test_a_trace_is_the_conversation_of_its_generations_and_the_calls_between() -> None:
    def said(role: Any, *parts: Any) -> Message:
        return Message(role, parts)

    nodes = (
        Node(None, said("system", Text("be"))), Node(0, said("user", Text("hello"))),
        Node(1, said("assistant", Text("hi"))), Node(2, said("user", Text("why?"))),
        Node(3, said("assistant", ToolCall("c", "calc", {}))), Node(4, said("tool", ToolResult("c", "calc", "2"))),
        Node(5, said("assistant", Text("42"))),
    )  # fmt: skip
    none = "0" * 64

    def detail(number: int, **more: Any) -> Any:
        return {"name": f"n{number}", "span": f"{number:016x}", **more}

    tool = {"name": "calc", "arguments": {"x": 1}, "result": "2", "is_error": False, "span": f"{3:016x}"}
    found = {"name": "find", "arguments": "q", "result": "docs", "is_error": True, "span": f"{5:016x}"}
    assert trace_of(TRACE, whole()) == Trace(
        id=TRACE, benchmark="traces", task_id=TRACE, agent={"name": "shop", "model": "m1"}, epoch=0, seed=0,
        started_at="2026-11-18T11:06:40+00:00", duration_s=10.0, nodes=nodes,
        calls=(
            Call(":0", "generate", 3, 1.0, 2.0, none, Usage(5, 1, 7, 0.5), (4,), detail(2, model="m1")),
            Call(":1", "tool", 4, 3.0, 0.5, none, Usage(), (), tool),
            Call(":2", "generate", 5, 4.0, 2.0, none, Usage(9, 0, 2, 0.25), (6,), detail(4, model="m2"), error="cut"),
            Call(":3", "tool", 6, 6.0, 1.0, none, Usage(), (), found, error="gone"),
        ),
        events=(
            Event("chain", 0.0, detail(1, took_s=10.0)), Event("generate", 1.5, detail(7, took_s=1.0)),
            Event("error", 7.0, detail(6, took_s=1.0)),
        ),
        answer="42",
    )  # fmt: skip
    assert question_of(whole()) == "why?"
    row = {
        "id": TRACE, "question": "why?", "answer": "42", "system": "be", "history": "user: hello\nassistant: hi",
        "cluster": "s1", "name": "n1", "error": "", "conversation": [
            {"role": "system", "content": "be"}, {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
        ],
    }  # fmt: skip
    assert task_row(TRACE, whole()) == row
    without = [replace_span(each, attributes={}, error="down") for each in whole()[-1:]] + whole()[:-1]
    failed = trace_of(TRACE, without)
    assert (failed.stop_reason, failed.error, failed.answer) == ("error", Failure("span", "down"), "42")
    assert task_row(TRACE, without) == row | {"cluster": TRACE, "error": "down"}, "its generations say what was asked"


def replace_span(each: StoredSpan, **changes: Any) -> StoredSpan:
    return each._replace(span=replace(each.span, **changes))


def test_a_trace_of_odd_spans_is_read_as_far_as_it_goes() -> None:
    empty = trace_of("x", [])
    assert (empty.started_at, empty.duration_s, empty.nodes, empty.answer) == ("1970-01-01T00:00:00+00:00", 0, (), None)
    assert empty.agent == {"name": "unknown", "model": ""} and question_of([]) == ""
    bare = stored(1, "chain", openinference__span__kind="CHAIN", input__value="q", output__value="a")
    assert [(each.parent, each.message.role, each.message.text) for each in trace_of("x", [bare]).nodes] == [
        (None, "user", "q"), (0, "assistant", "a"),
    ]  # fmt: skip
    asks = stored(1, "chain", openinference__span__kind="CHAIN", input__value="q")
    assert [each.message.text for each in trace_of("x", [asks]).nodes] == ["q"] and trace_of("x", [asks]).answer is None
    # clocks: one span has no start, one ends before it begins, one lies before all in the year 2600
    first, second = stored(2, "span", 0, 5, -2), stored(3, "span", 0, 6, 3)
    none = replace_span(stored(4, "span"), start_ns=0, end_ns=0)
    made = trace_of("x", [second, first, none])
    assert [(each.data["span"][-1], each.at_s, each.data["took_s"]) for each in made.events] == [
        ("4", 0, 0), ("2", 0.0, 0), ("3", 1.0, 3.0),
    ]  # fmt: skip
    assert made.duration_s == 4.0
    late = trace_of("x", [replace_span(first, start_ns=(1 << 64) - 1, end_ns=(1 << 64) - 1)])
    assert late.started_at.startswith(("2554-", "1970-")) and late.duration_s == 0
    broken = replace_span(stored(1, "generate", **G), events=[{"name": "gen_ai.choice", "attributes": 5}])
    assert trace_of("x", [broken]).calls[0].nodes == ()


def test_of_two_records_of_one_generation_the_one_with_tokens_stays() -> None:
    def kept(*spans: StoredSpan) -> list[str]:
        return sorted(call.detail["span"][-1] for call in trace_of("x", spans).calls)

    def chain(above: Usage, below: Usage, between: int = 1) -> list[StoredSpan]:
        links = [stored(n, "chain", n - 1) for n in range(2, 2 + between)]
        return [stored(1, "generate", usage=above), *links, stored(2 + between, "generate", 1 + between, usage=below)]

    some = Usage(1, 0, 1)
    assert kept(*chain(some, some)) == ["1"] == kept(*chain(Usage(), Usage())) == kept(*chain(some, Usage()))
    assert kept(*chain(Usage(), some)) == ["3"]
    assert kept(*chain(some, some, between=7)) == ["1"] and kept(*chain(some, some, between=8)) == ["1", "a"]
    loop = [stored(1, "generate", 2), stored(2, "chain", 1)]
    assert kept(*loop) == ["1"]
    assert kept(stored(1, "generate"), stored(2, "tool", 1), stored(3, "generate", 2)) == ["1", "2"]
    assert kept(stored(1, "generate"), stored(2, "tool", 1, usage=some)) == ["1", "2"], "a tool is no generation"


def test_question_and_answer_are_those_of_the_root_or_else_of_its_generations() -> None:
    def said(*spans: StoredSpan) -> tuple[str, str | None]:
        return question_of(spans), trace_of("x", spans).answer

    tool = stored(1, "tool", gen_ai__tool__call__arguments='{"x": 1}', gen_ai__tool__call__result='{"y": 2}', **G)
    assert said(tool) == ('{"x": 1}', '{"y": 2}')
    asked = messages(("user", "first"), ("user", "why?"), ("user", " "))
    root = stored(1, "agent")
    one = stored(
        2, "generate", 1, 1, gen_ai__input__messages=asked, gen_ai__output__messages=messages(("assistant", "a")), **G
    )
    later = messages(("assistant", "b"), ("assistant", "c"), ("assistant", " "))
    two = stored(3, "generate", 1, 2, gen_ai__input__messages='["later"]', gen_ai__output__messages=later, **G)
    silent = stored(4, "generate", 1, 3, **G)
    assert said(silent, two, one, root) == ("why?", "c") and said(one, root) == ("why?", "a")
    system = stored(2, "generate", 1, 1, gen_ai__input__messages=messages(("system", "be"), ("assistant", "hi")), **G)
    assert said(root, system) == ("hi", None), "without a user's words the last that were said"


def test_spans_are_arranged_below_their_parents_with_remarks() -> None:
    def placed(*spans: StoredSpan) -> list[Any]:
        return [
            (each.stored.span.span_id[-1], each.number, each.depth, each.parent, each.remarks)
            for each in arranged(spans)
        ]

    early, late = stored(3, "span", 1, 2), stored(4, "span", 1, 5)
    tie = stored(5, "span", 1, 5, -1)
    assert placed(late, tie, stored(1, "span", 0, 1), early, stored(6, "span", 3, 9)) == [
        ("1", 2, 0, -1, ()), ("3", 3, 1, 0, ()), ("6", 4, 2, 1, ()), ("4", 0, 1, 0, ()), ("5", 1, 1, 0, (BACKWARDS,)),
    ]  # fmt: skip
    unfinished = replace_span(stored(2, "span", 9, 1), end_ns=0)
    copied = stored(2, "span", 9, 3)._replace(copy=1)
    below = stored(7, "span", 2, 4)
    assert placed(copied, below, unfinished) == [
        ("2", 2, 0, -1, (NO_PARENT, UNFINISHED)), ("2", 0, 0, -1, (NO_PARENT, AGAIN)), ("7", 1, 1, 1, ()),
    ]  # fmt: skip
    ring = [stored(1, "span", 3, 3), stored(2, "span", 1, 2), stored(3, "span", 2, 4), stored(4, "span", 1, 1)]
    assert placed(*ring) == [
        ("2", 1, 0, -1, (LOOP,)), ("3", 2, 1, 0, ()), ("1", 0, 2, 1, ()), ("4", 3, 3, 2, ()),
    ]  # fmt: skip
    assert placed(stored(1, "span", 1)) == [("1", 0, 0, -1, (LOOP,))] and placed() == []
    same = [stored(1, "span", 2), stored(2, "span", 1)]
    assert placed(*same)[0][:2] == ("1", 0) and placed(*reversed(same))[0][:2] == ("2", 0)


# -- the row of a list --


def test_a_summary_counts_each_span_and_takes_its_texts_from_the_best() -> None:
    def span(number: int, parent: str, start: int, end: int, **more: Any) -> IncomingSpan:
        return IncomingSpan(TRACE, f"{number:016x}", parent, f"n{number}", start, end, **more)

    made = TraceSummary(TRACE)
    assert (made.duration_s, made.has_root) == (0, False)
    child = SpanFacts("generate", "m1", 5, 1, 7, 0.5, "s1", "u1", input="ci", output="co", tags=("a", "b|c", "a"))
    made.add(span(2, "f" * 16, 20, 30, error="", redactions=2), child, "svc2")
    made.add(
        span(3, "f" * 16, 10, 90), SpanFacts("tool", "no", 9, 9, 9, 9.0, input="ti", output="to", error="e"), "svc3"
    )
    assert (made.name, made.service, made.input, made.output, made.has_root) == ("n3", "svc3", "ci", "co", False)
    made.add(span(4, "f" * 16, 25, 40), SpanFacts("embed", "m2", 3, 2, 1, 0.25, input="x", output="late"), "")
    made.add(span(5, "f" * 16, 15, 35), SpanFacts("generate", input=lambda: "earlier", output=lambda: ""), "")
    assert (made.input, made.input_ns, made.output, made.output_ns) == ("earlier", 15, "co", 30)
    made.add(span(6, "f" * 16, 16, 45), SpanFacts("generate", output="later"), "")
    assert (made.output, made.output_rank, made.output_ns) == ("later", 1, 45)
    made.add(span(1, "", 0, 95), SpanFacts("chain", input="ri" * 200, output="ro", session="s9"), "svc1")
    assert made.has_root and made.duration_s == pytest.approx(80e-9), "a span without a start counts for no time"
    made.add(span(7, "", 50, 40), SpanFacts(input="second", output="x" * 301, tags=("d",)), "svc7")
    assert asdict(made) == {
        "trace": TRACE, "first_ns": 10, "last_ns": 90, "num_spans": 7, "num_errors": 2, "prompt_tokens": 17,
        "cached_tokens": 12,
        "completion_tokens": 17, "cost_usd": 9.75, "redactions": 2, "name_rank": 0, "name_ns": 0, "name": "n1",
        "input_rank": 0, "input_ns": 0, "input": "ri" * 150, "output_rank": 0, "output_ns": 95, "output": "ro",
        "service": "svc1", "model": "m1", "session": "s1", "user": "u1", "tags": "|a|b c|d|", "changed": 0, "arrived_s": 0.0,
        "models": "|m1|m2|",
    }  # fmt: skip
    named = TraceSummary(TRACE)
    named.add(span(3, "f" * 16, 10, 20), SpanFacts(), "svc")
    named.add(replace(span(1, "", 30, 40), name="n" * 301), SpanFacts(tags=("t",)), "")
    assert (named.name, named.service, named.tags) == ("n" * 300, "svc", "|t|")
    far = TraceSummary(TRACE)
    far.add(span(1, "", MOST_NS + 5, MOST_NS + 9), SpanFacts(tags=("x" * 200,)), "")
    assert (far.first_ns, far.last_ns, far.tags) == (MOST_NS, MOST_NS, f"|{'x' * 100}|")


def test_a_summary_counts_what_spans_spent_themselves_and_no_sums_of_others() -> None:
    def spent(what: Any, **attributes: Any) -> float:
        made = TraceSummary(TRACE)
        made.add(IncomingSpan(TRACE, "1" * 16, "", "n", 1, 2, attributes), SpanFacts(what, "m", 3, 2, 1, 0.5), "")
        assert (made.prompt_tokens, made.cached_tokens, made.completion_tokens) in ((3, 2, 1), (0, 0, 0))
        assert bool(made.cost_usd) == bool(made.prompt_tokens) and (made.model == "m") == (
            what in ("generate", "embed")
        )
        return made.cost_usd

    kinds = ("generate", "embed", "tool", "retrieve", "rerank", "guard", "evaluate", "agent", "chain", "span")
    assert [kind for kind in kinds if spent(kind) == 0.5] == [*kinds[:7]]
    for name in ("usage_details", "cost_details"):
        assert [spent(kind, **{f"langfuse.observation.{name}": "{}"}) for kind in kinds] == [0.5] * 10


def test_what_a_span_spent_is_counted_once_when_it_has_ended(store: TraceStore) -> None:
    o = "langfuse__observation__"
    for number, kind in enumerate(("evaluator", "agent", "chain", "tool", "generation"), 1):
        held: dict[str, Any] = {f"{o}type": kind, f"{o}usage_details": '{"input": 10, "output": 5}'}
        held[f"{o}cost_details"] = '{"total": 0.25}'
        begun = otlp.span(number, 1, **held) | {"endTimeUnixNano": "0"}
        for each in (begun, otlp.span(number, 1, **held), begun):
            store.add(ready(store, each))
            made = store.summary(f"{number:032x}")
            spent = (made.prompt_tokens, made.completion_tokens, made.cost_usd, made.num_spans)
            assert spent == (10, 5, 0.25, 1), kind
    whole = {"gen_ai__operation__name": "invoke_agent", "gen_ai__usage__input_tokens": 99}
    begun = otlp.span(9, 1, **whole) | {"endTimeUnixNano": "0"}
    judged = {"gen_ai__operation__name": "guard", "gen_ai__usage__input_tokens": 7}
    store.add(ready(store, begun, otlp.span(9, 2, 1, **judged)))
    store.add(ready(store, otlp.span(9, 1, **whole)))
    assert store.summary(f"{9:032x}").prompt_tokens == 7, "an agent states the sum of its calls"


# -- the store --


def ready(store: TraceStore, *spans: dict[str, Any], **options: Any) -> list[ReadySpan]:
    decoded, _ = decode_json(otlp.as_json(*spans, **options))
    return SpanPreparer(Redactor()).prepared(decoded)


def test_what_was_rolled_back_is_forgotten(store: TraceStore) -> None:
    (one,) = ready(store, otlp.span(1, 1), service="fresh")
    one.facts.cost_usd = object()  # type: ignore[assignment]
    with pytest.raises(Exception, match=r"(?i)bind"):
        store.add([one])
    assert store.add(ready(store, otlp.span(1, 2), service="fresh")) == 1
    (kept,) = store.spans(f"{1:032x}")
    assert kept.span.resource == {"service.name": "fresh"} and store.summary(f"{1:032x}").num_spans == 1


def test_spans_are_kept_once_and_come_back_as_they_were(store: TraceStore) -> None:
    begun = otlp.span(1, 1, took_s=-START / SECOND, name="begun", gen_ai__system="x", gen_ai__request__model="m")
    assert begun["endTimeUnixNano"] == "0"
    ended = otlp.span(
        1, 1, name="begun", gen_ai__system="x", gen_ai__request__model="m2", gen_ai__usage__input_tokens=3
    )
    big = otlp.span(1, 2, 1, text="x" * (PACKED_BYTES + 1), n=2**63 - 1, error="e", events={"ev": {"a": 1}})
    assert store.add(ready(store, begun, big)) == 2
    before = store.summary(f"{1:032x}")
    assert (before.num_spans, before.num_errors, before.model, before.prompt_tokens, before.changed) == (2, 1, "", 0, 1)
    assert store.add(ready(store, ended, big, otlp.span(2, 1))) == 1
    after = store.summary(f"{1:032x}")
    assert (after.num_spans, after.num_errors, after.model, after.prompt_tokens, after.changed) == (2, 1, "m2", 3, 2)
    assert after.arrived_s >= before.arrived_s and after.last_ns == START + SECOND
    second, first = store.spans(f"{1:032x}")
    assert (first.span.name, first.span.end_ns, first.copy, first.what, first.model) == (
        "begun",
        START + SECOND,
        0,
        "generate",
        "m2",
    )
    assert (second.span.attributes, second.span.error) == ({"text": "x" * (PACKED_BYTES + 1), "n": 2**63 - 1}, "e")
    assert second.span.events == [{"name": "ev", "at_ns": START, "attributes": {"a": 1}}]
    assert (second.span.parent_id, second.span.scope, second.usage) == (f"{1:016x}", "tests", Usage())
    several = [otlp.span(3, 1, name=f"v{n}") for n in range(MAX_COPIES + 2)]
    assert store.add(ready(store, *several)) == MAX_COPIES
    assert [each.copy for each in store.spans(f"{3:032x}")] == [*range(MAX_COPIES)]
    assert store.add([]) == 0
    with pytest.raises(UnknownName, match="no trace 'zz': it has not come, or was older than is kept"):
        store.summary("zz")
    assert unpacked(b"{") == {"attributes": {"unreadable": "the body of this span is damaged"}}
    assert unpacked(b"{}") == {}


def test_of_several_scores_of_a_name_the_latest_counts(store: TraceStore) -> None:
    one, two = f"{1:032x}", f"{2:032x}"
    store.add(ready(store, otlp.span(1, 1), otlp.span(2, 1)))
    assert (store.summary(one).changed, store.summary(two).changed) == (1, 1)
    store.add_score(one, "n", "text", 0.25, detail={"é": 1})
    store.add_score(one, "m", "text", None, "broke \ud800")
    store.add_score(one, "n", "other", 0.75)
    assert [row[:4] for row in store.scores(one)] == [
        ("n", 0.75, None, "other"), ("m", None, "broke \\ud800", "text"),
    ]  # fmt: skip
    assert store.scores_of([two, one]) == {one: {"n": 0.75, "m": None}} and store.scores_of([]) == {}
    assert (store.summary(one).changed, store.summary(two).changed) == (4, 1) and store.scores(two) == []
    assert store.database.read("SELECT detail FROM scores ORDER BY seq")[0][0] == '{"\\u00e9": 1}'


async def scorer(task: Task, trace: Trace) -> float:
    if trace.id.endswith("3"):
        raise ValueError("no")
    return 0.5


def test_complete_traces_are_scored_the_oldest_first_and_a_scorer_that_fails_is_noted(store: TraceStore) -> None:
    import asyncio

    now = 1_000_000.0
    arrived = {1: now - 10, 2: now - 9.9, 3: now - 20, 4: now - BACK_S, 5: now - BACK_S - 0.1, 6: now - 30}
    spans = [otlp.span(n, 1, parent=int(n == 6)) for n in arrived]
    store.add(ready(store, *spans))
    with store.database.write() as connection:
        for n, at_s in arrived.items():
            connection.execute("UPDATE traces SET arrived_s = ? WHERE trace = ?", (at_s, f"{n:032x}"))
    evaluation = Evaluation((("as typed", scorer),))
    assert evaluation._due(store, "scorer", now) == [f"{n:032x}" for n in (4, 3, 1)]
    assert asyncio.run(evaluation.score_some(store, now_s=now)) == 3 and evaluation._due(store, "scorer", now) == []
    assert len(evaluation._due(store, "another", now)) == 3
    assert [row[:4] for n in (4, 3, 1) for row in store.scores(f"{n:032x}")] == [
        ("scorer", 0.5, None, "as typed"), ("scorer", None, "ValueError: no", "as typed"), ("scorer", 0.5, None, "as typed"),
    ]  # fmt: skip
    some = [f"{n:032x}" for n in range(400)]
    shares = {share: [trace for trace in some if is_sampled(trace, share)] for share in (0.25, 0.5, 1.0)}
    assert set(shares[0.25]) < set(shares[0.5]) and 60 < len(shares[0.25]) < 140 and shares[1.0] == some
    assert Evaluation((), 0.5)._due(store, "another", now) == [
        trace for trace in (f"{n:032x}" for n in (4, 3, 1)) if is_sampled(trace, 0.5)
    ]
    assert score_name(scorer) == "scorer" and Evaluation((), 1.0).settled_s == 10.0
    with pytest.raises(ConfigError, match="score has 'a' and 'b', whose scores have one name, 'scorer': give one of"):
        Evaluation((("a", scorer), ("c", float), ("b", scorer)))
    for share in (0, 1.01, -1, math.nan):
        with pytest.raises(ConfigError, match="give a share of the traces above 0 and up to 1"):
            Evaluation((), share)


# -- tasks --


def test_rows_are_written_as_a_benchmark_or_alone(tmp_path: Path) -> None:
    rows: list[Any] = [{"id": "1", "question": "é"}, {"id": "2"}]
    assert write_tasks(tmp_path / "a.toml", iter(rows), "exact") == 2
    assert (tmp_path / "a.jsonl").read_text() == '{"id": "1", "question": "\\u00e9"}\n{"id": "2"}\n'
    assert (tmp_path / "a.toml").read_text().splitlines()[:6] == [
        'data = "a.jsonl"', 'prompt = "{question}"', 'target = "{answer}"', 'id = "{id}"', 'cluster = "{cluster}"',
        'scorer = ["exact"]',
    ]  # fmt: skip
    assert write_tasks(tmp_path / "b.jsonl", [], "exact") == 0 and not (tmp_path / "b.toml").exists()
    for name in ("a.toml", "a.jsonl", "b.toml"):
        with pytest.raises(StoreError, match=r"(a\.toml|a\.jsonl|b\.jsonl) is there already"):
            write_tasks(tmp_path / name, rows, "exact")
    with pytest.raises(ConfigError, match=r"out is '.*c\.csv': give a file \.toml"):
        write_tasks(tmp_path / "c.csv", rows, "exact")
    with pytest.raises(StoreError, match=r"d\.toml cannot be written: No such file or directory"):
        write_tasks(tmp_path / "none" / "d.toml", rows, "exact")
