"""What is made of a received trace, part by part: its tree, conversation, question, task, summary, and alerts about many."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from answering_server import answer, served
from firsthand.errors import ConfigError
from firsthand.ingest.alert_delivery import _append, deliver
from firsthand.ingest.alert_rules import Alert, AlertRule, WindowValue, chart_of
from firsthand.ingest.as_trace import (
    _asked_and_answered,
    _content,
    _Conversation,
    _inner_generations,
    _last_user,
    _when,
    _words,
    question_of,
    trace_of,
)
from firsthand.ingest.dialects.span_facts import SpanContent, SpanFacts, TraceValues
from firsthand.ingest.incoming_span import MOST_NS, IncomingSpan, SpanKind, StoredSpan
from firsthand.ingest.retention import age_of, size_of
from firsthand.ingest.span_tree import (
    AGAIN,
    BACKWARDS,
    LOOP,
    NO_PARENT,
    UNFINISHED,
    PlacedSpan,
    _loop_starts,
    _remarks,
    arranged,
)
from firsthand.ingest.task_rows import task_row
from firsthand.ingest.trace_summary import TraceSummary
from firsthand.message import Message, ToolResult, assistant, system, user
from firsthand.model import Usage
from firsthand.tools.web.addresses import Rules
from firsthand.trace import Call, Event, Failure, Node

S = 1_000_000_000


def stored(id: str, what: SpanKind = "span", parent: str = "", start: float = 0, end: float | None = None, seq: int = 0, *,
           copy: int = 0, error: str | None = None, usage: Usage | None = None, label: str = "", model: str = "",
           service: Any = None, **attributes: Any) -> StoredSpan:  # fmt: skip
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    stop = start + 1 if end is None else end
    span = IncomingSpan("t", id, parent, f"n-{id}", int(start * S), int(stop * S), named, error=error)
    span.resource = {} if service is None else {"service.name": service}
    return StoredSpan(seq, span, what, label, model, usage or Usage(), copy)


OI = {"openinference__span__kind": "CHAIN"}
LLM = {"gen_ai__operation__name": "chat"}


# -- the tree --


def test_spans_are_placed_below_their_parents_by_start_then_by_arrival() -> None:
    given = [stored("c", parent="a", start=5), stored("a", start=3), stored("d", parent="a", start=5), stored("b", start=2),
             stored("e", parent="c", start=1), stored("f", parent="a", start=4), stored("a", start=9, copy=1)]  # fmt: skip
    a, again = given[1], given[6]
    assert arranged(given) == [
        PlacedSpan(given[3], 3, 0, -1), PlacedSpan(a, 1, 0, -1), PlacedSpan(given[5], 5, 1, 1),
        PlacedSpan(given[0], 0, 1, 1),
        PlacedSpan(given[4], 4, 2, 3), PlacedSpan(given[2], 2, 1, 1), PlacedSpan(again, 6, 0, -1, (AGAIN,)),
    ]  # fmt: skip
    for span, parent, is_loop, remarks in (
        (stored("x"), -1, False, ()), (stored("x", parent="p"), -1, False, (NO_PARENT,)),
        (stored("x", parent="p"), 0, False, ()),
        (stored("x", parent="p"), -1, True, (LOOP,)), (stored("x", start=2, end=0), -1, False, (UNFINISHED,)),
        (stored("x", start=2, end=1), -1, False, (BACKWARDS,)), (stored("x", start=2, end=2), -1, False, ()),
        (stored("x", parent="p", start=2, end=1, copy=2), -1, False, (NO_PARENT, BACKWARDS, AGAIN)),
    ):  # fmt: skip
        assert _remarks(span, parent, is_loop) == remarks
    spans = [stored(str(at), start=start) for at, start in enumerate((5, 3, 4, 1, 3, 2))]
    assert _loop_starts([1, 2, 0, 0, 5, 4], spans) == {1, 5}, "of each loop the first; what hangs below one is none"
    assert _loop_starts([-1, 0, 1, 2], spans) == set() == _loop_starts([], []) and _loop_starts([0], spans) == {0}
    equal = [stored("x", start=1), stored("y", start=1)]
    assert _loop_starts([1, 0], equal) == {0}


# -- the conversation --


def test_equal_prefixes_are_one_path_of_messages() -> None:
    said = _Conversation(TraceValues())
    assert said.path([]) is None and said.path([], 7) == 7
    assert said.path([system("s"), user("q")]) == 1 and said.path([system("s"), user("q")]) == 1
    assert said.path([user("q")]) == 2 and said.path([user("r")], 1) == 3 and said.node(1, user("r")) == 3
    assert said.node(1, assistant("r")) == 4
    assert said.nodes == [
        Node(None, system("s")),
        Node(0, user("q")),
        Node(None, user("q")),
        Node(1, user("r")),
        Node(1, assistant("r")),
    ]
    assert said.node(None, user("\ud800")) == 5
    words = [user("a"), assistant("b"), user(" "), Message("tool", (ToolResult("c", "f", "x"),))]
    assert _last_user(words) == "a" and _words(words) == _last_user(words[1:]) == "x" and _words(words[:3]) == "b"
    assert _words([]) == _last_user([]) == _words([user(" ")]) == ""
    assert _when(1_500_000_000) == "1970-01-01T00:00:01.500000+00:00"
    assert _when(10**30) == _when(0) == "1970-01-01T00:00:00+00:00"
    held = stored("x", "generate", **OI, input__value="q")
    assert _content(held) == SpanContent([user("q")]) and _content(stored("x")) == SpanContent()
    held.span.attributes[5] = 1  # type: ignore[index]
    held.span.attributes["gen_ai.system"] = "x"
    held.span.events = [5]  # type: ignore[list-item]
    assert _content(held) == SpanContent(), "what cannot be read says nothing"


def test_of_a_generation_within_another_one_is_left_out() -> None:
    some, none = Usage(1, 0, 2), Usage()

    def inner(*usages: Usage, between: int = 0) -> set[str]:
        spans, parent = [], ""
        for number, usage in enumerate(usages):
            spans.append(stored(f"g{number}", "generate", parent, usage=usage))
            parent = f"g{number}"
            for step in range(between):
                spans.append(stored(f"{parent}.{step}", "chain", parent))
                parent = f"{spans[-1].span.span_id}"
        return set(_inner_generations(spans[::-1]))

    assert inner(some) == set() and inner(some, some) == inner(none, none) == inner(some, none) == {"g1"}
    assert inner(none, some) == {"g0"} and inner(none, Usage(0, 5, 0)) == {"g1"}, "tokens of the cache alone are none"
    assert inner(none, some, between=7) == {"g0"} and inner(none, some, between=8) == set()
    assert inner(none, none, some) == {"g1"} and inner(some, some, some) == {"g1", "g2"}
    assert (
        _inner_generations([stored("a", "generate", "a"), stored("b", "generate", "zz"), stored("c", "chain", "b")])
        == {}
    )
    assert _inner_generations([stored("a", "embed", "b"), stored("b", "generate")]) == {}


def test_a_trace_is_read_in_the_order_of_starts() -> None:
    asked = '[{"role": "user", "content": "q"}]'
    answers = '[{"role":"assistant","content":"a"},{"role":"assistant","content":"b"}]'
    given = [
        stored("r", "chain", start=10, end=20, seq=9, service="", **OI, output__value="final"),
        stored("g", "generate", "r", 11, 13, 2, usage=Usage(3, 1, 2, 0.5), model="m", service="shop",
               gen_ai__input__messages=asked, gen_ai__output__messages=answers,
               **LLM),
        stored("x", "tool", "r", 14, 13, 5, label="f", gen_ai__tool__call__arguments="[]",
               gen_ai__tool__call__result="2", **LLM),
        stored("e", "embed", "r", 14, 16, 4, error="", openinference__span__kind="EMBEDDING", input__value="t"),
        stored("a", "agent", "r", 15, 25, 6, error="bad"), stored("h", "generate", "g", 12, 13, 7, **LLM),
        stored("z", "guard", "r", 0, 0, 1),
    ]  # fmt: skip
    made = trace_of("t", given)
    none = "0" * 64
    tool = {"name": "f", "arguments": [], "result": "2", "is_error": False, "span": "x"}
    embed = {"name": "n-e", "arguments": "t", "result": "", "is_error": True, "span": "e"}
    assert made.calls == (
        Call(
            ":0", "generate", 0, 1.0, 2.0, none, Usage(3, 1, 2, 0.5), (1, 2), {"name": "n-g", "model": "m", "span": "g"}
        ),
        Call(":1", "tool", 2, 4.0, 2.0, none, Usage(), (), embed, error=""),
        Call(":2", "tool", 2, 4.0, 0.0, none, Usage(), (), tool),
    )
    assert made.events == (
        Event("guard", 0.0, {"name": "n-z", "span": "z", "took_s": 0.0}),
        Event("chain", 0.0, {"name": "n-r", "span": "r", "took_s": 10.0}),
        Event("generate", 2.0, {"name": "n-h", "span": "h", "took_s": 1.0}),
        Event("error", 5.0, {"name": "n-a", "span": "a", "took_s": 10.0}),
    )  # fmt: skip
    assert made.nodes == (Node(None, user("q")), Node(0, assistant("a")), Node(0, assistant("b")))
    assert (made.agent, made.started_at, made.duration_s, made.answer, made.stop_reason, made.error) == (
        {"name": "shop", "model": "m"}, "1970-01-01T00:00:10+00:00", 15.0, "final", "done", None,
    )  # fmt: skip
    assert _asked_and_answered(given)[:3] == ("q", "final", None) and question_of(given) == "q"
    failed = trace_of("u", [stored("r", "chain", error="", **OI, input__value="why", output__value="so")])
    assert (failed.id, failed.task_id, failed.stop_reason, failed.error) == ("u", "u", "error", Failure("span", ""))
    assert failed.nodes == (Node(None, user("why")), Node(0, assistant("so"))) and failed.answer == "so"
    begun = trace_of("u", [stored("a", start=10, end=12), stored("b", start=15, end=0), stored("c", start=11, end=9)])
    assert begun.duration_s == 5.0, "what has not ended counts from its start"
    only = trace_of("u", [stored("r", "chain", **OI, output__value="so")])
    assert only.nodes == (Node(None, assistant("so")),) and only.agent == {"name": "unknown", "model": ""}


def test_a_question_or_answer_that_the_root_lacks_is_that_of_its_generations() -> None:
    def asks(start: float, question: str, answer: str) -> StoredSpan:
        said = {
            "gen_ai__input__messages": f'["{question}"]',
            "gen_ai__output__messages": f'[{{"role": "assistant", "content": "{answer}"}}]',
        }
        return stored(f"g{start}", "generate", "r", start, **LLM, **said)

    root = stored("r", "agent", error="down")
    both = [asks(5, "second", "late"), asks(3, "first", "early"), asks(7, "third", " ")]
    assert _asked_and_answered([*both, root])[:3] == ("first", "late", "down") and _asked_and_answered([])[:3] == (
        "",
        "",
        None,
    )
    answered = stored("r", "chain", **OI, output__value="own")
    assert _asked_and_answered([answered, *both])[:3] == ("first", "own", None)
    asked = stored("r", "chain", **OI, input__value="own")
    assert _asked_and_answered([asked, *both])[:3] == ("own", "late", None)
    tool = stored("r", "tool", openinference__span__kind="TOOL", input__value='{"x": 1}', output__value="[2]")
    assert _asked_and_answered([tool, *both])[:3] == ('{"x": 1}', "[2]", None)


def test_a_task_is_the_question_with_what_was_said_before_it() -> None:
    before = '[{"role":"system","content":"s1"},{"role":"system","content":"s2"},{"role":"user","content":"u1"},'
    before += '{"role":"tool","content":"t"},{"role":"assistant","content":"a1"},{"role":"user","content":"q"}]'
    generation = stored(
        "g",
        "generate",
        "r",
        2,
        gen_ai__input__messages=before,
        gen_ai__output__messages='["ans"]',
        session__id=0,
        **LLM,
    )
    root = stored("r", "agent", start=1, error="late", session__id=7)
    row = {"id": "t9", "question": "q", "answer": "ans", "system": "s1\n\ns2", "history": "user: u1\nassistant: a1",
           "cluster": "0", "name": "n-r", "error": "late", "conversation": [
               {"role": "system", "content": "s1"}, {"role": "system", "content": "s2"}, {"role": "user", "content": "u1"},
               {"role": "tool", "tool_call_id": "", "name": "", "content": "t"}, {"role": "assistant", "content": "a1"},
           ]}  # fmt: skip
    assert task_row("t9", [generation, root]) == row
    alone = task_row("t8", [generation])
    assert alone == {**row, "id": "t8", "cluster": "0", "name": "n-g", "error": ""}, "without a root the first span"
    parts = [stored("x", "tool", "gone", start=5), stored("y", "tool", "gone", start=1)]
    assert task_row("t6", parts)["name"] == "n-x", "the first as they were given"
    plain = task_row("t7", [stored("r", "chain", **OI, input__value="why")])
    assert plain == {
        "id": "t7",
        "question": "why",
        "answer": "",
        "system": "",
        "history": "",
        "cluster": "t7",
        "name": "n-r",
        "error": "",
    }


# -- the summary --


def test_a_summary_takes_each_text_from_the_best_and_earliest_source() -> None:
    made = TraceSummary("t")

    def add(id: str, parent: str, start: int, end: int, facts: SpanFacts, service: str = "", **more: Any) -> None:
        made.add(IncomingSpan("t", id, parent, f"n{id}", start, end, **more), facts, service)

    add("1", "p", 20, 25, SpanFacts("generate", input="g20", output="o25"), "a")
    add("2", "p", 20, 25, SpanFacts("generate", input="tie", output="tie"), "b")
    assert (made.name, made.service, made.input, made.output) == ("n1", "a", "g20", "o25"), "of equals the first"
    add("3", "p", 10, 40, SpanFacts("chain", input="c", output="c"), "c")
    assert (made.name, made.service, made.input, made.output) == ("n3", "c", "g20", "o25")
    add("4", "", 30, 35, SpanFacts("chain", input="", output="r35", tags=("x", "y")), "")
    assert (made.name, made.name_rank, made.service, made.input, made.output) == ("n4", 0, "c", "g20", "r35")
    add("5", "", 29, 34, SpanFacts("chain", input="r29", output="r34", tags=("y", "z|w", "")), "d")
    assert (made.name, made.service, made.input, made.output, made.tags) == ("n5", "d", "r29", "r35", "|x|y|z w||")
    add("6", "", 0, 0, SpanFacts("rerank", "m", 9, 9, 9, 9.0, error="x"), redactions=4)
    assert (made.first_ns, made.last_ns, made.num_spans, made.num_errors, made.redactions) == (10, 40, 6, 1, 4)
    assert (made.prompt_tokens, made.cost_usd, made.model, made.name_ns) == (9, 9.0, "", 0)
    add("7", "p", 50, 45, SpanFacts("embed", "m\ud800", 1, 2, 3, 0.5, "s\ud800", "u" * 301), error="")
    assert (made.last_ns, made.num_errors, made.model, made.session, made.user) == (
        50,
        2,
        "m\\ud800",
        "s\\ud800",
        "u" * 300,
    )
    assert (made.prompt_tokens, made.cached_tokens, made.completion_tokens, made.cost_usd) == (10, 11, 12, 9.5)
    assert made.duration_s == pytest.approx(4e-8) and made.has_root
    made.tags = "|" + "x" * 1999
    add("8", "p", 51, 52, SpanFacts(tags=("more",)))
    assert made.tags == "|" + "x" * 1999 and TraceSummary("t", 9, 5).duration_s == 0
    body = IncomingSpan(
        "t", "s", "", "n", 1, MOST_NS + 1, {"a": 1}, [{"e": 1}], [{"l": 1}], {"r": 1}, "sc", 2, "e", 3
    ).body()
    assert body == {
        "attributes": {"a": 1},
        "events": [{"e": 1}],
        "links": [{"l": 1}],
        "scope": "sc",
        "kind": 2,
        "times": [1, MOST_NS + 1],
    }


# -- alerts --


def test_a_rule_holds_beyond_its_limits_alone() -> None:
    def charted(
        metric: str, last: float | None, *before: tuple[float | None, int], sigmas: float = 2.0, count: int = 4
    ) -> Any:
        rule = AlertRule(f"{metric}~", metric, "~", sigmas, 60.0)
        return rule._charted(WindowValue(last, count), [WindowValue(*each) for each in before], 120.0)

    steps = [(float(value), 1) for value in (1, 3, 1, 3, 1, 3, 1, 3)]  # mean 2, moving range 2
    sigma = 2 / 1.128
    assert chart_of([1.0, 3.0, 1.0, 3.0]) == (2.0, pytest.approx(sigma)) and chart_of([4.0]) == (4.0, 0.0)
    assert charted("seconds", 2 + 2 * sigma, *steps) is None and charted("seconds", 2 - 2 * sigma, *steps) is None
    above, below = charted("seconds", 5.6, *steps), charted("seconds", -1.6, *steps)
    limits = "the limits -1.546 to 5.546 of the 8 windows before"
    assert above == Alert("seconds~", 5.6, f"seconds is 5.6, above {limits}", 120.0)
    assert below == Alert("seconds~", -1.6, f"seconds is -1.6, below {limits}", 120.0)
    assert charted("seconds", 9.0, *steps[1:]) is None and charted("seconds", None, *steps) is None
    assert charted("seconds", 9.0, *steps, (None, 0)) is not None
    for metric in ("traces", "cost", "spans"):
        assert charted(metric, 9.0, (0.0, 0), *steps[1:]) is None, "before the first trace nothing was measured"
        assert (
            charted(metric, 9.0, (0.0, 0), *steps) is not None
            and charted(metric, 9.0, *steps[:4], (0.0, 0), *steps[4:]) is not None
        )
    assert charted("tokens", 99.0, (0.0, 0), *steps[1:]) is not None
    flat = [(0.5, 10)] * 8
    assert charted("seconds", 0.5, *flat) is None and charted("seconds", 0.6, *flat) is not None
    spread = math.sqrt(0.25 / 4)
    assert (
        charted("errors", 0.5 + 2 * spread, *flat) is None and charted("errors", 0.51 + 2 * spread, *flat) is not None
    )
    uneven = [(0.0, 30), *[(1.0, 1)] * 7]  # 7 of 37 traces, not the mean of the shares
    share = 7 / 37
    found = charted("errors", 1.0, *uneven, sigmas=1.0)
    wide = max(1 / 7 / 1.128, math.sqrt(share * (1 - share) / 4))
    assert (
        found.said == f"errors is 1, above the limits {share - wide:.4g} to {share + wide:.4g} of the 8 windows before"
    )
    for text, seconds in (("5m", 300), (" 2H ", 7200), ("1d", 86_400), ("3w", 1_814_400), ("999999m", 59_999_940)):
        assert age_of(text) == seconds
    for text, size in (("1KB", 1000), (" 20mb", 20_000_000), ("3GB", 3 * 10**9), ("1tb", 10**12)):
        assert size_of(text) == size
    for text in ("0m", "1", "m", "1.5h", "1000000m", "5s", "-1h"):
        with pytest.raises(ConfigError) as refused:
            age_of(text, "cold")
        assert str(refused.value) == f"cold is {text!r}: give a number with m, h, d or w, as in 30d"
    for text in ("0GB", "5", "5B", "1.5GB"):
        with pytest.raises(ConfigError) as refused:
            size_of(text)
        assert str(refused.value) == f"keep_size is {text!r}: give a number with KB, MB, GB or TB, as in 10GB"


def test_an_alert_is_a_line_at_the_end_of_its_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("before\n")
    alert = Alert("r>1/1m", 1.5, "é", 9.25)
    assert asyncio.run(deliver(alert, str(out), Rules())) == ""
    _append(out, "é")
    assert out.read_text() == 'before\n{"rule": "r>1/1m", "value": 1.5, "message": "\\u00e9", "at": 9.25}\né\n'
    _append(tmp_path / "new", "x")
    assert (tmp_path / "new").read_text() == "x\n" and (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    assert asyncio.run(deliver(alert, str(tmp_path), Rules())) == f"{tmp_path} cannot be written: Is a directory"

    async def called(port: int, rules: Rules) -> str:
        inward = await deliver(alert, f"http://127.0.0.1:{port}/hook", Rules(ports=rules.ports))
        assert "which is no public address" in inward
        return await deliver(alert, f"http://127.0.0.1:{port}/hook", rules)

    said, (request,) = served([answer()], called)
    assert (
        said == ""
        and request.startswith("POST /hook HTTP/1.1\r\n")
        and request.endswith('\r\n\r\n{"rule": "r>1/1m", "value": 1.5, "message": "\\u00e9", "at": 9.25}')
    )
