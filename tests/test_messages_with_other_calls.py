"""A message that saves and answers at once: what it saves is saved."""

import asyncio

import pytest

from firsthand import Agent, Task
from firsthand.message import Message, ToolCall
from firsthand.patterns.heartbeats import heartbeats
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tool import tool

SEND = ToolCall("1", "send_message", {"message": "Saved."})


def save(text, number):
    return ToolCall(number, "save", {"text": text})


@pytest.mark.parametrize(("calls", "kept"), [
    ((save("PIN 77", "0"), SEND), ["PIN 77"]), ((SEND, save("PIN 77", "2")), ["PIN 77"]),
    ((save("a", "0"), SEND, save("b", "2")), ["a", "b"]), ((SEND, ToolCall("2", "send_message", {"message": "x"})), []),
    ((ToolCall("0", "save", {}), SEND), []), ((ToolCall("0", "send_message", {}), SEND, save("c", "2")), ["c"]),
])  # fmt: skip
def test_calls_beside_the_message_to_the_user_are_made_and_it_is_the_answer(calls, kept):
    saved = []

    @tool(effect="write")
    def save(text: str) -> str:
        """Save a text."""
        saved.append(text)
        return "ok"

    model = Scripted([Message("assistant", calls)])
    trace = asyncio.run(rollout(Agent("h", model, heartbeats, tools=(save,)), Task("1", "My PIN is 77.")))
    assert trace.answer == "Saved." and sorted(saved) == kept and trace.error is None
    assert len(model.asked) == 1
