"""Answers come back in the tokens they were sampled as: to the same client, in the same conversation, within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.message import Message, Sampled, Text, ToolCall, assistant, user
from firsthand.model import Completion, Delta, Usage
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.sampled_turns import SampledTurns
from spelled_model import SpelledModel, answered, state_of

ASKED = [user("Hi")]


def sampled(text: str, *ids: int, calls: tuple[ToolCall, ...] = ()) -> Message:
    return Message("assistant", (Text(text), *calls), Sampled(ids, (-0.5,) * len(ids)))


def test_an_answer_comes_back_to_its_client_in_its_conversation_only() -> None:
    spoken = SampledTurns()
    spoken.remember("alice", ASKED, sampled("Hello", 5, 6))
    again = [*ASKED, assistant("Hello"), user("More")]
    assert [m.sampled and m.sampled.token_ids for m in spoken.recall("alice", again)] == [None, (5, 6), None]
    assert spoken.recall("alice", again)[1].sampled == Sampled((5, 6), (-0.5, -0.5))
    for client, conversation in (
        ("bob", again),
        ("alice", [user("Ho"), assistant("Hello")]),
        ("alice", [*ASKED, assistant("Hello!")]),
        ("alice", [*ASKED, user("Hello")]),
    ):
        assert spoken.recall(client, conversation) == conversation


def test_calls_count_by_name_and_arguments_and_keep_the_ids_that_the_client_has() -> None:
    spoken = SampledTurns()
    spoken.remember("a", ASKED, sampled("", 7, calls=(ToolCall("call_0", "f", {"x": 1, "y": 2}),)))
    mine = Message("assistant", (Text(""), ToolCall("call_99", "f", {"y": 2, "x": 1})))
    (_, found) = spoken.recall("a", [*ASKED, mine])
    assert found.sampled is not None and found.tool_calls[0].id == "call_99"
    other = Message("assistant", (Text(""), ToolCall("call_0", "f", {"x": 1, "y": 3})))
    assert spoken.recall("a", [*ASKED, other])[1].sampled is None


def test_the_memory_has_bounds_and_forgets_what_was_not_used() -> None:
    spoken = SampledTurns(max_answers=3, max_tokens=10)
    for place in range(3):
        spoken.remember("a", ASKED, sampled(f"{place}", place))
    spoken.recall("a", [*ASKED, assistant("0")])
    spoken.remember("a", ASKED, sampled("3", 3))
    kept = [spoken.recall("a", [*ASKED, assistant(str(place))])[1].sampled is not None for place in range(4)]
    assert kept == [True, False, True, True]
    spoken.remember("a", ASKED, sampled("long", *range(10)))
    assert len(spoken) == 1
    spoken.remember("a", ASKED, sampled("too long", *range(11)))
    assert len(spoken) == 0
    spoken.remember("a", ASKED, assistant("not sampled here"))
    assert len(spoken) == 0


def test_an_answer_that_is_remembered_again_takes_no_more_room() -> None:
    spoken = SampledTurns(max_answers=9, max_tokens=7)
    for _ in range(3):
        spoken.remember("a", ASKED, sampled("x", 1, 2, 3))
    spoken.remember("a", ASKED, sampled("y", 4, 5, 6, 7))
    assert len(spoken) == 2, "seven tokens, which is the limit"
    spoken.remember("a", ASKED, sampled("z", 8))
    kept = [spoken.recall("a", [*ASKED, assistant(each)])[1].sampled for each in "xyz"]
    assert kept == [None, Sampled((4, 5, 6, 7), (-0.5,) * 4), Sampled((8,), (-0.5,))], "the oldest went"


FIRST = [{"role": "user", "content": "Hi"}]
NEXT = [*FIRST, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "More"}]


def recalled(first: dict[str, Any], second: dict[str, Any], **more: Any) -> tuple[int, ...] | None:
    """The sampled tokens in the second request of two, which goes on from the answer to the first."""
    end = Completion(sampled("Hello", 5, 6), "stop", Usage(1, 0, 2), **more)
    model = SpelledModel(Delta("Hello"), Delta("", end))
    state = state_of(model)
    answered(chat_completions, state, {"messages": FIRST, **first})
    answered(chat_completions, state, {"messages": NEXT, **second})
    known = model.asked[-1]["prompt"][1].sampled
    return None if known is None else known.token_ids


@pytest.mark.parametrize("field", ["user", "cache_salt"])
def test_what_one_user_had_sampled_decides_no_other_users_tokens(field: str) -> None:
    for mine in ({}, {field: "a"}):
        assert recalled(mine, mine) == (5, 6)
        assert recalled(mine, {field: "b"}) is None
    assert recalled({field: "a"}, {}) is None


def test_an_answer_with_hidden_control_tokens_does_not_come_back() -> None:
    assert recalled({}, {}, has_control=True) is None
    kept = Completion(assistant("x"), "stop", Usage(), has_control=True)
    assert (
        Completion.from_json(kept.to_json()) == kept
        and "has_control" not in Completion(assistant("x"), "stop", Usage()).to_json()
    )
