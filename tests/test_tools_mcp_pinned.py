"""The OAuth flow of a declared MCP server: who is sent a client's secret, and which scopes are asked for."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("mcp", reason="needs the MCP SDK: pip install 'firsthand[mcp]'")

import httpx2
from mcp.client.auth import OAuthFlowError
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthToken

from firsthand.errors import ToolError
from firsthand.tools.mcp import oauth_sign_in
from firsthand.tools.mcp.oauth_sign_in import StoredTokens, is_signed_in, tokens_path
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


# -- tokens that are kept --


class Renewing(Net):
    """A server whose tokens are good once, and an issuer that renews each refresh token once."""

    def __init__(self, named: list[str] | None, metadata: dict[str, Any], renews: bool = True) -> None:
        super().__init__(named, metadata)
        self.good, self.count, self.renews, self.grants = "", 0, renews, list[str]()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/mcp":
            good = bool(self.good) and request.headers.get("authorization") == f"Bearer {self.good}"
            return (
                httpx2.Response(200, json={}) if good else httpx2.Response(401, headers={"www-authenticate": "Bearer"})
            )
        if request.url.path != "/token":
            return super().__call__(request)
        given = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        self.grants.append(f"{given['grant_type']} {request.url.host}")
        refused = given["grant_type"] == "refresh_token" and (
            not self.renews or given["refresh_token"] != f"R{self.count}"
        )
        if refused:
            return httpx2.Response(400, json={"error": "invalid_grant"})
        self.count += 1
        self.good = f"AT{self.count}"
        body = {"access_token": self.good, "token_type": "Bearer", "refresh_token": f"R{self.count}"}
        return httpx2.Response(200, json=body | ({} if self.count % 2 == 0 else {"expires_in": 3600}))


def uses(
    net: Renewing, home: Path, times: int = 1, *, registers_anew: bool = False, **settings: Any
) -> list[int | str]:
    """The status of each of some requests at once, each of a connection of its own, or the error."""
    declared = ServerDeclaration("corp", url=f"{MINE}/mcp", oauth=True, **settings)

    async def answered(request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0.01)  # the others go on
        return net(request)

    async def one() -> int | str:
        stored = StoredTokens(declared, CALLBACK, home)
        flow = PinnedOAuth(declared, CALLBACK, stored, net.redirect, net.answer, registers_anew=registers_anew)
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answered), auth=flow) as client:
            try:
                return (await client.post(declared.url)).status_code
            except (ToolError, OAuthFlowError) as error:
                return str(error)

    async def main() -> list[int | str]:
        return await asyncio.gather(*(one() for _ in range(times)))

    return asyncio.run(main())


class Forgetful(Renewing):
    """An issuer that gives each client an id of its own, and forgets those it gave before when it is told to."""

    def __init__(self, named: list[str], metadata: dict[str, Any]) -> None:
        super().__init__(named, metadata)
        self.known, self.asked, self.registers = {"me"}, 0, True
        self.unknown = httpx2.Response(401, json={"error": "invalid_client"})
        self.meanwhile: Callable[[], None] = lambda: None

    def forget(self) -> None:
        self.known, self.good = set(), "another"

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/register":
            self.asked += 1
            if not self.registers:
                return httpx2.Response(403, json={"error": "access_denied"})
            self.known.add(f"c{self.asked}")
            return httpx2.Response(201, json={"client_id": f"c{self.asked}", "redirect_uris": [CALLBACK]})
        if request.url.path == "/token":
            given = parse_qs(request.content.decode())
            if given["client_id"][0] not in self.known:
                self.grants.append(f"refused {given['grant_type'][0]}")
                self.meanwhile()
                return self.unknown
        return super().__call__(request)

    def clients(self) -> list[str]:
        """The clients of the pages that were shown."""
        return [each["client_id"][0] for each in self.pages]


def change(home: Path, **parts: Any) -> Path:
    """Put other parts into the file of tokens."""
    path = StoredTokens(ServerDeclaration("corp", url=f"{MINE}/mcp"), CALLBACK, home).path
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))
    return path


HOST = CORP.removeprefix("https://")


def test_tokens_that_expired_are_renewed_once_by_all_connections_and_no_person_is_asked(tmp_path: Path) -> None:
    net = Renewing([CORP], of(CORP))
    assert uses(net, tmp_path) == [200] and len(net.pages) == 1 and uses(net, tmp_path) == [200]
    assert net.grants == [f"authorization_code {HOST}"]
    change(tmp_path, expires_at=1.0)
    assert uses(net, tmp_path, 3) == [200] * 3 and len(net.pages) == 1
    assert net.grants[1:] == [f"refresh_token {HOST}"], "by the first, and the others read what it kept"


def test_tokens_that_the_server_refuses_are_renewed_though_they_had_not_expired(tmp_path: Path) -> None:
    net = Renewing([CORP], of(CORP))
    assert uses(net, tmp_path) == [200]
    net.good = "another"
    assert uses(net, tmp_path, 2) == [200, 200] and len(net.pages) == 1
    assert net.grants[1:] == [f"refresh_token {HOST}"]


def test_a_person_is_asked_where_the_tokens_cannot_be_renewed(tmp_path: Path) -> None:
    net = Renewing([CORP], of(CORP), renews=False)
    assert uses(net, tmp_path) == [200]
    change(tmp_path, expires_at=1.0)
    assert uses(net, tmp_path) == [200] and len(net.pages) == 2
    assert net.grants[1:] == [f"refresh_token {HOST}", f"authorization_code {HOST}"]


def test_a_refresh_token_goes_to_the_issuer_of_its_tokens_and_to_no_other(tmp_path: Path) -> None:
    net = Renewing([CORP], of(CORP) | of(EVIL))
    assert uses(net, tmp_path) == [200]
    net.named, net.good = [EVIL], "another"
    assert uses(net, tmp_path) == [200] and net.grants[1:] == [f"refresh_token {HOST}"], "as it was kept"
    body = json.loads(change(tmp_path, issuer=None, expires_at=1.0).read_text())
    assert uses(net, tmp_path) == [200] and net.grants[2:] == [f"authorization_code {EVIL.removeprefix('https://')}"]
    change(tmp_path, client=body["client"], expires_at=1.0)  # a client of one issuer, and tokens of another
    net.named = [CORP]
    assert uses(net, tmp_path) == [200] and net.grants[3:] == [f"authorization_code {HOST}"]


def test_tokens_belong_to_an_address_and_a_declared_client_whatever_the_server_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    first = ServerDeclaration("first", url=f"{MINE}/mcp")
    same = [replace(first, name="second"), replace(first, oauth=True)]
    others = [replace(first, url=f"{MINE}/other"), replace(first, issuer=CORP), replace(first, **CLIENT)]
    others.append(replace(first, scopes=("read", "list")))  # tokens for more are not its own
    assert tokens_path(others[-1]) == tokens_path(replace(first, scopes=("list", "read")))
    assert {tokens_path(each) for each in same} == {tokens_path(first)}
    assert len({tokens_path(each) for each in [first, *others]}) == 5
    assert not is_signed_in(first)
    asyncio.run(StoredTokens(first, CALLBACK).set_tokens(OAuthToken(access_token="t")))
    assert is_signed_in(first) and all(map(is_signed_in, same)) and not any(map(is_signed_in, others))
    assert not is_signed_in(replace(first, headers={"AUTHORIZATION": "Bearer mine"}))
    assert not is_signed_in(ServerDeclaration("program", command="x"))


def test_tokens_under_the_name_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    declared = ServerDeclaration("corp", url=f"{MINE}/mcp")
    stored = StoredTokens(declared, CALLBACK, tmp_path)
    asyncio.run(stored.set_tokens(OAuthToken(access_token="t")))
    stored.path.rename(stored._earlier)
    assert stored._earlier.name.startswith("corp-") and stored.get_expiry() is None
    tokens = asyncio.run(stored.get_tokens())
    assert tokens is not None and tokens.access_token == "t"


def test_a_renewal_waits_for_another_and_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth_sign_in, "TURN_S", 0.1)
    stored = StoredTokens(ServerDeclaration("corp", url=f"{MINE}/mcp"), CALLBACK, tmp_path)
    asyncio.run(stored.set_tokens(OAuthToken(access_token="t")))

    async def main() -> None:
        async with stored.turn():
            with pytest.raises(ToolError, match=r"^another process renews the tokens of MCP server corp for 0\.1 s"):
                async with stored.turn():
                    pass
        async with stored.turn():
            pass

    asyncio.run(main())


# -- clients that an issuer has forgotten --


@pytest.mark.parametrize(
    ("unknown", "anew"),
    [(httpx2.Response(401, json={"error": "invalid_client"}), True),
     (httpx2.Response(400, json={"error": "invalid_client"}), True),
     (httpx2.Response(401, text="<h1>Unauthorized</h1>"), True), (httpx2.Response(401, json=["?"]), True),
     (httpx2.Response(401, text="[" * 100_000), True),
     (httpx2.Response(401, json={"error": "invalid_grant"}), False),
     (httpx2.Response(400, json={"error": "invalid_request"}), False), (httpx2.Response(400, text="?"), False),
     (httpx2.Response(503, json={"error": "invalid_client"}), False)],
)  # fmt: skip
def test_a_client_that_is_refused_with_a_refresh_token_is_registered_anew(
    unknown: httpx2.Response, anew: bool, tmp_path: Path
) -> None:
    net = Forgetful([CORP], of(CORP))
    assert uses(net, tmp_path) == [200] and net.clients() == ["c1"]
    net.forget()
    net.unknown = unknown
    if not anew:
        net.meanwhile = lambda: net.known.add("c1")
    assert uses(net, tmp_path) == [200] and net.clients() == (["c1", "c2"] if anew else ["c1", "c1"])
    assert net.grants[1:] == ["refused refresh_token", f"authorization_code {HOST}"]
    assert uses(net, tmp_path) == [200] and len(net.pages) == 2, "the new tokens are kept"


def test_a_client_that_is_refused_with_its_code_is_forgotten_and_the_person_is_told(tmp_path: Path) -> None:
    net = Forgetful([CORP], of(CORP))
    assert uses(net, tmp_path) == [200]
    net.forget()
    change(tmp_path, tokens=None)
    assert uses(net, tmp_path) == [
        "MCP server corp asks to sign in, and its authorization server no longer knows the client that was registered "
        "there: the registration is forgotten; sign in again"
    ]
    assert json.loads(change(tmp_path).read_text()) == {}, "its tokens are no longer good for anything"
    assert uses(net, tmp_path) == [200] and net.clients() == ["c1", "c1", "c2"]


def test_a_declared_client_is_never_forgotten_nor_another_registered(tmp_path: Path) -> None:
    net = Forgetful([CORP], of(CORP))
    declared = {"issuer": CORP, "client_id": "me"}
    assert uses(net, tmp_path, **declared) == [200]
    net.forget()
    for anew in (False, True):
        (said,) = uses(net, tmp_path, registers_anew=anew, **declared)
        assert str(said).startswith("Token exchange failed (401)")
    assert net.asked == 0 and net.clients() == ["me"] * 3
    assert net.grants[1:] == ["refused refresh_token", "refused authorization_code"] * 2, "its tokens stay too"


def test_a_client_that_another_connection_registered_in_the_meantime_stays(tmp_path: Path) -> None:
    net = Forgetful([CORP], of(CORP))
    assert uses(net, tmp_path) == [200]
    before = json.loads(change(tmp_path).read_text())
    net.forget()

    def other() -> None:
        net.known, net.good = {"c9"}, "AT9"
        new = {"access_token": "AT9", "token_type": "Bearer", "refresh_token": "R9"}
        change(tmp_path, client=before["client"] | {"client_id": "c9"}, tokens=new)

    net.meanwhile = other
    assert uses(net, tmp_path) == [200] and net.clients() == ["c1"] and net.asked == 1
    assert json.loads(change(tmp_path).read_text())["client"]["client_id"] == "c9"


def test_a_person_who_asks_to_sign_in_does_so_as_a_new_client_unless_tokens_answer(tmp_path: Path) -> None:
    net = Forgetful([CORP], of(CORP))
    assert uses(net, tmp_path, registers_anew=True) == [200] and net.asked == 1
    assert uses(net, tmp_path, registers_anew=True) == [200] and net.asked == 1, "the tokens are good"
    net.good = "another"
    assert uses(net, tmp_path, registers_anew=True) == [200] and net.clients() == ["c1"], "they are renewed"
    net.forget()
    body = json.loads(change(tmp_path).read_text())
    change(tmp_path, tokens={**body["tokens"], "refresh_token": None})
    assert uses(net, tmp_path, registers_anew=True) == [200] and net.clients() == ["c1", "c2"]
    net.registers, net.good = False, "another"
    change(tmp_path, tokens=None)
    assert uses(net, tmp_path, registers_anew=True) == [200] and net.clients() == ["c1", "c2", "c2"] and net.asked == 3
    change(tmp_path, tokens=None, client=None)
    net.good = "another"
    (said,) = uses(net, tmp_path, registers_anew=True)
    assert str(said).startswith("Registration failed: 403") and net.asked == 4


def test_a_registration_whose_secret_has_expired_is_made_anew(tmp_path: Path) -> None:
    stored = StoredTokens(ServerDeclaration("corp", url=f"{MINE}/mcp"), CALLBACK, tmp_path)
    for ends, kept in ((None, True), (0, True), (int(time.time()) + 600, True), (int(time.time()) - 1, False)):
        client = {"client_id": "c", "client_secret": "s", "redirect_uris": [CALLBACK], "client_secret_expires_at": ends}
        asyncio.run(stored.set_client_info(OAuthClientInformationFull.model_validate(client)))
        assert (asyncio.run(stored.get_client_info()) is not None) == kept
