"""Data sets of received traces, and the pytest file that a data set becomes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio.access import Access
from firsthand.studio.regression_test import as_regression_test
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_store import SqliteStore, StoredItem
from firsthand.studio.task_collection import CollectedTask, TaskCollections, as_lines
from firsthand.task import Task
from firsthand.trace import Score, Trace

PORT = 8128
OWN = {"sec-fetch-site": "same-origin"}


def span(trace: int, question: str, answer: str, **more: str) -> IncomingSpan:
    """A call of a model, alone in its trace."""
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}] if question else []
    attributes = {
        "gen_ai.operation.name": "chat", "gen_ai.input.messages": json.dumps(said),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "content": answer}]),
    }  # fmt: skip
    return IncomingSpan(f"{trace:032x}", f"{1:016x}", "", "chat", trace, trace + 9, attributes | more)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data-sets")
    taken = TraceStore(folder, create=True)
    spans = [
        span(1, "Capital of France?", "Paris", session__id="s"), span(2, "<b>2</b> + 2?", "4"),
        span(3, "", ""), span(4, "Capital of Spain?", "Madrid", error="x"),
    ]  # fmt: skip
    taken.add(SpanPreparer(Redactor()).prepared(spans))
    taken.close()
    return folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    access = Access()
    access.port = PORT
    with TestClient(create_app(home, access), base_url=f"http://127.0.0.1:{PORT}") as made:
        made.get("/enter", params={"code": access.new_code()})
        yield made


def test_a_data_set_offers_each_system_message_by_what_finds_it(tmp_path: Path) -> None:
    """`p@2` is a version of `p`: a prompt of that name, which 0.21 kept, is offered with its own version."""
    kept = SqliteStore(tmp_path)
    version = {"text": "Be brief.", "at": "", "by": "", "note": ""}
    for name in ("p", "p@2"):
        kept.put("prompt", name, {"versions": [version]})
    trace = Trace("t", "b", "t", {"name": "a"}, 0, 0, "", 1.0, place="p")
    with store.create(tmp_path, {}, "r") as run:
        run.add_tasks("b", [Task("t", "2 + 2?")])
        TaskCollections(kept).add("sums", run, [trace])
    access = Access()
    access.port = PORT
    agents = {"m": Agent("m", Scripted(lambda messages, sampling, index: "4"), reply)}
    with TestClient(create_app(tmp_path, access, agents), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        page = client.get("/data-sets/sums").text
    assert re.findall("<option>(p.*?)</option>", page) == ["p", "p@2@1"]


def test_a_trace_becomes_a_task_with_its_answer_as_the_expected_one(client: TestClient, home: Path) -> None:
    assert 'name="trace"' in client.get(f"/traces/{1:032x}").text
    made = client.post("/data-sets", data={"name": "capitals", "trace": f"{1:032x}"}, headers=OWN)
    assert made.status_code == 200 and f'href="/traces/{1:032x}">trace</a>' in made.text and "Paris" in made.text
    (one,) = TaskCollections(SqliteStore(home)).get("capitals").tasks
    assert (one.task.prompt, one.task.secret, one.benchmark) == ("Capital of France?", {"answer": "Paris"}, "traces")
    assert one.task.metadata["system"] == "Be brief."


def test_the_traces_of_a_filter_become_tasks_once_each(client: TestClient, home: Path) -> None:
    for _ in range(2):
        made = client.post("/data-sets", data={"name": "found", "traces": "input:capital"}, headers=OWN)
        assert made.status_code == 200 and "2 tasks" in made.text
    assert {each.task.secret["answer"] for each in TaskCollections(SqliteStore(home)).get("found").tasks} == {
        "Paris",
        "Madrid",
    }
    lines = client.get("/data-sets/found/tasks.jsonl").text.splitlines()
    assert {json.loads(line)["target"] for line in lines} == {"Paris", "Madrid"}


def test_a_trace_that_comes_twice_at_once_is_one_task(tmp_path: Path) -> None:
    row = {"id": "t", "question": "q?", "answer": "a", "system": "", "history": "", "cluster": "c"}
    collections = TaskCollections(SqliteStore(tmp_path))
    assert collections.add_received("twice", [row, row]) == 1 and len(collections.get("twice").tasks) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"trace": f"{3:032x}"}, "has no question"),
        ({"trace": f"{99:032x}"}, "no trace"),
        ({"traces": "input:nowhere"}, "the filter finds no trace"),
        ({"traces": "nosuch:x"}, "which is no field"),
    ],
)
def test_what_makes_no_task_is_one_sentence(client: TestClient, fields: dict[str, str], says: str) -> None:
    answer = client.post("/data-sets", data={"name": "none", **fields}, headers=OWN)
    assert answer.status_code in (400, 404) and says in answer.text
    assert client.get("/data-sets/none").status_code == 404


@pytest.mark.slow
def test_a_data_set_becomes_a_pytest_file_that_fails_where_a_model_got_worse(client: TestClient, home: Path) -> None:
    client.post("/data-sets", data={"name": "regress", "traces": "input:capital"}, headers=OWN)
    got = client.get("/data-sets/regress/test.py")
    assert "attachment" in got.headers["content-disposition"] and got.headers["content-type"].startswith("text/plain")
    (home / "test_data_set.py").write_text(got.text)
    (home / "model.json").write_text(json.dumps({"France": "It is Paris.", "": "I cannot say."}))
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(home / "test_data_set.py")],
        cwd=home, env={**os.environ, "FIRSTHAND_TEST_MODEL": f"scripted:{home}/model.json"}, capture_output=True, text=True,
    )  # fmt: skip
    assert "1 failed, 1 passed" in ended.stdout, ended.stdout + ended.stderr


def test_a_task_with_choices_is_collected_as_it_is_put_with_its_score_of_nothing_or_none(tmp_path: Path) -> None:
    choice = Task(
        "m", "Pick", ("red", "blue"), hint="a letter", secret={"answer": "B"}, metadata={"n": 1, "of": [2, 3]}
    )
    sets = TaskCollections(SqliteStore(tmp_path))
    with store.create(tmp_path, {}, "choices") as run:
        run.add_tasks("pick", [choice])
        for answer, score in (("é" * 2001, 0.0), (None, None)):
            scores = () if score is None else (Score("exact", score),)
            tried = Trace(
                f"c{score}", "pick", "m", {"name": "a"}, 0, 0, "", 1.0, answer=answer, scores=scores, place=f"p{score}"
            )
            run.append(tried)
            assert sets.add(f"m{score}", run, [tried, tried]) == 1
            (kept,) = sets.get(f"m{score}").tasks
            assert kept == CollectedTask(choice, "pick", run.id, f"p{score}", (answer or "")[:2000], score)
            assert kept.score == score and kept.task.question == "Pick\nA. red\nB. blue"
            assert json.loads(as_lines(sets.get(f"m{score}"))) == {
                "id": "m", "prompt": "Pick\nA. red\nB. blue", "target": "B", "from": {"run": run.id, "attempt": kept.place},
            }  # fmt: skip


def test_a_data_set_that_was_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    class Beside(SqliteStore):
        """A store where another process makes or changes what was read."""

        def get(self, kind: str, key: str) -> StoredItem | None:
            found = super().get(kind, key)
            self.put(kind, key, {"tasks": []} if found is None else found.body)
            return found

    row = {"id": "t", "question": "q?", "answer": "a", "system": "", "history": "", "cluster": ""}
    plain, beside = TaskCollections(SqliteStore(tmp_path)), TaskCollections(Beside(tmp_path))
    again = "open it again and repeat your change"
    with pytest.raises(ConfigError, match=f"^the data-set 'new' is there already: {again}$"):
        beside.add_received("new", [row])
    plain.add_received("old", [row, {**row, "id": "u"}])
    for change in (
        lambda: beside.add_received("old", [{**row, "id": "v"}]),
        lambda: beside.remove("old", "traces", "t"),
    ):
        with pytest.raises(ConfigError, match=f"^the data-set 'old' was changed in the meantime: {again}$"):
            change()
    assert [each.task.id for each in plain.get("old").tasks] == ["t", "u"] and plain.get("old").version == 3
    plain.remove("old", "traces", "t")
    assert [each.task.id for each in plain.get("old").tasks] == ["u"] and plain.get("new").tasks == ()


def test_what_is_added_while_the_last_task_is_removed_stays(tmp_path: Path) -> None:
    row = {"id": "t", "question": "q?", "answer": "a", "system": "", "history": "", "cluster": ""}
    plain = TaskCollections(SqliteStore(tmp_path))

    class Beside(SqliteStore):
        """A store where somebody else adds a task after the data set was read."""

        def get(self, kind: str, key: str) -> StoredItem | None:
            found = super().get(kind, key)
            assert plain.add_received(key, [{**row, "id": "u"}]) == 1
            return found

    plain.add_received("d", [row])
    with pytest.raises(ConfigError, match=r"^the data-set 'd' was changed in the meantime: open it again"):
        TaskCollections(Beside(tmp_path)).remove("d", "traces", "t")
    assert [each.task.id for each in plain.get("d").tasks] == ["t", "u"]
    for task in "tu":
        plain.remove("d", "traces", task)
    assert plain.all() == []


def test_hostile_texts_stay_texts_in_the_pytest_file(tmp_path: Path) -> None:
    evil = '""")\nimport os; os.system("touch hacked")\n{x} %s \ud800 \x00'
    collections = TaskCollections(SqliteStore(tmp_path))
    with store.create(tmp_path, {}, "evil") as run:
        run.add_tasks("b", [Task("t'\"", evil, secret={"answer": "7"})])
        trace = Trace(
            "id", "b", "t'\"", {"name": "a"}, 0, 0, "2026-11-29T00:00:00+00:00", 1.0, scores=(Score("exact", 0.5),)
        )
        run.append(trace)
        collections.add("evil", run, [trace])
    text = as_regression_test(collections.get("evil"))
    held: dict[str, object] = {}
    exec(compile(text.partition("@pytest")[0], "test.py", "exec"), held)
    assert text.isascii() and held["TASKS"] == [("1 t'\"", evil, "7", 0.5)] and held["SCORER"] == "flexible"
    assert not Path("hacked").exists()
