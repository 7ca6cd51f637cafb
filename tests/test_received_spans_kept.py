"""Parts of the store of received spans, each on a small case: what is prepared, rows, copies, counts, scores, segments."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import StoreError, UnknownName
from firsthand.ingest import trace_evaluation, trace_store
from firsthand.ingest.alert_rules import AlertRule, WindowValue
from firsthand.ingest.dialects.span_facts import SpanFacts
from firsthand.ingest.incoming_span import MOST_NS, IncomingSpan, StoredSpan
from firsthand.ingest.kept_resources import KeptResources
from firsthand.ingest.redaction import PUT, Redactor
from firsthand.ingest.trace_evaluation import Evaluation
from firsthand.ingest.trace_store import (
    MAX_COPIES,
    PACKED_BYTES,
    SPAN_COLUMNS,
    Resources,
    SpanPreparer,
    TraceStore,
    _loaded,
    stored_span,
    unpacked,
)
from firsthand.ingest.trace_summary import COLUMNS, TraceSummary
from firsthand.model import Usage
from firsthand.task import Task
from firsthand.trace import Score, Trace
from received_spans import arrived, ready


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    made = TraceStore(tmp_path, create=True)
    yield made
    made.close()


# -- what is prepared --


def test_spans_are_prepared_with_their_facts_and_the_resource_they_share() -> None:
    shared = {"service.name": "é" * 301, "api_key": "abc", "a": 1}
    other = {"service.name": 7}
    spans = [
        IncomingSpan("t", "1", "", "n", 1, 2, {"text": "x" * 50}, resource=shared),
        IncomingSpan(
            "t", "2", "", "n", 1, 2, {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, resource=other
        ),
        IncomingSpan("t", "3", "", "n", 1, 2, {"api_key": "abc", "text": "x" * PACKED_BYTES}, resource=shared),
    ]
    one, two, three = SpanPreparer(Redactor()).prepared(iter(spans))
    kept = {"a": 1, "api_key": PUT, "service.name": "é" * 301}
    body = json.dumps(kept, ensure_ascii=False, sort_keys=True).encode()
    assert one.resource == (hashlib.sha256(body).digest(), body, "é" * 300) and three.resource is one.resource
    assert two.resource[1:] == (b'{"service.name": 7}', "7") and one.span is spans[0]
    assert (one.facts.what, two.facts.what, two.facts.model) == ("span", "generate", "m")
    assert one.body == json.dumps({"attributes": {"text": "x" * 50}}, separators=(",", ":")).encode()
    assert three.span.redactions == 1 and len(three.body) < 1000
    assert (
        zlib.decompress(three.body)
        == json.dumps({"attributes": {"api_key": PUT, "text": "x" * PACKED_BYTES}}, separators=(",", ":")).encode()
    )
    empty = len(b'{"attributes":{"t":""}}')
    for size, is_packed in ((PACKED_BYTES, False), (PACKED_BYTES + 1, True)):
        (made,) = SpanPreparer(Redactor()).prepared(
            [IncomingSpan("t", "1", "", "n", 1, 2, {"t": "x" * (size - empty)})]
        )
        assert (
            made.body.startswith(b"{") is not is_packed and len(unpacked(made.body)["attributes"]["t"]) == size - empty
        )
    odd = IncomingSpan(
        "t", "1", "", "n", 1, 2, {"langfuse.observation.type": "x", "langfuse.observation.usage_details": "{}"}
    )
    odd.attributes["langfuse.observation.level"] = Broken()
    odd.attributes = {5: 1, **odd.attributes}  # type: ignore[dict-item]
    assert SpanPreparer(Redactor(defaults=False)).prepared([odd])[0].facts == SpanFacts()


class Broken:
    def __str__(self) -> str:
        raise ValueError("no")


# -- rows --


def test_a_span_becomes_a_row_with_the_digest_of_what_it_says(store: TraceStore) -> None:
    facts = SpanFacts("tool", "m" * 301, 5, 2, 7, 0.5, label="é" * 301, error="told")
    one = ready("t1", "s1", parent="p", start=MOST_NS + 5, end=MOST_NS + 9, name="n\ud800", facts=facts, body=b"{1}",
                redactions=3, resource=(b"1", b'{"a": 1}', ""))  # fmt: skip
    with store.database.write() as connection:
        resources = KeptResources(connection)
        row = store._row(resources, one, 4)
        again = store._row(resources, ready("t1", "s1", error="", facts=facts, resource=(b"2", b"{}", "")), 0)
        assert resources.id_of(b"1", b"other") == KeptResources(connection).id_of(b"1", b"other") == 1
        assert connection.execute("SELECT id, digest, body FROM resources").fetchall() == [
            (1, b"1", b'{"a": 1}'), (2, b"2", b"{}"),
        ]  # fmt: skip
    head = f"p n\ud800 {MOST_NS} {MOST_NS} told".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(head + b"{1}", digest_size=12).digest()
    assert dict(zip(SPAN_COLUMNS[1:], row, strict=True)) == {
        "trace": "t1", "span": "s1", "copy": 4, "parent": "p", "name": "n\\ud800", "what": "tool", "label": "é" * 300,
        "start_ns": MOST_NS, "end_ns": MOST_NS, "error": "told", "model": "m" * 300, "prompt_tokens": 5, "cached_tokens": 2,
        "completion_tokens": 7, "cost_usd": 0.5, "redactions": 3, "resource": 1, "digest": digest, "body": b"{1}",
    }  # fmt: skip
    assert (again[9], again[16], again[2]) == ("told", 2, 0), "the span's own error goes first, unless it has no text"


def programs(bodies: dict[int, bytes]) -> Resources:
    return Resources(lambda id: [(bodies[id],)] if id in bodies else [])


def test_a_row_becomes_the_span_that_it_was() -> None:
    values = (7, "t", "s", 2, "p", "n", "tool", "l", 10, 20, "e", "m", 5, 1, 3, 0.5, 4, 9)
    held = {
        "attributes": {"a": 1},
        "events": [{"name": "e"}],
        "links": [{"k": 1}],
        "scope": "sc",
        "kind": 3,
        "times": [11, 0],
    }
    found = stored_span((*values, json.dumps(held).encode()), programs({9: b'{"service.name": "x"}', 8: b"{}"}))
    span = IncomingSpan(
        "t", "s", "p", "n", 11, 0, {"a": 1}, [{"name": "e"}], [{"k": 1}], {"service.name": "x"}, "sc", 3, "e", 4
    )
    assert found == StoredSpan(7, span, "tool", "l", "m", Usage(5, 1, 3, 0.5), 2, len(json.dumps(held)))
    bare = stored_span((*values, zlib.compress(b"{}")), programs({8: b"[]"}))
    assert bare.span == IncomingSpan("t", "s", "p", "n", 10, 20, {}, [], [], {}, "", 0, "e", 4)
    assert stored_span((*values[:-1], 8, b"{}"), programs({8: b"[]"})).span.resource == {}, "a damaged one"
    read: list[int] = []
    shared = Resources(lambda id: read.append(id) or [(b'{"a": 1}',)])  # type: ignore[func-returns-value]
    assert shared[3] is shared[3] and shared[4] == {"a": 1} and read == [3, 4], "each is read once"
    assert _loaded(b"[1]") == {} and _loaded('{"a": "\ud800"}'.encode("utf-8", "surrogatepass")) == {"a": "\ud800"}
    unreadable = {"attributes": {"unreadable": "the body of this span is damaged"}}
    assert _loaded(b'{"a"') == _loaded(b"\xff") == _loaded(b"[" * 100_000) == unreadable


def test_one_span_is_new_ends_another_or_is_left_out(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.database.write() as connection:

        def added(*given: Any, **more: Any) -> list[int]:
            found = store._add_one(connection, ready(*given, **more), {}, KeptResources(connection))
            return [1 if before is None else 0 for before in found]

        def kept(span: str) -> list[tuple[int, int, str]]:
            sql = "SELECT copy, end_ns, name FROM spans WHERE span = ? ORDER BY copy"
            return connection.execute(sql, (span,)).fetchall()

        assert added("t", "a") == [1] and added("t", "a") == [] and added("u", "a") == [1]
        assert added("t", "a", name="other") == [1] and kept("a") == [(0, 20, "na"), (0, 20, "na"), (1, 20, "other")]
        assert added("t", "b", end=0, name="one") == [1] and added("t", "b", end=0, name="two") == [1]
        assert added("t", "b", name="done") == [0] and kept("b") == [(0, 20, "done"), (1, 0, "two")]
        assert added("t", "b", name="last", end=30) == [0] and kept("b") == [(0, 20, "done"), (1, 30, "last")]
        assert added("t", "b", name="late", end=0) == [], "what was sent before its end may come after it"
        assert (
            added("t", "b", name="late", end=0, start=11) == [1] and added("t", "b", name="late", end=0, start=11) == []
        )
        monkeypatch.setattr(trace_store, "MAX_COPIES", 3)
        assert added("t", "b", name="more", end=0) == [] and added("t", "b", name="full") == [0]
        assert kept("b") == [(0, 20, "done"), (1, 30, "last"), (2, 20, "full")] and MAX_COPIES == 100


def test_a_trace_through_several_services_is_of_its_root_s(store: TraceStore) -> None:
    gate, shop, bank = (
        (name.encode(), b'{"service.name": "%s"}' % name.encode(), name) for name in ("gate", "shop", "bank")
    )
    store.add([ready("t", "2", parent="1", resource=gate), ready("t", "1", start=15, resource=shop),
               ready("t", "3", parent="1", start=1, resource=bank), ready("u", "9", resource=bank)])  # fmt: skip
    assert (store.summary("t").service, store.summary("t").name, store.summary("u").service) == ("shop", "n1", "bank")
    store.add([ready("t", "2", parent="1", end=99, resource=gate)])
    assert (store.summary("t").service, store.summary("t").last_ns) == ("shop", 99), "one that has ended too"


def test_traces_are_counted_on_from_their_row_also_where_a_span_was_replaced(store: TraceStore) -> None:
    paid = SpanFacts("generate", "m", 5, 1, 3, 0.5, session="s", input="q", output="a")
    resource = (b"r", b'{"service.name": "shop"}', "shop")
    assert (
        store.add([ready("t", "1", facts=paid, resource=resource), ready("u", "1"), ready("t", "2", parent="1", end=0)])
        == 3
    )
    one, other = store.summary("t"), store.summary("u")
    assert abs(one.arrived_s - time.time()) < 100 and one.arrived_s == other.arrived_s
    assert (one.num_spans, one.prompt_tokens, one.service, one.input, one.changed, other.changed) == (
        2,
        5,
        "shop",
        "q",
        1,
        1,
    )
    assert store.add([ready("t", "3", parent="1", error="e")]) == 1
    two = store.summary("t")
    assert (two.num_spans, two.num_errors, two.prompt_tokens, two.changed, two.service) == (3, 1, 5, 2, "shop")
    assert store.add([ready("t", "2", parent="1", end=90), ready("u", "2")]) == 1
    again = store.summary("t")
    assert (again.num_spans, again.num_errors, again.last_ns, again.changed) == (3, 1, 90, 3)
    assert (again.service, again.prompt_tokens, again.input, again.name) == ("shop", 5, "q", "n1")
    assert store.summary("u").num_spans == 2 and store.summary("u").changed == 3
    with store.database.write() as connection:
        connection.execute("INSERT INTO sealed VALUES ('t', 'f')")
    assert store.add([ready("t", "4", parent="1", end=0, facts=paid, error="e", redactions=3)]) == 1
    begun = store.summary("t")
    assert (begun.num_errors, begun.prompt_tokens, begun.completion_tokens, begun.cost_usd) == (2, 10, 6, 1.0)
    assert store.add([ready("t", "4", parent="1", end=95, facts=SpanFacts("generate", "m", 7, 2, 4, 0.75))]) == 0
    ended = store.summary("t")
    assert (ended.num_spans, ended.num_errors, ended.redactions, ended.last_ns) == (4, 1, 0, 95), (
        "though some are sealed"
    )
    assert (ended.prompt_tokens, ended.cached_tokens, ended.completion_tokens, ended.cost_usd) == (12, 3, 7, 1.25)
    with store.database.write() as connection:
        store._summarise(connection, [(ready("v", "1", redactions=2), None), (ready("v", "2", start=5), None)])
    made = store.summary("v")
    assert (made.trace, made.num_spans, made.first_ns, made.redactions, made.changed) == ("v", 2, 5, 2, 6)
    row = tuple(range(len(COLUMNS)))
    assert TraceSummary(*row).row() == row and COLUMNS[:3] == ("trace", "first_ns", "last_ns")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="no trace 'xxxx"):
        store.summary("x" * 90)


def test_spans_and_scores_of_a_trace_are_read_in_order_with_those_that_lie_elsewhere(store: TraceStore) -> None:
    store.add(
        [
            ready("t", "2", resource=(b"1", b'{"a": 1}', "")),
            ready("u", "1"),
            ready("t", "1", resource=(b"2", b"{}", "")),
        ]
    )
    assert [(each.seq, each.span.span_id, each.span.resource) for each in store.spans("t")] == [
        (1, "2", {"a": 1}),
        (3, "1", {}),
    ]
    values = ("t", "9", 0, "", "far", "span", "", 1, 2, None, "", 0, 0, 0, 0.0, 0, 1, b"{}")
    asked: list[Any] = []

    def elsewhere(home: TraceStore, trace: str) -> list[tuple[Any, ...]]:
        asked.append((home is store, trace))
        return [(2, *values), (3, *values)]

    store.read_sealed = elsewhere
    found = [(each.seq, each.span.span_id, each.span.resource) for each in store.spans("t")]
    assert found == [(1, "2", {"a": 1}), (2, "9", {"a": 1}), (3, "1", {})] and asked == [(True, "t")]
    store.add_score("t", "a", "how", 0.5, detail={"é": {1}})
    store.add_score("t", "b", "how", None, "")
    store.add_score("u", "a", "how\ud800", 0.0)
    store.add_score("t", "a", "then", 1.0, "odd")
    assert [row[:4] for row in store.scores("t")] == [("a", 1.0, "odd", "then"), ("b", None, "", "how")]
    assert store.scores("t")[0][4] > 1.7e9 and store.scores("none") == []
    assert store.scores_of(["t", "u", "v"]) == {"t": {"a": 1.0, "b": None}, "u": {"a": 0.0}}
    assert store.scores_of(["u"]) == {"u": {"a": 0.0}} and store.scores_of([]) == {}
    rows = store.database.read("SELECT trace, name, scorer, value, failure, detail FROM scores ORDER BY seq")
    assert rows == [
        ("t", "a", "how", 0.5, None, '{"\\u00e9": "{1}"}'), ("t", "b", "how", None, "", "{}"),
        ("u", "a", "how\\ud800", 0.0, None, "{}"), ("t", "a", "then", 1.0, "odd", "{}"),
    ]  # fmt: skip
    assert (store.summary("t").changed, store.summary("u").changed) == (5, 4)
    assert TraceStore.exists(store.home) and not TraceStore.exists(store.folder)


# -- scores --


def test_a_complete_trace_is_scored_with_its_question_and_what_fails_is_kept(
    store: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"attributes": {"openinference.span.kind": "CHAIN", "input.value": "q", "output.value": "a"}}'
    store.add([ready("t", "1", body=body), ready("u", "1", parent="0"), ready("v", "1"), ready("w", "1")])
    now = 900_000.0
    arrived(store, t=now - 7.0, u=now - 9, v=now - 86_400.0, w=now - 6.9)
    seen: list[Any] = []

    class Judge:
        name = "fit"

        async def __call__(self, task: Task, trace: Trace) -> Score:
            seen.append((task, trace.id, trace.answer))
            return Score("fit", 0.25, {"k": 1}, failure="unsure" if trace.id == "v" else None)

    evaluation = Evaluation((("fit!", Judge()),), settled_s=7.0)  # type: ignore[arg-type]
    assert evaluation._due(store, "fit", now) == ["v", "t"]
    monkeypatch.setattr(trace_evaluation, "_MOST", 1)
    assert evaluation._due(store, "fit", now) == ["v"] and asyncio.run(evaluation.score_some(store, now_s=now)) == 1
    assert (
        asyncio.run(evaluation.score_some(store, now_s=now))
        == 1
        == 1 + asyncio.run(evaluation.score_some(store, now_s=now))
    )
    assert [(task.id, task.prompt, task.secret, id, answer) for task, id, answer in seen] == [
        ("v", "", {"answer": ""}, "v", None), ("t", "q", {"answer": ""}, "t", "a"),
    ]  # fmt: skip
    assert store.scores("t")[0][:4] == ("fit", 0.25, None, "fit!") and store.scores("v")[0][:4] == (
        "fit",
        None,
        "unsure",
        "fit!",
    )
    details = store.database.read("SELECT trace, detail FROM scores ORDER BY seq")
    assert [(trace, json.loads(detail)["k"]) for trace, detail in details] == [("v", 1), ("t", 1)]

    async def broken(task: Task, trace: Trace) -> Score:
        raise StoreError("x" * 600)

    asyncio.run(evaluation._score(store, "t", "n", "typed", broken))
    assert store.scores("t")[1][:4] == ("n", None, "StoreError: " + "x" * 488, "typed")


def test_a_trace_without_times_took_no_seconds(store: TraceStore) -> None:
    facts = SpanFacts("generate", prompt_tokens=5, completion_tokens=2, cost_usd=0.25)
    store.add([ready("t", "1", start=0, end=0, facts=facts), ready("u", "1", start=10**9, end=3 * 10**9, error="e")])
    arrived(store, t=5.0, u=9.0)
    measured = {}
    for metric in ("traces", "errors", "seconds", "p95_seconds", "tokens", "cost", "spans"):
        rule = AlertRule(metric, metric, ">", 0.0, 60.0)
        measured[metric] = [rule.measure(store, *times) for times in ((5.0, 9.0), (5.0, 9.1), (5.1, 9.0))]
    none = WindowValue(None, 0)
    assert measured == {
        "traces": [WindowValue(1.0, 1), WindowValue(2.0, 2), WindowValue(0.0, 0)],
        "errors": [WindowValue(0.0, 1), WindowValue(0.5, 2), none],
        "seconds": [WindowValue(0.0, 1), WindowValue(1.0, 2), none],
        "p95_seconds": [WindowValue(0.0, 1), WindowValue(2.0, 2), none],
        "tokens": [WindowValue(7.0, 1), WindowValue(3.5, 2), none],
        "cost": [WindowValue(0.25, 1), WindowValue(0.25, 2), WindowValue(0.0, 0)],
        "spans": [WindowValue(1.0, 1), WindowValue(2.0, 2), WindowValue(0.0, 0)],
    }


def test_a_span_whose_attributes_are_damaged_is_counted_with_the_others_of_its_trace(store: TraceStore) -> None:
    shop = (b"r", b'{"service.name": "shop"}', "shop")
    chat = SpanFacts("generate", prompt_tokens=5)
    store.add([ready("t", "1", body=b'{"attributes": 5}', resource=shop, error="e", redactions=2),
               ready("t", "2", parent="1", end=0, resource=shop), ready("t", "3", parent="1", facts=chat)])  # fmt: skip
    assert store.add([ready("t", "2", parent="1", end=90, body=b'{"attributes": []}', redactions=1)]) == 0
    made = store.summary("t")
    assert (made.num_spans, made.num_errors, made.redactions, made.prompt_tokens) == (3, 1, 3, 5)
    assert (made.name, made.service, made.first_ns, made.last_ns) == ("n1", "shop", 10, 90)


def test_counts_and_costs_of_langfuse_fit_the_store(store: TraceStore) -> None:
    def one(usage: str, cost: str, number: int) -> IncomingSpan:
        attributes = {"langfuse.observation.type": "generation", "langfuse.observation.model.name": "m",
                      "langfuse.observation.usage_details": usage, "langfuse.observation.cost_details": cost}  # fmt: skip
        return IncomingSpan("t", str(number), "", "n", 1, 2, attributes)

    told = [
        ('{"input": 1e300, "input_cached_tokens": 1e16, "output": 1000000000000001}', '{"total": 1e13}'),
        (f'{{"input": 1{"0" * 400}, "output": 7.9}}', '{"input": 1e308, "output": 1e308}'),
        ('{"input_tokens": 999999999999999}', '{"input": 1, "output": 2}'),
        ('{"input": 0, "prompt_tokens": 9}', '{"input": 1, "total": 0}'),
    ]
    prepared = SpanPreparer(Redactor()).prepared([one(*each, number) for number, each in enumerate(told)])
    found = [each.facts for each in prepared]
    assert [(each.what, each.model) for each in found] == [("generate", "m")] * 4
    assert [(each.prompt_tokens, each.cached_tokens, each.completion_tokens, each.cost_usd) for each in found] == [
        (10**15, 10**15, 10**15, 1e12), (0, 0, 7, 1e12), (10**15 - 1, 0, 0, 3.0), (0, 0, 0, 0.0),
    ]  # fmt: skip
    assert store.add(prepared) == 4 and store.summary("t").prompt_tokens == 2 * 10**15 - 1
