"""The parts of which an attempt's page is made, each called by itself: rows, spans, messages and tokens."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from firsthand.errors import UnknownName
from firsthand.message import Message, Reasoning, Sampled, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import Usage
from firsthand.studio import branch_conversation
from firsthand.studio.attempt_spans import (
    COLUMNS,
    Span,
    _by_branch,
    _finite,
    _label,
    _milliseconds,
    _nearest,
    _note,
    _numbers,
    _of_call,
    _of_event,
    first_spans_json,
    spans_json,
    spans_of,
)
from firsthand.studio.branch_conversation import (
    Bar,
    Block,
    Conversation,
    Said,
    _block,
    _down,
    _last_made,
    _said,
    conversation,
    message_blocks,
)
from firsthand.studio.span_detail import SpanDetail, SpanMessage, _asked_before, span_detail
from firsthand.studio.span_search import refs_holding
from firsthand.studio.token_colours import (
    ColouredToken,
    _alternatives,
    _text,
    entropy_of,
    laid_out,
    logprob_step,
    tokens_of,
)
from firsthand.trace import Event, Failure, Node
from studio_attempts import call, trace


def test_a_row_of_a_call_has_its_title_tokens_and_trouble() -> None:
    labels: dict[str, str] = {}
    usage = Usage(7, 2, 3, 0.5)
    rows = [
        _of_call(each.__dict__ | {"usage": vars(each.usage)}, number, labels)
        for number, each in enumerate(
            (
                call(":0", "generate", 0, 0.25, 1.5, usage=usage, nodes=(1,)), call(":1", nodes=(1, 2), begun=0.0001234),
                call(":2", "tool", detail={"name": "look  up\n", "is_error": 1}, nodes=()), call(":3", "score", error=""),
                call(":4", "tool", detail={"name": "", "is_error": False}, nodes=(1, 2, 3)),
            ),
            start=5,
        )
    ]  # fmt: skip
    assert rows == [
        ("generate", "generate", 250.0, 1500.0, 7, 3, 2, False, "call:5"),
        ("generate", "2 answers", 0.123, 1000.0, 0, 0, 0, False, "call:6"),
        ("tool", "look up", 0.0, 1000.0, 0, 0, 0, True, "call:7"),
        ("score", "score", 0.0, 1000.0, 0, 0, 0, True, "call:8"),
        ("tool", "3 answers", 0.0, 1000.0, 0, 0, 0, False, "call:9"),
    ]
    assert labels == {"generate": "generate", "2 answers": "2 answers", "look  up\n": "look up", "score": "score",
                      "3 answers": "3 answers"}  # fmt: skip


def test_a_row_of_an_event_has_its_words_and_tells_a_failure() -> None:
    def row(kind: str, **data: Any) -> tuple[Any, ...]:
        return _of_event({"kind": kind, "at_s": 1.25, "data": data}, 3)

    assert row("note", a="x", b=1.5, c=True, d=[1], e=None) == (
        "event", "note a=x b=1.5 c=True", 1250.0, 0.0, 0, 0, 0, False, "event:3",
    )  # fmt: skip
    assert [row(kind)[7] for kind in ("error", "limit", "failed", "retry", "errors")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert (
        row("branch", status="pruned", name="1.2", score=0, text="the sum  is odd")[1] == "pruned 1.2 0: the sum is odd"
    )
    assert row("branch", status="failed")[1:] == ("branch failed", 1250.0, 0.0, 0, 0, 0, False, "event:3")
    assert _note({"text": "why", "status": "", "name": None, "score": 0.5}) == "0.5: why" and _note({}) == "branch "
    assert [_milliseconds(each) for each in (0, 1.00049, -0.1, 1e12, 1e12 - 1, math.nan)] == [
        0.0, 1000.49, 0.0, 0.0, 1000.0 * (1e12 - 1), 0.0,
    ]  # fmt: skip
    assert [_finite(each) for each in (0, 2.5, -1, 1e12, math.inf)] == [0, 2.5, 0.0, 0.0, 0.0]
    assert [_label("x" * length) for length in (120, 121)] == ["x" * 120, "x" * 119 + "…"] and _label(
        " " * 480 + "x"
    ) == ""
    assert sorted(["0.10", "0.2", "0.x", "0", "0." + "1" * 12], key=_numbers) == [
        "0",
        "0.2",
        "0.10",
        "0." + "1" * 12,
        "0.x",
    ]
    groups: dict[str, Any] = {"": 1, "0": 1, "0.1.2": 1}
    assert [_nearest(branch, groups) for branch in ("0.1.2.3", "0.1.2", "0.1", "0", "5.1")] == [
        "0.1.2",
        "0",
        "0",
        "",
        "",
    ]


def test_calls_and_events_belong_to_their_branches() -> None:
    calls = [{"id": ":0", "started_s": 1.0}, {"id": "0.1:0", "started_s": 3.0}, {"id": "0.1:1", "started_s": 2.0}]
    events = [
        {"data": {"path": path}, "at_s": at} for path, at in (("0.1", 5.0), ("0.2", 4.0), (7, 6.0), (["0.1"], 7.0))
    ]
    events.append({"data": {}, "at_s": 8.0})
    assert _by_branch(calls, events) == {
        "": [(1.0, 0), (4.0, 4), (6.0, 5), (7.0, 6), (8.0, 7)], "0.1": [(3.0, 1), (2.0, 2), (5.0, 3)],
    }  # fmt: skip
    assert _by_branch([], []) == {"": []}


def test_a_tree_has_each_branch_under_the_nearest_one_above_by_its_beginning() -> None:
    calls = (call(":0", begun=0.5, took=0.25), call("0.1:0", begun=2.0, took=1.0), call("0.0:0", begun=2.5, error="no"),
             call("0.1.4.2:0", "tool", begun=2.25, took=3.0))  # fmt: skip
    events = (Event("note", 2.125, {"path": "0.1", "n": 1}), Event("retry", 0.25))
    rows = [
        Span("attempt", "a task", 0.0, 4000.0, 0, -1, 0, 0, 0, True, ""),
        Span("event", "retry", 250.0, 0.0, 1, 0, 0, 0, 0, False, "event:1"),
        Span("generate", "generate", 500.0, 250.0, 1, 0, 0, 0, 0, False, "call:0"),
        Span("branch", "0.1", 2000.0, 1000.0, 1, 0, 0, 0, 0, False, ""),
        Span("generate", "generate", 2000.0, 1000.0, 2, 3, 0, 0, 0, False, "call:1"),
        Span("event", "note path=0.1 n=1", 2125.0, 0.0, 2, 3, 0, 0, 0, False, "event:0"),
        Span("branch", "0.1.4.2", 2250.0, 3000.0, 2, 3, 0, 0, 0, False, ""),
        Span("tool", "tool", 2250.0, 3000.0, 3, 6, 0, 0, 0, False, "call:3"),
        Span("branch", "0.0", 2500.0, 1000.0, 1, 0, 0, 0, 0, True, ""),
        Span("generate", "generate", 2500.0, 1000.0, 2, 8, 0, 0, 0, True, "call:2"),
    ]
    body = trace(calls=calls, events=events).to_json()
    assert spans_of(body) == rows
    columns = {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}
    assert spans_json(body) == {"columns": columns, "duration": 4000.0} and Span._fields == COLUMNS
    for most in (1, 2, 4, 6, 10, 99):
        first = first_spans_json(body, most)
        assert {name: each for name, each in first["columns"].items() if name != "trouble"} == {
            name: each[:most] for name, each in columns.items() if name != "trouble"
        }
        assert (first["total"], first["duration"]) == (10, 4000.0)
    failed = trace(error=Failure("E", "x"), duration_s=math.inf).to_json()
    assert spans_of(failed) == [Span("attempt", "a task", 0.0, 0.0, 0, -1, trouble=True)]
    assert first_spans_json(failed, 5)["total"] == 1 and spans_json(failed)["duration"] == 0.0


def test_a_branch_is_shown_with_its_siblings_marks_and_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = (None, 0, 0, 1, 3, 3)
    texts = ("ask", "one", "two", "next", "left", "right")
    nodes = tuple(Node(parent, (user if not number else assistant)(text))
                  for number, (parent, text) in enumerate(zip(parents, texts, strict=True)))  # fmt: skip
    events = (Event("branch", 1.0, {"at": 3, "status": "kept", "score": 0.5}),)
    made = trace(
        nodes=nodes, events=events, calls=(call(":0", nodes=(1, 2)), call(":1", nodes=(4,)), call(":2", nodes=()))
    )

    def said(node: int, role: str, marks: tuple[str, ...] = (), siblings: tuple[int, ...] = ()) -> Said:
        return Said(node, role, (Block("text", texts[node]),), marks, siblings=siblings)

    down = {1: 5, 2: 2, 4: 4, 5: 5}
    whole = (said(0, "user"), said(1, "assistant", (), (1, 2)), said(3, "assistant", ("● kept 0.5",)))
    assert conversation(made) == Conversation((*whole, said(4, "assistant", (), (4, 5))), 4, (2, 4, 5), 3, 0, down)
    assert conversation(made, 1) == Conversation((*whole, said(5, "assistant", (), (4, 5))), 5, (2, 4, 5), 3, 0, down)
    assert conversation(made, 2) == Conversation(
        (said(0, "user"), said(2, "assistant", (), (1, 2))), 2, (2, 4, 5), 3, 0, {1: 5, 2: 2},
    )  # fmt: skip
    assert [conversation(made, leaf).leaf for leaf in (0, 3, 5, 6, -1)] == [2, 5, 5, 4, 4]
    assert conversation(trace()) == Conversation((), None, (), 0) and _last_made(trace()) is None
    assert (
        _last_made(trace(nodes=nodes)) == 5 and _last_made(trace(nodes=nodes, calls=(call(":0", nodes=(2, 1)),))) == 1
    )
    assert _down(0, {0: [1, 2], 2: [3]}) == 3 and _down(1, {0: [1, 2]}) == 1
    monkeypatch.setattr(branch_conversation, "MAX_MESSAGES", 2)
    monkeypatch.setattr(branch_conversation, "MAX_BRANCHES", 2)
    short = conversation(made, 4)
    assert ([each.node for each in short.said], short.left_out, short.leaves, short.num_leaves) == (
        [0, 4],
        2,
        (2, 4),
        3,
    )
    assert [each.node for each in conversation(made, 2).said] == [0, 2]


def test_a_message_is_shown_by_its_parts_and_log_probs() -> None:
    parts = (Text("abcdef"), Reasoning("think", {}), ToolCall("1", "n" * 201, {"é": [1]}), ToolCall("2", "f", {}, "bad {"),
             ToolResult("1", "look", "found", True, "o" * 401), ToolResult("2", "f", "ok"))  # fmt: skip
    cut = message_blocks(Message("assistant", parts), 5)
    assert cut == (
        Block("text", "abcde", left_out=1), Block("reasoning", "think"), Block("call", '{\n "é', "n" * 200, left_out=13),
        Block("call", "bad {", "f", is_error=True), Block("result", "found", "look", "o" * 400, True),
        Block("result", "ok", "f"),
    )  # fmt: skip
    assert message_blocks(Message("assistant", (parts[2],)))[0].text == '{\n "é": [\n  1\n ]\n}'
    assert _block(Text("x" * 20_000), 20_000).left_out == 0 and message_blocks(user("x" * 20_001))[0].left_out == 1
    logprobs = (-0.5, -math.inf, -0.0, -2.5)
    message = Message("assistant", (Text("hi"),), Sampled((1, 2, 3, 4), logprobs))
    tokens = (ColouredToken("hi", 0.0, 0.0, 0, 0, ()),)
    assert _said(7, message, ("m",), (7, 8), tokens) == Said(
        7, "assistant", (Block("text", "hi"),), ("m",), 4, -1.0,
        (Bar(-0.5, 1), Bar(-math.inf, 4), Bar(-0.0, 0), Bar(-2.5, 3)), tokens, (7, 8),
    )  # fmt: skip
    none = _said(0, Message("assistant", (), Sampled((1,), (-math.inf,))), (), ())
    assert none.mean_logprob is None and none.num_tokens == 1
    assert len(_said(0, Message("assistant", (), Sampled((1,) * 401, (-1.0,) * 401)), (), ()).bars) == 400


def test_tokens_are_laid_on_a_text_and_coloured_by_what_else_there_was() -> None:
    top = [
        [("He", math.log(0.6)), ("She", math.log(0.3))],
        [("llo", math.log(0.95))],
        [("!", math.log(0.4)), ("?", math.log(0.4))],
    ]
    logprobs = tuple(math.log(each) for each in (0.6, 0.95, 0.4))
    sampled = Message("assistant", (Text("Hello!"),), Sampled((1, 2, 3), logprobs))
    made = trace(
        nodes=(Node(None, user("x")), Node(0, assistant("other")), Node(0, sampled)),
        calls=(
            call(":0", nodes=(1, 2)), call(":1", nodes=(1, 2), detail={"top_logprobs": [[], top]}), call(":2", nodes=(2,)),
        ),
    )  # fmt: skip
    found = tokens_of(made, 2)
    assert [(each.text, each.logprob, each.logprob_step, each.entropy_step) for each in found] == [
        ("He", logprobs[0], 1, 2), ("llo", logprobs[1], 0, 1), ("!", logprobs[2], 2, 3),
    ]  # fmt: skip
    assert found[0].entropy == pytest.approx(-(0.6 * math.log(0.6) + 0.3 * math.log(0.3) + 0.1 * math.log(0.1)))
    assert [text for text, _ in found[2].others] == ["!", "?"] and found[0].others[1][1] == pytest.approx(0.3)
    assert tokens_of(made, 1) == tokens_of(made, 0) == ()
    assert _alternatives(made, 2) == top and _alternatives(made, 1) == [] and _alternatives(made, 0) is None
    for broken in ([], [[]], 5, [[], [[("a",)]]], [[], [[("a", "x")]]]):
        damaged = trace(nodes=made.nodes, calls=(call(":1", nodes=(1, 2), detail={"top_logprobs": broken}),))
        assert _alternatives(damaged, 2) is None and tokens_of(damaged, 2) == ()
    fewer = trace(nodes=made.nodes, calls=(call(":1", nodes=(2,), detail={"top_logprobs": [top[:2]]}),))
    assert tokens_of(fewer, 2) == ()
    pairs = [("a", -1.0), ("b", -1.5), ("c", -1.5009)]
    assert [_text(pairs, each) for each in (-1.0009, -1.002, -1.5, -1.4995)] == ["a", None, None, "b"]
    assert [logprob_step(math.log(p)) for p in (0.91, 0.89, 0.51, 0.49, 0.11, 0.09, 0.011, 0.009)] == [
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
    ]
    assert [logprob_step(each) for each in (0.0, 1.0, math.nan, -math.inf)] == [0, 0, 4, 4]
    assert (
        entropy_of([]) == 0
        and entropy_of([0.5]) == 0
        and entropy_of([math.log(0.5), -math.inf]) == pytest.approx(math.log(2))
    )
    for text, tokens, pieces in (
        ("abcd", ["a", None, "d"], ["a", "bc", "d"]), ("abcd", ["a", "x", "cd"], ["a", "b", "cd"]),
        ("ab!", ["a", "b"], ["a", "b!"]), ("ab", ["a", "b", None], ["a", "b", ""]), ("ab", ["x", "y", "b"], None),
        ("", [], None), ("ab", ["ab", ""], ["ab", ""]),
        ("a" + "-" * 41 + "z", ["a", None, "z"], None), ("a" + "-" * 40 + "z", ["a", None, "z"], ["a", "-" * 40, "z"]),
    ):  # fmt: skip
        assert laid_out(text, tokens) == pieces, text


def test_the_contents_of_a_call_are_its_facts_and_what_was_new_to_it() -> None:
    nodes = tuple(
        Node(number - 1 if number else None, (user if number % 2 == 0 else assistant)(f"n{number}"))
        for number in range(45)
    )
    first = call(":0", at=0, nodes=(1,))
    second = call(":1", "generate", 44, 1.5, 0.25, usage=Usage(1200, 30, 40, 0.125), nodes=(44, 99, -1), replayed=True,
                  error="e" * 2001, detail={"name": "n" * 201, "top_logprobs": [1], "k": "é", "url": "u"})  # fmt: skip
    made = trace(
        nodes=nodes,
        calls=(first, call(":t", "tool", 2), second),
        events=(Event("note", 1.0625, {"a": 1}), Event("x", 0)),
    )

    def shown(node: int) -> SpanMessage:
        return SpanMessage(node, nodes[node].message.role, (Block("text", f"n{node}"),))

    assert span_detail(made, "call:2") == SpanDetail(
        "n" * 200,
        (("kind", "generate"), ("effect", ":1"), ("began", "1.500 s"), ("took", "0.250 s"), ("prompt tokens", "1,200"),
         ("cached tokens", "30"), ("answer tokens", "40"), ("cost", "$0.125000"),
         ("replayed", "from the journal of an earlier try"), ("error", "e" * 2000)),
        tuple(shown(node) for node in range(5, 45)), 5, (shown(44),),
        json.dumps({"name": "n" * 201, "k": "é", "url": "u"}, ensure_ascii=False, indent=1),
    )  # fmt: skip
    assert span_detail(made, "call:0") == SpanDetail(
        "generate",
        (("kind", "generate"), ("effect", ":0"), ("began", "0.000 s"), ("took", "1.000 s")),
        (shown(0),),
        0,
        (shown(1),),
    )
    assert span_detail(made, "call:1").new == () and span_detail(made, "call:1").num_before == 0, (
        "a tool is asked nothing"
    )
    assert span_detail(made, "event:0") == SpanDetail("note", (("at", "1.062 s"),), data='{\n "a": 1\n}')
    assert span_detail(made, "event:1") == SpanDetail("x", (("at", "0.000 s"),))
    large = span_detail(trace(events=(Event("big", 0, {"a": "x" * 20_000}),)), "event:0")
    assert (len(large.data), large.left_out) == (20_000, 12)
    assert _asked_before(made, second, {0, 1, 2}) == {0, 1} and _asked_before(made, first, {0}) == set()
    assert _asked_before(made, second, {5}) == set()
    for ref in ("call:3", "event:2", "call:x", "call:", "note:0", "call:" + "0" * 10, "call"):
        with pytest.raises(UnknownName) as told:
            span_detail(made, ref)
        assert str(told.value) == f"the attempt has no span {ref!r}"


def test_words_are_found_in_the_call_that_made_a_message_or_was_first_asked_with_it() -> None:
    nodes = (
        Node(None, user("Alpha")),
        Node(0, assistant("Beta")),
        Node(1, user("gamma")),
        Node(2, assistant("delta ALPHA")),
    )
    calls = (
        call(":0", at=0, nodes=(1,)),
        call(":1", at=2, nodes=(3,)),
        call(":2", "tool", at=3, error="Omega", detail={"Key": ["sun"]}),
    )
    body = trace(
        nodes=nodes, calls=calls, events=(Event("alpha", 0.0, {"k": "moon"}), Event("y", 1.0, {"alpha": "Sun"}))
    ).to_json()
    words = ("alpha", " BETA ", "gamma", "omega", "sun", "moon", "key", "none")
    assert {word: refs_holding(body, word) for word in words} == {
        "alpha": ["call:0", "call:1"], " BETA ": ["call:0"], "gamma": ["call:1"], "omega": ["call:2"],
        "sun": ["call:2", "event:1"], "moon": ["event:0"], "key": [], "none": [],
    }  # fmt: skip


def test_the_first_spans_of_a_tree_are_those_of_the_whole_but_for_troubles_below_them() -> None:
    made = trace(
        calls=(
            call("0.1.2:0", "tool", None, 3.0, 0.5, error="bad"), call(":1", "generate", None, 0.5, 1.0),
            call("0.0:0", "generate", None, 2.0, 0.25), call("0.1:0", "score", None, 2.5, 0.75),
            call(":0", "generate", None, 0.25, 0.125), call("0.0:1", "tool", None, 1.5, 0.25),
        ),
        events=(Event("note", 0.75, {"k": 1}), Event("limit", 9.0, {"path": "0.0"}), Event("x", 0.0, {"path": "none"})),
    )  # fmt: skip
    body = made.to_json()
    whole = spans_json(body)["columns"]
    assert whole["label"][1:] == ["x path=none", "generate", "generate", "note k=1", "0.0", "tool", "generate",
                                  "limit path=0.0", "0.1", "score", "0.1.2", "tool"]  # fmt: skip
    assert whole["depth"] == [0, 1, 1, 1, 1, 1, 2, 2, 2, 1, 2, 2, 3]
    assert whole["parent"] == [-1, 0, 0, 0, 0, 0, 5, 5, 5, 0, 9, 9, 11]
    assert [number for number, each in enumerate(whole["trouble"]) if each] == [0, 5, 8, 9, 11, 12]
    assert (whole["start"][5], whole["duration"][5]) == (1500.0, 7500.0), "from its first call to its last event"
    assert whole["ref"][1:5] == ["event:2", "call:4", "call:1", "event:0"]
    for most in range(1, 16):
        first = first_spans_json(body, most)
        count = min(most, 13)
        assert first["total"] == 13 and first["duration"] == spans_json(body)["duration"]
        for name in COLUMNS:
            if name != "trouble":
                assert first["columns"][name] == whole[name][:count], (most, name)
    assert first_spans_json(body, 13)["columns"] == whole


def test_a_span_is_named_by_its_kind_and_a_number_that_is_there() -> None:
    made = trace(calls=(call(":0"), call(":1", "tool", detail={"name": "look"})), events=(Event("note", 0.5),))
    assert span_detail(made, "call:1").title == "look" and span_detail(made, "event:0").facts == (("at", "0.500 s"),)
    assert span_detail(made, "call:001").title == "look" and span_detail(made, "event:0").data == ""
    for ref in (
        "call:2",
        "event:1",
        "call:-1",
        "call:",
        "call",
        ":0",
        "branch:0",
        "call:0:0",
        "call:²",
        "call:" + "0" * 10,
    ):
        with pytest.raises(UnknownName) as told:
            span_detail(made, ref)
        assert str(told.value) == f"the attempt has no span {ref[:40]!r}"
