"""The doors of the Studio, each method called by itself: refusals, sessions, keys, roles and guesses."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from firsthand.errors import ConfigError, UnknownName
from firsthand.studio import accounts as accounts_of
from firsthand.studio.access import SECURITY_HEADERS, Access, AccessMiddleware
from firsthand.studio.accounts import Accounts, User
from firsthand.studio.studio_store import SqliteStore
from studio_small_home import OWN

OWN_HEADERS = {"sec_fetch_site": OWN["sec-fetch-site"]}
HOST = "127.0.0.1:8131"


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = SqliteStore(tmp_path / "home")
    yield made
    made.close()


def opened(accounts: Accounts | None = None, **more: Any) -> Access:
    made = Access(accounts=accounts, **more)
    made.port = 8131
    return made


def asked(method: str = "GET", path: str = "/", query: str = "", **headers: str) -> Request:
    given = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Request({
        "type": "http", "method": method, "path": path, "query_string": query.encode(), "client": ("9.8.7.6", 1),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()], "server": ("x", 1), "scheme": "http",
    })  # fmt: skip


def told(answer: Response | None) -> Any:
    return (
        None
        if answer is None
        else (answer.status_code, bytes(answer.body).decode(), dict(answer.headers).get("location"))
    )


OPEN = (401, "Open the Studio with the address that `firsthand studio` printed; its code works once. Press Enter in that "
        "terminal for a new one.\n", None)  # fmt: skip
WRONG = (403, "This code is wrong, was used, or is too old: press Enter in the terminal of `firsthand studio` for a new "
         "address.\n", None)  # fmt: skip
OTHERS = (403, "Only pages of the Studio may change anything.\n", None)


def test_a_request_without_accounts_needs_a_host_an_origin_and_a_session() -> None:
    access = opened()
    door = AccessMiddleware(None, access)  # type: ignore[arg-type]
    session = access.exchange(access.new_code()) or ""
    cookie = {"cookie": f"a=b; firsthand-studio-8131={session}"}
    assert access.cookie == "firsthand-studio-8131" and access.session_of(Headers(cookie)) == session
    for request, answer in (
        (asked(host="evil:8131"), (421, "This is not the address of the Studio.\n", None)),
        (asked(), OPEN), (asked(cookie="firsthand-studio-8131=wrong"), OPEN), (asked(**cookie), None),
        (asked(path="/static/x/studio.css"), None), (asked(path="/static"), OPEN),
        (asked("POST", "/static/x", **cookie), OTHERS),
        (asked("POST", **cookie), OTHERS), (asked("POST", **cookie, sec_fetch_site="same-origin"), None),
        (asked("DELETE", **cookie, sec_fetch_site="same-site"), OTHERS), (asked("HEAD", **cookie), None),
        (asked("PUT", **cookie, origin=f"http://{HOST}"), None), (asked("PATCH", **cookie, origin="http://evil"), OTHERS),
        (asked("POST", sec_fetch_site="same-origin"), OPEN),
        (asked("POST", **cookie, authorization="Bearer x"), OTHERS), (asked(authorization="Bearer x"), OPEN),
        (asked(path="/enter", query="code=wrong"), WRONG), (asked(path="/enter"), WRONG),
    ):  # fmt: skip
        assert told(door._refusal(request)) == answer, (request.method, request.url.path, request.headers)
    refused = door._refusal(asked(host="evil:8131", **cookie))
    assert refused is not None and refused.headers["connection"] == "close", "a browser asks the other server anew"
    entered = door._enter(asked(path="/enter", query=f"code={access.new_code()}"))
    assert told(entered) == (303, "", "/")
    kept = entered.headers["set-cookie"]
    assert kept.startswith("firsthand-studio-8131=") and kept.endswith("; HttpOnly; Path=/; SameSite=strict")
    new = kept.partition("=")[2].partition(";")[0]
    assert access.knows(Headers({"cookie": f"firsthand-studio-8131={new}"})) and new != session
    assert not access.knows(Headers({"cookie": f"firsthand-studio-8132={new}"})) and not access.knows(Headers({}))
    assert access.session_of(Headers({"cookie": "\x01=;;;"})) is None and access.user_of(Headers(cookie)) is None
    access = Access()
    assert access.address_of(asked()) == "9.8.7.6" and access.address_of(Request({"type": "http", "headers": []})) == ""


def test_a_request_with_accounts_needs_a_role_and_no_more_than_some_changes(store: SqliteStore) -> None:
    accounts = Accounts(store, lambda: 50.0)
    for name, role in (("ann", "viewer"), ("bob", "editor"), ("cat", "admin")):
        store.put("account", name, {"role": role, "hash": "h", "made": ""})
    access = opened(accounts)
    door = AccessMiddleware(None, access)  # type: ignore[arg-type]
    keys = {name: {"authorization": f"BEARER  {accounts.new_key(name)} "} for name in ("ann", "bob", "cat")}
    accounts._sessions[hashlib.sha256(b"s1").digest()] = ("ann", "h", 51.0)
    cookie = {"cookie": "firsthand-studio-8131=s1"}
    assert access.user_of(Headers(cookie)) == User("ann", "viewer") and not access.knows(Headers(cookie))
    assert access.user_of(Headers(keys["bob"])) == User("bob", "editor") and access.user_of(Headers({})) is None
    assert access.user_of(Headers({**cookie, "authorization": "Bearer wrong"})) is None
    assert access.user_of(Headers({**cookie, "authorization": "Basic wrong"})) == User("ann", "viewer")
    sign_in, first = (303, "", "/sign-in"), (401, "Sign in first.\n", None)
    for request, answer, user in (
        (asked(accept="text/html,*/*"), sign_in, None), (asked(), first, None),
        (asked("POST", accept="text/html", **OWN_HEADERS), first, None), (asked(path="/sign-in"), None, None),
        (asked(path="/static/a/b"), None, None), (asked(path="/sign-in/x"), first, None), (asked(**cookie), None, "ann"),
        (asked("POST", "/x", **cookie), OTHERS, None), (asked("POST", "/x", **keys["bob"]), None, "bob"),
        (asked("POST", "/x", **keys["ann"]), (403, "This needs the role editor, and ann is viewer.\n", None), None),
        (asked(path="/audit", **keys["bob"]), (403, "This needs the role admin, and bob is editor.\n", None), None),
        (asked(path="/audit", **keys["cat"]), None, "cat"), (asked("POST", "/sign-out", **keys["ann"]), None, "ann"),
        (asked(path="/enter", **cookie), None, "ann"),
    ):  # fmt: skip
        assert told(door._refusal(request)) == answer, (request.method, request.url.path, request.headers)
        found = request.scope.get("firsthand.user")
        assert (found and found.name) == user
    accounts._changes["bob"] = [50.0] * 240
    late = door._refusal(asked("POST", "/x", **keys["bob"]))
    assert told(late) == (429, "Too many changes in a minute: wait a moment.\n", None) and late is not None
    assert late.headers["retry-after"] == "60" and door._refusal(asked("GET", "/x", **keys["bob"])) is None


def test_every_answer_gets_the_headers_and_a_change_its_line_in_the_log(store: SqliteStore) -> None:
    accounts = Accounts(store)
    store.put("account", "bob", {"role": "editor", "hash": "h", "made": ""})
    key = {"authorization": f"Bearer {accounts.new_key('bob')}"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept = {"cache-control": "public"} if scope["path"] == "/kept" else {"x-frame-options": "SAMEORIGIN"}
        await PlainTextResponse("done", 202, kept)(scope, receive, send)

    async def answers(request: Request, access: Access) -> tuple[int, dict[str, str]]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await AccessMiddleware(app, access)(request.scope, None, send)  # type: ignore[arg-type]
        return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}

    access = opened(accounts)
    status, headers = asyncio.run(answers(asked("POST", "/" + "a" * 400, **key), access))
    assert status == 202 and {name: headers[name] for name in SECURITY_HEADERS} == {
        **SECURITY_HEADERS,
        "x-frame-options": "SAMEORIGIN",
    }
    assert headers["cache-control"] == "no-store"
    status, headers = asyncio.run(answers(asked("GET", "/kept", **key), access))
    assert (status, headers["cache-control"]) == (202, "public")
    status, headers = asyncio.run(answers(asked("GET", "/"), access))
    assert status == 401 and headers["x-frame-options"] == "DENY"
    asyncio.run(answers(asked("POST", "/x"), access))
    assert [body for _, body in store.logged("audit")] == [
        {"who": "bob", "what": f"POST /{'a' * 294}", "status": 202, "address": "9.8.7.6"},
    ]  # fmt: skip


def test_an_account_keeps_what_it_has_in_other_projects_and_its_keys_go_with_it(store: SqliteStore) -> None:
    plain, here = Accounts(store), Accounts(store, project="p")
    store.put("account", "ann", {"role": "viewer", "hash": "h", "made": "", "projects": {"q": "admin"}})
    item = store.get("account", "ann")
    assert item is not None and here._with_role(item.body, "editor") == {
        **item.body,
        "projects": {"q": "admin", "p": "editor"},
    }
    assert plain._with_role(item.body, "") == {**item.body, "role": ""} and here._user(item) == User("ann", "viewer")
    here.give_role("ann", "none")
    changed = store.get("account", "ann")
    assert changed is not None and changed.version == 2 and changed.body["projects"] == {"q": "admin", "p": ""}
    assert (here.all(), plain.all(), here._user(changed)) == ([], [User("ann", "viewer")], None)
    with pytest.raises(ConfigError) as said:
        plain.give_role("ann", "king" * 20)
    assert str(said.value) == f"role is '{'king' * 10}': give one of viewer, annotator, editor, admin or none"
    store.put("account", "bob", {"role": "admin", "hash": "h", "made": ""})
    keys = [plain.new_key(name) for name in ("ann", "bob", "ann")]
    (item, *_) = [each for each in store.items("api-key") if each.key == keys[1].split("_")[1]]
    assert (item.body["account"], item.body["digest"]) == (
        "bob", hashlib.sha256(keys[1].split("_", 2)[2].encode()).hexdigest(),
    )  # fmt: skip
    other = "_".join([*keys[0].split("_")[:2], keys[1].split("_", 2)[2]])
    assert [plain.of_key(each) for each in (*keys, other, keys[0].upper(), f"fh_{'A' * 12}_x", "fh_1_2")] == [
        User("ann", "viewer"), User("bob", "admin"), User("ann", "viewer"), None, None, None, None,
    ]  # fmt: skip
    plain.remove("ann")
    assert [each.body["account"] for each in store.items("api-key")] == ["bob"] and plain.of_key(keys[0]) is None
    with pytest.raises(UnknownName, match="no account 'ann'"):
        plain.remove("ann")


def test_guesses_and_sessions_end_at_their_limits(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    made = Accounts(store, lambda: now[0])
    monkeypatch.setattr(accounts_of, "matches", lambda password, kept: kept == f"hash of {password}")
    store.put("account", "ann", {"role": "viewer", "hash": "hash of good", "made": ""})
    store.put("account", "out", {"role": "", "hash": "hash of good", "made": ""})
    assert [made.sign_in(name, word, "a") for name, word in (("ann", "bad"), ("out", "good"), ("no one", "good"))] == [
        None
    ] * 3
    assert {key: len(each) for key, each in made._wrong.items()} == {
        "account ann": 1, "address a": 3, "account out": 1, "account no one": 1,
    }  # fmt: skip
    session = made.sign_in("ann", "good", "a") or ""
    assert {key: len(each) for key, each in made._wrong.items() if each} == {
        "account ann": 1, "address a": 3, "account out": 1, "account no one": 1,
    }  # fmt: skip
    assert made._sessions == {hashlib.sha256(session.encode()).digest(): ("ann", "hash of good", 43_200.0)}
    assert made.of_session(session) == User("ann", "viewer") and made.of_session(session + "x") is None
    now[0] = 43_199.5
    second = made.sign_in("ann", "good", "b") or ""
    assert (
        len(made._sessions) == 2
        and list(made._wrong) == ["account ann", "address b"]
        and made.of_session(session) is not None
    )
    now[0] = 43_200.0
    assert made.of_session(session) is None and made.of_session(second) is not None
    made.sign_in("ann", "good", "b")
    assert len(made._sessions) == 2, "those that are over go"
    made.sign_out(second)
    assert made.of_session(second) is None
    made._wrong = {"account ann": [43_200.0 - 900 + at for at in (0, 1, 2, 3, 4)]}
    assert made._guess("ann", "c") == 43_200.0 and made._wrong["account ann"] == [
        42_301.0,
        42_302.0,
        42_303.0,
        42_304.0,
        43_200.0,
    ]
    assert made._guess("ann", "d") is None and "address d" not in made._wrong
    made._wrong = {"address c": [43_000.0] * 29}
    assert (
        made._guess("x" * 70, "c") == 43_200.0
        and made._guess("y", "c") is None
        and f"account {'x' * 64}" in made._wrong
    )
    user = User("ann", "viewer")
    made._changes = {"ann": [43_140.0, *[43_140.5] * 239]}
    assert [made.may_change_now(user), made.may_change_now(user)] == [True, False]
    assert len(made._changes["ann"]) == 241 and made._changes["ann"][0] == 43_140.5


def test_accounts_are_made_and_changed_within_their_bounds(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(accounts_of._SCRYPT, "n", 1 << 4)
    made, here = Accounts(store), Accounts(store, project="p")
    longest = "A" + "b._@-9" * 10 + "xyz"
    made.add(longest, "x" * 12, "viewer")
    made.add("0", "é" * 1024, "admin")
    assert [(user.name, user.role) for user in made.all()] == [("0", "admin"), (longest, "viewer")] and len(
        longest
    ) == 64
    item = store.get("account", "0")
    assert (
        item is not None
        and sorted(item.body) == ["hash", "id", "made", "role"]
        and accounts_of.matches("é" * 1024, item.body["hash"])
    )
    here.add("0", "y" * 12, "viewer")
    again = store.get("account", "0")
    assert again is not None and (again.body["role"], again.body["projects"]) == ("admin", {"p": "viewer"})
    assert accounts_of.matches("y" * 12, again.body["hash"]) and not accounts_of.matches("é" * 1024, again.body["hash"])
    here.add("new", "y" * 12, "editor")
    assert (made.all(), [user.name for user in here.all()]) == (
        [User("0", "admin"), User(longest, "viewer")], ["0", longest, "new"],
    )  # fmt: skip
    for name, password, role, says in (
        ("a" * 65, "y" * 12, "viewer", f"'{'a' * 60}' is no name of an account: use up to 64 letters, digits and . _ @ -"),
        ("", "y" * 12, "viewer", "'' is no name of an account: use up to 64 letters, digits and . _ @ -"),
        ("a", "y" * 11, "viewer", "the password has 11 characters: give 12 to 1024"),
        ("a", "y" * 1025, "viewer", "the password has 1025 characters: give 12 to 1024"),
        ("a", "y" * 12, "none", "role is 'none': give one of viewer, annotator, editor, admin"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as said:
            made.add(name, password, role)
        assert str(said.value) == says
    kept = accounts_of.hashed("secret")
    salt, digest = kept.split("$")[4:]
    assert (
        kept.startswith("scrypt$16$8$1$")
        and (len(salt), len(digest)) == (32, 64)
        and kept != accounts_of.hashed("secret")
    )
    wrong = ("", "scrypt$16$8$1$" + salt, f"sha$16$8$1${salt}${digest}",
    f"scrypt$16$8$1${salt}${digest[:-1]}0"[:-2], kept + "$1",
             f"scrypt$15$8$1${salt}${digest}", f"scrypt$16$8$1$zz${digest}")  # fmt: skip
    assert accounts_of.matches("secret", kept) and not any(accounts_of.matches("secret", each) for each in wrong)
    assert not accounts_of.matches("secret ", kept)


def test_what_is_no_request_of_a_page_goes_through(store: SqliteStore) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], receive, send))

    for kind in ("lifespan", "websocket"):
        asyncio.run(AccessMiddleware(app, opened(Accounts(store)))({"type": kind}, "receive", "send"))  # type: ignore[arg-type]
    assert seen == [("lifespan", "receive", "send"), ("websocket", "receive", "send")]


def test_a_code_opens_one_session_and_wrong_ones_are_counted_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("firsthand.studio.access.time.monotonic", lambda: now[0])
    access = opened()
    first, second = access.new_code(), access.new_code()
    assert first != second and access.exchange("é") is None and access._wrong == [1000.0]
    session = access.exchange(second)
    assert session and access.exchange(second) is None and list(access._codes) == [first]
    assert access.knows(Headers({"cookie": f"firsthand-studio-8131={session}"})) and len(access._wrong) == 2
    now[0] = 1600.0
    assert access.exchange(first), "at the last moment"
    late = access.new_code()
    now[0] = 2200.5
    assert access.exchange(late) is None and access._codes == {} and access._wrong == [2200.5]
    codes = [access.new_code() for _ in range(3)]
    access._wrong = [2200.5] * 19
    assert access.exchange(codes[0]) and access.exchange("wrong") is None
    assert access.exchange(codes[1]) is None and len(access._wrong) == 20 and codes[1] in access._codes
    now[0] = 2260.4
    assert access.exchange(codes[1]) is None
    now[0] = 2260.5
    assert access.exchange(codes[1]) and access._wrong == []
