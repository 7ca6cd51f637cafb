"""The methods of a run, each on two or three attempts: what is kept, found again, counted and refused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.message import Json, user
from firsthand.preference import Preference
from firsthand.runs import run_names, store
from firsthand.runs.database import put
from firsthand.runs.epoch_reducer import check_epochs, epoch_reducer, reduced
from firsthand.runs.run_claims import claim_scoring
from firsthand.runs.run_names import DATABASE, LOCK, _few, _made, _slug, find_run, new_run_id, run_ids
from firsthand.runs.task_groups import TaskGroups, common_groups, same_problem, task_groups, task_strata
from firsthand.system import lock
from firsthand.task import Task
from firsthand.trace import Node, Score
from made_traces import trace


@pytest.fixture
def run(tmp_path: Path) -> Iterator[store.Run]:
    with store.create(tmp_path, {"seed": 1}, "made", command=["run"]) as made:
        yield made


def test_attempts_are_kept_by_place_and_the_latest_try_counts(run: store.Run) -> None:
    first, again = trace("1", "t1", None, place="p"), trace("2", "t1", 0.5, place="p")
    other, loop = trace("3", "t2", 1.0, agent="z", place="q"), trace("4", nodes=(Node(0, user("q")),))
    for made in (first, other, again):
        run.append(made)
    with pytest.raises(StoreError) as circle:
        run.append(loop)
    assert str(circle.value) == "trace 4 has a message whose parent does not come before it: it cannot be kept"
    assert list(run.tried()) == [(other, 1), (again, 2)]
    assert (list(run.traces(agent="z")), list(run.traces(benchmark="none"))) == ([other], [])
    assert ([row.id for row in run.rows(agent="a")], [each.id for each in run.summaries(agent="a")]) == (["2"], ["2"])
    assert (list(run.rows(benchmark="none")), list(run.summaries(benchmark="none"))) == ([], [])
    assert ([row.id for row in run.rows()], [each.id for each in run.summaries(benchmark="b")]) == (
        ["3", "2"],
        ["3", "2"],
    )
    assert (run.tries("p"), run.tries("none")) == ([first, again], [])
    assert (run.done(), run.done(errors=False)) == ({"p", "q"}, {"p", "q"})
    run.append(trace("5", "t1", None, place="p"))
    assert (run.done(), run.done(errors=False)) == ({"p", "q"}, {"q"})
    assert (run.trace("1"), run.trace("2"), run.trace("p").id, run.trace("q")) == (first, again, "5", other)
    with pytest.raises(UnknownName, match=f"no attempt 'x'.*`firsthand runs {run.id}` shows all"):
        run.trace("x")
    with run.database.write() as connection:
        connection.execute("UPDATE traces SET id = 'other', digest = NULL WHERE id = '3'")
    with pytest.raises(StoreError, match="a trace is not the one its row says"):
        list(run.traces())


def test_scores_given_later_are_of_one_try_and_kept_with_it(run: store.Run) -> None:
    made = trace("1", "t1", 0.5, place="p")
    run.append(made)
    run.append(replace(made, id="2"))
    run.append(trace("3", "t2", scores=(), place="q"))
    run.add_score(made, 1, "late", "by hand", Score("late", 0.25))
    assert run.trace("1").scores == (Score("s", 0.5), Score("late", 0.25))
    assert run.trace("2").scores == (Score("s", 0.5),)
    assert [each.scores for each in run.tries("p")] == [run.trace("1").scores, (Score("s", 0.5),)]
    run.add_score(made, 2, "late", "by hand", Score("late", 0.0, failure="E"))
    assert (run.score_names(), run.scored("late"), run.scored("x")) == (
        {"late": "by hand"}, {("p", 1): True, ("p", 2): False}, {},
    )  # fmt: skip
    assert [each.id for each in run.samples("b")] == ["2"]
    run.add_score(trace("3", place="q"), 1, "more", "by hand", Score("more", 1.0))
    assert [each.id for each in run.samples("b")] == ["2", "3"]
    with pytest.raises(StoreError, match=f"run {run.id} has scores named 'late' already, given by by hand"):
        run.add_score(made, 1, "late", "other", Score("late", 1.0))
    assert ([each.attempts for each in run.totals("more")], len(run.task_means())) == ([2], 2)
    assert run.pairs() == [("b", "a")]


def test_agents_replies_and_preferences_are_kept_as_they_were_given(run: store.Run) -> None:
    run.add_agent("z\ud800", {"model": "one"})
    run.add_agent("a", {"n": 1})
    run.add_agent("a", {"n": 1})
    assert run.agents() == {"z\\ud800": {"model": "one"}, "a": {"n": 1}}
    assert list(run.agents()) == ["z\\ud800", "a"]
    with pytest.raises(StoreError) as another:
        run.add_agent("a", {"n": 2})
    assert str(another.value) == (
        f"agent 'a' is not the one that run {run.id} already holds, so their results cannot be mixed: start a new run, or "
        "give it a name of its own"
    )
    assert run.agents()["a"] == {"n": 1}
    tasks = [Task("t1", "?", metadata={"n": 1, "cluster": "c"}), Task("t2", "?", metadata={"n": 2})]
    run.add_tasks("m", tasks)
    assert (run.benchmarks(), run.task("m", "t2"), run.task("m", "t3"), run.tasks()["m", "t1"]) == (
        ["m"], tasks[1], None, tasks[0],
    )  # fmt: skip
    assert list(run.metadata("m", 1)) == [("t1", {"n": 1, "cluster": "c"})]
    assert (len(list(run.metadata("m"))), run.clusters()) == (2, {"m": {"t1": "c"}})
    assert run.clusters("n")["m"].strata == {"t1": "1", "t2": "2"}  # type: ignore[attr-defined]
    for place, reply in (("p", {"n": 1}), ("q", {"n": 2})):
        run.journal(place).record("0:1", "hash\ud800", reply)
    run.journal("p").record("0:2", "other", {"n": 3})
    assert (run.reply("hash\ud800"), run.reply("other"), run.reply("none")) == ({"n": 2}, {"n": 3}, None)
    one = Preference("t\ud800", "1", "2", "a", "human:ada", "2026-01-31T10:00:00+00:00", {"why": "x"})
    two = Preference("t", "1", "2", "both_bad", "judge:m")
    run.add_preference(one)
    run.add_preference(two)
    assert run.preferences() == [one, two]
    assert run.database.read("SELECT task FROM preferences ORDER BY seq") == [("t\\ud800",), ("t",)]
    with run.database.write() as connection:
        connection.execute("UPDATE preferences SET body = ? WHERE seq = 1", (put(connection, {"task_id": "t"}),))
    with pytest.raises(StoreError, match="a record is not what was expected"):
        run.preferences()


def test_a_description_of_another_shape_and_a_changed_row_are_damage(run: store.Run) -> None:
    def described(about: Any) -> None:
        with run.database.write() as connection:
            connection.execute("UPDATE run SET about = ?, digest = NULL", (put(connection, about),))
        vars(run).pop("about", None)

    described({"config": {"reduce": "max"}})
    assert (run.config, run.protocols, run.reducer("b")) == ({"reduce": "max"}, {}, "max")
    assert run.info.command == ()
    described({"config": {}, "protocols": {"b": 5}, "reducers": {"b": "mode"}})
    assert (run.protocols, run.reducer("b"), run.reducer("c")) == ({"b": "5"}, "mode", "mean")
    for wrong in ([], {"config": []}, {"config": {}, "protocols": []}, {"config": {}, "command": {}}, {"reducers": 1}):
        described(wrong)
        with pytest.raises(
            StoreError, match="the description of the run is not an object, or a part of it is another value"
        ):
            _ = run.about
    with run.database.write() as connection:
        connection.execute("UPDATE run SET digest = 5")
    with pytest.raises(StoreError, match="the row that describes the run has been changed"):
        run._row()
    with run.database.write() as connection:
        connection.execute("DELETE FROM run")
    with pytest.raises(StoreError, match="was never begun"):
        run._row()


def test_a_run_is_checked_once_before_its_numbers_are_read(run: store.Run) -> None:
    run.append(trace("1", "t1", 0.5))
    with run.database.write() as connection:
        connection.execute("UPDATE traces SET score = 0.75")
    assert run.totals()[0].sum_means == 0.75, "it was made here"
    run._is_checked = False
    for read in (run.totals, run.task_means, run.spent, run.done, run.score_names, run.pairs, lambda: list(run.rows())):
        with pytest.raises(StoreError, match="1 of the rows in its traces have been changed"):
            read()  # type: ignore[operator]
    with pytest.raises(StoreError, match="have been changed"):
        run.check()
    with run.database.write() as connection:
        connection.execute("UPDATE traces SET score = 0.5")
    assert run.done() == {"bt1a0"}
    assert run._is_checked
    with run.database.write() as connection:
        connection.execute("DELETE FROM bodies WHERE sha256 = (SELECT body FROM traces)")
    run.check()
    with pytest.raises(StoreError, match="a body that its traces refer to is missing"):
        run.check(bodies=True)


def test_scores_of_a_name_are_given_by_one_process_and_its_lock_is_named_by_a_hash(
    run: store.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.0)
    name = "a/b\ud800"
    digest = hashlib.sha256(b"a/b\\ud800").hexdigest()[:12]
    with run.scoring(name):
        assert (run.path / f"scoring-{digest}.lock").exists()
        said = (
            re.escape(f"{run.id} is being given scores named {name!r} by process ") + r"\d+ on .*: wait until it ends"
        )
        with pytest.raises(ConfigError, match=said), claim_scoring(run.path, name):
            pass
        with run.scoring("other"), run.claimed():
            assert run._is_claimed
    with run.scoring(name):
        run.expect_idle()


class Tasks:
    """A run of which only tasks are known."""

    def __init__(self, **known: list[tuple[str, Json]]):
        self.known = known
        self.limits: list[int | None] = []

    def benchmarks(self) -> list[str]:
        return list(self.known)

    def metadata(self, benchmark: str, limit: int | None = None) -> Iterator[tuple[str, Json]]:
        self.limits.append(limit)
        return iter(self.known[benchmark][:limit])


def test_strata_are_read_by_a_key_of_the_first_task_and_one_cluster_alone_is_none() -> None:
    tasks = Tasks(
        m=[("t1", {"stratum": 1, "level": "x"}), ("t2", {"level": "y"}), ("t3", {"stratum": "1"})],
        n=[("t1", {"level": 3})],
        none=[],
    )
    assert task_strata(tasks, None) == {"m": {"t1": "1", "t2": "", "t3": "1"}}
    assert task_strata(tasks, "level") == {"m": {"t1": "x", "t2": "y", "t3": ""}, "n": {"t1": "3"}}
    assert tasks.limits[:4] == [1, None, 1, 1]
    assert task_strata(Tasks(), None) == {}
    odd = Tasks(
        zero=[("t1", {"stratum": 0}), ("t2", {"stratum": 1})], empty=[("t1", {"stratum": ""}), ("t2", {"stratum": "x"})],
        null=[("t1", {"stratum": None})], later=[("t1", {}), ("t2", {"stratum": 1})],
    )  # fmt: skip
    strata = {"zero": {"t1": "0", "t2": "1"}, "empty": {"t1": "", "t2": "x"}, "null": {"t1": "None"}}
    assert task_strata(odd, None) == strata == task_strata(odd, "stratum")
    for key, hint in (("levle", " did you mean 'level'?"), ("zzz", "")):
        with pytest.raises(ConfigError) as unknown:
            task_strata(tasks, key)
        assert str(unknown.value) == f"strata is {key!r}, which no task has;{hint} there are level, stratum"
    with pytest.raises(ConfigError, match=r"^strata is 'x', which no task has; there are none$"):
        task_strata(Tasks(), "x")
    clusters = {"m": {"t1": "c", "t3": "c", "t2": "d"}, "k": {"t9": "e"}}
    found = task_groups(clusters, tasks, None)
    assert found == {"m": {}, "k": {"t9": "e"}}, "both strata are one cluster each"
    assert isinstance(found["m"], TaskGroups)
    assert found["m"].strata == {"t1": "1", "t2": "", "t3": "1"}
    assert TaskGroups({"a": "c", "b": "c", "d": "e"}, {"a": "1", "b": "1", "c": "1", "d": "2"}) == {"a": "c", "b": "c"}
    assert TaskGroups({}, {"a": "1", "b": "1"}) == {}
    plain, grouped, later = {"m": {"a": "p"}}, {"m": TaskGroups({"a": "g"}, {})}, {"m": {"a": "l"}, "n": {"b": "x"}}
    assert common_groups(plain, later) == later
    assert common_groups(grouped, later) == {"m": {"a": "g"}, "n": {"b": "x"}}
    assert common_groups(plain, grouped)["m"] is grouped["m"]
    assert common_groups() == {}
    one = Task("t", "?", metadata={"cluster": 1, "stratum": 2, "level": 3})
    assert same_problem(one, replace(one, metadata={"level": 3, "cluster": 5}))
    assert not same_problem(one, replace(one, metadata={"level": 4}))
    assert not same_problem(one, replace(one, prompt="!"))


def test_several_attempts_are_reduced_by_the_definition_of_each_name() -> None:
    values = (1.0, 0.5, 0.5, 2.0, 0.0)  # two of five are right
    found = {name: None if (made := epoch_reducer(name)) is None else made(values) for name in (
        "", "mean", "median", "max", "mode", "majority", "pass_at_1", "pass_at_2", "pass_at_4", "pass_hat_1", "pass_hat_2",
        "pass_hat_3", "at_least_2", "at_least_3",
    )}  # fmt: skip
    assert found == {
        "": None, "mean": None, "median": 0.5, "max": 2.0, "mode": 0.5, "majority": 0.5, "pass_at_1": 2 / 5,
        "pass_at_2": 1 - 3 / 10, "pass_at_4": 1.0, "pass_hat_1": 2 / 5, "pass_hat_2": 1 / 10, "pass_hat_3": 0.0,
        "at_least_2": 1.0, "at_least_3": 0.0,
    }  # fmt: skip
    mode = epoch_reducer("mode")
    assert mode is not None
    assert (mode((0.0, 1.0, 1.0, 0.0)), mode((1.0, 0.0))) == (0.0, 1.0), "of several the earliest"
    two = epoch_reducer("pass_at_2")
    assert two is not None
    with pytest.raises(ConfigError) as few:
        two((1.0,))
    assert str(few.value) == (
        "reduce is pass_at_2, and a task has 1 scored attempts: give a k of at most that, or more --epochs"
    )
    assert two((1.0, 0.0)) == 1.0
    names = "mean, median, max, mode, majority, pass_at_2, pass_hat_2, at_least_2, these three with any number"
    for name, hint in (("pas_at_2", " did you mean 'pass_at_2'?"), ("medain", " did you mean 'median'?"), ("xyz", "")):
        with pytest.raises(ConfigError) as unknown:
            epoch_reducer(name)
        assert str(unknown.value) == f"reduce is {name!r};{hint} there are {names}"
    check_epochs("at_least_3", 3)
    check_epochs("max", 1)
    with pytest.raises(ConfigError) as epochs:
        check_epochs("at_least_3", 2)
    assert str(epochs.value) == "reduce is at_least_3, and there are 2 epochs: give --epochs 3 or more"
    assert reduced({"a": [1.0, 0.0], "b": []}, "max") == {"a": [1.0], "b": []}
    assert reduced({"a": [1.0, 0.0]}, "mean") == {"a": [1.0, 0.0]}


def test_runs_are_named_and_found_by_id_part_path_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
    assert re.fullmatch("2026-03-04-0506-my-run-[a-z2-9]{4}", new_run_id(made, "My Run!"))
    assert [_slug(name) for name in ("A_b.c", "", "--x--", "y" * 39 + " z")] == ["a-b-c", "run", "x", "y" * 39]
    assert (_few(["a", "b", "c", "d"]), _few(["a", "b", "c", "d", "e"])) == ("a, b, c, d", "a, b, c, d, ...")
    ids = [
        "2026-01-01-0000-sums-aaaa", "2026-01-01-0000-sums-bbbb", "2026-01-02-0000-conversation-cccc",
        "2026-01-01-0001-x-dddd",
    ]  # fmt: skip
    runs = tmp_path / "runs"
    for id in (*ids, ".removed-x"):
        (runs / id).mkdir(parents=True)
        (runs / id / DATABASE).write_text("")
    (runs / "empty").mkdir()
    assert run_ids(tmp_path) == sorted(ids)
    assert run_ids(tmp_path / "none") == []
    with pytest.raises(StoreError) as unreadable:
        run_ids(Path("x" * 5000))
    assert str(unreadable.value).endswith("/runs cannot be read: File name too long; check its permissions")
    (runs / ids[1] / LOCK).write_text("")
    assert _made(runs / ids[1]) == (runs / ids[1] / LOCK).stat().st_mtime_ns
    assert _made(runs / ids[0]) == (runs / ids[0] / DATABASE).stat().st_mtime_ns

    def found(ref: str) -> str:
        return find_run(ref, tmp_path).name

    monkeypatch.chdir(tmp_path)
    refs = (
        "last",
        ids[0],
        "2026-01-02",
        "dddd",
        "x",
        f"runs/{ids[1]}",
        f"runs/{ids[1]}/{DATABASE}",
        str(runs / ids[2]),
    )
    assert [found(ref) for ref in refs] == [ids[3], ids[0], ids[2], ids[3], ids[3], ids[1], ids[1], ids[2]]
    assert find_run(f"runs/{ids[1]}", tmp_path) == (runs / ids[1]).resolve()
    monkeypatch.chdir(runs)
    assert found(ids[1]) == ids[1]
    monkeypatch.chdir(runs / ids[2])
    assert (found("."), find_run(".", tmp_path)) == (ids[2], (runs / ids[2]).resolve())
    with pytest.raises(UnknownName, match="no run ''"):
        found("")
    monkeypatch.chdir(tmp_path)
    for ref, said in (
        ("2026-01-01", f"'2026-01-01' is the beginning of 3 runs ({ids[0]}, {ids[1]}, {ids[3]}): give more of the id"),
        ("Sums", f"2 runs are named 'Sums' ({ids[0]}, {ids[1]}): give the id of one"),
        ("..", "'..' is not the folder of a run: it has no run.sqlite. `firsthand runs` shows all"),
        ("a/b", "'a/b' is not the folder of a run: it has no run.sqlite. `firsthand runs` shows all"),
        ("lost", "no run 'lost'; did you mean 'last'? `firsthand runs` shows all"),
        ("", "no run ''; `firsthand runs` shows all"),
        ("!", "no run '!'; `firsthand runs` shows all"),
    ):
        with pytest.raises(UnknownName) as unknown:
            found(ref)
        assert str(unknown.value) == said
    assert run_names._holds_run(Path("x" * 5000)) is False


def test_of_two_runs_that_know_strata_the_last_counts_and_tasks_without_a_cluster_stay_alone() -> None:
    clusters = {"t1": "c", "t2": "c", "t3": "d", "t4": "d"}
    first = TaskGroups(clusters, {"t1": "x", "t2": "x", "t3": "y", "t4": "y", "t5": "y", "t6": "z", "t7": "z"})
    assert (dict(first), first.strata["t5"]) == ({"t3": "d", "t4": "d"}, "y"), "x is one cluster, and z has none"
    last = TaskGroups({"t1": "e", "t2": "f"}, {"t1": "x", "t2": "x"})
    plain = {"t1": "g"}
    for runs, counts in (
        ((first, last), last), ((last, first), first), ((first, plain), first), ((plain, first), first),
        (({"t1": "h"}, plain), plain), ((first, plain, last, plain), last),
    ):  # fmt: skip
        found = common_groups(*({"b": each} for each in runs))
        assert list(found) == ["b"] and found["b"] is counts
    assert common_groups() == {}
