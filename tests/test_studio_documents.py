"""What people make in the Studio, each method called by itself: documents, prompts, notes, queues and data sets."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.studio import task_collection
from firsthand.studio.annotation_queue import AnnotationQueue, Label, Queues, QueueState, _most_in_common
from firsthand.studio.answer_checks import check_of
from firsthand.studio.project_store import ProjectStore, check_project
from firsthand.studio.prompt_library import PromptLibrary, PromptVersion
from firsthand.studio.run_notes import RunNote, RunNotes
from firsthand.studio.studio_store import SqliteStore, StoredItem, expect_version, stored_body
from firsthand.studio.task_collection import CollectedTask, TaskCollections, _plain, _read, as_lines
from firsthand.task import Task


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = SqliteStore(tmp_path / "home")
    yield made
    made.close()


def test_documents_are_written_whole_or_not_at_all_and_faults_are_sentences(store: SqliteStore, tmp_path: Path) -> None:
    assert store.logged("a") == [] and not store.remove("a", "\n") and not store.path.exists()
    assert store.put("a", "k", {"n": 1}) == 1 and store.path == tmp_path / "home" / "studio.sqlite"
    with pytest.raises(KeyError), store._write() as connection:
        connection.execute("DELETE FROM items")
        raise KeyError("x")
    (item,) = store.items("a")
    assert (
        store.get("a", "k") == item == StoredItem("k", {"n": 1}, 1, item.at) and not store._connected().in_transaction
    )
    assert store._connected() is store._connected() and store._connected().execute(
        "PRAGMA journal_mode"
    ).fetchone() == ("wal",)
    assert store._connected().execute("PRAGMA user_version").fetchone() == (1,)
    for sql, says in (("SELECT", f"{store.path} cannot be used: incomplete input"),
                      ("SELECT x", f"{store.path} cannot be used: no such column: x")):  # fmt: skip
        with pytest.raises(StoreError) as said:
            store._read(sql, ())
        assert str(said.value) == says
    expect_version("a", "k", None, 5)
    expect_version("a", "k", 5, 5)
    for version, says in (
        (0, "is there already"),
        (4, "was changed in the meantime"),
        (6, "was changed in the meantime"),
    ):
        with pytest.raises(ConfigError) as refused:
            expect_version("p/q/saved view", "k" * 61, version, 5)
        assert str(refused.value) == f"the saved view '{'k' * 60}' {says}: open it again and repeat your change"
    assert stored_body("k", '{"a": [1]}') == {"a": [1]}
    for text in ("", "[1]", "3", "null", "{", None):
        with pytest.raises(StoreError) as said:
            stored_body("k" * 61, text)  # type: ignore[arg-type]
        assert str(said.value) == (
            f"the store's row '{'k' * 60}' holds no JSON object: another program has written it; delete it"
        )
    store.close()
    store.close()
    assert store.get("a", "k") == item
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"studio\.sqlite cannot be made: File exists$"):
        SqliteStore(tmp_path / "file").put("a", "k", {})
    (tmp_path / "studio.sqlite").write_text("no database " * 200)
    with pytest.raises(StoreError, match="cannot be used: file is not a database"):
        SqliteStore(tmp_path).items("a")
    newer = tmp_path / "newer"
    newer.mkdir()
    with sqlite3.connect(newer / "studio.sqlite") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(StoreError) as said:
        SqliteStore(newer).put("a", "k", {})
    assert str(said.value) == f"{newer / 'studio.sqlite'} was written by a newer firsthand (schema 7): update firsthand"


def test_projects_prompts_and_notes_are_kept_by_name_and_version(store: SqliteStore) -> None:
    for name in ("", "x" * 65, "a/b", ".a", "é", "a\n"):
        with pytest.raises(ConfigError) as said:
            check_project(name)
        assert str(said.value) == f"project is {name[:60]!r}: use up to 64 letters, digits and . _ -"
    with pytest.raises(ConfigError, match="project is 'a b'"):
        ProjectStore(store, "a b")
    one = ProjectStore(store, "0.a_-" + "x" * 59)
    assert (one._kind("queue"), one._kind("account"), one._kind("api-key")) == (
        f"{one.project}/queue",
        "account",
        "api-key",
    )
    prompts = PromptLibrary(store)
    assert [prompts.add("p", "one", "ann", "n" * 401), prompts.add("p", "two", "bob", after=1),
            prompts.add("p", "two", "cat"), prompts.add("p", "one", "dan", after=2), 
            prompts.add("a", "x" * 50_000, "eve", after=0)] == [1, 2, 2, 3, 1]  # fmt: skip
    versions = prompts.versions("p")
    assert [(each.number, each.text, each.by, each.note) for each in versions] == [
        (1, "one", "ann", "n" * 400), (2, "two", "bob", ""), (3, "one", "dan", ""),
    ]  # fmt: skip
    assert versions[1] == PromptVersion(2, "two", versions[1].at, "bob", "") and prompts.names() == ["a", "p"]
    assert [prompts.text(each) for each in ("p", "p@2", "p@1")] == [("p", 3, "one"), ("p", 2, "two"), ("p", 1, "one")]
    for action, says in (
        (lambda: prompts.text("p@0"), "the prompt 'p' has no version 0: it has 1 to 3"),
        (lambda: prompts.text("p@4"), "the prompt 'p' has no version 4: it has 1 to 3"),
        (lambda: prompts.text("q@1"), "no prompt 'q'"), (lambda: prompts.versions("z" * 61), f"no prompt '{'z' * 60}'"),
        (lambda: prompts.add("a/b", "x", "ann"), "'a/b' is no name of a prompt: leave the slash out"),
        (lambda: prompts.add("p", " \n", "ann"), "the prompt has 2 characters: give 1 to 50,000"),
        (lambda: prompts.add("p", "x" * 50_001, "ann"), "the prompt has 50,001 characters: give 1 to 50,000"),
        (lambda: prompts.add("p", "x", "ann", after=2), "the prompt 'p' has 3 versions by now: open it again"),
    ):  # fmt: skip
        with pytest.raises((ConfigError, UnknownName)) as refused:
            action()
        assert str(refused.value) == says
    store.put("prompt", "full", {"versions": [{"text": "x", "at": "", "by": "", "note": ""}] * 500})
    with pytest.raises(ConfigError, match="the prompt 'full' has 500 versions: begin another"):
        prompts.add("full", "y", "ann")
    for name in ("s@2", "@2", "p@1"):
        with pytest.raises(
            ConfigError, match=f"^{name!r} is no name of a prompt: NAME@NUMBER is a version of one, so "
        ):
            prompts.add(name, "x", "ann")
    assert [prompts.add(name, "x", "ann") for name in ("ann@home", "s@٢", "s@2.0", "7")] == [1] * 4
    body = {"versions": [{"text": text, "at": "", "by": "", "note": ""} for text in ("old", "new")]}
    for name in ("s@2", "p@2"):  # as 0.21 kept them
        store.put("prompt", name, body)
    assert [prompts.text(each) for each in ("s@2", "s@2@1", "p@2@1")] == [
        ("s@2", 2, "new"), ("s@2", 1, "old"), ("p@2", 1, "old"),
    ]  # fmt: skip
    store.put("prompt", "p@9", body)
    assert [prompts.text(each) for each in ("p@2", "p@1", "p@9@2")] == [
        ("p", 2, "two"), ("p", 1, "one"), ("p@9", 2, "new"),
    ]  # fmt: skip
    with pytest.raises(UnknownName) as refused:
        prompts.text("p@9")
    assert str(refused.value) == (
        "the prompt 'p' has no version 9: it has 1 to 3; the prompt 'p@9' has the versions p@9@1 and on"
    )
    wanted = prompts.references()
    assert wanted == ["7", "a", "ann@home", "full", "p", "p@2@2", "p@9@2", "s@2", "s@2.0", "s@٢"]
    assert [prompts.text(each)[0] for each in wanted] == prompts.names(), "each finds the prompt that it stands for"
    assert prompts.add("s@2", "newer", "ann") == 3
    notes = RunNotes(store)
    notes.keep("r", " a\r\nb \n", "ann", 0)
    notes.keep("s", "x" * 10_000, "bob", 0)
    notes.keep("e", "  ", "bob", 0)
    kept = notes.get("r")
    assert (
        kept == RunNote("a\nb", "ann", kept.at, 1)
        and kept.at[:2] == "20"
        and notes.get("none") == RunNote("", "", "", 0)
    )
    assert {run: note.by for run, note in notes.all().items()} == {"r": "ann", "s": "bob"} and notes.get(
        "e"
    ).version == 1
    for text, version, says in (("x" * 10_001, 1, "the note has 10,001 characters: at most 10,000 are kept"),
                                ("new", 0, "the run-note 'r' is there already: open it again and repeat your change"),
                                ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            notes.keep("r", text, "cat", version)
        assert str(refused.value) == says


def test_a_queue_hands_out_counts_and_compares(store: SqliteStore) -> None:
    queues = Queues(store)
    queue = AnnotationQueue("q", "r", ("a", "b", "c", "d"), "good", 2, 2, "Look")
    queues.make(queue)
    assert queues.get("q") == queue and queues.names() == ["q"] and [queue.wanted(n) for n in range(4)] == [2, 2, 1, 1]
    assert queues.state("q") == QueueState(queue, (), 0, (), 0, None, None, 0, ())
    steps = [queues.next_item("q", "ann", now=0.0), queues.next_item("q", "bob", now=1.0),
             queues.next_item("q", "cat", now=2.0),
             queues.next_item("q", "cat", now=600.0), queues.next_item("q", "cat", skip=["a", "b"], now=3.0)]  # fmt: skip
    assert steps == ["a", "a", "b", "a", "c"], "an item that ann had open is free after ten minutes"
    for place, rater, value, text in (("a", "bob", 0.0, "no"), ("a", "ann", 1.0, "yes"), ("b", "ann", 0.75, ""),
                                      ("d", "cat", 0.5, ""), ("b", "bob", 0.25, "hm")):  # fmt: skip
        queues.rate("q", place, rater, value, text)
    held = [(item.body["place"], item.body["rater"]) for item in store.items("open-item q")]
    assert held == [("c", "cat")], "one each"
    labels = tuple(Label(*each, 1) for each in (("a", "ann", 1.0, "yes"), ("a", "bob", 0.0, "no"), ("b", "ann", 0.75, ""),
                                                ("b", "bob", 0.25, "hm"), ("d", "cat", 0.5, "")))  # fmt: skip
    assert tuple(queues.labels("q")) == labels and queues.label("q", "b", "bob") == labels[3]
    assert queues.label("q", "b", "cat") is None and queues.labels("none") == []
    state = queues.state("q")
    assert (state.done, state.by_rater, state.pairs, state.same) == (
        3,
        (("ann", 2, 0.875), ("bob", 2, 0.125), ("cat", 1, 0.5)),
        2,
        0,
    )
    assert state.disagreements == (("a", labels[:2]), ("b", labels[2:4])) and state.labels == labels
    assert queues.next_item("q", "ann", now=700.0) == "c" and queues.next_item("q", "bob", now=701.0) is None
    queues.rate("q", "b", "bob", 0.75, "so", version=1)
    changed = queues.state("q")
    assert (changed.same, [place for place, _ in changed.disagreements], changed.kappa) == (
        1, ["a"], pytest.approx(-3 / 13),
    )  # fmt: skip
    for action, says in (
        (lambda: queues.rate("q", "z" * 41, "ann", 1), f"the queue 'q' has no attempt '{'z' * 40}'"),
        (lambda: queues.rate("q", "a", "ann", 1.5), "the label is 1.5: a number from 0 to 1 was expected"),
        (lambda: queues.get("x" * 61), f"no queue '{'x' * 60}'"),
        (lambda: queues.make(queue), "the queue 'q' is there already: open it again and repeat your change"),
        (lambda: AnnotationQueue("q", "r", ("a",) * 5001, "g"), "the queue has 5,001 attempts: at most 5,000 are taken"),
    ):  # fmt: skip
        with pytest.raises((ConfigError, UnknownName)) as refused:
            action()
        assert str(refused.value) == says
    rated = {"ann": {"a": 1.0, "b": 1.0}, "cat": {"b": 1.0, "c": 1.0}, "bob": {"b": 0.0, "c": 0.0}, "dan": {"z": 1.0}}
    assert _most_in_common(rated) == ("bob", "cat") and _most_in_common({"a": {"x": 1.0}, "b": {"y": 1.0}}) is None


def test_a_data_set_keeps_received_tasks_with_what_was_said_before(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = TaskCollections(store)
    row = {"id": "T1", "question": "Q?", "answer": "a" * 2001, "system": "Be brief", "history": [], "cluster": "s1"}
    assert sets.add_received("s", [row, {**row, "question": "Other?"}, row]) == 2 and sets.add_received("s", [row]) == 0
    found = sets.get("s")
    task = Task(
        "T1", "Q?", (), hint="", secret={"answer": "a" * 2001}, metadata={"system": "Be brief", "cluster": "s1"}
    )
    assert found.tasks[0] == CollectedTask(task, "traces", "", "T1", "a" * 2000, None)
    assert (found.name, found.version, len(found.tasks), sets.all()) == ("s", 2, 2, [found])
    body = {"benchmark": "quiz", "id": "t", "prompt": "P", "choices": ["x", "y"], "hint": "h", "secret": {"answer": "x"},
            "metadata": {"m": 1}, "run": "r", "place": "p", "answer": "z", "score": 0.5}  # fmt: skip
    one = CollectedTask(
        Task("t", "P", ("x", "y"), hint="h", secret={"answer": "x"}, metadata={"m": 1}), "quiz", "r", "p", "z", 0.5
    )
    assert _read("n", {"tasks": [body]}, 3) == task_collection.TaskCollection("n", (one,), 3)
    assert as_lines(_read("n", {"tasks": [body]}, 3)) == (
        '{"id": "t", "prompt": ' + f'"{one.task.question}"'.replace("\n", "\\n") + ', "target": "x", '
        '"from": {"run": "r", "attempt": "p"}}\n'
    )
    sets.remove("s", "quiz", "T1")
    assert len(sets.get("s").tasks) == 2
    for each in sets.get("s").tasks:
        sets.remove("s", "traces", "T1", each.key)
    assert sets.all() == []
    monkeypatch.setattr(task_collection, "MAX_TASKS", 2)
    assert sets._put("two", [body, {**body, "id": "u"}]) == 2
    for action, says in (
        (lambda: sets._put("two", [{**body, "benchmark": "other"}]), "the data set would have 3 tasks: at most 2 are kept"),
        (lambda: sets._put("a/b", []), "'a/b' is no name of a data set: leave the slash out"),
        (lambda: sets.get("none"), "no data set 'none'"), (lambda: sets.remove("none", "a", "b"), "no data set 'none'"),
        (lambda: sets.add_received("s", [{**row, "question": " "}]),
         "trace T1 has no question, so no task can be made of it"),
        (lambda: check_of("x" * 41),
         f"the check is '{'x' * 40}': it is one of numeric, exact, normalised, flexible, choice, none"),
    ):  # fmt: skip
        with pytest.raises((ConfigError, UnknownName)) as refused:
            action()
        assert str(refused.value) == says
    assert check_of("flexible") == "flexible" and _plain({"a": (1,), "p": Path("x"), 3: None}) == {
        "a": [1],
        "p": "x",
        "3": None,
    }
