"""Who may enter the Studio: hosts, cookies, keys, codes and guesses at their limits, and what the middleware adds."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from firsthand.errors import ConfigError, UnknownName
from firsthand.studio import access as access_module
from firsthand.studio import accounts as account_module
from firsthand.studio.access import (
    CODE_LIVES_S,
    MOST_COOKIES,
    SECURITY_HEADERS,
    WRONG_CODES,
    Access,
    AccessMiddleware,
)
from firsthand.studio.accounts import (
    ACCOUNT,
    GUESS_S,
    GUESSES_OF_ADDRESS,
    KEY,
    SESSION_S,
    Accounts,
    User,
    _digest,
    needed_role,
)
from firsthand.studio.studio_store import SqliteStore

PASSWORD = "a long password"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Accounts, list[float]]]:
    """Accounts with a clock that is set, and a hash that is quick."""
    monkeypatch.setitem(account_module._SCRYPT, "n", 1 << 4)
    monkeypatch.setattr(account_module, "_NOBODY", account_module.hashed("nobody at all"))
    now = [1000.0]
    store = SqliteStore(tmp_path)
    yield Accounts(store, lambda: now[0]), now
    store.close()


def test_hosts_are_names_of_any_case_with_the_port_of_the_server_or_its_proxy() -> None:
    for is_https, ports in ((False, {"8131"}), (True, {"8131", "443", "80", ""})):
        access = Access(("Studio.Example.org", "[::1]"), is_https=is_https)
        access.port = 8131
        for name in ("studio.example.ORG", "[::1]"):
            for port in ("8131", "443", "80", "", "81", "08131"):
                host = f"{name}:{port}" if port else name
                assert access.is_own_host(host) is (port in ports), (is_https, host)
                for scheme in ("http", "https"):
                    assert access.is_own_origin(Headers({"origin": f"{scheme}://{host}"})) is (port in ports)
        for other in (
            None,
            "",
            ":8131",
            "example.org:8131",
            "studio.example.org.:8131",
            "studio.example.org:8131:8131",
        ):
            assert not access.is_own_host(other), other
        for origin in ("null", "", "studio.example.org:8131", "http://evil.example/x://studio.example.org:8131"):
            assert not access.is_own_origin(Headers({"origin": origin, "sec-fetch-site": "same-origin"})), origin
    here = Access()
    here.port = 8131
    names = ("127.0.0.1", "LOCALHOST", "[::1]", "::1", "127.0.0.2", "0.0.0.0", "localhost.")
    assert [here.is_own_host(f"{name}:8131") for name in names] == [True] * 3 + [False] * 4
    assert (here.is_https, here.accounts, here.cookie) == (False, None, "firsthand-studio-8131")
    plain = Access(("a",))
    plain.port = 80
    assert plain.is_own_host("a") and plain.is_own_host("A:80") and not plain.is_own_host("a:443")
    for site, own in (("same-origin", True), ("same-site", False), ("none", False), ("", False)):
        assert plain.is_own_origin(Headers({"sec-fetch-site": site})) is own
    assert not plain.is_own_origin(Headers({}))


def test_a_cookie_is_that_of_the_port_without_its_quotes_and_a_key_goes_before_it(
    made: tuple[Accounts, list[float]],
) -> None:
    accounts, _ = made
    access = Access(accounts=accounts)
    access.port = 12
    for cookie, session in (
        ("firsthand-studio-12=ab", "ab"), ('x=1; firsthand-studio-12="a\\"b"; y=2', 'a"b'), ("firsthand-studio-1=ab", None),
        ("firsthand-studio-12=", ""), ("", None), ("firsthand-studio-12=a; firsthand-studio-12=b", "b"),
    ):  # fmt: skip
        assert access.session_of(Headers({"cookie": cookie})) == session, cookie
    for name, role in (("ann", "viewer"), ("bob", "editor")):
        accounts.add(name, PASSWORD, role)
    session, key = accounts.sign_in("ann", PASSWORD, "here"), accounts.new_key("bob")
    cookie = f"firsthand-studio-12={session}"
    ann, bob = User("ann", "viewer"), User("bob", "editor")
    for headers, user in (
        ({"cookie": cookie}, ann), ({"cookie": cookie, "authorization": f"bearer   {key} "}, bob),
        ({"cookie": cookie, "authorization": f"Bearer {key[:-1]}"}, None), ({"authorization": f"BEARER {key}"}, bob),
        ({"cookie": cookie, "authorization": f"Basic {key}"}, ann), ({"cookie": cookie, "authorization": "bearer"}, None),
        ({"cookie": f"{cookie}x"}, None), ({}, None), ({"authorization": key}, None),
    ):  # fmt: skip
        assert access.user_of(Headers(headers)) == user, headers
    opened = access.exchange(access.new_code())
    assert not access.knows(Headers({"cookie": f"firsthand-studio-12={opened}"})), "with accounts a code opens nothing"
    assert access.session_of(Headers({"cookie": "a,b=1"})) is None, "no browser may send that name"
    assert Access().user_of(Headers({"cookie": cookie})) is None and not access.knows(Headers({"cookie": cookie}))


def test_codes_open_once_in_time_and_not_after_twenty_wrong_ones_of_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [500.0]
    monkeypatch.setattr(access_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    access = Access()
    first, second, late = (access.new_code() for _ in range(3))
    session = access.exchange(first)
    assert session and access.knows(Headers({"cookie": f"firsthand-studio-0={session}"}))
    assert access.exchange(first) is None, "a code opens once"
    now[0] += CODE_LIVES_S
    assert access.exchange(second), "at its last moment"
    now[0] += 0.5
    assert access.exchange(late) is None and late not in access._codes and access.exchange("") is None
    begun = now[0]
    good = access.new_code()
    for _ in range(WRONG_CODES - 3):
        assert access.exchange("é") is None
    assert access.exchange(good), "nineteen were wrong"
    good = access.new_code()
    assert access.exchange("x") is None and access.exchange(good) is None, "twenty were"
    now[0] = begun + 59.9
    assert access.exchange(good) is None and len(access._wrong) == WRONG_CODES
    now[0] = begun + 60
    assert access.exchange(good) is not None


def test_a_right_password_takes_back_one_guess_of_its_name_and_one_of_its_address(
    made: tuple[Accounts, list[float]],
) -> None:
    accounts, now = made
    accounts.add("ann", PASSWORD, "viewer")
    accounts.add("bob", PASSWORD, "viewer")

    def tries(name: str, password: str = "wrong one here", address: str = "a") -> bool:
        now[0] += 0.25
        return accounts.sign_in(name, password, address) is not None

    assert [tries("ann") for _ in range(4)] == [False] * 4 and tries("ann", PASSWORD) and tries("ann", PASSWORD)
    assert not tries("ann") and not tries("ann", PASSWORD), "the fifth wrong one closes it"
    for n in range(GUESSES_OF_ADDRESS - 6):
        assert not tries(f"n{n}")
    assert tries("bob", PASSWORD) and tries("bob", PASSWORD), "29 were wrong"
    assert not tries("odd") and not tries("bob", PASSWORD) and tries("bob", PASSWORD, "b")
    now[0] += GUESS_S - 0.25
    assert not tries("bob", "wrong two here", "c")
    assert tries("ann", PASSWORD, "c"), "after a quarter of an hour"


def test_sessions_last_twelve_hours_each_and_end_with_password_role_and_account(
    made: tuple[Accounts, list[float]],
) -> None:
    accounts, now = made
    for name in ("ann", "bob"):
        accounts.add(name, PASSWORD, "viewer")
    first = accounts.sign_in("ann", PASSWORD, "a")
    now[0] += 10
    second, third = accounts.sign_in("ann", PASSWORD, "a"), accounts.sign_in("bob", PASSWORD, "a")
    assert first and second and third and first != second
    ann, bob = User("ann", "viewer"), User("bob", "viewer")
    assert [accounts.of_session(each) for each in (first, second, third, "x", "")] == [ann, ann, bob, None, None]
    now[0] += SESSION_S - 10
    assert [accounts.of_session(each) for each in (first, second, third)] == [None, ann, bob]
    accounts.sign_out(second)
    accounts.sign_out("unknown")
    assert accounts.of_session(second) is None and accounts.of_session(third) == bob
    accounts.give_role("bob", "editor")
    assert accounts.of_session(third) == User("bob", "editor"), "a role is that of now"
    accounts.add("bob", "another password", "editor")
    assert accounts.of_session(third) is None and accounts.sign_in("bob", PASSWORD, "a") is None
    again = accounts.sign_in("bob", "another password", "a")
    assert again and len(accounts._sessions) == 2, (
        "those that are over are forgotten: bob's old one and the new one stay"
    )
    accounts.remove("bob")
    assert accounts.of_session(again) is None
    with pytest.raises(UnknownName, match="no account 'bob'"):
        accounts.remove("bob")


def test_keys_may_hold_any_sign_and_go_with_their_account(made: tuple[Accounts, list[float]]) -> None:
    accounts, _ = made
    for name in ("ann", "bob"):
        accounts.add(name, PASSWORD, "editor")
    keys = [accounts.new_key(name) for name in ("ann", "bob", "ann")]
    id = "0123456789ab"
    ann = accounts.store.get(ACCOUNT, "ann")
    assert ann is not None
    body = {"account": "ann", "account_id": ann.body["id"], "digest": _digest("a_b__c").hex(), "made": ""}
    accounts.store.put(KEY, id, body)
    assert accounts.of_key(f"fh_{id}_a_b__c") == User("ann", "editor")
    wrong = (
        f"fh_{id}_a_b",
        f"fx_{id}_a_b__c",
        f"fh_{id.upper()}_a_b__c",
        f"fh_{id}",
        "",
        f"fh_{id}0_a_b__c",
        "fh_ffffffffffff_x",
    )
    assert [accounts.of_key(each) for each in wrong] == [None] * len(wrong)
    here = Accounts(accounts.store, project="one")
    here.give_role("ann", "none")
    assert here.of_key(keys[0]) is None and here.of_key(keys[1]) == User("bob", "editor")
    assert here.sign_in("ann", PASSWORD, "a") is None and accounts.sign_in("ann", PASSWORD, "a")
    accounts.remove("ann")
    assert [accounts.of_key(each) is None for each in keys] == [True, False, True]
    assert [item.body["account"] for item in accounts.store.items(KEY)] == ["bob"]


def test_a_key_opens_its_own_account_and_none_that_has_the_name_later(made: tuple[Accounts, list[float]]) -> None:
    accounts, _ = made
    accounts.add("bob", PASSWORD, "admin")
    key = accounts.new_key("bob")
    accounts.add("bob", "another password", "editor")
    assert accounts.of_key(key) == User("bob", "editor"), "another password is no other account"
    assert accounts.store.remove(ACCOUNT, "bob")  # as versions before 0.22.0 did first, and were killed
    assert accounts.of_key(key) is None
    accounts.add("bob", PASSWORD, "viewer")
    assert accounts.of_key(key) is None and accounts.of_key(accounts.new_key("bob")) == User("bob", "viewer")
    for name in ("old", "new"):
        accounts.store.put(ACCOUNT, name, {"role": "viewer", "hash": "x"})
    accounts.store.put(KEY, "0123456789ab", {"account": "old", "digest": _digest("s").hex(), "made": ""})
    assert accounts.of_key("fh_0123456789ab_s") == User("old", "viewer"), "a key of before goes on"
    accounts.add("old", PASSWORD, "editor")
    assert accounts.of_key("fh_0123456789ab_s") == User("old", "editor")
    assert accounts.of_key(accounts.new_key("new")) == User("new", "viewer")
    accounts.store.remove(ACCOUNT, "old")
    accounts.add("old", PASSWORD, "editor")
    assert accounts.of_key("fh_0123456789ab_s") is None


@pytest.mark.parametrize("kind", [KEY, ACCOUNT])
def test_a_removal_that_ends_halfway_leaves_an_account_that_can_be_removed(
    made: tuple[Accounts, list[float]], tmp_path: Path, kind: str
) -> None:
    class Killed(SqliteStore):
        """A store whose process ends at a removal."""

        def remove(self, removed: str, key: str, *, version: int | None = None) -> bool:
            if removed == kind:
                raise KeyboardInterrupt
            return super().remove(removed, key, version=version)

    accounts, _ = made
    accounts.add("bob", PASSWORD, "admin")
    accounts.new_key("bob")
    store = Killed(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Accounts(store).remove("bob")
    assert accounts.all() == [User("bob", "admin")] and len(accounts.store.items(KEY)) == (kind == KEY)
    accounts.remove("bob")
    assert accounts.all() == [] and accounts.store.items(KEY) == []
    with pytest.raises(UnknownName, match="no account 'bob'"):
        accounts.remove("bob")
    store.close()


def test_two_who_make_one_account_at_once_lose_no_role(made: tuple[Accounts, list[float]], tmp_path: Path) -> None:
    accounts, _ = made
    one, two = (Accounts(accounts.store, project=name) for name in ("one", "two"))

    class Beside(SqliteStore):
        """A store where another project's admin is made after the account was read."""

        def get(self, kind: str, key: str) -> Any:
            found = super().get(kind, key)
            two.add(key, PASSWORD, "admin")
            return found

    beside = Accounts(Beside(tmp_path), project="one")
    for says in ("is there already", "was changed in the meantime"):
        with pytest.raises(ConfigError, match=f"the account 'ada' {says}: open it again and repeat your change"):
            beside.add("ada", PASSWORD, "editor")
        assert one.all() == [] and two.all() == [User("ada", "admin")]
    one.add("ada", PASSWORD, "editor")
    assert one.all() == [User("ada", "editor")] and two.all() == [User("ada", "admin")]
    beside.store.close()


