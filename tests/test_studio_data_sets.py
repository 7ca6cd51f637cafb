"""Data sets of received traces, and the pytest file that a data set becomes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.bridges.inspect.eval_logs import attempt_of
from firsthand.errors import ConfigError, DataError
from firsthand.ingest.incoming_span import IncomingSpan
from firsthand.ingest.redaction import Redactor
from firsthand.ingest.trace_store import SpanPreparer, TraceStore
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.scorers import match
from firsthand.studio import answer_checks, playground
from firsthand.studio.access import Access
from firsthand.studio.answer_checks import OfferedChecks, check_scorers, fitting_checks, misfit
from firsthand.studio.regression_test import as_regression_test
from firsthand.studio.studio_app import create_app
from firsthand.studio.studio_store import SqliteStore, StoredItem
from firsthand.studio.task_collection import CollectedTask, TaskCollection, TaskCollections, as_lines
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
        span(5, "Capital of Peru?", "Li", **{"firsthand.cut": "output.value"}),
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


def test_a_trace_that_was_cut_when_it_was_recorded_becomes_no_task(client: TestClient) -> None:
    refused = client.post("/data-sets", data={"name": "cut", "trace": f"{5:032x}"}, headers=OWN)
    assert refused.status_code == 400 and "answer of this trace was cut when it was recorded" in refused.text
    refused = client.post("/data-sets", data={"name": "cut", "traces": "input:Peru"}, headers=OWN)
    assert refused.status_code == 400 and "each trace that the filter finds was cut" in refused.text
    assert client.get("/data-sets/cut").status_code == 404


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
    assert [each.task.id for each in plain.get("old").tasks] == ["t", "u"] and plain.get("old").version == 1
    plain.remove("old", "traces", "t")
    assert [each.task.id for each in plain.get("old").tasks] == ["u"] and [each.name for each in plain.all()] == ["old"]


def test_what_is_added_while_the_last_task_is_removed_stays(tmp_path: Path) -> None:
    row = {"id": "t", "question": "q?", "answer": "a", "system": "", "history": "", "cluster": ""}
    plain = TaskCollections(SqliteStore(tmp_path))

    class Beside(SqliteStore):
        """A store where somebody else begins to add a task after the data set was read."""

        def get(self, kind: str, key: str) -> StoredItem | None:
            found = super().get(kind, key)
            other.start()
            other.join(0.2)
            return found

    plain.add_received("d", [row])
    other = threading.Thread(target=plain.add_received, args=("d", [{**row, "id": "u"}]))
    TaskCollections(Beside(tmp_path)).remove("d", "traces", "t")
    other.join()
    assert [each.task.id for each in plain.get("d").tasks] == ["u"]
    plain.remove("d", "traces", "u")
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
    assert text.isascii() and held["TASKS"] == [("1 t'\"", evil, [], {"answers": ["7"]}, "flexible", 0.5)]
    assert not Path("hacked").exists()


def collected(*tasks: Task, score: float | None = 1.0) -> TaskCollection:
    made = [CollectedTask(each, f"b{place}", "r", f"p{place}", "", score) for place, each in enumerate(tasks)]
    return TaskCollection("d", tuple(made), 1)


SKY = Task("m", "Which colour has the sky?", ("blue", "red"), secret={"gold": 0, "answer": "A"})
CODE = Task("HumanEval/0", "Write f", secret={"tests": "assert f(1) == 2"})


def test_each_task_of_the_pytest_file_has_the_scorer_that_fits_it() -> None:
    several = Task("s", "?", secret={"answers": ["Paris", "57"]})
    rows = (
        (SKY, {"answers": ["A"], "gold": 0}, "choice"), (several, {"answers": ["Paris", "57"]}, "contains_words"),
        (Task("n", "?", secret={"answers": ["5", 7]}), {"answers": ["5", "7"]}, "flexible"),
        (Task("l", "A or B?", secret={"answer": " A "}), {"answers": [" A "]}, "normalised"),
        *((Task("w", "?", secret={"answer": each}), {"answers": [each]}, "contains_words")
          for each in ("AB", "C++", "F#", "A+", "A-", "(5)", "$5")),
        *((Task("w", "?", secret={"answer": each}), {"answers": [each]}, "normalised")
          for each in ("(A)", "A.", "*a*", "__I__", "é", "?")),
        (Task("w", "?", secret={"answers": ["five", "5"]}), {"answers": ["five", "5"]}, "contains_words"),
        (Task("w", "?", secret={"answers": ["five", "V"]}), {"answers": ["five", "V"]}, "normalised"),
    )  # fmt: skip
    held: dict[str, Any] = {}
    text = as_regression_test(collected(*(each for each, _, _ in rows)))
    exec(compile(text.partition("@pytest")[0], "test.py", "exec"), held)
    assert held["TASKS"] == [
        (f"{number} {task.id}", task.question, list(task.choices), secret, scorer, 1.0)
        for number, (task, secret, scorer) in enumerate(rows, start=1)
    ]


def test_a_task_that_no_pytest_file_can_judge_is_named() -> None:
    for odd in (CODE, replace(SKY, id="HumanEval/0", secret={"answer": "A"})):
        with pytest.raises(
            ConfigError, match=r"^no pytest file can judge .* HumanEval/0 has no .* copy its attempt as a test$"
        ):
            as_regression_test(collected(SKY, odd))


@pytest.mark.slow
def test_the_pytest_file_refuses_a_wrong_choice_that_has_the_letter_among_its_words(tmp_path: Path) -> None:
    several = Task("s", "Capital?", secret={"answers": ["Rome", "Roma"]})
    (tmp_path / "test_data_set.py").write_text(
        as_regression_test(collected(SKY, replace(SKY, id="k", prompt="Sea?"), several))
    )
    said = {"sky": "It is red, like a rose.", "Sea": "The answer is A", "": "It is Roma."}
    (tmp_path / "model.json").write_text(json.dumps(said))
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(tmp_path / "test_data_set.py")],
        cwd=tmp_path, env={**os.environ, "FIRSTHAND_TEST_MODEL": f"scripted:{tmp_path}/model.json"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "1 failed, 2 passed" in ended.stdout and "[1 m-1.0]" in ended.stdout, ended.stdout + ended.stderr


def test_a_check_fits_tasks_whose_reference_it_accepts() -> None:
    number, word = Task("n", "?", secret={"answers": ["x", "7"]}), Task("w", "?", secret={"answer": "Paris"})
    assert fitting_checks([number]) == ["numeric", "exact", "normalised", "flexible", "none"]
    assert fitting_checks([number, word]) == ["exact", "normalised", "none"]
    assert fitting_checks([SKY]) == ["exact", "normalised", "choice", "none"] and fitting_checks([CODE]) == ["none"]
    assert misfit("numeric", [number, word, CODE]) is word and misfit("none", [CODE]) is None
    assert check_scorers("none") == () and [each.__name__ for each in check_scorers("choice")] == ["choice"]


def test_a_data_set_of_long_texts_is_offered_its_checks_without_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match, "same_words", None)  # it takes milliseconds a text, and the page seconds
    assert fitting_checks([Task("w", "?", secret={"answer": "word " * 9}), SKY]) == ["exact", "normalised", "none"]


def test_a_check_that_cannot_judge_a_task_is_refused_and_not_offered(tmp_path: Path) -> None:
    access = Access()
    access.port = PORT
    trace = Trace("t", "b", CODE.id, {"name": "a"}, 0, 0, "", 1.0, place="p")
    with store.create(tmp_path, {}, "r") as run:
        run.add_tasks("b", [CODE])
        TaskCollections(SqliteStore(tmp_path)).add("code", run, [trace])
    agents = {"m": Agent("m", Scripted(lambda messages, sampling, index: ""), reply)}
    with TestClient(create_app(tmp_path, access, agents), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        assert re.search('name="check">(.*?)</select>', client.get("/data-sets/code").text).group(1) == (  # type: ignore[union-attr]
            "<option>none</option>"
        )
        before = len(store.list_runs(tmp_path))
        answer = client.post("/data-sets/code/run", data={"model": "m", "check": "exact"}, headers=OWN)
        assert answer.status_code == 400 and "the check exact accepts no answer to the task" in answer.text
        assert "HumanEval/0" in answer.text and len(store.list_runs(tmp_path)) == before


def test_tasks_of_one_id_are_removed_exported_and_put_one_by_one(tmp_path: Path) -> None:
    first, second = (Task("t", prompt, secret={"answer": "5"}) for prompt in ("2 + 3?", "1 + 4?"))
    sets = TaskCollections(SqliteStore(tmp_path))
    for task in (first, second, replace(first, id="u")):
        with store.create(tmp_path, {}, "r") as run:
            run.add_tasks("b", [task])
            trace = Trace("i", "b", task.id, {"name": "a"}, 0, 0, "", 1.0, place="p")
            assert [sets.add("d", run, [trace]) for _ in range(2)] == [1, 0]
    found = sets.get("d")
    keys = [each.key for each in found.tasks]
    assert len(set(keys)) == 3 and all(re.fullmatch("[0-9a-f]{16}", each) for each in keys)
    assert [each.id for each in found.to_put()] == [f"t {keys[0]}", f"t {keys[1]}", "u"]
    assert [json.loads(line)["id"] for line in as_lines(found).splitlines()] == [each.id for each in found.to_put()]
    with pytest.raises(ConfigError, match=r"^2 tasks of 'd' have the id 't': open the data set again and remove one$"):
        sets.remove("d", "b", "t")
    sets.remove("d", "b", "t", keys[2])
    assert len(sets.get("d").tasks) == 3, "the key of another task takes nothing out"
    sets.remove("d", "b", "t", keys[1])
    assert [each.task.prompt for each in sets.get("d").tasks] == ["2 + 3?", "2 + 3?"]
    assert [each.id for each in sets.get("d").to_put()] == ["t", "u"]
    access = Access()
    access.port = PORT
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        assert f'name="key" value="{keys[0]}"' in client.get("/data-sets/d").text
        client.post("/data-sets/d/remove", data={"benchmark": "b", "task": "t", "key": keys[1]}, headers=OWN)
        assert len(sets.get("d").tasks) == 2
        client.post("/data-sets/d/remove", data={"benchmark": "b", "task": "t", "key": keys[0]}, headers=OWN)
    assert [each.task.id for each in sets.get("d").tasks] == ["u"]


def test_tasks_of_one_id_from_two_benchmarks_are_two_places_of_a_run() -> None:
    twins = collected(Task("1", "2 + 2?"), Task("1", "2 + 2?"))
    assert len({each.id for each in twins.to_put()}) == 2


def test_a_run_that_the_studio_starts_has_a_place_for_each_task_of_one_id(tmp_path: Path) -> None:
    sets = TaskCollections(SqliteStore(tmp_path))
    for prompt in ("2 + 3?", "1 + 4?"):
        with store.create(tmp_path, {}, "r") as run:
            run.add_tasks("b", [Task("t", prompt, secret={"answer": "5"})])
            sets.add("d", run, [Trace("i", "b", "t", {"name": "a"}, 0, 0, "", 1.0, place="p")])
    access = Access()
    access.port = PORT
    agents = {"m": Agent("m", Scripted(lambda messages, sampling, index: "5"), reply)}
    app = create_app(tmp_path, access, agents)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as client:
        client.get("/enter", params={"code": access.new_code()})
        made = client.post("/data-sets/d/run", data={"model": "m"}, headers=OWN, follow_redirects=False)
        assert client.portal is not None
        client.portal.call(app.state.playground.settled)
    with store.open_run(made.headers["location"].removeprefix("/runs/"), tmp_path) as run:
        assert {row.task_id for row in run.rows()} == {f"t {each.key}" for each in sets.get("d").tasks}


def test_several_accepted_answers_are_written_as_a_target_that_a_benchmark_of_ones_own_reads(tmp_path: Path) -> None:
    accepted = Task("s", "Capital?", secret={"answers": ["", "Paris", "Paname"]})
    wanted = Task("all", "Which?", ("red", "blue", "green"), secret={"answers": ["A", "C"], "match": "all"})
    both = Task("both", "?", secret={"answer": "y", "answers": ["x", "y"]})
    lines = as_lines(collected(accepted, wanted, both, SKY))
    told = [(row["target"], row.get("answers")) for row in map(json.loads, lines.splitlines())]
    assert told == [("Paris", ["", "Paris", "Paname"]), ("A, C", ["A", "C"]), ("y", ["x", "y"]), ("A", None)]
    (tmp_path / "tasks.jsonl").write_text(lines)
    about = tmp_path / "tasks.toml"
    about.write_text('data = "tasks.jsonl"\nprompt = "{prompt}"\ntarget = "{target}"\nid = "{id}"\n')
    assert [task.secret["answer"] for task in catalog.benchmark(str(about)).tasks(0)] == ["Paris", "A, C", "y", "A"]
    (tmp_path / "tasks.jsonl").write_text(as_lines(collected(SKY, CODE)))
    with pytest.raises(DataError, match=r"tasks\.jsonl, line 2: target"):  # a task that no text can judge is named
        catalog.benchmark(str(about)).tasks(0)


def test_the_page_of_a_data_set_shows_every_accepted_answer_and_finds_its_checks_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def counted(tasks: Any) -> Any:
        found.append(len(tasks))
        return fitting_checks(tasks)

    monkeypatch.setattr(answer_checks, "fitting_checks", counted)
    sets = TaskCollections(SqliteStore(tmp_path))
    with store.create(tmp_path, {}, "r") as run:
        run.add_tasks("b", [Task("s", "Capital?", secret={"answers": ["Paris", "Paname"]}), SKY])
        traces = [Trace("i", "b", each, {"name": "a"}, 0, 0, "", 1.0, place="p") for each in ("s", SKY.id)]
        sets.add("d", run, traces[:1])
        access = Access()
        access.port = PORT
        agents = {"m": Agent("m", Scripted(lambda messages, sampling, index: ""), reply)}
        with TestClient(create_app(tmp_path, access, agents), base_url=f"http://127.0.0.1:{PORT}") as client:
            client.get("/enter", params={"code": access.new_code()})
            first, second = (client.get("/data-sets/d").text for _ in range(2))
            assert "<td>&#34;Paris&#34; or &#34;Paname&#34;</td>" in first and first == second and found == [1]
            sets.add("d", run, traces)
            assert "<td>A: blue</td>" in client.get("/data-sets/d").text and found == [1, 2]


def test_the_checks_of_a_data_set_are_those_of_its_tasks_as_they_stand() -> None:
    offered, word = OfferedChecks(), Task("w", "?", secret={"answer": "Paris"})
    for name, tasks in (("a", [word]), ("b", [CODE]), ("a", [word]), ("a", [CODE]), ("b", [SKY])):
        assert offered.of(name, tasks) == fitting_checks(tasks), name
    # what JSON has no form for is compared as text
    assert offered.of("c", [replace(word, metadata={"at": Path("x")})]) == fitting_checks([word])


def test_a_sample_of_inspect_with_choices_is_judged_by_its_choice() -> None:
    sample = {"id": "q", "input": "Which colour has the sky?", "choices": ["blue", "red"], "target": "A"}
    task, _ = attempt_of(sample, "b", "m")
    assert fitting_checks([task]) == ["exact", "normalised", "choice", "none"]
    assert "'choice', 1.0)" in as_regression_test(collected(task))
    several, _ = attempt_of({**sample, "target": ["A", "B"]}, "b", "m")
    assert fitting_checks([several]) == ["none"]
    with pytest.raises(ConfigError, match="task q has no right choice"):
        as_regression_test(collected(several))


def test_a_check_is_tried_beside_the_event_loop_and_the_trials_under_way_are_counted_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    both = threading.Barrier(2, timeout=5)  # each waits for the other's check: in the event loop neither would end

    def slow(check: Any, tasks: Any) -> Task | None:
        threads.append(threading.get_ident())
        both.wait()
        return misfit(check, tasks)

    monkeypatch.setattr(playground, "misfit", slow)
    monkeypatch.setattr(playground, "MOST_UNDER_WAY", 1)
    agents = {"m": Agent("m", Scripted(lambda messages, sampling, index: "A"), reply)}
    place = playground.Playground(tmp_path, agents)

    async def twice() -> list[Any]:
        made = [place.start_tasks("d", [SKY], ["m"], "choice") for _ in range(2)]
        ended = await asyncio.gather(*made, return_exceptions=True)
        await place.settled()
        return [*ended, threading.get_ident()]

    one, other, own = asyncio.run(twice())
    assert own not in threads and sum(isinstance(each, str) for each in (one, other)) == 1
    assert any("trials are under way" in str(each) for each in (one, other) if isinstance(each, ConfigError))


@pytest.mark.parametrize(
    ("score", "bar"), [(7.5, 1.0), (1.0, 1.0), (0.5, 0.5), (0.0, 0.0), (-2.0, 0.0), (float("nan"), 1.0), (None, 1.0)]
)
def test_the_bar_of_a_pytest_file_is_one_that_its_scores_can_reach(score: float | None, bar: float) -> None:
    each = CollectedTask(Task("t", "What is 3 + 4?", secret={"answer": "7"}), "b", "r", "p", "7", score)
    assert f"'flexible', {bar}),\n" in as_regression_test(TaskCollection("d", (each,), 1))
