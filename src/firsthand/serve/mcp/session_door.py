"""A served agent over MCP: a tool that takes the next turn of a session, with its steps as progress.

Sessions are those of the other doors: durable, one Trace each, and a client sees its own alone. A call that needs approval
is asked of the client's user; where the client cannot, it stays open, and any process may answer it later.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress

import mcp_types as types
from mcp import MCPError

from firsthand import __version__
from firsthand.errors import FirsthandError, UnknownName
from firsthand.loop.listener import Began
from firsthand.message import Json
from firsthand.serve.agents.asked_approval import AskedApproval
from firsthand.serve.agents.served_sessions import ServedSessions, TurnOver
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.mcp.agent_offer import approval_request, is_approved
from firsthand.serve.mcp.exchange import Exchange
from firsthand.serve.mcp.mcp_server import McpServer, Offer
from firsthand.serve.mcp.mcp_transports import mcp_app
from firsthand.serve.mcp.served_tool import CallStore, ServedTool, failed, text_result
from firsthand.serve.mcp.task_file import TaskFile
from firsthand.tool import tool_from_function

_OF_TASK = "mcp-"
"""The beginning of the ids of turns that tasks ask."""


def session_door(sessions: ServedSessions, host: str, description: str = "") -> MountedApp:
    """The app at /mcp of a server that listens on `host`."""
    return mcp_app(session_server(sessions, description), host)


def session_server(sessions: ServedSessions, description: str = "") -> McpServer:
    """The server of `ask`, whose tasks go with their sessions and count for the bytes of their client."""
    offer = Offer([session_tool(sessions, description)], name=sessions.agent.name, version=__version__)
    made = McpServer(offer, TaskFile(sessions.run.path))

    def forget(turns: Sequence[str]) -> None:
        made.tasks.forget([turn.removeprefix(_OF_TASK) for turn in turns if turn.startswith(_OF_TASK)])

    sessions.kept.on_delete.append(forget)
    sessions.kept.kept_beside.append(lambda owner: made.tasks.size_bytes(owner or None))
    return made


def session_tool(sessions: ServedSessions, description: str = "") -> ServedTool:
    """The tool `ask`: a turn of a session."""

    async def ask(question: str, session: str = "") -> None:
        """Asks the agent.

        Args:
            question: The question or task.
            session: The session to go on with, as an earlier result named it; empty for a new one.
        """

    shape = tool_from_function(ask, effect="external", name="ask")

    def submitted(task: str, arguments: Json, owner: str) -> SessionTurn:
        given = shape.validate(arguments)
        context = str(given.get("session") or secrets.token_hex(8))
        return sessions.submit(owner, str(given["question"]), context=context, id=_turn_id(task))

    def take(task: str, arguments: Json, client: str | None) -> str:
        return submitted(task, arguments, client or "").id

    def result(turn_id: str, client: str | None) -> types.CallToolResult | None:
        turn = sessions.store.turn(turn_id, client or "")
        return _result(sessions, turn, turn.context) if turn.is_over else None

    async def run(arguments: Json, exchange: Exchange) -> types.CallToolResult:
        owner = exchange.client or ""
        try:
            turn = _turn_of(sessions, exchange.task, owner) or submitted(exchange.task, arguments, owner)
            try:
                turn = await _taken(sessions, turn, owner, exchange)
            except asyncio.CancelledError:
                if (
                    exchange.is_cancelled
                ):  # and not the server that stops, or the stream of an older client that broke off
                    with suppress(TurnOver):
                        await sessions.cancel(turn.id, owner)
                raise
        except FirsthandError as error:
            return failed(str(error))
        return _result(sessions, turn, turn.context)

    agent = sessions.agent
    words = description or f"Asks the agent {agent.name} ({agent.model.name}), and returns its answer."
    notes = types.ToolAnnotations(read_only_hint=False, open_world_hint=True)
    return ServedTool(
        "ask",
        words,
        shape.spec.parameters,
        run,
        as_task="may",
        resumes=True,
        annotations=notes,
        check=shape.validate,
        calls=CallStore(take, result),
    )


def _turn_id(task: str) -> str:
    return f"{_OF_TASK}{task}" if task else ""


def _turn_of(sessions: ServedSessions, task: str, owner: str) -> SessionTurn | None:
    """The turn that an interrupted try of a task began."""
    if task:
        with suppress(UnknownName):
            return sessions.store.turn(_turn_id(task), owner)
    return None


async def _taken(sessions: ServedSessions, turn: SessionTurn, owner: str, exchange: Exchange) -> SessionTurn:
    """The turn once it is over, or waits for somebody whom the client cannot ask."""
    count = 0
    while True:
        async for news in sessions.follow(turn.id, owner):
            if isinstance(news, Began):
                count += 1
                with suppress(Exception):  # a client that hears nothing more gets its result all the same
                    said = f"calls {news.detail.get('name', '')}" if news.kind == "tool" else "asks the model"
                    await exchange.progress(count, None, said)
        turn = sessions.store.turn(turn.id, owner)
        pending = sessions.store.pending(turn.id)
        if turn.is_over or not exchange.can("elicitation"):
            return turn
        for asked in pending:
            if not await _answered(sessions, asked, owner, exchange):
                return turn


async def _answered(sessions: ServedSessions, asked: AskedApproval, owner: str, exchange: Exchange) -> bool:
    """Ask the client's user; False if the client gave no answer, which leaves the question open."""
    request = approval_request(asked.tool, asked.question, asked.form, asked.opens)
    asking = asyncio.ensure_future(exchange.ask(f"approval {asked.id}", request))
    elsewhere = asyncio.ensure_future(_no_longer_pending(sessions, asked))
    try:
        await asyncio.wait({asking, elsewhere}, return_when="FIRST_COMPLETED")
        if not asking.done():  # another process answered it
            return True
        answer = asking.result()
    except MCPError:
        return False
    finally:
        asking.cancel()
        elsewhere.cancel()
    if answer.action == "cancel":
        return False
    allowed = is_approved(answer) if asked.form is None else answer.action == "accept"
    content = None if asked.form is None else answer.content
    with suppress(TurnOver):
        sessions.answer(asked.id, allowed, owner=owner, by="client", content=content)
    return True


async def _no_longer_pending(sessions: ServedSessions, asked: AskedApproval) -> None:
    """Wait until somebody else has answered, or the turn is over."""
    while any(each.id == asked.id for each in sessions.store.pending(asked.turn)):
        await asyncio.sleep(sessions.settings.poll_s)


def _result(sessions: ServedSessions, turn: SessionTurn, context: str) -> types.CallToolResult:
    about = {"session": context, "turn": turn.id, "state": turn.state}
    if turn.state == "completed":
        result = text_result(turn.answer or "")
    elif turn.is_over:
        result = failed(f"{sessions.agent.name} gave no answer: {turn.error or turn.state}")
    else:
        waiting = [asked.id for asked in sessions.store.pending(turn.id)]
        about["approvals"] = ", ".join(waiting)
        result = text_result(
            f"The turn waits for approval ({', '.join(waiting)}): `firsthand sessions` or POST /approvals/ID answers it, "
            f"and a call with session={context!r} goes on after it."
        )
    result.meta = {"org.firsthand/session": about}
    return result
