"""Answers come back in the tokens they were sampled as: to the same client, in the same conversation, within bounds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from firsthand.message import Message, Reasoning, Sampled, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import CallDelta, Completion, Delta, Usage
from firsthand.providers import google_wire
from firsthand.serve.anthropic.anthropic_messages import messages
from firsthand.serve.openai.chat_completions import chat_completions
from firsthand.serve.openai.responses import responses
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


def reasoned(text: str, signature: str = "c2ln", **more: Any) -> Message:
    return Message("assistant", (Reasoning("hm", {"thoughtSignature": signature}), Text(text)), **more)


def test_the_reasoning_of_an_endpoint_comes_back_within_bytes_and_to_its_client_alone() -> None:
    size = len('{"parts":[],"role":"assistant"}') + 200
    spoken = SampledTurns(max_bytes=2 * size)

    def kept(text: str, owner: str = "a") -> bool:
        return spoken.recall(owner, [*ASKED, assistant(text)])[1] == reasoned(text)

    for each in ("x", "x", "y", "x"):
        spoken.remember("a", ASKED, reasoned(each))
    assert len(spoken) == 2 and kept("y") and kept("x") and not kept("x", "b") and not kept("z")
    spoken.remember("a", ASKED, reasoned("z", "s" * (2 * size - 150)))
    assert [kept(each) for each in "xy"] == [False, False] and len(spoken) <= 1
    spoken.remember("a", ASKED, reasoned("big", "s" * 2 * size))
    assert len(spoken) == 0
    spoken.remember("a", ASKED, reasoned("x"))
    assert len(spoken) == 1, "what was forgotten takes no room"


def test_tokens_and_reasoning_of_one_answer_come_back_together() -> None:
    spoken = SampledTurns()
    spoken.remember("a", ASKED, reasoned("x", sampled=Sampled((5,), (-0.5,))))
    (_, found) = spoken.recall("a", [*ASKED, assistant("x")])
    assert found == reasoned("x", sampled=Sampled((5,), (-0.5,))) and found.is_as_sampled


SIGNED = Message(
    "assistant",
    (
        Reasoning("hm", {"type": "thinking", "signature": "A"}), Text("So: "),
        Reasoning("", {"thoughtSignature": "c2ln"}), ToolCall("one", "f", {"x": 1}), ToolCall("two", "f", {"x": 2}),
    ),
)  # fmt: skip
CALLS = (ToolCall("call_aa", "f", {"x": 1}), ToolCall("toolu_bb", "f", {"x": 2}))


def came_back(*parts: Any, owner: str = "a", known: SampledTurns | None = None) -> tuple[Any, ...]:
    """The parts of a turn after recall, in a conversation that has changed since the answer."""
    if known is None:
        known = SampledTurns()
        known.remember("a", ASKED, SIGNED, ("aa", "bb"))
    return known.recall(owner, [user("Something else"), Message("assistant", parts)])[1].parts


def test_an_answer_with_calls_is_known_by_their_ids_whatever_came_before() -> None:
    thought, said, signature = SIGNED.parts[:3]
    assert came_back(said, *CALLS) == (thought, said, signature, *CALLS)
    assert came_back(*CALLS) == (thought, Text(""), signature, *CALLS), "a signature stays before its own part"
    assert came_back(Text("I look"), *CALLS) == (thought, Text("I look"), signature, *CALLS)
    assert came_back(said, CALLS[1]) == (thought, said, signature, CALLS[1]), "calls may be left out"
    spoken = SampledTurns()
    spoken.remember("a", ASKED, Message("assistant", SIGNED.parts[2:]), ("aa", "bb"))
    assert came_back(said, *CALLS, known=spoken) == (signature, *CALLS, said)


def test_another_text_takes_the_place_of_the_first_of_several() -> None:
    spoken = SampledTurns()
    thought = SIGNED.parts[0]
    spoken.remember("a", ASKED, Message("assistant", (thought, Text("a"), Text("b"), CALLS[0])), ("aa",))
    assert came_back(Text("c"), CALLS[0], known=spoken) == (thought, Text("c"), Text(""), CALLS[0])
    assert came_back(Text("ab"), CALLS[0], known=spoken) == (thought, Text("a"), Text("b"), CALLS[0])


def test_tokens_of_answers_with_calls_stay_those_of_their_conversation() -> None:
    spoken = SampledTurns()
    for mark in "xyz":
        spoken.remember("a", ASKED, sampled("", 7, calls=(CALLS[0],)), (mark,))
    assert len(spoken) == 1
    spoken.remember("a", ASKED, replace(SIGNED, sampled=Sampled((5,), (-0.5,))), ("aa", "bb"))
    (_, found) = spoken.recall("a", [*ASKED, Message("assistant", (Text("So: "), *CALLS))])
    assert found.sampled is not None and found.sampled.token_ids == (5,) and len(found.parts) == 5


@pytest.mark.parametrize("stream", [False, True])
def test_each_of_several_answers_keeps_its_own_signature(stream: bool) -> None:
    pieces = []
    for index in range(2):
        part = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": f"c{index}"}
        whole = google_wire.read_completion({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]})
        pieces.append(Delta("", whole, index=index))
    model = SpelledModel(*pieces)
    state = state_of(model)
    told = answered(chat_completions, state, {"messages": FIRST, "n": 2, "stream": stream})
    ids = list(dict.fromkeys(re.findall(r"call_[0-9a-f]{24}", json.dumps(told))))
    kept = {mark: each.parts[0] for each in state.sampled_turns._known.values() for mark in each.marks}
    assert [kept[id.removeprefix("call_")] for id in ids] == [
        Reasoning("", {"thoughtSignature": f"c{index}"}) for index in range(2)
    ]


@pytest.mark.parametrize(
    "calls",
    [
        (ToolCall("call_aa", "f", {"x": 3}), CALLS[1]),
        (ToolCall("call_aa", "g", {"x": 1}), CALLS[1]),
        (ToolCall("call_aa", "f", {"x": 1}, "{"), CALLS[1]),
        (*CALLS, ToolCall("call_cc", "f", {})),
        (CALLS[1], CALLS[0]),
        (CALLS[0], CALLS[0]),
        (ToolCall("call_ab", "f", {"x": 1}),),
    ],
)
def test_calls_that_were_changed_bring_no_reasoning_back(calls: tuple[ToolCall, ...]) -> None:
    assert came_back(*calls) == calls


def test_ids_of_calls_open_nothing_to_another_client() -> None:
    assert came_back(*CALLS, owner="b") == CALLS
    assert len(came_back(*CALLS)) == 5


def test_equal_answers_to_one_prompt_keep_a_signature_each_and_are_forgotten_each() -> None:
    spoken = SampledTurns(max_answers=2)

    def kept(mark: str) -> list[Any]:
        parts = came_back(ToolCall(f"call_{mark}", "f", {}), known=spoken)
        return [part.state["thoughtSignature"] for part in parts if isinstance(part, Reasoning)]

    for mark in "xyz":
        answer = (Reasoning("", {"thoughtSignature": mark}), ToolCall("0", "f", {}))
        spoken.remember("a", ASKED, Message("assistant", answer), (mark,))
    assert [kept(mark) for mark in "xyz"] == [[], ["y"], ["z"]]
    renamed = [*ASKED, Message("assistant", (ToolCall("mine", "f", {}),))]
    assert len(spoken.recall("a", renamed)[1].parts) == 2, (
        "a client that gives ids of its own is known by what was said"
    )
    for place in range(2):
        spoken.remember("a", ASKED, sampled(f"{place}", place))
    assert [kept(mark) for mark in "yz"] == [[], []] and len(spoken.recall("a", renamed)[1].parts) == 1
    assert not spoken._names, "what was forgotten takes no room"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["chat", "messages", "responses"])
def test_every_protocol_brings_a_signature_back_after_the_system_message_has_changed(path: str, stream: bool) -> None:
    part = {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"}
    whole = google_wire.read_completion({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]})
    model = SpelledModel(Delta("", whole))
    state = state_of(model)
    schema: dict[str, Any] = {"type": "object"}
    hello = {"role": "user", "content": "Hi"}
    if path == "chat":
        body: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
        first = {**body, "messages": [{"role": "system", "content": "12:00"}, hello], "stream": stream}
        told = answered(chat_completions, state, first)
        reply = [each for each in told if isinstance(each, dict)] if stream else [told]
        (call,) = [
            call
            for each in reply
            for call in each["choices"][0]["delta" if stream else "message"].get("tool_calls", ())
        ]
        said = [{"role": "assistant", "tool_calls": [{key: call[key] for key in ("id", "type", "function")}]}]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "ok"}
        answered(chat_completions, state, {**body, "messages": [hello, *said, result]})
    elif path == "messages":
        body = {"tools": [{"name": "f", "input_schema": schema}], "max_tokens": 9, "model": "demo"}
        told = answered(messages, state, {**body, "system": "12:00", "messages": [hello], "stream": stream})
        (id,) = set(re.findall(r"toolu_[0-9a-f]{24}", json.dumps(told)))
        used: list[Any] = [{"type": "tool_use", "id": id, "name": "f", "input": {"x": 1}}]
        result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "ok"}]}
        answered(messages, state, {**body, "messages": [hello, {"role": "assistant", "content": used}, result]})
    else:
        body = {"tools": [{"type": "function", "name": "f", "parameters": schema}], "model": "demo"}
        told = answered(responses, state, {**body, "instructions": "12:00", "input": "Hi", "stream": stream})
        (id,), (before, *_) = (sorted(set(re.findall(each, json.dumps(told)))) for each in
                               (r"call_[0-9a-f]{24}", r"resp_\w+"))  # fmt: skip
        result = {"type": "function_call_output", "call_id": id, "output": "ok"}
        answered(responses, state, {**body, "previous_response_id": before, "input": [result]})
    prompt = model.asked[-1]["prompt"]
    assert prompt[0] == user("Hi")
    assert [part["thoughtSignature"] for part in google_wire.contents(prompt)[1]["parts"]] == ["c2ln"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", [None, "x"])
def test_a_signature_goes_back_to_the_endpoint_with_the_clients_ids_of_the_calls(
    stream: bool, stop: str | None
) -> None:
    """Gemini's own reply, by its own wire, and a client that knows neither thoughts nor signatures."""
    parts = [
        {"text": "I look.", "thought": True}, {"text": "So: "},
        {"functionCall": {"id": "one", "name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"id": "two", "name": "f", "args": {"x": 2}}},
    ]  # fmt: skip
    whole = google_wire.read_completion({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})
    calls = [Delta("", call=CallDelta(at, "", "f", f'{{"x": {at + 1}}}')) for at in range(2)]
    model = SpelledModel(Delta("So: "), *calls, Delta("", whole))
    state = state_of(model)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body = {"messages": FIRST, "tools": [tool], "stop": stop}
    told = answered(chat_completions, state, {**body, "stream": stream})
    if stream:
        pieces = [each["choices"][0]["delta"].get("tool_calls", []) for each in told if isinstance(each, dict)]
        made = [
            {"id": call["id"], "type": "function", "function": call["function"]} for each in pieces for call in each
        ]
    else:
        made = told["choices"][0]["message"]["tool_calls"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in made]
    said = {"role": "assistant", "content": "So: ", "tool_calls": made}
    answered(chat_completions, state, {**body, "messages": [*FIRST, said, *results]})
    prompt = model.asked[-1]["prompt"]
    ids = [call["id"] for call in made]
    assert [call.id for call in prompt[1].tool_calls] == ids and "one" not in ids
    sent = google_wire.contents(prompt)
    assert sent[1]["parts"] == [
        {"text": "So: "},
        {"functionCall": {"id": ids[0], "name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"id": ids[1], "name": "f", "args": {"x": 2}}},
    ]
    assert [part.call_id for message in prompt for part in message.parts if isinstance(part, ToolResult)] == ids