def test_an_account_that_is_made_again_keeps_its_roles_elsewhere(made: tuple[Accounts, list[float]]) -> None:
    accounts, _ = made
    one, two = (Accounts(accounts.store, project=name) for name in ("one", "two"))
    one.add("ann", PASSWORD, "editor")
    two.give_role("ann", "admin")
    before = accounts.store.get(ACCOUNT, "ann")
    assert before is not None and before.body["projects"] == {"one": "editor", "two": "admin"}
    one.add("ann", "another password", "viewer")
    after = accounts.store.get(ACCOUNT, "ann")
    assert (
        after is not None and after.body["projects"] == {"one": "viewer", "two": "admin"} and after.body["role"] == ""
    )
    assert after.body["hash"] != before.body["hash"] and set(after.body) == {"role", "id", "hash", "made", "projects"}
    assert after.body["id"] == before.body["id"]
    assert accounts.all() == [] and two.all() == [User("ann", "admin")]
    accounts.give_role("ann", "annotator")
    assert Accounts(accounts.store, project="three").all() == accounts.all() == [User("ann", "annotator")]
    one.give_role("ann", "none")
    assert one.all() == [], "none here, whatever the role elsewhere"
    for role in ("", "None", "root"):
        with pytest.raises(ConfigError, match="give one of viewer, annotator, editor, admin or none"):
            one.give_role("ann", role)
    accounts.audit("w" * 65, "did it", status=3)
    assert [body for _, body in accounts.store.logged("audit")] == [{"who": "w" * 64, "what": "did it", "status": 3}]


