"""A Studio that others reach: accounts, roles, keys, limits on guesses and changes, the audit log."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import make_run
from firsthand.agent import Agent
from firsthand.errors import ConfigError, UnknownName
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio import accounts as module
from firsthand.studio.access import Access
from firsthand.studio.accounts import (
    CHANGES_A_MINUTE,
    GUESS_S,
    GUESSES,
    SESSION_S,
    Accounts,
    User,
    hashed,
    matches,
    needed_role,
)
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_store import SqliteStore

PORT = 8129
HOST = "studio.example.org"
PASSWORD = "correct horse battery"
OWN = {"origin": f"http://{HOST}:{PORT}"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._SCRYPT, "n", 1 << 6)
    monkeypatch.setattr(module, "_NOBODY", hashed("nobody at all"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accounts")
    make_run.make(folder)
    return folder


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    made = Accounts(SqliteStore(tmp_path), Clock())
    for name, role in (("vera", "viewer"), ("anna", "annotator"), ("ed", "editor"), ("ada", "admin")):
        made.add(name, PASSWORD, role)
    return made


@pytest.fixture
def client(home: Path, accounts: Accounts) -> Iterator[TestClient]:
    access = Access((HOST,), accounts)
    access.port = PORT
    model = Scripted(lambda messages, sampling, index: "4", name="scripted:four")
    app = create_app(home, access, {"scripted:four": Agent("scripted:four", model, reply)}, accounts.store)
    with TestClient(app, base_url=f"http://{HOST}:{PORT}") as made:
        yield made


def sign_in(client: TestClient, name: str, password: str = PASSWORD) -> Any:
    return client.post("/sign-in", data={"name": name, "password": password}, headers=OWN, follow_redirects=False)


def test_a_project_keeps_its_name_as_it_was_given(tmp_path: Path) -> None:
    assert Accounts(SqliteStore(tmp_path), Clock(), project="Team A").project == "Team A"


def test_passwords_are_kept_by_scrypt_with_a_salt_each(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = hashed(PASSWORD), hashed(PASSWORD)
    assert first != second and matches(PASSWORD, first) and matches(PASSWORD, second)
    assert not matches(PASSWORD + "x", first) and not matches(PASSWORD, "") and not matches(PASSWORD, "md5$x")
    words = ["", "?", "pässwörd", "\ud800", "\udfff", "a\ud800b", "a?b", "a\ufffdb", "x" * 5000]
    kept = [hashed(word) for word in words]
    assert [[matches(word, each) for word in words] for each in kept] == np.eye(len(words), dtype=bool).tolist()
    monkeypatch.undo()
    assert module._SCRYPT["n"] * module._SCRYPT["r"] * 128 >= 32 << 20, "a guess takes 32 MiB"


@pytest.mark.parametrize(
    ("name", "password", "role"),
    [("", PASSWORD, "viewer"), ("a b", PASSWORD, "viewer"), ("ok", "short", "viewer"), ("ok", PASSWORD, "king")],
)
def test_a_bad_account_is_one_sentence(accounts: Accounts, name: str, password: str, role: str) -> None:
    with pytest.raises(ConfigError):
        accounts.add(name, password, role)


@pytest.mark.slow
def test_nobody_gets_in_without_an_account(client: TestClient) -> None:
    assert client.get("/", headers={"accept": "text/html"}, follow_redirects=False).headers["location"] == "/sign-in"
    for path in ("/", "/events", "/curves.json", "/audit", "/enter?code=x"):
        assert client.get(path).status_code == 401
    assert client.get("/sign-in").status_code == 200
    assert client.get("/sign-in", headers={"host": "evil.example"}).status_code == 421
    assert client.post("/sign-in", data={}, headers={"origin": "http://evil.example"}).status_code == 403
    client.cookies.set(f"firsthand-studio-{PORT}", "guess")
    assert client.get("/").status_code == 401


def test_a_session_begins_ends_and_does_not_outlive_password_or_account(client: TestClient, accounts: Accounts) -> None:
    answer = sign_in(client, "vera")
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 303 and "httponly" in cookie and "samesite=strict" in cookie
    assert "vera" in client.get("/").text and "/audit" not in client.get("/").text
    client.post("/sign-out", headers=OWN)
    assert client.get("/").status_code == 401
    for change in (lambda: accounts.add("vera", PASSWORD + "2", "viewer"), lambda: accounts.remove("vera")):
        accounts.add("vera", PASSWORD, "viewer")
        sign_in(client, "vera")
        assert client.get("/").status_code == 200
        change()
        assert client.get("/").status_code == 401
    sign_in(client, "ed")
    assert isinstance(accounts.clock, Clock)
    accounts.clock.now += SESSION_S - 1
    assert client.get("/").status_code == 200
    accounts.clock.now += 1
    assert client.get("/").status_code == 401


def test_a_password_and_a_name_with_lone_surrogates_are_like_any_other(accounts: Accounts) -> None:
    accounts.add("lone", "a password \ud800", "viewer")
    assert accounts.sign_in("lone", "a password ?", "here") is None
    session = accounts.sign_in("lone", "a password \ud800", "here")
    assert session is not None and accounts.of_session(session) == User("lone", "viewer")
    assert accounts.of_session("\ud800") is None and accounts.of_key(f"fh_{'0' * 12}_\ud800") is None
    assert accounts.sign_in("\ud800", PASSWORD, "here") is None


@pytest.mark.slow
def test_after_some_wrong_guesses_even_the_right_password_is_refused(client: TestClient, accounts: Accounts) -> None:
    for _ in range(GUESSES):
        assert sign_in(client, "vera", "wrong").status_code == 403
    assert sign_in(client, "vera").status_code == 403, "the account is closed for a while"
    assert sign_in(client, "ed").status_code == 303, "another is not"
    for number in range(module.GUESSES_OF_ADDRESS):
        sign_in(client, f"nobody{number}", "wrong")
    assert sign_in(client, "ada").status_code == 403, "the address is closed for a while"
    assert isinstance(accounts.clock, Clock)
    accounts.clock.now += GUESS_S
    assert sign_in(client, "vera").status_code == 303


def test_guesses_that_come_at_once_are_no_more_than_one_after_another(accounts: Accounts) -> None:
    for _ in range(module.HASHED_AT_ONCE):
        accounts._hashing.acquire()  # no password is compared for now
    with ThreadPoolExecutor(4 * GUESSES) as pool:
        guesses = [pool.submit(accounts.sign_in, "vera", "wrong", "::1") for _ in range(4 * GUESSES)]
        refused = wait(guesses[: 4 * GUESSES], timeout=60, return_when="FIRST_COMPLETED").done
        while len(refused) < 3 * GUESSES:
            refused |= wait(set(guesses) - refused, timeout=60, return_when="FIRST_COMPLETED").done
        assert len(accounts._wrong["account vera"]) == GUESSES and sum(not each.done() for each in guesses) == GUESSES
        for _ in range(module.HASHED_AT_ONCE):
            accounts._hashing.release()
    assert accounts.sign_in("ed", PASSWORD, "::1") is not None and not accounts._wrong.get("account ed")


def test_guesses_that_are_over_are_forgotten(accounts: Accounts) -> None:
    assert isinstance(accounts.clock, Clock)
    for number in range(5):
        accounts.sign_in(f"nobody{number}", "wrong", f"10.0.0.{number}")
    accounts.clock.now += GUESS_S
    assert accounts.sign_in("ed", PASSWORD, "::1") is not None
    assert sum(map(len, accounts._wrong.values())) == 0


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/", "viewer"),
        ("GET", "/audit", "admin"),
        ("POST", "/runs/r/attempts/a/notes", "annotator"),
        ("POST", "/queues/q/items/a", "annotator"),
        ("POST", "/arena/rounds/x/vote", "annotator"),
        ("POST", "/queues", "editor"),
        ("POST", "/playground", "editor"),
        ("POST", "/data-sets/items/notes2", "editor"),
        ("DELETE", "/anything", "editor"),
    ],
)
def test_each_request_needs_its_role(method: str, path: str, role: str) -> None:
    assert needed_role(method, path) == role


def test_roles_include_those_below() -> None:
    order = ("viewer", "annotator", "editor", "admin")
    for place, role in enumerate(order):
        assert [User("x", role).may(each) for each in order] == [n <= place for n in range(4)]  # type: ignore[arg-type]


def test_what_a_role_may_not_is_refused_and_what_it_may_is_audited(
    client: TestClient, home: Path, accounts: Accounts
) -> None:
    (run,) = [info.id for info in store.list_runs(home) if "fixture" in info.id]
    with store.open_run(run, home) as opened:
        place = next(opened.rows()).place
    note = f"/runs/{run}/attempts/{place}/notes"

    def post(path: str, **fields: str) -> int:
        return int(client.post(path, data=fields, headers=OWN, follow_redirects=False).status_code)

    sign_in(client, "vera")
    assert post(note, name="x", value="1") == 403 and post("/views", name="x", address="/") == 403
    sign_in(client, "anna")
    assert post(note, name="x", value="1") == 303 and post("/views", name="x", address="/") == 403
    with store.open_run(run, home) as opened:
        (kept,) = [each for each in opened.trace(place).attempt_scores if each.name == "note.x"]
        assert kept.detail["by"] == "human:anna"
    sign_in(client, "ed")
    assert post("/views", name="x", address="/") == 303 and client.get("/audit").status_code == 403
    sign_in(client, "ada")
    page = client.get("/audit").text
    assert f"POST {note}" in page and "anna" in page and "signed in" in page and "(admin)" in page
    assert accounts.store.logged("audit")[0][1]["what"] == "signed in"


@pytest.mark.slow
def test_votes_and_labels_carry_the_account(client: TestClient, home: Path) -> None:
    (run,) = [info.id for info in store.list_runs(home) if "fixture" in info.id]
    sign_in(client, "ed")
    client.post("/queues", data={"name": "q", "run": run, "filter": "task=t1 agent=cot", "score": "s"}, headers=OWN)
    place = str(client.get("/queues/q/next").url).partition("/items/")[2]
    client.post(f"/queues/q/items/{place}", data={"value": "1", "version": "0", "as": "somebody else"}, headers=OWN)
    page = client.get("/queues/q").text
    assert "human:ed" in page and "somebody else" not in page


def test_an_api_key_works_without_an_origin_and_ends_with_its_account(client: TestClient, accounts: Accounts) -> None:
    key = accounts.new_key("ed")
    bearer = {"authorization": f"Bearer {key}"}
    assert client.get("/", headers=bearer).status_code == 200
    view = {"name": "k", "address": "/"}
    assert client.post("/views", data=view, headers=bearer, follow_redirects=False).status_code == 303
    other = key[:-1] + ("A" if key[-1] != "A" else "B")
    for wrong in (other, key.replace("fh_", "fx_"), "fh_zz_x", "", "fh_000000000000_x"):
        assert client.get("/", headers={"authorization": f"Bearer {wrong}"}).status_code == 401
    assert key.split("_", 2)[2] not in str([item.body for item in accounts.store.items("api-key")])
    sign_in(client, "ed")
    basic = {"authorization": "Basic x", "origin": "http://evil.example"}
    assert client.post("/views", data={"name": "k", "address": "/"}, headers=basic).status_code == 403
    client.cookies.clear()
    accounts.remove("ed")
    assert client.get("/", headers=bearer).status_code == 401
    with pytest.raises(UnknownName):
        accounts.new_key("ed")


def test_changes_of_an_account_are_limited_each_minute(accounts: Accounts) -> None:
    ed, ada = User("ed", "editor"), User("ada", "admin")
    assert all(accounts.may_change_now(ed) for _ in range(CHANGES_A_MINUTE))
    assert not accounts.may_change_now(ed) and accounts.may_change_now(ada)
    assert isinstance(accounts.clock, Clock)
    accounts.clock.now += 60
    assert accounts.may_change_now(ed)


def test_a_role_in_a_project_is_kept_by_its_exact_name(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    Accounts(store).add("ada", PASSWORD, "viewer")
    item = store.get(module.ACCOUNT, "ada")
    assert item is not None
    store.put(module.ACCOUNT, "ada", {**item.body, "projects": {"Evals": "editor"}}, version=item.version)
    evals, lower = Accounts(store, project="Evals"), Accounts(store, project="evals")
    assert evals.all() == [User("ada", "editor")] and lower.all() == Accounts(store).all() == [User("ada", "viewer")]
    evals.give_role("ada", "admin")
    lower.add("bob", PASSWORD, "annotator")
    assert evals.all() == [User("ada", "admin")]
    assert lower.all() == [User("ada", "viewer"), User("bob", "annotator")] and Accounts(store).all() == [
        User("ada", "viewer")
    ]
    kept = store.get(module.ACCOUNT, "ada"), store.get(module.ACCOUNT, "bob")
    assert [each.body["projects"] for each in kept if each] == [{"Evals": "admin"}, {"evals": "annotator"}]


def test_the_command_keeps_accounts_and_a_wider_address_needs_one(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    code, _, err = cli("studio", "--host", "0.0.0.0", "--no-open")
    assert code == 2 and "account add NAME" in err
    assert cli("studio", "--name", "x.example", "--no-open")[0] == 2
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    code, out, _ = cli("studio", "account", "add", "ada", "--role", "admin")
    assert (code, out.strip()) == (0, "ada is admin.")
    assert cli("studio", "account", "list")[1].split() == ["ada", "admin"]
    key = cli("studio", "account", "key", "ada")[1].strip()
    assert Accounts(SqliteStore(tmp_path)).of_key(key) == User("ada", "admin")
    assert (tmp_path / "studio.sqlite").stat().st_mode & 0o077 == 0
    assert cli("studio", "account", "remove", "ada")[0] == 0 and cli("studio", "account", "remove", "ada")[0] == 2
