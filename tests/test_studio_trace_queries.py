"""Queries over received traces, the rows of their trees, and the contents of their spans, each called by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from firsthand.errors import ConfigError, UnknownName
from firsthand.ingest.incoming_span import MOST_NS, IncomingSpan, StoredSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.model import Usage
from firsthand.runs.store import create
from firsthand.studio import incoming_traces
from firsthand.studio.attempt_query import AttemptQuery
from firsthand.studio.branch_conversation import Block
from firsthand.studio.incoming_query import DayRow, GroupRow, IncomingQuery, _condition, _holds
from firsthand.studio.incoming_rows import (
    _label,
    _ms,
    _short,
    _when,
    incoming_detail,
    incoming_spans_json,
    raw_spans,
    shown_spans,
)
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.span_detail import SpanMessage
from firsthand.studio.span_search import spans_holding
from firsthand.studio.typed_filter import Term, holds
from firsthand.studio.views import incoming_views
from firsthand.trace import Trace
from studio_page_outline import asked
from studio_small_home import DAY, SECOND, entered
from studio_varied_home import T, write_traces


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    write_traces(folder)
    return folder


@pytest.fixture(scope="module")
def taken(home: Path) -> Iterator[TraceStore]:
    found = TraceStore(home)
    yield found
    found.close()


def numbers(rows: Any) -> list[int]:
    return [int(row.trace, 16) for row in rows]


def test_traces_are_found_by_each_field_and_flag(taken: TraceStore) -> None:
    for text, found in {
        "": [6, 5, 3, 4, 2, 1], "ask": [5, 4, 2, 1], "name=ask": [4, 2, 1], "name=ASK_IT": [5], "name:sk_i": [5],
        "name:a_k": [], "-name=ask": [6, 5, 3], "here": [1], "wait": [3], "model=BIG": [1], "service:an": [5],
        "session=s1": [4, 2, 1], "user:an": [3, 4, 1], "user=an": [], "input:now": [3], "output:now": [], "output:er": [1],
        "spans>1": [2], "spans>=1 errors<1": [6, 5, 3, 1], "errors=2": [2], "errors:1": [4], "tokens>35": [1],
        "tokens>=35": [3, 1], "cost>0": [1], "cost<0.5": [6, 5, 3, 4, 2], "seconds>5": [4], "seconds<=2": [5, 3],
        "day=1970-01-03": [5, 3], "day:01-04": [6], "redactions=0 user=cat": [5], "tag=red": [5], "tag:re": [5],
        "tag=re": [], "tag:RED": [5], f"id:{T[2]}": [2], f"id:{'0' * 31}": [6, 5, 3, 4, 2, 1], "has:error": [4, 2],
        "-has:error": [6, 5, 3, 1], "has:root": [5, 3, 4, 2, 1], "has:session": [3, 4, 2, 1], "has:user": [5, 3, 4, 2, 1],
        "has:score": [3, 1], "has:redaction": [], "score.exact>0.5": [3], "score.exact=0.5": [1], "score.exact:0.25": [],
        "-score.exact>0.5": [1], "-score.exact<0.6": [3], "-score.absent=1": [], "score.kind>=1": [1],
        "session=s1 -user=ann": [2],
    }.items():  # fmt: skip
        assert numbers(IncomingQuery.parse(text).page(taken).rows) == found, text
    with pytest.raises(ConfigError) as told:
        IncomingQuery.parse("", "-name")
    assert str(told.value) == (
        "traces cannot be sorted by '-name': they can by started, changed, spans, errors, tokens, cost, seconds"
    )


def test_conditions_of_traces_are_sql_with_their_values() -> None:
    def made(field: str, operator: Any, value: str) -> tuple[str, list[Any]]:
        sql, values = _condition(Term(field, operator, value))
        return sql, list(values)

    names = ("name", "input", "output", "service", "models", "session", "user")
    assert made("", ":", "A_b%\\") == (
        "(" + " OR ".join(rf"{name} LIKE ? ESCAPE '\'" for name in names) + ")", ["%a\\_b\\%\\\\%"] * 7,
    )  # fmt: skip
    assert made("id", ":", "AB") == ("(trace >= ? AND trace < ?)", ["ab", "ab\U0010ffff"])
    assert made("tag", "=", "Red") == ("instr(lower(tags), ?)", ["|red|"])
    assert made("tag", ":", "Red") == ("instr(lower(tags), ?)", ["red"])
    assert made("tokens", ":", "3") == ("(prompt_tokens + completion_tokens) = ?", [3.0])
    assert made("spans", ">=", "3") == ("num_spans >= ?", [3.0])
    assert made("user", "=", "Ann") == ("lower(user) = ?", ["ann"])
    assert made("user", ":", "Ann") == (r"user LIKE ? ESCAPE '\'", ["%ann%"])
    sql, values = made("score.Exact", "<", "0.5")
    assert sql.endswith(" ORDER BY seq DESC LIMIT 1) < ?") and values == ["Exact", 0.5]
    assert _holds("c", "a_")[1] == r"%a\_%" and _holds("c", "É%ß") == ("instr(folded(c), ?)", "é%ss")


def test_names_are_found_whatever_their_case_in_every_alphabet(tmp_path: Path) -> None:
    """As the list of values writes them, in other cases, and negated."""
    users = ["Éva", "Ömer", "Иван", "ΟΔΥΣΣΕΥΣ", "Straße", "Anna"]
    prepared = SpanPreparer(Redactor(()))
    with closing(TraceStore(tmp_path, create=True)) as store:
        for number, user in enumerate(users, 1):
            span = IncomingSpan(
                f"{number:032x}", f"{number:016x}", "", "x", 1, 2, {"user.id": user}, [], [], {}, "", 0, None, 0
            )
            store.add(prepared.prepared([span]))

        def found(text: str) -> list[int]:
            return sorted(numbers(IncomingQuery.parse(text).page(store).rows))

        for number, user in enumerate(users, 1):
            others = [each for each in range(1, 7) if each != number]
            for word in (user, user.lower(), user.casefold()):
                for text in (f"user={word}", f"user:{word}", word):
                    assert (found(text), found(f"-{text}")) == (([number], others) if not word.isascii() or user.isascii()
                                                                else ([], [*range(1, 7)])), text  # fmt: skip


def test_attempts_are_found_whatever_the_case_of_their_names(tmp_path: Path) -> None:
    with create(tmp_path, {}, "r") as run:
        for number, task in enumerate(("Éva", "STRASSE", "x")):
            made = Trace(f"t{number}", "b", task, {"name": "Ömer"}, 0, 0, "2026-01-02", 0.0, place=f"p{number}")
            run.append(made)

        def found(text: str) -> list[str]:
            return [row.task_id for row in AttemptQuery.parse(text).page(run.database).rows]

        assert [found(each) for each in ("task=éva", "task=ÉVA", "-task=Éva", "task:ÉV", "éva", "task=straße")] == [
            ["Éva"], ["Éva"], ["STRASSE", "x"], ["Éva"], ["Éva"], ["STRASSE"],
        ]  # fmt: skip
        assert len(found("agent=ömer")) == 3 and found("error:É") == [] and len(found("-error=É")) == 3
        for word in ("straße", "strasse", "STRASSE", "éva", "x"):
            for operator in "=:":
                found_in_python = [each for each in ("Éva", "STRASSE", "x") if holds(Term("", operator, word), each)]
                assert found(f"task{operator}{word}") == found_in_python
    for value, word in (("Straße", "strasse"), ("ﬁnal", "final"), ("\u212aate", "kate")):
        assert not holds(Term("a", "=", word), value) and not holds(Term("a", ":", word), [value])
        assert holds(Term("a", "=", value), word.upper()) and holds(Term("a", ":", word), f"A {word.upper()} B")
    assert holds(Term("a", "=", "ΟΔΟΣ"), "οδος") and holds(Term("a", ":", "É"), ["x", "éva"])


def test_traces_are_sorted_paged_and_have_neighbours(taken: TraceStore) -> None:
    for sort, order in {
        "": [6, 5, 3, 4, 2, 1], "started": [1, 2, 4, 3, 5, 6], "-spans": [2, 6, 5, 4, 3, 1], "spans": [1, 3, 4, 5, 6, 2],
        "-errors": [2, 4, 6, 5, 3, 1], "-tokens": [1, 3, 6, 5, 4, 2], "-cost": [1, 6, 5, 4, 3, 2],
        "seconds": [5, 3, 2, 1, 6, 4], "-changed": [3, 1, 6, 5, 4, 2],
    }.items():  # fmt: skip
        query = IncomingQuery.parse("", sort)
        page = query.page(taken, 0, 10)
        if sort != "-changed":
            assert (numbers(page.rows), page.total, page.start) == (order, 6, 0), sort
        else:
            assert numbers(page.rows)[:2] == [3, 1], "those that got a score last"
        order = numbers(page.rows)
        beside = [[each and int(each, 16) for each in query.beside(taken, row)] for row in page.rows]
        assert beside == [[a, b] for a, b in zip([None, *order[:-1]], [*order[1:], None], strict=True)], sort
    query = IncomingQuery.parse("-user=cat")
    page = query.page(taken, 1, 2)
    assert (numbers(page.rows), page.total, page.start, page.next_start) == ([3, 4], 5, 1, 3)
    negative = query.page(taken, -3, 1)
    assert (numbers(negative.rows), negative.start) == ([6], 0)
    one, six = (query.page(taken).rows[place] for place in (-1, 0))
    assert query.beside(taken, one) == (T[2], None) and query.beside(taken, six) == (None, T[3])
    assert query.beside(taken, replace(one, trace="none")) == (None, None)
    left_out = IncomingQuery.parse("").page(taken, 1, 1).rows[0]  # which the filter does not find, has neighbours too
    assert query.beside(taken, left_out) == (T[6], T[3])


def test_values_of_traces_are_counted_the_most_frequent_first(taken: TraceStore) -> None:
    assert IncomingQuery.parse("").facets(taken) == {
        "service": [("bank", 1), ("shop", 1)], "model": [("big", 1), ("small", 1)],
        "name": [("ask", 3), ("ask_it", 1), ("orphan", 1), ("plan", 1)], "user": [("ann", 3), ("bob", 1), ("cat", 1)],
        "session": [("s1", 3), ("s2", 1)],
    }  # fmt: skip
    assert IncomingQuery.parse("-user=ann").facets(taken, 2) == {
        "service": [("bank", 1)], "model": [], "name": [("ask", 1), ("ask_it", 1)], "user": [("bob", 1), ("cat", 1)],
        "session": [("s1", 1)],
    }  # fmt: skip


def test_a_trace_with_two_failed_spans_is_one_failed_trace_of_its_session_user_and_day(taken: TraceStore) -> None:
    query, none = IncomingQuery.parse(""), IncomingQuery.parse("user=zed")
    second = (DAY + 86_400 * SECOND, DAY + 86_402 * SECOND)
    assert query.groups(taken, "session") == [
        GroupRow("s2", 1, 0, 35, 0.0, *second, 1), GroupRow("s1", 3, 2, 107, 0.5, DAY, DAY + 36 * SECOND, 2),
    ]  # fmt: skip
    assert query.groups(taken, "user") == [
        GroupRow("cat", 1, 0, 0, 0.0, second[0] + 5 * SECOND, second[0] + 6 * SECOND, 0),
        GroupRow("ann", 3, 1, 142, 0.5, DAY, second[1], 2),
        GroupRow("bob", 1, 1, 0, 0.0, DAY + 10 * SECOND, DAY + 13 * SECOND, 1),
    ]  # fmt: skip
    assert [row.name for row in query.groups(taken, "user", 1, 1)] == ["ann"] and none.groups(taken, "user") == []
    assert [row.name for row in query.groups(taken, "user", -5, 2)] == ["cat", "ann"]
    days = [
        DayRow("1970-01-04", 1, 0, 0, 0.0, 5.0, 5.0), DayRow("1970-01-03", 2, 0, 35, 0.0, 1.0, 2.0),
        DayRow("1970-01-02", 3, 2, 107, 0.5, 4.0, 6.0),
    ]  # fmt: skip
    assert query.days(taken) == days and query.days(taken, 1, 1) == days[1:2] and query.days(taken, -1, 2) == days[:2]
    assert none.days(taken) == [] and IncomingQuery.parse("-user=ann").days(taken)[2] == DayRow(
        "1970-01-02", 1, 1, 0, 0.0, 3.0, 3.0
    )


def test_a_session_stands_where_its_newest_trace_began_however_long_an_older_one_took(tmp_path: Path) -> None:
    prepared = SpanPreparer(Redactor(()))
    with closing(TraceStore(tmp_path, create=True)) as store:
        for number, (session, begun, ended) in enumerate((("long", 0, 900), ("short", 10, 20)), 1):
            times = DAY + begun * SECOND, DAY + ended * SECOND
            span = IncomingSpan(f"{number:032x}", f"{number:016x}", "", "x", *times, {"session.id": session})
            store.add(prepared.prepared([span]))
        assert [row.name for row in IncomingQuery.parse("").groups(store, "session")] == ["short", "long"]


def stored(
    number: int, name: str = "work", start_ms: float = 0, end_ms: float = 0, parent: int = 0, what: Any = "span",
    label: str = "", model: str = "", usage: Usage | None = None, copy: int = 0, **more: Any,
) -> StoredSpan:  # fmt: skip
    start, end = (DAY + int(each * 1e6) if each else 0 for each in (start_ms, end_ms))
    span = IncomingSpan("7" * 32, f"{number:016x}", f"{parent:016x}" if parent else "", name, start, end, **more)
    return StoredSpan(number, span, what, label, model, usage or Usage(), copy)


def test_rows_of_a_received_tree_have_times_tokens_and_failures_from_below() -> None:
    spans = [
        stored(1, "root", 10, 50.5, what="agent", label="guide"),
        stored(2, "tool call", 20, 25, 1, "tool", "tool"),
        stored(3, "deep", 21, 22.1234567, 2, error=""),
        stored(4, "model", 15, 60, 1, "generate", "", "m", Usage(7, 2, 3, 0.5)),
        stored(5, "late", 0, 0, 9),
        stored(6, "back", 40, 30, 1, copy=1),
    ]
    assert incoming_spans_json("A  title\nhere", spans) == {
        "columns": {
            "kind": ["trace", "span", "agent", "generate", "tool", "span", "span"],
            "label": ["A title here", "late (its parent has not come; it has not ended)", "root guide", "model", "tool call",
                      "deep", "back (it ends before it begins; its id came twice)"],
            "start": [0.0, 0.0, 0.0, 5.0, 10.0, 11.0, 30.0],
            "duration": [50.0, 0.0, 40.5, 45.0, 5.0, 1.123, 0.0],
            "depth": [0, 1, 1, 2, 2, 3, 2],
            "parent": [-1, 0, 0, 2, 2, 4, 2],
            "prompt": [0, 0, 0, 7, 0, 0, 0],
            "answer": [0, 0, 0, 3, 0, 0, 0],
            "cached": [0, 0, 0, 2, 0, 0, 0],
            "trouble": [1, 0, 1, 0, 1, 1, 0],
            "ref": ["", "span:4", "span:0", "span:3", "span:1", "span:2", "span:5"],
        },
        "duration": 50.0,
    }  # fmt: skip
    empty = incoming_spans_json("", [])
    assert {name: len(each) for name, each in empty["columns"].items()} == dict.fromkeys(empty["columns"], 1)
    assert (empty["duration"], empty["columns"]["parent"]) == (0.0, [-1])
    assert (_ms(1_234_567), _ms(-5), _ms(499), _ms(0)) == (1.235, 0.0, 0.0, 0.0)
    assert [len(_label("x" * length)) for length in (119, 120, 121)] == [119, 120, 120]
    assert _label("x" * 121) == "x" * 119 + "…" and _label(" a \t b ") == "a b" and _label("y " * 240)[:5] == "y y y"


def test_a_received_span_is_marked_as_failed_once_however_many_fail_below_it() -> None:
    spans = [stored(1, "root", 10, 50), stored(2, "one", 11, 12, 1, error="e"), stored(3, "two", 13, 14, 1, error="e")]
    assert incoming_spans_json("title", spans)["columns"]["trouble"] == [1, 1, 1, 1]


def test_a_received_span_shows_its_facts_messages_and_data() -> None:
    said = [
        {"role": role, "content": f"word {number}"} for number, role in enumerate(["user", "assistant"] * 21 + ["user"])
    ]
    full = stored(
        1, "n" * 201, 1, 1501, what="generate", label="bot", model="m", usage=Usage(1200, 5, 30, 0.25), scope="lib",
        error="e" * 2001, redactions=3, resource={"service.name": "shop"}, kind=2,
        attributes={"gen_ai.operation.name": "chat", "gen_ai.input.messages": json.dumps(said[:-1]),
                    "gen_ai.output.messages": json.dumps([{"role": "assistant", "content": "done"}])},
    )  # fmt: skip
    detail = incoming_detail([full], "span:0")
    assert detail.title == "n" * 200
    assert detail.facts == (
        ("kind", "generate"), ("span", f"{1:016x}"), ("began", "1970-01-02T00:00:00.001+00:00"), ("took", "1.500 s"),
        ("model", "m"), ("generate", "bot"), ("prompt tokens", "1,200"), ("cached tokens", "5"), ("answer tokens", "30"),
        ("cost", "$0.250000"), ("error", "e" * 2000), ("redacted", "3 values"), ("written by", "lib, GenAI"),
    )  # fmt: skip
    assert [each.node for each in detail.new] == list(range(2, 42)) and detail.num_before == 2
    assert detail.new[0] == SpanMessage(2, "user", (Block("text", "word 2"),))
    assert detail.answers == (SpanMessage(42, "assistant", (Block("text", "done"),)),)
    data = json.loads(detail.data)
    assert list(data) == ["attributes", "kind", "error", "resource"] and data["resource"] == {"service.name": "shop"}
    assert data["kind"] == 2 and detail.left_out == 0
    bare = stored(2, "bare", error="", attributes={"big": "b" * 4003, "list": ["c" * 3990] * 5})
    detail = incoming_detail([full, bare], "span:1")
    assert detail.facts == (
        ("kind", "span"), ("span", f"{2:016x}"), ("began", "1970-01-01T00:00:00.000+00:00"), ("took", "0.000 s"),
        ("error", "unknown"), ("written by", "unknown"),
    )  # fmt: skip
    embedded = incoming_detail([stored(1, "in", 1, 2, what="embed", usage=Usage(7, 0, 0, 0.0))], "span:0")
    assert embedded.facts[4:] == (("prompt tokens", "7"), ("answer tokens", "0"), ("written by", "unknown"))
    assert "b… (3 more characters)" in detail.data and len(detail.data) == 20_000 and detail.left_out > 4000
    for ref in ("span:2", "call:0", "span:", "span:x", "span:-1", "span:" + "0" * 10, "span"):
        with pytest.raises(UnknownName) as told:
            incoming_detail([full, bare], ref)
        assert str(told.value) == f"the trace has no span {ref!r}"
    assert _when(1 << 80) == f"{1 << 80} ns after 1970" and incoming_views._when(1 << 80) == "unknown"
    assert incoming_views._when(DAY + 61 * SECOND) == "1970-01-02 00:01:01"
    asked = Request({"type": "http", "headers": [(b"host", b"studio:81")]})
    assert incoming_views._base(asked) == "http://studio:81"
    assert incoming_views._base(Request({"type": "http", "headers": []})) == "http://127.0.0.1"


def test_long_texts_are_cut_and_deep_data_ends() -> None:
    given = {1: ["abcde", "abcdef", {"k" * 501: 7}], "n": None, "t": (1,)}
    assert _short(given, 0, 5) == {"1": ["abcde", "abcde… (1 more characters)", {"k" * 500: 7}], "n": None, "t": (1,)}
    assert _short("a" * 1240, 0, 5) == "aaaaa… (1,235 more characters)"
    deep: Any = "end"
    for _ in range(102):
        deep = [deep]
    cut = _short(deep, 0)
    for _ in range(101):
        (cut,) = cut
    nested: Any = {"end": 1}
    for _ in range(101):
        nested = {"k": nested}
    shortened = _short(nested, 0)
    for _ in range(101):
        shortened = shortened["k"]
    assert shortened == "…"
    assert cut == "…" and _short([], 101) == "…" and _short([1], 100) == ["…"] and _short("x", 101) == "x"
    span = stored(3, "é", 1, 2, 2, error="bad", attributes={"a": "v" * 200_001}, resource={"r": 1})
    failed = stored(4, "f", error="", events=[{"name": "e"}], links=[{"trace_id": "9"}], scope="lib", kind=3)
    assert [*raw_spans([span, failed, stored(5, "g", 7)])] == [
        {
            "trace_id": "7" * 32, "span_id": f"{3:016x}", "parent_id": f"{2:016x}", "name": "é",
            "start_ns": DAY + 1_000_000, "end_ns": DAY + 2_000_000, "error": "bad",
            "attributes": {"a": "v" * 200_001}, "resource": {"r": 1},
        },
        {
            "trace_id": "7" * 32, "span_id": f"{4:016x}", "parent_id": "", "name": "f", "start_ns": 0, "end_ns": 0,
            "error": "", "attributes": {}, "events": [{"name": "e"}], "links": [{"trace_id": "9"}], "scope": "lib",
            "kind": 3, "resource": {},
        },
        {
            "trace_id": "7" * 32, "span_id": f"{5:016x}", "parent_id": "", "name": "g", "start_ns": DAY + 7_000_000,
            "end_ns": 0, "error": None, "attributes": {}, "resource": {},
        },
    ]  # fmt: skip
    assert (
        '\n   "name": "é",\n' in shown_spans([span], 10**6).text
        and "v… (1 more characters)" in shown_spans([span], 10**6).text
    )


def test_spans_are_found_by_their_names_errors_and_values() -> None:
    spans = [
        stored(1, "Alpha"),
        stored(2, "b", error="ALPHA fails"),
        stored(3, "c", attributes={"alpha": ["beta", {"x": "Gamma"}]}),
        stored(4, "d", events=[{"name": "gamma ray", "at_ns": 1, "attributes": {}}]),
        stored(5, "e", resource={"r": "alpha"}),
    ]  # fmt: skip
    assert [spans_holding(spans, words) for words in (" alPHA ", "gamma", "beta", "ray", "zeta")] == [
        ["span:0", "span:1"], ["span:2", "span:3"], ["span:2"], ["span:3"], [],
    ]  # fmt: skip
    assert len(spans_holding(spans, "")) == 5 and spans_holding(spans, "z" * 500) == []
    with pytest.raises(ConfigError) as told:
        spans_holding(spans, "z" * 1501)
    assert str(told.value) == "the search has 1,501 characters: at most 500 are read"


def test_received_traces_are_kept_until_they_change_and_the_oldest_goes(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = IncomingTraces(tmp_path)
    assert empty.store is None and empty.version == ""
    with pytest.raises(UnknownName, match=f"^no trace '{'x' * 80}': nothing has been received$"):
        empty.get("x" * 81)
    found = IncomingTraces(home)
    assert found.store is found.store and found.store is not None and found.version == found.store.version != ""
    two = found.get(T[2])
    assert found.get(T[2]) is two and (two.summary.trace, len(two.spans), two.failed_row) == (T[2], 3, 3)
    assert [found.get(T[number]).failed_row for number in (1, 4)] == [-1, 1]
    assert json.loads(two.rows) == json.loads(json.dumps(incoming_spans_json("ask", two.spans)))
    assert (two.trace.id, found.get(T[1]).trace.answer) == (T[2], "Here")
    monkeypatch.setattr(incoming_traces, "MOST_KEPT", 2)
    found.get(T[2])
    found.get(T[5])
    assert list(found._kept) == [T[2], T[5]], "what was looked at last stays"
    monkeypatch.setattr(incoming_traces, "MOST_BYTES", 4400)
    assert found.get(T[2]) is two
    found.get(T[6])
    assert list(found._kept) == [T[2], T[6]]
    monkeypatch.setattr(incoming_traces, "MOST_BYTES", 0)
    found.get(T[3])
    assert list(found._kept) == [T[3]], "the last is kept however large it is"
    with pytest.raises(UnknownName, match="it has not come, or was older than is kept"):
        found.get("f" * 32)
    kept = found.get(T[3])
    found.store.add_score(T[3], "late", "judge", 1.0)
    assert found.get(T[3]) is not kept and found.get(T[3]).summary.changed > kept.summary.changed


def test_a_trace_without_times_is_of_no_day_and_of_an_unknown_time(tmp_path: Path) -> None:
    store = TraceStore(tmp_path, create=True)
    spans = [IncomingSpan("9" * 32, f"{1:016x}", "", "idle", 0, 0, {"user.id": "ann"})]
    store.add(SpanPreparer(Redactor()).prepared(spans))
    query = IncomingQuery.parse("seconds=0")
    (row,) = query.page(store).rows
    assert (row.name, row.duration_s, query.days(store)) == ("idle", 0.0, [])
    (group,) = query.groups(store, "user")
    assert (group.name, group.num_traces) == ("ann", 1)
    times = (row.first_ns, row.last_ns, group.first_ns, group.last_ns, MOST_NS, -1)
    assert [incoming_views._when(each) for each in times] == ["unknown"] * 6
    assert incoming_views._when(0) == "1970-01-01 00:00:00" and incoming_views._when(MOST_NS - 1)[:4] == "2262"
    store.close()
    with entered(tmp_path) as client:
        page, status = asked(client, "+/traces", {})
        assert status == 200 and page.endswith(f" idle(/traces/{'9' * 32}) unknown ann 0 ms 1")
        assert asked(client, "/traces/by/users", {})[0].endswith(" ann(/traces?filter=user%3Dann) unknown unknown 1")