def test_roles_are_asked_for_by_method_and_whole_path() -> None:
    for method, path, role in (
        ("GET", "/audit", "admin"), ("POST", "/audit/x", "admin"), ("HEAD", "/", "viewer"), ("OPTIONS", "/", "editor"),
        ("POST", "/runs/a/note", "annotator"), ("PUT", "/runs/a/note", "editor"), ("POST", "/runs/a/b/note", "editor"),
        ("POST", "/arena/rounds", "annotator"), ("POST", "/arena/rounds/x/vote", "annotator"),
        ("POST", "/arena/rounds/x/votes", "editor"), ("DELETE", "/arena/rounds/x/undo", "editor"),
        ("POST", "/queues/q/items/p", "annotator"), ("POST", "/queues/q/items/p/x", "editor"), ("POST", "/queues", "editor"),
        ("POST", "/runs/a/attempts/b/notes", "annotator"), ("GET", "/features/a/live/1/2", "viewer"),
        ("GET", "/queues/q/next", "annotator"), ("HEAD", "/queues/q/next", "annotator"),
        ("GET", "/queues/q/nexts", "viewer"),
        ("GET", "/queues/q/items/next", "viewer"), ("GET", "/queues/next", "viewer"), ("POST", "/queues/q/next", "editor"),
    ):  # fmt: skip
        assert needed_role(method, path) == role, (method, path)


