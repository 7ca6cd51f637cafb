"""Roles: every route with the role that it needs, and roles in projects that share a store."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

import make_run
from firsthand.errors import ConfigError, UnknownName
from firsthand.runs import store
from firsthand.studio import accounts as module
from firsthand.studio.access import Access
from firsthand.studio.accounts import Accounts, Role, User, hashed, needed_role
from firsthand.studio.annotation_queue import AnnotationQueue, Queues
from firsthand.studio.project_store import ProjectStore
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_store import SqliteStore

PORT = 8131
HOST = "studio.example.org"
PASSWORD = "correct horse battery"
OWN = {"origin": f"http://{HOST}:{PORT}"}
ROLES: dict[str, str] = {
    "GET /": "viewer",
    "GET /arena": "viewer",
    "GET /arena/board": "viewer",
    "GET /arena/rounds/{round}/events": "viewer",
    "GET /audit": "admin",
    "GET /compare": "viewer",
    "GET /compare/attempts": "viewer",
    "GET /compare/grid": "viewer",
    "GET /curves": "viewer",
    "GET /curves.json": "viewer",
    "GET /data-sets": "viewer",
    "GET /data-sets/{name}": "viewer",
    "GET /data-sets/{name}/tasks.jsonl": "viewer",
    "GET /data-sets/{name}/test.py": "viewer",
    "GET /events": "viewer",
    "GET /playground": "viewer",
    "GET /prompts": "viewer",
    "GET /prompts/{name}": "viewer",
    "GET /queues": "viewer",
    "GET /queues/{queue}": "viewer",
    "GET /queues/{queue}/items/{place}": "viewer",
    "GET /queues/{queue}/next": "annotator",
    "GET /runs/{run}": "viewer",
    "GET /runs/{run}/attempts/{attempt}": "viewer",
    "GET /runs/{run}/attempts/{attempt}/copy/{kind:str}": "viewer",
    "GET /runs/{run}/attempts/{attempt}/span": "viewer",
    "GET /runs/{run}/attempts/{attempt}/spans.json": "viewer",
    "GET /runs/{run}/attempts/{attempt}/spans/found": "viewer",
    "GET /runs/{run}/board": "viewer",
    "GET /runs/{run}/under-way": "viewer",
    "GET /sign-in": "nobody",
    "GET /static/{digest}/{name}": "nobody",
    "GET /traces": "viewer",
    "GET /traces/by/{by}": "viewer",
    "GET /traces/{trace}": "viewer",
    "GET /traces/{trace}/copy/{kind:str}": "viewer",
    "GET /traces/{trace}/span": "viewer",
    "GET /traces/{trace}/spans.json": "viewer",
    "GET /traces/{trace}/spans/found": "viewer",
    "GET /views": "viewer",
    "POST /arena/rounds": "annotator",
    "POST /arena/rounds/{round}/reveal": "annotator",
    "POST /arena/rounds/{round}/undo": "annotator",
    "POST /arena/rounds/{round}/vote": "annotator",
    "POST /data-sets": "editor",
    "POST /data-sets/{name}/remove": "editor",
    "POST /data-sets/{name}/run": "editor",
    "POST /playground": "editor",
    "POST /runs/{run}/attempts/{attempt}/replay": "editor",
    "POST /prompts": "editor",
    "POST /queues": "editor",
    "POST /queues/{queue}/items/{place}": "annotator",
    "POST /runs/{run}/note": "annotator",
    "POST /runs/{run}/attempts/{attempt}/notes": "annotator",
    "POST /sign-in": "nobody",
    "POST /sign-out": "viewer",
    "POST /views": "editor",
    "POST /views/remove": "editor",
}
"""Every route, with the least role that may ask for it; `nobody` for those that need no account."""
FORMS = {"POST /sign-in": {"name": "nobody", "password": "wrong"}}


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._SCRYPT, "n", 1 << 6)
    monkeypatch.setattr(module, "_NOBODY", hashed("nobody at all"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("roles")
    make_run.make(folder)
    return folder


def client_of(home: Path, accounts: Accounts) -> TestClient:
    access = Access((HOST,), accounts)
    access.port = PORT
    app = create_app(home, access, {}, accounts.store)
    return TestClient(app, base_url=f"http://{HOST}:{PORT}", follow_redirects=False)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path)
    yield made
    made.close()


def asked(client: TestClient, name: str, key: str | None) -> Any:
    """The answer to a request of a route, with something in the place of each of its parameters."""
    method, _, path = name.partition(" ")
    parts = ["x" if part.startswith("{") else part for part in path.split("/")]
    # a key needs no Origin; without one the request comes from a page of ours
    headers = OWN if key is None else {"authorization": f"Bearer {key}"}
    return client.request(method, "/".join(parts), headers=headers, data=FORMS.get(name))


def around(needed: str) -> list[str | None]:
    """Nobody, the role below the needed one, and the needed one."""
    order = [None, *get_args(Role)]
    place = order.index(needed) if needed in order else 0
    return list(dict.fromkeys([None, order[max(0, place - 1)], order[place]]))


@pytest.mark.slow
def test_every_route_has_a_role_and_asks_for_it(home: Path, shared: SqliteStore) -> None:
    accounts = Accounts(shared)
    for role in get_args(Role):
        accounts.add(role, PASSWORD, role)
    keys: dict[str | None, str | None] = {role: accounts.new_key(role) for role in get_args(Role)}
    keys[None] = None
    with client_of(home, accounts) as client:
        app: Any = client.app
        routes = [each for each in app.routes if isinstance(each, Route)]
        assert len(routes) == len(app.routes), "a mount would hide routes from this table"
        found = {f"{method} {each.path}" for each in routes for method in (each.methods or ()) if method != "HEAD"}
        assert found == ROLES.keys(), "a new route gets a row here, with the role that it is to need"
        wrong = []
        for name, needed in ROLES.items():
            assert needed == "nobody" or name == "POST /sign-out" or needed_role(*name.split()) == needed
            for role in around(needed):
                may = needed == "nobody" or (role is not None and User("x", role).may(needed))  # type: ignore[arg-type]
                if may and name == "GET /events":
                    continue  # it never ends
                answer = asked(client, name, keys[role])
                refused = answer.status_code == 401 or "This needs the role" in answer.text
                if refused == may:
                    wrong.append((name, role, answer.status_code))
        assert wrong == []


@pytest.mark.slow
def test_who_may_not_rate_sees_a_queue_without_links_to_rate(home: Path, shared: SqliteStore) -> None:
    accounts = Accounts(shared)
    with store.open_run("last", home) as opened:
        run, place = opened.id, next(iter(opened.traces())).place
    Queues(shared).make(AnnotationQueue("q", run, (place,), "good", 1, 1, "Look"))
    pages = ("/queues", "/queues/q", f"/queues/q/items/{quote(place, safe='')}")
    with client_of(home, accounts) as client:
        for role, may in (("viewer", False), ("annotator", True)):
            accounts.add(role, PASSWORD, role)
            headers = {"authorization": f"Bearer {accounts.new_key(role)}"}
            for path in pages:
                text = client.get(path, headers=headers).text
                assert (("/queues/q/next" in text) or 'class="rate"' in text) == may, (role, path)


def test_what_is_no_route_needs_an_editor_to_change_it() -> None:
    for path in (
        "/anything",
        "/data-sets/x/notes",
        "/queues/x/items",
        "/queues/x/items/y/notes",
        "/arena/other",
        "/x/notes",
    ):
        assert needed_role("POST", path) == "editor", path
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
        assert needed_role(method, "/runs/r/attempts/a/notes") == "editor"


def test_a_role_counts_in_its_project_alone(home: Path, shared: SqliteStore) -> None:
    vision, text = (Accounts(ProjectStore(shared, name), project=name) for name in ("vision", "text"))
    everywhere = Accounts(shared)
    everywhere.add("ada", PASSWORD, "admin")
    vision.add("vera", PASSWORD, "viewer")
    text.give_role("ada", "viewer")
    assert vision.all() == [User("ada", "admin"), User("vera", "viewer")]
    assert text.all() == [User("ada", "viewer")] and everywhere.all() == [User("ada", "admin")]
    key = everywhere.new_key("vera")
    assert vision.of_key(key) == User("vera", "viewer") and text.of_key(key) is None and everywhere.of_key(key) is None
    assert vision.sign_in("vera", PASSWORD, "here") and text.sign_in("vera", PASSWORD, "here") is None
    vision.add("vera", PASSWORD + "2", "editor")
    text.give_role("vera", "annotator")
    assert vision.all()[1] == User("vera", "editor") and text.all()[1] == User("vera", "annotator")
    session = vision.sign_in("vera", PASSWORD + "2", "here")
    assert session is not None and vision.of_session(session) == User("vera", "editor")
    vision.give_role("vera", "none")
    assert vision.of_session(session) is None and vision.sign_in("vera", PASSWORD + "2", "here") is None
    text.give_role("ada", "none")
    assert text.of_key(everywhere.new_key("ada")) is None, "none in a project outweighs the role elsewhere"
    text.give_role("ada", "viewer")
    with pytest.raises(ConfigError, match="none"):
        vision.give_role("vera", "king")
    with pytest.raises(UnknownName):
        vision.give_role("nobody", "viewer")
    with client_of(home, vision) as client:
        assert client.get("/", headers={"authorization": f"Bearer {key}"}).status_code == 401
        admin = {"authorization": f"Bearer {everywhere.new_key('ada')}"}
        assert client.get("/audit", headers=admin).status_code == 200
    with client_of(home, text) as client:
        assert client.get("/audit", headers=admin).status_code == 403


def test_documents_and_logs_of_a_project_are_its_own(shared: SqliteStore) -> None:
    vision, text = ProjectStore(shared, "vision"), ProjectStore(shared, "text")
    assert vision.put("view", "mine", {"address": "/a"}) == 1
    assert text.get("view", "mine") is None and text.items("view") == [] and not text.remove("view", "mine")
    text.put("view", "mine", {"address": "/b"})
    assert [each.body for each in vision.items("view")] == [{"address": "/a"}] == [vision.get("view", "mine").body]  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"^the view 'mine' is there already"):
        vision.put("view", "mine", {}, version=0)
    vision.log("audit", {"who": "vera"})
    assert text.logged("audit") == [] and [body for _, body in vision.logged("audit")] == [{"who": "vera"}]
    assert vision.remove("view", "mine") and text.get("view", "mine") is not None
    for bad in ("", "a/b", ".x", "x" * 65, "ä"):
        with pytest.raises(ConfigError, match=r"^project is"):
            ProjectStore(shared, bad)


def test_a_project_needs_a_database_and_a_role_is_given_in_the_terminal(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    code, _, err = cli("studio", "account", "role", "ada", "--role", "viewer", "--project", "vision")
    assert code == 2 and "--database" in err
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    assert cli("studio", "account", "add", "ada", "--role", "admin")[0] == 0
    assert cli("studio", "account", "role", "ada", "--role", "editor")[1].strip() == "ada is editor."
    assert cli("studio", "account", "list")[1].split() == ["ada", "editor"]
    assert cli("studio", "account", "role", "ada", "--role", "none")[1].strip() == "ada has no role."
    assert cli("studio", "account", "list")[1] == ""
    assert cli("studio", "account", "role", "ada", "--role", "king")[0] == 2
