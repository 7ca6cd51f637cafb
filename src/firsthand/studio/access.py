"""Access to the Studio: people at this machine who hold a code that works once, and their browser afterwards.

The command prints an address with a code. The first request that brings it gets a cookie (HttpOnly, SameSite=Strict, of this
port only); the code is then void. Every request is checked for its Host (DNS rebinding), and one that changes something for
its origin. Answers carry a content-security policy without inline code, so text of a model cannot become a script.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CODE_LIVES_S = 600.0
"""A code that was not used is void after so long."""
WRONG_CODES = 20
"""After so many wrong codes in a minute all are refused until the minute is over."""
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


class Access:
    """The codes and sessions of one server."""

    def __init__(self, hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")):
        self.hosts = hosts
        self.port = 0
        self._lock = threading.Lock()
        self._codes: dict[str, float] = {}
        self._sessions: set[bytes] = set()
        self._wrong: list[float] = []

    @property
    def cookie(self) -> str:
        """The name of the cookie: cookies are shared by all ports of a host, so the port is a part of it."""
        return f"firsthand-studio-{self.port}"

    def new_code(self) -> str:
        """A code that opens one session, within CODE_LIVES_S."""
        code = secrets.token_urlsafe(24)
        with self._lock:
            self._codes[code] = time.monotonic() + CODE_LIVES_S
        return code

    def exchange(self, code: str) -> str | None:
        """The session that a code opens; None if it is wrong, used or too old, or too many were wrong."""
        now = time.monotonic()
        with self._lock:
            self._wrong = [each for each in self._wrong if now - each < 60]
            if len(self._wrong) >= WRONG_CODES:
                return None
            match = next((known for known in self._codes if hmac.compare_digest(known.encode(), code.encode())), None)
            if match is None or self._codes.pop(match) < now:
                self._wrong.append(now)
                return None
            session = secrets.token_urlsafe(32)
            self._sessions.add(_digest(session))
            return session

    def knows(self, headers: Headers) -> bool:
        """True if the request carries the cookie of a session."""
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return found is not None and _digest(found.value) in self._sessions

    def is_own_host(self, host: str | None) -> bool:
        """True if a Host header names this server."""
        name, _, port = (host or "").rpartition(":") if re.search(r":\d+$", host or "") else (host or "", "", "80")
        return name.lower() in self.hosts and port == str(self.port)

    def is_own_origin(self, headers: Headers) -> bool:
        """True if a request comes from one of our own pages: by Origin, or where there is none by Sec-Fetch-Site."""
        origin = headers.get("origin")
        if origin is not None:
            return self.is_own_host(origin.partition("://")[2])
        return headers.get("sec-fetch-site") == "same-origin"


class AccessMiddleware:
    """Lets requests of sessions through, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access):
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if "cache-control" not in headers:
                    headers["cache-control"] = "no-store"
            await send(message)

        answer = self._refusal(Request(scope))
        await (self.app if answer is None else answer)(scope, receive, guarded)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that goes no further, or None."""
        if not self.access.is_own_host(request.headers.get("host")):
            return PlainTextResponse("This is not the address of the Studio.\n", 421, {"connection": "close"})
        path = request.url.path
        if request.method in _UNSAFE and not self.access.is_own_origin(request.headers):
            return PlainTextResponse("Only pages of the Studio may change anything.\n", 403)
        if path == "/enter":
            return self._enter(request)
        if path.startswith("/static/") or self.access.knows(request.headers):
            return None
        return PlainTextResponse(
            "Open the Studio with the address that `firsthand studio` printed; its code works once. Press Enter in that "
            "terminal for a new one.\n",
            401,
        )

    def _enter(self, request: Request) -> Response:
        session = self.access.exchange(request.query_params.get("code", ""))
        if session is None:
            return PlainTextResponse(
                "This code is wrong, was used, or is too old: press Enter in the terminal of `firsthand studio` for a new "
                "address.\n",
                403,
            )
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.access.cookie, session, httponly=True, samesite="strict", path="/")
        return answer


def _digest(session: str) -> bytes:
    return hashlib.sha256(session.encode("utf-8", "surrogatepass")).digest()
