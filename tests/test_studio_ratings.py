"""What people keep of runs and attempts: queues, prompts, data sets and notes; and lists with their filters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, UnknownName
from firsthand.runs import store as runs
from firsthand.runs.index import RunInfo
from firsthand.runs.score_totals import ScoreMean
from firsthand.studio.annotation_queue import AnnotationQueue, Queues, queue_of_form
from firsthand.studio.answer_checks import check_of
from firsthand.studio.attempt_query import AttemptQuery
from firsthand.studio.prompt_library import PromptLibrary, compared_first, tried_in
from firsthand.studio.regression_test import as_regression_test
from firsthand.studio.run_list import earlier_run, run_page
from firsthand.studio.run_notes import RunNote, RunNotes
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.task_collection import MAX_TASKS, TaskCollections, as_lines
from firsthand.studio.views.attempt_views import add_note, check_note
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = SqliteStore(tmp_path)
    yield made
    made.close()


def test_items_go_to_raters_so_that_none_gets_more_than_are_asked_for(store: SqliteStore) -> None:
    queues = Queues(store)
    queues.make(AnnotationQueue("q", "run", ("a", "b", "c"), "good", raters=2, shared=2))
    queue = queues.get("q")
    assert queue.items == ("a", "b", "c") and [queue.wanted(at) for at in range(3)] == [2, 2, 1]
    with pytest.raises(ConfigError, match="is there already"):
        queues.make(queue)
    assert queues.next_item("q", "ann", now=0.0) == "a" and queues.next_item("q", "ann", now=1.0) == "a"
    assert queues.next_item("q", "bob", now=1.0) == "a", "what somebody has begun comes first"
    assert queues.next_item("q", "cat", now=2.0) == "b", "two have it open"
    assert queues.next_item("q", "cat", now=700.0) == "a", "what was left open is free again"
    queues.rate("q", "a", "ann", 1.0, "fine")
    queues.rate("q", "a", "bob", 0.5)
    assert (
        queues.next_item("q", "ann", now=2000.0) == "b" and queues.next_item("q", "ann", skip=["b"], now=2000.0) == "c"
    )
    queues.rate("q", "c", "bob", 0.0)
    assert (
        queues.next_item("q", "ann", skip=["b"], now=4000.0) is None and queues.next_item("q", "bob", now=4000.0) == "b"
    )
    label = queues.label("q", "a", "ann")
    assert (
        label is not None
        and (label.value, label.text, label.version) == (1.0, "fine", 1)
        and queues.label("q", "a", "cat") is None
    )
    queues.rate("q", "a", "ann", 0.75, version=1)
    with pytest.raises(ConfigError, match="was changed in the meantime"):
        queues.rate("q", "a", "ann", 0.5, version=1)
    for place, value, error in (("z", 0.5, UnknownName), ("a", 1.01, ConfigError), ("a", -0.01, ConfigError)):
        with pytest.raises(error):
            queues.rate("q", place, "ann", value)
    for call in (queues.get, queues.state):
        with pytest.raises(UnknownName, match="no queue 'x'"):
            call("x")
    assert queues.labels("x") == [] and queues.names() == ["q"]


def test_the_agreement_of_raters_is_that_of_items_with_two_labels(store: SqliteStore) -> None:
    from firsthand.stats.rater_agreement import cohen_kappa, krippendorff_alpha

    queues = Queues(store)
    queues.make(AnnotationQueue("q", "run", ("a", "b", "c", "d"), "good", raters=2))
    said = {"ann": {"a": 1.0, "b": 0.5, "c": 0.0}, "bob": {"a": 1.0, "b": 0.0, "c": 0.5}, "cat": {"a": 0.0, "d": 1.0}}
    for rater, labels in said.items():
        for place, value in labels.items():
            queues.rate("q", place, rater, value)
    state = queues.state("q")
    assert (state.done, state.pairs, state.same) == (3, 3, 0)
    assert state.by_rater == (("ann", 3, 0.5), ("bob", 3, 0.5), ("cat", 2, 0.5))
    assert state.alpha == pytest.approx(krippendorff_alpha([[1.0, 1.0, 0.0], [0.5, 0.0], [0.0, 0.5]], level="interval"))
    assert state.kappa == pytest.approx(cohen_kappa([1.0, 0.5, 0.0], [1.0, 0.0, 0.5], weights="interval"))
    assert [(place, len(found)) for place, found in state.disagreements] == [("a", 3), ("b", 2), ("c", 2)] and len(
        state.labels
    ) == 8
    queues.make(AnnotationQueue("one", "run", ("a",), "good"))
    bare = queues.state("one")
    assert (bare.done, bare.by_rater, bare.pairs, bare.alpha, bare.kappa, bare.same) == (0, (), 0, None, None, 0)


def test_a_queue_is_what_its_form_says(store: SqliteStore) -> None:
    form = {"name": " q ", "run": "r", "score": " good ", "raters": " 3 ", "shared": "", "guide": "g" * 5000}
    assert queue_of_form(form, ["a"]) == AnnotationQueue("q", "r", ("a",), "good", 3, 0, "g" * 4000)
    assert (
        queue_of_form({"raters": ""}, ["a"]).raters == 1
        and AnnotationQueue("q", "r", ("a",) * 5000, "s", 10).raters == 10
    )
    for change, items, said in (
        ({"raters": "x"}, ["a"], "raters is 'x': a whole number"), ({"shared": "-1"}, ["a"], "shared is '-1'"),
        ({"raters": "1234567"}, ["a"], "raters is"),
        ({"raters": "11"}, ["a"], "raters is 11: give 1 to 10"), ({"raters": "0"}, ["a"], "raters is 0"),
        ({}, [], "the queue has no attempts"),
        ({}, ["a"] * 5001, "the queue has 5,001 attempts: at most 5,000"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            queue_of_form(form | change, items)
    with pytest.raises(ConfigError, match="leave the slash out"):
        Queues(store).make(AnnotationQueue("a/b", "r", ("a",), "s"))


def test_a_prompt_keeps_its_versions(store: SqliteStore) -> None:
    prompts = PromptLibrary(store)
    assert [prompts.add("p", text, "ann", "n" * 500) for text in ("one", "two", "two", "one")] == [1, 2, 2, 3]
    versions = prompts.versions("p")
    assert [(each.number, each.text, each.by, len(each.note)) for each in versions] == [
        (1, "one", "ann", 400), (2, "two", "ann", 400), (3, "one", "ann", 400),
    ]  # fmt: skip
    prompts.add("a@b", "mail", "ann")
    assert [prompts.text(name) for name in ("p", "p@2", "a@b", "a@b@1")] == [
        ("p", 3, "one"), ("p", 2, "two"), ("a@b", 1, "mail"), ("a@b", 1, "mail"),
    ]  # fmt: skip
    for name, said in (
        ("p@0", "has no version 0: it has 1 to 3"), ("p@4", "has no version 4"), ("x", "no prompt 'x'"),
        ("p@x", "no prompt 'p@x'"), ("a@1", "no prompt 'a'"),
    ):  # fmt: skip
        with pytest.raises(UnknownName, match=said):
            prompts.text(name)
    assert prompts.add("p", "four", "bob", after=3) == 4
    for text, after, said in (
        ("y", 3, "has 4 versions by now"),
        (" ", None, "the prompt has 1 characters"),
        ("x" * 50_001, None, "has 50,001"),
    ):
        with pytest.raises(ConfigError, match=said):
            prompts.add("p", text, "ann", after=after)
    with pytest.raises(ConfigError, match="leave the slash out"):
        prompts.add("a/b", "x", "ann")
    assert prompts.add("long", "x" * 50_000, "ann") == 1 and prompts.names() == ["a@b", "long", "p"]
    store.put("prompt", "full", {"versions": [{"text": "x", "at": "", "by": "", "note": ""}] * 500})
    with pytest.raises(ConfigError, match="has 500 versions: begin another"):
        prompts.add("full", "y", "ann")

    def info(id: str, version: Any, *means: float | None, name: str = "p") -> RunInfo:
        scores = tuple(ScoreMean("b", f"a{n}", mean, 1) for n, mean in enumerate(means))
        return RunInfo(id, Path(id), config={"prompt": name, "prompt_version": version}, scores=scores)

    found = tried_in(
        "p",
        [
            info("r1", 1, 0.5, 1.0, None),
            info("r2", 2),
            info("r3", 2, None),
            info("r4", "2", 1.0),
            info("r5", 3, 1.0, name="q"),
        ],
    )
    assert [(each.info.id, each.version, each.score) for each in found] == [
        ("r2", 2, None),
        ("r3", 2, None),
        ("r1", 1, 0.75),
    ]


def test_the_runs_that_are_compared_first_are_of_the_last_two_versions_tried_alike() -> None:
    def first(*tried: tuple[int, str, str, str]) -> str:
        """The ids of the runs, in letters, of versions tried on a data set, with a model and a check, the newest first."""
        infos = [
            RunInfo(chr(97 + at), Path("r"), config={"prompt": "p", "prompt_version": version, "data_set": data_set,
                                                     "models": [model], "check": check})
            for at, (version, data_set, model, check) in enumerate(tried)
        ]  # fmt: skip
        return "".join(compared_first(tried_in("p", infos)))

    one = (1, "s", "m", "exact")
    assert first((2, *one[1:]), one) == "ab"
    assert first((2, *one[1:]), (2, *one[1:]), one, one) == "ac", "a repeat of a version is not the other one"
    assert first(one, (2, *one[1:])) == "ba", "an older version may have the newest run"
    assert first((2, "s", "n", "exact"), (2, *one[1:]), one) == "bc", "another model"
    assert first((2, "t", "m", "exact"), (2, *one[1:]), one) == "bc", "another data set"
    assert first((2, "s", "m", "numeric"), (2, *one[1:]), one) == "bc", "another check"
    assert first((3, *one[1:]), (2, *one[1:]), one) == "ab", "not the first version"
    assert first((3, "t", "m", "exact"), (3, *one[1:]), (2, *one[1:]), (1, "t", "m", "exact")) == "bc"
    assert first((3, "t", "m", "exact"), (2, *one[1:]), one) == "bc", "alike before later"
    assert first((3, "t", "m", "exact"), (3, "t", "m", "exact"), (2, *one[1:])) == "ac", "none alike"
    assert first(one, one, one) == "ab" and first(one) == "a" and first() == ""


def test_a_runs_note_is_kept_with_its_version(store: SqliteStore) -> None:
    notes = RunNotes(store)
    assert notes.get("r") == RunNote() and notes.all() == {}
    notes.keep("r", " a\r\nb ", "ann", 0)
    kept = notes.get("r")
    assert (kept.text, kept.by, kept.version) == ("a\nb", "ann", 1) and list(notes.all()) == ["r"]
    with pytest.raises(ConfigError, match="the run-note 'r' was changed in the meantime"):
        notes.keep("r", "x", "bob", 2)
    notes.keep("r", "  ", "bob", 1)
    assert notes.all() == {} and notes.get("r").version == 2
    notes.keep("s", "x" * 10_000, "ann", 0)
    with pytest.raises(ConfigError, match="the note has 10,001 characters: at most 10,000"):
        notes.keep("t", "x" * 10_001, "ann", 0)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """A run of attempts at three tasks by two agents, one of which failed."""
    with runs.create(tmp_path / "home", {"model": ["m1", "m2"]}, "some") as made:
        made.add_tasks(
            "quiz", [Task(f"t{n}", f"Q{n}?", secret={"answer": str(n)}, metadata={"at": "x"}) for n in range(3)]
        )
        made.add_tasks("quiz", [Task("secret", "S?", metadata={"protected": "licence"})])
        for name, model in (("ann", "llama-3"), ("bob", "qwen")):
            made.add_agent(name, {"name": name, "model": model})
        for n, (agent, task, score, error, stop) in enumerate((
            ("ann", "t0", 1.0, None, "done"), ("ann", "t1", 0.5, None, "tokens"),
            ("ann", "t2", None, Failure("E", "The net broke"), "error"),
            ("bob", "t0", 0.0, None, "done"), ("bob", "t1", 1.0, None, "done"),
        )):  # fmt: skip
            scores = () if score is None else (Score("exact", score), Score("also", 1 - score))
            made.append(Trace(f"x{n}", "quiz", task, {"name": agent, "model": "?"}, 0, 0, "then", float(n),
            answer=f"A{n}", error=error,
                              stop_reason=stop, scores=scores, place=f"place{n}"))  # fmt: skip
        yield made


def test_attempts_are_filtered_sorted_paged_and_counted(run: Any) -> None:
    def found(text: str = "", sort: str = "", **options: int) -> list[str]:
        return [row.place for row in AttemptQuery.parse(text, sort).page(run.database, **options).rows]

    for text, places in (
        ("", "01234"), ("agent:ann", "012"), ("agent=an", ""), ("agent=ANN", "012"), ("-agent:ann", "34"),
        ("model:llama", "012"), ("-model:llama", "34"),
        ("model=qwen", "34"), ("score>=1", "04"), ("score<1", "13"), ("-score<1", "04"),
        ("has:error", "2"), ("-has:error", "0134"), ("has:score", "0134"), ("has:limit", "1"), ("is:right", "04"),
        ("is:wrong", "13"),
        ("is:failed", "2"), ("task:t1", "14"), ("stop=tokens", "1"), ("NET", "2"), ("-net", "0134"), ("error:broke", "2"),
        ("seconds>2", "34"),
        ("id:place3", "3"), ("id:x4", "4"), ("id:x", "01234"), ("epoch:0 bob", "34"), ("tokens>0", ""), ("has:note", ""),
    ):  # fmt: skip
        assert found(text) == [f"place{each}" for each in places], text
    assert found(sort="-finished") == [f"place{each}" for each in "43210"] and found(sort="score") == [
        f"place{each}" for each in "31042"
    ]
    assert found(sort="-score") == [f"place{each}" for each in "04132"] and found(
        sort="-seconds", limit=2, start=1
    ) == ["place3", "place2"]
    page = AttemptQuery.parse("").page(run.database, start=3, limit=2)
    assert (page.total, page.start, page.next_start) == (5, 3, None) and AttemptQuery().page(
        run.database, -4, 2
    ).next_start == 2
    query = AttemptQuery.parse("agent:ann", "-seconds")
    assert [query.beside(run.database, f"place{n}") for n in (2, 1, 0, 3)] == [
        (None, "place1"), ("place2", "place0"), ("place1", None), (None, None),
    ]  # fmt: skip
    facets = AttemptQuery.parse("").facets(run.database)
    assert facets == {
        "benchmark": [("quiz", 5)], "agent": [("ann", 3), ("bob", 2)], "is": [("right", 2), ("wrong", 2), ("failed", 1)],
        "stop": [("done", 3), ("error", 1), ("tokens", 1)],
    }  # fmt: skip
    assert AttemptQuery.parse("").facets(run.database, 1)["agent"] == [("ann", 3)]
    with pytest.raises(ConfigError, match="attempts cannot be sorted by '-error'"):
        AttemptQuery.parse("", "-error")
    trace = run.trace("place0")
    add_note(run, trace, 1, "good", "0.5", "words", by="human:ann")
    add_note(run, trace, 1, "good", "0.25", "", by="human:bob")
    assert found("has:note") == ["place0"] and found("score.note.good=0.375") == ["place0"]
    notes = [score for score in run.trace("place0").attempt_scores if score.name == "note.good"]
    assert notes[-1].detail["by"] == "human:ann, human:bob" and notes[-1].detail["text"] == "human:ann: words"


@pytest.mark.parametrize(
    "name, value, text, said",
    [
        ("", "1", "", "a note's name is ''"), ("a b", "1", "", "a note's name"), ("x" * 61, "1", "", "a note's name"),
        ("a/b", "1", "", "a note's name"),
        ("a", "1.01", "", "a note's score is '1.01'"), ("a", "-0.1", "", "a note's score"),
        ("a", "x", "", "a note's score is 'x'"),
        ("a", "nan", "", "a note's score"), ("a", "1", "t" * 4001, "the note has 4,001 characters"),
    ],
)  # fmt: skip
def test_a_note_has_a_name_a_number_and_bounded_words(name: str, value: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_note(name, value, text)
    assert check_note("x" * 60, "1", "t" * 4000) == (1.0, "t" * 4000) and check_note("a-B_1.é", "0", "") == (0.0, "")


def test_a_data_set_keeps_each_task_once_with_its_origin(store: SqliteStore, run: Any) -> None:
    sets = TaskCollections(store)
    assert (
        sets.add("d", run, [run.trace("place0"), run.trace("place3"), run.trace("place1")]) == 2
        and sets.add("d", run, [run.trace("place0")]) == 0
    )
    found = sets.get("d")
    assert [(each.task.id, each.task.question, each.benchmark, each.place, each.answer,
    each.score) for each in found.tasks] == [
        ("t0", "Q0?", "quiz", "place0", "A0", 1.0), ("t1", "Q1?", "quiz", "place1", "A1", 0.5),
    ]  # fmt: skip
    assert (
        found.tasks[0].task.secret["answer"] == "0"
        and found.tasks[0].task.metadata == {"at": "x"}
        and found.tasks[0].run == run.id
    )
    assert [json.loads(line) for line in as_lines(found).splitlines()][1] == {
        "id": "t1", "prompt": "Q1?", "target": "1", "from": {"run": run.id, "attempt": "place1"},
    }  # fmt: skip
    received = {"id": "r1", "question": "R?", "answer": "é" * 2001, "system": "S", "history": [], "cluster": "c"}
    assert sets.add_received("d", [received, {**received, "id": "r2"}]) == 2
    task = sets.get("d").tasks[2]
    assert (task.benchmark, task.place, len(task.answer), task.score, task.task.secret["answer"]) == (
        "traces",
        "r1",
        2000,
        None,
        "é" * 2001,
    )
    assert task.task.metadata == {"system": "S", "cluster": "c"}
    with pytest.raises(ConfigError, match="trace r3 has no question"):
        sets.add_received("d", [{**received, "id": "r3", "question": " "}])
    for trace, said in (
        (replace(run.trace("place0"), task_id="none"), "does not hold the task 'none'"),
        (replace(run.trace("place0"), task_id="secret"), "is protected"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            sets.add("d", run, [trace])
    many = [{**received, "id": f"m{n}", "answer": ""} for n in range(MAX_TASKS + 1)]
    assert sets.add_received("full", many[:MAX_TASKS]) == MAX_TASKS
    with pytest.raises(ConfigError, match="the data set would have 2,001 tasks: at most 2,000 are kept"):
        sets.add_received("full", many[MAX_TASKS:])
    assert sets.add_received("full", many[:1]) == 0 and [each.name for each in sets.all()] == ["d", "full"]
    for each in sets.get("d").tasks[1:]:
        sets.remove("d", each.benchmark, each.task.id)
    sets.remove("d", "other", "t0")
    assert [each.task.id for each in sets.get("d").tasks] == ["t0"]
    sets.remove("d", "quiz", "t0")
    for action in (lambda: sets.get("d"), lambda: sets.remove("d", "a", "b")):
        with pytest.raises(UnknownName, match="no data set 'd'"):
            action()
    with pytest.raises(ConfigError, match="leave the slash out"):
        sets.add("a/b", run, [run.trace("place0")])
    assert check_of("flexible") == "flexible"
    with pytest.raises(ConfigError, match=r"^the check is 'x': it is one of numeric, .*, flexible, choice, none$"):
        check_of("x")


def test_a_data_set_becomes_a_test_with_the_bar_of_each_task(store: SqliteStore, run: Any) -> None:
    sets = TaskCollections(store)
    sets.add("d", run, [run.trace("place1"), run.trace("place0")])
    numbers = as_regression_test(sets.get("d"))
    assert (
        "    ('1 t1', 'Q1?', [], {'answers': ['1']}, 'flexible', 0.5),\n"
        "    ('2 t0', 'Q0?', [], {'answers': ['0']}, 'flexible', 1.0),\n"
    ) in numbers
    sets.add_received(
        "d", [{"id": "r", "question": "R?", "answer": "Paris é", "system": "", "history": [], "cluster": ""}]
    )
    words = as_regression_test(sets.get("d"))
    assert "('3 r', 'R?', [], {'answers': ['Paris \\xe9']}, 'contains_words', 1.0)" in words
    compile(words, "made", "exec")


def info(id: str, created: str = "1", **more: Any) -> RunInfo:
    means = more.pop("means", ())
    scores = tuple(ScoreMean("b", agent, mean, 1) for agent, mean in means)
    return RunInfo(id, Path(id), created, more.pop("status", "done"), scores=scores, **more)


def test_runs_are_listed_filtered_and_counted() -> None:
    infos = [
        info("r1", "1", config={"model": ["m1", "m2"], "benchmarks": ["quiz"]}, means=[("a", 0.5), ("b", None)], tokens=5,
        command=("firsthand", "run")),
        info("r2", "3", config={"model": "m1", "pattern": "cot"}, means=[("a", 0.25), ("b", 1.0)], num_errors=2,
        num_traces=7),
        info("r3", "2", status="running", num_steps=4, problem="bad"),
    ]  # fmt: skip

    def found(text: str = "", sort: str = "", **more: Any) -> list[str]:
        return [each.id for each in run_page(infos, text, sort, notes={"r3": "My words"}, **more).rows]

    for text, ids in (
        ("", "231"), ("model:m1", "21"), ("model=m2", "1"), ("score>0.5", "2"), ("score<=0.5", "1"), ("has:error", "2"),
        ("-has:error", "31"),
        ("has:score", "21"), ("has:curves", "3"), ("has:problem", "3"), ("has:note", "3"), ("-has:note", "21"),
        ("is:running", "3"),
        ("is:done", "21"), ("is:interrupted", ""), ("note:words", "3"), ("words", "3"), ("quiz", "1"),
        ("command:run", "1"), ("attempts>=7", "2"),
        ("errors<2", "31"), ("tokens=5", "1"), ("steps:4", "3"), ("pattern:cot", "2"), ("id:r", "231"), ("-m1", "3"),
        ("status=run", ""),
    ):  # fmt: skip
        assert found(text) == [f"r{each}" for each in ids], text
    assert (
        found(sort="score") == ["r1", "r2", "r3"]
        and found(sort="-score") == ["r2", "r1", "r3"]
        and found(sort="created") == ["r1", "r3", "r2"]
    )
    assert found(start=1, limit=1) == ["r3"] and found(start=-3, limit=2) == ["r2", "r3"]
    page = run_page(infos, limit=2)
    assert (page.total, page.next_start, run_page(infos, start=2, limit=2).next_start) == (3, 2, None)
    assert page.facets == {
        "status": [("done", 2), ("running", 1)], "benchmark": [("quiz", 1)], "model": [("m1", 2), ("m2", 1)],
        "pattern": [("cot", 1)],
    }  # fmt: skip
    part = run_page(infos, "score>0.5", limit=0)
    assert (part.rows, part.total, part.start, part.next_start) == ((), 1, 0, None)
    assert part.facets == {"status": [("done", 1)], "benchmark": [], "model": [("m1", 1)], "pattern": [("cot", 1)]}
    many = [info(f"r{n}", "1", config={"model": [f"m{n:02}"]}) for n in range(31)]
    assert run_page(many[::-1]).facets["model"] == [(f"m{n:02}", 1) for n in range(30)]
    assert [each.id for each in run_page(many, limit=3).rows] == ["r9", "r8", "r7"], "of one time by their ids"
    with pytest.raises(ConfigError, match="runs cannot be sorted by 'model'"):
        run_page(infos, sort="model")
    assert earlier_run(infos[1], infos) is infos[0] and earlier_run(infos[0], infos) is None
    assert earlier_run(info("r4", "4", means=[("z", 1.0)]), infos) is None
