"""A client's sessions with their traces, which it may delete, and what waits for it: /sessions and /approvals."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import parse_qs, quote

from pydantic import Field
from starlette.types import Receive, Scope, Send

from firsthand.loop.form import form_schema
from firsthand.message import Json
from firsthand.model import TokenCapability
from firsthand.serve.admission.active_request import ActiveRequest, request_of
from firsthand.serve.agents.asked_approval import AskedApproval
from firsthand.serve.agents.served_sessions import ServedSessions, TurnOver
from firsthand.serve.agents.session_store import SessionTurn
from firsthand.serve.http.mounted_app import MountedApp
from firsthand.serve.http.refusals import Refusal, bad, refusal_of
from firsthand.serve.http.replies import Reply, note_bug, refused, reply
from firsthand.serve.http.request_body import ClientLeft
from firsthand.serve.openai.request_schema import Wire, read

_SESSION = re.compile(r"/sessions/(.+)", re.DOTALL)
_MOST_FIELDS = 10
"""Fields of a query that are read."""
_APPROVAL = re.compile(r"/approvals/([^/]+)")


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
        request = request_of(scope)
        answer: Reply
        try:
            answer = await self._answer(request, scope)
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

    async def _answer(self, request: ActiveRequest, scope: Scope) -> Reply:
        """Answers a request; a page of the store is read and encoded in a thread."""
        path, method, owner = scope["path"], scope["method"], request.client.name
        allowed = ["POST"] if _APPROVAL.fullmatch(path) else ["GET"]
        if path not in ("/sessions", "/approvals") and allowed == ["GET"]:
            allowed.append("DELETE")
        if method not in allowed:
            use = " or ".join(allowed)
            raise Refusal(405, f"{method[:20]} is not taken here: use {use}", headers={"allow": ", ".join(allowed)})
        if (found := _APPROVAL.fullmatch(path)) is not None:
            body = read(ApprovalAnswer, request.json())
            turn = self._sessions.answer(
                found[1], body.allowed, owner=owner, by=owner, reason=body.reason or "", content=body.content
            )
            return reply(turn_json(turn))
        context = path.removeprefix("/sessions/")
        if method == "DELETE":
            return await asyncio.to_thread(self._deleted, owner, context)
        before = _before(scope.get("query_string", b""))
        if path == "/sessions":
            return await asyncio.to_thread(self._listed, owner, before)
        if path == "/approvals":
            return await asyncio.to_thread(self._pending, owner)
        return await asyncio.to_thread(self._session, owner, context, before)

    def _listed(self, owner: str, before: str | None) -> Reply:
        page = self._sessions.kept.page(owner, before)
        data = [
            {"id": each.context, "turns": [turn_json(turn) for turn in each.turns]}
            | ({} if each.is_whole else {"older": _older(each.context, each.turns)})
            for each in page.sessions
        ]
        more = {"older": f"/sessions?before={quote(page.sessions[0].context, safe='')}"} if page.has_more else {}
        return reply({"object": "list", "data": data, **more})

    def _pending(self, owner: str) -> Reply:
        pending, whole = self._sessions.kept.pending(owner)
        more = {} if whole else {"has_more": True}
        return reply({"object": "list", "data": [approval_json(each) for each in pending], **more})

    def _session(self, owner: str, context: str, before: str | None) -> Reply:
        if before is not None and not (before.isascii() and before.isdigit() and len(before) < 10):
            raise bad(f"before is {before[:40]!r}: give the number of a turn", "before")
        kept = self._sessions.kept
        id = kept.find(owner, context)
        turns, whole = kept.turns(id) if before is None else kept.turns(id, before=int(before))
        more = {} if whole else {"older": _older(context, turns)}
        body: Json = {"id": context, "turns": [turn_json(each) for each in turns], **more}
        if before is None:
            body["trace"] = self._sessions.shown.trace(self._sessions.trace(id))
        return reply(body)

    def _deleted(self, owner: str, context: str) -> Reply:
        if not self._sessions.kept.delete(owner, context):
            raise Refusal(409, "a turn of the session is not over: cancel or answer it first", code="open")
        return reply({"id": context, "deleted": True})


def _before(query: bytes) -> str | None:
    """The field `before` of a query; None without one."""
    try:
        fields = parse_qs(query.decode("latin-1"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise bad(f"the query has more than {_MOST_FIELDS} fields: send `before` alone", "before") from None
    return fields.get("before", [None])[0]


def _older(context: str, turns: Sequence[SessionTurn]) -> str:
    """The address of the page of earlier turns."""
    return f"/sessions/{quote(context, safe='')}" + (f"?before={turns[0].number}" if turns else "")


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
    shown |= {} if asked.opens is None else {"opens": asked.opens}
    return shown if asked.form is None else shown | {"schema": form_schema(asked.form)}


def sessions_app(sessions: ServedSessions) -> MountedApp:
    """The routes; sessions run, and the model is loaded, as long as the server does."""

    @asynccontextmanager
    async def alive() -> AsyncGenerator[None, None]:
        model = sessions.agent.model
        if isinstance(model, TokenCapability):
            await model.load()
        async with sessions.running():
            yield

    return MountedApp(SessionsApp(sessions), route_of=_route_of, work_methods=frozenset({"POST"}), lifespan=alive)


def _route_of(path: str) -> str | None:
    if path in ("/sessions", "/approvals"):
        return path
    if _SESSION.fullmatch(path):
        return "/sessions/{id}"
    return "/approvals/{id}" if _APPROVAL.fullmatch(path) else None
