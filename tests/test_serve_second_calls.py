"""What a server's parts leave behind for the next call: what they were given is unchanged, and requests know no other."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from google.protobuf.json_format import MessageToDict

from firsthand.message import assistant, user
from firsthand.model import ModelFacts
from firsthand.serve.a2a.agent_card import CardFacts, extended_card, make_card
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.agents.session_trace import joined, restated
from firsthand.serve.anthropic import messages_schema
from firsthand.serve.anthropic.messages_schema import MessagesRequest
from firsthand.serve.http.refusals import Refusal, bad
from firsthand.serve.mcp.exchange import ParkedExchange
from firsthand.serve.openai import request_parsing, responses_schema
from firsthand.serve.openai.request_schema import ChatRequest, read
from firsthand.serve.openai.responses_schema import ResponsesRequest
from firsthand.trace import Call, Event, Node, Trace
from served_agent import Desk, clerk, within_sessions

HI = [{"role": "user", "content": "Hi"}]


def test_the_names_of_one_requests_fields_are_not_the_next_ones() -> None:
    tool = {"name": "go", "input_schema": {"type": "object"}}
    long = {"model": "m", "max_tokens": 5, "system": "S", "messages": [*HI, {"role": "assistant", "content": "a"}, *HI]}
    _, first = messages_schema.as_chat(read(MessagesRequest, long | {"tools": [tool]}))
    _, second = messages_schema.as_chat(read(MessagesRequest, {"model": "m", "max_tokens": 5, "messages": HI}))
    own = {"messages.0": "messages.0"}
    assert second == own | {
        "stop": "stop_sequences", "user": "metadata.user_id", "response_format": "output_config.format",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        "response_format.json_schema": "output_config.format",
    }  # fmt: skip
    assert {key: value for key, value in first.items() if second.get(key) != value} == {
        "messages.1": "messages.0", "messages.2": "messages.1", "messages.3": "messages.2", "tools.0.function": "tools.0",
        "tools.0.function.parameters": "tools.0.input_schema",
    }  # fmt: skip
    flat = [{"type": "function", "name": name} for name in ("go", "up")]
    _, first = responses_schema.as_chat(read(ResponsesRequest, {"input": HI, "tools": flat, "instructions": "I"}))
    _, second = responses_schema.as_chat(read(ResponsesRequest, {"input": "Hi"}))
    assert second == {
        "max_completion_tokens": "max_output_tokens", "response_format": "text.format",
        "response_format.json_schema": "text.format", "reasoning_effort": "reasoning.effort",
    }  # fmt: skip
    assert first == second | {
        "messages.1": "input.0", "tools.0.function": "tools.0", "tools.1.function": "tools.1",
    }  # fmt: skip


def test_what_authors_recommend_holds_for_every_request() -> None:
    recommended = {"max_tokens": 30, "temperature": 0.5}
    facts = ModelFacts(100, 256, "hermes", False, "avx", recommended)

    def settings(**fields: Any) -> Any:
        body = read(ChatRequest, {"messages": HI, **fields})
        given = {"max_tokens": None, "top_logprobs": 0, "grammar": None, "facts": facts}
        made = request_parsing.sampling(body, ClientLimits(max_tokens=50), **given)  # type: ignore[arg-type]
        return made.max_tokens, made.temperature

    assert [settings(), settings(top_p=0.5), settings(), settings(temperature=0)] == [
        (30, 0.5), (30, 1.0), (30, 0.5), (30, 0.0),
    ]  # fmt: skip
    assert recommended == {"max_tokens": 30, "temperature": 0.5}


def test_a_refusals_headers_are_its_own() -> None:
    headers = {"retry-after": "5"}
    first, second = Refusal(503, "x", headers=headers), Refusal(503, "y", headers=headers)
    first.headers["connection"] = "close"
    assert (headers, second.headers, bad("z").headers) == ({"retry-after": "5"}, {"retry-after": "5"}, {})


def test_answers_that_came_with_a_call_are_taken_once_and_stay_with_their_owner() -> None:
    no, yes = types.ElicitResult(action="decline"), types.ElicitResult(action="accept", content={"n": 0})
    seeds: dict[str, Any] = {"k": yes, "k+": no, "z": types.ListRootsResult(roots=[])}
    ask = types.ElicitRequest(params=types.ElicitRequestFormParams(message="?", requested_schema={"type": "object"}))

    async def main() -> None:
        exchange = ParkedExchange(None, {"elicitation": {}}, seeds)
        assert [await exchange.ask("k", ask), await exchange.ask("k", ask)] == [yes, no]
        third = asyncio.ensure_future(exchange.ask("k", ask))
        wrong = asyncio.ensure_future(exchange.ask("z", ask))
        await asyncio.sleep(0)
        assert list(exchange.pending) == ["k++", "z"] and exchange.moved.is_set()
        exchange.bring({"k": no, "z": seeds["z"], "k++": yes})
        assert await third is yes and list(exchange.pending) == ["z"]
        exchange.bring({"k++": no, "z": no})
        assert await wrong is no and exchange.pending == {}
        lost = asyncio.ensure_future(exchange.ask("l", ask))
        await asyncio.sleep(0)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        assert exchange.pending == {}
        await exchange.progress(0, 0, "")
        assert exchange.status == "0/0"
        await exchange.progress(2.5, None, "é ")
        assert exchange.status == "2.5 é"

    asyncio.run(asyncio.wait_for(main(), 5))
    assert list(seeds) == ["k", "k+", "z"]
    assert seeds == {"k": yes, "k+": no, "z": types.ListRootsResult(roots=[])}


def test_the_card_of_all_stays_without_the_tools_of_the_other() -> None:
    agent = clerk(Desk())
    card = make_card(agent, "http://x", CardFacts(examples=("e",), needs_key=True))
    before = MessageToDict(card)
    extended = [extended_card(card, agent), extended_card(card, replace(agent, tools=agent.tools[::-1]))]
    assert MessageToDict(card) == before and [each["id"] for each in before["skills"]] == ["answer"]
    for each in extended:
        shown = MessageToDict(each)
        assert [(skill["id"], skill["tags"]) for skill in shown.pop("skills")] == [
            ("answer", ["agent"]), ("tool:pay", ["tool", "irreversible"]), ("tool:wait", ["tool", "read"]),
        ]  # fmt: skip
        assert shown == {key: value for key, value in before.items() if key != "skills"}


def turn(number: int, state: Any = "completed", answer: str | None = "a", error: str | None = None) -> SessionTurn:
    return SessionTurn(f"t{number}", "s", number, state, f"q{number}", answer, error, "ann", "c")


def test_joining_a_turn_leaves_the_traces_it_joins_as_they_were() -> None:
    detail = {"messages": [0, 1, "x"], "positions": [1], "k": 0}
    calls = (Call(":0", "generate", 1, 0.5, 0.25, "", nodes=(1,), detail=detail),)
    events = (
        Event("branch", 0.25, {"path": "0", "at": 1}),
        Event("note", 0.5, {"at": 9}),
        Event("note", 0.5, {"at": "1"}),
    )
    attempt = Trace("i", "served", "s", {"name": "clerk"}, 0, 5, "now", 1.5, (Node(None, user("q1")), Node(0,
    assistant("m"))),
                    calls, events, final_state={"k": [1]})  # fmt: skip
    kept = copy.deepcopy(attempt)
    first = joined(None, attempt, turn(1), ())
    assert attempt == kept and detail == {"messages": [0, 1, "x"], "positions": [1], "k": 0}
    assert [part["tip"] for part in first.final_state["turns"]] == [3]
    before = copy.deepcopy(first)
    second = joined(first, attempt, turn(2, "failed", None, "lost"), (user("q1"), assistant("a")))
    assert first == before and attempt == kept
    # the second attempt begins with the q1 of the history, and says m after it
    assert [(node.parent, node.message.text) for node in second.nodes] == [
        (None, "q1"), (0, "m"), (None, "q1"), (2, "a"), (2, "m"),
    ]  # fmt: skip
    moved = second.calls[1]
    assert (moved.at, moved.nodes, moved.detail) == (4, (4,), {"messages": [2, 4, "x"], "positions": [4], "k": 0})
    assert second.events[4].data == {"path": "2.0/0", "at": 4}
    assert [call.id for call in second.calls] == ["1.0:0", "2.0:0"] and second.calls[0] == first.calls[0]
    assert [call.started_s for call in second.calls] == [0.5, 2.0] and second.duration_s == 3.0
    assert second.events[:4] == first.events and second.events[3] == Event(
        "turn", 1.5, {"number": 1, "id": "t1", "state": "completed", "prompt": "q1"}
    )
    assert second.events[-1] == Event(
        "turn", 3.0, {"number": 2, "id": "t2", "state": "failed", "prompt": "q2", "error": "lost"}
    )
    assert (second.events[5].data, second.events[6].data) == (
        {"at": 9}, {"at": "1"},
    )  # fmt: skip
    own = copy.deepcopy(second)
    back = restated(second, turn(1, "canceled", None))
    assert second == own and back is not None and back.id != second.id
    assert (back.stop_reason, back.answer, back.duration_s, len(back.nodes)) == (
        "canceled",
        None,
        1.5,
        len(first.nodes),
    )
    assert [(part["number"], part["state"], part["events"]) for part in back.final_state["turns"]] == [
        (1, "canceled", 5)
    ]
    assert restated(second, turn(3)) is None


@pytest.mark.slow
def test_a_turn_behind_one_that_waits_begins_when_that_is_cancelled_or_answered(tmp_path: Path) -> None:
    desk = Desk()

    async def use(sessions: ServedSessions) -> Any:
        first = sessions.submit("ann", "pay 5", context="c")
        assert (await sessions.settled(first.id)).state == "input_required"
        second, third = (sessions.submit("ann", text, context="c") for text in ("hello", "pay 7"))
        await asyncio.sleep(0.05)
        assert sessions.store.turn(second.id).state == "submitted", "it waits for the turn before it"
        assert (await sessions.cancel(first.id)).state == "canceled"
        told = await sessions.settled(second.id)
        assert (told.state, told.answer) == ("completed", "You said hello, after 0 others.")
        await sessions.settled(third.id)
        fourth = sessions.submit("ann", "bye", context="c")
        (asked,) = sessions.store.pending(third.id)
        sessions.answer(asked.id, True, owner="ann", by="ann")
        assert (await sessions.settled(third.id)).state == "completed"
        assert (await sessions.settled(fourth.id)).answer == "You said bye, after 2 others."
        return sessions.bugs  # type: ignore[attr-defined]

    assert within_sessions(clerk(desk), tmp_path, use) == [] and desk.paid == [7]