def test_every_answer_has_its_headers_unless_a_page_has_its_own(made: tuple[Accounts, list[float]]) -> None:
    accounts, _ = made
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope.get("firsthand.user") or scope["type"])
        if scope["type"] == "http":
            own = {"x-frame-options": "SAMEORIGIN", "cache-control": ""} if "own" in scope["path"] else {}
            await PlainTextResponse("there", 201, own)(scope, receive, send)

    access = Access(accounts=accounts)
    access.port = 8131
    for name, role in (("ann", "annotator"), ("ada", "admin")):
        accounts.add(name, PASSWORD, role)
    keys = {name: {"authorization": f"Bearer {accounts.new_key(name)}"} for name in ("ann", "ada")}
    client = TestClient(AccessMiddleware(app, access), base_url="http://127.0.0.1:8131", follow_redirects=False)
    for path, own in (("/x", False), ("/own", True)):
        found = client.get(path, headers=keys["ann"])
        expected = {**SECURITY_HEADERS, "cache-control": "no-store"} | (
            {"x-frame-options": "SAMEORIGIN", "cache-control": ""} if own else {}
        )
        assert found.status_code == 201 and {name: found.headers[name] for name in expected} == expected
    for method, path, headers, status in (
        ("GET", "/x", {"accept": "text/html"}, 303), ("HEAD", "/x", {"accept": "text/html"}, 401), ("GET", "/x", {}, 401),
        ("GET", "/sign-in", {}, 201), ("GET", "/sign-in/x", {}, 401), ("GET", "/static/a", {}, 201),
        ("GET", "/statics", {}, 401),
        ("POST", "/sign-out", keys["ann"], 201), ("POST", "/sign-out/x", keys["ann"], 403),
        ("GET", "/audit", keys["ann"], 403),
        ("DELETE", "/x", keys["ada"], 201), ("PUT", "/" + "p" * 400, keys["ada"], 201), ("POST", "/x", {}, 403),
    ):  # fmt: skip
        assert client.request(method, path, headers=headers).status_code == status, (method, path)
    told = [body for _, body in reversed(accounts.store.logged("audit"))]
    assert [(body["who"], body["what"], body["status"]) for body in told] == [
        ("ann", "POST /sign-out", 201), ("ada", "DELETE /x", 201), ("ada", ("PUT /" + "p" * 400)[:300], 201),
    ]  # fmt: skip
    for kind in ("lifespan", "websocket"):
        asyncio.run(AccessMiddleware(app, access)({"type": kind}, None, None))  # type: ignore[arg-type]
    assert seen[-2:] == ["lifespan", "websocket"] and User("ada", "admin") in seen


