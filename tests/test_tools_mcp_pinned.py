"""The OAuth flow of a declared MCP server: who is sent a client's secret, and which scopes are asked for."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import httpx2
from mcp.shared.auth import AuthorizationCodeResult, OAuthToken

from firsthand.errors import ToolError
from firsthand.tools.mcp.oauth_sign_in import StoredTokens
from firsthand.tools.mcp.pinned_oauth import PinnedOAuth
from firsthand.tools.mcp.server_declaration import ServerDeclaration

MINE, CORP, EVIL = "https://mcp.example", "https://login.corp.example", "https://evil.example"
CLIENT = {"issuer": CORP, "client_id": "me", "client_secret": "s3cret"}
CALLBACK = "http://127.0.0.1:5/callback"


class Net:
    """Answers of an MCP server that names these authorization servers, and of those that give metadata."""

    def __init__(self, named: list[str] | None, metadata: dict[str, Any], challenge: str = "", denied: int = 401):
        self.named, self.metadata, self.challenge, self.denied = named, metadata, challenge, denied
        self.pages: list[dict[str, list[str]]] = []
        self.registered: list[Any] = []
        self.tokens: list[tuple[str, str]] = []
        self.state = ""

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        at = f"{request.url.scheme}://{request.url.netloc.decode()}"
        if request.url.path == "/mcp":
            if request.headers.get("authorization") == "Bearer AT":
                return httpx2.Response(200, json={})
            said = f'Bearer error="insufficient_scope", scope="{self.challenge}"' if self.challenge else "Bearer"
            return httpx2.Response(self.denied, headers={"www-authenticate": said})
        if request.url.path == "/.well-known/oauth-protected-resource/mcp" and self.named is not None:
            return httpx2.Response(200, json={"resource": f"{MINE}/mcp", "authorization_servers": self.named})
        if request.url.path == "/.well-known/oauth-authorization-server" and at in self.metadata:
            return httpx2.Response(200, json=self.metadata[at])
        if request.url.path == "/register":
            self.registered.append(json.loads(request.content))
            return httpx2.Response(201, json={"client_id": "dcr", "redirect_uris": [CALLBACK]})
        if request.url.path == "/token":
            given = request.headers.get("authorization", "").removeprefix("Basic ")
            self.tokens.append((at, base64.b64decode(given).decode()))
            return httpx2.Response(200, json={"access_token": "AT", "token_type": "Bearer", "refresh_token": "R"})
        return httpx2.Response(404)

    async def redirect(self, url: str) -> None:
        self.pages.append({"page": [url.partition("?")[0]], **parse_qs(urlsplit(url).query)})

    async def answer(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code="c", state=self.pages[-1]["state"][0])


def of(issuer: str) -> dict[str, dict[str, Any]]:
    """Metadata that an issuer gives of itself."""
    own = {"authorization_endpoint": f"{issuer}/authorize", "token_endpoint": f"{issuer}/token"}
    more = {"registration_endpoint": f"{issuer}/register", "code_challenge_methods_supported": ["S256"]}
    return {issuer: {"issuer": issuer, **own, **more, "response_types_supported": ["code"]}}


def signed_in(net: Net, home: Path, kept: OAuthToken | None = None, **settings: Any) -> int | str:
    """The status of a request to the server, or the error."""
    declared = ServerDeclaration("corp", url=f"{MINE}/mcp", oauth=True, **settings)

    async def main() -> int | str:
        stored = StoredTokens(declared, CALLBACK, home)
        if kept is not None:
            await stored.set_tokens(kept)
        flow = PinnedOAuth(declared, CALLBACK, stored, net.redirect, net.answer)
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(net), auth=flow) as client:
            try:
                return (await client.post(declared.url)).status_code
            except ToolError as error:
                return str(error)

    return asyncio.run(main())


def test_a_clients_secret_goes_to_its_issuer_whatever_else_the_server_names(tmp_path: Path) -> None:
    for number, (named, slash) in enumerate((([CORP], ""), ([EVIL, CORP], ""), ([CORP], "/"))):
        net = Net(named, of(CORP) | of(EVIL))
        assert signed_in(net, tmp_path / str(number), **CLIENT | {"issuer": CORP + slash}) == 200
        assert net.tokens == [(CORP, "me:s3cret")] and [each["page"] for each in net.pages] == [[f"{CORP}/authorize"]]


@pytest.mark.parametrize(("named", "at"), [([EVIL], EVIL), ([f"{CORP}.evil.example"], f"{CORP}.evil.example")])
def test_a_server_that_names_another_issuer_is_sent_nothing_and_opens_no_page(
    named: list[str], at: str, tmp_path: Path
) -> None:
    net = Net(named, of(at))
    assert signed_in(net, tmp_path, **CLIENT) == (
        f"MCP server corp asks to sign in at {at}, and its declaration has issuer = '{CORP}': nothing was sent; "
        "if the server has moved, register a client there and change `issuer`"
    )
    assert net.tokens == net.pages == net.registered == []


def test_a_server_that_is_its_own_authorization_server_by_the_older_way_is_sent_nothing(tmp_path: Path) -> None:
    for metadata in (of(MINE), {}):
        net = Net(None, metadata)
        assert str(signed_in(net, tmp_path, **CLIENT)).startswith(f"MCP server corp asks to sign in at {MINE}, and its")
        assert net.tokens == net.pages == net.registered == []
    net = Net(None, of(MINE))
    assert signed_in(net, tmp_path, issuer=MINE, client_id="me", client_secret="s") == 200
    assert net.tokens == [(MINE, "me:s")], "an issuer may be the server itself"


def test_without_the_issuers_metadata_the_servers_own_endpoints_are_not_taken(tmp_path: Path) -> None:
    net = Net([CORP], {})
    said = (
        "MCP server corp asks to sign in, and https://login.corp.example, which the client is registered at, gives no"
    )
    assert str(signed_in(net, tmp_path, **CLIENT)).startswith(said)
    assert net.tokens == net.pages == []


def test_a_token_is_not_refreshed_before_its_issuer_is_known(tmp_path: Path) -> None:
    net = Net([CORP], of(CORP))
    kept = OAuthToken(access_token="", refresh_token="from before")  # the SDK would refresh it at the MCP server
    assert signed_in(net, tmp_path, kept, **CLIENT) == 200
    assert net.tokens == [(CORP, "me:s3cret")]


def test_a_kept_registration_is_its_issuers_too(tmp_path: Path) -> None:
    first = Net([CORP], of(CORP))
    assert signed_in(first, tmp_path) == 200 and len(first.registered) == 1
    later = Net([CORP], {})  # the server has the metadata of the issuer fail
    kept = OAuthToken(access_token="old")
    assert "gives no metadata of its endpoints" in str(signed_in(later, tmp_path, kept))
    assert later.tokens == later.pages == []


def test_a_server_without_a_declared_client_is_signed_in_to_as_before(tmp_path: Path) -> None:
    for number, (named, metadata, at) in enumerate(
        (([EVIL], of(EVIL), EVIL), (None, of(MINE), MINE), (None, {}, MINE))
    ):
        net = Net(named, metadata)
        assert signed_in(net, tmp_path / str(number)) == 200
        assert [where for where, _ in net.tokens] == [at] and len(net.registered) == 1


@pytest.mark.parametrize("denied", [401, 403])
def test_declared_scopes_are_asked_for_and_no_others(denied: int, tmp_path: Path) -> None:
    for scopes, asked in ((("read",), "read"), (("read", "list"), "read list"), ((), "admin:all")):
        net = Net([CORP], of(CORP), "admin:all", denied)
        assert signed_in(net, tmp_path / str(len(scopes)), scopes=scopes) == 200
        assert [each["scope"] for each in net.pages] == [[asked]]
        assert [each["scope"] for each in net.registered] == [asked]


def test_no_request_for_a_token_is_made_with_a_secret_before_its_issuer_is_known(tmp_path: Path) -> None:
    declared = ServerDeclaration("corp", url=f"{MINE}/mcp", oauth=True, **CLIENT)
    net, stored = Net([CORP], {}), StoredTokens(declared, CALLBACK, tmp_path)
    flow = PinnedOAuth(declared, CALLBACK, stored, net.redirect, net.answer)
    flow.context.client_info = asyncio.run(stored.get_client_info())
    with pytest.raises(ToolError, match="nothing was sent"):
        asyncio.run(flow._exchange_token_authorization_code("code", "verifier"))
