"""Signs in to an MCP server with OAuth: tokens in the data home, the browser's answer on a port that closes after it.

The SDK runs the flow (discovery, registration, PKCE, refresh); this file keeps its tokens and talks to the person.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import socket
import threading
import time
import webbrowser
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import parse_qs, urlsplit

from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthToken
from mcp.shared.auth_utils import calculate_token_expiry
from pydantic import AnyUrl, BaseModel

from firsthand.errors import FirsthandError, StoreError, ToolError
from firsthand.system.home import data_home
from firsthand.system.lock import taken
from firsthand.system.terminal import Terminal, printable
from firsthand.tools.mcp.pinned_oauth import Issuer, PinnedOAuth
from firsthand.tools.mcp.server_declaration import ServerDeclaration

M = TypeVar("M", bound=BaseModel)
SIGN_IN_S = 300.0
"""Seconds that a person has to sign in."""
TURN_S, TURN_POLL_S = 60.0, 0.05
"""Seconds to wait while another connection renews the tokens, and between two looks."""
REQUEST_S = 5.0
"""Seconds that a connection has for its request; browsers open some in advance that they may never use."""
MAX_CONNECTIONS = 64
"""The most connections that are read at once; with one more, the oldest is closed."""
MAX_REQUEST = 16_384
"""The most bytes of the browser's request."""
MAX_ADDRESS = 4_000
"""The most characters of the address of a sign-in page, which a person is shown whole."""


class BusyError(FirsthandError):
    """Another connection renews the tokens."""


class StoredTokens:
    """The tokens and the registration of one endpoint, in a file that only its owner may read."""

    def __init__(self, declaration: ServerDeclaration, redirect_uri: str, home: Path | None = None):
        self._declaration, self._redirect_uri = declaration, redirect_uri
        self.path = tokens_path(declaration, home)
        key = hashlib.sha256(declaration.url.encode()).hexdigest()[:16]
        self._earlier = self.path.with_name(f"{declaration.name}-{key}.json")
        """The file of a version that named it after the server's name."""
        self.issuer: Issuer | None = None
        """Metadata of the authorization server whose tokens are stored next (RFC 8414)."""

    async def get_tokens(self) -> OAuthToken | None:
        """The tokens, if there are any."""
        return self._get("tokens", OAuthToken)

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep the tokens, with the time at which they expire and their issuer, to which alone they may be sent again."""
        body = self._body() | {"tokens": _data(tokens), "expires_at": calculate_token_expiry(tokens.expires_in)}
        self._write(body | {"issuer": None if self.issuer is None else _data(self.issuer)})

    def get_expiry(self) -> float | None:
        """The time, in seconds since 1970, at which the access token expires; None if that is not known."""
        found = self._body().get("expires_at")
        return float(found) if isinstance(found, int | float) else None

    def get_issuer(self) -> Issuer | None:
        """Metadata of the authorization server that issued the stored tokens (RFC 8414)."""
        return self._get("issuer", Issuer)

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait until no other connection, of this process or another, renews the tokens. ToolError if that takes long."""
        until = time.monotonic() + TURN_S
        while (lock := self._lock()) is None:
            if time.monotonic() >= until:
                raise ToolError(
                    f"another process renews the tokens of {self._declaration.origin} for {TURN_S:g} s already: try again"
                )
            await asyncio.sleep(TURN_POLL_S)
        with lock:
            yield

    def _lock(self) -> IO[bytes] | None:
        with suppress(BusyError):
            return taken(self.path.with_suffix(".lock"), BusyError)
        return None

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """The registration of this client: the declared one, or that which was kept, unless its secret has expired."""
        if self._declaration.client_id:
            secret = self._declaration.client_secret or None
            return OAuthClientInformationFull(
                client_id=self._declaration.client_id,
                client_secret=secret,
                redirect_uris=[AnyUrl(self._redirect_uri)],
                token_endpoint_auth_method="client_secret_basic" if secret else "none",
                issuer=self._declaration.issuer or None,
            )
        kept = self._get("client", OAuthClientInformationFull)
        uris = [] if kept is None else [str(each) for each in kept.redirect_uris or ()]
        if kept is not None and not _same_but_port(self._redirect_uri, uris):
            return None  # it was registered for another address: register anew
        ends = None if kept is None else kept.client_secret_expires_at  # 0: never (RFC 7591)
        return None if ends and ends <= time.time() else kept

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep the registration."""
        self._write(self._body() | {"client": _data(client_info)})

    def forget_client(self, client_id: str) -> bool:
        """Forget a registration that its issuer does not know, and its tokens; another one, of a connection that was faster,
        stays. False if the client is declared.
        """
        if self._declaration.client_id:
            return False
        body = self._body()
        kept = body.get("client")
        if isinstance(kept, dict) and kept.get("client_id") == client_id:
            own = ("client", "tokens", "expires_at", "issuer")
            self._write({part: value for part, value in body.items() if part not in own})
        return True

    def _get(self, part: str, kind: type[M]) -> M | None:
        body = self._body().get(part)
        try:
            return None if body is None else kind.model_validate(body)
        except ValueError:
            return None  # written by another version: sign in anew

    def _write(self, body: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            written = self.path.with_suffix(f".{os.getpid()}.new")
            written.unlink(missing_ok=True)
            with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(body, file)
            written.replace(self.path)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from None

    def _body(self) -> dict[str, Any]:
        try:
            path = self.path if self.path.exists() else self._earlier
            body = json.loads(path.read_text(encoding="utf-8"))
            return body if isinstance(body, dict) else {}
        except (OSError, ValueError):
            return {}


def tokens_path(declaration: ServerDeclaration, home: Path | None = None) -> Path:
    """The file of the tokens of an endpoint, by whatever name; declared issuers, clients and scopes have others."""
    scopes = " ".join(sorted(declaration.scopes))  # tokens for more are not to be used where fewer are declared
    who = [declaration.url, *filter(None, (declaration.issuer, declaration.client_id, scopes))]
    key = hashlib.sha256("\n".join(who).encode()).hexdigest()[:16]
    host = re.sub(r"[^a-z0-9.-]", "-", str(urlsplit(declaration.url).hostname))[:100]
    return (home or data_home()) / "mcp" / "tokens" / f"{host}-{key}.json"


def is_signed_in(declaration: ServerDeclaration) -> bool:
    """True if tokens of the endpoint are kept and no header of the declaration takes their place."""
    own = any(name.lower() == "authorization" for name in declaration.headers)
    return bool(declaration.url) and not own and tokens_path(declaration).is_file()


def _data(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json", exclude_none=True)


class SignIn(Protocol):
    """Takes a person through the authorization of this client."""

    redirect_uri: str
    """The address that the authorization server sends the answer to."""
    registers_anew: bool
    """True if a page is shown for a client that is registered for it, not for one that was kept."""

    async def redirect(self, url: str) -> None:
        """Show the authorization server's page."""

    async def answer(self) -> AuthorizationCodeResult:
        """The code that comes back."""

    def close(self) -> None:
        """Let go of what it holds."""


