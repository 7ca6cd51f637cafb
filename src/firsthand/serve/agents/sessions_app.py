"""GET /sessions and /approvals, and POST /approvals/{id}: a client's sessions with their traces, and what waits for it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field
from starlette.types import Receive, Scope, Send

from firsthand.errors import UnknownName
from firsthand.loop.form import form_schema
from firsthand.message import Json
from firsthand.model import TokenCapability
from firsthand.serve.admission.active_request import ActiveRequest, request_of
from firsthand.serve.agents.served_sessions import ServedSessions, TurnOver
from firsthand.serve.agents.session_store import AskedApproval, SessionTurn
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.refusals import Refusal, refusal_of
from firsthand.serve.http.replies import Reply, note_bug, refused, reply
from firsthand.serve.http.request_body import ClientLeft
from firsthand.serve.openai.request_schema import Wire, read
from firsthand.trace import Trace

_SESSION = re.compile(r"/sessions/([^/]+)")
_APPROVAL = re.compile(r"/approvals/([^/]+)")
MOST_LISTED = 1000


class ApprovalAnswer(Wire):
    """The answer to an approval."""

    allowed: bool
    reason: Annotated[str, Field(max_length=1000)] | None = None
    content: dict[str, Any] | None = None


class SessionsApp:
    """Answers what a client asks of its own sessions."""

    def __init__(self, sessions: ServedSessions):
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; an error becomes a refusal, and a bug goes to the log."""
        request, path, method = request_of(scope), scope["path"], scope["method"]
        answer: Reply
        try:
            answer = self._answer(request, path, method)
        except ClientLeft:
            raise
        except Exception as error:
            over = isinstance(error, TurnOver)
            refusal = Refusal(409, str(error), code="answered") if over else refusal_of(error)
            request.notes["error"] = refusal.message
            if refusal.code == "internal_error":
                note_bug(request, error)
            answer = refused(refusal)
        await answer(scope, receive, send)

    def _answer(self, request: ActiveRequest, path: str, method: str) -> Reply:
        owner, store = request.client.name, self._sessions.store
        allowed = "POST" if _APPROVAL.fullmatch(path) else "GET"
        if method != allowed:
            raise Refusal(405, f"{method[:20]} is not taken here: use {allowed}", headers={"allow": allowed})
        if path == "/sessions":
            mine = [row for row in store.sessions() if row.owner == owner][-MOST_LISTED:]
            return reply({"object": "list", "data": [self._session(row.id, row.context) for row in mine]})
        if path == "/approvals":
            pending = [each for each in store.pending() if each.owner == owner]
            return reply({"object": "list", "data": [approval_json(each) for each in pending]})
        if (found := _APPROVAL.fullmatch(path)) is not None:
            body = read(ApprovalAnswer, request.json())
            turn = self._sessions.answer(
                found[1], body.allowed, owner=owner, by=owner, reason=body.reason or "", content=body.content
            )
            return reply(turn_json(turn))
        context = path.removeprefix("/sessions/")
        row = store.find_session(owner, context)
        if row is None:
            raise UnknownName(f"no session {context!r:.80}: GET /sessions lists them")
        return reply(self._session(row.id, row.context) | {"trace": trace_json(self._sessions.trace(row.id))})

    def _session(self, id: str, context: str) -> Json:
        return {"id": context, "turns": [turn_json(each) for each in self._sessions.store.turns(id)]}


def turn_json(turn: SessionTurn) -> Json:
    """A turn as JSON."""
    return {
        "id": turn.id,
        "number": turn.number,
        "state": turn.state,
        "prompt": turn.prompt,
        "answer": turn.answer,
        "error": turn.error,
    }


def approval_json(asked: AskedApproval) -> Json:
    """An approval as JSON."""
    body = asdict(asked)
    shown = {name: body[name] for name in ("id", "turn", "tool", "effect", "arguments", "question", "state")}
    return shown if asked.form is None else shown | {"schema": form_schema(asked.form)}


def trace_json(trace: Trace | None) -> Json | None:
    """The steps of a trace: its calls and events, without token ids."""
    if trace is None or trace.protected:
        return None
    calls = [
        {"id": each.id, "kind": each.kind, "name": each.detail.get("name"), "result": each.detail.get("result"),
         "error": each.error, "tokens": each.usage.total_tokens, "seconds": each.duration_s}
        for each in trace.calls
    ]  # fmt: skip
    events = [{"kind": each.kind, "data": each.data} for each in trace.events]
    return {"id": trace.id, "stop_reason": trace.stop_reason, "answer": trace.answer, "calls": calls, "events": events}


def sessions_app(sessions: ServedSessions) -> MountedApp:
    """The routes; sessions run, and the model is loaded, as long as the server does."""

    @asynccontextmanager
    async def alive() -> AsyncGenerator[None, None]:
        model = sessions.agent.model
        if isinstance(model, TokenCapability):
            await model.load()
        async with sessions.running():
            yield

    def route_of(path: str) -> str | None:
        if path in ("/sessions", "/approvals"):
            return path
        if _SESSION.fullmatch(path):
            return "/sessions/{id}"
        return "/approvals/{id}" if _APPROVAL.fullmatch(path) else None

    return MountedApp(SessionsApp(sessions), route_of=route_of, work_methods=frozenset({"POST"}), lifespan=alive)
