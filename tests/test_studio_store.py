"""What people make in the Studio: documents with versions, saved views, annotation queues, data sets."""

from __future__ import annotations

import math
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import make_run
from firsthand.agent import Agent
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.store.postgres_index import open_postgres_index
from firsthand.runs import store
from firsthand.studio.access import Access
from firsthand.studio.annotation_queue import OPEN_S, AnnotationQueue, Queues
from firsthand.studio.postgres_store import PostgresStore
from firsthand.studio.project_store import ProjectStore
from firsthand.studio.prompt_library import PromptLibrary
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_store import FILE, SCHEMA_VERSION, SqliteStore, StudioStore
from firsthand.studio.task_collection import TaskCollections
from firsthand.task import Task
from index_postgres import postgres  # noqa: F401

PORT = 8126
OWN = {"sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_run.make(folder)
    return folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    access = Access()
    access.port = PORT
    model = Scripted(lambda messages, sampling, index: "Answer: 4", name="scripted:four")
    app = create_app(home, access, {"scripted:four": Agent("scripted:four", model, reply)})
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as made:
        made.cookies.set(access.cookie, access.exchange(access.new_code()) or "")
        yield made


def post(client: TestClient, path: str, **fields: Any) -> Any:
    return client.post(path, data=fields, headers=OWN)


# -- documents --


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], StudioStore]]:
    """Opens another connection to the one store of a test."""
    made: list[StudioStore] = []
    if request.param == "postgres":
        address = request.getfixturevalue("postgres")
        first = PostgresStore(address)
        for table in ("firsthand_items", "firsthand_log"):
            first.items("")
            assert first._connection is not None
            first._connection.execute(f"TRUNCATE {table}")
            first._connection.commit()
        first.close()

    def another() -> StudioStore:
        made.append(PostgresStore(address) if request.param == "postgres" else SqliteStore(tmp_path))
        return made[-1]

    yield another
    for each in made:
        each.close()


