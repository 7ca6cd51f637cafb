"""Tests of what is shared of a protected task: texts in keys, and texts that are cut into words, are withheld too."""

import asyncio
import json
from typing import Any

import pytest

from firsthand import Agent, Task
from firsthand.context import Context
from firsthand.loop.protection import shareable
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tool import tool

QUESTION = "Which rare isotope decays in the third step of the secret question number nine?"
WORDS = QUESTION.split()


@tool(effect="read")
def note(value: Any) -> str:
    """Note a value."""
    return "ok"


def shared(value: Any) -> Any:
    """The arguments of a call of a protected task, as they may be shared; no word of the question is in the whole."""

    async def calls(task: Task, ctx: Context) -> str:
        await ctx.call(ToolCall("x", "note", {"value": value}))
        return "A"

    task = Task("1", QUESTION, metadata={"protected": "canary"})
    trace = shareable(asyncio.run(rollout(Agent("c", Scripted([]), calls, tools=(note,)), task)))
    assert trace.answer == "A" and [call.detail["name"] for call in trace.calls] == ["note"]
    said = json.dumps(trace.to_json(), default=str)
    assert not [word for word in ("isotope", "decays", "secret", "question") if word in said]
    return trace.calls[0].detail["arguments"]["value"]


@pytest.mark.parametrize(
    "value",
    [{QUESTION: 1}, WORDS, dict.fromkeys(WORDS, 1), dict(enumerate(WORDS)), [{word: word} for word in WORDS],
     {"a": {"b": WORDS}}, [[[QUESTION]]], QUESTION],
)  # fmt: skip
def test_a_question_in_keys_or_in_words_is_withheld(value: Any) -> None:
    kept = shared(value)
    assert type(kept) is type(value) and len(kept) == (len(value) if not isinstance(value, str) else len(kept))


def test_short_values_and_numbers_are_shared() -> None:
    for value in ("left", ["a", "b"], {"row": 3, "column": 4}, [1, 2.5, None, True] * 20, {}):
        assert shared(value) == value


def test_exactly_24_characters_together_are_shared_and_one_more_is_not() -> None:
    assert shared(["a" * 12, "b" * 12]) == ["a" * 12, "b" * 12]
    assert shared(["a" * 12, "b" * 13]) == ["[withheld: 12 characters]", "[withheld: 13 characters]"]
    assert shared({"k" * 12: "b" * 13}) == {"[withheld: key 0]": "[withheld: 13 characters]"}
