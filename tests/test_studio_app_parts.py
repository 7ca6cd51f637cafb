"""Signing in and out, the log of it, and what the app itself serves: files, errors and the navigation."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from firsthand.studio.access import Access
from firsthand.studio.accounts import Accounts
from firsthand.studio.rendering import STATIC
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_pages import OWN_PAGES, StudioPage
from firsthand.studio.studio_store import SqliteStore
from studio_page_outline import asked, outline, sent
from studio_small_home import PORT
from studio_varied_home import write_runs, write_traces


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    write_runs(folder)
    write_traces(folder)
    return folder


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TestClient, Accounts]]:
    from firsthand.studio import accounts as module

    monkeypatch.setitem(module._SCRYPT, "n", 1 << 4)
    monkeypatch.setattr(module, "_NOBODY", module.hashed("nobody at all"))
    accounts = Accounts(SqliteStore(tmp_path))
    for name, role in (("bob", "editor"), ("ada", "admin")):
        accounts.add(name, "a long password", role)
    access = Access(accounts=accounts, is_https=True)
    access.port = PORT
    with TestClient(create_app(tmp_path, access, store=accounts.store), base_url=f"https://127.0.0.1:{PORT}") as made:
        yield made, accounts


def test_people_sign_in_and_out_and_the_log_tells_it(client: tuple[TestClient, Accounts]) -> None:
    made, accounts = client
    own = {"sec-fetch-site": "same-origin"}
    form = (
        "[post /sign-in name {name=} password {password=} Sign in ] Accounts are made in a terminal on the server: "
        "firsthand studio account add NAME"
    )
    assert outline(made.get("/sign-in")) == f"Sign in {form}"

    def sign_in(name: str, password: str) -> Any:
        return made.post("/sign-in", data={"name": name, "password": password}, headers=own, follow_redirects=False)

    wrong = sign_in("bob", "a long passwort")
    problem = "The name or the password is wrong, or there were too many attempts: wait a quarter of an hour."
    assert (wrong.status_code, outline(wrong)) == (
        403,
        f"Sign in {problem} {form}",
    ) and "set-cookie" not in wrong.headers
    right = sign_in("ada", "a long password")
    session = re.fullmatch(
        rf"firsthand-studio-{PORT}=([\w-]+); HttpOnly; Max-Age=43200; Path=/; SameSite=strict; Secure",
        right.headers["set-cookie"],
    )
    assert session and (right.status_code, right.headers["location"]) == (303, "/")
    user = accounts.of_session(session[1])
    assert user is not None and user.name == "ada"
    (newest, _), (older, _) = accounts.store.logged("audit")
    text, status = asked(made, "/audit", {newest[:19]: "NOW", older[:19]: "NOW"})
    assert (text, status) == (
        "Audit log 2 accounts: ada (admin), bob (editor) when who what from NOW ada signed in testclient "
        "NOW bob was refused testclient", 200,
    )  # fmt: skip
    assert asked(made, "/audit?limit=1", {newest[:19]: "NOW"})[0].endswith("NOW ada signed in testclient")
    assert asked(made, "/audit?limit=0", {newest[:19]: "NOW"})[0].endswith(
        "when who what from NOW ada signed in testclient"
    )
    out = made.post("/sign-out", headers=own, follow_redirects=False)
    assert (out.status_code, out.headers["location"]) == (303, "/sign-in") and accounts.of_session(session[1]) is None
    assert (
        out.headers["set-cookie"].startswith(f'firsthand-studio-{PORT}=""; ')
        and "Max-Age=0; Path=/" in out.headers["set-cookie"]
    )


def test_the_app_serves_its_files_errors_and_pages(home: Path) -> None:
    access = Access()
    access.port = PORT
    with TestClient(
        create_app(home, access), base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False
    ) as made:
        made.get("/enter", params={"code": access.new_code()})
        for name, kind in (
            ("studio.css", "text/css; charset=utf-8"),
            ("tree.js", "text/javascript; charset=utf-8"),
            ("mark.svg", "image/svg+xml"),
        ):
            found = made.get(f"/static/any/{name}")
            assert (found.status_code, found.headers["content-type"], found.content) == (
                200,
                kind,
                (STATIC / name).read_bytes(),
            )
            assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
        for name in ("LICENSES.txt", "none.css", ".hidden.css", "..%2Faccess.py", "a%2Fstudio.css"):
            answer = made.get(f"/static/any/{name}")
            assert answer.status_code == 404
        assert made.get("/static/any/none.css").text == "There is no such file.\n"
        assert asked(made, "/?sort=x", {}) == (
            "Problem runs cannot be sorted by 'x': they can by id, status, score, tokens, errors, attempts, "
            "steps, created All runs(/)", 400,
        )  # fmt: skip
        assert asked(made, "+/?sort=x", {})[1] == 200 and asked(made, "+/?sort=x", {})[0].startswith(
            "runs cannot be sorted by 'x'"
        )
        assert asked(made, "/no%20page", {}) == ("Not found There is no page '/no page'. All runs(/)", 404)
        nav = html.unescape(made.get("/").text).partition("<nav")[2].partition("</nav>")[0]
        assert re.findall(r'href="([^"]+)"( aria-current="page")?>([^<]+)<', nav) == [
            ("/", ' aria-current="page"', "Runs"), ("/compare", "", "Compare"), ("/curves", "", "Curves"),
            ("/traces", "", "Traces"),
            ("/arena", "", "Arena"), ("/playground", "", "Playground"), ("/queues", "", "Queues"), ("/data-sets",
            "", "Data sets"),
            ("/prompts", "", "Prompts"),
        ]  # fmt: skip
        assert made.get("/sign-in").status_code == 404, "there are no accounts"
        assert json.loads(made.get("/curves.json").text) == {"curves": []}


def test_a_page_that_fails_is_told_in_the_terminal_and_all_is_closed_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(request: Request) -> Response:
        raise ValueError("odd page")

    first, _ = write_runs(tmp_path)
    access = Access()
    access.port = PORT
    kept = SqliteStore(tmp_path / "elsewhere")
    bad = StudioPage("Bad", "/bad", [Route("/bad", fail)])
    app = create_app(tmp_path, access, store=kept, pages=[bad])
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False) as made:
        made.get("/enter", params={"code": access.new_code()})
        answer = made.get("/bad")
        assert (answer.status_code, answer.text) == (500, "The Studio failed at this page; its terminal says more.\n")
        assert capsys.readouterr().err.rstrip().endswith("ValueError: odd page")
        assert answer.headers.get("x-frame-options") in ("DENY", None)
        assert sent(made, "/views", {}, name="v", address="/") == (303, "/views")
        assert [item.key for item in kept.items("view")] == ["v"] and not (tmp_path / "studio.sqlite").exists()
        assert made.get(f"/runs/{first}").status_code == 200 and list(app.state.runs._open) == [first]
        nav = html.unescape(made.get("/views").text).partition("<nav")[2].partition("</nav>")[0]
        assert nav.endswith('<a href="/prompts">Prompts</a><a href="/bad">Bad</a>') and "aria-current" not in nav
    assert (kept._connection, dict(app.state.runs._open), app.state.curves._closed.is_set()) == (None, {}, True)
    assert [bad.is_open(path) for path in ("/bad", "/bad/x", "/badly", "/", "")] == [True, True, False, False, False]
    first_page = OWN_PAGES[0]
    assert [first_page.is_open(path) for path in ("/", "/runs/x", "//")] == [True, False, False]


def test_each_page_names_who_is_signed_in_and_offers_an_admin_the_log(client: tuple[TestClient, Accounts]) -> None:
    made, accounts = client
    for name, role, audit in (("ada", "admin", ', <a href="/audit">audit</a>'), ("bob", "editor", "")):
        page = made.get("/views", headers={"authorization": f"Bearer {accounts.new_key(name)}"})
        who = f'<form method="post" action="/sign-out"><span class="soft">{name}{audit}</span>'
        assert page.status_code == 200 and who in page.text
        log = made.get("/audit", headers={"authorization": f"Bearer {accounts.new_key(name)}"})
        assert log.status_code == (200 if role == "admin" else 403)
    note = {"authorization": f"bearer {accounts.new_key('bob')}"}
    assert (
        made.post("/views", data={"name": "v", "address": "/"}, headers=note, follow_redirects=False).status_code == 303
    )
    (_, body), *_ = accounts.store.logged("audit")
    assert body == {"who": "bob", "what": "POST /views", "status": 303, "address": "testclient"}
    refused = made.post("/views", data={"name": "v", "address": "x"}, headers=note)
    assert refused.status_code == 400 and accounts.store.logged("audit", 1)[0][1]["status"] == 400
    assert "sign-out" not in made.get("/sign-in").text
