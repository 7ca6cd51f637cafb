"""Guards whose check cannot be made, or that looked past a value: a step without scores, and keys and numbers of a call."""

from __future__ import annotations

import asyncio

import pytest

from firsthand import Agent, Task
from firsthand.message import Text, ToolCall
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.safety.monitor import monitor
from firsthand.safety.redact import Redact, redact


@pytest.mark.parametrize(("stop", "action", "reason"), [(True, "block", "guard"), (False, "pass", "done")])
def test_a_step_without_scores_is_blocked_where_the_monitor_stops_and_noted_elsewhere(
    stop: bool, action: str, reason: str
) -> None:
    agent = Agent("a", Scripted(["do harm"]), direct, guard=monitor(threshold=1e9, stop=stop))
    trace = asyncio.run(rollout(agent, Task("t", "x")))
    (event,) = [each for each in trace.events if each.kind == "guard"]
    assert trace.stop_reason == reason and event.data["action"] == action
    assert event.data["reason"] == "the answer has no scores: give a model that ends in +monitor:FILE"


def redacted(guard: Redact, arguments: dict) -> object:
    return guard.call(None, None, arguments).value  # type: ignore[arg-type]


def test_keys_within_arguments_and_numbers_are_redacted_and_names_of_arguments_stay() -> None:
    guard = redact(pattern=r"sk-\w+|\b\d{16}\b|true|1\.5", borders=("call",))
    given = {"sk-name": {"sk-abc": "x", "n": [4111111111111111, 1, True, None, 1.5]}, "card": 4111111111111111, "k": 2}
    put = "[redacted]"
    assert redacted(guard, given) == {"sk-name": {put: "x", "n": [put, 1, True, None, put]}, "card": put, "k": 2}
    whole = {"k": 2, "x": {"n": [1, 2.5, False, None]}, "sk-x": "y"}
    assert guard.call(None, None, whole).action == "pass"  # type: ignore[arg-type]


def test_two_keys_that_are_redacted_alike_are_both_kept() -> None:
    guard = redact(pattern=r"sk-\w+", borders=("call",))
    assert redacted(guard, {"x": {"sk-a": 1, "sk-b": 2}}) == {"x": {"[redacted]": 1, "[redacted] 2": 2}}


def test_numbers_and_keys_of_calls_are_redacted_in_what_a_model_reads() -> None:
    guard = redact(pattern=r"\b\d{16}\b")
    part = guard._part(ToolCall("1", "pay", {"card": 4111111111111111, "by": {"4111111111111111": 1}}))
    assert isinstance(part, ToolCall) and part.arguments == {"card": "[redacted]", "by": {"[redacted]": 1}}
    assert guard._part(Text("4111111111111111")) == Text("[redacted]")
