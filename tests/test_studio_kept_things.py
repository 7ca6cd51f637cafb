"""The Studio's store of what people keep, and who may reach it: items, accounts, roles, passwords, hosts and keys."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.studio import accounts as accounts_of
from firsthand.studio.access import Access
from firsthand.studio.accounts import Accounts, User, hashed, matches, needed_role
from firsthand.studio.project_store import ProjectStore, check_project
from firsthand.studio.studio_store import SqliteStore, checked_body

PASSWORD = "correct horse battery"


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = SqliteStore(tmp_path)
    yield made
    made.close()


def test_a_document_has_versions_and_a_log_its_newest_entries_first(store: SqliteStore, tmp_path: Path) -> None:
    assert store.items("a") == [] and store.get("a", "k") is None and not store.path.exists()
    assert [store.put("a", "k", {"n": 1}), store.put("a", "k", {"n": "é"}, version=1), store.put("b", "k", {})] == [
        1,
        2,
        1,
    ]
    assert store.put("a", "j", {"n": 3}, version=0) == 1 and [(each.key, each.body,
    each.version) for each in store.items("a")] == [
        ("j", {"n": 3}, 1), ("k", {"n": "é"}, 2),
    ]  # fmt: skip
    for version, said in ((0, "the a 'k' is there already"), (1, "was changed in the meantime"), (3, "was changed")):
        with pytest.raises(ConfigError, match=said):
            store.put("p/a", "k", {}, version=version) if version == 9 else store.put("a", "k", {}, version=version)
    assert (
        store.remove("a", "k")
        and not store.remove("a", "k")
        and not store.remove("a", "a\nb")
        and store.get("b", "k") is not None
    )
    for number in range(3):
        store.log("x", {"n": number})
    store.log("y", {"n": 9})
    assert [body for _, body in store.logged("x", 2)] == [
        {"n": 2},
        {"n": 1},
    ] and store.path.stat().st_mode & 0o777 == 0o600
    for key in ("", "x" * 201, "a\nb"):
        with pytest.raises(ConfigError, match="is no name: give 1 to 200 characters on one line"):
            store.put("a", key, {})
    assert checked_body("x" * 200, {"a": "é"}) == '{"a": "\\u00e9"}'
    with pytest.raises(ConfigError, match="at most 4,000,000 are kept"):
        checked_body("k", {"a": "x" * 4_000_000})
    assert checked_body("k", {"a": "x" * (4_000_000 - len('{"a": ""}'))})
    store._connected().execute("UPDATE items SET body = '[1]' WHERE kind = 'b'")
    with pytest.raises(StoreError, match="the store's row 'k' holds no JSON object"):
        store.get("b", "k")
    store._connected().execute("PRAGMA user_version = 2")
    store.close()
    with pytest.raises(StoreError, match=r"was written by a newer firsthand \(schema 2\)"):
        SqliteStore(tmp_path).items("a")


def test_projects_share_accounts_and_nothing_else(store: SqliteStore) -> None:
    one, two = ProjectStore(store, "one"), ProjectStore(store, "two")
    one.put("queue", "q", {"n": 1})
    one.put("account", "ann", {"n": 2})
    one.log("audit", {"n": 3})
    assert two.get("queue", "q") is None and two.items("account")[0].key == "ann" and two.logged("audit") == []
    assert (
        store.get("one/queue", "q") is not None
        and one.items("queue")[0].body == {"n": 1}
        and len(one.logged("audit", 5)) == 1
    )
    with pytest.raises(ConfigError, match="the queue 'q' is there already"):
        one.put("queue", "q", {}, version=0)
    assert not two.remove("queue", "q") and one.remove("queue", "q")
    for name in ("", "-a", "a b", "x" * 65):
        with pytest.raises(ConfigError, match="project is"):
            check_project(name)
    check_project("x" * 64)


def test_roles_include_those_below_and_requests_need_one() -> None:
    order = ("viewer", "annotator", "editor", "admin")
    for place, role in enumerate(order):
        assert [User("a", role).may(other) for other in order] == [at <= place for at in range(4)]  # type: ignore[arg-type]
    for method, path, role in (
        ("GET", "/", "viewer"), ("HEAD", "/runs/1", "viewer"), ("GET", "/audit", "admin"), ("POST", "/audit/x", "admin"),
        ("GET", "/features/a/live", "editor"), ("GET", "/features/a/live/3", "editor"), ("GET", "/features/a/3", "viewer"),
        ("POST", "/runs/1/note", "annotator"), ("POST", "/runs/1/attempts/2/notes", "annotator"),
        ("POST", "/queues/q/items/p", "annotator"),
        ("POST", "/arena/rounds", "annotator"), ("POST", "/arena/rounds/1/vote", "annotator"),
        ("POST", "/arena/rounds/1/undo", "annotator"),
        ("POST", "/arena/rounds/1/reveal", "annotator"), ("POST", "/queues", "editor"),
        ("POST", "/runs/1/attempts/2/replay", "editor"),
        ("DELETE", "/runs/1/note", "editor"), ("POST", "/prompts", "editor"), ("POST", "/arena/rounds/1", "editor"),
    ):  # fmt: skip
        assert needed_role(method, path) == role, (method, path)


def keep_account(made: Accounts, name: str, password: str, role: str) -> None:
    """Keeps an account whose password is hashed quickly; `Accounts.add` takes a tenth of a second."""
    digest = hashlib.scrypt(password.encode(), salt=b"salt", n=2, r=8, p=1, dklen=32).hex()
    made.store.put("account", name, {"role": role, "hash": f"scrypt$2$8$1${b'salt'.hex()}${digest}"})


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.slow
def test_an_account_signs_in_until_its_session_its_password_or_its_role_ends(store: SqliteStore) -> None:
    clock = Clock()
    made = Accounts(store, clock)
    keep_account(made, "ann", PASSWORD, "annotator")
    keep_account(made, "bob", PASSWORD + "2", "admin")
    assert made.all() == [User("ann", "annotator"), User("bob", "admin")]
    session = made.sign_in("ann", PASSWORD, "1.1.1.1")
    assert session is not None and made.of_session(session) == User("ann", "annotator")
    assert made.sign_in("ann", PASSWORD + "2", "1.1.1.1") is None and made.sign_in("eve", PASSWORD, "1.1.1.1") is None
    clock.now += accounts_of.SESSION_S - 1
    assert made.of_session(session) is not None
    clock.now += 1
    assert made.of_session(session) is None and made.of_session("other") is None
    session = made.sign_in("ann", PASSWORD, "1.1.1.1") or ""
    made.sign_out(session)
    assert made.of_session(session) is None
    session = made.sign_in("ann", PASSWORD, "1.1.1.1") or ""
    made.give_role("ann", "editor")
    assert made.of_session(session) == User("ann", "editor")
    keep_account(made, "ann", PASSWORD + "3", "viewer")
    assert made.of_session(session) is None and made.sign_in("ann", PASSWORD, "1") is None
    made.give_role("ann", "none")
    assert made.all() == [User("bob", "admin")] and made.sign_in("ann", PASSWORD + "3", "1") is None
    key = made.new_key("bob")
    assert key.startswith("fh_") and made.of_key(key) == User("bob", "admin") and made.of_key(key + "x") is None
    assert made.of_key("fh_000000000000_x") is None and made.of_key("x" + key) is None and made.of_key("") is None
    assert key.rpartition("_")[2] not in json.dumps([item.body for item in store.items("api-key")])
    made.remove("bob")
    assert made.of_key(key) is None and store.items("api-key") == []
    for action in (lambda: made.remove("bob"), lambda: made.new_key("bob"), lambda: made.give_role("bob", "viewer")):
        with pytest.raises(UnknownName, match="no account 'bob'"):
            action()
    for name, password, role, said in (
        ("a b", PASSWORD, "viewer", "'a b' is no name of an account"), ("-a", PASSWORD, "viewer", "is no name"),
        ("a", PASSWORD, "king", "role is 'king': give one of viewer, annotator, editor, admin"),
        ("a", "x" * 11, "viewer", "has 11 characters"),
        ("a", "x" * 1025, "viewer", "has 1025 characters: give 12 to 1024"), ("x" * 65, PASSWORD, "viewer", "is no name"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            made.add(name, password, role)
    with pytest.raises(ConfigError, match="or none"):
        made.give_role("ann", "king")
    kept = hashed(PASSWORD)
    assert matches(PASSWORD, kept) and kept.startswith("scrypt$32768$8$1$") and not matches(PASSWORD, "x$1")


def test_wrong_passwords_are_counted_by_account_and_address_for_a_quarter_of_an_hour(store: SqliteStore) -> None:
    clock = Clock()
    made = Accounts(store, clock)
    guesses = [made._guess("ann", f"a{number}") for number in range(accounts_of.GUESSES + 1)]
    assert guesses == [100.0] * 5 + [None] and made._guess("bob", "a0") is not None
    clock.now += accounts_of.GUESS_S - 1
    assert made._guess("ann", "z") is None
    clock.now += 1
    assert made._guess("ann", "z") is not None
    made._wrong.clear()
    assert [made._guess(f"n{number}", "one") for number in range(31)].index(None) == 30
    keep_account(made, "ann", PASSWORD, "viewer")
    made._wrong.clear()
    for _ in range(7):
        assert made.sign_in("ann", PASSWORD, "here") is not None, "right ones are no wrong guesses"
    user = User("ann", "viewer")
    assert [made.may_change_now(user) for _ in range(241)] == [True] * 240 + [False] and made.may_change_now(
        User("bob", "viewer")
    )
    clock.now += 60
    assert made.may_change_now(user)
    made.audit("x" * 99, "did", status=200)
    ((_, body),) = store.logged("audit")
    assert body == {"who": "x" * 64, "what": "did", "status": 200}


def test_an_account_may_have_another_role_in_a_project(store: SqliteStore) -> None:
    everywhere, here, there = Accounts(store), Accounts(store, project="p"), Accounts(store, project="q")
    keep_account(everywhere, "ann", PASSWORD, "viewer")
    here.give_role("ann", "admin")
    there.give_role("ann", "none")
    assert [each.all() for each in (everywhere, here, there)] == [[User("ann", "viewer")], [User("ann", "admin")], []]
    here.add("bob", PASSWORD, "editor")
    assert [len(each.all()) for each in (everywhere, here, there)] == [1, 2, 0]
    there.give_role("ann", "editor")
    assert here.all()[0] == User("ann", "admin") and there.all() == [User("ann", "editor")]


def test_a_host_and_an_origin_are_our_own_by_name_and_port(store: SqliteStore) -> None:
    access = Access(("Here.example", "[::1]"))
    access.port = 8000
    https = Access(("here.example",), is_https=True)
    https.port = 8000
    for host, plain, secure in (
        ("here.example:8000", True, True), ("HERE.example:8000", True, True), ("here.example:443", False, True),
        ("here.example", False, True),
        ("here.example:80", False, True), ("here.example:8001", False, False), ("[::1]:8000", True, False),
        (None, False, False),
        ("there.example:8000", False, False), ("", False, False),
    ):  # fmt: skip
        assert (access.is_own_host(host), https.is_own_host(host)) == (plain, secure), host
    access.port = 80
    assert access.is_own_host("here.example") and access.cookie == "firsthand-studio-80"
    for headers, own in (
        ({"origin": "http://here.example"}, True),
        ({"origin": "http://evil.example", "sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "same-origin"}, True), ({"sec-fetch-site": "same-site"}, False), ({}, False),
        ({"origin": "null"}, False),
    ):  # fmt: skip
        assert access.is_own_origin(Headers(headers)) is own
    session = access.exchange(access.new_code())
    cookie = Headers({"cookie": f"{access.cookie}={session}"})
    assert (
        access.knows(cookie)
        and access.user_of(cookie) is None
        and not access.knows(Headers({"cookie": f"x={session}"}))
    )
    access.accounts = Accounts(store)
    assert not access.knows(cookie), "with accounts a code opens nothing"
    keep_account(access.accounts, "ann", PASSWORD, "viewer")
    key = access.accounts.new_key("ann")
    for headers, user in (
        ({"authorization": f"Bearer {key}"}, User("ann", "viewer")),
        ({"authorization": f"bearer  {key} "}, User("ann", "viewer")),
        ({"authorization": f"Basic {key}"}, None), ({}, None), ({"authorization": "Bearer x"}, None),
    ):  # fmt: skip
        assert access.user_of(Headers(headers)) == user
