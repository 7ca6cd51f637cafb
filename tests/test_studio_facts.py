"""Facts of an attempt before its page is drawn: filters, spans, tokens, branches and differences, to the last number."""

from __future__ import annotations

import math
from typing import Any

import pytest

from firsthand.errors import ConfigError, UnknownName
from firsthand.message import Message, Reasoning, Sampled, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Usage
from firsthand.studio import token_colours
from firsthand.studio.attempt_facts import attempt_facts
from firsthand.studio.attempt_spans import first_spans_json, spans_json, spans_of
from firsthand.studio.branch_conversation import Block, conversation, message_blocks
from firsthand.studio.span_detail import span_detail
from firsthand.studio.span_search import refs_holding
from firsthand.studio.token_colours import entropy_of, laid_out, logprob_step, tokens_of
from firsthand.studio.trace_difference import trace_difference
from firsthand.studio.typed_filter import Term, holds, parse_filter
from firsthand.trace import Call, Event, Failure, Node, Trace

FIELDS: Any = {"name": "text", "size": "number", "score.": "number"}


FLAGS = {"has": ("error", "score"), "is": ("new",)}


def call(id: str, began: float, took: float = 0.5, kind: Any = "generate", **more: Any) -> Call:
    return Call(id, kind, more.pop("at", 0), began, took, "r", **more)


def trace(**more: Any) -> Trace:
    return Trace("t1", "quiz", "a task", {"name": "agent", **more.pop("agent", {})}, 0, 0, "then", 4.0, **more)


