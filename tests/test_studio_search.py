"""Searching the contents of an attempt and of a received trace: which spans hold some words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from firsthand.errors import ConfigError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult, system, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.studio.access import Access
from firsthand.studio.span_search import MAX_WORDS_CHARS, refs_holding
from firsthand.studio.studio_app import create_app
from firsthand.trace import Call, Event, Node, Trace

PORT = 8126


def made() -> Trace:
    """An attempt of two generations around a tool, with a memory call that failed and an event."""
    nodes = (
        Node(None, system("Be brief and KIND.")),
        Node(0, user("How many ducks?")),
        Node(1, Message("assistant", (Reasoning("I need a calculator", {}), ToolCall("c", "count", {"of": "geese"})))),
        Node(2, Message("tool", (ToolResult("c", "count", "seventeen"),))),
        Node(3, Message("assistant", (Text("There are 17."),))),
    )
    zero = "0" * 64
    calls = (
        Call(":0", "generate", 1, 0.0, 1.0, zero, Usage(9, 0, 3), (2,)),
        Call(":1", "tool", 2, 1.0, 1.0, zero, detail={"name": "count", "arguments": {"of": "geese"}, "result": "seventeen"}),
        Call(":2", "generate", 3, 2.0, 1.0, zero, Usage(9, 0, 3), (4,)),
        Call(":3", "memory", None, 3.0, 0.1, zero, error="The disk is full"),
    )  # fmt: skip
    events = (Event("branch", 0.5, {"name": "first", "text": ["pruned, too dear"]}),)
    return Trace("searched", "pond", "t", {"name": "a"}, 0, 0, "2026-11-29T00:00:00+00:00", 4.0, nodes, calls, events)


@pytest.mark.parametrize(
    ("words", "refs"),
    [
        ("kind.", ["call:0"]),  # a message that no call made counts for the first call asked with it
        ("how many", ["call:0"]),
        ("calculator", ["call:0"]),
        ("GEESE", ["call:0", "call:1"]),
        ("seventeen", ["call:1", "call:2"]),
        ("there are 17", ["call:2"]),
        ("disk", ["call:3"]),
        ("too dear", ["event:0"]),
        ("arguments", []),  # names of parts are no contents
        ("nowhere", []),
    ],
)
def test_a_word_is_found_in_messages_arguments_results_errors_and_events(words: str, refs: list[str]) -> None:
    assert refs_holding(made().to_json(), words) == refs


def test_too_long_a_search_is_one_sentence() -> None:
    assert refs_holding(made().to_json(), "x" * MAX_WORDS_CHARS) == []
    with pytest.raises(ConfigError, match="the search has 501 characters"):
        refs_holding(made().to_json(), "x" * (MAX_WORDS_CHARS + 1))


def test_parents_that_loop_or_lead_nowhere_end_the_search() -> None:
    body = made().to_json()
    body["nodes"][0]["parent"] = 1
    assert refs_holding(body, "kind") == ["call:0"]
    body["nodes"][0]["parent"] = 99
    assert refs_holding(body, "kind") == ["call:0"]


@pytest.mark.slow
def test_a_hundred_thousand_calls_are_searched_in_seconds() -> None:
    call = made().to_json()["calls"][1]
    body = made().to_json() | {"calls": [call | {"nodes": []} for _ in range(100_000)]}
    began = time.process_time()
    assert len(refs_holding(body, "geese")) == 100_000
    assert time.process_time() - began < 5


@pytest.mark.slow
def test_pages_of_attempts_and_traces_answer_searches(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "searched") as run:
        run.append(made())
    taken = TraceStore(tmp_path, create=True)
    spans = [
        IncomingSpan(f"{1:032x}", f"{n:016x}", f"{1:016x}" * (n > 1), "step", n, n + 1, {"gen_ai.prompt": f"item {n}"})
        for n in (1, 2, 3)
    ]  # fmt: skip
    taken.add(SpanPreparer(Redactor()).prepared(spans))
    taken.close()
    access = Access()
    access.port = PORT
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        attempt, trace = f"/runs/{run.id}/attempts/searched", f"/traces/{1:032x}"
        assert client.get(f"{attempt}/spans/found", params={"words": " Seventeen "}).json() == ["call:1", "call:2"]
        refs = client.get(f"{trace}/spans/found", params={"words": "ITEM 2"}).json()
        rows = client.get(f"{trace}/spans.json").json()["columns"]
        assert len(refs) == 1 and "item 2" in client.get(f"{trace}/span", params={"ref": refs[0]}).text
        assert refs[0] in rows["ref"] and len(client.get(f"{trace}/spans/found", params={"words": "step"}).json()) == 3
        assert client.get(f"{attempt}/spans/found", params={"words": "x" * 501}).status_code == 400
