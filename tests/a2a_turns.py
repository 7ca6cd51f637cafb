"""Turns of sessions that are told as A2A tasks: requests of a client, and a queue that keeps the events in short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from a2a.server.agent_execution.context import RequestContext
from a2a.server.context import ServerCallContext
from a2a.types.a2a_pb2 import Message, Part, Role, SendMessageRequest, Task, TaskState
from a2a.types.a2a_pb2 import TaskStatus as Status
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

from firsthand.serve.a2a.a2a_handler import ClientUser
from firsthand.serve.a2a.turn_executor import TurnExecutor
from firsthand.serve.agents.agent_doors import opened_sessions
from firsthand.serve.agents.served_sessions import ServedSessions
from firsthand.serve.agents.session_settings import SessionSettings
from served_agent import Desk, clerk


def within(
    folder: Path, desk: Desk, use: Callable[[ServedSessions, TurnExecutor], Awaitable[Any]], **limits: Any
) -> Any:
    async def main() -> Any:
        settings = SessionSettings(poll_s=0.01, **limits)
        with opened_sessions(clerk(desk), folder, folder / "s", settings) as sessions:
            async with sessions.running():
                return await use(sessions, TurnExecutor(sessions))

    return asyncio.run(main())


class Events:
    """A queue that keeps the events of a task in short: a task, a status with its texts, an artifact."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.data: list[Any] = []

    async def enqueue_event(self, event: Any) -> None:
        if isinstance(event, Task):
            self.said.append(("task", event.id, event.context_id, [part.text for part in event.history[0].parts]))
            assert event.status.state == TaskState.TASK_STATE_SUBMITTED and event.status.HasField("timestamp")
        elif hasattr(event, "artifact"):
            made = event.artifact
            kinds = [(part.text, part.media_type) for part in made.parts]
            self.said.append(("artifact", made.artifact_id, made.name, kinds, event.last_chunk))
        else:
            parts = event.status.message.parts
            self.data += [MessageToDict(part.data) for part in parts if part.HasField("data")]
            assert all(part.media_type == "application/json" for part in parts if part.HasField("data"))
            state = TaskState.Name(event.status.state).removeprefix("TASK_STATE_").lower()
            self.said.append((state, *[part.text for part in parts if part.text]))


def asks(
    id: str, *parts: Part, begun: bool = False, owner: str = "ann", empty: bool = False, shown: Sequence[str] = ()
) -> RequestContext:
    """A request of a client about the task, which is there already if it has begun, and has `shown` these approvals."""
    request = SendMessageRequest(
        message=Message(message_id="m", role=Role.ROLE_USER, task_id=id, context_id="c", parts=list(parts))
    )
    told = [Message(role=Role.ROLE_AGENT, parts=[data(approval=each)]) for each in shown]
    working = Status(state=TaskState.TASK_STATE_WORKING)
    task = Task(id=id, context_id="c", status=working, history=told) if begun or shown else None
    call = ServerCallContext(user=ClientUser(owner))
    return RequestContext(call, None if empty else request, task_id=id, context_id="c", task=task)


def said(text: str) -> Part:
    return Part(text=text)


def data(**body: Any) -> Part:
    return Part(data=ParseDict(body, Value()))
