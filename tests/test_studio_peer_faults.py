"""Classes of vulnerabilities that were published for other products of this kind, tried on the Studio.

docs/security.md lists each class with its test; those that other files already try are named there.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import make_run
from firsthand.errors import FirsthandError
from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.runs.track_import import import_runs
from firsthand.studio.access import Access
from firsthand.studio.accounts import Accounts
from firsthand.studio.rendering import STATIC
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_store import SqliteStore

PORT = 8126
OWN = {"sec-fetch-site": "same-origin"}
MARKUP = "<img src=x onerror=alert(1)>"
ELSEWHERE = "https://evil.example/take"
PAGES = (
    "/", "/compare", "/compare/grid", "/compare/attempts", "/curves", "/curves.json", "/traces", "/traces/by/days",
    "/traces/x", "/arena", "/arena/board", "/playground", "/queues", "/queues/x", "/data-sets", "/data-sets/x", "/prompts",
    "/prompts/x", "/views", "/static/0/x", "/sign-in", "/runs/x", "/runs/x/board", "/runs/x/attempts/y",
)  # fmt: skip
PARAMETERS = (
    "filter", "sort", "start", "run", "a", "b", "only", "slice", "target", "metric", "points", "style", "view", "leaf",
    "colour", "as", "attempt", "at", "ref", "score", "hide", "day", "topic", "next", "baseUrl", "base", "redirect", "code",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers")
    make_run.make(folder)
    picture = folder / "picture.svg"
    picture.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    with store.create(folder, {}, "drawn") as run:
        track = Track(run)
        track.log({"loss": 1.0}, step=0)
        track.artifact(picture)
        track.flush()
    return folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    access = Access()
    access.port = PORT
    with TestClient(create_app(home, access), base_url=f"http://127.0.0.1:{PORT}", follow_redirects=False) as made:
        assert made.get("/enter", params={"code": access.new_code()}).status_code == 303
        yield made


def run_id(home: Path, name: str) -> str:
    return next(info.id for info in store.list_runs(home) if name in info.id)


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES)
def test_markup_of_a_request_comes_back_as_text(client: TestClient, path: str) -> None:
    """Reflected script: a Content-Type, a path or a parameter that the answer repeats."""
    query = dict.fromkeys(PARAMETERS, MARKUP)
    headers = {"content-type": MARKUP, "user-agent": MARKUP, "referer": MARKUP, "accept": MARKUP, "hx-target": MARKUP}
    asked = [client.get(path, params={name: MARKUP}, headers=headers) for name in PARAMETERS]
    asked += [
        client.get(path, params=query, headers=headers),
        client.get(path, params=query, headers=headers | {"hx-request": "true"}),
        client.get(path + "/" + MARKUP, headers=headers),
        client.post(path, content=b"x", headers=headers | OWN),
        client.request("PROPFIND", path, headers=headers | OWN),
    ]
    for answer in asked:
        is_page = answer.headers.get("content-type", "").startswith("text/html")
        assert answer.headers["x-content-type-options"] == "nosniff" and "script-src 'self'" in policy(answer.headers)
        assert MARKUP not in answer.text or not is_page, answer.request.url
        assert MARKUP not in str(answer.headers.values()), answer.request.url


def policy(headers: object) -> str:
    return str(headers["content-security-policy"])  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES)
def test_no_parameter_sends_a_browser_or_a_key_to_another_address(client: TestClient, path: str) -> None:
    """A base address or a way back in a link: the browser stays here, and no page holds the address where it would act."""
    for name in PARAMETERS:
        answer = client.get(path, params={name: ELSEWHERE})
        assert not answer.headers.get("location", "/").startswith(("http", "//", "\\")), (path, name)
        acting = re.findall(r'(?:href|src|action|hx-[a-z]+|data-[a-z]+|content)="([^"]*)"', answer.text)
        assert not [each for each in acting if each.startswith((ELSEWHERE, "//evil"))], (path, name)
    rules = policy(client.get("/").headers)
    assert all(f"{name} 'self'" in rules for name in ("connect-src", "form-action")) and "base-uri 'none'" in rules


@pytest.mark.slow
@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"http://localhost:{PORT + 1}", "http://127.0.0.1"])
def test_no_page_of_another_origin_may_read_an_answer(client: TestClient, home: Path, origin: str) -> None:
    """Cross-origin reading of a local server, which took session tokens from other tools."""
    for path in (
        "/",
        "/curves.json",
        f"/runs/{run_id(home, 'fixture')}",
        "/nothing",
        "/static/0/studio.css",
        "/v1/traces",
    ):
        asked = {"origin": origin, "access-control-request-method": "GET", "access-control-request-headers": "cookie"}
        for answer in (client.get(path, headers={"origin": origin}), client.options(path, headers=asked)):
            assert not [name for name in answer.headers if name.startswith("access-control")], path
            assert answer.headers["cross-origin-resource-policy"] == "same-origin", path


def test_files_of_a_run_are_listed_and_served_nowhere(client: TestClient, home: Path) -> None:
    """Uploads that become pages of the server: no address answers with what a run has stored."""
    run = run_id(home, "drawn")
    page = client.get(f"/curves?run={run}").text
    assert "picture.svg" in page and not re.findall(r'(?:href|src)="[^"]*picture', page)
    with store.open_run(run, home) as opened:
        digest = Track(opened).artifacts()[0].sha256
    for path in (
        "artifacts/picture.svg",
        f"artifacts/{digest}",
        "files/picture.svg",
        "picture.svg",
        digest,
        "run.sqlite",
    ):
        for base in (f"/runs/{run}", f"/static/{run}", ""):
            assert client.get(f"{base}/{path}").status_code == 404, (base, path)


def test_copies_are_downloads_of_plain_text(client: TestClient, home: Path) -> None:
    run = run_id(home, "fixture")
    found = re.search(rf"/runs/{run}/attempts/([^\"?]+)", client.get(f"/runs/{run}").text)
    assert found is not None
    for kind in ("test.py", "example.jsonl"):
        answer = client.get(f"{found[0]}/copy/{kind}")
        assert answer.status_code == 200 and answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["content-type"].startswith("text/plain") and "nosniff" in str(answer.headers.values())


@pytest.mark.slow
def test_signing_in_leads_to_the_first_page_alone(home: Path) -> None:
    """An address to return to after signing in is a way to send people elsewhere: there is none."""
    accounts = Accounts(SqliteStore(home))
    accounts.add("ada", "a long password", "admin")
    access = Access(("studio.example.org",), accounts)
    access.port = PORT
    given = {"name": "ada", "password": "a long password", "next": ELSEWHERE, "redirect": ELSEWHERE}
    with TestClient(create_app(home, access), base_url=f"http://studio.example.org:{PORT}") as wide:
        asked = wide.get("/views", params={"next": ELSEWHERE}, follow_redirects=False)
        assert asked.headers.get("location", "/sign-in") == "/sign-in"
        answer = wide.post("/sign-in", params=given, data=given, headers=OWN, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_page_that_forgets_its_checks_is_behind_the_door_nevertheless(home: Path) -> None:
    """New endpoints without authorization: the door is around all routes, so a new one is closed before it is thought of."""
    from firsthand.studio.studio_pages import StudioPage

    async def forgotten(request: object) -> HTMLResponse:
        return HTMLResponse("secret")

    new = StudioPage("New", "/new", [Route("/new", forgotten, methods=["GET", "POST"])])
    access = Access()
    access.port = PORT
    with TestClient(create_app(home, access, pages=[new]), base_url=f"http://127.0.0.1:{PORT}") as stranger:
        for answer in (stranger.get("/new"), stranger.post("/new", headers=OWN)):
            assert answer.status_code in (401, 403) and "secret" not in answer.text
        stranger.cookies.set(access.cookie, access.exchange(access.new_code()) or "")
        assert stranger.get("/new").text == "secret"
        assert stranger.post("/new", headers={"origin": "https://evil.example"}).status_code == 403


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_nothing_here_reads_pickles(tmp_path: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    """A log or an artifact that runs code when it is loaded: whatever its name says, it is refused or left alone."""
    sprung, theirs, home = tmp_path / "sprung", tmp_path / "theirs", tmp_path / "home"
    trap = pickle.dumps(Trap(sprung))
    model = theirs / "mlruns" / "0" / "abc" / "artifacts" / "model"
    for folder in (model, home, theirs / "logs"):
        folder.mkdir(parents=True)
    (theirs / "mlruns" / "0" / "abc" / "metrics").mkdir()
    (theirs / "mlruns" / "0" / "abc" / "metrics" / "loss").write_text("1700000000000 0.5 0\n")
    (theirs / "mlruns" / "0" / "abc" / "meta.yaml").write_text("run_id: abc\n")
    (model / "model.pkl").write_bytes(trap)
    logs = [theirs / "logs" / name for name in ("a.eval", "samples_a.jsonl", "b.eval")]
    for log in logs[:2]:
        log.write_bytes(trap)
    with zipfile.ZipFile(logs[2], "w") as packed:
        for member in ("header.json", "_journal/start.json", "samples/1_epoch_1.json"):
            packed.writestr(member, trap)
    for log in logs:
        code, _, err = cli("studio", "import", str(log), "--home", str(home))
        assert code in (1, 2) and err.startswith("firsthand: ") and len(err.splitlines()) == 1, err
    assert len(import_runs(theirs / "mlruns", home)) == 1
    with pytest.raises(FirsthandError):
        import_runs(logs[0], home)
    assert not sprung.exists()
    pickle.loads(trap)
    assert sprung.exists(), "the trap works"


def test_vendored_files_are_those_whose_hashes_are_listed() -> None:
    """A dependency that was replaced: what others wrote is in the package, byte for byte as it was published."""
    listed = dict(
        reversed(line.split("  ", 1))
        for line in (STATIC / "LICENSES.txt").read_text().splitlines()
        if re.fullmatch(r"[0-9a-f]{64}  \S+", line)
    )
    assert set(listed) == {path.name for path in STATIC.iterdir() if ".min." in path.name}
    for name, digest in listed.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name