def test_of_many_cookies_under_the_name_of_the_studio_the_last_twenty_are_looked_at() -> None:
    access = Access()
    access.port = 8131
    session = access.exchange(access.new_code()) or ""

    def knows(*values: str) -> bool:
        return access.knows(Headers({"cookie": "; ".join(f"{access.cookie}={value}" for value in values)}))

    wrong = [f"w{number}" for number in range(MOST_COOKIES)]
    assert knows(*wrong, session) and knows(session, *wrong[1:]) and not knows(session, *wrong)


def test_changes_are_counted_by_account_in_the_last_minute(
    made: tuple[Accounts, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts, now = made
    monkeypatch.setattr(account_module, "CHANGES_A_MINUTE", 3)
    ann, bob = User("ann", "editor"), User("bob", "editor")
    assert [accounts.may_change_now(ann) for _ in range(6)] == [True] * 3 + [False] * 3
    now[0] += 30
    assert accounts.may_change_now(bob) and not accounts.may_change_now(ann)
    now[0] += 29.5
    assert not accounts.may_change_now(ann), "what was refused counts too"
    now[0] += 31
    assert [accounts.may_change_now(ann) for _ in range(3)] == [True, True, False], "one of the last minute is left"


def test_a_role_that_was_changed_meanwhile_is_not_overwritten_and_other_hashes_match_nothing(tmp_path: Path) -> None:
    class Beside(SqliteStore):
        """A store where another process changes what was read."""

        def get(self, kind: str, key: str) -> Any:
            found = super().get(kind, key)
            if found is not None:
                self.put(kind, key, {**found.body, "role": "viewer"})
            return found

    store = Beside(tmp_path)
    store.put(ACCOUNT, "ann", {"role": "annotator", "hash": "x"})
    with pytest.raises(ConfigError, match="the account 'ann' was changed in the meantime"):
        Accounts(store).give_role("ann", "admin")
    assert Accounts(store).all() == [User("ann", "viewer")]
    store.close()
    salt = "00" * 16
    made = hashlib.scrypt(b"word", salt=bytes.fromhex(salt), n=16, r=2, p=3, dklen=32).hex()
    assert account_module.matches("word", f"scrypt$16$2$3${salt}${made}")
    for kept in (
        f"bcrypt$16$2$3${salt}${made}", f"scrypt$16$3$2${salt}${made}", f"scrypt$32$2$3${salt}${made}", "", made,
        f"scrypt$16$2$3$0x${made}", f"scrypt$0$2$3${salt}${made}", f"scrypt$16$2$3${salt}${made[:-1]}",
        f"scrypt$16$2$3${salt}${made}$",
    ):  # fmt: skip
        assert not account_module.matches("word", kept), kept
