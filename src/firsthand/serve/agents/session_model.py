"""SessionModel: a served agent as a Model, so that OpenAI's routes answer with its sessions and stream its steps.

A chat belongs to the session whose messages are those before the last one: clients send no id, and a conversation that goes
on elsewhere begins a session of its own. What a person has to approve comes as a call of the function `approval`, whose
result, `yes` or `no`, is the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice

from firsthand.errors import ConfigError, ModelError, UnknownName
from firsthand.loop.form import form_schema
from firsthand.loop.listener import Began, Piece
from firsthand.message import Json, Message, ToolCall, ToolResult, assistant, canonical, user
from firsthand.model import CallDelta, Completion, Delta, Prompt, Sampling, Scored, ToolSpec, Usage
from firsthand.serve.agents.asked_approval import AskedApproval
from firsthand.serve.agents.parked_approval import read_decision
from firsthand.serve.agents.served_sessions import News, ServedSessions, TurnOver, check_text
from firsthand.serve.agents.session_store import RETRIED_S, SessionTurn
from firsthand.serve.agents.shown_steps import step_line
from firsthand.system.json_values import values_in_text
from firsthand.tokens.calls.thought_stream import CLOSE, ThoughtStream
from firsthand.trace import Call, Trace

_CHAT = "chat-"
"""The beginning of the names of sessions that chats began."""
ASK = "approval"
"""The function that a client is asked to call in place of a person."""
_MAX_VALUES = 50_000
"""JSON values of a decision with its form; a text of more is no decision."""
_MOST_COMPARED = 4
"""Turns whose client left with the same question, the newest, that a request is compared with: each is read whole."""


@dataclass
class Caller:
    """The client of the request under way, and the session that answers it."""

    name: str = "anyone"
    session: str = ""


caller: ContextVar[Caller | None] = ContextVar("firsthand_caller", default=None)


class SessionModel:
    """A Model whose answers are turns of sessions. Its steps are streamed as reasoning, the answer as text."""

    thinks = True
    charges_turns = True

    def __init__(self, sessions: ServedSessions):
        self._sessions = sessions

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._sessions.agent.name

    @property
    def fingerprint(self) -> str:
        """The agent as data, and its model."""
        body = canonical(self._sessions.agent.to_json()).encode("utf-8", "surrogatepass")
        return f"served:{hashlib.sha256(body).hexdigest()[:16]}"

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """One answer; ConfigError for more, since each would be a turn."""
        if n != 1:
            raise ConfigError(f"n is {n}: an agent gives one answer; ask again for another")
        last = [delta.completion async for delta in self.stream(prompt, sampling, tools=tools)][-1]
        assert last is not None
        return [last]

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """The steps of a turn as they happen, then its answer, or the call of `approval` that it waits for."""
        if tools or sampling.grammar is not None:
            raise ConfigError(f"{self.name} is an agent with tools and a form of its own: leave out tools and formats")
        who = caller.get() or Caller()
        messages = [] if isinstance(prompt, str) else list(prompt)
        turn = await self._turn(who, prompt if isinstance(prompt, str) else "", messages)
        who.session = self._sessions.store.session(turn.session).context
        thought = ThoughtStream()
        yield Delta("<think>")
        async for news in self._sessions.follow(turn.id, who.name):
            for line in _lines(news):
                if text := thought.feed(line):
                    yield Delta(text)
        yield Delta(thought.finish() + CLOSE)
        found = self._sessions.store.turn(turn.id)
        trace = await asyncio.to_thread(self._sessions.trace, turn.session)
        usage = _usage(trace, found.number)
        if found.state == "input_required":
            calls = [_call(each) for each in self._sessions.store.pending(turn.id)]
            self._sessions.store.deliver(found)
            for index, call in enumerate(calls):
                yield Delta("", call=CallDelta(index, call.id, call.name))
                yield Delta("", call=CallDelta(index, arguments=json.dumps(call.arguments, ensure_ascii=False)))
            yield Delta("", Completion(assistant("", *calls), "tool_calls", usage))
            return
        if found.state != "completed" or found.answer is None:
            self._sessions.store.deliver(found)
            raise self._failed(found)
        digest = await asyncio.to_thread(self._digest, found)
        self._sessions.store.keep_transcript(turn.session, digest, found.number)
        yield Delta(found.answer)
        yield Delta("", Completion(assistant(found.answer), "stop", usage))

    def _failed(self, turn: SessionTurn) -> ModelError:
        """The error of a turn without an answer. Clients do not repeat it: another turn would make its calls again."""
        text = f"the turn {turn.state}: {turn.error or 'somebody cancelled it'}"
        if turn.state != "rejected" and self._sessions.has_acted(turn):
            text += f"; it had made calls that last, so the same messages get this error for {RETRIED_S / 60:g} minutes"
        error = ModelError(text)
        error.refused_as = 500
        return error

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """ConfigError: it has no likelihoods."""
        raise ConfigError(f"{self.name} is an agent and has no log-probs: ask its model for them")

    # -- which turn a request is about --

    async def _turn(self, who: Caller, text: str, messages: Sequence[Message]) -> SessionTurn:
        """The turn that a conversation asks for: an answer to an approval, one under way, or a new one."""
        if not messages:
            check_text("the message", text)
            if (left := await asyncio.to_thread(self._left, who, (), text)) is not None:
                return left
            return self._sessions.submit(who.name, text, context=f"{_CHAT}{secrets.token_hex(8)}")
        last = messages[-1]
        if last.role == "tool":
            return self._answered(who, messages)
        if last.role != "user":
            raise ConfigError("the last message is neither a user's nor the result of an approval: ask a question")
        check_text("the message", last.text)
        before = _transcript(messages[:-1])
        if (left := await asyncio.to_thread(self._left, who, before, last.text)) is not None:
            return left
        if before and any(role == "assistant" for role, _ in before):
            session = self._sessions.store.by_transcript(who.name, _hash(before))
            if session is not None:
                return self._sessions.submit(who.name, last.text, context=session.context)
        context = f"{_CHAT}{secrets.token_hex(8)}"
        opening = tuple(each for each in messages[:-1] if each.role != "tool" and not _asks(each))
        return self._sessions.submit(who.name, last.text, context=context, conversation=opening)

    def _left(self, who: Caller, before: Sequence[tuple[str, str]], text: str) -> SessionTurn | None:
        """A turn that asks the same after the same messages, and that a retry finds: one whose client left without its
        answer, or one that failed once its calls had taken effect."""
        asked = (who.name, text, _CHAT, _hash(before) if any(role == "assistant" for role, _ in before) else "")
        left = [id for id in self._sessions.store.undelivered(*asked) if not self._sessions.is_followed(id)]
        fallen = (turn.id for turn in self._sessions.store.fallen(*asked) if self._sessions.has_acted(turn))
        for ids in (left, fallen):
            for id in reversed([*islice(ids, _MOST_COMPARED)]):
                with suppress(UnknownName):  # deleted in the meantime
                    turn = self._sessions.store.turn(id, who.name)
                    if _transcript(self._sessions.history(turn)) == list(before):
                        return turn
        return None

    def _answered(self, who: Caller, messages: Sequence[Message]) -> SessionTurn:
        """The turn of the approvals that the last messages answer."""
        asked = {call.id: call for message in messages for call in message.tool_calls if call.name == ASK}
        turn: SessionTurn | None = None
        results = [part for message in _tail(messages) for part in message.parts if isinstance(part, ToolResult)]
        said: dict[str, tuple[bool | None, Json | None]] = {}
        for result in results:
            call = asked.get(result.call_id)
            id = "" if call is None else str(call.arguments.get("approval", ""))
            decision, content = _said(result.content)
            if decision is None:
                raise ConfigError(f"the result of {ASK} is {result.content[:40]!r}: send yes or no")
            if said.setdefault(id, (decision, content)) != (decision, content):
                raise ConfigError(f"two results of {ASK} answer {id[:40]} differently: send one")
        for id, (decision, content) in said.items():
            assert decision is not None
            check_text("the approval", id)
            turn = self._decided(who, id, decision, content)
        if turn is None:
            raise ConfigError(f"the last message answers no call of {ASK}: send its result, yes or no")
        return turn

    def _decided(self, who: Caller, id: str, decision: bool, content: Json | None) -> SessionTurn:
        """The turn of an approval that has this answer, now or from an earlier try. ModelError, a 409, if it has another."""
        if self._sessions.store.approval(id, who.name).state == "pending":
            with suppress(TurnOver):  # answered just now
                return self._sessions.answer(id, decision, owner=who.name, by=who.name, content=content)
        approval = self._sessions.store.approval(id, who.name)
        if approval.state != "pending" and approval.state != ("allowed" if decision else "denied"):
            error = ModelError(f"{id} was {approval.state} before: it is answered once")
            error.refused_as = 409
            raise error
        return self._sessions.store.turn(approval.turn, who.name)

    def _digest(self, turn: SessionTurn) -> str:
        said = _transcript([*self._sessions.history(turn), user(turn.prompt), assistant(turn.answer or "")])
        return _hash(said)


def _tail(messages: Sequence[Message]) -> list[Message]:
    """The tool results that end a conversation."""
    count = next((at for at, each in enumerate(reversed(messages)) if each.role != "tool"), len(messages))
    return list(messages[len(messages) - count :])


def _said(text: str) -> tuple[bool | None, Json | None]:
    """A decision, and the fields of a form: a text alone, or a JSON object with `allowed` and `content`."""
    try:
        body = json.loads(text) if values_in_text(text, _MAX_VALUES) <= _MAX_VALUES else None
    except (ValueError, RecursionError):
        body = None
    if body is None:
        return read_decision(text), None
    if not isinstance(body, dict):
        return read_decision(str(body)), None
    content = body.get("content")
    return read_decision(str(body.get("allowed", ""))), content if isinstance(content, dict) else None


def _asks(message: Message) -> bool:
    return any(call.name == ASK for call in message.tool_calls)


def _transcript(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Roles and texts, without reasoning, approvals and blanks at the ends: the part that a client sends back unchanged."""
    said: list[tuple[str, str]] = []
    for message in messages:
        if message.role == "tool" or _asks(message):
            continue
        text = message.text.rpartition(CLOSE)[2] if message.role == "assistant" else message.text
        said.append((message.role, text.strip()))
    return said


def _hash(transcript: Sequence[tuple[str, str]]) -> str:
    body = canonical([list(each) for each in transcript]).encode("utf-8", "surrogatepass")
    return hashlib.sha256(body).hexdigest()


def _call(asked: AskedApproval) -> ToolCall:
    arguments: Json = {
        "approval": asked.id,
        "tool": asked.tool,
        "effect": asked.effect,
        "arguments": asked.arguments,
        "question": asked.question,
    }
    if asked.form is not None:
        arguments["schema"] = form_schema(asked.form)
    if asked.opens is not None:
        arguments["opens"] = asked.opens
    return ToolCall(asked.id, ASK, arguments)


def _lines(news: News) -> list[str]:
    """A step as a person may read it, in no more than a few hundred characters."""
    match news:
        case Piece():
            return [news.text]
        case Began(kind="tool"):
            return [f"\n{step_line(news)}\n"]
        case Call(kind="tool"):
            return [f"{step_line(news)}\n"]
    return []


def _usage(trace: Trace | None, number: int) -> Usage:
    """The tokens of one turn."""
    if trace is None:
        return Usage()
    mine = (call.usage for call in trace.calls if call.id.startswith((f"{number}.0:", f"{number}.0/")))
    return sum(mine, Usage())
