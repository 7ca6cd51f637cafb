"""What several people keep and look at in the Studio: views of one name, queues near their bounds, runs by other names."""

from __future__ import annotations

import html
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette
from starlette.datastructures import URL
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from firsthand.commands import studio as studio_command
from firsthand.errors import ConfigError, UnknownName
from firsthand.studio import accounts as account_module
from firsthand.studio import annotation_queue
from firsthand.studio.access import Access, AccessMiddleware
from firsthand.studio.accounts import Accounts
from firsthand.studio.annotation_queue import LABEL, AnnotationQueue, Queues
from firsthand.studio.attempt_query import FIELDS, FLAGS, shown_filter
from firsthand.studio.open_runs import OpenRuns
from firsthand.studio.rendering import _environment
from firsthand.studio.studio_store import SqliteStore, StoredItem
from firsthand.studio.typed_filter import Term, parse_filter, written_term
from firsthand.studio.views import saved_views
from firsthand.studio.views.form_fields import version_of
from scored_runs import scored_run


class Counted(SqliteStore):
    """A store that notes what is read of labels."""

    def __init__(self, home: Path):
        super().__init__(home)
        self.asked: list[str] = []

    def items(self, kind: str) -> list[StoredItem]:
        if kind.startswith(LABEL):
            self.asked.append("all")
        return super().items(kind)

    def get(self, kind: str, key: str) -> StoredItem | None:
        if kind.startswith(LABEL):
            self.asked.append("one")
        return super().get(kind, key)


@pytest.fixture
def queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queues]:
    monkeypatch.setattr(annotation_queue, "MOST_READ_SINGLY", 2)
    store = Counted(tmp_path)
    made = Queues(store)
    for name in ("q", "other"):
        made.make(AnnotationQueue(name, "run", ("a", "b", "c", "d"), "good", raters=2))
    yield made
    store.close()


def read(queues: Queues) -> list[str]:
    """What was read of labels since it was asked last."""
    assert isinstance(queues.store, Counted)
    asked, queues.store.asked = queues.store.asked, []
    return asked


def test_labels_are_read_again_where_they_have_changed_and_only_there(queues: Queues, tmp_path: Path) -> None:
    beside = Queues(SqliteStore(tmp_path))
    for place in "abc":
        beside.rate("q", place, "ann", 1.0)
    assert [each.place for each in queues.labels("q")] == ["a", "b", "c"] and read(queues) == ["all"]
    assert queues.next_item("q", "bob") == "a" and queues.num_rated("q", "ann") == 3 and read(queues) == []
    beside.rate("q", "b", "ann", 0.0)
    beside.rate("q", "b", "bob", 1.0)
    assert [(each.place, each.rater, each.value) for each in queues.labels("q")] == [
        ("a", "ann", 1.0), ("b", "ann", 0.0), ("b", "bob", 1.0), ("c", "ann", 1.0),
    ]  # fmt: skip
    assert read(queues) == ["one", "one"] and queues.num_rated("q", "bob") == 1
    for place in "abd":
        beside.rate("q", place, "cat", 0.5)
    assert len(queues.labels("q")) == 7 and read(queues) == ["all"], "more than two at once"
    (first, *_) = beside.store.items(f"{LABEL} q")
    beside.store.remove(f"{LABEL} q", first.key)
    assert len(queues.labels("q")) == 6 and read(queues) == []
    beside.store.close()


