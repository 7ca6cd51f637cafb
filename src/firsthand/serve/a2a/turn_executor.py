"""TurnExecutor: what the A2A SDK calls an executor, made of the sessions' turns.

A task is a turn, a context is a session. `input-required` is an approval: the message that answers it says yes or no, or
carries data such as {"approval": "apr_...", "allowed": true}, with `content` for the fields of a form. A yes or no counts
for the one question that the task asked since the client's last message. `auth-required` is an approval that waits until
the user has opened a web page, as to sign in there, and is answered the same way. A question that a guard blocks is
`rejected`. Steps are status updates, the answer is an artifact.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from a2a.server.agent_execution.agent_executor import AgentExecutor
from a2a.server.agent_execution.context import RequestContext
from a2a.server.events.event_queue import EventQueue
from a2a.server.tasks.task_updater import TaskUpdater
from a2a.types.a2a_pb2 import Message as WireMessage
from a2a.types.a2a_pb2 import Part, Role, Task, TaskState, TaskStatus
from a2a.utils.errors import ContentTypeNotSupportedError, InvalidParamsError
from google.protobuf.json_format import MessageToDict

from firsthand.errors import ConfigError, UnknownName
from firsthand.loop.form import form_schema
from firsthand.message import Json, canonical
from firsthand.serve.a2a.wire_parts import data_part, text_part
from firsthand.serve.agents.asked_approval import AskedApproval
from firsthand.serve.agents.parked_approval import read_decision
from firsthand.serve.agents.served_sessions import ServedSessions, TurnOver
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.agents.shown_steps import step_line

_MOST_TOLD = 10_000
"""Ends that are remembered, so that a cancel that raced an answer does not tell another one."""
ANSWER = "answer"
"""Name and id of the artifact that holds the answer."""


class TurnExecutor(AgentExecutor):
    """Runs a task as a turn of a session."""

    def __init__(self, sessions: ServedSessions):
        self._sessions = sessions
        self.following: set[str] = set()
        """Turns whose events go to their tasks now."""
        self._told: dict[str, None] = {}

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Begin a turn, answer what it waits for, or go on telling of it; returns when it is settled."""
        task_id, context_id = _ids(context)
        owner, updater = context.call_context.user.user_name, TaskUpdater(event_queue, task_id, context_id)
        self.following.add(task_id)
        try:
            if context.current_task is None:
                await self._begin(context, event_queue, owner, task_id, context_id)
            elif (said := context.message) is not None and not await self._answer(
                said, updater, owner, task_id, shown_before(said, context.current_task)
            ):
                return
            await self._follow(updater, owner, task_id)
        finally:
            self.following.discard(task_id)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Cancel the turn of a task."""
        task_id, context_id = _ids(context)
        updater = TaskUpdater(event_queue, task_id, context_id)
        try:
            await self._sessions.cancel(task_id, context.call_context.user.user_name)
        except TurnOver:
            pass  # it ended first, and that is what the task will say
        except UnknownName:  # the server died between the task and its turn
            await updater.cancel()
            return
        await self._settle(updater, self._sessions.store.turn(task_id))

    async def _begin(
        self, context: RequestContext, queue: EventQueue, owner: str, task_id: str, context_id: str
    ) -> None:
        message = context.message
        assert message is not None, "a task begins with a message"
        text = text_of(message)
        task = Task(
            id=task_id,
            context_id=context_id,
            status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED),
            history=[message],
        )
        task.status.timestamp.GetCurrentTime()
        try:
            self._sessions.submit(owner, text, context=context_id, id=task_id)
        except ConfigError as error:
            raise InvalidParamsError(str(error)) from None
        await queue.enqueue_event(task)

    async def _answer(
        self, message: WireMessage, updater: TaskUpdater, owner: str, task_id: str, shown: Set[str]
    ) -> bool:
        """Answer the approvals that a message is about. False if it answers none, and the question is asked again."""
        try:
            pending = self._sessions.store.pending(self._sessions.store.turn(task_id, owner).id)
        except UnknownName:
            return True
        answers, wrong = decisions(message, pending, shown), ""
        for approval, (allowed, content) in answers.items():
            try:
                self._sessions.answer(approval, allowed, owner=owner, by=owner, content=content)
            except (TurnOver, UnknownName):
                continue
            except ConfigError as error:
                wrong = f"{error}; send data with approval, allowed and content. "
        if (answers and not wrong) or not pending:
            return True
        pending = self._sessions.store.pending(task_id)
        again = "; ".join(f"{each.id}: {each.tool}" for each in pending)
        ways = wrong or "say yes or no, or send data with approval and allowed; "
        unseen = [each.question for each in pending if each.id not in shown]
        text = "\n\n".join([f"{ways}this waits for an answer: {again}", *unseen])
        asked = updater.new_agent_message([text_part(text), *_questions(pending)])
        await (updater.requires_auth(asked) if _signs_in(pending) else updater.requires_input(asked))
        return False

    async def _follow(self, updater: TaskUpdater, owner: str, task_id: str) -> None:
        """Tell of a turn until it is settled."""
        working = False
        try:
            async for news in self._sessions.follow(task_id, owner):
                if isinstance(news, SessionTurn) and news.state == "working" and not working:
                    working = True
                    await updater.start_work()
                elif (line := step_line(news)) and working:
                    await updater.start_work(updater.new_agent_message([text_part(line)]))
            turn = self._sessions.store.turn(task_id)
        except UnknownName:  # the server died before the turn was kept
            await updater.failed(updater.new_agent_message([text_part("the server was stopped before this began")]))
            return
        await self._settle(updater, turn)

    async def _settle(self, updater: TaskUpdater, turn: SessionTurn) -> None:
        """Tell a settled turn's state, once."""
        if turn.id in self._told:
            return
        if turn.is_over:
            self._told[turn.id] = None
            if len(self._told) > _MOST_TOLD:
                del self._told[next(iter(self._told))]
        match turn.state:
            case "completed":
                parts = [text_part(turn.answer or "", "text/plain")]
                await updater.add_artifact(parts, artifact_id=ANSWER, name=ANSWER, last_chunk=True)
                await updater.complete()
            case "failed":
                await updater.failed(updater.new_agent_message([text_part(turn.error or "it failed")]))
            case "rejected":
                await updater.reject(updater.new_agent_message([text_part(turn.error or "it was refused")]))
            case "canceled":
                await updater.cancel()
            case "input_required":
                pending = self._sessions.store.pending(turn.id)
                text = "\n\n".join(each.question for each in pending)
                asked = updater.new_agent_message([text_part(text), *_questions(pending)])
                await (updater.requires_auth(asked) if _signs_in(pending) else updater.requires_input(asked))