class BrowserSignIn:
    """Sends the person to the authorization server, and hears the answer on a loopback port of its own."""

    def __init__(
        self, declaration: ServerDeclaration, terminal: Terminal | None = None, *, registers_anew: bool = False
    ):
        self.declaration = declaration
        self.registers_anew = registers_anew
        self._terminal = terminal or Terminal()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.redirect_uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}/callback"
        self._state: str | None = None
        """The state of the page that was shown last, which its answer brings back."""

    async def redirect(self, url: str) -> None:
        """Show the person the page's address, and open it in the browser if they agree. ToolError if not, or if nobody is
        there: the MCP server chose the page, and one that redirects at once would sign in without a click.
        """
        origin = self.declaration.origin
        if len(url) > MAX_ADDRESS:
            raise ToolError(
                f"{origin} asks to sign in at an address of {len(url):,} characters: {MAX_ADDRESS:,} are the limit"
            )
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ToolError(f"{origin} asks to sign in at {url[:80]!r}, which is no web address")
        if not self._terminal.is_there():
            raise ToolError(
                f"{origin} asks to sign in, and there is no terminal: run `{self._command()}` once at a terminal"
            )
        async with self._terminal.turn():
            host = printable(parts.netloc.rpartition("@")[2])
            asked = f"firsthand: {origin} asks you to sign in at {host}\n  {printable(url)}\nOpen it in the browser?"
            if await self._terminal.choose(asked, ("yes", "no")) != "yes":
                raise ToolError(f"nobody signed in to {origin}: the page at {host} was not opened")
        self._state = parse_qs(parts.query).get("state", [None])[-1]
        # in a thread that nobody waits for: a browser that runs in the terminal returns when it is left
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    async def answer(self) -> AuthorizationCodeResult:
        """The code that the browser brings back. ToolError if the person was refused, or if none comes in time."""
        came: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(SIGN_IN_S), asyncio.TaskGroup() as group:
                accepting = group.create_task(self._accept(came))
                given = await came
                accepting.cancel()
        except TimeoutError:
            text = f"nobody signed in to {self.declaration.origin} within {SIGN_IN_S:g} s"
            if not (self.declaration.client_id or self.registers_anew):
                text += f"; if its page does not know this client, run `{self._command()}`, which registers it anew"
            raise ToolError(text) from None
        if "error" in given:
            raise ToolError(f"signing in to {self.declaration.origin} was refused: {given['error'][:80]}")
        return AuthorizationCodeResult(code=given["code"], state=given.get("state"), iss=given.get("iss"))

    def _command(self) -> str:
        """The command that signs in to this server."""
        declared = self.declaration.issuer or self.declaration.client_id or self.declaration.scopes
        where = f"FILE.toml#{self.declaration.name}" if declared else self.declaration.url
        return f"firsthand mcp --sign-in {where}"

    async def _accept(self, came: asyncio.Future[dict[str, str]]) -> None:
        """Reads connections side by side until it is cancelled."""
        loop = asyncio.get_running_loop()
        visits: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    connection, _ = await loop.sock_accept(self._listener)
                except OSError:  # it was reset before, or this process has too many files open by now
                    await asyncio.sleep(0.1)
                    continue
                visits = [each for each in visits if not each.done()]
                if len(visits) >= MAX_CONNECTIONS:
                    visits.pop(0).cancel()
                visits.append(group.create_task(self._visit(connection, came)))
                await asyncio.sleep(0)  # what it has sent already is read before the next one is accepted

    async def _visit(self, connection: socket.socket, came: asyncio.Future[dict[str, str]]) -> None:
        """Show a page to one connection; `came` gets the fields that it brings if they are the answer."""
        given = None
        with connection, suppress(OSError):  # its time is over, or it was reset
            async with asyncio.timeout(REQUEST_S):
                given = self._answer_in(await self._request(connection))
                status, text = "200 OK", "Signed in: you may close this page."
                if given is None:
                    status, text = "404 Not Found", "This is no answer to the sign-in that firsthand waits for."
                elif "error" in given:
                    text = "Signing in was refused: you may close this page."
                page = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n{text}\n"
                await asyncio.get_running_loop().sock_sendall(connection, page.encode())
        if given is not None and not came.done():
            came.set_result(given)

    def _answer_in(self, target: str) -> dict[str, str] | None:
        """The first value of each field, if a request is the answer to this sign-in: at its path, with the state of its
        page, and with a code or an error. None if it is not: any program of this machine, and any page, may send one.
        """
        path, _, query = target.partition("?")  # urlsplit raises ValueError for some, such as //[x
        given = {name: values[0] for name, values in parse_qs(query).items()}
        is_own = path == urlsplit(self.redirect_uri).path and self._state in (None, given.get("state"))
        return given if is_own and given.keys() & {"code", "error"} else None

    async def _request(self, connection: socket.socket) -> str:
        """The path of the browser's request."""
        loop, head = asyncio.get_running_loop(), b""
        connection.setblocking(False)
        while b"\r\n\r\n" not in head and len(head) < MAX_REQUEST:
            if not (piece := await loop.sock_recv(connection, 4_096)):
                break
            head += piece
        words = head.split(b"\r\n", 1)[0].split(b" ")
        return words[1].decode("latin-1") if len(words) > 1 else ""

    def close(self) -> None:
        """Close the port."""
        self._listener.close()


def _same_but_port(uri: str, registered: list[str]) -> bool:
    """True if an address was registered with another port, which authorization servers let differ on loopback (RFC 8252)."""
    parts = urlsplit(uri)
    known = [urlsplit(each) for each in registered]
    return any((each.scheme, each.hostname, each.path) == (parts.scheme, parts.hostname, parts.path) for each in known)


def oauth(declaration: ServerDeclaration, sign_in: SignIn) -> PinnedOAuth:
    """The OAuth flow of an endpoint, for its HTTP client."""
    stored = StoredTokens(declaration, sign_in.redirect_uri)
    return PinnedOAuth(
        declaration,
        sign_in.redirect_uri,
        stored,
        sign_in.redirect,
        sign_in.answer,
        registers_anew=sign_in.registers_anew,
    )
