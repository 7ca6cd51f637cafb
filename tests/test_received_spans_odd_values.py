"""Values of attributes one by one, trees of spans with several loops, targets of alerts, and files of tasks."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, MissingExtra, StoreError, UnknownName
from firsthand.ingest.alert_delivery import check_target, deliver
from firsthand.ingest.alert_rules import Alert, AlertRule, WindowValue, chart_of
from firsthand.ingest.dialects.span_facts import (
    _is_flat,
    cost_in,
    count_of_tokens,
    message,
    number_of,
    parsed,
    shown,
    text_of,
    words_of,
)
from firsthand.ingest.incoming_span import MOST_NS, IncomingSpan, SpanKind, StoredSpan
from firsthand.ingest.intake import IntakeSettings
from firsthand.ingest.redaction import PUT, Redactor
from firsthand.ingest.retention import age_of, size_of
from firsthand.ingest.span_tree import AGAIN, BACKWARDS, LOOP, NO_PARENT, UNFINISHED, arranged
from firsthand.ingest.task_rows import write_tasks
from firsthand.ingest.trace_evaluation import Evaluation, is_sampled, score_name
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import Message, Text
from firsthand.tools.web.addresses import Rules
from received_spans import names, ready


def test_values_are_read_in_each_form_that_senders_write() -> None:
    a = {
        "none": None,
        "empty": "",
        "zero": 0,
        "float": 0.0,
        "yes": True,
        "list": [1],
        "text": " x",
        "neg": -1,
        "str": "3.9",
    }
    assert [text_of(a, *each) for each in (("none", "empty", "zero"), ("yes", "float"), ("list", "text"), ("gone",),
        ("yes",))] == [
        "0", "0.0", " x", "", "",
    ]  # fmt: skip
    big = 1 << 40
    counts = {
        **a,
        "most": big,
        "more": big + 1,
        "huge": 1e20,
        "nan": float("nan"),
        "half": 2.9,
        "long": "1" * 40,
        "e": "1e2",
    }
    assert [count_of_tokens(counts, name) for name in ("most", "more", "huge", "half", "str", "e", "yes", "list",
        "neg")] == [
        big, big + 1, 10**15, 2, 3, 100, 0, 0, 0,
    ]  # fmt: skip
    assert count_of_tokens(counts, "none", "neg", "nan", "long", "zero", "half") == 0, "zero is a number of tokens"
    assert count_of_tokens(counts, "none", "neg", "nan", "long", "yes", "half") == 2
    assert [cost_in(counts, *each) for each in (("neg", "str"), ("float", "str"), ("huge",), ("yes", "text"))] == [
        3.9,
        0.0,
        1e12,
        0.0,
    ]
    assert [number_of(each) for each in ("1" * 39, "1" * 40, " 2 ", "", "inf", float("inf"), -0.0, None, False)] == [
        float("1" * 39), None, 2.0, None, None, None, 0.0, None, None,
    ]  # fmt: skip
    deep = "[" * 64 + "]" * 64
    assert isinstance(parsed(deep), list) and parsed("[" + deep + "]") == "[" + deep + "]" and parsed("[1") == "[1"
    assert (
        parsed("[" + "[],{}," * 40 + "1]")[-1] == 1
        and parsed(' {"a": 1}') == ' {"a": 1}'
        and parsed("") == ""
        and parsed(0) == 0
    )
    nested: Any = 1
    for levels in range(66):
        assert _is_flat(nested) is (levels <= 64), levels
        nested = {"k": nested} if levels % 2 else [0, nested]
    assert (
        words_of('["a", 1, null]') == ("a", "1", "None")
        and words_of("[bad") == ("[bad",)
        and words_of("") == () == words_of({"a": 1})
    )
    assert len(words_of(["x" * 201] * 51)) == 50 and words_of(["x" * 201])[0] == "x" * 200 == words_of("x" * 201)[0]
    assert [shown(each) for each in (None, "", 0, "é", ["é", Path("p")])] == ["", "", "0", "é", '["é", "p"]']
    assert [message(role, ()).role for role in ("Developer", "AI", "function", "stranger", "", None)] == [
        "system", "assistant", "tool", "user", "assistant", "assistant",
    ]  # fmt: skip
    assert message("user", iter([Text("a")])) == Message("user", (Text("a"),)) and message(0, ()).parts == (Text(""),)


def test_several_loops_are_cut_at_their_first_span_each() -> None:
    def stored(
        id: str, parent: str = "", start: int = 5, end: int = 9, copy: int = 0, what: SpanKind = "span"
    ) -> StoredSpan:
        return StoredSpan(0, IncomingSpan("t", id, parent, id, start, end), what, copy=copy)

    given = [
        stored("a", "b", 4), stored("b", "c", 3), stored("c", "a", 3), stored("x", "x", 2, 1), stored("under", "c",
            9, 0),
        stored("lost", "gone", 1), stored("root", "", 1), stored("root", "", 0, copy=1), stored("low", "root", 7),
            stored("far", "under", 1),
    ]  # fmt: skip
    placed = arranged(given)
    assert [(each.stored.span.span_id, each.number, each.depth, each.parent, each.remarks) for each in placed] == [
        ("root", 7, 0, -1, (AGAIN,)), ("lost", 5, 0, -1, (NO_PARENT,)), ("root", 6, 0, -1, ()), ("low", 8, 1, 2, ()),
        ("x", 3, 0, -1, (LOOP, BACKWARDS)), ("b", 1, 0, -1, (LOOP,)), ("a", 0, 1, 5, ()), ("c", 2, 2, 6, ()),
        ("under", 4, 3, 7, (UNFINISHED,)), ("far", 9, 4, 8, ()),
    ]  # fmt: skip
    assert arranged([]) == []


def test_a_body_keeps_times_beyond_the_largest_of_the_store() -> None:
    span = IncomingSpan("t", "1", "", "n", MOST_NS, MOST_NS, {"a": 0})
    assert span.body() == {"attributes": {"a": 0}}
    span.end_ns, span.kind, span.scope = MOST_NS + 1, 5, "s"
    span.links, span.events = [{"trace_id": "x"}], [{"name": "e"}]
    assert span.body() == {
        "attributes": {"a": 0}, "events": [{"name": "e"}], "links": [{"trace_id": "x"}], "scope": "s", "kind": 5,
        "times": [MOST_NS, MOST_NS + 1],
    }  # fmt: skip


def test_one_batch_may_hold_a_span_twice_and_what_ends_it(tmp_path: Path) -> None:
    store = TraceStore(tmp_path, create=True)
    try:
        batch = [
            ready("t", "1", end=0),
            ready("u", "1"),
            ready("t", "1", end=0),
            ready("t", "1", end=30),
            ready("t", "2", end=0, body=b'{"a":1}'),
        ]
        assert store.add(batch) == 3 and names(store) == ["t", "u"]
        assert [(each.span.span_id, each.span.end_ns) for each in store.spans("t")] == [("1", 30), ("2", 0)]
        assert [(store.summary(each).num_spans, store.summary(each).last_ns) for each in ("t", "u")] == [
            (2, 30),
            (1, 20),
        ]
        assert store.add([ready("u", "1"), ready("t", "3")]) == 1 and store.summary("u").num_spans == 1
        assert store.add([ready("u", "1"), ready("t", "3")]) == 0
        version = store.version
        store.add_score("u", "s", "x", 1.0)
        assert store.version != version
        for unknown, said in (("x" * 81, "x" * 80), ("\ud800", "\\ud800"), ("", "")):
            with pytest.raises(UnknownName) as refused:
                store.summary(unknown)
            assert str(refused.value) == f"no trace '{said}': it has not come, or was older than is kept"
            assert store.spans(unknown) == store.scores(unknown) == [] and store.scores_of([unknown]) == {}
    finally:
        store.close()
    again = TraceStore(tmp_path)
    try:
        assert len(again.spans("t")) == 3 and [row[:2] for row in again.scores("u")] == [("s", 1.0)]
    finally:
        again.close()


def test_targets_of_alerts_are_files_in_folders_that_are_there_or_allowed_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    secure = Rules(ports=frozenset({443, 99}))
    for fine in (
        "alerts.jsonl",
        str(tmp_path / "new"),
        "https://h.example/x",
        "https://h.example:99",
        "http://h.example:443/",
    ):
        check_target(fine, secure)
    for wrong, why in (
        ("gone/alerts", "alert_to is 'gone/alerts': give a file in a folder that is there, or http(s)://..."),
        ("ftp://h", "alert_to is 'ftp://h': give a file in a folder that is there, or http(s)://..."),
        ("http://h.example", "alert_to was refused: port 80 may not be used: 99, 443 may"),
        ("https://h.example:80", "alert_to was refused: port 80 may not be used: 99, 443 may"),
    ):
        with pytest.raises(ConfigError) as refused:
            check_target(wrong, secure)
        assert str(refused.value) == why
    alert = Alert("errors>0.1/1h", 0.25, "é", 7.5)
    assert [asyncio.run(deliver(alert, "out", secure)) for _ in range(2)] == ["", ""]
    line = '{"rule": "errors>0.1/1h", "value": 0.25, "message": "\\u00e9", "at": 7.5}\n'
    assert Path("out").read_text() == line * 2 and Path("out").stat().st_mode & 0o777 == 0o600
    assert asyncio.run(deliver(alert, str(tmp_path), secure)) == f"{tmp_path} cannot be written: Is a directory"


def test_tasks_are_written_only_where_nothing_is(tmp_path: Path) -> None:
    rows = [{"id": "é", "question": "q\ud800"}, {"id": "2", "question": ""}]
    out = tmp_path / "my tasks.v1.toml"
    assert write_tasks(out, iter(rows), 'exact "q"') == 2
    table = tmp_path / "my tasks.v1.jsonl"
    assert table.read_text() == '{"id": "\\u00e9", "question": "q\\ud800"}\n{"id": "2", "question": ""}\n'
    assert out.read_text().splitlines() == [
        'data = "my tasks.v1.jsonl"', 'prompt = "{question}"', 'target = "{answer}"', 'id = "{id}"', 'cluster = "{cluster}"',
        'scorer = ["exact \\"q\\""]', 'description = "Tasks of recorded traces; the expected answer is what was recorded."',
    ]  # fmt: skip
    out.unlink()
    for given in (out, table):
        with pytest.raises(StoreError) as taken:
            write_tasks(given, rows, "x")
        assert str(taken.value) == f"{table} is there already: give another file, or remove it"
    for name in ("x.TOML", "x.json", "x"):
        with pytest.raises(ConfigError) as refused:
            write_tasks(tmp_path / name, rows, "x")
        assert str(refused.value).startswith(f"out is {str(tmp_path / name)!r}: give a file .toml")
    with pytest.raises(StoreError) as missing:
        write_tasks(tmp_path / "no" / "x.jsonl", rows, "x")
    assert str(missing.value) == f"{tmp_path / 'no' / 'x.jsonl'} cannot be written: No such file or directory"
    assert write_tasks(tmp_path / "none.jsonl", [], "x") == 0 and not (tmp_path / "none.toml").exists()


def test_ages_sizes_shares_and_charts_at_their_ends() -> None:
    assert [age_of(" 1M "), age_of("2h"), age_of("1d"), age_of("999999w")] == [
        60.0,
        7200.0,
        86400.0,
        999_999 * 604_800.0,
    ]
    assert [size_of("1kb"), size_of(" 2MB"), size_of("3GB"), size_of("4tb")] == [
        10**3,
        2 * 10**6,
        3 * 10**9,
        4 * 10**12,
    ]
    for reader, wrong, why in (
        (age_of, "0d", "keep is '0d': give a number with m, h, d or w, as in 30d"), (age_of, "1000000m",
            "keep is '1000000m'"),
        (age_of, "1.5h", "keep is '1.5h'"), (size_of, "0MB", "keep_size is '0MB'"), (size_of, "5", "keep_size is '5'"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            reader(wrong)
        assert str(refused.value).startswith(why)
    for share in (0.0, 1.0001, -0.5):
        with pytest.raises(ConfigError, match="give a share of the traces above 0 and up to 1"):
            Evaluation((), share=share)
    ids = [f"{n:032x}" for n in range(400)]
    assert all(is_sampled(each, 1.0) for each in ids) and not any(is_sampled(each, 0.0) for each in ids)
    half = {each for each in ids if is_sampled(each, 0.5)}
    assert 160 < len(half) < 240 and {each for each in ids if is_sampled(each, 0.25)} < half

    class Named:
        name = "own"

    assert score_name(Named()) == "own" and score_name(lambda: 0) == "<lambda>" and score_name(object()) == "score"  # type: ignore[arg-type]
    assert chart_of([4.0]) == (4.0, 0.0) and chart_of([1.0, 2.0, 0.0]) == (1.0, pytest.approx(1.5 / 1.128))
    totals = AlertRule.parse("traces~1/1m")
    before = [WindowValue(0.0, 0)] * 4
    known = [WindowValue(float(n), int(n)) for n in (2, 4, 2, 4, 2, 4, 2)]
    assert totals._charted(WindowValue(99.0, 9), [*before, *known], 1.0) is None, "seven windows with traces"
    told = totals._charted(WindowValue(0.0, 0), [*before, *known, WindowValue(0.0, 0)], 1.0)
    assert told is not None and told.said == "traces is 0, below the limits 0.727 to 4.273 of the 8 windows before"


def test_sealing_at_once_needs_what_seals_and_keeping_nothing_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert IntakeSettings(keep_s=0.0, keep_bytes=0).cold_s is None
    with pytest.raises(MissingExtra, match="duckdb"):
        IntakeSettings(cold_s=0.0)


def test_a_secret_in_the_name_or_the_error_alone_is_found() -> None:
    key = "sk-" + "A" * 16
    for field in ("name", "error", "scope"):
        span = IncomingSpan("t", "1", "", "n", 1, 2, {"a": "b"})
        setattr(span, field, f"x {key}.")
        Redactor().redact(span)
        assert (getattr(span, field), span.redactions) == (f"x {PUT}.", 1), field
    short = IncomingSpan("t", "1", "", "sk-" + "A" * 15, 1, 2, {"m": "to https://h a@b", "u": "ftp://me:pw@h/x"})
    body = Redactor().redact(short)
    assert short.name == "sk-" + "A" * 15 and json.loads(body) == {
        "attributes": {"m": "to https://h a@b", "u": f"ftp://{PUT}@h/x"}
    }
    own = IncomingSpan("t", "1", "", "aXbX", 1, 2, {"X": "X", "password": "p"}, error="")
    Redactor(["X"], defaults=False).redact(own)
    assert (own.name, own.attributes, own.error, own.redactions) == (
        f"a{PUT}b{PUT}",
        {PUT: PUT, "password": "p"},
        "",
        4,
    )
    kept = SpanPreparer(Redactor(["shop"])).prepared(
        [IncomingSpan("t", "1", "", "n", 1, 2, resource={"service.name": "my shop"})]
    )
    assert kept[0].resource[1:] == (json.dumps({"service.name": f"my {PUT}"}).encode(), f"my {PUT}")
