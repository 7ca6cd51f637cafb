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

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from firsthand.studio.accounts import Accounts, User, needed_role
from firsthand.system.recognised import recognise

CODE_LIVES_S = 600.0
"""A code that was not used is void after so long."""
WRONG_CODES = 20
"""After so many wrong codes in a minute all are refused until the minute is over."""
MOST_COOKIES = 20
"""Cookies under our name that are looked at."""
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

    def __init__(
        self,
        hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]"),
        accounts: Accounts | None = None,
        *,
        is_https: bool = False,
        proxies: tuple[str, ...] = (),
    ):
        self.hosts = tuple(host.lower() for host in hosts)
        self.port = 0
        self.accounts = accounts
        """Accounts, where there are any: codes then open nothing, and everybody signs in."""
        self.is_https = is_https
        """True behind a proxy that speaks TLS: the cookie is sent over it alone, and pages may come from port 443."""
        self.proxies = frozenset(proxies)
        """Addresses of proxies in front, which say in X-Forwarded-For for whom they ask."""
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

    def session_of(self, headers: Headers) -> str | None:
        """The value of the cookie, if the request carries one; of several under its name the one that is a session.

        Cookies are shared by all ports of a host, so those of other programs may hold anything.
        """
        pairs = (each.partition("=") for line in headers.getlist("cookie") for each in line.split(";"))
        held = [_unquoted(value.strip()) for name, _, value in pairs if name.strip() == self.cookie][-MOST_COOKIES:]
        if len(held) < 2:
            return held[0] if held else None
        return next((each for each in held if self._is_session(each)), held[-1])

    def _is_session(self, session: str) -> bool:
        if self.accounts is None:
            return _digest(session) in self._sessions
        return self.accounts.of_session(session) is not None

    def knows(self, headers: Headers) -> bool:
        """True if the request carries the cookie of a session that a code has opened."""
        session = self.session_of(headers)
        return session is not None and self.accounts is None and _digest(session) in self._sessions

    def user_of(self, headers: Headers) -> User | None:
        """The account of a request, by its session or its API key; None without one."""
        if self.accounts is None:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.accounts.of_key(key.strip())
        session = self.session_of(headers)
        return None if session is None else self.accounts.of_session(session)

    def lets_in(self, request: Request) -> bool:
        """True while the session or key of a request opens its page: to be asked again by an answer that goes on."""
        if self.accounts is None:
            return self.knows(request.headers)
        user = self.user_of(request.headers)
        return user is not None and user.may(needed_role(request.method, request.scope["path"]))

    def address_of(self, request: Request) -> str:
        """The address that a request comes from: that of the socket, or what our own proxies say, the nearest first."""
        address = request.client.host if request.client is not None else ""
        named = [each.strip() for line in request.headers.getlist("x-forwarded-for") for each in line.split(",")]
        while address in self.proxies and named:
            address = named.pop()[:45]
        return address

    def is_own_host(self, host: str | None) -> bool:
        """True if a Host header names this server."""
        name, _, port = (host or "").rpartition(":") if re.search(r":\d+$", host or "") else (host or "", "", "80")
        ports = {str(self.port), "443", "80"} if self.is_https else {str(self.port)}
        return name.lower() in self.hosts and port in ports

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

        status = 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if "cache-control" not in headers:
                    headers["cache-control"] = "no-store"
            await send(message)

        request = Request(scope)
        answer = await run_in_threadpool(self._refusal, request) if self.access.accounts else self._refusal(request)
        if answer is None and ("firsthand.user" in scope or self.access.knows(request.headers)):
            recognise(scope)
        await (self.app if answer is None else answer)(scope, receive, guarded)
        user = scope.get("firsthand.user")
        if user is not None and self.access.accounts is not None and request.method in _UNSAFE:
            what, where = f"{request.method} {scope['path']}"[:300], self.access.address_of(request)
            await run_in_threadpool(self.access.accounts.audit, user.name, what, status=status, address=where)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that goes no further, or None."""
        if not self.access.is_own_host(request.headers.get("host")):
            return PlainTextResponse("This is not the address of the Studio.\n", 421, {"connection": "close"})
        path = request.scope["path"]  # which the routes are found by; `url` may end it at a `?` or `#` in it
        # no browser adds a key to a request of another site by itself
        is_key = self.access.accounts is not None and request.headers.get("authorization", "").lower().startswith(
            "bearer "
        )
        if request.method in _UNSAFE and not is_key and not self.access.is_own_origin(request.headers):
            return PlainTextResponse("Only pages of the Studio may change anything.\n", 403)
        if self.access.accounts is not None:
            return self._refusal_of_account(request, self.access.accounts)
        if path == "/enter":
            return self._enter(request)
        if path.startswith("/static/") or self.access.knows(request.headers):
            return None
        return PlainTextResponse(
            "Open the Studio with the address that `firsthand studio` printed; its code works once. Press Enter in that "
            "terminal for a new one.\n",
            401,
        )

    def _refusal_of_account(self, request: Request, accounts: Accounts) -> Response | None:
        path = request.scope["path"]
        if path.startswith("/static/") or path == "/sign-in":
            return None
        user = self.access.user_of(request.headers)
        if user is None:
            is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
            return RedirectResponse("/sign-in", 303) if is_page else PlainTextResponse("Sign in first.\n", 401)
        if path != "/sign-out" and not user.may(role := needed_role(request.method, path)):
            return PlainTextResponse(f"This needs the role {role}, and {user.name} is {user.role}.\n", 403)
        if request.method in _UNSAFE and not accounts.may_change_now(user):
            return PlainTextResponse("Too many changes in a minute: wait a moment.\n", 429, {"retry-after": "60"})
        request.scope["firsthand.user"] = user
        return None

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


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if len(value) > 1 and value[0] == value[-1] == '"' else value


def _digest(session: str) -> bytes:
    return hashlib.sha256(session.encode("utf-8", "surrogatepass")).digest()