def test_a_filter_is_read_term_by_term() -> None:
    text = ' name:a -size<=3  score.exact>0.5 has:error -"two words" size=1e2 is:new bare '
    assert parse_filter(text, FIELDS, FLAGS) == (
        Term("name", ":", "a"), Term("size", "<=", "3", True), Term("score.exact", ">", "0.5"), Term("has", ":", "error"),
        Term("", ":", "two words", True), Term("size", "=", "1e2"), Term("is", ":", "new"), Term("", ":", "bare"),
    )  # fmt: skip
    assert Term("size", "=", "1e2").number == 100.0 and parse_filter("  ", FIELDS, FLAGS) == ()
    assert len(parse_filter("x " * 40, FIELDS, FLAGS)) == 40 and parse_filter("x" * 2000, FIELDS, FLAGS)
    for wrong, said in (
        ("x " * 41, "more than 40 terms"), ("x" * 2001, "the filter has 2,001 characters: at most 2,000 are read"),
        ("nam:a", "did you mean 'name'"), ("zzzz:1", "is no field; there are name, size, has, is"),
        ("size:x", "'x' is not a number"),
        ("size<inf", "'inf' is not a number"), ("size:nan", "is not a number"),
        ("name<a", "name is text, which takes name:WORD"),
        ("has:none", "has takes error, score, as in has:error"), ("has<error", "has takes error, score"),
        ("-", "'-' with nothing behind it"),
        ("name:", "'name:' without a value"), ("<5", "with no field before it"), ('"a"b', "is not understood from"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            parse_filter(wrong, FIELDS, FLAGS)
        assert said in str(caught.value), wrong


@pytest.mark.parametrize(
    "operator, value, held, negated",
    [
        (":", 2, True, False), ("=", 2.0, True, False), ("<", 2, False, True), ("<", 1.9, True, False),
        ("<=", 2, True, False),
        (">", 2, False, True), (">", 2.1, True, False), (">=", 2, True, False), (">=", 1, False, True),
        (":", None, False, False),
        (":", "xx2Y", True, False), ("=", "xx2Y", False, True), ("=", "2", True, False), (":", ("a", "b2"), True, False),
        ("=", ["a", "2"], True, False), ("=", ["a", "b2"], False, True), (":", [], False, True),
    ],
)  # fmt: skip
def test_a_value_fulfils_a_term(operator: Any, value: Any, held: bool, negated: bool) -> None:
    assert holds(Term("f", operator, "2"), value) is held and holds(Term("f", operator, "2", True), value) is negated
    assert holds(Term("f", "=", "ÄB"), "äb") and holds(Term("f", ":", "B"), "Äb")


def wide() -> Trace:
    """Calls on the root, on two branches and on a branch of one of them, an event on each, and failures."""
    calls = (
        call(":0", 0.0, 1.0, usage=Usage(7, 2, 3), nodes=(1,)),
        call("0.1:0", 2.0, 0.25, nodes=(2, 3)),
        call("0.0:0", 1.0, 0.5, kind="tool", detail={"name": "look up", "is_error": True}),
        call("0.0.3:0", 1.25, 0.5, error="gone"),
        call(":1", 3.0, 0.125, kind="score"),
    )
    events = (
        Event("branch", 1.125, {"path": "0.0", "status": "pruned", "name": "1.2", "score": 0.5, "text": "odd"}),
        Event("limit", 3.5, {"limit": "tokens", "list": [1]}),
        Event("branch", 0.5, {"path": "9", "status": "kept"}),
    )
    return trace(calls=calls, events=events, nodes=tuple(Node(None, user("x")) for _ in range(4)))


def test_each_call_event_and_branch_has_its_row_under_its_own() -> None:
    rows = spans_of(wide().to_json())
    assert [
        (row.kind, row.label, row.start, row.duration, row.depth, row.parent, row.trouble, row.ref) for row in rows
    ] == [
        ("attempt", "a task", 0.0, 4000.0, 0, -1, True, ""),
        ("generate", "generate", 0.0, 1000.0, 1, 0, False, "call:0"),
        ("event", "branch kept", 500.0, 0.0, 1, 0, False, "event:2"),
        ("score", "score", 3000.0, 125.0, 1, 0, False, "call:4"),
        ("event", "limit limit=tokens", 3500.0, 0.0, 1, 0, True, "event:1"),
        ("branch", "0.0", 1000.0, 500.0, 1, 0, True, ""),
        ("tool", "look up", 1000.0, 500.0, 2, 5, True, "call:2"),
        ("event", "pruned 1.2 0.5: odd", 1125.0, 0.0, 2, 5, False, "event:0"),
        ("branch", "0.0.3", 1250.0, 500.0, 2, 5, True, ""),
        ("generate", "generate", 1250.0, 500.0, 3, 8, True, "call:3"),
        ("branch", "0.1", 2000.0, 250.0, 1, 0, False, ""),
        ("generate", "2 answers", 2000.0, 250.0, 2, 10, False, "call:1"),
    ]
    assert [(row.prompt, row.answer, row.cached) for row in rows[:2]] == [(0, 0, 0), (7, 3, 2)]
    first = first_spans_json(wide().to_json(), 7)
    assert first["total"] == 12 and first["duration"] == 4000.0 and first["columns"]["ref"][-1] == "call:2"
    assert len(first["columns"]["kind"]) == 7 and len(first_spans_json(wide().to_json(), 1)["columns"]["kind"]) == 1
    whole = spans_json(wide().to_json())
    assert whole["columns"]["depth"] == [row.depth for row in rows] and list(whole["columns"])[:2] == ["kind", "label"]
    plain = spans_of(trace(error=Failure("E", "x")).to_json())
    assert [(row.kind, row.trouble) for row in plain] == [("attempt", True)]
    long = trace(
        calls=(call(":0", math.inf, math.nan, detail={"name": "n" * 130}),),
        events=(Event("note", -1.0, {"a": True, "b": 1.5}),),
    )
    found = spans_of(long.to_json())
    assert [(row.start, row.duration) for row in found[1:]] == [(0.0, 0.0)] * 2 and found[
        1
    ].label == "note a=True b=1.5"
    assert {len(row.label) for row in found if row.kind == "generate"} == {120}


def test_the_contents_of_a_span_are_what_was_new_to_it() -> None:
    nodes = (
        Node(None, system("S")), Node(0, user("q")), Node(1, assistant("", ToolCall("c", "go", {"a": "é"}))),
        Node(2, Message("tool", (ToolResult("c", "go", "r"),))), Node(3, assistant("done")), Node(0, user("other")),
    )  # fmt: skip
    calls = (
        call(
            ":0",
            0.25,
            0.5,
            at=1,
            nodes=(2,),
            usage=Usage(1500, 20, 1000, 0.5),
            detail={"finish": "stop", "top_logprobs": [1]},
        ),
        call(
            ":1",
            1.0,
            0.125,
            kind="tool",
            at=2,
            detail={"name": "go", "arguments": {"a": "é"}},
            error="E" * 2100,
            replayed=True,
        ),
        call(":2", 2.0, 1.0, at=3, nodes=(4, 99)),
        call("0.1:0", 2.0, 1.0, at=5, kind="score"),
    )
    found = trace(nodes=nodes, calls=calls, events=(Event("note", 1.5, {"k": "ä"}), Event("bare", 2.0)))
    first, tool, last, apart = (span_detail(found, f"call:{number}") for number in range(4))
    assert first.title == "generate" and first.facts == (
        ("kind", "generate"), ("effect", ":0"), ("began", "0.250 s"), ("took", "0.500 s"), ("prompt tokens", "1,500"),
        ("cached tokens", "20"), ("answer tokens", "1,000"), ("cost", "$0.500000"),
    )  # fmt: skip
    assert ([each.node for each in first.new], first.num_before, [each.node for each in first.answers]) == (
        [0, 1],
        0,
        [2],
    )
    assert first.data == '{\n "finish": "stop"\n}' and first.left_out == 0
    assert tool.title == "go" and tool.facts[4:] == (
        ("replayed", "from the journal of an earlier try"),
        ("error", "E" * 2000),
    )
    assert tool.new == () and tool.num_before == 0 and '"a": "é"' in tool.data
    assert ([each.node for each in last.new], last.num_before, [each.node for each in last.answers]) == ([3], 3, [4])
    assert ([each.node for each in apart.new], apart.num_before) == ([0, 5], 0), "it is on a branch of its own"
    event = span_detail(found, "event:0")
    assert (event.title, event.facts, event.data) == ("note", (("at", "1.500 s"),), '{\n "k": "ä"\n}')
    assert span_detail(found, "event:1").data == ""
    for ref in ("call:4", "event:2", "call:-1", "call:", "note:0", "call:1234567890", "call"):
        with pytest.raises(UnknownName, match="the attempt has no span"):
            span_detail(found, ref)
    wide_data = trace(events=(Event("note", 0.0, {"k": "x" * 20_000}),))
    cut = span_detail(wide_data, "event:0")
    assert len(cut.data) == 20_000 and cut.left_out == len('{\n "k": ""\n}')
    chain = tuple(Node(None if at == 0 else at - 1, user(str(at))) for at in range(43))
    many = span_detail(trace(nodes=chain, calls=(call(":0", 0.0, at=42),)), "call:0")
    assert [each.node for each in many.new] == list(range(3, 43)) and many.num_before == 3


def test_a_call_that_cost_a_fraction_of_a_cent_says_what_it_cost() -> None:
    small = trace(nodes=(Node(None, user("q")),), calls=(call(":0", 0.0, usage=Usage(7, 0, 2, 0.0004)),))
    assert ("cost", "$0.000400") in span_detail(small, "call:0").facts


def test_words_are_found_in_what_a_call_made_or_was_first_asked_with() -> None:
    nodes = (
        Node(None, user("The Moon")),
        Node(0, assistant("blue")),
        Node(1, user("more")),
        Node(2, assistant("red moon")),
    )
    calls = (
        call(":0", 0.0, at=0, nodes=(1,)), call(":1", 1.0, at=2, nodes=(3,), detail={"moon": "x", "deep": [{"k": "ROUND"}]}),
        call(":2", 2.0, at=2, error="a moon fell"),
    )  # fmt: skip
    body = trace(
        nodes=nodes, calls=calls, events=(Event("moon", 0.0, {"a": "b"}), Event("n", 0.0, {"a": ["Moon", 3]}))
    ).to_json()
    assert refs_holding(body, " MOON ") == ["call:0", "call:1", "call:2", "event:1"]
    assert (
        refs_holding(body, "more") == ["call:1"]
        and refs_holding(body, "round") == ["call:1"]
        and refs_holding(body, "nothing") == []
    )
    with pytest.raises(ConfigError, match="the search has 501 characters: at most 500 are read"):
        refs_holding(body, "x" * 501)
    assert refs_holding(body, "x" * 500) == []


def test_a_branch_is_followed_to_its_end_with_its_siblings() -> None:
    sampled = Sampled((1, 2, 3), (-0.05, -math.inf, -1.95))
    nodes = (
        Node(None, user("q")), Node(0, Message("assistant", (Text("a"),), sampled)), Node(0, assistant("b")),
        Node(2, user("c")), Node(1, user("d")),
    )  # fmt: skip
    found = trace(nodes=nodes, calls=(call(":0", 0.0, nodes=(1, 2)), call(":1", 1.0)),
                  events=(Event("branch", 0.0, {"at": 2, "status": "kept"}),))  # fmt: skip
    talk = conversation(found)
    assert [each.node for each in talk.said] == [0, 2, 3] and (talk.leaf, talk.leaves, talk.num_leaves) == (
        3,
        (3, 4),
        2,
    )
    assert talk.said[1].siblings == (1, 2) and talk.said[0].siblings == () and talk.leaf_of == {1: 4, 2: 3}
    assert talk.said[1].marks == ("● kept",) and talk.left_out == 0
    other = conversation(found, 1)
    assert [each.node for each in other.said] == [0, 1, 4] and other.leaf == 4
    said = other.said[1]
    assert (said.num_tokens, said.mean_logprob) == (3, pytest.approx(-1.0)) and [bar.step for bar in said.bars] == [
        0,
        4,
        2,
    ]
    assert [conversation(found, leaf).leaf for leaf in (0, 4, 5, -1)] == [3, 4, 3, 3]
    straight = conversation(trace(nodes=nodes[:2]))
    assert straight.said[1].siblings == () and straight.leaf == 1
    empty = conversation(trace())
    assert (empty.said, empty.leaf, empty.num_leaves) == ((), None, 0)
    long = trace(nodes=tuple(Node(None if at == 0 else at - 1, user(str(at))) for at in range(403)))
    cut = conversation(long)
    assert len(cut.said) == 400 and cut.left_out == 3 and [each.node for each in cut.said[199:201]] == [199, 203]


def test_parts_are_shown_as_they_are_up_to_a_length() -> None:
    message = Message("assistant", (
        Text("abcdef"), Reasoning("why so", {}), ToolCall("1", "go", {"ö": 1}), ToolCall("2", "go", {}, "{bad"),
        ToolResult("1", "n" * 300, "result", is_error=True, origin="o" * 500),
    ))  # fmt: skip
    assert message_blocks(message, 4) == (
        Block("text", "abcd", left_out=2), Block("reasoning", "why ", left_out=2), Block("call", '{\n "', "go", left_out=7),
        Block("call", "{bad", "go", is_error=True), Block("result", "resu", "n" * 200, "o" * 400, True, 2),
    )  # fmt: skip
    assert message_blocks(message)[2].text == '{\n "ö": 1\n}'


def test_tokens_are_coloured_by_how_sure_the_model_was() -> None:
    steps = [logprob_step(math.log(p)) for p in (0.901, 0.899, 0.501, 0.499, 0.101, 0.099, 0.0101, 0.0099, 0.001)]
    assert (
        steps == [0, 1, 1, 2, 2, 3, 3, 4, 4]
        and logprob_step(-math.inf) == logprob_step(math.nan) == 4
        and logprob_step(0.5) == 0
    )
    half = math.log(0.5)
    assert entropy_of([half, half]) == pytest.approx(math.log(2)) and entropy_of([0.0]) == 0.0
    assert entropy_of([half]) == pytest.approx(math.log(2)) and entropy_of(
        [math.log(0.25), -math.inf]
    ) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert laid_out("ab c", ["a", "b", " c"]) == ["a", "b", " c"] and laid_out("ab c!", ["a", "b", " c"]) == [
        "a",
        "b",
        " c!",
    ]
    assert laid_out("axxb", ["a", None, "b"]) == ["a", "xx", "b"] and laid_out("axx", ["a", None, None]) is None
    assert laid_out("a", ["a", "<end>"]) == ["a", ""] and laid_out("axyb", ["a", "q", "b", "<end>"]) == [
        "a",
        "xy",
        "b",
        "",
    ]
    assert laid_out("", []) is None and laid_out("abcd", ["b", "x", "y"]) is None
    sampled = Sampled((1, 2), (half, -3.0))
    nodes = (Node(None, user("q")), Node(0, Message("assistant", (Text("Hi!"),), sampled)))
    top = [[["Hi", half], ["Ho", math.log(0.25)]], [["!", -3.0], ["?", -0.1]]]
    found = tokens_of(trace(nodes=nodes, calls=(call(":0", 0.0, nodes=(0, 1), detail={"top_logprobs": [[], top]}),)), 1)
    assert [(each.text, each.logprob, each.logprob_step) for each in found] == [("Hi", half, 2), ("!", -3.0, 3)]
    assert found[0].others == (("Hi", pytest.approx(0.5)), ("Ho", pytest.approx(0.25))) and found[0].entropy_step == 3
    assert found[1].entropy_step == sum(found[1].entropy > bound for bound in (0.1, 0.5, 1.0, 2.0))
    for detail in ({"top_logprobs": [[], top[:1]]}, {"top_logprobs": [[]]}, {"top_logprobs": 3}, {}):
        assert tokens_of(trace(nodes=nodes, calls=(call(":0", 0.0, nodes=(0, 1), detail=detail),)), 1) == ()


def test_the_six_most_probable_alternatives_of_a_token_are_shown_and_its_entropy_counts_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seven = [[each, -1.0 - number] for number, each in enumerate("abcdefg")]
    nodes = (Node(None, Message("assistant", (Text("cz"),), Sampled((1, 2), (-3.0, 1e-9)))),)
    detail = {"top_logprobs": [[seven, [["z", 1e-9], ["y", -1e4]]]]}
    made = trace(nodes=nodes, calls=(call(":0", 0.0, nodes=(0,), detail=detail),))
    monkeypatch.setattr(token_colours, "MAX_TOKENS", 1)
    assert tokens_of(made, 0) == ()
    monkeypatch.setattr(token_colours, "MAX_TOKENS", 2)
    first, second = tokens_of(made, 0)
    assert first.others == tuple((each, math.exp(value)) for each, value in seven[:6])
    assert (first.text, first.logprob, first.logprob_step) == ("c", -3.0, 3)
    known = [math.exp(value) for _, value in seven]
    assert (
        first.entropy == pytest.approx(-sum(p * math.log(p) for p in (*known, 1 - sum(known)))) and second.entropy == 0
    )
    assert (second.text, second.others, second.logprob_step) == ("z", (("z", 1.0), ("y", 0.0)), 0)


def test_votes_fates_and_the_budget_of_an_attempt() -> None:
    limits = {"tokens": 2500, "calls": 4, "seconds": 8, "cost_usd": 1.5, "depth": 64}
    calls = (
        call(":0", 0.0, usage=Usage(1000, 0, 400, 0.25)),
        call(":1", 0.0, kind="tool"),
        call(":2", 0.0, kind="guard"),
    )
    events = (
        Event("branch", 0.0, {"at": 0, "status": "pruned", "text": "odd"}),
        Event("branch", 0.0, {"at": 0, "status": "kept"}),
        Event("branch", 0.0, {"path": "3", "status": "pruned"}),
    )  # fmt: skip
    facts = attempt_facts(trace(agent={"limits": limits}, calls=calls, events=events, nodes=(Node(None, user("q")),)))
    assert facts.budget == ("1.4k of 2.5k tokens", "2 of 4 calls", "4.0 s of 8.0 s", "$0.25 of $1.50")
    assert facts.fates == (("pruned", 2), ("kept", 1)) and [each.node for each in facts.branches] == [0, 0, None]
    assert [each.words for each in facts.branches] == ["✗ pruned: odd", "● kept", "✗ pruned"] and facts.votes == ()
    assert attempt_facts(trace(agent={"limits": {"tokens": True, "calls": 0, "seconds": 1e15}})).budget == ()
    assert attempt_facts(trace(agent={"limits": [1]})).budget == () and attempt_facts(trace()).branches == ()


def test_two_attempts_part_where_a_step_differs() -> None:
    def made(*steps: tuple[str, Any]) -> Trace:
        nodes, calls = [], []
        for at, (name, said) in enumerate(steps):
            if name:
                calls.append(call(f":{at}", 0.0, kind="tool", detail={"name": name, "arguments": said}))
            else:
                nodes.append(Node(None, assistant(said)))
                calls.append(call(f":{at}", 0.0, nodes=(len(nodes) - 1,)))
        return trace(nodes=tuple(nodes), calls=tuple(calls))

    a = made(("", "think"), ("go", {"b": 1, "a": 2}), ("", "x"), ("stop", {}))
    b = made(("", "think"), ("go", {"a": 2, "b": 1}), ("", "y"), ("look", {}), ("stop", {}))
    found = trace_difference(a, b)
    assert [(each.change, each.a and each.a.ref, each.b and each.b.ref) for each in found.steps] == [
        ("same", "call:0", "call:0"), ("same", "call:1", "call:1"), ("changed", "call:2", "call:2"),
        ("added", None, "call:3"),
        ("same", "call:3", "call:4"),
    ]  # fmt: skip
    assert (found.first, found.num_same) == (2, 3) and trace_difference(a, a).first is None
    back = trace_difference(b, a)
    assert [each.change for each in back.steps] == ["same", "same", "changed", "removed", "same"]
    failed = trace(
        calls=(call(":0", 0.0, kind="tool", detail={"name": "go", "arguments": {"a": 2, "b": 1}}, error="gone"),)
    )
    assert trace_difference(a, failed).steps[1].b.text == "gone"  # type: ignore[union-attr]
