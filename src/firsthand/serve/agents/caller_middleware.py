"""Tells a SessionModel which client asks, and the client which session answers."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as ASGIMessage

from firsthand.serve.admission.active_request import request_of
from firsthand.serve.agents.session_model import Caller, caller


class CallerMiddleware:
    """Marks what is done for a request with the request's client, and names the session in a header of the answer."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer."""
        who = Caller(request_of(scope).client.name)
        caller.set(who)

        async def sent(message: ASGIMessage) -> None:
            if message["type"] == "http.response.start" and who.session:
                message["headers"] = [*message["headers"], (b"x-firsthand-session", who.session.encode())]
            await send(message)

        await self._app(scope, receive, sent)
