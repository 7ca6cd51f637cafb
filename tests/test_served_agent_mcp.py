"""A served agent over MCP: its sessions, its approvals asked of the client's user or left open, and clients of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

import httpx2 as mcp_http
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client as ApiClient
from firsthand.serve.admission.api_keys import Keys
from firsthand.serve.http.refusals import Refusal
from served_agent import Desk, RunningAgent, clerk, serving_agent

ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def running(tmp_path: Path, desk: Desk) -> Iterator[RunningAgent]:
    with serving_agent(clerk(desk), tmp_path, description="Pays bills.") as found:
        yield found
        assert found.bugs == []


def talk(running: RunningAgent, use: Callable[[Any], Awaitable[Any]], *, key: str = "", **client: Any) -> Any:
    """The result of `use` with a client that is connected over HTTP."""

    async def main() -> Any:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with (
            mcp_http.AsyncClient(headers=headers, timeout=30) as http,
            Client(streamable_http_client(f"{running.url}/mcp", http_client=http), cache=None, **client) as connected,
        ):
            return await use(connected)

    return asyncio.run(main())


def text(result: Any) -> str:
    return str(result.content[0].text)


def about(result: Any) -> dict[str, str]:
    found: dict[str, str] = result.meta["org.firsthand/session"]
    return found


def turn_states(running: RunningAgent) -> list[str]:
    """The states of all turns, as they were begun."""
    store = running.sessions.store
    return [turn.state for row in store.sessions() for turn in store.turns(row.id)]


@pytest.mark.slow
@ERAS
def test_a_session_goes_on_by_its_name_and_has_one_trace(running: RunningAgent, mode: str) -> None:
    async def use(client: Any) -> list[Any]:
        assert [(each.name, each.description) for each in (await client.list_tools()).tools] == [("ask", "Pays bills.")]
        first = await client.call_tool("ask", {"question": "one"})
        again = await client.call_tool("ask", {"question": "two", "session": about(first)["session"]})
        other = await client.call_tool("ask", {"question": "three"})
        return [first, again, other]

    first, again, other = talk(running, use, mode=mode)
    assert [text(each) for each in (first, again, other)] == [
        "You said one, after 0 others.", "You said two, after 1 others.", "You said three, after 0 others.",
    ]  # fmt: skip
    assert about(first)["session"] == about(again)["session"] != about(other)["session"]
    rows = running.sessions.store.sessions()
    assert len(rows) == 2
    trace = running.sessions.trace(rows[0].id)
    assert trace is not None and [turn["state"] for turn in trace.final_state["turns"]] == ["completed"] * 2


@ERAS
def test_a_call_that_its_client_cancels_ends_the_turn(running: RunningAgent, desk: Desk, mode: str) -> None:
    async def use(client: Any) -> list[str]:
        calling = asyncio.create_task(client.call_tool("ask", {"question": "wait"}))
        while not desk.waiting.is_set():
            await asyncio.sleep(0.005)
        calling.cancel()
        await asyncio.wait({calling})
        for _ in range(400):
            if (states := turn_states(running)) != ["working"]:
                break
            await asyncio.sleep(0.01)
        desk.go.set()
        again = await client.call_tool("ask", {"question": "one"})
        return [*states, text(again)]

    assert talk(running, use, mode=mode) == ["canceled", "You said one, after 0 others."]


@ERAS
def test_a_turn_goes_on_where_the_server_gives_up_the_request_and_where_an_older_client_is_lost(
    tmp_path: Path, desk: Desk, mode: str
) -> None:
    async def main(running: RunningAgent) -> None:
        http = mcp_http.AsyncClient(timeout=30)
        with suppress(Exception, BaseExceptionGroup):
            transport = streamable_http_client(f"{running.url}/mcp", http_client=http)
            async with Client(transport, cache=None, mode=mode) as client:
                calling = asyncio.create_task(client.call_tool("ask", {"question": "wait"}))
                while not desk.waiting.is_set():
                    await asyncio.sleep(0.005)
                if mode == "auto":
                    running.loop.call_soon_threadsafe(running.admission.cancel_all, Refusal(503, "it stops"))
                else:
                    await http.aclose()  # no notification can be sent any more
                await asyncio.wait({calling}, timeout=0.3)
                calling.cancel()

    with serving_agent(clerk(desk), tmp_path) as running:
        asyncio.run(main(running))
        time.sleep(0.1)
        assert turn_states(running) == ["working"]


@pytest.mark.slow
@ERAS
@pytest.mark.parametrize(
    ("action", "approves", "paid"), [("accept", True, [5]), ("accept", False, []), ("decline", True, [])]
)
def test_an_approval_is_asked_of_the_clients_user(
    running: RunningAgent, desk: Desk, mode: str, action: Any, approves: bool, paid: list[int]
) -> None:
    questions = []

    async def decide(context: Any, params: Any) -> Any:
        questions.append(params.message)
        return types.ElicitResult(action=action, content={"approve": approves} if action == "accept" else None)

    async def use(client: Any) -> Any:
        return await client.call_tool("ask", {"question": "pay 5"})

    result = talk(running, use, mode=mode, elicitation_callback=decide)
    assert desk.paid == paid and about(result)["state"] == "completed"
    assert len(questions) == 1 and "5" in questions[0]
    assert ("paid 5" in text(result)) == bool(paid)


@pytest.mark.slow
@ERAS
def test_an_approval_that_the_client_cannot_ask_stays_open_and_is_answered_elsewhere(
    running: RunningAgent, desk: Desk, mode: str
) -> None:
    async def use(client: Any) -> tuple[Any, Any]:
        waiting = await client.call_tool("ask", {"question": "pay 7"})
        (approval,) = about(waiting)["approvals"].split(", ")
        assert desk.paid == []
        running.loop.call_soon_threadsafe(lambda: running.sessions.answer(approval, True, by="somebody"))
        return waiting, await client.call_tool("ask", {"question": "more", "session": about(waiting)["session"]})

    waiting, later = talk(running, use, mode=mode)
    assert about(waiting)["state"] == "input_required" and "waits for approval" in text(waiting)
    assert desk.paid == [7] and text(later).startswith("You said more, after 1")


@pytest.mark.slow
def test_a_question_that_somebody_else_answers_is_asked_no_longer(running: RunningAgent, desk: Desk) -> None:
    asked, withdrawn = [], []

    async def slow(context: Any, params: Any) -> Any:
        asked.append(params.message)
        (approval,) = running.sessions.store.pending()
        running.loop.call_soon_threadsafe(lambda: running.sessions.answer(approval.id, True, by="somebody"))
        try:
            await asyncio.sleep(60)
        finally:
            withdrawn.append(1)

    async def use(client: Any) -> Any:
        return await client.call_tool("ask", {"question": "pay 8"})

    result = talk(running, use, mode="legacy", elicitation_callback=slow)
    assert about(result)["state"] == "completed" and "paid 8" in text(result)
    assert desk.paid == [8] and len(asked) == len(withdrawn) == 1


@pytest.mark.slow
def test_a_client_that_dismisses_the_question_leaves_it_open(running: RunningAgent, desk: Desk) -> None:
    async def dismiss(context: Any, params: Any) -> Any:
        return types.ElicitResult(action="cancel")

    async def use(client: Any) -> Any:
        return await client.call_tool("ask", {"question": "pay 9"})

    result = talk(running, use, elicitation_callback=dismiss)
    assert about(result)["state"] == "input_required" and desk.paid == []
    assert len(running.sessions.store.pending()) == 1


@pytest.mark.slow
def test_clients_with_keys_have_sessions_of_their_own(tmp_path: Path, desk: Desk) -> None:
    keys = {name: f"key-of-{name}-0123456789abcdef" for name in ("ann", "bob")}
    known = Keys(tuple(ApiClient(name, ClientLimits(), sha256(key.encode()).digest()) for name, key in keys.items()))

    async def use(client: Any) -> Any:
        return await client.call_tool("ask", {"question": "hello", "session": "shared"})

    with serving_agent(clerk(desk), tmp_path, keys=known) as running:
        answers = [text(talk(running, use, key=keys[name])) for name in ("ann", "bob", "ann")]
        assert answers == [
            "You said hello, after 0 others.", "You said hello, after 0 others.", "You said hello, after 1 others.",
        ]  # fmt: skip
        assert {row.owner for row in running.sessions.store.sessions()} == {"ann", "bob"}
        with pytest.raises(ExceptionGroup):  # the SDK wraps the 401
            talk(running, use, key="key-of-nobody")


@pytest.mark.slow
def test_wrong_arguments_and_too_many_open_turns_are_results_with_a_sentence(running: RunningAgent) -> None:
    async def use(client: Any) -> list[Any]:
        found = [await client.call_tool("ask", {"session": "x"})]
        for number in range(running.sessions.settings.open_turns):
            await client.call_tool("ask", {"question": f"pay {number}"})
        return [*found, await client.call_tool("ask", {"question": "pay 1"})]

    missing, many = talk(running, use)
    assert missing.is_error and "question" in text(missing)
    assert many.is_error and "are open already" in text(many)