def test_agreement_is_counted_again_only_when_a_label_has_changed(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues.rate("q", "a", "ann", 1.0)
    state = queues.state("q")
    assert queues.state("q") is state and queues.state("other").by_rater == () and queues.state("q") is state
    queues.rate("q", "a", "bob", 0.0)
    assert queues.state("q").by_rater == (("ann", 1, 1.0), ("bob", 1, 0.0)) and queues.state("q").done == 1
    monkeypatch.setattr(annotation_queue, "_state_of", None)
    assert queues.state("q").pairs == 1


def test_as_many_changed_labels_as_are_read_singly_are_and_none_of_a_queue_that_is_not_there(queues: Queues) -> None:
    for place in "ab":
        queues.rate("q", place, "ann", 1.0)
    read(queues)
    assert queues.num_rated("q", "ann") == 2 and read(queues) == ["one", "one"]
    assert queues.labels("none") == [] and "none" not in queues._kept
    queues.rate("q", "c", "ann", 1.0)
    read(queues)
    assert queues.next_item("q", "bob") == "a" and read(queues) == ["one"]
    Queues(queues.store).rate("q", "c", "ann", 0.0)
    read(queues)
    assert [each.value for each in queues.labels("q")] == [1.0, 1.0, 0.0] and read(queues) == ["one"]


def test_agreement_is_counted_by_one_of_several_who_ask(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    count = annotation_queue._state_of

    def slow(queue: AnnotationQueue, labels: Any) -> Any:
        counted.append(queue.name)
        time.sleep(0.05)
        return count(queue, labels)

    monkeypatch.setattr(annotation_queue, "_state_of", slow)
    queues.rate("q", "a", "ann", 1.0)
    queues.labels("q")
    asking = [threading.Thread(target=queues.state, args=("q",)) for _ in range(4)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert counted == ["q"]


def test_two_raters_at_once_lose_no_label_and_are_not_given_one_item(tmp_path: Path) -> None:
    places, store, beside = tuple(f"{number:03}" for number in range(60)), SqliteStore(tmp_path), SqliteStore(tmp_path)
    Queues(store).make(AnnotationQueue("q", "run", places, "good"))
    shared, given = Queues(store), dict[str, list[str]]()

    def work(queues: Queues, rater: str) -> None:
        mine = given.setdefault(rater, [])
        while (place := queues.next_item("q", rater)) is not None:
            mine.append(place)
            queues.rate("q", place, rater, 1.0, version=0)
            assert queues.num_rated("q", rater) >= len(mine)

    raters = [(shared, "ann"), (shared, "bob"), (Queues(beside), "cat")]
    working = [threading.Thread(target=work, args=each) for each in raters]
    for each in working:
        each.start()
    for each in working:
        each.join()
    assert sorted(place for mine in given.values() for place in mine) == list(places)
    for queues, _ in raters:
        assert sorted((each.rater, each.place) for each in queues.labels("q")) == sorted(
            (rater, place) for rater, mine in given.items() for place in mine
        )
        assert queues.state("q").done == len(places)
    store.close()
    beside.close()


def test_labels_of_many_queues_are_not_all_kept(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotation_queue, "MOST_KEPT", 3)
    for name, places in (("q", "ab"), ("other", "a")):
        for place in places:
            queues.rate(name, place, "ann", 1.0)
        queues.state(name)
    assert set(queues._kept) == set(queues._states) == {"q", "other"}
    queues.rate("other", "b", "ann", 1.0)
    assert queues.state("other").by_rater == (("ann", 2, 1.0),)
    assert set(queues._kept) == set(queues._states) == {"other"}
    assert queues.state("q").by_rater == (("ann", 2, 1.0),) and set(queues._kept) == {"q"}


def test_a_queue_that_is_read_again_is_counted_once_towards_what_is_kept(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotation_queue, "MOST_KEPT", 3)
    for name, place in (("other", "a"), ("q", "a"), ("q", "b")):
        queues.rate(name, place, "ann", 1.0)
        queues.labels(name)
    assert set(queues._kept) == {"q", "other"}


def test_only_the_queues_that_were_read_first_are_given_up(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    queues.make(AnnotationQueue("third", "run", ("a", "b"), "good"))
    monkeypatch.setattr(annotation_queue, "MOST_KEPT", 2)
    for name in ("other", "q", "third"):
        queues.rate(name, "a", "ann", 1.0)
        queues.labels(name)
    assert set(queues._kept) == {"q", "third"}
    monkeypatch.setattr(annotation_queue, "MOST_KEPT", 1)
    queues.rate("q", "b", "ann", 1.0)
    assert len(queues.labels("q")) == 2 and set(queues._kept) == {"q"}, "one that is too large alone is kept"


def test_labels_go_by_place_and_rater_and_what_is_gone_meanwhile_is_none(
    queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rater in ("cat", "bob", "ann"):
        queues.rate("q", "a", rater, 1.0)
        queues.labels("q")
    assert [each.rater for each in queues.labels("q")] == ["ann", "bob", "cat"] and queues.state("q").done == 1
    queues.store.put("queue", "q", {**queues.get("q").to_json(), "raters": 4})
    assert queues.state("q").done == 0, "the same labels of a queue that asks for more"
    versions = queues.store.versions
    monkeypatch.setattr(queues.store, "versions", lambda kind: versions(kind) | {"gone": 1})
    assert len(queues.labels("q")) == 3


def test_what_nobody_has_read_is_read_by_one_of_several_who_ask(tmp_path: Path) -> None:
    class Slow(Counted):
        def items(self, kind: str) -> list[StoredItem]:
            time.sleep(0.05 * kind.startswith(LABEL))
            return super().items(kind)

    store = Slow(tmp_path)
    queues = Queues(store)
    queues.make(AnnotationQueue("q", "run", ("a", "b"), "good"))
    for number in range(annotation_queue.MOST_READ_SINGLY + 1):
        store.put(f"{LABEL} q", f"k{number}", {"place": "a", "rater": f"r{number}", "value": 1.0})
    asking = [threading.Thread(target=ask, args=("q",)) for ask in (queues.state, queues.labels)]
    asking += [threading.Thread(target=ask, args=("q", "ann")) for ask in (queues.next_item, queues.num_rated)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert read(queues) == ["all"]
    store.close()


def test_all_labels_are_read_before_others_wait_for_the_queue(tmp_path: Path) -> None:
    order: list[str] = []

    class Watched(Counted):
        def items(self, kind: str) -> list[StoredItem]:
            order.append(kind if not self._writing_thread else f"{kind} while others wait")
            return super().items(kind)

    store = Watched(tmp_path)
    queues = Queues(store)
    queues.make(AnnotationQueue("q", "run", ("a", "b"), "good"))
    for number in range(annotation_queue.MOST_READ_SINGLY + 1):
        store.put(f"{LABEL} q", f"k{number}", {"place": "a", "rater": f"r{number}", "value": 1.0})
    assert queues.next_item("q", "ann") == "b" and order == ["label q", "open-item q while others wait"]
    store.close()


def test_a_view_of_a_name_that_is_taken_is_replaced_only_by_who_has_seen_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    client = TestClient(Starlette(routes=saved_views.routes(store)), follow_redirects=False)
    client.app.state.pages = ()  # type: ignore[attr-defined]

    def save(address: str, **more: str) -> tuple[int, str]:
        answer = client.post("/views", data={"name": "weekly", "address": address, **more})
        return answer.status_code, html.unescape(answer.text)

    def kept() -> tuple[str, int]:
        found = store.get("view", "weekly")
        assert found is not None
        return found.body["address"], found.version

    assert save("/?filter=has:error")[0] == 303 and save("/?filter=has:error")[0] == 303
    status, text = save("/?filter=score<0.5")
    assert status == 409 and kept() == ("/?filter=has:error", 1)
    assert "There is a view weekly already, and it was not replaced: it shows <code>/?filter=has:error" in text
    assert text.count('name="address" value="/?filter=score<0.5"') == 2 and 'name="version" value="1"' in text
    assert save("/?filter=score<0.5", version="1")[0] == 303 and kept() == ("/?filter=score%3C0.5", 2)
    assert save("/", version="1")[0] == 409 and kept()[1] == 2
    for version in ("", "x", "-1", "1" * 10, "٣"):
        with pytest.raises(Exception, match="a whole number was expected"):
            save("/", version=version)
    assert save("/", version="9" * 9)[0] == 409
    assert kept() == ("/?filter=score%3C0.5", 2)
    store.remove("view", "weekly")
    with pytest.raises(ConfigError, match="'weekly' was changed in the meantime"):
        save("/", version="2")
    assert "There is a view" not in client.get("/views").text
    store.close()


def _refused(form: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as told:
        version_of(form)
    return str(told.value)


def test_the_version_of_a_form_has_at_most_nine_digits_and_no_default_of_its_own() -> None:
    assert [version_of({"version": text}) for text in ("0", "7", "9" * 9)] == [0, 7, 999_999_999]
    assert version_of({}, "3") == 3 and version_of({"version": "4"}, "3") == 4
    for form, says in (({}, "''"), ({"version": "1" * 50}, f"'{'1' * 40}'"), ({"version": "²"}, "'²'")):
        assert _refused(form) == f"version is {says}: a whole number was expected"


@pytest.mark.parametrize(
    "value", ['he said "hi"', '"', '""', 'a"', '"a', "x  y", "tab\there", "a\\b", "-neg", ":x", "ünï"]
)
def test_a_filter_finds_a_value_with_quotation_marks(value: str) -> None:
    for operator in ("=", ":"):
        text = f"is:wrong {written_term('agent', value, operator)} word"
        assert parse_filter(text, FIELDS, FLAGS)[1] == Term("agent", operator, value)
    assert parse_filter(shown_filter({"task": value}), FIELDS, FLAGS) == (Term("task", "=", value),)


def test_values_are_quoted_only_where_they_must_be() -> None:
    assert written_term("is", "wrong", ":") == "is:wrong" and written_term("agent", "") == 'agent=""'
    assert written_term("agent", 'a "b"') == 'agent="a ""b"""'
    assert parse_filter('"two ""words"""', {}, {}) == (Term("", ":", 'two "words"'),)


def test_links_of_facets_hold_a_term_that_finds_what_they_name() -> None:
    name = 'he said "hi"'
    source = "{% from 'parts/facets.html.j2' import facet_list %}{{ facet_list({'agent': [(name, 1)]}, '/') }}"
    text = _environment().from_string(source).render(name=name)
    (term,) = re.findall('data-term="([^"]*)"', text)
    assert parse_filter(html.unescape(term), FIELDS, FLAGS) == (Term("agent", "=", name),)


def test_a_run_is_opened_once_by_whatever_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    made = scored_run(home, "sums", {"cot": {"quiz": {"t": [{"exact": 1.0}]}}})
    made.close()
    closed: list[str] = []
    runs = OpenRuns(home)
    first = runs.get("last")
    monkeypatch.setattr(type(first), "close", lambda run: closed.append(run.id))
    for name in ("last", made.id[:-1], made.id[-4:], "sums", made.id):
        assert runs.get(name) is first
    assert len(runs._open) == 1 and closed == []
    database = first.path / "run.sqlite"
    copy = database.read_bytes()
    database.rename(tmp_path / "old")
    database.write_bytes(copy)
    again = runs.get("last")
    assert again is not first and closed == [made.id] and runs.get(made.id) is again and closed == [made.id]
    scored_run(elsewhere, "other", {"cot": {"quiz": {"t": [{"exact": 1.0}]}}}).close()
    monkeypatch.chdir(elsewhere / "runs")
    (stranger,) = (elsewhere / "runs").glob("*other*")
    with pytest.raises(UnknownName, match=f"no run '{stranger.name}'"):
        runs.get(stranger.name)


def test_roles_are_asked_for_the_path_that_the_routes_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(account_module._SCRYPT, "n", 1 << 4)
    # as of Starlette 0.40, where a `?` or `#` in the path ends it
    monkeypatch.setattr(HTTPConnection, "url", property(lambda asked: URL(f"http://h{asked.scope['path']}")))
    store = SqliteStore(tmp_path)
    accounts = Accounts(store)
    access = Access(("testserver",), accounts)
    access.port = 80
    may: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        may.append(access.lets_in(Request(scope)))
        await PlainTextResponse(scope["path"])(scope, receive, send)

    client = TestClient(AccessMiddleware(app, access))
    keys = {}
    for role in ("viewer", "annotator"):
        accounts.add(role, "a long password", role)
        keys[role] = {"authorization": f"Bearer {accounts.new_key(role)}"}
    for name in ("C%23", "Right%3F", "plain"):
        place = f"/queues/{name}"
        assert client.get(f"{place}/next", headers=keys["viewer"]).status_code == 403
        assert client.get(f"{place}/next", headers=keys["annotator"]).status_code == 200
        assert client.post(f"{place}/items/a", headers=keys["annotator"]).status_code == 200
        (what, *_) = [body["what"] for _, body in store.logged("audit")]
        assert what == f"POST {unquote(place)}/items/a"
    assert may == [True] * 6
    assert client.get("/sign-in%3Fx").status_code == 401
    alone = Access(("testserver",))
    alone.port = 80
    local = TestClient(AccessMiddleware(app, alone))
    assert local.get("/enter%3Fcode").status_code == 401 and local.get("/enter").status_code == 403
    store.close()


def test_the_address_that_is_printed_is_one_that_the_studio_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(account_module._SCRYPT, "n", 1 << 4)
    store = SqliteStore(tmp_path)
    Accounts(store).add("ada", "a long password", "admin")
    store.close()
    answers: list[int] = []

    def served(server: Any, listening: socket.socket, receiving: object) -> None:
        listening.close()
        (printed,) = re.findall(r"The Studio: (http://\S+)/sign-in", said := capsys.readouterr().out)
        assert ", for 1 accounts." in said
        answers.append(TestClient(server.config.app, base_url=printed).get("/sign-in").status_code)

    monkeypatch.setattr(studio_command, "_run", served)
    listen = studio_command._listen
    monkeypatch.setattr(studio_command, "_listen", lambda port, host: listen(port))
    told: list[str] = []
    monkeypatch.setattr(studio_command, "complain", told.append)
    for host, name in (("0.0.0.0", ()), ("10.0.0.7", ()), ("0.0.0.0", ("studio.example.org",))):
        config = studio_command.Config(host=host, name=name, open=False, receive=False, port=0)
        assert studio_command._serve(config, tmp_path, {}) == 0
    assert answers == [200] * 3
    assert told == [
        "others cannot open it yet: give --name, the name or address by which they reach 0.0.0.0, such as "
        "--name studio.example.org"
    ]
