"""Attempts and traces that are asked for again: by another name, after a score, a later try, or a change of their file."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import UnknownName
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import user
from firsthand.runs import store
from firsthand.studio import incoming_traces, kept_traces
from firsthand.studio.incoming_query import IncomingQuery
from firsthand.studio.incoming_rows import incoming_detail, incoming_spans_json
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.kept_traces import KeptTraces
from firsthand.studio.live_events import changes, version_of
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.paced_pair import MOST_PER_S, PacedPair
from firsthand.trace import Event, Failure, Node, Score, Trace


def attempt(id: str, place: str = "place", **more: Any) -> Trace:
    return Trace(id, "quiz", "t", {"name": "ann"}, 0, 0, "", 1.0, place=place, **more)


def test_an_attempt_is_the_same_by_each_of_its_names_until_it_is_scored_or_made_again(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "r", command=["x"]) as run:
        first = attempt("first", error=Failure("NetError", "gone"), stop_reason="error")
        run.append(first)
        kept = KeptTraces()
        one = kept.get(run, "place")
        assert kept.get(run, "first") is one and kept.get(run, "quiz/t/ann") is one and kept.get(run, "pl") is one
        run.add_score(first, 1, "note.a", "x", Score("note.a", 0.25))
        scored = kept.get(run, "first")
        assert scored is not one and [score.value for score in scored.head.scores] == [0.25]
        run.append(attempt("second", scores=(Score("exact", 0.5),)))
        run.append(attempt("other", "elsewhere"))
        second = kept.get(run, "place")
        assert (second.number, [score.value for score in second.head.scores]) == (2, [0.5]), (
            "the note is of the first try"
        )
        run.add_score(first, 2, "note.a", "x", Score("note.a", 0.75))
        assert [score.value for score in kept.get(run, "second").trace.scores] == [0.5, 0.75]
        assert (kept.get(run, "first").number, len(kept._kept)) == (1, 5)
        with store.open_run(run.id, tmp_path) as again:
            assert kept.get(again, "second").run is again and kept.get(run, "second").run is run


def test_the_spans_of_a_text_that_utf_8_cannot_hold_are_sent_too(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "r", command=["x"]) as run:
        run.append(attempt("a", events=(Event("note", 0.5, {"k": "x\ud800"}), Event("note", 0.25, {"k": 0}))))
        kept = KeptTraces().get(run, "a")
        columns = json.loads(kept.spans)["columns"]
        assert columns["label"] == ["t", "note k=0", "note k=x\ud800"] and columns["start"] == [0.0, 250.0, 500.0]
        assert (kept.has_messages, kept.size, kept.first_spans["total"]) == (False, 2, 3)


def test_the_last_attempt_is_kept_however_large_and_the_ones_before_it_by_their_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.create(tmp_path, {}, "r", command=["x"]) as run:
        for n in range(3):
            run.append(attempt(f"x{n}", f"p{n}", events=(Event("note", 0.0, {}),) * (n + 1)))
        kept = KeptTraces()
        for most, order in ((3, ["p0", "p1"]), (2, ["p1"])):
            monkeypatch.setattr(kept_traces, "MOST_CALLS", most)
            kept._kept.clear()
            for place in ("p0", "p1"):
                kept.get(run, place)
            assert [key[1] for key in kept._kept] == order, most
        assert kept.get(run, "p2") is kept.get(run, "p2")


def test_of_the_attempts_that_were_looked_at_the_one_not_asked_for_longest_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_traces, "MOST_KEPT", 2)
    with store.create(tmp_path, {}, "r", command=["x"]) as run:
        for n in range(3):
            run.append(attempt(f"x{n}", f"p{n}"))
        kept = KeptTraces()
        first, second = kept.get(run, "p0"), kept.get(run, "p1")
        assert kept.get(run, "p0") is first
        kept.get(run, "p2")
        assert kept.get(run, "p0") is first and kept.get(run, "p1") is not second


def stored(home: Path, *spans: IncomingSpan) -> IncomingTraces:
    taken = TraceStore(home, create=True)
    taken.add(SpanPreparer(Redactor()).prepared(list(spans)))
    taken.close()
    return IncomingTraces(home)


def span(trace: str, number: int, begun: int, ended: int, **more: Any) -> IncomingSpan:
    return IncomingSpan(trace, f"{number:016x}", more.pop("parent", ""), f"s{number}", begun, ended, {}, **more)


def test_a_span_that_ends_before_it_begins_and_one_of_no_time_leave_the_others_where_they_are(tmp_path: Path) -> None:
    second, id = 10**9, "ab" * 16
    traces = stored(
        tmp_path, span(id, 1, 5 * second, 7 * second), span(id, 2, 9 * second, 3 * second, error=""), span(id, 3, 0, 0)
    )
    kept = traces.get(id)
    body = incoming_spans_json("title", kept.spans)
    rows = dict(
        zip(
            body["columns"]["label"],
            zip(body["columns"]["start"], body["columns"]["duration"], strict=True),
            strict=True,
        )
    )
    named = {label.partition(" ")[0]: times for label, times in rows.items()}
    assert named == {"title": (0.0, 4000.0), "s1": (0.0, 2000.0), "s2": (4000.0, 0.0), "s3": (0.0, 0.0)}
    assert body["duration"] == 4000.0 and body["columns"]["trouble"][0] == 1 and kept.failed_row > 0
    (number,) = [n for n, each in enumerate(kept.spans) if each.span.name == "s2"]
    facts = dict(incoming_detail(kept.spans, f"span:{number}").facts)
    assert (facts["error"], facts["took"]) == ("unknown", "0.000 s")
    for ref in (f"span:{len(kept.spans)}", "span:²", "span:-1", "span:", "call:0", "span:0000000000", "SPAN:0"):
        with pytest.raises(UnknownName, match="the trace has no span"):
            incoming_detail(kept.spans, ref)
    assert traces.store is not None
    for text, found in (("id:ABAB", 1), ("id:abab", 1), ("id:b", 0), ("-id:AB", 0), ("seconds=4", 1), ("spans=3", 1)):
        assert IncomingQuery.parse(text).page(traces.store).total == found, text


def test_a_store_that_comes_later_is_found_and_a_trace_that_grows_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces, id = IncomingTraces(tmp_path), "cd" * 16
    assert (traces.store, traces.version) == (None, "")
    stored(tmp_path, span(id, 1, 1, 2))
    first, version = traces.get(id), traces.version
    assert traces.get(id) is first and version and len(first.spans) == 1
    stored(tmp_path, span(id, 2, 3, 4, error="late"))
    second = traces.get(id)
    assert second is not first and len(second.spans) == 2 and traces.version != version and second.failed_row > 0
    others = ["ef" * 16, "01" * 16]
    stored(tmp_path, *(span(each, 1, 1, 2) for each in others))
    traces.get(others[0])
    stored(tmp_path, span(id, 3, 5, 6))
    monkeypatch.setattr(incoming_traces, "MOST_KEPT", 2)
    assert len(traces.get(id).spans) == 3
    traces.get(others[1])
    assert list(traces._kept) == [id, others[1]], "one that was read again was looked at last"


def test_of_twenty_topics_a_page_hears_and_of_those_named_twice_once(tmp_path: Path) -> None:
    runs = OpenRuns(tmp_path)

    async def told(topics: list[str], seen: list[str], count: int) -> list[str]:
        stream = changes(topics, runs, seen=" ".join(seen), poll_s=0.0)
        found = [await anext(stream) for _ in range(count + 1)][1:]
        await stream.aclose()  # type: ignore[attr-defined]
        return [json.loads(each.partition("data: ")[2])["topic"] for each in found]

    many = [f"run:{n}" for n in range(19)]
    topics = ["a", *["a"] * 5, *many, "late"]
    assert asyncio.run(asyncio.wait_for(told(topics, ["x"] * 40, 20), 10)) == ["a", *many]
    assert asyncio.run(asyncio.wait_for(told(["traces", "runs"], ["e3b0c44298fc1c14", "x"], 1), 10)) == ["runs"]
    assert [version_of(topic, runs) for topic in ("run", "run:", "traces")] == ["", "", ""]


def test_two_answers_begin_together_and_time_that_was_not_used_is_no_credit() -> None:
    pair = PacedPair()
    assert pair.advance(5, False, 0, False, 1.0) == (0, 0) and pair.advance(5, False, 0, True, 2.0) == (0, 0)
    assert not pair.is_over
    pair = PacedPair()
    assert pair.advance(10_000, True, 10_000, False, 0.0) == (0, 0)
    assert pair.advance(10_000, True, 10_000, False, 100.0) == (MOST_PER_S, MOST_PER_S), "a second's at most"
    assert pair.advance(10_000, True, 10_000, False, 99.0) == (600, 600), "a clock that goes back allows nothing"
    empty = PacedPair()
    assert empty.advance(0, True, 0, True, 3.0) == (0, 0) and empty.is_over


def test_a_protected_attempt_has_the_scores_that_it_was_given_later_and_not_their_text(tmp_path: Path) -> None:
    secret = "the withheld words of this task"
    own, late = Score("exact", 0.5, {"why": secret}), Score("note.a", 0.25, {"why": secret})
    for id, events in (("open", ()), ("guarded", (Event("protected", 0.0, {"why": "canary"}),))):
        with store.create(tmp_path, {}, id, command=["x"]) as run:
            made = attempt(id, nodes=(Node(None, user(secret)),), events=events, scores=(own,))
            run.append(made)
            run.add_score(made, 1, "note.a", "x", late)
            run.add_score(made, 1, "note.a", "x", replace(late, value=0.75))
            kept = KeptTraces().get(run, id)
            scores = [("exact", 0.5), ("note.a", 0.75)]
            assert [(each.name, each.value) for each in kept.head.scores] == scores
            assert [(each.name, each.value) for each in kept.trace.scores] == scores
            told = json.dumps(kept.body) + repr(kept.head) + repr(kept.trace)
            assert (secret in told) is (id == "open")
            assert (kept.head.nodes, kept.head.calls, kept.head.events, len(kept.trace.nodes)) == ((), (), (), 1)
