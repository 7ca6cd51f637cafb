"""A Trace as data: it survives JSON whatever it holds, its branches are those of its tree, and damage is refused."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firsthand.errors import ConfigError, StoreError
from firsthand.loop.journal import MemoryJournal
from firsthand.message import Message, Sampled, Text, ToolCall, ToolResult, user
from firsthand.model import ToolSpec, Usage
from firsthand.preference import Preference, utc_now
from firsthand.runs.attempt_summary import AttemptSummary
from firsthand.trace import (
    TRACE_VERSION,
    Call,
    Event,
    Failure,
    Node,
    PromptIds,
    Score,
    Trace,
    as_json,
)

DATA = Path(__file__).parent / "data"

words = st.text(max_size=12)
seconds = st.floats(0, 1e6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(words, values, max_size=3)
parts = (
    st.builds(Text, words)
    | st.builds(ToolCall, words, words, objects, st.none() | words)
    | st.builds(ToolResult, words, words, words, st.booleans())
)
pairs = st.tuples(seconds, seconds)
sampled = st.builds(Sampled, st.just((1, 2)), pairs, st.none() | pairs, st.sampled_from([None, (0, 0), (3, 4)]))
messages = st.builds(
    Message, st.sampled_from(["system", "user", "assistant", "tool"]), st.lists(parts, max_size=3).map(tuple),
    st.none() | sampled,
)  # fmt: skip
usages = st.builds(Usage, *[st.integers(0, 10**9)] * 3, st.floats(0, 100))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    count = draw(st.integers(0, 8))
    parents = [draw(st.none() | st.integers(0, index - 1)) if index else None for index in range(count)]
    indices = st.integers(0, max(0, count - 1))
    calls = st.builds(
        Call, words, st.sampled_from(["generate", "tool", "score"]), st.none() | indices, seconds, seconds, words, usages,
        st.lists(indices, max_size=3).map(tuple), objects, st.booleans(), st.none() | words,
        st.none() | st.builds(PromptIds, st.lists(st.integers(0, 99), max_size=3).map(tuple)),
        st.lists(st.integers(0, 3), max_size=2).map(tuple),
    )  # fmt: skip
    return Trace(
        id=draw(words),
        benchmark=draw(words),
        task_id=draw(words),
        agent={"name": draw(words), **draw(objects)},
        epoch=draw(st.integers(0, 99)),
        seed=draw(st.integers()),
        started_at=draw(words),
        duration_s=draw(seconds),
        nodes=tuple(Node(parent, draw(messages)) for parent in parents),
        calls=tuple(draw(st.lists(calls, max_size=4))),
        events=tuple(draw(st.lists(st.builds(Event, words, seconds, objects), max_size=3))),
        answer=draw(st.none() | words),
        stop_reason=draw(st.sampled_from(["done", "error", "tokens"])),
        final_state=draw(objects),
        error=draw(st.none() | st.builds(Failure, words, words, st.none() | words)),
        scores=tuple(draw(st.lists(st.builds(Score, words, st.floats(allow_nan=False), objects, st.none() | indices),
                                   max_size=3))),
        tools=tuple(draw(st.lists(st.builds(ToolSpec, words, words, objects), max_size=2))),
    )  # fmt: skip


@pytest.mark.slow
@settings(max_examples=50)
@given(traces())
def test_a_trace_survives_json(trace: Trace) -> None:
    again = Trace.from_json(json.loads(json.dumps(trace.to_json())))
    assert again == trace
    assert list(again.branches()) == list(trace.branches())


@pytest.mark.slow
@settings(max_examples=50)
@given(traces())
def test_branches_are_the_ways_from_a_first_message_to_a_leaf(trace: Trace) -> None:
    branches = list(trace.branches())
    parents = {node.parent for node in trace.nodes}
    leaves = [index for index in range(len(trace.nodes)) if index not in parents]
    assert len(branches) == len(leaves)
    for leaf, branch in zip(leaves, branches, strict=True):
        path = trace.path(leaf)
        assert path[-1] == leaf and trace.nodes[path[0]].parent is None
        assert all(trace.nodes[b].parent == a for a, b in pairwise(path))
        assert branch == tuple(trace.nodes[index].message for index in path)
    assert {index for leaf in leaves for index in trace.path(leaf)} == set(range(len(trace.nodes)))


def simple(*parents: int | None) -> Trace:
    nodes = tuple(Node(parent, user(str(index))) for index, parent in enumerate(parents))
    return Trace("id", "b", "t", {"name": "a"}, 0, 0, "", 0.0, nodes)


def test_branches_share_the_nodes_of_their_prefix() -> None:
    trace = simple(None, 0, 0, 1, 1, None)
    texts = [[message.text for message in branch] for branch in trace.branches()]
    assert texts == [["0", "2"], ["0", "1", "3"], ["0", "1", "4"], ["5"]]
    assert trace.messages(None) == () and simple().nodes == ()


@pytest.mark.parametrize("parent", [1, 2, -1, 99, 0.5, "0", True, [0]])
def test_a_parent_that_does_not_come_before_its_message_is_refused(parent: Any) -> None:
    body = simple(None, 0).to_json()
    body["nodes"][1]["parent"] = parent
    with pytest.raises(StoreError, match="the file is damaged"):
        Trace.from_json(body)


@pytest.mark.parametrize("version", [TRACE_VERSION + 1, 0, None, "1", "new"])
def test_another_version_is_refused_with_what_to_do(version: Any) -> None:
    with pytest.raises(StoreError, match="open it with the firsthand that wrote it, or a newer one"):
        Trace.from_json(simple().to_json() | {"version": version})


@pytest.mark.parametrize("version", [1, 2])
def test_traces_of_every_earlier_version_are_read(version: int) -> None:
    """Two files that firsthands of their time wrote: two turns with a tool, two samples, a score."""
    body = json.loads((DATA / f"trace_v{version}.json").read_text(encoding="utf-8"))
    assert body["version"] == version
    trace = Trace.from_json(body)
    assert trace.version == TRACE_VERSION == 3 and Trace.from_json(json.loads(json.dumps(trace.to_json()))) == trace
    assert [node.parent for node in trace.nodes] == [None, 0, 1, 2, 2] and trace.answer == "42"
    assert trace.nodes[1].message.sampled == Sampled((40, 41, 42, 2), (-0.125, -0.25, -0.375, -0.5))
    assert [call.kind for call in trace.calls] == ["generate", "tool", "generate"] and trace.calls[2].nodes == (3, 4)
    assert [(call.prompt, call.tools) for call in trace.calls] == [(None, ())] * 3 and trace.tools == ()
    assert trace.scores == (Score("exact", 1.0, {"parsed": "42"}),) and trace.value() == 1.0
    assert trace.origin is None and trace.prompt_ids(0) is None


def test_usage_and_time_are_added_up() -> None:
    calls = (
        Call("0", "generate", None, 0.0, 1.5, "r", Usage(10, 2, 5, 0.25)),
        Call("1", "tool", None, 1.5, 0.5, "r"),
        Call("2", "generate", None, 0.5, 2.0, "r", Usage(1, 0, 1)),
    )
    trace = Trace("id", "b", "t", {"name": "a"}, 0, 0, "", 4.0, calls=calls, scores=(Score("x", 1.0), Score("y", 0.0)))
    assert trace.usage == Usage(11, 2, 6, 0.25) and trace.usage.total_tokens == 17
    assert (trace.seconds_in("generate"), trace.seconds_in("tool"), trace.seconds_in("score")) == (3.5, 0.5, 0)
    assert trace.score("y") == Score("y", 0.0) and trace.score("z") is None
    assert trace.scored(()).scores == () and trace.agent_name == "a"


@pytest.mark.slow
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.binary(max_size=3) | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(
        st.integers() | words | st.tuples(words), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_anything_can_be_made_json(data: Any) -> None:
    json.dumps(as_json(data))
    assert repr(as_json(as_json(data))) == repr(as_json(data))


@given(values)
def test_json_is_left_as_it_is(data: Any) -> None:
    assert as_json(data) == data


@pytest.mark.parametrize("winner", ["a", "b", "tie", "both_bad"])
def test_a_preference_survives_json(winner: Any) -> None:
    bare = Preference("t", "a1", "b1", winner, "human:ada")
    whole = Preference("t", "a1", "b1", winner, "judge:m", utc_now(), {"protocol": "pairwise"})
    for preference in (bare, whole):
        assert Preference.from_json(json.loads(json.dumps(preference.to_json()))) == preference
    assert list(bare.to_json()) == ["task_id", "a", "b", "winner", "by"], "rows of before are read, and written alike"


def test_a_preference_that_says_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="winner is 'c': give one of a, b, tie, both_bad"):
        Preference("t", "a", "b", "c", "me")  # type: ignore[arg-type]
    for when in ("yesterday", "2026-01-31T10:00:00", "2026-01-31T10:00:00+02:00", ""):
        with pytest.raises(ConfigError, match=r"when is .*: give UTC in ISO 8601"):
            Preference("t", "a", "b", "a", "me", when)
    assert Preference("t", "a", "b", "a", "me", "2026-01-31T10:00:00Z").when is not None


def test_a_journal_in_memory_finds_by_place_and_request() -> None:
    journal = MemoryJournal()
    journal.record(":0", "r", {"a": 1})
    assert journal.find(":0", "r") == {"a": 1}
    assert journal.find(":1", "r") is None and journal.find(":0", "s") is None


def test_a_score_that_was_stored_with_its_failure_in_the_detail_is_read() -> None:
    old = {"name": "judge", "value": 0.0, "detail": {"scorer_failed": "no judge", "unjudged": True, "tokens": 3}}
    score = Score(**old)
    assert score == Score("judge", 0.0, {"tokens": 3}, failure="no judge", unjudged=True)
    assert score.failed and score.unjudged and Score(**vars(score)) == score
    assert not Score("exact", 0.0, {}).failed


@pytest.mark.parametrize(
    ("scores", "error", "name", "value"),
    [
        ((Score("a", 0.5), Score("b", 1.0)), None, None, 0.5),
        ((Score("a", 0.5), Score("b", 1.0)), None, "b", 1.0),
        ((Score("a", 0.5),), None, "c", None),
        ((), None, None, None),
        ((Score("a", 0.5),), Failure("E", "x"), None, None),
        ((Score("a", 1.0, failure="broke"), Score("b", 1.0)), None, None, None),
        ((Score("a", 1.0, failure=""),), None, "a", None),
        ((Score("a", math.nan),), None, None, None),
        ((Score("a", math.inf),), None, None, None),
        ((Score("a", -math.inf),), None, None, None),
        ((Score("n", 0.1, node=0), Score("a", 0.5)), None, None, 0.5),
        ((Score("n", 0.1, node=0),), None, "n", None),
        ((Score("a", 0.0),), None, None, 0.0),
        ((Score("a", -2.0),), None, None, -2.0),
    ],
)
def test_an_attempts_value_is_of_its_first_or_named_score_unless_it_or_its_scorer_failed(
    scores: tuple[Score, ...], error: Failure | None, name: str | None, value: float | None
) -> None:
    trace = Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 1.0, scores=scores, error=error)
    assert trace.value(name) == value
    assert AttemptSummary.of(trace).value(name) == value