def test_a_store_that_is_only_read_makes_no_file(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    assert kept.get("k", "a") is None and kept.items("k") == [] and not (tmp_path / FILE).exists()


def test_a_document_has_a_version_and_an_old_one_is_refused(opened: Callable[[], StudioStore]) -> None:
    kept = opened()
    assert kept.get("k", "a") is None and kept.get("k", "\0") is None and kept.items("k") == []
    assert kept.put("k", "a", {"n": 1}, version=0) == 1
    with pytest.raises(ConfigError, match="is there already"):
        kept.put("k", "a", {"n": 2}, version=0)
    assert kept.put("k", "a", {"n": 2}, version=1) == 2
    with pytest.raises(ConfigError, match="changed in the meantime"):
        kept.put("k", "a", {"n": 3}, version=1)
    assert kept.put("k", "a", {"n": "\ud800"}) == 3
    again = opened().get("k", "a")
    assert again is not None and (again.body, again.version) == ({"n": "\ud800"}, 3)
    assert not kept.remove("k", "a\0") and not kept.remove("k", "\ud800")
    assert kept.remove("k", "a") and not kept.remove("k", "a") and kept.get("k", "a") is None


def test_versions_are_those_of_one_kind_as_they_are_now(opened: Callable[[], StudioStore]) -> None:
    kept, other = opened(), ProjectStore(opened(), "one")
    assert kept.versions("k") == {}
    for key in ("a", "b", "b"):
        kept.put("k", key, {})
    kept.put("l", "c", {})
    other.put("k", "d", {})
    assert (kept.versions("k"), other.versions("k")) == ({"a": 1, "b": 2}, {"d": 1})
    with other.exclusive("n"):
        other.put("k", "d", {})
        assert other.versions("k") == {"d": 2} and kept.versions("one/k") == {"d": 1}, (
            "what is not kept yet is one's own"
        )
    kept.remove("k", "a")
    assert kept.versions("k") == {"b": 2}


def test_a_document_that_was_changed_meanwhile_is_not_removed(opened: Callable[[], StudioStore]) -> None:
    kept, other = ProjectStore(opened(), "one"), ProjectStore(opened(), "one")
    kept.put("k", "a", {"n": 1})
    other.put("k", "a", {"n": 2}, version=1)
    for version, says in ((1, "changed in the meantime"), (0, "is there already")):
        with pytest.raises(ConfigError, match=says):
            kept.remove("k", "a", version=version)
    assert other.get("k", "a") is not None and kept.remove("k", "a", version=2)
    with pytest.raises(ConfigError, match="changed in the meantime"):
        kept.remove("k", "a", version=2)
    assert not kept.remove("k", "a") and not kept.remove("k", "a", version=0) and kept.put("k", "a", {}, version=0) == 1
    assert not kept.remove("k", "\n", version=3)


def test_one_of_two_transactions_of_a_name_waits_for_the_other(opened: Callable[[], StudioStore]) -> None:
    first, second = opened(), opened()
    first.put("k", "n", {"n": 1})
    seen: list[Any] = []

    def add() -> None:
        with second.exclusive("one"):
            item = second.get("k", "n")
            assert item is not None
            seen.append(item.body["n"])
            second.put("k", "n", {"n": item.body["n"] + 1}, version=item.version)

    beside = threading.Thread(target=add)
    with first.exclusive("one"):
        assert first.get("k", "n") is not None
        beside.start()
        beside.join(0.2)
        assert seen == [] and first.put("k", "n", {"n": 5}) == 2 and first.get("k", "new") is None
        first.put("k", "new", {}, version=0)
        assert [item.key for item in first.items("k")] == ["n", "new"], "it sees its own changes"
    beside.join()
    assert seen == [5] and first.get("k", "n") == second.get("k", "n")
    assert [item.body for item in first.items("k")] == [{"n": 6}, {}]


def test_a_transaction_that_fails_keeps_none_of_its_changes(opened: Callable[[], StudioStore]) -> None:
    kept, other = opened(), opened()
    kept.put("k", "a", {"n": 1})
    with pytest.raises(ConfigError, match="changed in the meantime"), kept.exclusive("one"):
        kept.remove("k", "a")
        kept.put("k", "b", {})
        kept.log("audit", {})
        kept.put("k", "b", {}, version=3)
    assert [(item.key, item.version) for item in other.items("k")] == [("a", 1)] and other.logged("audit") == []
    other.put("k", "a", {"n": 2}, version=1)
    assert kept.put("k", "a", {"n": 3}, version=2) == 3


def test_documents_of_kinds_are_apart_and_the_log_grows(opened: Callable[[], StudioStore]) -> None:
    kept = opened()
    for key in ("b", "a", "B"):
        kept.put("one", key, {})
    kept.put("two", "c", {})
    for number in range(3):
        kept.log("audit", {"n": number})
    kept.log("other", {})
    assert [item.key for item in kept.items("one")] == ["B", "a", "b"]
    assert [body["n"] for _, body in kept.logged("audit", 2)] == [2, 1]


@pytest.mark.parametrize(("key", "body"), [("", {}), ("a\nb", {}), ("k" * 201, {}), ("k", {"t": "x" * 4_000_001})])
def test_what_is_no_document_is_refused(tmp_path: Path, key: str, body: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        SqliteStore(tmp_path).put("k", key, body)


@pytest.mark.slow
def test_two_writers_lose_nothing(opened: Callable[[], StudioStore]) -> None:
    def count() -> None:
        own = opened()
        for _ in range(20):
            while True:
                item = own.get("k", "n")
                try:
                    own.put("k", "n", {"n": item.body["n"] + 1 if item else 1}, version=item.version if item else 0)
                    break
                except ConfigError:
                    continue

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = opened().get("k", "n")
    assert found is not None and found.body["n"] == found.version == 60


def test_a_store_that_is_newer_or_broken_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        SqliteStore(tmp_path).items("k")
    (tmp_path / "new").mkdir()
    connection = sqlite3.connect(tmp_path / "new" / FILE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer firsthand"):
        SqliteStore(tmp_path / "new").items("k")


@pytest.mark.slow
def test_a_database_that_is_not_there_is_one_sentence() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(StoreError, match="the database cannot be used"):
        PostgresStore("host=/nosuch dbname=x").items("k")


# -- saved views --


@pytest.mark.slow
def test_a_view_is_an_address_with_a_name(client: TestClient) -> None:
    assert "There are none yet" in client.get("/views").text
    page = post(client, "/views", name="failures <b>", address="/?filter=has:error&sort=-tokens").text
    assert 'href="/?filter=has:error&amp;sort=-tokens"' in page and "failures &lt;b&gt;" in page
    assert "There are none yet" in post(client, "/views/remove", name="failures <b>").text


@pytest.mark.parametrize(
    "place",
    ["//evil.example", "https://evil.example", "javascript:alert(1)", "/\\evil.example", "", "/a b", "/" * 9000],
)
def test_a_view_leads_nowhere_else(client: TestClient, place: str) -> None:
    assert post(client, "/views", name="x", address=place).status_code == 400


# -- queues --


def made_queue(home: Path, **rest: Any) -> Queues:
    queues = Queues(SqliteStore(home))
    queues.make(AnnotationQueue("q", "run", tuple("abcd"), "good", **rest))
    return queues


def work(queues: Queues, rater: str, value: float, number: int = 10) -> list[str]:
    found = []
    for _ in range(number):
        place = queues.next_item("q", rater)
        if place is None:
            return found
        queues.rate("q", place, rater, value)
        found.append(place)
    return found


def test_each_item_gets_the_raters_that_were_asked_for(tmp_path: Path) -> None:
    queues = made_queue(tmp_path, raters=2, shared=2)
    assert work(queues, "ada", 1.0, 3) == ["a", "b", "c"]
    assert work(queues, "bob", 0.0) == ["a", "b", "d"], "items that need a second rater come first"
    assert work(queues, "cy", 1.0) == []
    assert queues.state("q").done == 4


def test_an_item_that_is_open_is_not_given_to_another_until_its_time_is_over(tmp_path: Path) -> None:
    queues = made_queue(tmp_path)
    assert queues.next_item("q", "ada", now=100.0) == "a"
    assert queues.next_item("q", "bob", now=100.0) == "b"
    assert queues.next_item("q", "ada", now=101.0) == "a", "one's own open item stays one's own"
    assert queues.next_item("q", "ada", skip=["a"], now=101.0) == "c"
    assert queues.next_item("q", "cy", now=101.0 + OPEN_S) == "a"


@pytest.mark.slow
def test_raters_who_ask_at_the_same_moment_are_given_different_items(opened: Callable[[], StudioStore]) -> None:
    Queues(opened()).make(AnnotationQueue("q", "run", tuple("abcdefghijkl"), "good"))
    given: list[str] = []
    begin = threading.Barrier(4)

    def work_beside(rater: str) -> None:
        queues = Queues(opened())
        begin.wait()
        while (place := queues.next_item("q", rater)) is not None:
            given.append(place)
            queues.rate("q", place, rater, 1.0, version=0)

    threads = [threading.Thread(target=work_beside, args=(name,)) for name in ("ann", "bob", "cat", "dan")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == [*"abcdefghijkl"]


def test_agreement_is_krippendorffs_and_cohens(tmp_path: Path) -> None:
    queues = made_queue(tmp_path, raters=2)
    said = {"ada": (1.0, 1.0, 0.0, 0.0), "bob": (1.0, 0.0, 0.0, 0.5)}
    for rater, values in said.items():
        for place, value in zip("abcd", values, strict=True):
            queues.rate("q", place, rater, value)
    state = queues.state("q")
    assert (state.pairs, state.same, state.done) == (4, 2, 4)
    assert [place for place, _ in state.disagreements] == ["b", "d"]
    # alpha by hand: observed squared differences 1 and .25 over 4 items; expected over all pairs of the 8 values
    values = [*said["ada"], *said["bob"]]
    expected = sum((x - y) ** 2 for x in values for y in values) / (8 * 7)
    assert state.alpha == pytest.approx(1 - (1 + 0.25) / 4 / expected)
    # kappa: over the pairs of one of ada with one of bob, two times 2.25 and two times 1.25
    assert state.kappa == pytest.approx(1 - 4 * (1 + 0.25) / 7)


def test_a_queue_refuses_what_it_has_not_and_an_old_version(tmp_path: Path) -> None:
    queues = made_queue(tmp_path)
    with pytest.raises(UnknownName):
        queues.rate("q", "z", "ada", 1.0)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        queues.rate("q", "a", "ada", math.nan)
    queues.rate("q", "a", "ada", 1.0, version=0)
    with pytest.raises(ConfigError, match="is there already"):
        queues.rate("q", "a", "ada", 0.0, version=0)
    with pytest.raises(ConfigError, match="is there already"):
        queues.make(AnnotationQueue("q", "run", ("a",), "good"))
    with pytest.raises(ConfigError, match="raters is 11"):
        AnnotationQueue("q", "run", ("a",), "good", raters=11)


@pytest.mark.slow
def test_a_queue_is_made_from_a_filter_and_worked_through(client: TestClient, home: Path) -> None:
    (run,) = [info.id for info in store.list_runs(home) if "fixture" in info.id]
    assert "There is no queue yet" in client.get("/queues").text
    page = post(
        client, "/queues", name="wrong sums", run=run, filter="agent=react benchmark=plain", score="fair", raters="2"
    )
    assert "0</b> of 4 finished" in page.text
    for rater, value in (("ada", "1"), ("bob", "0")):
        for _ in range(4):
            item = client.get("/queues/wrong%20sums/next", params={"as": rater})
            assert "/items/" in str(item.url) and "expected" in item.text
            place = str(item.url).partition("/items/")[2].partition("?")[0]
            done = post(
                client, f"/queues/wrong%20sums/items/{place}", value=value, text="so", version="0", **{"as": rater}
            )
            assert done.status_code == 200
    page_of = client.get("/queues/wrong%20sums").text
    assert "4</b> of 4 finished" in page_of and "human:ada" in page_of and "0 of 4 attempts" in page_of
    assert "note.fair" in client.get("/queues").text
    assert client.get(f"/runs/{run}", params={"filter": "has:note score.note.fair=0.5"}).text.count("data-row") == 4
    refused = post(client, f"/queues/wrong%20sums/items/{place}", value="1", version="7", text="mine", **{"as": "bob"})
    assert refused.status_code == 409 and "Another tab has rated this attempt 0 meanwhile" in refused.text
    assert 'value="mine"' in refused.text, "what was written is not lost"
    assert post(client, "/queues", name="x", run=run, filter="agent=nobody", score="fair").status_code == 400
    assert post(client, "/queues", name="x", run=run, filter="", score="not fair").status_code == 400
    assert client.get("/queues/nosuch").status_code == 404


# -- data sets --


@pytest.mark.slow
def test_tasks_of_attempts_are_collected_run_and_downloaded(client: TestClient, home: Path) -> None:
    (run,) = [info.id for info in store.list_runs(home) if "fixture" in info.id]
    assert "There are none yet" in client.get("/data-sets").text
    page = post(client, "/data-sets", name="hard", run=run, filter="benchmark=plain").text
    assert "4 tasks, version 1" in page
    with store.open_run(run, home) as opened:
        place = next(row.place for row in opened.rows() if row.benchmark == "sums" and row.task_id == "t7")
    assert "5 tasks, version 2" in post(client, "/data-sets", name="hard", run=run, attempt=place).text
    assert "5 tasks" in post(client, "/data-sets", name="hard", run=run, attempt=place).text, "no task is there twice"
    assert client.get("/data-sets/hard/tasks.jsonl").text.count('"target"') == 5
    left = post(client, "/data-sets/hard/remove", benchmark="sums", task="t7").text
    assert "4 tasks" in left
    made = client.post(
        "/data-sets/hard/run", data={"model": "scripted:four", "check": "numeric"}, headers=OWN, follow_redirects=False
    )
    assert client.portal is not None
    client.portal.call(client.app.state.playground.settled)  # type: ignore[attr-defined]
    with store.open_run(made.headers["location"].removeprefix("/runs/"), home) as again:
        values = {trace.task_id: trace.value() for trace in again.traces()}
    assert values == {"t0": 0.0, "t1": 0.0, "t2": 1.0, "t3": 0.0}
    assert "Runs of it" in client.get("/data-sets/hard").text
    for wrong in ({"check": "vibes", "model": "scripted:four"}, {"check": "exact"}):
        assert client.post("/data-sets/hard/run", data=wrong, headers=OWN).status_code == 400


def test_protected_tasks_are_not_collected(client: TestClient, home: Path) -> None:
    with store.create(home, {}, "protected") as run:
        run.add_tasks("quiz", [Task("t", "secret?", metadata={"protected": "its authors ask"})])
        run.append(make_run_trace("t"))
    answer = post(client, "/data-sets", name="leak", run=run.id, filter="")
    assert answer.status_code == 400 and "is protected" in answer.text, re.findall('role="alert">([^<]*)', answer.text)
    assert not re.search("leak", client.get("/data-sets").text)


def make_run_trace(task: str) -> Any:
    from firsthand.trace import Trace

    return Trace("p1", "quiz", task, {"name": "a"}, 0, 0, "2026-11-27T00:00:00+00:00", 1.0, answer="x")


@pytest.mark.parametrize("body", ["not json", "[1]", "[" * 100_000, "null", '"text"'])
def test_a_row_of_another_program_is_a_sentence(tmp_path: Path, body: str) -> None:
    store = SqliteStore(tmp_path)
    store.put("view", "a", {})
    store.log("view", {})
    for table in ("items", "log"):
        with sqlite3.connect(tmp_path / FILE) as connection:
            connection.execute(f"UPDATE {table} SET body = ?", (body,))
        connection.close()
    for read in (lambda: store.items("view"), lambda: store.get("view", "a"), lambda: store.logged("view")):
        with pytest.raises(StoreError, match="holds no JSON object"):
            read()
    store.close()


@pytest.mark.parametrize(
    "address", ["postgresql//u:secret@h/x", "postgresql://u:secret word@h", "host=h password=secret odd=1"]
)
def test_an_address_that_cannot_be_read_is_not_quoted_with_its_password(address: str) -> None:
    if find_spec("psycopg") is None:
        pytest.skip("PostgreSQL with pgvector and psycopg are not installed")
    for opened in (lambda: PostgresStore(address).items("view"), lambda: open_postgres_index(address, "n", None)):
        with pytest.raises(StoreError, match="address cannot be read") as raised:
            opened()
        assert "secret" not in str(raised.value) and raised.value.__cause__ is None


def test_names_and_kinds_with_sql_or_surrogates_are_names_or_a_sentence(opened: Callable[[], StudioStore]) -> None:
    store = opened()
    for key in ("a'; DROP TABLE firsthand_items;--", "%s %(a)s", '"; --'):
        for kind in ("view", "v'; --", "%s"):
            store.put(kind, key, {"x": "'; --", "y": "\0"})
            found = store.get(kind, key)
            assert found is not None and found.body == {"x": "'; --", "y": "\0"} and store.remove(kind, key)
    for read in (lambda: store.items("\ud800"), lambda: store.put("\ud800", "a", {}), lambda: store.logged("\ud800")):
        with pytest.raises(StoreError):
            read()
    assert store.items("view") == []


def test_a_data_set_or_prompt_whose_name_was_sent_with_a_nul_is_refused_as_any_other(
    opened: Callable[[], StudioStore],
) -> None:
    store, row = opened(), {"id": "t", "question": "q?", "answer": "a", "system": "", "history": "", "cluster": ""}
    with pytest.raises(ConfigError, match="is no name: give 1 to 200 characters on one line"):
        TaskCollections(store).add_received("a\0b", [row])
    with pytest.raises(ConfigError, match="is no name: give 1 to 200 characters on one line"):
        PromptLibrary(store).add("a\0b", "text", "ann")
    with pytest.raises(UnknownName, match="no data set"):
        TaskCollections(store).remove("a\0b", "traces", "t")


def test_a_file_of_the_next_version_is_not_opened(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    kept.put("view", "v", {})
    kept.close()
    with sqlite3.connect(tmp_path / FILE) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    for use in (lambda: kept.get("view", "v"), lambda: kept.put("view", "v", {})):
        with pytest.raises(StoreError, match=r"was written by a newer firsthand \(schema 2\): update firsthand$"):
            use()


def test_views_of_a_strangers_file_may_call_nothing_unsafe_and_both_connections_are_closed(tmp_path: Path) -> None:
    kept = SqliteStore(tmp_path)
    kept.put("view", "v", {})
    assert kept.get("view", "v") is not None
    both = [each for each in (kept._connection, kept._reader) if each is not None]
    assert [each.execute("PRAGMA trusted_schema").fetchone() for each in both] == [(0,), (0,)]
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        both[1].execute("DELETE FROM items")
    kept.close()
    for each in both:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            each.execute("SELECT 1")


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_no_address_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    kept = SqliteStore(tmp_path)
    with pytest.raises(ConfigError, match=r"is no name: no browser could open a page of it$"):
        kept.put("data-set", name, {})
    kept.put("data-set", "...", {})
    assert [each.key for each in kept.items("data-set")] == ["..."]
    kept.close()