def text_of(message: WireMessage) -> str:
    """The text of a message, data as JSON; ContentTypeNotSupportedError for files, and for nothing at all."""
    pieces: list[str] = []
    for part in message.parts:
        match part.WhichOneof("content"):
            case "text":
                pieces.append(part.text)
            case "data":
                pieces.append(canonical(MessageToDict(part.data)))
            case kind:
                raise ContentTypeNotSupportedError(
                    f"a part of the message is {kind or 'empty'} ({part.media_type[:80]}): send text or data"
                )
    text = "\n".join(pieces)
    if not text.strip():
        raise InvalidParamsError("the message says nothing: send text")
    return text


def shown_before(message: WireMessage, task: Task) -> set[str]:
    """The approvals that a task has asked about since the client's message before this one; none for one sent twice."""
    told = [*task.history, *([task.status.message] if task.status.HasField("message") else [])]
    if told and told[-1].role == Role.ROLE_USER and told[-1].message_id == message.message_id:
        told.pop()  # the SDK keeps a message before it is answered
    shown: set[str] = set()
    for each in reversed(told):
        if each.role == Role.ROLE_USER:
            is_resent = each.message_id == message.message_id and list(each.parts) == list(message.parts)
            return set() if is_resent else shown
        for part in each.parts:
            body = MessageToDict(part.data) if part.WhichOneof("content") == "data" else None
            if isinstance(body, dict) and isinstance(id := body.get("approval"), str):
                shown.add(id)
    return shown


def decisions(
    message: WireMessage, pending: Sequence[AskedApproval], shown: Set[str]
) -> dict[str, tuple[bool, Json | None]]:
    """The answers that a message gives: approval -> allowed, and the fields of a form.

    A bare yes or no counts only where one thing is asked, and it alone was `shown` to the client. Parts that contradict
    each other answer nothing. Fields without `allowed` are a yes.
    """
    known = {each.id for each in pending}
    bare = next(iter(known)) if len(known) == 1 and known == shown else ""
    found: dict[str, tuple[bool, Json | None]] = {}
    contradicted: set[str] = set()
    for part in message.parts:
        approval, allowed, content = _said(part, bare)
        if allowed is None or not isinstance(approval, str) or approval not in known:
            continue
        before, fields = found.get(approval, (allowed, None))
        if before != allowed or (fields is not None and content is not None and fields != content):
            contradicted.add(approval)
        found[approval] = (allowed, fields if content is None else content)
    return {approval: answer for approval, answer in found.items() if approval not in contradicted}


def _said(part: Part, bare: str) -> tuple[object, bool | None, Json | None]:
    """The approval that a part names, or else `bare`; whether it allows the call, None if it does not tell; and fields."""
    match part.WhichOneof("content"):
        case "text":
            return bare, read_decision(part.text), None
        case "data" if isinstance(body := MessageToDict(part.data), dict):
            content = body.get("content")
            content = content if isinstance(content, dict) else None
            allowed = body.get("allowed", None if content is None else True)
            return body.get("approval", bare), allowed if isinstance(allowed, bool) else None, content
    return bare, None, None


def _ids(context: RequestContext) -> tuple[str, str]:
    assert context.task_id is not None and context.context_id is not None, "the SDK gives every task both ids"
    return context.task_id, context.context_id


def _questions(pending: Sequence[AskedApproval]) -> list[Part]:
    bodies: list[Json] = [
        {"approval": each.id, "tool": each.tool, "effect": each.effect, "arguments": each.arguments}
        | ({} if each.form is None else {"schema": form_schema(each.form)})
        | ({} if each.opens is None else {"opens": each.opens})
        for each in pending
    ]
    return [data_part(body) for body in bodies]


def _signs_in(pending: Sequence[AskedApproval]) -> bool:
    """True if all that a task waits for is a web page that the user opens."""
    return bool(pending) and all(each.opens is not None for each in pending)
